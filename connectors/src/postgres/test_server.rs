//! For tests that need a server: the one of `WEIR_TEST_POSTGRES_URL`, a schema of each test's own, and the contexts a step is given.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use weir_pipelines::{Settings, diagnostic::SourceFile, settings::Document};

use super::{
    connect::{Pool, Session},
    name::TableName,
};
use crate::{
    Connections, Purpose, Reject, Rejects, RunContext, SourceContext,
    error::{Error, Result},
};

/// The URL of the server to test against. None, and a line that says so, where there is none; in CI that is a failure.
#[expect(clippy::disallowed_methods, reason = "a test is told its server by the environment")]
pub(crate) fn url() -> Option<String> {
    match std::env::var("WEIR_TEST_POSTGRES_URL") {
        Ok(url) => Some(url),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "WEIR_TEST_POSTGRES_URL is not set");
            eprintln!("left out: WEIR_TEST_POSTGRES_URL is not set");
            None
        }
    }
}

/// A run whose connection `pg` leads to the server, with more settings of the connection as TOML lines.
pub(crate) fn run_context(url: &str, settings: &str) -> Arc<RunContext> {
    let text = format!("[connection.pg.postgres]\nurl = {}\n{settings}\n", toml::Value::String(url.to_owned()));
    let document = Arc::new(Document::new(SourceFile::new("weir.toml", text)));
    let path = ["connection", "pg", "postgres"].map(str::to_owned).to_vec();
    let kind = weir_pipelines::Spanned::new("postgres".to_owned(), 0..0);
    let connections = Connections::new(HashMap::from([("pg".to_owned(), Settings::new(&document, path, kind, 0..0))]));
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

/// A schema that nobody else has, in a database that others may use.
pub(crate) struct TestServer {
    pub cx: Arc<RunContext>,
    pub schema: String,
    pub pool: Arc<Pool>,
}

impl TestServer {
    /// None where there is no server.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// With more settings of the connection.
    pub(crate) async fn start_with(settings: &str) -> Option<Self> {
        let url = url()?;
        let cx = run_context(&url, settings);
        let pool = Pool::open(&cx, "pg").await.expect("the server of WEIR_TEST_POSTGRES_URL");
        let schema = format!("weir_test_{}", uuid::Uuid::now_v7().simple());
        let server = Self { cx, schema, pool };
        server.execute(&format!("create schema {}", server.schema)).await;
        Some(server)
    }

    pub(crate) async fn begin(&self) -> Session {
        self.pool.begin("weir test").await.expect("a transaction")
    }

    /// Runs statements with the schema first in the search path, and commits.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut session = self.begin().await;
        session
            .execute(&format!("set local search_path = {}, public; {sql}", self.schema), "prepare a test")
            .await
            .expect("the statements run");
        session.commit("prepare a test").await.expect("commits");
    }

    /// A table of the schema, as a person would write it.
    pub(crate) fn table(&self, table: &str) -> String {
        let name = TableName { schema: Some(self.schema.clone()), table: table.to_owned() };
        name.sql()
    }

    /// Removes the schema; not done where a test fails, so that one can look.
    pub(crate) async fn drop(self) {
        self.execute(&format!("drop schema {} cascade", self.schema)).await;
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
