//! SQL tests in the form of sqllogictest, answered by `weir sql`: one file, one small project, its statements and their rows.
//!
//! `#` starts a comment. A record is `query` and SQL, a line `----`, the expected CSV (header first), an empty line; or `error WORDS` and SQL:
//! the command must fail and say the words. `file PATH` and lines up to an empty one write an input file; `pipeline` and lines up to a
//! line `end` write and run a pipeline. Rows are compared in the order given with `query ordered`, else in any.

use std::fs;

use crate::project::{Project, repository, sorted_rows};

/// Runs `tests/slt/NAME`.
pub fn run(name: &str) {
    let text = fs::read_to_string(repository().join("tests/slt").join(name)).unwrap();
    let project = Project::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut records = 0;
    while let Some((number, line)) = lines.next() {
        let at = format!("tests/slt/{name}:{}", number + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        records += 1;
        let mut take = |end: &str| {
            let mut taken = String::new();
            for (_, line) in lines.by_ref() {
                if line == end {
                    return taken;
                }
                taken += line;
                taken.push('\n');
            }
            assert!(end.is_empty(), "{at}: the record has no \"{end}\"");
            taken
        };
        if let Some(path) = line.strip_prefix("file ") {
            project.write(path, take(""));
        } else if line == "pipeline" {
            project.write("pipeline.toml", take("end"));
            project.run(&["pipeline.toml"]);
        } else if let Some(words) = line.strip_prefix("error ") {
            let outcome = project.weir(&["sql", "-c", take("").trim()]);
            assert_ne!(outcome.code, 0, "{at}: {outcome}");
            outcome.says(&[words]);
        } else if line == "query" || line == "query ordered" {
            let query = take("----");
            let expected = take("");
            let outcome = project.ok(&["sql", "--format", "csv", "-c", query.trim()]);
            if line == "query" {
                assert_eq!(sorted_rows(&outcome.stdout), sorted_rows(&expected), "{at}");
            } else {
                assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>(), "{at}");
            }
        } else {
            panic!("{at}: \"{line}\" starts no record");
        }
    }
    assert!(records > 0, "tests/slt/{name} holds no record");
}
