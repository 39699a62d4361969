//! How batches become the bytes of a file: Parquet, CSV, NDJSON, Arrow IPC, packed where asked. Where the bytes go is `sink.rs`'s.

use std::{
    io::{self, Write},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    csv::{Writer as CsvWriter, WriterBuilder},
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::{
        CompressionType,
        writer::{FileWriter, IpcWriteOptions},
    },
    json::{LineDelimitedWriter, WriterBuilder as JsonBuilder, writer::LineDelimited},
};
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use parquet::{
    basic::{Compression as ParquetCompression, GzipLevel, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
};

use super::{Compression, Format, parquet::ParquetWriter};
use crate::error::{Error, Result};

/// The level of zstd: the next packs TPC-H's lineitem 5 % smaller in a quarter more of zstd's time.
const ZSTD_LEVEL: i32 = 2;

/// What a file is to look like.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The format: not JSON, not Avro.
    pub format: Format,
    /// Inside Parquet and Arrow, around the others.
    pub compression: Compression,
    /// Between CSV values.
    pub delimiter: u8,
    /// Whether CSV starts with names.
    pub header: bool,
    /// How CSV spells null.
    pub null: String,
    /// Whether Parquet has its delta encodings.
    pub delta_encodings: bool,
}

impl Layout {
    /// What is not said otherwise.
    pub fn new(format: Format, compression: Compression) -> Self {
        Self { format, compression, delimiter: b',', header: true, null: String::new(), delta_encodings: true }
    }

    /// The extension of a file of this layout, without a leading dot.
    pub fn extension(&self) -> String {
        let packed = match (self.format, self.compression) {
            (Format::Parquet | Format::Arrow, _) => "",
            (_, Compression::Gzip) => ".gz",
            (_, Compression::Zstd) => ".zst",
            _ => "",
        };
        format!("{}{packed}", self.format.as_str())
    }
}

/// Least and most of a Parquet row group, as it comes: an eighth of the memory where that lies between.
const GROUP_BYTES: (usize, usize) = (8 << 20, 128 << 20);
/// Bytes of a piece that waits.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes written and not taken yet, in pieces: a row group comes at once, and in one piece it would be copied again and again while it grows.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = self.0.lock();
        match pieces.last_mut().filter(|piece| piece.len() + bytes.len() <= piece.capacity()) {
            Some(piece) => piece.extend_from_slice(bytes),
            None => {
                let mut piece = Vec::with_capacity(bytes.len().max(PIECE_BYTES));
                piece.extend_from_slice(bytes);
                pieces.push(piece);
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffer behind a compressor.
enum Packed {
    Plain(Buffer),
    Gzip(GzEncoder<Buffer>),
    Zstd(zstd::stream::write::Encoder<'static, Buffer>),
}

impl Packed {
    fn new(buffer: Buffer, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => Self::Gzip(GzEncoder::new(buffer, flate2::Compression::default())),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(buffer, ZSTD_LEVEL)?),
            _ => Self::Plain(buffer),
        })
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(encoder) => encoder.finish().map(|_| ()),
            Self::Zstd(encoder) => encoder.finish().map(|_| ()),
        }
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(buffer) => buffer.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }
    // The writers flush after each batch; a compressor that obeyed would pack worse.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one writer to a file")]
enum Writer {
    Parquet(Box<ParquetWriter<Buffer>>),
    Csv(Box<CsvWriter<Packed>>),
    Ndjson(LineDelimitedWriter<Packed>),
    Arrow(Box<FileWriter<Buffer>>),
}

/// Turns batches into a file's bytes, which wait to be taken.
pub struct Encoder {
    writer: Writer,
    buffer: Buffer,
    rows: u64,
    header: Option<SchemaRef>,
}

fn arrow_failed(error: ArrowError) -> Error {
    Error::weir("encode", format!("rows cannot be written: {error}")).because(error)
}

fn parquet_failed(error: ParquetError) -> Error {
    Error::weir("encode", format!("rows cannot be written: {error}")).because(error)
}

fn io_failed(error: io::Error) -> Error {
    Error::weir("encode", format!("rows cannot be packed: {error}")).because(error)
}

impl Encoder {
    /// Starts a file of these columns. `memory_bytes` is what the run may hold of memory.
    pub fn new(layout: &Layout, schema: &SchemaRef, memory_bytes: usize) -> Result<Self> {
        let buffer = Buffer::default();
        let writer = match layout.format {
            Format::Parquet => {
                let compression = match layout.compression {
                    Compression::Gzip => ParquetCompression::GZIP(GzipLevel::default()),
                    Compression::Zstd => ParquetCompression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).map_err(parquet_failed)?),
                    _ => ParquetCompression::UNCOMPRESSED,
                };
                let group_bytes = (memory_bytes / 8).clamp(GROUP_BYTES.0, GROUP_BYTES.1);
                // An index of pages would be held for all of the file until its end; row groups are small enough to be passed over.
                let properties = WriterProperties::builder()
                    .set_compression(compression)
                    .set_statistics_enabled(EnabledStatistics::Chunk)
                    .set_offset_index_disabled(true);
                Writer::Parquet(Box::new(ParquetWriter::new(buffer.clone(), schema, properties, group_bytes, layout.delta_encodings)))
            }
            Format::Arrow => {
                let compression = (layout.compression == Compression::Zstd).then_some(CompressionType::ZSTD);
                let options = IpcWriteOptions::default().try_with_compression(compression).map_err(arrow_failed)?;
                Writer::Arrow(Box::new(FileWriter::try_new_with_options(buffer.clone(), schema, options).map_err(arrow_failed)?))
            }
            Format::Ndjson => {
                let packed = Packed::new(buffer.clone(), layout.compression).map_err(io_failed)?;
                Writer::Ndjson(JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(packed))
            }
            Format::Csv | Format::Tsv | Format::Json | Format::Avro => {
                let packed = Packed::new(buffer.clone(), layout.compression).map_err(io_failed)?;
                let builder =
                    WriterBuilder::new().with_delimiter(layout.delimiter).with_header(layout.header).with_null(layout.null.clone());
                Writer::Csv(Box::new(builder.build(packed)))
            }
        };
        let header = matches!(writer, Writer::Csv(_)).then(|| schema.clone()).filter(|_| layout.header);
        Ok(Self { writer, buffer, rows: 0, header })
    }

    /// Adds rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(batch).await.map_err(parquet_failed)?,
            Writer::Csv(writer) => writer.write(batch).map_err(arrow_failed)?,
            Writer::Ndjson(writer) => writer.write(batch).map_err(arrow_failed)?,
            Writer::Arrow(writer) => writer.write(batch).map_err(arrow_failed)?,
        }
        self.header = None;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Bytes that wait.
    pub fn ready_bytes(&self) -> usize {
        self.buffer.0.lock().iter().map(Vec::len).sum()
    }

    /// Takes the bytes that wait, in pieces.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.buffer.0.lock())
    }

    /// Ends the file. Returns its rows, as its footer says where it has one, and the last bytes.
    pub async fn finish(mut self) -> Result<(u64, Vec<Vec<u8>>)> {
        // Without any batch a CSV writer writes no header.
        if let Some(schema) = self.header.take() {
            self.write(&RecordBatch::new_empty(schema)).await?;
        }
        let rows = match self.writer {
            Writer::Parquet(writer) => u64::try_from(writer.finish().await.map_err(parquet_failed)?).unwrap_or_default(),
            Writer::Csv(writer) => {
                writer.into_inner().finish().map_err(io_failed)?;
                self.rows
            }
            Writer::Ndjson(mut writer) => {
                writer.finish().map_err(arrow_failed)?;
                writer.into_inner().finish().map_err(io_failed)?;
                self.rows
            }
            Writer::Arrow(mut writer) => {
                writer.finish().map_err(arrow_failed)?;
                self.rows
            }
        };
        let rest = std::mem::take(&mut *self.buffer.0.lock());
        Ok((rows, rest))
    }
}
