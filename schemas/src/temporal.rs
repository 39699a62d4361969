//! Dates, times, instants and durations as text: RFC 3339 and ISO 8601. Only writing; nothing is read here.

use std::fmt::Write;

use ::arrow::datatypes::{IntervalDayTime, IntervalMonthDayNano, TimeUnit};

const NANOS: i64 = 1_000_000_000;

/// How many of a unit make a second.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS,
    }
}

/// Writes days since 1970-01-01 as `2013-01-31`; years outside 0 to 9999 have a sign and at least four digits.
pub(crate) fn date(days: i64, out: &mut String) {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    match year {
        0..=9999 => digits(year as u64, 4, out),
        _ => {
            out.push(if year < 0 { '-' } else { '+' });
            digits(year.unsigned_abs() as u64, 4, out);
        }
    }
    out.push('-');
    digits(month as u64, 2, out);
    out.push('-');
    digits(day as u64, 2, out);
}

/// Writes a time of day as `10:15:00`, with as many groups of three decimals as it needs.
pub(crate) fn clock(value: i64, unit: TimeUnit, out: &mut String) {
    let per = per_second(unit);
    let seconds = value.div_euclid(per);
    digits((seconds / 3600) as u64, 2, out);
    out.push(':');
    digits((seconds / 60 % 60) as u64, 2, out);
    out.push(':');
    digits((seconds % 60) as u64, 2, out);
    let nanos = value.rem_euclid(per) * (NANOS / per);
    if nanos != 0 {
        out.push('.');
        match nanos {
            nanos if nanos % 1_000_000 == 0 => digits((nanos / 1_000_000) as u64, 3, out),
            nanos if nanos % 1_000 == 0 => digits((nanos / 1_000) as u64, 6, out),
            nanos => digits(nanos as u64, 9, out),
        }
    }
}

/// Writes an instant as `2013-01-31T10:15:00Z`; without the `Z` where the type has no zone. An instant is always written in UTC, whatever zone its type names.
pub(crate) fn timestamp(value: i64, unit: TimeUnit, zoned: bool, out: &mut String) {
    let day = 86_400 * per_second(unit);
    date(value.div_euclid(day), out);
    out.push('T');
    clock(value.rem_euclid(day), unit, out);
    if zoned {
        out.push('Z');
    }
}

/// Writes a duration as `PT1H30M0.5S`, `PT0S`, `-PT2S`.
pub(crate) fn duration(value: i64, unit: TimeUnit, out: &mut String) {
    let per = per_second(unit) as u64;
    if value < 0 {
        out.push('-');
    }
    out.push_str("PT");
    seconds(value.unsigned_abs() / per, value.unsigned_abs() % per * (NANOS as u64 / per), out);
}

fn seconds(total: u64, nanos: u64, out: &mut String) {
    let (hours, minutes, rest) = (total / 3600, total / 60 % 60, total % 60);
    if hours != 0 {
        let _ = write!(out, "{hours}H");
    }
    if minutes != 0 {
        let _ = write!(out, "{minutes}M");
    }
    if nanos != 0 {
        let fraction = format!("{nanos:09}");
        let _ = write!(out, "{rest}.{}S", fraction.trim_end_matches('0'));
    } else if rest != 0 || total == 0 {
        let _ = write!(out, "{rest}S");
    }
}

/// Writes an interval of months, days and nanoseconds as `P1Y2M3DT4S`; each part has its own sign.
pub(crate) fn interval(value: IntervalMonthDayNano, out: &mut String) {
    let (years, months) = (value.months / 12, value.months % 12);
    out.push('P');
    for (count, letter) in [(years, 'Y'), (months, 'M'), (value.days, 'D')] {
        if count != 0 {
            let _ = write!(out, "{count}{letter}");
        }
    }
    if value.nanoseconds != 0 || out.ends_with('P') {
        let (sign, nanos) = (if value.nanoseconds < 0 { "-" } else { "" }, value.nanoseconds.unsigned_abs());
        let fraction = format!("{:09}", nanos % NANOS as u64);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        let _ = write!(out, "T{sign}{}{point}{fraction}S", nanos / NANOS as u64);
    }
}

/// The same of days and milliseconds.
pub(crate) fn interval_days(value: IntervalDayTime, out: &mut String) {
    interval(IntervalMonthDayNano::new(0, value.days, i64::from(value.milliseconds) * 1_000_000), out);
}

fn digits(value: u64, width: usize, out: &mut String) {
    let mut buffer = [b'0'; 20];
    let (mut at, mut rest) = (buffer.len(), value);
    while rest != 0 || at > buffer.len() - width {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend(buffer[at..].iter().map(|byte| char::from(*byte)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, SecondsFormat};

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn instants_agree_with_chrono() {
        let mut micros = -62_167_219_200_000_000i64; // year 0
        while micros < 253_402_300_799_999_999 {
            let expected = DateTime::from_timestamp_micros(micros).expect("in range").to_rfc3339_opts(SecondsFormat::AutoSi, true);
            assert_eq!(text(|out| timestamp(micros, TimeUnit::Microsecond, true, out)), expected);
            micros += 7_777_777_777_777_001;
            micros += micros.rem_euclid(3) * 1_000;
        }
    }

    #[test]
    fn every_day_of_four_centuries_agrees_with_chrono() {
        for days in -146_097..146_097 {
            let expected = chrono::NaiveDate::from_epoch_days(days).expect("in range").to_string();
            assert_eq!(text(|out| date(days.into(), out)), expected);
        }
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        assert_eq!(text(|out| timestamp(i64::MIN, TimeUnit::Second, false, out)).split_once('-').map(|parts| parts.0), Some(""));
        assert_eq!(text(|out| timestamp(253_402_300_799, TimeUnit::Second, false, out)), "9999-12-31T23:59:59");
        assert_eq!(text(|out| timestamp(253_402_300_800, TimeUnit::Second, false, out)), "+10000-01-01T00:00:00");
        assert_eq!(text(|out| timestamp(-1, TimeUnit::Nanosecond, true, out)), "1969-12-31T23:59:59.999999999Z");
        assert!(text(|out| duration(i64::MIN, TimeUnit::Second, out)).starts_with("-PT"));
        assert!(text(|out| date(i64::MAX, out)).starts_with('+'));
    }

    #[test]
    fn durations_are_iso_8601() {
        let duration = |value, unit| text(|out| duration(value, unit, out));
        assert_eq!(duration(0, TimeUnit::Second), "PT0S");
        assert_eq!(duration(5_400_500, TimeUnit::Millisecond), "PT1H30M0.5S");
        assert_eq!(duration(3600, TimeUnit::Second), "PT1H");
        assert_eq!(duration(-2_000_001, TimeUnit::Microsecond), "-PT2.000001S");
        let interval = |months, days, nanos| text(|out| interval(IntervalMonthDayNano::new(months, days, nanos), out));
        assert_eq!(interval(14, 3, 4_500_000_000), "P1Y2M3DT4.5S");
        assert_eq!(interval(0, 0, 0), "PT0S");
        assert_eq!(interval(-1, 0, -1), "P-1MT-0.000000001S");
    }
}
