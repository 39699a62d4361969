//! Tokens of the HTTP port: kept as hashes, so that who reads the state cannot use them.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::{History, stamp, store::failed};
use crate::error::Result;

/// A token, without what it takes to use it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// The SHA-256 of the token, in lower-case hexadecimal.
    #[serde(skip)]
    pub hash: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

impl History {
    /// Keeps a token by its hash. False where the name is taken.
    pub async fn add_token(&self, name: &str, hash: &str, now: DateTime<Utc>) -> Result<bool> {
        let add = "insert into tokens (name, hash, created_at) values ($1, $2, $3) on conflict (name) do nothing";
        let added = sqlx::query(add).bind(name).bind(hash).bind(stamp(now)).execute(self.store.pool()).await.map_err(failed)?;
        Ok(added.rows_affected() == 1)
    }

    /// The tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let rows =
            sqlx::query("select name, hash, created_at from tokens order by name").fetch_all(self.store.pool()).await.map_err(failed)?;
        let token = |row: &sqlx::any::AnyRow| {
            Ok(Token {
                name: row.try_get("name").map_err(failed)?,
                hash: row.try_get("hash").map_err(failed)?,
                created_at: row.try_get("created_at").map_err(failed)?,
            })
        };
        rows.iter().map(token).collect()
    }

    /// Forgets a token. False where there is none of that name.
    pub async fn revoke_token(&self, name: &str) -> Result<bool> {
        let revoked = sqlx::query("delete from tokens where name = $1").bind(name).execute(self.store.pool()).await.map_err(failed)?;
        Ok(revoked.rows_affected() == 1)
    }
}
