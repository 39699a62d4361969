//! Expectations: checks over a step's whole output, made after everything is staged and before anything is published.
//! A step that is asked about is read once more, into a temporary file that the checks then query.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    common::TableReference,
    datasource::empty::EmptyTable,
    error::{DataFusionError, Result as DfResult},
    execution::SendableRecordBatchStream,
    prelude::{DataFrame, SessionContext},
};
use futures::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use weir_connectors::{RunContext, quote};
use weir_pipelines::{Diagnostic, Diagnostics, Expectation, Expected, Pipeline, Spanned};

use crate::{
    books::ExpectationOutcome,
    error::{Failure, Result},
    plan::{PlannedStep, fork},
    spill::{SpillWriter, Spilled},
    sql::diagnose,
    step::{Reader, Step},
    transforms::unknown_column,
};

/// Failing rows shown in an outcome.
const EXAMPLES_MAX: usize = 5;

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

/// Checks that expectations can be asked, and announces a tap to every step that one asks about.
pub async fn plan(pipeline: &Pipeline, steps: &[PlannedStep], session: &SessionContext) -> (Vec<Tap>, Diagnostics) {
    let mut taps: Vec<Tap> = Vec::new();
    let mut wrong = Diagnostics::new();
    for expectation in &pipeline.expectations {
        let Some(found) = steps.iter().find(|step| step.step.name == expectation.on.value) else { continue };
        let columns: Vec<String> = found.step.schema.fields().iter().map(|field| field.name().clone()).collect();
        match &expectation.expected {
            Expected::NoRows(sql) => {
                let session = fork(session);
                let table = Arc::new(EmptyTable::new(found.step.schema.clone()));
                let planned = match session.register_table(TableReference::bare(expectation.on.value.as_str()), table) {
                    Ok(_) => session.sql(&sql.text).await.and_then(|frame| frame.into_optimized_plan()),
                    Err(error) => Err(error),
                };
                if let Err(error) = planned {
                    wrong.push(diagnose(&error, sql));
                }
            }
            Expected::Unique(names) | Expected::NotNull(names) => wrong.extend(
                names
                    .iter()
                    .filter(|name| !columns.contains(&name.value))
                    .map(|name| unknown_column(name, &expectation.on.value, &columns, &pipeline.file)),
            ),
            Expected::RowCount { min, max } => {
                if max.is_some_and(|max| max < *min) {
                    wrong.push(
                        Diagnostic::error("wrong-value", format!("\"{}\" can never hold: max is less than min", expectation.name)).at(
                            &pipeline.file,
                            expectation.span.clone(),
                            "",
                        ),
                    );
                }
            }
        }
        if !taps.iter().any(|tap| tap.step.name == found.step.name) {
            found.step.announce_reader();
            taps.push(Tap { step: found.step.clone(), taken: Arc::default() });
        }
    }
    (taps, wrong)
}

/// Writes a step's rows to a temporary file.
pub async fn keep(step: &Step, mut rows: SendableRecordBatchStream, run: &RunContext) -> DfResult<Kept> {
    let mut writer = SpillWriter::create(&run.runtime, &rows.schema(), "a step with expectations")?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch?)?;
    }
    Ok(Kept { step: step.name.clone(), rows: writer.finish()? })
}

/// Makes every check. A failed one that stops publishing is told by its outcome, `failed`; one that does not is `warned`.
pub async fn evaluate(pipeline: &Pipeline, kept: &[Kept], session: &SessionContext) -> Result<Vec<ExpectationOutcome>> {
    let mut outcomes = Vec::new();
    for expectation in &pipeline.expectations {
        let Some(kept) = kept.iter().find(|kept| kept.step == expectation.on.value) else { continue };
        let detail = broken(expectation, kept, session).await.map_err(|error| {
            Failure::error("expectation", format!("\"{}\" cannot be checked: {}", expectation.name, crate::sql::message(&error)))
                .in_step(&expectation.on.value)
        })?;
        let outcome = match &detail {
            None => "passed",
            Some(_) if expectation.stops => "failed",
            Some(_) => "warned",
        };
        outcomes.push(ExpectationOutcome {
            on: expectation.on.value.clone(),
            name: expectation.name.clone(),
            outcome: outcome.to_owned(),
            detail: detail.unwrap_or_default(),
        });
    }
    Ok(outcomes)
}

/// Says how an expectation is broken, if it is.
async fn broken(expectation: &Expectation, kept: &Kept, session: &SessionContext) -> DfResult<Option<String>> {
    let session = fork(session);
    session.register_table(TableReference::bare(kept.step.as_str()), kept.rows.table()?)?;
    let on = quote::identifier(&kept.step);
    let names = |columns: &[Spanned<String>]| quote::identifiers(columns.iter().map(|column| &column.value));
    let query = match &expectation.expected {
        Expected::RowCount { min, max } => {
            let rows = kept.rows.rows();
            let fits = rows >= *min && max.is_none_or(|max| rows <= max);
            let bounds = match max {
                Some(max) => format!("{min} to {max}"),
                None => format!("at least {min}"),
            };
            return Ok((!fits).then(|| format!("{rows} rows where {bounds} are expected")));
        }
        Expected::NoRows(sql) => sql.text.trim_end().trim_end_matches(';').to_owned(),
        Expected::Unique(columns) => {
            let columns = names(columns);
            format!("select {columns}, count(*) as \"__weir_rows\" from {on} group by {columns} having count(*) > 1")
        }
        Expected::NotNull(columns) => {
            let any: Vec<String> = columns.iter().map(|column| format!("{} is null", quote::identifier(&column.value))).collect();
            format!("select * from {on} where {}", any.join(" or "))
        }
    };
    let counted = collect(session.sql(&format!("select count(*) from ({query}\n)")).await?).await?;
    let count = counted.first().map_or(0, |batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    if count == 0 {
        return Ok(None);
    }
    let examples = collect(session.sql(&format!("select * from ({query}\n) limit {EXAMPLES_MAX}")).await?).await?;
    let lines: Vec<String> = examples.iter().flat_map(render).collect();
    Ok(Some(format!("{count} row{} found, such as {}", if count == 1 { "" } else { "s" }, lines.join("; "))))
}

/// Collects on another thread, so that whoever waits can stop waiting: a query may be at one batch for minutes.
async fn collect(frame: DataFrame) -> DfResult<Vec<RecordBatch>> {
    let work = AbortOnDropHandle::new(tokio::spawn(frame.collect()));
    work.await.map_err(|error| DataFusionError::External(Box::new(error)))?
}

fn render(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let formats: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<String> = formats
                .iter()
                .zip(batch.schema().fields())
                .filter_map(|(format, field)| Some(format!("{} = {}", field.name(), format.as_ref().ok()?.value(row))))
                .collect();
            format!("({})", cells.join(", "))
        })
        .collect()
}
