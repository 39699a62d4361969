//! The tables `[source.NAME]`, `[transform.NAME]` and `[sink.NAME]`.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::{
    Vocabulary, operators, params,
    walk::{Table, Value, Walk, in_order, is_name, suggest, type_name},
};
use crate::{
    diagnostic::{Diagnostic, Span, Spanned, nearest},
    pipeline::{
        Incremental, Mode, OnDrift, OnInvalid, OnMissingColumn, OnNewColumn, OnSchemaChange, OnTypeChange, Rules, Sink, Source, Transform,
    },
    settings::{Document, Settings},
};

pub(crate) const SOURCE_KEYS: [&str; 8] =
    ["description", "contract", "on_invalid", "max_invalid", "on_new_column", "on_missing_column", "on_type_change", "incremental"];
pub(crate) const NEW_COLUMN: [(&str, OnNewColumn); 4] =
    [("add", OnNewColumn::Add), ("ignore", OnNewColumn::Ignore), ("quarantine", OnNewColumn::Quarantine), ("fail", OnNewColumn::Fail)];
pub(crate) const MISSING_COLUMN: [(&str, OnMissingColumn); 3] =
    [("null", OnMissingColumn::Null), ("remove", OnMissingColumn::Remove), ("fail", OnMissingColumn::Fail)];
pub(crate) const TYPE_CHANGE: [(&str, OnTypeChange); 3] =
    [("widen", OnTypeChange::Widen), ("quarantine", OnTypeChange::Quarantine), ("fail", OnTypeChange::Fail)];
pub(crate) const TRANSFORM_KEYS: [&str; 5] = ["description", "from", "contract", "on_invalid", "max_invalid"];
pub(crate) const SINK_KEYS: [&str; 7] = ["description", "from", "mode", "key", "on_schema_change", "allow_lossy", "profiles"];
pub(crate) const MODES: [(&str, Mode); 5] = [
    ("append", Mode::Append),
    ("replace", Mode::Replace),
    ("merge", Mode::Merge),
    ("delete_insert", Mode::DeleteInsert),
    ("snapshot", Mode::Snapshot),
];
const INCREMENTAL_KEYS: [&str; 5] = ["files", "cursor", "interval", "lag", "start"];
/// The ways to know what is new, of which one is chosen.
const WAYS: [&str; 3] = ["files", "cursor", "interval"];

/// Which of the three a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Transform,
    Sink,
}

impl Role {
    /// The key that its steps stand under.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
        }
    }
}

/// A step as it was declared, right or wrong, with what is known of what it reads.
pub(crate) struct Declared {
    pub(crate) role: Role,
    pub(crate) name: Spanned<String>,
    pub(crate) reads: Vec<Read>,
}

/// One mention of a step by another.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) name: Spanned<String>,
    /// Lower case only because SQL was written without quotes.
    pub(crate) folded: bool,
}

impl Read {
    fn plain(name: &Spanned<String>) -> Self {
        Self { name: name.clone(), folded: false }
    }
}

/// What was read of all steps.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) declared: Vec<Declared>,
    pub(crate) sources: Vec<Source>,
    pub(crate) transforms: Vec<Transform>,
    pub(crate) sinks: Vec<Sink>,
}

/// Reads all step tables of a file.
pub(crate) fn steps(walk: &mut Walk<'_>, root: &DeTable<'_>, vocabulary: Vocabulary<'_>) -> Steps {
    let mut steps = Steps::default();
    for role in [Role::Source, Role::Transform, Role::Sink] {
        let Some(value) = root.get(role.key()) else { continue };
        if value.get_ref().is_array() {
            let message = format!("expected a table for \"{}\", found an array", role.key());
            walk.error("wrong-type", message, value.span(), "").help.push(format!(
                "name each: [{}.NAME] in place of [[{}]]",
                role.key(),
                role.key()
            ));
            continue;
        }
        let Some(table) = walk.as_table(role.key(), value) else { continue };
        for (name, value) in in_order(table) {
            step(walk, role, name, value, vocabulary, &mut steps);
        }
    }
    // Which of two steps of one name a reader means is not known; nobody reads a sink.
    let read = |step: &&Declared| step.role != Role::Sink;
    let is_one = |name: &Spanned<String>| steps.declared.iter().filter(read).filter(|step| step.name.value == name.value).count() == 1;
    steps.sources.retain(|source| is_one(&source.name));
    steps.transforms.retain(|transform| is_one(&transform.name));
    steps
}

fn step(walk: &mut Walk<'_>, role: Role, name: Spanned<String>, value: &Value<'_>, vocabulary: Vocabulary<'_>, steps: &mut Steps) {
    if !is_name(&name.value, true) {
        let message = format!("\"{}\" cannot be the name of a step", name.value);
        let found = walk.error("bad-name", message, name.span.clone(), "");
        found.help.push("a name has letters, digits, \"_\" and \"-\", and starts with a letter or \"_\": SQL reads steps as tables".into());
    }
    if let Some(first) = steps.declared.iter().find(|first| first.name.value == name.value) {
        let file = walk.file().clone();
        let message = format!("the name \"{}\" is taken: a {} has it", name.value, first.role.key());
        let found = Diagnostic::error("duplicate-name", message)
            .at(&file, name.span.clone(), "second")
            .at(&file, first.name.span.clone(), "first")
            .help("sources, transforms and sinks share one set of names");
        walk.found.push(found);
    }
    let what = format!("{} \"{}\"", role.key(), name.value);
    let mut declared = Declared { role, name: name.clone(), reads: vec![] };
    if let DeValue::Table(entries) = value.get_ref() {
        let table = Table { entries, what: &what, span: &name.span };
        let description = walk.text(table, "description");
        match role {
            Role::Source => {
                let rules = rules(walk, table);
                let drift = drift(walk, table, rules.on_invalid);
                let incremental = table.entries.get("incremental").and_then(|value| incremental(walk, value));
                let settings = kind(walk, role, table, &name, &SOURCE_KEYS, vocabulary);
                // Without the contract that is meant, the types of its columns are not known.
                let is_typed = rules.contract.is_some() || !(table.entries.contains_key("contract") || may_mean_contract(entries));
                let settings = settings.filter(|_| is_typed);
                steps.sources.extend(settings.map(|settings| Source { name, description, rules, drift, incremental, settings }));
            }
            Role::Transform => {
                let rules = rules(walk, table);
                let (read, operator) = operators::operator(walk, table);
                let inputs = read.iter().fold(Vec::new(), |mut inputs: Vec<Spanned<String>>, read| {
                    if !inputs.iter().any(|input| input.value == read.name.value) {
                        inputs.push(read.name.clone());
                    }
                    inputs
                });
                declared.reads = read;
                steps.transforms.extend(operator.map(|operator| Transform { name, description, inputs, rules, operator }));
            }
            Role::Sink => {
                let from = walk.required(table, "from", "write from = \"a step\", the one whose rows it takes");
                declared.reads.extend(from.as_ref().map(Read::plain));
                let sink = sink(walk, table, description, from, &name, vocabulary);
                let settings = kind(walk, role, table, &name, &SINK_KEYS, vocabulary);
                if let (Some(sink), Some(settings)) = (sink, settings) {
                    steps.sinks.push(sink(settings));
                }
            }
        }
    } else {
        let message = format!("expected a table for {what}, found {}", type_name(value.get_ref()));
        walk.error("wrong-type", message, value.span(), "");
    }
    steps.declared.push(declared);
}

/// True where an unknown key may be a misspelt "contract".
fn may_mean_contract(entries: &DeTable<'_>) -> bool {
    let is_unknown = |key: &str, value: &Value<'_>| !SOURCE_KEYS.contains(&key) && !value.get_ref().is_table();
    let unknown = entries.iter().filter(|(key, value)| is_unknown(key.get_ref(), value));
    unknown.into_iter().any(|(key, _)| nearest(key.get_ref(), SOURCE_KEYS).is_none_or(|meant| meant == "contract"))
}

/// Contract and what becomes of rows that break it.
fn rules(walk: &mut Walk<'_>, table: Table<'_, '_>) -> Rules {
    let contract = match table.entries.contains_key("contract") {
        true => walk.required(table, "contract", ""),
        false => None,
    };
    let words = [("fail", OnInvalid::Fail), ("drop", OnInvalid::Drop), ("quarantine", OnInvalid::Quarantine)];
    let on_invalid = walk.word(table, "on_invalid", &words);
    let max_invalid = walk.share_max(table, "max_invalid");
    if max_invalid.is_some()
        && on_invalid.as_ref().is_some_and(|word| word.value == OnInvalid::Fail)
        && let Some((key, _)) = table.entries.get_key_value("max_invalid")
    {
        walk.warning("no-effect", "\"max_invalid\" changes nothing where the first invalid row fails the run", key.span(), "");
    }
    Rules { contract, on_invalid: on_invalid.map_or(OnInvalid::Quarantine, |word| word.value), max_invalid }
}

/// What becomes of changes of a source's columns. Rows set aside for them are invalid rows, so `on_invalid` must set aside too.
fn drift(walk: &mut Walk<'_>, table: Table<'_, '_>, on_invalid: OnInvalid) -> OnDrift {
    let drift = OnDrift {
        new_column: walk.word(table, "on_new_column", &NEW_COLUMN),
        missing_column: walk.word(table, "on_missing_column", &MISSING_COLUMN),
        type_change: walk.word(table, "on_type_change", &TYPE_CHANGE),
    };
    let does = match on_invalid {
        OnInvalid::Quarantine => return drift,
        OnInvalid::Drop => "drop",
        OnInvalid::Fail => "fail",
    };
    let new = drift.new_column.as_ref().filter(|word| word.value == OnNewColumn::Quarantine).map(|word| ("on_new_column", &word.span));
    let changed = drift.type_change.as_ref().filter(|word| word.value == OnTypeChange::Quarantine);
    let changed = changed.map(|word| ("on_type_change", &word.span));
    for (key, span) in new.into_iter().chain(changed) {
        let message = format!("\"{key}\" cannot be \"quarantine\" where \"on_invalid\" is \"{does}\": no row is set aside there");
        walk.wrong_value(message, span.clone()).help.push("write on_invalid = \"quarantine\", or another word here".into());
    }
    drift
}

fn incremental(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Spanned<Incremental>> {
    let entries = walk.as_table("incremental", value)?;
    let span = value.span();
    let table = Table { entries, what: "\"incremental\"", span: &span };
    walk.unknown_keys(table, &INCREMENTAL_KEYS);
    let files = walk.word(table, "files", &[("new", ())]);
    let cursor = match entries.contains_key("cursor") {
        true => walk.required(table, "cursor", ""),
        false => None,
    };
    let lag = walk.duration(table, "lag");
    let start = entries.get("start").and_then(|value| match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Datetime(datetime) => Some(datetime.to_string()),
        _ => {
            walk.wrong_type("start", value, "a string, a number or a datetime");
            None
        }
    });
    let column = match entries.contains_key("interval") {
        true => walk.required(table, "interval", ""),
        false => None,
    };
    let written: Vec<&str> = WAYS.into_iter().filter(|way| entries.contains_key(*way)).collect();
    let [way] = written.as_slice() else {
        match written.as_slice() {
            [] => {
                let message = "\"incremental\" needs the key \"files\", the key \"cursor\" or the key \"interval\"";
                walk.error("missing-key", message, span, "")
                    .help
                    .push("write { files = \"new\" }, { cursor = \"a column\" } or { interval = \"a column\" }".into());
            }
            several => {
                let several = several.iter().map(|way| format!("\"{way}\"")).collect::<Vec<_>>().join(" and ");
                walk.wrong_value(format!("\"incremental\" has one of \"files\", \"cursor\" and \"interval\", not {several}"), span);
            }
        }
        return None;
    };
    if *way != "cursor" {
        for key in ["lag", "start"] {
            if let Some((key, _)) = entries.get_key_value(key) {
                walk.wrong_value(format!("\"{}\" belongs to \"cursor\", not to \"{way}\"", key.get_ref()), key.span());
            }
        }
    }
    let read = match *way {
        "files" => files.map(|_| Incremental::Files),
        "interval" => column.map(|column| Incremental::Interval { column: column.value }),
        _ => cursor.map(|cursor| Incremental::Cursor { column: cursor.value, lag: lag.map(|lag| lag.value).unwrap_or_default(), start }),
    }?;
    Some(Spanned::new(read, span))
}

/// Reads a sink's own keys; what is missing still is its settings.
fn sink(
    walk: &mut Walk<'_>,
    table: Table<'_, '_>,
    description: Option<String>,
    from: Option<Spanned<String>>,
    name: &Spanned<String>,
    vocabulary: Vocabulary<'_>,
) -> Option<impl FnOnce(Settings) -> Sink + use<>> {
    let written = table.entries.contains_key("mode");
    let mode = walk.word(table, "mode", &MODES);
    let mode_is_known = mode.is_some() || !written;
    let key = match mode.as_ref().map(|mode| (mode.value, mode.span.clone())) {
        Some((mode, span)) if mode.needs_key() => {
            if table.entries.contains_key("key") {
                walk.some_columns(table, "key", "")
            } else {
                let message = format!("{} needs the key \"key\": mode \"{}\" must know which rows are the same", table.what, mode.as_str());
                let found = walk.error("missing-key", message, span, "");
                found.help.push("write key = [\"id\"], the columns that identify a row".into());
                None
            }
        }
        other => {
            let columns = walk.columns(table, "key").unwrap_or_default();
            let mode = match other {
                Some((mode, _)) => Some(mode),
                None if !written => Some(Mode::Append),
                // Nobody knows whether an unknown mode has a key.
                None => None,
            };
            if let (Some(mode), false, Some((key, _))) = (mode, columns.is_empty(), table.entries.get_key_value("key")) {
                let message = format!("\"key\" changes nothing in mode \"{}\"", mode.as_str());
                walk.warning("no-effect", message, key.span(), "").help.push("modes with a key are: merge, delete_insert, snapshot".into());
            }
            Some(columns)
        }
    };
    let mode = mode.unwrap_or(Spanned::new(Mode::Append, name.span.clone()));
    let words = [("fail", OnSchemaChange::Fail), ("add_columns", OnSchemaChange::AddColumns), ("ignore", OnSchemaChange::Ignore)];
    let on_schema_change = walk.word(table, "on_schema_change", &words).map_or(OnSchemaChange::Fail, |word| word.value);
    let allow_lossy = walk.columns(table, "allow_lossy");
    let is_whole = (allow_lossy.is_some() || !table.entries.contains_key("allow_lossy")) && mode_is_known;
    let profiles = profiles(walk, table, vocabulary.profiles);
    let (name, from, key) = (name.clone(), from?, key.filter(|_| is_whole)?);
    let allow_lossy = allow_lossy.unwrap_or_default();
    Some(move |settings| Sink { name, description, from, mode, key, on_schema_change, allow_lossy, profiles, settings })
}

/// The profiles under which a sink takes part; where one is not known, it is taken to take part always.
fn profiles(walk: &mut Walk<'_>, table: Table<'_, '_>, known: &[&str]) -> Vec<Spanned<String>> {
    let profiles = walk.strings(table, "profiles").unwrap_or_default();
    let before = walk.errors();
    for profile in profiles.iter().filter(|profile| !known.contains(&profile.value.as_str())) {
        let message = format!("no profile \"{}\" in weir.toml", profile.value);
        let found = walk.error("unknown-profile", message, profile.span.clone(), "");
        suggest(found, &profile.value, known);
        found.help.push(match known {
            [] => format!("add a table such as [profile.{}.memory]", profile.value),
            known => format!("profiles are: {}", known.join(", ")),
        });
    }
    if walk.errors() == before { profiles } else { Vec::new() }
}

/// Finds the one table of a source or sink that is its kind's. None where what it says is wrong.
fn kind(
    walk: &mut Walk<'_>,
    role: Role,
    table: Table<'_, '_>,
    name: &Spanned<String>,
    own: &[&str],
    vocabulary: Vocabulary<'_>,
) -> Option<Settings> {
    let (kinds, others) = match role {
        Role::Sink => (vocabulary.sinks, vocabulary.sources),
        _ => (vocabulary.sources, vocabulary.sinks),
    };
    let mut chosen: Vec<(Spanned<String>, Span, &DeTable<'_>)> = Vec::new();
    let mut doubtful = false;
    for (key, value) in in_order(table.entries) {
        if own.contains(&key.value.as_str()) {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(inner) if kinds.contains(&key.value.as_str()) => chosen.push((key, value.span(), inner)),
            DeValue::Table(_) => {
                doubtful = true;
                let message = format!("no kind \"{}\" of {}", key.value, role.key());
                let found = walk.error("unknown-kind", message, key.span.clone(), "not a kind");
                if others.contains(&key.value.as_str()) {
                    let other = if role == Role::Sink { "sources" } else { "sinks" };
                    found.help.push(format!("\"{}\" is a kind of {other} only", key.value));
                } else {
                    let near: Vec<&str> = kinds.iter().chain(own).copied().collect();
                    suggest(found, &key.value, &near);
                }
                found.help.push(format!("kinds of {} are: {}", role.key(), kinds.join(", ")));
            }
            _ if kinds.contains(&key.value.as_str()) => {
                doubtful = true;
                walk.wrong_type(&key.value, value, "a table");
            }
            _ => walk.unknown_key(table.what, &key, own),
        }
    }
    let before = walk.errors();
    if let [(first, ..), (second, ..), ..] = chosen.as_slice() {
        let message = format!("{} is of two kinds, \"{}\" and \"{}\"", table.what, first.value, second.value);
        let file = walk.file().clone();
        let found = Diagnostic::error("two-kinds", message)
            .at(&file, second.span.clone(), "second")
            .at(&file, first.span.clone(), "first")
            .help(format!("make it two {}s", role.key()));
        walk.found.push(found);
    }
    let Some((kind, span, inner)) = chosen.into_iter().next() else {
        if !doubtful {
            let message = format!("{} does not say its kind", table.what);
            let found = walk.error("missing-kind", message, name.span.clone(), "");
            let example = kinds.first().copied().unwrap_or("KIND");
            found.help.push(format!("add a table such as [{}.{}.{example}]", role.key(), name.value));
            found.help.push(format!("kinds of {} are: {}", role.key(), kinds.join(", ")));
        }
        return None;
    };
    if let Some(value) = inner.get("connection") {
        connection(walk, value, &kind.value, vocabulary.connections);
    }
    if let Some(query) = inner.get("query").filter(|query| query.get_ref().is_str())
        && let Some(query) = operators::sql_text(walk, "query", query)
    {
        params::check_foreign(walk, &query);
    }
    let document: &Arc<Document> = walk.document;
    let settings = Settings::new(document, vec![role.key().into(), name.value.clone(), kind.value.clone()], kind, span);
    let check = if role == Role::Sink { vocabulary.check_sink } else { vocabulary.check_source };
    walk.found.extend(check(&settings));
    (walk.errors() == before).then_some(settings)
}

fn connection(walk: &mut Walk<'_>, value: &Value<'_>, kind: &str, known: &[&str]) {
    // What is no string is for the kind to judge.
    let DeValue::String(name) = value.get_ref() else { return };
    if known.contains(&name.as_ref()) {
        return;
    }
    let found = walk.error("unknown-connection", format!("no connection \"{name}\""), value.span(), "not in weir.toml");
    suggest(found, name, known);
    found.help.push(match known {
        [] => format!("weir.toml has no connections: add [connection.{name}.{kind}]"),
        _ => format!("connections are: {}", known.join(", ")),
    });
}
