//! Several writers at once: two runs of one pipeline, and another program that commits to the same table.

use std::{path::PathBuf, time::Duration};

use crate::{
    crash::{much, staging},
    lake,
    project::Project,
    referee::OtherWriter,
};

const ROWS: usize = 1_000_000;

#[test]
fn two_runs_of_one_pipeline_at_once_load_its_new_files_once() {
    let project = much(ROWS);
    let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).unwrap();
    project.write(
        "pipeline.toml",
        pipeline.replace("[source.rows.file]", "[source.rows]\nincremental = { files = \"new\" }\n[source.rows.file]"),
    );
    let first = staging(&project);
    let second = project.weir(&["run", "pipeline.toml"]);
    let first = first.wait(Duration::from_secs(120));
    assert_eq!(first.code, 0, "{first}");
    // The second waits for its turn and finds nothing new, or is refused and told why.
    if second.code != 0 {
        assert!(matches!(second.code, 1 | 3), "{second}");
        second.says(&["run", "much"]);
    }
    assert_eq!(project.value("select count(*) from lake.out.rows"), ROWS.to_string());
    assert_eq!(project.value("select count(distinct id) from lake.out.rows"), ROWS.to_string());
    assert_eq!(lake::strays(&project.path(".weir/lake")), Vec::<PathBuf>::new());
    project.run(&["pipeline.toml"]);
    assert_eq!(project.value("select count(*) from lake.out.rows"), ROWS.to_string(), "the run after both loads nothing");
}

/// Loads once, then lets another program commit a row between the staging and the publishing of a second run.
fn another_writer(mode: &str, key: &str) -> Option<(Project, crate::project::Outcome)> {
    let project = much(ROWS);
    project.run(&["pipeline.toml"]);
    let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).unwrap();
    project.write("pipeline.toml", pipeline.replace("mode = \"append\"", &format!("mode = \"{mode}\"\n{key}")));
    let table = lake::tables(&project.path(".weir/lake"))
        .into_iter()
        .find(|table| table.ends_with("out/rows"))
        .expect("the first run made the table");
    let version = lake::commits(&table).len();
    let other = OtherWriter::ready(&table, r#"{"id": -1, "text": "from another program"}"#)?;
    let run = staging(&project);
    run.signal("STOP");
    assert_eq!(lake::commits(&table).len(), version, "the run published before it could be stopped: it needs more rows");
    other.commit();
    run.signal("CONT");
    Some((project, run.wait(Duration::from_secs(240))))
}

#[test]
fn an_append_meets_another_writers_commit_and_both_stay() {
    let Some((project, outcome)) = another_writer("append", "") else { return };
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(project.value("select count(*) from lake.out.rows"), (2 * ROWS + 1).to_string());
    assert_eq!(project.value("select count(*) from lake.out.rows where id = -1"), "1");
}

#[test]
fn a_merge_meets_another_writers_commit_and_loses_neither() {
    let Some((project, outcome)) = another_writer("merge", "key = [\"id\"]") else { return };
    // Either the merge is made again over what is there now, or the run fails whole and says why.
    if outcome.code != 0 {
        assert!(matches!(outcome.code, 1 | 3), "{outcome}");
        outcome.says(&["out.rows"]);
        project.run(&["pipeline.toml"]);
    }
    assert_eq!(project.value("select count(*) from lake.out.rows"), (ROWS + 1).to_string());
    assert_eq!(project.value("select count(*) from lake.out.rows where id = -1"), "1", "the other writer's row is lost");
    assert_eq!(lake::strays(&project.path(".weir/lake")), Vec::<PathBuf>::new());
}

#[test]
fn a_rerun_of_a_replace_leaves_one_commit_per_run() {
    let project = much(1_000);
    let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).unwrap();
    project.write("pipeline.toml", pipeline.replace("\"append\"", "\"replace\""));
    let runs: Vec<_> = (0..3).map(|_| project.run(&["pipeline.toml"])).collect();
    let table =
        lake::tables(&project.path(".weir/lake")).into_iter().find(|table| table.ends_with("out/rows")).expect("the table is there");
    let transactions = lake::transactions(&table);
    assert_eq!(transactions.len(), runs.len(), "each run is one application transaction: {transactions:?}");
    assert_eq!(project.value("select count(*) from lake.out.rows"), "1000");
}
