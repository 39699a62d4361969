//! What waits in quarantine, rule by rule, with examples.

use weir_engine::quarantine::Group;

use crate::render::{Style, number::counted};

/// A row as it stood is cut after this many characters.
const RAW_CHARS_MAX: usize = 120;

/// Draws the rules that were broken; ends in a line break.
pub(super) fn render(pipeline: &str, groups: &[Group], style: Style) -> String {
    let mut out = String::new();
    for group in groups {
        let column = group.reason.column.as_deref().map(|column| format!(" in \"{column}\"")).unwrap_or_default();
        let title = format!("{pipeline}.{}: {}{column}", group.step, group.reason.code);
        out.push_str(&format!("{}  {}\n", style.bold(&title), counted(group.reason.rows, "row", "rows")));
        for row in &group.examples {
            out.push_str(&format!("  {}{}\n", place(row.file.as_deref(), row.row), row.reason));
            out.push_str(&format!("    {}\n", style.dim(&cut(&row.raw))));
        }
    }
    out
}

/// `data/users.csv:4: `, or nothing.
pub(super) fn place(file: Option<&str>, row: Option<u64>) -> String {
    match (file, row) {
        (Some(file), Some(row)) => format!("{file}:{row}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    }
}

/// A row on one line, cut where it grows long.
pub(super) fn cut(raw: &str) -> String {
    let mut text: String = raw.chars().take(RAW_CHARS_MAX).collect();
    if text.len() < raw.len() {
        text.push('…');
    }
    text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
