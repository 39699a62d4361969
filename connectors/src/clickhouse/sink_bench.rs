//! For tests of the sink: a database of its own on the server under test, and sinks whose every part can be taken apart.

use std::{collections::HashMap, ops::Deref, path::PathBuf};

use arrow::{
    array::RecordBatch,
    datatypes::Schema,
    util::display::{ArrayFormatter, FormatOptions},
};
use chrono::DateTime;
use datafusion::{
    datasource::{memory::MemorySourceConfig, sink::DataSink},
    execution::{TaskContext, runtime_env::RuntimeEnvBuilder},
    physical_plan::stream::RecordBatchStreamAdapter,
};
use tokio_util::sync::CancellationToken;
use weir_pipelines::{OnSchemaChange, Project, SourceFile};

use super::{super::connect::Server, *};
use crate::{Connections, Published, Sealed};

/// A database on the server under test.
#[derive(Clone)]
pub struct Bench {
    pub database: String,
    table: String,
    connections: Arc<Connections>,
    server: Arc<Server>,
}

impl Bench {
    /// A fresh database. None, said aloud, where no server is named.
    pub async fn begin() -> Option<Self> {
        let url = super::super::test_server::url()?;
        let text = format!("[connection.olap.clickhouse]\nurl = {url:?}\n");
        let project = Project::parse(SourceFile::new("weir.toml", text), PathBuf::from("."), None).expect("a project");
        let settings: HashMap<_, _> = project.connections.into_iter().map(|(name, connection)| (name, connection.settings)).collect();
        let connections = Arc::new(Connections::new(settings));
        let server = Server::of("olap", &context(0, &connections, "")).await.expect("the server answers");
        let database = format!("weir `test {}", uuid::Uuid::new_v4().simple());
        let bench = Self { database, table: "t".into(), connections, server };
        bench.run(&format!("create database {} engine = Atomic", quote::identifier(&bench.database))).await;
        Some(bench)
    }

    /// Drops the database.
    pub async fn end(&self) {
        self.run(&format!("drop database {}", quote::identifier(&self.database))).await;
    }

    /// The same with another table.
    pub fn named(&self, table: &str) -> Self {
        Self { table: table.to_owned(), ..self.clone() }
    }

    /// The same in another database.
    pub fn in_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    fn sql(&self, sql: &str) -> String {
        sql.replace("{t}", &quote::table(&self.database, &self.table)).replace("currentDatabase()", &quote::literal(&self.database))
    }

    /// Does a statement; `{t}` is the table.
    pub async fn try_run(&self, sql: &str) -> Result<()> {
        self.server.execute(&self.sql(sql), &[], &[], None, "do as the test says").await
    }

    /// The same, which has to succeed.
    pub async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Rows as Arrow.
    pub async fn arrow(&self, sql: &str) -> Vec<RecordBatch> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut answer = self.server.arrow(&self.sql(sql), &[], &id, "read what was loaded").await.expect("an answer");
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await.expect("rows") {
            batches.push(batch);
        }
        batches
    }

    /// `select <columns> from <rest>`, the values of a row between bars. `t` alone is the table.
    pub async fn rows(&self, columns: &str, rest: &str) -> Vec<String> {
        let rest = match rest.strip_prefix('t') {
            Some(more) if more.is_empty() || more.starts_with(' ') => format!("{{t}}{more}"),
            _ if rest.starts_with("weir_load") => format!("{}.{rest}", quote::identifier(&self.database)),
            _ => rest.to_owned(),
        };
        let names = if columns == "*" {
            let described = format!(
                "select name from system.columns where database = currentDatabase() and table = {} and default_kind in ('', 'DEFAULT') order by position",
                quote::literal(&self.table)
            );
            texts(&self.arrow(&described).await)
        } else {
            write_types::split(columns).into_iter().map(|column| column.trim().to_owned()).collect()
        };
        let names: Vec<String> = names.iter().map(|name| if columns == "*" { quote::identifier(name) } else { name.clone() }).collect();
        let shown: Vec<String> = names.iter().map(|name| format!("ifNull(toString({name}), 'null')")).collect();
        texts(&self.arrow(&format!("select arrayStringConcat([{}], '|') as __shown from {rest}", shown.join(", "))).await)
    }

    /// The database's tables.
    pub async fn tables(&self) -> Vec<String> {
        texts(&self.arrow("select name from system.tables where database = currentDatabase() order by name").await)
    }

    /// A sink's step in a run of its own.
    pub fn sink(&self, run: u32, mode: Mode, key: &[&str], settings: &str) -> Planned {
        self.sink_with(run, mode, key, OnSchemaChange::Fail, settings)
    }

    /// The same with `on_schema_change`.
    pub fn sink_with(&self, run: u32, mode: Mode, key: &[&str], on_schema_change: OnSchemaChange, settings: &str) -> Planned {
        let mut sink: ClickhouseSink = toml::from_str(&format!("connection = \"olap\"\ntable = \"\"\n{settings}")).expect("settings");
        sink.table = quote::table(&self.database, &self.table);
        let cx = SinkContext {
            run: context(run, &self.connections, &self.database),
            step: "out".into(),
            folder: PathBuf::from("."),
            mode,
            key: key.iter().map(ToString::to_string).collect(),
            on_schema_change,
            allow_lossy: vec![],
            may_decide: false,
            beside: Vec::new(),
        };
        Planned { sink: Configured(Arc::new(sink)), cx }
    }
}

/// The values of the one column of an answer.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default();
    let mut texts = Vec::new();
    for batch in batches {
        // Texts come as the bytes they are.
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).expect("texts");
        let shown = ArrayFormatter::try_new(column.as_ref(), &options).expect("shown");
        texts.extend((0..batch.num_rows()).map(|row| shown.value(row).to_string()));
    }
    texts
}

/// `state` tells apart the loads of tests that run side by side, as it tells apart those of projects.
fn context(run: u32, connections: &Arc<Connections>, state: &str) -> Arc<RunContext> {
    Arc::new(RunContext {
        run: format!("0190aaaa-0000-7000-8000-{run:012}"),
        pipeline: "p".into(),
        state: state.to_owned(),
        started_at: DateTime::from_timestamp(1_700_000_000 + i64::from(run), 0).expect("an instant"),
        interval: None,
        root: PathBuf::from("."),
        state_dir: PathBuf::from(".weir"),
        lake: "lake".into(),
        profile: None,
        environment: Arc::default(),
        connections: connections.clone(),
        runtime: RuntimeEnvBuilder::new().build_arc().expect("a runtime"),
        partitions: 2,
        batch_rows: 1024,
        cancel: CancellationToken::new(),
    })
}

/// A sink and what its step is told.
pub struct Planned {
    pub sink: Configured,
    pub cx: SinkContext,
}

/// A load that was sealed.
#[derive(Debug)]
pub struct Staged {
    load: ClickhouseLoad,
    pub sealed: Sealed,
}

impl Deref for Staged {
    type Target = ClickhouseLoad;
    fn deref(&self) -> &ClickhouseLoad {
        &self.load
    }
}

impl Planned {
    /// The plan for rows such as `rows`.
    pub async fn plan(&self, rows: &RecordBatch) -> Result<Change> {
        self.sink.plan(&rows.schema(), &self.cx).await
    }

    /// Begins a load of rows such as `rows`.
    pub async fn start(&self, rows: &RecordBatch) -> Result<ClickhouseLoad> {
        self.sink.start(&rows.schema(), &self.cx).await
    }

    /// Stages rows.
    pub async fn write(&self, load: &ClickhouseLoad, batches: &[RecordBatch]) -> Result<u64> {
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let batches: Vec<_> = batches.iter().cloned().map(Ok).collect();
        let stream = futures::stream::iter(batches);
        let written = load.write_all(Box::pin(RecordBatchStreamAdapter::new(schema, stream)), &Arc::new(TaskContext::default())).await;
        written.map_err(load::from_datafusion)
    }

    /// Stages the rows of several streams side by side.
    pub async fn write_side_by_side(&self, load: &ClickhouseLoad, streams: &[Vec<RecordBatch>]) -> Result<u64> {
        let plan = MemorySourceConfig::try_new_exec(streams, streams[0][0].schema(), None).expect("a plan");
        load.write_plan(plan, &Arc::new(TaskContext::default())).await.map_err(load::from_datafusion)
    }

    /// Stages rows and seals them; discards what fails.
    pub async fn load(&self, batches: &[RecordBatch]) -> Result<Staged> {
        let load = self.start(&batches[0]).await?;
        let sealed = async {
            self.write(&load, batches).await?;
            load.seal().await
        };
        match sealed.await {
            Ok(sealed) => Ok(Staged { load, sealed }),
            Err(error) => {
                load.discard().await.expect("discarded");
                Err(error)
            }
        }
    }

    /// A whole load.
    pub async fn whole(&self, batches: &[RecordBatch]) -> Result<Published> {
        self.load(batches).await?.publish().await
    }

    /// Another process that takes a load up.
    pub fn resume(&self, state: &serde_json::Value) -> ClickhouseLoad {
        ClickhouseLoad::resume(state.clone(), &self.cx.run).expect("a state")
    }
}
