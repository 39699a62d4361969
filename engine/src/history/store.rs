//! Where the history is kept: SQLite for one server, Postgres for several; how it is opened, brought to this version's form, and asked.
//!
//! Both are asked in the same words. Where they have none in common, a statement says `NOW_MS` (milliseconds since 1970 by the database's own
//! clock, which is one clock for all servers) or `FOR_UPDATE`, and [`Store::sql`] says it in the database's words.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Any, AnyPool, AssertSqlSafe, ConnectOptions, Connection, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use url::Url;
use weir_connectors::{Blame, Retry};

use crate::error::{Failure, Result};

/// Connections that one process holds to a Postgres state.
const CONNECTIONS_MAX: u32 = 6;
/// A statement waits so long for a connection, and for another process's transaction.
const WAIT: Duration = Duration::from_secs(30);
/// What an address of a server begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// The first connection is waited for so long.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Two processes that bring a Postgres state to a new form at once take turns by this number.
const MIGRATION_LOCK: i64 = 0x7765_6972;

/// Where a history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In an SQLite file.
    File(PathBuf),
    /// In a schema of a Postgres database.
    Server {
        /// Its address, with the password.
        url: Hidden,
        /// The schema.
        schema: String,
    },
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// An open state database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// Each entry takes the database from one version to the next. Both databases understand them.
const MIGRATIONS: &[&str] = &[
    "
    create table state (id text not null);
    create table runs (
        run text primary key, pipeline text not null, status text not null,
        started_at text not null, finished_at text, error text, summary text
    );
    create index runs_by_pipeline on runs (pipeline, run);
    create table loads (
        run text not null, sink text not null, kind text not null, state text not null, published integer not null default 0,
        primary key (run, sink)
    );
    create table run_cursors (run text not null, source text not null, key text not null, value text not null);
    create table cursors (
        pipeline text not null, source text not null, key text not null, value text not null,
        primary key (pipeline, source, key)
    );
",
    "create table run_forgets (run text not null, source text not null)",
    "alter table runs add column code text; alter table runs add column step text",
    // What ran, once for as many runs as ran it.
    "create table definitions (hash text primary key, text text not null); alter table runs add column definition text",
    // Schedules: what is to be run, by whom, and what has become of it.
    "
    alter table runs add column lane bigint not null default 0;
    alter table runs add column task text;
    alter table runs add column interval_start text;
    alter table runs add column interval_end text;
    create index runs_by_interval on runs (pipeline, interval_end);
    create table schedules (
        pipeline text primary key, since text not null, covered text not null,
        paused_at text, paused_by text, pause_reason text
    );
    create table tasks (
        id text primary key, pipeline text not null, origin text not null, status text not null,
        interval_start text, interval_end text, joined bigint not null default 1,
        due_at text not null, not_before text not null, attempts bigint not null default 0, crashes bigint not null default 0,
        params text not null default '{}', reason text, run text, lane bigint not null default 0, server text, backfill text,
        origin_key text, cancel bigint not null default 0, late bigint not null default 0, created_at text not null, updated_at text not null
    );
    create index tasks_by_status on tasks (status, not_before);
    create index tasks_by_pipeline on tasks (pipeline, interval_end);
    create index tasks_of_backfills on tasks (backfill, lane, status, id);
    create unique index tasks_of_schedules on tasks (pipeline, interval_end) where origin = 'schedule';
    create unique index tasks_by_key on tasks (pipeline, origin_key) where origin_key is not null;
    create table backfills (
        id text primary key, pipeline text not null, interval_start text not null, interval_end text not null, reprocess text not null,
        parallel bigint not null, backwards bigint not null, status text not null, created_at text not null, updated_at text not null
    );
    create table arrivals (pipeline text not null, source text not null, item text not null, mark text not null, primary key (pipeline, source, item));
    create table locks (
        pipeline text not null, lane bigint not null, fence bigint not null, owner text not null, until_ms bigint not null,
        primary key (pipeline, lane)
    );
    create table servers (id text primary key, name text not null, started_at text not null, until_ms bigint not null);
    create table leader (one bigint primary key, fence bigint not null, owner text not null, until_ms bigint not null);
    create table tokens (name text primary key, hash text not null unique, created_at text not null);
    create table events (id text primary key, at text not null, kind text not null, pipeline text, run text, text text not null);
    create index events_by_time on events (at);
",
    // Tokens of before open what they opened, which was runs, and no Postgres port.
    "
    alter table tokens add column scopes text not null default 'runs';
    alter table tokens add column salt text;
    alter table tokens add column salted_password text;
",
];

/// A failure of the database, in the words of the person who runs Weir.
pub(super) fn failed(error: sqlx::Error) -> Failure {
    let passing = matches!(
        error,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
    ) || matches!(&error, sqlx::Error::Database(refused) if refused.code().is_some_and(|code| is_passing(&code)));
    let failure = Failure::error("state", format!("the run history cannot be used: {error}"))
        .blame(Blame::System)
        .help("it is the SQLite file state.db in the project's .weir folder, or the Postgres of [state] url; look whether the disk is full or read-only, or the server down");
    if passing { failure.retry(Retry::Later) } else { failure }
}

/// Whether an SQLSTATE (Postgres) or a result code (SQLite) says that the same may succeed later.
fn is_passing(code: &str) -> bool {
    match code.len() {
        // Connections, resources, the operator's doing, serialization and deadlocks; read-only while a standby takes over.
        5 => ["08", "53", "57", "40", "58"].iter().any(|class| code.starts_with(class)) || code == "25006",
        // Busy, locked, an error of the disk, a full disk.
        _ => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13)),
    }
}

impl Store {
    /// Opens the database, making it and bringing it to this version's form where needed. `id` names a new state. Returns its name.
    pub(super) async fn open(place: &Place, id: &str) -> Result<(Self, String)> {
        let store = match place {
            Place::File(path) => Self::file(path).await?,
            Place::Server { url, schema } => Self::server(&url.0, schema).await?,
        };
        let id = store.migrate(id, MIGRATIONS.len()).await?;
        Ok((store, id))
    }

    async fn file(path: &Path) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let url = Url::from_file_path(path)
            .map_err(|()| Failure::error("state", format!("\"{}\" is no absolute path", path.display())).blame(Blame::Weir))?;
        let url = format!("sqlite://{}?mode=rwc", url.path());
        let options = url.parse::<AnyConnectOptions>().map_err(failed)?;
        // A commit is on disk before it is answered: a decision may not be forgotten.
        let pool = AnyPoolOptions::new().max_connections(2).acquire_timeout(WAIT).after_connect(|connection, _| {
            Box::pin(async move {
                let set = "pragma busy_timeout = 30000; pragma journal_mode = wal; pragma synchronous = full";
                sqlx::raw_sql(set).execute(connection).await.map(|_| ())
            })
        });
        // A full disk ends a transaction, and the driver goes on counting it: no other one would begin on that connection.
        let pool = pool.after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        let pool = pool.connect_with(options).await.map_err(failed)?;
        Ok(Self { pool, dialect: Dialect::Sqlite })
    }

    async fn server(url: &str, schema: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        if Url::parse(url).is_err() || !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(Failure::error("state-url", "[state] url is not an address such as postgres://user@host:5432/database")
                .help("write it as { env = \"WEIR_STATE_URL\" } to keep its password out of the file"));
        }
        let options: AnyConnectOptions = url.parse().map_err(failed)?;
        let schema = format!("\"{}\"", schema.replace('"', "\"\""));
        // Two servers that make it at once take turns: "if not exists" alone lets both try.
        let make = format!("select pg_advisory_xact_lock({MIGRATION_LOCK}); create schema if not exists {schema}");
        let choose = format!("set search_path to {schema}; set statement_timeout = '60s'; set idle_in_transaction_session_timeout = '15s'");
        let pool = AnyPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(WAIT).after_connect(move |connection, _| {
            let choose = choose.clone();
            Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(choose)).execute(connection).await.map(|_| ()) })
        });
        // A pool tries for long: it rides out an outage. Whoever begins wants to know at once that nobody is there.
        let first = match tokio::time::timeout(FIRST_WAIT, options.connect()).await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => return Err(failed(sqlx::Error::PoolTimedOut)),
        };
        let _ = first.close().await;
        let pool = pool.connect_with(options).await.map_err(failed)?;
        // Where it is there already, the right to make it is not needed.
        let found = sqlx::query("select 1 where current_schema() is not null");
        if found.fetch_optional(&pool).await.map_err(failed)?.is_none() {
            sqlx::raw_sql(AssertSqlSafe(make)).execute(&pool).await.map_err(failed)?;
        }
        Ok(Self { pool, dialect: Dialect::Postgres })
    }

    /// Brings the database to the form `to`. Returns the state's name.
    async fn migrate(&self, id: &str, to: usize) -> Result<String> {
        let mut tx = self.begin().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query("select pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await.map_err(failed)?;
            sqlx::raw_sql("create table if not exists form (version bigint not null)").execute(&mut *tx).await.map_err(failed)?;
        }
        let version = self.version(&mut tx).await?;
        if version > MIGRATIONS.len() {
            return Err(Failure::error("state", format!("the run history was written by a newer Weir (its form is {version})"))
                .help("use that version, or another .weir folder"));
        }
        for (at, migration) in MIGRATIONS.iter().enumerate().take(to).skip(version) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await.map_err(failed)?;
            if at == 0 {
                sqlx::query("insert into state values ($1)").bind(id).execute(&mut *tx).await.map_err(failed)?;
            }
        }
        if version < to {
            self.stamp(&mut tx, to).await?;
        }
        let id = sqlx::query_scalar("select id from state").fetch_one(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(id)
    }

    async fn version(&self, tx: &mut Transaction<'_, Any>) -> Result<usize> {
        let question = match self.dialect {
            Dialect::Sqlite => "pragma user_version",
            Dialect::Postgres => "select coalesce(max(version), 0) from form",
        };
        let version: i64 = sqlx::query_scalar(question).fetch_one(&mut **tx).await.map_err(failed)?;
        Ok(usize::try_from(version).unwrap_or(usize::MAX))
    }

    async fn stamp(&self, tx: &mut Transaction<'_, Any>, version: usize) -> Result<()> {
        let stamp = match self.dialect {
            Dialect::Sqlite => format!("pragma user_version = {version}"),
            Dialect::Postgres => format!("delete from form; insert into form values ({version})"),
        };
        sqlx::raw_sql(AssertSqlSafe(stamp)).execute(&mut **tx).await.map_err(failed)?;
        Ok(())
    }

    /// Starts a transaction that means to write.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>> {
        let begin = match self.dialect {
            // One that only turns into a writer later may be refused then.
            Dialect::Sqlite => "begin immediate",
            Dialect::Postgres => "begin",
        };
        self.pool.begin_with(begin).await.map_err(failed)
    }

    pub(super) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Whether several servers may share it.
    pub(super) fn is_shared(&self) -> bool {
        self.dialect == Dialect::Postgres
    }

    /// A statement in the database's words.
    pub(super) fn sql(&self, text: &'static str) -> AssertSqlSafe<String> {
        let (now, lock) = match self.dialect {
            Dialect::Sqlite => ("cast(unixepoch('now', 'subsec') * 1000 as integer)", ""),
            Dialect::Postgres => ("cast(extract(epoch from clock_timestamp()) * 1000 as bigint)", "for update"),
        };
        AssertSqlSafe(text.replace("NOW_MS", now).replace("FOR_UPDATE", lock))
    }

    /// How many connections are open, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        (self.pool.size(), u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX))
    }
}
