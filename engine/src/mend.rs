//! Ends rows of the quarantine: mended and loaded through the rest of their pipeline, or discarded with a reason. Either is a run like any other,
//! whose destinations are the pipeline's and the quarantine itself: a row leaves the one as it enters the others, or neither happens.

mod ending;
mod purge;
pub mod select;
mod sift;

pub use purge::purge;
pub(crate) use purge::purge_by_age;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array},
    compute::cast,
    datatypes::{DataType, Schema, SchemaRef, UInt64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use futures::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_connectors::{Coordinates, Interval, Purpose, RunContext, SinkContext};
use weir_pipelines::{Mode, OnInvalid, Pipeline, SqlText};
use weir_schemas::json;

use self::{
    ending::Ending,
    select::{ASKED, Assignment, Rows, Selected},
    sift::Sifted,
};
use crate::{
    books::{Mends, Summary},
    delta, drift,
    error::{Failure, Result},
    given::{Given, Place},
    history::{History, RunStatus, lanes::Lane},
    interval,
    plan::{self, Frugality, Inputs, PlannedStep},
    publish,
    quarantine::{self, ENDED, Marks},
    query::Session,
    run::{Attempt, Events, Mending, RunOptions},
    step::Input,
    workspace::Workspace,
};

/// Rows shown of each kind in a preview.
pub const EXAMPLES_MAX: usize = 5;

/// Which rows of the quarantine are meant, and what is to become of them.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The step that set them aside; needed where several did.
    pub step: Option<String>,
    /// Only what this run set aside.
    pub run: Option<String>,
    /// Only rows with this reason's code.
    pub code: Option<String>,
    /// Only rows for which this is true.
    pub condition: Option<SqlText>,
    /// How they are changed; empty to discard them.
    pub assignments: Vec<Assignment>,
    /// Who asks for it.
    pub by: String,
    /// Why, in words.
    pub note: Option<String>,
}

/// What would become of the rows that are meant.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// The pipeline.
    pub pipeline: String,
    /// The step that had set them aside.
    pub step: String,
    /// Rows that are meant.
    pub rows: u64,
    /// Those that are valid now, or are to be discarded.
    pub ready: u64,
    /// Those that stay in quarantine.
    pub invalid: u64,
    /// Why, most frequent first.
    pub reasons: Vec<quarantine::Reason>,
    /// Some that are ready.
    pub examples: Vec<Example>,
    /// Some that stay.
    pub invalid_examples: Vec<Example>,
    /// Where ready rows go.
    pub destinations: Vec<String>,
    /// True where the pipeline has to read everything anew, since a step behind this one does not go row by row.
    pub anew: bool,
    /// True where the next run of the pipeline reads the same input again, with the rows as they stood.
    pub read_again: bool,
}

/// One row of a preview.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// Where it came from.
    pub file: Option<String>,
    /// Its line or number there.
    pub row: Option<u64>,
    /// As it stood.
    pub raw: String,
    /// What changed: column, old value and new value as text.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
    /// Why it stays.
    pub reason: Option<String>,
}

/// Rows that are meant, looked at and ready to be ended. Holds the pipeline's lane until it is dropped.
pub struct Prepared<'a> {
    workspace: &'a Workspace,
    history: History,
    context: Arc<RunContext>,
    cancel: CancellationToken,
    _lane: Lane,
    started: Instant,
    request: Request,
    step: String,
    found: Found,
    /// None to discard.
    route: Option<Route>,
    /// What earlier processes had left, in a sentence each.
    pub notes: Vec<String>,
    /// What would become of the rows.
    pub preview: Preview,
}

/// How mended rows reach their destinations.
struct Route {
    part: Pipeline,
    place: Place,
}

/// What a look at the rows found.
struct Found {
    /// The valid ones.
    rows: Option<Spilled>,
    /// What the quarantine will say of them.
    ended: Spilled,
    /// What they are known by.
    marks: Marks,
}

/// Looks at rows of a pipeline's quarantine and what `request` makes of them; none where no row waits. With a pipeline they are to be mended, or asked about by the step's columns.
pub async fn prepare<'a>(
    workspace: &'a Workspace,
    name: &str,
    pipeline: Option<&Pipeline>,
    request: Request,
    cancel: CancellationToken,
) -> Result<Option<Prepared<'a>>> {
    let history = workspace.history().await?;
    let lane = workspace.lane(&history, name, 0).await?;
    let history = history.in_lane(&lane);
    let started = Instant::now();
    let context = workspace.context(name, 0, &history, cancel.child_token())?;
    let notes = publish::recover(workspace, &history, &context, 0).await?;
    let session = Session::open(workspace)?;
    let Some(step) = choose_step(workspace, name, request.step.as_deref()).await? else { return Ok(None) };
    let mends = !request.assignments.is_empty();
    let planned = match pipeline {
        Some(pipeline) => plan_step(pipeline, &step, &context, &history, mends).await,
        None => Ok(None),
    };
    // What is to be discarded can be, whatever has become of the pipeline: only its columns cannot be asked about.
    let planned = match planned {
        Err(failure) if mends => return Err(failure),
        planned => planned.unwrap_or_default(),
    };
    let Looked { rows: schema, checks, flow_session, route } = match planned {
        Some(looked) => looked,
        None => Looked::nothing(&context),
    };
    let newest = match pipeline.filter(|pipeline| mends && !delta::is_incremental(pipeline, &step)) {
        Some(_) => newest_reading(&history, name).await?,
        None => None,
    };
    if let (Some(run), Some(newest)) = (&request.run, &newest)
        && run != newest
    {
        return Err(Failure::error("superseded", format!("what run {run} set aside has been read again since, by run {newest}"))
            .in_step(&step)
            .help("mend the rows of the newest run: leave out --run"));
    }
    let only_run = request.run.clone().or(newest);
    let frame = open_rows(&session, name, &step, only_run.as_deref(), request.code.as_deref()).await?;
    // What stands behind the step is told the interval that the rows came with.
    let context = match &route {
        Some(route) if mends && route.part.reads_interval() => {
            let interval = interval_of(&history, &step, &frame).await?;
            Arc::new(RunContext { interval, ..RunContext::clone(&context) })
        }
        _ => context,
    };
    // A transform's checks may have changed types before one of them refused a row.
    let plain = pipeline.is_some_and(|pipeline| pipeline.transforms.iter().any(|transform| transform.name.value == step));
    let selected = select::select(&flow_session, frame, &step, (&schema, plain), request.condition.as_ref(), &request.assignments).await?;
    let mut preview = Preview {
        pipeline: name.to_owned(),
        step: step.clone(),
        rows: 0,
        ready: 0,
        invalid: 0,
        reasons: Vec::new(),
        examples: Vec::new(),
        invalid_examples: Vec::new(),
        destinations: route.as_ref().map(|route| route.destinations(&context)).unwrap_or_default(),
        anew: route.as_ref().is_some_and(|route| route.place == Place::Beside),
        read_again: mends && pipeline.is_some_and(|pipeline| !delta::is_incremental(pipeline, &step)),
    };
    let look = Look { context: &context, request: &request, schema: &schema, checks: &checks, mends, cancel: &cancel };
    let found = look.at(selected, &mut preview).await?;
    Ok(Some(Prepared { workspace, history, context, cancel, _lane: lane, started, request, step, found, route, notes, preview }))
}

/// The step whose rows are meant; none where no row waits.
async fn choose_step(workspace: &Workspace, pipeline: &str, wanted: Option<&str>) -> Result<Option<String>> {
    let tables = quarantine::list(workspace, Some(pipeline)).await?;
    let steps: Vec<&str> = tables.iter().map(|table| table.step.as_str()).collect();
    match wanted {
        Some(step) if steps.contains(&step) => return Ok(Some(step.to_owned())),
        Some(step) => return Err(quarantine::unknown_step(step, pipeline, &steps).into()),
        None => {}
    }
    let open: Vec<&str> = tables.iter().filter(|table| table.rows > 0).map(|table| table.step.as_str()).collect();
    match open.as_slice() {
        [one] => Ok(Some((*one).to_owned())),
        [] => Ok(None),
        several => Err(Failure::error("which-step", format!("several steps of \"{pipeline}\" have rows in quarantine"))
            .help(format!("choose one with --step: {}", several.join(", ")))),
    }
}

/// What planning tells about a step.
struct Looked {
    /// What its checks take.
    rows: SchemaRef,
    checks: Vec<Arc<dyn crate::step::RowCheck>>,
    flow_session: SessionContext,
    route: Option<Route>,
}

impl Looked {
    /// Of a step that nothing is known of.
    fn nothing(context: &RunContext) -> Self {
        let session = plan::session(context.runtime.clone(), context.partitions, context.batch_rows, Frugality::Fast);
        Self { rows: Arc::new(Schema::empty()), checks: Vec::new(), flow_session: session, route: None }
    }
}

async fn plan_step(pipeline: &Pipeline, step: &str, context: &Arc<RunContext>, history: &History, mends: bool) -> Result<Option<Looked>> {
    let is_step = pipeline.sources.iter().any(|source| source.name.value == step)
        || pipeline.transforms.iter().any(|transform| transform.name.value == step);
    if !is_step {
        return Err(Failure::error("unknown-step", format!("\"{}\" has no step \"{step}\" any more", pipeline.name.value))
            .help("its rows can still be exported or discarded"));
    }
    let Some(mut part) = delta::part(pipeline, step) else {
        return Err(Failure::error("cannot-mend", format!("no sink takes rows of \"{step}\"")));
    };
    let inputs = Inputs { seen: drift::remembered(history, &part).await?, ..Inputs::default() };
    let flow = plan::plan(&part, context, Purpose::Plan, Frugality::Fast, &inputs).await?;
    let planned = flow.steps.iter().find(|planned| planned.step.name == step).expect("a sink takes rows of it");
    let place = if mends { place(pipeline, &part, step, &flow.steps)? } else { Place::Instead };
    if place == Place::Instead {
        for sink in &mut part.sinks {
            // Their other rows, or the rest of their group, are there already.
            if matches!(sink.mode.value, Mode::Replace | Mode::DeleteInsert) {
                sink.mode.value = Mode::Append;
                sink.key.clear();
            }
        }
        let rules = part.sources.iter_mut().map(|source| (&source.name, &mut source.rules));
        let rules = rules.chain(part.transforms.iter_mut().map(|transform| (&transform.name, &mut transform.rules)));
        for (_, rules) in rules.filter(|(name, _)| name.value == step) {
            // They have been through its checks.
            (rules.on_invalid, rules.max_invalid) = (OnInvalid::Fail, None);
        }
    }
    let rows = match &planned.step.input {
        Input::Provider(table) => table.schema(),
        Input::Plan(plan) => Arc::new(plan.schema().as_arrow().clone()),
    };
    let route = Some(Route { part, place });
    Ok(Some(Looked { rows, checks: planned.step.checks.clone(), flow_session: plan::fork(&flow.session), route }))
}

/// Whether mended rows can go to their destinations by themselves, or only with all others.
fn place(pipeline: &Pipeline, part: &Pipeline, step: &str, steps: &[PlannedStep]) -> Result<Place> {
    // The rows of an increment go through by themselves, whatever the steps do: the author has said so.
    if delta::is_incremental(pipeline, step) {
        return Ok(Place::Instead);
    }
    let behind = delta::downstream(part, step);
    let obstacle = steps.iter().filter(|planned| planned.step.name != step && behind.contains(&planned.step.name)).find_map(|planned| {
        let Input::Plan(plan) = &planned.step.input else { return None };
        delta::added(plan, &|table| behind.contains(table), false).err().map(|obstacle| (planned.step.name.as_str(), obstacle))
    });
    let Some((at, obstacle)) = obstacle else { return Ok(Place::Instead) };
    match part.sinks.iter().find(|sink| sink.mode.value == Mode::Append) {
        None => Ok(Place::Beside),
        Some(sink) => Err(Failure::error("cannot-mend", format!("rows cannot be added behind \"{at}\": it has {obstacle}"))
            .in_step(step)
            .detail(format!(
                "all rows would have to go through again, and sink \"{}\" appends: it would have the others twice",
                sink.name.value
            ))
            .help("mend the input and run the pipeline again, or let the sink merge by key")),
    }
}

impl Route {
    fn destinations(&self, context: &Arc<RunContext>) -> Vec<String> {
        let told = |sink: &weir_pipelines::Sink| {
            let kind = weir_connectors::SINKS.iter().find(|kind| kind.kind == sink.settings.kind.value)?;
            let made = (kind.read)(&sink.settings).ok()?;
            let context = SinkContext {
                run: context.clone(),
                step: sink.name.value.clone(),
                folder: self.part.folder.clone(),
                mode: sink.mode.value,
                key: Vec::new(),
                on_schema_change: sink.on_schema_change,
                allow_lossy: Vec::new(),
                may_decide: false,
                beside: Vec::new(),
            };
            Some(made.destination(&context))
        };
        let takes_part = |sink: &&weir_pipelines::Sink| {
            sink.profiles.is_empty() || sink.profiles.iter().any(|allowed| Some(allowed.value.as_str()) == context.profile.as_deref())
        };
        self.part.sinks.iter().filter(takes_part).filter_map(told).collect()
    }
}

/// The last published run that read the pipeline's whole input: rows that earlier ones set aside have been read again since.
async fn newest_reading(history: &History, pipeline: &str) -> Result<Option<String>> {
    const RUNS_MAX: u32 = 1000;
    let runs = history.runs(Some(pipeline), RUNS_MAX).await?;
    let reads = |summary: &Summary| summary.mends.as_ref().is_none_or(|mends| mends.anew);
    Ok(runs.into_iter().find(|run| run.status == RunStatus::Published && run.summary.as_ref().is_none_or(reads)).map(|run| run.run))
}

/// Rows of a step's quarantine table that wait for somebody.
async fn open_rows(session: &Session, pipeline: &str, step: &str, run: Option<&str>, code: Option<&str>) -> Result<DataFrame> {
    let explain = |error| crate::run::explain(&error);
    let frame = session.quarantined(pipeline, step).await?;
    if frame.schema().field_with_unqualified_name("status").is_err() {
        return Err(Failure::error(
            "cannot-mend",
            format!("the rows of \"{step}\" were set aside by an earlier version of Weir, without an id"),
        )
        .help("run the pipeline again: what it sets aside from now on can be mended"));
    }
    let mut wanted = col("id").is_not_null().and(col("status").eq(lit(quarantine::OPEN)));
    if let Some(run) = run {
        wanted = wanted.and(col("run").eq(lit(run)));
    }
    if let Some(code) = code {
        wanted = wanted.and(col("code").eq(lit(code)));
    }
    let columns = ASKED.map(datafusion::logical_expr::ident);
    let order = vec![col("run").sort(true, false), col("id").sort(true, false)];
    let frame = frame.filter(wanted).and_then(|frame| frame.sort(order)).and_then(|frame| frame.select(columns));
    frame.map_err(explain)
}

/// The interval that the run of these rows was for; it must be one run's.
async fn interval_of(history: &History, step: &str, frame: &DataFrame) -> Result<Option<Interval>> {
    let explain = |error| crate::run::explain(&error);
    let runs = frame.clone().select_columns(&["run"]).and_then(DataFrame::distinct).map_err(explain)?;
    let mut ids: Vec<String> = Vec::new();
    for batch in &runs.collect().await.map_err(explain)? {
        let text = cast(batch.column(0), &DataType::Utf8).map_err(|error| explain(error.into()))?;
        ids.extend(text.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let mut intervals = Vec::new();
    for id in &ids {
        let interval = history.run(id).await?.as_ref().and_then(interval::of_run);
        if !intervals.contains(&interval) {
            intervals.push(interval);
        }
    }
    match intervals.as_slice() {
        [] => Ok(None),
        [one] => Ok(*one),
        [_, ..] => Err(Failure::error("cannot-mend", "the rows are of several intervals, and the steps behind are told one")
            .in_step(step)
            .help("mend the rows of one run: --run RUN")),
    }
}

/// One look at the rows that are meant.
struct Look<'a> {
    context: &'a Arc<RunContext>,
    request: &'a Request,
    schema: &'a SchemaRef,
    checks: &'a [Arc<dyn crate::step::RowCheck>],
    mends: bool,
    cancel: &'a CancellationToken,
}

impl Look<'_> {
    async fn at(&self, selected: Selected, preview: &mut Preview) -> Result<Found> {
        let explain = |error| crate::run::explain(&error);
        let rows = selected.rows.clone();
        let mut stream = selected.frame.execute_stream().await.map_err(explain)?;
        let runtime = &self.context.runtime;
        let mut valid = match self.mends {
            true => Some(SpillWriter::create(runtime, self.schema, "mended rows").map_err(explain)?),
            false => None,
        };
        let mut ended = SpillWriter::create(runtime, &ENDED, "rows of the quarantine").map_err(explain)?;
        let mut marks = Marks::new();
        let mut reasons: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        loop {
            let batch = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Failure::Interrupted),
                batch = stream.next() => batch,
            };
            let Some(batch) = batch else { break };
            let batch = Rows::new(batch.map_err(explain)?, &rows);
            let sifted = match self.mends {
                true => sift::sift(&batch, self.schema, self.checks).map_err(explain)?,
                false => Sifted { rows: RecordBatch::new_empty(self.schema.clone()), wrong: vec![None; batch.count()] },
            };
            self.tell(&batch, &sifted, preview).map_err(explain)?;
            for wrong in sifted.wrong.iter().flatten() {
                *reasons.entry((wrong.code.clone(), wrong.column.clone())).or_default() += 1;
            }
            ended.write(&self.ended(&batch, &sifted, &preview.destinations).map_err(explain)?).map_err(explain)?;
            if let Some(valid) = &mut valid
                && sifted.rows.num_rows() > 0
            {
                valid.write(&sifted.rows).map_err(explain)?;
                // Only a run that reads everything anew meets them again.
                if preview.anew {
                    note_marks(&batch, &sifted, &mut marks).map_err(explain)?;
                }
            }
        }
        preview.reasons = reasons.into_iter().map(|((code, column), rows)| quarantine::Reason { code, column, rows }).collect();
        preview.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.rows));
        let rows = valid.map(SpillWriter::finish).transpose().map_err(explain)?;
        Ok(Found { rows, ended: ended.finish().map_err(explain)?, marks })
    }

    /// Counts rows and keeps some to show.
    fn tell(&self, batch: &Rows, sifted: &Sifted, preview: &mut Preview) -> datafusion::error::Result<()> {
        preview.rows += batch.count() as u64;
        let invalid = sifted.wrong.iter().flatten().count() as u64;
        preview.invalid += invalid;
        preview.ready += batch.count() as u64 - invalid;
        let wanted = |row: usize, preview: &Preview| match &sifted.wrong[row] {
            None => preview.examples.len() < EXAMPLES_MAX,
            Some(_) => preview.invalid_examples.len() < EXAMPLES_MAX,
        };
        if !(0..batch.count()).any(|row| wanted(row, preview)) {
            return Ok(());
        }
        let (files, raws) = (batch.asked("file")?, batch.asked("raw")?);
        let numbers = cast(batch.asked_as_it_is("row"), &DataType::UInt64)?;
        let numbers = numbers.as_primitive::<UInt64Type>();
        for row in 0..batch.count() {
            if !wanted(row, preview) {
                continue;
            }
            let example = Example {
                file: files.is_valid(row).then(|| files.value(row).to_owned()),
                row: numbers.is_valid(row).then(|| numbers.value(row)),
                raw: raws.value(row).to_owned(),
                changes: self.changes(batch, row)?,
                reason: sifted.wrong[row].as_ref().map(|wrong| wrong.reason.clone()),
            };
            match &sifted.wrong[row] {
                None => preview.examples.push(example),
                Some(_) => preview.invalid_examples.push(example),
            }
        }
        Ok(())
    }

    fn changes(&self, batch: &Rows, row: usize) -> datafusion::error::Result<Vec<(String, Option<String>, Option<String>)>> {
        let mut changes = Vec::new();
        for (at, field) in self.schema.fields().iter().enumerate() {
            if !self.request.assignments.iter().any(|assignment| assignment.column.value == *field.name()) {
                continue;
            }
            let (after, before) = batch.cell(at);
            let (after, before) = (after.slice(row, 1), before.slice(row, 1));
            if sift::changed(&before, &after)?.value(0) {
                changes.push((field.name().clone(), shown(&before)?, shown(&after)?));
            }
        }
        Ok(changes)
    }

    /// What the quarantine will say of the rows that are ready.
    fn ended(&self, batch: &Rows, sifted: &Sifted, destinations: &[String]) -> datafusion::error::Result<RecordBatch> {
        let ready = arrow::array::BooleanArray::from(sifted.wrong.iter().map(Option::is_none).collect::<Vec<_>>());
        let rows = ready.true_count();
        let texts = |text: Option<&str>| Arc::new(StringArray::from_iter(std::iter::repeat_n(text, rows))) as ArrayRef;
        let kept = |name: &str, to: &DataType| -> datafusion::error::Result<ArrayRef> {
            Ok(arrow::compute::filter(&cast(batch.asked_as_it_is(name), to)?, &ready)?)
        };
        let change: Vec<String> = self.request.assignments.iter().map(Assignment::words).collect();
        let (status, change, went_to) = match self.mends {
            true => ("mended", Some(change.join(", ")), Some(destinations.join(", "))),
            false => ("discarded", None, None),
        };
        let mended: ArrayRef = match self.mends {
            true => {
                // Where a row came from the quarantine knows already.
                let own = |at: &usize| ![Coordinates::FILE, Coordinates::ROW].contains(&self.schema.field(*at).name().as_str());
                let own = sifted.rows.project(&(0..self.schema.fields().len()).filter(own).collect::<Vec<_>>())?;
                let texts = (0..rows).map(|row| json::text(&own, row));
                Arc::new(StringArray::from_iter_values(texts))
            }
            false => new_null_array(&DataType::Utf8, rows),
        };
        let at = TimestampMicrosecondArray::from(vec![self.context.started_at.timestamp_micros(); rows]).with_timezone("UTC");
        Ok(RecordBatch::try_new(
            ENDED.clone(),
            vec![
                kept("run", &DataType::Utf8)?,
                kept("id", &DataType::Int64)?,
                texts(Some(status)),
                Arc::new(at),
                texts(Some(&self.context.run)),
                texts(Some(&self.request.by)),
                texts(change.as_deref()),
                mended,
                texts(went_to.as_deref()),
                texts(self.request.note.as_deref()),
            ],
        )?)
    }
}

/// A cell as text; none for null.
fn shown(cell: &ArrayRef) -> datafusion::error::Result<Option<String>> {
    if cell.is_null(0) {
        return Ok(None);
    }
    Ok(Some(ArrayFormatter::try_new(cell.as_ref(), &FormatOptions::default())?.value(0).to_string()))
}

fn note_marks(batch: &Rows, sifted: &Sifted, marks: &mut Marks) -> datafusion::error::Result<()> {
    let (files, raws) = (batch.asked("file")?, batch.asked("raw")?);
    let numbers = cast(batch.asked_as_it_is("row"), &DataType::UInt64)?;
    let numbers = numbers.as_primitive::<UInt64Type>();
    for row in (0..batch.count()).filter(|row| sifted.wrong[*row].is_none()) {
        let file = files.is_valid(row).then(|| files.value(row));
        let number = numbers.is_valid(row).then(|| numbers.value(row));
        *marks.entry(quarantine::mark(file, number, raws.value(row))).or_default() += 1;
    }
    Ok(())
}

impl Prepared<'_> {
    /// Ends the rows that are ready. Those that are not stay as they are.
    pub async fn carry_out(self, events: Events) -> Result<Summary> {
        let mends = Mends {
            step: self.step.clone(),
            rows: self.found.ended.rows(),
            status: if self.request.assignments.is_empty() { "discarded" } else { "mended" }.to_owned(),
            changes: self.request.assignments.iter().map(Assignment::words).collect(),
            by: self.request.by.clone(),
            anew: self.preview.anew,
        };
        let (Some(route), Some(rows)) = (self.route, self.found.rows) else {
            let sink = quarantine::ending_sink(&self.step, &self.context);
            let ending = Ending { workspace: self.workspace, history: &self.history, context: &self.context, sink, mends };
            return ending.carry_out(self.found.ended, self.started).await;
        };
        let mending = Mending {
            step: self.step.clone(),
            marks: self.found.marks,
            given: Given { rows, place: route.place },
            ended: self.found.ended,
            mends,
        };
        let attempt = Attempt::new(self.workspace, &route.part, &self.history, self.context, RunOptions::default(), &events, self.started);
        attempt.mending(mending).carry_out(self.cancel).await
    }
}
