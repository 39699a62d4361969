//! The rows of a Postgres table or query as a DataFusion scan: one transaction per stream under one snapshot, the table's pages shared
//! out in pieces, each a `copy … to stdout`. What is read is `source`'s to know; bytes become columns in `decode`.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt64Array, new_null_array,
    },
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{Int32Type, Schema, SchemaRef},
};
use datafusion::{
    common::{Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Expr,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        statistics::StatisticsArgs,
        stream::RecordBatchReceiverStreamBuilder,
    },
};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::{
    connect::{Session, application_name},
    decode::Decoder,
    filter::Conditions,
    source::{Input, Origin},
};
use crate::{
    conform::conform,
    context::Reject,
    error::{Error, Result},
    quote,
};

/// A table of fewer pages (8 KiB each) is read by one stream.
const PIECE_PAGES_MIN: u64 = 1024;
/// No piece has more pages.
const PIECE_PAGES_MAX: u64 = 131_072;
/// Pieces per stream, so that a stream whose pages are full of rows does not make the others wait long.
const PIECES_PER_READER: u64 = 4;
/// A batch is handed on when it has so many bytes, however few rows those are.
const BATCH_BYTES: usize = 8 << 20;
/// Batches that wait for whoever takes them, per stream.
const BATCHES_WAITING: usize = 2;

/// One scan.
#[derive(Debug)]
pub(super) struct PostgresScan {
    run: Arc<Run>,
    properties: Arc<PlanProperties>,
    taken: Mutex<Vec<bool>>,
}

impl PostgresScan {
    pub(super) fn new(input: Arc<Input>, projection: Vec<usize>, filters: &[Expr], limit: Option<usize>) -> DataFusionResult<Self> {
        let schema: SchemaRef = Arc::new(input.schema.project(&projection)?);
        // Columns that only tell which rows are read are read beside those that are asked for.
        let mut read = projection.clone();
        if let Some(reach) = &input.reach {
            for name in reach.needs() {
                let index = input.schema.index_of(name)?;
                if !read.contains(&index) {
                    read.push(index);
                }
            }
        }
        let mut server = Vec::new();
        for index in &read {
            if let Origin::Server(column) = input.origins[*index]
                && !server.contains(&column)
            {
                server.push(column);
            }
        }
        // Which rows were loaded before is known here only, and which do not fit a declared type.
        let conforms = read.iter().any(|index| match input.origins[*index] {
            Origin::Server(column) => input.columns[column].field.data_type() != input.schema.field(*index).data_type(),
            _ => false,
        });
        let limit = limit.filter(|_| input.reach.is_none() && !conforms);
        let pieces = match input.pages {
            Some(pages) if limit.is_none() && input.readers > 1 => pieces(pages, input.readers),
            _ => vec![Piece { from: None, to: None }],
        };
        let partitions = pieces.len().min(input.readers).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let run = Run {
            conditions: input.all_conditions(filters),
            read_schema: Arc::new(input.schema.project(&read)?),
            schema,
            read,
            server,
            limit,
            pieces,
            next_piece: AtomicUsize::new(0),
            read_pieces: AtomicUsize::new(0),
            rows: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            lead: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            input,
        };
        Ok(Self { run: Arc::new(run), properties: Arc::new(properties), taken: Mutex::new(vec![false; partitions]) })
    }
}

impl DisplayAs for PostgresScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.run.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "PostgresScan: {}, columns=[{}]", self.run.input.what, names.join(", "))?;
        if !self.run.conditions.sql.is_empty() {
            // Without the values, which may be anybody's.
            write!(f, ", filters=[{}]", self.run.conditions.sql.join(" and "))?;
        }
        if let Some(limit) = self.run.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for PostgresScan {
    fn name(&self) -> &str {
        "PostgresScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        match self.taken.lock().get_mut(partition) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(Error::weir("scan-twice", format!("partition {partition} of a Postgres scan was asked for twice")).into()),
        }
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.run.schema.clone(), BATCHES_WAITING);
        let (live, out) = (Live::new(&self.run), stream.tx());
        // The task ends with the stream: what it had open is closed then, and the server stops.
        stream.spawn(async move {
            let cancel = live.0.input.cx.run.cancel.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::system("interrupted", "reading was interrupted").into()),
                read = live.0.read(&out) => read.map_err(DataFusionError::from),
            }
        });
        Ok(stream.build())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> DataFusionResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.run.schema);
        if args.partition().is_none()
            && self.run.conditions.sql.is_empty()
            && let Some(rows) = self.run.input.rows.and_then(|rows| usize::try_from(rows).ok())
        {
            statistics.num_rows = Precision::Inexact(self.run.limit.map_or(rows, |limit| limit.min(rows)));
        }
        Ok(Arc::new(statistics))
    }
}

/// Some of a table's pages, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// The first page.
    from: Option<u64>,
    /// The page after the last; the last piece has no end, for the table may have grown since its size was asked for.
    to: Option<u64>,
}

fn pieces(pages: u64, readers: usize) -> Vec<Piece> {
    let readers = readers as u64;
    let each = (pages / (readers * PIECES_PER_READER).max(1)).clamp(PIECE_PAGES_MIN, PIECE_PAGES_MAX);
    let count = (pages / each).max(1);
    (0..count)
        .map(|index| Piece { from: (index > 0).then_some(index * each), to: (index + 1 < count).then_some((index + 1) * each) })
        .collect()
}

/// What the streams of one scan share.
struct Run {
    input: Arc<Input>,
    /// What is handed out.
    schema: SchemaRef,
    /// What is read: those columns, and what tells which rows are read.
    read_schema: SchemaRef,
    /// The same, as columns of the source.
    read: Vec<usize>,
    /// The server's columns among them.
    server: Vec<usize>,
    conditions: Conditions,
    limit: Option<usize>,
    pieces: Vec<Piece>,
    next_piece: AtomicUsize,
    read_pieces: AtomicUsize,
    /// Rows numbered so far.
    rows: AtomicU64,
    /// Streams that have not ended.
    live: AtomicUsize,
    /// Whether a first stream has begun, and its snapshot.
    lead: tokio::sync::Mutex<Option<Lead>>,
    /// The first stream's transaction, which others may take the snapshot of as long as it lives.
    held: Mutex<Option<Arc<tokio::sync::Mutex<Session>>>>,
}

/// The first stream's snapshot, where there can be others.
struct Lead(Option<String>);

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("what", &self.input.what).field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

/// A stream that has not ended. The last one lets go of the snapshot, whoever still holds the plan.
struct Live(Arc<Run>);

impl Live {
    fn new(run: &Arc<Run>) -> Self {
        run.live.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(run))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.held.lock().take();
        }
    }
}

impl Run {
    fn doing(&self) -> String {
        format!("read {}", self.input.what)
    }

    fn is_exhausted(&self) -> bool {
        self.next_piece.load(Ordering::Acquire) >= self.pieces.len()
    }

    /// Reads pieces until none is left.
    async fn read(&self, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<()> {
        let Some(session) = self.session().await? else { return Ok(()) };
        let mut open = session.lock().await;
        while let Some(piece) = self.pieces.get(self.next_piece.fetch_add(1, Ordering::AcqRel)) {
            if !self.read_piece(&mut open, *piece, out).await? {
                // Nobody takes rows any more.
                return Ok(());
            }
            if self.read_pieces.fetch_add(1, Ordering::AcqRel) + 1 == self.pieces.len()
                && let Some(reach) = &self.input.reach
            {
                reach.finish()?;
            }
        }
        drop(open);
        // Nobody begins any more: there is nothing left to read.
        let held = self.held.lock().take_if(|held| Arc::ptr_eq(held, &session));
        drop(held);
        if let Ok(session) = Arc::try_unwrap(session) {
            session.into_inner().rollback().await;
        }
        Ok(())
    }

    /// A transaction under the scan's snapshot. None where the other streams read what there is: no connection is free, or no piece left.
    async fn session(&self) -> Result<Option<Arc<tokio::sync::Mutex<Session>>>> {
        let doing = self.doing();
        let cx = &self.input.cx;
        let name = application_name(&cx.run.run, &cx.step);
        let mut lead = self.lead.lock().await;
        if self.is_exhausted() {
            return Ok(None);
        }
        let (mut session, first) = match &*lead {
            None => {
                let mut session = self.input.pool.begin_read(&name, None).await?;
                let snapshot = match self.pieces.len() {
                    1 => None,
                    _ => session.fetch_text("select pg_catalog.pg_export_snapshot()", &[], &doing).await?,
                };
                *lead = Some(Lead(snapshot));
                (session, true)
            }
            Some(Lead(None)) => return Ok(None),
            Some(Lead(Some(snapshot))) => match self.input.pool.try_begin_read(&name, Some(snapshot)).await {
                Ok(Some(session)) => (session, false),
                Ok(None) => return Ok(None),
                // The first stream has ended meanwhile, for nothing was left.
                Err(_) if self.is_exhausted() => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        drop(lead);
        if let Some((sql, binds)) = self.conditions.binding() {
            session.fetch(&sql, &binds, &doing).await?;
        }
        let session = Arc::new(tokio::sync::Mutex::new(session));
        if first && self.pieces.len() > 1 {
            *self.held.lock() = Some(Arc::clone(&session));
        }
        Ok(Some(session))
    }

    fn sql(&self, piece: Piece) -> String {
        let input = &self.input;
        let list: Vec<String> = self
            .server
            .iter()
            .map(|column| format!("{}{}", quote::identifier(&input.columns[*column].name), input.columns[*column].cast))
            .collect();
        let mut conditions = self.conditions.sql.clone();
        conditions.extend(piece.from.map(|page| format!("ctid >= '({page},0)'::tid")));
        conditions.extend(piece.to.map(|page| format!("ctid < '({page},0)'::tid")));
        let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
        let limit = self.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
        format!("copy (select {} from {}{filter}{limit}) to stdout (format binary)", list.join(", "), input.from)
    }

    /// Reads one piece to its end. False where nobody takes rows any more.
    async fn read_piece(&self, session: &mut Session, piece: Piece, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<bool> {
        let input = &self.input;
        let batch_rows = input.cx.run.batch_rows.max(1);
        let columns = self.server.iter().map(|column| (input.columns[*column].name.as_str(), &input.columns[*column].kind));
        let mut decoder = Decoder::new(columns, input.infinity, &input.what);
        let (sql, doing) = (self.sql(piece), self.doing());
        let mut bytes = pin!(session.copy_out(&sql, &doing).await?);
        while let Some(bytes) = bytes.next().await {
            let bytes = bytes?;
            input.read.add_bytes(bytes.len() as u64);
            decoder.push(&bytes)?;
            if (decoder.rows() >= batch_rows || decoder.bytes() >= BATCH_BYTES) && !self.hand_out(&mut decoder, out).await? {
                return Ok(false);
            }
        }
        decoder.end()?;
        self.hand_out(&mut decoder, out).await
    }

    /// Hands out what has been decoded, in batches.
    async fn hand_out(&self, decoder: &mut Decoder, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<bool> {
        if decoder.rows() == 0 {
            return Ok(true);
        }
        let (columns, rows) = decoder.batch()?;
        let batch = self.assemble(columns, rows)?;
        let mut from = 0;
        // One message may have brought more rows than a batch is to have.
        while from < batch.num_rows() {
            let rows = self.input.cx.run.batch_rows.max(1).min(batch.num_rows() - from);
            if out.send(Ok(batch.slice(from, rows))).await.is_err() {
                return Ok(false);
            }
            from += rows;
        }
        Ok(true)
    }

    /// Brings the server's columns to the source's: declared types, columns of nulls, coordinates; then takes out what was loaded before.
    fn assemble(&self, decoded: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let input = &self.input;
        let changed = |error: arrow::error::ArrowError| {
            Error::system("columns-changed", format!("cannot read {}: {error}", input.what))
                .help("was the table changed in this moment? run again")
        };
        let first = self.rows.fetch_add(rows as u64, Ordering::Relaxed) + 1;
        let mut unfit: Vec<(usize, String, String)> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.read.len());
        for (index, field) in self.read.iter().zip(self.read_schema.fields()) {
            columns.push(match input.origins[*index] {
                Origin::Server(column) => {
                    let place = self.server.iter().position(|server| *server == column).expect("what is read was asked for");
                    let (array, bad) = conform(&decoded[place], field.data_type())?;
                    unfit.extend(bad.into_iter().map(|bad| (bad.row, field.name().clone(), bad.reason)));
                    array
                }
                Origin::Absent => new_null_array(field.data_type(), rows),
                Origin::File => {
                    let name: ArrayRef = Arc::new(StringArray::from(vec![input.place.as_str()]));
                    Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; rows]), name).map_err(changed)?)
                }
                Origin::Row => Arc::new(UInt64Array::from_iter_values(first..first + rows as u64)),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut rejected = 0;
        let mut schema = self.read_schema.clone();
        if !unfit.is_empty() {
            // Rows that leave have nulls where none are allowed.
            let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            schema = Arc::new(Schema::new(fields));
        }
        let mut batch = RecordBatch::try_new_with_options(schema, columns, &options).map_err(changed)?;
        if !unfit.is_empty() {
            (batch, rejected) = self.reject(&batch, &decoded, unfit, first)?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            batch = RecordBatch::try_new_with_options(self.read_schema.clone(), columns, &options).map_err(changed)?;
        }
        if let Some(reach) = &input.reach {
            batch = reach.pass(&batch)?;
        }
        input.read.add_rows((batch.num_rows() + rejected) as u64);
        let wanted: Vec<usize> = (0..self.schema.fields().len()).collect();
        if wanted.len() < batch.num_columns() { batch.project(&wanted).map_err(changed) } else { Ok(batch) }
    }

    /// Takes rows that do not fit out, and reports each with the first column at fault.
    fn reject(
        &self,
        batch: &RecordBatch,
        decoded: &[ArrayRef],
        mut unfit: Vec<(usize, String, String)>,
        first: u64,
    ) -> Result<(RecordBatch, usize)> {
        let input = &self.input;
        let misfit = |error: arrow::error::ArrowError| Error::weir("arrow", format!("columns do not fit together: {error}")).because(error);
        unfit.sort_by_key(|(row, ..)| *row);
        unfit.dedup_by_key(|(row, ..)| *row);
        let fields: Vec<_> = self.server.iter().map(|column| input.columns[*column].field.clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let raw = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), decoded.to_vec(), &options).map_err(misfit)?;
        let mut keep = vec![true; batch.num_rows()];
        let mut rejects = Vec::with_capacity(unfit.len());
        for (row, column, reason) in unfit {
            keep[row] = false;
            rejects.push(Reject {
                file: Some(input.place.clone()),
                row: Some(first + row as u64),
                code: "wrong-type".into(),
                column: Some(column),
                reason,
                raw: weir_schemas::json::text(&raw, row),
                fields: None,
            });
        }
        let count = rejects.len();
        input.cx.rejects.reject(rejects)?;
        let keep = BooleanArray::new(BooleanBuffer::from(keep), None);
        Ok((filter_record_batch(batch, &keep).map_err(misfit)?, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_page_once_and_whatever_was_added_since() {
        for (pages, readers) in [(0, 1), (1, 4), (1023, 4), (1024, 4), (5000, 2), (1 << 20, 8), (1 << 32, 3)] {
            let pieces = pieces(pages, readers);
            assert_eq!(pieces.first().expect("one").from, None);
            assert_eq!(pieces.last().expect("one").to, None);
            for pair in pieces.windows(2) {
                assert_eq!(pair[0].to, pair[1].from);
                assert!(pair[0].to.is_some() && pair[0].from < pair[0].to);
            }
        }
        assert_eq!(pieces(1000, 8).len(), 1);
        assert!(pieces(1 << 20, 4).len() >= 16);
    }
}
