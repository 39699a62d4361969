//! Batches on disk as a table, whose size is known: a plan over it chooses the sides of a join as one over the step itself does.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;

use super::Spilled;

/// Spilled rows as a table of one stream, which can be read any number of times.
#[derive(Debug)]
pub struct SpilledTable(pub Spilled);

#[async_trait]
impl TableProvider for SpilledTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.0.schema().project(columns)?),
            None => self.0.schema().clone(),
        };
        Ok(Arc::new(SpilledExec::new(self.0.clone(), projection.cloned(), schema)))
    }
}

/// Spilled rows as a plan of one stream.
pub fn plan(rows: Spilled) -> Arc<dyn ExecutionPlan> {
    let schema = rows.schema().clone();
    Arc::new(SpilledExec::new(rows, None, schema))
}

#[derive(Debug)]
struct SpilledExec {
    rows: Spilled,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl SpilledExec {
    fn new(rows: Spilled, projection: Option<Vec<usize>>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { rows, projection, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SpilledExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SpilledExec: {} rows", self.rows.rows())
    }
}

impl ExecutionPlan for SpilledExec {
    fn name(&self) -> &str {
        "SpilledExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.rows.stream();
        let Some(columns) = self.projection.clone() else { return Ok(rows) };
        let rows = rows.map(move |batch| Ok(batch?.project(&columns)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Exact(usize::try_from(self.rows.rows()).unwrap_or(usize::MAX));
        Ok(Arc::new(statistics))
    }
}
