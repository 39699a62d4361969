//! `weir fmt` beside its cases: what ships is in style, standard input, links, permissions, line breaks, and files that cannot be written.

use std::{
    fs,
    io::{Seek, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Stdio,
    time::Duration,
};

use weir_connectors::{SINKS, SOURCES};

use crate::project::{Outcome, Project, Running, repository};

/// Runs `weir fmt` with a text on standard input.
fn from_stdin(project: &Project, arguments: &[&str], text: &[u8]) -> Outcome {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(text).unwrap();
    input.rewind().unwrap();
    let mut command = project.command(arguments);
    command.stdin(Stdio::from(input));
    Running::start(command).wait(Duration::from_secs(60))
}

#[test]
fn the_projects_own_files_are_in_style() {
    let outcome = Project::new().ok(&["--project", &repository().to_string_lossy(), "fmt", "--check"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", "2 files are in style\n"));
}

#[test]
fn what_init_and_new_write_is_in_style() {
    let project = Project::new();
    project.ok(&["init", "shop"]);
    let project = Project::copy_of(&project.path("shop"));
    let mut files = 2;
    for source in SOURCES {
        for sink in SINKS {
            project.ok(&["new", &format!("{}_{}", source.kind, sink.kind), "--source", source.kind, "--sink", sink.kind]);
            files += 1;
        }
    }
    let outcome = project.ok(&["fmt", "--check"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr), ("", format!("{files} files are in style\n")));
}

#[test]
fn standard_input_goes_to_standard_output() {
    let project = Project::new();
    let outcome = from_stdin(&project, &["fmt", "-"], b"a=1 # x\n\n\n[t]\n\nb=2");
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "a = 1 # x\n\n[t]\nb = 2\n", ""));
    let outcome = from_stdin(&project, &["fmt", "--check", "-"], b"a=1\n");
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (1, "stdin\n", ""));
    let outcome = from_stdin(&project, &["fmt", "--check", "-"], b"a = 1\n");
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
    let outcome = from_stdin(&project, &["fmt", "--diff", "-"], b"a=1\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "--- stdin\n+++ stdin\n@@ -1 +1 @@\n-a=1\n+a = 1\n"));
    let outcome = from_stdin(&project, &["fmt", "--json", "-"], b"a=1\n");
    assert_eq!(outcome.json()["files"], serde_json::json!([{ "path": "stdin", "changed": true, "text": "a = 1\n" }]));
    let outcome = from_stdin(&project, &["fmt", "-"], b"a = \n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    assert!(outcome.stderr.contains("error[toml-syntax]") && outcome.stderr.contains("--> stdin:1:"), "{outcome}");
    let outcome = from_stdin(&project, &["fmt", "-"], b"a = \"\xff\"\n");
    let expected = "error[not-text]: \"stdin\" is not UTF-8 text (line 1)\n  = help: save the file as UTF-8\n";
    assert_eq!((outcome.code, outcome.stderr.as_str()), (2, expected));
}

#[test]
fn line_breaks_and_byte_order_marks_are_kept() {
    let project = Project::new();
    project.write("pipeline.toml", "\u{feff}weir=1\r\nx='''\nx\r\n'''\r\n\r\n\r\n");
    project.ok(&["fmt", "pipeline.toml"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    assert_eq!(text, "\u{feff}weir = 1\r\nx = '''\nx\r\n'''\r\n");
    assert_eq!(project.ok(&["fmt", "--check", "pipeline.toml"]).stderr, "1 file is in style\n");
}

#[test]
fn a_file_keeps_its_permissions_and_a_link_stays_a_link() {
    let project = Project::new();
    project.write("real/p.toml", "a=1\n");
    fs::set_permissions(project.path("real/p.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real/p.toml", project.path("pipeline.toml")).unwrap();
    assert_eq!(project.ok(&["fmt", "pipeline.toml"]).stdout, "pipeline.toml\n");
    assert!(project.path("pipeline.toml").symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read_to_string(project.path("real/p.toml")).unwrap(), "a = 1\n");
    assert_eq!(fs::metadata(project.path("real/p.toml")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(project.path("real")).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_file_in_style_is_not_written_at_all() {
    let project = Project::with("a = 1\n");
    let before = fs::metadata(project.path("pipeline.toml")).unwrap().ino();
    project.ok(&["fmt"]);
    assert_eq!(fs::metadata(project.path("pipeline.toml")).unwrap().ino(), before);
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_the_others_are_done() {
    let project = Project::new();
    project.write("pipelines/a/pipeline.toml", "a=1\n");
    project.write("pipelines/b/pipeline.toml", "b=1\n");
    // A folder in the way of the new text's first place.
    let mut command = project.program("sh", &["-c", "mkdir pipelines/a/.pipeline.toml.$$.tmp && exec \"$WEIR\" fmt"]);
    command.env("WEIR", crate::project::WEIR);
    let outcome = Running::start(command).wait(Duration::from_secs(60));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, "pipelines/b/pipeline.toml\n"), "{outcome}");
    assert!(outcome.stderr.starts_with("error[output-failed]: cannot write \""), "{outcome}");
    assert!(outcome.stderr.ends_with("1 file was changed, 1 is in style, 1 is left as it is\n"), "{outcome}");
    assert_eq!(fs::read_to_string(project.path("pipelines/a/pipeline.toml")).unwrap(), "a=1\n");
}
