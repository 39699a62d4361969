//! Tests of `simulate.rs`: what overlaps, waits, is missed and is cancelled; and ten years of odd zones.

use weir_pipelines::{Spanned, cron::CatchUp};

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-01-01T{text}:00Z").parse().expect("an instant")
}

fn hourly(catch_up: CatchUp, overlap: Overlap) -> Schedule {
    Schedule { every: Some(Duration::from_secs(3600)), catch_up, overlap, ..Schedule::default() }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// What becomes of each tick from 10:00 to 15:00, as `11:00 run 11:00-11:05 published`.
fn simulated(plans: &[Plan<'_>], outages: &[(&str, &str)]) -> Vec<String> {
    let outages: Vec<_> = outages.iter().map(|(start, end)| Interval { start: at(start), end: at(end) }).collect();
    let settled = simulate(plans, at("10:00"), at("15:00"), &outages).expect("few ticks");
    let time = |at: DateTime<Utc>| at.format("%H:%M").to_string();
    let line = |settled: &Settled| {
        let slot = &settled.slot;
        let mut line = format!("{} {}", time(slot.at), slot.action.as_str());
        if slot.joined > 1 {
            line += &format!(" {}", slot.joined);
        }
        if let (Some(started), Some(finished), Some(outcome)) = (settled.started, settled.finished, settled.outcome) {
            line += &format!(" {}-{} {}", time(started), time(finished), outcome.as_str());
        }
        if plans.len() > 1 { format!("{} {line}", plans[settled.plan].pipeline) } else { line }
    };
    settled.iter().map(line).collect()
}

fn one(schedule: &Schedule, takes: u64, outages: &[(&str, &str)]) -> Vec<String> {
    simulated(&[Plan { pipeline: "p", schedule, takes: minutes(takes) }], outages)
}

#[test]
fn runs_that_take_long_are_overlapped_as_the_schedule_says() {
    let schedule = |overlap| hourly(CatchUp::Latest, overlap);
    assert_eq!(
        one(&schedule(Overlap::Skip), 90, &[]),
        [
            "11:00 run 11:00-12:30 published",
            "12:00 skip",
            "13:00 run 13:00-14:30 published",
            "14:00 skip",
            "15:00 run 15:00-16:30 published"
        ]
    );
    assert_eq!(
        one(&schedule(Overlap::Queue), 90, &[]),
        [
            "11:00 run 11:00-12:30 published",
            "12:00 queue 12:30-14:00 published",
            "13:00 queue 14:00-15:30 published",
            "14:00 queue",
            "15:00 queue"
        ]
    );
    assert_eq!(
        one(&schedule(Overlap::Cancel), 90, &[]),
        [
            "11:00 run 11:00-12:00 cancelled",
            "12:00 run 12:00-13:00 cancelled",
            "13:00 run 13:00-14:00 cancelled",
            "14:00 run 14:00-15:00 cancelled",
            "15:00 run 15:00-16:30 published"
        ]
    );
}

#[test]
fn an_outage_makes_ticks_missed_and_begins_a_run_again() {
    let outage = [("11:10", "13:30")];
    let schedule = |catch_up| hourly(catch_up, Overlap::Skip);
    // The run at 11:00 is ended by the outage, and begun again behind it.
    assert_eq!(
        one(&schedule(CatchUp::All), 20, &outage),
        [
            "11:00 run 13:30-13:50 published",
            "12:00 catch_up 13:50-14:10 published",
            "13:00 catch_up 14:10-14:30 published",
            "14:00 skip",
            "15:00 run 15:00-15:20 published"
        ]
    );
    assert_eq!(
        one(&schedule(CatchUp::Latest), 20, &outage),
        ["11:00 run 13:30-13:50 published", "13:00 catch_up 2 13:50-14:10 published", "14:00 skip", "15:00 run 15:00-15:20 published"]
    );
    assert_eq!(
        one(&schedule(CatchUp::None), 20, &outage),
        [
            "11:00 run 13:30-13:50 published",
            "12:00 skip",
            "13:00 skip",
            "14:00 run 14:00-14:20 published",
            "15:00 run 15:00-15:20 published"
        ]
    );
    // Two that touch are one; a run that has ended before is not begun again.
    assert_eq!(
        one(&schedule(CatchUp::Latest), 5, &[("12:20", "13:30"), ("11:10", "12:20")]),
        [
            "11:00 run 11:00-11:05 published",
            "13:00 catch_up 2 13:30-13:35 published",
            "14:00 run 14:00-14:05 published",
            "15:00 run 15:00-15:05 published"
        ]
    );
}

#[test]
fn a_pipeline_waits_until_others_have_published_what_ended_before() {
    let first = hourly(CatchUp::Latest, Overlap::Skip);
    let every = Some(Duration::from_secs(2 * 3600));
    let second = Schedule { every, after: vec![Spanned::new("first".into(), 0..0)], ..hourly(CatchUp::Latest, Overlap::Skip) };
    let plans = [
        Plan { pipeline: "first", schedule: &first, takes: minutes(25) },
        Plan { pipeline: "second", schedule: &second, takes: minutes(5) },
    ];
    assert_eq!(
        simulated(&plans, &[]),
        [
            "first 11:00 run 11:00-11:25 published",
            "first 12:00 run 12:00-12:25 published",
            "second 12:00 run 12:25-12:30 published",
            "first 13:00 run 13:00-13:25 published",
            "first 14:00 run 14:00-14:25 published",
            "second 14:00 run 14:25-14:30 published",
            "first 15:00 run 15:00-15:25 published"
        ]
    );
}

#[test]
fn a_time_limit_ends_a_run_and_jitter_delays_its_start() {
    let schedule = Schedule { timeout: Some(minutes(10)), ..hourly(CatchUp::Latest, Overlap::Skip) };
    assert_eq!(one(&schedule, 20, &[])[0], "11:00 run 11:00-11:10 failed");
    let schedule = Schedule { jitter: Some(minutes(30)), ..hourly(CatchUp::Latest, Overlap::Skip) };
    let settled = simulate(&[Plan { pipeline: "p", schedule: &schedule, takes: minutes(1) }], at("10:00"), at("15:00"), &[]).expect("few");
    for settled in settled.iter().filter(|settled| settled.started.is_some()) {
        let jitter = TimeDelta::from_std(schedule.jitter_of("p", settled.slot.at)).expect("short");
        assert_eq!(settled.started, Some(settled.slot.at + jitter));
    }
}

#[test]
fn too_many_ticks_are_refused() {
    let schedule = Schedule { every: Some(Duration::from_millis(1)), ..hourly(CatchUp::All, Overlap::Skip) };
    assert_eq!(simulate(&[Plan { pipeline: "p", schedule: &schedule, takes: minutes(0) }], at("10:00"), at("15:00"), &[]), Err(TooMany));
}
