//! The `file` kind: CSV, TSV, NDJSON, JSON, Parquet, Arrow IPC and Avro files, on disks and in object stores.
//!
//! As a source it reads one file, a list, a glob (`*` within a folder, `**` across folders, `{a,b}`, `[0-9]`) or a folder.
//! Files are read in the order of their names; a column that only some of them have is null in the others; columns go by
//! name, so their order may differ from file to file. Types come from the step's contract; a column that it does not
//! declare has the narrowest type that holds every value of the input. A record that cannot be read, or a value that is
//! not of its type, makes a bad row with file and line; the rows around it are read.
//!
//! As a sink it writes one file anew (`replace`), or one more file into a folder (`append`). Rows are written to a hidden
//! file beside the target, which takes the target's place when the run publishes.
//!
//! Credentials of object stores are taken from the environment: `AWS_*`, `AZURE_*`, `GOOGLE_*`.

pub mod block;
pub mod blocks;
pub mod buffer;
pub mod bytes;
pub mod columnar;
pub mod csv;
pub mod json_document;
pub mod list;
pub mod ndjson;
mod parquet;
pub mod reading;
pub mod scan;
pub mod sink;
pub mod source;
pub mod write;

use std::{fmt, path::PathBuf, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use weir_pipelines::{Diagnostic, Diagnostics, Settings, units};

pub use self::{
    bytes::{Compression, Encoding},
    sink::FileSink,
};
use crate::{
    Asked, Config, Opened, SinkKind, Source, SourceKind,
    context::SourceContext,
    error::{Error, Result},
};

/// Reads files of rows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// What to read: a file, a folder, a pattern, a URL (`s3://`, `gs://`, `az://`, `abfss://`, `https://`), or a list of
    /// these. Relative paths start from the pipeline's folder. Example: `"data/flights/*.csv.gz"`.
    pub path: Paths,
    /// The files' format. Default: by the extension under that of the compression. Example: `"csv"`.
    pub format: Option<Format>,
    /// How the files are packed: none, gzip, zstd, bzip2 or xz. Default: by extension. Example: `"gzip"`.
    pub compression: Option<Compression>,
    /// The characters of text files: utf-8, utf-16, utf-16le, utf-16be or latin1. A byte order mark goes before it. Default
    /// utf-8. Example: `"latin1"`.
    #[serde(default)]
    pub encoding: Encoding,
    /// How CSV and TSV are written. Example: `{ delimiter = ";", decimal = "," }`.
    #[serde(default)]
    pub csv: CsvSettings,
    /// Where records are in JSON. Example: `{ records = "data.items" }`.
    #[serde(default)]
    pub json: JsonSettings,
    /// Records that types are inferred from, where no contract declares them. Default: all. A value that breaks an inferred
    /// type later makes its row a bad one. Example: `10000`.
    pub infer_rows: Option<u64>,
    /// Whether `key=value` folders on the way to a file are columns; whole numbers and dates get their types. Such a column
    /// goes before one of the same name inside the file. Default: those below a folder that is read, or within a pattern,
    /// are. Example: `false`.
    pub hive: Option<bool>,
    /// Columns to add at the end: `_file` (path or URL) and `_row` (line of a text file, else number of the record).
    /// Default: none. Example: `["_file", "_row"]`.
    #[serde(default)]
    pub metadata: Vec<Metadata>,
    /// The longest record of a text file; a longer one is a bad row. Default 16MB. Example: `"64MB"`.
    #[serde(default)]
    pub record_max: RecordMax,
    /// The folder that files on disks lie within, links followed; none of a pipeline's.
    #[serde(skip)]
    pub within: Option<PathBuf>,
}

/// One path, or several.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Paths {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Paths {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Paths;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<Paths, E> {
                Ok(Paths::One(path.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Paths, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                match paths.is_empty() {
                    true => Err(de::Error::custom("the list of paths is empty")),
                    false => Ok(Paths::Several(paths)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How rows are laid out in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines of values between commas, or another `csv.delimiter` (`.csv`).
    Csv,
    /// Lines of values between tabs (`.tsv`, `.tab`).
    Tsv,
    /// One JSON object per line (`.ndjson`, `.jsonl`).
    Ndjson,
    /// An array of JSON objects, or a document that holds one under `json.records` (`.json`).
    Json,
    /// Apache Parquet (`.parquet`, `.pq`).
    Parquet,
    /// Arrow IPC, file or stream (`.arrow`, `.arrows`, `.ipc`, `.feather`).
    Arrow,
    /// Avro object container files (`.avro`).
    Avro,
}

impl Format {
    /// What a file's extension says.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, name) = Compression::of_name(name);
        let (_, extension) = name.rsplit_once('/').map_or(name, |(_, name)| name).rsplit_once('.')?;
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "ndjson" | "jsonl" => Self::Ndjson,
            "json" => Self::Json,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "arrows" | "ipc" | "feather" => Self::Arrow,
            "avro" => Self::Avro,
            _ => return None,
        })
    }

    /// The word a person writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Avro => "avro",
        }
    }

    /// Says whether records are text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Ndjson | Self::Json)
    }
}

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSettings {
    /// The character between values, one of ASCII. Default `,`, and a tab for the format tsv. Example: `";"`.
    pub delimiter: Option<Character>,
    /// The character around values that hold a delimiter or a line break; doubled inside them. `""`: none. Default `"`.
    /// Example: `"'"`.
    #[serde(deserialize_with = "quote")]
    #[schemars(with = "Option<String>")]
    pub quote: Option<Character>,
    /// Whether the first line holds the columns' names. Without, they are `column_1`, `column_2`, …
    /// Default true. Example: `false`.
    pub header: bool,
    /// Spellings of null besides nothing at all. Default: none. Example: `["NA", "\\N"]`.
    pub null: Vec<String>,
    /// The decimal separator, `.` or `,`. Default `.`. Example: `","`.
    pub decimal: Decimal,
    /// Lines that start with this character are passed over. Default: none. Example: `"#"`.
    pub comment: Option<Character>,
}

impl Default for CsvSettings {
    fn default() -> Self {
        Self { delimiter: None, quote: Some(Character(b'"')), header: true, null: Vec::new(), decimal: Decimal::Point, comment: None }
    }
}

fn quote<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Character>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { Character::try_from(text).map(Some).map_err(de::Error::custom) }
}

/// One ASCII character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Character(pub u8);

impl TryFrom<String> for Character {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() && *byte != b'\n' && *byte != b'\r' => Ok(Self(*byte)),
            _ => Err(format!("\"{}\" is not one ASCII character", text.escape_default())),
        }
    }
}

/// A decimal separator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Decimal {
    /// `1.5`
    #[default]
    #[serde(rename = ".")]
    Point,
    /// `1,5`
    #[serde(rename = ",")]
    Comma,
}

/// Where records are in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonSettings {
    /// The path to the array of records, names with `.` between them. Default: the document is the array. Example:
    /// `"data.items"`.
    pub records: Option<String>,
}

/// A column about where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Metadata {
    /// The path or URL of the row's file.
    #[serde(rename = "_file")]
    File,
    /// The line a text record starts on, or the number of the record in a binary file, from 1.
    #[serde(rename = "_row")]
    Row,
}

/// The longest record, as a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct RecordMax(pub usize);

impl Default for RecordMax {
    fn default() -> Self {
        Self(16_000_000)
    }
}

impl TryFrom<String> for RecordMax {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bytes = units::size_bytes(&text)?;
        // Beyond a gigabyte, offsets in Arrow's text columns run out.
        usize::try_from(bytes).ok().filter(|bytes| (1..=1 << 30).contains(bytes)).map(Self).ok_or("a record has 1 byte to 1GiB".into())
    }
}

impl Config for FileSource {
    const KIND: &'static str = "file";
    const SUMMARY: &'static str = "CSV, TSV, NDJSON, JSON, Parquet, Arrow and Avro files, local or in object stores";
    const EXAMPLE: &'static str = r#"[source.flights.file]
path = "data/flights/*.csv.gz"
csv.null = ["NA"]
"#;
}

#[async_trait]
impl Source for FileSource {
    async fn open(&self, cx: &SourceContext) -> Result<Opened> {
        source::open(self, cx).await
    }

    fn outside(&self) -> Option<Asked> {
        self.asked()
    }

    fn recall(&self, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
        source::recall(self, own, cx)
    }
}

/// The source.
pub const SOURCE: SourceKind = SourceKind {
    kind: FileSource::KIND,
    summary: FileSource::SUMMARY,
    example: FileSource::EXAMPLE,
    schema: || schemars::schema_for!(FileSource),
    read: |settings| {
        let source: FileSource = settings.read()?;
        check(settings, &[source.check()])?;
        Ok(Arc::new(source))
    },
};

/// The sink.
pub const SINK: SinkKind = SinkKind {
    kind: FileSink::KIND,
    summary: FileSink::SUMMARY,
    example: FileSink::EXAMPLE,
    schema: || schemars::schema_for!(FileSink),
    read: |settings| {
        let sink: FileSink = settings.read()?;
        check(settings, &[sink.check()])?;
        Ok(Arc::new(sink))
    },
    types: Vec::new,
    column: |_| None,
    resume: sink::resume,
};

/// Points at the settings that errors name.
fn check(settings: &Settings, checks: &[Result<()>]) -> Result<(), Diagnostics> {
    let wrong: Diagnostics = checks
        .iter()
        .filter_map(|check| check.as_ref().err())
        .map(|error| {
            let span = error.setting.as_ref().map_or(settings.span.clone(), |setting| settings.span_of(setting));
            let diagnostic = Diagnostic::error(error.code, error.message.clone()).at(&settings.file, span, "");
            error.help.iter().fold(diagnostic, |diagnostic, help| diagnostic.help(help.clone()))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

impl FileSource {
    /// Says what does not go together, as far as settings alone can tell.
    fn check(&self) -> Result<()> {
        if let (Some(compression), Some(format)) = (self.compression, self.format)
            && format == Format::Parquet
            && compression != Compression::None
        {
            return Err(Error::user("wrong-value", "parquet files pack their own contents")
                .setting("compression")
                .help("remove \"compression\""));
        }
        if self.infer_rows == Some(0) {
            return Err(Error::user("wrong-value", "types cannot be inferred from 0 records")
                .setting("infer_rows")
                .help("write 1 or more"));
        }
        let csv = &self.csv;
        if csv.quote.is_some() && csv.quote == csv.delimiter {
            return Err(Error::user("wrong-value", "quote and delimiter are the same character").setting("csv.quote"));
        }
        if csv.decimal == Decimal::Comma && csv.delimiter.is_none() && self.format == Some(Format::Csv) {
            return Err(Error::user("wrong-value", "a comma separates both values and decimals")
                .setting("csv.decimal")
                .help("set \"csv.delimiter\", for instance to \";\""));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_say_format_and_compression() {
        assert_eq!(Format::of_name("a/b.csv.gz"), Some(Format::Csv));
        assert_eq!(Format::of_name("a.d/B.JSONL"), Some(Format::Ndjson));
        assert_eq!(Format::of_name("s3://b.csv/x"), None);
        assert_eq!(Format::of_name("x.parquet"), Some(Format::Parquet));
        assert_eq!(Compression::of_name("x.TSV.ZST"), (Compression::Zstd, "x.TSV"));
    }

    #[test]
    fn settings_read_what_their_docs_show() {
        let source: FileSource = toml::from_str(
            "path = [\"a.csv\", \"b.csv\"]\nformat = \"csv\"\ncompression = \"gzip\"\nencoding = \"utf-16\"\ninfer_rows = 10000\nhive = false\n\
             metadata = [\"_file\", \"_row\"]\ncsv = { delimiter = \";\", quote = \"'\", header = false, null = [\"NA\"], decimal = \",\", comment = \"#\" }\n\
             json = { records = \"data.items\" }",
        )
        .expect("settings");
        assert_eq!(source.path.all(), ["a.csv", "b.csv"]);
        assert_eq!((source.csv.delimiter, source.csv.quote), (Some(Character(b';')), Some(Character(b'\''))));
        assert_eq!((source.csv.decimal, source.csv.comment), (Decimal::Comma, Some(Character(b'#'))));
        assert_eq!(source.metadata, [Metadata::File, Metadata::Row]);
        assert_eq!(source.json.records.as_deref(), Some("data.items"));
        assert!(source.check().is_ok());
    }

    #[test]
    fn wrong_settings_are_named() {
        let wrong = |text: &str| toml::from_str::<FileSource>(text).expect_err("wrong").message().to_owned();
        assert!(wrong("path = \"a\"\ncsv = { delimeter = \";\" }").contains("unknown field `delimeter`"));
        assert!(wrong("path = \"a\"\ncsv = { delimiter = \";;\" }").contains("\";;\" is not one ASCII character"));
        assert!(wrong("path = []").contains("the list of paths is empty"));
        assert!(wrong("path = 3").contains("a path or a list of paths"));
        assert!(wrong("format = \"csv\"").contains("missing field `path`"));
        let comma: FileSource = toml::from_str("path = \"a\"\nformat = \"csv\"\ncsv.decimal = \",\"").expect("settings");
        assert_eq!(comma.check().expect_err("ambiguous").setting.as_deref(), Some("csv.decimal"));
    }

    #[test]
    fn examples_are_settings() {
        let table: toml::Table = toml::from_str(FileSource::EXAMPLE).expect("TOML");
        let settings = table["source"]["flights"]["file"].clone();
        settings.try_into::<FileSource>().expect("source settings");
        let table: toml::Table = toml::from_str(FileSink::EXAMPLE).expect("TOML");
        let settings = table["sink"]["export"]["file"].clone();
        settings.try_into::<FileSink>().expect("sink settings");
    }
}
