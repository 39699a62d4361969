//! What the text formats (CSV, NDJSON) have in common: a file is cut into blocks of whole records, and blocks are decoded
//! independently of one another, on any thread.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, UInt64Array},
    datatypes::SchemaRef,
};

use crate::error::Result;

/// A format whose files can be cut into blocks of whole records.
pub trait BlockFormat: std::fmt::Debug + Send + Sync {
    /// Returns how many bytes at the start of `block` are whole records. `end`: nothing follows, so everything is.
    /// `block` starts at a record. 0 means that one record is longer than the block: the caller brings more bytes, up to
    /// `record_max_bytes`, and past that calls with `end`.
    fn whole_records(&self, block: &[u8], end: bool) -> usize;

    /// Reads what a file's first block says about its columns (a CSV header), and returns the decoder of this file and
    /// the number of bytes and lines taken. `wanted` are the columns to produce, by name: what the file lacks is null. A record that does not bear
    /// out a guess is an error.
    fn decoder(&self, first_block: &[u8], wanted: SchemaRef, guess: Option<&Guess>) -> Result<Start>;

    /// Learns names and types from whole records, many times in turn; `state` is the format's own.
    fn infer(&self, first_of_file: bool, block: &[u8], state: &mut Inference) -> Result<()>;

    /// Puts together what blocks of one file say that were learnt from side by side, each from the same state on: `later` stands behind what `state` has
    /// learnt. It is then as if `state` had learnt from all of them in turn.
    fn merge(&self, later: Inference, state: &mut Inference);
}

/// What records in front say of the columns: the narrowest type that holds every value seen, none where only nulls were.
pub type Guess = indexmap::IndexMap<String, Option<arrow::datatypes::DataType>>;

/// A file's decoder, and where its records begin.
#[derive(Debug)]
pub struct Start {
    /// Decodes the blocks of this file.
    pub decoder: Arc<dyn BlockDecoder>,
    /// Bytes of the first block that are no records (header, comments).
    pub skipped_bytes: usize,
    /// Lines that these bytes hold.
    pub skipped_lines: u64,
}

/// Decodes blocks of one file.
pub trait BlockDecoder: std::fmt::Debug + Send + Sync {
    /// Decodes a block of whole records that starts on line `first_line` (from 1).
    fn decode(&self, block: &[u8], first_line: u64) -> Result<Decoded>;
}

/// What became of a block.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows, columns as wanted.
    pub rows: RecordBatch,
    /// The line each good row starts on; none when the decoder was not asked for lines.
    pub lines: UInt64Array,
    /// The bad ones.
    pub bad: Vec<BadRecord>,
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The line it starts on.
    pub line: u64,
    /// `malformed` or `wrong-type`.
    pub code: &'static str,
    /// The column at fault.
    pub column: Option<String>,
    /// What is wrong, in words.
    pub reason: String,
    /// The record's bytes as text, what is no UTF-8 replaced, cut after 64 KiB with a note of its full length.
    pub raw: String,
    /// As in [`crate::Reject::fields`].
    pub fields: Option<String>,
}

/// What has been learnt of a format's columns so far: names in order of appearance, and the narrowest type that holds every value seen.
#[derive(Debug, Default, Clone)]
pub struct Inference {
    /// Column name to the type so far.
    pub columns: Guess,
    /// The current file's columns in its own order, as indexes into `columns`.
    pub current: Vec<usize>,
    /// Records seen.
    pub records: u64,
    /// Columns that hold values of unlike kinds, which text columns keep as JSON text (see `ndjson::JSON_TEXT`).
    pub json: std::collections::HashSet<String>,
}

impl Inference {
    /// The columns as fields, all nullable: text where only nulls were seen, and marked where they keep JSON text.
    pub fn fields(&self) -> Vec<arrow::datatypes::Field> {
        use arrow::datatypes::{DataType, Field};
        self.columns
            .iter()
            .map(|(name, data_type)| match data_type {
                _ if self.json.contains(name) => super::ndjson::json_text(name),
                Some(data_type) => Field::new(name, data_type.clone(), true),
                None => Field::new(name, DataType::Utf8, true),
            })
            .collect()
    }
}
