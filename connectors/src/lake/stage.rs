//! How rows become Parquet files in a table's folder that no reader looks at yet: in parallel, in bounded memory, one
//! log entry per file. What makes the files part of the table is `publish.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    row::{RowConverter, SortField},
};
use datafusion::execution::{SendableRecordBatchStream, memory_pool::MemoryLimit, runtime_env::RuntimeEnv};
use deltalake::kernel::Add;
use futures::StreamExt;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{schema::Column, stats, table::Place, types, writer::Files};
use crate::error::{Error, Result};

/// Batches that wait for one writer.
const QUEUE: usize = 2;
/// Another writer starts only for a load of more than this.
const ANOTHER_WRITER_BYTES: usize = 16 << 20;

/// What is written where.
#[derive(Debug)]
pub struct Spec {
    /// The table.
    pub place: Place,
    /// The folder inside the table's, empty for the table's own.
    pub folder: String,
    /// Names the files, unique to the run and the attempt: `part-<label>-<n>.parquet`.
    pub label: String,
    /// What is written of each row: the column, and where it stands in the row.
    pub written: Vec<(Column, usize)>,
    /// The table's partition columns.
    pub partitions: Vec<String>,
    /// A file is closed at about this size.
    pub file_bytes: u64,
    /// Writers at most.
    pub writers: usize,
}

/// Writes rows to files.
#[derive(Debug)]
pub struct Stage {
    pub(super) spec: Spec,
    /// The columns inside files (all but the partition columns), each with its place in `spec.written`.
    inside: Vec<usize>,
    /// The partition columns, each with its place in `spec.written` where rows have it.
    pub(super) outside: Vec<(String, Option<usize>)>,
    /// What files hold, in the layout it arrives in.
    pub(super) layout: SchemaRef,
    /// The same in lake types, for statistics.
    pub(super) schema: SchemaRef,
    pub(super) row_group_bytes: usize,
    pub(super) runtime: Arc<RuntimeEnv>,
    files: AtomicU64,
    pub(super) abandoned: Arc<AtomicBool>,
    tasks: TaskTracker,
}

/// What a writer is handed.
pub(super) enum Message {
    /// Rows as they came.
    Rows(RecordBatch),
    /// Converted rows of one partition, without its columns.
    Part(Vec<Option<String>>, RecordBatch),
}

struct Writer {
    sender: mpsc::Sender<Message>,
    task: JoinHandle<Result<Vec<Add>>>,
}

/// Tells writers that nobody will take their files.
struct Abandon<'a>(&'a AtomicBool, bool);
impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Stage {
    /// Prepares to write rows of the schema `rows`. Touches nothing yet.
    pub fn new(spec: Spec, rows: &Schema, runtime: Arc<RuntimeEnv>) -> Self {
        let partitioned = |column: &Column| spec.partitions.contains(&column.name);
        let inside: Vec<usize> = (0..spec.written.len()).filter(|index| !partitioned(&spec.written[*index].0)).collect();
        let outside =
            spec.partitions.iter().map(|name| (name.clone(), spec.written.iter().position(|(column, _)| column.name == *name))).collect();
        let fields = |typed: &dyn Fn(&Column, usize) -> DataType| {
            let field = |index: &usize| {
                let (column, source) = &spec.written[*index];
                Field::new(&column.name, typed(column, *source), column.nullable)
            };
            Arc::new(Schema::new(inside.iter().map(field).collect::<Vec<_>>()))
        };
        let layout = fields(&|column, source| types::layout(rows.field(source).data_type(), &column.lake));
        let schema = fields(&|column, _| column.lake.clone());
        let memory = match runtime.memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => bytes,
            _ => usize::MAX,
        };
        let row_group_bytes = (memory / (32 * spec.writers.max(1))).clamp(4 << 20, 32 << 20);
        Self {
            spec,
            inside,
            outside,
            layout,
            schema,
            row_group_bytes,
            runtime,
            files: AtomicU64::new(0),
            abandoned: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Writes a stream to its end. Returns an entry per file, each durable. On an error or when dropped midway, writers
    /// stop and leave what they had to [`Self::stopped`] and whoever deletes.
    pub async fn write(self: &Arc<Self>, mut rows: SendableRecordBatchStream, cancel: &CancellationToken) -> Result<Vec<Add>> {
        let mut guard = Abandon(&self.abandoned, true);
        let mut writers: Vec<Writer> = Vec::new();
        let fed = self.feed(&mut rows, &mut writers, cancel).await;
        if fed.is_err() {
            self.abandoned.store(true, Ordering::Relaxed);
        }
        let mut added = Vec::new();
        let mut failed = fed.err();
        for Writer { sender, task } in writers {
            drop(sender);
            match task.await {
                Ok(Ok(files)) => added.extend(files),
                // A writer that failed is why feeding it failed, so its error says more.
                Ok(Err(error)) => failed = Some(failed.filter(|first| first.code != CLOSED).unwrap_or(error)),
                Err(error) => failed = Some(Error::weir("lake-writer", "a Parquet writer died").because(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                guard.1 = false;
                Ok(added)
            }
        }
    }

    /// Stops writers that still run and waits until none touches a file any more.
    pub async fn stopped(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn feed(
        self: &Arc<Self>,
        rows: &mut SendableRecordBatchStream,
        writers: &mut Vec<Writer>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let (mut next, mut fed_bytes) = (0, 0usize);
        loop {
            let batch = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(interrupted()),
                batch = rows.next() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let batch = batch.map_err(super::from_datafusion)?;
            if batch.num_rows() == 0 {
                continue;
            }
            fed_bytes = fed_bytes.saturating_add(batch.get_array_memory_size());
            if self.outside.is_empty() {
                let mut message = Some(Message::Rows(batch));
                for step in 0..writers.len() {
                    let index = (next + step) % writers.len();
                    let Some(offer) = message.take() else { break };
                    match writers[index].sender.try_send(offer) {
                        Ok(()) => next = index,
                        Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => message = Some(back),
                    }
                }
                let Some(message) = message else { continue };
                if writers.is_empty() || (writers.len() < self.spec.writers && fed_bytes > ANOTHER_WRITER_BYTES) {
                    writers.push(self.start());
                    next = writers.len() - 1;
                } else {
                    next = (next + 1) % writers.len();
                }
                send(&writers[next], message, cancel).await?;
            } else {
                // Each partition has its own writer, so that the number of files does not depend on that of writers.
                while writers.len() < self.spec.writers {
                    writers.push(self.start());
                }
                for (values, part) in self.split(&batch)? {
                    let writer = &writers[spread(&values) % writers.len()];
                    send(writer, Message::Part(values, part), cancel).await?;
                }
            }
        }
    }

    fn start(self: &Arc<Self>) -> Writer {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let stage = self.clone();
        let task = self.tasks.spawn_blocking(move || {
            let mut files = Files::new(&stage);
            let done = files.take(&mut receiver);
            if done.is_err() || stage.abandoned.load(Ordering::Relaxed) {
                files.abandon();
                return done.map(|()| Vec::new());
            }
            files.finish()
        });
        Writer { sender, task }
    }

    pub(super) fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.spec.written.len());
        for (column, source) in &self.spec.written {
            let array = types::convert(&column.name, batch.column(*source), &column.lake)?;
            if !column.nullable && array.null_count() > 0 {
                return Err(Error::user(
                    "null-in-column",
                    format!("column \"{}\" holds a null, which the table does not allow", column.name),
                ));
            }
            columns.push(array);
        }
        Ok(columns)
    }

    /// What goes into files, in the one layout that a file has.
    pub(super) fn inner(&self, columns: &[ArrayRef]) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(self.inside.len());
        for (field, index) in self.layout.fields().iter().zip(&self.inside) {
            let array = &columns[*index];
            arrays.push(if array.data_type() == field.data_type() {
                array.clone()
            } else {
                types::cast(array, field.data_type())
                    .map_err(|error| Error::weir("lake-cast", "a batch differs from its schema").because(error))?
            });
        }
        RecordBatch::try_new(self.layout.clone(), arrays).map_err(|error| Error::weir("lake-batch", error.to_string()))
    }

    /// Splits rows by their partition.
    fn split(&self, batch: &RecordBatch) -> Result<Vec<(Vec<Option<String>>, RecordBatch)>> {
        let columns = self.columns(batch)?;
        let inner = self.inner(&columns)?;
        let mut arrays = Vec::new();
        for (_, index) in &self.outside {
            if let Some(index) = index {
                let lake = &self.spec.written[*index].0.lake;
                arrays.push(types::cast(&columns[*index], lake).map_err(|error| Error::weir("lake-cast", error.to_string()))?);
            }
        }
        if arrays.is_empty() {
            return Ok(vec![(self.values(&arrays, 0)?, inner)]);
        }
        let failed = |error: arrow::error::ArrowError| Error::weir("lake-partition", error.to_string());
        let converter =
            RowConverter::new(arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect()).map_err(failed)?;
        let keys = converter.convert_columns(&arrays).map_err(failed)?;
        let mut groups: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut order: Vec<&[u8]> = Vec::new();
        for index in 0..keys.num_rows() {
            let key = keys.row(index).data();
            groups
                .entry(key)
                .or_insert_with(|| {
                    order.push(key);
                    Vec::new()
                })
                .push(u32::try_from(index).expect("a batch holds fewer than 2^32 rows"));
        }
        let mut parts = Vec::with_capacity(order.len());
        for key in order {
            let indices = groups.remove(key).expect("every key of the order has its group");
            let values = self.values(&arrays, indices[0] as usize)?;
            let part = if indices.len() == inner.num_rows() {
                inner.clone()
            } else {
                take_record_batch(&inner, &UInt32Array::from(indices)).map_err(failed)?
            };
            parts.push((values, part));
        }
        Ok(parts)
    }

    fn values(&self, arrays: &[ArrayRef], row: usize) -> Result<Vec<Option<String>>> {
        let mut arrays = arrays.iter();
        let mut values = Vec::with_capacity(self.outside.len());
        for (name, index) in &self.outside {
            let array = index.and_then(|_| arrays.next());
            values.push(match array {
                None => None,
                Some(array) => stats::partition_value(array, row).map_err(|wrong| {
                    Error::user("partition-value", format!("column \"{name}\", which the table is partitioned by, holds {wrong}"))
                        .help("replace the value in a transform, or partition by another column")
                })?,
            });
        }
        Ok(values)
    }

    pub(super) fn new_path(&self, values: &[Option<String>]) -> String {
        let mut path = String::new();
        if !self.spec.folder.is_empty() {
            path = format!("{}/", self.spec.folder);
        }
        for ((name, _), value) in self.outside.iter().zip(values) {
            path += &format!("{}={}/", tame(name), value.as_deref().map_or_else(|| "__HIVE_DEFAULT_PARTITION__".into(), tame));
        }
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        path + &format!("part-{}-{number:05}.parquet", self.spec.label)
    }
}

/// The code of an error that only says that a writer has gone.
const CLOSED: &str = "lake-writer-closed";

async fn send(writer: &Writer, message: Message, cancel: &CancellationToken) -> Result<()> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(interrupted()),
        sent = writer.sender.send(message) => sent.map_err(|_| Error::weir(CLOSED, "a Parquet writer stopped early")),
    }
}

fn interrupted() -> Error {
    Error::system("interrupted", "the run was stopped")
}

fn spread(values: &[Option<String>]) -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 33).expect("31 bits fit")
}

/// A folder name that no file system or URL reads in two ways. The log has the true value.
fn tame(value: &str) -> String {
    value.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_are_plain_ascii_whatever_the_value() {
        assert_eq!(tame("São Paulo/SP %20"), "S_o_Paulo_SP__20");
        assert_eq!(tame(&"x".repeat(300)).len(), 64);
        assert_eq!(tame(".."), "..");
    }
}
