//! What the server asks of whoever runs pipelines: the scheduler behind it, or a stand-in in tests.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use weir_connectors::{Blame, Retry};
use weir_engine::{Failure, history::tokens::Token};

/// What runs pipelines. Every answer is bounded in time by the caller, who drops the future.
pub trait Control: Send + Sync + 'static {
    /// Whether the state answers: runs can be started and are remembered.
    fn ready(&self) -> BoxFuture<'_, Result<(), Failure>>;
    /// Asks for a run. With the key of an earlier ask, answers as it did then and starts nothing.
    fn trigger(&self, ask: Ask) -> BoxFuture<'_, Result<Accepted, Refused>>;
    /// Stops a run, or a task that waits. Answers once that is noted; the run ends by itself after it.
    fn cancel(&self, run: String, by: String) -> BoxFuture<'_, Result<(), Refused>>;
    /// Runs, newest first, each as `weir runs list --json` says it.
    fn runs(&self, query: RunsQuery) -> BoxFuture<'_, Result<Vec<Value>, Refused>>;
    /// A run, or a task, as `weir runs show --json` says it. Refused as unknown where there is none.
    fn run(&self, id: String) -> BoxFuture<'_, Result<Value, Refused>>;
    /// Schedules, each as `weir schedule list --json` says it.
    fn schedules(&self) -> BoxFuture<'_, Result<Vec<Value>, Refused>>;
    /// The token with this hash (see [`super::token::hash`]); none where there is no such token, or it is revoked.
    fn token(&self, hash: String) -> BoxFuture<'_, Result<Option<Token>, Failure>>;
    /// The token of this name; none where there is no such token, or it is revoked.
    fn token_named(&self, name: String) -> BoxFuture<'_, Result<Option<Token>, Failure>>;
    /// What metrics show of this instant. Asked every few seconds and at each scrape.
    fn gauges(&self) -> BoxFuture<'_, Result<Gauges, Failure>>;
    /// How the last run of each pipeline ended, on whichever server. Alerts learn from it what was over before they began, and what another
    /// server has made good.
    fn last_ended(&self) -> BoxFuture<'_, Result<Vec<LastEnded>, Failure>>;
}

/// A run that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The pipeline's name.
    pub pipeline: String,
    /// Parameters and their values, as `--param` takes them.
    pub params: Vec<(String, String)>,
    /// `START/END`, as `--interval` takes it.
    pub interval: Option<String>,
    /// Makes an ask that is sent twice one.
    pub key: Option<String>,
    /// The token's name.
    pub by: String,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// The task's id.
    pub task: String,
    /// The run's id, once there is one.
    pub run: Option<String>,
    /// `waiting`, `running`, or how it ended.
    pub status: String,
    /// False where an earlier ask with the same key had started it.
    pub new: bool,
}

/// Which runs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsQuery {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// In this state, as `weir runs list` calls it.
    pub status: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Numbers of an instant.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Tasks that wait, by pipeline.
    pub waiting: Vec<(String, u64)>,
    /// Seconds by which the oldest interval that is due and not published is behind its tick, by pipeline with a schedule; 0 where none is.
    pub lag: Vec<(String, f64)>,
    /// Runs that this process makes now.
    pub running: u64,
    /// Whether this server cuts time into tasks.
    pub leading: bool,
    /// Connections to databases, as far as is known.
    pub pools: Vec<Pool>,
}

/// Some connections to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The connection's name in `weir.toml`, or `state`.
    pub connection: String,
    /// `idle` or `used`.
    pub state: &'static str,
    /// How many.
    pub count: u64,
}

/// How a pipeline's last run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEnded {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's id.
    pub run: String,
    /// When.
    pub at: DateTime<Utc>,
    /// False where it failed and is not tried again.
    pub published: bool,
    /// The code of the error it failed with.
    pub code: Option<String>,
    /// That error, in a sentence.
    pub error: Option<String>,
}

/// Why something is not done, and the status that says so over HTTP.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Of HTTP.
    pub status: u16,
    /// Why.
    pub failure: Failure,
}

impl Refused {
    /// There is no such thing.
    pub fn unknown(failure: impl Into<Failure>) -> Self {
        Self { status: 404, failure: failure.into() }
    }

    /// It cannot be done as things stand.
    pub fn conflict(failure: impl Into<Failure>) -> Self {
        Self { status: 409, failure: failure.into() }
    }

    /// What was sent is wrong.
    pub fn wrong(failure: impl Into<Failure>) -> Self {
        Self { status: 400, failure: failure.into() }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let status = match &failure {
            Failure::Diagnostics(_) => 400,
            Failure::Interrupted => 503,
            Failure::Error(error) if error.blame == Blame::System || error.retry == Retry::Later => 503,
            Failure::Error(error) if error.blame == Blame::Weir => 500,
            Failure::Error(_) => 400,
        };
        Self { status, failure }
    }
}
