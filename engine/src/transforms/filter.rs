//! `filter`: keeps the rows for which a predicate is true; the others, nulls included, are counted as filtered.

use weir_pipelines::{Diagnostics, SqlText};

use super::{Account, Cx, Planned};
use crate::{
    params,
    sql::{Asked, doubts_of_filter, explain_expression, is_doubtful, verified},
};

pub(super) fn plan(cx: Cx<'_>, predicate: &SqlText) -> Result<Planned, Diagnostics> {
    let state = cx.session.state();
    let schema = cx.input.schema().clone();
    let planned = params::expression(&state, predicate, &schema).and_then(|expression| {
        let plan = cx.input.filter(expression)?.into_unoptimized_plan();
        // As of a query, types and constants are checked before the run.
        verified(&state, plan.clone()).map(|_| plan)
    });
    let plan = planned.map_err(|error| explain_expression(&state, predicate, &schema, Asked::Filter, Some(&error)))?;
    let doubts = if is_doubtful(&plan) { doubts_of_filter(&state, predicate, &schema) } else { vec![] };
    Ok(Planned { kind: "filter", plan, checks: Vec::new(), account: Account::Filtered, doubts })
}
