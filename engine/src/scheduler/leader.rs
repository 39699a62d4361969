//! The leader: cuts what is due of schedules into tasks, adds those of triggers, and says what is late. Each step is one transaction that holds
//! its leadership still.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use weir_pipelines::{Pipeline, Schedule};

use super::{GRACE, Leads, Notice, Pipelines, Scheduler, named, task};
use crate::{
    error::Result,
    history::{
        Span,
        servers::Leadership,
        tasks::{Cut, NewTask, Origin, Standing, Task, TaskStatus},
    },
    schedule::{self, Action},
};

/// A leader, with what it knows of the schedules so that a look costs nothing where nothing is due.
#[derive(Debug, Default)]
pub(super) struct Leader {
    pub leadership: Leads,
    /// When it was last asked for.
    pub led_at: Option<std::time::Instant>,
    /// The files that `next` was made of.
    pipelines: Pipelines,
    standings: BTreeMap<String, Standing>,
    /// The next tick of each schedule that does not pause.
    next: BTreeMap<String, DateTime<Utc>>,
    known: bool,
    /// When standings were read.
    read_at: Option<std::time::Instant>,
    arrivals: super::arrivals::Arrivals,
}

/// So many rows are written in one transaction, or a few more.
const CUT_ROWS: usize = 500;
/// Pauses and resumptions that others write are seen within this time.
const READ_AGAIN: Duration = Duration::from_secs(2);

impl Leader {
    /// Another server leads: what is known of the schedules may not be true any more.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// How long it is until the next tick.
    pub fn next_tick(&self, now: DateTime<Utc>) -> Option<Duration> {
        self.leadership?;
        let next = self.next.values().min()?;
        Some((*next - now).to_std().unwrap_or_default())
    }

    /// Adds all that is due.
    pub async fn look(&mut self, scheduler: &Scheduler, pipelines: &Pipelines) -> Result<()> {
        let Some(leadership) = self.leadership else { return Ok(()) };
        let is_old = self.read_at.is_none_or(|read| read.elapsed() > READ_AGAIN);
        if !self.known || is_old || !Arc::ptr_eq(&self.pipelines, pipelines) {
            self.read(scheduler, pipelines, leadership).await?;
        }
        let now = scheduler.now();
        let due: Vec<String> = self.next.iter().filter(|(_, tick)| **tick <= now).map(|(name, _)| name.clone()).collect();
        let open = scheduler.history.open_tasks().await?;
        let (mut dues, mut size) = (Vec::new(), 0);
        for name in due {
            let Some(schedule) = pipelines.get(&name).and_then(|pipeline| pipeline.schedule.as_ref()) else { continue };
            let Some(due) = self.due(&name, schedule, &open, now) else { continue };
            size += 1 + due.tasks.len();
            dues.push(due);
            if size >= CUT_ROWS {
                self.cut(scheduler, leadership, std::mem::take(&mut dues)).await?;
                size = 0;
            }
        }
        self.cut(scheduler, leadership, dues).await?;
        late(scheduler, pipelines, &open).await?;
        let added = self.arrivals.look(scheduler, leadership, pipelines).await?;
        if added > 0 {
            scheduler.awake.notify_one();
        }
        Ok(())
    }

    /// Reads what the schedules have come to, and begins those that are new.
    async fn read(&mut self, scheduler: &Scheduler, pipelines: &Pipelines, leadership: Leadership) -> Result<()> {
        let now = scheduler.now();
        self.standings = scheduler.history.standings().await?;
        let scheduled = pipelines.iter().filter_map(|(name, pipeline)| Some((name, pipeline.schedule.as_ref()?)));
        let unknown = scheduled.clone().filter(|(name, _)| !self.standings.contains_key(*name));
        let new: Vec<(&str, DateTime<Utc>)> =
            unknown.filter_map(|(name, schedule)| Some((name.as_str(), schedule::begin(schedule, now)?))).collect();
        for some in new.chunks(CUT_ROWS) {
            scheduler.history.begin_schedules(leadership, some, now).await?;
        }
        if !new.is_empty() {
            self.standings = scheduler.history.standings().await?;
        }
        self.next.clear();
        for (name, schedule) in scheduled {
            let Some(standing) = self.standings.get(name).filter(|standing| standing.pause.is_none()) else { continue };
            if let Some(next) = schedule.next_after(standing.covered) {
                self.next.insert(name.clone(), next);
            }
        }
        self.pipelines = pipelines.clone();
        self.known = true;
        self.read_at = Some(std::time::Instant::now());
        Ok(())
    }

    /// What is due of one schedule.
    fn due(&self, name: &str, schedule: &Schedule, open: &[Task], now: DateTime<Utc>) -> Option<Due> {
        let from = self.standings.get(name)?.covered;
        let mut moved = schedule::Standing { covered: from };
        let own: Vec<&Task> = open.iter().filter(|task| task.pipeline == name && task.backfill.is_none()).collect();
        let slots = schedule::due(schedule, &mut moved, !own.is_empty(), now, GRACE);
        let tasks = slots.iter().map(|slot| new_task(name, schedule, slot)).collect();
        let cancels = slots.iter().any(|slot| slot.action == Action::Run && slot.reason.as_deref() == Some(schedule::CANCELS));
        let cancelled = own.iter().filter(|_| cancels).map(|task| task.id.clone()).collect();
        let next = schedule.next_after(moved.covered);
        Some(Due { name: name.to_owned(), covered: (from, moved.covered), slots, tasks, cancelled, next })
    }

    /// Adds what is due of some schedules.
    async fn cut(&mut self, scheduler: &Scheduler, leadership: Leadership, dues: Vec<Due>) -> Result<()> {
        let now = scheduler.now();
        let moved: Vec<&Due> = dues.iter().filter(|due| due.covered.0 != due.covered.1).collect();
        let cuts: Vec<Cut<'_>> = moved.iter().map(|due| Cut { pipeline: &due.name, covered: due.covered, tasks: &due.tasks }).collect();
        let done = if cuts.is_empty() { Vec::new() } else { scheduler.history.cut(leadership, &cuts, now).await? };
        let refused: BTreeSet<&str> = moved.iter().zip(done).filter(|(_, done)| !done).map(|(due, _)| due.name.as_str()).collect();
        for due in &dues {
            if refused.contains(due.name.as_str()) {
                // Somebody else has cut it: read again what it has come to.
                self.known = false;
                continue;
            }
            if let Some(standing) = self.standings.get_mut(&due.name) {
                standing.covered = due.covered.1;
            }
            for running in &due.cancelled {
                scheduler.history.cancel_task(running, "the next tick has come", now).await?;
            }
            for (task, slot) in due.tasks.iter().zip(&due.slots) {
                let (pipeline, action) = (&due.name, slot.action.as_str());
                tracing::info!(pipeline, tick = %slot.at, interval_start = %slot.start, interval_end = %slot.end, action, joined = slot.joined, reason = slot.reason.as_deref(), "a tick is due");
                if slot.action == Action::Skip {
                    let reason = slot.reason.clone().unwrap_or_default();
                    scheduler.tell(&Notice::Skipped { task: refers(task), reason });
                }
            }
            match due.next {
                Some(next) => self.next.insert(due.name.clone(), next),
                None => self.next.remove(&due.name),
            };
        }
        Ok(())
    }
}

/// What is due of one schedule, and what it comes to.
struct Due {
    name: String,
    covered: Span,
    slots: Vec<schedule::Slot>,
    tasks: Vec<NewTask>,
    /// Tasks whose place it takes.
    cancelled: Vec<String>,
    next: Option<DateTime<Utc>>,
}

fn new_task(name: &str, schedule: &Schedule, slot: &schedule::Slot) -> NewTask {
    let jitter = TimeDelta::from_std(schedule.jitter_of(name, slot.at)).unwrap_or_default();
    NewTask {
        id: Uuid::now_v7().to_string(),
        status: if slot.action == Action::Skip { TaskStatus::Skipped } else { TaskStatus::Waiting },
        interval: Some((slot.start, slot.end)),
        joined: slot.joined,
        not_before: if slot.action == Action::Run { slot.at + jitter } else { slot.at },
        reason: slot.reason.clone().filter(|_| slot.action == Action::Skip),
        ..task(name, Origin::Schedule, slot.at)
    }
}

fn refers(task: &NewTask) -> super::TaskRef {
    super::TaskRef {
        id: task.id.clone(),
        pipeline: task.pipeline.clone(),
        run: None,
        origin: task.origin.as_str().to_owned(),
        interval: task.interval,
        attempt: 1,
    }
}

/// Says once of each task that its deadline has passed.
async fn late(scheduler: &Scheduler, pipelines: &Pipelines, open: &[Task]) -> Result<()> {
    let now = scheduler.now();
    let deadline = |pipeline: &Arc<Pipeline>| pipeline.schedule.as_ref()?.deadline;
    for task in open.iter().filter(|task| task.origin == Origin::Schedule && !task.late) {
        let Some(deadline) = pipelines.get(&task.pipeline).and_then(deadline) else { continue };
        let is_late = TimeDelta::from_std(deadline).is_ok_and(|deadline| now - task.due_at > deadline);
        if is_late && scheduler.history.note_late(&task.id).await? {
            let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            let _ = scheduler
                .history
                .note_event("late", Some(&task.pipeline), task.run.as_deref(), "not published within its deadline", now)
                .await;
            scheduler.tell(&Notice::Late { task: named(task, None), deadline_ms });
        }
    }
    Ok(())
}
