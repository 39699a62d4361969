//! Which types hold every value of an NDJSON file: int64, float64, boolean, text, arrays and objects of these, to any depth, over all records.
//! Values of unlike kinds in one place (an object and a number) make it a text column that keeps JSON text. Strings stay text.

use arrow::datatypes::{DataType, Field};
use indexmap::IndexMap;

use super::{
    is_blank, node,
    scan::{Scan, Torn},
};
use crate::file::block::Inference;

/// What has been seen in one place.
#[derive(Debug, Default, Clone, PartialEq)]
enum Shape {
    #[default]
    Null,
    Boolean,
    Integer,
    Float,
    Text,
    List(Box<Shape>),
    Object(IndexMap<String, Shape>),
    /// Unlike kinds.
    Json,
}

impl Shape {
    fn read(&mut self, scan: &mut Scan<'_>, depth: u32) -> Result<(), Torn> {
        if depth > 64 {
            // Deeper than columns should nest.
            *self = Self::Json;
        }
        let next = scan.peek().ok_or("it ends where a value should stand")?;
        match (&mut *self, next) {
            (_, b'n') => scan.word(b"null"),
            (Self::Json, _) => scan.skip_at(depth),
            (Self::List(item), b'[') => {
                scan.at += 1;
                scan.members(b']', |scan| item.read(scan, depth + 1))
            }
            (Self::Object(members), b'{') => {
                scan.at += 1;
                // As a rule records have their keys in one order.
                let mut place = 0;
                scan.members(b'}', |scan| {
                    let key = scan.key()?;
                    if members.get_index(place).is_none_or(|(known, _)| known.as_bytes() != &*key) {
                        let name = std::str::from_utf8(&key).map_err(|_| "it is not UTF-8")?;
                        place = match members.get_index_of(name) {
                            Some(place) => place,
                            None => members.insert_full(name.to_owned(), Self::Null).0,
                        };
                    }
                    place += 1;
                    members[place - 1].read(scan, depth + 1)
                })
            }
            (Self::Null, b'[' | b'{') => {
                *self = if next == b'[' { Self::List(Box::default()) } else { Self::Object(IndexMap::new()) };
                self.read(scan, depth)
            }
            (_, b'[' | b'{') => {
                *self = Self::Json;
                scan.skip_at(depth)
            }
            (shape, _) => {
                let start = scan.at;
                scan.skip()?;
                let this = match next {
                    b'"' => Self::Text,
                    b't' | b'f' => Self::Boolean,
                    _ => number(&scan.text[start..scan.at]),
                };
                *shape = std::mem::take(shape).merge(this);
                Ok(())
            }
        }
    }

    /// What holds the values of both.
    fn merge(self, later: Self) -> Self {
        match (self, later) {
            (Self::Null, shape) | (shape, Self::Null) => shape,
            (Self::List(item), Self::List(later)) => Self::List(Box::new(item.merge(*later))),
            (Self::Object(mut members), Self::Object(later)) => {
                for (name, shape) in later {
                    let known = members.entry(name).or_default();
                    *known = std::mem::take(known).merge(shape);
                }
                Self::Object(members)
            }
            (shape, later) if shape == later => shape,
            (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
            _ => Self::Json,
        }
    }

    /// The shape that an earlier inference left.
    fn of(field: &Field) -> Self {
        if field.metadata().contains_key(super::JSON_TEXT) {
            return Self::Json;
        }
        match field.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean,
            DataType::Int64 => Self::Integer,
            DataType::Float64 => Self::Float,
            DataType::List(item) => Self::List(Box::new(Self::of(item))),
            DataType::Struct(fields) => Self::Object(fields.iter().map(|field| (field.name().clone(), Self::of(field))).collect()),
            _ => Self::Text,
        }
    }

    fn field(self, name: &str) -> Field {
        let data_type = match self {
            Self::Null => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::List(item) => DataType::List(item.field("item").into()),
            Self::Object(members) => DataType::Struct(members.into_iter().map(|(name, shape)| shape.field(&name)).collect()),
            Self::Json => return node::json_text(name),
        };
        Field::new(name, data_type, true)
    }
}

/// A number that is no `i64` and has no fraction keeps all its digits only as text.
fn number(text: &[u8]) -> Shape {
    if text.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        // So few digits without an exponent are finite.
        let small = text.len() <= 64 && !text.iter().any(|b| matches!(b, b'e' | b'E'));
        return if small || fast_float2::parse::<f64, _>(text).is_ok_and(f64::is_finite) { Shape::Float } else { Shape::Json };
    }
    let fits = text.len() <= 18 || std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok());
    if fits { Shape::Integer } else { Shape::Json }
}

/// Learns from lines; those that are no objects are left to the decoder to explain. `utf8`: all of them are known to be.
pub fn block<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone, utf8: bool, state: &mut Inference) {
    let before = shape(state);
    let mut all = before.clone();
    // As a rule every line is whole. Where one is not, what it told before it broke off is not to count.
    let records = utf8.then(|| whole(lines.clone(), &mut all)).flatten().unwrap_or_else(|| {
        all = before;
        checked(lines, &mut all)
    });
    state.records += records;
    put(all, state);
}

/// Puts together what lines say that were learnt from side by side.
pub fn merge(later: Inference, state: &mut Inference) {
    state.records += later.records;
    let all = shape(state).merge(shape(&later));
    put(all, state);
}

/// Learns from lines and counts the records, as long as all are objects.
fn whole<'a>(lines: impl Iterator<Item = &'a [u8]>, all: &mut Shape) -> Option<u64> {
    let mut records = 0;
    for line in lines {
        let mut scan = Scan::new(line);
        match scan.peek() {
            None => continue,
            Some(b'{') => all.read(&mut scan, 0).ok()?,
            Some(_) => return None,
        }
        if scan.peek().is_some() {
            return None;
        }
        records += 1;
    }
    Some(records)
}

/// Learns from the lines that are objects, and counts them.
fn checked<'a>(lines: impl Iterator<Item = &'a [u8]>, all: &mut Shape) -> u64 {
    let mut records = 0;
    for line in lines {
        let mut check = Scan::new(line);
        if is_blank(line)
            || std::str::from_utf8(line).is_err()
            || check.peek() != Some(b'{')
            || check.skip().is_err()
            || check.peek().is_some()
        {
            continue;
        }
        records += 1;
        // The line was checked, so nothing can break off in the middle.
        if all.read(&mut Scan::new(line), 0).is_err() {
            continue;
        }
    }
    records
}

/// What has been seen of records.
fn shape(state: &Inference) -> Shape {
    let known = state.columns.iter().map(|(name, data_type)| {
        let shape = match data_type {
            Some(_) if state.json.contains(name) => Shape::Json,
            None => Shape::Null,
            Some(data_type) => Shape::of(&Field::new(name, data_type.clone(), true)),
        };
        (name.clone(), shape)
    });
    Shape::Object(known.collect())
}

fn put(all: Shape, state: &mut Inference) {
    let Shape::Object(columns) = all else { unreachable!("objects only were read into an object") };
    state.columns.clear();
    for (name, shape) in columns {
        if shape == Shape::Json {
            state.json.insert(name.clone());
        }
        let data_type = (shape != Shape::Null).then(|| shape.field(&name).data_type().clone());
        state.columns.insert(name, data_type);
    }
}
