//! What the source reads from a real server, and what it says when it cannot.

use std::{collections::BTreeMap, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit},
    util::pretty::pretty_format_batches,
};
use datafusion::{
    execution::session_state::SessionStateBuilder,
    prelude::{SessionConfig, SessionContext},
};
use weir_pipelines::Incremental;

use super::*;
use crate::{
    Purpose, Retry, Source,
    postgres::test_server::{Rejected, TestServer, run_context, source_context, url},
};

fn settings(text: &str) -> PostgresSource {
    toml::from_str(&format!("connection = \"pg\"\n{text}")).expect("settings")
}

fn table(server: &TestServer, table: &str, more: &str) -> PostgresSource {
    settings(&format!("table = {}\n{more}", toml::Value::String(server.table(table))))
}

/// A session with the source as table `t`.
fn context(opened: &Opened) -> SessionContext {
    let state = SessionStateBuilder::new().with_default_features().with_config(SessionConfig::new().with_target_partitions(4)).build();
    let context = SessionContext::new_with_state(state);
    context.register_table("t", opened.table.clone()).expect("registered");
    context
}

async fn rows(opened: &Opened, sql: &str) -> DataFusionResult<RecordBatch> {
    let frame = context(opened).sql(sql).await?;
    let schema = frame.schema().inner().clone();
    concat_batches(&schema, &frame.collect().await?).map_err(Into::into)
}

async fn shown(opened: &Opened, sql: &str) -> String {
    let rows = rows(opened, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&[rows]).expect("shown").to_string()
}

async fn plan_of(opened: &Opened, sql: &str) -> String {
    let plan = context(opened).sql(sql).await.expect("SQL").create_physical_plan().await.expect("a plan");
    datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string()
}

async fn failure(opened: &Opened, sql: &str) -> Error {
    let error = rows(opened, sql).await.expect_err("fails");
    Error::find(&error).unwrap_or_else(|| panic!("no error of ours: {error}")).again()
}

async fn open_with(server: &TestServer, source: &PostgresSource) -> Result<Opened> {
    source.open(&source_context(&server.cx, &Arc::default())).await
}

#[tokio::test]
async fn every_type_is_read_exactly() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute(
            "create type mood as enum ('sad', 'Très gai');
             create domain price as numeric(8,3) check (value >= 0);
             create type pair as (n int, label mood, tags text[]);
             create type odd as (a inet);
             create table every (
               id int not null, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(12,2), big numeric(60,5),
               t text, v varchar(9), c char(5), nm name, j json, jb jsonb, bin bytea, d date, ti time, ts timestamp, tz timestamptz,
               tt timetz, iv interval, u uuid, ai int[], at text[], am mood[], ap price[], e mood, p price, r pair, ar pair[], o odd,
               net inet, mac macaddr, bi bit(3), m money, ob oid, rg int4range, pt point, tsv tsvector, aa inet[], ch \"char\");
             insert into every values (
               1, true, -32768, 9223372036854775807, 'NaN', '-Infinity', 'NaN', -1234567890.12,
               1234567890123456789012345678901234567890.12345,
               'ä \"x\" \\', '', 'ab', 'n', '{\"a\": 1}', '{\"b\":2}', '\\x00ff', '9999-12-31', '23:59:59.999999', '0001-01-01 00:00:00',
               '2024-02-29 12:00:00.000001+05:30', '10:00+02', '1 year 2 mons 3 days 04:05:06.000007',
               '0190A5B0-0000-7000-8000-00000000000A',
               '{1,null,3}', '{\"a,b\",\"\"}', '{sad,\"Très gai\"}', '{1.5,null}', 'Très gai', 7.125, row(5, 'sad', '{x}'),
               array[row(1, null, null)::pair, null],
               row('::1'::inet), '10.0.0.0/8', '08:00:2b:01:02:03', '101', '$1,234.50', 4294967295, '[1,5)', '(1,2)', 'a b', '{::1}', 'q');
             insert into every (id) values (2);",
        )
        .await;
    let opened = open_with(&server, &table(&server, "every", "")).await.expect("opens");
    let schema = opened.table.schema();
    let type_of = |name: &str| schema.field_with_name(name).expect(name).data_type().clone();
    assert_eq!(type_of("n2"), DataType::Decimal128(12, 2));
    assert_eq!(type_of("big"), DataType::Decimal256(60, 5));
    assert_eq!(type_of("p"), DataType::Decimal128(8, 3));
    assert_eq!(type_of("tz"), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert!(!schema.field_with_name("id").expect("id").is_nullable());
    assert_eq!(schema.field_with_name("jb").expect("jb").metadata().get("ARROW:extension:name").map(String::as_str), Some("arrow.json"));

    let all = rows(&opened, "select * from t order by id").await.expect("rows");
    let json = weir_schemas::json::row(&all, 0);
    let expected = [
        ("b", "true"),
        ("i2", "-32768"),
        ("i8", "9223372036854775807"),
        ("n", "\"NaN\""),
        ("n2", "-1234567890.12"),
        ("t", "\"ä \\\"x\\\" \\\\\""),
        ("v", "\"\""),
        ("c", "\"ab   \""),
        ("nm", "\"n\""),
        ("d", "\"9999-12-31\""),
        ("tt", "\"10:00:00+02\""),
        ("u", "\"0190a5b0-0000-7000-8000-00000000000a\""),
        ("ai", "[1,null,3]"),
        ("at", "[\"a,b\",\"\"]"),
        ("am", "[\"sad\",\"Très gai\"]"),
        ("e", "\"Très gai\""),
        ("p", "7.125"),
        ("o", "\"(::1)\""),
        ("net", "\"10.0.0.0/8\""),
        ("mac", "\"08:00:2b:01:02:03\""),
        ("bi", "\"101\""),
        ("m", "\"1234.50\""),
        ("ob", "4294967295"),
        ("rg", "\"[1,5)\""),
        ("pt", "\"(1,2)\""),
        ("tsv", "\"'a' 'b'\""),
        ("aa", "[\"::1/128\"]"),
        ("ch", "\"q\""),
    ];
    for (name, text) in expected {
        assert_eq!(json[name].to_string(), text, "{name}");
    }
    let big = arrow::util::display::array_value_to_string(all.column_by_name("big").expect("big"), 0).expect("shown");
    assert_eq!(big, "1234567890123456789012345678901234567890.12345");
    let pairs = all.column_by_name("ar").expect("ar").as_list::<i32>().value(0);
    assert_eq!(pairs.as_struct().column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
    assert!(all.column_by_name("f4").expect("f4").as_primitive::<arrow::datatypes::Float32Type>().value(0).is_nan());
    let empty = weir_schemas::json::row(&all, 1);
    assert!(empty.as_object().expect("a row").iter().all(|(name, value)| name == "id" || value.is_null()), "{empty}");

    // The same types out of a query, where the catalog says less.
    let query =
        settings(&format!("query = \"select *, n2 * 2 as twice from {} where id = 1; \"", server.table("every").replace('"', "\\\"")));
    let queried = open_with(&server, &query).await.expect("opens");
    let again = rows(&queried, "select * from t").await.expect("rows");
    let mut again = weir_schemas::json::row(&again, 0);
    assert_eq!(again.as_object_mut().expect("a row").remove("twice").expect("twice"), serde_json::json!("-2469135780.24"));
    assert_eq!(again, json);
    server.drop().await;
}

#[tokio::test]
async fn infinities_are_an_error_or_null_as_the_author_says() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute("create table i (d date, ts timestamptz); insert into i values ('infinity', '2024-01-01Z'), ('2024-01-01', '-infinity')")
        .await;
    let opened = open_with(&server, &table(&server, "i", "")).await.expect("opens");
    let error = failure(&opened, "select ts from t").await;
    let name = format!("\"{}.i\" of \"pg\"", server.schema);
    assert_eq!(
        (error.code, error.message.as_str()),
        ("infinity", format!("cannot read {name}: column \"ts\" holds an infinity, which Arrow has not").as_str())
    );
    let opened = open_with(&server, &table(&server, "i", "infinity = \"null\"")).await.expect("opens");
    assert_eq!(shown(&opened, "select count(*) as n, count(d) as d, count(ts) as ts from t").await.lines().nth(3), Some("| 2 | 1 | 1  |"));
    server.drop().await;
}

#[tokio::test]
async fn a_large_table_is_read_by_several_streams_of_one_snapshot() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute(
            "create table large (id int primary key, t text);
             insert into large select i, repeat(md5(i::text), 10) from generate_series(1, 60000) i;
             create table parts (id int, t text) partition by range (id);
             create table parts_1 partition of parts for values from (0) to (50000);
             create table parts_2 partition of parts for values from (50000) to (100000);
             insert into parts select * from large",
        )
        .await;
    for name in ["large", "parts"] {
        let opened = open_with(&server, &table(&server, name, "")).await.expect("opens");
        let plan = context(&opened).sql("select * from t").await.expect("SQL").create_physical_plan().await.expect("a plan");
        assert!(plan.properties().output_partitioning().partition_count() > 1, "{name}");
        let found = rows(&opened, "select count(*), count(distinct id), sum(id), min(length(t)) from t").await.expect("rows");
        let numbers: Vec<i64> = (0..4)
            .map(|column| {
                arrow::compute::cast(found.column(column), &DataType::Int64).expect("a number").as_primitive::<Int64Type>().value(0)
            })
            .collect();
        assert_eq!(numbers, [60_000, 60_000, 60_000 * 60_001 / 2, 320], "{name}");
        assert_eq!(opened.read.rows(), 60_000);
        assert!(opened.read.bytes() > 4 * 60_000);
    }
    // Where no second connection is free, the first stream reads everything.
    let small = TestServer::start_with("pool_max = 1").await.expect("the same server");
    let source = settings(&format!("table = {}\npartitions = 4", toml::Value::String(server.table("large"))));
    let opened = open_with(&small, &source).await.expect("opens");
    assert_eq!(shown(&opened, "select count(*) as n from t").await.lines().nth(3), Some("| 60000 |"));
    small.drop().await;
    server.drop().await;
}

#[tokio::test]
async fn columns_filters_and_limits_are_pushed_down_where_they_mean_the_same() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute(
            "create table f (\"I'd\" int, t text, c char(3), at timestamptz, id uuid, p numeric(9,2));
             insert into f select i, case when i % 3 = 0 then 'it''s' else 'B' end, 'x', timestamptz '2024-01-01Z' + i * interval '1 day',
               ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, i / 100.0 from generate_series(1, 100) i",
        )
        .await;
    let opened = || async { open_with(&server, &table(&server, "f", "")).await.expect("opens") };
    for (filter, count, pushed) in [
        ("\"I'd\" <= 10", 10, true),
        ("t = 'it''s' and \"I'd\" > 90", 3, true),
        ("c = 'x'", 0, false),
        ("c = 'x  '", 100, false),
        ("t > 'a'", 33, false),
        ("at < timestamp '2024-01-11T00:00:00Z'", 9, true),
        ("id = '00000000-0000-0000-0000-000000000007'", 1, true),
        ("p between 0.05 and 0.07", 3, true),
        ("t is null or \"I'd\" in (1, 2, 3)", 3, true),
        ("length(t) = 1 and \"I'd\" < 5", 3, false),
    ] {
        let sql = format!("select * from t where {filter}");
        let plan = plan_of(&opened().await, &sql).await;
        assert_eq!(!plan.contains("FilterExec"), pushed, "{plan}");
        let opened = opened().await;
        assert_eq!(rows(&opened, &sql).await.expect("rows").num_rows(), count, "{filter}");
        if pushed {
            assert_eq!(opened.read.rows(), count as u64, "{filter}");
        }
    }
    let limited = opened().await;
    assert_eq!(rows(&limited, "select t from t limit 7").await.expect("rows").num_rows(), 7);
    assert_eq!(limited.read.rows(), 7);
    let plan = plan_of(&opened().await, "select at from t where \"I'd\" = 5").await;
    assert!(plan.contains("columns=[at], filters=[(\"I'd\" = current_setting('weir.p1')::pg_catalog.int8)]"), "{plan}");
    server.drop().await;
}

#[tokio::test]
async fn a_contract_s_columns_come_first_and_what_does_not_fit_is_rejected() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute("create table d (a text, b int not null, c text); insert into d values ('7', 1, 'x'), ('seven', 2, 'y'), (null, 3, 'z')")
        .await;
    let rejected = Arc::new(Rejected::default());
    let mut cx = source_context(&server.cx, &rejected);
    cx.coordinates = true;
    cx.declared = Some(Arc::new(Schema::new(vec![
        Field::new("b", DataType::Int64, false),
        Field::new("gone", DataType::Date32, true),
        Field::new("a", DataType::Int64, true),
    ])));
    let opened = table(&server, "d", "").open(&cx).await.expect("opens");
    let names: Vec<String> = opened.table.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["b", "gone", "a", "c", "_file", "_row"]);
    let found = shown(&opened, "select b, gone, a, c, _row, _file from t order by b").await.replace(&server.schema, "s");
    let cells: Vec<Vec<&str>> =
        found.lines().skip(3).map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(cells[0], ["1", "7", "x", "1", "pg.s.d"]);
    assert_eq!(cells[1], ["3", "z", "3", "pg.s.d"]);
    let rejects = rejected.0.lock().clone();
    assert_eq!(rejects.len(), 1);
    assert_eq!((rejects[0].code.as_str(), rejects[0].row, rejects[0].column.as_deref()), ("wrong-type", Some(2), Some("a")));
    assert_eq!(rejects[0].reason, "seven is not Int64");
    assert_eq!(opened.read.rows(), 3);
    server.drop().await;
}

#[tokio::test]
async fn a_cursor_reads_what_is_new_and_nothing_twice() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute(
            "create table u (id int primary key, at timestamptz, t text);
             insert into u select i, timestamptz '2024-01-01Z' + i * interval '1 hour', 'x' from generate_series(1, 20) i",
        )
        .await;
    let mut cx = source_context(&server.cx, &Arc::default());
    cx.incremental =
        Some(Incremental::Cursor { column: "at".into(), lag: Duration::from_secs(7200), start: Some("2024-01-01T11:00:00Z".into()) });
    let source = table(&server, "u", "");
    let mut seen = BTreeMap::new();
    for (change, expected) in [
        ("select 1", (11..=20).collect::<Vec<i32>>()),
        (
            "insert into u values (21, '2024-01-01T20:00Z', 'late'), (22, '2024-01-01T19:30Z', 'later'),
               (23, '2024-01-01T01:00Z', 'too late')",
            vec![21, 22],
        ),
        ("update u set at = '2024-01-02Z', t = 'new' where id = 3", vec![3]),
        ("select 1", vec![]),
    ] {
        server.execute(change).await;
        cx.seen = seen.clone();
        let opened = source.open(&cx).await.expect("opens");
        let found = rows(&opened, "select id from t order by id").await.expect("rows");
        assert_eq!(found.column(0).as_primitive::<Int32Type>().values(), &expected[..], "{change}");
        seen = opened.advance.expect("incremental").entries();
    }
    server.execute("insert into u values (30, null, 'x')").await;
    cx.seen = seen;
    let opened = source.open(&cx).await.expect("opens");
    let error = failure(&opened, "select id from t").await;
    assert_eq!(
        (error.code, error.message.as_str()),
        ("null-cursor", "column \"at\" is null in a row, so the row has no place to be read by")
    );
    server.drop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table \"Planes\" (id int); create sequence seq; create table twice (a int, b text)").await;
    let message = |source: PostgresSource| {
        let server = &server;
        async move {
            let error = open_with(server, &source).await.expect_err("cannot be read");
            (error.code, error.message.replace(&server.schema, "s"), error.help.unwrap_or_default().replace(&server.schema, "s"))
        }
    };
    let (code, text, help) = message(table(&server, "planes", "")).await;
    assert_eq!((code, text.as_str()), ("table-missing", "connection \"pg\" has no table \"s.planes\""));
    assert!(help.starts_with("did you mean ") && help.contains("\"s.Planes\""), "{help}");
    let (code, text, _) = message(table(&server, "seq", "")).await;
    assert_eq!((code, text.as_str()), ("table-missing", "\"s.seq\" of \"pg\" is a sequence, not a table"));
    let (code, text, _) = message(settings("query = \"select 1 as a, 2 as a\"")).await;
    assert_eq!((code, text.as_str()), ("column-twice", "the query has two columns called \"a\""));
    let (code, text, _) = message(settings("query = \"select nope from pg_class\"")).await;
    assert_eq!((code, text.as_str()), ("unknown-column", "cannot read the query of \"pg\": column \"nope\" does not exist"));
    let (code, _, _) = message(settings("query = \"selec 1\"")).await;
    assert_eq!(code, "wrong-sql");
    let opened = open_with(&server, &settings("query = \"select 1 / (2 - g) as x from generate_series(1, 3) g -- a comment\""))
        .await
        .expect("opens");
    let error = failure(&opened, "select * from t").await;
    assert_eq!((error.code, error.message.as_str()), ("wrong-value", "cannot read the query of \"pg\": division by zero"));
    server.drop().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_told_without_the_password() {
    let Some(url) = url() else { return };
    let mut wrong = ::url::Url::parse(&url).expect("a URL");
    let open = |url: String, settings: &'static str| async move {
        let cx = run_context(&url, settings);
        let error = Pool::open(&cx, "pg").await.expect_err("cannot connect");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        (error.code, error.retry, error.message)
    };
    wrong.set_password(Some("hush")).expect("a password");
    wrong.set_path("weir_no_such_database");
    let (code, retry, message) = open(wrong.to_string(), "").await;
    assert!(matches!(code, "wrong-password" | "database-missing"), "{code}");
    assert_eq!(retry, Retry::Never);
    assert!(message.starts_with("cannot connect to \"pg\" ("), "{message}");
    let (code, retry, message) = open("postgres://me:hush@weir-no-such-host.invalid/x?sslmode=disable".into(), "").await;
    assert_eq!((code, retry), ("unknown-host", Retry::Never), "{message}");
    assert_eq!(message, "cannot connect to \"pg\" (weir-no-such-host.invalid:5432): no such host");
}

#[tokio::test]
async fn a_dropped_stream_leaves_nothing_running_and_a_lost_connection_is_no_end() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute("create table big (id int, t text); insert into big select i, repeat(md5(i::text), 20) from generate_series(1, 50000) i")
        .await;
    let name = application_name(&server.cx.run, "step");
    let backends = || async {
        let mut session = server.begin().await;
        let found = session
            .fetch_text("select count(*)::text from pg_stat_activity where application_name = $1", &[&name], "count")
            .await
            .expect("a count");
        session.rollback().await;
        found.expect("a count")
    };
    let opened = open_with(&server, &table(&server, "big", "")).await.expect("opens");
    let mut stream = context(&opened).sql("select * from t").await.expect("SQL").execute_stream().await.expect("a stream");
    assert!(futures::StreamExt::next(&mut stream).await.expect("a batch").expect("rows").num_rows() > 0);
    assert_ne!(backends().await, "0");
    drop(stream);
    for _ in 0..200 {
        if backends().await == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(backends().await, "0");

    let opened = open_with(&server, &table(&server, "big", "partitions = 1")).await.expect("opens");
    let mut stream = context(&opened).sql("select * from t").await.expect("SQL").execute_stream().await.expect("a stream");
    futures::StreamExt::next(&mut stream).await.expect("a batch").expect("rows");
    let mut session = server.begin().await;
    session
        .execute_with("select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", &[&name], "end it")
        .await
        .expect("ended");
    session.rollback().await;
    let error = loop {
        match futures::StreamExt::next(&mut stream).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a short result was taken for a whole one"),
        }
    };
    let error = Error::find(&error).expect("an error of ours");
    assert_eq!((error.code, error.retry), ("connection-lost", Retry::Later), "{}", error.message);

    // A run that is stopped stops reading.
    let opened = open_with(&server, &table(&server, "big", "")).await.expect("opens");
    server.cx.cancel.cancel();
    assert_eq!(failure(&opened, "select count(t) from t").await.code, "interrupted");
    server.drop().await;
}

#[tokio::test]
async fn planning_reads_no_rows() {
    let Some(server) = TestServer::start().await else { return };
    // A view that fails for its first row: looking at its columns must not meet it.
    server.execute("create view fails as select 1 / (g - 1) as x, 'a' as y from generate_series(1, 3) g").await;
    let mut cx = source_context(&server.cx, &Arc::default());
    cx.purpose = Purpose::Plan;
    let opened = table(&server, "fails", "").open(&cx).await.expect("opens");
    assert_eq!(opened.table.schema().fields().len(), 2);
    assert_eq!(opened.read.rows(), 0);
    server.drop().await;
}
