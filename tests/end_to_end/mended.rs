//! A fix of quarantined rows, killed at every call that makes something durable or visible and then repeated: each row is in exactly one place,
//! in every destination and in the quarantine alike.

use std::{collections::BTreeSet, fmt::Write};

use crate::{
    crash::Random,
    crash_shim::{self, Call, When},
    project::{Project, long},
    servers::{Database, Kind, fresh_database},
};

const CONTRACT: &str = r#"{
  "type": "object",
  "properties": {
    "id": { "type": "integer", "minimum": 0 },
    "zip": { "type": "string", "pattern": "^[0-9]{5}$" }
  },
  "required": ["id", "zip"]
}"#;

const PIPELINE: &str = r#"
weir = 1
name = "users"

[source.users]
contract = "user.schema.json"
incremental = { files = "new" }
[source.users.file]
path = "data/*.csv"
format = "csv"

[transform.even]
sql = "select id, zip, 'even' as kind from users where id % 2 = 0"

[sink.all]
from = "users"
[sink.all.lake]
table = "out.all"

[sink.latest]
from = "even"
mode = "merge"
key = ["id"]
[sink.latest.lake]
table = "out.latest"
"#;

/// The same rows into databases too: Postgres decides, ClickHouse follows.
const DATABASES: &str = r#"
[sink.warehouse]
from = "users"
[sink.warehouse.postgres]
connection = "warehouse"
table = "all"

[sink.olap]
from = "users"
[sink.olap.clickhouse]
connection = "olap"
table = "all"
order_by = ["id"]
"#;

/// Rows of one file; every tenth lacks its leading zero, every twentieth has an id that no fix mends.
const ROWS: usize = 60;

fn is_short(row: usize) -> bool {
    row % 10 == 3
}

fn is_lost(row: usize) -> bool {
    row % 20 == 7
}

struct Chain {
    project: Project,
    databases: Option<(Database, Database)>,
    files: usize,
}

impl Chain {
    fn start(databases: bool) -> Option<Self> {
        let both = match databases {
            true => Some((fresh_database(Kind::Postgres)?, fresh_database(Kind::Clickhouse)?)),
            false => None,
        };
        let project = match &both {
            Some((postgres, clickhouse)) => {
                let project = Project::with(&format!("{PIPELINE}{DATABASES}"));
                project.write("weir.toml", format!("{}\n{}", postgres.connection("warehouse"), clickhouse.connection("olap")));
                project
            }
            None => Project::with(PIPELINE),
        };
        project.write("user.schema.json", CONTRACT);
        Some(Self { project, databases: both, files: 0 })
    }

    /// Another file, with some rows that are set aside.
    fn load(&mut self) {
        let mut text = String::from("id,zip\n");
        for row in 0..ROWS {
            let id = self.files * ROWS + row;
            match (is_short(row), is_lost(row)) {
                (true, _) => writeln!(text, "{id},{}", 1000 + row),
                (_, true) => writeln!(text, "-{id},00501"),
                _ => writeln!(text, "{id},{}", 10_000 + row),
            }
            .unwrap();
        }
        self.project.write(&format!("data/{:04}.csv", self.files), text);
        self.project.run(&["pipeline.toml"]);
        self.files += 1;
    }

    fn fix(&self) -> std::process::Command {
        self.project.command(&["quarantine", "fix", "users", "--set", "zip = lpad(zip, 5, '0')", "--where", "length(zip) = 4", "--yes"])
    }

    /// Once a fix has come to its end: every row is where it belongs, once.
    fn check(&self, at: &str) {
        let ids = |wanted: &dyn Fn(usize) -> bool| -> BTreeSet<usize> {
            (0..self.files).flat_map(|file| (0..ROWS).filter(|row| wanted(*row)).map(move |row| file * ROWS + row)).collect()
        };
        let same = |found: Vec<String>, wanted: &BTreeSet<usize>, place: &str| {
            let sorted: BTreeSet<usize> = found.iter().map(|id| id.trim_matches('"').parse().unwrap()).collect();
            assert!(
                found.len() == wanted.len() && sorted == *wanted,
                "{at}: {place} has {} rows in place of {}",
                found.len(),
                wanted.len()
            );
        };
        let lake = |sql: &str| self.project.sql(sql).into_iter().skip(1).collect::<Vec<_>>();
        let good = ids(&|row| !is_lost(row));
        same(lake("select id from lake.out.all where length(zip) = 5"), &good, "lake.out.all");
        let even: BTreeSet<usize> = good.iter().copied().filter(|id| id % 2 == 0).collect();
        same(lake("select id from lake.out.latest where length(zip) = 5"), &even, "lake.out.latest");
        if let Some((postgres, clickhouse)) = &self.databases {
            same(postgres.rows("select id from \"all\"").into_iter().skip(1).collect(), &good, "Postgres");
            same(clickhouse.rows("select id from `all`").into_iter().skip(1).collect(), &good, "ClickHouse");
        }
        let waits = lake("select -cast(json_get_int(raw, 'id') as bigint) from quarantine.users.users where status = 'open'");
        same(waits, &ids(&is_lost), "what waits in quarantine");
        let mended = lake("select json_get_int(mended, 'id') from quarantine.users.users where status = 'mended'");
        same(mended, &ids(&is_short), "what was mended");
        let books = "select count(*) from quarantine.users.users q join weir.runs r on r.run = q.ended_run where r.status <> 'published'";
        assert_eq!(self.project.value(books), "0", "{at}: rows were mended by a run that has not published");
    }
}

fn killed_anywhere(databases: bool, share: usize) {
    let Some(mut chain) = Chain::start(databases) else { return };
    let mut random = Random::seeded();
    // The first fix finds the destinations that the first run has made.
    chain.load();
    let (outcome, calls) = crash_shim::calls(chain.fix(), "");
    assert_eq!(outcome.code, 0, "{outcome}");
    chain.check("a fix that nobody disturbed");
    // A log of SQLite is written in many pieces that mean something together, at the fsync.
    let calls: Vec<Call> = calls.into_iter().filter(|call| call.name != "pwrite").collect();
    // How many there are hangs on how often SQLite and spilling come to write; these make a fix what it is, and none may be missing.
    let made = |name: &str, part: &str| calls.iter().any(|call| call.name == name && call.target.contains(part));
    for table in ["lake/out/all", "quarantine/users/users"] {
        assert!(made("link", &format!("{table}/_delta_log/")), "no commit of {table}: {calls:?}");
    }
    assert!(made("fsync", "state.db-wal"), "the decision is not made to last: {calls:?}");
    let step = if long() { 1 } else { calls.len().div_ceil(share).max(1) };
    let begin = (random.share() * step as f64) as usize;
    let (mut killed, mut tried) = (0, 0);
    for at in (begin..calls.len()).step_by(step) {
        let (kind, number) = aim(&calls, at);
        let when = if tried % 2 == 0 { When::Before } else { When::After };
        let place = format!("file {}, {kind:?} {number} {when:?}", chain.files);
        chain.load();
        let outcome = crash_shim::at(chain.fix(), &kind, number, when);
        assert!(matches!(outcome.code, 0 | 137), "{place}: {outcome}");
        killed += usize::from(outcome.code == 137);
        tried += 1;
        let again = crash_shim::calls(chain.fix(), "nothing is called so").0;
        assert_eq!(again.code, 0, "{place}: {again}");
        chain.check(&place);
    }
    assert!(killed * 10 >= tried * 8, "only {killed} of {tried} fixes were killed");
    eprintln!("{killed} kills at {tried} of {} calls", calls.len());
    assert_eq!(chain.project.weir(&["doctor"]).code, 0);
}

/// A call by what it is counted among: a fix makes a few calls of the history's more or fewer than another.
fn aim(calls: &[Call], at: usize) -> (String, usize) {
    let kind = crash_shim::kind(&calls[at]);
    let number = calls[..=at].iter().filter(|call| call.line().contains(&kind)).count();
    (kind, number)
}

#[test]
fn a_fix_killed_at_any_call_and_repeated_leaves_each_row_in_one_place() {
    killed_anywhere(false, 24);
}

#[test]
fn a_fix_into_three_systems_killed_at_any_call_and_repeated_leaves_each_row_in_one_place() {
    killed_anywhere(true, 12);
}

#[test]
fn rows_of_a_run_that_a_later_one_has_read_again_are_not_mended() {
    let project = Project::with(&PIPELINE.replace("incremental = { files = \"new\" }\n", ""));
    project.write("user.schema.json", CONTRACT);
    project.write("data/one.csv", "id,zip\n1,00501\n2,501\n");
    let run = || project.run(&["pipeline.toml"])["run"].as_str().unwrap().to_owned();
    let (first, second) = (run(), run());
    let fix = |run: &str| project.weir(&["quarantine", "fix", "users", "--set", "zip = lpad(zip, 5, '0')", "--run", run, "--yes"]);
    let refused = fix(&first);
    assert_eq!(refused.code, 1, "{refused}");
    refused.says(&[
        &format!("error[superseded]: step \"users\": what run {first} set aside has been read again since, by run {second}"),
        "leave out --run",
    ]);
    let mended = fix(&second);
    assert_eq!(mended.code, 0, "{mended}");
    assert_eq!(project.value("select count(*) from lake.out.all where id = 2"), "1");
}
