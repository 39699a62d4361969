//! `weir_load`: which loads a schema's tables have had. Its primary key, the run and the sink, is what makes a load happen once.

use std::sync::Arc;

use sqlx::Row;

use super::{
    connect::{Pool, Session},
    failed::Doing,
    name::TableName,
};
use crate::error::{Error, Result};

/// The ledger's name.
const NAME: &str = "weir_load";
/// Rows older than this many days are removed; no run waits so long to be published.
const KEEP_DAYS: u32 = 90;

/// What is known of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its rows are in the table.
    Published,
    /// They are not, and never will be.
    Never,
}

/// One load's row.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The run.
    pub run: &'a str,
    /// The sink step.
    pub sink: &'a str,
    /// The pipeline.
    pub pipeline: &'a str,
    /// The table's name without its schema.
    pub table: &'a str,
}

/// The ledger of one schema.
#[derive(Debug, Clone)]
pub struct Ledger(TableName);

impl Ledger {
    /// The ledger beside a table.
    pub fn of(table: &TableName) -> Self {
        Self(table.beside(NAME))
    }

    /// The statements that make the schema and the ledger.
    pub fn ddl(&self) -> [String; 2] {
        [
            format!("create schema if not exists {}", crate::quote::identifier(self.0.schema.as_deref().unwrap_or("public"))),
            format!(
                "create table if not exists {} (run text not null, sink text not null, pipeline text not null, target text not null, \
                 rows bigint not null, outcome text not null, at timestamp with time zone not null default clock_timestamp(), \
                 primary key (run, sink))",
                self.0.sql()
            ),
        ]
    }

    /// Which of the schema and the ledger are missing.
    pub async fn missing(&self, session: &mut Session) -> Result<Vec<String>> {
        let doing = "look for the ledger";
        let found = session
            .fetch(
                "select n.oid is not null, c.oid is not null from (select) x
                 left join pg_catalog.pg_namespace n on n.nspname::text = $1
                 left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname::text = $2",
                &[self.0.schema.as_deref().unwrap_or("public"), NAME],
                doing,
            )
            .await?;
        let there = |index| found.first().map_or(Ok(false), |row| row.try_get::<bool, _>(index)).doing(doing);
        let mut missing = Vec::new();
        for (index, sql) in self.ddl().into_iter().enumerate() {
            if !there(index)? {
                missing.push(sql);
            }
        }
        Ok(missing)
    }

    /// Makes what is missing, and removes rows that are too old for any run to ask for.
    pub async fn ensure(&self, pool: &Arc<Pool>, application_name: &str) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.try_ensure(pool, application_name).await {
                Ok(()) => return Ok(()),
                // Two loads that make it at once: `if not exists` does not wait for the other one.
                Err(error) if tries < 3 && matches!(error.code, "duplicate-key" | "wrong-sql") => tries += 1,
                Err(error) if error.code == "no-privilege" => {
                    let [schema, table] = self.ddl();
                    return Err(error.help(format!(
                        "let the schema's owner make the ledger: {schema}; {table}; grant select, insert, delete on {} to {}",
                        self.0.sql(),
                        crate::quote::identifier(pool.user())
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_ensure(&self, pool: &Arc<Pool>, application_name: &str) -> Result<()> {
        let mut session = pool.begin(application_name).await?;
        let missing = self.missing(&mut session).await?;
        for sql in &missing {
            session.execute(sql, &format!("make \"{}\"", self.0)).await?;
        }
        if missing.is_empty() {
            let may = format!("select has_table_privilege({}::regclass, 'DELETE')::text", "$1");
            let may = session.fetch_text(&may, &[&self.0.sql()], "look at the ledger").await?;
            if may.as_deref() == Some("true") {
                let old = format!("delete from {} where at < now() - make_interval(days => {KEEP_DAYS})", self.0.sql());
                session.execute(&old, "tidy the ledger").await?;
            }
        }
        session.commit("make the ledger").await
    }

    /// Notes a load's end, in the session's transaction. False: it has been noted before. Waits for another transaction that notes it.
    pub async fn note(&self, session: &mut Session, entry: &Entry<'_>, rows: u64, outcome: Outcome) -> Result<bool> {
        let sql = format!(
            "insert into {} (run, sink, pipeline, target, rows, outcome) values ($1, $2, $3, $4, $5::bigint, $6) on conflict do nothing",
            self.0.sql()
        );
        let word = match outcome {
            Outcome::Published => "published",
            Outcome::Never => "never",
        };
        let binds = [entry.run, entry.sink, entry.pipeline, entry.table, &rows.to_string(), word];
        Ok(session.execute_with(&sql, &binds, &format!("note the load in \"{}\"", self.0)).await? == 1)
    }

    /// What has been noted of a load.
    pub async fn outcome(&self, session: &mut Session, entry: &Entry<'_>) -> Result<Option<Outcome>> {
        let sql = format!("select outcome from {} where run = $1 and sink = $2", self.0.sql());
        match session.fetch_text(&sql, &[entry.run, entry.sink], &format!("read \"{}\"", self.0)).await?.as_deref() {
            None => Ok(None),
            Some("published") => Ok(Some(Outcome::Published)),
            Some("never") => Ok(Some(Outcome::Never)),
            Some(other) => Err(Error::system("ledger", format!("\"{}\" has the unknown outcome \"{other}\"", self.0))),
        }
    }
}
