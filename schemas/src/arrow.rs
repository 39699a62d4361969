//! The one table of types: JSON Schema to Arrow, and the words of `x-weir-type`. How a value is read into its type is the
//! connectors'; how it is written as JSON again is `json`'s.
//!
//! | subschema | Arrow |
//! |---|---|
//! | `integer` | Int64 |
//! | `number`, or `integer` and `number` | Float64 |
//! | `boolean` | Boolean |
//! | `string` | Utf8 |
//! | `string` with `format` `date`, `time`, `date-time` | Date32, Time64(us), Timestamp(us, "UTC") |
//! | `string` with `format` `duration`, `uuid`, `decimal`, or any other | Utf8: a duration of months is no length of time, a UUID is text everywhere, and a text keeps its digits |
//! | `number`, `integer` with `format` `decimal` | Decimal128(38, 9), Decimal128(38, 0); `x-weir-type` states others |
//! | `array` whose `items` have a type | List of it |
//! | `object` with `properties` that all have a type | Struct of them, in their order |
//! | `object` without `properties` | Utf8 that holds JSON text, marked as the extension type `arrow.json` |
//! | no `type` but `enum` or `const` | what their values have in common |
//! | `x-weir-type` | the word's type, see [`WORDS`] |
//!
//! The way back, from an Arrow type to the subschema that declares it, is `field`'s.
//!
//! `null` in a list of types, and a branch of `anyOf`/`oneOf` that accepts only null, do not count. `allOf` and local `$ref`
//! are merged; branches of `anyOf`/`oneOf` have a type where all agree on it. Where this leaves no single type, none is declared and
//! the reader infers one. A column is nullable unless it is required and its subschema refuses null; list items and the fields of a Struct always are.

use std::{cell::Cell, collections::HashMap, str::FromStr, sync::Arc};

use ::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use serde_json::Value;

use crate::document::{Document, Place};

/// The words that `x-weir-type` knows, each with the JSON type its values have. `decimal` takes precision and scale: `decimal(12,2)`.
pub const WORDS: &[(&str, &str)] = &[
    ("int8", "integer"),
    ("int16", "integer"),
    ("int32", "integer"),
    ("int64", "integer"),
    ("uint8", "integer"),
    ("uint16", "integer"),
    ("uint32", "integer"),
    ("uint64", "integer"),
    ("float32", "number"),
    ("float64", "number"),
    ("decimal(p,s)", "number"),
    ("text", "string"),
    ("binary", "string"),
    ("date", "string"),
    ("time", "string"),
    ("timestamp", "string"),
    ("timestamptz", "string"),
    ("duration", "string"),
    ("boolean", "boolean"),
];

/// The metadata key and value that mark a text column as JSON text (Arrow's canonical extension type).
pub const JSON_TEXT: (&str, &str) = ("ARROW:extension:name", "arrow.json");

/// True for a text field that holds JSON.
pub fn is_json_text(field: &Field) -> bool {
    field.metadata().get(JSON_TEXT.0).is_some_and(|name| name == JSON_TEXT.1)
}

/// What can never hold, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) pointer: String,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// So many references are followed for one value.
const FOLLOWED_MAX: usize = 256;
/// So many branches of `anyOf` and `oneOf` are tried for one column: lists of them multiply.
const BRANCHES_MAX: usize = 1 << 14;

/// Which JSON types a subschema allows, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Types(u8);

impl Types {
    const NONE: Self = Self(0);
    const NULL: Self = Self(1);
    const BOOLEAN: Self = Self(2);
    const INTEGER: Self = Self(4);
    /// A number includes the integers.
    const NUMBER: Self = Self(4 | 8);
    const STRING: Self = Self(16);
    const ARRAY: Self = Self(32);
    const OBJECT: Self = Self(64);
    const ALL: Self = Self(127);

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    fn without_null(self) -> Self {
        Self(self.0 & !Self::NULL.0)
    }

    fn word(word: &str) -> Self {
        match word {
            "null" => Self::NULL,
            "boolean" => Self::BOOLEAN,
            "integer" => Self::INTEGER,
            "number" => Self::NUMBER,
            "string" => Self::STRING,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => Self::NONE,
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) if number.is_f64() => Self::NUMBER,
            Value::Number(_) => Self::INTEGER,
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }
}

/// What some subschemas that all apply to one value say about its shape.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    types: Types,
    format: Option<&'a str>,
    word: Option<(String, &'a Value)>,
    /// Each property with the subschemas that apply to it, in the order of first mention.
    pub(crate) properties: Vec<(&'a str, Vec<Place<'a>>)>,
    pub(crate) required: Vec<&'a str>,
    /// The subschemas that apply to every item.
    pub(crate) items: Vec<Place<'a>>,
    /// The lists under `anyOf` and `oneOf`.
    pub(crate) forms: Vec<Vec<Place<'a>>>,
    /// Something that is not plain: an unknown reference, a cycle, two formats, items by position.
    unclear: bool,
    followed: Vec<String>,
}

impl<'a> Facts<'a> {
    /// Gathers what the subschemas say, references and `allOf` included, `anyOf` and `oneOf` set aside.
    pub(crate) fn gather(document: &Document<'a>, places: &[Place<'a>]) -> Self {
        let mut facts = Self {
            types: Types::ALL,
            format: None,
            word: None,
            properties: vec![],
            required: vec![],
            items: vec![],
            forms: vec![],
            unclear: false,
            followed: vec![],
        };
        for place in places {
            facts.add(document, place);
        }
        facts
    }

    /// True where a reference leads to a schema that is not known yet, and has not led too far.
    fn follows(&self, place: &Place<'a>, target: &Place<'a>) -> bool {
        self.followed.len() < FOLLOWED_MAX && !self.followed.contains(&target.pointer) && target.pointer != place.pointer
    }

    fn add(&mut self, document: &Document<'a>, place: &Place<'a>) {
        let Some(members) = place.schema.as_object() else {
            if place.schema == &Value::Bool(false) {
                self.types = Types::NONE;
            }
            return;
        };
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            match document.follow(reference) {
                Some(target) if self.follows(place, &target) => {
                    self.followed.push(target.pointer.clone());
                    self.add(document, &target);
                }
                _ => self.unclear = true,
            }
            if document.ref_stands_alone {
                return;
            }
        }
        for part in place.list("allOf") {
            self.add(document, &part);
        }
        match members.get("type") {
            Some(Value::String(word)) => self.types = self.types.and(Types::word(word)),
            Some(Value::Array(words)) => {
                let any = words.iter().filter_map(Value::as_str).map(Types::word).fold(Types::NONE, Types::or);
                self.types = self.types.and(any);
            }
            _ => {}
        }
        let values = match (members.get("enum"), members.get("const")) {
            (_, Some(value)) => Some(Types::of(value)),
            (Some(Value::Array(values)), None) => Some(values.iter().map(Types::of).fold(Types::NONE, Types::or)),
            _ => None,
        };
        if let Some(values) = values {
            self.types = self.types.and(values);
        }
        if let Some(format) = members.get("format").and_then(Value::as_str) {
            self.unclear |= self.format.is_some_and(|before| before != format);
            self.format = Some(format);
        }
        if let Some(word) = members.get("x-weir-type") {
            self.word = Some((place.child("x-weir-type", word).pointer, word));
        }
        for (name, schema) in place.named("properties") {
            match self.properties.iter_mut().find(|(known, _)| *known == name) {
                Some((_, places)) => places.push(schema),
                None => self.properties.push((name, vec![schema])),
            }
        }
        let required = members.get("required").and_then(Value::as_array).into_iter().flatten();
        self.required.extend(required.filter_map(Value::as_str));
        match place.keyword("items") {
            Some(items) if items.schema.is_array() => self.unclear = true,
            Some(items) => self.items.push(items),
            None => {}
        }
        self.unclear |= members.contains_key("prefixItems") || members.contains_key("$dynamicRef") || members.contains_key("$recursiveRef");
        self.forms.extend(["anyOf", "oneOf"].map(|key| place.list(key)).into_iter().filter(|forms| !forms.is_empty()));
    }

    /// True when `required` names it.
    pub(crate) fn requires(&self, name: &str) -> bool {
        self.required.contains(&name)
    }

    /// The facts with one branch of `anyOf`/`oneOf` added and its list taken away.
    fn with_branch(&self, document: &Document<'a>, branch: &Place<'a>) -> Self {
        let mut facts = self.clone();
        facts.forms.remove(0);
        facts.add(document, branch);
        facts
    }
}

/// The column that some subschemas declare; none where they leave its type open.
pub(crate) fn column(document: &Document<'_>, name: &str, places: &[Place<'_>], required: bool) -> Result<Option<Field>, Problem> {
    let shape = decide(document, &Facts::gather(document, places), 0, &Cell::new(BRANCHES_MAX))?;
    Ok(shape.map(|shape| shape.field(name, !required || document.accepts_null(places))))
}

/// A type, and whether it is JSON text.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    data_type: DataType,
    json: bool,
}

impl Shape {
    fn plain(data_type: DataType) -> Self {
        Self { data_type, json: false }
    }

    fn field(self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.data_type, nullable);
        match self.json {
            true => field.with_metadata(HashMap::from([(JSON_TEXT.0.to_owned(), JSON_TEXT.1.to_owned())])),
            false => field,
        }
    }
}

/// The digits after the point of a `format` `decimal` that states no others.
const DECIMAL_SCALE: i8 = 9;
/// Nesting deeper than this has no declared type: a schema that refers to itself ends here.
const DEPTH_MAX: usize = 16;

fn decide<'a>(document: &Document<'a>, facts: &Facts<'a>, depth: usize, left: &Cell<usize>) -> Result<Option<Shape>, Problem> {
    if let Some((pointer, word)) = &facts.word {
        return stated(facts, pointer, word).map(|data_type| Some(Shape::plain(data_type)));
    }
    if facts.unclear || depth > DEPTH_MAX {
        return Ok(None);
    }
    if let Some(branches) = facts.forms.first() {
        let mut agreed = None;
        for branch in branches {
            let Some(fewer) = left.get().checked_sub(1) else { return Ok(None) };
            left.set(fewer);
            let branch = facts.with_branch(document, branch);
            if branch.types.without_null() == Types::NONE {
                continue;
            }
            let Some(shape) = decide(document, &branch, depth + 1, left)? else { return Ok(None) };
            if agreed.as_ref().is_some_and(|before| *before != shape) {
                return Ok(None);
            }
            agreed = Some(shape);
        }
        return Ok(agreed);
    }
    Ok(match facts.types.without_null() {
        Types(bits) if facts.format == Some("decimal") && bits != 0 && bits & !Types::NUMBER.0 == 0 => {
            let scale = if bits == Types::INTEGER.0 { 0 } else { DECIMAL_SCALE };
            Some(Shape::plain(DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)))
        }
        Types::INTEGER => Some(Shape::plain(DataType::Int64)),
        Types(bits) if bits & Types::NUMBER.0 != 0 && bits & !Types::NUMBER.0 == 0 => Some(Shape::plain(DataType::Float64)),
        Types::BOOLEAN => Some(Shape::plain(DataType::Boolean)),
        Types::STRING => Some(Shape::plain(match facts.format {
            Some("date") => DataType::Date32,
            Some("time") => DataType::Time64(TimeUnit::Microsecond),
            Some("date-time") => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8,
        })),
        Types::ARRAY => {
            let item = decide(document, &Facts::gather(document, &facts.items), depth + 1, left)?;
            item.map(|item| Shape::plain(DataType::List(Arc::new(item.field("item", true)))))
        }
        Types::OBJECT if facts.properties.is_empty() => Some(Shape { data_type: DataType::Utf8, json: true }),
        Types::OBJECT => {
            let mut fields = Vec::with_capacity(facts.properties.len());
            for (name, places) in &facts.properties {
                let Some(shape) = decide(document, &Facts::gather(document, places), depth + 1, left)? else { return Ok(None) };
                fields.push(shape.field(name, true));
            }
            Some(Shape::plain(DataType::Struct(Fields::from(fields))))
        }
        _ => None,
    })
}

/// Reads `x-weir-type` and holds it against the JSON type its values will have.
fn stated(facts: &Facts<'_>, pointer: &str, word: &Value) -> Result<DataType, Problem> {
    let problem = |message: String, help: String| Problem { pointer: pointer.to_owned(), message, help };
    let known = || format!("words are: {}", WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "));
    let text = word.as_str().ok_or_else(|| problem("\"x-weir-type\" is not a text".into(), known()))?;
    let Some((data_type, json)) = word_type(text) else {
        return Err(problem(format!("\"{text}\" is not a word of \"x-weir-type\""), known()));
    };
    let needed = Types::word(json);
    if facts.types.and(needed) == Types::NONE {
        let message = format!("no value can hold: \"x-weir-type\" \"{text}\" is the JSON type \"{json}\", which \"type\" does not allow");
        return Err(problem(message, format!("make \"type\" \"{json}\", or leave out \"x-weir-type\"")));
    }
    if matches!(data_type, DataType::Timestamp(_, None)) && facts.format == Some("date-time") {
        let message = "no value can hold: \"timestamp\" has no time zone, and \"format\" \"date-time\" asks for one".to_owned();
        return Err(problem(message, "make it \"timestamptz\", or leave out \"format\"".into()));
    }
    Ok(data_type)
}

/// The Arrow type and the JSON type of a word of `x-weir-type`.
fn word_type(word: &str) -> Option<(DataType, &'static str)> {
    if let Some(arguments) = word.strip_prefix("decimal") {
        return decimal(arguments.trim()).map(|data_type| (data_type, "number"));
    }
    let (_, json) = WORDS.iter().find(|(known, _)| *known == word)?;
    let data_type = match word {
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "text" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "duration" => DataType::Duration(TimeUnit::Microsecond),
        "boolean" => DataType::Boolean,
        _ => return None,
    };
    Some((data_type, json))
}

fn decimal(arguments: &str) -> Option<DataType> {
    let inner = arguments.strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let precision = u8::from_str(precision.trim()).ok().filter(|precision| (1..=DECIMAL256_MAX_PRECISION).contains(precision))?;
    let scale = u8::from_str(scale.trim()).ok().filter(|scale| *scale <= precision)? as i8;
    Some(match precision <= DECIMAL128_MAX_PRECISION {
        true => DataType::Decimal128(precision, scale),
        false => DataType::Decimal256(precision, scale),
    })
}
