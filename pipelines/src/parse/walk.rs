//! Reading tables key by key: each value of the wrong type, each unknown key and each bad word becomes a diagnostic, and reading goes on.
//! What the keys mean is left to the files beside.

use std::{sync::Arc, time::Duration};

use toml::de::{DeInteger, DeTable, DeValue};

use super::params::Known;

use crate::{
    diagnostic::{Diagnostic, Severity, SourceFile, Span, Spanned},
    pipeline::ShareMax,
    settings::Document,
    units,
};

/// A value as the parser of TOML gives it.
pub(crate) type Value<'i> = toml::Spanned<DeValue<'i>>;

/// What is read, and what was found wrong on the way.
pub(crate) struct Walk<'a> {
    pub(crate) document: &'a Arc<Document>,
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) params: Known,
}

/// A table, how messages call it, and where that is written.
#[derive(Clone, Copy)]
pub(crate) struct Table<'t, 'i> {
    pub(crate) entries: &'t DeTable<'i>,
    /// `[schedule]`, `source "flights"`, …
    pub(crate) what: &'t str,
    pub(crate) span: &'t Span,
}

/// How messages call a value's type.
pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a datetime",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A whole number that fits 64 bits, signed.
pub(crate) fn integer(value: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(value.as_str(), value.radix()).ok()
}

/// A table's entries in the order they were written; TOML's own map sorts them.
pub(crate) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(Spanned<String>, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().map(|(key, value)| (Spanned::new(key.get_ref().to_string(), key.span()), value)).collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

/// Letters, digits, `_` and `-`; a step, which SQL reads as a table, starts with a letter or `_`.
pub(crate) fn is_name(name: &str, step: bool) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(plain) && !(step && name.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

impl<'a> Walk<'a> {
    pub(crate) fn new(document: &'a Arc<Document>) -> Self {
        Self { document, found: Vec::new(), params: Known::default() }
    }

    pub(crate) fn file(&self) -> &'a Arc<SourceFile> {
        &self.document.file
    }

    /// How many errors were noted so far: what is read without adding one is whole.
    pub(crate) fn errors(&self) -> usize {
        self.found.iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// Notes an error with one label.
    pub(crate) fn error(&mut self, code: &'static str, message: impl Into<String>, span: Span, label: &str) -> &mut Diagnostic {
        self.push(Diagnostic::error(code, message), span, label)
    }

    /// Notes a warning with one label.
    pub(crate) fn warning(&mut self, code: &'static str, message: impl Into<String>, span: Span, label: &str) -> &mut Diagnostic {
        self.push(Diagnostic::warning(code, message), span, label)
    }

    fn push(&mut self, diagnostic: Diagnostic, span: Span, label: &str) -> &mut Diagnostic {
        let at = self.found.len();
        self.found.push(diagnostic.at(self.file(), span, label));
        &mut self.found[at]
    }

    /// Notes each key that is not `known`.
    pub(crate) fn unknown_keys(&mut self, table: Table<'_, '_>, known: &[&str]) {
        for (key, _) in in_order(table.entries) {
            if !known.contains(&key.value.as_str()) {
                self.unknown_key(table.what, &key, known);
            }
        }
    }

    /// Notes that a key is not one of the table's.
    pub(crate) fn unknown_key(&mut self, what: &str, key: &Spanned<String>, known: &[&str]) {
        let message = format!("{what} has no key \"{}\"", key.value);
        let found = self.error("unknown-key", message, key.span.clone(), "not a key");
        suggest(found, &key.value, known);
        found.help.push(format!("keys are: {}", known.join(", ")));
    }

    /// Notes that a key is missing.
    pub(crate) fn missing_key(&mut self, table: Table<'_, '_>, key: &str, help: &str) {
        let message = format!("{} needs the key \"{key}\"", table.what);
        let found = self.error("missing-key", message, table.span.clone(), "");
        if !help.is_empty() {
            found.help.push(help.to_owned());
        }
    }

    /// Notes that a value is of another type.
    pub(crate) fn wrong_type(&mut self, key: &str, value: &Value<'_>, expected: &str) {
        let message = format!("expected {expected} for \"{key}\", found {}", type_name(value.get_ref()));
        self.error("wrong-type", message, value.span(), "");
    }

    /// Notes that a value of the right type cannot be meant.
    pub(crate) fn wrong_value(&mut self, message: impl Into<String>, span: Span) -> &mut Diagnostic {
        self.error("wrong-value", message, span, "")
    }

    pub(crate) fn as_string(&mut self, key: &str, value: &Value<'_>) -> Option<Spanned<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(text.to_string(), value.span())),
            _ => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    pub(crate) fn string(&mut self, table: Table<'_, '_>, key: &str) -> Option<Spanned<String>> {
        self.as_string(key, table.entries.get(key)?)
    }

    /// A string that must be there and not be empty.
    pub(crate) fn required(&mut self, table: Table<'_, '_>, key: &str, help: &str) -> Option<Spanned<String>> {
        if !table.entries.contains_key(key) {
            self.missing_key(table, key, help);
        }
        let text = self.string(table, key)?;
        if text.trim().is_empty() {
            self.wrong_value(format!("\"{key}\" is empty"), text.span.clone());
            return None;
        }
        Some(text)
    }

    pub(crate) fn text(&mut self, table: Table<'_, '_>, key: &str) -> Option<String> {
        self.string(table, key).map(|text| text.value)
    }

    pub(crate) fn strings(&mut self, table: Table<'_, '_>, key: &str) -> Option<Vec<Spanned<String>>> {
        let value = table.entries.get(key)?;
        self.as_strings(key, value)
    }

    pub(crate) fn as_strings(&mut self, key: &str, value: &Value<'_>) -> Option<Vec<Spanned<String>>> {
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value, "an array of strings");
            return None;
        };
        let read: Vec<_> = items.iter().filter_map(|item| self.as_string(key, item)).collect();
        (read.len() == items.len()).then_some(read)
    }

    /// Names of columns: none empty, none twice.
    pub(crate) fn columns(&mut self, table: Table<'_, '_>, key: &str) -> Option<Vec<Spanned<String>>> {
        let value = table.entries.get(key)?;
        self.as_columns(key, value)
    }

    pub(crate) fn as_columns(&mut self, key: &str, value: &Value<'_>) -> Option<Vec<Spanned<String>>> {
        let columns = self.as_strings(key, value)?;
        let before = self.found.len();
        for (at, column) in columns.iter().enumerate() {
            if column.is_empty() {
                self.wrong_value(format!("\"{key}\" names a column without a name"), column.span.clone());
            } else if let Some(first) = columns[..at].iter().find(|first| first.value == column.value) {
                let file = self.file().clone();
                let found = Diagnostic::error("repeated-column", format!("\"{key}\" names the column \"{}\" twice", column.value))
                    .at(&file, column.span.clone(), "again")
                    .at(&file, first.span.clone(), "first");
                self.found.push(found);
            }
        }
        (self.found.len() == before).then_some(columns)
    }

    /// Names of columns, at least one.
    pub(crate) fn some_columns(&mut self, table: Table<'_, '_>, key: &str, help: &str) -> Option<Vec<Spanned<String>>> {
        let Some(value) = table.entries.get(key) else {
            self.missing_key(table, key, help);
            return None;
        };
        let columns = self.as_columns(key, value)?;
        if columns.is_empty() {
            self.wrong_value(format!("\"{key}\" names no column"), value.span());
            return None;
        }
        Some(columns)
    }

    pub(crate) fn whole_number(&mut self, table: Table<'_, '_>, key: &str) -> Option<Spanned<u64>> {
        let value = table.entries.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, "an integer");
            return None;
        };
        match integer(number).and_then(|number| u64::try_from(number).ok()) {
            Some(number) => Some(Spanned::new(number, value.span())),
            None => {
                self.wrong_value(format!("\"{key}\" must be 0 or more"), value.span());
                None
            }
        }
    }

    pub(crate) fn duration(&mut self, table: Table<'_, '_>, key: &str) -> Option<Spanned<Duration>> {
        let value = table.entries.get(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, "a string such as \"10m\"");
            return None;
        };
        match units::duration(text) {
            Ok(duration) => Some(Spanned::new(duration, value.span())),
            Err(message) => {
                self.error("bad-duration", message, value.span(), "");
                None
            }
        }
    }

    /// A duration that is longer than nothing.
    pub(crate) fn some_duration(&mut self, table: Table<'_, '_>, key: &str) -> Option<Spanned<Duration>> {
        let duration = self.duration(table, key)?;
        if duration.value.is_zero() {
            self.wrong_value(format!("\"{key}\" must be longer than nothing"), duration.span);
            return None;
        }
        Some(duration)
    }

    /// A number of rows, or a share of them.
    pub(crate) fn share_max(&mut self, table: Table<'_, '_>, key: &str) -> Option<ShareMax> {
        let value = table.entries.get(key)?;
        let share = match value.get_ref() {
            DeValue::Integer(number) => {
                let rows = integer(number).and_then(|rows| u64::try_from(rows).ok());
                rows.map(ShareMax::Rows).ok_or_else(|| format!("\"{key}\" must be 0 or more"))
            }
            DeValue::String(text) => units::share_max(text),
            other => Err(format!("expected a number of rows or a share such as \"1%\" for \"{key}\", found {}", type_name(other))),
        };
        share.map_err(|message| self.error("bad-share", message, value.span(), "").code).ok()
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&mut self, table: Table<'_, '_>, key: &str, words: &[(&str, T)]) -> Option<Spanned<T>> {
        let text = self.string(table, key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(Spanned::new(*value, text.span));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = self.error("unknown-word", format!("\"{key}\" cannot be \"{}\"", text.value), text.span, "not known");
        suggest(found, &text.value, &known);
        found.help.push(format!("words are: {}", known.join(", ")));
        None
    }

    pub(crate) fn as_table<'t, 'i>(&mut self, key: &str, value: &'t Value<'i>) -> Option<&'t DeTable<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong_type(key, value, "a table");
                None
            }
        }
    }
}

/// Adds `did you mean "…"?` where one of `known` is near.
pub(crate) fn suggest(found: &mut Diagnostic, word: &str, known: &[&str]) {
    if let Some(near) = crate::diagnostic::nearest(word, known.iter().copied()) {
        found.help.push(format!("did you mean \"{near}\"?"));
    }
}
