//! One run: plan, execute once, stage, check, balance the books, decide, publish. Nothing is visible in a destination before
//! the decision; after it, everything will be.

mod account;
mod explain;
mod guess;

pub use explain::explain;
pub(crate) use explain::explain_step;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use datafusion::{
    common::TableReference,
    error::Result as DfResult,
    physical_plan::{ExecutionPlan, execute_stream},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use weir_connectors::spill::Spilled;
use weir_connectors::{Blame, Error, Interval, Purpose, Retry, RunContext, SinkContext, lake};
use weir_pipelines::Pipeline;

use crate::{
    books::{Books, ExpectationOutcome, Mends, SinkBooks, Summary},
    definition::Definition,
    drift,
    error::{Failure, Result},
    events::Event,
    expect::{self, Evaluated, Kept},
    given::{Given, Place},
    history::{Cursors, History, LoadRecord, RunStatus, Start, lanes},
    interval,
    known::Known,
    mend,
    plan::{self, Dataflow, Frugality, PlannedStep},
    publish::{self, Destination, Undecided},
    quarantine::{self, Marks},
    share,
    step::{self, Reader, Step, StepTable},
    trace,
    workspace::Workspace,
};

/// How a run is to be made.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Everything but the publish; what was staged is discarded.
    pub dry_run: bool,
    /// Sources forget what they remember: incremental ones are read anew, and columns are taken as they are.
    pub full_refresh: bool,
    /// The stretch of time that the run is for. Without one, a pipeline that reads it is not run.
    pub interval: Option<Interval>,
    /// What it is a try of; none of a run by hand.
    pub assignment: Option<Assignment>,
}

/// That a run is a try of a task.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The task's id.
    pub task: String,
    /// The id that the run is to have.
    pub run: String,
    /// The lane it is made in.
    pub lane: u32,
}

/// What lies between tries of a run that failed, before anything was decided, for a reason that may pass. Connectors have tried
/// for themselves what they could repeat alone.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// So long a try of a task waits for its lane, for the run before it may have published and not let go of it yet.
const LANE_WAIT: Duration = Duration::from_secs(3);

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
    interval::demand(pipeline, |_| true, options.interval, (workspace.clock)())?;
    let history = workspace.history().await?;
    let number = options.assignment.as_ref().map_or(0, |assignment| assignment.lane);
    let patience = options.assignment.as_ref().map_or(Duration::ZERO, |_| LANE_WAIT);
    let lane = workspace.lane_within(patience, &history, &pipeline.name.value, number, &cancel).await?;
    let history = history.in_lane(&lane);
    let cancel = cancel.child_token();
    let _watch = lane.watch(&cancel);
    let done = in_lane(workspace, pipeline, options, &history, number, cancel, &events).await;
    // Whatever a run without its lane fails with comes of what the lane's next holder does: its task is that one's by now, and has not failed.
    let done = match done {
        Err(failure) if lane.is_lost().await => Err(lanes::lost().detail(failure.sentence())),
        done => done,
    };
    lane.release().await;
    done
}

async fn in_lane(
    workspace: &Workspace,
    pipeline: &Pipeline,
    options: RunOptions,
    history: &History,
    lane: u32,
    cancel: CancellationToken,
    events: &Events,
) -> Result<Summary> {
    let started = Instant::now();
    let mut context = workspace.context(&pipeline.name.value, lane, history, cancel.child_token())?;
    context = Arc::new(RunContext { interval: options.interval, ..context.as_ref().clone() });
    if let Some(assignment) = &options.assignment {
        context = Arc::new(RunContext { run: assignment.run.clone(), ..context.as_ref().clone() });
    }
    if options.dry_run {
        publish::refuse_undecided(history, &pipeline.name.value).await?;
    }
    for note in publish::recover(workspace, history, &context, lane).await? {
        events(Event::Note(note));
    }
    let mut summary = Attempt::new(workspace, pipeline, history, context.clone(), options, events, started).carry_out(cancel).await?;
    if summary.status == "published" {
        // The run is what it is: what could not be removed now is removed by a later one.
        match mend::purge_by_age(workspace, history, context).await {
            Ok(note) => summary.notes.extend(note),
            Err(failure) => summary.notes.push(format!("old rows stay in quarantine: {}", failure.sentence())),
        }
    }
    Ok(summary)
}

/// Makes attempts until one succeeds or none may, and ends the run.
async fn attempts(mut attempt: Attempt<'_>, cancel: CancellationToken) -> Result<Summary> {
    let (workspace, history) = (attempt.workspace, attempt.history);
    let assignment = attempt.options.assignment.as_ref();
    let start = Start {
        run: &attempt.context.run,
        pipeline: &attempt.context.pipeline,
        started_at: &workspace.now(),
        lane: assignment.map_or(0, |assignment| assignment.lane),
        task: assignment.map(|assignment| assignment.task.as_str()),
        interval: attempt.options.interval.map(|interval| (interval.start, interval.end)),
    };
    history.begin(start).await?;
    (attempt.events)(Event::Started { run: attempt.context.run.clone(), bytes_total: None });
    let mut frugality = Frugality::Fast;
    let mut pauses = PAUSES.into_iter();
    let outcome = loop {
        let ended = match attempt.make(frugality).await {
            Err(ended) if !cancel.is_cancelled() => ended,
            outcome => break outcome,
        };
        if ended.has_code(guess::REFUTED) && attempt.purpose == Purpose::Try {
            attempt.note(guess::refuted(&ended.failure));
            attempt.purpose = Purpose::Run;
        } else if exhausted(&ended) && frugality == Frugality::Fast {
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
        } else if !ended.guessed.is_empty() {
            // What failed may have failed for a type that some record further on does not have.
            attempt.context = afresh(workspace, &attempt, frugality, &cancel)?;
            if attempt.bears_out(&ended.guessed, frugality).await {
                break Err(ended);
            }
            attempt.purpose = Purpose::Run;
        } else {
            break Err(ended);
        }
        attempt.context = afresh(workspace, &attempt, frugality, &cancel)?;
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
        // Only all rows bear a guess out.
        None if step.guessed && !step.step.read_to_end() => return None,
        Some(advance) => advance.entries(),
        None => BTreeMap::new(),
    };
    entries.insert(drift::MEMORY_KEY.to_owned(), step.shape.as_ref()?.encode());
    Some(entries)
}

/// A context for another try of the same run.
fn afresh(workspace: &Workspace, attempt: &Attempt<'_>, frugality: Frugality, cancel: &CancellationToken) -> Result<Arc<RunContext>> {
    let last = attempt.context.as_ref();
    let lane = attempt.options.assignment.as_ref().map_or(0, |assignment| assignment.lane);
    let mut context = RunContext {
        cancel: cancel.child_token(),
        // The last try's pool may still be held by tasks that are ending.
        runtime: workspace.runtime(Some(workspace.spill(&last.pipeline, lane)))?,
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
    /// Sources whose columns' types were a guess that no row had refuted by then.
    guessed: Vec<guess::Guess>,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended { failure, decided: false, staging: false, guessed: Vec::new() }
    }
}

impl Ended {
    fn has_code(&self, code: &str) -> bool {
        matches!(&self.failure, Failure::Error(error) if !self.decided && error.code == code)
    }

    /// Whether the same again may succeed: a connection was reset, a server was restarting.
    fn passing(&self) -> bool {
        self.staging && matches!(&self.failure, Failure::Error(error) if error.retry == Retry::Later)
    }
}

fn exhausted(ended: &Ended) -> bool {
    ended.has_code("memory-limit")
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
    /// To read every row, by a guess as long as none has misled.
    purpose: Purpose,
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
        Self { workspace, pipeline, history, context, options, events, started, notes: Vec::new(), mending: None, purpose: Purpose::Try }
    }

    /// A run that ends rows of the quarantine.
    pub(crate) fn mending(self, mending: Mending) -> Self {
        Self { mending: Some(mending), ..self }
    }

    /// Makes the run. Either everything is published, or nothing of it is visible anywhere.
    pub(crate) async fn carry_out(self, cancel: CancellationToken) -> Result<Summary> {
        let span = trace::run(&self.context);
        let outcome = attempts(self, cancel).instrument(span.clone()).await;
        trace::end(&span, &outcome);
        outcome
    }

    fn note(&mut self, note: String) {
        (self.events)(Event::Note(note.clone()));
        self.notes.push(note);
    }

    async fn make(&mut self, frugality: Frugality) -> Result<Summary, Ended> {
        let inputs = self.inputs().await?;
        let flow = self.flow(&inputs, frugality).await?;
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
                    (Err(failure), Ok(())) => {
                        return Err(Ended { staging: true, guessed: guess::made(&flow), ..failure.into() });
                    }
                    (Ok(_), Err(failure)) => return Err(failure.into()),
                    // The cause is told first; what is left behind is found by the next run.
                    (Err(failure), Err(left)) => {
                        let failure = failure.detail(format!("what was staged could not be removed: {}", left.sentence()));
                        return Err(Ended { decided: true, ..failure.into() });
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
            .instrument(trace::publish(destinations.len()))
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
            let span = trace::load(&sink.name, &sink.kind);
            let loading = async move {
                let written = trace::loading(load.write_plan(plan, &tasks)).await.map_err(|error| step::mark(&name, error));
                (name, written.map(|_| None))
            };
            work.spawn(loading.instrument(span));
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
            let loading = trace::loading(load.write_all(stream, &tasks)).instrument(trace::load(&context.step, lake::SINK.kind));
            let count = loading.await.map_err(|error| explain_step(&step::mark(step, error)))?;
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
