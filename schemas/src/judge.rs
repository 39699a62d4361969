//! Follows a contract's plan over the columns of a batch: the verdict on every row at once. Whether a kernel serves a column's type is seen
//! here, when the column comes; one that it does not serve goes to the validator of the property's own subschema, cell by cell. Which
//! cells a contract sees, and why a row fails, is `check`'s.

use std::collections::{HashMap, HashSet};

use ::arrow::{
    array::{Array, ArrayAccessor, AsArray, PrimitiveArray},
    buffer::BooleanBuffer,
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Float16Type, Float32Type, Float64Type,
        Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use jsonschema::Validator;
use serde_json::Value;

use crate::{
    arrow::is_json_text,
    check::{Column, Rows},
    contract::Contract,
    json,
    kernel::{Bound, EXACT, Node, Types},
};

/// Texts whose verdict is remembered while a column is checked.
const KNOWN_MAX: usize = 4096;
/// The days, since 1970, of the years that RFC 3339 can write.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
/// The seconds of the same years.
const SECONDS: std::ops::RangeInclusive<i64> = -719_162 * 86_400..=2_932_897 * 86_400 - 1;

/// What a column's cells are as JSON, as far as a kernel has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Null,
    Boolean,
    Integer,
    Float64,
    /// A float that is shown by the shortest digits of its own width.
    Float,
    Decimal,
    Text,
    /// Text that is made from something else.
    Written,
    Array,
    Object,
    /// Not known before a cell is looked at.
    Open,
}

fn class(column: &Column<'_>) -> Class {
    use DataType::*;
    match column.array.data_type() {
        Null => Class::Null,
        Boolean => Class::Boolean,
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Class::Integer,
        Float64 => Class::Float64,
        Float16 | Float32 => Class::Float,
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => Class::Decimal,
        Utf8 | LargeUtf8 | Utf8View if is_json_text(column.field) || column.rule.json_text => Class::Open,
        Utf8 | LargeUtf8 | Utf8View => Class::Text,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_)
        | Interval(_) => Class::Written,
        List(_) | LargeList(_) | ListView(_) | LargeListView(_) | FixedSizeList(..) => Class::Array,
        Struct(_) | Map(..) => Class::Object,
        Dictionary(..) | RunEndEncoded(..) | Union(..) => Class::Open,
    }
}

/// True where kernels decide all of a plan for a column.
fn serves(node: &Node, column: &Column<'_>, class: Class) -> bool {
    let data_type = column.array.data_type();
    let whole = |value: &Value| value.is_i64() || value.is_u64();
    match node {
        _ if class == Class::Open => false,
        Node::Always(_) => true,
        Node::Rule(_, part) => serves(part, column, class),
        Node::All(parts) | Node::Any(parts) | Node::One(parts) => parts.iter().all(|part| serves(part, column, class)),
        Node::Not(part) => serves(part, column, class),
        Node::If(parts) => parts.iter().all(|part| serves(part, column, class)),
        Node::Types(types) => !matches!(class, Class::Float64 | Class::Float | Class::Decimal) || types.number || !types.integer,
        Node::Values(values) => match class {
            Class::Integer => values.iter().all(|value| !value.is_number() || whole(value)),
            Class::Null | Class::Boolean | Class::Text => true,
            _ => false,
        },
        Node::Bound(bound, _) => match class {
            Class::Float64 => bound.limit.is_some(),
            Class::Float => false,
            Class::Decimal => {
                let scaled = match data_type {
                    DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => Some(*scale),
                    _ => None,
                };
                bound.limit.is_some() && scaled.is_some_and(|scale| (0..=15).contains(&scale))
            }
            _ => true,
        },
        Node::Multiple(_) => !matches!(class, Class::Float64 | Class::Float | Class::Decimal),
        // A float that is no number is text.
        Node::Length(..) => !matches!(class, Class::Float64 | Class::Float | Class::Written),
        Node::Format(format, _) => match (class, data_type) {
            (Class::Written, DataType::Date32) => format == "date",
            (Class::Written, DataType::Timestamp(_, Some(_))) => format == "date-time",
            (Class::Text | Class::Written | Class::Float64 | Class::Float, _) => false,
            _ => true,
        },
        Node::Present(_) | Node::Depends(..) | Node::Property(..) | Node::Closed(_) | Node::Crate(_) => false,
    }
}

/// Judges every row of a batch.
pub(crate) fn judge(contract: &Contract, rows: &mut Rows<'_>, count: usize) -> BooleanBuffer {
    Judge { contract, count }.row(&contract.plan, rows)
}

struct Judge<'a> {
    contract: &'a Contract,
    count: usize,
}

impl Judge<'_> {
    fn all(&self, value: bool) -> BooleanBuffer {
        if value { BooleanBuffer::new_set(self.count) } else { BooleanBuffer::new_unset(self.count) }
    }

    fn validator(&self, pointer: &str) -> &Validator {
        match pointer {
            "" => &self.contract.validator,
            // The plan names none that is not there.
            pointer => self.contract.validators.get(&format!("#{pointer}")).unwrap_or(&self.contract.validator),
        }
    }

    /// What is the same for rows and cells.
    fn combine(&self, node: &Node, mut judge: impl FnMut(&Node) -> BooleanBuffer) -> BooleanBuffer {
        match node {
            Node::Always(value) => self.all(*value),
            Node::Rule(_, part) => judge(part),
            Node::All(parts) => parts.iter().fold(self.all(true), |all, part| &all & &judge(part)),
            Node::Any(parts) => parts.iter().fold(self.all(false), |any, part| &any | &judge(part)),
            Node::One(parts) => {
                let (mut one, mut more) = (self.all(false), self.all(false));
                for part in parts {
                    let part = judge(part);
                    more = &more | &(&one & &part);
                    one = &one | &part;
                }
                &one & &!&more
            }
            Node::Not(part) => !&judge(part),
            Node::If(parts) => {
                let [when, then, other] = &**parts;
                let (when, then, other) = (judge(when), judge(then), judge(other));
                &(&when & &then) | &(&!&when & &other)
            }
            other => unreachable!("{other:?} is judged by row or by cell"),
        }
    }

    fn row(&self, node: &Node, rows: &mut Rows<'_>) -> BooleanBuffer {
        match node {
            Node::Present(name) => self.present(rows.column(name)),
            Node::Depends(name, others) => {
                let all = others.iter().fold(self.all(true), |all, other| &all & &self.present(rows.column(other)));
                &all | &!&self.present(rows.column(name))
            }
            Node::Property(name, pointer, node) => match rows.column(name) {
                None => self.all(true),
                Some(column) => {
                    let class = class(column);
                    let judged = match serves(node, column, class) {
                        true => self.cell(node, column, class),
                        false => self.by_crate(column, pointer, |_| None),
                    };
                    match &column.absent {
                        None => judged,
                        Some(nulls) => &judged | &!nulls.inner(),
                    }
                }
            },
            Node::Closed(names) => {
                let others = rows.columns().iter().filter(|column| !names.contains(column.field.name()));
                others.fold(self.all(true), |none, column| &none & &!&self.present(Some(column)))
            }
            Node::Crate(pointer) => {
                let validator = self.validator(pointer);
                BooleanBuffer::collect_bool(self.count, |row| validator.is_valid(rows.at(row)))
            }
            node => self.combine(node, |part| self.row(part, rows)),
        }
    }

    /// Where a property is present.
    fn present(&self, column: Option<&Column<'_>>) -> BooleanBuffer {
        match column {
            None => self.all(false),
            Some(column) => column.absent.as_ref().map_or_else(|| self.all(true), |nulls| nulls.inner().clone()),
        }
    }

    /// Asks the crate about the cells that are not decided.
    fn by_crate(&self, column: &Column<'_>, pointer: &str, decided: impl Fn(usize) -> Option<bool>) -> BooleanBuffer {
        let validator = self.validator(pointer);
        let mut slot = Value::Null;
        let mut known: HashMap<String, bool> = HashMap::new();
        let remembers = class(column) == Class::Text;
        BooleanBuffer::collect_bool(self.count, |row| {
            if column.absent.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                return true;
            }
            if let Some(decided) = decided(row) {
                return decided;
            }
            json::fill(column.field, column.array, row, Some(column.rule), &mut slot);
            let Value::String(text) = &slot else { return validator.is_valid(&slot) };
            if !remembers {
                return validator.is_valid(&slot);
            }
            if let Some(known) = known.get(text) {
                return *known;
            }
            let valid = validator.is_valid(&slot);
            if known.len() < KNOWN_MAX {
                known.insert(text.clone(), valid);
            }
            valid
        })
    }

    fn cell(&self, node: &Node, column: &Column<'_>, class: Class) -> BooleanBuffer {
        let array = column.array;
        let (judged, null) = match node {
            Node::Types(types) => (self.types(*types, array, class), types.null),
            Node::Values(values) => (self.values(values, array, class), values.iter().any(Value::is_null)),
            Node::Bound(bound, pointer) => (self.bound(*bound, pointer, column, class), true),
            Node::Multiple(divisor) => match class {
                Class::Integer => (self.whole(array, |value| value % i128::from(*divisor) == 0), true),
                _ => return self.all(true),
            },
            Node::Length(least, most) => match class {
                Class::Text => (self.text(array, |text| length_within(text, *least, *most)), true),
                _ => return self.all(true),
            },
            Node::Format(_, pointer) => match class {
                Class::Written => (self.by_crate(column, pointer, |row| writable(array, row).then_some(true)), true),
                _ => return self.all(true),
            },
            node => return self.combine(node, |part| self.cell(part, column, class)),
        };
        // Under a null stands any value.
        match (array.logical_nulls().filter(|nulls| nulls.null_count() > 0), null) {
            (None, _) => judged,
            (Some(nulls), true) => &judged | &!nulls.inner(),
            (Some(nulls), false) => &judged & nulls.inner(),
        }
    }

    fn types(&self, types: Types, array: &dyn Array, class: Class) -> BooleanBuffer {
        let finite =
            |is: &dyn Fn(usize) -> bool| BooleanBuffer::collect_bool(self.count, |row| if is(row) { types.number } else { types.string });
        match class {
            Class::Null => self.all(types.null),
            Class::Boolean => self.all(types.boolean),
            Class::Integer => self.all(types.integer || types.number),
            Class::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                finite(&|row| values[row].is_finite())
            }
            Class::Float if array.data_type() == &DataType::Float16 => {
                let values = array.as_primitive::<Float16Type>().values();
                finite(&|row| values[row].is_finite())
            }
            Class::Float => {
                let values = array.as_primitive::<Float32Type>().values();
                finite(&|row| values[row].is_finite())
            }
            Class::Decimal => self.all(types.number),
            Class::Text | Class::Written => self.all(types.string),
            Class::Array => self.all(types.array),
            Class::Object => self.all(types.object),
            Class::Open => unreachable!("no kernel serves it"),
        }
    }

    fn values(&self, values: &[Value], array: &dyn Array, class: Class) -> BooleanBuffer {
        match class {
            Class::Boolean => {
                let (yes, no) = (values.contains(&Value::Bool(true)), values.contains(&Value::Bool(false)));
                let array = array.as_boolean();
                BooleanBuffer::collect_bool(self.count, |row| if array.value(row) { yes } else { no })
            }
            Class::Integer => {
                let whole = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                let values: HashSet<i128> = values.iter().filter_map(whole).collect();
                self.whole(array, |value| values.contains(&value))
            }
            Class::Text => {
                let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                match texts.len() {
                    0..=8 => self.text(array, |text| texts.contains(&text)),
                    _ => {
                        let texts: HashSet<&str> = texts.into_iter().collect();
                        self.text(array, |text| texts.contains(text))
                    }
                }
            }
            // All of them null.
            _ => self.all(false),
        }
    }

    fn bound(&self, bound: Bound, pointer: &str, column: &Column<'_>, class: Class) -> BooleanBuffer {
        let (array, limit) = (column.array, bound.limit.unwrap_or_default());
        match class {
            Class::Integer => self.whole(array, |value| (bound.whole.0..=bound.whole.1).contains(&value)),
            Class::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                BooleanBuffer::collect_bool(self.count, |row| !values[row].is_finite() || bound.holds(limit, values[row]))
            }
            Class::Decimal => {
                let decided = |digits: i128, scale: i8| {
                    // Both are floats exactly, so that their quotient is the float nearest to the decimal, as the crate is shown it.
                    #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
                    (digits.abs() < EXACT).then(|| bound.holds(limit, digits as f64 / 10_f64.powi(scale.into())))
                };
                match *array.data_type() {
                    DataType::Decimal32(_, scale) => {
                        let values = array.as_primitive::<Decimal32Type>().values();
                        self.by_crate(column, pointer, |row| decided(values[row].into(), scale))
                    }
                    DataType::Decimal64(_, scale) => {
                        let values = array.as_primitive::<Decimal64Type>().values();
                        self.by_crate(column, pointer, |row| decided(values[row].into(), scale))
                    }
                    DataType::Decimal128(_, scale) => {
                        let values = array.as_primitive::<Decimal128Type>().values();
                        self.by_crate(column, pointer, |row| decided(values[row], scale))
                    }
                    _ => unreachable!("no kernel serves it"),
                }
            }
            _ => self.all(true),
        }
    }

    /// Asks something of every integer.
    fn whole(&self, array: &dyn Array, ask: impl Fn(i128) -> bool) -> BooleanBuffer {
        fn each<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &PrimitiveArray<T>, ask: impl Fn(i128) -> bool) -> BooleanBuffer {
            let values = array.values();
            BooleanBuffer::collect_bool(values.len(), |row| ask(values[row].into()))
        }
        match array.data_type() {
            DataType::Int8 => each::<Int8Type>(array.as_primitive(), ask),
            DataType::Int16 => each::<Int16Type>(array.as_primitive(), ask),
            DataType::Int32 => each::<Int32Type>(array.as_primitive(), ask),
            DataType::Int64 => each::<Int64Type>(array.as_primitive(), ask),
            DataType::UInt8 => each::<UInt8Type>(array.as_primitive(), ask),
            DataType::UInt16 => each::<UInt16Type>(array.as_primitive(), ask),
            DataType::UInt32 => each::<UInt32Type>(array.as_primitive(), ask),
            _ => each::<UInt64Type>(array.as_primitive(), ask),
        }
    }

    /// Asks something of every text.
    fn text(&self, array: &dyn Array, ask: impl Fn(&str) -> bool) -> BooleanBuffer {
        fn each<'a>(array: impl ArrayAccessor<Item = &'a str>, ask: impl Fn(&str) -> bool) -> BooleanBuffer {
            BooleanBuffer::collect_bool(array.len(), |row| ask(array.value(row)))
        }
        match array.data_type() {
            DataType::Utf8 => each(array.as_string::<i32>(), ask),
            DataType::LargeUtf8 => each(array.as_string::<i64>(), ask),
            _ => each(array.as_string_view(), ask),
        }
    }
}

/// True of a text of from `least` to `most` code points.
fn length_within(text: &str, least: u64, most: u64) -> bool {
    let bytes = text.len() as u64;
    // A code point has from one to four bytes.
    if bytes < least || bytes.div_ceil(4) > most {
        return false;
    }
    if bytes <= most && bytes.div_ceil(4) >= least {
        return true;
    }
    (least..=most).contains(&(text.chars().count() as u64))
}

/// True of a date or an instant of a year that RFC 3339 can write.
fn writable(array: &dyn Array, row: usize) -> bool {
    let within = |value: i64, per_second: i64| SECONDS.contains(&value.div_euclid(per_second));
    match array.data_type() {
        DataType::Date32 => DAYS.contains(&array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Second, _) => within(array.as_primitive::<TimestampSecondType>().value(row), 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => within(array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => within(array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => within(array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000),
        _ => false,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(crate) mod tests;
