//! What is found in a real Postgres, how queries over it are sent, and that they mean the same there.

use std::time::Instant;

use super::*;
use crate::{
    postgres::test_server::{TestServer, run_context},
    remote::property_tests::{Columns, Numbers, agree, answer, copied, plan, session, with_tables},
};

fn browse(server: &TestServer) -> Arc<dyn Browse> {
    (BROWSE.open)("pg", &server.cx).expect("settings")
}

#[tokio::test]
async fn tables_are_listed_and_the_servers_own_are_not() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute(
            "create table \"My Table\" (id int); create view seen as select 1 as one; create materialized view kept as select 2 as two;
             create table parted (id int, at date) partition by range (at);
             create table parted_1 partition of parted for values from ('2024-01-01') to ('2025-01-01');
             create sequence numbers; create table weir_stage_x (id int);",
        )
        .await;
    let browse = browse(&server);
    let listed = browse.tables().await.expect("listed");
    let own: Vec<(&str, ListedKind)> =
        listed.iter().filter(|listed| listed.schema == server.schema).map(|listed| (listed.table.as_str(), listed.kind)).collect();
    let (table, view) = (ListedKind::Table, ListedKind::View);
    let mut expected = vec![("My Table", table), ("kept", view), ("parted", table), ("seen", view)];
    expected.sort_by_key(|(name, _)| own.iter().position(|(own, _)| own == name));
    assert_eq!(own, expected);
    assert!(listed.iter().all(|listed| !is_system(&listed.schema)), "{listed:?}");
    assert!(browse.table(&server.schema, "nowhere").await.expect("reachable").is_none());
    assert!(browse.table("nowhere", "My Table").await.expect("reachable").is_none());
    assert!(browse.table(&server.schema, "numbers").await.expect("reachable").is_none());
    assert!(browse.table("pg_catalog", "pg_authid").await.expect("reachable").is_none());
    let parted = browse.table(&server.schema, "parted").await.expect("reachable").expect("there");
    assert_eq!(parted.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["id", "at"]);
    server.drop().await;
}

#[tokio::test]
async fn a_database_that_is_not_there_fails_soon_and_says_so() {
    let cx = run_context("postgres://nobody@127.0.0.1:1/none", "");
    let began = Instant::now();
    let error = (BROWSE.open)("pg", &cx).expect("settings").tables().await.expect_err("unreachable");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(error.code, "connection-refused", "{error:?}");
    assert!((BROWSE.open)("other", &cx).is_err());
}

/// Two tables with nulls, equal values, and texts that collations and encodings like to confuse.
async fn fill(server: &TestServer) {
    server.execute("create type mood as enum ('sad', 'glad')").await;
    for (table, seed) in [("a", 7), ("b", 11)] {
        let mut numbers = Numbers(seed);
        let mut rows = Vec::new();
        for id in 0..150 {
            let mut pick = |of: &[&str]| numbers.one(of).to_owned();
            let row = [
                id.to_string(),
                pick(&["1", "2", "3", "-4", "null"]),
                pick(&["1", "2", "32767", "-32768", "null"]),
                pick(&["1", "9223372036854775807", "-9223372036854775808", "3", "null"]),
                pick(&["0.10", "-99999999.99", "12.30", "99999999.99", "null"]),
                pick(&["1.0", "1.00", "-7", "null"]),
                pick(&["'ä'", "'a'", "'A'", "''", "' '", "null"]),
                pick(&["'x'", "'X'", "'y'", "null"]),
                pick(&["'sad'", "'glad'", "null"]),
                pick(&["true", "false", "null"]),
                pick(&["'0001-01-01'", "'2024-02-29'", "'9999-12-31'", "null"]),
                pick(&["'2024-02-29 12:00:00.000001'", "'1969-12-31 23:59:59'", "null"]),
                pick(&["'2024-02-29 12:00:00+05:30'", "'2024-02-29 06:30:00+00'", "null"]),
                pick(&["'0190a5b0-0000-7000-8000-00000000000a'", "'0190a5b0-0000-7000-8000-00000000000b'", "null"]),
                pick(&["'NaN'", "0", "'-0'", "1.5", "null"]),
                pick(&["'a'", "'a  '", "'b'", "null"]),
            ];
            rows.push(format!("({})", row.join(", ")));
        }
        server
            .execute(&format!(
                "create table {table} (id int not null, k int, s int2, big bigint, d numeric(10,2), n numeric, t text, \
                 l text collate \"C\", e mood, bo bool, dt date, ts timestamp, tz timestamptz, u uuid, f float8, c char(3)); \
                 insert into {table} values {}",
                rows.join(", ")
            ))
            .await;
    }
}

const ALL: Columns<'static> = Columns {
    keys: &["k", "s", "big", "d", "t", "e", "l", "n", "bo", "dt", "ts", "tz", "u", "f", "c"],
    filters: &[
        "{}k = 2",
        "{}s >= 2",
        "{}big > 1",
        "{}d < 12.5",
        "{}t in ('a', 'A')",
        "{}t is not null",
        "{}l = 'x'",
        "{}e = 'sad'",
        "{}bo",
        "not {}bo",
        "{}dt between date '2000-01-01' and date '2030-01-01'",
        "{}ts < timestamp '2000-01-01T00:00:00'",
        "{}u = '0190a5b0-0000-7000-8000-00000000000a'",
        "{}n = '1.0'",
        "{}c = 'a  '",
        "({}k = 1 or {}d = 0.1)",
        "{}f > 0",
        "upper({}t) = 'A'",
    ],
    aggregates: &[
        "count(*)",
        "count({}t)",
        "count({}f)",
        "count(distinct {}k)",
        "count(distinct {}l)",
        "count(distinct {}n)",
        "count(distinct {}e)",
        "sum({}k)",
        "sum({}s)",
        "sum({}big)",
        "sum({}d)",
        "min({}k)",
        "max({}big)",
        "min({}d)",
        "max({}dt)",
        "min({}ts)",
        "max({}tz)",
        "min({}t)",
        "max({}bo)",
    ],
    all: &["id", "k", "d", "t", "e", "dt", "tz", "u", "c"],
};

/// The same without what never leaves here, so that whole queries are sent.
const SENT: Columns<'static> = Columns {
    keys: &["k", "s", "big", "d", "t", "e", "bo", "dt", "ts", "tz", "u"],
    filters: &["{}k = 2", "{}s >= 2", "{}d < 12.5", "{}t in ('a', 'A')", "{}bo", "{}l = 'x'", "({}k = 1 or {}d = 0.1)"],
    aggregates: &[
        "count(*)",
        "count({}t)",
        "count(distinct {}k)",
        "sum({}k)",
        "sum({}d)",
        "min({}k)",
        "max({}big)",
        "max({}dt)",
        "min({}ts)",
    ],
    all: &["id", "k", "d", "t"],
};

#[tokio::test]
async fn queries_that_are_sent_mean_the_same_there() {
    let Some(server) = TestServer::start().await else { return };
    fill(&server).await;
    let live = with_tables(&*browse(&server), &server.schema, &["a", "b"]).await;
    agree(&live, "PostgresQuery", &ALL, 0x2545_F491_4F6C_DD1D, 250).await;
    let whole = agree(&live, "PostgresQuery", &SENT, 0x9E37_79B9_7F4A_7C15, 250).await;
    assert!(whole >= 150, "only {whole} of 250 queries were sent whole");
    server.drop().await;
}

#[tokio::test]
async fn a_plan_shows_what_is_sent_without_values() {
    let Some(server) = TestServer::start().await else { return };
    fill(&server).await;
    let live = with_tables(&*browse(&server), &server.schema, &["a", "b"]).await;
    let schema = &server.schema;
    for (sql, sent) in [
        ("select k from a where t = 'secret' limit 3", {
            format!(
                "PostgresQuery: pg, sql=select \"k\"::pg_catalog.int4 from \"{schema}\".\"a\" \
                 where (\"t\" = current_setting('weir.p1')::pg_catalog.text) limit 3"
            )
        }),
        ("select t, count(*) as n from a where k > 1 group by t", {
            format!(
                "PostgresQuery: pg, sql=select \"t\"::pg_catalog.text, count(*)::pg_catalog.int8 from \"{schema}\".\"a\" \
                 where (\"k\" > current_setting('weir.p1')::pg_catalog.int8) group by \"t\""
            )
        }),
        ("select sum(b.d) from a join b on a.k = b.k", {
            format!(
                "PostgresQuery: pg, sql=select sum(\"d\")::pg_catalog.numeric from (select \"k\" from \"{schema}\".\"a\") as \"q1\" \
                 inner join (select \"k\" as \"c0\", \"d\" from \"{schema}\".\"b\") as \"q2\" on \"k\" = \"c0\""
            )
        }),
        ("select id from a order by id desc limit 2", {
            format!(
                "PostgresQuery: pg, sql=select \"id\"::pg_catalog.int4 from \"{schema}\".\"a\" order by \"id\" desc nulls first limit 2"
            )
        }),
    ] {
        let plan = plan(&live, sql).await;
        assert!(plan.contains(&sent), "{sql}\n{plan}\n{sent}");
        assert!(!plan.contains("secret"), "{plan}");
    }
    // Each of these would mean another thing there.
    for (sql, here) in [
        ("select sum(big) from a", "AggregateExec"),
        ("select sum(f) from a", "AggregateExec"),
        ("select avg(k) from a", "AggregateExec"),
        ("select f, count(*) from a group by f", "AggregateExec"),
        ("select c, count(*) from a group by c", "AggregateExec"),
        ("select min(t) from a", "AggregateExec"),
        ("select count(*) from a join b on a.f = b.f", "JoinExec"),
        ("select count(*) from a join b on a.c = b.c", "JoinExec"),
        ("select count(*) from a join b on a.k = b.k and a.s < b.s", "JoinExec"),
    ] {
        let plan = plan(&live, sql).await;
        assert!(plan.contains(here), "{sql}\n{plan}");
    }
    let tops = plan(&live, "select t from a order by t limit 2").await;
    assert!(!tops.contains("order by"), "{tops}");
    server.drop().await;
}

#[tokio::test]
async fn a_table_is_read_as_often_as_one_asks() {
    let Some(server) = TestServer::start().await else { return };
    fill(&server).await;
    let live = with_tables(&*browse(&server), &server.schema, &["a"]).await;
    let sql = "select count(*) from (select id from a union all select id from a)";
    assert_eq!(answer(&live, sql).await, answer(&copied(&live, &["a"]).await, sql).await);
    server.execute("insert into a (id) values (1000)").await;
    let counted = answer(&live, "select count(id) from a").await;
    assert!(counted.iter().any(|line| line == "|151|"), "{counted:?}");
    server.drop().await;
}

/// How many queries of `weir sql` the server works on.
async fn at_work(server: &TestServer) -> String {
    let mut session = server.begin().await;
    let sql = "select count(*)::text from pg_stat_activity where application_name = 'weir sql' and state <> 'idle' and query like $1";
    let found = session.fetch_text(sql, &[&format!("%{}%", server.schema)], "look").await.expect("answers");
    session.rollback().await;
    found.expect("a count")
}

#[tokio::test]
async fn dropping_an_answer_ends_the_query_there_and_a_limit_of_time_too() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create view long as select g as id, pg_sleep(0.01)::text as s from generate_series(1, 100000) g").await;
    let live = with_tables(&*browse(&server), &server.schema, &["long"]).await;
    let mut rows = live.sql("select id, s from long").await.expect("SQL").execute_stream().await.expect("a stream");
    assert!(tokio::time::timeout(Duration::from_millis(500), rows.next()).await.is_err() || at_work(&server).await == "1");
    drop(rows);
    let gone = async {
        while at_work(&server).await != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), gone).await.expect("the server noticed");

    let state = live.state();
    let config = state.config().clone().with_extension(Arc::new(TimeLimit(Duration::from_millis(300))));
    let limited = session();
    let limited_state = datafusion::execution::SessionStateBuilder::new_from_existing(limited.state()).with_config(config).build();
    let limited = datafusion::prelude::SessionContext::new_with_state(limited_state);
    limited.register_table("long", live.table_provider("long").await.expect("a table")).expect("registered");
    let error = limited.sql("select count(s) from long").await.expect("SQL").collect().await.expect_err("too slow");
    let error = Error::find(&error).expect("ours");
    assert_eq!(error.code, "statement-timeout", "{error:?}");
    server.drop().await;
}
