//! What will a run read, and what will it use: files, rows, cursors, connections, and the names of secrets, never their values.

use std::path::Path;

use serde::Serialize;
use weir_connectors::{Extent, RunContext};
use weir_pipelines::{Pipeline, Project, Settings};

use crate::plan::Dataflow;

/// What a run reads and uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// What each source would read.
    pub reads: Vec<Reads>,
    /// The connections that steps name.
    pub connections: Vec<Connection>,
    /// Variables of the environment that are set and by which object stores are opened.
    pub object_stores: Vec<String>,
}

/// What one source would read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// The source.
    pub source: String,
    /// How much.
    #[serde(flatten)]
    pub extent: Extent,
}

/// A connection that steps name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Its name in `weir.toml`.
    pub connection: String,
    /// Its kind.
    pub kind: String,
    /// The steps that name it.
    pub steps: Vec<String>,
    /// Which of its settings are kept elsewhere, and where.
    pub secrets: Vec<Secret>,
}

/// A setting that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// The setting.
    pub setting: String,
    /// `env`, `file` or `command`.
    pub place: &'static str,
    /// The variable, the path or the program.
    pub name: String,
    /// Whether it is there; not known of a command.
    pub present: Option<bool>,
}

impl Needs {
    /// Of a pipeline, as far as it is planned.
    pub fn of(pipeline: &Pipeline, flow: &Dataflow, project: &Project, run: &RunContext) -> Self {
        let extent =
            |planned: &crate::plan::PlannedStep| Some(Reads { source: planned.step.name.clone(), extent: planned.extent.clone()? });
        let reads = flow.steps.iter().filter_map(extent).collect();
        let sources = pipeline.sources.iter().map(|source| (&source.name.value, &source.settings));
        let sinks = flow.sinks.iter().map(|sink| (&sink.name, &sink.settings));
        let steps: Vec<(&String, &Settings)> = sources.chain(sinks).collect();
        let mut connections: Vec<Connection> = Vec::new();
        for (step, settings) in &steps {
            let Some(name) = settings.text("connection") else { continue };
            let Some(connection) = project.connections.get(&name) else { continue };
            match connections.iter_mut().find(|known| known.connection == name) {
                Some(known) => known.steps.push((*step).clone()),
                None => connections.push(Connection {
                    kind: connection.settings.kind.value.clone(),
                    steps: vec![(*step).clone()],
                    secrets: connection.settings.references().into_iter().map(|found| secret(found, &project.root, run)).collect(),
                    connection: name,
                }),
            }
        }
        let entries = steps.iter().flat_map(|(_, settings)| settings.entries().into_values());
        let is_lake = flow.sinks.iter().any(|sink| sink.kind == weir_connectors::lake::SINK.kind);
        let places: Vec<String> = entries.chain(is_lake.then(|| run.lake.clone())).collect();
        Self { reads, connections, object_stores: object_stores(&places, run) }
    }
}

fn secret((setting, place, name): (String, &'static str, String), root: &Path, run: &RunContext) -> Secret {
    let present = match place {
        "env" => Some(run.environment.contains_key(&name)),
        "file" => Some(root.join(&name).is_file()),
        _ => None,
    };
    Secret { setting, place, name, present }
}

/// The variables that are set for the object stores among these places.
fn object_stores(places: &[String], run: &RunContext) -> Vec<String> {
    let schemes: [(&[&str], &str); 3] =
        [(&["s3://", "s3a://"], "AWS_"), (&["gs://"], "GOOGLE_"), (&["az://", "adl://", "azure://", "abfs://", "abfss://"], "AZURE_")];
    let uses = |schemes: &[&str]| places.iter().any(|place| schemes.iter().any(|scheme| place.contains(scheme)));
    let prefixes: Vec<&str> = schemes.iter().filter(|(schemes, _)| uses(schemes)).map(|(_, prefix)| *prefix).collect();
    let mut names: Vec<String> =
        run.environment.keys().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).cloned().collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use weir_connectors::Purpose;
    use weir_pipelines::SourceFile;

    use super::*;
    use crate::{
        plan::{self, Frugality, Inputs},
        workspace::{Machine, Workspace},
    };

    #[tokio::test]
    async fn connections_and_secrets_are_named_and_never_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.csv"), "id\n1\n").expect("writes");
        std::fs::write(folder.path().join("password"), "hunter2").expect("writes");
        let project = "[connection.w.postgres]\nurl = { env = \"W_URL\" }\npassword = { file = \"password\" }\n\
                       client_key = { command = [\"pass\", \"hunter2\"] }\n[connection.other.postgres]\nurl = { env = \"O_URL\" }\n";
        let project = Project::parse(SourceFile::new("weir.toml", project), folder.path().to_path_buf(), None).expect("is right");
        let pipeline = "weir = 1\nname = \"p\"\n[source.a.file]\npath = \"a.csv\"\n[sink.z]\nfrom = \"a\"\n\
                        postgres = { connection = \"w\", table = \"t\" }\n[sink.y]\nfrom = \"a\"\nlake.table = \"x.y\"\n";
        let vocabulary = weir_connectors::vocabulary(&["w", "other"], &[]);
        let pipeline = weir_pipelines::parse(SourceFile::new("p", pipeline), folder.path().to_path_buf(), &[], vocabulary);
        let pipeline = pipeline.expect("is right");
        let environment = HashMap::from([("AWS_REGION".to_owned(), "hunter2".to_owned()), ("HOME".to_owned(), "h".to_owned())]);
        let mut workspace =
            Workspace::new(project, environment, Machine { memory_bytes: 1 << 30, cpus: 1 }, || chrono::DateTime::UNIX_EPOCH);
        workspace.lake = "s3://bucket/lake".to_owned();
        let context = workspace.dry_context("p").expect("a context");
        let draft = plan::draft(&pipeline, &context, Purpose::Plan, Frugality::Fast, &Inputs::default()).await;
        let needs = Needs::of(&pipeline, &draft.flow, &workspace.project, &context);
        assert!(!format!("{needs:?}").contains("hunter2"), "{needs:?}");
        assert_eq!(needs.reads.len(), 1);
        assert_eq!(needs.reads[0].extent.files.as_ref().map(|files| (files.count, files.bytes)), Some((1, 5)));
        let [used] = needs.connections.as_slice() else { panic!("{needs:?}") };
        assert_eq!((used.connection.as_str(), used.kind.as_str(), used.steps.join(",")), ("w", "postgres", "z".to_owned()));
        let secrets = used.secrets.iter().map(|one| (one.setting.as_str(), one.place, one.name.as_str(), one.present));
        let mut secrets: Vec<_> = secrets.collect();
        secrets.sort_unstable();
        assert_eq!(
            secrets,
            [("client_key", "command", "pass", None), ("password", "file", "password", Some(true)), ("url", "env", "W_URL", Some(false))]
        );
        assert_eq!(needs.object_stores, ["AWS_REGION"]);
    }
}
