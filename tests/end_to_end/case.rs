//! Runs one folder of `tests/cases/`: a project, and `case.toml`, the steps that are made in a copy of it. How to write one: tests/README.md.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    lake,
    project::{Outcome, Project, balanced, repository, sorted_rows},
    referee,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The fact that the case shows, as a sentence.
    about: String,
    /// True: no `weir.toml` is written where the folder has none.
    #[serde(default)]
    bare: bool,
    step: Vec<Step>,
}

/// One step: exactly one of the verbs, and what is expected of it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Step {
    // Verbs.
    /// Runs the command with these arguments.
    weir: Option<Vec<String>>,
    /// Asks `weir sql`; expects `rows`.
    sql: Option<String>,
    /// Reads a lake table by `weir sql` and by the referee; expects `rows` of both.
    lake: Option<String>,
    /// Reads an output file or folder by the referee, as `format`; expects `rows`.
    output: Option<String>,
    /// Compares a file's text with `text`.
    file: Option<String>,
    /// Says that nothing stands there.
    absent: Option<String>,
    /// Copies a file: from, to.
    copy: Option<[String; 2]>,
    /// Deletes a file or a folder.
    delete: Option<String>,
    /// Adds `text` to a file.
    append: Option<String>,
    /// Writes a file with `text`.
    write: Option<String>,

    // What is expected.
    /// Exit code. Default 0.
    #[serde(default)]
    exit: i32,
    /// Standard error says all of these (letter case aside), on one screen.
    #[serde(default)]
    says: Vec<String>,
    /// Standard error says none of these.
    #[serde(default)]
    says_not: Vec<String>,
    /// Standard output holds all of these.
    #[serde(default)]
    answers: Vec<String>,
    /// Values of the JSON on standard output, by dotted path.
    #[serde(default)]
    json: toml::Table,
    /// File with the expected standard output, filtered.
    stdout: Option<PathBuf>,
    /// File with the expected standard error, filtered.
    stderr: Option<PathBuf>,
    /// Rows as CSV, header first, in any order; or the name of a `.csv` file that holds them.
    rows: Option<String>,
    /// Text for `append`, `write` and `file`.
    text: Option<String>,
    /// Format for `output`: parquet, csv, ndjson, arrow.
    format: Option<String>,
}

/// Runs `tests/cases/NAME`.
pub fn run(name: &str) {
    let folder = repository().join("tests/cases").join(name);
    let case: Case =
        toml::from_str(&fs::read_to_string(folder.join("case.toml")).unwrap()).unwrap_or_else(|error| panic!("{name}/case.toml: {error}"));
    assert!(!case.about.is_empty(), "{name}/case.toml says nothing about the case");
    let project = Project::copy_of(&folder);
    if case.bare && !folder.join("weir.toml").exists() {
        fs::remove_file(project.path("weir.toml")).unwrap();
    }
    for (index, step) in case.step.iter().enumerate() {
        perform(&project, &folder, step, &format!("{name}, step {}", index + 1));
    }
    for place in ["lake", ".weir/lake"] {
        assert_eq!(lake::strays(&project.path(place)), Vec::<PathBuf>::new(), "{name}: staged files are left in the lake");
    }
}

fn perform(project: &Project, folder: &Path, step: &Step, at: &str) {
    let text = || step.text.as_deref().unwrap_or_else(|| panic!("{at}: the step needs \"text\""));
    let mut verbs = 0;
    if let Some(arguments) = &step.weir {
        verbs += 1;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        expect_outcome(project, folder, step, &project.weir(&arguments), at);
    }
    if let Some(query) = &step.sql {
        verbs += 1;
        expect_rows(folder, step, &project.sql(query), at);
    }
    if let Some(table) = &step.lake {
        verbs += 1;
        expect_rows(folder, step, &project.sql(&format!("select * from lake.{table}")), at);
        let root = if project.path("lake").exists() { "lake" } else { ".weir/lake" };
        if let Some(rows) = referee::delta(&project.path(root).join(table.replace('.', "/"))) {
            expect_rows(folder, step, &rows, &format!("{at}, by the referee"));
        }
    }
    if let Some(path) = &step.output {
        verbs += 1;
        let format = step.format.as_deref().unwrap_or_else(|| panic!("{at}: the step needs \"format\""));
        assert!(project.path(path).exists(), "{at}: nothing at {path}");
        if let Some(rows) = referee::file(format, &project.path(path)) {
            expect_rows(folder, step, &rows, at);
        }
    }
    if let Some(path) = &step.file {
        verbs += 1;
        let found = fs::read_to_string(project.path(path)).unwrap_or_else(|error| panic!("{at}: {path}: {error}"));
        assert_eq!(found, text(), "{at}: {path}");
    }
    if let Some(path) = &step.absent {
        verbs += 1;
        assert!(!project.path(path).exists(), "{at}: {path} is there");
    }
    if let Some([from, to]) = &step.copy {
        verbs += 1;
        project.write(to, fs::read(project.path(from)).unwrap_or_else(|error| panic!("{at}: {from}: {error}")));
    }
    if let Some(path) = &step.delete {
        verbs += 1;
        let path = project.path(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    if let Some(path) = &step.append {
        verbs += 1;
        let mut content = fs::read(project.path(path)).unwrap_or_else(|error| panic!("{at}: {path}: {error}"));
        content.extend(text().bytes());
        project.write(path, content);
    }
    if let Some(path) = &step.write {
        verbs += 1;
        project.write(path, text());
    }
    assert_eq!(verbs, 1, "{at}: a step has exactly one verb");
}

fn expect_outcome(project: &Project, folder: &Path, step: &Step, outcome: &Outcome, at: &str) {
    assert_eq!(outcome.code, step.exit, "{at}: {outcome}");
    if outcome.code != 0 {
        assert!(!outcome.stderr.trim().is_empty(), "{at}: it failed without a word\n{outcome}");
        outcome.one_screen();
    }
    outcome.says(&step.says.iter().map(String::as_str).collect::<Vec<_>>());
    for words in &step.says_not {
        assert!(!outcome.stderr.to_lowercase().contains(&words.to_lowercase()), "{at}: standard error says \"{words}\"\n{outcome}");
    }
    for words in &step.answers {
        assert!(outcome.stdout.contains(words), "{at}: standard output does not hold \"{words}\"\n{outcome}");
    }
    let arguments = step.weir.iter().flatten().map(String::as_str).collect::<Vec<_>>();
    if outcome.code == 0 && arguments.contains(&"run") && arguments.contains(&"--json") {
        balanced(&outcome.json());
    }
    if !step.json.is_empty() {
        let found = outcome.json();
        for (path, expected) in &step.json {
            let value = path.split('.').fold(&found, |value, part| match part.parse::<usize>() {
                Ok(index) if value.is_array() => &value[index],
                _ => &value[part],
            });
            let expected: Value = serde_json::to_value(expected).unwrap();
            assert_eq!(*value, expected, "{at}: \"{path}\" of\n{outcome}");
        }
    }
    for (expected, found) in [(&step.stdout, &outcome.stdout), (&step.stderr, &outcome.stderr)] {
        if let Some(path) = expected {
            golden(&folder.join(path), &filtered(found, project.root()), at);
        }
    }
}

fn expect_rows(folder: &Path, step: &Step, found: &[String], at: &str) {
    let expected = step.rows.as_deref().unwrap_or_else(|| panic!("{at}: the step needs \"rows\""));
    if expected.ends_with(".csv") && !expected.contains('\n') {
        return golden(&folder.join(expected), &(found.join("\n") + "\n"), at);
    }
    assert_eq!(found, sorted_rows(expected), "{at}");
}

/// Compares with a file of the case; `WEIR_ACCEPT=1` writes it instead.
fn golden(path: &Path, found: &str, at: &str) {
    if std::env::var_os("WEIR_ACCEPT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_else(|error| panic!("{at}: {}: {error}; WEIR_ACCEPT=1 writes it", path.display()));
    assert!(
        expected == found,
        "{at}: other than {} (WEIR_ACCEPT=1 takes it over)\n--- expected\n{expected}\n--- found\n{found}",
        path.display()
    );
}

/// Takes out what differs from run to run: run ids, times, durations, rates, the temporary folder.
fn filtered(text: &str, root: &Path) -> String {
    static FILTERS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<run>"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?( UTC)?", "<time>"),
            (r"[\d,.]+ ?[kKMG]? ?rows/s", "<rate>"),
            (r"\b\d+(\.\d+)? ?(ms|µs|s|min)\b", "<duration>"),
            (r#""(duration_ms|rows_per_second|bytes_loaded|bytes)": ?\d+"#, "\"$1\": <n>"),
        ]
        .into_iter()
        .map(|(pattern, name)| (Regex::new(pattern).expect("a pattern of ours"), name))
        .collect()
    });
    let mut text = text.replace(root.canonicalize().unwrap().to_str().unwrap(), "<project>").replace(root.to_str().unwrap(), "<project>");
    for (pattern, name) in FILTERS.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text
}
