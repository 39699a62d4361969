//! Tests of `value.rs`: what fits which type, and that a cell written down and read back is the same cell.

use super::*;

fn text(value: &str) -> Literal {
    Literal::Text(value.to_owned())
}

fn shown(value: &Literal, to: &DataType) -> String {
    match cell(value, to) {
        Ok(array) => literal(&Field::new("x", to.clone(), true), &array, 0).map_or("null".to_owned(), |literal| literal.to_toml()),
        Err(why) => format!("! {why}"),
    }
}

#[test]
fn a_value_is_of_its_columns_type_or_is_refused() {
    let instant = Literal::Moment(Moment::Instant("2026-01-01T10:00:00+02:00".into()));
    let list = Literal::List(vec![Spanned::new(Literal::Integer(1), 0..1), Spanned::new(Literal::Float(2.5), 0..1)]);
    let record = Literal::Record(vec![(Spanned::new("x".to_owned(), 0..1), Spanned::new(Literal::Integer(1), 0..1))]);
    let doubles = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let pair = DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)].into());
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (value, to, expected) in [
        (Literal::Integer(300), DataType::Int16, "300"),
        (Literal::Integer(300), DataType::Int8, "! 300 does not fit"),
        (Literal::Integer(-1), DataType::UInt64, "! -1 does not fit"),
        (Literal::Integer(u64::MAX.into()), DataType::UInt64, "\"18446744073709551615\""),
        (text("18446744073709551615"), DataType::UInt64, "\"18446744073709551615\""),
        (Literal::Integer(1 << 70), DataType::Int64, "! an integer does not fit"),
        (Literal::Float(1.0), DataType::Int64, "! a float does not fit"),
        (text("1"), DataType::Int64, "! a string does not fit"),
        (Literal::Integer(1), DataType::Float64, "1.0"),
        (Literal::Float(0.1), DataType::Float32, "0.1"),
        (Literal::Float(f64::NAN), DataType::Float64, "nan"),
        (Literal::Integer(1), DataType::Utf8, "! an integer does not fit"),
        (text("é\n"), DataType::Utf8View, "\"é\\n\""),
        (text("1.50"), DataType::Decimal128(10, 2), "\"1.50\""),
        (text("1.505"), DataType::Decimal128(10, 2), "! 1.505 has more digits"),
        (Literal::Float(2.5), DataType::Decimal128(10, 2), "\"2.50\""),
        (Literal::Integer(100), DataType::Decimal128(2, 0), "! 100 does not fit"),
        (Literal::Boolean(true), DataType::Boolean, "true"),
        (text("2026-01-31"), DataType::Date32, "2026-01-31"),
        (text("2026-02-31"), DataType::Date32, "! \"2026-02-31\" does not fit"),
        (instant.clone(), utc.clone(), "2026-01-01T08:00:00Z"),
        (instant.clone(), DataType::Date32, "! a datetime does not fit"),
        (Literal::Moment(Moment::Date("2026-01-01".into())), utc, "2026-01-01T00:00:00Z"),
        (Literal::Moment(Moment::Time("10:00:00.5".into())), DataType::Time64(TimeUnit::Microsecond), "10:00:00.500"),
        (text("AP+A"), DataType::Binary, "\"AP+A\""),
        (text("AP+"), DataType::Binary, "! binary is written as base64"),
        (list.clone(), doubles, "[1.0, 2.5]"),
        (list, DataType::Int64, "! an array does not fit"),
        (record.clone(), pair, "{ x = 1 }"),
        (record, DataType::Struct(vec![Field::new("y", DataType::Int64, true)].into()), "! it has no field \"x\""),
        (text("PT1S"), DataType::Duration(TimeUnit::Second), "! a test cannot say values of this type"),
        (text("a"), DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), "\"a\""),
    ] {
        assert_eq!(shown(&value, &to), expected, "{value:?} as {to}");
    }
}

#[test]
fn columns_take_the_type_that_their_values_have_in_common() {
    let common = |values: &[Literal]| {
        let values: Vec<_> = values.iter().map(|value| Spanned::new(value.clone(), 0..1)).collect();
        common_type(&values).map(|data_type| data_type.to_string()).unwrap_or_else(|(_, what)| format!("! {what}"))
    };
    let list = |values: Vec<Literal>| Literal::List(values.into_iter().map(|value| Spanned::new(value, 0..1)).collect());
    assert_eq!(common(&[]), "Null");
    assert_eq!(common(&[Literal::Integer(1), Literal::Float(2.0)]), "Float64");
    assert_eq!(common(&[Literal::Integer(1), text("a")]), "! a string beside Int64");
    assert_eq!(common(&[list(vec![]), list(vec![Literal::Integer(1)])]), "List(Int64)");
    assert_eq!(common(&[Literal::Moment(Moment::Date("2026-01-01".into()))]), "Date32");
}
