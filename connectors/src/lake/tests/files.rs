//! Which files of a table are read, and that no row of theirs is lost by what the log says of them.

use std::io::Write;

use arrow::{
    array::*,
    compute::concat_batches,
    datatypes::{DataType, TimeUnit},
};
use datafusion::{
    catalog::TableProvider,
    common::stats::Precision,
    physical_plan::{ExecutionPlan, collect, displayable},
    scalar::ScalarValue,
};
use parquet::{
    basic::Type as PhysicalType,
    data_type::{Int96, Int96Type},
    file::{
        metadata::{PageIndexPolicy, ParquetMetaDataReader},
        properties::WriterProperties,
        writer::SerializedFileWriter,
    },
};
use serde_json::{Value, json};

use super::*;
use crate::lake::files::Files;

/// Microseconds.
const DAY: i64 = 86_400_000_000;

/// Values of one file, in every kind of column that the log has bounds of, and in some that it has none of.
fn various(from: i64, name: &str, special: bool) -> RecordBatch {
    let ids: Vec<i64> = (from..from + 5).collect();
    let nullable = |value: i64| (value % 5 != 3).then_some(value);
    let at = |value: i64| nullable(value).map(|value| value * DAY + 123_456);
    let texts =
        ids.iter().map(|id| nullable(*id).map(|id| format!("{name}{}{id:03}", if special { "x".repeat(100) } else { String::new() })));
    let doubles =
        ids.iter().map(|id| if special { [f64::NAN, -0.0, f64::INFINITY, 0.0, -1.5][(id - from) as usize] } else { *id as f64 / 2.0 });
    batch(vec![
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("small", Arc::new(ids.iter().map(|id| nullable(*id).map(|id| id as i16)).collect::<Int16Array>())),
        ("text", Arc::new(texts.collect::<StringArray>())),
        ("day", Arc::new(ids.iter().map(|id| nullable(*id).map(|id| id as i32)).collect::<Date32Array>())),
        ("at", Arc::new(ids.iter().map(|id| at(*id)).collect::<TimestampMicrosecondArray>())),
        ("zoned", Arc::new(ids.iter().map(|id| at(*id)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        (
            "amount",
            Arc::new(
                ids.iter()
                    .map(|id| Some(i128::from(*id) * 100 + 25))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(9, 2)
                    .expect("it fits"),
            ),
        ),
        (
            "large",
            Arc::new(
                ids.iter()
                    .map(|id| Some(i128::from(*id) * 10_i128.pow(20)))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(38, 2)
                    .expect("it fits"),
            ),
        ),
        ("share", Arc::new(doubles.collect::<Float64Array>())),
        ("paid", Arc::new(ids.iter().map(|id| nullable(*id).map(|id| id % 2 == 0)).collect::<BooleanArray>())),
        ("nothing", Arc::new(StringArray::new_null(ids.len()))),
        ("part", Arc::new(StringArray::from(vec![(!special).then_some(name); ids.len()]))),
    ])
}

async fn opened(lake: &Lake) -> (deltalake::DeltaTable, Arc<dyn TableProvider>) {
    let table = open_table(&lake.path(), &HashMap::new(), "s", "t", Version::Newest).await.expect("opened").expect("a table");
    let provider = provider(&table).await.expect("a provider");
    (table, provider)
}

/// A plan of a statement over the table `t`.
async fn planned(provider: &Arc<dyn TableProvider>, sql: &str) -> (SessionContext, Arc<dyn ExecutionPlan>) {
    let cx = SessionContext::new();
    cx.register_table("t", provider.clone()).expect("registered");
    let plan = cx.sql(sql).await.expect("planned").create_physical_plan().await.expect("planned");
    (cx, plan)
}

fn files_read(plan: &dyn ExecutionPlan) -> usize {
    displayable(plan).indent(false).to_string().matches(".parquet").count()
}

/// A commit by hand.
fn commit(lake: &Lake, version: u64, actions: &[Value]) {
    let path = lake.table_folder().join("_delta_log").join(format!("{version:020}.json"));
    let mut file = std::fs::File::create_new(path).expect("a new commit");
    actions.iter().for_each(|action| writeln!(file, "{action}").expect("written"));
}

/// The actions of a commit, of one kind.
fn actions(lake: &Lake, version: u64, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(lake.table_folder().join("_delta_log").join(format!("{version:020}.json"))).expect("a commit");
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).expect("JSON").get(kind).cloned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_filter_loses_a_row_by_what_the_log_says() {
    let lake = Lake::new();
    let by_part = LakeSink { partition_by: vec!["part".into()], ..sink() };
    let batches = [various(0, "a", false), various(20, "b", false), various(40, "c", true), various(60, "a", false)];
    for (run, rows) in (1..).zip(&batches) {
        publish(&by_part, &cx(&lake.run(run), Mode::Append), rows.clone()).await.expect("published");
    }
    let (table, provider) = opened(&lake).await;
    assert!(Files::of(&table, provider.schema()).is_some(), "{provider:?}");
    let every = concat_batches(&batches[0].schema(), &batches).expect("the same columns");
    let memory: Arc<dyn TableProvider> =
        Arc::new(datafusion::datasource::MemTable::try_new(every.schema(), vec![vec![every]]).expect("a table"));

    let mut filters: Vec<(String, Option<usize>)> = Vec::new();
    for (column, low, high) in [
        ("id", "20", "24"),
        ("small", "cast(20 as smallint)", "cast(24 as smallint)"),
        ("day", "date '1970-01-21'", "date '1970-01-25'"),
        (
            "at",
            "arrow_cast('1970-01-21T00:00:00.123456', 'Timestamp(Microsecond, None)')",
            "arrow_cast('1970-01-25T00:00:00.123456', 'Timestamp(Microsecond, None)')",
        ),
        (
            "zoned",
            "arrow_cast('1970-01-21T00:00:00.123456Z', 'Timestamp(Microsecond, Some(\"UTC\"))')",
            "arrow_cast('1970-01-25T00:00:00.123456Z', 'Timestamp(Microsecond, Some(\"UTC\"))')",
        ),
        ("amount", "20.25", "24.25"),
        ("text", "'b020'", "'b024'"),
    ] {
        // Long texts have no bounds in the log.
        let files = Some(if column == "text" { 2 } else { 1 });
        filters.push((format!("{column} = {low}"), files));
        filters.push((format!("{column} >= {low} and {column} <= {high}"), files));
        filters.push((format!("{column} < {low}"), None));
        filters.push((format!("{column} > {high}"), None));
        filters.push((format!("{column} in ({low}, {high})"), files));
        filters.push((format!("{column} is null"), None));
        filters.push((format!("{column} is not null"), None));
        filters.push((format!("not ({column} = {low})"), None));
    }
    for (filter, files) in [
        ("part = 'a'", Some(2)),
        ("part <> 'a'", Some(1)),
        ("part is null", Some(1)),
        ("part is not null", Some(3)),
        ("part in ('b', 'c')", Some(1)),
        ("part = 'b' or id = 0", Some(2)),
        ("part = 'a' and id > 50", Some(1)),
        ("part > 'zz'", Some(0)),
        ("id = 1000", Some(0)),
        ("id = 20 and nothing is not null", Some(0)),
        ("nothing is null", Some(4)),
        ("nothing = 'x'", None),
        ("share > 1000000", Some(1)),
        ("share = cast('nan' as double)", None),
        ("share < 0.0", None),
        ("share between 10 and 12", Some(2)),
        ("share > 9 and share < 10", Some(1)),
        ("share >= cast('infinity' as double)", None),
        ("large > 2000000000000000000000", None),
        ("paid", None),
        ("not paid", None),
        ("id % 7 = 3 and text like 'b%'", None),
        ("text like '%x%'", None),
        ("text between 'a' and 'b'", None),
        ("length(text) > 50", None),
        ("id = (select max(id) from t where part = 'b')", None),
    ] {
        filters.push((filter.to_owned(), files));
    }
    for (filter, files) in filters {
        let sql = format!("select id, part, paid, share, at from t where {filter} order by id");
        let mut rows = Vec::new();
        for (provider, files) in [(&provider, files), (&memory, None)] {
            let (cx, plan) = planned(provider, &sql).await;
            if let Some(files) = files {
                assert_eq!(files_read(plan.as_ref()), files, "{filter}\n{}", displayable(plan.as_ref()).indent(false));
            }
            let batches = collect(plan, cx.task_ctx()).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
            rows.push(arrow::util::pretty::pretty_format_batches(&batches).expect("shown").to_string());
        }
        let (ours, wanted) = (rows[0].replace("+00:00", "Z"), rows[1].replace("+00:00", "Z"));
        assert_eq!(lines(&ours), lines(&wanted), "{filter}");
    }
}

/// Rows as they are printed, without the frame, which is none where there are no rows.
fn lines(printed: &str) -> Vec<&str> {
    printed.lines().filter(|line| !line.starts_with('+') && !line.contains("| id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_knows_the_columns_and_answers_nothing_by_them_but_the_number_of_rows() {
    let lake = Lake::new();
    for run in 1..=3_i64 {
        publish(&sink(), &cx(&lake.run(run as u32), Mode::Append), various(run * 10, "a", run == 3)).await.expect("published");
    }
    let (_, provider) = opened(&lake).await;
    let known = provider.statistics().expect("statistics");
    let column = |name: &str| &known.column_statistics[provider.schema().index_of(name).expect("a column")];
    let inexact = |value: i64| Precision::Inexact(ScalarValue::Int64(Some(value)));
    assert_eq!(known.num_rows, Precision::Exact(15));
    assert_eq!((&column("id").min_value, &column("id").max_value), (&inexact(10), &inexact(34)));
    assert_eq!(column("small").null_count, Precision::Inexact(3));
    assert!(column("large").max_value.get_value().is_none());
    let read = |sql: &'static str| {
        let provider = provider.clone();
        async move { files_read(planned(&provider, sql).await.1.as_ref()) }
    };
    assert_eq!(read("select count(*) from t").await, 0);
    assert_eq!(read("select min(id), max(id), count(small) from t").await, 3);
    assert_eq!(read("select count(*) from t where id > 15").await, 2);
    assert_eq!(lake.query("select min(id), max(id), count(small) from t", Version::Newest).await, ["10|34|12"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_there_whose_instants_the_log_cuts_off_or_whose_file_it_says_nothing_of() {
    let lake = Lake::new();
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_500, 1_999]).with_timezone("UTC"));
    publish(&sink(), &cx(&lake.run(1), Mode::Append), batch(vec![("at", at)])).await.expect("published");
    let log = lake.table_folder().join("_delta_log").join(format!("{:020}.json", 0));
    let (text, add) = (std::fs::read_to_string(&log).expect("the log"), actions(&lake, 0, "add").remove(0));
    let own = text.lines().find(|line| line.starts_with("{\"add\"")).expect("a file");
    let cut = json!({ "at": "1970-01-01T00:00:00.001Z" });
    let cut = json!({ "numRecords": 2, "minValues": cut, "maxValues": cut, "nullCount": { "at": 0 } });
    for (stats, counted) in [(Value::from(cut.to_string()), 0), (Value::Null, 1)] {
        let mut add = add.clone();
        add["stats"] = stats.clone();
        std::fs::write(&log, text.replace(own, &json!({ "add": add }).to_string())).expect("written");
        let since =
            |micros: u32| format!("select count(*) from t where at >= arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
        assert_eq!(lake.query(&since(1_999), Version::Newest).await, ["1"], "{stats}");
        assert_eq!(lake.query(&since(2_000), Version::Newest).await, ["0"], "{stats}");
        assert_eq!(lake.query("select count(*) from t", Version::Newest).await, ["2"], "{stats}");
        let (_, provider) = opened(&lake).await;
        assert_eq!(files_read(planned(&provider, "select count(*) from t").await.1.as_ref()), counted, "{stats}");
    }
}

/// What Delta's own scan has to read, since the files alone are not the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_vectors_and_mapped_columns_are_left_to_deltas_scan() {
    let lake = Lake::new();
    let rows: Vec<(i64, &str)> = (0..30).map(|id| (id, "a")).collect();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&rows)).await.expect("published");
    let (table, provider) = opened(&lake).await;
    assert!(Files::of(&table, provider.schema()).is_some());
    let mut add = actions(&lake, 0, "add").remove(0);
    let remove = json!({ "path": add["path"], "deletionTimestamp": 1, "dataChange": true, "extendedFileMetadata": false });
    // Rows 3, 4, 7, 11, 18 and 29.
    let vector = json!({ "storageType": "i", "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 44, "cardinality": 6 });
    add["deletionVector"] = vector;
    let features = json!(["deletionVectors"]);
    let protocol = json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features });
    commit(&lake, 1, &[json!({ "protocol": protocol }), json!({ "remove": remove }), json!({ "add": add })]);
    let (table, provider) = opened(&lake).await;
    assert!(Files::of(&table, provider.schema()).is_none());
    assert_eq!(lake.query("select count(*), sum(id) from t", Version::Newest).await, ["24|363"]);
    assert_eq!(lake.query("select count(*) from t where id in (3, 4, 7, 11, 18, 29)", Version::Newest).await, ["0"]);

    let lake = Lake::new();
    publish(&sink(), &cx(&lake.run(1), Mode::Append), people(&[(1, "a"), (2, "b")])).await.expect("published");
    let mut metadata = actions(&lake, 0, "metaData").remove(0);
    let field = |name: &str, physical: &str, kind: &str, id: u8| {
        let mapped = json!({ "delta.columnMapping.id": id, "delta.columnMapping.physicalName": physical });
        json!({ "name": name, "type": kind, "nullable": true, "metadata": mapped })
    };
    let fields = json!({ "type": "struct", "fields": [field("number", "id", "long", 1), field("id", "name", "string", 2)] });
    metadata["schemaString"] = fields.to_string().into();
    metadata["configuration"] = json!({ "delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2" });
    commit(&lake, 1, &[json!({ "protocol": { "minReaderVersion": 2, "minWriterVersion": 5 } }), json!({ "metaData": metadata })]);
    let (table, provider) = opened(&lake).await;
    assert!(Files::of(&table, provider.schema()).is_none());
    assert_eq!(lake.query("select number, id from t where id = 'b'", Version::Newest).await, ["2|b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_of_old_writers_are_read_beyond_the_years_of_nanoseconds() {
    let lake = Lake::new();
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"));
    publish(&sink(), &cx(&lake.run(1), Mode::Append), batch(vec![("at", at)])).await.expect("published");
    // The days of the Julian calendar count from noon; 2,440,588 is the first of 1970.
    let old = [(2_440_588_u32, 1_500_u64), (2_268_924, 0), (2_440_588 + 20_000, 86_399_999_999_000)];
    let schema = Arc::new(parquet::schema::parser::parse_message_type("message m { optional int96 at; }").expect("a schema"));
    assert_eq!(schema.get_fields()[0].get_physical_type(), PhysicalType::INT96);
    let path = lake.table_folder().join("old.parquet");
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(&path).expect("a file"), schema, properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("a column");
    let values: Vec<Int96> = old
        .iter()
        .map(|(day, nanos)| {
            let mut value = Int96::new();
            value.set_data((*nanos & 0xFFFF_FFFF) as u32, (*nanos >> 32) as u32, *day);
            value
        })
        .collect();
    column.typed::<Int96Type>().write_batch(&values, Some(&[1, 1, 1]), None).expect("written");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
    let size = std::fs::metadata(&path).expect("a file").len();
    let add = json!({ "path": "old.parquet", "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": true });
    commit(&lake, 1, &[json!({ "add": add })]);
    let (table, provider) = opened(&lake).await;
    assert!(Files::of(&table, provider.schema()).is_some());
    assert_eq!(provider.schema().field(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let found = lake.rows().await;
    assert_eq!(found, ["1500-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00Z", "2024-10-04T23:59:59.999999Z"]);
    assert_eq!(
        lake.query(
            "select count(*) from t where at < arrow_cast('1600-01-01T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')",
            Version::Newest
        )
        .await,
        ["1"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_small_groups_and_pages_and_dictionaries_where_values_repeat() {
    let lake = Lake::new();
    let mixed = |value: u64| value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let part = |from: u64| {
        let rows = from..from + 8192;
        batch(vec![
            ("id", Arc::new(rows.clone().map(mixed).map(u64::cast_signed).collect::<Int64Array>())),
            ("kind", Arc::new(rows.clone().map(|row| Some(["one", "two", "three"][row as usize % 3])).collect::<StringArray>())),
            ("text", Arc::new(rows.map(|row| Some(format!("{:016x}{:016x}", mixed(row), mixed(!row)))).collect::<StringArray>())),
        ])
    };
    let load = stage(&sink(), &cx(&lake.run(1), Mode::Append), (0..80).map(|index| part(index * 8192)).collect()).await.expect("staged");
    load.seal().await.expect("sealed");
    load.publish().await.expect("published");
    assert_eq!(lake.query("select count(distinct id), count(distinct text) from t", Version::Newest).await, ["655360|655360"]);
    let mut groups = 0;
    for path in lake.data_files() {
        let file = std::fs::File::open(Path::new(&lake.path()).join(path)).expect("a file");
        let metadata =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required).parse_and_finish(&file).expect("read");
        let pages = metadata.offset_index().expect("an index of pages");
        for (group, pages) in metadata.row_groups().iter().zip(pages) {
            groups += 1;
            assert!(group.compressed_size() < 5 << 20, "{}", group.compressed_size());
            let has: Vec<bool> = group.columns().iter().map(|column| column.dictionary_page_offset().is_some()).collect();
            assert_eq!(has, [false, true, false]);
            let (bytes, count) = (group.column(2).uncompressed_size(), pages[2].page_locations().len() as i64);
            assert!(bytes <= count * (320 << 10), "{bytes} bytes of text in {count} pages");
        }
    }
    assert!(groups > 2, "{groups}");
}
