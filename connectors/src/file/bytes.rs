//! A file as a stream of bytes: decompressed, and as UTF-8 where it is text. Used on blocking threads only.
//! Where one record ends and the next starts is the formats'.

use std::{
    io::{self, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::{Buf, Bytes};
use encoding_rs::{Decoder, DecoderResult};
use futures::{StreamExt, stream::BoxStream};
use object_store::ObjectStoreExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::list::{self, FoundFile, Location};
use crate::{
    context::ReadCount,
    error::{Error, Result},
};

/// How a file's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, several members too (`.gz`).
    Gzip,
    /// Zstandard, several frames too (`.zst`).
    Zstd,
    /// bzip2, several streams too (`.bz2`).
    Bzip2,
    /// xz, several streams too (`.xz`).
    Xz,
}

impl Compression {
    /// Splits what the name's last extension says from the rest of the name.
    pub fn of_name(name: &str) -> (Self, &str) {
        let lower = name.to_ascii_lowercase();
        let known = [
            (".gz", Self::Gzip),
            (".gzip", Self::Gzip),
            (".zst", Self::Zstd),
            (".zstd", Self::Zstd),
            (".bz2", Self::Bzip2),
            (".xz", Self::Xz),
        ];
        let found = known.into_iter().find(|(extension, _)| lower.ends_with(extension));
        found.map_or((Self::None, name), |(extension, compression)| (compression, &name[..name.len() - extension.len()]))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

/// How a text file's bytes mean characters. A byte order mark at the start of the file is believed before this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little-endian where no byte order mark says otherwise.
    #[serde(rename = "utf-16")]
    Utf16,
    /// UTF-16, little-endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big-endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1, with what Windows-1252 adds to it.
    #[serde(rename = "latin1")]
    Latin1,
}

/// A file being read.
pub struct Input {
    reader: Box<dyn Read + Send>,
    name: String,
    compression: Compression,
    taken_bytes: Arc<AtomicU64>,
    outside_failed: Arc<AtomicBool>,
    cancel: CancellationToken,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("name", &self.name).field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// What opening a file takes besides the file.
#[derive(Debug, Clone)]
pub struct Opening {
    /// How it is packed; none given: what its name says.
    pub compression: Option<Compression>,
    /// How its text is encoded; none for what is not text.
    pub encoding: Option<Encoding>,
    /// It must be the file that was listed: what was learnt of it holds for no other, or it is remembered as read.
    pub as_listed: bool,
    /// Told how many bytes were taken, as stored; none while learning a schema.
    pub read: Option<Arc<ReadCount>>,
    /// The runtime that object stores are asked on.
    pub handle: Handle,
    /// Ends reading.
    pub cancel: CancellationToken,
}

impl Input {
    /// Opens a file. Never call it, nor read from it, on a thread that runs async tasks.
    pub fn open(file: &FoundFile, opening: &Opening) -> Result<Self> {
        let raw: Box<dyn Read + Send> = match &file.location {
            Location::Local(path) => Box::new(file.open_local(path, opening.as_listed)?),
            Location::Remote(store, path) => {
                let got = opening.handle.block_on(store.get(path)).map_err(|error| list::remote_error(&file.name, error))?;
                if opening.as_listed {
                    file.expect_remote(&got.meta)?;
                }
                Box::new(Remote {
                    chunks: got.into_stream(),
                    current: Bytes::new(),
                    handle: opening.handle.clone(),
                    cancel: opening.cancel.clone(),
                })
            }
        };
        let (taken_bytes, outside_failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let counted = Counted { raw, read: opening.read.clone(), taken_bytes: taken_bytes.clone(), failed: outside_failed.clone() };
        let compression = opening.compression.unwrap_or_else(|| Compression::of_name(&file.name).0);
        let mut input = Self {
            reader: Box::new(io::empty()),
            name: file.name.clone(),
            compression,
            taken_bytes,
            outside_failed,
            cancel: opening.cancel.clone(),
        };
        if compression != Compression::None && file.size_bytes == 0 {
            return Err(input.explain(io::ErrorKind::UnexpectedEof.into()));
        }
        let buffered = |counted| BufReader::with_capacity(256 * 1024, counted);
        input.reader = match compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(counted))),
            Compression::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(buffered(counted)).map_err(|error| input.explain(error))?)
            }
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(counted))),
            Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(buffered(counted))),
        };
        match opening.encoding {
            Some(encoding) => input.transcode(encoding),
            None => Ok(input),
        }
    }

    /// Looks for a byte order mark and turns what is not UTF-8 into it.
    fn transcode(mut self, encoding: Encoding) -> Result<Self> {
        let mut mark = Vec::with_capacity(3);
        (&mut self.reader).take(3).read_to_end(&mut mark).map_err(|error| self.explain(error))?;
        let (encoding, mark_bytes) = match mark.as_slice() {
            [0xEF, 0xBB, 0xBF] => (Encoding::Utf8, 3),
            [0xFF, 0xFE, ..] => (Encoding::Utf16Le, 2),
            [0xFE, 0xFF, ..] => (Encoding::Utf16Be, 2),
            _ => (encoding, 0),
        };
        mark.drain(..mark_bytes);
        let whole: Box<dyn Read + Send> =
            Box::new(Read::chain(Cursor::new(mark), std::mem::replace(&mut self.reader, Box::new(io::empty()))));
        let from = match encoding {
            Encoding::Utf8 => None,
            Encoding::Utf16 | Encoding::Utf16Le => Some(encoding_rs::UTF_16LE),
            Encoding::Utf16Be => Some(encoding_rs::UTF_16BE),
            Encoding::Latin1 => Some(encoding_rs::WINDOWS_1252),
        };
        self.reader = match from {
            None => whole,
            Some(from) => Box::new(Transcoder {
                inner: whole,
                decoder: from.new_decoder_without_bom_handling(),
                source: Vec::new(),
                output: Vec::new(),
                output_at: 0,
                ended: false,
            }),
        };
        Ok(self)
    }

    /// Fills `to`, and says how much of it; not all only where the file ends.
    pub fn fill(&mut self, to: &mut [u8]) -> Result<usize> {
        let mut got = 0;
        while got < to.len() {
            if self.cancel.is_cancelled() {
                return Err(interrupted());
            }
            match self.reader.read(&mut to[got..]) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        Ok(got)
    }

    fn explain(&self, error: io::Error) -> Error {
        let (name, at) = (&self.name, self.taken_bytes.load(Ordering::Relaxed));
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            return unwrap_io(error);
        }
        if self.outside_failed.load(Ordering::Relaxed) || self.compression == Compression::None {
            return Error::system("unreadable", format!("cannot read \"{name}\" at byte {at}: {error}")).later();
        }
        let packed = self.compression.as_str();
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::user("truncated", format!("\"{name}\" ends at byte {at} in the middle of its {packed} data"))
                .setting("path")
                .help("the file was cut short; write or fetch it again");
        }
        Error::user("corrupt", format!("\"{name}\" is not valid {packed} data near byte {at}: {error}"))
            .setting("path")
            .help("fetch the file again, or set \"compression\" if its name misleads")
    }
}

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(interrupted()));
        }
        self.reader.read(to).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(self.explain(error)),
        })
    }
}

/// What a reader answers once the run is cancelled.
pub(super) fn interrupted() -> Error {
    Error::system("interrupted", "reading was interrupted")
}

/// Takes the connector's error out of an I/O error that [`Input`] made.
pub(super) fn unwrap_io(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::system("unreadable", error.to_string()).because(error),
    }
}

/// Counts what is taken, and remembers whether the outside failed rather than what is in the bytes.
struct Counted {
    raw: Box<dyn Read + Send>,
    read: Option<Arc<ReadCount>>,
    taken_bytes: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Read for Counted {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let got = self.raw.read(to).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed.store(true, Ordering::Relaxed);
            }
        })?;
        self.taken_bytes.fetch_add(got as u64, Ordering::Relaxed);
        if let Some(read) = &self.read {
            read.add_bytes(got as u64);
        }
        Ok(got)
    }
}

/// An object's chunks, waited for on a blocking thread.
struct Remote {
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    current: Bytes,
    handle: Handle,
    cancel: CancellationToken,
}

impl Read for Remote {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let (chunks, cancel) = (&mut self.chunks, &self.cancel);
            let next = self.handle.block_on(async {
                tokio::select! {
                    next = chunks.next() => Ok(next),
                    () = cancel.cancelled() => Err(io::Error::other(interrupted())),
                }
            })?;
            match next {
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let taken = to.len().min(self.current.len());
        self.current.copy_to_slice(&mut to[..taken]);
        Ok(taken)
    }
}

/// Turns another encoding into UTF-8. What is no character becomes the byte 0xFF, which no text holds, so that the
/// record around it is seen to be malformed rather than quietly changed.
struct Transcoder {
    inner: Box<dyn Read + Send>,
    decoder: Decoder,
    source: Vec<u8>,
    output: Vec<u8>,
    output_at: usize,
    ended: bool,
}

impl Transcoder {
    fn refill(&mut self) -> io::Result<()> {
        self.source.clear();
        let got = (&mut self.inner).take(64 * 1024).read_to_end(&mut self.source)?;
        self.ended = got == 0;
        let room = self.decoder.max_utf8_buffer_length_without_replacement(self.source.len()).unwrap_or(4 * 64 * 1024);
        self.output.clear();
        self.output_at = 0;
        let mut source = self.source.as_slice();
        loop {
            let start = self.output.len();
            self.output.resize(start + room, 0);
            let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(source, &mut self.output[start..], self.ended);
            source = &source[read..];
            self.output.truncate(start + written);
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => self.output.push(0xFF),
            }
        }
    }
}

impl Read for Transcoder {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.output_at == self.output.len() {
            if self.ended {
                return Ok(0);
            }
            self.refill()?;
        }
        let taken = to.len().min(self.output.len() - self.output_at);
        to[..taken].copy_from_slice(&self.output[self.output_at..self.output_at + taken]);
        self.output_at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::HashMap, io::Write, path::Path};

    use super::*;

    /// Packs bytes, in two members where the packing knows such a thing.
    pub fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let one = |part: &[u8]| -> Vec<u8> {
            match compression {
                Compression::None => part.to_vec(),
                Compression::Gzip => {
                    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(part).and_then(|()| encoder.finish()).expect("gzip")
                }
                Compression::Zstd => zstd::encode_all(part, 1).expect("zstd"),
                Compression::Bzip2 => {
                    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                    encoder.write_all(part).and_then(|()| encoder.finish()).expect("bzip2")
                }
                Compression::Xz => {
                    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                    encoder.write_all(part).and_then(|()| encoder.finish()).expect("xz")
                }
            }
        };
        let (left, right) = bytes.split_at(bytes.len() / 3);
        [one(left), one(right)].concat()
    }

    async fn read(folder: &Path, name: &str, encoding: Option<Encoding>) -> Result<(Vec<u8>, u64)> {
        let file = list::list(&[name.into()], folder, None, &HashMap::new()).await?.remove(0);
        let count = Arc::new(ReadCount::default());
        let opening = Opening {
            compression: None,
            encoding,
            as_listed: true,
            read: Some(count.clone()),
            handle: Handle::current(),
            cancel: CancellationToken::new(),
        };
        let read = move || {
            let mut input = Input::open(&file, &opening)?;
            let (mut bytes, mut part) = (Vec::new(), [0; 1000]);
            loop {
                let got = input.fill(&mut part)?;
                bytes.extend_from_slice(&part[..got]);
                if got < part.len() {
                    return Ok((bytes, count.bytes()));
                }
            }
        };
        tokio::task::spawn_blocking(read).await.expect("no panic")
    }

    #[tokio::test]
    async fn every_packing_is_undone_over_several_members() {
        let dir = tempfile::tempdir().expect("a folder");
        let text: Vec<u8> = (0..20_000).flat_map(|i| format!("{i},row {i}\n").into_bytes()).collect();
        for (name, compression) in [
            ("a.csv", Compression::None),
            ("a.csv.gz", Compression::Gzip),
            ("a.csv.ZST", Compression::Zstd),
            ("a.bz2", Compression::Bzip2),
            ("a.xz", Compression::Xz),
        ] {
            let packed = pack(&text, compression);
            std::fs::write(dir.path().join(name), &packed).expect("a file");
            let (bytes, taken) = read(dir.path(), name, None).await.expect("readable");
            assert!(bytes == text, "{name} reads as what was packed");
            assert_eq!(taken, packed.len() as u64, "{name} counts stored bytes");
        }
    }

    #[tokio::test]
    async fn a_truncated_file_fails_with_its_name_and_offset() {
        let dir = tempfile::tempdir().expect("a folder");
        let text: Vec<u8> = (0..50_000u32).flat_map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        for (name, compression) in
            [("a.gz", Compression::Gzip), ("a.zst", Compression::Zstd), ("a.bz2", Compression::Bzip2), ("a.xz", Compression::Xz)]
        {
            let packed = pack(&text, compression);
            let cut = packed.len() - 40;
            std::fs::write(dir.path().join(name), &packed[..cut]).expect("a file");
            let error = read(dir.path(), name, None).await.expect_err("truncated");
            let packing = compression.as_str();
            assert_eq!(
                (error.code, error.message),
                ("truncated", format!("\"{name}\" ends at byte {cut} in the middle of its {packing} data"))
            );
            assert_eq!(error.setting.as_deref(), Some("path"));
            std::fs::write(dir.path().join(name), "").expect("a file");
            assert_eq!(read(dir.path(), name, None).await.expect_err("nothing in it").code, "truncated");
            std::fs::write(dir.path().join(name), "plain text, whatever its name says\n".repeat(20)).expect("a file");
            assert_eq!(read(dir.path(), name, None).await.expect_err("not packed").code, "corrupt", "{name}");
        }
    }

    #[tokio::test]
    async fn encodings_become_utf8_and_marks_vanish() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "naïve,€,😀\n";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let cases: [(Vec<u8>, Encoding); 6] = [
            (text.as_bytes().to_vec(), Encoding::Utf8),
            ([b"\xEF\xBB\xBF", text.as_bytes()].concat(), Encoding::Utf8),
            ([b"\xFF\xFE", le.as_slice()].concat(), Encoding::Utf8),
            ([b"\xFE\xFF", be.as_slice()].concat(), Encoding::Utf16),
            (le, Encoding::Utf16),
            (be, Encoding::Utf16Be),
        ];
        for (bytes, encoding) in cases {
            std::fs::write(dir.path().join("a.csv"), bytes).expect("a file");
            let (bytes, _) = read(dir.path(), "a.csv", Some(encoding)).await.expect("readable");
            assert_eq!(String::from_utf8(bytes).expect("UTF-8"), text, "{encoding:?}");
        }
        std::fs::write(dir.path().join("a.csv"), b"na\xEFve \x80\n").expect("a file");
        let (bytes, _) = read(dir.path(), "a.csv", Some(Encoding::Latin1)).await.expect("readable");
        assert_eq!(String::from_utf8(bytes).expect("UTF-8"), "naïve €\n");
    }

    #[tokio::test]
    async fn half_a_character_is_left_visible_as_no_text() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("a.csv"), [0xFF, 0xFE, b'a', 0, 0x00, 0xD8, b'b', 0]).expect("a file");
        let (bytes, _) = read(dir.path(), "a.csv", Some(Encoding::Utf8)).await.expect("readable");
        assert_eq!(bytes, b"a\xFFb");
    }

    #[tokio::test]
    async fn an_object_store_is_read_like_a_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "a,b\n1,2\n".repeat(100_000);
        std::fs::write(dir.path().join("a.csv.gz"), pack(text.as_bytes(), Compression::Gzip)).expect("a file");
        let url = format!("file://{}/a.csv.gz", dir.path().canonicalize().expect("a path").display());
        let (bytes, _) = read(dir.path(), &url, Some(Encoding::Utf8)).await.expect("readable");
        assert!(bytes == text.as_bytes());
    }
}
