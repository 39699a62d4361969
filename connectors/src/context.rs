//! What a run and a step hand to a connector: passed, never global. Where rows that cannot be read are reported.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Debug},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use weir_pipelines::{Incremental, Mode, OnSchemaChange};

use crate::{connections::Connections, error::Result};

/// The stretch of time that a run is for: `start` belongs to it, `end` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Where it begins.
    pub start: DateTime<Utc>,
    /// Where the next one begins: later than `start`.
    pub end: DateTime<Utc>,
}

impl fmt::Display for Interval {
    /// `START/END`, each as RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        write!(f, "{}/{}", text(self.start), text(self.end))
    }
}

/// What one run shares.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The run's id: a UUID version 7, so ids sort by time.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Names this project's state among others that write the same destination; made once with the state.
    pub state: String,
    /// When the run started; SQL's `now()` is this instant.
    pub started_at: DateTime<Utc>,
    /// The stretch of time that it is for; none where nothing was said of one.
    pub interval: Option<Interval>,
    /// The project's folder.
    pub root: PathBuf,
    /// `.weir`, absolute.
    pub state_dir: PathBuf,
    /// The lake's root: an absolute path or a URL.
    pub lake: String,
    /// The chosen profile of `weir.toml`.
    pub profile: Option<String>,
    /// The environment, read once at the edge: object-store credentials and the like.
    pub environment: Arc<HashMap<String, String>>,
    /// The project's connections.
    pub connections: Arc<Connections>,
    /// Memory pool and spill files.
    pub runtime: Arc<RuntimeEnv>,
    /// Streams of one plan: how many partitions to offer.
    pub partitions: usize,
    /// Rows per batch.
    pub batch_rows: usize,
    /// Cancelled on Ctrl-C, a deadline, or the failure of another step.
    pub cancel: CancellationToken,
}

/// Why a source is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To check or plan: schemas from declarations, file headers and a few leading records; nothing is counted or rejected.
    Plan,
    /// To read every row.
    Run,
    /// To read every row, with types that a part of the rows suggests where learning them from all would be a second read. Such a source says so
    /// ([`crate::DataColumns::guessed`]); its scan fails with the code `types-guessed` at a row that all rows' types would have to hold, and
    /// these do not. Then [`Self::Run`] is left.
    Try,
}

/// What one source step is told.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// The run.
    pub run: Arc<RunContext>,
    /// The step's name.
    pub step: String,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// The columns the step's contract declares, in its order; none without a contract. A column that is declared and not
    /// in the data is null; one that is in the data and not declared has an inferred type and follows the declared ones.
    pub declared: Option<SchemaRef>,
    /// The columns the step is to have, where the data have drifted from them: [`Self::declared`] first, then others with the
    /// types they are to be read as. In the same way, a column of these that is not in the data is null.
    pub shape: Option<SchemaRef>,
    /// The columns that the step had in the last published run, for a run in which there is nothing to learn them from.
    pub known: Option<SchemaRef>,
    /// True: append the [`Coordinates`] columns.
    pub coordinates: bool,
    /// Incremental reading, where the step asks for it.
    pub incremental: Option<Incremental>,
    /// What [`Advance::entries`] gave in published runs, by key.
    pub seen: BTreeMap<String, String>,
    /// Takes rows that cannot be read.
    pub rejects: Arc<dyn Rejects>,
    /// Why it is opened.
    pub purpose: Purpose,
}

impl SourceContext {
    /// The columns that are read as told, whatever the data say of them: the shape, or else what is declared.
    pub fn told(&self) -> Option<&SchemaRef> {
        self.shape.as_ref().or(self.declared.as_ref())
    }
}

/// What one sink step is told.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The run.
    pub run: Arc<RunContext>,
    /// The step's name.
    pub step: String,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// How rows meet what is there.
    pub mode: Mode,
    /// The columns that identify a row.
    pub key: Vec<String>,
    /// What happens when rows have other columns than the destination.
    pub on_schema_change: OnSchemaChange,
    /// Columns whose lossy mapping is accepted.
    pub allow_lossy: Vec<String>,
    /// True for at most one load of a run: its stage may be an open transaction. See [`crate::Load::decides`].
    pub may_decide: bool,
    /// What the run's other sinks load, as [`crate::Sink::destination`] says it.
    pub beside: Vec<String>,
}

/// The two columns that say where a row came from.
#[derive(Debug)]
pub struct Coordinates;

impl Coordinates {
    /// The path or URL of the row's file.
    pub const FILE: &'static str = "_file";
    /// The line (text formats, from 1, the record's first line) or the record's number from 1 (binary formats).
    pub const ROW: &'static str = "_row";

    /// `_file` (dictionary of text) and `_row` (unsigned 64-bit), neither null.
    pub fn fields() -> [FieldRef; 2] {
        [
            Arc::new(Field::new(Self::FILE, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), false)),
            Arc::new(Field::new(Self::ROW, DataType::UInt64, false)),
        ]
    }
}

/// A row that broke its contract, or could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The path or URL of its file.
    pub file: Option<String>,
    /// Its line or number, as in [`Coordinates::ROW`].
    pub row: Option<u64>,
    /// A stable code: `malformed`, `wrong-type`, `new-column`, `type-change`, or the JSON Schema keyword that failed.
    pub code: String,
    /// The column, or the JSON pointer inside it, that is at fault.
    pub column: Option<String>,
    /// What is wrong, in words.
    pub reason: String,
    /// The row as it stood in the input, or as JSON where it had been read.
    pub raw: String,
    /// Of delimited text whose fields could be told apart: the text of each column's field, or null, as a JSON object.
    pub fields: Option<String>,
}

/// Takes rejected rows. What becomes of them (fail, drop, quarantine) is the engine's.
pub trait Rejects: Debug + Send + Sync {
    /// Takes some. An error ends the step: the author said `fail`, or too many are invalid. Never blocks on I/O for long.
    fn reject(&self, rejects: Vec<Reject>) -> Result<()>;
}

/// What a source read, counted by the reader itself.
#[derive(Debug, Default)]
pub struct ReadCount {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl ReadCount {
    /// Adds rows found in the input, good or bad.
    pub fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
    /// Adds bytes taken from the outside, compressed where the input is.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    /// Rows found so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a source remembers once its rows are published.
pub trait Advance: Debug + Send + Sync {
    /// Keys and values to store, after all rows were read.
    fn entries(&self) -> BTreeMap<String, String>;
}
