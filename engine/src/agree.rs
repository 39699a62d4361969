//! Do a step's contract and the sink that takes its rows agree? A column that the contract lets be null where the destination takes no null,
//! and where a contract declares a column that a destination cannot take.

use std::sync::Arc;

use weir_connectors::{Change, Error};
use weir_pipelines::{Diagnostic, Diagnostics, Mode, Severity, Sink, SourceFile, Span};

use crate::plan::{PlannedSink, PlannedStep, pointed};

/// What is wrong with a sink's key, and with the columns that its own settings make it take no null in.
pub fn nulls(sink: &Sink, strict: &[(&'static str, String)], from: &PlannedStep, file: &Arc<SourceFile>) -> Diagnostics {
    let name = &sink.name.value;
    let mut wrong = Vec::new();
    if matches!(sink.mode.value, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot) {
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

/// The same of a table that is there already: a run fails at the first null that comes, so this is said before.
pub fn nulls_of_table(sink: &PlannedSink, change: &Change, from: &PlannedStep) -> Diagnostics {
    let columns = change.not_null.iter().filter(|column| !sink.context.key.contains(column));
    let what = |column: &String| format!("{} takes no null in \"{column}\"", change.destination);
    let place = || (&sink.settings.file, sink.settings.span_of("table"));
    columns.filter_map(|column| null(Diagnostic::warning("null-in-column", ""), &what(column), column, from, place())).collect()
}

/// Says that a column may be null where it must not, if the contract says so.
fn null(diagnostic: Diagnostic, what: &str, column: &str, from: &PlannedStep, place: (&Arc<SourceFile>, Span)) -> Option<Diagnostic> {
    let contract = from.contract.as_ref()?;
    let may_be_null = from.step.schema.field_with_name(column).is_ok_and(|field| field.is_nullable()) && !from.known.never_null(column);
    let property = contract.contract.property(column).filter(|_| may_be_null)?;
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

impl PlannedSink {
    /// A connector's error as a diagnostic, at the setting it names and where the contract declares the columns that it is about.
    pub fn pointed(&self, error: &Error) -> Diagnostic {
        let diagnostic = pointed(error, &self.settings, &self.name);
        let Some(contract) = &self.contract else { return diagnostic };
        let declared = error.columns.iter().filter_map(|column| contract.contract.property(column));
        declared.fold(diagnostic, |diagnostic, property| diagnostic.at(&contract.file, contract.contract.span(&property), "declared here"))
    }
}
