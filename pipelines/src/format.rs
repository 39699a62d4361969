//! How is a TOML file laid out? Text to the same text in Weir's style: comments, order and every value stay, blank lines, spaces and
//! line breaks are made regular. The rules are documented in docs/guides/formatting.md. What the file means is not asked.

mod document;
mod print;
mod sql;

use std::sync::Arc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, SourceFile, Span},
    settings::Torn,
};
use document::Parts;

/// Columns of a line; an array that does not fit is broken, one element per line.
const WIDTH: usize = 140;
/// A byte order mark, which some editors write at the start of a file.
const BOM: char = '\u{feff}';

/// Lays out a file, and the SQL in it. A byte order mark stays, and line breaks are those of the first line. Fails where the text is not TOML,
/// and rather than hand out a text that says anything else.
pub fn format(file: &Arc<SourceFile>) -> Result<String, Diagnostics> {
    let (root, errors) = DeTable::parse_recoverable(&file.text);
    if !errors.is_empty() {
        let torn: Vec<Torn> = errors.iter().map(|error| Torn::new(error, 0)).collect();
        return Err(crate::parse::syntax_errors(file, &torn));
    }
    let newline = document::newline(&file.text);
    let (mut text, mut behind) = (String::with_capacity(file.text.len()), 0);
    for span in sql_strings(root.get_ref()) {
        text.push_str(&file.text[behind..span.start]);
        let raw = &file.text[span.clone()];
        text.push_str(sql::layout(raw, newline).as_deref().unwrap_or(raw));
        behind = span.end;
    }
    text.push_str(&file.text[behind..]);
    let (bom, text) = match text.strip_prefix(BOM) {
        Some(text) => ("\u{feff}", text),
        None => ("", text.as_str()),
    };
    let formatted = print::print(&document::read(text), newline);
    if !same(text, &formatted) {
        let fault = "the file would not say what it said: this is a fault in Weir".to_owned();
        return Err(vec![Diagnostic::error("format-differs", fault).at(file, 0..0, "")]);
    }
    Ok(format!("{bom}{formatted}"))
}

/// Where a pipeline's SQL stands, in order: its queries, filters and expectations, and what tests give, but not what a server is asked in its own words.
fn sql_strings(root: &DeTable<'_>) -> Vec<Span> {
    let mut found: Vec<&Spanned<DeValue<'_>>> = Vec::new();
    let transforms = root.get("transform").and_then(|steps| steps.get_ref().as_table());
    for step in transforms.into_iter().flat_map(|steps| steps.values()).filter_map(|step| step.get_ref().as_table()) {
        found.extend(step.get("sql"));
        found.extend(step.get("filter"));
    }
    let expectations = root.get("expect").and_then(|list| list.get_ref().as_array());
    for one in expectations.into_iter().flatten().filter_map(|one| one.get_ref().as_table()) {
        found.extend(one.get("sql"));
        found.extend(one.get("change").and_then(|change| change.get_ref().as_table()).and_then(|change| change.get("of")));
    }
    let tests = root.get("test").and_then(|list| list.get_ref().as_array());
    for one in tests.into_iter().flatten().filter_map(|one| one.get_ref().as_table()) {
        let given = one.get("given").and_then(|given| given.get_ref().as_table());
        let given = given.into_iter().flat_map(|given| given.values()).filter_map(|given| given.get_ref().as_table());
        found.extend(given.filter_map(|given| given.get("sql")));
    }
    let mut spans: Vec<Span> = found.into_iter().filter(|value| value.get_ref().is_str()).map(Spanned::span).collect();
    spans.sort_by_key(|span| span.start);
    spans
}

/// True where two texts hold the same keys and values, written the same way, in the same order, and so the same comments.
fn same(old: &str, new: &str) -> bool {
    let (old, new) = (Parts::of(old), Parts::of(new));
    old == new
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
