//! What an alert has to tell, and when: which incidents stand, which of them wait to be told together, which are told again, which are over.
//! A function of notices and the time it is given.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use weir_engine::{
    Summary,
    scheduler::{Notice, Outcome, TaskRef},
};
use weir_pipelines::{Alert, Cause, ShareMax};

use super::message::{Incident, Item, Message};
use crate::server::control::LastEnded;

/// Bytes of an error that are told; the log and the history have all of it.
const TEXT_MAX: usize = 1000;
/// After the first try in vain, and at most, until the next.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// After so long in vain, a message is given up; what still stands is told again when its time comes.
const GIVE_UP: Duration = Duration::from_secs(3600);
/// Incidents that are kept at once: one pipeline has a few, and a project some thousand pipelines.
const INCIDENTS_MAX: usize = 20_000;

/// An instant: on the clock that people read, and since the server started, which no change of that clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// On the clock.
    pub at: DateTime<Utc>,
    /// Since the start.
    pub since: Duration,
}

/// One alert's incidents.
#[derive(Debug)]
pub struct Desk {
    alert: Alert,
    group: Duration,
    repeat: Duration,
    standing: BTreeMap<Key, Standing>,
    /// What is to be told next.
    waiting: BTreeMap<Key, Item>,
    /// When the oldest of it came.
    since: Option<Duration>,
    /// The next try is not made before.
    not_before: Duration,
    /// Tries in vain, and the first of them.
    tries: u32,
    vain_since: Option<Duration>,
}

type Key = (String, Cause);

/// An incident that is not over.
#[derive(Debug)]
struct Standing {
    incident: Incident,
    /// When it was told last, or when it would have been by a server before this one; none while it waits to be.
    told: Option<Duration>,
}

impl Desk {
    /// Nothing has happened. `group` and `repeat` are the kind's own where the alert does not say them.
    pub fn new(alert: Alert, group: Duration, repeat: Duration) -> Self {
        let (group, repeat) = (alert.group.unwrap_or(group), alert.repeat.unwrap_or(repeat));
        Self {
            alert,
            group,
            repeat,
            standing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            since: None,
            not_before: Duration::ZERO,
            tries: 0,
            vain_since: None,
        }
    }

    /// How long until what stands is told again.
    pub fn repeat(&self) -> Duration {
        self.repeat
    }

    /// Whether anything is not over.
    pub fn is_standing(&self) -> bool {
        !self.standing.is_empty()
    }

    /// Takes what has happened.
    pub fn take(&mut self, notice: &Notice, now: Now) {
        match notice {
            Notice::Ended { task, outcome: Outcome::Published, summary, .. } => self.published(task, summary.as_deref(), now),
            // What a person or the next run stopped is as it was meant; what is tried again has not failed yet.
            Notice::Ended { task, outcome: Outcome::Failed, code, error, retry_at: None, .. } => {
                let text = error.clone().unwrap_or_else(|| "the run failed".to_owned());
                self.raise(&task.pipeline, Cause::Failed, Some(task), code.clone(), text, now);
            }
            Notice::Late { task, deadline_ms } => {
                let deadline = weir_pipelines::units::shown(Duration::from_millis(*deadline_ms));
                let text = format!("not published within {deadline} after it was due");
                self.raise(&task.pipeline, Cause::Late, Some(task), None, text, now);
            }
            Notice::Broken { pipeline, message } => self.raise(pipeline, Cause::Broken, None, None, message.clone(), now),
            Notice::Mended { pipeline } => self.end(pipeline, Cause::Broken, None, now),
            _ => {}
        }
    }

    fn published(&mut self, task: &TaskRef, summary: Option<&Summary>, now: Now) {
        let (pipeline, run) = (&task.pipeline, task.run.as_deref());
        for cause in [Cause::Failed, Cause::Late] {
            self.end(pipeline, cause, run, now);
        }
        let Some(summary) = summary else { return };
        if summary.rows_loaded == 0 {
            let text = format!("published without a row: {} were read", summary.rows_read);
            self.raise(pipeline, Cause::NoRows, Some(task), None, text, now);
        } else {
            self.end(pipeline, Cause::NoRows, run, now);
        }
        let rejected = summary.rows_quarantined + summary.rows_dropped;
        if is_more(rejected, summary.rows_read, self.alert.max_rejected) {
            let text = format!("{rejected} of {} rows were rejected", summary.rows_read);
            self.raise(pipeline, Cause::Rejected, Some(task), None, text, now);
        } else {
            self.end(pipeline, Cause::Rejected, run, now);
        }
    }

    fn raise(&mut self, pipeline: &str, cause: Cause, task: Option<&TaskRef>, code: Option<String>, text: String, now: Now) {
        if !self.alert.on.contains(&cause) || !self.alert.covers(pipeline) {
            return;
        }
        let key = (pipeline.to_owned(), cause);
        if !self.standing.contains_key(&key) && self.standing.len() + self.waiting.len() >= INCIDENTS_MAX {
            return;
        }
        let before = self.standing.get(&key).map(|standing| (standing.incident.since, standing.incident.times, standing.told));
        let (since, times, told) = before.unwrap_or((now.at, 0, None));
        let incident = Incident {
            pipeline: pipeline.to_owned(),
            cause,
            since,
            last: now.at,
            times: times + 1,
            text: shortened(text),
            code,
            run: task.and_then(|task| task.run.clone()),
            interval: task.and_then(|task| task.interval),
        };
        // What was told is told again when its time comes, and not for each time that it happens.
        if told.is_none() {
            self.wait(key.clone(), Item { incident: incident.clone(), over: None, is_repeat: false }, now);
        }
        self.standing.insert(key, Standing { incident, told });
    }

    /// An incident is over, where it stood.
    fn end(&mut self, pipeline: &str, cause: Cause, run: Option<&str>, now: Now) {
        let key = (pipeline.to_owned(), cause);
        let Some(Standing { incident, .. }) = self.standing.remove(&key) else { return };
        if self.alert.on.contains(&Cause::Recovered) {
            let incident = Incident { run: run.map(str::to_owned).or(incident.run), ..incident };
            self.wait(key, Item { incident, over: Some(now.at), is_repeat: false }, now);
        }
    }

    fn wait(&mut self, key: Key, item: Item, now: Now) {
        self.waiting.insert(key, item);
        self.since.get_or_insert(now.since);
    }

    /// Takes how runs ended before this server started: what failed stands, and a server before has told it.
    pub fn recall(&mut self, ended: &[LastEnded], now: Now) {
        for last in ended.iter().filter(|last| !last.published) {
            if self.alert.on.contains(&Cause::Failed) && self.alert.covers(&last.pipeline) && self.standing.len() < INCIDENTS_MAX {
                let text = shortened(last.error.clone().unwrap_or_else(|| "the run failed".to_owned()));
                let (pipeline, run, code) = (last.pipeline.clone(), Some(last.run.clone()), last.code.clone());
                let incident =
                    Incident { pipeline, cause: Cause::Failed, since: last.at, last: last.at, times: 1, text, code, run, interval: None };
                self.standing.insert((last.pipeline.clone(), Cause::Failed), Standing { incident, told: Some(now.since) });
            }
        }
    }

    /// Takes how runs ended on whichever server: what was published since it failed here is over.
    pub fn settle(&mut self, ended: &[LastEnded], now: Now) {
        for last in ended.iter().filter(|last| last.published) {
            for cause in [Cause::Failed, Cause::Late] {
                let key = (last.pipeline.clone(), cause);
                if self.standing.get(&key).is_some_and(|standing| standing.incident.last < last.at) {
                    self.end(&last.pipeline, cause, Some(&last.run), now);
                }
            }
        }
    }

    /// When [`Self::message`] will have something to tell; none while nothing stands and nothing waits.
    pub fn due(&self) -> Option<Duration> {
        let first = self.since.map(|since| since + self.group);
        let again = self.standing.values().filter_map(|standing| Some(standing.told? + self.repeat)).min();
        let due = match (first, again) {
            (Some(first), Some(again)) => first.min(again),
            (first, again) => first.or(again)?,
        };
        Some(due.max(self.not_before))
    }

    /// Takes what is to be told by now. `all`: what waits for others of its group, too.
    pub fn message(&mut self, now: Now, all: bool) -> Option<Message> {
        if !all && self.due().is_none_or(|due| due > now.since) {
            return None;
        }
        let is_group_due = all || self.since.is_some_and(|since| since + self.group <= now.since);
        let mut items = if is_group_due { std::mem::take(&mut self.waiting) } else { BTreeMap::new() };
        if is_group_due {
            self.since = None;
        }
        for (key, standing) in self.standing.iter_mut() {
            let is_again = standing.told.is_some_and(|told| told + self.repeat <= now.since);
            if is_again && !items.contains_key(key) {
                items.insert(key.clone(), Item { incident: standing.incident.clone(), over: None, is_repeat: true });
            }
            if items.contains_key(key) {
                standing.told = Some(now.since);
            }
        }
        (!items.is_empty()).then(|| Message { alert: self.alert.name.clone(), at: now.at, items: items.into_values().collect() })
    }

    /// The message was taken.
    pub fn sent(&mut self) {
        (self.tries, self.vain_since, self.not_before) = (0, None, Duration::ZERO);
    }

    /// The message was not taken: it is tried again after a while, with what has happened meanwhile. True where it is given up instead.
    pub fn unsent(&mut self, message: Message, now: Now) -> bool {
        let vain_since = *self.vain_since.get_or_insert(now.since);
        self.tries = self.tries.saturating_add(1);
        self.not_before = now.since + PAUSE.saturating_mul(1 << (self.tries - 1).min(16)).min(PAUSE_MAX);
        if now.since.saturating_sub(vain_since) > GIVE_UP {
            (self.tries, self.vain_since) = (0, None);
            return true;
        }
        for item in message.items {
            let key = (item.incident.pipeline.clone(), item.incident.cause);
            // What has happened since says more.
            if !self.waiting.contains_key(&key) && self.waiting.len() < INCIDENTS_MAX {
                self.waiting.insert(key, item);
            }
        }
        // It has waited for its group already.
        self.since = Some(now.since.saturating_sub(self.group));
        false
    }
}

fn is_more(rejected: u64, read: u64, max: ShareMax) -> bool {
    match max {
        ShareMax::Rows(rows) => rejected > rows,
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        ShareMax::Share(share) => rejected as f64 > share * read as f64,
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
