//! What an Arrow row is as JSON: the form in which contracts see it and the quarantine keeps it. Which nulls a contract sees is left to `check`.
//!
//! | Arrow | JSON |
//! |---|---|
//! | null | `null` |
//! | boolean | `true`, `false` |
//! | integers | number, exact over all 64 bits |
//! | floats | number: the shortest that reads back as the same float; `"NaN"`, `"Infinity"`, `"-Infinity"` are text, since JSON has no such numbers |
//! | decimal | number. [`text`] writes every digit; [`row`] holds it exactly where it is a whole number of 64 bits, else as the nearest 64-bit float |
//! | text | text; of a field marked `arrow.json`, the value its text spells |
//! | binary | text: base64 (RFC 4648, padded) |
//! | date | text: `2013-01-31` |
//! | time | text: `10:15:00Z`; `format` `time` means RFC 3339's full-time, which ends in a zone, so the zone is written |
//! | timestamp with a zone | text: the instant in UTC, `2013-01-31T10:15:00Z` |
//! | timestamp without a zone | text without `Z`: `2013-01-31T10:15:00`; it is no `format` `date-time`, for nobody knows which instant it is |
//! | duration, interval | text: `PT1H30M`, `P1Y2M3DT4S` |
//! | list of any kind | array |
//! | struct | object, every field present |
//! | map | object; a key that is not text is written as its JSON |
//! | dictionary, run-end encoded, union | what the value inside is |
//!
//! `serde_json` is built without `arbitrary_precision`, which would change how every other crate of the program reads numbers. A contract
//! therefore judges a decimal of more than 15 digits by its nearest float; nothing that is kept goes that way, since the quarantine keeps [`text`].

use std::fmt::Write as _;

use ::arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, GenericListViewArray, OffsetSizeTrait, PrimitiveArray, RecordBatch, RunArray},
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
        DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, FieldRef, Float16Type,
        Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
        IntervalYearMonthType, RunEndIndexType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
    downcast_dictionary_array,
};
use serde_json::{Map, Number, Value};

use crate::{arrow::is_json_text, check::Rule, temporal};

/// Room that is made for a row's text.
const TEXT_BYTES: usize = 256;

/// Returns one row as a JSON object, nulls included. Panics when the batch has no such row.
pub fn row(batch: &RecordBatch, row: usize) -> Value {
    let cells = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
        let mut value = Value::Null;
        fill(field, array, row, None, &mut value);
        (field.name().clone(), value)
    });
    Value::Object(cells.collect())
}

/// Returns one row as the text of a JSON object, nulls included and decimals with every digit. Panics when the batch has no such row.
pub fn text(batch: &RecordBatch, row: usize) -> String {
    let mut out = String::with_capacity(TEXT_BYTES);
    out.push('{');
    for (index, (field, array)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_text(field.name(), &mut out);
        out.push(':');
        write(field, array, row, &mut out);
    }
    out.push('}');
    out
}

/// One cell, taken apart one level.
enum Cell<'a> {
    Null,
    Leaf,
    /// The same cell seen through its encoding.
    Inner(&'a Field, ArrayRef, usize),
    Struct(&'a [FieldRef], &'a [ArrayRef]),
    List(&'a Field, ArrayRef),
    Map(&'a Field, &'a Field, ArrayRef, ArrayRef),
}

fn take_apart<'a>(field: &'a Field, array: &'a dyn Array, row: usize) -> Cell<'a> {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Null => Cell::Null,
        DataType::Struct(fields) => Cell::Struct(fields, array.as_struct().columns()),
        DataType::List(item) => Cell::List(item, list::<i32>(array).value(row)),
        DataType::LargeList(item) => Cell::List(item, list::<i64>(array).value(row)),
        DataType::ListView(item) => Cell::List(item, list_view::<i32>(array).value(row)),
        DataType::LargeListView(item) => Cell::List(item, list_view::<i64>(array).value(row)),
        DataType::FixedSizeList(item, _) => Cell::List(item, array.as_fixed_size_list().value(row)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let entry = array.as_map().value(row);
                Cell::Map(&pair[0], &pair[1], entry.column(0).clone(), entry.column(1).clone())
            }
            _ => Cell::Null,
        },
        DataType::Dictionary(..) => {
            downcast_dictionary_array!(
                array => match array.key(row) {
                    Some(key) => Cell::Inner(field, array.values().clone(), key),
                    None => Cell::Null,
                },
                _ => Cell::Null
            )
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => run::<Int16Type>(field, array, row),
            DataType::Int32 => run::<Int32Type>(field, array, row),
            _ => run::<Int64Type>(field, array, row),
        },
        DataType::Union(fields, _) => {
            let union = array.as_union();
            let id = union.type_id(row);
            match fields.iter().find(|(known, _)| *known == id) {
                Some((_, inner)) => Cell::Inner(inner, union.child(id).clone(), union.value_offset(row)),
                None => Cell::Null,
            }
        }
        _ => Cell::Leaf,
    }
}

fn list<O: OffsetSizeTrait>(array: &dyn Array) -> &GenericListArray<O> {
    array.as_list::<O>()
}

fn list_view<O: OffsetSizeTrait>(array: &dyn Array) -> &GenericListViewArray<O> {
    array.as_list_view::<O>()
}

fn run<'a, R: RunEndIndexType>(field: &'a Field, array: &dyn Array, row: usize) -> Cell<'a> {
    match array.as_any().downcast_ref::<RunArray<R>>() {
        Some(runs) => Cell::Inner(field, runs.values().clone(), runs.get_physical_index(row)),
        None => Cell::Null,
    }
}

/// Writes a cell into `slot`, reusing the text that is there. Null fields of a struct are left out where the rule says so.
pub(crate) fn fill(field: &Field, array: &dyn Array, row: usize, rule: Option<&Rule>, slot: &mut Value) {
    let marked = || is_json_text(field) || rule.is_some_and(|rule| rule.json_text);
    *slot = match take_apart(field, array, row) {
        Cell::Leaf => return fill_leaf(array, row, marked(), slot),
        Cell::Inner(field, array, row) => return fill(field, &array, row, rule, slot),
        Cell::Null => Value::Null,
        Cell::Struct(fields, columns) => {
            let mut object = Map::with_capacity(fields.len());
            for (field, column) in fields.iter().zip(columns) {
                let inner = rule.map(|rule| rule.field(field.name()));
                let mut value = Value::Null;
                fill(field, column, row, inner, &mut value);
                if !value.is_null() || rule.is_none() || inner.is_some_and(|inner| inner.null) {
                    object.insert(field.name().clone(), value);
                }
            }
            Value::Object(object)
        }
        Cell::List(field, items) => {
            let inner = rule.and_then(|rule| rule.items.as_deref());
            let values = (0..items.len()).map(|index| {
                let mut value = Value::Null;
                // The items of a list that a rule covers follow the null rule too, even where no subschema is theirs.
                fill(field, &items, index, inner.or(rule.map(|_| Rule::silent())), &mut value);
                value
            });
            Value::Array(values.collect())
        }
        Cell::Map(key_field, value_field, keys, values) => {
            let mut object = Map::with_capacity(keys.len());
            for index in 0..keys.len() {
                let mut value = Value::Null;
                fill(value_field, &values, index, rule.map(|_| Rule::silent()), &mut value);
                object.insert(map_key(key_field, &keys, index), value);
            }
            Value::Object(object)
        }
    }
}

fn map_key(field: &Field, keys: &ArrayRef, index: usize) -> String {
    let mut key = Value::Null;
    fill(field, keys, index, None, &mut key);
    match key {
        Value::String(key) => key,
        _ => {
            let mut out = String::new();
            write(field, keys, index, &mut out);
            out
        }
    }
}

fn fill_leaf(array: &dyn Array, row: usize, json_text: bool, slot: &mut Value) {
    let text = match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    };
    if let Some(text) = text {
        if json_text && let Ok(value) = serde_json::from_str(text) {
            *slot = value;
        } else {
            reuse(slot).push_str(text);
        }
        return;
    }
    *slot = match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => at::<Int8Type>(array, row).into(),
        DataType::Int16 => at::<Int16Type>(array, row).into(),
        DataType::Int32 => at::<Int32Type>(array, row).into(),
        DataType::Int64 => at::<Int64Type>(array, row).into(),
        DataType::UInt8 => at::<UInt8Type>(array, row).into(),
        DataType::UInt16 => at::<UInt16Type>(array, row).into(),
        DataType::UInt32 => at::<UInt32Type>(array, row).into(),
        DataType::UInt64 => at::<UInt64Type>(array, row).into(),
        DataType::Float16 => float(shortest(at::<Float16Type>(array, row).to_f32())),
        DataType::Float32 => float(shortest(at::<Float32Type>(array, row))),
        DataType::Float64 => float(at::<Float64Type>(array, row)),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            decimal(&decimal_digits(array, row))
        }
        _ => return fill_written(array, row, reuse(slot)),
    };
}

/// Writes the leaves whose JSON is a text that has to be made.
fn fill_written(array: &dyn Array, row: usize, out: &mut String) {
    match array.data_type() {
        DataType::Binary => base64(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => base64(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => base64(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => base64(array.as_fixed_size_binary().value(row), out),
        DataType::Date32 => temporal::date(at::<Date32Type>(array, row).into(), out),
        DataType::Date64 => temporal::date(at::<Date64Type>(array, row).div_euclid(86_400_000), out),
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let value = match unit {
                TimeUnit::Second => at::<Time32SecondType>(array, row).into(),
                TimeUnit::Millisecond => at::<Time32MillisecondType>(array, row).into(),
                TimeUnit::Microsecond => at::<Time64MicrosecondType>(array, row),
                TimeUnit::Nanosecond => at::<Time64NanosecondType>(array, row),
            };
            temporal::clock(value, *unit, out);
            out.push('Z');
        }
        DataType::Timestamp(unit, zone) => {
            let value = match unit {
                TimeUnit::Second => at::<TimestampSecondType>(array, row),
                TimeUnit::Millisecond => at::<TimestampMillisecondType>(array, row),
                TimeUnit::Microsecond => at::<TimestampMicrosecondType>(array, row),
                TimeUnit::Nanosecond => at::<TimestampNanosecondType>(array, row),
            };
            temporal::timestamp(value, *unit, zone.is_some(), out);
        }
        DataType::Duration(unit) => {
            let value = match unit {
                TimeUnit::Second => at::<DurationSecondType>(array, row),
                TimeUnit::Millisecond => at::<DurationMillisecondType>(array, row),
                TimeUnit::Microsecond => at::<DurationMicrosecondType>(array, row),
                TimeUnit::Nanosecond => at::<DurationNanosecondType>(array, row),
            };
            temporal::duration(value, *unit, out);
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            let months = at::<IntervalYearMonthType>(array, row);
            temporal::interval(IntervalMonthDayNanoType::make_value(months, 0, 0), out);
        }
        DataType::Interval(IntervalUnit::DayTime) => temporal::interval_days(at::<IntervalDayTimeType>(array, row), out),
        DataType::Interval(IntervalUnit::MonthDayNano) => temporal::interval(at::<IntervalMonthDayNanoType>(array, row), out),
        other => unreachable!("{other} is taken apart before or is no leaf"),
    }
}

/// Writes a cell as JSON text, decimals with every digit.
fn write(field: &Field, array: &dyn Array, row: usize, out: &mut String) {
    match take_apart(field, array, row) {
        Cell::Null => out.push_str("null"),
        Cell::Inner(field, array, row) => write(field, &array, row, out),
        Cell::Struct(fields, columns) => {
            let mut before = '{';
            for (field, column) in fields.iter().zip(columns) {
                out.push(before);
                before = ',';
                push_text(field.name(), out);
                out.push(':');
                write(field, column, row, out);
            }
            out.push_str(if before == '{' { "{}" } else { "}" });
        }
        Cell::List(field, items) => {
            out.push('[');
            for index in 0..items.len() {
                if index > 0 {
                    out.push(',');
                }
                write(field, &items, index, out);
            }
            out.push(']');
        }
        Cell::Map(key_field, value_field, keys, values) => {
            out.push('{');
            for index in 0..keys.len() {
                if index > 0 {
                    out.push(',');
                }
                push_text(&map_key(key_field, &keys, index), out);
                out.push(':');
                write(value_field, &values, index, out);
            }
            out.push('}');
        }
        Cell::Leaf => match array.data_type() {
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                out.push_str(&decimal_digits(array, row));
            }
            DataType::Utf8 if !is_json_text(field) => push_text(array.as_string::<i32>().value(row), out),
            DataType::LargeUtf8 if !is_json_text(field) => push_text(array.as_string::<i64>().value(row), out),
            DataType::Utf8View if !is_json_text(field) => push_text(array.as_string_view().value(row), out),
            _ => {
                let mut value = Value::Null;
                fill_leaf(array, row, is_json_text(field), &mut value);
                match &value {
                    Value::String(text) => push_text(text, out),
                    value => push(value, out),
                }
            }
        },
    }
}

fn push(value: &Value, out: &mut String) {
    write!(out, "{value}").expect("a text takes whatever is written");
}

/// Writes a text as JSON; most have nothing that must be escaped.
fn push_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        return push(&Value::from(text), out);
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

fn at<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

/// Empties the text in `slot`, or puts an empty one there.
pub(crate) fn reuse(slot: &mut Value) -> &mut String {
    if !slot.is_string() {
        *slot = Value::String(String::new());
    }
    let Value::String(text) = slot else { unreachable!("made a text above") };
    text.clear();
    text
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// The 64-bit float that reads like the 32-bit one: 0.1, not 0.10000000149011612.
fn shortest(value: f32) -> f64 {
    match value.is_finite() {
        true => value.to_string().parse().unwrap_or_else(|_| value.into()),
        false => value.into(),
    }
}

fn decimal_digits(array: &dyn Array, row: usize) -> String {
    fn of<T: DecimalType + ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> String {
        array.value_as_string(row)
    }
    match array.data_type() {
        DataType::Decimal32(..) => of::<Decimal32Type>(array.as_primitive(), row),
        DataType::Decimal64(..) => of::<Decimal64Type>(array.as_primitive(), row),
        DataType::Decimal128(..) => of::<Decimal128Type>(array.as_primitive(), row),
        _ => of::<Decimal256Type>(array.as_primitive(), row),
    }
}

fn decimal(digits: &str) -> Value {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.bytes().all(|digit| digit == b'0') {
        // Up to 15 digits a float is exact, and keeps "5.00" from being an integer as written.
        if fraction.is_empty() || whole.len() > 15 {
            if let Ok(value) = whole.parse::<i64>() {
                return value.into();
            }
            if let Ok(value) = whole.parse::<u64>() {
                return value.into();
            }
        }
    }
    digits.parse().map_or_else(|_| Value::from(digits), float)
}

fn base64(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = match place <= chunk.len() {
                true => ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
                false => b'=',
            };
            out.push(char::from(letter));
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
