//! The door that speaks Postgres's protocol: `[server.sql] postgres` in weir.toml. What a statement may do and cost is decided by the
//! engine's session behind it; here it is told and asked as clients of Postgres tell and ask.
//!
//! | file | question |
//! |---|---|
//! | `connection` | how does a client connect, and what does it say then? |
//! | `auth` | who is it? |
//! | `command` | what do its statements ask for? |
//! | `query`, `session` | how are they answered? |
//! | `portal` | where do the rows of a portal or a cursor stand? |
//! | `room` | how much may a connection keep? |
//! | `refused` | what is logged of a statement that never comes to the engine? |
//! | `parameters`, `values`, `temporal` | how do values come and go? |
//! | `copy`, `settings`, `error`, `wire` | COPY, parameters, errors, bytes |
//!
//! `pgwire` does the SCRAM exchange. Its loop and its messages are not used: it reads bodies without a bound on where they end, notices
//! neither a client that leaves nor a cancel request once rows flow, and holds all rows that a portal is asked for in memory.

mod auth;
mod command;
mod connection;
mod copy;
mod error;
mod parameters;
mod portal;
mod query;
mod refused;
mod room;
mod session;
mod settings;
mod temporal;
mod values;
mod wire;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_engine::query::Catalogue;

use super::{tls::Tls, users::Users};
use auth::Secrets;

/// Connections at once, those that have not said who they are among them.
const CONNECTIONS_MAX: usize = 64;
/// From the first byte to the end of the authentication.
const STARTUP: Duration = Duration::from_secs(10);
/// Without a statement for so long, a connection ends.
const IDLE: Duration = Duration::from_secs(3600);
/// After a failed accept, as when there are no more files: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// The protocol's name where a client begins with TLS at once.
const ALPN: &[u8] = b"postgresql";

/// What every connection shares.
pub(super) struct Shared {
    catalogue: Arc<Catalogue>,
    users: Arc<Users>,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    secrets: Secrets,
    running: Running,
    stop: CancellationToken,
}

/// What cancel requests are for: by process number, the secret and the token of what a connection is doing.
#[derive(Default)]
struct Running {
    next: AtomicI32,
    connections: Mutex<HashMap<i32, Arc<Cancel>>>,
}

/// One connection, as a cancel request sees it.
struct Cancel {
    secret: Vec<u8>,
    /// The token of the statement under way.
    statement: Mutex<CancellationToken>,
}

impl Running {
    fn register(&self, secret: Vec<u8>) -> (i32, Arc<Cancel>) {
        let cancel = Arc::new(Cancel { secret, statement: Mutex::default() });
        let mut connections = self.connections.lock().expect("nothing panics while it holds this lock");
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed).rem_euclid(i32::MAX) + 1;
            if let std::collections::hash_map::Entry::Vacant(place) = connections.entry(number) {
                place.insert(cancel.clone());
                return (number, cancel);
            }
        }
    }

    fn forget(&self, number: i32) {
        self.connections.lock().expect("nothing panics while it holds this lock").remove(&number);
    }

    /// Cancels what a connection is doing, if the secret is right. Nobody is told whether it was.
    fn cancel(&self, number: i32, secret: &[u8]) {
        let found = self.connections.lock().expect("nothing panics while it holds this lock").get(&number).cloned();
        let Some(found) = found else { return };
        // Every byte is looked at, however early one differs.
        let differ = found.secret.iter().zip(secret).fold(found.secret.len() ^ secret.len(), |sum, (a, b)| sum | usize::from(a ^ b));
        if differ == 0 {
            found.statement.lock().expect("nothing panics while it holds this lock").cancel();
        }
    }
}

/// Answers whoever connects. When `stop` is cancelled, no more connections are taken, statements end, and the task returns.
pub fn start(
    listener: TcpListener,
    catalogue: Arc<Catalogue>,
    users: Arc<Users>,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let shared = Arc::new(Shared {
        catalogue,
        users,
        acceptor: tls.as_ref().map(|tls| tls.acceptor(&[ALPN])),
        secrets: Secrets::new(tls.map(|tls| tls.certificate_pem().to_vec())),
        running: Running::default(),
        stop,
    });
    tokio::spawn(accept(listener, shared))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // What fails here costs a delay only.
                let _ = stream.set_nodelay(true);
                let place = places.clone().try_acquire_owned().ok();
                let shared = shared.clone();
                connections.spawn(async move {
                    match place {
                        Some(_place) => connection::serve(stream, peer, shared).await,
                        // One place more, to say so; and no longer than that takes.
                        None => connection::turn_away(stream, &shared).await,
                    }
                });
            }
            Err(error) => {
                let is_peer = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted);
                if !is_peer {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    connections.close();
    connections.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_cancels() {
        let running = Running::default();
        let (number, cancel) = running.register(vec![1, 2, 3, 4]);
        let (other, _) = running.register(vec![1, 2, 3, 4]);
        assert_ne!(number, other);
        for wrong in [&[1, 2, 3][..], &[1, 2, 3, 5], &[], &[1, 2, 3, 4, 5]] {
            running.cancel(number, wrong);
            assert!(!cancel.statement.lock().expect("whole").is_cancelled(), "{wrong:?}");
        }
        running.cancel(number, &[1, 2, 3, 4]);
        assert!(cancel.statement.lock().expect("whole").is_cancelled());
        running.forget(number);
        running.cancel(number, &[1, 2, 3, 4]);
    }
}
