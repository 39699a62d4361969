//! Random schemas and rows of every type of the matrix, loaded into a table and read back equal.

use std::collections::HashMap;

use arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer},
    compute::cast,
    datatypes::*,
};

use super::{bench::Bench, *};

/// Numbers that look random, the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
    fn between(&mut self, low: i64, high: i64) -> i64 {
        match self.below(8) {
            0 => low,
            1 => high,
            2 => 0.clamp(low, high),
            _ => low + i64::try_from(self.next() % high.abs_diff(low).max(1)).unwrap_or_default(),
        }
    }
    fn text(&mut self) -> String {
        let parts = [
            "",
            "a",
            "NULL",
            "\\N",
            "null",
            "'",
            "\"",
            "`",
            "\n",
            "\t",
            "\0",
            "ß",
            "日本",
            "🦀",
            "007",
            " ",
            ",",
            "\\",
            "nan",
            "x".repeat(40).leak(),
        ];
        (0..self.below(4)).map(|_| parts[usize::try_from(self.below(parts.len() as u64)).expect("small")]).collect()
    }
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }
    fn nulls(&mut self, rows: usize, nullable: bool) -> NullBuffer {
        (0..rows).map(|_| !nullable || self.below(4) > 0).collect()
    }
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// Types whose values are not nested.
fn plain(random: &mut Random) -> Field {
    use DataType::*;
    let zones = [None, Some("UTC"), Some("Europe/Berlin"), Some("+05:30")];
    let zone = zones[usize::try_from(random.below(4)).expect("small")].map(Into::into);
    let precision = u8::try_from(random.below(38) + 1).expect("small");
    let scale = i8::try_from(random.below(u64::from(precision) + 1)).expect("small");
    let types = [
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Decimal32(7, 2),
        Decimal64(16, 5),
        Decimal128(precision, scale),
        Decimal128(5, -3),
        Decimal256(76, scale),
        Decimal256(precision, scale),
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(5),
        FixedSizeBinary(16),
        Date32,
        Date64,
        Timestamp(TimeUnit::Second, zone.clone()),
        Timestamp(TimeUnit::Millisecond, zone.clone()),
        Timestamp(TimeUnit::Microsecond, zone.clone()),
        Timestamp(TimeUnit::Nanosecond, zone),
        Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Nanosecond),
        Duration(TimeUnit::Microsecond),
        Null,
        Dictionary(Box::new(Int16), Box::new(Utf8)),
    ];
    let made = field("x", types[usize::try_from(random.below(types.len() as u64)).expect("small")].clone());
    match made.data_type() {
        FixedSizeBinary(16) => made.with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())])),
        _ => made,
    }
}

fn any_type(random: &mut Random, depth: u32) -> Field {
    use DataType::*;
    let inner = |random: &mut Random, name: &str| {
        let made = any_type(random, depth - 1);
        let nested = matches!(made.data_type(), List(_) | LargeList(_) | Struct(_) | Map(..) | FixedSizeList(..));
        made.with_name(name).with_nullable(!nested)
    };
    match random.below(if depth == 0 { 4 } else { 8 }) {
        4 => field("x", List(Arc::new(inner(random, "item")))),
        5 => field("x", LargeList(Arc::new(inner(random, "element")))),
        6 => {
            let fields: Vec<Field> = ["a", "b c", "`d'\\\""].iter().map(|name| inner(random, name)).collect();
            field("x", Struct(fields.into()))
        }
        7 => {
            let pair = vec![Field::new("key", Utf8, false), inner(random, "value")];
            field("x", Map(Arc::new(Field::new("entries", Struct(pair.into()), false)), false))
        }
        _ => plain(random),
    }
}

/// An array of so many values. Nested ones are never null.
fn values(random: &mut Random, field: &Field, rows: usize) -> ArrayRef {
    use DataType::*;
    let nulls = random.nulls(rows, field.is_nullable());
    macro_rules! numbers {
        ($array:ty, $native:ty) => {{
            let numbers =
                (0..rows).map(|row| nulls.is_valid(row).then(|| random.between(<$native>::MIN as i64, <$native>::MAX as i64) as $native));
            Arc::new(numbers.collect::<$array>())
        }};
    }
    macro_rules! instants {
        ($array:ty, $low:expr, $high:expr, $zone:expr) => {{
            let instants = (0..rows).map(|row| nulls.is_valid(row).then(|| random.between($low, $high)));
            Arc::new(instants.collect::<$array>().with_timezone_opt($zone.clone()))
        }};
    }
    // 0001-01-01 and the last second of 9999.
    let (first, last) = (-62_135_596_800_i64, 253_402_300_799_i64);
    match field.data_type() {
        Boolean => Arc::new((0..rows).map(|row| nulls.is_valid(row).then(|| random.below(2) == 1)).collect::<BooleanArray>()),
        Int8 => numbers!(Int8Array, i8),
        Int16 => numbers!(Int16Array, i16),
        Int32 => numbers!(Int32Array, i32),
        Int64 => Arc::new((0..rows).map(|row| nulls.is_valid(row).then(|| random.next().cast_signed())).collect::<Int64Array>()),
        UInt8 => numbers!(UInt8Array, u8),
        UInt16 => numbers!(UInt16Array, u16),
        UInt32 => numbers!(UInt32Array, u32),
        UInt64 => Arc::new((0..rows).map(|row| nulls.is_valid(row).then(|| random.next() | 1 << 63)).collect::<UInt64Array>()),
        Float16 | Float32 | Float64 => {
            let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -1e-3, 60_000.0];
            let floats = (0..rows).map(|row| nulls.is_valid(row).then(|| odd[usize::try_from(random.below(8)).expect("small")]));
            cast(&floats.collect::<Float64Array>(), field.data_type()).expect("floats")
        }
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
            let digits = match field.data_type() {
                Decimal32(p, _) | Decimal64(p, _) | Decimal128(p, _) | Decimal256(p, _) => u32::from(*p),
                _ => 1,
            };
            let most = 10_i64.checked_pow(digits).map_or(i64::MAX, |power| power - 1);
            let numbers: Vec<Option<i64>> = (0..rows).map(|row| nulls.is_valid(row).then(|| random.between(-most, most))).collect();
            match field.data_type() {
                Decimal32(p, s) => {
                    let numbers = numbers.iter().map(|n| n.map(|n| i32::try_from(n).expect("small"))).collect::<Decimal32Array>();
                    Arc::new(numbers.with_precision_and_scale(*p, *s).expect("decimals"))
                }
                Decimal64(p, s) => {
                    Arc::new(numbers.into_iter().collect::<Decimal64Array>().with_precision_and_scale(*p, *s).expect("decimals"))
                }
                Decimal128(p, s) => {
                    let numbers = numbers.iter().map(|n| n.map(i128::from)).collect::<Decimal128Array>();
                    Arc::new(numbers.with_precision_and_scale(*p, *s).expect("decimals"))
                }
                Decimal256(p, s) => {
                    let largest = i256::from_string(&"9".repeat(digits as usize)).expect("digits");
                    let numbers =
                        numbers.iter().map(|n| n.map(|n| if n % 3 == 0 { largest } else { i256::from(n) })).collect::<Decimal256Array>();
                    Arc::new(numbers.with_precision_and_scale(*p, *s).expect("decimals"))
                }
                _ => unreachable!("matched above"),
            }
        }
        Utf8 | LargeUtf8 | Utf8View | Dictionary(..) => {
            let texts = (0..rows).map(|row| nulls.is_valid(row).then(|| random.text())).collect::<StringArray>();
            cast(&texts, field.data_type()).expect("texts")
        }
        Binary | LargeBinary | BinaryView => {
            let length = usize::try_from(random.below(20)).expect("small");
            let bytes: Vec<_> = (0..rows).map(|row| nulls.is_valid(row).then(|| random.bytes(length))).collect();
            cast(&BinaryArray::from(bytes.iter().map(|bytes| bytes.as_deref()).collect::<Vec<_>>()), field.data_type()).expect("bytes")
        }
        FixedSizeBinary(size) => {
            let bytes: Vec<_> =
                (0..rows).map(|row| nulls.is_valid(row).then(|| random.bytes(usize::try_from(*size).expect("small")))).collect();
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), *size).expect("bytes"))
        }
        Date32 => {
            let days = (0..rows).map(|row| nulls.is_valid(row).then(|| random.between(first / 86_400, last / 86_400)));
            Arc::new(days.map(|day| day.map(|day| i32::try_from(day).expect("a day"))).collect::<Date32Array>())
        }
        Date64 => Arc::new((0..rows).map(|row| nulls.is_valid(row).then(|| random.between(first, last) * 1000)).collect::<Date64Array>()),
        Timestamp(TimeUnit::Second, zone) => instants!(TimestampSecondArray, first, last, zone),
        Timestamp(TimeUnit::Millisecond, zone) => instants!(TimestampMillisecondArray, first * 1000, last * 1000 + 999, zone),
        Timestamp(TimeUnit::Microsecond, zone) => instants!(TimestampMicrosecondArray, first * 1_000_000, last * 1_000_000 + 999_999, zone),
        Timestamp(TimeUnit::Nanosecond, zone) => instants!(TimestampNanosecondArray, i64::MIN / 2, i64::MAX / 2, zone),
        Time32(_) => Arc::new(
            (0..rows)
                .map(|row| nulls.is_valid(row).then(|| i32::try_from(random.below(86_400_000)).expect("small")))
                .collect::<Time32MillisecondArray>(),
        ),
        Time64(_) => Arc::new(
            (0..rows).map(|row| nulls.is_valid(row).then(|| random.between(0, 86_399_999_999_999))).collect::<Time64NanosecondArray>(),
        ),
        Duration(_) => Arc::new(
            (0..rows)
                .map(|row| nulls.is_valid(row).then(|| random.between(-1_000_000_000_000, 1_000_000_000_000)))
                .collect::<DurationMicrosecondArray>(),
        ),
        List(item) | LargeList(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| usize::try_from(random.below(4)).expect("small")).collect();
            let inner = values(random, item, lengths.iter().sum());
            let list = ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), inner, None).expect("lists");
            cast(&list, field.data_type()).expect("lists")
        }
        Struct(fields) => {
            let columns = fields.iter().map(|field| values(random, field, rows)).collect();
            Arc::new(StructArray::try_new(fields.clone(), columns, None).expect("structs"))
        }
        Map(entries, _) => {
            let lengths: Vec<usize> = (0..rows).map(|_| usize::try_from(random.below(3)).expect("small")).collect();
            let total = lengths.iter().sum();
            let Struct(pair) = entries.data_type() else { unreachable!("a map has entries") };
            let keys: ArrayRef = Arc::new((0..total).map(|n| Some(format!("k{n}{}", random.text()))).collect::<StringArray>());
            let pairs = StructArray::try_new(pair.clone(), vec![keys, values(random, &pair[1], total)], None).expect("pairs");
            Arc::new(MapArray::try_new(entries.clone(), OffsetBuffer::from_lengths(lengths), pairs, None, false).expect("maps"))
        }
        _ => new_null_array(field.data_type(), rows),
    }
}

/// What rows say, in one way for all layouts: numbers by value, instants in UTC, bytes as bytes, texts as their bytes.
fn shown(array: &ArrayRef, row: usize) -> String {
    use DataType::*;
    let plain = |array: &ArrayRef| {
        let options = arrow::util::display::FormatOptions::default();
        arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options).expect("shown").value(row).to_string()
    };
    if array.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) {
        return "null".into();
    }
    let list = |values: ArrayRef| format!("[{}]", (0..values.len()).map(|row| shown(&values, row)).collect::<Vec<_>>().join(", "));
    match array.data_type() {
        Utf8 | LargeUtf8 | Utf8View | LargeBinary | BinaryView | FixedSizeBinary(_) => shown(&cast(array, &Binary).expect("bytes"), row),
        Binary => format!("{:?}", array.as_binary::<i32>().value(row)),
        Dictionary(_, value) => shown(&cast(array, value).expect("values"), row),
        Time32(_) | Time64(_) | Duration(_) => format!("{:?}", plain(array).as_bytes()),
        Float16 => shown(&cast(array, &Float32).expect("floats"), row),
        Date64 => shown(&cast(array, &Timestamp(TimeUnit::Millisecond, Some("UTC".into()))).expect("instants"), row),
        Timestamp(unit, _) => format!("{} {unit:?}", cast(array, &Int64).expect("ticks").as_primitive::<Int64Type>().value(row)),
        Decimal32(_, s) | Decimal64(_, s) | Decimal128(_, s) if *s < 0 => shown(&cast(array, &Decimal256(76, 0)).expect("decimals"), row),
        List(_) => list(array.as_list::<i32>().value(row)),
        LargeList(_) => list(array.as_list::<i64>().value(row)),
        Map(..) => list(Arc::new(array.as_map().value(row))),
        Struct(_) => format!("({})", array.as_struct().columns().iter().map(|column| shown(column, row)).collect::<Vec<_>>().join(", ")),
        _ => plain(array),
    }
}

#[tokio::test]
async fn every_type_reads_back_as_it_was_loaded() {
    let Some(bench) = Bench::begin().await else { return };
    let mut seen = std::collections::HashSet::new();
    for seed in 1..=40_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rows = usize::try_from(random.below(30) + 1).expect("small");
        let mut fields = vec![Field::new("row", DataType::Int64, false)];
        for column in 0..6 {
            let made = any_type(&mut random, 2);
            let nested = matches!(made.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) | DataType::Map(..));
            let nullable = !nested && (made.data_type() == &DataType::Null || random.below(5) > 0);
            seen.insert(made.data_type().to_string().split('(').next().expect("a word").to_owned());
            fields.push(made.with_name(format!("c{column}")).with_nullable(nullable));
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new((0..i64::try_from(rows).expect("small")).map(Some).collect::<Int64Array>())];
        for field in &fields[1..] {
            columns.push(values(&mut random, field, rows));
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).expect("a batch");
        let mut sink = bench.sink(u32::try_from(seed).expect("small"), Mode::Replace, &[], "order_by = [\"row\"]");
        sink.cx.allow_lossy = fields.iter().map(|field| field.name().clone()).collect();
        sink.whole(&[batch.slice(0, rows / 2), batch.slice(rows / 2, rows - rows / 2)])
            .await
            .unwrap_or_else(|error| panic!("seed {seed}: {error} {error:?} {fields:?}"));
        let back = bench.arrow("select * from {t} order by row").await;
        let back = arrow::compute::concat_batches(&back[0].schema(), &back).expect("one batch");
        assert_eq!(back.num_rows(), rows, "seed {seed}");
        for (index, field) in fields.iter().enumerate() {
            let mut read = back.column(index).clone();
            if write_types::is_uuid(field) && !matches!(read.data_type(), DataType::FixedSizeBinary(_)) {
                let texts = cast(&read, &DataType::Utf8).expect("texts");
                let parsed: Vec<Option<[u8; 16]>> = texts
                    .as_string::<i32>()
                    .iter()
                    .map(|text| text.map(|text| *uuid::Uuid::parse_str(text).expect("a uuid").as_bytes()))
                    .collect();
                read = Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(parsed.into_iter(), 16).expect("uuids"));
            }
            for row in 0..rows {
                assert_eq!(
                    shown(&read, row),
                    shown(batch.column(index), row),
                    "seed {seed}, row {row}, {field:?} read as {:?}",
                    read.data_type()
                );
            }
        }
    }
    for kind in ["List", "LargeList", "Struct", "Map", "Decimal256", "Timestamp", "Dictionary", "UInt64"] {
        assert!(seen.iter().any(|name| name.starts_with(kind)), "no seed has made a {kind}: {seen:?}");
    }
    bench.end().await;
}
