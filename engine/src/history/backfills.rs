//! Backfills: a pipeline's intervals between two instants, to be run again or for the first time. Their tasks say what is left.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Row, any::AnyRow};

use super::{
    History, Span, number, span, stamp,
    store::failed,
    tasks::{NewTask, insert},
};
use crate::error::{Failure, Result};

/// A backfill as it is kept.
#[derive(Debug, Clone, Serialize)]
pub struct BackfillRecord {
    /// Its id: a UUID version 7.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// From where to where.
    pub interval: Span,
    /// Which intervals it takes: missing, failed or all.
    pub reprocess: String,
    /// Runs side by side.
    pub parallel: u32,
    /// The latest interval first.
    pub backwards: bool,
    /// `open`, `done` or `cancelled`.
    pub status: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

fn record(row: &AnyRow) -> Result<BackfillRecord> {
    let text = |name: &str| row.try_get::<String, _>(name).map_err(failed);
    Ok(BackfillRecord {
        id: text("id")?,
        pipeline: text("pipeline")?,
        interval: span(row)?.ok_or_else(|| Failure::error("state", "the run history holds a backfill without an interval"))?,
        reprocess: text("reprocess")?,
        parallel: number(row, "parallel")?,
        backwards: number(row, "backwards")? != 0,
        status: text("status")?,
        created_at: text("created_at")?,
    })
}

impl History {
    /// Adds a backfill with all its tasks, in one transaction.
    pub async fn add_backfill(&self, backfill: &BackfillRecord, tasks: &[NewTask], now: DateTime<Utc>) -> Result<()> {
        let mut tx = self.store.begin().await?;
        sqlx::query(
            "insert into backfills (id, pipeline, interval_start, interval_end, reprocess, parallel, backwards, status, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        )
        .bind(&backfill.id)
        .bind(&backfill.pipeline)
        .bind(stamp(backfill.interval.0))
        .bind(stamp(backfill.interval.1))
        .bind(&backfill.reprocess)
        .bind(i64::from(backfill.parallel))
        .bind(i64::from(backfill.backwards))
        .bind(&backfill.status)
        .bind(&backfill.created_at)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let now = stamp(now);
        for task in tasks {
            insert(&mut tx, task, &now).await?;
        }
        tx.commit().await.map_err(failed)
    }

    /// The backfill with this id, or the one whose id starts or ends with it.
    pub async fn backfill(&self, id: &str) -> Result<Option<BackfillRecord>> {
        let rows = sqlx::query(
            "select * from backfills where substr(id, 1, length($1)) = $1 or substr(id, length(id) - length($1) + 1) = $1
             order by id desc limit 2",
        )
        .bind(id)
        .fetch_all(self.store.pool())
        .await
        .map_err(failed)?;
        match rows.as_slice() {
            [] => Ok(None),
            [one] => record(one).map(Some),
            _ => Err(Failure::error("ambiguous-run", format!("several backfills match \"{id}\"")).help("give more of the id")),
        }
    }

    /// The latest backfills, newest first.
    pub async fn backfills(&self, limit: u32) -> Result<Vec<BackfillRecord>> {
        let rows = sqlx::query("select * from backfills order by id desc limit $1").bind(i64::from(limit));
        rows.fetch_all(self.store.pool()).await.map_err(failed)?.iter().map(record).collect()
    }

    /// Cancels what a backfill has not run yet, and asks for what it runs to be stopped. Returns how many tasks that were.
    pub async fn cancel_backfill(&self, id: &str, reason: &str, now: DateTime<Utc>) -> Result<u64> {
        let mut tx = self.store.begin().await?;
        let waiting = "update tasks set status = 'cancelled', reason = $1, updated_at = $2 where backfill = $3 and status = 'waiting'";
        let cancelled = sqlx::query(waiting).bind(reason).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let running = "update tasks set cancel = 1, reason = $1 where backfill = $2 and status = 'running'";
        let asked = sqlx::query(running).bind(reason).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let status = "update backfills set status = 'cancelled', updated_at = $1 where id = $2";
        sqlx::query(status).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(cancelled.rows_affected() + asked.rows_affected())
    }

    /// Backfills that are not known to be over, with how many lanes each has.
    pub(super) async fn open_backfills(&self) -> Result<Vec<(String, u32)>> {
        let rows = sqlx::query("select id, parallel from backfills where status = 'open' order by id").fetch_all(self.store.pool()).await;
        rows.map_err(failed)?.iter().map(|row| Ok((row.try_get("id").map_err(failed)?, number(row, "parallel")?))).collect()
    }

    /// Notes that nothing of a backfill waits or is run any more.
    pub(super) async fn end_backfill(&self, id: &str) -> Result<()> {
        let over = "update backfills set status = 'done' where id = $1 and status = 'open'
                    and not exists (select 1 from tasks where backfill = $1 and status in ('waiting', 'running'))";
        sqlx::query(over).bind(id).execute(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// Lets what a backfill has failed or was cancelled in wait again. Returns how many tasks that were.
    pub async fn resume_backfill(&self, id: &str, now: DateTime<Utc>) -> Result<u64> {
        let mut tx = self.store.begin().await?;
        let again =
            "update tasks set status = 'waiting', not_before = $1, attempts = 0, crashes = 0, reason = null, cancel = 0, updated_at = $1
                     where backfill = $2 and status in ('failed', 'cancelled')";
        let again = sqlx::query(again).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        let status = "update backfills set status = 'open', updated_at = $1 where id = $2";
        sqlx::query(status).bind(stamp(now)).bind(id).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(again.rows_affected())
    }
}
