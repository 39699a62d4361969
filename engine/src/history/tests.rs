//! The state on SQLite, without a server.

use std::path::Path;

use super::*;

async fn open(path: &Path, id: &str) -> Result<History> {
    History::open(&Place::File(path.to_owned()), id).await
}

fn start(run: &str) -> Start<'_> {
    Start { run, pipeline: "p", started_at: "2026-01-01T00:00:00Z", lane: 0, task: None, interval: None }
}

fn cursors(key: &str, anew: bool) -> Cursors {
    Cursors { sources: BTreeMap::from([("src".to_owned(), BTreeMap::from([(key.to_owned(), "v".to_owned())]))]), anew }
}

fn summary(run: &str) -> Summary {
    Summary { run: run.into(), pipeline: "p".into(), status: "published".into(), ..Summary::default() }
}

#[tokio::test]
async fn cursors_move_only_when_a_run_has_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.db");
    let history = open(&path, "one").await.expect("opens");
    history.begin(start("r1")).await.expect("begins");
    let load = LoadRecord { sink: "s".into(), kind: "lake".into(), state: serde_json::json!({"a": 1}), published: false };
    history.stage("r1", &load).await.expect("stages");
    history.decide("r1", RunStatus::Publishing, &[load], &cursors("k", false), None, &summary("r1")).await.expect("decides");
    assert!(history.cursors("p", "src").await.expect("reads").is_empty());

    // Another process finds the decision.
    let other = open(&path, "two").await.expect("opens");
    assert_eq!(other.id, "one");
    let unfinished = other.unfinished(Some(("p", 0))).await.expect("reads");
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].0.status, RunStatus::Publishing);
    assert_eq!(unfinished[0].1[0].state, serde_json::json!({"a": 1}));
    other.published("r1", "s").await.expect("notes");
    other.finish("r1", "2026-01-01T00:00:01Z", &summary("r1")).await.expect("finishes");
    assert_eq!(history.cursors("p", "src").await.expect("reads")["k"], "v");
    assert!(history.unfinished(Some(("p", 0))).await.expect("reads").is_empty());
    assert_eq!(history.run("r").await.expect("reads").expect("found").status, RunStatus::Published);
}

#[tokio::test]
async fn a_source_that_was_read_anew_forgets_what_it_knew_once_the_run_has_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let history = open(&folder.path().join("state.db"), "one").await.expect("opens");
    let keys = async || history.cursors("p", "src").await.expect("reads").into_keys().collect::<Vec<_>>();
    for (run, moves, after) in [
        ("r1", cursors("a", false), vec!["a"]),
        ("r2", cursors("b", false), vec!["a", "b"]),
        ("r3", cursors("c", true), vec!["c"]),
        ("r4", Cursors { sources: BTreeMap::from([("src".to_owned(), BTreeMap::new())]), anew: true }, vec![]),
    ] {
        let before = keys().await;
        history.begin(start(run)).await.expect("begins");
        history.decide(run, RunStatus::Publishing, &[], &moves, None, &summary(run)).await.expect("decides");
        assert_eq!(keys().await, before, "{run}");
        history.finish(run, "2026-01-01T00:00:01Z", &summary(run)).await.expect("finishes");
        assert_eq!(keys().await, after, "{run}");
    }
}

#[tokio::test]
async fn a_failed_run_keeps_the_code_and_the_step_of_its_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let history = open(&folder.path().join("state.db"), "one").await.expect("opens");
    history.begin(start("r1")).await.expect("begins");
    history.note_cause("r1", "run", Some("s")).await.expect("notes");
    history.end("r1", RunStatus::Failed, "2026-01-01T00:00:01Z", Some("divide by zero")).await.expect("ends");
    let run = history.run("r1").await.expect("reads").expect("found");
    assert_eq!((run.status, run.code.as_deref(), run.step.as_deref()), (RunStatus::Failed, Some("run"), Some("s")));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.db");
    let history = open(&path, "one").await.expect("opens");
    sqlx::raw_sql("pragma user_version = 99").execute(history.store.pool()).await.expect("stamps");
    drop(history);
    let Err(Failure::Error(error)) = open(&path, "one").await else { panic!("it opened") };
    assert_eq!(error.message, "the run history was written by a newer Weir (its form is 99)");
}

impl History {
    /// How many definitions are kept.
    pub(crate) async fn definitions(&self) -> Result<i64> {
        sqlx::query_scalar("select count(*) from definitions").fetch_one(self.store.pool()).await.map_err(failed)
    }
}
