//! From a run that failed to the few rows that still fail: its sources are read again, `search` leaves out what can go, and what is left
//! becomes a test. No destination is touched, nothing is staged, no state is written.

pub(crate) mod read;
pub mod search;
pub(crate) mod written;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::DateTime;
use tokio_util::sync::CancellationToken;
use weir_connectors::RunContext;
use weir_pipelines::{Expected, Fails, Pipeline, Test};

use crate::{
    error::{Failure, Result, RunError},
    history::{History, RunRecord, RunStatus},
    interval,
    plan::{self, Frugality},
    test::{self, judge_of, targets_of},
    trial::{self, Failed, Keeps, Trial},
    workspace::Workspace,
};
use read::{Extent, read};
use search::{End, Input, Oracle, narrow, reduce, total};
use written::{given, spanned, tells_the_time};

/// The codes of failures that come from the rows alone.
const CODES: [&str; 4] = ["expectation-failed", "invalid-row", "run", "too-many-invalid"];
/// More rows than this are no test that anybody reads.
pub(crate) const ROWS_MAX: u64 = 200;
/// Inputs of fewer rows are executed in one stream: several cost more than they save.
const PARALLEL_ROWS_MIN: u64 = 50_000;

/// The smallest failing input that was found.
#[derive(Debug)]
pub struct Found {
    /// It as a test that passes as long as these rows fail.
    pub test: Test,
    /// What is to be said above it.
    pub remarks: Vec<String>,
    /// How it fails.
    pub error: RunError,
    /// Rows of the run's input.
    pub rows_before: u64,
    /// Rows that are left.
    pub rows: u64,
    /// How many inputs were tried.
    pub tries: u64,
    /// Whether time ran out before it was known that no row can go.
    pub end: End,
}

/// What is told on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many rows were read, and they fail as the run did.
    Read {
        /// Rows of all sources that the failing step reads.
        rows: u64,
    },
    /// Fewer rows still fail.
    Smaller {
        /// So many.
        rows: u64,
        /// Inputs tried so far.
        tries: u64,
    },
}

/// Finds few rows of a failed run's input that still fail. `time_max` bounds the search, not the first reading.
pub async fn minimise(
    workspace: &Workspace,
    history: &History,
    pipeline: &Pipeline,
    run: &RunRecord,
    time_max: Duration,
    cancel: CancellationToken,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<Found> {
    refuse(pipeline, run)?;
    let mut context = RunContext::clone(&*workspace.dry_context(&pipeline.name.value)?);
    context.cancel = cancel;
    if let Ok(started) = DateTime::parse_from_rfc3339(&run.started_at) {
        context.started_at = started.to_utc();
    }
    context.interval = interval::of_run(run);
    let code = run.code.clone().unwrap_or_else(|| "expectation-failed".to_owned());
    let recorded = Fails { code: spanned(code), step: run.step.clone().map(spanned), expectation: None };
    let (mut input, unreadable) =
        read(Extent::OfRun(history), pipeline, &targets_of(pipeline, &recorded), &Arc::new(context.clone())).await?;
    let fails = |error: &RunError, expectation: &Option<String>| Fails {
        code: spanned(error.code.to_owned()),
        step: error.step.clone().map(spanned),
        expectation: expectation.clone().map(spanned),
    };
    let mut search = Search {
        pipeline,
        context,
        cpus: workspace.cpus,
        fails: recorded,
        likeness: None,
        frugality: Frugality::Fast,
        deadline: None,
        tries: 0,
        tell,
    };
    let failed = search.first(run, &input, &unreadable).await?;
    search.fails = fails(&failed.error, &failed.expectation);
    search.likeness = Some(likeness(&failed.error));
    // Only what the failing step reads can be the reason.
    let (part, _) = trial::part(pipeline, &targets_of(pipeline, &search.fails), |_| false);
    input.retain(|name, _| part.sources.iter().any(|source| source.name.value == *name));
    let rows_before = total(&input);
    (search.tell)(Progress::Read { rows: rows_before });
    search.deadline = Some(Instant::now() + time_max);
    let runtime = search.context.runtime.clone();
    let mut end = reduce(&mut input, &mut search, &runtime).await?;
    let rows = total(&input);
    if rows > ROWS_MAX {
        return Err(Failure::error("too-large", format!("the smallest failing input that was found has {rows} of {rows_before} rows"))
            .detail(match end {
                End::OutOfTime => "the search stopped for want of time".to_owned(),
                End::Smallest => "leaving out any one of them makes the failure go away".to_owned(),
            })
            .help(match end {
                End::OutOfTime => "give it longer with --timeout".to_owned(),
                End::Smallest => format!("a test of more than {ROWS_MAX} rows is not written; the file is as it was"),
            }));
    }
    if end == End::Smallest && narrow(&mut input, &mut search, &runtime).await? == End::OutOfTime {
        end = End::OutOfTime;
    }
    let session = plan::session(runtime, 1, search.context.batch_rows, Frugality::Fast);
    let tries = search.tries;
    let mut remarks = vec![format!("The smallest input found on which run {} fails: {rows} of {rows_before} rows.", run.run)];
    remarks.push("Once the cause is mended, put the rows that are right under [test.expect] in place of \"fails\".".to_owned());
    Ok(Found {
        test: Test {
            name: spanned(name_of(pipeline, &failed)),
            span: 0..0,
            given: given(&session, pipeline, &input).await?,
            expect: Vec::new(),
            quarantine: Vec::new(),
            now: tells_the_time(pipeline).then_some(search.context.started_at),
            interval: test::interval_of(pipeline, &search.context),
            fails: Some(search.fails.clone()),
            params: pipeline.given_params(),
            made: None,
        },
        remarks,
        error: failed.error,
        rows_before,
        rows,
        tries,
        end,
    })
}

/// Refuses a run whose failure no choice of rows brings back.
fn refuse(pipeline: &Pipeline, run: &RunRecord) -> Result<()> {
    if run.status != RunStatus::Failed {
        return Err(Failure::error(
            "not-failed",
            format!("run {} is {}; only a failed run has a failing input", run.run, run.status.as_str()),
        )
        .help("see the runs with: weir runs list"));
    }
    let why = run.error.clone().unwrap_or_default();
    if let Some(sink) = run.step.as_ref().and_then(|step| pipeline.sinks.iter().find(|sink| sink.name.value == *step)) {
        return Err(Failure::error(
            "not-minimisable",
            format!("run {} failed in the sink \"{}\", and a test has no sinks", run.run, sink.name.value),
        )
        .detail(why)
        .help(format!(
            "an [[expect]] on \"{}\" can say what the destination refuses, such as unique = [\"id\"]; that can be minimised",
            sink.from.value
        )));
    }
    if let Some(code) = run.code.as_deref().filter(|code| !CODES.contains(code)) {
        return Err(Failure::error(
            "not-minimisable",
            format!("run {} failed with \"{code}\", which does not come from its rows alone", run.run),
        )
        .detail(why)
        .help(format!("what can be minimised: {}", CODES.join(", "))));
    }
    let is_step = |step: &String| {
        pipeline
            .sources
            .iter()
            .map(|source| &source.name)
            .chain(pipeline.transforms.iter().map(|transform| &transform.name))
            .any(|name| name.value == *step)
    };
    match run.step.as_ref().filter(|step| !is_step(step)) {
        Some(step) => {
            Err(Failure::error("unknown-step", format!("run {} failed in \"{step}\", which the pipeline no longer has", run.run))
                .help("run the pipeline again, and minimise that run"))
        }
        None => Ok(()),
    }
}

struct Search<'a> {
    pipeline: &'a Pipeline,
    context: RunContext,
    cpus: usize,
    fails: Fails,
    likeness: Option<String>,
    frugality: Frugality,
    deadline: Option<Instant>,
    tries: u64,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

impl Search<'_> {
    async fn attempt(&mut self, input: &Input) -> Result<Option<Failed>> {
        self.tries += 1;
        let context = RunContext { partitions: if total(input) < PARALLEL_ROWS_MIN { 1 } else { self.cpus }, ..self.context.clone() };
        let trial = Trial {
            pipeline: self.pipeline,
            context: Arc::new(context),
            given: search::tables(input),
            targets: targets_of(self.pipeline, &self.fails),
            keeps: Keeps::Nothing,
            judge: judge_of(&self.fails),
            frugality: self.frugality,
            contracts: Arc::default(),
        };
        Ok(trial.run().await?.failed)
    }

    /// The whole input: it has to fail as the run did.
    async fn first(&mut self, run: &RunRecord, input: &Input, unreadable: &BTreeMap<String, u64>) -> Result<Failed> {
        let mut failed = self.attempt(input).await?;
        if failed.as_ref().is_some_and(|failed| failed.error.code == "memory-limit") {
            self.frugality = Frugality::Frugal;
            failed = self.attempt(input).await?;
        }
        let before = || run.error.clone().unwrap_or_default();
        let alike = |failed: &Failed| match &run.code {
            Some(code) => *code == failed.error.code && run.step == failed.error.step,
            None => run.error.as_deref().is_some_and(|error| likeness_of(error) == likeness_of(&failed.error.to_string())),
        };
        match failed {
            Some(failed) if alike(&failed) => Ok(failed),
            Some(failed) => {
                Err(Failure::error("fails-otherwise", format!("the input of run {} fails otherwise now: {}", run.run, failed.error))
                    .detail(format!("the run failed with: {}", before()))
                    .help("run the pipeline again, and minimise that run"))
            }
            None => {
                let compares = pipeline_compares(self.pipeline, run);
                if let Some(name) = compares {
                    return Err(Failure::error(
                        "not-minimisable",
                        format!("run {} failed by \"{name}\", which compares with earlier runs, and a test has none", run.run),
                    )
                    .detail(before()));
                }
                let broken = run.step.as_ref().and_then(|step| Some((step, *unreadable.get(step)?))).filter(|(_, count)| *count > 0);
                Err(match broken {
                    Some((step, count)) => Failure::error(
                        "not-minimisable",
                        format!(
                            "run {} failed by {count} row{} that \"{step}\" cannot read at all, and a test cannot say what is no row",
                            run.run,
                            if count == 1 { "" } else { "s" }
                        ),
                    )
                    .detail(before())
                    .help("put such lines into a file and test that: [test.given] with a step's { file = \"…\" }, and fails or [test.quarantine]"),
                    None => Failure::error("no-longer-fails", format!("the input of run {} does not fail any more", run.run))
                        .detail(format!("the run failed with: {}", before()))
                        .help("its sources, or the pipeline, have changed since; run it again"),
                })
            }
        }
    }
}

impl Oracle for Search<'_> {
    async fn fails(&mut self, input: &Input) -> Result<Option<bool>> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        let failed = match self.attempt(input).await {
            Ok(failed) => failed,
            // Without some column the SQL does not plan.
            Err(Failure::Diagnostics(_)) => return Ok(Some(false)),
            Err(failure) => return Err(failure),
        };
        Ok(Some(failed.is_some_and(|failed| {
            failed.error.code == self.fails.code.value
                && failed.error.step.as_ref() == self.fails.step.as_ref().map(|step| &step.value)
                && failed.expectation.as_ref() == self.fails.expectation.as_ref().map(|name| &name.value)
                && (failed.error.code != "run" || Some(likeness(&failed.error)) == self.likeness)
        })))
    }

    fn smaller(&mut self, rows: u64) {
        (self.tell)(Progress::Smaller { rows, tries: self.tries });
    }
}

/// The expectation by which a run failed, where it holds a value against those of earlier runs.
fn pipeline_compares<'a>(pipeline: &'a Pipeline, run: &RunRecord) -> Option<&'a str> {
    let error = run.error.as_deref()?;
    let of_runs = pipeline.expectations.iter().filter(|expectation| matches!(expectation.expected, Expected::Change { .. }));
    of_runs.map(|expectation| expectation.name.as_str()).find(|name| error.contains(&format!("\"{name}\" does not hold")))
}

/// What stays of a message when the values in it change: two errors of one cause say the same but for them.
fn likeness(error: &RunError) -> String {
    likeness_of(&error.message)
}

fn likeness_of(message: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for letter in message.chars() {
        match letter {
            '"' | '\'' => quoted = !quoted,
            digit if digit.is_ascii_digit() => {}
            other if !quoted => out.push(other),
            _ => {}
        }
    }
    out
}

/// A name that no test of the pipeline has.
fn name_of(pipeline: &Pipeline, failed: &Failed) -> String {
    let name = match (&failed.expectation, &failed.error.step) {
        (Some(expectation), _) => format!("smallest input on which \"{expectation}\" does not hold"),
        (None, Some(step)) => format!("smallest input that fails in \"{step}\" ({})", failed.error.code),
        (None, None) => format!("smallest input that fails ({})", failed.error.code),
    };
    written::free_name(pipeline, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_cause_are_alike_whatever_the_values() {
        assert_eq!(
            likeness_of("cannot cast string 'abc' to value of Int64 type"),
            likeness_of("cannot cast string 'x9' to value of Int64 type")
        );
        assert_ne!(likeness_of("divide by zero"), likeness_of("arithmetic overflow"));
    }
}
