//! `weir schema`: contracts made from data and compared with one another, and the JSON Schema of pipeline files, for editors.

mod diff;
mod infer;

use clap::{Args, Subcommand};
use serde_json::Value;
use weir_connectors::{SINKS, SOURCES};
use weir_pipelines::schema::KindSchema;

use super::context::{Answer, Context};
use crate::render::error;

const EXAMPLES: &str = "\
Examples:
  weir schema infer data/orders.csv -o order.schema.json      a contract from data, to be read and edited
  weir schema diff old.schema.json order.schema.json          compatible or breaking, and why
  weir schema pipeline > schemas/pipeline.schema.json

An editor that knows Taplo's directive completes and checks a pipeline file that begins with
  #:schema ../../schemas/pipeline.schema.json";

/// Make contracts from data, compare them, and print the schema of pipeline files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Schema {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Infer(infer::Infer),
    Diff(diff::Diff),
    /// Print the JSON Schema of pipeline files
    #[command(after_help = "Example:\n  weir schema pipeline > schemas/pipeline.schema.json")]
    Pipeline,
}

impl Schema {
    /// Answers.
    pub async fn answer(self, context: &Context) -> Answer {
        match self.command {
            Command::Infer(infer) => return infer.answer(context).await,
            Command::Diff(diff) => return diff.answer(context),
            Command::Pipeline => context.answer_json(&pipeline_schema())?,
        }
        Ok(error::DONE)
    }
}

/// The JSON Schema of pipeline files, with every kind's own settings in it.
pub fn pipeline_schema() -> Value {
    let of = |kind: &str, summary: &str, schema: fn() -> schemars::Schema| KindSchema {
        kind: kind.to_owned(),
        summary: summary.to_owned(),
        settings: schema().to_value(),
    };
    let sources: Vec<KindSchema> = SOURCES.iter().map(|kind| of(kind.kind, kind.summary, kind.schema)).collect();
    let sinks: Vec<KindSchema> = SINKS.iter().map(|kind| of(kind.kind, kind.summary, kind.schema)).collect();
    weir_pipelines::schema::pipeline_schema(&sources, &sinks)
}
