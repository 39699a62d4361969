//! Values of every type of the matrix, in random tables, asked back from the server: what its own `send` functions say of them is
//! compared with what went in.

use arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer},
    compute::cast,
    datatypes::*,
};

use super::*;
use crate::postgres::write_types::{PgType, map, type_table};

/// A generator that gives the same numbers every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
    /// A number of `low..=high`, often an end of it or one near zero.
    fn between(&mut self, low: i128, high: i128) -> i128 {
        let half = (i128::from(self.next()) << 64 | i128::from(self.next())).rem_euclid((high / 2 - low / 2).max(1));
        let any = (half + low) + half;
        match self.below(8) {
            0 => low,
            1 => high,
            2 => 0.clamp(low, high),
            3 => (-1).clamp(low, high),
            4 => (any % 1000).clamp(low, high),
            _ => any.clamp(low, high),
        }
    }
    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = ["", "00501", "null", "\\N", "😀 ü", "a\tb\nc", "\"q\" 'q'", "longer than the twelve bytes of a view"];
        WORDS[usize::try_from(self.below(8)).expect("small")].to_owned()
    }
    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(5) > 0).then(|| make(self))
    }
}

/// A column with what the server should say of each value.
type Made = (ArrayRef, Vec<Option<String>>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// What the server is asked of a value: where text would be rounded or read in two ways, its bytes.
fn asked(pg: &PgType, value: &str) -> String {
    match pg {
        PgType::Float4 => format!("float4send({value})::text"),
        PgType::Float8 => format!("float8send({value})::text"),
        PgType::Date => format!("date_send({value})::text"),
        PgType::Time(_) => format!("time_send({value})::text"),
        PgType::Timestamp(_) => format!("timestamp_send({value})::text"),
        PgType::Timestamptz(_) => format!("timestamptz_send({value})::text"),
        PgType::Interval => format!("interval_send({value})::text"),
        PgType::Array(inner, _) => format!(
            "case when {value} is not null then (select coalesce(string_agg(coalesce({}, 'NULL'), ';' order by n), '') from unnest({value}) with ordinality u(x, n)) end",
            asked(inner, "x")
        ),
        _ => format!("{value}::text"),
    }
}

macro_rules! numbers {
    ($dice:expr, $rows:expr, $array:ty, $native:ty, $low:expr, $high:expr, $shown:expr) => {{
        let values: Vec<Option<$native>> = (0..$rows)
            .map(|_| $dice.some(|dice| <$native>::try_from(dice.between(i128::from($low), i128::from($high))).expect("in range")))
            .collect();
        let shown = values.iter().map(|value| value.map($shown)).collect();
        (Arc::new(<$array>::from(values)) as ArrayRef, shown)
    }};
}

/// Microseconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800_000_000;

fn strings(dice: &mut Dice, rows: usize) -> (Vec<Option<String>>, Made) {
    let values: Vec<Option<String>> = (0..rows).map(|_| dice.some(Dice::text)).collect();
    let array: ArrayRef = Arc::new(StringArray::from(values.clone()));
    (values.clone(), (array, values))
}

fn bytes(dice: &mut Dice, rows: usize) -> Made {
    let values: Vec<Option<Vec<u8>>> = (0..rows).map(|_| dice.some(|dice| dice.next().to_be_bytes()[..3].to_vec())).collect();
    let array = BinaryArray::from(values.iter().map(Option::as_deref).collect::<Vec<_>>());
    (Arc::new(array), values.iter().map(|value| value.as_deref().map(hex)).collect())
}

fn decimal(dice: &mut Dice, rows: usize, precision: u8, scale: i8) -> Made {
    let most = 10_i128.pow(u32::from(precision)) - 1;
    let values: Vec<Option<i128>> = (0..rows).map(|_| dice.some(|dice| dice.between(-most, most))).collect();
    let shown = values.iter().map(|value| {
        value.map(|value| match scale {
            ..0 if value == 0 => "0".to_owned(),
            ..0 => format!("{value}{}", "0".repeat(usize::from(scale.unsigned_abs()))),
            _ => Decimal128Type::format_decimal(value, precision, scale),
        })
    });
    let shown = shown.collect();
    (Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).expect("decimal")), shown)
}

fn interval(months: i32, days: i32, micros: i64) -> String {
    hex(&[&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat())
}

/// Makes a column of a kind; the kinds are counted from 0, none after the last.
fn make(kind: usize, dice: &mut Dice, rows: usize) -> Option<Made> {
    let text = |value: &dyn std::fmt::Display| value.to_string();
    let be = |value: i64| hex(&value.to_be_bytes());
    let micros = |value: i64| be(value - EPOCH);
    let retyped = |made: Made, to: DataType| (cast(&made.0, &to).expect("cast"), made.1);
    let whole = |dice: &mut Dice| numbers!(dice, rows, Int64Array, i64, i64::MIN, i64::MAX, |value| value.to_string());
    // The first and the last instant that Postgres has, as far as Arrow has it too.
    let (first, last) = (-211_813_488_000_000_000 + EPOCH, i64::MAX);
    Some(match kind {
        0 => {
            let values: Vec<_> = (0..rows).map(|_| dice.some(|dice| dice.below(2) == 0)).collect();
            let shown = values.iter().map(|value| value.map(|value| value.to_string())).collect();
            (Arc::new(BooleanArray::from(values)), shown)
        }
        1 => numbers!(dice, rows, Int8Array, i8, i8::MIN, i8::MAX, |value| text(&value)),
        2 => numbers!(dice, rows, Int16Array, i16, i16::MIN, i16::MAX, |value| text(&value)),
        3 => numbers!(dice, rows, Int32Array, i32, i32::MIN, i32::MAX, |value| text(&value)),
        4 => whole(dice),
        5 => numbers!(dice, rows, UInt8Array, u8, 0, u8::MAX, |value| text(&value)),
        6 => numbers!(dice, rows, UInt16Array, u16, 0, u16::MAX, |value| text(&value)),
        7 => numbers!(dice, rows, UInt32Array, u32, 0, u32::MAX, |value| text(&value)),
        8 => numbers!(dice, rows, UInt64Array, u64, 0, u64::MAX, |value| text(&value)),
        9 | 10 => {
            const ODD: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.1, f32::MAX, f32::MIN_POSITIVE, 1e-45];
            let half = kind == 9;
            let odd = |dice: &mut Dice| ODD[usize::try_from(dice.below(if half { 4 } else { 8 })).expect("small")];
            let values: Vec<Option<f32>> = (0..rows).map(|_| dice.some(odd)).collect();
            let shown = values.iter().map(|value| value.map(|value| hex(&value.to_be_bytes()))).collect();
            let made = (Arc::new(Float32Array::from(values)) as ArrayRef, shown);
            if half { retyped(made, DataType::Float16) } else { made }
        }
        11 => {
            const ODD: [f64; 8] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1, f64::MAX, f64::MIN_POSITIVE, 5e-324];
            let values: Vec<Option<f64>> =
                (0..rows).map(|_| dice.some(|dice| ODD[usize::try_from(dice.below(8)).expect("small")])).collect();
            let shown = values.iter().map(|value| value.map(|value| hex(&value.to_be_bytes()))).collect();
            (Arc::new(Float64Array::from(values)), shown)
        }
        12 => decimal(dice, rows, 38, 10),
        13 => decimal(dice, rows, 38, 38),
        14 => decimal(dice, rows, 12, 2),
        15 => decimal(dice, rows, 9, -3),
        16 => retyped(decimal(dice, rows, 9, 4), DataType::Decimal32(9, 4)),
        17 => retyped(decimal(dice, rows, 18, 3), DataType::Decimal64(18, 3)),
        18 => {
            let values: Vec<Option<String>> = (0..rows)
                .map(|_| dice.some(|dice| format!("{}{:038}", dice.between(-(10_i128.pow(38) - 1), 10_i128.pow(38) - 1), dice.next())))
                .collect();
            let wide: Vec<Option<i256>> = values.iter().map(|value| value.as_deref().and_then(i256::from_string)).collect();
            let shown = wide.iter().map(|value| value.map(|value| Decimal256Type::format_decimal(value, 76, 20))).collect();
            (Arc::new(Decimal256Array::from(wide).with_precision_and_scale(76, 20).expect("decimal")), shown)
        }
        19 => strings(dice, rows).1,
        20 => retyped(strings(dice, rows).1, DataType::LargeUtf8),
        21 => retyped(strings(dice, rows).1, DataType::Utf8View),
        22 => retyped(strings(dice, rows).1, DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8))),
        23 => retyped(whole(dice), DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Int64))),
        24 => {
            let (values, _) = strings(dice, 1.max(rows / 3));
            let repeated = rows.div_ceil(values.len()).max(1);
            let ends: Vec<i32> =
                (1..=values.len()).map(|run| i32::try_from((run * repeated).min(rows)).expect("small")).filter(|end| *end > 0).collect();
            let shown: Vec<_> = (0..rows).map(|row| values[row / repeated].clone()).collect();
            let runs = rows.div_ceil(repeated);
            let array =
                RunArray::<Int32Type>::try_new(&Int32Array::from(ends[..runs].to_vec()), &StringArray::from(values[..runs].to_vec()));
            (Arc::new(array.expect("runs")), shown)
        }
        25 => bytes(dice, rows),
        26 => retyped(bytes(dice, rows), DataType::LargeBinary),
        27 => retyped(bytes(dice, rows), DataType::BinaryView),
        28 => retyped(bytes(dice, rows), DataType::FixedSizeBinary(3)),
        29 => numbers!(dice, rows, Date32Array, i32, -2_440_588, 2_145_042_905, |value| hex(&(value - 10_957).to_be_bytes())),
        30 => numbers!(dice, rows, Date64Array, i64, -8_000_000_000_000_i64, 8_000_000_000_000_i64, |value| micros(value * 1000)),
        31 => numbers!(dice, rows, TimestampSecondArray, i64, first / 1_000_000, last / 1_000_000, |value| micros(value * 1_000_000)),
        32 => numbers!(dice, rows, TimestampMillisecondArray, i64, first / 1000, last / 1000, |value| micros(value * 1000)),
        33 => numbers!(dice, rows, TimestampMicrosecondArray, i64, first, last, micros),
        34 => numbers!(dice, rows, TimestampNanosecondArray, i64, i64::MIN, i64::MAX, |value| micros(value.div_euclid(1000))),
        35 => {
            let (array, shown) = numbers!(dice, rows, TimestampMicrosecondArray, i64, first, last, micros);
            (Arc::new(array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("Europe/Berlin")), shown)
        }
        36 => numbers!(dice, rows, Time32SecondArray, i32, 0, 86_399, |value| be(i64::from(value) * 1_000_000)),
        37 => numbers!(dice, rows, Time32MillisecondArray, i32, 0, 86_399_999, |value| be(i64::from(value) * 1000)),
        38 => numbers!(dice, rows, Time64MicrosecondArray, i64, 0, 86_399_999_999_i64, be),
        39 => numbers!(dice, rows, Time64NanosecondArray, i64, 0, 86_399_999_999_999_i64, |value| be(value / 1000)),
        40 => numbers!(dice, rows, DurationSecondArray, i64, i64::MIN / 1_000_000, i64::MAX / 1_000_000, |value| interval(
            0,
            0,
            value * 1_000_000
        )),
        41 => numbers!(dice, rows, DurationMicrosecondArray, i64, i64::MIN, i64::MAX, |value| interval(0, 0, value)),
        42 => numbers!(dice, rows, DurationNanosecondArray, i64, i64::MIN, i64::MAX, |value| interval(0, 0, value.div_euclid(1000))),
        43 => numbers!(dice, rows, IntervalYearMonthArray, i32, i32::MIN, i32::MAX, |value| interval(value, 0, 0)),
        44 => {
            let values: Vec<_> = (0..rows)
                .map(|_| {
                    dice.some(|dice| {
                        IntervalMonthDayNano::new(
                            i32::try_from(dice.between(-99, 99)).expect("small"),
                            -7,
                            i64::try_from(dice.between(-9_000_000, 9_000_000)).expect("small") * 1000,
                        )
                    })
                })
                .collect();
            let shown =
                values.iter().map(|value| value.map(|value| interval(value.months, value.days, value.nanoseconds / 1000))).collect();
            (Arc::new(IntervalMonthDayNanoArray::from(values)), shown)
        }
        45 => {
            let values: Vec<_> = (0..rows)
                .map(|_| dice.some(|dice| IntervalDayTime::new(3, i32::try_from(dice.between(-9999, 9999)).expect("small"))))
                .collect();
            let shown =
                values.iter().map(|value| value.map(|value| interval(0, value.days, i64::from(value.milliseconds) * 1000))).collect();
            (Arc::new(IntervalDayTimeArray::from(values)), shown)
        }
        46 => (Arc::new(NullArray::new(rows)), vec![None; rows]),
        // The same in JSON, as `jsonb` spells it.
        47 => {
            let ((numbers, _), (texts, _)) = (whole(dice), strings(dice, rows));
            let valid: Vec<bool> = (0..rows).map(|_| dice.below(5) > 0).collect();
            let number =
                |row: usize| if numbers.is_null(row) { "null".into() } else { numbers.as_primitive::<Int64Type>().value(row).to_string() };
            let shown = (0..rows)
                .map(|row| valid[row].then(|| format!("{{\"a b\": {}, \"text\": {}}}", number(row), serde_json::json!(texts[row]))))
                .collect();
            let fields: Fields = vec![Field::new("a b", DataType::Int64, true), Field::new("text", DataType::Utf8, true)].into();
            let array = StructArray::new(
                fields,
                vec![numbers.clone(), Arc::new(StringArray::from(texts.clone()))],
                Some(NullBuffer::from(valid.clone())),
            );
            (Arc::new(array), shown)
        }
        48 => {
            let (texts, _) = strings(dice, rows);
            let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
            for text in &texts {
                if let Some(text) = text {
                    map.keys().append_value(text);
                    map.values().append_value(1.5);
                }
                map.append(text.is_some()).expect("appended");
            }
            let shown = texts.iter().map(|text| text.as_ref().map(|text| format!("{{{}: 1.5}}", serde_json::json!(text)))).collect();
            (Arc::new(map.finish()), shown)
        }
        _ => return None,
    })
}

/// A list of another column's values.
fn listed(kind: usize, dice: &mut Dice, rows: usize) -> Option<Made> {
    let lengths: Vec<usize> = (0..rows).map(|_| usize::try_from(dice.below(4)).expect("small")).collect();
    let valid: Vec<bool> = (0..rows).map(|_| dice.below(5) > 0).collect();
    let (values, shown) = make(kind, dice, lengths.iter().sum())?;
    let mut shown = shown.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into()));
    let shown = lengths.iter().zip(&valid).map(|(length, valid)| {
        let values: Vec<String> = shown.by_ref().take(*length).collect();
        valid.then(|| values.join(";"))
    });
    let shown = shown.collect();
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths(lengths), values, Some(NullBuffer::from(valid)));
    Some((Arc::new(list), shown))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_the_matrix_comes_back_as_it_went_in() {
    let Some(db) = Db::new("round trip").await else { return };
    let kinds = (0..).take_while(|kind| make(*kind, &mut Dice(0), 4).is_some()).count();
    // Every row of the matrix but marked text and bytes (in a test of their own) is among the kinds.
    let mut columns: std::collections::BTreeSet<String> = (0..kinds)
        .map(|kind| map(&Field::new("c", make(kind, &mut Dice(0), 4).expect("a kind").0.data_type().clone(), true)).expect("mapped").sql)
        .collect();
    columns.extend(["uuid".to_owned(), "array".into(), "as its value".into(), "numeric(p,s)".into()]);
    assert!(type_table().iter().all(|row| columns.contains(row.column)), "{columns:?}");

    for round in 0..24_u32 {
        let mut dice = Dice(u64::from(round));
        let rows = usize::try_from(dice.below(60)).expect("small");
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("n".into(), Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows).expect("small"))))];
        let mut expected = Vec::new();
        for kind in 0..kinds {
            if round < 2 || dice.below(3) == 0 {
                let (array, shown) = make(kind, &mut dice, rows).expect("a kind");
                columns.push((format!("c \"{kind}\""), array));
                expected.push(shown);
            }
            // What is no scalar is JSON inside a list, and asked in another test.
            if kind < 47 && (round < 2 || dice.below(4) == 0) {
                let (array, shown) = listed(kind, &mut dice, rows).expect("a kind");
                columns.push((format!("l {kind}"), array));
                expected.push(shown);
            }
        }
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).expect("a batch");
        let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let (sink, table) = (db.sink(&format!("t{round}")), db.table(&format!("t{round}")));
        // Once into a new table and once into what has become of it.
        for (number, may_decide) in [(1, false), (2, true)] {
            let cx = SinkContext { allow_lossy: Vec::clone(&names), ..cx(&db.run(round * 10 + number), Mode::Append, may_decide) };
            publish(&sink, &cx, &batch).await.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        }
        let asks: Vec<String> =
            batch.schema().fields().iter().skip(1).map(|field| asked(&map(field).expect("mapped").pg, &identifier(field.name()))).collect();
        let mut connection = PgConnection::connect(&db.url).await.expect("connected");
        let sql = format!("select t.n::text{} from {table} t order by t.n", asks.iter().map(|ask| format!(", {ask}")).collect::<String>());
        let found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("read");
        assert_eq!(found.len(), 2 * rows);
        for (row, values) in found.iter().enumerate() {
            for (index, column) in expected.iter().enumerate() {
                let value = values.try_get_raw(index + 1).expect("a column");
                let came = (!value.is_null()).then(|| value.as_str().expect("text").to_owned());
                let field = batch.schema().field(index + 1).clone();
                assert_eq!(came, column[row / 2], "round {round}, row {}, {} {}", row / 2, field.name(), field.data_type());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marked_text_is_jsonb_marked_bytes_are_a_uuid_and_deep_lists_are_json() {
    let Some(db) = Db::new("marked").await else { return };
    let marked = |name: &str, data_type: DataType, mark: &str| {
        Field::new(name, data_type, true).with_metadata([("ARROW:extension:name".to_owned(), mark.to_owned())].into())
    };
    let deep = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
    let deep =
        ListArray::new(Arc::new(Field::new("item", deep.data_type().clone(), true)), OffsetBuffer::from_lengths([1]), Arc::new(deep), None);
    let schema = Schema::new(vec![
        marked("j", DataType::Utf8, "arrow.json"),
        marked("u", DataType::FixedSizeBinary(16), "arrow.uuid"),
        Field::new("l", deep.data_type().clone(), true),
    ]);
    let uuid = FixedSizeBinaryArray::try_from_iter([[0xab_u8; 16]].into_iter()).expect("bytes");
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![" {\"b\":1, \"a\":[null]}"])), Arc::new(uuid), Arc::new(deep)];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
    publish(&db.sink("t"), &cx(&db.run(1), Mode::Append, true), &rows).await.expect("published");
    publish(&db.sink("t"), &cx(&db.run(2), Mode::Append, true), &rows).await.expect("published");
    let expected = "{\"a\": [null], \"b\": 1}|abababab-abab-abab-abab-abababababab|[[1, null]]";
    assert_eq!(db.all("t").await, [expected, expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_made_gets_values_of_its_own_types() {
    let Some(db) = Db::new("own types").await else { return };
    let (mood, positive) = (db.table("Mood"), db.table("positive"));
    db.sql(&format!(
        "create type {mood} as enum ('ok', 'so so'); create domain {positive} as numeric(8,2) check (value > 0);
         create table {} (big bigint, money numeric, wide double precision, short varchar(5), fixed char(3), nom name, doc jsonb, text json,
           mood {mood}, positive {positive}, moods {mood}[], ids uuid[], id uuid, host inet, net cidr, at timestamptz(3), day timestamp)",
        db.table("t")
    ))
    .await;
    let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let list = |value: &str| {
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some(value), None]);
        Arc::new(list.finish()) as ArrayRef
    };
    let uuid = "abababab-abab-abab-abab-abababababab";
    let rows = batch(vec![
        ("big", Arc::new(Int16Array::from(vec![7])) as ArrayRef),
        ("money", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("wide", Arc::new(Float32Array::from(vec![0.5]))),
        ("short", text(vec!["äöüäö"])),
        ("fixed", text(vec!["ab"])),
        ("nom", text(vec!["n"])),
        ("doc", text(vec!["[1]"])),
        ("text", text(vec!["[ 1 ]"])),
        ("mood", text(vec!["so so"])),
        ("positive", Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).expect("decimal"))),
        ("moods", list("ok")),
        ("ids", list(uuid)),
        ("id", text(vec![uuid])),
        ("host", text(vec!["10.1.2.3/8"])),
        ("net", text(vec!["2001:db8::/32"])),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![1]).with_timezone("UTC"))),
        ("day", Arc::new(Date32Array::from(vec![0]))),
    ]);
    let expected = format!(
        "7|18446744073709551615|0.5|äöüäö|ab |n|[1]|[ 1 ]|so so|1.50|{{ok,NULL}}|{{{uuid},NULL}}|{uuid}|10.1.2.3/8|2001:db8::/32|1970-01-01 00:00:00.001+00|1970-01-01 00:00:00"
    );
    for (number, may_decide) in [(1, true), (2, false)] {
        publish(&db.sink("t"), &cx(&db.run(number), Mode::Replace, may_decide), &rows).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(db.rows(&format!("set timezone = 'UTC'; select * from {}", db.table("t"))).await, [expected.as_str()]);
    }
}
