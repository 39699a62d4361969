//! Durations (`90s`, `10m`, `1h30m`), sizes (`256MB`, `1GiB`) and shares (`1%`) as people write them.

use std::time::Duration;

use crate::pipeline::ShareMax;

/// Parses `90s`, `10m`, `1h30m`, `2d`, `500ms`: whole numbers, each with its unit, larger units first.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let wrong = || format!("\"{text}\" is not a duration: write one such as 500ms, 90s, 10m, 1h30m or 2d");
    let mut rest = text.trim();
    let mut units = UNITS_MS.iter();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        // The iterator is never rewound, so units come in order and at most once.
        let (_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let too_long = || format!("\"{text}\" is too long a duration");
        let number: u64 = number.parse().map_err(|_| if number.is_empty() { wrong() } else { too_long() })?;
        total_ms = number.checked_mul(*unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(too_long)?;
        rest = after;
    }
    // A hundred years: further on, dates overflow for whoever adds this to one.
    if total_ms > 36_525 * 86_400_000 {
        return Err(format!("\"{text}\" is too long a duration"));
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as [`duration`] reads it: `1h30m`, `2d`, `500ms`; `0s` for none.
pub fn shown(duration: Duration) -> String {
    const UNITS_MS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = duration.as_millis();
    let mut out = String::new();
    for (unit, unit_ms) in UNITS_MS {
        if rest >= unit_ms {
            out += &format!("{}{unit}", rest / unit_ms);
            rest %= unit_ms;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Parses `256MB` (decimal), `1GiB` (binary) or a plain number of bytes. A fraction such as `1.5GB` is rounded down to a byte.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let wrong = || format!("\"{text}\" is not a size: write one such as 256MB, 2GB, 1GiB or a number of bytes");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(wrong());
    }
    let too_large = |_| format!("\"{text}\" is too large a size");
    let whole: u64 = whole.parse().map_err(too_large)?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let fraction: u64 = fraction.parse().map_err(too_large)?;
    let bytes = u128::from(whole) * u128::from(*unit) + u128::from(fraction) * u128::from(*unit) / scale;
    u64::try_from(bytes).map_err(|_| format!("\"{text}\" is too large a size"))
}

/// Parses `100` (rows) or `1%`, `0.5%` (a share of the rows read).
pub fn share_max(text: &str) -> Result<ShareMax, String> {
    let wrong = || format!("\"{text}\" is neither a number of rows nor a share: write one such as 100 or 1%");
    let trimmed = text.trim();
    match trimmed.strip_suffix('%').map(str::trim_end) {
        None if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) => {
            trimmed.parse().map(ShareMax::Rows).map_err(|_| wrong())
        }
        Some(percent) if !percent.is_empty() && percent.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            if percent > 100.0 {
                return Err(format!("\"{text}\" is more than all rows"));
            }
            Ok(ShareMax::Share(percent / 100.0))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in
            [("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("500ms", 500), ("0s", 0), (" 1s500ms ", 1_500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_with_examples() {
        for text in ["", "90", "s", "1x", "1.5h", "-1s", "30m1h", "1h1h", "1 h", "ten minutes", "1S", "٣s"] {
            assert_eq!(
                duration(text),
                Err(format!("\"{text}\" is not a duration: write one such as 500ms, 90s, 10m, 1h30m or 2d")),
                "{text}"
            );
        }
        for text in ["99999999999999999999s", "9999999999999999d", "40000d"] {
            assert_eq!(duration(text), Err(format!("\"{text}\" is too long a duration")));
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_their_unit_says() {
        for (text, bytes) in [
            ("256MB", 256_000_000),
            ("1GiB", 1 << 30),
            ("1024", 1024),
            ("1.5GB", 1_500_000_000),
            ("2 tb", 2_000_000_000_000),
            ("0.001kib", 1),
            ("7B", 7),
        ] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_with_examples() {
        for text in ["", "MB", "1M", "1.MB", ".5MB", "1.2.3MB", "-1MB", "many", "1e9"] {
            assert_eq!(
                size_bytes(text),
                Err(format!("\"{text}\" is not a size: write one such as 256MB, 2GB, 1GiB or a number of bytes")),
                "{text}"
            );
        }
        assert_eq!(size_bytes("99999999TiB"), Err("\"99999999TiB\" is too large a size".into()));
        assert_eq!(size_bytes("99999999999999999999"), Err("\"99999999999999999999\" is too large a size".into()));
    }

    #[test]
    fn a_share_is_a_number_of_rows_or_a_percentage() {
        assert_eq!(share_max("100"), Ok(ShareMax::Rows(100)));
        assert_eq!(share_max("1%"), Ok(ShareMax::Share(0.01)));
        assert_eq!(share_max("0.5 %"), Ok(ShareMax::Share(0.005)));
        assert_eq!(share_max("100%"), Ok(ShareMax::Share(1.0)));
        assert_eq!(share_max("101%"), Err("\"101%\" is more than all rows".into()));
        for text in ["", "%", "1.5", "-1%", "inf%", "NaN%", "1e2%", "one"] {
            assert!(share_max(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_units_panic(text in "\\PC{0,12}|[0-9.]{1,25}[a-zA-Z%]{0,3}") {
            let _ = (duration(&text), size_bytes(&text), share_max(&text));
        }

        #[test]
        fn a_duration_is_the_sum_of_its_parts(d in 0u64..999, h in 0u64..99, m in 0u64..99, s in 0u64..99, ms in 0u64..9999) {
            let expected = Duration::from_millis(ms + 1000 * (s + 60 * (m + 60 * (h + 24 * d))));
            prop_assert_eq!(duration(&format!("{d}d{h}h{m}m{s}s{ms}ms")), Ok(expected));
            prop_assert_eq!(duration(&shown(expected)), Ok(expected));
        }
    }
}
