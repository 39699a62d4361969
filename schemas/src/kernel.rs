//! A contract as a plan over columns, made from the schema alone. Following it is `judge`'s: what no kernel decides the `jsonschema` crate
//! does, for the cells and the subschema concerned. Which keywords have kernels for which columns: `docs/reference/contracts.md`, made by `coverage`.

use std::{collections::HashSet, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use crate::{
    document::{Document, Place, escape},
    texts::Memories,
};

/// Up to this a whole number is a 64-bit float too.
pub(crate) const EXACT: i128 = 1 << 53;

/// What a row, or a cell, must be. A row is an object whose members are columns; what is asked of objects asks nothing of other values, and so on.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Everything is, or nothing.
    Always(bool),
    /// What one keyword asks for; the pointer is of the keyword. It asks for nothing of its own.
    Rule(String, Box<Node>),
    /// The keywords of the schema under this pointer, all of them.
    Schema(String, Vec<Node>),
    /// `allOf`.
    All(Vec<Node>),
    /// `anyOf`.
    Any(Vec<Node>),
    /// `oneOf`.
    One(Vec<Node>),
    /// `not`.
    Not(Box<Node>),
    /// `if`, `then`, `else`.
    If(Box<[Node; 3]>),
    /// An object has this property.
    Present(String),
    /// An object that has the first has the others.
    Depends(String, Vec<String>),
    /// An object that has the property is as the node says.
    When(String, Box<Node>),
    /// A property's value, where there is one.
    Property(String, Box<Node>),
    /// The values of the properties whose name is of a pattern.
    Matching(Asked, Box<Node>),
    /// An object has no other properties.
    Closed(HashSet<String>),
    /// The values of the properties that have none of these names, and a name of none of these patterns.
    Others(HashSet<String>, Vec<Asked>, Box<Node>),
    /// The names of an object's properties; the pointer is of their subschema.
    Names(String),
    /// An object has from so many to so many properties.
    Size(u64, u64),
    /// A cell is of one of these types.
    Types(Types),
    /// A cell is one of these values.
    Values(Choices),
    /// A cell that is a number lies on one side of a limit.
    Bound(Bound),
    /// A cell that is a number is a multiple.
    Multiple(u64),
    /// A cell that is a number is a multiple of a fraction.
    Fraction(Fraction),
    /// A cell that is text has from so many to so many code points.
    Length(u64, u64),
    /// A cell that is text matches.
    Pattern(Asked),
    /// A cell that is text is of a format.
    Format(String, Asked),
    /// The items of a list, from this place on.
    Items(usize, Box<Node>),
    /// The first items of a list, each by its own node.
    Prefix(Vec<Node>),
    /// From so many to so many items of a list are as the node says.
    Contains(u64, u64, Box<Node>),
    /// A list has from so many to so many items.
    Count(u64, u64),
    /// No two items of a list are equal.
    Unique,
    /// Only the crate knows: the subschema under this pointer.
    Crate(String),
}

/// Every keyword that the crate judges by, in one draft or another. Any other word in a schema says nothing about rows.
pub(crate) const JUDGED: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// True of a word that the crate judges by.
pub(crate) fn judges(keyword: &str) -> bool {
    JUDGED.contains(&keyword)
}

/// A keyword about text that the crate is asked about, text by text.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    validator: Arc<Validator>,
    /// What it said, as often as it is asked side by side.
    pub(crate) memories: Memories,
}

impl Asked {
    /// The crate's validator of one keyword alone, in the document's draft.
    fn new(document: &Document<'_>, keyword: &str, value: Value) -> Option<Self> {
        let mut schema = Map::from_iter([(keyword.to_owned(), value)]);
        if let Some(draft) = document.root.get("$schema") {
            schema.insert("$schema".to_owned(), draft.clone());
        }
        let options = jsonschema::options().offline().should_validate_formats(true);
        Some(Self { validator: Arc::new(options.build(&Value::Object(schema)).ok()?), memories: Memories::default() })
    }

    /// The crate's answer about a text; none where its engine gave up, in which case what becomes of a row is not the sum of its parts.
    pub(crate) fn holds(&self, text: &Value) -> Option<bool> {
        if self.validator.is_valid(text) {
            return Some(true);
        }
        let gave_up = |error: jsonschema::ValidationError<'_>| {
            matches!(error.kind(), ValidationErrorKind::BacktrackLimitExceeded { .. } | ValidationErrorKind::RegexEngineFailure { .. })
        };
        (!self.validator.validate(text).is_err_and(gave_up)).then_some(false)
    }
}

/// True when a pattern of the schema needs an engine that can give up.
pub(crate) fn backtracks(schema: &Value) -> bool {
    let hard = |pattern: &str| {
        let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
        options.build(&Value::Object(Map::from_iter([("pattern".to_owned(), pattern.into())]))).is_err()
    };
    match schema {
        Value::Object(members) => members.iter().any(|(key, value)| match (key.as_str(), value) {
            ("pattern", Value::String(pattern)) => hard(pattern),
            ("patternProperties", Value::Object(patterns)) => patterns.keys().any(|pattern| hard(pattern)) || backtracks(value),
            _ => backtracks(value),
        }),
        Value::Array(items) => items.iter().any(backtracks),
        _ => false,
    }
}

/// The values of an `enum` or a `const`.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    all: Vec<Value>,
    /// Those that are whole numbers, as written.
    pub(crate) whole: HashSet<i128>,
    /// Those that are numbers, where each is exactly a float.
    pub(crate) floats: Option<Vec<f64>>,
    pub(crate) texts: HashSet<String>,
    /// Which texts were among them.
    pub(crate) memories: Memories,
}

impl Choices {
    fn new(all: Vec<Value>) -> Self {
        let whole = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        let exact = |value: &Value| whole(value).is_none_or(|whole| whole.abs() <= EXACT);
        let numbers = || all.iter().filter(|value| value.is_number());
        let floats = numbers().all(exact).then(|| numbers().filter_map(Value::as_f64).collect());
        let texts = all.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Self { whole: all.iter().filter_map(whole).collect(), floats, texts, memories: Memories::default(), all }
    }

    /// True when every number among them is written as a whole one.
    pub(crate) fn all_whole(&self) -> bool {
        self.all.iter().all(|value| !value.is_f64())
    }
}

impl std::ops::Deref for Choices {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.all
    }
}

/// A fraction as it is written: so many units of the last of its decimal places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fraction {
    units: i128,
    places: u32,
}

impl Fraction {
    fn of(value: &Value) -> Option<Self> {
        let number = value.as_f64().filter(|number| *number > 0.0 && number.fract() != 0.0)?;
        let text = number.to_string();
        let (whole, fraction) = text.split_once('.')?;
        let units = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { units, places: u32::try_from(fraction.len()).ok()? })
    }

    /// True where it divides a decimal; none where the numbers are too long to tell.
    pub(crate) fn divides(self, digits: i128, scale: u32) -> Option<bool> {
        let shared = scale.min(self.places);
        let value = digits.checked_mul(10_i128.checked_pow(self.places - shared)?)?;
        Some(value % self.units.checked_mul(10_i128.checked_pow(scale - shared)?)? == 0)
    }
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

/// Deeper schemas, and longer ways of references, are the crate's.
const DEPTH_MAX: usize = 64;
/// And so is what would make a plan of more nodes: references can name the same schema more often than it could be written.
const NODES_MAX: usize = 1 << 16;
/// Lists with more first items of their own are the crate's.
const PREFIX_MAX: usize = 64;

/// Makes the plan of a contract.
pub(crate) fn plan(document: &Document<'_>) -> Node {
    // What a reference means depends on where it stands, or on the way by which it was reached.
    if document.several_bases() || document.draft == Draft::Unknown || !plain_dynamics(document, document.root) {
        return Node::Crate(String::new());
    }
    // What a schema says about a value that it is just being asked about is the crate's secret; its parts do not add up to it.
    if (Circles { document, known: HashSet::new(), way: Vec::new() }).any(&document.top()) {
        return Node::Crate(String::new());
    }
    let mut planner = Planner { document, following: Vec::new(), left: NODES_MAX };
    planner.node(&document.top()).unwrap_or(Node::Crate(String::new()))
}

/// True where a dynamic reference, if there is one, means what a plain one does: nothing leads out of the document, which has one base.
fn plain_dynamics(document: &Document<'_>, root: &Value) -> bool {
    fn any(value: &Value, is: &impl Fn(&str, &Value) -> bool) -> bool {
        match value {
            Value::Object(members) => members.iter().any(|(key, value)| is(key, value) || any(value, is)),
            Value::Array(items) => items.iter().any(|item| any(item, is)),
            _ => false,
        }
    }
    let dynamic = |key: &str, _: &Value| matches!(key, "$dynamicRef" | "$recursiveRef" | "$dynamicAnchor" | "$recursiveAnchor");
    let leads_out = |key: &str, value: &Value| {
        matches!(key, "$ref" | "$dynamicRef" | "$recursiveRef") && value.as_str().is_some_and(|reference| !reference.starts_with('#'))
    };
    // Only the draft that brought them gives these words a meaning.
    let of_another_draft = |key: &str, _: &Value| match key {
        "$dynamicRef" | "$dynamicAnchor" => document.draft != Draft::Draft202012,
        "$recursiveRef" | "$recursiveAnchor" => document.draft != Draft::Draft201909,
        _ => false,
    };
    !any(root, &dynamic) || !any(root, &leads_out) && !any(root, &of_another_draft)
}

/// Looks for schemas that lead back to themselves on the same value.
struct Circles<'d, 'a> {
    document: &'d Document<'a>,
    /// Schemas that lead to no circle.
    known: HashSet<String>,
    way: Vec<String>,
}

impl<'a> Circles<'_, 'a> {
    /// True where one is below a place.
    fn any(&mut self, place: &Place<'a>) -> bool {
        match place.schema {
            Value::Object(members) => self.closes(place) || members.iter().any(|(key, value)| self.any(&place.child(key, value))),
            Value::Array(items) => items.iter().enumerate().any(|(index, value)| self.any(&place.child(&index.to_string(), value))),
            _ => false,
        }
    }

    /// True where a schema leads to a circle, or too far to tell.
    fn closes(&mut self, place: &Place<'a>) -> bool {
        let Some(members) = place.schema.as_object() else { return false };
        if self.known.contains(&place.pointer) {
            return false;
        }
        if self.way.len() > DEPTH_MAX || self.way.contains(&place.pointer) {
            return true;
        }
        self.way.push(place.pointer.clone());
        let closes = members.iter().any(|(keyword, value)| match keyword.as_str() {
            "allOf" | "anyOf" | "oneOf" => place.list(keyword).iter().any(|part| self.closes(part)),
            "not" | "if" | "then" | "else" => self.closes(&place.child(keyword, value)),
            "dependentSchemas" | "dependencies" => place.named(keyword).iter().any(|(_, part)| self.closes(part)),
            "$ref" | "$dynamicRef" | "$recursiveRef" => {
                value.as_str().and_then(|reference| self.document.follow(reference)).is_some_and(|target| self.closes(&target))
            }
            _ => false,
        });
        self.way.pop();
        if !closes {
            self.known.insert(place.pointer.clone());
        }
        closes
    }
}

struct Planner<'d, 'a> {
    document: &'d Document<'a>,
    /// The schemas on the way here.
    following: Vec<String>,
    /// How many nodes may still be made.
    left: usize,
}

/// What one keyword asks for.
enum Part {
    Nothing,
    Node(Node),
    /// Its schema is the crate's.
    Crate,
    /// The crate has no validator for a part of it.
    Lost,
}

impl From<Option<Node>> for Part {
    fn from(node: Option<Node>) -> Self {
        node.map_or(Part::Lost, Part::Node)
    }
}

/// A node, or the crate in its place.
fn served(node: Option<Node>) -> Part {
    node.map_or(Part::Crate, Part::Node)
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

impl<'a> Planner<'_, 'a> {
    /// The plan of a subschema; none where the crate has no validator for a part of it.
    fn node(&mut self, place: &Place<'a>) -> Option<Node> {
        let document = self.document;
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
        if self.left == 0 || self.following.len() >= DEPTH_MAX || self.following.contains(&place.pointer) {
            return by_crate();
        }
        self.left -= 1;
        self.following.push(place.pointer.clone());
        let mut all = Vec::new();
        let alone = document.ref_stands_alone && members.contains_key("$ref");
        for (keyword, value) in members.iter().filter(|(keyword, _)| !alone || *keyword == "$ref") {
            match self.keyword(place, keyword, value) {
                Part::Nothing => {}
                Part::Node(node) => all.push(Node::Rule(format!("{}/{}", place.pointer, escape(keyword)), Box::new(node))),
                Part::Crate => {
                    self.following.pop();
                    return by_crate();
                }
                Part::Lost => return None,
            }
        }
        self.following.pop();
        // What a kernel does not serve falls to the schema as a whole.
        by_crate()?;
        Some(Node::Schema(place.pointer.clone(), all))
    }

    fn boxed(&mut self, place: &Place<'a>) -> Option<Box<Node>> {
        self.node(place).map(Box::new)
    }

    fn nodes(&mut self, places: &[Place<'a>]) -> Option<Vec<Node>> {
        places.iter().map(|place| self.node(place)).collect()
    }

    fn follow(&mut self, reference: Option<&str>) -> Part {
        match reference.and_then(|reference| self.document.follow(reference)) {
            Some(target) => self.node(&target).into(),
            None => Part::Crate,
        }
    }

    fn keyword(&mut self, place: &Place<'a>, keyword: &str, value: &'a Value) -> Part {
        let document = self.document;
        // Words that a draft does not know are none of its keywords; whoever writes them is answered by the crate.
        let older = match keyword {
            "const" | "exclusiveMinimum" | "exclusiveMaximum" | "contains" | "propertyNames" => document.draft == Draft::Draft4,
            "if" => matches!(document.draft, Draft::Draft4 | Draft::Draft6),
            "dependentRequired" | "dependentSchemas" => document.ref_stands_alone,
            "prefixItems" => document.draft != Draft::Draft202012,
            "additionalItems" => document.draft == Draft::Draft202012,
            _ => false,
        };
        if older {
            return Part::Crate;
        }
        match keyword {
            word if !judges(word) => Part::Nothing,
            "$ref" | "$dynamicRef" => self.follow(value.as_str()),
            "$recursiveRef" => self.follow(value.as_str().filter(|reference| *reference == "#")),
            "allOf" => self.nodes(&place.list(keyword)).map(Node::All).into(),
            "anyOf" => self.nodes(&place.list(keyword)).map(Node::Any).into(),
            "oneOf" => self.nodes(&place.list(keyword)).map(Node::One).into(),
            "not" => self.boxed(&place.child(keyword, value)).map(Node::Not).into(),
            "if" => {
                let mut branch = |name: &str| match place.keyword(name) {
                    Some(branch) => self.node(&branch),
                    None => Some(Node::Always(true)),
                };
                let parts = branch("if").zip(branch("then")).zip(branch("else"));
                parts.map(|((when, then), other)| Node::If(Box::new([when, then, other]))).into()
            }
            "type" => served(Types::of(value).map(Node::Types)),
            "enum" => served(value.as_array().map(|values| Node::Values(Choices::new(values.clone())))),
            "const" => Part::Node(Node::Values(Choices::new(vec![value.clone()]))),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => bound(place, keyword, value),
            "multipleOf" => {
                let whole = value.as_u64().filter(|divisor| *divisor > 0).map(Node::Multiple);
                served(whole.or_else(|| Fraction::of(value).map(Node::Fraction)))
            }
            "minLength" => served(value.as_u64().map(|least| Node::Length(least, u64::MAX))),
            "maxLength" => served(value.as_u64().map(|most| Node::Length(0, most))),
            "pattern" => served(Asked::new(document, keyword, value.clone()).map(Node::Pattern)),
            "format" => {
                let asked = Asked::new(document, keyword, value.clone());
                served(value.as_str().zip(asked).map(|(format, asked)| Node::Format(format.to_owned(), asked)))
            }
            "properties"
            | "required"
            | "dependentRequired"
            | "dependentSchemas"
            | "dependencies"
            | "patternProperties"
            | "additionalProperties"
            | "propertyNames"
            | "minProperties"
            | "maxProperties" => self.of_objects(place, keyword, value),
            "items" | "prefixItems" | "additionalItems" | "contains" | "minItems" | "maxItems" | "uniqueItems" => {
                self.of_lists(place, keyword, value)
            }
            _ => Part::Crate,
        }
    }

    fn of_objects(&mut self, place: &Place<'a>, keyword: &str, value: &'a Value) -> Part {
        match keyword {
            "properties" => {
                let parts =
                    place.named("properties").into_iter().map(|(name, place)| Some(Node::Property(name.to_owned(), self.boxed(&place)?)));
                parts.collect::<Option<Vec<_>>>().map(Node::All).into()
            }
            "required" => served(names(value).map(|names| Node::All(names.into_iter().map(Node::Present).collect()))),
            "dependentRequired" => {
                let of = |members: &Map<String, Value>| {
                    members.iter().map(|(name, others)| Some(Node::Depends(name.clone(), names(others)?))).collect::<Option<Vec<_>>>()
                };
                served(value.as_object().and_then(of).map(Node::All))
            }
            "dependentSchemas" | "dependencies" => {
                let parts = place.named(keyword).into_iter().map(|(name, place)| match place.schema {
                    Value::Array(_) if keyword == "dependencies" => Some(Node::Depends(name.to_owned(), names(place.schema)?)),
                    _ => Some(Node::When(name.to_owned(), self.boxed(&place)?)),
                });
                parts.collect::<Option<Vec<_>>>().map(Node::All).into()
            }
            "patternProperties" => {
                let mut parts = Vec::new();
                for (pattern, place) in place.named(keyword) {
                    let Some(asked) = Asked::new(self.document, "pattern", pattern.into()) else { return Part::Crate };
                    let Some(node) = self.boxed(&place) else { return Part::Lost };
                    parts.push(Node::Matching(asked, node));
                }
                Part::Node(Node::All(parts))
            }
            "additionalProperties" => {
                let named: HashSet<String> = place.named("properties").into_iter().map(|(name, _)| name.to_owned()).collect();
                let patterns = place.named("patternProperties");
                match value {
                    Value::Bool(true) => Part::Nothing,
                    Value::Bool(false) if patterns.is_empty() => Part::Node(Node::Closed(named)),
                    _ => {
                        let asked = patterns.into_iter().map(|(pattern, _)| Asked::new(self.document, "pattern", pattern.into()));
                        let Some(asked) = asked.collect::<Option<Vec<_>>>() else { return Part::Crate };
                        self.boxed(&place.child(keyword, value)).map(|node| Node::Others(named, asked, node)).into()
                    }
                }
            }
            "propertyNames" => {
                let pointer = place.child(keyword, value).pointer;
                match self.document.validators.contains_key(&format!("#{pointer}")) {
                    true => Part::Node(Node::Names(pointer)),
                    false => Part::Lost,
                }
            }
            "minProperties" => served(value.as_u64().map(|least| Node::Size(least, u64::MAX))),
            _ => served(value.as_u64().map(|most| Node::Size(0, most))),
        }
    }

    fn of_lists(&mut self, place: &Place<'a>, keyword: &str, value: &'a Value) -> Part {
        let newest = self.document.draft == Draft::Draft202012;
        match keyword {
            "prefixItems" | "items" if value.is_array() => {
                let places = place.list(keyword);
                if newest != (keyword == "prefixItems") || places.len() > PREFIX_MAX {
                    return Part::Crate;
                }
                self.nodes(&places).map(Node::Prefix).into()
            }
            "items" => {
                let from = if newest { place.list("prefixItems").len() } else { 0 };
                self.boxed(&place.child(keyword, value)).map(|node| Node::Items(from, node)).into()
            }
            "additionalItems" => match place.schema.get("items") {
                Some(Value::Array(first)) => {
                    let from = first.len();
                    self.boxed(&place.child(keyword, value)).map(|node| Node::Items(from, node)).into()
                }
                _ => Part::Nothing,
            },
            "contains" => {
                // The words that say how many are of the later drafts.
                let limit = |word: &str, default: u64| match place.schema.get(word) {
                    Some(value) if !self.document.ref_stands_alone => value.as_u64(),
                    _ => Some(default),
                };
                let Some((least, most)) = limit("minContains", 1).zip(limit("maxContains", u64::MAX)) else { return Part::Crate };
                self.boxed(&place.child(keyword, value)).map(|node| Node::Contains(least, most, node)).into()
            }
            "minItems" => served(value.as_u64().map(|least| Node::Count(least, u64::MAX))),
            "maxItems" => served(value.as_u64().map(|most| Node::Count(0, most))),
            "uniqueItems" => match value {
                Value::Bool(true) => Part::Node(Node::Unique),
                Value::Bool(false) => Part::Nothing,
                _ => Part::Crate,
            },
            _ => Part::Crate,
        }
    }
}

fn bound(place: &Place<'_>, keyword: &str, value: &Value) -> Part {
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
    served(Bound::of(side, value).map(Node::Bound))
}
