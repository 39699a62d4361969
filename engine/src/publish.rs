//! What follows a decision: every load publishes, then cursors move. And what follows a crash: a run that was decided is
//! rolled forward, one that was not is discarded.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_connectors::{Blame, Load, Retry, RunContext, SINKS};

use crate::{
    books::Summary,
    definition::Definition,
    error::{Failure, Result},
    history::{Cursors, History, LoadRecord, RunRecord, RunStatus},
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

/// How a decision failed.
#[derive(Debug)]
pub struct Undecided {
    /// Why.
    pub failure: Failure,
    /// It is not known whether the run is decided: whoever comes next finds out.
    pub unknown: bool,
}

impl From<Failure> for Undecided {
    fn from(failure: Failure) -> Self {
        Self { failure, unknown: false }
    }
}

/// Decides a run whose loads are sealed: one transaction of the history, or the commit of the one load whose stage is an open
/// transaction. Everything that publishing needs is recorded before that commit is asked for.
pub async fn decide(
    history: &History,
    run: &str,
    destinations: &mut [Destination],
    cursors: &Cursors,
    definition: Option<&Definition>,
    summary: &mut Summary,
) -> Result<(), Undecided> {
    let loads: Vec<LoadRecord> = destinations.iter().map(|destination| destination.record.clone()).collect();
    let Some(decider) = destinations.iter_mut().find(|destination| destination.load.decides()) else {
        let Err(failure) = history.decide(run, RunStatus::Publishing, &loads, cursors, definition, summary).await else { return Ok(()) };
        // The answer may be lost, not the commit.
        return match history.settled_status(run).await {
            Ok(RunStatus::Publishing) => Ok(()),
            Ok(_) => Err(failure.into()),
            Err(why) => {
                let failure = failure.detail(format!("whether run {run} was decided is not known: {}", why.sentence()));
                Err(Undecided { failure: failure.help(finds_out(run)), unknown: true })
            }
        };
    };
    history.decide(run, RunStatus::Deciding, &loads, cursors, definition, summary).await?;
    let sink = decider.record.sink.clone();
    match decider.load.publish().await {
        Ok(published) => note_version(summary, &sink, published.version),
        Err(error) => {
            let failure = Failure::from_connector(&error).in_step(&sink);
            match decider.load.settle().await {
                // The answer was lost, not the commit.
                Ok(true) => {}
                Ok(false) => return Err(failure.into()),
                Err(why) => return Err(Undecided { failure: unsettled(failure, run, &why), unknown: true }),
            }
        }
    }
    decider.record.published = true;
    history.decided(run, &sink).await.map_err(|failure| Undecided { failure, unknown: true })
}

fn unsettled(failure: Failure, run: &str, why: &weir_connectors::Error) -> Failure {
    failure.detail(format!("whether run {run} was committed is not known: {why}")).help(finds_out(run))
}

fn finds_out(run: &str) -> String {
    format!("the next run of this pipeline finds out, or: weir runs resume {run}")
}

fn note_version(summary: &mut Summary, sink: &str, version: String) {
    if let Some(sink) = summary.books.sinks.iter_mut().find(|known| known.step == sink) {
        sink.version = version;
    }
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
        note_version(summary, &destination.record.sink, published.version);
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

/// Takes up what earlier processes left in a lane of a pipeline, which the caller holds. Returns a sentence for each run.
pub async fn recover(workspace: &Workspace, history: &History, context: &Arc<RunContext>, lane: u32) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (record, loads) in history.unfinished(Some((&context.pipeline, lane))).await? {
        notes.push(resume(workspace, history, context, &record, loads).await?);
    }
    Ok(notes)
}

/// Finishes the run with this id, or with `discard` gives it up, if a process left it in the middle. Returns a sentence about it.
pub async fn take_up_by_id(workspace: &Workspace, run: &str, discard: bool, cancel: CancellationToken) -> Result<String> {
    let history = workspace.history().await?;
    let unknown = || Failure::error("unknown-run", format!("there is no run \"{run}\"")).help("see the runs with: weir runs list");
    let record = history.run(run).await?.ok_or_else(unknown)?;
    let lane = workspace.lane(&history, &record.pipeline, record.lane).await?;
    let history = history.in_lane(&lane);
    // Only now is it sure that no process is at it.
    let unfinished = history.unfinished(Some((&record.pipeline, record.lane))).await?;
    let Some((record, loads)) = unfinished.into_iter().find(|(found, _)| found.run == record.run) else {
        return Ok(format!("run {} is {}: there is nothing to resume", record.run, record.status.as_str()));
    };
    let context = workspace.context(&record.pipeline, record.lane, &history, cancel)?;
    let done = match discard {
        true => abandon(workspace, &history, &context, &record, loads).await,
        false => resume(workspace, &history, &context, &record, loads).await,
    };
    lane.release().await;
    done
}

/// Finishes one run that an earlier process left: rolls it forward where it was decided, discards it where it was not. Returns a
/// sentence about it.
pub async fn resume(
    workspace: &Workspace,
    history: &History,
    context: &Arc<RunContext>,
    record: &RunRecord,
    loads: Vec<LoadRecord>,
) -> Result<String> {
    let mut left = Left::of(record, loads, context)?;
    let now = || workspace.now();
    if left.settle(history).await? {
        let mut summary = record.summary.clone().unwrap_or_default();
        if let Err(failure) = publish(history, &record.run, &left.destinations, &mut summary, now).await {
            return Err(give_up(history, &record.run, failure, &now()).await?);
        }
        return Ok(format!("run {} had been decided when its process ended: it is published now", record.run));
    }
    discard(history, &record.run, &left.destinations).await?;
    history.end(&record.run, RunStatus::Failed, &now(), Some("the process ended before anything was published")).await?;
    Ok(format!("run {} ended before it was decided: what it had staged is discarded", record.run))
}

/// Gives up one run that an earlier process left, decided or not: removes what is staged and not published. What is published stays.
/// Returns a sentence about it.
pub async fn abandon(
    workspace: &Workspace,
    history: &History,
    context: &Arc<RunContext>,
    record: &RunRecord,
    loads: Vec<LoadRecord>,
) -> Result<String> {
    let mut left = Left::of(record, loads, context)?;
    let decided = left.settle(history).await?;
    let places = places(left.destinations.iter().map(|destination| &destination.record));
    left.destinations.retain(|destination| !destination.record.published);
    discard(history, &record.run, &left.destinations).await?;
    let sentence = match decided {
        false => format!("run {} is discarded: no destination has anything of it", record.run),
        true => format!("run {} is given up; {places}", record.run),
    };
    history.end(&record.run, RunStatus::Failed, &workspace.now(), Some(&format!("discarded by hand: {sentence}"))).await?;
    Ok(sentence)
}

/// Refuses a dry run while a decided run waits: going on would publish it.
pub async fn refuse_undecided(history: &History, pipeline: &str) -> Result<()> {
    let unfinished = history.unfinished(Some((pipeline, 0))).await?;
    match unfinished.iter().find(|(record, _)| record.status != RunStatus::Running) {
        None => Ok(()),
        Some((record, _)) => Err(Failure::error("decided-run-waits", format!("run {} is decided and waits to be published", record.run))
            .help(format!("run the pipeline without --dry-run, which publishes it first, or: weir runs resume {}", record.run))),
    }
}

/// A run that an earlier process left, with its loads taken up.
struct Left {
    run: String,
    status: RunStatus,
    destinations: Vec<Destination>,
}

impl Left {
    fn of(record: &RunRecord, loads: Vec<LoadRecord>, context: &Arc<RunContext>) -> Result<Self> {
        let context = Arc::new(RunContext { run: record.run.clone(), ..context.as_ref().clone() });
        let destinations = loads.into_iter().map(|load| take_up(load, &context)).collect::<Result<_>>()?;
        Ok(Self { run: record.run.clone(), status: record.status, destinations })
    }

    /// Says whether the run is decided, and sees to it that the answer stays true.
    async fn settle(&mut self, history: &History) -> Result<bool> {
        match self.status {
            RunStatus::Publishing => return Ok(true),
            RunStatus::Deciding => {}
            _ => return Ok(false),
        }
        let Some(decider) = self.destinations.iter_mut().find(|destination| destination.load.decides()) else { return Ok(false) };
        let sink = decider.record.sink.clone();
        let settled = decider.load.settle().await;
        if !settled.map_err(|error| unsettled(Failure::from_connector(&error).in_step(&sink), &self.run, &error))? {
            return Ok(false);
        }
        decider.record.published = true;
        history.decided(&self.run, &sink).await?;
        Ok(true)
    }
}

/// Where a decided run's rows are known to be. A sink may have published in the very moment its process ended: then only it knows.
fn places<'a>(loads: impl IntoIterator<Item = &'a LoadRecord>) -> String {
    let (have, lack): (Vec<&LoadRecord>, Vec<&LoadRecord>) = loads.into_iter().partition(|load| load.published);
    let names = |loads: &[&LoadRecord]| match loads {
        [] => "none".to_owned(),
        some => some.iter().map(|load| load.sink.as_str()).collect::<Vec<_>>().join(", "),
    };
    format!("sinks known to have its rows: {}; the others: {}", names(&have), names(&lack))
}

/// A decided run that a destination will never take, whatever is tried, must not hold up the pipeline for ever: it ends as
/// failed, and says which destinations have its rows and which have not. Anything that may yet succeed is tried again next time.
async fn give_up(history: &History, run: &str, failure: Failure, now: &str) -> Result<Failure> {
    let Failure::Error(error) = &failure else { return Ok(failure) };
    // What was staged is gone for good, whoever removed it.
    let lost = error.code == "stage-lost";
    if !lost && (error.retry == Retry::Later || error.blame != Blame::User) {
        return Ok(failure);
    }
    let places = places(&history.loads(run).await?);
    history.end(run, RunStatus::Failed, now, Some(&format!("{error}; {places}"))).await?;
    Ok(failure
        .detail(format!("run {run} is given up; {places}"))
        .help("cursors have not moved: the next run reads the same input again, so remove what the first sinks have, or merge by key"))
}

fn take_up(record: LoadRecord, context: &Arc<RunContext>) -> Result<Destination> {
    let kind = SINKS.iter().find(|kind| kind.kind == record.kind).ok_or_else(|| {
        Failure::error(
            "unknown-kind",
            format!("an unfinished run holds a load of kind \"{}\", which this version does not know", record.kind),
        )
    })?;
    let load = (kind.resume)(record.state.clone(), context).map_err(|error| Failure::from_connector(&error).in_step(&record.sink))?;
    Ok(Destination { record, load })
}
