//! A step with several readers is computed once. Whoever asks for a batch and finds none waiting pulls the next one for all.
//! What a slower reader has not taken yet waits in memory up to a bound; then the faster one waits while the slower one goes on taking.
//! One that takes nothing for a while may itself wait for the faster, as the two sides of a join do: for it, more goes to a spill file.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{Statistics, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result as DfResult},
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use weir_connectors::spill::{SpillReader, SpillWriter};

use crate::step::{Reader, row_estimate};

/// What one reader may leave waiting in memory, per partition, and a batch. More goes to disk.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long a faster reader waits for one that takes nothing.
const PATIENCE: Duration = Duration::from_millis(250);

/// One plan with several readers.
#[derive(Debug)]
pub struct Shared {
    plan: Arc<dyn ExecutionPlan>,
    partitions: Vec<Mutex<Partition>>,
    readers: AtomicUsize,
}

impl Shared {
    /// Wraps a plan that nobody reads yet.
    pub fn new(plan: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = plan.properties().output_partitioning().partition_count();
        Self { partitions: (0..partitions).map(|_| Mutex::new(Partition::default())).collect(), plan, readers: AtomicUsize::new(0) }
    }
}

#[derive(Default)]
struct Partition {
    source: Option<SendableRecordBatchStream>,
    queues: Vec<Queue>,
    wakers: Vec<Waker>,
    end: Option<Result<(), Arc<DataFusionError>>>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({} readers)", self.queues.len())
    }
}

/// What waits for one reader.
#[derive(Default)]
struct Queue {
    gone: bool,
    /// When it last took something; none before the first reader began.
    taken: Option<Instant>,
    waiting: VecDeque<RecordBatch>,
    waiting_bytes: usize,
    spill: Option<Spill>,
}

/// What did not fit in memory.
struct Spill {
    writer: SpillWriter,
    reader: Option<SpillReader>,
    written: usize,
    read: usize,
}

impl Spill {
    fn create(runtime: &RuntimeEnv, schema: &SchemaRef) -> DfResult<Self> {
        let writer = SpillWriter::create(runtime, schema, "a step with several readers")?;
        Ok(Self { writer, reader: None, written: 0, read: 0 })
    }

    fn push(&mut self, batch: &RecordBatch) -> DfResult<()> {
        self.writer.write(batch)?;
        self.written += 1;
        Ok(())
    }

    fn pop(&mut self) -> DfResult<RecordBatch> {
        // What was written may still sit in the writer's buffer.
        self.writer.flush()?;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(self.writer.follow()?),
        };
        let batch = reader.next().ok_or_else(|| DataFusionError::Internal("a spill file ended early".into()))??;
        self.read += 1;
        Ok(batch)
    }
}

impl Queue {
    fn push(&mut self, batch: &RecordBatch, runtime: &RuntimeEnv) -> DfResult<()> {
        if self.gone {
            return Ok(());
        }
        if let Some(spill) = &mut self.spill {
            return spill.push(batch);
        }
        let bytes = batch.get_array_memory_size();
        if self.is_full() {
            let mut spill = Spill::create(runtime, &batch.schema())?;
            spill.push(batch)?;
            self.spill = Some(spill);
            return Ok(());
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(batch.clone());
        Ok(())
    }

    fn pop(&mut self) -> DfResult<Option<RecordBatch>> {
        if let Some(batch) = self.waiting.pop_front() {
            self.waiting_bytes -= batch.get_array_memory_size().min(self.waiting_bytes);
            return Ok(Some(batch));
        }
        let Some(spill) = &mut self.spill else { return Ok(None) };
        let batch = spill.pop()?;
        if spill.read == spill.written {
            self.spill = None;
        }
        Ok(Some(batch))
    }

    /// More would go to disk.
    fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX || self.spill.is_some()
    }
}

impl Partition {
    /// Until when others have time to take some of what waits for them, before more is pulled; none where nobody is waited for.
    fn others_have_until(&self, reader: usize, now: Instant) -> Option<Instant> {
        let others = self.queues.iter().enumerate().filter(|(at, queue)| *at != reader && queue.is_full());
        others.filter_map(|(_, queue)| Some(queue.taken? + PATIENCE)).filter(|until| *until > now).max()
    }

    fn poll(
        &mut self,
        reader: usize,
        cx: &mut Context<'_>,
        runtime: &RuntimeEnv,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Poll<Option<DfResult<RecordBatch>>> {
        let now = Instant::now();
        let queue = &mut self.queues[reader];
        queue.taken = Some(now);
        let was_full = queue.is_full();
        let waiting = queue.pop().transpose();
        if was_full && !queue.is_full() {
            self.wake();
        }
        if let Some(batch) = waiting {
            return Poll::Ready(Some(batch));
        }
        match &self.end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(DataFusionError::Shared(error.clone())))),
            None => {}
        }
        if let Some(until) = self.others_have_until(reader, now) {
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            timer.as_mut().reset(until);
            if timer.as_mut().poll(cx).is_pending() {
                self.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        // Every waiting reader is woken when the source moves: which of them polls it next does not matter.
        self.wakers.push(cx.waker().clone());
        let all = futures::task::waker(Arc::new(WakeAll(Mutex::new(self.wakers.clone()))));
        let source = self.source.as_mut().expect("a partition is executed before it is polled");
        let next = source.poll_next_unpin(&mut Context::from_waker(&all));
        if next.is_ready() {
            self.wake();
        }
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(batch))) => {
                for (at, queue) in self.queues.iter_mut().enumerate() {
                    if at != reader
                        && let Err(error) = queue.push(&batch, runtime)
                    {
                        return self.fail(error);
                    }
                }
                Poll::Ready(Some(Ok(batch)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(error),
            Poll::Ready(None) => {
                self.source = None;
                self.end = Some(Ok(()));
                Poll::Ready(None)
            }
        }
    }

    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }

    fn fail(&mut self, error: DataFusionError) -> Poll<Option<DfResult<RecordBatch>>> {
        let error = Arc::new(error);
        self.source = None;
        self.end = Some(Err(error.clone()));
        Poll::Ready(Some(Err(DataFusionError::Shared(error))))
    }
}

struct WakeAll(Mutex<Vec<Waker>>);

impl futures::task::ArcWake for WakeAll {
    fn wake_by_ref(this: &Arc<Self>) {
        for waker in this.0.lock().drain(..) {
            waker.wake();
        }
    }
}

/// One reader of a step. With a single reader it passes batches on; a leaf to the optimizer either way.
#[derive(Debug)]
pub struct SharedExec {
    from: From,
    projection: Option<Vec<usize>>,
    counts: Arc<Reader>,
    properties: Arc<PlanProperties>,
}

#[derive(Debug)]
enum From {
    Alone(Arc<dyn ExecutionPlan>),
    Shared(Arc<Shared>, usize),
}

impl SharedExec {
    /// The only reader of a plan.
    pub fn alone(plan: Arc<dyn ExecutionPlan>, counts: Arc<Reader>) -> Self {
        let properties = plan.properties().clone();
        Self { from: From::Alone(plan), projection: None, counts, properties }
    }

    /// One more reader of a shared plan.
    pub fn reader(shared: Arc<Shared>, projection: Option<Vec<usize>>, counts: Arc<Reader>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let inner = shared.plan.properties();
        let properties = match &projection {
            None => inner.clone(),
            Some(columns) => Arc::new(PlanProperties::new(
                EquivalenceProperties::new(Arc::new(shared.plan.schema().project(columns)?)),
                datafusion::physical_expr::Partitioning::UnknownPartitioning(inner.output_partitioning().partition_count()),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )),
        };
        let index = shared.readers.fetch_add(1, Ordering::Relaxed);
        for partition in &shared.partitions {
            partition.lock().queues.push(Queue { gone: true, ..Queue::default() });
        }
        Ok(Arc::new(Self { from: From::Shared(shared, index), projection, counts, properties }))
    }

    /// Announces that this reader will be executed, before any is: from now on batches wait for it. A reader that the
    /// optimizer planned away is never announced, and nothing waits for it.
    fn arm(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        match &self.from {
            From::Alone(plan) => Some(plan),
            From::Shared(shared, index) => {
                let mut first = true;
                for partition in &shared.partitions {
                    let mut partition = partition.lock();
                    first &= partition.queues.iter().all(|queue| queue.gone);
                    partition.queues[*index].gone = false;
                }
                first.then_some(&shared.plan)
            }
        }
    }
}

/// Arms every reader in a plan that is about to be executed.
pub fn arm(plan: &Arc<dyn ExecutionPlan>) {
    let inner = if let Some(reader) = plan.downcast_ref::<SharedExec>() {
        reader.arm()
    } else {
        plan.downcast_ref::<crate::step::StepExec>().map(crate::step::StepExec::inner)
    };
    if let Some(inner) = inner {
        arm(inner);
    }
    for child in plan.children() {
        arm(child);
    }
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.from {
            From::Alone(_) => write!(f, "SharedExec: alone"),
            From::Shared(_, index) => write!(f, "SharedExec: reader {index}"),
        }
    }
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &str {
        "SharedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let stream: SendableRecordBatchStream = match &self.from {
            From::Alone(plan) => plan.execute(partition, context)?,
            From::Shared(shared, index) => {
                let runtime = context.runtime_env();
                {
                    let mut state = shared.partitions[partition].lock();
                    if state.source.is_none() && state.end.is_none() {
                        state.source = Some(shared.plan.execute(partition, context)?);
                        let now = Instant::now();
                        state.queues.iter_mut().for_each(|queue| queue.taken = Some(now));
                    }
                }
                Box::pin(SharedStream { shared: shared.clone(), partition, reader: *index, runtime, timer: None })
            }
        };
        let counted = Counted { inner: stream, counts: self.counts.clone(), ended: false };
        match self.projection.clone() {
            None => Ok(Box::pin(counted)),
            Some(columns) => {
                let projected = counted.map(move |batch| Ok(batch?.project(&columns)?));
                Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), projected)))
            }
        }
    }

    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Arc<Statistics>> {
        match &self.from {
            From::Alone(plan) => row_estimate(plan, partition, &self.schema()),
            From::Shared(shared, _) => row_estimate(&shared.plan, partition, &self.schema()),
        }
    }
}

struct SharedStream {
    shared: Arc<Shared>,
    partition: usize,
    reader: usize,
    runtime: Arc<RuntimeEnv>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream for SharedStream {
    type Item = DfResult<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { shared, partition, reader, runtime, timer } = self.get_mut();
        shared.partitions[*partition].lock().poll(*reader, cx, runtime, timer)
    }
}

impl RecordBatchStream for SharedStream {
    fn schema(&self) -> SchemaRef {
        self.shared.plan.schema()
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        let mut partition = self.shared.partitions[self.partition].lock();
        partition.queues[self.reader] = Queue { gone: true, ..Queue::default() };
        let abandoned = match partition.queues.iter().all(|queue| queue.gone) && partition.end.is_none() {
            true => {
                partition.end = Some(Ok(()));
                partition.source.take()
            }
            false => None,
        };
        // The one that left may have been the one to be woken, or to be waited for.
        partition.wake();
        // What nobody reads any more is left for good: its step's account stays open, its threads end.
        drop(partition);
        drop(abandoned);
    }
}

/// Counts what a reader takes.
struct Counted {
    inner: SendableRecordBatchStream,
    counts: Arc<Reader>,
    ended: bool,
}

impl Stream for Counted {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.inner.poll_next_unpin(cx);
        match &next {
            Poll::Ready(Some(Ok(batch))) => {
                self.counts.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            }
            Poll::Ready(None) => self.ended = true,
            _ => {}
        }
        next
    }
}

impl RecordBatchStream for Counted {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.ended {
            self.counts.stopped_early.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field, Int64Type, Schema},
    };
    use datafusion::{datasource::memory::MemorySourceConfig, prelude::SessionContext};

    use super::*;

    fn batches(count: i64, rows: i64) -> (SchemaRef, Vec<RecordBatch>) {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batches = (0..count)
            .map(|batch| {
                let values = Int64Array::from_iter_values(batch * rows..(batch + 1) * rows);
                RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).expect("one column")
            })
            .collect();
        (schema, batches)
    }

    async fn sum(mut stream: SendableRecordBatchStream) -> i64 {
        let mut sum = 0;
        while let Some(batch) = stream.next().await {
            sum += batch.expect("reads").column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        }
        sum
    }

    #[tokio::test]
    async fn a_reader_that_starts_when_the_other_has_ended_sees_the_same_rows_from_disk() {
        let (schema, batches) = batches(400, 8192);
        let expected: i64 = (0..400 * 8192).sum();
        let plan = MemorySourceConfig::try_new_exec(&[batches], schema, None).expect("plans");
        let shared = Arc::new(Shared::new(plan));
        let counts: Vec<Arc<Reader>> = (0..3).map(|_| Arc::default()).collect();
        let readers: Vec<_> =
            counts.iter().map(|counts| SharedExec::reader(shared.clone(), None, counts.clone()).expect("plans")).collect();
        readers.iter().for_each(arm);
        let context = SessionContext::new().task_ctx();
        let mut streams: Vec<_> = readers.iter().map(|reader| reader.execute(0, context.clone()).expect("runs")).collect();
        let early = streams.pop().expect("three");
        drop(early);
        let late = streams.pop().expect("two");
        assert_eq!(sum(streams.pop().expect("one")).await, expected);
        assert!(shared.partitions[0].lock().queues[1].spill.is_some(), "26 MB do not wait in memory");
        assert_eq!(sum(late).await, expected);
        assert_eq!(counts[0].rows.load(Ordering::Relaxed), 400 * 8192);
        assert_eq!(counts[1].rows.load(Ordering::Relaxed), 400 * 8192);
        assert!(counts[2].stopped_early.load(Ordering::Relaxed));
        assert!(!counts[0].stopped_early.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_fast_reader_waits_for_one_that_goes_on_taking_and_only_for_such_a_one() {
        let (schema, batches) = batches(400, 8192);
        let expected: i64 = (0..400 * 8192).sum();
        let plan = MemorySourceConfig::try_new_exec(&[batches], schema, None).expect("plans");
        let shared = Arc::new(Shared::new(plan));
        let readers: Vec<_> = (0..2).map(|_| SharedExec::reader(shared.clone(), None, Arc::default()).expect("plans")).collect();
        readers.iter().for_each(arm);
        let context = SessionContext::new().task_ctx();
        let mut streams: Vec<_> = readers.iter().map(|reader| reader.execute(0, context.clone()).expect("runs")).collect();
        let (mut slow, mut fast) = (streams.pop().expect("two"), streams.pop().expect("one"));
        // The slow one's clock is the test's, not the machine's.
        let taken = |at: Instant| shared.partitions[0].lock().queues[1].taken = Some(at);
        let has_spilt = || shared.partitions[0].lock().queues[1].spill.is_some();
        let later = Instant::now() + Duration::from_secs(3600);

        taken(later);
        let mut ahead = 0;
        while let Poll::Ready(next) = futures::poll!(fast.next()) {
            next.expect("more").expect("reads");
            ahead += 1;
        }
        assert_eq!((ahead * 8192 * 8 / WAITING_BYTES_MAX, has_spilt()), (1, false), "{ahead} batches ahead");
        let waiting = tokio::spawn(async move { (fast.next().await.expect("more").expect("reads"), fast) });
        slow.next().await.expect("one").expect("reads");
        taken(later);
        let (_, fast) = waiting.await.expect("woken by what the slow one took");
        assert!(!has_spilt());

        taken(Instant::now() - PATIENCE);
        let ahead: i64 = (0..(ahead as i64 + 1) * 8192).sum();
        assert_eq!(sum(fast).await, expected - ahead);
        assert!(has_spilt(), "the rest does not wait in memory");
        assert_eq!(sum(slow).await, expected - (0..8192).sum::<i64>());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_on_two_threads_see_the_same_rows() {
        let (schema, batches) = batches(300, 100);
        let expected: i64 = (0..300 * 100).sum();
        let plan = MemorySourceConfig::try_new_exec(&[batches], schema, None).expect("plans");
        let shared = Arc::new(Shared::new(plan));
        let readers: Vec<_> = (0..2).map(|_| SharedExec::reader(shared.clone(), None, Arc::default()).expect("plans")).collect();
        readers.iter().for_each(arm);
        let context = SessionContext::new().task_ctx();
        let tasks: Vec<_> = readers.iter().map(|reader| tokio::spawn(sum(reader.execute(0, context.clone()).expect("runs")))).collect();
        for task in tasks {
            assert_eq!(task.await.expect("ends"), expected);
        }
    }

    #[tokio::test]
    async fn a_step_that_all_readers_leave_is_left_too_and_not_read_to_its_end() {
        let (schema, batches) = batches(400, 8192);
        let plan = MemorySourceConfig::try_new_exec(&[batches], schema, None).expect("plans");
        let shared = Arc::new(Shared::new(plan));
        let readers: Vec<_> = (0..2).map(|_| SharedExec::reader(shared.clone(), None, Arc::default()).expect("plans")).collect();
        readers.iter().for_each(arm);
        let context = SessionContext::new().task_ctx();
        let mut streams: Vec<_> = readers.iter().map(|reader| reader.execute(0, context.clone()).expect("runs")).collect();
        assert_eq!(streams[0].next().await.expect("one").expect("reads").num_rows(), 8192);
        drop(streams.pop());
        assert!(shared.partitions[0].lock().source.is_some(), "one reader is still there");
        drop(streams);
        let partition = shared.partitions[0].lock();
        assert!(partition.source.is_none(), "nobody reads any more, and the source is still held");
        assert!(matches!(partition.end, Some(Ok(()))));
    }
}
