//! What has changed in a pipeline since it was published last: which steps, what of them, and what that touches downstream. SQL is compared
//! by what it means (`meaning`), contracts by their rules, settings by their values; layout, comments and descriptions are no change.

pub mod facets;
pub mod meaning;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use weir_pipelines::{Operator, Pipeline, Transform};
use weir_schemas::diff;

use crate::{
    contracts::Contracts,
    definition::{Definition, Published, Version},
    delta,
    plan::Dataflow,
};
use facets::Facets;

/// What has changed since the last published run.
#[derive(Debug, Clone, Serialize)]
pub struct Changes {
    /// Against which run.
    pub since: Since,
    /// What has changed, in the order of the dataflow.
    pub changes: Vec<Change>,
}

/// The run that a pipeline is held against.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "published")]
pub enum Since {
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
    /// This one.
    Known {
        /// The run.
        run: String,
        /// When it started.
        at: String,
        /// The version of Weir that made it.
        weir: String,
        /// The profile it was made under.
        profile: Option<String>,
    },
}

/// One thing that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// `source`, `transform`, `sink`, `expectation` or `project`.
    pub role: &'static str,
    /// Its name; of an expectation, what is expected.
    pub name: String,
    /// What of it has changed.
    pub what: Vec<What>,
    /// The steps downstream whose rows it may change.
    pub steps: Vec<String>,
    /// The sinks downstream.
    pub sinks: Vec<String>,
}

/// One thing of a step that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct What {
    /// The key, as a person writes it below the step: `mode`, `file.path`, `sql`, `contract`.
    pub key: String,
    /// What it was; none where it was not said, and of SQL.
    pub before: Option<String>,
    /// What it is; none where it is not said, and of SQL.
    pub now: Option<String>,
    /// What that means, sentence by sentence; of contracts.
    pub details: Vec<String>,
}

impl Changes {
    /// Holds a pipeline, as far as it is planned, against its last published version.
    pub async fn since(published: &Published, pipeline: &Pipeline, now: &Definition, flow: &Dataflow, contracts: &Contracts) -> Self {
        let version = match published {
            Published::Never => return Self { since: Since::Never, changes: Vec::new() },
            Published::Unknown { run, at, why } => {
                let since = Since::Unknown { run: run.clone(), at: at.clone(), why: why.clone() };
                return Self { since, changes: Vec::new() };
            }
            Published::Known(version) => version,
        };
        let Version { run, at, definition, pipeline: before } = version.as_ref();
        let since = Since::Known { run: run.clone(), at: at.clone(), weir: definition.weir.clone(), profile: definition.profile.clone() };
        let sides = Sides { before, now: pipeline, contracts_before: &definition.contracts(), contracts, flow };
        let mut changes = project(definition, now);
        changes.extend(sides.sources());
        changes.extend(sides.transforms().await);
        changes.extend(sides.expectations());
        changes.extend(sides.sinks());
        Self { since, changes }
    }
}

/// What has changed in `weir.toml` that a run depends on and that is no secret.
fn project(before: &Definition, now: &Definition) -> Vec<Change> {
    let facets = |definition: &Definition| {
        let mut facets = Facets::default();
        facets.put("lake.path", Some(format!("{:?}", definition.lake)));
        for (name, kind) in &definition.connections {
            facets.put(format!("connection.{name}"), Some(kind.clone()));
        }
        facets
    };
    let what = facets(before).against(&facets(now));
    let change = Change { change: "changed", role: "project", name: "weir.toml".to_owned(), what, steps: Vec::new(), sinks: Vec::new() };
    if change.what.is_empty() { Vec::new() } else { vec![change] }
}

struct Sides<'a> {
    before: &'a Pipeline,
    now: &'a Pipeline,
    contracts_before: &'a Contracts,
    contracts: &'a Contracts,
    flow: &'a Dataflow,
}

impl Sides<'_> {
    /// A change of a step, with what it touches.
    fn change(&self, change: &'static str, role: &'static str, name: &str, what: Vec<What>) -> Change {
        let behind = |pipeline: &Pipeline| -> HashSet<String> {
            let mut behind = delta::downstream(pipeline, name);
            behind.extend(
                pipeline
                    .sinks
                    .iter()
                    .filter(|sink| behind.contains(&sink.from.value))
                    .map(|sink| sink.name.value.clone())
                    .collect::<Vec<_>>(),
            );
            behind
        };
        let mut behind_all = behind(self.now);
        if change != "added" {
            behind_all.extend(behind(self.before));
        }
        behind_all.remove(name);
        let of = |names: Vec<&String>| names.into_iter().filter(|name| behind_all.contains(*name)).cloned().collect();
        let steps = of(self.now.transforms.iter().map(|transform| &transform.name.value).collect());
        let sinks = of(self.now.sinks.iter().map(|sink| &sink.name.value).collect());
        Change { change, role, name: name.to_owned(), what, steps, sinks }
    }

    fn sources(&self) -> Vec<Change> {
        let by_name =
            |pipeline: &Pipeline| pipeline.sources.iter().map(|source| (source.name.value.clone(), facets::of_source(source))).collect();
        let rules = |pipeline: &Pipeline| {
            pipeline
                .sources
                .iter()
                .map(|source| (source.name.value.clone(), source.rules.contract.clone().map(|path| path.value)))
                .collect()
        };
        self.compared("source", by_name(self.before), by_name(self.now), &rules(self.before), &rules(self.now), &BTreeMap::new())
    }

    async fn transforms(&self) -> Vec<Change> {
        let by_name = |pipeline: &Pipeline| {
            pipeline.transforms.iter().map(|transform| (transform.name.value.clone(), facets::of_transform(transform))).collect()
        };
        let rules = |pipeline: &Pipeline| {
            let contract = |transform: &Transform| transform.rules.contract.clone().map(|path| path.value);
            pipeline.transforms.iter().map(|transform| (transform.name.value.clone(), contract(transform))).collect()
        };
        let mut queries = BTreeMap::new();
        for transform in &self.now.transforms {
            let name = &transform.name.value;
            let Some(before) = self.before.transforms.iter().find(|before| before.name.value == *name) else { continue };
            let key = match (&before.operator, &transform.operator) {
                (Operator::Sql(_), Operator::Sql(_)) => "sql",
                (Operator::Filter(_), Operator::Filter(_)) => "filter",
                _ => continue,
            };
            if !meaning::same(before, transform, self.flow, &self.before.file).await {
                queries.insert(name.clone(), key);
            }
        }
        self.compared("transform", by_name(self.before), by_name(self.now), &rules(self.before), &rules(self.now), &queries)
    }

    fn sinks(&self) -> Vec<Change> {
        let by_name = |pipeline: &Pipeline| pipeline.sinks.iter().map(|sink| (sink.name.value.clone(), facets::of_sink(sink))).collect();
        let none = BTreeMap::new();
        self.compared("sink", by_name(self.before), by_name(self.now), &none, &none, &BTreeMap::new())
    }

    fn expectations(&self) -> Vec<Change> {
        let by_name = |pipeline: &Pipeline| {
            pipeline.expectations.iter().map(|one| (format!("{} ({})", one.name, one.on.value), facets::of_expectation(one))).collect()
        };
        let none = BTreeMap::new();
        let mut changes = self.compared("expectation", by_name(self.before), by_name(self.now), &none, &none, &BTreeMap::new());
        for change in &mut changes {
            // It changes no row.
            (change.steps, change.sinks) = (Vec::new(), Vec::new());
        }
        changes
    }

    /// Steps of one role side by side: those of now in their order, then those that are gone.
    fn compared(
        &self,
        role: &'static str,
        before: Vec<(String, Facets)>,
        now: Vec<(String, Facets)>,
        contracts_before: &BTreeMap<String, Option<String>>,
        contracts_now: &BTreeMap<String, Option<String>>,
        queries: &BTreeMap<String, &'static str>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, facets) in &now {
            let Some((_, old)) = before.iter().find(|(known, _)| known == name) else {
                changes.push(self.change("added", role, name, Vec::new()));
                continue;
            };
            let mut what = old.against(facets);
            if let Some(key) = queries.get(name) {
                what.insert(0, What { key: (*key).to_owned(), before: None, now: None, details: Vec::new() });
            }
            if let (Some(Some(old)), Some(Some(new))) = (contracts_before.get(name), contracts_now.get(name)) {
                what.extend(self.contract(old, new));
            }
            if !what.is_empty() {
                changes.push(self.change("changed", role, name, what));
            }
        }
        for (name, _) in before.iter().filter(|(name, _)| !now.iter().any(|(known, _)| known == name)) {
            changes.push(self.change("removed", role, name, Vec::new()));
        }
        changes
    }

    /// What has changed in the rules of a step's contract.
    fn contract(&self, before: &str, now: &str) -> Option<What> {
        let (old, new) = (text(self.contracts_before, self.before, before)?, text(self.contracts, self.now, now)?);
        if old == new {
            return None;
        }
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        if json(&old) == json(&new) {
            return None;
        }
        let what = |details| Some(What { key: "contract".to_owned(), before: None, now: None, details });
        let (Ok(one), Ok(other)) = (self.contracts_before.compile(before, &old), self.contracts.compile(now, &new)) else {
            return what(Vec::new());
        };
        let found = diff::diff(diff::Side { contract: &one, text: &old }, diff::Side { contract: &other, text: &new }, false);
        if found.changes.is_empty() && found.rows == diff::Verdict::Compatible && one.columns() == other.columns() {
            return None;
        }
        if found.changes.is_empty() && found.rows == diff::Verdict::Compatible {
            return what(vec!["its columns stand in another order".to_owned()]);
        }
        let sentence = |change: &diff::Change| format!("{}: {}", change.verdict.as_str(), change.message);
        what(found.changes.iter().map(sentence).collect())
    }
}

/// The text of a contract that a pipeline names.
fn text(contracts: &Contracts, pipeline: &Pipeline, path: &str) -> Option<String> {
    let named = weir_pipelines::Spanned::new(path.to_owned(), 0..0);
    contracts.read(pipeline, &named).ok().map(|written| written.file.text.clone())
}
