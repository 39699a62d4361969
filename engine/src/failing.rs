//! Where the rows that broke an expectation are kept, whether their run published or not: one Parquet file a run, beside the state, as
//! `failing/PIPELINE/RUN.parquet`. It is renamed into place when it is whole, and holds the outcomes beside the rows.

use std::{
    fs::{self, File},
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    error::Result as DfResult,
    execution::{SendableRecordBatchStream, TaskContext},
    parquet::{
        arrow::{
            ArrowWriter,
            arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
        },
        basic::{Compression, ZstdLevel},
        errors::ParquetError,
        file::{metadata::KeyValue, properties::WriterProperties},
    },
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use weir_connectors::RunContext;

use crate::books::ExpectationOutcome;

/// Rows kept for one expectation of one run.
pub const ROWS_MAX: usize = 10_000;
/// Bytes of their text, too.
pub const ROWS_BYTES_MAX: usize = 8 << 20;
/// Runs of a pipeline whose rows are kept; the oldest goes when another comes.
pub const RUNS_MAX: usize = 20;
/// The key of the outcomes among the file's metadata.
const OUTCOMES: &str = "weir.expectations";

/// The columns of `weir.failing_rows`.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let names = ["run", "pipeline", "step", "expectation", "severity", "row"];
    Arc::new(Schema::new(names.map(text).to_vec()))
});

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("failing")
}

/// Writes what one run's expectations found. The caller holds the pipeline's lock.
pub struct Writer {
    run: String,
    pipeline: String,
    folder: PathBuf,
    writer: Option<ArrowWriter<File>>,
    outcomes: Vec<ExpectationOutcome>,
}

impl Writer {
    /// Touches nothing yet.
    pub fn new(run: &RunContext) -> Self {
        let folder = folder(&run.state_dir).join(&run.pipeline);
        Self { run: run.run.clone(), pipeline: run.pipeline.clone(), folder, writer: None, outcomes: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.parquet", self.run))
    }

    fn aside(&self) -> PathBuf {
        self.folder.join(format!(".{}.tmp", self.run))
    }

    /// Adds what one expectation that does not hold found, and its rows as JSON.
    pub fn add(&mut self, outcome: &ExpectationOutcome, rows: Vec<String>) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                fs::create_dir_all(&self.folder)?;
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
                let file = File::create(self.aside())?;
                self.writer.insert(ArrowWriter::try_new(file, SCHEMA.clone(), Some(properties)).map_err(other)?)
            }
        };
        let severity = if outcome.outcome == "failed" { "error" } else { "warn" };
        let same = |text: &str| Arc::new(StringArray::from(vec![text; rows.len()])) as ArrayRef;
        let columns = vec![
            same(&self.run),
            same(&self.pipeline),
            same(&outcome.on),
            same(&outcome.name),
            same(severity),
            Arc::new(StringArray::from_iter_values(&rows)) as ArrayRef,
        ];
        let batch = RecordBatch::try_new(SCHEMA.clone(), columns).map_err(Error::other)?;
        writer.write(&batch).map_err(other)?;
        // What is written is not held in memory until the next.
        writer.flush().map_err(other)?;
        self.outcomes.push(outcome.clone());
        Ok(())
    }

    /// Makes the file whole and lets the oldest go. Where every expectation held, an earlier try's file goes.
    pub fn finish(mut self) -> Result<()> {
        match self.writer.take() {
            None => match fs::remove_file(self.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Some(mut writer) => {
                let outcomes = serde_json::to_string(&self.outcomes).expect("outcomes are plain data");
                writer.append_key_value_metadata(KeyValue::new(OUTCOMES.to_owned(), outcomes));
                let file = writer.into_inner().map_err(other)?;
                file.sync_all()?;
                fs::rename(self.aside(), self.path())?;
                File::open(&self.folder)?.sync_all()?;
            }
        }
        self.tidy()
    }

    /// Removes what a crash left, and the files of the oldest runs: run ids sort by time.
    fn tidy(&self) -> Result<()> {
        let mut runs = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => fs::remove_file(path)?,
                Some("parquet") => runs.push(path),
                _ => {}
            }
        }
        runs.sort();
        let old = runs.len().saturating_sub(RUNS_MAX);
        runs.into_iter().take(old).try_for_each(fs::remove_file)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Whatever keeps it, the next run's tidying finds it.
            let _ = fs::remove_file(self.aside());
        }
    }
}

fn other(error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => inner.downcast::<Error>().map_or_else(Error::other, |error| *error),
        error => Error::other(error),
    }
}

/// What is kept of one run.
#[derive(Debug, Clone)]
pub struct Failing {
    /// The expectations that did not hold, and how.
    pub outcomes: Vec<ExpectationOutcome>,
    path: PathBuf,
}

impl Failing {
    /// What is kept of a run; none when every expectation held, none was made, or it is too long ago.
    pub fn of(state_dir: &Path, pipeline: &str, run: &str) -> Result<Option<Self>> {
        let path = folder(state_dir).join(pipeline).join(format!("{run}.parquet"));
        let Some(builder) = open(&path)? else { return Ok(None) };
        let pairs = builder.metadata().file_metadata().key_value_metadata().map(Vec::as_slice).unwrap_or_default();
        let text = pairs.iter().find(|pair| pair.key == OUTCOMES).and_then(|pair| pair.value.as_deref());
        let outcomes = text.map(serde_json::from_str).transpose()?.unwrap_or_default();
        Ok(Some(Self { outcomes, path }))
    }

    /// Its rows, in the columns of [`SCHEMA`].
    pub fn rows(&self) -> SendableRecordBatchStream {
        stream(vec![self.path.clone()])
    }
}

fn open(path: &Path) -> Result<Option<ParquetRecordBatchReaderBuilder<File>>> {
    match File::open(path) {
        Ok(file) => ParquetRecordBatchReaderBuilder::try_new(file).map(Some).map_err(other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All files, read one after another; one that goes meanwhile is passed over.
#[derive(Debug)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// The files that are there now.
    pub fn list(state_dir: &Path) -> Result<Self> {
        let mut found = Vec::new();
        let folders = match fs::read_dir(folder(state_dir)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self(found)),
            folders => folders?,
        };
        for folder in folders {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "parquet") {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(Self(found))
    }
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        stream(self.0.clone())
    }
}

fn stream(files: Vec<PathBuf>) -> SendableRecordBatchStream {
    let read = |path: &Path| -> DfResult<Option<ParquetRecordBatchReader>> {
        let Some(builder) = open(path)? else { return Ok(None) };
        Ok(Some(builder.build()?))
    };
    let batches = files.into_iter().flat_map(move |path| -> Box<dyn Iterator<Item = DfResult<RecordBatch>> + Send> {
        match read(&path) {
            Ok(reader) => Box::new(reader.into_iter().flatten().map(|batch| Ok(batch?.with_schema(SCHEMA.clone())?))),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(SCHEMA.clone(), futures::stream::iter(batches)))
}

#[cfg(test)]
#[path = "failing_tests.rs"]
mod tests;
