//! When a pipeline runs by itself: cron expression or period, time zone, what happens to missed ticks and overlaps.
//! What time it is now is left to the scheduler.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};

use crate::diagnostic::Spanned;

/// A `[schedule]` table.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The expression as written: five fields, or six with seconds first.
    pub cron: Option<Spanned<String>>,
    /// A fixed period in place of `cron`, counted from 1970-01-01T00:00:00Z: `1h` is every full hour.
    pub every: Option<Duration>,
    /// The zone whose clock `cron` means. Default UTC.
    pub timezone: chrono_tz::Tz,
    /// What happens to ticks missed while nothing ran. Default latest.
    pub catch_up: CatchUp,
    /// What happens when the run before still runs. Default skip.
    pub overlap: Overlap,
    /// Pipelines that must have published for the interval first.
    pub after: Vec<Spanned<String>>,
    /// A run longer than this is stopped.
    pub timeout: Option<Duration>,
    /// How failures outside the pipeline are tried again.
    pub retry: Option<Retry>,
}

/// What happens to ticks missed while nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// Each is run.
    All,
    /// One run covers them.
    Latest,
    /// They are skipped.
    None,
}

/// What happens when the run before still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// The tick is skipped.
    Skip,
    /// It waits.
    Queue,
    /// The run before is cancelled.
    Cancel,
}

/// How failures are tried again: exponential backoff with full jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The first wait's upper bound.
    pub backoff: Duration,
    /// No wait is longer than this.
    pub backoff_max: Duration,
}

impl Schedule {
    /// The first tick after an instant; none when it never comes (`parse` refuses such schedules) or lies beyond the year 2100.
    ///
    /// `cron` means the clock on the wall of `timezone`. A time that the wall clock jumps over (daylight saving begins) ticks once, at the first
    /// instant after the jump; a time that it shows twice (daylight saving ends) ticks once, the first time.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match (&self.cron, self.every) {
            (Some(cron), _) => Expression::parse(&cron.value).ok()?.next_after(after, self.timezone),
            (None, Some(every)) => {
                let period_ms = i64::try_from(every.as_millis()).ok().filter(|ms| *ms > 0)?;
                let past = after.timestamp_millis().div_euclid(period_ms);
                DateTime::from_timestamp_millis(past.checked_add(1)?.checked_mul(period_ms)?)
            }
            (None, None) => None,
        }
    }
}

/// A cron expression that parsed. As in crontab, a day matches when the day of month or the day of week does, where both are restricted.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    alternatives: Vec<cron::Schedule>,
}

struct Field {
    what: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 6] = [
    Field { what: "second", min: 0, max: 59, names: &[] },
    Field { what: "minute", min: 0, max: 59, names: &[] },
    Field { what: "hour", min: 0, max: 23, names: &[] },
    Field { what: "day of month", min: 1, max: 31, names: &[] },
    Field { what: "month", min: 1, max: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] },
    Field { what: "day of week", min: 0, max: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

impl Field {
    /// The numbers that one field of an expression stands for.
    fn numbers(&self, text: &str) -> Result<BTreeSet<u32>, String> {
        let mut numbers = BTreeSet::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse::<u32>().ok().filter(|step| *step > 0);
                    (range, Some(step.ok_or_else(|| format!("\"{item}\" has no step of 1 or more after its \"/\""))?))
                }
                None => (item, None),
            };
            let (from, to) = match (range, range.split_once('-')) {
                // Seven is Sunday again; a star means each day once.
                ("*" | "?", _) => (self.min, if self.max == 7 { 6 } else { self.max }),
                (_, Some((from, to))) => (self.number(from)?, self.number(to)?),
                (one, None) => {
                    let from = self.number(one)?;
                    let last = if self.max == 7 { from.max(6) } else { self.max };
                    (from, if step.is_some() { last } else { from })
                }
            };
            if from > to {
                return Err(format!("\"{range}\" runs backwards: write the smaller {} first", self.what));
            }
            numbers.extend((from..=to).step_by(step.unwrap_or(1) as usize));
        }
        Ok(numbers)
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.min + u32::try_from(at).unwrap_or(0));
        }
        let names =
            if self.names.is_empty() { String::new() } else { format!(", or {} to {}", self.names[0], self.names[self.names.len() - 1]) };
        let number = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok() } else { None };
        number.filter(|number| (self.min..=self.max).contains(number)).ok_or_else(|| {
            format!(
                "\"{text}\" is not {} {}: write {} to {}{names}",
                if self.what == "hour" { "an" } else { "a" },
                self.what,
                self.min,
                self.max
            )
        })
    }
}

impl Expression {
    /// Parses five fields (minute, hour, day of month, month, day of week; 0 and 7 are Sunday), or six with seconds first.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => {}
            other => {
                return Err(format!(
                    "a cron expression has five fields (minute, hour, day of month, month, day of week), or six with seconds first, not {other}"
                ));
            }
        }
        let mut lists = Vec::with_capacity(6);
        for (field, text) in FIELDS.iter().zip(&fields) {
            let numbers = field.numbers(text)?;
            // The crate counts the days of the week from 1, Sunday; people from 0 (or 7), Sunday.
            let numbers: BTreeSet<u32> = if field.max == 7 { numbers.iter().map(|day| day % 7 + 1).collect() } else { numbers };
            lists.push(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        let any = |text: &str| text.starts_with('*') || text.starts_with('?');
        let either = !any(fields[3]) && !any(fields[5]);
        let days: Vec<(String, String)> = match either {
            true => vec![(lists[3].clone(), "*".into()), ("*".into(), lists[5].clone())],
            false => vec![(lists[3].clone(), lists[5].clone())],
        };
        let alternatives = days.into_iter().map(|(day, weekday)| {
            let expression = format!("{} {} {} {day} {} {weekday}", lists[0], lists[1], lists[2], lists[4]);
            cron::Schedule::from_str(&expression).map_err(|error| format!("\"{text}\" is not a cron expression: {error}"))
        });
        Ok(Self { alternatives: alternatives.collect::<Result<_, _>>()? })
    }

    /// True when some day matches. What day it is does not matter: all pairs of date and weekday occur within 28 years.
    pub(crate) fn fires(&self) -> bool {
        DateTime::from_timestamp(946_684_800, 0).is_some_and(|year_2000| self.next_after(year_2000, chrono_tz::UTC).is_some())
    }

    fn next_after(&self, after: DateTime<Utc>, zone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
        // The crate is asked about wall clocks as if they were UTC, where there are no jumps; they become instants here.
        let wall = Utc.from_utc_datetime(&after.with_timezone(&zone).naive_local());
        let next =
            |schedule: &cron::Schedule| schedule.after(&wall).filter_map(|tick| instant(tick.naive_utc(), zone)).find(|tick| *tick > after);
        self.alternatives.iter().filter_map(next).min()
    }
}

/// The instant at which a wall clock first shows a time, or first shows a later one where it jumps over that time.
fn instant(wall: NaiveDateTime, zone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(tick) | LocalResult::Ambiguous(tick, _) => Some(tick.with_timezone(&Utc)),
        LocalResult::None => {
            // No zone is further than 14 hours from UTC, so the jump lies between these.
            let mut before = Utc.from_utc_datetime(&wall.checked_sub_signed(TimeDelta::hours(16))?);
            let mut behind = Utc.from_utc_datetime(&wall.checked_add_signed(TimeDelta::hours(16))?);
            while behind - before > TimeDelta::seconds(1) {
                let middle = before + TimeDelta::seconds((behind - before).num_seconds() / 2);
                if middle.with_timezone(&zone).naive_local() > wall {
                    behind = middle;
                } else {
                    before = middle;
                }
            }
            Some(behind)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule {
            cron: Some(Spanned::new(cron.into(), 0..0)),
            every: None,
            timezone: zone.parse().expect("a zone"),
            catch_up: CatchUp::Latest,
            overlap: Overlap::Skip,
            after: vec![],
            timeout: None,
            retry: None,
        }
    }

    /// The next ticks, on the wall clock of the schedule's zone.
    fn ticks(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut at: DateTime<Utc> = after.parse().expect("an instant");
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
        let schedule = Schedule { cron: None, every: Some(Duration::from_secs(3600)), ..schedule("* * * * *", "UTC") };
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

    proptest! {
        #[test]
        fn no_expression_panics(text in "[0-9*/,?a-z -]{0,30}|\\PC{0,20}") {
            if let Ok(expression) = Expression::parse(&text) {
                expression.fires();
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
        }
    }
}
