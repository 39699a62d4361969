//! The rows of the listed files as one DataFusion scan whose partitions share the work: at most two threads read files in
//! order and cut them into pieces, a bounded queue hands the pieces out, and each partition decodes what it takes.
//! Which files there are, and their columns, is `source.rs`'s.

use std::{
    fmt,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt64Array},
    compute::cast,
    datatypes::{Int32Type, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ScalarValue, Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result as DataFusionResult},
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
    },
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use tokio::sync::mpsc;

use super::{
    block::{BadRecord, BlockDecoder, Guess},
    blocks::{Block, Blocks, Cutting},
    buffer::Buffer,
    bytes::{Opening, interrupted},
    columnar::{self, Adapter, Batches},
    list::FoundFile,
};
use crate::{
    context::{Coordinates, ReadCount, Reject, SourceContext},
    error::{Blame, Error, Result},
};

/// Files read at once.
const READERS: usize = 2;
/// Bytes per block, where memory allows.
const BLOCK_BYTES: usize = 2 << 20;
/// Less than this is read by one stream.
const SMALL_BYTES: u64 = 64 << 10;

/// A file to read, and what was learnt of it.
#[derive(Debug)]
pub struct Part {
    /// The file.
    pub file: Arc<FoundFile>,
    /// What is in it.
    pub content: Content,
    /// The values of the columns that its folders give, as [`Origin::Partition`] numbers them.
    pub partitions: Vec<ScalarValue>,
}

/// What is in a file.
#[derive(Debug)]
pub enum Content {
    /// Records of text.
    Text,
    /// Row groups of these columns, and how many rows they have. What a footer says besides grows with the file, and is read again with its rows.
    Parquet(SchemaRef, Option<u64>),
    /// Batches with these columns.
    Arrow(SchemaRef),
    /// Blocks with these columns.
    Avro(SchemaRef),
}

/// Where a column of the table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The files' contents.
    Data,
    /// The folders on the way to the file.
    Partition(usize),
    /// The file's name.
    File,
    /// The record's line or number.
    Row,
}

/// Everything that readers share.
#[derive(Debug)]
pub struct Files {
    /// The table's columns.
    pub schema: SchemaRef,
    /// Where each comes from.
    pub origins: Vec<Origin>,
    /// The files, in order.
    pub parts: Vec<Arc<Part>>,
    /// How text is cut; none for the other formats.
    pub cutting: Option<Cutting>,
    /// What the first records say of the columns that no others were asked about.
    pub guess: Option<Guess>,
    /// Text files start with a line of names.
    pub header: bool,
    /// How files are opened.
    pub opening: Opening,
    /// The step.
    pub cx: SourceContext,
    /// Told what is read.
    pub read: Arc<ReadCount>,
}

/// The files as a table.
#[derive(Debug)]
pub struct FileTable(pub Arc<Files>);

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.0.schema.fields().len()).collect();
        Ok(Arc::new(FileScan::new(self.0.clone(), projection.cloned().unwrap_or_else(all))?))
    }
}

/// One scan of the files.
#[derive(Debug)]
struct FileScan {
    run: Arc<Execution>,
    properties: Arc<PlanProperties>,
    taken: Mutex<Vec<bool>>,
}

impl FileScan {
    fn new(files: Arc<Files>, columns: Vec<usize>) -> DataFusionResult<Self> {
        let schema = Arc::new(files.schema.project(&columns)?);
        let data = columns.iter().filter(|&&column| files.origins[column] == Origin::Data);
        let wanted: SchemaRef = Arc::new(Schema::new(data.map(|&column| files.schema.fields()[column].clone()).collect::<Vec<_>>()));
        // A small input is not worth several streams; how much a packed one unpacks to is not known.
        let bytes: u64 = files.parts.iter().map(|part| part.file.size_bytes).sum();
        let partitions = if bytes < SMALL_BYTES { 1 } else { files.cx.run.partitions.max(1) };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (sender, receiver) = mpsc::channel(partitions.max(2));
        let run = Execution {
            schema,
            origins: columns.iter().map(|&column| files.origins[column]).collect(),
            wanted,
            block_bytes: block_bytes(&files.cx.run.runtime.memory_pool, partitions),
            receiver: tokio::sync::Mutex::new(receiver),
            sender: Mutex::new(Some(sender)),
            memory: Mutex::new(None),
            start: Once::new(),
            next_file: AtomicUsize::new(0),
            files_ended: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            partitions,
            files,
        };
        Ok(Self { run: Arc::new(run), properties: Arc::new(properties), taken: Mutex::new(vec![false; partitions]) })
    }
}

/// All blocks together stay under a sixteenth of the memory limit.
fn block_bytes(pool: &Arc<dyn MemoryPool>, partitions: usize) -> usize {
    match pool.memory_limit() {
        MemoryLimit::Finite(limit) => (limit / 16 / blocks_held(partitions)).clamp(64 << 10, BLOCK_BYTES),
        _ => BLOCK_BYTES,
    }
}

/// Blocks that exist at once: one per reader with its rest, those queued, one per stream.
fn blocks_held(partitions: usize) -> usize {
    2 * READERS + partitions.max(2) + partitions
}

impl DisplayAs for FileScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.run.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let files = &self.run.files.parts;
        write!(f, "FileScan: files={}, columns=[{}]", files.len(), names.join(", "))
    }
}

impl ExecutionPlan for FileScan {
    fn name(&self) -> &str {
        "FileScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        match self.taken.lock().get_mut(partition) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(Error::weir("scan-twice", format!("partition {partition} of a file scan was asked for twice")).into()),
        }
        let stream = PartitionStream::new(self.run.clone());
        let batches = futures::stream::try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await.map_err(DataFusionError::from)?.map(|batch| (batch, stream)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.run.schema.clone(), batches)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> DataFusionResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.run.schema);
        if args.partition().is_none() {
            // Never exact: rows that do not fit leave the stream, and an exact count would answer queries without reading.
            let parts = &self.run.files.parts;
            let rows = parts.iter().map(|part| match &part.content {
                Content::Parquet(_, rows) => rows.and_then(|rows| usize::try_from(rows).ok()),
                _ => None,
            });
            statistics.num_rows = rows.sum::<Option<usize>>().map_or(Precision::Absent, Precision::Inexact);
            let bytes: u64 = parts.iter().map(|part| part.file.size_bytes).sum();
            statistics.total_byte_size = Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        Ok(Arc::new(statistics))
    }
}

/// A piece of a file, to be decoded by whoever takes it.
enum Work {
    Block { part: Arc<Part>, decoder: Option<Arc<dyn BlockDecoder>>, bytes: Buffer, from: usize, first_line: u64, bad: Vec<BadRecord> },
    Rows { part: Arc<Part>, adapter: Arc<Adapter>, rows: RecordBatch, first_row: u64 },
    RowGroup { part: Arc<Part>, adapter: Arc<Adapter>, footer: ArrowReaderMetadata, first_row: u64 },
}

/// What the readers and the streams of one scan share.
struct Execution {
    files: Arc<Files>,
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// The columns that come from the files' contents.
    wanted: SchemaRef,
    block_bytes: usize,
    partitions: usize,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Result<Work>>>,
    /// Taken by the readers when the first stream is polled, so that the queue ends with them.
    sender: Mutex<Option<mpsc::Sender<Result<Work>>>>,
    memory: Mutex<Option<MemoryReservation>>,
    start: Once,
    next_file: AtomicUsize,
    files_ended: AtomicUsize,
    /// A reader's error is in the queue, or with the stream that took it.
    failed: AtomicBool,
    streams: AtomicUsize,
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution").field("schema", &self.schema).field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// Says that nobody takes pieces any more.
struct Gone;

impl Execution {
    fn start(self: &Arc<Self>) -> Result<()> {
        let mut started = Ok(());
        self.start.call_once(|| {
            let Some(sender) = self.sender.lock().take() else { return };
            let reservation =
                MemoryConsumer::new(format!("files of \"{}\"", self.files.cx.step)).register(&self.files.cx.run.runtime.memory_pool);
            if self.files.cutting.is_some()
                && let Err(error) = reservation.try_grow(blocks_held(self.partitions) * self.block_bytes)
            {
                started = Err(Error::user("memory", "reading files needs more memory than is left")
                    .help("raise \"[memory] limit\"")
                    .because(error));
                return;
            }
            for _ in 0..READERS.min(self.files.parts.len()) {
                let (run, sender, memory) = (self.clone(), sender.clone(), reservation.new_empty());
                self.files.opening.handle.spawn_blocking(move || run.read_files(&sender, memory));
            }
            *self.memory.lock() = Some(reservation);
        });
        started
    }

    /// Reads files, one after the other, until none is left. Runs on its own thread.
    fn read_files(&self, sender: &mpsc::Sender<Result<Work>>, memory: MemoryReservation) {
        while let Some(part) = self.files.parts.get(self.next_file.fetch_add(1, Ordering::Relaxed)) {
            match self.read_file(part, sender, memory.new_empty()) {
                Ok(Ok(())) => _ = self.files_ended.fetch_add(1, Ordering::Release),
                Ok(Err(Gone)) => return,
                Err(error) => {
                    // The other reader stops at its file's end at the latest; the queue closes before that as a rule.
                    self.next_file.store(self.files.parts.len(), Ordering::Relaxed);
                    self.failed.store(true, Ordering::Release);
                    // Nobody left to tell is fine: the scan was dropped.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    }

    fn read_file(&self, part: &Arc<Part>, sender: &mpsc::Sender<Result<Work>>, memory: MemoryReservation) -> Result<Result<(), Gone>> {
        let files = &self.files;
        let send = |work| {
            if files.cx.run.cancel.is_cancelled() {
                return Err(interrupted());
            }
            Ok(sender.blocking_send(Ok(work)).map_err(|_| Gone))
        };
        let (part, file) = (part.clone(), &part.file);
        match &part.content {
            Content::Text => {
                let cutting = files.cutting.as_ref().expect("text files are cut into blocks");
                let mut blocks = Blocks::open(file, &files.opening, cutting, self.block_bytes, Some(memory))?;
                let mut decoder: Option<Arc<dyn BlockDecoder>> = None;
                while let Some(Block { bytes, mut first_line, bad }) = blocks.next_block().map_err(|error| name_file(error, file))? {
                    if decoder.is_none() && bytes.is_empty() && files.header {
                        return Err(header_too_long(file, &bad));
                    }
                    let mut from = 0;
                    let decoder = match &decoder {
                        _ if bytes.is_empty() => None,
                        Some(decoder) => Some(decoder.clone()),
                        None => {
                            let start = cutting
                                .format
                                .decoder(&bytes, self.wanted.clone(), files.guess.as_ref())
                                .map_err(|error| name_file(error, file))?;
                            (from, first_line) = (start.skipped_bytes, first_line + start.skipped_lines);
                            decoder = Some(start.decoder);
                            decoder.clone()
                        }
                    };
                    if send(Work::Block { part: part.clone(), decoder, bytes, from, first_line, bad })?.is_err() {
                        return Ok(Err(Gone));
                    }
                }
            }
            Content::Parquet(schema, _) => {
                let footer = files.opening.handle.block_on(columnar::parquet_footer(file))?;
                if footer.schema() != schema {
                    let message = format!("cannot read \"{}\": its columns are not those that it had when the run began", file.name);
                    return Err(Error::system("columns-changed", message).setting("path").help("run again"));
                }
                let adapter = Arc::new(Adapter::new(file, schema, &self.wanted)?);
                let mut first_row = 1;
                for group in columnar::row_groups(file, footer) {
                    let footer = group?;
                    let rows = footer.metadata().row_group(0).num_rows().max(0) as u64;
                    if send(Work::RowGroup { part: part.clone(), adapter: adapter.clone(), footer, first_row })?.is_err() {
                        return Ok(Err(Gone));
                    }
                    first_row += rows;
                }
            }
            Content::Arrow(schema) | Content::Avro(schema) => {
                let adapter = Arc::new(Adapter::new(file, schema, &self.wanted)?);
                let batches = match &part.content {
                    Content::Arrow(_) => Batches::arrow(file, &files.opening, schema, &self.wanted)?,
                    _ => Batches::avro(file, &files.opening, schema, &self.wanted)?,
                };
                let mut first_row = 1;
                for rows in batches {
                    let rows = rows?;
                    let count = rows.num_rows() as u64;
                    if send(Work::Rows { part: part.clone(), adapter: adapter.clone(), rows, first_row })?.is_err() {
                        return Ok(Err(Gone));
                    }
                    first_row += count;
                }
            }
        }
        Ok(Ok(()))
    }

    /// Puts the columns of a batch together. `data` are the wanted ones.
    fn assemble(&self, part: &Part, data: &RecordBatch, rows: &UInt64Array) -> Result<RecordBatch> {
        let count = data.num_rows();
        let mut data_columns = data.columns().iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.origins.len());
        for (origin, field) in self.origins.iter().zip(self.schema.fields()) {
            let column: ArrayRef = match origin {
                Origin::Data => data_columns.next().expect("a decoder yields what is wanted").clone(),
                Origin::Partition(index) => part.partitions[*index].to_array_of_size(count).map_err(misfit)?,
                Origin::File => {
                    let name: ArrayRef = Arc::new(StringArray::from(vec![part.file.name.as_str()]));
                    let keys = Int32Array::from(vec![0; count]);
                    Arc::new(DictionaryArray::<Int32Type>::try_new(keys, name).map_err(misfit)?)
                }
                Origin::Row => Arc::new(rows.clone()),
            };
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                cast(&column, field.data_type()).map_err(misfit)?
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(misfit)
    }

    fn reject(&self, part: &Part, bad: Vec<BadRecord>) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let rejects = bad.into_iter().map(|bad| Reject {
            file: Some(part.file.name.clone()),
            row: Some(bad.line),
            code: bad.code.to_owned(),
            column: bad.column,
            reason: bad.reason,
            raw: bad.raw,
            fields: bad.fields,
        });
        self.files.cx.rejects.reject(rejects.collect())
    }
}

fn misfit(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::weir("arrow", format!("columns do not fit together: {error}")).because(error)
}

/// Adds the file's name where a format could not know it.
pub(super) fn name_file(mut error: Error, file: &FoundFile) -> Error {
    if error.blame == Blame::User && !error.message.contains(&file.name) {
        error.message = format!("\"{}\": {}", file.name, error.message);
    }
    error
}

pub(super) fn header_too_long(file: &FoundFile, bad: &[BadRecord]) -> Error {
    let why = bad.first().map_or("", |bad| &bad.reason);
    Error::user("malformed", format!("the header of \"{}\" cannot be read: {why}", file.name)).setting("path")
}

/// The rows of one partition: takes a piece, decodes it, hands it out in batches.
struct PartitionStream {
    run: Arc<Execution>,
    /// Rows decoded and not handed out yet, and how many of them were.
    ready: Option<(RecordBatch, usize)>,
    /// A row group being decoded.
    group: Option<(Arc<Part>, Arc<Adapter>, BoxStream<'static, Result<RecordBatch>>, u64)>,
}

impl Drop for PartitionStream {
    fn drop(&mut self) {
        // The last stream closes the queue, whoever still holds the plan: readers must not wait for ever.
        if self.run.streams.fetch_sub(1, Ordering::AcqRel) == 1
            && let Ok(mut receiver) = self.run.receiver.try_lock()
        {
            receiver.close();
            while receiver.try_recv().is_ok() {}
            self.run.memory.lock().take();
        }
    }
}

impl PartitionStream {
    fn new(run: Arc<Execution>) -> Self {
        run.streams.fetch_add(1, Ordering::AcqRel);
        Self { run, ready: None, group: None }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.run.start()?;
        let batch_rows = self.run.files.cx.run.batch_rows.max(1);
        loop {
            if let Some((batch, from)) = self.ready.take()
                && from < batch.num_rows()
            {
                let rows = batch_rows.min(batch.num_rows() - from);
                let slice = batch.slice(from, rows);
                self.ready = Some((batch, from + rows));
                return Ok(Some(slice));
            }
            if self.run.files.cx.run.cancel.is_cancelled() {
                return Err(interrupted());
            }
            if let Some((part, adapter, mut rows, first_row)) = self.group.take() {
                if let Some(batch) = rows.next().await {
                    let batch = batch?;
                    let next_row = first_row + batch.num_rows() as u64;
                    self.adapt(&part, &adapter, &batch, first_row)?;
                    self.group = Some((part, adapter, rows, next_row));
                }
                continue;
            }
            match Self::take(&self.run).await? {
                Some(work) => self.decode(work).await?,
                None => return Ok(None),
            }
        }
    }

    /// Takes the next piece, none when all files are read. Not a method of `&self`: a row group's stream is not shared.
    async fn take(run: &Execution) -> Result<Option<Work>> {
        let next = tokio::select! {
            next = async { run.receiver.lock().await.recv().await } => next,
            () = run.files.cx.run.cancel.cancelled() => return Err(interrupted()),
        };
        match next {
            Some(work) => work.map(Some),
            // The stream that took the error ends the scan with it.
            None if run.failed.load(Ordering::Acquire) => Ok(None),
            None if run.files_ended.load(Ordering::Acquire) == run.files.parts.len() => Ok(None),
            None => Err(Error::weir("reader-lost", "a file was not read to its end, and nobody said why")),
        }
    }

    async fn decode(&mut self, work: Work) -> Result<()> {
        let run = self.run.clone();
        match work {
            Work::Block { part, decoder, bytes, from, first_line, bad } => {
                run.files.read.add_rows(bad.len() as u64);
                run.reject(&part, bad)?;
                let Some(decoder) = decoder else { return Ok(()) };
                let decoded = decoder.decode(&bytes[from..], first_line).map_err(|error| name_file(error, &part.file))?;
                drop(bytes);
                run.files.read.add_rows((decoded.rows.num_rows() + decoded.bad.len()) as u64);
                run.reject(&part, decoded.bad)?;
                if decoded.rows.num_rows() > 0 {
                    self.ready = Some((run.assemble(&part, &decoded.rows, &decoded.lines)?, 0));
                }
            }
            Work::Rows { part, adapter, rows, first_row } => self.adapt(&part, &adapter, &rows, first_row)?,
            Work::RowGroup { part, adapter, footer, first_row } => {
                let batch_rows = run.files.cx.run.batch_rows.max(1);
                let (rows, bytes) = columnar::parquet_rows(part.file.clone(), footer, &run.wanted, batch_rows).await?;
                run.files.read.add_bytes(bytes);
                self.group = Some((part, adapter, rows, first_row));
            }
        }
        Ok(())
    }

    fn adapt(&mut self, part: &Part, adapter: &Adapter, rows: &RecordBatch, first_row: u64) -> Result<()> {
        let (good, numbers, bad) = adapter.adapt(rows, first_row)?;
        self.run.files.read.add_rows(rows.num_rows() as u64);
        let bad = bad.into_iter().map(|bad| BadRecord {
            line: first_row + bad.row as u64,
            code: "wrong-type",
            column: Some(bad.column),
            reason: bad.reason,
            raw: weir_schemas::json::text(rows, bad.row),
            fields: None,
        });
        self.run.reject(part, bad.collect())?;
        if good.num_rows() > 0 {
            self.ready = Some((self.run.assemble(part, &good, &numbers)?, 0));
        }
        Ok(())
    }
}

/// The two coordinate columns' origins, in the order of [`Coordinates::fields`].
pub const COORDINATES: [(&str, Origin); 2] = [(Coordinates::FILE, Origin::File), (Coordinates::ROW, Origin::Row)];
