//! Bytes as Postgres sends them, by hand, and bytes as nobody sends them.

use arrow::{
    array::{Array, AsArray},
    datatypes::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, IntervalMonthDayNanoType, TimestampMicrosecondType},
};
use proptest::prelude::*;

use super::{super::types::Attribute, *};

/// A stream of these rows.
fn stream(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0; 8]);
    for row in rows {
        bytes.extend(i16::try_from(row.len()).expect("few").to_be_bytes());
        for value in row {
            bytes.extend(field(value.as_deref()));
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

fn field(value: Option<&[u8]>) -> Vec<u8> {
    let Some(value) = value else { return (-1_i32).to_be_bytes().to_vec() };
    let mut bytes = i32::try_from(value.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(value);
    bytes
}

fn numeric(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
    let mut bytes = i16::try_from(digits.len()).expect("few").to_be_bytes().to_vec();
    bytes.extend(weight.to_be_bytes());
    bytes.extend(sign.to_be_bytes());
    bytes.extend(scale.to_be_bytes());
    digits.iter().for_each(|digit| bytes.extend(digit.to_be_bytes()));
    bytes
}

fn list(oid: u32, items: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes =
        [1_i32.to_be_bytes(), 0_i32.to_be_bytes(), oid.to_be_bytes(), i32::try_from(items.len()).expect("few").to_be_bytes()].concat();
    bytes.extend(1_i32.to_be_bytes());
    items.iter().for_each(|item| bytes.extend(field(*item)));
    bytes
}

/// One column of these values, or the message of the error.
fn column_as(kind: &Kind, values: &[Option<Vec<u8>>], infinity: Infinity) -> std::result::Result<ArrayRef, String> {
    let rows: Vec<_> = values.iter().map(|value| vec![value.clone()]).collect();
    let mut decoder = Decoder::new([("c", kind)], infinity, "\"t\"");
    decoder.push(&stream(&rows)).and_then(|()| decoder.end()).map_err(|error| error.message)?;
    let (columns, count) = decoder.batch().map_err(|error| error.message)?;
    assert_eq!(count, values.len());
    assert_eq!(columns[0].data_type(), &kind.data_type());
    Ok(columns[0].clone())
}

fn column(kind: &Kind, values: &[Option<Vec<u8>>]) -> std::result::Result<ArrayRef, String> {
    column_as(kind, values, Infinity::Fail)
}

fn one(kind: &Kind, value: Vec<u8>) -> std::result::Result<ArrayRef, String> {
    column(kind, &[Some(value)])
}

#[test]
fn numbers_become_decimals_and_text_digit_for_digit() {
    for (bytes, text, unscaled) in [
        (numeric(0, POSITIVE, 2, &[12, 3400]), "12.34", Some(1234)),
        (numeric(0, NEGATIVE, 2, &[12, 3400]), "-12.34", Some(-1234)),
        (numeric(-1, POSITIVE, 2, &[500]), "0.05", Some(5)),
        (numeric(-1, NEGATIVE, 3, &[5]), "-0.000", None),
        (numeric(1, POSITIVE, 0, &[1]), "10000", Some(1_000_000)),
        (numeric(1, POSITIVE, 2, &[1, 2, 300]), "10002.03", Some(1_000_203)),
        (numeric(0, POSITIVE, 0, &[]), "0", Some(0)),
        (numeric(0, POSITIVE, 4, &[]), "0.0000", Some(0)),
        (numeric(0, POSITIVE, 6, &[1, 1, 2000]), "1.000120", None),
        (numeric(0, POSITIVE, 5, &[1, 1200]), "1.12000", Some(112)),
    ] {
        assert_eq!(one(&Kind::NumericText, bytes.clone()).expect(text).as_string::<i32>().value(0), text);
        let decimal = one(&Kind::Decimal(10, 2), bytes.clone());
        match unscaled {
            Some(unscaled) => assert_eq!(decimal.expect(text).as_primitive::<Decimal128Type>().value(0), unscaled),
            None => assert_eq!(decimal.expect_err(text), "cannot read \"t\": column \"c\" holds a number: decimal(10,2) does not hold it"),
        }
        assert!(one(&Kind::NumericFloat, bytes).is_ok());
    }
    for (sign, text) in [(NAN, "NaN"), (INFINITY, "Infinity"), (MINUS_INFINITY, "-Infinity")] {
        let bytes = numeric(0, sign, 0, &[]);
        assert_eq!(one(&Kind::NumericText, bytes.clone()).expect(text).as_string::<i32>().value(0), text);
        assert_eq!(
            one(&Kind::Decimal(10, 2), bytes.clone()).expect_err(text),
            format!("cannot read \"t\": column \"c\" holds {text}: a decimal has no such value")
        );
        let float = one(&Kind::NumericFloat, bytes).expect(text);
        assert!(!float.as_primitive::<Float64Type>().value(0).is_finite());
    }
    // 76 nines fit, one digit more does not.
    let nines = numeric(18, POSITIVE, 0, &[9999; 19]);
    assert!(one(&Kind::Decimal(76, 0), nines.clone()).is_ok());
    assert!(one(&Kind::Decimal(75, 0), nines.clone()).is_err());
    assert!(one(&Kind::Decimal(38, 0), nines).is_err());
    assert!(one(&Kind::Decimal(38, 0), numeric(9, POSITIVE, 0, &[99, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999])).is_ok());
    assert!(one(&Kind::Decimal(38, 0), numeric(9, POSITIVE, 0, &[100])).is_err());
    assert!(one(&Kind::NumericText, numeric(0, POSITIVE, 0, &[10_000])).is_err());
}

#[test]
fn times_count_from_1970_and_what_arrow_has_not_is_an_error() {
    let date = |days: i32| Some(days.to_be_bytes().to_vec());
    let dates = column(&Kind::Date, &[date(0), date(-10_957), None]).expect("dates");
    assert_eq!(dates.as_primitive::<Date32Type>().iter().collect::<Vec<_>>(), [Some(10_957), Some(0), None]);

    let us = |us: i64| Some(us.to_be_bytes().to_vec());
    let instants = column(&Kind::Timestamptz, &[us(0), us(-EPOCH_US)]).expect("instants");
    assert_eq!(instants.as_primitive::<TimestampMicrosecondType>().values(), &[EPOCH_US, 0]);

    let infinite = "cannot read \"t\": column \"c\" holds an infinity, which Arrow has not";
    for (kind, bytes) in [
        (Kind::Date, date(i32::MAX)),
        (Kind::Date, date(i32::MIN)),
        (Kind::Timestamp, us(i64::MAX)),
        (Kind::Timestamptz, us(i64::MIN)),
        (
            Kind::Interval,
            Some([i64::MAX.to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec()].concat()),
        ),
    ] {
        assert_eq!(column(&kind, std::slice::from_ref(&bytes)).expect_err("infinite"), infinite);
        assert!(column_as(&kind, &[bytes], Infinity::Null).expect("null").is_null(0));
    }
    assert_eq!(
        column(&Kind::Time, &[us(DAY_US)]).expect_err("no time"),
        "cannot read \"t\": column \"c\" holds 24:00:00: Arrow's day ends before it"
    );
    assert!(column(&Kind::Timestamp, &[us(i64::MAX - 1)]).expect_err("too far").contains("further off than Arrow counts"));

    let interval = [3_000_000_i64.to_be_bytes().to_vec(), 2_i32.to_be_bytes().to_vec(), 14_i32.to_be_bytes().to_vec()].concat();
    let interval = one(&Kind::Interval, interval).expect("an interval");
    assert_eq!(interval.as_primitive::<IntervalMonthDayNanoType>().value(0), IntervalMonthDayNano::new(14, 2, 3_000_000_000));
}

#[test]
fn lists_and_structs_nest() {
    let kind = Kind::Struct(vec![
        Attribute { name: "n".into(), kind: Kind::Int4, oid: 23 },
        Attribute { name: "l".into(), kind: Kind::List(Box::new(Kind::Text), 25), oid: 1009 },
    ]);
    let record = |n: Option<&[u8]>, l: Option<&[u8]>| {
        let mut bytes = 2_i32.to_be_bytes().to_vec();
        bytes.extend(23_u32.to_be_bytes());
        bytes.extend(field(n));
        bytes.extend(1009_u32.to_be_bytes());
        bytes.extend(field(l));
        bytes
    };
    let texts = list(25, &[Some(b"a"), None, Some(b"")]);
    let empty = [0_i32.to_be_bytes(), 0_i32.to_be_bytes(), 25_u32.to_be_bytes()].concat();
    let values = [Some(record(Some(&7_i32.to_be_bytes()), Some(&texts))), None, Some(record(None, Some(&empty)))];
    let found = column(&kind, &values).expect("structs");
    let found = found.as_struct();
    assert_eq!(found.column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(7), None, None]);
    let lists = found.column(1).as_list::<i32>();
    assert_eq!(lists.value(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), None, Some("")]);
    assert!(found.is_null(1) && lists.is_null(1));
    assert_eq!((lists.is_null(2), lists.value_length(2)), (false, 0));

    let mut square = list(23, &[]);
    square[..4].copy_from_slice(&2_i32.to_be_bytes());
    assert_eq!(
        one(&Kind::List(Box::new(Kind::Int4), 23), square).expect_err("two dimensions"),
        "cannot read \"t\": column \"c\" holds an array of several dimensions: a list has one"
    );
    assert!(one(&Kind::List(Box::new(Kind::Int4), 20), list(23, &[])).expect_err("type").contains("of another type"));
}

#[test]
fn text_is_text_and_a_uuid_is_written_out() {
    assert_eq!(one(&Kind::Jsonb, b"\x01{\"a\": 1}".to_vec()).expect("json").as_string::<i32>().value(0), "{\"a\": 1}");
    assert!(one(&Kind::Jsonb, b"\x02{}".to_vec()).is_err());
    assert_eq!(one(&Kind::Uuid, (0..16).collect()).expect("a uuid").as_string::<i32>().value(0), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!(one(&Kind::Text, vec![0xff]).expect_err("no text"), "cannot read \"t\": column \"c\" holds text: it is not UTF-8");
    assert_eq!(one(&Kind::Oid, vec![255; 4]).expect("an oid").as_primitive::<Int64Type>().value(0), i64::from(u32::MAX));
    assert!(one(&Kind::Bool, vec![2]).is_err());
    assert!(one(&Kind::Int4, vec![0; 3]).expect_err("short").contains("its length is wrong"));
}

#[test]
fn a_stream_that_is_cut_or_goes_on_is_no_whole_one() {
    let rows = vec![vec![Some(1_i32.to_be_bytes().to_vec())], vec![Some(2_i32.to_be_bytes().to_vec())]];
    let whole = stream(&rows);
    for cut in 0..whole.len() {
        let mut decoder = Decoder::new([("c", &Kind::Int4)], Infinity::Fail, "\"t\"");
        decoder.push(&whole[..cut]).expect("a start");
        let error = decoder.end().expect_err("cut");
        assert_eq!(error.message, "cannot read \"t\": what the server sent is broken: it ends before its trailer");
        assert_eq!(error.retry, crate::Retry::Later);
    }
    let mut decoder = Decoder::new([("c", &Kind::Int4)], Infinity::Fail, "\"t\"");
    decoder.push(&whole).expect("whole");
    decoder.end().expect("whole");
    assert!(decoder.push(&[0]).is_err());
    for start in [&b"PGCOPX"[..], b"1,2\n"] {
        let mut decoder = Decoder::new([("c", &Kind::Int4)], Infinity::Fail, "\"t\"");
        assert!(decoder.push(start).expect_err("no COPY").message.contains("does not start as binary COPY does"));
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let leaf = prop::sample::select(vec![
        Kind::Bool,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Oid,
        Kind::Float4,
        Kind::Float8,
        Kind::Decimal(12, 2),
        Kind::Decimal(38, 37),
        Kind::Decimal(76, 3),
        Kind::NumericText,
        Kind::NumericFloat,
        Kind::Text,
        Kind::Jsonb,
        Kind::Bytea,
        Kind::Date,
        Kind::Time,
        Kind::Timestamp,
        Kind::Interval,
        Kind::Uuid,
    ]);
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|kind| Kind::List(Box::new(kind), 0)),
            prop::collection::vec(inner, 1..3).prop_map(|kinds| {
                Kind::Struct(kinds.into_iter().enumerate().map(|(n, kind)| Attribute { name: n.to_string(), kind, oid: 0 }).collect())
            }),
        ]
    })
}

/// Mostly small numbers, as lengths and counts are.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0_u8), 1 => 0_u8..20, 1 => any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(kinds in prop::collection::vec(kinds(), 0..3), bytes in prop::collection::vec(byte(), 0..200)) {
        let columns: Vec<_> = kinds.iter().map(|kind| ("c", kind)).collect();
        let mut decoder = Decoder::new(columns.clone(), Infinity::Null, "\"t\"");
        if decoder.push(&bytes).is_ok() {
            prop_assert!(decoder.end().is_err() || bytes.len() >= 19);
        }
        // Past the header, a value that is as long as it says.
        let mut decoder = Decoder::new(columns, Infinity::Null, "\"t\"");
        let row: Vec<_> = kinds.iter().map(|_| Some(bytes.clone())).collect();
        if decoder.push(&stream(&[row])).is_ok() {
            prop_assert!(decoder.batch().is_ok());
        }
    }

    #[test]
    fn where_messages_end_does_not_matter(
        numbers in prop::collection::vec(any::<Option<i64>>(), 0..20),
        cuts in prop::collection::vec(1_usize..40, 1..10),
    ) {
        let rows: Vec<_> = numbers.iter().map(|number| vec![number.map(|n| n.to_be_bytes().to_vec()), Some(b"text".to_vec())]).collect();
        let whole = stream(&rows);
        let mut decoder = Decoder::new([("n", &Kind::Int8), ("t", &Kind::Text)], Infinity::Fail, "\"t\"");
        let (mut rest, mut cuts) = (whole.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
            decoder.push(piece).expect("a proper stream");
            rest = after;
        }
        decoder.end().expect("whole");
        let (columns, count) = decoder.batch().expect("columns");
        prop_assert_eq!(count, numbers.len());
        prop_assert_eq!(columns[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), numbers);
    }
}
