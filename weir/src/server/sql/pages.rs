//! Answers that are taken page by page: all pages are of one running statement, so they fit together whatever changes in between.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use weir_connectors::Blame;
use weir_engine::{
    Failure,
    query::{Ending, weight},
    run::explain,
};

use crate::{
    render::{
        Style,
        rows::{Format, RowsWriter, WriteError},
    },
    server::{token, users::User},
};

/// Rows of a page: unless others are asked for, and at most.
pub const PAGE_ROWS: usize = 10_000;
pub const PAGE_ROWS_MAX: usize = 100_000;
/// A page ends after so many bytes of JSON, however few rows they are.
const PAGE_BYTES: usize = 8 << 20;
/// About so many bytes of Arrow are written as JSON in one go.
const SLICE_BYTES: usize = 256 << 10;
/// An answer waits so long for whoever takes its next page.
const KEPT: Duration = Duration::from_secs(60);

/// The rest of an answer.
pub struct Rows {
    user: String,
    stream: SendableRecordBatchStream,
    /// What the stream has given already, and bytes of a row of it.
    left: Option<(RecordBatch, usize)>,
    ending: Ending,
    guard: DropGuard,
}

/// A page.
pub struct Page {
    /// An array of objects, and a line break.
    pub json: Vec<u8>,
    /// Whether no row follows.
    pub is_last: bool,
}

impl Rows {
    /// The rows of a statement of a user, which is cancelled when the guard is dropped.
    pub fn new(user: String, stream: SendableRecordBatchStream, ending: Ending, guard: DropGuard) -> Self {
        Self { user, stream, left: None, ending, guard }
    }

    /// Their columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// All rows, where none has been taken yet; what says why they break off, and what cancels the statement when it is dropped.
    pub fn into_stream(self) -> (SendableRecordBatchStream, Ending, DropGuard) {
        (self.stream, self.ending, self.guard)
    }

    /// Takes the next rows, as `weir sql --format json` writes them: so many, or fewer where they are large.
    pub async fn page(&mut self, rows_max: usize) -> Result<Page, Failure> {
        // What cannot be written has failed: nobody has given it up.
        self.written(rows_max).await.inspect_err(|failure| self.ending.failed(failure))
    }

    async fn written(&mut self, rows_max: usize) -> Result<Page, Failure> {
        let json = Shared::default();
        let unwritten = |error: WriteError| Failure::error("output-failed", error.to_string()).blame(Blame::Weir);
        let mut writer = RowsWriter::new(json.clone(), Format::Json, &self.schema(), Style::PLAIN).map_err(unwritten)?;
        let mut wanted = rows_max;
        loop {
            let Some((batch, row_bytes)) = self.next().await? else { break };
            if wanted == 0 || json.bytes() >= PAGE_BYTES {
                self.left = Some((batch, row_bytes));
                break;
            }
            let rows = (SLICE_BYTES / row_bytes.max(1)).clamp(1, wanted).min(batch.num_rows());
            writer.write(&batch.slice(0, rows)).map_err(unwritten)?;
            wanted -= rows;
            if rows < batch.num_rows() {
                self.left = Some((batch.slice(rows, batch.num_rows() - rows), row_bytes));
            }
            // Writing is work: others have their turn.
            tokio::task::yield_now().await;
        }
        writer.finish().map_err(unwritten)?;
        Ok(Page { json: json.take(), is_last: self.left.is_none() })
    }

    /// The next batch that has rows, and about how many bytes one of them is.
    async fn next(&mut self) -> Result<Option<(RecordBatch, usize)>, Failure> {
        if let Some(left) = self.left.take() {
            return Ok(Some(left));
        }
        while let Some(batch) = self.stream.next().await {
            let batch = batch.map_err(|error| explain(&error))?;
            if batch.num_rows() > 0 {
                let row_bytes = weight::of_batch(&batch) / batch.num_rows();
                return Ok(Some((batch, row_bytes)));
            }
        }
        Ok(None)
    }
}

/// Bytes that a writer owns and its owner looks at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    fn bytes(&self) -> usize {
        self.lock().len()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock())
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers that wait for whoever takes their next page, by the word that it is asked for with.
pub struct Pages {
    waiting: Mutex<HashMap<String, Waiting>>,
    kept: Duration,
}

impl Default for Pages {
    fn default() -> Self {
        Self::kept_for(KEPT)
    }
}

struct Waiting {
    rows: Rows,
    since: Instant,
}

impl Pages {
    /// None wait yet; each is given up after so long.
    pub fn kept_for(kept: Duration) -> Self {
        Self { waiting: Mutex::default(), kept }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().expect("nothing panics while it holds this lock")
    }

    /// Keeps the rest of an answer for a minute, and returns the word for it.
    pub fn keep(self: &Arc<Self>, rows: Rows, user: &User) -> Result<String, Failure> {
        let ticket = token::ticket()?;
        // One that waits is a statement at work: a user has no more of them than may be at work at once.
        self.shrink(&user.name, most(user).saturating_sub(1));
        self.waiting().insert(ticket.clone(), Waiting { rows, since: Instant::now() });
        let (pages, gone, kept) = (Arc::downgrade(self), ticket.clone(), self.kept);
        tokio::spawn(async move {
            tokio::time::sleep(kept).await;
            if let Some(pages) = pages.upgrade() {
                let forgotten = pages.waiting().remove(&gone);
                drop(forgotten);
            }
        });
        Ok(ticket)
    }

    /// Takes the rest of an answer of this user. It can be taken once.
    pub fn take(&self, ticket: &str, user: &str) -> Option<Rows> {
        let mut waiting = self.waiting();
        if waiting.get(ticket)?.rows.user != user {
            return None;
        }
        waiting.remove(ticket).map(|waiting| waiting.rows)
    }

    /// Gives up the user's oldest answers where they would keep a new statement from being answered.
    pub fn make_room(&self, user: &User) {
        self.shrink(&user.name, most(user).saturating_sub(1));
    }

    /// Gives up the user's oldest answers until they are so many.
    fn shrink(&self, user: &str, most: usize) {
        let mut given_up = Vec::new();
        let mut waiting = self.waiting();
        let mut own: Vec<(Instant, String)> =
            waiting.iter().filter(|(_, one)| one.rows.user == user).map(|(ticket, one)| (one.since, ticket.clone())).collect();
        own.sort();
        let surplus = own.len().saturating_sub(most);
        for (_, ticket) in own.into_iter().take(surplus) {
            given_up.extend(waiting.remove(&ticket));
        }
        drop(waiting);
        // What ends with them may take a moment: nobody waits for the lock meanwhile.
        drop(given_up);
    }
}

fn most(user: &User) -> usize {
    user.limits.queries.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX)).clamp(1, WAITING_MAX)
}

/// Answers of one user that wait at most, whatever the limits.
const WAITING_MAX: usize = 16;
