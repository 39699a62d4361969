//! Every Arrow type with its extremes, into a table and back.

use arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer},
    compute::{concat_batches, sort_to_indices, take_record_batch},
    datatypes::*,
};

use super::*;

fn rows() -> RecordBatch {
    let year_9999 = 253_402_300_799_999_999i64;
    let list = {
        let mut list = ListBuilder::new(Int64Builder::new());
        list.append_value([Some(i64::MAX), None]);
        list.append_null();
        list.append_value(Vec::<Option<i64>>::new());
        list.finish()
    };
    let inner: Fields = vec![Field::new("x", DataType::UInt32, true), Field::new("ü z", DataType::Utf8, true)].into();
    let record = StructArray::new(
        inner,
        vec![Arc::new(UInt32Array::from(vec![u32::MAX, 1, 2])), Arc::new(StringArray::from(vec![Some(""), Some("b"), None]))],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let map = {
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        map.keys().append_value("k");
        map.values().append_value(i32::MIN);
        map.append(true).expect("appended");
        map.append(false).expect("appended");
        map.append(true).expect("appended");
        map.finish()
    };
    let large = LargeListArray::new(
        Arc::new(Field::new("item", DataType::Float32, true)),
        OffsetBuffer::<i64>::from_lengths([2, 0, 1]),
        Arc::new(Float32Array::from(vec![f32::MIN, f32::NAN, 0.5])),
        Some(NullBuffer::from(vec![true, true, true])),
    );
    let words: DictionaryArray<Int32Type> = vec![Some("one"), None, Some("one")].into_iter().collect();
    batch(vec![
        ("row", Arc::new(Int32Array::from(vec![0, 1, 2]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("i8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("u8", Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)]))),
        ("u16", Arc::new(UInt16Array::from(vec![Some(0), None, Some(u16::MAX)]))),
        ("u32", Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)]))),
        ("u64", Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(f32::MIN), None, Some(f32::NEG_INFINITY)]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(f64::MIN_POSITIVE)]))),
        ("zero", Arc::new(Float64Array::from(vec![Some(-0.0), Some(0.0), Some(f64::INFINITY)]))),
        ("text", Arc::new(StringArray::from(vec![Some(""), None, Some("00501 \u{0} \u{1F600}\n\"")]))),
        ("large_text", Arc::new(LargeStringArray::from(vec![Some("null"), None, Some("x".repeat(5000).as_str())]))),
        ("view_text", Arc::new(StringViewArray::from(vec![Some("short"), None, Some("longer than twelve bytes")]))),
        ("words", Arc::new(words)),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b""[..]), None, Some(&[0, 255])]))),
        ("view_bytes", Arc::new(BinaryViewArray::from(vec![Some(&b"a"[..]), None, Some(&[0, 255])]))),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1u8, 2]), None, Some([0, 0])].into_iter(), 2).expect("fixed"),
            ),
        ),
        ("date", Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(2_932_896)]))),
        ("date64", Arc::new(Date64Array::from(vec![Some(-86_400_000), None, Some(86_400_000)]))),
        ("utc", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(year_9999)]).with_timezone("UTC"))),
        ("berlin", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None, Some(1_700_000_000_123)]).with_timezone("Europe/Berlin"))),
        ("wall", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(year_9999)]))),
        ("seconds", Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(253_402_300_799)]))),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![Some(-1_000), None, Some(i64::MAX)]))),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![Some(-1), None, Some(10i128.pow(38) - 1)]).with_precision_and_scale(38, 10).expect("decimal"),
            ),
        ),
        (
            "wide",
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from_i128(-5)), None, Some(i256::from_i128(7))])
                    .with_precision_and_scale(60, 2)
                    .expect("decimal"),
            ),
        ),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)]))),
        ("duration", Arc::new(DurationSecondArray::from(vec![Some(-90), None, Some(90)]))),
        ("interval", Arc::new(IntervalYearMonthArray::from(vec![Some(-1), None, Some(14)]))),
        ("nothing", Arc::new(NullArray::new(3))),
        ("list", Arc::new(list)),
        ("large_list", Arc::new(large)),
        ("record", Arc::new(record)),
        ("map", Arc::new(map)),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back_as_it_went_in() {
    let lake = Lake::new();
    let rows = rows();
    let lossy = ["nanos", "wide", "time", "duration", "interval"];
    let error = publish(&sink(), &cx(&lake.run(1), Mode::Append), rows.clone()).await.expect_err("lossy");
    assert!(lossy.iter().all(|name| error.message.contains(&format!("\"{name}\""))), "{error}");
    let asked =
        |number| SinkContext { allow_lossy: lossy.iter().map(ToString::to_string).collect(), ..cx(&lake.run(number), Mode::Append) };
    publish(&sink(), &asked(1), rows.clone()).await.expect("published");
    publish(&sink(), &asked(2), rows.slice(0, 0)).await.expect("the same columns fit again");

    let table = open_table(&lake.path(), &HashMap::new(), "s", "t", Version::Newest).await.expect("opened").expect("a table");
    let session = SessionContext::new();
    let read = session.read_table(provider(&table).await.expect("a provider")).expect("read").collect().await.expect("ran");
    let read = concat_batches(&read[0].schema(), &read).expect("one batch");
    let order = sort_to_indices(read.column(0), None, None).expect("sorted");
    let read = take_record_batch(&read, &order).expect("taken");
    assert_eq!(read.num_rows(), 3);
    for (index, field) in rows.schema().fields().iter().enumerate() {
        let lake = crate::lake::types::map(field.data_type()).expect("mapped").lake;
        let sent =
            crate::lake::types::cast(&crate::lake::types::convert(field.name(), rows.column(index), &lake).expect("converted"), &lake)
                .expect("plain");
        let came = crate::lake::types::convert(field.name(), read.column(index), &lake)
            .map(|array| crate::lake::types::cast(&array, &lake).expect("plain"))
            .expect("read");
        assert!(sent.to_data() == came.to_data(), "{}: {sent:?} became {came:?}", field.name());
    }
    for (name, value) in [("i64", i64::MAX.to_string()), ("u64", u64::MAX.to_string()), ("text", "'00501 \u{0} \u{1F600}\n\"'".into())] {
        assert_eq!(lake.query(&format!("select \"row\" from t where {name} = {value}"), Version::Newest).await, ["2"], "{name}");
    }
    assert_eq!(lake.query("select \"row\" from t where utc > to_timestamp_micros(253402300799999998)", Version::Newest).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_column_of_any_type_comes_back() {
    let rows = rows();
    for name in ["bool", "i8", "i64", "u64", "view_text", "words", "date", "utc", "wall", "money"] {
        let lake = Lake::new();
        let schema = rows.schema();
        let index = schema.index_of(name).expect("a column");
        // The empty string cannot be a partition value, so its row is left out.
        let part = rows.project(&[0, index]).expect("projected").slice(1, 2);
        let by = LakeSink { partition_by: vec![name.into()], ..sink() };
        publish(&by, &cx(&lake.run(1), Mode::Append), part.clone()).await.expect("published");
        let plain = Lake::new();
        publish(&sink(), &cx(&plain.run(1), Mode::Append), part).await.expect("published");
        let sql = format!("select \"row\", \"{name}\" from t");
        assert_eq!(lake.query(&sql, Version::Newest).await, plain.query(&sql, Version::Newest).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_names_are_kept_whatever_they_are() {
    let lake = Lake::new();
    let names = ["a b", "a.b", "Größe", "select", "UPPER", "a\"b", "x'y", "-", "_file"];
    let columns = || {
        names
            .iter()
            .map(|name| (*name, Arc::new(StringArray::from(vec![*name])) as ArrayRef))
            .chain([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
    };
    for number in 1..=2 {
        publish(&sink(), &cx(&lake.run(number), Mode::Merge), batch(columns().collect())).await.expect("published");
    }
    assert_eq!(lake.rows().await, [format!("{}|1", names.join("|"))]);
}
