//! From an Arrow type back to the subschema that declares it: the other direction of the table in `arrow`. What the values themselves say
//! is `infer`'s.
//!
//! A type that JSON Schema and `x-weir-type` can name compiles back to itself. One that they cannot becomes the nearest type they can, and
//! [`Declared::note`] says what that changes. Nullability is the contract's: a field that may be null is not `required`. The fields of a
//! struct and the items of a list always may be null.

use ::arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Map, Value, json};

use crate::arrow::is_json_text;

/// How a type comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// As it was.
    Exact,
    /// As another type that holds the same values.
    Same,
    /// As a type that does not hold all of its values, or holds them as something else.
    Lossy,
    /// The contract leaves it open; the reader infers it.
    Open,
}

/// A subschema and how well it says what the field was.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The subschema.
    pub schema: Map<String, Value>,
    /// How the type comes back.
    pub fit: Fit,
    /// What it becomes or loses, in words; empty where there is nothing to say.
    pub note: &'static str,
}

impl Declared {
    fn new(fit: Fit, note: &'static str, schema: Value) -> Self {
        let Value::Object(schema) = schema else { unreachable!("subschemas here are objects") };
        Self { schema, fit, note }
    }

    /// The same with another word on the part that a list or struct is made of.
    fn around(self, inner: &[&Declared], note: &'static str) -> Self {
        let worst = inner.iter().max_by_key(|inner| inner.fit);
        let Some(worst) = worst.filter(|worst| worst.fit > self.fit) else { return self };
        Self { fit: worst.fit, note: if worst.note.is_empty() { note } else { worst.note }, ..self }
    }
}

/// Not a number, and the infinities, which JSON writes as text.
pub(crate) const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Returns the subschema that declares a field's type.
pub fn subschema(field: &Field) -> Declared {
    use DataType::*;
    use Fit::*;
    let exact = |schema: Value| Declared::new(Exact, "", schema);
    let integer = |word: &str| exact(json!({ "type": "integer", "x-weir-type": word }));
    let text = |fit, note| Declared::new(fit, note, json!({ "type": "string" }));
    let binary = |fit, note| Declared::new(fit, note, json!({ "type": "string", "x-weir-type": "binary" }));
    let time = |fit, note| Declared::new(fit, note, json!({ "type": "string", "format": "time" }));
    let duration = |fit, note| Declared::new(fit, note, json!({ "type": "string", "x-weir-type": "duration" }));
    let fine = "what is finer than a microsecond does not fit";
    match field.data_type() {
        Null => Declared::new(Open, "a column of nulls has no type", json!({})),
        Boolean => exact(json!({ "type": "boolean" })),
        Int8 => integer("int8"),
        Int16 => integer("int16"),
        Int32 => integer("int32"),
        Int64 => exact(json!({ "type": "integer" })),
        UInt8 => integer("uint8"),
        UInt16 => integer("uint16"),
        UInt32 => integer("uint32"),
        UInt64 => integer("uint64"),
        Float16 => Declared::new(Same, "widened", json!({ "type": "number", "x-weir-type": "float32" })),
        Float32 => exact(json!({ "type": "number", "x-weir-type": "float32" })),
        Float64 => exact(json!({ "type": "number" })),
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) | Decimal256(precision, scale) => {
            decimal(*precision, *scale, field.data_type())
        }
        Utf8 if is_json_text(field) => exact(json!({ "type": "object" })),
        LargeUtf8 | Utf8View if is_json_text(field) => Declared::new(Same, "the same text", json!({ "type": "object" })),
        Utf8 => text(Exact, ""),
        LargeUtf8 | Utf8View => text(Same, "the same text"),
        Binary => binary(Exact, ""),
        LargeBinary | BinaryView => binary(Same, "the same bytes"),
        FixedSizeBinary(_) => binary(Lossy, "the same bytes; that all are of one length is not said, nor that they are a UUID"),
        Date32 => exact(json!({ "type": "string", "format": "date" })),
        Date64 => Declared::new(Lossy, "days, without a time of day", json!({ "type": "string", "format": "date" })),
        Timestamp(unit, Some(zone)) => {
            let (fit, note) = match unit {
                TimeUnit::Nanosecond => (Lossy, fine),
                TimeUnit::Microsecond if zone.as_ref() == "UTC" => (Exact, ""),
                TimeUnit::Microsecond => (Lossy, "the same instant in UTC; the zone is not kept"),
                _ if zone.as_ref() == "UTC" => (Same, "microseconds"),
                _ => (Lossy, "microseconds; the same instant in UTC; the zone is not kept"),
            };
            Declared::new(fit, note, json!({ "type": "string", "format": "date-time" }))
        }
        Timestamp(unit, None) => {
            let (fit, note) = match unit {
                TimeUnit::Nanosecond => (Lossy, fine),
                TimeUnit::Microsecond => (Exact, ""),
                _ => (Same, "microseconds"),
            };
            Declared::new(fit, note, json!({ "type": "string", "x-weir-type": "timestamp" }))
        }
        Time64(TimeUnit::Microsecond) => time(Exact, ""),
        Time64(_) => time(Lossy, fine),
        Time32(_) => time(Same, "microseconds"),
        Duration(TimeUnit::Microsecond) => duration(Exact, ""),
        Duration(TimeUnit::Nanosecond) => duration(Lossy, fine),
        Duration(_) => duration(Same, "microseconds"),
        Interval(_) => text(Lossy, "ISO 8601 text such as P1M2DT3S"),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => list(field.data_type(), item),
        Struct(fields) => structure(fields),
        Map(..) => Declared::new(Lossy, "JSON text", json!({ "type": "object" })),
        Dictionary(_, values) => encoded(&field.clone().with_data_type(values.as_ref().clone())),
        RunEndEncoded(_, values) => encoded(&field.clone().with_data_type(values.data_type().clone())),
        Union(..) => Declared::new(Open, "values of several types", json!({})),
    }
}

/// A type seen through its encoding.
fn encoded(field: &Field) -> Declared {
    let inner = subschema(field);
    if inner.fit == Fit::Exact { Declared { fit: Fit::Same, note: "the same values, written out", ..inner } } else { inner }
}

fn decimal(precision: u8, scale: i8, data_type: &DataType) -> Declared {
    let of = |precision: u8, scale: u8, fit, note| {
        Declared::new(fit, note, json!({ "type": "number", "x-weir-type": format!("decimal({precision},{scale})") }))
    };
    let small = precision <= ::arrow::datatypes::DECIMAL128_MAX_PRECISION;
    match u8::try_from(scale) {
        Ok(scale) if scale <= precision => match data_type {
            DataType::Decimal128(..) => of(precision, scale, Fit::Exact, ""),
            DataType::Decimal256(..) if !small => of(precision, scale, Fit::Exact, ""),
            _ => of(precision, scale, Fit::Same, "as Decimal128"),
        },
        // 0.000012 as two digits of a scale of six has six digits.
        Ok(scale) if scale <= DECIMAL256_MAX_PRECISION => of(scale, scale, Fit::Same, "with a precision as large as its scale"),
        Err(_) if precision.saturating_add(scale.unsigned_abs()) <= DECIMAL256_MAX_PRECISION => {
            of(precision + scale.unsigned_abs(), 0, Fit::Same, "written out, with a scale of 0")
        }
        _ => Declared::new(Fit::Lossy, "the nearest 64-bit float", json!({ "type": "number" })),
    }
}

fn list(data_type: &DataType, item: &Field) -> Declared {
    let inner = subschema(item);
    let standard = matches!(data_type, DataType::List(_)) && item.name() == "item" && item.is_nullable();
    let (fit, note) = match data_type {
        _ if inner.fit == Fit::Open => (Fit::Open, inner.note),
        DataType::FixedSizeList(..) => (Fit::Lossy, "as List; that all are of one length is not said"),
        _ if standard => (Fit::Exact, ""),
        _ => (Fit::Same, "as List"),
    };
    let mut items = inner.schema.clone();
    or_null(&mut items);
    Declared::new(fit, note, json!({ "type": "array", "items": items })).around(&[&inner], "an item changes")
}

fn structure(fields: &Fields) -> Declared {
    let inner: Vec<Declared> = fields.iter().map(|field| subschema(field)).collect();
    let names: std::collections::HashSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    if fields.is_empty() || names.len() < fields.len() {
        return Declared::new(Fit::Lossy, "JSON text", json!({ "type": "object" }));
    }
    let (fit, note) = match fields.iter().all(|field| field.is_nullable()) {
        true => (Fit::Exact, ""),
        false => (Fit::Same, "fields may be null"),
    };
    let properties: Map<String, Value> =
        fields.iter().zip(&inner).map(|(field, inner)| (field.name().clone(), Value::Object(inner.schema.clone()))).collect();
    let all: Vec<&Declared> = inner.iter().collect();
    Declared::new(fit, note, json!({ "type": "object", "properties": properties })).around(&all, "a field changes")
}

/// Lets a subschema accept null too.
pub(crate) fn or_null(schema: &mut Map<String, Value>) {
    if let Some(words) = schema.get_mut("type") {
        match words {
            Value::String(word) => *words = json!([word, "null"]),
            Value::Array(list) if !list.contains(&json!("null")) => list.push(json!("null")),
            _ => {}
        }
    }
}

/// Returns the contract whose columns have these types and nullability, as far as each [`Declared::fit`] goes.
pub fn contract(schema: &Schema) -> Value {
    let properties: Map<String, Value> =
        schema.fields().iter().map(|field| (field.name().clone(), Value::Object(subschema(field).schema))).collect();
    let required: Vec<&str> = schema.fields().iter().filter(|field| !field.is_nullable()).map(|field| field.name().as_str()).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

#[cfg(test)]
#[path = "field_tests.rs"]
mod tests;
