//! The rows that a query without tables makes, for a test that gives them so: `{ sql = "select 1 as id" }`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{CastOptions, cast_with_options, concat_batches, take},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::FormatOptions,
};
use datafusion::{execution::SendableRecordBatchStream, physical_plan::execute_stream, prelude::SessionContext};
use futures::StreamExt;
use weir_pipelines::{Diagnostic, SqlText};

use super::given::Asked;
use crate::{
    error::{Failure, Result},
    run::explain,
    transforms, trial,
};

/// The query's rows in the order that it gives them, or none of them where only their columns are asked for. What is wrong with the query is
/// pointed at inside it.
pub async fn rows(session: &SessionContext, text: &SqlText, asked: Asked<'_>) -> Result<RecordBatch> {
    let plan = transforms::query(session, text).await?;
    let fields = plan.schema().fields().iter().map(|field| field.as_ref().clone().with_data_type(plain(field.data_type())));
    let schema: SchemaRef = Arc::new(Schema::new(fields.map(|field: Field| field.with_nullable(true)).collect::<Vec<_>>()));
    let Asked::Rows(cancel) = asked else { return Ok(RecordBatch::new_empty(schema)) };
    let failed = |failure: Failure| match failure {
        Failure::Error(error) => {
            let diagnostic = Diagnostic::error(error.code, error.message.clone()).at(&text.file, text.span.clone(), "these rows");
            error.details.iter().chain(&error.help).fold(diagnostic, |all, line| all.help(line.clone())).into()
        }
        other => other,
    };
    let started = async {
        let frame = session.execute_logical_plan(plan).await?.limit(0, Some(trial::ROWS_MAX + 1))?;
        execute_stream(frame.create_physical_plan().await?, session.task_ctx())
    };
    let mut stream: SendableRecordBatchStream = started.await.map_err(|error| failed(explain(&error)))?;
    let (mut batches, mut count) = (Vec::new(), 0);
    loop {
        let batch = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Failure::Interrupted),
            batch = stream.next() => batch,
        };
        let Some(batch) = batch else { break };
        let batch = batch.map_err(|error| failed(explain(&error)))?;
        count += batch.num_rows();
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast_to(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|why| failed(Failure::error("run", why)))?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        batches.push(RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the columns are of this schema"));
    }
    if count > trial::ROWS_MAX {
        let message = format!("the query gives more than {} rows", trial::ROWS_MAX);
        return Err(failed(Failure::error("test-too-large", message).help("give fewer rows: a test is about a few")));
    }
    concat_batches(&schema, &batches).map_err(|error| failed(Failure::error("run", error.to_string())))
}

/// The type in which other given rows have such values.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

/// A column as another type, without a value changed; in words why not where that cannot be.
pub fn cast_to(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let from = column.data_type();
    let is_text = |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let decimal = |of: &DataType| {
        matches!(of, DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..))
    };
    let same_kind = match from {
        DataType::Null => true,
        from if is_text(from) => is_text(to) || to.is_temporal() || decimal(to),
        from if from.is_numeric() => to.is_numeric(),
        from if from.is_temporal() => to.is_temporal(),
        from => !is_text(to) && (from == to || from.is_nested() || from.is_binary()),
    };
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    let cast = |column: &ArrayRef, to: &DataType| cast_with_options(column, to, &strict);
    if !same_kind {
        return Err("one is not the other".to_owned());
    }
    let made = cast(column, to).map_err(|_| "a value does not fit".to_owned())?;
    // A cast rounds and cuts off where it can: what comes back must be what was there. Floats are taken as the nearest one.
    let exact = *from == DataType::Null
        || is_text(from)
        || to.is_floating()
        || cast(&made, from).is_ok_and(|back| back.as_ref() == column.as_ref());
    if exact { Ok(made) } else { Err("a value does not fit".to_owned()) }
}

/// A column of one cell, so many times.
pub fn repeated(cell: &ArrayRef, times: usize) -> ArrayRef {
    take(cell, &UInt32Array::from(vec![0; times]), None).expect("the cell is there")
}
