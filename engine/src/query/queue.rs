//! Whose statement is next? So many are answered at once; of those that wait, the turn is of the user who has the fewest at work.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, Result};
use weir_connectors::Retry;

/// Statements of one user that may wait.
const WAITING_MAX: usize = 100;
/// Statements of all users that may wait.
const ALL_WAITING_MAX: usize = 1000;

/// A queue that is fair to users. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    most: usize,
    lanes: Arc<Mutex<Lanes>>,
}

#[derive(Debug, Default)]
struct Lanes {
    at_work: usize,
    of_user: HashMap<String, usize>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    user: String,
    most: usize,
    turn: oneshot::Sender<Turn>,
}

/// The right to be answered; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    user: String,
    queue: Queue,
}

impl Queue {
    /// So many statements at once.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), lanes: Arc::default() }
    }

    /// Waits for a turn. `most` are answered at once of this user.
    pub async fn turn(&self, user: &str, most: Option<u32>, wait: Duration, cancel: &CancellationToken) -> Result<Turn> {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX).max(1));
        let turn = {
            let mut lanes = self.lanes.lock();
            let own = lanes.of_user.get(user).copied().unwrap_or_default();
            // Who waits was refused a place that is still taken: whoever comes now overtakes nobody.
            if lanes.at_work < self.most && own < most {
                return Ok(self.take(&mut lanes, user.to_owned()));
            }
            lanes.waiting.retain(|waiter| !waiter.turn.is_closed());
            let waiting = lanes.waiting.iter().filter(|waiter| waiter.user == user).count();
            if waiting >= WAITING_MAX || lanes.waiting.len() >= ALL_WAITING_MAX {
                return Err(busy(format!("{waiting} statements of \"{user}\" wait already")));
            }
            let (send, receive) = oneshot::channel();
            lanes.waiting.push_back(Waiter { user: user.to_owned(), most, turn: send });
            receive
        };
        tokio::select! {
            turn = turn => turn.map_err(|_| busy("the server stops".into())),
            () = cancel.cancelled() => Err(super::cancelled()),
            () = tokio::time::sleep(wait) => Err(busy(format!("no turn within {}", weir_pipelines::units::shown(wait)))),
        }
    }

    /// Statements that are answered now, and that wait.
    pub fn counts(&self) -> (usize, usize) {
        let lanes = self.lanes.lock();
        (lanes.at_work, lanes.waiting.iter().filter(|waiter| !waiter.turn.is_closed()).count())
    }

    fn take(&self, lanes: &mut Lanes, user: String) -> Turn {
        lanes.at_work += 1;
        *lanes.of_user.entry(user.clone()).or_default() += 1;
        Turn { user, queue: self.clone() }
    }

    fn give_back(&self, user: &str) {
        let mut lanes = self.lanes.lock();
        lanes.at_work -= 1;
        if let Some(own) = lanes.of_user.get_mut(user) {
            *own -= 1;
            if *own == 0 {
                lanes.of_user.remove(user);
            }
        }
        let mut unwanted = Vec::new();
        while lanes.at_work < self.most {
            let own = |waiter: &Waiter| lanes.of_user.get(&waiter.user).copied().unwrap_or_default();
            let may = |waiter: &Waiter| !waiter.turn.is_closed() && own(waiter) < waiter.most;
            let next = lanes.waiting.iter().enumerate().filter(|(_, waiter)| may(waiter)).min_by_key(|(at, waiter)| (own(waiter), *at));
            let Some(at) = next.map(|(at, _)| at) else { break };
            let waiter = lanes.waiting.remove(at).expect("it was found there");
            let turn = self.take(&mut lanes, waiter.user);
            // Who has just given up hands the turn back, once the lock is free.
            if let Err(turn) = waiter.turn.send(turn) {
                unwanted.push(turn);
            }
        }
        drop(lanes);
        drop(unwanted);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.give_back(&self.user);
    }
}

fn busy(why: String) -> Failure {
    Failure::error("busy", format!("the statement is not answered: {why}")).retry(Retry::Later).help("try again later")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_turn_is_of_who_has_the_fewest_at_work() {
        let (queue, cancel) = (Queue::new(2), CancellationToken::new());
        let first = queue.turn("a", None, SOON, &cancel).await.expect("free");
        let second = queue.turn("a", None, SOON, &cancel).await.expect("free");
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for user in ["a", "a", "b"] {
            let (queue, cancel, order) = (queue.clone(), cancel.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let turn = queue.turn(user, None, SOON, &cancel).await.expect("a turn");
                order.lock().push(user);
                turn
            }));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(queue.counts(), (2, 3));
        drop(first);
        let turn = waiting.remove(2).await.expect("no panic");
        assert_eq!(*order.lock(), ["b"], "though it came last");
        drop((turn, second));
        for waiter in waiting {
            drop(waiter.await.expect("no panic"));
        }
        assert_eq!(queue.counts(), (0, 0));
        assert!(queue.lanes.lock().of_user.is_empty());
    }

    #[tokio::test]
    async fn a_user_has_no_more_than_theirs_and_who_gives_up_holds_up_nobody() {
        let (queue, cancel) = (Queue::new(8), CancellationToken::new());
        let own = queue.turn("a", Some(1), SOON, &cancel).await.expect("free");
        let failure = queue.turn("a", Some(1), Duration::from_millis(30), &cancel).await.expect_err("one at once");
        assert_eq!(failure.sentence(), "the statement is not answered: no turn within 30ms");
        let other = queue.turn("b", Some(1), SOON, &cancel).await.expect("another's place is free");
        drop(own);
        let again = queue.turn("a", Some(1), SOON, &cancel).await.expect("free again");
        drop((other, again));
        assert_eq!(queue.counts(), (0, 0));
    }
}
