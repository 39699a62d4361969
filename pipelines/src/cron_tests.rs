//! Tests of `cron.rs` and its parts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn schedule(cron: &str, zone: &str) -> Schedule {
    let cron = Cron::parse(Spanned::new(cron.into(), 0..0)).expect("an expression");
    Schedule { cron: Some(cron), timezone: zone.parse().expect("a zone"), ..Schedule::default() }
}

fn hourly() -> Schedule {
    Schedule { every: Some(Duration::from_secs(3600)), ..Schedule::default() }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

/// The next ticks, on the wall clock of the schedule's zone.
fn ticks(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let mut at = at(after);
    let mut ticks = Vec::new();
    for _ in 0..count {
        at = schedule.next_after(at).expect("it ticks");
        ticks.push(at.with_timezone(&schedule.timezone).format("%a %Y-%m-%dT%H:%M:%S%:z").to_string());
    }
    ticks
}

#[test]
fn five_fields_are_minutes_and_six_start_with_seconds() {
    assert_eq!(
        ticks(&schedule("15 6 * * *", "America/New_York"), "2026-01-01T00:00:00Z", 2),
        ["Thu 2026-01-01T06:15:00-05:00", "Fri 2026-01-02T06:15:00-05:00"]
    );
    assert_eq!(
        ticks(&schedule("*/20 * * * * *", "UTC"), "2026-01-01T00:00:00Z", 3),
        ["Thu 2026-01-01T00:00:20+00:00", "Thu 2026-01-01T00:00:40+00:00", "Thu 2026-01-01T00:01:00+00:00"]
    );
}

#[test]
fn days_of_the_week_count_from_sunday_as_zero_or_seven() {
    let days = |field: &str| {
        ticks(&schedule(&format!("0 0 * * {field}"), "UTC"), "2026-01-01T00:00:00Z", 7)
            .iter()
            .map(|tick| tick[..3].to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(days("0"), ["Sun"]);
    assert_eq!(days("7"), ["Sun"]);
    assert_eq!(days("1"), ["Mon"]);
    assert_eq!(days("6"), ["Sat"]);
    assert_eq!(days("5-7"), ["Fri", "Sat", "Sun"]);
    assert_eq!(days("mon-wed,SAT"), ["Mon", "Sat", "Tue", "Wed"]);
    assert_eq!(days("1-5/2"), ["Fri", "Mon", "Wed"]);
    assert_eq!(days("*/3"), ["Sat", "Sun", "Wed"]);
    assert_eq!(days("5/1"), ["Fri", "Sat"]);
    assert_eq!(days("*").len(), 7);
}

#[test]
fn a_day_matches_by_date_or_by_weekday_where_both_are_restricted() {
    assert_eq!(
        ticks(&schedule("0 0 13 * 5", "UTC"), "2026-01-01T00:00:00Z", 3),
        ["Fri 2026-01-02T00:00:00+00:00", "Fri 2026-01-09T00:00:00+00:00", "Tue 2026-01-13T00:00:00+00:00"]
    );
}

#[test]
fn a_time_that_the_clock_jumps_over_ticks_once_right_after_the_jump() {
    // New York, 8 March 2026: 02:00 becomes 03:00.
    assert_eq!(
        ticks(&schedule("30 2 * * *", "America/New_York"), "2026-03-07T12:00:00Z", 2),
        ["Sun 2026-03-08T03:00:00-04:00", "Mon 2026-03-09T02:30:00-04:00"]
    );
    assert_eq!(
        ticks(&schedule("*/20 1-3 * * *", "America/New_York"), "2026-03-08T06:30:00Z", 4),
        [
            "Sun 2026-03-08T01:40:00-05:00",
            "Sun 2026-03-08T03:00:00-04:00",
            "Sun 2026-03-08T03:20:00-04:00",
            "Sun 2026-03-08T03:40:00-04:00"
        ]
    );
    // Samoa left out the whole of 30 December 2011.
    assert_eq!(
        ticks(&schedule("0 12 * * *", "Pacific/Apia"), "2011-12-29T00:00:00Z", 3),
        ["Thu 2011-12-29T12:00:00-10:00", "Sat 2011-12-31T00:00:00+14:00", "Sat 2011-12-31T12:00:00+14:00"]
    );
}

#[test]
fn a_time_that_the_clock_shows_twice_ticks_once() {
    // New York, 1 November 2026: 02:00 becomes 01:00.
    let schedule = schedule("30 1 * * *", "America/New_York");
    assert_eq!(ticks(&schedule, "2026-10-31T12:00:00Z", 2), ["Sun 2026-11-01T01:30:00-04:00", "Mon 2026-11-02T01:30:00-05:00"]);
    // Asked during the second showing.
    assert_eq!(ticks(&schedule, "2026-11-01T06:10:00Z", 1), ["Mon 2026-11-02T01:30:00-05:00"]);
}

#[test]
fn a_period_counts_from_the_epoch() {
    let schedule = hourly();
    assert_eq!(ticks(&schedule, "2026-01-01T00:30:00Z", 2), ["Thu 2026-01-01T01:00:00+00:00", "Thu 2026-01-01T02:00:00+00:00"]);
    let after: DateTime<Utc> = "1969-12-31T22:30:00Z".parse().expect("an instant");
    assert_eq!(schedule.next_after(after).map(|at| at.to_rfc3339()).as_deref(), Some("1969-12-31T23:00:00+00:00"));
}

#[test]
fn what_is_no_expression_says_why() {
    let why = |text| Expression::parse(text).err().unwrap_or_default();
    let fields = "a cron expression has five fields (minute, hour, day of month, month, day of week), or six with seconds first, not";
    assert_eq!(why("* * *"), format!("{fields} 3"));
    assert_eq!(why("@daily"), format!("{fields} 1"));
    assert_eq!(why(""), format!("{fields} 0"));
    assert_eq!(why("60 * * * *"), "\"60\" is not a minute: write 0 to 59");
    assert_eq!(why("* 24 * * *"), "\"24\" is not an hour: write 0 to 23");
    assert_eq!(why("* * 0 * *"), "\"0\" is not a day of month: write 1 to 31");
    assert_eq!(why("* * * foo *"), "\"foo\" is not a month: write 1 to 12, or jan to dec");
    assert_eq!(why("* * * * 8"), "\"8\" is not a day of week: write 0 to 7, or sun to sat");
    assert_eq!(why("*/0 * * * *"), "\"*/0\" has no step of 1 or more after its \"/\"");
    assert_eq!(why("30-10 * * * *"), "\"30-10\" runs backwards: write the smaller minute first");
    assert_eq!(why("1,,2 * * * *"), "\"\" is not a minute: write 0 to 59");
    assert_eq!(why("* * L * *"), "\"L\" is not a day of month: write 1 to 31");
}

#[test]
fn a_date_that_does_not_exist_never_fires() {
    let fires = |text| Expression::parse(text).expect("an expression").fires();
    assert!(!fires("0 0 30 2 *"));
    assert!(!fires("0 0 31 4,6,9,11 *"));
    assert!(fires("0 0 29 2 *"));
    assert!(fires("0 0 30 2 1"), "every Monday of February");
}

#[test]
fn no_tick_lies_before_the_start_or_behind_the_end() {
    let bounded =
        Schedule { start: Some(at("2026-01-01T05:30:00Z")), end: Some(at("2026-01-01T08:00:00Z")), ..schedule("0 * * * *", "UTC") };
    for schedule in [bounded.clone(), Schedule { start: bounded.start, end: bounded.end, ..hourly() }] {
        assert_eq!(schedule.next_after(at("2020-01-01T00:00:00Z")), Some(at("2026-01-01T06:00:00Z")));
        assert_eq!(schedule.next_after(at("2026-01-01T07:00:00Z")), Some(at("2026-01-01T08:00:00Z")));
        assert_eq!(schedule.next_after(at("2026-01-01T08:00:00Z")), None);
        assert_eq!(schedule.last_at_or_before(at("2026-01-01T05:59:59Z")), None);
        assert_eq!(schedule.last_at_or_before(at("2026-01-01T06:59:59Z")), Some(at("2026-01-01T06:00:00Z")));
        assert_eq!(schedule.last_at_or_before(at("2027-01-01T00:00:00Z")), Some(at("2026-01-01T08:00:00Z")));
    }
    // A start on a tick is that tick.
    let schedule = Schedule { start: Some(at("2026-01-01T05:00:00Z")), ..schedule("0 * * * *", "UTC") };
    assert_eq!(schedule.next_after(at("2026-01-01T04:59:59.9Z")), Some(at("2026-01-01T05:00:00Z")));
    assert_eq!(schedule.next_after(at("2026-01-01T05:00:00Z")), Some(at("2026-01-01T06:00:00Z")));
}

#[test]
fn a_moment_is_an_instant_or_stands_on_the_clock_of_a_zone() {
    let read = |text: &str| moment(text, chrono_tz::America::New_York).map(|at| at.to_rfc3339());
    for (text, expected) in [
        ("2026-01-31T06:00:00Z", "2026-01-31T06:00:00+00:00"),
        ("2026-01-31T06:00:00.25+01:00", "2026-01-31T05:00:00.250+00:00"),
        ("2026-01-31", "2026-01-31T05:00:00+00:00"),
        ("2026-01-31T06:00:00", "2026-01-31T11:00:00+00:00"),
        ("2026-01-31 06:00", "2026-01-31T11:00:00+00:00"),
        // The clock jumps over it; it shows it twice.
        ("2026-03-08T02:30:00", "2026-03-08T07:00:00+00:00"),
        ("2026-11-01T01:30:00", "2026-11-01T05:30:00+00:00"),
    ] {
        assert_eq!(read(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "",
        "now",
        "2026-13-01",
        "06:00",
        "2026-01-31T25:00:00Z",
        "2026-01-31Z",
        "999999999-01-01",
        "+262142-12-31",
        "-0044-03-15",
        "0000-12-31T23:59:59Z",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn jitter_is_the_same_each_time_and_spread_evenly() {
    let schedule = Schedule { jitter: Some(Duration::from_secs(60)), ..hourly() };
    let tick = at("2026-01-01T05:00:00Z");
    assert_eq!(schedule.jitter_of("orders", tick), schedule.jitter_of("orders", tick));
    // Servers of two versions share a state.
    assert_eq!(schedule.jitter_of("orders", tick), Duration::from_millis(56_230));
    assert_eq!(hourly().jitter_of("orders", tick), Duration::ZERO);
    let mut quarters = [0; 4];
    for hour in 0..4000 {
        let jitter = schedule.jitter_of("orders", tick + TimeDelta::hours(hour));
        assert!(jitter <= Duration::from_secs(60));
        quarters[usize::try_from(jitter.as_millis() / 15_001).expect("small")] += 1;
    }
    assert!(quarters.iter().all(|count| (900..1100).contains(count)), "{quarters:?}");
}

#[test]
fn the_last_tick_is_found_in_both_showings_of_an_hour() {
    // New York, 1 November 2026: 02:00 becomes 01:00, at 06:00Z.
    let schedule = schedule("*/20 * * * *", "America/New_York");
    let last = |text| schedule.last_at_or_before(at(text)).map(|tick| tick.to_rfc3339());
    assert_eq!(last("2026-11-01T05:30:00Z").as_deref(), Some("2026-11-01T05:20:00+00:00"));
    assert_eq!(last("2026-11-01T06:10:00Z").as_deref(), Some("2026-11-01T05:40:00+00:00"));
    assert_eq!(last("2026-11-01T06:59:59Z").as_deref(), Some("2026-11-01T05:40:00+00:00"));
    assert_eq!(last("2026-11-01T07:00:00Z").as_deref(), Some("2026-11-01T07:00:00+00:00"));
    assert_eq!(last("1969-01-01T00:00:00Z"), None);
}

proptest! {
    #[test]
    fn no_expression_panics(text in "[0-9*/,?a-z -]{0,30}|\\PC{0,20}") {
        if let Ok(expression) = Expression::parse(&text) {
            expression.fires();
        }
    }

    #[test]
    fn no_moment_panics(text in "[+-]?[0-9]{1,6}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{0,12}(Z|[+-][0-9:]{5})?)?|\\PC{0,20}", zone in 0..chrono_tz::TZ_VARIANTS.len()) {
        let zone = chrono_tz::TZ_VARIANTS[zone];
        if let Some(at) = moment(&text, zone) {
            for schedule in [schedule("30 2 * * *", zone.name()), hourly()] {
                let _ = (schedule.next_after(at), schedule.last_at_or_before(at));
                let bounded = Schedule { start: Some(at), end: Some(at), ..schedule };
                let _ = (bounded.next_after(at), bounded.last_at_or_before(at));
            }
        }
    }

    /// The crate `cron` is the referee, on a clock without jumps.
    #[test]
    fn the_next_and_the_last_tick_are_those_of_another_library(
        start in 1_000_000_000_i64..4_000_000_000,
        fields in (field(0, 59), field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(1, 7)),
    ) {
        let (second, minute, hour, day, month, weekday) = fields;
        // Where both are restricted, the crate wants both, and crontab one of them.
        let day = if weekday == "*" { day } else { "*".to_owned() };
        let shifted = weekday.split(',').map(|number| number.parse::<u32>().map_or("*".to_owned(), |number| (number - 1).to_string()));
        let ours = format!("{second} {minute} {hour} {day} {month} {}", shifted.collect::<Vec<_>>().join(","));
        let referee: cron::Schedule = format!("{second} {minute} {hour} {day} {month} {weekday}").parse().expect("an expression");
        let schedule = schedule(&ours, "UTC");
        let mut after = DateTime::from_timestamp(start, 5).expect("in range");
        for expected in referee.after(&after).take(5) {
            prop_assert_eq!(schedule.next_after(after), Some(expected), "{} after {}", ours, after);
            prop_assert_eq!(schedule.last_at_or_before(expected), Some(expected));
            if after.timestamp_subsec_nanos() == 0 {
                prop_assert_eq!(schedule.last_at_or_before(expected - TimeDelta::nanoseconds(1)), Some(after));
            }
            after = expected;
        }
    }

    #[test]
    fn ticks_move_forward_and_skip_none(start in 1_700_000_000i64..1_900_000_000, minute in 0u32..60, hour in 0u32..24) {
        let schedule = schedule(&format!("{minute} {hour} * * *"), "Europe/Berlin");
        let after = DateTime::from_timestamp(start, 0).expect("in range");
        let next = schedule.next_after(after).expect("daily");
        prop_assert!(next > after && next - after <= TimeDelta::hours(25));
        // From any instant in between, the same tick is next.
        let between = after + (next - after) / 2;
        prop_assert_eq!(schedule.next_after(between), Some(next));
        prop_assert_eq!(schedule.last_at_or_before(next), Some(next));
    }
}

/// Some numbers of a field, or all.
fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    let list = |numbers: BTreeSet<u32>| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    prop_oneof![Just("*".to_owned()), prop::collection::btree_set(min..=max, 1..5).prop_map(list)]
}
