//! `[[test]]`: gives rows to steps, executes what the named steps need of the pipeline, and says what came otherwise than expected.
//! Nothing outside is touched: no source is opened, no sink is planned, no state is read or written.

pub mod check;
pub mod compare;
pub mod given;
mod query;
pub mod value;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::SchemaRef,
};
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use tokio_util::sync::CancellationToken;
use weir_connectors::{Interval, RunContext, file};
use weir_pipelines::{Diagnostic, Diagnostics, Expectation, Fails, GivenRows, Pipeline, Row, Spanned, Test};

use crate::{
    contracts::Contracts,
    error::{Failure, Result},
    now,
    plan::{self, Frugality, Replaced},
    quarantine,
    trial::{self, Expectations, Failed, Judge, Keeps, Outcome, Trial},
    workspace::Workspace,
};
use compare::Difference;
use given::Asked;

/// What a test can say of a rejected row; the quarantine's other columns are about runs.
const REJECT_COLUMNS: [&str; 6] = ["row", "code", "column", "reason", "raw", "file"];

/// What came of one test.
#[derive(Debug)]
pub struct Report {
    /// The pipeline's name.
    pub pipeline: String,
    /// The test's name.
    pub test: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// Whether a test holds.
#[derive(Debug)]
pub enum Verdict {
    /// What was expected came.
    Passed,
    /// Something else came: what, and row by row how it differs.
    Failed(Vec<(Diagnostic, Vec<Difference>)>),
    /// The test, or the pipeline, is wrong.
    Wrong(Diagnostics),
}

/// What a test's steps share: one stream, the test's own time, no state.
pub fn context(workspace: &Workspace, pipeline: &Pipeline, test: &Test, cancel: CancellationToken) -> Result<Arc<RunContext>> {
    let mut context = RunContext::clone(&*workspace.dry_context(&pipeline.name.value)?);
    context.partitions = 1;
    context.cancel = cancel;
    if let Some(now) = test.now {
        context.started_at = now;
    }
    context.interval = test.interval.as_ref().map(interval);
    Ok(Arc::new(context))
}

fn interval(written: &Spanned<(DateTime<Utc>, DateTime<Utc>)>) -> Interval {
    let (start, end) = written.value;
    Interval { start, end }
}

/// The interval that a test of a pipeline was made for, where it matters.
pub(crate) fn interval_of(pipeline: &Pipeline, context: &RunContext) -> Option<Spanned<(DateTime<Utc>, DateTime<Utc>)>> {
    let interval = context.interval.filter(|_| pipeline.reads_interval())?;
    Some(Spanned::new((interval.start, interval.end), 0..0))
}

/// Says that a test does not give the interval that its part of the pipeline reads.
pub(crate) fn without_interval(trial: &Trial<'_>, test: &Test) -> Option<Diagnostic> {
    let part = trial.prepared();
    let place = part.interval_use(|step| !trial.given.contains_key(step)).filter(|_| test.interval.is_none())?;
    Some(
        Diagnostic::error("interval-missing", format!("the test \"{}\" does not say the interval that is run", test.name.value))
            .at(&part.file, test.name.span.clone(), "")
            .at(&part.file, place, "the interval is used here")
            .help("write interval = [2026-01-31, 2026-02-01] in the test"),
    )
}

/// The session that a test's own words are planned in: one stream, and the time that it sets.
pub(crate) fn session(context: &RunContext) -> SessionContext {
    let session = plan::session(context.runtime.clone(), 1, context.batch_rows, Frugality::Fast);
    now::fix(&session, context.started_at);
    session
}

/// Runs one test. Fails only when it is interrupted, or the system around it fails.
pub async fn run(workspace: &Workspace, pipeline: &Pipeline, test: &Test, cancel: CancellationToken) -> Result<Report> {
    let started = Instant::now();
    let report =
        |verdict| Report { pipeline: pipeline.name.value.clone(), test: test.name.value.clone(), verdict, took: started.elapsed() };
    match verdict(workspace, pipeline, test, cancel).await {
        Ok(verdict) => Ok(report(verdict)),
        Err(Failure::Diagnostics(wrong)) => Ok(report(Verdict::Wrong(with_help(wrong, pipeline, test)))),
        Err(failure) => Err(failure),
    }
}

/// True of what is said of the test itself.
fn is_inside(one: &Diagnostic, pipeline: &Pipeline, test: &Test) -> bool {
    let (file, place) = pipeline.file.part_at(test.span.clone());
    one.labels.first().is_some_and(|label| label.file == file && label.span.start >= place.start)
}

/// A column that SQL misses may be one that the test does not give.
fn with_help(wrong: Diagnostics, pipeline: &Pipeline, test: &Test) -> Diagnostics {
    let help = |one: Diagnostic| {
        // What is wrong with the test itself is pointed at in the test.
        if !["unknown-column", "sql"].contains(&one.code) || is_inside(&one, pipeline, test) {
            return one;
        }
        let (file, place) = pipeline.file.part_at(test.name.span.clone());
        let (line, _) = file.line_column(place.start);
        one.help(format!(
            "this is about the test \"{}\" (line {line}): where a step has no contract, the rows given to it name all the columns that are read, or \
             say them: {{ columns = {{ id = \"bigint\" }}, rows = [] }}",
            test.name.value
        ))
    };
    wrong.into_iter().map(help).collect()
}

async fn verdict(workspace: &Workspace, pipeline: &Pipeline, test: &Test, cancel: CancellationToken) -> Result<Verdict> {
    let pipeline = test.of(pipeline);
    let context = context(workspace, pipeline, test, cancel)?;
    let session = session(&context);
    let contracts = workspace.contracts.clone();
    let (pipeline, given) = give(pipeline, test, &session, &contracts, Asked::Rows(&context.cancel)).await?;
    let is_given = |name: &str| test.given.iter().any(|given| given.step.value == name);
    let targets = targets(&pipeline, test);
    let (_, missing) = trial::part(&pipeline, &targets, is_given);
    if !missing.is_empty() {
        return Err(trial::missing(&pipeline, &missing, test.name.span.clone()).into());
    }
    let judge = test.fails.as_ref().map_or(Judge::Nothing, judge_of);
    let keeps = if test.fails.is_none() { Keeps::All } else { Keeps::Nothing };
    let frugality = Frugality::Fast;
    let trial = Trial { pipeline: &pipeline, context, given, targets, keeps, judge, frugality, contracts };
    if let Some(found) = without_interval(&trial, test) {
        return Err(vec![found].into());
    }
    let outcome = trial.run().await?;
    let failed = match &test.fails {
        Some(fails) => unlike(&pipeline, test, fails, outcome.failed.as_ref()).into_iter().collect(),
        None => held(&pipeline, test, &outcome)?,
    };
    Ok(if failed.is_empty() { Verdict::Passed } else { Verdict::Failed(failed) })
}

/// The steps that a test executes.
fn targets(pipeline: &Pipeline, test: &Test) -> Vec<String> {
    if let Some(fails) = &test.fails {
        return targets_of(pipeline, fails);
    }
    let mut targets: Vec<String> = Vec::new();
    for rows in test.expect.iter().chain(&test.quarantine) {
        if !targets.contains(&rows.of) {
            targets.push(rows.of.clone());
        }
    }
    targets
}

/// The steps that are executed to see a failure: the one it is in, and those that its expectations read besides.
pub fn targets_of(pipeline: &Pipeline, fails: &Fails) -> Vec<String> {
    let Some(step) = &fails.step else { return trial::executed(pipeline) };
    let mut targets = vec![step.value.clone()];
    let asked = |expectation: &&Expectation| {
        expectation.on.value == step.value && fails.expectation.as_ref().is_none_or(|name| name.value == expectation.name)
    };
    if !matches!(judge_of(fails), Judge::Run(Expectations::None)) {
        for read in pipeline.expectations.iter().filter(asked).flat_map(|expectation| &expectation.reads) {
            if !targets.contains(&read.value) {
                targets.push(read.value.clone());
            }
        }
    }
    targets
}

/// What is judged to see a failure.
pub fn judge_of(fails: &Fails) -> Judge<'_> {
    Judge::Run(match (&fails.expectation, fails.code.value.as_str()) {
        (Some(name), _) => Expectations::Named(&name.value),
        (None, "expectation-failed" | "expectation") => Expectations::All,
        _ => Expectations::None,
    })
}

/// Puts the given rows in place. A file takes the place of a source's own; other rows are tables. Fails with what is wrong with the test, and
/// where it is interrupted.
pub(crate) async fn give(
    pipeline: &Pipeline,
    test: &Test,
    session: &SessionContext,
    contracts: &Contracts,
    asked: Asked<'_>,
) -> Result<(Pipeline, Replaced)> {
    let mut pipeline = pipeline.clone();
    let mut replaced: Replaced = HashMap::new();
    let mut wrong = Diagnostics::new();
    for given in &test.given {
        let name = &given.step.value;
        let is_step = |known: &weir_pipelines::Spanned<String>| known.value == *name;
        if let GivenRows::File(path) = &given.rows {
            match pipeline.sources.iter_mut().find(|source| is_step(&source.name)) {
                Some(source) => {
                    source.settings = source.settings.with(file::SOURCE.kind, "path", &path.value, path.span.clone());
                    source.incremental = None;
                }
                None => wrong.push(
                    Diagnostic::error("wrong-value", format!("\"{name}\" is a transform, and only a source reads a file"))
                        .at(&pipeline.file, path.span.clone(), "")
                        .help("give the rows here, or give files to the sources that it reads"),
                ),
            }
            continue;
        }
        let of_source = pipeline.sources.iter().find(|source| is_step(&source.name)).map(|source| &source.rules);
        let of_transform = pipeline.transforms.iter().find(|transform| is_step(&transform.name)).map(|transform| &transform.rules);
        let Some(rules) = of_source.or(of_transform) else { continue };
        match given::table(session, &pipeline, &given.rows, given::declared(&pipeline, rules, contracts).as_ref(), asked).await {
            Ok(table) => {
                replaced.insert(name.clone(), table);
            }
            Err(Failure::Diagnostics(found)) => wrong.extend(found),
            Err(failure) => return Err(failure),
        }
    }
    if wrong.is_empty() { Ok((pipeline, replaced)) } else { Err(wrong.into()) }
}

/// Says how a failure differs from the one expected, if it does.
fn unlike(pipeline: &Pipeline, test: &Test, fails: &Fails, failed: Option<&Failed>) -> Option<(Diagnostic, Vec<Difference>)> {
    let same = |failed: &Failed| {
        let same_step = fails.step.as_ref().is_none_or(|step| failed.error.step.as_ref() == Some(&step.value));
        let same_expectation = fails.expectation.as_ref().is_none_or(|name| failed.expectation.as_ref() == Some(&name.value));
        failed.error.code == fails.code.value && same_step && same_expectation
    };
    let message = match failed {
        Some(failed) if same(failed) => return None,
        Some(failed) => format!("\"{}\" fails otherwise than expected: {}", test.name.value, failed.error),
        None => format!("\"{}\" does not fail", test.name.value),
    };
    let diagnostic = Diagnostic::error("test-failed", message).at(&pipeline.file, fails.code.span.clone(), "expected");
    let diagnostic = match failed {
        Some(failed) => diagnostic.help(format!("its code is \"{}\"", failed.error.code)),
        None => diagnostic.help("where its cause is mended, put the rows that are right now under [test.expect] in place of \"fails\""),
    };
    Some((diagnostic, Vec::new()))
}

/// Holds every expected step against what came.
fn held(pipeline: &Pipeline, test: &Test, outcome: &Outcome) -> Result<Vec<(Diagnostic, Vec<Difference>)>> {
    let name = &test.name.value;
    let error = |message: String| Diagnostic::error("test-failed", message);
    if let Some(failed) = &outcome.failed {
        let diagnostic = error(format!("\"{name}\" fails: {}", failed.error)).at(&pipeline.file, test.name.span.clone(), "");
        let diagnostic = failed.error.details.iter().chain(&failed.error.help).fold(diagnostic, |all, line| all.help(line.clone()));
        return Ok(vec![(diagnostic.help(format!("where this is meant, write fails = \"{}\"", failed.error.code)), Vec::new())]);
    }
    let mut found = Vec::new();
    let mut wrong = Diagnostics::new();
    for expected in &test.expect {
        let Some((schema, batches)) = outcome.rows.get(&expected.of) else { continue };
        // A sink takes what its step gives.
        let does = if expected.of == expected.step.value { "gives" } else { "takes" };
        match compare::compare(pipeline, expected, schema, batches) {
            Ok(told) => found.extend(told.into_failure(name, expected, does, &pipeline.file)),
            Err(found) => wrong.extend(found),
        }
    }
    for expected in &test.quarantine {
        let batches = outcome.rejects.get(&expected.of).into_iter().flatten();
        let batches: Vec<RecordBatch> = batches.filter_map(|batch| batch.project(&reject_columns()).ok()).collect();
        match compare::compare(pipeline, expected, &reject_schema(), &batches) {
            Ok(told) => found.extend(told.into_failure(name, expected, "rejects", &pipeline.file)),
            Err(found) => wrong.extend(found),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    // A row that nobody said would be rejected is the likeliest cause of all else, and is told first.
    let mut steps: Vec<_> = outcome.rejects.iter().filter(|(step, _)| !test.quarantine.iter().any(|rows| rows.of == **step)).collect();
    steps.sort_by_key(|(step, _)| step.as_str());
    for (step, batches) in steps {
        found.splice(0..0, rejected(pipeline, test, step, batches).map(|one| (one, Vec::new())));
    }
    Ok(found)
}

fn reject_columns() -> Vec<usize> {
    REJECT_COLUMNS.iter().filter_map(|column| quarantine::SCHEMA.index_of(column).ok()).collect()
}

/// The columns that rejected rows have for a test.
fn reject_schema() -> SchemaRef {
    Arc::new(quarantine::SCHEMA.project(&reject_columns()).expect("the columns are there"))
}

/// Says of a step that it rejects rows of which the test says nothing: the first of them, and where it is given.
fn rejected(pipeline: &Pipeline, test: &Test, step: &str, batches: &[RecordBatch]) -> Option<Diagnostic> {
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0)?;
    let reason = batch.column_by_name("reason")?.as_string::<i32>().value(0).to_owned();
    let row = batch.column_by_name("row")?.as_primitive::<arrow::datatypes::UInt64Type>();
    let row = (!row.is_empty() && !row.is_null(0)).then(|| usize::try_from(row.value(0)).ok()).flatten();
    let given = test.given.iter().find(|given| given.step.value == step);
    let rows: &[Row] = match given.map(|given| &given.rows) {
        Some(GivenRows::Rows(rows) | GivenRows::Typed { rows, .. }) => rows,
        _ => &[],
    };
    let at = row.and_then(|row| rows.get(row.checked_sub(1)?)).map(|row| row.span.clone());
    let at = at.or_else(|| given.map(|given| given.step.span.clone())).unwrap_or_else(|| test.name.span.clone());
    let others = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    let message = format!("\"{}\": \"{step}\" rejects a row{others}: {reason}", test.name.value);
    Some(
        Diagnostic::error("test-failed", message)
            .at(&pipeline.file, at, "")
            .help(format!("give the row all that its contract requires, or expect it: [test.quarantine] {step} = [{{ code = \"…\" }}]")),
    )
}
