//! Looking through a system outside: which tables it has, and each of them as a table that may be read any number of times, by whoever
//! asks at the moment. What a pipeline reads is a source's; what of a query is sent there is `remote`'s.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{catalog::TableProvider, error::Result as DataFusionResult, logical_expr::LogicalPlan};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    context::RunContext,
    error::{Error, Result},
};

/// Queries of one connection at once, for all who ask: the database is there for others too.
const PLACES: usize = 4;
/// Longest wait for a place.
const PLACE_WAIT: Duration = Duration::from_secs(60);
/// Longest time to connect and look: who asks waits for the answer.
const LOOK_MAX: Duration = Duration::from_secs(15);

/// A system whose tables can be listed and read.
#[async_trait]
pub trait Browse: Debug + Send + Sync {
    /// Every table that whoever connects may read, by schema and name; none of the system's own. Fails where the system cannot be reached.
    async fn tables(&self) -> Result<Vec<Listed>>;
    /// A table; none where there is no such table. Each scan of it asks anew. Columns without a type in Arrow are left out.
    async fn table(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>>;
}

/// A table that a system has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its schema; in ClickHouse, its database.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What it is.
    pub kind: ListedKind,
}

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedKind {
    /// Rows that are kept, here or elsewhere.
    Table,
    /// A query with a name, whether its rows are kept or not.
    View,
}

/// One entry of [`crate::BROWSED`].
#[derive(Debug, Clone, Copy)]
pub struct BrowseKind {
    /// The kind of connection.
    pub kind: &'static str,
    /// The connection of this name. Asks nobody.
    pub open: fn(&str, &Arc<RunContext>) -> Result<Arc<dyn Browse>>,
    /// The same plan with what its system can answer at once made one table; none where nothing can.
    pub(crate) push: fn(&LogicalPlan) -> DataFusionResult<Option<LogicalPlan>>,
}

/// How long a query may take, as an extension of the session's configuration: the systems that it reads are told.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit(pub Duration);

/// The places of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }

    /// Waits for a place.
    pub(crate) async fn place(&self, connection: &str) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout(PLACE_WAIT, Arc::clone(&self.0).acquire_owned()).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => {
                let message = format!("{PLACES} queries of connection \"{connection}\" are under way, and none ended for a minute");
                Err(Error::system("connection-busy", message).later().help("ask again when they have ended"))
            }
        }
    }
}

/// The same without trying again: a person who waits for an answer would rather know.
pub(crate) fn impatient(cx: &RunContext) -> RunContext {
    let cancel = CancellationToken::new();
    cancel.cancel();
    RunContext { cancel, ..cx.clone() }
}

/// Looks, within the time that a person waits.
pub(crate) async fn look<T>(connection: &str, looking: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(LOOK_MAX, looking).await {
        Ok(seen) => seen,
        Err(_) => {
            let message = format!("connection \"{connection}\" gives no answer within {} s", LOOK_MAX.as_secs());
            Err(Error::system("connect-timeout", message).later().help("is the server up, and nothing in the way?"))
        }
    }
}
