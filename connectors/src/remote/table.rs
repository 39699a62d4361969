//! The table that stands for a query of one system: a plan scans it, filters, projects and limits it as any other, and what it is then is
//! sent when it is read. Each reading asks anew.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        statistics::StatisticsArgs,
    },
};

use super::{Dialect, Statement, query::Query};
use crate::{
    browse::ListedKind,
    error::{Error, Result},
    pushdown::Filter,
};

/// A query of one system as a table.
#[derive(Debug)]
pub(crate) struct RemoteTable<D: Dialect> {
    pub system: Arc<D>,
    pub query: Arc<Query<D>>,
    /// Its columns: as many as the query's, each of another name.
    pub schema: SchemaRef,
    pub kind: ListedKind,
}

impl<D: Dialect> RemoteTable<D> {
    /// The filter as the query has it, where the system may apply it.
    pub(super) fn filter(&self, filter: &Expr) -> Option<Filter> {
        let filter = Filter::of(filter, &self.schema)?;
        let filter = filter.renamed(&|name| self.schema.index_of(name).ok().map(|index| index.to_string()))?;
        Query::Filter(self.query.clone(), vec![filter.clone()]).statement().map(|_| filter)
    }

    /// The query of a scan. Fails where a filter cannot be sent.
    pub(super) fn scanned(&self, projection: Option<&[usize]>, filters: &[Expr], limit: Option<usize>) -> Result<Arc<Query<D>>> {
        let mut query = self.query.clone();
        if !filters.is_empty() {
            let lost = |filter: &Expr| {
                Error::weir("filter-lost", format!("the filter {filter} cannot be sent to \"{}\"", self.system.connection()))
            };
            let filters = filters.iter().map(|filter| self.filter(filter).ok_or_else(|| lost(filter)));
            query = Arc::new(Query::Filter(query, filters.collect::<Result<_>>()?));
        }
        if let Some(columns) = projection {
            query = Arc::new(Query::Project(query, columns.to_vec()));
        }
        // A larger one is none, and no system takes it.
        if let Some(rows) = limit.filter(|rows| i64::try_from(*rows).is_ok()) {
            query = Arc::new(Query::Limit(query, rows));
        }
        Ok(query)
    }

    /// A number for what is asked: two tables of one number are the same query.
    pub(super) fn mark(&self) -> Result<u64> {
        let statement = self.query.sure_statement()?;
        let mut hasher = DefaultHasher::new();
        (&statement.sql, &statement.values, self.system.connection()).hash(&mut hasher);
        Ok(hasher.finish())
    }
}

#[async_trait]
impl<D: Dialect> TableProvider for RemoteTable<D> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        match self.kind {
            ListedKind::Table => TableType::Base,
            ListedKind::View => TableType::View,
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let exact = |filter: &&Expr| match self.filter(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(exact).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let query = self.scanned(projection.map(Vec::as_slice), filters, limit)?;
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        Ok(Arc::new(RemoteScan::new(self.system.clone(), &query, schema)?))
    }
}

/// One statement, asked whenever it is executed.
#[derive(Debug)]
struct RemoteScan<D: Dialect> {
    system: Arc<D>,
    statement: Arc<Statement<D>>,
    schema: SchemaRef,
    /// The system's estimate.
    rows: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl<D: Dialect> RemoteScan<D> {
    fn new(system: Arc<D>, query: &Query<D>, schema: SchemaRef) -> Result<Self> {
        let statement = Arc::new(query.sure_statement()?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let rows = estimate(query).and_then(|rows| usize::try_from(rows).ok());
        Ok(Self { system, statement, schema, rows, properties: Arc::new(properties) })
    }
}

/// How many rows there are, where a table is all that is asked for.
fn estimate<D: Dialect>(query: &Query<D>) -> Option<u64> {
    match query {
        Query::Table(table) => table.rows,
        Query::Project(input, _) => estimate(input),
        Query::Limit(input, rows) | Query::Top(input, _, rows) => Some(estimate(input)?.min(*rows as u64)),
        Query::Filter(..) | Query::Join { .. } | Query::Group { .. } => None,
    }
}

impl<D: Dialect> DisplayAs for RemoteScan<D> {
    /// Without the values, which may be anybody's.
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}, sql={}", D::QUERY, self.system.connection(), self.statement.sql)
    }
}

impl<D: Dialect> ExecutionPlan for RemoteScan<D> {
    fn name(&self) -> &str {
        D::QUERY
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(Error::weir("scan-partition", format!("there is no partition {partition} of a query of another system")).into());
        }
        Ok(Arc::clone(&self.system).rows(self.statement.clone(), self.schema.clone(), &context))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DataFusionResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.rows {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }
}
