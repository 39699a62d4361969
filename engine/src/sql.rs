//! From an error of DataFusion's planner to a diagnostic that points into the SQL a person wrote.

use datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use weir_pipelines::{Diagnostic, Span, SqlText};

/// Describes what is wrong with a query, as near to the word at fault as can be told.
pub fn diagnose(error: &DataFusionError, sql: &SqlText) -> Diagnostic {
    let (code, message, word) = classify(error);
    let place = place_of(error, sql).or_else(|| word.as_deref().and_then(|word| find_word(sql, word)));
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

/// Code, message and the word at fault.
fn classify(error: &DataFusionError) -> (&'static str, String, Option<String>) {
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
                ("unknown-column", format!("no column \"{}\"{of}", field.name), Some(field.name.clone()))
            }
            SchemaError::AmbiguousReference { field } => {
                ("ambiguous-column", format!("\"{}\" is a column of several tables", field.name), Some(field.name.clone()))
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                ("duplicate-column", format!("two columns are called \"{name}\""), Some(name.clone()))
            }
        },
        Some(DataFusionError::SQL(parser, _)) => {
            let text = match parser.as_ref() {
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
                ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
            };
            let text = text.split(" at Line:").next().unwrap_or(&text).to_owned();
            ("sql-syntax", lower_first(&text), None)
        }
        _ => {
            let word = text.split(['\'', '"']).nth(1).map(|word| word.rsplit('.').next().unwrap_or(word).to_owned());
            let code = if text.contains("not found") && text.starts_with("table") {
                "unknown-table"
            } else if text.starts_with("invalid function") {
                "unknown-function"
            } else {
                "sql"
            };
            (code, text, word)
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

/// The first place where a word stands by itself in the SQL.
fn find_word(sql: &SqlText, word: &str) -> Option<Span> {
    if word.is_empty() {
        return None;
    }
    let (text, lower) = (sql.text.to_lowercase(), word.to_lowercase());
    if text.len() != sql.text.len() {
        return None;
    }
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let (at, _) = text.match_indices(&lower).find(|(at, found)| {
        !text[..*at].chars().next_back().is_some_and(inside) && !text[at + found.len()..].chars().next().is_some_and(inside)
    })?;
    Some(sql.span_at(at)..sql.span_at(at + lower.len()))
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
