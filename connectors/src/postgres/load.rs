//! One run's load into one table: where its rows are staged, when they become visible, and what another process can still do with it.
//!
//! | the table | stage | publish |
//! |---|---|---|
//! | is new | a table of its own beside it, with the final columns and keys | rename and ledger row, in one transaction |
//! | exists, and the load may decide | the open transaction: the table itself, or a temporary table that is applied at seal | ledger row and commit |
//! | exists | a table of its own beside it | apply, ledger row and drop, in one transaction |
//!
//! How rows get there is `copy.rs`, which statements a mode needs `apply.rs`, what makes a table `ddl.rs`, the ledger `ledger.rs`.

use std::{fmt, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::SecondsFormat;
use datafusion::{
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;
use tokio::sync::Mutex;
use weir_pipelines::Mode;

use super::{
    apply::Apply,
    connect::{Pool, Session, application_name},
    copy::{Copy, Taken},
    ddl::{add_columns, add_key, add_versions, create_table},
    encode::{Encoder, Target},
    failed::Doing,
    ledger::{Entry, Ledger, Outcome},
    name::TableName,
    table::{self, Column, Existing, Fills, Fit, Rules, Trial, by_key},
};
use crate::{
    Load, Published, Sealed,
    context::RunContext,
    error::{Error, Result},
    quote::{identifier, identifiers, postgres::literal},
    retry::retry,
};

/// What a staged table's name begins with.
pub const STAGE: &str = "weir_stage_";
/// How long a load waits for somebody else's lock before it tries anew or gives up.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '30s'";

/// Where rows are until they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// In a table that is to become the target.
    New,
    /// In the target, in an open transaction.
    Direct,
    /// In a temporary table, in an open transaction.
    Held,
    /// In a table that is to be applied to the target.
    Stage,
}

/// Everything that another process needs to publish or discard this load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    connection: String,
    schema: String,
    table: String,
    run: String,
    sink: String,
    pipeline: String,
    way: Way,
    mode: String,
    key: Vec<String>,
    /// Whether a new table gets an index on its key.
    keyed: bool,
    /// Columns of staged rows: name and type.
    columns: Vec<(String, String)>,
    /// Those of them that the target gains.
    adds: Vec<String>,
    /// When the run started.
    started: String,
    /// Rows staged, once sealed.
    sealed: Option<u64>,
}

/// What a load begins with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The connection's name.
    pub connection: &'a str,
    /// The table, with its schema.
    pub name: &'a TableName,
    /// The table as it stands.
    pub existing: Option<&'a Existing>,
    /// How rows fit it.
    pub fit: &'a Fit,
    /// What the sink's author decided.
    pub rules: &'a Rules,
    /// Whether a new table gets an index on its key.
    pub keyed: bool,
    /// Whether the stage may be an open transaction.
    pub may_decide: bool,
    /// Connections at most, where several are of use.
    pub parallel: usize,
    /// True where the rows that a foreign key of the table refers to may come with the same run.
    pub parents_beside: bool,
}

impl State {
    fn mode(&self) -> Result<Mode> {
        [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot]
            .into_iter()
            .find(|mode| mode.as_str() == self.mode)
            .ok_or_else(|| Error::weir("postgres-state", format!("a load was left with the unknown mode \"{}\"", self.mode)))
    }

    fn name(&self) -> TableName {
        TableName { schema: Some(self.schema.clone()), table: self.table.clone() }
    }

    /// The staged table: named after the run and the sink, and no longer than Postgres allows.
    fn stage(&self) -> TableName {
        let run: String = self.run.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let token = format!("{run}_{:08x}", fnv(&format!("{}/{}/{}", self.run, self.pipeline, self.sink)));
        self.name().beside(format!("{STAGE}{token}"))
    }

    /// The temporary table.
    fn held(&self) -> String {
        format!("pg_temp.{}", identifier(&self.stage().table))
    }

    fn decides(&self) -> bool {
        matches!(self.way, Way::Direct | Way::Held)
    }

    fn entry(&self) -> Entry<'_> {
        Entry { run: &self.run, sink: &self.sink, pipeline: &self.pipeline, table: &self.table }
    }

    fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// FNV-1a, folded to 32 bits.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What is open or known only in this process.
#[derive(Debug, Default)]
struct Inner {
    /// Of a load that decides, from the last row to its publish.
    session: Option<Session>,
    taken: Taken,
    staged: bool,
    published: Option<String>,
}

/// One run's rows on their way into one table.
#[derive(Debug)]
pub struct PostgresLoad {
    cx: Arc<RunContext>,
    state: State,
    rows: SchemaRef,
    /// None in a process that took the load up.
    encoder: Option<Arc<Encoder>>,
    parallel: usize,
    /// True where one COPY has to carry all rows: foreign keys within the table are checked at its end.
    whole: bool,
    /// Whether, and how, the table's own rules are asked about staged rows before anything is decided.
    trial: Trial,
    inner: Mutex<Inner>,
}

impl PostgresLoad {
    /// Begins a load. Touches nothing yet.
    pub fn new(cx: &Arc<RunContext>, rows: &SchemaRef, start: &Start<'_>) -> Self {
        let Start { name, existing, fit, rules, .. } = start;
        let ddl = !fit.added.is_empty();
        let way = match existing {
            None => Way::New,
            Some(_) if !start.may_decide => Way::Stage,
            Some(_) if rules.mode == Mode::Append && !ddl => Way::Direct,
            Some(existing) if rules.mode == Mode::Replace && !ddl && existing.referenced.is_empty() => Way::Direct,
            Some(_) => Way::Held,
        };
        let state = State {
            connection: start.connection.to_owned(),
            schema: name.schema.clone().unwrap_or_else(|| "public".to_owned()),
            table: name.table.clone(),
            run: cx.run.clone(),
            sink: rules.step.clone(),
            pipeline: cx.pipeline.clone(),
            way,
            mode: rules.mode.as_str().to_owned(),
            key: rules.key.clone(),
            keyed: start.keyed,
            columns: fit.written.iter().map(|(column, _)| (column.name.clone(), column.sql.clone())).collect(),
            adds: fit.added.iter().map(|column| column.name.clone()).collect(),
            started: cx.started_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            sealed: None,
        };
        let target = |(column, source): &(Column, usize)| Target {
            name: column.name.clone(),
            source: *source,
            pg: column.pg.clone(),
            sql: column.sql.clone(),
            nullable: column.nullable,
            key: by_key(rules.mode) && rules.key.contains(&column.name),
        };
        let encoder = Some(Arc::new(Encoder::new(&rules.step, fit.written.iter().map(target).collect())));
        Self {
            cx: cx.clone(),
            state,
            rows: rows.clone(),
            encoder,
            parallel: start.parallel.max(1),
            whole: way == Way::Direct && existing.is_some_and(|existing| existing.refers_to_itself),
            trial: existing.filter(|_| way == Way::Stage).map_or(Trial::Needless, |existing| existing.trial(rules, start.parents_beside)),
            inner: Mutex::default(),
        }
    }

    /// Takes up a load that another process left.
    pub fn resume(state: Value, cx: &Arc<RunContext>) -> Result<Self> {
        let state: State = serde_json::from_value(state)
            .map_err(|error| Error::weir("postgres-state", "the state of a load into Postgres cannot be read").because(error))?;
        let inner = Inner { staged: true, ..Inner::default() };
        let rows = Arc::new(Schema::empty());
        Ok(Self { cx: cx.clone(), state, rows, encoder: None, parallel: 1, whole: true, trial: Trial::Needless, inner: Mutex::new(inner) })
    }

    async fn pool(&self) -> Result<Arc<Pool>> {
        Pool::open(&self.cx, &self.state.connection).await
    }

    fn application_name(&self) -> String {
        application_name(&self.state.run, &self.state.sink)
    }

    fn ledger(&self) -> Ledger {
        Ledger::of(&self.state.name())
    }

    fn doing(&self) -> String {
        format!("load table \"{}\"", self.state.name())
    }

    async fn begin(&self) -> Result<Session> {
        let mut session = self.pool().await?.begin(&self.application_name()).await?;
        session.execute(LOCK_TIMEOUT, "set the lock timeout").await?;
        Ok(session)
    }

    /// What a staged table is made with: the target's own types and collations, so that its values compare with the target's.
    fn create_stage(&self, create: &str, held: &str) -> String {
        let columns: Vec<_> = self
            .state
            .columns
            .iter()
            .map(|(name, sql)| match self.state.adds.contains(name) {
                true => format!("null::{sql} as {}", identifier(name)),
                false => format!("t.{}", identifier(name)),
            })
            .collect();
        format!("{create}{held} as select {} from {} t with no data", columns.join(", "), self.state.name().sql())
    }

    async fn write(&self, data: SendableRecordBatchStream) -> Result<Taken> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::weir("postgres-state", "a load that was taken up takes no more rows"));
        };
        let mut inner = self.inner.lock().await;
        if inner.staged {
            return Err(Error::weir("postgres-state", "a load takes its rows once"));
        }
        let pool = self.pool().await?;
        self.ledger().ensure(&pool, &self.application_name()).await?;
        let (name, stage, doing) = (self.state.name(), self.state.stage(), self.doing());
        let into = match self.state.way {
            Way::Direct => name.sql(),
            Way::Held => self.state.held(),
            Way::New | Way::Stage => stage.sql(),
        };
        let sql = format!("copy {into} ({}) from stdin (format binary)", identifiers(self.state.column_names()));
        let copy = Copy::new(data, encoder.clone(), sql, doing.clone(), self.whole, self.cx.cancel.clone());
        let mut session = self.begin().await?;
        let taken = match self.state.way {
            Way::Direct | Way::Held => {
                if self.state.way == Way::Held {
                    session.execute(&self.create_stage("create temporary table ", &format!("{into} on commit drop")), &doing).await?;
                } else if self.state.mode()? == Mode::Replace {
                    // Two of these at once would each delete the same rows and both add their own.
                    let clear = format!("lock table {into} in share row exclusive mode; delete from {into}");
                    session.execute(&clear, &doing).await?;
                }
                let taken = copy.through(&mut session).await?;
                inner.session = Some(session);
                taken
            }
            Way::New | Way::Stage => {
                let create = match self.state.way {
                    Way::New => create_table(&stage.sql(), &self.state.columns),
                    _ => self.create_stage("create table ", &stage.sql()),
                };
                // What `probe.rs` reads again.
                let told = format!("weir run {}, sink {}", self.state.run, self.state.sink);
                // What is there under this name an earlier attempt of the same run left.
                let sql = format!("drop table if exists {0}; {create}; comment on table {0} is {1}", stage.sql(), literal(&told));
                session.execute(&sql, &format!("make the stage of table \"{name}\"")).await?;
                session.commit(&format!("make the stage of table \"{name}\"")).await?;
                copy.through_several(&pool, &self.application_name(), self.parallel.min(pool.max())).await?
            }
        };
        inner.taken = taken;
        inner.staged = true;
        Ok(taken)
    }

    /// Fails where staged rows have a key several times.
    async fn check_duplicates(&self, session: &mut Session, stage: &str) -> Result<()> {
        let keys: Vec<_> = self.state.key.iter().map(|key| format!("{}::text", identifier(key))).collect();
        let columns = identifiers(&self.state.key);
        let sql = format!("select {} from {stage} group by {columns} having count(*) > 1 limit 1", keys.join(", "));
        let doing = self.doing();
        let found = session.fetch(&sql, &[], &doing).await?;
        let Some(row) = found.first() else { return Ok(()) };
        let mut parts = Vec::new();
        for (index, key) in self.state.key.iter().enumerate() {
            let value: Option<String> = row.try_get(index).doing(&doing)?;
            parts.push(format!("\"{key}\" = {}", value.as_deref().unwrap_or("null")));
        }
        Err(Error::user("duplicate-key", format!("sink \"{}\" got several rows with the same key: {}", self.state.sink, parts.join(", ")))
            .setting("key")
            .help("put a deduplicate step before the sink, or add the column that tells the rows apart to the key"))
    }

    fn one_row_a_key(&self) -> Result<bool> {
        Ok(matches!(self.state.mode()?, Mode::Merge | Mode::Snapshot))
    }

    /// Ends a durable stage.
    async fn seal_stage(&self) -> Result<()> {
        let (stage, doing, mode) = (self.state.stage().sql(), self.doing(), self.state.mode()?);
        let mut session = self.begin().await?;
        let key = match self.state.way {
            Way::New if self.state.keyed => add_key(&stage, mode, &self.state.key),
            _ => None,
        };
        // A primary key finds duplicates by itself; which they are is asked only then.
        if self.one_row_a_key()? && !(mode == Mode::Merge && key.is_some()) {
            self.check_duplicates(&mut session, &stage).await?;
        }
        if self.state.way == Way::New && mode == Mode::Snapshot {
            session.execute(&add_versions(&stage, &self.state.started), &doing).await?;
        }
        if let Some(key) = key
            && let Err(error) = session.execute(&key, &doing).await
        {
            session.rollback().await;
            if error.code == "duplicate-key" {
                let mut session = self.begin().await?;
                self.check_duplicates(&mut session, &stage).await?;
                session.rollback().await;
            }
            return Err(error);
        }
        session.execute(&format!("analyze {stage}"), &doing).await?;
        session.commit(&doing).await
    }

    /// Brings staged rows into the table and takes them back: after the decision it would be too late for what the table has against them.
    async fn try_stage(&self) -> Result<()> {
        if self.trial == Trial::Needless {
            return Ok(());
        }
        let mut session = self.begin().await?;
        if self.trial == Trial::ButForeignKeys {
            // The parents that the run replaces are locked until it has published: what waits for them would wait for itself.
            session.execute("set local lock_timeout = '1s'", "set the lock timeout").await?;
        }
        let tried = async {
            self.apply(&mut session, &self.state.stage().sql()).await?;
            session.execute("set constraints all immediate", &self.doing()).await
        };
        let tried = tried.await;
        session.rollback().await;
        match tried {
            Err(error) if matches!(error.code, "foreign-key" | "locked") && self.trial == Trial::ButForeignKeys => Ok(()),
            tried => tried.map(|_| ()),
        }
    }

    /// Brings staged rows into the table as it stands now.
    async fn apply(&self, session: &mut Session, stage: &str) -> Result<()> {
        let (name, doing) = (self.state.name(), self.doing());
        let gone = |what: String| {
            Error::user("table-changed", format!("table \"{name}\" changed while this run went on: {what}")).help("run again")
        };
        let mut existing = table::look(session, &name).await?.ok_or_else(|| gone("it was dropped".into()))?;
        let mut adds = Vec::new();
        for (column, sql) in &self.state.columns {
            match existing.columns.iter().find(|there| there.name == *column) {
                Some(there) if there.sql != *sql || there.fills == Fills::Always => {
                    return Err(gone(format!("column \"{column}\" is of type {} now, not {sql}", there.sql)));
                }
                Some(_) => {}
                None if self.state.adds.contains(column) || self.state.way == Way::New => adds.push((column.as_str(), sql.as_str())),
                None => return Err(gone(format!("column \"{column}\" was dropped"))),
            }
        }
        if !adds.is_empty() {
            session.execute(&add_columns(&name.sql(), adds), &doing).await?;
            existing = table::look(session, &name).await?.ok_or_else(|| gone("it was dropped".into()))?;
        }
        let apply = Apply {
            target: &name.sql(),
            stage,
            existing: &existing,
            written: &self.state.column_names(),
            mode: self.state.mode()?,
            key: &self.state.key,
        };
        for statement in apply.statements() {
            let binds: &[&str] = if statement.started { &[&self.state.started] } else { &[] };
            tokio::select! {
                biased;
                () = self.cx.cancel.cancelled() => return Err(super::copy::interrupted()),
                done = session.execute_with(&statement.sql, binds, &doing) => done?,
            };
        }
        Ok(())
    }

    /// One try at publishing a durable stage. Whatever becomes of it, another try finds out by the ledger.
    async fn publish_stage(&self, rows: u64) -> Result<Published> {
        let (name, stage, doing) = (self.state.name(), self.state.stage(), self.doing());
        let mut session = self.begin().await?;
        if !self.ledger().note(&mut session, &self.state.entry(), rows, Outcome::Published).await? {
            let outcome = self.ledger().outcome(&mut session, &self.state.entry()).await?;
            if outcome != Some(Outcome::Published) {
                return Err(self.settled());
            }
            // It was dropped in the same transaction; where the table came about by renaming there was nothing to drop.
            session.rollback().await;
            return Ok(Published { version: self.state.run.clone(), already: true });
        }
        if table::look(&mut session, &stage).await?.is_none() {
            let message = format!("the staged rows of run {} for table \"{name}\" are gone: somebody dropped \"{stage}\"", self.state.run);
            return Err(Error::user("stage-lost", message).help("run again"));
        }
        let renames = self.state.way == Way::New && table::look(&mut session, &name).await?.is_none();
        if renames {
            self.rename(&mut session).await?;
        } else {
            self.apply(&mut session, &stage.sql()).await?;
            session.execute(&format!("drop table {}", stage.sql()), &doing).await?;
        }
        let version = version(&mut session).await?;
        session.commit(&doing).await?;
        tracing::info!(run = %self.state.run, table = %name, rows, "postgres table loaded");
        Ok(Published { version, already: false })
    }

    /// Makes the stage the table, and names its indexes as if it had been made so.
    async fn rename(&self, session: &mut Session) -> Result<()> {
        let (name, stage, doing) = (self.state.name(), self.state.stage(), self.doing());
        let indexes = session
            .fetch(
                "select c.relname::text, i.indisprimary from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
                 where i.indrelid = $1::regclass",
                &[&stage.sql()],
                &doing,
            )
            .await?;
        session
            .execute(&format!("comment on table {0} is null; alter table {0} rename to {1}", stage.sql(), identifier(&name.table)), &doing)
            .await?;
        for row in indexes {
            let (old, primary): (String, bool) = (row.try_get(0).doing(&doing)?, row.try_get(1).doing(&doing)?);
            let suffix = if primary { "_pkey" } else { "_key_idx" };
            let mut cut = name.table.clone();
            while cut.len() + suffix.len() > 63 {
                cut.pop();
            }
            let new = name.beside(format!("{cut}{suffix}"));
            // A name is a nicety: one that is taken already is no reason to fail.
            if session.fetch_text("select to_regclass($1)::text", &[&new.sql()], &doing).await?.is_none() {
                let sql = format!("alter index {} rename to {}", name.beside(old).sql(), identifier(&new.table));
                session.execute(&sql, &doing).await?;
            }
        }
        Ok(())
    }

    fn settled(&self) -> Error {
        let message = format!("run {} was settled as never published to table \"{}\"", self.state.run, self.state.name());
        Error::system("load-settled", message).help("run again")
    }

    /// Publishes the open transaction.
    async fn publish_open(&self, inner: &mut Inner) -> Result<Published> {
        let Some(mut session) = inner.session.take() else {
            // Another process had it, or an earlier call lost it: only the ledger knows.
            let mut session = self.begin().await?;
            let outcome = self.ledger().outcome(&mut session, &self.state.entry()).await;
            session.rollback().await;
            return match outcome? {
                Some(Outcome::Published) => Ok(Published { version: self.state.run.clone(), already: true }),
                _ => Err(Error::system(
                    "load-lost",
                    format!("the open transaction of run {} for table \"{}\" has ended", self.state.run, self.state.name()),
                )
                .later()
                .help("run again; what was not committed is not there")),
            };
        };
        let doing = self.doing();
        if !self.ledger().note(&mut session, &self.state.entry(), inner.taken.rows, Outcome::Published).await? {
            return Err(self.settled());
        }
        let version = version(&mut session).await?;
        session.commit(&doing).await?;
        tracing::info!(run = %self.state.run, table = %self.state.name(), rows = inner.taken.rows, "postgres table loaded");
        Ok(Published { version, already: false })
    }

    /// Ends what the load's other connections may still be doing: a process that died leaves them at work for a while.
    async fn end_others(&self, session: &mut Session) -> Result<()> {
        // Not another role's: that would need rights a loader has no need of, and nobody else goes by this name.
        // From 14 on the server waits until they have ended; before, what follows waits for their locks.
        let end = if session.pool().server().version >= 140_000 { "pg_terminate_backend(pid, 10000)" } else { "pg_terminate_backend(pid)" };
        let sql = format!(
            "select count({end}) from pg_catalog.pg_stat_activity where application_name = $1 and pid <> pg_backend_pid() \
             and usename = current_user and datname = current_database()"
        );
        session.fetch(&sql, &[&self.application_name()], "end what an earlier process left").await.map(|_| ())
    }
}

async fn version(session: &mut Session) -> Result<String> {
    let version = session.fetch_text("select txid_current()::text", &[], "ask for the transaction's number").await?;
    Ok(version.unwrap_or_default())
}

#[async_trait]
impl Load for PostgresLoad {
    fn destination(&self) -> String {
        super::sink::destination(&self.state.connection, &self.state.name())
    }

    fn stage(&self) -> Value {
        serde_json::to_value(&self.state).expect("a load's state is plain data")
    }

    async fn seal(&self) -> Result<Sealed> {
        let mut inner = self.inner.lock().await;
        if !inner.staged {
            return Err(Error::weir("postgres-state", "a load is sealed after its rows were written"));
        }
        match self.state.way {
            Way::New | Way::Stage => {
                self.seal_stage().await?;
                self.try_stage().await?;
            }
            Way::Direct => {}
            Way::Held => {
                // Taken out: a transaction in which something failed is rolled back by being dropped.
                let mut session = inner.session.take().ok_or_else(|| Error::weir("postgres-state", "a load is sealed once"))?;
                let held = self.state.held();
                session.execute(&format!("analyze {held}"), &self.doing()).await?;
                if self.one_row_a_key()? {
                    self.check_duplicates(&mut session, &held).await?;
                }
                self.apply(&mut session, &held).await?;
                inner.session = Some(session);
            }
        }
        let Taken { rows, bytes } = inner.taken;
        let state = State { sealed: Some(rows), ..self.state.clone() };
        let state = serde_json::to_value(state).map_err(|error| Error::weir("postgres-state", error.to_string()))?;
        Ok(Sealed { rows, bytes, state })
    }

    async fn publish(&self) -> Result<Published> {
        let mut inner = self.inner.lock().await;
        if let Some(version) = &inner.published {
            return Ok(Published { version: version.clone(), already: true });
        }
        let published = if self.state.decides() {
            self.publish_open(&mut inner).await?
        } else {
            let rows = match self.state.sealed {
                Some(rows) => rows,
                None if self.encoder.is_some() && inner.staged => inner.taken.rows,
                None => return Err(Error::weir("postgres-state", "a load that was not sealed cannot be published")),
            };
            retry(&self.cx.cancel, || self.publish_stage(rows)).await?
        };
        inner.published = Some(published.version.clone());
        Ok(published)
    }

    async fn discard(&self) -> Result<()> {
        let mut inner = self.inner.lock().await;
        if let Some(session) = inner.session.take() {
            session.rollback().await;
        }
        // What this process had open is closed; what a process that died had open may still be at work.
        if self.state.decides() && self.encoder.is_some() {
            return Ok(());
        }
        retry(&self.cx.cancel, || async {
            let mut session = self.begin().await?;
            self.end_others(&mut session).await?;
            if !self.state.decides() {
                let (stage, doing) = (self.state.stage(), format!("remove the stage of table \"{}\"", self.state.name()));
                let there = "select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                             where n.nspname = $1 and c.relname = $2";
                // Whoever may not use the schema has made nothing there, and may not ask to drop it either.
                if !session.fetch(there, &[&self.state.schema, &stage.table], &doing).await?.is_empty() {
                    session.execute(&format!("drop table if exists {}", stage.sql()), &doing).await?;
                }
            }
            session.commit("discard a load").await
        })
        .await
    }

    fn decides(&self) -> bool {
        self.state.decides()
    }

    async fn settle(&self) -> Result<bool> {
        let mut inner = self.inner.lock().await;
        if let Some(session) = inner.session.take() {
            session.rollback().await;
        }
        let settled = retry(&self.cx.cancel, || async {
            let pool = self.pool().await?;
            self.ledger().ensure(&pool, &self.application_name()).await?;
            let mut session = self.begin().await?;
            self.end_others(&mut session).await?;
            // Waits for a commit that is under way, and from then on stands in the way of any other.
            if self.ledger().note(&mut session, &self.state.entry(), 0, Outcome::Never).await? {
                session.commit("settle a load").await?;
                return Ok(false);
            }
            let outcome = self.ledger().outcome(&mut session, &self.state.entry()).await?;
            session.rollback().await;
            Ok(outcome == Some(Outcome::Published))
        })
        .await?;
        if settled {
            inner.published = Some(self.state.run.clone());
        }
        Ok(settled)
    }
}

#[async_trait]
impl DataSink for PostgresLoad {
    fn schema(&self) -> &SchemaRef {
        &self.rows
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _: &Arc<TaskContext>) -> DataFusionResult<u64> {
        Ok(self.write(data).await?.rows)
    }
}

impl DisplayAs for PostgresLoad {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresLoad(table={}, mode={})", self.state.name(), self.state.mode)
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
