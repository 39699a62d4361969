//! `weir schema`: contracts made from data and compared with one another, and the JSON Schemas of the files a person writes, for editors.

mod diff;
mod infer;

use clap::{Args, Subcommand};
use serde_json::Value;
use weir_connectors::{CONNECTIONS, SINKS, SOURCES};
use weir_pipelines::schema::KindSchema;

use super::context::{Answer, Context};
use crate::{render::error, server::alert};

const EXAMPLES: &str = "\
Examples:
  weir schema infer data/orders.csv -o order.schema.json      a contract from data, to be read and edited
  weir schema diff old.schema.json order.schema.json          compatible or breaking, and why
  weir schema pipeline > schemas/pipeline.schema.json
  weir schema project > schemas/project.schema.json

An editor with Taplo or Tombi completes, explains and checks a file that begins with
  #:schema ../../schemas/pipeline.schema.json
and weir.toml where it begins with
  #:schema schemas/project.schema.json";

/// Make contracts from data, compare them, and print the schemas of pipeline files and weir.toml
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
    /// Print the JSON Schema of weir.toml
    #[command(after_help = "Example:\n  weir schema project > schemas/project.schema.json")]
    Project,
}

impl Schema {
    /// Answers.
    pub async fn answer(self, context: &Context) -> Answer {
        match self.command {
            Command::Infer(infer) => return infer.answer(context).await,
            Command::Diff(diff) => return diff.answer(context),
            Command::Pipeline => context.answer_json(&pipeline_schema())?,
            Command::Project => context.answer_json(&project_schema())?,
        }
        Ok(error::DONE)
    }
}

/// The JSON Schema of pipeline files, with every kind's own settings in it.
pub fn pipeline_schema() -> Value {
    let sources: Vec<KindSchema> = SOURCES.iter().map(|kind| of(kind.kind, kind.summary, kind.schema)).collect();
    let sinks: Vec<KindSchema> = SINKS.iter().map(|kind| of(kind.kind, kind.summary, kind.schema)).collect();
    weir_pipelines::pipeline_schema(&sources, &sinks)
}

/// The JSON Schema of `weir.toml`, with the settings of every kind of connection and of alert in it.
pub fn project_schema() -> Value {
    let connections: Vec<KindSchema> = CONNECTIONS.iter().map(|kind| of(kind.kind, SHARED, kind.schema)).collect();
    weir_pipelines::project_schema(&connections, &alert::schemas())
}

/// What a connection is, of whichever kind.
pub const SHARED: &str = "What several steps share, in weir.toml";

fn of(kind: &str, summary: &str, schema: fn() -> schemars::Schema) -> KindSchema {
    KindSchema { kind: kind.to_owned(), summary: summary.to_owned(), settings: schema().to_value() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys without a word of explanation, with the tables they stand in.
    fn unexplained(schema: &Value, at: &str, root: &Value, found: &mut Vec<String>) {
        for (key, value) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let target = super::super::pages::resolve(root, value);
            // A table of one key is explained with it.
            let is_only = schema["properties"].as_object().is_some_and(|keys| keys.len() == 1) && schema.get("description").is_some();
            if value.get("description").is_none() && target.get("description").is_none() && !is_only {
                found.push(format!("{at}/{key}"));
            }
        }
        match schema {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| unexplained(value, &format!("{at}/{key}"), root, found)),
            Value::Array(items) => items.iter().for_each(|item| unexplained(item, at, root, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_of_both_files_is_explained() {
        for schema in [pipeline_schema(), project_schema()] {
            let mut found = Vec::new();
            unexplained(&schema, "", &schema, &mut found);
            assert!(found.is_empty(), "{found:#?}");
        }
    }
}
