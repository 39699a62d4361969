//! `sql`: any query over earlier steps.

use datafusion::{
    common::tree_node::TreeNodeRecursion, execution::context::SQLOptions, logical_expr::LogicalPlan, prelude::SessionContext,
};
use weir_pipelines::{Diagnostics, SqlText};

use super::{Account, Planned};
use crate::sql::diagnose;

pub(super) async fn plan(session: &SessionContext, text: &SqlText) -> Result<Planned, Diagnostics> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = session.sql_with_options(&text.text, options).await.map_err(|error| vec![diagnose(&error, text)])?;
    let (state, plan) = frame.into_parts();
    // Types, function arguments and subqueries are checked by the analyzer: here, so that `weir check` sees it.
    let plan = state.analyzer_checked(plan).map_err(|error| vec![diagnose(&error, text)])?;
    let account = account(&plan);
    Ok(Planned { kind: "sql", plan, checks: Vec::new(), account })
}

trait Analyze {
    fn analyzer_checked(&self, plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan>;
}

impl Analyze for datafusion::execution::SessionState {
    fn analyzer_checked(&self, plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
        self.analyzer().execute_and_check(plan, self.config_options(), |_, _| {})
    }
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
