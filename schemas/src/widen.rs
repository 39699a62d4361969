//! Which type holds the values of two? For a column whose source changed its type: nothing is rounded, cut or lost, and what a
//! reader of the wider type cannot take exactly (an integer past 2^53 as a float) is a value that does not fit, not another value.

use ::arrow::datatypes::{DataType, Field, TimeUnit};

/// The key that marks a text column whose reader keeps every value as JSON text.
const JSON_TEXT: &str = "weir:json";

/// A column that holds what both hold, under the name of `known`, and of its type where that holds both; none where no type does.
pub fn widen(known: &Field, found: &Field) -> Option<Field> {
    let field = known.clone().with_nullable(known.is_nullable() || found.is_nullable());
    let json = |field: &Field| field.metadata().get(JSON_TEXT).is_some_and(|marked| marked == "true");
    match (json(known), json(found)) {
        (true, _) => return Some(field),
        (false, true) => return Some(found.clone().with_name(known.name()).with_nullable(true)),
        (false, false) => {}
    }
    let both = both(known.data_type(), found.data_type())?;
    // More than its type on one side only is no more than its type.
    let metadata = if known.metadata() == found.metadata() { known.metadata().clone() } else { Default::default() };
    Some(field.with_data_type(both).with_metadata(metadata))
}

/// How messages call a column's type.
pub fn type_name(field: &Field) -> String {
    match field.metadata().get(JSON_TEXT) {
        Some(marked) if marked == "true" => format!("{} (JSON)", field.data_type()),
        _ => field.data_type().to_string(),
    }
}

fn both(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    let text = |kind: &DataType| matches!(kind, Utf8 | LargeUtf8 | Utf8View);
    let binary = |kind: &DataType| matches!(kind, Binary | LargeBinary | BinaryView | FixedSizeBinary(_));
    let date = |kind: &DataType| matches!(kind, Date32 | Date64);
    Some(match (a, b) {
        _ if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(_, value), other) | (other, Dictionary(_, value)) => return both(value, other),
        _ if text(a) && text(b) => a.clone(),
        _ if binary(a) && binary(b) => match (a, b) {
            (FixedSizeBinary(_), FixedSizeBinary(_)) => Binary,
            (FixedSizeBinary(_), other) | (other, _) => other.clone(),
        },
        _ if a.is_integer() && b.is_integer() => integers(a, b),
        _ if a.is_floating() && b.is_floating() => {
            if bytes(a) >= bytes(b) {
                a.clone()
            } else {
                b.clone()
            }
        }
        _ if a.is_integer() && b.is_floating() => float(bytes(a), b),
        _ if a.is_floating() && b.is_integer() => float(bytes(b), a),
        _ if (a.is_decimal() || a.is_integer()) && (b.is_decimal() || b.is_integer()) => return decimals(a, b),
        _ if date(a) && date(b) => Date64,
        // A date is no instant: where one has a zone, only text holds both.
        (day, Timestamp(unit, None)) | (Timestamp(unit, None), day) if date(day) => Timestamp(*unit, None),
        (Timestamp(x, None), Timestamp(y, None)) => Timestamp(*x.max(y), None),
        (Timestamp(x, Some(zone)), Timestamp(y, Some(_))) => Timestamp(*x.max(y), Some(zone.clone())),
        (Time32(x) | Time64(x), Time32(y) | Time64(y)) => match *x.max(y) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (Duration(x), Duration(y)) => Duration(*x.max(y)),
        (List(x), List(y)) => List(widen(x, y)?.into()),
        (LargeList(x), List(y) | LargeList(y)) | (List(x), LargeList(y)) => LargeList(widen(x, y)?.into()),
        (Struct(x), Struct(y)) => {
            let mut fields: Vec<Field> = x.iter().map(|field| field.as_ref().clone()).collect();
            for field in &mut fields {
                *field = match y.find(field.name()) {
                    Some((_, other)) => widen(field, other)?,
                    None => field.clone().with_nullable(true),
                };
            }
            fields.extend(y.iter().filter(|field| x.find(field.name()).is_none()).map(|field| field.as_ref().clone().with_nullable(true)));
            Struct(fields.into())
        }
        _ if a.is_nested() || b.is_nested() || binary(a) || binary(b) => return None,
        (_, b) if text(b) => b.clone(),
        (a, _) if text(a) => a.clone(),
        _ => Utf8,
    })
}

fn bytes(kind: &DataType) -> usize {
    kind.primitive_width().unwrap_or_default()
}

fn integers(a: &DataType, b: &DataType) -> DataType {
    use DataType::*;
    if a.is_signed_integer() == b.is_signed_integer() {
        return if bytes(a) >= bytes(b) { a.clone() } else { b.clone() };
    }
    let (signed, unsigned) = if a.is_signed_integer() { (a, b) } else { (b, a) };
    match bytes(signed).max(2 * bytes(unsigned)) {
        2 => Int16,
        4 => Int32,
        8 => Int64,
        _ => Decimal128(20, 0),
    }
}

/// The float for integers of so many bytes: past four bytes it is not every integer that it holds, and a reader refuses those.
fn float(integer_bytes: usize, float: &DataType) -> DataType {
    match (float, integer_bytes) {
        (DataType::Float16, 1) => DataType::Float16,
        (DataType::Float16 | DataType::Float32, 1 | 2) => DataType::Float32,
        _ => DataType::Float64,
    }
}

fn decimals(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((a_whole, a_scale), (b_whole, b_scale)) = (digits(a)?, digits(b)?);
    let (whole, scale) = (a_whole.max(b_whole), a_scale.max(b_scale));
    let is = |kind: &DataType| kind.is_decimal() && digits(kind) == Some((whole, scale));
    if let Some(kind) = [a, b].into_iter().find(|kind| is(kind)) {
        return Some(kind.clone());
    }
    let precision = u8::try_from(whole + scale).ok()?;
    let scale = i8::try_from(scale).ok()?;
    Some(match precision {
        0..=38 => DataType::Decimal128(precision.max(1), scale),
        39..=76 => DataType::Decimal256(precision, scale),
        _ => DataType::Utf8,
    })
}

/// Digits before and after the point.
fn digits(kind: &DataType) -> Option<(i16, i16)> {
    use DataType::*;
    Some(match kind {
        Int8 | UInt8 => (3, 0),
        Int16 | UInt16 => (5, 0),
        Int32 | UInt32 => (10, 0),
        Int64 => (19, 0),
        UInt64 => (20, 0),
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) | Decimal256(precision, scale) => {
            (i16::from(*precision) - i16::from(*scale), i16::from(*scale))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn column(kind: &DataType) -> Field {
        Field::new("x", kind.clone(), false)
    }

    #[test]
    fn the_wider_type_holds_both() {
        use DataType::*;
        let seconds = |zone: Option<&str>| Timestamp(TimeUnit::Second, zone.map(Into::into));
        let list = |kind: &DataType| List(Field::new("item", kind.clone(), true).into());
        let record = |fields: &[(&str, DataType)]| {
            Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>().into())
        };
        for (a, b, wide) in [
            (Int16, Int64, Some(Int64)),
            (UInt8, Int8, Some(Int16)),
            (UInt32, Int16, Some(Int64)),
            (UInt64, Int8, Some(Decimal128(20, 0))),
            (Int16, Float32, Some(Float32)),
            (Int32, Float32, Some(Float64)),
            (Int64, Float64, Some(Float64)),
            (Float32, Float64, Some(Float64)),
            (Int64, Decimal128(10, 2), Some(Decimal128(21, 2))),
            (Decimal128(12, 2), Decimal128(10, 4), Some(Decimal128(14, 4))),
            (Decimal128(38, 0), Decimal128(38, 10), Some(Decimal256(48, 10))),
            (Decimal256(76, 0), Decimal256(76, 10), Some(Utf8)),
            (Decimal128(10, -3), Int8, Some(Decimal128(13, 0))),
            (Float64, Decimal128(10, 2), Some(Utf8)),
            (Date32, seconds(None), Some(seconds(None))),
            (Date32, seconds(Some("UTC")), Some(Utf8)),
            (seconds(None), Timestamp(TimeUnit::Nanosecond, None), Some(Timestamp(TimeUnit::Nanosecond, None))),
            (seconds(None), seconds(Some("UTC")), Some(Utf8)),
            (Time32(TimeUnit::Second), Time64(TimeUnit::Microsecond), Some(Time64(TimeUnit::Microsecond))),
            (Boolean, Int64, Some(Utf8)),
            (Int64, Utf8, Some(Utf8)),
            (Date32, LargeUtf8, Some(LargeUtf8)),
            (Null, Date32, Some(Date32)),
            (FixedSizeBinary(16), Binary, Some(Binary)),
            (Binary, Utf8, None),
            (list(&Int32), list(&Int64), Some(list(&Int64))),
            (list(&Int32), Int32, None),
            (record(&[("a", Int64)]), record(&[("a", Utf8)]), Some(record(&[("a", Utf8)]))),
            (record(&[("a", list(&Int64))]), record(&[("a", Int64)]), None),
        ] {
            for (a, b) in [(&a, &b), (&b, &a)] {
                let widened = widen(&column(a), &column(b));
                assert_eq!(widened.as_ref().map(Field::data_type), wide.as_ref(), "{a} {b}");
            }
            // What holds both needs no more widening.
            if let Some(wide) = wide {
                assert_eq!(both(&wide, &a), Some(wide.clone()), "{wide} {a}");
                assert_eq!(both(&wide, &b), Some(wide.clone()), "{wide} {b}");
            }
        }
        let (known, found) = (record(&[("a", Int64)]), record(&[("b", Utf8)]));
        assert_eq!(both(&known, &found), Some(record(&[("a", Int64), ("b", Utf8)])));
    }

    #[test]
    fn json_text_holds_whatever_records_hold_and_is_named() {
        let json = column(&DataType::Utf8).with_metadata(HashMap::from([(JSON_TEXT.to_owned(), "true".to_owned())]));
        let number = column(&DataType::Int64);
        for widened in [widen(&json, &number), widen(&number, &json)] {
            assert_eq!(type_name(&widened.expect("held")), "Utf8 (JSON)");
        }
        assert_eq!(type_name(&number), "Int64");
    }

    #[test]
    fn a_column_may_be_null_where_either_may() {
        let known = column(&DataType::Int32);
        assert!(!widen(&known, &column(&DataType::Int64)).expect("held").is_nullable());
        assert!(widen(&known, &Field::new("y", DataType::Int64, true)).expect("held").is_nullable());
    }
}
