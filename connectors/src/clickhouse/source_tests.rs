//! Reading from a real server: types, what is pushed down, cursors, contracts, and what goes wrong.

use std::{collections::BTreeMap, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field, Int64Type},
    util::display::array_value_to_string,
};
use datafusion::{execution::SendableRecordBatchStream, physical_plan::displayable, prelude::SessionContext};
use futures::StreamExt;
use serde::Deserialize;
use weir_pipelines::Incremental;

use super::{
    super::{
        CONNECTION,
        test_server::{Rejected, TestServer, run_context, source_context, url},
    },
    *,
};
use crate::context::Purpose;

fn settings(text: &str) -> ClickhouseSource {
    toml::from_str(&format!("connection = \"ch\"\n{text}")).expect("settings")
}

fn context(server: &TestServer) -> SourceContext {
    source_context(&server.another_run(), &Arc::default())
}

async fn collect(opened: &Opened, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let session = SessionContext::new();
    session.register_table("rows", opened.table.clone()).expect("registers");
    let frame = session.sql(sql).await.map_err(|error| error.to_string())?;
    frame.collect().await.map_err(|error| Error::find(&error).map_or_else(|| error.to_string(), |error| format!("{}: {error}", error.code)))
}

fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let row = |batch: &RecordBatch, row| {
        let cells = batch
            .columns()
            .iter()
            .map(|column| if column.is_null(row) { "null".into() } else { array_value_to_string(column, row).expect("shown") });
        cells.collect::<Vec<String>>().join("|")
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)).collect::<Vec<_>>()).collect()
}

async fn plan_of(opened: &Opened, sql: &str) -> String {
    let session = SessionContext::new();
    session.register_table("rows", opened.table.clone()).expect("registers");
    let plan = session.sql(sql).await.expect("SQL").create_physical_plan().await.expect("a plan");
    displayable(plan.as_ref()).indent(false).to_string()
}

async fn refused(settings: &ClickhouseSource, cx: &SourceContext) -> Error {
    match settings.open(cx).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_type_is_read_as_it_is() {
    let Some(server) = TestServer::start().await else { return };
    let cases: &[(&str, &str, &str)] = &[
        ("toUInt64(18446744073709551615)", "UInt64", "18446744073709551615"),
        ("toInt8(-128)", "Int8", "-128"),
        ("true", "Boolean", "true"),
        ("toFloat32(1.5)", "Float32", "1.5"),
        ("nan", "Float64", "NaN"),
        ("toBFloat16(1.5)", "Float32", "1.5"),
        ("toDecimal64('-1.50', 2)", "Decimal128(18, 2)", "-1.50"),
        ("toDecimal256('123456789012345678901234567890123456789.5', 1)", "Decimal256(76, 1)", "123456789012345678901234567890123456789.5"),
        ("toUInt128('340282366920938463463374607431768211455')", "Decimal256(39, 0)", "340282366920938463463374607431768211455"),
        (
            "[toInt128('-170141183460469231731687303715884105728')]",
            "List(non-null Decimal256(39, 0))",
            "[-170141183460469231731687303715884105728]",
        ),
        (
            "toInt256('-57896044618658097711785492504343953926634992332820282019728792003956564819968')",
            "Utf8",
            "-57896044618658097711785492504343953926634992332820282019728792003956564819968",
        ),
        ("'Größe 007'", "Utf8", "Größe 007"),
        ("''", "Utf8", ""),
        ("toFixedString('ab', 4)", "FixedSizeBinary(4)", "61620000"),
        ("toLowCardinality(toNullable('x'))", "Utf8", "x"),
        ("cast('b' as Enum8('a' = 1, 'b' = 2))", "Utf8", "b"),
        ("toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", "Utf8", "61f0c404-5cb3-11e7-907b-a6006ad3dba0"),
        ("toIPv4('1.2.3.4')", "Utf8", "1.2.3.4"),
        ("toIPv6('2001:db8::1')", "Utf8", "2001:db8::1"),
        ("toDate('2149-06-06')", "Date32", "2149-06-06"),
        ("toDate32('1900-01-01')", "Date32", "1900-01-01"),
        ("toDateTime('2020-07-01 03:04:05', 'Europe/Paris')", "Timestamp(s, \"Europe/Paris\")", "2020-07-01T03:04:05+02:00"),
        ("toDateTime64('1969-12-31 23:59:59.5', 3, 'UTC')", "Timestamp(ms, \"UTC\")", "1969-12-31T23:59:59.500Z"),
        ("toDateTime64('2299-12-31 23:59:59.12345', 5, 'UTC')", "Timestamp(µs, \"UTC\")", "2299-12-31T23:59:59.123450Z"),
        ("toDateTime64('2020-01-01 00:00:00.123456789', 9, 'UTC')", "Timestamp(ns, \"UTC\")", "2020-01-01T00:00:00.123456789Z"),
        ("cast('23:59:59' as Time)", "Time32(s)", "23:59:59"),
        ("cast('12:34:56.1234' as Time64(4))", "Time64(µs)", "12:34:56.123400"),
        ("toIntervalWeek(2)", "Interval(MonthDayNano)", "14 days"),
        ("[toNullable('a'), null]", "List(Utf8)", "[a, ]"),
        (
            "map('k', cast('a' as Enum8('a' = 1)))",
            "Map(\"entries\": non-null Struct(\"keys\": non-null Utf8, \"values\": non-null Utf8), unsorted)",
            "{k: a}",
        ),
        ("cast((1, 'x') as Tuple(n UInt8, `a b` String))", "Struct(\"n\": non-null UInt8, \"a b\": non-null Utf8)", "{n: 1, a b: x}"),
        (
            "(1, toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0'))",
            "Struct(\"1\": non-null UInt8, \"2\": non-null Utf8)",
            "{1: 1, 2: 61f0c404-5cb3-11e7-907b-a6006ad3dba0}",
        ),
        ("cast('{\"a\":{\"b\":1}}' as JSON)", "Utf8", "{\"a\":{\"b\":1}}"),
        ("cast(7 as Dynamic)", "Utf8", "7"),
        ("cast(null as Dynamic)", "Utf8", "null"),
        ("cast('v' as Variant(UInt8, String))", "Utf8", "v"),
        ("cast((1., 2.) as Point)", "Struct(\"1\": non-null Float64, \"2\": non-null Float64)", "{1: 1.0, 2: 2.0}"),
        ("null", "Utf8", "null"),
        ("toNullable(toDate('2020-01-01'))", "Date32", "2020-01-01"),
        ("cast([] as Array(UInt8))", "List(non-null UInt8)", "[]"),
    ];
    let list: Vec<String> = cases.iter().enumerate().map(|(index, (sql, ..))| format!("{sql} as c{index}")).collect();
    let source = settings(&format!("query = '''select {}'''", list.join(", ")));
    let opened = source.open(&context(&server)).await.expect("opens");
    let batches = collect(&opened, "select * from rows").await.expect("reads");
    let batch = &batches[0];
    for (index, (sql, arrow, shown)) in cases.iter().enumerate() {
        let column = batch.column(index);
        let value = if column.is_null(0) { "null".to_owned() } else { array_value_to_string(column, 0).expect("shown") };
        assert_eq!((column.data_type().to_string().as_str(), value.as_str()), (*arrow, *shown), "{sql}");
        assert_eq!(opened.table.schema().field(index).data_type(), column.data_type());
    }
    server.drop().await;
}

#[tokio::test]
async fn a_tables_values_nulls_and_defaults_arrive() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table `a \"b\" ``; drop table x; --` (id UInt32, name Nullable(String), at DateTime, `x.y` Array(UInt8), low LowCardinality(String), hidden UInt8 materialized 1, other UInt8 alias id) engine = MergeTree order by id").await;
    server.execute("insert into `a \"b\" ``; drop table x; --` values (1, null, 1577934245, [1], 'l'), (2, 'Zoë', 0, [], '')").await;
    let source = settings("table = '''`a \"b\" \\`; drop table x; --`'''");
    let opened = source.open(&context(&server)).await.expect("opens");
    let names: Vec<String> = opened
        .table
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}{}", field.name(), if field.is_nullable() { "?" } else { "" }))
        .collect();
    assert_eq!(names, ["id", "name?", "at", "x.y", "low"]);
    let rows = texts(&collect(&opened, "select * from rows order by id").await.expect("reads"));
    assert_eq!(rows, ["1|null|2020-01-02T03:04:05Z|[1]|l", "2|Zoë|1970-01-01T00:00:00Z|[]|"]);
    assert_eq!(opened.read.rows(), 2);
    assert!(opened.read.bytes() > 100);
    assert_eq!(
        texts(&collect(&source.open(&context(&server)).await.expect("opens"), "select count(*) from rows").await.expect("reads")),
        ["2"]
    );
    server.drop().await;
}

#[tokio::test]
async fn filters_that_the_server_applies_keep_what_datafusion_keeps() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (i Int32, n Nullable(UInt64), b Bool, d Decimal(10, 2), day Date, far Date32, at DateTime('Europe/Paris'), fine Nullable(DateTime64(6)), s Nullable(String), low LowCardinality(String), e Enum8('a' = 1), f Float64) engine = MergeTree order by i").await;
    server.execute("insert into t select number - 50, if(number % 7 = 0, null, number * 1000000007), number % 3 = 0, (number - 50) / 4, toDate('2020-01-01') + number, toDate32('1950-01-01') + number * 100, toDateTime('2020-03-29 00:00:00', 'UTC') + number * 600, if(number % 5 = 0, null, toDateTime64('1969-12-31 23:59:00.000001', 6, 'UTC') + number), if(number % 4 = 0, null, concat('t\\'\\\\', toString(number % 6))), toString(number % 3), 'a', number / 2 from numbers(100)").await;
    let all = collect(&settings("table = \"t\"").open(&context(&server)).await.expect("opens"), "select * from rows").await.expect("reads");
    for (filter, pushed) in [
        ("i > 10", true),
        ("i between -5 and 5 or i in (40, 41, 42)", true),
        ("not (n = 3000000021 or n is null)", true),
        ("n not in (3000000021, 1000000007)", true),
        ("not (n > 50000000000)", true),
        ("b", true),
        ("not b", true),
        ("d <= -3.25", true),
        ("d in (1.00, 2.50, -0.25)", true),
        ("day >= date '2020-02-15'", true),
        ("day > date '1850-02-15'", false),
        ("far < date '1960-02-15'", true),
        ("at >= timestamp '2020-03-29T01:00:00Z'", true),
        ("at < timestamp '2020-03-29T03:10:00+02:00'", true),
        ("fine < timestamp '1970-01-01T00:00:00Z'", true),
        ("fine = timestamp '1969-12-31T23:59:07.000001Z'", true),
        ("fine is null", true),
        ("s = 't''\\3'", true),
        ("s in ('t''\\3', 't''\\4')", true),
        ("s <> 't''\\3'", true),
        ("low = '1'", true),
        ("low < '1'", false),
        ("e = 'a'", false),
        ("f > 10.0", false),
        ("i > 10 and f > 30.0 and (s is null or low = '2')", false),
    ] {
        let sql = format!("select * from rows where {filter} order by i");
        let session = SessionContext::new();
        session
            .register_table(
                "rows",
                Arc::new(datafusion::datasource::MemTable::try_new(all[0].schema(), vec![all.clone()]).expect("a table")),
            )
            .expect("registers");
        let expected = texts(&session.sql(&sql).await.expect("SQL").collect().await.expect("runs"));
        let opened = settings("table = \"t\"").open(&context(&server)).await.expect("opens");
        let plan = plan_of(&opened, &sql).await;
        assert_eq!(!plan.contains("FilterExec"), pushed, "{filter}: {plan}");
        let got = texts(&collect(&opened, &sql).await.unwrap_or_else(|error| panic!("{filter}: {error}")));
        assert_eq!(got, expected, "{filter}");
        assert!(!pushed || opened.read.rows() == expected.len() as u64, "{filter}: the server sent only those");
        assert!(!expected.is_empty(), "{filter}: some rows are kept");
    }
    let opened = settings("table = \"t\"").open(&context(&server)).await.expect("opens");
    let plan = plan_of(&opened, "select s from rows where i > 10 limit 3").await;
    assert!(plan.contains("columns=[s], filters=[(`i` > {p1:Int32})], limit=3"), "{plan}");
    assert_eq!(collect(&opened, "select s from rows where i > 10 limit 3").await.expect("reads")[0].num_rows(), 3);
    assert_eq!(opened.read.rows(), 3);
    server.drop().await;
}

#[tokio::test]
async fn batches_are_cut_and_lz4_changes_nothing() {
    let Some(server) = TestServer::start_with("compression = \"lz4\"").await else { return };
    let cx = source_context(&server.cx, &Arc::default());
    let opened = settings("query = \"select number as n, toString(number) as s from numbers(300000) -- all of them\"")
        .open(&cx)
        .await
        .expect("opens");
    let batches = collect(&opened, "select * from rows").await.expect("reads");
    let sum: i64 = texts(
        &collect(
            &settings("query = \"select toInt64(number) as n from numbers(300000);\"").open(&cx).await.expect("opens"),
            "select sum(n) from rows",
        )
        .await
        .expect("reads"),
    )[0]
    .parse()
    .expect("a number");
    assert_eq!(sum, 300_000 * 299_999 / 2);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 300_000);
    assert_eq!(opened.read.rows(), 300_000);
    server.drop().await;
}

#[tokio::test]
async fn an_incremental_source_reads_each_row_once() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (id UInt32, at DateTime64(3, 'UTC'), v String) engine = MergeTree order by id").await;
    let read = async |seen: &BTreeMap<String, String>| {
        let mut cx = context(&server);
        cx.incremental =
            Some(Incremental::Cursor { column: "at".into(), lag: Duration::from_secs(10), start: Some("2020-01-01T00:00:01Z".into()) });
        cx.seen = seen.clone();
        let opened = settings("table = \"t\"").open(&cx).await.expect("opens");
        // A projection without the cursor still reads by it.
        let rows = texts(&collect(&opened, "select id from rows order by id").await.expect("reads"));
        assert_eq!(opened.read.rows(), rows.len() as u64);
        (rows.join(" "), opened.advance.expect("incremental").entries())
    };
    let insert = async |rows: &str| server.execute(&format!("insert into t values {rows}")).await;
    insert("(1, '2020-01-01 00:00:00', 'too early'), (2, '2020-01-01 00:00:01', 'x'), (3, '2020-01-01 00:01:00', 'x')").await;
    let (rows, seen) = read(&BTreeMap::new()).await;
    assert_eq!(rows, "2 3");
    let (rows, again) = read(&seen).await;
    assert_eq!((rows.as_str(), &again), ("", &seen));
    insert("(4, '2020-01-01 00:00:50', 'late'), (5, '2020-01-01 00:00:49.999', 'too late'), (3, '2020-01-01 00:01:00', 'changed'), (6, '2020-01-01 00:02:00', 'x')").await;
    let (rows, seen) = read(&seen).await;
    assert_eq!(rows, "3 4 6");
    let (rows, _) = read(&seen).await;
    assert_eq!(rows, "");
    // A limit that stops the reading moves nothing.
    let mut cx = context(&server);
    cx.incremental = Some(Incremental::Cursor { column: "at".into(), lag: Duration::ZERO, start: None });
    let opened = settings("table = \"t\"").open(&cx).await.expect("opens");
    assert!(!plan_of(&opened, "select id from rows limit 1").await.contains("limit="));
    server.execute("create table n (at Nullable(DateTime), id UInt8) engine = Memory").await;
    server.execute("insert into n values (now(), 1), (null, 2)").await;
    let error = collect(&settings("table = \"n\"").open(&cx).await.expect("opens"), "select id from rows").await.expect_err("a null");
    assert_eq!(error, "null-cursor: column \"at\" is null in a row, so the row has no place to be read by");
    server.drop().await;
}

#[tokio::test]
async fn a_contract_orders_columns_and_sets_misfits_aside() {
    let Some(server) = TestServer::start().await else { return };
    let rejected = Arc::new(Rejected::default());
    let mut cx = source_context(&server.cx, &rejected);
    cx.coordinates = true;
    let field = |name: &str, kind| Field::new(name, kind, false);
    cx.declared =
        Some(Arc::new(Schema::new(vec![field("s", DataType::Int64), field("absent", DataType::Utf8), field("d", DataType::Date32)])));
    let query = "query = \"select number as n, if(number = 2, 'x', toString(number)) as s, '2020-01-02' as d from numbers(4)\"";
    let opened = settings(query).open(&cx).await.expect("opens");
    let rows = texts(&collect(&opened, "select * from rows").await.expect("reads"));
    assert_eq!(rows, ["0|null|2020-01-02|0|ch.query|1", "1|null|2020-01-02|1|ch.query|2", "3|null|2020-01-02|3|ch.query|4"]);
    assert_eq!(opened.read.rows(), 4);
    let rejects = rejected.0.lock().clone();
    assert_eq!(rejects.len(), 1);
    assert_eq!((rejects[0].code.as_str(), rejects[0].column.as_deref(), rejects[0].row), ("wrong-type", Some("s"), Some(3)));
    assert_eq!((rejects[0].reason.as_str(), rejects[0].raw.as_str()), ("x is not Int64", "{\"s\":\"x\",\"d\":\"2020-01-02\",\"n\":2}"));
    // What is declared otherwise is not asked of the server.
    let plan = plan_of(&settings(query).open(&cx).await.expect("opens"), "select n from rows where s > 1 and n < 3 limit 1").await;
    assert!(plan.contains("filters=[(`n` < {p1:UInt64})]") && !plan.contains("limit=1,"), "{plan}");
    server.drop().await;
}

#[tokio::test]
async fn planning_reads_no_rows_and_final_merges() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (k UInt8, v UInt8) engine = ReplacingMergeTree order by k").await;
    server.execute("insert into t values (1, 1), (2, 1)").await;
    server.execute("insert into t values (1, 2)").await;
    let merged = settings("table = \"t\"\nfinal = true").open(&context(&server)).await.expect("opens");
    assert_eq!(texts(&collect(&merged, "select v from rows where k = 1").await.expect("reads")), ["2"]);
    let mut cx = context(&server);
    cx.purpose = Purpose::Plan;
    let planned = settings("table = \"t\"").open(&cx).await.expect("opens");
    assert_eq!(texts(&collect(&planned, "select * from rows").await.expect("plans")), Vec::<String>::new());
    assert_eq!(planned.table.schema().fields().len(), 2);
    server.drop().await;
}

#[tokio::test]
async fn what_a_person_got_wrong_is_told() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (k UInt8, s String, a AggregateFunction(sum, UInt8)) engine = Memory").await;
    let (cx, database) = (context(&server), server.database.clone());
    for (text, code, setting, message) in [
        ("table = \"nope\"", "table-missing", "table", format!("cannot read \"{database}.nope\" of \"ch\": ")),
        ("table = \"a.b.c\"", "wrong-value", "table", "\"a.b.c\" has more than a database and a table".into()),
        ("query = \"selec 1\"", "wrong-sql", "query", "cannot read the query of \"ch\": Syntax error".into()),
        ("query = \"select nope from t\"", "unknown-column", "query", "cannot read the query of \"ch\": ".into()),
        (
            "table = \"t\"",
            "type-unsupported",
            "table",
            format!(
                "column \"a\" of \"{database}.t\" of \"ch\" is AggregateFunction(sum, UInt8): the state of an aggregation, not a value"
            ),
        ),
        ("query = \"select k from t\"\nbinary = [\"k\"]", "wrong-value", "binary", "column \"k\" is UInt8, not String".into()),
        ("query = \"select k from t\"\nbinary = [\"s\"]", "unknown-column", "binary", "the query of \"ch\" has no column \"s\"".into()),
    ] {
        let error = refused(&settings(text), &cx).await;
        assert_eq!((error.code, error.setting.as_deref()), (code, Some(setting)), "{text}: {error}");
        assert!(error.message.starts_with(&message), "{text}: {error}");
    }
    let help = refused(&settings("table = \"t\""), &cx).await.help.expect("help");
    assert_eq!(help, "write a \"query\" that selects finalizeAggregation(`a`) as `a`, or leaves the column out");
    let opened = settings("query = \"select unhex('ff') as s\"").open(&cx).await.expect("opens");
    assert_eq!(
        collect(&opened, "select * from rows").await.expect_err("no text"),
        "not-utf8: column \"s\" holds bytes that are not UTF-8 text"
    );
    let opened = settings("query = \"select unhex('ff00') as s\"\nbinary = [\"s\"]").open(&cx).await.expect("opens");
    assert_eq!(texts(&collect(&opened, "select * from rows").await.expect("bytes")), ["ff00"]);
    server.drop().await;
}

#[tokio::test]
async fn an_answer_that_fails_halfway_is_a_failure() {
    let Some(server) = TestServer::start().await else { return };
    for rows in [1_000, 5_000_000] {
        let query = format!(
            "query = \"select throwIf(number = {rows} - 1, 'stop here') as t, number as n from numbers({rows}) settings max_block_size = 1000\""
        );
        let opened = settings(&query).open(&context(&server)).await.expect("opens");
        let error = collect(&opened, "select count(n), sum(t) from rows").await.expect_err("it fails");
        assert!(error.contains("stop here"), "{rows}: {error}");
    }
    server.drop().await;
}

#[derive(Deserialize)]
struct Count {
    n: u64,
}

/// Starts to read a query that sends two megabytes in its first two seconds and then nothing for a minute, and takes one batch. The
/// server cannot notice by writing that its reader is gone: until another megabyte has gathered it writes nothing.
async fn begun(server: &TestServer) -> SendableRecordBatchStream {
    let query = "query = \"select number as n, repeat('x', if(number < 10, 200000, 0)) as t, sleepEachRow(0.2) as s from numbers(300) settings max_block_size = 1\"";
    let opened = settings(query).open(&source_context(&server.cx, &Arc::default())).await.expect("opens");
    let session = SessionContext::new();
    session.register_table("rows", opened.table.clone()).expect("registers");
    let mut stream = session.sql("select * from rows").await.expect("SQL").execute_stream().await.expect("a stream");
    assert!(stream.next().await.expect("a batch").expect("rows").num_rows() > 0);
    assert_eq!(running(server).await, 1);
    stream
}

/// How many queries of the run the server is at work on.
async fn running(server: &TestServer) -> u64 {
    let sql = format!("select count() as n from system.processes where startsWith(query_id, 'weir-{}-')", server.cx.run);
    server.rows::<Count>(&sql).await[0].n
}

/// Waits until that is none.
async fn over(server: &TestServer) {
    let gone = async {
        while running(server).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the query ends, now that nobody reads its answer");
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_query_on_the_server() {
    // Compressed, so many equal letters would never fill the server's buffer.
    let Some(server) = TestServer::start_with("compression = \"none\"").await else { return };
    drop(begun(&server).await);
    over(&server).await;
    server.drop().await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_ends_its_queries_on_the_server() {
    let Some(server) = TestServer::start_with("compression = \"none\"").await else { return };
    let mut stream = begun(&server).await;
    let read = async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                ended => break ended,
            }
        }
    };
    // It comes while the stream waits for rows that are long in coming.
    let stop = async { server.cx.cancel.cancel() };
    let (ended, ()) = tokio::join!(read, stop);
    let error = ended.expect("a short answer is no end").expect_err("it was cancelled");
    assert_eq!(Error::find(&error).expect("an error of ours").code, "interrupted");
    // The stream is still held: it need not be dropped for this.
    over(&server).await;
    drop(stream);
    server.drop().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_is_told() {
    let Some(url) = url() else { return };
    let own = url::Url::parse(&url).expect("a URL");
    let at = |host: &str, port: u16| format!("http://user:hush-hush@{host}:{port}");
    let source = settings("table = \"t\"");
    let (host, port) = (own.host_str().expect("a host").to_owned(), own.port().expect("a port"));
    for (url, more, code, message) in [
        (at(&host, port), "", "wrong-password", format!("cannot connect to \"{host}:{port}\": user: Authentication failed")),
        (at("nowhere.invalid", 1), "", "unknown-host", "cannot connect to \"nowhere.invalid:1\": no such host".into()),
        (
            url.clone(),
            "database = \"no such\"",
            "database-missing",
            format!("cannot connect to \"{host}:{port}\": Database `no such` does not exist"),
        ),
        ("ftp://h".into(), "", "wrong-connection", "the \"url\" of connection \"ch\" is no URL such as http://127.0.0.1:8123".into()),
        (
            format!("https://{host}:{port}"),
            "ca = \"none.pem\"",
            "certificate",
            "\"ca\" of the connection cannot be used: \"none.pem\": entity not found".into(),
        ),
    ] {
        let error = refused(&source, &source_context(&run_context(&url, more), &Arc::default())).await;
        assert_eq!(error.code, code, "{error:?}");
        let (start, shown) = (message.as_str(), error.message.as_str());
        assert!(shown.starts_with(start) || shown.contains("uthentication failed"), "{shown}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    // Nobody listens: tried again until somebody stops it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let run = run_context(&at("127.0.0.1", free), "");
    run.cancel.cancel();
    let error = refused(&source, &source_context(&run, &Arc::default())).await;
    assert_eq!(
        (error.code, error.message),
        ("connection-refused", format!("cannot connect to \"127.0.0.1:{free}\": nobody answers there"))
    );
    // Somebody listens and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let run = run_context(&at("127.0.0.1", silent.local_addr().expect("an address").port()), "connect_timeout = \"300ms\"");
    run.cancel.cancel();
    let error = refused(&source, &source_context(&run, &Arc::default())).await;
    assert_eq!(error.code, "connect-timeout");
    assert!(error.message.ends_with("no answer within 0.3 s"), "{error}");
}

#[tokio::test]
async fn a_probe_finds_what_loads_left() {
    let Some(server) = TestServer::start().await else { return };
    let run = uuid::Uuid::now_v7();
    server.execute(&format!("create table t__weir_abc (a UInt8) engine = Memory comment 'weir run {run}, sink olap'")).await;
    server.execute("create table t__weir_def (a UInt8) engine = Memory").await;
    let probe = (CONNECTION.probe)("ch", &server.cx).await.expect("looks");
    assert!(probe.server.starts_with("ClickHouse 2"), "{}", probe.server);
    let own: Vec<_> = probe.staged.into_iter().filter(|stage| stage.name.starts_with(&server.database)).collect();
    assert_eq!(own.len(), 2);
    assert_eq!(
        (own[0].name.as_str(), own[0].run.as_deref()),
        (format!("{}.t__weir_abc", server.database).as_str(), Some(run.to_string().as_str()))
    );
    assert_eq!(own[1].run, None);
    server.drop().await;
}

#[tokio::test]
async fn an_insert_that_is_dropped_is_none() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (n Int64) engine = MergeTree order by n").await;
    let rows = RecordBatch::try_from_iter([("n", Arc::new(arrow::array::Int64Array::from_iter_values(0..1000)) as arrow::array::ArrayRef)])
        .expect("rows");
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
    writer.write(&rows).expect("written");
    let bytes = bytes::Bytes::from(writer.into_inner().expect("ended"));
    let counted = async || server.rows::<Count>("select count() as n from t").await[0].n;
    for whole in [false, true] {
        let mut insert = server
            .server
            .insert("insert into t format ArrowStream", &[], Some(&uuid::Uuid::now_v7().to_string()), "insert")
            .await
            .expect("starts");
        let cut = if whole { bytes.len() } else { bytes.len() - 100 };
        insert.send(bytes.slice(..cut)).await.expect("sent");
        if whole {
            insert.end().await.expect("inserted");
            assert_eq!(counted().await, 1000);
        } else {
            drop(insert);
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(counted().await, 0);
        }
    }
    let mut insert = server.server.insert("insert into nope format ArrowStream", &[], None, "insert").await.expect("starts");
    let sent = insert.send(bytes.clone()).await;
    let error = match sent {
        Ok(()) => insert.end().await.expect_err("no table"),
        Err(error) => error,
    };
    assert_eq!(error.code, "table-missing");
    let sum =
        collect(&settings("table = \"t\"").open(&context(&server)).await.expect("opens"), "select sum(n) from rows").await.expect("reads");
    assert_eq!(sum[0].column(0).as_primitive::<Int64Type>().value(0), 499_500);
    server.drop().await;
}

#[test]
fn a_value_is_written_as_its_type_and_never_beyond_it() {
    let at = |value| written(&ScalarValue::TimestampMillisecond(Some(value), Some("Europe/Paris".into())));
    assert_eq!(at(-500), Some(("1969-12-31 23:59:59.500".into(), "DateTime64(3, 'UTC')".into())));
    assert_eq!(at(i64::MAX), None);
    assert_eq!(written(&ScalarValue::TimestampSecond(Some(-3_000_000_000), Some("UTC".into()))), None);
    assert_eq!(written(&ScalarValue::Decimal128(Some(-5), 10, 2)), Some(("-0.05".into(), "Decimal(10, 2)".into())));
    assert_eq!(written(&ScalarValue::Date32(Some(i32::MAX))), None);
    assert_eq!(written(&ScalarValue::TimestampSecond(Some(0), None)), None);
}
