//! Two contracts side by side: is every row that was valid still valid, do columns keep their types, and what exactly changed.
//!
//! The verdict on rows is the `jsonschema` crate's: whether the schema of what comes after covers that of what came before. It is proved or
//! it is not; where the crate can prove neither, the answer is that it cannot be told. Each change is then judged in the same way, by the
//! rule that is new against all that applied to the value before, so that every reason names one rule and its place.

use std::collections::HashSet;

use ::arrow::datatypes::{Field, SchemaRef};
use jsonschema::canonical::{self, CanonicalSchema, Containment};
use serde_json::{Map, Value, json};

use crate::{
    contract::{Contract, reach},
    document::{Document, Place, escape, offset_of},
    version::{Size, Version},
    words::{self, Named},
};

/// What becomes of rows that were valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All of them still are.
    Compatible,
    /// Whether all of them still are cannot be told. Counts as breaking.
    Unknown,
    /// Some of them are not.
    Breaking,
}

impl Verdict {
    /// The word for people and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compatible => "compatible",
            Self::Unknown => "cannot tell",
            Self::Breaking => "breaking",
        }
    }

    fn of(containment: Containment) -> Self {
        match containment {
            Containment::Yes => Self::Compatible,
            Containment::No => Self::Breaking,
            Containment::Unknown => Self::Unknown,
        }
    }
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it does to rows that were valid, or to the columns of destinations.
    pub verdict: Verdict,
    /// The value concerned, as a JSON pointer into a row; empty for the row itself.
    pub pointer: String,
    /// The keyword that changed; `column` where it is the column's type.
    pub keyword: String,
    /// What changed, in words.
    pub message: String,
    /// Where it stands in the text before, where it does.
    pub before: Option<usize>,
    /// Where it stands in the text after, where it does.
    pub after: Option<usize>,
}

/// Whether the version's number fits the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The version before.
    pub before: Version,
    /// The version after.
    pub after: Version,
    /// The least that fits.
    pub least: Version,
}

impl Numbers {
    /// True where the number is large enough.
    pub fn fit(&self) -> bool {
        self.after >= self.least
    }
}

/// What lies between two contracts.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The worst of rows and columns.
    pub verdict: Verdict,
    /// What became of rows that were valid.
    pub rows: Verdict,
    /// What changed, what breaks first.
    pub changes: Vec<Change>,
    /// The schema of the rows that were valid and are not, where it can be written.
    pub refused: Option<Value>,
    /// How the numbers of the versions fit, where both have one.
    pub numbers: Option<Numbers>,
}

/// A contract and the text it was compiled from.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Compiled from `text`.
    pub contract: &'a Contract,
    /// The text.
    pub text: &'a str,
}

/// Compares two contracts. With `closed`, rows are taken to have had no columns but those that the contract before names.
pub fn diff(before: Side<'_>, after: Side<'_>, closed: bool) -> Diff {
    let parse = |side: Side<'_>| -> Value { serde_json::from_str(side.text).expect("a compiled contract is JSON") };
    let (old, new) = (parse(before), parse(after));
    let (a, b) = (Document::new(&old, &before.contract.validators), Document::new(&new, &after.contract.validators));
    let mut walk = Walk { before: &a, after: &b, texts: (before.text, after.text), closed, changes: Vec::new(), followed: HashSet::new() };
    walk.level(&[a.top()], &[b.top()], "");
    let mut changes = walk.changes;
    let (rows, refused) = match closed {
        true => verdict(&close(&old, &a), &new),
        false => verdict(&old, &new),
    };
    match rows {
        // What one rule refuses, another had refused before.
        Verdict::Compatible => changes.iter_mut().for_each(|change| change.verdict = Verdict::Compatible),
        worse if changes.iter().all(|change| change.verdict < worse) => {
            let message = match worse {
                Verdict::Breaking => "some rows that were valid are not any more".to_owned(),
                _ => "cannot tell whether every row that was valid still is".to_owned(),
            };
            changes.push(Change { verdict: worse, pointer: String::new(), keyword: "schema".into(), message, before: None, after: None });
        }
        _ => {}
    }
    changes.extend(nulls(&a, &b, closed));
    changes.extend(columns(before, after, &a, &b));
    changes.sort_by_key(|change| (std::cmp::Reverse(change.verdict), change.after.or(change.before)));
    let verdict = changes.iter().map(|change| change.verdict).max().unwrap_or(Verdict::Compatible);
    let size = match verdict {
        Verdict::Breaking | Verdict::Unknown => Size::Break,
        Verdict::Compatible if changes.is_empty() => Size::Nothing,
        Verdict::Compatible => Size::Addition,
    };
    let versions = before.contract.version().zip(after.contract.version());
    let numbers = versions.map(|(before, after)| Numbers { before, after, least: before.least_after(size) });
    let rows = changes.iter().filter(|change| change.keyword != "column").map(|change| change.verdict).max().unwrap_or(rows);
    Diff { verdict, rows, changes, refused, numbers }
}

/// The same schema for rows that have no columns but those it names.
fn close(schema: &Value, document: &Document<'_>) -> Value {
    let mut schema = schema.clone();
    let named = reach(document, &[document.top()]).properties;
    let Some(members) = schema.as_object_mut() else { return schema };
    let spread = ["$ref", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "dependentSchemas", "dependencies", "$dynamicRef"];
    let open = members.get("additionalProperties").is_none_or(|value| value == &Value::Bool(true) || value == &json!({}));
    if !spread.iter().any(|word| members.contains_key(*word)) && open {
        members.insert("additionalProperties".into(), Value::Bool(false));
    } else if !members.contains_key("propertyNames") && !members.contains_key("patternProperties") {
        members.insert("propertyNames".into(), json!({ "enum": named.iter().map(|(name, _)| *name).collect::<Vec<_>>() }));
    }
    schema
}

fn canonical(schema: &Value) -> Option<CanonicalSchema> {
    canonical::options().offline().should_validate_formats(true).canonicalize(schema).ok()
}

/// The verdict on rows, and the schema of those that are refused.
fn verdict(before: &Value, after: &Value) -> (Verdict, Option<Value>) {
    if before == after {
        return (Verdict::Compatible, None);
    }
    let (Some(old), Some(new)) = (canonical(before), canonical(after)) else { return (Verdict::Unknown, None) };
    let verdict = new.covers(&old).map_or(Verdict::Unknown, Verdict::of);
    let refused = match verdict {
        Verdict::Compatible => None,
        _ => old.subtract(&new).ok().map(|difference| difference.to_json_schema()),
    };
    (verdict, refused)
}

/// Where a schema of our own stands while it is judged, so that references in it still lead where they led.
const JUDGED: &str = "weir-judged";

/// A part of a document on its own: all of `parts` apply.
fn part(document: &Document<'_>, parts: &[Value]) -> Option<CanonicalSchema> {
    let mut root = document.root.clone();
    let table = if document.ref_stands_alone { "definitions" } else { "$defs" };
    let members = root.as_object_mut()?;
    let defs = members.entry(table).or_insert_with(|| json!({})).as_object_mut()?;
    defs.insert(JUDGED.into(), json!({ "allOf": parts }));
    let options = canonical::options().offline().should_validate_formats(true);
    options.prepare(&root).ok()?.canonicalize_at(&format!("/{table}/{JUDGED}")).ok()
}

/// Keywords that mean something together.
const TOGETHER: &[&[&str]] = &[
    &["properties", "patternProperties", "additionalProperties"],
    &["prefixItems", "items", "additionalItems"],
    &["contains", "minContains", "maxContains"],
    &["if", "then", "else"],
];

/// Keywords that say nothing about what is valid.
const SILENT: &[&str] = &[
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$ref",
    "allOf",
    "properties",
];

/// One keyword of one of the subschemas that apply to a value.
struct Rule<'a> {
    keyword: &'a str,
    value: &'a Value,
    /// The subschema it stands in.
    owner: Place<'a>,
}

impl Rule<'_> {
    /// The keyword with those that it means something together with.
    fn alone(&self) -> Value {
        let group = TOGETHER.iter().find(|group| group.contains(&self.keyword)).copied().unwrap_or_default();
        // Properties judge themselves, and here only keep their names out of the reach of the others.
        let members = self.owner.schema.as_object().into_iter().flatten();
        let schema: Map<String, Value> = members
            .filter(|(keyword, _)| *keyword == self.keyword || group.contains(&keyword.as_str()))
            .map(|(keyword, value)| match (keyword.as_str(), value) {
                ("properties", Value::Object(names)) => {
                    (keyword.clone(), names.keys().map(|name| (name.clone(), Value::Bool(true))).collect())
                }
                _ => (keyword.clone(), value.clone()),
            })
            .collect();
        Value::Object(schema)
    }

    fn pointer(&self) -> String {
        self.owner.child(self.keyword, self.value).pointer
    }
}

/// The rules that apply to a value, references and `allOf` followed.
fn rules<'a>(document: &Document<'a>, places: &[Place<'a>]) -> Vec<Rule<'a>> {
    let (mut all, mut rest, mut seen) = (Vec::new(), places.to_vec(), HashSet::new());
    while let Some(place) = rest.pop() {
        if !seen.insert(place.pointer.clone()) {
            continue;
        }
        let Some(members) = place.schema.as_object() else { continue };
        let reference = members.get("$ref").and_then(Value::as_str).and_then(|reference| document.follow(reference));
        let alone = document.ref_stands_alone && members.contains_key("$ref");
        rest.extend(reference);
        if alone {
            continue;
        }
        rest.extend(place.list("allOf"));
        for (keyword, value) in members.iter().filter(|(keyword, _)| !SILENT.contains(&keyword.as_str()) && !keyword.starts_with("x-")) {
            all.push(Rule { keyword, value, owner: place.clone() });
        }
    }
    all
}

struct Walk<'a, 'd> {
    before: &'d Document<'a>,
    after: &'d Document<'a>,
    texts: (&'d str, &'d str),
    closed: bool,
    changes: Vec<Change>,
    followed: HashSet<String>,
}

impl<'a> Walk<'a, '_> {
    fn judge(&self, before: &[Place<'a>], rule: Value) -> Verdict {
        let mut parts: Vec<Value> = before.iter().map(|place| place.schema.clone()).collect();
        if parts.is_empty() {
            parts.push(Value::Bool(true));
        }
        let (Some(old), Some(new)) = (part(self.before, &parts), part(self.after, &[rule])) else { return Verdict::Unknown };
        new.covers(&old).map_or(Verdict::Unknown, Verdict::of)
    }

    fn offset(&self, pointer: &str, after: bool) -> Option<usize> {
        offset_of(if after { self.texts.1 } else { self.texts.0 }, pointer)
    }

    /// Compares what applies to one value before and after.
    fn level(&mut self, before: &[Place<'a>], after: &[Place<'a>], pointer: &str) {
        // A schema that refers to itself is the whole verdict's to judge.
        if self.followed.len() >= LEVELS_MAX || pointer.matches('/').count() > DEPTH_MAX || !self.followed.insert(pointer.to_owned()) {
            return;
        }
        if let Some(place) = after.iter().find(|place| place.schema == &Value::Bool(false))
            && !before.iter().any(|place| place.schema == &Value::Bool(false))
        {
            let message = format!("{} is not allowed any more", Named(pointer));
            let (before, after) = (before.first().map(|place| place.pointer.clone()), place.pointer.clone());
            self.add(Verdict::Breaking, pointer, "false", message, before, Some(after));
        }
        let (old, new) = (rules(self.before, before), rules(self.after, after));
        for rule in &new {
            let alone = rule.alone();
            // A rule that looks the same may refer to what is not.
            if old.iter().any(|known| known.keyword == rule.keyword && known.alone() == alone) && !self.leads_elsewhere(&alone) {
                continue;
            }
            let verdict = self.judge(before, alone);
            let was = old.iter().find(|known| known.keyword == rule.keyword);
            let message = words::changed(pointer, rule.keyword, was.map(|rule| rule.value), Some(rule.value));
            let stood = was.map(Rule::pointer).or_else(|| before.first().map(|place| place.pointer.clone()));
            self.add(verdict, pointer, rule.keyword, message, stood, Some(rule.pointer()));
        }
        for rule in old.iter().filter(|rule| !new.iter().any(|other| other.keyword == rule.keyword)) {
            // Gone: whatever it refused is free now. That is no loss, whatever the others say.
            let message = words::changed(pointer, rule.keyword, Some(rule.value), None);
            let stands = after.first().map(|place| place.pointer.clone());
            self.add(Verdict::Compatible, pointer, rule.keyword, message, Some(rule.pointer()), stands);
        }
        self.properties(before, after, pointer);
    }

    fn properties(&mut self, before: &[Place<'a>], after: &[Place<'a>], pointer: &str) {
        let (old, new) = (own_properties(self.before, before), own_properties(self.after, after));
        for (name, places) in &new {
            let inner = format!("{pointer}/{}", escape(name));
            match old.iter().find(|(known, _)| known == name) {
                Some((_, was)) => self.level(was, places, &inner),
                None => {
                    // What a property had to be while nobody named it.
                    let others: Vec<Rule<'a>> = rules(self.before, before);
                    let patterns = others.iter().any(|rule| matches!(rule.keyword, "patternProperties" | "propertyNames"));
                    let others = others.iter().filter(|rule| rule.keyword == "additionalProperties");
                    let mut free: Vec<Place<'a>> = others.map(|rule| rule.owner.child(rule.keyword, rule.value)).collect();
                    if self.closed && pointer.is_empty() {
                        free.push(Place { pointer: String::new(), schema: &REFUSED });
                    }
                    let all = json!({ "allOf": places.iter().map(|place| place.schema.clone()).collect::<Vec<_>>() });
                    let verdict = match self.judge(&free, all) {
                        Verdict::Breaking if patterns => Verdict::Unknown,
                        verdict => verdict,
                    };
                    let refused = free.iter().any(|place| place.schema == &Value::Bool(false));
                    let message = words::declared(&inner, verdict, refused);
                    self.add(verdict, &inner, "properties", message, None, places.first().map(|place| place.pointer.clone()));
                }
            }
        }
        for (name, was) in old.iter().filter(|(name, _)| !new.iter().any(|(known, _)| known == name)) {
            let inner = format!("{pointer}/{}", escape(name));
            let others: Vec<Rule<'a>> = rules(self.after, after);
            let refused = others.iter().filter(|rule| rule.keyword == "additionalProperties");
            let refused: Vec<&Rule<'a>> = refused.filter(|rule| rule.value != &Value::Bool(true)).collect();
            let verdict = refused.iter().map(|rule| self.judge(was, rule.value.clone())).max().unwrap_or(Verdict::Compatible);
            let message = words::forgotten(&inner, verdict);
            let stands = refused.first().map(|rule| rule.pointer());
            self.add(verdict, &inner, "properties", message, was.first().map(|place| place.pointer.clone()), stands);
        }
    }

    /// True where a rule has references in it, and the two documents do not agree on what they may lead to.
    fn leads_elsewhere(&self, rule: &Value) -> bool {
        refers(rule) && self.before.root != self.after.root
    }

    fn add(&mut self, verdict: Verdict, pointer: &str, keyword: &str, message: String, before: Option<String>, after: Option<String>) {
        let (before, after) =
            (before.and_then(|pointer| self.offset(&pointer, false)), after.and_then(|pointer| self.offset(&pointer, true)));
        // What only looks different is no change.
        if message.is_empty() {
            return;
        }
        self.changes.push(Change { verdict, pointer: pointer.to_owned(), keyword: keyword.to_owned(), message, before, after });
    }
}

/// The schema of nothing.
static REFUSED: Value = Value::Bool(false);
/// Values compared, at most; beyond, only the whole verdict speaks.
const LEVELS_MAX: usize = 1024;
/// And values nested deeper than this.
const DEPTH_MAX: usize = 8;

/// The properties that the rules of a value name, each with its subschemas.
fn own_properties<'a>(document: &Document<'a>, places: &[Place<'a>]) -> Vec<(&'a str, Vec<Place<'a>>)> {
    crate::arrow::Facts::gather(document, places).properties
}

fn refers(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().any(|(key, value)| matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") || refers(value))
        }
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

/// Row keywords under which it makes no difference whether a property is there and null, or not there.
const BLIND: &[&str] = &["properties", "required", "type", "additionalProperties", "minProperties"];

/// Where a null turns from a missing value into `null`, or back, and a rule can see it.
fn nulls<'a>(before: &Document<'a>, after: &Document<'a>, closed: bool) -> Vec<Change> {
    let of = |document: &Document<'a>| reach(document, &[document.top()]);
    let (old, new) = (of(before), of(after));
    let others: Vec<String> = rules(after, &[after.top()])
        .iter()
        .map(|rule| rule.keyword.to_owned())
        .filter(|keyword| !BLIND.contains(&keyword.as_str()))
        .collect();
    let lengths = rules(after, &[after.top()]).iter().any(|rule| rule.keyword == "minProperties");
    let mut changes = Vec::new();
    let mut names: Vec<&str> = old.properties.iter().chain(&new.properties).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let null = |document: &Document<'a>, facts: &crate::arrow::Facts<'a>| {
            facts.properties.iter().find(|(known, _)| *known == name).is_some_and(|(_, places)| document.accepts_null(places))
        };
        let was_named = old.properties.iter().any(|(known, _)| *known == name);
        let seen = match (null(before, &old), null(after, &new)) {
            (false, true) if closed && !was_named => false,
            (false, true) => !others.is_empty(),
            (true, false) => !others.is_empty() || lengths || new.requires(name),
            _ => false,
        };
        if seen {
            changes.push(Change {
                verdict: Verdict::Unknown,
                pointer: format!("/{}", escape(name)),
                keyword: "type".into(),
                message: format!("a null of \"{name}\" is no longer what it was (missing or null), and other rules may see it"),
                before: None,
                after: None,
            });
        }
    }
    changes
}

/// How the columns of destinations change.
fn columns<'a>(before: Side<'_>, after: Side<'_>, old: &Document<'a>, new: &Document<'a>) -> Vec<Change> {
    let place = |document: &Document<'a>, name: &str| -> Option<String> {
        let facts = reach(document, &[document.top()]);
        let (_, places) = facts.properties.into_iter().find(|(known, _)| *known == name)?;
        Some(places.first()?.pointer.clone())
    };
    let named = |document: &Document<'a>, name: &str| reach(document, &[document.top()]).properties.iter().any(|(known, _)| *known == name);
    let find = |schema: &SchemaRef, name: &str| schema.field_with_name(name).ok().cloned();
    let mut changes = Vec::new();
    let mut add = |name: &str, verdict, message: String| {
        changes.push(Change {
            verdict,
            pointer: format!("/{}", escape(name)),
            keyword: "column".into(),
            message,
            before: place(old, name).and_then(|pointer| offset_of(before.text, &pointer)),
            after: place(new, name).and_then(|pointer| offset_of(after.text, &pointer)),
        });
    };
    for field in before.contract.columns().fields() {
        let name = field.name();
        match find(after.contract.columns(), name) {
            Some(other) if *field.data_type() != *other.data_type() || field.metadata() != other.metadata() => {
                add(name, Verdict::Breaking, format!("the column \"{name}\" was {} and is {}", shown(field), shown(&other)));
            }
            Some(other) if !field.is_nullable() && other.is_nullable() => {
                add(name, Verdict::Compatible, format!("the column \"{name}\" may be null now"));
            }
            Some(_) => {}
            None if named(new, name) => {
                add(name, Verdict::Breaking, format!("the column \"{name}\" was {} and has no declared type now", shown(field)));
            }
            None => add(name, Verdict::Breaking, format!("the column \"{name}\" ({}) is not declared any more", shown(field))),
        }
    }
    for field in after.contract.columns().fields() {
        let name = field.name();
        if find(before.contract.columns(), name).is_none() {
            let was = if named(old, name) { "had no declared type" } else { "is new" };
            add(name, Verdict::Compatible, format!("the column \"{name}\" ({}) {was}", shown(field)));
        }
    }
    changes
}

fn shown(field: &Field) -> String {
    if crate::arrow::is_json_text(field) { "JSON text".to_owned() } else { field.data_type().to_string() }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
