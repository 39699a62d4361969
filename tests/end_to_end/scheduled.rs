//! Several servers of one state, killed, held still and started again at random under a pipeline that is due every second and a backfill: each
//! interval is in every destination once. What the clock, a database or a disk does to a server is told in the files below.

mod clock;
mod disk;
mod killed;
mod moved;
mod outage;
mod upgraded;

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    crash::Random,
    crash_shim::{self, When},
    project::{Project, Running, balanced, long},
    servers::{Database, Kind, fresh_database},
};

/// For `weir.toml`: servers of tests do not come in one another's way.
const FREE_PORT: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";
/// Longer than the lease of a lane, and than it takes to look for what dead servers left.
const BEYOND_THE_LEASE: Duration = Duration::from_secs(27);
/// All that is due is published within this once nobody does any harm.
const SETTLED: Duration = Duration::from_secs(600);

/// A row for each interval, which says which one it is, in two tables of Postgres and in the lake: the commit of the first decides the run.
fn pipeline(name: &str, schedule: &str) -> String {
    format!(
        r#"
weir = 1
name = "{name}"
{schedule}
[source.one.file]
path = "one.csv"
[transform.cut]
sql = "select $interval_start as interval_start, $interval_end as interval_end, n from one"
[sink.warehouse]
from = "cut"
mode = "append"
[sink.warehouse.postgres]
connection = "warehouse"
table = "out.{name}"
[sink.beside]
from = "cut"
mode = "append"
[sink.beside.postgres]
connection = "warehouse"
table = "beside.{name}"
[sink.lake]
from = "cut"
mode = "append"
[sink.lake.lake]
table = "out.{name}"
"#
    )
}

const EVERY_SECOND: &str = "[schedule]\nevery = \"1s\"\ncatch_up = \"all\"\noverlap = \"queue\"\nretry = { attempts = 20, backoff = \"200ms\", backoff_max = \"2s\" }\n";

/// Days that the backfill is for.
const DAYS_FROM: &str = "2020-01-01T00:00:00Z";

/// Three servers of one state.
struct Cluster {
    servers: Vec<Server>,
    projects: Vec<Project>,
    database: Database,
    lake: TempDir,
    logs: TempDir,
    random: Random,
    /// Servers are held still, too.
    holds: bool,
    kills: usize,
    own_kills: usize,
    stops: usize,
    own_stops: usize,
    ends: usize,
}

/// A server, or the place of one.
struct Server {
    project: usize,
    running: Option<Running>,
    /// It ends or holds itself still at one of its messages to the database.
    aimed: Aim,
    /// It is held still.
    still: bool,
    /// When it is started again, or let go.
    until: Instant,
}

/// What a server does to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Nothing,
    Kill,
    Stop,
}

impl Cluster {
    /// Prepares three servers; with `copies` each has the project and a `.weir` of its own.
    fn new(copies: bool) -> Option<Self> {
        let database = fresh_database(Kind::Postgres)?;
        let (lake, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let projects: Vec<Project> = (0..if copies { 3 } else { 1 }).map(|_| Project::new()).collect();
        for project in &projects {
            let state = format!("{FREE_PORT}[state]\nurl = {{ env = \"WEIR_STATE_URL\" }}\nschema = \"state\"\n");
            let lake = format!("[lake]\npath = \"{}\"\n", lake.path().display());
            project.write("weir.toml", format!("{state}{lake}{}", database.connection("warehouse")));
            project.write("one.csv", "n\n1\n");
            project.write("ticks.pipeline.toml", pipeline("ticks", EVERY_SECOND));
            project.write("days.pipeline.toml", pipeline("days", ""));
        }
        let servers = (0..3).map(|number| Server {
            project: if copies { number } else { 0 },
            running: None,
            aimed: Aim::Nothing,
            still: false,
            until: Instant::now(),
        });
        let servers = servers.collect();
        Some(Self {
            servers,
            projects,
            database,
            lake,
            logs,
            random: Random::seeded(),
            holds: copies,
            kills: 0,
            own_kills: 0,
            stops: 0,
            own_stops: 0,
            ends: 0,
        })
    }

    /// Starts a server. With `harmed` it may kill itself or hold itself still right before or after a message to the database.
    fn start(&mut self, number: usize, harmed: bool) {
        let place = self.database.place().to_owned();
        let (roll, at) = (self.random.share(), (60.0 + 1500.0 * self.random.share().powi(2)) * calm());
        let is_one_still = self.servers.iter().any(|server| server.still || server.aimed == Aim::Stop);
        let server = &mut self.servers[number];
        server.aimed = match roll {
            _ if !harmed => Aim::Nothing,
            roll if roll < 0.3 && self.holds && !is_one_still => Aim::Stop,
            roll if roll < 0.7 => Aim::Kill,
            _ => Aim::Nothing,
        };
        let project = &self.projects[server.project];
        let mut command = project.command(&["serve", "--name", &format!("server {number}")]);
        command.env("WEIR_STATE_URL", self.database.url());
        if server.aimed != Aim::Nothing {
            let port = format!(":{}", place.rsplit(':').next().unwrap_or_default());
            let when = if roll * 100.0 % 2.0 < 1.0 { When::Before } else { When::After };
            command = crash_shim::aim(command, &port, at as usize, when, server.aimed == Aim::Stop);
        }
        let log = File::options().create(true).append(true).read(true).open(log_of(&self.logs, number)).unwrap();
        server.running = Some(Running::with_output(command, log.try_clone().unwrap(), log));
    }

    fn weir(&self, arguments: &[&str]) -> Value {
        let mut command = self.projects[0].command(arguments);
        command.env("WEIR_STATE_URL", self.database.url());
        let outcome = Running::start(command).wait(Duration::from_secs(60));
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.json()
    }

    /// Does harm for so long.
    fn harm(&mut self, so_long: Duration) {
        let began = Instant::now();
        let mut next = began + Duration::from_secs(4);
        let mut stop_at = began + Duration::from_secs(4);
        while began.elapsed() < so_long {
            self.revive(Instant::now(), true);
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs_f64((0.5 + 2.5 * self.random.share()) * calm());
                let up: Vec<usize> = (0..3).filter(|at| self.servers[*at].running.is_some() && !self.servers[*at].still).collect();
                if let Some(number) = up.get((self.random.share() * up.len() as f64) as usize).copied() {
                    let may_stop = self.holds && Instant::now() >= stop_at && !self.servers.iter().any(|server| server.still);
                    self.harm_one(number, may_stop);
                    if may_stop {
                        stop_at = Instant::now() + BEYOND_THE_LEASE + Duration::from_secs(5);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn harm_one(&mut self, number: usize, stop: bool) {
        let roll = self.random.share();
        let pause = Duration::from_secs_f64(2.0 * self.random.share());
        let server = &mut self.servers[number];
        if stop {
            server.running.as_ref().unwrap().signal("STOP");
            (server.still, server.until) = (true, Instant::now() + BEYOND_THE_LEASE);
            self.stops += 1;
            return;
        }
        let mut running = server.running.take().unwrap();
        if roll < 0.15 {
            running.signal("TERM");
            // One that holds itself still meanwhile is let go when its time has come.
            let began = Instant::now();
            while running.alive() {
                if began.elapsed() > BEYOND_THE_LEASE && is_still(&running) {
                    running.signal("CONT");
                }
                assert!(began.elapsed() < BEYOND_THE_LEASE * 3, "a server that was asked to end does not: {}", self.tail(number));
                std::thread::sleep(Duration::from_millis(20));
            }
            let (aimed, outcome) = (self.servers[number].aimed, running.wait(Duration::from_secs(1)));
            assert!(outcome.code == 0 || outcome.code == 137 && aimed == Aim::Kill, "a server that was asked to end: {outcome}");
            self.ends += 1;
        } else {
            running.signal("KILL");
            running.child.wait().unwrap();
            self.kills += 1;
        }
        self.servers[number].until = Instant::now() + pause;
    }

    /// Starts what is to be started again by now, and lets go what was held still.
    fn revive(&mut self, now: Instant, harmed: bool) {
        for number in 0..self.servers.len() {
            let said = if self.servers[number].running.as_mut().is_some_and(Running::alive) { String::new() } else { self.tail(number) };
            let server = &mut self.servers[number];
            if let Some(running) = &mut server.running {
                if !running.alive() {
                    assert_eq!(server.aimed, Aim::Kill, "a server has ended by itself: {said}");
                    self.own_kills += 1;
                    (server.running, server.aimed) = (None, Aim::Nothing);
                } else if !server.still && is_still(running) {
                    assert_eq!(server.aimed, Aim::Stop, "a server holds still");
                    self.own_stops += 1;
                    (server.still, server.aimed, server.until) = (true, Aim::Nothing, Instant::now() + BEYOND_THE_LEASE);
                }
            }
            let server = &mut self.servers[number];
            if server.until > now {
                continue;
            }
            if server.still {
                server.running.as_ref().unwrap().signal("CONT");
                server.still = false;
            }
            if server.running.is_none() {
                self.start(number, harmed);
            }
        }
    }

    /// Waits until all that is due now is published, and ends the servers. Returns that instant as the state writes it.
    fn settle(&mut self) -> String {
        // None is left that would harm itself.
        for server in self.servers.iter_mut().filter(|server| server.aimed != Aim::Nothing) {
            (server.running, server.aimed, server.still) = (None, Aim::Nothing, false);
        }
        self.revive(Instant::now() + BEYOND_THE_LEASE, false);
        let now = self.database.value("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')");
        let open = format!(
            "select count(*) from state.tasks where status in ('waiting', 'running') and (backfill is not null or interval_end <= '{now}')"
        );
        let covered = format!("select count(*) from state.schedules where pipeline = 'ticks' and covered >= '{now}'");
        let began = Instant::now();
        while self.database.value(&open) != "0" || self.database.value(&covered) != "1" {
            if began.elapsed() > SETTLED {
                let left = self.database.csv("select * from state.tasks where status in ('waiting', 'running') order by id limit 20");
                panic!("not all is settled after {SETTLED:?}:\n{left}\n{}", (0..3).map(|number| self.tail(number)).collect::<String>());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!(
            "{} kills and {} at a message, {} ends, {} held still and {} at a message; settled in {:?}",
            self.kills,
            self.own_kills,
            self.ends,
            self.stops,
            self.own_stops,
            began.elapsed()
        );
        for server in &mut self.servers {
            let running = server.running.take().unwrap();
            running.signal("TERM");
            let outcome = running.wait(Duration::from_secs(60));
            assert_eq!(outcome.code, 0, "{outcome}");
        }
        now
    }

    /// What a server said last.
    fn tail(&self, number: usize) -> String {
        let text = std::fs::read_to_string(log_of(&self.logs, number)).unwrap_or_default();
        let from = text.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
        format!("--- server {number}\n{}\n", &text[from..])
    }

    /// Each interval is in both destinations once, none is missing between the first and the last, and nothing is left lying about.
    fn check(&self, now: &str, days: usize) {
        let value = |sql: &str| self.database.value(sql);
        let by_status = self.database.csv("select pipeline, status, count(*), max(crashes) from state.tasks group by 1, 2 order by 1, 2");
        eprintln!("{by_status}");
        let said = || (0..3).map(|number| self.tail(number)).collect::<String>();
        let wrong = self.database.csv("select * from state.tasks where status not in ('published', 'waiting') limit 20");
        assert_eq!(wrong.lines().count(), 1, "a task did not publish:\n{wrong}\n{}", said());

        for table in ["out.ticks", "out.days", "beside.ticks", "beside.days"] {
            let doubled = format!("select interval_start, count(*) from {table} group by 1 having count(*) > 1");
            assert_eq!(self.database.rows(&doubled).len(), 1, "{table}: {:?}\n{}", self.database.rows(&doubled), said());
            let gaps = format!(
                "select before, interval_start from (select interval_start, lag(interval_end) over (order by interval_start) as before
                 from {table}) as pairs where before <> interval_start"
            );
            assert_eq!(self.database.rows(&gaps).len(), 1, "{table}: {:?}\n{}", self.database.rows(&gaps), said());
        }
        let count = |sql: &str| value(sql).parse::<usize>().unwrap();
        assert_eq!((count("select count(*) from out.days"), count("select count(*) from beside.days")), (days, days));
        assert_eq!(count("select count(*) from out.ticks"), count("select count(*) from beside.ticks"));
        assert_eq!(count("select count(*) from out.ticks where interval_end - interval_start <> interval '1 second'"), 0);
        let reaches = format!("select max(interval_end) >= date_trunc('second', timestamptz '{now}') from out.ticks");
        assert!(matches!(value(&reaches).as_str(), "t" | "true" | "True"), "{}", value(&reaches));
        let begins = "select min(interval_end) <= (select since::timestamptz + interval '1 second' from state.schedules) from out.ticks";
        assert!(matches!(value(begins).as_str(), "t" | "true" | "True"), "the first interval is missing: {}", value(begins));

        // The lake has the same.
        let project = &self.projects[0];
        project.write("weir.toml", format!("[lake]\npath = \"{}\"\n", self.lake.path().display()));
        for table in ["ticks", "days"] {
            let there = count(&format!("select count(*) from out.{table}")).to_string();
            assert_eq!(project.value(&format!("select count(*) from lake.out.{table}")), there, "{table}\n{}", said());
            assert_eq!(
                project.value(&format!("select count(distinct interval_start) from lake.out.{table}")),
                there,
                "{table}\n{}",
                said()
            );
        }

        // The state agrees, and nothing is left.
        let published = "select count(*) from state.tasks where status = 'published' and pipeline = ";
        assert_eq!(count(&format!("{published} 'ticks'")), count("select count(*) from out.ticks"));
        assert_eq!(count(&format!("{published} 'days'")), days);
        let twice = "select task from state.runs where status = 'published' group by task having count(*) > 1";
        assert_eq!(self.database.rows(twice).len(), 1);
        assert_eq!(count("select count(*) from state.runs where status in ('running', 'deciding', 'publishing')"), 0);
        assert_eq!(count("select count(*) from state.loads"), 0);
        assert_eq!(count("select count(*) from pg_class where relname like 'weir_stage%'"), 0);

        // The books of every run balance.
        let summaries = self.database.csv("select summary from state.runs where status = 'published'");
        let mut books = 0;
        for line in summaries.lines().skip(1) {
            let text = line.trim_matches('"').replace("\"\"", "\"");
            let summary: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!((&summary["rows_read"], &summary["rows_loaded"]), (&Value::from(1), &Value::from(3)), "{summary}");
            balanced(&summary);
            books += 1;
        }
        assert_eq!(books, count("select count(*) from state.runs where status = 'published'"));
    }
}

/// A lane whose holder was killed is taken up when its lease has ended: in the long tests there is time for what goes on between kills, too.
fn calm() -> f64 {
    if long() { 4.0 } else { 1.0 }
}

/// Whether a process is held still.
fn is_still(running: &Running) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.child.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn log_of(logs: &TempDir, number: usize) -> PathBuf {
    logs.path().join(format!("server-{number}.log"))
}

/// The whole of it: `seconds` of harm in the usual tests, ten minutes in the long ones.
fn killed_at_random(copies: bool, seconds: u64) {
    let Some(mut cluster) = Cluster::new(copies) else { return };
    let (so_long, days) = if long() { (Duration::from_secs(600), 1500) } else { (Duration::from_secs(seconds), 80) };
    (0..3).for_each(|number| cluster.start(number, false));
    let to = chrono::DateTime::parse_from_rfc3339(DAYS_FROM).unwrap() + chrono::TimeDelta::days(i64::try_from(days).unwrap());
    let (step, to) = ("1d", to.to_rfc3339());
    let backfill = ["--json", "backfill", "days", "--from", DAYS_FROM, "--to", &to, "--step", step, "--parallel", "3", "--detach"];
    let added = cluster.weir(&backfill);
    assert_eq!(added["tasks"], serde_json::json!({ "waiting": days }), "{added}");
    cluster.harm(so_long);
    let now = cluster.settle();
    cluster.check(&now, days);
    assert!(cluster.kills + cluster.own_kills > 3, "{} kills", cluster.kills);
    assert!(!copies || cluster.stops + cluster.own_stops > 0);
}

#[test]
fn servers_of_one_folder_killed_at_random_publish_each_interval_once() {
    killed_at_random(false, 15);
}

#[test]
fn servers_with_folders_of_their_own_killed_and_held_still_publish_each_interval_once() {
    killed_at_random(true, 38);
}
