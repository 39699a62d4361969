//! Sessions: limits, turns, parameters, and that nothing but questions is answered.

use std::{collections::HashMap, fs, path::Path, sync::atomic::Ordering::Relaxed, time::Duration};

use futures::StreamExt;
use weir_pipelines::{Project, SourceFile};

use super::*;
use crate::workspace::Machine;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn catalogue(&self, settings: impl FnOnce(&mut Settings)) -> Arc<Catalogue> {
        let project = Project::parse(SourceFile::new("weir.toml", ""), self.folder.path().to_path_buf(), None).expect("is right");
        let machine = Machine { memory_bytes: 1 << 30, cpus: 2 };
        let workspace = Workspace::new(project, HashMap::new(), machine, || chrono::DateTime::UNIX_EPOCH);
        let mut chosen = Settings { apart: true, ..Settings::local(&workspace) };
        settings(&mut chosen);
        Catalogue::open(&workspace, chosen).expect("opens")
    }

    fn session(&self, limits: Limits) -> Session {
        self.catalogue(|_| ()).session(Who { limits, ..Who::local() })
    }
}

async fn rows(session: &Session, sql: &str) -> Result<usize> {
    Ok(session.collect(sql).await?.iter().map(RecordBatch::num_rows).sum())
}

fn code(failure: &Failure) -> &'static str {
    match failure {
        Failure::Diagnostics(found) => found[0].code,
        Failure::Error(error) => error.code,
        Failure::Interrupted => "interrupted",
    }
}

/// The first commit of a table of Delta's, without rows.
const COMMIT: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"0190aaaa-0000-7000-8000-000000000001","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"secret\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1700000000000}}
"#;

fn write_table(folder: &Path) {
    let log = folder.join("_delta_log");
    fs::create_dir_all(&log).expect("a folder");
    fs::write(log.join("00000000000000000000.json"), COMMIT).expect("written");
}

/// What never ends by itself.
const FOR_EVER: &str = "select count(*) from range(100000000) a, range(100000000) b where a.value * b.value = -1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_ends_at_its_limit_of_rows_or_bytes_and_says_so() {
    let place = Place::new();
    let session = place.session(Limits { rows: Some(10), ..Limits::default() });
    assert_eq!(rows(&session, "select * from range(10)").await.expect("within"), 10);
    let failure = rows(&session, "select * from range(11)").await.expect_err("over");
    assert_eq!(failure.sentence(), "the answer has more rows than its limit of 10");
    let session = place.session(Limits { bytes: Some(100), ..Limits::default() });
    let failure = rows(&session, "select * from range(1000)").await.expect_err("over");
    assert_eq!(failure.sentence(), "the answer has more bytes than its limit of 100");
    // Texts count, in whatever arrays they are held.
    let session = place.session(Limits { bytes: Some(5_000_000), ..Limits::default() });
    for text in ["repeat('x', 2000)", "arrow_cast(repeat('x', 2000), 'Utf8View')", "make_array(arrow_cast(repeat('x', 2000), 'Utf8View'))"]
    {
        let failure = rows(&session, &format!("select {text} as text, value from range(5000)")).await.expect_err("over");
        assert_eq!(failure.sentence(), "the answer has more bytes than its limit of 5000000", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_ended_and_the_next_is_answered() {
    let place = Place::new();
    let session = place.session(Limits { time: Some(Duration::from_millis(300)), ..Limits::default() });
    let began = Instant::now();
    let failure = rows(&session, FOR_EVER).await.expect_err("ended");
    assert_eq!(failure.sentence(), "the statement takes longer than its limit of 300ms");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(rows(&session, "select 1").await.expect("answered"), 1);
    assert_eq!(session.inner.catalogue.at_work(), (0, 0));
    // Whoever asks may have less time, and never more.
    session.set_time_limit(Some(Duration::from_millis(50)));
    assert_eq!(session.limits().time, Some(Duration::from_millis(50)));
    session.set_time_limit(Some(Duration::from_secs(50)));
    assert_eq!(session.limits().time, Some(Duration::from_millis(300)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_needs_too_much_memory_fails_alone() {
    let place = Place::new();
    let session = place.session(Limits { memory: Some(1 << 20), ..Limits::default() });
    let greedy = "select array_agg(value || 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') from range(1000000)";
    let failure = rows(&session, greedy).await.expect_err("too much");
    let expected = "the statement needs more memory than its limit of 1048576 bytes, even with what it can spill to disk";
    assert_eq!(failure.sentence(), expected);
    assert_eq!(rows(&session, "select 1").await.expect("answered"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_cancelled_while_it_works_and_gives_its_turn_back() {
    let place = Place::new();
    let catalogue = place.catalogue(|settings| settings.queries_max = 1);
    let session = catalogue.session(Who::local());
    let cancel = CancellationToken::new();
    let mut stream = session.query(FOR_EVER, cancel.clone()).await.expect("begins");
    assert_eq!(catalogue.at_work(), (1, 0));
    let other = catalogue.session(Who { limits: Limits { wait: Duration::from_millis(50), ..Limits::default() }, ..Who::local() });
    let busy = rows(&other, "select 1").await.expect_err("one at once");
    assert_eq!(busy.sentence(), "the statement is not answered: no turn within 50ms");
    cancel.cancel();
    let error = stream.next().await.expect("an end that is told").expect_err("no rows");
    assert_eq!(crate::run::explain(&error).sentence(), "the statement was cancelled");
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(rows(&other, "select 1").await.expect("the turn is free"), 1);
    assert_eq!(catalogue.counts().cancelled.load(Relaxed), 1);
    assert_eq!(catalogue.counts().failed.load(Relaxed), 1);
}

fn ended(catalogue: &Catalogue) -> (u64, u64, u64) {
    let Counts { answered, failed, cancelled, .. } = catalogue.counts();
    let number = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    (number(answered), number(failed), number(cancelled))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_ends_at_its_limit_of_time_and_gives_its_turn_back() {
    let place = Place::new();
    let catalogue = place.catalogue(|settings| settings.queries_max = 1);
    let of = |time: Option<Duration>| Who { limits: Limits { time, wait: Duration::from_secs(30), ..Limits::default() }, ..Who::local() };
    let mut stream = catalogue
        .session(of(Some(Duration::from_millis(500))))
        .query("select * from range(100000000)", CancellationToken::new())
        .await
        .expect("begins");
    assert!(stream.next().await.expect("a batch").is_ok());
    // It is there still, and nobody asks it for more.
    assert_eq!(rows(&catalogue.session(of(None)), "select 1").await.expect("the turn is free"), 1);
    assert_eq!(ended(&catalogue), (1, 1, 0), "it is logged when it ends, not when it is dropped");
    let error = stream.next().await.expect("an end that is told").expect_err("no rows");
    assert_eq!(crate::run::explain(&error).sentence(), "the statement takes longer than its limit of 500ms");
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!((ended(&catalogue), catalogue.at_work()), ((1, 1, 0), (0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_its_door_breaks_off_has_failed() {
    let place = Place::new();
    let catalogue = place.catalogue(|_| ());
    let session = catalogue.session(Who::local());
    let prepared = session.prepare("select * from range(100000000)").await.expect("planned");
    let (mut stream, ending) = session.begin(&prepared, vec![], CancellationToken::new()).await.expect("begins");
    assert!(stream.next().await.expect("a batch").is_ok());
    ending.failed(&Failure::error("output-failed", "it cannot be written"));
    assert_eq!((ended(&catalogue), catalogue.at_work()), ((0, 1, 0), (0, 0)));
    let error = stream.next().await.expect("an end that is told").expect_err("no rows");
    assert_eq!(crate::run::explain(&error).sentence(), "the statement was cancelled");
    drop(stream);
    ending.failed(&Failure::error("output-failed", "it cannot be written"));
    assert_eq!(ended(&catalogue), (0, 1, 0), "an end is counted once");
    let (stream, _ending) = session.begin(&prepared, vec![], CancellationToken::new()).await.expect("begins");
    drop(stream);
    assert_eq!(ended(&catalogue), (0, 1, 1), "who only drops it has given it up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_have_types_and_are_bound_as_values() {
    let place = Place::new();
    let session = place.session(Limits::default());
    let prepared = session.prepare("select value + $1 as sum from range(3) where value > $2").await.expect("planned");
    assert_eq!(prepared.parameters(), [Some(DataType::Int64), Some(DataType::Int64)]);
    assert_eq!(prepared.schema().field(0).name(), "sum");
    let values = vec![ScalarValue::from(10_i32), ScalarValue::from("1")];
    let mut stream = session.execute(&prepared, values, CancellationToken::new()).await.expect("begins");
    let batch = stream.next().await.expect("a batch").expect("rows");
    assert_eq!(batch.num_rows(), 1);
    let missing = session.execute(&prepared, vec![], CancellationToken::new()).await.err().expect("refused");
    assert_eq!(missing.sentence(), "the statement has 2 parameters, and 0 values were given");
    let values = vec![ScalarValue::from("ten"), ScalarValue::from(1_i64)];
    let wrong = session.execute(&prepared, values, CancellationToken::new()).await.err().expect("refused");
    assert!(wrong.sentence().starts_with("the value of $1 is not of type Int64: "), "{}", wrong.sentence());
    let quoted = session.prepare("select $1 as text").await.expect("planned");
    let values = vec![ScalarValue::from("'; drop table x; --")];
    let mut stream = session.execute(&quoted, values, CancellationToken::new()).await.expect("begins");
    let batch = stream.next().await.expect("a batch").expect("rows");
    assert_eq!(ScalarValue::try_from_array(batch.column(0), 0).expect("a value"), ScalarValue::from("'; drop table x; --"));
    let named = session.prepare("select $name").await.expect_err("refused");
    assert!(named.sentence().contains("\"$name\" is no parameter"), "{}", named.sentence());
}

#[tokio::test]
async fn a_statement_has_an_end_and_is_a_question() {
    let place = Place::new();
    let session = place.session(Limits::default());
    let long = format!("select '{}'", "x".repeat(1 << 20));
    assert_eq!(session.prepare(&long).await.expect_err("too long").sentence(), "the statement has more than 1048576 bytes");
    for sql in [
        "create table t as select 1",
        "drop table lake.main.t",
        "insert into lake.main.t values (1)",
        "update t set a = 1",
        "delete from t",
        "copy (select 1) to '/tmp/x.csv'",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
        "explain analyze insert into t values (1)",
        "explain create table t as select 1",
        "create external table t stored as csv location '/etc/passwd'",
        "prepare p as select 1",
        "execute p",
        "begin",
        "truncate table t",
        "create function f() returns int return 1",
        "create view v as select 1",
        "create schema s",
        "create database d",
        "use lake",
        "kill 1",
        "select 1; drop table t",
    ] {
        let failure = session.query(sql, CancellationToken::new()).await.err().expect("refused");
        let code = code(&failure);
        assert!(matches!(code, "read-only" | "sql-syntax" | "sql-several" | "sql"), "{sql}: {code}: {}", failure.sentence());
    }
    assert_eq!(fs::read_dir(place.folder.path()).expect("is read").count(), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_to_plan_a_statement_is_read_in_its_turn() {
    let place = Place::new();
    fs::write(place.folder.path().join("rows.csv"), "a\n1\n2\n").expect("written");
    let catalogue = place.catalogue(|settings| settings.queries_max = 1);
    let hasty = catalogue.session(Who { limits: Limits { wait: Duration::from_millis(50), ..Limits::default() }, ..Who::local() });
    let only = catalogue.queue.turn("local", None, Duration::ZERO, &CancellationToken::new()).await.expect("free");
    hasty.prepare("select 1").await.expect("waits for nobody");
    let reading = "select * from file('rows.csv')";
    for sql in
        [reading, "select 1 where 1 in (select a from file('rows.csv'))", "select * from step('p', 's')", "select * from query.saved()"]
    {
        let busy = hasty.prepare(sql).await.expect_err("waits");
        assert_eq!(busy.sentence(), "the statement is not answered: no turn within 50ms", "{sql}");
    }
    // One that is given up while it waits is logged as that, and waits no longer.
    let patient = catalogue.session(Who::local());
    assert!(tokio::time::timeout(Duration::from_millis(50), patient.prepare(reading)).await.is_err());
    assert_eq!((catalogue.counts().cancelled.load(Relaxed), catalogue.counts().failed.load(Relaxed)), (1, 4));
    assert_eq!(catalogue.at_work(), (1, 0));
    drop(only);
    let prepared = hasty.prepare(reading).await.expect("planned");
    assert_eq!(catalogue.at_work(), (0, 0));
    assert_eq!(catalogue.counts().answered.load(Relaxed), 0, "what is only planned is no answer");
    // Whose turn it is needs no second one.
    let mut stream = hasty.execute(&prepared, vec![], CancellationToken::new()).await.expect("begins");
    assert_eq!(stream.next().await.expect("a batch").expect("rows").num_rows(), 2);
    drop(stream);
    assert_eq!(rows(&hasty, reading).await.expect("answered"), 2);
    assert_eq!(catalogue.at_work(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_in_the_memory_of_the_statement() {
    let place = Place::new();
    fs::write(place.folder.path().join("rows.csv"), "a\n1\n2\n").expect("written");
    let sql = "select a from file('rows.csv')";
    assert_eq!(rows(&place.session(Limits::default()), sql).await.expect("answered"), 2);
    let poor = place.session(Limits { memory: Some(1000), ..Limits::default() });
    let failure = rows(&poor, sql).await.expect_err("too little");
    assert!(failure.sentence().contains("memory"), "{}", failure.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_reads_a_table_outside_of_the_lake() {
    let place = Place::new();
    let aside = tempfile::Builder::new().prefix("aside").tempdir().expect("a folder");
    write_table(&place.folder.path().join(".weir/lake/s/t"));
    write_table(&aside.path().join("s/t"));
    let session = place.session(Limits::default());
    assert_eq!(rows(&session, "select * from history('s.t')").await.expect("its own"), 1);
    assert_eq!(rows(&session, "select * from changes('s.t', 0)").await.expect("its own"), 0);
    let aside = aside.path().display();
    for sql in [
        format!("select * from history('{aside}/s.t')"),
        format!("select * from history('lake.s.{aside}/s/t')"),
        format!("select * from changes('{aside}/s.t', 0)"),
        format!("select * from changes('s.{aside}/s/t', 0, 0)"),
        format!("select * from lake.\"{aside}/s\".t"),
        format!("select * from lake.s.\"{aside}/s/t\""),
        format!("select * from lake.\"{aside}/s\".t version as of 0"),
        format!("select * from lake.s.\"{aside}/s/t\" timestamp as of '2100-01-01'"),
        "select * from lake.\"..\".state version as of 0".to_owned(),
    ] {
        let failure = rows(&session, &sql).await.expect_err("refused");
        assert_eq!(code(&failure), "unknown-table", "{sql}: {}", failure.sentence());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_opened_hides_no_other() {
    let place = Place::new();
    let lake = place.folder.path().join(".weir/lake/s");
    write_table(&lake.join("good"));
    write_table(&lake.join("torn"));
    fs::write(lake.join("torn/_delta_log/00000000000000000000.json"), "{torn").expect("written");
    let session = place.session(Limits::default());
    rows(&session, "select * from lake.s.torn").await.expect_err("torn");
    for (sql, expected) in [
        ("select * from information_schema.tables where table_schema = 's'", 2),
        ("select * from quarantine.information_schema.tables where table_schema = 's'", 2),
        ("select column_name from information_schema.columns where table_schema = 's'", 1),
        ("select column_name from information_schema.columns where table_schema = 's' and current_schema() is not null", 1),
        ("select * from information_schema.views where table_schema = 's' and table_name = 'good'", 1),
        ("select distinct routine_name from information_schema.routines where routine_name = 'range' and function_type = 'TABLE'", 1),
        ("show columns from lake.s.good", 1),
    ] {
        assert_eq!(rows(&session, sql).await.expect(sql), expected, "{sql}");
    }
    let shown = session.collect("show tables").await.expect("shown");
    let shown = arrow::util::pretty::pretty_format_batches(&shown).expect("a table").to_string();
    for table in ["good", "torn", "runs"] {
        assert!(shown.lines().any(|line| line.contains(&format!(" {table} "))), "{shown}");
    }
}
