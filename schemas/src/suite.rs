//! Does every case of the official test suite get the `jsonschema` crate's verdict through Arrow? Where the suite comes from: `suite/README.md`.
//!
//! A case's data becomes a row of its own where it is an object, and a column `v` of a contract that has the case's schema under `properties`:
//! once in a type of its own, once as JSON text, alone and side by side with the other cases of the schema. The referee is the crate on the data as the suite has it.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use ::arrow::{array::RecordBatch, datatypes::Field};
use jsonschema::{Draft, Retrieve, Uri, Validator};
use serde_json::{Map, Value, json};

use crate::{
    check::Rows,
    contract::Contract,
    judge::judge,
    typed::{batch_of, batch_of_rows, column, json_field, json_texts},
};

const DRAFTS: [(&str, &str, Draft); 5] = [
    ("draft4", "http://json-schema.org/draft-04/schema#", Draft::Draft4),
    ("draft6", "http://json-schema.org/draft-06/schema#", Draft::Draft6),
    ("draft7", "http://json-schema.org/draft-07/schema#", Draft::Draft7),
    ("draft2019-09", "https://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema", Draft::Draft202012),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suite")
}

/// The files of a draft, by their path in its folder.
fn files(draft: &str) -> Vec<(String, Value)> {
    let mut found = vec![];
    for below in ["", "optional", "optional/format"] {
        let folder = folder().join(draft).join(below);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|ext| ext == "json")) {
            let name = path.strip_prefix(self::folder()).expect("below").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a file of the suite");
            found.push((name, serde_json::from_str(&text).expect("JSON")));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Gives out what some of the suite's schemas refer to.
struct Remotes;

impl Retrieve for Remotes {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let path = uri.as_str().strip_prefix("http://localhost:1234/").ok_or("not a document of the suite")?;
        Ok(serde_json::from_str(&fs::read_to_string(folder().join("remotes").join(path))?)?)
    }
}

/// The crate's validator of a schema as the suite has it, as contracts build theirs.
fn referee(schema: &Value, draft: Draft) -> Option<Validator> {
    let options = jsonschema::options().offline().should_validate_formats(true);
    // A schema that names a draft is of that one.
    let options = if schema.get("$schema").is_some() { options } else { options.with_draft(draft) };
    options.build(schema).ok()
}

fn builds_with_remotes(schema: &Value, draft: Draft) -> bool {
    let options = jsonschema::options().with_retriever(Remotes).should_validate_formats(true);
    let options = if schema.get("$schema").is_some() { options } else { options.with_draft(draft) };
    options.build(schema).is_ok()
}

/// The case's schema as a contract.
fn of_rows(schema: &Value, uri: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(members) = schema.as_object_mut() {
        members.entry("$schema").or_insert_with(|| uri.into());
    }
    schema
}

/// A contract whose column `v` has the case's schema, every reference leading where it led.
fn of_a_column(schema: &Value, uri: &str, draft: Draft) -> Value {
    let mut inner = schema.clone();
    let uri = inner.as_object_mut().and_then(|members| members.remove("$schema")).unwrap_or_else(|| uri.into());
    match says(&inner, &["$id", "id", "$recursiveRef"]) {
        false => rebase(&mut inner),
        // With a base of its own, its references are about itself.
        true => {
            let id = if draft == Draft::Draft4 { "id" } else { "$id" };
            if let Some(members) = inner.as_object_mut() {
                members.entry(id).or_insert_with(|| "urn:weir:case".into());
            }
        }
    }
    json!({"$schema": uri, "type": "object", "properties": {"v": inner}})
}

/// True where one of these words has a text, anywhere.
fn says(schema: &Value, words: &[&str]) -> bool {
    match schema {
        Value::Object(members) => {
            members.iter().any(|(key, value)| words.contains(&key.as_str()) && value.is_string() || says(value, words))
        }
        Value::Array(items) => items.iter().any(|item| says(item, words)),
        _ => false,
    }
}

/// Lets pointers start at the schema's new place.
fn rebase(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members.iter_mut().filter(|(key, _)| !["enum", "const"].contains(&key.as_str())) {
                match value {
                    Value::String(reference) if key == "$ref" || key == "$dynamicRef" => {
                        let pointer = reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
                        if let Some(moved) = pointer.map(|rest| format!("#/properties/v{rest}")) {
                            *reference = moved;
                        }
                    }
                    value => rebase(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rebase),
        _ => {}
    }
}

/// A value whose objects have no members that are null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            members.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        value => value.clone(),
    }
}

/// What was run, and what was not as it is elsewhere.
#[derive(Default)]
struct Report {
    counts: BTreeMap<&'static str, usize>,
    /// By file: schemas that need a document that is not in them.
    remote: BTreeMap<String, usize>,
    /// Where the crate does not say what the suite says.
    departures: Vec<String>,
    /// Where the row is not the suite's data, by form.
    otherwise: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Report {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Holds the verdicts on a batch against the crate's.
    fn hold(&mut self, form: &'static str, name: &str, contract: &Contract, batch: &RecordBatch, data: &[(Value, bool)]) {
        let judged = judge(contract, &mut Rows::new(batch, &contract.rules), batch.num_rows());
        let verdict = contract.check(batch);
        let mut rows = Rows::new(batch, &contract.rules);
        for (row, (data, valid)) in data.iter().enumerate() {
            self.count(form);
            let shown = rows.at(row);
            let says = contract.validator.is_valid(shown);
            let checked = verdict.valid.as_ref().is_none_or(|valid| valid.value(row));
            if judged.value(row) != says || checked != says {
                self.wrong.push(format!("{name}, {form}: {shown}: crate {says}, judged {}, checked {checked}", judged.value(row)));
            }
            // Only what the contract can see is shown.
            let seen: Map<String, Value> = data
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| contract.rules.sees(name))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            if shown.as_object() != Some(&seen) {
                *self.otherwise.entry(form).or_default() += 1;
                // A null and nothing are one in a column: which of them is shown is the contract's to say. Nothing else may differ.
                if without_nulls(shown) != without_nulls(&Value::Object(seen)) {
                    self.wrong.push(format!("{name}, {form}: {data} is shown as {shown}"));
                }
            } else if says != *valid {
                self.wrong.push(format!("{name}, {form}: {data}: crate on the suite's schema {valid}, on the contract {says}"));
            }
        }
    }

    fn group(&mut self, file: &str, uri: &str, draft: Draft, group: &Value) {
        let schema = &group["schema"];
        let cases = group["tests"].as_array().expect("cases");
        let name = format!("{file}: {}", group["description"].as_str().expect("a description"));
        let column_contract = Contract::compile("suite", &of_a_column(schema, uri, draft).to_string());
        let Some(referee) = referee(schema, draft) else {
            *self.remote.entry(file.to_owned()).or_default() += cases.len();
            if !builds_with_remotes(schema, draft) {
                self.wrong.push(format!("{name}: no schema, even with the remote documents"));
            }
            let refused = column_contract.expect_err("its references lead out of the file");
            let help = refused.help.unwrap_or_default();
            if !help.starts_with("a contract is one file and nothing is fetched") {
                self.wrong.push(format!("{name}: refused with \"{}\", {help}", refused.message));
            }
            return;
        };
        let mut data = vec![];
        for case in cases {
            self.count("cases");
            let says = referee.is_valid(&case["data"]);
            if case["valid"] != says {
                self.departures.push(format!("{name}: {}", case["description"].as_str().expect("a description")));
            }
            data.push((case["data"].clone(), says));
        }
        match Contract::compile("suite", &of_rows(schema, uri).to_string()) {
            Ok(contract) => {
                let rows: Vec<(Value, bool)> = data.iter().filter(|(data, _)| data.is_object()).cloned().collect();
                for row in &rows {
                    let batch = batch_of_rows(&[row.0.as_object().expect("an object")]);
                    self.hold("a row", &name, &contract, &batch, std::slice::from_ref(row));
                }
                let objects: Vec<&Map<String, Value>> = rows.iter().filter_map(|(data, _)| data.as_object()).collect();
                self.hold("rows", &name, &contract, &batch_of_rows(&objects), &rows);
            }
            Err(refused) => {
                self.count("schemas that are not about a row");
                let help = refused.help.unwrap_or_default();
                if !help.starts_with("a row is an object") {
                    self.wrong.push(format!("{name}: refused with \"{}\", {help}", refused.message));
                }
            }
        }
        let contract = match column_contract {
            Ok(contract) => contract,
            Err(refused) => return self.wrong.push(format!("{name}: no contract of a column: {refused}")),
        };
        let wrapped: Vec<(Value, bool)> = data.iter().map(|(data, says)| (json!({"v": data}), *says)).collect();
        for ((value, _), row) in data.iter().zip(&wrapped) {
            match column(&[Some(value)]) {
                Some(array) => {
                    let batch = batch_of(Field::new("v", array.data_type().clone(), true), array);
                    self.hold("a typed value", &name, &contract, &batch, std::slice::from_ref(row));
                }
                None => self.count("values that no one type holds"),
            }
        }
        let values: Vec<Option<&Value>> = data.iter().map(|(data, _)| Some(data)).collect();
        let texts = json_texts(&values);
        self.hold("JSON texts", &name, &contract, &batch_of(json_field("v", &texts), texts), &wrapped);
        // Side by side stand those of one type.
        let kind = |value: &Value| match value {
            Value::Number(number) if number.is_f64() => 0,
            Value::Number(_) => 1,
            Value::String(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null | Value::Bool(_) => 5,
        };
        for of in 0..6 {
            let (some, rows): (Vec<_>, Vec<_>) = data
                .iter()
                .zip(&wrapped)
                .filter(|((data, _), _)| kind(data) == of)
                .map(|((data, _), row)| (Some(data), row.clone()))
                .unzip();
            if let Some(array) = column(&some).filter(|_| some.len() > 1) {
                let batch = batch_of(Field::new("v", array.data_type().clone(), true), array);
                self.hold("typed values", &name, &contract, &batch, &rows);
            }
        }
    }
}

#[test]
fn every_case_of_the_suite_gets_the_crates_verdict() {
    let mut report = Report::default();
    for (folder, uri, draft) in DRAFTS {
        let files = files(folder);
        assert!(files.len() > 30, "the suite is not found");
        for (file, groups) in files {
            groups.as_array().expect("groups").iter().for_each(|group| report.group(&file, uri, draft, group));
        }
    }
    assert!(report.wrong.is_empty(), "{} wrong:\n{}", report.wrong.len(), report.wrong.join("\n"));
    let counts = [
        ("JSON texts", 7089),
        ("a row", 1568),
        ("a typed value", 6833),
        ("cases", 7089),
        ("rows", 1568),
        ("schemas that are not about a row", 769),
        ("typed values", 4022),
        ("values that no one type holds", 256),
    ];
    assert_eq!(report.counts, BTreeMap::from(counts));
    assert_eq!(report.remote.iter().map(|(file, cases)| (file.as_str(), *cases)).collect::<Vec<_>>(), REMOTE);
    assert_eq!(report.otherwise, BTreeMap::from([("a row", 17), ("a typed value", 104), ("rows", 189), ("typed values", 199)]));
    // Contracts assert formats; by default this draft only notes them.
    let (noted, others): (Vec<String>, _) = report
        .departures
        .into_iter()
        .partition(|case| case.starts_with("draft2020-12/format.json") && case.ends_with("is only an annotation by default"));
    assert_eq!((noted.len(), others), (19, Vec::<String>::new()));
}

/// The cases whose schemas need a document that is not in them, by file. Contracts refuse them.
const REMOTE: [(&str, usize); 12] = [
    ("draft2019-09/optional/cross-draft.json", 3),
    ("draft2019-09/refRemote.json", 31),
    ("draft2019-09/vocabulary.json", 5),
    ("draft2020-12/dynamicRef.json", 13),
    ("draft2020-12/optional/cross-draft.json", 1),
    ("draft2020-12/optional/format-assertion.json", 4),
    ("draft2020-12/refRemote.json", 31),
    ("draft2020-12/vocabulary.json", 5),
    ("draft4/refRemote.json", 17),
    ("draft6/refRemote.json", 23),
    ("draft7/optional/cross-draft.json", 2),
    ("draft7/refRemote.json", 23),
];
