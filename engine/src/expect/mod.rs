//! Expectations: checks over a step's whole output, made after everything is staged and before anything is published.
//! A step that is asked about is read once more, into a temporary file that the checks then query.

mod answer;
mod change;
mod question;
mod value;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use chrono::TimeDelta;
use datafusion::{
    catalog::TableProvider,
    common::TableReference,
    datasource::empty::EmptyTable,
    error::{DataFusionError, Result as DfResult},
    execution::SendableRecordBatchStream,
    prelude::SessionContext,
    scalar::ScalarValue,
};
use futures::StreamExt;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_connectors::{
    RunContext,
    lake::{self, Version},
};
use weir_pipelines::{Diagnostic, Diagnostics, Expectation, Expected, Pipeline, Reference, Spanned};

use self::{
    answer::{Answer, Found, collect, compared, fresh},
    question::{Question, Repeated, ask},
};
use crate::{
    books::{ExpectationOutcome, Measured},
    error::{Failure, Result},
    failing,
    history::History,
    now, params,
    plan::{self, Frugality, Outside, PlannedStep, fork},
    step::{Reader, Step},
};

/// Failing rows shown in an outcome.
const EXAMPLES_MAX: usize = 5;

/// What a run needs in order to check its expectations.
#[derive(Debug, Default)]
pub struct Checks {
    /// The steps that are asked about.
    pub taps: Vec<Tap>,
    /// Tables of the lake that foreign keys refer to, as they were when the run was planned, by the name they are written with.
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

/// A step that expectations ask about.
#[derive(Debug)]
pub struct Tap {
    /// The step.
    pub step: Arc<Step>,
    /// What the tap takes from it.
    pub taken: Arc<Reader>,
}

/// A step's rows, kept until its expectations have been checked.
#[derive(Debug)]
pub struct Kept {
    step: String,
    rows: Spilled,
}

/// What came of the expectations.
#[derive(Debug)]
pub struct Evaluated {
    /// One for each, as written.
    pub outcomes: Vec<ExpectationOutcome>,
    /// Why the failing rows could not be kept, when they could not.
    pub note: Option<String>,
}

/// Checks that expectations can be asked, and announces a tap to every step that one asks about. Failures are those of systems outside, of
/// which none is asked when `offline`.
pub async fn plan(
    pipeline: &Pipeline,
    steps: &[PlannedStep],
    session: &SessionContext,
    run: &RunContext,
    offline: bool,
) -> (Checks, Diagnostics, Vec<Outside>) {
    let mut checks = Checks::default();
    let mut wrong = Diagnostics::new();
    let mut outside = Vec::new();
    for expectation in &pipeline.expectations {
        let read: Option<Vec<&PlannedStep>> =
            expectation.reads.iter().map(|name| steps.iter().find(|step| step.step.name == name.value)).collect();
        // What is wrong with a step is told there.
        let Some(read) = read else { continue };
        if let Expected::ForeignKey { references: Reference::Lake { name, schema, table }, .. } = &expectation.expected
            && !checks.tables.contains_key(&name.value)
        {
            // What is in a lake that lies elsewhere cannot be told without asking.
            if offline && run.lake.contains("://") && !run.lake.starts_with("file://") {
                continue;
            }
            match lake_table(run, schema, table).await {
                Ok(Some(found)) => {
                    checks.tables.insert(name.value.clone(), found);
                }
                Ok(None) => {
                    wrong.push(unknown_table(name, run, pipeline).await);
                    continue;
                }
                Err(error) => {
                    let failure = Failure::from_connector(&error).in_step(&expectation.on.value);
                    outside.push(Outside { failure, place: name.span.clone() });
                    continue;
                }
            }
        }
        let empty = |step: &&PlannedStep| {
            let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(step.step.schema.clone()));
            (step.step.name.clone(), table)
        };
        let asked = match checks.session(session, read.iter().map(empty)) {
            Ok(session) => ask(expectation, &session, &pipeline.file).await.err().unwrap_or_default(),
            Err(error) => {
                let message = crate::sql::message(&error);
                vec![Diagnostic::error("cannot-plan", message).at(&pipeline.file, expectation.span.clone(), "")]
            }
        };
        wrong.extend(asked);
        for found in read {
            if !checks.taps.iter().any(|tap| tap.step.name == found.step.name) {
                found.step.announce_reader();
                checks.taps.push(Tap { step: found.step.clone(), taken: Arc::default() });
            }
        }
    }
    (checks, wrong, outside)
}

async fn lake_table(run: &RunContext, schema: &str, table: &str) -> weir_connectors::Result<Option<Arc<dyn TableProvider>>> {
    match lake::open_table(&run.lake, &run.environment, schema, table, Version::Newest).await? {
        Some(table) => lake::provider(&table).await.map(Some),
        None => Ok(None),
    }
}

async fn unknown_table(name: &Spanned<String>, run: &RunContext, pipeline: &Pipeline) -> Diagnostic {
    let found = Diagnostic::error("unknown-table", format!("there is no table \"{}\"", name.value)).at(
        &pipeline.file,
        name.span.clone(),
        "not found",
    );
    let tables = lake::tables(&run.lake, &run.environment).await.unwrap_or_default();
    let names: Vec<String> = tables.into_iter().map(|(schema, table)| format!("lake.{schema}.{table}")).collect();
    found
        .did_you_mean(&name.value, names.iter().map(String::as_str))
        .help(format!("tables of the lake are: {}", crate::transforms::listed(&names)))
        .help("one that this run makes is not there yet: name the step that makes its rows")
}

impl Checks {
    /// A session that knows these tables, and those of the lake.
    fn session(
        &self,
        session: &SessionContext,
        tables: impl Iterator<Item = (String, Arc<dyn TableProvider>)>,
    ) -> DfResult<SessionContext> {
        let session = fork(session);
        for (name, table) in tables.chain(self.tables.iter().map(|(name, table)| (name.clone(), table.clone()))) {
            session.register_table(TableReference::bare(name), table)?;
        }
        Ok(session)
    }
}

/// Writes a step's rows to a temporary file.
pub async fn keep(step: &Step, mut rows: SendableRecordBatchStream, run: &RunContext) -> DfResult<Kept> {
    let mut writer = SpillWriter::create(&run.runtime, &rows.schema(), "a step with expectations")?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch?)?;
    }
    Ok(Kept { step: step.name.clone(), rows: writer.finish()? })
}

/// Makes every check and keeps the rows that fail; without a history nothing is kept, and no run was before. A failed check that stops publishing is told by its outcome, `failed`; one that
/// does not is `warned`.
pub async fn evaluate(
    pipeline: &Pipeline,
    checks: &Checks,
    kept: &[Kept],
    session: &SessionContext,
    run: &RunContext,
    history: Option<&History>,
) -> Result<Evaluated> {
    let check = Check { pipeline, checks, kept, run, history };
    let mut evaluated = Evaluated { outcomes: Vec::new(), note: None };
    let mut failing = history.map(|_| failing::Writer::new(run));
    for expectation in &pipeline.expectations {
        let answer = match check.answer(expectation, session).await {
            // What hashing cannot hold, sorting can: the rows are on disk still.
            Err(Trouble::Query(error)) if exhausted(&error) => {
                let frugal = plan::session(run.runtime.clone(), 2, 2048, Frugality::Frugal);
                now::fix(&frugal, run.started_at);
                params::set(&frugal, pipeline, run.interval);
                check.answer(expectation, &frugal).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|trouble| trouble.into_failure(expectation))?;
        let outcome = ExpectationOutcome {
            on: expectation.on.value.clone(),
            name: expectation.name.clone(),
            outcome: match (answer.holds, expectation.stops) {
                (true, _) => "passed",
                (false, true) => "failed",
                (false, false) => "warned",
            }
            .to_owned(),
            detail: answer.detail,
            rows: answer.rows,
            rows_kept: answer.kept.len() as u64,
            measured: answer.measured,
        };
        if !answer.holds {
            let (found, rows) = (outcome.clone(), answer.kept);
            set_aside(&mut failing, &mut evaluated.note, move |writer| writer.add(&found, rows)).await;
        }
        evaluated.outcomes.push(outcome);
    }
    if let Some(writer) = failing {
        let finished = blocking(move || writer.finish()).await;
        evaluated.note = finished.err().map(|error| cannot_keep(&error));
    }
    if evaluated.note.is_some() {
        evaluated.outcomes.iter_mut().for_each(|outcome| outcome.rows_kept = 0);
    }
    Ok(evaluated)
}

fn exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

fn cannot_keep(error: &std::io::Error) -> String {
    format!("the rows that fail expectations could not be kept: {error}")
}

/// Files are written on a thread that may wait for them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Rows that cannot be kept do not change what is found: it is noted.
async fn set_aside(
    failing: &mut Option<failing::Writer>,
    note: &mut Option<String>,
    add: impl FnOnce(&mut failing::Writer) -> std::io::Result<()> + Send + 'static,
) {
    let Some(mut writer) = failing.take() else { return };
    match blocking(move || add(&mut writer).map(|()| writer)).await {
        Ok(writer) => *failing = Some(writer),
        Err(error) => *note = Some(cannot_keep(&error)),
    }
}

/// Why a check could not be made.
enum Trouble {
    Query(DataFusionError),
    Else(Failure),
}

impl From<DataFusionError> for Trouble {
    fn from(error: DataFusionError) -> Self {
        Trouble::Query(error)
    }
}

impl Trouble {
    fn into_failure(self, expectation: &Expectation) -> Failure {
        let failure = match self {
            Trouble::Else(failure) => failure,
            Trouble::Query(error) if exhausted(&error) || weir_connectors::Error::find(&error).is_some() => crate::run::explain(&error),
            Trouble::Query(error) => {
                Failure::error("expectation", format!("\"{}\" cannot be checked: {}", expectation.name, crate::sql::message(&error))).help(
                    "its query fails on these rows: write it so that it cannot, for instance nullif(x, 0) where something is divided by x",
                )
            }
        };
        failure.in_step(&expectation.on.value)
    }
}

struct Check<'a> {
    pipeline: &'a Pipeline,
    checks: &'a Checks,
    kept: &'a [Kept],
    run: &'a RunContext,
    history: Option<&'a History>,
}

impl Check<'_> {
    async fn answer(&self, expectation: &Expectation, session: &SessionContext) -> Result<Answer, Trouble> {
        let mut tables: Vec<(String, Arc<dyn TableProvider>)> = Vec::new();
        for kept in self.kept.iter().filter(|kept| expectation.reads.iter().any(|name| name.value == kept.step)) {
            tables.push((kept.step.clone(), kept.rows.table()));
        }
        let session = self.checks.session(session, tables.into_iter())?;
        let question = ask(expectation, &session, &self.pipeline.file).await.map_err(|found| Trouble::Else(found.into()))?;
        let count = self.kept.iter().find(|kept| kept.step == expectation.on.value).map_or(0, |kept| kept.rows.rows());
        match question {
            Question::RowCount => self.counted(expectation, count).await,
            Question::Rows(frame) => {
                let found = Found::of(frame).await?;
                if found.rows == 0 {
                    return Ok(Answer::holds());
                }
                let s = if found.rows == 1 { "" } else { "s" };
                let detail = format!("{} row{s} found, such as {}", found.rows, found.examples.join("; "));
                Ok(Answer { rows: found.rows, kept: found.kept, ..Answer::of(false, detail) })
            }
            Question::Repeated(asked) => {
                let Repeated { counts, examples, rows } = *asked;
                let counted = collect(counts).await?;
                let number = |column: usize| {
                    let array = counted.first().map(|batch| batch.column(column).as_primitive::<Int64Type>());
                    array.filter(|array| array.is_valid(0)).map_or(0, |array| u64::try_from(array.value(0)).unwrap_or(0))
                };
                let (keys, repeated) = (number(0), number(1));
                if keys == 0 {
                    return Ok(Answer::holds());
                }
                let words = if keys == 1 { "key occurs" } else { "keys occur" };
                let examples = Found::of(examples).await?.examples.join("; ");
                let detail = format!("{keys} {words} more than once, in {repeated} rows, such as {examples}");
                Ok(Answer { rows: repeated, kept: Found::of(rows).await?.kept, ..Answer::of(false, detail) })
            }
            Question::Value(frame) => {
                let batches = collect(frame).await?;
                let column = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0).clone());
                let value = column.map_or(Ok(ScalarValue::Null), |column| ScalarValue::try_from_array(&column, 0))?;
                match &expectation.expected {
                    Expected::Freshness { column, age_max } => Ok(fresh(
                        &column.value,
                        &value,
                        count,
                        TimeDelta::from_std(*age_max).unwrap_or(TimeDelta::MAX),
                        self.run.started_at,
                    )),
                    Expected::Change { .. } => match value {
                        ScalarValue::Float64(value) => self.changed(expectation, value).await,
                        _ => self.changed(expectation, None).await,
                    },
                    _ => Ok(Answer::holds()),
                }
            }
        }
    }

    async fn counted(&self, expectation: &Expectation, rows: u64) -> Result<Answer, Trouble> {
        let Expected::RowCount { min, max } = &expectation.expected else {
            #[expect(clippy::cast_precision_loss, reason = "no count of rows reaches 2^53")]
            return self.changed(expectation, Some(rows as f64)).await;
        };
        let bounds = match max {
            Some(max) => format!("{min} to {max}"),
            None => format!("at least {min}"),
        };
        let holds = rows >= *min && max.is_none_or(|max| rows <= max);
        Ok(Answer::of(holds, if holds { String::new() } else { format!("{rows} rows where {bounds} are expected") }))
    }

    async fn changed(&self, expectation: &Expectation, value: Option<f64>) -> Result<Answer, Trouble> {
        let Expected::Change { of, z_max, runs, runs_min } = &expectation.expected else { return Ok(Answer::holds()) };
        let Some(value) = value.filter(|value| value.is_finite()) else {
            let found = value.map_or("null".to_owned(), |value| value.to_string());
            return Ok(Answer::of(false, format!("{} is {found}, and is to be compared with earlier runs", of.text())));
        };
        let summaries = match self.history {
            Some(history) => history.published_summaries(&self.run.pipeline, *runs).await.map_err(Trouble::Else)?,
            None => Vec::new(),
        };
        // One value a run, however many expectations hold it against others.
        let measured = |outcome: &ExpectationOutcome| {
            let measured = outcome.measured.as_ref().filter(|measured| measured.of == of.text());
            measured.filter(|_| outcome.on == expectation.on.value).map(|measured| measured.value)
        };
        let earlier: Vec<f64> = summaries.iter().filter_map(|summary| summary.expectations.iter().find_map(measured)).collect();
        let mut answer = compared(of, value, &earlier, *z_max, *runs_min);
        answer.measured = Some(Measured { of: of.text().to_owned(), value });
        Ok(answer)
    }
}
