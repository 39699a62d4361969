//! For tests that need a server: the one of `WEIR_TEST_CLICKHOUSE_URL`, a database of each test's own, and the contexts a step is given.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use weir_pipelines::{Settings, diagnostic::SourceFile, settings::Document};

use super::connect::Server;
use crate::{
    Connections, Purpose, Reject, Rejects, RunContext, SourceContext,
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// The URL of the server to test against. None, and a line that says so, where there is none; in CI that is a failure.
#[expect(clippy::disallowed_methods, reason = "a test is told its server by the environment")]
pub(crate) fn url() -> Option<String> {
    match std::env::var("WEIR_TEST_CLICKHOUSE_URL") {
        Ok(url) => Some(url),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "WEIR_TEST_CLICKHOUSE_URL is not set");
            eprintln!("left out: WEIR_TEST_CLICKHOUSE_URL is not set");
            None
        }
    }
}

/// A run whose connection `ch` leads to the server, with more settings of the connection as TOML lines.
pub(crate) fn run_context(url: &str, settings: &str) -> Arc<RunContext> {
    let text = format!("[connection.ch.clickhouse]\nurl = {}\n{settings}\n", toml::Value::String(url.to_owned()));
    let document = Arc::new(Document::new(SourceFile::new("weir.toml", text)));
    let path = ["connection", "ch", "clickhouse"].map(str::to_owned).to_vec();
    let kind = weir_pipelines::Spanned::new("clickhouse".to_owned(), 0..0);
    let connections = Connections::new(HashMap::from([("ch".to_owned(), Settings::new(&document, path, kind, 0..0))]));
    Arc::new(RunContext {
        run: uuid::Uuid::now_v7().to_string(),
        pipeline: "p".into(),
        state: "s".into(),
        started_at: chrono::DateTime::UNIX_EPOCH,
        interval: None,
        root: PathBuf::from("."),
        state_dir: PathBuf::from("."),
        lake: "lake".into(),
        profile: None,
        environment: Arc::default(),
        connections: Arc::new(connections),
        runtime: RuntimeEnvBuilder::new().build_arc().expect("a runtime"),
        partitions: 4,
        batch_rows: 1000,
        cancel: CancellationToken::new(),
    })
}

/// A database that nobody else has, on a server that others may use.
pub(crate) struct TestServer {
    pub url: String,
    pub cx: Arc<RunContext>,
    pub database: String,
    pub server: Arc<Server>,
}

impl TestServer {
    /// None where there is no server.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// With more settings of the connection.
    pub(crate) async fn start_with(settings: &str) -> Option<Self> {
        let url = url()?;
        let database = format!("weir_test_{}", uuid::Uuid::now_v7().simple());
        let outside = Server::of("ch", &run_context(&url, "")).await.expect("the server of WEIR_TEST_CLICKHOUSE_URL");
        let create = format!("create database {}", quote::identifier(&database));
        outside.execute(&create, &[], &[], None, "prepare a test").await.expect("a database");
        let cx = run_context(&url, &format!("database = \"{database}\"\n{settings}"));
        let server = Server::of("ch", &cx).await.expect("the server again");
        Some(Self { url, cx, database, server })
    }

    /// A run of its own on the same database.
    pub(crate) fn another_run(&self) -> Arc<RunContext> {
        run_context(&self.url, &format!("database = \"{}\"", self.database))
    }

    /// Runs a statement in the database.
    pub(crate) async fn execute(&self, sql: &str) {
        self.server.execute(sql, &[], &[], None, "prepare a test").await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Asks for a few rows.
    pub(crate) async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Vec<T> {
        self.server.rows(sql, &[], "look at a test").await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Removes the database; not done where a test fails, so that one can look.
    pub(crate) async fn drop(self) {
        self.execute(&format!("drop database {} sync", quote::identifier(&self.database))).await;
    }
}

/// Remembers what was rejected.
#[derive(Debug, Default)]
pub(crate) struct Rejected(pub Mutex<Vec<Reject>>);

impl Rejects for Rejected {
    fn reject(&self, rejects: Vec<Reject>) -> Result<(), Error> {
        self.0.lock().extend(rejects);
        Ok(())
    }
}

/// A source step of the run.
pub(crate) fn source_context(run: &Arc<RunContext>, rejects: &Arc<Rejected>) -> SourceContext {
    SourceContext {
        run: run.clone(),
        step: "step".into(),
        folder: PathBuf::from("."),
        declared: None,
        shape: None,
        known: None,
        coordinates: false,
        incremental: None,
        seen: BTreeMap::new(),
        rejects: rejects.clone(),
        purpose: Purpose::Run,
    }
}
