//! How do rows go out? One stream a call, made by a task of its own, which the client's pace holds back, and which ends with its client.

use std::{pin::Pin, time::Duration};

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use datafusion::{error::DataFusionError, execution::SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weir_connectors::Blame;
use weir_engine::{Failure, run::explain};

use super::{
    encode::{Encoder, open},
    kept::Running,
    status,
};

/// Messages that wait for a client.
const WAITING_MAX: usize = 2;
/// A client that takes nothing for so long has its query cancelled: what the query holds is others' to have.
const STALLED: Duration = Duration::from_secs(300);

/// The messages of an answer.
pub type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Rows that are all there.
pub fn ready(rows: &RecordBatch) -> Result<Messages, Failure> {
    let mut encoder = Encoder::new(&rows.schema());
    let mut messages = vec![Ok(encoder.head())];
    messages.extend(encoder.encode(rows).map_err(|error| explain(&error.into()))?.into_iter().map(Ok));
    Ok(Box::pin(futures::stream::iter(messages)))
}

/// The rows of a query, as it makes them. Whoever drops the stream cancels the query.
pub fn running(rows: SendableRecordBatchStream, running: Running, cancel: CancellationToken) -> Messages {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        let pumped = tokio::select! {
            pumped = pump(rows, &sender, &cancel) => pumped,
            // The client has gone, and hears nothing more.
            () = sender.closed() => return drop(running),
        };
        drop(running);
        // An end that is not told must not look like the end of the rows.
        let _ = tokio::time::timeout(STALLED, sender.send(pumped)).await;
    });
    Box::pin(futures::stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Sent::Message(message)) => Some((Ok(message), Some(receiver))),
            Some(Sent::End) => None,
            Some(Sent::Failed(status)) => Some((Err(status), None)),
            None => Some((Err(status::of(&broken())), None)),
        }
    }))
}

enum Sent {
    Message(FlightData),
    End,
    Failed(Status),
}

async fn pump(mut rows: SendableRecordBatchStream, sender: &mpsc::Sender<Sent>, cancel: &CancellationToken) -> Sent {
    let mut encoder = Encoder::new(&open(&rows.schema()));
    if let Err(status) = send(sender, encoder.head()).await {
        return Sent::Failed(status);
    }
    loop {
        let batch = tokio::select! {
            batch = rows.next() => batch,
            () = cancel.cancelled() => return Sent::Failed(status::of(&Failure::Interrupted)),
        };
        let messages = match batch {
            None => return Sent::End,
            Some(Ok(batch)) => encoder.encode(&batch).map_err(DataFusionError::from),
            Some(Err(error)) => Err(error),
        };
        match messages {
            Err(error) => return Sent::Failed(status::of(&explain(&error))),
            Ok(messages) => {
                for message in messages {
                    let sent = tokio::select! {
                        sent = send(sender, message) => sent,
                        () = cancel.cancelled() => Err(status::of(&Failure::Interrupted)),
                    };
                    if let Err(status) = sent {
                        return Sent::Failed(status);
                    }
                }
            }
        }
    }
}

async fn send(sender: &mpsc::Sender<Sent>, message: FlightData) -> Result<(), Status> {
    match tokio::time::timeout(STALLED, sender.send(Sent::Message(message))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(status::of(&Failure::Interrupted)),
        Err(_) => Err(status::of(&Failure::error("cancelled", format!("nobody took the rows for {} s", STALLED.as_secs())))),
    }
}

fn broken() -> Failure {
    Failure::error("panic", "the query ended before its rows did").blame(Blame::Weir)
}

/// A stream of what is there already.
pub fn only<T: Send + 'static>(things: Vec<T>) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
    Box::pin(futures::stream::iter(things.into_iter().map(Ok)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::SchemaRef,
    };
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;
    use crate::server::flight::kept::Shelf;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter(vec![("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).expect("a batch")
    }

    fn answer(rows: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static) -> (Messages, CancellationToken) {
        let schema: SchemaRef = batch().schema();
        let cancel = CancellationToken::new();
        let mark = Arc::new(Shelf::default()).running("ann", None, cancel.clone()).expect("chance");
        (running(Box::pin(RecordBatchStreamAdapter::new(schema, rows)), mark, cancel.clone()), cancel)
    }

    #[tokio::test]
    async fn rows_come_behind_their_schema_and_end() {
        let (messages, cancel) = answer(futures::stream::iter([Ok(batch()), Ok(batch())]));
        let messages: Vec<_> = messages.collect().await;
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(Result::is_ok));
        assert!(cancel.is_cancelled(), "nothing of it goes on");
    }

    #[tokio::test]
    async fn a_query_that_panics_or_fails_does_not_look_like_its_end() {
        let (messages, _) = answer(futures::stream::iter([0, 1]).map(|at| if at == 0 { Ok(batch()) } else { panic!("on purpose") }));
        let messages: Vec<_> = messages.collect().await;
        assert_eq!(messages[2].as_ref().expect_err("an error").message(), "error[panic]: the query ended before its rows did");
        let (messages, _) = answer(futures::stream::iter([Err(DataFusionError::Execution("it breaks".into()))]));
        let messages: Vec<_> = messages.collect().await;
        assert!(messages[1].as_ref().expect_err("an error").message().contains("it breaks"));
    }

    #[tokio::test]
    async fn a_client_that_goes_cancels_and_one_that_waits_holds_back() {
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = made.clone();
        let endless = futures::stream::repeat(()).map(move |()| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(batch())
        });
        let (mut messages, cancel) = answer(endless);
        assert!(messages.next().await.expect("the schema").is_ok());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(made.load(std::sync::atomic::Ordering::Relaxed) <= WAITING_MAX + 2);
        drop(messages);
        tokio::time::timeout(Duration::from_secs(5), cancel.cancelled()).await.expect("cancelled");
    }

    #[tokio::test]
    async fn a_query_that_is_cancelled_says_so() {
        let (mut messages, cancel) = answer(futures::stream::pending());
        assert!(messages.next().await.expect("the schema").is_ok());
        cancel.cancel();
        let status = messages.next().await.expect("an error").expect_err("an error");
        assert_eq!((status.code(), status.message()), (tonic::Code::Cancelled, "error[cancelled]: the query was cancelled"));
        assert!(messages.next().await.is_none());
    }
}
