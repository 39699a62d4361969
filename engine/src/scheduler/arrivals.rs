//! What starts a pipeline beside the clock: a file that comes, or another pipeline's publish. What was seen is remembered with the tasks it led
//! to, in one transaction, so that nothing starts a run twice or never.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta};
use weir_connectors::{FoundFile, list_files};
use weir_pipelines::{Pipeline, Trigger, TriggerKind};

use super::{Pipelines, Scheduler, task};
use crate::{
    error::{Failure, Result},
    history::{
        servers::Leadership,
        stamp,
        tasks::{NewTask, Origin},
    },
};

/// How often folders and buckets are looked into.
const LISTED: Duration = Duration::from_secs(2);
/// How often publishes of other pipelines are asked for.
const ASKED: Duration = Duration::from_secs(1);
/// Two servers may write down their publishes in another order than they end: what is so much older than what was seen is looked at again.
const LOOK_BACK: TimeDelta = TimeDelta::minutes(5);
/// The item under which a trigger remembers when it was looked at.
const SINCE: &str = "since";

/// What the triggers of all pipelines are at.
#[derive(Debug, Default)]
pub struct Arrivals {
    listed: Option<Instant>,
    asked: Option<Instant>,
    /// By pipeline and trigger: files that have not been still for long enough, each with its version and since when it has it.
    unsettled: HashMap<(String, String), BTreeMap<String, (String, Instant)>>,
    /// Triggers that could not be looked at, so that each is said once.
    failing: HashMap<(String, String), String>,
}

impl Arrivals {
    /// Adds what has come. Returns how many tasks.
    pub(super) async fn look(&mut self, scheduler: &Scheduler, leadership: Leadership, pipelines: &Pipelines) -> Result<usize> {
        let is_due = |last: &mut Option<Instant>, every: Duration| {
            let due = last.is_none_or(|last| last.elapsed() >= every);
            if due {
                *last = Some(Instant::now());
            }
            due
        };
        let (list, ask) = (is_due(&mut self.listed, LISTED), is_due(&mut self.asked, ASKED));
        if !list && !ask {
            return Ok(0);
        }
        let mut added = 0;
        for (name, pipeline) in pipelines.iter() {
            for trigger in &pipeline.triggers {
                added += match &trigger.kind {
                    TriggerKind::File { .. } if list => self.files(scheduler, leadership, pipeline, trigger).await?,
                    TriggerKind::Pipeline { name: other } if ask => published(scheduler, leadership, name, trigger, &other.value).await?,
                    _ => 0,
                };
            }
        }
        Ok(added)
    }

    async fn files(&mut self, scheduler: &Scheduler, leadership: Leadership, pipeline: &Arc<Pipeline>, trigger: &Trigger) -> Result<usize> {
        let TriggerKind::File { path, debounce, param } = &trigger.kind else { return Ok(0) };
        let (name, source) = (pipeline.name.value.clone(), trigger.name.value.clone());
        let place = (name.clone(), source.clone());
        let found =
            match list_files(std::slice::from_ref(&path.value), &pipeline.folder, Some(false), &scheduler.workspace.environment).await {
                Ok(found) => found,
                Err(error) if matches!(error.code, "glob-empty" | "folder-empty" | "file-missing") => Vec::new(),
                Err(error) => {
                    let message = Failure::from_connector(&error).sentence();
                    if self.failing.insert(place, message.clone()).as_ref() != Some(&message) {
                        tracing::error!(pipeline = name, trigger = source, error = message, "a trigger cannot look for files");
                    }
                    return Ok(0);
                }
            };
        self.failing.remove(&place);
        let seen = scheduler.history.arrivals(&name, &source).await?;
        let is_new = |file: &&FoundFile| seen.get(&file.name) != Some(&file.version);
        let before = self.unsettled.remove(&place).unwrap_or_default();
        let mut waiting = BTreeMap::new();
        let mut come = Vec::new();
        for file in found.iter().filter(is_new) {
            let since =
                before.get(&file.name).filter(|(version, _)| *version == file.version).map_or_else(Instant::now, |(_, since)| *since);
            if since.elapsed() >= *debounce {
                come.push((file.name.clone(), file.version.clone()));
            } else {
                waiting.insert(file.name.clone(), (file.version.clone(), since));
            }
        }
        // One run for all of them begins when no more come.
        if param.is_none() && !waiting.is_empty() {
            waiting.extend(come.drain(..).map(|(item, version)| (item, (version, Instant::now() - *debounce))));
        }
        if !waiting.is_empty() {
            self.unsettled.insert(place, waiting);
        }
        if come.is_empty() {
            return Ok(0);
        }
        let now = scheduler.now();
        let tasks: Vec<NewTask> = match param {
            Some(param) => come
                .iter()
                .map(|(item, version)| NewTask {
                    params: BTreeMap::from([(param.value.clone(), item.clone())]),
                    key: Some(format!("{source}:{item}:{version}")),
                    ..task(&name, Origin::Trigger, now)
                })
                .collect(),
            None => vec![task(&name, Origin::Trigger, now)],
        };
        tracing::info!(pipeline = name, trigger = source, files = come.len(), runs = tasks.len(), "files have come");
        scheduler.history.arrive(leadership, (&name, &source), &come, &tasks, now).await?;
        Ok(tasks.len())
    }
}

/// Adds a task for each publish of another pipeline since the trigger was first looked at.
async fn published(scheduler: &Scheduler, leadership: Leadership, name: &str, trigger: &Trigger, other: &str) -> Result<usize> {
    let source = trigger.name.value.as_str();
    let now = scheduler.now();
    let Some(since) = scheduler.history.arrivals(name, source).await?.remove(SINCE) else {
        let first = [(SINCE.to_owned(), stamp(now))];
        return scheduler.history.arrive(leadership, (name, source), &first, &[], now).await.map(|()| 0);
    };
    // What was published before the trigger was there does not count.
    let (begun, seen) = since.split_once(' ').unwrap_or((&since, &since));
    let from = DateTime::parse_from_rfc3339(seen).map_or(now, |seen| seen.to_utc() - LOOK_BACK);
    let from = stamp(from).max(begun.to_owned());
    let prefix = format!("{source}:");
    let published = scheduler.history.published_since(other, &from, (name, &prefix)).await?;
    let Some(latest) = published.iter().map(|run| run.finished_at.clone()).max() else { return Ok(0) };
    let task = |run: &crate::history::tasks::PublishedRun| NewTask {
        interval: run.interval,
        key: Some(format!("{prefix}{}", run.run)),
        ..task(name, Origin::Trigger, now)
    };
    let tasks: Vec<NewTask> = published.iter().map(task).collect();
    let mark = [(SINCE.to_owned(), format!("{begun} {}", latest.as_str().max(seen)))];
    scheduler.history.arrive(leadership, (name, source), &mark, &tasks, now).await?;
    Ok(tasks.len())
}
