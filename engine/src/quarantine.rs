//! Where rejected rows go: counted, and by the author's word dropped, set aside, or the end of the run. The rows set aside
//! wait in a spill file and become a Delta table `<state>/quarantine/<pipeline>/<step>` with the run's other destinations.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
        new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type},
};
use chrono::{DateTime, Utc};
use datafusion::{
    error::DataFusionError,
    execution::{SendableRecordBatchStream, runtime_env::RuntimeEnv},
    prelude::{col, ident, lit, regexp_replace},
};
use parking_lot::Mutex;
use serde::Serialize;
use weir_connectors::spill::SpillWriter;
use weir_connectors::{Error, Reject, Rejects, RunContext, Sink, SinkContext, lake, quote::identifier};
use weir_pipelines::{Diagnostic, Mode, OnInvalid, OnSchemaChange, Rules, ShareMax};

use crate::{
    error::{Failure, Result},
    query::Session,
    reasons::Reasons,
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
        Field::new("id", DataType::Int64, true),
        text("fields", true),
        text("status", true),
        Field::new("ended_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        text("ended_run", true),
        text("ended_by", true),
        text("change", true),
        text("mended", true),
        text("went_to", true),
        text("note", true),
    ]))
});

/// The columns that say which row is meant, and what has become of it.
pub static ENDED: LazyLock<SchemaRef> = LazyLock::new(|| {
    let names = ["run", "id", "status", "ended_at", "ended_run", "ended_by", "change", "mended", "went_to", "note"];
    Arc::new(Schema::new(names.map(|name| SCHEMA.field_with_name(name).expect("one of them").clone()).to_vec()))
});

/// The status of a row that waits for somebody.
pub const OPEN: &str = "open";

/// Rows per batch of the spill file.
const BATCH_ROWS: usize = 1024;
/// Bytes of raw rows that wait for the spill file at most.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Reasons that a list names.
const REASONS_MAX: usize = 100;
/// Places in a list are told as one: there are as many as the longest list has items.
const PLACE: &str = r"/[0-9]+\b";
const ANY_PLACE: &str = "/*";
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
    /// Locked by whoever writes, and never while `state` is: nobody who only counts waits for a disk.
    spill: Mutex<Option<SpillWriter>>,
}

#[derive(Debug, Default)]
struct State {
    rejected: u64,
    waiting: Vec<Reject>,
    waiting_bytes: usize,
    examples: Vec<String>,
    reasons: Reasons,
    /// Rows that went to the spill file.
    spilled: i64,
    /// Rows that come in their mended form besides, and how many of them were met.
    mended: Marks,
    met: u64,
}

/// Rows for the spill file, and the number of the first among all that go there.
type Batch = (Vec<Reject>, i64);

impl State {
    /// What waits, to be written.
    fn waiting(&mut self) -> Batch {
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let first = self.spilled;
        self.spilled += waiting.len() as i64;
        (waiting, first)
    }
}

/// Rows known by where they stood and what they said, each so many times.
pub type Marks = HashMap<u128, u32>;

/// What a row is known by.
pub fn mark(file: Option<&str>, row: Option<u64>, raw: &str) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, file, row, raw).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

impl Desk {
    /// A desk for one step.
    pub fn new(run: &str, pipeline: &str, step: &str, at: DateTime<Utc>, rules: Rules, runtime: Arc<RuntimeEnv>) -> Self {
        let (run, pipeline, step) = (run.to_owned(), pipeline.to_owned(), step.to_owned());
        Self { run, pipeline, step, at, rules, runtime, state: Mutex::default(), spill: Mutex::default() }
    }

    /// The step.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Rows rejected so far.
    pub fn rejected(&self) -> u64 {
        self.state.lock().rejected
    }

    /// Says which rejected rows are not to be set aside, since the run takes them in their mended form.
    pub fn take_as_mended(&self, rows: Marks) {
        self.state.lock().mended = rows;
    }

    /// Rejected rows that were not set aside for that reason.
    pub fn mended(&self) -> u64 {
        self.state.lock().met
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
        for line in state.reasons.lines(EXAMPLES_MAX) {
            failure = failure.detail(line);
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
        let (rejected, last) = (state.rejected, state.waiting());
        drop(state);
        self.spill(last).map_err(Failure::from)?;
        let Some(spill) = self.spill.lock().take() else { return Ok(None) };
        let spilled = spill.finish().map_err(|error| Failure::from(spill_error(error)))?;
        Ok(Some((rejected, spilled.stream())))
    }

    fn spill(&self, (rejects, first): Batch) -> Result<(), Error> {
        if rejects.is_empty() {
            return Ok(());
        }
        let batch = self.batch(&rejects, first);
        drop(rejects);
        let mut spill = self.spill.lock();
        let spill = match &mut *spill {
            Some(spill) => spill,
            None => spill.insert(SpillWriter::create(&self.runtime, &SCHEMA, "rejected rows").map_err(spill_error)?),
        };
        spill.write(&batch).map_err(spill_error)
    }

    fn batch(&self, rejects: &[Reject], first: i64) -> RecordBatch {
        let mut texts: [StringBuilder; 8] = std::array::from_fn(|_| StringBuilder::new());
        let mut fields = StringBuilder::new();
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
            fields.append_option(reject.fields.as_ref());
            ats.append_value(self.at.timestamp_micros());
        }
        let [mut run, mut pipeline, mut step, mut file, mut code, mut column, mut reason, mut raw] = texts;
        let count = rejects.len();
        let mut columns: Vec<ArrayRef> = vec![
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
            Arc::new(Int64Array::from_iter_values(first..first + count as i64)),
            Arc::new(fields.finish()),
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(OPEN, count))),
        ];
        columns.extend(SCHEMA.fields()[columns.len()..].iter().map(|field| new_null_array(field.data_type(), count)));
        RecordBatch::try_new(SCHEMA.clone(), columns).expect("every column has one value per reject")
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
    fn reject(&self, mut rejects: Vec<Reject>) -> Result<(), Error> {
        let mut state = self.state.lock();
        if !state.mended.is_empty() {
            let state = &mut *state;
            rejects.retain(|reject| match state.mended.get_mut(&mark(reject.file.as_deref(), reject.row, &reject.raw)) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    state.met += 1;
                    false
                }
                _ => true,
            });
        }
        state.rejected += rejects.len() as u64;
        for reject in &rejects {
            if state.examples.len() < EXAMPLES_MAX {
                state.examples.push(describe(reject));
            }
            state.reasons.count(reject);
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
            let mut full = Vec::new();
            for reject in rejects {
                state.waiting_bytes += reject.raw.len();
                state.waiting.push(reject);
                if state.waiting.len() >= BATCH_ROWS || state.waiting_bytes >= WAITING_BYTES_MAX {
                    full.push(state.waiting());
                }
            }
            drop(state);
            for rejects in full {
                self.spill(rejects)?;
            }
        }
        Ok(())
    }
}

/// The sink that adds rows to a step's quarantine table, and what it is told.
pub fn sink(step: &str, run: &Arc<RunContext>) -> (Arc<dyn Sink>, SinkContext) {
    table_sink(step, format!("quarantine of {step}"), run, Mode::Append)
}

/// The sink that says what has become of rows there: by run and id, columns of [`ENDED`].
pub fn ending_sink(step: &str, run: &Arc<RunContext>) -> (Arc<dyn Sink>, SinkContext) {
    table_sink(step, format!("mended rows of {step}"), run, Mode::Merge)
}

/// The sink that leaves only the rows it is given there.
pub fn keeping_sink(step: &str, run: &Arc<RunContext>) -> (Arc<dyn Sink>, SinkContext) {
    table_sink(step, format!("kept rows of {step}"), run, Mode::Replace)
}

fn table_sink(step: &str, name: String, run: &Arc<RunContext>, mode: Mode) -> (Arc<dyn Sink>, SinkContext) {
    let folder = run.state_dir.join("quarantine").join(&run.pipeline).join(step);
    let context = SinkContext {
        run: run.clone(),
        step: name.clone(),
        folder: run.state_dir.clone(),
        mode,
        key: if mode == Mode::Merge { vec!["run".to_owned(), "id".to_owned()] } else { Vec::new() },
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
    /// Rows that wait there, of all runs.
    pub rows: u64,
    /// Runs that they are of.
    pub runs: u64,
    /// Rows that have been mended or discarded.
    pub ended: u64,
    /// Why, most frequent first, a hundred at most; of places in a list, `*` is any.
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

/// The condition that holds of rows that wait, as SQL over a table's columns: one of an earlier version knows no others.
pub fn waiting<'a>(mut columns: impl Iterator<Item = &'a str>) -> String {
    match columns.any(|name| name == "status") {
        true => format!("coalesce(status, '{OPEN}') = '{OPEN}'"),
        false => "true".to_owned(),
    }
}

/// Says that no rows of a step are there.
pub fn unknown_step(step: &str, pipeline: &str, steps: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::error("unknown-step", format!("no rows of a step \"{step}\" are in quarantine"))
        .did_you_mean(step, steps.iter().copied());
    match steps {
        [] => diagnostic.help(format!("nothing of \"{pipeline}\" is in quarantine")),
        steps => diagnostic.help(format!("steps with rows here are: {}", steps.join(", "))),
    }
}

/// Lists what is set aside, by pipeline and step.
pub async fn list(workspace: &Workspace, pipeline: Option<&str>) -> Result<Vec<QuarantineTable>> {
    let session = Session::open(workspace)?;
    let mut tables = Vec::new();
    for name in session.tables().await? {
        if name.catalog != "quarantine" || pipeline.is_some_and(|wanted| wanted != name.schema) {
            continue;
        }
        let table = format!("quarantine.{}.{}", identifier(&name.schema), identifier(&name.table));
        let column = format!("regexp_replace(\"column\", '{PLACE}', '{ANY_PLACE}', 'g')");
        let waits = waiting(name.columns.iter().map(|column| column.name.as_str()));
        let total = session
            .collect(&format!("select count(*) filter (where {waits}), count(distinct run) filter (where {waits}), count(*) from {table}"))
            .await?;
        let reasons = session
            .collect(&format!(
                "select code, {column}, count(*) as n from {table} where {waits} group by 1, 2 order by 3 desc, 1, 2 limit {REASONS_MAX}"
            ))
            .await?;
        let number = |batch: &RecordBatch, column: usize, row: usize| {
            u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(0)
        };
        let text = |batch: &RecordBatch, column: usize, row: usize| {
            let column = cast(batch.column(column), &DataType::Utf8).ok()?;
            let column = column.as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let rows = total.first().map_or(0, |batch| number(batch, 0, 0));
        tables.push(QuarantineTable {
            rows,
            ended: total.first().map_or(0, |batch| number(batch, 2, 0)) - rows,
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

/// Rows that break one rule, with some of them.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// The step.
    pub step: String,
    /// The rule.
    #[serde(flatten)]
    pub reason: Reason,
    /// The newest of them, at most as many as were asked for.
    pub examples: Vec<Waiting>,
}

/// A row that waits.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// The run that set it aside.
    pub run: String,
    /// Its file.
    pub file: Option<String>,
    /// Its line or number there.
    pub row: Option<u64>,
    /// What is wrong with it.
    pub reason: String,
    /// As it stood.
    pub raw: String,
}

/// Rules that are looked into for examples, per step: the most frequent ones.
const GROUPS_MAX: usize = 50;

/// What waits for each rule that was broken, with `examples` rows of each.
pub async fn groups(workspace: &Workspace, tables: &[QuarantineTable], code: Option<&str>, examples: usize) -> Result<Vec<Group>> {
    let session = Session::open(workspace)?;
    let explain = |error| crate::run::explain(&error);
    let mut groups = Vec::new();
    for table in tables {
        let frame = session.quarantined(&table.pipeline, &table.step).await?;
        let has_status = frame.schema().field_with_unqualified_name("status").is_ok();
        let reasons = table.reasons.iter().filter(|reason| code.is_none_or(|code| reason.code == code));
        for reason in reasons.take(GROUPS_MAX) {
            let mut wanted = col("code").eq(lit(reason.code.as_str()));
            wanted = wanted.and(match &reason.column {
                Some(column) => regexp_replace(col("column"), lit(PLACE), lit(ANY_PLACE), Some(lit("g"))).eq(lit(column.as_str())),
                None => col("column").is_null(),
            });
            if has_status {
                wanted = wanted.and(col("status").eq(lit(OPEN)).or(col("status").is_null()));
            }
            let order = vec![col("run").sort(false, false), col("file").sort(true, false), col("row").sort(true, false)];
            let rows = frame
                .clone()
                .filter(wanted)
                .and_then(|frame| frame.sort(order))
                .and_then(|frame| frame.limit(0, Some(examples)))
                .and_then(|frame| frame.select(["run", "file", "row", "reason", "raw"].map(ident)))
                .map_err(explain)?;
            let batches = rows.collect().await.map_err(explain)?;
            let found = batches.iter().map(waiting_rows).collect::<datafusion::error::Result<Vec<_>>>().map_err(explain)?;
            groups.push(Group { step: table.step.clone(), reason: reason.clone(), examples: found.into_iter().flatten().collect() });
        }
    }
    Ok(groups)
}

fn waiting_rows(batch: &RecordBatch) -> datafusion::error::Result<Vec<Waiting>> {
    let text =
        |at: usize| -> datafusion::error::Result<StringArray> { Ok(cast(batch.column(at), &DataType::Utf8)?.as_string::<i32>().clone()) };
    let (runs, files, reasons, raws) = (text(0)?, text(1)?, text(3)?, text(4)?);
    let rows = cast(batch.column(2), &DataType::UInt64)?;
    let rows = rows.as_primitive::<UInt64Type>();
    Ok((0..batch.num_rows())
        .map(|at| Waiting {
            run: runs.value(at).to_owned(),
            file: files.is_valid(at).then(|| files.value(at).to_owned()),
            row: rows.is_valid(at).then(|| rows.value(at)),
            reason: reasons.value(at).to_owned(),
            raw: raws.value(at).to_owned(),
        })
        .collect())
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
                fields: None,
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
