//! What one value's text means: numbers, dates, times, timestamps, decimals, base64. Exact or nothing: what does not fit is `None`.
//! Quotes, nulls and columns are `column.rs`'s.

/// Reads eight bytes as a little-endian word, so that the first character is the lowest byte.
#[inline(always)]
fn load(text: &[u8], at: usize) -> Option<u64> {
    let bytes: &[u8; 8] = text.get(at..at.wrapping_add(8))?.try_into().ok()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The number that the first `len` (1 to 8) characters of a word spell. Eight digits at once, after Mula and Lemire.
#[inline(always)]
fn eight(word: u64, len: usize) -> Option<u64> {
    let v = (word ^ 0x3030_3030_3030_3030) << (64 - 8 * len as u32);
    if (v.wrapping_add(0x7676_7676_7676_7676) | v) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let v = v.wrapping_mul(10).wrapping_add(v >> 8) & 0x00FF_00FF_00FF_00FF;
    let v = v.wrapping_mul(100).wrapping_add(v >> 16) & 0x0000_FFFF_0000_FFFF;
    Some(v.wrapping_mul(10_000).wrapping_add(v >> 32) & 0xFFFF_FFFF)
}

/// Up to 16 digits at `block[start..start + len]`; `None` means "look closer", not "wrong", here and below.
#[inline(always)]
fn digits_fast(block: &[u8], start: usize, len: usize) -> Option<u64> {
    match len {
        1..=8 => eight(load(block, start)?, len),
        9..=16 => {
            let high = eight(load(block, start)?, 8)?;
            let low = eight(load(block, start.wrapping_add(8))?, len.wrapping_sub(8))?;
            Some(high.wrapping_mul(TENS[len.wrapping_sub(8) & 15]).wrapping_add(low))
        }
        _ => None,
    }
}

/// Where digits begin, how many characters they have, and whether a minus is in front of them.
#[inline(always)]
fn signed(block: &[u8], start: usize, len: usize) -> (usize, usize, bool) {
    let negative = block.get(start) == Some(&b'-');
    (start.wrapping_add(usize::from(negative)), len.wrapping_sub(usize::from(negative)), negative)
}

/// An integer of up to 16 digits at `block[start..start + len]`.
#[inline(always)]
pub fn integer_fast(block: &[u8], start: usize, len: usize) -> Option<i64> {
    let (start, len, negative) = signed(block, start, len);
    let value = digits_fast(block, start, len)? as i64;
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Digits with or without a point between them, at `block[start..start + len]`: the number that they spell without the point, at most 2^53, so that
/// `f64` holds it exactly, and how many of them stand behind it, at most eight.
#[inline(always)]
fn fixed_fast(block: &[u8], start: usize, len: usize) -> Option<(u64, usize)> {
    let Some(point) = block.get(start..start.wrapping_add(len))?.iter().position(|byte| *byte == b'.') else {
        return digits_fast(block, start, len).map(|value| (value, 0));
    };
    let places = len.wrapping_sub(point).wrapping_sub(1);
    if places > 8 {
        return None;
    }
    let whole = digits_fast(block, start, point)?;
    let fraction = digits_fast(block, start.wrapping_add(point).wrapping_add(1), places)?;
    let value = whole.checked_mul(TENS[places])?.checked_add(fraction)?;
    (value <= 1 << 53).then_some((value, places))
}

/// A number at `block[start..start + len]`: one exact number by another, so rounded once, as a number's text has to be.
#[inline(always)]
fn float_fast(block: &[u8], start: usize, len: usize) -> Option<f64> {
    let (start, len, negative) = signed(block, start, len);
    let (value, places) = fixed_fast(block, start, len)?;
    let value = value as f64 / TENS[places] as f64;
    Some(if negative { -value } else { value })
}

/// A number for a float column at `block[start..start + len]`, fast or closely.
#[inline(always)]
pub fn float_at(block: &[u8], start: usize, len: usize) -> Option<f64> {
    float_fast(block, start, len).or_else(|| float(&block[start..start + len]))
}

/// A decimal at `block[start..start + len]`, as [`decimal`] has it.
#[inline(always)]
pub fn decimal_fast(block: &[u8], start: usize, len: usize, precision: u8, scale: i8) -> Option<i128> {
    let (start, len, negative) = signed(block, start, len);
    let (value, places) = fixed_fast(block, start, len)?;
    let shift = usize::try_from(scale).ok()?.checked_sub(places)?;
    let value = u128::from(value) * u128::from(*TENS.get(shift)?);
    if value >= *POWERS.get(usize::from(precision))? {
        return None;
    }
    let value = value as i128;
    Some(if negative { -value } else { value })
}

/// Whether digits of up to 16 and nothing else are at `block[start..start + len]`, with no needless zero in front; false means "look closer".
#[inline(always)]
pub fn is_integer_fast(block: &[u8], start: usize, len: usize) -> bool {
    let first = block.get(start).copied().unwrap_or(b'-');
    first != b'-' && (first != b'0' || len == 1) && integer_fast(block, start, len).is_some()
}

/// Whether digits with or without a point between them and nothing else are at `block[start..start + len]`, with no needless zero in front; false
/// means "look closer".
#[inline(always)]
pub fn is_number_fast(block: &[u8], start: usize, len: usize) -> bool {
    let head = block.get(start..start.wrapping_add(2)).unwrap_or(b"00");
    (head[0] != b'0' || len == 1 || !head[1].is_ascii_digit()) && fixed_fast(block, start, len).is_some()
}

/// Whether a date up to the 28th is at `block[start..start + len]`; false means "look closer".
#[inline(always)]
pub fn is_date_fast(block: &[u8], start: usize, len: usize) -> bool {
    const FORM: u64 = u64::from_le_bytes(*b"0000-00-");
    const SIGNS: u64 = u64::from_le_bytes([0, 0, 0, 0, 0xFF, 0, 0, 0xFF]);
    let (Some(word), true) = (load(block, start), len == 10) else { return false };
    let Some(day) = two(block, start.wrapping_add(8)) else { return false };
    let v = word ^ FORM;
    let month = ((v >> 40) & 0xFF).wrapping_mul(10).wrapping_add((v >> 48) & 0xFF);
    (v.wrapping_add(0x7676_7676_7676_7676) | v) & 0x8080_8080_8080_8080 == 0
        && v & SIGNS == 0
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
}

const TENS: [u64; 16] = {
    let mut tens = [1u64; 16];
    let mut i = 1;
    while i < 16 {
        tens[i] = tens[i - 1] * 10;
        i += 1;
    }
    tens
};

/// Any whole number that an `i128` holds: an optional sign, then digits and nothing else.
pub fn integer(text: &[u8]) -> Option<i128> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number for a float column. Infinity must be spelt: a number too large is no value.
#[inline(always)]
pub fn float<F: fast_float2::FastFloat + Into<f64> + Copy>(text: &[u8]) -> Option<F> {
    let value: F = fast_float2::parse(text).ok()?;
    let wide: f64 = value.into();
    if wide.is_infinite() && text.iter().any(u8::is_ascii_digit) {
        return None;
    }
    Some(value)
}

/// `true` or `false`, in any case.
#[inline(always)]
pub fn boolean(text: &[u8]) -> Option<bool> {
    match text.len() {
        4 if text.eq_ignore_ascii_case(b"true") => Some(true),
        5 if text.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

/// Two digits.
#[inline(always)]
fn two(text: &[u8], at: usize) -> Option<u32> {
    let (a, b) = (text.get(at)?.wrapping_sub(b'0'), text.get(at.wrapping_add(1))?.wrapping_sub(b'0'));
    (a < 10 && b < 10).then(|| u32::from(a).wrapping_mul(10).wrapping_add(u32::from(b)))
}

/// Days since 1970-01-01 of a `YYYY-MM-DD`.
#[inline(always)]
pub fn date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two(text, 0)?.wrapping_mul(100).wrapping_add(two(text, 2)?);
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (day <= days).then(|| days_since_epoch(year as i32, month as i32, day as i32))
}

/// Howard Hinnant's `days_from_civil` (chrono-Compatible Low-Level Date Algorithms), for years 0 to 9999.
#[inline(always)]
fn days_since_epoch(year: i32, month: i32, day: i32) -> i32 {
    let year = year - i32::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds and nanoseconds since midnight of `HH:MM[:SS[.fraction]]`, a fraction of up to nine digits.
#[inline(always)]
fn clock(text: &[u8]) -> Option<(i64, u32)> {
    if text.len() < 5 || text[2] != b':' {
        return None;
    }
    let (hour, minute) = (two(text, 0)?, two(text, 3)?);
    let (mut second, mut nanos) = (0, 0);
    if text.len() > 5 {
        if text[5] != b':' {
            return None;
        }
        second = two(text, 6)?;
        if text.len() > 8 {
            let fraction = &text[9..];
            if text[8] != b'.' || fraction.is_empty() || fraction.len() > 9 || !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
            for i in 0..9 {
                nanos = nanos * 10 + fraction.get(i).map_or(0, |d| u32::from(d - b'0'));
            }
        }
    }
    (hour < 24 && minute < 60 && second < 60).then_some((i64::from(hour * 3600 + minute * 60 + second), nanos))
}

/// Microseconds since midnight.
#[inline(always)]
pub fn time_us(text: &[u8]) -> Option<i64> {
    let (seconds, nanos) = clock(text)?;
    (nanos % 1000 == 0).then_some(seconds * 1_000_000 + i64::from(nanos / 1000))
}

/// A point in time as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds since 1970-01-01T00:00:00, in UTC where it has a zone.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanos: u32,
    /// Whether a zone was written.
    pub zoned: bool,
}

/// `YYYY-MM-DD`, then `T` or a space and a time of day, then `Z` or `±HH:MM`, `±HHMM`, `±HH`. A date alone is its midnight, without a zone.
#[inline(always)]
pub fn stamp(text: &[u8]) -> Option<Stamp> {
    let days = i64::from(date(text.get(..10)?)?) * 86_400;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(Stamp { seconds: days, nanos: 0, zoned: false });
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    let rest = &rest[1..];
    let zone = rest.iter().position(|b| matches!(b, b'Z' | b'z' | b'+' | b'-'));
    let (seconds, nanos) = clock(&rest[..zone.unwrap_or(rest.len())])?;
    let offset = match zone {
        None => 0,
        Some(at) => offset(&rest[at..])?,
    };
    Some(Stamp { seconds: days + seconds - offset, nanos, zoned: zone.is_some() })
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    if matches!(zone, b"Z" | b"z") {
        return Some(0);
    }
    let minutes = match zone.len() {
        3 => 0,
        5 => two(zone, 3)?,
        6 if zone[3] == b':' => two(zone, 4)?,
        _ => return None,
    };
    let hours = two(zone, 1)?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours * 3600 + minutes * 60);
    Some(if zone[0] == b'-' { -seconds } else { seconds })
}

/// A stamp as a count of `per_second` units, when it is a whole one and fits.
#[inline(always)]
pub fn stamp_in(stamp: Stamp, per_second: i64) -> Option<i64> {
    let nanos_per_unit = 1_000_000_000 / per_second;
    if i64::from(stamp.nanos) % nanos_per_unit != 0 {
        return None;
    }
    let whole = i128::from(stamp.seconds) * i128::from(per_second) + i128::from(i64::from(stamp.nanos) / nanos_per_unit);
    i64::try_from(whole).ok()
}

/// A decimal as a whole number of units of `10^-scale`, when it is exactly one and has at most `precision` digits.
/// Takes a sign, digits with at most one `point`, and an exponent.
#[inline(always)]
pub fn decimal(text: &[u8], precision: u8, scale: i8, point: u8) -> Option<i128> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut value: u128 = 0;
    let mut small: u64 = 0;
    let (mut seen, mut significant, mut fraction, mut in_fraction) = (0u32, 0u32, 0i64, false);
    let mut exponent = 0i64;
    for (i, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            seen += 1;
            fraction += i64::from(in_fraction);
            if significant < 18 {
                small = small.wrapping_mul(10).wrapping_add(u64::from(digit));
                significant += u32::from(small != 0);
            } else {
                if significant == 18 {
                    value = u128::from(small);
                }
                significant += 1;
                value = value.checked_mul(10)?.checked_add(u128::from(digit))?;
            }
        } else if byte == point && !in_fraction {
            in_fraction = true;
        } else if byte | 0x20 == b'e' && seen > 0 {
            exponent = i64::from(i16::try_from(integer(&digits[i + 1..])?).ok()?);
            break;
        } else {
            return None;
        }
    }
    if seen == 0 {
        return None;
    }
    if significant <= 18 {
        value = u128::from(small);
    }
    let mut shift = i64::from(scale) - fraction + exponent;
    if value == 0 {
        return Some(0);
    }
    while shift > 0 {
        value = value.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 {
        if !value.is_multiple_of(10) {
            return None;
        }
        value /= 10;
        shift += 1;
    }
    if value >= *POWERS.get(usize::from(precision))? {
        return None;
    }
    let value = i128::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

static POWERS: [u128; 39] = {
    let mut powers = [1u128; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Appends the bytes that base64 text (RFC 4648, standard alphabet, padded or not) stands for. On `None`, `out` is as it was.
pub fn base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let kept = out.len();
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let padding = text.len() - digits.len();
    let whole = (|| {
        if digits.len() % 4 == 1 || (padding > 0 && !text.len().is_multiple_of(4)) {
            return None;
        }
        for group in digits.chunks(4) {
            let mut bits = 0u32;
            for &byte in group {
                let six = match byte {
                    b'A'..=b'Z' => byte - b'A',
                    b'a'..=b'z' => byte - b'a' + 26,
                    b'0'..=b'9' => byte - b'0' + 52,
                    b'+' => 62,
                    b'/' => 63,
                    _ => return None,
                };
                bits = bits << 6 | u32::from(six);
            }
            bits <<= 6 * (4 - group.len());
            let bytes = bits.to_be_bytes();
            out.extend_from_slice(&bytes[1..group.len()]);
            // Bits beyond the last byte must be zero, or two texts would stand for the same bytes.
            if bytes[group.len()..].iter().any(|&b| b != 0) {
                return None;
            }
        }
        Some(())
    })();
    if whole.is_none() {
        out.truncate(kept);
    }
    whole
}

/// Without the spaces and tabs around it.
#[inline]
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A value as a reason quotes it.
pub fn shown(value: &[u8]) -> String {
    format!("{:?}", cut(value))
}

/// A value as a reason holds it: at most 60 characters.
pub fn cut(value: &[u8]) -> String {
    let head = &value[..value.len().min(400)];
    let text = String::from_utf8_lossy(head);
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() || head.len() < value.len() {
        cut.push('…');
    }
    cut
}

/// The most bytes of a bad record that are kept.
pub const RAW_MAX: usize = 64 << 10;

/// A bad record's bytes as text, without its line ending, cut after 64 KiB with a note of its full length.
pub fn raw(record: &[u8]) -> String {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let record = record.strip_suffix(b"\r").unwrap_or(record);
    if record.len() <= RAW_MAX {
        return String::from_utf8_lossy(record).into_owned();
    }
    let mut end = RAW_MAX;
    while end > RAW_MAX - 4 && record[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    format!("{}… (cut, {} bytes in all)", String::from_utf8_lossy(&record[..end]), record.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_integer_reads_what_the_plain_one_reads() {
        for text in ["0", "7", "-7", "12345678", "123456789", "-1234567890123456", "0000000000000001", "00501", "-0"] {
            let block = format!("{text},padding of a block");
            assert_eq!(integer_fast(block.as_bytes(), 0, text.len()).map(i128::from), integer(text.as_bytes()), "{text}");
        }
        for text in ["", "-", "1.0", "1a", "a1", "--1", "+1", "1 ", ":0", "/9", "12345678x", "１"] {
            let block = format!("{text},padding of a block");
            assert_eq!(integer_fast(block.as_bytes(), 0, text.len()), None, "{text}");
        }
    }

    #[test]
    fn the_fast_number_is_the_plain_one_or_none() {
        let mut wholes: Vec<String> = ["", "0", "00", "7", "12", "9007199254740993", "x", "-"].map(str::to_owned).into();
        wholes.extend((0..20).map(|n| format!("{}", 5_281_u64.pow(5) / 9_u64.pow(n))));
        let mut fractions: Vec<String> = ["", ".", ".-5", ".5.5", "..", ".e1", "e1", ",5", " "].map(str::to_owned).into();
        fractions.extend((0..12).map(|n| format!(".{:0width$}", 123_456_789_u64 % 10_u64.pow(n % 10), width = n as usize)));
        let mut read = 0;
        for (sign, whole, fraction) in ["", "-"]
            .iter()
            .flat_map(|sign| wholes.iter().map(move |whole| (sign, whole)))
            .flat_map(|(sign, whole)| fractions.iter().map(move |fraction| (sign, whole, fraction)))
        {
            let text = format!("{sign}{whole}{fraction}");
            // In the midst of a block, and where it ends.
            for block in [format!("{text},padding of a block"), text.clone()] {
                let quick = float_fast(block.as_bytes(), 0, text.len());
                read += usize::from(quick.is_some());
                assert!(quick.is_none() || quick.map(f64::to_bits) == float::<f64>(text.as_bytes()).map(f64::to_bits), "{text}: {quick:?}");
                for (precision, scale) in [(15, 2), (38, 10), (4, 0), (9, -1), (3, 3)] {
                    let quick = decimal_fast(block.as_bytes(), 0, text.len(), precision, scale);
                    let plain = decimal(text.as_bytes(), precision, scale, b'.');
                    assert!(quick.is_none() || quick == plain, "{text} as {precision}, {scale}: {quick:?}");
                }
                let is_number = is_number_fast(block.as_bytes(), 0, text.len());
                assert!(!is_number || crate::file::csv::infer::is_number(text.as_bytes(), b'.'), "{text}");
            }
        }
        assert!(read > 200, "{read}");
        for (text, quick) in [("17954.55", Some(17954.55)), ("-0.00", Some(-0.0)), ("0.04", Some(0.04)), ("12", Some(12.0)), ("1e3", None)]
        {
            let block = format!("{text},padding of a block");
            assert_eq!(float_fast(block.as_bytes(), 0, text.len()).map(f64::to_bits), quick.map(f64::to_bits), "{text}");
        }
        assert_eq!(decimal_fast(b"-12.3,padding of a block", 0, 5, 15, 2), Some(-1230));
        for (text, quick) in
            [("0.5", true), ("0", true), ("7.25", true), ("7", true), ("00.5", false), ("-1.5", false), (".5", false), ("5.", false)]
        {
            assert_eq!(is_number_fast(format!("{text},padding of a block").as_bytes(), 0, text.len()), quick, "{text}");
        }
    }

    #[test]
    fn what_is_quickly_a_date_or_an_integer_is_one() {
        let mut dates = 0;
        for year in ["0000", "1999", "2024", "20x4", "９９"] {
            for (month, day) in (0..=20).flat_map(|month| (0..=35).map(move |day| (month, day))) {
                for text in
                    [format!("{year}-{month:02}-{day:02}"), format!("{year}-{month:02}/{day:02}"), format!("{year}:{month:02}-{day:02}")]
                {
                    let quick = is_date_fast(format!("{text},padding").as_bytes(), 0, text.len());
                    assert_eq!(quick, day <= 28 && date(text.as_bytes()).is_some(), "{text}");
                    dates += usize::from(quick);
                }
            }
        }
        assert_eq!(dates, 3 * 12 * 28);
        for (text, quick) in [
            ("0", true),
            ("7", true),
            ("1234567890123456", true),
            ("12345678901234567", false),
            ("007", false),
            ("-7", false),
            ("", false),
            ("1x", false),
            ("1:", false),
        ] {
            assert_eq!(is_integer_fast(format!("{text},padding of a block").as_bytes(), 0, text.len()), quick, "{text}");
        }
    }

    #[test]
    fn dates_are_real_days_of_the_calendar() {
        assert_eq!(date(b"1970-01-01"), Some(0));
        assert_eq!(date(b"2000-02-29"), Some(11016));
        assert_eq!(date(b"1969-12-31"), Some(-1));
        assert_eq!(date(b"9999-12-31"), Some(2_932_896));
        assert_eq!(date(b"0001-01-01"), Some(-719_162));
        for wrong in ["1900-02-29", "2013-13-01", "2013-00-10", "2013-04-31", "2013-1-1", "2013/01/01", "20130101", "x013-01-01"] {
            assert_eq!(date(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn timestamps_are_taken_to_utc() {
        let at = |text: &str| stamp(text.as_bytes()).and_then(|s| Some((stamp_in(s, 1_000_000)?, s.zoned)));
        assert_eq!(at("1970-01-01"), Some((0, false)));
        assert_eq!(at("1970-01-01 00:01"), Some((60_000_000, false)));
        assert_eq!(at("1970-01-01T00:00:01.5"), Some((1_500_000, false)));
        assert_eq!(at("1970-01-01T02:00:00+02:00"), Some((0, true)));
        assert_eq!(at("1969-12-31t23:00:00.000001-0100"), Some((1, true)));
        assert_eq!(at("1969-12-31T23:59:59.999999999Z"), None, "finer than a microsecond");
        assert_eq!(at("1969-12-31T23:59:59.999999000Z"), Some((-1, true)));
        for wrong in [
            "1970-01-01T",
            "1970-01-01T24:00",
            "1970-01-01T23:59:60Z",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01X00:00",
            "1970-01-01T00:00:00.",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(stamp_in(stamp(b"2263-01-01T00:00:00").unwrap(), 1_000_000_000), None, "beyond 64 bits of nanoseconds");
    }

    #[test]
    fn decimals_are_exact_or_nothing() {
        assert_eq!(decimal(b"12.34", 10, 2, b'.'), Some(1234));
        assert_eq!(decimal(b"-12.3", 10, 2, b'.'), Some(-1230));
        assert_eq!(decimal(b"12.340", 10, 2, b'.'), Some(1234));
        assert_eq!(decimal(b"12,34", 10, 2, b','), Some(1234));
        assert_eq!(decimal(b"1.2e3", 10, 2, b'.'), Some(120_000));
        assert_eq!(decimal(b"12.345", 10, 2, b'.'), None);
        assert_eq!(decimal(b"123456789.00", 10, 2, b'.'), None, "eleven digits");
        assert_eq!(decimal(b"99999999999999999999999999999999999999", 38, 0, b'.'), Some(10i128.pow(38) - 1));
        assert_eq!(decimal(b"0.000000000000000000001", 38, 21, b'.'), Some(1));
        assert_eq!(decimal(b"1234567890123456789.5", 38, 1, b'.'), Some(12_345_678_901_234_567_895));
        for wrong in ["", "-", ".", "e5", "1e", "1.2.3", "abc", "1 2", "1e99999"] {
            assert_eq!(decimal(wrong.as_bytes(), 10, 2, b'.'), None, "{wrong}");
        }
    }

    #[test]
    fn a_float_too_large_is_no_infinity() {
        assert_eq!(float::<f64>(b"1e400"), None);
        assert_eq!(float::<f32>(b"1e39"), None);
        assert_eq!(float::<f64>(b"-inf"), Some(f64::NEG_INFINITY));
        assert!(float::<f64>(b"NaN").is_some_and(f64::is_nan));
        assert_eq!(float::<f64>(b"1,5"), None);
    }

    #[test]
    fn base64_is_read_strictly() {
        let read = |text: &str| {
            let mut out = b"kept".to_vec();
            base64(text.as_bytes(), &mut out).map(|()| out[4..].to_vec())
        };
        assert_eq!(read("aGk="), Some(b"hi".to_vec()));
        assert_eq!(read("aGk"), Some(b"hi".to_vec()));
        assert_eq!(read("AAECAw=="), Some(vec![0, 1, 2, 3]));
        assert_eq!(read(""), Some(vec![]));
        for wrong in ["a", "aGl=x", "a===", "aGk==", "aGl=", "a-_="] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
