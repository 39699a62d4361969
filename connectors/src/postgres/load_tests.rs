//! What the Postgres sink promises, asked of a real server: nothing visible before publish, once, and what is left when a process or a
//! connection dies. Modes are in `load_modes_tests.rs`, types in `load_roundtrip_tests.rs`, bad input in `load_wrong_tests.rs`.

#![allow(clippy::disallowed_methods, reason = "a test reads the environment")]

#[path = "load_modes_tests.rs"]
mod modes;
#[path = "load_roundtrip_tests.rs"]
mod roundtrip;
#[path = "load_wrong_tests.rs"]
mod wrong;

use std::collections::HashMap;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use chrono::DateTime;
use datafusion::{execution::runtime_env::RuntimeEnvBuilder, physical_plan::stream::RecordBatchStreamAdapter};
use sqlx::{AssertSqlSafe, Connection, PgConnection, ValueRef};
use tokio_util::sync::CancellationToken;
use weir_pipelines::{Mode, OnSchemaChange, Settings, diagnostic::SourceFile, settings::Document};

use super::*;
use crate::{Connections, Sink, context::SinkContext, error::Retry, postgres::PostgresSink};

/// A schema of a test's own, with a name that nobody would choose, on the server under test.
struct Db {
    url: String,
    /// What its runs' ids begin with.
    mark: String,
    schema: String,
    folder: tempfile::TempDir,
}

impl Db {
    /// None where there is no server to test against.
    async fn new(test: &str) -> Option<Db> {
        let Ok(url) = std::env::var("WEIR_TEST_POSTGRES_URL") else {
            assert!(std::env::var_os("CI").is_none(), "WEIR_TEST_POSTGRES_URL is not set, and in CI nothing is left out");
            println!("left out: {test} (set WEIR_TEST_POSTGRES_URL)");
            return None;
        };
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let mark = unique[..8].to_owned();
        let db = Db { url, mark, schema: format!("Weir \"{}\"; --.ü", &unique[..12]), folder: tempfile::tempdir().expect("a folder") };
        db.sql(&format!("create schema {}", identifier(&db.schema))).await;
        Some(db)
    }

    fn run_of(&self, number: u32, url: &str) -> Arc<RunContext> {
        let text = format!("[connection.pg.postgres]\nurl = {}\npool_max = 6\n", toml::Value::String(url.to_owned()));
        let document = Arc::new(Document::new(SourceFile::new("weir.toml", text)));
        let path = ["connection", "pg", "postgres"].map(str::to_owned).to_vec();
        let kind = weir_pipelines::Spanned::new("postgres".to_owned(), 0..0);
        let settings = HashMap::from([("pg".to_owned(), Settings::new(&document, path, kind, 0..0))]);
        Arc::new(RunContext {
            // Of its own: the server shows all tests' sessions by run, and a load that is settled ends those of its run.
            run: format!("{}-0000-7000-8000-{number:012}", self.mark),
            pipeline: "p".into(),
            state: "state".into(),
            started_at: DateTime::from_timestamp(1_700_000_000 + i64::from(number), 0).expect("an instant"),
            interval: None,
            root: self.folder.path().into(),
            state_dir: self.folder.path().join(".weir"),
            lake: String::new(),
            connections: Arc::new(Connections::new(settings)),
            profile: None,
            environment: Arc::default(),
            runtime: RuntimeEnvBuilder::new().build_arc().expect("a runtime"),
            partitions: 2,
            batch_rows: 1024,
            cancel: CancellationToken::new(),
        })
    }

    fn run(&self, number: u32) -> Arc<RunContext> {
        self.run_of(number, &self.url)
    }

    /// A sink of the table of this name.
    fn sink(&self, table: &str) -> PostgresSink {
        let table = format!("{}.{}", identifier(&self.schema), identifier(table));
        PostgresSink { connection: "pg".into(), table, primary_key: true, parallel: None }
    }

    fn table(&self, table: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(table))
    }

    async fn sql(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url).await.expect("connected");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Rows of a query, each as text, sorted.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(&self.url).await.expect("connected");
        let found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = |row: &sqlx::postgres::PgRow, index: usize| {
            let value = row.try_get_raw(index).expect("a column");
            if value.is_null() { "null".to_owned() } else { value.as_str().expect("text").to_owned() }
        };
        let mut rows: Vec<String> =
            found.iter().map(|row| (0..row.len()).map(|index| text(row, index)).collect::<Vec<_>>().join("|")).collect();
        rows.sort();
        rows
    }

    async fn all(&self, table: &str) -> Vec<String> {
        self.rows(&format!("select * from {}", self.table(table))).await
    }

    /// Tables of the schema that are no user's.
    async fn stages(&self) -> Vec<String> {
        self.rows(&format!(
            "select relname from pg_class where relnamespace = {}::regnamespace and relname like 'weir\\_stage%'",
            literal(&identifier(&self.schema))
        ))
        .await
    }

    /// Backends of a run that are at work. A server takes a moment to notice that a connection is closed.
    async fn backends(&self, run: &RunContext) -> Vec<String> {
        let sql = format!("select state from pg_stat_activity where application_name like 'weir {} %' and state <> 'idle'", run.run);
        for _ in 0..50 {
            if self.rows(&sql).await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.rows(&sql).await
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let (url, sql) = (self.url.clone(), format!("drop schema {} cascade", identifier(&self.schema)));
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&url).await?;
                sqlx::raw_sql("set lock_timeout = '10s'").execute(&mut connection).await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await
            })
        });
        if let Ok(Err(error)) = dropping.join() {
            println!("a schema stays behind: {error}");
        }
    }
}

fn cx(run: &Arc<RunContext>, mode: Mode, may_decide: bool) -> SinkContext {
    SinkContext {
        run: run.clone(),
        step: "out \"put\"".into(),
        folder: run.root.clone(),
        mode,
        key: if by_key(mode) { vec!["id".into()] } else { vec![] },
        on_schema_change: OnSchemaChange::Fail,
        allow_lossy: vec![],
        may_decide,
        beside: Vec::new(),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).expect("a batch")
}

fn people(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    batch(vec![
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("name", Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>())),
    ])
}

fn stream(batches: &[RecordBatch]) -> SendableRecordBatchStream {
    let schema = batches[0].schema();
    let batches: Vec<_> = batches.iter().cloned().map(Ok).collect();
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches)))
}

/// Opens, writes and seals.
async fn staged(sink: &dyn Sink, cx: &SinkContext, rows: &RecordBatch) -> Result<(Arc<dyn Load>, Sealed)> {
    let load = sink.open(&rows.schema(), cx).await?;
    let half = rows.num_rows() / 2;
    let halves = [rows.slice(0, half), rows.slice(half, rows.num_rows() - half)];
    let written = load.write_all(stream(&halves), &Arc::new(TaskContext::default())).await;
    let written = written.map_err(crate::postgres::copy::from_datafusion)?;
    assert_eq!(written, rows.num_rows() as u64);
    let sealed = load.seal().await?;
    assert_eq!(sealed.rows, rows.num_rows() as u64);
    Ok((load, sealed))
}

async fn publish(sink: &dyn Sink, cx: &SinkContext, rows: &RecordBatch) -> Result<Published> {
    let (load, _) = staged(sink, cx, rows).await?;
    load.publish().await
}

/// Every way that rows can take into a table: whether it exists, whether the load may decide, in which mode.
fn ways() -> Vec<(bool, bool, Mode)> {
    let modes = [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot];
    [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .flat_map(|(exists, may)| modes.map(|mode| (exists, may, mode)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_seen_after_publish_and_not_before_and_publishing_again_changes_nothing() {
    let Some(db) = Db::new("publish").await else { return };
    for (index, (exists, may_decide, mode)) in ways().into_iter().enumerate() {
        let (table, number) = (format!("t{index}"), u32::try_from(index).expect("small") * 10);
        let sink = db.sink(&table);
        if exists {
            publish(&sink, &cx(&db.run(number), mode, may_decide), &people(&[(1, Some("a")), (2, None)])).await.expect("published");
        }
        let seen = async || {
            if exists { db.all(&table).await } else { db.rows(&format!("select to_regclass({})", literal(&db.table(&table)))).await }
        };
        let before = seen().await;
        let run = db.run(number + 1);
        let (load, sealed) = staged(&sink, &cx(&run, mode, may_decide), &people(&[(2, Some("b")), (3, Some("c"))])).await.expect("staged");
        assert_eq!(load.decides(), exists && may_decide);
        assert_eq!(seen().await, before, "{mode:?} exists={exists} decides={may_decide}");
        assert!(!load.publish().await.expect("published").already);
        let after = db.all(&table).await;
        assert_ne!(after, before);
        assert!(load.publish().await.expect("published").already);
        // Another process that takes it up finds it published.
        let resumed = PostgresLoad::resume(sealed.state.clone(), &db.run(number + 1)).expect("resumed");
        assert!(resumed.publish().await.expect("published").already);
        if load.decides() {
            assert!(resumed.settle().await.expect("settled"));
            assert!(load.settle().await.expect("settled"));
        }
        resumed.discard().await.expect("discarded");
        load.discard().await.expect("discarded");
        assert_eq!(db.all(&table).await, after, "a discard never undoes a publish");
    }
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_discarded_or_dropped_leaves_nothing() {
    let Some(db) = Db::new("discard").await else { return };
    for (index, (exists, may_decide, mode)) in ways().into_iter().enumerate() {
        let (table, number) = (format!("t{index}"), u32::try_from(index).expect("small") * 10);
        let sink = db.sink(&table);
        if exists {
            publish(&sink, &cx(&db.run(number), mode, may_decide), &people(&[(1, Some("a")), (2, None)])).await.expect("published");
        }
        let before = if exists { db.all(&table).await } else { vec![] };
        let rows = people(&[(2, Some("b")), (3, Some("c"))]);
        let run = db.run(number + 1);
        let (load, _) = staged(&sink, &cx(&run, mode, may_decide), &rows).await.expect("staged");
        load.discard().await.expect("discarded");
        load.discard().await.expect("discarded again");
        assert_eq!(db.backends(&run).await, Vec::<String>::new());
        // A process that dies leaves what it had noted when it opened the load.
        let run = db.run(number + 2);
        let (load, _) = staged(&sink, &cx(&run, mode, may_decide), &rows).await.expect("staged");
        let left = load.stage();
        drop(load);
        let resumed = PostgresLoad::resume(left, &db.run(number + 2)).expect("resumed");
        if resumed.decides() {
            assert!(!resumed.settle().await.expect("settled"));
        }
        resumed.discard().await.expect("discarded");
        resumed.discard().await.expect("discarded again");
        assert_eq!(db.backends(&run).await, Vec::<String>::new());
        if exists {
            assert_eq!(db.all(&table).await, before);
        } else {
            assert_eq!(db.rows(&format!("select to_regclass({})", literal(&db.table(&table)))).await, ["null"]);
        }
    }
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_load_is_published_by_another_process() {
    let Some(db) = Db::new("resume").await else { return };
    let sink = db.sink("t");
    for number in 0..3 {
        let (load, sealed) =
            staged(&sink, &cx(&db.run(number), Mode::Merge, false), &people(&[(number.into(), Some("x")), (7, Some("y"))]))
                .await
                .expect("staged");
        drop(load);
        let text = sealed.state.to_string();
        assert!(!text.contains("postgres://"), "no secret and no address: {text}");
        let resumed = (crate::postgres::SINK.resume)(sealed.state, &db.run(number)).expect("resumed");
        assert!(!resumed.publish().await.expect("published").already);
        assert!(resumed.publish().await.expect("published").already);
    }
    assert_eq!(db.all("t").await, ["0|x", "1|x", "2|x", "7|y"]);
    assert_eq!(db.stages().await, Vec::<String>::new());
    let ledger = format!("select sink, pipeline, target, rows, outcome from {}", db.table("weir_load"));
    assert_eq!(db.rows(&ledger).await, vec!["out \"put\"|p|t|2|published"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_that_is_lost_is_not_published_and_says_to_try_later() {
    let Some(db) = Db::new("lost").await else { return };
    let sink = db.sink("t");
    publish(&sink, &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    for (number, mode) in [(2, Mode::Append), (3, Mode::Replace), (4, Mode::Merge)] {
        let run = db.run(number);
        let (load, sealed) = staged(&sink, &cx(&run, mode, true), &people(&[(5, Some("b"))])).await.expect("staged");
        assert_eq!(db.backends(&run).await, ["idle in transaction"]);
        // As a restart of the server does.
        db.rows(&format!("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'weir {} %'", run.run)).await;
        let error = load.publish().await.expect_err("the connection is gone");
        assert_eq!((error.code, error.retry), ("connection-lost", Retry::Later), "{error}");
        assert!(!load.settle().await.expect("settled"));
        assert!(!load.settle().await.expect("settled again"));
        // What was settled stays so, whoever comes back.
        let resumed = PostgresLoad::resume(sealed.state, &db.run(number)).expect("resumed");
        assert_eq!(resumed.publish().await.expect_err("settled").code, "load-lost");
        load.discard().await.expect("discarded");
        assert_eq!(db.all("t").await, ["1|null"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_ends_a_transaction_that_another_process_still_holds() {
    let Some(db) = Db::new("settle").await else { return };
    let sink = db.sink("t");
    publish(&sink, &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    let (load, sealed) = staged(&sink, &cx(&db.run(2), Mode::Append, true), &people(&[(2, None)])).await.expect("staged");
    let other = PostgresLoad::resume(sealed.state, &db.run(2)).expect("resumed");
    assert!(!other.settle().await.expect("settled"));
    let error = load.publish().await.expect_err("it was ended");
    assert_eq!((error.code, error.retry), ("connection-lost", Retry::Later));
    assert_eq!(db.all("t").await, ["1|null"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_been_settled_cannot_commit_any_more() {
    let Some(db) = Db::new("tombstone").await else { return };
    let sink = db.sink("t");
    publish(&sink, &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    let (load, _) = staged(&sink, &cx(&db.run(2), Mode::Append, true), &people(&[(2, None)])).await.expect("staged");
    // As if the terminating had not reached it.
    let settled = format!(
        "insert into {} (run, sink, pipeline, target, rows, outcome) values ({}, 'out \"put\"', 'p', 't', 0, 'never')",
        db.table("weir_load"),
        literal(&db.run(2).run)
    );
    db.sql(&settled).await;
    assert_eq!(load.publish().await.expect_err("settled").code, "load-settled");
    assert_eq!(db.all("t").await, ["1|null"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_the_middle_of_a_copy_ends_the_load_and_nothing_is_seen() {
    let Some(db) = Db::new("lost copy").await else { return };
    for (number, exists, may_decide) in [(1, false, false), (2, true, false), (3, true, true)] {
        let table = format!("t{number}");
        let sink = db.sink(&table);
        let rows = people(&[(2, Some("b"))]);
        if exists {
            publish(&sink, &cx(&db.run(number * 10), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
        }
        let run = db.run(number * 10 + 1);
        let load = sink.open(&rows.schema(), &cx(&run, Mode::Append, may_decide)).await.expect("opened");
        // Enough to be on its way while the rest is awaited.
        let wide = people(&vec![(9, Some("x".repeat(200).as_str())); 4000]);
        let (killer, schema) = (db.url.clone(), rows.schema());
        let name = format!("weir {} %", run.run);
        let stream = futures::stream::unfold(0, move |sent| {
            let (wide, killer, name) = (wide.clone(), killer.clone(), name.clone());
            async move {
                if sent == 3 {
                    let mut connection = PgConnection::connect(&killer).await.expect("connected");
                    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like $1";
                    sqlx::query(kill).bind(name).fetch_all(&mut connection).await.expect("killed");
                }
                (sent < 40).then(|| (Ok(wide), sent + 1))
            }
        });
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, stream));
        let error = load.write_all(stream, &Arc::new(TaskContext::default())).await.expect_err("lost");
        let error = Error::find(&error).expect("ours");
        assert_eq!((error.code, error.retry), ("connection-lost", Retry::Later), "{error}");
        load.discard().await.expect("discarded");
        if exists {
            assert_eq!(db.all(&table).await, ["1|null"]);
        }
    }
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_load_stops_at_once_and_leaves_no_backend_at_work() {
    let Some(db) = Db::new("cancel").await else { return };
    let sink = db.sink("t");
    publish(&sink, &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    for (number, may_decide) in [(2, true), (3, false)] {
        let run = db.run(number);
        let rows = people(&[(2, None)]);
        let load = sink.open(&rows.schema(), &cx(&run, Mode::Append, may_decide)).await.expect("opened");
        let cancel = run.cancel.clone();
        let batches = futures::stream::unfold(0, move |sent| {
            let (rows, cancel) = (rows.clone(), cancel.clone());
            async move {
                if sent == 5 {
                    cancel.cancel();
                }
                Some((Ok(rows), sent + 1))
            }
        });
        let schema = people(&[(2, None)]).schema();
        let error = load.write_all(Box::pin(RecordBatchStreamAdapter::new(schema, batches)), &Arc::new(TaskContext::default())).await;
        assert_eq!(Error::find(&error.expect_err("cancelled")).expect("ours").code, "interrupted");
        load.discard().await.expect("discarded");
        assert_eq!(db.backends(&run).await, Vec::<String>::new());
        assert_eq!(db.all("t").await, ["1|null"]);
    }
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_load_goes_over_several_connections_and_every_row_arrives_once() {
    let Some(db) = Db::new("parallel").await else { return };
    let text = "y".repeat(500);
    let wide = |from: i64| people(&(from..from + 2000).map(|id| (id, Some(text.as_str()))).collect::<Vec<_>>());
    let batches: Vec<RecordBatch> = (0..60).map(|index| wide(index * 2000)).collect();
    let sink = PostgresSink { parallel: Some(3), ..db.sink("t") };
    let load = sink.open(&batches[0].schema(), &cx(&db.run(1), Mode::Merge, false)).await.expect("opened");
    let written = load.write_all(stream(&batches), &Arc::new(TaskContext::default())).await.expect("written");
    assert_eq!(written, 120_000);
    load.seal().await.expect("sealed");
    load.publish().await.expect("published");
    let sql = format!("select count(*), count(distinct id), sum(id), min(length(name)) from {}", db.table("t"));
    assert_eq!(db.rows(&sql).await, ["120000|120000|7199940000|500"]);
    // Rows of several transactions tell that there were several connections.
    assert!(db.rows(&format!("select distinct xmin::text from {}", db.table("t"))).await.len() > 1);
}
