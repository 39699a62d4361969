//! `filter`: keeps the rows for which a predicate is true; the others, nulls included, are counted as filtered.

use datafusion::{arrow::datatypes::DataType, logical_expr::ExprSchemable};
use weir_pipelines::{Diagnostic, Diagnostics, SqlText};

use super::{Account, Cx, Planned};
use crate::sql::diagnose;

pub(super) fn plan(cx: Cx<'_>, predicate: &SqlText) -> Result<Planned, Diagnostics> {
    let expression = cx.session.parse_sql_expr(&predicate.text, cx.input.schema()).map_err(|error| vec![diagnose(&error, predicate)])?;
    if let Ok(found) = expression.get_type(cx.input.schema())
        && !matches!(found, DataType::Boolean | DataType::Null)
    {
        return Err(vec![Diagnostic::error("wrong-type", format!("the filter is of type {found}, not boolean")).at(
            &predicate.file,
            predicate.span.clone(),
            "must be true or false for each row",
        )]);
    }
    let frame = cx.input.filter(expression).map_err(|error| vec![diagnose(&error, predicate)])?;
    Ok(Planned { kind: "filter", plan: frame.into_unoptimized_plan(), checks: Vec::new(), account: Account::Filtered })
}
