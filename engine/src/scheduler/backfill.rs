//! Which intervals does a backfill take, and what is done of it so far? How they are run is the runner's.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;
use weir_pipelines::{Pipeline, Schedule};

use super::{runs_side_by_side, task};
use crate::{
    error::{Failure, Result},
    history::{
        History, Span,
        backfills::BackfillRecord,
        stamp,
        tasks::{NewTask, Origin, Task, TaskStatus},
    },
};

/// A backfill has no more intervals than this.
pub const INTERVALS_MAX: usize = 100_000;
/// Runs of a backfill side by side.
pub const PARALLEL_MAX: u32 = 64;

/// Which intervals are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reprocess {
    /// Those that no published run was for.
    Missing,
    /// Those whose last run failed.
    Failed,
    /// Each, also what is published.
    All,
}

impl Reprocess {
    /// The word of the command line and of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::All => "all",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// From where to where.
    pub interval: Span,
    /// Intervals of this length, in place of those of the schedule.
    pub step: Option<Duration>,
    /// Which of them.
    pub reprocess: Reprocess,
    /// Runs side by side, from 1.
    pub parallel: u32,
    /// The latest first.
    pub backwards: bool,
}

/// An interval, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its first instant.
    pub start: DateTime<Utc>,
    /// The first instant behind it.
    pub end: DateTime<Utc>,
    /// `published`, `failed`, `skipped`, `running`, `waiting`, `cancelled` or `missing`.
    pub status: String,
    /// The hash of the definition of the pipeline that it was published by, where a run was for just this interval.
    pub definition: Option<String>,
    /// It is run.
    pub taken: bool,
}

/// What a backfill would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Its intervals in the order of time.
    pub intervals: Vec<Known>,
    /// Runs side by side.
    pub parallel: u32,
}

/// Cuts what is asked for into intervals, and says which of them are to be run. Changes nothing.
pub async fn plan(history: &History, pipeline: &Pipeline, asked: &Asked, now: DateTime<Utc>) -> Result<Plan> {
    let name = &pipeline.name.value;
    if asked.parallel > 1 && !runs_side_by_side(pipeline) {
        return Err(Failure::error("parallel-unsafe", format!("runs of \"{name}\" cannot be made side by side"))
            .detail("each reads what the one before left, or takes the place of what it loaded")
            .help("leave --parallel out: it is for pipelines without incremental sources, with sinks of the modes append and merge"));
    }
    let spans = cut(pipeline.schedule.as_ref(), asked, now)?;
    let Some((first, last)) = spans.first().zip(spans.last()) else {
        return Err(Failure::error("no-intervals", "no whole interval lies between --from and --to")
            .help("see the ticks of the schedule with: weir schedule next, or cut time yourself with --step"));
    };
    let within = (first.0, last.1);
    let published = history.published_intervals(name, within).await?;
    let definitions: HashMap<Span, String> = published.iter().filter_map(|(span, hash)| Some((*span, hash.clone()?))).collect();
    let published: Vec<Span> = published.into_iter().map(|(span, _)| span).collect();
    let tasks = history.tasks_within(name, within).await?;
    let runs = Coverage::new(published);
    let with_definition = |known: Known| Known { definition: definitions.get(&(known.start, known.end)).cloned(), ..known };
    let intervals = spans.iter().map(|span| with_definition(known(*span, &runs, &tasks, asked.reprocess))).collect();
    Ok(Plan { intervals, parallel: asked.parallel })
}

/// Adds a backfill of what [`plan`] has taken. Returns it.
pub async fn add(history: &History, pipeline: &Pipeline, asked: &Asked, plan: &Plan, now: DateTime<Utc>) -> Result<BackfillRecord> {
    let record = BackfillRecord {
        id: Uuid::now_v7().to_string(),
        pipeline: pipeline.name.value.clone(),
        interval: asked.interval,
        reprocess: asked.reprocess.as_str().to_owned(),
        parallel: asked.parallel,
        backwards: asked.backwards,
        status: "open".to_owned(),
        created_at: stamp(now),
    };
    let mut taken: Vec<Span> = plan.intervals.iter().filter(|known| known.taken).map(|known| (known.start, known.end)).collect();
    if asked.backwards {
        taken.reverse();
    }
    // Where runs may overlap a backfill has lanes of its own, and nothing that is scheduled waits for it.
    let own_lanes = runs_side_by_side(pipeline);
    let tasks: Vec<NewTask> = taken
        .into_iter()
        .zip(0_u32..)
        .map(|(span, at)| NewTask {
            interval: Some(span),
            lane: if own_lanes { 1 + at % asked.parallel.max(1) } else { 0 },
            backfill: Some(record.id.clone()),
            ..task(&pipeline.name.value, Origin::Backfill, now)
        })
        .collect();
    history.add_backfill(&record, &tasks, now).await?;
    Ok(record)
}

/// The intervals that lie wholly within what is asked for, and have ended.
fn cut(schedule: Option<&Schedule>, asked: &Asked, now: DateTime<Utc>) -> Result<Vec<Span>> {
    let (from, to) = (asked.interval.0, asked.interval.1.min(now));
    let mut spans = Vec::new();
    let next = |at: DateTime<Utc>| match (asked.step, schedule) {
        (Some(step), _) => TimeDelta::from_std(step).ok().and_then(|step| at.checked_add_signed(step)),
        (None, Some(schedule)) => schedule.next_after(at),
        (None, None) => None,
    };
    let first = match (asked.step, schedule) {
        (Some(_), _) => Some(from),
        (None, Some(schedule)) => schedule.next_after(from - TimeDelta::milliseconds(1)),
        (None, None) => {
            return Err(Failure::error("no-schedule", "the pipeline has no schedule that would cut time into intervals")
                .help("say how long an interval is: --step 1d"));
        }
    };
    let mut start = first;
    while let Some(at) = start {
        let Some(end) = next(at).filter(|end| *end <= to && *end > at) else { break };
        spans.push((at, end));
        if spans.len() > INTERVALS_MAX {
            return Err(Failure::error(
                "too-many-intervals",
                format!("there are more than {INTERVALS_MAX} intervals between --from and --to"),
            )
            .help("take a longer --step, or backfill a part at a time"));
        }
        start = Some(end);
    }
    Ok(spans)
}

/// What published runs cover.
struct Coverage(Vec<Span>);

impl Coverage {
    fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::new();
        for (start, end) in spans {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    fn has(&self, (start, end): Span) -> bool {
        let at = self.0.partition_point(|span| span.0 <= start);
        at > 0 && self.0[at - 1].1 >= end
    }
}

fn known(span: Span, published: &Coverage, tasks: &[Task], reprocess: Reprocess) -> Known {
    let meets = |task: &&Task| task.interval.is_some_and(|(start, end)| start < span.1 && end > span.0);
    let is_open = |task: &Task| matches!(task.status, TaskStatus::Waiting | TaskStatus::Running);
    let open = tasks.iter().filter(meets).find(|task| is_open(task));
    let last = tasks.iter().filter(meets).max_by(|one, other| one.id.cmp(&other.id));
    let is_published = published.has(span);
    let status = match (open, is_published, last) {
        (Some(task), _, _) => task.status.as_str(),
        (None, true, _) => "published",
        (None, false, Some(task)) if task.status != TaskStatus::Published => task.status.as_str(),
        (None, false, _) => "missing",
    };
    // What is on its way already is not run twice.
    let taken = open.is_none()
        && match reprocess {
            Reprocess::All => true,
            Reprocess::Missing => !is_published,
            Reprocess::Failed => !is_published && status == "failed",
        };
    Known { start: span.0, end: span.1, status: status.to_owned(), definition: None, taken }
}

/// How many tasks of a backfill stand where.
pub fn count(tasks: &[Task]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for task in tasks {
        *counts.entry(task.status.as_str()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + hour * 3600, 0).expect("an instant")
    }

    fn asked(from: i64, to: i64, step_hours: u64) -> Asked {
        Asked {
            interval: (at(from), at(to)),
            step: Some(Duration::from_secs(step_hours * 3600)),
            reprocess: Reprocess::Missing,
            parallel: 1,
            backwards: false,
        }
    }

    #[test]
    fn time_is_cut_into_whole_intervals_that_have_ended() {
        assert_eq!(cut(None, &asked(0, 10, 3), at(100)).expect("cuts"), [(at(0), at(3)), (at(3), at(6)), (at(6), at(9))]);
        assert_eq!(cut(None, &asked(0, 10, 3), at(7)).expect("cuts"), [(at(0), at(3)), (at(3), at(6))]);
        assert_eq!(cut(None, &asked(0, 2, 3), at(7)).expect("cuts"), []);
    }

    #[test]
    fn joined_runs_cover_what_is_in_them() {
        let coverage = Coverage::new(vec![(at(4), at(6)), (at(0), at(2)), (at(2), at(4)), (at(8), at(9))]);
        assert!(coverage.has((at(0), at(6))) && coverage.has((at(1), at(3))) && coverage.has((at(8), at(9))));
        assert!(!coverage.has((at(5), at(7))) && !coverage.has((at(6), at(8))) && !coverage.has((at(9), at(10))));
    }
}
