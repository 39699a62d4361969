//! What values does a client bind to a statement? One row of Arrow, read with distrust: its bytes are whatever the client sent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{MessageHeader, root_as_message},
};
use arrow_flight::{FlightData, utils::flight_data_to_arrow_batch};
use datafusion::common::ScalarValue;
use futures::{Stream, StreamExt};
use tonic::Status;
use weir_engine::Failure;

use super::{kept::Parameters, status};

/// Bytes of all values of a statement.
const BYTES_MAX: usize = 4 << 20;
/// Messages of a client that binds.
const MESSAGES_MAX: usize = 64;
/// A client has so long to send them.
const DEADLINE: Duration = Duration::from_secs(20);

/// Reads the values that follow the first message of a `DoPut`: none, or one row of them.
pub async fn read(first: FlightData, rest: impl Stream<Item = Result<FlightData, Status>> + Unpin) -> Result<Parameters, Status> {
    let messages = tokio::time::timeout(DEADLINE, collect(first, rest));
    let messages = messages.await.map_err(|_| wrong(&format!("the parameters did not come within {} s", DEADLINE.as_secs())))??;
    let bytes = messages.iter().map(|message| message.data_header.len() + message.data_body.len()).sum();
    // What panics over bytes that were made up ends this task alone.
    match tokio::task::spawn_blocking(move || decode(&messages)).await {
        Ok(values) => values.map(|values| Parameters { values, bytes }).map_err(|message| wrong(&message)),
        Err(_) => Err(wrong("the parameters cannot be read")),
    }
}

async fn collect(first: FlightData, mut rest: impl Stream<Item = Result<FlightData, Status>> + Unpin) -> Result<Vec<FlightData>, Status> {
    let mut bytes = first.data_header.len() + first.data_body.len();
    let mut messages = vec![first];
    while let Some(message) = rest.next().await {
        let message = message?;
        bytes += message.data_header.len() + message.data_body.len();
        if bytes > BYTES_MAX || messages.len() >= MESSAGES_MAX {
            return Err(wrong(&format!("the parameters are more than {BYTES_MAX} bytes or {MESSAGES_MAX} messages")));
        }
        messages.push(message);
    }
    Ok(messages)
}

fn decode(messages: &[FlightData]) -> Result<Vec<ScalarValue>, String> {
    let unreadable = |error: ArrowError| format!("the parameters cannot be read: {error}");
    let mut schema: Option<SchemaRef> = None;
    let mut row = None;
    for message in messages.iter().filter(|message| !message.data_header.is_empty()) {
        let header = root_as_message(&message.data_header).map_err(|error| format!("the parameters cannot be read: {error}"))?;
        match header.header_type() {
            MessageHeader::Schema => schema = Some(Arc::new(Schema::try_from(message).map_err(unreadable)?)),
            MessageHeader::RecordBatch => {
                let (Some(schema), Some(batch)) = (&schema, header.header_as_record_batch()) else {
                    return Err("the parameters come without their schema".to_owned());
                };
                // Whoever packs a value says how large it is, and that much would be set aside before it turns out not to be.
                if batch.compression().is_some() {
                    return Err("compressed parameters are not taken".to_owned());
                }
                match batch.length() {
                    0 => continue,
                    1 if row.is_none() => {}
                    _ => return Err("parameters are one row of values: execute the statement once for each row".to_owned()),
                }
                row = Some(flight_data_to_arrow_batch(message, schema.clone(), &HashMap::new()).map_err(unreadable)?);
            }
            MessageHeader::DictionaryBatch => return Err("parameters in a dictionary are not taken: send them as they are".to_owned()),
            _ => return Err("the parameters cannot be read: there is a message that is neither a schema nor rows".to_owned()),
        }
    }
    row.map_or_else(|| Ok(Vec::new()), |row: RecordBatch| values(&row))
}

fn values(row: &RecordBatch) -> Result<Vec<ScalarValue>, String> {
    let value = |(at, column): (usize, &ArrayRef)| {
        ScalarValue::try_from_array(column, 0).map_err(|error| format!("parameter ${} cannot be read: {}", at + 1, error.message()))
    };
    row.columns().iter().enumerate().map(value).collect()
}

fn wrong(message: &str) -> Status {
    status::of(&Failure::error("bad-parameters", message))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        ipc::{CompressionType, MetadataVersion, writer::IpcWriteOptions},
    };
    use arrow_flight::{SchemaAsIpc, utils::batches_to_flight_data};
    use tonic::Code;

    use super::*;

    fn rows(texts: Vec<Option<&str>>) -> RecordBatch {
        let numbers: Vec<i64> = (0..texts.len() as i64).collect();
        RecordBatch::try_from_iter(vec![
            ("0", Arc::new(Int64Array::from(numbers)) as ArrayRef),
            ("1", Arc::new(StringArray::from(texts)) as ArrayRef),
        ])
        .expect("columns of one length")
    }

    fn messages(batch: &RecordBatch) -> Vec<FlightData> {
        batches_to_flight_data(&batch.schema(), vec![batch.clone()]).expect("encodes")
    }

    async fn bound(messages: Vec<FlightData>) -> Result<Vec<ScalarValue>, Status> {
        let mut messages = messages.into_iter();
        let first = messages.next().unwrap_or_default();
        read(first, futures::stream::iter(messages.map(Ok))).await.map(|parameters| parameters.values)
    }

    #[tokio::test]
    async fn a_row_is_its_values() {
        let values = bound(messages(&rows(vec![Some("a")]))).await.expect("one row");
        assert_eq!(values, [ScalarValue::Int64(Some(0)), ScalarValue::Utf8(Some("a".into()))]);
        let values = bound(messages(&rows(vec![None]))).await.expect("one row");
        assert_eq!(values[1], ScalarValue::Utf8(None));
        assert_eq!(bound(messages(&rows(vec![]))).await.expect("no row"), []);
        assert_eq!(bound(vec![FlightData::default()]).await.expect("nothing"), []);
    }

    #[tokio::test]
    async fn more_rows_are_refused() {
        let refused = bound(messages(&rows(vec![None, None]))).await.expect_err("two rows");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), "error[bad-parameters]: parameters are one row of values: execute the statement once for each row");
    }

    #[tokio::test]
    async fn bytes_that_were_made_up_are_refused_whatever_they_say() {
        let sound = messages(&rows(vec![Some("some text")]));
        let mut refused = 0;
        for at in 0..sound.len() {
            for byte in 0..sound[at].data_header.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut changed = sound.clone();
                    let mut header = changed[at].data_header.to_vec();
                    header[byte] ^= flip;
                    changed[at].data_header = header.into();
                    match bound(changed).await {
                        Ok(values) => assert!(values.len() <= 2),
                        Err(error) => {
                            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        assert!(refused > 100, "{refused}");
        let cut: Vec<FlightData> = sound.iter().cloned().map(|message| FlightData { data_body: Default::default(), ..message }).collect();
        assert_eq!(bound(cut).await.expect_err("no body").code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn what_unpacks_to_more_than_it_is_and_what_is_too_much_is_refused() {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).expect("options");
        let options = options.try_with_compression(Some(CompressionType::ZSTD)).expect("options");
        let batch = rows(vec![Some(&"a".repeat(10_000))]);
        let mut encoder = arrow_flight::encode::FlightDataEncoderBuilder::new()
            .with_options(options.clone())
            .build(futures::stream::iter([Ok(batch.clone())]));
        let mut packed = vec![FlightData::from(SchemaAsIpc::new(&batch.schema(), &options))];
        while let Some(message) = encoder.next().await {
            packed.push(message.expect("encodes"));
        }
        let refused = bound(packed).await.expect_err("compressed");
        assert_eq!(refused.message(), "error[bad-parameters]: compressed parameters are not taken");
        let large = messages(&rows(vec![Some(&"a".repeat(BYTES_MAX))]));
        assert!(bound(large).await.expect_err("too much").message().contains("more than 4194304 bytes or 64 messages"));
    }
}
