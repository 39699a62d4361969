//! Ten years of schedules on the clocks of odd zones: is every tick settled once, whatever goes wrong, and are ticks those of another library?
//! The rules themselves are tested where they stand, in engine/src/schedule/ and pipelines/src/cron.rs.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use chrono::{DateTime, Offset, TimeDelta, TimeZone, Utc};
use serde_json::json;
use weir_connectors::Interval;
use weir_engine::schedule::{
    Action, MISSED,
    simulate::{Plan, Settled, simulate},
};
use weir_pipelines::{
    CatchUp, Cron, Overlap, Schedule, Spanned,
    cron::{Tz, moment},
};

use crate::{crash::Random, project::repository, referee};

/// With half an hour of daylight saving; with days that a moon chooses; at a quarter to; with two hours; set back for a month of fasting; at
/// midnight; half an hour off; a quarter of an hour off and never changed; two that everybody knows; the first of a new day; and Monrovia.
const ZONES: [&str; 12] = [
    "Australia/Lord_Howe",
    "Asia/Gaza",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Kathmandu",
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Kiritimati",
    "Africa/Monrovia",
];

/// Those of at most two ticks a day first.
const EXPRESSIONS: [&str; 50] = [
    "15 6 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "59 23 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "45 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "15 2 * * *",
    "59 2 * * *",
    "0 3 * * *",
    "5 3 * * *",
    "30 2 * * 0",
    "30 2 * * 7",
    "0 0 * * 1-5",
    "0 0 1 * *",
    "0 0 31 * *",
    "30 2 29 2 *",
    "0 12 1 1 *",
    "0 0 1,15 * *",
    "0 0 13 * 5",
    "0 2 */2 * *",
    "0 0 * * */3",
    "0 4 8-14 * *",
    "0 2 * 3,10 0",
    "30 1 * 4,9 sun",
    "0 0 * jan-mar mon",
    "17 5 * * sat,sun",
    "0 2,14 * * *",
    "30 1,2 * * *",
    "10 0 28-31 * *",
    "0 6 1-7 * 1",
    "45 2 1 */3 *",
    "0 1 * * 6",
    "0 0 24 12 *",
    "0 * * * *",
    "30 * * * *",
    "0 */2 * * *",
    "0 */6 * * *",
    "*/15 * * * *",
    "*/20 1-3 * * *",
    "5-55/10 2 * * *",
    "* 2 * * *",
    "0,30 9-17 * * 1-5",
    "10,40 0-4 * * *",
    "*/10 6-22 * * *",
    "0 0 2 * * *",
    "30 30 */3 * * *",
    "*/30 * 1 * * *",
];

/// Of the expressions, so many have at most two ticks a day.
const SELDOM: usize = 36;

/// A number from 0 up to another one.
fn below(random: &mut Random, most: u64) -> u64 {
    (random.share() * most as f64) as u64
}

fn begin() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn end() -> DateTime<Utc> {
    "2036-01-01T00:00:00Z".parse().unwrap()
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    let cron = Cron::parse(Spanned::new(cron.to_owned(), 0..0)).unwrap_or_else(|why| panic!("{why}"));
    Schedule { cron: Some(cron), timezone: zone.parse().unwrap(), ..Schedule::default() }
}

fn ticks(schedule: &Schedule, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    std::iter::successors(schedule.next_after(after), |tick| schedule.next_after(*tick)).take_while(|tick| *tick <= until).collect()
}

/// Between none and six outages, of a minute to three weeks.
fn outages(random: &mut Random) -> Vec<Interval> {
    let span_s = (end() - begin()).num_seconds().unsigned_abs();
    let outage = |random: &mut Random| {
        let start = begin() + TimeDelta::seconds(i64::try_from(below(random, span_s)).unwrap());
        let longest_s = [3_600, 86_400, 21 * 86_400][usize::try_from(below(random, 3)).unwrap()];
        Interval { start, end: start + TimeDelta::seconds(i64::try_from(60 + below(random, longest_s)).unwrap()) }
    };
    (0..below(random, 7)).map(|_| outage(random)).collect()
}

/// What must hold of whatever a schedule did.
fn check(schedule: &Schedule, settled: &[Settled], outages: &[Interval], what: &str) {
    let ticks = ticks(schedule, begin(), end());
    let begun = schedule.last_at_or_before(begin()).unwrap();
    let (mut covered, mut held) = (begun, 0);
    for one in settled {
        let slot = &one.slot;
        // Half-open intervals, each where the one before ended: no gap, no overlap.
        assert_eq!(slot.start, covered, "{what}: at {}", slot.at);
        assert!(slot.start < slot.end && slot.end == slot.at, "{what}: at {}", slot.at);
        // Each tick of the interval is one that the schedule has, and it holds as many as it says.
        let inside = ticks.partition_point(|tick| *tick <= slot.end) - ticks.partition_point(|tick| *tick <= slot.start);
        assert_eq!(inside as u64, slot.joined, "{what}: at {}", slot.at);
        held += slot.joined;
        covered = slot.end;
        match slot.action {
            Action::Skip => assert!(one.started.is_none() && slot.reason.is_some(), "{what}: {one:?}"),
            // What has not begun waits still, at the end.
            _ => assert_eq!(one.started.is_some(), one.outcome.is_some(), "{what}: {one:?}"),
        }
        match schedule.catch_up {
            CatchUp::All => assert_ne!(slot.reason.as_deref(), Some(MISSED), "{what}: {one:?}"),
            CatchUp::Latest => assert!(slot.joined == 1 || slot.action != Action::Skip, "{what}: {one:?}"),
            CatchUp::None => assert!(slot.action != Action::CatchUp && slot.joined == 1, "{what}: {one:?}"),
        }
        if schedule.overlap == Overlap::Queue {
            assert!(slot.action != Action::Skip || slot.reason.as_deref() == Some(MISSED), "{what}: {one:?}");
        }
    }
    // What an outage holds back at the very end is due when it is over, and so is what one holds back that goes over into it.
    let mut last = outages.iter().filter(|outage| outage.end > end()).map(|outage| outage.start).min();
    let before =
        |last: DateTime<Utc>| outages.iter().filter(|outage| outage.start < last && last <= outage.end).map(|outage| outage.start).min();
    while let Some(earlier) = last.and_then(before) {
        last = Some(earlier);
    }
    let due = ticks.iter().filter(|tick| last.is_none_or(|last| **tick < last)).count() as u64;
    assert!(held >= due && held <= ticks.len() as u64, "{what}: {held} of {due} ticks");
    // Runs of one pipeline never overlap, and none goes on while nothing runs.
    let mut runs: Vec<_> = settled.iter().filter_map(|one| Some((one.started?, one.finished?))).collect();
    runs.sort();
    assert!(runs.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{what}: two runs at once");
    for (started, finished) in runs {
        assert!(started <= finished, "{what}: from {started} to {finished}");
        let over = outages.iter().find(|outage| started < outage.end && outage.start < finished);
        assert_eq!(over, None, "{what}: a run from {started} to {finished}");
    }
}

#[test]
fn ten_years_of_odd_zones_settle_every_tick_once() {
    let ways: Vec<(CatchUp, Overlap)> = [CatchUp::All, CatchUp::Latest, CatchUp::None]
        .into_iter()
        .flat_map(|catch_up| [Overlap::Skip, Overlap::Queue, Overlap::Cancel].map(|overlap| (catch_up, overlap)))
        .collect();
    let mut random = Random::seeded();
    let mut jobs = Vec::new();
    for zone in ZONES {
        for (number, cron) in EXPRESSIONS.into_iter().enumerate() {
            // Of those with many ticks, each way in one of the zones at least.
            let of_zone = ZONES.iter().position(|other| *other == zone).unwrap();
            let all = number < SELDOM;
            let chosen = ways.iter().enumerate().filter(|(at, _)| all || *at == (number + of_zone) % ways.len());
            for (_, (catch_up, overlap)) in chosen {
                jobs.push((zone, cron, *catch_up, *overlap, outages(&mut random), Duration::from_secs(1 + below(&mut random, 3 * 3600))));
            }
        }
    }
    let work = |jobs: &[(&str, &str, CatchUp, Overlap, Vec<Interval>, Duration)]| {
        for (zone, cron, catch_up, overlap, outages, takes) in jobs {
            let schedule = Schedule { catch_up: *catch_up, overlap: *overlap, ..schedule(cron, zone) };
            let what =
                format!("\"{cron}\" in {zone}, {} and {}, runs of {takes:?}, outages {outages:?}", catch_up.as_str(), overlap.as_str());
            let settled = simulate(&[Plan { pipeline: "p", schedule: &schedule, takes: *takes }], begin(), end(), outages);
            check(&schedule, &settled.unwrap_or_else(|_| panic!("{what}: too many ticks")), outages, &what);
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in jobs.chunks(jobs.len().div_ceil(cpus)) {
            scope.spawn(|| work(part));
        }
    });
}

fn offset_s(zone: Tz, at: DateTime<Utc>) -> i32 {
    zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
}

/// The instants at which a zone's clock jumps, each with by how much.
fn jumps(zone: Tz) -> Vec<(DateTime<Utc>, i32)> {
    let mut jumps = Vec::new();
    let mut at = begin();
    while at < end() {
        let next = at + TimeDelta::hours(1);
        if offset_s(zone, at) != offset_s(zone, next) {
            let second = (1..=3600).map(|s| at + TimeDelta::seconds(s)).find(|s| offset_s(zone, *s) != offset_s(zone, at)).unwrap();
            jumps.push((second, offset_s(zone, second) - offset_s(zone, at)));
        }
        at = next;
    }
    jumps
}

/// From when to when ticks are compared: all ten years of an expression with few, else the days around each jump, and a week in between.
fn spans(number: usize, jumps: &[(DateTime<Utc>, i32)]) -> Vec<(i64, i64)> {
    if number < SELDOM {
        return vec![(begin().timestamp(), end().timestamp())];
    }
    let around = jumps.iter().map(|(at, _)| (at.timestamp() - 30 * 3600, at.timestamp() + 30 * 3600));
    let day = |text: &str| moment(text, Tz::UTC).unwrap().timestamp();
    around.chain([(day("2028-02-26"), day("2028-03-04"))]).collect()
}

/// A difference between the two.
struct Difference {
    /// `gap`, `fold` or `missed`.
    why: &'static str,
    zone: Tz,
    cron: &'static str,
    /// The instant of the jump near which it is.
    jump: (DateTime<Utc>, i32),
    /// Ticks that Weir has besides.
    more: Vec<i64>,
    /// Ticks that Weir does not have.
    less: Vec<i64>,
}

impl Difference {
    fn line(&self) -> String {
        let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap().with_timezone(&self.zone);
        let times =
            |seconds: &[i64]| seconds.iter().map(|second| at(*second).format("%H:%M:%S%:z").to_string()).collect::<Vec<_>>().join(" ");
        let (jump, by_s) = self.jump;
        let day = at(jump.timestamp()).date_naive();
        format!("{}\t{}\t{day}\t{by_s:+}\t{}\t{}\t{}", self.why, self.zone, self.cron, times(&self.more), times(&self.less))
    }
}

/// Tells differences apart: where the clock jumps over times, Weir ticks at the first instant behind the jump; where it shows times again, Weir
/// has ticked the first time and does not again. Whatever the other library lacks besides is told as missed by it, which is then asked about.
fn differences(
    zone: Tz,
    cron: &'static str,
    jumps: &[(DateTime<Utc>, i32)],
    ours: &BTreeSet<i64>,
    theirs: &BTreeSet<i64>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut told: BTreeSet<i64> = ours.symmetric_difference(theirs).copied().collect();
    for jump in jumps {
        let (at, by_s) = (jump.0.timestamp(), i64::from(jump.1));
        let near: Vec<i64> = told.iter().copied().filter(|second| (second - at).abs() < 12 * 3600).collect();
        told.retain(|second| !near.contains(second));
        let (more, less): (Vec<i64>, Vec<i64>) = near.into_iter().partition(|second| ours.contains(second));
        let (first, missed): (Vec<i64>, Vec<i64>) = more.into_iter().partition(|second| by_s > 0 && *second == at);
        // The second showing, where there is one.
        assert!(less.iter().all(|second| (at..at - by_s).contains(second)), "{cron} in {zone}: {less:?} at the jump of {}", jump.0);
        for (why, more, less) in [("gap", first, vec![]), ("fold", vec![], less), ("missed", missed, vec![])] {
            if !more.is_empty() || !less.is_empty() {
                found.push(Difference { why, zone, cron, jump: *jump, more, less });
            }
        }
    }
    assert!(told.is_empty(), "{cron} in {zone}: {told:?} far from any jump");
    found
}

/// What the referee is asked: an expression, in a zone, from when to when.
type Job = (Tz, &'static str, Vec<(i64, i64)>);

/// Its answers, a list for each span.
fn asked(python: &Path, jobs: &[Job]) -> Vec<Vec<Vec<i64>>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let ask = |part: &[Job]| {
        let jobs: Vec<_> = part.iter().map(|(zone, cron, spans)| json!({ "zone": zone.name(), "cron": cron, "spans": spans })).collect();
        let mut script = Command::new(python);
        script.arg(repository().join("tests/support/ticks.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(json!({ "jobs": jobs }).to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "ticks.py failed");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Vec<Vec<i64>>>>()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = jobs.chunks(jobs.len().div_ceil(cpus).max(1)).map(|part| scope.spawn(move || ask(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

#[test]
fn ticks_are_those_of_another_library_but_for_gaps_and_folds() {
    let Some(python) = referee::python() else { return };
    let zones: Vec<Tz> = ZONES.iter().map(|zone| zone.parse().unwrap()).collect();
    let jumps: Vec<_> = zones.iter().map(|zone| jumps(*zone)).collect();
    let jobs: Vec<Job> = zones
        .iter()
        .zip(&jumps)
        .flat_map(|(zone, jumps)| EXPRESSIONS.into_iter().enumerate().map(move |(number, cron)| (*zone, cron, spans(number, jumps))))
        .collect();
    let answers = asked(&python, &jobs);
    assert_eq!(answers.len(), jobs.len());
    let (mut found, mut compared) = (Vec::new(), 0);
    for ((zone, cron, spans), theirs) in jobs.iter().zip(&answers) {
        let schedule = schedule(cron, zone.name());
        let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap();
        let ours: BTreeSet<i64> =
            spans.iter().flat_map(|(from, to)| ticks(&schedule, at(*from), at(*to))).map(|tick| tick.timestamp()).collect();
        let theirs: BTreeSet<i64> = theirs.iter().flatten().copied().collect();
        compared += ours.len();
        let of_zone = zones.iter().position(|other| other == zone).unwrap();
        found.extend(differences(*zone, cron, &jumps[of_zone], &ours, &theirs));
    }
    assert!(compared > 500_000, "{compared} ticks were compared");
    // What it misses it is asked for once more, on a clock that is never changed: there it must tick.
    let missed: Vec<(&Difference, i64)> =
        found.iter().filter(|one| one.why == "missed").flat_map(|one| one.more.iter().map(move |second| (one, *second))).collect();
    let wall = |(one, second): &(&Difference, i64)| second + i64::from(offset_s(one.zone, DateTime::from_timestamp(*second, 0).unwrap()));
    let again: Vec<Job> = missed.iter().map(|missed| (Tz::UTC, missed.0.cron, vec![(wall(missed) - 1, wall(missed))])).collect();
    for (missed, answer) in missed.iter().zip(asked(&python, &again)) {
        assert_eq!(answer, [[wall(missed)]], "{} in {}: no tick at {}", missed.0.cron, missed.0.zone, missed.1);
    }
    let mut page = "# Where Weir's ticks are not those of cronsim, which does not hold its rule of gaps and folds for expressions with a star for hour or\n\
                    # minute, or with seconds; and which misses ticks of these where a clock is changed by half an hour.\n\
                    # why, zone, day, seconds of the jump, expression, ticks that Weir has besides, ticks that it has not\n"
        .to_owned();
    found.iter().for_each(|one| writeln!(page, "{}", one.line()).unwrap());
    let path = repository().join("tests/schedules/exceptions.tsv");
    if std::env::var_os("WEIR_ACCEPT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap();
    if let Some((listed, found)) = listed.lines().zip(page.lines()).find(|(listed, found)| listed != found) {
        panic!("another exception than listed (WEIR_ACCEPT=1 takes it over)\n--- listed\n{listed}\n--- found\n{found}");
    }
    assert_eq!(listed.lines().count(), page.lines().count(), "another number of exceptions than listed");
}
