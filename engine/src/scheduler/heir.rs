//! What dead processes left: their runs are finished or discarded, and their tasks wait again or are done. Whoever holds a lane may do it.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Notice, Outcome, Scheduler, named};
use crate::{
    error::{Failure, Result},
    history::{
        RunStatus,
        tasks::{Ending, Task, TaskStatus},
    },
    publish,
};

/// A task whose process has died so often is not tried any more.
const CRASHES_MAX: u32 = 5;

/// How often it is looked for what dead processes left.
const INHERITS: Duration = Duration::from_secs(5);

/// The lock file by which a process shows that it lives. No pipeline has a dot in its name.
pub(super) fn server_lock(server: &str) -> String {
    format!("weir.server.{server}")
}

/// Looks after what dead processes left, beside everything else: a destination that does not answer holds up nothing but its own runs.
#[derive(Debug)]
pub(super) struct Heir {
    stop: CancellationToken,
    /// No further one is taken up.
    ending: CancellationToken,
    looked: Option<Instant>,
    work: Option<JoinHandle<()>>,
}

impl Heir {
    /// Takes nothing up yet. `stop` stops what it is at.
    pub fn new(stop: CancellationToken) -> Self {
        Self { ending: stop.child_token(), stop, looked: None, work: None }
    }

    /// Looks for what was left, from time to time, and takes it up.
    pub async fn look(&mut self, scheduler: &Arc<Scheduler>, active: &HashSet<String>, backfill: Option<&str>) -> Result<()> {
        let is_due = self.looked.is_none_or(|last| last.elapsed() > INHERITS) && self.work.as_ref().is_none_or(JoinHandle::is_finished);
        if !is_due {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let orphans = scheduler.orphans(active, backfill).await?;
        if !orphans.is_empty() {
            let (scheduler, runtime) = (scheduler.clone(), tokio::runtime::Handle::current());
            let (stop, ending) = (self.stop.clone(), self.ending.clone());
            self.work = Some(tokio::task::spawn_blocking(move || runtime.block_on(scheduler.inherit(&orphans, &stop, &ending))));
        }
        Ok(())
    }

    /// Lets the one that is being taken up be done: it may be in some destinations already, and not in others.
    pub async fn end(&mut self) {
        self.ending.cancel();
        if let Some(work) = self.work.take() {
            let _ = work.await;
        }
    }
}

impl Scheduler {
    /// Tasks that are run by nobody: all, or those of one backfill. `active` are this process's own.
    async fn orphans(&self, active: &HashSet<String>, backfill: Option<&str>) -> Result<Vec<Task>> {
        let orphans = match self.history.is_shared() {
            true => self.history.orphaned_tasks(&self.server).await?,
            // On one machine lock files tell it at once.
            false => {
                let running = self.history.open_tasks().await?.into_iter().filter(|task| task.status == TaskStatus::Running);
                running.filter(|task| task.server.as_ref().is_none_or(|server| *server == self.server || self.is_dead(server))).collect()
            }
        };
        let meant = |task: &Task| !active.contains(&task.id) && backfill.is_none_or(|backfill| task.backfill.as_deref() == Some(backfill));
        Ok(orphans.into_iter().filter(meant).collect())
    }

    /// Takes them up. It takes as long as destinations take to answer.
    async fn inherit(&self, orphans: &[Task], stop: &CancellationToken, ending: &CancellationToken) {
        for task in orphans {
            if ending.is_cancelled() {
                return;
            }
            if let Err(failure) = self.take_up(task, stop).await {
                match &failure {
                    // Somebody is at it.
                    Failure::Error(error) if error.code == "already-running" => {}
                    _ => {
                        tracing::error!(pipeline = task.pipeline, task = task.id, error = failure.sentence(), "a run could not be taken up")
                    }
                }
            }
        }
    }

    /// Whether a process on this machine has ended without a word.
    fn is_dead(&self, server: &str) -> bool {
        let name = server_lock(server);
        let dead = self.workspace.lock(&name).is_ok();
        if dead {
            let _ = std::fs::remove_file(self.workspace.state_dir.join("locks").join(format!("{name}.lock")));
        }
        dead
    }

    async fn take_up(&self, task: &Task, stop: &CancellationToken) -> Result<()> {
        let lane = self.workspace.lane(&self.history, &task.pipeline, task.lane).await?;
        let history = self.history.in_lane(&lane);
        let context = self.workspace.context(&task.pipeline, task.lane, &history, stop.child_token())?;
        let run = task.run.as_deref().unwrap_or("");
        let recovered = publish::recover(&self.workspace, &history, &context, task.lane).await;
        let now = self.now();
        let sentences = match recovered {
            Ok(sentences) => sentences,
            Err(failure) => {
                // Where a destination will never take it, the run has ended; tried again, others would have its rows twice.
                let record = self.history.run(run).await?;
                if record.is_some_and(|record| record.status == RunStatus::Failed) {
                    let sentence = failure.sentence();
                    self.history.end_task(&task.id, run, Ending::of(TaskStatus::Failed, Some(&sentence)), now).await?;
                }
                return Err(failure);
            }
        };
        for sentence in sentences {
            let _ = self.history.note_event("took_over", Some(&task.pipeline), task.run.as_deref(), &sentence, now).await;
            self.tell(&Notice::TookOver { pipeline: task.pipeline.clone(), sentence });
        }
        let record = self.history.run(run).await?;
        if !record.is_some_and(|record| matches!(record.status, RunStatus::Published | RunStatus::Publishing | RunStatus::Deciding)) {
            let ending = match (task.cancel, task.crashes + 1 >= CRASHES_MAX) {
                (true, _) => Ending::of(TaskStatus::Cancelled, task.reason.as_deref()),
                (false, true) => Ending::of(TaskStatus::Failed, Some("its process died each time it was tried")),
                (false, false) => Ending::of(TaskStatus::Waiting, Some("its process died; it is tried again")),
            };
            let ending = Ending { crashed: true, not_before: Some(now), ..ending };
            if self.history.end_task(&task.id, run, ending, now).await? && ending.status == TaskStatus::Failed {
                self.tell(&Notice::Ended {
                    task: named(task, None),
                    outcome: Outcome::Failed,
                    summary: None,
                    code: Some("process-died".to_owned()),
                    error: ending.reason.map(str::to_owned),
                    duration_ms: 0,
                    retry_at: None,
                });
            }
        }
        lane.release().await;
        Ok(())
    }
}
