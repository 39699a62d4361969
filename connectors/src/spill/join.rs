//! A join that goes to disk where its build side is large: both sides are split by the hash of the key, and part after part is joined ("grace hash
//! join"). Rows of the probe side that have no match are left out before they are written, where the kind of join does not ask for them. DataFusion
//! joins what fits, and each part.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::{filter_record_batch, interleave_record_batch},
    datatypes::SchemaRef,
};
use datafusion::{
    common::{
        JoinType,
        config::ConfigOptions,
        hash_utils,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnv,
    },
    physical_expr::{PhysicalExpr, PhysicalExprRef},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        empty::EmptyExec,
        joins::{HashJoinExec, PartitionMode},
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::{SpillWriter, Spilled, alone, bloom::Bloom, table};

/// Into how many parts a side is split at once.
const PARTS: usize = 16;

/// A part that is still too large is split again, so often at most: what does not get smaller by then has one key.
const DEPTH_MAX: u64 = 4;

/// A build side of less than this is not split, whatever the limit.
const BUILD_MIN: usize = 4 << 10;

/// What a row of the build side takes in DataFusion's hash table, besides itself: more than itself, where it is a key of numbers.
const HASHED_BYTES: usize = 32;

/// Rows of a side that are gathered before they are written to their parts.
const GATHERED_ROWS: usize = 32 << 10;

/// Lets hash joins go to disk.
#[derive(Debug)]
pub struct SpillJoins {
    /// A build side and its hash table stay in memory up to this share of the limit. DataFusion needs about twice what the rows take, while it builds.
    pub share: usize,
}

impl PhysicalOptimizerRule for SpillJoins {
    fn name(&self) -> &str {
        "spill_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let spilling = |node: Arc<dyn ExecutionPlan>| match node.downcast_ref::<HashJoinExec>() {
            Some(join) if may_split(join) => {
                Ok(Transformed::yes(Arc::new(SpillingJoin::new(join, self.share, 0)?) as Arc<dyn ExecutionPlan>))
            }
            _ => Ok(Transformed::no(node)),
        };
        plan.transform_up(spilling).data()
    }
}

/// Whether joining part by part gives the same: each stream has a build side of its own, nobody counts on an order or on a number of rows, and no row
/// needs to know of all others.
fn may_split(join: &HashJoinExec) -> bool {
    let streams = |side: &Arc<dyn ExecutionPlan>| side.properties().output_partitioning().partition_count();
    let has_own = *join.partition_mode() == PartitionMode::Partitioned || (streams(join.left()) == 1 && streams(join.right()) == 1);
    has_own && !join.null_aware && join.fetch().is_none() && join.properties().output_ordering().is_none()
}

/// Whether a row of the probe side that matches nothing comes out, or keeps others from coming out.
fn keeps_unmatched(join: JoinType) -> bool {
    matches!(join, JoinType::Right | JoinType::Full | JoinType::RightAnti | JoinType::RightMark)
}

/// A hash join that goes to disk where its build side does not fit.
#[derive(Debug, Clone)]
struct SpillingJoin {
    join: Arc<HashJoinExec>,
    /// The same join, of streams that were begun before.
    begun: Arc<HashJoinExec>,
    left: Arc<Begun>,
    right: Arc<Begun>,
    share: usize,
    /// How often its rows have been split already.
    depth: u64,
    metrics: ExecutionPlanMetricsSet,
}

impl SpillingJoin {
    fn new(join: &HashJoinExec, share: usize, depth: u64) -> Result<Self> {
        let (left, right) = (Begun::of(join.left()), Begun::of(join.right()));
        let begun = join.builder().with_new_children(vec![left.clone(), right.clone()])?.build()?;
        let join = join.builder().build()?;
        Ok(Self { join: Arc::new(join), begun: Arc::new(begun), left, right, share, depth, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// How many bytes of the build side a stream keeps in memory. None: as many as there are.
    fn build_bytes_max(&self, pool: &Arc<dyn MemoryPool>) -> Option<usize> {
        let streams = self.join.properties().output_partitioning().partition_count();
        match pool.memory_limit() {
            MemoryLimit::Finite(limit) if self.depth < DEPTH_MAX => Some((limit / self.share / streams.max(1)).max(BUILD_MIN)),
            _ => None,
        }
    }

    /// DataFusion's join of one stream, of what was begun.
    fn in_memory(
        &self,
        partition: usize,
        left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.left.give(partition, left);
        self.right.give(partition, right);
        self.begun.execute(partition, context)
    }

    /// Other streams of this join may wait to hear which keys this one has, to tell a source: it has any.
    fn tell_nothing(&self, partition: usize, context: Arc<TaskContext>) -> Result<()> {
        if *self.join.partition_mode() == PartitionMode::Partitioned {
            let none = |side: &Arc<dyn ExecutionPlan>| replay(side.schema(), Vec::new(), None);
            drop(self.in_memory(partition, none(self.join.left()), none(self.join.right()), context)?);
        }
        Ok(())
    }

    /// The join of two parts, which may be split once more.
    fn of_parts(&self, left: Part, right: Part, is_smaller: bool) -> Result<Self> {
        let plan = |part: Part, side: &Arc<dyn ExecutionPlan>| match part {
            Some(rows) => table::plan(rows),
            None => Arc::new(EmptyExec::new(side.schema())),
        };
        let sides = vec![plan(left, self.join.left()), plan(right, self.join.right())];
        let join = self.join.builder().reset_state().with_new_children(sides)?;
        Self::new(
            &join.with_partition_mode(PartitionMode::Partitioned).build()?,
            self.share,
            if is_smaller { self.depth + 1 } else { DEPTH_MAX },
        )
    }
}

/// Rows of one side whose keys' hashes are alike; none where there are none.
type Part = Option<Spilled>;

/// What a stream of a join works with.
struct Work {
    plan: Arc<SpillingJoin>,
    partition: usize,
    context: Arc<TaskContext>,
    /// Counted in the plan's metrics.
    spills: Count,
    spilled_rows: Count,
}

impl Work {
    async fn join(
        self,
        mut left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
        most: usize,
    ) -> Result<SendableRecordBatchStream> {
        let schema = left.schema();
        let memory = MemoryConsumer::new("join").with_can_spill(true).register(self.context.memory_pool());
        let (mut held, mut bytes) = (Vec::new(), 0);
        let next = loop {
            let Some(batch) = left.try_next().await? else { break None };
            let size = batch.get_array_memory_size() + batch.num_rows() * HASHED_BYTES;
            if bytes + size > most || memory.try_grow(size).is_err() {
                break Some(batch);
            }
            bytes += size;
            held.push((batch, size));
        };
        let Some(next) = next else {
            return self.plan.in_memory(self.partition, replay(schema, held, Some(memory)), right, self.context.clone());
        };
        self.plan.tell_nothing(self.partition, self.context.clone())?;
        let first = replay(schema.clone(), held, Some(memory));
        let rest = stream::iter([Ok(next)]).chain(left);
        let left = Box::pin(RecordBatchStreamAdapter::new(schema, first.chain(rest)));
        self.split_both(left, right, most).await
    }

    async fn split_both(
        self,
        left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
        most: usize,
    ) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("join").with_can_spill(true).register(self.context.memory_pool());
        memory.try_grow(most / 2)?;
        let (on_left, on_right): (Vec<_>, Vec<_>) = self.plan.join.on().iter().cloned().unzip();
        let filters = !keeps_unmatched(*self.plan.join.join_type()) && self.plan.depth == 0;
        // Two bits for a byte that is kept in memory: ten for each key where there are several times as many.
        let mut filter = filters.then(|| Bloom::new(most / 4));
        let mut keys = self.splitter(left.schema(), on_left, most / 4);
        keys.take_all(left, |hashes| {
            if let Some(filter) = &mut filter {
                filter.insert(hashes);
            }
            None
        })
        .await?;
        let lefts = self.written(keys)?;
        let mut rows = self.splitter(right.schema(), on_right, most / 4);
        rows.take_all(right, |hashes| filter.as_ref().map(|filter| filter.may_have(hashes))).await?;
        let rights = self.written(rows)?;
        drop((filter, memory));
        let all: u64 = lefts.iter().flatten().map(Spilled::rows).sum();
        let Self { plan, context, .. } = self;
        let schema = plan.schema();
        let join = move |(left, right): (Part, Part)| {
            // What stays nearly whole has one key.
            let is_smaller = left.as_ref().map_or(0, Spilled::rows) < all - all / 16;
            plan.of_parts(left, right, is_smaller)?.execute(0, context.clone())
        };
        let parts = lefts.into_iter().zip(rights).filter(|(left, right)| left.is_some() || right.is_some());
        let joined = stream::iter(parts).map(join).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, joined)))
    }

    fn splitter(&self, schema: SchemaRef, keys: Vec<PhysicalExprRef>, bytes_max: usize) -> Splitter {
        let runtime = self.context.runtime_env();
        Splitter {
            runtime,
            schema,
            keys,
            // Of another kind at each depth, and another than the one that made this stream of rows.
            state: hash_utils::RandomState::with_seed(0x5b1e_a5ed + self.plan.depth),
            bytes_max,
            gathered: Vec::new(),
            places: (0..PARTS).map(|_| Vec::new()).collect(),
            bytes: 0,
            rows: 0,
            parts: (0..PARTS).map(|_| None).collect(),
        }
    }

    fn written(&self, splitter: Splitter) -> Result<Vec<Part>> {
        let parts = splitter.finish()?;
        self.spills.add(parts.iter().flatten().count());
        self.spilled_rows.add(parts.iter().flatten().map(|part| usize::try_from(part.rows()).unwrap_or(usize::MAX)).sum());
        Ok(parts)
    }
}

/// Splits rows by the hash of their keys.
struct Splitter {
    runtime: Arc<RuntimeEnv>,
    schema: SchemaRef,
    keys: Vec<PhysicalExprRef>,
    state: hash_utils::RandomState,
    bytes_max: usize,
    gathered: Vec<RecordBatch>,
    /// Of each part, which rows of what is gathered belong to it.
    places: Vec<Vec<(usize, usize)>>,
    bytes: usize,
    rows: usize,
    parts: Vec<Option<SpillWriter>>,
}

impl Splitter {
    /// Takes all rows that `keep` keeps by the hashes of their keys; all of them where it says nothing.
    async fn take_all(&mut self, mut rows: SendableRecordBatchStream, mut keep: impl FnMut(&[u64]) -> Option<BooleanBuffer>) -> Result<()> {
        let mut hashes = Vec::new();
        while let Some(mut batch) = rows.try_next().await? {
            let keys = self.keys.iter().map(|key| key.evaluate(&batch)?.into_array(batch.num_rows())).collect::<Result<Vec<ArrayRef>>>()?;
            hashes.clear();
            hashes.resize(batch.num_rows(), 0);
            hash_utils::create_hashes(&keys, &self.state, &mut hashes)?;
            if let Some(kept) = keep(&hashes) {
                let mut each = kept.iter();
                hashes.retain(|_| each.next().unwrap_or(true));
                batch = alone(&filter_record_batch(&batch, &BooleanArray::new(kept, None))?)?;
            }
            self.add(batch, &hashes)?;
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch, hashes: &[u64]) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let index = self.gathered.len();
        for (row, hash) in hashes.iter().enumerate() {
            self.places[(hash >> 32) as usize % PARTS].push((index, row));
        }
        self.bytes += batch.get_array_memory_size();
        self.rows += batch.num_rows();
        self.gathered.push(batch);
        if self.bytes >= self.bytes_max || self.rows >= GATHERED_ROWS {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let gathered: Vec<&RecordBatch> = self.gathered.iter().collect();
        for (places, part) in self.places.iter_mut().zip(&mut self.parts) {
            if places.is_empty() {
                continue;
            }
            let writer = match part {
                Some(writer) => writer,
                None => part.insert(SpillWriter::create(&self.runtime, &self.schema, "join")?),
            };
            writer.write(&interleave_record_batch(&gathered, places)?)?;
            places.clear();
        }
        self.gathered.clear();
        (self.bytes, self.rows) = (0, 0);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Part>> {
        self.write()?;
        self.parts.into_iter().map(|part| part.map(SpillWriter::finish).transpose()).collect()
    }
}

/// Gives batches that are held in memory, and their memory back with each.
fn replay(schema: SchemaRef, batches: Vec<(RecordBatch, usize)>, memory: Option<MemoryReservation>) -> SendableRecordBatchStream {
    let batches = batches.into_iter().map(move |(batch, bytes)| {
        if let Some(memory) = &memory {
            memory.shrink(bytes);
        }
        Ok(batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches)))
}

impl DisplayAs for SpillingJoin {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.join.fmt_as(kind, f)
    }
}

impl ExecutionPlan for SpillingJoin {
    fn name(&self) -> &str {
        "SpillingJoin"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.join.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(&self.join.builder().with_new_children(children)?.build()?, self.share, self.depth)?))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(&self.join.builder().reset_state().build()?, self.share, self.depth)?))
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // Both sides begin now: what runs beside them counts on that.
        let left = self.join.left().execute(partition, context.clone())?;
        let right = self.join.right().execute(partition, context.clone())?;
        let Some(most) = self.build_bytes_max(context.memory_pool()) else { return self.in_memory(partition, left, right, context) };
        let spills = MetricBuilder::new(&self.metrics).spill_count(partition);
        let spilled_rows = MetricBuilder::new(&self.metrics).spilled_rows(partition);
        let work = Work { plan: Arc::new(self.clone()), partition, context, spills, spilled_rows };
        let joined = stream::once(work.join(left, right, most)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), joined)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.begun.metrics().unwrap_or_default();
        self.metrics.clone_inner().iter().for_each(|metric| metrics.push(metric.clone()));
        Some(metrics)
    }
}

/// Streams that are given, by their number.
type Streams = Mutex<BTreeMap<usize, SendableRecordBatchStream>>;

/// One side of a join whose streams were begun before: each is given, and taken once.
struct Begun {
    of: Arc<dyn ExecutionPlan>,
    given: Streams,
}

impl Begun {
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Arc<Self> {
        Arc::new(Self { of: plan.clone(), given: Streams::default() })
    }

    fn give(&self, partition: usize, stream: SendableRecordBatchStream) {
        self.given.lock().insert(partition, stream);
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({:?})", self.of)
    }
}

impl DisplayAs for Begun {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Begun")
    }
}

impl ExecutionPlan for Begun {
    fn name(&self) -> &str {
        "Begun"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.of.properties()
    }

    /// A join looks below for a source that wants to hear of its keys.
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.of]
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let given = self.given.lock().remove(&partition);
        given.ok_or_else(|| DataFusionError::Internal(format!("stream {partition} of a join was not given")))
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
