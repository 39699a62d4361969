//! From real rows to a test: a few rows of the sources that make a step give what it gives, with made-up values in place of personal ones, and
//! what the step makes of them. No destination is touched, nothing is staged, no state is read or written.
//!
//! Which rows? The first of those that leave the step are the measure: so many rows, and so many values in each column. `minimise`'s search
//! leaves out every row and column of the sources without which the step still gives as much. What is left belongs together: rows that are
//! joined, one of each group, those that a filter lets through.

mod made_up;
mod personal;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use tokio_util::sync::CancellationToken;
use weir_connectors::RunContext;
use weir_pipelines::{OnInvalid, Pipeline, Rows, Rules, StepRows, Test};

use crate::{
    error::{Failure, Result},
    interval,
    minimise::{
        ROWS_MAX,
        read::{Extent, read},
        search::{self, End, Input, Oracle, narrow, reduce, total},
        written::{free_name, given, spanned, tells_the_time},
    },
    plan::{Frugality, Replaced},
    test::{self, given::Asked, value},
    trial::{self, Judge, Keeps, Trial},
    workspace::Workspace,
};
use personal::Personals;

/// So many rows of each source are read at first, and then, where the step gives too few rows of them, so many. Only where it gives none is all
/// read.
const READ_AT_FIRST: u64 = 10_000;
const READ_THEN: u64 = 500_000;

/// A test of real rows.
#[derive(Debug)]
pub struct Recorded {
    /// It; it passes as the pipeline is.
    pub test: Test,
    /// What is to be said above it.
    pub remarks: Vec<String>,
    /// Rows that the step gives.
    pub rows: u64,
    /// Rows that are given to sources.
    pub given: u64,
    /// The columns whose values are made up, each with its source.
    pub made_up: Vec<(String, String)>,
    /// Whether time ran out before it was known that no row can go.
    pub end: End,
}

/// Makes a test of `rows` rows that leave a step, a source or a transform. `time_max` bounds the search, not the reading.
pub async fn record(
    workspace: &Workspace,
    pipeline: &Pipeline,
    step: &str,
    rows: usize,
    time_max: Duration,
    cancel: CancellationToken,
) -> Result<Recorded> {
    let mut context = RunContext::clone(&*workspace.dry_context(&pipeline.name.value)?);
    context.partitions = 1;
    context.cancel = cancel;
    context.interval = interval::last_whole(pipeline, context.started_at);
    let context = Arc::new(context);
    let lenient = lenient(pipeline);
    let mut search = Search {
        workspace,
        pipeline: &lenient,
        context: context.clone(),
        step: step.to_owned(),
        rows,
        measure: Measure::default(),
        deadline: None,
    };
    let mut input = search.sample().await?;
    search.deadline = Some(Instant::now() + time_max);
    let runtime = context.runtime.clone();
    let mut end = reduce(&mut input, &mut search, &runtime).await?;
    if total(&input) > ROWS_MAX {
        let message = format!("{} rows of the sources are needed for {} rows of \"{step}\"", total(&input), search.measure.rows);
        let help = match end {
            End::OutOfTime => "the search stopped for want of time: give it longer with --timeout".to_owned(),
            End::Smallest => format!("ask for fewer with --rows; a test of more than {ROWS_MAX} rows is not written"),
        };
        return Err(Failure::error("too-large", message).help(help));
    }
    if end == End::Smallest {
        end = narrow(&mut input, &mut search, &runtime).await?;
    }
    let session = test::session(&context);
    let mut made = Test {
        name: spanned(String::new()),
        span: 0..0,
        given: given(&session, &lenient, &input).await?,
        expect: vec![StepRows { step: spanned(step.to_owned()), of: step.to_owned(), rows: Rows::Any(Vec::new()) }],
        quarantine: Vec::new(),
        fails: None,
        now: tells_the_time(pipeline).then_some(context.started_at),
        interval: test::interval_of(pipeline, &context),
        params: pipeline.given_params(),
        made: None,
    };
    // What leaves the steps now, to see that nothing personal of it is left then.
    let before = search.outcome(search::tables(&input), personal::marked_steps(pipeline, step, &workspace.contracts)).await?;
    let personals = Personals::of(pipeline, &workspace.contracts, &made.given, &before)?;
    let made_up = personals.replace(&mut made.given)?;
    let rows_given = made.given.iter().map(|given| personal::rows_of(&given.rows).len() as u64).sum();
    let (_, tables) = test::give(&lenient, &made, &session, &workspace.contracts, Asked::Rows(&context.cancel)).await?;
    let mut found = search.outcome(tables, vec![step.to_owned()]).await?;
    let (schema, batches) = found.remove(step).ok_or_else(|| nothing(step))?;
    let expected: Vec<_> = batches.iter().flat_map(|batch| value::rows(&sayable(&schema, batch))).collect();
    if expected.is_empty() {
        let failure = nothing(step).detail("with made-up values in place of personal ones, it gives none");
        return Err(failure.help("the SQL, or a contract, asks for what only the real values have: write the test by hand"));
    }
    personals.none_left(&made.given, step, &expected)?;
    let count = expected.len() as u64;
    made.name = spanned(free_name(pipeline, format!("as recorded, \"{step}\" gives {count} row{}", if count == 1 { "" } else { "s" })));
    made.expect[0].rows = Rows::Any(expected);
    let mut remarks = vec!["Rows of the sources, and what came of them when they were recorded: read it before you rely on it.".to_owned()];
    if !made_up.is_empty() {
        let columns: Vec<String> = made_up.iter().map(|(source, column)| format!("{source}.{column}")).collect();
        remarks.push(format!("Made up, in place of personal values: {}.", columns.join(", ")));
    }
    Ok(Recorded { test: made, remarks, rows: count, given: rows_given, made_up, end })
}

fn nothing(step: &str) -> Failure {
    Failure::error("nothing-to-record", format!("\"{step}\" gives no rows"))
}

/// The pipeline with rows that break their contracts set aside, however many they are.
fn lenient(pipeline: &Pipeline) -> Pipeline {
    let mut lenient = pipeline.clone();
    let set = |rules: &mut Rules| {
        rules.on_invalid = OnInvalid::Quarantine;
        rules.max_invalid = None;
    };
    lenient.sources.iter_mut().for_each(|source| set(&mut source.rules));
    lenient.transforms.iter_mut().for_each(|transform| set(&mut transform.rules));
    lenient
}

/// Without the columns whose values a test cannot say.
fn sayable(schema: &SchemaRef, batch: &RecordBatch) -> RecordBatch {
    let is_sayable = |data_type: &DataType| {
        !matches!(data_type, DataType::Duration(_) | DataType::Interval(_) | DataType::Map(..) | DataType::Union(..))
    };
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|at| is_sayable(schema.field(*at).data_type())).collect();
    batch.project(&kept).expect("the columns are there")
}

/// How much leaves a step.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Measure {
    rows: usize,
    /// Values by column.
    values: HashMap<String, usize>,
}

impl Measure {
    fn of(schema: &SchemaRef, batches: &[RecordBatch]) -> Self {
        let count = |at: usize| batches.iter().map(|batch| batch.num_rows() - batch.column(at).logical_null_count()).sum();
        let values = schema.fields().iter().enumerate().map(|(at, field)| (field.name().clone(), count(at)));
        Self { rows: batches.iter().map(RecordBatch::num_rows).sum(), values: values.collect() }
    }

    /// True where there is as much as in another, in all of its columns.
    fn holds(&self, other: &Self) -> bool {
        let enough = |(column, count): (&String, &usize)| self.values.get(column).is_some_and(|own| own >= count);
        self.rows >= other.rows && other.values.iter().all(enough)
    }
}

struct Search<'a> {
    workspace: &'a Workspace,
    pipeline: &'a Pipeline,
    context: Arc<RunContext>,
    step: String,
    rows: usize,
    /// What is to leave the step.
    measure: Measure,
    deadline: Option<Instant>,
}

impl Search<'_> {
    /// Reads as much of the sources as makes the step give the rows that are asked for, or what there is.
    async fn sample(&mut self) -> Result<Input> {
        for extent in [Some(READ_AT_FIRST), Some(READ_THEN), None] {
            let targets = [self.step.clone()];
            let (input, _) = read(Extent::Rows(extent), self.pipeline, &targets, &self.context).await?;
            let is_all = extent.is_none_or(|most| input.values().all(|rows| rows.rows() < most));
            self.measure = self.attempt(&input).await?;
            let enough = self.measure.rows >= self.rows || (extent == Some(READ_THEN) && self.measure.rows > 0);
            if enough || (is_all && self.measure.rows > 0) {
                return Ok(input);
            }
            if is_all {
                break;
            }
        }
        Err(nothing(&self.step)
            .help("a test is recorded of a step that gives rows: read its sources with weir schema infer, or run the pipeline"))
    }

    async fn attempt(&self, input: &Input) -> Result<Measure> {
        let mut found = self.outcome(search::tables(input), vec![self.step.clone()]).await?;
        Ok(found.remove(&self.step).map_or_else(Measure::default, |(schema, batches)| Measure::of(&schema, &batches)))
    }

    /// What leaves some steps, the first rows of each.
    async fn outcome(&self, given: Replaced, targets: Vec<String>) -> Result<HashMap<String, (SchemaRef, Vec<RecordBatch>)>> {
        let trial = Trial {
            pipeline: self.pipeline,
            context: self.context.clone(),
            given,
            targets,
            keeps: Keeps::First(self.rows),
            judge: Judge::Nothing,
            frugality: Frugality::Fast,
            contracts: self.workspace.contracts.clone(),
        };
        let trial::Outcome { rows, failed, .. } = trial.run().await?;
        match failed {
            Some(failed) => Err(Failure::Error(Box::new(failed.error))),
            None => Ok(rows),
        }
    }
}

impl Oracle for Search<'_> {
    async fn fails(&mut self, input: &Input) -> Result<Option<bool>> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        match self.attempt(input).await {
            Ok(found) => Ok(Some(found.holds(&self.measure))),
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            // Without some row or column it does not plan, or does not run.
            Err(_) => Ok(Some(false)),
        }
    }

    fn smaller(&mut self, _: u64) {}
}
