//! Tests of `prove`: what it is certain of is so, by the `jsonschema` crate, over generated contracts and rows; and what it should be certain of.

use std::{collections::HashSet, sync::Arc};

use ::arrow::{
    array::{Array, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::judge::tests as generated;

/// The crate's verdict on every row.
fn verdicts(contract: &Contract, batch: &RecordBatch) -> Vec<bool> {
    let mut rows = crate::check::Rows::new(batch, &contract.rules);
    (0..batch.num_rows()).map(|row| contract.validator.is_valid(rows.at(row))).collect()
}

/// The same columns without some, and with those not nullable that hold no null.
fn shaped(batch: &RecordBatch, without: &HashSet<String>) -> RecordBatch {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).filter(|(field, _)| !without.contains(field.name()));
    let (fields, columns): (Vec<Field>, Vec<_>) =
        columns.map(|(field, array)| (field.as_ref().clone().with_nullable(array.logical_null_count() > 0), array.clone())).unzip();
    let options = ::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).expect("a batch")
}

/// Proves a contract and holds what was proved to the crate. Returns the rows that satisfy it and what is known of them.
fn held_to_the_crate(step: &str, schema: &Value, batch: &RecordBatch, known: &Known) -> Option<(RecordBatch, Known)> {
    let mut contract = Contract::compile("test", &schema.to_string()).ok()?;
    let crates = verdicts(&contract, batch);
    let proof = contract.prove(step, batch.schema_ref(), known);
    if !proof.never.is_empty() {
        assert!(crates.iter().all(|valid| !valid), "no row should be valid: {schema} {:?}", proof.never);
    }
    let judged: Vec<bool> = match contract.check(batch).valid {
        Some(valid) => valid.iter().collect(),
        None => vec![true; batch.num_rows()],
    };
    assert_eq!(judged, crates, "without {:?}: {schema}", proof.held);
    let valid = BooleanArray::new(BooleanBuffer::from(crates), None);
    Some((filter_record_batch(batch, &valid).expect("rows"), proof.known))
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    #[test]
    fn what_is_certain_of_a_contract_is_so(
        schema in generated::row(),
        pick in prop::collection::vec(0_usize..100, 1..40),
        without in prop::collection::hash_set(generated::name(), 0..8),
    ) {
        held_to_the_crate("a", &schema, &shaped(&generated::columns(&pick), &without), &Known::default());
    }

    #[test]
    fn what_is_certain_of_one_column_is_so(name in generated::name(), cell in generated::cell(), pick in prop::collection::vec(0_usize..100, 1..8)) {
        let schema = json!({"type": "object", "properties": {name: cell}, "$defs": {"shared": {"type": ["integer", "null"], "maximum": 5}}});
        held_to_the_crate("a", &schema, &shaped(&generated::columns(&pick), &HashSet::new()), &Known::default());
    }

    #[test]
    fn what_an_earlier_contract_made_sure_of_is_so(
        first in generated::row(),
        second in generated::row(),
        pick in prop::collection::vec(0_usize..100, 1..40),
        nullable in any::<bool>(),
    ) {
        let batch = generated::columns(&pick);
        if let Some((rows, known)) = held_to_the_crate("a", &first, &batch, &Known::default()) {
            held_to_the_crate("b", &second, &rows, &known);
            let mut inherited = Known::default();
            for field in batch.schema_ref().fields() {
                inherited.inherit(field.name(), &[(&known, field.name())], nullable);
            }
            held_to_the_crate("b", &second, &rows, &inherited);
        }
    }

    #[test]
    fn what_an_earlier_contract_made_sure_of_a_column_is_so(
        name in generated::name(),
        cells in (generated::cell(), generated::cell(), generated::cell()),
        pick in prop::collection::vec(0_usize..100, 1..40),
    ) {
        let contract = |cell: Value| json!({"type": "object", "properties": {name.clone(): cell}, "$defs": {"shared": {"type": ["integer", "null"], "maximum": 5}}});
        let batch = generated::columns(&pick);
        let first = held_to_the_crate("a", &contract(cells.0), &batch, &Known::default());
        let second = held_to_the_crate("b", &contract(cells.1), &batch, &Known::default());
        let (Some((rows, known)), Some((others, other))) = (first, second) else { return Ok(()) };
        held_to_the_crate("c", &contract(cells.2.clone()), &rows, &known);
        // Of a union of both only what both say is left.
        let mut either = Known::default();
        either.inherit(&name, &[(&known, &name), (&other, &name)], false);
        let all = ::arrow::compute::concat_batches(batch.schema_ref(), [&rows, &others]).expect("rows");
        held_to_the_crate("c", &contract(cells.2), &all, &either);
    }
}

fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
    Schema::new(fields.iter().map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable)).collect::<Vec<_>>())
}

fn prove(contract: &Value, schema: &Schema, known: &Known) -> Proof {
    Contract::compile("test", &contract.to_string()).expect("a contract").prove("step", schema, known)
}

/// What never holds, as pointers and words.
fn never(contract: &Value, schema: &Schema) -> Vec<(String, String)> {
    prove(contract, schema, &Known::default()).never.into_iter().map(|never| (never.rule, format!("{:?}", never.why))).collect()
}

fn pair(rule: &str, why: &str) -> (String, String) {
    (rule.to_owned(), why.to_owned())
}

#[test]
fn a_contract_that_no_row_of_the_columns_can_satisfy_is_seen() {
    let columns = schema(&[("id", DataType::Int64, true), ("n", DataType::UInt32, false), ("t", DataType::Utf8, true)]);
    let object = |more: Value| {
        let mut contract = json!({"type": "object"});
        contract.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        contract
    };
    let of = |more: Value| never(&object(more), &columns);
    assert_eq!(of(json!({"required": ["id", "amout"]})), [pair("/required/1", "Lacks(\"amout\")")]);
    // A null satisfies it, as long as nothing requires a value.
    assert_eq!(of(json!({"properties": {"id": {"type": "string"}}})), []);
    assert_eq!(
        of(json!({"properties": {"id": {"type": "string"}}, "required": ["id"]})),
        [pair("/properties/id/type", "Value(\"id\", Int64)")]
    );
    assert_eq!(of(json!({"properties": {"n": {"type": ["string", "null"]}}})), [pair("/properties/n/type", "Value(\"n\", UInt32)")]);
    assert_eq!(of(json!({"properties": {"n": {"maximum": -1}}})), [pair("/properties/n/maximum", "Value(\"n\", UInt32)")]);
    assert_eq!(of(json!({"properties": {"n": {"enum": ["a", -7, 1.5]}}})), [pair("/properties/n/enum", "Value(\"n\", UInt32)")]);
    assert_eq!(
        of(json!({"properties": {"n": {"$ref": "#/$defs/s"}}, "$defs": {"s": {"const": "a"}}})),
        [pair("/$defs/s/const", "Value(\"n\", UInt32)")]
    );
    assert_eq!(of(json!({"properties": {"n": {"minimum": 5, "maximum": 3}}})), [pair("/properties/n", "Contradiction(\"n\")")]);
    assert_eq!(
        of(json!({"properties": {"n": {"minimum": 1, "maximum": 4, "multipleOf": 5}}})),
        [pair("/properties/n", "Contradiction(\"n\")")]
    );
    assert_eq!(
        of(json!({"properties": {"n": {"minimum": 5}}, "allOf": [{"properties": {"n": {"maximum": 3}}}]})),
        [pair("/properties/n", "Contradiction(\"n\")")]
    );
    assert_eq!(
        of(json!({"properties": {"t": {"type": "string", "minLength": 3, "maxLength": 2}}, "required": ["t"]})),
        [pair("/properties/t", "Contradiction(\"t\")")]
    );
    assert_eq!(
        of(json!({"properties": {"t": true, "id": true}, "additionalProperties": false})),
        [pair("/additionalProperties", "Extra(\"n\")")]
    );
    // Rows whose other columns are null satisfy it.
    assert_eq!(of(json!({"properties": {"n": true}, "additionalProperties": false})), []);
    assert_eq!(of(json!({"not": {"required": ["n"]}})), [pair("/not", "Rule")]);
    assert_eq!(of(json!({"anyOf": [{"required": ["x"]}, {"properties": {"n": {"type": "null"}}}]})), [pair("/anyOf", "Rule")]);
    assert_eq!(of(json!({"required": ["id"], "not": {"required": ["id"]}})), [pair("", "Rule")]);
    assert_eq!(of(json!({"required": ["id"]})), []);
    // Lengths ask nothing of a null, and here it is one: no type refuses it.
    assert_eq!(of(json!({"properties": {"t": {"minLength": 3, "maxLength": 2}}, "required": ["t"]})), []);
}

#[test]
fn rules_that_can_never_fail_are_found_and_left_out() {
    let columns = schema(&[
        ("id", DataType::Int64, false),
        ("n", DataType::UInt32, true),
        ("t", DataType::Utf8, true),
        ("y", DataType::Boolean, true),
        ("z", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ("f", DataType::Float64, true),
    ]);
    let contract = json!({
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "n": {"type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32, "maxLength": 3},
            "t": {"type": ["string", "integer"], "minLength": 0, "maxLength": 9},
            "y": {"enum": [true, false]},
            "z": {"type": "string", "format": "date-time"},
            // Not a number is text.
            "f": {"type": "number"},
            "gone": {"type": "integer"},
        },
        "required": ["id", "t"],
        "additionalProperties": false,
    });
    let mut compiled = Contract::compile("test", &contract.to_string()).expect("a contract");
    let proof = compiled.prove("step", &columns, &Known::default());
    assert_eq!(proof.never, []);
    let held: Vec<&str> = proof.held.iter().map(|held| held.rule.as_str()).collect();
    let expected = [
        "/properties/id/type",
        "/properties/n/type",
        "/properties/n/minimum",
        "/properties/n/maximum",
        "/properties/n/maxLength",
        "/properties/t/type",
        "/properties/t/minLength",
        "/properties/y/enum",
        "/properties/z/type",
        "/properties/gone/type",
        "/required/0",
        "/additionalProperties",
    ];
    assert_eq!(held, expected);
    assert_eq!(proof.rules, 17);
    assert!(proof.held.iter().all(|held| held.by.is_empty()));
    let left = format!("{:?}", compiled.plan);
    for gone in ["\"n\"", "\"y\"", "\"gone\"", "Closed", "Present(\"id\")"] {
        assert!(!left.contains(gone), "{gone} is still in {left}");
    }
    assert!(left.contains("Present(\"t\")") && left.contains("Bound") && left.contains("Format"), "{left}");
}

#[test]
fn what_an_earlier_step_holds_is_not_asked_again() {
    let columns =
        schema(&[("id", DataType::Int64, true), ("zip", DataType::Utf8, true), ("at", DataType::Utf8, true), ("k", DataType::Utf8, true)]);
    let first = json!({"type": "object", "required": ["id", "zip"], "properties": {
        "id": {"type": "integer", "minimum": 5, "maximum": 9, "multipleOf": 4},
        "zip": {"$ref": "#/$defs/zip"}, "at": {"format": "email"}, "k": {"enum": ["a", "b"]}},
        "$defs": {"zip": {"title": "a postal code", "type": "string", "pattern": "^[0-9]{5}$"}}});
    let second = json!({"type": "object", "required": ["id", "zip", "at"], "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
        "zip": {"pattern": "^[0-9]{5}$", "type": "string", "description": "the same"},
        "at": {"format": "email", "minLength": 3}, "k": {"enum": ["b", "c", "a"], "maxLength": 1}}});
    let mut known = Known::default();
    let before = Contract::compile("test", &first.to_string()).expect("a contract").prove("first", &columns, &known).known;
    for name in ["id", "zip", "at", "k"] {
        known.inherit(name, &[(&before, name)], false);
    }
    assert!(known.never_null("id") && !known.never_null("at"));
    let proof = prove(&second, &columns, &known);
    let by_first: Vec<&str> = proof.held.iter().filter(|held| held.by == ["first"]).map(|held| held.rule.as_str()).collect();
    let mut expected = vec![
        "/required/0",
        "/required/1",
        "/properties/id/minimum",
        "/properties/id/maximum",
        "/properties/id/multipleOf",
        "/properties/at/format",
        "/properties/k/enum",
        "/properties/k/maxLength",
    ];
    let mut found: Vec<&str> = by_first.into_iter().filter(|rule| !rule.starts_with("/properties/zip")).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    // However the plan spells its pattern, all of it is proved.
    assert!(proof.held.iter().any(|held| held.column.as_deref() == Some("zip") && held.by == ["first"]), "{:?}", proof.held);
    // A null that came in on the way takes the presence, not the rest.
    let mut nullable = Known::default();
    nullable.inherit("id", &[(&before, "id")], true);
    let proof = prove(&second, &columns, &nullable);
    let rules: Vec<&str> = proof.held.iter().map(|held| held.rule.as_str()).collect();
    assert!(!rules.contains(&"/required/0") && rules.contains(&"/properties/id/minimum"), "{rules:?}");
    // A column of another type is another column.
    let other = schema(&[
        ("id", DataType::Float64, true),
        ("zip", DataType::Utf8, true),
        ("at", DataType::Utf8, true),
        ("k", DataType::Utf8, true),
    ]);
    let proof = prove(&second, &other, &known);
    assert!(proof.held.iter().all(|held| held.column.as_deref() != Some("id")), "{:?}", proof.held);
}

#[test]
fn what_is_known_of_values_says_nothing_of_a_null() {
    let columns = schema(&[("id", DataType::Int64, true)]);
    let contract = |cell: Value| json!({"type": "object", "properties": {"id": cell}});
    let first = prove(&contract(json!({"type": "string", "enum": ["a"]})), &columns, &Known::default());
    // Only nulls are left, and this one is about nulls.
    assert_eq!(prove(&contract(json!({"enum": [null, 5]})), &columns, &first.known).never, []);
    let first = prove(&contract(json!({"enum": [1, 2]})), &columns, &Known::default());
    let proof = prove(&contract(json!({"enum": [null, 1, 2]})), &columns, &first.known);
    assert_eq!(proof.held.iter().map(|held| held.rule.as_str()).collect::<Vec<_>>(), ["/properties/id/enum"]);
}

#[test]
fn a_column_of_which_only_a_null_is_valid_is_named() {
    let columns = schema(&[("id", DataType::Int64, true), ("t", DataType::Utf8, true)]);
    let contract = json!({"type": "object", "properties": {"id": {"type": "string"}, "t": false}});
    let proof = prove(&contract, &columns, &Known::default());
    assert_eq!(proof.never, []);
    assert_eq!(proof.hollow, [Never { rule: "/properties/id/type".into(), why: Why::Value("id".into(), DataType::Int64), by: vec![] }]);
}

#[test]
fn rules_inside_rules_inside_rules_come_to_an_end() {
    let columns = schema(&[("id", DataType::Int64, true), ("t", DataType::Utf8, true)]);
    let mut row = json!({"required": ["id"], "properties": {"t": {"maxLength": 3}}});
    let mut cell = json!({"minLength": 1});
    for _ in 0..20 {
        row = json!({"if": {"allOf": [row.clone(), {"required": ["t"]}]}, "then": {"not": {"required": ["id"]}}, "else": {"anyOf": [{"required": ["t"]}, {"minProperties": 1}]}});
        cell = json!({"anyOf": [{"not": {"allOf": [cell, {"type": "string"}]}}, {"enum": ["a", 5]}]});
    }
    row["type"] = json!("object");
    row["properties"] = json!({"t": cell});
    assert_eq!(prove(&row, &columns, &Known::default()).never, []);
}
