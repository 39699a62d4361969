//! The keys of a run, asked which rows of a table may have one of them. Nearly all rows of a large table have none: these no join has to look at.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
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
        runtime_env::RuntimeEnv,
    },
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    physical_plan::{EmptyRecordBatchStream, execute_stream, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::{DataFrame, SessionContext},
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::spill::{SpillWriter, Spilled, alone, bloom::Bloom};

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

/// Not the join's on disk, whose own filter would let the same rows through once more.
fn state() -> RandomState {
    RandomState::with_seed(0x0b10_0b5e)
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
    /// Rows that may have a key are set aside on disk until all others have gone by: what the change holds in memory and what the table's reader holds
    /// are not held at once.
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
        let aside = Arc::new(Aside { schema: given.clone(), rows: OnceLock::new() });
        let changed = change(cx.read_table(Arc::new(StreamingTable::try_new(given.clone(), vec![aside.clone()])?))?)?;
        let task = Arc::new(changed.task_ctx());
        let changed = changed.create_physical_plan().await?;
        let schema = changed.schema();
        let gathered = BatchCoalescer::new(given, cx.copied_config().batch_size());
        let others = Others { rows, gathered, runtime: cx.runtime_env(), writer: None, aside, schema: schema.clone() };
        let others = stream::try_unfold(others, Others::next).try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        let changed = stream::once(async move { execute_stream(changed, task) }).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, others.chain(changed))))
    }
}

/// Rows of a table on their way: those that may have a key are set aside.
struct Others {
    rows: SendableRecordBatchStream,
    gathered: BatchCoalescer,
    runtime: Arc<RuntimeEnv>,
    writer: Option<SpillWriter>,
    aside: Arc<Aside>,
    /// What the rows become.
    schema: SchemaRef,
}

impl Others {
    /// The next rows that have no key.
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        let Some(batch) = self.rows.try_next().await? else {
            self.gathered.finish_buffered_batch()?;
            self.set_aside()?;
            let rows = self.writer.map(SpillWriter::finish).transpose()?;
            self.aside.rows.get_or_init(|| rows);
            return Ok(None);
        };
        let last = batch.num_columns() - 1;
        let may_have = batch.column(last).as_boolean().clone();
        let columns: Vec<usize> = (0..last).collect();
        let batch = batch.project(&columns)?;
        gather(&mut self.gathered, &batch, &may_have)?;
        self.set_aside()?;
        let others = filter_record_batch(&batch, &not(&may_have)?)?;
        Ok(Some((RecordBatch::try_new(self.schema.clone(), others.columns().to_vec())?, self)))
    }

    fn set_aside(&mut self) -> Result<()> {
        while let Some(batch) = self.gathered.next_completed_batch() {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                None => self.writer.insert(SpillWriter::create(&self.runtime, &self.aside.schema, "keys of the lake sink")?),
            };
            writer.write(&batch)?;
        }
        Ok(())
    }
}

/// Adds the rows that may have a key: few rows of many batches, which would each hold the page alive that their texts stand in.
fn gather(gathered: &mut BatchCoalescer, batch: &RecordBatch, may_have: &BooleanArray) -> Result<()> {
    let few = filter_record_batch(batch, may_have)?;
    if few.num_rows() > 0 {
        gathered.push_batch(alone(&few)?)?;
    }
    Ok(())
}

/// Rows that were set aside, once the others have gone by.
struct Aside {
    schema: SchemaRef,
    rows: OnceLock<Option<Spilled>>,
}

impl PartitionStream for Aside {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        match self.rows.get() {
            Some(Some(rows)) => rows.stream(),
            Some(None) => Box::pin(EmptyRecordBatchStream::new(schema)),
            None => {
                let early = DataFusionError::Internal("rows that may have a key are read before all others have gone by".into());
                Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Err(early)])))
            }
        }
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aside")
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

#[cfg(test)]
mod tests {
    use arrow::{array::StringViewArray, datatypes::Field};

    use super::*;

    #[test]
    fn rows_that_are_gathered_hold_no_text_of_those_that_go_by() {
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, true)]));
        let mut gathered = BatchCoalescer::new(schema.clone(), 1000);
        for part in 0..100 {
            let texts: StringViewArray =
                (0..8192).map(|row| Some(format!("a text that is too long to stand in its view {}", part * 8192 + row))).collect();
            let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(texts)]).expect("a batch");
            let may_have: BooleanArray = (0..8192).map(|row| Some(row % 819 == 0)).collect();
            gather(&mut gathered, &batch, &may_have).expect("gathered");
        }
        let batch = gathered.next_completed_batch().expect("a thousand rows");
        assert_eq!(batch.num_rows(), 1000);
        assert!(batch.get_array_memory_size() < 200_000, "{} bytes", batch.get_array_memory_size());
    }
}
