//! What the sink promises, asked of a server (`WEIR_TEST_CLICKHOUSE_URL`): modes, exactly once at every step, other writers, names.
//! A round trip of every type is in `sink_types_tests.rs`.

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use weir_pipelines::OnSchemaChange;

use super::{
    super::publish,
    bench::{Bench, Planned},
    *,
};
use crate::Published;

fn ids(ids: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(ids.to_vec()))
}

fn texts(texts: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// Rows of `id` and `v`.
fn rows(rows: &[(i64, &str)]) -> RecordBatch {
    let (numbers, values): (Vec<i64>, Vec<Option<&str>>) = rows.iter().map(|(id, v)| (*id, Some(*v))).unzip();
    batch(&[("id", ids(&numbers)), ("v", texts(&values))])
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, array)| (*name, array.clone(), true))).expect("a batch")
}

macro_rules! bench {
    () => {
        match Bench::begin().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

#[tokio::test]
async fn append_adds_rows_and_shows_none_before_publish() {
    let bench = bench!();
    let append = |run| bench.sink(run, Mode::Append, &[], "order_by = [\"id\"]");
    let load = append(1).load(&[rows(&[(1, "a"), (2, "b")])]).await.expect("sealed");
    assert_eq!(load.sealed.rows, 2);
    assert_eq!(bench.tables().await.iter().filter(|name| *name == "t").count(), 0);
    assert!(!load.publish().await.expect("published").already);
    let load = append(2).load(&[rows(&[(2, "b")]), rows(&[(3, "c")])]).await.expect("sealed");
    assert_eq!(bench.rows("*", "t order by id").await, ["1|a", "2|b"]);
    load.publish().await.expect("published");
    assert_eq!(bench.rows("*", "t order by id").await, ["1|a", "2|b", "2|b", "3|c"]);
    assert_eq!(bench.tables().await, ["t", "weir_load"], "nothing is left behind");
    bench.end().await;
}

#[tokio::test]
async fn streams_go_side_by_side_each_in_its_order_and_what_is_left_of_them_together() {
    let bench = bench!();
    let long = "x".repeat(500);
    // 24,000 rows a stream are more than one insert's worth of bytes, and leave some that are not worth another.
    let stream = |from: i64| {
        let batch = |first: i64| {
            let numbers: Vec<i64> = (first..first + 1000).collect();
            batch(&[("id", ids(&numbers)), ("v", texts(&vec![Some(long.as_str()); 1000]))])
        };
        (0..24).map(|at| batch(from + at * 1000)).collect::<Vec<_>>()
    };
    let streams: Vec<_> = (0..5).map(|at| stream(at * 1_000_000)).collect();
    let sink = bench.sink(1, Mode::Append, &[], "order_by = [\"id\"]\ninsert_rows = 10000");
    let load = sink.start(&streams[0][0]).await.expect("begun");
    assert_eq!(sink.write_side_by_side(&load, &streams).await.expect("staged"), 120_000);
    let sealed = load.seal().await.expect("sealed");
    assert_eq!(sealed.rows, 120_000);
    assert!(!load.publish().await.expect("published").already);
    assert_eq!(
        bench.rows("count(), uniqExact(id), intDiv(id, 1000000) as stream", "t group by stream order by stream").await,
        (0..5).map(|stream| format!("24000|24000|{stream}")).collect::<Vec<_>>()
    );
    assert_eq!(bench.tables().await, ["t", "weir_load"], "nothing is left behind");
    bench.end().await;
}

#[tokio::test]
async fn replace_keeps_a_table_of_the_same_columns_and_makes_one_of_others_anew() {
    let bench = bench!();
    bench
        .run("create table {t} (id Int64, v LowCardinality(Nullable(String)) codec(ZSTD(3))) engine = MergeTree order by id comment 'hers'")
        .await;
    bench.run("insert into {t} values (7, 'old')").await;
    for run in 1..3 {
        bench.sink(run, Mode::Replace, &[], "").whole(&[rows(&[(1, "a")]), rows(&[(2, "b")])]).await.expect("loaded");
        assert_eq!(bench.rows("*", "t order by id").await, ["1|a", "2|b"]);
    }
    let kept = bench
        .rows("comment, position(create_table_query, 'ZSTD(3)') > 0", "system.tables where database = currentDatabase() and name = 't'");
    assert_eq!(kept.await, ["hers|1"]);
    let other = batch(&[("id", texts(&[Some("x")])), ("w", ids(&[1]))]);
    bench.sink(3, Mode::Replace, &[], "").whole(&[other]).await.expect("loaded");
    assert_eq!(bench.rows("*", "t").await, ["x|1"]);
    assert_eq!(
        bench.rows("trim(both '()' from sorting_key)", "system.tables where database = currentDatabase() and name = 't'").await,
        ["id"]
    );
    // No rows are a table of none.
    bench.sink(4, Mode::Replace, &[], "").whole(&[batch(&[("id", texts(&[])), ("w", ids(&[]))])]).await.expect("loaded");
    assert_eq!(bench.rows("count()", "t").await, ["0"]);
    assert_eq!(bench.tables().await, ["t", "weir_load"]);
    bench.end().await;
}

#[tokio::test]
async fn merge_is_right_under_final_and_after_optimize() {
    let bench = bench!();
    let merge = |run| bench.sink(run, Mode::Merge, &["id"], "partition_by = \"id % 2\"");
    merge(1).whole(&[rows(&[(1, "a"), (2, "b"), (3, "c")])]).await.expect("loaded");
    bench.run("insert into {t} values (9, 'hers'), (1, 'hers')").await;
    merge(2).whole(&[rows(&[(2, "B"), (4, "D")])]).await.expect("loaded");
    let expected = ["1|a", "2|B", "3|c", "4|D", "9|hers"];
    assert_eq!(bench.rows("*", "t final order by id").await, expected);
    assert_eq!(bench.rows("count()", "t where id = 2").await, ["2"], "a plain select sees the older version until parts are merged");
    bench.run("optimize table {t} final").await;
    assert_eq!(bench.rows("*", "t order by id").await, expected);
    // The clock was set back; the run that came later still wins.
    merge(0).whole(&[rows(&[(2, "again")])]).await.expect("loaded");
    assert_eq!(bench.rows("v", "t final where id = 2").await, ["again"]);
    bench.end().await;
}

#[tokio::test]
async fn a_key_that_occurs_twice_or_is_null_is_named() {
    let bench = bench!();
    for mode in [Mode::Merge, Mode::Snapshot] {
        let error =
            bench.sink(1, mode, &["id", "v"], "").load(&[rows(&[(1, "a"), (2, "b`'")]), rows(&[(2, "b`'")])]).await.expect_err("twice");
        let message = "sink \"out\" got several rows with the same key: \"id\" = 2, \"v\" = b`'";
        assert_eq!((error.code, error.message.as_str()), ("duplicate-key", message));
    }
    for mode in [Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let null = batch(&[("id", ids(&[1, 2])), ("v", texts(&[Some("a"), None]))]);
        let error = bench.sink(1, mode, &["v"], "").load(&[null]).await.expect_err("null");
        assert_eq!((error.code, error.message.as_str()), ("null-key", "sink \"out\" got a row whose key column \"v\" is null"));
    }
    assert_eq!(bench.tables().await, [""; 0], "the loads that failed were discarded");
    bench.end().await;
}

#[tokio::test]
async fn delete_insert_replaces_all_rows_of_a_key_and_leaves_the_rest() {
    let bench = bench!();
    bench.run("create table {t} (id Nullable(Int64), v String, at Date default '2024-01-01') engine = MergeTree partition by v order by tuple()").await;
    bench.run("insert into {t} (id, v) values (1, 'x'), (1, 'y'), (2, 'x'), (3, 'z'), (null, 'x')").await;
    let load = |run| bench.sink_with(run, Mode::DeleteInsert, &["id"], OnSchemaChange::Ignore, "");
    for run in 1..3 {
        load(run).whole(&[rows(&[(1, "n"), (1, "m"), (5, "x")])]).await.expect("loaded");
        assert_eq!(
            bench.rows("id, v, at", "t order by id nulls first, v").await,
            ["null|x|2024-01-01", "1|m|2024-01-01", "1|n|2024-01-01", "2|x|2024-01-01", "3|z|2024-01-01", "5|x|2024-01-01"]
        );
    }
    let wide = batch(&[("id", ids(&[2])), ("v", texts(&[Some("w")])), ("new", ids(&[8]))]);
    bench.sink_with(3, Mode::DeleteInsert, &["id"], OnSchemaChange::AddColumns, "").whole(&[wide]).await.expect("loaded");
    assert_eq!(bench.rows("id, v, new", "t where id in (2, 3) order by id").await, ["2|w|8", "3|z|null"]);
    bench.end().await;
}

/// Rows of `id`, `v`, `x`, with nulls and NaN.
fn facts(rows: &[(i64, Option<&str>, Option<f64>)]) -> RecordBatch {
    let x: Vec<Option<f64>> = rows.iter().map(|row| row.2).collect();
    let numbers: Vec<i64> = rows.iter().map(|row| row.0).collect();
    let values: Vec<Option<&str>> = rows.iter().map(|row| row.1).collect();
    batch(&[("id", ids(&numbers)), ("v", texts(&values)), ("x", Arc::new(Float64Array::from(x)))])
}

#[tokio::test]
async fn snapshot_closes_versions_that_changed_and_opens_new_ones() {
    let bench = bench!();
    let snapshot = |run| bench.sink(run, Mode::Snapshot, &["id"], "partition_by = \"id % 2\"");
    let first = [facts(&[(1, Some("a"), Some(f64::NAN)), (2, None, None), (3, Some("c"), Some(1.0)), (4, Some("d"), None)])];
    snapshot(1).whole(&first).await.expect("loaded");
    let shown = "id, v, x, toUnixTimestamp(valid_from) - 1700000000, toUnixTimestamp(valid_to) - 1700000000, is_current";
    let before = ["1|a|nan|1|null|true", "2|null|null|1|null|true", "3|c|1|1|null|true", "4|d|null|1|null|true"];
    assert_eq!(bench.rows(shown, "t order by id, valid_from").await, before);
    // Null equals null and NaN equals NaN; a key that does not occur stays current.
    snapshot(2).whole(&[facts(&[(1, Some("a"), Some(f64::NAN)), (2, None, None)])]).await.expect("loaded");
    assert_eq!(bench.rows(shown, "t order by id, valid_from").await, before);
    snapshot(3)
        .whole(&[facts(&[(1, None, Some(f64::NAN)), (2, Some(""), None), (3, Some("c"), None), (5, None, None)])])
        .await
        .expect("loaded");
    let after = [
        "1|a|nan|1|3|false",
        "1|null|nan|3|null|true",
        "2|null|null|1|3|false",
        "2||null|3|null|true",
        "3|c|1|1|3|false",
        "3|c|null|3|null|true",
        "4|d|null|1|null|true",
        "5|null|null|3|null|true",
    ];
    assert_eq!(bench.rows(shown, "t order by id, valid_from").await, after);
    snapshot(4).whole(&[facts(&[(1, None, Some(f64::NAN)), (5, None, None)])]).await.expect("loaded");
    assert_eq!(bench.rows(shown, "t order by id, valid_from").await, after);
    // A column that is new counts as changed where it is not null.
    let wide = batch(&[
        ("id", ids(&[4, 5])),
        ("v", texts(&[Some("d"), None])),
        ("x", Arc::new(Float64Array::from(vec![None, None]))),
        ("new", texts(&[None, Some("n")])),
    ]);
    bench.sink_with(5, Mode::Snapshot, &["id"], OnSchemaChange::AddColumns, "").whole(&[wide]).await.expect("loaded");
    assert_eq!(
        bench.rows("id, new, is_current", "t where id > 3 order by id, valid_from").await,
        ["4|null|true", "5|null|false", "5|n|true"]
    );
    assert_eq!(bench.rows("count()", "t").await, ["9"]);
    bench.end().await;
}

#[tokio::test]
async fn snapshot_compares_lists_and_structs_whole() {
    let bench = bench!();
    let nested = |floats: Vec<Option<Vec<Option<f64>>>>, flags: &[bool]| {
        let mut list = arrow::array::ListBuilder::new(arrow::array::Float64Builder::new());
        floats.into_iter().for_each(|row| list.append_option(row));
        let fields = vec![arrow::datatypes::Field::new("yes", arrow::datatypes::DataType::Boolean, true)];
        let flags: ArrayRef = Arc::new(BooleanArray::from(flags.to_vec()));
        let flags: ArrayRef = Arc::new(arrow::array::StructArray::try_new(fields.into(), vec![flags], None).expect("structs"));
        batch(&[("id", ids(&[1, 2])), ("l", Arc::new(list.finish())), ("s", flags)])
    };
    let load = |run| bench.sink(run, Mode::Snapshot, &["id"], "");
    let first = || nested(vec![Some(vec![None, Some(f64::NAN)]), Some(vec![])], &[true, false]);
    load(1).whole(&[first()]).await.expect("loaded");
    load(2).whole(&[first()]).await.expect("loaded");
    assert_eq!(bench.rows("count()", "t").await, ["2"]);
    load(3).whole(&[nested(vec![Some(vec![None, Some(0.5)]), Some(vec![])], &[true, true])]).await.expect("loaded");
    assert_eq!(
        bench.rows("id, l, s, is_current", "t order by id, valid_from").await,
        ["1|[NULL,nan]|(true)|false", "1|[NULL,0.5]|(true)|true", "2|[]|(false)|false", "2|[]|(true)|true"]
    );
    bench.end().await;
}

#[tokio::test]
async fn publishing_again_changes_nothing_in_any_mode() {
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let bench = bench!();
        let key: &[&str] = if matches!(mode, Mode::Append | Mode::Replace) { &[] } else { &["id"] };
        for run in 1..4 {
            let sink = bench.sink(run, mode, key, "");
            let load = sink.load(&[rows(&[(1, "a"), (i64::from(run), "r")][..if run == 1 { 1 } else { 2 }])]).await.expect("sealed");
            assert!(!load.publish().await.expect("published").already, "{mode:?}");
            let shown = bench.rows("*", "t order by all").await;
            for _ in 0..2 {
                assert!(load.publish().await.expect("published").already, "{mode:?}");
                let taken_up = sink.resume(&load.sealed.state);
                assert!(taken_up.publish().await.expect("published").already, "{mode:?}");
                taken_up.discard().await.expect("discarded");
                assert_eq!(bench.rows("*", "t order by all").await, shown, "{mode:?}");
            }
            assert_eq!(bench.rows("count()", "weir_load final").await, [run.to_string()]);
        }
        assert_eq!(bench.tables().await, ["t", "weir_load"]);
        bench.end().await;
    }
}

/// Dies after each step of publishing in turn; another process takes the load up.
#[tokio::test]
async fn a_process_that_dies_after_any_step_is_taken_up() {
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        for steps in 0..4 {
            for new in [true, false] {
                let bench = bench!();
                let key: &[&str] = if matches!(mode, Mode::Append | Mode::Replace) { &[] } else { &["id"] };
                if !new {
                    bench.sink(1, mode, key, "").whole(&[rows(&[(1, "a"), (2, "b")])]).await.expect("loaded");
                }
                let sink = bench.sink(2, mode, key, "");
                let dead = sink.load(&[rows(&[(2, "B"), (3, "C")])]).await.expect("sealed");
                if steps > 0 {
                    let found = publish::fence(&dead).await.expect("fenced");
                    if steps > 1 {
                        let already =
                            if dead.state.attaches { publish::attach(&dead, &found).await } else { publish::exchange(&dead, &found).await };
                        assert!(!already.expect("shown"));
                    }
                }
                if steps > 2 {
                    publish::note(&dead).await.expect("noted");
                }
                let resumed = sink.resume(&dead.sealed.state);
                let Published { already, .. } = resumed.publish().await.expect("published");
                assert_eq!(already, steps > 1, "{mode:?} after {steps} steps");
                let expected: &[&str] = match (mode, new) {
                    (Mode::Append, false) => &["1|a", "2|B", "2|b", "3|C"],
                    (Mode::Merge | Mode::DeleteInsert, false) => &["1|a", "2|B", "3|C"],
                    (Mode::Snapshot, false) => &["1|a", "2|B", "3|C"],
                    _ => &["2|B", "3|C"],
                };
                let of = match mode {
                    Mode::Merge => "t final order by all",
                    Mode::Snapshot => "t where is_current order by all",
                    _ => "t order by all",
                };
                assert_eq!(bench.rows("id, v", of).await, expected, "{mode:?} after {steps} steps, new: {new}");
                assert_eq!(bench.tables().await, ["t", "weir_load"], "{mode:?} after {steps} steps, new: {new}");
                bench.end().await;
            }
        }
    }
}

#[tokio::test]
async fn a_late_request_of_a_dead_process_finds_nothing() {
    let bench = bench!();
    bench.sink(1, Mode::Append, &[], "").whole(&[rows(&[(1, "a")])]).await.expect("loaded");
    let sink = bench.sink(2, Mode::Append, &[], "");
    let dead = sink.load(&[rows(&[(2, "b")])]).await.expect("sealed");
    // What it was about to send, seen through the names that it knew.
    let before = publish::fence(&dead).await.expect("fenced");
    sink.resume(&dead.sealed.state).publish().await.expect("published");
    let stage = dead.state.own(before.stage.as_deref().expect("a stage"));
    let attaches = format!("alter table {{t}} attach partition all from {stage}");
    let withdraws = format!(
        "alter table {{t}} delete where _weir_version = {} and (select count() from {stage}) >= 0 settings mutations_sync = 2",
        dead.state.version
    );
    for late in [attaches, withdraws] {
        assert!(bench.try_run(&late).await.is_err(), "it names a table that is gone");
    }
    assert_eq!(bench.rows("*", "t order by id").await, ["1|a", "2|b"]);
    bench.end().await;
}

#[tokio::test]
async fn what_a_server_that_died_attaching_shows_is_made_whole_or_withdrawn() {
    for publishes in [true, false] {
        let bench = bench!();
        bench.run("create table {t} (id Int64, v Nullable(String)) engine = MergeTree partition by id order by id").await;
        bench.run("insert into {t} values (1, 'hers')").await;
        let sink = bench.sink(1, Mode::Append, &[], "");
        let load = sink.load(&[rows(&[(1, "a"), (2, "b"), (3, "c")])]).await.expect("sealed");
        // Two of its three parts came to be there.
        bench.run("alter table {t} add column if not exists _weir_version UInt64 materialized 0").await;
        for partition in ["1", "2"] {
            bench
                .run(&format!("alter table {{t}} attach partition id '{partition}' from {}", load.state.own(&load.state.stage_table())))
                .await;
        }
        assert_eq!(bench.rows("count()", "t").await, ["3"]);
        let resumed = sink.resume(&load.sealed.state);
        if publishes {
            assert!(!resumed.publish().await.expect("published").already);
            assert_eq!(bench.rows("*", "t order by id, v").await, ["1|a", "1|hers", "2|b", "3|c"]);
        } else {
            resumed.discard().await.expect("discarded");
            resumed.discard().await.expect("discarded twice");
            assert_eq!(bench.rows("*", "t order by id, v").await, ["1|hers"]);
            assert_eq!(bench.tables().await, ["t"]);
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn rows_of_other_writers_stay() {
    for (mode, key) in
        [(Mode::Append, &[][..]), (Mode::Merge, &["id"][..]), (Mode::DeleteInsert, &["id"][..]), (Mode::Snapshot, &["id"][..])]
    {
        let bench = bench!();
        bench.sink(1, mode, key, "").whole(&[rows(&[(1, "a"), (2, "b")])]).await.expect("loaded");
        let load = bench.sink(2, mode, key, "").load(&[rows(&[(2, "B"), (3, "c")])]).await.expect("sealed");
        let other = bench.sink(3, mode, key, "").load(&[rows(&[(7, "other")])]).await.expect("sealed");
        match mode {
            Mode::Snapshot => bench.run("insert into {t} (id, v, valid_from, is_current) values (9, 'hers', now(), true)").await,
            _ => bench.run("insert into {t} values (9, 'hers')").await,
        }
        other.publish().await.expect("published");
        load.publish().await.expect("published");
        let expected: &[&str] = match mode {
            Mode::Append => &["1|a", "2|B", "2|b", "3|c", "7|other", "9|hers"],
            _ => &["1|a", "2|B", "3|c", "7|other", "9|hers"],
        };
        let of = match mode {
            Mode::Merge => "t final order by id, v",
            Mode::Snapshot => "t where is_current order by id, v",
            _ => "t order by id, v",
        };
        assert_eq!(bench.rows("id, v", of).await, expected, "{mode:?}");
        bench.end().await;
    }
}

#[tokio::test]
async fn a_table_that_another_changed_or_dropped_is_not_taken_for_the_old_one() {
    let bench = bench!();
    for (mode, change, why) in [
        (Mode::Append, "drop table {t}", "it is gone"),
        (Mode::DeleteInsert, "drop table {t}", "it is gone"),
        (Mode::DeleteInsert, "alter table {t} add column w Int64", "it is defined otherwise"),
    ] {
        bench.run("create table {t} (id Int64, v Nullable(String)) engine = MergeTree order by id").await;
        let load =
            bench.sink(1, mode, if mode == Mode::Append { &[] } else { &["id"] }, "").load(&[rows(&[(1, "a")])]).await.expect("sealed");
        bench.run(change).await;
        let error = load.publish().await.expect_err("changed");
        let message = format!("another writer changed table \"{}.t\" while this run went on: {why}", bench.database);
        assert_eq!((error.code, error.message), ("clickhouse-changed", message));
        load.discard().await.expect("discarded");
        bench.run("drop table if exists {t}").await;
    }
    let load = bench.sink(1, Mode::Append, &[], "").load(&[rows(&[(1, "a")])]).await.expect("sealed");
    bench.run("create table {t} (id Int64) engine = MergeTree order by id").await;
    assert!(load.publish().await.expect_err("changed").message.ends_with("there was none when it began"));
    load.discard().await.expect("discarded");
    assert_eq!(bench.tables().await, ["t"]);
    bench.end().await;
}

#[tokio::test]
async fn no_name_is_sql() {
    let hostile =
        ["x`; drop table y; --", "a\"; drop table x; --", "größe.mit punkt", "\\'\\", "select", "{p1:String}", "tab\there", "%s?", " "];
    let bench = bench!();
    for name in hostile {
        for (number, mode) in (0..).zip([Mode::Merge, Mode::DeleteInsert, Mode::Snapshot]) {
            let bench = bench.named(name);
            for run in 1..3 {
                let columns = batch(&[(name, ids(&[1, run.into()])), ("`v\\", texts(&[Some("a"), Some(name)]))]);
                let columns = if run == 1 { columns.slice(0, 1) } else { columns };
                // The ledger knows a run and a table: what had it once has it for good.
                let sink = bench.sink(number * 10 + run, mode, &[name], "");
                let load = sink.load(&[columns]).await.unwrap_or_else(|error| panic!("{name} {mode:?}: {error} {error:?}"));
                sink.resume(&load.sealed.state).publish().await.unwrap_or_else(|error| panic!("{name} {mode:?}: {error} {error:?}"));
            }
            let rows = if mode == Mode::Merge { "{t} final" } else { "{t}" };
            assert_eq!(bench.rows("count()", rows).await, ["2"], "{name} {mode:?}");
            bench.run("drop table {t}").await;
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn a_database_or_table_that_cannot_be_loaded_says_why() {
    let bench = bench!();
    let open = |sink: Planned| async move { sink.load(&[rows(&[(1, "a")])]).await.expect_err("refused") };
    bench.run("create view {t} as select 1 as id, 'a' as v").await;
    let error = open(bench.sink(1, Mode::Append, &[], "")).await;
    assert_eq!(
        (error.code, error.message),
        ("table-engine", format!("table \"{}.t\" has the engine View, which cannot be loaded", bench.database))
    );
    bench.run("drop table {t}").await;
    bench.run("create table {t} (id Int64, v String) engine = AggregatingMergeTree order by id").await;
    let error = open(bench.sink(1, Mode::Append, &[], "")).await;
    let message = "mode = \"append\" cannot load a table of the engine AggregatingMergeTree, whose merges make other rows of those loaded";
    assert_eq!((error.code, error.message.as_str()), ("table-engine", message));
    bench.sink(1, Mode::Replace, &[], "").whole(&[rows(&[(1, "a")])]).await.expect("loaded");
    bench.run("drop table {t}").await;
    bench.run("create table {t} (id Int64, v String, _weir_version String) engine = MergeTree order by id").await;
    let error = open(bench.sink(1, Mode::Append, &[], "")).await;
    assert_eq!(
        (error.code, error.message),
        ("table-feature", format!("table \"{}.t\" has a column \"_weir_version\" that is not weir's own", bench.database))
    );
    let nowhere = bench.in_database("no such database");
    let error = open(nowhere.sink(1, Mode::Append, &[], "")).await;
    assert_eq!((error.code, error.message.as_str()), ("unknown-database", "there is no database \"no such database\""));
    let memory = bench.in_database(&format!("{}_memory", bench.database));
    bench.run(&format!("create database {} engine = Memory", quote::identifier(&memory.database))).await;
    let error = open(memory.sink(1, Mode::Append, &[], "")).await;
    assert_eq!(error.code, "database-engine");
    assert!(error.message.ends_with("has the engine Memory, whose tables cannot be exchanged in one step"), "{}", error.message);
    bench.run(&format!("drop database {}", quote::identifier(&memory.database))).await;
    bench.end().await;
}

#[tokio::test]
async fn the_plan_is_what_is_done() {
    let bench = bench!();
    let new = bench.sink(1, Mode::Merge, &["id"], "").plan(&rows(&[])).await.expect("a plan");
    assert!(new.creates);
    assert_eq!(
        new.steps,
        [
            publish::ledger_ddl(&bench.database),
            format!(
                "create table {}.`t` (`id` Int64, `v` Nullable(String), _weir_version UInt64 MATERIALIZED 0) engine = \
             ReplacingMergeTree(_weir_version) ORDER BY (`id`)",
                quote::identifier(&bench.database)
            ),
            "rename the table of the staged rows to it".into()
        ]
    );
    for statement in &new.steps[..2] {
        bench.run(statement).await;
    }
    bench.sink(1, Mode::Merge, &["id"], "").whole(&[rows(&[(1, "a")])]).await.expect("the table fits");
    bench.run("drop table {t}").await;
    bench.run("create table {t} (id Int64) engine = MergeTree order by id").await;
    let sink = bench.sink_with(2, Mode::Append, &[], OnSchemaChange::AddColumns, "");
    let there = sink.plan(&rows(&[])).await.expect("a plan");
    assert_eq!((there.creates, there.adds.as_slice()), (false, &["v".to_owned()][..]));
    assert_eq!(
        there.steps,
        [
            format!("alter table {}.`t` add column if not exists _weir_version UInt64 materialized 0", quote::identifier(&bench.database)),
            format!("alter table {}.`t` add column if not exists `v` Nullable(String)", quote::identifier(&bench.database)),
            format!("alter table {}.`t` attach partition all from the staged rows", quote::identifier(&bench.database))
        ]
    );
    bench.run("insert into {t} values (1)").await;
    sink.whole(&[rows(&[(2, "b")])]).await.expect("loaded");
    assert_eq!(bench.rows("*", "t order by id").await, ["1|null", "2|b"]);
    bench.end().await;
}

#[tokio::test]
async fn many_rows_in_several_inserts_are_few_parts_and_all_there() {
    let bench = bench!();
    let sink = bench.sink(1, Mode::Append, &[], "order_by = [\"id\"]\ninsert_rows = 10000");
    let batches: Vec<RecordBatch> = (0..30_i64)
        .map(|part| {
            let numbers: Vec<i64> = (part * 8192..(part + 1) * 8192).collect();
            let texts: Vec<String> = numbers.iter().map(|n| format!("{n:0>150}")).collect();
            batch(&[("id", ids(&numbers)), ("v", Arc::new(StringArray::from(texts)))])
        })
        .collect();
    bench.run("create table {t} (id Nullable(Int64), v Nullable(String)) engine = MergeTree order by tuple()").await;
    let load = sink.load(&batches).await.expect("sealed");
    assert_eq!(load.sealed.rows, 30 * 8192);
    let parts = format!("system.parts where database = currentDatabase() and table = '{}' and active", load.state.stage_table());
    assert_eq!(bench.rows("count()", &parts).await, ["1"], "a small stage is one part, whose attaching is one rename");
    let patient = |table: &str| {
        format!("system.tables where database = currentDatabase() and name = '{table}' and engine_full like '%min_parts_to_merge%'")
    };
    assert_eq!(bench.rows("count()", &patient(&load.state.stage_table())).await, ["1"], "its parts are left to the target's merges");
    load.publish().await.expect("published");
    assert_eq!(bench.rows("count()", &patient("t")).await, ["0"], "the target's merges are the server's affair");
    assert_eq!(
        bench.rows("count(), sum(id), uniqExact(v)", "t").await,
        [format!("{}|{}|{}", 30 * 8192, 30_u64 * 8192 * (30 * 8192 - 1) / 2, 30 * 8192)]
    );
    bench.end().await;
}

#[tokio::test]
async fn a_run_that_is_stopped_or_fails_leaves_nothing() {
    let bench = bench!();
    let sink = bench.sink(1, Mode::Append, &[], "");
    let error = sink
        .load(&[batch(&[("id", ids(&[1])), ("v", Arc::new(arrow::array::Date32Array::from(vec![i32::MAX])))])])
        .await
        .expect_err("no such day");
    assert_eq!(error.code, "value-out-of-range");
    assert_eq!(bench.tables().await, [""; 0]);
    let sink = bench.sink(2, Mode::Append, &[], "");
    let load = sink.start(&rows(&[])).await.expect("begun");
    sink.cx.run.cancel.cancel();
    let error = sink.write(&load, &[rows(&[(1, "a")])]).await.expect_err("stopped");
    assert_eq!(error.code, "interrupted");
    // Another process knows the stage by what was written down before the first row.
    sink.resume(&load.stage()).discard().await.expect("discarded");
    load.discard().await.expect("discarded twice");
    assert_eq!(bench.tables().await, [""; 0]);
    bench.end().await;
}
