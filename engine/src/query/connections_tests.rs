//! What a session sees of connections: not what its scopes do not open, and no harm of what cannot be reached.

use std::path::PathBuf;

use weir_pipelines::{Project, SourceFile};

use super::*;
use crate::{
    query::{Catalogue, Session, Settings, Who},
    workspace::Machine,
};

/// A project whose connections lead nowhere.
fn workspace() -> Workspace {
    let text = "[connection.crm.postgres]\nurl = \"postgres://nobody:hush@127.0.0.1:1/none\"\n\
                [connection.olap.clickhouse]\nurl = \"http://127.0.0.1:1\"\n";
    let root = tempfile::tempdir().expect("a folder").keep();
    let project = Project::parse(SourceFile::new("weir.toml", text), PathBuf::from(&root), None).expect("a project");
    Workspace::new(project, HashMap::new(), Machine { memory_bytes: 1 << 30, cpus: 2 }, || chrono::DateTime::UNIX_EPOCH)
}

fn session(scopes: &[&str]) -> Session {
    let workspace = workspace();
    let catalogue = Catalogue::open(&workspace, Settings::local(&workspace)).expect("opens");
    catalogue.session(Who { user: "ada".into(), scopes: Scopes::parse(scopes).expect("scopes"), ..Who::local() })
}

async fn failure(session: &Session, sql: &str) -> (String, String) {
    match session.collect(sql).await.expect_err("fails") {
        crate::Failure::Error(error) => (error.code.to_owned(), error.message),
        crate::Failure::Diagnostics(all) => (all[0].code.to_owned(), all[0].message.clone()),
        crate::Failure::Interrupted => panic!("interrupted"),
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_reached_fails_the_queries_that_name_it_alone() {
    let session = session(&["sql", "connections"]);
    let began = Instant::now();
    let (code, message) = failure(&session, "select * from crm.public.planes").await;
    assert_eq!(code, "connection-refused");
    assert!(message.contains("\"crm\"") && !message.contains("hush"), "{message}");
    let listed = "select table_name from information_schema.tables where table_catalog in ('crm', 'olap') \
                  and table_schema <> 'information_schema'";
    let rows = session.collect(listed).await;
    assert_eq!(rows.expect("an answer").iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 0);
    assert!(session.collect("select 1").await.is_ok());
    assert!(began.elapsed() < LIST_WAIT);
}

#[tokio::test]
async fn a_connection_that_is_not_open_to_a_user_says_so_when_it_is_named() {
    let session = session(&["sql", "connection:olap"]);
    assert_eq!(
        failure(&session, "select * from crm.public.planes").await,
        ("not-allowed".to_owned(), "connection \"crm\" is not open to this user: the token has no scope for it".to_owned())
    );
    let (code, _) = failure(&session, "select * from olap.main.delays").await;
    assert_ne!(code, "not-allowed");
}
