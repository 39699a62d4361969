//! State databases in each form that an earlier version of Weir wrote: opened, they are brought to this version's form and keep what was in them.
//! The forms are written down here once more: a migration that is changed after the fact does not pass.

use std::process::Command;

use crate::{
    project::{Project, Running},
    referee,
    servers::{Kind, fresh_database},
};

/// What each form added to the one before. They are not changed any more.
const FORMS: [&str; 6] = [
    "create table state (id text not null);
     create table runs (
         run text primary key, pipeline text not null, status text not null,
         started_at text not null, finished_at text, error text, summary text
     );
     create index runs_by_pipeline on runs (pipeline, run);
     create table loads (
         run text not null, sink text not null, kind text not null, state text not null, published integer not null default 0,
         primary key (run, sink)
     );
     create table run_cursors (run text not null, source text not null, key text not null, value text not null);
     create table cursors (
         pipeline text not null, source text not null, key text not null, value text not null,
         primary key (pipeline, source, key)
     );",
    "create table run_forgets (run text not null, source text not null);",
    "alter table runs add column code text; alter table runs add column step text;",
    "create table definitions (hash text primary key, text text not null); alter table runs add column definition text;",
    FORM_5,
    "alter table tokens add column scopes text not null default 'runs'; alter table tokens add column salt text;
     alter table tokens add column salted_password text;",
];

const FORM_5: &str = "
    alter table runs add column lane bigint not null default 0;
    alter table runs add column task text;
    alter table runs add column interval_start text;
    alter table runs add column interval_end text;
    create index runs_by_interval on runs (pipeline, interval_end);
    create table schedules (
        pipeline text primary key, since text not null, covered text not null,
        paused_at text, paused_by text, pause_reason text
    );
    create table tasks (
        id text primary key, pipeline text not null, origin text not null, status text not null,
        interval_start text, interval_end text, joined bigint not null default 1,
        due_at text not null, not_before text not null, attempts bigint not null default 0, crashes bigint not null default 0,
        params text not null default '{}', reason text, run text, lane bigint not null default 0, server text, backfill text,
        origin_key text, cancel bigint not null default 0, late bigint not null default 0, created_at text not null, updated_at text not null
    );
    create index tasks_by_status on tasks (status, not_before);
    create index tasks_by_pipeline on tasks (pipeline, interval_end);
    create index tasks_of_backfills on tasks (backfill, lane, status, id);
    create unique index tasks_of_schedules on tasks (pipeline, interval_end) where origin = 'schedule';
    create unique index tasks_by_key on tasks (pipeline, origin_key) where origin_key is not null;
    create table backfills (
        id text primary key, pipeline text not null, interval_start text not null, interval_end text not null, reprocess text not null,
        parallel bigint not null, backwards bigint not null, status text not null, created_at text not null, updated_at text not null
    );
    create table arrivals (pipeline text not null, source text not null, item text not null, mark text not null, primary key (pipeline, source, item));
    create table locks (
        pipeline text not null, lane bigint not null, fence bigint not null, owner text not null, until_ms bigint not null,
        primary key (pipeline, lane)
    );
    create table servers (id text primary key, name text not null, started_at text not null, until_ms bigint not null);
    create table leader (one bigint primary key, fence bigint not null, owner text not null, until_ms bigint not null);
    create table tokens (name text primary key, hash text not null unique, created_at text not null);
    create table events (id text primary key, at text not null, kind text not null, pipeline text, run text, text text not null);
    create index events_by_time on events (at);
";

/// Writes an SQLite database in form `argv[2]` with what there is of each of its tables in another one.
const OLD: &str = r#"
import json, sqlite3, sys
new, old, form, forms = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
source, target = sqlite3.connect(new), sqlite3.connect(old)
for text in forms[:form]:
    target.executescript(text)
for (table,) in target.execute("select name from sqlite_master where type = 'table'").fetchall():
    columns = [row[1] for row in target.execute(f"pragma table_info({table})")]
    for row in source.execute(f"select {', '.join(columns)} from {table}"):
        target.execute(f"insert into {table} values ({', '.join('?' * len(row))})", row)
target.execute(f"pragma user_version = {form}")
target.commit()
"#;

fn project() -> Project {
    let project = Project::new();
    let pipeline = "weir = 1\nname = \"events\"\n[source.events]\nincremental = { files = \"new\" }\n[source.events.file]\npath = \"data/*.csv\"\n\
                    [sink.all]\nfrom = \"events\"\nmode = \"append\"\n[sink.all.lake]\ntable = \"out.events\"\n";
    project.write("events.pipeline.toml", pipeline);
    project.write("data/1.csv", "id\n1\n2\n");
    project
}

#[test]
fn sqlite_states_of_every_earlier_form_are_brought_up_and_keep_their_rows() {
    let Some(python) = referee::python() else { return };
    for form in 1..=FORMS.len() {
        let project = project();
        project.run(&["events"]);
        // A run that fails: its error is kept too.
        project.write("data/2.csv", "id\nno number\n");
        let failed = project.weir(&["run", "events", "--set", "source.events.file.delimiter=\"||\""]);
        assert_ne!(failed.code, 0, "{failed}");
        std::fs::remove_file(project.path("data/2.csv")).unwrap();
        let before = project.ok(&["runs", "list", "--json"]).json();
        project.ok(&["serve", "token", "new", "ci", "--scope", "sql,files"]);

        let (new, old) = (project.path(".weir/state.db"), project.path("old.db"));
        let forms = serde_json::to_string(&FORMS).unwrap();
        let made = Command::new(&python).args(["-c", OLD]).args([&new, &old]).args([&form.to_string(), &forms]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(project.path(&format!(".weir/state.db{suffix}")));
        }
        std::fs::rename(&old, &new).unwrap();

        let after = project.ok(&["runs", "list", "--json"]).json();
        let (before, after) = (before["runs"].as_array().unwrap(), after["runs"].as_array().unwrap());
        assert_eq!(before.len(), after.len(), "form {form}");
        for (before, after) in before.iter().zip(after) {
            for key in ["run", "pipeline", "status", "started_at", "finished_at", "error", "summary"] {
                assert_eq!(before[key], after[key], "form {form}: {key}");
            }
        }
        // A token of before opens what it opened; no form before the fifth had tokens.
        let tokens = project.ok(&["serve", "token", "list", "--json"]).json();
        let scopes = |token: &serde_json::Value| token["scopes"].clone();
        let expected = match form {
            1..5 => vec![],
            5 => vec![serde_json::json!(["runs"])],
            _ => vec![serde_json::json!(["sql", "files"])],
        };
        assert_eq!(tokens["tokens"].as_array().unwrap().iter().map(scopes).collect::<Vec<_>>(), expected, "form {form}");
        // What was loaded then is known still, and the lake knows the state by its name.
        assert_eq!(project.run(&["events"])["rows_loaded"], 0, "form {form}");
        project.write("data/3.csv", "id\n3\n");
        assert_eq!(project.run(&["events"])["rows_loaded"], 1, "form {form}");
        assert_eq!(project.value("select count(*) from lake.out.events"), "3", "form {form}");
        project.ok(&["state", "export", "state.ndjson"]);
    }
}

#[test]
fn a_postgres_state_of_an_earlier_form_is_brought_up_and_keeps_its_rows() {
    let Some(database) = fresh_database(Kind::Postgres) else { return };
    let mut statements = vec!["create schema state".to_owned()];
    statements.push(format!("set search_path to state; {} create table form (version bigint not null)", FORMS[..5].concat()));
    statements.push(
        "set search_path to state; insert into state values ('0190'); insert into form values (5);
         insert into tokens (name, hash, created_at) values ('ci', 'abc', '2026-01-01T00:00:00.000Z');
         insert into runs (run, pipeline, status, started_at, finished_at, error, lane, task, interval_start, interval_end)
         values ('r1', 'events', 'failed', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:01.000Z', 'it was so', 0, 't1',
                 '2025-12-31T00:00:00.000Z', '2026-01-01T00:00:00.000Z');
         insert into tasks (id, pipeline, origin, status, interval_start, interval_end, due_at, not_before, created_at, updated_at)
         values ('t1', 'events', 'schedule', 'failed', '2025-12-31T00:00:00.000Z', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z',
                 '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')"
            .to_owned(),
    );
    database.execute(&statements.iter().map(String::as_str).collect::<Vec<_>>());
    let project = project();
    project.write("weir.toml", "[state]\nurl = { env = \"WEIR_STATE_URL\" }\nschema = \"state\"\n");
    let weir = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.env("WEIR_STATE_URL", database.url());
        let outcome = Running::start(command).wait(std::time::Duration::from_secs(60));
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome
    };
    let runs = weir(&["runs", "list", "--json"]).json();
    assert_eq!((&runs["runs"][0]["run"], &runs["runs"][0]["error"]), (&"r1".into(), &"it was so".into()), "{runs}");
    assert_eq!(weir(&["run", "--json", "events"]).json()["rows_loaded"], 2);
    let tokens = weir(&["serve", "token", "list", "--json"]).json();
    assert_eq!(tokens["tokens"], serde_json::json!([{ "name": "ci", "created_at": "2026-01-01T00:00:00.000Z", "scopes": ["runs"] }]));
    assert_eq!(database.value("select max(version) >= 6 and count(*) = 1 from state.form").to_lowercase().chars().next(), Some('t'));
    assert_eq!(database.value("select count(*) from state.tasks where id = 't1' and status = 'failed'"), "1");
}

#[test]
fn a_state_of_a_later_form_is_refused() {
    let Some(python) = referee::python() else { return };
    let project = project();
    project.run(&["events"]);
    let set = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('pragma user_version = 99'); db.commit()";
    let done = Command::new(python).args(["-c", set]).arg(project.path(".weir/state.db")).status().unwrap();
    assert!(done.success());
    let outcome = project.weir(&["run", "events"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    let expected = "error[state]: the run history was written by a newer Weir (its form is 99)\n  \
                    = help: use that version, or another .weir folder\n";
    assert_eq!(outcome.stderr, expected);
}
