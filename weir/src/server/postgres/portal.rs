//! Where do the rows of a portal stand? A portal is a statement with its values; a cursor is a portal that SQL has made. Rows come as they
//! are asked for: what nobody has asked for yet is at most a batch here, and what the engine reads ahead.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::RecordBatch,
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::{ParamValues, ScalarValue},
    execution::SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use weir_engine::query::{Prepared, postgres::types::pg_type};

use super::{
    command::Command,
    error::{PgError, Result},
    parameters,
    values::{Rows, ValueError},
    wire::Described,
};

/// A statement that is read, and planned where it asks the engine.
pub struct Plan {
    /// The text that came with it, into which places of errors point.
    pub text: Arc<str>,
    /// Its bytes in that text.
    pub bytes: Range<usize>,
    /// What it asks for.
    pub command: Command,
    /// The query in it.
    pub prepared: Option<Prepared>,
    /// The byte of the text that the query begins at.
    pub start: usize,
    /// The types of its parameters.
    pub kinds: Vec<u32>,
}

impl Plan {
    /// The statement as it was sent.
    pub fn sql(&self) -> &str {
        &self.text[self.bytes.clone()]
    }

    /// The columns of its rows, with values in the place of parameters; without them, with nulls of the parameters' types.
    pub fn schema(&self, values: Option<&[ScalarValue]>) -> Option<SchemaRef> {
        let prepared = self.prepared.as_ref()?;
        if prepared.parameters().iter().all(Option::is_some) {
            return Some(prepared.schema());
        }
        let nulls = || self.kinds.iter().map(|kind| parameters::value(*kind, false, None, 0)).collect::<Result<Vec<_>>>().ok();
        let values = values.map(<[_]>::to_vec).or_else(nulls);
        let bound = values.and_then(|values| {
            let typed = values.into_iter().zip(prepared.parameters());
            let typed: Option<Vec<_>> =
                typed.map(|(value, kind)| kind.as_ref().map_or(Some(value.clone()), |kind| value.cast_to(kind).ok())).collect();
            prepared.plan().clone().with_param_values(ParamValues::from(typed?)).ok()
        });
        Some(bound.map_or_else(|| prepared.schema(), |plan| Arc::new(plan.schema().as_arrow().clone())))
    }
}

/// Rows on their way.
pub struct Flow {
    /// Their columns, as the client was told.
    pub schema: SchemaRef,
    stream: SendableRecordBatchStream,
    batch: Option<(Rows, usize)>,
    /// Ends them.
    pub token: CancellationToken,
}

impl Flow {
    /// Rows that a client was told to have the columns of `told`; without that, their own.
    pub fn new(stream: SendableRecordBatchStream, told: Option<SchemaRef>, token: CancellationToken) -> Self {
        Self { schema: told.unwrap_or_else(|| stream.schema()), stream, batch: None, token }
    }

    /// The next row, as its batch and its place there. None at the end.
    pub async fn next(&mut self) -> Result<Option<(&Rows, usize)>> {
        loop {
            if self.batch.as_ref().is_some_and(|(rows, at)| *at < rows.len) {
                let (rows, at) = self.batch.as_mut().expect("it was there just now");
                *at += 1;
                return Ok(Some((rows, *at - 1)));
            }
            self.batch = None;
            match self.stream.next().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(PgError::of_stream(&error)),
                Some(Ok(batch)) => self.batch = Some((Rows::new(&self.as_told(&batch)?)?, 0)),
            }
        }
    }

    /// What was described before the values of parameters were known may have come out as another type.
    fn as_told(&self, batch: &RecordBatch) -> Result<RecordBatch, ValueError> {
        let same = |(told, is): (&Arc<Field>, &Arc<Field>)| pg_type(told).oid == pg_type(is).oid;
        let is = batch.schema();
        if self.schema.fields().iter().zip(is.fields()).all(same) {
            return Ok(batch.clone());
        }
        let turned = self.schema.fields().iter().zip(is.fields()).zip(batch.columns()).map(|((told, is), array)| {
            if same((told, is)) {
                return Ok((is.clone(), array.clone()));
            }
            let kind = if told.data_type() == &DataType::Null { &DataType::Utf8 } else { told.data_type() };
            Ok((Arc::new(told.as_ref().clone().with_data_type(kind.clone()).with_nullable(true)), cast(array, kind)?))
        });
        let (fields, arrays): (Vec<_>, Vec<_>) = turned.collect::<Result<Vec<_>, ValueError>>()?.into_iter().unzip();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

/// Where a portal stands.
pub enum State {
    /// Nothing has been asked of it.
    New,
    /// Rows are there.
    Open(Box<Flow>),
    /// It was carried out.
    Done,
}

/// A statement with its values.
pub struct Portal {
    /// The statement.
    pub plan: Arc<Plan>,
    /// Its values.
    pub values: Vec<ScalarValue>,
    /// Formats of its columns, as `Bind` gave them: none, one for all, or one each.
    pub formats: Vec<i16>,
    /// How far it is.
    pub state: State,
    /// The columns that the client was told.
    pub told: Option<SchemaRef>,
    /// A cursor that outlives its transaction.
    pub hold: bool,
    /// Bytes of its text and its values.
    pub size: usize,
}

/// Which of so many columns come in binary.
pub fn binary(formats: &[i16], columns: usize) -> Result<Vec<bool>> {
    if formats.iter().any(|format| !(0..=1).contains(format)) {
        return Err(PgError::new("22023", "a format is 0, text, or 1, binary"));
    }
    match formats {
        [] => Ok(vec![false; columns]),
        [one] => Ok(vec![*one == 1; columns]),
        each if each.len() == columns => Ok(each.iter().map(|format| *format == 1).collect()),
        each => Err(PgError::new("08P01", format!("there are {} formats for {columns} columns", each.len()))),
    }
}

/// What a client is told of columns.
pub fn described(schema: &Schema, binary: &[bool]) -> Vec<Described> {
    let fields = schema.fields().iter().zip(binary);
    fields
        .map(|(field, binary)| {
            let kind = pg_type(field);
            Described { name: field.name().clone(), oid: kind.oid, size: kind.size, modifier: kind.modifier, binary: *binary }
        })
        .collect()
}
