//! Which part of a pipeline sees rows that are added to one of its steps, and what they alone add to the steps behind it.
//!
//! Most queries answer row by row: what they make of two sets of rows is what they make of one and of the other. There, added rows
//! can go through by themselves, and what comes out is just what they add. A query that groups, numbers or counts rows is not so.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    common::{JoinType, tree_node::TreeNodeRecursion},
    error::Result as DfResult,
    logical_expr::{EmptyRelation, LogicalPlan},
};
use weir_pipelines::{Expected, Pipeline};

/// The names of a step and of every step that reads it, or reads one that does.
pub fn downstream(pipeline: &Pipeline, step: &str) -> HashSet<String> {
    let mut names = HashSet::from([step.to_owned()]);
    // Transforms stand behind the steps they read.
    for transform in &pipeline.transforms {
        if transform.inputs.iter().any(|input| names.contains(&input.value)) {
            names.insert(transform.name.value.clone());
        }
    }
    names
}

/// True where one of the sources behind a step, or the step itself, reads only what is new.
pub fn is_incremental(pipeline: &Pipeline, step: &str) -> bool {
    if let Some(source) = pipeline.sources.iter().find(|source| source.name.value == step) {
        return source.incremental.is_some();
    }
    let transform = pipeline.transforms.iter().find(|transform| transform.name.value == step);
    transform.is_some_and(|transform| transform.inputs.iter().any(|input| is_incremental(pipeline, &input.value)))
}

/// The pipeline that takes rows added to `step` to its destinations: the sinks behind it, what they need, and the expectations that can be held
/// against a part of the rows. Sources are read in full. None when no sink takes anything of the step.
pub fn part(pipeline: &Pipeline, step: &str) -> Option<Pipeline> {
    let behind = downstream(pipeline, step);
    let mut part = pipeline.clone();
    part.sinks.retain(|sink| behind.contains(&sink.from.value));
    if part.sinks.is_empty() {
        return None;
    }
    let mut needed: HashSet<String> = part.sinks.iter().map(|sink| sink.from.value.clone()).collect();
    part.expectations.retain(|expectation| {
        // What its rows are held against must be there in full.
        let on = &expectation.on.value;
        let mut others = expectation.reads.iter().filter(|read| read.value != *on);
        behind.contains(on) && of_any_rows(&expectation.expected) && others.all(|other| !behind.contains(&other.value))
    });
    needed.extend(part.expectations.iter().flat_map(|expectation| expectation.reads.iter().map(|read| read.value.clone())));
    for transform in part.transforms.iter().rev() {
        if needed.contains(&transform.name.value) {
            needed.extend(transform.inputs.iter().map(|input| input.value.clone()));
        }
    }
    part.transforms.retain(|transform| needed.contains(&transform.name.value));
    part.sources.retain(|source| needed.contains(&source.name.value));
    part.sources.iter_mut().for_each(|source| source.incremental = None);
    Some(part)
}

/// True of what must hold of every part of a step's rows if it holds of them all.
fn of_any_rows(expected: &Expected) -> bool {
    match expected {
        Expected::NoRows(_)
        | Expected::Unique(_)
        | Expected::NotNull(_)
        | Expected::AcceptedValues { .. }
        | Expected::ForeignKey { .. } => true,
        Expected::RowCount { .. } | Expected::Freshness { .. } | Expected::Change { .. } => false,
    }
}

/// What stops a plan from answering row by row, in words.
pub type Obstacle = &'static str;

/// The plan that makes what the added rows add. `added` tells the tables that hold only added rows from those that hold all.
/// Fails at a node that does not answer row by row, unless `anyway`: then that node sees the added rows alone.
pub fn added(plan: &LogicalPlan, added_table: &dyn Fn(&str) -> bool, anyway: bool) -> Result<LogicalPlan, Obstacle> {
    let walk = Walk { added: added_table, anyway };
    if walk.sees(plan) { walk.added(plan) } else { Ok(plan.clone()) }
}

struct Walk<'a> {
    added: &'a dyn Fn(&str) -> bool,
    anyway: bool,
}

impl Walk<'_> {
    /// Whether added rows go into it.
    fn sees(&self, plan: &LogicalPlan) -> bool {
        let mut sees = false;
        let walked: DfResult<_> = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                sees |= (self.added)(scan.table_name.table());
            }
            Ok(if sees { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        sees || walked.is_err()
    }

    /// Whether added rows go into a subquery of the node's own expressions.
    fn asks(&self, plan: &LogicalPlan) -> bool {
        let mut asks = false;
        let walked: DfResult<_> = plan.apply_subqueries(|query| {
            asks |= self.sees(query);
            Ok(TreeNodeRecursion::Continue)
        });
        asks || walked.is_err()
    }

    fn refuse(&self, obstacle: Obstacle) -> Result<(), Obstacle> {
        if self.anyway { Ok(()) } else { Err(obstacle) }
    }

    /// Of a plan that added rows go into.
    fn added(&self, plan: &LogicalPlan) -> Result<LogicalPlan, Obstacle> {
        if self.asks(plan) {
            self.refuse("a subquery over it")?;
        }
        match plan {
            LogicalPlan::TableScan(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Union(_) => {}
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {}
            LogicalPlan::Join(join) => {
                let (left, right) = (self.sees(&join.left), self.sees(&join.right));
                let whole = match join.join_type {
                    JoinType::Inner => left != right,
                    JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left && !right,
                    JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right && !left,
                    JoinType::Full => false,
                };
                if !whole {
                    self.refuse(if left && right { "a join with itself" } else { "an outer join that it is looked up in" })?;
                }
                return self.inside(plan, false);
            }
            LogicalPlan::Aggregate(_) => self.refuse("group by or an aggregate")?,
            LogicalPlan::Window(_) => self.refuse("a window function, as deduplicate is one")?,
            LogicalPlan::Distinct(_) => self.refuse("distinct")?,
            LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => self.refuse("limit")?,
            _ => self.refuse("what does not go row by row")?,
        }
        self.inside(plan, matches!(plan, LogicalPlan::Union(_)))
    }

    /// The node over what its inputs add. Of a union, inputs that added rows do not go into add nothing; of a join they are what rows are looked up in.
    fn inside(&self, plan: &LogicalPlan, union: bool) -> Result<LogicalPlan, Obstacle> {
        let inputs = plan.inputs().into_iter().map(|input| match self.sees(input) {
            true => self.added(input),
            false if union => {
                let empty = EmptyRelation { produce_one_row: false, schema: Arc::clone(input.schema()) };
                Ok(LogicalPlan::EmptyRelation(empty))
            }
            false => Ok(input.clone()),
        });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        if inputs.is_empty() {
            return Ok(plan.clone());
        }
        plan.with_new_exprs(plan.expressions(), inputs).map_err(|_| "what cannot be planned anew")
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
