//! From an error of DataFusion's planner to a diagnostic that points into the SQL a person wrote.

mod arguments;
mod constants;
mod names;
mod parts;
mod place;
mod scope;
mod walk;
mod words;

use datafusion::{
    common::{DFSchema, SchemaError},
    error::DataFusionError,
    execution::SessionState,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::sqlparser::{
        ast::{Expr, Statement},
        dialect::GenericDialect,
        parser::{Parser, ParserError},
    },
};
use weir_pipelines::{Diagnostic, Diagnostics, Severity, Span, SqlText};

use self::{
    place::Places,
    scope::{Judge, Rule, Scope},
    walk::Walk,
    words::Words,
};
use crate::params;

pub(crate) use self::names::{Names, tables};
pub(crate) use self::{constants::GROWING, scope::normal};
pub use self::{
    constants::{is_doubtful, verified},
    words::sql_name,
};

/// What an expression of a pipeline file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A condition on each row.
    Filter,
    /// A value, of rows or of all rows.
    Value,
}

/// Says everything that is wrong with a query that DataFusion refused with an error.
pub async fn explain(session: &SessionContext, text: &SqlText, error: &DataFusionError) -> Diagnostics {
    let state = session.state();
    let found = match walk::parse(&state, &text.text) {
        Some((statement, mut query)) => {
            let tables = names::tables(session, &statement).await;
            walked(&state, tables, text, false, |walk| walk.query(&mut query, &params::context(&state)))
        }
        None => vec![],
    };
    if found.is_empty() { vec![diagnose(error, text)] } else { found }
}

/// Says that two columns of a query's outcome have one name, when they have.
pub async fn duplicates(session: &SessionContext, text: &SqlText, plan: &LogicalPlan) -> Diagnostics {
    let mut names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
    names.sort();
    let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()) else { return vec![] };
    let state = session.state();
    let found = match walk::parse(&state, &text.text) {
        Some((statement, mut query)) => {
            let tables = names::tables(session, &statement).await;
            walked(&state, tables, text, false, |walk| walk.duplicate_outcome(&mut query, &params::context(&state)))
        }
        None => vec![],
    };
    match found.is_empty() {
        false => found,
        true => vec![
            Diagnostic::error("duplicate-column", format!("two columns of the result are called \"{twice}\""))
                .at(&text.file, text.span.clone(), "")
                .help("give one of them another name"),
        ],
    }
}

/// Says everything that is wrong with an expression over these columns that DataFusion refused with an error, if that was why.
pub fn explain_expression(
    state: &SessionState,
    text: &SqlText,
    schema: &DFSchema,
    asked: Asked,
    error: Option<&DataFusionError>,
) -> Diagnostics {
    let parsed: Option<Expr> = Parser::new(&GenericDialect {}).try_with_sql(&text.text).and_then(|mut parser| parser.parse_expr()).ok();
    let found = match parsed {
        Some(mut expr) => walked(state, vec![], text, false, |walk| {
            let scope = Scope::of(schema.clone(), &params::context(state));
            match asked {
                Asked::Filter => walk.condition(&mut expr, &scope, Rule::Rows, "filter"),
                Asked::Value => {
                    walk.expression(&mut expr, &scope, Rule::Any);
                }
            }
        }),
        None => vec![],
    };
    match error {
        Some(error) if found.is_empty() => vec![diagnose(error, text)],
        _ => found,
    }
}

/// The place in the file of the item of a query's select list that makes a column; none where it is not named there.
pub fn column_of(text: &SqlText, column: &str) -> Option<Span> {
    let statements = Parser::parse_sql(&GenericDialect {}, &text.text).ok()?;
    let [Statement::Query(query)] = statements.as_slice() else { return None };
    Places::new(text).column(&query.body, column)
}

/// What is doubtful of a query that is right: warnings.
pub async fn doubts(session: &SessionContext, text: &SqlText) -> Diagnostics {
    let state = session.state();
    let Some((statement, mut query)) = walk::parse(&state, &text.text) else { return vec![] };
    let tables = names::tables(session, &statement).await;
    let found = walked(&state, tables, text, true, |walk| walk.query(&mut query, &params::context(&state)));
    found.into_iter().filter(|found| found.severity == Severity::Warning).collect()
}

/// What is doubtful of a filter that is right: warnings.
pub fn doubts_of_filter(state: &SessionState, text: &SqlText, schema: &DFSchema) -> Diagnostics {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(&text.text).and_then(|mut parser| parser.parse_expr());
    let Ok(mut expr) = parsed else { return vec![] };
    let found = walked(state, vec![], text, true, |walk| {
        walk.condition(&mut expr, &Scope::of(schema.clone(), &params::context(state)), Rule::Rows, "filter");
    });
    found.into_iter().filter(|found| found.severity == Severity::Warning).collect()
}

fn walked(
    state: &SessionState,
    tables: Vec<(datafusion::common::TableReference, std::sync::Arc<dyn datafusion::catalog::TableProvider>)>,
    text: &SqlText,
    doubts: bool,
    walk: impl FnOnce(&mut Walk<'_>),
) -> Diagnostics {
    let names = Names::new(state, tables);
    let (judge, places) = (Judge::new(&names, doubts), Places::new(text));
    let words = Words::new(text, &places);
    let mut made = Walk::new(&judge, &words);
    walk(&mut made);
    let mut found = made.found;
    let place = |found: &Diagnostic| found.labels.first().map_or((0, 0), |label| (label.span.start, label.span.end));
    found.sort_by_key(place);
    found.dedup_by(|one, other| one.code == other.code && place(one) == place(other));
    found
}

/// Describes an error of DataFusion's planner where its query is not at hand: at the place that the error names, or at the whole text.
pub fn diagnose(error: &DataFusionError, sql: &SqlText) -> Diagnostic {
    let (code, message) = classify(error);
    let place = place_of(error, sql);
    let mut diagnostic = Diagnostic::error(code, message).at(&sql.file, place.unwrap_or_else(|| sql.span.clone()), label(code));
    if let Some(DataFusionError::SchemaError(schema, _)) = root(error)
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        // Names that no person writes are of no help.
        let names: Vec<String> =
            valid_fields.iter().map(|column| column.name.clone()).filter(|name| !name.starts_with("__weir_")).collect();
        diagnostic = diagnostic.did_you_mean(&field.name, names.iter().map(String::as_str));
        if !names.is_empty() {
            diagnostic = diagnostic.help(format!("columns are: {}", crate::transforms::listed(&names)));
        }
        if let Some(exact) = names.iter().find(|name| name.eq_ignore_ascii_case(&field.name) && **name != field.name) {
            diagnostic = diagnostic.help(format!("names with capitals need double quotes in SQL: \"{exact}\""));
        }
    }
    diagnostic
}

fn label(code: &str) -> &'static str {
    match code {
        "unknown-column" | "unknown-table" | "unknown-function" => "not found",
        "ambiguous-column" => "which one?",
        _ => "",
    }
}

/// Code and message.
fn classify(error: &DataFusionError) -> (&'static str, String) {
    let text = message(error);
    match root(error) {
        Some(DataFusionError::SchemaError(schema, _)) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                // Where all that could be meant stands in one table, it is that table that has no such column.
                let mut tables: Vec<&str> = valid_fields.iter().filter_map(|known| Some(known.relation.as_ref()?.table())).collect();
                tables.dedup();
                let of = match (&field.relation, tables.as_slice()) {
                    (Some(relation), _) => format!(" in \"{}\"", relation.table()),
                    (None, [table]) => format!(" in \"{table}\""),
                    (None, _) => String::new(),
                };
                ("unknown-column", format!("no column \"{}\"{of}", field.name))
            }
            SchemaError::AmbiguousReference { field } => ("ambiguous-column", format!("\"{}\" is a column of several tables", field.name)),
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                ("duplicate-column", format!("two columns are called \"{name}\""))
            }
        },
        Some(DataFusionError::SQL(parser, _)) => {
            let text = match parser.as_ref() {
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
                ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
            };
            let text = text.split(" at Line:").next().unwrap_or(&text).to_owned();
            ("sql-syntax", lower_first(&text))
        }
        _ => {
            let code = if text.contains("not found") && text.starts_with("table") {
                "unknown-table"
            } else if text.starts_with("invalid function") {
                "unknown-function"
            } else {
                "sql"
            };
            (code, text)
        }
    }
}

fn root(error: &DataFusionError) -> Option<&DataFusionError> {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(all) => all.first().and_then(root),
        other => Some(other),
    }
}

/// The place DataFusion's own diagnostic names, or the one in a parser's message.
fn place_of(error: &DataFusionError, sql: &SqlText) -> Option<Span> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span)
        && span.start.line > 0
    {
        return Some(sql.span_of_line_column(span.start.line, span.start.column, Some((span.end.line, span.end.column))));
    }
    let text = error.to_string();
    let (_, after) = text.split_once("at Line: ")?;
    let (line, after) = after.split_once(", Column: ")?;
    let column: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some(sql.span_of_line_column(line.trim().parse().ok()?, column.parse().ok()?, None))
}

/// An error of DataFusion in one line: no prefix, no backtrace, lower case.
pub fn message(error: &DataFusionError) -> String {
    let text = match root(error) {
        Some(inner) => inner.strip_backtrace(),
        None => error.strip_backtrace(),
    };
    let mut text = text.as_str();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "External error: ",
        "Arrow error: ",
        "Invalid argument error: ",
        "Optimizer rule ",
        "type_coercion\ncaused by\n",
        "This feature is not implemented: ",
        "caused by\n",
        "Error during planning: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    lower_first(text.trim().trim_end_matches('.')).replace('\n', "; ")
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().collect::<String>() + chars.as_str(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
