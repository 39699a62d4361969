//! How do rows become messages of Flight? In Arrow types that every client reads, and in pieces that every client takes.

use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions},
};
use arrow_flight::{FlightData, SchemaAsIpc};
use weir_engine::query::weight;

/// Bytes that a message is meant to have.
const PIECE: usize = 1 << 20;
/// Bytes that it may have where its rows can be told apart: gRPC's clients take 4 MB unless they are told otherwise.
const PIECE_MAX: usize = 3 << 20;

/// Encodes batches of one schema.
pub struct Encoder {
    schema: SchemaRef,
    options: IpcWriteOptions,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// An encoder of rows that have this schema, before [`plain`].
    pub fn new(schema: &Schema) -> Self {
        Self {
            schema: plain(schema),
            options: IpcWriteOptions::default(),
            tracker: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        }
    }

    /// The message before all others: the schema.
    pub fn head(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    /// The messages of a batch. A row is never in two of them, so that one that is larger than [`PIECE_MAX`] is sent as it is.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<FlightData>, ArrowError> {
        let mut messages = Vec::new();
        self.pieces(batch, &mut messages)?;
        Ok(messages)
    }

    fn pieces(&mut self, batch: &RecordBatch, messages: &mut Vec<FlightData>) -> Result<(), ArrowError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if rows == 1 || weight::of_batch(batch) <= PIECE {
            let piece = self.convert(batch)?;
            let (dictionaries, encoded) =
                IpcDataGenerator::default().encode(&piece, &mut self.tracker, &self.options, &mut self.context)?;
            let encoded = FlightData::from(encoded);
            if rows == 1 || encoded.data_body.len() <= PIECE_MAX {
                messages.extend(dictionaries.into_iter().map(FlightData::from));
                messages.push(encoded);
                return Ok(());
            }
        }
        let half = rows / 2;
        self.pieces(&batch.slice(0, half), messages)?;
        self.pieces(&batch.slice(half, rows - half), messages)
    }

    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        // A value that does not go into its plain type is an error, not a null.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                cast_with_options(column, field.data_type(), &options)
            }
        });
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns.collect::<Result<_, _>>()?, &rows)
    }
}

/// The same of a query's rows. What a plan says of nulls is not always what its stream says, and clients compare the two: any column may have them.
pub fn open(schema: &Schema) -> SchemaRef {
    let plain = plain(schema);
    let fields = plain
        .fields()
        .iter()
        .map(|field| if field.is_nullable() { field.clone() } else { Arc::new(Field::clone(field).with_nullable(true)) });
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// A schema as it is sent: without views, dictionaries and run ends, which many readers of Arrow do not have, and which hold together what
/// would not be sent together. Names, nullability and metadata stay.
pub fn plain(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(plain_fields(schema.fields()), schema.metadata().clone()))
}

fn plain_fields(fields: &Fields) -> Fields {
    fields.iter().map(plain_field).collect()
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let kind = plain_type(field.data_type());
    if kind == *field.data_type() { field.clone() } else { Arc::new(Field::clone(field).with_data_type(kind)) }
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(plain_fields(fields)),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
