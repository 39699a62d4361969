//! The Arrow Flight SQL door: columns as they are, over gRPC. Who may connect and who calls (`conn.rs`, `auth.rs`, `guard.rs`), what is answered
//! (`service.rs`, `answer.rs`), and what is kept between two calls (`kept.rs`). What a query may do is the engine's session's to say.

mod actions;
mod answer;
mod auth;
mod bind;
mod conn;
mod encode;
mod guard;
mod info;
mod kept;
mod listing;
mod service;
mod status;

use std::{sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use weir_engine::query::Catalogue;

use super::{tls::Tls, users::Users};
use guard::Guard;
use service::Door;

/// Bytes of a request: a query, or the values of a statement.
const REQUEST_MAX: usize = 4 << 20;
/// Bytes of a request's headers.
const HEADERS_MAX: u32 = 16 << 10;
/// Calls at once on a connection: each may hold a request in memory.
const CALLS_MAX: u32 = 16;
/// A connection that is silent is asked this often whether anybody is there.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// The answer to that is waited for this long.
const ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// When the server ends, queries under way have this long.
const LAST_ROWS: Duration = Duration::from_secs(3);
/// How often what is too old is dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Serves Flight SQL on a listener until `stop` is cancelled; with TLS where there is any. Queries under way have three seconds then, and are
/// cancelled. The task ends when the last connection has.
pub fn start(
    listener: TcpListener,
    catalogue: Arc<Catalogue>,
    users: Arc<Users>,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let door = Door::new(catalogue);
    let (shelf, ending) = (door.shelf.clone(), door.ending.clone());
    let service = FlightServiceServer::new(door).max_decoding_message_size(REQUEST_MAX).max_encoding_message_size(usize::MAX);
    let server = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(ALIVE_EVERY))
        .http2_keepalive_timeout(Some(ALIVE_WITHIN))
        .add_service(Guard::new(service, users));
    let stopped = stop.clone();
    let sweeping = async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            shelf.sweep();
        }
    };
    let last_rows = async move {
        stopped.cancelled().await;
        tokio::time::sleep(LAST_ROWS).await;
        ending.cancel();
        std::future::pending::<()>().await;
    };
    tokio::spawn(async move {
        let connections = conn::incoming(listener, tls, stop.clone());
        tokio::select! {
            served = server.serve_with_incoming_shutdown(connections, stop.cancelled_owned()) => {
                if let Err(error) = served {
                    tracing::error!(%error, "the Flight port is closed");
                }
            }
            () = sweeping => {}
            () = last_rows => {}
        }
    })
}
