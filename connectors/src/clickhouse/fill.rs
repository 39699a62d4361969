//! How rows get into a load's stage: several streams side by side, inserts of a part's worth each, one being written by the server while
//! the next is on its way. What is staged, and what follows, is `load.rs`.

use std::{sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use datafusion::{error::Result as DataFusionResult, execution::SendableRecordBatchStream};
use futures::{
    StreamExt,
    stream::{SelectAll, select_all},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};

use super::{
    connect,
    encode::{Encoder, Frames},
    load::{Db, State, from_datafusion},
};
use crate::{
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// Rows of a stream are held until they are worth an insert: what is left of several streams goes in one.
const HELD_BYTES: usize = 2 << 20;
/// An insert that gets nothing for so long is ended, before the server gives it up.
const IDLE: Duration = Duration::from_secs(10);
/// A part is begun anew after so many bytes in the server's memory, however few rows they are.
const PART_BYTES: u64 = 128 << 20;

/// Inserts the rows of several streams into the stage, side by side, and returns how many the server took. Each stream's stay in their
/// order, so that what comes sorted need not be sorted again. Dropped before its end, it ends the inserts that run.
pub(super) async fn fill(db: Db, encoder: Encoder, state: State, insert_rows: u64, streams: Vec<SendableRecordBatchStream>) -> Result<u64> {
    let places = Arc::new(Semaphore::new(db.inserts));
    let mut groups: Vec<Vec<SendableRecordBatchStream>> = Vec::new();
    groups.resize_with(streams.len().min(db.inserts), Vec::new);
    let count = groups.len();
    for (at, stream) in streams.into_iter().enumerate() {
        groups[at % count].push(stream);
    }
    let writer = Arc::new(Writer { db, encoder, state, insert_rows, places });
    let mut fillers: JoinSet<Result<Filled>> = JoinSet::new();
    for group in groups {
        fillers.spawn(one(writer.clone(), select_all(group)));
    }
    let (mut taken, mut rest) = (0, Vec::new());
    while let Some(filled) = fillers.join_next().await {
        let filled = joined(filled)?;
        taken += filled.taken;
        rest.extend(filled.rest);
    }
    if !rest.is_empty() {
        let mut insert = Insert::begin(&writer).await?;
        for batch in rest {
            insert.send(&writer, &batch).await?;
        }
        taken += insert.end().await?;
    }
    Ok(taken)
}

/// What the streams' inserts share.
struct Writer {
    db: Db,
    encoder: Encoder,
    state: State,
    insert_rows: u64,
    /// One for each insert that may run.
    places: Arc<Semaphore>,
}

/// What became of a stream's rows.
#[derive(Default)]
struct Filled {
    /// Rows that the server took.
    taken: u64,
    /// Batches that were not worth an insert of their own.
    rest: Vec<RecordBatch>,
}

/// Inserts rows in their order, a part's worth by each insert: the server writes one while the next is on its way.
async fn one(writer: Arc<Writer>, mut rows: SelectAll<SendableRecordBatchStream>) -> Result<Filled> {
    let (mut filled, mut held_bytes) = (Filled::default(), 0);
    let mut open: Option<Insert> = None;
    // Dropping the set ends them.
    let mut ending: JoinSet<Result<u64>> = JoinSet::new();
    while let Some(batch) = next(&mut rows, &mut open, &mut ending).await {
        let batch = batch.map_err(from_datafusion)?;
        if batch.num_rows() == 0 {
            continue;
        }
        match &mut open {
            Some(insert) => insert.send(&writer, &batch).await?,
            None => {
                held_bytes += batch.get_array_memory_size();
                filled.rest.push(batch);
                if held_bytes >= HELD_BYTES {
                    held_bytes = 0;
                    let insert = open.insert(Insert::begin(&writer).await?);
                    for batch in filled.rest.drain(..) {
                        insert.send(&writer, &batch).await?;
                    }
                }
            }
        }
        if let Some(insert) = open.take_if(|insert| insert.rows >= writer.insert_rows) {
            ending.spawn(insert.end());
        }
        while let Some(ended) = ending.try_join_next() {
            filled.taken += joined(ended)?;
        }
    }
    if let Some(insert) = open {
        filled.taken += insert.end().await?;
    }
    while let Some(ended) = ending.join_next().await {
        filled.taken += joined(ended)?;
    }
    Ok(filled)
}

/// The next batch. An insert that gets none for long is ended meanwhile.
async fn next(
    rows: &mut SelectAll<SendableRecordBatchStream>,
    open: &mut Option<Insert>,
    ending: &mut JoinSet<Result<u64>>,
) -> Option<DataFusionResult<RecordBatch>> {
    if open.is_some() {
        if let Ok(batch) = tokio::time::timeout(IDLE, rows.next()).await {
            return batch;
        }
        if let Some(insert) = open.take() {
            ending.spawn(insert.end());
        }
    }
    rows.next().await
}

fn joined<T>(ended: Result<Result<T>, JoinError>) -> Result<T> {
    ended.map_err(|error| Error::weir("clickhouse-insert", "an insert died").because(error))?
}

/// One request that is under way.
struct Insert {
    request: connect::Insert,
    frames: Frames,
    rows: u64,
    _place: OwnedSemaphorePermit,
}

impl Insert {
    async fn begin(writer: &Writer) -> Result<Self> {
        let state = &writer.state;
        let sql = format!("insert into {} ({}) format ArrowStream", state.own(&state.stage_table()), quote::identifiers(&state.written));
        let (rows, bytes) = (writer.insert_rows.to_string(), PART_BYTES.to_string());
        let options = [
            ("async_insert", "0"),
            // Every row as it is: collapsing and replacing are for merges, once keys were checked.
            ("optimize_on_insert", "0"),
            ("insert_deduplicate", "0"),
            ("input_format_null_as_default", "0"),
            ("input_format_arrow_allow_missing_columns", "0"),
            ("date_time_overflow_behavior", "throw"),
            ("max_partitions_per_insert_block", "0"),
            // Few parts, of a size that bounds the server's memory.
            ("max_insert_block_size", &rows),
            ("min_insert_block_size_rows", &rows),
            ("min_insert_block_size_bytes", &bytes),
        ];
        let place = writer.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let request = writer.db.server.insert(&sql, &options, Some(&state.request()), &writer.db.doing).await?;
        Ok(Self { request, frames: Frames::new(&writer.encoder)?, rows: 0, _place: place })
    }

    async fn send(&mut self, writer: &Writer, batch: &RecordBatch) -> Result<()> {
        let bytes = self.frames.batch(&writer.encoder.convert(batch)?)?;
        self.request.send(bytes).await?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the request. Returns how many rows the server took.
    async fn end(self) -> Result<u64> {
        let Self { mut request, frames, rows, .. } = self;
        request.send(frames.end()?).await?;
        request.end().await?;
        Ok(rows)
    }
}
