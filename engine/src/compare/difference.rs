//! Which rows of a sink are added, removed and changed between two versions of its rows: both are sorted by key on disk and walked side by
//! side, so that memory holds a few batches, however many rows there are.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BinaryArray, LargeBinaryArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result as DfResult},
    execution::{SendableRecordBatchStream, runtime_env::RuntimeEnv},
    physical_plan::execute_stream,
    prelude::{SessionContext, col},
};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_schemas::json;

use super::encode::{Codec, Column, Columns, conformed};

/// Changed rows that are looked at together: so many at most, or of so many bytes.
const CHANGED_AT_ONCE: usize = 1024;
const CHANGED_BYTES: usize = 8 << 20;

/// How the rows of two versions differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Rows of the published version.
    pub rows_before: u64,
    /// Rows of the new version.
    pub rows_now: u64,
    /// Keys, or whole rows, that only the new version has.
    pub added: u64,
    /// Keys, or whole rows, that only the published version has.
    pub removed: u64,
    /// Keys that both have, with other values.
    pub changed: u64,
    /// Keys, or whole rows, that both have alike.
    pub same: u64,
    /// The columns that both have and that are no part of the key, with the number of keys in which they changed.
    pub columns: Vec<ColumnDifference>,
    /// The first of each kind, in the order of the key.
    pub examples: Examples,
}

/// How a column differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDifference {
    /// Its name.
    pub column: String,
    /// Keys in which it changed; without a key it is not known which row became which.
    pub changed: Option<u64>,
    /// Its types, where they are not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<(String, String)>,
}

/// Rows to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Whole rows, columns that both versions have.
    pub added: Vec<Map<String, Value>>,
    /// Whole rows, columns that both versions have.
    pub removed: Vec<Map<String, Value>>,
    /// The key, and the columns that changed.
    pub changed: Vec<ChangedRow>,
}

/// A row that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedRow {
    /// The columns of its key.
    pub key: Map<String, Value>,
    /// The columns that changed, as they were.
    pub before: Map<String, Value>,
    /// The same, as they are.
    pub now: Map<String, Value>,
}

/// Why no difference was found.
#[derive(Debug)]
pub enum Stopped {
    /// Two rows of one version have one key: there is no telling which is which.
    Twice,
    /// It was interrupted.
    Cancelled,
    /// It failed.
    Failed(DataFusionError),
}

impl<E: Into<DataFusionError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Two versions of one sink's rows.
pub struct Rows<'a> {
    /// The published version's.
    pub before: &'a Spilled,
    /// The new version's.
    pub now: &'a Spilled,
    /// Their columns.
    pub columns: &'a Columns,
    /// So many examples of each kind.
    pub examples: usize,
    /// Sorts, and spills.
    pub session: &'a SessionContext,
    /// For temporary files.
    pub runtime: &'a Arc<RuntimeEnv>,
    /// Stops it.
    pub cancel: &'a CancellationToken,
}

impl Rows<'_> {
    /// Compares them by a key that both versions have; without one, whole rows are compared, each as often as it is there.
    pub async fn differ(&self, key: &[String]) -> Result<Difference, Stopped> {
        let both = &self.columns.both;
        let (keys, rest): (Vec<Column>, Vec<Column>) = match key.is_empty() {
            true => (both.clone(), Vec::new()),
            false => {
                let keys = key.iter().filter_map(|name| both.iter().find(|column| column.field.name() == name).cloned());
                (keys.collect(), both.iter().filter(|column| !key.contains(column.field.name())).cloned().collect())
            }
        };
        let mut walk = Walk {
            is_keyed: !key.is_empty(),
            of_key: Codec::new(&keys)?,
            of_rest: Codec::new(&rest)?,
            singles: rest.iter().map(|column| Codec::new(std::slice::from_ref(column))).collect::<Result<_, _>>()?,
            names: both.iter().map(|column| column.field.name().clone()).collect(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            counts: vec![0; rest.len()],
            examples: self.examples,
            found: Difference { rows_before: self.before.rows(), rows_now: self.now.rows(), ..Difference::default() },
        };
        let mut before = self.sorted(self.before, &keys, &rest, &walk).await?;
        let mut now = self.sorted(self.now, &keys, &rest, &walk).await?;
        loop {
            let order = match (before.row().await?, now.row().await?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            match order {
                Ordering::Less => {
                    walk.removed(before.at()?)?;
                    before.next(walk.is_keyed).await?;
                }
                Ordering::Greater => {
                    walk.added(now.at()?)?;
                    now.next(walk.is_keyed).await?;
                }
                Ordering::Equal => {
                    walk.met(before.at()?, now.at()?)?;
                    before.next(walk.is_keyed).await?;
                    now.next(walk.is_keyed).await?;
                }
            }
        }
        walk.look()?;
        let columns = rest.iter().zip(&walk.counts).map(|(column, changed)| (column, Some(*changed)));
        let columns: Vec<(&Column, Option<u64>)> =
            if key.is_empty() { both.iter().map(|column| (column, None)).collect() } else { columns.collect() };
        walk.found.columns = columns
            .into_iter()
            .map(|(column, changed)| ColumnDifference {
                column: column.field.name().clone(),
                changed,
                types: (column.before != column.now).then(|| (column.before.to_string(), column.now.to_string())),
            })
            .collect();
        Ok(walk.found)
    }

    /// The rows of one version as bytes, in the order of their keys.
    async fn sorted(&self, rows: &Spilled, keys: &[Column], rest: &[Column], walk: &Walk) -> Result<Side, Stopped> {
        let mut writer = SpillWriter::create(self.runtime, &encoded_schema(), "rows to be compared")?;
        let mut stream = rows.stream();
        while let Some(batch) = stream.next().await {
            if self.cancel.is_cancelled() {
                return Err(Stopped::Cancelled);
            }
            let batch = batch?;
            let count = batch.num_rows();
            let key = walk.of_key.encode(&conformed(&batch, keys)?, count)?;
            let rest = walk.of_rest.encode(&conformed(&batch, rest)?, count)?;
            let bytes = |rows: &[Vec<u8>]| Arc::new(LargeBinaryArray::from_iter_values(rows)) as ArrayRef;
            writer.write(&RecordBatch::try_new(encoded_schema(), vec![bytes(&key), bytes(&rest)])?)?;
        }
        let encoded = writer.finish()?;
        let frame = self.session.read_table(encoded.table())?.sort(vec![col("key").sort(true, true)])?;
        let stream = execute_stream(frame.create_physical_plan().await?, self.session.task_ctx())?;
        Ok(Side { stream, batch: None, at: 0, last: None, is_done: false, cancel: self.cancel.clone() })
    }
}

fn encoded_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::LargeBinary, false), Field::new("rest", DataType::LargeBinary, false)]))
}

/// One version's rows on the way.
struct Side {
    stream: SendableRecordBatchStream,
    batch: Option<(LargeBinaryArray, LargeBinaryArray)>,
    at: usize,
    /// The key before the one at hand.
    last: Option<Vec<u8>>,
    is_done: bool,
    cancel: CancellationToken,
}

impl Side {
    /// The row at hand; none at the end.
    async fn row(&mut self) -> Result<Option<(&[u8], &[u8])>, Stopped> {
        while !self.is_done && self.batch.as_ref().is_none_or(|(keys, _)| self.at >= keys.len()) {
            self.at = 0;
            self.batch = None;
            let batch = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Stopped::Cancelled),
                batch = self.stream.next() => batch,
            };
            match batch {
                None => self.is_done = true,
                Some(batch) => {
                    let batch = batch?;
                    let column = |at: usize| batch.column(at).as_any().downcast_ref::<LargeBinaryArray>().cloned();
                    let (Some(keys), Some(rest)) = (column(0), column(1)) else {
                        return Err(Stopped::Failed(DataFusionError::Internal("the sorted rows are no bytes".into())));
                    };
                    self.batch = Some((keys, rest));
                }
            }
        }
        Ok(self.batch.as_ref().filter(|_| !self.is_done).map(|(keys, rest)| (keys.value(self.at), rest.value(self.at))))
    }

    /// The row that [`Self::row`] has brought.
    fn at(&self) -> DfResult<(&[u8], &[u8])> {
        let at = self.batch.as_ref().map(|(keys, rest)| (keys.value(self.at), rest.value(self.at)));
        at.ok_or_else(|| DataFusionError::Internal("there is no row at hand".into()))
    }

    /// Goes on. Fails where the next row has the key of this one and keys are unique.
    async fn next(&mut self, is_unique: bool) -> Result<(), Stopped> {
        if is_unique {
            self.last = Some(self.at()?.0.to_vec());
        }
        self.at += 1;
        let last = self.last.take();
        let twice = match (self.row().await?, &last) {
            (Some((key, _)), Some(last)) => key == last.as_slice(),
            _ => false,
        };
        if twice { Err(Stopped::Twice) } else { Ok(()) }
    }
}

/// What is found on the way.
struct Walk {
    is_keyed: bool,
    of_key: Codec,
    of_rest: Codec,
    /// Each of the other columns by itself.
    singles: Vec<Codec>,
    /// The columns that both versions have, as they stand.
    names: Vec<String>,
    /// Changed rows that are yet to be looked at: key, before, now.
    waiting: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    waiting_bytes: usize,
    counts: Vec<u64>,
    examples: usize,
    found: Difference,
}

impl Walk {
    fn added(&mut self, row: (&[u8], &[u8])) -> DfResult<()> {
        self.found.added += 1;
        if self.found.examples.added.len() < self.examples {
            let row = self.whole(row)?;
            self.found.examples.added.push(row);
        }
        Ok(())
    }

    fn removed(&mut self, row: (&[u8], &[u8])) -> DfResult<()> {
        self.found.removed += 1;
        if self.found.examples.removed.len() < self.examples {
            let row = self.whole(row)?;
            self.found.examples.removed.push(row);
        }
        Ok(())
    }

    fn met(&mut self, before: (&[u8], &[u8]), now: (&[u8], &[u8])) -> DfResult<()> {
        if before.1 == now.1 {
            self.found.same += 1;
            return Ok(());
        }
        self.found.changed += 1;
        self.waiting.push((before.0.to_vec(), before.1.to_vec(), now.1.to_vec()));
        self.waiting_bytes += before.0.len() + before.1.len() + now.1.len();
        let is_enough = self.waiting.len() >= CHANGED_AT_ONCE || self.waiting_bytes >= CHANGED_BYTES;
        if is_enough { self.look() } else { Ok(()) }
    }

    /// Looks which columns of the waiting rows have changed.
    fn look(&mut self) -> DfResult<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        let before = self.of_rest.decode(waiting.iter().map(|(_, before, _)| before.as_slice()))?;
        let now = self.of_rest.decode(waiting.iter().map(|(_, _, now)| now.as_slice()))?;
        let mut differs = Vec::with_capacity(self.singles.len());
        for (at, codec) in self.singles.iter().enumerate() {
            let (old, new) = (codec.encode(&before[at..=at], waiting.len())?, codec.encode(&now[at..=at], waiting.len())?);
            let column: BinaryArray = old.iter().zip(&new).map(|(old, new)| (old != new).then_some(b"")).collect();
            self.counts[at] += (column.len() - column.null_count()) as u64;
            differs.push(column);
        }
        let wanted = self.examples.saturating_sub(self.found.examples.changed.len()).min(waiting.len());
        if wanted == 0 {
            return Ok(());
        }
        let keys = batch(&self.of_key.schema, self.of_key.decode(waiting[..wanted].iter().map(|(key, _, _)| key.as_slice()))?)?;
        let (before, now) = (batch(&self.of_rest.schema, before)?, batch(&self.of_rest.schema, now)?);
        for row in 0..wanted {
            let changed = |name: &String| self.of_rest.schema.index_of(name).is_ok_and(|at| differs[at].is_valid(row));
            let of = |batch: &RecordBatch| object(batch, row).into_iter().filter(|(name, _)| changed(name)).collect();
            let (key, before, now) = (object(&keys, row), of(&before), of(&now));
            self.found.examples.changed.push(ChangedRow { key, before, now });
        }
        Ok(())
    }

    /// A row with all columns that both versions have.
    fn whole(&self, (key, rest): (&[u8], &[u8])) -> DfResult<Map<String, Value>> {
        let mut row = object(&batch(&self.of_key.schema, self.of_key.decode([key])?)?, 0);
        if !self.of_rest.schema.fields().is_empty() {
            row.extend(object(&batch(&self.of_rest.schema, self.of_rest.decode([rest])?)?, 0));
        }
        if self.is_keyed {
            return Ok(row);
        }
        Ok(self.names.iter().filter_map(|name| row.remove_entry(name)).collect())
    }
}

/// Rows to be shown. Decimals are shown as text: a number of JSON would round them, and hide what changed.
fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> DfResult<RecordBatch> {
    let shown = |column: ArrayRef| if column.data_type().is_decimal() { cast(&column, &DataType::Utf8) } else { Ok(column) };
    let columns = columns.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    // What is read back may have plainer types within.
    let fields =
        schema.fields().iter().zip(&columns).map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
}

fn object(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    match json::row(batch, row) {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}
