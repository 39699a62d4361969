//! The project's pipelines as the scheduler sees them: read when their files change, and kept as they were while a file is wrong.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use std::sync::Mutex;

use weir_engine::{
    Failure,
    scheduler::{Catalogue, Look, Pipelines},
};
use weir_pipelines::{Diagnostics, Pipeline, Project, Saved};

use crate::{
    cli::context::{Params, Set, parse_partial},
    project::{self, Found},
};

/// A file as it is known again: when it was changed, and how large it is.
type Mark = (SystemTime, u64);

/// The pipelines of a project.
#[derive(Debug)]
pub struct Files {
    project: Project,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, File>,
    pipelines: Pipelines,
    /// Pipelines, or files that never had one, that are wrong now; each with what was said of it.
    broken: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct File {
    /// The file's own mark and those of the bases that it extends.
    marks: HashMap<PathBuf, Option<Mark>>,
    /// The pipelines that it was when it was last right.
    pipelines: Vec<Arc<Pipeline>>,
    /// What is wrong with it now, by what it is called.
    wrong: Vec<(String, String)>,
}

impl Files {
    /// Nothing is read yet.
    pub fn new(project: Project) -> Self {
        Self { project, state: Mutex::default() }
    }

    fn read(&self, path: &Path, before: Option<&File>) -> File {
        let mut marks = HashMap::from([(path.to_owned(), mark(path))]);
        marks.extend(project::bases(path).into_iter().map(|base| (base.clone(), mark(&base))));
        let mut file = File { marks, ..File::default() };
        for found in project::rows(path) {
            let name = found.name();
            match self.parse(&found, &Set::default()) {
                Ok(pipeline) => file.pipelines.push(Arc::new(pipeline)),
                Err(wrong) => {
                    let message = wrong.first().map_or_else(String::new, |first| first.message.clone());
                    file.wrong.push((name.clone(), message));
                    let kept = before.into_iter().flat_map(|before| &before.pipelines).find(|known| known.name.value == name);
                    file.pipelines.extend(kept.cloned());
                }
            }
        }
        // A name that cannot be read any more is the file's trouble, and does not end the pipeline.
        if !file.wrong.is_empty() {
            let names: BTreeSet<String> = file.pipelines.iter().map(|pipeline| pipeline.name.value.clone()).collect();
            let kept = before.into_iter().flat_map(|before| before.pipelines.clone());
            file.pipelines.extend(kept.filter(|known| !names.contains(&known.name.value)));
        }
        file
    }

    fn parse(&self, found: &Found, set: &Set) -> Result<Pipeline, Diagnostics> {
        parse_partial(&self.project, found, &self.project.root, set)?.whole()
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

impl Catalogue for Files {
    fn look(&self) -> Look {
        let mut state = self.state.lock().expect("nothing panics while it holds this lock");
        let paths = project::pipelines(&self.project.root);
        let mut changed = paths.len() != state.files.len();
        let mut files = BTreeMap::new();
        for path in paths {
            let before = state.files.get(&path);
            let is_same = before.is_some_and(|file| file.marks.iter().all(|(path, known)| mark(path) == *known));
            let file = match before {
                Some(before) if is_same => before.clone(),
                before => {
                    changed = true;
                    self.read(&path, before)
                }
            };
            files.insert(path, file);
        }
        if !changed {
            return Look { pipelines: state.pipelines.clone(), broken: Vec::new(), mended: Vec::new() };
        }
        let mut pipelines: BTreeMap<String, Arc<Pipeline>> = BTreeMap::new();
        let mut wrong: BTreeMap<String, String> = BTreeMap::new();
        for (path, file) in &files {
            wrong.extend(file.wrong.iter().cloned());
            for pipeline in &file.pipelines {
                let name = &pipeline.name.value;
                if pipelines.contains_key(name) {
                    let file = project::shown(path, &self.project.root);
                    wrong.insert(name.clone(), format!("\"{file}\" has the name of another pipeline: it is not run"));
                } else {
                    pipelines.insert(name.clone(), pipeline.clone());
                }
            }
        }
        let news = |(name, message): &(&String, &String)| state.broken.get(*name) != Some(message);
        let broken = wrong.iter().filter(news).map(|(name, message)| (name.clone(), message.clone())).collect();
        let mended = state.broken.keys().filter(|name| !wrong.contains_key(*name) && pipelines.contains_key(*name)).cloned().collect();
        *state = State { files, pipelines: Arc::new(pipelines), broken: wrong };
        Look { pipelines: state.pipelines.clone(), broken, mended }
    }

    fn pipeline(&self, name: &str, params: &BTreeMap<String, String>) -> Result<Pipeline, Failure> {
        let found = project::find_pipeline(name, &self.project.root, &self.project.root)?;
        let param = params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let set = Set { set: Vec::new(), params: Params { param } };
        Ok(self.parse(&found, &set)?)
    }

    fn queries(&self) -> (Vec<Saved>, Diagnostics) {
        project::saved(&self.project.root, &self.project.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "weir = 1\nname = \"a\"\n[source.s.file]\npath = \"x.csv\"\n[sink.o]\nfrom = \"s\"\nlake.table = \"t.o\"\n";

    fn names(look: &Look) -> Vec<&str> {
        look.pipelines.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_file_that_becomes_wrong_keeps_its_last_right_version_and_says_so_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pipeline.toml");
        fs::write(&path, RIGHT).expect("writes");
        let files = Files::new(Project::bare(folder.path().to_owned()));
        let first = files.look();
        assert_eq!(names(&first), ["a"]);
        assert!(Arc::ptr_eq(&first.pipelines, &files.look().pipelines), "what has not changed is not read again");

        fs::write(&path, format!("{RIGHT}from = 1\n")).expect("writes");
        let broken = files.look();
        assert_eq!((names(&broken), broken.broken.len()), (vec!["a"], 1));
        assert!(Arc::ptr_eq(&broken.pipelines["a"], &first.pipelines["a"]));
        assert!(files.look().broken.is_empty(), "it is said once");

        fs::write(&path, RIGHT.replace("t.o", "t.other")).expect("writes");
        let mended = files.look();
        assert_eq!((mended.mended.as_slice(), mended.broken.len()), (["a".to_owned()].as_slice(), 0));
        assert!(!Arc::ptr_eq(&mended.pipelines["a"], &first.pipelines["a"]));

        fs::write(&path, "no toml at all").expect("writes");
        assert_eq!(names(&files.look()), ["a"]);
        fs::remove_file(&path).expect("removes");
        assert!(files.look().pipelines.is_empty(), "a file that is gone is a pipeline that is gone");
    }

    #[test]
    fn two_files_of_one_name_are_one_pipeline_and_a_complaint() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.pipeline.toml"), RIGHT).expect("writes");
        fs::write(folder.path().join("b.pipeline.toml"), RIGHT).expect("writes");
        let look = Files::new(Project::bare(folder.path().to_owned())).look();
        assert_eq!(names(&look), ["a"]);
        assert_eq!(look.broken, [("a".to_owned(), "\"b.pipeline.toml\" has the name of another pipeline: it is not run".to_owned())]);
    }
}
