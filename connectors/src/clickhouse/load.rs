//! One run's load into one table: its state and its stage. How rows get there is `fill.rs`, how they become visible `publish.rs`; what the
//! next table of a delete_insert or snapshot holds is `rewrite.rs`; which columns there are is `table.rs`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, execute_stream_partitioned},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_pipelines::Mode;

use super::{
    ClickhouseConnection,
    connect::{Params, Server},
    encode::Encoder,
    fill::fill,
    name::Place,
    publish, rewrite,
    sink::INSERT_ROWS,
    table::{self, Column, Existing, Facts, Fit, Rules, VERSION},
};
use crate::{
    Load, Published, Sealed,
    context::RunContext,
    error::{Blame, Error, Result},
    quote::clickhouse as quote,
};

/// Inserts that run side by side at most.
const INSERTS: usize = 4;
/// How many parts of a stage the server merges at least: most loads have fewer, and are merged after the run, as parts of the target. A large load
/// does not grow so many that inserts are slowed down.
const MERGED_PARTS: u32 = 64;
/// A stage of fewer bytes is merged at seal, so that attaching it is one rename per partition.
const SMALL_BYTES: u64 = 64 << 20;
/// How often that merging is asked for while the server merges parts of its own accord.
const OPTIMIZE_TRIES: u32 = 20;
/// The pause in between.
const OPTIMIZE_PAUSE: Duration = Duration::from_millis(250);

/// A server as the sink speaks to it about one table.
#[derive(Debug, Clone)]
pub struct Db {
    pub(super) server: Arc<Server>,
    /// What for, in messages.
    pub(super) doing: String,
    /// Inserts that run side by side at most.
    pub(super) inserts: usize,
}

/// One row of an answer, as texts.
#[derive(Deserialize)]
struct Row {
    #[serde(rename = "__weir_row")]
    row: Vec<Option<String>>,
}

impl Db {
    /// The server behind a connection, to load `place`.
    pub async fn open(cx: &RunContext, connection: &str, place: &Place) -> Result<Self> {
        let server = Server::of(connection, cx).await?;
        let settings: ClickhouseConnection = cx.connections.get(connection)?;
        // While the server writes what one insert has brought, the next brings more. Others want places of the pool too.
        let inserts = (2 * cx.partitions).min(INSERTS).min(settings.pool_max as usize / 2).max(1);
        Ok(Self { server, doing: format!("load table \"{}\"", place.shown()), inserts })
    }

    /// True where the server's own zone is UTC.
    pub fn utc(&self) -> bool {
        matches!(self.server.zone(), "UTC" | "Etc/UTC")
    }

    /// Does a statement that changes something, under an id.
    pub async fn run(&self, sql: &str, values: Params<'_>, id: &str) -> Result<()> {
        self.server.execute(sql, values, &[], Some(id), &self.doing).await
    }

    /// `select <columns> <rest>`, each value as text; nothing for a null.
    pub async fn rows(&self, columns: &[&str], rest: &str, values: Params<'_>) -> Result<Vec<Vec<String>>> {
        let columns: Vec<String> = columns.iter().map(|column| format!("toString({column})")).collect();
        let sql = format!("select [{}] as __weir_row {rest}", columns.join(", "));
        let rows: Vec<Row> = self.server.rows(&sql, values, &self.doing).await?;
        Ok(rows.into_iter().map(|row| row.row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// The one row of an answer.
    pub async fn row(&self, columns: &[&str], rest: &str, values: Params<'_>) -> Result<Vec<String>> {
        let row = self.rows(columns, rest, values).await?.into_iter().next();
        row.ok_or_else(|| Error::system("clickhouse-protocol", format!("cannot {}: the server's answer has no row", self.doing)))
    }

    /// The one number of an answer.
    pub async fn number(&self, column: &str, rest: &str, values: Params<'_>) -> Result<u64> {
        let row = self.row(&[column], rest, values).await?;
        row.first()
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Error::system("clickhouse-protocol", format!("cannot {}: the server's answer is no number", self.doing)))
    }

    /// A table's identity.
    async fn identity(&self, database: &str, table: &str) -> Result<String> {
        let here = [("d", database.to_owned()), ("t", table.to_owned())];
        let row = self.row(&["uuid"], "from system.tables where database = {d:String} and name = {t:String}", &here).await?;
        Ok(row.into_iter().next().unwrap_or_default())
    }
}

/// What another process needs to publish or discard this load. It holds the connection's name, not its settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub(super) connection: String,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) step: String,
    pub(super) run: String,
    pub(super) pipeline: String,
    /// Names the load's tables and requests, unlike any other load's.
    pub(super) token: String,
    pub(super) mode: String,
    pub(super) key: Vec<String>,
    /// The constant of the hidden column.
    pub(super) version: u64,
    /// When the run started, in microseconds since 1970.
    pub(super) started_at: i64,
    /// The target's identity when the load began; none where there was no target.
    pub(super) base: Option<String>,
    /// True: the stage's parts are attached to the target. False: a next table takes its place.
    pub(super) attaches: bool,
    /// True where the next table has the hidden column.
    pub(super) versioned: bool,
    /// The columns that rows give.
    pub(super) written: Vec<String>,
    /// Their types in the table.
    pub(super) types: Vec<String>,
    /// Those of them that the target gains.
    pub(super) added: Vec<String>,
    /// What a target that exists gains: `add column …`.
    pub(super) alterations: Vec<String>,
    /// Statements that make the stage, with its name left out: see [`State::made`].
    stage: Made,
    /// Statements that make the next table, or an empty target to attach to.
    pub(super) next: Option<Made>,
    /// True where rows go when their time is over, which may be before the load is sealed.
    pub(super) expires: bool,
    /// What was sealed.
    pub(super) sealed: Option<SealedStage>,
}

/// How a table is made: `create table if not exists <name> <definition>`, then `alter table <name> <alteration>` each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    pub(super) definition: String,
    pub(super) alterations: Vec<String>,
}

/// What seal leaves behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedStage {
    /// Rows in the stage.
    pub(super) rows: u64,
    /// The stage's identity.
    pub(super) stage: String,
    /// The next table's identity.
    pub(super) next: Option<String>,
    /// The target's state that the next table was built from.
    pub(super) built_from: Option<String>,
}

impl State {
    pub(super) fn place(&self) -> Place {
        Place { database: self.database.clone(), table: self.table.clone() }
    }

    /// What the names of the load's own tables begin with.
    pub(super) fn prefix(&self) -> String {
        prefix(&self.table, &self.token)
    }

    pub(super) fn stage_table(&self) -> String {
        format!("{}_s", self.prefix())
    }

    pub(super) fn next_table(&self) -> String {
        format!("{}_n", self.prefix())
    }

    pub(super) fn own(&self, name: &str) -> String {
        quote::table(&self.database, name)
    }

    pub(super) fn mode(&self) -> Result<Mode> {
        [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot]
            .into_iter()
            .find(|mode| mode.as_str() == self.mode)
            .ok_or_else(|| Error::weir("clickhouse-state", format!("a load was left with the unknown mode \"{}\"", self.mode)))
    }

    /// What the ids of the load's requests that change something begin with.
    pub(super) fn requests(&self) -> String {
        format!("weir-{}-", self.token)
    }

    /// An id for a request that changes something, so that another process finds it while it runs.
    pub(super) fn request(&self) -> String {
        format!("{}{}", self.requests(), uuid::Uuid::new_v4().simple())
    }
}

/// A name that fits a file's, whatever the table's is: a server keeps a file of each table's name, escaped.
fn prefix(table: &str, token: &str) -> String {
    let escaped: usize = table.bytes().map(|b| if b.is_ascii_alphanumeric() || b == b'_' { 1 } else { 3 }).sum();
    if escaped > 120 { format!("__weir_{token}") } else { format!("{table}__weir_{token}") }
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// True where staged parts are attached to a table, false where a next table takes its place.
pub fn attaches(existing: Option<&Existing>, fit: &Fit, mode: Mode) -> bool {
    match existing {
        Some(_) => matches!(mode, Mode::Append | Mode::Merge),
        // A replicated table cannot be renamed wherever its path holds its name.
        None => fit.new.as_ref().is_some_and(|new| new.engine.starts_with("Replicated")),
    }
}

/// What a table that exists gains where parts are attached to it: the hidden column, and columns of the rows.
pub fn alterations(existing: &Existing, added: &[Column]) -> Vec<String> {
    let hidden = (!existing.versioned()).then(|| format!("add column if not exists {VERSION} UInt64 materialized 0"));
    hidden.into_iter().chain(additions(added)).collect()
}

/// What a table gains for columns of the rows.
pub fn additions(added: &[Column]) -> impl Iterator<Item = String> + '_ {
    added.iter().map(|column| format!("add column if not exists {} {}", quote::identifier(&column.name), column.column))
}

/// One run's rows on their way into one table.
#[derive(Debug)]
pub struct ClickhouseLoad {
    pub(super) cx: Arc<RunContext>,
    pub(super) state: State,
    rows: SchemaRef,
    /// None in a process that took the load up.
    encoder: Option<Encoder>,
    insert_rows: u64,
    db: tokio::sync::OnceCell<Db>,
    made: tokio::sync::OnceCell<()>,
    sent: AtomicU64,
    pub(super) sealed: parking_lot::Mutex<Option<SealedStage>>,
    /// True once its publish may have been asked for, by this process or another.
    asked: AtomicBool,
}

impl ClickhouseLoad {
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the sink has found")]
    pub(super) async fn new(
        db: Db,
        place: Place,
        facts: &Facts,
        existing: Option<&Existing>,
        fit: &Fit,
        rules: &Rules,
        rows: &SchemaRef,
        cx: &Arc<RunContext>,
    ) -> Result<Self> {
        let mark = fnv(&format!("{}/{}/{}/{}", cx.state, cx.pipeline, rules.step, cx.run));
        let version = version(&db, &place, existing, cx, mark).await?;
        let attaches = attaches(existing, fit, rules.mode);
        let comment = quote::literal(&format!("weir run {}, sink {}", cx.run, rules.step));
        let (stage, next, expires) = match (&fit.new, existing) {
            (None, Some(existing)) => {
                // A next table without the hidden column can still take over parts of a target that has none either.
                let set = match (existing.versioned(), attaches) {
                    (true, _) => Some("modify column"),
                    (false, true) => Some("add column if not exists"),
                    (false, false) => None,
                };
                let set = set.map(|set| format!("{set} {VERSION} UInt64 materialized {version}"));
                let alterations: Vec<String> = set.into_iter().chain(additions(&fit.added)).collect();
                let like = format!("as {}", place.sql());
                let stage = format!("{like} engine = MergeTree{} comment {comment}", existing.tail);
                let stage = Made { definition: stage, alterations: alterations.clone() };
                (stage, (!attaches).then_some(Made { definition: like, alterations }), existing.expires())
            }
            (Some(new), _) => {
                let list = table::column_list(&fit.table, version);
                let stage = Made { definition: format!("({list}) engine = MergeTree{} comment {comment}", new.tail), alterations: vec![] };
                let list = table::column_list(&fit.table, if attaches { 0 } else { version });
                let next = Made { definition: format!("({list}) engine = {}{}", new.engine, new.tail), alterations: vec![] };
                (stage, Some(next), new.expires)
            }
            (None, None) => return Err(Error::weir("clickhouse-load", "rows fit neither a table nor none")),
        };
        let state = State {
            connection: rules.settings.connection.clone(),
            step: rules.step.clone(),
            run: cx.run.clone(),
            pipeline: cx.pipeline.clone(),
            token: format!("{}_{:08x}", cx.run.replace(|c: char| !c.is_ascii_alphanumeric(), ""), mark >> 32),
            mode: rules.mode.as_str().to_owned(),
            key: rules.key.clone(),
            version,
            started_at: cx.started_at.timestamp_micros(),
            base: existing.map(|existing| existing.uuid.clone()),
            attaches,
            versioned: fit.new.is_some() || existing.is_some_and(Existing::versioned),
            written: fit.targets.iter().map(|target| target.name.clone()).collect(),
            types: fit.targets.iter().map(|target| target.column.to_string()).collect(),
            added: fit.added.iter().map(|column| column.name.clone()).collect(),
            alterations: existing.filter(|_| attaches).map(|existing| alterations(existing, &fit.added)).unwrap_or_default(),
            stage,
            next,
            expires,
            sealed: None,
            database: place.database,
            table: place.table,
        };
        Ok(Self {
            cx: cx.clone(),
            state,
            encoder: Some(Encoder::new(&rules.step, fit.targets.clone(), facts.wide, rows)?),
            rows: rows.clone(),
            insert_rows: rules.settings.insert_rows.unwrap_or(INSERT_ROWS),
            db: tokio::sync::OnceCell::new_with(Some(db)),
            made: tokio::sync::OnceCell::new(),
            sent: AtomicU64::new(0),
            sealed: parking_lot::Mutex::default(),
            asked: AtomicBool::new(false),
        })
    }

    pub(super) fn resume(state: Value, cx: &Arc<RunContext>) -> Result<Self> {
        let state: State = serde_json::from_value(state)
            .map_err(|error| Error::weir("clickhouse-state", "the state of a load into ClickHouse cannot be read").because(error))?;
        Ok(Self {
            cx: cx.clone(),
            sealed: parking_lot::Mutex::new(state.sealed.clone()),
            state,
            rows: Arc::new(Schema::empty()),
            encoder: None,
            insert_rows: INSERT_ROWS,
            db: tokio::sync::OnceCell::new(),
            made: tokio::sync::OnceCell::new(),
            sent: AtomicU64::new(0),
            asked: AtomicBool::new(true),
        })
    }

    /// True for the first who asks for the publish of a load that this process has staged.
    pub(super) fn begins_to_publish(&self) -> bool {
        !self.asked.swap(true, Ordering::Relaxed)
    }

    pub(super) async fn db(&self) -> Result<&Db> {
        self.db.get_or_try_init(|| async { Db::open(&self.cx, &self.state.connection, &self.state.place()).await }).await
    }

    /// Makes a table of the load under `name`.
    pub(super) async fn make(&self, made: &Made, name: &str) -> Result<()> {
        let (db, name) = (self.db().await?, self.state.own(name));
        db.run(&format!("create table if not exists {name} {}", made.definition), &[], &self.state.request()).await?;
        for alteration in &made.alterations {
            db.run(&format!("alter table {name} {alteration}"), &[], &self.state.request()).await?;
        }
        Ok(())
    }

    /// Makes the stage, once.
    async fn staged(&self) -> Result<()> {
        let make = || async {
            let stage = self.state.stage_table();
            self.make(&self.state.stage, &stage).await?;
            self.merge_late(&self.state.own(&stage)).await;
            Ok(())
        };
        self.made.get_or_try_init(make).await.map(drop)
    }

    /// Has few parts of the stage merged meanwhile. Where the server is too old to know the setting, or the user may not alter it, all are.
    async fn merge_late(&self, staged: &str) {
        let sql = format!("alter table {staged} modify setting min_parts_to_merge_at_once = {MERGED_PARTS}");
        let done = async { self.db().await?.run(&sql, &[], &self.state.request()).await };
        if let Err(error) = done.await {
            tracing::debug!(%error, "the server merges the staged parts as it sees fit");
        }
    }

    /// Stages the rows of several streams. Each stream's stay in their order, so that what comes sorted need not be sorted again.
    async fn write(&self, streams: Vec<SendableRecordBatchStream>) -> Result<u64> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::weir("clickhouse-state", "a load that was taken up takes no more rows"));
        };
        self.staged().await?;
        let filling = fill(self.db().await?.clone(), encoder.clone(), self.state.clone(), self.insert_rows, streams);
        let taken = tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => return Err(interrupted()),
            taken = filling => taken?,
        };
        self.sent.fetch_add(taken, Ordering::Relaxed);
        Ok(taken)
    }

    /// Merges the stage into one part per partition. Where the server's own merges stand in the way for long, it stays in more.
    async fn merge_parts(&self, staged: &str) -> Result<()> {
        let db = self.db().await?;
        let sql = format!("optimize table {staged} final settings optimize_throw_if_noop = 1");
        for _ in 0..OPTIMIZE_TRIES {
            match db.run(&sql, &[], &self.state.request()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.blame == Blame::System => tracing::debug!(%error, "the staged parts cannot be merged yet"),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(OPTIMIZE_PAUSE).await;
        }
        Ok(())
    }

    /// Ends staging.
    async fn end(&self) -> Result<Sealed> {
        self.staged().await?;
        let (db, sent) = (self.db().await?, self.sent.load(Ordering::Relaxed));
        let stage = self.state.stage_table();
        let staged = self.state.own(&stage);
        if matches!(self.state.mode()?, Mode::Merge | Mode::Snapshot) {
            rewrite::check_duplicates(self, &staged).await?;
        }
        let held = format!("(select count() from {staged})");
        let id = "(select toString(uuid) from system.tables where database = {d:String} and name = {t:String})";
        let found = db
            .row(
                &[&held, id, "count()", "uniqExact(partition_id)", "sum(bytes_on_disk)"],
                "from system.parts where database = {d:String} and table = {t:String} and active",
                &[("d", self.state.database.clone()), ("t", stage.clone())],
            )
            .await?;
        let number = |index: usize| found.get(index).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        let (count, stage_id, parts, partitions, bytes) =
            (number(0), found.get(1).cloned().unwrap_or_default(), number(2), number(3), number(4));
        if count != sent && !(self.state.expires && count < sent) {
            return Err(Error::system("rows-lost", format!("the server holds {count} of the {sent} rows that it took")));
        }
        if self.state.attaches && bytes < SMALL_BYTES && parts > partitions {
            self.merge_parts(&staged).await?;
        }
        let mut sealed = SealedStage { rows: sent, stage: stage_id, next: None, built_from: None };
        if !self.state.attaches {
            let next = self.state.next_table();
            let made = self.state.next.as_ref().ok_or_else(|| Error::weir("clickhouse-state", "a load has no next table"))?;
            self.make(made, &next).await?;
            sealed.next = Some(db.identity(&self.state.database, &next).await?);
            sealed.built_from = rewrite::build(self, &stage, &next).await?;
        }
        *self.sealed.lock() = Some(sealed.clone());
        let state = State { sealed: Some(sealed), ..self.state.clone() };
        let state = serde_json::to_value(state).map_err(|error| Error::weir("clickhouse-state", error.to_string()))?;
        Ok(Sealed { rows: sent, bytes, state })
    }
}

/// The version of a load: by the clock, and higher than that of every row of the table.
async fn version(db: &Db, place: &Place, existing: Option<&Existing>, cx: &RunContext, mark: u64) -> Result<u64> {
    let clock = u64::try_from(cx.started_at.timestamp_micros()).unwrap_or_default() << 12 | (mark & 0xfff);
    let highest = match existing {
        Some(existing) if existing.versioned() => db.number(&format!("max({VERSION})"), &format!("from {}", place.sql()), &[]).await?,
        _ => 0,
    };
    // Twelve bits tell loads of one microsecond apart, above a clock that was set back as well.
    Ok(if clock > highest { clock } else { ((highest >> 12) + 1) << 12 | (mark & 0xfff) })
}

fn interrupted() -> Error {
    Error::system("interrupted", "the run was stopped")
}

/// DataFusion's error as a connector's: the connector's own where one lies beneath.
pub(super) fn from_datafusion(error: datafusion::error::DataFusionError) -> Error {
    Error::taken_out(error).unwrap_or_else(|error| Error::system("dataflow", error.find_root().strip_backtrace()).because(error))
}

#[async_trait]
impl Load for ClickhouseLoad {
    fn destination(&self) -> String {
        format!("{}.{}", self.state.connection, self.state.place().shown())
    }

    fn stage(&self) -> Value {
        serde_json::to_value(&self.state).expect("a load's state is plain data")
    }

    async fn seal(&self) -> Result<Sealed> {
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(interrupted()),
            sealed = self.end() => sealed,
        }
    }

    async fn write_plan(&self, rows: Arc<dyn ExecutionPlan>, tasks: &Arc<TaskContext>) -> DataFusionResult<u64> {
        Ok(self.write(execute_stream_partitioned(rows, tasks.clone())?).await?)
    }

    async fn publish(&self) -> Result<Published> {
        publish::publish(self).await
    }

    async fn discard(&self) -> Result<()> {
        publish::discard(self).await
    }
}

#[async_trait]
impl DataSink for ClickhouseLoad {
    fn schema(&self) -> &SchemaRef {
        &self.rows
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _: &Arc<TaskContext>) -> DataFusionResult<u64> {
        Ok(self.write(vec![data]).await?)
    }
}

impl DisplayAs for ClickhouseLoad {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClickhouseLoad(table={}, mode={})", self.state.place().shown(), self.state.mode)
    }
}
