//! What `weir check` and `weir plan` answer: every step's schema and plan, what each destination would gain, and every mistake at once.

use serde::Serialize;
use weir_connectors::{Change, Purpose};
use weir_pipelines::{Diagnostic, Pipeline};
use weir_schemas::prove::Held;

use arrow::datatypes::SchemaRef;

use crate::{
    agree,
    error::{Failure, Result},
    plan::{self, Frugality, Inputs},
    proof::StepContract,
    step::Input,
    workspace::Workspace,
};

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Files only: pipelines, contracts, headers of inputs.
    Files,
    /// Destinations are asked what would change there.
    Destinations,
}

/// A pipeline that would run.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Its name.
    pub pipeline: String,
    /// Sources, then transforms in dependency order.
    pub steps: Vec<CheckedStep>,
    /// Sinks, as written.
    pub sinks: Vec<CheckedSink>,
    /// What is worth a word though it is no error.
    #[serde(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// A source or transform that would run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedStep {
    /// Its name.
    pub step: String,
    /// `source` or `transform`.
    pub role: String,
    /// `file`, `sql`, …
    pub kind: String,
    /// The steps it reads.
    pub reads: Vec<String>,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its contract, and what of it can never fail; none without one.
    pub contract: Option<CheckedContract>,
    /// How many scans read it; with more than one it is computed once and shared.
    pub readers: usize,
    /// DataFusion's logical plan, indented; empty for a source.
    pub plan: String,
}

/// A contract, reasoned about before the run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedContract {
    /// Its path, as the pipeline names it.
    pub path: String,
    /// How many rules it has.
    pub rules: usize,
    /// Those that can never fail and are not executed.
    pub proved: Vec<ProvedRule>,
}

/// A rule that can never fail.
#[derive(Debug, Clone, Serialize)]
pub struct ProvedRule {
    /// The JSON pointer to it in the contract.
    pub rule: String,
    /// The column it is about; none for a rule about whole rows.
    pub column: Option<String>,
    /// The steps whose contracts have made sure of it; empty where the types of the step's columns are enough.
    pub by: Vec<String>,
}

impl From<&StepContract> for CheckedContract {
    fn from(contract: &StepContract) -> Self {
        let proved = contract.held.iter().cloned().map(|Held { rule, column, by }| ProvedRule { rule, column, by });
        Self { path: contract.contract.path().to_owned(), rules: contract.rules, proved: proved.collect() }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    pub r#type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// A sink that would run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedSink {
    /// Its name.
    pub step: String,
    /// Its kind.
    pub kind: String,
    /// The step it reads.
    pub from: String,
    /// How rows meet what is there.
    pub mode: String,
    /// What would change; only with [`Depth::Destinations`].
    pub change: Option<Change>,
}

/// A schema's columns.
pub fn columns(schema: &SchemaRef) -> Vec<Column> {
    let column = |field: &arrow::datatypes::FieldRef| Column {
        name: field.name().clone(),
        r#type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// Checks a pipeline without running it. Fails with every diagnostic at once.
pub async fn check(workspace: &Workspace, pipeline: &Pipeline, depth: Depth) -> Result<Checked> {
    let context = workspace.dry_context(&pipeline.name.value)?;
    let flow = plan::plan(pipeline, &context, Purpose::Plan, Frugality::Fast, &Inputs::default()).await?;
    let mut wrong = Vec::new();
    let mut warnings = pipeline.warnings.clone();
    warnings.extend(flow.steps.iter().flat_map(|planned| &planned.contract).flat_map(|contract| contract.doubts.clone()));
    let mut sinks = Vec::new();
    for sink in &flow.sinks {
        let found = sink.sink.check(&sink.from.schema, &sink.context).err().unwrap_or_default();
        let doubtful = !found.is_empty();
        wrong.extend(found.iter().map(|error| sink.pointed(error)));
        let change = match depth {
            Depth::Destinations if doubtful => None,
            Depth::Files => None,
            Depth::Destinations => match sink.sink.plan(&sink.from.schema, &sink.context).await {
                Ok(change) => {
                    let from = flow.steps.iter().find(|planned| planned.step.name == sink.from.name);
                    warnings.extend(from.into_iter().flat_map(|from| agree::nulls_of_table(sink, &change, from)));
                    Some(change)
                }
                Err(error) => {
                    wrong.push(sink.pointed(&error));
                    None
                }
            },
        };
        sinks.push(CheckedSink {
            step: sink.name.clone(),
            kind: sink.kind.clone(),
            from: sink.from.name.clone(),
            mode: sink.context.mode.as_str().to_owned(),
            change,
        });
    }
    if !wrong.is_empty() {
        return Err(Failure::Diagnostics(wrong));
    }
    let steps = flow.steps.iter().map(|planned| CheckedStep {
        step: planned.step.name.clone(),
        role: planned.step.role.as_str().to_owned(),
        kind: planned.step.kind.clone(),
        reads: planned.taken.iter().map(|(name, _)| name.clone()).collect(),
        columns: columns(&planned.step.schema),
        contract: planned.contract.as_deref().map(CheckedContract::from),
        readers: planned.step.readers(),
        plan: match &planned.step.input {
            Input::Provider(_) => String::new(),
            Input::Plan(plan) => plan.display_indent().to_string(),
        },
    });
    Ok(Checked { pipeline: pipeline.name.value.clone(), steps: steps.collect(), sinks, warnings })
}
