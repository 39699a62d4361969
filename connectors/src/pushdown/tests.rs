//! Held against DataFusion: what a filter keeps as an expression, as the tree, and as rendered SQL with bound values.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, RecordBatch, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    datatypes::{Field, SchemaRef, TimeUnit},
};
use datafusion::{
    common::ToDFSchema,
    logical_expr::{cast, col, lit, try_cast},
    prelude::SessionContext,
};
use proptest::prelude::*;

use super::*;

fn schema() -> SchemaRef {
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("i", DataType::Int32, true),
        Field::new("u", DataType::UInt64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", zone, true),
        Field::new("t", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
    ]))
}

/// Few values, so that they meet.
fn rows(len: usize, seed: &[u8]) -> RecordBatch {
    let pick = |column: usize, row: usize| -> Option<i64> {
        let byte = seed[(column * 31 + row * 7) % seed.len()].wrapping_add((column * 5 + row) as u8);
        (!byte.is_multiple_of(5)).then_some(i64::from(byte % 7) - 3)
    };
    let all = |column: usize| (0..len).map(move |row| pick(column, row));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(all(0).map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
        Arc::new(all(1).map(|v| v.map(|v| (v + 3) as u64)).collect::<UInt64Array>()),
        Arc::new(all(2).map(|v| v.map(|v| v > 0)).collect::<BooleanArray>()),
        Arc::new(all(3).map(|v| v.map(|v| i128::from(v) * 50)).collect::<Decimal128Array>().with_precision_and_scale(10, 2).expect("fits")),
        Arc::new(all(4).map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
        Arc::new(all(5).map(|v| v.map(|v| v * 500_000)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(all(6).map(|v| v.map(|v| format!("t{v}"))).collect::<StringArray>()),
        Arc::new(all(7).map(|v| v.map(|v| v as f64)).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

/// The tree's own meaning for one row, in three-valued logic.
fn holds(filter: &Filter, rows: &RecordBatch, row: usize) -> Option<bool> {
    let value_of = |name: &str| ScalarValue::try_from_array(rows.column_by_name(name).expect("a column"), row).expect("a value");
    let compare = |name: &str, value: &ScalarValue| {
        let own = value_of(name);
        assert_eq!(own.data_type(), value.data_type(), "a value has its column's type");
        (!own.is_null()).then(|| own.partial_cmp(value).expect("one type"))
    };
    match filter {
        Filter::Compare { column, op, value } => compare(column, value).map(|order| match op {
            Comparison::Eq => order == Ordering::Equal,
            Comparison::NotEq => order != Ordering::Equal,
            Comparison::Lt => order == Ordering::Less,
            Comparison::LtEq => order != Ordering::Greater,
            Comparison::Gt => order == Ordering::Greater,
            Comparison::GtEq => order != Ordering::Less,
        }),
        Filter::In { column, values } => {
            values.iter().map(|value| compare(column, value)).try_fold(false, |found, order| Some(found | (order? == Ordering::Equal)))
        }
        Filter::IsNull(column) => Some(value_of(column).is_null()),
        Filter::IsNotNull(column) => Some(!value_of(column).is_null()),
        Filter::Not(inner) => holds(inner, rows, row).map(|held| !held),
        Filter::And(filters) => {
            let all: Vec<_> = filters.iter().map(|filter| holds(filter, rows, row)).collect();
            if all.contains(&Some(false)) { Some(false) } else { all.into_iter().try_fold(true, |so_far, held| Some(so_far & held?)) }
        }
        Filter::Or(filters) => {
            let all: Vec<_> = filters.iter().map(|filter| holds(filter, rows, row)).collect();
            if all.contains(&Some(true)) { Some(true) } else { all.into_iter().try_fold(false, |so_far, held| Some(so_far | held?)) }
        }
    }
}

fn kept(verdicts: &BooleanArray) -> Vec<bool> {
    (0..verdicts.len()).map(|row| verdicts.is_valid(row) && verdicts.value(row)).collect()
}

/// What DataFusion keeps, planned as in a query: types coerced first.
fn kept_by_datafusion(expr: &Expr, rows: &RecordBatch) -> Vec<bool> {
    let context = SessionContext::new();
    let schema = rows.schema().to_dfschema().expect("a schema");
    let verdicts = context.create_physical_expr(expr.clone(), &schema).expect("a filter").evaluate(rows).expect("evaluates");
    let verdicts = verdicts.into_array(rows.num_rows()).expect("an array");
    kept(verdicts.as_any().downcast_ref::<BooleanArray>().expect("booleans"))
}

/// What the rendered SQL keeps, its values bound.
fn kept_by_sql(filter: &Filter, rows: &RecordBatch) -> Vec<bool> {
    let mut values = Vec::new();
    let sql = filter
        .render(&|column| Some(format!("\"{column}\"")), &mut |value| {
            values.push(value.clone());
            Some(format!("${}", values.len()))
        })
        .expect("nobody vetoes");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let context = SessionContext::new();
        context.register_batch("rows", rows.clone()).expect("registers");
        let frame = context.sql(&format!("select {sql} from rows")).await.expect("SQL").with_param_values(values).expect("values");
        let batches = frame.collect().await.expect("runs");
        batches.iter().flat_map(|batch| kept(batch.column(0).as_any().downcast_ref().expect("booleans"))).collect()
    })
}

fn leaf() -> impl Strategy<Value = Expr> {
    let zoned = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let op = prop_oneof![
        Just(Operator::Eq),
        Just(Operator::NotEq),
        Just(Operator::Lt),
        Just(Operator::LtEq),
        Just(Operator::Gt),
        Just(Operator::GtEq)
    ];
    (0..12_usize, op, -4..5_i64, -4..5_i64, any::<bool>()).prop_map(move |(kind, op, a, b, flag)| {
        let binary = |left: Expr, op: Operator, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
        let equality = if flag { Operator::Eq } else { Operator::NotEq };
        match kind {
            0 => binary(col("i"), op, lit(a as i32)),
            1 => binary(lit(a), op, cast(col("i"), DataType::Int64)),
            2 => binary(col("u"), op, lit((a + 4) as u64)),
            3 => binary(col("d"), op, Expr::Literal(ScalarValue::Decimal128(Some(i128::from(a) * 50), 10, 2), None)),
            4 => binary(
                cast(col("d"), DataType::Decimal128(20, 4)),
                op,
                Expr::Literal(ScalarValue::Decimal128(Some(i128::from(a) * 5000), 20, 4), None),
            ),
            5 => binary(col("day"), op, Expr::Literal(ScalarValue::Date32(Some(a as i32)), None)),
            6 => binary(col("at"), op, Expr::Literal(zoned(a * 500_000), None)),
            7 => binary(col("t"), equality, lit(format!("t{a}"))),
            8 => {
                if flag {
                    col("b")
                } else {
                    binary(col("b"), equality, lit(a > 0))
                }
            }
            9 => {
                if flag {
                    col("f").is_null()
                } else {
                    col("t").is_not_null()
                }
            }
            // Lists have a test of their own: DataFusion takes `not in (0) or = 0` for true, of a null too.
            10 => col("i").eq(lit(b as i32)),
            _ => {
                if flag {
                    col("day").between(
                        Expr::Literal(ScalarValue::Date32(Some(a as i32)), None),
                        Expr::Literal(ScalarValue::Date32(Some(b as i32)), None),
                    )
                } else {
                    col("i").not_between(lit(a as i32), lit(b as i32))
                }
            }
        }
    })
}

fn expression() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.prop_map(|a| Expr::Not(Box::new(a))),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_keeps_what_datafusion_keeps(expr in expression(), seed in proptest::collection::vec(any::<u8>(), 40..80)) {
        let rows = rows(40, &seed);
        let filter = Filter::of(&expr, &schema()).expect("every part is understood");
        let own: Vec<bool> = (0..rows.num_rows()).map(|row| holds(&filter, &rows, row) == Some(true)).collect();
        prop_assert_eq!(&own, &kept_by_datafusion(&expr, &rows));
        prop_assert_eq!(&own, &kept_by_sql(&filter, &rows));
    }
}

#[test]
fn a_list_keeps_what_is_in_it_and_neither_it_nor_its_negation_a_null() {
    let rows = rows(60, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let list = col("i").in_list(vec![lit(0), lit(1)], false);
    for (expr, null) in [(list.clone(), false), (Expr::Not(Box::new(list)), false)] {
        let filter = Filter::of(&expr, &schema()).expect("is understood");
        let own: Vec<bool> = (0..rows.num_rows()).map(|row| holds(&filter, &rows, row) == Some(true)).collect();
        assert_eq!(own, kept_by_datafusion(&expr, &rows));
        assert_eq!(own, kept_by_sql(&filter, &rows));
        let values = rows.column_by_name("i").expect("the column");
        assert!((0..rows.num_rows()).filter(|row| values.is_null(*row)).all(|row| own[row] == null));
    }
}

#[test]
fn what_a_server_might_understand_otherwise_is_left_to_datafusion() {
    let decimal = |value, precision, scale| Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), None);
    let naive = Expr::Literal(ScalarValue::TimestampMicrosecond(Some(0), None), None);
    for (why, expr) in [
        ("floats", col("f").gt(lit(0.0))),
        ("the order of text", col("t").lt(lit("b"))),
        ("the order of text", col("t").between(lit("a"), lit("b"))),
        ("the order of booleans", col("b").gt(lit(false))),
        ("a null", col("i").eq(Expr::Literal(ScalarValue::Int32(None), None))),
        ("a null in a list", col("i").in_list(vec![lit(1), Expr::Literal(ScalarValue::Int32(None), None)], true)),
        ("an empty list", col("i").in_list(vec![], false)),
        ("two columns", col("i").eq(col("u"))),
        ("a pattern", col("t").like(lit("a%"))),
        ("more decimals than the column", cast(col("d"), DataType::Decimal128(20, 4)).lt(decimal(12345, 20, 4))),
        ("beyond the column", cast(col("i"), DataType::Int64).lt(lit(5_000_000_000_i64))),
        ("a cast that rounds", cast(col("d"), DataType::Int32).eq(lit(1))),
        ("a cast that may fail", try_cast(col("t"), DataType::Int32).eq(lit(1))),
        ("a cast that may fail", try_cast(col("t"), DataType::Int32).is_null()),
        ("an integer as float", cast(col("u"), DataType::Float64).eq(lit(1.0))),
        ("a timestamp without zone", col("at").lt(naive)),
        ("an unknown column", col("none").eq(lit(1))),
        ("half of an or", col("i").eq(lit(1)).or(col("f").gt(lit(0.0)))),
        ("arithmetic", (col("i") + lit(1)).eq(lit(2))),
    ] {
        assert_eq!(Filter::of(&expr, &schema()), None, "{why}: {expr}");
    }
}

#[test]
fn values_take_their_columns_type() {
    let schema = Schema::new(vec![
        Field::new("view", DataType::Utf8View, true),
        Field::new("milli", DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Paris".into())), true),
        Field::new("small", DataType::Decimal128(4, 1), true),
    ]);
    let micros = |value| Expr::Literal(ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into())), None);
    for (expr, value) in [
        (col("view").eq(lit("x")), Some(ScalarValue::Utf8View(Some("x".into())))),
        (col("milli").lt(micros(5000)), Some(ScalarValue::TimestampMillisecond(Some(5), Some("Europe/Paris".into())))),
        (col("milli").lt(micros(5001)), None),
        (col("small").eq(Expr::Literal(ScalarValue::Decimal128(Some(1250), 10, 3), None)), None),
        (col("small").eq(Expr::Literal(ScalarValue::Decimal128(Some(1200), 10, 3), None)), Some(ScalarValue::Decimal128(Some(12), 4, 1))),
        (col("small").eq(Expr::Literal(ScalarValue::Decimal128(Some(10_000), 5, 1), None)), None),
    ] {
        let found = Filter::of(&expr, &schema).map(|filter| match filter {
            Filter::Compare { value, .. } => value,
            other => panic!("{other:?}"),
        });
        assert_eq!(found, value, "{expr}");
    }
}

#[test]
fn a_veto_of_a_column_or_a_value_is_a_veto_of_the_filter() {
    let filter = Filter::of(&col("i").eq(lit(1)).or(col("t").eq(lit("x"))), &schema()).expect("a filter");
    assert_eq!(filter.columns().into_iter().collect::<Vec<_>>(), ["i", "t"]);
    assert_eq!(filter.render(&|name| Some(name.into()), &mut |value| Some(value.to_string())).as_deref(), Some("((i = 1) or (t = x))"));
    assert_eq!(filter.render(&|name| (name != "t").then(|| name.into()), &mut |value| Some(value.to_string())), None);
    assert_eq!(filter.render(&|name| Some(name.into()), &mut |value| (value.data_type() != DataType::Utf8).then(String::new)), None);
}

#[test]
fn long_chains_are_taken_apart_and_deep_ones_left() {
    let long = (0..500).map(|n| col("i").eq(lit(n))).reduce(Expr::or).expect("some");
    assert!(matches!(Filter::of(&long, &schema()), Some(Filter::Or(filters)) if filters.len() == 500));
    let deep = (0..300).fold(col("b"), |expr, n| if n % 2 == 0 { expr.and(col("b")) } else { expr.or(col("b")) });
    assert_eq!(Filter::of(&deep, &schema()), None);
}
