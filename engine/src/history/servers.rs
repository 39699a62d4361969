//! Servers that share a state: who is alive, and which of them leads. The leader cuts time into tasks; each of its transactions holds its number
//! still, so that a leader that was thought dead can add nothing any more.

use chrono::{DateTime, Utc};
use sqlx::{Any, Row, Transaction};
use weir_connectors::{Blame, Retry};

use super::{History, stamp, store::failed};
use crate::error::{Failure, Result};

/// A server that is not heard of for so long is dead, and its leadership over. What seems to last longer was said before the database's clock was
/// set back.
pub const LEASE_MS: i64 = 15_000;

/// That a server leads, for as long as nobody has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership(i64);

impl History {
    /// Says that a server is alive.
    pub async fn server_lives(&self, server: &str, name: &str, started_at: DateTime<Utc>) -> Result<()> {
        let sql = self.store.sql(
            "insert into servers (id, name, started_at, until_ms) values ($1, $2, $3, NOW_MS + $4)
             on conflict (id) do update set until_ms = excluded.until_ms",
        );
        let lives = sqlx::query(sql).bind(server).bind(name).bind(stamp(started_at)).bind(LEASE_MS);
        lives.execute(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// Says that a server ends: others need not wait for its lease.
    pub async fn server_ends(&self, server: &str) -> Result<()> {
        let mut tx = self.store.begin().await?;
        for sql in ["delete from servers where id = $1", "update leader set until_ms = 0 where owner = $1"] {
            sqlx::query(sql).bind(server).execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Says that a server leads no longer, so that another one may at once.
    pub async fn server_ends_leading(&self, server: &str) -> Result<()> {
        let end = sqlx::query("update leader set until_ms = 0 where owner = $1").bind(server);
        end.execute(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// Forgets servers that have been dead for a day.
    pub async fn forget_servers(&self) -> Result<()> {
        let sql = self.store.sql("delete from servers where until_ms < NOW_MS - 86400000");
        sqlx::query(sql).execute(self.store.pool()).await.map_err(failed)?;
        Ok(())
    }

    /// Servers that are alive, by name.
    pub async fn servers(&self) -> Result<Vec<String>> {
        let sql = self.store.sql("select name from servers where until_ms > NOW_MS order by name");
        sqlx::query_scalar(sql).fetch_all(self.store.pool()).await.map_err(failed)
    }

    /// Becomes or stays the leader; none where another server leads. `alone`: no other server can be there, whatever the table says.
    pub async fn lead(&self, server: &str, current: Option<Leadership>, alone: bool) -> Result<Option<Leadership>> {
        if let Some(Leadership(fence)) = current {
            let renew = self.store.sql("update leader set until_ms = NOW_MS + $3 where owner = $1 and fence = $2");
            let renewed = sqlx::query(renew).bind(server).bind(fence).bind(LEASE_MS).execute(self.store.pool()).await.map_err(failed)?;
            if renewed.rows_affected() == 1 {
                return Ok(current);
            }
        }
        let take = self.store.sql(
            "insert into leader (one, fence, owner, until_ms) values (1, 1, $1, NOW_MS + $2)
             on conflict (one) do update set fence = leader.fence + 1, owner = excluded.owner, until_ms = excluded.until_ms
             where leader.until_ms < NOW_MS or leader.until_ms > NOW_MS + 2 * $2 or $3 = 1 returning fence",
        );
        let fence: Option<i64> = sqlx::query_scalar(take)
            .bind(server)
            .bind(LEASE_MS)
            .bind(i64::from(alone))
            .fetch_optional(self.store.pool())
            .await
            .map_err(failed)?;
        Ok(fence.map(Leadership))
    }

    /// Starts a transaction of the leader. Fails where another server leads by now.
    pub(super) async fn write_as_leader(&self, Leadership(fence): Leadership) -> Result<Transaction<'static, Any>> {
        let mut tx = self.store.begin().await?;
        let leads = self.store.sql("select fence from leader where one = 1 FOR_UPDATE");
        let current = sqlx::query(leads).fetch_optional(&mut *tx).await.map_err(failed)?;
        let current: Option<i64> = current.map(|row| row.try_get("fence").map_err(failed)).transpose()?;
        if current != Some(fence) {
            return Err(Failure::error("not-leading", "another server leads by now").blame(Blame::System).retry(Retry::Later));
        }
        Ok(tx)
    }
}
