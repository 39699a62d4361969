//! One pipeline that loads the lake, Postgres and ClickHouse, disturbed in every way: the process killed at every call that makes something durable or
//! visible, either server killed at every message to it, all of them killed at random instants. After a rerun the three hold, row for row, what a pipeline
//! that nobody disturbed loads, and readers who look all the time never see part of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    ops::Range,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    crash::Random,
    crash_shim::{self, Call, When},
    project::{Project, long, repository},
    referee,
    servers::{Database, Kind, Private},
};

const PIPELINE: &str = r#"
weir = 1
name = "events"

[source.events]
incremental = { files = "new" }
[source.events.file]
path = "data/*.csv"
format = "csv"

[transform.latest]
from = "events"
deduplicate = { key = ["id"], keep = "last", order_by = ["version"] }

[sink.lake_all]
from = "events"
[sink.lake_all.lake]
table = "out.all"

[sink.lake_latest]
from = "latest"
mode = "merge"
key = ["id"]
[sink.lake_latest.lake]
table = "out.latest"

[sink.clickhouse_all]
from = "events"
[sink.clickhouse_all.clickhouse]
connection = "olap"
table = "all"
order_by = ["id"]

[sink.clickhouse_latest]
from = "latest"
mode = "merge"
key = ["id"]
[sink.clickhouse_latest.clickhouse]
connection = "olap"
table = "latest"

[sink.postgres_all]
from = "events"
[sink.postgres_all.postgres]
connection = "warehouse"
table = "out.all"

[sink.postgres_latest]
from = "latest"
mode = "merge"
key = ["id"]
[sink.postgres_latest.postgres]
connection = "warehouse"
table = "out.latest"
"#;

/// Rows of one file.
const ROWS: usize = 240;
/// A run ends within this, whatever was done to it.
const DEADLINE: Duration = Duration::from_secs(120);

/// File number `version`: half of its ids occur in the file before it.
fn file(version: usize) -> Vec<(usize, usize, String)> {
    (0..ROWS).map(|row| (version * ROWS / 2 + row, version, format!("name {} of {version}", row * 31 % 1009))).collect()
}

/// What the tables hold once these files are loaded: `id,version,name`, sorted as text.
fn expected(files: Range<usize>) -> [(&'static str, Vec<String>); 2] {
    let mut all = Vec::new();
    let mut latest = BTreeMap::new();
    for (id, version, name) in files.flat_map(file) {
        all.push(format!("{id},{version},{name}"));
        latest.insert(id, (version, name));
    }
    let mut latest: Vec<String> = latest.into_iter().map(|(id, (version, name))| format!("{id},{version},{name}")).collect();
    all.sort();
    latest.sort();
    [("all", all), ("latest", latest)]
}

/// What a reader who counts rows by version sees then.
fn counts(rows: &[String]) -> String {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.split(',').nth(1).expect("a version").parse().expect("a number")).or_default() += 1;
    }
    counts.iter().map(|(version, count)| format!("{version}:{count}")).collect::<Vec<_>>().join(" ")
}

/// Readers of all six tables, none of them Weir's, who look without pause.
struct Watcher {
    child: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(project: &Project, postgres: &Database, clickhouse: &Database, clickhouse_url: &str) -> Option<Self> {
        let lake = project.path(".weir/lake/out");
        let mut child = Command::new(referee::python()?)
            .arg(repository().join("tests/support/watcher.py"))
            .arg(lake)
            .args([&postgres.url(), clickhouse_url, &clickhouse.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, mut said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self { child, ask, said })
    }

    fn answer(&mut self, question: &str) -> BTreeMap<String, Vec<String>> {
        writeln!(self.ask, "{question}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the watcher said {line:?}: {error}"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is done to a run.
#[derive(Debug, Clone)]
enum Harm {
    /// Nothing.
    None,
    /// The process is killed right before or after the call of this number among those of a kind.
    Call(String, usize, When),
    /// A server is killed right before this message to it.
    Message(Kind, usize),
    /// The process is killed after this share of a run's usual time.
    Instant(f64),
    /// A server is.
    ServerInstant(Kind, f64),
}

/// A pipeline that gains a file and makes a run again and again.
struct Chain {
    private: Private,
    postgres: Database,
    clickhouse: Database,
    project: Project,
    watcher: Watcher,
    /// The first file whose rows the tables hold.
    first: usize,
    /// How many files there are.
    files: usize,
    took: Duration,
}

impl Chain {
    fn start() -> Option<Self> {
        let private = Private::start()?;
        let (postgres, clickhouse) = (private.fresh_database(Kind::Postgres)?, private.fresh_database(Kind::Clickhouse)?);
        let project = Project::with(PIPELINE);
        project.write("weir.toml", format!("{}\n{}", postgres.connection("warehouse"), clickhouse.connection("olap")));
        let watcher = Watcher::start(&project, &postgres, &clickhouse, &private.url(Kind::Clickhouse))?;
        let mut chain = Self { private, postgres, clickhouse, project, watcher, first: 0, files: 0, took: Duration::ZERO };
        // The first run makes the tables; the later ones find them.
        for _ in 0..3 {
            chain.round(Harm::None);
        }
        Some(chain)
    }

    fn command(&self) -> Command {
        self.project.command(&["run", "pipeline.toml"])
    }

    fn port(&self, kind: Kind) -> String {
        let url = self.private.url(kind);
        let (_, port) = url.rsplit_once(':').expect("a URL has a port");
        format!(":{}", port.split('/').next().unwrap_or_default())
    }

    fn write_file(&mut self) {
        let mut text = String::from("id,version,name\n");
        for (id, version, name) in file(self.files) {
            writeln!(text, "{id},{version},{name}").unwrap();
        }
        self.project.write(&format!("data/{:04}.csv", self.files), text);
        self.files += 1;
    }

    /// The calls of a run that nobody disturbs.
    fn calls(&mut self, only: &str) -> Vec<Call> {
        self.write_file();
        let (outcome, calls) = crash_shim::calls(self.command(), only);
        assert_eq!(outcome.code, 0, "{outcome}");
        // Reads that had begun are over once the next ones answer; what they saw is of no interest.
        self.watcher.answer("rows");
        self.watcher.answer("seen");
        calls
    }

    /// Drops all six tables: the next run makes them anew.
    fn forget(&mut self) {
        self.watcher.answer("seen");
        self.postgres.execute(&[r#"drop table if exists "out"."all", "out"."latest""#]);
        self.clickhouse.execute(&["drop table if exists `all` sync", "drop table if exists latest sync"]);
        std::fs::remove_dir_all(self.project.path(".weir/lake/out")).unwrap();
        // Reads that had begun are over once the next ones answer.
        self.watcher.answer("rows");
        self.watcher.answer("seen");
        self.first = self.files;
    }

    /// Another file, a run that is harmed, a rerun; then everything is compared. Says whether the harm was done.
    fn round(&mut self, harm: Harm) -> bool {
        let before = expected(self.first..self.files);
        self.write_file();
        let after = expected(self.first..self.files);
        let at = format!("file {}, {harm:?}", self.files - 1);
        let done = self.harmed_run(harm, &at);
        self.private.up();
        let rerun = self.project.weir(&["run", "--json", "pipeline.toml"]);
        assert_eq!(rerun.code, 0, "{at}: {rerun}");

        let rows = self.watcher.answer("rows");
        for (table, expected) in &after {
            for place in ["lake", "postgres", "clickhouse"] {
                same(&rows[&format!("{place}.{table}")], expected, &format!("{at}: {place}.{table}"));
            }
        }
        for (name, seen) in self.watcher.answer("seen") {
            let table = name.rsplit('.').next().unwrap_or_default();
            let whole: BTreeSet<String> = [&before, &after]
                .iter()
                .flat_map(|state| state.iter().filter(|(of, _)| *of == table))
                .map(|(_, rows)| if rows.is_empty() { "none".to_owned() } else { counts(rows) })
                .collect();
            let partial: Vec<&String> = seen.iter().filter(|seen| !whole.contains(*seen)).collect();
            assert!(partial.is_empty(), "{at}: a reader of {name} saw {partial:?}; whole runs are {whole:?}");
        }
        done
    }

    fn harmed_run(&mut self, harm: Harm, at: &str) -> bool {
        match harm {
            Harm::None => {
                let started = Instant::now();
                let outcome = self.project.weir(&["run", "pipeline.toml"]);
                assert_eq!(outcome.code, 0, "{at}: {outcome}");
                self.took = started.elapsed();
                true
            }
            Harm::Call(kind, number, when) => {
                let outcome = crash_shim::at(self.command(), &kind, number, when);
                assert!(matches!(outcome.code, 0 | 137), "{at}: {outcome}");
                outcome.code == 137
            }
            Harm::Instant(share) => {
                let mut run = self.project.start(&["run", "pipeline.toml"]);
                std::thread::sleep(self.took.mul_f64(share));
                let alive = run.alive();
                if alive {
                    run.signal("KILL");
                }
                let outcome = run.wait(DEADLINE);
                assert!(matches!(outcome.code, 0 | 137), "{at}: {outcome}");
                alive && outcome.code == 137
            }
            Harm::Message(kind, number) => {
                let pid = self.private.pid(kind);
                let mut run = crash_shim::server_killed_at(self.command(), &self.port(kind), number, When::Before, pid);
                let mut done = false;
                // Whoever looks after the server starts it again while the run is still at it, or after it has given up.
                while run.alive() {
                    if !done && !self.private.alive(kind) {
                        done = true;
                        self.private.up();
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                self.ended(run.wait(DEADLINE), at);
                done || !self.private.alive(kind)
            }
            Harm::ServerInstant(kind, share) => {
                let run = self.project.start(&["run", "pipeline.toml"]);
                std::thread::sleep(self.took.mul_f64(share));
                self.private.kill(kind);
                self.private.up();
                self.ended(run.wait(DEADLINE), at);
                true
            }
        }
    }

    /// A run that has lost a server succeeds at a later try, or says that a system outside failed.
    fn ended(&self, outcome: crate::project::Outcome, at: &str) {
        assert!(matches!(outcome.code, 0 | 3), "{at}: {outcome}");
        assert!(!outcome.stderr.contains(self.postgres.password()), "{at}: a password is shown: {outcome}");
    }

    /// Nothing of any run is left lying about, and a pipeline that nobody disturbed has loaded the same.
    fn end(mut self) {
        let staged = self.postgres.value("select count(*) from pg_class where relname like 'weir_stage%'");
        assert_eq!(staged, "0", "staged tables are left in Postgres");
        let staged = format!("select count() from system.tables where database = '{}' and name like '%__weir_%'", self.clickhouse.name);
        assert_eq!(self.clickhouse.value(&staged), "0", "staged tables are left in ClickHouse");
        let doctor = self.project.weir(&["doctor"]);
        assert_eq!(doctor.code, 0, "{doctor}");

        let rows = self.watcher.answer("rows");
        drop(self.watcher);
        let (postgres, clickhouse) = (self.private.fresh_database(Kind::Postgres), self.private.fresh_database(Kind::Clickhouse));
        let (Some(postgres), Some(clickhouse)) = (postgres, clickhouse) else { panic!("the referee is gone") };
        let project = Project::with(PIPELINE);
        project.write("weir.toml", format!("{}\n{}", postgres.connection("warehouse"), clickhouse.connection("olap")));
        for number in self.first..self.files {
            let name = format!("data/{number:04}.csv");
            project.write(&name, std::fs::read(self.project.path(&name)).unwrap());
            project.run(&["pipeline.toml"]);
        }
        let mut watcher =
            Watcher::start(&project, &postgres, &clickhouse, &self.private.url(Kind::Clickhouse)).expect("the referee is there");
        let undisturbed = watcher.answer("rows");
        for (name, expected) in &undisturbed {
            same(&rows[name], expected, &format!("{name} of a pipeline that nobody disturbed"));
        }
    }
}

fn same(found: &[String], expected: &[String], at: &str) {
    let (have, want): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), expected.iter().collect());
    let missing: Vec<_> = want.difference(&have).take(5).collect();
    let extra: Vec<_> = have.difference(&want).take(5).collect();
    assert!(
        found.len() == expected.len() && missing.is_empty() && extra.is_empty(),
        "{at}: {} rows in place of {}; missing {missing:?}, too many {extra:?}",
        found.len(),
        expected.len()
    );
}

/// Every `step`-th number up to `last`, beginning somewhere: over many runs of the tests, all of them. All of them at once under `./test --all`.
/// In no order, so that what is broken shows early wherever it is.
fn some(last: usize, share: usize, random: &mut Random) -> Vec<usize> {
    let step = if long() { 1 } else { last.div_ceil(share).max(1) };
    let begin = 1 + (random.share() * step as f64) as usize;
    let mut chosen: Vec<usize> = (begin..=last).step_by(step).collect();
    for at in (1..chosen.len()).rev() {
        chosen.swap(at, (random.share() * (at + 1) as f64) as usize);
    }
    chosen
}

#[test]
fn a_kill_at_any_call_then_a_rerun_leaves_three_destinations_as_if_it_had_not_been() {
    let Some(mut chain) = Chain::start() else { return };
    let mut random = Random::seeded();
    let calls = chain.calls("");
    // A log of SQLite is written in many pieces that mean something together, at the fsync.
    let points: Vec<(String, usize)> = (0..calls.len())
        .filter(|at| calls[*at].name != "pwrite")
        .map(|at| {
            let kind = crash_shim::kind(&calls[at]);
            let number = calls[..=at].iter().filter(|call| call.line().contains(&kind)).count();
            (kind, number)
        })
        .collect();
    assert!(points.len() > 60, "{points:?}");
    let mut killed = 0;
    let chosen = some(points.len(), 20, &mut random);
    for (at, point) in chosen.iter().enumerate() {
        let when = if at % 2 == 0 { When::Before } else { When::After };
        if at % 3 == 2 {
            chain.forget();
        }
        let (kind, number) = points[point - 1].clone();
        killed += usize::from(chain.round(Harm::Call(kind, number, when)));
    }
    assert!(killed * 10 >= chosen.len() * 8, "only {killed} of {} runs were killed", chosen.len());
    eprintln!("{killed} kills at {} of {} calls", chosen.len(), points.len());
    chain.end();
}

fn server_killed(kind: Kind) {
    let Some(mut chain) = Chain::start() else { return };
    let mut random = Random::seeded();
    let port = chain.port(kind);
    let calls = chain.calls(&port);
    assert!(calls.len() > 10, "{calls:?}");
    let chosen = some(calls.len(), 4, &mut random);
    let killed = chosen.iter().filter(|number| chain.round(Harm::Message(kind, **number))).count();
    assert!(killed * 10 >= chosen.len() * 7, "only {killed} of {} servers were killed", chosen.len());
    eprintln!("{killed} kills at {} of {} messages to {}", chosen.len(), calls.len(), kind.name());
    chain.end();
}

#[test]
fn postgres_killed_at_any_message_leaves_three_destinations_as_if_it_had_not_been() {
    server_killed(Kind::Postgres);
}

#[test]
fn clickhouse_killed_at_any_message_leaves_three_destinations_as_if_it_had_not_been() {
    server_killed(Kind::Clickhouse);
}

#[test]
fn kills_of_anything_at_random_instants_leave_three_destinations_as_if_they_had_not_been() {
    let Some(mut chain) = Chain::start() else { return };
    let mut random = Random::seeded();
    let (kills, mut killed) = (if long() { 200 } else { 10 }, 0);
    for number in 0..kills {
        // Every other one aims at the last third, where staging ends and publishing happens.
        let share = if number % 2 == 0 { 0.6 + 0.4 * random.share() } else { random.share() };
        killed += usize::from(chain.round(match number % 5 {
            3 => Harm::ServerInstant(Kind::Postgres, share),
            4 => Harm::ServerInstant(Kind::Clickhouse, share),
            _ => Harm::Instant(share),
        }));
    }
    assert!(killed * 2 >= kills, "only {killed} of {kills} were killed in time: the instants are wrong");
    eprintln!("{killed} kills of {kills}");
    chain.end();
}
