//! Ctrl-C and SIGTERM: the first one asks to stop, the second one ends the process.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::context::to_stderr;
use crate::render::error::INTERRUPTED;

/// Listens for signals and cancels what runs.
#[derive(Debug, Clone)]
pub struct Signals {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    token: CancellationToken,
    /// What is said when the first signal comes; nothing where the end is immediate.
    said: &'static str,
}

/// What a signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Say(&'static str),
    End,
}

impl Signals {
    /// Starts to listen; needs a running tokio runtime.
    pub fn listen() -> Self {
        let signals = Self::silent();
        let listener = signals.clone();
        tokio::spawn(async move {
            let Ok(mut source) = Source::new() else { return };
            loop {
                source.next().await;
                match listener.take() {
                    Then::Say("") => {}
                    Then::Say(text) => to_stderr(text),
                    Then::End =>
                    {
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "a second Ctrl-C ends at once; the next run discards what this one staged"
                        )]
                        std::process::exit(i32::from(INTERRUPTED))
                    }
                }
            }
        });
        signals
    }

    fn silent() -> Self {
        Self { state: Arc::new(Mutex::new(State { token: CancellationToken::new(), said: "" })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn take(&self) -> Then {
        let state = self.lock();
        if state.token.is_cancelled() {
            return Then::End;
        }
        state.token.cancel();
        Then::Say(state.said)
    }

    /// The token that the next signal cancels.
    pub fn token(&self) -> CancellationToken {
        self.lock().token.clone()
    }

    /// Sets a new token for one piece of work, and what is said when it is to stop.
    pub fn work(&self, said: &'static str) -> CancellationToken {
        let mut state = self.lock();
        // A signal that came before the work began counts.
        if !state.token.is_cancelled() || !state.said.is_empty() {
            state.token = CancellationToken::new();
        }
        state.said = said;
        state.token.clone()
    }
}

/// The process's signals, registered once so that none is lost between two waits.
#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        let signals = Signals::silent();
        let token = signals.work("stopping");
        assert_eq!(signals.take(), Then::Say("stopping"));
        assert!(token.is_cancelled());
        assert_eq!(signals.take(), Then::End);
    }

    #[test]
    fn each_query_of_a_prompt_is_cancelled_by_itself() {
        let signals = Signals::silent();
        let first = signals.work("cancelling the query");
        assert_eq!(signals.take(), Then::Say("cancelling the query"));
        let second = signals.work("cancelling the query");
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert_eq!(signals.take(), Then::Say("cancelling the query"));
    }

    #[test]
    fn a_signal_before_the_work_began_stops_it() {
        let signals = Signals::silent();
        signals.take();
        assert!(signals.work("stopping").is_cancelled());
    }
}
