//! One run: plan, execute once, stage, check, balance the books, decide, publish. Nothing is visible in a destination before
//! the decision; after it, everything will be.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use datafusion::{
    common::TableReference,
    error::{DataFusionError, Result as DfResult},
    physical_plan::{ExecutionPlan, execute_stream},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_connectors::{Blame, Error, Purpose, Retry, RunContext, SinkContext, lake};
use weir_pipelines::Pipeline;

use crate::{
    books::{Books, ExpectationOutcome, Mends, SinkBooks, StepBooks, Summary},
    definition::Definition,
    drift,
    error::{Failure, Result, RunError},
    events::Event,
    expect::{self, Evaluated, Kept},
    given::{Given, Place},
    history::{Cursors, History, LoadRecord, RunStatus},
    known::Known,
    mend,
    plan::{self, Dataflow, Frugality, Inputs, PlannedStep},
    publish::{self, Destination, Undecided},
    quarantine::{self, Marks},
    share,
    spill::Spilled,
    step::{self, Reader, Role, Step, StepTable},
    transforms::Account,
    workspace::Workspace,
};

/// How a run is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Everything but the publish; what was staged is discarded.
    pub dry_run: bool,
    /// Sources forget what they remember: incremental ones are read anew, and columns are taken as they are.
    pub full_refresh: bool,
}

/// What lies between tries of a run that failed, before anything was decided, for a reason that may pass. Connectors have tried
/// for themselves what they could repeat alone.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// Who is told what happens.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Runs a pipeline once. Either everything it made is published, or nothing of it is visible anywhere.
pub async fn run(
    workspace: &Workspace,
    pipeline: &Pipeline,
    options: RunOptions,
    cancel: CancellationToken,
    events: Events,
) -> Result<Summary> {
    let history = workspace.history().await?;
    let _lock = workspace.lock(&pipeline.name.value)?;
    let started = Instant::now();
    let context = workspace.context(&pipeline.name.value, &history, cancel.child_token())?;
    if options.dry_run {
        publish::refuse_undecided(&history, &pipeline.name.value).await?;
    }
    for note in publish::recover(workspace, &history, &context).await? {
        events(Event::Note(note));
    }
    let mut summary = Attempt::new(workspace, pipeline, &history, context.clone(), options, &events, started).carry_out(cancel).await?;
    if summary.status == "published" {
        // The run is what it is: what could not be removed now is removed by a later one.
        match mend::purge_by_age(workspace, &history, context).await {
            Ok(note) => summary.notes.extend(note),
            Err(failure) => summary.notes.push(format!("old rows stay in quarantine: {}", failure.sentence())),
        }
    }
    Ok(summary)
}

/// Makes attempts until one succeeds or none may, and ends the run.
async fn attempts(mut attempt: Attempt<'_>, cancel: CancellationToken) -> Result<Summary> {
    let (workspace, history) = (attempt.workspace, attempt.history);
    history.begin(&attempt.context.run, &attempt.context.pipeline, &workspace.now()).await?;
    (attempt.events)(Event::Started { run: attempt.context.run.clone(), bytes_total: None });
    let mut frugality = Frugality::Fast;
    let mut pauses = PAUSES.into_iter();
    let outcome = loop {
        let ended = match attempt.make(frugality).await {
            Err(ended) if !cancel.is_cancelled() => ended,
            outcome => break outcome,
        };
        if exhausted(&ended) && frugality == Frugality::Fast {
            attempt.note("the first try needed more memory than its limit; a second one sorts and merges on disk instead".to_owned());
            frugality = Frugality::Frugal;
        } else if ended.passing()
            && let Some(pause) = pauses.next()
        {
            attempt.note(format!("{}; nothing was published, trying again in {} s", ended.failure.sentence(), pause.as_secs()));
            tokio::select! {
                () = cancel.cancelled() => break Err(ended),
                () = tokio::time::sleep(pause) => {}
            }
        } else {
            break Err(ended);
        }
        attempt.context = afresh(workspace, &attempt.context, frugality, &cancel)?;
    };
    let Ended { failure, decided, .. } = match outcome {
        Ok(summary) => return Ok(summary),
        Err(ended) => ended,
    };
    // A decided run stays as it is: whoever comes next rolls it forward.
    if decided {
        return Err(failure);
    }
    let failure = if cancel.is_cancelled() { Failure::Interrupted } else { failure };
    let (status, text, cause) = match &failure {
        Failure::Interrupted => (RunStatus::Interrupted, None, None),
        Failure::Error(error) => (RunStatus::Failed, Some(error.to_string()), Some((error.code, error.step.as_deref()))),
        Failure::Diagnostics(all) => {
            (RunStatus::Failed, all.first().map(|first| first.message.clone()), all.first().map(|first| (first.code, None)))
        }
    };
    if let Some((code, step)) = cause {
        history.note_cause(&attempt.context.run, code, step).await?;
    }
    history.end(&attempt.context.run, status, &workspace.now(), text.as_deref()).await?;
    Err(failure)
}

/// What a source remembers of a run: how far it was read, and which columns it had.
fn remembers(step: &PlannedStep) -> Option<BTreeMap<String, String>> {
    let mut entries = match &step.advance {
        // What nobody asked for was not read, whatever the source had listed: it is still to come.
        Some(_) if !step.step.read_to_end() => return None,
        Some(advance) => advance.entries(),
        None => BTreeMap::new(),
    };
    entries.insert(drift::MEMORY_KEY.to_owned(), step.shape.as_ref()?.encode());
    Some(entries)
}

/// A context for another try of the same run.
fn afresh(workspace: &Workspace, last: &RunContext, frugality: Frugality, cancel: &CancellationToken) -> Result<Arc<RunContext>> {
    let mut context = RunContext {
        cancel: cancel.child_token(),
        // The last try's pool may still be held by tasks that are ending.
        runtime: workspace.runtime(Some(workspace.state_dir.join("tmp").join(&last.pipeline)))?,
        ..last.clone()
    };
    if frugality == Frugality::Frugal {
        // DataFusion merges sorted inputs only when there is more than one stream.
        context.partitions = 2;
        context.batch_rows = 2048;
    }
    Ok(Arc::new(context))
}

/// How an attempt failed.
struct Ended {
    failure: Failure,
    /// The decision was recorded before, or may have been: the run is left to be rolled forward, not ended.
    decided: bool,
    /// It ended while it was staging, and all of that is discarded: the same run may try once more.
    staging: bool,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended { failure, decided: false, staging: false }
    }
}

impl Ended {
    /// Whether the same again may succeed: a connection was reset, a server was restarting.
    fn passing(&self) -> bool {
        self.staging && matches!(&self.failure, Failure::Error(error) if error.retry == Retry::Later)
    }
}

fn exhausted(ended: &Ended) -> bool {
    matches!(&ended.failure, Failure::Error(error) if !ended.decided && error.code == "memory-limit")
}

/// What a run does to rows of the quarantine besides.
pub(crate) struct Mending {
    /// The step that had set them aside.
    pub step: String,
    /// The rows in their mended form.
    pub given: Given,
    /// What the quarantine will say of them.
    pub ended: Spilled,
    /// What they are known by when the step rejects them once more.
    pub marks: Marks,
    /// For the summary.
    pub mends: Mends,
}

/// One run on its way.
pub(crate) struct Attempt<'a> {
    workspace: &'a Workspace,
    pipeline: &'a Pipeline,
    history: &'a History,
    context: Arc<RunContext>,
    options: RunOptions,
    events: &'a Events,
    started: Instant,
    notes: Vec<String>,
    mending: Option<Mending>,
}

impl<'a> Attempt<'a> {
    /// A run that begins. The caller holds the pipeline's lock, and has taken up what earlier processes left.
    pub(crate) fn new(
        workspace: &'a Workspace,
        pipeline: &'a Pipeline,
        history: &'a History,
        context: Arc<RunContext>,
        options: RunOptions,
        events: &'a Events,
        started: Instant,
    ) -> Self {
        Self { workspace, pipeline, history, context, options, events, started, notes: Vec::new(), mending: None }
    }

    /// A run that ends rows of the quarantine.
    pub(crate) fn mending(self, mending: Mending) -> Self {
        Self { mending: Some(mending), ..self }
    }

    /// Makes the run. Either everything is published, or nothing of it is visible anywhere.
    pub(crate) async fn carry_out(self, cancel: CancellationToken) -> Result<Summary> {
        attempts(self, cancel).await
    }

    fn note(&mut self, note: String) {
        (self.events)(Event::Note(note.clone()));
        self.notes.push(note);
    }

    async fn make(&mut self, frugality: Frugality) -> Result<Summary, Ended> {
        let mut inputs = Inputs::default();
        for source in self.pipeline.sources.iter().filter(|_| !self.options.full_refresh) {
            inputs.seen.insert(source.name.value.clone(), self.history.cursors(&self.pipeline.name.value, &source.name.value).await?);
        }
        if let Some(mending) = &self.mending {
            inputs.given.insert(mending.step.clone(), mending.given.clone());
        }
        let flow = self.unless_cancelled(plan::plan(self.pipeline, &self.context, Purpose::Run, frugality, &inputs)).await?;
        if let Some(mending) = &self.mending
            && let Some(planned) = flow.steps.iter().find(|planned| planned.step.name == mending.step)
        {
            planned.desk.take_as_mended(mending.marks.clone());
        }
        for drift in flow.steps.iter().flat_map(|step| &step.drift) {
            (self.events)(Event::Note(drift.to_string()));
        }
        let mut destinations = Vec::new();
        let staged = self.stage(&flow, &mut destinations).await;
        let mut summary = match staged {
            Ok(summary) if !self.options.dry_run && !self.context.cancel.is_cancelled() => summary,
            other => {
                let discarded = publish::discard(self.history, &self.context.run, &destinations).await;
                let mut summary = match (other, discarded) {
                    (Ok(summary), Ok(())) => summary,
                    (Err(failure), Ok(())) => return Err(Ended { staging: true, ..failure.into() }),
                    (Ok(_), Err(failure)) => return Err(failure.into()),
                    // The cause is told first; what is left behind is found by the next run.
                    (Err(failure), Err(left)) => {
                        return Err(Ended {
                            failure: failure.detail(format!("what was staged could not be removed: {}", left.sentence())),
                            decided: true,
                            staging: false,
                        });
                    }
                };
                if self.context.cancel.is_cancelled() {
                    return Err(Failure::Interrupted.into());
                }
                summary.status = "dry_run".to_owned();
                self.history.end(&summary.run, RunStatus::DryRun, &self.workspace.now(), None).await?;
                return Ok(summary);
            }
        };
        // A run that mends rows is about those, whatever it reads besides: sources learn nothing from it.
        let learning = flow.steps.iter().filter(|_| self.mending.is_none());
        let sources = learning.filter_map(|step| Some((step.step.name.clone(), remembers(step)?))).collect();
        let cursors = Cursors { sources, anew: self.options.full_refresh };
        // It is a part of the pipeline, too.
        let whole = self.mending.is_none();
        let definition = whole.then(|| Definition::of(self.pipeline, &inputs.contracts, &self.workspace.project));
        let run = &self.context.run;
        match publish::decide(self.history, run, &mut destinations, &cursors, definition.as_ref(), &mut summary).await {
            Ok(()) => {}
            Err(Undecided { failure, unknown: true }) => return Err(Ended { decided: true, ..failure.into() }),
            Err(Undecided { failure, unknown: false }) => {
                publish::discard(self.history, &self.context.run, &destinations).await?;
                return Err(failure.into());
            }
        }
        (self.events)(Event::Publishing);
        let now = || self.workspace.now();
        publish::publish(self.history, &self.context.run, &destinations, &mut summary, now)
            .await
            .map_err(|failure| Ended { decided: true, ..failure.into() })?;
        self.clock(&mut summary);
        if self.mending.is_none()
            && let Some(note) = self.keep_known(&flow).await
        {
            self.note(note.clone());
            summary.notes.push(note);
        }
        Ok(summary)
    }

    /// Keeps what systems outside have, for checks. What cannot be kept is no failure of the run: it is noted.
    async fn keep_known(&self, flow: &Dataflow) -> Option<String> {
        let known = Known::of(self.workspace, &self.pipeline.name.value, false);
        let mut kept = known.keep_sources(self.pipeline, &flow.steps);
        let destinations = futures::future::join_all(flow.sinks.iter().map(|sink| known.keep_destination(sink))).await;
        kept = destinations.into_iter().fold(kept, std::io::Result::and);
        kept.err().map(|error| known.unkept(&error))
    }

    /// Executes the dataflow once and leaves every destination sealed.
    async fn stage(&self, flow: &Dataflow, destinations: &mut Vec<Destination>) -> Result<Summary> {
        for sink in &flow.sinks {
            // One transaction at most may stay open as a stage: its commit will be the run's decision.
            let may_decide = destinations.iter().all(|destination: &Destination| !destination.load.decides());
            let others = flow.sinks.iter().filter(|other| other.name != sink.name);
            let beside = others.map(|other| other.sink.destination(&other.context)).collect();
            let context = SinkContext { may_decide, beside, ..sink.context.clone() };
            let opened = self.unless_cancelled(async { Ok(sink.sink.open(&sink.from.schema, &context).await) }).await?;
            let load = opened.map_err(|error| match error.blame {
                Blame::User => Failure::from(sink.pointed(&error)),
                _ => Failure::from_connector(&error).in_step(&sink.name),
            })?;
            let record = LoadRecord { sink: sink.name.clone(), kind: sink.kind.clone(), state: load.stage(), published: false };
            self.history.stage(&self.context.run, &record).await?;
            destinations.push(Destination { record, load });
        }
        let kept = self.execute(flow, destinations).await?;
        (self.events)(Event::Staged);
        for planned in &flow.steps {
            planned.desk.verdict(self.rows_in(planned)).map_err(|failure| failure.in_step(&planned.step.name))?;
        }
        self.met_again(flow)?;
        let evaluating = expect::evaluate(self.pipeline, &flow.checks, &kept, &flow.session, &self.context, Some(self.history));
        let evaluated = self.unless_cancelled(evaluating).await?;
        if let Some(failure) = unmet(&evaluated, &self.context.run) {
            return Err(failure);
        }
        let quarantined = self.unless_cancelled(self.quarantine(flow, destinations)).await?;
        let mut sinks = Vec::new();
        for (at, destination) in destinations.iter_mut().enumerate() {
            let sealing = async { destination.load.seal().await.map_err(|error| Failure::from_connector(&error)) };
            let sealed = self.unless_cancelled(sealing).await.map_err(|failure| failure.in_step(&destination.record.sink))?;
            destination.record.state = sealed.state;
            if let Some(sink) = flow.sinks.get(at) {
                sinks.push(SinkBooks {
                    step: sink.name.clone(),
                    kind: sink.kind.clone(),
                    from: sink.from.name.clone(),
                    rows_in: sink.taken.rows.load(Ordering::Relaxed),
                    rows_loaded: sealed.rows,
                    bytes: sealed.bytes,
                    destination: destination.load.destination(),
                    ..SinkBooks::default()
                });
            }
        }
        let books = Books { steps: flow.steps.iter().map(|planned| self.book(planned, &quarantined)).collect(), sinks };
        let mut wrong = books.imbalances();
        wrong.extend(self.torn_edges(flow));
        if !wrong.is_empty() {
            let mut failure = Failure::error("books", "the books do not balance, so nothing was published").blame(Blame::Weir);
            for sentence in wrong {
                failure = failure.detail(sentence);
            }
            return Err(failure.help("this is a defect of Weir: please report it with the pipeline file"));
        }
        let mut summary = self.summarize(books, evaluated.outcomes);
        summary.notes.extend(evaluated.note);
        summary.drift = flow.steps.iter().flat_map(|step| step.drift.clone()).collect();
        Ok(summary)
    }

    /// Refuses mended rows that no longer stand in an input that is read anew: they may stand there as they should be by now, and would be there twice.
    fn met_again(&self, flow: &Dataflow) -> Result<()> {
        let Some(mending) = self.mending.as_ref().filter(|mending| mending.given.place == Place::Beside) else { return Ok(()) };
        let Some(planned) = flow.steps.iter().find(|planned| planned.step.name == mending.step) else { return Ok(()) };
        let (met, rows) = (planned.desk.mended(), mending.given.rows.rows());
        if met == rows {
            return Ok(());
        }
        Err(Failure::error("input-changed", format!("{} of the {rows} rows to be mended are not in the input any more", rows - met))
            .in_step(&mending.step)
            .help("nothing was published; run the pipeline again: what is still wrong with its input then waits in quarantine"))
    }

    /// Gives up waiting when the run is cancelled.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.context.cancel.cancelled() => Err(Failure::Interrupted),
            done = work => done,
        }
    }

    /// Runs every sink and every tap side by side; the first failure stops the others.
    async fn execute(&self, flow: &Dataflow, destinations: &[Destination]) -> Result<Vec<Kept>> {
        // All readers are planned before any is executed: a shared step has to know who reads it.
        let mut plans = Vec::new();
        for sink in &flow.sinks {
            plans.push(reader(flow, &sink.from, &sink.taken).await.map_err(|error| explain_step(&error))?);
        }
        let mut taps = Vec::new();
        for tap in &flow.checks.taps {
            taps.push(reader(flow, &tap.step, &tap.taken).await.map_err(|error| explain_step(&error))?);
        }
        plans.iter().chain(&taps).for_each(share::arm);
        let tasks = flow.session.task_ctx();
        let mut work: JoinSet<(String, DfResult<Option<Kept>>)> = JoinSet::new();
        for ((sink, plan), destination) in flow.sinks.iter().zip(plans).zip(destinations) {
            let (name, load, tasks) = (sink.name.clone(), destination.load.clone(), tasks.clone());
            work.spawn(async move {
                let written = load.write_plan(plan, &tasks).await.map_err(|error| step::mark(&name, error));
                (name, written.map(|_| None))
            });
        }
        for (tap, plan) in flow.checks.taps.iter().zip(taps) {
            let (step, tasks, context) = (tap.step.clone(), tasks.clone(), self.context.clone());
            work.spawn(async move {
                let kept = match execute_stream(plan, tasks) {
                    Ok(rows) => expect::keep(&step, rows, &context).await,
                    Err(error) => Err(error),
                };
                (step.name.clone(), kept.map(Some))
            });
        }
        self.watch(flow, work).await
    }

    async fn watch(&self, flow: &Dataflow, mut work: JoinSet<(String, DfResult<Option<Kept>>)>) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let mut failure: Option<Failure> = None;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                biased;
                () = self.context.cancel.cancelled(), if failure.is_none() => {
                    failure = Some(Failure::Interrupted);
                    work.abort_all();
                }
                ended = work.join_next() => match ended {
                    None => break,
                    Some(Ok((_, Ok(rows)))) => kept.extend(rows),
                    Some(Ok((_, Err(error)))) => {
                        if failure.is_none() {
                            failure = Some(explain_step(&error));
                        }
                        self.context.cancel.cancel();
                        work.abort_all();
                    }
                    Some(Err(ended)) => {
                        if ended.is_panic() && failure.is_none() {
                            failure = Some(Failure::error("panic", "a task of the run panicked")
                                .blame(Blame::Weir)
                                .help("this is a defect of Weir: please report it with the pipeline file"));
                        }
                        work.abort_all();
                    }
                },
                _ = tick.tick() => {
                    let reads = || flow.steps.iter().filter_map(|planned| planned.read.as_ref());
                    (self.events)(Event::Progress {
                        rows_read: reads().map(|read| read.rows()).sum(),
                        bytes_read: reads().map(|read| read.bytes()).sum(),
                        rows_rejected: flow.steps.iter().map(|planned| planned.desk.rejected()).sum(),
                    });
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(kept),
        }
    }

    /// Writes what was set aside into quarantine loads, which publish with the others.
    async fn quarantine(&self, flow: &Dataflow, destinations: &mut Vec<Destination>) -> Result<HashMap<String, u64>> {
        let mut written = HashMap::new();
        let tasks = flow.session.task_ctx();
        for planned in &flow.steps {
            let Some((rows, stream)) = planned.desk.take()? else { continue };
            let step = &planned.step.name;
            let (sink, context) = quarantine::sink(step, &self.context);
            let failed = |error: Error| Failure::from_connector(&error).in_step(step);
            let load = sink.open(&quarantine::SCHEMA, &context).await.map_err(failed)?;
            let record = LoadRecord { sink: context.step.clone(), kind: lake::SINK.kind.to_owned(), state: load.stage(), published: false };
            self.history.stage(&self.context.run, &record).await?;
            destinations.push(Destination { record, load: load.clone() });
            let count = load.write_all(stream, &tasks).await.map_err(|error| explain_step(&step::mark(step, error)))?;
            if count != rows {
                return Err(
                    Failure::error("books", format!("{rows} rows of \"{step}\" were set aside and {count} written")).blame(Blame::Weir)
                );
            }
            written.insert(step.clone(), count);
        }
        if let Some(mending) = &self.mending {
            let failed = |error: Error| Failure::from_connector(&error).in_step(&mending.step);
            let (sink, context) = quarantine::ending_sink(&mending.step, &self.context);
            let load = sink.open(mending.ended.schema(), &context).await.map_err(failed)?;
            let record = LoadRecord { sink: context.step.clone(), kind: lake::SINK.kind.to_owned(), state: load.stage(), published: false };
            self.history.stage(&self.context.run, &record).await?;
            destinations.push(Destination { record, load: load.clone() });
            load.write_all(mending.ended.stream(), &tasks).await.map_err(|error| explain_step(&step::mark(&mending.step, error)))?;
        }
        Ok(written)
    }

    fn rows_in(&self, planned: &plan::PlannedStep) -> u64 {
        let own: u64 = match &planned.read {
            Some(read) => read.rows(),
            None => planned.taken.iter().map(|(_, reader)| reader.rows.load(Ordering::Relaxed)).sum(),
        };
        own + planned.given
    }

    fn book(&self, planned: &plan::PlannedStep, quarantined: &HashMap<String, u64>) -> StepBooks {
        let step = &planned.step;
        let rows_in = self.rows_in(planned);
        let rows_out = step.rows_out.load(Ordering::Relaxed);
        let rejected = planned.desk.rejected();
        let rows_quarantined = quarantined.get(&step.name).copied().unwrap_or(0);
        let rows_mended = planned.desk.mended();
        let missing = rows_in.saturating_sub(rows_out + rejected + rows_mended);
        // A step that a `limit` downstream stopped has no account: what it was not asked for it did not make.
        let stopped = planned.taken.iter().any(|(_, reader)| reader.stopped_early.load(Ordering::Relaxed));
        StepBooks {
            step: step.name.clone(),
            role: step.role.as_str().to_owned(),
            kind: step.kind.clone(),
            rows_in,
            rows_out,
            rows_quarantined,
            rows_dropped: if planned.desk.keeps() { 0 } else { rejected },
            rows_filtered: if planned.account == Account::Filtered { missing } else { 0 },
            rows_deduplicated: if planned.account == Account::Deduplicated { missing } else { 0 },
            rows_mended,
            conserves: planned.account != Account::Remakes && !stopped && !step.partial.load(Ordering::Relaxed),
            bytes: planned.read.as_ref().map_or(0, |read| read.bytes()),
        }
    }

    /// Every reader that read to the end took what the step gave, once for each of its scans.
    fn torn_edges(&self, flow: &Dataflow) -> Vec<String> {
        let sinks = flow.sinks.iter().map(|sink| (sink.from.as_ref(), sink.name.as_str(), &sink.taken));
        let taps = flow.checks.taps.iter().map(|tap| (tap.step.as_ref(), "an expectation", &tap.taken));
        sinks
            .chain(taps)
            .filter(|(_, _, reader)| !reader.stopped_early.load(Ordering::Relaxed))
            .filter_map(|(step, name, reader)| {
                let (gave, took) = (step.rows_out.load(Ordering::Relaxed), reader.rows.load(Ordering::Relaxed));
                (gave != took).then(|| format!("\"{}\" gave {gave} rows and \"{name}\" took {took}", step.name))
            })
            .collect()
    }

    /// Writes how long it took so far.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    fn clock(&self, summary: &mut Summary) {
        let elapsed = self.started.elapsed();
        summary.duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        summary.rows_per_second = (summary.rows_read as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    }

    fn summarize(&self, books: Books, expectations: Vec<ExpectationOutcome>) -> Summary {
        let sources = || books.steps.iter().filter(|step| step.role == Role::Source.as_str());
        let rows_read: u64 = sources().map(|step| step.rows_in).sum();
        let sum = |count: fn(&StepBooks) -> u64| books.steps.iter().map(count).sum();
        let mut summary = Summary {
            run: self.context.run.clone(),
            pipeline: self.context.pipeline.clone(),
            status: "staged".to_owned(),
            started_at: self.context.started_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            rows_read,
            rows_loaded: books.sinks.iter().map(|sink| sink.rows_loaded).sum(),
            rows_quarantined: sum(|step| step.rows_quarantined),
            rows_dropped: sum(|step| step.rows_dropped),
            rows_filtered: sum(|step| step.rows_filtered),
            rows_deduplicated: sum(|step| step.rows_deduplicated),
            bytes_read: sources().map(|step| step.bytes).sum(),
            bytes_loaded: books.sinks.iter().map(|sink| sink.bytes).sum(),
            books,
            expectations,
            params: self
                .pipeline
                .params
                .iter()
                .filter_map(|param| Some((param.name.value.clone(), param.value.as_ref()?.to_string())))
                .collect(),
            notes: self.notes.clone(),
            mends: self.mending.as_ref().map(|mending| mending.mends.clone()),
            ..Summary::default()
        };
        self.clock(&mut summary);
        summary
    }
}

/// What is said of expectations that do not hold and stop publishing: the first in full, the others below.
pub(crate) fn unmet(evaluated: &Evaluated, run: &str) -> Option<Failure> {
    let mut failed = evaluated.outcomes.iter().filter(|outcome| outcome.outcome == "failed");
    let first = failed.next()?;
    let sentence = |outcome: &ExpectationOutcome| format!("\"{}\" does not hold: {}", outcome.name, outcome.detail);
    let mut failure = Failure::error("expectation-failed", sentence(first)).in_step(&first.on);
    for other in failed {
        failure = failure.detail(format!("step \"{}\": {}", other.on, sentence(other)));
    }
    if let Some(note) = &evaluated.note {
        failure = failure.detail(note.clone());
    }
    failure = failure.help("nothing was published; mend the data or the step, or give the expectation severity = \"warn\"");
    if evaluated.outcomes.iter().any(|outcome| outcome.rows_kept > 0) {
        failure = failure.help(format!("see the rows that fail with: weir runs failing {run}"));
    }
    Some(failure)
}

/// The physical plan that reads a step's rows, counted in `reader`.
pub(crate) async fn reader(flow: &Dataflow, step: &Arc<Step>, reader: &Arc<Reader>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let session = plan::fork(&flow.session);
    let name = TableReference::bare(step.name.as_str());
    session.register_table(name.clone(), Arc::new(StepTable::new(step.clone(), reader.clone())))?;
    session.table(name).await?.create_physical_plan().await
}

/// What a failed dataflow has to say: the step, the cause, the setting.
pub(crate) fn explain_step(error: &DataFusionError) -> Failure {
    let failure = explain(error);
    match step::marked(error) {
        Some(step) => failure.in_step(step),
        None => failure,
    }
}

/// What an error of DataFusion has to say to the person who wrote the pipeline.
pub fn explain(error: &DataFusionError) -> Failure {
    let text = crate::sql::message(error);
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) || text.starts_with("resources exhausted") {
        return Failure::error("memory-limit", "the step needs more memory than the limit, even with what it can spill to disk")
            .detail(text.chars().take(300).collect::<String>())
            .help("raise [memory] limit in weir.toml, or make the step's rows narrower before it sorts, joins or groups");
    }
    if let Some(found) = Error::find(error) {
        // A sink that only passes on what its rows failed with is not to blame.
        if let Some(rows) = std::error::Error::source(found).and_then(|beneath| beneath.downcast_ref::<DataFusionError>())
            && found.code == "dataflow"
            && step::marked(rows).is_some()
        {
            return explain(rows);
        }
        return Failure::from_connector(found);
    }
    Failure::Error(Box::new(RunError {
        code: "run",
        message: text,
        step: None,
        details: Vec::new(),
        help: Vec::new(),
        blame: Blame::User,
        retry: Retry::Never,
    }))
}
