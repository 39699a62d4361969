//! What a file sink leaves behind, when all goes well and when it does not.

use arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use weir_pipelines::OnSchemaChange;

use super::super::source::tests::run_context;
use super::*;

fn context(folder: &Path, mode: Mode, run: &str) -> SinkContext {
    SinkContext {
        run: Arc::new(RunContext { run: run.into(), ..run_context(folder) }),
        step: "export".into(),
        folder: folder.to_owned(),
        mode,
        key: Vec::new(),
        on_schema_change: OnSchemaChange::Fail,
        allow_lossy: Vec::new(),
        may_decide: false,
        beside: Vec::new(),
    }
}

fn rows(count: i64) -> RecordBatch {
    let words: Vec<String> = (0..count).map(|i| format!("row {i}")).collect();
    RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from_iter_values(0..count)) as arrow::array::ArrayRef),
        ("s", Arc::new(StringArray::from(words)) as arrow::array::ArrayRef),
    ])
    .expect("a batch")
}

async fn stage(text: &str, cx: &SinkContext, batches: Vec<RecordBatch>) -> Result<Arc<dyn Load>> {
    let sink: FileSink = toml::from_str(text).expect("settings");
    let schema = rows(0).schema();
    let load = sink.open(&schema, cx).await?;
    let data = RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok)));
    match load.write_all(Box::pin(data), &Arc::default()).await {
        Ok(_) => Ok(load),
        Err(error) => Err(match error {
            datafusion::error::DataFusionError::External(inner) => *inner.downcast::<Error>().expect("ours"),
            other => panic!("{other}"),
        }),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[tokio::test]
async fn every_format_is_read_back_and_zero_rows_are_a_file_too() {
    use crate::{Source, file::FileSource};
    for name in ["a.parquet", "a.arrow", "a.csv", "a.tsv.gz", "a.ndjson.zst", "a.csv.zst"] {
        for count in [0, 1_000] {
            let dir = tempfile::tempdir().expect("a folder");
            let cx = context(dir.path(), Mode::Replace, "run");
            let load = stage(&format!("path = \"out/{name}\""), &cx, vec![rows(count); usize::from(count > 0) * 3]).await.expect("staged");
            assert_eq!(names(&dir.path().join("out")), [format!(".{name}.weir-run")], "nobody sees it yet");
            let sealed = load.seal().await.expect("sealed");
            assert_eq!(sealed.rows, 3 * count as u64);
            let published = load.publish().await.expect("published");
            assert!(!published.already);
            assert_eq!(names(&dir.path().join("out")), [name]);
            assert_eq!(fs::metadata(dir.path().join("out").join(name)).expect("a file").len(), sealed.bytes);
            if count == 0 && name.contains("ndjson") {
                continue; // no rows, no columns: nothing to read back
            }
            let (cx, kept) = super::super::source::tests::context(dir.path());
            let source: FileSource = toml::from_str(&format!("path = \"out/{name}\"")).expect("settings");
            let opened = source.open(&cx).await.expect("opens");
            let batch = super::super::source::tests::collect(&opened, "select * from rows").await.expect("rows");
            assert_eq!((batch.num_rows(), batch.num_columns()), (3 * count as usize, 2), "{name}");
            assert!(kept.0.lock().is_empty());
        }
    }
}

#[tokio::test]
async fn parquet_is_written_without_delta_encodings_where_they_are_not_wanted() {
    use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, basic::Encoding};
    let dir = tempfile::tempdir().expect("a folder");
    for (settings, wanted) in
        [("", vec![Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY]), ("delta_encodings = false", vec![])]
    {
        let settings = format!("path = \"a.parquet\"\n[parquet]\n{settings}");
        let load = stage(&settings, &context(dir.path(), Mode::Replace, "run"), vec![rows(1_000)]).await.expect("staged");
        load.seal().await.expect("sealed");
        load.publish().await.expect("published");
        let file = fs::File::open(dir.path().join("a.parquet")).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        let delta = |encoding: &Encoding| matches!(encoding, Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY);
        let seen: Vec<Encoding> =
            reader.metadata().row_group(0).columns().iter().flat_map(|column| column.encodings().filter(delta)).collect();
        assert_eq!(seen, wanted);
    }
}

#[tokio::test]
async fn parquet_says_of_row_groups_what_is_in_them_and_keeps_nothing_of_pages() {
    use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};
    let dir = tempfile::tempdir().expect("a folder");
    let load = stage("path = \"a.parquet\"", &context(dir.path(), Mode::Replace, "run"), vec![rows(50_000)]).await.expect("staged");
    load.seal().await.expect("sealed");
    load.publish().await.expect("published");
    let file = SerializedFileReader::new(fs::File::open(dir.path().join("a.parquet")).expect("a file")).expect("Parquet");
    for column in file.metadata().row_group(0).columns() {
        let statistics = column.statistics().expect("statistics");
        assert_eq!((statistics.null_count_opt(), statistics.min_bytes_opt().is_some()), (Some(0), true));
        assert_eq!((column.column_index_offset(), column.offset_index_offset()), (None, None));
    }
}

#[tokio::test]
async fn a_file_that_goes_to_the_disk_while_it_is_written_is_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let batches: Vec<RecordBatch> = (0..50).map(|_| rows(100_000)).collect();
    let load = stage("path = \"a.csv\"", &context(dir.path(), Mode::Replace, "run"), batches).await.expect("staged");
    let sealed = load.seal().await.expect("sealed");
    load.publish().await.expect("published");
    let text = fs::read_to_string(dir.path().join("a.csv")).expect("text");
    assert!(text.len() > 2 * SYNC_BYTES, "the disk is asked more than once");
    assert_eq!((text.len() as u64, text.lines().count() as u64), (sealed.bytes, sealed.rows + 1));
    let whole: String = (0..50).flat_map(|_| 0..100_000).map(|i| format!("{i},row {i}\n")).collect();
    assert!(text == format!("n,s\n{whole}"), "the rows are not those that came");
}

#[tokio::test]
async fn append_adds_a_file_per_run() {
    let dir = tempfile::tempdir().expect("a folder");
    for run in ["run1", "run2"] {
        let load =
            stage("path = \"out/\"\nformat = \"csv\"\ncompression = \"gzip\"", &context(dir.path(), Mode::Append, run), vec![rows(2)])
                .await
                .expect("staged");
        load.seal().await.expect("sealed");
        load.publish().await.expect("published");
    }
    assert_eq!(names(&dir.path().join("out")), ["run1-export.csv.gz", "run2-export.csv.gz"]);
}

#[tokio::test]
async fn a_crash_after_seal_is_rolled_forward_once() {
    for url in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let base = if url { format!("file://{}/", dir.path().canonicalize().expect("a path").display()) } else { String::new() };
        fs::write(dir.path().join("a.csv"), "old").expect("a file");
        let cx = context(dir.path(), Mode::Replace, "run");
        let load = stage(&format!("path = \"{base}a.csv\""), &cx, vec![rows(2)]).await.expect("staged");
        let state = load.seal().await.expect("sealed").state;
        drop(load);
        assert_eq!(fs::read_to_string(dir.path().join("a.csv")).expect("a file"), "old");
        let resumed = resume(state.clone(), &cx.run).expect("resumed");
        assert!(!resumed.publish().await.expect("published").already);
        assert_eq!(fs::read_to_string(dir.path().join("a.csv")).expect("a file"), "n,s\n0,row 0\n1,row 1\n");
        assert!(resumed.publish().await.expect("published again").already);
        assert!(resume(state.clone(), &cx.run).expect("resumed").publish().await.expect("and again").already);
        resume(state, &cx.run).expect("resumed").discard().await.expect("nothing to discard");
        assert_eq!(names(dir.path()), ["a.csv"]);
    }
}

#[tokio::test]
async fn a_crash_while_staging_is_discarded() {
    let dir = tempfile::tempdir().expect("a folder");
    let cx = context(dir.path(), Mode::Replace, "run");
    let load = stage("path = \"a.parquet\"", &cx, vec![rows(2)]).await.expect("staged");
    let resumed = resume(load.stage(), &cx.run).expect("resumed");
    assert_eq!(resumed.publish().await.expect_err("never sealed").code, "not-sealed");
    resumed.discard().await.expect("discarded");
    resumed.discard().await.expect("discarded again");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_stage_that_somebody_removed_is_missed() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.csv"), "old").expect("a file");
    let load = stage("path = \"a.csv\"", &context(dir.path(), Mode::Replace, "run"), vec![rows(2)]).await.expect("staged");
    load.seal().await.expect("sealed");
    fs::remove_file(dir.path().join(".a.csv.weir-run")).expect("removed");
    assert_eq!(load.publish().await.expect_err("gone").code, "stage-lost");
}

#[tokio::test]
async fn a_full_disk_and_a_closed_folder_are_the_systems_fault() {
    let dir = tempfile::tempdir().expect("a folder");
    let cx = context(dir.path(), Mode::Replace, "run");
    fs::write(dir.path().join("file"), "").expect("a file");
    let error = stage("path = \"file/a.csv\"", &cx, vec![rows(2)]).await.expect_err("no folder");
    assert_eq!((error.code, error.blame, error.setting.as_deref()), ("unwritable", crate::Blame::System, Some("path")));
    #[cfg(target_os = "linux")]
    {
        std::os::unix::fs::symlink("/dev/full", dir.path().join(".a.csv.weir-run")).expect("a link");
        let error = stage("path = \"a.csv\"", &cx, vec![rows(2)]).await.expect_err("full");
        assert_eq!((error.code, error.blame), ("disk-full", crate::Blame::System));
        assert!(error.message.starts_with("the disk is full: cannot write"), "{error}");
    }
}

#[tokio::test]
async fn modes_that_files_do_not_know_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, mode, message) in [
        ("a.csv", Mode::Append, "a single file cannot be appended to"),
        ("out/", Mode::Replace, "a folder is not replaced"),
        ("a.csv", Mode::Merge, "files do not know the mode \"merge\""),
    ] {
        let sink: FileSink = toml::from_str(&format!("path = \"{path}\"")).expect("settings");
        let error = sink.plan(&rows(0).schema(), &context(dir.path(), mode, "run")).await.expect_err("refused");
        assert_eq!((error.code, error.message.as_str()), ("mode-unsupported", message));
        assert!(error.help.is_some());
    }
}

#[tokio::test]
async fn planning_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let sink: FileSink = toml::from_str("path = \"out/a.parquet\"").expect("settings");
    let change = sink.plan(&rows(0).schema(), &context(dir.path(), Mode::Replace, "run")).await.expect("a plan");
    assert!(change.creates);
    assert_eq!(change.destination, "out/a.parquet");
    assert_eq!(change.columns, [("n".to_owned(), "Int64".to_owned()), ("s".to_owned(), "Utf8".to_owned())]);
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn layouts_that_do_not_exist_are_named() {
    for (text, setting) in [
        ("path = \"a.avro\"", "path"),
        ("path = \"a.csv\"\nformat = \"json\"", "format"),
        ("path = \"a.what\"", "path"),
        ("path = \"a.csv.xz\"", "path"),
        ("path = \"a.parquet.gz\"", "path"),
        ("path = \"a.arrow\"\ncompression = \"gzip\"", "compression"),
        ("path = \"https://h/a.csv\"", "path"),
    ] {
        let sink: FileSink = toml::from_str(text).expect("settings");
        assert_eq!(sink.check().expect_err(text).setting.as_deref(), Some(setting), "{text}");
    }
}
