//! Writes Arrow batches as an answer: table, CSV, JSON, NDJSON, Parquet or Markdown. Batches pass through; none is kept but the
//! first ones of a table, whose widths are those of the columns.

use std::io::{self, Write};

use arrow::{
    array::{Array, ArrayRef, StringBuilder},
    csv,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    json::{
        EncoderOptions,
        writer::{JsonArray, LineDelimited, WriterBuilder, make_encoder},
    },
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{Style, Table, expanded::Expanded, number::counted, table::Look, text::cut};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; values over 120 columns are cut
    Table,
    /// For people, a line for each value: for rows that are wider than a screen
    Expanded,
    /// Comma-separated, with a header
    Csv,
    /// One JSON array of objects
    Json,
    /// One JSON object per line
    Ndjson,
    /// Apache Parquet, zstd
    Parquet,
    /// A Markdown table, values whole
    Markdown,
}

impl Format {
    /// The format that a file's name asks for.
    pub fn of_path(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "json" => Some(Format::Json),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "parquet" => Some(Format::Parquet),
            "md" => Some(Format::Markdown),
            "txt" => Some(Format::Table),
            _ => None,
        }
    }
}

/// Rows whose widths decide those of a table's columns.
const TABLE_ROWS: usize = 1000;
/// Columns that a value takes at most in a table on a terminal.
const VALUE_WIDTH: usize = 120;

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The rows do not fit the format.
    #[error("{0}")]
    Rows(String),
}

impl From<ArrowError> for WriteError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => WriteError::Io(error),
            // The CSV writer wraps what its output said in a text; the kind is asked of the error that lies beneath.
            other => WriteError::Rows(other.to_string()),
        }
    }
}

impl From<ParquetError> for WriteError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(error) => WriteError::Io(*error),
                Err(other) => WriteError::Rows(other.to_string()),
            },
            other => WriteError::Rows(other.to_string()),
        }
    }
}

/// Writes one result.
pub struct RowsWriter<W: Write + Send> {
    inner: Inner<W>,
    schema: SchemaRef,
    rows: u64,
    /// What stands for null in formats for people.
    null: String,
}

enum Inner<W: Write + Send> {
    Table { out: Kept<W>, table: Box<Table>, look: Look, style: Style, drawn: bool, waiting: usize },
    Expanded { out: Kept<W>, records: Expanded, style: Style },
    Csv { writer: Box<csv::Writer<Kept<W>>>, schema: SchemaRef, failed: Failed },
    Json { writer: arrow::json::Writer<Kept<W>, JsonArray>, failed: Failed },
    Ndjson { writer: arrow::json::Writer<Kept<W>, LineDelimited>, failed: Failed },
    Parquet { writer: Box<ArrowWriter<Kept<W>>>, failed: Failed },
}

/// The error that the output gave, kept beside the writers that turn it into a text.
type Failed = std::sync::Arc<std::sync::Mutex<Option<io::Error>>>;

/// An output that remembers why it failed.
struct Kept<W> {
    out: W,
    failed: Failed,
}

impl<W: Write> Kept<W> {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let again = io::Error::new(error.kind(), error.to_string());
            if let Ok(mut failed) = self.failed.lock() {
                failed.get_or_insert(again);
            }
        })
    }
}

impl<W: Write> Write for Kept<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.note(result)
    }
    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.note(result)
    }
}

/// Prefers what the output said over what the writer made of it.
fn or_output<T, E: Into<WriteError>>(result: Result<T, E>, failed: &Failed) -> Result<T, WriteError> {
    result.map_err(|error| match failed.lock().ok().and_then(|mut failed| failed.take()) {
        Some(error) => WriteError::Io(error),
        None => error.into(),
    })
}

impl<W: Write + Send> RowsWriter<W> {
    /// Starts a result; `style` paints a table's header.
    pub fn new(out: W, format: Format, schema: &SchemaRef, style: Style) -> Result<Self, WriteError> {
        let failed = Failed::default();
        let out = Kept { out, failed: failed.clone() };
        let inner = match format {
            Format::Table | Format::Markdown => {
                let look = if format == Format::Table { Look::Lines } else { Look::Markdown };
                let header = schema.fields().iter().map(|field| field.name().clone()).collect();
                let right = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
                Inner::Table { out, table: Box::new(Table::of(look, header, right)), look, style, drawn: false, waiting: 0 }
            }
            Format::Expanded => {
                let names = schema.fields().iter().map(|field| field.name().clone());
                Inner::Expanded { out, records: Expanded::new(names, style), style }
            }
            Format::Csv => {
                let schema = flat_schema(schema);
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // The header is due also where no row follows.
                or_output(writer.write(&RecordBatch::new_empty(schema.clone())), &failed)?;
                Inner::Csv { writer: Box::new(writer), schema, failed }
            }
            Format::Json => Inner::Json { writer: WriterBuilder::new().with_explicit_nulls(true).build(out), failed },
            Format::Ndjson => Inner::Ndjson { writer: WriterBuilder::new().with_explicit_nulls(true).build(out), failed },
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
                let writer = or_output(ArrowWriter::try_new(out, schema.clone(), Some(properties)), &failed)?;
                Inner::Parquet { writer: Box::new(writer), failed }
            }
        };
        Ok(Self { inner, schema: schema.clone(), rows: 0, null: "NULL".to_owned() })
    }

    /// Shows null as another text, in formats for people.
    #[must_use]
    pub fn null(mut self, text: &str) -> Self {
        text.clone_into(&mut self.null);
        self
    }

    /// Writes one batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        self.rows += batch.num_rows() as u64;
        match &mut self.inner {
            Inner::Table { out, table, look, style, drawn, waiting } => {
                let options = FormatOptions::default().with_null(&self.null).with_display_error(true);
                let columns = display_columns(&self.schema, batch)?;
                let formatters =
                    columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
                for row in 0..batch.num_rows() {
                    table.row(formatters.iter().map(|formatter| {
                        let value = formatter.value(row).to_string();
                        if *look == Look::Lines { cut(&value, VALUE_WIDTH).into_owned() } else { value }
                    }));
                    *waiting += 1;
                    if *waiting >= TABLE_ROWS {
                        draw(out, table, drawn, *style)?;
                        *waiting = 0;
                    }
                }
                Ok(())
            }
            Inner::Expanded { out, records, .. } => {
                let options = FormatOptions::default().with_null(&self.null).with_display_error(true);
                let columns = display_columns(&self.schema, batch)?;
                let formatters =
                    columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
                for row in 0..batch.num_rows() {
                    records.record(out, formatters.iter().map(|formatter| formatter.value(row).to_string()))?;
                }
                Ok(())
            }
            Inner::Csv { writer, schema, failed } => or_output(writer.write(&flat_batch(schema, batch)?), failed),
            Inner::Json { writer, failed } => or_output(writer.write(batch), failed),
            Inner::Ndjson { writer, failed } => or_output(writer.write(batch), failed),
            Inner::Parquet { writer, failed } => or_output(writer.write(batch), failed),
        }
    }

    /// Ends the result and returns how many rows it has.
    pub fn finish(self) -> Result<u64, WriteError> {
        match self.inner {
            Inner::Table { mut out, mut table, look, style, mut drawn, .. } => {
                draw(&mut out, &mut table, &mut drawn, style)?;
                if look == Look::Lines {
                    writeln!(out, "{}", style.dim(&format!("({})", counted(self.rows, "row", "rows"))))?;
                }
                out.flush()?;
            }
            Inner::Expanded { mut out, style, .. } => {
                writeln!(out, "{}", style.dim(&format!("({})", counted(self.rows, "row", "rows"))))?;
                out.flush()?;
            }
            Inner::Csv { writer, .. } => writer.into_inner().flush()?,
            Inner::Json { mut writer, failed } => {
                or_output(writer.finish(), &failed)?;
                let mut out = writer.into_inner();
                out.write_all(b"\n")?;
                out.flush()?;
            }
            Inner::Ndjson { mut writer, failed } => {
                or_output(writer.finish(), &failed)?;
                writer.into_inner().flush()?;
            }
            Inner::Parquet { writer, failed } => {
                let mut out = or_output(writer.into_inner(), &failed)?;
                out.flush()?;
            }
        }
        Ok(self.rows)
    }
}

fn draw(out: &mut impl Write, table: &mut Table, drawn: &mut bool, style: Style) -> io::Result<()> {
    if !*drawn {
        out.write_all(table.render_header(style).as_bytes())?;
        *drawn = true;
    }
    out.write_all(table.render_rows().as_bytes())?;
    table.clear_rows();
    Ok(())
}

fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| if is_flat(field.data_type()) { field.as_ref().clone() } else { Field::new(field.name(), DataType::Utf8, true) })
        .collect();
    SchemaRef::new(Schema::new(fields))
}

fn is_flat(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_flat(value),
        other => {
            !other.is_nested()
                && !matches!(other, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
        }
    }
}

/// Lists, records and bytes as JSON text: what has no form of its own in a cell.
fn flat_batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, WriteError> {
    let columns = display_columns(&batch.schema(), batch)?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn display_columns(schema: &SchemaRef, batch: &RecordBatch) -> Result<Vec<ArrayRef>, WriteError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        columns.push(if is_flat(field.data_type()) { column.clone() } else { json_text(column)? });
    }
    Ok(columns)
}

fn json_text(column: &ArrayRef) -> Result<ArrayRef, WriteError> {
    let field = std::sync::Arc::new(Field::new("value", column.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, column.as_ref(), &options)?;
    let mut text = StringBuilder::new();
    let mut buffer = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            text.append_null();
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        let value = String::from_utf8_lossy(&buffer);
        // Bytes are one JSON string of hexadecimal digits; its quotes say nothing.
        text.append_value(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(&value));
    }
    Ok(std::sync::Arc::new(text.finish()))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
