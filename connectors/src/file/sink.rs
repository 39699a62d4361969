//! The file sink: rows become one file anew, or one more file of a folder, hidden until the run publishes.
//! How rows become bytes is `write.rs`'s.

use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    datasource::sink::DataSink,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryLimit},
    physical_plan::{DisplayAs, DisplayFormatType},
};
use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path as ObjectPath};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use weir_pipelines::Mode;

use super::{
    Character, Compression, Format, list,
    write::{Encoder, Layout},
};
use crate::{
    Change, Config, Load, Published, Sealed, Sink,
    context::{RunContext, SinkContext},
    error::{Error, Result},
};

/// Bytes gathered before they are handed to the disk or the store.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes a file, or files into a folder.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// Where to write: a file for the mode replace; a folder, ending in `/`, for append. A URL (`s3://`, `gs://`, `az://`,
    /// `abfss://`) works too. Relative paths start from the pipeline's folder. Example: `"out/delays.parquet"`.
    pub path: String,
    /// The format: csv, tsv, ndjson, parquet or arrow. Default: by extension; parquet in a folder. Example: `"csv"`.
    pub format: Option<Format>,
    /// How the file is packed: none, gzip or zstd. Default: by extension; zstd inside Parquet, none otherwise. Example: `"zstd"`.
    pub compression: Option<Compression>,
    /// How CSV is written.
    #[serde(default)]
    pub csv: CsvOut,
    /// How Parquet is written.
    #[serde(default)]
    pub parquet: ParquetOut,
}

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvOut {
    /// The character between values, one of ASCII. Default `,`, and a tab for the format tsv. Example: `";"`.
    pub delimiter: Option<Character>,
    /// Whether the first line holds the columns' names. Default true. Example: `false`.
    pub header: bool,
    /// How a null is spelt. Default: nothing at all; an empty text is then `""`. Example: `"NA"`.
    pub null: String,
}

impl Default for CsvOut {
    fn default() -> Self {
        Self { delimiter: None, header: true, null: String::new() }
    }
}

/// How Parquet is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParquetOut {
    /// Whether numbers and texts that do not repeat are stored in the encodings DELTA_BINARY_PACKED and DELTA_LENGTH_BYTE_ARRAY, which takes less time and
    /// room. Default true; false for readers that do not know them, such as Spark 3.2. Example: `false`.
    pub delta_encodings: bool,
}

impl Default for ParquetOut {
    fn default() -> Self {
        Self { delta_encodings: true }
    }
}

impl Config for FileSink {
    const KIND: &'static str = "file";
    const SUMMARY: &'static str = "a file, or one more file in a folder: Parquet, CSV, TSV, NDJSON or Arrow IPC";
    const EXAMPLE: &'static str = r#"[sink.export]
from = "delays"
mode = "replace"
[sink.export.file]
path = "out/delays.parquet"
"#;
}

impl FileSink {
    /// Says what does not go together, as far as settings alone can tell.
    pub(super) fn check(&self) -> Result<()> {
        if self.path.is_empty() {
            return Err(Error::user("wrong-value", "the path is empty").setting("path"));
        }
        if self.path.starts_with("http://") || self.path.starts_with("https://") {
            return Err(Error::user("url-invalid", "files cannot be written over HTTP")
                .setting("path")
                .help("schemes are: s3, gs, az, abfss, file"));
        }
        self.layout().map(|_| ())
    }

    fn is_folder(&self) -> bool {
        self.path.ends_with('/')
    }

    fn layout(&self) -> Result<Layout> {
        let named = (!self.is_folder()).then(|| Format::of_name(&self.path)).flatten();
        let format = match self.format.or(named) {
            Some(Format::Avro | Format::Json) => {
                return Err(Error::user("format-unsupported", "avro and json can be read and not written")
                    .setting(if self.format.is_some() { "format" } else { "path" })
                    .help("write parquet, csv, tsv, ndjson or arrow"));
            }
            Some(format) => format,
            None if self.is_folder() => Format::Parquet,
            None => {
                return Err(Error::user("format-unknown", format!("the name of \"{}\" does not say its format", self.path))
                    .setting("path")
                    .help("set \"format\": parquet, csv, tsv, ndjson or arrow"));
            }
        };
        let outer = if self.is_folder() { Compression::None } else { Compression::of_name(&self.path).0 };
        let compression = match (self.compression, format) {
            (Some(compression), _) => compression,
            (None, Format::Parquet) if outer == Compression::None => Compression::Zstd,
            (None, _) => outer,
        };
        let binary = matches!(format, Format::Parquet | Format::Arrow);
        let known =
            matches!(compression, Compression::None | Compression::Zstd) || (compression == Compression::Gzip && format != Format::Arrow);
        if !known || (binary && outer != Compression::None) {
            return Err(Error::user("format-unsupported", "this compression does not go with the format")
                .setting(if self.compression.is_some() { "compression" } else { "path" })
                .help("text is packed by gzip or zstd; parquet (gzip, zstd) and arrow (zstd) pack their own contents and keep their extension"));
        }
        let delimiter = self.csv.delimiter.map_or(if format == Format::Tsv { b'\t' } else { b',' }, |character| character.0);
        let (header, null, delta_encodings) = (self.csv.header, self.csv.null.clone(), self.parquet.delta_encodings);
        Ok(Layout { format, compression, delimiter, header, null, delta_encodings })
    }

    /// Where the run's rows are staged, and where they go.
    fn stage(&self, cx: &SinkContext) -> Result<Stage> {
        let run = &cx.run.run;
        let layout = self.layout()?;
        let target = match (cx.mode, self.is_folder()) {
            (Mode::Replace, false) => self.path.clone(),
            (Mode::Append, true) => format!("{}{run}-{}.{}", self.path, cx.step, layout.extension()),
            (Mode::Append, false) => {
                return Err(Error::user("mode-unsupported", "a single file cannot be appended to")
                    .setting("path")
                    .help("end \"path\" with \"/\" to add a file per run to a folder, or set mode = \"replace\""));
            }
            (Mode::Replace, true) => {
                return Err(Error::user("mode-unsupported", "a folder is not replaced")
                    .setting("path")
                    .help("name a file, or set mode = \"append\" to add a file per run"));
            }
            (mode, _) => {
                return Err(Error::user("mode-unsupported", format!("files do not know the mode \"{}\"", mode.as_str()))
                    .setting("mode")
                    .help("use replace or append, or the lake sink"));
            }
        };
        let target = match target.contains("://") {
            true => target,
            false => cx
                .folder
                .join(&target)
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| Error::user("name-not-text", "the folder's path is not UTF-8"))?,
        };
        let (folder, name) = target.rsplit_once('/').unwrap_or((".", &target));
        Ok(Stage { staged: format!("{folder}/.{name}.weir-{run}"), target, sealed: None })
    }
}

/// What a load writes down about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stage {
    /// The path or URL that readers will see.
    target: String,
    /// The path or URL that rows are written to.
    staged: String,
    /// Rows and bytes, once all are durable.
    sealed: Option<(u64, u64)>,
}

impl Stage {
    fn is_url(&self) -> bool {
        self.target.contains("://")
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("two texts and two numbers are JSON")
    }
}

#[async_trait]
impl Sink for FileSink {
    fn destination(&self, cx: &SinkContext) -> String {
        self.stage(cx).map_or_else(|_| self.path.clone(), |stage| stage.target)
    }

    fn check(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(), Vec<Error>> {
        let outcome = self.layout().and_then(|layout| self.stage(cx).and_then(|_| check_types(rows, layout.format)));
        outcome.map_err(|error| vec![error])
    }

    async fn plan(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Change> {
        let (layout, stage) = (self.layout()?, self.stage(cx)?);
        check_types(rows, layout.format)?;
        let exists = match stage.is_url() {
            // Whether an object is there is not worth a failure: the plan only says so.
            true => match list::store(&stage.target, &cx.run.environment) {
                Ok((store, path)) => store.head(&path).await.is_ok(),
                Err(error) => return Err(error),
            },
            false => Path::new(&stage.target).exists(),
        };
        let then = if exists { "it takes the place of the old one" } else { "it appears" };
        Ok(Change {
            destination: self.path.clone(),
            creates: !exists,
            adds: Vec::new(),
            not_null: Vec::new(),
            columns: rows.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect(),
            steps: vec![format!("write {} beside \"{}\"", layout.format.as_str(), stage.target), format!("rename it at publish: {then}")],
        })
    }

    async fn open(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Arc<dyn Load>> {
        let (layout, stage) = (self.layout()?, self.stage(cx)?);
        check_types(rows, layout.format)?;
        Ok(Arc::new(FileLoad { layout, schema: rows.clone(), stage: Mutex::new(stage), run: cx.run.clone() }))
    }
}

/// Text formats of rows hold no nested values.
fn check_types(rows: &SchemaRef, format: Format) -> Result<()> {
    let nested = rows.fields().iter().find(|field| field.data_type().is_nested());
    match nested {
        Some(field) if matches!(format, Format::Csv | Format::Tsv) => {
            Err(Error::user("type-unsupported", format!("\"{}\" is nested, which {} cannot hold", field.name(), format.as_str()))
                .about([field.name()])
                .help("flatten it first, or write ndjson or parquet"))
        }
        _ => match rows.fields().iter().find(|field| matches!(field.data_type(), DataType::Null)) {
            Some(field) if format == Format::Parquet => {
                Err(Error::user("type-unsupported", format!("\"{}\" has no type: it is always null", field.name()))
                    .about([field.name()])
                    .help("cast it to a type: cast(null as text)"))
            }
            _ => Ok(()),
        },
    }
}

/// Takes up a load that another process left.
pub(super) fn resume(state: serde_json::Value, run: &Arc<RunContext>) -> Result<Arc<dyn Load>> {
    let stage: Stage =
        serde_json::from_value(state).map_err(|error| Error::weir("state", "what a file load left cannot be read").because(error))?;
    let layout = Layout::new(Format::Parquet, Compression::None);
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    Ok(Arc::new(FileLoad { layout, schema, stage: Mutex::new(stage), run: run.clone() }))
}

/// One run's rows on their way into a file.
#[derive(Debug)]
struct FileLoad {
    layout: Layout,
    schema: SchemaRef,
    stage: Mutex<Stage>,
    run: Arc<RunContext>,
}

/// Where bytes go.
enum Output {
    Local(Synced),
    Remote(Box<BufWriter>, String),
}

impl Output {
    async fn open(stage: &Stage, run: &RunContext) -> Result<Self> {
        if stage.is_url() {
            let (store, path) = list::store(&stage.staged, &run.environment)?;
            return Ok(Self::Remote(Box::new(BufWriter::new(store, path)), stage.staged.clone()));
        }
        let path = Path::new(&stage.staged);
        let open = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            Ok(Synced { file: fs::File::create(path)?, written: 0, syncing: None })
        };
        open().map(Self::Local).map_err(|error| unwritable(&stage.target, error))
    }

    async fn put(&mut self, chunk: Vec<u8>, target: &str) -> Result<()> {
        match self {
            Self::Local(file) => file.put(&chunk).await.map_err(|error| unwritable(target, error)),
            Self::Remote(writer, name) => writer.put(chunk.into()).await.map_err(|error| list::remote_error(name, error)),
        }
    }

    async fn finish(self, target: &str) -> Result<()> {
        match self {
            Self::Local(file) => file.finish().await.map_err(|error| unwritable(target, error)),
            Self::Remote(mut writer, name) => {
                let ended = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
                ended.map_err(|error| Error::system("unwritable", format!("cannot write \"{name}\": {error}")).later())
            }
        }
    }
}

/// A file that goes to the disk while it is written, so that little is left to wait for at its end.
struct Synced {
    file: fs::File,
    /// Bytes since the disk was last asked.
    written: usize,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// The disk is asked after so many bytes.
const SYNC_BYTES: usize = 32 << 20;

impl Synced {
    async fn put(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.written += chunk.len();
        if self.written >= SYNC_BYTES && self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.synced().await?;
            let file = self.file.try_clone()?;
            self.syncing = Some(spawn_blocking(move || file.sync_data()));
            self.written = 0;
        }
        Ok(())
    }

    /// Waits for the disk.
    async fn synced(&mut self) -> io::Result<()> {
        match self.syncing.take() {
            Some(syncing) => syncing.await?,
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> io::Result<()> {
        self.synced().await?;
        spawn_blocking(move || self.file.sync_all()).await?
    }
}

/// Says why a file cannot be written.
fn unwritable(target: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::system("disk-full", format!("the disk is full: cannot write \"{target}\"")).help("free space, then run again")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::system("unwritable", format!("cannot write \"{target}\": {error}")).help("give this user the right to write there")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Error::system("unwritable", format!("cannot write \"{target}\": a file stands where a folder is needed"))
                .help("write another \"path\", or move that file away")
        }
        _ => Error::system("unwritable", format!("cannot write \"{target}\": {error}")),
    }
    .setting("path")
    .because(error)
}

impl DisplayAs for FileLoad {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "file {}", self.stage.lock().target)
    }
}

#[async_trait]
impl DataSink for FileLoad {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, mut data: SendableRecordBatchStream, _: &Arc<TaskContext>) -> DataFusionResult<u64> {
        let stage = self.stage.lock().clone();
        let mut output = Output::open(&stage, &self.run).await?;
        let memory = match self.run.runtime.memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => bytes,
            _ => usize::MAX,
        };
        let mut encoder = Encoder::new(&self.layout, &self.schema, memory)?;
        let mut bytes = 0;
        while let Some(batch) = data.next().await {
            if self.run.cancel.is_cancelled() {
                return Err(Error::system("interrupted", "writing was interrupted").into());
            }
            encoder.write(&batch?).await?;
            if encoder.ready_bytes() >= CHUNK_BYTES {
                for piece in encoder.take() {
                    bytes += piece.len() as u64;
                    output.put(piece, &stage.target).await?;
                }
            }
        }
        let (rows, pieces) = encoder.finish().await?;
        for piece in pieces {
            bytes += piece.len() as u64;
            output.put(piece, &stage.target).await?;
        }
        output.finish(&stage.target).await?;
        self.stage.lock().sealed = Some((rows, bytes));
        Ok(rows)
    }
}

#[async_trait]
impl Load for FileLoad {
    fn destination(&self) -> String {
        self.stage.lock().target.clone()
    }

    fn stage(&self) -> serde_json::Value {
        Stage { sealed: None, ..self.stage.lock().clone() }.to_json()
    }

    async fn seal(&self) -> Result<Sealed> {
        let stage = self.stage.lock().clone();
        let (rows, bytes) = stage.sealed.ok_or_else(|| Error::weir("not-written", "a file is sealed before its rows were written"))?;
        if !stage.is_url() {
            let stored = fs::metadata(&stage.staged).map_err(|error| unwritable(&stage.target, error))?.len();
            if stored != bytes {
                return Err(Error::system("unwritable", format!("\"{}\" has {stored} bytes where {bytes} were written", stage.staged)));
            }
            sync_folder(&stage.staged).map_err(|error| unwritable(&stage.target, error))?;
        }
        Ok(Sealed { rows, bytes, state: stage.to_json() })
    }

    async fn publish(&self) -> Result<Published> {
        let stage = self.stage.lock().clone();
        let Some((_, bytes)) = stage.sealed else {
            return Err(Error::weir("not-sealed", "a file load is published before it was sealed"));
        };
        let published = Published { version: stage.target.clone(), already: false };
        let lost = || {
            Error::system("stage-lost", format!("\"{}\" is gone, and \"{}\" is not what was staged", stage.staged, stage.target))
                .help("somebody removed the staged file; run again")
        };
        if stage.is_url() {
            let (store, staged, target) = self.remote(&stage)?;
            let failed = |error| list::remote_error(&stage.target, error);
            match store.copy(&staged, &target).await {
                Ok(()) => {
                    delete(&store, &staged).await.map_err(failed)?;
                    return Ok(published);
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
            return match store.head(&target).await {
                Ok(meta) if meta.size == bytes => Ok(Published { already: true, ..published }),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Err(lost()),
                Err(error) => Err(failed(error)),
            };
        }
        match fs::rename(&stage.staged, &stage.target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = fs::metadata(&stage.target).is_ok_and(|meta| meta.len() == bytes);
                return if there { Ok(Published { already: true, ..published }) } else { Err(lost()) };
            }
            Err(error) => return Err(unwritable(&stage.target, error)),
        }
        sync_folder(&stage.target).map_err(|error| unwritable(&stage.target, error))?;
        Ok(published)
    }

    async fn discard(&self) -> Result<()> {
        let stage = self.stage.lock().clone();
        if stage.is_url() {
            let (store, staged, _) = self.remote(&stage)?;
            return delete(&store, &staged).await.map_err(|error| list::remote_error(&stage.staged, error));
        }
        match fs::remove_file(&stage.staged) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(unwritable(&stage.staged, error))
            }
            _ => Ok(()),
        }
    }
}

impl FileLoad {
    fn remote(&self, stage: &Stage) -> Result<(Arc<dyn ObjectStore>, ObjectPath, ObjectPath)> {
        let (store, target) = list::store(&stage.target, &self.run.environment)?;
        let (_, staged) = list::store(&stage.staged, &self.run.environment)?;
        Ok((store, staged, target))
    }
}

async fn delete(store: &Arc<dyn ObjectStore>, path: &ObjectPath) -> object_store::Result<()> {
    match store.delete(path).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// Makes the names in a file's folder durable.
fn sync_folder(path: &str) -> io::Result<()> {
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
