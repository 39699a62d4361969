//! A project in a temporary folder, and the command run inside it with nothing of the machine's environment.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// The command under test, just compiled.
pub const WEIR: &str = env!("CARGO_BIN_EXE_weir-under-test");

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").to_owned()
}

/// True under `./test --all`.
pub fn long() -> bool {
    std::env::var_os("WEIR_TEST_LONG").is_some()
}

/// A project in a temporary folder, removed at the end of its test.
pub struct Project {
    folder: TempDir,
}

/// What a command left: exit code (128 + signal where one ended it), standard output and standard error.
#[derive(Debug)]
pub struct Outcome {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A command that runs.
pub struct Running {
    pub child: Child,
    command: String,
    stdout: File,
    stderr: File,
}

impl Project {
    /// An empty project: a folder with an empty `weir.toml`.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().unwrap();
        fs::write(folder.path().join("weir.toml"), "").unwrap();
        Self { folder }
    }

    /// A project with one pipeline in its root.
    pub fn with(pipeline: &str) -> Self {
        let project = Self::new();
        project.write("pipeline.toml", pipeline);
        project
    }

    /// A copy of a folder.
    pub fn copy_of(folder: &Path) -> Self {
        let project = Self::new();
        copy(folder, project.root());
        project
    }

    /// Where it stands.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A path inside it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    /// Writes a file, making its folders.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The command with an environment of its own: nothing a machine has set can change a test.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.program(WEIR, arguments)
    }

    /// The same, started by another program: `sh -c '… exec "$@"' sh`.
    pub fn wrapped(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let (program, rest) = wrapper.split_first().expect("a program to start it");
        let all: Vec<&str> = rest.iter().copied().chain([WEIR]).chain(arguments.iter().copied()).collect();
        self.program(program, &all)
    }

    /// Any program in the project's folder, with the command's environment.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.root()).env("TZ", "UTC").env("LANG", "C.UTF-8").env("NO_COLOR", "1");
        command
    }

    /// Runs the command to its end.
    pub fn weir(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).wait(Duration::from_secs(300))
    }

    /// Runs the command, which must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.weir(arguments);
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome
    }

    /// Starts the command.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Runs a pipeline, which must succeed with books that balance, and returns its summary.
    pub fn run(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        let summary = self.ok(&all).json();
        balanced(&summary);
        summary
    }

    /// Rows of a query as CSV: the header, then the rows in the order of their text.
    pub fn sql(&self, query: &str) -> Vec<String> {
        sorted_rows(&self.ok(&["sql", "--format", "csv", "-c", query]).stdout)
    }

    /// The one value of a query that returns one.
    pub fn value(&self, query: &str) -> String {
        let rows = self.sql(query);
        assert_eq!(rows.len(), 2, "{query}: {rows:?}");
        rows[1].clone()
    }
}

impl Running {
    /// Starts a prepared command, its output going to files: no pipe fills up and blocks it.
    pub fn start(command: Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        Self::with_output(command, stdout, stderr)
    }

    /// The same, with the files that its output goes to.
    pub fn with_output(mut command: Command, stdout: File, stderr: File) -> Self {
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let mut words = vec![Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
        let child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        Self { child, command: words.join(" "), stdout, stderr }
    }

    /// Waits for its end; one that passes the deadline is killed and fails the test.
    pub fn wait(mut self, deadline: Duration) -> Outcome {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > deadline {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("`{}` did not end within {deadline:?}\n{}", self.command, text(&mut self.stderr));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Outcome { command: std::mem::take(&mut self.command), code, stdout: text(&mut self.stdout), stderr: text(&mut self.stderr) }
    }

    /// True while it runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal: `STOP`, `CONT`, `INT`, `TERM`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(sent.success(), "kill -{name} `{}`", self.command);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails halfway leaves no process behind. One that has ended already refuses, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("standard output is not JSON: {error}\n{self}"))
    }

    /// Checks that the error says these things, on one screen, and does not look like a bug of ours.
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.to_lowercase().contains(&word.to_lowercase()), "standard error does not say \"{word}\"\n{self}");
        }
        self.one_screen()
    }

    /// Checks that what it said fits a screen of 40 lines, and that it did not panic or print a debug form.
    pub fn one_screen(&self) -> &Self {
        let lines = self.stderr.lines().count();
        let longest = self.stderr.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        // A screen for one mistake; a file with many has a few lines for each.
        let mistakes = self.stderr.lines().filter(|line| line.starts_with("error[") || line.starts_with("warning[")).count();
        assert!(
            lines <= 40.max(10 * mistakes) && longest <= 1000,
            "not one screen: {lines} lines, the longest of {longest} characters\n{self}"
        );
        for word in ["panicked at", "RUST_BACKTRACE", "ArrowError", "DataFusionError", "Internal error", "NotFound {", "Os {"] {
            assert!(!self.stderr.contains(word), "standard error leaks \"{word}\"\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shortened = |text: &str| text.chars().take(6000).collect::<String>();
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.command,
            self.code,
            shortened(&self.stdout),
            shortened(&self.stderr)
        )
    }
}

/// Checks the books of a summary by the design's own words, not by the engine's code.
pub fn balanced(summary: &Value) {
    let count = |account: &Value, key: &str| account[key].as_u64().unwrap_or_else(|| panic!("\"{key}\" is no count in {account}"));
    let steps = summary["books"]["steps"].as_array().unwrap_or_else(|| panic!("no books in {summary}"));
    for step in steps.iter().filter(|step| step["conserves"] == true) {
        let ends = ["rows_out", "rows_quarantined", "rows_dropped", "rows_filtered", "rows_deduplicated", "rows_mended"];
        let accounted: u64 = ends.iter().map(|key| count(step, key)).sum();
        assert_eq!(count(step, "rows_in"), accounted, "the books of {step} do not balance");
    }
    for sink in summary["books"]["sinks"].as_array().unwrap_or_else(|| panic!("no sinks in {summary}")) {
        assert_eq!(count(sink, "rows_in"), count(sink, "rows_loaded"), "the books of {sink} do not balance");
        let from = steps.iter().find(|step| step["step"] == sink["from"]).unwrap_or_else(|| panic!("{sink} reads an unknown step"));
        assert_eq!(count(from, "rows_out"), count(sink, "rows_in"), "{sink} was not given all rows of its step");
    }
    let read: u64 = steps.iter().filter(|step| step["role"] == "source").map(|step| count(step, "rows_in")).sum();
    assert_eq!(count(summary, "rows_read"), read, "the totals of {summary} are not the sums of its parts");
}

/// The header, then the other lines in the order of their text. Blank lines are left out.
pub fn sorted_rows(csv: &str) -> Vec<String> {
    let mut lines: Vec<String> = csv.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if let Some(rows) = lines.get_mut(1..) {
        rows.sort();
    }
    lines
}

/// Copies a folder and what is in it, leaving out what runs make.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != ".weir" && entry.file_name() != "expected" {
                copy(&entry.path(), &target);
            }
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
