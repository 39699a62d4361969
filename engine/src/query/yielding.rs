//! Where does a statement let others have its thread? DataFusion's readers do it; a join of few rows that gives many does not, and could
//! neither be cancelled nor stopped at its limit of time. One that gives none of its many rows never comes to a pause: as it tests them it looks up,
//! and leaves its thread to others.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::{DataFusionError, Result},
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{NestedLoopJoinExec, utils::JoinFilter},
    },
};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

/// What gives more rows than it reads, without a pause.
const TIRELESS: [&str; 6] =
    ["CrossJoinExec", "NestedLoopJoinExec", "HashJoinExec", "SortMergeJoinExec", "PiecewiseMergeJoinExec", "UnnestExec"];

/// So long do others wait for the thread of a join that never pauses.
const PATIENCE: Duration = Duration::from_millis(50);

/// The plan, with a pause now and then above everything that has none; its joins end with an error once `over` is cancelled.
pub(super) fn yielding(plan: Arc<dyn ExecutionPlan>, over: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| {
        let node = match node.downcast_ref::<NestedLoopJoinExec>() {
            Some(join) => looking_up(join, over)?.unwrap_or(node),
            None => node,
        };
        Ok(match TIRELESS.contains(&node.name()) {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
            false => Transformed::no(node),
        })
    });
    Ok(wrapped?.data)
}

/// A join whose filter looks up; none where it has no filter, and gives a batch for each that it makes.
fn looking_up(join: &NestedLoopJoinExec, over: &CancellationToken) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = join.filter() else { return Ok(None) };
    let expression =
        Arc::new(UntilOver { inner: filter.expression().clone(), over: over.clone(), left: Arc::new(Mutex::new(Instant::now())) });
    let filter = JoinFilter::new(expression, filter.column_indices().to_vec(), filter.schema().clone());
    let projection = join.projection().as_ref().map(|projection| projection.to_vec());
    let changed = NestedLoopJoinExec::try_new(join.left().clone(), join.right().clone(), Some(filter), join.join_type(), projection)?;
    Ok(Some(Arc::new(changed)))
}

/// An expression that fails once nobody wants its values any more.
#[derive(Debug)]
struct UntilOver {
    inner: Arc<dyn PhysicalExpr>,
    over: CancellationToken,
    /// When it left its thread to others.
    left: Arc<Mutex<Instant>>,
}

impl UntilOver {
    /// Whether others have waited for long enough. Each time costs a change of threads.
    fn is_time(&self) -> bool {
        let mut left = self.left.lock();
        let is_time = left.elapsed() >= PATIENCE;
        if is_time {
            *left = Instant::now();
        }
        is_time
    }
}

impl Eq for UntilOver {}

// Who compares expressions asks what they come to: whose statement it is makes no difference.
impl PartialEq for UntilOver {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Hash for UntilOver {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for UntilOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for UntilOver {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.inner.nullable(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.over.is_cancelled() {
            return Err(DataFusionError::Execution("the statement is over".into()));
        }
        // The join goes on to the next rows without a pause: meanwhile what else waits for this thread has another.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) if self.is_time() => tokio::task::block_in_place(|| self.inner.evaluate(batch)),
            _ => self.inner.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| self.inner.clone());
        Ok(Arc::new(Self { inner, over: self.over.clone(), left: self.left.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::{physical_plan::collect, prelude::SessionContext};

    use super::*;

    /// 8,000 numbers with as many: seconds of work, and no row.
    const JOIN: &str = "select count(*) from (select * from generate_series(1, 8000)) a (x), (select * from generate_series(1, 8000)) b (y)
                        where md5(concat(x, '-', y)) = 'none'";

    #[tokio::test]
    async fn a_join_that_discards_its_rows_ends_when_nobody_waits_for_them() {
        let context = SessionContext::new();
        let plan = context.sql(JOIN).await.expect("planned").create_physical_plan().await.expect("planned");
        let over = CancellationToken::new();
        let plan = yielding(plan, &over).expect("of the same rows");
        let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
        assert!(shown.contains("CooperativeExec\n") && shown.contains("NestedLoopJoinExec"), "{shown}");
        let work = tokio::task::spawn_blocking({
            let task = context.task_ctx();
            move || tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(collect(plan, task))
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        over.cancel();
        let error = work.await.expect("no panic").expect_err("it is over");
        assert!(error.to_string().contains("the statement is over"), "{error}");
    }

    #[tokio::test]
    async fn rows_are_the_same_as_without() {
        let context = SessionContext::new();
        for sql in [
            "select a.x, b.y from (values (1), (2), (3)) a (x) join (values (2), (3)) b (y) on a.x < b.y order by 1, 2",
            "select a.x, b.y from (values (1), (4)) a (x) left join (values (2), (3)) b (y) on a.x < b.y order by 1, 2",
            "select a.x, b.y from (values (1), (2)) a (x) join (values (2), (3)) b (y) on a.x = b.y",
            "with recursive r as (select 1 as n union all select n + 1 from r where n < 5) select sum(n) from r",
            "select x from (values (1), (2)) a (x) union all select y from (values (3)) b (y) order by 1",
            "select count(*) from (values (1), (2)) a (x), (values (3), (4)) b (y)",
        ] {
            let plan = || async { context.sql(sql).await.expect("planned").create_physical_plan().await.expect("planned") };
            let expected = collect(plan().await, context.task_ctx()).await.expect("answered");
            let changed = yielding(plan().await, &CancellationToken::new()).expect("of the same rows");
            let answered = collect(changed, context.task_ctx()).await.expect("answered");
            let shown = |batches: &[RecordBatch]| arrow::util::pretty::pretty_format_batches(batches).expect("shown").to_string();
            assert_eq!(shown(&answered), shown(&expected), "{sql}");
        }
    }
}
