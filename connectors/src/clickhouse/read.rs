//! The rows of a ClickHouse table or query as a DataFusion scan of one stream: the statement, and batches brought to the source's columns.
//! What is read is `source.rs`'s to know; how types are brought to Arrow's is `types.rs`'s.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt64Array, new_null_array,
    },
    compute::filter_record_batch,
    datatypes::{Int32Type, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Expr,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};

use super::{
    connect::Answer,
    source::{Conditions, Input, Origin},
};
use crate::{
    conform::conform,
    context::{Purpose, Reject},
    error::{Error, Result},
    quote::clickhouse as quote,
    retry::retry,
};

/// One scan.
#[derive(Debug)]
pub(super) struct ClickhouseScan {
    run: Arc<Run>,
    properties: Arc<PlanProperties>,
    taken: AtomicBool,
}

/// What one scan reads.
struct Run {
    input: Arc<Input>,
    /// What is handed out.
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// The server's columns that are read: those, and what tells which rows are read.
    server: Vec<usize>,
    /// The same, as they are read.
    own: SchemaRef,
    conditions: Conditions,
    limit: Option<usize>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("place", &self.input.place).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl ClickhouseScan {
    pub(super) fn new(input: Arc<Input>, projection: Vec<usize>, filters: &[Expr], limit: Option<usize>) -> DataFusionResult<Self> {
        let schema: SchemaRef = Arc::new(input.schema.project(&projection)?);
        let origins: Vec<Origin> = projection.iter().map(|index| input.origins[*index]).collect();
        let mut server: Vec<usize> = Vec::new();
        let mut conforms = false;
        for (origin, field) in origins.iter().zip(schema.fields()) {
            if let Origin::Server(column) = *origin {
                conforms |= input.columns[column].field.data_type() != field.data_type();
                server.push(column);
            }
        }
        for name in input.reach.iter().flat_map(|reach| reach.needs()) {
            let column = input.columns.iter().position(|column| column.field.name() == name);
            let column = column.ok_or_else(|| Error::weir("cursor-lost", format!("column \"{name}\" is not the source's")))?;
            if !server.contains(&column) {
                server.push(column);
            }
        }
        let own = Arc::new(Schema::new(server.iter().map(|column| input.columns[*column].field.clone()).collect::<Vec<_>>()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let run = Run {
            conditions: input.conditions(filters),
            // Which rows were loaded before, and which do not fit a declared type, is known here only.
            limit: limit.filter(|_| input.reach.is_none() && !conforms),
            schema,
            origins,
            server,
            own,
            input,
        };
        Ok(Self { run: Arc::new(run), properties: Arc::new(properties), taken: AtomicBool::new(false) })
    }
}

impl DisplayAs for ClickhouseScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.run.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "ClickhouseScan: {}, columns=[{}]", self.run.input.place, names.join(", "))?;
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

impl ExecutionPlan for ClickhouseScan {
    fn name(&self) -> &str {
        "ClickhouseScan"
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
        if partition != 0 || self.taken.swap(true, Ordering::AcqRel) {
            return Err(Error::weir("scan-twice", format!("partition {partition} of a ClickHouse scan was asked for twice")).into());
        }
        let rows = Rows { run: self.run.clone(), answer: None, ready: None, rows: 0, bytes: 0, ended: false };
        let batches = futures::stream::try_unfold(rows, |mut rows| async move {
            let cancel = rows.run.input.cx.run.cancel.clone();
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::system("interrupted", "reading was interrupted")),
                next = rows.next() => next,
            };
            Ok(next.map_err(DataFusionError::from)?.map(|batch| (batch, rows)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.run.schema.clone(), batches)))
    }
}

impl Run {
    /// Conditions stand where names mean the table's columns, conversions outside, where they mean the answer's.
    fn sql(&self) -> String {
        let columns = || self.server.iter().map(|column| &self.input.columns[*column]);
        let list = |list: Vec<String>| if list.is_empty() { "1".to_owned() } else { list.join(", ") };
        let converted = columns().map(|column| {
            let name = quote::identifier(column.field.name());
            match column.reading.casts.iter().fold(name.clone(), |inner, own| format!("cast({inner} as {own})")) {
                plain if plain == name => name,
                cast => format!("{cast} as {name}"),
            }
        });
        let plain = columns().map(|column| quote::identifier(column.field.name()));
        let filter = if self.conditions.sql.is_empty() { String::new() } else { format!(" where {}", self.conditions.sql.join(" and ")) };
        let limit = self.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
        format!("select {} from (select {} from {}{filter}{limit})", list(converted.collect()), list(plain.collect()), self.input.from)
    }

    async fn ask(&self) -> Result<Answer> {
        let sql = self.sql();
        let names: Vec<String> = (1..=self.conditions.values.len()).map(|number| format!("p{number}")).collect();
        let params: Vec<(&str, String)> = names.iter().map(String::as_str).zip(self.conditions.values.iter().cloned()).collect();
        let run = &self.input.cx.run;
        retry(&run.cancel, || {
            let query_id = format!("weir-{}-{}", run.run, uuid::Uuid::now_v7());
            let (sql, params) = (&sql, &params);
            async move { self.input.server.arrow(sql, params, &query_id, &self.input.doing).await }
        })
        .await
    }

    /// What the server sent, as its columns are read.
    fn bring(&self, sent: &RecordBatch) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(sent.num_rows()));
        if !self.server.is_empty() && sent.num_columns() != self.server.len() {
            let message = format!("cannot {}: the answer has {} columns, not {}", self.input.doing, sent.num_columns(), self.server.len());
            return Err(Error::system("clickhouse-protocol", message));
        }
        let columns = self.server.iter().zip(sent.columns()).map(|(column, array)| {
            let column = &self.input.columns[*column];
            column.reading.bring(array, column.field.name())
        });
        RecordBatch::try_new_with_options(self.own.clone(), columns.collect::<Result<_>>()?, &options).map_err(|error| {
            Error::system("columns-changed", format!("cannot {}: {error}", self.input.doing))
                .help("was the table changed in this moment? run again")
        })
    }

    /// Brings rows to the source's columns: declared types, columns of nulls, coordinates. `first` is the first row's number.
    fn assemble(&self, own: &RecordBatch, first: u64) -> Result<RecordBatch> {
        let (input, rows) = (&self.input, own.num_rows());
        let mut unfit: Vec<(usize, String, String)> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.origins.len());
        for (origin, field) in self.origins.iter().zip(self.schema.fields()) {
            columns.push(match origin {
                Origin::Server(column) => {
                    let place = self.server.iter().position(|server| server == column).expect("what is handed out was read");
                    let (array, bad) = conform(own.column(place), field.data_type())?;
                    unfit.extend(bad.into_iter().map(|bad| (bad.row, field.name().clone(), bad.reason)));
                    array
                }
                Origin::Absent => new_null_array(field.data_type(), rows),
                Origin::File => {
                    let name: ArrayRef = Arc::new(StringArray::from(vec![input.place.as_str()]));
                    Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; rows]), name).map_err(misfit)?)
                }
                Origin::Row => Arc::new(UInt64Array::from_iter_values(first..first + rows as u64)),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(misfit)?;
        if unfit.is_empty() {
            return Ok(batch);
        }
        // One reject per row: the first column at fault stands for it.
        unfit.sort_by_key(|(row, ..)| *row);
        unfit.dedup_by_key(|(row, ..)| *row);
        let mut keep = vec![true; rows];
        let mut rejects = Vec::with_capacity(unfit.len());
        for (row, column, reason) in unfit {
            keep[row] = false;
            rejects.push(Reject {
                file: Some(input.place.clone()),
                row: Some(first + row as u64),
                code: "wrong-type".into(),
                column: Some(column),
                reason,
                raw: weir_schemas::json::text(own, row),
                fields: None,
            });
        }
        input.cx.rejects.reject(rejects)?;
        filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(misfit)
    }
}

fn misfit(error: ArrowError) -> Error {
    Error::weir("arrow", format!("columns do not fit together: {error}")).because(error)
}

/// The stream's state.
struct Rows {
    run: Arc<Run>,
    answer: Option<Answer>,
    /// Rows not handed out yet, and how many of them were.
    ready: Option<(RecordBatch, usize)>,
    /// Rows numbered so far.
    rows: u64,
    /// Bytes counted so far.
    bytes: u64,
    ended: bool,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let run = self.run.clone();
        let (input, batch_rows) = (&run.input, run.input.cx.run.batch_rows.max(1));
        // Planning reads no rows.
        if input.cx.purpose == Purpose::Plan {
            return Ok(None);
        }
        loop {
            if let Some((batch, from)) = self.ready.take()
                && from < batch.num_rows()
            {
                let rows = batch_rows.min(batch.num_rows() - from);
                let slice = batch.slice(from, rows);
                self.ready = Some((batch, from + rows));
                return Ok(Some(slice));
            }
            if self.ended {
                return Ok(None);
            }
            let answer = match &mut self.answer {
                Some(answer) => answer,
                none => none.insert(run.ask().await?),
            };
            let sent = answer.next().await?;
            input.read.add_bytes(answer.bytes() - self.bytes);
            self.bytes = answer.bytes();
            let Some(sent) = sent else {
                self.ended = true;
                self.answer = None;
                if let Some(reach) = &input.reach {
                    reach.finish()?;
                }
                return Ok(None);
            };
            let mut own = run.bring(&sent)?;
            if let Some(reach) = &input.reach {
                own = reach.pass(&own)?;
            }
            let rows = own.num_rows() as u64;
            input.read.add_rows(rows);
            let batch = run.assemble(&own, self.rows + 1)?;
            self.rows += rows;
            self.ready = Some((batch, 0));
        }
    }
}
