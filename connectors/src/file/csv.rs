//! CSV and its kin (TSV, other delimiters): blocks of whole records to typed columns, with every record that breaks the rules set aside.
//! `csv/structure.rs` says where fields and records end, `csv/column.rs` and `csv/values.rs` what values are, `csv/infer.rs` which types
//! a file needs. Encodings, compression and the cutting of files into blocks are the caller's.
//!
//! Values: an empty unquoted one is null in a column of any type, an empty quoted one is the empty text and nothing else. `null` spellings
//! count for unquoted values. Spaces around a value belong to a text, and to nothing else. Binary columns are base64. A timestamp column
//! with a zone takes values with a zone (and holds UTC), one without takes values without (a date is its midnight); what is finer than
//! the column's unit, and what a decimal's scale cannot hold, is a wrong type, not rounded.

mod column;
mod infer;
mod structure;
#[cfg(test)]
mod tests;
pub(super) mod values;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array},
    datatypes::{DataType, SchemaRef},
};

pub(super) use self::column::{Column, expected};
use self::{
    column::{Strip, Style},
    structure::{Broken, Fault, Found, Index, Structure},
};
use super::{
    block::{BadRecord, BlockDecoder, BlockFormat, Decoded, Guess, Inference, Start},
    columnar,
};
use crate::error::{Error, Result};

/// Bytes taken apart at a time: a strip and its index stay in the CPU's second cache while each column passes over them.
const STRIP: usize = 64 << 10;

/// How a CSV file is written.
#[derive(Debug, Clone)]
pub struct CsvFormat {
    /// Between fields: an ASCII byte.
    pub delimiter: u8,
    /// Around fields that hold delimiters, line ends or quotes; none when quotes mean nothing.
    pub quote: Option<u8>,
    /// Whether the first record names the columns; otherwise they take `names` in turn, and past them `column_3`, `column_4`, …
    pub header: bool,
    /// Names for columns that no header names: a contract's, in its order.
    pub names: Vec<String>,
    /// Spellings of null, for unquoted values.
    pub null: Vec<String>,
    /// Whether a comma, not a point, stands before a number's fraction.
    pub decimal_comma: bool,
    /// Opens lines that are no records.
    pub comment: Option<u8>,
    /// The most bytes of a record, its line end included.
    pub record_max_bytes: usize,
    /// Whether decoders say on which line each good row starts.
    pub lines: bool,
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            header: true,
            names: vec![],
            null: vec![],
            decimal_comma: false,
            comment: None,
            record_max_bytes: 16 << 20,
            lines: false,
        }
    }
}

impl CsvFormat {
    fn structure(&self, fields: usize) -> Structure {
        Structure {
            delimiter: self.delimiter,
            quote: self.quote,
            comment: self.comment,
            record_max: self.record_max_bytes.saturating_sub(1),
            fields,
        }
    }

    fn style(&self) -> Style {
        let null: Vec<Vec<u8>> = self.null.iter().filter(|spelt| !spelt.is_empty()).map(|spelt| spelt.clone().into_bytes()).collect();
        let null_lengths = null.iter().fold(0, |lengths, spelt| lengths | 1 << spelt.len().min(63));
        Style { quote: self.quote, null, null_lengths, point: if self.decimal_comma { b',' } else { b'.' } }
    }

    /// The bytes that mean something must differ, and be neither line ends nor parts of a UTF-8 character.
    fn check(&self) -> Result<()> {
        let special = [("csv.delimiter", Some(self.delimiter)), ("csv.quote", self.quote), ("csv.comment", self.comment)];
        for (i, &(setting, byte)) in special.iter().enumerate() {
            let Some(byte) = byte else { continue };
            if !byte.is_ascii() || byte == b'\n' || byte == b'\r' {
                let message = format!("{:?} cannot be a {}", char::from(byte), &setting[4..]);
                return Err(Error::user("csv-byte", message).setting(setting).help("give one ASCII character that is no line end"));
            }
            if special[..i].iter().any(|&(_, other)| other == Some(byte)) {
                return Err(Error::user("csv-byte", format!("{:?} has two meanings", char::from(byte)))
                    .setting(setting)
                    .help("give delimiter, quote and comment different characters"));
            }
        }
        Ok(())
    }

    /// A file's column names, and where its records begin. Without a header, the first record says how many columns there are.
    fn columns(&self, block: &[u8]) -> Result<(Vec<String>, usize)> {
        let structure = self.structure(0);
        let bom = if block.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        let mut at = bom;
        while at < block.len() {
            let mut starts = vec![at];
            let next = match structure.record(block, at, true, |start| starts.push(start)) {
                Found::Comment(next) => next,
                Found::Record(next) if matches!(&block[at..next], b"\n" | b"\r\n" | b"\r") => next,
                Found::Record(next) => {
                    let fields = starts.len() - 1;
                    if !self.header {
                        let name = |at: usize| self.names.get(at).cloned().unwrap_or_else(|| format!("column_{}", at + 1));
                        return Ok(((0..fields).map(name).collect(), bom));
                    }
                    let last = fields - 1;
                    let fields = starts.windows(2).enumerate().map(|(i, bounds)| {
                        let raw = &block[bounds[0]..bounds[1] - 1];
                        if i == last { raw.strip_suffix(b"\r").unwrap_or(raw) } else { raw }
                    });
                    return Ok((self.names(fields)?, next));
                }
                Found::Broken(next, fault) if self.header => {
                    let line = values::shown(&block[at..next]);
                    let help = match fault {
                        Fault::TooLong => "raise \"record_max\", or set \"csv.delimiter\" and \"csv.quote\" to what the file has",
                        _ => "close the quote in the first line of the file, or set \"csv.quote\" to the character that quotes there",
                    };
                    return Err(Error::user("csv-header", format!("the header line {line} is malformed: {}", self.reason(fault, 0)))
                        .setting("path")
                        .help(help));
                }
                Found::Broken(next, _) => next,
                Found::More => break,
            };
            at = next;
        }
        if self.header {
            return Err(Error::user("csv-header-missing", "the file has no header line")
                .setting("path")
                .help("set csv.header to false if the first line is data; an empty file has no columns to read"));
        }
        Ok((vec![], bom))
    }

    fn names<'a>(&self, fields: impl Iterator<Item = &'a [u8]>) -> Result<Vec<String>> {
        let mut names: Vec<String> = vec![];
        for (i, raw) in fields.enumerate() {
            let text = match self.quote {
                Some(quote) if raw.first() == Some(&quote) => column::unquote(raw, quote),
                _ => Cow::Borrowed(raw),
            };
            let header = |message: String| Error::user("csv-header", message).setting("path");
            let name = std::str::from_utf8(&text)
                .map_err(|_| {
                    header(format!("the header's name {} is {} and not UTF-8", i + 1, values::shown(&text)))
                        .help("save the file as UTF-8, or say what it is: encoding = \"latin1\"")
                })?
                .trim();
            if name.is_empty() {
                return Err(header(format!("the header has no name for column {}", i + 1))
                    .help("name the column, or set csv.header to false if the first line is data"));
            }
            if let Some(first) = names.iter().position(|other| other == name) {
                return Err(header(format!("the header has \"{name}\" twice, as columns {} and {}", first + 1, i + 1))
                    .help("give each column a name of its own"));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn reason(&self, fault: Fault, fields: usize) -> String {
        match fault {
            Fault::Fields(found) => format!("expected {fields} field{}, found {found}", if fields == 1 { "" } else { "s" }),
            // One reason for both: which of them it is may stand in the next block.
            Fault::AfterQuote | Fault::Unclosed => "a quoted value is not closed, or text follows its closing quote".into(),
            Fault::TooLong => format!("record is longer than {} bytes", self.record_max_bytes),
        }
    }
}

impl BlockFormat for CsvFormat {
    fn whole_records(&self, block: &[u8], end: bool) -> usize {
        if end { block.len() } else { self.structure(0).whole(block) }
    }

    fn decoder(&self, first_block: &[u8], wanted: SchemaRef, guess: Option<&Guess>) -> Result<Start> {
        self.check()?;
        let (names, skipped_bytes) = self.columns(first_block)?;
        let mut sources = Vec::with_capacity(wanted.fields().len());
        for field in wanted.fields() {
            if Column::new(field.data_type(), 0).is_none() {
                let message = format!("column \"{}\" is to be {}, which CSV values are not", field.name(), field.data_type());
                return Err(Error::user("csv-type", message)
                    .setting("format")
                    .help("declare the column as text, a number, a date, a time, a timestamp, a decimal, a boolean or base64"));
            }
            sources.push(names.iter().position(|name| name == field.name()));
        }
        let skipped_lines = lines(&first_block[..skipped_bytes]);
        let format = self.clone();
        let structure = self.structure(names.len().max(1));
        let last_bytes = sources.iter().map(|_| AtomicUsize::new(0)).collect();
        let last_rows = AtomicUsize::new(0);
        let guessed =
            guess.into_iter().flat_map(|guess| names.iter().enumerate().filter_map(|(at, name)| Some((at, guess.get(name)?.clone()))));
        let guessed: Vec<_> = guessed.filter(|(_, kind)| *kind != Some(DataType::Utf8)).collect();
        // Whoever reads a column's values sees whether they bear a guess out; of a column of nulls, or one that is not read, it is asked besides.
        let is_exact = |at: usize| guessed.iter().any(|(guessed, kind)| *guessed == at && kind.is_some());
        let exact: Vec<bool> = sources.iter().map(|source| source.is_some_and(is_exact)).collect();
        let is_read = |at: usize| sources.iter().zip(&exact).any(|(source, exact)| *exact && *source == Some(at));
        let held = guessed.iter().filter(|(at, _)| !is_read(*at)).cloned().collect();
        let decoder =
            Arc::new(CsvDecoder { style: self.style(), format, structure, wanted, names, sources, exact, held, last_rows, last_bytes });
        Ok(Start { decoder, skipped_bytes, skipped_lines })
    }

    fn infer(&self, first_of_file: bool, block: &[u8], state: &mut Inference) -> Result<()> {
        self.check()?;
        let mut from = 0;
        if first_of_file {
            state.current.clear();
        }
        if state.current.is_empty() {
            let (names, records) = self.columns(block)?;
            from = records;
            for name in names {
                let entry = state.columns.entry(name);
                state.current.push(entry.index());
                entry.or_insert(None);
            }
        }
        if !state.current.is_empty() {
            infer::block(&self.structure(state.current.len()), &self.style(), block, from, state);
        }
        Ok(())
    }

    fn merge(&self, later: Inference, state: &mut Inference) {
        state.records += later.records;
        // A file's header has named all of its columns.
        for ((_, known), (_, kind)) in state.columns.iter_mut().zip(later.columns) {
            *known = match (known.take(), kind) {
                (Some(known), Some(kind)) => Some(columnar::widen(&known, &kind)),
                (known, kind) => known.or(kind),
            };
        }
    }
}

/// Lines that bytes hold, a last one without its end included.
fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(bytes.last().is_some_and(|&last| last != b'\n'))
}

/// Counts lines along a block.
struct Lines<'a> {
    block: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of a place at or after the last one asked for.
    fn of(&mut self, at: usize) -> u64 {
        self.line += memchr::memchr_iter(b'\n', &self.block[self.at..at]).count() as u64;
        self.at = at;
        self.line
    }
}

/// Decodes the blocks of one file.
#[derive(Debug)]
struct CsvDecoder {
    format: CsvFormat,
    structure: Structure,
    style: Style,
    wanted: SchemaRef,
    /// The file's columns.
    names: Vec<String>,
    /// For each wanted column, the file's; none when the file lacks it.
    sources: Vec<Option<usize>>,
    /// Whether a wanted column's type is guessed, but for texts, which anything is: then it takes just what bears the guess out.
    exact: Vec<bool>,
    /// The file's other columns whose types are guessed.
    held: Vec<(usize, Option<DataType>)>,
    /// Rows of the last block, and for each wanted column the bytes of its texts there: the next will be about as large.
    last_rows: AtomicUsize,
    last_bytes: Vec<AtomicUsize>,
}

/// A row that cannot stay.
struct Spoilt {
    row: usize,
    start: usize,
    bad: BadRecord,
}

impl BlockDecoder for CsvDecoder {
    fn decode(&self, block: &[u8], first_line: u64) -> Result<Decoded> {
        if block.len() > i32::MAX as usize - 64 {
            return Err(Error::weir("block-too-long", format!("a block of {} bytes is longer than 2 GiB", block.len())));
        }
        let guess = |last: &AtomicUsize, most: usize| match last.load(Ordering::Relaxed) {
            0 => None,
            last => Some((last + last / 16 + 16).min(most)),
        };
        let rows_guess = guess(&self.last_rows, block.len()).unwrap_or(block.len() / (8 * self.structure.fields).max(16));
        let column = |at: usize| {
            let column = self.sources[at].and_then(|_| Column::new(self.wanted.field(at).data_type(), rows_guess))?;
            Some(column.with_room(guess(&self.last_bytes[at], block.len() + 16).unwrap_or_default()))
        };
        let mut columns: Vec<Option<Column>> = (0..self.sources.len()).map(column).collect();
        let texts = columns.iter().flatten().any(Column::is_text);
        let careful = self.structure.careful(block);
        let mut index = Index::default();
        let (mut at, mut rows) = (0, 0);
        let mut broken: Vec<Broken> = vec![];
        let mut spoilt: Vec<Spoilt> = vec![];
        let mut starts: Vec<u32> = vec![];
        let mut faults = vec![];
        let mut found: Vec<(usize, usize)> = vec![];
        while at < block.len() {
            let next = self.structure.index(block, at, at + STRIP, careful, &mut index);
            let utf8 = texts && std::str::from_utf8(&block[at..next]).is_ok();
            let strip = Strip { block, starts: index.starts(), rows: &index.rows, style: &self.style, utf8 };
            self.hold(&strip)?;
            for (i, column) in columns.iter_mut().enumerate() {
                let (Some(column), Some(field)) = (column, self.sources[i]) else { continue };
                column.fill(
                    &strip,
                    field,
                    field + 1 == self.structure.fields,
                    self.wanted.field(i).is_nullable(),
                    self.exact[i],
                    &mut faults,
                );
                if self.exact[i] && !faults.is_empty() {
                    return Err(self.refuted(field, Some(self.wanted.field(i).data_type())));
                }
                found.extend(faults.drain(..).map(|row| (row, i)));
            }
            if !found.is_empty() {
                found.sort_unstable();
                found.dedup_by_key(|(row, _)| *row);
                spoilt.extend(found.drain(..).map(|(row, column)| self.spoilt(&strip, row, column, rows)));
            }
            if self.format.lines {
                starts.extend(index.rows.iter().map(|&row| index.starts()[row as usize]));
            }
            rows += index.rows.len();
            broken.append(&mut index.broken);
            at = next;
        }

        self.last_rows.store(rows, Ordering::Relaxed);
        for (column, last) in columns.iter().zip(&self.last_bytes) {
            last.store(column.as_ref().map_or(0, Column::text_bytes), Ordering::Relaxed);
        }
        let keep = (!spoilt.is_empty()).then(|| {
            let mut keep = vec![true; rows];
            spoilt.iter().for_each(|s| keep[s.row] = false);
            BooleanArray::from(keep)
        });
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
        for (field, column) in self.wanted.fields().iter().zip(columns) {
            let array = match column {
                Some(column) => column.finish(field.data_type())?,
                None => new_null_array(field.data_type(), rows),
            };
            arrays.push(match &keep {
                Some(keep) => arrow::compute::filter(&array, keep).map_err(unexpected)?,
                None => array,
            });
        }
        let good = rows - spoilt.len();
        let options = RecordBatchOptions::new().with_row_count(Some(good));
        let batch = RecordBatch::try_new_with_options(self.wanted.clone(), arrays, &options).map_err(|e| {
            Error::user("csv-column-missing", "the file lacks a column that may not be null")
                .setting("contract")
                .help("make the column optional, or leave the file out")
                .because(e)
        })?;

        let mut line = Lines { block, at: 0, line: first_line };
        let mut good_lines = Vec::with_capacity(starts.len());
        for (i, &start) in starts.iter().enumerate() {
            if keep.as_ref().is_none_or(|keep| keep.value(i)) {
                good_lines.push(line.of(start as usize));
            }
        }
        Ok(Decoded { rows: batch, lines: UInt64Array::from(good_lines), bad: self.bad(block, first_line, spoilt, &broken) })
    }
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::weir("csv-filter", "bad rows could not be taken out of a batch").because(error)
}

impl CsvDecoder {
    /// Fails where a column that is not read, or was always null, does not bear out its guess.
    fn hold(&self, strip: &Strip<'_>) -> Result<()> {
        let last = self.structure.fields - 1;
        match self.held.iter().find(|(field, kind)| !infer::bears_out(strip, *field, *field == last, kind.as_ref())) {
            Some((field, kind)) => Err(self.refuted(*field, kind.as_ref())),
            None => Ok(()),
        }
    }

    fn refuted(&self, field: usize, kind: Option<&DataType>) -> Error {
        let (name, kind) = (&self.names[field], kind.map_or_else(|| "empty".to_owned(), expected));
        let message = format!("column \"{name}\" was taken for {kind} by the first records, and is not in another");
        Error::user("types-guessed", message).help("declare the column in a contract: then its type is known")
    }

    /// Explains the row at place `row` of a strip, whose wanted column `column` holds no such value. Its line is filled in later.
    fn spoilt(&self, strip: &Strip<'_>, row: usize, column: usize, rows_before: usize) -> Spoilt {
        let (field, source) = (self.wanted.field(column), self.sources[column].expect("a column that was filled has a source"));
        let first = strip.rows[row];
        let start = strip.starts[first as usize] as usize;
        let end = (strip.starts[first as usize + self.structure.fields] as usize).min(strip.block.len());
        let (_, raw) = strip.raw(first, source, source + 1 == self.structure.fields);
        let value = strip.style.value(raw);
        let text = matches!(field.data_type(), arrow::datatypes::DataType::Utf8 | arrow::datatypes::DataType::LargeUtf8);
        let (code, reason) = match &value {
            Some((value, _)) if text => ("malformed", format!("{} is not UTF-8", values::shown(value))),
            Some((value, _)) if strip.style.trimmed(raw).is_some() => {
                ("wrong-type", format!("expected {}, found {}", expected(field.data_type()), values::shown(value)))
            }
            _ => ("wrong-type", format!("expected {}, found null", expected(field.data_type()))),
        };
        let (column, raw) = (Some(field.name().clone()), values::raw(&strip.block[start..end]));
        let bad = BadRecord { line: 0, code, column, reason, raw, fields: self.fields(strip, first) };
        Spoilt { row: rows_before + row, start, bad }
    }

    /// What the record says of each wanted column, as JSON; none where its text cannot be kept whole.
    fn fields(&self, strip: &Strip<'_>, record: u32) -> Option<String> {
        let mut fields = serde_json::Map::new();
        let mut bytes = 0;
        for (field, source) in self.wanted.fields().iter().zip(&self.sources) {
            let Some(source) = *source else { continue };
            let (_, raw) = strip.raw(record, source, source + 1 == self.structure.fields);
            bytes += raw.len();
            let number = field.data_type().is_floating() || matches!(field.data_type(), arrow::datatypes::DataType::Decimal128(..));
            let value = match strip.style.value(raw) {
                // As JSON has numbers.
                Some((value, _)) if number && self.format.decimal_comma => std::str::from_utf8(&value).ok()?.replace(',', ".").into(),
                Some((value, _)) => std::str::from_utf8(&value).ok()?.into(),
                None => serde_json::Value::Null,
            };
            fields.insert(field.name().clone(), value);
        }
        (bytes <= values::RAW_MAX).then(|| serde_json::Value::Object(fields).to_string())
    }

    /// All bad records in the order of the block.
    fn bad(&self, block: &[u8], first_line: u64, spoilt: Vec<Spoilt>, broken: &[Broken]) -> Vec<BadRecord> {
        let mut all: Vec<(usize, BadRecord)> = spoilt.into_iter().map(|s| (s.start, s.bad)).collect();
        all.extend(broken.iter().map(|b| {
            let reason = self.format.reason(b.fault, self.structure.fields);
            let raw = values::raw(&block[b.start..b.end]);
            (b.start, BadRecord { line: 0, code: "malformed", column: None, reason, raw, fields: None })
        }));
        all.sort_by_key(|(start, _)| *start);
        let mut line = Lines { block, at: 0, line: first_line };
        all.into_iter().map(|(start, bad)| BadRecord { line: line.of(start), ..bad }).collect()
    }
}
