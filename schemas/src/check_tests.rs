//! Tests of `check`: its verdict is the `jsonschema` crate's on rows written by hand.

use std::sync::Arc;

use ::arrow::{
    array::*,
    datatypes::{DataType, Field, Int64Type, Schema},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn contract(schema: &Value) -> Contract {
    Contract::compile("test", &schema.to_string()).expect("compiles")
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).expect("columns fit")
}

fn ints(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn texts(values: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

/// Row, keyword, column and message of each violation.
fn found(contract: &Contract, batch: &RecordBatch) -> Vec<(usize, String, String, String)> {
    let verdict = contract.check(batch);
    let rows: HashSet<usize> = verdict.violations.iter().map(|violation| violation.row).collect();
    let invalid: HashSet<usize> =
        (0..batch.num_rows()).filter(|row| verdict.valid.as_ref().is_some_and(|valid| !valid.value(*row))).collect();
    assert_eq!(rows, invalid, "bits and reasons name the same rows");
    assert!(verdict.violations.is_sorted_by_key(|violation| violation.row));
    verdict.violations.into_iter().map(|v| (v.row, v.keyword, v.column.unwrap_or_default(), v.message)).collect()
}

fn expect(found: &[(usize, String, String, String)], expected: &[(usize, &str, &str, &str)]) {
    let found: Vec<_> = found.iter().map(|(row, a, b, c)| (*row, a.as_str(), b.as_str(), c.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_valid_batch_has_no_bits_and_no_reasons() {
    let contract = contract(&json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}));
    let verdict = contract.check(&batch(vec![("a", ints(vec![Some(1), Some(2)]))]));
    assert!(verdict.valid.is_none() && verdict.violations.is_empty());
    let verdict = contract.check(&batch(vec![("a", ints(vec![]))]));
    assert!(verdict.valid.is_none() && verdict.violations.is_empty());
}

#[test]
fn each_broken_rule_is_named_with_keyword_column_and_value() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "integer", "maximum": 10}, "b": {"type": "string", "pattern": "^x", "maxLength": 3}, "c": {"enum": ["u", "v"]}}});
    let rows = batch(vec![
        ("a", ints(vec![Some(11), None, Some(1), Some(2)])),
        ("b", texts(vec![Some("x"), Some("x"), Some("yyyy"), None])),
        ("c", texts(vec![Some("u"), Some("v"), Some("w"), None])),
    ]);
    expect(
        &found(&contract(&schema), &rows),
        &[
            (0, "maximum", "a", "11 is more than 10"),
            (1, "required", "a", "\"a\" is missing"),
            (2, "maxLength", "b", "\"yyyy\" is longer than 3 characters"),
            (2, "pattern", "b", "\"yyyy\" does not match \"^x\""),
            (2, "enum", "c", "\"w\" is not one of [\"u\",\"v\"]"),
        ],
    );
}

#[test]
fn a_null_is_null_where_its_subschema_accepts_null_and_absent_elsewhere() {
    let schema = json!({"type": "object", "required": ["a", "b", "c"], "properties": {
        "a": {"type": ["integer", "null"]}, "b": {"type": "integer"}, "d": {"type": "integer"}}});
    let none = || ints(vec![None]);
    let rows = batch(vec![("a", none()), ("b", none()), ("c", none()), ("d", none())]);
    expect(&found(&contract(&schema), &rows), &[(0, "required", "b", "\"b\" is missing"), (0, "required", "c", "\"c\" is missing")]);
}

#[test]
fn a_column_that_the_batch_lacks_is_absent() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": ["integer", "null"]}, "b": {"type": "integer"}}});
    expect(&found(&contract(&schema), &batch(vec![("b", ints(vec![Some(1)]))])), &[(0, "required", "a", "\"a\" is missing")]);
}

#[test]
fn a_column_that_the_contract_does_not_name_counts_where_it_is_not_null() {
    let schema = json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "integer"}}});
    let rows = batch(vec![("a", ints(vec![Some(1), Some(1)])), ("z", ints(vec![Some(1), None]))]);
    expect(&found(&contract(&schema), &rows), &[(0, "additionalProperties", "", "\"z\" is not in the contract")]);
    let few = contract(&json!({"type": "object", "maxProperties": 1, "properties": {"a": {"type": "integer"}}}));
    assert_eq!(found(&few, &rows).len(), 1);
}

#[test]
fn rules_across_columns_see_nulls_as_absent() {
    let schema = json!({"type": "object", "if": {"required": ["landed"]}, "then": {"required": ["delay"]}, "properties": {"delay": {"type": "integer"}}});
    let rows = batch(vec![("landed", ints(vec![Some(1), None, Some(1)])), ("delay", ints(vec![Some(3), None, None]))]);
    expect(&found(&contract(&schema), &rows), &[(2, "required", "delay", "\"delay\" is missing")]);
}

#[test]
fn nested_values_are_checked_with_their_path_and_the_null_rule() {
    let schema = json!({"type": "object", "properties": {"p": {"type": "object", "required": ["x"], "properties": {
        "x": {"type": "integer"}, "y": {"type": "array", "items": {"type": "integer", "minimum": 2}}}}}});
    let y = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(2), Some(1)]), None, Some(vec![None])]);
    let fields = vec![Field::new("x", DataType::Int64, true), Field::new("y", y.data_type().clone(), true)];
    let p = StructArray::new(fields.into(), vec![ints(vec![Some(1), None, Some(3)]), Arc::new(y)], None);
    expect(
        &found(&contract(&schema), &batch(vec![("p", Arc::new(p))])),
        &[
            (0, "minimum", "p/y/1", "1 is less than 2"),
            (1, "required", "p/x", "\"x\" is missing"),
            (2, "type", "p/y/0", "null is not of type \"integer\""),
        ],
    );
}

#[test]
fn text_that_the_contract_calls_an_object_is_checked_as_one() {
    let schema = json!({"type": "object", "properties": {"o": {"type": "object", "minProperties": 1}}});
    let rows = batch(vec![("o", texts(vec![Some(r#"{"a": 1}"#), Some("{}"), Some("no")]))]);
    let found = found(&contract(&schema), &rows);
    assert_eq!(found.iter().map(|f| (f.0, f.1.as_str())).collect::<Vec<_>>(), [(1, "minProperties"), (2, "type")]);
}

#[test]
fn formats_of_declared_types_hold_for_every_value_of_the_type() {
    let schema = json!({"type": "object", "required": ["d", "t", "z"], "properties": {
        "d": {"type": "string", "format": "date"}, "t": {"type": "string", "format": "time"}, "z": {"type": "string", "format": "date-time"}}});
    let contract = contract(&schema);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from(vec![0, 2_932_896])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![-62_135_596_800_000_000, 253_402_300_799_999_999]).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(contract.columns().clone(), columns).expect("the declared types");
    assert!(contract.check(&batch).valid.is_none());
    let text = batch_of_text("t", "25:00:00Z");
    assert_eq!(found(&contract, &text).iter().filter(|f| f.1 == "format").count(), 1);
}

fn batch_of_text(name: &str, value: &str) -> RecordBatch {
    batch(vec![(name, texts(vec![Some(value)]))])
}

#[test]
fn a_long_value_is_cut_and_reasons_are_bounded() {
    let properties: Map<String, Value> = (0..20).map(|i| (format!("c{i}"), json!({"maxLength": 1}))).collect();
    let contract = contract(&json!({"type": "object", "properties": properties}));
    let long = "é".repeat(1000);
    let names: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    let rows = batch(names.iter().map(|name| (name.as_str(), texts(vec![Some(&long)]))).collect());
    let found = found(&contract, &rows);
    assert_eq!(found.len(), 8);
    assert!(found[0].3.chars().count() < 120, "{}", found[0].3);
}

#[test]
fn more_patterns_of_nulls_than_are_kept_change_nothing() {
    let names: Vec<String> = (0..8).map(|i| format!("c{i}")).collect();
    let properties: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({"type": "integer"}))).collect();
    let contract = contract(&json!({"type": "object", "properties": properties, "required": ["c7"]}));
    let column = |bit: usize| ints((0..512).map(|row| (row >> bit & 1 == 1).then_some(row as i64)).collect());
    let rows = batch(names.iter().enumerate().map(|(bit, name)| (name.as_str(), column(bit))).collect());
    let invalid: Vec<usize> = found(&contract, &rows).iter().map(|f| f.0).collect();
    assert_eq!(invalid, (0..512).filter(|row| row >> 7 & 1 == 0).collect::<Vec<_>>());
}

#[test]
fn a_reference_inside_a_schema_with_its_own_id_means_what_the_validator_says() {
    // "#/$defs/need" is that of "inner", which looks at "b", and not the root's, which looks at "a".
    let schema = json!({
        "$id": "https://example.com/root", "type": "object", "allOf": [{"$ref": "inner"}],
        "$defs": {
            "need": {"required": ["a"]},
            "inner": {"$id": "inner", "$ref": "#/$defs/need", "$defs": {"need": {"required": ["b"]}}},
        },
    });
    let rows = batch(vec![("b", ints(vec![Some(1), None]))]);
    expect(&found(&contract(&schema), &rows), &[(1, "required", "b", "\"b\" is missing")]);
}

#[test]
fn a_schema_that_refers_to_itself_is_checked() {
    let node = json!({"type": "object", "required": ["v"], "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}});
    let contract = contract(&json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}));
    let fields = |inner: Option<&StructArray>| {
        let mut fields = vec![Field::new("v", DataType::Int64, true)];
        fields.extend(inner.map(|inner| Field::new("next", inner.data_type().clone(), true)));
        fields.into()
    };
    let leaf = StructArray::new(fields(None), vec![ints(vec![Some(1), None])], None);
    let top = StructArray::new(fields(Some(&leaf)), vec![ints(vec![Some(1), Some(1)]), Arc::new(leaf)], None);
    expect(&found(&contract, &batch(vec![("n", Arc::new(top))])), &[(1, "required", "n/next/v", "\"v\" is missing")]);
}

/// One cell as the test means it, before any Arrow or JSON.
#[derive(Debug, Clone)]
struct Raw {
    int: Option<i64>,
    float: Option<f64>,
    text: Option<String>,
    flag: Option<bool>,
    day: Option<i32>,
    list: Option<Vec<Option<i64>>>,
    pair: Option<(Option<i64>, Option<String>)>,
}

fn raw() -> impl Strategy<Value = Raw> {
    use proptest::option::of;
    let float = prop_oneof![Just(0.5), Just(-3.0), Just(f64::NAN), -100.0..100.0f64];
    let text = prop_oneof!["[a-c]{0,4}", Just("2013-02-28".to_owned()), Just("é€😀".to_owned())];
    let pair = of((of(-3..3i64), of("[a-b]{1,2}")));
    (
        of(prop_oneof![-5..15i64, any::<i64>()]),
        of(float),
        of(text),
        of(any::<bool>()),
        of(-50_000..50_000i32),
        of(prop::collection::vec(of(-2..4i64), 0..4)),
        pair,
    )
        .prop_map(|(int, float, text, flag, day, list, pair)| Raw { int, float, text, flag, day, list, pair })
}

fn subschemas() -> impl Strategy<Value = [Value; 7]> {
    let pick = |choices: Vec<Value>| prop::sample::select(choices);
    (
        pick(vec![json!({"type": "integer", "minimum": 0}), json!({"type": ["integer", "null"], "maximum": 10}), json!({"multipleOf": 3}), json!({"type": "string"}), json!(false), json!({"const": 4})]),
        pick(vec![json!({"type": "number", "exclusiveMaximum": 0.5}), json!({"type": "integer"}), json!({"type": ["number", "string", "null"]}), json!(true)]),
        pick(vec![json!({"type": "string", "pattern": "^a"}), json!({"enum": ["a", "b", null]}), json!({"type": "string", "format": "date"}), json!({"maxLength": 2}), json!({"not": {"type": "null"}, "minLength": 1})]),
        pick(vec![json!({"type": "boolean"}), json!({"const": true}), json!({"anyOf": [{"type": "null"}, {"const": false}]})]),
        pick(vec![json!({"type": "string", "format": "date"}), json!({"pattern": "^19"}), json!({"type": ["null", "string"], "pattern": "-0[1-6]-"})]),
        pick(vec![json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true}), json!({"minItems": 1, "maxItems": 2}), json!({"type": ["array", "null"], "contains": {"const": 1}}), json!({"items": {"$ref": "#/$defs/small"}})]),
        pick(vec![
            json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}),
            json!({"additionalProperties": false, "properties": {"n": {"type": ["integer", "null"]}}}),
            json!({"type": ["object", "null"], "minProperties": 1, "properties": {"n": {"type": "integer"}, "s": {"type": ["string", "null"]}}}),
        ]),
    )
        .prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g])
}

/// Rules about the row as a whole.
fn tops() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"required": ["int", "text"]}),
        json!({"additionalProperties": false}),
        json!({"minProperties": 4}),
        json!({"if": {"required": ["flag"]}, "then": {"required": ["int", "missing"]}, "else": {"required": ["list"]}}),
        json!({"dependentRequired": {"day": ["float"]}}),
        json!({"oneOf": [{"required": ["int"]}, {"required": ["text"]}]}),
        json!({"patternProperties": {"^p": {"maxProperties": 1}}}),
        json!({"allOf": [{"$ref": "#/$defs/top"}]}),
        json!({"propertyNames": {"maxLength": 4}}),
    ])
}

const NAMES: [&str; 7] = ["int", "float", "text", "flag", "day", "list", "pair"];

fn arrow_of(rows: &[Raw], extra: bool) -> RecordBatch {
    let n = Int64Array::from_iter(rows.iter().map(|row| row.pair.as_ref().and_then(|pair| pair.0)));
    let s = StringArray::from_iter(rows.iter().map(|row| row.pair.as_ref().and_then(|pair| pair.1.clone())));
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)];
    let there: NullBuffer = rows.iter().map(|row| row.pair.is_some()).collect::<Vec<_>>().into();
    let pair = StructArray::new(fields.into(), vec![Arc::new(n), Arc::new(s)], Some(there));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.int)))),
        ("float", Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.float)))),
        ("text", Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.text.clone())))),
        ("flag", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.flag)))),
        ("day", Arc::new(Date32Array::from_iter(rows.iter().map(|row| row.day)))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.list.clone())))),
        ("pair", Arc::new(pair)),
    ];
    if extra {
        columns.push(("more", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.int.map(|int| int / 2))))));
    }
    batch(columns)
}

/// The row as JSON, straight from what it means.
fn json_of(raw: &Raw, extra: bool, properties: &Map<String, Value>, defs: &Value) -> Value {
    let accepts_null = |schema: &Value| {
        let mut whole = json!({"$defs": defs, "allOf": [schema]});
        whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        jsonschema::validator_for(&whole).expect("a schema").is_valid(&Value::Null)
    };
    let mut row = Map::new();
    let mut put = |name: &str, value: Option<Value>| match (value, properties.get(name)) {
        (Some(value), _) => drop(row.insert(name.to_owned(), value)),
        (None, Some(schema)) if accepts_null(schema) => drop(row.insert(name.to_owned(), Value::Null)),
        _ => {}
    };
    put("int", raw.int.map(Value::from));
    put("float", raw.float.map(|float| if float.is_nan() { "NaN".into() } else { float.into() }));
    put("text", raw.text.clone().map(Value::from));
    put("flag", raw.flag.map(Value::from));
    put("day", raw.day.map(|day| chrono::NaiveDate::from_epoch_days(day).expect("in range").to_string().into()));
    put("list", raw.list.clone().map(|items| items.into_iter().map(Value::from).collect()));
    put(
        "pair",
        raw.pair.clone().map(|(n, s)| {
            let mut pair = Map::new();
            for (name, value) in [("n", n.map(Value::from)), ("s", s.map(Value::from))] {
                let inner = properties.get("pair").and_then(|schema| schema.pointer(&format!("/properties/{name}")));
                match (value, inner) {
                    (Some(value), _) => drop(pair.insert(name.to_owned(), value)),
                    (None, Some(schema)) if accepts_null(schema) => drop(pair.insert(name.to_owned(), Value::Null)),
                    _ => {}
                }
            }
            Value::Object(pair)
        }),
    );
    if extra {
        put("more", raw.int.map(|int| (int / 2).into()));
    }
    Value::Object(row)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_that_of_the_jsonschema_crate(
        rows in prop::collection::vec(raw(), 1..12), choices in subschemas(), kept in prop::collection::vec(any::<bool>(), 7),
        top in tops(), extra in any::<bool>(),
    ) {
        let mut properties = Map::new();
        for ((name, schema), _) in NAMES.iter().zip(choices).zip(kept).filter(|(_, kept)| *kept) {
            properties.insert((*name).to_owned(), schema);
        }
        let defs = json!({"small": {"type": "integer", "maximum": 1}, "top": {"type": "object", "maxProperties": 6}});
        let mut schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "$defs": defs});
        schema["properties"] = Value::Object(properties.clone());
        schema.as_object_mut().expect("an object").extend(top.as_object().expect("an object").clone());
        let oracle = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        let expected: Vec<bool> = rows.iter().map(|raw| oracle.is_valid(&json_of(raw, extra, &properties, &defs))).collect();
        let verdict = contract(&schema).check(&arrow_of(&rows, extra));
        let got: Vec<bool> = match &verdict.valid {
            Some(valid) => valid.iter().collect(),
            None => vec![true; rows.len()],
        };
        prop_assert_eq!(&got, &expected, "{}", schema);
        prop_assert_eq!(verdict.valid.is_none(), expected.iter().all(|valid| *valid));
        let explained: HashSet<usize> = verdict.violations.iter().map(|violation| violation.row).collect();
        prop_assert_eq!(explained, (0..rows.len()).filter(|row| !expected[*row]).collect::<HashSet<_>>());
    }
}
