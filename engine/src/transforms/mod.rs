//! What changes rows: one file per operator, each from a pipeline's words to a logical plan over its input tables.

mod cast;
mod deduplicate;
mod filter;
mod flatten;
mod rename;
mod select;
mod sql;

use std::sync::Arc;

use datafusion::{
    common::TableReference,
    error::DataFusionError,
    logical_expr::LogicalPlan,
    prelude::{DataFrame, SessionContext},
};
use weir_pipelines::{Diagnostic, Diagnostics, Operator, SourceFile, Span, Spanned, SqlText, Transform};

use crate::step::RowCheck;

/// How rows that went in and did not come out are booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// As many come out as went in, less the invalid ones.
    Same,
    /// What is missing was filtered.
    Filtered,
    /// What is missing was deduplicated.
    Deduplicated,
    /// The operator makes other rows than it takes: nothing can be said.
    Remakes,
}

/// An operator, planned.
#[derive(Debug)]
pub struct Planned {
    /// `sql`, `filter`, …
    pub kind: &'static str,
    /// Its rows, before checks.
    pub plan: LogicalPlan,
    /// Checks the operator itself makes at the step's boundary.
    pub checks: Vec<Arc<dyn RowCheck>>,
    /// How missing rows are booked.
    pub account: Account,
    /// What is worth a word though it is no error.
    pub doubts: Diagnostics,
}

/// The word a person writes for an operator.
pub fn kind(operator: &Operator) -> &'static str {
    match operator {
        Operator::Sql(_) => "sql",
        Operator::Filter(_) => "filter",
        Operator::Deduplicate { .. } => "deduplicate",
        Operator::Cast(_) => "cast",
        Operator::Rename(_) => "rename",
        Operator::Select(_) => "select",
        Operator::Flatten { .. } => "flatten",
    }
}

/// Plans a query that is no transform. What is wrong with it is pointed at inside it.
pub async fn query(session: &SessionContext, text: &SqlText) -> Result<LogicalPlan, Diagnostics> {
    sql::plan(session, text).await.map(|planned| planned.plan)
}

/// Plans a transform in a session that knows its inputs by their names.
pub async fn plan(session: &SessionContext, transform: &Transform, file: &Arc<SourceFile>) -> Result<Planned, Diagnostics> {
    if let Operator::Sql(text) = &transform.operator {
        return sql::plan(session, text).await;
    }
    let from = &transform.inputs[0];
    let input =
        session.table(TableReference::bare(from.value.as_str())).await.map_err(|error| vec![internal(&error, file, from.span.clone())])?;
    let cx = Cx { session, input, from: &from.value, file, span: transform.name.span.clone() };
    match &transform.operator {
        Operator::Sql(_) => unreachable!("planned above"),
        Operator::Filter(predicate) => filter::plan(cx, predicate),
        Operator::Deduplicate { key, keep, order_by } => deduplicate::plan(cx, key, *keep, order_by),
        Operator::Cast(types) => cast::plan(cx, types),
        Operator::Rename(names) => rename::plan(cx, names),
        Operator::Select(columns) => select::plan(cx, columns),
        Operator::Flatten { separator, array } => flatten::plan(cx, separator, array.as_ref()),
    }
}

/// What an operator with one input works with.
pub(crate) struct Cx<'a> {
    pub session: &'a SessionContext,
    pub input: DataFrame,
    pub from: &'a str,
    pub file: &'a Arc<SourceFile>,
    pub span: Span,
}

impl Cx<'_> {
    /// The input's column names.
    pub fn columns(&self) -> Vec<String> {
        self.input.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Says of each name that the input has no such column.
    pub fn missing<'s>(&self, names: impl IntoIterator<Item = &'s Spanned<String>>) -> Diagnostics {
        let columns = self.columns();
        names
            .into_iter()
            .filter(|name| !columns.contains(&name.value))
            .map(|name| unknown_column(name, self.from, &columns, self.file))
            .collect()
    }

    /// Turns a planning error that no rule foresaw into a diagnostic at the step.
    pub fn internal(&self, error: &DataFusionError) -> Diagnostics {
        vec![internal(error, self.file, self.span.clone())]
    }
}

/// Says that a step has no such column.
pub fn unknown_column(name: &Spanned<String>, step: &str, columns: &[String], file: &Arc<SourceFile>) -> Diagnostic {
    Diagnostic::error("unknown-column", format!("no column \"{}\" in step \"{step}\"", name.value))
        .at(file, name.span.clone(), "not found")
        .did_you_mean(&name.value, columns.iter().map(String::as_str))
        .help(format!("columns are: {}", listed(columns)))
}

/// A list of names for a help line, cut where it grows long.
pub fn listed(names: &[String]) -> String {
    const NAMES_MAX: usize = 20;
    match names.len() {
        0 => "none".to_owned(),
        n if n > NAMES_MAX => format!("{}, … ({n} in all)", names[..NAMES_MAX].join(", ")),
        _ => names.join(", "),
    }
}

fn internal(error: &DataFusionError, file: &Arc<SourceFile>, span: Span) -> Diagnostic {
    Diagnostic::error("cannot-plan", crate::sql::message(error)).at(file, span, "")
}
