//! Where rejected rows go: counted, and by the author's word dropped, set aside, or the end of the run. The rows set aside
//! wait in a spill file and become a Delta table `<state>/quarantine/<pipeline>/<step>` with the run's other destinations.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{AsArray, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit},
};
use chrono::{DateTime, Utc};
use datafusion::{
    error::DataFusionError,
    execution::{SendableRecordBatchStream, runtime_env::RuntimeEnv},
};
use parking_lot::Mutex;
use serde::Serialize;
use weir_connectors::{Error, Reject, Rejects, RunContext, Sink, SinkContext, lake, quote::identifier};
use weir_pipelines::{Mode, OnInvalid, OnSchemaChange, Rules, ShareMax};

use crate::{
    error::{Failure, Result},
    query::Session,
    spill::SpillWriter,
    workspace::Workspace,
};

/// The columns of a quarantine table.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("run", false),
        text("pipeline", false),
        text("step", false),
        text("file", true),
        Field::new("row", DataType::UInt64, true),
        text("code", false),
        text("column", true),
        text("reason", false),
        text("raw", false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
});

/// Rows per batch of the spill file.
const BATCH_ROWS: usize = 1024;
/// Bytes of raw rows that wait for the spill file at most.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Examples kept for messages.
const EXAMPLES_MAX: usize = 5;

/// Takes one step's rejected rows during one run.
#[derive(Debug)]
pub struct Desk {
    run: String,
    pipeline: String,
    step: String,
    at: DateTime<Utc>,
    rules: Rules,
    runtime: Arc<RuntimeEnv>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rejected: u64,
    waiting: Vec<Reject>,
    waiting_bytes: usize,
    examples: Vec<String>,
    reasons: BTreeMap<(String, Option<String>), u64>,
    spill: Option<SpillWriter>,
}

impl Desk {
    /// A desk for one step.
    pub fn new(run: &str, pipeline: &str, step: &str, at: DateTime<Utc>, rules: Rules, runtime: Arc<RuntimeEnv>) -> Self {
        let (run, pipeline, step) = (run.to_owned(), pipeline.to_owned(), step.to_owned());
        Self { run, pipeline, step, at, rules, runtime, state: Mutex::default() }
    }

    /// The step.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Rows rejected so far.
    pub fn rejected(&self) -> u64 {
        self.state.lock().rejected
    }

    /// True when rejected rows are to be kept.
    pub fn keeps(&self) -> bool {
        self.rules.on_invalid == OnInvalid::Quarantine
    }

    /// Says, once all rows have passed, whether too many were invalid. `rows` is how many the step was given.
    pub fn verdict(&self, rows: u64) -> Result<()> {
        let state = self.state.lock();
        let (allowed, bound) = match self.rules.max_invalid {
            Some(ShareMax::Rows(max)) => (state.rejected <= max, format!("max_invalid = {max}")),
            #[expect(clippy::cast_precision_loss, reason = "a share of a row count needs no more digits")]
            Some(ShareMax::Share(share)) => (state.rejected as f64 <= share * rows as f64, format!("max_invalid = \"{}%\"", share * 100.0)),
            None => (state.rejected == 0 || state.rejected < rows, "not one valid row".to_owned()),
        };
        if allowed { Ok(()) } else { Err(self.too_many(&state, &format!("of {rows} rows"), &bound)) }
    }

    fn too_many(&self, state: &State, of: &str, bound: &str) -> Failure {
        let mut failure = Failure::error("too-many-invalid", format!("{} {of} are invalid ({bound})", state.rejected)).in_step(&self.step);
        let mut reasons: Vec<_> = state.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((code, column), count) in reasons.into_iter().take(EXAMPLES_MAX) {
            let column = column.as_ref().map(|column| format!(" in \"{column}\"")).unwrap_or_default();
            failure = failure.detail(format!("{count} × {code}{column}"));
        }
        for example in &state.examples {
            failure = failure.detail(example.clone());
        }
        failure.help("nothing was published; mend the data or the contract, or raise max_invalid")
    }

    /// Hands out what was set aside, once nothing more comes, and how many rows that is; none when there is nothing.
    pub fn take(&self) -> Result<Option<(u64, SendableRecordBatchStream)>> {
        let mut state = self.state.lock();
        if !self.keeps() || state.rejected == 0 {
            return Ok(None);
        }
        self.spill(&mut state).map_err(Failure::from)?;
        let Some(spill) = state.spill.take() else { return Ok(None) };
        let spilled = spill.finish().map_err(|error| Failure::from(spill_error(error)))?;
        Ok(Some((state.rejected, spilled.stream())))
    }

    fn spill(&self, state: &mut State) -> Result<(), Error> {
        if state.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut state.waiting);
        state.waiting_bytes = 0;
        let batch = self.batch(&waiting);
        let spill = match &mut state.spill {
            Some(spill) => spill,
            None => state.spill.insert(SpillWriter::create(&self.runtime, &SCHEMA, "rejected rows").map_err(spill_error)?),
        };
        spill.write(&batch).map_err(spill_error)
    }

    fn batch(&self, rejects: &[Reject]) -> RecordBatch {
        let mut texts: [StringBuilder; 8] = std::array::from_fn(|_| StringBuilder::new());
        let mut rows = UInt64Builder::with_capacity(rejects.len());
        let mut ats = TimestampMicrosecondBuilder::with_capacity(rejects.len()).with_timezone("UTC");
        for reject in rejects {
            let [run, pipeline, step, file, code, column, reason, raw] = &mut texts;
            run.append_value(&self.run);
            pipeline.append_value(&self.pipeline);
            step.append_value(&self.step);
            file.append_option(reject.file.as_ref());
            rows.append_option(reject.row);
            code.append_value(&reject.code);
            column.append_option(reject.column.as_ref());
            reason.append_value(&reject.reason);
            raw.append_value(&reject.raw);
            ats.append_value(self.at.timestamp_micros());
        }
        let [mut run, mut pipeline, mut step, mut file, mut code, mut column, mut reason, mut raw] = texts;
        RecordBatch::try_new(
            SCHEMA.clone(),
            vec![
                Arc::new(run.finish()),
                Arc::new(pipeline.finish()),
                Arc::new(step.finish()),
                Arc::new(file.finish()),
                Arc::new(rows.finish()),
                Arc::new(code.finish()),
                Arc::new(column.finish()),
                Arc::new(reason.finish()),
                Arc::new(raw.finish()),
                Arc::new(ats.finish()),
            ],
        )
        .expect("every column has one value per reject")
    }
}

fn spill_error(error: DataFusionError) -> Error {
    Error::system("spill-failed", "cannot set rejected rows aside on disk").because(error).help("make room for temporary files")
}

/// One line that names a rejected row.
fn describe(reject: &Reject) -> String {
    let place = match (&reject.file, reject.row) {
        (Some(file), Some(row)) => format!("{file}:{row}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    let mut raw: String = reject.raw.chars().take(120).collect();
    if raw.len() < reject.raw.len() {
        raw.push('…');
    }
    format!("{place}{}: {}", reject.reason, raw.escape_debug())
}

impl Rejects for Desk {
    fn reject(&self, rejects: Vec<Reject>) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.rejected += rejects.len() as u64;
        for reject in &rejects {
            if state.examples.len() < EXAMPLES_MAX {
                state.examples.push(describe(reject));
            }
            *state.reasons.entry((reject.code.clone(), reject.column.clone())).or_default() += 1;
        }
        if self.rules.on_invalid == OnInvalid::Fail
            && let Some(first) = rejects.first()
        {
            return Err(Error::user("invalid-row", describe(first))
                .help("the step says on_invalid = \"fail\"; with \"quarantine\" such rows are set aside and the others load"));
        }
        if let Some(ShareMax::Rows(max)) = self.rules.max_invalid
            && state.rejected > max
        {
            let message = format!("more than {max} rows are invalid; the first: {}", state.examples[0]);
            return Err(
                Error::user("too-many-invalid", message).help("nothing was published; mend the data or the contract, or raise max_invalid")
            );
        }
        if self.keeps() {
            for reject in rejects {
                state.waiting_bytes += reject.raw.len();
                state.waiting.push(reject);
                if state.waiting.len() >= BATCH_ROWS || state.waiting_bytes >= WAITING_BYTES_MAX {
                    self.spill(&mut state)?;
                }
            }
        }
        Ok(())
    }
}

/// The sink of a step's quarantine table, and what it is told.
pub fn sink(step: &str, run: &Arc<RunContext>) -> (Arc<dyn Sink>, SinkContext) {
    let folder = run.state_dir.join("quarantine").join(&run.pipeline).join(step);
    let name = format!("quarantine of {step}");
    let context = SinkContext {
        run: run.clone(),
        step: name.clone(),
        folder: run.state_dir.clone(),
        mode: Mode::Append,
        key: Vec::new(),
        on_schema_change: OnSchemaChange::AddColumns,
        allow_lossy: Vec::new(),
        may_decide: false,
        beside: Vec::new(),
    };
    (lake::at(&folder.display().to_string(), &name, &[]), context)
}

/// What is set aside for one step.
#[derive(Debug, Clone, Serialize)]
pub struct QuarantineTable {
    /// The pipeline.
    pub pipeline: String,
    /// The step.
    pub step: String,
    /// Rows set aside, all runs.
    pub rows: u64,
    /// Runs that set rows aside.
    pub runs: u64,
    /// Why, most frequent first.
    pub reasons: Vec<Reason>,
}

/// One reason and how often it was met.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// `malformed`, `wrong-type`, or a JSON Schema keyword.
    pub code: String,
    /// The column at fault.
    pub column: Option<String>,
    /// Rows.
    pub rows: u64,
}

/// Lists what is set aside, by pipeline and step.
pub async fn list(workspace: &Workspace, pipeline: Option<&str>) -> Result<Vec<QuarantineTable>> {
    let session = Session::open(workspace).await?;
    let mut tables = Vec::new();
    for name in session.tables().await? {
        if name.catalog != "quarantine" || pipeline.is_some_and(|wanted| wanted != name.schema) {
            continue;
        }
        let table = format!("quarantine.{}.{}", identifier(&name.schema), identifier(&name.table));
        let total = session.collect(&format!("select count(*), count(distinct run) from {table}")).await?;
        let reasons =
            session.collect(&format!("select code, \"column\", count(*) as n from {table} group by 1, 2 order by 3 desc, 1, 2")).await?;
        let number = |batch: &RecordBatch, column: usize, row: usize| {
            u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(0)
        };
        let text = |batch: &RecordBatch, column: usize, row: usize| {
            let column = arrow::compute::cast(batch.column(column), &DataType::Utf8).ok()?;
            let column = column.as_string::<i32>();
            (!arrow::array::Array::is_null(column, row)).then(|| column.value(row).to_owned())
        };
        tables.push(QuarantineTable {
            rows: total.first().map_or(0, |batch| number(batch, 0, 0)),
            runs: total.first().map_or(0, |batch| number(batch, 1, 0)),
            reasons: reasons
                .iter()
                .flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)))
                .map(|(batch, row)| Reason {
                    code: text(batch, 0, row).unwrap_or_default(),
                    column: text(batch, 1, row),
                    rows: number(batch, 2, row),
                })
                .collect(),
            pipeline: name.schema,
            step: name.table,
        });
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn long_rows_wait_on_disk_and_none_is_lost() {
        let rules = Rules { contract: None, on_invalid: OnInvalid::Quarantine, max_invalid: None };
        let desk = Desk::new("r", "p", "s", DateTime::UNIX_EPOCH, rules, Arc::default());
        for row in 0..20 {
            let reject = Reject {
                file: None,
                row: Some(row),
                code: "type".into(),
                column: None,
                reason: "wrong".into(),
                raw: "x".repeat(WAITING_BYTES_MAX / 3),
            };
            desk.reject(vec![reject]).expect("is taken");
            let state = desk.state.lock();
            assert!(state.waiting.iter().map(|reject| reject.raw.len()).sum::<usize>() < WAITING_BYTES_MAX);
        }
        let (rows, mut stream) = desk.take().expect("hands out").expect("something");
        let mut found = 0;
        while let Some(batch) = stream.next().await {
            found += batch.expect("reads").num_rows();
        }
        assert_eq!((rows, found), (20, 20));
    }
}
