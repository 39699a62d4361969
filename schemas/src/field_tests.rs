//! Tests of `field`: every type that the table knows comes back as itself, and rows of it keep the contract.

use std::{collections::HashMap, sync::Arc};

use ::arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DurationMicrosecondArray, Float32Array,
        Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
        Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{IntervalUnit, i256},
};
use proptest::prelude::*;

use super::*;
use crate::{Contract, arrow::JSON_TEXT};

/// The types of one value that compile back to themselves.
const SINGLE: usize = 20;

fn json_text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true).with_metadata(HashMap::from([(JSON_TEXT.0.to_owned(), JSON_TEXT.1.to_owned())]))
}

/// A column of a type, with nulls where asked for, and values at the type's ends.
fn single(kind: usize, name: &str, pick: &[Option<usize>]) -> (Field, ArrayRef) {
    fn of<T: Copy>(pick: &[Option<usize>], values: &[T]) -> Vec<Option<T>> {
        pick.iter().map(|pick| pick.map(|pick| values[pick % values.len()])).collect()
    }
    let texts = ["", "a", "äöü", "NaN", "2024-01-01", "{}"];
    let array: ArrayRef = match kind {
        0 => Arc::new(BooleanArray::from(of(pick, &[true, false]))),
        1 => Arc::new(Int8Array::from(of(pick, &[0, i8::MIN, i8::MAX]))),
        2 => Arc::new(Int16Array::from(of(pick, &[0, i16::MIN, i16::MAX]))),
        3 => Arc::new(Int32Array::from(of(pick, &[0, i32::MIN, i32::MAX]))),
        4 => Arc::new(Int64Array::from(of(pick, &[0, i64::MIN, i64::MAX]))),
        5 => Arc::new(UInt8Array::from(of(pick, &[0, u8::MAX]))),
        6 => Arc::new(UInt16Array::from(of(pick, &[0, u16::MAX]))),
        7 => Arc::new(UInt32Array::from(of(pick, &[0, u32::MAX]))),
        8 => Arc::new(UInt64Array::from(of(pick, &[0, u64::MAX, 1 << 63]))),
        9 => Arc::new(Float32Array::from(of(pick, &[0.1, -0.0, f32::MAX, f32::MIN_POSITIVE]))),
        10 => Arc::new(Float64Array::from(of(pick, &[0.1, -0.0, f64::MAX, 1e-300, 5.0]))),
        11 => Arc::new(Decimal128Array::from(of(pick, &[0_i128, 501, -(10_i128.pow(37))])).with_precision_and_scale(38, 9).expect("fits")),
        12 => {
            let values = [i256::ZERO, i256::from_i128(i128::MAX), i256::from_i128(-7)];
            Arc::new(Decimal256Array::from(of(pick, &values)).with_precision_and_scale(60, 3).expect("fits"))
        }
        13 => Arc::new(StringArray::from(of(pick, &texts))),
        14 => {
            let values: StringArray = of(pick, &["{}", "{\"a\": [1, null]}"]).into();
            return (json_text(name), Arc::new(values));
        }
        15 => Arc::new(BinaryArray::from(of(pick, &[&b""[..], &[0xff, 0], b"abc"]))),
        16 => Arc::new(Date32Array::from(of(pick, &[0, -719_162, 2_932_896]))),
        17 => Arc::new(Time64MicrosecondArray::from(of(pick, &[0, 86_399_999_999, 1]))),
        18 => {
            let values = of(pick, &[0, -62_135_596_800_000_000, 253_402_300_799_999_999]);
            let zone = pick.len().is_multiple_of(2);
            let array = TimestampMicrosecondArray::from(values);
            if zone { Arc::new(array.with_timezone("UTC")) } else { Arc::new(array) }
        }
        _ => Arc::new(DurationMicrosecondArray::from(of(pick, &[0, i64::MIN, 5_400_000_001]))),
    };
    (Field::new(name, array.data_type().clone(), true), array)
}

/// The same inside a list, a struct, or a list of structs.
fn nested(depth: usize, kind: usize, name: &str, pick: &[Option<usize>]) -> (Field, ArrayRef) {
    let nulls = |pick: &[Option<usize>]| NullBuffer::from_iter(pick.iter().map(|pick| pick.is_none_or(|pick| pick % 5 != 4)));
    match depth {
        0 => single(kind, name, pick),
        depth if depth % 2 == 1 => {
            let (field, values) = nested(depth / 2, kind, "item", pick);
            // Lists of none, one or two items, the last of all that are left.
            let mut offsets = vec![0_i32];
            for (row, _) in pick.iter().enumerate() {
                let last = *offsets.last().expect("one");
                let items = if row + 1 == pick.len() { pick.len() as i32 - last } else { (row as i32) % 3 };
                offsets.push((last + items).min(pick.len() as i32));
            }
            let list = ListArray::new(Arc::new(field), OffsetBuffer::new(offsets.into()), values, Some(nulls(pick)));
            (Field::new(name, ::arrow::array::Array::data_type(&list).clone(), true), Arc::new(list))
        }
        depth => {
            let (first, a) = nested(depth / 2 - 1, kind, "a", pick);
            let (second, b) = single(kind + 1, "b/~", pick);
            let array = StructArray::new(vec![first, second].into(), vec![a, b], Some(nulls(pick)));
            (Field::new(name, ::arrow::array::Array::data_type(&array).clone(), true), Arc::new(array))
        }
    }
}

proptest! {
    #[test]
    fn every_type_of_the_table_comes_back_and_its_rows_pass(
        kinds in prop::collection::vec((0..SINGLE, 0_usize..5, any::<bool>()), 1..6),
        pick in prop::collection::vec(prop::option::of(0_usize..40), 1..12),
    ) {
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (at, (kind, depth, nullable)) in kinds.into_iter().enumerate() {
            let solid: Vec<Option<usize>> = pick.iter().map(|pick| Some(pick.unwrap_or(at) / 5 * 5)).collect();
            let (field, array) = nested(depth, kind, &format!("c{at}"), if nullable { &pick } else { &solid });
            prop_assert_eq!(subschema(&field).fit, Fit::Exact, "{}", field);
            fields.push(field.with_nullable(nullable));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let text = contract(&schema).to_string();
        let contract = Contract::compile("test", &text).unwrap_or_else(|error| panic!("{error}: {text}"));
        prop_assert_eq!(contract.columns(), &schema, "{}", text);
        let options = RecordBatchOptions::new().with_row_count(Some(pick.len()));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options).expect("a batch");
        let violations = contract.check(&batch).violations;
        prop_assert!(violations.is_empty(), "{violations:?}: {text}");
    }
}

/// A type's subschema as it comes back.
fn back(data_type: DataType) -> (Option<DataType>, Fit) {
    let field = Field::new("c", data_type, true);
    let contract = Contract::compile("test", &contract(&Schema::new(vec![field.clone()])).to_string()).expect("compiles");
    (contract.columns().fields().first().map(|field| field.data_type().clone()), subschema(&field).fit)
}

#[test]
fn other_types_become_the_nearest_and_say_how_near() {
    use DataType::*;
    let item = |of: DataType| Arc::new(Field::new("item", of, true));
    let utc = || Some("UTC".into());
    for (from, to, fit) in [
        (Float16, Some(Float32), Fit::Same),
        (Decimal32(9, 2), Some(Decimal128(9, 2)), Fit::Same),
        (Decimal256(9, 2), Some(Decimal128(9, 2)), Fit::Same),
        (Decimal128(5, -2), Some(Decimal128(7, 0)), Fit::Same),
        (Decimal128(2, 6), Some(Decimal128(6, 6)), Fit::Same),
        (Decimal256(76, -76), Some(Float64), Fit::Lossy),
        (LargeUtf8, Some(Utf8), Fit::Same),
        (FixedSizeBinary(16), Some(Binary), Fit::Lossy),
        (Date64, Some(Date32), Fit::Lossy),
        (Timestamp(TimeUnit::Second, utc()), Some(Timestamp(TimeUnit::Microsecond, utc())), Fit::Same),
        (Timestamp(TimeUnit::Microsecond, Some("+01:00".into())), Some(Timestamp(TimeUnit::Microsecond, utc())), Fit::Lossy),
        (Timestamp(TimeUnit::Nanosecond, None), Some(Timestamp(TimeUnit::Microsecond, None)), Fit::Lossy),
        (Time32(TimeUnit::Second), Some(Time64(TimeUnit::Microsecond)), Fit::Same),
        (Duration(TimeUnit::Nanosecond), Some(Duration(TimeUnit::Microsecond)), Fit::Lossy),
        (Interval(IntervalUnit::DayTime), Some(Utf8), Fit::Lossy),
        (LargeList(item(Int64)), Some(List(item(Int64))), Fit::Same),
        (List(Arc::new(Field::new("element", Int64, false))), Some(List(item(Int64))), Fit::Same),
        (List(item(Interval(IntervalUnit::DayTime))), Some(List(item(Utf8))), Fit::Lossy),
        (FixedSizeList(item(Int8), 3), Some(List(item(Int8))), Fit::Lossy),
        (List(item(Null)), None, Fit::Open),
        (Struct(Fields::empty()), Some(Utf8), Fit::Lossy),
        (Struct(vec![Field::new("a", Null, true)].into()), None, Fit::Open),
        (Dictionary(Box::new(Int32), Box::new(Utf8)), Some(Utf8), Fit::Same),
        (Null, None, Fit::Open),
    ] {
        assert_eq!(back(from.clone()), (to, fit), "{from}");
    }
}
