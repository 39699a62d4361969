//! A text file as a run of blocks, each of whole records, with line numbers. What a record is, the format says.

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryReservation;

use super::{
    block::{BadRecord, BlockFormat},
    buffer::{Buffer, Buffers},
    bytes::{Input, Opening, unwrap_io},
    json_document::JsonRecords,
    list::FoundFile,
};
use crate::error::{Error, Result};

/// How much of a bad record is kept.
const RAW_MAX_BYTES: usize = 64 * 1024;

/// A part of a file: whole records, and what could not even be told apart as one.
#[derive(Debug)]
pub struct Block {
    /// Whole records.
    pub bytes: Buffer,
    /// The line they start on, from 1; in a JSON document, the number of the first record.
    pub first_line: u64,
    /// Records that were passed over.
    pub bad: Vec<BadRecord>,
}

/// How a file is cut.
#[derive(Debug, Clone)]
pub struct Cutting {
    /// What a record is.
    pub format: Arc<dyn BlockFormat>,
    /// Where the records of a JSON document are; none where the file is not one.
    pub document: Option<Document>,
    /// The longest record.
    pub record_max_bytes: usize,
}

/// Where the records of a JSON document are.
#[derive(Debug, Clone)]
pub struct Document {
    /// The path to their array; none where the document is the array.
    pub records: Option<String>,
}

/// Cuts one file into blocks, on a blocking thread.
#[derive(Debug)]
pub struct Blocks {
    from: From,
    block_bytes: usize,
}

#[derive(Debug)]
enum From {
    Lines(Box<Lines>),
    Document(Box<JsonRecords<Input>>),
}

impl Blocks {
    /// Opens a file. `memory` is what records longer than a block are charged to.
    pub fn open(
        file: &FoundFile,
        opening: &Opening,
        cutting: &Cutting,
        block_bytes: usize,
        memory: Option<MemoryReservation>,
    ) -> Result<Self> {
        let input = Input::open(file, opening)?;
        let record_max_bytes = cutting.record_max_bytes.max(1);
        let from = match &cutting.document {
            Some(document) => From::Document(Box::new(JsonRecords::new(input, document.records.as_deref(), record_max_bytes))),
            None => {
                let buffers = Buffers::new(block_bytes);
                let (format, rest) = (cutting.format.clone(), buffers.take());
                From::Lines(Box::new(Lines { input, format, buffers, rest, ended: false, line: 1, record_max_bytes, memory }))
            }
        };
        Ok(Self { from, block_bytes })
    }

    /// Changes the size of the blocks to come.
    pub fn set_block_bytes(&mut self, block_bytes: usize) {
        self.block_bytes = block_bytes;
    }

    /// Returns the next block, or none at the end of the file.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        match &mut self.from {
            From::Lines(lines) => {
                if lines.buffers.size() != self.block_bytes {
                    lines.buffers = Buffers::new(self.block_bytes);
                }
                lines.next_block()
            }
            From::Document(records) => {
                let block = records.next_block(self.block_bytes).map_err(from_input)?;
                Ok(block.map(|block| Block { bytes: block.text.into(), first_line: block.first_line, bad: block.bad }))
            }
        }
    }
}

/// Finds the input's own error under that of whoever read from it.
fn from_input(mut error: Error) -> Error {
    match error.source.take().map(|source| source.downcast::<std::io::Error>()) {
        Some(Ok(inner)) if inner.get_ref().is_some_and(|inner| inner.is::<Error>()) => unwrap_io(*inner),
        Some(Ok(inner)) => error.because(*inner),
        Some(Err(source)) => Error { source: Some(source), ..error },
        None => error,
    }
}

/// A file whose records are lines, or a few.
#[derive(Debug)]
struct Lines {
    input: Input,
    format: Arc<dyn BlockFormat>,
    buffers: Arc<Buffers>,
    /// What was read and is in no block yet.
    rest: Buffer,
    ended: bool,
    line: u64,
    record_max_bytes: usize,
    memory: Option<MemoryReservation>,
}

impl Lines {
    fn next_block(&mut self) -> Result<Option<Block>> {
        let block_bytes = self.buffers.size();
        let mut block = std::mem::take(&mut self.rest);
        loop {
            // A record longer than a block doubles what is looked at, so that looking again costs no more than twice.
            let aim = if block.len() < block_bytes { block_bytes } else { (block.len() * 2).min(self.record_max_bytes.max(block.len())) };
            if !self.ended && block.len() < aim {
                if let Some(memory) = &self.memory {
                    memory.try_resize(aim.saturating_sub(block_bytes)).map_err(|error| {
                        Error::user("memory", "a record is too long for the memory that is left")
                            .help("raise \"[memory] limit\", or lower \"record_max\"")
                            .because(error)
                    })?;
                }
                block.read(aim, |room| self.input.fill(room))?;
                self.ended = block.len() < aim;
            }
            if block.is_empty() {
                return Ok(None);
            }
            let mut whole = self.format.whole_records(&block, self.ended);
            if whole == 0 && !self.ended {
                if block.len() < self.record_max_bytes {
                    continue;
                }
                match memchr::memrchr(b'\n', &block) {
                    // Most likely a quote that was never closed: the format sorts out what is in these lines.
                    Some(newline) => whole = self.format.whole_records(&block[..=newline], true).max(1).min(newline + 1),
                    None => return Ok(Some(self.pass_over(block)?)),
                }
            } else if whole == 0 {
                whole = block.len();
            }
            // One copy, of less than a record as a rule.
            self.rest = self.buffers.take();
            self.rest.extend(&block[whole..]);
            block.truncate(whole);
            let first_line = self.line;
            self.line += memchr::memchr_iter(b'\n', &block).count() as u64;
            return Ok(Some(Block { bytes: block, first_line, bad: Vec::new() }));
        }
    }

    /// Passes over the rest of a line of which `start` was read.
    fn pass_over(&mut self, start: Buffer) -> Result<Block> {
        let mut length = start.len() as u64;
        let raw = String::from_utf8_lossy(&start[..start.len().min(RAW_MAX_BYTES)]).into_owned();
        drop(start);
        let mut more = self.buffers.take();
        loop {
            more.truncate(0);
            more.read(self.buffers.size(), |room| self.input.fill(room))?;
            self.ended = more.len() < self.buffers.size();
            if let Some(newline) = memchr::memchr(b'\n', &more) {
                length += newline as u64;
                self.rest = self.buffers.take();
                self.rest.extend(&more[newline + 1..]);
                break;
            }
            length += more.len() as u64;
            if self.ended {
                break;
            }
        }
        let line = self.line;
        self.line += 1;
        let bad = BadRecord {
            line,
            code: "malformed",
            column: None,
            reason: format!("the record has {length} bytes, more than \"record_max\" allows ({})", self.record_max_bytes),
            raw: format!("{raw}… ({length} bytes)"),
            fields: None,
        };
        Ok(Block { bytes: Buffer::default(), first_line: self.line, bad: vec![bad] })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tokio::runtime::{Handle, Runtime};
    use tokio_util::sync::CancellationToken;

    use super::{
        super::{bytes::Encoding, csv::CsvFormat, list, ndjson::NdjsonFormat},
        *,
    };

    /// Cuts a text on a thread of its own.
    fn cut(text: &[u8], format: Arc<dyn BlockFormat>, block_bytes: usize, record_max_bytes: usize) -> Vec<Block> {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join("a"), text).expect("a file");
            let file = list::list(&["a".into()], dir.path(), None, &HashMap::new()).await.expect("listed").remove(0);
            let opening = Opening {
                compression: None,
                encoding: Some(Encoding::Utf8),
                as_listed: true,
                read: None,
                handle: Handle::current(),
                cancel: CancellationToken::new(),
            };
            let cutting = Cutting { format, document: None, record_max_bytes };
            let blocks = tokio::task::spawn_blocking(move || {
                let mut blocks = Blocks::open(&file, &opening, &cutting, block_bytes, None)?;
                let mut all = Vec::new();
                while let Some(block) = blocks.next_block()? {
                    all.push(block);
                }
                Ok::<_, Error>(all)
            });
            blocks.await.expect("no panic").expect("cut")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_of_any_size_are_the_file_cut_between_records(
            fields in proptest::collection::vec("[a-z,\"\n]{0,30}", 1..60),
            block_bytes in 1usize..300,
        ) {
            let text: String = fields.iter().map(|field| format!("1,\"{}\"\n", field.replace('"', "\"\""))).collect();
            let blocks = cut(text.as_bytes(), Arc::new(CsvFormat::default()), block_bytes, 1 << 20);
            let mut line = 1;
            for block in &blocks {
                prop_assert!(block.bytes.starts_with(b"1,\"") && block.bytes.ends_with(b"\"\n"), "a block starts and ends with a record");
                prop_assert_eq!(block.first_line, line);
                line += memchr::memchr_iter(b'\n', &block.bytes).count() as u64;
            }
            let whole: Vec<u8> = blocks.into_iter().flat_map(|block| block.bytes.to_vec()).collect();
            prop_assert_eq!(String::from_utf8(whole).expect("text"), text);
        }
    }

    #[test]
    fn a_record_without_end_is_passed_over_in_bounded_memory() {
        let text = format!("{{\"a\":1}}\n{{\"a\":\"{}\"}}\n{{\"a\":2}}\n", "x".repeat(100_000));
        let blocks = cut(text.as_bytes(), Arc::new(NdjsonFormat::default()), 1_000, 5_000);
        let seen: Vec<(String, u64, usize)> =
            blocks.iter().map(|block| (String::from_utf8_lossy(&block.bytes).into_owned(), block.first_line, block.bad.len())).collect();
        assert_eq!(seen, [("{\"a\":1}\n".into(), 1, 0), (String::new(), 3, 1), ("{\"a\":2}\n".into(), 3, 0)]);
        let bad = &blocks[1].bad[0];
        assert_eq!((bad.line, bad.code), (2, "malformed"));
        assert_eq!(bad.reason, "the record has 100008 bytes, more than \"record_max\" allows (5000)");
        assert!(bad.raw.starts_with("{\"a\":\"xxx") && bad.raw.ends_with("(100008 bytes)"));
    }
}
