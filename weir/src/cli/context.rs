//! What every command works with: the project, where to answer and where to talk, and how a command ends.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::Utc;
use serde::Serialize;
use weir_connectors::CONNECTIONS;
use weir_engine::{
    Failure, Workspace,
    query::{self, Catalogue, Session, Who},
    state::StateSettings,
};
use weir_pipelines::{
    Changes, Connection, Diagnostic, Diagnostics, Partial, PartialProject, Pipeline, Project, diagnostic::drop_follow_ons,
};

use super::{Global, signals::Signals};
use crate::{
    project::{self, Found},
    render::{Style, error, rows::WriteError},
    watch::Files,
};

/// How a command ends: with an exit code, or before its end.
pub type Answer = Result<u8, Stop>;

/// Why a command ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// Something is wrong.
    Failure(Failure),
    /// Whoever read the answer has had enough, as `head` does: no fault of anybody.
    PipeClosed,
}

impl<T: Into<Failure>> From<T> for Stop {
    fn from(failure: T) -> Self {
        Stop::Failure(failure.into())
    }
}

impl Stop {
    /// Tells a closed pipe from an output that failed.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::PipeClosed,
            _ => Stop::Failure(Failure::error("output-failed", format!("cannot write the answer: {error}"))),
        }
    }

    /// The same for rows.
    pub fn rows(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => Stop::output(&error),
            WriteError::Rows(message) => Stop::Failure(
                Failure::error("format-unfit", format!("the rows do not fit the format: {message}")).help("choose another --format"),
            ),
        }
    }
}

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// The flags that every command understands.
    pub global: Global,
    /// The environment, read once.
    pub environment: HashMap<String, String>,
    /// The folder the person stands in.
    pub folder: PathBuf,
    /// Paints the answer.
    pub out: Style,
    /// Paints the talk.
    pub talk: Style,
    /// Ctrl-C and SIGTERM.
    pub signals: Signals,
}

impl Context {
    /// Reads the place and starts to listen for signals.
    pub fn new(global: Global, environment: HashMap<String, String>) -> Self {
        let out = Style::decide(global.color, io::stdout().is_terminal(), &environment);
        let talk = Style::decide(global.color, io::stderr().is_terminal(), &environment);
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Self { global, environment, folder, out, talk, signals: Signals::listen() }
    }

    /// Ends the command: shows what went wrong and returns the exit code.
    pub fn end(&self, answer: Answer) -> u8 {
        match answer {
            Ok(code) => code,
            Err(Stop::PipeClosed) => error::DONE,
            Err(Stop::Failure(failure)) => {
                self.show(&failure);
                error::exit_code(&failure)
            }
        }
    }

    /// Shows a failure: as JSON on standard output, or in words on standard error.
    pub fn show(&self, failure: &Failure) {
        if self.global.json {
            let _ = to_stdout(&format!("{:#}\n", error::to_json(failure)));
        } else {
            to_stderr(error::render(failure, self.talk).trim_end_matches('\n'));
        }
    }

    /// Writes the answer.
    pub fn answer(&self, text: &str) -> Result<(), Stop> {
        to_stdout(text).map_err(|error| Stop::output(&error))
    }

    /// Writes the answer as JSON.
    pub fn answer_json(&self, value: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::error("output-failed", format!("cannot write the answer as JSON: {error}")))?;
        self.answer(&format!("{text}\n"))
    }

    /// Says something beside the answer, unless `--quiet` asks for silence.
    pub fn say(&self, text: &str) {
        if !self.global.quiet {
            to_stderr(text);
        }
    }

    /// Shows warnings beside the answer.
    pub fn warn(&self, warnings: &[Diagnostic]) {
        if !warnings.is_empty() && !self.global.json {
            self.say(error::render_diagnostics(warnings, self.talk).trim_end_matches('\n'));
        }
    }

    /// Finds the project's root: `--project`, else the nearest `weir.toml` upwards from where a pipeline argument points or the
    /// person stands, else the folder of a pipeline file that stands alone.
    pub fn root(&self, pipeline: Option<&str>) -> Result<PathBuf, Stop> {
        if let Some(folder) = &self.global.project {
            let root = project::absolute(folder, &self.folder);
            if !root.is_dir() {
                return Err(Diagnostic::error("file-missing", format!("there is no folder \"{}\"", folder.display()))
                    .help("name the project's folder with --project, or stand in it")
                    .into());
            }
            return Ok(root);
        }
        let start = pipeline.map(|argument| project::absolute(Path::new(argument), &self.folder)).filter(|path| path.exists());
        let start = match start {
            Some(path) if path.is_file() => path.parent().map_or_else(|| self.folder.clone(), Path::to_path_buf),
            Some(path) => path,
            None => self.folder.clone(),
        };
        Ok(project::find_root(&start).unwrap_or(start))
    }

    /// Reads the project.
    pub fn project(&self, root: &Path) -> Result<Project, Stop> {
        Ok(project::read_project(root, &self.folder, self.global.profile.as_deref())?)
    }

    /// Reads the project and prepares to work in it.
    pub fn workspace(&self, pipeline: Option<&str>) -> Result<Workspace, Stop> {
        let root = self.root(pipeline)?;
        let project = self.project(&root)?;
        Ok(Workspace::new(project, self.environment.clone(), project::machine(), Utc::now))
    }

    /// Reads the project for a question about what has been: there has to be one.
    pub fn existing_workspace(&self) -> Result<Workspace, Stop> {
        let root = self.root(None)?;
        if !root.join(project::PROJECT_FILE).is_file() && !root.join(".weir").is_dir() {
            return Err(Diagnostic::error("no-project", format!("there is no project in {} or above it", root.display()))
                .help("stand in the project's folder, or name it with --project; weir init makes one")
                .into());
        }
        self.workspace(None)
    }

    /// Reads the project as far as it can be read, to check it with its pipelines.
    pub fn partial_project(&self, pipeline: Option<&str>) -> Result<PartialProject, Stop> {
        let root = self.root(pipeline)?;
        Ok(project::read_partial_project(&root, &self.folder, self.global.profile.as_deref()))
    }

    /// A session of ad-hoc SQL for the person at this machine.
    pub fn session(&self, workspace: &Workspace) -> Result<Session, Failure> {
        let files = Arc::new(Files::new(workspace.project.clone()));
        let settings = query::Settings { files: Some(files), ..query::Settings::local(workspace) };
        Ok(Catalogue::open(workspace, settings)?.session(Who::local()))
    }

    /// Reads and parses one pipeline.
    pub fn pipeline(&self, workspace: &Workspace, argument: &str, set: &Set) -> Result<Pipeline, Diagnostics> {
        let found = project::find_pipeline(argument, &workspace.project.root, &self.folder).map_err(|diagnostic| vec![diagnostic])?;
        self.parse(&workspace.project, &found, set)
    }

    /// Reads and parses the pipelines that an argument means, all of them or none.
    pub fn pipelines(&self, workspace: &Workspace, argument: &str, set: &Set) -> Result<Vec<Pipeline>, Diagnostics> {
        let found = project::find_pipelines(argument, &workspace.project.root, &self.folder).map_err(|diagnostic| vec![diagnostic])?;
        let (mut pipelines, mut wrong) = (Vec::new(), Diagnostics::new());
        for found in &found {
            match self.parse(&workspace.project, found, set) {
                Ok(pipeline) => pipelines.push(pipeline),
                Err(found) => add_new(&mut wrong, found),
            }
        }
        if wrong.is_empty() { Ok(pipelines) } else { Err(wrong) }
    }

    /// Parses a pipeline of the project.
    pub fn parse(&self, project: &Project, found: &Found, set: &Set) -> Result<Pipeline, Diagnostics> {
        parse_partial(project, found, &self.folder, set)?.whole()
    }

    /// Checks the settings of the project's connections, each by its kind.
    pub fn check_connections(&self, project: &Project) -> Diagnostics {
        let connections = project.connections.iter().flat_map(|(name, connection)| check_connection(name, connection));
        check_state(project).into_iter().chain(connections).collect()
    }
}

/// Checks the settings of the project's state.
pub fn check_state(project: &Project) -> Diagnostics {
    project.state.as_ref().and_then(|settings| settings.read::<StateSettings>().err()).unwrap_or_default()
}

/// Checks the settings of a connection by its kind.
pub fn check_connection(name: &str, connection: &Connection) -> Diagnostics {
    let settings = &connection.settings;
    match CONNECTIONS.iter().find(|kind| kind.kind == settings.kind.value) {
        Some(kind) => {
            let mut wrong = (kind.check)(settings).err().unwrap_or_default();
            drop_follow_ons(&mut wrong);
            wrong
        }
        None => vec![
            Diagnostic::error("unknown-kind", format!("connection \"{name}\" is of an unknown kind \"{}\"", settings.kind.value))
                .at(&settings.file, settings.kind.span.clone(), "")
                .did_you_mean(&settings.kind.value, CONNECTIONS.iter().map(|kind| kind.kind)),
        ],
    }
}

/// Adds what is not said yet: the pipelines of one file share what is wrong with it.
pub fn add_new(all: &mut Diagnostics, found: Diagnostics) {
    for one in found {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// Parses a pipeline, as far as it can be read. `folder` is where the person stands.
pub fn parse_partial(project: &Project, found: &Found, folder: &Path, set: &Set) -> Result<Partial, Diagnostics> {
    let layers = project::layers(&found.path, folder).map_err(|diagnostic| vec![diagnostic])?;
    let own = found.path.parent().unwrap_or(folder).to_path_buf();
    let connections: Vec<&str> = project.connections.keys().map(String::as_str).collect();
    let profiles: Vec<&str> = project.profiles.iter().map(String::as_str).collect();
    Ok(weir_pipelines::parse_partial(layers, own, set.changes(found.row.clone()), weir_connectors::vocabulary(&connections, &profiles)))
}

/// `--set` and `--param`, as several commands take them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Set {
    /// Change one value of the pipeline file for this time: a dotted path, and TOML or plain text
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// `--param`.
    #[command(flatten)]
    pub params: Params,
}

/// `--param` alone.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Params {
    /// Give a parameter of the pipeline its value for this time
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    pub param: Vec<(String, String)>,
}

impl From<Params> for Set {
    fn from(params: Params) -> Self {
        Self { set: Vec::new(), params }
    }
}

impl Set {
    /// What a pipeline file is read with; of a file with a matrix, this row.
    pub fn changes(&self, row: Option<String>) -> Changes {
        Changes { set: self.set.clone(), params: self.params.param.clone(), row }
    }
}

/// Splits `name=value`. The value is text: the parameter's type says how it is read.
pub(super) fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, for instance day=2013-01-31")?;
    let name = name.trim();
    if name.is_empty() { Err("the parameter's name is empty".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// Splits `key=value`. The value comes back as TOML: as it is where it parses as such, else as a quoted string.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, for instance source.flights.file.path=data/*.csv")?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(format!("\"{key}\" is not a dotted path such as source.flights.file.path"));
    }
    // A text that goes on after its value, or holds a line break, would be more than one value.
    let is_toml = !value.trim().is_empty() && !value.contains('\n') && toml::de::DeValue::parse(value).is_ok();
    Ok((key.to_owned(), if is_toml { value.to_owned() } else { toml::Value::String(value.to_owned()).to_string() }))
}

/// Writes to standard output.
pub fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error; where that is closed, there is nobody to tell.
pub fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_toml_where_it_can_be_and_text_otherwise() {
        let set = |text: &str| setting(text).map(|(_, value)| value);
        assert_eq!(set("a=1").as_deref(), Ok("1"));
        assert_eq!(set("a=[\"x\", \"y\"]").as_deref(), Ok("[\"x\", \"y\"]"));
        assert_eq!(set("a=\"x\"").as_deref(), Ok("\"x\""));
        assert_eq!(set("a=true").as_deref(), Ok("true"));
        assert_eq!(set("a={ env = \"PGPASSWORD\" }").as_deref(), Ok("{ env = \"PGPASSWORD\" }"));
        assert_eq!(set("a=data/*.csv").as_deref(), Ok("\"data/*.csv\""));
        assert_eq!(set("a=2013-01-01").as_deref(), Ok("2013-01-01"));
        assert_eq!(set("a=").as_deref(), Ok("\"\""));
        assert_eq!(set("a=1 b=2").as_deref(), Ok("\"1 b=2\""));
        let odd = set("a=he said \"so\"").expect("is a text");
        assert_eq!(toml::from_str::<toml::Table>(&format!("v = {odd}")).expect("is TOML")["v"].as_str(), Some("he said \"so\""));
    }

    #[test]
    fn a_setting_needs_a_path() {
        assert!(setting("novalue").is_err());
        assert!(setting("=1").is_err());
        assert!(setting("a..b=1").is_err());
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_other_failures_are_not() {
        assert!(matches!(Stop::output(&io::ErrorKind::BrokenPipe.into()), Stop::PipeClosed));
        assert!(matches!(Stop::output(&io::ErrorKind::StorageFull.into()), Stop::Failure(_)));
    }
}
