//! One writer's Parquet files: where their bytes go, when a row group and a file end, what the log will say of them.
//! Which rows go to which writer is `stage.rs`.

use std::{collections::HashMap, fs::File, io::Write, iter, sync::Arc, sync::atomic::Ordering};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, Float64Type},
};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use deltalake::kernel::Add;
use object_store::{ObjectStoreExt, WriteMultipart};
use parking_lot::Mutex;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

use super::{
    stage::{Message, Stage},
    stats,
    table::{Place, disk_error},
};
use crate::{
    error::{Error, Result, io_error},
    repeats::Repeats,
};

/// Files that one writer holds open; with more partitions than this the fullest is closed early.
const OPEN_MAX: usize = 64;
/// A page of values before it is compressed. A reader holds whole pages of text for as long as one row of them is on its way, and a writer one of each
/// column.
const PAGE_BYTES: usize = 256 << 10;
/// Parts of one upload on their way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// Where a file's bytes go.
#[derive(Clone)]
enum Output {
    Disk(Arc<File>),
    Store(Arc<Mutex<Option<WriteMultipart>>>, Handle),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Output::Disk(file) => (&**file).write(bytes),
            Output::Store(upload, handle) => {
                let mut upload = upload.lock();
                let upload = upload.as_mut().ok_or_else(|| std::io::Error::other("the upload has ended"))?;
                handle.block_on(upload.wait_for_capacity(PARTS_IN_FLIGHT)).map_err(std::io::Error::other)?;
                let _entered = handle.enter();
                upload.write(bytes);
                Ok(bytes.len())
            }
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Opens a new file of the table.
fn create(place: &Place, path: &str) -> Result<Output> {
    let Some(root) = &place.local else {
        let location = place.path(path);
        let handle = Handle::current();
        let upload = handle
            .block_on(place.store.put_multipart(&location))
            .map_err(|error| Error::system("lake-store", format!("cannot write \"{location}\": {error}")).later())?;
        let upload = WriteMultipart::new_with_chunk_size(upload, 8 << 20);
        return Ok(Output::Store(Arc::new(Mutex::new(Some(upload))), handle));
    };
    let full = root.join(path);
    let failed = |error: std::io::Error| disk_error(&format!("cannot write \"{}\"", full.display()), &error).because(error);
    if let Some(folder) = full.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::options().write(true).create_new(true).open(&full).map_err(failed)?;
    Ok(Output::Disk(Arc::new(file)))
}

struct OpenFile {
    path: String,
    values: Vec<Option<String>>,
    output: Output,
    writer: ArrowWriter<Output>,
    nan: Vec<bool>,
}

/// The files one writer has open and has closed.
pub(super) struct Files<'a> {
    stage: &'a Stage,
    open: HashMap<Vec<Option<String>>, OpenFile>,
    closed: Vec<(String, Add)>,
    syncing: Vec<(String, JoinHandle<std::io::Result<()>>)>,
    reserved: MemoryReservation,
}

impl<'a> Files<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        let reserved = MemoryConsumer::new("lake sink").register(&stage.runtime.memory_pool);
        Self { stage, open: HashMap::new(), closed: Vec::new(), syncing: Vec::new(), reserved }
    }

    pub(super) fn take(&mut self, receiver: &mut mpsc::Receiver<Message>) -> Result<()> {
        while let Some(message) = receiver.blocking_recv() {
            if self.stage.abandoned.load(Ordering::Relaxed) {
                return Ok(());
            }
            match message {
                Message::Rows(batch) => {
                    let columns = self.stage.columns(&batch)?;
                    let inner = self.stage.inner(&columns)?;
                    self.write(Vec::new(), &inner)?;
                }
                Message::Part(values, batch) => self.write(values, &batch)?,
            }
            self.bound()?;
        }
        Ok(())
    }

    fn write(&mut self, values: Vec<Option<String>>, batch: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(&values) {
            let file = self.open(values.clone(), batch)?;
            self.open.insert(values.clone(), file);
        }
        let file = self.open.get_mut(&values).expect("put there just now");
        for (nan, column) in file.nan.iter_mut().zip(batch.columns()) {
            *nan = *nan || holds_nan(column);
        }
        let failed = |path: &str, error| write_failed(&self.stage.spec.place, path, error);
        file.writer.write(batch).map_err(|error| failed(&file.path, error))?;
        if file.writer.in_progress_size() >= self.stage.row_group_bytes {
            file.writer.flush().map_err(|error| failed(&file.path, error))?;
        }
        let bytes = file.writer.bytes_written() + file.writer.in_progress_size();
        if bytes as u64 >= self.stage.spec.file_bytes
            && let Some(file) = self.open.remove(&values)
        {
            self.close(file)?;
        }
        Ok(())
    }

    /// Starts a file, the first of whose rows these are.
    fn open(&self, values: Vec<Option<String>>, first: &RecordBatch) -> Result<OpenFile> {
        let stage = self.stage;
        let path = stage.new_path(&values);
        let output = create(&stage.spec.place, &path)?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_data_page_size_limit(PAGE_BYTES)
            .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned());
        for (field, column) in stage.layout.fields().iter().zip(first.columns()) {
            if !Repeats::of(iter::once(column)).may_pay() {
                properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![field.name().clone()]), false);
            }
        }
        // Without Arrow's own schema in the footer every reader goes by Parquet's types, as Delta's do.
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(output.clone(), stage.layout.clone(), options)
            .map_err(|error| write_failed(&stage.spec.place, &path, error))?;
        Ok(OpenFile { path, values, output, writer, nan: vec![false; stage.layout.fields().len()] })
    }

    /// Keeps memory within bounds: writes out what is buffered, the fullest file first.
    fn bound(&mut self) -> Result<()> {
        while self.open.len() > OPEN_MAX {
            let fullest = self.fullest();
            if let Some(file) = fullest.and_then(|values| self.open.remove(&values)) {
                self.close(file)?;
            }
        }
        let limit = self.stage.row_group_bytes * 4;
        loop {
            let held: usize = self.open.values().map(|file| file.writer.memory_size()).sum();
            if held <= limit && self.reserved.try_resize(held).is_ok() {
                return Ok(());
            }
            let Some(values) = self.fullest().filter(|values| self.open[values].writer.in_progress_rows() > 0) else {
                // Nothing is left to write out: what remains is the writers' own footing, which they cannot do without.
                self.reserved.resize(held);
                return Ok(());
            };
            let file = self.open.get_mut(&values).expect("found there just now");
            file.writer.flush().map_err(|error| write_failed(&self.stage.spec.place, &file.path, error))?;
        }
    }

    fn fullest(&self) -> Option<Vec<Option<String>>> {
        self.open
            .values()
            .max_by_key(|file| (file.writer.in_progress_rows() > 0, file.writer.memory_size()))
            .map(|file| file.values.clone())
    }

    fn close(&mut self, mut file: OpenFile) -> Result<()> {
        let place = &self.stage.spec.place;
        let metadata = file.writer.finish().map_err(|error| write_failed(place, &file.path, error))?;
        let size = file.writer.bytes_written() as u64;
        match &file.output {
            // The disk takes its time; the next file is written meanwhile.
            Output::Disk(disk) => {
                let disk = disk.clone();
                self.syncing.push((file.path.clone(), Handle::current().spawn_blocking(move || disk.sync_all())));
            }
            Output::Store(upload, handle) => {
                let upload = upload.lock().take();
                if let Some(upload) = upload {
                    handle
                        .block_on(upload.finish())
                        .map_err(|error| Error::system("lake-store", format!("cannot write \"{}\": {error}", file.path)).later())?;
                }
            }
        }
        let partitions = self.stage.outside.iter().map(|(name, _)| name.clone()).zip(file.values).collect();
        let add = stats::add(file.path.clone(), size, partitions, &metadata, &self.stage.schema, &file.nan);
        self.closed.push((file.path, add));
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<Add>> {
        for (_, file) in std::mem::take(&mut self.open) {
            self.close(file)?;
        }
        let place = &self.stage.spec.place;
        for (path, syncing) in std::mem::take(&mut self.syncing) {
            let synced = Handle::current().block_on(syncing).map_err(std::io::Error::other).and_then(|synced| synced);
            synced.map_err(|error| disk_error(&format!("cannot write \"{}/{path}\"", place.shown()), &error).because(error))?;
        }
        Ok(self.closed.into_iter().map(|(_, add)| add).collect())
    }

    /// Stops where it is. What was written is deleted by whoever discards; an upload is ended here.
    pub(super) fn abandon(self) {
        for file in self.open.into_values() {
            if let Output::Store(upload, handle) = &file.output
                && let Some(upload) = upload.lock().take()
            {
                let _ = handle.block_on(upload.abort());
            }
        }
    }
}

fn holds_nan(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().any(|value| value.is_nan()),
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().any(|value| value.is_nan()),
        _ => false,
    }
}

fn write_failed(place: &Place, path: &str, error: ParquetError) -> Error {
    let message = format!(
        "cannot write \"{}\"",
        place.local.as_ref().map_or_else(|| place.path(path).to_string(), |root| root.join(path).display().to_string())
    );
    match io_error(&error) {
        Some(io) => disk_error(&message, io).because(error),
        None => Error::system("lake-write", format!("{message}: {error}")).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_found_in_either_width() {
        let nan: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![1.0, f32::NAN]));
        assert!(holds_nan(&nan));
        let none: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![Some(f64::INFINITY), None]));
        assert!(!holds_nan(&none));
    }
}
