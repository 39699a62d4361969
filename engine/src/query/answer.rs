//! The rows of an answer, and what ends them early: a limit, a deadline, whoever cancels. However it ends, it is logged once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    compute::{CastOptions, cast_with_options},
    datatypes::SchemaRef,
};
use datafusion::{
    error::{DataFusionError, Result as DfResult},
    execution::{RecordBatchStream, SendableRecordBatchStream},
};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::Sleep;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::AbortOnDropHandle,
};
use weir_connectors::Error;
use weir_pipelines::units;

use super::{limits::Limits, queue::Turn, results::Keeping, weight};
use crate::error::Failure;

/// Letters of a statement that are logged.
const LOGGED: usize = 4096;

/// Statements by how they ended, and what they gave.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered to the end.
    pub answered: AtomicU64,
    /// Refused, or broken off by an error or a limit.
    pub failed: AtomicU64,
    /// Given up by whoever asked.
    pub cancelled: AtomicU64,
    /// Rows given.
    pub rows: AtomicU64,
    /// Bytes given, as Arrow holds them.
    pub bytes: AtomicU64,
}

/// A statement from its arrival to its end. Logs when it is dropped.
#[derive(Debug)]
pub(super) struct Statement {
    pub user: String,
    pub door: &'static str,
    pub sql: String,
    pub counts: Arc<Counts>,
    began: Instant,
    rows: u64,
    bytes: u64,
    /// None while it is under way.
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Answered,
    Failed { code: &'static str, message: String },
    Cancelled,
}

impl Statement {
    pub fn new(user: &str, door: &'static str, sql: &str, counts: Arc<Counts>) -> Self {
        let sql = sql.trim();
        let cut = sql.char_indices().nth(LOGGED).map_or(sql.len(), |(at, _)| at);
        Self { user: user.to_owned(), door, sql: sql[..cut].to_owned(), counts, began: Instant::now(), rows: 0, bytes: 0, outcome: None }
    }

    pub fn failed(&mut self, failure: &Failure) {
        let code = match failure {
            Failure::Diagnostics(found) => found.first().map_or("", |first| first.code),
            Failure::Error(error) => error.code,
            Failure::Interrupted => "cancelled",
        };
        self.outcome = Some(match code {
            "cancelled" => Outcome::Cancelled,
            code => Outcome::Failed { code, message: failure.sentence() },
        });
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let (user, door, sql, rows, bytes) = (&self.user, self.door, &self.sql, self.rows, self.bytes);
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let counts = &self.counts;
        counts.rows.fetch_add(rows, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        match &self.outcome {
            Some(Outcome::Answered) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                tracing::info!(target: "weir::sql", user, door, rows, bytes, duration_ms, outcome = "answered", sql, "statement");
            }
            Some(Outcome::Failed { code, message }) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(target: "weir::sql", user, door, rows, bytes, duration_ms, outcome = "failed", code, error = message, sql, "statement");
            }
            // Whoever asked went away before the end.
            Some(Outcome::Cancelled) | None => {
                counts.cancelled.fetch_add(1, Ordering::Relaxed);
                tracing::info!(target: "weir::sql", user, door, rows, bytes, duration_ms, outcome = "cancelled", sql, "statement");
            }
        }
    }
}

/// What an error that ends an answer has to say.
fn ended(code: &'static str, message: String, help: &str) -> DataFusionError {
    DataFusionError::from(Error::user(code, message).help(help))
}

/// A statement was given up by whoever asked.
pub(super) fn cancelled() -> Failure {
    Failure::error("cancelled", "the statement was cancelled")
}

/// A statement takes longer than it may.
pub(super) fn too_slow(limit: Duration) -> Error {
    Error::user("too-slow", format!("the statement takes longer than its limit of {}", units::shown(limit)))
        .help("ask for less, or raise time under [server.sql.limits] in weir.toml")
}

/// What a statement has while it is under way. Whoever ends it takes this, and drops it: then it is logged, and its turn is another's.
struct UnderWay {
    stream: SendableRecordBatchStream,
    keeping: Option<Keeping>,
    statement: Statement,
    _turn: Turn,
}

/// None once it has ended.
type Shared = Mutex<Option<UnderWay>>;

/// By which a door says why it breaks an answer off itself, before it drops it: without that, whoever asked has given it up.
#[derive(Clone, Default)]
pub struct Ending(Weak<Shared>);

impl Ending {
    /// Ends the answer with a failure, which is logged and counted. An answer that has ended already stays as it ended.
    pub fn failed(&self, failure: &Failure) {
        if let Some(shared) = self.0.upgrade() {
            end(&shared, failure);
        }
    }
}

fn end(shared: &Shared, failure: &Failure) {
    let ended = shared.lock().take();
    if let Some(mut ended) = ended {
        ended.statement.failed(failure);
    }
}

/// A stream that ends where a statement must.
pub(super) struct Answer {
    schema: SchemaRef,
    shared: Arc<Shared>,
    limits: Limits,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Ends the statement at its deadline where nobody asks for its rows.
    _watch: Option<AbortOnDropHandle<()>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its end has been told.
    is_over: bool,
}

impl Answer {
    pub fn new(
        stream: SendableRecordBatchStream,
        keeping: Option<Keeping>,
        limits: Limits,
        deadline: Option<tokio::time::Instant>,
        cancel: CancellationToken,
        statement: Statement,
        turn: Turn,
    ) -> Self {
        let schema = stream.schema();
        let shared = Arc::new(Mutex::new(Some(UnderWay { stream, keeping, statement, _turn: turn })));
        let limit = limits.time.unwrap_or_default();
        let watch = deadline.map(|at| {
            // Whoever drops the answer ends the statement at once, though the task that waits here be dropped a moment later.
            let watched = Arc::downgrade(&shared);
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                Ending(watched).failed(&Failure::from_connector(&too_slow(limit)));
            }))
        });
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let cancelled = Box::pin(cancel.cancelled_owned());
        Self { schema, shared, limits, deadline, _watch: watch, cancelled, is_over: false }
    }

    /// What breaks this answer off from the outside.
    pub fn ending(&self) -> Ending {
        Ending(Arc::downgrade(&self.shared))
    }

    /// A batch in the types of the schema. A plan does not always give what it says (a union of two widths of numbers), and whoever writes by the
    /// schema would write other values.
    fn conformed(&self, batch: RecordBatch) -> DfResult<RecordBatch> {
        let fields = self.schema.fields();
        if batch.columns().iter().zip(fields).all(|(column, field)| column.data_type() == field.data_type()) {
            return Ok(batch);
        }
        let exactly = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().zip(fields).map(|(column, field)| cast_with_options(column, field.data_type(), &exactly));
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect::<std::result::Result<_, _>>()?)?)
    }

    /// Counts a batch, and keeps it where the answer is kept.
    fn taken(&self, batch: &RecordBatch) -> DfResult<()> {
        let bytes = weight::of_batch(batch);
        let mut shared = self.shared.lock();
        let Some(under_way) = shared.as_mut() else { return Err(self.ended_elsewhere()) };
        let statement = &mut under_way.statement;
        statement.rows += batch.num_rows() as u64;
        statement.bytes += bytes as u64;
        if let Some(most) = self.limits.rows.filter(|most| statement.rows > *most) {
            let message = format!("the answer has more rows than its limit of {most}");
            return Err(ended("too-many-rows", message, "add a limit, or raise rows under [server.sql.limits] in weir.toml"));
        }
        if let Some(most) = self.limits.bytes.filter(|most| statement.bytes > *most) {
            let message = format!("the answer has more bytes than its limit of {most}");
            return Err(ended(
                "too-many-bytes",
                message,
                "ask for fewer rows or columns, or raise bytes under [server.sql.limits] in weir.toml",
            ));
        }
        under_way.keeping = under_way.keeping.take().and_then(|keeping| keeping.take(batch));
        Ok(())
    }

    /// Why there is no more of it, though nobody has been told: the deadline has passed meanwhile, or the door has broken it off.
    fn ended_elsewhere(&self) -> DataFusionError {
        let is_late = self.deadline.as_ref().is_some_and(|deadline| deadline.deadline() <= tokio::time::Instant::now());
        match is_late {
            true => too_slow(self.limits.time.unwrap_or_default()).into(),
            false => Error::user("cancelled", "the statement was cancelled").into(),
        }
    }

    fn end(&mut self, error: DataFusionError) -> Poll<Option<DfResult<RecordBatch>>> {
        self.is_over = true;
        let error = self.named(error);
        end(&self.shared, &crate::run::explain(&error));
        Poll::Ready(Some(Err(error)))
    }

    /// Memory that a statement may not have is its own affair, not a step's.
    fn named(&self, error: DataFusionError) -> DataFusionError {
        match self.limits.memory {
            Some(most) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                let message =
                    format!("the statement needs more memory than its limit of {most} bytes, even with what it can spill to disk");
                ended(
                    "memory-limit",
                    message,
                    "ask for fewer rows or columns before it sorts, joins or groups, or raise memory under [server.sql.limits] in weir.toml",
                )
            }
            _ => error,
        }
    }
}

impl Stream for Answer {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // An end that was forced must not look like the end of the rows.
        if self.cancelled.as_mut().poll(cx).is_ready() {
            let cancelled = Error::user("cancelled", "the statement was cancelled");
            return self.end(cancelled.into());
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            let limit = self.limits.time.unwrap_or_default();
            return self.end(too_slow(limit).into());
        }
        // What panics in a thread of the plan comes out here: it ends the statement, and no door's connection.
        let polled = self.shared.lock().as_mut().map(|under_way| catch_unwind(AssertUnwindSafe(|| under_way.stream.poll_next_unpin(cx))));
        let Some(polled) = polled else {
            let error = self.ended_elsewhere();
            return self.end(error);
        };
        let Ok(polled) = polled else {
            let broken = Error::weir("panic", "a thread panicked while it worked on the statement");
            return self.end(broken.into());
        };
        match futures::ready!(polled) {
            Some(Ok(batch)) => match self.conformed(batch).and_then(|batch| self.taken(&batch).map(|()| batch)) {
                Ok(batch) => Poll::Ready(Some(Ok(batch))),
                Err(error) => self.end(error),
            },
            Some(Err(error)) => self.end(error),
            None => {
                let ended = self.shared.lock().take();
                let Some(mut ended) = ended else {
                    let error = self.ended_elsewhere();
                    return self.end(error);
                };
                self.is_over = true;
                if let Some(keeping) = ended.keeping.take() {
                    keeping.whole(&self.schema);
                }
                ended.statement.outcome = Some(Outcome::Answered);
                Poll::Ready(None)
            }
        }
    }
}

impl RecordBatchStream for Answer {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
