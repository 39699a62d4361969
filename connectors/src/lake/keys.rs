//! The keys of a run, asked which rows of a table may have one of them. Nearly all rows of a large table have none: these no join has to look at or
//! to set aside on disk.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::{BatchCoalescer, filter_record_batch, not},
    datatypes::{DataType, Schema, SchemaRef},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    common::hash_utils::{RandomState, create_hashes},
    error::{DataFusionError, Result},
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
    },
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::{DataFrame, SessionContext},
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::spill::bloom::Bloom;

/// What a key takes in the filter.
const KEY_BYTES: usize = 2;
/// The filter takes one part in so many of the memory limit at most. With more keys than there is room for, more rows get through, to the join.
const SHARE: usize = 16;
/// The column that says whether a row may have a key of the run.
const MAY_HAVE: &str = "__weir_may_have";

/// The keys of a run.
#[derive(Clone)]
pub(super) struct Keys(Arc<Known>);

struct Known {
    bloom: Bloom,
    signature: Signature,
    _memory: MemoryReservation,
}

fn state() -> RandomState {
    RandomState::with_seed(0x5b1e_a5ed)
}

impl Keys {
    /// Learns the keys that `rows` are made of, about `count` of them.
    pub(super) async fn learn(mut rows: SendableRecordBatchStream, count: u64, pool: &Arc<dyn MemoryPool>) -> Result<Self> {
        let types = rows.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let most = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit / SHARE,
            _ => usize::MAX,
        };
        let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(KEY_BYTES).min(most);
        let memory = MemoryConsumer::new("keys of the lake sink").register(pool);
        memory.try_grow(bytes)?;
        let mut bloom = Bloom::new(bytes);
        let mut hashes = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            hashes.clear();
            hashes.resize(batch.num_rows(), 0);
            bloom.insert(create_hashes(batch.columns(), &state(), &mut hashes)?);
        }
        Ok(Self(Arc::new(Known { bloom, signature: Signature::exact(types, Volatility::Immutable), _memory: memory })))
    }

    /// Whether a row with these key columns may have one of the keys; false: it has none.
    pub(super) fn may_have(&self, columns: Vec<Expr>) -> Expr {
        ScalarUDF::from(self.clone()).call(columns)
    }

    /// `rows`, those that may have a key as `change` makes them and all others as they are. `columns` of them come out, and `key` are those of the key.
    pub(super) async fn change(
        &self,
        cx: &SessionContext,
        rows: DataFrame,
        columns: Vec<Expr>,
        key: Vec<Expr>,
        change: impl FnOnce(DataFrame) -> Result<DataFrame>,
    ) -> Result<SendableRecordBatchStream> {
        let mut asked = columns;
        asked.push(self.may_have(key).alias(MAY_HAVE));
        let rows = rows.select(asked)?.execute_stream().await?;
        let given = rows.schema();
        let given = Arc::new(Schema::new(given.fields()[..given.fields().len() - 1].to_vec()));
        let (sender, receiver) = mpsc::channel(1);
        let handed = Arc::new(Handed { schema: given.clone(), rows: Mutex::new(Some(receiver)) });
        let handed = cx.read_table(Arc::new(StreamingTable::try_new(given.clone(), vec![handed])?))?;
        let changed = change(handed)?.execute_stream().await?;
        let schema = changed.schema();
        let gathered = BatchCoalescer::new(given, cx.copied_config().batch_size());
        let others = Apart { rows, gathered, sender, schema: schema.clone() };
        let others = stream::try_unfold(others, Apart::next).try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        // One task asks both in turn: while the one waits for its rows to be taken, the other takes them.
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::select(others, changed))))
    }
}

/// Rows of a table on their way: those that may have a key go to whoever changes them.
struct Apart {
    rows: SendableRecordBatchStream,
    gathered: BatchCoalescer,
    sender: mpsc::Sender<RecordBatch>,
    /// What the other rows become.
    schema: SchemaRef,
}

impl Apart {
    /// The next rows that have no key.
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        let Some(batch) = self.rows.try_next().await? else {
            self.gathered.finish_buffered_batch()?;
            self.hand_over().await?;
            return Ok(None);
        };
        let last = batch.num_columns() - 1;
        let may_have = batch.column(last).as_boolean().clone();
        let columns: Vec<usize> = (0..last).collect();
        let batch = batch.project(&columns)?;
        self.gathered.push_batch_with_filter(batch.clone(), &may_have)?;
        self.hand_over().await?;
        let others = filter_record_batch(&batch, &not(&may_have)?)?;
        Ok(Some((RecordBatch::try_new(self.schema.clone(), others.columns().to_vec())?, self)))
    }

    async fn hand_over(&mut self) -> Result<()> {
        while let Some(batch) = self.gathered.next_completed_batch() {
            let left = |_| DataFusionError::Internal("nobody takes the rows that may change".into());
            self.sender.send(batch).await.map_err(left)?;
        }
        Ok(())
    }
}

/// Rows that are handed over while a query reads them.
struct Handed {
    schema: SchemaRef,
    rows: Mutex<Option<mpsc::Receiver<RecordBatch>>>,
}

impl PartitionStream for Handed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().take().ok_or_else(|| DataFusionError::Internal("rows that are handed over are read once".into()));
        let rows = stream::iter([rows]).map_ok(|mut rows| stream::poll_fn(move |cx| rows.poll_recv(cx)).map(Ok)).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handed")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Keys {}

impl Hash for Keys {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Arc::as_ptr(&self.0).hash(hasher);
    }
}

impl ScalarUDFImpl for Keys {
    fn name(&self) -> &str {
        "may_have_key"
    }

    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns: Vec<ArrayRef> = args.args.into_iter().map(|column| column.into_array(args.number_rows)).collect::<Result<_>>()?;
        let mut hashes = vec![0; args.number_rows];
        let may_have = self.0.bloom.may_have(create_hashes(&columns, &state(), &mut hashes)?);
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(may_have, None))))
    }
}
