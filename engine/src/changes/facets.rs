//! What can change of a step besides what its SQL means: each as a key that a person writes and its value in words.

use std::fmt::Write as _;

use weir_pipelines::{
    Expectation, Expected, FlattenArray, Incremental, Keep, Measure, OnInvalid, OnMissingColumn, OnNewColumn, OnSchemaChange, OnTypeChange,
    Operator, Rules, ShareMax, Sink, Source, Spanned, Transform,
};

use super::What;
use crate::transforms;

/// Keys and values, in the order in which they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facets(Vec<(String, String)>);

impl Facets {
    /// Adds a value, where there is one.
    pub fn put(&mut self, key: impl Into<String>, value: Option<String>) {
        if let Some(value) = value {
            self.0.push((key.into(), value));
        }
    }

    fn get(&self, key: &str) -> Option<&String> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// What is otherwise now.
    pub fn against(&self, now: &Self) -> Vec<What> {
        let gone = self.0.iter().filter(|(key, _)| now.get(key).is_none());
        let keys = now.0.iter().chain(gone).map(|(key, _)| key);
        let differs = keys.filter(|key| self.get(key) != now.get(key));
        differs
            .map(|key| What { key: key.clone(), before: self.get(key).cloned(), now: now.get(key).cloned(), details: Vec::new() })
            .collect()
    }
}

/// Of a source.
pub fn of_source(source: &Source) -> Facets {
    let mut facets = Facets::default();
    facets.put("kind", Some(source.settings.kind.value.clone()));
    for (path, value) in source.settings.entries() {
        facets.put(format!("{}.{path}", source.settings.kind.value), Some(value));
    }
    rules(&mut facets, &source.rules);
    facets.put("incremental", source.incremental.as_ref().map(|incremental| incremental_words(&incremental.value)));
    let drift = &source.drift;
    facets.put("on_new_column", drift.new_column.as_ref().map(|word| new_column(word.value).to_owned()));
    facets.put("on_missing_column", drift.missing_column.as_ref().map(|word| missing_column(word.value).to_owned()));
    facets.put("on_type_change", drift.type_change.as_ref().map(|word| type_change(word.value).to_owned()));
    facets
}

/// Of a transform, but for what its SQL means.
pub fn of_transform(transform: &Transform) -> Facets {
    let mut facets = Facets::default();
    facets.put("kind", Some(transforms::kind(&transform.operator).to_owned()));
    if !matches!(transform.operator, Operator::Sql(_)) {
        facets.put("from", transform.inputs.first().map(|input| input.value.clone()));
    }
    match &transform.operator {
        Operator::Sql(_) | Operator::Filter(_) => {}
        Operator::Deduplicate { key, keep, order_by } => {
            facets.put("deduplicate.key", Some(names(key)));
            facets.put("deduplicate.keep", Some(keep_word(*keep).to_owned()));
            let order = order_by.iter().map(|sort| format!("{}{}", sort.column.value, if sort.descending { " desc" } else { "" }));
            facets.put("deduplicate.order_by", Some(order.collect::<Vec<_>>().join(", ")));
        }
        Operator::Cast(types) => {
            types.iter().for_each(|(column, kind)| facets.put(format!("cast.{}", column.value), Some(kind.value.clone())))
        }
        Operator::Rename(renamed) => {
            renamed.iter().for_each(|(old, new)| facets.put(format!("rename.{}", old.value), Some(new.value.clone())));
        }
        Operator::Select(columns) => facets.put("select", Some(names(columns))),
        Operator::Flatten { separator, array } => {
            facets.put("flatten.separator", Some(format!("{separator:?}")));
            if let Some(FlattenArray { column, key, position }) = array {
                facets.put("flatten.array", Some(column.value.clone()));
                facets.put("flatten.key", Some(names(key)));
                facets.put("flatten.position", position.as_ref().map(|position| position.value.clone()));
            }
        }
    }
    rules(&mut facets, &transform.rules);
    facets
}

/// Of a sink.
pub fn of_sink(sink: &Sink) -> Facets {
    let mut facets = Facets::default();
    facets.put("kind", Some(sink.settings.kind.value.clone()));
    facets.put("from", Some(sink.from.value.clone()));
    facets.put("mode", Some(sink.mode.value.as_str().to_owned()));
    facets.put("key", some_names(&sink.key));
    facets.put(
        "on_schema_change",
        Some(match sink.on_schema_change {
            OnSchemaChange::Fail => "fail".to_owned(),
            OnSchemaChange::AddColumns => "add_columns".to_owned(),
            OnSchemaChange::Ignore => "ignore".to_owned(),
        }),
    );
    facets.put("allow_lossy", some_names(&sink.allow_lossy));
    facets.put("profiles", some_names(&sink.profiles));
    for (path, value) in sink.settings.entries() {
        facets.put(format!("{}.{path}", sink.settings.kind.value), Some(value));
    }
    facets
}

/// Of an expectation.
pub fn of_expectation(expectation: &Expectation) -> Facets {
    let mut facets = Facets::default();
    let (key, value) = match &expectation.expected {
        Expected::NoRows(sql) => ("sql", super::meaning::tidied(&sql.text)),
        Expected::RowCount { min, max } => {
            ("row_count", format!("{min} to {}", max.map_or("any number".to_owned(), |max| max.to_string())))
        }
        Expected::Unique(columns) => ("unique", names(columns)),
        Expected::NotNull(columns) => ("not_null", names(columns)),
        Expected::AcceptedValues { column, values } => {
            let values: Vec<String> = values.iter().map(|value| value.value.to_string()).collect();
            ("accepted_values", format!("{}: {}", column.value, values.join(", ")))
        }
        Expected::ForeignKey { columns, references, to } => {
            ("foreign_key", format!("{} in {} ({})", names(columns), references.name().value, names(to)))
        }
        Expected::Freshness { column, age_max } => ("freshness", format!("{} within {} s", column.value, age_max.as_secs())),
        Expected::Change { of, z_max, runs, runs_min } => {
            let of = match of {
                Measure::RowCount => "row_count".to_owned(),
                Measure::Aggregate(sql) => super::meaning::tidied(&sql.text),
            };
            ("change", format!("{of}, z_max {z_max}, {runs} runs, at least {runs_min}"))
        }
    };
    facets.put(key, Some(value));
    facets.put("severity", Some(if expectation.stops { "error" } else { "warn" }.to_owned()));
    facets
}

fn rules(facets: &mut Facets, rules: &Rules) {
    facets.put("contract", rules.contract.as_ref().map(|path| path.value.clone()));
    let on_invalid = match rules.on_invalid {
        OnInvalid::Fail => "fail",
        OnInvalid::Drop => "drop",
        OnInvalid::Quarantine => "quarantine",
    };
    facets.put("on_invalid", Some(on_invalid.to_owned()));
    facets.put(
        "max_invalid",
        rules.max_invalid.map(|max| match max {
            ShareMax::Rows(rows) => rows.to_string(),
            ShareMax::Share(share) => format!("{}%", share * 100.0),
        }),
    );
}

fn incremental_words(incremental: &Incremental) -> String {
    match incremental {
        Incremental::Files => "new files".to_owned(),
        Incremental::Interval { column } => format!("interval of {column}"),
        Incremental::Cursor { column, lag, start } => {
            let mut words = format!("cursor {column}");
            if !lag.is_zero() {
                let _ = write!(words, ", lag {} s", lag.as_secs());
            }
            if let Some(start) = start {
                let _ = write!(words, ", start {start}");
            }
            words
        }
    }
}

fn names(columns: &[Spanned<String>]) -> String {
    columns.iter().map(|column| column.value.as_str()).collect::<Vec<_>>().join(", ")
}

fn some_names(columns: &[Spanned<String>]) -> Option<String> {
    (!columns.is_empty()).then(|| names(columns))
}

fn keep_word(keep: Keep) -> &'static str {
    match keep {
        Keep::First => "first",
        Keep::Last => "last",
        Keep::Any => "any",
    }
}

fn new_column(word: OnNewColumn) -> &'static str {
    match word {
        OnNewColumn::Add => "add",
        OnNewColumn::Ignore => "ignore",
        OnNewColumn::Quarantine => "quarantine",
        OnNewColumn::Fail => "fail",
    }
}

fn missing_column(word: OnMissingColumn) -> &'static str {
    match word {
        OnMissingColumn::Null => "null",
        OnMissingColumn::Remove => "remove",
        OnMissingColumn::Fail => "fail",
    }
}

fn type_change(word: OnTypeChange) -> &'static str {
    match word {
        OnTypeChange::Widen => "widen",
        OnTypeChange::Quarantine => "quarantine",
        OnTypeChange::Fail => "fail",
    }
}
