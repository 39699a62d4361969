//! What follows a decision: every load publishes, then cursors move. And what follows a crash: a run that was decided is
//! rolled forward, one that was not is discarded.

use std::sync::Arc;

use weir_connectors::{Blame, Load, Retry, RunContext, SINKS};
use weir_pipelines::Pipeline;

use crate::{
    books::Summary,
    error::{Failure, Result},
    history::{History, LoadRecord, RunStatus},
    workspace::Workspace,
};

/// One destination of a run: how it is recorded, and the load itself.
#[derive(Debug)]
pub struct Destination {
    /// As recorded in the history.
    pub record: LoadRecord,
    /// The load.
    pub load: Arc<dyn Load>,
}

/// Publishes what has been decided and ends the run. `summary` gains each destination's version.
pub async fn publish(
    history: &History,
    run: &str,
    destinations: &[Destination],
    summary: &mut Summary,
    now: impl Fn() -> String,
) -> Result<()> {
    for destination in destinations.iter().filter(|destination| !destination.record.published) {
        let published = destination.load.publish().await.map_err(|error| {
            Failure::from_connector(&error)
                .in_step(&destination.record.sink)
                .help(format!("run {run} is decided and its rows are staged: the next run of this pipeline publishes it first"))
        })?;
        history.published(run, &destination.record.sink).await?;
        if let Some(sink) = summary.books.sinks.iter_mut().find(|sink| sink.step == destination.record.sink) {
            sink.version = published.version;
        }
    }
    summary.status = "published".to_owned();
    history.finish(run, &now(), summary).await
}

/// Removes what was staged. The first error is told, after all were tried.
pub async fn discard(history: &History, run: &str, destinations: &[Destination]) -> Result<()> {
    let mut outcome = Ok(());
    for destination in destinations {
        if let Err(error) = destination.load.discard().await {
            outcome = outcome.and(Err(Failure::from_connector(&error).in_step(&destination.record.sink)));
        }
    }
    outcome?;
    history.unstage(run).await
}

/// Takes up what earlier processes left of a pipeline. The caller holds the pipeline's lock. Returns a sentence for each run.
pub async fn recover(workspace: &Workspace, history: &History, pipeline: &Pipeline, context: &Arc<RunContext>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (record, loads) in history.unfinished(&pipeline.name.value).await? {
        let mut destinations = Vec::with_capacity(loads.len());
        let context = Arc::new(RunContext { run: record.run.clone(), ..context.as_ref().clone() });
        for load in loads {
            destinations.push(resume(load, &context)?);
        }
        let now = || workspace.now();
        if record.status == RunStatus::Publishing {
            let mut summary = record.summary.clone().unwrap_or_default();
            if let Err(failure) = publish(history, &record.run, &destinations, &mut summary, now).await {
                return Err(give_up(history, &record.run, failure, &now()).await?);
            }
            notes.push(format!("run {} had been decided when its process ended: it is published now", record.run));
        } else {
            discard(history, &record.run, &destinations).await?;
            history.end(&record.run, RunStatus::Failed, &now(), Some("the process ended before anything was published")).await?;
            notes.push(format!("run {} ended before it was decided: what it had staged is discarded", record.run));
        }
    }
    Ok(notes)
}

/// Refuses a dry run while a decided run waits: going on would publish it.
pub async fn refuse_undecided(history: &History, pipeline: &Pipeline) -> Result<()> {
    let unfinished = history.unfinished(&pipeline.name.value).await?;
    match unfinished.iter().find(|(record, _)| record.status == RunStatus::Publishing) {
        None => Ok(()),
        Some((record, _)) => Err(Failure::error("decided-run-waits", format!("run {} is decided and waits to be published", record.run))
            .help("run the pipeline without --dry-run, which publishes it first")),
    }
}

/// A decided run that a destination will never take, whatever is tried, must not hold up the pipeline for ever: it ends as
/// failed, and says which destinations have its rows and which have not. Anything that may yet succeed is tried again next time.
async fn give_up(history: &History, run: &str, failure: Failure, now: &str) -> Result<Failure> {
    let Failure::Error(error) = &failure else { return Ok(failure) };
    if error.retry == Retry::Later || error.blame != Blame::User {
        return Ok(failure);
    }
    let mut have = Vec::new();
    let mut lack = Vec::new();
    for load in history.loads(run).await? {
        if load.published { have.push(load.sink) } else { lack.push(load.sink) }
    }
    let list = |sinks: &[String]| if sinks.is_empty() { "none".to_owned() } else { sinks.join(", ") };
    let places = format!("sinks that have its rows: {}; sinks that do not: {}", list(&have), list(&lack));
    history.end(run, RunStatus::Failed, now, Some(&format!("{error}; {places}"))).await?;
    Ok(failure
        .detail(format!("run {run} is given up; {places}"))
        .help("cursors have not moved: the next run reads the same input again, so remove what the first sinks have, or merge by key"))
}

fn resume(record: LoadRecord, context: &Arc<RunContext>) -> Result<Destination> {
    let kind = SINKS.iter().find(|kind| kind.kind == record.kind).ok_or_else(|| {
        Failure::error(
            "unknown-kind",
            format!("an unfinished run holds a load of kind \"{}\", which this version does not know", record.kind),
        )
    })?;
    let load = (kind.resume)(record.state.clone(), context).map_err(|error| Failure::from_connector(&error).in_step(&record.sink))?;
    Ok(Destination { record, load })
}
