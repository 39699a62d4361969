//! Rows given to a step from outside its pipeline: in place of what it would make, or beside it. What they are given for is the caller's;
//! which part of the dataflow they concern is `delta`'s.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result as DfResult,
    logical_expr::{Expr, TableType},
    physical_plan::{ExecutionPlan, union::UnionExec},
};
use weir_connectors::spill::Spilled;

/// How given rows meet those that a step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// They are all there is.
    Instead,
    /// They come on top.
    Beside,
}

/// Rows given to one step, before its checks.
#[derive(Debug, Clone)]
pub struct Given {
    /// The rows. A source with a contract expects its coordinates among their columns.
    pub rows: Spilled,
    /// How they meet the others.
    pub place: Place,
}

impl Given {
    /// The rows of a source's table, and these.
    pub fn beside(&self, table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        Arc::new(Both { table, given: self.rows.table() })
    }
}

/// Two tables of one schema, read as one.
#[derive(Debug)]
struct Both {
    table: Arc<dyn TableProvider>,
    given: Arc<dyn TableProvider>,
}

#[async_trait]
impl TableProvider for Both {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let table = self.table.scan(session, projection, &[], None).await?;
        let given = self.given.scan(session, projection, &[], None).await?;
        UnionExec::try_new(vec![table, given])
    }
}
