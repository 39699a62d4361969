//! Notices as the scheduler gives them, for the tests of those who take them.

use chrono::{DateTime, TimeDelta, Utc};
use weir_engine::{
    Summary,
    scheduler::{Notice, Outcome, TaskRef},
};

/// An instant that tests start from.
pub fn instant() -> DateTime<Utc> {
    "2027-03-28T01:00:00Z".parse().expect("an instant")
}

pub fn task(pipeline: &str) -> TaskRef {
    TaskRef {
        id: format!("task-of-{pipeline}"),
        pipeline: pipeline.to_owned(),
        run: Some(format!("run-of-{pipeline}")),
        origin: "schedule".to_owned(),
        interval: Some((instant() - TimeDelta::hours(1), instant())),
        attempt: 1,
    }
}

pub fn started(pipeline: &str, delay_ms: u64) -> Notice {
    Notice::Started { task: task(pipeline), delay_ms }
}

pub fn published(pipeline: &str, rows_read: u64, rows_quarantined: u64) -> Notice {
    let rows_loaded = rows_read - rows_quarantined;
    let summary = Summary { rows_read, rows_loaded, rows_quarantined, bytes_read: rows_read * 100, ..Summary::default() };
    ended(pipeline, Outcome::Published, Some(summary), None, None)
}

pub fn failed(pipeline: &str, code: &str, is_tried_again: bool) -> Notice {
    let retry_at = is_tried_again.then(|| instant() + TimeDelta::minutes(1));
    ended(pipeline, Outcome::Failed, None, Some(code), retry_at)
}

pub fn cancelled(pipeline: &str) -> Notice {
    ended(pipeline, Outcome::Cancelled, None, None, None)
}

fn ended(pipeline: &str, outcome: Outcome, summary: Option<Summary>, code: Option<&str>, retry_at: Option<DateTime<Utc>>) -> Notice {
    Notice::Ended {
        task: task(pipeline),
        outcome,
        summary: summary.map(Box::new),
        code: code.map(str::to_owned),
        error: code.map(|code| format!("it failed with {code}")),
        duration_ms: 2000,
        retry_at,
    }
}

pub fn skipped(pipeline: &str) -> Notice {
    Notice::Skipped { task: task(pipeline), reason: "missed: nothing ran then".to_owned() }
}

pub fn late(pipeline: &str) -> Notice {
    Notice::Late { task: task(pipeline), deadline_ms: 60_000 }
}

pub fn broken(pipeline: &str) -> Notice {
    Notice::Broken { pipeline: pipeline.to_owned(), message: "no step \"orderz\"".to_owned() }
}

pub fn mended(pipeline: &str) -> Notice {
    Notice::Mended { pipeline: pipeline.to_owned() }
}
