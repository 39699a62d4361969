//! Opening a file source: which files are to be read, and what columns they have together. Reading rows is `scan.rs`'s.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, mpsc},
};

use arrow::{
    array::{ArrayRef, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
};
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use weir_pipelines::Incremental;

use super::{
    Compression, Decimal, FileSource, Format, Metadata,
    block::{BlockFormat, Guess, Inference},
    blocks::{Blocks, Cutting, Document},
    buffer::Buffer,
    bytes::Opening,
    columnar,
    csv::CsvFormat,
    list::{self, FoundFile},
    ndjson::NdjsonFormat,
    scan::{COORDINATES, Content, FileTable, Files, Origin, Part, header_too_long, name_file},
};
use crate::{
    Asked, ColumnsBy, DataColumns, Extent, Opened,
    context::{Advance, Coordinates, Purpose, ReadCount, SourceContext},
    error::{Error, Result},
    extent::{Files as FilesExtent, Rows},
    known::Unread,
};

/// What is read of a text file to learn its header, and to plan.
const SAMPLE_BYTES: usize = 64 << 10;
/// What is read at once to learn types.
const BLOCK_BYTES: usize = 1 << 20;
/// What is read of each file to guess types: a file of no more is read to its end.
const GUESS_BYTES: usize = 4 << 20;
/// Planning looks into no more files than this.
const PLAN_FILES: usize = 256;
/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 8;

/// The files that were read this time, once the run has published.
#[derive(Debug)]
struct FilesRead(BTreeMap<String, String>);

impl Advance for FilesRead {
    fn entries(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }
}

/// Lists files, learns their columns, and returns them as a table.
pub async fn open(settings: &FileSource, cx: &SourceContext) -> Result<Opened> {
    if let Some(error) = cx.incremental.as_ref().and_then(unsupported) {
        return Err(error);
    }
    let incremental = cx.incremental.is_some();
    let remembered = cx.known.clone().filter(|_| incremental);
    let within = settings.within.as_deref();
    let listed = match list::list_within(settings.path.all(), &cx.folder, settings.hive, &cx.run.environment, within).await {
        // All files may have been cleared away since: nothing is new, and the columns are known.
        Err(error) if remembered.is_some() && matches!(error.code, "glob-empty" | "folder-empty") => Vec::new(),
        listed => listed?,
    };
    let format = match listed.is_empty() {
        true => settings.format.unwrap_or(Format::Csv),
        false => format_of(settings, &listed)?,
    };
    let is_new = |file: &FoundFile| !incremental || cx.seen.get(&file.name) != Some(&file.version);
    let found = listed.len();
    let new: Vec<Arc<FoundFile>> = listed.iter().filter(|file| is_new(file)).map(|file| Arc::new(file.clone())).collect();
    let remembered = remembered.filter(|_| new.is_empty());
    // Without a memory of the columns, files read before still tell them.
    let learn_from: Vec<Arc<FoundFile>> = match new.is_empty() && remembered.is_none() {
        true => listed.into_iter().map(Arc::new).collect(),
        false => new.clone(),
    };
    let opening = Opening {
        compression: if format == Format::Parquet { Some(Compression::None) } else { settings.compression },
        encoding: format.is_text().then_some(settings.encoding),
        // Text may have grown since: it is read as it is by then, unless it will be remembered as read.
        as_listed: incremental || !format.is_text(),
        read: None,
        handle: Handle::current(),
        cancel: cx.run.cancel.clone(),
    };
    let cutting = format.is_text().then(|| cutting(settings, format, cx));
    let learnt = match &cutting {
        // Whoever tells the shape has seen all columns.
        Some(_) if cx.shape.is_some() => Learnt::default(),
        Some(cutting) => {
            let learner = Learner {
                cutting: cutting.clone(),
                header: header_of(settings, format),
                fixed_columns: matches!(format, Format::Csv | Format::Tsv),
                threads: cx.run.partitions,
                opening: opening.clone(),
                infer_rows: settings.infer_rows.unwrap_or(u64::MAX),
                declared: cx.told().cloned(),
                sample: cx.purpose == Purpose::Plan,
                guess: cx.purpose == Purpose::Try,
            };
            let files = learn_from.clone();
            let learnt = tokio::task::spawn_blocking(move || learner.learn(&files)).await;
            learnt.map_err(|error| Error::weir("panic", "learning columns panicked").because(error))??
        }
        None => learn_binary(format, &learn_from, &opening, cx.purpose).await?,
    };
    let read_now = if new.is_empty() { &[] } else { learn_from.as_slice() };
    let extent = Extent {
        files: Some(FilesExtent::of(new.iter().map(|file| (file.name.as_str(), file.size_bytes)), (found - new.len()) as u64)),
        rows: rows_of(read_now, &learnt.contents).map(Rows::Exact),
        cursor: None,
    };
    let absent = absent(cx, &learn_from, &learnt.columns);
    let table = Table::new(settings, cx, &learn_from, learnt.columns, remembered.as_ref())?;
    let columns = DataColumns {
        by: if remembered.is_some() { ColumnsBy::Memory } else { learnt.by },
        absent,
        untyped: learnt.untyped,
        guessed: learnt.guess.is_some(),
        first_in: learnt.first_in,
        // Whoever tells the shape knows the columns already, and nobody looked for them.
        own: (settings.asked().is_some() && cx.shape.is_none()).then(|| table.own.clone()),
    };
    let mut parts = Vec::with_capacity(read_now.len());
    let mut contents = learnt.contents.into_iter();
    for file in read_now {
        let content = contents.next().unwrap_or(Content::Text);
        parts.push(Arc::new(Part { file: file.clone(), content, partitions: table.partition_values(file)? }));
    }
    let advance = incremental.then(|| {
        let entries = new.iter().map(|file| (file.name.clone(), file.version.clone())).collect();
        Arc::new(FilesRead(entries)) as Arc<dyn Advance>
    });
    let read = Arc::new(ReadCount::default());
    let files = Files {
        schema: table.schema,
        origins: table.origins,
        parts,
        cutting,
        guess: learnt.guess,
        header: header_of(settings, format),
        opening: Opening { read: Some(read.clone()), ..opening },
        cx: cx.clone(),
        read: read.clone(),
    };
    Ok(Opened { table: Arc::new(FileTable(Arc::new(files))), advance, read, columns, extent })
}

/// The rows of all files, where their footers say so.
fn rows_of(files: &[Arc<FoundFile>], contents: &[Content]) -> Option<u64> {
    if files.is_empty() || contents.len() != files.len() {
        return None;
    }
    let rows = contents.iter().map(|content| match content {
        Content::Parquet(_, rows) => *rows,
        _ => None,
    });
    rows.sum()
}

/// The same of columns that are known, without a look at the files.
pub fn recall(settings: &FileSource, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
    if let Some(error) = cx.incremental.as_ref().and_then(unsupported) {
        return Err(error);
    }
    let table = Table::new(settings, cx, &[], IndexMap::new(), Some(own))?;
    let columns = DataColumns { by: ColumnsBy::Sample, own: Some(own.clone()), ..DataColumns::default() };
    Ok(Opened { table: Arc::new(Unread(table.schema)), advance: None, read: Arc::default(), columns, extent: Extent::default() })
}

impl FileSource {
    /// The files that are not on this machine.
    pub(super) fn asked(&self) -> Option<Asked> {
        let mut remote = self.path.all().iter().filter(|path| path.contains("://") && !path.starts_with("file://"));
        let first = remote.next()?;
        let more = remote.count();
        let what = if more == 0 { format!("\"{first}\"") } else { format!("\"{first}\" and {more} more") };
        Some(Asked { what, setting: "path" })
    }
}

/// What is wrong with a way of reading what is new that files do not have.
fn unsupported(incremental: &Incremental) -> Option<Error> {
    let (message, help) = match incremental {
        Incremental::Files => return None,
        Incremental::Cursor { .. } => ("a file source has no cursor", "write incremental = { files = \"new\" }"),
        Incremental::Interval { .. } => (
            "a file source cannot read the rows of an interval alone",
            "take it out, and filter in a transform: filter = \"at >= $interval_start and at < $interval_end\"",
        ),
    };
    Some(Error::user("incremental-unsupported", message).setting("incremental").help(help))
}

/// The columns asked for that neither the files nor their folders have.
fn absent(cx: &SourceContext, files: &[Arc<FoundFile>], learnt: &IndexMap<String, Field>) -> Vec<String> {
    let in_folders = |name: &str| files.iter().any(|file| file.partitions.iter().any(|(key, _)| key == name));
    let names = cx.told().into_iter().flat_map(|told| told.fields()).map(|field| field.name());
    names.filter(|name| !files.is_empty() && !learnt.contains_key(*name) && !in_folders(name)).cloned().collect()
}

fn header_of(settings: &FileSource, format: Format) -> bool {
    matches!(format, Format::Csv | Format::Tsv) && settings.csv.header
}

/// How text of this format is cut and decoded.
fn cutting(settings: &FileSource, format: Format, cx: &SourceContext) -> Cutting {
    let lines = cx.coordinates || settings.metadata.contains(&Metadata::Row);
    let record_max_bytes = settings.record_max.0;
    let block_format: Arc<dyn BlockFormat> = match format {
        Format::Ndjson | Format::Json => Arc::new(NdjsonFormat { record_max_bytes, lines }),
        _ => {
            let csv = &settings.csv;
            let delimiter = csv.delimiter.map_or(if format == Format::Tsv { b'\t' } else { b',' }, |character| character.0);
            Arc::new(CsvFormat {
                delimiter,
                quote: csv.quote.map(|character| character.0),
                header: csv.header,
                names: cx.declared.iter().flat_map(|declared| declared.fields()).map(|field| field.name().clone()).collect(),
                null: csv.null.clone(),
                decimal_comma: csv.decimal == Decimal::Comma,
                comment: csv.comment.map(|character| character.0),
                record_max_bytes,
                lines,
            })
        }
    };
    let document = (format == Format::Json).then(|| Document { records: settings.json.records.clone() });
    Cutting { format: block_format, document, record_max_bytes }
}

/// The one format of all files.
fn format_of(settings: &FileSource, files: &[FoundFile]) -> Result<Format> {
    if let Some(format) = settings.format {
        return Ok(format);
    }
    let mut first: Option<(Format, &str)> = None;
    for file in files {
        let Some(format) = Format::of_name(&file.name) else {
            return Err(Error::user("format-unknown", format!("the name of \"{}\" does not say its format", file.name))
                .setting("path")
                .help("set \"format\": csv, tsv, ndjson, json, parquet, arrow or avro"));
        };
        match first {
            Some((other, name)) if other != format => {
                return Err(Error::user(
                    "format-mixed",
                    format!("\"{name}\" is {} and \"{}\" is {}", other.as_str(), file.name, format.as_str()),
                )
                .setting("path")
                .help("read each format by a source of its own, or set \"format\""));
            }
            _ => first = first.or(Some((format, &file.name))),
        }
    }
    Ok(first.map_or(Format::Csv, |(format, _)| format))
}

/// What the files say about their columns, and what is in each of them, in order; nothing where they are text.
#[derive(Default)]
struct Learnt {
    columns: IndexMap<String, Field>,
    contents: Vec<Content>,
    by: ColumnsBy,
    untyped: Vec<String>,
    first_in: HashMap<String, String>,
    /// The types of the columns that nobody told, where they were guessed.
    guess: Option<Guess>,
}

async fn learn_binary(format: Format, files: &[Arc<FoundFile>], opening: &Opening, purpose: Purpose) -> Result<Learnt> {
    let looked_at = if purpose == Purpose::Plan { files.len().min(PLAN_FILES) } else { files.len() };
    let contents: Vec<Content> = futures::stream::iter(files[..looked_at].to_vec())
        .map(|file| async move {
            if format == Format::Parquet {
                let footer = columnar::parquet_footer(&file).await?;
                return Ok(Content::Parquet(footer.schema().clone(), u64::try_from(footer.metadata().file_metadata().num_rows()).ok()));
            }
            let opening = opening.clone();
            let learnt = tokio::task::spawn_blocking(move || match format {
                Format::Avro => columnar::avro_schema(&file, &opening).map(Content::Avro),
                _ => columnar::arrow_schema(&file, &opening).map(Content::Arrow),
            });
            learnt.await.map_err(|error| Error::weir("panic", "learning columns panicked").because(error))?
        })
        .buffered(FOOTERS_AT_ONCE)
        .try_collect()
        .await?;
    let mut columns: IndexMap<String, Field> = IndexMap::new();
    let (mut first_in, mut typed) = (HashMap::new(), HashSet::new());
    for (content, file) in contents.iter().zip(files) {
        let schema = match content {
            Content::Parquet(schema, _) | Content::Arrow(schema) | Content::Avro(schema) => schema,
            Content::Text => continue,
        };
        for field in schema.fields() {
            if !field.data_type().is_null() {
                typed.insert(field.name().clone());
            }
            let mut field = nullable(field).with_metadata(extension(field));
            // More than its type in one file and not in another is no more than its type.
            if let Some(known) = columns.get_mut(field.name())
                && known.metadata() != field.metadata()
            {
                known.set_metadata(HashMap::new());
                field.set_metadata(HashMap::new());
            }
            if !columns.contains_key(field.name()) {
                first_in.insert(field.name().clone(), file.name.clone());
            }
            add_column(&mut columns, field);
        }
    }
    let by = if looked_at == files.len() { ColumnsBy::Source } else { ColumnsBy::Sample };
    let untyped = columns.keys().filter(|name| !typed.contains(*name)).cloned().collect();
    Ok(Learnt { columns, contents, by, untyped, first_in, guess: None })
}

/// Learns the columns of text files.
struct Learner {
    cutting: Cutting,
    header: bool,
    /// The first records say which columns there are.
    fixed_columns: bool,
    threads: usize,
    opening: Opening,
    infer_rows: u64,
    declared: Option<SchemaRef>,
    sample: bool,
    /// Whether types may be guessed.
    guess: bool,
}

impl Learner {
    fn learn(&self, files: &[Arc<FoundFile>]) -> Result<Learnt> {
        let mut state = Inference::default();
        let looked_at = if self.sample { files.len().min(PLAN_FILES) } else { files.len() };
        let mut first_in = HashMap::new();
        let (mut whole, mut guessed) = (looked_at == files.len(), false);
        for file in &files[..looked_at] {
            let known = state.columns.len();
            whole &= self.learn_file(file, &mut state, &mut guessed).map_err(|error| name_file(error, file))?;
            first_in.extend(state.columns.keys().skip(known).map(|column| (column.clone(), file.name.clone())));
        }
        if state.columns.is_empty() && self.declared.is_none() && !files.is_empty() {
            let message = match files {
                [file] => format!("\"{}\" is empty: it has no columns", file.name),
                _ => format!("all {} files are empty: they have no columns", files.len()),
            };
            return Err(Error::user("no-columns", message)
                .setting("path")
                .help("declare the columns in a contract, or give a file with records"));
        }
        let columns = state.fields().iter().map(|field| (field.name().clone(), nullable(field))).collect();
        let by = match whole {
            true if self.fixed_columns => ColumnsBy::Source,
            true => ColumnsBy::Records,
            false => ColumnsBy::Sample,
        };
        let untyped = state.columns.iter().filter(|(name, kind)| kind.is_none() && !state.json.contains(*name));
        let untyped = untyped.map(|(name, _)| name.clone()).collect();
        let is_told = |name: &str| self.declared.as_ref().is_some_and(|declared| declared.index_of(name).is_ok());
        let guess = guessed
            .then(|| state.columns.iter().filter(|(name, _)| !is_told(name)).map(|(name, kind)| (name.clone(), kind.clone())).collect());
        Ok(Learnt { columns, contents: Vec::new(), by, untyped, first_in, guess })
    }

    /// True when it is sure that the file has no other columns. Notes where types were guessed.
    fn learn_file(&self, file: &FoundFile, state: &mut Inference, guessed: &mut bool) -> Result<bool> {
        let mut blocks = Blocks::open(file, &self.opening, &self.cutting, SAMPLE_BYTES, None)?;
        let mut first = true;
        while let Some(block) = blocks.next_block()? {
            if !block.bytes.is_empty() {
                self.cutting.format.infer(first, self.stated(&block.bytes, first, state.records), state)?;
                first = false;
            } else if first && self.header {
                return Err(header_too_long(file, &block.bad));
            }
            // A header names every column of its file, so types are all that more records could tell.
            let declared = self.header
                && self.declared.as_ref().is_some_and(|declared| state.columns.keys().all(|name| declared.index_of(name).is_ok()));
            if self.sample || declared || state.records >= self.infer_rows {
                let rest = self.sample && state.records < self.infer_rows && !self.fixed_columns;
                return Ok(self.fixed_columns || rest && blocks.next_block()?.is_none());
            }
            blocks.set_block_bytes(BLOCK_BYTES);
            if self.infer_rows == u64::MAX && (!self.fixed_columns || !state.current.is_empty()) {
                match self.guess && self.fixed_columns {
                    true => *guessed |= self.learn_more(blocks, state)?,
                    false => self.learn_rest(blocks, state)?,
                }
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// As much of a block as the stated sample still wants: a line a record, and one more for a header.
    fn stated<'b>(&self, block: &'b [u8], first: bool, records: u64) -> &'b [u8] {
        let lines = self.infer_rows.saturating_sub(records).saturating_add(u64::from(first && self.header));
        let Some(last) = usize::try_from(lines - lines.min(1)).ok().and_then(|nth| memchr::memchr_iter(b'\n', block).nth(nth)) else {
            return block;
        };
        let sample = &block[..=last];
        match self.cutting.format.whole_records(sample, false) {
            // A record of many lines: all of the block serves as well.
            0 => block,
            whole => &sample[..whole],
        }
    }

    /// Learns from as much of a file as guesses are made of, and says whether there is more.
    fn learn_more(&self, mut blocks: Blocks, state: &mut Inference) -> Result<bool> {
        let mut bytes = 0;
        while let Some(block) = blocks.next_block()? {
            if bytes >= GUESS_BYTES {
                return Ok(true);
            }
            bytes += block.bytes.len();
            self.cutting.format.infer(false, &block.bytes, state)?;
        }
        Ok(false)
    }

    /// Learns from the rest of a file on several threads: each block by itself, put together in their order, which is that of the columns, too.
    fn learn_rest(&self, mut blocks: Blocks, state: &mut Inference) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let start = Inference { records: 0, ..state.clone() };
        let merged = Mutex::new(Merged { next: 0, waiting: BTreeMap::new(), all: Ok(state) });
        let work = |receiver: Arc<Mutex<mpsc::Receiver<(usize, Buffer)>>>| {
            loop {
                // One waits with the lock held, the others for the lock: which of them gets the next block is all the same.
                let next = receiver.lock().recv();
                let Ok((at, bytes)) = next else { return };
                let mut own = start.clone();
                let learnt = self.cutting.format.infer(false, &bytes, &mut own).map(|()| own);
                merged.lock().add(at, learnt, &*self.cutting.format);
            }
        };
        let read = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.max(1))
                .map(|_| {
                    let (work, receiver) = (&work, receiver.clone());
                    scope.spawn(move || work(receiver))
                })
                .collect();
            drop(receiver);
            let mut read = Ok(());
            let mut at = 0;
            loop {
                match blocks.next_block() {
                    Ok(Some(block)) if block.bytes.is_empty() => {}
                    Ok(Some(block)) => {
                        // All workers gone: what stopped them is told below.
                        if sender.send((at, block.bytes)).is_err() {
                            break;
                        }
                        at += 1;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        read = Err(error);
                        break;
                    }
                }
            }
            drop(sender);
            let ended = workers.into_iter().map(|worker| worker.join());
            match ended.collect::<Vec<_>>().iter().any(std::result::Result::is_err) {
                true => Err(Error::weir("panic", "learning columns panicked")),
                false => read,
            }
        });
        read.and(merged.into_inner().all.map(drop))
    }
}

/// What blocks that are learnt from side by side say, in their order.
struct Merged<'a> {
    next: usize,
    /// Those before whom another is still looked at.
    waiting: BTreeMap<usize, Result<Inference>>,
    /// All so far, or the first fault.
    all: Result<&'a mut Inference>,
}

impl Merged<'_> {
    fn add(&mut self, at: usize, learnt: Result<Inference>, format: &dyn BlockFormat) {
        self.waiting.insert(at, learnt);
        while let Some(learnt) = self.waiting.remove(&self.next) {
            self.next += 1;
            match (&mut self.all, learnt) {
                (Ok(all), Ok(learnt)) => format.merge(learnt, all),
                (Ok(_), Err(error)) => self.all = Err(error),
                (Err(_), _) => {}
            }
        }
    }
}

/// The columns of the table.
struct Table {
    schema: SchemaRef,
    /// The columns of the files and their folders, whatever the step is told to have.
    own: SchemaRef,
    origins: Vec<Origin>,
    /// Columns that folders give.
    partitions: Vec<FieldRef>,
}

impl Table {
    fn new(
        settings: &FileSource,
        cx: &SourceContext,
        files: &[Arc<FoundFile>],
        learnt: IndexMap<String, Field>,
        remembered: Option<&SchemaRef>,
    ) -> Result<Self> {
        let folders = partition_types(files);
        let mut undeclared: IndexMap<String, Field> = IndexMap::new();
        let before = remembered.into_iter().flat_map(|schema| schema.fields()).map(|field| field.as_ref().clone());
        let inside = learnt.into_values().filter(|field| !folders.contains_key(field.name()));
        for field in before.chain(inside).chain(folders.iter().map(|(name, kind)| Field::new(name, kind.clone(), true))) {
            add_column(&mut undeclared, field);
        }
        let mut metadata: Vec<(&str, Origin, DataType)> = Vec::new();
        for wanted in &settings.metadata {
            let column = match wanted {
                Metadata::File => (Coordinates::FILE, Origin::File, DataType::Utf8),
                Metadata::Row => (Coordinates::ROW, Origin::Row, DataType::UInt64),
            };
            if !metadata.contains(&column) {
                metadata.push(column);
            }
        }
        if let Some((name, ..)) = metadata.iter().find(|(name, ..)| undeclared.contains_key(*name)) {
            return Err(Error::user("column-clash", format!("the files have a column \"{name}\" of their own"))
                .setting("metadata")
                .help("leave it out of \"metadata\", or give the files' column another name"));
        }
        let own = Arc::new(Schema::new(undeclared.values().cloned().collect::<Vec<_>>()));
        let mut partitions: Vec<FieldRef> = Vec::new();
        let mut columns: Vec<(FieldRef, Origin)> = Vec::new();
        let mut add = |field: Field| {
            let origin = match metadata.iter().find(|(name, ..)| name == field.name()) {
                Some((_, origin, _)) => *origin,
                None if folders.contains_key(field.name()) => {
                    partitions.push(Arc::new(field.clone()));
                    Origin::Partition(partitions.len() - 1)
                }
                None => Origin::Data,
            };
            columns.push((Arc::new(field), origin));
        };
        let is_declared = |name: &str| cx.told().is_some_and(|told| told.index_of(name).is_ok());
        for field in cx.told().into_iter().flat_map(|told| told.fields()) {
            add(nullable(field));
        }
        undeclared.retain(|name, _| !is_declared(name));
        for field in undeclared.values() {
            add(field.clone());
        }
        for (name, _, kind) in metadata.iter().filter(|(name, ..)| !is_declared(name)) {
            add(Field::new(*name, kind.clone(), false));
        }
        if cx.coordinates {
            columns.extend(Coordinates::fields().into_iter().zip(COORDINATES).map(|(field, (_, origin))| (field, origin)));
        }
        let (fields, origins): (Vec<FieldRef>, Vec<Origin>) = columns.into_iter().unzip();
        Ok(Self { schema: Arc::new(Schema::new(fields)), own, origins, partitions })
    }

    /// What a file's folders say, as the columns' types.
    fn partition_values(&self, file: &FoundFile) -> Result<Vec<ScalarValue>> {
        let value = |field: &FieldRef| {
            let text = file.partitions.iter().find(|(key, _)| key == field.name()).and_then(|(_, value)| value.clone());
            let array: ArrayRef = Arc::new(StringArray::from(vec![text.clone()]));
            let options = CastOptions { safe: true, ..CastOptions::default() };
            let value =
                cast_with_options(&array, field.data_type(), &options).ok().and_then(|value| ScalarValue::try_from_array(&value, 0).ok());
            match (value, text) {
                (Some(value), Some(text)) if value.is_null() => Err((Some(value), text)),
                (Some(value), _) => Ok(value),
                (None, text) => Err((None, text.unwrap_or_default())),
            }
            .map_err(|(_, text)| {
                Error::user("wrong-type", format!("\"{}\" in \"{}\" is not {}", text, file.name, field.data_type()))
                    .setting("path")
                    .help(format!("declare \"{}\" as text, or set hive = false", field.name()))
            })
        };
        self.partitions.iter().map(value).collect()
    }
}

/// Columns that folders give, each with the narrowest type that holds all its values and gives them back as written.
fn partition_types(files: &[Arc<FoundFile>]) -> IndexMap<String, DataType> {
    let mut types: IndexMap<String, Option<DataType>> = IndexMap::new();
    for (key, value) in files.iter().flat_map(|file| &file.partitions) {
        let kind = value.as_deref().map(|text| {
            if text.parse::<i64>().is_ok_and(|number| number.to_string() == text) {
                DataType::Int64
            } else if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok_and(|date| date.to_string() == text) {
                DataType::Date32
            } else {
                DataType::Utf8
            }
        });
        let known = types.entry(key.clone()).or_default();
        *known = match (known.take(), kind) {
            (Some(a), Some(b)) if a != b => Some(DataType::Utf8),
            (a, b) => a.or(b),
        };
    }
    types.into_iter().map(|(name, kind)| (name, kind.unwrap_or(DataType::Utf8))).collect()
}

/// Adds a column, or widens the one of its name.
fn add_column(columns: &mut IndexMap<String, Field>, field: Field) {
    match columns.get_mut(field.name()) {
        Some(known) => *known = columnar::widen_field(known, &field),
        None => _ = columns.insert(field.name().clone(), field),
    }
}

/// What says that a column is more than its Arrow type: JSON, a UUID. Whatever else a file says about a column is its own business.
fn extension(field: &Field) -> HashMap<String, String> {
    field
        .metadata()
        .iter()
        .filter(|(key, _)| key.starts_with("ARROW:extension:"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The same field where every level may be null: what a contract requires is the contract's to check.
fn nullable(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| Arc::new(nullable(field))).collect()),
        DataType::List(item) => DataType::List(Arc::new(nullable(item))),
        DataType::LargeList(item) => DataType::LargeList(Arc::new(nullable(item))),
        // What was always null may be anything yet.
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    };
    field.clone().with_data_type(kind).with_nullable(true)
}

#[cfg(test)]
pub(super) mod tests;
