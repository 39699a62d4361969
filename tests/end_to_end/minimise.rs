//! `weir test --minimise` on inputs that no one reads row by row: few rows come of many, whatever stops the search, and the file is whole.

use std::{fmt::Write, fs, time::Duration};

use serde_json::json;

use crate::project::Project;

const ROWS: usize = 300_000;

/// Rows of which three say nothing of their city, and two share a key.
fn orders() -> String {
    let mut csv = String::from("id,city,amount\n");
    for row in 0..ROWS {
        let id = if row == 271_828 { 31_415 } else { row };
        let city = if [77, 150_000, 299_998].contains(&row) { "" } else { "Ulm" };
        writeln!(csv, "{id},{city},{}.5", row % 1000).unwrap();
    }
    csv
}

fn project(expectation: &str) -> Project {
    let project = Project::with(&format!(
        "weir = 1\nname = \"orders\"\n[source.orders.file]\npath = \"orders.csv\"\n[source.rates.file]\npath = \"rates.csv\"\n\
         [transform.priced]\nsql = \"select o.id, o.city, o.amount * r.rate as price from orders o cross join rates r\"\n\
         [sink.lake]\nfrom = \"priced\"\n[sink.lake.lake]\ntable = \"orders\"\n[[expect]]\non = \"priced\"\nname = \"sound\"\n{expectation}"
    ));
    project.write("orders.csv", orders());
    project.write("rates.csv", "rate,note\n2,a\n");
    project
}

fn failed_run(project: &Project) -> String {
    let outcome = project.weir(&["run", "pipeline.toml"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    let runs = project.ok(&["runs", "list", "--json"]).json();
    assert_eq!((&runs["runs"][0]["code"], &runs["runs"][0]["step"]), (&json!("expectation-failed"), &json!("priced")));
    runs["runs"][0]["run"].as_str().unwrap().to_owned()
}

#[test]
fn one_of_three_bad_rows_in_three_hundred_thousand_is_enough() {
    let project = project("not_null = [\"city\"]");
    let run = failed_run(&project);
    let found = project.ok(&["test", "--minimise", &run, "--json"]).json();
    assert_eq!((&found["rows"], &found["rows_before"], &found["smallest"]), (&json!(2), &json!(ROWS + 1), &json!(true)));
    assert!(found["tries"].as_u64().unwrap() < 100, "{found}");
    let text = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    assert!(text.ends_with(found["test"].as_str().unwrap()), "{text}");
    assert_eq!(project.ok(&["test", "--json"]).json()["passed"], json!(1));
}

#[test]
fn two_rows_that_fail_only_together_are_found() {
    let project = project("unique = [\"id\"]");
    let run = failed_run(&project);
    let found = project.ok(&["test", "--minimise", &run, "--json"]).json();
    assert_eq!(found["rows"], json!(3), "{found}");
    assert_eq!(project.ok(&["test", "--json"]).json()["passed"], json!(1));
}

#[test]
fn without_time_the_file_stays_as_it_was_and_ctrl_c_leaves_it_too() {
    let project = project("unique = [\"id\"]");
    let run = failed_run(&project);
    let before = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    let outcome = project.weir(&["test", "--minimise", &run, "--timeout", "0s"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[too-large]", "300001 of 300001 rows", "--timeout"]);
    let running = project.start(&["test", "--minimise", &run]);
    std::thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    let outcome = running.wait(Duration::from_secs(20));
    // A machine that is fast enough is done by then.
    assert!([130, 0].contains(&outcome.code), "{outcome}");
    let after = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    assert_eq!(after == before, outcome.code == 130, "{after}");
    assert!(fs::read_dir(project.root()).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".tmp")));
}

#[test]
fn values_of_every_kind_are_said_again_as_they_were() {
    let project = Project::with(
        "weir = 1\nname = \"p\"\n[source.rows]\ncontract = \"row.schema.json\"\n[source.rows.file]\npath = \"rows.ndjson\"\n\
         [sink.out]\nfrom = \"rows\"\nmode = \"replace\"\n[sink.out.file]\npath = \"out.arrow\"\n[[expect]]\non = \"rows\"\nname = \"no row\"\nrow_count = { max = 0 }\n\
         [[expect]]\non = \"rows\"\nsql = \"select a, b, c, d, e, f, g, h, i, j, k from rows where false\"",
    );
    project.write(
        "row.schema.json",
        json!({ "type": "object", "properties": {
            "a": { "type": "integer" }, "b": { "type": "number", "x-weir-type": "decimal(30,3)" }, "c": { "type": "string" },
            "d": { "type": "string", "format": "date" }, "e": { "type": "string", "format": "date-time" }, "f": { "type": "string", "format": "time" },
            "g": { "type": "string", "x-weir-type": "binary" }, "h": { "type": "array", "items": { "type": "number" } },
            "i": { "type": "object", "properties": { "x": { "type": "integer" }, "y": { "type": "string" } } },
            "j": { "type": "integer", "x-weir-type": "uint64" }, "k": { "type": "string", "x-weir-type": "timestamp" },
        } })
        .to_string(),
    );
    project.write(
        "rows.ndjson",
        "{\"a\":-7,\"b\":\"123456789012345678901234567.125\",\"c\":\"\\\"\\\\\\n\\u0007 é\",\"d\":\"0001-01-01\",\"e\":\"2026-01-01T00:00:00.000001Z\",\
         \"f\":\"23:59:59.5\",\"g\":\"AP+A\",\"h\":[1,2.5],\"i\":{\"x\":1,\"y\":\"z\"},\"j\":18446744073709551615,\"k\":\"1969-12-31T23:59:59\"}\n{\"a\":1}\n",
    );
    let outcome = project.weir(&["run", "pipeline.toml"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    // Rows are left out from the front: the one with values has to be the last.
    let text = fs::read_to_string(project.path("rows.ndjson")).unwrap();
    let lines: Vec<&str> = text.lines().rev().collect();
    project.write("rows.ndjson", lines.join("\n") + "\n");
    let found = project.ok(&["test", "--minimise", "01", "--json"]).json();
    assert_eq!(found["rows"], json!(1), "{found}");
    assert_eq!(project.ok(&["test", "--json"]).json()["passed"], json!(1));
}
