//! What some steps make of given rows: the part of a pipeline they need, planned and executed as a run would, with no destination touched,
//! nothing staged and no state written. For tests, and for the search of a small input that still fails.

use std::{collections::HashMap, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{error::Result as DfResult, logical_expr::LogicalPlan, physical_plan::execute_stream};
use futures::StreamExt;
use tokio::task::JoinSet;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_connectors::{Purpose, RunContext};
use weir_pipelines::{Diagnostic, Diagnostics, OnInvalid, Pipeline, Spanned};

use crate::{
    contracts::Contracts,
    error::{Failure, Result, RunError},
    expect::{self, Kept},
    plan::{self, Dataflow, Draft, Frugality, Inputs, PlannedStep, Replaced},
    run::{explain_step, reader, unmet},
    share,
    step::{Input, Reader, Role, Step},
};

/// Rows of one step that are held in memory at most.
pub const ROWS_MAX: usize = 100_000;

/// What is judged once all rows have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge<'a> {
    /// Nothing: rows that break a contract are counted, however many they are, and expectations are not asked.
    Nothing,
    /// Nothing, and rows that break a contract are counted and not kept.
    Counts,
    /// As in a run: `max_invalid`, and these expectations.
    Run(Expectations<'a>),
}

/// The expectations that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectations<'a> {
    /// None.
    None,
    /// All on the steps concerned.
    All,
    /// The one with this name.
    Named(&'a str),
}

/// What becomes of the rows that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// They are drawn and thrown away.
    Nothing,
    /// All are kept; more than memory should hold is a failure.
    All,
    /// The first so many are kept, and no more are drawn.
    First(usize),
    /// All are kept, on disk.
    Spilled,
}

/// One trial.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The pipeline, whole.
    pub pipeline: &'a Pipeline,
    /// What the steps share.
    pub context: Arc<RunContext>,
    /// Rows by step.
    pub given: Replaced,
    /// The steps whose rows are asked for.
    pub targets: Vec<String>,
    /// What becomes of the targets' rows.
    pub keeps: Keeps,
    /// What is judged.
    pub judge: Judge<'a>,
    /// How hard to try to stay within memory.
    pub frugality: Frugality,
    /// Contracts that have been compiled.
    pub contracts: Arc<Contracts>,
}

/// What came of a trial.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The targets' rows, where they are kept.
    pub rows: HashMap<String, (SchemaRef, Vec<RecordBatch>)>,
    /// The targets' rows, where they are kept on disk, each with the plan they came from; none for rows that were given.
    pub spilled: HashMap<String, (Spilled, Option<LogicalPlan>)>,
    /// What each step rejected, as the quarantine shows it.
    pub rejects: HashMap<String, Vec<RecordBatch>>,
    /// How many rows each step rejected.
    pub rejected: HashMap<String, u64>,
    /// How it failed.
    pub failed: Option<Failed>,
}

/// How a trial failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The error, as a run would tell it.
    pub error: RunError,
    /// The expectation that did not hold.
    pub expectation: Option<String>,
}

/// The steps a run executes for its destinations and its expectations.
pub fn executed(pipeline: &Pipeline) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let sinks = pipeline.sinks.iter().map(|sink| &sink.from.value);
    let asked = pipeline.expectations.iter().flat_map(|expectation| &expectation.reads).map(|read| &read.value);
    for name in sinks.chain(asked) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The part of a pipeline that some steps need, where some have their rows given. Also the sources that are needed and not given, each with
/// the step that reads it.
pub fn part(pipeline: &Pipeline, targets: &[String], given: impl Fn(&str) -> bool) -> (Pipeline, Vec<(String, String)>) {
    let mut needed: Vec<(String, String)> = targets.iter().map(|name| (name.clone(), name.clone())).collect();
    let mut at = 0;
    while at < needed.len() {
        let (name, _) = needed[at].clone();
        at += 1;
        if given(&name) {
            continue;
        }
        let inputs = pipeline.transforms.iter().filter(|transform| transform.name.value == name).flat_map(|transform| &transform.inputs);
        for Spanned { value: input, .. } in inputs {
            if !needed.iter().any(|(known, _)| known == input) {
                needed.push((input.clone(), name.clone()));
            }
        }
    }
    let is_needed = |name: &str| needed.iter().any(|(known, _)| known == name);
    let mut part = pipeline.clone();
    part.sources.retain(|source| is_needed(&source.name.value));
    part.transforms.retain(|transform| is_needed(&transform.name.value));
    part.sinks.clear();
    part.tests.clear();
    part.expectations.retain(|expectation| expectation.reads.iter().all(|read| is_needed(&read.value)));
    let missing =
        needed.into_iter().filter(|(name, _)| !given(name) && part.sources.iter().any(|source| source.name.value == *name)).collect();
    (part, missing)
}

impl Trial<'_> {
    /// The part of the pipeline that is planned, with what is judged of it.
    pub(crate) fn prepared(&self) -> Pipeline {
        let (mut part, _) = part(self.pipeline, &self.targets, |name| self.given.contains_key(name));
        match self.judge {
            Judge::Nothing | Judge::Counts => {
                let rules = part.sources.iter_mut().map(|source| &mut source.rules);
                for rules in rules.chain(part.transforms.iter_mut().map(|transform| &mut transform.rules)) {
                    rules.max_invalid = None;
                    if self.judge == Judge::Counts {
                        rules.on_invalid = OnInvalid::Drop;
                    } else if rules.on_invalid == OnInvalid::Drop {
                        rules.on_invalid = OnInvalid::Quarantine;
                    }
                }
                part.expectations.clear();
            }
            Judge::Run(asked) => part.expectations.retain(|expectation| {
                self.targets.contains(&expectation.on.value)
                    && match asked {
                        Expectations::None => false,
                        Expectations::All => expectation.stops,
                        Expectations::Named(name) => expectation.name == name,
                    }
            }),
        }
        part
    }

    /// Plans as much of it as can be, and executes nothing.
    pub async fn draft(&self) -> Draft {
        let inputs = Inputs { replaced: self.given.clone(), contracts: self.contracts.clone(), ..Inputs::default() };
        plan::draft(&self.prepared(), &self.context, Purpose::Plan, self.frugality, &inputs).await
    }

    /// Executes it. Fails only with what is wrong with the files, and when it is interrupted; how the rows fail is part of the outcome.
    pub async fn run(self) -> Result<Outcome> {
        let part = self.prepared();
        let inputs = Inputs { replaced: self.given.clone(), contracts: self.contracts.clone(), ..Inputs::default() };
        let flow = plan::plan(&part, &self.context, Purpose::Run, self.frugality, &inputs).await?;
        let mut outcome = Outcome::default();
        match self.execute(&part, &flow, &mut outcome).await {
            Ok(()) => {}
            Err((Failure::Error(error), expectation)) => outcome.failed = Some(Failed { error: *error, expectation }),
            Err((failure, _)) => return Err(failure),
        }
        for planned in &flow.steps {
            outcome.rejected.insert(planned.step.name.clone(), planned.desk.rejected());
            if let Some((_, mut stream)) = planned.desk.take()? {
                let mut batches = Vec::new();
                while let Some(batch) = stream.next().await {
                    batches.push(batch.map_err(|error| explain_step(&error))?);
                }
                outcome.rejects.insert(planned.step.name.clone(), batches);
            }
        }
        Ok(outcome)
    }

    async fn execute(&self, part: &Pipeline, flow: &Dataflow, outcome: &mut Outcome) -> Result<(), (Failure, Option<String>)> {
        let plain = |failure: Failure| (failure, None);
        let mut readers: Vec<(Arc<Step>, Arc<Reader>, Task)> = Vec::new();
        for target in &self.targets {
            let Some(planned) = flow.steps.iter().find(|planned| planned.step.name == *target) else { continue };
            planned.step.announce_reader();
            let task = match self.keeps {
                Keeps::Nothing => Task::Drain,
                Keeps::All => Task::Collect(None),
                Keeps::First(most) => Task::Collect(Some(most)),
                Keeps::Spilled => Task::Spill,
            };
            readers.push((planned.step.clone(), Arc::default(), task));
        }
        readers.extend(flow.checks.taps.iter().map(|tap| (tap.step.clone(), tap.taken.clone(), Task::Keep)));
        let mut plans = Vec::new();
        for (step, taken, _) in &readers {
            plans.push(reader(flow, step, taken).await.map_err(|error| plain(explain_step(&error)))?);
        }
        plans.iter().for_each(share::arm);
        let tasks = flow.session.task_ctx();
        let mut work: JoinSet<DfResult<Done>> = JoinSet::new();
        for ((step, _, task), plan) in readers.into_iter().zip(plans) {
            let (tasks, context) = (tasks.clone(), self.context.clone());
            work.spawn(async move {
                let mut rows = execute_stream(plan, tasks)?;
                match task {
                    Task::Keep => expect::keep(&step, rows, &context).await.map(Done::Kept),
                    Task::Drain => {
                        while let Some(batch) = rows.next().await {
                            batch?;
                        }
                        Ok(Done::Drained)
                    }
                    Task::Spill => {
                        let mut writer = SpillWriter::create(&context.runtime, &step.schema, "the rows of a step")?;
                        while let Some(batch) = rows.next().await {
                            writer.write(&batch?)?;
                        }
                        Ok(Done::Spilled(step, writer.finish()?))
                    }
                    Task::Collect(most) => {
                        let (mut batches, mut count) = (Vec::new(), 0);
                        while let Some(batch) = rows.next().await {
                            let mut batch = batch?;
                            if let Some(most) = most {
                                batch = batch.slice(0, batch.num_rows().min(most - count));
                            }
                            count += batch.num_rows();
                            if count > ROWS_MAX {
                                return Ok(Done::TooMany(step));
                            }
                            batches.push(batch);
                            if most == Some(count) {
                                break;
                            }
                        }
                        Ok(Done::Rows(step, batches))
                    }
                }
            });
        }
        let mut kept: Vec<Kept> = Vec::new();
        let mut failure: Option<Failure> = None;
        loop {
            let ended = tokio::select! {
                biased;
                () = self.context.cancel.cancelled(), if failure.is_none() => {
                    failure = Some(Failure::Interrupted);
                    work.abort_all();
                    continue;
                }
                ended = work.join_next() => ended,
            };
            let failed = match ended {
                None => break,
                Some(Ok(Ok(Done::Drained))) => None,
                Some(Ok(Ok(Done::Kept(rows)))) => {
                    kept.push(rows);
                    None
                }
                Some(Ok(Ok(Done::Rows(step, batches)))) => {
                    outcome.rows.insert(step.name.clone(), (step.schema.clone(), batches));
                    None
                }
                Some(Ok(Ok(Done::Spilled(step, rows)))) => {
                    let plan = match &step.input {
                        Input::Plan(plan) => Some(plan.clone()),
                        Input::Provider(_) => None,
                    };
                    outcome.spilled.insert(step.name.clone(), (rows, plan));
                    None
                }
                Some(Ok(Ok(Done::TooMany(step)))) => Some(
                    Failure::error("test-too-large", format!("it has more than {ROWS_MAX} rows"))
                        .in_step(&step.name)
                        .help("give fewer rows, or expect those of a step that groups or filters them"),
                ),
                Some(Ok(Err(error))) => Some(explain_step(&error)),
                Some(Err(ended)) if ended.is_panic() => {
                    Some(Failure::error("panic", "a task of the run panicked").blame(weir_connectors::Blame::Weir))
                }
                Some(Err(_)) => None,
            };
            if let Some(failed) = failed {
                // What comes after the first failure follows from it.
                failure.get_or_insert(failed);
                work.abort_all();
            }
        }
        if let Some(failure) = failure {
            return Err(plain(failure));
        }
        if matches!(self.judge, Judge::Nothing | Judge::Counts) {
            return Ok(());
        }
        for planned in &flow.steps {
            let verdict = planned.desk.verdict(self.rows_in(planned));
            verdict.map_err(|failure| plain(failure.in_step(&planned.step.name)))?;
        }
        // Without a history no run was before, and failing rows are kept nowhere.
        let evaluated = expect::evaluate(part, &flow.checks, &kept, &flow.session, &self.context, None).await.map_err(plain)?;
        let Some(failure) = unmet(&evaluated, &self.context.run) else { return Ok(()) };
        let failed = evaluated.outcomes.iter().find(|outcome| outcome.outcome == "failed");
        Err((failure, failed.map(|outcome| outcome.name.clone())))
    }

    fn rows_in(&self, planned: &PlannedStep) -> u64 {
        match (self.given.contains_key(&planned.step.name), planned.step.role) {
            (true, _) => planned.step.rows_out.load(std::sync::atomic::Ordering::Relaxed) + planned.desk.rejected(),
            (false, Role::Source) => planned.read.as_ref().map_or(0, |read| read.rows()),
            (false, Role::Transform) => {
                planned.taken.iter().map(|(_, reader)| reader.rows.load(std::sync::atomic::Ordering::Relaxed)).sum()
            }
        }
    }
}

enum Task {
    Drain,
    Collect(Option<usize>),
    Spill,
    Keep,
}

enum Done {
    Drained,
    Rows(Arc<Step>, Vec<RecordBatch>),
    Spilled(Arc<Step>, Spilled),
    Kept(Kept),
    TooMany(Arc<Step>),
}

/// Says of each source that is needed and has no rows.
pub fn missing(pipeline: &Pipeline, missing: &[(String, String)], at: weir_pipelines::Span) -> Diagnostics {
    let missing = missing.iter().map(|(source, reader)| {
        let message = match source == reader {
            true => format!("the test gives no rows for the source \"{source}\""),
            false => format!("the test gives no rows for the source \"{source}\", which \"{reader}\" reads"),
        };
        Diagnostic::error("nothing-given", message)
            .at(&pipeline.file, at.clone(), "")
            .help(format!("add {source} = [] or its rows to [test.given]; a test reads nothing from outside"))
    });
    missing.collect()
}
