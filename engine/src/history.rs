//! What is remembered between runs: runs and their decisions, loads that wait to be published, cursors; and what is to be run. It is kept
//! in SQLite at `.weir/state.db`, or in Postgres where several servers share it. A decision is one transaction here; everything after it can be
//! rolled forward by any later process.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Any, Row, Transaction, any::AnyRow};
use weir_connectors::{Blame, Retry};
use weir_pipelines::Pipeline;

use crate::{
    books::Summary,
    definition::Definition,
    error::{Failure, Result},
};

pub mod backfills;
pub mod lanes;
pub mod servers;
mod store;
pub mod tasks;
pub mod tokens;
pub mod transfer;

use store::{Store, failed};

pub use store::{Hidden, Place};

/// The state database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
    /// Names this state among others that write the same destinations; made once.
    pub id: String,
    /// What a writer has to hold still; none where a file lock sees to it, and for what no run writes.
    fence: Option<Arc<Fence>>,
}

/// A lane as one process has it in a shared state. Whoever gets it later has a greater number, and this one may write no more.
#[derive(Debug, PartialEq, Eq)]
struct Fence {
    pipeline: String,
    lane: u32,
    number: i64,
}

/// An interval of time, half-open: from an instant on, up to another one.
pub type Span = (DateTime<Utc>, DateTime<Utc>);

/// An instant as it is kept: RFC 3339, UTC, milliseconds; in the order of time as texts too.
pub fn stamp(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Rows are being staged, or the process died while they were.
    Running,
    /// Staged and balanced; one load's own commit is the decision, and it has been asked for. Whether it came about that load can tell.
    Deciding,
    /// Decided: every destination will have it.
    Publishing,
    /// Every destination has it.
    Published,
    /// Nothing of it is visible anywhere.
    Failed,
    /// Stopped by a person; nothing of it is visible anywhere.
    Interrupted,
    /// Everything but the publish was done, as asked; nothing of it is visible anywhere.
    DryRun,
}

impl RunStatus {
    /// The word of the database and of `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Deciding => "deciding",
            RunStatus::Publishing => "publishing",
            RunStatus::Published => "published",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
            RunStatus::DryRun => "dry_run",
        }
    }
}

impl FromStr for RunStatus {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Running, Self::Deciding, Self::Publishing, Self::Published, Self::Failed, Self::Interrupted, Self::DryRun]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or(())
    }
}

/// One run as it is remembered.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Its id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it stands.
    pub status: RunStatus,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while it goes on.
    pub finished_at: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The code of that error.
    pub code: Option<String>,
    /// The step it arose in.
    pub step: Option<String>,
    /// What it did; from the decision on.
    pub summary: Option<Summary>,
    /// The lane it is in: runs of one lane never overlap.
    pub lane: u32,
    /// The task that it is a try of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Where its interval begins: RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_start: Option<String>,
    /// Where its interval ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_end: Option<String>,
}

/// What is noted of a run that starts.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Its id.
    pub run: &'a str,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// RFC 3339, UTC.
    pub started_at: &'a str,
    /// The lane it is in.
    pub lane: u32,
    /// The task that it is a try of.
    pub task: Option<&'a str>,
    /// The interval that it is for.
    pub interval: Option<Span>,
}

/// One load of a run, as recorded for whoever finishes it.
#[derive(Debug, Clone)]
pub struct LoadRecord {
    /// The sink's name, or the quarantined step's.
    pub sink: String,
    /// The kind that can resume it.
    pub kind: String,
    /// From `Load::stage` before the decision, from `Sealed::state` after it.
    pub state: Value,
    /// True once it has published.
    pub published: bool,
}

/// The run that a pipeline published last, and the text of what it was made of.
#[derive(Debug, Clone)]
pub struct PublishedText {
    /// Its id.
    pub run: String,
    /// When it started.
    pub at: String,
    /// As [`Definition::to_text`] wrote it; none where it was not kept.
    pub definition: Option<String>,
}

/// What the sources of a run will remember.
#[derive(Debug, Clone, Default)]
pub struct Cursors {
    /// By source, then by the source's own key.
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// These sources were read anew: what they remembered before the run is forgotten.
    pub anew: bool,
}

impl History {
    /// Opens the state, making it and bringing it to this version's form where needed. `id` names a new one.
    pub async fn open(place: &Place, id: &str) -> Result<Self> {
        let (store, id) = Store::open(place, id).await?;
        Ok(Self { store, id, fence: None })
    }

    /// Whether several servers may share it.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// How many connections to the state are open, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        self.store.connections()
    }

    /// Starts a transaction of a run. Fails where the run's lane has gone to another process.
    async fn write(&self) -> Result<Transaction<'static, Any>> {
        let mut tx = self.store.begin().await?;
        if let Some(fence) = &self.fence {
            let held = self.store.sql("select 1 from locks where pipeline = $1 and lane = $2 and fence = $3 FOR_UPDATE");
            let held = sqlx::query(held).bind(&fence.pipeline).bind(i64::from(fence.lane)).bind(fence.number);
            if held.fetch_optional(&mut *tx).await.map_err(failed)?.is_none() {
                return Err(lanes::lost());
            }
        }
        Ok(tx)
    }

    /// Notes that a run has started.
    pub async fn begin(&self, start: Start<'_>) -> Result<()> {
        let mut tx = self.write().await?;
        if let Some(task) = start.task {
            // It may have been given to somebody else while this process was not heard of.
            let claimed = self.store.sql("select 1 from tasks where id = $1 and run = $2 and status = 'running' FOR_UPDATE");
            let claimed = sqlx::query(claimed).bind(task).bind(start.run).fetch_optional(&mut *tx).await.map_err(failed)?;
            if claimed.is_none() {
                return Err(Failure::error("task-lost", "another process runs this task by now").blame(Blame::System).retry(Retry::Later));
            }
        }
        sqlx::query(
            "insert into runs (run, pipeline, status, started_at, lane, task, interval_start, interval_end)
             values ($1, $2, 'running', $3, $4, $5, $6, $7)",
        )
        .bind(start.run)
        .bind(start.pipeline)
        .bind(start.started_at)
        .bind(i64::from(start.lane))
        .bind(start.task)
        .bind(start.interval.map(|(from, _)| stamp(from)))
        .bind(start.interval.map(|(_, to)| stamp(to)))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes where a load stages, before its first row is written.
    pub async fn stage(&self, run: &str, load: &LoadRecord) -> Result<()> {
        let mut tx = self.write().await?;
        keep_load(run, load, &mut tx).await?;
        tx.commit().await.map_err(failed)
    }

    /// Forgets a run's loads: they have been discarded.
    pub async fn unstage(&self, run: &str) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("delete from loads where run = $1").bind(run).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Records everything that publishing needs, in one transaction. With `Publishing` this is the decision: from here on the run
    /// will be in every destination. With `Deciding` a load's own commit is about to be. Loads carry their sealed states, `cursors`
    /// what each source will remember, `definition` what ran.
    pub async fn decide(
        &self,
        run: &str,
        status: RunStatus,
        loads: &[LoadRecord],
        cursors: &Cursors,
        definition: Option<&Definition>,
        summary: &Summary,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        for load in loads {
            keep_load(run, load, &mut tx).await?;
        }
        forget_cursors(run, &mut tx).await?;
        for (source, entries) in &cursors.sources {
            if cursors.anew {
                let sql = "insert into run_forgets (run, source) values ($1, $2)";
                sqlx::query(sql).bind(run).bind(source).execute(&mut *tx).await.map_err(failed)?;
            }
            for (key, value) in entries {
                sqlx::query("insert into run_cursors (run, source, key, value) values ($1, $2, $3, $4)")
                    .bind(run)
                    .bind(source)
                    .bind(key)
                    .bind(value)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
        }
        let definition = definition.map(Definition::to_text);
        if let Some((hash, text)) = &definition {
            let sql = "insert into definitions (hash, text) values ($1, $2) on conflict (hash) do nothing";
            sqlx::query(sql).bind(hash).bind(text).execute(&mut *tx).await.map_err(failed)?;
        }
        sqlx::query("update runs set status = $1, summary = $2, definition = $3 where run = $4")
            .bind(status.as_str())
            .bind(to_text(summary))
            .bind(definition.map(|(hash, _)| hash))
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Where a run stands by now, once no transaction of an earlier statement is under way any more: what became of a commit whose answer was lost.
    pub async fn settled_status(&self, run: &str) -> Result<RunStatus> {
        let mut tx = self.store.begin().await?;
        let question = self.store.sql("select status from runs where run = $1 FOR_UPDATE");
        let status: String = sqlx::query_scalar(question).bind(run).fetch_one(&mut *tx).await.map_err(failed)?;
        tx.rollback().await.map_err(failed)?;
        word(&status)
    }

    /// Notes that the load of `sink` has published, and that the run is decided by it.
    pub async fn decided(&self, run: &str, sink: &str) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("update loads set published = 1 where run = $1 and sink = $2")
            .bind(run)
            .bind(sink)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        sqlx::query("update runs set status = 'publishing' where run = $1").bind(run).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes that one load has published.
    pub async fn published(&self, run: &str, sink: &str) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("update loads set published = 1 where run = $1 and sink = $2")
            .bind(run)
            .bind(sink)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Ends a run that every destination has: cursors move, loads are forgotten.
    pub async fn finish(&self, run: &str, finished_at: &str, summary: &Summary) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query(
            "delete from cursors where (pipeline, source) in
             (select runs.pipeline, source from run_forgets join runs using (run) where run = $1)",
        )
        .bind(run)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        sqlx::query(
            "insert into cursors (pipeline, source, key, value)
             select runs.pipeline, source, key, value from run_cursors join runs using (run) where run = $1
             on conflict (pipeline, source, key) do update set value = excluded.value",
        )
        .bind(run)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        forget_cursors(run, &mut tx).await?;
        sqlx::query("delete from loads where run = $1").bind(run).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("update runs set status = 'published', finished_at = $1, summary = $2 where run = $3")
            .bind(finished_at)
            .bind(to_text(summary))
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        // Whoever finishes the run, its task is done: it is never tried again.
        sqlx::query(
            "update tasks set status = 'published', run = $1, reason = null, attempts = attempts + 1, updated_at = $2
             where id = (select task from runs where run = $1)",
        )
        .bind(run)
        .bind(finished_at)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes the code of the error that a run fails with, and the step it arose in.
    pub async fn note_cause(&self, run: &str, code: &str, step: Option<&str>) -> Result<()> {
        let mut tx = self.write().await?;
        let sql = "update runs set code = $1, step = $2 where run = $3";
        sqlx::query(sql).bind(code).bind(step).bind(run).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Ends a run that will not be in every destination: what it staged is gone or given up, its cursors with it.
    pub async fn end(&self, run: &str, status: RunStatus, finished_at: &str, error: Option<&str>) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("delete from loads where run = $1").bind(run).execute(&mut *tx).await.map_err(failed)?;
        forget_cursors(run, &mut tx).await?;
        sqlx::query("update runs set status = $1, finished_at = $2, error = $3 where run = $4")
            .bind(status.as_str())
            .bind(finished_at)
            .bind(error)
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Runs that a process left unfinished or is still at, oldest first, each with its loads; of one lane of a pipeline, or of all.
    pub async fn unfinished(&self, lane: Option<(&str, u32)>) -> Result<Vec<(RunRecord, Vec<LoadRecord>)>> {
        let unfinished = "select * from runs where ($1 is null or (pipeline = $1 and lane = $2))
             and status in ('running', 'deciding', 'publishing') order by run";
        let (pipeline, lane) = (lane.map(|(pipeline, _)| pipeline), lane.map_or(0, |(_, lane)| lane));
        let rows = sqlx::query(unfinished).bind(pipeline).bind(i64::from(lane)).fetch_all(self.store.pool()).await.map_err(failed)?;
        let mut unfinished = Vec::with_capacity(rows.len());
        for row in rows {
            let record = record(&row)?;
            let loads = self.loads(&record.run).await?;
            unfinished.push((record, loads));
        }
        Ok(unfinished)
    }

    /// A run's loads that are not forgotten yet.
    pub async fn loads(&self, run: &str) -> Result<Vec<LoadRecord>> {
        let rows = sqlx::query("select sink, kind, state, published from loads where run = $1 order by sink")
            .bind(run)
            .fetch_all(self.store.pool())
            .await
            .map_err(failed)?;
        let load = |row: &AnyRow| {
            Ok(LoadRecord {
                sink: row.try_get("sink").map_err(failed)?,
                kind: row.try_get("kind").map_err(failed)?,
                state: from_text(row.try_get("state").map_err(failed)?)?,
                published: row.try_get::<i64, _>("published").map_err(failed)? != 0,
            })
        };
        rows.iter().map(load).collect()
    }

    /// What published runs of a pipeline's source remember.
    pub async fn cursors(&self, pipeline: &str, source: &str) -> Result<BTreeMap<String, String>> {
        let rows = sqlx::query("select key, value from cursors where pipeline = $1 and source = $2")
            .bind(pipeline)
            .bind(source)
            .fetch_all(self.store.pool())
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok((row.try_get("key").map_err(failed)?, row.try_get("value").map_err(failed)?))).collect()
    }

    /// What published runs of a pipeline's sources remember, by source.
    pub async fn all_cursors(&self, pipeline: &Pipeline) -> Result<HashMap<String, BTreeMap<String, String>>> {
        let mut all = HashMap::new();
        for source in &pipeline.sources {
            all.insert(source.name.value.clone(), self.cursors(&pipeline.name.value, &source.name.value).await?);
        }
        Ok(all)
    }

    /// The latest runs, newest first.
    pub async fn runs(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<RunRecord>> {
        let rows = sqlx::query("select * from runs where $1 is null or pipeline = $1 order by run desc limit $2")
            .bind(pipeline)
            .bind(i64::from(limit))
            .fetch_all(self.store.pool())
            .await
            .map_err(failed)?;
        rows.iter().map(record).collect()
    }

    /// The last run of each pipeline that has published, or has failed and is not tried again.
    pub async fn last_ended(&self) -> Result<Vec<RunRecord>> {
        let sql = "select * from runs where run in (
                 select max(runs.run) from runs left join tasks on tasks.id = runs.task
                 where runs.status = 'published' or (runs.status = 'failed' and (runs.task is null or tasks.status = 'failed'))
                 group by runs.pipeline
             )";
        let rows = sqlx::query(sql).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(record).collect()
    }

    /// Asks whether the state answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select id from state").fetch_one(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// What the latest published runs of a pipeline did, newest first.
    pub async fn published_summaries(&self, pipeline: &str, limit: u32) -> Result<Vec<Summary>> {
        let published =
            "select summary from runs where pipeline = $1 and status = 'published' and summary is not null order by run desc limit $2";
        let rows = sqlx::query(published).bind(pipeline).bind(i64::from(limit)).fetch_all(self.store.pool()).await.map_err(failed)?;
        rows.iter().map(|row| from_text(row.try_get("summary").map_err(failed)?)).collect()
    }

    /// The latest published run that was made of the pipeline's own definition, and that definition; none of a run by a version of Weir that
    /// did not keep it yet. A run that mended rows does not count: it made no more than a part.
    pub async fn published_definition(&self, pipeline: &str) -> Result<Option<PublishedText>> {
        let sql = "select run, started_at, summary, text from runs left join definitions on hash = definition
                   where pipeline = $1 and status = 'published' order by run desc";
        let mut rows = sqlx::query(sql).bind(pipeline).fetch(self.store.pool());
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let definition: Option<String> = row.try_get("text").map_err(failed)?;
            let summary: Option<String> = row.try_get("summary").map_err(failed)?;
            let summary: Option<Summary> = summary.map(from_text).transpose()?;
            if definition.is_none() && summary.is_some_and(|summary| summary.mends.is_some()) {
                continue;
            }
            let (run, at) = (row.try_get("run").map_err(failed)?, row.try_get("started_at").map_err(failed)?);
            return Ok(Some(PublishedText { run, at, definition }));
        }
        Ok(None)
    }

    /// The run with this id, or the one run whose id ends or starts with it.
    pub async fn run(&self, id: &str) -> Result<Option<RunRecord>> {
        let rows = sqlx::query(
            "select * from runs where run = $1 or substr(run, 1, length($1)) = $1 or substr(run, length(run) - length($1) + 1) = $1
             order by run = $1 desc, run desc limit 2",
        )
        .bind(id)
        .fetch_all(self.store.pool())
        .await
        .map_err(failed)?;
        match rows.as_slice() {
            [] => Ok(None),
            [one] => record(one).map(Some),
            [first, ..] => {
                let first = record(first)?;
                if first.run == id {
                    return Ok(Some(first));
                }
                Err(Failure::error("ambiguous-run", format!("several runs match \"{id}\"")).help("give more of the run's id"))
            }
        }
    }
}

fn record(row: &AnyRow) -> Result<RunRecord> {
    let status: String = row.try_get("status").map_err(failed)?;
    let summary: Option<String> = row.try_get("summary").map_err(failed)?;
    Ok(RunRecord {
        run: row.try_get("run").map_err(failed)?,
        pipeline: row.try_get("pipeline").map_err(failed)?,
        status: word(&status)?,
        started_at: row.try_get("started_at").map_err(failed)?,
        finished_at: row.try_get("finished_at").map_err(failed)?,
        error: row.try_get("error").map_err(failed)?,
        code: row.try_get("code").map_err(failed)?,
        step: row.try_get("step").map_err(failed)?,
        summary: summary.map(from_text).transpose()?,
        lane: number(row, "lane")?,
        task: row.try_get("task").map_err(failed)?,
        interval_start: row.try_get("interval_start").map_err(failed)?,
        interval_end: row.try_get("interval_end").map_err(failed)?,
    })
}

/// A status by its word.
fn word<T: FromStr<Err = ()>>(word: &str) -> Result<T> {
    word.parse().map_err(|()| Failure::error("state", format!("the run history holds an unknown status \"{word}\"")))
}

/// A number that is never negative and never large.
fn number(row: &AnyRow, column: &str) -> Result<u32> {
    Ok(u32::try_from(row.try_get::<i64, _>(column).map_err(failed)?).unwrap_or(0))
}

/// An instant as [`stamp`] wrote it.
fn instant(text: &str) -> Result<DateTime<Utc>> {
    let read = DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc());
    read.map_err(|_| Failure::error("state", format!("the run history holds \"{text}\" where an instant should be")))
}

/// An interval that a row has under these names.
fn span(row: &AnyRow) -> Result<Option<Span>> {
    let get = |name: &str| row.try_get::<Option<String>, _>(name).map_err(failed);
    let (start, end) = (get("interval_start")?, get("interval_end")?);
    start.zip(end).map(|(start, end)| Ok((instant(&start)?, instant(&end)?))).transpose()
}

fn to_text(summary: &Summary) -> String {
    serde_json::to_string(summary).expect("a summary is plain data")
}

fn from_text<T: serde::de::DeserializeOwned>(text: String) -> Result<T> {
    serde_json::from_str(&text).map_err(|error| Failure::error("state", format!("the run history holds a text Weir cannot read: {error}")))
}

/// Notes a load of a run: where it stages, or what it has sealed.
async fn keep_load(run: &str, load: &LoadRecord, tx: &mut Transaction<'_, Any>) -> Result<()> {
    sqlx::query(
        "insert into loads (run, sink, kind, state, published) values ($1, $2, $3, $4, 0)
         on conflict (run, sink) do update set kind = excluded.kind, state = excluded.state, published = 0",
    )
    .bind(run)
    .bind(&load.sink)
    .bind(&load.kind)
    .bind(load.state.to_string())
    .execute(&mut **tx)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Removes what a run would move.
async fn forget_cursors(run: &str, tx: &mut Transaction<'_, Any>) -> Result<()> {
    for sql in ["delete from run_cursors where run = $1", "delete from run_forgets where run = $1"] {
        sqlx::query(sql).bind(run).execute(&mut **tx).await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
