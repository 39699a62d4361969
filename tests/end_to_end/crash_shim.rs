//! Kills at a chosen call instead of a random instant: every call of a run that makes something durable or visible, listed, and a run
//! that ends, or whose server ends, right before or after one of them. The calls are counted by `support/crash.c`, preloaded.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use regex::Regex;

use crate::project::{Outcome, Project, Running, long, repository};

/// A run ends within this, killed or not.
const DEADLINE: Duration = Duration::from_secs(120);

/// A call that made something durable or visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The first is 1.
    pub number: usize,
    /// `fsync`, `fdatasync`, `rename`, `link`, `unlink`, `ftruncate`, `pwrite`, `send`, `sendto`, `sendmsg`, `write`, `writev`.
    pub name: String,
    /// A path, or `host:port`.
    pub target: String,
}

impl Call {
    /// As `only` of [`calls`] and [`at`] sees it.
    pub fn line(&self) -> String {
        format!("\t{}\t{}", self.name, self.target)
    }

    /// The call without what differs from run to run: ids, random names, the project's folder.
    pub fn shape(&self) -> String {
        let folder = Regex::new(r"^/.*/weir-test-[^/]+").unwrap();
        let ids = Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-[0-9a-f]{8})?|datafusion-\w+").unwrap();
        format!("{} {}", self.name, ids.replace_all(&folder.replace(&self.target, ""), "<id>"))
    }
}

/// What a call is counted among. One run makes a call of the history's more or fewer than another, which must not shift the messages to a
/// server: between two of those lie the instants that matter.
pub fn kind(call: &Call) -> String {
    match call.target.rsplit_once(':') {
        Some((_, port)) if !call.target.starts_with('/') => format!(":{port}"),
        _ if call.target.contains("/.weir/lake/") => "/.weir/lake/".to_owned(),
        _ if call.target.contains("/.weir/quarantine/") => "/.weir/quarantine/".to_owned(),
        _ => format!("\t{}\t", call.name),
    }
}

/// When the kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// The shared object, compiled from `support/crash.c` where it is older than it.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let source = repository().join("tests/support/crash.c");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash.so");
    let modified = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    if modified(&built).is_none_or(|built| built <= modified(&source).expect("crash.c is part of the repository")) {
        // Tests are processes of their own and run at once: each builds its own, the last one stays.
        let own = built.with_extension(format!("{}.so", std::process::id()));
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&own).arg(&source).arg("-ldl").output().unwrap();
        assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
        std::fs::rename(own, &built).unwrap();
    }
    built
}

fn preloaded(mut command: Command, only: &str) -> Command {
    command.env("LD_PRELOAD", library());
    if !only.is_empty() {
        command.env("CRASH_ONLY", only);
    }
    command
}

/// Runs a command to its end and lists its calls. `only`: a part of `\tcall\ttarget` that they must hold, such as `\tlink\t` or
/// `:5432`; empty for all.
pub fn calls(command: Command, only: &str) -> (Outcome, Vec<Call>) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = preloaded(command, only);
    command.env("CRASH_LOG", log.path());
    let outcome = Running::start(command).wait(DEADLINE);
    let text = std::fs::read_to_string(log.path()).unwrap();
    let mut calls: Vec<Call> = text
        .lines()
        .map(|line| {
            let [number, name, target] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("no call: {line:?}") };
            Call { number: number.parse().unwrap(), name: name.to_owned(), target: target.to_owned() }
        })
        .collect();
    // Threads write their lines in the order they come to it.
    calls.sort_by_key(|call| call.number);
    (outcome, calls)
}

/// Runs a command that ends itself by SIGKILL at call `number` of those that `only` chooses (exit code 137), or comes to its end
/// without making it.
pub fn at(command: Command, only: &str, number: usize, when: When) -> Outcome {
    Running::start(aimed(command, only, number, when)).wait(DEADLINE)
}

/// Starts a command that sends SIGKILL to the process `pid`, a server's, at that call, and goes on: what it meets then is its own affair.
pub fn server_killed_at(command: Command, only: &str, number: usize, when: When, pid: u32) -> Running {
    let mut command = aimed(command, only, number, when);
    command.env("CRASH_PID", pid.to_string());
    Running::start(command)
}

/// Lets a command end itself by SIGKILL at that call, or with `stop` hold itself still there until a SIGCONT comes.
pub fn aim(command: Command, only: &str, number: usize, when: When, stop: bool) -> Command {
    let mut command = aimed(command, only, number, when);
    if stop {
        command.env("CRASH_STOP", "1");
    }
    command
}

fn aimed(command: Command, only: &str, number: usize, when: When) -> Command {
    let mut command = preloaded(command, only);
    command.env("CRASH_AT", number.to_string()).env("CRASH_ACT", if when == When::Before { "before" } else { "after" });
    command
}

/// Loads new files into a lake table.
pub const PIPELINE: &str = r#"
weir = 1
name = "events"
[source.events]
incremental = { files = "new" }
[source.events.file]
path = "data/*.csv"
format = "csv"
[sink.all]
from = "events"
mode = "append"
[sink.all.lake]
table = "out.events"
"#;

/// A project of a pipeline that reads `data/*.csv`, and one such file of 1000 rows.
pub fn project(pipeline: &str) -> Project {
    let project = Project::with(pipeline);
    let rows: String = (0..1000).map(|id| format!("{id},name {id}\n")).collect();
    project.write("data/events.csv", format!("id,name\n{rows}"));
    project
}

#[test]
fn a_run_makes_the_same_calls_every_time() {
    let shapes = |project: Project| {
        let (outcome, calls) = calls(project.command(&["run", "pipeline.toml"]), "");
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(calls.iter().map(|call| call.number).collect::<Vec<_>>(), (1..=calls.len()).collect::<Vec<_>>());
        // The state is SQLite's: its calls come as its connections open and part, in threads of their own.
        calls.iter().map(Call::shape).filter(|shape| !shape.contains("/state.db") && !shape.ends_with("/.weir")).collect::<Vec<_>>()
    };
    let (first, second) = (shapes(project(PIPELINE)), shapes(project(PIPELINE)));
    assert_eq!(first, second);
    let commit = "link /.weir/lake/out/events/_delta_log/00000000000000000000.json";
    assert_eq!(first.iter().filter(|shape| *shape == commit).count(), 1, "{first:#?}");
    assert!(first.iter().any(|shape| shape.starts_with("fsync /.weir/lake/out/events/part-")), "{first:#?}");
}

#[test]
fn the_shim_leaves_other_programs_alone() {
    let project = Project::new();
    let (outcome, calls) = calls(project.program("sh", &["-c", "echo text > one && mv one two && sync two && rm two"]), "");
    assert_eq!((outcome.code, calls), (0, Vec::new()), "{outcome}");
}

#[test]
fn a_kill_right_before_the_commit_loads_nothing_right_after_it_everything_and_a_rerun_makes_both_one() {
    for when in [When::Before, When::After] {
        let project = project(PIPELINE);
        let outcome = at(project.command(&["run", "pipeline.toml"]), "\tlink\t", 1, when);
        assert_eq!(outcome.code, 137, "{outcome}");
        let committed = project.path(".weir/lake/out/events/_delta_log/00000000000000000000.json").exists();
        assert_eq!(committed, when == When::After);
        project.run(&["pipeline.toml"]);
        assert_eq!(project.value("select count(*) from lake.out.events"), "1000", "{when:?}");
    }
}

#[test]
fn a_kill_at_every_call_of_a_run_then_a_rerun_loads_every_row_once() {
    let (outcome, calls) = calls(project(PIPELINE).command(&["run", "pipeline.toml"]), "");
    assert_eq!(outcome.code, 0, "{outcome}");
    let (mut killed, mut tried) = (0, 0);
    for call in &calls {
        // A log of SQLite is written in many pieces that mean something together, at the fsync.
        if call.name == "pwrite" && !long() {
            continue;
        }
        let project = project(PIPELINE);
        tried += 1;
        let outcome = at(project.command(&["run", "pipeline.toml"]), "", call.number, When::Before);
        assert!(matches!(outcome.code, 0 | 137), "{call:?}: {outcome}");
        killed += usize::from(outcome.code == 137);
        let rerun = project.weir(&["run", "pipeline.toml"]);
        assert_eq!(rerun.code, 0, "{call:?}: {rerun}");
        assert_eq!(
            project.sql("select count(*) as rows, count(distinct id) as ids from lake.out.events"),
            ["rows,ids", "1000,1000"],
            "{call:?}"
        );
    }
    // The last few may not be made in every run.
    assert!(killed + 5 >= tried && killed > 15, "{killed} of {tried} runs were killed");
    eprintln!("{killed} kills at {} calls", calls.len());
}

#[test]
fn a_server_is_killed_in_the_middle_of_a_run_that_goes_on() {
    // Any process stands for the server here; real ones are killed by the tests of their sinks.
    let mut server = Command::new("sleep").arg("60").spawn().unwrap();
    let project = project(PIPELINE);
    let run = server_killed_at(project.command(&["run", "pipeline.toml"]), "\tlink\t", 1, When::Before, server.id());
    let outcome = run.wait(DEADLINE);
    assert_eq!(outcome.code, 0, "{outcome}");
    let ended = server.try_wait().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(ended.is_some(), "the server still runs");
    assert_eq!(project.value("select count(*) from lake.out.events"), "1000");
}
