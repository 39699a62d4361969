//! A contract as a plan over columns, made from the schema alone. Following it is `judge`'s: what no kernel decides the `jsonschema` crate
//! does, for the cells and the subschema concerned.
//!
//! | keyword | of columns of | else |
//! |---|---|---|
//! | `type` | every type; `integer` without `number` not of floats and decimals | the crate, by cell |
//! | `enum`, `const` | booleans, integers, text | the crate, by cell |
//! | `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` | integers, 64-bit floats, decimals of up to 15 digits | the crate, by cell |
//! | `multipleOf` | integers, by a whole number | the crate, by cell |
//! | `minLength`, `maxLength` | text | the crate, by cell |
//! | `format` | dates, times and instants that are of it by their type | the crate, by cell |
//! | `pattern`, `items`, nested `properties` and every other keyword of a value | none | the crate, by cell |
//! | `properties`, `required`, `additionalProperties: false`, `dependentRequired` | the row | |
//! | `allOf`, `anyOf`, `oneOf`, `not`, `if`, `$ref` | the row and its values | |
//! | every other keyword of a row | none | the crate, by row |

use std::collections::HashSet;

use jsonschema::Draft;
use serde_json::Value;

use crate::document::{Document, Place, escape};

/// Up to this a whole number is a 64-bit float too.
pub(crate) const EXACT: i128 = 1 << 53;

/// What a row, or a cell, must be.
#[derive(Debug)]
pub(crate) enum Node {
    /// Everything is, or nothing.
    Always(bool),
    /// What one keyword asks for; the pointer is of the keyword. It asks for nothing of its own.
    Rule(String, Box<Node>),
    /// `allOf`, and the keywords of one schema.
    All(Vec<Node>),
    /// `anyOf`.
    Any(Vec<Node>),
    /// `oneOf`.
    One(Vec<Node>),
    /// `not`.
    Not(Box<Node>),
    /// `if`, `then`, `else`.
    If(Box<[Node; 3]>),
    /// A row has this property.
    Present(String),
    /// A row that has the first has the others.
    Depends(String, Vec<String>),
    /// A property's value, where there is one; the pointer is of its subschema.
    Property(String, String, Box<Node>),
    /// A row has no other properties.
    Closed(HashSet<String>),
    /// A cell is of one of these types.
    Types(Types),
    /// A cell is one of these values.
    Values(Vec<Value>),
    /// A cell that is a number lies on one side of a limit; the pointer is of the schema that says so.
    Bound(Bound, String),
    /// A cell that is a number is a multiple.
    Multiple(u64),
    /// A cell that is text has from so many to so many code points.
    Length(u64, u64),
    /// A cell that is text is of a format; the pointer is of the schema that says so.
    Format(String, String),
    /// Only the crate knows: the subschema under this pointer.
    Crate(String),
}

/// The types of JSON, as `type` names them.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "a set of seven words")]
pub(crate) struct Types {
    pub(crate) null: bool,
    pub(crate) boolean: bool,
    pub(crate) integer: bool,
    pub(crate) number: bool,
    pub(crate) string: bool,
    pub(crate) array: bool,
    pub(crate) object: bool,
}

impl Types {
    fn of(value: &Value) -> Option<Self> {
        let mut types = Self::default();
        let words = match value {
            Value::String(_) => std::slice::from_ref(value),
            Value::Array(words) => words,
            _ => return None,
        };
        for word in words {
            match word.as_str()? {
                "null" => types.null = true,
                "boolean" => types.boolean = true,
                "integer" => types.integer = true,
                "number" => types.number = true,
                "string" => types.string = true,
                "array" => types.array = true,
                "object" => types.object = true,
                _ => return None,
            }
        }
        Some(types)
    }
}

/// One side of a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    side: Side,
    /// What whole numbers may be.
    pub(crate) whole: (i128, i128),
    /// The limit, where it is exactly a float.
    pub(crate) limit: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Least,
    More,
    Most,
    Less,
}

impl Bound {
    fn of(side: Side, value: &Value) -> Option<Self> {
        let number = value.as_number()?;
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        let (floor, ceil, limit) = match whole {
            #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
            Some(whole) => (whole, whole, (whole.abs() <= EXACT).then_some(whole as f64)),
            None => {
                let limit = number.as_f64().filter(|limit| limit.is_finite())?;
                #[expect(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
                (limit.floor() as i128, limit.ceil() as i128, Some(limit))
            }
        };
        let whole = match side {
            Side::Least => (ceil, i128::MAX),
            Side::More => (floor.saturating_add(1), i128::MAX),
            Side::Most => (i128::MIN, floor),
            Side::Less => (i128::MIN, ceil.saturating_sub(1)),
        };
        Some(Self { side, whole, limit })
    }

    /// True where the value lies on its side of the limit.
    pub(crate) fn holds(self, limit: f64, value: f64) -> bool {
        match self.side {
            Side::Least => value >= limit,
            Side::More => value > limit,
            Side::Most => value <= limit,
            Side::Less => value < limit,
        }
    }
}

/// Where a schema stands: it is about a row, or about the value of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Row,
    Cell,
}

/// Makes the plan of a contract.
pub(crate) fn plan(document: &Document<'_>) -> Node {
    // What such a reference means depends on the way by which it was reached, and a subschema's own validator knows only itself.
    if document.several_bases() || has_dynamic(document.root) {
        return Node::Crate(String::new());
    }
    node(document, &document.top(), About::Row, &mut Vec::new()).unwrap_or(Node::Crate(String::new()))
}

fn has_dynamic(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            let word = |key: &str| matches!(key, "$dynamicRef" | "$recursiveRef" | "$dynamicAnchor" | "$recursiveAnchor");
            members.iter().any(|(key, value)| word(key) || has_dynamic(value))
        }
        Value::Array(items) => items.iter().any(has_dynamic),
        _ => false,
    }
}

/// The plan of a subschema; none where the crate has no validator for a part of it.
fn node(document: &Document<'_>, place: &Place<'_>, about: About, following: &mut Vec<String>) -> Option<Node> {
    let by_crate = || {
        let known = place.pointer.is_empty() || document.validators.contains_key(&format!("#{}", place.pointer));
        known.then(|| Node::Crate(place.pointer.clone()))
    };
    let members = match place.schema {
        Value::Bool(all) => return Some(Node::Always(*all)),
        Value::Object(members) => members,
        _ => return by_crate(),
    };
    // A schema that leads back to itself is the crate's.
    if following.contains(&place.pointer) {
        return by_crate();
    }
    following.push(place.pointer.clone());
    let mut all = Vec::new();
    let alone = document.ref_stands_alone && members.contains_key("$ref");
    for (keyword, value) in members.iter().filter(|(keyword, _)| !alone || *keyword == "$ref") {
        match self::keyword(document, place, about, keyword, value, following) {
            Part::Nothing => {}
            Part::Node(node) => all.push(Node::Rule(format!("{}/{}", place.pointer, escape(keyword)), Box::new(node))),
            Part::Crate => {
                following.pop();
                return by_crate();
            }
            Part::Lost => return None,
        }
    }
    following.pop();
    Some(if all.len() == 1 { all.remove(0) } else { Node::All(all) })
}

/// What one keyword asks for.
enum Part {
    Nothing,
    Node(Node),
    Crate,
    Lost,
}

impl From<Option<Node>> for Part {
    fn from(node: Option<Node>) -> Self {
        node.map_or(Part::Lost, Part::Node)
    }
}

fn keyword(document: &Document<'_>, place: &Place<'_>, about: About, keyword: &str, value: &Value, following: &mut Vec<String>) -> Part {
    let served = |node: Option<Node>| node.map_or(Part::Crate, Part::Node);
    let names = |value: &Value| -> Option<Vec<String>> { value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect() };
    let mut branches = || place.list(keyword).iter().map(|part| node(document, part, about, following)).collect::<Option<Vec<_>>>();
    // Words that a draft does not know are none of its keywords; whoever writes them is answered by the crate.
    let older = match keyword {
        "const" | "exclusiveMinimum" | "exclusiveMaximum" => document.draft == Draft::Draft4,
        "if" => matches!(document.draft, Draft::Draft4 | Draft::Draft6),
        "dependentRequired" => document.ref_stands_alone,
        _ => false,
    };
    if older {
        return Part::Crate;
    }
    match (keyword, about) {
        (
            "$schema" | "$id" | "id" | "$anchor" | "$comment" | "$defs" | "definitions" | "title" | "description" | "default" | "examples"
            | "deprecated" | "readOnly" | "writeOnly",
            _,
        ) => Part::Nothing,
        (name, _) if name.starts_with("x-") => Part::Nothing,
        // Looked at with their `if`.
        ("then" | "else", _) => Part::Nothing,
        ("$ref", _) => match value.as_str().and_then(|reference| document.follow(reference)) {
            Some(target) => node(document, &target, about, following).into(),
            None => Part::Crate,
        },
        ("allOf", _) => branches().map(Node::All).into(),
        ("anyOf", _) => branches().map(Node::Any).into(),
        ("oneOf", _) => branches().map(Node::One).into(),
        ("not", _) => node(document, &place.child(keyword, value), about, following).map(|node| Node::Not(Box::new(node))).into(),
        ("if", _) => {
            let mut branch = |name: &str| match place.keyword(name) {
                Some(branch) => node(document, &branch, about, following),
                None => Some(Node::Always(true)),
            };
            let parts = branch("if").zip(branch("then")).zip(branch("else"));
            parts.map(|((when, then), other)| Node::If(Box::new([when, then, other]))).into()
        }
        ("type", About::Row) => served(Types::of(value).map(|types| Node::Always(types.object))),
        ("type", About::Cell) => served(Types::of(value).map(Node::Types)),
        ("properties", About::Row) => {
            let parts = place.named("properties").into_iter().map(|(name, place)| {
                let node = node(document, &place, About::Cell, following)?;
                Some(Node::Property(name.to_owned(), place.pointer, Box::new(node)))
            });
            parts.collect::<Option<Vec<_>>>().map(Node::All).into()
        }
        ("required", About::Row) => served(names(value).map(|names| Node::All(names.into_iter().map(Node::Present).collect()))),
        ("dependentRequired", About::Row) => {
            let of = |members: &serde_json::Map<String, Value>| {
                members.iter().map(|(name, others)| Some(Node::Depends(name.clone(), names(others)?))).collect::<Option<Vec<_>>>()
            };
            served(value.as_object().and_then(of).map(Node::All))
        }
        ("additionalProperties", About::Row) => match value {
            Value::Bool(true) => Part::Nothing,
            Value::Bool(false) if place.schema.get("patternProperties").is_none() => {
                Part::Node(Node::Closed(place.named("properties").into_iter().map(|(name, _)| name.to_owned()).collect()))
            }
            _ => Part::Crate,
        },
        ("enum", About::Cell) => served(value.as_array().map(|values| Node::Values(values.clone()))),
        ("const", About::Cell) => Part::Node(Node::Values(vec![value.clone()])),
        ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", About::Cell) => {
            // Of draft 4, where these two change what the others mean.
            if ["exclusiveMinimum", "exclusiveMaximum"].iter().any(|word| place.schema.get(word).is_some_and(Value::is_boolean)) {
                return Part::Crate;
            }
            let side = match keyword {
                "minimum" => Side::Least,
                "maximum" => Side::Most,
                "exclusiveMinimum" => Side::More,
                _ => Side::Less,
            };
            served(Bound::of(side, value).map(|bound| Node::Bound(bound, place.pointer.clone())))
        }
        ("multipleOf", About::Cell) => served(value.as_u64().filter(|divisor| *divisor > 0).map(Node::Multiple)),
        ("minLength", About::Cell) => served(value.as_u64().map(|least| Node::Length(least, u64::MAX))),
        ("maxLength", About::Cell) => served(value.as_u64().map(|most| Node::Length(0, most))),
        ("format", About::Cell) => served(value.as_str().map(|format| Node::Format(format.to_owned(), place.pointer.clone()))),
        _ => Part::Crate,
    }
}
