//! What systems outside had when they were last asked: the columns of sources, what stands at destinations. Kept as files in `.weir/schemas`,
//! one for each step, which `weir plan` and published runs write and `weir check` believes where nobody can or may be asked.
//!
//! A file is a step's, not a table's: what is read of one table depends on the step's settings too, two runs never write one file, and a name
//! of a step is the name of a file. [Why](../../docs/decisions/006-known-schemas.md).

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_connectors::{
    Asked,
    known::{KnownColumn, known_columns, known_schema},
};
use weir_pipelines::{Diagnostic, Pipeline, Settings, Source};

use crate::{
    plan::{PlannedSink, PlannedStep},
    workspace::Workspace,
};

/// The form of the files.
const VERSION: u32 = 1;
/// What stands at a destination is asked for no longer than this once a run has published: it is a convenience of the next check.
const STANDING_MAX: Duration = Duration::from_secs(5);

/// What is known of a pipeline's sources and destinations.
#[derive(Debug, Clone)]
pub struct Known {
    folder: PathBuf,
    /// How to learn what is not known.
    command: String,
    /// Nobody outside this machine may be asked.
    pub offline: bool,
}

/// The file of a source.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownSource {
    weir: u32,
    kind: String,
    /// What was asked, for people.
    source: String,
    /// Changes with the settings that were asked by.
    settings: String,
    columns: Vec<KnownColumn>,
}

/// The file of a destination.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownDestination {
    weir: u32,
    kind: String,
    /// As a person names it.
    destination: String,
    /// What the kind keeps of it.
    standing: Value,
}

impl Known {
    /// What is known of a pipeline under the project's profile.
    pub fn of(workspace: &Workspace, pipeline: &str, offline: bool) -> Self {
        let schemas = workspace.state_dir.join("schemas");
        // No name holds an `@`.
        let (folder, command) = match &workspace.project.profile {
            Some(profile) => (format!("{pipeline}@{profile}"), format!("weir --profile {profile} plan {pipeline}")),
            None => (pipeline.to_owned(), format!("weir plan {pipeline}")),
        };
        Self { folder: schemas.join(folder), command, offline }
    }

    /// The columns that a source had; none where they are not known.
    pub fn source(&self, source: &Source) -> Option<SchemaRef> {
        self.found(source).ok()
    }

    /// The columns that a source had, or why it cannot be checked without being asked.
    pub fn recalled(&self, source: &Source, asked: &Asked) -> Result<SchemaRef, Diagnostic> {
        self.found(source).map_err(|why| {
            let (settings, what) = (&source.settings, &asked.what);
            let message = match why {
                Unknown::Never => format!("the columns of {what} are not known"),
                Unknown::Otherwise => format!("the columns of {what} are not known: these settings have changed since it was asked"),
                Unknown::Unreadable => {
                    let path = self.path(&source.name.value);
                    let folder = self.folder.parent().and_then(Path::parent).and_then(Path::parent).unwrap_or(&self.folder);
                    let shown = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                    format!("the columns of {what} are not known: \"{shown}\" cannot be read")
                }
            };
            Diagnostic::error("schema-unknown", message)
                .at(&settings.file, settings.span_of(asked.setting), format!("step \"{}\"", source.name.value))
                .help(format!("ask for them where it can be reached: {}", self.command))
        })
    }

    fn found(&self, source: &Source) -> Result<SchemaRef, Unknown> {
        let text = fs::read(self.path(&source.name.value)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Unknown::Never,
            _ => Unknown::Unreadable,
        })?;
        let known: KnownSource = serde_json::from_slice(&text).map_err(|_| Unknown::Unreadable)?;
        if known.weir != VERSION {
            return Err(Unknown::Unreadable);
        }
        if known.kind != source.settings.kind.value || known.settings != mark(&source.settings) {
            return Err(Unknown::Otherwise);
        }
        known_schema(&known.columns).ok_or(Unknown::Unreadable)
    }

    /// What stood at a destination; none where nothing is known of it.
    pub fn standing(&self, sink: &PlannedSink) -> Option<Value> {
        let known: KnownDestination = serde_json::from_slice(&fs::read(self.path(&sink.name)).ok()?).ok()?;
        let is_it = known.weir == VERSION && known.kind == sink.kind && known.destination == sink.sink.destination(&sink.context);
        is_it.then_some(known.standing)
    }

    /// Says of something that is wrong with a destination that it may have changed since it was asked.
    pub fn doubtful(&self, found: Diagnostic) -> Diagnostic {
        found.help(format!("this is by what stood there when it was asked last; ask again with: {}", self.command))
    }

    /// Keeps the columns of the sources that were asked.
    pub fn keep_sources(&self, pipeline: &Pipeline, steps: &[PlannedStep]) -> io::Result<()> {
        for source in &pipeline.sources {
            let name = &source.name.value;
            let Some(own) = steps.iter().find(|planned| planned.step.name == *name).and_then(|planned| planned.own.as_ref()) else {
                continue;
            };
            let known = KnownSource {
                weir: VERSION,
                kind: source.settings.kind.value.clone(),
                source: own.asked.what.clone(),
                settings: mark(&source.settings),
                columns: known_columns(&own.columns),
            };
            self.write(name, &known)?;
        }
        Ok(())
    }

    /// Asks a destination what stands there, and keeps it. One that cannot be asked now stays known as it was.
    pub async fn keep_destination(&self, sink: &PlannedSink) -> io::Result<()> {
        let asking = tokio::time::timeout(STANDING_MAX, sink.sink.standing(&sink.context));
        let standing = match asking.await {
            Ok(Ok(Some(standing))) => standing,
            Ok(Ok(None)) => return self.forget(&sink.name),
            Ok(Err(error)) => {
                tracing::debug!(%error, sink = %sink.name, "what stands at a destination is not known");
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let destination = sink.sink.destination(&sink.context);
        self.write(&sink.name, &KnownDestination { weir: VERSION, kind: sink.kind.clone(), destination, standing })
    }

    fn path(&self, step: &str) -> PathBuf {
        self.folder.join(format!("{step}.json"))
    }

    /// Writes a file in one step, where it does not say the same already.
    fn write(&self, step: &str, known: &impl Serialize) -> io::Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(known)?);
        let path = self.path(step);
        if fs::read(&path).is_ok_and(|before| before == text.as_bytes()) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let aside = self.folder.join(format!(".{step}.{}", std::process::id()));
        let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }

    fn forget(&self, step: &str) -> io::Result<()> {
        match fs::remove_file(self.path(step)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Why nothing was kept, in words.
    pub fn unkept(&self, error: &io::Error) -> String {
        format!("what systems outside have could not be kept in \"{}\": {error}", self.folder.display())
    }
}

/// Why nothing is known of a source.
enum Unknown {
    /// Nobody has asked.
    Never,
    /// Something else was asked.
    Otherwise,
    /// The file is not one of ours.
    Unreadable,
}

/// What settings are known again by: FNV-1a of them as they are written, which may hold what nobody should read in a file.
fn mark(settings: &Settings) -> String {
    let text = settings.read::<Value>().map(|settings| settings.to_string()).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
