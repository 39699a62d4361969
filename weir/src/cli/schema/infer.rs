//! `weir schema infer`: which data is meant, and where the contract goes. How it is made is the engine's.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use weir_connectors::SOURCES;
use weir_engine::{
    Failure, Workspace,
    survey::{self, Origin, Survey},
};
use weir_pipelines::{Diagnostic, Settings, SourceFile, Spanned, settings::Document};
use weir_schemas::infer::Options;

use super::super::context::{Answer, Context, Set, Stop};
use crate::{
    project,
    render::{error, number::counted},
};

const EXAMPLES: &str = "\
Examples:
  weir schema infer data/orders.csv -o order.schema.json
  weir schema infer 'data/2026-*.csv' --set csv.delimiter=';' --set csv.decimal=,
  weir schema infer lake.shop.orders                     a table of weir sql
  weir schema infer crm.public.customers                 a table of a connection
  weir schema infer orders daily                         what leaves a step of a pipeline
  weir schema infer data/people.ndjson --no-examples     no value of the data in the contract

Types, formats and \"required\" are rules. Ranges, lengths, few distinct values and keys stand under \"x-weir-seen\", which no
check looks at; --strict makes rules of them. All rows are read unless --limit says otherwise; nothing is staged or loaded.";

/// What messages call the settings that are made here.
const COMMAND_LINE: &str = "<command line>";

/// Make a contract from data, for a person to read and edit
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Infer {
    /// A file, pattern, folder or URL; a table of weir sql, or CONNECTION.TABLE; a pipeline, or PIPELINE.STEP
    #[arg(value_name = "WHAT", value_hint = clap::ValueHint::AnyPath)]
    what: String,
    /// The step, where WHAT is a pipeline
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// Write the contract to a file instead of standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "output")]
    force: bool,
    /// Look at so many rows only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Make rules of ranges, lengths, lists of values and the list of columns too
    #[arg(long, conflicts_with = "no_examples")]
    strict: bool,
    /// Write no value of the data: no examples, ranges or lists of values
    #[arg(long)]
    no_examples: bool,
    /// Change one setting of how the file is read, or of the pipeline file: a dotted path, and TOML or plain text
    #[command(flatten)]
    set: Set,
}

impl Infer {
    /// Looks at the data and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let output = self.output.as_ref().map(|path| project::absolute(path, &context.folder));
        if let Some(path) = output.as_ref().filter(|path| !self.force && path.exists()) {
            return Err(taken(path, context));
        }
        let (workspace, origin, title) = self.origin(context)?;
        let options = Options { values: !self.no_examples, strict: self.strict, narrow: matches!(origin, Origin::Source { .. }) };
        let surveyed = survey::survey(&workspace, &origin, &title, Survey { limit: self.limit, options }).await.map_err(unplaced)?;
        let text = format!("{:#}\n", surveyed.contract);
        match &output {
            None => context.answer(&text)?,
            Some(path) => {
                self.write(path, &text, context)?;
                let shown = project::shown(path, &context.folder);
                if context.global.json {
                    let (rows, rejected, notes) = (surveyed.rows, surveyed.rejected, &surveyed.notes);
                    context.answer_json(&json!({ "file": shown, "rows": rows, "rejected": rejected, "notes": notes }))?;
                } else {
                    context.say(&format!("{shown} made from {}", counted(surveyed.rows, "row", "rows")));
                }
            }
        }
        if surveyed.rejected > 0 {
            let rejected = counted(surveyed.rejected, "row", "rows");
            context.say(&format!("{rejected} could not be read, or broke a contract on the way, and the contract does not know of them"));
        }
        surveyed.notes.iter().for_each(|note| context.say(note));
        Ok(error::DONE)
    }

    fn write(&self, path: &Path, text: &str, context: &Context) -> Result<(), Stop> {
        let mut options = fs::File::options();
        options.write(true).truncate(self.force).create(self.force).create_new(!self.force);
        let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(path, context),
            _ => {
                let shown = project::shown(path, &context.folder);
                Failure::error("output-failed", format!("cannot write \"{shown}\": {error}")).into()
            }
        })
    }

    /// Which rows are meant, and what a person calls them.
    fn origin(&self, context: &Context) -> Result<(Workspace, Origin, String), Stop> {
        let what = self.what.as_str();
        if let Some(step) = &self.step {
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
        if found.is_ok() {
            return self.step(context, first, rest);
        }
        let ending = Path::new(what).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // What ends as files do is a file that is not there, and the reader says so.
        if ["csv", "tsv", "ndjson", "jsonl", "json", "parquet", "arrow", "avro", "gz", "zst", "bz2", "xz"].contains(&ending) {
            return Ok((workspace, self.file(context, what), what.to_owned()));
        }
        let pipelines: Vec<String> = project::pipelines(&workspace.project.root).iter().map(|path| project::name_of(path)).collect();
        let connections = workspace.project.connections.keys().map(String::as_str);
        let known = pipelines.iter().map(String::as_str).chain(connections).chain(["lake", "quarantine"]);
        Err(Diagnostic::error("unknown-data", format!("there is no file, table or step \"{what}\""))
            .did_you_mean(first, known)
            .help("name a file, lake.SCHEMA.TABLE, quarantine.PIPELINE.STEP, CONNECTION.TABLE, or PIPELINE STEP")
            .into())
    }

    fn step(&self, context: &Context, pipeline: &str, step: &str) -> Result<(Workspace, Origin, String), Stop> {
        let workspace = context.workspace(Some(pipeline))?;
        let pipeline = context.pipeline(&workspace, pipeline, &self.set.set)?;
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
fn unplaced(failure: Failure) -> Failure {
    let Failure::Diagnostics(diagnostics) = failure else { return failure };
    let bare = diagnostics.into_iter().map(|mut diagnostic| {
        if diagnostic.file.as_ref().is_some_and(|file| file.path == COMMAND_LINE) {
            (diagnostic.file, diagnostic.labels) = (None, vec![]);
        }
        diagnostic
    });
    Failure::Diagnostics(bare.collect())
}

fn taken(path: &Path, context: &Context) -> Stop {
    let shown = project::shown(path, &context.folder);
    Diagnostic::error("file-exists", format!("\"{shown}\" is there already")).help("write over it with --force, or name another").into()
}

/// A text as a value of TOML.
fn toml(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
