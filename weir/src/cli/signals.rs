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
    /// False until the first piece of work: a signal before it counts.
    begun: bool,
    /// Another program has the terminal: Ctrl-C is for that one.
    lent: bool,
    /// What the second signal cancels, and what is said then; none where it ends the process.
    second: Option<(CancellationToken, &'static str)>,
}

/// What a signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Say(&'static str),
    End,
}

impl Signals {
    /// Starts to listen, on a thread of its own: a signal must be heard also while a query keeps every worker busy.
    /// Without that thread, signals do what they do by default. They are heard from when this returns: a line editor that came first would take the
    /// default for what to go back to.
    pub fn listen() -> Self {
        let signals = Self::silent();
        let listener = signals.clone();
        let (listening, heard) = std::sync::mpsc::sync_channel::<()>(0);
        let listen = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let Ok(mut source) = Source::new() else { return };
                drop(listening);
                loop {
                    let is_interrupt = source.next().await;
                    if is_interrupt && listener.lock().lent {
                        continue;
                    }
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
        };
        if let Err(error) = std::thread::Builder::new().name("signals".to_owned()).spawn(listen) {
            tracing::warn!(%error, "no thread for signals");
        }
        // Ends with the other side, whichever way that goes.
        let _ = heard.recv();
        signals
    }

    fn silent() -> Self {
        Self { state: Arc::new(Mutex::new(State { token: CancellationToken::new(), said: "", begun: false, lent: false, second: None })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn take(&self) -> Then {
        let state = self.lock();
        if state.token.is_cancelled() {
            return match &state.second {
                Some((stop, said)) if !stop.is_cancelled() => {
                    stop.cancel();
                    Then::Say(said)
                }
                _ => Then::End,
            };
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
        // A signal that came before the first work began stops it too.
        if state.begun {
            state.token = CancellationToken::new();
        }
        state.begun = true;
        state.said = said;
        state.token.clone()
    }

    /// Lends the terminal to another program, a pager or an editor: until what is returned is dropped, Ctrl-C cancels nothing here.
    pub fn lend(&self) -> Lent {
        self.lock().lent = true;
        Lent(self.clone())
    }

    /// Sets two tokens for work that ends in two steps: the first signal cancels the first, the second the second, the third ends the process.
    pub fn drain(&self, said: &'static str, then: &'static str) -> (CancellationToken, CancellationToken) {
        let first = self.work(said);
        let second = CancellationToken::new();
        self.lock().second = Some((second.clone(), then));
        (first, second)
    }
}

/// While it lives, another program has the terminal.
#[derive(Debug)]
pub struct Lent(Signals);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lock().lent = false;
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

    /// Waits for the next one. True where it is Ctrl-C.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
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

    async fn next(&mut self) -> bool {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        true
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
        let first = signals.work("");
        assert_eq!(signals.take(), Then::Say(""));
        let second = signals.work("");
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert_eq!(signals.take(), Then::Say(""));
    }

    #[test]
    fn a_server_drains_then_stops_then_ends() {
        let signals = Signals::silent();
        let (drain, stop) = signals.drain("ending", "stopping");
        assert_eq!(signals.take(), Then::Say("ending"));
        assert!(drain.is_cancelled() && !stop.is_cancelled());
        assert_eq!(signals.take(), Then::Say("stopping"));
        assert!(stop.is_cancelled());
        assert_eq!(signals.take(), Then::End);
    }

    #[test]
    fn a_signal_before_the_work_began_stops_it() {
        let signals = Signals::silent();
        signals.take();
        assert!(signals.work("stopping").is_cancelled());
    }
}
