//! Lanes: runs of one lane of a pipeline never overlap, whichever processes make them. On one machine a lock file sees to it, which the system
//! lets go however a process ends. Where servers share a state, a lane is leased besides: a process that is not heard of for the lease's length
//! may have lost it, and whatever it still writes is refused by the number that each new holder raises.

use std::{fs::File, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_connectors::{Blame, Retry};

use super::{Fence, History, store::failed};
use crate::error::{Failure, Result};

/// A lease that is not renewed ends after so long. One that seems to last longer was given before the database's clock was set back.
pub const LEASE_MS: i64 = 20_000;
/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(4);

/// A lane of a pipeline, held.
#[derive(Debug)]
pub struct Lane {
    /// Let go when this is dropped.
    _file: File,
    lease: Option<Lease>,
    /// Cancelled when the lane is known to have gone to another process.
    pub lost: CancellationToken,
}

#[derive(Debug)]
struct Lease {
    history: History,
    fence: Arc<Fence>,
    renewal: JoinHandle<()>,
}

/// Says that a pipeline's lane is held by another process.
pub fn taken(pipeline: &str) -> Failure {
    Failure::error("already-running", format!("pipeline \"{pipeline}\" is running already"))
        .help("wait until it has ended, or stop it; \"weir runs list\" shows it")
        .retry(Retry::Later)
}

/// Says that a lane which this process had is another one's by now.
pub(crate) fn lost() -> Failure {
    Failure::error("lane-lost", "another process has taken this run up: it held the state for too long unheard")
        .blame(Blame::System)
        .retry(Retry::Later)
        .help("its rows are in every destination or in none; look with: weir runs list")
}

impl History {
    /// Takes a lane whose lock file is held.
    pub(crate) async fn take_lane(&self, file: File, pipeline: &str, lane: u32) -> Result<Lane> {
        let lost = CancellationToken::new();
        if !self.is_shared() {
            return Ok(Lane { _file: file, lease: None, lost });
        }
        let take = self.store.sql(
            "insert into locks (pipeline, lane, fence, owner, until_ms) values ($1, $2, 1, $3, NOW_MS + $4)
             on conflict (pipeline, lane) do update set fence = locks.fence + 1, owner = excluded.owner, until_ms = excluded.until_ms
             where locks.until_ms < NOW_MS or locks.until_ms > NOW_MS + 2 * $4 returning fence",
        );
        let number: Option<i64> = sqlx::query_scalar(take)
            .bind(pipeline)
            .bind(i64::from(lane))
            .bind(owner())
            .bind(LEASE_MS)
            .fetch_optional(self.store.pool())
            .await
            .map_err(failed)?;
        let number = number.ok_or_else(|| taken(pipeline))?;
        let fence = Arc::new(Fence { pipeline: pipeline.to_owned(), lane, number });
        let renewal = tokio::spawn(renew(self.clone(), fence.clone(), lost.clone()));
        Ok(Lane { _file: file, lease: Some(Lease { history: self.clone(), fence, renewal }), lost })
    }

    /// The history as a run in this lane writes it: nothing that the lane's next holder could contradict.
    pub fn in_lane(&self, lane: &Lane) -> Self {
        Self { fence: lane.lease.as_ref().map(|lease| lease.fence.clone()), ..self.clone() }
    }
}

impl Lane {
    /// Cancels what is made in the lane when it is lost; until what is returned is dropped.
    pub fn watch(&self, cancel: &CancellationToken) -> DropGuard {
        let (lost, cancel, over) = (self.lost.clone(), cancel.clone(), CancellationToken::new());
        let watch = over.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = lost.cancelled() => cancel.cancel(),
                () = watch.cancelled() => {}
            }
        });
        over.drop_guard()
    }

    /// Whether another process has it by now, or may have.
    pub async fn is_lost(&self) -> bool {
        let Some(Lease { history, fence, .. }) = &self.lease else { return false };
        if self.lost.is_cancelled() {
            return true;
        }
        let held = sqlx::query("select 1 from locks where pipeline = $1 and lane = $2 and fence = $3")
            .bind(&fence.pipeline)
            .bind(i64::from(fence.lane))
            .bind(fence.number)
            .fetch_optional(history.store.pool());
        !matches!(tokio::time::timeout(RENEWED * 2, held).await, Ok(Ok(Some(_))))
    }

    /// Lets the lane go at once. Where that cannot be said, its lease ends by itself.
    pub async fn release(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.renewal.abort();
            let _ = lease.end().await;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.renewal.abort();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { lease.end().await });
            }
        }
    }
}

impl Lease {
    async fn end(&self) -> Result<()> {
        let end = "update locks set until_ms = 0 where pipeline = $1 and lane = $2 and fence = $3";
        let end = sqlx::query(end).bind(&self.fence.pipeline).bind(i64::from(self.fence.lane)).bind(self.fence.number);
        tokio::time::timeout(RENEWED, end.execute(self.history.store.pool()))
            .await
            .map_err(|_| Failure::error("state", "the run history does not answer"))?
            .map_err(failed)?;
        Ok(())
    }
}

/// Renews a lease until the task is ended, or somebody else has it. While the state does not answer nobody can take the lane either.
async fn renew(history: History, fence: Arc<Fence>, lost: CancellationToken) {
    let renew = "update locks set until_ms = NOW_MS + $4 where pipeline = $1 and lane = $2 and fence = $3";
    loop {
        tokio::time::sleep(RENEWED).await;
        let renewed = sqlx::query(history.store.sql(renew))
            .bind(&fence.pipeline)
            .bind(i64::from(fence.lane))
            .bind(fence.number)
            .bind(LEASE_MS)
            .execute(history.store.pool());
        match tokio::time::timeout(RENEWED * 2, renewed).await {
            Ok(Ok(done)) if done.rows_affected() == 0 => {
                tracing::warn!(pipeline = fence.pipeline, lane = fence.lane, "another process has taken this lane");
                lost.cancel();
                return;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(pipeline = fence.pipeline, %error, "a lane's lease could not be renewed"),
            Err(_) => tracing::warn!(pipeline = fence.pipeline, "a lane's lease could not be renewed: no answer"),
        }
    }
}

/// This process, for whoever looks at the table.
fn owner() -> String {
    format!("process {}", std::process::id())
}
