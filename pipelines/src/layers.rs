//! `extends`: a pipeline file laid over a base, which may have a base of its own. Which files those are, and which of two values is meant.
//! Reading them is left to the caller.

use std::sync::Arc;

use toml::de::{DeArray, DeTable, DeValue};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, SourceFile, Span, Spanned},
    parse::{OPERATORS, SINK_KEYS, SOURCE_KEYS, walk::type_name},
    settings::is_reference,
};

/// What a file says of itself alone.
const OWN: [&str; 2] = ["name", "extends"];

/// A pipeline file and the bases that lie below it.
#[derive(Debug, Clone)]
pub struct Layers {
    /// The file, and behind it each base after the one that extends it.
    pub file: Arc<SourceFile>,
    /// What is wrong with the chain of bases.
    pub wrong: Diagnostics,
}

impl From<Arc<SourceFile>> for Layers {
    fn from(file: Arc<SourceFile>) -> Self {
        Self { file, wrong: Vec::new() }
    }
}

impl Layers {
    /// Follows `extends` from a file. `read` is asked for the file that a path, as written in the file of this key, names: its key, by which
    /// a file is known again, and its text or why it cannot be had.
    pub fn gather<K: PartialEq>(
        file: Arc<SourceFile>,
        key: K,
        mut read: impl FnMut(&str, &K) -> (K, Result<Arc<SourceFile>, String>),
    ) -> Self {
        let (mut files, mut keys, mut links) = (vec![file], vec![key], Vec::<(Arc<SourceFile>, Span)>::new());
        let mut wrong = Diagnostics::new();
        loop {
            let last = files[files.len() - 1].clone();
            let path = match extends(&last) {
                Ok(Some(path)) => path,
                Ok(None) => break,
                Err(found) => {
                    wrong.push(found);
                    break;
                }
            };
            let (key, base) = read(&path.value, &keys[keys.len() - 1]);
            links.push((last.clone(), path.span.clone()));
            if let Some(first) = keys.iter().position(|known| *known == key) {
                let names: Vec<String> = files[first..].iter().map(|file| format!("\"{}\"", file.path)).collect();
                let message = match names.as_slice() {
                    [one] => format!("{one} extends itself"),
                    several => format!("{} extend one another in a circle", several.join(" and ")),
                };
                let found = links[first..].iter().fold(Diagnostic::error("extends-cycle", message), |found, (file, span)| {
                    found.at(file, span.clone(), format!("extended by \"{}\"", file.path))
                });
                wrong.push(found.help("take one of these out"));
                break;
            }
            match base {
                Ok(base) => {
                    files.push(base);
                    keys.push(key);
                }
                Err(why) => {
                    let found = Diagnostic::error("base-missing", why).at(&last, path.span, "extended here");
                    let found = links[..links.len() - 1]
                        .iter()
                        .rev()
                        .fold(found, |found, (file, span)| found.at(file, span.clone(), format!("\"{}\" extends it", file.path)));
                    wrong.push(found.help("a base is named by its path from the folder of the file that extends it"));
                    break;
                }
            }
        }
        Self { file: SourceFile::joined(&files), wrong }
    }
}

/// The path behind `extends`, where there is one.
fn extends(file: &Arc<SourceFile>) -> Result<Option<Spanned<String>>, Diagnostic> {
    if !file.text.contains("extends") {
        return Ok(None);
    }
    let (root, _) = DeTable::parse_recoverable(&file.text);
    let Some(value) = root.get_ref().get("extends") else { return Ok(None) };
    match value.get_ref() {
        DeValue::String(path) if path.trim().is_empty() => {
            Err(Diagnostic::error("wrong-value", "\"extends\" is empty").at(file, value.span(), "").help("write the path of the base"))
        }
        DeValue::String(path) => Ok(Some(Spanned::new(path.to_string(), value.span()))),
        other => {
            let message = format!("expected a string for \"extends\", found {}", type_name(other));
            Err(Diagnostic::error("wrong-type", message).at(file, value.span(), ""))
        }
    }
}

/// Where in a file a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Params,
    Schedule,
    Triggers,
    Trigger,
    Sources,
    Transforms,
    Sinks,
    Source,
    Transform,
    Sink,
    Other,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "params") => Self::Params,
            (Self::Root, "schedule") => Self::Schedule,
            (Self::Root, "trigger") => Self::Triggers,
            (Self::Triggers, _) => Self::Trigger,
            (Self::Root, "source") => Self::Sources,
            (Self::Root, "transform") => Self::Transforms,
            (Self::Root, "sink") => Self::Sinks,
            (Self::Sources, _) => Self::Source,
            (Self::Transforms, _) => Self::Transform,
            (Self::Sinks, _) => Self::Sink,
            _ => Self::Other,
        }
    }

    /// Whether a key of the base means the same as one that the file itself has under another name, so that only one of them can be meant.
    fn gives_way(self, own: &DeTable<'_>, key: &str, value: &DeValue<'_>) -> bool {
        if own.contains_key(key) {
            return false;
        }
        let has = |known: &[&str]| known.iter().any(|known| own.contains_key(*known));
        let kind = |keys: &[&str]| {
            value.is_table()
                && !keys.contains(&key)
                && own.iter().any(|(own, value)| value.get_ref().is_table() && !keys.contains(&own.get_ref().as_ref()))
        };
        match self {
            Self::Schedule => ["cron", "every"].contains(&key) && has(&["cron", "every"]),
            Self::Source => kind(&SOURCE_KEYS),
            Self::Trigger => kind(&[]),
            Self::Sink => kind(&SINK_KEYS),
            Self::Transform => OPERATORS.contains(&key) && has(&OPERATORS) || key == "from" && own.contains_key("sql"),
            _ => false,
        }
    }
}

/// Lays a base below a file: tables key by key, so that steps meet by their names; anything else is the file's own where it has it.
pub(crate) fn lay_below<'i>(own: &mut DeTable<'i>, base: DeTable<'i>) {
    lay(own, base, Place::Root);
}

fn lay<'i>(own: &mut DeTable<'i>, base: DeTable<'i>, place: Place) {
    let kept: Vec<_> = base.into_iter().filter(|(key, value)| !place.gives_way(own, key.get_ref(), value.get_ref())).collect();
    for (key, value) in kept {
        let name = key.get_ref().to_string();
        if place == Place::Root && OWN.contains(&name.as_str()) {
            continue;
        }
        let Some(mine) = own.get_mut(name.as_str()) else {
            own.insert(key, value);
            continue;
        };
        let is_whole = place == Place::Source && name == "incremental";
        let span = value.span();
        match (mine.get_mut(), value.into_inner()) {
            (DeValue::Table(mine), DeValue::Table(base)) if !is_whole && !is_reference(mine) && !is_reference(&base) => {
                lay(mine, base, place.below(&name));
            }
            // A bare value is the default of what the base declares, within the bounds that stand there.
            (DeValue::Table(_), DeValue::Table(_)) => {}
            (_, DeValue::Table(mut declared)) if place == Place::Params => {
                let Some((key, mine)) = own.remove_entry(name.as_str()) else { continue };
                declared.remove("default");
                declared.insert(toml::Spanned::new(mine.span(), "default".into()), mine);
                own.insert(key, toml::Spanned::new(span, DeValue::Table(declared)));
            }
            _ => {}
        }
    }
}

/// A table whose text stands so many bytes further on.
pub(crate) fn moved<'i>(table: DeTable<'i>, by: usize) -> DeTable<'i> {
    let place = |span: Span| span.start + by..span.end + by;
    table.into_iter().map(|(key, value)| (toml::Spanned::new(place(key.span()), key.into_inner()), moved_value(value, by))).collect()
}

fn moved_value<'i>(value: toml::Spanned<DeValue<'i>>, by: usize) -> toml::Spanned<DeValue<'i>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved(table, by)),
        DeValue::Array(items) => {
            let mut array = DeArray::new();
            items.into_iter().for_each(|item| array.push(moved_value(item, by)));
            DeValue::Array(array)
        }
        scalar => scalar,
    };
    toml::Spanned::new(span.start + by..span.end + by, value)
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
