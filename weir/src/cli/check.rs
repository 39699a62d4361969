//! `weir check`: are the files right? No destination is asked, nothing runs.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::Utc;
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::runtime::Handle;
use weir_engine::{
    Failure, Workspace,
    check::{Checked, Checker, Depth, Written, shared},
    query::{Catalogue, CheckedQuery, Promised, Scopes, Settings, Who},
};
use weir_pipelines::{Diagnostic, Diagnostics, PartialProject, Relation, Severity, SourceFile};

use super::context::{Answer, Context, Params, Set, Stop, check_connection, check_state, parse_partial, to_stderr};
use crate::{
    project::{self, Found},
    render::{diagnostic, error, number::counted, sarif},
    server::alert,
    watch::Files,
};

const EXAMPLES: &str = "\
Examples:
  weir check                        every pipeline of the project
  weir check flights                one, by name
  weir check pipelines/flights      one, by folder or file
  weir check --offline              where servers cannot be reached: by what they had last
  weir check -v flights             with the rules of its contracts that can never fail
  weir check --json | jq '.diagnostics[].message'
  weir check --sarif > weir.sarif   for a code host, which shows errors in a change";

/// Where pipelines read from servers, so many wait side by side.
const AT_ONCE_MIN: usize = 8;

/// Check pipelines: files, SQL, types and contracts; nothing runs
///
/// Says everything that is wrong at once, with file, line and column: weir.toml, each pipeline, its contracts, its SQL, what its destinations
/// take, its tests. A step that reads a wrong one is passed over. Reads the headers of files to learn their columns, and asks databases for those
/// of tables; destinations are not asked: what weir plan or the last published run found there stands in their place. With --offline it does so
/// for sources too, and touches no network. With -v it names the rules of contracts that can never fail, which a run does not execute.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// Pipelines by file, folder or name [default: all of the project]
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipelines: Vec<String>,
    #[command(flatten)]
    set: Set,
    /// Answer with a SARIF 2.1.0 log, which code hosts and editors show at the lines concerned
    #[arg(long, conflicts_with = "json")]
    sarif: bool,
    /// Ask no server and no network: what the last plan or run found there stands in their place
    #[arg(long)]
    offline: bool,
}

/// What a check of several pipelines came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The pipelines that are right, in the order of their files.
    pub checked: Vec<Checked>,
    /// The saved queries that are right, where all of the project is checked.
    pub queries: Vec<CheckedQuery>,
    /// Errors and warnings: files in the order of their names, what is said of one in its order.
    pub diagnostics: Diagnostics,
    /// The failures of systems outside among them.
    pub outside: Vec<Failure>,
    /// The files are wrong; else some system outside failed; else all is well.
    pub exit_code: u8,
}

impl Outcome {
    fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// What several pipelines say of one contract in the same words is said once.
    fn sort(&mut self) {
        self.diagnostics.sort_by_cached_key(Diagnostic::place);
        let mut said = HashSet::new();
        let mark = |one: &Diagnostic| {
            (one.code, one.message.clone(), one.labels.iter().map(|label| (label.file.path.clone(), label.span.start)).collect::<Vec<_>>())
        };
        self.diagnostics.retain(|one| said.insert(mark(one)));
    }
}

impl Check {
    /// Checks and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let outcome = self.checked(context).await?;
        if context.global.json {
            let diagnostics: Vec<_> = outcome.diagnostics.iter().map(diagnostic::to_json).collect();
            context.answer_json(&json!({ "pipelines": outcome.checked, "queries": outcome.queries, "diagnostics": diagnostics }))?;
            if outcome.errors() > 0 {
                context.say(&counted(outcome.errors() as u64, "error", "errors"));
            }
        } else {
            let text = error::render_diagnostics(&outcome.diagnostics, context.talk);
            if outcome.errors() > 0 {
                to_stderr(text.trim_end_matches('\n'));
            } else if !text.is_empty() {
                context.say(text.trim_end_matches('\n'));
            }
            if context.global.verbose > 0 {
                outcome.checked.iter().flat_map(proved).for_each(|line| context.say(&line));
            }
            if self.sarif {
                context.answer_json(&sarif::to_sarif(&outcome.diagnostics, &context.folder, outcome.exit_code))?;
                return Ok(outcome.exit_code);
            }
            for checked in &outcome.checked {
                context.answer(&format!("{}: {}\n", checked.pipeline, context.out.green(&describe(checked))))?;
            }
            for query in &outcome.queries {
                context.answer(&format!("query {}: {}\n", query.query, context.out.green(&describe_query(query))))?;
            }
        }
        Ok(outcome.exit_code)
    }

    async fn checked(&self, context: &Context) -> Result<Outcome, Stop> {
        let PartialProject { project, found, follow_on } = context.partial_project(self.pipelines.first().map(String::as_str))?;
        let mut outcome = Outcome { diagnostics: found, ..Outcome::default() };
        let mut unusable = Vec::new();
        for (name, connection) in &project.connections {
            let wrong = check_connection(name, connection);
            let is_told = |one: &Diagnostic| one.message.contains(&format!("connection \"{name}\""));
            if !wrong.is_empty() || outcome.diagnostics.iter().any(is_told) {
                unusable.push(name.clone());
            }
            outcome.diagnostics.extend(wrong);
        }
        outcome.diagnostics.extend(check_state(&project));
        outcome.diagnostics.extend(alert::check(&project));
        let found = self.pipelines(context, &project.root, &mut outcome.diagnostics);
        let known = if found.len() > 1 { declared(&found, &self.set) } else { HashMap::new() };
        let workspace = Workspace::new(project, context.environment.clone(), project::machine(), Utc::now);
        let mut checker = Checker::new(workspace, self.offline).await?;
        (checker.unusable, checker.follow_on) = (unusable, follow_on);
        // A state that is written wrong is told already.
        if check_state(&checker.workspace.project).is_empty() {
            outcome.diagnostics.append(&mut checker.doubts);
        }
        let checker = Arc::new(checker);
        let files: Vec<PathBuf> = found.iter().map(|found| found.path.clone()).collect();
        let work = found.into_iter().map(|found| {
            let (checker, folder) = (checker.clone(), context.folder.clone());
            let set = known.get(&found.path).unwrap_or(&self.set).clone();
            // Planning is work for a processor: each pipeline has a thread of its own.
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(one(&checker, &found, &folder, &set)))
        });
        // Each task is spawned when its turn comes.
        let mut running = stream::iter(work).buffered((checker.workspace.cpus * 2).max(AT_ONCE_MIN));
        let mut written: Vec<(PathBuf, Vec<Written>)> = Vec::new();
        let mut files = files.into_iter();
        while let Some(ended) = running.next().await {
            let file = files.next().expect("each ends once");
            let ended =
                ended.map_err(|error| Failure::error("panic", format!("a check ended: {error}")).blame(weir_connectors::Blame::Weir))?;
            match ended? {
                Ok(found) => {
                    outcome.checked.extend(found.checked);
                    outcome.diagnostics.extend(found.diagnostics);
                    outcome.outside.extend(found.outside);
                    match written.last_mut().filter(|(last, _)| *last == file) {
                        Some((_, all)) => all.extend(found.destinations),
                        None => written.push((file, found.destinations)),
                    }
                }
                Err(unreadable) => outcome.diagnostics.extend(unreadable),
            }
        }
        if self.pipelines.is_empty() {
            let promised: Vec<Promised> = written.iter().flat_map(|(_, written)| written).filter_map(promised).collect();
            self.queries(context, &checker.workspace, &promised, &mut outcome).await?;
        }
        for (_, written) in &written {
            let found = shared(written);
            if found.iter().any(|one| one.severity == Severity::Error) {
                outcome.checked.retain(|checked| !written.iter().any(|written| written.pipeline == checked.pipeline));
            }
            outcome.diagnostics.extend(found);
        }
        // Of what is said once, each counts.
        outcome.exit_code = error::exit_code_of(&outcome.diagnostics, &outcome.outside);
        outcome.sort();
        Ok(outcome)
    }

    /// Checks the saved queries. Offline, those that read connections or steps are not planned.
    async fn queries(&self, context: &Context, workspace: &Workspace, promised: &[Promised], outcome: &mut Outcome) -> Result<(), Stop> {
        let (saved, found) = project::saved(&workspace.project.root, &context.folder);
        outcome.diagnostics.extend(found);
        if saved.is_empty() {
            return Ok(());
        }
        let files = Arc::new(Files::new(workspace.project.clone()));
        let settings = Settings { files: Some(files), ..Settings::local(workspace) };
        let scopes = if self.offline { Scopes::parse(&["runs", "sql", "files"]).unwrap_or_default() } else { Scopes::all() };
        let session = Catalogue::open(workspace, settings)?.session(Who { scopes, ..Who::local() });
        for saved in &saved {
            let relations = saved.sql.relations().unwrap_or_default();
            let is_live = |relation: &Relation| relation.parts.len() == 3 && workspace.project.connections.contains_key(&relation.parts[0]);
            if self.offline && relations.iter().any(is_live) {
                outcome.queries.push(CheckedQuery::new(saved));
                continue;
            }
            match session.check_saved(saved, promised).await {
                Ok(checked) => outcome.queries.push(checked),
                Err(Failure::Diagnostics(found)) if self.offline && found.iter().all(|one| one.code == "not-allowed") => {
                    outcome.queries.push(CheckedQuery::new(saved));
                }
                Err(Failure::Diagnostics(found)) => outcome.diagnostics.extend(found.into_iter().map(|one| shown(one, &saved.sql.file))),
                Err(failure) => {
                    outcome.outside.push(failure.clone());
                    outcome.diagnostics.extend(failure.into_diagnostics(&saved.sql.file, saved.name.span.clone()));
                }
            }
        }
        Ok(())
    }

    /// The pipelines that are meant, those of one file together.
    fn pipelines(&self, context: &Context, root: &Path, wrong: &mut Diagnostics) -> Vec<Found> {
        let mut all = Vec::new();
        for argument in &self.pipelines {
            match project::find_pipelines(argument, root, &context.folder) {
                Ok(found) => all.extend(found),
                Err(unknown) => wrong.push(unknown),
            }
        }
        if self.pipelines.is_empty() {
            all = project::pipelines(root).iter().flat_map(|path| project::rows(path)).collect();
        }
        if all.is_empty() && self.pipelines.is_empty() {
            let message = format!("there are no pipelines in {} and its pipelines/ folder", root.display());
            let help = "name one by its path, or make one with: weir new NAME";
            wrong.push(Diagnostic::error("no-pipelines", message).help(help));
        }
        all
    }
}

/// What each of several files is read with: of the parameters that are given, those it declares. One that no file declares is given to all, to
/// be told.
fn declared(found: &[Found], set: &Set) -> HashMap<PathBuf, Set> {
    let given = &set.params.param;
    if given.is_empty() {
        return HashMap::new();
    }
    let names: HashMap<&PathBuf, Vec<String>> = found
        .iter()
        .map(|found| {
            let names = project::layers(&found.path, &found.path).map(|layers| weir_pipelines::param_names(&layers));
            (&found.path, names.unwrap_or_default())
        })
        .collect();
    let is_known = |name: &String| names.values().any(|names| names.contains(name));
    let own = |names: &[String]| {
        let param = given.iter().filter(|(name, _)| names.contains(name) || !is_known(name)).cloned().collect();
        Set { set: set.set.clone(), params: Params { param } }
    };
    names.iter().map(|(path, names)| ((*path).clone(), own(names))).collect()
}

/// Reads and checks one pipeline; one that cannot be read is told so.
async fn one(
    checker: &Checker,
    found: &Found,
    folder: &Path,
    set: &Set,
) -> Result<Result<weir_engine::check::Outcome, Diagnostics>, Failure> {
    match parse_partial(&checker.workspace.project, found, folder, set) {
        Ok(partial) => checker.check(partial, Depth::Files).await.map(Ok),
        Err(unreadable) => Ok(Err(unreadable)),
    }
}

/// The rules that can never fail, contract by contract.
fn proved(checked: &Checked) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &checked.steps {
        let Some(contract) = step.contract.as_ref().filter(|contract| !contract.proved.is_empty()) else { continue };
        lines.push(format!("{}: step \"{}\": {}", checked.pipeline, step.step, super::plan::describe(contract)));
        for rule in &contract.proved {
            let by = match rule.by.as_slice() {
                [] => "the step's columns".to_owned(),
                steps => steps.join(", "),
            };
            let column = rule.column.as_ref().map(|column| format!("{column}: ")).unwrap_or_default();
            lines.push(format!("  {column}{} (held by {by})", rule.rule));
        }
    }
    lines
}

/// The lake table that a sink will make.
fn promised(written: &Written) -> Option<Promised> {
    let (schema, table) = written.destination.strip_prefix("lake.")?.split_once('.')?;
    Some(Promised { schema: schema.to_owned(), table: table.to_owned(), columns: written.columns.clone() })
}

/// A diagnostic of a file, which has another name in a session.
fn shown(mut one: Diagnostic, file: &Arc<SourceFile>) -> Diagnostic {
    for label in one.labels.iter_mut().filter(|label| label.file.text == file.text) {
        label.file = file.clone();
    }
    if one.file.as_ref().is_some_and(|known| known.text == file.text) {
        one.file = Some(file.clone());
    }
    one
}

fn describe_query(query: &CheckedQuery) -> String {
    let parameters = counted(query.parameters.len() as u64, "parameter", "parameters");
    match query.columns.len() as u64 {
        0 => format!("ok ({parameters}; its tables were not looked at)"),
        columns => format!("ok ({parameters}, {})", counted(columns, "column", "columns")),
    }
}

fn describe(checked: &Checked) -> String {
    let sources = checked.steps.iter().filter(|step| step.role == "source").count() as u64;
    let transforms = checked.steps.len() as u64 - sources;
    format!(
        "ok ({}, {}, {})",
        counted(sources, "source", "sources"),
        counted(transforms, "transform", "transforms"),
        counted(checked.sinks.len() as u64, "sink", "sinks"),
    )
}
