//! Tokens of a server's ports: kept as hashes, so that who reads the state does not have them.

use chrono::{DateTime, Utc};
use sqlx::{Row, any::AnyRow};

use super::{History, stamp, store::failed};
use crate::error::Result;

/// A token, without what it takes to use it over HTTP.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// The SHA-256 of the token, in lower-case hexadecimal.
    #[serde(skip)]
    pub hash: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// What it opens, as words.
    pub scopes: Vec<String>,
    /// What SCRAM-SHA-256 compares. None: the token was made before there was any.
    #[serde(skip)]
    pub scram: Option<Scram>,
}

/// A salt, and the token salted with it as SCRAM-SHA-256 does (RFC 5802), both in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Scram {
    /// The salt.
    pub salt: String,
    /// PBKDF2 of the token with it. Who has it can log in as SCRAM does: it is never shown.
    pub salted_password: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Scram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scram(***)")
    }
}

const COLUMNS: &str = "select name, hash, created_at, scopes, salt, salted_password from tokens";

impl History {
    /// Keeps a token. False where the name is taken. When it was made is said by `now`.
    pub async fn add_token(&self, name: &str, hash: &str, scopes: &[String], scram: &Scram, now: DateTime<Utc>) -> Result<bool> {
        let add = "insert into tokens (name, hash, created_at, scopes, salt, salted_password) values ($1, $2, $3, $4, $5, $6)
                   on conflict (name) do nothing";
        let add = sqlx::query(add).bind(name).bind(hash).bind(stamp(now)).bind(scopes.join(","));
        let add = add.bind(&scram.salt).bind(&scram.salted_password);
        let added = add.execute(self.store.pool()).await.map_err(failed)?;
        Ok(added.rows_affected() == 1)
    }

    /// The tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let question = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} order by name")));
        question.fetch_all(self.store.pool()).await.map_err(failed)?.iter().map(token).collect()
    }

    /// The token of this hash, which is not revoked.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>> {
        let question = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where hash = $1"))).bind(hash);
        question.fetch_optional(self.store.pool()).await.map_err(failed)?.as_ref().map(token).transpose()
    }

    /// The token of this name, which is not revoked.
    pub async fn token_by_name(&self, name: &str) -> Result<Option<Token>> {
        let question = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where name = $1"))).bind(name);
        question.fetch_optional(self.store.pool()).await.map_err(failed)?.as_ref().map(token).transpose()
    }

    /// Forgets a token. False where there is none of that name.
    pub async fn revoke_token(&self, name: &str) -> Result<bool> {
        let revoked = sqlx::query("delete from tokens where name = $1").bind(name).execute(self.store.pool()).await.map_err(failed)?;
        Ok(revoked.rows_affected() == 1)
    }
}

fn token(row: &AnyRow) -> Result<Token> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed);
    let some_text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(failed);
    let scopes = text("scopes")?;
    let scram = match (some_text("salt")?, some_text("salted_password")?) {
        (Some(salt), Some(salted_password)) => Some(Scram { salt, salted_password }),
        _ => None,
    };
    Ok(Token {
        name: text("name")?,
        hash: text("hash")?,
        created_at: text("created_at")?,
        scopes: scopes.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        scram,
    })
}
