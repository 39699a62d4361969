//! Other people's readers as referees: Delta tables through the `deltalake` Python package, files through `pyarrow` and DuckDB.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::project::{repository, sorted_rows};

/// The Python that `./test` set up, or none: then a test says so and passes at home, and fails in CI.
pub fn python() -> Option<PathBuf> {
    let path = std::env::var_os("WEIR_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").unwrap_or_default();
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
        cache.join("weir/venv/bin/python")
    });
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing: ./test installs it", path.display());
    eprintln!("left out: no referee at {}; ./test installs it", path.display());
    None
}

fn script(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(repository().join("tests/support/referee.py")).args(arguments);
    command
}

fn read(arguments: &[&str]) -> Option<Vec<String>> {
    let output = script(&python()?, arguments).output().unwrap();
    assert!(output.status.success(), "referee {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(sorted_rows(&String::from_utf8(output.stdout).unwrap()))
}

/// The rows of a Delta table as CSV, header first, sorted; none without the referee.
pub fn delta(table: &Path) -> Option<Vec<String>> {
    read(&["delta", table.to_str().unwrap()])
}

/// The rows of a Parquet, CSV, NDJSON or Arrow IPC file, or of all such files in a folder, as CSV.
pub fn file(format: &str, path: &Path) -> Option<Vec<String>> {
    read(&["file", format, path.to_str().unwrap()])
}

/// Another writer of a Delta table, loaded and waiting: it appends one row when told to.
pub struct OtherWriter {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl OtherWriter {
    /// Starts it; returns when it is ready to commit at once. `row`: column=value pairs in the table's own types.
    pub fn ready(table: &Path, row: &str) -> Option<Self> {
        let mut child =
            script(&python()?, &["append", table.to_str().unwrap(), row]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self { child, said })
    }

    /// Commits and returns the table's version.
    pub fn commit(mut self) -> u64 {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        line.trim().parse().unwrap_or_else(|_| panic!("the other writer said {line:?}"))
    }
}
