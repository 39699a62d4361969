//! Merges of more keys than a join holds: what a filter of the keys lets go by, and what goes to disk.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{cast, ident, lit};
use futures::TryStreamExt;

use super::*;
use crate::lake::keys::Keys;

/// Keys of a text and a number, from one to another, and a mark.
fn rows(ids: std::ops::Range<i64>, mark: &str) -> RecordBatch {
    let names: ArrayRef =
        Arc::new(ids.clone().map(|id| Some(format!("a name too long to be inlined {}", id % 1000))).collect::<StringArray>());
    let marks: ArrayRef = Arc::new(ids.clone().map(|_| Some(mark)).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new(ids.map(Some).collect::<Int64Array>());
    batch(vec![("name", names), ("id", numbers), ("mark", marks)])
}

/// A sink's context with the key of two columns and little memory.
fn keyed(lake: &Lake, number: u32, mode: Mode) -> SinkContext {
    SinkContext { key: vec!["name".into(), "id".into()], ..cx(&lake.run_within(number, 8 << 20), mode) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_keys_than_a_join_holds_find_their_rows_in_every_mode() {
    for mode in [Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let lake = Lake::new();
        publish(&sink(), &keyed(&lake, 1, mode), rows(0..60_000, "a")).await.expect("published");
        publish(&sink(), &keyed(&lake, 2, mode), rows(50_000..70_000, "b")).await.expect("published");
        let current = if mode == Mode::Snapshot { "is_current" } else { "true" };
        let sums = format!("select mark, count(*), count(distinct id), min(id), max(id) from t where {current} group by mark");
        assert_eq!(lake.query(&sums, Version::Newest).await, ["a|50000|50000|0|49999", "b|20000|20000|50000|69999"], "{mode:?}");
        if mode == Mode::Snapshot {
            let closed = "select mark, count(*), min(id), max(id) from t where not is_current and valid_to is not null group by mark";
            assert_eq!(lake.query(closed, Version::Newest).await, ["a|10000|50000|59999"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_narrower_type_find_their_rows() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Merge), people(&[(1, "a"), (2, "b"), (3, "c")])).await.expect("published");
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![2, 4]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["B", "d"]));
    publish(&sink(), &cx(&lake.run(2), Mode::Merge), batch(vec![("id", ids), ("name", names)])).await.expect("published");
    assert_eq!(lake.rows().await, ["1|a", "2|B", "3|c", "4|d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_in_a_tables_key_stays_whatever_is_merged() {
    let lake = Lake::new();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(0), Some(1)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["nobody", "zero", "one"]));
    publish(&sink(), &cx(&lake.run(1), Mode::Append), batch(vec![("id", ids), ("name", names)])).await.expect("published");
    publish(&sink(), &cx(&lake.run(2), Mode::Merge), people(&[(0, "Zero"), (2, "two")])).await.expect("published");
    assert_eq!(lake.rows().await, ["0|Zero", "1|one", "2|two", "null|nobody"]);
}

/// A session, numbers below `count` of it, and keys: the even numbers below a hundred.
async fn numbers(count: i64) -> (SessionContext, datafusion::prelude::DataFrame, Keys) {
    let session = SessionContext::new();
    let numbers = |sql: String| {
        let session = session.clone();
        async move { session.sql(&sql).await.expect("planned") }
    };
    let keys = numbers("select value * 2 as k from generate_series(0, 49)".into()).await.execute_stream().await.expect("started");
    let keys = Keys::learn(keys, 50, &session.runtime_env().memory_pool).await.expect("learnt");
    let rows = numbers(format!("select value as t0, cast(value as varchar) as t1 from generate_series(0, {})", count - 1)).await;
    (session, rows, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_may_have_a_key_are_changed_and_all_others_go_by() {
    let (session, rows, keys) = numbers(100_000).await;
    let columns = vec![ident("t0"), ident("t1")];
    let change =
        |rows: datafusion::prelude::DataFrame| rows.select(vec![ident("t0"), cast(lit("changed"), DataType::Utf8View).alias("t1")]);
    let changed = keys.change(&session, rows, columns, vec![ident("t0")], change).await.expect("started");
    let cx = SessionContext::new();
    let batches: Vec<RecordBatch> = changed.try_collect().await.expect("ran");
    cx.register_batch("t", arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("of one schema")).expect("registered");
    let count = async |sql: &str| {
        let found = cx.sql(sql).await.expect("planned").collect().await.expect("ran");
        found[0].column(0).as_any().downcast_ref::<Int64Array>().expect("a count").value(0)
    };
    assert_eq!(count("select count(distinct t0) from t").await, 100_000);
    assert_eq!(count("select count(*) from t").await, 100_000);
    assert_eq!(count("select count(*) from t where t1 = 'changed' and t0 < 100 and t0 % 2 = 0").await, 50);
    assert_eq!(count("select count(*) from t where t1 <> 'changed' and t1 <> cast(t0 as varchar)").await, 0);
    let others = count("select count(*) from t where t1 = 'changed'").await - 50;
    assert!(others < 5_000, "{others} rows got through that have no key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_of_either_rows_ends_both() {
    let (session, rows, keys) = numbers(100_000).await;
    let fails = "cast(cast(t0 as varchar) || 'x' as bigint)";
    let change = |rows: datafusion::prelude::DataFrame| {
        let fails = rows.parse_sql_expr(fails)?;
        rows.select(vec![fails.alias("t0")])
    };
    let changed = keys.change(&session, rows, vec![ident("t0")], vec![ident("t0")], change).await.expect("started");
    let error = changed.try_collect::<Vec<_>>().await.expect_err("a number with an x");
    // Which row comes first is as the machine has it.
    assert!(error.to_string().contains("x' to value of Int64 type"), "{error}");

    let (session, rows, keys) = numbers(100_000).await;
    let fails = rows.parse_sql_expr("1 / (t0 - 90000)").expect("parsed");
    let changed = keys.change(&session, rows, vec![fails.alias("t0")], vec![ident("t0")], Ok).await.expect("started");
    let error = changed.try_collect::<Vec<_>>().await.expect_err("a division by zero");
    assert!(error.to_string().contains("Divide by zero"), "{error}");
}
