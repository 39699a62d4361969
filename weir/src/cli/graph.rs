//! `weir graph`: a pipeline's steps and what reads what, drawn. How a drawing looks: `render/graph.rs`.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::json;

use super::context::{Answer, Context, Set};
use crate::{
    project::{self, Found},
    render::{error, graph},
};

const EXAMPLES: &str = "\
Examples:
  weir graph flights                     on the terminal
  weir graph flights > flights.mmd       Mermaid, which GitHub shows in Markdown
  weir graph flights -f svg > flights.svg
  weir graph flights -f dot | dot -Tpdf > flights.pdf
  weir graph flights --json | jq '.edges[]'";

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lanes and names, for terminals
    Lanes,
    /// Mermaid, for Markdown
    Mermaid,
    /// DOT, for Graphviz
    Dot,
    /// An image
    Svg,
}

/// Draw a pipeline: its steps, and what reads what
///
/// Reads the pipeline's file and nothing else: no source, no destination, no contract.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Graph {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    /// How it is drawn [default: lanes on a terminal, else mermaid]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    set: Set,
}

impl Graph {
    /// Draws.
    pub fn answer(self, context: &Context) -> Answer {
        let workspace = context.workspace(Some(&self.pipeline))?;
        let found = project::find_pipelines(&self.pipeline, &workspace.project.root, &context.folder)?;
        // The rows of a matrix have the same steps: without a row the drawing is of the file.
        let found = match found.as_slice() {
            [one] => one.clone(),
            several => Found { row: None, ..several[0].clone() },
        };
        let pipeline = context.parse(&workspace.project, &found, &self.set)?;
        context.warn(&pipeline.warnings);
        let drawn = graph::Graph::of(&pipeline);
        if context.global.json {
            let step = |at: usize| drawn.nodes[at].step.as_str();
            let edges: Vec<_> = drawn.edges().map(|(from, to)| json!({ "from": step(from), "to": step(to) })).collect();
            context.answer_json(&json!({ "pipeline": pipeline.name.value, "steps": drawn.nodes, "edges": edges }))?;
            return Ok(error::DONE);
        }
        let default = if io::stdout().is_terminal() { Format::Lanes } else { Format::Mermaid };
        context.answer(&match self.format.unwrap_or(default) {
            Format::Lanes => graph::lanes(&drawn, context.out),
            Format::Mermaid => graph::mermaid(&drawn),
            Format::Dot => graph::dot(&pipeline.name.value, &drawn),
            Format::Svg => graph::svg(&pipeline.name.value, &drawn),
        })?;
        Ok(error::DONE)
    }
}
