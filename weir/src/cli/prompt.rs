//! The SQL prompt: a line editor that knows the catalogue, and the backslash commands that psql's users expect. What each command asks for is
//! `prompt/command.rs`'s to say, how answers are shown `prompt/show.rs`'s.

mod command;
mod complete;
mod describe;
mod keywords;
mod pager;
mod show;

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use arrow::datatypes::FieldRef;
use datafusion::{error::DataFusionError, execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter};
use futures::StreamExt;
use rustyline::{CompletionType, Config, Editor, error::ReadlineError, history::FileHistory};
use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    check::Column,
    query::{Session, TableName},
    sql::sql_name,
};
use weir_pipelines::Diagnostic;

use self::{
    command::{Command, Expand},
    complete::{Names, Shared, Words},
    describe::qualified,
    show::{Display, Output},
};
use super::{
    context::{Answer, Context, Stop, to_stderr},
    sql::{listed, query},
    statements::{Piece, Statement, pieces},
};
use crate::{
    project,
    render::{error, number::duration_ms, rows::Format},
};

/// Statements kept from one session to the next.
const HISTORY: usize = 5000;
/// Files that may include one another, one in the other.
const INCLUDED_MAX: usize = 16;

/// Reads statements until the person leaves.
pub async fn answer(context: &Context, workspace: &Workspace, session: Session, format: Format) -> Answer {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY)
        .and_then(|config| config.history_ignore_dups(true));
    let config = config.map_err(|error| broken(&error))?.history_ignore_space(true).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(|error| broken(&error))?;
    let names = Shared::default();
    editor.set_helper(Some(Words::new(names.clone())));
    let history = workspace.state_dir.join("sql_history");
    // The first session has none yet.
    let _ = editor.load_history(&history);
    context.say("type \\? for help, \\q to leave");
    let mut prompt = Prompt { context, workspace, session, display: Display::new(context, format), editor, names, last: None };
    prompt.learn();
    let left = prompt.talk().await;
    let _ = fs::create_dir_all(&workspace.state_dir);
    if let Err(error) = prompt.editor.append_history(&history) {
        context.say(&format!("the history was not kept: {error}"));
    }
    left.map(|()| error::DONE)
}

fn broken(error: &ReadlineError) -> Stop {
    Stop::Failure(Failure::error("terminal", format!("cannot read from the terminal: {error}")).help("use -c, a file or standard input"))
}

/// A conversation.
struct Prompt<'a> {
    context: &'a Context,
    workspace: &'a Workspace,
    session: Session,
    display: Display,
    editor: Editor<Words, FileHistory>,
    names: Shared,
    /// The query that was asked last: what it was called, the whole text, and where in it it stands.
    last: Option<Asked>,
}

/// A query as it was asked.
#[derive(Debug, Clone)]
struct Asked {
    /// What messages call the text.
    name: String,
    /// The text that holds it.
    whole: Arc<str>,
    /// Where it begins and ends there.
    range: std::ops::Range<usize>,
}

impl Asked {
    fn new(name: &str, whole: &Arc<str>, statement: Statement<'_>) -> Self {
        Self { name: name.to_owned(), whole: whole.clone(), range: statement.start..statement.start + statement.text.len() }
    }

    fn text(&self) -> &str {
        &self.whole[self.range.clone()]
    }
}

/// What follows a command.
enum Then {
    GoOn,
    Leave,
    /// The line editor begins with this text.
    Offer(String),
}

impl Prompt<'_> {
    async fn talk(&mut self) -> Result<(), Stop> {
        let mut offered = String::new();
        loop {
            self.display.screen = self.editor.dimensions().map(|(columns, lines)| (columns.into(), lines.into()));
            let line = tokio::task::block_in_place(|| self.editor.readline_with_initial("weir> ", (&std::mem::take(&mut offered), "")));
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(broken(&error)),
            };
            if line.trim().is_empty() {
                continue;
            }
            // A history that cannot be kept is no reason not to answer.
            let _ = self.editor.add_history_entry(line.trim_end());
            let done = self.script("<sql>", &line, 0).await;
            // What comes while nobody works is for the editor.
            self.context.signals.work("");
            match done {
                Ok(Then::GoOn) => {}
                Ok(Then::Leave) => return Ok(()),
                Ok(Then::Offer(text)) => offered = text,
                Err(Stop::Failure(failure)) => self.fail(&failure),
                Err(Stop::PipeClosed) => return Err(Stop::PipeClosed),
            }
        }
    }

    /// Shows what went wrong. After a table that was not found, the names are asked for anew.
    fn fail(&mut self, failure: &Failure) {
        self.context.show(failure);
        if matches!(failure, Failure::Diagnostics(found) if found.iter().any(|one| one.code == "unknown-table")) {
            self.learn();
        }
    }

    /// Asks for the names of tables and columns, beside what goes on.
    fn learn(&self) {
        let (session, names) = (self.session.clone(), self.names.clone());
        tokio::spawn(async move {
            // Without an answer, the names known before are completed.
            let Ok(tables) = session.tables().await else { return };
            let table = |table: TableName| (qualified(&table), table.columns.into_iter().map(|column| column.name).collect());
            let learned = Names { tables: tables.into_iter().map(table).collect(), functions: functions(&session) };
            *names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(learned);
        });
    }

    /// Does what a text says, statement by statement. The first failure ends it.
    async fn script(&mut self, name: &str, text: &str, depth: usize) -> Result<Then, Stop> {
        let whole: Arc<str> = Arc::from(text);
        for piece in pieces(text) {
            match piece {
                Piece::Sql(statement) => {
                    let asked = Asked::new(name, &whole, statement);
                    self.last = Some(asked.clone());
                    self.ask(&asked).await?;
                }
                Piece::Command(open, command) => {
                    let command = Command::parse(command)?;
                    if let Some(statement) = open {
                        if !matches!(command, Command::Go { .. } | Command::Watch(_) | Command::Edit(None)) {
                            return Err(Diagnostic::error(
                                "usage",
                                "only \\g, \\gx, \\watch and \\e follow a query that no semicolon ends",
                            )
                            .help("end the query with a semicolon")
                            .into());
                        }
                        self.last = Some(Asked::new(name, &whole, statement));
                    }
                    match Box::pin(self.obey(command, depth)).await? {
                        Then::GoOn => {}
                        then => return Ok(then),
                    }
                }
            }
        }
        Ok(Then::GoOn)
    }

    /// Asks one query, and shows its answer.
    async fn ask(&mut self, asked: &Asked) -> Result<(), Stop> {
        let cancel = self.context.signals.work("");
        self.ask_until(asked, &cancel).await
    }

    async fn ask_until(&mut self, asked: &Asked, cancel: &CancellationToken) -> Result<(), Stop> {
        let started = Instant::now();
        let statement = Statement { text: asked.text(), start: asked.range.start, closed: true };
        let stream = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            stream = query(&self.session, &asked.name, &asked.whole, statement, cancel.clone()) => stream,
        };
        let result = match stream {
            Ok(stream) => self.display.rows(self.context, until(stream, cancel.clone())).await,
            Err(failure) => Err(Stop::Failure(failure)),
        };
        if cancel.is_cancelled() && matches!(result, Err(Stop::Failure(_))) {
            return Err(Stop::Failure(cancelled()));
        }
        result?;
        if self.display.timing {
            to_stderr(&format!("took {}", duration_ms(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))));
        }
        Ok(())
    }

    fn last(&self, command: &str) -> Result<Asked, Stop> {
        self.last.clone().ok_or_else(|| {
            Diagnostic::error("no-query", format!("there is no query yet that {command} could ask"))
                .help("write one, and end it with a semicolon")
                .into()
        })
    }

    async fn obey(&mut self, command: Command, depth: usize) -> Result<Then, Stop> {
        match command {
            Command::Quit => return Ok(Then::Leave),
            Command::Help => self.display.text(self.context, &command::help())?,
            Command::Catalogues(pattern) => self.catalogues(pattern.as_deref()).await?,
            Command::Schemas(pattern) => {
                let tables = self.tables().await?;
                self.display.text(self.context, &describe::schemas(&tables, pattern.as_deref(), self.context.out))?;
            }
            Command::Tables(pattern) => self.list(pattern.as_deref()).await?,
            Command::Describe(pattern) => {
                let tables = self.tables().await?;
                let mut drawn = String::new();
                for table in describe::meant(&tables, &pattern)? {
                    drawn.push_str(&describe::columns(&self.described(table).await?, self.context.out));
                }
                self.display.text(self.context, &drawn)?;
            }
            Command::Functions(pattern) => match describe::functions(&functions(&self.session), pattern.as_deref(), self.context.out) {
                Some(drawn) => self.display.text(self.context, &drawn)?,
                None => self.context.say("no function is called so"),
            },
            Command::Queries => self.queries().await?,
            Command::Expanded(to) => {
                let toggled = if self.display.expand == Expand::Off { Expand::On } else { Expand::Off };
                self.display.expand = to.unwrap_or(toggled);
                self.context.say(match self.display.expand {
                    Expand::On => "rows are drawn with a line for each value",
                    Expand::Off => "rows are drawn as tables",
                    Expand::Auto => "rows wider than the terminal are drawn with a line for each value",
                });
            }
            Command::Timing(to) => {
                self.display.timing = to.unwrap_or(!self.display.timing);
                self.context.say(if self.display.timing { "timing is on" } else { "timing is off" });
            }
            Command::Pager(to) => {
                let on = to.unwrap_or(self.display.pager.is_none());
                self.display.pager = if on { pager::command(&self.context.environment) } else { None };
                self.context.say(
                    match (&self.display.pager, on) {
                        (Some(command), _) => format!("answers longer than the screen go to {command}"),
                        (None, true) => "there is no pager: neither $PAGER nor less".to_owned(),
                        (None, false) => "the pager is off".to_owned(),
                    }
                    .as_str(),
                );
            }
            Command::Format(to) => {
                self.display.format = to.unwrap_or(self.display.format);
                let name = clap::ValueEnum::to_possible_value(&self.display.format).map(|value| value.get_name().to_owned());
                self.context.say(&format!("the format is {}", name.unwrap_or_default()));
            }
            Command::Null(text) => {
                self.context.say(&format!("null is shown as \"{text}\""));
                self.display.null = text;
            }
            Command::Output(None) => {
                self.display.output = None;
                self.context.say("answers go to the terminal");
            }
            Command::Output(Some(path)) => {
                self.context.say(&format!("answers go to {}", path.display()));
                self.display.output = Some(Output::new(path, self.display.format)?);
            }
            Command::Go { expanded, file } => self.go(expanded, file).await?,
            Command::Watch(pause) => self.watch(pause).await?,
            Command::Edit(file) => return self.edit(file, depth).await,
            Command::Include(path) => {
                if depth >= INCLUDED_MAX {
                    return Err(Diagnostic::error("usage", format!("\\i: more than {INCLUDED_MAX} files include one another")).into());
                }
                let file = project::read(&project::absolute(&path, &self.context.folder), &self.context.folder)?;
                return self.script(&file.path, &file.text, depth + 1).await;
            }
            Command::History(lines) => {
                let history = self.editor.history();
                let all: Vec<&String> = history.iter().collect();
                let first = all.len() - lines.unwrap_or(all.len()).min(all.len());
                let drawn: String = all[first..].iter().map(|line| format!("{line}\n")).collect();
                self.display.text(self.context, &drawn)?;
            }
        }
        Ok(Then::GoOn)
    }

    async fn tables(&self) -> Result<Vec<TableName>, Stop> {
        let cancel = self.context.signals.work("");
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Stop::Failure(cancelled())),
            tables = self.session.tables() => Ok(tables?),
        }
    }

    /// A table with its columns as they are now, their types by the names that SQL has for them.
    async fn described(&self, table: &TableName) -> Result<TableName, Stop> {
        let cancel = self.context.signals.work("");
        let name = qualified(table);
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Stop::Failure(cancelled())),
            opened = self.session.table(&name) => opened?,
        };
        let column =
            |field: &FieldRef| Column { name: field.name().clone(), r#type: sql_name(field.data_type()), nullable: field.is_nullable() };
        Ok(TableName { columns: opened.schema().fields().iter().map(column).collect(), ..table.clone() })
    }

    async fn list(&mut self, pattern: Option<&str>) -> Result<(), Stop> {
        let tables = self.tables().await?;
        match (describe::tables(&tables, pattern, self.context.out), pattern) {
            (Some(drawn), _) => self.display.text(self.context, &drawn)?,
            (None, Some(pattern)) if !tables.is_empty() => return Err(describe::missing(&tables, pattern).into()),
            (None, _) => self.context.say("there are no tables yet; a run makes them"),
        }
        Ok(())
    }

    async fn catalogues(&mut self, pattern: Option<&str>) -> Result<(), Stop> {
        let tables = self.tables().await?;
        let connections = &self.workspace.project.connections;
        let about = |name: &str| match (name, connections.get(name)) {
            (_, Some(connection)) => format!("connection ({})", connection.settings.kind.value),
            ("lake", None) => "what runs have loaded".to_owned(),
            ("quarantine", None) => "rows that broke a contract".to_owned(),
            ("weir", None) => "what Weir remembers: runs, books, schedules".to_owned(),
            _ => String::new(),
        };
        let drawn = describe::catalogues(&tables, &["lake".to_owned(), "quarantine".to_owned()], about, pattern, self.context.out);
        self.display.text(self.context, &drawn)
    }

    async fn queries(&mut self) -> Result<(), Stop> {
        let (saved, wrong) = self.session.queries().await;
        if saved.is_empty() {
            self.context.say("there are no saved queries");
        } else {
            self.display.text(self.context, &listed(&saved, self.context.out))?;
        }
        self.context.warn(&wrong);
        Ok(())
    }

    async fn go(&mut self, expanded: bool, file: Option<PathBuf>) -> Result<(), Stop> {
        let asked = self.last("\\g")?;
        let (expand, format) = (self.display.expand, self.display.format);
        if expanded {
            self.display.expand = Expand::On;
            self.display.format = Format::Table;
        }
        let result = match file.map(|file| Output::new(file, self.display.format)).transpose() {
            Ok(Some(output)) => {
                let output = self.display.output.replace(output);
                let result = self.ask(&asked).await;
                self.display.output = output;
                result
            }
            Ok(None) => self.ask(&asked).await,
            Err(wrong) => Err(wrong.into()),
        };
        (self.display.expand, self.display.format) = (expand, format);
        result
    }

    /// Asks the last query again and again. Ctrl-C ends it, and is no failure.
    async fn watch(&mut self, pause: Duration) -> Result<(), Stop> {
        let asked = self.last("\\watch")?;
        let pager = self.display.pager.take();
        let cancel = self.context.signals.work("");
        let result = loop {
            let now = self.workspace.now();
            self.context.say(&format!("{now} (every {} s, until Ctrl-C)", pause.as_secs_f64()));
            if let Err(stop) = self.ask_until(&asked, &cancel).await {
                break if cancel.is_cancelled() { Ok(()) } else { Err(stop) };
            }
            tokio::select! {
                () = cancel.cancelled() => break Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        };
        self.display.pager = pager;
        result
    }

    /// Opens the last query, or a file, in an editor. What comes back is asked where it ends with a semicolon, else offered.
    async fn edit(&mut self, file: Option<PathBuf>, depth: usize) -> Result<Then, Stop> {
        let (path, is_ours) = match &file {
            Some(file) => (project::absolute(file, &self.context.folder), false),
            None => (self.workspace.state_dir.join(format!("query-{}.sql", process::id())), true),
        };
        if is_ours {
            let text = self.last.as_ref().map(|asked| format!("{};\n", asked.text())).unwrap_or_default();
            let written = fs::create_dir_all(&self.workspace.state_dir).and_then(|()| fs::write(&path, text));
            written.map_err(|error| Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display())))?;
        }
        let edited = self.edited(&path);
        if is_ours {
            let _ = fs::remove_file(&path);
        }
        let text = edited?;
        let text = text.trim_end();
        if text.trim().is_empty() {
            return Ok(Then::GoOn);
        }
        let _ = self.editor.add_history_entry(text.trim_end());
        if !super::statements::is_complete(text) && super::statements::backslash(text).is_none() {
            return Ok(Then::Offer(text.to_owned()));
        }
        self.context.say(text);
        self.script("<sql>", text, depth + 1).await
    }

    fn edited(&self, path: &Path) -> Result<String, Stop> {
        let environment = &self.context.environment;
        let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| environment.get(*name).filter(|editor| !editor.trim().is_empty()));
        let editor = editor.map_or("vi", String::as_str);
        let _lent = self.context.signals.lend();
        // The variable may hold arguments, as in "code --wait".
        let started = process::Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path).status();
        let failed = |why: String| Failure::error("terminal", format!("the editor \"{editor}\" {why}")).help("name one in $EDITOR");
        match tokio::task::block_in_place(|| started) {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Stop::Failure(failed(format!("ended with {}", status.code().unwrap_or(-1))))),
            Err(error) => return Err(Stop::Failure(failed(format!("cannot be started: {error}")))),
        }
        Ok(project::read(path, &self.context.folder)?.text.clone())
    }
}

/// The functions that a session knows.
fn functions(session: &Session) -> Vec<String> {
    let state = session.context().state();
    let mut names: Vec<String> = state.scalar_functions().keys().cloned().collect();
    names.extend(state.aggregate_functions().keys().cloned());
    names.extend(state.window_functions().keys().cloned());
    names.sort();
    names.dedup();
    names
}

fn cancelled() -> Failure {
    Failure::error("cancelled", "the query was cancelled")
}

/// Ends a stream where it is cancelled, also while a batch is long in the making.
fn until(stream: SendableRecordBatchStream, cancel: CancellationToken) -> SendableRecordBatchStream {
    let schema = stream.schema();
    let stopped = futures::stream::unfold(Some((stream, cancel)), async |state| {
        let (mut stream, cancel) = state?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Some((Err(DataFusionError::Execution("the query was cancelled".into())), None)),
            batch = stream.next() => batch.map(|batch| (batch, Some((stream, cancel)))),
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stopped))
}
