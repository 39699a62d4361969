//! `weir test --watch`: which files do the tests depend on, and which tests are to run again when one of them changes? Files are looked at
//! every now and then; nothing is asked of the terminal, so that there is nothing to put back when the watching ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use weir_engine::Failure;
use weir_pipelines::{GivenRows, Partial, Pipeline};

use super::{
    super::context::{Answer, Context, Stop},
    Test,
};
use crate::{
    project::{self, Found},
    render::{error, number::counted},
};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(300);
/// A file that changed may be in the middle of being written: it is read once it has stayed the same for so long.
const SETTLED: Duration = Duration::from_millis(60);
/// A file that changes without end is read all the same, after so many looks.
const LOOKS_MAX: usize = 30;
/// A folder has no more entries than this that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// How a file looked: what is there, when it was changed, and how long it is. Of a folder, so do its entries.
type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// The files that tests depend on.
#[derive(Default)]
struct Watched {
    /// The project's own file.
    project: PathBuf,
    /// By pipeline file: it, its bases and the files that it names.
    files: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// How each looked when it was last read, or before.
    stamps: BTreeMap<PathBuf, Stamp>,
}

/// Runs the tests, and again what may come out otherwise whenever a file changes. Ends with Ctrl-C, and at once where nothing that was named is
/// there to watch.
pub(super) async fn watch(test: &Test, context: &Context) -> Answer {
    let token = context.signals.token();
    let mut watched = Watched::default();
    let mut due: Option<BTreeSet<PathBuf>> = None;
    loop {
        let ended = match round(test, context, &mut watched, due.as_ref()).await {
            Ok(code) => Ok(code),
            Err(Stop::Failure(failure)) if !matches!(failure, Failure::Interrupted) => {
                context.show(&failure);
                Ok(error::exit_code(&failure))
            }
            Err(stop) => return Err(stop),
        };
        if watched.files.is_empty() && !test.pipelines.is_empty() {
            return ended;
        }
        let count = watched.stamps.len() as u64;
        context.say(&format!("watching {}; Ctrl-C ends", counted(count, "file", "files")));
        let changed = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(error::INTERRUPTED),
            changed = watched.changed(test, context) => changed,
        };
        let names: Vec<String> = changed.iter().map(|path| project::shown(path, &context.folder)).collect();
        context.say(&format!("\n{} changed", names.join(", ")));
        due = (!changed.contains(&watched.project)).then_some(changed);
    }
}

/// Runs the tests of the pipelines that depend on one of `due`, or all.
async fn round(test: &Test, context: &Context, watched: &mut Watched, due: Option<&BTreeSet<PathBuf>>) -> Answer {
    watched.project = context.root(test.pipelines.first().map(String::as_str))?.join(project::PROJECT_FILE);
    watched.note(watched.project.clone());
    let mut scope = test.scope(context)?;
    if test.pipelines.is_empty() {
        watched.files.retain(|path, _| scope.found.iter().any(|found| found.path == *path));
    }
    let found = std::mem::take(&mut scope.found);
    let is_due = |found: &Found| match (due, watched.files.get(&found.path)) {
        (Some(due), Some(files)) => files.iter().any(|file| due.contains(file)),
        _ => true,
    };
    let found: Vec<Found> = found.into_iter().filter(is_due).collect();
    let mut parsed = Vec::new();
    // The rows of a matrix stand in one file, one behind the other.
    for rows in found.chunk_by(|a, b| a.path == b.path) {
        let path = &rows[0].path;
        watched.note(path.clone());
        project::bases(path).into_iter().for_each(|base| watched.note(base));
        let of_file: Vec<_> = rows.iter().map(|found| test.parsed(&scope, found, context)).collect();
        watched.named(path, &of_file.iter().map(|one| one.as_ref().ok()).collect::<Vec<_>>());
        parsed.extend(of_file);
    }
    watched.forget();
    if found.is_empty() && due.is_some() && scope.wrong.is_empty() {
        context.say("no test depends on it");
        return Ok(error::DONE);
    }
    let tested = test.tested(scope, parsed, context).await?;
    test.told(&tested, context)
}

impl Watched {
    /// Remembers how a file looks before it is read; one that is known keeps the look it had when a change of it was seen.
    fn note(&mut self, path: PathBuf) {
        self.stamps.entry(path).or_insert_with_key(|path| stamp(path));
    }

    /// Takes in the files that the pipelines of a file name. Of what is partly wrong, those that it named before still count.
    fn named(&mut self, path: &Path, pipelines: &[Option<&Partial>]) {
        let mut files = if pipelines.iter().all(|partial| partial.is_some_and(Partial::is_whole)) {
            BTreeSet::new()
        } else {
            self.files.remove(path).unwrap_or_default()
        };
        files.insert(path.to_path_buf());
        files.extend(project::bases(path));
        files.extend(pipelines.iter().flatten().flat_map(|partial| named_by(&partial.pipeline)));
        files.iter().for_each(|file| self.note(file.clone()));
        self.files.insert(path.to_path_buf(), files);
    }

    /// Drops the stamps of files that nothing names any more.
    fn forget(&mut self) {
        let named: BTreeSet<&PathBuf> = self.files.values().flatten().collect();
        let project = &self.project;
        self.stamps.retain(|path, _| path == project || named.contains(path));
    }

    /// Waits until a file looks otherwise, or a pipeline comes or goes, and then until they stay as they are.
    async fn changed(&mut self, test: &Test, context: &Context) -> BTreeSet<PathBuf> {
        let root = self.project.parent().unwrap_or(&context.folder).to_path_buf();
        let look = |known: &BTreeMap<PathBuf, Stamp>| -> BTreeMap<PathBuf, Stamp> {
            let mut paths: BTreeSet<PathBuf> = known.keys().cloned().collect();
            if test.pipelines.is_empty() {
                paths.extend(project::pipelines(&root));
            }
            paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
        };
        loop {
            tokio::time::sleep(EVERY).await;
            let mut now = look(&self.stamps);
            if now == self.stamps {
                continue;
            }
            for _ in 0..LOOKS_MAX {
                tokio::time::sleep(SETTLED).await;
                let again = look(&self.stamps);
                if again == now {
                    break;
                }
                now = again;
            }
            let changed: BTreeSet<PathBuf> =
                now.iter().filter(|(path, stamp)| self.stamps.get(*path) != Some(stamp)).map(|(path, _)| path.clone()).collect();
            self.stamps = now;
            // An editor may take a file away and put the same one back.
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

/// The contracts that a pipeline names, and the files that its tests give.
fn named_by(pipeline: &Pipeline) -> Vec<PathBuf> {
    let of_sources = pipeline.sources.iter().map(|source| &source.rules);
    let rules = of_sources.chain(pipeline.transforms.iter().map(|transform| &transform.rules));
    let contracts = rules.filter_map(|rules| rules.contract.as_ref()).map(|path| path.value.as_str());
    let given = pipeline.tests.iter().flat_map(|test| &test.given).filter_map(|given| match &given.rows {
        GivenRows::File(path) => Some(path.value.as_str()),
        _ => None,
    });
    contracts.chain(given).map(|path| project::absolute(Path::new(path), &pipeline.folder)).collect()
}

/// How what is at a path looks; of a pattern, the folder that its files are in.
fn stamp(path: &Path) -> Stamp {
    let of = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        Some((path.to_path_buf(), about.modified().ok(), about.len()))
    };
    let folder = if path.is_dir() {
        Some(path)
    } else {
        let is_pattern = |path: &Path| path.to_string_lossy().contains(['*', '?', '[', '{']);
        (is_pattern(path) && !path.exists()).then(|| path.ancestors().find(|above| !is_pattern(above) && above.is_dir())).flatten()
    };
    let mut found: Stamp = match folder {
        Some(folder) => {
            fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES_MAX).filter_map(|entry| of(&entry.path())).collect()
        }
        None => Vec::new(),
    };
    found.extend(of(path));
    found.sort();
    found
}
