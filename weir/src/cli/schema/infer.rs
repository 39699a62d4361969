//! `weir schema infer`: where the contract goes. How it is made is the engine's, which data is meant is `data`'s.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use weir_engine::{
    Failure,
    survey::{self, Origin, Survey},
};
use weir_pipelines::Diagnostic;
use weir_schemas::infer::Options;

use super::super::{
    context::{Answer, Context, Set, Stop},
    data::{Data, unplaced},
};
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
        let data = Data { what: &self.what, step: self.step.as_deref(), limit: self.limit, set: &self.set };
        let (workspace, origin, title) = data.origin(context)?;
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
}

fn taken(path: &Path, context: &Context) -> Stop {
    let shown = project::shown(path, &context.folder);
    Diagnostic::error("file-exists", format!("\"{shown}\" is there already")).help("write over it with --force, or name another").into()
}
