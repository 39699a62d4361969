//! `[[expect]]`: checks over a step's whole output.

use toml::de::{DeTable, DeValue};

use super::{
    graph::check_read,
    operators::{sql_reads, sql_text},
    params::check_sql,
    steps::{Declared, Read},
    walk::{Table, Value, Walk, in_order},
};
use crate::{
    diagnostic::{Diagnostic, Span, Spanned},
    pipeline::{Expectation, Expected, Measure, Reference, Scalar},
    units,
};

pub(crate) const EXPECT_KEYS: [&str; 3] = ["on", "name", "severity"];
pub(crate) const CHECKS: [&str; 8] = ["sql", "row_count", "unique", "not_null", "accepted_values", "foreign_key", "freshness", "change"];
/// Values of earlier runs that a change is held against where the author does not say.
pub(crate) const RUNS: u32 = 20;
/// Fewer earlier values say nothing yet, where the author does not say.
pub(crate) const RUNS_MIN: u32 = 5;
/// A median of fewer is none.
const RUNS_LEAST: u64 = 3;
const RUNS_MOST: u64 = 1000;
/// Iglewicz and Hoaglin's own bound.
pub(crate) const Z_MAX: f64 = 3.5;

/// The tables of an array such as `[[expect]]`.
pub(super) fn tables<'t, 'i>(walk: &mut Walk<'_>, root: &'t DeTable<'i>, key: &str) -> Vec<(Span, &'t DeTable<'i>)> {
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
    for item in items.iter() {
        tables.extend(walk.as_table(key, item).map(|table| (item.span(), table)));
    }
    tables
}

/// Reads all expectations, and which steps they read.
pub(crate) fn expectations(walk: &mut Walk<'_>, root: &DeTable<'_>, declared: &[Declared]) -> (Vec<Expectation>, Vec<Read>) {
    let (mut expectations, mut reads) = (Vec::new(), Vec::new());
    for (span, entries) in tables(walk, root, "expect") {
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
    let mut others: Vec<Read> = Vec::new();
    let (words, expected) = match kind.value.as_str() {
        "sql" => {
            let sql = sql_text(walk, "sql", value)?;
            let before = walk.errors();
            let is_bound = check_sql(walk, &sql);
            let read = sql_reads(walk, &sql)?;
            if walk.errors() > before || !is_bound {
                return None;
            }
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
            others = read;
            ("no row of its SQL".to_owned(), Expected::NoRows(sql))
        }
        "row_count" => row_count(walk, value)?,
        "unique" => {
            let named = some(walk, "unique", value)?;
            (format!("unique: {}", listed(&named)), Expected::Unique(named))
        }
        "not_null" => {
            let named = some(walk, "not_null", value)?;
            (format!("not null: {}", listed(&named)), Expected::NotNull(named))
        }
        "accepted_values" => accepted_values(walk, value)?,
        "foreign_key" => {
            let (words, expected) = foreign_key(walk, value)?;
            if let Expected::ForeignKey { references: Reference::Step(step), .. } = &expected {
                let read = Read { name: step.clone(), folded: false };
                check_read(walk, declared, "an expectation", &read);
                others = vec![read];
            }
            (words, expected)
        }
        "freshness" => freshness(walk, value)?,
        _ => change(walk, value)?,
    };
    let on = on?.name;
    let mut steps = vec![on.clone()];
    for read in &others {
        if !steps.iter().any(|step| step.value == read.name.value) {
            steps.push(read.name.clone());
        }
    }
    reads.extend(others);
    Some(Expectation { on, reads: steps, name: name.unwrap_or(words), expected, stops, span: table.span.clone() })
}

fn listed(columns: &[Spanned<String>]) -> String {
    columns.iter().map(|column| column.value.as_str()).collect::<Vec<_>>().join(", ")
}

/// A column's name that must be there.
fn column(walk: &mut Walk<'_>, table: Table<'_, '_>) -> Option<Spanned<String>> {
    walk.required(table, "column", "write column = \"a column of the step\"")
}

fn accepted_values(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<(String, Expected)> {
    let entries = walk.as_table("accepted_values", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"accepted_values\"", span: &span };
    walk.unknown_keys(table, &["column", "values"]);
    let column = column(walk, table);
    let Some(list) = entries.get("values") else {
        walk.missing_key(table, "values", "write values = [\"open\", \"closed\"]");
        return None;
    };
    let DeValue::Array(items) = list.get_ref() else {
        walk.wrong_type("values", list, "an array");
        return None;
    };
    if items.is_empty() {
        walk.wrong_value("\"values\" lists no value", list.span());
        return None;
    }
    let mut values: Vec<Spanned<Scalar>> = Vec::new();
    for item in items.iter() {
        let Some(scalar) = scalar(walk, item) else { continue };
        if values.iter().any(|before| before.value == scalar) {
            walk.wrong_value(format!("\"values\" lists {scalar} twice"), item.span());
        } else {
            values.push(Spanned::new(scalar, item.span()));
        }
    }
    let column = column?;
    let words = format!("accepted values: {}", column.value);
    Some((words, Expected::AcceptedValues { column, values }))
}

fn scalar(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Scalar> {
    match value.get_ref() {
        DeValue::String(text) => Some(Scalar::Text(text.to_string())),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(Scalar::Integer(number)),
            Err(_) => {
                walk.wrong_value("\"values\" lists an integer that no column can hold", value.span());
                None
            }
        },
        DeValue::Float(number) => number.as_str().parse().ok().map(Scalar::Float),
        DeValue::Boolean(yes) => Some(Scalar::Boolean(*yes)),
        DeValue::Datetime(datetime) => Some(Scalar::Datetime(datetime.to_string())),
        DeValue::Array(_) | DeValue::Table(_) => {
            walk.wrong_type("values", value, "single values");
            None
        }
    }
}

fn foreign_key(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<(String, Expected)> {
    let entries = walk.as_table("foreign_key", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"foreign_key\"", span: &span };
    walk.unknown_keys(table, &["columns", "references", "to"]);
    let columns = walk.some_columns(table, "columns", "write columns = [\"a column of the step\"]");
    let references = walk.required(table, "references", "write references = \"a step\", or \"lake.SCHEMA.TABLE\"");
    let to = match entries.get("to") {
        Some(to) => Some(some(walk, "to", to)?),
        None => None,
    };
    let (columns, references) = (columns?, references?);
    if let Some(to) = &to
        && to.len() != columns.len()
    {
        let message = format!("\"columns\" and \"to\" name {} and {} columns, and must name as many", columns.len(), to.len());
        walk.wrong_value(message, entries.get("to").map_or(span, |to| to.span()));
        return None;
    }
    let words = format!("foreign key: {} in {}", listed(&columns), references.value);
    // A step's name has no dot.
    let references = match references.value.split('.').collect::<Vec<_>>().as_slice() {
        [_] => Reference::Step(references),
        ["lake", schema, name] if [schema, name].iter().all(|part| is_part(part)) => {
            Reference::Lake { schema: (*schema).to_owned(), table: (*name).to_owned(), name: references }
        }
        _ => {
            walk.wrong_value(format!("\"{}\" is neither a step nor a table of the lake", references.value), references.span.clone())
                .help
                .push("write a step's name, or a table as lake.SCHEMA.TABLE".into());
            return None;
        }
    };
    let to = to.unwrap_or_else(|| columns.clone());
    Some((words, Expected::ForeignKey { columns, references, to }))
}

/// The schema or the name of a lake table, as the lake's sink takes them.
fn is_part(name: &str) -> bool {
    name.starts_with(char::is_alphanumeric) && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

fn freshness(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<(String, Expected)> {
    let entries = walk.as_table("freshness", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"freshness\"", span: &span };
    walk.unknown_keys(table, &["column", "max_age"]);
    let column = column(walk, table);
    if !entries.contains_key("max_age") {
        walk.missing_key(table, "max_age", "write max_age = \"1d\"");
    }
    let age = walk.some_duration(table, "max_age");
    let (column, age) = (column?, age?);
    let words = format!("fresh: {} within {}", column.value, units::shown(age.value));
    Some((words, Expected::Freshness { column, age_max: age.value }))
}

fn change(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<(String, Expected)> {
    let entries = walk.as_table("change", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"change\"", span: &span };
    walk.unknown_keys(table, &["of", "z_max", "runs", "runs_min"]);
    let z_max = z_max(walk, table);
    let runs = count_of_runs(walk, table, "runs", RUNS);
    let runs_min = count_of_runs(walk, table, "runs_min", RUNS_MIN.min(runs.as_ref().map_or(RUNS_MIN, |runs| runs.value)));
    let Some(of) = entries.get("of") else {
        walk.missing_key(table, "of", "write of = \"row_count\", or an aggregate such as of = \"avg(amount)\"");
        return None;
    };
    let sql = sql_text(walk, "of", of)?;
    if !check_sql(walk, &sql) {
        return None;
    }
    let words = format!("change of {}", sql.text.trim());
    let of = if sql.text.trim() == "row_count" {
        Measure::RowCount
    } else {
        if let Err(found) = sql.check_aggregate() {
            walk.found.extend(found);
            return None;
        }
        Measure::Aggregate(sql)
    };
    let (z_max, runs, runs_min) = (z_max?, runs?, runs_min?);
    if runs_min.value > runs.value {
        walk.wrong_value("\"runs_min\" is more than \"runs\"", runs_min.span);
        return None;
    }
    Some((words, Expected::Change { of, z_max, runs: runs.value, runs_min: runs_min.value }))
}

fn z_max(walk: &mut Walk<'_>, table: Table<'_, '_>) -> Option<f64> {
    let Some(value) = table.entries.get("z_max") else { return Some(Z_MAX) };
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok().filter(|_| number.radix() == 10),
        _ => {
            walk.wrong_type("z_max", value, "a number");
            return None;
        }
    };
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    if number.is_none() {
        walk.wrong_value("\"z_max\" must be a number more than 0", value.span());
    }
    number
}

fn count_of_runs(walk: &mut Walk<'_>, table: Table<'_, '_>, key: &str, default: u32) -> Option<Spanned<u32>> {
    if !table.entries.contains_key(key) {
        return Some(Spanned::new(default, table.span.clone()));
    }
    let number = walk.whole_number(table, key)?;
    match u32::try_from(number.value) {
        Ok(runs) if (RUNS_LEAST..=RUNS_MOST).contains(&number.value) => Some(Spanned::new(runs, number.span)),
        _ => {
            walk.wrong_value(format!("\"{key}\" must be from {RUNS_LEAST} to {RUNS_MOST}"), number.span);
            None
        }
    }
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
