//! Batches on disk, in Arrow's stream format: written at the end, read from the start, by a reader that may follow the writer.
//! The file goes when the last of them does.

pub mod bloom;
pub mod join;
pub mod table;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions},
    buffer::Buffer,
    datatypes::{ByteViewType, DataType, SchemaRef},
    ipc::{
        CompressionType,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use datafusion::{
    catalog::TableProvider,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, runtime_env::RuntimeEnv, spill_file::SpillFile},
    physical_plan::stream::RecordBatchStreamAdapter,
};

use self::table::SpilledTable;

/// A batch that holds no more than its values: texts as they come from a file hold the whole page alive that they were in, and take it along to disk.
pub fn alone(batch: &RecordBatch) -> Result<RecordBatch> {
    fn held<T: ByteViewType>(column: &GenericByteViewArray<T>) -> bool {
        column.total_buffer_bytes_used() < column.data_buffers().iter().map(Buffer::capacity).sum()
    }
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View if held(column.as_string_view()) => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView if held(column.as_binary_view()) => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)?)
}

/// A file that batches are written to.
pub struct SpillWriter {
    file: Arc<dyn SpillFile>,
    writer: StreamWriter<BufWriter<File>>,
    schema: SchemaRef,
    rows: u64,
}

impl fmt::Debug for SpillWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpillWriter({} rows)", self.rows)
    }
}

fn path(file: &dyn SpillFile) -> Result<&Path> {
    file.path().ok_or_else(|| DataFusionError::Internal("the disk manager gave a file without a path".into()))
}

impl SpillWriter {
    /// Makes a temporary file. `what` is what it is for, in the words of an error message.
    pub fn create(runtime: &RuntimeEnv, schema: &SchemaRef, what: &str) -> Result<Self> {
        let file = runtime.disk_manager.create_tmp_file(what)?;
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        // Not truncated, though it is empty: some file systems write a file that was truncated to disk as it is closed, and such a one cannot go
        // before it is written.
        let handle = BufWriter::new(OpenOptions::new().write(true).open(path(file.as_ref())?)?);
        let writer = StreamWriter::try_new_with_options(handle, schema, options)?;
        Ok(Self { file, writer, schema: schema.clone(), rows: 0 })
    }

    /// Adds a batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(&alone(batch)?)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// A reader of what has been written so far and of what will be. It must not be asked for more batches than were written.
    pub fn follow(&mut self) -> Result<SpillReader> {
        self.flush()?;
        SpillReader::open(self.file.clone())
    }

    /// Hands everything written to whoever follows.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
    }

    /// Ends writing.
    pub fn finish(mut self) -> Result<Spilled> {
        self.writer.finish()?;
        self.flush()?;
        Ok(Spilled { file: self.file, schema: self.schema, rows: self.rows })
    }
}

/// Reads batches in the order they were written.
pub struct SpillReader {
    reader: StreamReader<BufReader<File>>,
    _file: Arc<dyn SpillFile>,
}

impl SpillReader {
    fn open(file: Arc<dyn SpillFile>) -> Result<Self> {
        let reader = StreamReader::try_new(BufReader::new(File::open(path(file.as_ref())?)?), None)?;
        Ok(Self { reader, _file: file })
    }
}

impl Iterator for SpillReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.next().map(|batch| batch.map_err(DataFusionError::from))
    }
}

/// A file that has been written and can be read any number of times.
#[derive(Clone)]
pub struct Spilled {
    file: Arc<dyn SpillFile>,
    schema: SchemaRef,
    rows: u64,
}

impl fmt::Debug for Spilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spilled({} rows)", self.rows)
    }
}

impl Spilled {
    /// The batches' schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows as a table.
    pub fn table(&self) -> Arc<dyn TableProvider> {
        Arc::new(SpilledTable(self.clone()))
    }

    /// Reads the file from its start.
    pub fn stream(&self) -> SendableRecordBatchStream {
        let batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match SpillReader::open(self.file.clone()) {
            Ok(reader) => Box::new(reader),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{BinaryViewArray, StringViewArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    #[test]
    fn a_few_rows_of_a_large_batch_are_written_without_the_texts_of_the_others() {
        let texts = |row: usize| format!("a text that is too long to stand in its view {row}");
        let all: StringViewArray = (0..100_000).map(|row| Some(texts(row))).collect();
        let bytes: BinaryViewArray = (0..100_000).map(|row| Some(texts(row).into_bytes())).collect();
        let fields = vec![Field::new("text", DataType::Utf8View, true), Field::new("bytes", DataType::BinaryView, true)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(all), Arc::new(bytes)]).expect("a batch");
        let few = batch.slice(70_000, 10);
        let mut writer = SpillWriter::create(&RuntimeEnv::default(), &few.schema(), "a test").expect("a file");
        writer.write(&few).expect("written");
        let spilled = writer.finish().expect("finished");
        let size = std::fs::metadata(path(spilled.file.as_ref()).expect("a path")).expect("a file").len();
        assert!(size < 10_000, "{size} bytes");
        let read: Vec<RecordBatch> = SpillReader::open(spilled.file.clone()).expect("opened").collect::<Result<_>>().expect("read");
        assert_eq!(read, [few]);
    }
}
