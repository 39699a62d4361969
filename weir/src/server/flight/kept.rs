//! What is kept between calls? Prepared statements and tickets of each user, and which queries run, under names that nobody guesses.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;
use weir_connectors::Blame;
use weir_engine::{
    Failure,
    query::{Prepared, Session},
};

/// A statement that nobody has used for so long is closed.
const STATEMENT_AGE: Duration = Duration::from_secs(30 * 60);
/// A ticket that nobody has come with for so long opens nothing.
const TICKET_AGE: Duration = Duration::from_secs(5 * 60);
/// Statements of a user at once, and tickets.
const EACH_MAX: usize = 100;
/// Bytes of a user's statements at once, and of their tickets: texts, and values that are bound.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of chance in a handle.
const CHANCE_BYTES: usize = 16;

const UNPOISONED: &str = "nothing panics while it holds this lock";

/// The name of something kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle([u8; CHANCE_BYTES]);

impl Handle {
    /// Makes one.
    fn new() -> Result<Self, Failure> {
        let mut chance = [0; CHANCE_BYTES];
        getrandom::fill(&mut chance).map_err(|error| {
            Failure::error("no-random-numbers", format!("the system gives no random numbers: {error}")).blame(Blame::System)
        })?;
        Ok(Self(chance))
    }

    /// As a client sends it; none where it cannot be one of ours.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// As it is sent.
    pub fn bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// A query with what it is executed by.
#[derive(Clone)]
pub struct Statement {
    /// Whose limits and scopes it has.
    pub session: Arc<Session>,
    /// The query.
    pub prepared: Prepared,
    /// Values of `$1`, `$2` …
    pub parameters: Parameters,
    /// Bytes of its text.
    pub text_bytes: usize,
}

impl Statement {
    fn bytes(&self) -> usize {
        self.text_bytes + self.parameters.bytes
    }
}

/// Values that a client has bound.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// The values, by their places.
    pub values: Vec<ScalarValue>,
    /// What they hold in memory: a list holds the message that it came in.
    pub bytes: usize,
}

struct Kept<T> {
    owner: String,
    at: Instant,
    bytes: usize,
    thing: T,
}

/// Everything that is kept. Owners are told apart by their tokens: a token that is made anew under an old name opens nothing of the old one's.
#[derive(Default)]
pub struct Shelf {
    statements: Mutex<HashMap<Handle, Kept<Statement>>>,
    tickets: Mutex<HashMap<Handle, Kept<Statement>>>,
    running: Mutex<HashMap<Handle, Kept<CancellationToken>>>,
}

impl Shelf {
    /// Keeps a statement until it is closed, or nobody has used it for 30 minutes.
    pub fn keep(&self, owner: &str, statement: Statement) -> Result<Handle, Failure> {
        put(&self.statements, STATEMENT_AGE, owner, statement.bytes(), statement).map_err(|failure| {
            failure.help("close those that are not needed any more; one that nobody uses for 30 minutes is closed by itself")
        })
    }

    /// A statement of this owner, which counts as used.
    pub fn statement(&self, owner: &str, handle: &[u8]) -> Result<Statement, Failure> {
        with(&self.statements, STATEMENT_AGE, owner, handle, |statement| statement.clone()).ok_or_else(unknown_statement)
    }

    /// Gives a statement of this owner its values.
    pub fn bind(&self, owner: &str, handle: &[u8], parameters: Parameters) -> Result<(), Failure> {
        let mut all = lock(&self.statements);
        let of_all = bytes_of(&all, owner);
        let kept = find(&mut all, STATEMENT_AGE, owner, handle).ok_or_else(unknown_statement)?;
        let bytes = kept.thing.text_bytes + parameters.bytes;
        if of_all - kept.bytes + bytes > BYTES_MAX {
            return Err(too_large().help("bind less, or close statements that are not needed any more"));
        }
        (kept.bytes, kept.thing.parameters) = (bytes, parameters);
        Ok(())
    }

    /// Closes a statement of this owner. One that is not there is closed already.
    pub fn close(&self, owner: &str, handle: &[u8]) {
        take(&self.statements, owner, handle);
    }

    /// Keeps a query for one who comes with its ticket, once, within five minutes.
    pub fn ticket(&self, owner: &str, statement: Statement) -> Result<Handle, Failure> {
        put(&self.tickets, TICKET_AGE, owner, statement.bytes(), statement)
            .map_err(|failure| failure.help("fetch what you have asked for; a ticket that nobody comes with is void after 5 minutes"))
    }

    /// Takes what a ticket of this owner stands for.
    pub fn redeem(&self, owner: &str, ticket: &[u8]) -> Result<(Handle, Statement), Failure> {
        let found = take(&self.tickets, owner, ticket).filter(|(_, kept)| kept.at.elapsed() < TICKET_AGE);
        found.map(|(handle, kept)| (handle, kept.thing)).ok_or_else(|| {
            Failure::error("unknown-ticket", "there is no such ticket")
                .help("a ticket is good for one call of the user who asked, within 5 minutes; ask again with GetFlightInfo")
        })
    }

    /// Notes that a query runs; it runs no longer when what is returned is dropped, which cancels it, too.
    pub fn running(self: &Arc<Self>, owner: &str, ticket: Option<Handle>, cancel: CancellationToken) -> Result<Running, Failure> {
        let handle = ticket.map_or_else(Handle::new, Ok)?;
        let kept = Kept { owner: owner.to_owned(), at: Instant::now(), bytes: 0, thing: cancel.clone() };
        lock(&self.running).insert(handle, kept);
        Ok(Running { shelf: self.clone(), handle, cancel })
    }

    /// Cancels what a ticket of this owner stands for, whether it runs or waits to be fetched; false where there is no such query.
    pub fn cancel(&self, owner: &str, ticket: &[u8]) -> bool {
        let waited = take(&self.tickets, owner, ticket).is_some();
        let ran = take(&self.running, owner, ticket).map(|(_, kept)| kept.thing.cancel()).is_some();
        waited || ran
    }

    /// Drops what is too old.
    pub fn sweep(&self) {
        lock(&self.statements).retain(|_, kept| kept.at.elapsed() < STATEMENT_AGE);
        lock(&self.tickets).retain(|_, kept| kept.at.elapsed() < TICKET_AGE);
    }
}

/// A query that runs, for as long as this lives.
pub struct Running {
    shelf: Arc<Shelf>,
    handle: Handle,
    cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
        lock(&self.shelf.running).remove(&self.handle);
    }
}

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().expect(UNPOISONED)
}

fn put<T>(all: &Mutex<HashMap<Handle, Kept<T>>>, age: Duration, owner: &str, bytes: usize, thing: T) -> Result<Handle, Failure> {
    let handle = Handle::new()?;
    let mut all = lock(all);
    all.retain(|_, kept| kept.at.elapsed() < age);
    if all.values().filter(|kept| kept.owner == owner).count() >= EACH_MAX {
        return Err(Failure::error("too-many-statements", format!("this user has {EACH_MAX} statements or tickets open already")));
    }
    if bytes_of(&all, owner) + bytes > BYTES_MAX {
        return Err(too_large());
    }
    all.insert(handle, Kept { owner: owner.to_owned(), at: Instant::now(), bytes, thing });
    Ok(handle)
}

fn with<T, R>(
    all: &Mutex<HashMap<Handle, Kept<T>>>,
    age: Duration,
    owner: &str,
    handle: &[u8],
    use_it: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let mut all = lock(all);
    find(&mut all, age, owner, handle).map(|kept| use_it(&mut kept.thing))
}

/// What a handle of this owner stands for, which counts as used.
fn find<'a, T>(all: &'a mut HashMap<Handle, Kept<T>>, age: Duration, owner: &str, handle: &[u8]) -> Option<&'a mut Kept<T>> {
    let kept = all.get_mut(&Handle::read(handle)?).filter(|kept| kept.owner == owner && kept.at.elapsed() < age)?;
    kept.at = Instant::now();
    Some(kept)
}

fn bytes_of<T>(all: &HashMap<Handle, Kept<T>>, owner: &str) -> usize {
    all.values().filter(|kept| kept.owner == owner).map(|kept| kept.bytes).sum()
}

fn too_large() -> Failure {
    Failure::error("too-many-statements", format!("this user's statements or tickets have {BYTES_MAX} bytes at most, with their values"))
}

fn take<T>(all: &Mutex<HashMap<Handle, Kept<T>>>, owner: &str, handle: &[u8]) -> Option<(Handle, Kept<T>)> {
    let handle = Handle::read(handle)?;
    let mut all = lock(all);
    let kept = all.get(&handle).is_some_and(|kept| kept.owner == owner).then(|| all.remove(&handle)).flatten()?;
    Some((handle, kept))
}

fn unknown_statement() -> Failure {
    Failure::error("unknown-statement", "there is no such prepared statement")
        .help("a statement is its user's own, until it is closed or nobody has used it for 30 minutes; prepare it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf_of(owner: &str) -> (Mutex<HashMap<Handle, Kept<u32>>>, Handle) {
        let all = Mutex::default();
        let handle = put(&all, STATEMENT_AGE, owner, 1, 7).expect("there is room");
        (all, handle)
    }

    #[test]
    fn a_handle_opens_nothing_of_somebody_else() {
        let (all, handle) = shelf_of("ann");
        assert_eq!(with(&all, STATEMENT_AGE, "bob", &handle.bytes(), |thing| *thing), None);
        assert!(take(&all, "bob", &handle.bytes()).is_none());
        assert_eq!(with(&all, STATEMENT_AGE, "ann", &handle.bytes(), |thing| *thing), Some(7));
        assert!(take(&all, "ann", &handle.bytes()).is_some());
        assert!(take(&all, "ann", &handle.bytes()).is_none(), "it is taken once");
    }

    #[test]
    fn what_is_no_handle_opens_nothing() {
        let (all, handle) = shelf_of("ann");
        let long = [handle.bytes(), vec![0]].concat();
        for bytes in [b"".as_slice(), b"1", &long, &[0; CHANCE_BYTES]] {
            assert!(take(&all, "ann", bytes).is_none());
        }
    }

    #[test]
    fn each_user_has_so_many_and_old_ones_go() {
        let (all, _) = shelf_of("ann");
        for _ in 1..EACH_MAX {
            put(&all, STATEMENT_AGE, "ann", 1, 7).expect("there is room");
        }
        let full = put(&all, STATEMENT_AGE, "ann", 1, 7).expect_err("no room");
        assert_eq!(full.sentence(), "this user has 100 statements or tickets open already");
        put(&all, STATEMENT_AGE, "bob", 1, 7).expect("there is room for others");
        put(&all, Duration::ZERO, "ann", 1, 7).expect("old ones have gone");
        assert_eq!(all.lock().expect(UNPOISONED).len(), 1);
    }

    #[test]
    fn each_user_has_so_many_bytes() {
        let (all, handle) = shelf_of("ann");
        put(&all, STATEMENT_AGE, "ann", BYTES_MAX - 1, 7).expect("there is room");
        let full = put(&all, STATEMENT_AGE, "ann", 1, 7).expect_err("no room");
        assert_eq!(full.sentence(), "this user's statements or tickets have 16777216 bytes at most, with their values");
        put(&all, STATEMENT_AGE, "bob", BYTES_MAX, 7).expect("there is room for others");
        take(&all, "ann", &handle.bytes());
        put(&all, STATEMENT_AGE, "ann", 1, 7).expect("there is room again");
    }

    #[test]
    fn a_query_is_cancelled_by_its_user_and_by_nobody_else() {
        let shelf = Arc::new(Shelf::default());
        let cancel = CancellationToken::new();
        let running = shelf.running("ann", None, cancel.clone()).expect("chance");
        let ticket = running.handle.bytes();
        assert!(!shelf.cancel("bob", &ticket) && !cancel.is_cancelled());
        assert!(shelf.cancel("ann", &ticket) && cancel.is_cancelled());
        let other = CancellationToken::new();
        drop(shelf.running("ann", None, other.clone()).expect("chance"));
        assert!(other.is_cancelled(), "one whose reader has gone is cancelled");
        drop(running);
        assert!(shelf.running.lock().expect(UNPOISONED).is_empty());
    }
}
