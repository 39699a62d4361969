//! A Parquet file whose columns are encoded and packed on several threads at once: encoding is most of the work of writing a file, and one thread
//! alone would hold up all who bring rows.

use std::{io::Write, thread};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use parking_lot::Mutex;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{ArrowColumnWriter, ArrowLeafColumn, ArrowRowGroupWriterFactory, compute_leaves},
    },
    errors::{ParquetError, Result},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
};

/// Rows per row group.
const GROUP_ROWS: usize = 1 << 20;
/// A row group ends before it holds more than this in memory.
const GROUP_BYTES: usize = 32 << 20;
/// Rows that are encoded together: columns take turns that differ in length, and at the end of each all wait for the longest.
const TURN_ROWS: usize = 64 << 10;
/// A turn comes before rows that wait hold more than this in memory.
const TURN_BYTES: usize = 8 << 20;

/// Writes one file.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// Batches that wait for their turn, their rows and bytes.
    waiting: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// The columns of the row group under way, and its rows.
    group: Option<(Vec<ArrowColumnWriter>, usize)>,
    threads: usize,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Starts a file of these columns.
    pub fn new(out: W, schema: &SchemaRef, properties: WriterProperties, threads: usize) -> Result<Self> {
        let (file, factory) = ArrowWriter::try_new(out, schema.clone(), Some(properties))?.into_serialized_writer()?;
        Ok(Self { file, factory, schema: schema.clone(), waiting: Vec::new(), rows: 0, bytes: 0, group: None, threads })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let group_rows = self.group.as_ref().map_or(0, |(_, rows)| *rows);
            let count = (batch.num_rows() - from).min(GROUP_ROWS - group_rows - self.rows);
            let rows = batch.slice(from, count);
            from += count;
            self.rows += count;
            self.bytes += rows.columns().iter().map(weight).sum::<usize>();
            self.waiting.push(rows);
            if group_rows + self.rows == GROUP_ROWS || self.rows >= TURN_ROWS || self.bytes >= TURN_BYTES {
                self.turn()?;
            }
        }
        Ok(())
    }

    /// Encodes what waits.
    fn turn(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.waiting);
        let count = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if count == 0 {
            return Ok(());
        }
        let (mut columns, rows) = match self.group.take() {
            Some(group) => group,
            None => (self.factory.create_column_writers(self.file.flushed_row_groups().len())?, 0),
        };
        let mut leaves: Vec<(usize, Vec<ArrowLeafColumn>)> = columns.iter().map(|_| (0, Vec::with_capacity(batches.len()))).collect();
        for batch in &batches {
            let mut next = leaves.iter_mut();
            for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
                for (leaf, (bytes, of_column)) in compute_leaves(field, column)?.into_iter().zip(&mut next) {
                    *bytes += weight(column);
                    of_column.push(leaf);
                }
            }
        }
        // The heaviest first, so that none of them is left for the end.
        let mut work: Vec<_> = columns.iter_mut().zip(leaves).collect();
        work.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
        each(self.threads, work.into_iter(), |(column, (_, leaves))| leaves.iter().try_for_each(|leaf| column.write(leaf)))?;
        let (memory, bytes) = columns
            .iter()
            .fold((0, 0), |(memory, bytes), column| (memory + column.memory_size(), bytes + column.get_estimated_total_bytes()));
        self.group = Some((columns, rows + count));
        if rows + count >= GROUP_ROWS || memory.max(bytes) > GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let Some((columns, _)) = self.group.take() else { return Ok(()) };
        let chunks = each(self.threads, columns.into_iter(), ArrowColumnWriter::close)?;
        let mut group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close().map(drop)
    }

    /// Ends the file, and says how many rows its footer tells of.
    pub fn finish(mut self) -> Result<i64> {
        self.turn()?;
        self.end_group()?;
        Ok(self.file.close()?.file_metadata().num_rows())
    }
}

/// About the bytes of a column's rows.
fn weight(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

/// Does the same with each of some things, on several threads; the results are in their order.
fn each<T: Send, R: Send>(
    threads: usize,
    things: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let helpers = threads.min(things.len()).saturating_sub(1);
    let (things, done) = (Mutex::new(things.enumerate()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let next = things.lock().next();
            let Some((at, thing)) = next else { return Ok(()) };
            let result = work(thing)?;
            done.lock().push((at, result));
        }
    };
    thread::scope(|scope| {
        // A thread that cannot be had is no harm: the others do its share.
        let helpers: Vec<_> = (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = work();
        let panicked = |_| Err(ParquetError::General("encoding a column panicked".to_owned()));
        helpers.into_iter().map(|helper| helper.join().unwrap_or_else(panicked)).fold(own, Result::and)
    })?;
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, ListArray, StringArray, StructArray},
        datatypes::{DataType, Field, Int64Type, Schema},
    };
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn rows(from: i64, count: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new((from..from + count).map(|n| (n % 7 != 3).then_some(n)).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new((from..from + count).map(|n| Some(format!("text {}", n % 100))).collect::<StringArray>());
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            (from..from + count).map(|n| (n % 5 != 0).then(|| (0..n % 4).map(Some).collect::<Vec<_>>())),
        ));
        let inner = Arc::new(Field::new("n", DataType::Int64, true));
        let records: ArrayRef = Arc::new(StructArray::from(vec![(inner, numbers.clone())]));
        RecordBatch::try_from_iter_with_nullable([
            ("numbers", numbers, true),
            ("texts", texts, true),
            ("lists", lists, true),
            ("records", records, true),
        ])
        .expect("a batch")
    }

    #[test]
    fn a_file_is_the_same_whatever_the_threads_and_has_all_rows_in_their_order() {
        let batches: Vec<RecordBatch> = (0..150).map(|at| rows(at * 8_000, if at % 10 == 0 { 500 } else { 8_000 })).collect();
        let whole = arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one batch");
        let mut files = Vec::new();
        for threads in [1, 3] {
            let mut out = Vec::new();
            let mut writer = ParquetWriter::new(&mut out, &batches[0].schema(), WriterProperties::default(), threads).expect("a writer");
            for batch in &batches {
                writer.write(batch).expect("written");
            }
            assert_eq!(writer.finish().expect("finished"), whole.num_rows() as i64);
            files.push(Bytes::from(out));
        }
        assert_eq!(files[0], files[1]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(files.remove(0)).expect("a file");
        assert!(reader.metadata().num_row_groups() >= 2, "{}", reader.metadata().num_row_groups());
        assert_eq!(reader.schema(), &whole.schema());
        let read: Vec<RecordBatch> = reader.build().expect("a reader").collect::<std::result::Result<_, _>>().expect("read");
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &read).expect("one batch"), whole);
    }

    #[test]
    fn a_file_without_rows_has_its_columns() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let mut out = Vec::new();
        let mut writer = ParquetWriter::new(&mut out, &schema, WriterProperties::default(), 2).expect("a writer");
        writer.write(&RecordBatch::new_empty(schema.clone())).expect("written");
        assert_eq!(writer.finish().expect("finished"), 0);
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).expect("a file");
        assert_eq!((reader.schema(), reader.metadata().file_metadata().num_rows()), (&schema, 0));
    }
}
