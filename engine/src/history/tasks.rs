//! Tasks: what is to be run, once each. A schedule, a backfill or a trigger adds them; a server claims one, runs it, and says what has become of it.

use std::{collections::BTreeMap, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{
    History, Span, from_text, instant, number,
    servers::{LEASE_MS, Leadership},
    span, stamp,
    store::failed,
    word,
};
use crate::error::{Failure, Result};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It is still to be run.
    Waiting,
    /// A server is at it, or was when it died.
    Running,
    /// Every destination has it.
    Published,
    /// All its tries failed.
    Failed,
    /// It is not run, by a rule of its schedule.
    Skipped,
    /// Somebody, or the run after it, stopped it.
    Cancelled,
}

impl TaskStatus {
    /// The word of the database and of `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for TaskStatus {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Waiting, Self::Running, Self::Published, Self::Failed, Self::Skipped, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or(())
    }
}

/// Where a task comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A tick of its schedule.
    Schedule,
    /// A backfill.
    Backfill,
    /// A file that came, another pipeline's publish, or an HTTP call.
    Trigger,
    /// A person.
    Manual,
}

impl Origin {
    /// The word of the database and of `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Backfill => "backfill",
            Self::Trigger => "trigger",
            Self::Manual => "manual",
        }
    }
}

impl FromStr for Origin {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Schedule, Self::Backfill, Self::Trigger, Self::Manual].into_iter().find(|origin| origin.as_str() == word).ok_or(())
    }
}

/// A task as it is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// Its id: a UUID version 7.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it stands.
    pub status: TaskStatus,
    /// The interval that is to be run.
    pub interval: Option<Span>,
    /// How many intervals of the schedule are joined in it.
    pub joined: u32,
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// It is not tried before.
    pub not_before: DateTime<Utc>,
    /// Tries so far that ended.
    pub attempts: u32,
    /// Tries that ended with their process.
    pub crashes: u32,
    /// Values of the pipeline's parameters.
    pub params: BTreeMap<String, String>,
    /// Why it is skipped, waits or has failed.
    pub reason: Option<String>,
    /// Its last run.
    pub run: Option<String>,
    /// The lane it is run in.
    pub lane: u32,
    /// The server that is at it.
    pub server: Option<String>,
    /// The backfill that it is part of.
    pub backfill: Option<String>,
    /// Somebody wants it stopped.
    pub cancel: bool,
    /// Its deadline has passed, and that was said.
    pub late: bool,
}

/// A task to be added.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id: a UUID version 7.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Waiting, or skipped at once.
    pub status: TaskStatus,
    /// The interval that is to be run.
    pub interval: Option<Span>,
    /// How many intervals of the schedule are joined in it.
    pub joined: u64,
    /// When it is due.
    pub due_at: DateTime<Utc>,
    /// It is not tried before.
    pub not_before: DateTime<Utc>,
    /// Values of the pipeline's parameters.
    pub params: BTreeMap<String, String>,
    /// Why it is skipped.
    pub reason: Option<String>,
    /// The lane it is run in.
    pub lane: u32,
    /// The backfill that it is part of.
    pub backfill: Option<String>,
    /// What it is asked for by: the same asked for again is the same task.
    pub key: Option<String>,
}

/// What a schedule has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// When it was first seen.
    pub since: DateTime<Utc>,
    /// All before this instant is cut into tasks.
    pub covered: DateTime<Utc>,
    /// While it pauses: since when, by whom and why.
    pub pause: Option<Pause>,
}

/// That a schedule pauses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// RFC 3339, UTC.
    pub at: String,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What is due of a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// What it covered before, and covers then.
    pub covered: Span,
    /// What is added.
    pub tasks: &'a [NewTask],
}

/// A run that has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedRun {
    /// Its id.
    pub run: String,
    /// RFC 3339, UTC.
    pub finished_at: String,
    /// The interval that it was for.
    pub interval: Option<Span>,
}

/// What becomes of a task whose try has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Where it stands now.
    pub status: TaskStatus,
    /// When it is tried again, where it waits.
    pub not_before: Option<DateTime<Utc>>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The try counts.
    pub counts: bool,
    /// Its process died.
    pub crashed: bool,
}

fn task(row: &AnyRow) -> Result<Task> {
    let text = |name: &str| row.try_get::<String, _>(name).map_err(failed);
    let some = |name: &str| row.try_get::<Option<String>, _>(name).map_err(failed);
    Ok(Task {
        id: text("id")?,
        pipeline: text("pipeline")?,
        origin: word(&text("origin")?)?,
        status: word(&text("status")?)?,
        interval: span(row)?,
        joined: number(row, "joined")?,
        due_at: instant(&text("due_at")?)?,
        not_before: instant(&text("not_before")?)?,
        attempts: number(row, "attempts")?,
        crashes: number(row, "crashes")?,
        params: from_text(text("params")?)?,
        reason: some("reason")?,
        run: some("run")?,
        lane: number(row, "lane")?,
        server: some("server")?,
        backfill: some("backfill")?,
        cancel: number(row, "cancel")? != 0,
        late: number(row, "late")? != 0,
    })
}

pub(super) async fn insert(tx: &mut Transaction<'_, Any>, task: &NewTask, now: &str) -> Result<bool> {
    let added = sqlx::query(
        "insert into tasks (id, pipeline, origin, status, interval_start, interval_end, joined, due_at, not_before, params, reason, lane,
             backfill, origin_key, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15) on conflict do nothing",
    )
    .bind(&task.id)
    .bind(&task.pipeline)
    .bind(task.origin.as_str())
    .bind(task.status.as_str())
    .bind(task.interval.map(|(from, _)| stamp(from)))
    .bind(task.interval.map(|(_, to)| stamp(to)))
    .bind(i64::try_from(task.joined).unwrap_or(i64::MAX))
    .bind(stamp(task.due_at))
    .bind(stamp(task.not_before))
    .bind(serde_json::to_string(&task.params).expect("texts"))
    .bind(&task.reason)
    .bind(i64::from(task.lane))
    .bind(&task.backfill)
    .bind(&task.key)
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(failed)?;
    Ok(added.rows_affected() == 1)
}

impl History {
    /// What the schedules have come to, by pipeline.
    pub async fn standings(&self) -> Result<BTreeMap<String, Standing>> {
        let rows = sqlx::query("select * from schedules").fetch_all(self.store.pool()).await.map_err(failed)?;
        let mut standings = BTreeMap::new();
        for row in &rows {
            let text = |name: &str| row.try_get::<String, _>(name).map_err(failed);
            let some = |name: &str| row.try_get::<Option<String>, _>(name).map_err(failed);
            let pause = match some("paused_at")? {
                Some(at) => {
                    Some(Pause { at, by: some("paused_by")?.unwrap_or_default(), reason: some("pause_reason")?.unwrap_or_default() })
                }
                None => None,
            };
            standings.insert(text("pipeline")?, Standing { since: instant(&text("since")?)?, covered: instant(&text("covered")?)?, pause });
        }
        Ok(standings)
    }

    /// Notes that schedules are seen for the first time, each with what it covers already. One that is known stays as it is.
    pub async fn begin_schedules(&self, leader: Leadership, schedules: &[(&str, DateTime<Utc>)], now: DateTime<Utc>) -> Result<()> {
        let mut tx = self.write_as_leader(leader).await?;
        for (pipeline, covered) in schedules {
            let sql = "insert into schedules (pipeline, since, covered) values ($1, $2, $3) on conflict (pipeline) do nothing";
            sqlx::query(sql).bind(*pipeline).bind(stamp(now)).bind(stamp(*covered)).execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Adds what is due of schedules, and moves what each covers from one instant to another, in one transaction. False of one, and nothing done of
    /// it, where it covers something else by now.
    pub async fn cut(&self, leader: Leadership, cuts: &[Cut<'_>], now: DateTime<Utc>) -> Result<Vec<bool>> {
        let mut tx = self.write_as_leader(leader).await?;
        let now = stamp(now);
        let mut done = Vec::with_capacity(cuts.len());
        for cut in cuts {
            let moved = sqlx::query("update schedules set covered = $1 where pipeline = $2 and covered = $3")
                .bind(stamp(cut.covered.1))
                .bind(cut.pipeline)
                .bind(stamp(cut.covered.0))
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            let is_moved = moved.rows_affected() == 1;
            for task in cut.tasks.iter().filter(|_| is_moved) {
                insert(&mut tx, task, &now).await?;
            }
            done.push(is_moved);
        }
        tx.commit().await.map_err(failed)?;
        Ok(done)
    }

    /// Lets a schedule pause, or go on. One that is not known yet begins at `covered`.
    pub async fn pause(&self, pipeline: &str, pause: Option<&Pause>, now: DateTime<Utc>, covered: DateTime<Utc>) -> Result<()> {
        sqlx::query(
            "insert into schedules (pipeline, since, covered, paused_at, paused_by, pause_reason) values ($1, $2, $6, $3, $4, $5)
             on conflict (pipeline) do update set paused_at = excluded.paused_at, paused_by = excluded.paused_by,
                 pause_reason = excluded.pause_reason",
        )
        .bind(pipeline)
        .bind(stamp(now))
        .bind(pause.map(|pause| pause.at.as_str()))
        .bind(pause.map(|pause| pause.by.as_str()))
        .bind(pause.map(|pause| pause.reason.as_str()))
        .bind(stamp(covered))
        .execute(self.store.pool())
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Adds tasks that no schedule cuts. Returns how many of them were new.
    pub async fn add_tasks(&self, tasks: &[NewTask], now: DateTime<Utc>) -> Result<usize> {
        let mut tx = self.store.begin().await?;
        let (mut added, now) = (0, stamp(now));
        for task in tasks {
            added += usize::from(insert(&mut tx, task, &now).await?);
        }
        tx.commit().await.map_err(failed)?;
        Ok(added)
    }

    /// The task that was asked for by a key.
    pub async fn task_by_key(&self, pipeline: &str, key: &str) -> Result<Option<Task>> {
        let row = sqlx::query("select * from tasks where pipeline = $1 and origin_key = $2").bind(pipeline).bind(key);
        row.fetch_optional(self.store.pool()).await.map_err(failed)?.as_ref().map(task).transpose()
    }

    /// Tasks that are run, and those that wait and are next, those that are due first: of each lane of a pipeline, and of each lane of a backfill.
    pub async fn open_tasks(&self) -> Result<Vec<Task>> {
        let first = "select * from tasks where status = 'running' union all
             select * from tasks where id in (
                 select id from (
                     select id, row_number() over (partition by pipeline, lane order by due_at, id) as place
                     from tasks where status = 'waiting' and backfill is null
                 ) as waiting where place <= 4
             )";
        let rows = sqlx::query(first).fetch_all(self.store.pool()).await.map_err(failed)?;
        let mut open = rows.iter().map(task).collect::<Result<Vec<_>>>()?;
        for (backfill, parallel) in self.open_backfills().await? {
            let before = open.len();
            for lane in 0..=parallel {
                let next = "select * from tasks where backfill = $1 and lane = $2 and status = 'waiting' order by id limit 1";
                let next =
                    sqlx::query(next).bind(&backfill).bind(i64::from(lane)).fetch_optional(self.store.pool()).await.map_err(failed)?;
                open.extend(next.as_ref().map(task).transpose()?);
            }
            if open.len() == before && !open.iter().any(|task| task.backfill.as_ref() == Some(&backfill)) {
                self.end_backfill(&backfill).await?;
            }
        }
        open.sort_by(|one, other| (one.due_at, &one.id).cmp(&(other.due_at, &other.id)));
        Ok(open)
    }

    /// How many tasks of each pipeline wait, and since when the oldest that has not published was due.
    pub async fn queues(&self, now: DateTime<Utc>) -> Result<Vec<(String, u64, DateTime<Utc>)>> {
        let sql = "select pipeline, sum(case when status = 'waiting' then 1 else 0 end) as waiting, min(due_at) as oldest from tasks
                   where status in ('waiting', 'running') and due_at <= $1 group by pipeline";
        let rows = sqlx::query(sql).bind(stamp(now)).fetch_all(self.store.pool()).await.map_err(failed)?;
        let queue = |row: &AnyRow| {
            let oldest: String = row.try_get("oldest").map_err(failed)?;
            Ok((row.try_get("pipeline").map_err(failed)?, u64::from(number(row, "waiting")?), instant(&oldest)?))
        };
        rows.iter().map(queue).collect()
    }

    /// Tasks that are run by servers that are dead, and by this one.
    pub async fn orphaned_tasks(&self, server: &str) -> Result<Vec<Task>> {
        let sql = self.store.sql(
            "select * from tasks where status = 'running' and
             (server = $1 or server is null or not exists (
                 select 1 from servers where servers.id = tasks.server and until_ms between NOW_MS and NOW_MS + 2 * $2
             )) order by id",
        );
        let rows = sqlx::query(sql).bind(server).bind(LEASE_MS).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(task).collect()
    }

    /// Claims a waiting task for a server. False where somebody else has it.
    pub async fn claim(&self, id: &str, server: &str, run: &str, now: DateTime<Utc>) -> Result<bool> {
        let claim = "update tasks set status = 'running', server = $1, run = $2, reason = null, updated_at = $3 where id = $4 and status = 'waiting'";
        let claimed =
            sqlx::query(claim).bind(server).bind(run).bind(stamp(now)).bind(id).execute(self.store.pool()).await.map_err(failed)?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Says what becomes of a task whose try has ended. Nothing where it is no longer that try which is under way: one that has published is not tried again.
    pub async fn end_task(&self, id: &str, run: &str, ending: Ending<'_>, now: DateTime<Utc>) -> Result<bool> {
        let end =
            "update tasks set status = $1, not_before = coalesce($2, not_before), reason = coalesce($3, reason), attempts = attempts + $4,
                       crashes = crashes + $5, server = null, updated_at = $6
                   where id = $7 and run = $8 and status = 'running'";
        let ended = sqlx::query(end)
            .bind(ending.status.as_str())
            .bind(ending.not_before.map(stamp))
            .bind(ending.reason)
            .bind(i64::from(ending.counts))
            .bind(i64::from(ending.crashed))
            .bind(stamp(now))
            .bind(id)
            .bind(run)
            .execute(self.store.pool())
            .await
            .map_err(failed)?;
        Ok(ended.rows_affected() == 1)
    }

    /// Leaves a task whose run is decided to whoever takes up what the dead leave: it is no server's any more, and still under way.
    pub async fn leave_task(&self, id: &str, run: &str, reason: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let leave = "update tasks set server = null, reason = $1, updated_at = $2 where id = $3 and run = $4 and status = 'running'";
        sqlx::query(leave).bind(reason).bind(stamp(now)).bind(id).bind(run).execute(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// Puts a waiting task off, and says why it waits.
    pub async fn put_off(&self, id: &str, reason: &str) -> Result<()> {
        sqlx::query("update tasks set reason = $1 where id = $2 and status = 'waiting' and (reason is null or reason <> $1)")
            .bind(reason)
            .bind(id)
            .execute(self.store.pool())
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Notes that a task's deadline has passed. False where that was noted before.
    pub async fn note_late(&self, id: &str) -> Result<bool> {
        let noted = sqlx::query("update tasks set late = 1 where id = $1 and late = 0").bind(id);
        Ok(noted.execute(self.store.pool()).await.map_err(failed)?.rows_affected() == 1)
    }

    /// Asks for a task to be stopped: a waiting one is cancelled at once, a running one by its server. Returns where it stands.
    pub async fn cancel_task(&self, id: &str, reason: &str, now: DateTime<Utc>) -> Result<Option<TaskStatus>> {
        let mut tx = self.store.begin().await?;
        let waiting = "update tasks set status = 'cancelled', reason = $1, updated_at = $2 where id = $3 and status = 'waiting'";
        sqlx::query(waiting).bind(reason).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let running = "update tasks set cancel = 1, reason = $1 where id = $2 and status = 'running'";
        sqlx::query(running).bind(reason).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let status: Option<String> =
            sqlx::query_scalar("select status from tasks where id = $1").bind(id).fetch_optional(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        status.map(|status| word(&status)).transpose()
    }

    /// Lets a task that has failed, was skipped or cancelled wait to be run once more. False where it is none of these.
    pub async fn retry_task(&self, id: &str, now: DateTime<Utc>) -> Result<bool> {
        let again = "update tasks set status = 'waiting', not_before = $1, attempts = 0, crashes = 0, reason = null, cancel = 0, late = 0, updated_at = $1
                     where id = $2 and status in ('failed', 'skipped', 'cancelled')";
        let mut tx = self.store.begin().await?;
        let done = sqlx::query(again).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let reopened = "update backfills set status = 'open' where id = (select backfill from tasks where id = $1 and status = 'waiting')";
        sqlx::query(reopened).bind(id).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(done.rows_affected() == 1)
    }

    /// The task with this id, or the one whose id or last run's id starts or ends with it.
    pub async fn task(&self, id: &str) -> Result<Option<Task>> {
        let rows = sqlx::query(
            "select * from tasks where id = $1 or run = $1 or substr(id, 1, length($1)) = $1 or substr(id, length(id) - length($1) + 1) = $1
                 or substr(run, 1, length($1)) = $1 or substr(run, length(run) - length($1) + 1) = $1
             order by id = $1 desc, id desc limit 2",
        )
        .bind(id)
        .fetch_all(self.store.pool())
        .await
        .map_err(failed)?;
        match rows.as_slice() {
            [] => Ok(None),
            [one] => task(one).map(Some),
            [first, ..] => {
                let first = task(first)?;
                if first.id == id || first.run.as_deref() == Some(id) {
                    return Ok(Some(first));
                }
                Err(Failure::error("ambiguous-run", format!("several tasks match \"{id}\"")).help("give more of the id"))
            }
        }
    }

    /// The latest tasks, newest first; of one pipeline, or of all.
    pub async fn tasks(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<Task>> {
        let sql = "select * from tasks where $1 is null or pipeline = $1 order by id desc limit $2";
        let rows = sqlx::query(sql).bind(pipeline).bind(i64::from(limit)).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(task).collect()
    }

    /// Tasks of a backfill, in the order they were added.
    pub async fn tasks_of(&self, backfill: &str) -> Result<Vec<Task>> {
        let sql = "select * from tasks where backfill = $1 order by id";
        let rows = sqlx::query(sql).bind(backfill).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(task).collect()
    }

    /// Intervals of a pipeline that its published runs were for, within one interval; each with the hash of the definition that ran.
    pub async fn published_intervals(&self, pipeline: &str, (from, to): Span) -> Result<Vec<(Span, Option<String>)>> {
        let sql = "select interval_start, interval_end, definition from runs
                   where pipeline = $1 and status in ('published', 'publishing') and interval_end > $2 and interval_start < $3 order by interval_start, run";
        let rows = sqlx::query(sql).bind(pipeline).bind(stamp(from)).bind(stamp(to)).fetch_all(self.store.pool()).await.map_err(failed)?;
        let found = rows.iter().map(|row| Ok((span(row)?, row.try_get("definition").map_err(failed)?))).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().filter_map(|(span, definition)| Some((span?, definition))).collect())
    }

    /// Tasks of a pipeline whose interval meets another one.
    pub async fn tasks_within(&self, pipeline: &str, (from, to): Span) -> Result<Vec<Task>> {
        let sql = "select * from tasks where pipeline = $1 and interval_end > $2 and interval_start < $3 order by interval_start, id";
        let rows = sqlx::query(sql).bind(pipeline).bind(stamp(from)).bind(stamp(to)).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(task).collect()
    }

    /// The latest instant up to which a pipeline's published runs have an interval.
    pub async fn published_to(&self, pipeline: &str, at_least: DateTime<Utc>) -> Result<bool> {
        let sql = "select 1 from runs where pipeline = $1 and status = 'published' and interval_end >= $2 limit 1";
        let row = sqlx::query(sql).bind(pipeline).bind(stamp(at_least)).fetch_optional(self.store.pool()).await.map_err(failed)?;
        Ok(row.is_some())
    }

    /// Published runs of a pipeline that ended at an instant or later, in order; without those by which another pipeline has been asked for
    /// already, by the key that is `prefix` and the run's id.
    pub async fn published_since(&self, pipeline: &str, from: &str, (asked, prefix): (&str, &str)) -> Result<Vec<PublishedRun>> {
        let sql = "select run, finished_at, interval_start, interval_end from runs
                   where pipeline = $1 and status = 'published' and finished_at >= $2
                       and not exists (select 1 from tasks where tasks.pipeline = $3 and tasks.origin_key = $4 || runs.run)
                   order by finished_at, run";
        let rows = sqlx::query(sql).bind(pipeline).bind(from).bind(asked).bind(prefix);
        let rows = rows.fetch_all(self.store.pool()).await.map_err(failed)?;
        let published = |row: &AnyRow| {
            let (run, finished_at) = (row.try_get("run").map_err(failed)?, row.try_get("finished_at").map_err(failed)?);
            Ok(PublishedRun { run, finished_at, interval: span(row)? })
        };
        rows.iter().map(published).collect()
    }

    /// What a trigger has seen: the mark of each item, by its name.
    pub async fn arrivals(&self, pipeline: &str, source: &str) -> Result<BTreeMap<String, String>> {
        let sql = "select item, mark from arrivals where pipeline = $1 and source = $2";
        let rows = sqlx::query(sql).bind(pipeline).bind(source).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(|row| Ok((row.try_get("item").map_err(failed)?, row.try_get("mark").map_err(failed)?))).collect()
    }

    /// Adds the tasks that a trigger asks for, and notes the items that it has seen, in one transaction.
    pub async fn arrive(
        &self,
        leader: Leadership,
        (pipeline, source): (&str, &str),
        items: &[(String, String)],
        tasks: &[NewTask],
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut tx = self.write_as_leader(leader).await?;
        for (item, mark) in items {
            let sql = "insert into arrivals (pipeline, source, item, mark) values ($1, $2, $3, $4)
                       on conflict (pipeline, source, item) do update set mark = excluded.mark";
            sqlx::query(sql).bind(pipeline).bind(source).bind(item).bind(mark).execute(&mut *tx).await.map_err(failed)?;
        }
        let now = stamp(now);
        for task in tasks {
            insert(&mut tx, task, &now).await?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Notes something that has happened, for whoever asks later.
    pub async fn note_event(&self, kind: &str, pipeline: Option<&str>, run: Option<&str>, text: &str, now: DateTime<Utc>) -> Result<()> {
        sqlx::query("insert into events (id, at, kind, pipeline, run, text) values ($1, $2, $3, $4, $5, $6)")
            .bind(uuid::Uuid::now_v7().to_string())
            .bind(stamp(now))
            .bind(kind)
            .bind(pipeline)
            .bind(run)
            .bind(text)
            .execute(self.store.pool())
            .await
            .map_err(failed)?;
        Ok(())
    }
}

impl<'a> Ending<'a> {
    /// A try that does not count, and no other one follows.
    pub fn of(status: TaskStatus, reason: Option<&'a str>) -> Self {
        Self { status, not_before: None, reason, counts: false, crashed: false }
    }
}
