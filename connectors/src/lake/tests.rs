//! What the lake sink promises, asked of tables in temporary folders: modes, exactly once, other writers, schemas.
//! A round trip of every type and a comparison with a model are in `tests/`.

#![allow(clippy::disallowed_methods, reason = "a test reads the clock")]

mod files;
mod merges;
mod model;
mod roundtrip;

use std::{collections::HashMap, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use chrono::{DateTime, TimeDelta, Utc};
use datafusion::{
    execution::{TaskContext, runtime_env::RuntimeEnvBuilder},
    physical_plan::stream::RecordBatchStreamAdapter,
    prelude::SessionContext,
};
use tokio_util::sync::CancellationToken;
use weir_pipelines::{Mode, OnSchemaChange};

use super::*;
use crate::{Published, Sealed};

fn instant(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).expect("an instant")
}

/// A lake in a folder whose name is no URL.
struct Lake {
    folder: tempfile::TempDir,
}

impl Lake {
    fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("späß mit # + '").tempdir().expect("a folder") }
    }
    fn path(&self) -> String {
        self.folder.path().join("the lake").to_string_lossy().into_owned()
    }
    fn run(&self, number: u32) -> Arc<RunContext> {
        self.run_within(number, 256 << 20)
    }
    fn run_within(&self, number: u32, memory_bytes: usize) -> Arc<RunContext> {
        Arc::new(RunContext {
            run: format!("0190aaaa-0000-7000-8000-{number:012}"),
            pipeline: "p".into(),
            state: "state".into(),
            started_at: instant(number.into()),
            interval: None,
            root: self.folder.path().into(),
            state_dir: self.folder.path().join(".weir"),
            lake: self.path(),
            connections: Arc::default(),
            profile: None,
            environment: Arc::default(),
            runtime: RuntimeEnvBuilder::new().with_memory_limit(memory_bytes, 1.0).build_arc().expect("a runtime"),
            partitions: 2,
            batch_rows: 1024,
            cancel: CancellationToken::new(),
        })
    }
    fn table_folder(&self) -> std::path::PathBuf {
        Path::new(&self.path()).join("s").join("t")
    }
    /// Rows of a query over the table `t`, each as text, sorted.
    async fn query(&self, sql: &str, version: Version) -> Vec<String> {
        let Some(table) = open_table(&self.path(), &HashMap::new(), "s", "t", version).await.expect("opened") else {
            return vec!["no table".into()];
        };
        let cx = SessionContext::new();
        cx.register_table("t", provider(&table).await.expect("a provider")).expect("registered");
        let batches = cx.sql(sql).await.expect("planned").collect().await.expect("ran");
        let options = FormatOptions::default().with_null("null");
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("shown")).collect();
            for row in 0..batch.num_rows() {
                rows.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
            }
        }
        rows.sort();
        rows
    }
    async fn rows(&self) -> Vec<String> {
        self.query("select * from t", Version::Newest).await
    }
    async fn version(&self) -> Option<u64> {
        open_table(&self.path(), &HashMap::new(), "s", "t", Version::Newest).await.expect("opened").and_then(|table| table.version())
    }
    /// Every file under the lake, relative to it, without the log.
    fn data_files(&self) -> Vec<String> {
        let (mut open, mut found) = (vec![std::path::PathBuf::from(self.path())], Vec::new());
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    if entry.file_name() != "_delta_log" {
                        open.push(entry.path());
                    }
                } else {
                    found.push(entry.path().strip_prefix(self.path()).expect("inside").to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }
}

fn sink() -> LakeSink {
    LakeSink { target: Target::Named("s".into(), "t".into()), partition_by: vec![], file_bytes: FILE_BYTES }
}

fn cx(run: &Arc<RunContext>, mode: Mode) -> SinkContext {
    SinkContext {
        run: run.clone(),
        step: "out".into(),
        folder: run.root.clone(),
        mode,
        key: if matches!(mode, Mode::Append | Mode::Replace) { vec![] } else { vec!["id".into()] },
        on_schema_change: OnSchemaChange::Fail,
        allow_lossy: vec![],
        may_decide: false,
        beside: Vec::new(),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).expect("a batch")
}

fn people(rows: &[(i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| Some(*name)).collect::<StringArray>());
    batch(vec![("id", ids), ("name", names)])
}

async fn stage(sink: &LakeSink, cx: &SinkContext, batches: Vec<RecordBatch>) -> Result<Arc<dyn Load>> {
    let schema = batches[0].schema();
    let load = sink.open(&schema, cx).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    let written = load.write_all(Box::pin(RecordBatchStreamAdapter::new(schema, stream)), &Arc::new(TaskContext::default())).await;
    assert_eq!(written.map_err(from_datafusion)?, rows as u64);
    Ok(load)
}

async fn sealed(sink: &LakeSink, cx: &SinkContext, rows: RecordBatch) -> Result<(Arc<dyn Load>, Sealed)> {
    let load = stage(sink, cx, vec![rows]).await?;
    let sealed = load.seal().await?;
    Ok((load, sealed))
}

async fn publish(sink: &LakeSink, cx: &SinkContext, rows: RecordBatch) -> Result<Published> {
    sealed(sink, cx, rows).await?.0.publish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_adds_its_rows_each_time() {
    let lake = Lake::new();
    for number in 1..=3 {
        let done =
            publish(&sink(), &cx(&lake.run(number), Mode::Append), people(&[(1, "a"), (number.into(), "b")])).await.expect("published");
        assert_eq!((done.version, done.already), ((number - 1).to_string(), false));
    }
    assert_eq!(lake.rows().await, ["1|a", "1|a", "1|a", "1|b", "2|b", "3|b"]);
    assert_eq!(lake.query("select * from t", Version::Number(0)).await, ["1|a", "1|b"]);
    assert_eq!(lake.query("select count(*), min(id), max(name) from t", Version::Newest).await, ["6|1|b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_leaves_only_its_rows_and_takes_their_columns() {
    let lake = Lake::new();
    for number in 1..=2 {
        publish(&sink(), &cx(&lake.run(number), Mode::Replace), people(&[(number.into(), "x")])).await.expect("published");
        assert_eq!(lake.rows().await, [format!("{number}|x")]);
    }
    let other = batch(vec![("name", Arc::new(Int32Array::from(vec![7]))), ("new", Arc::new(BooleanArray::from(vec![true])))]);
    publish(&sink(), &cx(&lake.run(3), Mode::Replace), other).await.expect("published");
    assert_eq!(lake.query("select name + 1, new from t", Version::Newest).await, ["8|true"]);
    assert_eq!(lake.query("select * from t", Version::Number(1)).await, ["2|x"]);
    publish(&sink(), &cx(&lake.run(4), Mode::Replace), people(&[]).slice(0, 0)).await.expect("published");
    assert_eq!(lake.rows().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_replaces_rows_with_its_keys_and_leaves_other_files_alone() {
    let lake = Lake::new();
    let merge = |number| cx(&lake.run(number), Mode::Merge);
    publish(&sink(), &merge(1), people(&[(1, "a"), (2, "b")])).await.expect("published");
    publish(&sink(), &merge(2), people(&[(10, "k"), (11, "l")])).await.expect("published");
    let before = lake.data_files();
    publish(&sink(), &merge(3), people(&[(2, "B"), (3, "c")])).await.expect("published");
    assert_eq!(lake.rows().await, ["10|k", "11|l", "1|a", "2|B", "3|c"]);
    let table = open_table(&lake.path(), &HashMap::new(), "s", "t", Version::Newest).await.expect("opened").expect("a table");
    let files: Vec<String> = table.snapshot().expect("loaded").log_data().iter().map(|file| file.path().into_owned()).collect();
    let untouched = before.iter().filter(|old| files.iter().any(|file| old.ends_with(file.as_str()))).count();
    assert_eq!((files.len(), untouched), (3, 1), "one file was rewritten, one came in, one stayed: {files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_keeps_the_old_value_of_columns_that_rows_lack() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Merge), people(&[(1, "a"), (2, "b")])).await.expect("published");
    let wide = SinkContext { on_schema_change: OnSchemaChange::AddColumns, ..cx(&lake.run(2), Mode::Merge) };
    let rows = batch(vec![("id", Arc::new(Int64Array::from(vec![2, 3]))), ("age", Arc::new(Int32Array::from(vec![20, 30])))]);
    publish(&sink(), &wide, rows).await.expect("published");
    assert_eq!(lake.query("select id, name, age from t", Version::Newest).await, ["1|a|null", "2|b|20", "3|null|30"]);
    assert!(lake.data_files().iter().all(|file| !file.contains("_weir")), "what stood aside is gone: {:?}", lake.data_files());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_refuses_two_rows_with_one_key_and_a_null_key() {
    let lake = Lake::new();
    let error = sealed(&sink(), &cx(&lake.run(1), Mode::Merge), people(&[(7, "a"), (8, "b"), (7, "c")])).await.expect_err("refused");
    assert_eq!(error.code, "duplicate-key");
    assert_eq!(error.message, "sink \"out\" got several rows with the same key: \"id\" = 7");
    let rows = batch(vec![("id", Arc::new(Int64Array::from(vec![Some(1), None]))), ("name", Arc::new(StringArray::from(vec!["a", "b"])))]);
    for (number, mode) in [(2, Mode::Merge), (3, Mode::DeleteInsert), (4, Mode::Snapshot)] {
        let error = sealed(&sink(), &cx(&lake.run(number), mode), rows.clone()).await.expect_err("refused");
        assert_eq!(error.code, "null-key");
        assert!(error.message.contains("\"out\"") && error.message.contains("\"id\""), "{error}");
    }
    assert_eq!(lake.version().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_insert_replaces_all_rows_of_its_keys_by_as_many_as_came() {
    let lake = Lake::new();
    let load = |number| cx(&lake.run(number), Mode::DeleteInsert);
    publish(&sink(), &load(1), people(&[(1, "a"), (1, "b"), (2, "c")])).await.expect("published");
    publish(&sink(), &load(2), people(&[(1, "x"), (3, "y"), (3, "z")])).await.expect("published");
    publish(&sink(), &load(3), people(&[(2, "c")])).await.expect("published");
    assert_eq!(lake.rows().await, ["1|x", "2|c", "3|y", "3|z"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_keeps_every_version_of_a_row_and_touches_no_unchanged_one() {
    let lake = Lake::new();
    let load = |number| cx(&lake.run(number), Mode::Snapshot);
    let seconds = "select id, name, valid_from, valid_to, is_current from t";
    publish(&sink(), &load(1), people(&[(1, "a"), (2, "b")])).await.expect("published");
    publish(&sink(), &load(2), people(&[(1, "a"), (2, "B"), (3, "c")])).await.expect("published");
    let at = |second: i64| instant(second).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let expected = [
        format!("1|a|{}|null|true", at(1)),
        format!("2|B|{}|null|true", at(2)),
        format!("2|b|{}|{}|false", at(1), at(2)),
        format!("3|c|{}|null|true", at(2)),
    ];
    assert_eq!(lake.query(seconds, Version::Newest).await, expected);
    let files = lake.data_files();
    publish(&sink(), &load(3), people(&[(1, "a"), (2, "B")])).await.expect("published");
    assert_eq!(
        (lake.query(seconds, Version::Newest).await, lake.data_files()),
        (expected.to_vec(), files),
        "nothing changed, so no file did"
    );
    publish(&sink(), &load(4), people(&[(2, "b")])).await.expect("published");
    assert_eq!(lake.query("select count(*) from t where is_current", Version::Newest).await, ["3"]);
    assert_eq!(lake.query("select count(*) from t where id = 2", Version::Newest).await, ["3"]);
    assert!(lake.data_files().iter().all(|file| !file.contains("_weir")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_again_changes_nothing_in_this_process_or_another() {
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let lake = Lake::new();
        publish(&sink(), &cx(&lake.run(1), mode), people(&[(1, "old")])).await.expect("published");
        let run = lake.run(2);
        let (load, sealed) = sealed(&sink(), &cx(&run, mode), people(&[(1, "a"), (2, "b")])).await.expect("sealed");
        assert_eq!(sealed.rows, 2);
        drop(load);
        let text = serde_json::to_string(&sealed.state).expect("text");
        let resume = || (SINK.resume)(serde_json::from_str(&text).expect("json"), &run).expect("resumed");
        assert!(!resume().publish().await.expect("published").already);
        let (rows, version) = (lake.rows().await, lake.version().await);
        for _ in 0..2 {
            let again = resume().publish().await.expect("published");
            assert_eq!((again.already, Some(again.version)), (true, version.map(|version| version.to_string())), "{mode:?}");
        }
        resume().discard().await.expect("never undoes a publish");
        assert_eq!((lake.rows().await, lake.version().await), (rows, version), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_anything_before_publish_and_a_discard_leaves_no_trace() {
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let lake = Lake::new();
        for number in 1..=2 {
            let (rows, files, version) = (lake.rows().await, lake.data_files(), lake.version().await);
            let run = lake.run(number);
            let load = stage(&sink(), &cx(&run, mode), vec![people(&[(1, "a")])]).await.expect("staged");
            assert_eq!((lake.rows().await, lake.version().await), (rows.clone(), version), "{mode:?}");
            assert!(lake.data_files().len() > files.len());
            let left = load.stage();
            // As after a crash: nothing but the state from before the first row is known.
            drop(load);
            let taken = (SINK.resume)(left, &run).expect("resumed");
            taken.discard().await.expect("discarded");
            taken.discard().await.expect("twice is fine");
            assert_eq!((lake.rows().await, lake.data_files(), lake.version().await), (rows, files, version), "{mode:?}");
            if number == 1 {
                assert!(!lake.table_folder().exists(), "a table that was never published leaves no folder");
            }
            publish(&sink(), &cx(&lake.run(10 + number), mode), people(&[(1, "b")])).await.expect("published");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_comes_between_is_neither_lost_nor_doubled() {
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        let lake = Lake::new();
        if mode != Mode::Snapshot {
            publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "old"), (9, "stays")])).await.expect("published");
        }
        let (slow, _) = sealed(&sink(), &cx(&lake.run(2), mode), people(&[(1, "slow")])).await.expect("sealed");
        let quick = if mode == Mode::Snapshot { Mode::Snapshot } else { Mode::Append };
        let (fast, _) = sealed(&sink(), &cx(&lake.run(3), quick), people(&[(1, "fast"), (5, "fast")])).await.expect("sealed");
        assert!(!fast.publish().await.expect("published").already);
        // The other run carries a later transaction of the same sink, which must not pass for this one's.
        assert!(!slow.publish().await.expect("published").already, "{mode:?}");
        assert!(slow.publish().await.expect("published").already, "{mode:?}");
        assert!(fast.publish().await.expect("published").already, "{mode:?}");
        let expected: &[&str] = match mode {
            Mode::Append => &["1|fast", "1|old", "1|slow", "5|fast", "9|stays"],
            Mode::Replace => &["1|slow"],
            Mode::Merge | Mode::DeleteInsert => &["1|slow", "5|fast", "9|stays"],
            Mode::Snapshot => &["1|fast", "1|slow", "5|fast"],
        };
        assert_eq!(lake.query("select id, name from t", Version::Newest).await, expected, "{mode:?}");
        slow.discard().await.expect("discarded");
        assert_eq!(lake.query("select id, name from t", Version::Newest).await, expected, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_run_that_was_overtaken_deletes_only_its_own_files() {
    let lake = Lake::new();
    let (slow, _) = sealed(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "slow")])).await.expect("sealed");
    publish(&sink(), &cx(&lake.run(2), Mode::Append), people(&[(2, "fast")])).await.expect("published");
    slow.discard().await.expect("discarded");
    assert_eq!((lake.rows().await, lake.data_files().len()), (vec!["2|fast".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publish_at_once_and_all_come_through() {
    let lake = Lake::new();
    let mut loads = Vec::new();
    for number in 1..=6 {
        let mode = if number % 2 == 0 { Mode::Merge } else { Mode::Append };
        loads.push(sealed(&sink(), &cx(&lake.run(number), mode), people(&[(number.into(), "x")])).await.expect("sealed").0);
    }
    let done = futures::future::join_all(loads.iter().map(|load| load.publish())).await;
    let mut versions: Vec<String> = done.into_iter().map(|done| done.expect("published").version).collect();
    versions.sort();
    assert_eq!(versions, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(lake.rows().await, ["1|x", "2|x", "3|x", "4|x", "5|x", "6|x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sinks_of_one_run_may_write_one_table() {
    let lake = Lake::new();
    let run = lake.run(1);
    let other = SinkContext { step: "other".into(), ..cx(&run, Mode::Append) };
    let (first, _) = sealed(&sink(), &cx(&run, Mode::Append), people(&[(1, "a")])).await.expect("sealed");
    let (second, _) = sealed(&sink(), &other, people(&[(2, "b")])).await.expect("sealed");
    assert!(!first.publish().await.expect("published").already);
    assert!(!second.publish().await.expect("published").already);
    assert_eq!(lake.rows().await, ["1|a", "2|b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_another_writer_changed_meanwhile_is_an_error_and_not_a_mixture() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    let (slow, _) = sealed(&sink(), &cx(&lake.run(2), Mode::Append), people(&[(2, "b")])).await.expect("sealed");
    let other = batch(vec![("id", Arc::new(StringArray::from(vec!["x"])))]);
    publish(&sink(), &cx(&lake.run(3), Mode::Replace), other).await.expect("published");
    let error = slow.publish().await.expect_err("refused");
    assert_eq!(error.code, "lake-changed");
    assert_eq!(lake.rows().await, ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_and_missing_columns_do_what_was_asked() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    let clock = arrow::array::TimestampMicrosecondArray::from(vec![0]);
    let wide = || batch(vec![("id", Arc::new(Int32Array::from(vec![2]))), ("at", Arc::new(clock.clone()))]);
    let asked = |number, on_schema_change| SinkContext { on_schema_change, ..cx(&lake.run(number), Mode::Append) };
    let error = publish(&sink(), &asked(2, OnSchemaChange::Fail), wide()).await.expect_err("refused");
    assert_eq!(error.message, "the table has no column \"at\"; the rows have no column \"name\"");
    publish(&sink(), &asked(3, OnSchemaChange::Ignore), wide()).await.expect("published");
    publish(&sink(), &asked(4, OnSchemaChange::AddColumns), wide()).await.expect("published");
    assert_eq!(lake.query("select id, name, at from t", Version::Newest).await, ["1|a|null", "2|null|1970-01-01T00:00:00", "2|null|null"]);
    publish(&sink(), &asked(5, OnSchemaChange::AddColumns), people(&[(3, "c")])).await.expect("published");
    assert_eq!(lake.query("select name from t where id = 3 and at is null", Version::Newest).await, ["c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_take_nulls_slashes_spaces_and_any_letters() {
    let values =
        [Some("plain"), None, Some("a/b"), Some(" two words "), Some("São Paulo"), Some("100%"), Some("a=b"), Some("%2F"), Some("..")];
    let rows = || {
        let ids: ArrayRef = Arc::new((0..values.len() as i64).map(Some).collect::<Int64Array>());
        batch(vec![("id", ids), ("city", Arc::new(StringArray::from(values.to_vec())))])
    };
    let by_city = LakeSink { partition_by: vec!["city".into()], ..sink() };
    for mode in [Mode::Append, Mode::Merge] {
        let lake = Lake::new();
        publish(&by_city, &cx(&lake.run(1), mode), rows()).await.expect("published");
        for (id, value) in values.iter().enumerate() {
            let found = lake.query(&format!("select city from t where id = {id}"), Version::Newest).await;
            assert_eq!(found, [value.unwrap_or("null")], "{mode:?}");
        }
        assert_eq!(lake.query("select id from t where city = 'a/b'", Version::Newest).await, ["2"]);
        assert_eq!(lake.query("select id from t where city is null", Version::Newest).await, ["1"]);
        // Moves rows from one partition to another.
        publish(
            &sink(),
            &cx(&lake.run(2), Mode::Merge),
            batch(vec![
                ("id", Arc::new(Int64Array::from(vec![2, 1]))),
                ("city", Arc::new(StringArray::from(vec![Some("elsewhere"), Some("100%")]))),
            ]),
        )
        .await
        .expect("published");
        assert_eq!(lake.query("select id from t where city = '100%'", Version::Newest).await, ["1", "5"]);
        assert_eq!(lake.query("select count(*) from t", Version::Newest).await, ["9"]);
    }
    let lake = Lake::new();
    let empty = batch(vec![("id", Arc::new(Int64Array::from(vec![1]))), ("city", Arc::new(StringArray::from(vec![""])))]);
    let error = publish(&by_city, &cx(&lake.run(1), Mode::Append), empty).await.expect_err("refused");
    assert_eq!(error.code, "partition-value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_load_is_cut_into_files_and_adds_up() {
    let lake = Lake::new();
    let small = LakeSink { file_bytes: 200_000, ..sink() };
    let batches: Vec<RecordBatch> = (0..60i64)
        .map(|block| {
            let ids: ArrayRef = Arc::new((0..4096).map(|row| Some(block * 4096 + row)).collect::<Int64Array>());
            let noise: ArrayRef = Arc::new(
                (0..4096i64).map(|row| Some((block * 4096 + row).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64))).collect::<Int64Array>(),
            );
            batch(vec![("id", ids), ("noise", noise)])
        })
        .collect();
    let load = stage(&small, &cx(&lake.run(1), Mode::Merge), batches.clone()).await.expect("staged");
    let sealed = load.seal().await.expect("sealed");
    assert_eq!(sealed.rows, 60 * 4096);
    load.publish().await.expect("published");
    assert!(lake.data_files().len() >= 5, "{:?}", lake.data_files());
    let sums = "select count(*), count(distinct id), sum(id) from t";
    assert_eq!(lake.query(sums, Version::Newest).await, ["245760|245760|30198865920"]);
    let missing = batches[10..20].iter().map(|batch| batch.project(&[0]).expect("projected")).collect();
    // With plenty of memory keys are held; with little they go to disk. Whether columns are missing decides about the second join.
    for (number, batches, memory) in [(2, batches[10..20].to_vec(), 1 << 30), (3, batches[10..20].to_vec(), 8 << 20), (4, missing, 8 << 20)]
    {
        let asked = SinkContext { on_schema_change: OnSchemaChange::Ignore, ..cx(&lake.run_within(number, memory), Mode::Merge) };
        let again = stage(&small, &asked, batches).await.expect("staged");
        again.seal().await.expect("sealed");
        again.publish().await.expect("published");
        assert_eq!(lake.query(sums, Version::Newest).await, ["245760|245760|30198865920"], "load {number}");
        assert_eq!(lake.query("select count(*) from t where noise is null", Version::Newest).await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_whose_rows_are_more_than_a_join_holds_adds_up() {
    const LIMIT: usize = 32 << 20;
    const ROWS: i64 = 20_000;
    let rows = |from: i64, mark: &str| {
        let noise = |id: i64| (0..25).map(move |at| format!("{:016x}", (id * 25 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)));
        let ids: ArrayRef = Arc::new((from..from + ROWS).map(Some).collect::<Int64Array>());
        let names: ArrayRef =
            Arc::new((from..from + ROWS).map(|id| Some(format!("{mark}{}", noise(id).collect::<String>()))).collect::<StringArray>());
        batch(vec![("id", ids), ("name", names)])
    };
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Merge), rows(0, "a")).await.expect("published");
    let (load, sealed) = sealed(&sink(), &cx(&lake.run_within(2, LIMIT), Mode::Merge), rows(ROWS / 2, "b")).await.expect("sealed");
    assert!(sealed.bytes > LIMIT as u64 / 16, "{} bytes", sealed.bytes);
    load.publish().await.expect("published");
    let found = lake.query("select substr(name, 1, 1), count(*), min(id), max(id) from t group by 1", Version::Newest).await;
    assert_eq!(found, ["a|10000|0|9999", "b|20000|10000|29999"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_load_makes_an_empty_table_and_then_no_versions() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[])).await.expect("published");
    assert_eq!((lake.rows().await, lake.version().await), (vec![], Some(0)));
    for (number, mode) in [(2, Mode::Append), (3, Mode::Merge), (4, Mode::DeleteInsert)] {
        publish(&sink(), &cx(&lake.run(number), mode), people(&[])).await.expect("published");
    }
    assert_eq!(lake.version().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_is_named() {
    let lake = Lake::new();
    std::fs::write(lake.path(), "a file where the lake should be").expect("written");
    let error = publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect_err("refused");
    assert_eq!(error.blame, crate::Blame::System);
    assert!(error.message.contains("the lake"), "{error}");
    let error = table::disk_error("cannot write \"x\"", &std::io::ErrorKind::StorageFull.into());
    assert_eq!((error.code, error.retry), ("disk-full", crate::Retry::Later));
    let error = table::disk_error("cannot write \"x\"", &std::io::ErrorKind::ReadOnlyFilesystem.into());
    assert_eq!(error.code, "lake-read-only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_leaves_nothing_once_discarded() {
    let lake = Lake::new();
    let run = lake.run(1);
    let load = sink().open(&people(&[]).schema(), &cx(&run, Mode::Append)).await.expect("opened");
    let cancel = run.cancel.clone();
    let rows = futures::stream::iter(0..1000).map(move |number| {
        if number == 20 {
            cancel.cancel();
        }
        Ok(people(&[(number, "x")]))
    });
    use futures::StreamExt;
    let stream = Box::pin(RecordBatchStreamAdapter::new(people(&[]).schema(), rows.boxed()));
    let error = load.write_all(stream, &Arc::new(TaskContext::default())).await.expect_err("stopped");
    assert_eq!(from_datafusion(error).code, "interrupted");
    load.discard().await.expect("discarded");
    assert_eq!(lake.data_files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_states_are_found_by_version_and_by_time() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let between = Utc::now();
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    publish(&sink(), &cx(&lake.run(2), Mode::Append), people(&[(2, "b")])).await.expect("published");
    assert_eq!(lake.query("select * from t", Version::At(between)).await, ["1|a"]);
    assert_eq!(lake.query("select * from t", Version::At(Utc::now())).await.len(), 2);
    let day = TimeDelta::try_days(1).expect("a day");
    let (future, past) = (Version::Number(9), Version::At(between - day));
    for version in [future, past] {
        let error = open_table(&lake.path(), &HashMap::new(), "s", "t", version).await.expect_err("no such version");
        assert_eq!(error.code, "version-missing", "{version:?}");
    }
    assert_eq!(tables(&lake.path(), &HashMap::new()).await.expect("listed"), [("s".to_owned(), "t".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_would_change_and_changes_nothing() {
    let lake = Lake::new();
    let rows = people(&[]).schema();
    let change = sink().plan(&rows, &cx(&lake.run(1), Mode::Append)).await.expect("planned");
    assert_eq!((change.destination.as_str(), change.creates), ("lake.s.t", true));
    assert_eq!(change.columns, [("id".to_owned(), "long".to_owned()), ("name".to_owned(), "string".to_owned())]);
    assert!(!lake.table_folder().exists());
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    let wide = batch(vec![("id", Arc::new(Int64Array::from(vec![1]))), ("age", Arc::new(Int32Array::from(vec![1])))]).schema();
    let asked = SinkContext { on_schema_change: OnSchemaChange::AddColumns, ..cx(&lake.run(2), Mode::Merge) };
    let change = sink().plan(&wide, &asked).await.expect("planned");
    assert_eq!((change.creates, change.adds), (false, vec!["age".to_owned()]));
    assert_eq!(change.steps.last().map(String::as_str), Some("commit all of it as version 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_any_folder_can_be_written() {
    let lake = Lake::new();
    let folder = lake.folder.path().join("quarantine").join("p").join("orders");
    let sink = at(&folder.to_string_lossy(), "quarantine.p.orders", &[]);
    let rows = people(&[(1, "bad")]);
    let load = sink.open(&rows.schema(), &cx(&lake.run(1), Mode::Append)).await.expect("opened");
    let stream = Box::pin(RecordBatchStreamAdapter::new(rows.schema(), futures::stream::iter([Ok(rows)])));
    load.write_all(stream, &Arc::new(TaskContext::default())).await.expect("written");
    load.seal().await.expect("sealed");
    load.publish().await.expect("published");
    let quarantine = lake.folder.path().join("quarantine").to_string_lossy().into_owned();
    assert_eq!(tables(&quarantine, &HashMap::new()).await.expect("listed"), [("p".to_owned(), "orders".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_features_that_weir_would_break_is_refused() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    let log = lake.table_folder().join("_delta_log").join(format!("{:020}.json", 0));
    let text = std::fs::read_to_string(&log).expect("the log");
    let ours = "\"configuration\":{\"delta.checkpointInterval\":\"10\"}";
    assert!(text.contains(ours), "{text}");
    std::fs::write(&log, text.replace(ours, "\"configuration\":{\"delta.constraints.positive\":\"id > 0\"}")).expect("written");
    let error = publish(&sink(), &cx(&lake.run(2), Mode::Append), people(&[(-1, "a")])).await.expect_err("refused");
    assert_eq!(error.code, "table-feature");
    assert!(error.message.contains("check constraints"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_gets_a_checkpoint_every_ten_commits() {
    let lake = Lake::new();
    for run in 1..=11 {
        publish(&sink(), &cx(&lake.run(run), Mode::Append), people(&[(1, "a")])).await.expect("published");
    }
    let log = std::fs::read_dir(lake.table_folder().join("_delta_log")).expect("the log");
    let mut checkpoints: Vec<String> = log.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    checkpoints.retain(|name| name.contains("checkpoint"));
    checkpoints.sort();
    assert_eq!(checkpoints, ["00000000000000000009.checkpoint.parquet", "_last_checkpoint"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_values_is_not_shown_to_delta_and_finds_its_rows() {
    use datafusion::{
        catalog::TableProvider,
        logical_expr::TableProviderFilterPushDown::{Inexact, Unsupported},
        prelude::{col, lit},
    };

    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a"), (7, "b"), (30_000, "c")])).await.expect("published");
    let many = (0..20_000).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let query = |filter: String| format!("select id, name from t where {filter}");
    assert_eq!(lake.query(&query(format!("id in ({many})")), Version::Newest).await, ["1|a", "7|b"]);
    assert_eq!(lake.query(&query(format!("id not in ({many})")), Version::Newest).await, ["30000|c"]);
    assert_eq!(lake.query(&query(format!("(id in ({many}) or name = 'c') and id > 1")), Version::Newest).await, ["30000|c", "7|b"]);
    assert_eq!(lake.query("select count(*), min(id) from t", Version::Newest).await, ["3|1"]);
    // Where Delta's own scan reads the table, it is shown what is short.
    let table = open_table(&lake.path(), &HashMap::new(), "s", "t", Version::Newest).await.expect("opened").expect("a table");
    let table = Arc::new(rows::Rows(table.table_provider().await.expect("a provider")));
    let within = |most: i64| col("id").in_list((0..most).map(lit).collect(), false);
    let found = SessionContext::new().read_table(table.clone()).expect("a table").filter(within(20_000)).expect("planned");
    assert_eq!(found.count().await.expect("ran"), 2);
    let filters = [within(100), within(1000), col("id").gt(lit(1_i64)), within(1000).or(col("id").gt(lit(1_i64)))];
    let answers = table.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>()).expect("asked");
    assert_eq!(answers, [Inexact, Unsupported, Inexact, Unsupported]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_opens_a_table_outside_of_the_lake() {
    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a")])).await.expect("published");
    let own = Tables::new(lake.path(), Arc::default());
    assert!(own.past("s", "t", Version::Newest).await.expect("looked at").is_some());
    let other = lake.folder.path().join("other");
    std::fs::create_dir_all(other.join("s")).expect("a folder");
    let tables = Tables::new(other.to_string_lossy(), Arc::default());
    let (whole, schema) = (lake.table_folder().display().to_string(), format!("{}/s", lake.path()));
    for (schema, table) in
        [("s", whole.as_str()), (schema.as_str(), "t"), ("..", "the lake/s/t"), ("../the lake/s", "t"), ("s", "../../the lake/s/t")]
    {
        for version in [Version::Newest, Version::Number(0), Version::At(instant(1000))] {
            assert!(tables.table(schema, table, version).await.expect("looked at").is_none(), "{schema:?} {table:?}");
            assert!(tables.past(schema, table, version).await.expect("looked at").is_none(), "{schema:?} {table:?}");
        }
    }
}
