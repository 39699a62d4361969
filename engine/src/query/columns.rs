//! What may a column of one batch of rows take? No memory pool sees it: a constant text is made as often as there are rows, and `a || b` is as
//! long as both. Where a plan makes columns, each that is too large ends its statement.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, Operator},
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, Literal},
    },
    physical_plan::{
        ExecutionPlan,
        projection::{ProjectionExec, ProjectionExpr},
    },
};
use weir_connectors::Error;

/// Bytes of a constant, times the rows of a batch.
const CONSTANT_MAX: u64 = 256 << 20;
/// Bytes of any other column of a batch.
const COLUMN_MAX: u64 = 512 << 20;
/// Constants of so many bytes are small in each batch there is.
const SMALL: usize = 1 << 10;

/// The plan, with the columns that its projections make looked at.
pub(super) fn measured(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let measured = plan.transform_up(|node| {
        let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(Transformed::no(node)) };
        let mut changed = false;
        let mut columns = Vec::with_capacity(projection.expr().len());
        for column in projection.expr() {
            let expr = looked_at(column.expr.clone())?;
            changed |= expr.transformed;
            columns.push(ProjectionExpr { expr: expr.data, alias: column.alias.clone() });
        }
        match changed {
            true => Ok(Transformed::yes(Arc::new(ProjectionExec::try_new(columns, projection.input().clone())?) as Arc<dyn ExecutionPlan>)),
            false => Ok(Transformed::no(node)),
        }
    });
    Ok(measured?.data)
}

/// An expression, each of its parts that makes something large looked at.
fn looked_at(expr: Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    let whole = expr.clone();
    expr.transform_up(|part| {
        let joins = part.downcast_ref::<BinaryExpr>().is_some_and(|binary| *binary.op() == Operator::StringConcat);
        let is_whole = Arc::ptr_eq(&part, &whole) && is_large(&part);
        Ok(match joins || is_whole {
            true => Transformed::yes(Arc::new(Measured(part)) as Arc<dyn PhysicalExpr>),
            false => Transformed::no(part),
        })
    })
}

/// Whether a column may be larger than what it is made of: a constant that is not short.
fn is_large(expr: &Arc<dyn PhysicalExpr>) -> bool {
    if expr.downcast_ref::<Column>().is_some() {
        return false;
    }
    expr.downcast_ref::<Literal>().is_none_or(|literal| literal.value().size() > SMALL)
}

/// An expression that fails where its values take too much.
#[derive(Debug, Eq)]
struct Measured(Arc<dyn PhysicalExpr>);

// Who compares expressions asks what they come to.
impl PartialEq for Measured {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Measured {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Measured {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.0.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.0.nullable(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let value = self.0.evaluate(batch)?;
        let (bytes, most) = match &value {
            ColumnarValue::Scalar(value) => {
                (((value.size() - size_of_val(value)) as u64).saturating_mul(batch.num_rows() as u64), CONSTANT_MAX)
            }
            ColumnarValue::Array(array) => (array.get_buffer_memory_size() as u64, COLUMN_MAX),
        };
        if bytes > most {
            let message = format!("a column would take {bytes} bytes of one batch of rows; {most} are the most");
            return Err(DataFusionError::from(Error::user("too-much", message).help("repeat, pad or join texts less")));
        }
        Ok(value)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self(children.into_iter().next().unwrap_or_else(|| self.0.clone()))))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{physical_plan::collect, prelude::SessionContext};

    use super::*;

    async fn asked(sql: &str) -> Result<usize> {
        let context = SessionContext::new();
        let plan = measured(context.sql(sql).await?.create_physical_plan().await?)?;
        Ok(collect(plan, context.task_ctx()).await?.iter().map(RecordBatch::num_rows).sum())
    }

    #[tokio::test]
    async fn a_column_that_takes_too_much_ends_its_statement() {
        for (sql, message) in [
            (
                "select repeat('x', 100000) from generate_series(1, 100000)",
                "a column would take 819200000 bytes of one batch of rows; 268435456 are the most",
            ),
            (
                "with recursive n(t) as (select 'x' union all select t || t from n) select max(length(t)) from n",
                "bytes of one batch of rows; 536870912 are the most",
            ),
        ] {
            let error = asked(sql).await.expect_err(sql);
            assert!(error.to_string().contains(message), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_large_in_few_rows_and_small_in_many_is_answered() {
        for (sql, rows) in [
            ("select repeat('x', 10000000) from generate_series(1, 3)", 3),
            ("select 'x', 'y' || value, value + 1 from generate_series(1, 100000)", 100_000),
        ] {
            assert_eq!(asked(sql).await.expect(sql), rows);
        }
    }
}
