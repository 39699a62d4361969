//! A state that moves: from SQLite to Postgres and back it is the same, row for row, and what cannot be taken over is refused whole.

use std::{path::Path, time::Duration};

use super::FREE_PORT;
use crate::{
    project::{Outcome, Project, Running},
    servers::{Database, Kind, fresh_database},
};

const PIPELINE: &str = r#"
weir = 1
name = "events"
[schedule]
every = "1s"
catch_up = "none"
[source.events]
incremental = { files = "new" }
[source.events.file]
path = "data/*.csv"
[sink.all]
from = "events"
mode = "append"
[sink.all.lake]
table = "out.events"
"#;

/// A project whose state has something in most tables.
fn used() -> Project {
    let project = Project::new();
    project.write("weir.toml", FREE_PORT);
    // A copy of a file is another file: whoever takes the state over reads the same ones.
    let data = project.path("data").display().to_string();
    project.write("events.pipeline.toml", PIPELINE.replace("\"data/", &format!("\"{data}/")));
    project.write("data/1.csv", "id,name\n1,a\n2,\"b'; drop table runs; --\"\n");
    project.run(&["events"]);
    project.ok(&["backfill", "events", "--from", "2026-01-01", "--to", "2026-01-04", "--step", "1d", "--detach"]);
    project.ok(&["serve", "token", "new", "ci", "--scope", "sql,connection:crm"]);
    let mut server = project.start(&["serve"]);
    let began = std::time::Instant::now();
    while project.ok(&["runs", "list", "--json"]).json()["runs"].as_array().map_or(0, Vec::len) < 6 {
        assert!(server.alive() && began.elapsed() < Duration::from_secs(60), "the server makes no runs");
        std::thread::sleep(Duration::from_millis(200));
    }
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(60)).code, 0);
    project
}

/// The same files and the same lake, with a state elsewhere.
fn beside(project: &Project, settings: &str) -> Project {
    let other = Project::copy_of(project.root());
    other.write("weir.toml", format!("{settings}[lake]\npath = \"{}\"\n", project.path(".weir/lake").display()));
    other
}

fn lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines[1..].sort();
    lines
}

fn weir(project: &Project, database: &Database, arguments: &[&str]) -> Outcome {
    let mut command = project.command(arguments);
    command.env("WEIR_STATE_URL", database.url());
    Running::start(command).wait(Duration::from_secs(60))
}

#[test]
fn a_state_goes_to_postgres_and_back_as_it_was() {
    let Some(database) = fresh_database(Kind::Postgres) else { return };
    let first = used();
    let exported = first.ok(&["--json", "state", "export", "one.ndjson"]).json();
    let expected = lines(&first.path("one.ndjson"));
    assert_eq!(exported["rows"], expected.len() - 1);
    for table in ["runs", "cursors", "definitions", "schedules", "tasks", "backfills", "tokens", "events"] {
        let row = format!("{{\"table\":\"{table}\",");
        assert!(table == "events" || expected.iter().any(|line| line.starts_with(&row)), "nothing of {table} is exported");
    }

    let second = beside(&first, "[state]\nurl = { env = \"WEIR_STATE_URL\" }\nschema = \"Some \\\"State\"\n");
    let text = first.path("one.ndjson");
    let imported = weir(&second, &database, &["--json", "state", "import", text.to_str().unwrap()]);
    assert_eq!((imported.code, &imported.json()["rows"]), (0, &exported["rows"]), "{imported}");
    let outcome = weir(&second, &database, &["state", "export", "two.ndjson"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(lines(&second.path("two.ndjson")), expected);

    let third = beside(&first, "");
    third.ok(&["state", "import", second.path("two.ndjson").to_str().unwrap()]);
    third.ok(&["state", "export", "three.ndjson"]);
    assert_eq!(lines(&third.path("three.ndjson")), expected);
    assert_eq!(third.ok(&["runs", "list", "--json"]).stdout, first.ok(&["runs", "list", "--json"]).stdout);

    // It goes on where the first one was: what was loaded is not loaded again.
    first.write("data/2.csv", "id,name\n3,c\n");
    assert_eq!(third.run(&["events"])["rows_loaded"], 1);
    assert_eq!(first.value("select count(*) from lake.out.events"), "3");
}

/// What is said of a text that is no state, and that nothing of it was taken over.
fn refused(text: &str, said: &str) {
    let project = Project::new();
    project.write("state.ndjson", text);
    let outcome = project.weir(&["state", "import", "state.ndjson"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    let expected = format!("error[state-import]: line {said}\n  = help: write one with: weir state export; nothing was taken over\n");
    assert_eq!(outcome.stderr, expected);
    project.ok(&["state", "export", "empty.ndjson"]);
    assert_eq!(lines(&project.path("empty.ndjson")).len(), 1, "something was taken over");
}

#[test]
fn a_text_that_is_no_state_is_refused_whole() {
    const FIRST: &str = "{\"weir_state\":1,\"id\":\"0190\"}\n";
    const RUN: &str = "{\"table\":\"runs\",\"row\":{\"run\":\"r1\",\"pipeline\":\"p\",\"status\":\"failed\",\"started_at\":\"2026-01-01T00:00:00.000Z\",\"lane\":0}}\n";
    let is_not = |line: u32, why: &str| format!("{line} is not of an exported state: {why}");
    refused("", &is_not(1, "it is empty"));
    refused("id,name\n", &is_not(1, "expected value at line 1 column 1"));
    refused("{\"weir_state\":3,\"id\":\"0190\"}\n", &is_not(1, "it was written by a newer Weir (its form is 3)"));
    refused(&format!("{FIRST}{{}}\n"), &is_not(2, "missing field `table` at line 1 column 2"));
    refused(
        &format!("{FIRST}{{\"table\":\"users; drop table runs\",\"row\":{{}}}}\n"),
        &is_not(2, "there is no table \"users; drop table runs\""),
    );
    refused(&format!("{FIRST}{RUN}{{\"table\":\"runs\",\"row\":{{\"owner\":\"me\"}}}}\n"), &is_not(3, "\"runs\" has no column \"owner\""));
    refused(&format!("{FIRST}{}", RUN.replace(":0}", ":\"0\"}")), &is_not(2, "\"lane\" is \"0\" in place of a whole number"));
    refused(&format!("{FIRST}{}", RUN.replace(":0}", ":0.5}")), &is_not(2, "\"lane\" is 0.5 in place of a whole number"));
    refused(&format!("{FIRST}{}", RUN.replace("\"p\"", "[]")), &is_not(2, "\"pipeline\" is [] in place of a text"));
    refused(&format!("{FIRST}{RUN}{RUN}"), &is_not(3, "error returned from database: (code: 1555) UNIQUE constraint failed: runs.run"));
    refused(
        &format!("{FIRST}{}", RUN.replace("\"pipeline\":\"p\",", "")),
        &is_not(2, "error returned from database: (code: 1299) NOT NULL constraint failed: runs.pipeline"),
    );
    let torn = RUN.trim_end().trim_end_matches('}');
    refused(&format!("{FIRST}{torn}"), &is_not(2, &format!("EOF while parsing an object at line 1 column {}", torn.len())));
}

#[test]
fn a_state_is_not_taken_over_into_one_that_is_used() {
    let project = Project::new();
    project.write("one.csv", "id\n1\n");
    project.write(
        "p.pipeline.toml",
        "weir = 1\nname = \"p\"\n[source.s.file]\npath = \"one.csv\"\n[sink.o]\nfrom = \"s\"\nlake.table = \"out.o\"\n",
    );
    project.run(&["p"]);
    project.ok(&["state", "export", "state.ndjson"]);
    let outcome = project.weir(&["state", "import", "state.ndjson"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    let expected = "error[state-import]: the state is not empty: there is something in \"runs\"\n  \
                    = help: take it over into a new .weir folder, or another [state] schema\n";
    assert_eq!(outcome.stderr, expected);

    let outcome = project.weir(&["state", "import", "nowhere.ndjson"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(outcome.stderr, "error[file-unreadable]: cannot read \"nowhere.ndjson\": No such file or directory (os error 2)\n");
    let outcome = project.weir(&["state", "export", "no/such/folder.ndjson"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(outcome.stderr, "error[output-failed]: cannot write \"no/such/folder.ndjson\": No such file or directory (os error 2)\n");
}
