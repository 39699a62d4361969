//! A step as a table: planned on its own, counted and checked at its boundary. Projections go through. Filters stop there, so that
//! rows are counted before anybody leaves them out; only a database that can leave them out itself, before they are read, is told. Who reads it twice is answered by [`crate::share`].

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result as DfResult},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use weir_connectors::{Reject, Rejects, error::Beneath};

use crate::{
    share::{Shared, SharedExec},
    trace::Trail,
};

/// Source or transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows come from outside.
    Source,
    /// Rows come from other steps.
    Transform,
}

impl Role {
    /// The word of the books.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
        }
    }
}

/// What a step's rows are made from.
#[derive(Debug)]
pub enum Input {
    /// An opened source.
    Provider(Arc<dyn TableProvider>),
    /// A plan over other steps' tables.
    Plan(LogicalPlan),
}

/// Splits a batch into good rows and rejects, at the step's boundary.
pub trait RowCheck: fmt::Debug + Send + Sync {
    /// What good rows look like.
    fn schema(&self) -> SchemaRef;
    /// Returns the good rows, in order, and the others. Good and rejected rows together are the batch's rows.
    fn apply(&self, batch: RecordBatch) -> DfResult<(RecordBatch, Vec<Reject>)>;
}

/// One source or transform of one run.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Source or transform.
    pub role: Role,
    /// `file`, `sql`, `filter`, …
    pub kind: String,
    /// What readers see.
    pub schema: SchemaRef,
    /// What its rows are made from.
    pub input: Input,
    /// Checks made at its boundary, in order.
    pub checks: Vec<Arc<dyn RowCheck>>,
    /// Takes the rows that fail them.
    pub rejects: Arc<dyn Rejects>,
    /// Stops its streams.
    pub cancel: CancellationToken,
    /// Rows that left it.
    pub rows_out: Arc<AtomicU64>,
    /// True once it was left before its end, as a `limit` downstream does: then its account is open.
    pub partial: AtomicBool,
    /// Streams that were read to their end, and how many there are.
    ended: AtomicUsize,
    streams: AtomicUsize,
    readers: AtomicUsize,
    scans: AtomicUsize,
    /// While any reader lives: the plan holds the step, which must not hold the plan.
    shared: Mutex<Weak<Shared>>,
    trail: Trail,
}

impl Step {
    /// A step nobody reads yet.
    pub fn new(
        name: String,
        role: Role,
        kind: String,
        input: Input,
        checks: Vec<Arc<dyn RowCheck>>,
        rejects: Arc<dyn Rejects>,
        cancel: CancellationToken,
    ) -> Self {
        let schema = match (checks.last(), &input) {
            (Some(check), _) => check.schema(),
            (None, Input::Provider(table)) => table.schema(),
            (None, Input::Plan(plan)) => Arc::new(plan.schema().as_arrow().clone()),
        };
        Self {
            name,
            role,
            kind,
            schema,
            input,
            checks,
            rejects,
            cancel,
            rows_out: Arc::default(),
            partial: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            scans: AtomicUsize::new(0),
            shared: Mutex::default(),
            trail: Trail::here(),
        }
    }

    /// True when every row was asked for: none of its streams was left before its end, or never begun.
    pub fn read_to_end(&self) -> bool {
        let streams = self.streams.load(Ordering::Relaxed);
        streams > 0 && self.ended.load(Ordering::Relaxed) >= streams && !self.partial.load(Ordering::Relaxed)
    }

    /// Says that one more reader will scan it. All readers are announced before the first plans.
    pub fn announce_reader(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// How many readers were announced.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// The source's own table, where it may be asked for fewer rows: only one reader is there to ask, and no check has to see them all.
    fn narrows(&self) -> Option<&Arc<dyn TableProvider>> {
        match &self.input {
            Input::Provider(table) if self.checks.is_empty() && self.readers() <= 1 => Some(table),
            _ => None,
        }
    }

    async fn plan(
        self: &Arc<Self>,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        // A check has to see whole rows, so the projection is applied behind it.
        let (inner, outer) = if self.checks.is_empty() { (projection, None) } else { (None, projection.cloned()) };
        let input = match &self.input {
            Input::Provider(table) => table.scan(session, inner, filters, limit).await?,
            Input::Plan(plan) => {
                let plan = match inner {
                    Some(columns) => {
                        let columns: Vec<Expr> = columns.iter().map(|&at| Expr::Column(plan.schema().columns()[at].clone())).collect();
                        LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()?
                    }
                    None => plan.clone(),
                };
                session.create_physical_plan(&plan).await?
            }
        };
        Ok(Arc::new(StepExec::new(self.clone(), input, outer)?))
    }
}

/// One reader's view of a step.
#[derive(Debug)]
pub struct StepTable {
    step: Arc<Step>,
    reader: Arc<Reader>,
}

/// What one reader took from a step.
#[derive(Debug, Default)]
pub struct Reader {
    /// Rows it took.
    pub rows: AtomicU64,
    /// True once it stopped before the end, as a `limit` does.
    pub stopped_early: AtomicBool,
}

impl StepTable {
    /// A view whose rows are counted in `reader`.
    pub fn new(step: Arc<Step>, reader: Arc<Reader>) -> Self {
        Self { step, reader }
    }
}

#[async_trait]
impl TableProvider for StepTable {
    fn schema(&self) -> SchemaRef {
        self.step.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        match self.step.narrows() {
            Some(table) => table.supports_filters_pushdown(filters),
            None => Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]),
        }
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let scans = self.step.scans.fetch_add(1, Ordering::Relaxed) + 1;
        if self.step.readers() <= 1 {
            if scans > 1 {
                return Err(DataFusionError::Internal(format!("step \"{}\" has one reader and was planned twice", self.step.name)));
            }
            let limit = limit.filter(|_| self.step.narrows().is_some());
            let plan = self.step.plan(session, projection, filters, limit).await?;
            return Ok(Arc::new(SharedExec::alone(plan, self.reader.clone())));
        }
        let mut known = self.step.shared.lock().await;
        let shared = match known.upgrade() {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(Shared::new(self.step.plan(session, None, &[], None).await?));
                *known = Arc::downgrade(&shared);
                shared
            }
        };
        SharedExec::reader(shared, projection.cloned(), self.reader.clone())
    }
}

/// Marks errors with the step they arose in: the innermost step's mark stays.
const MARK: &str = "in step ";

/// Wraps an error in the mark of a step, unless it bears one.
pub fn mark(step: &str, error: DataFusionError) -> DataFusionError {
    match marked(&error) {
        Some(_) => error,
        None => DataFusionError::Context(format!("{MARK}{step}"), Box::new(error)),
    }
}

/// The step an error arose in.
pub fn marked(error: &DataFusionError) -> Option<&str> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(DataFusionError::Context(text, _)) = error.downcast_ref()
            && let Some(step) = text.strip_prefix(MARK)
        {
            return Some(step);
        }
        // A sink tells what the rows' own connector said, and keeps the rest beneath.
        current = match error.downcast_ref::<Beneath<DataFusionError>>() {
            Some(Beneath(inner)) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// A step's boundary: checks, counts, projects. A leaf to the optimizer, which has planned the inside already.
#[derive(Debug)]
pub struct StepExec {
    step: Arc<Step>,
    input: Arc<dyn ExecutionPlan>,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl StepExec {
    fn new(step: Arc<Step>, input: Arc<dyn ExecutionPlan>, projection: Option<Vec<usize>>) -> DfResult<Self> {
        let properties = if step.checks.is_empty() {
            input.properties().clone()
        } else {
            let schema = match &projection {
                Some(columns) => Arc::new(step.schema.project(columns)?),
                None => step.schema.clone(),
            };
            Arc::new(PlanProperties::new(
                EquivalenceProperties::new(schema),
                Partitioning::UnknownPartitioning(input.properties().output_partitioning().partition_count()),
                EmissionType::Incremental,
                Boundedness::Bounded,
            ))
        };
        step.streams.store(input.properties().output_partitioning().partition_count(), Ordering::Relaxed);
        Ok(Self { step, input, projection, properties })
    }

    /// The plan inside.
    pub fn inner(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }
}

impl DisplayAs for StepExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StepExec: {}", self.step.name)
    }
}

/// Passes every batch of a step through its checks and its counter.
fn pass(step: &Step, projection: Option<&Vec<usize>>, batch: RecordBatch) -> DfResult<RecordBatch> {
    if step.cancel.is_cancelled() {
        return Err(DataFusionError::Execution("cancelled".into()));
    }
    let mut batch = batch;
    for check in &step.checks {
        let (good, rejects) = check.apply(batch)?;
        if !rejects.is_empty() {
            step.rejects.reject(rejects)?;
        }
        batch = good;
    }
    step.rows_out.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
    match projection {
        Some(columns) => Ok(batch.project(columns)?),
        None => Ok(batch),
    }
}

impl ExecutionPlan for StepExec {
    fn name(&self) -> &str {
        "StepExec"
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
        let step = self.step.clone();
        let projection = self.projection.clone();
        let working = self.step.trail.begin(&self.step, self.step.streams.load(Ordering::Relaxed));
        let stream = working.span.in_scope(|| self.input.execute(partition, context)).map_err(|error| mark(&step.name, error))?;
        let ended = Ended { step: self.step.clone(), ended: false };
        let stream = futures::stream::unfold((stream, ended, working), move |(mut stream, mut ended, working)| {
            let (step, projection) = (step.clone(), projection.clone());
            let span = working.span.clone();
            let next = async move {
                let Some(batch) = stream.next().await else {
                    ended.note();
                    return None;
                };
                let passed = batch.and_then(|batch| pass(&step, projection.as_ref(), batch));
                Some((passed.map_err(|error| mark(&step.name, error)), (stream, ended, working)))
            };
            next.instrument(span)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Arc<Statistics>> {
        row_estimate(&self.input, partition, &self.schema())
    }
}

/// Notes on its step when a stream is left before its end.
struct Ended {
    step: Arc<Step>,
    ended: bool,
}

impl Ended {
    fn note(&mut self) {
        self.ended = true;
        self.step.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.ended {
            self.step.partial.store(true, Ordering::Relaxed);
        }
    }
}

/// What is known of a plan's size, as an estimate: enough for the choice of a join's sides.
pub fn row_estimate(plan: &Arc<dyn ExecutionPlan>, partition: Option<usize>, schema: &SchemaRef) -> DfResult<Arc<Statistics>> {
    let _ = partition;
    let inner = datafusion::physical_plan::statistics::StatisticsContext::new()
        .compute(plan.as_ref(), &datafusion::physical_plan::statistics::StatisticsArgs::new())?;
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = inner.num_rows.to_inexact();
    statistics.total_byte_size = inner.total_byte_size.to_inexact();
    Ok(Arc::new(statistics))
}
