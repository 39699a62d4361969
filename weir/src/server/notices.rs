//! What has happened, as log lines.

use chrono::SecondsFormat;
use tracing::{error, info, warn};
use weir_engine::scheduler::{Notice, Outcome, TaskRef};

/// What every line of a task says.
struct Of<'n> {
    task: &'n str,
    pipeline: &'n str,
    run: Option<&'n str>,
    origin: &'n str,
    interval_start: Option<String>,
    interval_end: Option<String>,
    attempt: u32,
}

impl<'n> Of<'n> {
    fn new(task: &'n TaskRef) -> Self {
        let text = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        Self {
            task: &task.id,
            pipeline: &task.pipeline,
            run: task.run.as_deref(),
            origin: &task.origin,
            interval_start: task.interval.map(|(start, _)| text(start)),
            interval_end: task.interval.map(|(_, end)| text(end)),
            attempt: task.attempt,
        }
    }
}

/// A line about a task: the level, the task, more fields, what is said.
macro_rules! about {
    ($level:ident, $task:expr, { $($more:tt)* }, $($said:tt)+) => {{
        let of = Of::new($task);
        $level!(
            task = of.task,
            pipeline = of.pipeline,
            run = of.run,
            origin = of.origin,
            interval_start = of.interval_start,
            interval_end = of.interval_end,
            attempt = of.attempt,
            $($more)*
            $($said)+
        );
    }};
}

/// Logs it.
pub fn log(notice: &Notice) {
    match notice {
        Notice::Started { task, delay_ms } => about!(info, task, { delay_ms, }, "run started"),
        Notice::Ended { task, outcome: Outcome::Published, summary, duration_ms, .. } => {
            let summary = summary.as_deref();
            let rows_read = summary.map(|summary| summary.rows_read);
            let rows_loaded = summary.map(|summary| summary.rows_loaded);
            let rows_rejected = summary.map(|summary| summary.rows_quarantined + summary.rows_dropped);
            about!(info, task, { outcome = "published", duration_ms, rows_read, rows_loaded, rows_rejected, }, "run published");
        }
        Notice::Ended { task, outcome, code, error, duration_ms, retry_at, .. } => {
            let (outcome, code, error) = (outcome.as_str(), code.as_deref(), error.as_deref());
            match retry_at {
                Some(at) => {
                    let retry_at = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                    about!(warn, task, { outcome, code, error, duration_ms, retry_at, }, "run {outcome}, it is tried again");
                }
                None if outcome == "failed" => about!(error, task, { outcome, code, error, duration_ms, }, "run failed"),
                None => about!(warn, task, { outcome, code, error, duration_ms, }, "run {outcome}"),
            }
        }
        Notice::Skipped { task, reason } => about!(warn, task, { reason, }, "tick skipped"),
        Notice::Late { task, deadline_ms } => about!(warn, task, { deadline_ms, }, "late: not published within its deadline"),
        Notice::Broken { pipeline, message } => warn!(pipeline, error = message, "the file is wrong; its last right version goes on"),
        Notice::Mended { pipeline } => info!(pipeline, "the file is right again"),
        Notice::TookOver { pipeline, sentence } => warn!(pipeline, did = sentence, "took over what another process left"),
        Notice::Leading(true) => info!("this server leads"),
        Notice::Leading(false) => warn!("this server does not lead any more"),
        Notice::ClockJumped { by_ms } => {
            warn!(by_ms, "the clock jumped; ticks that it passed over are caught up with, and none is run twice")
        }
        Notice::State { reachable: true, .. } => info!("the state can be reached again"),
        Notice::State { reachable: false, why } => error!(error = why.as_deref(), "the state cannot be reached"),
    }
}
