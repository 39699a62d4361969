//! Tests of `due.rs`: each rule by an example, and all of them by random looks.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-01-01T{text}Z").parse().expect("an instant")
}

fn hourly(catch_up: CatchUp, overlap: Overlap) -> Schedule {
    Schedule { every: Some(Duration::from_secs(3600)), catch_up, overlap, ..Schedule::default() }
}

const GRACE: TimeDelta = TimeDelta::seconds(60);

/// What is due, as `12:00 run 1`: the tick, what becomes of it, and how many intervals it holds, with why.
fn looked(schedule: &Schedule, covered: &str, busy: bool, now: &str) -> Vec<String> {
    let mut standing = Standing { covered: at(covered) };
    let slots = due(schedule, &mut standing, busy, at(now), GRACE);
    let mut before = at(covered);
    for slot in &slots {
        assert_eq!((slot.start, slot.end), (before, slot.at));
        before = slot.end;
    }
    assert_eq!(standing.covered, before);
    let line = |slot: &Slot| {
        let why = slot.reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default();
        format!("{} {} {}{why}", slot.at.format("%H:%M"), slot.action.as_str(), slot.joined)
    };
    slots.iter().map(line).collect()
}

#[test]
fn a_tick_on_time_is_run_and_none_is_due_before_it() {
    let schedule = hourly(CatchUp::Latest, Overlap::Skip);
    assert!(looked(&schedule, "10:00:00", false, "10:59:59").is_empty());
    assert_eq!(looked(&schedule, "10:00:00", false, "11:00:00"), ["11:00 run 1"]);
    assert_eq!(looked(&schedule, "10:00:00", false, "11:01:00"), ["11:00 run 1"]);
    assert_eq!(looked(&schedule, "10:00:00", false, "11:01:01"), ["11:00 catch_up 1"]);
    // The clock was set back.
    assert!(looked(&schedule, "11:00:00", false, "10:00:00").is_empty());
}

#[test]
fn missed_ticks_are_run_joined_or_skipped() {
    let looked = |catch_up, now| looked(&hourly(catch_up, Overlap::Skip), "10:00:00", false, now);
    assert_eq!(looked(CatchUp::All, "12:30:00"), ["11:00 catch_up 1", "12:00 catch_up 1"]);
    assert_eq!(looked(CatchUp::Latest, "12:30:00"), ["12:00 catch_up 2"]);
    assert_eq!(looked(CatchUp::None, "12:30:00"), [format!("11:00 skip 1, {MISSED}"), format!("12:00 skip 1, {MISSED}")]);
    // The last one is on time.
    assert_eq!(
        looked(CatchUp::All, "13:00:30"),
        ["11:00 catch_up 1".into(), "12:00 catch_up 1".into(), format!("13:00 queue 1, {BEHIND}")]
    );
    assert_eq!(looked(CatchUp::Latest, "13:00:30"), ["13:00 catch_up 3"]);
    assert_eq!(
        looked(CatchUp::None, "13:00:30"),
        [format!("11:00 skip 1, {MISSED}"), format!("12:00 skip 1, {MISSED}"), "13:00 run 1".into()]
    );
}

#[test]
fn a_tick_that_meets_a_run_is_skipped_waits_or_takes_its_place() {
    for catch_up in [CatchUp::All, CatchUp::Latest, CatchUp::None] {
        let looked = |overlap| looked(&hourly(catch_up, overlap), "10:00:00", true, "11:00:00");
        assert_eq!(looked(Overlap::Skip), [format!("11:00 skip 1, {BUSY}")]);
        assert_eq!(looked(Overlap::Queue), [format!("11:00 queue 1, {BUSY}")]);
        assert_eq!(looked(Overlap::Cancel), [format!("11:00 run 1, {CANCELS}")]);
    }
    // What was missed is caught up all the same.
    assert_eq!(looked(&hourly(CatchUp::Latest, Overlap::Skip), "10:00:00", true, "11:30:00"), ["11:00 catch_up 1"]);
}

#[test]
fn several_ticks_on_time_at_one_look_lose_no_more_than_they_must() {
    let schedule = |catch_up, overlap| Schedule { every: Some(Duration::from_secs(20)), ..hourly(catch_up, overlap) };
    let looked = |catch_up, overlap, busy| {
        let lines = looked(&schedule(catch_up, overlap), "10:00:00", busy, "10:01:00");
        lines.iter().map(|line| line["10:00 ".len()..].to_owned()).collect::<Vec<_>>()
    };
    let queue = format!("queue 1, {BUSY}");
    let skip = format!("skip 1, {BUSY}");
    let overtaken = format!("skip 1, {OVERTAKEN}");
    let run = "run 1".to_owned();
    for catch_up in [CatchUp::All, CatchUp::Latest, CatchUp::None] {
        assert_eq!(looked(catch_up, Overlap::Queue, false), [run.clone(), queue.clone(), queue.clone()]);
        assert_eq!(looked(catch_up, Overlap::Queue, true), [queue.clone(), queue.clone(), queue.clone()]);
        assert_eq!(looked(catch_up, Overlap::Skip, true), [skip.clone(), skip.clone(), skip.clone()]);
    }
    for overlap in [Overlap::Skip, Overlap::Cancel] {
        assert_eq!(looked(CatchUp::All, overlap, false), [run.clone(), queue.clone(), queue.clone()]);
        assert_eq!(looked(CatchUp::Latest, overlap, false), ["run 3"]);
    }
    assert_eq!(looked(CatchUp::None, Overlap::Skip, false), [run.clone(), skip.clone(), skip]);
    assert_eq!(looked(CatchUp::None, Overlap::Cancel, false), [overtaken.clone(), overtaken.clone(), run]);
    assert_eq!(looked(CatchUp::Latest, Overlap::Cancel, true), [format!("run 3, {CANCELS}")]);
    for catch_up in [CatchUp::All, CatchUp::None] {
        assert_eq!(looked(catch_up, Overlap::Cancel, true), [overtaken.clone(), overtaken.clone(), format!("run 1, {CANCELS}")]);
    }
}

#[test]
fn a_schedule_begins_at_its_start_or_with_the_interval_that_is_going_on() {
    let schedule = hourly(CatchUp::All, Overlap::Skip);
    assert_eq!(begin(&schedule, at("10:30:00")), Some(at("10:00:00")));
    assert_eq!(begin(&schedule, at("10:00:00")), Some(at("10:00:00")));
    for now in ["00:00:00", "23:00:00"] {
        let schedule = Schedule { start: Some(at("05:30:00")), ..schedule.clone() };
        assert_eq!(begin(&schedule, at(now)), Some(at("06:00:00")));
    }
    assert_eq!(begin(&Schedule { start: Some(at("05:00:00")), ..schedule.clone() }, at("10:30:00")), Some(at("05:00:00")));
    assert_eq!(begin(&Schedule::default(), at("10:30:00")), None);
    let over = Schedule { start: Some(at("05:30:00")), end: Some(at("05:40:00")), ..schedule };
    assert_eq!(begin(&over, at("10:30:00")), None);
}

#[test]
fn a_changed_schedule_goes_on_where_the_old_one_ended() {
    // Hourly until 10:00, then every 7 minutes, counted from the epoch and not from the change.
    let schedule = Schedule { every: Some(Duration::from_secs(7 * 60)), ..hourly(CatchUp::All, Overlap::Queue) };
    let mut standing = Standing { covered: at("10:00:00") };
    let slots = due(&schedule, &mut standing, false, at("10:12:00"), GRACE);
    assert_eq!(slots.first().map(|slot| slot.start), Some(at("10:00:00")));
    assert!(slots.windows(2).all(|pair| pair[0].end == pair[1].start));
    // A start that was set later leaves out what lies before it.
    let schedule = Schedule { start: Some(at("11:30:00")), ..hourly(CatchUp::All, Overlap::Queue) };
    let slots = due(&schedule, &mut standing, false, at("13:00:00"), GRACE);
    assert_eq!(slots.iter().map(|slot| (slot.start, slot.end)).collect::<Vec<_>>(), [(at("12:00:00"), at("13:00:00"))]);
    // Behind the end, nothing is due.
    let schedule = Schedule { end: Some(at("13:30:00")), ..hourly(CatchUp::All, Overlap::Queue) };
    assert!(due(&schedule, &mut standing, false, at("20:00:00"), GRACE).is_empty());
}

#[test]
fn one_look_makes_no_more_slots_than_can_be_held() {
    let schedule = Schedule { every: Some(Duration::from_secs(1)), ..hourly(CatchUp::All, Overlap::Skip) };
    let mut standing = Standing { covered: at("00:00:00") };
    let mut all = 0;
    loop {
        let slots = due(&schedule, &mut standing, false, at("06:00:00"), GRACE);
        all += slots.len();
        match slots.len() {
            0 => break,
            some => assert!(some <= SLOTS_MAX),
        }
    }
    assert_eq!((all, standing.covered), (6 * 3600, at("06:00:00")));
}

fn ways() -> impl Strategy<Value = (CatchUp, Overlap)> {
    (
        prop_oneof![Just(CatchUp::All), Just(CatchUp::Latest), Just(CatchUp::None)],
        prop_oneof![Just(Overlap::Skip), Just(Overlap::Queue), Just(Overlap::Cancel)],
    )
}

proptest! {
    #[test]
    fn whatever_the_looks_each_tick_is_settled_once(
        (catch_up, overlap) in ways(),
        period_s in 1_u64..5000,
        looks in prop::collection::vec((-3600_i64..9000, any::<bool>()), 1..40),
    ) {
        let schedule = Schedule { every: Some(Duration::from_secs(period_s)), ..hourly(catch_up, overlap) };
        let mut now = at("00:00:00");
        let begun = begin(&schedule, now).expect("it ticks");
        let mut standing = Standing { covered: begun };
        let (mut joined, mut furthest, mut before) = (0, now, begun);
        for (step_s, busy) in looks {
            now += TimeDelta::seconds(step_s);
            furthest = furthest.max(now);
            for slot in due(&schedule, &mut standing, busy, now, GRACE) {
                prop_assert_eq!((slot.start, slot.end), (before, slot.at));
                prop_assert!(slot.start < slot.end && slot.end <= now && slot.joined > 0);
                prop_assert_eq!(slot.action == Action::Skip && slot.reason.is_none(), false, "a skipped tick says why");
                joined += slot.joined;
                before = slot.end;
            }
        }
        let mut ticks = 0;
        let mut tick = begun;
        while let Some(next) = schedule.next_after(tick).filter(|next| *next <= furthest) {
            (ticks, tick) = (ticks + 1, next);
        }
        prop_assert_eq!((joined, standing.covered), (ticks, tick));
    }
}
