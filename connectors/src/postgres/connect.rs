//! One run's connections to one Postgres server: a bounded pool of them, and transactions on them. What failures mean is `failed`'s;
//! what is said in a transaction is the source's and the sink's.
//!
//! Everything works behind pgbouncer in transaction mode: a session is one explicit transaction, its settings are local to it, and no
//! statement keeps a name.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use sqlx::{
    AssertSqlSafe, Connection, Row,
    postgres::{PgConnection, PgCopyIn, PgRow},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    PostgresConnection,
    failed::{Doing, failed, is_lost},
    url::{Target, target},
};
use crate::{
    context::RunContext,
    error::{Error, Result},
    quote,
    retry::retry,
};

/// Longest wait for one of the pool's connections to become free.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest `application_name` that Postgres keeps.
const APPLICATION_NAME_BYTES_MAX: usize = 63;

/// The name a step of a run goes by in `pg_stat_activity`: `weir <run> <step>`, cut to what Postgres keeps and with `?` for what is not
/// ASCII, so that it can be compared with what stands there.
pub fn application_name(run: &str, step: &str) -> String {
    let mut name: String =
        format!("weir {run} {step}").chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect();
    name.truncate(APPLICATION_NAME_BYTES_MAX);
    name
}

/// What is known of a server.
#[derive(Debug, Clone)]
pub struct Server {
    /// `server_version_num`: 150004 is 15.4.
    pub version: u32,
    /// As it calls itself.
    pub version_text: String,
    /// It notices within seconds that whoever waits for a long statement is gone (`client_connection_check_interval`).
    notices_absence: bool,
}

/// The connections of one run to one server: at most `pool_max` at once, opened when needed, kept while used.
pub struct Pool {
    name: String,
    target: Target,
    pool_max: u32,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    statement_timeout: Option<Duration>,
    idle_timeout: Duration,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<(PgConnection, Instant)>>,
    server: Server,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).field("place", &self.target.place).finish_non_exhaustive()
    }
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, Default)]
enum Begin<'a> {
    /// Read committed, for a load.
    #[default]
    Write,
    /// Repeatable read and read only, of the snapshot where one is given.
    Read(Option<&'a str>),
}

impl Pool {
    /// The run's pool for the connection of this name, opened now where nobody has yet: one connection is made, so that a wrong password
    /// is told here. Tries again where that may help.
    pub async fn open(cx: &RunContext, connection: &str) -> Result<Arc<Pool>> {
        let settings: PostgresConnection = cx.connections.get(connection)?;
        cx.connections.opened(connection, Self::connect(cx, connection, &settings)).await
    }

    async fn connect(cx: &RunContext, name: &str, settings: &PostgresConnection) -> Result<Pool> {
        let times = settings.times()?;
        // The setting stands in weir.toml: what a pipeline says of it is the connection's name.
        let named = |error: Error| {
            let message = error.message.replacen("the connection's \"url\"", &format!("the \"url\" of connection \"{name}\""), 1);
            Error { message, ..error }.setting("connection")
        };
        let target = target(name, settings, cx).await.map_err(named)?;
        let permits = Arc::new(Semaphore::new(settings.pool_max as usize));
        let server = Server { version: 0, version_text: String::new(), notices_absence: false };
        let mut pool = Pool {
            name: name.to_owned(),
            target,
            pool_max: settings.pool_max,
            acquire_timeout: ACQUIRE_TIMEOUT,
            connect_timeout: times.connect,
            statement_timeout: times.statement,
            idle_timeout: times.idle,
            permits,
            idle: Mutex::default(),
            server,
        };
        let mut first = retry(&cx.cancel, || pool.new_connection()).await?;
        let looked = look(&mut first).await.doing(&format!("look round at {}", pool.place()));
        pool.server = looked?;
        pool.idle.get_mut().push_back((first, Instant::now()));
        Ok(pool)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The user who connects.
    pub fn user(&self) -> &str {
        &self.target.user
    }

    /// Most connections at once.
    pub fn max(&self) -> usize {
        self.pool_max as usize
    }

    /// For messages: `"crm" (db.example.com:5432)`.
    pub fn place(&self) -> String {
        format!("\"{}\" ({})", self.name, self.target.place)
    }

    async fn new_connection(&self) -> Result<PgConnection> {
        let doing = format!("connect to {}", self.place());
        let connecting = PgConnection::connect_with(&self.target.options);
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.doing(&doing),
            Err(_) => {
                let message = format!("cannot {doing}: no answer within {} s", self.connect_timeout.as_secs_f64());
                Err(Error::system("connect-timeout", message)
                    .later()
                    .help("raise \"connect_timeout\" of the connection where it is only slow"))
            }
        }
    }

    /// A transaction to write in: read committed. Waits for a free connection, up to a minute.
    pub async fn begin(self: &Arc<Self>, application_name: &str) -> Result<Session> {
        let permit = self.acquire().await?;
        self.start(permit, application_name, Begin::Write).await
    }

    /// A transaction to read in: repeatable read, read only, and what `snapshot` (of `pg_export_snapshot`) sees where one is given.
    pub async fn begin_read(self: &Arc<Self>, application_name: &str, snapshot: Option<&str>) -> Result<Session> {
        let permit = self.acquire().await?;
        self.start(permit, application_name, Begin::Read(snapshot)).await
    }

    /// As [`Pool::begin_read`]; none where no connection is free now.
    pub async fn try_begin_read(self: &Arc<Self>, application_name: &str, snapshot: Option<&str>) -> Result<Option<Session>> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return Ok(None) };
        self.start(permit, application_name, Begin::Read(snapshot)).await.map(Some)
    }

    /// As [`Pool::begin`]; none where no connection is free now.
    pub async fn try_begin(self: &Arc<Self>, application_name: &str) -> Result<Option<Session>> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return Ok(None) };
        self.start(permit, application_name, Begin::Write).await.map(Some)
    }

    async fn acquire(&self) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => permit.map_err(|closed| Error::weir("pool-closed", "a pool was closed").because(closed)),
            Err(_) => {
                let message = format!(
                    "no connection to {} became free within {} s: all {} are in use",
                    self.place(),
                    self.acquire_timeout.as_secs_f64(),
                    self.pool_max
                );
                Err(Error::user("pool-exhausted", message).setting("connection").help("raise \"pool_max\" of the connection"))
            }
        }
    }

    async fn start(self: &Arc<Self>, permit: OwnedSemaphorePermit, application_name: &str, begin: Begin<'_>) -> Result<Session> {
        // One that was kept may have died meanwhile, of which only using it tells; nothing has begun then, so a new one is as good.
        while let Some(mut kept) = self.take_idle() {
            match self.begin_on(&mut kept, application_name, begin).await {
                Ok(()) => return Ok(self.session(kept, permit)),
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(failed(error, &format!("begin a transaction at {}", self.place()))),
            }
        }
        let mut connection = self.new_connection().await?;
        self.begin_on(&mut connection, application_name, begin).await.doing(&format!("begin a transaction at {}", self.place()))?;
        Ok(self.session(connection, permit))
    }

    fn session(self: &Arc<Self>, connection: PgConnection, permit: OwnedSemaphorePermit) -> Session {
        Session { connection: Some(connection), busy: false, pool: Arc::clone(self), _permit: permit }
    }

    /// The connection used last, so that those not needed grow old and go.
    fn take_idle(&self) -> Option<PgConnection> {
        let mut idle = self.idle.lock();
        while idle.front().is_some_and(|(_, since)| since.elapsed() >= self.idle_timeout) {
            idle.pop_front();
        }
        idle.pop_back().map(|(connection, _)| connection)
    }

    async fn begin_on(&self, connection: &mut PgConnection, application_name: &str, begin: Begin<'_>) -> sqlx::Result<()> {
        let sql = match begin {
            Begin::Write => "begin isolation level read committed read write".to_owned(),
            Begin::Read(None) => "begin isolation level repeatable read read only".to_owned(),
            // A snapshot's name cannot be bound.
            Begin::Read(Some(snapshot)) => {
                format!("begin isolation level repeatable read read only; set transaction snapshot {}", quote::postgres::literal(snapshot))
            }
        };
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        // The transaction waits for rows and for other loads, so being idle is no fault; what text looks like does not depend on the role.
        let mut settings = vec![
            ("application_name", application_name.to_owned()),
            ("idle_in_transaction_session_timeout", "0".to_owned()),
            ("extra_float_digits", "1".to_owned()),
            ("bytea_output", "hex".to_owned()),
            ("intervalstyle", "postgres".to_owned()),
        ];
        if self.server.version >= 170_000 {
            settings.push(("transaction_timeout", "0".to_owned()));
        }
        if self.server.notices_absence {
            settings.push(("client_connection_check_interval", "5s".to_owned()));
        }
        if let Some(timeout) = self.statement_timeout {
            settings.push(("statement_timeout", format!("{}ms", timeout.as_millis())));
        }
        let calls: Vec<String> = (0..settings.len()).map(|i| format!("set_config(${}, ${}, true)", 2 * i + 1, 2 * i + 2)).collect();
        let binds: Vec<&str> = settings.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
        rows(connection, &format!("select {}", calls.join(", ")), &binds).await?;
        Ok(())
    }
}

/// Asks what kind of server it is, in one transaction.
async fn look(connection: &mut PgConnection) -> sqlx::Result<Server> {
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    let found = rows(connection, "select current_setting('server_version_num'), version()", &[]).await?;
    let row = found.first().ok_or(sqlx::Error::RowNotFound)?;
    let (version, version_text): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let version = version.parse().unwrap_or_default();
    // Servers from 14 on have it where their operating system does; elsewhere setting it is an error.
    let asked = rows(connection, "select set_config('client_connection_check_interval', '5s', true)", &[]).await;
    let notices_absence = match asked {
        Ok(_) => true,
        Err(error) if is_lost(&error) => return Err(error),
        Err(_) => false,
    };
    sqlx::raw_sql("rollback").execute(&mut *connection).await?;
    Ok(Server { version, version_text, notices_absence })
}

/// Runs one statement with texts bound (cast them in SQL: `$1::bigint`), through the unnamed statement.
async fn rows(connection: &mut PgConnection, sql: &str, binds: &[&str]) -> sqlx::Result<Vec<PgRow>> {
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for bind in binds {
        query = query.bind(*bind);
    }
    query.fetch_all(connection).await
}

/// A connection inside a transaction. Dropped without [`Session::commit`] or [`Session::rollback`], it closes the connection, so that
/// nothing stays open at the server and nothing runs on.
pub struct Session {
    connection: Option<PgConnection>,
    /// In the middle of something that was not brought to its end: what comes next on the wire is unknown.
    busy: bool,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("pool", &self.pool).field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl Session {
    /// The pool it is from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn start(&mut self) -> Result<&mut PgConnection> {
        if self.busy {
            return Err(Error::weir(
                "session-busy",
                format!("a session at {} was used while something in it is unfinished", self.pool.place()),
            ));
        }
        self.busy = true;
        Ok(self.connection.as_mut().expect("a session has its connection until it ends"))
    }

    fn end<T>(&mut self, result: sqlx::Result<T>, doing: &str) -> Result<T> {
        match result {
            Ok(done) => {
                self.busy = false;
                Ok(done)
            }
            Err(error) => {
                self.busy = is_lost(&error);
                Err(failed(error, doing))
            }
        }
    }

    /// Runs statements without parameters, separated by semicolons. Returns the rows they affected in all.
    pub async fn execute(&mut self, sql: &str, doing: &str) -> Result<u64> {
        let connection = self.start()?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
        self.end(done, doing).map(|done| done.rows_affected())
    }

    /// Runs one statement with texts bound: `$1` is of type text, so cast it (`$1::uuid`). Returns the rows it affected.
    pub async fn execute_with(&mut self, sql: &str, binds: &[&str], doing: &str) -> Result<u64> {
        let connection = self.start()?;
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for bind in binds {
            query = query.bind(*bind);
        }
        let done = query.execute(connection).await;
        self.end(done, doing).map(|done| done.rows_affected())
    }

    /// Runs one statement with texts bound and returns its rows; few, for they are all held. Cast what the driver has no type for to text.
    pub async fn fetch(&mut self, sql: &str, binds: &[&str], doing: &str) -> Result<Vec<PgRow>> {
        let connection = self.start()?;
        let found = rows(connection, sql, binds).await;
        self.end(found, doing)
    }

    /// As [`Session::fetch`] without parameters, through the simple protocol: values arrive as text, and no type is looked up.
    pub async fn fetch_simple(&mut self, sql: &str, doing: &str) -> Result<Vec<PgRow>> {
        let connection = self.start()?;
        let found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
        self.end(found, doing)
    }

    /// The first column of the first row, which is text; none without a row, or where it is null.
    pub async fn fetch_text(&mut self, sql: &str, binds: &[&str], doing: &str) -> Result<Option<String>> {
        let found = self.fetch(sql, binds, doing).await?;
        match found.first() {
            Some(row) => row.try_get(0).doing(doing),
            None => Ok(None),
        }
    }

    /// Starts a `copy … from stdin`. Unless it is finished or aborted, the session cannot be used again, only dropped.
    pub async fn copy_in(&mut self, sql: &str, doing: &str) -> Result<CopyIn<'_>> {
        // Not through `start` and `end`: what is returned borrows the connection alone.
        if self.busy {
            return Err(Error::weir(
                "session-busy",
                format!("a session at {} was used while something in it is unfinished", self.pool.place()),
            ));
        }
        self.busy = true;
        let connection = self.connection.as_mut().expect("a session has its connection until it ends");
        match connection.copy_in_raw(sql).await {
            Ok(copy) => Ok(CopyIn { copy, busy: &mut self.busy, doing: doing.to_owned() }),
            Err(error) => {
                self.busy = is_lost(&error);
                Err(failed(error, doing))
            }
        }
    }

    /// Starts a `copy … to stdout` and gives what it sends. Unless the stream is read to its end, the session can only be dropped.
    /// A stream that ends without an error has had the server's word that it was complete.
    pub async fn copy_out(&mut self, sql: &str, doing: &str) -> Result<impl Stream<Item = Result<Bytes>> + Send + '_> {
        if self.busy {
            return Err(Error::weir(
                "session-busy",
                format!("a session at {} was used while something in it is unfinished", self.pool.place()),
            ));
        }
        self.busy = true;
        let connection = self.connection.as_mut().expect("a session has its connection until it ends");
        // After a failure here the driver leaves an answer unread: the session stays busy.
        let stream = connection.copy_out_raw(sql).await.doing(doing)?;
        let (busy, doing) = (&mut self.busy, doing.to_owned());
        Ok(futures::stream::unfold((stream, busy, doing, false), |(mut stream, busy, doing, failed)| async move {
            if failed {
                return None;
            }
            match stream.next().await {
                Some(Ok(bytes)) => Some((Ok(bytes), (stream, busy, doing, false))),
                Some(Err(error)) => Some((Err(self::failed(error, &doing)), (stream, busy, doing, true))),
                None => {
                    *busy = false;
                    None
                }
            }
        }))
    }

    /// The driver's connection, for what is not offered here.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a session has its connection until it ends")
    }

    /// Commits. Fails where the transaction had failed before, which the server answers with a silent rollback. After an error of the
    /// code `connection-lost` nobody knows whether it was committed.
    pub async fn commit(mut self, doing: &str) -> Result<()> {
        let connection = self.start()?;
        // In a failed transaction the select fails, and the commit that would quietly roll back is not reached.
        let done = sqlx::raw_sql("select 1; commit").execute(connection).await;
        self.end(done, doing)?;
        self.give_back();
        Ok(())
    }

    /// Rolls back. Where that fails the connection is closed, which comes to the same.
    pub async fn rollback(mut self) {
        if let Ok(connection) = self.start()
            && sqlx::raw_sql("rollback").execute(connection).await.is_ok()
        {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.shrink_buffers();
            self.pool.idle.lock().push_back((connection, Instant::now()));
        }
    }
}

/// A `copy … from stdin` in progress.
pub struct CopyIn<'a> {
    copy: PgCopyIn<&'a mut PgConnection>,
    busy: &'a mut bool,
    doing: String,
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").field("doing", &self.doing).finish_non_exhaustive()
    }
}

impl CopyIn<'_> {
    /// Sends some bytes. What the server has against them it says at [`CopyIn::finish`] only.
    pub async fn send(&mut self, bytes: impl std::ops::Deref<Target = [u8]>) -> Result<()> {
        self.copy.send(bytes).await.doing(&self.doing).map(|_| ())
    }

    /// Ends it. Returns the rows that the server took.
    pub async fn finish(self) -> Result<u64> {
        match self.copy.finish().await {
            Ok(rows) => {
                *self.busy = false;
                Ok(rows)
            }
            Err(error) => {
                *self.busy = is_lost(&error);
                Err(failed(error, &self.doing))
            }
        }
    }

    /// Ends it and has the server forget what was sent; the transaction has failed then.
    pub async fn abort(self, why: &str) -> Result<()> {
        self.copy.abort(why).await.doing(&self.doing)?;
        *self.busy = false;
        Ok(())
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
