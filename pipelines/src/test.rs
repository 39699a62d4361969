//! A `[[test]]`: rows given to steps, and what other steps must make of them. Also how one is written as TOML, for a test that Weir made.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use indexmap::IndexMap;

use crate::{
    diagnostic::{Span, Spanned},
    params::ParamValue,
    pipeline::Pipeline,
    sql::SqlText,
};

/// One test of a pipeline.
#[derive(Debug, Clone)]
pub struct Test {
    /// What holds, in a sentence.
    pub name: Spanned<String>,
    /// Where it was written.
    pub span: Span,
    /// Rows in place of those that steps would read or make; each step exists and is a source or a transform.
    pub given: Vec<Given>,
    /// Rows that steps make of them, and that sinks take.
    pub expect: Vec<StepRows>,
    /// Rows that steps reject, as the quarantine shows them.
    pub quarantine: Vec<StepRows>,
    /// How a run of these rows fails. Then nothing else is expected.
    pub fails: Option<Fails>,
    /// The time it is; none: the time the test is run.
    pub now: Option<DateTime<Utc>>,
    /// The stretch of time that is run, from its start to before its end; where it was written.
    pub interval: Option<Spanned<(DateTime<Utc>, DateTime<Utc>)>>,
    /// Values of parameters in place of those that the pipeline has.
    pub params: Vec<(Spanned<String>, ParamValue)>,
    /// The pipeline that these values make; none where none are given.
    pub made: Option<Arc<Pipeline>>,
}

/// The rows given to one step.
#[derive(Debug, Clone)]
pub struct Given {
    /// The step.
    pub step: Spanned<String>,
    /// Its rows.
    pub rows: GivenRows,
}

/// How a step's rows are given.
#[derive(Debug, Clone)]
pub enum GivenRows {
    /// Rows whose columns the contract types, or else their own values.
    Rows(Vec<Row>),
    /// Exactly these columns, each with its type, and rows of them.
    Typed {
        /// Column to type, as written.
        columns: IndexMap<String, Spanned<String>>,
        /// The rows.
        rows: Vec<Row>,
    },
    /// A file, read as the source reads its own.
    File(Spanned<String>),
    /// The outcome of a query that reads no table.
    Sql(SqlText),
}

/// What is expected of one step.
#[derive(Debug, Clone)]
pub struct StepRows {
    /// The step as it was written: of rows that leave the pipeline, a sink.
    pub step: Spanned<String>,
    /// The step whose rows they are: of a sink, the one that it takes them from.
    pub of: String,
    /// Its rows.
    pub rows: Rows,
}

/// Rows as they are expected.
#[derive(Debug, Clone)]
pub enum Rows {
    /// These, in any order.
    Any(Vec<Row>),
    /// These, one after another.
    Ordered(Vec<Row>),
    /// So many.
    Count(Spanned<u64>),
}

impl Rows {
    /// The rows that are written down.
    pub fn listed(&self) -> &[Row] {
        match self {
            Rows::Any(rows) | Rows::Ordered(rows) => rows,
            Rows::Count(_) => &[],
        }
    }

    /// The value as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Rows::Any(rows) => rows_to_toml(rows),
            Rows::Ordered(rows) => format!("{{ ordered = true, rows = {} }}", rows_to_toml(rows)),
            Rows::Count(count) => format!("{{ count = {} }}", count.value),
        }
    }
}

/// One row as written.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where.
    pub span: Span,
    /// Columns and values, in the order written.
    pub cells: Vec<(Spanned<String>, Spanned<Literal>)>,
}

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A string.
    Text(String),
    /// An integer, wide enough for 64 bits of either sign.
    Integer(i128),
    /// A float; NaN and the infinities too.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// A date, a time, or both.
    Moment(Moment),
    /// An array.
    List(Vec<Spanned<Literal>>),
    /// A table.
    Record(Vec<(Spanned<String>, Spanned<Literal>)>),
}

/// A date, a time, or both, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// An instant: date, time and offset.
    Instant(String),
    /// Date and time of no zone.
    Local(String),
    /// A date.
    Date(String),
    /// A time of day.
    Time(String),
}

impl Moment {
    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Moment::Instant(text) | Moment::Local(text) | Moment::Date(text) | Moment::Time(text) => text,
        }
    }
}

impl Literal {
    /// How messages call its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Literal::Text(_) => "a string",
            Literal::Integer(_) => "an integer",
            Literal::Float(_) => "a float",
            Literal::Boolean(_) => "a boolean",
            Literal::Moment(Moment::Instant(_) | Moment::Local(_)) => "a datetime",
            Literal::Moment(Moment::Date(_)) => "a date",
            Literal::Moment(Moment::Time(_)) => "a time",
            Literal::List(_) => "an array",
            Literal::Record(_) => "a table",
        }
    }

    /// The value as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Literal::Text(text) => quoted(text),
            Literal::Integer(number) => number.to_string(),
            Literal::Float(number) if number.is_nan() => "nan".to_owned(),
            Literal::Float(number) if number.is_infinite() => if *number > 0.0 { "inf" } else { "-inf" }.to_owned(),
            Literal::Float(number) => format!("{number:?}"),
            Literal::Boolean(value) => value.to_string(),
            Literal::Moment(moment) => moment.text().to_owned(),
            Literal::List(items) => format!("[{}]", items.iter().map(|item| item.value.to_toml()).collect::<Vec<_>>().join(", ")),
            Literal::Record(cells) => cells_to_toml(cells),
        }
    }
}

/// How a run of the given rows fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fails {
    /// The error's code, such as `expectation-failed`.
    pub code: Spanned<String>,
    /// The step it fails in; none: any.
    pub step: Option<Spanned<String>>,
    /// The expectation that does not hold, by name; none: any.
    pub expectation: Option<Spanned<String>>,
}

impl Test {
    /// The pipeline that the test is of, where this is the one that its file makes.
    pub fn of<'a>(&'a self, pipeline: &'a Pipeline) -> &'a Pipeline {
        self.made.as_deref().unwrap_or(pipeline)
    }

    /// The test as a `[[test]]` table, with these remarks above its keys. Ends in a line break.
    pub fn to_toml(&self, remarks: &[String]) -> String {
        let mut out = String::from("[[test]]\n");
        for remark in remarks {
            out.push_str(&format!("# {}\n", remark.replace(char::is_control, " ")));
        }
        out.push_str(&format!("name = {}\n", quoted(&self.name.value)));
        if let Some(now) = &self.now {
            out.push_str(&format!("now = {}\n", now.to_rfc3339_opts(SecondsFormat::AutoSi, true)));
        }
        if let Some(interval) = &self.interval {
            let (start, end) = interval.value;
            let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            out.push_str(&format!("interval = [{}, {}]\n", text(start), text(end)));
        }
        if !self.params.is_empty() {
            let values: Vec<String> =
                self.params.iter().map(|(name, value)| format!("{} = {}", key(&name.value), value.to_toml())).collect();
            out.push_str(&format!("params = {{ {} }}\n", values.join(", ")));
        }
        if let Some(fails) = &self.fails {
            let mut parts = vec![format!("code = {}", quoted(&fails.code.value))];
            parts.extend(fails.step.as_ref().map(|step| format!("step = {}", quoted(&step.value))));
            parts.extend(fails.expectation.as_ref().map(|name| format!("expectation = {}", quoted(&name.value))));
            out.push_str(&match parts.as_slice() {
                [_] => format!("fails = {}\n", quoted(&fails.code.value)),
                parts => format!("fails = {{ {} }}\n", parts.join(", ")),
            });
        }
        for (header, steps) in [("test.expect", &self.expect), ("test.quarantine", &self.quarantine)] {
            if !steps.is_empty() {
                out.push_str(&format!("[{header}]\n"));
                steps.iter().for_each(|step| out.push_str(&format!("{} = {}\n", key(&step.step.value), step.rows.to_toml())));
            }
        }
        // Plain values stand before the first sub-table, which would take them in.
        let mut plain = String::new();
        let mut tables = String::new();
        for given in &self.given {
            let step = key(&given.step.value);
            match &given.rows {
                GivenRows::Rows(rows) => plain.push_str(&format!("{step} = {}\n", rows_to_toml(rows))),
                GivenRows::File(path) => plain.push_str(&format!("{step} = {{ file = {} }}\n", quoted(&path.value))),
                GivenRows::Sql(sql) => plain.push_str(&format!("{step} = {{ sql = {} }}\n", quoted(&sql.text))),
                GivenRows::Typed { columns, rows } => {
                    let columns: Vec<String> =
                        columns.iter().map(|(name, word)| format!("{} = {}", key(name), quoted(&word.value))).collect();
                    let columns = if columns.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", columns.join(", ")) };
                    tables.push_str(&format!("[test.given.{step}]\ncolumns = {columns}\nrows = {}\n", rows_to_toml(rows)));
                }
            }
        }
        if !plain.is_empty() || tables.is_empty() {
            out.push_str(&format!("[test.given]\n{plain}"));
        }
        out + &tables
    }
}

impl Row {
    /// The row as an inline table.
    pub fn to_toml(&self) -> String {
        cells_to_toml(&self.cells)
    }
}

fn rows_to_toml(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "[]".to_owned();
    }
    let rows: String = rows.iter().map(|row| format!("  {},\n", row.to_toml())).collect();
    format!("[\n{rows}]")
}

fn cells_to_toml(cells: &[(Spanned<String>, Spanned<Literal>)]) -> String {
    if cells.is_empty() {
        return "{}".to_owned();
    }
    let cells: Vec<String> = cells.iter().map(|(name, value)| format!("{} = {}", key(&name.value), value.value.to_toml())).collect();
    format!("{{ {} }}", cells.join(", "))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

/// A basic string of one line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_and_any_float_survive_toml(text in any::<String>(), name in any::<String>(), number in any::<f64>()) {
            let spanned = |value: Literal| Spanned::new(value, 0..0);
            let cells = vec![
                (Spanned::new(format!("a{name}"), 0..0), spanned(Literal::Text(text.clone()))),
                (Spanned::new("b".to_owned(), 0..0), spanned(Literal::Float(number))),
            ];
            let table: toml::Table = toml::from_str(&format!("v = {}", cells_to_toml(&cells))).expect("is TOML");
            prop_assert_eq!(table["v"][format!("a{name}").as_str()].as_str(), Some(text.as_str()));
            let found = table["v"]["b"].as_float().expect("a float");
            prop_assert!(found.to_bits() == number.to_bits() || (found.is_nan() && number.is_nan()));
        }
    }
}
