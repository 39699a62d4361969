//! Values of a cursor column as whole numbers of its type's own unit, and back. What is done with them is `incremental.rs`'s.

use super::*;

/// The type as far as its numbers mean the same; none for a type that cannot be a cursor. Widening an integer changes nothing.
pub(super) fn kind(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Decimal128(_, scale) => format!("decimal({scale})"),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => "s",
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "us",
                TimeUnit::Nanosecond => "ns",
            };
            format!("timestamp({unit}{})", if zone.is_some() { ", zone" } else { "" })
        }
        other if other.is_integer() => "integer".into(),
        _ => return None,
    })
}

/// The lag in the type's unit, rounded up.
pub(super) fn lag(column: &str, data_type: &DataType, lag: Duration) -> Result<i128> {
    let nanos = i128::try_from(lag.as_nanos()).unwrap_or(i128::MAX);
    let unit_nanos = match data_type {
        DataType::Timestamp(unit, _) => unit_nanos(*unit),
        DataType::Date32 => 86_400_000_000_000,
        _ if nanos == 0 => return Ok(0),
        _ => {
            return Err(Error::user("cursor-lag", format!("the cursor \"{column}\" is {data_type}, which no \"lag\" can be taken from"))
                .help("leave \"lag\" out, or choose a cursor of dates or timestamps"));
        }
    };
    if *data_type == DataType::Date32 && nanos % unit_nanos != 0 {
        return Err(Error::user("cursor-lag", format!("the cursor \"{column}\" is a date, and \"lag\" is no whole number of days"))
            .help("write \"lag\" in days, such as \"2d\""));
    }
    Ok((nanos + unit_nanos - 1) / unit_nanos)
}

/// Nanoseconds from one value of the type to the next; none for a type that has no place in time.
pub(super) fn unit_of(data_type: &DataType) -> Option<i128> {
    match data_type {
        DataType::Timestamp(unit, _) => Some(unit_nanos(*unit)),
        DataType::Date32 => Some(86_400_000_000_000),
        _ => None,
    }
}

fn unit_nanos(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Reads `start` as a value of the type, strictly.
pub(super) fn parse_start(text: &str, column: &str, data_type: &DataType) -> Result<i128> {
    let (parsed, example) = match data_type {
        DataType::Date32 => (date(text), "2013-01-01".to_owned()),
        DataType::Timestamp(unit, zone) => {
            let example = if zone.is_some() { "2013-01-01T00:00:00Z" } else { "2013-01-01T00:00:00" };
            (timestamp(text, *unit, zone.is_some()), example.to_owned())
        }
        DataType::Decimal128(_, scale) => (decimal(text, *scale), "1000".to_owned()),
        _ => (text.parse().ok().filter(|_| !text.starts_with('+')), "1000".to_owned()),
    };
    let parsed = parsed.filter(|value| i128_of(&scalar(*value, data_type)) == Some(*value) && fits(*value, data_type));
    parsed.ok_or_else(|| {
        Error::user("wrong-start", format!("\"start\" is \"{text}\", and the cursor \"{column}\" is {data_type}"))
            .help(format!("write one such as start = \"{example}\""))
    })
}

fn date(text: &str) -> Option<i128> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10)?;
    Some(i128::from(date.signed_duration_since(chrono::NaiveDate::default()).num_days()))
}

fn timestamp(text: &str, unit: TimeUnit, zone: bool) -> Option<i128> {
    let instant = if zone {
        chrono::DateTime::parse_from_rfc3339(text).ok()?.naive_utc()
    } else {
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|format| chrono::NaiveDateTime::parse_from_str(text, format).ok())?
    };
    let nanos = i128::from(instant.and_utc().timestamp()) * 1_000_000_000 + i128::from(instant.and_utc().timestamp_subsec_nanos());
    // A value between two of the column's would have to be rounded.
    (nanos % unit_nanos(unit) == 0).then_some(nanos.div_euclid(unit_nanos(unit)))
}

fn decimal(text: &str, scale: i8) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let well_formed =
        !whole.is_empty() && (whole.len() + 1 + fraction.len() == digits.len() || fraction.is_empty() && whole.len() == digits.len());
    if !well_formed || fraction.len() > scale || !whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let value: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    Some(if negative { -value } else { value })
}

/// Whether the type can hold it.
fn fits(value: i128, data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal128(precision, _) => value.unsigned_abs() < 10_u128.pow(u32::from(*precision)),
        _ => true,
    }
}

/// A value of this type; one that it cannot hold becomes its nearest, as a lower bound may.
pub(super) fn scalar(value: i128, data_type: &DataType) -> ScalarValue {
    macro_rules! narrowed {
        ($variant:ident, $native:ty) => {
            ScalarValue::$variant(Some(value.clamp(<$native>::MIN.into(), <$native>::MAX.into()) as $native))
        };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    match data_type {
        DataType::Int8 => narrowed!(Int8, i8),
        DataType::Int16 => narrowed!(Int16, i16),
        DataType::Int32 => narrowed!(Int32, i32),
        DataType::Int64 => narrowed!(Int64, i64),
        DataType::UInt8 => narrowed!(UInt8, u8),
        DataType::UInt16 => narrowed!(UInt16, u16),
        DataType::UInt32 => narrowed!(UInt32, u32),
        DataType::UInt64 => narrowed!(UInt64, u64),
        DataType::Date32 => narrowed!(Date32, i32),
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            ScalarValue::Decimal128(Some(value.clamp(-most, most)), *precision, *scale)
        }
        DataType::Timestamp(unit, zone) => {
            let value = Some(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(value, zone.clone()),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(value, zone.clone()),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(value, zone.clone()),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(value, zone.clone()),
            }
        }
        _ => unreachable!("`kind` takes no other type"),
    }
}

fn i128_of(value: &ScalarValue) -> Option<i128> {
    let array = value.to_array().ok()?;
    all(array.as_ref(), &value.data_type())?.first().copied()
}

/// A column's values; none where it is of another type than planned. Nulls are the caller's.
pub(super) fn all(column: &dyn Array, data_type: &DataType) -> Option<Vec<i128>> {
    fn of<T: ArrowPrimitiveType>(column: &dyn Array) -> Option<Vec<i128>>
    where
        T::Native: Into<i128>,
    {
        Some(column.as_primitive_opt::<T>()?.values().iter().map(|value| (*value).into()).collect())
    }
    if column.data_type() != data_type {
        return None;
    }
    match data_type {
        DataType::Int8 => of::<Int8Type>(column),
        DataType::Int16 => of::<Int16Type>(column),
        DataType::Int32 => of::<Int32Type>(column),
        DataType::Int64 => of::<Int64Type>(column),
        DataType::UInt8 => of::<UInt8Type>(column),
        DataType::UInt16 => of::<UInt16Type>(column),
        DataType::UInt32 => of::<UInt32Type>(column),
        DataType::UInt64 => of::<UInt64Type>(column),
        DataType::Date32 => of::<Date32Type>(column),
        DataType::Decimal128(_, _) => of::<Decimal128Type>(column),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(column),
        _ => None,
    }
}

/// JSON has no whole numbers of 128 bits that every reader keeps: they are text.
pub(super) mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The same of what may be missing.
pub(super) mod as_optional_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(value: &Option<i128>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.to_string()).serialize(serializer)
    }
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i128>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
