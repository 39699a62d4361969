//! `[[matrix]]`: rows of values, each of which makes a pipeline of its own.

use toml::de::{DeTable, DeValue};

use super::{
    expect::tables,
    params::give_table,
    walk::{Table, Value, Walk, in_order, is_name},
};
use crate::{
    diagnostic::{Diagnostic, Spanned},
    params::ParamValue,
    settings::Document,
};

/// A row: its name, and the values of parameters in it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: Spanned<String>,
    pub(crate) values: Vec<(Spanned<String>, ParamValue)>,
}

/// Reads all rows.
pub(crate) fn rows(walk: &mut Walk<'_>, root: &DeTable<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    if let Some(value) = root.get("matrix")
        && value.get_ref().as_array().is_some_and(|rows| rows.is_empty())
    {
        walk.wrong_value("the matrix has no rows", value.span()).help.push("add one: [[matrix]] name = \"eu\"".into());
    }
    for (span, entries) in tables(walk, root, "matrix") {
        let table = Table { entries, what: "a row of the matrix", span: &span };
        let name = walk.required(table, "name", "write name = \"eu\": the row's pipeline is called by it");
        let values: Vec<(Spanned<String>, &Value<'_>)> = in_order(entries).into_iter().filter(|(key, _)| key.value != "name").collect();
        let given: Vec<String> = values.iter().map(|(key, _)| key.value.clone()).collect();
        let values = give_table(walk, values);
        let place = name.as_ref().map_or_else(|| span.clone(), |name| name.span.clone());
        let lacks = |walk: &Walk<'_>| -> Vec<String> {
            let without = walk.params.declared.iter().filter(|declared| declared.param.value.is_none());
            without.map(|declared| declared.param.name.value.clone()).filter(|name| !given.contains(name)).collect()
        };
        for lacking in lacks(walk) {
            walk.error("missing-param", format!("the parameter \"{lacking}\" has no value in this row"), place.clone(), "not given here")
                .help
                .push(format!("add {lacking} = … to the row, or give the parameter a default"));
        }
        let Some(name) = name else { continue };
        if !is_name(&name.value, false) {
            let message = format!("\"{}\" cannot be the name of a row", name.value);
            walk.error("bad-name", message, name.span.clone(), "")
                .help
                .push("a name has letters, digits, \"_\" and \"-\": it becomes part of a pipeline's name".into());
        }
        if let Some(first) = rows.iter().find(|first| first.name.value == name.value) {
            let file = walk.file().clone();
            let found = Diagnostic::error("duplicate-name", format!("two rows of the matrix are called \"{}\"", name.value))
                .at(&file, name.span.clone(), "second")
                .at(&file, first.name.span.clone(), "first");
            walk.found.push(found);
        }
        rows.push(Row { name, values });
    }
    rows
}

/// The names of a file's rows, right or wrong, each once: which pipelines it is.
pub(crate) fn names(document: &Document) -> Vec<String> {
    let (root, _) = document.written();
    let Some(DeValue::Array(rows)) = root.get("matrix").map(toml::Spanned::get_ref) else { return vec![] };
    let mut names: Vec<String> = Vec::new();
    for row in rows.iter() {
        let name = row.get_ref().as_table().and_then(|row| row.get("name")?.get_ref().as_str().map(str::to_owned));
        names.extend(name.filter(|name| is_name(name, false) && !names.contains(name)));
    }
    names
}

/// The name of the pipeline that a row makes.
pub fn name_of(pipeline: &str, row: &str) -> String {
    format!("{pipeline}-{row}")
}
