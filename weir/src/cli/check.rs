//! `weir check`: are the files right? No destination is asked, nothing runs.

use clap::Args;
use serde_json::json;
use weir_engine::{
    Failure, Workspace,
    check::{Checked, Depth},
};
use weir_pipelines::{Diagnostic, Diagnostics, Pipeline};

use super::context::{Answer, Context, Set, Stop};
use crate::{
    project,
    render::{diagnostic, error, number::counted},
};

const EXAMPLES: &str = "\
Examples:
  weir check                        every pipeline of the project
  weir check flights                one, by name
  weir check pipelines/flights      one, by folder or file
  weir check -v flights             with the rules of its contracts that can never fail
  weir check --json | jq '.diagnostics[].message'";

/// Check pipelines: files, SQL, types and contracts; nothing runs
///
/// Says everything that is wrong at once, with file, line and column. Reads the headers of files to learn their columns;
/// asks no destination and no network where schemas are declared. With -v it names the rules of contracts that can never fail,
/// which a run does not execute.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// Pipelines by file, folder or name [default: all of the project]
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipelines: Vec<String>,
    #[command(flatten)]
    set: Set,
}

/// What a check of several pipelines came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The pipelines that are right.
    pub checked: Vec<Checked>,
    /// Errors and warnings.
    pub diagnostics: Diagnostics,
    /// How many pipelines are wrong.
    pub wrong: u64,
}

impl Outcome {
    /// Checks one pipeline and takes note. A failure of the system outside ends the check.
    async fn add(&mut self, workspace: &Workspace, pipeline: Result<Pipeline, Diagnostics>) -> Result<(), Stop> {
        let checked = match pipeline {
            Ok(pipeline) => {
                for warning in &pipeline.warnings {
                    self.add_warning(warning);
                }
                weir_engine::check::check(workspace, &pipeline, Depth::Files).await
            }
            Err(diagnostics) => Err(Failure::Diagnostics(diagnostics)),
        };
        match checked {
            Ok(checked) => {
                for warning in &checked.warnings {
                    self.add_warning(warning);
                }
                self.checked.push(checked);
            }
            Err(Failure::Diagnostics(diagnostics)) => {
                self.wrong += 1;
                self.diagnostics.extend(diagnostics);
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    fn add_warning(&mut self, warning: &Diagnostic) {
        if !self.diagnostics.contains(warning) {
            self.diagnostics.push(warning.clone());
        }
    }
}

impl Check {
    /// Checks and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.workspace(self.pipelines.first().map(String::as_str))?;
        let mut outcome = Outcome { diagnostics: context.check_connections(&workspace.project), ..Outcome::default() };
        outcome.wrong = u64::from(!outcome.diagnostics.is_empty());
        if self.pipelines.is_empty() {
            let root = &workspace.project.root;
            let found = project::pipelines(root);
            if found.is_empty() {
                return Err(Diagnostic::error(
                    "no-pipelines",
                    format!("there are no pipelines in {} and its pipelines/ folder", root.display()),
                )
                .help("name one by its path, or make one with: weir new NAME")
                .into());
            }
            for path in found {
                let pipeline = context.parse(&workspace.project, &path, &self.set.set);
                outcome.add(&workspace, pipeline).await?;
            }
        } else {
            for argument in &self.pipelines {
                outcome.add(&workspace, context.pipeline(&workspace, argument, &self.set.set)).await?;
            }
        }
        if context.global.json {
            let diagnostics: Vec<_> = outcome.diagnostics.iter().map(diagnostic::to_json).collect();
            context.answer_json(&json!({ "pipelines": outcome.checked, "diagnostics": diagnostics }))?;
        } else {
            let text = error::render_diagnostics(&outcome.diagnostics, context.talk);
            if outcome.wrong > 0 {
                super::context::to_stderr(text.trim_end_matches('\n'));
            } else if !text.is_empty() {
                context.say(text.trim_end_matches('\n'));
            }
            if context.global.verbose > 0 {
                outcome.checked.iter().flat_map(proved).for_each(|line| context.say(&line));
            }
            for checked in &outcome.checked {
                context.answer(&format!("{}: {}\n", checked.pipeline, context.out.green(&describe(checked))))?;
            }
        }
        Ok(if outcome.wrong > 0 { error::WRONG } else { error::DONE })
    }
}

/// The rules that can never fail, contract by contract.
fn proved(checked: &Checked) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &checked.steps {
        let Some(contract) = step.contract.as_ref().filter(|contract| !contract.proved.is_empty()) else { continue };
        lines.push(format!("{}: step \"{}\": {}", checked.pipeline, step.step, super::plan::describe(contract)));
        for rule in &contract.proved {
            let by = match rule.by.as_slice() {
                [] => "the step's columns".to_owned(),
                steps => steps.join(", "),
            };
            let column = rule.column.as_ref().map(|column| format!("{column}: ")).unwrap_or_default();
            lines.push(format!("  {column}{} (held by {by})", rule.rule));
        }
    }
    lines
}

fn describe(checked: &Checked) -> String {
    let sources = checked.steps.iter().filter(|step| step.role == "source").count() as u64;
    let transforms = checked.steps.len() as u64 - sources;
    format!(
        "ok ({}, {}, {})",
        counted(sources, "source", "sources"),
        counted(transforms, "transform", "transforms"),
        counted(checked.sinks.len() as u64, "sink", "sinks"),
    )
}
