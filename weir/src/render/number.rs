//! Numbers as people read them: counts with thousands marked, sizes, durations, rates.

/// `336776` as `336,776`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `336776 rows`, `1 row`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Bytes in decimal units, as `[memory] limit` is written: `999 B`, `1.2 kB`, `34.5 MB`, `512 MB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "";
    for name in UNITS {
        value /= 1000.0;
        unit = name;
        // 999.95 and more would be shown as 1000.
        if value < 999.5 {
            break;
        }
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Milliseconds as `7 ms`, `3.2 s`, `2m 05s`, `1h 02m`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn duration_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{:.1} s", (ms / 100) as f64 / 10.0),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Rows per second: `850 rows/s`, `105 k rows/s`, `1.2 M rows/s`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn rate(rows_per_second: u64) -> String {
    let n = rows_per_second as f64;
    match rows_per_second {
        0..10_000 => format!("{} rows/s", count(rows_per_second)),
        10_000..999_500 => format!("{:.0} k rows/s", n / 1e3),
        _ => format!("{:.1} M rows/s", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_mark_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(336_776), "336,776");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(2000, "row", "rows"), "2,000 rows");
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_499), "999 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(766_000_000), "766 MB");
        assert_eq!(bytes(1_234_000_000), "1.2 GB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn durations_change_their_unit() {
        assert_eq!(duration_ms(7), "7 ms");
        assert_eq!(duration_ms(3_240), "3.2 s");
        assert_eq!(duration_ms(9_999), "9.9 s");
        assert_eq!(duration_ms(59_999), "59 s");
        assert_eq!(duration_ms(125_000), "2m 05s");
        assert_eq!(duration_ms(3_720_000), "1h 02m");
    }

    #[test]
    fn rates_change_their_unit() {
        assert_eq!(rate(850), "850 rows/s");
        assert_eq!(rate(9_999), "9,999 rows/s");
        assert_eq!(rate(105_242), "105 k rows/s");
        assert_eq!(rate(999_600), "1.0 M rows/s");
        assert_eq!(rate(1_234_567), "1.2 M rows/s");
    }
}
