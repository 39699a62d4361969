//! Tests of `json`: every Arrow type as JSON.

use std::{collections::HashMap, sync::Arc};

use ::arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{Fields, IntervalDayTime, Schema, UnionFields, i256},
};
use serde_json::json;

use super::*;

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns fit")
}

fn one(array: impl Array + 'static) -> RecordBatch {
    batch(vec![(Field::new("x", array.data_type().clone(), true), Arc::new(array))])
}

/// All rows of a single column; the text form must parse to the same values.
fn values(array: impl Array + 'static) -> Vec<Value> {
    let batch = one(array);
    let values: Vec<Value> = (0..batch.num_rows()).map(|index| row(&batch, index)["x"].clone()).collect();
    for (index, value) in values.iter().enumerate() {
        let parsed: Value = serde_json::from_str(&text(&batch, index)).expect("text is JSON");
        assert_eq!(parsed["x"], *value, "text and value agree");
    }
    values
}

#[test]
fn integers_keep_all_64_bits() {
    assert_eq!(values(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])), [json!(i64::MIN), json!(null), json!(i64::MAX)]);
    assert_eq!(values(UInt64Array::from(vec![u64::MAX])), [json!(u64::MAX)]);
    assert_eq!(values(Int8Array::from(vec![-128])), [json!(-128)]);
    assert_eq!(values(UInt16Array::from(vec![65535])), [json!(65535)]);
}

#[test]
fn floats_are_the_shortest_number_and_non_numbers_are_text() {
    let array = Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(values(array), [json!(0.1), json!("NaN"), json!("Infinity"), json!("-Infinity")]);
    assert_eq!(values(Float32Array::from(vec![0.1, 1e30, f32::NAN])), [json!(0.1), json!(1e30), json!("NaN")]);
}

#[test]
fn decimals_are_numbers_and_their_text_has_every_digit() {
    let array = Decimal128Array::from(vec![1234, -500]).with_precision_and_scale(20, 2).expect("fits");
    assert_eq!(values(array), [json!(12.34), json!(-5.0)]);
    let array = Decimal128Array::from(vec![12_345_678_901_234_567_800]).with_precision_and_scale(20, 2).expect("fits");
    assert_eq!(row(&one(array), 0)["x"], json!(123_456_789_012_345_678_i64));
    let array = Decimal128Array::from(vec![123_456_789_012_345_678_901_234_567_890]).with_precision_and_scale(38, 9).expect("fits");
    assert_eq!(text(&one(array), 0), r#"{"x":123456789012345678901.234567890}"#);
    let array = Decimal256Array::from(vec![i256::from_i128(7)]).with_precision_and_scale(60, 0).expect("fits");
    assert_eq!(values(array), [json!(7)]);
}

#[test]
fn instants_are_utc_and_local_times_have_no_zone() {
    let micros = 1_359_627_300_000_001;
    let array = TimestampMicrosecondArray::from(vec![micros]);
    assert_eq!(values(array.clone().with_timezone("UTC")), [json!("2013-01-31T10:15:00.000001Z")]);
    assert_eq!(values(array.clone().with_timezone("+02:00")), [json!("2013-01-31T10:15:00.000001Z")]);
    assert_eq!(values(array), [json!("2013-01-31T10:15:00.000001")]);
    assert_eq!(values(TimestampSecondArray::from(vec![-1])), [json!("1969-12-31T23:59:59")]);
    assert_eq!(values(Date32Array::from(vec![15736])), [json!("2013-01-31")]);
    assert_eq!(values(Date64Array::from(vec![-1])), [json!("1969-12-31")]);
    assert_eq!(values(Time64MicrosecondArray::from(vec![36_900_500_000])), [json!("10:15:00.500Z")]);
    assert_eq!(values(Time32SecondArray::from(vec![0])), [json!("00:00:00Z")]);
    assert_eq!(values(DurationMillisecondArray::from(vec![90_000])), [json!("PT1M30S")]);
    assert_eq!(values(IntervalYearMonthArray::from(vec![14])), [json!("P1Y2M")]);
    assert_eq!(values(IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 1500)])), [json!("P1DT1.5S")]);
}

#[test]
fn binary_of_every_kind_is_base64() {
    let bytes: Vec<&[u8]> = vec![b"", b"f", b"fo", b"foo", b"foob", b"\xff\xfe\xfd"];
    let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "//79"].map(Value::from);
    assert_eq!(values(BinaryArray::from(bytes.clone())), expected);
    assert_eq!(values(LargeBinaryArray::from(bytes.clone())), expected);
    assert_eq!(values(BinaryViewArray::from(bytes)), expected);
    assert_eq!(values(FixedSizeBinaryArray::try_from_iter([b"foo"].into_iter()).expect("fits")), ["Zm9v"]);
}

#[test]
fn text_of_every_kind_is_text() {
    let expected = [json!("a\"é"), json!(null), json!("")];
    let plain = StringArray::from(vec![Some("a\"é"), None, Some("")]);
    for kind in [DataType::LargeUtf8, DataType::Utf8View, DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))] {
        let array = cast(&plain, &kind).expect("casts");
        assert_eq!(values(make_array(array.to_data())), expected, "{kind}");
    }
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec![Some("a"), None])).expect("runs");
    assert_eq!(values(runs), [json!("a"), json!("a"), json!(null)]);
}

#[test]
fn a_dictionary_with_a_null_value_is_null() {
    let array = DictionaryArray::new(Int32Array::from(vec![0, 1]), Arc::new(StringArray::from(vec![Some("a"), None])));
    assert_eq!(values(array), [json!("a"), json!(null)]);
}

#[test]
fn json_text_is_the_value_it_spells_where_it_is_json() {
    let marked = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]);
    let field = Field::new("x", DataType::Utf8, true).with_metadata(marked);
    let batch = batch(vec![(field, Arc::new(StringArray::from(vec![r#"{"a":[1]}"#, "torn{"])))]);
    assert_eq!(row(&batch, 0)["x"], json!({"a": [1]}));
    assert_eq!(row(&batch, 1)["x"], json!("torn{"));
    assert_eq!(text(&batch, 0), r#"{"x":{"a":[1]}}"#);
}

#[test]
fn nested_values_keep_their_shape() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let expected = [json!([1, null]), json!(null), json!([])];
    for kind in [DataType::LargeList(item.clone()), DataType::ListView(item.clone()), DataType::LargeListView(item.clone())] {
        assert_eq!(values(make_array(cast(&list, &kind).expect("casts").to_data())), expected, "{kind}");
    }
    let fields = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", list.data_type().clone(), true)]);
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(7), None, Some(9)])), Arc::new(list.clone())];
    let array = StructArray::new(fields, columns, Some(NullBuffer::from(vec![true, true, false])));
    assert_eq!(values(array), [json!({"a": 7, "b": [1, null]}), json!({"a": null, "b": null}), json!(null)]);
    let fixed = FixedSizeListArray::new(item, 2, Arc::new(Int64Array::from(vec![1, 2, 3, 4])), None);
    assert_eq!(values(fixed), [json!([1, 2]), json!([3, 4])]);
}

#[test]
fn maps_are_objects_whatever_their_keys() {
    let pair = Fields::from(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, true)]);
    let entries: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, 2, 3])), Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]))];
    let entries = StructArray::new(pair.clone(), entries, None);
    let field = Arc::new(Field::new("entries", DataType::Struct(pair), false));
    let array = MapArray::new(field, OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 3])), entries, None, false);
    assert_eq!(values(array), [json!({"1": "a", "2": null}), json!({"3": "c"})]);
}

#[test]
fn a_union_is_the_value_inside() {
    let fields =
        UnionFields::try_new([3, 5], [Field::new("i", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]).expect("fields");
    let children: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec!["a"]))];
    let offsets = ScalarBuffer::from(vec![0, 0, 1]);
    let array = UnionArray::try_new(fields, ScalarBuffer::from(vec![3, 5, 3]), Some(offsets), children).expect("union");
    assert_eq!(values(array), [json!(1), json!("a"), json!(null)]);
}
