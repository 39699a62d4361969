//! `sql`: any query over earlier steps.

use datafusion::{common::tree_node::TreeNodeRecursion, logical_expr::LogicalPlan, prelude::SessionContext};
use weir_pipelines::{Diagnostics, SqlText};

use super::{Account, Planned};
use crate::{
    params,
    sql::{doubts, duplicates, explain, is_doubtful, verified},
};

pub(super) async fn plan(session: &SessionContext, text: &SqlText) -> Result<Planned, Diagnostics> {
    let mut doubtful = false;
    let planned = params::query(session, text).await.and_then(|(state, plan)| {
        doubtful = is_doubtful(&plan);
        // Types, function arguments, subqueries and constants are checked here, so that `weir check` sees what a run would.
        verified(&state, plan)
    });
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return Err(explain(session, text, &error).await),
    };
    let twice = duplicates(session, text, &plan).await;
    if !twice.is_empty() {
        return Err(twice);
    }
    let doubts = if doubtful { doubts(session, text).await } else { vec![] };
    let account = account(&plan);
    Ok(Planned { kind: "sql", plan, checks: Vec::new(), account, doubts })
}

/// A query that only selects and sorts rows of one table filters them; one that joins, groups, unnests or limits remakes them.
fn account(plan: &LogicalPlan) -> Account {
    let mut account = Account::Same;
    let mut scans = 0;
    let walked = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(_) => scans += 1,
            LogicalPlan::Filter(_) => account = Account::Filtered,
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Window(_) => {}
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {}
            _ => scans += 2,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    // A subquery's scan is one more: what an `in (select …)` leaves out is filtered all the same, but its own rows are read too.
    if walked.is_err() || scans != 1 { Account::Remakes } else { account }
}
