//! NDJSON from bytes to rows: each rule of the format, and random records.

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Field, Fields, Schema, TimeUnit},
    json::LineDelimitedWriter,
};
use proptest::prelude::*;

use super::*;

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn decode(block: &str, wanted: &SchemaRef) -> Decoded {
    let format = NdjsonFormat { lines: true, ..NdjsonFormat::default() };
    format.decoder(block.as_bytes(), wanted.clone(), None).unwrap().decoder.decode(block.as_bytes(), 1).unwrap()
}

/// The rows as arrow writes them.
fn written(rows: &RecordBatch) -> Vec<serde_json::Value> {
    let mut writer = LineDelimitedWriter::new(vec![]);
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What becomes of one JSON value in a column: its text, or code and reason.
fn value(kind: DataType, json: &str) -> Result<Option<String>, (&'static str, String)> {
    let decoded = decode(&format!("{{\"v\":{json}}}\n"), &schema(vec![Field::new("v", kind, true)]));
    match decoded.bad.into_iter().next() {
        Some(bad) => Err((bad.code, bad.reason)),
        None => {
            let text = cast(decoded.rows.column(0), &DataType::Utf8).unwrap();
            Ok(text.as_string::<i32>().iter().next().unwrap().map(str::to_owned))
        }
    }
}

#[test]
fn a_value_is_of_its_columns_type_or_the_line_is_bad() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (kind, json, expected) in [
        (DataType::Int64, "-7", "-7"),
        (DataType::Int64, "1.0", "1"),
        (DataType::Int64, "12e2", "1200"),
        (DataType::UInt8, "255", "255"),
        (DataType::Float64, "3", "3.0"),
        (DataType::Boolean, "true", "true"),
        (DataType::Utf8, "\"a\\u00e9\\n\\ud83d\\ude00\"", "aé\n😀"),
        (DataType::Date32, "\"2013-01-02\"", "2013-01-02"),
        (DataType::Time64(TimeUnit::Microsecond), "\"05:06\"", "05:06:00"),
        (utc.clone(), "\"2013-01-01T05:00:00-05:00\"", "2013-01-01T10:00:00Z"),
        (DataType::Decimal128(20, 2), "12345678901234567.89", "12345678901234567.89"),
        (DataType::Decimal128(20, 2), "\"1.5\"", "1.50"),
    ] {
        assert_eq!(value(kind.clone(), json), Ok(Some(expected.into())), "{kind} {json}");
        assert_eq!(value(kind, "null"), Ok(None));
    }
    for (kind, json, reason) in [
        (DataType::Int64, "1.5", "expected int64, found 1.5"),
        (DataType::Int64, "\"1\"", "expected int64, found \"1\""),
        (DataType::Int8, "128", "expected int8, found 128"),
        (DataType::Float64, "1e999", "expected float64, found 1e999"),
        (DataType::Boolean, "1", "expected boolean, found 1"),
        (DataType::Utf8, "5", "expected text, found 5"),
        (DataType::Utf8, "{\"a\": 1}", "expected text, found {\"a\": 1}"),
        (DataType::Date32, "\"2013-02-30\"", "expected date (YYYY-MM-DD), found \"2013-02-30\""),
        (DataType::Decimal128(4, 2), "1.234", "expected decimal(4, 2), found 1.234"),
        (DataType::Null, "1", "expected null, found 1"),
    ] {
        assert_eq!(value(kind, json), Err(("wrong-type", reason.into())));
    }
    assert!(value(utc, "\"2013-01-01T05:00:00\"").is_err(), "a zoned column takes zoned timestamps");
}

fn nested() -> SchemaRef {
    let item = Fields::from(vec![Field::new("sku", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]);
    schema(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("items", DataType::List(Arc::new(Field::new("item", DataType::Struct(item), true))), true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ])
}

#[test]
fn a_bad_line_leaves_no_trace_in_nested_columns() {
    let block = r#"{"id":1,"items":[{"sku":"a","n":1},null,{"n":2}],"tags":[]}
{"id":2,"items":[{"sku":"b"},{"n":"x"}],"tags":["lost"]}

{"id":3,"tags":["t",null],"items":null,"other":{"deep":[1,2]}}
{"id":4,"items":[{"sku":"c","n":3}],"tags":["u"
{"tags":["v"],"items":[],"id":5}
"#;
    let decoded = decode(block, &nested());
    assert_eq!(
        written(&decoded.rows),
        [
            serde_json::json!({"id":1,"items":[{"sku":"a","n":1},null,{"n":2}],"tags":[]}),
            serde_json::json!({"id":3,"tags":["t",null]}),
            serde_json::json!({"id":5,"items":[],"tags":["v"]}),
        ]
    );
    assert_eq!(decoded.lines.values(), &[1, 4, 6]);
    let bad: Vec<_> = decoded.bad.iter().map(|b| (b.line, b.code, b.column.as_deref(), b.reason.as_str())).collect();
    assert_eq!(
        bad,
        [
            (2, "wrong-type", Some("items[1].n"), "expected int64, found \"x\""),
            (5, "malformed", None, "the line is no JSON object: it ends inside an object or an array"),
        ]
    );
}

#[test]
fn lines_that_are_no_objects_are_malformed() {
    let wanted = schema(vec![Field::new("a", DataType::Int64, true)]);
    for (line, reason) in [
        ("[1]", "expected an object, found an array"),
        ("7", "expected an object, found a number"),
        ("{\"a\":1} x", "the line is no JSON object: it goes on after its end"),
        ("{\"a\":01}", "the line is no JSON object: it holds a number that JSON does not know"),
        ("{\"a\":\"x\",", "the line is no JSON object: it ends inside an object"),
        ("{\"a\":1,\"a\":2}", "the object has this key twice"),
        ("{a:1}", "the line is no JSON object: it lacks a key in quotes"),
        ("{\"z\":\"\\ud800\"}", "the line is no JSON object: it holds half a surrogate pair"),
        ("{\"z\":\"\\x\"}", "the line is no JSON object: it holds an escape that JSON does not know"),
    ] {
        let decoded = decode(&format!("{{\"a\":1}}\r\n{line}\n{{\"a\":2}}"), &wanted);
        assert_eq!(decoded.rows.num_rows(), 2, "{line}");
        assert_eq!((decoded.bad[0].line, decoded.bad[0].code, decoded.bad[0].reason.as_str()), (2, "malformed", reason), "{line}");
        assert_eq!(decoded.bad[0].raw, line);
    }
    let deep = format!("{{\"z\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(decode(&deep, &wanted).bad[0].reason, "the line is no JSON object: it is nested deeper than 128");
    let decoder = NdjsonFormat { record_max_bytes: 10, lines: false }.decoder(b"", wanted, None).unwrap().decoder;
    let decoded = decoder.decode(b"{\"a\":1}\n{\"a\":    1}\n{\"a\":\xFF}", 1).unwrap();
    let reasons: Vec<_> = decoded.bad.iter().map(|b| b.reason.as_str()).collect();
    assert_eq!((decoded.rows.num_rows(), reasons), (1, vec!["record is longer than 10 bytes", "the line is not UTF-8"]));
}

#[test]
fn a_column_that_asks_for_json_text_keeps_any_value() {
    let wanted = schema(vec![json_text("v"), Field::new("n", DataType::Int64, false)]);
    let decoded = decode("{\"v\":{\"a\": [1]},\"n\":1}\n{\"v\":\"s\",\"n\":2}\n{\"v\":null,\"n\":3}\n{\"v\":1}\n{\"n\":null}\n", &wanted);
    let values: Vec<_> = decoded.rows.column(0).as_string::<i32>().iter().collect();
    assert_eq!(values, [Some("{\"a\": [1]}"), Some("\"s\""), None]);
    let reasons: Vec<_> = decoded.bad.iter().map(|b| (b.column.as_deref(), b.reason.as_str())).collect();
    assert_eq!(reasons, [(Some("n"), "expected int64, found no such key"), (Some("n"), "expected int64, found null")]);
}

#[test]
fn a_type_that_json_does_not_make_is_an_error_of_its_setting() {
    let error = NdjsonFormat::default().decoder(b"", schema(vec![Field::new("a", DataType::Date64, true)]), None).unwrap_err();
    assert_eq!((error.code, error.setting.as_deref()), ("json-type", Some("format")));
}

fn inferred(blocks: &[&str]) -> Vec<Field> {
    let mut state = Inference::default();
    for (i, block) in blocks.iter().enumerate() {
        NdjsonFormat::default().infer(i == 0, block.as_bytes(), &mut state).unwrap();
    }
    state.fields()
}

#[test]
fn types_are_merged_over_all_records() {
    let all = [
        "{\"i\":1,\"f\":1,\"s\":\"x\",\"b\":true,\"n\":null,\"l\":[1],\"o\":{\"a\":1},\"m\":{\"a\":1},\"e\":[],\"big\":1}\n",
        "torn {\n{\"l\":[2.5,null],\"f\":2.5,\"o\":{\"b\":[{\"c\":true}]},\"m\":3,\"late\":0,\"big\":18446744073709551616}\n",
    ];
    let item = |kind| DataType::List(Arc::new(Field::new("item", kind, true)));
    let object = |fields: Vec<(&str, DataType)>| DataType::Struct(fields.into_iter().map(|(n, k)| Field::new(n, k, true)).collect());
    let expected = vec![
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("n", DataType::Utf8, true),
        Field::new("l", item(DataType::Float64), true),
        Field::new("o", object(vec![("a", DataType::Int64), ("b", item(object(vec![("c", DataType::Boolean)])))]), true),
        json_text("m"),
        Field::new("e", item(DataType::Null), true),
        json_text("big"),
        Field::new("late", DataType::Int64, true),
    ];
    assert_eq!(inferred(&all), expected);
    let wanted = schema(inferred(&all));
    let decoded = decode(&all.concat(), &wanted);
    assert_eq!((decoded.rows.num_rows(), decoded.bad.len()), (2, 1), "what is inferred is read");
}

#[test]
fn a_line_that_breaks_off_tells_nothing_of_what_stood_before() {
    let all = "{\"a\":1}\n\n{\"a\":1.5,\"b\":{\"c\":true},\n{\"a\":2} x\n[{\"d\":1}]\n{\"e\":\"x\"}";
    assert_eq!(inferred(&[all]), [Field::new("a", DataType::Int64, true), Field::new("e", DataType::Utf8, true)]);
    let deep = |levels: usize| format!("{{\"a\":{}1{}}}\n", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(inferred(&[&deep(127)]).len(), 1);
    assert_eq!(inferred(&[&deep(128), "{\"b\":1}"]), [Field::new("b", DataType::Int64, true)], "no reader goes so deep");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9f64..1e9).prop_map(Into::into),
        "[a-zé\"\\\\\n\t😀]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Without nulls, which arrow does not write.
fn bare(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(members) => {
            serde_json::Value::Object(members.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, bare(v))).collect())
        }
        serde_json::Value::Array(items) => items.into_iter().map(bare).collect(),
        value => value,
    }
}

proptest! {
    #[test]
    fn blocks_learnt_from_side_by_side_say_what_they_say_in_turn(
        records in prop::collection::vec((prop::collection::btree_map("[a-d]", json(), 0..4), 0..12), 1..12),
        cuts in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut blocks = vec![String::new()];
        for ((record, fault), cut) in records.into_iter().zip(cuts) {
            let text = serde_json::Value::Object(record.into_iter().collect()).to_string();
            let torn = &text[..text.floor_char_boundary(text.len() * 2 / 3)];
            blocks.last_mut().unwrap().push_str(&format!("{}\n", if fault == 0 { torn } else { &text }));
            if cut {
                blocks.push(String::new());
            }
        }
        let format = NdjsonFormat::default();
        let (mut turn, mut beside) = (Inference::default(), Inference::default());
        format.infer(true, blocks[0].as_bytes(), &mut turn).unwrap();
        format.infer(true, blocks[0].as_bytes(), &mut beside).unwrap();
        let start = Inference { records: 0, ..beside.clone() };
        for block in &blocks[1..] {
            format.infer(false, block.as_bytes(), &mut turn).unwrap();
            let mut own = start.clone();
            format.infer(false, block.as_bytes(), &mut own).unwrap();
            format.merge(own, &mut beside);
        }
        prop_assert_eq!((beside.fields(), beside.records), (turn.fields(), turn.records));
    }

    #[test]
    fn any_records_are_read_with_the_types_inferred_from_them(records in prop::collection::vec(prop::collection::btree_map("[a-d]", json(), 0..4), 1..8)) {
        let records: Vec<serde_json::Value> = records.into_iter().map(|m| serde_json::Value::Object(m.into_iter().collect())).collect();
        let block: String = records.iter().map(|r| format!("{r}\n")).collect();
        let wanted = schema(inferred(&[&block]));
        let decoded = decode(&block, &wanted);
        prop_assert_eq!(&decoded.bad, &vec![]);
        prop_assert_eq!(decoded.rows.num_rows(), records.len());
        if wanted.fields().iter().all(|f| !format!("{f:?}").contains(JSON_TEXT)) {
            let normal = |v: serde_json::Value| {
                // 1 in a float column is written 1.0.
                fn floats(v: serde_json::Value) -> serde_json::Value {
                    match v {
                        serde_json::Value::Number(n) => serde_json::json!(n.as_f64().unwrap()),
                        serde_json::Value::Array(items) => items.into_iter().map(floats).collect(),
                        serde_json::Value::Object(members) => serde_json::Value::Object(members.into_iter().map(|(k, v)| (k, floats(v))).collect()),
                        v => v,
                    }
                }
                floats(bare(v))
            };
            let read: Vec<_> = written(&decoded.rows).into_iter().map(normal).collect();
            prop_assert_eq!(read, records.into_iter().map(normal).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_line_makes_it_panic_and_every_line_is_accounted_for(lines in prop::collection::vec("[\\[\\]{}\",:0-9a-z\\\\ .-]{1,40}|\\{\"id\":[0-9]{1,3}\\}", 0..20)) {
        let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let decoded = decode(&block, &nested());
        prop_assert_eq!(decoded.rows.num_rows() + decoded.bad.len(), lines.iter().filter(|l| !l.trim().is_empty()).count());
        for (i, line) in lines.iter().enumerate() {
            let torn = decoded.bad.iter().any(|b| b.line == i as u64 + 1 && b.reason.starts_with("the line is no JSON"));
            if !line.trim().is_empty() && !line.contains("\\u") && serde_json::from_str::<serde_json::Value>(line).is_ok() {
                prop_assert!(!torn, "{} is JSON", line);
            }
        }
    }
}
