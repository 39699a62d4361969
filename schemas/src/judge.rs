//! Follows a contract's plan over the columns of a batch: the verdict on every row at once. Where no kernel
//! serves a column, the cells go to the validator of the schema that says so, one by one. The fields of structs and
//! the items of lists are columns too. Which cells a contract sees, and why a row fails, is `check`'s.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use ::arrow::{
    array::{Array, AsArray, NullArray},
    buffer::{BooleanBuffer, NullBuffer},
    datatypes::{
        DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Time32MillisecondType,
        Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampSecondType,
    },
};
use jsonschema::Validator;
use serde_json::Value;

use crate::{
    check::{Column, Rows},
    contract::Contract,
    json,
    kernel::{Asked, Bound, Choices, EXACT, Node, Types},
    lists::{self, Lists},
    scan,
    serving::{Class, Values, by_kernels, class, scale},
    texts::{self, Memory},
};

/// Texts whose verdict is remembered while a column is checked.
const KNOWN_MAX: usize = 4096;
/// Decimals of more digits than 15 may have another decimal nearer to their float.
const DIGITS: i128 = 1_000_000_000_000_000;
/// The days, since 1970, of the years that RFC 3339 can write.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
/// The seconds of the same years.
const SECONDS: std::ops::RangeInclusive<i64> = -719_162 * 86_400..=2_932_897 * 86_400 - 1;

/// Judges every row of a batch.
pub(crate) fn judge(contract: &Contract, rows: &mut Rows<'_>, count: usize) -> BooleanBuffer {
    let members = rows.columns().to_vec();
    let values = Values { count, class: Class::Object, column: None, members: Some(members) };
    let judge = Judge { contract, rows: RefCell::new(rows), doubt: Cell::new(false) };
    let judged = judge.node(&contract.plan, &values);
    match judge.doubt.get() {
        false => judged,
        // The crate judges a row for every way in which a match that its engine gave up on may have ended; parts of a row do not add up to that.
        true => judge.rows_by_crate(&contract.validator, count),
    }
}

struct Judge<'j, 'a> {
    contract: &'j Contract,
    rows: RefCell<&'j mut Rows<'a>>,
    /// A match was not finished.
    doubt: Cell<bool>,
}

fn all(count: usize, value: bool) -> BooleanBuffer {
    if value { BooleanBuffer::new_set(count) } else { BooleanBuffer::new_unset(count) }
}

/// Where a property is present.
fn present(column: Option<&Column<'_>>, count: usize) -> BooleanBuffer {
    match column {
        None => all(count, false),
        Some(column) => column.absent.as_ref().map_or_else(|| all(count, true), |nulls| nulls.inner().clone()),
    }
}

impl Judge<'_, '_> {
    fn validator(&self, pointer: &str) -> &Validator {
        match pointer {
            "" => &self.contract.validator,
            // The plan names none that is not there.
            pointer => self.contract.validators.get(&format!("#{pointer}")).unwrap_or(&self.contract.validator),
        }
    }

    fn node(&self, node: &Node, values: &Values<'_>) -> BooleanBuffer {
        match node {
            Node::Schema(pointer, parts) if !by_kernels(parts, values) => self.by_crate(values, pointer, |_| None),
            Node::Schema(pointer, parts) => {
                parts.iter().fold(all(values.count, true), |all, part| &all & &self.part(part, values, pointer))
            }
            Node::Crate(pointer) => self.by_crate(values, pointer, |_| None),
            node => self.part(node, values, ""),
        }
    }

    /// One keyword of the schema under a pointer.
    fn part(&self, node: &Node, values: &Values<'_>, pointer: &str) -> BooleanBuffer {
        let count = values.count;
        match node {
            Node::Always(value) => all(count, *value),
            Node::Rule(_, part) => self.part(part, values, pointer),
            Node::Schema(..) | Node::Crate(_) => self.node(node, values),
            Node::All(parts) => parts.iter().fold(all(count, true), |all, part| &all & &self.part(part, values, pointer)),
            Node::Any(parts) => parts.iter().fold(all(count, false), |any, part| &any | &self.node(part, values)),
            Node::One(parts) => {
                let (mut one, mut more) = (all(count, false), all(count, false));
                for part in parts {
                    let part = self.node(part, values);
                    more = &more | &(&one & &part);
                    one = &one | &part;
                }
                &one & &!&more
            }
            Node::Not(part) => !&self.node(part, values),
            Node::If(parts) => {
                let [when, then, other] = &**parts;
                let (when, then, other) = (self.node(when, values), self.node(then, values), self.node(other, values));
                &(&when & &then) | &(&!&when & &other)
            }
            // An object that is null is judged by its type and its values alone.
            Node::When(name, part) => {
                let absent = !&self.of_objects(&Node::Present(name.clone()), values, false);
                &absent | &self.node(part, values)
            }
            Node::Present(_)
            | Node::Depends(..)
            | Node::Property(..)
            | Node::Matching(..)
            | Node::Closed(_)
            | Node::Others(..)
            | Node::Names(_)
            | Node::Size(..) => self.of_objects(node, values, true),
            Node::Items(..) | Node::Prefix(_) | Node::Contains(..) | Node::Count(..) | Node::Unique => self.of_lists(node, values),
            node => match values.column {
                Some(column) => self.cell(node, column, values.class, pointer),
                None => all(count, if let Node::Types(types) = node { types.object } else { true }),
            },
        }
    }

    /// What is asked of objects; `other` is the answer about values that are none.
    fn of_objects(&self, node: &Node, values: &Values<'_>, other: bool) -> BooleanBuffer {
        let count = values.count;
        let (Class::Object, Some(members)) = (values.class, &values.members) else { return all(count, other) };
        let each = |node: &Node, of: &dyn Fn(&str) -> bool| {
            let some = members.iter().filter(|column| of(column.field.name()));
            some.fold(all(count, true), |all, column| &all & &self.property(node, column))
        };
        let without = |of: &dyn Fn(&str) -> bool| {
            let some = members.iter().filter(|column| of(column.field.name()));
            some.fold(all(count, true), |none, column| &none & &!&present(Some(column), count))
        };
        let judged = match node {
            Node::Present(name) => present(values.member(name), count),
            Node::Depends(name, others) => {
                let others = others.iter().fold(all(count, true), |all, other| &all & &present(values.member(other), count));
                &others | &!&present(values.member(name), count)
            }
            Node::Property(name, node) => values.member(name).map_or_else(|| all(count, true), |column| self.property(node, column)),
            Node::Matching(pattern, node) => each(node, &|name| self.matches(pattern, name)),
            Node::Closed(names) => without(&|name| !names.contains(name)),
            Node::Others(names, patterns, node) => {
                each(node, &|name| !names.contains(name) && !patterns.iter().any(|pattern| self.matches(pattern, name)))
            }
            Node::Names(pointer) => {
                self.doubt.set(self.doubt.get() | self.contract.backtracks);
                let validator = self.validator(pointer);
                without(&|name| !validator.is_valid(&Value::from(name)))
            }
            Node::Size(least, most) => {
                let absent: Vec<_> = members.iter().filter_map(|column| column.absent.as_ref()).collect();
                let always = members.len() - absent.len();
                BooleanBuffer::collect_bool(count, |row| {
                    let size = always + absent.iter().filter(|nulls| nulls.is_valid(row)).count();
                    (*least..=*most).contains(&(size as u64))
                })
            }
            other => unreachable!("{other:?} is not about objects"),
        };
        match nulls(values) {
            None => judged,
            Some(nulls) if other => &judged | &!nulls.inner(),
            Some(nulls) => &judged & nulls.inner(),
        }
    }

    fn matches(&self, pattern: &Asked, name: &str) -> bool {
        pattern.holds(&Value::from(name)).unwrap_or_else(|| {
            self.doubt.set(true);
            false
        })
    }

    /// A property's cells, and nothing where it is absent.
    fn property(&self, node: &Node, column: &Column<'_>) -> BooleanBuffer {
        let judged = self.column(node, column);
        match &column.absent {
            None => judged,
            Some(nulls) => &judged | &!nulls.inner(),
        }
    }

    fn column(&self, node: &Node, column: &Column<'_>) -> BooleanBuffer {
        if let Some(dictionary) = column.array.as_any_dictionary_opt().filter(|dictionary| dictionary.values().len() <= dictionary.len()) {
            // Each of its values once.
            let values = dictionary.values();
            let judged = self.column(node, &Column { array: values, absent: None, ..*column });
            let null = self.column(node, &Column { array: &NullArray::new(1), absent: None, ..*column }).value(0);
            if values.is_empty() {
                return all(column.array.len(), null);
            }
            let (keys, nulls) = (dictionary.normalized_keys(), dictionary.nulls());
            return BooleanBuffer::collect_bool(keys.len(), |row| {
                if nulls.is_some_and(|nulls| nulls.is_null(row)) { null } else { judged.value(keys[row]) }
            });
        }
        self.node(node, &Values::of_column(column))
    }

    fn of_lists(&self, node: &Node, values: &Values<'_>) -> BooleanBuffer {
        let (Class::Array, Some(column)) = (values.class, values.column) else { return all(values.count, true) };
        let Some(lists) = Lists::of(column.array) else { unreachable!("no kernel serves it") };
        let (field, rule) = (lists.field, column.rule.item());
        let judged = |node: &Node, items: &dyn Array| self.column(node, &Column { field, array: items, rule, absent: None });
        let judged = match node {
            Node::Items(from, node) => lists.all(&judged(node, &lists.items), *from),
            Node::Prefix(nodes) => nodes.iter().enumerate().fold(all(values.count, true), |all, (place, node)| {
                let Some(items) = lists.at(place) else { unreachable!("items are taken from where they are") };
                &all & &lists.placed(&judged(node, &items), place)
            }),
            Node::Contains(least, most, node) => lists.some(&judged(node, &lists.items), *least, *most),
            Node::Count(least, most) => lists.counted(*least, *most),
            _ => lists.unique().unwrap_or_else(|| unreachable!("no kernel serves it")),
        };
        match nulls(values) {
            None => judged,
            Some(nulls) => &judged | &!nulls.inner(),
        }
    }

    fn rows_by_crate(&self, validator: &Validator, count: usize) -> BooleanBuffer {
        let mut rows = self.rows.borrow_mut();
        BooleanBuffer::collect_bool(count, |row| validator.is_valid(rows.at(row)))
    }

    /// Asks the crate about the values that are not decided.
    fn by_crate(&self, values: &Values<'_>, pointer: &str, decided: impl Fn(usize) -> Option<bool>) -> BooleanBuffer {
        if self.contract.backtracks {
            // What it says may rest on a match that was not finished.
            self.doubt.set(true);
            return all(values.count, false);
        }
        let validator = self.validator(pointer);
        match values.column {
            None => self.rows_by_crate(validator, values.count),
            Some(column) => cells_by_crate(column, &|value| validator.is_valid(value), decided),
        }
    }

    fn cell(&self, node: &Node, column: &Column<'_>, class: Class, pointer: &str) -> BooleanBuffer {
        let (array, count) = (column.array, column.array.len());
        let numbers = |decided: &dyn Fn(usize) -> Option<bool>| {
            self.by_crate(&Values { count, class, column: Some(column), members: None }, pointer, decided)
        };
        let (judged, null) = match node {
            Node::Types(types) => (self.types(*types, array, class), types.null),
            Node::Values(values) => (self.values(values, array, class, &numbers), values.iter().any(Value::is_null)),
            Node::Bound(bound) => (self.bound(*bound, array, class, &numbers), true),
            Node::Multiple(divisor) => {
                match class {
                    Class::Integer => (scan::divided(array, *divisor), true),
                    Class::Float64 => {
                        let values = array.as_primitive::<Float64Type>().values();
                        #[expect(clippy::cast_precision_loss, reason = "no kernel serves larger ones")]
                        let by = *divisor as f64;
                        let decided = |value: f64| {
                            // What is no number is text.
                            (!value.is_finite())
                                .then_some(true)
                                .or_else(|| (value.abs() < 9e15).then(|| value.fract() == 0.0 && value % by == 0.0))
                        };
                        (numbers(&|row| decided(values[row])), true)
                    }
                    Class::Decimal => (
                        numbers(&decimals(array, |digits, scale| {
                            let unit = i128::from(*divisor).checked_mul(10_i128.pow(scale))?;
                            Some(digits % unit == 0)
                        })),
                        true,
                    ),
                    _ => return all(count, true),
                }
            }
            Node::Fraction(fraction) => match class {
                Class::Integer => {
                    let wholes = lists::wholes(array);
                    (numbers(&|row| if wholes[row].abs() < EXACT { fraction.divides(wholes[row], 0) } else { None }), true)
                }
                Class::Decimal => (numbers(&decimals(array, |digits, scale| fraction.divides(digits, scale))), true),
                _ => return all(count, true),
            },
            Node::Length(least, most) => match class {
                Class::Text => (texts::lengths(array, *least, *most), true),
                _ => return all(count, true),
            },
            Node::Pattern(asked) => match class {
                Class::Text => (self.asked(asked, column), true),
                _ => return all(count, true),
            },
            Node::Format(_, asked) => match class {
                Class::Text => (self.asked(asked, column), true),
                Class::Written => {
                    let writable = writable(array);
                    match writable.count_set_bits() == count {
                        true => (writable, true),
                        false => (numbers(&|row| writable.value(row).then_some(true)), true),
                    }
                }
                _ => return all(count, true),
            },
            other => unreachable!("{other:?} is not about cells"),
        };
        // Under a null stands any value.
        match (array.logical_nulls().filter(|nulls| nulls.null_count() > 0), null) {
            (None, _) => judged,
            (Some(nulls), true) => &judged | &!nulls.inner(),
            (Some(nulls), false) => &judged & nulls.inner(),
        }
    }

    /// Asks the crate about each text.
    fn asked(&self, asked: &Asked, column: &Column<'_>) -> BooleanBuffer {
        let holds = |value: &Value| {
            // Under a null stands what nobody sees.
            value.is_null()
                || asked.holds(value).unwrap_or_else(|| {
                    self.doubt.set(true);
                    false
                })
        };
        if class(column) != Class::Text {
            return cells_by_crate(column, &holds, |_| None);
        }
        let mut slot = Value::Null;
        asked.memories.lend(|memory| {
            let doubted = self.doubt.replace(false);
            let judged = memory.asked(column.array, |text| {
                json::reuse(&mut slot).push_str(text);
                holds(&slot)
            });
            // An answer that was given up on is none to remember.
            let sure = !self.doubt.get();
            self.doubt.set(doubted | !sure);
            (judged, sure)
        })
    }

    fn types(&self, types: Types, array: &dyn Array, class: Class) -> BooleanBuffer {
        let finite =
            |is: &dyn Fn(usize) -> bool| BooleanBuffer::collect_bool(array.len(), |row| if is(row) { types.number } else { types.string });
        match class {
            Class::Null => all(array.len(), types.null),
            Class::Boolean => all(array.len(), types.boolean),
            Class::Integer => all(array.len(), types.integer || types.number),
            Class::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                match (types.number, types.string) {
                    (true, false) => scan::every(values, f64::is_finite),
                    _ => finite(&|row| values[row].is_finite()),
                }
            }
            Class::Float if array.data_type() == &DataType::Float16 => {
                let values = array.as_primitive::<Float16Type>().values();
                finite(&|row| values[row].is_finite())
            }
            Class::Float => {
                let values = array.as_primitive::<Float32Type>().values();
                finite(&|row| values[row].is_finite())
            }
            Class::Decimal => all(array.len(), types.number),
            Class::Text | Class::Written => all(array.len(), types.string),
            Class::Array => all(array.len(), types.array),
            Class::Object => all(array.len(), types.object),
            Class::Open => unreachable!("no kernel serves it"),
        }
    }

    fn values(&self, values: &Choices, array: &dyn Array, class: Class, numbers: Numbers<'_>) -> BooleanBuffer {
        let floats = values.floats.as_deref().unwrap_or_default();
        match class {
            Class::Boolean => {
                let (yes, no) = (values.contains(&Value::Bool(true)), values.contains(&Value::Bool(false)));
                let array = array.as_boolean();
                BooleanBuffer::collect_bool(array.len(), |row| if array.value(row) { yes } else { no })
            }
            Class::Integer => scan::whole(array, &values.whole),
            Class::Float64 => {
                let text = |value: f64| match value {
                    value if value.is_nan() => "NaN",
                    value if value > 0.0 => "Infinity",
                    _ => "-Infinity",
                };
                let numbers = array.as_primitive::<Float64Type>().values();
                BooleanBuffer::collect_bool(array.len(), |row| match numbers[row] {
                    number if number.is_finite() => floats.contains(&number),
                    other => values.iter().any(|value| value.as_str() == Some(text(other))),
                })
            }
            Class::Decimal => numbers(&decimals(array, |digits, scale| float(digits, scale).map(|value| floats.contains(&value)))),
            Class::Text => texts::among(array, &values.texts, &values.memories),
            // All of them null.
            _ => all(array.len(), false),
        }
    }

    fn bound(&self, bound: Bound, array: &dyn Array, class: Class, numbers: Numbers<'_>) -> BooleanBuffer {
        let limit = bound.limit.unwrap_or_default();
        match class {
            Class::Integer => scan::within(array, bound.whole),
            Class::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                scan::every(values, |value| !value.is_finite() | bound.holds(limit, value))
            }
            Class::Decimal => numbers(&decimals(array, |digits, scale| float(digits, scale).map(|value| bound.holds(limit, value)))),
            _ => all(array.len(), true),
        }
    }
}

/// Asks the crate about the numbers for which the function has no answer.
type Numbers<'a> = &'a dyn Fn(&dyn Fn(usize) -> Option<bool>) -> BooleanBuffer;

/// Asks something of the cells that are not decided, each as JSON.
fn cells_by_crate(column: &Column<'_>, holds: &dyn Fn(&Value) -> bool, decided: impl Fn(usize) -> Option<bool>) -> BooleanBuffer {
    let mut slot = Value::Null;
    if class(column) == Class::Text {
        let judged = Memory::new(10).asked(column.array, |text| {
            json::reuse(&mut slot).push_str(text);
            holds(&slot)
        });
        return match column.array.nulls() {
            None => judged,
            // What is absent breaks nothing.
            Some(nulls) if column.absent.is_some() || holds(&Value::Null) => &judged | &!nulls.inner(),
            Some(nulls) => &judged & nulls.inner(),
        };
    }
    let mut known: HashMap<String, bool> = HashMap::new();
    let remembers = class(column) == Class::Written;
    BooleanBuffer::collect_bool(column.array.len(), |row| {
        if column.absent.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return true;
        }
        if let Some(decided) = decided(row) {
            return decided;
        }
        json::fill(column.field, column.array, row, Some(column.rule), &mut slot);
        let Value::String(text) = &slot else { return holds(&slot) };
        if !remembers {
            return holds(&slot);
        }
        if let Some(known) = known.get(text) {
            return *known;
        }
        let valid = holds(&slot);
        if known.len() < KNOWN_MAX {
            known.insert(text.clone(), valid);
        }
        valid
    })
}

/// Where a value that is an object or a list is null.
fn nulls(values: &Values<'_>) -> Option<NullBuffer> {
    values.column.and_then(|column| column.array.logical_nulls()).filter(|nulls| nulls.null_count() > 0)
}

/// Asks something of every decimal: of its digits, and how many of them are behind the point. Only of those whose digits are a float exactly: the crate
/// is shown the nearest float, which of these is the decimal itself as it would be written.
fn decimals<'a>(array: &'a dyn Array, ask: impl Fn(i128, u32) -> Option<bool> + 'a) -> Box<dyn Fn(usize) -> Option<bool> + 'a> {
    let scale = scale(array.data_type()).unwrap_or_default();
    let ask = move |digits: i128| if digits.abs() < DIGITS { ask(digits, scale) } else { None };
    match array.data_type() {
        DataType::Decimal32(..) => {
            let values = array.as_primitive::<Decimal32Type>().values();
            Box::new(move |row| ask(values[row].into()))
        }
        DataType::Decimal64(..) => {
            let values = array.as_primitive::<Decimal64Type>().values();
            Box::new(move |row| ask(values[row].into()))
        }
        DataType::Decimal128(..) => {
            let values = array.as_primitive::<Decimal128Type>().values();
            Box::new(move |row| ask(values[row]))
        }
        other => unreachable!("no kernel serves {other}"),
    }
}

/// The float nearest to a decimal of at most 15 digits: both are floats exactly, so that their quotient is.
fn float(digits: i128, scale: u32) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
    Some(digits as f64 / 10_f64.powi(i32::try_from(scale).ok()?))
}

/// Where a time is one of a day, and a date or an instant of a year that RFC 3339 can write.
fn writable(array: &dyn Array) -> BooleanBuffer {
    let within = |range: std::ops::RangeInclusive<i64>| move |value: i64| (value >= *range.start()) & (value <= *range.end());
    let seconds =
        |per_second: i64| within(SECONDS.start() * per_second..=SECONDS.end().saturating_mul(per_second).saturating_add(per_second - 1));
    match array.data_type() {
        DataType::Date32 => scan::every(array.as_primitive::<Date32Type>().values(), |day| (day >= *DAYS.start()) & (day <= *DAYS.end())),
        DataType::Time32(TimeUnit::Second) => {
            scan::every(array.as_primitive::<Time32SecondType>().values(), |time| (0..86_400).contains(&time))
        }
        DataType::Time32(_) => scan::every(array.as_primitive::<Time32MillisecondType>().values(), |time| (0..86_400_000).contains(&time)),
        DataType::Time64(TimeUnit::Microsecond) => {
            scan::every(array.as_primitive::<Time64MicrosecondType>().values(), within(0..=86_399_999_999))
        }
        DataType::Time64(_) => scan::every(array.as_primitive::<Time64NanosecondType>().values(), within(0..=86_399_999_999_999)),
        DataType::Timestamp(TimeUnit::Second, _) => scan::every(array.as_primitive::<TimestampSecondType>().values(), seconds(1)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            scan::every(array.as_primitive::<TimestampMillisecondType>().values(), seconds(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            scan::every(array.as_primitive::<TimestampMicrosecondType>().values(), seconds(1_000_000))
        }
        // All that fit in 64 bits lie within.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => BooleanBuffer::new_set(array.len()),
        _ => BooleanBuffer::new_unset(array.len()),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(crate) mod tests;
