//! Runs half of whose rows are bad: they finish under a small memory limit, lose no row, and say as much about a hundred thousand violations as
//! about ten.

use std::fmt::Write;

use crate::project::{Outcome, Project, balanced, long};

/// Most lines that an answer or a talk may have, however many rows were bad.
const LINES_MAX: usize = 60;
/// And most bytes of an answer in JSON.
const JSON_BYTES_MAX: usize = 20_000;

fn rows() -> usize {
    if long() { 4_000_000 } else { 300_000 }
}

/// Every second row has a value out of bounds, in a list and each time at another place of it.
fn project(rules: &str) -> Project {
    let project = Project::with(&format!(
        "weir = 1\nname = \"flood\"\n[source.rows]\ncontract = \"rows.schema.json\"\n{rules}\n[source.rows.file]\npath = \"rows.ndjson\"\n\
         format = \"ndjson\"\n[sink.lake]\nfrom = \"rows\"\n[sink.lake.lake]\ntable = \"out.rows\"\n"
    ));
    project.write("weir.toml", "[memory]\nlimit = \"48MB\"\n");
    project.write(
        "rows.schema.json",
        r#"{
          "type": "object",
          "required": ["id", "items"],
          "properties": {
            "id": { "type": "integer" },
            "items": { "type": "array", "items": { "type": "integer", "maximum": 999 } }
          }
        }"#,
    );
    let mut text = String::new();
    for id in 0..rows() {
        let good = "1,".repeat(id / 2 % 30);
        writeln!(text, "{{\"id\":{id},\"items\":[{good}{}]}}", if id % 2 == 0 { 2 } else { 1000 + id }).unwrap();
    }
    project.write("rows.ndjson", text);
    project
}

fn short(outcome: &Outcome) {
    for text in [&outcome.stdout, &outcome.stderr] {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{lines} lines\n{outcome}");
    }
}

#[test]
fn half_of_the_rows_are_bad_and_the_run_finishes_with_a_short_report() {
    let project = project("on_invalid = \"quarantine\"");
    let outcome = project.ok(&["run", "--json", "pipeline.toml"]);
    short(&outcome);
    assert!(outcome.stdout.len() <= JSON_BYTES_MAX, "{} bytes\n{outcome}", outcome.stdout.len());
    let summary = outcome.json();
    balanced(&summary);
    let half = rows() / 2;
    assert_eq!((&summary["rows_read"], &summary["rows_loaded"]), (&(2 * half).into(), &half.into()), "{outcome}");
    assert_eq!(summary["rows_quarantined"], half, "{outcome}");
    let each_once =
        "select count(*), count(distinct \"row\"), min(\"row\"), max(\"row\") from quarantine.flood.rows where code = 'maximum'";
    assert_eq!(project.sql(each_once)[1], format!("{half},{half},2,{}", 2 * half));
    assert_eq!(project.value("select count(*) from lake.out.rows where id % 2 = 1"), "0");

    let listed = project.ok(&["quarantine", "list"]);
    short(&listed);
    assert!(listed.stdout.contains("items/*"), "{listed}");
    short(&project.ok(&["quarantine", "show", "flood"]));
    short(&project.ok(&["runs", "list"]));
    let shown = project.ok(&["runs", "list", "--json"]);
    assert!(shown.stdout.len() <= JSON_BYTES_MAX, "{shown}");
}

#[test]
fn too_many_bad_rows_end_the_run_on_one_screen() {
    let project = project("max_invalid = \"10%\"");
    let outcome = project.weir(&["run", "pipeline.toml"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.one_screen().says(&["too-many-invalid", &format!("{} × maximum in \"items/*\"", rows() / 2)]);
    short(&outcome);
}
