//! What `weir serve` shows and tells of the scheduler: an HTTP port, metrics, log lines, alerts. What runs, and when, is the scheduler's.

pub mod alert;
pub mod control;
#[cfg(test)]
mod examples;
pub mod http;
pub mod listen;
pub mod metrics;
mod notices;
pub mod rules;
pub mod scheduled;
#[cfg(test)]
mod stand;
pub mod token;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weir_connectors::Blame;
use weir_engine::{Failure, Workspace, scheduler::Notice};

pub use control::{Accepted, Ask, Control, Gauges, LastEnded, Pool, Refused, RunsQuery};

use crate::telemetry::Otlp;
use alert::Alerts;
use metrics::Metrics;

/// How often gauges are asked for between two scrapes: what is sent by OTLP is no older.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// No answer of the state is waited for longer.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// At the end, requests under way have this long.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    metrics: Arc<Metrics>,
    alerts: Alerts,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts to listen, as `[server]` of the project says; whoever holds a token that `control` knows may ask. Alerts of the project are made
/// ready: a secret of theirs that is missing is an error here, and not when it would be needed.
pub async fn start(workspace: &Workspace, control: Arc<dyn Control>) -> Result<Server, Failure> {
    let settings = &workspace.project.server;
    let otlp = Otlp::of(settings.otlp.as_deref(), &workspace.environment);
    let metrics = Arc::new(Metrics::new(otlp.as_ref())?);
    let stop = CancellationToken::new();
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| cannot_listen(settings.listen, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(settings.listen, &error))?;
    let alerts = Alerts::start(workspace, &metrics, &control).await?;
    let router = http::router(Arc::new(http::Shared::new(control.clone(), metrics.clone())));
    let ended = stop.clone();
    let listening = tokio::spawn(async move {
        let serving = axum::serve(listen::Bounded::new(listener), router).with_graceful_shutdown(ended.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the HTTP port is closed");
        }
    });
    let looking = tokio::spawn(look(control, metrics.clone(), stop.clone()));
    tracing::info!(%address, "listening");
    Ok(Server { address, metrics, alerts, stop, tasks: Mutex::new(vec![listening, looking]) })
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::error("cannot-listen", format!("cannot listen on {address}: {error}")).blame(Blame::System);
    failure.help("another process may listen there already: choose another address as [server] listen in weir.toml")
}

/// Asks for gauges again and again.
async fn look(control: Arc<dyn Control>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let gauges = tokio::time::timeout(LOOK_MAX, control.gauges()).await;
        metrics.show(gauges.ok().and_then(Result::ok));
    }
}

impl Server {
    /// Takes what has happened: it is logged, counted, and told to whom alerts tell it. Never waits.
    pub fn take(&self, notice: &Notice) {
        notices::log(notice);
        self.metrics.take(notice);
        self.alerts.take(notice);
    }

    /// Ends: no new request is taken, what waits to be told is told, what was counted is sent. Takes 20 s at most.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("nothing panics while it holds this lock"));
        let all_end = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        // A request that is still not answered is broken off with the process.
        let _ = tokio::time::timeout(LAST_ANSWERS, all_end).await;
        self.alerts.stop().await;
        // It waits for a receiver, on a thread that may wait.
        let metrics = self.metrics.clone();
        let _ = tokio::task::spawn_blocking(move || metrics.stop()).await;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
