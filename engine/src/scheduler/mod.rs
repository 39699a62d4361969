//! When what runs by itself: from schedules to tasks, from tasks to runs, on one server or several.
//!
//! A server does four things, over and over, and each of them can be repeated or be interrupted at any instant. It says that it lives. Where it
//! leads, it cuts what is due of schedules and triggers into tasks (`leader.rs`). It claims tasks and runs them (`runner.rs`). And it takes up what
//! dead processes left (`heir.rs`). All that must not be lost or doubled is in the state before it is acted upon.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_pipelines::Pipeline;

use crate::{
    error::{Failure, Result},
    history::{
        History, Span,
        servers::Leadership,
        tasks::{NewTask, Origin, Task, TaskStatus},
    },
    workspace::Workspace,
};

pub mod arrivals;
pub mod backfill;
pub mod catalogue;
mod heir;
mod leader;
pub mod notice;
mod runner;

pub use catalogue::{Catalogue, Look, Pipelines};
pub use notice::{Notice, Outcome, TaskRef};

use heir::Heir;
use leader::Leader;
use runner::Runner;

/// A tick that is seen later than this after its instant was missed.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);
/// Nothing is waited for longer than this without a look round.
const LOOK: Duration = Duration::from_millis(500);
/// How often a server says that it lives.
const BEAT: Duration = Duration::from_secs(3);
/// How often the leader says that it leads.
const LEADS: Duration = Duration::from_secs(3);
/// A look that takes longer than this is told of: the state does not answer.
const ANSWERS: Duration = Duration::from_secs(5);
/// One that takes longer than this is given up.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// A clock that differs from the time that has passed by more than this has jumped.
const JUMP: TimeDelta = TimeDelta::seconds(2);

/// How a server works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name among others, for people.
    pub name: String,
    /// Runs at once in this process.
    pub runs_max: usize,
    /// Runs at once that use a connection, on all servers together.
    pub connection_runs_max: BTreeMap<String, usize>,
}

/// Who is told what happens.
pub type Tell = Arc<dyn Fn(&Notice) + Send + Sync>;

/// What a scheduler is at, for metrics.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Tasks that wait and are due, by pipeline.
    pub queued: BTreeMap<String, u64>,
    /// Runs that this process is at.
    pub running: u64,
    /// Milliseconds since the oldest task that has not published was due, by pipeline.
    pub lag_ms: BTreeMap<String, u64>,
    /// This server leads.
    pub leading: bool,
}

/// A server's scheduler.
pub struct Scheduler {
    workspace: Workspace,
    history: History,
    catalogue: Arc<dyn Catalogue>,
    settings: Settings,
    tell: Tell,
    /// This process among the servers of the state.
    server: String,
    /// Something was asked for: look round at once.
    awake: Notify,
    gauges: Mutex<Gauges>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Something that is asked for beside the clock.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The pipeline's name.
    pub pipeline: String,
    /// Values of its parameters.
    pub params: BTreeMap<String, String>,
    /// The interval that it is to be run for.
    pub interval: Option<Span>,
    /// The same asked for again by this key is the same task.
    pub key: Option<String>,
}

impl Scheduler {
    /// Puts a scheduler together; nothing happens yet.
    pub async fn new(workspace: Workspace, catalogue: Arc<dyn Catalogue>, settings: Settings, tell: Tell) -> Result<Arc<Self>> {
        let history = workspace.history().await?;
        Ok(Arc::new(Self {
            workspace,
            history,
            catalogue,
            settings,
            tell,
            server: Uuid::now_v7().to_string(),
            awake: Notify::new(),
            gauges: Mutex::default(),
        }))
    }

    /// The state.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What it is at.
    pub fn gauges(&self) -> Gauges {
        self.gauges.lock().clone()
    }

    fn now(&self) -> DateTime<Utc> {
        (self.workspace.clock)()
    }

    fn tell(&self, notice: &Notice) {
        (self.tell)(notice);
    }

    /// Serves until `drain` is cancelled; then lets what runs end, or stops it when `stop` is cancelled. With an SQLite state, one process serves at a time.
    pub async fn serve(self: Arc<Self>, drain: CancellationToken, stop: CancellationToken) -> Result<()> {
        let _alone = if self.history.is_shared() { None } else { Some(self.alone()?) };
        let _alive = self.alive()?;
        let beat = tokio::spawn(self.clone().beat(drain.clone()));
        let mut leader = Leader::default();
        let mut runner = Runner::new(self.clone(), None, stop.clone());
        let (mut time, mut reach) = (Passing::new(self.now()), Reach::Well);
        let mut leads = false;
        let mut heir = Heir::new(stop.clone());
        while !drain.is_cancelled() {
            if let Some(by) = time.pass(self.now()) {
                let by_ms = by.num_milliseconds();
                self.tell(&Notice::ClockJumped { by_ms });
                let text = format!("the clock jumped by {by_ms} ms");
                let _ = self.history.note_event("clock_jumped", None, None, &text, self.now()).await;
            }
            // A state that does not answer holds up nobody who wants to end.
            let looked = tokio::select! {
                looked = self.look_within(&mut leader, &mut runner, &mut heir, &mut reach) => looked,
                () = drain.cancelled() => break,
            };
            let is_well = looked.is_ok();
            match looked {
                Ok(()) if reach == Reach::Well => {}
                Ok(()) => {
                    self.hear(&mut reach, Reach::Well, None);
                }
                Err(_) if reach == Reach::Gone => {}
                Err(failure) => {
                    self.hear(&mut reach, Reach::Gone, Some(failure.sentence()));
                }
            }
            let leading = leader.leadership.is_some();
            if leading != leads {
                leads = leading;
                self.tell(&Notice::Leading(leading));
            }
            self.gauges.lock().leading = leading;
            // What is due is not asked for over and over while the state is gone.
            let next = leader.next_tick(self.now()).filter(|_| is_well);
            let wait = next.map_or(LOOK, |wait| wait.min(LOOK));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.awake.notified() => {}
                () = runner.ended() => {}
                () = drain.cancelled() => {}
            }
        }
        // Others may lead at once; what runs here ends here.
        leader.leadership = None;
        let _ = self.history.server_ends_leading(&self.server).await;
        tokio::join!(runner.drain(), heir.end());
        beat.abort();
        self.history.server_ends(&self.server).await
    }

    /// Looks round once, and says so where the state keeps it waiting.
    async fn look_within(self: &Arc<Self>, leader: &mut Leader, runner: &mut Runner, heir: &mut Heir, reach: &mut Reach) -> Result<()> {
        let looking = tokio::time::timeout(LOOK_MAX, self.look(leader, runner, heir));
        tokio::pin!(looking);
        let looked = match tokio::time::timeout(ANSWERS, &mut looking).await {
            Ok(looked) => looked,
            Err(_) => {
                if *reach == Reach::Well {
                    self.hear(reach, Reach::Silent, Some(format!("no answer within {} s", ANSWERS.as_secs())));
                }
                looking.await
            }
        };
        looked.unwrap_or_else(|_| Err(Failure::error("state", "the run history does not answer")))
    }

    /// Tells of it where the state can be reached no longer, or can again.
    fn hear(&self, reach: &mut Reach, now: Reach, why: Option<String>) {
        let before = std::mem::replace(reach, now);
        if before != now {
            self.tell(&Notice::State { reachable: now == Reach::Well, why });
        }
    }

    /// Looks round once.
    async fn look(self: &Arc<Self>, leader: &mut Leader, runner: &mut Runner, heir: &mut Heir) -> Result<()> {
        if leader.leadership.is_none() || leader.led_at.is_none_or(|at| at.elapsed() > LEADS) {
            leader.leadership = self.history.lead(&self.server, leader.leadership, !self.history.is_shared()).await?;
            leader.led_at = Some(Instant::now());
        }
        let pipelines = self.pipelines().await?;
        if leader.leadership.is_some()
            && let Err(failure) = leader.look(self, &pipelines).await
        {
            // Whether it still leads is asked before anything else.
            leader.led_at = None;
            match &failure {
                // Another server does what this one would have done.
                Failure::Error(error) if error.code == "not-leading" => leader.leadership = None,
                _ => return Err(failure),
            }
        }
        if leader.leadership.is_none() {
            leader.forget();
        }
        heir.look(self, &runner.active(), None).await?;
        runner.look(&pipelines).await
    }

    /// The pipelines as their files are now.
    async fn pipelines(&self) -> Result<Pipelines> {
        let catalogue = self.catalogue.clone();
        let look = tokio::task::spawn_blocking(move || catalogue.look());
        let look = look.await.map_err(|_| Failure::error("panic", "reading the pipelines panicked").blame(weir_connectors::Blame::Weir))?;
        for (pipeline, message) in look.broken {
            let _ = self.history.note_event("broken", Some(&pipeline), None, &message, self.now()).await;
            self.tell(&Notice::Broken { pipeline, message });
        }
        for pipeline in look.mended {
            self.tell(&Notice::Mended { pipeline });
        }
        Ok(look.pipelines)
    }

    /// Says that this server lives, until the task is ended.
    async fn beat(self: Arc<Self>, drain: CancellationToken) {
        let started = self.now();
        let mut beats = 0_u64;
        loop {
            if let Err(failure) = self.history.server_lives(&self.server, &self.settings.name, started).await {
                tracing::warn!(error = failure.sentence(), "the state does not hear that this server lives");
            }
            if beats.is_multiple_of(1200) && !drain.is_cancelled() {
                let _ = self.history.forget_servers().await;
            }
            beats += 1;
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Sees to it that no other process serves this state; until this is dropped.
    fn alone(&self) -> Result<std::fs::File> {
        // No pipeline has a dot in its name.
        self.workspace.lock("weir.serve").map_err(|failure| match failure {
            Failure::Error(error) if error.code == "already-running" => {
                Failure::error("already-serving", "another weir serve is running for this project")
                    .help("several servers need a Postgres state: set [state] url in weir.toml")
            }
            other => other,
        })
    }

    /// Lets other processes on this machine see that this one lives; until what is returned is dropped.
    fn alive(&self) -> Result<Alive> {
        let name = heir::server_lock(&self.server);
        Ok(Alive { path: self.workspace.state_dir.join("locks").join(format!("{name}.lock")), _file: self.workspace.lock(&name)? })
    }

    /// Adds a task that is asked for, or finds the one that was asked for by the same key. Returns it.
    pub async fn request(&self, request: Request, origin: Origin) -> Result<Task> {
        // What cannot be run is refused now.
        let (catalogue, name, params) = (self.catalogue.clone(), request.pipeline.clone(), request.params.clone());
        let parsed = tokio::task::spawn_blocking(move || catalogue.pipeline(&name, &params)).await;
        let pipeline =
            parsed.map_err(|_| Failure::error("panic", "reading the pipeline panicked").blame(weir_connectors::Blame::Weir))??;
        if pipeline.reads_interval() && request.interval.is_none() {
            return Err(Failure::error("interval-missing", format!("pipeline \"{}\" reads the interval of its run", request.pipeline))
                .help("give the interval to run"));
        }
        let now = self.now();
        let task = NewTask {
            interval: request.interval,
            params: request.params,
            key: request.key.clone(),
            ..task(&request.pipeline, origin, now)
        };
        self.history.add_tasks(std::slice::from_ref(&task), now).await?;
        self.awake.notify_one();
        let found = match &request.key {
            Some(key) => self.history.task_by_key(&request.pipeline, key).await?,
            None => self.history.task(&task.id).await?,
        };
        found.ok_or_else(|| Failure::error("state", "a task that was added is not there").blame(weir_connectors::Blame::Weir))
    }

    /// Runs what is left of a backfill, here and now, beside servers that may run of it too. `stop` stops what runs here; what is left waits.
    pub async fn work_off(self: Arc<Self>, backfill: &str, stop: CancellationToken) -> Result<()> {
        let _alive = self.alive()?;
        let beat = tokio::spawn(self.clone().beat(CancellationToken::new()));
        let mut runner = Runner::new(self.clone(), Some(backfill.to_owned()), stop.clone());
        let mut heir = Heir::new(stop.clone());
        let done = async {
            while !stop.is_cancelled() {
                let pipelines = self.pipelines().await?;
                heir.look(&self, &runner.active(), Some(backfill)).await?;
                runner.look(&pipelines).await?;
                let open = self.history.tasks_of(backfill).await?;
                if !open.iter().any(|task| matches!(task.status, TaskStatus::Waiting | TaskStatus::Running)) {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = runner.ended() => {}
                    () = stop.cancelled() => {}
                }
            }
            Ok(())
        };
        let done = done.await;
        tokio::join!(runner.drain(), heir.end());
        beat.abort();
        self.history.server_ends(&self.server).await?;
        done
    }
}

/// A task of a pipeline that is due now.
fn task(pipeline: &str, origin: Origin, now: DateTime<Utc>) -> NewTask {
    NewTask {
        id: Uuid::now_v7().to_string(),
        pipeline: pipeline.to_owned(),
        origin,
        status: TaskStatus::Waiting,
        interval: None,
        joined: 1,
        due_at: now,
        not_before: now,
        params: BTreeMap::new(),
        reason: None,
        lane: 0,
        backfill: None,
        key: None,
    }
}

/// A task as it is told of.
fn named(task: &Task, run: Option<&str>) -> TaskRef {
    TaskRef {
        id: task.id.clone(),
        pipeline: task.pipeline.clone(),
        run: run.map(str::to_owned).or_else(|| task.run.clone()),
        origin: task.origin.as_str().to_owned(),
        interval: task.interval,
        attempt: task.attempts + 1,
    }
}

/// Whether runs of a pipeline may overlap: where none of its sources remembers how far it was read, and rows are only added or merged by key.
pub fn runs_side_by_side(pipeline: &Pipeline) -> bool {
    use weir_pipelines::{Incremental, Mode};
    let remembers = |written: &Incremental| matches!(written, Incremental::Files | Incremental::Cursor { .. });
    !pipeline.sources.iter().any(|source| source.incremental.as_ref().is_some_and(|written| remembers(&written.value)))
        && pipeline.sinks.iter().all(|sink| matches!(sink.mode.value, Mode::Append | Mode::Merge))
}

/// That a process lives, as a lock file says it.
struct Alive {
    path: std::path::PathBuf,
    _file: std::fs::File,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How the state answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Well,
    /// It has not answered yet.
    Silent,
    /// It has refused, or has been waited for in vain.
    Gone,
}

/// The clock held against the time that passes.
struct Passing {
    clock: DateTime<Utc>,
    instant: Instant,
}

impl Passing {
    fn new(clock: DateTime<Utc>) -> Self {
        Self { clock, instant: Instant::now() }
    }

    /// By how much the clock has jumped since the last look, where it has.
    fn pass(&mut self, clock: DateTime<Utc>) -> Option<TimeDelta> {
        let passed = TimeDelta::from_std(self.instant.elapsed()).unwrap_or(TimeDelta::MAX);
        let jumped = (clock - self.clock) - passed;
        *self = Self::new(clock);
        (jumped.abs() > JUMP).then_some(jumped)
    }
}

/// That a server leads, where it does.
type Leads = Option<Leadership>;
