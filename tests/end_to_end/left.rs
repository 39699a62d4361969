//! What a crash leaves: `weir doctor` finds and explains it, a dry run does not go over it, `weir runs resume` finishes it or gives it up.

use crate::{
    crash_shim::{self, PIPELINE, When},
    lake,
    project::Project,
};

const TO_FILE: &str = r#"
weir = 1
name = "events"
[source.events.file]
path = "data/*.csv"
format = "csv"
[sink.copy]
from = "events"
mode = "replace"
[sink.copy.file]
path = "out/events.ndjson"
"#;

/// A run of 1000 rows that was killed right before the first of its calls that `only` chooses, and its id.
fn killed(pipeline: &str, only: &str) -> (Project, String) {
    let project = crash_shim::project(pipeline);
    let outcome = crash_shim::at(project.command(&["run", "pipeline.toml"]), only, 1, When::Before);
    assert_eq!(outcome.code, 137, "{outcome}");
    let run = project.value("select run from weir.runs");
    (project, run)
}

/// `weir doctor` finds something that needs a person, and says all of these.
fn doctor_says(project: &Project, all: &[&str]) {
    let outcome = project.weir(&["doctor"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    for text in all {
        assert!(outcome.stdout.contains(text), "not \"{text}\": {outcome}");
    }
    assert!(outcome.stdout.ends_with("something needs you\n"), "{outcome}");
}

fn healthy(project: &Project) {
    let outcome = project.ok(&["doctor"]);
    assert_eq!(outcome.stdout, "nothing is wrong\n", "{outcome}");
    assert_eq!(lake::strays(&project.path(".weir/lake")), Vec::<std::path::PathBuf>::new(), "staged files are left");
}

#[test]
fn a_decided_run_is_found_explained_and_finished() {
    let (project, run) = killed(PIPELINE, "\tlink\t");
    doctor_says(
        &project,
        &[
            &format!(
                "run {run} of \"events\" is publishing: it is decided, and its rows are staged everywhere; published in: none; not yet in: all"
            ),
            &format!("  weir runs resume {run}\n"),
            &format!("  weir runs resume {run} --discard\n"),
        ],
    );
    let json = project.weir(&["doctor", "--json"]).json();
    assert_eq!((&json["healthy"], &json["runs"][0]["run"]), (&false.into(), &run.clone().into()));

    let dry = project.weir(&["run", "pipeline.toml", "--dry-run"]);
    assert_eq!(dry.code, 1, "{dry}");
    dry.says(&[&format!("error[decided-run-waits]: run {run} is decided and waits to be published"), "publishes it first"]);

    let resumed = project.ok(&["runs", "resume", &run]);
    assert_eq!(resumed.stdout, format!("run {run} had been decided when its process ended: it is published now\n"));
    assert_eq!(project.value("select count(*) from lake.out.events"), "1000");
    healthy(&project);
    let again = project.ok(&["runs", "resume", &run]);
    assert_eq!(again.stdout, format!("run {run} is published: there is nothing to resume\n"));
    // Cursors moved with it.
    assert_eq!(project.run(&["pipeline.toml"])["rows_read"], 0);
}

#[test]
fn columns_are_known_from_the_run_that_was_decided_whoever_finishes_it() {
    let follow = "weir = 1\nname = \"events\"\n[source.events]\non_new_column = \"fail\"\n[source.events.file]\npath = \"data/*.csv\"\n\
                  [sink.lake]\nfrom = \"events\"\nmode = \"replace\"\n[sink.lake.lake]\ntable = \"out.events\"\n";
    let new_column = |project: &Project| project.write("data/events.csv", "id,name,note\n1,a,new\n");
    for resumed in [true, false] {
        // Decided and not published: the columns move with the roll-forward, as cursors do.
        let (project, run) = killed(follow, "\tlink\t");
        new_column(&project);
        if resumed {
            project.ok(&["runs", "resume", &run]);
        }
        let failed = project.weir(&["run", "pipeline.toml"]);
        assert_eq!(failed.code, 2, "{failed}");
        failed.says(&["error[new-column]: source \"events\" has a new column \"note\" (Utf8)", "the last published run had: id, name"]);
    }
    // Given up, the run has taught nothing.
    let (project, run) = killed(follow, "\tlink\t");
    new_column(&project);
    project.ok(&["runs", "resume", &run, "--discard"]);
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 1);
}

#[test]
fn a_decided_run_is_given_up_by_hand_and_its_input_is_read_again() {
    let (project, run) = killed(PIPELINE, "\tlink\t");
    let given_up = project.ok(&["runs", "resume", &run, "--discard"]);
    assert_eq!(given_up.stdout, format!("run {run} is given up; sinks known to have its rows: none; the others: all\n"));
    healthy(&project);
    assert_eq!(project.value("select status from weir.runs"), "failed");
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 1000);
    assert_eq!(project.value("select count(*) from lake.out.events"), "1000");
}

#[test]
fn a_run_that_was_not_decided_is_found_and_discarded() {
    let (project, run) = killed(PIPELINE, "/part-");
    doctor_says(
        &project,
        &[&format!(
            "run {run} of \"events\" is running: its process ended while it was staging; nothing of it is visible anywhere; staged for: all"
        )],
    );
    let resumed = project.ok(&["runs", "resume", &run]);
    assert_eq!(resumed.stdout, format!("run {run} ended before it was decided: what it had staged is discarded\n"));
    healthy(&project);
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 1000);
}

#[test]
fn a_run_that_nobody_knows_is_not_resumed() {
    let project = Project::with(PIPELINE);
    let outcome = project.weir(&["runs", "resume", "nonesuch"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[unknown-run]: there is no run \"nonesuch\"", "weir runs list"]);
}

#[test]
fn a_decided_run_whose_staged_file_is_gone_is_given_up_once_and_does_not_hold_the_pipeline() {
    let (project, run) = killed(TO_FILE, "\trename");
    let staged = project.path(&format!("out/.events.ndjson.weir-{run}"));
    std::fs::remove_file(staged).unwrap();
    let outcome = project.weir(&["run", "pipeline.toml"]);
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.says(&["error[stage-lost]", &format!("run {run} is given up; sinks known to have its rows: none; the others: copy")]);
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 1000);
    healthy(&project);
}
