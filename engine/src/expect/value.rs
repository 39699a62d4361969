//! A value as a person writes it, as a value of a column's type: the same value, or the column cannot hold it.

use arrow::{
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, TimeUnit},
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::scalar::ScalarValue;
use weir_pipelines::Scalar;

/// Returns the values of type `to` that equal `value`: one, or for a zero of a float type both zeros. None: the type has no such
/// value. A float is rounded to a narrower float type as any number is that is written in decimals; nothing else is rounded.
pub fn fit(value: &Scalar, to: &DataType) -> Option<Vec<ScalarValue>> {
    let one = match to {
        DataType::Null => ScalarValue::Null,
        DataType::Dictionary(_, values) => return fit(value, values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match value {
            Scalar::Text(text) => ScalarValue::Utf8(Some(text.clone())).cast_to(to).ok()?,
            _ => return None,
        },
        DataType::Boolean => match value {
            Scalar::Boolean(yes) => ScalarValue::Boolean(Some(*yes)),
            _ => return None,
        },
        _ if to.is_integer() => integer(whole(value)?, to)?,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => return float(value, to),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            decimal(value, *scale, to)?
        }
        _ => temporal(value, to)?,
    };
    Some(vec![one])
}

fn whole(value: &Scalar) -> Option<i128> {
    match value {
        Scalar::Integer(number) => Some(*number),
        // Integers up to 2^53 are exact as floats.
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53 fits")]
        Scalar::Float(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => Some(*number as i128),
        _ => None,
    }
}

/// Casts strictly: what does not fit is none.
fn cast(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let array = cast_with_options(&value.to_array().ok()?, to, &options).ok()?;
    ScalarValue::try_from_array(&array, 0).ok()
}

fn integer(number: i128, to: &DataType) -> Option<ScalarValue> {
    match u64::try_from(number) {
        Ok(number) => cast(&ScalarValue::UInt64(Some(number)), to),
        Err(_) => cast(&ScalarValue::Int64(Some(i64::try_from(number).ok()?)), to),
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared with the integer it came from")]
fn float(value: &Scalar, to: &DataType) -> Option<Vec<ScalarValue>> {
    let number = match value {
        Scalar::Float(number) => *number,
        Scalar::Integer(number) => *number as f64,
        _ => return None,
    };
    let narrow = cast(&ScalarValue::Float64(Some(number)), to)?;
    let wide = match cast(&narrow, &DataType::Float64)? {
        ScalarValue::Float64(Some(wide)) => wide,
        _ => return None,
    };
    // An integer is meant as it stands; a number too large for the type would be infinity.
    let rounded = matches!(value, Scalar::Integer(whole) if wide != number || whole.unsigned_abs() > 1 << 53);
    if rounded || wide.is_infinite() != number.is_infinite() {
        return None;
    }
    // To Arrow the two zeros are two values.
    match number == 0.0 {
        true => Some(vec![cast(&ScalarValue::Float64(Some(0.0)), to)?, cast(&ScalarValue::Float64(Some(-0.0)), to)?]),
        false => Some(vec![narrow]),
    }
}

fn decimal(value: &Scalar, scale: i8, to: &DataType) -> Option<ScalarValue> {
    let text = match value {
        Scalar::Integer(number) => number.to_string(),
        // The shortest text that is this float, without an exponent: the digits as they were written.
        Scalar::Float(number) if number.is_finite() => number.to_string(),
        Scalar::Text(text) => text.trim().to_owned(),
        _ => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_digits = fraction.trim_end_matches('0').len();
    if digits.is_empty() || !plain(digits) || !plain(fraction) || fraction_digits > usize::try_from(scale.max(0)).ok()? {
        return None;
    }
    if scale < 0 && !digits.ends_with(&"0".repeat(usize::from(scale.unsigned_abs()))) && digits != "0" {
        return None;
    }
    cast(&ScalarValue::Utf8(Some(text.clone())), to)
}

fn temporal(value: &Scalar, to: &DataType) -> Option<ScalarValue> {
    let (Scalar::Text(text) | Scalar::Datetime(text)) = value else { return None };
    let exact = |nanos: i128, unit: i128| (nanos % unit == 0).then(|| i64::try_from(nanos / unit).ok()).flatten();
    match to {
        DataType::Date32 | DataType::Date64 => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            cast(&ScalarValue::Date32(Some(i32::try_from(days).ok()?)), to)
        }
        DataType::Timestamp(unit, zone) => {
            let ticks = exact(instant(text)?, nanos_of(*unit))?;
            cast(&ScalarValue::Int64(Some(ticks)), &DataType::Timestamp(*unit, zone.clone()))
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()?;
            let nanos = i128::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i128::from(time.nanosecond());
            let ticks = exact(nanos, nanos_of(*unit))?;
            let whole = match to {
                DataType::Time32(_) => ScalarValue::Int32(Some(i32::try_from(ticks).ok()?)),
                _ => ScalarValue::Int64(Some(ticks)),
            };
            cast(&whole, to)
        }
        _ => None,
    }
}

fn nanos_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Nanoseconds since 1970; without an offset UTC is meant, a date alone is its first instant.
fn instant(text: &str) -> Option<i128> {
    let at = DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).ok().or_else(|| {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
        let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let local = local.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
        local.map(|local| local.and_utc())
    })?;
    Some(i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Scalar {
        Scalar::Text(value.to_owned())
    }

    fn datetime(value: &str) -> Scalar {
        Scalar::Datetime(value.to_owned())
    }

    fn shown(value: &Scalar, to: &DataType) -> String {
        match fit(value, to) {
            Some(values) => values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" "),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn a_value_is_the_same_value_of_the_columns_type_or_none() {
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let cases = [
            (text("a"), DataType::Utf8, "Utf8(\"a\")"),
            (text("a"), DataType::Utf8View, "Utf8View(\"a\")"),
            (text("a"), DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8)), "LargeUtf8(\"a\")"),
            (Scalar::Integer(1), DataType::Utf8, "none"),
            (text("1"), DataType::Int64, "none"),
            (Scalar::Boolean(true), DataType::Boolean, "Boolean(true)"),
            (Scalar::Boolean(true), DataType::Int8, "none"),
            (Scalar::Integer(127), DataType::Int8, "Int8(127)"),
            (Scalar::Integer(128), DataType::Int8, "none"),
            (Scalar::Integer(-1), DataType::UInt64, "none"),
            (Scalar::Integer(i128::from(u64::MAX)), DataType::UInt64, "UInt64(18446744073709551615)"),
            (Scalar::Integer(i128::MAX), DataType::UInt64, "none"),
            (Scalar::Float(2.0), DataType::Int32, "Int32(2)"),
            (Scalar::Float(2.5), DataType::Int32, "none"),
            (Scalar::Float(f64::NAN), DataType::Int32, "none"),
            (Scalar::Float(0.1), DataType::Float32, "Float32(0.1)"),
            (Scalar::Float(1e300), DataType::Float32, "none"),
            (Scalar::Float(f64::INFINITY), DataType::Float32, "Float32(inf)"),
            (Scalar::Integer(16_777_217), DataType::Float32, "none"),
            (Scalar::Integer(16_777_216), DataType::Float32, "Float32(16777216)"),
            (Scalar::Integer(0), DataType::Float64, "Float64(0) Float64(-0)"),
            (Scalar::Float(1.25), DataType::Decimal128(5, 2), "Decimal128(1.25,5,2)"),
            (Scalar::Float(1.255), DataType::Decimal128(5, 2), "none"),
            (text("-1.50"), DataType::Decimal128(5, 1), "Decimal128(-1.5,5,1)"),
            (text("1e3"), DataType::Decimal128(9, 1), "none"),
            (Scalar::Integer(1000), DataType::Decimal128(5, 2), "none"),
            (Scalar::Integer(999), DataType::Decimal128(5, 2), "Decimal128(999.00,5,2)"),
            (datetime("2026-01-31"), DataType::Date32, "Date32(\"2026-01-31\")"),
            (text("2026-01-31"), DataType::Date32, "Date32(\"2026-01-31\")"),
            (datetime("2026-01-31T06:00:00Z"), DataType::Date32, "none"),
            (datetime("1970-01-01T01:00:01+01:00"), seconds.clone(), "TimestampSecond(1, None)"),
            (datetime("1970-01-01T00:00:01"), seconds.clone(), "TimestampSecond(1, None)"),
            (datetime("1970-01-01T00:00:00.5Z"), seconds, "none"),
            (datetime("1970-01-02"), micros.clone(), "TimestampMicrosecond(86400000000, Some(\"UTC\"))"),
            (text("1970-01-01 00:00:00.000001"), micros.clone(), "TimestampMicrosecond(1, Some(\"UTC\"))"),
            (text("soon"), micros, "none"),
            (datetime("06:00:00"), DataType::Time32(TimeUnit::Second), "Time32Second(\"21600\")"),
            (datetime("06:00:00.25"), DataType::Time64(TimeUnit::Microsecond), "Time64Microsecond(\"21600250000\")"),
            (text("a"), DataType::Binary, "none"),
            (text("a"), DataType::Null, "NULL"),
        ];
        for (value, to, expected) in cases {
            assert_eq!(shown(&value, &to), expected, "{value} as {to}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(value in "\\PC{0,30}|-?[0-9.:TZ+ -]{0,30}") {
            let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
            let time = DataType::Time64(TimeUnit::Nanosecond);
            for to in [DataType::Decimal128(38, 10), DataType::Decimal128(5, -2), DataType::Date64, zoned, time] {
                let _ = (fit(&text(&value), &to), fit(&datetime(&value), &to));
            }
        }

        #[test]
        fn an_integer_fits_or_is_told(number in any::<i64>()) {
            let fits = fit(&Scalar::Integer(i128::from(number)), &DataType::Int16).is_some();
            prop_assert_eq!(fits, i16::try_from(number).is_ok());
        }
    }
}
