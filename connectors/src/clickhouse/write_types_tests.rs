//! What becomes of each Arrow type, and what the server's type names mean.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{Fields, IntervalUnit, UnionFields, UnionMode};

use super::*;

fn field(data_type: DataType) -> Field {
    Field::new("x", data_type, true)
}

fn uuid() -> Field {
    let metadata = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]);
    field(DataType::FixedSizeBinary(16)).with_metadata(metadata)
}

#[test]
fn every_documented_type_is_mapped_as_documented() {
    use DataType::*;
    let utc = Some(Arc::<str>::from("UTC"));
    let dictionary = Dictionary(Box::new(Int32), Box::new(Utf8));
    let cases = [
        ("Boolean", field(Boolean), "Bool"),
        ("Int8", field(Int8), "Int8"),
        ("Int16", field(Int16), "Int16"),
        ("Int32", field(Int32), "Int32"),
        ("Int64", field(Int64), "Int64"),
        ("UInt8", field(UInt8), "UInt8"),
        ("UInt16", field(UInt16), "UInt16"),
        ("UInt32", field(UInt32), "UInt32"),
        ("UInt64", field(UInt64), "UInt64"),
        ("Float16", field(Float16), "Float32"),
        ("Float32", field(Float32), "Float32"),
        ("Float64", field(Float64), "Float64"),
        ("Decimal32, Decimal64, Decimal128, Decimal256", field(Decimal256(76, 5)), "Decimal(76, 5)"),
        ("Decimal32, Decimal64, Decimal128, Decimal256", field(Decimal128(5, -3)), "Decimal(8, 0)"),
        ("Utf8, LargeUtf8, Utf8View", field(Utf8View), "String"),
        ("Binary, LargeBinary, BinaryView", field(LargeBinary), "String"),
        ("FixedSizeBinary", field(FixedSizeBinary(3)), "FixedString(3)"),
        ("FixedSizeBinary(16) of the extension type arrow.uuid", uuid(), "UUID"),
        ("Date32", field(Date32), "Date32"),
        ("Date64", field(Date64), "DateTime64(3, 'UTC')"),
        ("Timestamp(s, zone)", field(Timestamp(TimeUnit::Second, utc.clone())), "DateTime64(0, 'UTC')"),
        ("Timestamp(ms, zone)", field(Timestamp(TimeUnit::Millisecond, utc.clone())), "DateTime64(3, 'UTC')"),
        ("Timestamp(us, zone)", field(Timestamp(TimeUnit::Microsecond, utc.clone())), "DateTime64(6, 'UTC')"),
        ("Timestamp(ns, zone)", field(Timestamp(TimeUnit::Nanosecond, utc)), "DateTime64(9, 'UTC')"),
        ("Timestamp(s | ms | us | ns)", field(Timestamp(TimeUnit::Microsecond, None)), "DateTime64(6, 'UTC')"),
        ("Time32, Time64", field(Time64(TimeUnit::Nanosecond)), "String"),
        ("Duration", field(Duration(TimeUnit::Second)), "String"),
        ("Interval", field(Interval(IntervalUnit::MonthDayNano)), "String"),
        ("Null", field(Null), "String"),
        ("List, LargeList, ListView, LargeListView, FixedSizeList", field(List(Arc::new(field(Int8)))), "Array(Nullable(Int8))"),
        ("Struct", field(Struct(Fields::from(vec![field(Int8)]))), "Tuple(`x` Nullable(Int8))"),
        ("Map", field(map_of(Utf8, Date32)), "Map(String, Nullable(Date32))"),
        ("Dictionary, RunEndEncoded", field(dictionary), "String"),
    ];
    for row in TYPES {
        assert!(cases.iter().any(|(name, ..)| *name == row.arrow), "{} has no case", row.arrow);
    }
    for (name, field, column) in cases {
        let row = TYPES.iter().find(|row| row.arrow == name).expect("a row of the table");
        let mapped = map(&field).expect("mapped");
        assert_eq!((mapped.column.to_string().as_str(), mapped.loss.is_none()), (column, row.exact), "{name}");
        let documented = row.column.split(['(', ' ']).next().expect("a word");
        if !["Decimal", "as"].contains(&documented) {
            assert!(column.starts_with(documented), "{name}: {column} is not {}", row.column);
        }
        assert!(
            accepts(field.data_type(), &mapped.column.nullable(), mapped.loss.is_some(), false)
                || name.contains("zone")
                || utc_only(&field),
            "{name}"
        );
    }
}

/// Wall clocks go where UTC is written down, which is what they map to.
fn utc_only(field: &Field) -> bool {
    accepts(field.data_type(), &map(field).expect("mapped").column, false, false)
}

fn map_of(key: DataType, value: DataType) -> DataType {
    let pair = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair.into()), false)), false)
}

#[test]
fn what_clickhouse_has_nothing_for_is_not_mapped() {
    let members = UnionFields::try_new([0_i8], [field(DataType::Int8)]).expect("fields");
    for data_type in [
        DataType::Union(members, UnionMode::Sparse),
        DataType::Struct(Fields::empty()),
        DataType::Struct(vec![field(DataType::Int8), field(DataType::Int8)].into()),
        DataType::Decimal256(76, -3),
        map_of(DataType::Float64, DataType::Int8),
    ] {
        assert_eq!(map(&field(data_type.clone())), None, "{data_type}");
    }
}

#[test]
fn a_loss_inside_is_a_loss() {
    let times = DataType::List(Arc::new(field(DataType::Time32(TimeUnit::Second))));
    assert_eq!(map(&field(times)).expect("mapped").loss, Some("a time of day becomes text"));
}

#[test]
fn a_type_is_read_as_it_is_written() {
    for text in [
        "Bool",
        "Nullable(Decimal(76, 5))",
        "LowCardinality(Nullable(String))",
        "DateTime64(6, 'UTC')",
        "DateTime('Europe/Berlin')",
        "DateTime",
        "Date",
        "Array(Tuple(`a b` Nullable(Int64), `c\\`,)` Map(String, Array(UInt8))))",
        "Tuple(Int8, String)",
        "Enum8('a' = 1, 'b)' = 2)",
        "AggregateFunction(sum, UInt64)",
        "Nullable(IPv4)",
        "Int256",
        "FixedString(16)",
    ] {
        assert_eq!(Type::parse(text).to_string(), text);
    }
    assert_eq!(Type::parse("Tuple(a Int8, b Tuple(c String))").to_string(), "Tuple(`a` Int8, `b` Tuple(`c` String))");
    assert_eq!(Type::parse("Int256"), Type::Other("Int256".into()));
    for broken in ["Nullable(", "Array)", "Tuple(`a", "Decimal(x, y)", "", "(", "DateTime64(", "Map(String)"] {
        assert!(matches!(Type::parse(broken), Type::Other(_)), "{broken}");
    }
}

#[test]
fn only_a_type_that_holds_every_value_takes_a_column() {
    use DataType::*;
    let takes = |from: &DataType, to: &str| accepts(from, &Type::parse(to), false, true);
    assert!(takes(&Int32, "Int64") && takes(&UInt32, "Int64") && takes(&Int64, "Decimal(20, 0)") && takes(&Float32, "Float64"));
    assert!(!takes(&Int64, "Int32") && !takes(&UInt64, "Int64") && !takes(&Int8, "UInt64") && !takes(&Int64, "Float64"));
    assert!(!takes(&Utf8, "Int64") && !takes(&Int64, "String") && !takes(&Int8, "IPv4") && !takes(&Boolean, "UInt8"));
    assert!(takes(&Decimal128(10, 2), "Decimal(12, 3)") && !takes(&Decimal128(10, 2), "Decimal(10, 3)"));
    assert!(takes(&Utf8View, "LowCardinality(Nullable(String))") && takes(&Utf8, "Enum8('a' = 1)"));
    assert!(takes(&Date32, "Date") && takes(&FixedSizeBinary(16), "UUID") && !takes(&FixedSizeBinary(15), "UUID"));
    let (local, zoned) = (Timestamp(TimeUnit::Microsecond, None), Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())));
    assert!(takes(&local, "DateTime64(6, 'UTC')") && takes(&local, "DateTime64(9)") && takes(&local, "DateTime"));
    assert!(!takes(&local, "DateTime64(6, 'Europe/Berlin')") && !accepts(&local, &Type::parse("DateTime64(6)"), false, false));
    assert!(takes(&zoned, "DateTime64(9, 'Asia/Tokyo')") && !takes(&zoned, "DateTime64(6, 'UTC')"));
    assert!(accepts(&zoned, &Type::parse("DateTime64(6, 'UTC')"), true, false));
    let list = List(Arc::new(field(Struct(vec![Field::new("a", Int8, true), Field::new("b", Utf8, true)].into()))));
    assert!(takes(&list, "Array(Tuple(b String, a Int16))") && !takes(&list, "Array(Tuple(a Int16))"));
}
