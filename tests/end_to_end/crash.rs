//! Kill -9 at random instants and Ctrl-C: after a rerun every destination is as if nothing had happened.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use regex::Regex;
use tempfile::TempDir;

use crate::{
    lake,
    project::{Outcome, Project, long},
    referee,
};

const CONTRACT: &str = r#"{
  "type": "object",
  "properties": {
    "id": { "type": "integer", "minimum": 0 },
    "version": { "type": "integer" },
    "name": { "type": "string", "minLength": 1 }
  },
  "required": ["id", "version", "name"]
}"#;

/// New files are appended, and merged by key; every hundredth row breaks the contract and some lines are torn.
const INCREMENTAL: &str = r#"
weir = 1
name = "events"

[source.events]
contract = "event.schema.json"
incremental = { files = "new" }
[source.events.file]
path = "data/*.csv"
format = "csv"

[transform.latest]
from = "events"
deduplicate = { key = ["id"], keep = "last", order_by = ["version"] }

[sink.all]
from = "events"
mode = "append"
[sink.all.lake]
table = "out.events"

[sink.merged]
from = "latest"
mode = "merge"
key = ["id"]
[sink.merged.lake]
table = "out.latest"
"#;

/// The whole input each time, into the modes that a second run of the same rows leaves as they are, and into files.
const WHOLE: &str = r#"
weir = 1
name = "events"

[source.events]
contract = "event.schema.json"
on_invalid = "drop"
[source.events.file]
path = "data/*.csv"
format = "csv"

[transform.latest]
from = "events"
deduplicate = { key = ["id"], keep = "last", order_by = ["version"] }

[sink.all]
from = "events"
mode = "replace"
[sink.all.lake]
table = "out.events"

[sink.merged]
from = "latest"
mode = "snapshot"
key = ["id"]
[sink.merged.lake]
table = "out.latest"

[sink.copy]
from = "latest"
mode = "replace"
[sink.copy.file]
path = "out/latest.ndjson"
format = "ndjson"
"#;

/// A deterministic file of events: `version` counts up from file to file, so that ids occur in several files.
fn events(file: usize, rows: usize) -> String {
    let mut text = String::from("id,version,name\n");
    for row in 0..rows {
        let id = (row * 7919 + file * 104_729) % (rows * 2);
        match row % 100 {
            37 => writeln!(text, "-{id},{file},negative"),
            61 if file % 2 == 1 => writeln!(text, "{id},{file}"),
            _ => writeln!(text, "{id},{file},name {} of file {file}", row * 31 % 1009),
        }
        .unwrap();
    }
    text
}

/// A seeded generator (xorshift64*): a failing run is made again with `WEIR_TEST_SEED`.
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Self {
        let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_nanos() as u64 | 1
        });
        eprintln!("WEIR_TEST_SEED={seed}");
        Self(seed)
    }

    /// From 0 up to 1.
    pub fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Everything a reader can see of a project, and what lies about in it.
#[derive(Debug, PartialEq)]
struct Seen {
    tables: BTreeMap<String, Vec<String>>,
    files: BTreeMap<String, Vec<u8>>,
    leftovers: Vec<String>,
}

fn see(project: &Project) -> Seen {
    let ids = Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap();
    let mut tables = BTreeMap::new();
    for (name, query) in [
        ("events", "select id, version, name from lake.out.events"),
        ("latest", "select * from lake.out.latest"),
        ("quarantine", "select step, file, \"row\", code, \"column\", raw from quarantine.events.events"),
    ] {
        let outcome = project.weir(&["sql", "--format", "csv", "-c", query]);
        // `drop` makes no quarantine; any other table must be there.
        assert!(outcome.code == 0 || name == "quarantine", "{outcome}");
        let mut rows = crate::project::sorted_rows(if outcome.code == 0 { &outcome.stdout } else { "" });
        if rows.first().is_some_and(|header| header.contains("valid_from")) {
            // When a version began is the one thing that two runs do not share.
            rows = without_times(&rows);
        }
        tables.insert(name.to_owned(), rows);
    }
    let out = project.path("out");
    let files = lake::files(&out).into_iter().map(|path| (name_in(&out, &path), std::fs::read(&path).unwrap())).map(|(name, bytes)| {
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        lines.sort_unstable();
        (ids.replace_all(&name, "<run>").into_owned(), lines.join(&b'\n'))
    });
    let mut leftovers: Vec<String> = lake::strays(&project.path(".weir"))
        .iter()
        .map(|path| ids.replace_all(&name_in(project.root(), path), "<run>").into_owned())
        // SQLite's journal files come and go with whoever has the state open.
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm") && !name.ends_with("-journal"))
        .collect();
    leftovers.dedup();
    Seen { tables, files: files.collect(), leftovers }
}

fn without_times(rows: &[String]) -> Vec<String> {
    let times = Regex::new(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?").unwrap();
    let mut rows: Vec<String> = rows.iter().map(|row| times.replace_all(row, "<time>").into_owned()).collect();
    rows[1..].sort();
    rows
}

fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().into_owned()
}

/// Says where two views part, without printing a hundred thousand rows.
fn assert_same(found: &Seen, expected: &Seen, at: &str) {
    for (table, rows) in &expected.tables {
        let found = &found.tables[table];
        let missing: Vec<_> = rows.iter().filter(|row| found.binary_search(row).is_err()).take(5).collect();
        let extra: Vec<_> = found.iter().filter(|row| rows.binary_search(row).is_err()).take(5).collect();
        assert!(
            found == rows,
            "{at}: {table} has {} rows, a run never killed {}; missing {missing:?}, too many {extra:?}",
            found.len(),
            rows.len()
        );
    }
    assert_eq!(found.files.keys().collect::<Vec<_>>(), expected.files.keys().collect::<Vec<_>>(), "{at}: files beside the lake");
    assert!(found.files == expected.files, "{at}: files beside the lake differ");
    assert_eq!(found.leftovers, expected.leftovers, "{at}: what lies about in .weir");
}

/// The project as it stood before the run that is killed, to be put back in place: paths and times are part of what a source knows.
struct Before(TempDir);

impl Before {
    fn keep(project: &Project) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_all(project.root(), folder.path());
        Self(folder)
    }

    fn restore(&self, project: &Project) {
        for entry in std::fs::read_dir(project.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        copy_all(self.0.path(), project.root());
    }
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Kills `kills` runs at random instants, each followed by a rerun, and compares with a run that was never killed.
fn kill_and_rerun(pipeline: &str, kills: usize, rows: usize) {
    let project = Project::with(pipeline);
    project.write("event.schema.json", CONTRACT);
    for file in 0..2 {
        project.write(&format!("data/{file}.csv"), events(file, rows));
    }
    project.run(&["pipeline.toml"]);
    for file in 2..4 {
        project.write(&format!("data/{file}.csv"), events(file, rows));
    }
    let before = Before::keep(&project);

    let mut took = Vec::new();
    let mut expected = None;
    for _ in 0..3 {
        before.restore(&project);
        let started = Instant::now();
        project.run(&["pipeline.toml"]);
        took.push(started.elapsed());
        expected = Some(see(&project));
    }
    took.sort();
    let (took, expected) = (took[1], expected.expect("three runs were made"));
    assert!(expected.tables["events"].len() > rows, "the run that is never killed loads nothing");

    let mut random = Random::seeded();
    let (mut killed, mut published, mut tries) = (0, 0, 0);
    while killed < kills {
        tries += 1;
        assert!(tries < kills * 4, "{killed} of {tries} runs were still alive when they were killed: the instants are wrong");
        before.restore(&project);
        let mut run = project.start(&["run", "pipeline.toml"]);
        // Every other kill aims at the last third, where staging ends and publishing happens.
        let share = if tries % 2 == 0 { 0.6 + 0.4 * random.share() } else { random.share() };
        std::thread::sleep(took.mul_f64(share));
        if !run.alive() {
            continue;
        }
        run.signal("KILL");
        let outcome = run.wait(Duration::from_secs(10));
        if outcome.code == 0 {
            continue;
        }
        assert_eq!(outcome.code, 137, "{outcome}");
        killed += 1;
        let at = format!("kill {killed}, {:.0} ms into {:.0} ms", took.mul_f64(share).as_secs_f64() * 1e3, took.as_secs_f64() * 1e3);
        // Every fifth rerun is killed as well.
        if killed % 5 == 0 {
            let again = project.start(&["run", "pipeline.toml"]);
            std::thread::sleep(took.mul_f64(random.share()));
            drop(again);
        }
        let rerun = project.weir(&["run", "--json", "pipeline.toml"]);
        assert_eq!(rerun.code, 0, "{at}: {rerun}");
        published += usize::from(rerun.json()["rows_read"] == 0);
        assert_same(&see(&project), &expected, &at);
        if killed % 10 == 1
            && let (Some(events), Some(table)) = (referee_rows(&project), expected.tables.get("events"))
        {
            assert_eq!(events, table.len(), "{at}: the referee counts other rows");
        }
    }
    eprintln!("{killed} kills in {tries} tries; {published} reruns found the killed run published");
}

fn referee_rows(project: &Project) -> Option<usize> {
    let table = lake::tables(project.root()).into_iter().find(|table| table.ends_with("out/events")).expect("the table is there");
    referee::delta(&table).map(|rows| rows.len())
}

#[test]
fn kill_at_any_instant_then_rerun_equals_a_run_never_killed() {
    kill_and_rerun(INCREMENTAL, if long() { 400 } else { 50 }, 8_000);
}

#[test]
fn kill_while_replacing_and_snapshotting_then_rerun_equals_a_run_never_killed() {
    kill_and_rerun(WHOLE, if long() { 200 } else { 20 }, 8_000);
}

/// Starts a run over much input and waits until it stages; returns it while it still runs.
pub fn staging(project: &Project) -> crate::project::Running {
    let mut run = project.start(&["run", "pipeline.toml"]);
    let started = Instant::now();
    while lake::strays(&project.path(".weir/lake")).is_empty() {
        assert!(run.alive(), "the run ended before it staged anything: {}", run.wait(Duration::from_secs(1)));
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was staged within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    run
}

/// A project whose run takes a second or more.
pub fn much(rows: usize) -> Project {
    let project = Project::with(
        r#"
weir = 1
name = "much"
[source.rows.file]
path = "data/*.csv"
format = "csv"
[sink.lake]
from = "rows"
mode = "append"
[sink.lake.lake]
table = "out.rows"
"#,
    );
    let mut text = String::from("id,text\n");
    let mut random = Random(42);
    for id in 0..rows {
        writeln!(text, "{id},{:016x}{:016x}", (random.share() * 1e18) as u64, (random.share() * 1e18) as u64).unwrap();
    }
    project.write("data/rows.csv", text);
    project
}

fn interrupted(signal: &str) {
    let project = much(2_000_000);
    let run = staging(&project);
    run.signal(signal);
    let outcome: Outcome = run.wait(Duration::from_secs(20));
    assert_eq!(outcome.code, 130, "{outcome}");
    outcome.says(&["interrupted"]);
    assert_eq!(lake::strays(&project.path(".weir/lake")), Vec::<std::path::PathBuf>::new(), "staged files are left");
    assert!(lake::tables(&project.path(".weir/lake")).iter().all(|table| !table.ends_with("out/rows") || lake::commits(table).len() <= 1));
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], 2_000_000);
    assert_eq!(project.value("select count(*) from lake.out.rows"), "2000000");
}

#[test]
fn ctrl_c_stops_discards_what_is_staged_and_says_so() {
    interrupted("INT");
}

#[test]
fn sigterm_stops_discards_what_is_staged_and_says_so() {
    interrupted("TERM");
}

/// Compares every row with every other: minutes of work, on as many threads as there are, and no row is found.
const LONG_EXPECTATION: &str = r#"
[[expect]]
on = "rows"
name = "no two rows agree"
sql = "select a.id from rows as a cross join rows as b where concat(a.text, b.text) like '%never%'"
"#;

/// Starts a run and waits until it is at work on such an expectation; returns it while it still runs.
fn expecting(project: &Project) -> crate::project::Running {
    let mut run = project.start(&["run", "pipeline.toml"]);
    let started = Instant::now();
    let mut staged = None;
    loop {
        assert!(run.alive(), "the run ended before it was stopped: {}", run.wait(Duration::from_secs(1)));
        assert!(started.elapsed() < Duration::from_secs(120), "the run is not at its expectation after two minutes");
        let used = processor_time(&run);
        match staged {
            None if is_staged(project) => staged = Some(used),
            // Once everything is staged, nothing but the expectation takes a whole second of work.
            Some(before) if used - before > Duration::from_secs(1) => return run,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// True once the files of a load are whole: a Parquet file's last bytes are those it began with.
fn is_staged(project: &Project) -> bool {
    let files = lake::strays(&project.path(".weir/lake"));
    let whole = |path: &std::path::PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.len() > 8 && bytes.ends_with(b"PAR1"));
    !files.is_empty() && files.iter().all(whole)
}

/// What a process has used of the processors, on all its threads.
fn processor_time(run: &crate::project::Running) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", run.child.id())).unwrap();
    // The name of the program ends with the last bracket. Times are the 14th and 15th value, in hundredths of a second.
    let (_, values) = stat.rsplit_once(") ").unwrap();
    Duration::from_millis(values.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

fn interrupted_in_an_expectation(signal: &str) {
    let project = much(60_000);
    let plain = std::fs::read_to_string(project.path("pipeline.toml")).unwrap();
    project.write("pipeline.toml", format!("{plain}{LONG_EXPECTATION}"));
    let run = expecting(&project);
    run.signal(signal);
    let outcome: Outcome = run.wait(Duration::from_secs(20));
    assert_eq!(outcome.code, 130, "{outcome}");
    outcome.says(&["interrupted", "nothing was published"]);
    assert_eq!(lake::strays(&project.path(".weir/lake")), Vec::<std::path::PathBuf>::new(), "staged files are left");
    assert!(lake::tables(&project.path(".weir/lake")).iter().all(|table| !table.ends_with("out/rows") || lake::commits(table).len() <= 1));
    assert_eq!(project.value("select status from weir.runs"), "interrupted");
    assert_eq!(project.ok(&["doctor"]).stdout, "nothing is wrong\n");
    project.write("pipeline.toml", plain);
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 60_000);
    assert_eq!(project.value("select count(*) from lake.out.rows"), "60000");
}

#[test]
fn ctrl_c_stops_a_long_expectation_and_discards_what_is_staged() {
    interrupted_in_an_expectation("INT");
}

#[test]
fn sigterm_stops_a_long_expectation_and_discards_what_is_staged() {
    interrupted_in_an_expectation("TERM");
}
