//! Which types hold every value of a CSV file: the narrowest of boolean, int64, float64, date, timestamp and text.
//! What is inferred is what `column.rs` reads without a fault, and what loses nothing: `00501` and `+1` stay text.

use arrow::datatypes::{DataType, TimeUnit};

use super::{
    column::{Strip, Style, float_with},
    structure::{Index, Structure},
    values,
};
use crate::file::block::Inference;

/// Learns from the records of a block, from byte `from` on.
pub fn block(structure: &Structure, style: &Style, block: &[u8], from: usize, state: &mut Inference) {
    let careful = structure.careful(block);
    let mut index = Index::default();
    let mut at = from;
    while at < block.len() {
        at = structure.index(block, at, at + super::STRIP, careful, &mut index);
        let strip = Strip { block, starts: index.starts(), rows: &index.rows, style, utf8: false };
        for (field, &place) in state.current.iter().enumerate() {
            let Some((_, seen)) = state.columns.get_index_mut(place) else { continue };
            learn(&strip, field, field + 1 == structure.fields, seen);
        }
        state.records += index.rows.len() as u64;
    }
}

/// Whether a type that holds all values so far, or none where there are none, does not change by those of a strip.
pub fn bears_out(strip: &Strip<'_>, field: usize, last: bool, kind: Option<&DataType>) -> bool {
    let mut seen = kind.cloned();
    learn(strip, field, last, &mut seen);
    seen.as_ref() == kind
}

fn learn(strip: &Strip<'_>, field: usize, last: bool, seen: &mut Option<DataType>) {
    let point = strip.style.point;
    let mut rows = strip.rows;
    while !rows.is_empty() {
        // As a rule all of them are of the type so far.
        let fitting = match seen {
            Some(DataType::Utf8) => return,
            Some(DataType::Int64) => fitting(strip, rows, field, last, values::is_integer_fast, is_integer),
            Some(DataType::Float64) => {
                let quickly = |block: &[u8], start, len| point == b'.' && values::is_number_fast(block, start, len);
                fitting(strip, rows, field, last, quickly, |value| is_number(value, point))
            }
            Some(DataType::Date32) => fitting(strip, rows, field, last, values::is_date_fast, |value| values::date(value).is_some()),
            Some(DataType::Boolean) => fitting(strip, rows, field, last, closer, |value| values::boolean(value).is_some()),
            Some(DataType::Timestamp(_, zone)) => {
                let zoned = zone.is_some();
                fitting(strip, rows, field, last, closer, |value| is_stamp(value) == Some(zoned))
            }
            _ => 0,
        };
        let Some((&row, rest)) = rows[fitting..].split_first() else { return };
        rows = rest;
        // An empty text between quotes is a value, and only text holds it.
        if let Some(value) = strip.style.trimmed(strip.raw(row, field, last).1) {
            let this = classify(&value, point);
            *seen = Some(match seen.take() {
                None => this,
                Some(before) => widen(before, this),
            });
        }
    }
}

/// For types that no quick look tells.
fn closer(_: &[u8], _: usize, _: usize) -> bool {
    false
}

/// How many of the first rows hold a value that fits, or none. What does not fit `quickly`, at a place of the block, may fit by its text.
#[inline(always)]
fn fitting(
    strip: &Strip<'_>,
    rows: &[u32],
    field: usize,
    last: bool,
    quickly: impl Fn(&[u8], usize, usize) -> bool,
    fits: impl Fn(&[u8]) -> bool,
) -> usize {
    let is_fitting = |row: &&u32| {
        let (start, raw) = strip.raw(**row, field, last);
        match raw {
            [] => true,
            // Whether it spells null is all the same: a null fits as well.
            [first, ..]
                if first.is_ascii_digit() && strip.style.quote != Some(*first) && (quickly(strip.block, start, raw.len()) || fits(raw)) =>
            {
                true
            }
            _ => strip.style.trimmed(raw).is_none_or(|value| fits(&value)),
        }
    };
    rows.iter().take_while(is_fitting).count()
}

/// The type that holds values of both.
fn widen(a: DataType, b: DataType) -> DataType {
    let naive = DataType::Timestamp(TimeUnit::Microsecond, None);
    match (&a, &b) {
        _ if a == b => a,
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        (DataType::Date32, other) | (other, DataType::Date32) if *other == naive => naive,
        _ => DataType::Utf8,
    }
}

fn classify(value: &[u8], point: u8) -> DataType {
    match value {
        [] => DataType::Utf8,
        _ if is_integer(value) => DataType::Int64,
        _ if is_float(value, point) => DataType::Float64,
        _ if values::boolean(value).is_some() => DataType::Boolean,
        _ if values::date(value).is_some() => DataType::Date32,
        _ => match is_stamp(value) {
            Some(zoned) => DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into())),
            None => DataType::Utf8,
        },
    }
}

/// Whether a timestamp has a zone; none where the value is none that fits microseconds.
fn is_stamp(value: &[u8]) -> Option<bool> {
    let stamp = values::stamp(value)?;
    values::stamp_in(stamp, 1_000_000).map(|_| stamp.zoned)
}

/// Whether it begins with a digit, after at most a minus, and with no needless zero.
#[inline(always)]
pub fn is_plain(value: &[u8]) -> bool {
    match value.strip_prefix(b"-").unwrap_or(value) {
        [b'0', next, ..] => !next.is_ascii_digit(),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    }
}

/// What a column of floats is learnt from.
pub fn is_number(value: &[u8], point: u8) -> bool {
    is_float(value, point) || is_integer(value)
}

/// Digits with at most a minus, no needless zero in front, in 64 bits.
pub fn is_integer(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => {
            rest.iter().all(u8::is_ascii_digit) && (rest.len() < 18 || values::integer(value).is_some_and(|v| i64::try_from(v).is_ok()))
        }
        _ => false,
    }
}

/// A number with a fraction or an exponent, no plus and no needless zero in front; no words such as `nan`.
fn is_float(value: &[u8], point: u8) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    (is_plain(value) || matches!(digits, [first, next, ..] if *first == point && next.is_ascii_digit()))
        && (is_decimal(digits, point)
            || value.iter().any(|b| *b == point || matches!(b, b'e' | b'E')) && float_with::<f64>(value, point).is_some())
}

/// Digits, the point, and digits: a float whatever they are.
fn is_decimal(digits: &[u8], point: u8) -> bool {
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &digits[whole..] {
        [first, fraction @ ..] => whole > 0 && *first == point && !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit),
        [] => false,
    }
}
