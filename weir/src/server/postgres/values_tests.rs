//! Are values written as Postgres writes them?

use arrow::{
    array::{
        BinaryArray, BooleanArray, DurationSecondArray, FixedSizeBinaryArray, Int8Array, Int64Builder, ListArray, MapBuilder,
        StringBuilder, StructArray, TimestampNanosecondArray, UInt64Array,
    },
    datatypes::Int64Type as I64,
};

use super::*;

fn text_of(field: Field, array: ArrayRef) -> Vec<Option<String>> {
    let column = Column::new(&field, &array).expect("a column");
    let one = |row| {
        let mut out = BytesMut::new();
        column.text(row, &Style::default(), &mut out).expect("written");
        String::from_utf8(out.to_vec()).expect("UTF-8")
    };
    (0..array.len()).map(|row| (!column.is_null(row)).then(|| one(row))).collect()
}

fn plain(array: ArrayRef) -> Vec<Option<String>> {
    text_of(Field::new("c", array.data_type().clone(), true), array)
}

fn binary_of(array: ArrayRef) -> Vec<u8> {
    let column = Column::new(&Field::new("c", array.data_type().clone(), true), &array).expect("a column");
    let mut out = BytesMut::new();
    column.binary(0, &mut out).expect("written");
    out.to_vec()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn numbers_are_written_as_postgres_writes_them() {
    let floats =
        Float64Array::from(vec![0.1, 1e15, 123_456_789_012_345.0, 1e-5, -0.0001, f64::NAN, f64::NEG_INFINITY, 1.5e300, 0.0, 100.0]);
    let expected = ["0.1", "1e+15", "123456789012345", "1e-05", "-0.0001", "NaN", "-Infinity", "1.5e+300", "0", "100"].map(some).to_vec();
    assert_eq!(plain(Arc::new(floats)), expected);
    let floats = Float32Array::from(vec![0.1, 1e6, 123_456.0]);
    assert_eq!(plain(Arc::new(floats)), ["0.1", "1e+06", "123456"].map(some));
    assert_eq!(plain(Arc::new(UInt64Array::from(vec![u64::MAX]))), [some("18446744073709551615")]);
    assert_eq!(plain(Arc::new(Int8Array::from(vec![Some(-128), None]))), [some("-128"), None]);
    let decimals = Decimal128Array::from(vec![-5, 12_345, 0]).with_precision_and_scale(38, 3).expect("fits");
    assert_eq!(plain(Arc::new(decimals)), ["-0.005", "12.345", "0.000"].map(some));
    let decimals = Decimal128Array::from(vec![12, 0]).with_precision_and_scale(10, -2).expect("fits");
    assert_eq!(plain(Arc::new(decimals)), ["1200", "0"].map(some));
}

#[test]
fn a_numeric_is_groups_of_four_digits() {
    let one =
        |value: i128, scale| binary_of(Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).expect("fits")));
    // 12345.67: groups 1, 2345, 6700; the first is worth 10000 once.
    assert_eq!(one(1_234_567, 2), [0, 3, 0, 1, 0, 0, 0, 2, 0, 1, 0x09, 0x29, 0x1a, 0x2c]);
    assert_eq!(one(0, 2), [0, 0, 0, 0, 0, 0, 0, 2]);
    // -0.0005: the group behind the point.
    assert_eq!(one(-5, 4), [0, 1, 0xff, 0xff, 0x40, 0, 0, 4, 0, 5]);
    // 10000: one group, worth 10000 once.
    assert_eq!(one(10_000, 0), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn lists_are_arrays_and_their_special_values_are_quoted() {
    let numbers = ListArray::from_iter_primitive::<I64, _, _>(vec![Some(vec![Some(1), None]), Some(vec![]), None]);
    assert_eq!(plain(Arc::new(numbers.clone())), [some("{1,NULL}"), some("{}"), None]);
    let expected = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255];
    assert_eq!(binary_of(Arc::new(numbers)), expected);
    let texts = StringArray::from(vec!["a b", "", "null", "q\"\\", "plain", "{x}"]);
    let list = ListArray::new(
        Arc::new(Field::new("item", DataType::Utf8, true)),
        arrow::buffer::OffsetBuffer::from_lengths([6]),
        Arc::new(texts),
        None,
    );
    assert_eq!(plain(Arc::new(list)), [some(r#"{"a b","","null","q\"\\",plain,"{x}"}"#)]);
}

#[test]
fn what_is_nested_is_json() {
    let fields = vec![
        (Arc::new(Field::new("a", DataType::Int64, true)), Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec![Some("x\"")])) as ArrayRef),
    ];
    let record = StructArray::from(fields);
    assert_eq!(plain(Arc::new(record)), [some(r#"{"a":1,"b":"x\""}"#)]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(2);
    map.append(true).expect("whole");
    map.append(false).expect("whole");
    assert_eq!(plain(Arc::new(map.finish())), [some(r#"{"k":2}"#), None]);
    let json = Field::new("c", DataType::Utf8, true).with_metadata([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())].into());
    assert_eq!(text_of(json, Arc::new(StringArray::from(vec!["{\"a\":[1]}"]))), [some("{\"a\":[1]}")]);
}

#[test]
fn other_types_have_their_forms() {
    assert_eq!(plain(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))), [some("t"), some("f"), None]);
    assert_eq!(plain(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))), [some("\\x00ff")]);
    let uuid = FixedSizeBinaryArray::try_from_iter([[0x12_u8; 16]].into_iter()).expect("16 bytes");
    let field = Field::new("c", DataType::FixedSizeBinary(16), true)
        .with_metadata([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())].into());
    assert_eq!(text_of(field, Arc::new(uuid)), [some("12121212-1212-1212-1212-121212121212")]);
    let stamps = TimestampNanosecondArray::from(vec![1_357_034_400_123_456_789, -1]);
    assert_eq!(plain(Arc::new(stamps)), ["2013-01-01 10:00:00.123456", "1969-12-31 23:59:59.999999"].map(some));
    assert_eq!(plain(Arc::new(DurationSecondArray::from(vec![100_000]))), [some("27:46:40")]);
    assert_eq!(plain(Arc::new(arrow::array::NullArray::new(1))), [None]);
    let far = arrow::array::TimestampSecondArray::from(vec![i64::MAX]);
    let column = Column::new(&Field::new("far", far.data_type().clone(), true), &(Arc::new(far) as ArrayRef)).expect("a column");
    let error = column.text(0, &Style::default(), &mut BytesMut::new()).expect_err("too far");
    assert_eq!(error.to_string(), "a value of column \"far\" is out of the range of its type");
}
