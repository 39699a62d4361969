//! How are days, times and lengths of time written for Postgres's clients? In the forms of `DateStyle = ISO` and of an
//! `IntervalStyle`, in microseconds, which is all that Postgres's types hold: what is finer is cut off, towards the past.

use std::fmt::Write as _;

use arrow::datatypes::TimeUnit;
use bytes::BytesMut;
use chrono::{DateTime, FixedOffset, Offset, TimeZone};
use chrono_tz::Tz;

/// From 1970-01-01 to 2000-01-01, where Postgres begins to count, in days and in microseconds.
pub const EPOCH_DAYS: i64 = 10_957;
pub const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
const DAY_MICROS: i64 = 86_400_000_000;

/// Where a session's instants are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Zone {
    /// A named one.
    Named(Tz),
    /// A fixed distance.
    Fixed(FixedOffset),
}

/// How times are written for a session.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Style {
    /// Where instants are shown.
    pub zone: Zone,
    /// `IntervalStyle = iso_8601`.
    pub iso_lengths: bool,
}

impl Default for Zone {
    fn default() -> Self {
        Zone::Named(Tz::UTC)
    }
}

impl Zone {
    /// Reads what `set timezone` may say: a name of the IANA's, in any case, or a distance in hours as Postgres counts it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("default") || text.eq_ignore_ascii_case("local") || text.eq_ignore_ascii_case("z") {
            return Some(Zone::default());
        }
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)) {
            return Some(Zone::Named(*zone));
        }
        // `set time zone -8`, `+05:30`: east is positive there.
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        if !(0..=15).contains(&hours) || !(0..60).contains(&minutes) || !rest.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60)).map(Zone::Fixed)
    }

    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Zone::Named(zone) => zone.name().to_owned(),
            Zone::Fixed(offset) => offset.to_string(),
        }
    }

    /// Seconds east of Greenwich at an instant.
    fn offset(&self, micros: i64) -> i32 {
        match self {
            Zone::Fixed(offset) => offset.local_minus_utc(),
            Zone::Named(Tz::UTC) => 0,
            // Of years that are too far away no zone is known.
            Zone::Named(zone) => DateTime::from_timestamp_micros(micros)
                .map_or(0, |at| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()),
        }
    }
}

/// A number of units as microseconds; none where it does not fit.
pub fn micros(value: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1_000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1_000)),
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms".)
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Writes a day; returns what must follow at the very end.
fn push_civil(days: i64, out: &mut BytesMut) -> &'static str {
    let (year, month, day) = civil(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}

/// A day, counted from 1970-01-01.
pub fn date(days: i32, out: &mut BytesMut) {
    let era = push_civil(days.into(), out);
    out.extend_from_slice(era.as_bytes());
}

/// A time of day, in microseconds from midnight.
pub fn time(micros: i64, out: &mut BytesMut) {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(fraction, out);
}

fn push_fraction(micros: i64, out: &mut BytesMut) {
    if micros != 0 {
        let text = format!("{micros:06}");
        let _ = write!(out, ".{}", text.trim_end_matches('0'));
    }
}

/// A timestamp in microseconds since 1970-01-01; an instant is shown in the zone.
pub fn timestamp(micros: i64, zone: Option<&Zone>, out: &mut BytesMut) {
    let offset = zone.map_or(0, |zone| zone.offset(micros));
    let local = i128::from(micros) + i128::from(offset) * 1_000_000;
    let day = i128::from(DAY_MICROS);
    let era = push_civil(local.div_euclid(day) as i64, out);
    out.extend_from_slice(b" ");
    time(local.rem_euclid(day) as i64, out);
    if zone.is_some() {
        let (sign, offset) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        let _ = write!(out, "{sign}{:02}", offset / 3600);
        if offset % 3600 != 0 {
            let _ = write!(out, ":{:02}", offset / 60 % 60);
        }
        if offset % 60 != 0 {
            let _ = write!(out, ":{:02}", offset % 60);
        }
    }
    out.extend_from_slice(era.as_bytes());
}

/// A length of time, in its three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Whole months.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest.
    pub micros: i64,
}

impl Length {
    /// Its text: `1 year 2 mons 3 days 04:05:06.789`, or `P1Y2M3DT4H5M6.789S`.
    pub fn write(self, style: &Style, out: &mut BytesMut) {
        if style.iso_lengths { self.write_iso(out) } else { self.write_postgres(out) }
    }

    fn write_iso(self, out: &mut BytesMut) {
        let begin = out.len();
        let (years, months) = (self.months / 12, self.months % 12);
        let (minutes, micros) = (self.micros / 60_000_000, self.micros % 60_000_000);
        out.extend_from_slice(b"P");
        for (number, letter) in [(years, 'Y'), (months, 'M'), (self.days, 'D')] {
            if number != 0 {
                let _ = write!(out, "{number}{letter}");
            }
        }
        if self.micros != 0 {
            out.extend_from_slice(b"T");
        }
        for (number, letter) in [(minutes / 60, 'H'), (minutes % 60, 'M')] {
            if number != 0 {
                let _ = write!(out, "{number}{letter}");
            }
        }
        if micros != 0 {
            let sign = if micros < 0 { "-" } else { "" };
            let _ = write!(out, "{sign}{}", micros.abs() / 1_000_000);
            push_fraction(micros.abs() % 1_000_000, out);
            out.extend_from_slice(b"S");
        }
        if out.len() == begin + 1 {
            out.extend_from_slice(b"T0S");
        }
    }

    fn write_postgres(self, out: &mut BytesMut) {
        let begin = out.len();
        let (years, months) = (self.months / 12, self.months % 12);
        let mut before_negative = false;
        for (number, word) in [(years, "year"), (months, "mon"), (self.days, "day")] {
            if number == 0 {
                continue;
            }
            let gap = if out.len() > begin { " " } else { "" };
            // After a negative part a positive one says so.
            let plus = if before_negative && number > 0 { "+" } else { "" };
            let s = if number == 1 { "" } else { "s" };
            let _ = write!(out, "{gap}{plus}{number} {word}{s}");
            before_negative = number < 0;
        }
        if self.micros != 0 || out.len() == begin {
            let gap = if out.len() > begin { " " } else { "" };
            let sign = if self.micros < 0 {
                "-"
            } else if before_negative {
                "+"
            } else {
                ""
            };
            let _ = write!(out, "{gap}{sign}");
            let all = self.micros.unsigned_abs();
            let (seconds, fraction) = (all / 1_000_000, (all % 1_000_000) as i64);
            let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            push_fraction(fraction, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn days_are_written_as_postgres_writes_them() {
        for (days, text) in [(0, "1970-01-01"), (15_706, "2013-01-01"), (-719_163, "0001-12-31 BC"), (2_932_897, "10000-01-01")] {
            assert_eq!(written(|out| date(days, out)), text);
        }
        // Neither end of what is possible panics.
        written(|out| date(i32::MAX, out));
        written(|out| date(i32::MIN, out));
    }

    #[test]
    fn instants_are_shown_in_the_zone_of_the_session() {
        let new_york = Zone::parse("america/new_york").expect("a zone");
        let at = 1_357_034_400_500_000;
        assert_eq!(written(|out| timestamp(at, None, out)), "2013-01-01 10:00:00.5");
        assert_eq!(written(|out| timestamp(at, Some(&Zone::default()), out)), "2013-01-01 10:00:00.5+00");
        assert_eq!(written(|out| timestamp(at, Some(&new_york), out)), "2013-01-01 05:00:00.5-05");
        let kolkata = Zone::parse("Asia/Kolkata").expect("a zone");
        assert_eq!(written(|out| timestamp(at, Some(&kolkata), out)), "2013-01-01 15:30:00.5+05:30");
        assert_eq!(written(|out| timestamp(-1, Some(&Zone::default()), out)), "1969-12-31 23:59:59.999999+00");
        written(|out| timestamp(i64::MAX, Some(&new_york), out));
        written(|out| timestamp(i64::MIN, Some(&kolkata), out));
        assert_eq!(Zone::parse("-8").map(|zone| zone.name()).as_deref(), Some("-08:00"));
        assert_eq!(Zone::parse("nowhere"), None);
        assert_eq!(Zone::parse("+99"), None);
    }

    #[test]
    fn lengths_are_written_as_postgres_writes_them() {
        let length = |months, days, micros| written(|out| Length { months, days, micros }.write(&Style::default(), out));
        assert_eq!(length(14, 3, 14_706_789_000), "1 year 2 mons 3 days 04:05:06.789");
        assert_eq!(length(0, 0, 0), "00:00:00");
        assert_eq!(length(-1, 2, 0), "-1 mons +2 days");
        assert_eq!(length(0, 0, -1_500_000), "-00:00:01.5");
        assert_eq!(length(0, 1, 0), "1 day");
        length(i32::MIN, i32::MIN, i64::MIN);
        let iso = Style { iso_lengths: true, ..Style::default() };
        let length = |months, days, micros| written(|out| Length { months, days, micros }.write(&iso, out));
        assert_eq!(length(14, 3, 14_706_789_000), "P1Y2M3DT4H5M6.789S");
        assert_eq!(length(0, 0, 0), "PT0S");
        assert_eq!(length(-1, 2, -1_500_000), "P-1M2DT-1.5S");
        length(i32::MIN, i32::MIN, i64::MIN);
    }
}
