//! Tests of the binary form without a server; with one, every type goes there and back in `load_roundtrip_tests.rs`.

use arrow::{
    array::*,
    datatypes::{Decimal128Type, DecimalType, Int32Type},
};
use proptest::prelude::*;

use super::*;

fn target(name: &str, pg: PgType) -> Target {
    Target { name: name.into(), source: 0, pg, sql: "its type".into(), nullable: true, key: false }
}

fn batch(array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", array, true)]).expect("a batch")
}

fn encode(array: ArrayRef, target: Target) -> Result<Vec<u8>> {
    let mut rows = Encoder::new("out", vec![target]).rows(&batch(array))?;
    let mut out = Vec::new();
    rows.write(&mut out, usize::MAX);
    Ok(out)
}

/// The one column's fields.
fn fields(array: ArrayRef, pg: PgType) -> Vec<Option<Vec<u8>>> {
    let bytes = encode(array, target("c", pg)).expect("encoded");
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        assert_eq!(rest[..2], [0, 1], "one field a row");
        let length = i32::from_be_bytes(rest[2..6].try_into().expect("four bytes"));
        rest = &rest[6..];
        found.push(usize::try_from(length).ok().map(|length| {
            let (field, after) = rest.split_at(length);
            rest = after;
            field.to_vec()
        }));
    }
    found
}

fn failure(array: ArrayRef, pg: PgType) -> (&'static str, String) {
    let error = encode(array, target("c", pg)).expect_err("it must fail");
    assert!(error.help.is_some(), "{error}");
    (error.code, error.message)
}

/// Reads a numeric as text, with as many decimal places as it says to have.
fn numeric(field: &[u8]) -> String {
    let word = |at: usize| i16::from_be_bytes([field[at], field[at + 1]]);
    let (count, weight, sign, scale) = (word(0), word(2), word(4), word(6));
    assert_eq!(field.len(), 8 + 2 * usize::try_from(count).expect("a count"));
    let digit = |place: i16| {
        let index = weight - place;
        if (0..count).contains(&index) { word(8 + 2 * usize::try_from(index).expect("inside")) } else { 0 }
    };
    let mut text = String::new();
    for place in (0..=weight.max(0)).rev() {
        text += &format!("{:04}", digit(place));
    }
    let whole = text.trim_start_matches('0');
    let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
    if scale > 0 {
        let fraction: String = (1..=scale.div_euclid(4) + 1).map(|place| format!("{:04}", digit(-place))).collect();
        text += &format!(".{}", &fraction[..usize::try_from(scale).expect("positive")]);
    }
    if count > 0 {
        assert!(digit(weight) != 0 && digit(weight - count + 1) != 0, "no digit at either end is zero");
    }
    if sign == 0x4000 { format!("-{text}") } else { text }
}

#[test]
fn plain_values_have_the_form_of_their_type() {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        fields(Arc::new(Int16Array::from(vec![Some(-2), None])), PgType::Int8),
        [Some(vec![255, 255, 255, 255, 255, 255, 255, 254]), None]
    );
    assert_eq!(fields(Arc::new(BooleanArray::from(vec![Some(true), Some(false)])), PgType::Bool), [Some(vec![1]), Some(vec![0])]);
    assert_eq!(fields(Arc::new(Float64Array::from(vec![1.0])), PgType::Float8), [Some(vec![0x3f, 0xf0, 0, 0, 0, 0, 0, 0])]);
    assert_eq!(fields(Arc::new(UInt32Array::from(vec![u32::MAX])), PgType::Oid), [Some(vec![255; 4])]);
    for text in [
        Arc::new(StringArray::from(vec![Some("ä"), None, Some("")])) as ArrayRef,
        Arc::new(LargeStringArray::from(vec![Some("ä"), None, Some("")])),
        Arc::new(StringViewArray::from(vec![Some("ä"), None, Some("")])),
        Arc::new(vec![Some("ä"), None, Some("")].into_iter().collect::<DictionaryArray<Int32Type>>()),
    ] {
        assert_eq!(fields(text.clone(), PgType::Text(None)), [bytes("ä"), None, bytes("")]);
        assert_eq!(fields(text.slice(1, 2), PgType::Text(None)), [None, bytes("")], "a slice starts where it starts");
    }
    assert_eq!(fields(Arc::new(StringArray::from(vec!["{}"])), PgType::Jsonb), [bytes("\u{1}{}")]);
    assert_eq!(fields(Arc::new(NullArray::new(2)), PgType::Uuid), [None, None]);
    assert_eq!(fields(Arc::new(StringArray::from(vec!["10.1.2.3"])), PgType::Inet(false)), [Some(vec![2, 32, 0, 4, 10, 1, 2, 3])]);
    let uuid = "5f0c7a1e-0000-4000-8000-0000000000ff";
    let expected = uuid::Uuid::parse_str(uuid).expect("a uuid").as_bytes().to_vec();
    assert_eq!(fields(Arc::new(StringArray::from(vec![uuid])), PgType::Uuid), [Some(expected)]);
}

#[test]
fn days_and_instants_count_from_the_year_2000() {
    let number = |field: &Option<Vec<u8>>| {
        let field = field.as_deref().expect("a value");
        field.iter().skip(1).fold(i64::from(field[0].cast_signed()), |number, byte| number << 8 | i64::from(*byte))
    };
    let one = |array: ArrayRef, pg: PgType| number(&fields(array, pg)[0]);
    assert_eq!(one(Arc::new(Date32Array::from(vec![10_957])), PgType::Date), 0);
    assert_eq!(one(Arc::new(Date32Array::from(vec![0])), PgType::Date), -10_957);
    let us = |value| Arc::new(TimestampMicrosecondArray::from(vec![value])) as ArrayRef;
    assert_eq!(one(us(946_684_800_000_001), PgType::Timestamp(6)), 1);
    assert_eq!(one(us(i64::MAX), PgType::Timestamp(6)), i64::MAX - EPOCH_US, "a far year, and not infinity");
    assert_eq!(one(Arc::new(TimestampNanosecondArray::from(vec![-1])), PgType::Timestamp(6)), -EPOCH_US - 1, "cut, not rounded to zero");
    assert_eq!(one(Arc::new(Date64Array::from(vec![1])), PgType::Timestamp(6)), 1000 - EPOCH_US);
    assert_eq!(one(Arc::new(Date32Array::from(vec![10_958])), PgType::Timestamp(6)), DAY_US);
    assert_eq!(one(Arc::new(Time32SecondArray::from(vec![86_399])), PgType::Time(6)), 86_399_000_000);
}

#[test]
fn what_postgres_cannot_hold_is_named_with_its_column() {
    let out = "value-out-of-range";
    let us = |value| Arc::new(TimestampMicrosecondArray::from(vec![Some(0), value])) as ArrayRef;
    assert_eq!(
        failure(us(Some(i64::MIN)), PgType::Timestamp(6)),
        (out, "column \"c\": the value -9223372036854775808 does not fit the type its type".into())
    );
    assert_eq!(encode(us(None), target("c", PgType::Timestamp(6))).map(|_| ()).map_err(|error| error.message), Ok(()));
    assert_eq!(failure(Arc::new(TimestampSecondArray::from(vec![i64::MAX])), PgType::Timestamp(6)).0, out);
    assert_eq!(failure(Arc::new(TimestampSecondArray::from(vec![9_224_318_016_000])), PgType::Timestamp(6)).0, out, "the year 294277");
    assert!(encode(Arc::new(TimestampSecondArray::from(vec![9_224_318_015_999])), target("c", PgType::Timestamp(6))).is_ok());
    assert_eq!(failure(Arc::new(Date32Array::from(vec![i32::MAX])), PgType::Date).0, out);
    assert_eq!(failure(Arc::new(Date32Array::from(vec![i32::MIN])), PgType::Date).0, out);
    assert_eq!(failure(Arc::new(Time64MicrosecondArray::from(vec![-1])), PgType::Time(6)).0, out);
    assert_eq!(failure(Arc::new(Time64MicrosecondArray::from(vec![DAY_US + 1])), PgType::Time(6)).0, out);
    assert_eq!(failure(Arc::new(DurationSecondArray::from(vec![i64::MAX])), PgType::Interval).0, out);
    let nanos = IntervalMonthDayNanoArray::from(vec![arrow::datatypes::IntervalMonthDayNano::new(1, 2, 1)]);
    assert_eq!(failure(Arc::new(nanos), PgType::Interval).0, out);

    let message = |start: &str| format!("column \"c\" holds a NUL byte, which Postgres cannot hold in text, in the value \"{start}\"");
    for text in [
        Arc::new(StringArray::from(vec!["fine", "a\0b"])) as ArrayRef,
        Arc::new(LargeStringArray::from(vec!["fine", "a\0b"])),
        Arc::new(StringViewArray::from(vec!["fine", "a\0b"])),
    ] {
        assert_eq!(failure(text.clone(), PgType::Text(None)), ("nul-byte", message("a\\0b")));
        assert!(encode(text.slice(0, 1), target("c", PgType::Text(None))).is_ok());
    }
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    assert!(encode(Arc::new(list), target("c", PgType::Array(Box::new(PgType::Int4), 23))).is_ok());
    let long = format!("\0{}", "x".repeat(50));
    assert_eq!(failure(Arc::new(StringArray::from(vec![long])), PgType::Text(None)).1, message(&format!("\\0{}…", "x".repeat(39))));
    assert_eq!(failure(Arc::new(StringArray::from(vec!["\"\\u0000\""])), PgType::Jsonb).0, "nul-byte");
    assert!(encode(Arc::new(StringArray::from(vec!["\"\\\\u0000\""])), target("c", PgType::Jsonb)).is_ok(), "a backslash and five letters");

    assert_eq!(
        failure(Arc::new(StringArray::from(vec!["äöü", "äöüß"])), PgType::Text(Some(3))),
        ("value-too-long", "column \"c\": the value \"äöüß\" is longer than its type allows".into())
    );
    assert_eq!(
        failure(Arc::new(StringArray::from(vec!["x"])), PgType::Uuid),
        ("wrong-value", "column \"c\": the value \"x\" is not a uuid".into())
    );
    assert_eq!(failure(Arc::new(StringArray::from(vec!["10.1.2.3/33"])), PgType::Inet(false)).0, "wrong-value");
}

#[test]
fn a_null_where_none_may_be_is_an_error_before_the_server_sees_it() {
    let array = || Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef;
    let key = encode(array(), Target { key: true, ..target("id", PgType::Int4) }).expect_err("null");
    assert_eq!((key.code, key.message.as_str()), ("null-key", "sink \"out\" got a row whose key column \"id\" is null"));
    let column = encode(array(), Target { nullable: false, ..target("id", PgType::Int4) }).expect_err("null");
    assert_eq!((column.code, column.message.as_str()), ("null-in-column", "column \"id\" holds a null, which the table does not allow"));
}

#[test]
fn a_list_is_an_array_of_one_dimension() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![]), Some(vec![Some(2), None])]);
    let head = |dimensions: u8, nulls: u8| vec![0, 0, 0, dimensions, 0, 0, 0, nulls, 0, 0, 0, 23];
    let with = |head: Vec<u8>, rest: &[u8]| Some([head.as_slice(), rest].concat());
    let expected = |nulls| {
        vec![
            with(head(1, nulls), &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1]),
            None,
            with(head(0, nulls), &[]),
            with(head(1, nulls), &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2, 255, 255, 255, 255]),
        ]
    };
    let pg = || PgType::Array(Box::new(PgType::Int4), 23);
    assert_eq!(fields(Arc::new(list.clone()), pg()), expected(1));
    assert_eq!(fields(Arc::new(list.slice(2, 2)), pg()), expected(1)[2..]);
    assert_eq!(fields(Arc::new(list.slice(0, 1)), pg()), expected(0)[..1]);
}

#[test]
fn a_struct_is_json_with_every_field() {
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("a b", DataType::Int64, true)), Arc::new(Int64Array::from(vec![Some(i64::MAX), None])) as ArrayRef),
        (Arc::new(Field::new("t", DataType::Utf8, true)), Arc::new(StringArray::from(vec![Some("\"x\""), Some("")])) as ArrayRef),
    ]);
    let json = |text: &str| Some([b"\x01", text.as_bytes()].concat());
    assert_eq!(
        fields(Arc::new(inner), PgType::Jsonb),
        [json("{\"a b\":9223372036854775807,\"t\":\"\\\"x\\\"\"}"), json("{\"a b\":null,\"t\":\"\"}")]
    );
}

#[test]
fn rows_are_written_up_to_a_limit_and_go_on_from_there() {
    let array: ArrayRef = Arc::new(Int32Array::from_iter_values(0..100));
    let whole = encode(array.clone(), target("c", PgType::Int4)).expect("encoded");
    let mut rows = Encoder::new("out", vec![target("c", PgType::Int4)]).rows(&batch(array)).expect("prepared");
    let (mut joined, mut counts) = (Vec::new(), Vec::new());
    loop {
        let mut part = Vec::new();
        let count = rows.write(&mut part, 64);
        if count == 0 {
            break;
        }
        counts.push(count);
        joined.extend(part);
    }
    assert_eq!(joined, whole);
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.len() > 10);
}

#[test]
fn decimals_at_the_ends_of_their_range_are_exact() {
    let cases: [(i128, i8, &str); 9] = [
        (0, 4, "0.0000"),
        (1, 5, "0.00001"),
        (-10_000, 4, "-1.0000"),
        (123_456_789, 2, "1234567.89"),
        (5, -3, "5000"),
        (7, -9, "7000000000"),
        (i128::from(u64::MAX) + 1, 3, "18446744073709551.616"),
        (10_i128.pow(38) - 1, 37, "9.9999999999999999999999999999999999999"),
        (-(10_i128.pow(38) - 1), 0, "-99999999999999999999999999999999999999"),
    ];
    for (value, scale, text) in cases {
        let mut out = Vec::new();
        put_numeric(value.unsigned_abs(), value < 0, scale, &mut out);
        assert_eq!(numeric(&out[4..]), text, "{value} {scale}");
        let mut wide = Vec::new();
        put_wide(i256::from_i128(value), scale, &mut wide);
        assert_eq!(wide, out);
    }
    let most = i256::from_string(&"9".repeat(76)).expect("76 digits");
    for (value, scale, text) in [(most, 0, "9".repeat(76)), (most.wrapping_neg(), 75, format!("-9.{}", "9".repeat(75)))] {
        let mut out = Vec::new();
        put_wide(value, scale, &mut out);
        assert_eq!(numeric(&out[4..]), text);
    }
}

proptest! {
    #[test]
    fn any_decimal_is_written_digit_for_digit(value in any::<i128>(), shift in 0_u32..127, scale in 0_i8..=38) {
        let value = (value >> shift).clamp(1 - 10_i128.pow(38), 10_i128.pow(38) - 1);
        let mut out = Vec::new();
        put_numeric(value.unsigned_abs(), value < 0, scale, &mut out);
        let expected = Decimal128Type::format_decimal(value, 38, scale);
        prop_assert_eq!(numeric(&out[4..]), expected.clone());
        // The way of the longer ones comes to the same.
        let long = i256::from_string(&format!("{value}{}", "0".repeat(30))).expect("at most 68 digits");
        let mut wide = Vec::new();
        put_wide(long, scale + 30, &mut wide);
        let written = numeric(&wide[4..]);
        let expected = if scale == 0 { format!("{expected}.{}", "0".repeat(30)) } else { format!("{expected}{}", "0".repeat(30)) };
        prop_assert_eq!(written, expected);
    }
}
