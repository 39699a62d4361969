//! A state that is gone for a while, under two servers that go on: no tick is lost or doubled, and each server says what happened.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use super::FREE_PORT;
use crate::{
    project::{Project, Running, long},
    servers::{Database, Kind, Private},
};

/// What a server says of a state that does not answer.
const UNREACHED: &str =
    "\"message\":\"the state cannot be reached\",\"target\":\"weir::server::notices\",\"error\":\"no answer within 5 s\"";
const SETTLED: Duration = Duration::from_secs(120);

/// Two servers of a state in a Postgres of their own. What they load is in a lake.
struct Two {
    servers: Vec<Running>,
    project: Project,
    database: Database,
    postgres: Private,
}

impl Two {
    fn start() -> Option<Self> {
        let postgres = Private::with(&["--only", "postgres"])?;
        let database = postgres.fresh_database(Kind::Postgres)?;
        let project = Project::new();
        project.write("weir.toml", format!("{FREE_PORT}[state]\nurl = {{ env = \"WEIR_STATE_URL\" }}\nschema = \"state\"\n"));
        project.write("one.csv", "n\n1\n");
        let pipeline = "weir = 1\nname = \"ticks\"\n[schedule]\nevery = \"1s\"\ncatch_up = \"all\"\noverlap = \"queue\"\n\
                        [source.one.file]\npath = \"one.csv\"\n[transform.cut]\n\
                        sql = \"select $interval_start as interval_start, $interval_end as interval_end, n from one\"\n\
                        [sink.lake]\nfrom = \"cut\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.ticks\"\n";
        project.write("ticks.pipeline.toml", pipeline);
        let servers = (0..2)
            .map(|number| {
                let mut command = project.command(&["serve", "--name", &format!("server {number}")]);
                command.env("WEIR_STATE_URL", database.url());
                Running::start(command)
            })
            .collect();
        let two = Self { servers, project, database, postgres };
        two.until_published(3);
        Some(two)
    }

    fn published(&self) -> usize {
        let count = self.database.try_csv("select count(*) from state.tasks where status = 'published'");
        count.ok().and_then(|csv| csv.lines().nth(1)?.trim().parse().ok()).unwrap_or(0)
    }

    fn until_published(&self, count: usize) {
        let began = Instant::now();
        while self.published() < count {
            assert!(began.elapsed() < SETTLED, "{} of {count} are published", self.published());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the servers once they have made up for `seconds` that were lost; returns what they said.
    fn end(mut self, seconds: Duration) -> Vec<String> {
        self.until_published(self.published() + usize::try_from(seconds.as_secs()).unwrap());
        let mut said = Vec::new();
        for server in &self.servers {
            server.signal("TERM");
        }
        for server in self.servers.drain(..) {
            let outcome = server.wait(Duration::from_secs(60));
            assert_eq!(outcome.code, 0, "{outcome}");
            assert!(!outcome.stderr.contains(self.database.password()), "a password is shown: {outcome}");
            said.push(outcome.stderr);
        }
        let bad = self.database.csv("select * from state.tasks where status not in ('published', 'waiting')");
        assert_eq!(bad.lines().count(), 1, "{bad}\n{said:?}");
        let published = self.published().to_string();
        self.project.write("weir.toml", "");
        assert_eq!(self.project.value("select count(*) from lake.out.ticks"), published, "{said:?}");
        assert_eq!(self.project.value("select count(distinct interval_start) from lake.out.ticks"), published, "{said:?}");
        let spanned =
            "select cast(extract(epoch from max(interval_end)) - extract(epoch from min(interval_start)) as bigint) from lake.out.ticks";
        assert_eq!(self.project.value(spanned), published, "a gap: {said:?}");
        said
    }
}

/// A server and its children.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(pid) {
            all.push(child);
        }
    }
    all
}

fn signal(pids: &[u32], name: &str) {
    for pid in pids {
        let _ = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    }
}

#[test]
fn a_state_that_is_held_still_for_a_while_loses_no_tick_and_doubles_none() {
    let Some(two) = Two::start() else { return };
    let so_long = Duration::from_secs(if long() { 60 } else { 12 });
    let processes = family(two.postgres.pid(Kind::Postgres));
    signal(&processes, "STOP");
    std::thread::sleep(so_long);
    signal(&processes, "CONT");
    for said in two.end(so_long) {
        assert!(said.contains("the state cannot be reached") && said.contains("no answer within 5 s"), "{said}");
        assert!(said.contains("the state can be reached again"), "{said}");
    }
}

#[test]
fn a_state_that_is_down_for_a_while_loses_no_tick_and_doubles_none() {
    let Some(two) = Two::start() else { return };
    let so_long = Duration::from_secs(if long() { 60 } else { 10 });
    two.postgres.kill(Kind::Postgres);
    std::thread::sleep(so_long);
    two.postgres.up();
    // Whoever waited for an answer then asks again after that.
    std::thread::sleep(Duration::from_secs(6));
    for said in two.end(so_long) {
        assert!(said.contains(UNREACHED), "{said}");
        assert!(said.contains("\"message\":\"the state can be reached again\""), "{said}");
    }
}

#[test]
fn leases_from_before_the_database_clock_was_set_back_hold_nothing_up() {
    let Some(mut two) = Two::start() else { return };
    for server in &mut two.servers {
        server.signal("KILL");
        server.child.wait().unwrap();
    }
    // What it looks like when the servers died right before the clock was set back by an hour.
    two.database.execute(&[
        "update state.leader set until_ms = until_ms + 3600000",
        "update state.locks set until_ms = (extract(epoch from clock_timestamp()) * 1000)::bigint + 3600000",
        "update state.servers set until_ms = until_ms + 3600000",
    ]);
    let mut command = two.project.command(&["serve", "--name", "server 2"]);
    command.env("WEIR_STATE_URL", two.database.url());
    two.servers = vec![Running::start(command)];
    two.end(Duration::from_secs(5));
}
