//! Which data does a person mean who names a file, a table or a step on the command line?

use std::path::Path;

use weir_connectors::SOURCES;
use weir_engine::{
    Failure, Workspace,
    survey::{self, Origin},
};
use weir_pipelines::{Diagnostic, Settings, SourceFile, Spanned, settings::Document};

use super::context::{Context, Set, Stop};
use crate::project;

/// What messages call the settings that are made here.
const COMMAND_LINE: &str = "<command line>";

/// Data as a command names it.
#[derive(Debug)]
pub struct Data<'a> {
    /// A file, pattern, folder or URL; a table of `weir sql`, or `CONNECTION.TABLE`; a pipeline, or `PIPELINE.STEP`.
    pub what: &'a str,
    /// The step, where `what` is a pipeline.
    pub step: Option<&'a str>,
    /// So many rows are looked at.
    pub limit: Option<u64>,
    /// Settings of how a file is read, or of the pipeline file.
    pub set: &'a Set,
}

impl Data<'_> {
    /// Which rows are meant, and what a person calls them.
    pub fn origin(&self, context: &Context) -> Result<(Workspace, Origin, String), Stop> {
        let what = self.what;
        if let Some(step) = self.step {
            return self.step(context, what, step);
        }
        let path = project::absolute(Path::new(what), &context.folder);
        let holds_pipeline = path.join(project::PIPELINE_FILE).is_file();
        if holds_pipeline || (path.is_file() && what.ends_with(".toml")) {
            return self.step(context, what, "");
        }
        let workspace = context.workspace(None)?;
        if path.exists() || what.contains(['/', '*', '?', '[', '{', '\\']) {
            return Ok((workspace, self.file(context, what), what.to_owned()));
        }
        let (first, rest) = what.split_once('.').unwrap_or((what, ""));
        if matches!(first, "lake" | "quarantine" | "weir") && !rest.is_empty() {
            self.no_settings("a table")?;
            return Ok((workspace, Origin::Table(what.to_owned()), what.to_owned()));
        }
        if let Some(connection) = workspace.project.connections.get(first).filter(|_| !rest.is_empty()) {
            let text = format!("connection = {}\ntable = {}\n", toml(first), toml(rest));
            let origin = self.source(context, connection.settings.kind.value.clone(), text);
            return Ok((workspace, origin, what.to_owned()));
        }
        let found = project::find_pipeline(first, &workspace.project.root, &context.folder);
        // Of several pipelines, which one is asked there.
        if found.as_ref().err().is_none_or(|several| several.code == "ambiguous-pipeline") {
            return self.step(context, first, rest);
        }
        let ending = Path::new(what).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // What ends as files do is a file that is not there, and the reader says so.
        if ["csv", "tsv", "ndjson", "jsonl", "json", "parquet", "arrow", "avro", "gz", "zst", "bz2", "xz"].contains(&ending) {
            return Ok((workspace, self.file(context, what), what.to_owned()));
        }
        let pipelines = project::pipelines(&workspace.project.root);
        let pipelines: Vec<String> = pipelines.iter().flat_map(|path| project::rows(path)).map(|found| found.name()).collect();
        let connections = workspace.project.connections.keys().map(String::as_str);
        let known = pipelines.iter().map(String::as_str).chain(connections).chain(["lake", "quarantine"]);
        Err(Diagnostic::error("unknown-data", format!("there is no file, table or step \"{what}\""))
            .did_you_mean(first, known)
            .help("name a file, lake.SCHEMA.TABLE, quarantine.PIPELINE.STEP, CONNECTION.TABLE, or PIPELINE STEP")
            .into())
    }

    fn step(&self, context: &Context, pipeline: &str, step: &str) -> Result<(Workspace, Origin, String), Stop> {
        let workspace = context.workspace(Some(pipeline))?;
        let pipeline = context.pipeline(&workspace, pipeline, self.set)?;
        let steps = survey::steps(&pipeline);
        let name = &pipeline.name.value;
        if !steps.contains(&step) {
            let missing = match step {
                "" => Diagnostic::error("unknown-step", format!("\"{name}\" is a pipeline, and a contract is of one of its steps")),
                step => Diagnostic::error("unknown-step", format!("pipeline \"{name}\" has no source or transform \"{step}\""))
                    .did_you_mean(step, steps.iter().copied()),
            };
            return Err(missing.help(format!("steps are: {}", steps.join(", "))).into());
        }
        let title = format!("{name}.{step}");
        let step = step.to_owned();
        Ok((workspace, Origin::Step { pipeline: Box::new(pipeline), step }, title))
    }

    fn file(&self, context: &Context, path: &str) -> Origin {
        // A quick look at some rows does not read all of them to learn their types.
        let infer_rows = self.limit.map(|limit| format!("infer_rows = {limit}\n")).unwrap_or_default();
        self.source(context, SOURCES[0].kind.to_owned(), format!("path = {}\n{infer_rows}", toml(path)))
    }

    /// A source with settings from the command line.
    fn source(&self, context: &Context, kind: String, text: String) -> Origin {
        let file = SourceFile::new(COMMAND_LINE, text);
        let overrides = self.set.set.iter().map(|(key, value)| (key.split('.').map(str::to_owned).collect(), value.clone()));
        let mut document = Document::new(file.clone());
        document.overrides = overrides.collect();
        let settings = Settings::new(&document.into(), vec![], Spanned::new(kind, 0..0), 0..file.text.len());
        Origin::Source { settings, folder: context.folder.clone() }
    }

    fn no_settings(&self, of: &str) -> Result<(), Stop> {
        if self.set.set.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::error("usage", format!("{of} has no settings")).help("leave out --set").into())
    }
}

/// A setting of the command line stands in no file that could be pointed into.
pub fn unplaced(failure: Failure) -> Failure {
    let Failure::Diagnostics(diagnostics) = failure else { return failure };
    let bare = diagnostics.into_iter().map(|mut diagnostic| {
        if diagnostic.file.as_ref().is_some_and(|file| file.path == COMMAND_LINE) {
            (diagnostic.file, diagnostic.labels) = (None, vec![]);
        }
        diagnostic
    });
    Failure::Diagnostics(bare.collect())
}

/// A text as a value of TOML.
pub fn toml(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
