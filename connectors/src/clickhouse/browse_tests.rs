//! What is found on a real ClickHouse, how queries over it are sent, and that they mean the same there.

use std::time::Instant;

use super::*;
use crate::{
    clickhouse::test_server::{TestServer, run_context},
    remote::property_tests::{Columns, Numbers, agree, answer, copied, plan, with_tables},
};

fn browse(server: &TestServer) -> Arc<dyn Browse> {
    (BROWSE.open)("ch", &server.cx).expect("settings")
}

#[tokio::test]
async fn tables_are_listed_and_columns_without_a_value_left_out() {
    let Some(server) = TestServer::start().await else { return };
    server
        .execute("create table `My Table` (id Int64, s AggregateFunction(sum, UInt8), a Int8 alias 1) engine = MergeTree order by id")
        .await;
    server.execute("create view seen as select 1 as one").await;
    let browse = browse(&server);
    let listed = browse.tables().await.expect("listed");
    let own: Vec<(&str, ListedKind)> =
        listed.iter().filter(|listed| listed.schema == server.database).map(|listed| (listed.table.as_str(), listed.kind)).collect();
    assert_eq!(own, [("My Table", ListedKind::Table), ("seen", ListedKind::View)]);
    assert!(listed.iter().all(|listed| !is_system(&listed.schema)), "{listed:?}");
    let table = browse.table(&server.database, "My Table").await.expect("reachable").expect("there");
    assert_eq!(table.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["id"]);
    assert!(browse.table(&server.database, "nowhere").await.expect("reachable").is_none());
    assert!(browse.table("nowhere", "seen").await.expect("reachable").is_none());
    assert!(browse.table("system", "users").await.expect("reachable").is_none());
    server.drop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_soon_and_says_so() {
    let cx = run_context("http://127.0.0.1:1", "");
    let began = Instant::now();
    let error = (BROWSE.open)("ch", &cx).expect("settings").tables().await.expect_err("unreachable");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(error.blame, crate::Blame::System, "{error:?}");
    assert!((BROWSE.open)("other", &cx).is_err());
}

async fn fill(server: &TestServer) {
    for (table, seed) in [("a", 7), ("b", 11)] {
        let mut numbers = Numbers(seed);
        let mut rows = Vec::new();
        for id in 0..150 {
            let mut pick = |of: &[&str]| numbers.one(of).to_owned();
            let row = [
                id.to_string(),
                pick(&["1", "2", "3", "-4", "null"]),
                pick(&["1", "2", "32767", "-32768"]),
                pick(&["1", "9223372036854775807", "-9223372036854775808", "3", "null"]),
                pick(&["0", "255", "7"]),
                pick(&["0.10", "-99999999.99", "12.30", "99999999.99", "null"]),
                pick(&["'ä'", "'a'", "'A'", "''", "' '", "null"]),
                pick(&["'x'", "'X'", "'y'"]),
                pick(&["'sad'", "'glad'"]),
                pick(&["true", "false", "null"]),
                pick(&["'1970-01-01'", "'2024-02-29'", "'2149-06-06'", "null"]),
                pick(&["'2024-02-29 12:00:00'", "'1970-01-01 00:00:01'"]),
                pick(&["'2024-02-29 12:00:00.123'", "'1969-12-31 23:59:59.000'", "null"]),
                pick(&["nan", "0", "-0.", "1.5", "null"]),
                pick(&["'ab'", "'a'"]),
            ];
            rows.push(format!("({})", row.join(", ")));
        }
        server
            .execute(&format!(
                "create table {table} (id Int32, k Nullable(Int32), s Int16, big Nullable(Int64), w UInt8, d Nullable(Decimal(10,2)), \
                 t Nullable(String), l LowCardinality(String), e Enum8('sad' = 1, 'glad' = 2), bo Nullable(Bool), dt Nullable(Date), \
                 ts DateTime('UTC'), tz Nullable(DateTime64(3, 'Europe/Paris')), f Nullable(Float64), c FixedString(2)) \
                 engine = MergeTree order by id"
            ))
            .await;
        server.execute(&format!("insert into {table} values {}", rows.join(", "))).await;
    }
}

const ALL: Columns<'static> = Columns {
    keys: &["k", "s", "big", "w", "d", "t", "l", "e", "bo", "dt", "ts", "tz", "f", "c"],
    filters: &[
        "{}k = 2",
        "{}s >= 2",
        "{}big > 1",
        "{}w < 255",
        "{}d < 12.5",
        "{}t in ('a', 'A')",
        "{}t is not null",
        "{}l = 'x'",
        "{}e = 'sad'",
        "{}bo",
        "not {}bo",
        "{}dt between date '2000-01-01' and date '2030-01-01'",
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
        "count(distinct {}e)",
        "sum({}k)",
        "sum({}s)",
        "sum({}big)",
        "sum({}w)",
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
    all: &["id", "k", "d", "t", "e", "dt", "tz", "l"],
};

/// The same without what never leaves here, so that whole queries are sent.
const SENT: Columns<'static> = Columns {
    keys: &["k", "s", "big", "w", "d", "t", "l", "bo", "dt", "ts", "tz"],
    filters: &["{}k = 2", "{}s >= 2", "{}d < 12.5", "{}t in ('a', 'A')", "{}bo", "{}l = 'x'", "({}k = 1 or {}d = 0.1)"],
    aggregates: &[
        "count(*)",
        "count({}t)",
        "count(distinct {}k)",
        "sum({}k)",
        "sum({}big)",
        "sum({}w)",
        "sum({}d)",
        "min({}k)",
        "max({}w)",
        "max({}dt)",
        "min({}ts)",
    ],
    all: &["id", "k", "d", "t"],
};

#[tokio::test]
async fn queries_that_are_sent_mean_the_same_there() {
    let Some(server) = TestServer::start().await else { return };
    fill(&server).await;
    let live = with_tables(&*browse(&server), &server.database, &["a", "b"]).await;
    agree(&live, "ClickhouseQuery", &ALL, 0x2545_F491_4F6C_DD1D, 200).await;
    let whole = agree(&live, "ClickhouseQuery", &SENT, 0x9E37_79B9_7F4A_7C15, 200).await;
    assert!(whole >= 120, "only {whole} of 200 queries were sent whole");
    server.drop().await;
}

#[tokio::test]
async fn a_plan_shows_what_is_sent_without_values() {
    let Some(server) = TestServer::start().await else { return };
    fill(&server).await;
    let live = with_tables(&*browse(&server), &server.database, &["a", "b"]).await;
    let database = &server.database;
    for (sql, sent) in [
        (
            "select k from a where t = 'secret' limit 3",
            format!("ClickhouseQuery: ch, sql=select `k` from `{database}`.`a` where (`t` = {{p1:String}}) limit 3"),
        ),
        (
            "select l, count(*) as n from a where k > 1 group by l",
            format!(
                "ClickhouseQuery: ch, sql=select cast(`l` as String) as `c0`, cast(count() as Int64) as `c1` from `{database}`.`a` \
                 where (`k` > {{p1:Int32}}) group by `l`"
            ),
        ),
    ] {
        let plan = plan(&live, sql).await;
        assert!(plan.contains(&sent), "{sql}\n{plan}\n{sent}");
        assert!(!plan.contains("secret"), "{plan}");
    }
    for (sql, here) in [
        ("select sum(f) from a", "AggregateExec"),
        ("select e, count(*) from a group by e", "AggregateExec"),
        ("select count(*) from a join b on a.c = b.c", "JoinExec"),
    ] {
        let plan = plan(&live, sql).await;
        assert!(plan.contains(here), "{sql}\n{plan}");
    }
    // Of no rows there is no sum, though ClickHouse by itself has one.
    let sql = "select sum(s), min(w), max(ts), count(s) from a where id = -1";
    assert_eq!(answer(&live, sql).await, answer(&copied(&live, &["a"]).await, sql).await);
    server.drop().await;
}
