//! `[[test]]`: rows given to steps, and the rows or the failure that must come of them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use chrono_tz::Tz;
use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use super::{
    expect::tables,
    graph::check_read,
    params::give_table,
    steps::{Declared, Read, Role},
    walk::{Table, Value, Walk, in_order},
};
use crate::{
    cron::moment,
    diagnostic::{Diagnostic, Span, Spanned},
    sql::SqlText,
    test::{Fails, Given, GivenRows, Literal, Moment, Row, Rows, StepRows, Test},
};

pub(crate) const TEST_KEYS: [&str; 8] = ["name", "given", "expect", "quarantine", "fails", "now", "interval", "params"];
const FAILS_KEYS: [&str; 3] = ["code", "step", "expectation"];
const GIVEN_KEYS: [&str; 4] = ["file", "sql", "columns", "rows"];
const EXPECTED_KEYS: [&str; 3] = ["rows", "ordered", "count"];
const REJECTED_KEYS: [&str; 2] = ["rows", "count"];

/// Reads all tests.
///
/// Times without an offset are on the clock of `zone`, the schedule's.
pub(crate) fn tests(walk: &mut Walk<'_>, root: &DeTable<'_>, declared: &[Declared], zone: Tz) -> Vec<Test> {
    let (mut tests, mut names): (Vec<Test>, Vec<Spanned<String>>) = (Vec::new(), Vec::new());
    for (span, entries) in tables(walk, root, "test") {
        let (name, test) = test(walk, Table { entries, what: "a test", span: &span }, declared, zone);
        let Some(name) = name else { continue };
        if let Some(first) = names.iter().find(|first| first.value == name.value) {
            let file = walk.file().clone();
            let found = Diagnostic::error("duplicate-name", format!("two tests are called \"{}\"", name.value))
                .at(&file, name.span.clone(), "second")
                .at(&file, first.span.clone(), "first");
            walk.found.push(found);
        }
        names.push(name);
        tests.extend(test);
    }
    tests
}

/// Reads a test's name, and the test where its name and the rows it gives are whole.
fn test(walk: &mut Walk<'_>, table: Table<'_, '_>, declared: &[Declared], zone: Tz) -> (Option<Spanned<String>>, Option<Test>) {
    walk.unknown_keys(table, &TEST_KEYS);
    let name = walk.required(table, "name", "say in a sentence what holds");
    let before = walk.errors();
    let mut given = Vec::new();
    match table.entries.get("given") {
        None => walk.missing_key(table, "given", "write [test.given] with a step's rows: orders = [{ id = 1 }]"),
        Some(value) => {
            for (step, value) in steps(walk, declared, "given", value, false) {
                given.extend(given_rows(walk, &step, value).map(|rows| Given { step, rows }));
            }
        }
    }
    let is_given = walk.errors() == before;
    let expect = expected(walk, table, declared, "expect");
    let quarantine = expected(walk, table, declared, "quarantine");
    let fails = table.entries.get("fails").map(|value| (value.span(), fails(walk, value, declared)));
    match &fails {
        Some((span, _)) => {
            for key in ["expect", "quarantine"] {
                if let Some((key, _)) = table.entries.get_key_value(key) {
                    let file = walk.file().clone();
                    let message = format!("a test has either \"fails\" or \"{}\": a run that fails gives no rows", key.get_ref());
                    let found = Diagnostic::error("wrong-value", message).at(&file, key.span(), "").at(&file, span.clone(), "");
                    walk.found.push(found.help("make it two tests"));
                }
            }
        }
        None if !table.entries.contains_key("expect") && !table.entries.contains_key("quarantine") => {
            walk.missing_key(table, "expect", "write [test.expect] with a step's rows: orders = [{ id = 1 }]");
            if let Some(found) = walk.found.last_mut() {
                found.help.push("or fails = \"CODE\", where a run of these rows must fail".to_owned());
            }
        }
        None => {
            let empty =
                |key: &str| table.entries.get(key).is_none_or(|value| value.get_ref().as_table().is_some_and(|steps| steps.is_empty()));
            if empty("expect") && empty("quarantine") {
                walk.wrong_value("a test expects nothing", table.span.clone())
                    .help
                    .push("name a step under [test.expect]; orders = [] expects that it has no rows".to_owned());
            }
        }
    }
    let now = table.entries.get("now").and_then(|value| now(walk, value));
    let interval = table.entries.get_key_value("interval").and_then(|(key, value)| interval(walk, key.span(), value, zone));
    let before_params = walk.errors();
    let params = table.entries.get("params").and_then(|value| walk.as_table("params", value));
    let params = params.map(|params| give_table(walk, in_order(params))).unwrap_or_default();
    let is_given = is_given && walk.errors() == before_params;
    // Of a failure that is misread, nobody knows which steps it is about.
    let is_known = fails.as_ref().is_none_or(|(_, fails)| fails.is_some());
    let fails = fails.and_then(|(_, fails)| fails);
    let test = name.clone().filter(|_| is_given && is_known).map(|name| {
        let span = table.span.clone();
        Test { name, span, given, expect, quarantine, fails, now, interval, params, made: None }
    });
    (name, test)
}

/// Reads the two ends of an interval.
fn interval(walk: &mut Walk<'_>, key: Span, value: &Value<'_>, zone: Tz) -> Option<Spanned<(DateTime<Utc>, DateTime<Utc>)>> {
    let ends: Vec<Option<DateTime<Utc>>> = match value.get_ref() {
        DeValue::Array(ends) => ends.iter().map(|end| moment(&end.get_ref().as_datetime()?.to_string(), zone)).collect(),
        _ => vec![],
    };
    let [Some(start), Some(end)] = ends.as_slice() else {
        walk.wrong_type("interval", value, "an array of two datetimes");
        return None;
    };
    if start >= end {
        walk.wrong_value("an interval ends later than it begins", value.span());
        return None;
    }
    Some(Spanned::new((*start, *end), key))
}

/// The entries of a table whose keys are steps.
fn steps<'t, 'i>(
    walk: &mut Walk<'_>,
    declared: &[Declared],
    key: &str,
    value: &'t Value<'i>,
    or_sinks: bool,
) -> Vec<(Spanned<String>, &'t Value<'i>)> {
    let Some(entries) = walk.as_table(key, value) else { return vec![] };
    let steps = in_order(entries);
    for (name, _) in &steps {
        if !(or_sinks && declared.iter().any(|step| step.name.value == name.value)) {
            check_read(walk, declared, "a test", &Read { name: name.clone(), folded: false });
        }
    }
    steps
}

/// The step whose rows are expected: of a sink, the one that it takes them from.
fn of(declared: &[Declared], name: &str) -> String {
    let mut candidates = declared.iter().filter(|step| step.name.value == name);
    let own = candidates.clone().any(|step| step.role != Role::Sink);
    let taken = candidates.find_map(|step| step.reads.first()).filter(|_| !own);
    taken.map_or(name, |read| read.name.value.as_str()).to_owned()
}

fn expected(walk: &mut Walk<'_>, table: Table<'_, '_>, declared: &[Declared], key: &str) -> Vec<StepRows> {
    let Some(value) = table.entries.get(key) else { return vec![] };
    // Of the rows that leave a pipeline, a person thinks by the name of the sink. A sink rejects none.
    let is_expect = key == "expect";
    let mut all = Vec::new();
    for (step, value) in steps(walk, declared, key, value, is_expect) {
        let rows = expected_rows(walk, &step, value, if is_expect { &EXPECTED_KEYS } else { &REJECTED_KEYS });
        all.extend(rows.map(|rows| StepRows { of: of(declared, &step.value), step, rows }));
    }
    all
}

/// Rows as an array, or a table that says more of them.
fn expected_rows(walk: &mut Walk<'_>, step: &Spanned<String>, value: &Value<'_>, known: &[&str]) -> Option<Rows> {
    let DeValue::Table(entries) = value.get_ref() else { return rows(walk, &step.value, value).map(Rows::Any) };
    let span = value.span();
    let what = format!("\"{}\"", step.value);
    let table = Table { entries, what: &what, span: &span };
    walk.unknown_keys(table, known);
    if let Some((count, _)) = entries.get_key_value("count") {
        for key in ["rows", "ordered"] {
            if let Some((key, _)) = entries.get_key_value(key) {
                let message = format!("{what} has either \"count\" or \"{}\", not both", key.get_ref());
                let file = walk.file().clone();
                let found = walk.wrong_value(message, key.span());
                *found = found.clone().at(&file, count.span(), "").help("rows say themselves how many they are");
            }
        }
        return walk.whole_number(table, "count").map(Rows::Count);
    }
    let Some(value) = entries.get("rows") else {
        walk.missing_key(table, "rows", "write an array of rows, { rows = [], ordered = true }, or { count = 3 }");
        return None;
    };
    let rows = rows(walk, "rows", value)?;
    match entries.get("ordered").map(|value| (value, value.get_ref().as_bool())) {
        None | Some((_, Some(false))) => Some(Rows::Any(rows)),
        Some((_, Some(true))) => Some(Rows::Ordered(rows)),
        Some((value, None)) => {
            walk.wrong_type("ordered", value, "a boolean");
            None
        }
    }
}

/// A query that makes rows of nothing.
fn sql(walk: &mut Walk<'_>, what: &str, table: Table<'_, '_>) -> Option<GivenRows> {
    let text = walk.required(table, "sql", "")?;
    let text = SqlText::new(walk.file().clone(), text.span);
    match text.relations() {
        Ok(relations) if relations.is_empty() => Some(GivenRows::Sql(text)),
        Ok(relations) => {
            for relation in relations {
                let name = relation.parts.join(".");
                walk.error("given-reads", format!("the rows given to {what} are read from \"{name}\""), relation.span, "a table")
                    .help
                    .push("a test reads nothing from outside: make the rows, as in select 1 as id union all select 2".to_owned());
            }
            None
        }
        Err(found) => {
            walk.found.extend(found);
            None
        }
    }
}

fn given_rows(walk: &mut Walk<'_>, step: &Spanned<String>, value: &Value<'_>) -> Option<GivenRows> {
    let DeValue::Table(entries) = value.get_ref() else { return rows(walk, &step.value, value).map(GivenRows::Rows) };
    let span = value.span();
    let what = format!("\"{}\"", step.value);
    let table = Table { entries, what: &what, span: &span };
    walk.unknown_keys(table, &GIVEN_KEYS);
    if let Some(form) = ["file", "sql"].into_iter().find(|form| entries.contains_key(*form)) {
        for key in GIVEN_KEYS.iter().filter(|key| **key != form) {
            if let Some((key, _)) = entries.get_key_value(*key) {
                walk.wrong_value(format!("{what} has either \"{form}\" or \"{}\", not both", key.get_ref()), key.span());
            }
        }
        return match form {
            "file" => walk.required(table, "file", "").map(GivenRows::File),
            _ => sql(walk, &what, table),
        };
    }
    let Some(columns) = entries.get("columns") else {
        walk.missing_key(
            table,
            "columns",
            "write an array of rows, { file = \"rows.csv\" }, { sql = \"select 1 as id\" }, or { columns = { id = \"bigint\" }, rows = [] }",
        );
        return None;
    };
    let mut types = IndexMap::new();
    for (column, word) in in_order(walk.as_table("columns", columns)?) {
        let word = walk.as_string(&column.value, word)?;
        types.insert(column.value, word);
    }
    let rows = match entries.get("rows") {
        Some(value) => rows(walk, "rows", value)?,
        None => vec![],
    };
    for (column, _) in rows.iter().flat_map(|row| &row.cells).filter(|(column, _)| !types.contains_key(&column.value)) {
        let known: Vec<&str> = types.keys().map(String::as_str).collect();
        let found =
            walk.error("unknown-column", format!("no column \"{}\" in \"columns\"", column.value), column.span.clone(), "not found");
        super::walk::suggest(found, &column.value, &known);
    }
    Some(GivenRows::Typed { columns: types, rows })
}

fn rows(walk: &mut Walk<'_>, key: &str, value: &Value<'_>) -> Option<Vec<Row>> {
    let DeValue::Array(items) = value.get_ref() else {
        walk.wrong_type(key, value, "an array of rows");
        return None;
    };
    let mut rows = Vec::new();
    for item in items.iter() {
        let cells = walk.as_table(key, item).and_then(|cells| record(walk, cells));
        rows.extend(cells.map(|cells| Row { span: item.span(), cells }));
    }
    (rows.len() == items.len()).then_some(rows)
}

fn record(walk: &mut Walk<'_>, entries: &DeTable<'_>) -> Option<Vec<(Spanned<String>, Spanned<Literal>)>> {
    let cells: Vec<_> = in_order(entries).into_iter().filter_map(|(key, value)| literal(walk, value).map(|value| (key, value))).collect();
    (cells.len() == entries.len()).then_some(cells)
}

fn literal(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Spanned<Literal>> {
    let literal = match value.get_ref() {
        DeValue::String(text) => Literal::Text(text.to_string()),
        DeValue::Boolean(value) => Literal::Boolean(*value),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Literal::Integer(number),
            Err(_) => {
                walk.wrong_value("the integer is too large", value.span()).help.push("write it as a string, for a decimal column".into());
                return None;
            }
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Literal::Float(number),
            Err(_) => {
                walk.wrong_value("not a float", value.span());
                return None;
            }
        },
        DeValue::Datetime(moment) => {
            let text = moment.to_string();
            Literal::Moment(match (moment.date, moment.time, moment.offset) {
                (Some(_), Some(_), Some(_)) => Moment::Instant(text),
                (Some(_), Some(_), None) => Moment::Local(text),
                (Some(_), None, _) => Moment::Date(text),
                _ => Moment::Time(text),
            })
        }
        DeValue::Array(items) => {
            let read: Vec<_> = items.iter().filter_map(|item| literal(walk, item)).collect();
            if read.len() < items.len() {
                return None;
            }
            Literal::List(read)
        }
        DeValue::Table(entries) => Literal::Record(record(walk, entries)?),
    };
    Some(Spanned::new(literal, value.span()))
}

fn fails(walk: &mut Walk<'_>, value: &Value<'_>, declared: &[Declared]) -> Option<Fails> {
    if let DeValue::String(code) = value.get_ref() {
        return Some(Fails { code: Spanned::new(code.to_string(), value.span()), step: None, expectation: None });
    }
    let DeValue::Table(entries) = value.get_ref() else {
        walk.wrong_type("fails", value, "an error's code, or a table with it");
        return None;
    };
    let span = value.span();
    let table = Table { entries, what: "\"fails\"", span: &span };
    walk.unknown_keys(table, &FAILS_KEYS);
    let code = walk.required(table, "code", "write code = \"expectation-failed\", the code in the brackets of the error's message");
    let step = walk.string(table, "step");
    if let Some(step) = &step {
        check_read(walk, declared, "a test", &Read { name: step.clone(), folded: false });
    }
    let expectation = walk.string(table, "expectation");
    Some(Fails { code: code?, step, expectation })
}

/// The time it is: an instant; what says no offset is meant in UTC.
fn now(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<DateTime<Utc>> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        _ => {
            walk.wrong_type("now", value, "a datetime");
            return None;
        }
    };
    let instant = DateTime::parse_from_rfc3339(&text).map(|instant| instant.to_utc()).ok();
    let local =
        || text.replacen('T', " ", 1).parse::<NaiveDateTime>().or_else(|_| text.parse::<NaiveDateTime>()).ok().map(|local| local.and_utc());
    let day = || text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|local| local.and_utc());
    let found = instant.or_else(local).or_else(day);
    if found.is_none() {
        walk.wrong_value(format!("\"{text}\" is not a datetime"), value.span()).help.push("write now = 2013-01-01T00:00:00Z".into());
    }
    found
}
