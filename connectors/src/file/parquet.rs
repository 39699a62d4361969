//! A Parquet file each of whose columns is encoded and packed by a task of its own, while the next rows are on their way: encoding is most of the
//! work of writing a file, and one thread alone would hold up all who bring rows.

use std::io::Write;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::Encoding,
    errors::{ParquetError, Result},
    file::{properties::WriterPropertiesBuilder, writer::SerializedFileWriter},
    schema::types::ColumnPath,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::repeats::Repeats;

/// Rows that tell which columns repeat their values, and the most bytes of them that wait for that.
const SAMPLE: (usize, usize) = (64 << 10, 8 << 20);
/// Rows per row group.
const GROUP_ROWS: usize = 1 << 20;
/// Batches that wait for a column's task.
const QUEUE: usize = 2;

/// Writes one file. Who drops it midway ends its tasks.
pub struct ParquetWriter<W: Write + Send> {
    stage: Option<Stage<W>>,
    schema: SchemaRef,
    /// A row group ends before it has taken more than this: what is held of it is as a rule less, being encoded and packed.
    group_bytes: usize,
    delta_encodings: bool,
}

#[expect(clippy::large_enum_variant, reason = "there is one writer to a file")]
enum Stage<W: Write + Send> {
    /// The first rows wait, with their number and bytes.
    Sampling {
        out: W,
        properties: WriterPropertiesBuilder,
        waiting: Vec<RecordBatch>,
        rows: usize,
        bytes: usize,
    },
    Writing(Box<Writing<W>>),
}

struct Writing<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    groups: usize,
    group: Option<Group>,
    /// The group before, while its columns are brought to their end.
    ending: Option<Ending>,
}

/// A row group under way: the ways to its columns, the rows and bytes it has taken.
struct Group {
    columns: Vec<mpsc::Sender<ArrowLeafColumn>>,
    tasks: Ending,
    rows: usize,
    bytes: usize,
}

/// The columns of a row group, with their places, in the order in which they end.
#[derive(Default)]
struct Ending {
    tasks: JoinSet<(usize, Result<ArrowColumnChunk>)>,
    ended: Vec<(usize, ArrowColumnChunk)>,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Starts a file of these columns. A row group takes rows of no more than `group_bytes`; what does not repeat is plain without `delta_encodings`.
    pub fn new(out: W, schema: &SchemaRef, properties: WriterPropertiesBuilder, group_bytes: usize, delta_encodings: bool) -> Self {
        let stage = Stage::Sampling { out, properties, waiting: Vec::new(), rows: 0, bytes: 0 };
        Self { stage: Some(stage), schema: schema.clone(), group_bytes, delta_encodings }
    }

    /// Adds rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.stage {
            Some(Stage::Sampling { waiting, rows, bytes, .. }) => {
                waiting.push(batch.clone());
                *rows += batch.num_rows();
                *bytes += weight(batch);
                if *rows >= SAMPLE.0 || *bytes >= SAMPLE.1 {
                    self.begin().await?;
                }
                Ok(())
            }
            Some(Stage::Writing(writing)) => writing.write(batch, &self.schema, self.group_bytes).await,
            None => Err(ParquetError::General("the file could not be begun".to_owned())),
        }
    }

    /// Goes on to writing, by what the rows so far say of their columns.
    async fn begin(&mut self) -> Result<&mut Writing<W>> {
        if let Some(Stage::Sampling { out, mut properties, waiting, .. }) =
            self.stage.take_if(|stage| matches!(stage, Stage::Sampling { .. }))
        {
            for (at, field) in self.schema.fields().iter().enumerate() {
                if !Repeats::of(waiting.iter().map(|batch| batch.column(at))).pay() {
                    let column = ColumnPath::new(vec![field.name().clone()]);
                    if let Some(encoding) = encoding(field.data_type()).filter(|_| self.delta_encodings) {
                        properties = properties.set_column_encoding(column.clone(), encoding);
                    }
                    properties = properties.set_column_dictionary_enabled(column, false);
                }
            }
            let (file, factory) = ArrowWriter::try_new(out, self.schema.clone(), Some(properties.build()))?.into_serialized_writer()?;
            let mut writing = Box::new(Writing { file, factory, groups: 0, group: None, ending: None });
            for batch in &waiting {
                writing.write(batch, &self.schema, self.group_bytes).await?;
            }
            self.stage = Some(Stage::Writing(writing));
        }
        match &mut self.stage {
            Some(Stage::Writing(writing)) => Ok(writing),
            _ => Err(ParquetError::General("the file could not be begun".to_owned())),
        }
    }

    /// Ends the file, and says how many rows its footer tells of.
    pub async fn finish(mut self) -> Result<i64> {
        let writing = self.begin().await?;
        let last = writing.group.take().map(Group::end);
        writing.append().await?;
        writing.ending = last;
        writing.append().await?;
        Ok(writing.file.finish()?.file_metadata().num_rows())
    }
}

impl<W: Write + Send> Writing<W> {
    async fn write(&mut self, batch: &RecordBatch, schema: &SchemaRef, group_bytes: usize) -> Result<()> {
        if let Some(ending) = &mut self.ending
            && ending.has_ended()?
        {
            self.append().await?;
        }
        let mut from = 0;
        while from < batch.num_rows() {
            let mut group = match self.group.take() {
                Some(group) => group,
                None => self.begin()?,
            };
            let count = (batch.num_rows() - from).min(GROUP_ROWS - group.rows);
            let rows = batch.slice(from, count);
            from += count;
            group.rows += count;
            group.bytes += weight(&rows);
            match group.write(&rows, schema).await {
                Ok(()) => {}
                Err(Some(error)) => return Err(error),
                Err(None) => return Err(group.failure().await),
            }
            if group.rows == GROUP_ROWS || group.bytes >= group_bytes {
                let ending = group.end();
                // One group ends while another is begun, and no more than one.
                self.append().await?;
                self.ending = Some(ending);
            } else {
                self.group = Some(group);
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<Group> {
        let writers = self.factory.create_column_writers(self.groups)?;
        self.groups += 1;
        let mut tasks = Ending::default();
        let columns = writers.into_iter().enumerate().map(|(at, writer)| {
            let (sender, leaves) = mpsc::channel(QUEUE);
            tasks.tasks.spawn(async move { (at, encode(writer, leaves).await) });
            sender
        });
        Ok(Group { columns: columns.collect(), tasks, rows: 0, bytes: 0 })
    }

    /// Puts the group that ends into the file.
    async fn append(&mut self) -> Result<()> {
        let Some(ending) = self.ending.take() else { return Ok(()) };
        let chunks = ending.chunks().await?;
        let mut group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close().map(drop)
    }
}

impl Group {
    /// Hands each column its part of some rows; an error without words is one of a column's task.
    async fn write(&mut self, rows: &RecordBatch, schema: &SchemaRef) -> Result<(), Option<ParquetError>> {
        let mut columns = self.columns.iter();
        for (field, array) in schema.fields().iter().zip(rows.columns()) {
            for (leaf, column) in compute_leaves(field, array)?.into_iter().zip(&mut columns) {
                column.send(leaf).await.map_err(|_| None)?;
            }
        }
        Ok(())
    }

    /// No more rows come.
    fn end(self) -> Ending {
        self.tasks
    }

    /// Why one of its tasks takes no more rows.
    async fn failure(self) -> ParquetError {
        self.end().chunks().await.err().unwrap_or_else(|| ParquetError::General("a column took no more rows".to_owned()))
    }
}

impl Ending {
    /// Whether all have ended.
    fn has_ended(&mut self) -> Result<bool> {
        while let Some(ended) = self.tasks.try_join_next() {
            self.note(ended)?;
        }
        Ok(self.tasks.is_empty())
    }

    fn note(&mut self, ended: Result<(usize, Result<ArrowColumnChunk>), JoinError>) -> Result<()> {
        let (at, chunk) = ended.map_err(|_| ParquetError::General("encoding a column panicked".to_owned()))?;
        self.ended.push((at, chunk?));
        Ok(())
    }

    /// Waits for all.
    async fn chunks(mut self) -> Result<Vec<ArrowColumnChunk>> {
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended)?;
        }
        self.ended.sort_unstable_by_key(|(at, _)| *at);
        Ok(self.ended.into_iter().map(|(_, chunk)| chunk).collect())
    }
}

async fn encode(mut writer: ArrowColumnWriter, mut leaves: mpsc::Receiver<ArrowLeafColumn>) -> Result<ArrowColumnChunk> {
    while let Some(leaf) = leaves.recv().await {
        writer.write(&leaf)?;
    }
    writer.close()
}

/// About the bytes of some rows.
fn weight(rows: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    rows.columns().iter().map(of).sum()
}

/// How values that do not repeat take less room, and less time to pack, than plain: numbers as differences from one to the next, each of no more
/// bits than its block needs; texts apart from their lengths.
fn encoding(data_type: &DataType) -> Option<Encoding> {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256, Duration, LargeBinary, LargeUtf8, Time32, Time64,
        Timestamp, Utf8, Utf8View,
    };
    match data_type {
        _ if data_type.is_integer() => Some(Encoding::DELTA_BINARY_PACKED),
        Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_) => Some(Encoding::DELTA_BINARY_PACKED),
        // Longer ones are stored as bytes.
        Decimal32(digits, _) | Decimal64(digits, _) | Decimal128(digits, _) | Decimal256(digits, _) if *digits <= 18 => {
            Some(Encoding::DELTA_BINARY_PACKED)
        }
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, ListArray, StringArray, StructArray},
        compute::cast,
        datatypes::{Field, Int64Type, Schema, TimeUnit},
    };
    use bytes::Bytes;
    use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, file::properties::WriterProperties};

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

    async fn write(batches: &[RecordBatch], group_bytes: usize) -> Bytes {
        write_so(batches, group_bytes, true).await
    }

    async fn write_so(batches: &[RecordBatch], group_bytes: usize, delta_encodings: bool) -> Bytes {
        let mut out = Vec::new();
        let mut writer = ParquetWriter::new(&mut out, &batches[0].schema(), WriterProperties::builder(), group_bytes, delta_encodings);
        for batch in batches {
            writer.write(batch).await.expect("written");
        }
        assert_eq!(writer.finish().await.expect("finished"), batches.iter().map(|batch| batch.num_rows() as i64).sum::<i64>());
        Bytes::from(out)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_file_is_the_same_each_time_and_has_all_rows_in_their_order() {
        let batches: Vec<RecordBatch> = (0..150).map(|at| rows(at * 8_000, if at % 10 == 0 { 500 } else { 8_000 })).collect();
        let whole = arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one batch");
        let file = write(&batches, usize::MAX).await;
        assert_eq!(write(&batches, usize::MAX).await, file);
        let small = write(&batches, 1 << 20).await;
        for (file, groups) in [(file, 2..=2), (small, 20..=150)] {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file");
            assert!(groups.contains(&reader.metadata().num_row_groups()), "{}", reader.metadata().num_row_groups());
            assert_eq!(reader.schema(), &whole.schema());
            let read: Vec<RecordBatch> = reader.build().expect("a reader").collect::<std::result::Result<_, _>>().expect("read");
            assert_eq!(arrow::compute::concat_batches(&whole.schema(), &read).expect("one batch"), whole);
        }
    }

    #[tokio::test]
    async fn values_of_every_type_come_back_and_those_that_do_not_repeat_are_packed_for_it() {
        let count: i64 = 5_000;
        let numbers: ArrayRef = Arc::new((0..count).map(|n| (n % 7 != 3).then_some(n * n % 1_000_003 - 500_000)).collect::<Int64Array>());
        let texts = cast(&numbers, &DataType::Utf8).expect("texts");
        let small = cast(&numbers, &DataType::Int32).expect("numbers");
        let times = cast(&(0..count).collect::<Int64Array>(), &DataType::Int32).expect("numbers");
        let (differences, lengths) = (Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY));
        let cases = [
            (&numbers, DataType::Int32, differences),
            (&numbers, DataType::UInt32, differences),
            (&numbers, DataType::Int64, differences),
            (&numbers, DataType::UInt64, differences),
            (&numbers, DataType::Float32, None),
            (&numbers, DataType::Float64, None),
            (&small, DataType::Date32, differences),
            (&times, DataType::Time32(TimeUnit::Millisecond), differences),
            (&numbers, DataType::Timestamp(TimeUnit::Microsecond, None), differences),
            (&numbers, DataType::Duration(TimeUnit::Second), differences),
            (&numbers, DataType::Decimal32(9, 2), differences),
            (&numbers, DataType::Decimal64(18, 2), differences),
            (&numbers, DataType::Decimal128(9, 2), differences),
            (&numbers, DataType::Decimal128(18, 2), differences),
            (&numbers, DataType::Decimal128(19, 2), None),
            (&numbers, DataType::Decimal256(18, 2), differences),
            (&numbers, DataType::Decimal256(40, 2), None),
            (&texts, DataType::Utf8, lengths),
            (&texts, DataType::LargeUtf8, lengths),
            (&texts, DataType::Utf8View, lengths),
            (&texts, DataType::Binary, lengths),
            (&texts, DataType::LargeBinary, lengths),
            (&texts, DataType::BinaryView, lengths),
        ];
        let named = cases.map(|(from, kind, encoding)| (kind.to_string(), cast(from, &kind).expect("cast"), encoding));
        let ends = [i64::MIN, i64::MAX, 0, -1];
        let far = (0..count).map(|n| ends[n as usize % 4] ^ (n / 4)).collect::<Int64Array>();
        let few = (0..count).map(|n| Some(ends[n as usize % 4])).collect::<Int64Array>();
        let more: [(String, ArrayRef, _); 2] =
            [("far apart".to_owned(), Arc::new(far), differences), ("few".to_owned(), Arc::new(few), None)];
        let columns: Vec<(String, ArrayRef, Option<Encoding>)> = named.into_iter().chain(more).collect();
        let batch = RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, column, _)| (name, column.clone(), true)));
        let batch = batch.expect("a batch");
        for delta_encodings in [true, false] {
            let file = write_so(&[batch.slice(0, 1_500), batch.slice(1_500, 3_500)], 1 << 20, delta_encodings).await;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file");
            for ((name, _, wanted), stored) in columns.iter().zip(reader.metadata().row_group(0).columns()) {
                let known = [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY];
                let seen: Vec<Encoding> = stored.encodings().filter(|encoding| known.contains(encoding)).collect();
                assert_eq!(seen, wanted.filter(|_| delta_encodings).into_iter().collect::<Vec<_>>(), "{name}");
            }
            let read: Vec<RecordBatch> = reader.build().expect("a reader").collect::<std::result::Result<_, _>>().expect("read");
            assert_eq!(arrow::compute::concat_batches(&batch.schema(), &read).expect("one batch"), batch);
        }
    }

    #[tokio::test]
    async fn rows_that_a_column_cannot_take_are_told_of_and_nothing_hangs() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let mut out = Vec::new();
        let mut writer = ParquetWriter::new(&mut out, &schema, WriterProperties::builder(), 1 << 20, true);
        let numbers: ArrayRef = Arc::new(StringArray::from(vec!["no number"]));
        let wrong = RecordBatch::try_from_iter([("id", numbers)]).expect("a batch");
        let mut said = None;
        // The column's task finds out, and the writer with one of the next rows, once the first have said which columns repeat.
        for _ in 0..SAMPLE.0 + 10 {
            said = said.or(writer.write(&wrong).await.err());
        }
        assert!(said.is_some(), "text went into a column of numbers");
    }

    #[tokio::test]
    async fn a_file_without_rows_has_its_columns() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let file = write(&[RecordBatch::new_empty(schema.clone())], 1 << 20).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file");
        assert_eq!((reader.schema(), reader.metadata().file_metadata().num_rows()), (&schema, 0));
    }
}
