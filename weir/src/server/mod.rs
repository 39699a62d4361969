//! What `weir serve` shows and tells of the scheduler: an HTTP port, metrics, log lines, alerts. What runs, and when, is the scheduler's.

pub mod alert;
pub mod control;
#[cfg(test)]
mod examples;
pub mod flight;
pub mod http;
pub mod listen;
pub mod metrics;
mod notices;
pub mod postgres;
pub mod rules;
pub mod scheduled;
pub mod sql;
#[cfg(test)]
mod stand;
pub mod tls;
pub mod token;
pub mod urls;
pub mod users;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weir_connectors::Blame;
use weir_engine::{
    Failure, Workspace,
    query::{self, Catalogue},
    scheduler::{Catalogue as Files, Notice},
};

pub use control::{Accepted, Ask, Control, Gauges, LastEnded, Pool, Refused, RunsQuery};

use crate::telemetry::Otlp;
use alert::Alerts;
use metrics::Metrics;
use tls::Tls;
use users::Users;

/// How often gauges are asked for between two scrapes: what is sent by OTLP is no older.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// No answer of the state is waited for longer.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// At the end, requests under way have this long.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens for HTTP.
    pub address: SocketAddr,
    /// Where it speaks Postgres's protocol.
    pub postgres: Option<SocketAddr>,
    /// Where it speaks Arrow Flight SQL.
    pub flight: Option<SocketAddr>,
    /// Whether all of these are encrypted.
    pub is_tls: bool,
    metrics: Arc<Metrics>,
    alerts: Alerts,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What a server is made of, beside its project.
pub struct Behind {
    /// Runs pipelines.
    pub control: Arc<dyn Control>,
    /// Where pipelines are read from, for the tables that SQL sees of them.
    pub files: Option<Arc<dyn Files>>,
    /// A token that this process alone knows, which opens SQL.
    pub own_token: Option<String>,
}

/// Starts to listen, as `[server]` of the project says; whoever holds a token that `control` knows may ask. Certificates are read and alerts of the
/// project are made ready: a secret of theirs that is missing is an error here, and not when it would be needed.
pub async fn start(workspace: &Workspace, behind: Behind) -> Result<Server, Failure> {
    let Behind { control, files, own_token } = behind;
    let settings = &workspace.project.server;
    let otlp = Otlp::of(settings.otlp.as_deref(), &workspace.environment);
    let metrics = Arc::new(Metrics::new(otlp.as_ref())?);
    let stop = CancellationToken::new();
    // What is secret is read before anybody is let in.
    let tls = Tls::load(workspace).await?;
    let users = Users::new(control.clone(), settings.sql.clone());
    let users = Arc::new(match own_token {
        Some(token) => users.with_own(&token)?,
        None => users,
    });
    let (listener, address) = listen(settings.listen, "[server] listen").await?;
    let catalogue = Catalogue::open(workspace, queries(workspace, files))?;
    metrics.watch(&catalogue);
    let alerts = Alerts::start(workspace, &metrics, &control).await?;
    let (mut doors, mut postgres_address, mut flight_address) = (Vec::new(), None, None);
    if let Some(address) = settings.sql.postgres {
        let (listener, address) = listen(address, "[server.sql] postgres").await?;
        doors.push(postgres::start(listener, catalogue.clone(), users.clone(), tls.clone(), stop.clone()));
        tracing::info!(%address, "listening for clients of Postgres");
        postgres_address = Some(address);
    }
    if let Some(address) = settings.sql.flight {
        let (listener, address) = listen(address, "[server.sql] flight").await?;
        doors.push(flight::start(listener, catalogue.clone(), users.clone(), tls.clone(), stop.clone()));
        tracing::info!(%address, "listening for Arrow Flight SQL");
        flight_address = Some(address);
    }
    let shared = Arc::new(http::Shared::new(control.clone(), metrics.clone(), users));
    let router = http::router(shared, Some(Arc::new(sql::Door::new(catalogue, stop.clone()))));
    let service = router.into_make_service_with_connect_info::<listen::Patience>();
    let acceptor = tls.as_ref().map(|tls| tls.acceptor(&[b"http/1.1"]));
    let ended = stop.clone();
    let listening = tokio::spawn(async move {
        let serving = axum::serve(listen::Bounded::new(listener, acceptor), service).with_graceful_shutdown(ended.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the HTTP port is closed");
        }
    });
    let looking = tokio::spawn(look(control, metrics.clone(), stop.clone()));
    tracing::info!(%address, "listening");
    doors.extend([listening, looking]);
    let tasks = Mutex::new(doors);
    Ok(Server { address, postgres: postgres_address, flight: flight_address, is_tls: tls.is_some(), metrics, alerts, stop, tasks })
}

/// How queries are answered: on threads of their own, in memory of their own.
fn queries(workspace: &Workspace, files: Option<Arc<dyn Files>>) -> query::Settings {
    let sql = &workspace.project.server.sql;
    query::Settings {
        queries_max: usize::try_from(sql.queries_max).unwrap_or(usize::MAX),
        memory_bytes: sql.memory_bytes.unwrap_or(workspace.memory_limit_bytes / 2),
        apart: true,
        files,
    }
}

/// Listens at an address, which a key of weir.toml has named.
async fn listen(address: SocketAddr, key: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::error("cannot-listen", format!("cannot listen on {address}: {error}")).blame(Blame::System);
        failure.help(format!("another process may listen there already: choose another address as {key} in weir.toml"))
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
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
