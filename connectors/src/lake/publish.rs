//! One run's load into one table: its state, its seal, and the one commit that makes its files part of the table exactly once.
//! How files are written is `stage.rs`; which files a merge replaces is `rewrite.rs`.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType},
};
use deltalake::{
    DeltaTable, DeltaTableError,
    kernel::{
        Action, Add, Metadata, Protocol, Remove, StructType, Transaction, new_metadata,
        transaction::{CommitBuilder, CommitProperties, TableReference, TransactionError},
    },
    protocol::{DeltaOperation, SaveMode},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_pipelines::{Mode, OnSchemaChange};

use super::{
    rewrite,
    schema::{self, Column, Fit, Rules},
    stage::{Spec, Stage},
    stats,
    table::{self, Place, Version},
    types,
};
use crate::{
    Load, Published, Sealed,
    context::RunContext,
    error::{Error, Result},
};

/// How often a commit is tried when other writers come first.
const ATTEMPTS: u32 = 30;
/// How many commits a reader has to read one by one at most: Delta's own default, of which the library's is ten times. Every commit that
/// is read is held in memory by a thread of its own.
const COMMITS_PER_CHECKPOINT: &str = "10";
/// The key under which a commit names its load.
const LOAD: &str = "weirLoad";

/// Everything that another process needs to publish or discard this load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    folder: String,
    name: String,
    pub(super) step: String,
    run: String,
    /// Names this load's files and its commit: the run and a digest of the application id, as two sinks of a run may write one table.
    pub(super) token: String,
    app: String,
    /// The application transaction's version.
    txn: i64,
    /// The table's version when the load began; none when there was no table.
    base: Option<u64>,
    mode: String,
    pub(super) key: Vec<String>,
    on_schema_change: String,
    partition_by: Vec<String>,
    /// When the run started, in microseconds since 1970.
    pub(super) started_at: i64,
    /// Where files are staged inside the table's folder: empty when they can become part of the table as they are.
    pub(super) aside: String,
    /// What staged files hold, as a Delta schema, and how they are partitioned.
    columns: StructType,
    partitions: Vec<String>,
    pub(super) file_bytes: u64,
    /// The staged files, once sealed.
    sealed: Option<Vec<Add>>,
}

impl State {
    pub(super) async fn new(
        place: &Place,
        table: Option<&DeltaTable>,
        fit: &Fit,
        rules: &Rules,
        cx: &RunContext,
        file_bytes: u64,
    ) -> Result<Self> {
        let app = format!("weir/{}/{}/{}", cx.state, cx.pipeline, rules.step);
        let token = format!("{}-{:08x}", cx.run, fnv(&app));
        let last = match table {
            Some(table) => transaction(place, table, &app).await?,
            None => None,
        };
        let started_at = cx.started_at.timestamp_micros();
        let rewrites = rules.mode == Mode::Snapshot || (rules.mode == Mode::Merge && !fit.missing.is_empty());
        let written: Vec<Column> = fit.written.iter().map(|(column, _)| column.clone()).collect();
        Ok(Self {
            folder: place.local.as_ref().map_or_else(|| place.url.to_string(), |path| path.to_string_lossy().into_owned()),
            name: place.name.clone(),
            step: rules.step.clone(),
            run: cx.run.clone(),
            aside: if rewrites { format!("_weir/{token}") } else { String::new() },
            token,
            app,
            txn: last.map_or(started_at, |last| started_at.max(last + 1)),
            base: table.and_then(DeltaTable::version),
            mode: rules.mode.as_str().to_owned(),
            key: rules.key.clone(),
            on_schema_change: change_word(rules.on_schema_change).to_owned(),
            partition_by: rules.partition_by.clone(),
            started_at,
            columns: schema::to_delta(&written)?,
            partitions: fit.partitions.clone(),
            file_bytes,
            sealed: None,
        })
    }

    pub(super) fn mode(&self) -> Result<Mode> {
        [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot]
            .into_iter()
            .find(|mode| mode.as_str() == self.mode)
            .ok_or_else(|| Error::weir("lake-state", format!("a load was left with the unknown mode \"{}\"", self.mode)))
    }

    fn rules(&self) -> Result<Rules> {
        let mode = self.mode()?;
        let on_schema_change = [OnSchemaChange::Fail, OnSchemaChange::AddColumns, OnSchemaChange::Ignore]
            .into_iter()
            .find(|change| change_word(*change) == self.on_schema_change)
            .ok_or_else(|| Error::weir("lake-state", "a load was left with an unknown on_schema_change"))?;
        // The files are partitioned already: a replaced table has to be as they are.
        let partition_by = if mode == Mode::Replace { self.partitions.clone() } else { self.partition_by.clone() };
        Ok(Rules { step: self.step.clone(), mode, key: self.key.clone(), on_schema_change, partition_by })
    }

    /// What staged files hold.
    pub(super) fn columns(&self) -> Result<Vec<Column>> {
        schema::from_delta(&self.columns)
    }

    /// How staged files are partitioned.
    pub(super) fn partitions(&self) -> &[String] {
        &self.partitions
    }
}

fn change_word(change: OnSchemaChange) -> &'static str {
    match change {
        OnSchemaChange::Fail => "fail",
        OnSchemaChange::AddColumns => "add_columns",
        OnSchemaChange::Ignore => "ignore",
    }
}

/// FNV-1a, folded to 32 bits.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

async fn transaction(place: &Place, table: &DeltaTable, app: &str) -> Result<Option<i64>> {
    let failed = |error| place.failed("read", error);
    let log = table.log_store();
    table.snapshot().map_err(failed)?.transaction_version(log.as_ref(), app).await.map_err(failed)
}

/// One run's rows on their way into one table.
#[derive(Debug)]
pub struct LakeLoad {
    pub(super) cx: Arc<RunContext>,
    pub(super) place: Place,
    pub(super) state: State,
    rows: SchemaRef,
    /// None in a process that took the load up.
    stage: Option<Arc<Stage>>,
    added: Mutex<Vec<Add>>,
}

impl LakeLoad {
    pub(super) fn new(cx: Arc<RunContext>, place: Place, state: State, rows: SchemaRef, fit: &Fit) -> Self {
        let spec = Spec {
            place: place.clone(),
            folder: state.aside.clone(),
            label: state.token.clone(),
            written: fit.written.clone(),
            partitions: fit.partitions.clone(),
            file_bytes: state.file_bytes,
            writers: cx.partitions.max(1),
        };
        let stage = Some(Arc::new(Stage::new(spec, &rows, cx.runtime.clone())));
        Self { cx, place, state, rows, stage, added: Mutex::default() }
    }

    pub(super) fn resume(state: Value, cx: &Arc<RunContext>) -> Result<Self> {
        let state: State = serde_json::from_value(state)
            .map_err(|error| Error::weir("lake-state", "the state of a load into the lake cannot be read").because(error))?;
        let place = Place::at(&state.folder, &state.name, &cx.environment)?;
        let rows = schema::arrow_schema(&state.columns()?);
        let added = Mutex::new(state.sealed.clone().unwrap_or_default());
        Ok(Self { cx: cx.clone(), place, state, rows, stage: None, added })
    }

    /// Says whether this load's commit is in the table's log, and as which version.
    async fn published(&self, table: &DeltaTable) -> Result<Option<u64>> {
        let last = transaction(&self.place, table, &self.state.app).await?;
        let Some(last) = last.filter(|last| *last >= self.state.txn) else { return Ok(None) };
        // A later transaction may be that of a run that overtook this one, so the log has the word.
        let newest = table.version().unwrap_or(0);
        let log = table.log_store();
        let mut gaps = false;
        let needle = self.state.token.as_bytes();
        for version in (self.state.base.map_or(0, |base| base + 1)..=newest).rev() {
            match log.read_commit_entry(version).await.map_err(|error| self.place.failed("read", error))? {
                Some(bytes) if bytes.windows(needle.len()).any(|window| window == needle) => return Ok(Some(version)),
                Some(_) => {}
                None => gaps = true,
            }
        }
        match gaps {
            false => Ok(None),
            true if last == self.state.txn => Ok(Some(newest)),
            true => Err(Error::system(
                "lake-log-cleaned",
                format!(
                    "cannot tell whether run {} was published to \"{}\": the log of that time was cleaned up",
                    self.state.run, self.place.name
                ),
            )
            .help("compare the table with the run's rows, then discard the run")),
        }
    }

    /// The changes of this load against `table` as it stands.
    async fn changes(&self, table: Option<&DeltaTable>, staged: &[Add], first: bool) -> Result<Changes> {
        let failed = |error| self.place.failed("read", error);
        let rules = self.state.rules()?;
        let columns = self.state.columns()?;
        let existing = table.map(|table| schema::existing(table, &self.place.name)).transpose()?;
        let fit = schema::fit(&columns, existing.as_ref(), &rules).map_err(|error| self.changed_meanwhile(&error.message))?;
        let same = fit.written.iter().all(|(column, index)| column.lake == columns[*index].lake);
        // A file that stands in the table's folder and holds the table's types and partitions can be taken as it is.
        let direct = same && self.state.aside.is_empty() && self.state.partitions == fit.partitions;
        let rewrites = matches!(rules.mode, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot);
        if !direct && !rewrites {
            return Err(self.changed_meanwhile("its columns or partitions are others"));
        }
        let mut changes = Changes::default();
        if rewrites && !(direct && table.is_none()) {
            if first && self.stage.is_none() {
                self.sweep(staged).await?;
            }
            rewrite::rewrite(self, table, &fit, staged, direct, &mut changes).await?;
        } else {
            changes.adds = staged.to_vec();
        }
        if rules.mode == Mode::Replace
            && let Some(table) = table
        {
            changes.removes = table.snapshot().map_err(failed)?.log_data().iter().map(|file| file.remove_action(true)).collect();
        }
        if fit.changes || table.is_none() {
            (changes.protocol, changes.metadata) = described(table, &fit, rules.mode).map_err(failed)?;
        }
        Ok(changes)
    }

    fn changed_meanwhile(&self, what: &str) -> Error {
        Error::user("lake-changed", format!("another writer changed table \"{}\" while this run went on: {what}", self.place.name))
            .help("run again")
    }

    /// Deletes what an earlier attempt, in a process that died, had rewritten.
    async fn sweep(&self, staged: &[Add]) -> Result<()> {
        let left = table::files_of_run(&self.place, &self.state.token).await?;
        let left: Vec<String> = left.into_iter().filter(|file| staged.iter().all(|add| add.path != *file)).collect();
        table::delete(&self.place, &left).await
    }

    /// Commits. `Ok(None)`: another writer came first.
    async fn commit(&self, table: Option<&DeltaTable>, changes: &Changes) -> Result<Option<u64>, DeltaTableError> {
        let log = match table {
            Some(table) => table.log_store(),
            None => self.place.log_store(),
        };
        let state = table.map(DeltaTable::snapshot).transpose()?;
        let last = match state {
            Some(state) => state.transaction_version(log.as_ref(), &self.state.app).await?,
            None => None,
        };
        let txn = last.map_or(self.state.txn, |last| self.state.txn.max(last + 1));
        let mut actions: Vec<Action> = Vec::new();
        actions.extend(changes.protocol.clone().map(Action::Protocol));
        actions.extend(changes.metadata.clone().map(Action::Metadata));
        actions.extend(changes.removes.iter().cloned().map(Action::Remove));
        actions.extend(changes.adds.iter().cloned().map(Action::Add));
        let told = [
            (LOAD.to_owned(), json!(self.state.token)),
            ("weirPipeline".to_owned(), json!(self.cx.pipeline)),
            ("weirMode".to_owned(), json!(self.state.mode)),
        ];
        // No tries of its own: what is committed has to be worked out anew from whatever came between.
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_metadata(told)
            .with_application_transaction(Transaction::new(&self.state.app, txn));
        let builder = CommitBuilder::from(properties).with_actions(actions);
        let done = builder.build(state.map(|state| state as &dyn TableReference), log, self.operation()).await;
        match done {
            Ok(done) => Ok(Some(done.version())),
            Err(DeltaTableError::VersionAlreadyExists(_)) => Ok(None),
            Err(DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_) | TransactionError::VersionAlreadyExists(_),
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn operation(&self) -> DeltaOperation {
        let write = |mode| DeltaOperation::Write {
            mode,
            partition_by: (!self.state.partitions.is_empty()).then(|| self.state.partitions.clone()),
            predicate: None,
        };
        match self.state.mode.as_str() {
            "append" => write(SaveMode::Append),
            "replace" => write(SaveMode::Overwrite),
            _ => DeltaOperation::Merge {
                predicate: None,
                merge_predicate: Some(self.state.key.join(", ")),
                matched_predicates: vec![],
                not_matched_predicates: vec![],
                not_matched_by_source_predicates: vec![],
            },
        }
    }

    /// Deletes staged files that this load's commit did not take up: the process that committed may have died before it could.
    async fn tidy(&self, table: &DeltaTable, version: u64, staged: &[Add]) {
        let Ok(Some(commit)) = table.log_store().read_commit_entry(version).await else { return };
        let taken = |add: &&Add| {
            let name = add.path.rsplit('/').next().unwrap_or(&add.path).as_bytes();
            commit.windows(name.len()).any(|window| window == name)
        };
        let unused: Vec<String> = staged.iter().filter(|add| !taken(add)).map(|add| add.path.clone()).collect();
        if let Err(error) = table::delete(&self.place, &unused).await {
            tracing::warn!(table = %self.place.name, %error, "staged files of a published load stay behind");
        }
    }

    /// Makes the commit survive a loss of power, where the log is on this machine's disk.
    async fn settle(&self, version: u64) {
        let Some(root) = &self.place.local else { return };
        let log = root.join("_delta_log");
        let file = log.join(format!("{version:020}.json"));
        let _ = tokio::task::spawn_blocking(move || {
            // Best effort: the commit stands, and a file system that cannot do this is no reason to say otherwise.
            for path in [file, log] {
                if let Ok(opened) = std::fs::File::open(path) {
                    let _ = opened.sync_all();
                }
            }
        })
        .await;
    }

    async fn check_keys(&self, staged: &[Add]) -> Result<()> {
        let mode = self.state.mode()?;
        if staged.is_empty() || matches!(mode, Mode::Append | Mode::Replace) {
            return Ok(());
        }
        let mut unsure = false;
        for key in &self.state.key {
            for add in staged {
                let null = match add.partition_values.get(key) {
                    Some(value) => Some(value.is_none()),
                    None => stats::nulls(add, key).map(|nulls| nulls > 0),
                };
                match null {
                    Some(true) => return Err(self.null_key(key)),
                    Some(false) => {}
                    None => unsure = true,
                }
            }
        }
        if unsure && let Some(key) = rewrite::null_key(self, staged).await? {
            return Err(self.null_key(&key));
        }
        if mode != Mode::DeleteInsert
            && let Some(value) = rewrite::duplicate_key(self, staged).await?
        {
            return Err(Error::user("duplicate-key", format!("sink \"{}\" got several rows with the same key: {value}", self.state.step))
                .setting("key")
                .help("put a deduplicate step before the sink, or add the column that tells the rows apart to the key"));
        }
        Ok(())
    }

    fn null_key(&self, key: &str) -> Error {
        Error::user("null-key", format!("sink \"{}\" got a row whose key column \"{key}\" is null", self.state.step))
            .setting("key")
            .help("leave such rows out with a filter, or require the column in a contract")
    }
}

/// What one commit does.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) adds: Vec<Add>,
    pub(super) removes: Vec<Remove>,
    pub(super) protocol: Option<Protocol>,
    pub(super) metadata: Option<Metadata>,
    /// Files written for this commit alone, to be deleted if it does not come about.
    pub(super) written: Vec<String>,
}

/// Protocol and metadata of a table that is made or changed.
fn described(table: Option<&DeltaTable>, fit: &Fit, mode: Mode) -> Result<(Option<Protocol>, Option<Metadata>), DeltaTableError> {
    let delta = |columns: &[Column]| schema::to_delta(columns).map_err(|error| DeltaTableError::generic(error.message));
    let ntz = fit.table.iter().any(|column| types::holds_ntz(&column.lake));
    let Some(table) = table else {
        let feature = ["timestampNtz"];
        let protocol = if ntz {
            json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": feature, "writerFeatures": feature })
        } else {
            json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
        };
        let configuration = HashMap::from([("delta.checkpointInterval", COMMITS_PER_CHECKPOINT)]);
        let metadata = new_metadata(&delta(&fit.table)?, fit.partitions.iter(), configuration)?;
        return Ok((Some(serde_json::from_value(protocol)?), Some(metadata)));
    };
    let state = table.snapshot()?;
    let mut protocol = serde_json::to_value(state.protocol())?;
    let protocol = (ntz && with_ntz(&mut protocol)).then(|| serde_json::from_value(protocol)).transpose()?;
    let schema = if mode == Mode::Replace {
        delta(&fit.table)?
    } else {
        let added = delta(&fit.added)?;
        StructType::try_new(state.schema().fields().chain(added.fields()).cloned())
            .map_err(|error| DeltaTableError::generic(error.to_string()))?
    };
    let mut metadata = serde_json::to_value(state.metadata())?;
    metadata["schemaString"] = json!(serde_json::to_string(&schema)?);
    metadata["partitionColumns"] = json!(fit.partitions);
    Ok((protocol, Some(serde_json::from_value(metadata)?)))
}

/// Adds the feature of timestamps without a zone to a protocol. False: it was there.
fn with_ntz(protocol: &mut Value) -> bool {
    let list = |protocol: &Value, key: &str| -> Vec<Value> { protocol[key].as_array().cloned().unwrap_or_default() };
    let (mut readers, mut writers) = (list(protocol, "readerFeatures"), list(protocol, "writerFeatures"));
    if readers.contains(&json!("timestampNtz")) && writers.contains(&json!("timestampNtz")) {
        return false;
    }
    // Features that a lower version implies are named once the version is one that lists them.
    let writer = protocol["minWriterVersion"].as_i64().unwrap_or(0);
    let implied = [
        (2, "appendOnly"),
        (2, "invariants"),
        (3, "checkConstraints"),
        (4, "changeDataFeed"),
        (4, "generatedColumns"),
        (5, "columnMapping"),
        (6, "identityColumns"),
    ];
    if writer < 7 {
        writers.extend(implied.iter().filter(|(since, _)| *since <= writer).map(|(_, name)| json!(name)));
    }
    if protocol["minReaderVersion"].as_i64() == Some(2) {
        readers.push(json!("columnMapping"));
    }
    for features in [&mut readers, &mut writers] {
        if !features.contains(&json!("timestampNtz")) {
            features.push(json!("timestampNtz"));
        }
    }
    *protocol = json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": readers, "writerFeatures": writers });
    true
}

#[async_trait]
impl Load for LakeLoad {
    fn destination(&self) -> String {
        self.place.name.clone()
    }

    fn stage(&self) -> Value {
        serde_json::to_value(&self.state).expect("a load's state is plain data")
    }

    async fn seal(&self) -> Result<Sealed> {
        let staged = self.added.lock().clone();
        self.check_keys(&staged).await?;
        let state = State { sealed: Some(staged.clone()), ..self.state.clone() };
        Ok(Sealed {
            rows: staged.iter().map(stats::rows).sum(),
            bytes: staged.iter().map(|add| add.size.unsigned_abs()).sum(),
            state: serde_json::to_value(state).map_err(|error| Error::weir("lake-state", error.to_string()))?,
        })
    }

    async fn publish(&self) -> Result<Published> {
        if self.stage.is_none() && self.state.sealed.is_none() {
            return Err(Error::weir("lake-state", "a load that was not sealed cannot be published"));
        }
        let staged = self.added.lock().clone();
        for attempt in 0..ATTEMPTS {
            let table = self.place.open(Version::Newest).await?;
            if let Some(table) = &table
                && let Some(version) = self.published(table).await?
            {
                self.tidy(table, version, &staged).await;
                return Ok(Published { version: version.to_string(), already: true });
            }
            let mut changes = self.changes(table.as_ref(), &staged, attempt == 0).await?;
            // Without a row there is nothing to do twice. Rows that change nothing are committed as such: their files go.
            if staged.is_empty() && changes.removes.is_empty() && changes.metadata.is_none() {
                let version = table.as_ref().and_then(DeltaTable::version).unwrap_or(0);
                return Ok(Published { version: version.to_string(), already: false });
            }
            match self.commit(table.as_ref(), &changes).await {
                Ok(Some(version)) => {
                    self.settle(version).await;
                    let used = |file: &String| changes.adds.iter().any(|add| add.path == *file);
                    let unused: Vec<String> = staged.iter().map(|add| add.path.clone()).filter(|file| !used(file)).collect();
                    if let Err(error) = table::delete(&self.place, &unused).await {
                        tracing::warn!(table = %self.place.name, %error, "staged files of a published load stay behind");
                    }
                    tracing::info!(run = %self.cx.run, table = %self.place.name, version, "lake table committed");
                    return Ok(Published { version: version.to_string(), already: false });
                }
                Ok(None) => {
                    table::delete(&self.place, &std::mem::take(&mut changes.written)).await?;
                    tokio::select! {
                        () = self.cx.cancel.cancelled() => return Err(Error::system("interrupted", "the run was stopped")),
                        () = tokio::time::sleep(wait(attempt)) => {}
                    }
                }
                Err(error) => {
                    // The answer may have been lost and the commit made, or what follows a commit may have failed.
                    if let Ok(Some(table)) = self.place.open(Version::Newest).await
                        && let Ok(Some(version)) = self.published(&table).await
                    {
                        return Ok(Published { version: version.to_string(), already: false });
                    }
                    return Err(self.place.failed("commit to", error));
                }
            }
        }
        Err(Error::system("lake-busy", format!("other writers commit to table \"{}\" all the time", self.place.name)).later())
    }

    async fn discard(&self) -> Result<()> {
        if let Some(stage) = &self.stage {
            stage.stopped().await;
        }
        let mut files = table::files_of_run(&self.place, &self.state.token).await?;
        if files.is_empty() {
            return Ok(());
        }
        if let Some(table) = self.place.open(Version::Newest).await?
            && self.published(&table).await?.is_some()
        {
            // What stands aside was copied into the commit and is nobody's any more.
            files.retain(|file| !self.state.aside.is_empty() && file.starts_with(&self.state.aside));
        }
        table::delete(&self.place, &files).await
    }
}

/// Waits longer from try to try, and not as long as others do.
fn wait(attempt: u32) -> Duration {
    let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    Duration::from_millis((10 << attempt.min(6)) * (128 + jitter) / 256)
}

#[async_trait]
impl DataSink for LakeLoad {
    fn schema(&self) -> &SchemaRef {
        &self.rows
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _: &Arc<TaskContext>) -> DataFusionResult<u64> {
        let Some(stage) = &self.stage else {
            return Err(Error::weir("lake-state", "a load that was taken up takes no more rows").into());
        };
        let added = stage.write(data, &self.cx.cancel).await?;
        let rows = added.iter().map(stats::rows).sum();
        self.added.lock().extend(added);
        Ok(rows)
    }
}

impl DisplayAs for LakeLoad {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LakeLoad(table={}, mode={})", self.place.name, self.state.mode)
    }
}
