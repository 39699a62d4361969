//! What of a run's work can be followed while it goes on, as spans of `tracing`: the run, each step and each load of it, and the publish.
//! Where they are sent is not known here.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering},
};

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use tracing::{Span, field::Empty, info_span};
use weir_connectors::{Interval, RunContext};

use crate::{
    books::Summary,
    error::{Failure, Result},
    step::Step,
};

/// The target of the spans, for who chooses among all spans of a process.
pub const TARGET: &str = module_path!();

/// As tracers have it: their whole numbers are signed, and one that is not goes out as text.
fn number(unsigned: u64) -> i64 {
    i64::try_from(unsigned).unwrap_or(i64::MAX)
}

/// A run, from its first try to its end.
pub fn run(context: &RunContext) -> Span {
    let interval = |of: fn(&Interval) -> DateTime<Utc>| {
        context.interval.as_ref().map(|interval| of(interval).to_rfc3339_opts(SecondsFormat::AutoSi, true))
    };
    info_span!(
        target: TARGET,
        "run",
        run = context.run,
        pipeline = context.pipeline,
        interval_start = interval(|interval| interval.start),
        interval_end = interval(|interval| interval.end),
        outcome = Empty,
        code = Empty,
        rows_read = Empty,
        rows_loaded = Empty,
        // A word of tracers: the span is one that failed.
        otel.status_code = Empty,
    )
}

/// Notes how a run has ended. What an error says may hold a row's values: it stays in the history and the log.
pub fn end(span: &Span, outcome: &Result<Summary>) {
    match outcome {
        Ok(summary) => {
            span.record("outcome", summary.status.as_str());
            span.record("rows_read", number(summary.rows_read));
            span.record("rows_loaded", number(summary.rows_loaded));
        }
        Err(failure) => {
            let (outcome, code) = match failure {
                Failure::Interrupted => ("interrupted", None),
                Failure::Error(error) => ("failed", Some(error.code)),
                Failure::Diagnostics(found) => ("failed", found.first().map(|first| first.code)),
            };
            span.record("outcome", outcome);
            if let Some(code) = code {
                span.record("code", code);
            }
            span.record("otel.status_code", "error");
        }
    }
}

/// Rows on their way into a destination, until they are staged.
pub fn load(sink: &str, kind: &str) -> Span {
    info_span!(target: TARGET, "load", sink, kind, rows = Empty, otel.status_code = Empty)
}

/// Notes how a load went, on its span, in which this is polled.
pub async fn loading<E>(rows: impl Future<Output = Result<u64, E>>) -> Result<u64, E> {
    let rows = rows.await;
    match &rows {
        Ok(rows) => Span::current().record("rows", number(*rows)),
        Err(_) => Span::current().record("otel.status_code", "error"),
    };
    rows
}

/// Everything that is staged becomes visible.
pub fn publish(destinations: usize) -> Span {
    info_span!(target: TARGET, "publish", destinations = number(destinations as u64))
}

/// How a step's work is followed: one span from its first stream to its last, whoever reads them, in the run that planned it.
pub struct Trail {
    run: Span,
    working: Mutex<Weak<Working>>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trail")
    }
}

impl Trail {
    /// In the span that is entered now.
    pub fn here() -> Self {
        Self { run: Span::current(), working: Mutex::default() }
    }

    /// A stream of the step begins. The step works until all who hold this have let go of it.
    pub fn begin(&self, step: &Arc<Step>) -> Arc<Working> {
        let mut working = self.working.lock();
        if let Some(working) = working.upgrade() {
            return working;
        }
        let span = info_span!(
            target: TARGET,
            parent: &self.run,
            "step",
            step = step.name,
            kind = step.kind,
            role = step.role.as_str(),
            rows = Empty,
        );
        let begun = Arc::new(Working { span, step: step.clone() });
        *working = Arc::downgrade(&begun);
        begun
    }
}

/// A step at work.
#[derive(Debug)]
pub struct Working {
    /// What happens in it happens in this span.
    pub span: Span,
    step: Arc<Step>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.span.record("rows", number(self.step.rows_out.load(Ordering::Relaxed)));
    }
}
