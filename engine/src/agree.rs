//! Do a step's contract and the sink that takes its rows agree? A column that the contract lets be null where the destination takes no null,
//! and where a contract declares a column that a destination cannot take. Without a contract, what the plan says of nulls is worth a word.

use std::sync::Arc;

use weir_connectors::{Change, Error};
use weir_pipelines::{Diagnostic, Diagnostics, Expected, Mode, Pipeline, Severity, Sink, SourceFile, Span};

use crate::{
    plan::{PlannedSink, PlannedStep, pointed},
    written::Written,
};

/// What is wrong with a sink's key, and with the columns that its own settings make it take no null in.
pub fn nulls(sink: &Sink, strict: &[(&'static str, String)], from: &PlannedStep, file: &Arc<SourceFile>) -> Diagnostics {
    let name = &sink.name.value;
    let mut wrong = Vec::new();
    if goes_by_key(sink.mode.value) {
        for key in &sink.key {
            let what = format!("sink \"{name}\" takes no null in its key");
            wrong.extend(null(Diagnostic::error("null-key", ""), &what, &key.value, from, (file, key.span.clone())));
        }
    }
    let told = |column: &String| !wrong.is_empty() && sink.key.iter().any(|key| key.value == *column);
    let strict: Vec<_> = strict.iter().filter(|(_, column)| !told(column)).collect();
    for (setting, column) in strict {
        let what = format!("sink \"{name}\" takes no null in a column of its {setting}");
        let place = (&sink.settings.file, sink.settings.span_of(setting));
        wrong.extend(null(Diagnostic::error("null-in-column", ""), &what, column, from, place));
    }
    wrong
}

/// Columns of a sink's key that may be null as far as the plan can tell, and of which no contract says anything: a warning, said once.
pub fn nullable_key(sink: &Sink, from: &PlannedStep, written: &Written, pipeline: &Pipeline) -> Option<Diagnostic> {
    if !goes_by_key(sink.mode.value) {
        return None;
    }
    let expected = |column: &str| {
        pipeline
            .expectations
            .iter()
            .filter(|one| one.stops && one.on.value == from.step.name)
            .any(|one| matches!(&one.expected, Expected::NotNull(columns) if columns.iter().any(|known| known.value == column)))
    };
    let unsaid = |column: &str| from.contract.as_ref().is_none_or(|contract| contract.contract.property(column).is_none());
    let keys = sink.key.iter().filter(|key| may_be_null(from, &key.value) && unsaid(&key.value) && !expected(&key.value));
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() {
        return None;
    }
    let (columns, them) = if keys.len() == 1 { ("key column", "it") } else { ("key columns", "them") };
    let message = format!(
        "{columns} {} of sink \"{}\" may be null, and the run fails at the first row without {them}",
        quoted(keys.iter().map(|key| &key.value)),
        sink.name.value
    );
    let mut found = Diagnostic::warning("nullable-key", message);
    for key in &keys {
        found = found.at(&pipeline.file, key.span.clone(), "may be null");
    }
    found = said_of(found, keys.iter().map(|key| &key.value), written, pipeline);
    let sql = keys.iter().map(|key| format!("{} is not null", sql_identifier(&key.value))).collect::<Vec<_>>().join(" and ");
    let required = quoted(keys.iter().map(|key| &key.value));
    let types = if keys.len() == 1 { "its types" } else { "any of their types" };
    let contract = format!("give step \"{}\" a contract with \"required\": [{required}], and without null in {types}", from.step.name);
    Some(
        found
            .help(format!("to leave such rows out, put a filter before the sink: {}", text(&sql)))
            .help(format!("to set them aside, {contract}")),
    )
}

/// What is doubtful of a table that is there already: a run fails at the first null that comes, so this is said before.
pub fn nulls_of_table(sink: &PlannedSink, change: &Change, from: &PlannedStep) -> Diagnostics {
    let columns: Vec<&String> = change.not_null.iter().filter(|column| !sink.context.key.contains(column)).collect();
    let what = |column: &String| format!("{} takes no null in \"{column}\"", change.destination);
    let place = || (&sink.settings.file, sink.settings.span_of("table"));
    let said = |column: &String| null(Diagnostic::warning("null-in-column", ""), &what(column), column, from, place());
    let mut found: Diagnostics = columns.iter().filter_map(|column| said(column)).collect();
    let unsaid = |column: &String| from.contract.as_ref().is_none_or(|contract| contract.contract.property(column).is_none());
    let open: Vec<&String> = columns.into_iter().filter(|column| may_be_null(from, column) && unsaid(column)).collect();
    if !open.is_empty() {
        let names = quoted(open.iter().copied());
        let message = format!("{} takes no null in {names}, and step \"{}\" may give one", change.destination, from.step.name);
        let mut doubt = Diagnostic::warning("null-in-column", message).at(place().0, place().1, "a row with one would fail the run");
        for span in open.iter().filter_map(|column| sink.written.place(column)) {
            doubt = doubt.at(&sink.settings.file, span, "may be null");
        }
        let sql = open.iter().map(|column| format!("{} is not null", sql_identifier(column))).collect::<Vec<_>>().join(" and ");
        found.push(doubt.help(format!("to leave such rows out, put a filter before the sink: {}", text(&sql))));
    }
    found
}

fn goes_by_key(mode: Mode) -> bool {
    matches!(mode, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot)
}

/// Whether a column of a step may hold a null, as far as its type, its query and contracts tell.
fn may_be_null(from: &PlannedStep, column: &str) -> bool {
    let nullable = from.step.schema.field_with_name(column).is_ok_and(|field| field.is_nullable());
    nullable && !from.known.never_null(column) && !from.filled.contains(column)
}

/// Says that a column may be null where it must not, if the contract says so.
fn null(diagnostic: Diagnostic, what: &str, column: &str, from: &PlannedStep, place: (&Arc<SourceFile>, Span)) -> Option<Diagnostic> {
    let contract = from.contract.as_ref()?;
    let property = contract.contract.property(column).filter(|_| may_be_null(from, column))?;
    let message = format!("{what}, and the contract of step \"{}\" lets \"{column}\" be null", from.step.name);
    let after = match diagnostic.severity {
        Severity::Error => "rows without it are then set aside",
        Severity::Warning => "a row without it is then set aside; now it would fail the run",
    };
    Some(
        Diagnostic { message, ..diagnostic }
            .at(place.0, place.1, "never null")
            .at(&contract.file, contract.contract.span(&property), "may be null or missing")
            .help(format!("add \"{column}\" to \"required\" in the contract, and keep null out of its types: {after}")),
    )
}

/// Points at where columns are written, or at the step that they come from.
fn said_of<'a>(mut found: Diagnostic, columns: impl Iterator<Item = &'a String>, written: &Written, pipeline: &Pipeline) -> Diagnostic {
    for span in columns.filter_map(|column| written.place(column)) {
        found = found.at(&pipeline.file, span, "made here");
    }
    found
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// A column as SQL writes it: names that are not in lower case need quotes.
fn sql_identifier(name: &str) -> String {
    let plain = |at: usize, c: char| c.is_ascii_lowercase() || c == '_' || (at > 0 && c.is_ascii_digit());
    match name.char_indices().all(|(at, c)| plain(at, c)) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A setting that holds SQL, as TOML.
fn text(sql: &str) -> String {
    if sql.contains('"') && !sql.contains('\'') { format!("filter = '{sql}'") } else { format!("filter = {sql:?}") }
}

impl PlannedSink {
    /// A connector's error as a diagnostic, at the setting it names and where the contract, or else the query, says what the columns are that
    /// it is about.
    pub fn pointed(&self, error: &Error) -> Diagnostic {
        let mut found = pointed(error, &self.settings, &self.name);
        for column in &error.columns {
            let contract = self.contract.as_ref();
            let declared = contract.and_then(|contract| Some((contract, contract.contract.property(column)?)));
            if let Some((contract, property)) = declared {
                found = found.at(&contract.file, contract.contract.span(&property), "declared here");
            } else if let Some(span) = self.written.place(column) {
                found = found.at(&self.settings.file, span, "made here");
            }
        }
        found
    }
}
