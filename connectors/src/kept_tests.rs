//! Tests of `kept`: what the quarantine keeps of a row is read back as it was.

use arrow::{
    array::*,
    buffer::OffsetBuffer,
    datatypes::{Fields, Int32Type},
};

use super::*;

fn back(array: &ArrayRef) -> (ArrayRef, Vec<Unfit>) {
    let field = Field::new("x", array.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![array.clone()]).expect("a batch");
    let texts: Vec<String> = (0..batch.num_rows()).map(|row| weir_schemas::json::text(&batch, row)).collect();
    let rows: Vec<Kept<'_>> = texts.iter().map(|raw| Kept { raw, fields: None }).collect();
    column(&field, &rows, false).expect("reads")
}

#[test]
fn every_type_that_is_read_back_is_read_back_exactly() {
    let structs = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(NullArray::new(2)),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(-128), None, Some(127)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)])),
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::NEG_INFINITY)])),
        Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::INFINITY), Some(-0.0), Some(5e-324)])),
        Arc::new(Decimal128Array::from(vec![Some(i128::MAX / 10), None, Some(-500)]).with_precision_and_scale(38, 9).expect("fits")),
        Arc::new(StringArray::from(vec![Some(""), None, Some("null"), Some("\u{0}\"\\ é 😀\n"), Some(" 5 ")])),
        Arc::new(LargeStringArray::from(vec![Some("a"), None])),
        Arc::new(StringViewArray::from(vec![Some("a long enough text to be a view of"), None])),
        Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("a"), None, Some("b"), Some("a")])),
        Arc::new(BinaryArray::from(vec![Some(&b"\xFF\x00"[..]), None, Some(b"")])),
        Arc::new(LargeBinaryArray::from(vec![Some(&b"\xFF\x00"[..]), None])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [255; 16]].into_iter()).expect("fits")),
        Arc::new(Date32Array::from(vec![Some(0), None, Some(-719_162), Some(2_932_896)])),
        Arc::new(Date64Array::from(vec![Some(0), None, Some(86_400_000)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        Arc::new(Time32SecondArray::from(vec![Some(0), None, Some(86_399)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None, Some(1_359_627_300_000_001)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None, Some(-1)]).with_timezone("UTC")),
        Arc::new(TimestampNanosecondArray::from(vec![Some(1), None]).with_timezone("America/New_York")),
        Arc::new(TimestampSecondArray::from(vec![Some(1), None])),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])])),
        Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])])),
        Arc::new(StructArray::new(
            structs,
            vec![Arc::new(Int64Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec![None, Some("b")]))],
            None,
        )),
    ];
    for array in columns {
        let (read, unfit) = back(&array);
        assert_eq!((&read, unfit), (&array, vec![]), "{}", array.data_type());
    }
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    assert!(back(&nan).0.as_primitive::<arrow::datatypes::Float64Type>().value(0).is_nan());
}

#[test]
fn a_value_of_a_type_that_is_not_read_back_is_unfit_and_a_null_is_not() {
    let reason = |data_type: &str| vec![Unfit { row: 0, reason: format!("values of type {data_type} are not read back from JSON") }];
    let durations: ArrayRef = Arc::new(DurationMicrosecondArray::from(vec![Some(1), None]));
    let (read, unfit) = back(&durations);
    assert_eq!((read.null_count(), unfit), (2, reason("Duration(µs)")));
    let entries = StructArray::from(vec![
        (Arc::new(Field::new("keys", DataType::Utf8, false)), Arc::new(StringArray::from(vec!["k"])) as ArrayRef),
        (Arc::new(Field::new("values", DataType::Int32, true)), Arc::new(Int32Array::from(vec![1])) as ArrayRef),
    ]);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let map: ArrayRef = Arc::new(MapArray::new(field, OffsetBuffer::from_lengths([1]), entries, None, false));
    assert_eq!(back(&map).1.len(), 1);
}

#[test]
fn a_cell_that_does_not_fit_does_not_take_its_row_along() {
    let rows = [
        Kept { raw: r#"{"id": "three", "zip": "94105"}"#, fields: None },
        Kept { raw: "three,94105", fields: Some(r#"{"id":"three","zip":"94105"}"#) },
        Kept { raw: "007,00501", fields: Some(r#"{"id":"007","zip":"00501"}"#) },
        Kept { raw: "1,2,3", fields: None },
        Kept { raw: r#"{"zip": null}"#, fields: None },
        Kept { raw: r#"{"id": "7", "zip": 5}"#, fields: None },
    ];
    let said = |field: Field| {
        let (array, unfit) = column(&field, &rows, false).expect("reads");
        let text = cast(&array, &DataType::Utf8).expect("text");
        let cells: Vec<Option<String>> = text.as_string::<i32>().iter().map(|cell| cell.map(str::to_owned)).collect();
        (cells, unfit.into_iter().map(|unfit| (unfit.row, unfit.reason)).collect::<Vec<_>>())
    };
    let (ids, unfit) = said(Field::new("id", DataType::Int64, true));
    assert_eq!(ids, [None, None, Some("7".to_owned()), None, None, None]);
    let wrong = |row, reason: &str| (row, reason.to_owned());
    assert_eq!(
        unfit,
        [
            wrong(0, "expected int64, found \"three\""),
            wrong(1, "expected int64, found \"three\""),
            wrong(3, UNREADABLE),
            wrong(5, "expected int64, found \"7\"")
        ]
    );
    let (zips, unfit) = said(Field::new("zip", DataType::Utf8, true));
    assert_eq!(zips, [Some("94105"), Some("94105"), Some("00501"), None, None, Some("5")].map(|zip| zip.map(str::to_owned)));
    assert_eq!(unfit, [wrong(3, UNREADABLE), wrong(5, "expected text, found 5")]);
    let (array, unfit) = column(&Field::new("zip", DataType::Utf8, true), &rows[5..], true).expect("reads");
    assert_eq!((array.as_string::<i32>().value(0), unfit), ("5", vec![]));
}
