//! From a batch to its violations: which rows break the contract, and why.
//!
//! The verdict is the `jsonschema` crate's on the row as JSON; `judge` gets there by columns, and only rows that fail are explained one by one. What a cell is as JSON stands in `json`; which cells a contract sees:
//!
//! - A column is a property of its name. One that the contract does not name is a property too (`additionalProperties` sees it).
//! - A column that the batch lacks is absent from every row: `required` fails, nothing else looks at it.
//! - A null is the JSON `null` where the property's own subschema (under `properties`, through `$ref` and `allOf`) accepts null, else it is
//!   absent. So in a CSV an empty cell of a column of `"type": "integer"` is a missing one, and of `"type": ["integer", "null"]` a null one.
//!   A null of a column that the contract does not name is absent. The same holds for the fields of a struct; a null item of a list is always `null`.
//! - Decimals are numbers, timestamps and binary are text; see `json`.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use ::arrow::{
    array::{Array, RecordBatch},
    buffer::{BooleanBuffer, NullBuffer},
    datatypes::Field,
};
use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::{Map, Value};

use crate::{
    arrow,
    contract::{Contract, reach},
    document::{Document, Place, escape},
    json, judge, kernel,
};

/// No more reasons than this are given for one row.
const VIOLATIONS_PER_ROW_MAX: usize = 8;
/// A value in a message is cut after this many characters.
const VALUE_CHARS_MAX: usize = 80;
/// So many patterns of absent columns keep their row object; more start over.
const SHAPES_MAX: usize = 64;

/// What a check found.
#[derive(Debug)]
pub struct Verdict {
    /// One bit per row, set where the row is valid; none when all are.
    pub valid: Option<BooleanBuffer>,
    /// Why, one or more per invalid row, in row order.
    pub violations: Vec<Violation>,
}

/// One reason why one row is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The row's index in the batch.
    pub row: usize,
    /// The keyword that failed: `minimum`, `required`, …
    pub keyword: String,
    /// The JSON pointer to the value, without the leading slash: a column, or a path inside it. A missing property counts as the place
    /// where it is missing. None for the row as a whole.
    pub column: Option<String>,
    /// What is wrong, in words, lower case.
    pub message: String,
}

impl Contract {
    /// Checks every row of a batch. Columns that the contract does not name count as properties too.
    pub fn check(&self, batch: &RecordBatch) -> Verdict {
        let mut rows = Rows::new(batch, &self.rules);
        let judged = judge::judge(self, &mut rows, batch.num_rows());
        let mut acquitted: Vec<usize> = Vec::new();
        let mut violations = Vec::new();
        for index in (!&judged).set_indices() {
            let row = rows.at(index);
            let before = violations.len();
            violations.extend(self.validator.iter_errors(row).take(VIOLATIONS_PER_ROW_MAX).map(|error| violation(index, &error)));
            // The last word is the crate's.
            if violations.len() == before && self.validator.is_valid(row) {
                acquitted.push(index);
                continue;
            }
            if violations.len() == before {
                // A validator that refuses and cannot say why would otherwise leave a row without a reason.
                let message = "the row breaks the contract".to_owned();
                violations.push(Violation { row: index, keyword: "schema".into(), column: None, message });
            }
        }
        let valid = match &acquitted[..] {
            [] => judged,
            some => BooleanBuffer::collect_bool(batch.num_rows(), |index| judged.value(index) || some.binary_search(&index).is_ok()),
        };
        Verdict { valid: valid.has_false().then_some(valid), violations }
    }
}

/// What the check has to know about a contract besides its validator.
#[derive(Debug)]
pub(crate) struct Rules {
    columns: HashMap<String, Rule>,
    /// The columns that the schema can see; none when it can see all.
    seen: Option<HashSet<String>>,
}

/// How one property's cells are shown.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    /// A null is `null`, not absent.
    pub(crate) null: bool,
    /// Its text is JSON.
    pub(crate) json_text: bool,
    pub(crate) fields: HashMap<String, Rule>,
    pub(crate) items: Option<Box<Rule>>,
}

/// A schema that refers to itself has rules down to this depth.
const DEPTH_MAX: usize = 8;
/// And no more than this many in all.
const RULES_MAX: usize = 4096;
/// References are followed so far; a schema behind more of them may see any column.
const FOLLOWED_MAX: usize = 256;

impl Rules {
    pub(crate) fn new(document: &Document<'_>) -> Self {
        let mut left = RULES_MAX;
        let columns = Rule::of_properties(document, &[document.top()], 0, &mut left);
        let mut seen = HashSet::new();
        let all = !sees(document, &document.top(), &mut seen, &mut HashSet::new());
        Self { columns, seen: (!all).then_some(seen) }
    }

    pub(crate) fn names(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// How a column's cells are shown.
    pub(crate) fn column(&self, name: &str) -> &Rule {
        self.columns.get(name).unwrap_or_else(|| Rule::silent())
    }

    /// True when the schema can see a column.
    pub(crate) fn sees(&self, name: &str) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.contains(name))
    }
}

impl Rule {
    /// The rule of a value that no subschema names: its null fields are absent.
    pub(crate) fn silent() -> &'static Self {
        static SILENT: OnceLock<Rule> = OnceLock::new();
        SILENT.get_or_init(Rule::default)
    }

    /// The rule of a struct's field.
    pub(crate) fn field(&self, name: &str) -> &Self {
        self.fields.get(name).unwrap_or_else(|| Self::silent())
    }

    /// The rule of a list's items.
    pub(crate) fn item(&self) -> &Self {
        self.items.as_deref().unwrap_or_else(|| Self::silent())
    }

    fn of_properties<'a>(document: &Document<'a>, places: &[Place<'a>], depth: usize, left: &mut usize) -> HashMap<String, Self> {
        let facts = reach(document, places);
        let mut rules = HashMap::with_capacity(facts.properties.len());
        for (name, places) in &facts.properties {
            if *left > 0 {
                *left -= 1;
                rules.insert((*name).to_owned(), Self::of(document, places, depth, left));
            }
        }
        rules
    }

    fn of<'a>(document: &Document<'a>, places: &[Place<'a>], depth: usize, left: &mut usize) -> Self {
        let deeper = depth < DEPTH_MAX;
        let items = if deeper { reach(document, places).items } else { vec![] };
        Self {
            null: document.accepts_null(places),
            json_text: arrow::column(document, "", places, false).ok().flatten().is_some_and(|field| arrow::is_json_text(&field)),
            fields: if deeper { Self::of_properties(document, places, depth + 1, left) } else { HashMap::new() },
            items: (!items.is_empty()).then(|| Box::new(Self::of(document, &items, depth + 1, left))),
        }
    }
}

/// Notes the properties of the row that a subschema of it looks at. False when it may look at any.
fn sees<'a>(document: &Document<'a>, place: &Place<'a>, seen: &mut HashSet<String>, followed: &mut HashSet<String>) -> bool {
    let Some(members) = place.schema.as_object() else { return true };
    members.iter().all(|(keyword, schema)| match keyword.as_str() {
        "type" => true,
        word if !kernel::judges(word) && !matches!(word, "then" | "else") => true,
        "properties" => {
            seen.extend(schema.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
            true
        }
        "required" => {
            seen.extend(schema.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            true
        }
        "dependentRequired" => {
            for (name, others) in schema.as_object().into_iter().flatten() {
                seen.insert(name.clone());
                seen.extend(others.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            }
            true
        }
        "additionalProperties" | "unevaluatedProperties" => schema == &Value::Bool(true),
        "allOf" | "anyOf" | "oneOf" => place.list(keyword).iter().all(|part| sees(document, part, seen, followed)),
        "if" | "then" | "else" | "not" => sees(document, &place.child(keyword, schema), seen, followed),
        "$ref" => match schema.as_str().and_then(|reference| document.follow(reference)) {
            Some(_) if followed.len() >= FOLLOWED_MAX => false,
            Some(target) => !followed.insert(target.pointer.clone()) || sees(document, &target, seen, followed),
            None => false,
        },
        _ => false,
    })
}

/// One column of a batch as the contract sees it.
#[derive(Clone)]
pub(crate) struct Column<'a> {
    pub(crate) field: &'a Field,
    pub(crate) array: &'a dyn Array,
    pub(crate) rule: &'a Rule,
    /// Where a null means that the property is absent; none when it never does.
    pub(crate) absent: Option<NullBuffer>,
}

/// The rows of a batch as JSON, one at a time in an object that is used again.
pub(crate) struct Rows<'a> {
    columns: Vec<Column<'a>>,
    /// One object per pattern of present columns, so that a value is put in its place without a look-up by name.
    shapes: HashMap<Vec<bool>, Value>,
    present: Vec<bool>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(batch: &'a RecordBatch, rules: &'a Rules) -> Self {
        let mut names = HashSet::new();
        let fields = batch.schema_ref().fields();
        let mut columns = Vec::with_capacity(fields.len());
        for (field, array) in fields.iter().zip(batch.columns()) {
            let name = field.name();
            if !rules.sees(name) || !names.insert(name) {
                continue;
            }
            let rule = rules.column(name);
            let absent = if rule.null { None } else { array.logical_nulls().filter(|nulls| nulls.null_count() > 0) };
            columns.push(Column { field, array, rule, absent });
        }
        // The objects keep the order of insertion or of names; sorted columns are right for both.
        columns.sort_by(|a, b| a.field.name().cmp(b.field.name()));
        Self { columns, shapes: HashMap::new(), present: Vec::new() }
    }

    /// The columns that the contract can see, in the order of their names.
    pub(crate) fn columns(&self) -> &[Column<'a>] {
        &self.columns
    }

    /// One row as the contract sees it.
    pub(crate) fn at(&mut self, row: usize) -> &Value {
        let Self { columns, shapes, present } = self;
        present.clear();
        present.extend(columns.iter().map(|column| column.absent.as_ref().is_none_or(|nulls| nulls.is_valid(row))));
        if shapes.len() >= SHAPES_MAX && !shapes.contains_key(present) {
            shapes.clear();
        }
        if !shapes.contains_key(present) {
            let there = columns.iter().zip(present.iter()).filter(|(_, there)| **there);
            let object: Map<String, Value> = there.map(|(column, _)| (column.field.name().clone(), Value::Null)).collect();
            shapes.insert(present.clone(), Value::Object(object));
        }
        let shape = shapes.get_mut(present).expect("put there above");
        let object = shape.as_object_mut().expect("shapes are objects");
        let there = columns.iter().zip(present.iter()).filter_map(|(column, there)| there.then_some(column));
        for (column, slot) in there.zip(object.values_mut()) {
            json::fill(column.field, column.array, row, Some(column.rule), slot);
        }
        shape
    }
}

fn violation(row: usize, error: &ValidationError<'_>) -> Violation {
    let mut pointer = error.instance_path().as_str().to_owned();
    if let ValidationErrorKind::Required { property: Value::String(name) } = error.kind() {
        pointer = format!("{pointer}/{}", escape(name));
    }
    let column = pointer.strip_prefix('/').map(str::to_owned);
    Violation { row, keyword: error.kind().keyword().to_owned(), column, message: words(error) }
}

/// Says what is wrong with a value, in a few words.
pub(crate) fn words(error: &ValidationError<'_>) -> String {
    let names = |names: &[String]| cut(names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "));
    // What is said of a row as a whole does not spell it.
    match error.kind() {
        ValidationErrorKind::Required { property } => return format!("{property} is missing"),
        ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            return format!("{} is not in the contract", names(unexpected));
        }
        _ => {}
    }
    let value = cut(error.instance().to_string());
    match error.kind() {
        ValidationErrorKind::Minimum { limit } => format!("{value} is less than {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("{value} is more than {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("{value} is not more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("{value} is not less than {limit}"),
        ValidationErrorKind::MultipleOf { multiple_of } => format!("{value} is not a multiple of {multiple_of}"),
        ValidationErrorKind::MinLength { limit } => format!("{value} is shorter than {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("{value} is longer than {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("{value} has fewer than {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("{value} has more than {limit} items"),
        ValidationErrorKind::Pattern { pattern } => format!("{value} does not match {}", cut(Value::from(pattern.as_str()).to_string())),
        ValidationErrorKind::Format { format } => format!("{value} is not a \"{format}\""),
        ValidationErrorKind::Enum { options } => format!("{value} is not one of {}", cut(options.to_string())),
        ValidationErrorKind::Constant { expected_value } => format!("{value} is not {}", cut(expected_value.to_string())),
        ValidationErrorKind::Type { kind: jsonschema::error::TypeKind::Single(kind) } => format!("{value} is not of type \"{kind}\""),
        ValidationErrorKind::AnyOf { .. } => format!("{value} fits none of the forms of \"anyOf\""),
        ValidationErrorKind::OneOfNotValid { .. } => format!("{value} fits none of the forms of \"oneOf\""),
        ValidationErrorKind::OneOfMultipleValid { .. } => format!("{value} fits more than one of the forms of \"oneOf\""),
        ValidationErrorKind::Not { .. } => format!("{value} fits what \"not\" forbids"),
        ValidationErrorKind::FalseSchema => format!("{value} is not allowed here"),
        ValidationErrorKind::UniqueItems => format!("{value} has an item twice"),
        _ => error.masked_with(value).to_string(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
