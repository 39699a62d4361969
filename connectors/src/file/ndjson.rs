//! NDJSON: one JSON object a line, to columns of any nesting, with every line that breaks the rules set aside.
//! `ndjson/scan.rs` knows JSON's grammar, `ndjson/node.rs` puts values into columns, `ndjson/infer.rs` learns types.
//!
//! Lines are read straight into Arrow builders, by a reader of our own: arrow-json's takes strings for numbers and cuts `1.5` down to 1 in an
//! integer column. Here a value is of its column's type or the line is a bad row: integers for integer columns (`1.0` is one, as in JSON
//! Schema), numbers for floats, numbers or strings for decimals, strings for text, dates, times, timestamps and base64. Keys that no column
//! asks for are passed over; a missing key is null. A text column whose field says `weir:json = true` keeps any value as JSON text.
//! Blank lines are no records.

mod infer;
pub(crate) mod node;
pub(super) mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions, UInt64Array},
    datatypes::SchemaRef,
};
use memchr::{memchr, memchr_iter, memrchr};

use self::node::Record;
pub(super) use self::node::json_text;
use super::{
    block::{BadRecord, BlockDecoder, BlockFormat, Decoded, Guess, Inference, Start},
    csv::values,
};
use crate::error::{Error, Result};

/// The field metadata key that, when `true`, makes a text column keep any value as JSON text.
pub const JSON_TEXT: &str = "weir:json";

/// How an NDJSON file is read.
#[derive(Debug, Clone)]
pub struct NdjsonFormat {
    /// The most bytes of a line, its end included.
    pub record_max_bytes: usize,
    /// Whether decoders say on which line each good row starts.
    pub lines: bool,
}

impl Default for NdjsonFormat {
    fn default() -> Self {
        Self { record_max_bytes: 16 << 20, lines: false }
    }
}

impl BlockFormat for NdjsonFormat {
    fn whole_records(&self, block: &[u8], end: bool) -> usize {
        if end { block.len() } else { memrchr(b'\n', block).map_or(0, |at| at + 1) }
    }

    fn decoder(&self, first_block: &[u8], wanted: SchemaRef, _: Option<&Guess>) -> Result<Start> {
        Record::new(&wanted, 0)?;
        let skipped_bytes = if first_block.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Ok(Start { decoder: Arc::new(NdjsonDecoder { format: self.clone(), wanted }), skipped_bytes, skipped_lines: 0 })
    }

    fn infer(&self, first_of_file: bool, block: &[u8], state: &mut Inference) -> Result<()> {
        let block = if first_of_file { block.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(block) } else { block };
        let utf8 = std::str::from_utf8(block).is_ok();
        infer::block(lines(block).filter(|line| line.len() < self.record_max_bytes), utf8, state);
        Ok(())
    }

    fn merge(&self, later: Inference, state: &mut Inference) {
        infer::merge(later, state);
    }
}

/// The lines of a block, without their LF.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
}

#[derive(Debug)]
struct NdjsonDecoder {
    format: NdjsonFormat,
    wanted: SchemaRef,
}

impl BlockDecoder for NdjsonDecoder {
    fn decode(&self, block: &[u8], first_line: u64) -> Result<Decoded> {
        if block.len() > i32::MAX as usize - 64 {
            return Err(Error::weir("block-too-long", format!("a block of {} bytes is longer than 2 GiB", block.len())));
        }
        let lines_total = memchr_iter(b'\n', block).count() as u64 + u64::from(block.last().is_some_and(|&b| b != b'\n'));
        let mut record = Record::new(&self.wanted, lines_total as usize)?;
        let utf8 = std::str::from_utf8(block).is_ok();
        let (mut good, mut bad) = (vec![], vec![]);
        let mut rows = 0;
        for (i, line) in lines(block).enumerate() {
            let number = first_line + i as u64;
            let taken = if line.len() >= self.format.record_max_bytes {
                Err(("malformed", None, format!("record is longer than {} bytes", self.format.record_max_bytes)))
            } else if is_blank(line) {
                continue;
            } else {
                record.read(line, utf8)
            };
            match taken {
                Ok(()) => {
                    rows += 1;
                    if self.format.lines {
                        good.push(number);
                    }
                }
                Err((code, column, reason)) => {
                    bad.push(BadRecord { line: number, code, column, reason, raw: values::raw(line), fields: None })
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(self.wanted.clone(), record.finish()?, &options)
            .map_err(|e| Error::weir("ndjson-batch", "decoded columns make no batch").because(e))?;
        Ok(Decoded { rows, lines: UInt64Array::from(good), bad })
    }
}
