//! `weir sql`: questions to the lake, the quarantine and the run history. Answers go to the terminal, a pipe or a file.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use datafusion::{common::ScalarValue, execution::SendableRecordBatchStream};
use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    query::{CheckedQuery, Session},
};
use weir_pipelines::{Diagnostic, Diagnostics, Saved, SourceFile};

use super::{
    context::{Answer, Context, Stop, param, to_stderr},
    prompt,
    statements::{Statement, split},
};
use crate::{
    project,
    render::{
        Style, Table, error,
        number::counted,
        rows::{Format, RowsWriter},
        table::Look,
    },
};

const EXAMPLES: &str = "\
Examples:
  weir sql                                                   a prompt with history and completion; \\? helps
  weir sql -c \"select carrier, count(*) from lake.flights.delays group by 1\"
  weir sql report.sql --format csv > report.csv
  weir sql -c \"select * from lake.flights.delays\" -o delays.parquet
  weir sql -q delays --carrier UA                            a saved query, queries/delays.sql, with its parameters
  weir sql --list                                            the saved queries
  echo \"select * from weir.runs\" | weir sql --format markdown

Tables: lake.SCHEMA.TABLE, quarantine.PIPELINE.STEP, CONNECTION.SCHEMA.TABLE, file('PATH'), step('PIPELINE', 'STEP'), history('SCHEMA.TABLE'),
changes('SCHEMA.TABLE', FROM, TO), and weir.runs, weir.books, weir.tasks, weir.columns and more: \\d lists them. Queries only read.
In SQL a saved query is a table: select * from query.delays('UA').";

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
    /// Ask a saved query; -q NAME does so too. Its parameters are options: --carrier UA
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "files"])]
    query: Option<String>,
    /// Give a parameter its value: of the saved query by its name, of -c by its number, as in --param 1=UA for $1
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, String)>,
    /// List the saved queries
    #[arg(long, conflicts_with_all = ["command", "files", "query", "output", "params"])]
    list: bool,
    /// Write a line for each value, for rows that are wider than a screen
    #[arg(short = 'x', long, conflicts_with = "format")]
    expanded: bool,
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
        if self.list {
            return list(context).await;
        }
        let format = chosen(self.format.or(self.expanded.then_some(Format::Expanded)), self.output.as_deref(), context)?;
        let interactive =
            self.query.is_none() && self.command.is_empty() && self.files.is_empty() && io::stdin().is_terminal() && !context.global.json;
        if interactive && self.output.is_some() {
            return Err(Diagnostic::error("usage", "a file of rows needs a query")
                .help("give the query with -c, in a file, or on standard input")
                .into());
        }
        let workspace = context.workspace(None)?;
        if interactive {
            if let Some((name, _)) = self.params.first() {
                return Err(Diagnostic::error("usage", format!("nothing here takes the parameter \"{name}\""))
                    .help("give the query with -q or -c")
                    .into());
            }
            let session = context.session(&workspace)?;
            return prompt::answer(context, &workspace, session, format).await;
        }
        let cancel = context.signals.work("stopping");
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Stop::Failure(Failure::Interrupted)),
            answer = self.all(context, &workspace, format, &cancel) => answer,
        }
    }

    async fn all(&self, context: &Context, workspace: &Workspace, format: Format, cancel: &CancellationToken) -> Answer {
        if let Some(name) = &self.query {
            let session = context.session(workspace)?;
            let prepared = session.saved(name, &self.params).await?;
            self.write(context, session.execute(&prepared, vec![], cancel.clone()).await?, format).await?;
            return Ok(error::DONE);
        }
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
        if !self.params.is_empty() && statements.len() > 1 {
            return Err(Diagnostic::error("usage", "parameters are those of one query, and there are several")
                .help("ask them one at a time")
                .into());
        }
        let session = context.session(workspace)?;
        for (input, statement) in statements {
            let stream = match self.params.as_slice() {
                [] => query(&session, &input.name, &input.text, statement, cancel.clone()).await?,
                params => {
                    let prepared = session
                        .prepare(statement.text)
                        .await
                        .map_err(|failure| moved(failure, &input.name, &input.text, statement.start))?;
                    let values = numbered(params, prepared.parameters().len())?;
                    session.execute(&prepared, values, cancel.clone()).await?
                }
            };
            self.write(context, stream, format).await?;
        }
        Ok(error::DONE)
    }

    async fn write(&self, context: &Context, stream: SendableRecordBatchStream, format: Format) -> Result<u64, Stop> {
        match &self.output {
            Some(path) => to_file(context, path, format, vec![stream]).await,
            None => copy(vec![stream], BufWriter::with_capacity(1 << 16, io::stdout()), format, context.out, |batch| Ok(Some(batch))).await,
        }
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
pub async fn query(
    session: &Session,
    name: &str,
    text: &str,
    statement: Statement<'_>,
    cancel: CancellationToken,
) -> Result<SendableRecordBatchStream, Failure> {
    session.query(statement.text, cancel).await.map_err(|failure| moved(failure, name, text, statement.start))
}

/// A failure of a statement that is part of a text: its diagnostics point into the whole.
fn moved(failure: Failure, name: &str, text: &str, start: usize) -> Failure {
    match failure {
        Failure::Diagnostics(diagnostics) => {
            let whole = SourceFile::new(name, text);
            let moved = diagnostics.into_iter().map(|mut diagnostic| {
                if diagnostic.file.as_ref().is_some_and(|file| file.path == "<sql>") {
                    diagnostic.file = Some(whole.clone());
                    for label in &mut diagnostic.labels {
                        label.file = whole.clone();
                        label.span = label.span.start + start..label.span.end + start;
                    }
                }
                diagnostic
            });
            Failure::Diagnostics(moved.collect())
        }
        other => other,
    }
}

/// Values of `$1`, `$2` and so on, as text: the statement's types say how each is read.
fn numbered(params: &[(String, String)], wanted: usize) -> Result<Vec<ScalarValue>, Diagnostics> {
    let mut wrong = Diagnostics::new();
    for (name, _) in params {
        if name.parse().ok().filter(|number: &usize| (1..=wanted).contains(number)).is_none() {
            let found = Diagnostic::error("unknown-param", format!("the query has no parameter \"{name}\""));
            wrong.push(found.help(match wanted {
                0 => "it has none; write $1 in it where a value is meant".to_owned(),
                1 => "it has one, called 1".to_owned(),
                _ => format!("they are called 1 to {wanted}"),
            }));
        }
    }
    let mut values = Vec::new();
    for number in 1..=wanted {
        match params.iter().rev().find(|(name, _)| name.parse() == Ok(number)) {
            Some((_, value)) => values.push(ScalarValue::Utf8(Some(value.clone()))),
            None => wrong.push(
                Diagnostic::error("missing-param", format!("the parameter \"{number}\" has no value"))
                    .help(format!("give it one with --param {number}=…")),
            ),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

/// Lists the saved queries; those whose files are wrong are told.
async fn list(context: &Context) -> Answer {
    let (saved, wrong) = context.session(&context.workspace(None)?)?.queries().await;
    if context.global.json {
        context.answer_json(&saved.iter().map(CheckedQuery::new).collect::<Vec<_>>())?;
    } else if saved.is_empty() {
        context.say("there are no saved queries; one is a file queries/NAME.sql whose first line is -- name: NAME");
    } else {
        context.answer(&listed(&saved, context.out))?;
    }
    match error::exit_code_of(&wrong, &[]) {
        error::DONE => {
            context.warn(&wrong);
            Ok(error::DONE)
        }
        code => {
            to_stderr(error::render_diagnostics(&wrong, context.talk).trim_end_matches('\n'));
            Ok(code)
        }
    }
}

/// Saved queries as a table.
pub fn listed(saved: &[Saved], style: Style) -> String {
    let mut table = Table::new(Look::Lines, &["query", "parameters", "description"]);
    for one in saved {
        let params: Vec<String> = one.params.iter().map(ToString::to_string).collect();
        table.row([one.name.value.as_str(), &params.join(", "), &one.description]);
    }
    table.render(style)
}

/// Writes `-q NAME` as `--query NAME`, and `--carrier UA` behind it as `--param carrier=UA` where it is no option of the command. Without a
/// name of a query, `-q` stays what it is everywhere: be quiet.
pub fn spelled_out(grammar: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let takes_value = |argument: &clap::Arg| argument.get_action().takes_values();
    let global: Vec<&clap::Arg> = grammar.get_arguments().collect();
    let is_long = |known: &&&clap::Arg, long: &str| known.get_long() == Some(long);
    // The command is the first word that is neither an option nor the value of one.
    let mut at = 1;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-')) {
        let long = word.trim_start_matches("--");
        at += if global.iter().find(|known| is_long(known, long)).is_some_and(|known| takes_value(known)) { 2 } else { 1 };
    }
    let (Some(command), true) = (grammar.find_subcommand("sql"), arguments.get(at).is_some_and(|word| word == "sql")) else {
        return arguments;
    };
    let known: Vec<&clap::Arg> = command.get_arguments().chain(global).collect();
    let is_name = |word: Option<&OsString>| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.and_then(|word| word.to_str()).is_some_and(|word| !word.is_empty() && word.chars().all(plain))
    };
    let is_query = |at: usize| {
        let word = &arguments[at];
        word == "--query"
            || word.to_str().is_some_and(|word| word.starts_with("--query="))
            || (word == "-q" && is_name(arguments.get(at + 1)))
    };
    if !(at + 1..arguments.len()).any(is_query) {
        return arguments;
    }
    let mut out = arguments[..=at].to_vec();
    at += 1;
    while at < arguments.len() {
        let (word, next) = (&arguments[at], arguments.get(at + 1));
        at += 1;
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            out.extend_from_slice(&arguments[at - 1..]);
            break;
        }
        if text == "-q" && is_name(next) {
            out.extend(["--query".into(), next.cloned().unwrap_or_default()]);
            at += 1;
            continue;
        }
        let Some(long) = text.strip_prefix("--") else {
            out.push(word.clone());
            // The value of a short option stays with it.
            let is_taken = |known: &&clap::Arg| known.get_short().is_some_and(|short| text == format!("-{short}")) && takes_value(known);
            if known.iter().any(is_taken) {
                out.extend(next.cloned());
                at += 1;
            }
            continue;
        };
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        if let Some(known) = known.iter().find(|known| is_long(known, name)) {
            out.push(word.clone());
            if value.is_none() && takes_value(known) {
                out.extend(next.cloned());
                at += 1;
            }
            continue;
        }
        let given = value.or_else(|| next.and_then(|next| next.to_str()));
        match given {
            Some(given) if !["help", "version"].contains(&name) => {
                out.extend(["--param".into(), format!("{}={given}", name.replace('-', "_")).into()]);
                at += usize::from(value.is_none());
            }
            _ => out.push(word.clone()),
        }
    }
    out
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

/// Writes streams to a file beside the one named, which it becomes once it is whole. Returns how many rows it has.
pub async fn to_file(context: &Context, path: &Path, format: Format, streams: Vec<SendableRecordBatchStream>) -> Result<u64, Stop> {
    to_file_with(context, path, format, streams, |batch| Ok(Some(batch))).await
}

/// Like [`to_file`], with the `keep` of [`copy`].
pub async fn to_file_with(
    context: &Context,
    path: &Path,
    format: Format,
    streams: Vec<SendableRecordBatchStream>,
    keep: impl FnMut(arrow::array::RecordBatch) -> Result<Option<arrow::array::RecordBatch>, Stop>,
) -> Result<u64, Stop> {
    let path = project::absolute(path, &context.folder);
    // A pipe or a device is written to as it is: nothing takes its place.
    let is_plain = fs::metadata(&path).map_or(true, |found| found.is_file());
    // The file that a link names changes, and the link stays.
    let path = if is_plain { fs::canonicalize(&path).unwrap_or(path) } else { path };
    let failed =
        |error: &io::Error| Stop::Failure(Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display())));
    let rows = if is_plain {
        let aside = Aside::new(&path).map_err(|error| failed(&error))?;
        let file = aside.create().map_err(|error| failed(&error))?;
        let rows = copy(streams, BufWriter::with_capacity(1 << 16, file), format, Style::PLAIN, keep).await?;
        aside.publish(&path).map_err(|error| failed(&error))?;
        rows
    } else {
        let file = fs::File::options().write(true).open(&path).map_err(|error| failed(&error))?;
        copy(streams, BufWriter::with_capacity(1 << 16, file), format, Style::PLAIN, keep).await?
    };
    if context.global.json {
        context.answer_json(&json!({ "file": path.display().to_string(), "rows": rows }))?;
    } else {
        context.say(&format!("{} written to {}", counted(rows, "row", "rows"), project::shown(&path, &context.folder)));
    }
    Ok(rows)
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

    #[test]
    fn parameters_of_a_saved_query_are_options() {
        let grammar = crate::cli::grammar();
        let spelled = |line: &str| {
            let out = spelled_out(&grammar, line.split_whitespace().map(OsString::from).collect());
            out.into_iter().map(|word| word.into_string().expect("is text")).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("weir sql -q delays --carrier UA", "weir sql --query delays --param carrier=UA"),
            ("weir sql --carrier=UA -q delays", "weir sql --param carrier=UA --query delays"),
            (
                "weir --profile prod sql -q delays --dep-delay -5 --format csv",
                "weir --profile prod sql --query delays --param dep_delay=-5 --format csv",
            ),
            ("weir sql --query delays -o sql --json --since 2013-01-01", "weir sql --query delays -o sql --json --param since=2013-01-01"),
            ("weir sql -q delays --carrier", "weir sql --query delays --carrier"),
            ("weir sql -q delays --help", "weir sql --query delays --help"),
            ("weir sql -q delays -- --carrier UA", "weir sql --query delays -- --carrier UA"),
            // Quiet.
            ("weir sql -q -c select --unknown x", "weir sql -q -c select --unknown x"),
            ("weir sql -q report.sql", "weir sql -q report.sql"),
            ("weir explain sql -q delays --carrier UA", "weir explain sql -q delays --carrier UA"),
            ("weir", "weir"),
        ] {
            assert_eq!(spelled(line), expected);
        }
    }
}
