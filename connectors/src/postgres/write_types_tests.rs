//! Tests of the matrix of types.

use std::sync::Arc;

use arrow::datatypes::{Fields, UnionFields, UnionMode};

use super::*;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn marked_as(name: &str, data_type: DataType) -> Field {
    field("c", data_type).with_metadata([("ARROW:extension:name".to_owned(), name.to_owned())].into())
}

fn structure(inner: DataType) -> DataType {
    DataType::Struct(Fields::from(vec![field("a", inner), field("b", DataType::Utf8)]))
}

#[test]
fn every_documented_type_is_mapped_as_documented() {
    use DataType::*;
    let utc = Some(Arc::<str>::from("UTC"));
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond];
    let each = |make: &dyn Fn(TimeUnit) -> DataType| units.iter().map(|unit| field("c", make(*unit))).collect::<Vec<_>>();
    let plain = |types: Vec<DataType>| types.into_iter().map(|data_type| field("c", data_type)).collect::<Vec<_>>();
    let cases = vec![
        ("Boolean", plain(vec![Boolean])),
        ("Int8", plain(vec![Int8])),
        ("Int16", plain(vec![Int16])),
        ("Int32", plain(vec![Int32])),
        ("Int64", plain(vec![Int64])),
        ("UInt8", plain(vec![UInt8])),
        ("UInt16", plain(vec![UInt16])),
        ("UInt32", plain(vec![UInt32])),
        ("UInt64", plain(vec![UInt64])),
        ("Float16", plain(vec![Float16])),
        ("Float32", plain(vec![Float32])),
        ("Float64", plain(vec![Float64])),
        ("Decimal32, Decimal64, Decimal128, Decimal256", plain(vec![Decimal128(12, 2)])),
        ("Utf8, LargeUtf8, Utf8View", plain(vec![Utf8, LargeUtf8, Utf8View])),
        ("Utf8 marked arrow.json", vec![marked_as("arrow.json", Utf8), marked_as("arrow.json", Utf8View)]),
        ("Binary, LargeBinary, BinaryView, FixedSizeBinary", plain(vec![Binary, LargeBinary, BinaryView, FixedSizeBinary(16)])),
        ("FixedSizeBinary(16) marked arrow.uuid", vec![marked_as("arrow.uuid", FixedSizeBinary(16))]),
        ("Date32", plain(vec![Date32])),
        ("Date64", plain(vec![Date64])),
        ("Timestamp(s | ms | us, zone)", each(&|unit| Timestamp(unit, utc.clone()))),
        ("Timestamp(s | ms | us)", each(&|unit| Timestamp(unit, None))),
        ("Timestamp(ns, zone)", plain(vec![Timestamp(TimeUnit::Nanosecond, utc.clone())])),
        ("Timestamp(ns)", plain(vec![Timestamp(TimeUnit::Nanosecond, None)])),
        ("Time32, Time64(us)", plain(vec![Time32(TimeUnit::Second), Time64(TimeUnit::Microsecond)])),
        ("Time64(ns)", plain(vec![Time64(TimeUnit::Nanosecond)])),
        ("Duration(s | ms | us)", each(&Duration)),
        ("Duration(ns)", plain(vec![Duration(TimeUnit::Nanosecond)])),
        ("Interval", plain(vec![Interval(IntervalUnit::YearMonth), Interval(IntervalUnit::MonthDayNano)])),
        ("Null", plain(vec![Null])),
        ("Struct, Map and lists of them or of lists: of booleans, integers, text", plain(vec![structure(UInt64), structure(Boolean)])),
        ("Struct, Map and lists of them or of lists: of anything else", plain(vec![structure(Float64), structure(Date32)])),
    ];
    let mut named: Vec<&str> = cases.iter().map(|(name, _)| *name).collect();
    for (name, fields) in cases {
        let row = TYPES.iter().find(|row| row.arrow == name).expect("a row of the table");
        for field in fields {
            let mapped = map(&field).expect("mapped");
            let column = row.column.replace("(p,s)", "(12,2)");
            assert_eq!((mapped.sql.as_str(), mapped.loss.is_none()), (column.as_str(), row.exact), "{name}: {field}");
            assert!(fits(&field, &mapped.pg), "{field} does not fit what it becomes");
        }
    }
    named.extend(["List, LargeList, ListView, LargeListView, FixedSizeList", "Dictionary, RunEndEncoded"]);
    let left: Vec<&str> = TYPES.iter().map(|row| row.arrow).filter(|row| !named.contains(row)).collect();
    assert!(left.is_empty(), "not tested: {left:?}");
}

#[test]
fn lists_are_arrays_and_deeper_ones_json() {
    use DataType::*;
    let list = |inner: DataType| List(Arc::new(field("item", inner)));
    let of = |data_type: DataType| map(&field("c", data_type)).expect("mapped");
    assert_eq!(of(list(Int32)).sql, "integer[]");
    assert_eq!(of(list(Int32)).pg, PgType::Array(Box::new(PgType::Int4), 23));
    assert_eq!(of(FixedSizeList(Arc::new(field("item", Float64)), 3)).sql, "double precision[]");
    assert_eq!(of(list(Timestamp(TimeUnit::Nanosecond, None))).loss, Some("nanoseconds are cut to microseconds"));
    assert_eq!((of(list(list(Int32))).sql.as_str(), of(list(list(Int32))).loss), ("jsonb", None));
    assert_eq!((of(list(structure(Float32))).sql.as_str(), of(list(structure(Float32))).loss), ("jsonb", Some("it becomes JSON")));
    assert_eq!(of(Dictionary(Box::new(Int16), Box::new(Utf8))).sql, "text");
    let union = Union(UnionFields::try_new([0i8], [field("a", Int8)]).expect("fields"), UnionMode::Sparse);
    assert_eq!(map(&field("c", union.clone())), None);
    assert_eq!(map(&field("c", structure(union))), None);
}

#[test]
fn decimals_keep_their_digits() {
    let of = |data_type| map(&field("c", data_type)).expect("mapped").sql;
    assert_eq!(of(DataType::Decimal128(5, -3)), "numeric(8,0)");
    assert_eq!(of(DataType::Decimal128(2, 5)), "numeric(5,5)");
    assert_eq!(of(DataType::Decimal256(76, 10)), "numeric(76,10)");
}

#[test]
fn only_a_column_that_takes_every_value_fits() {
    use DataType::*;
    let ok = |from: DataType, to: PgType| fits(&field("c", from), &to);
    assert!(ok(Int32, PgType::Int8));
    assert!(!ok(Int64, PgType::Int4));
    assert!(ok(Int64, PgType::Numeric(None)));
    assert!(ok(UInt64, PgType::Numeric(Some((20, 0)))));
    assert!(!ok(UInt64, PgType::Numeric(Some((20, 1)))));
    assert!(!ok(Decimal128(10, 4), PgType::Numeric(Some((10, 2)))), "the server would round");
    assert!(ok(Decimal128(9, 0), PgType::Int4));
    assert!(!ok(Decimal128(10, 0), PgType::Int4));
    assert!(ok(Timestamp(TimeUnit::Millisecond, None), PgType::Timestamp(3)));
    assert!(!ok(Timestamp(TimeUnit::Microsecond, None), PgType::Timestamp(3)), "the server would round");
    assert!(!ok(Timestamp(TimeUnit::Second, None), PgType::Timestamptz(6)), "nobody knows which instant it is");
    assert!(!ok(Int64, PgType::Float8));
    assert!(!ok(Float64, PgType::Numeric(None)));
    assert!(ok(Null, PgType::Uuid));
    assert!(!ok(Null, PgType::Other));
    assert!(!ok(Utf8, PgType::Int4));
}

#[test]
fn types_of_the_catalog_are_told_with_their_limits() {
    assert_eq!(of_catalog(1043, "b", "varchar", 9), PgType::Text(Some(5)));
    assert_eq!(of_catalog(1043, "b", "varchar", -1), PgType::Text(None));
    assert_eq!(of_catalog(1700, "b", "numeric", (10 << 16 | 2) + 4), PgType::Numeric(Some((10, 2))));
    assert_eq!(of_catalog(1700, "b", "numeric", (3 << 16 | (-2 & 0x7ff)) + 4), PgType::Numeric(Some((3, -2))));
    assert_eq!(of_catalog(1114, "b", "timestamp", 3), PgType::Timestamp(3));
    assert_eq!(of_catalog(1184, "b", "timestamptz", -1), PgType::Timestamptz(6));
    assert_eq!(of_catalog(70_000, "e", "mood", -1), PgType::Text(None));
    assert_eq!(of_catalog(600, "b", "point", -1), PgType::Other);
}

#[test]
fn everything_wrong_with_the_columns_is_told_with_what_to_do() {
    let long = "é".repeat(32);
    let rows = Schema::new(vec![
        field("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        field("a", DataType::Int8),
        field("a", DataType::Int8),
        field(&long, DataType::Int8),
        field("ctid", DataType::Int8),
        field("s", structure(DataType::Float64)),
    ]);
    let told: Vec<(&str, String)> =
        row_columns(&rows, &[]).expect_err("wrong").into_iter().map(|error| (error.code, error.message)).collect();
    let expected = [
        ("duplicate-column", "the rows have two columns \"a\"".to_owned()),
        ("column-name", format!("the column name \"{long}\" has 64 bytes, and Postgres keeps only 63")),
        ("column-name", "the column name \"ctid\" is one that Postgres itself has in every table".to_owned()),
        (
            "lossy-type",
            "writing would lose something of columns \"at\" (Timestamp(ns) to timestamp without time zone: nanoseconds are cut to \
             microseconds), \"s\" (Struct(\"a\": Float64, \"b\": Utf8) to jsonb: it becomes JSON)"
                .to_owned(),
        ),
    ];
    assert_eq!(told, expected);
    let lossy = Schema::new(vec![field("at", DataType::Timestamp(TimeUnit::Nanosecond, None))]);
    let error = row_columns(&lossy, &[]).expect_err("lossy").remove(0);
    assert_eq!(error.help.as_deref(), Some("cast in a transform, or accept it: allow_lossy = [\"at\"]"));
    assert_eq!(row_columns(&lossy, &["at".to_owned()]).expect("allowed").len(), 1);
    let wide = Schema::new((0..1601).map(|index| field(&format!("c{index}"), DataType::Int8)).collect::<Vec<_>>());
    let error = row_columns(&wide, &[]).expect_err("wide").remove(0);
    assert_eq!(error.message, "the rows have 1601 columns, and a Postgres table has at most 1600");
    assert_eq!(row_columns(&Schema::empty(), &[]).expect_err("none").remove(0).code, "no-columns");
}
