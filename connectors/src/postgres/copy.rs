//! How a stream of batches gets into a table through COPY, over one connection or several: encoded in a task of its own while what was
//! encoded before is on its way, and counted by the server. Which table, and what follows, is `load.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parking_lot::Mutex as SyncMutex;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    connect::{Pool, Session},
    encode::{Encoder, HEADER, TRAILER},
};
use crate::error::{Error, Result};

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait to be sent.
const CHUNKS: usize = 2;
/// Another connection is opened for a load of more than this per connection.
const ANOTHER_BYTES: u64 = 16 << 20;
/// After so many bytes a COPY is ended and the next begun, since the server says only at the end what it has against the rows.
const COPY_BYTES: u64 = 128 << 20;

/// What the server took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows, by the server's count.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
}

/// Batches, where they are written to and how. Several connections take from one.
#[derive(Clone)]
pub struct Copy {
    /// None once it has ended.
    stream: Arc<Mutex<Option<SendableRecordBatchStream>>>,
    encoder: Arc<Encoder>,
    sql: String,
    doing: String,
    /// True where all rows of a connection go in one COPY.
    whole: bool,
    cancel: CancellationToken,
    sent: Arc<AtomicU64>,
    grew: Arc<Notify>,
}

struct Chunk {
    bytes: Vec<u8>,
    rows: u64,
}

impl Copy {
    /// Prepares `sql`, a `copy … from stdin (format binary)`. `whole`: in one such statement per connection, however long it becomes.
    pub fn new(
        stream: SendableRecordBatchStream,
        encoder: Arc<Encoder>,
        sql: String,
        doing: String,
        whole: bool,
        cancel: CancellationToken,
    ) -> Self {
        let stream = Arc::new(Mutex::new(Some(stream)));
        Self { stream, encoder, sql, doing, whole, cancel, sent: Arc::default(), grew: Arc::default() }
    }

    /// Takes batches until there are none and sends them over one connection. After an error the session can only be dropped.
    pub async fn through(&self, session: &mut Session) -> Result<Taken> {
        let (chunks, mut ready) = mpsc::channel(CHUNKS);
        let spent: Arc<SyncMutex<Vec<Vec<u8>>>> = Arc::default();
        let mut encoding = Some(AbortOnDropHandle::new(tokio::spawn(self.clone().encode(chunks, spent.clone()))));
        let mut taken = Taken::default();
        let mut waiting = ready.recv().await;
        while waiting.is_some() {
            let mut copy = self.begin(session).await?;
            let (mut rows, mut bytes) = (0, 0);
            while let Some(chunk) = waiting.take() {
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => return Err(interrupted()),
                    sent = copy.send(chunk.bytes.as_slice()) => sent?,
                }
                rows += chunk.rows;
                bytes += chunk.bytes.len() as u64;
                self.note(chunk.bytes.len() as u64);
                let mut back = chunk.bytes;
                back.clear();
                back.shrink_to(4 * CHUNK_BYTES);
                spent.lock().push(back);
                waiting = ready.recv().await;
                if bytes > COPY_BYTES && !self.whole {
                    break;
                }
            }
            // What was sent may be all that there is, or all until something went wrong: that COPY must not be ended well.
            if waiting.is_none()
                && let Some(encoding) = encoding.take()
            {
                joined(encoding).await?;
            }
            taken.rows += self.end(copy, rows).await?;
            taken.bytes += bytes;
        }
        if let Some(encoding) = encoding {
            joined(encoding).await?;
        }
        Ok(taken)
    }

    /// Counts bytes sent, and says when they are enough for another connection.
    fn note(&self, bytes: u64) {
        let before = self.sent.fetch_add(bytes, Ordering::Relaxed);
        if before / ANOTHER_BYTES != (before + bytes) / ANOTHER_BYTES {
            self.grew.notify_one();
        }
    }

    async fn begin<'a>(&self, session: &'a mut Session) -> Result<super::connect::CopyIn<'a>> {
        let mut copy = session.copy_in(&self.sql, &self.doing).await?;
        copy.send(HEADER).await?;
        Ok(copy)
    }

    /// Ends a COPY and compares the server's count with what was sent.
    async fn end(&self, mut copy: super::connect::CopyIn<'_>, rows: u64) -> Result<u64> {
        copy.send(TRAILER).await?;
        let took = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(interrupted()),
            took = copy.finish() => took?,
        };
        if took != rows {
            // A trigger or a rule of the table may leave rows out.
            let message = format!("cannot {}: of {rows} rows sent, the server took {took}", self.doing);
            return Err(Error::user("rows-left-out", message)
                .help("does a trigger or a rule of the table leave rows out? load a table that has none"));
        }
        Ok(took)
    }

    async fn encode(self, chunks: mpsc::Sender<Chunk>, spent: Arc<SyncMutex<Vec<Vec<u8>>>>) -> Result<()> {
        let fresh = || spent.lock().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8));
        let mut chunk = Chunk { bytes: fresh(), rows: 0 };
        while let Some(batch) = self.next().await? {
            let mut rows = self.encoder.rows(&batch)?;
            loop {
                chunk.rows += rows.write(&mut chunk.bytes, CHUNK_BYTES) as u64;
                if chunk.bytes.len() < CHUNK_BYTES {
                    break;
                }
                // Nobody receives any more: the receiver has the error that says why.
                if chunks.send(std::mem::replace(&mut chunk, Chunk { bytes: fresh(), rows: 0 })).await.is_err() {
                    return Ok(());
                }
            }
        }
        if chunk.rows > 0 {
            let _ = chunks.send(chunk).await;
        }
        Ok(())
    }

    async fn next(&self) -> Result<Option<arrow::array::RecordBatch>> {
        let next = async {
            let mut stream = self.stream.lock().await;
            let next = match stream.as_mut() {
                Some(stream) => stream.next().await,
                None => None,
            };
            if !matches!(next, Some(Ok(_))) {
                *stream = None;
            }
            next
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(interrupted()),
            next = next => next.transpose().map_err(from_datafusion),
        }
    }

    /// Sends over up to `most` connections, each a transaction that is committed at its end; more than one only for many bytes.
    pub async fn through_several(&self, pool: &Arc<Pool>, application_name: &str, most: usize) -> Result<Taken> {
        let mut workers: JoinSet<Result<Taken>> = JoinSet::new();
        let first = pool.begin(application_name).await?;
        workers.spawn(self.clone().work(first));
        let (mut started, mut taken) = (1, Taken::default());
        let outcome = loop {
            tokio::select! {
                ended = workers.join_next() => match ended {
                    None => break Ok(taken),
                    Some(Ok(Ok(more))) => {
                        taken.rows += more.rows;
                        taken.bytes += more.bytes;
                    }
                    Some(Ok(Err(error))) => break Err(error),
                    Some(Err(error)) => break Err(Error::weir("copy-worker", "the task of a connection died").because(error)),
                },
                () = self.grew.notified(), if started < most => match pool.try_begin(application_name).await {
                    Ok(Some(session)) => {
                        started += 1;
                        workers.spawn(self.clone().work(session));
                    }
                    Ok(None) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        // Where one failed, the others have nothing to go on for, and none may be left at work when this returns.
        workers.shutdown().await;
        outcome
    }

    async fn work(self, mut session: Session) -> Result<Taken> {
        let taken = self.through(&mut session).await?;
        session.commit(&self.doing).await?;
        Ok(taken)
    }
}

async fn joined(encoding: AbortOnDropHandle<Result<()>>) -> Result<()> {
    encoding.await.map_err(|error| Error::weir("copy-encoder", "the task that encodes rows died").because(error))?
}

/// DataFusion's error as a connector's: the connector's own where one lies beneath.
pub(super) fn from_datafusion(error: datafusion::error::DataFusionError) -> Error {
    Error::taken_out(error).unwrap_or_else(|error| Error::system("dataflow", error.find_root().strip_backtrace()).because(error))
}

/// The run was stopped.
pub fn interrupted() -> Error {
    Error::system("interrupted", "the run was stopped")
}
