//! What would a changed pipeline load otherwise than its published version? Both are executed on the same input, and their rows are
//! compared sink by sink. No destination is asked, nothing is staged, no cursor moves; what is kept on the way lies in the project's `.weir/tmp`.

pub mod capture;
pub mod difference;
pub mod encode;

use std::{collections::HashMap, fs::File, path::PathBuf, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use weir_connectors::spill::Spilled;
use weir_connectors::{Blame, RunContext};
use weir_pipelines::{Expected, Operator, Pipeline, Sink};

use crate::{
    contracts::Contracts,
    definition::{Published, Version},
    drift,
    error::{Failure, Result},
    interval,
    plan::{self, Frugality, Replaced, taking_part},
    trial::{self, Judge, Keeps, Trial},
    workspace::Workspace,
};
use capture::{Captured, Captures, capture, read_alike};
use datafusion::logical_expr::LogicalPlan;
use difference::{Difference, Rows, Stopped};
use encode::Columns;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Of a source with more rows than this, about so many are taken.
    pub sample: Option<u64>,
    /// So many rows of each kind are shown.
    pub examples: usize,
}

/// How two versions of a pipeline differ in what they load.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The pipeline.
    pub pipeline: String,
    /// The run that published the version of before.
    pub run: String,
    /// When that run started.
    pub at: String,
    /// What `now()` was for both.
    pub clock: String,
    /// What both were given.
    pub input: Vec<Captures>,
    /// Rows that broke their contract or could not be read, by step; steps without any are left out.
    pub rejected: Vec<Rejected>,
    /// Sink by sink.
    pub sinks: Vec<SinkComparison>,
}

/// Rows that a step rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The step.
    pub step: String,
    /// By the published version; none where it has no such step.
    pub before: Option<u64>,
    /// By the new version; none where it has no such step.
    pub now: Option<u64>,
}

/// How one sink's rows differ.
#[derive(Debug, Serialize)]
pub struct SinkComparison {
    /// The sink.
    pub sink: String,
    /// The step it reads; of a sink that is gone, the one it read.
    pub from: String,
    /// `compared`, `added` or `removed`: in one version alone there is nothing to hold its rows against.
    pub state: &'static str,
    /// By which columns rows are known again; empty where whole rows are compared.
    pub key: Vec<String>,
    /// Who says so: `sink`, `deduplicate`, `expectation`, `group by`; none where whole rows are compared.
    pub key_by: Option<&'static str>,
    /// Why whole rows are compared though there is a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Columns that only the new version has.
    pub columns_added: Vec<String>,
    /// Columns that only the published version has.
    pub columns_removed: Vec<String>,
    /// What differs.
    #[serde(flatten)]
    pub difference: Difference,
}

/// A folder for what is kept on the way, which is held by one process and goes with it.
struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Takes the folder, and removes what an earlier process left there.
    fn take(workspace: &Workspace, pipeline: &str) -> Result<Self> {
        // No pipeline has a dot in its name.
        let name = format!("{pipeline}.plan");
        let lock = workspace.lock(&name).map_err(|failure| match failure {
            Failure::Error(error) if error.code == "already-running" => {
                Failure::error("already-running", format!("another comparison of \"{pipeline}\" is under way"))
                    .help("wait until it has ended, or stop it")
            }
            other => other,
        })?;
        let folder = workspace.state_dir.join("tmp").join(name);
        let made = match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&folder),
        };
        made.map_err(|error| {
            Failure::error("state", format!("cannot make the folder \"{}\": {error}", folder.display())).blame(Blame::System)
        })?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next comparison.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One of the two versions.
struct Side<'a> {
    pipeline: &'a Pipeline,
    contracts: Arc<Contracts>,
    /// What its failures are told of.
    name: String,
}

/// Runs the published and the new version of a pipeline on the same input and compares what they would load. `tell` is told what goes on.
pub async fn compare(
    workspace: &Workspace,
    pipeline: &Pipeline,
    request: Request,
    cancel: CancellationToken,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<Comparison> {
    let name = &pipeline.name.value;
    let history = workspace.existing_history().await?;
    let version = match Published::of(history.as_ref(), pipeline).await? {
        Published::Known(version) => version,
        Published::Never => {
            return Err(Failure::error(
                "not-published",
                format!("\"{name}\" has never been published: there is nothing to compare it with"),
            )
            .help(format!("run it once: weir run {name}; or see what it would do: weir plan {name}")));
        }
        Published::Unknown { run, why, .. } => {
            return Err(Failure::error("not-published", format!("what run {run} was made of is not known: {why}"))
                .help(format!("the next published run keeps it: weir run {name}")));
        }
    };
    let Version { run, at, pipeline: before, definition } = version.as_ref();
    let seen = match &history {
        Some(history) => drift::remembered(history, pipeline).await?,
        None => HashMap::new(),
    };
    let scratch = Scratch::take(workspace, name)?;
    let mut context = RunContext::clone(&*workspace.dry_context(name)?);
    context.cancel = cancel;
    context.runtime = workspace.runtime(Some(scratch.folder.clone()))?;
    // In one stream, sums of floats have their terms in one order: what differs is what changed.
    context.partitions = 1;
    let profile = context.profile.clone();
    context.interval = interval::last_whole(pipeline, context.started_at);
    let context = Arc::new(context);
    let old = Side { pipeline: before, contracts: definition.contracts(), name: format!("the version published by run {run}") };
    let new = Side { pipeline, contracts: workspace.contracts.clone(), name: "the new version".to_owned() };

    let sinks = |pipeline: &Pipeline| -> Vec<Sink> { taking_part(pipeline, profile.as_deref()).cloned().collect() };
    let (sinks_before, sinks_now) = (sinks(before), sinks(pipeline));
    let (captured_before, captured_now, input) =
        captures(&old, &new, [&sinks_before, &sinks_now], &seen, &context, request.sample, tell).await?;
    tell(format!("executing {}", old.name));
    let made_before = execute(&old, &sinks_before, &captured_before, &context).await?;
    tell(format!("executing {}", new.name));
    let made_now = execute(&new, &sinks_now, &captured_now, &context).await?;

    let session = plan::session(context.runtime.clone(), 1, 2048, Frugality::Frugal);
    let mut compared = Vec::new();
    for sink in &sinks_now {
        let name = &sink.name.value;
        let from = &sink.from.value;
        let Some((now, plan)) = made_now.rows.get(from) else { continue };
        let found = sinks_before.iter().find(|other| other.name.value == *name).and_then(|other| made_before.rows.get(&other.from.value));
        let Some((old, _)) = found else {
            compared.push(alone(sink, "added", now.rows()));
            continue;
        };
        tell(format!("comparing the rows of \"{name}\""));
        let columns = Columns::of(old.schema(), now.schema());
        let rows = Rows {
            before: old,
            now,
            columns: &columns,
            examples: request.examples,
            session: &session,
            runtime: &context.runtime,
            cancel: &context.cancel,
        };
        compared.push(held_against(pipeline, sink, plan.as_ref(), &rows).await?);
    }
    for sink in sinks_before.iter().filter(|sink| !sinks_now.iter().any(|other| other.name.value == sink.name.value)) {
        let rows = made_before.rows.get(&sink.from.value).map_or(0, |(rows, _)| rows.rows());
        compared.push(alone(sink, "removed", rows));
    }
    Ok(Comparison {
        pipeline: name.clone(),
        run: run.clone(),
        at: at.clone(),
        clock: context.started_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        input,
        rejected: rejected(&old, &new, [(&captured_before, &made_before), (&captured_now, &made_now)]),
        sinks: compared,
    })
}

/// A sink that one version alone has.
fn alone(sink: &Sink, state: &'static str, rows: u64) -> SinkComparison {
    let mut difference = Difference::default();
    match state {
        "added" => (difference.rows_now, difference.added) = (rows, rows),
        _ => (difference.rows_before, difference.removed) = (rows, rows),
    }
    SinkComparison {
        sink: sink.name.value.clone(),
        from: sink.from.value.clone(),
        state,
        key: Vec::new(),
        key_by: None,
        note: None,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        difference,
    }
}

/// Compares the rows of one sink, by its key where there is one that tells rows apart.
async fn held_against(pipeline: &Pipeline, sink: &Sink, plan: Option<&LogicalPlan>, rows: &Rows<'_>) -> Result<SinkComparison> {
    let names = |fields: &[arrow::datatypes::Field]| fields.iter().map(|field| field.name().clone()).collect();
    let columns = rows.columns;
    let stopped = |stopped: Stopped| match stopped {
        Stopped::Cancelled | Stopped::Twice => Failure::Interrupted,
        Stopped::Failed(error) => crate::run::explain(&error).in_step(&sink.name.value),
    };
    let mut note = None;
    let mut found = None;
    for (key, by) in keys(pipeline, sink, plan) {
        if let Some(missing) = key.iter().find(|name| !columns.both.iter().any(|column| column.field.name() == *name)) {
            note.get_or_insert(format!("\"{missing}\" of the key is not a column of both versions"));
            continue;
        }
        match rows.differ(&key).await {
            Ok(difference) => {
                found = Some((key, by, difference));
                break;
            }
            Err(Stopped::Twice) => {
                note.get_or_insert(format!("several rows have one key ({})", key.join(", ")));
            }
            Err(other) => return Err(stopped(other)),
        }
    }
    let (key, key_by, difference) = match found {
        Some((key, by, difference)) => (key, Some(by), difference),
        None => (Vec::new(), None, rows.differ(&[]).await.map_err(stopped)?),
    };
    Ok(SinkComparison {
        sink: sink.name.value.clone(),
        from: sink.from.value.clone(),
        state: "compared",
        note: note.filter(|_| key_by.is_none()),
        key,
        key_by,
        columns_added: names(&columns.added),
        columns_removed: names(&columns.removed),
        difference,
    })
}

/// What may tell the rows of a sink apart, the most telling first: its own key, that of a `deduplicate` before it, columns that an
/// expectation calls unique, what its rows are grouped by.
fn keys(pipeline: &Pipeline, sink: &Sink, plan: Option<&LogicalPlan>) -> Vec<(Vec<String>, &'static str)> {
    let mut keys: Vec<(Vec<String>, &'static str)> = Vec::new();
    let mut add = |key: Vec<String>, by| {
        if !key.is_empty() && !keys.iter().any(|(known, _)| *known == key) {
            keys.push((key, by));
        }
    };
    let values = |names: &[weir_pipelines::Spanned<String>]| names.iter().map(|name| name.value.clone()).collect::<Vec<_>>();
    add(values(&sink.key), "sink");
    let mut step = &sink.from.value;
    loop {
        let transform = pipeline.transforms.iter().find(|transform| transform.name.value == *step);
        let operator = transform.map(|transform| &transform.operator);
        if let Some(Operator::Deduplicate { key, .. }) = operator {
            add(values(key), "deduplicate");
        }
        for expectation in pipeline.expectations.iter().filter(|expectation| expectation.on.value == *step) {
            if let Expected::Unique(columns) = &expectation.expected {
                add(values(columns), "expectation");
            }
        }
        let Some(transform) = transform else { break };
        // What leaves rows out, and names as they are, leaves keys as they are.
        let (Operator::Filter(_) | Operator::Select(_) | Operator::Cast(_), Some(input)) = (&transform.operator, transform.inputs.first())
        else {
            break;
        };
        step = &input.value;
    }
    if let Some(plan) = plan {
        let fields = plan.schema().fields();
        for dependence in plan.schema().functional_dependencies().iter() {
            let key = dependence.source_indices.iter().filter_map(|at| fields.get(*at)).map(|field| field.name().clone());
            if dependence.mode == datafusion::common::Dependency::Single && dependence.target_indices.len() == fields.len() {
                add(key.collect(), "group by");
            }
        }
    }
    keys
}

/// What both versions read. A source that both read alike is read once.
async fn captures(
    old: &Side<'_>,
    new: &Side<'_>,
    sinks: [&[Sink]; 2],
    seen: &HashMap<String, std::collections::BTreeMap<String, String>>,
    context: &Arc<RunContext>,
    sample: Option<u64>,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<(HashMap<String, Captured>, HashMap<String, Captured>, Vec<Captures>)> {
    let needed = |side: &Side<'_>, sinks: &[Sink]| -> Vec<String> {
        let targets: Vec<String> = sinks.iter().map(|sink| sink.from.value.clone()).collect();
        let (part, _) = trial::part(side.pipeline, &targets, |_| false);
        part.sources.iter().map(|source| source.name.value.clone()).collect()
    };
    let (needed_before, needed_now) = (needed(old, sinks[0]), needed(new, sinks[1]));
    let mut now = HashMap::new();
    for name in &needed_now {
        tell(format!("reading \"{name}\""));
        let wanted = std::slice::from_ref(name);
        now.extend(capture(new.pipeline, wanted, &new.contracts, seen, context, sample).await.map_err(|failure| of(new, failure))?);
    }
    let (mut before, mut input) = (HashMap::new(), Vec::new());
    let told = |source: &str, of, captured: &Captured| Captures {
        source: source.to_owned(),
        of,
        rows: captured.read,
        taken: captured.rows.rows(),
    };
    let source = |side: &Side<'_>, name: &str| side.pipeline.sources.iter().find(|source| source.name.value == name).cloned();
    for name in &needed_before {
        let alike = match (source(old, name), source(new, name)) {
            (Some(one), Some(other)) => read_alike(&one, &other, [(&old.contracts, old.pipeline), (&new.contracts, new.pipeline)]),
            _ => false,
        };
        if let Some(captured) = now.get(name).filter(|_| alike) {
            before.insert(name.clone(), captured.clone());
            input.push(told(name, "both", captured));
            continue;
        }
        tell(format!("reading \"{name}\" as {} did", old.name));
        let wanted = std::slice::from_ref(name);
        let found = capture(old.pipeline, wanted, &old.contracts, seen, context, sample).await.map_err(|failure| of(old, failure))?;
        for (name, captured) in found {
            input.push(told(&name, "before", &captured));
            before.insert(name, captured);
        }
    }
    for name in &needed_now {
        if let Some(captured) = now.get(name).filter(|_| !input.iter().any(|told| told.source == *name && told.of == "both")) {
            input.push(told(name, "now", captured));
        }
    }
    Ok((before, now, input))
}

/// What one version made.
struct Made {
    /// The rows of the steps that sinks read, each with the plan that made it.
    rows: HashMap<String, (Spilled, Option<LogicalPlan>)>,
    /// How many rows each step rejected.
    rejected: HashMap<String, u64>,
}

/// Executes one version on what was captured.
async fn execute(side: &Side<'_>, sinks: &[Sink], captured: &HashMap<String, Captured>, context: &Arc<RunContext>) -> Result<Made> {
    let mut targets: Vec<String> = Vec::new();
    for sink in sinks {
        if !targets.contains(&sink.from.value) {
            targets.push(sink.from.value.clone());
        }
    }
    let given: Replaced = captured.iter().map(|(name, captured)| (name.clone(), captured.rows.table())).collect();
    let mut frugality = Frugality::Fast;
    loop {
        let mut context = RunContext::clone(context);
        if frugality == Frugality::Frugal {
            // As a run's second try.
            (context.partitions, context.batch_rows) = (2, 2048);
        }
        let trial = Trial {
            pipeline: side.pipeline,
            context: Arc::new(context),
            given: given.clone(),
            targets: targets.clone(),
            keeps: Keeps::Spilled,
            judge: Judge::Counts,
            frugality,
            contracts: side.contracts.clone(),
        };
        let outcome = trial.run().await.map_err(|failure| of(side, failure))?;
        match outcome.failed {
            Some(failed) if failed.error.code == "memory-limit" && frugality == Frugality::Fast => frugality = Frugality::Frugal,
            Some(failed) => return Err(of(side, Failure::Error(Box::new(failed.error)))),
            None => return Ok(Made { rows: outcome.spilled, rejected: outcome.rejected }),
        }
    }
}

/// Says which version failed.
fn of(side: &Side<'_>, failure: Failure) -> Failure {
    failure.detail(format!("in {}", side.name))
}

/// Rows that each version rejected, step by step, as the new version has them.
fn rejected(old: &Side<'_>, new: &Side<'_>, made: [(&HashMap<String, Captured>, &Made); 2]) -> Vec<Rejected> {
    let names = |side: &Side<'_>| -> Vec<String> {
        let sources = side.pipeline.sources.iter().map(|source| source.name.value.clone());
        sources.chain(side.pipeline.transforms.iter().map(|transform| transform.name.value.clone())).collect()
    };
    let mut steps = names(new);
    steps.extend(names(old).into_iter().filter(|name| !names(new).contains(name)));
    let count = |(captured, made): (&HashMap<String, Captured>, &Made), step: &str| {
        let unreadable = captured.get(step).map_or(0, |captured| captured.unreadable);
        made.rejected.get(step).map(|rejected| rejected + unreadable)
    };
    let all = steps.into_iter().map(|step| Rejected { before: count(made[0], &step), now: count(made[1], &step), step });
    all.filter(|rejected| rejected.before.unwrap_or(0) + rejected.now.unwrap_or(0) > 0).collect()
}
