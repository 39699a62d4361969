//! A disk that is full under the state or under the lake of a server: it says so, and once there is room again no tick is lost or doubled.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::FREE_PORT;
use crate::project::{Project, Running};

const SETTLED: Duration = Duration::from_secs(120);

fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !may {
        eprintln!("left out: this machine lets no process mount anything (unshare -Urm)");
    }
    may
}

/// A server with a small file system of its own on one folder of its project.
struct Small {
    server: Running,
    project: Project,
    /// The folder, as other processes may look into it.
    folder: PathBuf,
}

impl Small {
    fn start(folder: &str, size: &str) -> Self {
        let project = Project::new();
        project.write("weir.toml", format!("{FREE_PORT}[lake]\npath = \"lake\"\n"));
        project.write("one.csv", "n\n1\n");
        let pipeline = "weir = 1\nname = \"ticks\"\n[schedule]\nevery = \"1s\"\ncatch_up = \"all\"\noverlap = \"queue\"\n\
                        retry = { attempts = 100, backoff = \"1s\", backoff_max = \"1s\" }\n\
                        [source.one.file]\npath = \"one.csv\"\n[transform.cut]\n\
                        sql = \"select $interval_start as interval_start, $interval_end as interval_end, n from one\"\n\
                        [sink.lake]\nfrom = \"cut\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.ticks\"\n";
        project.write("ticks.pipeline.toml", pipeline);
        std::fs::create_dir_all(project.path(folder)).unwrap();
        let script = format!("mount -t tmpfs -o size={size} tmpfs {folder} && exec \"$@\"");
        let command = project.wrapped(&["unshare", "-Urm", "sh", "-c", &script, "sh"], &["serve"]);
        let server = Running::start(command);
        let root = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), project.root().display()));
        Self { folder: root.join(folder), server, project }
    }

    /// Rows of the lake, read while the server runs: how many, of how many intervals, over how many seconds.
    fn counts(&self) -> Option<[i64; 3]> {
        let sql = "select count(*), count(distinct interval_start),
                   cast(extract(epoch from max(interval_end)) - extract(epoch from min(interval_start)) as bigint) from lake.out.ticks";
        let (pid, folder) = (self.server.child.id().to_string(), format!("--wd={}", self.project.root().display()));
        let within = ["nsenter", "-t", &pid, "-U", "-m", "--preserve-credentials", &folder];
        let outcome = Running::start(self.project.wrapped(&within, &["sql", "--format", "csv", "-c", sql])).wait(Duration::from_secs(60));
        let row = outcome.stdout.lines().nth(1)?.to_owned();
        let numbers: Vec<i64> = row.split(',').filter_map(|number| number.trim().parse().ok()).collect();
        numbers.try_into().ok()
    }

    fn until(&self, rows: i64) {
        let began = Instant::now();
        while self.counts().is_none_or(|[count, ..]| count < rows) {
            assert!(began.elapsed() < SETTLED, "{:?} of {rows} rows", self.counts());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes all the room there is for `so_long`.
    fn fill(&self, so_long: Duration) {
        let filler = self.folder.join("filler");
        let mut out = std::fs::File::create(&filler).unwrap();
        let block = vec![b'x'; 4096];
        let began = Instant::now();
        // Whatever is given back meanwhile is taken too.
        while began.elapsed() < so_long {
            while std::io::Write::write_all(&mut out, &block).is_ok() {}
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(out);
        std::fs::remove_file(&filler).unwrap();
    }

    /// A disk that is full for a while; then all is made up for. Returns what the server said.
    fn through_a_full_disk(self) -> String {
        self.until(3);
        let so_long = Duration::from_secs(6);
        self.fill(so_long);
        let [before, ..] = self.counts().unwrap();
        self.until(before + 10);
        let [count, intervals, seconds] = self.counts().unwrap();
        self.server.signal("TERM");
        let outcome = self.server.wait(Duration::from_secs(60));
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!((count, count), (intervals, seconds), "rows, intervals, seconds: {outcome}");
        outcome.stderr
    }
}

#[test]
fn a_full_disk_under_the_state_loses_no_tick_and_doubles_none() {
    if !may_mount() {
        return;
    }
    let said = Small::start(".weir", "16m").through_a_full_disk();
    assert!(said.contains("\"message\":\"the state cannot be reached\""), "{said}");
    assert!(said.contains("database or disk is full"), "{said}");
    assert!(said.contains("\"message\":\"the state can be reached again\""), "{said}");
}

#[test]
fn a_full_disk_under_the_lake_loses_no_tick_and_doubles_none() {
    if !may_mount() {
        return;
    }
    let said = Small::start("lake", "8m").through_a_full_disk();
    assert!(said.contains(": no space left; nothing was published, trying again in 2 s"), "{said}");
}
