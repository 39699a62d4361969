//! How is a TOML file laid out? Text to the same text in Weir's style: comments, order and every value stay, blank lines, spaces and
//! line breaks are made regular. The rules are documented in docs/guides/formatting.md. What the file means is not asked.

mod document;
mod print;

use std::sync::Arc;

use toml::de::DeTable;

use crate::diagnostic::{Diagnostics, SourceFile};
use document::Parts;

/// Columns of a line; an array that does not fit is broken, one element per line.
const WIDTH: usize = 140;
/// A byte order mark, which some editors write at the start of a file.
const BOM: char = '\u{feff}';

/// Lays out a file. A byte order mark stays, and line breaks are those of the first line. Fails where the text is not TOML.
///
/// Panics where the new text would say anything else than the old one, rather than hand it out.
pub fn format(file: &Arc<SourceFile>) -> Result<String, Diagnostics> {
    let (_, errors) = DeTable::parse_recoverable(&file.text);
    if !errors.is_empty() {
        return Err(crate::parse::syntax_errors(file, &errors));
    }
    let (bom, text) = match file.text.strip_prefix(BOM) {
        Some(text) => ("\u{feff}", text),
        None => ("", file.text.as_str()),
    };
    let formatted = print::print(&document::read(text), document::newline(text));
    assert!(same(text, &formatted), "a formatted file says what it said before");
    Ok(format!("{bom}{formatted}"))
}

/// True where two texts hold the same keys and values, written the same way, in the same order, and so the same comments.
fn same(old: &str, new: &str) -> bool {
    let (old, new) = (Parts::of(old), Parts::of(new));
    old == new
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
