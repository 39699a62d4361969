//! `weir new`: a new pipeline, made from data that is there, or put together from the examples of a source's and a sink's kind.

mod from;

use clap::Args;
use serde_json::json;
use toml::de::{DeTable, DeValue};
use weir_connectors::{SINKS, SOURCES};
use weir_pipelines::Diagnostic;

use super::{
    context::{Answer, Context, Set, Stop},
    init::write_new,
};
use crate::{project, render::error};

const EXAMPLES: &str = "\
Examples:
  weir new visits --from data/visits.csv           from a file to a lake table, with a contract made from it
  weir new visits --from 'data/*.ndjson.gz' --limit 100000
  weir new visits --from https://example.com/visits.parquet
  weir new customers --from crm.public.customers   a table of a connection
  weir new visits                                  a skeleton to fill in, from files to the lake
  weir new visits --source file --sink lake
  weir connectors list                             which kinds there are";

/// Make a pipeline: pipelines/NAME/pipeline.toml
///
/// With --from it is one that works, from data that is there: a source that reads it, a contract that is made from its rows, a lake table that they
/// are loaded into. Without, it is a skeleton of examples to fill in. Overwrites nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct New {
    /// The pipeline's name: letters, digits, _ and -
    #[arg(value_name = "NAME")]
    name: String,
    /// The data it reads: a file, pattern, folder or URL, or CONNECTION.TABLE
    #[arg(long, value_name = "WHAT", value_hint = clap::ValueHint::AnyPath, conflicts_with_all = ["source", "sink"])]
    from: Option<String>,
    /// Make the contract from so many rows only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "from")]
    limit: Option<u64>,
    /// Write no value of the data into the contract: no examples, ranges or lists of values
    #[arg(long, requires = "from")]
    no_examples: bool,
    /// Say how a file is read, here and in the pipeline: a dotted path, and TOML or plain text, such as csv.delimiter=';'
    #[command(flatten)]
    set: Set,
    /// The kind of its source
    #[arg(long, value_name = "KIND", default_value = SOURCES[0].kind)]
    source: String,
    /// The kind of its sink
    #[arg(long, value_name = "KIND", default_value = SINKS[0].kind)]
    sink: String,
}

impl New {
    /// Makes the pipeline.
    pub async fn answer(self, context: &Context) -> Answer {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || !self.name.chars().all(allowed) {
            let message = format!("\"{}\" is not a name for a pipeline", self.name);
            return Err(Diagnostic::error("bad-name", message).help("use letters, digits, _ and -").into());
        }
        match &self.from {
            Some(what) => from::made(&self, what, context).await,
            None => self.skeleton(context),
        }
    }

    fn skeleton(&self, context: &Context) -> Answer {
        if !self.set.set.is_empty() {
            return Err(Diagnostic::error("usage", "a skeleton has no settings to change").help("leave out --set, or say --from").into());
        }
        let source = SOURCES.iter().find(|kind| kind.kind == self.source);
        let source = source.ok_or_else(|| unknown("source", &self.source, SOURCES.iter().map(|kind| kind.kind).collect()))?;
        let sink = SINKS.iter().find(|kind| kind.kind == self.sink);
        let sink = sink.ok_or_else(|| unknown("sink", &self.sink, SINKS.iter().map(|kind| kind.kind).collect()))?;
        let root = context.root(None)?;
        let text = skeleton(&self.name, source.example, sink.example, schema_line(&root));
        let path = format!("pipelines/{}/{}", self.name, project::PIPELINE_FILE);
        write_new(&root, &[(path.clone(), text)], &context.folder)?;
        let shown = project::shown(&root.join(&path), &context.folder);
        if context.global.json {
            context.answer_json(&json!({ "created": [root.join(&path).display().to_string()] }))?;
        } else {
            context.answer(&format!("{shown}\n"))?;
            context.say(&format!("next: fill in paths and names, then: weir check {}", self.name));
        }
        Ok(error::DONE)
    }
}

/// The line by which editors find the schema of pipeline files, where the project has it.
fn schema_line(root: &std::path::Path) -> &'static str {
    let has_schema = root.join("schemas/pipeline.schema.json").is_file();
    if has_schema { "#:schema ../../schemas/pipeline.schema.json\n" } else { "" }
}

fn unknown(role: &str, kind: &str, known: Vec<&str>) -> Stop {
    let help = format!("kinds of {role}s are: {}", known.join(", "));
    Diagnostic::error("unknown-kind", format!("there is no {role} of kind \"{kind}\"")).did_you_mean(kind, known).help(help).into()
}

/// The text of a pipeline whose sink takes what its source gives.
fn skeleton(name: &str, source: &str, sink: &str, schema: &str) -> String {
    let step = step_name(source, "source").unwrap_or_else(|| "rows".to_owned());
    let mut sink = sink.trim().to_owned();
    let old = step_name(&sink, "sink");
    // Names are unique in a pipeline.
    if let Some(old) = old.filter(|old| *old == step) {
        sink = sink.replace(&format!("[sink.{old}"), &format!("[sink.{old}_out"));
    }
    let sink: Vec<String> = sink
        .lines()
        .map(|line| match line.split_once('=') {
            Some((key, rest)) if key.trim() == "from" => {
                let comment = rest.find('#').map(|at| format!("  {}", &rest[at..])).unwrap_or_default();
                format!("from = \"{step}\"{comment}")
            }
            _ => line.to_owned(),
        })
        .collect();
    format!("{schema}weir = 1\nname = \"{name}\"\ndescription = \"What {name} is for\"\n\n{}\n\n{}\n", source.trim(), sink.join("\n"))
}

/// The name of the first step of a role in a TOML text.
fn step_name(text: &str, role: &str) -> Option<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    match table.get_ref().get(role)?.get_ref() {
        DeValue::Table(steps) => steps.iter().next().map(|(name, _)| name.get_ref().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use weir_pipelines::SourceFile;

    use super::*;

    #[test]
    fn the_sink_takes_what_the_source_gives() {
        let text = skeleton(
            "visits",
            "[source.flights]\n[source.flights.file]\npath = \"x.csv\"\n",
            "[sink.flights]\nfrom = \"latest\"   # a step\nmode = \"append\"\n[sink.flights.lake]\ntable = \"a.b\"\n",
            "#:schema ../../schemas/pipeline.schema.json\n",
        );
        assert_eq!(
            text,
            "#:schema ../../schemas/pipeline.schema.json\nweir = 1\nname = \"visits\"\ndescription = \"What visits is for\"\n\n\
             [source.flights]\n[source.flights.file]\npath = \"x.csv\"\n\n\
             [sink.flights_out]\nfrom = \"flights\"  # a step\nmode = \"append\"\n[sink.flights_out.lake]\ntable = \"a.b\"\n"
        );
    }

    #[test]
    fn every_pair_of_kinds_makes_a_pipeline_that_parses() {
        for source in SOURCES {
            for sink in SINKS {
                let text = skeleton("visits", source.example, sink.example, "");
                // Examples name connections as they please; a skeleton's author names theirs.
                let mut connections: Vec<String> = text
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix("connection")?.trim_start().strip_prefix('=').map(str::trim))
                    .filter_map(|value| value.strip_prefix('"')?.split('"').next().map(str::to_owned))
                    .collect();
                connections.dedup();
                let connections: Vec<&str> = connections.iter().map(String::as_str).collect();
                let vocabulary = weir_connectors::vocabulary(&connections, &[]);
                let parsed = weir_pipelines::parse(SourceFile::new("p.toml", &*text), PathBuf::from("."), &[], vocabulary);
                let pipeline = parsed.unwrap_or_else(|wrong| {
                    panic!("{}\n{text}", crate::render::error::render_diagnostics(&wrong, crate::render::Style::PLAIN))
                });
                assert_eq!(pipeline.sinks[0].from.value, pipeline.sources[0].name.value);
            }
        }
    }
}
