//! A contract: a JSON Schema that every row of a step must satisfy, compiled once. What its columns are as Arrow types is `arrow`'s,
//! which rows break it is `check`'s.
//!
//! Drafts 4, 6, 7, 2019-09 and 2020-12 are told apart by `$schema`; without one it is 2020-12. A contract is one file: `$ref` reaches
//! inside it and nowhere else, and nothing is fetched. `format` is asserted.

use std::{ops::Range, sync::Arc};

use ::arrow::datatypes::{Schema, SchemaRef};
use jsonschema::{Draft, Validator, ValidatorMap, error::ValidationErrorKind};
use serde_json::Value;

use crate::{
    arrow::{self, Facts},
    check::{self, Rules},
    document::{Document, Place, offset_of, offset_of_line, span_of},
    kernel, personal,
    version::{self, Version},
};

/// A compiled contract. A clone shares what is costly to make.
#[derive(Debug, Clone)]
pub struct Contract {
    path: String,
    version: Option<Version>,
    text: Arc<str>,
    pub(crate) root: Arc<Value>,
    pub(crate) draft: Draft,
    columns: SchemaRef,
    pub(crate) validator: Arc<Validator>,
    /// Of every subschema, by `#` and JSON pointer.
    pub(crate) validators: Arc<ValidatorMap>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) plan: kernel::Node,
    /// A pattern of it needs an engine that can give up.
    pub(crate) backtracks: bool,
}

/// Why a text is not a contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ContractError {
    /// One line, lower case, no full stop.
    pub message: String,
    /// The byte offset in the text, where it is known.
    pub offset: Option<usize>,
    /// What to do.
    pub help: Option<String>,
}

impl Contract {
    /// Compiles a JSON Schema text. `path` is what messages call it. Fails on a text that is not JSON, a JSON that is not a schema of its draft,
    /// a reference out of the file, a version that is none, and a schema that is not about objects or can never hold.
    pub fn compile(path: &str, text: &str) -> Result<Self, ContractError> {
        let schema: Value = serde_json::from_str(text).map_err(|error| {
            let what = error.to_string();
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            ContractError {
                message: format!("not JSON: {what}"),
                offset: Some(offset_of_line(text, error.line(), error.column())),
                help: Some("a contract is a JSON Schema: one JSON object".into()),
            }
        })?;
        about_objects(&schema).map_err(|error| ContractError { offset: offset_of(text, ""), ..error })?;
        let at_version = |error| ContractError { offset: offset_of(text, &format!("/{}", version::KEY)), ..error };
        let version = version::read(&schema).map_err(at_version)?;
        personal::check(&schema).map_err(|(pointer, error)| ContractError { offset: offset_of(text, &pointer), ..error })?;
        let options = jsonschema::options().offline().should_validate_formats(true);
        let fail = |error: jsonschema::ValidationError<'_>| schema_error(text, &error);
        let validator = options.build(&schema).map_err(fail)?;
        let validators = options.build_map(&schema).map_err(fail)?;
        let document = Document::new(&schema, &validators);
        let facts = Facts::gather(&document, &[document.top()]);
        let mut columns = Vec::with_capacity(facts.properties.len());
        for (name, places) in &facts.properties {
            let column = arrow::column(&document, name, places, facts.requires(name)).map_err(|problem| ContractError {
                message: problem.message,
                offset: offset_of(text, &problem.pointer),
                help: Some(problem.help),
            })?;
            columns.extend(column);
        }
        let (rules, plan, draft) = (check::Rules::new(&document), kernel::plan(&document), document.draft);
        let (columns, backtracks) = (Arc::new(Schema::new(columns)), kernel::backtracks(&schema));
        let (path, text, root, rules) = (path.to_owned(), text.into(), Arc::new(schema), Arc::new(rules));
        let (validator, validators) = (Arc::new(validator), Arc::new(validators));
        Ok(Self { path, version, text, root, draft, columns, validator, validators, rules, plan, backtracks })
    }

    /// What messages call it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The version it says it is of: its `x-weir-version`.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// True of a column that it names as a property, whether or not it says its type.
    pub fn declares(&self, column: &str) -> bool {
        self.rules.names(column) || self.columns.index_of(column).is_ok()
    }

    /// The bytes of its text that hold what a JSON pointer names: the key and its value where it is a member of an object. All of the text
    /// for a pointer that names nothing.
    pub fn span(&self, pointer: &str) -> Range<usize> {
        span_of(&self.text, pointer).unwrap_or(0..self.text.len())
    }

    /// The columns it declares, in the order of `properties`, each with its Arrow type; nullable unless required and not null.
    /// A property whose type the schema leaves open is not among them: the reader infers it.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }
}

/// Refuses a schema that no row can satisfy by its type, and one that says nothing about rows.
fn about_objects(schema: &Value) -> Result<(), ContractError> {
    const OF_OBJECTS: &[&str] = &[
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
    ];
    let refuse = |message: String| {
        let help = Some("a row is an object: give the root \"type\": \"object\" and its columns as \"properties\"".into());
        Err(ContractError { message, offset: None, help })
    };
    let Some(members) = schema.as_object() else {
        return refuse("a contract is a JSON object that describes a row".into());
    };
    match members.get("type") {
        Some(Value::String(word)) if word != "object" => refuse(format!("the contract is about \"{word}\", not about a row")),
        Some(Value::Array(words)) if !words.iter().any(|word| word == "object") => refuse("the contract is not about a row".into()),
        Some(_) => Ok(()),
        None if OF_OBJECTS.iter().any(|keyword| members.contains_key(*keyword)) => Ok(()),
        None => refuse("the contract says nothing about a row".into()),
    }
}

/// Says what the `jsonschema` crate finds wrong with a schema, and where.
fn schema_error(text: &str, error: &jsonschema::ValidationError<'_>) -> ContractError {
    let pointer = error.instance_path().as_str();
    if let ValidationErrorKind::Referencing(error) = error.kind() {
        return ContractError {
            message: format!("a reference leads nowhere: {error}"),
            offset: None,
            help: Some("a contract is one file and nothing is fetched: put what it refers to under \"$defs\"".into()),
        };
    }
    let place = if pointer.is_empty() { String::new() } else { format!(" at \"{pointer}\"") };
    ContractError { message: format!("not a JSON Schema: {}{place}", check::words(error)), offset: offset_of(text, pointer), help: None }
}

/// The subschemas that apply to one property, followed through references, `allOf`, `anyOf` and `oneOf`.
pub(crate) fn reach<'a>(document: &Document<'a>, places: &[Place<'a>]) -> Facts<'a> {
    let mut all = places.to_vec();
    let mut facts = Facts::gather(document, &all);
    // Each round adds the branches of the lists found so far; a cycle adds nothing new and ends it.
    loop {
        let known = all.len();
        for branch in facts.forms.iter().flatten() {
            if !all.iter().any(|place| place.pointer == branch.pointer) {
                all.push(branch.clone());
            }
        }
        if all.len() == known {
            return facts;
        }
        facts = Facts::gather(document, &all);
    }
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
