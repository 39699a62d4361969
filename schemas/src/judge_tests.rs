//! Tests of `judge`: every verdict is the `jsonschema` crate's on the same row, over generated schemas and generated columns.

use std::sync::Arc;

use ::arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int8Array, Int64Array,
        NullArray, RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray, UInt64Array,
    },
    datatypes::{Field, Int32Type, Schema},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::serving::asks;

/// Columns of every class a kernel knows, and of some that it does not, each with the values where verdicts turn.
pub(crate) fn columns(pick: &[usize]) -> RecordBatch {
    let at = |row: usize, count: usize| (pick[row % pick.len()] + row * 7) % count;
    let rows = pick.len();
    let choose = |count: usize| (0..rows).map(move |row| (row, count)).collect::<Vec<_>>();
    fn take<T: Clone>(places: &[(usize, usize)], at: impl Fn(usize, usize) -> usize, values: &[Option<T>]) -> Vec<Option<T>> {
        places.iter().map(|(row, count)| values[at(*row, *count)].clone()).collect()
    }
    let ints = [None, Some(0), Some(1), Some(-1), Some(5), Some(10), Some(i64::MAX), Some(i64::MIN), Some((1 << 53) + 1)];
    let large = [None, Some(0), Some(u64::MAX), Some(1 << 63), Some(7)];
    let small = [None, Some(0_i8), Some(5), Some(-128), Some(127)];
    let floats =
        [None, Some(0.0), Some(-0.0), Some(1.5), Some(5.0), Some(f64::NAN), Some(f64::INFINITY), Some(1e300), Some(4.999_999_999_999_999)];
    let short = [None, Some(0.1_f32), Some(5.0), Some(f32::NEG_INFINITY)];
    let texts =
        [None, Some(""), Some("a"), Some("abc"), Some("äöü"), Some("😀😀"), Some("NaN"), Some("2024-02-30"), Some("null"), Some("5")];
    let days = [None, Some(0), Some(-719_162), Some(-719_163), Some(2_932_896), Some(2_932_897), Some(i32::MAX)];
    let instants = [None, Some(0), Some(-62_135_596_800_000), Some(253_402_300_800_000), Some(i64::MIN)];
    let decimals =
        [None, Some(0_i128), Some(500), Some(501), Some(-100), Some(99_999_999_999_999_999_999), Some(12_345_678_901_234_567_890)];
    let flags = [None, Some(true), Some(false)];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(take(&choose(ints.len()), at, &ints)))),
        ("u", Arc::new(UInt64Array::from(take(&choose(large.len()), at, &large)))),
        ("b", Arc::new(Int8Array::from(take(&choose(small.len()), at, &small)))),
        ("f", Arc::new(Float64Array::from(take(&choose(floats.len()), at, &floats)))),
        ("g", Arc::new(Float32Array::from(take(&choose(short.len()), at, &short)))),
        ("t", Arc::new(StringArray::from(take(&choose(texts.len()), at, &texts)))),
        ("v", Arc::new(StringViewArray::from(take(&choose(texts.len()), at, &texts)))),
        ("k", Arc::new(DictionaryArray::<Int32Type>::from_iter(take(&choose(texts.len()), at, &texts)))),
        ("d", Arc::new(Date32Array::from(take(&choose(days.len()), at, &days)))),
        ("z", Arc::new(TimestampMillisecondArray::from(take(&choose(instants.len()), at, &instants)).with_timezone("UTC"))),
        (
            "m",
            Arc::new(
                Decimal128Array::from(take(&choose(decimals.len()), at, &decimals)).with_precision_and_scale(38, 2).expect("decimals"),
            ),
        ),
        ("y", Arc::new(BooleanArray::from(take(&choose(flags.len()), at, &flags)))),
        ("n", Arc::new(NullArray::new(rows))),
    ];
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).expect("a batch")
}

/// The kernels' verdict on every row, and the crate's.
fn both(schema: &Value, batch: &RecordBatch) -> Option<(Vec<bool>, Vec<bool>)> {
    let contract = Contract::compile("test", &schema.to_string()).ok()?;
    let judged = judge(&contract, &mut Rows::new(batch, &contract.rules), batch.num_rows());
    let mut rows = Rows::new(batch, &contract.rules);
    let crates = (0..batch.num_rows()).map(|row| contract.validator.is_valid(rows.at(row))).collect();
    Some((judged.iter().collect(), crates))
}

fn limit() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(0)),
        Just(json!(5)),
        Just(json!(5.0)),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(4.999)),
        Just(json!(9_007_199_254_740_993_i64)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(1e300)),
        Just(json!(1e18)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        limit(),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!("abc")),
        Just(json!("äöü")),
        Just(json!("NaN")),
        Just(json!("1970-01-01")),
        Just(json!([1])),
    ]
}

/// One keyword of a value.
fn word() -> impl Strategy<Value = (&'static str, Value)> {
    let kind = || prop::sample::select(vec!["null", "boolean", "integer", "number", "string", "array", "object"]);
    prop_oneof![
        4 => kind().prop_map(|kind| ("type", json!(kind))),
        4 => prop::collection::hash_set(kind(), 1..4).prop_map(|kinds| ("type", json!(kinds.into_iter().collect::<Vec<_>>()))),
        2 => prop::collection::vec(value(), 1..4).prop_map(|mut values| {
            values.dedup();
            ("enum", json!(values))
        }),
        1 => value().prop_map(|value| ("const", value)),
        2 => limit().prop_map(|limit| ("minimum", limit)),
        2 => limit().prop_map(|limit| ("maximum", limit)),
        1 => limit().prop_map(|limit| ("exclusiveMinimum", limit)),
        1 => limit().prop_map(|limit| ("exclusiveMaximum", limit)),
        1 => prop_oneof![Just(json!(5)), Just(json!(2)), Just(json!(0.5)), Just(json!(1.0))].prop_map(|by| ("multipleOf", by)),
        1 => (0_u64..5).prop_map(|least| ("minLength", json!(least))),
        1 => (0_u64..5).prop_map(|most| ("maxLength", json!(most))),
        1 => prop_oneof![Just("date"), Just("date-time"), Just("time"), Just("made-up")].prop_map(|format| ("format", json!(format))),
        1 => prop_oneof![Just("^a"), Just("ü$"), Just("\\d")].prop_map(|pattern| ("pattern", json!(pattern))),
        1 => Just(("description", json!("says nothing"))),
        1 => Just(("items", json!({"type": "integer"}))),
    ]
}

/// A schema of a value.
pub(crate) fn cell() -> impl Strategy<Value = Value> {
    let plain = prop::collection::vec(word(), 0..4)
        .prop_map(|words| Value::Object(words.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
    let plain = prop_oneof![12 => plain, 1 => any::<bool>().prop_map(Value::Bool), 1 => Just(json!({"$ref": "#/$defs/shared"}))];
    plain.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"allOf": parts})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"anyOf": parts})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"oneOf": parts})),
            inner.clone().prop_map(|part| json!({"not": part})),
            (inner.clone(), inner.clone(), inner).prop_map(|(when, then, other)| json!({"if": when, "then": then, "else": other})),
        ]
    })
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["i", "u", "b", "f", "g", "t", "v", "k", "d", "z", "m", "y", "n", "absent"]).prop_map(str::to_owned)
}

/// A schema of a row.
pub(crate) fn row() -> impl Strategy<Value = Value> {
    let properties = prop::collection::hash_map(name(), cell(), 0..6);
    let plain = (properties, prop::collection::hash_set(name(), 0..3), 0..8_u8).prop_map(|(properties, required, more)| {
        let mut schema = json!({"type": "object", "properties": properties, "required": required.into_iter().collect::<Vec<_>>()});
        match more {
            0 => schema["additionalProperties"] = json!(false),
            1 => schema["dependentRequired"] = json!({"i": ["t", "absent"], "absent": ["i"]}),
            2 => schema["minProperties"] = json!(6),
            3 => schema["patternProperties"] = json!({"^i": {"type": "integer"}}),
            4 => {
                schema["patternProperties"] = json!({"^[a-m]$": true});
                schema["additionalProperties"] = json!(false);
            }
            5 => schema["propertyNames"] = json!({"maxLength": 1}),
            6 => schema["type"] = json!(["object", "null"]),
            _ => {}
        }
        schema
    });
    let nested = plain.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            3 => inner.clone(),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"type": "object", "allOf": parts})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"type": "object", "anyOf": parts})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"type": "object", "oneOf": parts})),
            1 => inner.clone().prop_map(|part| json!({"type": "object", "not": part})),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(when, then, other)| json!({"type": "object", "if": when, "then": then, "else": other})),
        ]
    });
    (nested, cell(), 0..6_u8).prop_map(|(mut schema, shared, draft)| {
        schema["$defs"] = json!({"shared": shared});
        schema["definitions"] = schema["$defs"].clone();
        if let Some(draft) = [
            None,
            None,
            Some("https://json-schema.org/draft/2019-09/schema"),
            Some("http://json-schema.org/draft-07/schema#"),
            Some("http://json-schema.org/draft-06/schema#"),
            Some("http://json-schema.org/draft-04/schema#"),
        ][usize::from(draft)]
        {
            schema["$schema"] = json!(draft);
        }
        schema
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_is_the_crates(schema in row(), pick in prop::collection::vec(0_usize..100, 1..40)) {
        let batch = columns(&pick);
        // Some generated texts are no contract: drafts disagree on what a schema is.
        if let Some((kernels, crates)) = both(&schema, &batch) {
            prop_assert_eq!(kernels, crates, "{}", schema);
        }
    }

    #[test]
    fn every_verdict_on_one_value_is_the_crates(name in name(), cell in cell(), pick in prop::collection::vec(0_usize..100, 1..40)) {
        let schema = json!({"type": "object", "properties": {name: cell}, "$defs": {"shared": {"type": ["integer", "null"], "maximum": 5}}});
        if let Some((kernels, crates)) = both(&schema, &columns(&pick)) {
            prop_assert_eq!(kernels, crates, "{}", schema);
        }
    }
}

/// What is left to the crate in the plan of a contract, for a batch's columns.
fn left_to_the_crate(schema: &Value) -> Vec<String> {
    let contract = Contract::compile("test", &schema.to_string()).expect("a contract");
    let batch = columns(&[0, 1, 2]);
    let rows = Rows::new(&batch, &contract.rules);
    fn walk(node: &Node, rows: &Rows<'_>, left: &mut Vec<String>) {
        match node {
            Node::Crate(pointer) => left.push(pointer.clone()),
            Node::Rule(_, part) => walk(part, rows, left),
            Node::Property(name, node) => {
                let served = rows
                    .columns()
                    .iter()
                    .find(|column| column.field.name() == name)
                    .is_none_or(|column| asks(node, &Values::of_column(column)) == 0);
                left.extend((!served).then(|| name.clone()));
            }
            Node::Schema(_, parts) => parts.iter().for_each(|part| walk(part, rows, left)),
            Node::All(parts) | Node::Any(parts) | Node::One(parts) => parts.iter().for_each(|part| walk(part, rows, left)),
            _ => {}
        }
    }
    let mut left = Vec::new();
    walk(&contract.plan, &rows, &mut left);
    left
}

#[test]
fn what_kernels_serve_is_not_left_to_the_crate() {
    let served = json!({"type": "object", "required": ["i", "t"], "additionalProperties": true, "properties": {
        "i": {"type": "integer", "minimum": 0, "maximum": 10, "multipleOf": 5}, "t": {"type": ["string", "null"], "enum": ["a", null], "maxLength": 3},
        "f": {"type": "number", "exclusiveMinimum": 0.5}, "m": {"type": "number", "minimum": 0}, "d": {"type": "string", "format": "date"},
        "z": {"type": "string", "format": "date-time"}, "y": {"const": true}, "u": {"$ref": "#/$defs/count"}}, "$defs": {"count": {"type": "integer"}}});
    assert_eq!(left_to_the_crate(&served), Vec::<String>::new());
    let mut some = json!({"type": "object", "properties": {"t": {"pattern": "^a"}, "i": {"type": "integer"}, "g": {"minimum": 1}, "z": {"minLength": 1}}});
    let mut left = left_to_the_crate(&some);
    left.sort();
    assert_eq!(left, ["g", "z"]);
    some["unevaluatedProperties"] = json!(true);
    assert_eq!(left_to_the_crate(&some), [""]);
}

fn one_text(text: &str) -> RecordBatch {
    let array: ArrayRef = Arc::new(StringArray::from(vec![text, "a"]));
    RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("t", array.data_type().clone(), true)])), vec![array]).expect("a batch")
}

#[test]
fn a_match_that_was_given_up_is_the_crates_to_weigh() {
    // The engine gives up on the long text: before what is looked for ahead there are too many ways to read it.
    let hard = json!({"pattern": "^(?:(?:a|b|ab)(?=.))*c"});
    let batch = one_text(&"ab".repeat(30));
    let forms = [
        hard.clone(),
        json!({"not": hard}),
        json!({"anyOf": [hard, {"not": hard}]}),
        json!({"oneOf": [hard, {"minLength": 30}]}),
        json!({"type": "string", "pattern": "^a", "allOf": [hard]}),
        json!({"if": hard, "then": {"maxLength": 3}, "else": true}),
    ];
    for form in forms {
        for schema in [json!({"type": "object", "properties": {"t": form}}), json!({"type": "object", "not": {"properties": {"t": form}}})]
        {
            let (kernels, crates) = both(&schema, &batch).expect("a contract");
            assert_eq!(kernels, crates, "{schema}");
        }
    }
    let contract = Contract::compile("test", &json!({"type": "object", "properties": {"t": hard}}).to_string()).expect("a contract");
    let message = contract.check(&batch).violations.remove(0).message;
    assert!(message.contains("backtrack"), "{message}");
}

#[test]
fn a_pattern_of_many_ways_is_matched_in_time() {
    let schema = json!({"type": "object", "properties": {"t": {"pattern": "^(a+)+$"}}});
    let (kernels, crates) = both(&schema, &one_text(&format!("{}!", "a".repeat(100_000)))).expect("a contract");
    assert_eq!((&kernels, &crates), (&vec![false, true], &crates));
}

#[test]
fn a_schema_that_speaks_of_itself_is_the_crates() {
    let batch = columns(&[0, 1, 2, 3]);
    for schema in [
        json!({"type": "object", "not": {"$ref": "#"}}),
        json!({"type": "object", "allOf": [{"not": {"$ref": "#/$defs/a"}}], "$defs": {"a": {"unevaluatedProperties": false, "not": {"$ref": "#/allOf/0"}}}}),
        json!({"type": "object", "properties": {"i": {"anyOf": [{"type": "integer"}, {"$ref": "#/properties/i"}]}}}),
        json!({"type": "object", "properties": {"i": {"$ref": "#"}, "t": {"maxLength": 2}}}),
    ] {
        let (kernels, crates) = both(&schema, &batch).expect("a contract");
        assert_eq!(kernels, crates, "{schema}");
    }
}

#[test]
fn long_ways_and_many_ways_end() {
    // A reference to a reference, and so on; then schemas that each name the next twice; then lists of branches that multiply.
    let mut chain = json!({"type": "object", "properties": {"i": {"$ref": "#/$defs/0"}}, "$ref": "#/$defs/0", "$defs": {}});
    let mut double = chain.clone();
    for link in 0..500 {
        chain["$defs"][link.to_string()] = json!({"$ref": format!("#/$defs/{}", link + 1)});
        double["$defs"][link.to_string()] =
            json!({"allOf": [{"$ref": format!("#/$defs/{}", link + 1)}, {"$ref": format!("#/$defs/{}", link + 1)}]});
    }
    chain["$defs"]["500"] = json!({"maximum": 5});
    double["$defs"] = (0..60).map(|link| (link.to_string(), double["$defs"][link.to_string()].clone())).collect();
    double["$defs"]["60"] = json!({"maximum": 5});
    // A property would be asked whether it accepts null.
    double["properties"] = json!({});
    let branches: Vec<Value> = (0..20).map(|limit| json!({"type": "string", "minLength": limit})).collect();
    let lists: Vec<Value> = (0..14).map(|_| json!({"anyOf": branches})).collect();
    let wide = json!({"type": "object", "properties": {"t": {"allOf": lists}}});
    let batch = columns(&[0, 1, 2, 3]);
    for schema in [chain, wide] {
        let (kernels, crates) = both(&schema, &batch).expect("a contract");
        assert_eq!(kernels, crates);
    }
    // Compiled; the crate itself takes each of the ways when it is asked.
    Contract::compile("test", &double.to_string()).expect("a contract");
}
