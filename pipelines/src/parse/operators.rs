//! What a transform does: exactly one of `sql`, `filter`, `deduplicate`, `cast`, `rename`, `select`, `flatten`.

use toml::de::DeValue;

use super::{
    params::check_sql,
    steps::{Read, TRANSFORM_KEYS},
    walk::{Table, Value, Walk, in_order, suggest},
};
use crate::{
    diagnostic::{Diagnostic, Spanned},
    pipeline::{FlattenArray, Keep, Operator, SortKey},
    sql::SqlText,
};

pub(crate) const OPERATORS: [&str; 7] = ["sql", "filter", "deduplicate", "cast", "rename", "select", "flatten"];
const DEDUPLICATE_KEYS: [&str; 3] = ["key", "keep", "order_by"];
const FLATTEN_KEYS: [&str; 4] = ["separator", "array", "key", "position"];

/// Reads a transform's operator and what it reads, as far as either can be told.
pub(crate) fn operator(walk: &mut Walk<'_>, table: Table<'_, '_>) -> (Vec<Read>, Option<Operator>) {
    let mut chosen: Vec<(Spanned<String>, &Value<'_>)> = Vec::new();
    let mut doubtful = false;
    for (key, value) in in_order(table.entries) {
        if OPERATORS.contains(&key.value.as_str()) {
            chosen.push((key, value));
        } else if TRANSFORM_KEYS.contains(&key.value.as_str()) {
        } else if value.get_ref().is_table() {
            doubtful = true;
            let found = walk.error("unknown-kind", format!("no kind \"{}\" of transform", key.value), key.span.clone(), "not a kind");
            let near: Vec<&str> = OPERATORS.iter().chain(&TRANSFORM_KEYS).copied().collect();
            suggest(found, &key.value, &near);
            found.help.push(format!("kinds of transform are: {}", OPERATORS.join(", ")));
        } else {
            let known: Vec<&str> = TRANSFORM_KEYS.iter().chain(&OPERATORS).copied().collect();
            walk.unknown_key(table.what, &key, &known);
            doubtful = true;
        }
    }
    if let [(first, _), (second, _), ..] = chosen.as_slice() {
        let message = format!("{} is of two kinds, \"{}\" and \"{}\"", table.what, first.value, second.value);
        let file = walk.file().clone();
        let found = Diagnostic::error("two-kinds", message)
            .at(&file, second.span.clone(), "second")
            .at(&file, first.span.clone(), "first")
            .help("make it two transforms, the second reading the first");
        walk.found.push(found);
    }
    let Some((kind, value)) = chosen.first() else {
        if !doubtful {
            let message = format!("{} does not say its kind", table.what);
            let found = walk.error("missing-kind", message, table.span.clone(), "");
            found.help.push(format!("kinds of transform are: {}", OPERATORS.join(", ")));
        }
        let from = walk.string(table, "from");
        return (reads(from.as_ref()), None);
    };
    if kind.value == "sql" {
        if let (Some((key, _)), 1) = (table.entries.get_key_value("from"), chosen.len()) {
            walk.error("unknown-key", format!("{} has \"from\" beside \"sql\"", table.what), key.span(), "")
                .help
                .push("SQL names the steps it reads itself: take \"from\" out".into());
        }
        let Some(sql) = sql_text(walk, "sql", value) else { return (vec![], None) };
        let before = walk.errors();
        let reads = sql_reads(walk, &sql);
        let is_bound = check_sql(walk, &sql);
        let is_whole = is_bound && walk.errors() == before && chosen.len() == 1;
        return (reads.unwrap_or_default(), is_whole.then_some(Operator::Sql(sql)));
    }
    let from = walk.required(table, "from", "write from = \"a step\", the one it changes");
    let operator = one(walk, &kind.value, value);
    (reads(from.as_ref()), operator.filter(|_| from.is_some() && chosen.len() == 1))
}

fn reads(from: Option<&Spanned<String>>) -> Vec<Read> {
    from.map(|name| Read { name: name.clone(), folded: false }).into_iter().collect()
}

pub(crate) fn sql_text(walk: &mut Walk<'_>, key: &str, value: &Value<'_>) -> Option<SqlText> {
    let text = walk.as_string(key, value)?;
    Some(SqlText { text: text.value, file: walk.file().clone(), span: text.span })
}

/// The steps that a query reads; none when it is no query.
pub(crate) fn sql_reads(walk: &mut Walk<'_>, sql: &SqlText) -> Option<Vec<Read>> {
    let relations = match sql.relations() {
        Ok(relations) => relations,
        Err(found) => {
            walk.found.extend(found);
            return None;
        }
    };
    let mut reads = Vec::new();
    for relation in relations {
        match relation.parts.as_slice() {
            [name] => reads.push(Read { name: Spanned::new(name.clone(), relation.span), folded: relation.folded }),
            parts => {
                let message = format!("\"{}\" is not a step", parts.join("."));
                walk.error("not-a-step", message, relation.span, "only steps can be read")
                    .help
                    .push("add a source that reads this table, and name it here".into());
            }
        }
    }
    Some(reads)
}

/// Reads the value of one of the operators other than `sql`.
fn one(walk: &mut Walk<'_>, kind: &str, value: &Value<'_>) -> Option<Operator> {
    match kind {
        "filter" => {
            let sql = sql_text(walk, kind, value)?;
            let is_bound = check_sql(walk, &sql);
            match sql.check_expression() {
                Ok(()) => is_bound.then_some(Operator::Filter(sql)),
                Err(found) => {
                    walk.found.extend(found);
                    None
                }
            }
        }
        "deduplicate" => deduplicate(walk, value),
        "cast" => {
            let before = walk.found.len();
            let types = pairs(walk, kind, value)?;
            for (_, sql_type) in &types {
                let text = SqlText { text: sql_type.value.clone(), file: walk.file().clone(), span: sql_type.span.clone() };
                walk.found.extend(text.check_type().err().unwrap_or_default());
            }
            (walk.found.len() == before).then_some(Operator::Cast(types))
        }
        "rename" => {
            let before = walk.found.len();
            let names = pairs(walk, kind, value)?;
            for (at, (old, new)) in names.iter().enumerate() {
                if new.is_empty() {
                    walk.wrong_value(format!("\"{}\" is renamed to nothing", old.value), new.span.clone());
                } else if names.iter().take(at).any(|(_, other)| other.value == new.value) {
                    let message = format!("two columns are renamed to \"{}\"", new.value);
                    walk.error("repeated-column", message, new.span.clone(), "again");
                }
            }
            (walk.found.len() == before).then_some(Operator::Rename(names))
        }
        "select" => {
            let columns = walk.as_columns(kind, value)?;
            if columns.is_empty() {
                walk.wrong_value("\"select\" names no column", value.span());
                return None;
            }
            Some(Operator::Select(columns))
        }
        _ => flatten(walk, value),
    }
}

/// A table of column to string, in the order written. Values of another type are told and left out.
fn pairs(walk: &mut Walk<'_>, kind: &str, value: &Value<'_>) -> Option<Vec<(Spanned<String>, Spanned<String>)>> {
    let table = walk.as_table(kind, value)?;
    if table.is_empty() {
        walk.wrong_value(format!("\"{kind}\" names no column"), value.span());
        return None;
    }
    let pair = |(key, value): (Spanned<String>, &Value<'_>)| {
        let value = walk.as_string(&key.value, value)?;
        Some((key, value))
    };
    Some(in_order(table).into_iter().filter_map(pair).collect())
}

fn deduplicate(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Operator> {
    let entries = walk.as_table("deduplicate", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"deduplicate\"", span: &span };
    walk.unknown_keys(table, &DEDUPLICATE_KEYS);
    let before = walk.found.len();
    let key = walk.some_columns(table, "key", "write key = [\"id\"], the columns that identify a row");
    let order_by: Vec<SortKey> =
        walk.strings(table, "order_by").unwrap_or_default().into_iter().filter_map(|text| sort_key(walk, text)).collect();
    let keep = walk.word(table, "keep", &[("first", Keep::First), ("last", Keep::Last), ("any", Keep::Any)]);
    let ordered = entries.get("order_by").is_some_and(|value| match value.get_ref() {
        DeValue::Array(items) => !items.is_empty(),
        _ => true,
    });
    match &keep {
        Some(keep) if keep.value == Keep::Any && ordered => {
            walk.wrong_value("\"keep\" is \"any\", so \"order_by\" would change nothing", keep.span.clone())
                .help
                .push("keep \"first\" or \"last\", or take \"order_by\" out".into());
        }
        Some(keep) if keep.value != Keep::Any && !ordered => {
            walk.error(
                "missing-key",
                "\"deduplicate\" needs the key \"order_by\": first and last are meant in an order",
                keep.span.clone(),
                "",
            )
            .help
            .push("write order_by = [\"updated_at\"], or keep = \"any\"".into());
        }
        _ => {}
    }
    let keep = keep.map_or(if ordered { Keep::First } else { Keep::Any }, |keep| keep.value);
    (walk.found.len() == before).then_some(()).and(key).map(|key| Operator::Deduplicate { key, keep, order_by })
}

/// Reads `column`, `column asc` or `column desc`.
fn sort_key(walk: &mut Walk<'_>, text: Spanned<String>) -> Option<SortKey> {
    let trimmed = text.value.trim();
    let (column, descending) = match trimmed.rsplit_once(char::is_whitespace) {
        Some((column, order)) if order.eq_ignore_ascii_case("desc") => (column.trim_end(), true),
        Some((column, order)) if order.eq_ignore_ascii_case("asc") => (column.trim_end(), false),
        _ => (trimmed, false),
    };
    if column.is_empty() {
        walk.wrong_value("\"order_by\" names a column without a name", text.span);
        return None;
    }
    Some(SortKey { column: Spanned::new(column.to_owned(), text.span), descending })
}

fn flatten(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Operator> {
    let entries = walk.as_table("flatten", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"flatten\"", span: &span };
    walk.unknown_keys(table, &FLATTEN_KEYS);
    let before = walk.found.len();
    let separator = walk.text(table, "separator").unwrap_or_else(|| "_".into());
    let optional = |walk: &mut Walk<'_>, key: &str| entries.contains_key(key).then(|| walk.required(table, key, "")).flatten();
    let column = optional(walk, "array");
    let position = optional(walk, "position");
    let array = if entries.contains_key("array") {
        let key = walk.some_columns(table, "key", "write key = [\"id\"], the parent's columns that each child row carries");
        if let (Some(key), Some(position)) = (&key, &position)
            && key.iter().any(|key| key.value == position.value)
        {
            walk.error("repeated-column", format!("\"{}\" is both key and position", position.value), position.span.clone(), "");
        }
        column.zip(key).map(|(column, key)| FlattenArray { column, key, position })
    } else {
        for key in ["key", "position"] {
            if let Some((key, _)) = entries.get_key_value(key) {
                let message = format!("\"{}\" belongs to \"array\", which is missing", key.get_ref());
                walk.wrong_value(message, key.span()).help.push("write array = \"items\", the list whose elements become rows".into());
            }
        }
        None
    };
    (walk.found.len() == before).then_some(Operator::Flatten { separator, array })
}
