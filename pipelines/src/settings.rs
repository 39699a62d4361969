//! A step's own table, kept with its spans until the code that knows the kind reads it into its settings struct.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, SourceFile, Span, Spanned, nearest},
    layers,
    parse::params,
};

/// A text and what `--set`, parameters and profiles change in it. Tables are found in it anew each time they are read: parsing a
/// pipeline file takes microseconds, and nothing has to own a copy of a borrowed tree.
#[derive(Debug, Clone)]
pub struct Document {
    /// The text. Of several files, each lies below the one before.
    pub file: Arc<SourceFile>,
    /// Dotted path and the TOML text of the value that takes its place.
    pub overrides: Vec<(Vec<String>, String)>,
    /// The `[profile.NAME]` table laid over the root, where one is chosen.
    pub profile: Option<String>,
    /// Parameters by name, each with its value as TOML.
    pub params: Vec<(String, String)>,
}

/// A place where a text is not TOML.
#[derive(Debug, Clone)]
pub struct Torn {
    /// The bytes concerned.
    pub span: Span,
    /// What the parser of TOML says.
    pub message: String,
}

impl Torn {
    /// A parser's error about a text that begins at a byte of the whole.
    pub(crate) fn new(error: &toml::de::Error, start: usize) -> Self {
        let span = error.span().unwrap_or(0..0);
        Self { span: start + span.start..start + span.end, message: error.message().to_owned() }
    }
}

impl Document {
    /// Wraps a text that nothing changes.
    pub fn new(file: Arc<SourceFile>) -> Self {
        Self { file, overrides: Vec::new(), profile: None, params: Vec::new() }
    }

    /// Parses the text and applies the profile, the overrides and the parameters. Every part of an override's or a parameter's value carries
    /// the span of what it replaces, or `0..0`.
    pub fn root(&self) -> (DeTable<'_>, Vec<Torn>) {
        let (mut root, torn) = self.written();
        if !self.params.is_empty() {
            params::visit(&mut root, &mut |value, is_code| {
                let given = params::named(value.get_ref()).and_then(|(name, _)| self.params.iter().find(|(known, _)| known == name));
                if let (Some((_, text)), false) = (given, is_code)
                    && let Ok(given) = DeValue::parse(text)
                {
                    *value = respan(given.into_inner(), &value.span());
                }
            });
        }
        (root, torn)
    }

    /// The same without the parameters: where one is meant, `{ param = "name" }` stands.
    pub fn written(&self) -> (DeTable<'_>, Vec<Torn>) {
        let (mut layers, mut torn) = (Vec::new(), Vec::new());
        for (start, file) in self.file.parts() {
            let (layer, errors) = DeTable::parse_recoverable(&self.file.text[start..start + file.text.len()]);
            torn.extend(errors.iter().map(|error| Torn::new(error, start)));
            layers.push(if start == 0 { layer.into_inner() } else { layers::moved(layer.into_inner(), start) });
        }
        // A base is what it and its own bases say.
        let mut root = layers.pop().unwrap_or_default();
        while let Some(mut own) = layers.pop() {
            layers::lay_below(&mut own, root);
            root = own;
        }
        if let Some(profile) = &self.profile
            && let Some(DeValue::Table(profiles)) = root.get("profile").map(toml::Spanned::get_ref)
            && let Some(DeValue::Table(over)) = profiles.get(profile.as_str()).map(toml::Spanned::get_ref)
        {
            let over = over.clone();
            overlay(&mut root, over, Level::Root);
        }
        for (path, text) in &self.overrides {
            if let Ok(value) = DeValue::parse(text) {
                insert_at(&mut root, path, value.into_inner());
            }
        }
        (root, torn)
    }
}

/// Where an overlay stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    /// Among the names under `connection`.
    Connections,
    /// Among the names under `alert`.
    Alerts,
    /// In a connection: its one kind.
    Connection,
    /// In an alert: its one kind, and keys beside it.
    Alert,
    Below,
}

/// Lays `over` over `base`, table by table. A `{ env = … }` and its kin are values, not tables, so they are replaced whole; so is a
/// connection's or an alert's table of another kind.
fn overlay<'i>(base: &mut DeTable<'i>, over: DeTable<'i>, level: Level) {
    let is_kind = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().as_table().is_some_and(|table| !is_reference(table));
    for (key, value) in over {
        let below = match level {
            Level::Root if key.get_ref() == "connection" => Level::Connections,
            Level::Root if key.get_ref() == "alert" => Level::Alerts,
            Level::Connections => Level::Connection,
            Level::Alerts => Level::Alert,
            _ => Level::Below,
        };
        if level == Level::Alert && is_kind(&value) {
            let others = base.iter().filter(|(known, old)| known.get_ref() != key.get_ref() && is_kind(old));
            let others: Vec<_> = others.map(|(known, _)| known.get_ref().clone()).collect();
            others.iter().for_each(|other| _ = base.remove(other.as_ref()));
        }
        let merges = match (base.get(key.get_ref().as_ref()).map(toml::Spanned::get_ref), value.get_ref()) {
            (Some(DeValue::Table(old)), DeValue::Table(new)) => {
                let other_kind = below == Level::Connection && !new.keys().any(|kind| old.contains_key(kind.get_ref().as_ref()));
                !is_reference(old) && !is_reference(new) && !other_kind
            }
            _ => false,
        };
        if !merges {
            base.remove(key.get_ref().as_ref());
            base.insert(key, value);
        } else if let Some(DeValue::Table(old)) = base.get_mut(key.get_ref().as_ref()).map(toml::Spanned::get_mut)
            && let DeValue::Table(new) = value.into_inner()
        {
            overlay(old, new, below);
        }
    }
}

/// True of `{ env = "X" }`, `{ file = "…" }` and `{ command = […] }`.
pub(crate) fn is_secret(table: &DeTable<'_>) -> bool {
    table.len() == 1
        && table.iter().all(|(key, value)| match key.get_ref().as_ref() {
            "env" | "file" => value.get_ref().is_str(),
            "command" => value.get_ref().is_array(),
            _ => false,
        })
}

/// True of a table that is one value: a secret's place, or a parameter's name.
pub(crate) fn is_reference(table: &DeTable<'_>) -> bool {
    is_secret(table) || table.len() == 1 && table.get("param").is_some_and(|name| name.get_ref().is_str())
}

fn insert_at<'i>(table: &mut DeTable<'i>, path: &'i [String], value: DeValue<'i>) {
    let Some((first, rest)) = path.split_first() else { return };
    let old = table.remove_entry(first.as_str());
    let (key, old) = match old {
        Some((key, old)) => (key, Some(old)),
        None => (toml::Spanned::new(0..0, std::borrow::Cow::Borrowed(first.as_str())), None),
    };
    let span = old.as_ref().map_or(0..0, toml::Spanned::span);
    let value = match (rest.split_first(), old.map(toml::Spanned::into_inner)) {
        (None, _) => respan(value, &span),
        (Some(_), Some(DeValue::Table(mut inner))) => {
            insert_at(&mut inner, rest, value);
            toml::Spanned::new(span, DeValue::Table(inner))
        }
        (Some((index, rest)), Some(DeValue::Array(mut items))) if index.parse::<usize>().is_ok_and(|at| at < items.len()) => {
            let at: usize = index.parse().unwrap_or_default();
            if let Some(item) = items.get_mut(at) {
                let item_span = item.span();
                match item.get_mut() {
                    DeValue::Table(inner) if !rest.is_empty() => insert_at(inner, rest, value),
                    _ => *item = respan(value, &item_span),
                }
            }
            toml::Spanned::new(span, DeValue::Array(items))
        }
        (Some(_), _) => {
            let mut inner = DeTable::new();
            insert_at(&mut inner, rest, value);
            toml::Spanned::new(span, DeValue::Table(inner))
        }
    };
    table.insert(key, value);
}

/// Gives a value and all its parts one span: an override's own offsets mean nothing in the file.
fn respan<'i>(value: DeValue<'i>, span: &Span) -> toml::Spanned<DeValue<'i>> {
    let value = match value {
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, value)| (toml::Spanned::new(span.clone(), key.into_inner()), respan(value.into_inner(), span)))
                .collect(),
        ),
        DeValue::Array(items) => {
            let mut array = DeArray::new();
            items.into_iter().for_each(|item| array.push(respan(item.into_inner(), span)));
            DeValue::Array(array)
        }
        scalar => scalar,
    };
    toml::Spanned::new(span.clone(), value)
}

/// A kind and the table a person wrote under it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The key that names the kind: `file`, `lake`, `postgres`, …
    pub kind: Spanned<String>,
    /// The file it stands in.
    pub file: Arc<SourceFile>,
    /// The bytes of the table: its header, or the whole of an inline table.
    pub span: Span,
    document: Arc<Document>,
    path: Vec<String>,
    /// Where all that is wrong is told, of settings that a person did not write under this kind.
    place: Option<Span>,
}

impl Settings {
    /// Names the table at `path` (the last part is the kind's key, or an index of an array of tables) of a document.
    pub fn new(document: &Arc<Document>, path: Vec<String>, kind: Spanned<String>, span: Span) -> Self {
        Self { kind, file: document.file.clone(), span, document: document.clone(), path, place: None }
    }

    /// These settings with one value changed; under another kind, that value alone. What is wrong with it is told at `span`.
    pub fn with(&self, kind: &str, key: &str, value: &str, span: Span) -> Self {
        let mut path = self.path.clone();
        path.pop();
        path.push(kind.to_owned());
        let mut overrides = self.document.overrides.clone();
        overrides.push((path.iter().cloned().chain([key.to_owned()]).collect(), toml::Value::from(value).to_string()));
        let document = Document { overrides, ..Document::clone(&self.document) };
        Self {
            kind: Spanned::new(kind.to_owned(), span.clone()),
            file: self.file.clone(),
            span: span.clone(),
            document: Arc::new(document),
            path,
            place: Some(span),
        }
    }

    /// The table as it was written, overrides applied.
    pub fn table(&self) -> DeTable<'_> {
        let (mut table, _) = self.document.root();
        let mut path = self.path.iter();
        while let Some(part) = path.next() {
            let found = match table.remove(part.as_str()).map(toml::Spanned::into_inner) {
                Some(DeValue::Array(items)) => {
                    let index = path.next().and_then(|index| index.parse().ok()).unwrap_or(usize::MAX);
                    items.into_iter().nth(index).map(toml::Spanned::into_inner)
                }
                other => other,
            };
            table = match found {
                Some(DeValue::Table(inner)) => inner,
                _ => DeTable::new(),
            };
        }
        table
    }

    /// Every value of the table: its dotted path, and the value as TOML. A `{ env = … }` and its kin are one value. Layout, comments and the
    /// order of keys are not in it.
    pub fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = BTreeMap::new();
        leaves(&self.table(), "", &mut |path, value| _ = entries.insert(path, value.to_string()));
        entries
    }

    /// The values that are kept elsewhere: the dotted path, `env`, `file` or `command`, and the variable, path or program.
    pub fn references(&self) -> Vec<(String, &'static str, String)> {
        let mut references = Vec::new();
        leaves(&self.table(), "", &mut |path, value| {
            let toml::Value::Table(table) = value else { return };
            let place = ["env", "file", "command"].into_iter().find_map(|place| Some((place, table.get(place)?)));
            let Some((place, value)) = place else { return };
            // Arguments of a command may be secrets themselves.
            let name = value.as_str().or_else(|| value.get(0)?.as_str());
            references.push((path, place, name.unwrap_or_default().to_owned()));
        });
        references
    }

    /// The string under a key; none where there is no such key, or no string under it.
    pub fn text(&self, key: &str) -> Option<String> {
        self.table().get(key)?.get_ref().as_str().map(str::to_owned)
    }

    /// The span of the value under a dotted path such as `csv.null`, or of the nearest table around it.
    pub fn span_of(&self, path: &str) -> Span {
        if let Some(place) = &self.place {
            return place.clone();
        }
        Self::span_below(self.table(), path).unwrap_or_else(|| {
            // A connector's error may be about a key of the step, such as `key` of a sink.
            let step = self.path.split_last().map(|(_, step)| Settings { path: step.to_vec(), ..self.clone() });
            step.and_then(|step| Self::span_below(step.table(), path)).unwrap_or_else(|| self.span.clone())
        })
    }

    /// The span of the value under a dotted path, or of the nearest table around it; none where its first part is not there.
    fn span_below(mut table: DeTable<'_>, path: &str) -> Option<Span> {
        let mut found = None;
        for part in path.split('.') {
            let Some(value) = table.remove(part) else { return found };
            found = Some(value.span());
            match value.into_inner() {
                DeValue::Table(inner) => table = inner,
                _ => return found,
            }
        }
        found
    }

    /// Reads the table into a settings struct, or says everything that is wrong with it. serde stops at the first mistake, so after
    /// each one the offending entry is left out, or a missing one is filled with a stand-in, and the rest is read again.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Diagnostics> {
        let mut found: BTreeMap<(usize, usize, String), Diagnostic> = BTreeMap::new();
        let mut removed: HashSet<Vec<String>> = HashSet::new();
        let mut stand_ins: Vec<StandIn> = Vec::new();
        let mut table = self.table();
        loop {
            let spanned = toml::Spanned::new(self.span.clone(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(spanned)) {
                Ok(value) if found.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(error) => error,
            };
            let message = error.message();
            let span = error.span().unwrap_or_else(|| self.span.clone());
            if let Some(stand_in) = stand_ins.iter_mut().find(|stand_in| stand_in.span == span) {
                let Some(value) = stand_in.next(message) else { break };
                if put(&mut table, &stand_in.path, toml::Spanned::new(span, value)) {
                    continue;
                }
                break;
            }
            let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
            if let (true, Some(field)) = (message.starts_with("missing field"), quoted.first()) {
                let Some(mut path) = (if span == self.span { Some(vec![]) } else { path_of(&table, &span) }) else {
                    found.insert((span.start, span.end, message.into()), self.describe(message, &span, &[]));
                    break;
                };
                let within = path.clone();
                path.push((*field).to_owned());
                if !removed.contains(&path) {
                    found.insert((span.start, span.end, message.into()), self.describe(message, &span, &within));
                }
                // Behind the text's end, so that no real value has this span.
                let at = self.file.text.len() + 1 + stand_ins.len();
                let stand_in = StandIn { span: at..at, path: path.clone(), tried: 0, variant_tried: false };
                stand_ins.push(stand_in);
                if stand_ins.len() > 100 || !put(&mut table, &path, toml::Spanned::new(at..at, DeValue::String("".into()))) {
                    break;
                }
                continue;
            }
            let path = path_of(&table, &span);
            let within = path.as_deref().map_or(&[][..], |path| &path[..path.len().saturating_sub(1)]);
            found.insert((span.start, span.end, message.into()), self.describe(message, &span, within));
            let Some(path) = path else { break };
            if !take(&mut table, &path) {
                break;
            }
            removed.insert(path);
        }
        Err(found.into_values().collect())
    }

    /// Words one of serde's messages. `within` is the path of the table that the entry stands in.
    fn describe(&self, message: &str, span: &Span, within: &[String]) -> Diagnostic {
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let table: String =
            std::iter::once(self.kind.value.as_str()).chain(within.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
        if message.starts_with("unknown field") && !quoted.is_empty() {
            let diagnostic = Diagnostic::error("unknown-key", format!("\"{table}\" has no setting \"{}\"", quoted[0]))
                .at(&self.file, span.clone(), "not a setting")
                .did_you_mean(quoted[0], quoted[1..].iter().copied());
            return match quoted.len() {
                1 => diagnostic,
                _ => diagnostic.help(format!("settings are: {}", quoted[1..].join(", "))),
            };
        }
        if message.starts_with("missing field") && !quoted.is_empty() {
            let place = if within.is_empty() { self.kind.span.clone() } else { span.clone() };
            return Diagnostic::error("missing-key", format!("\"{table}\" needs the setting \"{}\"", quoted[0])).at(&self.file, place, "");
        }
        if message.starts_with("unknown variant") && !quoted.is_empty() {
            let words = quoted[1..].join(", ");
            let diagnostic = Diagnostic::error("unknown-word", format!("\"{}\" is not one of the words known here", quoted[0])).at(
                &self.file,
                span.clone(),
                "not known",
            );
            let diagnostic = match nearest(quoted[0], quoted[1..].iter().copied()) {
                Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
                None => diagnostic,
            };
            return if words.is_empty() { diagnostic } else { diagnostic.help(format!("words are: {words}")) };
        }
        if let Some((given, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
            let message = format!("expected {}, found {}", in_words(expected), in_words(given));
            return Diagnostic::error("wrong-type", message).at(&self.file, span.clone(), "");
        }
        Diagnostic::error("wrong-value", message.replace('`', "\"").replace('\n', "; ")).at(&self.file, span.clone(), "")
    }
}

/// Hands on every value below a table that is no table itself, in the order of its keys.
fn leaves(table: &DeTable<'_>, above: &str, take: &mut dyn FnMut(String, toml::Value)) {
    for (key, value) in table {
        let key = key.get_ref();
        let path = if above.is_empty() { key.to_string() } else { format!("{above}.{key}") };
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() && !is_reference(inner) => leaves(inner, &path, take),
            // A number that is larger than TOML's is no setting of any kind.
            _ => take(
                path,
                toml::Value::deserialize(ValueDeserializer::from(value.clone()))
                    .unwrap_or_else(|_| format!("{:?}", value.get_ref()).into()),
            ),
        }
    }
}

/// A value put where a required one is missing, tried in one type after the other until serde is content with it.
struct StandIn {
    span: Span,
    path: Vec<String>,
    tried: usize,
    variant_tried: bool,
}

impl StandIn {
    fn next(&mut self, message: &str) -> Option<DeValue<'static>> {
        let variants: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if message.starts_with("unknown variant") && !self.variant_tried && variants.len() > 1 {
            self.variant_tried = true;
            return Some(DeValue::String(variants[1].to_owned().into()));
        }
        self.tried += 1;
        match self.tried {
            1 => DeValue::parse("1").ok().map(toml::Spanned::into_inner),
            2 => Some(DeValue::Boolean(false)),
            3 => Some(DeValue::Array(DeArray::new())),
            4 => Some(DeValue::Table(DeTable::new())),
            _ => None,
        }
    }
}

/// Says a serde type as people call it.
fn in_words(serde: &str) -> String {
    match serde.split([' ', '`']).next().unwrap_or_default() {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "integer" | "nonzero" => {
            "an integer".into()
        }
        "f32" | "f64" => "a number".into(),
        "floating" => "a float".into(),
        "string" => "a string".into(),
        "boolean" => "a boolean".into(),
        "struct" | "map" | "internally" => "a table".into(),
        "sequence" | "tuple" => "an array".into(),
        _ => match serde {
            "a map" => "a table".into(),
            "a sequence" => "an array".into(),
            other => other.replace('`', "\""),
        },
    }
}

/// The path of the entry whose key or value has this span, else of the innermost one around it. Array elements are numbered.
fn path_of(table: &DeTable<'_>, span: &Span) -> Option<Vec<String>> {
    fn in_value(value: &toml::Spanned<DeValue<'_>>, span: &Span, path: &mut Vec<String>, best: &mut Option<(usize, Vec<String>)>) {
        let own = value.span();
        let width = own.end.saturating_sub(own.start);
        let contains = own.start <= span.start && span.end <= own.end && own != (0..0);
        if (contains || own == *span) && best.as_ref().is_none_or(|(best, _)| width <= *best) {
            *best = Some((width, path.clone()));
        }
        match value.get_ref() {
            DeValue::Table(inner) => in_table(inner, span, path, best),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    in_value(item, span, path, best);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    fn in_table(table: &DeTable<'_>, span: &Span, path: &mut Vec<String>, best: &mut Option<(usize, Vec<String>)>) {
        for (key, value) in table.iter() {
            path.push(key.get_ref().to_string());
            if key.span() == *span && best.as_ref().is_none_or(|(best, _)| span.len() < *best) {
                *best = Some((span.len(), path.clone()));
            }
            in_value(value, span, path, best);
            path.pop();
        }
    }
    let mut best = None;
    in_table(table, span, &mut Vec::new(), &mut best);
    best.map(|(_, path)| path)
}

/// The value under a path, to change it. The path's last part is left to the caller.
fn parent_of<'t, 'i>(table: &'t mut DeTable<'i>, path: &[String]) -> Option<Parent<'t, 'i>> {
    let mut parent = Parent::Table(table);
    for part in path {
        let value = match parent {
            Parent::Table(table) => table.get_mut(part.as_str())?,
            Parent::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
        };
        parent = match value.get_mut() {
            DeValue::Table(inner) => Parent::Table(inner),
            DeValue::Array(items) => Parent::Array(items),
            _ => return None,
        };
    }
    Some(parent)
}

enum Parent<'t, 'i> {
    Table(&'t mut DeTable<'i>),
    Array(&'t mut DeArray<'i>),
}

fn put<'i>(table: &mut DeTable<'i>, path: &[String], value: toml::Spanned<DeValue<'i>>) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    match parent_of(table, before) {
        Some(Parent::Table(parent)) => {
            parent.remove(last.as_str());
            parent.insert(toml::Spanned::new(value.span(), std::borrow::Cow::Owned(last.clone())), value);
            true
        }
        _ => false,
    }
}

/// Takes an entry out. An array's element takes its array with it where that is all there is of it.
fn take(table: &mut DeTable<'_>, path: &[String]) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    match parent_of(table, before) {
        Some(Parent::Table(parent)) => parent.remove(last.as_str()).is_some(),
        Some(Parent::Array(items)) => {
            let Ok(at) = last.parse::<usize>() else { return false };
            let mut rest = DeArray::new();
            let len = items.len();
            items.iter().enumerate().filter(|(index, _)| *index != at).for_each(|(_, item)| rest.push(item.clone()));
            *items = rest;
            items.len() < len
        }
        None => false,
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
