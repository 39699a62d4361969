//! Tests of `infer`: a contract made from rows is a contract, and all of these rows keep it.

use std::{collections::HashMap, sync::Arc};

use ::arrow::{
    array::{
        BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array,
        Int64Array, Int64Builder, IntervalMonthDayNanoArray, ListArray, MapBuilder, NullArray, StringArray, StringBuilder, StringViewArray,
        StructArray, Time64MicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{Int32Type, IntervalMonthDayNano},
};
use proptest::prelude::*;

use super::*;
use crate::{Contract, arrow::JSON_TEXT};

const LOOSE: Options = Options { values: true, strict: false, narrow: true };
const STRICT: Options = Options { strict: true, ..LOOSE };

fn infer(batches: &[RecordBatch], options: Options) -> Value {
    let mut observer = Observer::new(&batches[0].schema(), options).expect("can be observed");
    batches.iter().for_each(|batch| observer.observe(batch).expect("is observed"));
    let (keys, whole) = observer.keys();
    assert!(whole);
    observer.contract("rows", &keys, Map::new())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).expect("a batch")
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Columns of many kinds, with the values where a rule may turn wrong.
fn columns(pick: &[usize]) -> RecordBatch {
    fn take<T: Clone>(pick: &[usize], shift: usize, values: &[Option<T>]) -> Vec<Option<T>> {
        pick.iter().enumerate().map(|(row, pick)| values[(pick + row * shift) % values.len()].clone()).collect()
    }
    let rows = pick.len();
    let ints = [None, Some(0), Some(5), Some(i64::MAX), Some(i64::MIN), Some((1 << 53) + 1)];
    let floats = [None, Some(0.5), Some(-0.0), Some(f64::NAN), Some(f64::NEG_INFINITY), Some(1e300)];
    let words = [None, Some(""), Some("a"), Some("äöü"), Some("2024-01-01"), Some("5f0c7a1e-0000-4000-8000-0000000000ff")];
    let days = [None, Some(0), Some(-719_163), Some(i32::MAX), Some(2_932_896)];
    let instants = [None, Some(0), Some(i64::MIN), Some(253_402_300_800_000)];
    let offsets: Vec<i32> = (0..=rows).map(|row| row as i32).collect();
    let some = NullBuffer::from_iter(pick.iter().map(|pick| pick % 4 != 0));
    let list = |array: ArrayRef| {
        let item = Arc::new(Field::new("item", array.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::new(offsets.clone().into()), array, Some(some.clone()))) as ArrayRef
    };
    let structure = StructArray::new(
        vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Float64, true), Field::new("n", DataType::Null, true)]
            .into(),
        vec![
            Arc::new(Int64Array::from(take(pick, 1, &ints))),
            Arc::new(Float64Array::from(take(pick, 2, &floats))),
            Arc::new(NullArray::new(rows)),
        ],
        Some(some.clone()),
    );
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for pick in pick {
        if pick % 3 > 0 {
            map.keys().append_value("k");
            map.values().append_option((pick % 3 == 1).then_some(1));
        }
        map.append(pick % 3 > 0).expect("a map");
    }
    let structure: ArrayRef = Arc::new(structure);
    let marked = |name: &str, mark: (&str, &str)| {
        Field::new(name, DataType::Utf8, true).with_metadata(HashMap::from([(mark.0.to_owned(), mark.1.to_owned())]))
    };
    let documents: ArrayRef = Arc::new(StringArray::from(take(pick, 2, &[None, Some("{}"), Some("{\"a\":1}"), Some("[1]"), Some("7")])));
    let mut columns: Vec<(Field, ArrayRef)> =
        vec![(marked("json", JSON_TEXT), documents.clone()), (marked("mixed", ("weir:json", "true")), documents)];
    let plain: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(take(pick, 1, &ints)))),
        ("u", Arc::new(UInt64Array::from(take(pick, 1, &[Some(0), Some(u64::MAX), None])))),
        ("b", Arc::new(Int8Array::from(take(pick, 0, &[Some(1_i8), Some(-128)])))),
        ("f", Arc::new(Float64Array::from(take(pick, 3, &floats)))),
        ("g", Arc::new(Float32Array::from(take(pick, 1, &[Some(0.1_f32), Some(f32::INFINITY), None, Some(1e-40)])))),
        ("t", Arc::new(StringArray::from(take(pick, 1, &words)))),
        ("v", Arc::new(StringViewArray::from(take(pick, 5, &words)))),
        ("k", Arc::new(DictionaryArray::<Int32Type>::from_iter(take(pick, 2, &words)))),
        ("x", Arc::new(FixedSizeBinaryArray::try_from_iter((0..rows).map(|row| [row as u8; 2])).expect("bytes"))),
        ("d", Arc::new(Date32Array::from(take(pick, 1, &days)))),
        ("z", Arc::new(TimestampMillisecondArray::from(take(pick, 1, &instants)).with_timezone("UTC"))),
        ("w", Arc::new(TimestampNanosecondArray::from(take(pick, 1, &[Some(1), Some(i64::MIN), None])))),
        ("c", Arc::new(Time64MicrosecondArray::from(take(pick, 1, &[Some(0), Some(86_400_000_000), None])))),
        ("p", Arc::new(IntervalMonthDayNanoArray::from(take(pick, 1, &[None, Some(IntervalMonthDayNano::new(1, 2, 3))])))),
        (
            "m",
            Arc::new(
                Decimal128Array::from(take(
                    pick,
                    1,
                    &[None, Some(0_i128), Some(501), Some(99_999_999_999_999_999_999), Some(12_345_678_901_234_567_890)],
                ))
                .with_precision_and_scale(38, 2)
                .expect("decimals"),
            ),
        ),
        (
            "e",
            Arc::new(
                Decimal128Array::from(take(pick, 1, &[Some(1_i128), Some(-250), Some(999)]))
                    .with_precision_and_scale(9, 2)
                    .expect("decimals"),
            ),
        ),
        ("y", Arc::new(BooleanArray::from(take(pick, 1, &[None, Some(true), Some(false)])))),
        ("n", Arc::new(NullArray::new(rows))),
        ("h", Arc::new(map.finish())),
        ("lf", list(Arc::new(Float64Array::from(take(pick, 1, &floats))))),
        ("lt", list(Arc::new(StringArray::from(take(pick, 1, &words))))),
        ("ls", list(structure.clone())),
        ("s", structure),
    ];
    columns.extend(plain.into_iter().map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array)));
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch")
}

proptest! {
    #[test]
    fn every_row_that_was_seen_keeps_the_contract(
        picks in prop::collection::vec(prop::collection::vec(0_usize..60, 1..30), 1..4),
        narrow in any::<bool>(),
    ) {
        let batches: Vec<RecordBatch> = picks.iter().map(|pick| columns(pick)).collect();
        for options in [Options { narrow, ..LOOSE }, Options { narrow, ..STRICT }, Options { values: false, ..LOOSE }] {
            let text = infer(&batches, options).to_string();
            let contract = Contract::compile("inferred", &text).unwrap_or_else(|error| panic!("{error}: {text}"));
            for batch in &batches {
                let violations = contract.check(batch).violations;
                prop_assert!(violations.is_empty(), "{violations:?}: {text}");
            }
        }
    }
}

#[test]
fn what_was_seen_is_told_apart_from_what_is_a_rule() {
    let rows = 40;
    let id: Vec<i64> = (0..rows).collect();
    let state: Vec<&str> = (0..rows).map(|row| if row % 2 == 0 { "open" } else { "shut" }).collect();
    let price: Vec<Option<f64>> = (0..rows).map(|row| (row % 10 != 9).then_some(row as f64 / 4.0)).collect();
    let batch = batch(vec![
        ("id", Arc::new(Int64Array::from(id))),
        ("state", Arc::new(StringArray::from(state))),
        ("price", Arc::new(Float64Array::from(price))),
        ("note", texts(&vec![None; rows as usize])),
    ]);
    let expected = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rows",
        "$comment": "made from data: types and \"required\" are rules; what stands under \"x-weir-seen\" was seen and is no rule",
        "type": "object",
        "properties": {
            "id": {"type": "integer", "examples": [0, 1, 2], "x-weir-seen": {"nulls": 0, "range": [0, 39], "distinct": 40}},
            "state": {"type": "string", "x-weir-seen": {"nulls": 0, "length": [4, 4], "distinct": 2, "enum": ["open", "shut"]}},
            "price": {"type": "number", "examples": [0.0, 0.25, 0.5], "x-weir-seen": {"nulls": 4, "nulls_share": 0.1, "range": [0.0, 9.5], "distinct": 36}},
            "note": {"x-weir-seen": {"nulls": 40, "nulls_share": 1.0, "type": "only nulls were seen: say here what it is"}}
        },
        "required": ["id", "state"],
        "x-weir-seen": {"rows": 40, "keys": [["id"]]}
    });
    assert_eq!(infer(std::slice::from_ref(&batch), LOOSE), expected);
    let strict = infer(std::slice::from_ref(&batch), STRICT);
    assert_eq!(strict["properties"]["id"]["minimum"], json!(0));
    assert_eq!(strict["properties"]["id"]["maximum"], json!(39));
    assert_eq!(strict["properties"]["state"]["enum"], json!(["open", "shut"]));
    assert_eq!(strict["properties"]["state"]["maxLength"], json!(4));
    assert_eq!(strict["additionalProperties"], json!(false));
    let quiet = infer(&[batch], Options { values: false, ..LOOSE }).to_string();
    for shown in ["open", "9.5", "39", "examples"] {
        assert!(!quiet.contains(shown), "{shown}: {quiet}");
    }
}

#[test]
fn texts_become_dates_only_where_the_format_has_none() {
    let day = batch(vec![("day", texts(&[Some("2026-03-02"), None])), ("at", texts(&[Some("2026-03-02T10:00:00Z"), None]))]);
    let narrow = infer(std::slice::from_ref(&day), LOOSE);
    assert_eq!(narrow["properties"]["day"]["format"], "date");
    assert_eq!(narrow["properties"]["at"]["format"], "date-time");
    let wide = infer(&[day], Options { narrow: false, ..LOOSE });
    assert_eq!(wide["properties"]["day"].get("format"), None);
}

#[test]
fn counting_ends_where_there_are_too_many_values() {
    let many: Vec<String> = (0..2000).map(|row| format!("value {row}")).collect();
    let schema = infer(&[batch(vec![("t", Arc::new(StringArray::from(many)))])], LOOSE);
    assert_eq!(schema["properties"]["t"]["x-weir-seen"]["distinct"], "more than 1000");
    let long = "x".repeat(5000);
    let schema = infer(&[batch(vec![("t", texts(&[Some(&long), Some("y")]))])], LOOSE);
    assert_eq!(schema["properties"]["t"]["x-weir-seen"]["length"], json!([1, 5000]));
    assert!(!schema.to_string().contains("xxxx"));
}

#[test]
fn no_rows_make_a_contract_too() {
    let schema = infer(&[columns(&[1]).slice(0, 0)], LOOSE);
    assert_eq!(schema["required"], json!([]));
    Contract::compile("inferred", &schema.to_string()).expect("compiles");
}
