//! Which times on a clock does a cron expression mean? The clock is one without zone; what its times are in a zone is left to `wall.rs`.

use std::collections::BTreeSet;

use ::cron::TimeUnitSpec;
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

/// The years in which an expression has times.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2100;

/// A cron expression that parsed. As in crontab, a day matches when the day of month or the day of week does, where both are restricted.
///
/// The `cron` crate reads it. Each of its fields is kept as a set of bits, so that the next time, and the last one, are found without allocating:
/// they are asked for at every tick that a schedule ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expression {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month and day of week are both restricted: one of them is enough.
    either: bool,
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

/// The numbers of a field, each less by something, as bits.
fn set(field: &impl TimeUnitSpec, less: u32) -> u64 {
    field.iter().fold(0, |set, number| set | 1 << (number - less))
}

/// The smallest number of a set that is not less than `from`.
fn at_least(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

/// The largest number of a set that is not more than `to`.
fn at_most(set: u64, to: u32) -> Option<u32> {
    let rest = set & (u64::MAX >> (63 - to.min(63)));
    (rest != 0).then(|| 63 - rest.leading_zeros())
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
        let mut lists = Vec::with_capacity(FIELDS.len());
        for (field, text) in FIELDS.iter().zip(&fields) {
            let numbers = field.numbers(text)?;
            // The crate counts the days of the week from 1, Sunday; people from 0 (or 7), Sunday.
            let numbers: BTreeSet<u32> = if field.max == 7 { numbers.iter().map(|day| day % 7 + 1).collect() } else { numbers };
            lists.push(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        let read: ::cron::Schedule = lists.join(" ").parse().map_err(|error| format!("\"{text}\" is not a cron expression: {error}"))?;
        let (seconds, minutes, hours) = (set(read.seconds(), 0), set(read.minutes(), 0), set(read.hours(), 0));
        let (days, months, weekdays) = (set(read.days_of_month(), 0), set(read.months(), 0), set(read.days_of_week(), 1));
        let any = |text: &str| text.starts_with('*') || text.starts_with('?');
        Ok(Self { seconds, minutes, hours, days, months, weekdays, either: !any(fields[3]) && !any(fields[5]) })
    }

    /// True when some day matches. What day it is does not matter: all pairs of date and weekday occur within 28 years.
    pub(crate) fn fires(&self) -> bool {
        NaiveDate::from_ymd_opt(2000, 1, 1).is_some_and(|day| self.next(day.and_time(NaiveTime::MIN)).is_some())
    }

    /// The first time after another one. None beyond the year 2100.
    pub(crate) fn next(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let first = NaiveDate::from_ymd_opt(*YEARS.start(), 1, 1)?.and_time(NaiveTime::MIN);
        let from = (after.with_nanosecond(0)?.checked_add_signed(TimeDelta::seconds(1))?).max(first);
        if self.has_day(from.date())
            && let Some(time) = self.time_from(from.time())
        {
            return Some(from.date().and_time(time));
        }
        let mut day = from.date().succ_opt()?;
        loop {
            if !YEARS.contains(&day.year()) {
                return None;
            }
            if self.months >> day.month() & 1 == 0 {
                day = match day.month() {
                    12 => NaiveDate::from_ymd_opt(day.year() + 1, 1, 1)?,
                    month => NaiveDate::from_ymd_opt(day.year(), month + 1, 1)?,
                };
            } else if self.has_day(day) {
                return Some(day.and_time(self.time_from(NaiveTime::MIN)?));
            } else {
                day = day.succ_opt()?;
            }
        }
    }

    /// The last time that is not after another one. None before the year 1970.
    pub(crate) fn last(&self, until: NaiveDateTime) -> Option<NaiveDateTime> {
        let end = NaiveDate::from_ymd_opt(*YEARS.end(), 12, 31)?.and_hms_opt(23, 59, 59)?;
        let until = until.min(end);
        if until.year() < *YEARS.start() {
            return None;
        }
        if self.has_day(until.date())
            && let Some(time) = self.time_until(until.time())
        {
            return Some(until.date().and_time(time));
        }
        let mut day = until.date().pred_opt()?;
        loop {
            if !YEARS.contains(&day.year()) {
                return None;
            }
            if self.months >> day.month() & 1 == 0 {
                day = day.with_day(1)?.pred_opt()?;
            } else if self.has_day(day) {
                return Some(day.and_time(self.time_until(NaiveTime::from_hms_opt(23, 59, 59)?)?));
            } else {
                day = day.pred_opt()?;
            }
        }
    }

    fn has_day(&self, day: NaiveDate) -> bool {
        let date = self.days >> day.day() & 1 == 1;
        let weekday = self.weekdays >> day.weekday().num_days_from_sunday() & 1 == 1;
        self.months >> day.month() & 1 == 1 && if self.either { date || weekday } else { date && weekday }
    }

    /// The first time of day that is not before another one.
    fn time_from(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let time = NaiveTime::from_hms_opt;
        let (first_minute, first_second) = (at_least(self.minutes, 0)?, at_least(self.seconds, 0)?);
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = at_least(self.seconds, second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = at_least(self.minutes, minute + 1) {
                return time(hour, minute, first_second);
            }
        }
        time(at_least(self.hours, hour + 1)?, first_minute, first_second)
    }

    /// The last time of day that is not after another one.
    fn time_until(&self, until: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (until.hour(), until.minute(), until.second());
        let time = NaiveTime::from_hms_opt;
        let (last_minute, last_second) = (at_most(self.minutes, 63)?, at_most(self.seconds, 63)?);
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = at_most(self.seconds, second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = minute.checked_sub(1).and_then(|minute| at_most(self.minutes, minute)) {
                return time(hour, minute, last_second);
            }
        }
        time(at_most(self.hours, hour.checked_sub(1)?)?, last_minute, last_second)
    }
}
