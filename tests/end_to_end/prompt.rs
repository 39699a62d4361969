//! The prompt of `weir sql` on a terminal: what is typed, and what the screen shows.

use std::{fs, io::Write, process::Stdio, time::Duration};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running, WEIR, repository},
    referee::python,
};

/// A project with one lake table of 60 rows, and a saved query.
fn project() -> Project {
    let project = Project::with(
        "weir = 1\nname = \"p\"\n[source.rows.file]\npath = \"rows.csv\"\n[sink.lake]\nfrom = \"rows\"\nmode = \"append\"\nlake.table = \"flights.delays\"\n",
    );
    let rows: String = (1..=60).map(|id| format!("{id},UA,the carrier of the flight with the number {id}\n")).collect();
    project.write("rows.csv", format!("id,carrier,note\n{rows}"));
    project.write(
        "queries/few.sql",
        "-- name: few\n-- description: the first of them\n-- param most: bigint = 2\nselect id from flights.delays where id <= $most\n",
    );
    project.run(&["pipeline.toml"]);
    project
}

/// Types and waits on a terminal of 80 columns and 24 lines; returns what was shown. None without Python.
fn talk(project: &Project, environment: &[(&str, &str)], steps: &[Value]) -> Option<String> {
    let python = python()?;
    let script = repository().join("tests/support/terminal.py");
    let mut command = project.program(python.to_str().unwrap(), &[script.to_str().unwrap(), "80", "24", WEIR, "sql", "--color", "never"]);
    command.env("TERM", "xterm").envs(environment.iter().copied()).stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.child.stdin.take().unwrap().write_all(json!(steps).to_string().as_bytes()).unwrap();
    let outcome = running.wait(Duration::from_secs(120));
    assert_eq!(outcome.code, 0, "{outcome}");
    for word in ["panicked at", "RUST_BACKTRACE"] {
        assert!(!outcome.stdout.contains(word), "{outcome}");
    }
    Some(outcome.stdout)
}

fn types(text: &str) -> Value {
    json!({ "type": text })
}

fn waits(text: &str) -> Value {
    json!({ "wait": text })
}

/// A line typed at the prompt, and what is shown for it.
fn asked(line: &str, shown: &str) -> [Value; 3] {
    [waits("weir> "), types(&format!("{line}\r")), waits(shown)]
}

/// Leaves the prompt.
fn left() -> [Value; 2] {
    [waits("weir> "), types("\\q\r")]
}

#[test]
fn a_prompt_lists_describes_and_draws() {
    let project = project();
    let steps: Vec<Value> = [
        asked("select count(*) as n from flights.delays;", "  n\n----\n 60\n(1 row)"),
        asked("\\dt", " lake.flights.delays"),
        asked("\\d delays", " carrier | text"),
        asked("\\l", "what runs have loaded"),
        asked("\\dn flights", " lake.flights"),
        asked("\\df coalesce", " coalesce"),
        asked("\\queries", " few   | most: bigint = 2 | the first of them"),
        asked("select * from query.few(1);", "(1 row)"),
        asked("\\x on", "rows are drawn with a line for each value"),
        asked("select 1 as one, null as two;", "-[ RECORD 1 ]\none | 1\ntwo | NULL\n(1 row)"),
        asked("\\pset null -", "null is shown as \"-\""),
        asked("\\g", "two | -"),
        asked("\\x off", "rows are drawn as tables"),
        asked("\\format csv", "the format is csv"),
        asked("select 1 as one\\gx", "one | 1"),
        asked("\\g", "one\n1\n"),
        asked("\\timing", "timing is on"),
        asked("\\g", "took "),
        asked("\\history 1", "\\history 1\n"),
        asked("select 'a\\b' as \\g", "error[sql-syntax]"),
        asked("\\dtt", "error[unknown-command]: there is no command \"\\dtt\"\n  = help: did you mean \"\\dt\"?"),
        asked("\\d delay", "error[unknown-table]: there is no table \"delay\"\n  = help: did you mean \"lake.flights.delays\"?"),
        asked("\\x maybe", "error[usage]: \\x knows no \"maybe\""),
        asked("select 1 \\dt", "error[usage]: only \\g, \\gx, \\watch and \\e follow a query that no semicolon ends"),
    ]
    .into_iter()
    .flatten()
    .chain(left())
    .collect();
    talk(&project, &[], &steps);
}

#[test]
fn a_long_answer_goes_through_the_pager() {
    let project = project();
    let all = "select id, carrier, note from flights.delays order by id;";
    let steps: Vec<Value> = [
        asked(all, ""),
        asked("select id from flights.delays where id < 3;", "(2 rows)"),
        asked("\\x auto", "rows wider than the terminal"),
        asked("select id, carrier, note, note as again from flights.delays where id = 7;", "-[ RECORD 1 ]"),
        asked("\\pager off", "the pager is off"),
        asked("select id from flights.delays;", "(60 rows)"),
    ]
    .into_iter()
    .flatten()
    .chain(left())
    .collect();
    if talk(&project, &[("PAGER", "cat > paged.txt")], &steps).is_none() {
        return;
    }
    let paged = fs::read_to_string(project.path("paged.txt")).unwrap();
    assert_eq!(paged.lines().count(), 63, "{paged}");
    assert!(paged.starts_with(" id | carrier | note") && paged.ends_with("(60 rows)\n"), "{paged}");
}

#[test]
fn ctrl_c_cancels_a_query_and_ends_a_watch() {
    let project = project();
    let endless = "select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000000) b;";
    let mut steps = vec![waits("weir> "), types(&format!("{endless}\r"))];
    steps.extend([waits(";"), json!({ "pause": 1.0 }), types("\u{3}"), waits("the query was cancelled")]);
    steps.extend(asked("select 1 as one;", "(1 row)"));
    steps.extend([waits("weir> "), types("\\watch 0.2\r"), waits("(1 row)"), waits("(1 row)"), waits("(1 row)"), types("\u{3}")]);
    steps.extend(asked("select 2 as two;", " two"));
    steps.extend(left());
    talk(&project, &[], &steps);
}

#[test]
fn answers_go_to_files_and_come_from_files() {
    let project = project();
    project.write("more.sql", "-- two\n\\timing off\nselect 1 as one; select 2 as two \\gx\n");
    project.write("wrong.sql", "select 1 as one;\nselect nothing;\nselect 3 as three;\n");
    project.write("editor.sh", "echo 'select 11 + 31 as edited;' > \"$1\"\n");
    let steps: Vec<Value> = [
        asked("\\i more.sql", "-[ RECORD 1 ]\ntwo | 2"),
        asked("\\i wrong.sql", "wrong.sql:2:8"),
        asked("\\i nothing.sql", "error[file-missing]"),
        asked("\\o rows.csv", "answers go to rows.csv"),
        asked("select id from flights.delays where id = 1;", "1 row written to rows.csv"),
        asked("select id from flights.delays where id = 2;", "1 row added to rows.csv"),
        asked("\\o rows.xyz", "error[usage]: the name \"rows.xyz\" does not say which format is meant"),
        asked("\\o", "answers go to the terminal"),
        asked("select id from flights.delays where id = 3 \\g three.parquet", "1 row written to three.parquet"),
        asked("\\e", "edited"),
    ]
    .into_iter()
    .flatten()
    .chain([waits("42")])
    .chain(left())
    .collect();
    let editor = format!("sh {}", project.path("editor.sh").display());
    if talk(&project, &[("EDITOR", &editor)], &steps).is_none() {
        return;
    }
    assert_eq!(fs::read_to_string(project.path("rows.csv")).unwrap(), "id\n1\nid\n2\n");
    assert!(project.path("three.parquet").is_file());
    assert!(!project.path(".weir").read_dir().unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().ends_with(".sql")));
}

#[test]
fn names_are_completed_where_they_may_stand() {
    let project = project();
    let mut steps = vec![waits("weir> "), json!({ "pause": 1.0 })];
    steps.extend([types("select d.ca\t from lake.fl\tdel\t d"), types(" where d.id = 1;\r"), waits("(1 row)")]);
    steps.extend([waits("weir> "), types("\\ti\t\r"), waits("timing is on")]);
    steps.extend(left());
    let Some(shown) = talk(&project, &[], &steps) else { return };
    assert!(shown.contains("select d.carrier") && shown.contains("from lake.flights.delays"), "{shown}");
}
