//! Tests of the kept rows: what is written is read, torn files are never in place, the oldest go.

use super::*;

fn outcome(name: &str, rows_kept: u64) -> ExpectationOutcome {
    ExpectationOutcome {
        on: "s".into(),
        name: name.into(),
        outcome: "failed".into(),
        detail: "some".into(),
        rows: 70,
        rows_kept,
        ..ExpectationOutcome::default()
    }
}

fn writer(state_dir: &Path, run: &str) -> Writer {
    Writer { run: run.into(), pipeline: "p".into(), folder: folder(state_dir).join("p"), writer: None, outcomes: Vec::new() }
}

fn names(state_dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder(state_dir).join("p"))
        .map(|entries| entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

async fn texts(failing: &Failing) -> Vec<String> {
    use arrow::array::AsArray;
    use futures::StreamExt;
    let mut rows = failing.rows();
    let mut found = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.expect("reads");
        assert_eq!(batch.schema(), *SCHEMA);
        found.extend(batch.column(5).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    found
}

#[tokio::test]
async fn what_is_kept_is_read_with_its_outcomes() {
    let state = tempfile::tempdir().expect("a folder");
    let mut rows = writer(state.path(), "r1");
    rows.add(&outcome("a", 2), vec!["{\"x\":1}".into(), "{\"x\":2}".into()]).expect("adds");
    rows.add(&outcome("b", 0), vec![]).expect("adds");
    assert!(Failing::of(state.path(), "p", "r1").expect("reads").is_none(), "it is not there before it is whole");
    rows.finish().expect("finishes");
    let kept = Failing::of(state.path(), "p", "r1").expect("reads").expect("is there");
    assert_eq!(kept.outcomes, [outcome("a", 2), outcome("b", 0)]);
    assert_eq!(texts(&kept).await, ["{\"x\":1}", "{\"x\":2}"]);
    // A later try of the run that finds nothing takes it back.
    writer(state.path(), "r1").finish().expect("finishes");
    assert!(Failing::of(state.path(), "p", "r1").expect("reads").is_none());
    assert_eq!(names(state.path()), Vec::<String>::new());
}

#[test]
fn a_writer_that_is_given_up_or_killed_leaves_nothing_in_place() {
    let state = tempfile::tempdir().expect("a folder");
    let mut rows = writer(state.path(), "r1");
    rows.add(&outcome("a", 1), vec!["{}".into()]).expect("adds");
    assert_eq!(names(state.path()), [".r1.tmp"]);
    std::mem::forget(rows);
    assert!(Files::list(state.path()).expect("lists").0.is_empty(), "what a crash left is no rows");
    let mut rows = writer(state.path(), "r2");
    rows.add(&outcome("a", 1), vec!["{}".into()]).expect("adds");
    drop(rows);
    assert_eq!(names(state.path()), [".r1.tmp"]);
    writer(state.path(), "r3").finish().expect("finishes");
    assert_eq!(names(state.path()), Vec::<String>::new(), "the next run removes what a crash left");
}

#[test]
fn the_oldest_runs_go() {
    let state = tempfile::tempdir().expect("a folder");
    for run in 0..RUNS_MAX + 3 {
        let mut rows = writer(state.path(), &format!("r{run:03}"));
        rows.add(&outcome("a", 1), vec!["{}".into()]).expect("adds");
        rows.finish().expect("finishes");
    }
    let names = names(state.path());
    assert_eq!((names.len(), names[0].as_str()), (RUNS_MAX, "r003.parquet"));
    assert_eq!(Files::list(state.path()).expect("lists").0.len(), RUNS_MAX);
}
