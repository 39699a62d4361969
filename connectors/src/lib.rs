//! Where rows come from and go: one file per kind, the traits they share, and the two lists of kinds.
//! Not here: pipelines as a whole, the order of a run, the scheduler. No connector knows another.

pub mod browse;
pub mod clickhouse;
mod conform;
pub mod connections;
pub mod context;
pub mod error;
pub mod extent;
pub mod file;
pub mod floats;
pub mod incremental;
pub mod kept;
pub mod known;
pub mod lake;
pub mod postgres;
pub mod pushdown;
pub mod quote;
pub mod remote;
mod repeats;
pub mod retry;
pub mod secret;
pub mod spill;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::TableProvider,
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::TaskContext,
    physical_plan::{ExecutionPlan, execute_stream},
};
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use weir_pipelines::{Diagnostics, Settings, Vocabulary};

pub use browse::{Browse, BrowseKind, Listed, ListedKind};
pub use connections::Connections;
pub use context::{Advance, Coordinates, Interval, Purpose, Reject, Rejects, RunContext, SinkContext, SourceContext};
pub use error::{Blame, Error, Result, Retry, io_error};
pub use extent::Extent;
pub use file::{
    list::{FoundFile, list as list_files},
    reading as files,
};

/// A kind's settings struct: what a person writes under the kind's key. Its field docs are the reference.
pub trait Config: DeserializeOwned + schemars::JsonSchema {
    /// The key that names the kind.
    const KIND: &'static str;
    /// One line on what it is.
    const SUMMARY: &'static str;
    /// A step a person could paste, as TOML.
    const EXAMPLE: &'static str;
}

/// A place that rows come from.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Connects and learns the schema. I/O to learn it happens here, once, so that planning does none.
    async fn open(&self, cx: &SourceContext) -> Result<Opened>;
    /// The system outside this machine that opening asks; none where all there is to learn is here.
    fn outside(&self) -> Option<Asked> {
        None
    }
    /// Opens it by the columns that [`DataColumns::own`] told another time, and asks nobody. Its rows cannot be read.
    fn recall(&self, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
        let _ = (own, cx);
        Err(Error::weir("known", "a source that asks nobody is opened, not recalled"))
    }
}

/// What a source asks of a system outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// In words: `"public.planes" of "crm"`.
    pub what: String,
    /// The setting that names it.
    pub setting: &'static str,
}

/// A source that has learnt its schema and is ready to be read once.
#[derive(Debug)]
pub struct Opened {
    /// The rows. With `SourceContext::coordinates`, the last two columns are [`Coordinates`].
    pub table: Arc<dyn TableProvider>,
    /// What the cursor store gains once the run has published; none for a source that is not incremental.
    pub advance: Option<Arc<dyn Advance>>,
    /// Rows and bytes read so far, counted by the reader itself: good and rejected rows alike.
    pub read: Arc<context::ReadCount>,
    /// What is known of the data's own columns besides.
    pub columns: DataColumns,
    /// How much there is to read.
    pub extent: Extent,
}

/// What a source knows of the columns its data have.
#[derive(Debug, Clone, Default)]
pub struct DataColumns {
    /// Who says which columns there are.
    pub by: ColumnsBy,
    /// Columns of the table that the data lack, null in every row: of those that [`SourceContext::told`] asks for.
    pub absent: Vec<String>,
    /// Columns in which only nulls were seen: their type is a guess.
    pub untyped: Vec<String>,
    /// The file that a column was first met in, by column; sources of files only.
    pub first_in: HashMap<String, String>,
    /// Types are those of a part of the rows; see [`context::Purpose::Try`].
    pub guessed: bool,
    /// The data's own columns, before any that a step is told to have; of sources that ask a system outside.
    pub own: Option<SchemaRef>,
}

/// Who says which columns a source's data have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColumnsBy {
    /// The source itself: a header, a footer, a catalogue.
    #[default]
    Source,
    /// Its records, all of them: a column is there because some record has it.
    Records,
    /// Only a part of it was looked at: there may be more columns.
    Sample,
    /// Nobody: there is nothing to read, and the columns are the known ones.
    Memory,
}

/// A place that rows go to.
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// The destination as a person names it. Two sinks of one pipeline that answer alike write the same thing.
    fn destination(&self, cx: &SinkContext) -> String;
    /// Says what can be known to fail without asking the destination: a mode it does not have, a type it cannot hold, a mapping
    /// that loses something and is not allowed by name. Touches nothing outside.
    fn check(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(), Vec<Error>>;
    /// The columns of `rows` that this sink takes no null in besides the key, each with the setting that says so. Touches nothing outside.
    fn never_null(&self, rows: &SchemaRef) -> Vec<(&'static str, String)> {
        let _ = rows;
        Vec::new()
    }
    /// Compares `rows` with the destination and says what would change there. Changes nothing.
    async fn plan(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Change>;
    /// What stands at a destination outside this machine, for [`Sink::recall`] to compare rows with another time; none where nothing stands
    /// there yet, or the destination is here.
    async fn standing(&self, cx: &SinkContext) -> Result<Option<serde_json::Value>> {
        let _ = cx;
        Ok(None)
    }
    /// As [`Sink::plan`], and asks no system outside: a destination there is taken to be what [`Sink::standing`] told. None where nothing is
    /// known of it, or nothing stands there.
    async fn recall(&self, rows: &SchemaRef, cx: &SinkContext, standing: Option<&serde_json::Value>) -> Result<Option<Change>> {
        let _ = (rows, cx, standing);
        Ok(None)
    }
    /// Starts one run's load. Nothing is visible to readers before [`Load::publish`].
    async fn open(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Arc<dyn Load>>;
}

/// One run's rows on their way into one destination. `DataSink::write_all` stages them and returns how many it took.
#[async_trait]
pub trait Load: DataSink {
    /// The destination as a person names it: `lake.flights.delays`, a path.
    fn destination(&self) -> String;
    /// Says where it stages, before the first row is written: enough for [`SinkKind::resume`] to discard after a crash.
    fn stage(&self) -> serde_json::Value;
    /// Stages what a plan yields and returns how many rows that was. The plan's partitions meet in one stream, in any order, unless a load
    /// has a use for several, each of which is in an order of its own.
    async fn write_plan(&self, rows: Arc<dyn ExecutionPlan>, tasks: &Arc<TaskContext>) -> DataFusionResult<u64> {
        self.write_all(execute_stream(rows, tasks.clone())?, tasks).await
    }
    /// Ends staging: everything is durable, keys are checked. Called once, after `write_all` or `write_plan`.
    async fn seal(&self) -> Result<Sealed>;
    /// Makes the sealed rows visible in one step and notes the run in the destination. Calling it again for the same run changes nothing.
    async fn publish(&self) -> Result<Published>;
    /// Removes what was staged. Calling it again, or after a crash in the middle, is fine. Never undoes a publish.
    async fn discard(&self) -> Result<()>;
    /// True of a load whose stage is an open transaction, which ends with the process: its publish is the run's decision.
    /// Only where [`SinkContext::may_decide`] allows it.
    fn decides(&self) -> bool {
        false
    }
    /// Of a load that decides: ends the question whether it has published, also for a request that is still on its way.
    /// True: it has. False: it has not and, from here on, never will.
    async fn settle(&self) -> Result<bool> {
        Ok(false)
    }
}

/// What is staged and durable.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Rows staged, counted from what was written (file footers, server answers), not from what was sent.
    pub rows: u64,
    /// Bytes staged.
    pub bytes: u64,
    /// Enough for [`SinkKind::resume`] to publish or discard in another process.
    pub state: serde_json::Value,
}

/// What a publish did.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Published {
    /// The destination's version, commit or path, for people.
    pub version: String,
    /// True when an earlier call for the same run had already published.
    pub already: bool,
}

/// What a sink would change.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Change {
    /// The destination as a person names it.
    pub destination: String,
    /// True when it does not exist yet.
    pub creates: bool,
    /// Columns that would be added.
    pub adds: Vec<String>,
    /// The destination's columns after the run: name and type as the destination calls it.
    pub columns: Vec<(String, String)>,
    /// Columns that are there already and take no null.
    pub not_null: Vec<String>,
    /// Statements or operations, in order, for `weir plan`.
    pub steps: Vec<String>,
}

/// One row of a destination's reference table of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRow {
    /// The Arrow type, as Arrow names it.
    pub arrow: &'static str,
    /// The column type it becomes.
    pub column: &'static str,
    /// False: refused unless the column is in `allow_lossy`.
    pub exact: bool,
    /// What happens to the value.
    pub note: &'static str,
}

/// One entry of [`SOURCES`].
#[derive(Debug, Clone, Copy)]
pub struct SourceKind {
    /// The key that names the kind.
    pub kind: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// A step a person could paste.
    pub example: &'static str,
    /// The JSON Schema of the settings.
    pub schema: fn() -> schemars::Schema,
    /// Reads the settings a person wrote.
    pub read: fn(&Settings) -> Result<Arc<dyn Source>, Diagnostics>,
}

/// One entry of [`SINKS`].
#[derive(Debug, Clone, Copy)]
pub struct SinkKind {
    /// The key that names the kind.
    pub kind: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// A step a person could paste.
    pub example: &'static str,
    /// The JSON Schema of the settings.
    pub schema: fn() -> schemars::Schema,
    /// Reads the settings a person wrote.
    pub read: fn(&Settings) -> Result<Arc<dyn Sink>, Diagnostics>,
    /// Which column type each Arrow type becomes, in the order of the reference; empty where it depends on a setting.
    pub types: fn() -> Vec<TypeRow>,
    /// Which column type a field becomes in a new destination, and whether exactly; none where it has none.
    pub column: fn(&Field) -> Option<(String, bool)>,
    /// Takes up a load another process left: from [`Load::stage`] (to discard) or [`Sealed::state`] (to publish or discard).
    pub resume: fn(serde_json::Value, &Arc<RunContext>) -> Result<Arc<dyn Load>>,
}

/// Every kind of source.
pub static SOURCES: &[SourceKind] = &[file::SOURCE, postgres::SOURCE, clickhouse::SOURCE];

/// Every kind of sink.
pub static SINKS: &[SinkKind] = &[lake::SINK, file::SINK, postgres::SINK, clickhouse::SINK];

/// Every kind of connection that can be looked through.
pub static BROWSED: &[BrowseKind] = &[postgres::BROWSE, clickhouse::BROWSE];

/// The words a pipeline file may use: the kinds, and the project's connections and profiles.
pub fn vocabulary<'a>(connections: &'a [&'a str], profiles: &'a [&'a str]) -> Vocabulary<'a> {
    static NAMES: LazyLock<[Vec<&str>; 2]> = LazyLock::new(|| {
        let sources = SOURCES.iter().map(|kind| kind.kind).collect();
        [sources, SINKS.iter().map(|kind| kind.kind).collect()]
    });
    Vocabulary {
        sources: &NAMES[0],
        sinks: &NAMES[1],
        connections,
        profiles,
        check_source: |settings| {
            let kind = SOURCES.iter().find(|kind| kind.kind == settings.kind.value);
            kind.and_then(|kind| (kind.read)(settings).err()).unwrap_or_default()
        },
        check_sink: |settings| {
            let kind = SINKS.iter().find(|kind| kind.kind == settings.kind.value);
            kind.and_then(|kind| (kind.read)(settings).err()).unwrap_or_default()
        },
    }
}

/// Every kind of connection: its kind, its schema, and the check of its settings.
pub static CONNECTIONS: &[ConnectionKind] = &[postgres::CONNECTION, clickhouse::CONNECTION];

/// One entry of [`CONNECTIONS`].
#[derive(Debug, Clone, Copy)]
pub struct ConnectionKind {
    /// The key that names the kind.
    pub kind: &'static str,
    /// A table a person could paste.
    pub example: &'static str,
    /// The JSON Schema of the settings.
    pub schema: fn() -> schemars::Schema,
    /// Checks the settings a person wrote.
    pub check: fn(&Settings) -> Result<(), Diagnostics>,
    /// Connects to the connection of this name and looks round. Changes nothing.
    pub probe: for<'a> fn(&'a str, &'a Arc<RunContext>) -> BoxFuture<'a, Result<Probe>>,
}

/// What a look at a connection found.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Probe {
    /// The server and its version, as it calls itself.
    pub server: String,
    /// What loads have staged there and not removed: a running load's, or what a crash left.
    pub staged: Vec<Leftover>,
}

/// A staged table, or what else a load leaves until it has ended.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Leftover {
    /// As the server calls it.
    pub name: String,
    /// The run it belongs to, where it says so.
    pub run: Option<String>,
}
