//! Tests of `diff`: what it calls compatible is, for every row; and what it says of the changes a person makes.

use proptest::prelude::*;

use super::*;

fn compile(schema: &Value) -> (Contract, String) {
    let text = serde_json::to_string_pretty(schema).expect("JSON");
    (Contract::compile("test", &text).unwrap_or_else(|error| panic!("{error}: {text}")), text)
}

fn compare(before: &Value, after: &Value, closed: bool) -> Diff {
    let ((a, old), (b, new)) = (compile(before), compile(after));
    diff(Side { contract: &a, text: &old }, Side { contract: &b, text: &new }, closed)
}

fn row_of(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

/// The verdict, and what is said, when one property changes.
fn property(before: Value, after: Value) -> (Verdict, Vec<String>) {
    let diff = compare(&row_of(json!({"x": before})), &row_of(json!({"x": after})), false);
    (diff.verdict, diff.changes.into_iter().map(|change| change.message).collect())
}

#[test]
fn a_change_of_one_rule_is_named() {
    use Verdict::{Breaking, Compatible, Unknown};
    for (before, after, verdict, message) in [
        (
            json!({"type": "integer", "maximum": 9}),
            json!({"type": "integer", "maximum": 7}),
            Breaking,
            "\"maximum\" of \"x\" went from 9 to 7",
        ),
        (
            json!({"type": "integer", "maximum": 7}),
            json!({"type": "integer", "maximum": 9}),
            Compatible,
            "\"maximum\" of \"x\" went from 7 to 9",
        ),
        (json!({"type": "integer"}), json!({"type": "integer", "minimum": 0}), Breaking, "\"minimum\" 0 of \"x\" is new"),
        (json!({"type": "integer", "minimum": 0}), json!({"type": "integer"}), Compatible, "\"minimum\" 0 of \"x\" is gone"),
        (
            json!({"type": "integer", "exclusiveMinimum": 0}),
            json!({"type": "integer", "minimum": 1}),
            Compatible,
            "\"minimum\" 1 of \"x\" is new",
        ),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["a", "b", "c"]}), Compatible, "\"x\" may be \"c\" too"),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["a"]}), Breaking, "\"x\" may not be \"b\" any more"),
        (json!({"type": ["string", "null"]}), json!({"type": "string"}), Breaking, "\"x\" was string or null and is string"),
        (json!({"type": "string"}), json!({"type": ["string", "null"]}), Compatible, "\"x\" was string and is string or null"),
        (json!({"type": "string"}), json!({"type": "string", "maxLength": 5}), Breaking, "\"maxLength\" 5 of \"x\" is new"),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            Unknown,
            "\"pattern\" of \"x\" went from \"^a+$\" to \"^[a-z]+$\"",
        ),
    ] {
        let (found, messages) = property(before.clone(), after.clone());
        assert_eq!(found, verdict, "{before} {after}: {messages:?}");
        assert!(messages.iter().any(|said| said == message), "{message}: {messages:?}");
    }
    assert_eq!(property(json!({"type": "string", "title": "a"}), json!({"type": "string", "title": "b"})), (Compatible, vec![]));
}

#[test]
fn columns_that_change_their_type_break_destinations() {
    let (verdict, messages) = property(json!({"type": "integer"}), json!({"type": "number"}));
    assert_eq!(verdict, Verdict::Breaking);
    assert_eq!(messages, ["the column \"x\" was Int64 and is Float64", "\"x\" was integer and is number"]);
    let (verdict, messages) = property(json!({"type": "integer"}), json!({"type": "integer", "x-weir-type": "int32"}));
    assert_eq!((verdict, messages), (Verdict::Breaking, vec!["the column \"x\" was Int64 and is Int32".to_owned()]));
    let diff = compare(&row_of(json!({"x": {"type": "integer"}})), &row_of(json!({})), false);
    assert_eq!((diff.verdict, diff.rows), (Verdict::Breaking, Verdict::Compatible));
}

#[test]
fn a_new_column_breaks_rows_that_had_it_unless_there_were_none() {
    let (before, after) = (row_of(json!({"a": {"type": "integer"}})), row_of(json!({"a": {"type": "integer"}, "b": {"type": "string"}})));
    let open = compare(&before, &after, false);
    assert_eq!(open.verdict, Verdict::Breaking);
    assert_eq!(open.changes[0].message, "\"b\" is named now, and rows that had it as anything else were valid");
    let closed = compare(&before, &after, true);
    assert_eq!(closed.verdict, Verdict::Compatible, "{:?}", closed.changes);
    let mut strict = before.clone();
    strict["additionalProperties"] = json!(false);
    assert_eq!(compare(&strict, &after, false).verdict, Verdict::Compatible);
    let mut required = after.clone();
    required["required"] = json!(["b"]);
    let missing = compare(&strict, &required, false);
    assert_eq!(missing.verdict, Verdict::Breaking);
    assert!(missing.changes.iter().any(|change| change.message == "\"b\" is required now"), "{:?}", missing.changes);
}

#[test]
fn a_removed_column_is_free_or_refused() {
    let (with, without) = (row_of(json!({"a": true, "b": {"type": "string"}})), row_of(json!({"a": true})));
    assert_eq!(compare(&with, &without, false).rows, Verdict::Compatible);
    let mut closed = without.clone();
    closed["additionalProperties"] = json!(false);
    let diff = compare(&with, &closed, false);
    assert_eq!(diff.rows, Verdict::Breaking);
    let messages: Vec<&str> = diff.changes.iter().map(|change| change.message.as_str()).collect();
    assert!(messages.contains(&"columns that the contract does not name are refused now"), "{messages:?}");
    assert!(messages.contains(&"\"b\" is not named any more, and unnamed ones are refused"), "{messages:?}");
}

#[test]
fn nested_values_and_references_are_compared_too() {
    let nested = |most: u64| {
        row_of(json!({"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/s"}}}}))
            .as_object()
            .cloned()
            .map(|mut schema| {
                schema.insert("$defs".into(), json!({"s": {"type": "string", "maxLength": most}}));
                Value::Object(schema)
            })
            .expect("an object")
    };
    let narrower = compare(&nested(5), &nested(3), false);
    assert_eq!(narrower.verdict, Verdict::Breaking);
    assert_eq!(narrower.changes[0].message, "\"maxLength\" of \"a.b\" went from 5 to 3");
    assert_eq!(narrower.changes[0].pointer, "/a/b");
    assert_eq!(compare(&nested(3), &nested(5), false).verdict, Verdict::Compatible);
}

#[test]
fn a_null_that_other_rules_can_see_cannot_be_told() {
    let with = |kind: Value| json!({"type": "object", "properties": {"x": {"type": kind}}, "maxProperties": 1});
    let diff = compare(&with(json!("integer")), &with(json!(["integer", "null"])), false);
    assert_eq!(diff.verdict, Verdict::Unknown);
    assert_eq!(diff.changes[0].message, "a null of \"x\" is no longer what it was (missing or null), and other rules may see it");
    let required = json!({"type": "object", "required": ["x"], "properties": {"x": {"type": ["integer", "null"]}}});
    let diff = compare(&required, &json!({"type": "object", "required": ["x"]}), false);
    assert!(diff.changes.iter().any(|change| change.verdict == Verdict::Unknown), "{:?}", diff.changes);
}

#[test]
fn places_are_found_in_both_texts() {
    let (before, after) = (row_of(json!({"x": {"minimum": 1}})), row_of(json!({"x": {"minimum": 2}})));
    let (old, new) = (compile(&before).1, compile(&after).1);
    let diff = compare(&before, &after, false);
    let change = &diff.changes[0];
    assert!(old[change.before.expect("stands there")..].starts_with('1'), "{change:?}");
    assert!(new[change.after.expect("stands there")..].starts_with('2'), "{change:?}");
}

#[test]
fn numbers_of_versions_are_held_against_the_change() {
    let at = |version: &str, most: u64| json!({"x-weir-version": version, "type": "object", "properties": {"x": {"type": "integer", "maximum": most}}});
    for (before, after, least, fits) in [
        (at("1.2.0", 5), at("1.3.0", 4), "2.0.0", false),
        (at("1.2.0", 5), at("2.0.0", 4), "2.0.0", true),
        (at("1.2.0", 5), at("1.3.0", 6), "1.3.0", true),
        (at("1.2.0", 5), at("1.2.1", 6), "1.3.0", false),
        (at("1.2.0", 5), at("1.2.0", 5), "1.2.0", true),
        (at("1.2.0", 5), at("1.1.9", 5), "1.2.0", false),
    ] {
        let numbers = compare(&before, &after, false).numbers.expect("both have one");
        assert_eq!((numbers.least.to_string().as_str(), numbers.fit()), (least, fits), "{numbers:?}");
    }
    assert_eq!(compare(&at("1.0.0", 1), &row_of(json!({})), false).numbers, None);
}

#[test]
fn the_shipped_contracts_are_compared_in_no_time() {
    for name in ["flight", "plane", "airport", "weather"] {
        let path = format!("{}/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let before: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("shipped")).expect("JSON");
        assert_eq!(compare(&before, &before, false).verdict, Verdict::Compatible, "{name}");
        let mut after = before.clone();
        after["properties"]["more"] = json!(true);
        let diff = compare(&before, &after, true);
        assert_eq!(diff.verdict, Verdict::Compatible, "{name}: {:?}", diff.changes);
        let required = after["required"].as_array_mut().expect("a list");
        required.push(json!("more"));
        assert_eq!(compare(&before, &after, true).verdict, Verdict::Breaking, "{name}");
    }
}

#[test]
fn schemas_that_refer_to_themselves_and_deep_ones_come_to_an_end() {
    let tree = |most: u64| {
        json!({"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}, "u": {"$ref": "#"}}, "$defs": {
            "t": {"type": "object", "properties": {"a": {"$ref": "#/$defs/t"}, "b": {"$ref": "#/$defs/t"}, "n": {"maximum": most}}}}})
    };
    let diff = compare(&tree(5), &tree(4), false);
    assert!(diff.verdict > Verdict::Compatible);
    assert!(diff.changes.iter().any(|change| change.message == "\"maximum\" of \"t.n\" went from 5 to 4"), "{:?}", diff.changes);
    for wrap in ["properties", "not", "items", "allOf"] {
        let deep = |most: u64| {
            (0..50).fold(json!({"type": "integer", "maximum": most}), |inner, _| match wrap {
                "properties" => json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
                "allOf" => json!({"allOf": [inner]}),
                wrap => json!({wrap: inner}),
            })
        };
        assert!(compare(&row_of(json!({"x": deep(5)})), &row_of(json!({"x": deep(4)})), false).verdict > Verdict::Compatible, "{wrap}");
    }
}

fn limit() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(0),
        json!(5),
        json!(-1),
        json!(1.5),
        json!(5.0),
        json!(9_007_199_254_740_993_i64),
        json!(u64::MAX),
        json!(1e300),
    ])
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        limit(),
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(false),
            json!(""),
            json!("abc"),
            json!("äöü"),
            json!("1970-01-01"),
            json!([]),
            json!([1]),
            json!([1, 1]),
            json!({}),
            json!({"a": 1}),
            json!({"a": "abc", "b": null}),
        ])
    ]
}

fn word() -> impl Strategy<Value = (&'static str, Value)> {
    let kind = || prop::sample::select(vec!["null", "boolean", "integer", "number", "string", "array", "object"]);
    prop_oneof![
        4 => kind().prop_map(|kind| ("type", json!(kind))),
        3 => prop::collection::btree_set(kind(), 1..4).prop_map(|kinds| ("type", json!(kinds))),
        2 => prop::collection::vec(value(), 1..4).prop_map(|mut values| {
            values.sort_by_key(Value::to_string);
            values.dedup();
            ("enum", json!(values))
        }),
        1 => value().prop_map(|value| ("const", value)),
        2 => limit().prop_map(|limit| ("minimum", limit)),
        2 => limit().prop_map(|limit| ("maximum", limit)),
        1 => limit().prop_map(|limit| ("exclusiveMinimum", limit)),
        1 => prop::sample::select(vec![json!(1), json!(2), json!(5), json!(0.5)]).prop_map(|by| ("multipleOf", by)),
        1 => (0_u64..5).prop_map(|least| ("minLength", json!(least))),
        1 => (0_u64..5).prop_map(|most| ("maxLength", json!(most))),
        1 => (0_u64..3).prop_map(|most| ("maxItems", json!(most))),
        1 => any::<bool>().prop_map(|unique| ("uniqueItems", json!(unique))),
        1 => prop::sample::select(vec!["date", "uuid", "made-up"]).prop_map(|format| ("format", json!(format))),
        1 => prop::sample::select(vec!["^a", "ü$", "\\d"]).prop_map(|pattern| ("pattern", json!(pattern))),
        1 => prop::sample::select(vec!["a", "b"]).prop_map(|name| ("required", json!([name]))),
        1 => Just(("additionalProperties", json!(false))),
        1 => Just(("title", json!("says nothing"))),
    ]
}

fn cell() -> impl Strategy<Value = Value> {
    let plain = prop::collection::vec(word(), 0..4)
        .prop_map(|words| Value::Object(words.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
    let plain = prop_oneof![12 => plain, 1 => any::<bool>().prop_map(Value::Bool), 1 => Just(json!({"$ref": "#/$defs/shared"}))];
    plain.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"allOf": parts})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"anyOf": parts})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"oneOf": parts})),
            inner.clone().prop_map(|part| json!({"not": part})),
            inner.clone().prop_map(|part| json!({"items": part})),
            inner.clone().prop_map(|part| json!({"type": "object", "properties": {"a": part}})),
            (inner.clone(), inner.clone(), inner).prop_map(|(when, then, other)| json!({"if": when, "then": then, "else": other})),
        ]
    })
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A schema of a row.
fn schema() -> impl Strategy<Value = Value> {
    let properties = prop::collection::btree_map(prop::sample::select(NAMES.to_vec()), cell(), 0..4);
    let required = prop::collection::btree_set(prop::sample::select(NAMES.to_vec()), 0..2);
    (properties, required, 0_u8..12, cell(), 0_u8..8).prop_map(|(properties, required, more, shared, draft)| {
        let mut schema = json!({"type": "object", "properties": properties, "required": required, "$defs": {"shared": shared}});
        match more {
            0 | 1 => schema["additionalProperties"] = json!(false),
            2 => schema["additionalProperties"] = json!({"type": "integer"}),
            3 => schema["dependentRequired"] = json!({"a": ["b"]}),
            4 => schema["maxProperties"] = json!(1),
            5 => schema["minProperties"] = json!(2),
            6 => schema["patternProperties"] = json!({"^a": {"type": "integer"}}),
            7 => schema["propertyNames"] = json!({"enum": ["a", "b"]}),
            8 => schema["unevaluatedProperties"] = json!(false),
            _ => {}
        }
        if draft == 0 {
            schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
            schema["definitions"] = schema["$defs"].clone();
        }
        schema
    })
}

/// Two schemas that have much in common.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    let change = (prop::sample::select(NAMES.to_vec()), cell(), 0_u8..6, word());
    prop_oneof![
        1 => (schema(), schema()),
        4 => (schema(), prop::collection::vec(change, 0..3)).prop_map(|(before, changes)| {
            let mut after = before.clone();
            for (name, cell, how, (keyword, value)) in changes {
                let properties = after["properties"].as_object_mut().expect("an object");
                match how {
                    0 => drop(properties.insert(name.into(), cell)),
                    1 => drop(properties.remove(name)),
                    2 | 3 => {
                        if let Some(Value::Object(members)) = properties.get_mut(name) {
                            members.insert(keyword.into(), value);
                        }
                    }
                    4 => {
                        if let Some(Value::Object(members)) = properties.get_mut(name) {
                            members.remove(keyword);
                        }
                    }
                    _ => after["required"] = json!([name]),
                }
            }
            (before, after)
        }),
    ]
}

#[test]
fn the_generated_pairs_come_to_every_verdict() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut counts = std::collections::HashMap::new();
    for _ in 0..600 {
        let (before, after) = pair().new_tree(&mut runner).expect("a pair").current();
        let compiles = |schema: &Value| Contract::compile("test", &schema.to_string()).is_ok();
        if before != after && compiles(&before) && compiles(&after) {
            *counts.entry(compare(&before, &after, false).rows.as_str()).or_insert(0) += 1;
        }
    }
    // Otherwise the test below would say little.
    for verdict in ["compatible", "breaking", "cannot tell"] {
        assert!(counts.get(verdict).is_some_and(|count| *count >= 20), "{counts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn what_is_called_compatible_is(
        (before, after) in pair(),
        rows in prop::collection::vec(prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c", "d"]), value(), 0..4), 24),
    ) {
        let options = || jsonschema::options().offline().should_validate_formats(true);
        // Some generated texts are no contract.
        let (Ok(_), Ok(_)) = (Contract::compile("a", &before.to_string()), Contract::compile("b", &after.to_string())) else { return Ok(()) };
        let diff = compare(&before, &after, false);
        let (a, b) = (options().build(&before).expect("compiles"), options().build(&after).expect("compiles"));
        for row in rows {
            let row = json!(row);
            if a.is_valid(&row) && !b.is_valid(&row) {
                prop_assert!(diff.rows != Verdict::Compatible, "{row} was valid and is not\n{before}\n{after}\n{:?}", diff.changes);
            }
        }
        prop_assert_eq!(diff.changes.iter().map(|change| change.verdict).max().unwrap_or(Verdict::Compatible), diff.verdict);
    }
}
