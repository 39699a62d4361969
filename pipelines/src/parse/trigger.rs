//! The tables `[trigger.NAME.KIND]`.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::walk::{Table, Value, Walk, in_order, is_name, suggest, type_name};
use crate::{
    diagnostic::{Diagnostic, Spanned},
    params::ParamKind,
    pipeline::{Trigger, TriggerKind},
};

/// The kinds of triggers.
pub(crate) const KINDS: [&str; 2] = ["file", "pipeline"];
pub(crate) const FILE_KEYS: [&str; 3] = ["path", "debounce", "param"];
pub(crate) const PIPELINE_KEYS: [&str; 1] = ["name"];
/// A file that has not changed for so long has come as a whole.
const DEBOUNCE: Duration = Duration::from_secs(10);

/// Reads all triggers of a file. `pipeline` is the pipeline's own name, which cannot trigger it.
pub(crate) fn triggers(walk: &mut Walk<'_>, root: &DeTable<'_>, pipeline: Option<&str>) -> Vec<Trigger> {
    let Some(value) = root.get("trigger") else { return vec![] };
    let Some(table) = walk.as_table("trigger", value) else { return vec![] };
    in_order(table).into_iter().filter_map(|(name, value)| trigger(walk, name, value, pipeline)).collect()
}

fn trigger(walk: &mut Walk<'_>, name: Spanned<String>, value: &Value<'_>, pipeline: Option<&str>) -> Option<Trigger> {
    let before = walk.errors();
    if !is_name(&name.value, false) {
        walk.error("bad-name", format!("\"{}\" cannot be the name of a trigger", name.value), name.span.clone(), "")
            .help
            .push("a name has letters, digits, \"_\" and \"-\"".into());
    }
    let what = format!("trigger \"{}\"", name.value);
    let DeValue::Table(entries) = value.get_ref() else {
        let message = format!("expected a table for {what}, found {}", type_name(value.get_ref()));
        walk.error("wrong-type", message, value.span(), "");
        return None;
    };
    let mut kinds: Vec<(Spanned<String>, &Value<'_>)> = Vec::new();
    let mut doubtful = false;
    for (key, value) in in_order(entries) {
        if KINDS.contains(&key.value.as_str()) {
            kinds.push((key, value));
            continue;
        }
        doubtful = true;
        let found = match value.get_ref() {
            DeValue::Table(_) => {
                walk.error("unknown-kind", format!("no kind \"{}\" of trigger", key.value), key.span.clone(), "not a kind")
            }
            _ => walk.error("unknown-key", format!("{what} has no key \"{}\"", key.value), key.span.clone(), "not a key"),
        };
        suggest(found, &key.value, &KINDS);
        found.help.push(format!("kinds of trigger are: {}", KINDS.join(", ")));
    }
    if let [(first, _), (second, _), ..] = kinds.as_slice() {
        let file = walk.file().clone();
        let found = Diagnostic::error("two-kinds", format!("{what} is of two kinds, \"{}\" and \"{}\"", first.value, second.value))
            .at(&file, second.span.clone(), "second")
            .at(&file, first.span.clone(), "first")
            .help("make it two triggers");
        walk.found.push(found);
    }
    let Some((kind, value)) = kinds.into_iter().next() else {
        if !doubtful {
            let found = walk.error("missing-kind", format!("{what} does not say its kind"), name.span.clone(), "");
            found.help.push(format!("add a table such as [trigger.{}.file]", name.value));
            found.help.push(format!("kinds of trigger are: {}", KINDS.join(", ")));
        }
        return None;
    };
    let entries = walk.as_table(&kind.value, value)?;
    let kind = match kind.value.as_str() {
        "file" => file(walk, Table { entries, what: &what, span: &kind.span }),
        _ => self::pipeline(walk, Table { entries, what: &what, span: &kind.span }, pipeline),
    }?;
    (walk.errors() == before).then_some(Trigger { name, kind })
}

fn file(walk: &mut Walk<'_>, table: Table<'_, '_>) -> Option<TriggerKind> {
    walk.unknown_keys(table, &FILE_KEYS);
    let path = walk.required(table, "path", "write path = \"landing/*.csv\": what to wait for");
    let debounce = walk.duration(table, "debounce").map_or(DEBOUNCE, |debounce| debounce.value);
    let param = walk.string(table, "param");
    if let Some(param) = &param {
        walk.params.used.insert(param.value.clone());
        match walk.params.get(&param.value).map(|declared| declared.param.kind) {
            Some(ParamKind::Text) => {}
            Some(kind) => {
                let message = format!("the parameter \"{}\" is of type {kind}, and the path of a file is a text", param.value);
                walk.wrong_value(message, param.span.clone());
            }
            None => super::params::unknown(walk, &param.value, param.span.clone()),
        }
    }
    Some(TriggerKind::File { path: path?, debounce, param })
}

fn pipeline(walk: &mut Walk<'_>, table: Table<'_, '_>, own: Option<&str>) -> Option<TriggerKind> {
    walk.unknown_keys(table, &PIPELINE_KEYS);
    let name = walk.required(table, "name", "write name = \"a pipeline\": the one whose publishing starts this one")?;
    if !is_name(&name.value, false) {
        walk.error("bad-name", format!("\"{}\" is not the name of a pipeline", name.value), name.span.clone(), "");
    } else if own == Some(name.value.as_str()) {
        walk.wrong_value("a pipeline cannot start itself", name.span.clone());
    }
    Some(TriggerKind::Pipeline { name })
}
