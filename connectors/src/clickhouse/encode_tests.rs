//! Values that fit are sent, those that do not are named.

use arrow::{
    array::{
        Date32Array, Decimal128Array, DurationSecondArray, Float16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListBuilder,
        NullArray, StringArray, StringViewArray, Time32SecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    },
    buffer::NullBuffer,
    datatypes::{Int32Type, IntervalMonthDayNano},
    ipc::reader::StreamReader,
};

use super::*;

fn encoder(array: &ArrayRef, column: &str, lossy: bool, wide: bool) -> Result<Encoder> {
    let rows = Schema::new(vec![Field::new("x", array.data_type().clone(), true)]);
    let target = Target { name: "x".into(), column: Type::parse(column), source: 0, key: false, lossy };
    Encoder::new("out", vec![target], wide, &rows)
}

fn convert_with(array: ArrayRef, column: &str, lossy: bool, wide: bool) -> Result<ArrayRef> {
    let encoder = encoder(&array, column, lossy, wide)?;
    let batch = RecordBatch::try_from_iter_with_nullable([("x", array, true)]).expect("a batch");
    Ok(encoder.convert(&batch)?.column(0).clone())
}

fn convert(array: ArrayRef, column: &str) -> Result<ArrayRef> {
    convert_with(array, column, false, false)
}

fn refused(array: ArrayRef, column: &str) -> (&'static str, String) {
    let error = convert(array, column).expect_err("it does not fit");
    (error.code, error.message)
}

const MICRO: i64 = 1_000_000;

#[test]
fn an_instant_outside_the_servers_years_is_refused_and_never_clamped() {
    let at = |micros: i64| Arc::new(TimestampMicrosecondArray::from(vec![None, Some(0), Some(micros)])) as ArrayRef;
    let (first, last) = (YEAR_1900 * MICRO, YEAR_2300 * MICRO - 1);
    for fits in [first, last] {
        assert!(convert(at(fits), "Nullable(DateTime64(6, 'UTC'))").is_ok());
    }
    assert_eq!(
        refused(at(last + 1), "Nullable(DateTime64(6, 'UTC'))"),
        (
            "value-out-of-range",
            "column \"x\" holds 2300-01-01T00:00:00, which the type DateTime64(6, 'UTC') cannot: it is outside what this server holds"
                .into()
        )
    );
    assert_eq!(refused(at(first - 1), "Nullable(DateTime64(6, 'UTC'))").0, "value-out-of-range");
    // Year 9999, where the server has it.
    let last = YEAR_10000 * MICRO - 1;
    assert!(convert_with(at(last), "Nullable(DateTime64(6, 'UTC'))", false, true).is_ok());
    assert!(convert_with(at(last + 1), "Nullable(DateTime64(6, 'UTC'))", false, true).is_err());
    assert!(convert_with(at(YEAR_1 * MICRO - 1), "Nullable(DateTime64(6, 'UTC'))", false, true).is_err());
}

#[test]
fn dates_are_checked_like_instants() {
    let day = |day: i32| Arc::new(Date32Array::from(vec![Some(0), None, Some(day)])) as ArrayRef;
    for (column, wide, fits, not) in [
        ("Nullable(Date32)", false, [-25_567, 120_529], [-25_568, 120_530]),
        ("Nullable(Date32)", true, [-719_162, 2_932_896], [-719_163, 2_932_897]),
        ("Nullable(Date)", true, [0, 65_535], [-1, 65_536]),
    ] {
        for value in fits {
            assert!(convert_with(day(value), column, false, wide).is_ok(), "{column} {value}");
        }
        for value in not {
            assert_eq!(convert_with(day(value), column, false, wide).expect_err("outside").code, "value-out-of-range", "{column} {value}");
        }
    }
}

#[test]
fn nanoseconds_reach_as_far_as_64_bits() {
    let seconds = |value: i64| Arc::new(TimestampSecondArray::from(vec![value])) as ArrayRef;
    assert!(convert_with(seconds(9_223_372_036), "DateTime64(9, 'UTC')", false, true).is_ok());
    assert!(convert_with(seconds(9_223_372_037), "DateTime64(9, 'UTC')", false, true).is_err());
    let nanos = |value: i64| Arc::new(TimestampNanosecondArray::from(vec![value])) as ArrayRef;
    assert!(convert_with(nanos(i64::MAX), "DateTime64(9, 'UTC')", false, true).is_ok());
    assert!(convert_with(nanos(i64::MIN + 1), "DateTime64(9, 'UTC')", false, true).is_ok());
    assert!(convert_with(nanos(i64::MIN + 1), "DateTime64(9, 'UTC')", false, false).is_err(), "1677 is before 1900");
}

#[test]
fn a_fraction_that_would_be_cut_is_refused_unless_that_is_accepted() {
    let at = Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001])) as ArrayRef;
    assert_eq!(
        refused(at.clone(), "DateTime64(6, 'UTC')").1,
        "column \"x\" holds 1970-01-01T00:00:00.000001001, which the type DateTime64(6, 'UTC') cannot: it has more digits after the second"
    );
    let cut = convert_with(at, "DateTime64(6, 'UTC')", true, false).expect("accepted");
    assert_eq!(cut.as_primitive::<TimestampMicrosecondType>().values(), &[1, 1]);
    let whole = Arc::new(TimestampMicrosecondArray::from(vec![5 * MICRO])) as ArrayRef;
    assert_eq!(convert(whole, "DateTime").expect("whole").as_primitive::<TimestampSecondType>().value(0), 5);
    let before = Arc::new(TimestampMicrosecondArray::from(vec![-5 * MICRO])) as ArrayRef;
    assert_eq!(refused(before, "DateTime").0, "value-out-of-range");
}

#[test]
fn a_null_where_none_may_be_is_an_error() {
    let holed = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
    assert_eq!(refused(holed.clone(), "Int64"), ("null-in-column", "column \"x\" holds a null, which the table does not allow".into()));
    assert!(convert(holed.clone(), "Nullable(Int64)").is_ok());
    let rows = Schema::new(vec![Field::new("x", DataType::Int64, true)]);
    let target = Target { name: "x".into(), column: Type::Int(64), source: 0, key: true, lossy: false };
    let batch = RecordBatch::try_from_iter_with_nullable([("x", holed, true)]).expect("a batch");
    let error = Encoder::new("out", vec![target], false, &rows).expect("an encoder").convert(&batch).expect_err("a null key");
    assert_eq!((error.code, error.message.as_str()), ("null-key", "sink \"out\" got a row whose key column \"x\" is null"));
    // A null hides in the values of a dictionary as well.
    let values = Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef;
    let hidden = arrow::array::DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0, 1]), values).expect("a dictionary");
    assert_eq!(refused(Arc::new(hidden), "String").0, "null-in-column");
}

fn list(rows: &[Option<&[i32]>]) -> ArrayRef {
    let mut list = ListBuilder::new(arrow::array::Int32Builder::new());
    for row in rows {
        list.append_option(row.map(|row| row.iter().copied().map(Some)));
    }
    Arc::new(list.finish())
}

#[test]
fn a_null_list_is_refused_unless_an_empty_one_is_accepted() {
    let lists = list(&[Some(&[1]), None, Some(&[])]);
    assert_eq!(
        refused(lists.clone(), "Array(Int32)"),
        ("null-in-column", "column \"x\" holds a null list, and ClickHouse has none".into())
    );
    let lists = convert_with(lists, "Array(Int32)", true, false).expect("accepted");
    assert_eq!((lists.null_count(), lists.as_list::<i32>().value_length(1)), (0, 0));
}

#[test]
fn values_that_no_row_speaks_of_are_not_judged() {
    // The second list is null, yet spans a day that no server holds; the first row is cut off.
    let days = Date32Array::from(vec![i32::MIN, 1, i32::MAX, 2]);
    let offsets = OffsetBuffer::new(vec![0, 1, 2, 3, 4].into());
    let nulls = NullBuffer::from(vec![true, true, false, true]);
    let item = Arc::new(Field::new("item", DataType::Date32, true));
    let lists = Arc::new(ListArray::try_new(item, offsets, Arc::new(days), Some(nulls)).expect("lists")) as ArrayRef;
    let lists = convert_with(lists.slice(1, 3), "Array(Date32)", true, false).expect("the rest fits");
    let lists = lists.as_list::<i32>();
    assert_eq!(lists.values().as_primitive::<Date32Type>().values(), &[1, 2]);
    assert_eq!((lists.value_length(0), lists.value_length(1), lists.value_length(2)), (1, 0, 1));
}

#[test]
fn a_null_struct_is_refused_unless_one_of_nulls_is_accepted() {
    let fields = vec![Field::new("b", DataType::Int32, true), Field::new("a", DataType::Utf8, true)];
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["p", "q"]))];
    let structs: ArrayRef =
        Arc::new(StructArray::try_new(fields.into(), columns, Some(NullBuffer::from(vec![true, false]))).expect("structs"));
    let column = "Tuple(a Nullable(String), b Nullable(Int32))";
    assert_eq!(refused(structs.clone(), column).1, "column \"x\" holds a null struct, and ClickHouse has none");
    let structs = convert_with(structs, column, true, false).expect("accepted");
    let structs = structs.as_struct();
    assert_eq!(structs.column_names(), ["a", "b"], "in the table's order");
    assert_eq!((structs.null_count(), structs.column(0).is_null(1), structs.column(1).is_null(1)), (0, true, true));
}

#[test]
fn what_is_lossy_becomes_text() {
    let text = |array: ArrayRef| convert_with(array, "String", true, false).expect("text").as_string::<i32>().value(0).to_owned();
    assert_eq!(text(Arc::new(Time32SecondArray::from(vec![34_200]))), "09:30:00");
    assert_eq!(text(Arc::new(DurationSecondArray::from(vec![90]))), "PT90S");
    let interval = IntervalMonthDayNano { months: 14, days: -2, nanoseconds: 3_500_000_000 };
    assert_eq!(text(Arc::new(IntervalMonthDayNanoArray::from(vec![interval]))), "P14M-2DT3.5S");
    assert_eq!((iso_interval(0, 0, 0), iso_interval(0, 0, -1)), ("PT0S".into(), "PT-0.000000001S".into()));
}

#[test]
fn decimals_are_checked_for_the_digits_they_promise() {
    let lying = Decimal128Array::from(vec![12_345]).with_precision_and_scale(38, 1).expect("decimals");
    let narrow = arrow::array::make_array(lying.into_data().into_builder().data_type(DataType::Decimal128(4, 1)).build().expect("data"));
    assert_eq!(
        refused(narrow, "Decimal(4, 1)"),
        ("value-out-of-range", "column \"x\": a value has more digits than the type Decimal(4, 1)".into())
    );
    let whole = Decimal128Array::from(vec![12]).with_precision_and_scale(2, -2).expect("decimals");
    let whole = convert(Arc::new(whole), "Decimal(4, 0)").expect("fits");
    assert_eq!(whole.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 1_200);
}

#[test]
fn a_stream_reads_back_whole_and_views_and_nulls_have_plain_layouts() {
    let views = Arc::new(StringViewArray::from(vec![Some("a text longer than twelve bytes"), None])) as ArrayRef;
    let encoder = encoder(&views, "Nullable(String)", false, false).expect("an encoder");
    let mut frames = Frames::new(&encoder).expect("a stream");
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let batch = RecordBatch::try_from_iter_with_nullable([("x", views.clone(), true)]).expect("a batch");
        bytes.extend(frames.batch(&encoder.convert(&batch).expect("converted")).expect("bytes"));
    }
    bytes.extend(frames.end().expect("bytes"));
    let batches: Vec<_> = StreamReader::try_new(bytes.as_slice(), None).expect("a stream").collect::<Result<_, _>>().expect("batches");
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[1].column(0).data_type(), &DataType::Utf8);
    assert_eq!(batches[1].column(0).as_string::<i32>().value(0), "a text longer than twelve bytes");
    assert_eq!(convert(Arc::new(NullArray::new(2)), "Nullable(Int64)").expect("nulls").data_type(), &DataType::Int64);
    assert_eq!(convert(Arc::new(Float16Array::from(vec![None; 2])), "Nullable(Float32)").expect("floats").data_type(), &DataType::Float32);
}

#[test]
fn a_piece_that_is_still_read_is_not_filled_again_and_one_that_is_not_is() {
    let batch =
        |value: i64| RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![value; 1000])) as ArrayRef)]).expect("a batch");
    let encoder = encoder(batch(0).column(0), "Int64", false, false).expect("an encoder");
    let mut frames = Frames::new(&encoder).expect("a stream");
    let mut next = |value: i64| frames.batch(&encoder.convert(&batch(value)).expect("converted")).expect("bytes");
    let held: Vec<Bytes> = (0..10).map(&mut next).collect();
    for (value, piece) in (0_i64..).zip(&held) {
        assert!(piece.windows(8).filter(|bytes| **bytes == value.to_le_bytes()).count() >= 1000, "piece {value}");
    }
    let places: Vec<*const u8> = held.iter().map(|piece| piece.as_ptr()).collect();
    drop(held);
    assert!(places.contains(&next(10).as_ptr()));
}
