//! `[params]`: what a pipeline is given for one run, and where it uses that: `$name` in SQL, `{ param = "name" }` in settings.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue};

use super::{
    matrix::Row,
    walk::{Table, Value, Walk, in_order, suggest},
};
use crate::{
    diagnostic::{Diagnostic, Span, Spanned},
    params::{Param, ParamKind, ParamValue, TYPES},
    sql::{INTERVAL, SqlText},
};

pub(crate) const PARAM_KEYS: [&str; 6] = ["type", "default", "min", "max", "values", "description"];
/// What holds code, not values: a parameter never stands for it.
const CODE: [&str; 3] = ["sql", "filter", "of"];
/// Tables whose keys are names that a person chose: one of them may be "param".
const NAMED: [&str; 3] = ["cast", "rename", "columns"];
/// Tables of the file whose values are no settings.
const APART: [&str; 7] = ["weir", "name", "extends", "params", "matrix", "test", "tags"];

/// What is known of a file's parameters while the rest of it is read.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Those that could be read, with their bounds.
    pub(crate) declared: Vec<Declared>,
    /// Names of those that could not.
    pub(crate) broken: Vec<String>,
    /// Names that something uses.
    pub(crate) used: HashSet<String>,
    /// Names of those that were given something that is no value of theirs.
    refused: HashSet<String>,
}

/// A parameter and what it may be.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) param: Param,
    min: Option<Spanned<ParamValue>>,
    max: Option<Spanned<ParamValue>>,
    values: Option<Vec<Spanned<ParamValue>>>,
}

impl Known {
    fn names(&self) -> Vec<&str> {
        self.declared.iter().map(|declared| declared.param.name.value.as_str()).chain(self.broken.iter().map(String::as_str)).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Declared> {
        self.declared.iter().find(|declared| declared.param.name.value == name)
    }

    /// Gives values, which are right.
    pub(crate) fn set(&mut self, given: impl IntoIterator<Item = (String, ParamValue)>) {
        for (name, value) in given {
            if let Some(declared) = self.declared.iter_mut().find(|declared| declared.param.name.value == name) {
                (declared.param.value, declared.param.is_given) = (Some(value), true);
            }
        }
    }

    /// Each parameter that has a value, and that value as TOML.
    pub(crate) fn values(&self) -> Vec<(String, String)> {
        let value = |declared: &Declared| Some((declared.param.name.value.clone(), declared.param.value.as_ref()?.to_toml()));
        self.declared.iter().filter_map(value).collect()
    }
}

impl Declared {
    /// What is wrong with a value of the right type; where it must lie is told with it.
    fn bounds(&self, value: &ParamValue) -> Result<(), Outside> {
        let name = &self.param.name.value;
        let (shown, quoted) = (shown(value), |bound: &Spanned<ParamValue>| shown(&bound.value));
        if let Some(min) = self.min.as_ref().filter(|min| value.compare(&min.value) == Some(std::cmp::Ordering::Less)) {
            return Err((
                format!("\"{name}\" must be at least {}, and is {shown}", quoted(min)),
                Some((min.span.clone(), "the least")),
                vec![],
            ));
        }
        if let Some(max) = self.max.as_ref().filter(|max| value.compare(&max.value) == Some(std::cmp::Ordering::Greater)) {
            return Err((
                format!("\"{name}\" must be at most {}, and is {shown}", quoted(max)),
                Some((max.span.clone(), "the most")),
                vec![],
            ));
        }
        if let Some(values) = self.values.as_ref().filter(|values| !values.iter().any(|known| known.value == *value)) {
            let words = values.iter().map(quoted).collect::<Vec<_>>();
            let mut help = vec![format!("values are: {}", words.join(", "))];
            let near = crate::diagnostic::nearest(&shown, words.iter().map(String::as_str)).filter(|_| self.param.kind == ParamKind::Text);
            help.splice(0..0, near.map(|near| format!("did you mean {near}?")));
            return Err((format!("\"{name}\" cannot be {shown}"), None, help));
        }
        Ok(())
    }
}

/// A message, the bound that it is about, and what may help.
type Outside = (String, Option<(Span, &'static str)>, Vec<String>);

fn shown(value: &ParamValue) -> String {
    match value {
        ParamValue::Text(text) => format!("\"{text}\""),
        other => other.to_string(),
    }
}

/// Reads `[params]`.
pub(crate) fn params(walk: &mut Walk<'_>, root: &DeTable<'_>) {
    let Some(value) = root.get("params") else { return };
    let Some(table) = walk.as_table("params", value) else { return };
    for (name, value) in in_order(table) {
        let before = walk.errors();
        if !is_param_name(&name.value) {
            let found = walk.error("bad-name", format!("\"{}\" cannot be the name of a parameter", name.value), name.span.clone(), "");
            found.help.push("a name has letters, digits and \"_\", and starts with a letter or \"_\": SQL uses it as $name".into());
        }
        if INTERVAL.contains(&name.value.as_str()) {
            let message = format!("\"{}\" cannot be the name of a parameter: in SQL, ${0} is the interval of the run", name.value);
            walk.error("bad-name", message, name.span.clone(), "").help.push("give it another name".into());
        }
        let declared = declared(walk, &name, value);
        match declared.filter(|_| walk.errors() == before) {
            Some(declared) => walk.params.declared.push(declared),
            None => walk.params.broken.push(name.value),
        }
    }
}

fn is_param_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn declared(walk: &mut Walk<'_>, name: &Spanned<String>, value: &Value<'_>) -> Option<Declared> {
    let DeValue::Table(entries) = value.get_ref() else {
        let Some(kind) = ParamKind::of(value.get_ref()) else {
            walk.wrong_type(&name.value, value, "a value or a table with its type");
            return None;
        };
        let fitting = fit(walk, name, kind, value)?;
        let param = Param { name: name.clone(), kind, value: Some(fitting), is_given: false };
        return Some(Declared { param, min: None, max: None, values: None });
    };
    if secret(walk, name, value) {
        return None;
    }
    let what = format!("parameter \"{}\"", name.value);
    let table = Table { entries, what: &what, span: &name.span };
    walk.unknown_keys(table, &PARAM_KEYS);
    walk.text(table, "description");
    let default = entries.get("default");
    let kind = match (walk.string(table, "type"), default) {
        (Some(word), _) => {
            let Some(kind) = ParamKind::parse(&word.value) else {
                let found = walk.error("unknown-type", format!("\"{}\" is no type of a parameter", word.value), word.span, "not a type");
                suggest(found, &word.value, &TYPES);
                found.help.push(format!("types are: {}", TYPES.join(", ")));
                return None;
            };
            kind
        }
        // A type that is no string is told already.
        (None, _) if entries.contains_key("type") => return None,
        (None, Some(default)) => match ParamKind::of(default.get_ref()) {
            Some(kind) => kind,
            None => {
                if !secret(walk, name, default) {
                    walk.wrong_type("default", default, "a value");
                }
                return None;
            }
        },
        (None, None) => {
            walk.missing_key(table, "type", &format!("write type = \"text\"; types are: {}", TYPES.join(", ")));
            return None;
        }
    };
    let bound = |walk: &mut Walk<'_>, key: &str| {
        let value = entries.get(key)?;
        if !kind.is_ordered() {
            let message = format!("\"{key}\" bounds numbers, dates and datetimes, and {what} is of type {kind}");
            walk.wrong_value(message, value.span()).help.push("list what it may be: values = [\"a\", \"b\"]".into());
            return None;
        }
        fit(walk, name, kind, value).map(|bound| Spanned::new(bound, value.span()))
    };
    let (min, max) = (bound(walk, "min"), bound(walk, "max"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value.compare(&max.value) == Some(std::cmp::Ordering::Greater)
    {
        walk.wrong_value("\"min\" is more than \"max\"", min.span.clone());
    }
    let values = entries.get("values").and_then(|value| {
        let DeValue::Array(items) = value.get_ref() else {
            walk.wrong_type("values", value, "an array of values");
            return None;
        };
        if items.is_empty() {
            walk.wrong_value("\"values\" is empty: the parameter could be nothing", value.span());
        }
        Some(items.iter().filter_map(|item| Some(Spanned::new(fit(walk, name, kind, item)?, item.span()))).collect())
    });
    let param = Param { name: name.clone(), kind, value: None, is_given: false };
    let mut declared = Declared { param, min, max, values };
    if let Some(default) = default {
        let value = fit(walk, name, kind, default)?;
        within(walk, &declared, &value, Some(default.span()), None);
        declared.param.value = Some(value);
    }
    Some(declared)
}

/// Notes that a value is a secret's place: parameters are shown wherever a run is.
fn secret(walk: &mut Walk<'_>, name: &Spanned<String>, value: &Value<'_>) -> bool {
    let is_secret = value.get_ref().as_table().is_some_and(crate::settings::is_secret);
    if is_secret {
        let message = format!("the parameter \"{}\" cannot hold a secret", name.value);
        walk.error("param-secret", message, value.span(), "a secret")
            .help
            .push("parameters are shown with every run; a secret stays in a connection of weir.toml".into());
    }
    is_secret
}

fn fit(walk: &mut Walk<'_>, name: &Spanned<String>, kind: ParamKind, value: &Value<'_>) -> Option<ParamValue> {
    if secret(walk, name, value) {
        return None;
    }
    match kind.fit(value.get_ref()) {
        Ok(value) => Some(value),
        Err(message) => {
            walk.error("wrong-type", format!("\"{}\": {message}", name.value), value.span(), "")
                .help
                .push(format!("\"{}\" is of type {kind}", name.value));
            None
        }
    }
}

/// Notes that a value lies outside its bounds. Without a place of its own it is told at the parameter, with the words that say where it is from.
fn within(walk: &mut Walk<'_>, declared: &Declared, value: &ParamValue, place: Option<Span>, from: Option<&str>) -> bool {
    let Err((message, bound, help)) = declared.bounds(value) else { return true };
    let file = walk.file().clone();
    let place = place.unwrap_or_else(|| declared.param.name.span.clone());
    let mut found = Diagnostic::error("param-out-of-bounds", message).at(&file, place, "");
    if let Some((span, label)) = bound {
        found = found.at(&file, span, label);
    }
    found.help.extend(help);
    found.help.extend(from.map(str::to_owned));
    walk.found.push(found);
    false
}

/// Gives values as text, from the command line. What the matrix gives is not theirs to give.
pub(crate) fn give(walk: &mut Walk<'_>, given: &[(String, String)], rows: &[Row]) {
    for (name, text) in given {
        let from = format!("--param gave \"{name}\" the value {text}");
        if let Some((place, _)) = rows.iter().flat_map(|row| &row.values).find(|(known, _)| known.value == *name) {
            walk.error("param-of-matrix", format!("the rows of the matrix give \"{name}\" its value"), place.span.clone(), "given here")
                .help
                .extend(["name the pipeline of a row, or add a row".to_owned(), from]);
            continue;
        }
        let Some(at) = walk.params.declared.iter().position(|declared| declared.param.name.value == *name) else {
            if !walk.params.broken.contains(name) {
                let found = Diagnostic::error("unknown-param", format!("the pipeline has no parameter \"{name}\""));
                let found = with_names(found, name, &walk.params);
                walk.found.push(found);
            }
            continue;
        };
        let declared = walk.params.declared[at].clone();
        match declared.param.kind.read(text) {
            Ok(value) => {
                within(walk, &declared, &value, None, Some(&from));
                let param = &mut walk.params.declared[at].param;
                (param.value, param.is_given) = (Some(value), true);
            }
            Err(message) => {
                let found = walk.error("wrong-type", format!("\"{name}\": {message}"), declared.param.name.span.clone(), "");
                found.help.push(format!("\"{name}\" is of type {}", declared.param.kind));
                found.help.push(from);
                walk.params.refused.insert(name.clone());
            }
        }
    }
}

/// Gives values as TOML: those of a test, or of a row of the matrix. Returns those that are right.
pub(crate) fn give_table(walk: &mut Walk<'_>, entries: Vec<(Spanned<String>, &Value<'_>)>) -> Vec<(Spanned<String>, ParamValue)> {
    let mut given = Vec::new();
    for (name, value) in entries {
        let Some(declared) = walk.params.get(&name.value).cloned() else {
            if !walk.params.broken.contains(&name.value) {
                let file = walk.file().clone();
                let found = Diagnostic::error("unknown-param", format!("the pipeline has no parameter \"{}\"", name.value));
                let found = with_names(found.at(&file, name.span, "not a parameter"), &name.value, &walk.params);
                walk.found.push(found);
            }
            continue;
        };
        if let Some(fitting) = fit(walk, &name, declared.param.kind, value)
            && within(walk, &declared, &fitting, Some(value.span()), None)
        {
            given.push((name, fitting));
        }
    }
    given
}

fn with_names(mut found: Diagnostic, name: &str, known: &Known) -> Diagnostic {
    let names = known.names();
    suggest(&mut found, name, &names);
    found.help.push(match names.as_slice() {
        [] => format!("declare it: [params] {name} = … or [params.{name}] with its type"),
        names => format!("parameters are: {}", names.join(", ")),
    });
    found
}

/// Notes each parameter that has no value.
pub(crate) fn missing(walk: &mut Walk<'_>) {
    let refused = std::mem::take(&mut walk.params.refused);
    let without = |declared: &&Declared| declared.param.value.is_none() && !refused.contains(&declared.param.name.value);
    let without: Vec<Spanned<String>> = walk.params.declared.iter().filter(without).map(|declared| declared.param.name.clone()).collect();
    for name in without {
        let found = walk.error("missing-param", format!("the parameter \"{}\" has no value", name.value), name.span, "not given");
        found.help.push(format!("give it one with --param {}=…, or write a default", name.value));
    }
}

/// Warns of each parameter that nobody uses.
pub(crate) fn unused(walk: &mut Walk<'_>) {
    let is_unused = |declared: &&Declared| !walk.params.used.contains(&declared.param.name.value);
    let unused: Vec<Spanned<String>> = walk.params.declared.iter().filter(is_unused).map(|declared| declared.param.name.clone()).collect();
    for name in unused {
        let found = walk.warning("unused-param", format!("nobody uses the parameter \"{}\"", name.value), name.span, "");
        found.help.push(format!("use it in SQL as ${0} or in a setting as {{ param = \"{0}\" }}, or take it out", name.value));
    }
}

/// A `{ param = "name" }` of the file.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: Spanned<String>,
    /// The whole of it.
    pub(crate) span: Span,
    /// It stands where code is written.
    is_code: bool,
}

/// The name in `{ param = "name" }`.
pub(crate) fn named<'t>(value: &'t DeValue<'_>) -> Option<(&'t str, Span)> {
    let DeValue::Table(table) = value else { return None };
    let name = table.get("param").filter(|_| table.len() == 1)?;
    Some((name.get_ref().as_str()?, name.span()))
}

/// Does something with each value that a `{ param = … }` may stand in the place of. The second argument: whether it is code.
pub(crate) fn visit<'i>(root: &mut DeTable<'i>, each: &mut dyn FnMut(&mut Value<'i>, bool)) {
    for (key, value) in root.iter_mut() {
        if !APART.contains(&key.get_ref().as_ref()) {
            visit_value(value, key.get_ref(), each);
        }
    }
}

fn visit_value<'i>(value: &mut Value<'i>, key: &str, each: &mut dyn FnMut(&mut Value<'i>, bool)) {
    if named(value.get_ref()).is_some() && !NAMED.contains(&key) {
        each(value, CODE.contains(&key));
        return;
    }
    match value.get_mut() {
        DeValue::Table(table) => table.iter_mut().for_each(|(key, value)| visit_value(value, key.get_ref(), each)),
        DeValue::Array(items) => items.iter_mut().for_each(|value| visit_value(value, "", each)),
        _ => {}
    }
}

/// Finds every `{ param = … }` of a file, and notes those of no parameter. Returns those that have no value, whose places are not what is
/// meant.
pub(crate) fn references(walk: &mut Walk<'_>, mut root: DeTable<'_>) -> (Vec<Reference>, Vec<Reference>) {
    let mut found: Vec<Reference> = Vec::new();
    visit(&mut root, &mut |value, is_code| {
        if let Some((name, span)) = named(value.get_ref()) {
            found.push(Reference { name: Spanned::new(name.to_owned(), span), span: value.span(), is_code });
        }
    });
    found.sort_by_key(|reference| reference.span.start);
    let (mut whole, mut open) = (Vec::new(), Vec::new());
    for reference in found {
        walk.params.used.insert(reference.name.value.clone());
        if reference.is_code {
            let message = "a parameter is a value, and SQL is not taken from one";
            walk.error("param-as-code", message, reference.span.clone(), "SQL stands here")
                .help
                .push(format!("write the SQL here, with ${} where its value is meant", reference.name.value));
            open.push(reference);
            continue;
        }
        match walk.params.get(&reference.name.value) {
            Some(declared) if declared.param.value.is_some() => whole.push(reference),
            Some(_) => open.push(reference),
            None => {
                unknown(walk, &reference.name.value, reference.name.span.clone());
                open.push(reference);
            }
        }
    }
    (whole, open)
}

pub(crate) fn unknown(walk: &mut Walk<'_>, name: &str, span: Span) {
    if walk.params.broken.iter().any(|broken| broken == name) {
        return;
    }
    let file = walk.file().clone();
    let found = Diagnostic::error("unknown-param", format!("the pipeline has no parameter \"{name}\"")).at(&file, span, "not a parameter");
    let found = with_names(found, name, &walk.params);
    walk.found.push(found);
}

/// Checks the `$name`s of a SQL text. False where one of them has no value.
pub(crate) fn check_sql(walk: &mut Walk<'_>, sql: &SqlText) -> bool {
    let mut are_known = true;
    for (name, span) in sql.placeholders() {
        let Some(name) = name.strip_prefix('$').filter(|name| is_param_name(name)) else {
            walk.error("unknown-param", format!("\"{name}\" is no parameter: they are used by name"), span, "not a parameter")
                .help
                .push("declare one in [params], and write $name".into());
            are_known = false;
            continue;
        };
        // What has a value only in a run.
        if INTERVAL.contains(&name) {
            continue;
        }
        walk.params.used.insert(name.to_owned());
        match walk.params.get(name) {
            Some(declared) => are_known &= declared.param.value.is_some(),
            None => {
                unknown(walk, name, span);
                let meant = crate::diagnostic::nearest(name, INTERVAL);
                if let (Some(meant), Some(found)) = (meant, walk.found.last_mut().filter(|found| found.code == "unknown-param")) {
                    found.help.insert(0, format!("did you mean \"${meant}\", the interval of the run?"));
                }
                are_known = false;
            }
        }
    }
    are_known
}

/// Notes each `$name` of a query that a server executes: nothing is bound there.
pub(crate) fn check_foreign(walk: &mut Walk<'_>, sql: &SqlText) {
    for (placeholder, span) in sql.placeholders() {
        let name = placeholder.trim_start_matches('$');
        if INTERVAL.contains(&name) {
            let message = format!("\"{placeholder}\" is not bound in a query that the server executes");
            walk.error("param-not-bound", message, span, "no value comes here")
                .help
                .push("read the rows of the interval by a column: incremental = { interval = \"a column\" }".into());
            continue;
        }
        if !walk.params.names().contains(&name) {
            continue;
        }
        walk.params.used.insert(name.to_owned());
        let message = format!("\"{placeholder}\" is not bound in a query that the server executes");
        walk.error("param-not-bound", message, span, "no value comes here")
            .help
            .push(format!("read the rows without it, and filter them in a transform: filter = \"… = {placeholder}\""));
    }
}
