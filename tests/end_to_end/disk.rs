//! Disks that are full, read-only or not there: a clear error, nothing lost, and a rerun that loads everything.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    crash::much,
    lake,
    project::{Outcome, Project, Running},
};

const ROWS: usize = 100_000;

fn wrapped(project: &Project, wrapper: &[&str]) -> Outcome {
    Running::start(project.wrapped(wrapper, &["run", "pipeline.toml"])).wait(Duration::from_secs(120))
}

/// After a failed run: nothing staged is left and nothing is visible; then a run with the trouble gone loads all rows once.
fn nothing_lost(project: &Project, outcome: &Outcome) {
    assert!(matches!(outcome.code, 1 | 3), "{outcome}");
    outcome.one_screen();
    for place in ["lake", ".weir/lake"] {
        assert_eq!(lake::strays(&project.path(place)), Vec::<PathBuf>::new(), "staged files are left\n{outcome}");
    }
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], ROWS);
    assert_eq!(project.value("select count(*) from lake.out.rows"), ROWS.to_string());
}

/// True where a process may have mounts of its own without being root.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !may {
        eprintln!("left out: this machine lets no process mount anything (unshare -Urm)");
    }
    may
}

#[test]
fn a_file_that_may_not_grow_at_staging_loses_nothing() {
    let project = much(ROWS);
    // Half a megabyte a file at most, as on a full disk; the signal is ignored, so that the write fails with an error.
    let outcome = wrapped(&project, &["bash", "-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "bash"]);
    outcome.says(&["lake"]);
    nothing_lost(&project, &outcome);
}

#[test]
fn a_full_disk_at_staging_loses_nothing() {
    if !may_mount() {
        return;
    }
    let project = much(ROWS);
    project.write("weir.toml", "[lake]\npath = \"lake\"\n");
    std::fs::create_dir(project.path("lake")).unwrap();
    let outcome = wrapped(&project, &["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs lake && exec \"$@\"", "sh"]);
    outcome.says(&["disk-full"]);
    nothing_lost(&project, &outcome);
}

#[test]
fn a_read_only_lake_is_a_clear_error() {
    if !may_mount() {
        return;
    }
    let project = much(ROWS);
    project.write("weir.toml", "[lake]\npath = \"lake\"\n");
    std::fs::create_dir(project.path("lake")).unwrap();
    let script = "mount --bind lake lake && mount -o remount,bind,ro lake && exec \"$@\"";
    let outcome = wrapped(&project, &["unshare", "-Urm", "sh", "-c", script, "sh"]);
    outcome.says(&["lake", "read-only"]);
    nothing_lost(&project, &outcome);
}

#[test]
fn a_file_where_the_lake_should_be_is_a_clear_error() {
    let project = much(ROWS);
    project.write("weir.toml", "[lake]\npath = \"lake\"\n");
    project.write("lake", "not a folder");
    let outcome = project.weir(&["run", "pipeline.toml"]);
    outcome.says(&["lake"]);
    assert!(outcome.code != 0, "{outcome}");
    assert_eq!(std::fs::read_to_string(project.path("lake")).unwrap(), "not a folder", "it wrote over the file");
    std::fs::remove_file(project.path("lake")).unwrap();
    nothing_lost(&project, &outcome);
}

#[test]
fn a_full_disk_where_rows_are_set_aside_loses_nothing() {
    if !may_mount() {
        return;
    }
    let project = much(ROWS);
    let steps = "[transform.placed]\nsql = \"select id, text, row_number() over (order by text) as place from rows\"\n[sink.lake]\nfrom = \"placed\"";
    let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).unwrap().replace("[sink.lake]\nfrom = \"rows\"", steps);
    project.write("pipeline.toml", &pipeline);
    project.write("weir.toml", "[memory]\nlimit = \"16MB\"\n");
    std::fs::create_dir_all(project.path(".weir/tmp")).unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs .weir/tmp && exec \"$@\"";
    let outcome = wrapped(&project, &["unshare", "-Urm", "sh", "-c", script, "sh"]);
    outcome.says(&[
        "error[disk-full]: step \"placed\": no space is left on the disk where rows that do not fit in memory are set aside",
        "= help: free some space, or raise [memory] limit in weir.toml, and run again",
    ]);
    assert_eq!(outcome.code, 3, "{outcome}");
    nothing_lost(&project, &outcome);
}
