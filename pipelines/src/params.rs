//! A pipeline's parameters: typed values that are given to it for one run. They are used as values, in SQL as `$name` and in settings as
//! `{ param = "name" }`, never as text that becomes part of something. How they are declared is read in `parse/params.rs`.

use std::{cmp::Ordering, fmt};

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use toml::de::DeValue;

use crate::{
    diagnostic::Spanned,
    parse::walk::{integer, type_name},
};

/// The words for types, as they are offered.
pub(crate) const TYPES: [&str; 8] = ["text", "bigint", "double", "decimal(12, 2)", "boolean", "date", "timestamp", "timestamptz"];
/// Digits of the largest decimal.
const PRECISION_MAX: u8 = 38;

/// A parameter of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name: a letter or `_`, then letters, digits and `_`.
    pub name: Spanned<String>,
    /// What it holds.
    pub kind: ParamKind,
    /// What it is this time; none where it was not given and has no default, which is an error of its own.
    pub value: Option<ParamValue>,
    /// True where the value is not the default.
    pub is_given: bool,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Any text.
    Text,
    /// A whole number of 64 bits, signed.
    Bigint,
    /// A floating-point number of 64 bits.
    Double,
    /// A number of at most `precision` digits, `scale` of them behind the point.
    Decimal {
        /// 1 to 38.
        precision: u8,
        /// 0 to `precision`.
        scale: u8,
    },
    /// True or false.
    Boolean,
    /// A day.
    Date,
    /// A day and a time of day, of no zone.
    Timestamp,
    /// An instant.
    Timestamptz,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// Any text.
    Text(String),
    /// A whole number.
    Bigint(i64),
    /// A finite floating-point number.
    Double(f64),
    /// A decimal.
    Decimal {
        /// All digits, as one number.
        digits: i128,
        /// How many of them stand behind the point.
        scale: u8,
    },
    /// True or false.
    Boolean(bool),
    /// A day.
    Date(NaiveDate),
    /// A day and a time of day, of no zone.
    Timestamp(NaiveDateTime),
    /// An instant.
    Timestamptz(DateTime<Utc>),
}

impl ParamKind {
    /// Reads the word for a type.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.trim().to_lowercase();
        Some(match word.as_str() {
            "text" => Self::Text,
            "bigint" => Self::Bigint,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            decimal => {
                let (precision, scale) = decimal.strip_prefix("decimal")?.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
                let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                if precision == 0 || precision > PRECISION_MAX || scale > precision {
                    return None;
                }
                Self::Decimal { precision, scale }
            }
        })
    }

    /// The type of a parameter that is declared by nothing but a value.
    pub(crate) fn of(value: &DeValue<'_>) -> Option<Self> {
        Some(match value {
            DeValue::String(_) => Self::Text,
            DeValue::Integer(_) => Self::Bigint,
            DeValue::Float(_) => Self::Double,
            DeValue::Boolean(_) => Self::Boolean,
            DeValue::Datetime(moment) => match (moment.date, moment.time, moment.offset) {
                (Some(_), Some(_), Some(_)) => Self::Timestamptz,
                (Some(_), Some(_), None) => Self::Timestamp,
                (Some(_), None, _) => Self::Date,
                _ => return None,
            },
            DeValue::Array(_) | DeValue::Table(_) => return None,
        })
    }

    /// What a value of it is called in messages.
    fn expected(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Bigint => "an integer".to_owned(),
            Self::Double => "a number".to_owned(),
            Self::Decimal { .. } => format!("a number of the type {self}"),
            Self::Boolean => "true or false".to_owned(),
            Self::Date => "a date such as 2013-01-31".to_owned(),
            Self::Timestamp => "a datetime without an offset, such as 2013-01-31T06:00:00".to_owned(),
            Self::Timestamptz => "a datetime with its offset, such as 2013-01-31T06:00:00Z".to_owned(),
        }
    }

    /// Whether its values have an order that bounds can be meant in.
    pub(crate) fn is_ordered(self) -> bool {
        !matches!(self, Self::Text | Self::Boolean)
    }

    /// Reads a value as TOML has it, or says what was expected.
    pub(crate) fn fit(self, value: &DeValue<'_>) -> Result<ParamValue, String> {
        let wrong = || Err(format!("expected {}, found {}", self.expected(), type_name(value)));
        let text = match (self, value) {
            (Self::Bigint, DeValue::Integer(number)) => {
                return integer(number)
                    .map(ParamValue::Bigint)
                    .ok_or_else(|| format!("expected {}, found one that is too large", self.expected()));
            }
            (Self::Double | Self::Decimal { .. }, DeValue::Integer(number)) => match integer(number) {
                Some(number) => number.to_string(),
                None => return wrong(),
            },
            (Self::Double | Self::Decimal { .. }, DeValue::Float(number)) => number.as_str().to_owned(),
            (Self::Boolean, DeValue::Boolean(value)) => return Ok(ParamValue::Boolean(*value)),
            (Self::Date | Self::Timestamp | Self::Timestamptz, DeValue::Datetime(moment)) => moment.to_string(),
            (Self::Text | Self::Decimal { .. } | Self::Date | Self::Timestamp | Self::Timestamptz, DeValue::String(text)) => {
                text.to_string()
            }
            _ => return wrong(),
        };
        self.read(&text)
    }

    /// Reads a value from bare text, as a command line has it, or says what was expected.
    pub(crate) fn read(self, text: &str) -> Result<ParamValue, String> {
        let found = match self {
            Self::Text => Some(ParamValue::Text(text.to_owned())),
            Self::Bigint => text.trim().parse().ok().map(ParamValue::Bigint),
            Self::Double => text.trim().parse().ok().filter(|number: &f64| number.is_finite()).map(ParamValue::Double),
            Self::Decimal { precision, scale } => decimal(text.trim(), precision, scale),
            Self::Boolean => text.trim().parse().ok().map(ParamValue::Boolean),
            Self::Date => text.trim().parse().ok().map(ParamValue::Date),
            Self::Timestamp => text.trim().replacen(' ', "T", 1).parse().ok().map(ParamValue::Timestamp),
            Self::Timestamptz => DateTime::parse_from_rfc3339(text.trim()).ok().map(|instant| ParamValue::Timestamptz(instant.to_utc())),
        };
        found.ok_or_else(|| format!("expected {}, found \"{text}\"", self.expected()))
    }
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Bigint => f.write_str("bigint"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Boolean => f.write_str("boolean"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Timestamptz => f.write_str("timestamptz"),
        }
    }
}

/// Reads a decimal exactly: none where it has more digits than there is room for.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<ParamValue> {
    let text = text.replace('_', "");
    let (sign, bare) = match text.strip_prefix('-') {
        Some(bare) => (-1, bare),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let (whole, part) = bare.split_once('.').unwrap_or((bare, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let part = part.trim_end_matches('0');
    if whole.is_empty() || !are_digits(whole) || !are_digits(part) || part.len() > usize::from(scale) {
        return None;
    }
    let digits = format!("{}{part:0<width$}", whole.trim_start_matches('0'), width = usize::from(scale));
    if digits.len() > usize::from(precision) {
        return None;
    }
    let digits: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(ParamValue::Decimal { digits: sign * digits, scale })
}

impl ParamValue {
    /// How two values of one type stand to one another.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bigint(one), Self::Bigint(other)) => Some(one.cmp(other)),
            (Self::Double(one), Self::Double(other)) => one.partial_cmp(other),
            (Self::Decimal { digits: one, .. }, Self::Decimal { digits: other, .. }) => Some(one.cmp(other)),
            (Self::Boolean(one), Self::Boolean(other)) => Some(one.cmp(other)),
            (Self::Date(one), Self::Date(other)) => Some(one.cmp(other)),
            (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            (Self::Timestamptz(one), Self::Timestamptz(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }

    /// The value as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()).to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bigint(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Decimal { digits, scale: 0 } => write!(f, "{digits}"),
            Self::Decimal { digits, scale } => {
                let (sign, width) = (if *digits < 0 { "-" } else { "" }, usize::from(*scale));
                let text = format!("{:0>width$}", digits.unsigned_abs(), width = width + 1);
                let (whole, part) = text.split_at(text.len() - width);
                write!(f, "{sign}{whole}.{part}")
            }
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Date(day) => write!(f, "{day}"),
            Self::Timestamp(moment) => write!(f, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.f")),
            Self::Timestamptz(instant) => f.write_str(&instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(kind: &str, toml: &str) -> Result<String, String> {
        let kind = ParamKind::parse(kind).expect("a type");
        kind.fit(DeValue::parse(toml).expect("is TOML").get_ref()).map(|value| value.to_toml())
    }

    #[test]
    fn a_value_is_of_its_type_or_refused() {
        for (kind, toml, expected) in [
            ("text", "'a \"b\"'", "'a \"b\"'"),
            ("bigint", "0x10", "16"),
            ("double", "2", "2.0"),
            ("decimal(5, 2)", "12.5", "12.50"),
            ("decimal(5, 2)", "'-0.05'", "-0.05"),
            ("decimal(38, 0)", "'99999999999999999999999999999999999999'", "99999999999999999999999999999999999999"),
            ("boolean", "true", "true"),
            ("date", "2013-01-31", "2013-01-31"),
            ("timestamp", "2013-01-31 06:00:00", "2013-01-31T06:00:00"),
            ("timestamptz", "2013-01-31T06:00:00+02:00", "2013-01-31T04:00:00Z"),
        ] {
            assert_eq!(value(kind, toml).as_deref(), Ok(expected), "{kind} {toml}");
        }
        for (kind, toml, expected) in [
            ("text", "1", "expected a text, found an integer"),
            ("bigint", "1.0", "expected an integer, found a float"),
            ("bigint", "'1'", "expected an integer, found a string"),
            ("decimal(5, 2)", "1.005", "expected a number of the type decimal(5, 2), found \"1.005\""),
            ("decimal(5, 2)", "1000", "expected a number of the type decimal(5, 2), found \"1000\""),
            ("double", "nan", "expected a number, found \"nan\""),
            ("date", "2013-01-31T06:00:00", "expected a date such as 2013-01-31, found \"2013-01-31T06:00:00\""),
            ("timestamptz", "2013-01-31", "expected a datetime with its offset, such as 2013-01-31T06:00:00Z, found \"2013-01-31\""),
            ("text", "{ env = \"A\" }", "expected a text, found a table"),
        ] {
            assert_eq!(value(kind, toml).as_ref().map_err(String::as_str), Err(expected), "{kind} {toml}");
        }
    }

    #[test]
    fn a_decimal_has_room_for_its_digits() {
        for word in ["decimal(0, 0)", "decimal(39, 2)", "decimal(4, 5)", "decimal", "int", "decimal(4)"] {
            assert_eq!(ParamKind::parse(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_of_a_value_is_read_as_that_value(number in any::<i64>(), scale in 0_u8..20, text in any::<String>(), seconds in -60_000_000_000_i64..200_000_000_000) {
            let instant = DateTime::from_timestamp(seconds, 0).expect("an instant");
            let decimal = ParamKind::Decimal { precision: 38, scale };
            for (kind, value) in [
                (ParamKind::Bigint, ParamValue::Bigint(number)),
                (decimal, ParamValue::Decimal { digits: i128::from(number), scale }),
                (ParamKind::Text, ParamValue::Text(text)),
                (ParamKind::Timestamptz, ParamValue::Timestamptz(instant)),
                (ParamKind::Timestamp, ParamValue::Timestamp(instant.naive_utc())),
                (ParamKind::Date, ParamValue::Date(instant.date_naive())),
            ] {
                prop_assert_eq!(kind.read(&value.to_string()), Ok(value.clone()));
                let toml = value.to_toml();
                let written = DeValue::parse(&toml).expect("is TOML");
                prop_assert_eq!(kind.fit(written.get_ref()), Ok(value));
            }
        }
    }
}
