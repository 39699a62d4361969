//! What was a pipeline when a run was made of it: its texts and those of its contracts, as the run's decision keeps them, and back again.
//! Nothing that is secret is in it: of `weir.toml`, only names and kinds.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use weir_connectors::incremental::fingerprint;
use weir_pipelines::{Changes, Diagnostics, Pipeline, Project, SourceFile};

use crate::{
    contracts::Contracts,
    error::Result,
    history::{History, PublishedText},
};

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the pipeline's folder, as the pipeline names it.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// What a run is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Weir's version.
    pub weir: String,
    /// The pipeline's own file, then those that it takes parts from.
    pub files: Vec<File>,
    /// Its contracts.
    pub contracts: Vec<File>,
    /// What `--set` changed.
    pub overrides: Vec<(String, String)>,
    /// What `--param` gave.
    #[serde(default)]
    pub params: Vec<(String, String)>,
    /// The row of its matrix that it is.
    #[serde(default)]
    pub row: Option<String>,
    /// The chosen profile of `weir.toml`.
    pub profile: Option<String>,
    /// The profiles that `weir.toml` offers.
    pub profiles: Vec<String>,
    /// The lake's folder or URL as `weir.toml` has it.
    pub lake: String,
    /// The project's connections, each with its kind.
    pub connections: BTreeMap<String, String>,
}

impl Definition {
    /// What a run of this pipeline is made of, with the contracts that have been read for it.
    pub fn of(pipeline: &Pipeline, contracts: &Contracts, project: &Project) -> Self {
        let named = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        let files = pipeline.file.parts().into_iter().map(|(_, file)| File { path: named(&file.path), text: file.text.clone() });
        let connections = project.connections.iter().map(|(name, connection)| (name.clone(), connection.settings.kind.value.clone()));
        Self {
            weir: env!("CARGO_PKG_VERSION").to_owned(),
            files: files.collect(),
            contracts: contracts.texts().into_iter().map(|(path, text)| File { path, text }).collect(),
            overrides: pipeline.changes.set.clone(),
            params: pipeline.changes.params.clone(),
            row: pipeline.changes.row.clone(),
            profile: project.profile.clone(),
            profiles: project.profiles.clone(),
            lake: project.lake_path.clone(),
            connections: connections.collect(),
        }
    }

    /// Its content's hash, and the text that the history keeps.
    pub fn to_text(&self) -> (String, String) {
        let text = serde_json::to_string(self).expect("a definition is plain data");
        (format!("{:032x}", fingerprint::of(0, text.as_bytes())), text)
    }

    /// The pipeline as it was, with `file` as the path that messages show and `folder` as the place that paths start from.
    pub fn pipeline(&self, file: &str, folder: &Path) -> Result<Pipeline, Diagnostics> {
        let bases = self.files.iter().skip(1).map(|base| SourceFile::new(format!("{file} ({})", base.path), base.text.as_str()));
        let own = SourceFile::new(file, self.files.first().map(|own| own.text.as_str()).unwrap_or_default());
        let files: Vec<_> = std::iter::once(own).chain(bases).collect();
        let changes = Changes { set: self.overrides.clone(), params: self.params.clone(), row: self.row.clone() };
        let connections: Vec<&str> = self.connections.keys().map(String::as_str).collect();
        let profiles: Vec<&str> = self.profiles.iter().map(String::as_str).collect();
        let vocabulary = weir_connectors::vocabulary(&connections, &profiles);
        weir_pipelines::parse(SourceFile::joined(&files), folder.to_path_buf(), changes, vocabulary)
    }

    /// Its contracts as they were.
    pub fn contracts(&self) -> Arc<Contracts> {
        Arc::new(Contracts::kept(self.contracts.iter().map(|file| (file.path.clone(), file.text.clone()))))
    }
}

/// What is known of the version of a pipeline that was published last.
#[derive(Debug)]
pub enum Published {
    /// No run of it was published.
    Never,
    /// A run was published, and what it was made of is not known.
    Unknown {
        /// The run.
        run: String,
        /// When it started.
        at: String,
        /// Why not.
        why: String,
    },
    /// It is known.
    Known(Box<Version>),
}

/// The version of a pipeline that was published last.
#[derive(Debug)]
pub struct Version {
    /// The run.
    pub run: String,
    /// When it started.
    pub at: String,
    /// What it was made of.
    pub definition: Definition,
    /// The pipeline.
    pub pipeline: Pipeline,
}

impl Published {
    /// Looks up which version of a pipeline was published last.
    pub async fn of(history: Option<&History>, pipeline: &Pipeline) -> Result<Self> {
        let found = match history {
            Some(history) => history.published_definition(&pipeline.name.value).await?,
            None => None,
        };
        let Some(PublishedText { run, at, definition }) = found else { return Ok(Self::Never) };
        let unknown = |run, at, why: String| Ok(Self::Unknown { run, at, why });
        let Some(text) = definition else {
            return unknown(run, at, "the version of Weir that made it did not keep what it was made of".to_owned());
        };
        let definition: Definition = match serde_json::from_str(&text) {
            Ok(definition) => definition,
            Err(_) => {
                return unknown(
                    run,
                    at,
                    "another version of Weir kept what it was made of, in a form that this one cannot read".to_owned(),
                );
            }
        };
        let file = format!("{} as of run {run}", pipeline.file.path);
        match definition.pipeline(&file, &pipeline.folder) {
            Ok(before) => Ok(Self::Known(Box::new(Version { run, at, definition, pipeline: before }))),
            Err(wrong) => {
                let first = wrong.first().map(|first| format!(": {}", first.message)).unwrap_or_default();
                unknown(run, at, format!("this version of Weir refuses what Weir {} ran{first}", definition.weir))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Place, Start};

    const TEXT: &str = "weir = 1\nname = \"p\"\n[source.a.file]\npath = \"a.csv\"\n[sink.z]\nfrom = \"a\"\nlake.table = \"x.y\"\n";

    fn start(run: &str) -> Start<'_> {
        Start { run, pipeline: "p", started_at: "2026-01-01T00:00:00Z", lane: 0, task: None, interval: None }
    }

    fn definition() -> Definition {
        let pipeline = weir_pipelines::parse(
            SourceFile::new("some/where/pipeline.toml", TEXT),
            "some/where".into(),
            &[("sink.z.mode".into(), "\"replace\"".into())],
            weir_connectors::vocabulary(&[], &[]),
        );
        let project =
            "[connection.w.postgres]\nurl = \"postgres://u:hunter2@h/d\"\npassword = \"hunter2\"\n[profile.p.lake]\npath = \"l\"\n";
        let project = Project::parse(SourceFile::new("weir.toml", project), "some".into(), Some("p")).expect("is right");
        let contracts = Contracts::default();
        contracts.compile("c.json", r#"{ "properties": { "id": { "type": "integer" } } }"#).expect("is a contract");
        Definition::of(&pipeline.expect("is right"), &contracts, &project)
    }

    #[test]
    fn what_ran_is_kept_without_secrets_and_read_again() {
        let definition = definition();
        let (hash, text) = definition.to_text();
        assert!(!text.contains("hunter2"), "{text}");
        let read: Definition = serde_json::from_str(&text).expect("reads");
        assert_eq!((&read, read.to_text().0), (&definition, hash));
        assert_eq!((read.files[0].path.as_str(), read.contracts[0].path.as_str(), read.lake.as_str()), ("pipeline.toml", "c.json", "l"));
        let pipeline = read.pipeline("p as of run 1", Path::new("other")).expect("parses");
        assert_eq!(pipeline.sinks[0].mode.value.as_str(), "replace");
        assert_eq!((pipeline.file.path.as_str(), pipeline.folder.as_path()), ("p as of run 1", Path::new("other")));
    }

    #[tokio::test]
    async fn a_definition_is_kept_once_however_often_it_runs() {
        use crate::{
            books::Summary,
            history::{Cursors, RunStatus},
        };
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(&Place::File(folder.path().join("state.db")), "one").await.expect("opens");
        let definition = definition();
        let pipeline = definition.pipeline("p", Path::new(".")).expect("parses");
        assert!(matches!(Published::of(Some(&history), &pipeline).await, Ok(Published::Never)));
        for run in ["r1", "r2"] {
            let summary = Summary { run: run.into(), pipeline: "p".into(), ..Summary::default() };
            history.begin(start(run)).await.expect("begins");
            history.decide(run, RunStatus::Publishing, &[], &Cursors::default(), Some(&definition), &summary).await.expect("decides");
            let Ok(published) = Published::of(Some(&history), &pipeline).await else { panic!("it fails") };
            assert!(run == "r2" || matches!(published, Published::Never), "a decision is not a publish");
            history.finish(run, "2026-01-01T00:00:01Z", &summary).await.expect("finishes");
        }
        let Ok(Published::Known(version)) = Published::of(Some(&history), &pipeline).await else { panic!("it is not known") };
        assert_eq!((version.run.as_str(), version.definition), ("r2", definition));
        assert_eq!(history.definitions().await.expect("counts"), 1);
    }

    #[tokio::test]
    async fn what_is_not_kept_or_not_read_is_said() {
        use crate::{
            books::{Mends, Summary},
            history::{Cursors, RunStatus},
        };
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(&Place::File(folder.path().join("state.db")), "one").await.expect("opens");
        let pipeline = definition().pipeline("p", Path::new(".")).expect("parses");
        let publish = async |run: &str, definition: Option<&Definition>, mends: Option<Mends>| {
            let summary = Summary { run: run.into(), pipeline: "p".into(), mends, ..Summary::default() };
            history.begin(start(run)).await.expect("begins");
            history.decide(run, RunStatus::Publishing, &[], &Cursors::default(), definition, &summary).await.expect("decides");
            history.finish(run, "2026-01-01T00:00:01Z", &summary).await.expect("finishes");
            Published::of(Some(&history), &pipeline).await.expect("reads")
        };
        let Published::Unknown { run, why, .. } = publish("r1", None, None).await else { panic!("it is known") };
        assert_eq!((run.as_str(), why.as_str()), ("r1", "the version of Weir that made it did not keep what it was made of"));
        assert!(matches!(publish("r2", Some(&definition()), None).await, Published::Known(_)));
        let mends = Mends { step: "a".into(), rows: 1, status: "mended".into(), changes: vec![], by: "me".into(), anew: false };
        let Published::Known(version) = publish("r3", None, Some(mends)).await else { panic!("a mend is no version") };
        assert_eq!(version.run, "r2");
        let mut other = definition();
        other.files[0].text = other.files[0].text.replace("file]", "fax]");
        let Published::Unknown { why, .. } = publish("r4", Some(&other), None).await else { panic!("it is known") };
        assert_eq!(why, format!("this version of Weir refuses what Weir {} ran: no kind \"fax\" of source", other.weir));
    }
}
