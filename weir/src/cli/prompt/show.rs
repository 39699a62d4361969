//! Where does an answer of the prompt go, and how is it drawn? To the terminal, through a pager where it is long, or to a file.

use std::{
    fs,
    io::{BufWriter, Write},
    path::PathBuf,
};

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use weir_engine::Failure;
use weir_pipelines::Diagnostic;

use super::{
    command::Expand,
    pager::{self, Pager},
};
use crate::{
    cli::{
        context::{Context, Stop},
        sql::{copy, to_file},
    },
    project,
    render::{
        Style,
        number::counted,
        rows::{Format, RowsWriter},
    },
};

/// Rows by which `\x auto` judges how wide a table is.
const JUDGED: usize = 1000;
/// What a terminal is taken to be where it does not say.
const SCREEN: (usize, usize) = (80, 24);

/// How answers are shown.
#[derive(Debug)]
pub struct Display {
    /// Their format on the terminal.
    pub format: Format,
    /// Whether tables are drawn with a line for each value.
    pub expand: Expand,
    /// What stands for null.
    pub null: String,
    /// Whether to say how long each took.
    pub timing: bool,
    /// The command that long ones go through; none where they do not.
    pub pager: Option<String>,
    /// The file they go to; none for the terminal.
    pub output: Option<Output>,
    /// Columns and lines of the terminal; none where the answer goes to no terminal.
    pub screen: Option<(usize, usize)>,
}

/// A file of answers.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    format: Format,
    /// How many it holds.
    answers: u64,
}

impl Output {
    /// A file whose name says its format, else in one that is for people.
    pub fn new(path: PathBuf, format: Format) -> Result<Self, Diagnostic> {
        let format = match (Format::of_path(&path), path.extension()) {
            (Some(by_name), _) => by_name,
            (None, None) => format,
            (None, Some(_)) => {
                let message = format!("the name \"{}\" does not say which format is meant", path.display());
                return Err(Diagnostic::error("usage", message).help("end it in .csv, .json, .ndjson, .parquet, .md or .txt"));
            }
        };
        Ok(Self { path, format, answers: 0 })
    }
}

impl Display {
    /// How answers are shown at first.
    pub fn new(context: &Context, format: Format) -> Self {
        let pager = pager::command(&context.environment);
        Self { format, expand: Expand::Off, null: "NULL".to_owned(), timing: false, pager, output: None, screen: None }
    }

    /// Shows the rows of an answer, and returns how many there are.
    pub async fn rows(&mut self, context: &Context, stream: SendableRecordBatchStream) -> Result<u64, Stop> {
        match &mut self.output {
            Some(output) => output.add(context, stream).await,
            None => self.on_terminal(context, stream).await,
        }
    }

    /// Shows a text that answers a command.
    pub fn text(&mut self, context: &Context, text: &str) -> Result<(), Stop> {
        let mut pager = self.pager();
        let _lent = context.signals.lend();
        let written = tokio::task::block_in_place(|| pager.write_all(text.as_bytes()));
        let is_paged = pager.is_started();
        let ended = tokio::task::block_in_place(|| pager.finish());
        match written.and(ended) {
            Err(_) if is_paged => Ok(()),
            other => other.map_err(|error| Stop::output(&error)),
        }
    }

    fn pager(&self) -> Pager {
        let lines = self.screen.unwrap_or(SCREEN).1;
        Pager::new(self.pager.clone().filter(|_| self.screen.is_some()), lines)
    }

    async fn on_terminal(&self, context: &Context, mut stream: SendableRecordBatchStream) -> Result<u64, Stop> {
        let schema = stream.schema();
        let mut head: Vec<RecordBatch> = Vec::new();
        let format = match (self.format, self.expand) {
            (Format::Table, Expand::On) => Format::Expanded,
            (Format::Table, Expand::Auto) => {
                let mut rows = 0;
                while rows < JUDGED
                    && let Some(batch) = stream.next().await
                {
                    let batch = batch.map_err(|error| weir_engine::run::explain(&error))?;
                    rows += batch.num_rows();
                    head.push(batch);
                }
                let mut drawn = Vec::new();
                let mut writer = RowsWriter::new(&mut drawn, Format::Table, &schema, Style::PLAIN).map_err(Stop::rows)?.null(&self.null);
                head.iter().try_for_each(|batch| writer.write(batch)).map_err(Stop::rows)?;
                writer.finish().map_err(Stop::rows)?;
                if is_wider(&drawn, self.screen.unwrap_or(SCREEN).0) { Format::Expanded } else { Format::Table }
            }
            (format, _) => format,
        };
        let mut pager = self.pager();
        let mut written = async || -> Result<u64, Stop> {
            let out = BufWriter::with_capacity(1 << 14, &mut pager);
            let mut writer = RowsWriter::new(out, format, &schema, context.out).map_err(Stop::rows)?.null(&self.null);
            head.iter().try_for_each(|batch| writer.write(batch)).map_err(Stop::rows)?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| weir_engine::run::explain(&error))?;
                tokio::task::block_in_place(|| writer.write(&batch)).map_err(Stop::rows)?;
            }
            writer.finish().map_err(Stop::rows)
        };
        let result = written().await;
        let is_paged = pager.is_started();
        // Whoever reads the answer ends the pager, also by Ctrl-C.
        let lent = context.signals.lend();
        let ended = tokio::task::block_in_place(|| pager.finish()).map_err(|error| Stop::output(&error));
        drop(lent);
        // Whoever ends a pager before the answer's end has seen enough.
        match result.and_then(|rows| ended.map(|()| rows)) {
            Err(Stop::PipeClosed) if is_paged => Ok(0),
            other => other,
        }
    }
}

/// Whether the line under a table's header is longer than a terminal.
fn is_wider(table: &[u8], columns: usize) -> bool {
    table.split(|byte| *byte == b'\n').nth(1).is_some_and(|rule| rule.len() > columns)
}

impl Output {
    async fn add(&mut self, context: &Context, stream: SendableRecordBatchStream) -> Result<u64, Stop> {
        if self.answers == 0 {
            let rows = to_file(context, &self.path, self.format, vec![stream]).await?;
            self.answers = 1;
            return Ok(rows);
        }
        if matches!(self.format, Format::Parquet | Format::Json) {
            let message = format!("\"{}\" holds the rows of one query already", self.path.display());
            return Err(Diagnostic::error("usage", message).help("name another file with \\o, or write CSV, NDJSON or Markdown").into());
        }
        let path = project::absolute(&self.path, &context.folder);
        let failed = |error| Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display()));
        let file = fs::File::options().append(true).create(true).open(&path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?.len();
        let out = BufWriter::with_capacity(1 << 16, file.try_clone().map_err(failed)?);
        let rows = copy(vec![stream], out, self.format, Style::PLAIN, |batch| Ok(Some(batch))).await;
        if rows.is_err() {
            // What came before stays whole.
            let _ = file.set_len(before);
        }
        let rows = rows?;
        self.answers += 1;
        context.say(&format!("{} added to {}", counted(rows, "row", "rows"), project::shown(&path, &context.folder)));
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_wide_by_the_line_under_its_header() {
        let table = b" a   | b\n-----+-----\n xxx |\n(1 row)\n";
        assert!(is_wider(table, 10) && !is_wider(table, 11));
        assert!(!is_wider(b"", 1));
    }

    #[test]
    fn a_file_says_its_format_by_its_name() {
        let format = |name: &str| Output::new(name.into(), Format::Table).map(|output| output.format).map_err(|found| found.message);
        assert_eq!(format("a.parquet"), Ok(Format::Parquet));
        assert_eq!(format("answers"), Ok(Format::Table));
        assert_eq!(format("a.xyz"), Err("the name \"a.xyz\" does not say which format is meant".to_owned()));
    }
}
