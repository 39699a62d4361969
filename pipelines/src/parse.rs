//! From the text of a pipeline file to a [`Pipeline`], or to what is whole of it and every diagnostic at once, in source order.
//! What a kind's own table may hold is left to the kind; what a contract or SQL means, to the engine.

pub(crate) mod doors;
mod expect;
mod graph;
pub(crate) mod matrix;
mod operators;
pub(crate) mod params;
mod schedule;
pub(crate) mod server;
mod steps;
mod test;
mod torn;
mod trigger;
pub(crate) mod walk;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Severity, SourceFile, Span, Spanned},
    layers::Layers,
    params::ParamValue,
    pipeline::Pipeline,
    settings::{Document, Settings, Torn},
};
pub(crate) use expect::{CHECKS, RUNS, RUNS_MIN, Z_MAX};
pub(crate) use operators::OPERATORS;
pub(crate) use steps::{MISSING_COLUMN, MODES, NEW_COLUMN, SINK_KEYS, SOURCE_KEYS, TYPE_CHANGE};
pub(crate) use trigger::KINDS as TRIGGER_KINDS;
use walk::{Table, Walk, integer, is_name, type_name};

const KEYS: [&str; 15] = [
    "weir",
    "name",
    "description",
    "owner",
    "tags",
    "extends",
    "params",
    "matrix",
    "schedule",
    "trigger",
    "source",
    "transform",
    "sink",
    "expect",
    "test",
];

/// The kinds that exist, so that an unknown one is answered with the known ones and a known one's settings are judged with the rest.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// Kinds of sources.
    pub sources: &'a [&'a str],
    /// Kinds of sinks.
    pub sinks: &'a [&'a str],
    /// Names of the project's connections.
    pub connections: &'a [&'a str],
    /// Names of the project's profiles.
    pub profiles: &'a [&'a str],
    /// Says what is wrong with the settings of a source of a known kind.
    pub check_source: fn(&Settings) -> Diagnostics,
    /// Says what is wrong with the settings of a sink of a known kind.
    pub check_sink: fn(&Settings) -> Diagnostics,
}

/// What could be read of a pipeline file, and what is wrong with the rest.
#[derive(Debug, Clone)]
pub struct Partial {
    /// What is whole of it, valid by construction but for what is left out: a step, an expectation or a test whose own words are wrong is
    /// not here, and those that read it still name it.
    pub pipeline: Pipeline,
    /// Errors and warnings, in source order.
    pub found: Diagnostics,
}

impl Partial {
    /// True where nothing is wrong: then the pipeline is all that was written.
    pub fn is_whole(&self) -> bool {
        !self.found.iter().any(|found| found.severity == Severity::Error)
    }

    /// The pipeline with its warnings, or all that was found where an error is among it.
    pub fn whole(self) -> Result<Pipeline, Diagnostics> {
        if self.is_whole() { Ok(Pipeline { warnings: self.found, ..self.pipeline }) } else { Err(self.found) }
    }
}

/// What a file is read with for this time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// `--set` values: dotted path, and the value as TOML or as bare text.
    pub set: Vec<(String, String)>,
    /// `--param` values: a parameter's name, and its value as bare text.
    pub params: Vec<(String, String)>,
    /// The row of the matrix whose pipeline is meant. None: the first one's, under the file's own name.
    pub row: Option<String>,
}

impl From<&Changes> for Changes {
    fn from(changes: &Changes) -> Self {
        changes.clone()
    }
}

impl From<&[(String, String)]> for Changes {
    fn from(set: &[(String, String)]) -> Self {
        Self { set: set.to_vec(), ..Self::default() }
    }
}

impl<const N: usize> From<&[(String, String); N]> for Changes {
    fn from(set: &[(String, String); N]) -> Self {
        set.as_slice().into()
    }
}

impl From<&Vec<(String, String)>> for Changes {
    fn from(set: &Vec<(String, String)>) -> Self {
        set.as_slice().into()
    }
}

/// Parses a pipeline file that stands in `folder`.
pub fn parse(
    file: impl Into<Layers>,
    folder: PathBuf,
    changes: impl Into<Changes>,
    vocabulary: Vocabulary<'_>,
) -> Result<Pipeline, Diagnostics> {
    parse_partial(file, folder, changes, vocabulary).whole()
}

/// Parses a pipeline file as [`parse`] does, and hands on what is whole of a wrong one too.
pub fn parse_partial(file: impl Into<Layers>, folder: PathBuf, changes: impl Into<Changes>, vocabulary: Vocabulary<'_>) -> Partial {
    let (Layers { file, wrong }, changes) = (file.into(), changes.into());
    let mut document = Document::new(file.clone());
    let mut bad_paths = Diagnostics::new();
    for (path, value) in &changes.set {
        let parts: Vec<String> = path.split('.').map(|part| part.trim().to_owned()).collect();
        if parts.iter().any(String::is_empty) {
            bad_paths
                .push(Diagnostic::error("bad-override", format!("\"{path}\" is not a dotted path of keys, such as \"sink.lake.mode\"")));
        } else {
            document.overrides.push((parts, toml_value(value)));
        }
    }
    let (mut pipeline, mut found) = read_with(&document, &folder, &changes, &[], vocabulary);
    // A test that gives parameters is of the pipeline that they make.
    let of_tests: Vec<(usize, Vec<(String, ParamValue)>)> = pipeline
        .tests
        .iter()
        .enumerate()
        .filter(|(_, test)| !test.params.is_empty())
        .map(|(at, test)| (at, test.params.iter().map(|(name, value)| (name.value.clone(), value.clone())).collect()))
        .collect();
    for (at, given) in of_tests {
        let (mut made, more) = read_with(&document, &folder, &changes, &given, vocabulary);
        made.tests.clear();
        let test = &mut pipeline.tests[at];
        let of_test = more.into_iter().filter(|one| one.severity == Severity::Error && !found.contains(one)).collect::<Vec<_>>();
        found.extend(of_test.into_iter().map(|one| one.help(format!("so it is with the parameters of the test \"{}\"", test.name.value))));
        test.made = Some(Arc::new(made));
    }
    pipeline.changes = changes;
    let (_, torn) = document.written();
    let syntax = syntax_errors(&file, &torn);
    for error in &torn {
        torn::leave_out(&mut pipeline, error.span.start.min(file.text.len()));
    }
    let mut found = after_syntax(found, syntax);
    if !wrong.is_empty() {
        found.retain(|found| !ABSENT.contains(&found.code));
        found.extend(wrong);
    }
    found.extend(bad_paths);
    if found.iter().any(|found| found.severity == Severity::Error) {
        // With a step missing or misread, who reads whom is not known.
        found.retain(|found| found.code != "unread-step");
    }
    sort(&mut found);
    Partial { pipeline, found }
}

/// The names of the rows of a file's matrix: which pipelines it is. None: one pipeline.
pub fn rows(layers: &Layers) -> Vec<String> {
    if !layers.file.text.contains("matrix") {
        return vec![];
    }
    matrix::names(&Document::new(layers.file.clone()))
}

/// The parameters that a file declares, right or wrong.
pub fn param_names(layers: &Layers) -> Vec<String> {
    let document = Document::new(layers.file.clone());
    let (root, _) = document.written();
    let params = root.get("params").and_then(|params| params.get_ref().as_table());
    params.into_iter().flat_map(|params| params.keys()).map(|name| name.get_ref().to_string()).collect()
}

/// Reads a file with these values of parameters besides those that it is given.
fn read_with(
    document: &Document,
    folder: &Path,
    changes: &Changes,
    given: &[(String, ParamValue)],
    vocabulary: Vocabulary<'_>,
) -> (Pipeline, Diagnostics) {
    let written = Arc::new(document.clone());
    let (root, _) = written.written();
    let mut walk = Walk::new(&written);
    params::params(&mut walk, &root);
    let rows = matrix::rows(&mut walk, &root);
    let row = rows.iter().find(|row| changes.row.is_none() || changes.row.as_ref() == Some(&row.name.value));
    let of_row = row.into_iter().flat_map(|row| &row.values).map(|(name, value)| (name.value.clone(), value.clone()));
    walk.params.set(of_row);
    params::give(&mut walk, &changes.params, &rows);
    walk.params.set(given.iter().cloned());
    if rows.is_empty() {
        params::missing(&mut walk);
    }
    let (references, open) = params::references(&mut walk, root);
    let bound = Arc::new(Document { params: walk.params.values(), ..document.clone() });
    let (root, _) = bound.root();
    let mut walk = Walk { document: &bound, found: walk.found, params: walk.params };
    let row = row.filter(|_| changes.row.is_some()).map(|row| row.name.value.as_str());
    let mut pipeline = read(&mut walk, &root, folder.to_path_buf(), row, vocabulary);
    params::unused(&mut walk);
    pipeline.params = walk.params.declared.iter().map(|declared| declared.param.clone()).collect();
    let mut found = walk.found;
    crate::diagnostic::drop_follow_ons(&mut found);
    let file = &bound.file;
    let is_at = |one: &Diagnostic, span: &Span| {
        let place = file.part_at(span.clone());
        *span != (0..0) && one.labels.first().is_some_and(|label| (&label.file, &label.span) == (&place.0, &place.1))
    };
    // What stands where no value is known is not what is meant.
    let is_within = |one: &Diagnostic, span: &Span| {
        let (part, span) = file.part_at(span.clone());
        one.labels.first().is_some_and(|label| label.file == part && span.start <= label.span.start && label.span.end <= span.end)
    };
    let is_told = |one: &Diagnostic| ["unknown-param", "param-as-code"].contains(&one.code);
    found.retain(|one| is_told(one) || !open.iter().any(|open| is_within(one, &open.span)));
    for one in &mut found {
        if let Some(reference) = references.iter().find(|reference| is_at(one, &reference.span))
            && let Some(value) = bound.params.iter().find(|(name, _)| *name == reference.name.value).map(|(_, value)| value)
        {
            one.help.push(format!("the parameter \"{}\" is {value}", reference.name.value));
        }
        name_override(one, &bound, &root);
    }
    (pipeline, found)
}

/// What may be said only because something is not there.
const ABSENT: [&str; 9] = [
    "missing-key",
    "missing-kind",
    "weir-version",
    "no-source",
    "no-sink",
    "unknown-step",
    "unknown-connection",
    "unread-step",
    "unknown-param",
];

/// Puts diagnostics into source order.
pub(crate) fn sort(found: &mut [Diagnostic]) {
    found.sort_by_cached_key(Diagnostic::place);
}

/// An override's value as TOML: as it is when it is TOML, else as a string.
fn toml_value(text: &str) -> String {
    match DeValue::parse(text) {
        Ok(_) => text.to_owned(),
        Err(_) => toml::Value::String(text.to_owned()).to_string(),
    }
}

/// What is wrong with the TOML itself, once per place.
pub(crate) fn syntax_errors(file: &Arc<SourceFile>, torn: &[Torn]) -> Diagnostics {
    let mut lines = HashSet::new();
    let mut found = Diagnostics::new();
    for Torn { span, message } in torn {
        let end = span.end.min(file.text.len());
        let span = span.start.min(end)..end;
        let (part, place) = file.part_at(span.clone());
        if lines.insert((part.path.clone(), part.line_column(place.start).0)) {
            found.push(Diagnostic::error("toml-syntax", toml_words(message)).at(file, span, ""));
        }
    }
    sort(&mut found);
    found
}

fn toml_words(message: &str) -> String {
    message.replace("`\"`", "a double quote").replace("`'`", "a single quote").replace('`', "\"").replace('\n', "; ")
}

/// Adds syntax errors and leaves out what may only follow from them: what is said of the same line, or of something that is not there.
pub(crate) fn after_syntax(mut found: Diagnostics, syntax: Diagnostics) -> Diagnostics {
    if syntax.is_empty() {
        return found;
    }
    let line = |found: &Diagnostic| {
        let label = found.labels.first()?;
        Some((label.file.path.clone(), label.file.line_column(label.span.start).0))
    };
    let lines: HashSet<_> = syntax.iter().filter_map(line).collect();
    found.retain(|found| !ABSENT.contains(&found.code) && !line(found).is_some_and(|line| lines.contains(&line)));
    found.extend(syntax);
    found
}

/// Says where a wrong value came from, when that is the command line.
fn name_override(found: &mut Diagnostic, document: &Document, root: &DeTable<'_>) {
    let Some((file, span)) = found.labels.first().map(|label| (label.file.clone(), label.span.clone())) else { return };
    for (path, value) in &document.overrides {
        let mut place: Option<&toml::Spanned<DeValue<'_>>> = None;
        for part in path {
            place = match place.map(toml::Spanned::get_ref) {
                None => root.get(part.as_str()),
                Some(DeValue::Table(table)) => table.get(part.as_str()),
                Some(DeValue::Array(items)) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
                Some(_) => None,
            };
            if place.is_none() {
                break;
            }
        }
        let is_it = place.is_some_and(|place| document.file.part_at(place.span()) == (file.clone(), span.clone()));
        if is_it && (span != (0..0) || mentions(found, path)) {
            found.help.push(format!("--set gave \"{}\" the value {value}", path.join(".")));
        }
    }
}

/// What was added has no place of its own, so the message must tell which one it is.
fn mentions(found: &Diagnostic, path: &[String]) -> bool {
    path.last().is_some_and(|last| found.message.contains(&format!("\"{last}\"")))
}

fn read(walk: &mut Walk<'_>, root: &DeTable<'_>, folder: PathBuf, row: Option<&str>, vocabulary: Vocabulary<'_>) -> Pipeline {
    let start: Span = 0..0;
    let table = Table { entries: root, what: "a pipeline", span: &start };
    walk.unknown_keys(table, &KEYS);
    version(walk, table);
    let name = walk.required(table, "name", "write name = \"…\" at the top of the file");
    if let Some(name) = &name
        && !is_name(&name.value, false)
    {
        walk.error("bad-name", format!("\"{}\" cannot be the name of a pipeline", name.value), name.span.clone(), "")
            .help
            .push("a name has letters, digits, \"_\" and \"-\"".into());
    }
    let description = walk.text(table, "description");
    let owner = walk.text(table, "owner");
    let tags = walk.strings(table, "tags").unwrap_or_default().into_iter().map(|tag| tag.value).collect();
    let schedule = root.get("schedule").and_then(|value| {
        let span = value.span();
        let entries = walk.as_table("schedule", value)?;
        schedule::schedule(walk, Table { entries, what: "[schedule]", span: &span }, name.as_ref().map(|name| name.value.as_str()))
    });
    let triggers = trigger::triggers(walk, root, name.as_ref().map(|name| name.value.as_str()));
    let mut steps = steps::steps(walk, root, vocabulary);
    let order = graph::order(walk, &steps.declared);
    graph::sort(&mut steps.transforms, &order);
    let (expectations, reads) = expect::expectations(walk, root, &steps.declared);
    let zone = schedule.as_ref().map_or(chrono_tz::UTC, |schedule| schedule.timezone);
    let tests = test::tests(walk, root, &steps.declared, zone);
    graph::unread(walk, &steps.declared, &reads);
    let top: Span = name.as_ref().map_or(0..0, |name: &Spanned<String>| name.span.clone());
    for (role, code, help) in [
        (steps::Role::Source, "no-source", "add a table such as [source.orders.file]"),
        (steps::Role::Sink, "no-sink", "add a table such as [sink.lake.lake], with from = \"a step\" in [sink.lake]"),
    ] {
        // A value of a wrong type is told already.
        if root.get(role.key()).is_none_or(|value| value.get_ref().is_table()) && !steps.declared.iter().any(|step| step.role == role) {
            walk.error(code, format!("the pipeline has no {}", role.key()), top.clone(), "").help.push(help.into());
        }
    }
    let pipeline = Pipeline {
        file: walk.file().clone(),
        folder,
        name: match (name, row) {
            (Some(name), Some(row)) => Spanned::new(matrix::name_of(&name.value, row), name.span),
            (name, _) => name.unwrap_or_else(|| Spanned::new(String::new(), 0..0)),
        },
        description,
        owner,
        tags,
        schedule,
        triggers,
        sources: steps.sources,
        transforms: steps.transforms,
        sinks: steps.sinks,
        expectations,
        tests,
        params: vec![],
        warnings: vec![],
        changes: Changes::default(),
    };
    // Of a step that is wrong, nobody knows what it reads.
    if walk.errors() == 0 && !pipeline.reads_interval() {
        for interval in pipeline.tests.iter().filter_map(|test| test.interval.as_ref()) {
            let message = "\"interval\" changes nothing: no step reads the interval of its run";
            walk.warning("no-effect", message, interval.span.clone(), "");
        }
    }
    pipeline
}

fn version(walk: &mut Walk<'_>, table: Table<'_, '_>) {
    match table.entries.get("weir") {
        None => {
            walk.error("weir-version", "the file does not say which format it is in", table.span.clone(), "")
                .help
                .push("write weir = 1 at its top".into());
        }
        Some(value) => match value.get_ref() {
            DeValue::Integer(number) if integer(number) == Some(1) => {}
            DeValue::Integer(number) => {
                let message = format!("format {number} is not known to this Weir, which reads format 1");
                walk.error("weir-version", message, value.span(), "");
            }
            other => {
                let message = format!("expected the integer 1 for \"weir\", found {}", type_name(other));
                walk.error("wrong-type", message, value.span(), "");
            }
        },
    }
}

/// The keys of each table, for the test that holds the JSON Schema against them.
#[cfg(test)]
pub(crate) struct KnownKeys {
    pub(crate) pipeline: &'static [&'static str],
    pub(crate) schedule: &'static [&'static str],
    pub(crate) triggers: [&'static [&'static str]; 3],
    pub(crate) source: &'static [&'static str],
    pub(crate) transform: &'static [&'static str],
    pub(crate) operators: &'static [&'static str],
    pub(crate) sink: &'static [&'static str],
    pub(crate) expect: &'static [&'static str],
    pub(crate) checks: &'static [&'static str],
    pub(crate) test: &'static [&'static str],
    pub(crate) param: &'static [&'static str],
}

#[cfg(test)]
pub(crate) fn known_keys() -> KnownKeys {
    KnownKeys {
        pipeline: &KEYS,
        schedule: &schedule::KEYS,
        triggers: [&trigger::KINDS, &trigger::FILE_KEYS, &trigger::PIPELINE_KEYS],
        source: &steps::SOURCE_KEYS,
        transform: &steps::TRANSFORM_KEYS,
        operators: &operators::OPERATORS,
        sink: &steps::SINK_KEYS,
        expect: &expect::EXPECT_KEYS,
        checks: &expect::CHECKS,
        test: &test::TEST_KEYS,
        param: &params::PARAM_KEYS,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
