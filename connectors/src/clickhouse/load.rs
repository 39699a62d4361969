//! One run's load into one table: its state, its stage, and the streams that fill it. How it becomes visible is `publish.rs`; what the
//! next table of a delete_insert or snapshot holds is `rewrite.rs`; which columns there are is `table.rs`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType},
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use weir_pipelines::Mode;

use super::{
    ClickhouseConnection,
    connect::{self, Params, Server},
    encode::{Encoder, Frames},
    publish, rewrite,
    sink::INSERT_ROWS,
    table::{self, Column, Existing, Facts, Fit, Place, Rules, VERSION},
};
use crate::{
    Load, Published, Sealed,
    context::RunContext,
    error::{Blame, Error, Result},
    quote::clickhouse as quote,
};

/// Inserts that run side by side at most.
const LANES: usize = 4;
/// Another insert begins when each of those that run had so many bytes.
const ANOTHER_LANE_BYTES: usize = 32 << 20;
/// Batches that wait for one insert at most.
const QUEUE: usize = 2;
/// An insert that gets nothing for so long is ended, before the server gives it up.
const IDLE: Duration = Duration::from_secs(10);
/// An insert is ended after so many parts.
const PARTS_PER_INSERT: u64 = 8;
/// A part is begun anew after so many bytes in the server's memory, however few rows they are.
const PART_BYTES: u64 = 128 << 20;
/// A stage of fewer bytes is merged at seal, so that attaching it is one rename per partition.
const SMALL_BYTES: u64 = 64 << 20;
/// How often that merging is asked for while the server merges parts of its own accord.
const OPTIMIZE_TRIES: u32 = 20;
/// The pause in between.
const OPTIMIZE_PAUSE: Duration = Duration::from_millis(250);

/// A server as the sink speaks to it about one table.
#[derive(Debug, Clone)]
pub struct Db {
    server: Arc<Server>,
    /// What for, in messages.
    doing: String,
    lanes: usize,
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
        // Others want places of the pool too, and one insert that waits for another's would wait for itself.
        let lanes = cx.partitions.min(LANES).min(settings.pool_max as usize / 2).max(1);
        Ok(Self { server, doing: format!("load table \"{}\"", place.shown()), lanes })
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
        })
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
        self.made.get_or_try_init(|| async { self.make(&self.state.stage, &self.state.stage_table()).await }).await.map(drop)
    }

    async fn write(&self, mut rows: SendableRecordBatchStream) -> Result<u64> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::weir("clickhouse-state", "a load that was taken up takes no more rows"));
        };
        self.staged().await?;
        let writer = Arc::new(Writer {
            db: self.db().await?.clone(),
            encoder: encoder.clone(),
            state: self.state.clone(),
            insert_rows: self.insert_rows,
        });
        // Dropping the set ends the inserts that still run.
        let mut lanes: JoinSet<Result<u64>> = JoinSet::new();
        let mut senders: Vec<mpsc::Sender<RecordBatch>> = Vec::new();
        let (mut next, mut fed_bytes) = (0, 0_usize);
        let most = writer.db.lanes;
        let fed = async {
            loop {
                let batch = tokio::select! {
                    biased;
                    () = self.cx.cancel.cancelled() => return Err(interrupted()),
                    batch = rows.next() => batch,
                };
                let Some(batch) = batch else { return Ok(()) };
                let batch = batch.map_err(from_datafusion)?;
                if batch.num_rows() == 0 {
                    continue;
                }
                fed_bytes = fed_bytes.saturating_add(batch.get_array_memory_size());
                if senders.is_empty() || (senders.len() < most && fed_bytes > ANOTHER_LANE_BYTES * senders.len()) {
                    let (sender, receiver) = mpsc::channel(QUEUE);
                    lanes.spawn(lane(writer.clone(), receiver));
                    senders.push(sender);
                }
                // To whoever is free; else to the next in turn.
                let mut waiting = Some(batch);
                for step in 0..senders.len() {
                    let Some(batch) = waiting.take() else { break };
                    let index = (next + step) % senders.len();
                    match senders[index].try_send(batch) {
                        Ok(()) => next = index + 1,
                        Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) => waiting = Some(batch),
                    }
                }
                let Some(batch) = waiting else { continue };
                next = (next + 1) % senders.len();
                tokio::select! {
                    biased;
                    () = self.cx.cancel.cancelled() => return Err(interrupted()),
                    sent = senders[next].send(batch) => sent.map_err(|_| Error::weir(CLOSED, "an insert stopped early"))?,
                }
            }
        }
        .await;
        drop(senders);
        if let Err(error) = &fed
            && error.code != CLOSED
        {
            lanes.abort_all();
            return fed.map(|()| 0);
        }
        let mut sent = 0;
        while let Some(done) = tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => return Err(interrupted()),
            done = lanes.join_next() => done,
        } {
            sent += done.map_err(|error| Error::weir("clickhouse-insert", "an insert died").because(error))??;
        }
        fed?;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        Ok(sent)
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
        let count = db.number("count()", &format!("from {staged}"), &[]).await?;
        if count != sent && !(self.state.expires && count < sent) {
            return Err(Error::system("rows-lost", format!("the server holds {count} of the {sent} rows that it took")));
        }
        let parts = db
            .row(
                &["count()", "uniqExact(partition_id)", "sum(bytes_on_disk)"],
                "from system.parts where database = {d:String} and table = {t:String} and active",
                &[("d", self.state.database.clone()), ("t", stage.clone())],
            )
            .await?;
        let number = |index: usize| parts.get(index).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        let bytes = number(2);
        if self.state.attaches && bytes < SMALL_BYTES && number(0) > number(1) {
            self.merge_parts(&staged).await?;
        }
        let stage_id = db.identity(&self.state.database, &stage).await?;
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

/// The code of an error that only says that an insert has ended.
const CLOSED: &str = "clickhouse-insert-closed";

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
    match Error::find(&error) {
        Some(Error { blame, retry, code, message, setting, help, .. }) => Error {
            blame: *blame,
            retry: *retry,
            code,
            message: message.clone(),
            setting: setting.clone(),
            help: help.clone(),
            source: None,
        },
        None => Error::system("dataflow", error.find_root().strip_backtrace()).because(error),
    }
}

/// What a lane needs.
struct Writer {
    db: Db,
    encoder: Encoder,
    state: State,
    insert_rows: u64,
}

/// Inserts what it is handed, one request after the other. Returns how many rows the server took.
async fn lane(writer: Arc<Writer>, mut batches: mpsc::Receiver<RecordBatch>) -> Result<u64> {
    let mut taken = 0;
    let mut open: Option<Insert> = None;
    loop {
        match tokio::time::timeout(IDLE, batches.recv()).await {
            Ok(Some(batch)) => {
                let batch = writer.encoder.convert(&batch)?;
                let insert = match &mut open {
                    Some(insert) => insert,
                    None => open.insert(Insert::begin(&writer).await?),
                };
                insert.send(&batch).await?;
                if insert.rows >= writer.insert_rows * PARTS_PER_INSERT {
                    taken += end(&mut open).await?;
                }
            }
            Ok(None) => return Ok(taken + end(&mut open).await?),
            Err(_) => taken += end(&mut open).await?,
        }
    }
}

/// One request that is under way.
struct Insert {
    request: connect::Insert,
    frames: Frames,
    rows: u64,
}

impl Insert {
    async fn begin(writer: &Writer) -> Result<Self> {
        let state = &writer.state;
        let sql = format!("insert into {} ({}) format ArrowStream", state.own(&state.stage_table()), quote::identifiers(&state.written));
        let (rows, bytes) = (writer.insert_rows.to_string(), PART_BYTES.to_string());
        let options = [
            ("async_insert", "0"),
            // Every row as it is: collapsing and replacing are for merges, once keys were checked.
            ("optimize_on_insert", "0"),
            ("insert_deduplicate", "0"),
            ("input_format_null_as_default", "0"),
            ("input_format_arrow_allow_missing_columns", "0"),
            ("date_time_overflow_behavior", "throw"),
            ("max_partitions_per_insert_block", "0"),
            // Few parts, of a size that bounds the server's memory.
            ("max_insert_block_size", &rows),
            ("min_insert_block_size_rows", &rows),
            ("min_insert_block_size_bytes", &bytes),
        ];
        let request = writer.db.server.insert(&sql, &options, Some(&state.request()), &writer.db.doing).await?;
        Ok(Self { request, frames: Frames::new(&writer.encoder)?, rows: 0 })
    }

    async fn send(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = self.frames.batch(batch)?;
        self.request.send(bytes).await?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the request. Returns how many rows the server took.
    async fn end(mut self) -> Result<u64> {
        let bytes = self.frames.end()?;
        self.request.send(bytes).await?;
        self.request.end().await?;
        Ok(self.rows)
    }
}

async fn end(open: &mut Option<Insert>) -> Result<u64> {
    match open.take() {
        Some(insert) => insert.end().await,
        None => Ok(0),
    }
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
        Ok(self.write(data).await?)
    }
}

impl DisplayAs for ClickhouseLoad {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClickhouseLoad(table={}, mode={})", self.state.place().shown(), self.state.mode)
    }
}
