//! What results look like in each format.

use std::sync::Arc;

use arrow::{
    array::{BinaryArray, Float64Array, Int64Array, ListArray, StringArray},
    datatypes::Int64Type,
};

use super::*;

fn sample() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("carrier", DataType::Utf8, true),
        Field::new("flights", DataType::Int64, true),
        Field::new("delay", DataType::Float64, true),
        Field::new("days", DataType::new_list(DataType::Int64, true), true),
        Field::new("key", DataType::Binary, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from(vec![Some("U\"A, \u{1b}[1m"), None])),
            Arc::new(Int64Array::from(vec![Some(58_665), Some(7)])),
            Arc::new(Float64Array::from(vec![Some(3.5), None])),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None])),
            Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None])),
        ],
    )
    .expect("columns fit the schema")
}

fn written(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RowsWriter::new(&mut out, format, &sample().schema(), Style::PLAIN).expect("starts");
    for batch in batches {
        writer.write(batch).expect("writes");
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(writer.finish().expect("ends"), rows as u64);
    out
}

fn text(format: Format, batches: &[RecordBatch]) -> String {
    String::from_utf8(written(format, batches)).expect("is text")
}

#[test]
fn a_table_sets_numbers_right_and_escapes_control_characters() {
    assert_eq!(
        text(Format::Table, &[sample()]),
        concat!(
            " carrier        | flights | delay | days     | key\n",
            "----------------+---------+-------+----------+------\n",
            " U\"A, \\u{1b}[1m |   58665 |   3.5 | [1,null] | 00ff\n",
            " NULL           |       7 |  NULL | NULL     | NULL\n",
            "(2 rows)\n"
        )
    );
}

#[test]
fn an_empty_result_still_has_its_header() {
    assert_eq!(text(Format::Table, &[]), " carrier | flights | delay | days | key\n---------+---------+-------+------+-----\n(0 rows)\n");
    assert_eq!(text(Format::Csv, &[]), "carrier,flights,delay,days,key\n");
    assert_eq!(text(Format::Json, &[]), "[]\n");
    assert_eq!(text(Format::Ndjson, &[]), "");
}

#[test]
fn csv_quotes_and_writes_lists_as_json() {
    assert_eq!(
        text(Format::Csv, &[sample()]),
        "carrier,flights,delay,days,key\n\"U\"\"A, \u{1b}[1m\",58665,3.5,\"[1,null]\",00ff\n,7,,,\n"
    );
}

#[test]
fn json_says_null_and_holds_one_array_for_all_batches() {
    let rows: serde_json::Value = serde_json::from_str(&text(Format::Json, &[sample(), sample()])).expect("is JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(4));
    assert_eq!(rows[1], serde_json::json!({"carrier": null, "flights": 7, "delay": null, "days": null, "key": null}));
    let lines = text(Format::Ndjson, &[sample(), sample()]);
    assert_eq!(lines.lines().count(), 4);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|row| row.is_object())), "{lines}");
}

#[test]
fn parquet_gives_the_rows_back() {
    let bytes = written(Format::Parquet, &[sample()]);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes::Bytes::from(bytes), 1024).expect("is Parquet");
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("reads");
    assert_eq!(batches, [sample()]);
}

#[test]
fn a_long_table_is_drawn_piece_by_piece_and_whole() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(0..2_500))]).expect("fits");
    let mut out = Vec::new();
    let mut writer = RowsWriter::new(&mut out, Format::Table, &schema, Style::PLAIN).expect("starts");
    writer.write(&batch).expect("writes");
    writer.finish().expect("ends");
    let text = String::from_utf8(out).expect("is text");
    assert_eq!(text.lines().count(), 2_500 + 3);
    assert!(text.ends_with(" 2499\n(2,500 rows)\n"));
}

/// An output that breaks after some bytes, as a pipe into `head` does.
struct Broken(usize);
impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 < bytes.len() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_pipe_is_told_apart_in_every_format() {
    for format in [Format::Table, Format::Csv, Format::Json, Format::Ndjson, Format::Parquet, Format::Markdown] {
        for room in [0, 10, 60] {
            let result = RowsWriter::new(Broken(room), format, &sample().schema(), Style::PLAIN).and_then(|mut writer| {
                writer.write(&sample())?;
                writer.finish()
            });
            assert!(
                matches!(&result, Err(WriteError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe),
                "{format:?} with room for {room} bytes: {result:?}"
            );
        }
    }
}

#[test]
fn a_file_name_asks_for_a_format() {
    let of = |name: &str| Format::of_path(std::path::Path::new(name));
    assert_eq!(of("a/b.CSV"), Some(Format::Csv));
    assert_eq!(of("b.jsonl"), Some(Format::Ndjson));
    assert_eq!(of("b.parquet"), Some(Format::Parquet));
    assert_eq!(of("b.xyz"), None);
    assert_eq!(of("b"), None);
}
