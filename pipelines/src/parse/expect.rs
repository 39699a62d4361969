//! `[[expect]]`, checks over a step's whole output, and `[[test]]`, which is kept for `weir test` and only looked over here.

use toml::de::{DeTable, DeValue};

use super::{
    graph::check_read,
    operators::{sql_reads, sql_text},
    steps::{Declared, Read},
    walk::{Table, Value, Walk, in_order},
};
use crate::{
    diagnostic::{Diagnostic, Span, Spanned},
    pipeline::{Expectation, Expected},
    settings::Settings,
};

pub(crate) const EXPECT_KEYS: [&str; 3] = ["on", "name", "severity"];
pub(crate) const CHECKS: [&str; 4] = ["sql", "row_count", "unique", "not_null"];
pub(crate) const TEST_KEYS: [&str; 5] = ["name", "given", "expect", "now", "interval"];

/// The tables of an array such as `[[expect]]`.
fn tables<'t, 'i>(walk: &mut Walk<'_>, root: &'t DeTable<'i>, key: &str) -> Vec<(usize, Span, &'t DeTable<'i>)> {
    let Some(value) = root.get(key) else { return vec![] };
    let DeValue::Array(items) = value.get_ref() else {
        walk.wrong_type(key, value, "an array of tables");
        if value.get_ref().is_table()
            && let Some(found) = walk.found.last_mut()
        {
            found.help.push(format!("write [[{key}]] in place of [{key}]"));
        }
        return vec![];
    };
    let mut tables = Vec::new();
    for (index, item) in items.iter().enumerate() {
        tables.extend(walk.as_table(key, item).map(|table| (index, item.span(), table)));
    }
    tables
}

/// Reads all expectations, and which steps they read.
pub(crate) fn expectations(walk: &mut Walk<'_>, root: &DeTable<'_>, declared: &[Declared]) -> (Vec<Expectation>, Vec<Read>) {
    let (mut expectations, mut reads) = (Vec::new(), Vec::new());
    for (_, span, entries) in tables(walk, root, "expect") {
        let table = Table { entries, what: "an expectation", span: &span };
        expectations.extend(expectation(walk, table, declared, &mut reads));
    }
    (expectations, reads)
}

fn expectation(walk: &mut Walk<'_>, table: Table<'_, '_>, declared: &[Declared], reads: &mut Vec<Read>) -> Option<Expectation> {
    let known: Vec<&str> = EXPECT_KEYS.iter().chain(&CHECKS).copied().collect();
    walk.unknown_keys(table, &known);
    let on = walk.required(table, "on", "write on = \"a step\", the one it is about").map(|name| Read { name, folded: false });
    let mut readable = false;
    if let Some(on) = &on {
        readable = check_read(walk, declared, "an expectation", on);
        reads.push(on.clone());
    }
    let name = walk.text(table, "name");
    let stops = walk.word(table, "severity", &[("error", true), ("warn", false)]).is_none_or(|word| word.value);
    let checks: Vec<(Spanned<String>, &Value<'_>)> =
        in_order(table.entries).into_iter().filter(|(key, _)| CHECKS.contains(&key.value.as_str())).collect();
    if let [(first, _), (second, _), ..] = checks.as_slice() {
        let file = walk.file().clone();
        let found = Diagnostic::error("two-kinds", format!("an expectation is of two kinds, \"{}\" and \"{}\"", first.value, second.value))
            .at(&file, second.span.clone(), "second")
            .at(&file, first.span.clone(), "first")
            .help("make it two expectations");
        walk.found.push(found);
    }
    let Some((kind, value)) = checks.first() else {
        let found = walk.error("missing-kind", "an expectation does not say what it expects", table.span.clone(), "");
        found.help.push(format!("kinds of expectation are: {}", CHECKS.join(", ")));
        return None;
    };
    let columns = |columns: &[Spanned<String>]| columns.iter().map(|column| column.value.as_str()).collect::<Vec<_>>().join(", ");
    let (words, expected) = match kind.value.as_str() {
        "sql" => {
            let sql = sql_text(walk, "sql", value)?;
            let read = sql_reads(walk, &sql)?;
            for read in &read {
                check_read(walk, declared, "an expectation", read);
            }
            if let Some(on) = &on
                && readable
                && !read.iter().any(|read| read.name.value == on.name.value)
            {
                let message = format!("this expectation is on \"{}\", and its SQL does not read that step", on.name.value);
                walk.warning("elsewhere", message, on.name.span.clone(), "");
            }
            reads.extend(read);
            ("no row of its SQL".to_owned(), Expected::NoRows(sql))
        }
        "row_count" => row_count(walk, value)?,
        "unique" => {
            let named = some(walk, "unique", value)?;
            (format!("unique: {}", columns(&named)), Expected::Unique(named))
        }
        _ => {
            let named = some(walk, "not_null", value)?;
            (format!("not null: {}", columns(&named)), Expected::NotNull(named))
        }
    };
    Some(Expectation { on: on?.name, name: name.unwrap_or(words), expected, stops, span: table.span.clone() })
}

fn some(walk: &mut Walk<'_>, key: &str, value: &Value<'_>) -> Option<Vec<Spanned<String>>> {
    let columns = walk.as_columns(key, value)?;
    if columns.is_empty() {
        walk.wrong_value(format!("\"{key}\" names no column"), value.span());
        return None;
    }
    Some(columns)
}

fn row_count(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<(String, Expected)> {
    let entries = walk.as_table("row_count", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"row_count\"", span: &span };
    walk.unknown_keys(table, &["min", "max"]);
    let (min, max) = (walk.whole_number(table, "min"), walk.whole_number(table, "max"));
    if !entries.contains_key("min") && !entries.contains_key("max") {
        walk.error("missing-key", "\"row_count\" needs the key \"min\" or the key \"max\"", span.clone(), "");
        return None;
    }
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        walk.wrong_value("\"min\" is more than \"max\"", min.span.clone());
        return None;
    }
    let (min, max) = (min.map_or(0, |min| min.value), max.map(|max| max.value));
    let words = max.map_or(format!("at least {min} rows"), |max| format!("{min} to {max} rows"));
    Some((words, Expected::RowCount { min, max }))
}

/// Looks over all tests and keeps them as written.
pub(crate) fn tests(walk: &mut Walk<'_>, root: &DeTable<'_>, declared: &[Declared]) -> Vec<Settings> {
    let key_span = root.get_key_value("test").map_or(0..0, |(key, _)| key.span());
    let mut tests = Vec::new();
    for (index, span, entries) in tables(walk, root, "test") {
        let table = Table { entries, what: "a test", span: &span };
        walk.unknown_keys(table, &TEST_KEYS);
        walk.required(table, "name", "say in a sentence what holds");
        for key in ["given", "expect"] {
            let Some(value) = entries.get(key) else {
                walk.missing_key(table, key, &format!("write [test.{key}] with a step's rows: orders = [{{ id = 1 }}]"));
                continue;
            };
            let Some(steps) = walk.as_table(key, value) else { continue };
            for (name, rows) in in_order(steps) {
                let read = Read { name: name.clone(), folded: false };
                check_read(walk, declared, "a test", &read);
                match rows.get_ref() {
                    DeValue::Array(rows) => rows.iter().for_each(|row| {
                        walk.as_table(&name.value, row);
                    }),
                    // A table says where the rows are, for instance in a file.
                    DeValue::Table(_) => {}
                    _ => walk.wrong_type(&name.value, rows, "an array of rows"),
                }
            }
        }
        if let Some(now) = entries.get("now")
            && !matches!(now.get_ref(), DeValue::String(_) | DeValue::Datetime(_))
        {
            walk.wrong_type("now", now, "a datetime");
        }
        if let Some(interval) = entries.get("interval")
            && !matches!(interval.get_ref(), DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_))
        {
            walk.wrong_type("interval", interval, "an array of two datetimes");
        }
        let kind = Spanned::new("test".to_owned(), key_span.clone());
        tests.push(Settings::new(walk.document, vec!["test".into(), index.to_string()], kind, span));
    }
    tests
}
