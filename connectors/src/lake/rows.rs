//! The rows of a table, for DataFusion: Delta's own provider, which is shown no filter that it would run out of stack over.

use std::{borrow::Cow, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{ScanArgs, ScanResult, Session, TableProvider},
    common::{
        Constraints, Statistics,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result as DataFusionResult,
    logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType, dml::InsertOp},
    physical_plan::ExecutionPlan,
};

/// Columns, values and operators of a filter that Delta is shown. It turns `in (1, 2, 3)` into `or` within `or` within `or`, and goes down into
/// them by recursion: some thousand values took all of a thread's stack, and the process with it.
const PARTS_MAX: usize = 256;

/// A table of Delta's. Filters that are too long for it are left to DataFusion, which applies them to the rows.
#[derive(Debug)]
pub(super) struct Rows(pub Arc<dyn TableProvider>);

fn is_short(filter: &Expr) -> bool {
    let mut parts = 0;
    let walked = filter.apply(|_| {
        parts += 1;
        Ok(if parts > PARTS_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && parts <= PARTS_MAX
}

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.0.constraints()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.0.get_table_definition()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.0.get_logical_plan()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.0.get_column_default(column)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.0.statistics()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let short: Vec<&Expr> = filters.iter().copied().filter(|filter| is_short(filter)).collect();
        let mut supported = self.0.supports_filters_pushdown(&short)?.into_iter();
        let answers = filters.iter().map(|filter| {
            let supported = if is_short(filter) { supported.next() } else { None };
            supported.unwrap_or(TableProviderFilterPushDown::Unsupported)
        });
        Ok(answers.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }

    async fn scan_with_args<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> DataFusionResult<ScanResult> {
        self.0.scan_with_args(state, args).await
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.0.insert_into(state, input, insert_op).await
    }
}
