//! What of a run's work can be followed while it goes on, as spans of `tracing`: the run, each step and each load of it, and the publish.
//! Where they are sent is not known here.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
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
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    begun: usize,
    working: Weak<Working>,
    /// The work itself, while streams are still to begin: one may have ended before the next begins.
    open: Option<Arc<Working>>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trail")
    }
}

impl Trail {
    /// In the span that is entered now.
    pub fn here() -> Self {
        Self { run: Span::current(), work: Mutex::default() }
    }

    /// One of the step's `streams` begins. The step works until all of them have begun and all who hold this have let go of it.
    pub fn begin(&self, step: &Step, streams: usize) -> Arc<Working> {
        let mut work = self.work.lock();
        let working = work.working.upgrade().unwrap_or_else(|| {
            let span = info_span!(
                target: TARGET,
                parent: &self.run,
                "step",
                step = step.name,
                kind = step.kind,
                role = step.role.as_str(),
                rows = Empty,
            );
            Arc::new(Working { span, rows: step.rows_out.clone() })
        });
        work.begun += 1;
        work.working = Arc::downgrade(&working);
        work.open = (work.begun < streams).then(|| working.clone());
        working
    }
}

/// A step at work.
#[derive(Debug)]
pub struct Working {
    /// What happens in it happens in this span.
    pub span: Span,
    rows: Arc<AtomicU64>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.span.record("rows", number(self.rows.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlanBuilder;
    use tokio_util::sync::CancellationToken;
    use weir_connectors::{Reject, Rejects};

    use super::*;
    use crate::step::{Input, Role};

    #[derive(Debug)]
    struct Nothing;

    impl Rejects for Nothing {
        fn reject(&self, _: Vec<Reject>) -> weir_connectors::error::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_step_works_from_its_first_stream_to_its_last_even_if_one_ends_before_the_next_begins() {
        let plan = LogicalPlanBuilder::empty(true).build().expect("a plan");
        let (name, kind) = ("priced".to_owned(), "sql".to_owned());
        let step = Step::new(name, Role::Transform, kind, Input::Plan(plan), vec![], Arc::new(Nothing), CancellationToken::new());
        let trail = Trail::here();
        let working = Arc::downgrade(&trail.begin(&step, 2));
        assert!(working.upgrade().is_some(), "the second stream is still to begin");
        let second = trail.begin(&step, 2);
        assert!(std::ptr::eq(working.as_ptr(), Arc::as_ptr(&second)));
        drop(second);
        assert!(working.upgrade().is_none(), "all streams have begun and ended");
    }
}
