//! Floating point numbers in Parquet files. The bounds that a file has of them leave NaN out, which is greater than every number when rows are
//! compared: who passes over rows by these bounds loses those with NaN, or takes one value for all of a column that holds two.

use std::{
    collections::HashSet,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::Result,
    logical_expr::ColumnarValue,
    physical_expr::{PhysicalExpr, expressions::Column},
    physical_expr_adapter::{DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory},
};

/// Whether values are floating point numbers.
pub fn is_float(kind: &DataType) -> bool {
    matches!(kind, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// What a scan of Parquet takes filters through, so that none passes over rows by the bounds of these columns: each row is looked at.
pub fn unbounded(columns: impl IntoIterator<Item = String>) -> Arc<dyn PhysicalExprAdapterFactory> {
    Arc::new(Unbounded { columns: Arc::new(columns.into_iter().collect()) })
}

#[derive(Debug, Clone)]
struct Unbounded {
    columns: Arc<HashSet<String>>,
}

impl PhysicalExprAdapterFactory for Unbounded {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let inner = DefaultPhysicalExprAdapterFactory.create(table, file)?;
        Ok(Arc::new(Adapter { inner, columns: self.columns.clone() }))
    }
}

#[derive(Debug)]
struct Adapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    columns: Arc<HashSet<String>>,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.inner.rewrite(expr)?;
        // A column by itself is one that is read, and no filter.
        if expr.is::<Column>() {
            return Ok(expr);
        }
        let hidden = expr.transform_up(|part| {
            let is_one = part.downcast_ref::<Column>().is_some_and(|column| self.columns.contains(column.name()));
            Ok(if is_one { Transformed::yes(Arc::new(Hidden(part)) as Arc<dyn PhysicalExpr>) } else { Transformed::no(part) })
        })?;
        Ok(hidden.data)
    }
}

/// A column that nobody knows for one, and so looks up no bounds of.
#[derive(Debug, Eq)]
struct Hidden(Arc<dyn PhysicalExpr>);

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Hidden {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Hidden {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.0.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self(children.swap_remove(0))))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
