//! What a file source reads, from settings as people write them to rows.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use arrow::{
    array::{RecordBatch, StringArray, UInt64Array},
    compute::concat_batches,
    util::display::array_value_to_string,
};
use chrono::DateTime;
use datafusion::{
    execution::{memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::super::{bytes::tests::pack, write};
use super::*;
use crate::{
    Source,
    context::{Reject, Rejects, RunContext},
};

/// Keeps what is rejected.
#[derive(Debug, Default)]
pub struct Kept(pub Mutex<Vec<Reject>>);

impl Rejects for Kept {
    fn reject(&self, rejects: Vec<Reject>) -> Result<()> {
        self.0.lock().extend(rejects);
        Ok(())
    }
}

/// A run in a folder.
pub fn run_context(folder: &Path) -> RunContext {
    RunContext {
        run: "0199-run".into(),
        pipeline: "test".into(),
        state: "state".into(),
        started_at: DateTime::UNIX_EPOCH,
        interval: None,
        root: folder.to_owned(),
        state_dir: folder.join(".weir"),
        lake: folder.join("lake").display().to_string(),
        connections: Arc::default(),
        profile: None,
        environment: Arc::default(),
        runtime: Arc::default(),
        partitions: 3,
        batch_rows: 100,
        cancel: CancellationToken::new(),
    }
}

pub fn context(folder: &Path) -> (SourceContext, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let cx = SourceContext {
        run: Arc::new(run_context(folder)),
        step: "rows".into(),
        folder: folder.to_owned(),
        declared: None,
        shape: None,
        known: None,
        coordinates: false,
        incremental: None,
        seen: BTreeMap::new(),
        rejects: kept.clone(),
        purpose: Purpose::Run,
    };
    (cx, kept)
}

fn settings(text: &str) -> FileSource {
    toml::from_str(text).expect("settings")
}

fn declare(cx: &mut SourceContext, columns: &[(&str, DataType)]) {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
    cx.declared = Some(Arc::new(Schema::new(fields)));
}

pub async fn collect(opened: &Opened, query: &str) -> Result<RecordBatch, String> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    session.register_table("rows", opened.table.clone()).map_err(|error| error.to_string())?;
    let frame = session.sql(query).await.map_err(|error| error.to_string())?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches =
        frame.collect().await.map_err(|error| Error::find(&error).map_or(error.to_string(), |error| format!("{}: {error}", error.code)))?;
    concat_batches(&schema, &batches).map_err(|error| error.to_string())
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    let row = |row| {
        let values = batch.columns().iter().map(|column| array_value_to_string(column, row).expect("shown"));
        values.collect::<Vec<_>>().join("|")
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Reads everything, sorted, as `a|b` lines.
async fn read(text: &str, cx: &SourceContext) -> Result<(Vec<String>, Vec<String>), String> {
    let opened = settings(text).open(cx).await.map_err(|error| format!("{}: {error}", error.code))?;
    let names = opened.table.schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let mut rows = texts(&collect(&opened, "select * from rows").await?);
    rows.sort();
    assert!(opened.read.rows() >= rows.len() as u64, "every row is counted");
    Ok((names, rows))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    dir
}

#[tokio::test]
async fn columns_go_by_name_and_files_are_united() {
    let dir = folder(&[("d/1.csv", "a,b\n1,x\n"), ("d/2.csv", "b,a\ny,2\n"), ("d/3.csv", "a,c\n3,2020-01-02\n")]);
    let (cx, kept) = context(dir.path());
    let (names, rows) = read("path = \"d/*.csv\"", &cx).await.expect("rows");
    assert_eq!(names, ["a Int64", "b Utf8", "c Date32"]);
    assert_eq!(rows, ["1|x|", "2|y|", "3||2020-01-02"]);
    assert!(kept.0.lock().is_empty());
}

#[tokio::test]
async fn declared_columns_come_first_with_their_types() {
    let dir = folder(&[("a.csv", "zip,n,extra\n00501,1,7\n10001,x,8\n")]);
    let (mut cx, kept) = context(dir.path());
    declare(&mut cx, &[("n", DataType::Int64), ("zip", DataType::Utf8), ("absent", DataType::Date32)]);
    let (names, rows) = read("path = \"a.csv\"", &cx).await.expect("rows");
    assert_eq!(names, ["n Int64", "zip Utf8", "absent Date32", "extra Int64"]);
    assert_eq!(rows, ["1|00501||7"]);
    let rejects = kept.0.lock();
    assert_eq!(rejects.len(), 1);
    assert_eq!((rejects[0].file.as_deref(), rejects[0].row, rejects[0].code.as_str()), (Some("a.csv"), Some(3), "wrong-type"));
    assert_eq!((rejects[0].column.as_deref(), rejects[0].raw.as_str()), (Some("n"), "10001,x,8"));
}

#[tokio::test]
async fn folders_give_columns_of_their_own() {
    let dir = folder(&[("t/year=2013/m=01/a.csv", "a\n1\n"), ("t/year=2014/m=12/a.csv", "a\n2\n"), ("t/_SUCCESS", "")]);
    let (mut cx, _) = context(dir.path());
    let (names, rows) = read("path = \"t\"", &cx).await.expect("rows");
    assert_eq!(names, ["a Int64", "year Int64", "m Utf8"]);
    assert_eq!(rows, ["1|2013|01", "2|2014|12"]);
    declare(&mut cx, &[("m", DataType::Int32), ("a", DataType::Int64)]);
    let (names, rows) = read("path = \"t\"", &cx).await.expect("rows");
    assert_eq!(names, ["m Int32", "a Int64", "year Int64"]);
    assert_eq!(rows, ["12|2|2014", "1|1|2013"]);
    let (names, _) = read("path = \"t\"\nhive = false", &cx).await.expect("rows");
    assert_eq!(names, ["m Int32", "a Int64"]);
    declare(&mut cx, &[("year", DataType::Date32)]);
    let error = read("path = \"t\"", &cx).await.expect_err("no date");
    assert_eq!(error, "wrong-type: \"2013\" in \"t/year=2013/m=01/a.csv\" is not Date32");
}

#[tokio::test]
async fn empty_files_have_no_rows_and_need_columns_from_elsewhere() {
    let dir = folder(&[("empty.csv", ""), ("header.csv", "a,b\n"), ("rows.csv", "a,b\n1,2\n")]);
    let (mut cx, _) = context(dir.path());
    let (names, rows) = read("path = \"header.csv\"", &cx).await.expect("no rows");
    assert_eq!((names.len(), rows.len()), (2, 0));
    let (_, rows) = read("path = \"*.csv\"", &cx).await.expect("rows");
    assert_eq!(rows, ["1|2"]);
    let error = read("path = \"empty.csv\"", &cx).await.expect_err("no columns");
    assert_eq!(error, "no-columns: \"empty.csv\" is empty: it has no columns");
    let error = settings("path = \"empty.csv\"").open(&cx).await.expect_err("no columns");
    assert_eq!(error.setting.as_deref(), Some("path"));
    declare(&mut cx, &[("a", DataType::Int64)]);
    assert_eq!(read("path = \"empty.csv\"", &cx).await.expect("no rows").1.len(), 0);
}

#[tokio::test]
async fn what_is_not_there_is_said_at_once() {
    let dir = folder(&[("a.csv", "a\n1\n"), ("b.json", "[]"), ("c.what", "a")]);
    let (cx, _) = context(dir.path());
    for (text, wanted) in [
        ("path = \"b.csv\"", "file-missing: there is no file \"b.csv\""),
        ("path = \"x*.csv\"", "glob-empty: \"x*.csv\" matches no file"),
        ("path = \"c.what\"", "format-unknown: the name of \"c.what\" does not say its format"),
        ("path = [\"a.csv\", \"b.json\"]", "format-mixed: \"a.csv\" is csv and \"b.json\" is json"),
    ] {
        let error = settings(text).open(&cx).await.expect_err("an error");
        assert_eq!((format!("{}: {error}", error.code).as_str(), error.setting.as_deref()), (wanted, Some("path")));
    }
}

#[tokio::test]
async fn a_truncated_file_fails_the_run_and_names_the_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let text: String = (0..60_000u32).map(|i| format!("{},{}\n", i, i.wrapping_mul(2_654_435_761))).collect();
    let packed = pack(format!("a,b\n{text}").as_bytes(), Compression::Gzip);
    fs::write(dir.path().join("a.csv.gz"), &packed[..packed.len() - 100]).expect("a file");
    let (mut cx, _) = context(dir.path());
    declare(&mut cx, &[("a", DataType::Int64), ("b", DataType::Int64)]);
    let error = read("path = \"a.csv.gz\"", &cx).await.expect_err("truncated");
    assert_eq!(error, format!("truncated: \"a.csv.gz\" ends at byte {} in the middle of its gzip data", packed.len() - 100));
}

#[tokio::test]
async fn rows_say_where_they_came_from() {
    let dir = folder(&[("a.csv", "a\n1\n\"x\ny\"\n3\n"), ("b.csv", "a\n4\n")]);
    let (mut cx, _) = context(dir.path());
    let (names, rows) = read("path = \"*.csv\"\nmetadata = [\"_row\", \"_file\"]", &cx).await.expect("rows");
    assert_eq!(names, ["a Utf8", "_row UInt64", "_file Utf8"]);
    assert_eq!(rows, ["1|2|a.csv", "3|5|a.csv", "4|2|b.csv", "x\ny|3|a.csv"]);
    cx.coordinates = true;
    let (names, rows) = read("path = \"*.csv\"", &cx).await.expect("rows");
    assert_eq!(names[1..], ["_file Dictionary(Int32, Utf8)", "_row UInt64"]);
    assert_eq!(rows[2], "4|b.csv|2");
}

#[tokio::test]
async fn each_file_is_read_once_and_again_when_it_changes() {
    let dir = folder(&[("in/1.csv", "a,b\n1,x\n"), ("in/2.csv", "a,b\n2,y\n")]);
    let (mut cx, _) = context(dir.path());
    cx.incremental = Some(Incremental::Files);
    let source = settings("path = \"in/*.csv\"");
    let mut round = async |wanted: &[&str]| {
        let opened = source.open(&cx).await.expect("opens");
        let mut rows = texts(&collect(&opened, "select a, b from rows").await.expect("rows"));
        rows.sort();
        assert_eq!(rows, wanted);
        cx.seen.extend(opened.advance.expect("incremental").entries());
        cx.known = Some(opened.table.schema());
    };
    round(&["1|x", "2|y"]).await;
    round(&[]).await;
    fs::write(dir.path().join("in/3.csv"), "a,b\n3,\n").expect("a file");
    round(&["3|"]).await;
    fs::write(dir.path().join("in/1.csv"), "a,b\n1,changed\n").expect("a file");
    round(&["1|changed"]).await;
    fs::remove_dir_all(dir.path().join("in")).expect("cleared");
    round(&[]).await;
}

#[tokio::test]
async fn a_cursor_is_refused() {
    let dir = folder(&[("a.csv", "a\n1\n")]);
    let (mut cx, _) = context(dir.path());
    cx.incremental = Some(Incremental::Cursor { column: "a".into(), lag: std::time::Duration::ZERO, start: None });
    assert_eq!(settings("path = \"a.csv\"").open(&cx).await.expect_err("no cursor").code, "incremental-unsupported");
}

#[tokio::test]
async fn only_wanted_columns_are_read_and_rows_counted_without_any() {
    let dir = folder(&[("a.csv", "a,b,c\n1,x,3\n2,y,4\n")]);
    let (cx, _) = context(dir.path());
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    assert_eq!(texts(&collect(&opened, "select c from rows order by c").await.expect("rows")), ["3", "4"]);
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    assert_eq!(texts(&collect(&opened, "select count(*) from rows").await.expect("rows")), ["2"]);
    assert_eq!(opened.read.bytes(), 18);
}

#[tokio::test]
async fn a_line_too_long_is_one_bad_row() {
    let long = "x".repeat(300_000);
    let dir = folder(&[("a.ndjson", &format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n{{\"a\":2}}\n"))]);
    let (cx, kept) = context(dir.path());
    let mut source = settings("path = \"a.ndjson\"");
    source.record_max.0 = 100_000;
    let opened = source.open(&cx).await.expect("opens");
    let mut rows = texts(&collect(&opened, "select a from rows").await.expect("rows"));
    rows.sort();
    assert_eq!(rows, ["1", "2"]);
    let rejects = kept.0.lock();
    assert_eq!((rejects.len(), rejects[0].row, rejects[0].code.as_str()), (1, Some(2), "malformed"));
    assert!(rejects[0].raw.len() < 70_000);
    assert_eq!(opened.read.rows(), 3);
}

#[tokio::test]
async fn types_come_from_the_whole_input_or_a_stated_sample() {
    let rows: String = (0..400_000).map(|i| format!("{i},{i},\n")).collect();
    let dir = folder(&[("a.csv", &format!("a,b,c\n{rows}1,x,2020-01-01\n")), ("b.csv", "a,b,c\n0.5,1,2020-01-01T10:00:00\n")]);
    let (cx, kept) = context(dir.path());
    let (names, rows) = read("path = \"*.csv\"", &cx).await.expect("rows");
    assert_eq!(names, ["a Float64", "b Utf8", "c Timestamp(µs)"]);
    assert_eq!((rows.len(), kept.0.lock().len()), (400_002, 0));
    let (names, rows) = read("path = \"a.csv\"\ninfer_rows = 1000", &cx).await.expect("rows");
    assert_eq!(names, ["a Int64", "b Int64", "c Utf8"]);
    assert_eq!(rows.len(), 400_000);
    let rejects = kept.0.lock();
    assert_eq!((rejects.len(), rejects[0].row, rejects[0].column.as_deref()), (1, Some(400_002), Some("b")));
}

#[tokio::test]
async fn columns_of_records_come_in_the_order_in_which_the_file_has_them() {
    // So many that several threads learn from blocks of them side by side.
    let records: String =
        (0..120_000).map(|n| format!("{{\"id\":{n},\"k{}\":{{\"s{}\":{n}}},\"v\":{}}}\n", n / 10_000, n / 5_000, n / 2)).collect();
    let dir = folder(&[("a.ndjson", &records.replace("\"v\":59999}", "\"v\":0.5}"))]);
    let (cx, kept) = context(dir.path());
    let (names, rows) = read("path = \"a.ndjson\"", &cx).await.expect("rows");
    let objects = (0..12).map(|k| format!("k{k} Struct(\"s{}\": Int64, \"s{}\": Int64)", 2 * k, 2 * k + 1));
    let mut wanted: Vec<String> = ["id Int64".to_owned()].into_iter().chain(objects).collect();
    wanted.insert(2, "v Float64".to_owned());
    assert_eq!((names, rows.len(), kept.0.lock().len()), (wanted, 120_000, 0));
}

#[tokio::test]
async fn records_are_found_inside_a_document_and_its_missing_end_is_a_bad_row() {
    let dir = folder(&[
        ("a.json", "{\"data\": {\"items\": [{\"a\": 1, \"b\": {\"c\": [1]}}, {\"a\": 2}]}}"),
        ("b.json", "[{\"a\": 1}, {\"a\": 2}, {\"a\": 3"),
    ]);
    let (cx, kept) = context(dir.path());
    let (_, rows) = read("path = \"a.json\"\njson.records = \"data.items\"\nmetadata = [\"_row\"]", &cx).await.expect("rows");
    assert_eq!(rows, ["1|{c: [1]}|1", "2||2"]);
    let (_, rows) = read("path = \"b.json\"", &cx).await.expect("rows");
    assert_eq!(rows, ["1", "2"]);
    assert_eq!(
        kept.0.lock().iter().map(|reject| (reject.row, reject.code.clone())).collect::<Vec<_>>(),
        [(Some(3), "malformed".to_owned())]
    );
    let error = read("path = \"a.json\"\njson.records = \"none\"", &cx).await.expect_err("no records");
    assert!(error.starts_with("json-records-missing: \"a.json\""), "{error}");
}

#[tokio::test]
async fn planning_reads_little_and_gives_the_columns() {
    let rows: String = (0..200_000).map(|i| format!("{i},text {i}\n")).collect();
    let dir = folder(&[("a.csv", &format!("a,b\n{rows}"))]);
    let (mut cx, _) = context(dir.path());
    cx.purpose = Purpose::Plan;
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    assert_eq!(opened.table.schema().fields().len(), 2);
    assert_eq!((opened.read.rows(), opened.read.bytes()), (0, 0));
}

#[tokio::test]
async fn a_dropped_stream_ends_the_readers() {
    let rows: String = (0..2_000_000).map(|i| format!("{i},text {i}\n")).collect();
    let dir = folder(&[("a.csv", &format!("a,b\n{rows}"))]);
    let (mut cx, _) = context(dir.path());
    declare(&mut cx, &[("a", DataType::Int64), ("b", DataType::Utf8)]);
    let pool: Arc<dyn datafusion::execution::memory_pool::MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool.clone()).build_arc().expect("a runtime");
    cx.run = Arc::new(RunContext { runtime, ..run_context(dir.path()) });
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    let session = SessionContext::new();
    let plan = opened.table.scan(&session.state(), None, &[], None).await.expect("a plan");
    let mut stream = plan.execute(0, session.task_ctx()).expect("a stream");
    let first = stream.next().await.expect("a batch").expect("rows");
    assert_eq!(first.num_rows(), 100);
    assert!(pool.reserved() > 0 && pool.reserved() <= 8 << 20, "blocks are reserved, and are a small part: {}", pool.reserved());
    drop(stream);
    for _ in 0..500 {
        if pool.reserved() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(pool.reserved(), 0);
    assert!(opened.read.rows() < 2_000_000);
    let error = plan.execute(0, session.task_ctx()).err().expect("twice");
    assert_eq!(Error::find(&error).expect("ours").code, "scan-twice");
}

#[tokio::test]
async fn cancelling_ends_a_scan_with_an_error() {
    let dir = folder(&[("a.csv", "a\n1\n")]);
    let (cx, _) = context(dir.path());
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    cx.run.cancel.cancel();
    assert_eq!(collect(&opened, "select * from rows").await.expect_err("cancelled"), "interrupted: reading was interrupted");
}

/// Rows of every common type, written by the sink's encoder.
async fn write_file(path: &Path, format: Format, groups: usize) {
    let layout = write::Layout::new(format, Compression::Zstd);
    let batch = |from: u64| {
        let numbers: Vec<u64> = (from..from + 500).collect();
        let words: Vec<String> = numbers.iter().map(|number| format!("row {number}")).collect();
        RecordBatch::try_from_iter([
            ("n", Arc::new(UInt64Array::from(numbers)) as ArrayRef),
            ("s", Arc::new(StringArray::from(words)) as ArrayRef),
        ])
        .expect("a batch")
    };
    let mut encoder = write::Encoder::new(&layout, &batch(0).schema(), 64 << 20).expect("an encoder");
    for group in 0..groups {
        encoder.write(&batch(500 * group as u64)).await.expect("written");
    }
    fs::write(path, encoder.finish().await.expect("finished").1.concat()).expect("a file");
}

#[tokio::test]
async fn parquet_and_arrow_files_are_read_back() {
    for (name, format) in [("a.parquet", Format::Parquet), ("a.arrow", Format::Arrow)] {
        let dir = tempfile::tempdir().expect("a folder");
        write_file(&dir.path().join(name), format, 40).await;
        let (mut cx, kept) = context(dir.path());
        declare(&mut cx, &[("n", DataType::Int64), ("absent", DataType::Utf8)]);
        let text = format!("path = \"{name}\"\nmetadata = [\"_row\"]");
        let (names, rows) = read(&text, &cx).await.expect("rows");
        assert_eq!(names, ["n Int64", "absent Utf8", "s Utf8", "_row UInt64"]);
        assert_eq!((rows.len(), kept.0.lock().len()), (20_000, 0));
        assert!(rows.contains(&"19999||row 19999|20000".to_owned()));
        let opened = settings(&text).open(&cx).await.expect("opens");
        assert_eq!(texts(&collect(&opened, "select count(*), sum(n) from rows").await.expect("rows")), ["20000|199990000"]);
        assert_eq!(opened.read.rows(), 20_000);
        assert!(opened.read.bytes() > 0);
        let url = format!("path = \"file://{}/{name}\"", dir.path().canonicalize().expect("a path").display());
        assert_eq!(read(&url, &cx).await.expect("through a store").1.len(), 20_000);

        let whole = fs::read(dir.path().join(name)).expect("a file");
        fs::write(dir.path().join(name), &whole[..whole.len() - 3]).expect("a file");
        let error = read(&text, &cx).await.expect_err("cut");
        assert!(
            error.starts_with("corrupt: \"a.parquet\" is not a readable parquet file")
                || error == "truncated: \"a.arrow\" ends before its footer",
            "{error}"
        );
        fs::write(dir.path().join(name), "").expect("a file");
        let error = read(&text, &cx).await.expect_err("empty");
        assert!(error.ends_with("file: it is empty"), "{error}");
    }
}

/// Writes the numbers up to 1,000 in row groups of 100.
fn write_groups(path: &Path, column: &str) {
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..1000));
    let batch = RecordBatch::try_from_iter([(column, numbers)]).expect("a batch");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).expect("a file"), batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    assert_eq!(writer.close().expect("closed").num_row_groups(), 10);
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("set");
}

#[tokio::test]
async fn every_row_group_is_read_with_its_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    write_groups(&dir.path().join("a.parquet"), "n");
    let (cx, _) = context(dir.path());
    let rooted = dir.path().canonicalize().expect("a path");
    for path in ["a.parquet".to_owned(), format!("file://{}/a.parquet", rooted.display())] {
        let (_, rows) = read(&format!("path = \"{path}\"\nmetadata = [\"_row\"]"), &cx).await.expect("rows");
        let mut wanted: Vec<String> = (0..1000).map(|number| format!("{number}|{}", number + 1)).collect();
        wanted.sort();
        assert_eq!(rows, wanted, "{path}");
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_by_one_with_other_columns_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    write_groups(&dir.path().join("a.parquet"), "n");
    let (cx, _) = context(dir.path());
    let opened = settings("path = \"a.parquet\"").open(&cx).await.expect("opens");
    // As large and as old, so that by its version it is the same.
    let modified = fs::metadata(dir.path().join("a.parquet")).and_then(|meta| meta.modified()).expect("a time");
    write_groups(&dir.path().join("a.parquet"), "m");
    set_modified(&dir.path().join("a.parquet"), modified);
    let session = SessionContext::new();
    session.register_table("rows", opened.table).expect("registered");
    let error = session.sql("select * from rows").await.expect("planned").collect().await.expect_err("other columns");
    let error = Error::find(&error).expect("Weir's error");
    assert_eq!(error.message, "cannot read \"a.parquet\": its columns are not those that it had when the run began");
    assert_eq!((error.code, error.help.as_deref()), ("columns-changed", Some("run again")));
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_had_been_listed_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let rooted = dir.path().canonicalize().expect("a path");
    for format in [Format::Parquet, Format::Arrow, Format::Csv] {
        let name = format!("a.{}", if format == Format::Csv { "csv.zst" } else { format.as_str() });
        let file = dir.path().join(&name);
        for path in [name.clone(), format!("file://{}/{name}", rooted.display())] {
            let (mut cx, _) = context(dir.path());
            cx.incremental = Some(Incremental::Files);
            write_file(&file, format, 1).await;
            let opened = settings(&format!("path = \"{path}\"")).open(&cx).await.expect("opens");
            write_file(&file, format, 2).await;
            let error = collect(&opened, "select * from rows").await.expect_err("another file");
            assert_eq!(error, format!("file-changed: \"{path}\" was changed after it had been listed"));
        }
    }
}

#[tokio::test]
async fn text_that_grows_is_read_as_it_is_by_then_where_nobody_remembers_it() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.csv"), "n\n1\n").expect("a file");
    let (cx, _) = context(dir.path());
    let opened = settings("path = \"a.csv\"").open(&cx).await.expect("opens");
    fs::write(dir.path().join("a.csv"), "n\n1\n2\n").expect("a file");
    assert_eq!(texts(&collect(&opened, "select n from rows order by n").await.expect("rows")), ["1", "2"]);
}

#[tokio::test]
async fn row_groups_are_of_the_file_that_the_footer_is_of() {
    let dir = tempfile::tempdir().expect("a folder");
    write_groups(&dir.path().join("a.parquet"), "n");
    let rooted = dir.path().canonicalize().expect("a path");
    for path in ["a.parquet".to_owned(), format!("file://{}/a.parquet", rooted.display())] {
        let (cx, _) = context(dir.path());
        let opened = settings(&format!("path = \"{path}\"")).open(&cx).await.expect("opens");
        let session = SessionContext::new();
        session.register_table("rows", opened.table).expect("registered");
        let mut rows = session.sql("select * from rows").await.expect("planned").execute_stream().await.expect("a stream");
        assert_eq!(rows.next().await.expect("a batch").expect("rows").num_rows(), 100);
        let modified = fs::metadata(dir.path().join("a.parquet")).and_then(|meta| meta.modified()).expect("a time");
        set_modified(&dir.path().join("a.parquet"), modified + Duration::from_secs(1));
        let rest: Vec<_> = rows.collect().await;
        let error = rest.last().and_then(|last| last.as_ref().err()).and_then(|error| Error::find(error)).expect("Weir's error");
        assert_eq!(error.message, format!("\"{path}\" was changed after it had been listed"));
    }
}

#[tokio::test]
async fn a_binary_value_that_does_not_fit_is_a_bad_row() {
    let dir = tempfile::tempdir().expect("a folder");
    write_file(&dir.path().join("a.parquet"), Format::Parquet, 1).await;
    let (mut cx, kept) = context(dir.path());
    declare(&mut cx, &[("n", DataType::Int8)]);
    let (_, rows) = read("path = \"a.parquet\"", &cx).await.expect("rows");
    assert_eq!(rows.len(), 128);
    let rejects = kept.0.lock();
    assert_eq!(rejects.len(), 372);
    assert!(rejects.iter().any(|reject| reject.row == Some(129) && reject.code == "wrong-type" && reject.column.as_deref() == Some("n")));
}

#[tokio::test]
async fn avro_files_are_read_and_cut_ones_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
    let batch = RecordBatch::try_new(
        Arc::new(schema.clone()),
        vec![
            Arc::new(arrow::array::Int64Array::from_iter((0..9_000).map(Some))),
            Arc::new(StringArray::from_iter((0..9_000).map(|i| (i % 2 == 0).then(|| format!("row {i}"))))),
        ],
    )
    .expect("a batch");
    let mut writer = arrow_avro::writer::AvroWriter::new(Vec::new(), schema).expect("a writer");
    writer.write(&batch).expect("written");
    writer.finish().expect("finished");
    let bytes = writer.into_inner();
    fs::write(dir.path().join("a.avro"), &bytes).expect("a file");
    let (cx, _) = context(dir.path());
    let (names, rows) = read("path = \"a.avro\"", &cx).await.expect("rows");
    assert_eq!((names, rows.len()), (vec!["n Int64".to_owned(), "s Utf8".to_owned()], 9_000));
    let opened = settings("path = \"a.avro\"").open(&cx).await.expect("opens");
    assert_eq!(texts(&collect(&opened, "select count(s) from rows").await.expect("rows")), ["4500"]);
    fs::write(dir.path().join("a.avro"), &bytes[..bytes.len() - 20]).expect("a file");
    let error = read("path = \"a.avro\"", &cx).await.expect_err("cut");
    assert_eq!(error, "truncated: \"a.avro\" ends in the middle of a block");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_packing_and_the_memory_the_rows_are_the_same(
        rows in proptest::collection::vec((any::<i32>(), "[a-z ,\"\n]{0,40}"), 0..400),
        compression in proptest::sample::select(vec![Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz]),
        limit in 1usize..4_000_000,
        partitions in 1usize..5,
        repeat in 1usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a folder");
        let line = |(number, word): &(i32, String)| format!("{number},\"{}\"\n", word.replace('"', "\"\""));
        let text: String = rows.iter().map(line).collect::<String>().repeat(repeat);
        fs::write(dir.path().join("data"), pack(format!("n,w\n{text}").as_bytes(), compression)).expect("a file");
        let (mut cx, kept) = context(dir.path());
        declare(&mut cx, &[("n", DataType::Int64), ("w", DataType::Utf8)]);
        let memory: Arc<dyn datafusion::execution::memory_pool::MemoryPool> = Arc::new(GreedyMemoryPool::new(limit + (8 << 20)));
        let environment = RuntimeEnvBuilder::new().with_memory_pool(memory).build_arc().expect("a runtime");
        cx.run = Arc::new(RunContext { runtime: environment, partitions, ..run_context(dir.path()) });
        let name = format!("{compression:?}").to_lowercase();
        let (_, read) = runtime.block_on(read(&format!("path = \"data\"\nformat = \"csv\"\ncompression = \"{name}\""), &cx)).expect("rows");
        let mut wanted: Vec<String> = std::iter::repeat_n(&rows, repeat).flatten().map(|(number, word)| format!("{number}|{word}")).collect();
        wanted.sort();
        prop_assert_eq!(read, wanted);
        prop_assert!(kept.0.lock().is_empty());
    }
}
