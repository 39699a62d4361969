//! Which statements are answered, and how is it said why one is not? Only queries are, one at a time, before their tables are looked up.

use std::ops::ControlFlow;

use datafusion::{error::DataFusionError, prelude::SessionContext, sql::parser::Statement as Parsed, sql::sqlparser::ast};
use weir_pipelines::{Diagnostic, SqlText};

use crate::{
    error::{Failure, Result},
    sql::{diagnose, explain},
};

/// Refuses what is no query before its tables are looked up.
pub(super) fn read_only(parsed: &Parsed, text: &SqlText) -> Result<()> {
    let reads = |statement: &ast::Statement| {
        matches!(
            statement,
            ast::Statement::Query(_)
                | ast::Statement::ExplainTable { .. }
                | ast::Statement::ShowTables { .. }
                | ast::Statement::ShowColumns { .. }
                | ast::Statement::ShowVariable { .. }
                | ast::Statement::ShowFunctions { .. }
        )
    };
    let reads = match parsed {
        // EXPLAIN ANALYZE executes what it explains.
        Parsed::Explain(explain) => matches!(explain.statement.as_ref(), Parsed::Statement(statement) if reads(statement)),
        Parsed::Statement(statement) => reads(statement),
        _ => false,
    };
    if reads {
        return Ok(());
    }
    let refused = Diagnostic::error("read-only", "only queries are answered here, nothing is changed");
    Err(refused.at(&text.file, text.span.clone(), "").help("tables change by running pipelines").into())
}

/// What is wrong with a text that is not read; that it is more than one statement is said as such.
pub(super) fn several(error: &DataFusionError, text: &SqlText) -> Diagnostic {
    let found = diagnose(error, text);
    match found.message.contains("single SQL statement") {
        true => Diagnostic::error("sql-several", "one statement at a time is answered").at(&text.file, text.span.clone(), ""),
        false => found,
    }
}

/// Refuses numbers that no type holds: they would become infinite.
pub(super) fn finite(parsed: &Parsed, text: &SqlText) -> Result<()> {
    let statement = match parsed {
        Parsed::Explain(explain) => explain.statement.as_ref(),
        other => other,
    };
    let Parsed::Statement(statement) = statement else { return Ok(()) };
    let found = ast::visit_expressions(statement.as_ref(), |expr| match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(number, _) if number.parse::<f64>().is_ok_and(f64::is_infinite) => ControlFlow::Break(number.clone()),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(number) => {
            let shown: String = number.chars().take(20).collect();
            let dots = if shown.len() < number.len() { "…" } else { "" };
            Err(Diagnostic::error("sql", format!("{shown}{dots} is too large: no type of number holds it"))
                .at(&text.file, text.span.clone(), "")
                .into())
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Whether a statement asks which tables there are.
pub(super) fn lists(parsed: &Parsed, text: &SqlText) -> bool {
    let shows = |statement: &ast::Statement| !matches!(statement, ast::Statement::Query(_) | ast::Statement::ExplainTable { .. });
    let words = text.text.to_lowercase();
    matches!(parsed, Parsed::Statement(statement) if shows(statement)) || words.contains("information_schema") || words.contains("pg_")
}

/// An error that says itself what it is.
pub(super) fn is_own(error: &DataFusionError) -> bool {
    weir_connectors::Error::find(error).is_some() || matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

pub(super) async fn refuse(session: &SessionContext, error: &DataFusionError, text: &SqlText) -> Failure {
    if is_own(error) {
        return crate::run::explain(error);
    }
    explain(session, text, error).await.into()
}
