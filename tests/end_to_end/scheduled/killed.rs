//! One server on SQLite that is killed right before or after any of the calls that make something durable or visible: between claim, begin, stage,
//! decide, publish, finish and whatever else there is. Started again, it has published each interval once.

use std::time::{Duration, Instant};

use super::FREE_PORT;
use crate::{
    crash::Random,
    crash_shim::{self, When},
    project::{Project, Running, long},
};

/// All that is due is published within this once nobody kills any more.
const SETTLED: Duration = Duration::from_secs(60);

#[test]
fn a_server_killed_at_any_call_on_sqlite_publishes_each_interval_once() {
    let project = Project::new();
    project.write("weir.toml", FREE_PORT);
    project.write("one.csv", "n\n1\n");
    let pipeline = "weir = 1\nname = \"ticks\"\n[schedule]\nevery = \"1s\"\ncatch_up = \"all\"\noverlap = \"queue\"\n\
                    [source.one.file]\npath = \"one.csv\"\n[transform.cut]\n\
                    sql = \"select $interval_start as interval_start, $interval_end as interval_end, n from one\"\n\
                    [sink.lake]\nfrom = \"cut\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.ticks\"\n\
                    [sink.other]\nfrom = \"cut\"\nmode = \"append\"\n[sink.other.lake]\ntable = \"out.others\"\n";
    project.write("ticks.pipeline.toml", pipeline);
    let (mut random, mut killed, rounds) = (Random::seeded(), 0, if long() { 150 } else { 12 });
    for round in 0..rounds {
        let number = 30 + (random.share() * 400.0) as usize;
        let when = if round % 2 == 0 { When::Before } else { When::After };
        let mut server = Running::start(crash_shim::aim(project.command(&["serve"]), "", number, when, false));
        let began = Instant::now();
        while server.alive() && began.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if server.alive() {
            server.signal("KILL");
        } else {
            killed += 1;
        }
        let outcome = server.wait(Duration::from_secs(10));
        assert_eq!(outcome.code, 137, "call {number}: {outcome}");
    }
    assert!(killed * 2 > rounds, "only {killed} of {rounds} were killed at a call");

    let server = project.start(&["serve"]);
    let behind = "select cast(extract(epoch from now()) - extract(epoch from max(interval_end)) as bigint) from lake.out.others";
    let began = Instant::now();
    while project.value(behind).parse::<i64>().unwrap() > 3 {
        assert!(began.elapsed() < SETTLED, "it is {} s behind", project.value(behind));
        std::thread::sleep(Duration::from_millis(200));
    }
    server.signal("TERM");
    let outcome = server.wait(Duration::from_secs(60));
    assert_eq!(outcome.code, 0, "{outcome}");
    for table in ["ticks", "others"] {
        let all = format!(
            "select count(*) = count(distinct interval_start)
                 and count(*) = extract(epoch from max(interval_end)) - extract(epoch from min(interval_start)) as whole, count(*) as n
             from lake.out.{table}"
        );
        let rows = project.sql(&all);
        assert!(rows[1].starts_with("true,"), "{table}: {rows:?}\n{outcome}");
    }
    let tasks = project.ok(&["runs", "list", "--json", "--limit", "10000"]).json();
    let unfinished = tasks["runs"].as_array().unwrap().iter().filter(|run| !matches!(run["status"].as_str(), Some("published" | "failed")));
    assert_eq!(unfinished.count(), 0, "{tasks}");
}
