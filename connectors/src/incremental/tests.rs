//! Runs after runs over a table that changes meanwhile, and what is refused.

use std::sync::Arc;

use arrow::{
    array::{Date32Array, Int64Array, StringArray, TimestampMillisecondArray},
    compute::concat_batches,
    datatypes::{Field, SchemaRef},
};
use proptest::prelude::*;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

fn rows(rows: &[(i64, i64, &str)]) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.1)).collect::<TimestampMillisecondArray>().with_timezone("UTC")),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<StringArray>()),
        ],
    )
    .expect("rows")
}

fn cursor(column: &str, lag_ms: u64, start: Option<&str>) -> Incremental {
    Incremental::Cursor { column: column.into(), lag: Duration::from_millis(lag_ms), start: start.map(Into::into) }
}

fn reader(incremental: &Incremental, seen: &BTreeMap<String, String>) -> CursorReader {
    CursorReader::new(incremental, &schema(), seen).expect("a reader")
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// Reads a table as a server would answer: what is not below the bound, in batches.
fn run(table: &[(i64, i64, &str)], reader: &CursorReader, batch_rows: usize) -> Result<Vec<i64>> {
    let lower = match reader.lower() {
        Some(ScalarValue::TimestampMillisecond(Some(lower), Some(_))) => lower,
        None => i64::MIN,
        other => panic!("{other:?}"),
    };
    let answer: Vec<_> = table.iter().filter(|row| row.1 >= lower).copied().collect();
    let mut passed = Vec::new();
    for batch in answer.chunks(batch_rows) {
        passed.extend(ids(&reader.pass(&rows(batch))?));
    }
    reader.finish()?;
    Ok(passed)
}

fn error(result: Result<impl Sized>) -> (String, String, String) {
    let error = result.err().expect("refused");
    (error.code.to_owned(), error.message, error.help.unwrap_or_default())
}

proptest! {
    /// Rows appear between runs in any order. Each passes once if it was not later than the lag when it was first read, and never twice.
    #[test]
    fn every_row_passes_once(
        lags in proptest::collection::vec(0..20_u64, 1..6),
        arrivals in proptest::collection::vec((0..6_usize, 0..60_i64, 0..4_usize), 0..60),
        shuffle in any::<u64>(),
        batch_rows in 1..9_usize,
        fails in proptest::collection::vec(any::<bool>(), 6),
        start in proptest::option::of(0..30_i64),
        limit in 20..200_usize,
    ) {
        const NOTES: [&str; 4] = ["a", "b", "a", "c"];
        let start_text = start.map(|ms| format!("1970-01-01T00:00:00.{ms:03}Z"));
        let (mut table, mut seen, mut passed, mut expected) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        // Where the guarantee starts: nothing below was promised to be looked at.
        let mut position: Option<(i64, i64)> = None;
        for (number, lag) in lags.iter().enumerate() {
            let promised_from = match position {
                None => start.unwrap_or(i64::MIN),
                Some((position, since)) => since.max(position - *lag as i64),
            };
            for (_, at, note) in arrivals.iter().filter(|(when, _, _)| *when == number) {
                // One id for a fingerprint: rows alike are counted together.
                let id = at * 10 + (NOTES[*note].as_bytes()[0] - b'a') as i64;
                table.push((id, *at, NOTES[*note]));
            }
            table.sort_by_key(|row| (row.0 as u64).wrapping_mul(shuffle | 1));
            let incremental = cursor("at", *lag, start_text.as_deref());
            let mut reader = reader(&incremental, &seen);
            reader.limit = limit.max(60);
            let read = run(&table, &reader, batch_rows).expect("within the limit");
            if fails[number] {
                continue;
            }
            read.iter().for_each(|id| *passed.entry(*id).or_insert(0) += 1);
            for (id, at, _) in table.iter().filter(|row| row.1 >= promised_from) {
                let there = table.iter().filter(|row| row.0 == *id).count();
                let before = expected.entry(*id).or_insert(0);
                let _ = at;
                *before = there.max(*before);
            }
            prop_assert_eq!(&passed, &expected, "run {}", number);
            seen.extend(reader.entries());
            let read_max = table.iter().filter(|row| row.1 >= promised_from).map(|row| row.1).max();
            if let Some(max) = read_max {
                let max = position.map_or(max, |(position, _)| position.max(max));
                position = Some((max, promised_from.max(max - *lag as i64)));
            }
        }
    }
}

#[test]
fn streams_share_one_position() {
    let incremental = cursor("at", 5, None);
    let reader = Arc::new(reader(&incremental, &BTreeMap::new()));
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let reader = reader.clone();
            scope.spawn(move || {
                for at in 0..100 {
                    reader.pass(&rows(&[(thread, at * 4 + thread, "x")])).expect("passes");
                }
            });
        }
    });
    reader.finish().expect("finishes");
    let next = self::reader(&incremental, &reader.entries());
    assert_eq!(next.lower(), Some(ScalarValue::TimestampMillisecond(Some(394), Some("UTC".into()))));
    let all: Vec<_> = (0..400).map(|at| (at % 4, at, "x")).chain([(9, 396, "late"), (9, 399, "x")]).collect();
    assert_eq!(run(&all, &next, 7).expect("reads"), [9, 9]);
}

#[test]
fn a_run_that_is_not_read_to_its_end_moves_nothing() {
    let incremental = cursor("at", 0, None);
    let first = reader(&incremental, &BTreeMap::new());
    first.pass(&rows(&[(1, 10, "x")])).expect("passes");
    assert_eq!(first.entries(), BTreeMap::new());
    first.finish().expect("finishes");
    let seen = first.entries();
    let second = reader(&incremental, &seen);
    second.pass(&rows(&[(2, 20, "x")])).expect("passes");
    assert_eq!(second.entries(), seen);
}

#[test]
fn a_run_without_rows_keeps_what_was_remembered() {
    let incremental = cursor("at", 3, None);
    let first = reader(&incremental, &BTreeMap::new());
    assert_eq!(run(&[(1, 10, "x"), (2, 8, "y")], &first, 8).expect("reads"), [1, 2]);
    let second = reader(&incremental, &first.entries());
    assert_eq!(run(&[], &second, 8).expect("reads"), Vec::<i64>::new());
    assert_eq!(second.entries(), first.entries());
    // Rows come back after an empty answer: they are still known.
    let third = reader(&incremental, &second.entries());
    assert_eq!(run(&[(1, 10, "x"), (2, 8, "y"), (3, 8, "y")], &third, 8).expect("reads"), [3]);
}

#[test]
fn a_changed_row_with_the_same_cursor_is_another_version() {
    let incremental = cursor("at", 0, None);
    let first = reader(&incremental, &BTreeMap::new());
    run(&[(1, 10, "x")], &first, 8).expect("reads");
    assert_eq!(run(&[(1, 10, "changed")], &reader(&incremental, &first.entries()), 8).expect("reads"), [1]);
}

#[test]
fn a_null_cursor_is_refused() {
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(TimestampMillisecondArray::from(vec![None]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec!["x"])),
        ],
    );
    let refused = error(reader(&cursor("at", 0, None), &BTreeMap::new()).pass(&batch.expect("a row")));
    assert_eq!(refused.0, "null-cursor");
    assert_eq!(refused.1, "column \"at\" is null in a row, so the row has no place to be read by");
    assert_eq!(refused.2, "fill it, or write a \"query\" with: where \"at\" is not null");
}

#[test]
fn too_many_rows_within_the_lag_are_refused_and_a_burst_that_is_over_is_not() {
    let burst: Vec<_> = (0..300).map(|id| (id, 10, "x")).collect();
    let mut full = reader(&cursor("at", 0, None), &BTreeMap::new());
    full.limit = 100;
    let refused = error(run(&burst, &full, 64));
    assert_eq!(refused.0, "cursor-window");
    assert_eq!(refused.1, "more than 100 rows have a \"at\" within the lag of the latest, too many to be known again");
    assert_eq!(refused.2, "make \"lag\" shorter, or choose a cursor that tells rows apart more finely");
    let mut over = reader(&cursor("at", 0, None), &BTreeMap::new());
    over.limit = 100;
    let later: Vec<_> = burst.iter().copied().chain([(300, 11, "x")]).collect();
    assert_eq!(run(&later, &over, 64).expect("reads").len(), 301);
    assert_eq!(run(&later, &reader(&cursor("at", 0, None), &over.entries()), 64).expect("reads"), Vec::<i64>::new());
}

#[test]
fn what_cannot_be_read_by_is_refused() {
    let none = BTreeMap::new();
    let new = |incremental: &Incremental, data_type: DataType| {
        CursorReader::new(incremental, &Schema::new(vec![Field::new("at", data_type, true)]), &none)
    };
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let naive = DataType::Timestamp(TimeUnit::Second, None);
    for (incremental, data_type, code, message) in [
        (cursor("on", 0, None), DataType::Int64, "cursor-missing", "no column \"on\" to read by"),
        (cursor("at", 0, None), DataType::Float64, "cursor-type", "column \"at\" is Float64, which cannot be a cursor"),
        (cursor("at", 0, None), DataType::Utf8, "cursor-type", "column \"at\" is Utf8, which cannot be a cursor"),
        (cursor("at", 1, None), DataType::Int64, "cursor-lag", "the cursor \"at\" is Int64, which no \"lag\" can be taken from"),
        (cursor("at", 1, None), DataType::Date32, "cursor-lag", "the cursor \"at\" is a date, and \"lag\" is no whole number of days"),
        (cursor("at", 0, Some("1.0")), DataType::Int64, "wrong-start", "\"start\" is \"1.0\", and the cursor \"at\" is Int64"),
        (cursor("at", 0, Some("300")), DataType::UInt8, "wrong-start", "\"start\" is \"300\", and the cursor \"at\" is UInt8"),
        (cursor("at", 0, Some("2020-1-1")), DataType::Date32, "wrong-start", "\"start\" is \"2020-1-1\", and the cursor \"at\" is Date32"),
        (
            cursor("at", 0, Some("2020-01-01T00:00:00")),
            zoned,
            "wrong-start",
            "\"start\" is \"2020-01-01T00:00:00\", and the cursor \"at\" is Timestamp(µs, \"UTC\")",
        ),
        (
            cursor("at", 0, Some("2020-01-01T00:00:00.5")),
            naive,
            "wrong-start",
            "\"start\" is \"2020-01-01T00:00:00.5\", and the cursor \"at\" is Timestamp(s)",
        ),
        (
            cursor("at", 0, Some("1.234")),
            DataType::Decimal128(9, 2),
            "wrong-start",
            "\"start\" is \"1.234\", and the cursor \"at\" is Decimal128(9, 2)",
        ),
        (Incremental::Files, DataType::Int64, "incremental-unsupported", "this source has no files"),
    ] {
        let refused = error(new(&incremental, data_type));
        assert_eq!((refused.0.as_str(), refused.1.as_str()), (code, message));
        assert!(!refused.2.is_empty(), "{message}: says what to do");
    }
}

#[test]
fn a_start_is_read_by_its_columns_type() {
    let at = |data_type: DataType, start: &str, lag_ms: u64| {
        let schema = Schema::new(vec![Field::new("at", data_type, true)]);
        CursorReader::new(&cursor("at", lag_ms, Some(start)), &schema, &BTreeMap::new()).expect("a reader").lower().expect("a bound")
    };
    assert_eq!(at(DataType::Int64, "-7", 0), ScalarValue::Int64(Some(-7)));
    assert_eq!(at(DataType::UInt64, "18446744073709551615", 0), ScalarValue::UInt64(Some(u64::MAX)));
    // The lag is taken from positions, never from a start.
    assert_eq!(at(DataType::Date32, "1970-01-03", 86_400_000), ScalarValue::Date32(Some(2)));
    assert_eq!(at(DataType::Decimal128(9, 2), "-1.5", 0), ScalarValue::Decimal128(Some(-150), 9, 2));
    let zone = || Some("UTC".into());
    assert_eq!(
        at(DataType::Timestamp(TimeUnit::Second, zone()), "1970-01-01T02:00:01+02:00", 0),
        ScalarValue::TimestampSecond(Some(1), zone())
    );
    assert_eq!(
        at(DataType::Timestamp(TimeUnit::Microsecond, None), "1969-12-31T23:59:59.5", 0),
        ScalarValue::TimestampMicrosecond(Some(-500_000), None)
    );
}

#[test]
fn a_position_minus_lag_stays_within_the_type() {
    let schema = Arc::new(Schema::new(vec![Field::new("day", DataType::Date32, false)]));
    let incremental = cursor("day", 36_525 * 86_400_000, None);
    let first = CursorReader::new(&incremental, &schema, &BTreeMap::new()).expect("a reader");
    first.pass(&RecordBatch::try_new(schema.clone(), vec![Arc::new(Date32Array::from(vec![i32::MIN]))]).expect("a row")).expect("passes");
    first.finish().expect("finishes");
    let next = CursorReader::new(&incremental, &schema, &first.entries()).expect("a reader");
    assert_eq!(next.lower(), Some(ScalarValue::Date32(Some(i32::MIN))));
}

#[test]
fn another_cursor_than_before_is_explained() {
    let first = reader(&cursor("at", 0, None), &BTreeMap::new());
    run(&[(1, 10, "x")], &first, 8).expect("reads");
    let seen = first.entries();
    let changed = |column: &str, fields: Vec<Field>| error(CursorReader::new(&cursor(column, 0, None), &Schema::new(fields), &seen));
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let (id, note) = (field("id", DataType::Int64), field("note", DataType::Utf8));
    let at = field("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
    let micros = field("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    for (got, message) in [
        (changed("id", vec![id.clone(), at.clone(), note.clone()]), "runs so far read by \"at\", and now the cursor is \"id\""),
        (
            changed("at", vec![id.clone(), micros, note.clone()]),
            "the cursor \"at\" was of type timestamp(ms, zone), and now it is of type timestamp(us, zone)",
        ),
        (
            changed("at", vec![field("id", DataType::Utf8), at.clone(), note.clone()]),
            "column \"id\" was Int64, and now it is Utf8: rows loaded before cannot be known again",
        ),
        (changed("at", vec![id.clone(), at.clone()]), "column \"note\" is gone, without which rows loaded before cannot be known again"),
    ] {
        assert_eq!((got.0.as_str(), got.1.as_str()), ("cursor-changed", message));
        assert_eq!(got.2, "change it back, or read everything anew, once: weir run PIPELINE --full-refresh");
    }
    // A column that came since is no change.
    let wider = Schema::new(vec![id, at, note, field("new", DataType::Int64)]);
    let next = CursorReader::new(&cursor("at", 0, None), &wider, &seen).expect("a reader");
    assert_eq!(next.needs().collect::<Vec<_>>(), ["at", "id", "note"]);
    assert_eq!(ids(&next.pass(&rows(&[(1, 10, "x"), (2, 10, "x")])).expect("passes")), [2]);
}

#[test]
fn what_is_written_down_stays_readable() {
    let first = reader(&cursor("at", 0, None), &BTreeMap::new());
    run(&[(1, 10, "x"), (2, 9, "y")], &first, 8).expect("reads");
    let entries = first.entries();
    assert_eq!(
        entries["cursor"],
        "{\"version\":1,\"column\":\"at\",\"type\":\"timestamp(ms, zone)\",\"position\":\"10\",\"since\":\"10\",\
         \"identity\":[[\"at\",\"Timestamp(ms, \\\"UTC\\\")\"],[\"id\",\"Int64\"],[\"note\",\"Utf8\"]]}"
    );
    // Another way to make fingerprints needs another VERSION, or rows of the lag are loaded again.
    assert_eq!(entries["loaded"], "CgAAAAAAAAAAAAAAAAAAAACYRY8PHkc0zpA-dJLnB1gkAQ");
    let damaged = BTreeMap::from([("cursor".to_owned(), "{}".to_owned())]);
    assert_eq!(error(CursorReader::new(&cursor("at", 0, None), &schema(), &damaged)).0, "cursor-state");
}

#[test]
fn batches_pass_whole_where_nothing_is_taken_out() {
    let reader = reader(&cursor("at", 0, None), &BTreeMap::new());
    let (a, b) = (rows(&[(1, 1, "x")]), rows(&[(2, 2, "y")]));
    let passed = [reader.pass(&a).expect("passes"), reader.pass(&b).expect("passes")];
    assert_eq!(concat_batches(&schema(), &passed).expect("one"), rows(&[(1, 1, "x"), (2, 2, "y")]));
    assert_eq!(reader.pass(&a.slice(0, 0)).expect("passes").num_rows(), 0);
}
