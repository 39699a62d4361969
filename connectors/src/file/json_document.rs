//! JSON documents whose records stand in an array somewhere inside: the array's elements, one a line, as NDJSON blocks.
//! The document is read once, forwards; memory holds a block and one element. What an element says is `ndjson.rs`'s to judge:
//! here only brackets, strings and commas are told apart, so that one bad element costs no other.
//!
//! The path to the records is dotted (`data.items`) or a JSON pointer (`/data/items`); a whole number steps into an array. What stands
//! there may also be a single object, which is one record then. "Lines" of these blocks are places in the array, from 1.

use std::io::{self, Read};

use super::{block::BadRecord, csv::values, ndjson::scan::Scan};
use crate::error::{Error, Result};

/// Bytes asked of the reader at a time.
const CHUNK: usize = 64 << 10;

/// Some records of a document.
#[derive(Debug, Default)]
pub struct DocumentBlock {
    /// Records, one a line, without white space outside strings. A record that is in `bad` has an empty line.
    pub text: Vec<u8>,
    /// The number of the first one, from 1: the `first_line` to decode with.
    pub first_line: u64,
    /// What is no record: an element that is too long, missing, or cut off by the file's end.
    pub bad: Vec<BadRecord>,
}

/// The records of one document.
#[derive(Debug)]
pub struct JsonRecords<R> {
    bytes: Bytes<R>,
    path: Vec<String>,
    /// The closing brackets of what the records stand in, outermost first.
    open: Vec<u8>,
    record_max_bytes: usize,
    /// Records handed out, bad ones included.
    count: u64,
    place: Place,
}

/// Where in a document reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Before an element of the array.
    Element,
    /// Past the last record.
    After,
    End,
}

/// Why a document cannot be read on.
#[derive(Debug)]
enum Stop {
    Io(io::Error),
    /// The document breaks off, or is no JSON.
    Torn(&'static str),
    /// There are no records at the path.
    Missing(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The steps of a path: `data.items`, `/data/items`, or nothing for the document itself.
pub fn steps(path: &str) -> Vec<String> {
    match path.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect(),
        None => path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect(),
    }
}

impl<R: Read> JsonRecords<R> {
    /// Reads the records at `path` (see [`steps`]; none: the document itself) of a document in UTF-8.
    pub fn new(reader: R, path: Option<&str>, record_max_bytes: usize) -> Self {
        let bytes = Bytes { reader, chunk: Vec::new(), at: 0, ended: false };
        Self { bytes, path: path.map(steps).unwrap_or_default(), open: vec![], record_max_bytes, count: 0, place: Place::Start }
    }

    /// Returns the next block of about `block_bytes`, none at the end. Fails with `json-records-missing` (setting `json.records`) where
    /// the path leads nowhere. A document that breaks off gives the whole records before that, and one bad one.
    pub fn next_block(&mut self, block_bytes: usize) -> Result<Option<DocumentBlock>> {
        let mut block = DocumentBlock { first_line: self.count + 1, ..DocumentBlock::default() };
        while self.place != Place::End && block.text.len() < block_bytes.max(1) {
            let mut element = Element::new(self.record_max_bytes);
            if let Err(stop) = self.step(&mut element, &mut block) {
                self.place = Place::End;
                match stop {
                    Stop::Torn(what) => self.bad(&element, what.into(), &mut block),
                    Stop::Io(error) => return Err(Error::system("file-read", format!("reading failed: {error}")).because(error)),
                    Stop::Missing(message) => {
                        return Err(Error::user("json-records-missing", message)
                            .setting("json.records")
                            .help("give the path to the array of records, names with \".\" between them"));
                    }
                }
            }
        }
        Ok((!block.text.is_empty()).then_some(block))
    }

    fn bad(&mut self, element: &Element, reason: String, block: &mut DocumentBlock) {
        self.count += 1;
        let mut raw = values::raw(&element.text);
        if element.length > element.text.len() as u64 {
            raw = format!("{raw}… (cut, {} bytes in all)", element.length);
        }
        block.bad.push(BadRecord { line: self.count, code: "malformed", column: None, reason, raw, fields: None });
        block.text.push(b'\n');
    }

    fn step(&mut self, element: &mut Element, block: &mut DocumentBlock) -> Result<(), Stop> {
        match self.place {
            Place::Start => {
                self.enter()?;
                match self.bytes.solid()? {
                    Some(b'[') => {
                        self.bytes.at += 1;
                        self.place = Place::Element;
                        if self.bytes.solid()? == Some(b']') {
                            self.bytes.at += 1;
                            self.place = Place::After;
                        }
                    }
                    Some(b'{') => {
                        if !self.bytes.value(element, b'}', true)? {
                            return Err(Stop::Torn("the file ends inside a record"));
                        }
                        self.record(element, block);
                        self.place = Place::After;
                    }
                    Some(_) => return Err(Stop::Missing("neither an array nor an object stands where the records should".into())),
                    None => return Err(Stop::Torn("the file ends before its records")),
                }
            }
            Place::Element => {
                if self.bytes.solid()?.is_none() {
                    return Err(Stop::Torn("the file ends before the array of records does"));
                }
                if !self.bytes.value(element, b']', false)? {
                    return Err(Stop::Torn("the file ends inside a record"));
                }
                self.record(element, block);
                // A comma, the bracket, or the file's end, which the next step finds.
                if self.bytes.peek()? == Some(b']') {
                    self.place = Place::After;
                }
                self.bytes.at += usize::from(self.bytes.peek()?.is_some());
            }
            Place::After => {
                self.place = Place::End;
                let mut rest = Element::new(0);
                while let Some(close) = self.open.pop() {
                    // `value` stops at commas and at the closing bracket.
                    loop {
                        self.bytes.value(&mut rest, close, false)?;
                        let stop = self.bytes.peek()?.ok_or(Stop::Torn("the file ends before the document does"))?;
                        self.bytes.at += 1;
                        if stop == close {
                            break;
                        }
                    }
                }
            }
            Place::End => {}
        }
        Ok(())
    }

    fn record(&mut self, element: &mut Element, block: &mut DocumentBlock) {
        if element.length >= self.record_max_bytes as u64 {
            self.bad(element, format!("record is longer than {} bytes", self.record_max_bytes), block);
        } else if element.text.is_empty() {
            self.bad(element, "nothing stands where a record should".into(), block);
        } else {
            self.count += 1;
            block.text.append(&mut element.text);
            block.text.push(b'\n');
        }
    }

    /// Walks to where the records stand.
    fn enter(&mut self) -> Result<(), Stop> {
        const TORN: Stop = Stop::Torn("the file ends, or is no JSON, before its records");
        for byte in *b"\xEF\xBB\xBF" {
            self.bytes.at += usize::from(self.bytes.peek()? == Some(byte));
        }
        for step in &self.path {
            let missing = |what: &str| Stop::Missing(format!("there is no {step:?} in {what}"));
            match self.bytes.solid()? {
                Some(b'{') => {
                    self.bytes.at += 1;
                    self.open.push(b'}');
                    loop {
                        match self.bytes.solid()? {
                            Some(b'"') => {}
                            Some(b'}') => return Err(missing("an object on the way to the records")),
                            _ => return Err(TORN),
                        }
                        let mut key = Element::new(CHUNK);
                        if !self.bytes.string(&mut key)? || self.bytes.solid()? != Some(b':') {
                            return Err(TORN);
                        }
                        self.bytes.at += 1;
                        if Scan::new(&key.text).string().is_ok_and(|name| *name == *step.as_bytes()) {
                            break;
                        }
                        self.bytes.value(&mut Element::new(0), b'}', false)?;
                        self.bytes.at += usize::from(self.bytes.peek()? == Some(b','));
                    }
                }
                Some(b'[') => {
                    self.bytes.at += 1;
                    self.open.push(b']');
                    let place: u64 = step.parse().map_err(|_| missing("an array on the way to the records"))?;
                    for _ in 0..place {
                        self.bytes.value(&mut Element::new(0), b']', false)?;
                        match self.bytes.peek()? {
                            Some(b',') => self.bytes.at += 1,
                            Some(_) => return Err(missing("an array on the way to the records")),
                            None => return Err(TORN),
                        }
                    }
                    if self.bytes.solid()? == Some(b']') {
                        return Err(missing("an array on the way to the records"));
                    }
                }
                Some(_) => return Err(missing("a plain value on the way to the records")),
                None => return Err(TORN),
            }
        }
        Ok(())
    }
}

/// A value that is being taken: its text as far as it is kept, and its full length.
#[derive(Debug)]
struct Element {
    text: Vec<u8>,
    length: u64,
    kept_max: usize,
}

impl Element {
    fn new(kept_max: usize) -> Self {
        Self { text: Vec::new(), length: 0, kept_max }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = self.kept_max - self.text.len();
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A reader's bytes, one chunk at a time.
#[derive(Debug)]
struct Bytes<R> {
    reader: R,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Bytes<R> {
    fn peek(&mut self) -> Result<Option<u8>, Stop> {
        while self.at >= self.chunk.len() && !self.ended {
            self.chunk.clear();
            self.at = 0;
            self.ended = self.reader.by_ref().take(CHUNK as u64).read_to_end(&mut self.chunk)? == 0;
        }
        Ok(self.chunk.get(self.at).copied())
    }

    /// Passes over white space.
    fn solid(&mut self) -> Result<Option<u8>, Stop> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                byte => return Ok(byte),
            }
        }
    }

    /// Takes what stands before the next comma or `close` outside all brackets, or one bracketed value when `one`.
    /// False when the file ends inside a bracket or a string.
    fn value(&mut self, element: &mut Element, close: u8, one: bool) -> Result<bool, Stop> {
        let mut depth = 0u64;
        loop {
            let Some(byte) = self.solid()? else { return Ok(depth == 0) };
            match byte {
                b'"' => {
                    if !self.string(element)? {
                        return Ok(false);
                    }
                    continue;
                }
                b',' if depth == 0 => return Ok(true),
                _ if byte == close && depth == 0 => return Ok(true),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            element.push(&[byte]);
            self.at += 1;
            if one && depth == 0 {
                return Ok(true);
            }
        }
    }

    /// Takes a string, quotes included; false when the file ends inside it.
    fn string(&mut self, element: &mut Element) -> Result<bool, Stop> {
        element.push(b"\"");
        self.at += 1;
        loop {
            if self.peek()?.is_none() {
                return Ok(false);
            }
            let rest = &self.chunk[self.at..];
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(rest.len());
            element.push(&rest[..plain]);
            self.at += plain;
            match self.peek()? {
                Some(b'"') => {
                    element.push(b"\"");
                    self.at += 1;
                    return Ok(true);
                }
                Some(b'\\') => {
                    element.push(b"\\");
                    self.at += 1;
                    if let Some(escaped) = self.peek()? {
                        element.push(if escaped == b'\n' { b"\r" } else { std::slice::from_ref(&escaped) });
                        self.at += 1;
                    }
                }
                // No string may hold it; a CR is as wrong, and does not end the line that this element becomes.
                Some(b'\n') => {
                    element.push(b"\r");
                    self.at += 1;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records and the bad ones' reasons, read three bytes at a time.
    fn read(document: &str, path: Option<&str>) -> Result<(Vec<String>, Vec<(u64, String)>)> {
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = self.0.len().min(3).min(buffer.len());
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let mut records = JsonRecords::new(Drops(document.as_bytes()), path, 100);
        let (mut lines, mut bad) = (vec![], vec![]);
        while let Some(block) = records.next_block(10)? {
            assert_eq!(block.first_line, lines.len() as u64 + 1, "a line for every record, bad ones too");
            lines.extend(String::from_utf8(block.text).unwrap().lines().map(str::to_owned));
            bad.extend(block.bad.into_iter().map(|bad| (bad.line, bad.reason)));
        }
        Ok((lines, bad))
    }

    fn good(document: &str, path: Option<&str>) -> Vec<String> {
        let (lines, bad) = read(document, path).unwrap();
        assert_eq!(bad, [], "{document}");
        lines
    }

    #[test]
    fn an_array_is_its_elements_one_a_line() {
        assert_eq!(good("[]", None), Vec::<String>::new());
        assert_eq!(
            good("\u{feff} [ {\"a\": [1, 2]} ,\n{ \"b\" : \"x, ]} \\\" y\" } ]\n", None),
            ["{\"a\":[1,2]}", "{\"b\":\"x, ]} \\\" y\"}"]
        );
    }

    #[test]
    fn a_path_leads_to_the_records() {
        let document = r#"{"meta": {"items": [9]}, "da\u0074a": {"n": 1, "items": [{"a":1},{"a":2}], "more": [[]]}, "z": "}"}"#;
        assert_eq!(good(document, Some("data.items")), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(good(document, Some("/data/items")), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(good(document, Some("data.items.1")), ["{\"a\":2}"]);
        assert_eq!(good(r#"{"a/b": [{}]}"#, Some("/a~1b")), ["{}"]);
        assert_eq!(good(r#" {"a":1} "#, None), ["{\"a\":1}"]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_an_error_of_its_setting() {
        for (document, path) in [("{\"a\": []}", "b"), ("[1]", "a"), ("{\"a\": 5}", "a.b"), ("{\"a\": 5}", "a"), ("[[]]", "3")] {
            let error = read(document, Some(path)).unwrap_err();
            assert_eq!((error.code, error.setting.as_deref()), ("json-records-missing", Some("json.records")), "{document} {path}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_whole_records_and_one_bad_one() {
        let document = r#"{"d": [{"a": "x"}, {"a": "y,"}, {"a": [3]}], "e": 1}"#;
        let whole = ["{\"a\":\"x\"}", "{\"a\":\"y,\"}", "{\"a\":[3]}"];
        for cut in 0..document.len() {
            let (lines, bad) = read(&document[..cut], Some("d")).unwrap();
            let records: Vec<&String> = lines.iter().filter(|line| !line.is_empty()).collect();
            assert_eq!(records, whole[..records.len()].iter().collect::<Vec<_>>(), "{cut}");
            assert_eq!(bad.len(), 1, "{cut} {bad:?}");
            let ends = [document.find("},").unwrap(), document.find("}, {\"a\": [").unwrap(), document.find("}]").unwrap()];
            assert_eq!(records.len(), ends.iter().filter(|end| cut > **end).count(), "{cut}");
        }
    }

    #[test]
    fn a_bad_element_costs_no_other() {
        let (lines, bad) = read("[{\"a\":1},,{\"a\":tru},{\"a\":\"x\ny\"},{\"a\":2},]", None).unwrap();
        assert_eq!(lines, ["{\"a\":1}", "", "{\"a\":tru}", "{\"a\":\"x\ry\"}", "{\"a\":2}", ""]);
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 6]);
        let long = format!("[{{\"a\":\"{}\"}},{{\"a\":1}}]", "x".repeat(200));
        let (lines, bad) = read(&long, None).unwrap();
        assert_eq!(lines, ["", "{\"a\":1}"]);
        assert_eq!(bad, [(1, "record is longer than 100 bytes".to_owned())]);
    }
}
