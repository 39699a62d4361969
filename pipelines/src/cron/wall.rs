//! When does the clock on the wall of a zone show a time? Gaps and folds of daylight saving are answered here and nowhere else.

use chrono::{DateTime, Datelike, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Reads a moment: an instant where it has an offset (`2026-01-31T06:00:00Z`), else a time or the beginning of a day on the clock of a zone
/// (`2026-01-31T06:00:00`, `2026-01-31`). None for anything else, and outside the years 1 to 9999.
pub fn moment(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    read(text.trim(), zone).filter(|at| (1..=9999).contains(&at.year()))
}

fn read(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.to_utc());
    }
    let wall = match text.parse::<NaiveDate>() {
        Ok(day) => day.and_time(NaiveTime::MIN),
        Err(_) => ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?,
    };
    // Further on, clocks overflow.
    (0..=10_000).contains(&wall.year()).then(|| instant(wall, zone))?
}

/// The instant at which a wall clock first shows a time, or first shows a later one where it jumps over that time.
pub(crate) fn instant(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(tick) | LocalResult::Ambiguous(tick, _) => Some(tick.with_timezone(&Utc)),
        LocalResult::None => {
            // No zone is further than 14 hours from UTC, so the jump lies between these.
            let before = Utc.from_utc_datetime(&wall.checked_sub_signed(TimeDelta::hours(16))?);
            let behind = Utc.from_utc_datetime(&wall.checked_add_signed(TimeDelta::hours(16))?);
            Some(first(before, behind, |at| at.with_timezone(&zone).naive_local() > wall))
        }
    }
}

/// The first second between two instants, the second included, for which something holds that holds from then on.
fn first(mut before: DateTime<Utc>, mut behind: DateTime<Utc>, holds: impl Fn(DateTime<Utc>) -> bool) -> DateTime<Utc> {
    while behind - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((behind - before).num_seconds() / 2);
        if holds(middle) {
            behind = middle;
        } else {
            before = middle;
        }
    }
    behind
}

/// A change of a zone's offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The first instant after it.
    pub(crate) at: DateTime<Utc>,
    /// Seconds that the clock was ahead of UTC before it.
    before_s: i32,
    /// The same after it.
    behind_s: i32,
}

impl Jump {
    /// True where times are left out, false where they are shown again.
    pub(crate) fn is_forward(&self) -> bool {
        self.behind_s > self.before_s
    }

    /// What the clock would show at the instant without the jump.
    pub(crate) fn wall_before(&self) -> NaiveDateTime {
        self.at.naive_utc() + TimeDelta::seconds(self.before_s.into())
    }

    /// What the clock shows instead.
    pub(crate) fn wall_behind(&self) -> NaiveDateTime {
        self.at.naive_utc() + TimeDelta::seconds(self.behind_s.into())
    }

    /// The times that it leaves out, or shows again: from the first of them to the first that is not one of them.
    pub(crate) fn times(&self) -> (NaiveDateTime, NaiveDateTime) {
        let (before, behind) = (self.wall_before(), self.wall_behind());
        (before.min(behind), before.max(behind))
    }
}

/// The changes of a zone's offset between two instants, in order. Two within a day that undo one another are not found; there are none.
pub(crate) fn jumps(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Jump> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    let mut jumps = Vec::new();
    let (mut before, mut before_s) = (from, offset(from));
    while before < to {
        let behind = before.checked_add_signed(TimeDelta::days(1)).map_or(to, |behind| behind.min(to));
        let behind_s = offset(behind);
        if behind_s != before_s {
            jumps.push(Jump { at: first(before, behind, |at| offset(at) == behind_s), before_s, behind_s });
        }
        (before, before_s) = (behind, behind_s);
    }
    jumps
}
