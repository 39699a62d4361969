//! The runner: claims tasks and runs them, within limits, and says what has become of each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_connectors::{Blame, Retry};
use weir_pipelines::Pipeline;

use super::{Notice, Outcome, Pipelines, Scheduler, TaskRef, named};
use crate::{
    books::Summary,
    error::{Failure, Result},
    events::Event,
    history::{
        RunStatus,
        tasks::{Ending, Origin, Task, TaskStatus},
    },
    run::{self, Assignment, RunOptions},
};

/// A run that fails because the state did not answer, or its lane was taken, is tried again after this.
const STATE_PAUSE: TimeDelta = TimeDelta::seconds(5);

/// Runs tasks in this process.
pub(super) struct Runner {
    scheduler: Arc<Scheduler>,
    /// Only tasks of this backfill.
    backfill: Option<String>,
    stop: CancellationToken,
    active: HashMap<String, Active>,
    work: JoinSet<Ended>,
    /// Runs that have ended, of which the state has not heard yet.
    unsettled: Vec<Ended>,
    measured: Option<Instant>,
    /// The latest that the clock has shown: one that is set back puts nothing off.
    latest: DateTime<Utc>,
}

/// How often queues are counted.
const MEASURED: Duration = Duration::from_secs(2);

struct Active {
    pipeline: String,
    lane: u32,
    cancel: CancellationToken,
    /// It is stopped because it takes too long.
    started: Instant,
    timeout: Option<Duration>,
}

struct Ended {
    task: Task,
    run: String,
    result: Result<Summary>,
    took: Duration,
    pipeline: Arc<Pipeline>,
    timed_out: bool,
    /// The run was stopped by this process's own end: the task waits for another one.
    stopped: bool,
}

impl Runner {
    pub fn new(scheduler: Arc<Scheduler>, backfill: Option<String>, stop: CancellationToken) -> Self {
        let latest = scheduler.now();
        Self { scheduler, backfill, stop, active: HashMap::new(), work: JoinSet::new(), unsettled: Vec::new(), measured: None, latest }
    }

    /// The tasks that this process is at.
    pub fn active(&self) -> HashSet<String> {
        self.active.keys().cloned().chain(self.unsettled.iter().map(|ended| ended.task.id.clone())).collect()
    }

    /// Waits until a run ends, and takes note; for ever where none is under way.
    pub async fn ended(&mut self) {
        match self.work.join_next().await {
            Some(Ok(ended)) => self.unsettled.push(ended),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// Lets what runs end.
    pub async fn drain(&mut self) {
        while !self.work.is_empty() {
            tokio::select! {
                ended = self.work.join_next() => {
                    self.unsettled.extend(ended.and_then(Result::ok));
                    let _ = self.settle().await;
                }
                // What is cancelled or takes too long is stopped all the same.
                () = tokio::time::sleep(super::LOOK) => {
                    if let Ok(open) = self.scheduler.history.open_tasks().await {
                        self.stop_some(&open);
                    }
                }
            }
        }
        // The state has a minute to hear of it; what it does not hear of, the next server finds out.
        let since = Instant::now();
        while self.settle().await.is_err() && since.elapsed() < Duration::from_secs(60) && !self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Settles what has ended, stops what is to be stopped, and starts what may start.
    pub async fn look(&mut self, pipelines: &Pipelines) -> Result<()> {
        while let Some(ended) = self.work.try_join_next() {
            self.unsettled.extend(ended);
        }
        self.settle().await?;
        let open = self.scheduler.history.open_tasks().await?;
        self.stop_some(&open);
        self.measure().await?;
        self.start(&open, pipelines).await
    }

    fn stop_some(&self, open: &[Task]) {
        for (id, active) in &self.active {
            let is_cancelled = open.iter().any(|task| task.id == *id && task.cancel);
            let is_over = active.timeout.is_some_and(|timeout| active.started.elapsed() > timeout);
            if is_cancelled || is_over {
                active.cancel.cancel();
            }
        }
    }

    async fn measure(&mut self) -> Result<()> {
        if self.measured.is_some_and(|measured| measured.elapsed() < MEASURED) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        let now = self.scheduler.now();
        let queues = self.scheduler.history.queues(now).await?;
        let mut gauges = self.scheduler.gauges.lock();
        gauges.running = self.active.len() as u64;
        gauges.queued.values_mut().for_each(|queued| *queued = 0);
        gauges.lag_ms.values_mut().for_each(|lag| *lag = 0);
        for (pipeline, waiting, oldest) in queues {
            gauges.lag_ms.insert(pipeline.clone(), u64::try_from((now - oldest).num_milliseconds()).unwrap_or(0));
            gauges.queued.insert(pipeline, waiting);
        }
        Ok(())
    }

    /// Starts what may start, in a fair order: what is asked for before a backfill, and of each pipeline one before a second of any.
    async fn start(&mut self, open: &[Task], pipelines: &Pipelines) -> Result<()> {
        let now = self.scheduler.now().max(self.latest);
        self.latest = now;
        let mut taken: BTreeSet<(&str, u32)> =
            open.iter().filter(|task| task.status == TaskStatus::Running).map(|task| (task.pipeline.as_str(), task.lane)).collect();
        let own: Vec<(String, u32)> = self.active.values().map(|active| (active.pipeline.clone(), active.lane)).collect();
        taken.extend(own.iter().map(|(pipeline, lane)| (pipeline.as_str(), *lane)));
        let mut ranks: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        let mut candidates = Vec::new();
        let meant = |task: &&Task| self.backfill.is_none() || task.backfill == self.backfill;
        let mut waiting: Vec<&Task> = open.iter().filter(|task| task.status == TaskStatus::Waiting).filter(meant).collect();
        // A backfill yields to what is scheduled or asked for. Within that, what was due first goes first.
        let place = |task: &Task| (task.origin == Origin::Backfill, task.due_at);
        waiting.sort_by(|one, other| place(one).cmp(&place(other)).then_with(|| one.id.cmp(&other.id)));
        for task in waiting {
            // Within a lane, in that order: one that waits to be tried again is waited for.
            if !taken.insert((&task.pipeline, task.lane)) {
                continue;
            }
            if task.not_before > now {
                continue;
            }
            let is_backfill = task.origin == Origin::Backfill;
            let rank = ranks.entry((&task.pipeline, is_backfill)).or_default();
            candidates.push((is_backfill, *rank, task));
            *rank += 1;
        }
        candidates.sort_by_key(|(is_backfill, rank, task)| (*is_backfill, *rank, task.due_at));
        for (_, _, task) in candidates {
            if self.active.len() >= self.scheduler.settings.runs_max {
                break;
            }
            self.start_one(task, open, pipelines).await?;
        }
        Ok(())
    }

    async fn start_one(&mut self, task: &Task, open: &[Task], pipelines: &Pipelines) -> Result<()> {
        let scheduler = self.scheduler.clone();
        let Some(pipeline) = pipelines.get(&task.pipeline) else {
            return put_off(&scheduler, task, "there is no such pipeline any more".to_owned()).await;
        };
        if task.origin == Origin::Schedule
            && let Some(missing) = self.waits_for(pipeline, task).await?
        {
            return put_off(&scheduler, task, format!("waits until \"{missing}\" has published for the interval")).await;
        }
        if let Some(full) = self.full(pipeline, pipelines, open) {
            return put_off(&scheduler, task, format!("waits: as many runs as may be use the connection \"{full}\"")).await;
        }
        let now = scheduler.now();
        let run = Uuid::now_v7().to_string();
        if !scheduler.history.claim(&task.id, &scheduler.server, &run, now).await? {
            return Ok(());
        }
        let schedule = pipeline.schedule.as_ref().filter(|_| matches!(task.origin, Origin::Schedule | Origin::Backfill));
        let timeout = schedule.and_then(|schedule| schedule.timeout);
        let cancel = self.stop.child_token();
        let active = Active { pipeline: task.pipeline.clone(), lane: task.lane, cancel: cancel.clone(), started: Instant::now(), timeout };
        self.active.insert(task.id.clone(), active);
        let delay_ms = u64::try_from((now - task.due_at).num_milliseconds()).unwrap_or(0);
        scheduler.tell(&Notice::Started { task: named(task, Some(&run)), delay_ms });
        let (task, pipeline, stop) = (task.clone(), pipeline.clone(), self.stop.clone());
        self.work.spawn(async move {
            let started = Instant::now();
            let assignment = Assignment { task: task.id.clone(), run: run.clone(), lane: task.lane };
            // On a thread of its own: planning is work for a processor, and what it holds need not move between threads.
            let (runtime, piece) = (tokio::runtime::Handle::current(), (pipeline.clone(), task.clone()));
            let work = tokio::task::spawn_blocking(move || {
                let (pipeline, task) = piece;
                runtime.block_on(carry_out(scheduler, pipeline, task, assignment, cancel))
            });
            let result = work.await.unwrap_or_else(|_| {
                Err(Failure::error("panic", "the run panicked").blame(Blame::Weir).help("this is a defect of Weir: please report it"))
            });
            let took = started.elapsed();
            let timed_out = timeout.is_some_and(|timeout| took > timeout) && matches!(result, Err(Failure::Interrupted));
            Ended { task, run, result, took, pipeline, timed_out, stopped: stop.is_cancelled() }
        });
        Ok(())
    }

    /// The pipeline that a task has to wait for, where there is one.
    async fn waits_for(&self, pipeline: &Pipeline, task: &Task) -> Result<Option<String>> {
        let (Some(schedule), Some((_, end))) = (&pipeline.schedule, task.interval) else { return Ok(None) };
        for before in &schedule.after {
            if !self.scheduler.history.published_to(&before.value, end).await? {
                return Ok(Some(before.value.clone()));
            }
        }
        Ok(None)
    }

    /// A connection of the pipeline that as many runs use as may.
    fn full(&self, pipeline: &Pipeline, pipelines: &Pipelines, open: &[Task]) -> Option<String> {
        let limits = &self.scheduler.settings.connection_runs_max;
        if limits.is_empty() {
            return None;
        }
        let here = self.active.iter().map(|(id, active)| (id.as_str(), active.pipeline.as_str()));
        let there = open.iter().filter(|task| task.status == TaskStatus::Running).map(|task| (task.id.as_str(), task.pipeline.as_str()));
        let running: BTreeMap<&str, &str> = here.chain(there).collect();
        let own = connections(pipeline);
        let is_full = |name: &String| {
            let Some(most) = limits.get(name) else { return false };
            let using = running.values().filter(|other| pipelines.get(**other).is_some_and(|other| connections(other).contains(name)));
            using.count() >= *most
        };
        own.into_iter().find(is_full)
    }

    /// Tells the state what has become of runs that ended.
    async fn settle(&mut self) -> Result<()> {
        for ended in &self.unsettled {
            self.active.remove(&ended.task.id);
        }
        while let Some(ended) = self.unsettled.last() {
            settle(&self.scheduler, ended).await?;
            self.unsettled.pop();
        }
        Ok(())
    }
}

/// Says why a task waits, where that was not said before.
async fn put_off(scheduler: &Scheduler, task: &Task, reason: String) -> Result<()> {
    if task.reason.as_deref() == Some(reason.as_str()) {
        return Ok(());
    }
    scheduler.history.put_off(&task.id, &reason).await
}

/// The connections that a pipeline's steps name.
fn connections(pipeline: &Pipeline) -> BTreeSet<String> {
    let sources = pipeline.sources.iter().map(|source| &source.settings);
    let sinks = pipeline.sinks.iter().map(|sink| &sink.settings);
    sources.chain(sinks).filter_map(|settings| settings.text("connection")).collect()
}

async fn carry_out(
    scheduler: Arc<Scheduler>,
    pipeline: Arc<Pipeline>,
    task: Task,
    assignment: Assignment,
    cancel: CancellationToken,
) -> Result<Summary> {
    let pipeline = if task.params.is_empty() {
        pipeline
    } else {
        let (catalogue, params) = (scheduler.catalogue.clone(), task.params.clone());
        let parsed = tokio::task::spawn_blocking(move || catalogue.pipeline(&task.pipeline, &params)).await;
        Arc::new(parsed.map_err(|_| Failure::error("panic", "reading the pipeline panicked").blame(Blame::Weir))??)
    };
    let interval = task.interval.map(|(start, end)| weir_connectors::Interval { start, end });
    let options = RunOptions { interval, assignment: Some(assignment), ..RunOptions::default() };
    let name = pipeline.name.value.clone();
    let events: run::Events = Arc::new(move |event| match event {
        Event::Note(note) => tracing::info!(pipeline = name, "{note}"),
        Event::Started { run, .. } => tracing::debug!(pipeline = name, run, "staging"),
        Event::Progress { .. } | Event::Staged | Event::Publishing => {}
    });
    run::run(&scheduler.workspace, &pipeline, options, cancel, events).await
}

/// What becomes of a task whose try has ended.
fn ending(ended: &Ended, now: DateTime<Utc>) -> (Ending<'static>, Outcome) {
    let wait = |pause: TimeDelta| Ending { not_before: Some(now + pause), ..Ending::of(TaskStatus::Waiting, None) };
    let failure = match &ended.result {
        Ok(_) => return (Ending { counts: true, ..Ending::of(TaskStatus::Published, None) }, Outcome::Published),
        Err(failure) => failure,
    };
    if ended.stopped && matches!(failure, Failure::Interrupted) {
        return (wait(TimeDelta::zero()), Outcome::Cancelled);
    }
    if matches!(failure, Failure::Interrupted) && !ended.timed_out {
        return (Ending { counts: true, ..Ending::of(TaskStatus::Cancelled, None) }, Outcome::Cancelled);
    }
    let (code, may_pass) = match failure {
        Failure::Error(error) => (error.code, error.retry == Retry::Later),
        Failure::Diagnostics(_) => ("", false),
        Failure::Interrupted => ("timeout", true),
    };
    // What has nothing to do with the pipeline is tried as often as it takes.
    if matches!(code, "state" | "lane-lost" | "already-running" | "task-lost") && may_pass {
        return (wait(STATE_PAUSE), Outcome::Failed);
    }
    let retry = ended.pipeline.schedule.as_ref().and_then(|schedule| schedule.retry.as_ref());
    match retry.filter(|retry| may_pass && ended.task.attempts + 1 < retry.attempts) {
        Some(retry) => {
            let pause = TimeDelta::from_std(backoff(retry, ended.task.attempts)).unwrap_or(TimeDelta::hours(1));
            (Ending { counts: true, ..wait(pause) }, Outcome::Failed)
        }
        None => (Ending { counts: true, ..Ending::of(TaskStatus::Failed, None) }, Outcome::Failed),
    }
}

/// How long to wait after a try, `before` others before it: full jitter, that is anything up to the bound, which doubles each time.
fn backoff(retry: &weir_pipelines::Retry, before: u32) -> Duration {
    let bound = retry.backoff.saturating_mul(2_u32.saturating_pow(before.min(30))).min(retry.backoff_max);
    // The last eight bytes of an id are random but for two bits at their head.
    let (_, random) = Uuid::now_v7().as_u64_pair();
    #[expect(clippy::cast_precision_loss, reason = "a share of a wait")]
    bound.mul_f64((random << 2) as f64 / u64::MAX as f64)
}

/// Whether a run that ended otherwise may be in some destination already.
async fn is_decided(scheduler: &Scheduler, run: &str) -> Result<bool> {
    let record = scheduler.history.run(run).await?;
    Ok(record.is_some_and(|record| matches!(record.status, RunStatus::Deciding | RunStatus::Publishing)))
}

async fn settle(scheduler: &Scheduler, ended: &Ended) -> Result<()> {
    let now = scheduler.now();
    let (mut ending, outcome) = ending(ended, now);
    let limit = ended.pipeline.schedule.as_ref().and_then(|schedule| schedule.timeout).unwrap_or_default();
    let error = match &ended.result {
        Err(Failure::Interrupted) if ended.timed_out => Some(format!("it ran longer than its timeout of {} s", limit.as_secs())),
        Err(Failure::Interrupted) => None,
        Err(failure) => Some(failure.sentence()),
        Ok(_) => None,
    };
    ending.reason = error.as_deref();
    if outcome != Outcome::Published && is_decided(scheduler, &ended.run).await? {
        // It will be in every destination, whatever kept it from that now: whoever looks after the dead brings it there.
        ending = Ending { not_before: Some(now + STATE_PAUSE), reason: error.as_deref(), ..Ending::of(TaskStatus::Waiting, None) };
        scheduler.history.leave_task(&ended.task.id, &ended.run, error.as_deref(), now).await?;
    } else {
        // Where it published, finishing the run has said so already.
        scheduler.history.end_task(&ended.task.id, &ended.run, ending, now).await?;
    }
    let code = match &ended.result {
        Err(Failure::Error(error)) => Some(error.code.to_owned()),
        Err(Failure::Diagnostics(found)) => found.first().map(|first| first.code.to_owned()),
        Err(Failure::Interrupted) => ended.timed_out.then(|| "timeout".to_owned()),
        Ok(_) => None,
    };
    let task: TaskRef = named(&ended.task, Some(&ended.run));
    let duration_ms = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX);
    let retry_at = ending.not_before.filter(|_| ending.status == TaskStatus::Waiting);
    let summary = ended.result.as_ref().ok().cloned().map(Box::new);
    scheduler.tell(&Notice::Ended { task, outcome, summary, code, error, duration_ms, retry_at });
    Ok(())
}
