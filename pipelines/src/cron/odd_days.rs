//! On which days does a schedule's time not exist, or exist twice?

use std::sync::Arc;

use chrono::{Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use super::{
    Schedule,
    wall::{self, Jump},
};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceFile};

/// So far ahead is looked.
const MONTHS: u32 = 60;

/// A day on which the clock changes at a time of the schedule.
struct OddDay {
    /// The first such time.
    time: NaiveDateTime,
    jump: Jump,
}

impl Schedule {
    /// Warns of a `cron` whose time the clock of its zone jumps over, or shows twice, on some day of the five years that begin with a given
    /// one, or with its start. The day is told; what is done then is told with it.
    pub fn odd_days(&self, file: &Arc<SourceFile>, from: NaiveDate) -> Diagnostics {
        let Some(cron) = self.cron.as_ref().filter(|_| self.timezone != chrono_tz::UTC) else { return vec![] };
        let day = from.and_time(NaiveTime::MIN).and_utc();
        let from = self.start.map_or(day, |start| start.max(day));
        let Some(to) = from.checked_add_months(Months::new(MONTHS)) else { return vec![] };
        let to = self.end.map_or(to, |end| end.min(to));
        let odd = |jump: Jump| {
            let (first, end) = jump.times();
            let time = cron.expression.next(first.checked_sub_signed(TimeDelta::seconds(1))?)?;
            (time < end).then_some(OddDay { time, jump })
        };
        let (skipped, repeated): (Vec<_>, Vec<_>) =
            wall::jumps(self.timezone, from, to).into_iter().filter_map(odd).partition(|day| day.jump.is_forward());
        let warning = |code, days: &[OddDay], does: &str, why: &dyn Fn(&Jump) -> String| {
            let OddDay { time, jump } = days.first()?;
            let message = format!("{} {does} on {} in {}", clock(*time), time.date(), self.timezone.name());
            let found = Diagnostic::warning(code, message).at(file, cron.span(), why(jump));
            let found = match days {
                [] | [_] => found,
                [_, .., last] => {
                    let others = if days.len() == 2 { "1 more day".to_owned() } else { format!("{} more days", days.len() - 1) };
                    found.help(format!("so it is on {others} of the next five years, the last of them {}", last.time.date()))
                }
            };
            Some(found.help("where that matters, choose a time that every day has, or a zone whose clock is never changed, such as UTC"))
        };
        let skip = |jump: &Jump| {
            let (from, to) = (jump.wall_before(), jump.wall_behind());
            format!("the clock jumps from {} to {}: it ticks at {}", clock(from), clock(to), clock(to))
        };
        let repeat = |jump: &Jump| {
            let (from, to) = (jump.wall_before(), jump.wall_behind());
            format!("the clock is set back from {} to {}: it ticks the first time only", clock(from), clock(to))
        };
        let skipped = warning("time-skipped", &skipped, "does not exist", &skip);
        skipped.into_iter().chain(warning("time-repeated", &repeated, "exists twice", &repeat)).collect()
    }
}

fn clock(time: NaiveDateTime) -> String {
    time.format(if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cron::Cron, diagnostic::Spanned, golden::render};

    fn told(cron: &str, zone: &str) -> String {
        let file = SourceFile::new("pipeline.toml", cron);
        let cron = Cron::parse(Spanned::new(cron.to_owned(), 0..cron.len())).expect("an expression");
        let schedule = Schedule { cron: Some(cron), timezone: zone.parse().expect("a zone"), ..Schedule::default() };
        render(&schedule.odd_days(&file, NaiveDate::from_ymd_opt(2026, 6, 1).expect("a day")))
    }

    const HELP: &str =
        "  = help: where that matters, choose a time that every day has, or a zone whose clock is never changed, such as UTC\n";

    #[test]
    fn a_time_that_some_day_lacks_is_told_with_the_day() {
        assert_eq!(
            told("30 2 * * *", "Europe/Berlin"),
            format!(
                "warning[time-skipped]: 02:30 does not exist on 2027-03-28 in Europe/Berlin\n  \
                 1:1 \"30 2 * * *\": the clock jumps from 02:00 to 03:00: it ticks at 03:00\n  \
                 = help: so it is on 4 more days of the next five years, the last of them 2031-03-30\n{HELP}\
                 warning[time-repeated]: 02:30 exists twice on 2026-10-25 in Europe/Berlin\n  \
                 1:1 \"30 2 * * *\": the clock is set back from 03:00 to 02:00: it ticks the first time only\n  \
                 = help: so it is on 4 more days of the next five years, the last of them 2030-10-27\n{HELP}"
            )
        );
        // Half an hour, and a jump at midnight.
        assert_eq!(
            told("45 1 * 4 *", "Australia/Lord_Howe"),
            format!(
                "warning[time-repeated]: 01:45 exists twice on 2027-04-04 in Australia/Lord_Howe\n  \
                 1:1 \"45 1 * 4 *\": the clock is set back from 02:00 to 01:30: it ticks the first time only\n  \
                 = help: so it is on 4 more days of the next five years, the last of them 2031-04-06\n{HELP}"
            )
        );
        assert!(told("0 0 * 9 *", "America/Santiago").starts_with(
            "warning[time-skipped]: 00:00 does not exist on 2026-09-06 in America/Santiago\n  \
             1:1 \"0 0 * 9 *\": the clock jumps from 00:00 to 01:00: it ticks at 01:00\n"
        ));
    }

    #[test]
    fn times_that_every_day_has_once_are_not_told() {
        for (cron, zone) in [
            ("30 2 * * *", "UTC"),
            ("30 2 * * *", "Asia/Kathmandu"),
            ("15 6 * * *", "America/New_York"),
            ("30 2 * 7 *", "Europe/Berlin"),
            ("0 3 * * *", "Europe/Berlin"),
            ("30 2 * * 1-5", "Europe/Berlin"),
        ] {
            assert_eq!(told(cron, zone), "", "{cron} {zone}");
        }
    }
}
