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
            (Self::Json, _) => scan.skip(),
            (Self::List(item), b'[') => {
                scan.at += 1;
                scan.members(b']', |scan| item.read(scan, depth + 1))
            }
            (Self::Object(members), b'{') => {
                scan.at += 1;
                scan.members(b'}', |scan| {
                    let key = scan.key()?;
                    let name = std::str::from_utf8(&key).map_err(|_| "it is not UTF-8")?;
                    match members.get_mut(name) {
                        Some(shape) => shape.read(scan, depth + 1),
                        None => members.entry(name.to_owned()).or_default().read(scan, depth + 1),
                    }
                })
            }
            (Self::Null, b'[' | b'{') => {
                *self = if next == b'[' { Self::List(Box::default()) } else { Self::Object(IndexMap::new()) };
                self.read(scan, depth)
            }
            (_, b'[' | b'{') => {
                *self = Self::Json;
                scan.skip()
            }
            (shape, _) => {
                let start = scan.at;
                scan.skip()?;
                let this = match next {
                    b'"' => Self::Text,
                    b't' | b'f' => Self::Boolean,
                    _ => number(&scan.text[start..scan.at]),
                };
                *shape = match (std::mem::take(shape), this) {
                    (Self::Null, this) => this,
                    (before, this) if before == this => this,
                    (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
                    _ => Self::Json,
                };
                Ok(())
            }
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
        return if fast_float2::parse::<f64, _>(text).is_ok_and(f64::is_finite) { Shape::Float } else { Shape::Json };
    }
    let whole = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    if whole.is_some() { Shape::Integer } else { Shape::Json }
}

/// Learns from lines; those that are no objects are left to the decoder to explain.
pub fn block<'a>(lines: impl Iterator<Item = &'a [u8]>, state: &mut Inference) {
    let known = std::mem::take(&mut state.columns).into_iter().map(|(name, data_type)| {
        let shape = match data_type {
            None => Shape::Null,
            Some(_) if state.json.contains(&name) => Shape::Json,
            Some(data_type) => Shape::of(&Field::new(&name, data_type, true)),
        };
        (name, shape)
    });
    let mut all = Shape::Object(known.collect());
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
        state.records += 1;
        // The line was checked, so nothing can break off in the middle.
        if all.read(&mut Scan::new(line), 0).is_err() {
            continue;
        }
    }
    let Shape::Object(columns) = all else { unreachable!("objects only were read into an object") };
    for (name, shape) in columns {
        if shape == Shape::Json {
            state.json.insert(name.clone());
        }
        let data_type = (shape != Shape::Null).then(|| shape.field(&name).data_type().clone());
        state.columns.insert(name, data_type);
    }
}
