//! What `weir check` and `weir plan` answer: every step's schema and plan, what each destination would gain, and every mistake at once.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use serde::Serialize;
use weir_connectors::{Blame, Change, Purpose};
use weir_pipelines::{Diagnostic, Diagnostics, Mode, Partial, Severity, Source, SourceFile, Span};
use weir_schemas::prove::Held;

use crate::{
    agree,
    changes::Changes,
    definition::{Definition, Published},
    drift::{self, Drift},
    error::{Failure, Result},
    history::History,
    known::Known,
    needs::Needs,
    plan::{self, Dataflow, Draft, Frugality, Inputs, Outside, PlannedSink, PlannedStep},
    proof::StepContract,
    step::Input,
    test,
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
    /// What has changed since it was published last; only with [`Depth::Destinations`].
    #[serde(skip)]
    pub changes: Option<Changes>,
    /// What it reads and uses; only with [`Depth::Destinations`].
    #[serde(skip)]
    pub needs: Option<Needs>,
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
    /// What changed in its columns since the last published run; sources only.
    pub drift: Vec<Drift>,
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

/// What a check of one pipeline came to.
#[derive(Debug)]
pub struct Outcome {
    /// The pipeline as it would run; none where something stands in its way.
    pub checked: Option<Checked>,
    /// All that is wrong with its files, and what is worth a word, in source order.
    pub diagnostics: Diagnostics,
    /// What its sinks write.
    pub destinations: Vec<Written>,
    /// Failures of systems outside: each is among the diagnostics too, at the place where the file names the system.
    pub outside: Vec<Failure>,
}

/// What a sink writes.
#[derive(Debug, Clone)]
pub struct Written {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's kind.
    pub kind: String,
    /// The destination, in words.
    pub destination: String,
    /// Whether its rows take the place of all that was there.
    pub replaces: bool,
    /// The columns of the rows that it takes.
    pub columns: SchemaRef,
    /// The file that says so.
    pub file: Arc<SourceFile>,
    /// Where.
    pub place: Span,
}

/// Checks the pipelines of a project. What they share is opened once.
#[derive(Debug)]
pub struct Checker {
    /// The project.
    pub workspace: Workspace,
    history: Option<History>,
    /// Connections whose settings are wrong, which is told elsewhere: what they would say is not asked.
    pub unusable: Vec<String>,
    /// Codes of errors that only follow from others, which are told elsewhere.
    pub follow_on: Vec<&'static str>,
    /// No system outside is asked: what is known of it from before stands in its place.
    pub offline: bool,
    /// That the state cannot be reached, where it is on a server.
    pub doubts: Diagnostics,
}

impl Checker {
    /// Opens what checks share. Writes nothing. With `offline` no system outside is asked, a state on a server among them.
    pub async fn new(workspace: Workspace, offline: bool) -> Result<Self> {
        let mut doubts = Diagnostics::new();
        let is_outside = workspace.project.state.is_some();
        let history = if is_outside && offline { Ok(None) } else { workspace.existing_history().await };
        let history = match history {
            // Files can be checked all the same.
            Err(failure) if is_outside => {
                let message = format!("the state cannot be asked what sources remember: {}", failure.sentence());
                doubts.push(Diagnostic::warning("state-unreachable", message).help("the check goes on as if nothing had run yet"));
                None
            }
            history => history?,
        };
        Ok(Self { workspace, history, unusable: Vec::new(), follow_on: Vec::new(), offline, doubts })
    }

    /// Checks a pipeline, as far as it could be read, without running it. Fails where the state of the project cannot be read.
    pub async fn check(&self, partial: Partial, depth: Depth) -> Result<Outcome> {
        let is_whole = partial.is_whole();
        let Partial { mut pipeline, found } = partial;
        if !self.unusable.is_empty() {
            let is_usable = |source: &Source| source.settings.text("connection").is_none_or(|name| !self.unusable.contains(&name));
            pipeline.sources.retain(is_usable);
        }
        let context = self.workspace.dry_context(&pipeline.name.value)?;
        let seen = match &self.history {
            Some(history) if depth == Depth::Destinations => history.all_cursors(&pipeline).await?,
            Some(history) => drift::remembered(history, &pipeline).await?,
            None => HashMap::new(),
        };
        let known = Known::of(&self.workspace, &pipeline.name.value, self.offline);
        let inputs = Inputs { seen, contracts: self.workspace.contracts.clone(), known: Some(known.clone()), ..Inputs::default() };
        let Draft { flow, wrong, mut outside } = plan::draft(&pipeline, &context, Purpose::Plan, Frugality::Fast, &inputs).await;
        let mut all = found;
        // Of sinks that could not be read, some may take part.
        all.extend(wrong.into_iter().filter(|one| is_whole || one.code != "no-sink"));
        all.extend(flow.steps.iter().flat_map(|planned| &planned.contract).flat_map(|contract| contract.doubts.clone()));
        all.extend(flow.steps.iter().flat_map(|planned| planned.doubts.clone()));
        let destinations = flow.sinks.iter().map(|sink| written(sink, &pipeline.name.value)).collect();
        let mut sinks = Vec::new();
        for sink in &flow.sinks {
            sinks.push(checked_sink(sink, &flow, depth, &known, &mut all, &mut outside).await);
        }
        if depth == Depth::Files {
            let schedule = pipeline.schedule.iter();
            all.extend(schedule.flat_map(|schedule| schedule.odd_days(&pipeline.file, context.started_at.date_naive())));
            let (wrong, of_tests) = test::check::check(&pipeline, &flow.steps, &context, &inputs, &all, is_whole).await;
            all.extend(wrong);
            outside.extend(of_tests);
        }
        let (mut changes, mut needs) = (None, None);
        if depth == Depth::Destinations {
            if let Err(error) = known.keep_sources(&pipeline, &flow.steps) {
                all.push(Diagnostic::warning("state", known.unkept(&error)));
            }
            let contracts = &self.workspace.contracts;
            let published = Published::of(self.history.as_ref(), &pipeline).await?;
            let now = Definition::of(&pipeline, contracts, &self.workspace.project);
            changes = Some(Changes::since(&published, &pipeline, &now, &flow, contracts).await);
            needs = Some(Needs::of(&pipeline, &flow, &self.workspace.project, &context));
        }
        let mut failures = Vec::new();
        for Outside { failure, place } in outside {
            failures.push(failure.clone());
            all.extend(failure.into_diagnostics(&pipeline.file, place));
        }
        all.retain(|one| !self.follow_on.contains(&one.code));
        all.sort_by_cached_key(Diagnostic::place);
        let is_right = is_whole && !all.iter().any(|one| one.severity == Severity::Error);
        let checked = is_right.then(|| Checked {
            pipeline: pipeline.name.value.clone(),
            steps: flow.steps.iter().map(checked_step).collect(),
            sinks,
            changes,
            needs,
            warnings: all.clone(),
        });
        Ok(Outcome { checked, diagnostics: all, destinations, outside: failures })
    }
}

fn checked_step(planned: &PlannedStep) -> CheckedStep {
    CheckedStep {
        step: planned.step.name.clone(),
        role: planned.step.role.as_str().to_owned(),
        kind: planned.step.kind.clone(),
        reads: planned.taken.iter().map(|(name, _)| name.clone()).collect(),
        columns: columns(&planned.step.schema),
        drift: planned.drift.clone(),
        contract: planned.contract.as_deref().map(CheckedContract::from),
        readers: planned.step.readers(),
        plan: match &planned.step.input {
            Input::Provider(_) => String::new(),
            Input::Plan(plan) => plan.display_indent().to_string(),
        },
    }
}

fn written(sink: &PlannedSink, pipeline: &str) -> Written {
    Written {
        pipeline: pipeline.to_owned(),
        kind: sink.kind.clone(),
        destination: sink.sink.destination(&sink.context),
        replaces: sink.context.mode == Mode::Replace,
        columns: sink.from.schema.clone(),
        file: sink.settings.file.clone(),
        place: sink.settings.kind.span.clone(),
    }
}

/// What is wrong where pipelines that one file makes write one destination.
pub fn shared(written: &[Written]) -> Diagnostics {
    let mut found = Diagnostics::new();
    for (at, first) in written.iter().enumerate() {
        let same = |other: &&Written| (&other.kind, &other.destination) == (&first.kind, &first.destination);
        // Two sinks of one pipeline are told with it.
        let others: Vec<&Written> = written[at + 1..].iter().filter(same).filter(|other| other.pipeline != first.pipeline).collect();
        if others.is_empty() || written[..at].iter().any(|before| same(&before)) {
            continue;
        }
        let mut names: Vec<String> = vec![format!("\"{}\"", first.pipeline)];
        for other in &others {
            let name = format!("\"{}\"", other.pipeline);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let last = names.pop().unwrap_or_default();
        let message = format!("{} and {last} all write {}", names.join(", "), first.destination);
        let message = if names.len() == 1 { message.replacen(" all write ", " both write ", 1) } else { message };
        let replaces = first.replaces || others.iter().any(|other| other.replaces);
        let diagnostic =
            if replaces { Diagnostic::error("same-destination", message) } else { Diagnostic::warning("same-destination", message) };
        let label = if replaces { "each takes the place of the others' rows" } else { "the rows of all of them" };
        let help = "give each row of the matrix a destination of its own, by a parameter: { param = \"…\" }";
        found.push(diagnostic.at(&first.file, first.place.clone(), label).help(help));
    }
    found
}

/// Holds a sink against the rows that it would take. What is wrong, and what is worth a word, goes to `all`.
async fn checked_sink(
    sink: &PlannedSink,
    flow: &Dataflow,
    depth: Depth,
    known: &Known,
    all: &mut Diagnostics,
    outside: &mut Vec<Outside>,
) -> CheckedSink {
    let found = sink.sink.check(&sink.from.schema, &sink.context).err().unwrap_or_default();
    let is_doubtful = !found.is_empty();
    all.extend(found.iter().map(|error| sink.pointed(error)));
    let from = flow.steps.iter().find(|planned| planned.step.name == sink.from.name);
    let nulls = |found: &Change| from.map(|from| agree::nulls_of_table(sink, found, from)).unwrap_or_default();
    let mut change = None;
    match depth {
        _ if is_doubtful => {}
        Depth::Destinations => {
            let planned = sink.sink.plan(&sink.from.schema, &sink.context).await;
            // One that could not be asked is not asked a second time.
            if planned.as_ref().err().is_none_or(|error| error.blame == Blame::User)
                && let Err(error) = known.keep_destination(sink).await
            {
                all.push(Diagnostic::warning("state", known.unkept(&error)));
            }
            match planned {
                Ok(found) => {
                    all.extend(nulls(&found));
                    change = Some(found);
                }
                Err(error) if error.blame == Blame::User => all.push(sink.pointed(&error)),
                Err(error) => {
                    let failure = Failure::from_connector(&error).in_step(&sink.name);
                    outside.push(Outside { failure, place: sink.settings.kind.span.clone() });
                }
            }
        }
        Depth::Files => {
            let standing = known.standing(sink);
            let by_memory = |found: Diagnostic| if standing.is_some() { known.doubtful(found) } else { found };
            match sink.sink.recall(&sink.from.schema, &sink.context, standing.as_ref()).await {
                Ok(found) => all.extend(found.iter().flat_map(nulls).map(by_memory)),
                Err(error) => all.push(by_memory(sink.pointed(&error))),
            }
        }
    }
    CheckedSink {
        step: sink.name.clone(),
        kind: sink.kind.clone(),
        from: sink.from.name.clone(),
        mode: sink.context.mode.as_str().to_owned(),
        change,
    }
}
