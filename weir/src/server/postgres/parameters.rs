//! What value did a client bind? A parameter's bytes, as text or in binary, of the type that the client or the planner has given it.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, new_empty_array},
    datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit},
};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use weir_engine::query::postgres::types::{element, oid, pg_type};

use super::{
    error::{PgError, Result},
    temporal::{EPOCH_DAYS, EPOCH_MICROS},
};

/// Elements of an array that a client may bind.
const ELEMENTS_MAX: usize = 1 << 20;

/// The type that a parameter is told to have: the client's own, else what the planner wants, else text.
pub fn told(declared: u32, wanted: Option<&DataType>) -> u32 {
    match (declared, wanted) {
        (oid::UNKNOWN | 0, Some(wanted)) => match pg_type(&Field::new("", wanted.clone(), true)).oid {
            // Nothing that a client could write is a struct.
            oid::JSON => oid::TEXT,
            known => known,
        },
        (oid::UNKNOWN | 0, None) => oid::TEXT,
        (declared, _) => declared,
    }
}

/// A type's name, as in `prepare q (bigint) as …`.
pub fn named(name: &str) -> Option<u32> {
    let (name, is_array) = match name.replace(' ', "") {
        name if name.ends_with("[]") => (name[..name.len() - 2].to_owned(), true),
        name => (name, false),
    };
    let bare = name.split('(').next().unwrap_or_default();
    let found = match bare {
        "bool" | "boolean" => oid::BOOL,
        "smallint" | "int2" => oid::INT2,
        "int" | "integer" | "int4" => oid::INT4,
        "bigint" | "int8" => oid::INT8,
        "real" | "float4" => oid::FLOAT4,
        "float" | "doubleprecision" | "float8" => oid::FLOAT8,
        "numeric" | "decimal" => oid::NUMERIC,
        "text" => oid::TEXT,
        "varchar" | "charactervarying" => oid::VARCHAR,
        "char" | "character" | "bpchar" => oid::BPCHAR,
        "bytea" => oid::BYTEA,
        "date" => oid::DATE,
        "time" | "timewithouttimezone" => oid::TIME,
        "timestamp" | "timestampwithouttimezone" => oid::TIMESTAMP,
        "timestamptz" | "timestampwithtimezone" => oid::TIMESTAMPTZ,
        "interval" => oid::INTERVAL,
        "uuid" => oid::UUID,
        "json" => oid::JSON,
        "jsonb" => oid::JSONB,
        "unknown" => oid::UNKNOWN,
        _ => return None,
    };
    if !is_array {
        return Some(found);
    }
    weir_engine::query::postgres::types::ARRAYS.iter().find(|(element, _)| *element == found).map(|(_, array)| *array)
}

/// Reads a parameter. `at` is its number, from 1.
pub fn value(kind: u32, binary: bool, bytes: Option<&Bytes>, at: usize) -> Result<ScalarValue> {
    let wrong = |why: &str| PgError::new(if binary { "22P03" } else { "22P02" }, format!("the value of ${at} {why}"));
    let empty = arrow_type(kind).ok_or_else(|| {
        PgError::unsupported(format!("${at} is of type {kind}, which parameters cannot have here"))
            .hint("bind it as text, and cast it in the query")
    })?;
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(&empty).map_err(|error| PgError::new("XX000", error.to_string()));
    };
    if let Some(inner) = element(kind) {
        let mut items = if binary { array(inner, bytes.clone(), at)? } else { text_array(inner, bytes, at)? };
        if inner == oid::NUMERIC {
            // Each has as many places as it was written with; an array has one type.
            let kind = arrow_type(inner).unwrap_or(DataType::Utf8);
            let cast = items.iter().map(|item| item.cast_to(&kind));
            items = cast.collect::<Result<_, _>>().map_err(|_| wrong("has a number that is too long"))?;
        }
        let values: ArrayRef = match items.is_empty() {
            true => new_empty_array(&arrow_type(inner).unwrap_or(DataType::Utf8)),
            false => ScalarValue::iter_to_array(items).map_err(|_| wrong("is an array of several types"))?,
        };
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(values).with_nullable(true).build_list_array();
        return Ok(ScalarValue::List(Arc::new(list)));
    }
    match binary {
        true => read_binary(kind, bytes.clone()).ok_or_else(|| wrong(&format!("is not the binary form of type {kind}"))),
        false => {
            let text = std::str::from_utf8(bytes).map_err(|_| PgError::new("22021", format!("the value of ${at} is not UTF-8")))?;
            read_text(kind, text, &empty).ok_or_else(|| wrong(&format!("is not of type {empty}: \"{}\"", short(text))))
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The Arrow type whose values a parameter of Postgres's type has.
pub fn arrow_type(kind: u32) -> Option<DataType> {
    Some(match kind {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        oid::INT8 | oid::OID => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        // Wide enough for what clients bind; the query's own type is cast to.
        oid::NUMERIC => DataType::Decimal128(38, 10),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN | oid::CHAR | oid::JSON | oid::JSONB | oid::UUID | 0 => {
            DataType::Utf8
        }
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        oid::INTERVAL => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        other => DataType::new_list(arrow_type(element(other)?)?, true),
    })
}

fn read_text(kind: u32, text: &str, target: &DataType) -> Option<ScalarValue> {
    let trimmed = text.trim();
    Some(match kind {
        oid::BOOL => {
            let value = match trimmed.to_ascii_lowercase().as_str() {
                "t" | "true" | "yes" | "on" | "y" | "1" => true,
                "f" | "false" | "no" | "off" | "n" | "0" => false,
                _ => return None,
            };
            ScalarValue::Boolean(Some(value))
        }
        oid::BYTEA => ScalarValue::Binary(Some(match text.strip_prefix("\\x") {
            Some(digits) => unhex(digits)?,
            None if !text.contains('\\') => text.as_bytes().to_vec(),
            None => return None,
        })),
        oid::NUMERIC => decimal(trimmed)?,
        oid::FLOAT4 => ScalarValue::Float32(Some(trimmed.parse().ok()?)),
        oid::FLOAT8 => ScalarValue::Float64(Some(trimmed.parse().ok()?)),
        _ if *target == DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        _ => {
            let value = ScalarValue::try_from_string(trimmed.to_owned(), target).ok()?;
            if value.is_null() { return None } else { value }
        }
    })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// A number with all of its digits: of as many places behind the point as it has.
fn decimal(text: &str) -> Option<ScalarValue> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && behind.is_empty() || !whole.bytes().chain(behind.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut digits = format!("{whole}{behind}");
    let mut scale = i32::try_from(behind.len()).ok()?.checked_sub(exponent)?;
    if scale < 0 {
        if scale < -76 {
            return None;
        }
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
        scale = 0;
    }
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    if digits.len() > 38 || scale > 38 {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let precision = digits.len().max(scale as usize).max(1) as u8;
    Some(ScalarValue::Decimal128(Some(if negative { -value } else { value }), precision, scale as i8))
}

fn read_binary(kind: u32, mut bytes: Bytes) -> Option<ScalarValue> {
    let value = match kind {
        oid::BOOL => ScalarValue::Boolean(Some(bytes.try_get_u8().ok()? != 0)),
        oid::INT2 => ScalarValue::Int16(Some(bytes.try_get_i16().ok()?)),
        oid::INT4 => ScalarValue::Int32(Some(bytes.try_get_i32().ok()?)),
        oid::INT8 => ScalarValue::Int64(Some(bytes.try_get_i64().ok()?)),
        oid::OID => ScalarValue::Int64(Some(bytes.try_get_u32().ok()?.into())),
        oid::FLOAT4 => ScalarValue::Float32(Some(bytes.try_get_f32().ok()?)),
        oid::FLOAT8 => ScalarValue::Float64(Some(bytes.try_get_f64().ok()?)),
        oid::NUMERIC => return numeric(bytes),
        oid::BYTEA => return Some(ScalarValue::Binary(Some(bytes.to_vec()))),
        oid::DATE => ScalarValue::Date32(Some(i32::try_from(i64::from(bytes.try_get_i32().ok()?) + EPOCH_DAYS).ok()?)),
        oid::TIME => ScalarValue::Time64Microsecond(Some(bytes.try_get_i64().ok().filter(|micros| (0..=86_400_000_000).contains(micros))?)),
        oid::TIMESTAMP => ScalarValue::TimestampMicrosecond(Some(bytes.try_get_i64().ok()?.checked_add(EPOCH_MICROS)?), None),
        oid::TIMESTAMPTZ => {
            ScalarValue::TimestampMicrosecond(Some(bytes.try_get_i64().ok()?.checked_add(EPOCH_MICROS)?), Some("UTC".into()))
        }
        oid::INTERVAL => {
            let (micros, days, months) = (bytes.try_get_i64().ok()?, bytes.try_get_i32().ok()?, bytes.try_get_i32().ok()?);
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, micros.checked_mul(1_000)?)))
        }
        oid::UUID => {
            let all: [u8; 16] = bytes.as_ref().try_into().ok()?;
            bytes.clear();
            let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
            ScalarValue::Utf8(Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])))
        }
        // Its version comes before the text.
        oid::JSONB => {
            bytes.try_get_u8().ok().filter(|version| *version == 1)?;
            return Some(ScalarValue::Utf8(Some(String::from_utf8(bytes.to_vec()).ok()?)));
        }
        _ => return Some(ScalarValue::Utf8(Some(String::from_utf8(bytes.to_vec()).ok()?))),
    };
    bytes.is_empty().then_some(value)
}

/// Postgres's numeric, back into its text.
fn numeric(mut bytes: Bytes) -> Option<ScalarValue> {
    let (count, weight, sign, scale) =
        (bytes.try_get_u16().ok()?, bytes.try_get_i16().ok()?, bytes.try_get_u16().ok()?, bytes.try_get_u16().ok()?);
    if !matches!(sign, 0 | 0x4000) || !(-20..=20).contains(&weight) || scale > 38 || usize::from(count) * 2 != bytes.len() {
        return None;
    }
    let groups: Vec<u16> = (0..count).map(|_| bytes.get_u16()).collect();
    if groups.iter().any(|group| *group > 9_999) {
        return None;
    }
    let group = |place: i16| usize::try_from(weight - place).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut text = String::from(if sign == 0 { "" } else { "-" });
    text.push('0');
    for place in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(place)));
    }
    text.push('.');
    let mut behind = String::new();
    for place in 1..=i16::try_from(scale.div_ceil(4)).ok()? {
        behind.push_str(&format!("{:04}", group(-place)));
    }
    behind.truncate(scale.into());
    text.push_str(&behind);
    decimal(&text)
}

fn array(inner: u32, mut bytes: Bytes, at: usize) -> Result<Vec<ScalarValue>> {
    let wrong = || PgError::new("22P03", format!("the value of ${at} is not the binary form of an array of one dimension"));
    let mut number = || bytes.try_get_i32().map_err(|_| wrong());
    let (dimensions, _, kind) = (number()?, number()?, number()?);
    if dimensions == 0 {
        return Ok(Vec::new());
    }
    let count = number()?;
    number()?;
    if dimensions != 1 || kind as u32 != inner {
        return Err(wrong());
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= ELEMENTS_MAX && count * 4 <= bytes.len()).ok_or_else(wrong)?;
    (0..count)
        .map(|_| {
            let length = bytes.try_get_i32().map_err(|_| wrong())?;
            let item = match usize::try_from(length) {
                Err(_) => None,
                Ok(length) if length <= bytes.len() => Some(bytes.split_to(length)),
                Ok(_) => return Err(wrong()),
            };
            value(inner, true, item.as_ref(), at)
        })
        .collect()
}

/// `{a,"b c",NULL}`
fn text_array(inner: u32, bytes: &Bytes, at: usize) -> Result<Vec<ScalarValue>> {
    let wrong = || PgError::new("22P02", format!("the value of ${at} is no array of one dimension"));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?.trim();
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(wrong)?;
    let mut items = Vec::new();
    if text.trim().is_empty() {
        return Ok(items);
    }
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let (mut item, mut quoted) = (String::new(), false);
        if letters.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match letters.next().ok_or_else(wrong)? {
                    '"' => break,
                    '\\' => item.push(letters.next().ok_or_else(wrong)?),
                    other => item.push(other),
                }
            }
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                match letter {
                    '{' | '}' | '"' => return Err(wrong()),
                    '\\' => item.push(letters.next().ok_or_else(wrong)?),
                    other => item.push(other),
                }
            }
            item.truncate(item.trim_end().len());
        }
        let is_null = !quoted && item.eq_ignore_ascii_case("null");
        let item = (!is_null).then(|| Bytes::from(item));
        items.push(value(inner, false, item.as_ref(), at)?);
        if items.len() > ELEMENTS_MAX {
            return Err(wrong());
        }
        match letters.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: u32, value: &str) -> Result<ScalarValue> {
        super::value(kind, false, Some(&Bytes::copy_from_slice(value.as_bytes())), 1)
    }

    #[test]
    fn texts_become_values_of_their_types() {
        assert_eq!(text(oid::INT4, " 42 ").expect("a number"), ScalarValue::Int32(Some(42)));
        assert_eq!(text(oid::NUMERIC, "-12.340").expect("a number"), ScalarValue::Decimal128(Some(-12_340), 5, 3));
        assert_eq!(text(oid::NUMERIC, "1e3").expect("a number"), ScalarValue::Decimal128(Some(1_000), 4, 0));
        assert_eq!(text(oid::BYTEA, "\\x00ff").expect("bytes"), ScalarValue::Binary(Some(vec![0, 255])));
        assert_eq!(text(oid::DATE, "2013-01-01").expect("a day"), ScalarValue::Date32(Some(15_706)));
        for (kind, wrong) in
            [(oid::INT4, "x"), (oid::INT4, ""), (oid::NUMERIC, "1.2.3"), (oid::BOOL, "maybe"), (oid::BYTEA, "\\xf"), (oid::DATE, "soon")]
        {
            assert_eq!(text(kind, wrong).expect_err(wrong).state, "22P02", "{wrong}");
        }
        let list = text(1007, "{1,NULL, 3}").expect("an array");
        assert_eq!(list.to_string(), "[1, , 3]");
        assert_eq!(text(1009, r#"{"a b",NULL,"null"}"#).expect("an array").to_string(), "[a b, , null]");
        for wrong in ["1", "{1", "{{1}}", "{\"a}", "{\"a\"b}"] {
            text(1009, wrong).expect_err(wrong);
        }
    }

    #[test]
    fn binary_values_are_read_whole_or_refused() {
        let read = |kind, bytes: &[u8]| super::value(kind, true, Some(&Bytes::copy_from_slice(bytes)), 1);
        assert_eq!(read(oid::INT8, &7_i64.to_be_bytes()).expect("a number"), ScalarValue::Int64(Some(7)));
        // 12345.67
        let number = [0, 3, 0, 1, 0, 0, 0, 2, 0, 1, 0x09, 0x29, 0x1a, 0x2c];
        assert_eq!(read(oid::NUMERIC, &number).expect("a number"), ScalarValue::Decimal128(Some(1_234_567), 7, 2));
        for kind in
            [oid::INT2, oid::INT4, oid::INT8, oid::FLOAT8, oid::NUMERIC, oid::DATE, oid::TIMESTAMP, oid::UUID, oid::INTERVAL, 1007, 1231]
        {
            for length in 0..40 {
                for byte in [0, 1, 0x7f, 0xff] {
                    let _ = read(kind, &vec![byte; length]);
                }
            }
            assert!(read(kind, &[1, 2, 3]).is_err(), "{kind}");
        }
    }
}
