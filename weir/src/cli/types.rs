//! The page of types: which column type each Arrow type becomes in each destination, as the destinations themselves say.

use weir_connectors::{SinkKind, TypeRow};

/// Writes the matrix of all sinks that have column types of their own, and what happens to values.
pub fn page(sinks: &[SinkKind]) -> String {
    let destinations: Vec<(&str, Vec<TypeRow>)> =
        sinks.iter().map(|sink| (sink.kind, (sink.types)())).filter(|(_, rows)| !rows.is_empty()).collect();
    let mut out = "# Types\n\n<!-- Made by `weir dev generate` from the tables in the connectors. -->\n\n\
        Which column type each Arrow type becomes. A mapping marked *lossy* is a `weir check` error unless the sink names the column in `allow_lossy`. In every exact\n\
        mapping a value that does not fit (a date that the destination cannot hold, a null list where it has none) fails the run and names the column; nothing is clamped or cut.\n\n"
        .to_owned();
    out.push_str(&format!("| Arrow | {} |\n", destinations.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(" | ")));
    out.push_str(&format!("|---|{}\n", "---|".repeat(destinations.len())));
    let mut names: Vec<&str> = Vec::new();
    for name in destinations.iter().flat_map(|(_, rows)| rows).flat_map(|row| split(row.arrow)) {
        // A type that another destination divides further is told there.
        let divided = destinations
            .iter()
            .flat_map(|(_, rows)| rows)
            .flat_map(|row| split(row.arrow))
            .any(|other| base(other) == name && other != name);
        if !names.contains(&name) && !divided {
            names.push(name);
        }
    }
    for name in names {
        let cells = destinations.iter().map(|(_, rows)| cell(rows, name));
        out.push_str(&format!("| {} | {} |\n", escape(name), cells.map(|cell| escape(&cell)).collect::<Vec<_>>().join(" | ")));
    }
    for (kind, rows) in &destinations {
        out.push_str(&format!("\n## What happens to values in `{kind}`\n\n"));
        for row in rows.iter().filter(|row| !row.note.is_empty()) {
            out.push_str(&format!("- {}: {}\n", row.arrow, row.note));
        }
    }
    out
}

/// What a destination makes of a type; where it depends on what the type holds, all that it may be.
fn cell(rows: &[TypeRow], name: &str) -> String {
    let exactly: Vec<&TypeRow> = rows.iter().filter(|row| split(row.arrow).contains(&name)).collect();
    let of = |name: &str| -> Vec<&TypeRow> {
        let begins = |part: &str| part == name || part.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        rows.iter().filter(|row| split(row.arrow).into_iter().any(begins)).collect()
    };
    let found = if exactly.is_empty() { of(name) } else { exactly };
    let found = if found.is_empty() { of(base(name)) } else { found };
    let mut words: Vec<String> =
        found.iter().map(|row| if row.exact { row.column.to_owned() } else { format!("{} *lossy*", row.column) }).collect();
    words.dedup();
    if words.is_empty() { "refused".to_owned() } else { words.join(" or ") }
}

/// `Decimal256 of at most 38 digits` is a `Decimal256`.
fn base(name: &str) -> &str {
    name.split_once(" of ").map_or(name, |(base, _)| base)
}

/// Splits at the commas that stand outside parentheses.
fn split(names: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, character) in names.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(names[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(names[start..].trim());
    found
}

fn escape(cell: &str) -> String {
    cell.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use weir_connectors::SINKS;

    use super::*;

    #[test]
    fn names_are_split_outside_parentheses() {
        assert_eq!(split("Time32, Timestamp(s | ms, zone), Struct"), ["Time32", "Timestamp(s | ms, zone)", "Struct"]);
    }

    #[test]
    fn every_destination_has_a_word_on_the_common_types() {
        let page = page(SINKS);
        for name in ["Boolean", "Int64", "UInt64", "Utf8", "Date32", "Struct", "Map"] {
            let line = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(!line.contains("refused"), "{line}");
        }
    }
}
