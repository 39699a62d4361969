//! What is known of a column's cells before one is seen: which JSON they can be, within which limits. Never less than what they are: a
//! cell that is not among these does not come. What a contract makes of it is `prove`'s.

use ::arrow::datatypes::DataType;
use jsonschema::Draft;
use serde_json::Value;

use crate::kernel::{Bound, Types};

/// What a cell can be as JSON, one bit each. A number is written as an integer or as a float.
pub(crate) const NULL: u8 = 1;
pub(crate) const BOOLEAN: u8 = 2;
pub(crate) const INTEGER: u8 = 4;
pub(crate) const FLOAT: u8 = 8;
pub(crate) const STRING: u8 = 16;
pub(crate) const ARRAY: u8 = 32;
pub(crate) const OBJECT: u8 = 64;
pub(crate) const KINDS: [u8; 7] = [NULL, BOOLEAN, INTEGER, FLOAT, STRING, ARRAY, OBJECT];

/// Comparisons that bringing two lists of values together may take.
const VALUES_PAIRS_MAX: usize = 1 << 16;

/// Cells of one column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cells {
    /// What they are where they are not null. Null is among them only where JSON text spells it, or a contract shows a null so.
    pub(crate) kinds: u8,
    /// Some may be null.
    pub(crate) null: bool,
    /// Of those written as integers.
    pub(crate) whole: (i128, i128),
    /// Of those written as floats.
    pub(crate) float: (f64, f64),
    /// Of those that are text, in code points.
    pub(crate) length: (u64, u64),
    /// Each is one of these, as far as it is no null.
    pub(crate) values: Option<Vec<Value>>,
    /// Those written as integers are multiples of each of these.
    pub(crate) multiples: Vec<u64>,
    /// Schemas that hold for each.
    pub(crate) same: Vec<(Draft, Value)>,
}

impl Cells {
    /// Anything.
    pub(crate) fn any() -> Self {
        Self {
            kinds: KINDS.iter().fold(0, |all, kind| all | kind),
            null: true,
            whole: (i64::MIN.into(), u64::MAX.into()),
            float: (f64::MIN, f64::MAX),
            length: (0, u64::MAX),
            values: None,
            multiples: Vec::new(),
            same: Vec::new(),
        }
    }

    /// The cells of a type, by the table of `json`. With `json`, text spells JSON.
    pub(crate) fn of(data_type: &DataType, json: bool, nullable: bool) -> Self {
        use DataType::*;
        let only = |kinds: u8| Self { kinds, null: nullable, ..Self::any() };
        let whole = |least: i128, most: i128| Self { whole: (least, most), ..only(INTEGER) };
        match data_type {
            Null => Self { null: true, ..only(0) },
            Boolean => only(BOOLEAN),
            Int8 => whole(i8::MIN.into(), i8::MAX.into()),
            Int16 => whole(i16::MIN.into(), i16::MAX.into()),
            Int32 => whole(i32::MIN.into(), i32::MAX.into()),
            Int64 => whole(i64::MIN.into(), i64::MAX.into()),
            UInt8 => whole(0, u8::MAX.into()),
            UInt16 => whole(0, u16::MAX.into()),
            UInt32 => whole(0, u32::MAX.into()),
            UInt64 => whole(0, u64::MAX.into()),
            // "NaN" to "-Infinity".
            Float16 | Float32 | Float64 => Self { length: (3, 9), ..only(FLOAT | STRING) },
            Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => only(INTEGER | FLOAT),
            Utf8 | LargeUtf8 | Utf8View if json => Self { null: nullable, ..Self::any() },
            Utf8 | LargeUtf8 | Utf8View => only(STRING),
            FixedSizeBinary(bytes) => {
                let letters = u64::try_from(*bytes).unwrap_or_default().div_ceil(3) * 4;
                Self { length: (letters, letters), ..only(STRING) }
            }
            Binary | LargeBinary | BinaryView | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_) | Interval(_) => {
                only(STRING)
            }
            List(_) | LargeList(_) | ListView(_) | LargeListView(_) | FixedSizeList(..) => only(ARRAY),
            Struct(_) | Map(..) => only(OBJECT),
            // These can hold nulls that the column does not own up to.
            Dictionary(_, values) => Self::of(values, json, true),
            RunEndEncoded(_, values) => Self::of(values.data_type(), json, true),
            Union(..) => Self::any(),
        }
    }

    /// What both say of the same cells.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.kinds &= other.kinds;
        self.null &= other.null;
        self.within(other.whole);
        self.within_floats(other.float);
        self.long(other.length);
        for multiple in &other.multiples {
            self.divides(*multiple);
        }
        for same in &other.same {
            self.is(same.clone());
        }
        if let Some(values) = &other.values {
            self.one_of(values);
        }
        self.settle();
        self
    }

    /// What holds of cells that are of one or the other.
    pub(crate) fn or(self, other: &Self) -> Self {
        let values = match (self.values, &other.values) {
            (Some(values), Some(others)) if values == *others => Some(values),
            // Of very many nothing is remembered: that is less, and never wrong.
            (Some(values), Some(others)) if values.len().saturating_mul(others.len()) > VALUES_PAIRS_MAX => None,
            (Some(mut values), Some(others)) => {
                for other in others {
                    if !values.contains(other) {
                        values.push(other.clone());
                    }
                }
                Some(values)
            }
            _ => None,
        };
        Self {
            kinds: self.kinds | other.kinds,
            null: self.null | other.null,
            whole: (self.whole.0.min(other.whole.0), self.whole.1.max(other.whole.1)),
            float: (self.float.0.min(other.float.0), self.float.1.max(other.float.1)),
            length: (self.length.0.min(other.length.0), self.length.1.max(other.length.1)),
            values,
            multiples: self.multiples.into_iter().filter(|multiple| other.multiples.contains(multiple)).collect(),
            same: self.same.into_iter().filter(|same| other.same.contains(same)).collect(),
        }
    }

    /// Only these of them, when a contract asks for types.
    pub(crate) fn typed(&mut self, types: Types) {
        let allowed = [
            (types.null, NULL),
            (types.boolean, BOOLEAN),
            // Whether a float is an integer is seen when it comes.
            (types.integer || types.number, INTEGER | FLOAT),
            (types.string, STRING),
            (types.array, ARRAY),
            (types.object, OBJECT),
        ];
        self.kinds &= allowed.iter().filter(|(allowed, _)| *allowed).fold(0, |all, (_, kind)| all | kind);
    }

    /// Only those on one side of a limit.
    pub(crate) fn bounded(&mut self, bound: Bound) {
        self.within(bound.whole);
        let Some(limit) = bound.limit else { return };
        let strict = !bound.holds(limit, limit);
        if bound.holds(limit, f64::NEG_INFINITY) {
            self.within_floats((f64::MIN, if strict { limit.next_down() } else { limit }));
        } else {
            self.within_floats((if strict { limit.next_up() } else { limit }, f64::MAX));
        }
    }

    fn within(&mut self, whole: (i128, i128)) {
        self.whole = (self.whole.0.max(whole.0), self.whole.1.min(whole.1));
    }

    fn within_floats(&mut self, float: (f64, f64)) {
        self.float = (self.float.0.max(float.0), self.float.1.min(float.1));
    }

    /// Only texts of these lengths.
    pub(crate) fn long(&mut self, length: (u64, u64)) {
        self.length = (self.length.0.max(length.0), self.length.1.min(length.1));
    }

    /// Only multiples.
    pub(crate) fn divides(&mut self, divisor: u64) {
        if !self.multiples.contains(&divisor) {
            self.multiples.push(divisor);
        }
    }

    /// Only those for which a schema holds.
    pub(crate) fn is(&mut self, schema: (Draft, Value)) {
        if !self.same.contains(&schema) {
            self.same.push(schema);
        }
    }

    /// Only those that are one of these values.
    pub(crate) fn one_of(&mut self, values: &[Value]) {
        // 5 is 5.0: which of two ways to write a number is meant shows when it comes.
        let exact = |value: &Value| matches!(value, Value::Null | Value::Bool(_) | Value::String(_));
        let values: Vec<Value> = match &self.values {
            Some(known) => known.iter().filter(|value| !exact(value) || values.contains(value)).cloned().collect(),
            None => values.to_vec(),
        };
        self.kinds &= values.iter().map(kinds_of).fold(0, |all, kind| all | kind);
        let lengths = values.iter().filter_map(Value::as_str).map(|text| text.chars().count() as u64);
        if let Some((least, most)) = ends(lengths) {
            self.long((least, most));
        }
        let wholes = values.iter().filter(|value| value.is_number()).map(whole_of);
        if let Some(Some((least, most))) = wholes.collect::<Option<Vec<_>>>().map(|wholes| ends(wholes.into_iter())) {
            self.within((least, most));
        }
        let floats: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
        if let (Some(least), Some(most)) = (floats.iter().copied().reduce(f64::min), floats.iter().copied().reduce(f64::max)) {
            // What is no float exactly lies between its neighbours.
            self.within_floats((least.next_down(), most.next_up()));
        }
        self.values = Some(values);
    }

    /// Takes out the kinds of which no cell is left.
    pub(crate) fn settle(&mut self) {
        for multiple in &self.multiples {
            let (multiple, (least, most)) = (i128::from(*multiple), self.whole);
            if least <= most {
                self.whole = (least + (-least).rem_euclid(multiple), most - most.rem_euclid(multiple));
            }
        }
        if self.whole.0 > self.whole.1 {
            self.kinds &= !INTEGER;
        }
        if self.float.0 > self.float.1 {
            self.kinds &= !FLOAT;
        }
        if self.length.0 > self.length.1 {
            self.kinds &= !STRING;
        }
    }
}

/// How a cell that equals a value may be written.
pub(crate) fn kinds_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(_) => INTEGER | FLOAT,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// A number as it is written where it is written as an integer.
pub(crate) fn whole_of(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

fn ends<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<(T, T)> {
    values.fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((least, most)) => Some((value.min(least), value.max(most))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_one_or_the_other_says_each_value_once() {
        let of = |values: Value| Cells { values: values.as_array().cloned(), ..Cells::any() };
        let both = of(json!(["A", "N"])).or(&of(json!(["N", "U"])));
        assert_eq!(both.values, Some(vec![json!("A"), json!("N"), json!("U")]));
        // Else a contract with an "if" doubled them with each thought.
        assert_eq!(both.clone().or(&both).values, both.values);
        let numbers = |from: u64, to: u64| of((from..to).map(Value::from).collect());
        let many = numbers(0, 300);
        assert_eq!(many.clone().or(&numbers(1, 301)).values, None);
        assert_eq!(many.clone().or(&many).values, many.values);
    }
}
