//! What a pool and its sessions promise, asked of a real server.

use std::pin::pin;

use futures::TryStreamExt;

use super::*;
use crate::postgres::test_server::{TestServer, run_context, url};

/// Backends of this name, as somebody else sees them.
async fn backends(server: &TestServer, name: &str) -> String {
    let mut session = server.begin().await;
    let sql = "select count(*)::text from pg_stat_activity where application_name = $1";
    let count = session.fetch_text(sql, &[name], "count").await.expect("a count").expect("a row");
    session.rollback().await;
    count
}

#[test]
fn an_application_name_is_what_the_server_keeps_of_it() {
    assert_eq!(application_name("0190a5b0", "step"), "weir 0190a5b0 step");
    assert_eq!(application_name("r", "Größe\n"), "weir r Gr??e?");
    assert_eq!(application_name("r", &"x".repeat(100)).len(), 63);
}

#[tokio::test]
async fn a_session_that_is_dropped_leaves_no_backend_and_no_rows() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (a int)").await;
    let name = application_name(&server.cx.run, "dropped");
    let mut session = server.pool.begin(&name).await.expect("a transaction");
    session.execute(&format!("insert into {} values (1)", server.table("t")), "insert").await.expect("inserted");
    assert_eq!(backends(&server, &name).await, "1");
    drop(session);
    for _ in 0..100 {
        if backends(&server, &name).await == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(backends(&server, &name).await, "0");
    let mut session = server.begin().await;
    let count = session.fetch_text(&format!("select count(*)::text from {}", server.table("t")), &[], "count").await.expect("a count");
    assert_eq!(count.as_deref(), Some("0"));
    session.rollback().await;
    server.drop().await;
}

#[tokio::test]
async fn a_statement_that_waits_is_ended_when_nobody_waits_for_it() {
    let Some(server) = TestServer::start().await else { return };
    if !server.pool.server().notices_absence {
        eprintln!("left out: this server does not look whether its client is there");
        return server.drop().await;
    }
    let name = application_name(&server.cx.run, "sleeper");
    let mut session = server.pool.begin(&name).await.expect("a transaction");
    assert!(tokio::time::timeout(Duration::from_millis(300), session.execute("select pg_sleep(600)", "sleep")).await.is_err());
    // Cut off in the middle, it is of no use any more.
    assert_eq!(session.execute("select 1", "go on").await.expect_err("busy").code, "session-busy");
    drop(session);
    for _ in 0..200 {
        if backends(&server, &name).await == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(backends(&server, &name).await, "0");
    server.drop().await;
}

#[tokio::test]
async fn a_commit_after_a_failure_is_no_commit() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (a int primary key); insert into t values (1)").await;
    let mut session = server.begin().await;
    let error = session.execute(&format!("insert into {} values (1)", server.table("t")), "load \"t\"").await.expect_err("there already");
    assert_eq!(error.message, "cannot load \"t\": a row with the key (a)=(1) is there already");
    assert_eq!(super::super::failed::sqlstate(&error).as_deref(), Some("23505"));
    assert_eq!(session.commit("load \"t\"").await.expect_err("failed before").code, "transaction-failed");
    server.drop().await;
}

#[tokio::test]
async fn rows_go_in_and_out_by_copy() {
    let Some(server) = TestServer::start().await else { return };
    server.execute("create table t (a int)").await;
    let table = server.table("t");
    let mut session = server.begin().await;
    let mut copy = session.copy_in(&format!("copy {table} from stdin"), "load").await.expect("starts");
    copy.send(&b"1\n2\n"[..]).await.expect("sent");
    copy.send(&b"3\n"[..]).await.expect("sent");
    assert_eq!(copy.finish().await.expect("taken"), 3);
    session.commit("load").await.expect("committed");

    let mut session = server.begin().await;
    {
        let out = session.copy_out(&format!("copy (select a from {table} order by a) to stdout"), "read").await.expect("starts");
        let bytes: Vec<Bytes> = pin!(out).try_collect().await.expect("read");
        assert_eq!(bytes.concat(), b"1\n2\n3\n");
    }
    session.rollback().await;

    let mut session = server.begin().await;
    let mut copy = session.copy_in(&format!("copy {table} from stdin"), "load \"t\"").await.expect("starts");
    copy.send(&b"4\nfive\n"[..]).await.expect("sent");
    let error = copy.finish().await.expect_err("no number");
    assert_eq!(
        (error.code, error.message.as_str()),
        ("wrong-value", "cannot load \"t\": invalid input syntax for type integer: \"five\" (row 2, column a of what was sent)")
    );
    session.rollback().await;

    // A copy that is neither finished nor aborted takes its session with it.
    let mut session = server.begin().await;
    drop(session.copy_in(&format!("copy {table} from stdin"), "load").await.expect("starts"));
    assert_eq!(session.execute("select 1", "go on").await.expect_err("busy").code, "session-busy");
    drop(session);
    server.drop().await;
}

#[tokio::test]
async fn connections_are_bounded_kept_and_replaced_when_dead() {
    let Some(url) = url() else { return };
    let cx = run_context(&url, "pool_max = 2\nstatement_timeout = \"200ms\"");
    let settings: PostgresConnection = cx.connections.get("pg").expect("settings");
    let mut pool = Pool::connect(&cx, "pg", &settings).await.expect("connects");
    pool.acquire_timeout = Duration::from_millis(50);
    let pool = Arc::new(pool);
    let (one, two) = (pool.begin("weir one").await.expect("one"), pool.begin("weir two").await.expect("two"));
    assert!(pool.try_begin("weir three").await.expect("no failure").is_none());
    let error = pool.begin("weir three").await.expect_err("none free");
    assert_eq!((error.code, error.help.as_deref()), ("pool-exhausted", Some("raise \"pool_max\" of the connection")));
    assert!(error.message.ends_with("became free within 0.05 s: all 2 are in use"), "{}", error.message);
    two.rollback().await;
    one.rollback().await;

    let mut session = pool.begin("weir test").await.expect("kept");
    let error = session.execute("select pg_sleep(5)", "sleep").await.expect_err("too long");
    assert_eq!((error.code, error.message.as_str()), ("statement-timeout", "cannot sleep: it took longer than the statement timeout"));
    session.rollback().await;

    // What is set is set for the transaction: the next one, of another name, has its own.
    let mut session = pool.begin("weir other").await.expect("kept");
    let name = session.fetch_text("select current_setting('application_name')", &[], "ask").await.expect("a setting");
    assert_eq!(name.as_deref(), Some("weir other"));
    let pid = session.fetch_text("select pg_backend_pid()::text", &[], "ask").await.expect("a number").expect("a number");
    session.commit("ask").await.expect("committed");
    let other = run_context(&url, "");
    let mut killer = Pool::open(&other, "pg").await.expect("connects").begin("weir killer").await.expect("a transaction");
    // Behind pgbouncer it may be the killer's own by now.
    killer.execute_with("select pg_terminate_backend($1::int) where $1::int <> pg_backend_pid()", &[&pid], "kill").await.expect("killed");
    killer.rollback().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..2 {
        let mut session = pool.begin("weir after").await.expect("another");
        session.fetch_text("select 'x'", &[], "ask").await.expect("answers");
        session.rollback().await;
    }
}
