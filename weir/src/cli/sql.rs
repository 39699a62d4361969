//! `weir sql`: questions to the lake, the quarantine and the run history. Answers go to the terminal, a pipe or a file.

use std::{
    fs,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use datafusion::{execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchReceiverStream};
use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_engine::{Failure, query::Session};
use weir_pipelines::{Diagnostic, SourceFile};

use super::{
    context::{Answer, Context, Stop},
    prompt,
    statements::{Statement, split},
};
use crate::{
    project,
    render::{
        Style, error,
        number::counted,
        rows::{Format, RowsWriter},
    },
};

const EXAMPLES: &str = "\
Examples:
  weir sql                                                   a prompt with history and completion; \\? helps
  weir sql -c \"select carrier, count(*) from lake.flights.delays group by 1\"
  weir sql report.sql --format csv > report.csv
  weir sql -c \"select * from lake.flights.delays\" -o delays.parquet
  echo \"select * from weir.runs\" | weir sql --format markdown

Tables: lake.SCHEMA.TABLE, quarantine.PIPELINE.STEP, weir.runs, weir.books, weir.failing_rows. Queries only read.";

/// Ask the lake, the quarantine and the run history with SQL
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Sql {
    /// Files of SQL statements; - is standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "command")]
    files: Vec<PathBuf>,
    /// The statements themselves
    #[arg(short, long, value_name = "SQL")]
    command: Vec<String>,
    /// How rows are written [default: by the output's extension, else table]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Write the rows to a file; it appears when it is whole
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// A text of statements and what messages call it.
struct Input {
    name: String,
    text: String,
}

impl Sql {
    /// Asks and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let format = chosen(self.format, self.output.as_deref(), context)?;
        let interactive = self.command.is_empty() && self.files.is_empty() && io::stdin().is_terminal() && !context.global.json;
        if interactive && self.output.is_some() {
            return Err(Diagnostic::error("usage", "a file of rows needs a query")
                .help("give the query with -c, in a file, or on standard input")
                .into());
        }
        let workspace = context.workspace(None)?;
        if interactive {
            let session = Session::open(&workspace).await?;
            return prompt::answer(context, &workspace, &session, format).await;
        }
        let cancel = context.signals.work("stopping");
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Stop::Failure(Failure::Interrupted)),
            answer = self.all(context, &workspace, format) => answer,
        }
    }

    async fn all(&self, context: &Context, workspace: &weir_engine::Workspace, format: Format) -> Answer {
        let inputs = self.inputs(context).await?;
        let statements: Vec<(&Input, Statement<'_>)> =
            inputs.iter().flat_map(|input| split(&input.text).into_iter().map(move |statement| (input, statement))).collect();
        if statements.is_empty() {
            return Err(Diagnostic::error("no-query", "there is no SQL statement in the input")
                .help("give one with -c \"select …\"")
                .into());
        }
        if statements.len() > 1 && (self.output.is_some() || format == Format::Parquet) {
            let message = format!("one file holds the rows of one query, and there are {}", statements.len());
            return Err(Diagnostic::error("usage", message).help("run them one at a time").into());
        }
        if let Some((_, statement)) = statements.iter().find(|(_, statement)| statement.text.starts_with('\\')) {
            let word = statement.text.split_whitespace().next().unwrap_or_default();
            let message = format!("\"{word}\" is a command of the prompt, not SQL");
            return Err(Diagnostic::error("unknown-command", message).help("start the prompt with: weir sql").into());
        }
        let session = Session::open(workspace).await?;
        for (input, statement) in statements {
            let stream = query(&session, &input.name, &input.text, statement).await?;
            match &self.output {
                Some(path) => to_file(context, path, format, vec![stream]).await?,
                None => {
                    let style = context.out;
                    copy(vec![stream], BufWriter::with_capacity(1 << 16, io::stdout()), format, style, |batch| Ok(Some(batch))).await?;
                }
            }
        }
        Ok(error::DONE)
    }

    async fn inputs(&self, context: &Context) -> Result<Vec<Input>, Stop> {
        let mut inputs: Vec<Input> = self.command.iter().map(|text| Input { name: "<sql>".into(), text: text.clone() }).collect();
        for path in &self.files {
            if path == Path::new("-") {
                inputs.push(standard_input().await?);
                continue;
            }
            let file = project::read(&project::absolute(path, &context.folder), &context.folder)?;
            inputs.push(Input { name: file.path.clone(), text: file.text.clone() });
        }
        if inputs.is_empty() {
            inputs.push(standard_input().await?);
        }
        Ok(inputs)
    }
}

async fn standard_input() -> Result<Input, Stop> {
    // On a thread of its own, so that Ctrl-C is heard while nothing comes.
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes)
    });
    let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let bytes = read.map_err(|error| Failure::error("input-failed", format!("cannot read standard input: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Diagnostic::error("not-text", "standard input is not UTF-8 text"))?;
    Ok(Input { name: "<stdin>".into(), text })
}

/// The format asked for; one for machines never goes to a terminal by accident.
pub fn chosen(format: Option<Format>, output: Option<&Path>, context: &Context) -> Result<Format, Stop> {
    let by_name = output.and_then(Format::of_path);
    let format = match (format, output, by_name) {
        (Some(format), ..) | (None, _, Some(format)) => format,
        (None, Some(path), None) => {
            let message = format!("the name \"{}\" does not say which format is meant", path.display());
            return Err(Diagnostic::error("usage", message).help("add --format csv, json, ndjson, parquet, markdown or table").into());
        }
        (None, None, None) if context.global.json => Format::Json,
        (None, None, None) => Format::Table,
    };
    if format == Format::Parquet && output.is_none() && io::stdout().is_terminal() {
        return Err(Diagnostic::error("usage", "Parquet is not for terminals")
            .help("name a file with -o, or send the output to one")
            .into());
    }
    Ok(format)
}

/// Asks one statement. Diagnostics point into the whole text that holds it.
pub async fn query(session: &Session, name: &str, text: &str, statement: Statement<'_>) -> Result<SendableRecordBatchStream, Failure> {
    // A query ends with its stream: dropping it is how it is cancelled, so that no rows are ever taken for all rows.
    let stream = session.query(statement.text, CancellationToken::new()).await.map_err(|failure| match failure {
        Failure::Diagnostics(diagnostics) => {
            let whole = SourceFile::new(name, text);
            let moved = diagnostics.into_iter().map(|mut diagnostic| {
                if diagnostic.file.as_ref().is_some_and(|file| file.path == "<sql>") {
                    diagnostic.file = Some(whole.clone());
                    for label in &mut diagnostic.labels {
                        label.file = whole.clone();
                        label.span = label.span.start + statement.start..label.span.end + statement.start;
                    }
                }
                diagnostic
            });
            Failure::Diagnostics(moved.collect())
        }
        other => other,
    })?;
    Ok(apart(stream))
}

/// Moves the work of a stream off the task that waits for it, which can then hear Ctrl-C while a batch is long in the making.
fn apart(mut stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(stream.schema(), 2);
    let sender = builder.tx();
    builder.spawn(async move {
        while let Some(batch) = stream.next().await {
            // Nobody waits any more: the answer was given up.
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}

/// Writes streams of one schema as one answer and returns how many rows it has. `keep` may change or refuse a batch; nothing
/// returned ends the answer.
pub async fn copy<W: Write + Send>(
    streams: Vec<SendableRecordBatchStream>,
    out: W,
    format: Format,
    style: Style,
    mut keep: impl FnMut(arrow::array::RecordBatch) -> Result<Option<arrow::array::RecordBatch>, Stop>,
) -> Result<u64, Stop> {
    let Some(schema) = streams.first().map(|stream| stream.schema()) else { return Ok(0) };
    let mut writer = RowsWriter::new(out, format, &schema, style).map_err(Stop::rows)?;
    'streams: for mut stream in streams {
        while let Some(batch) = stream.next().await {
            let Some(batch) = keep(batch.map_err(|error| weir_engine::run::explain(&error))?)? else { break 'streams };
            writer.write(&batch).map_err(Stop::rows)?;
        }
    }
    writer.finish().map_err(Stop::rows)
}

/// Writes streams to a file beside the one named, which it becomes once it is whole.
pub async fn to_file(context: &Context, path: &Path, format: Format, streams: Vec<SendableRecordBatchStream>) -> Result<(), Stop> {
    to_file_with(context, path, format, streams, |batch| Ok(Some(batch))).await
}

/// Like [`to_file`], with the `keep` of [`copy`].
pub async fn to_file_with(
    context: &Context,
    path: &Path,
    format: Format,
    streams: Vec<SendableRecordBatchStream>,
    keep: impl FnMut(arrow::array::RecordBatch) -> Result<Option<arrow::array::RecordBatch>, Stop>,
) -> Result<(), Stop> {
    let path = project::absolute(path, &context.folder);
    let failed =
        |error: &io::Error| Stop::Failure(Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display())));
    let aside = Aside::new(&path).map_err(|error| failed(&error))?;
    let file = aside.create().map_err(|error| failed(&error))?;
    let rows = copy(streams, BufWriter::with_capacity(1 << 16, file), format, Style::PLAIN, keep).await?;
    aside.publish(&path).map_err(|error| failed(&error))?;
    if context.global.json {
        context.answer_json(&json!({ "file": path.display().to_string(), "rows": rows }))
    } else {
        context.say(&format!("{} written to {}", counted(rows, "row", "rows"), project::shown(&path, &context.folder)));
        Ok(())
    }
}

/// A file in the making; removed unless it is published.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        Ok(Self { path: path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id())) })
    }

    fn create(&self) -> io::Result<fs::File> {
        fs::File::create(&self.path)
    }

    fn publish(&self, path: &Path) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, path)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a publish there is nothing of this name any more.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.csv");
        let aside = Aside::new(&path).expect("has a name");
        aside.create().and_then(|mut file| file.write_all(b"a\n")).expect("is written");
        assert!(!path.exists());
        drop(aside);
        assert_eq!(fs::read_dir(folder.path()).expect("is read").count(), 0, "a file that was given up leaves nothing");
        let aside = Aside::new(&path).expect("has a name");
        aside.create().and_then(|mut file| file.write_all(b"a\n")).expect("is written");
        aside.publish(&path).expect("is renamed");
        drop(aside);
        assert_eq!(fs::read_to_string(&path).expect("is there"), "a\n");
    }
}
