//! Who may connect to the Flight port, and for how long without showing a token? Connections, with or without TLS, as gRPC's server takes them.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::server::tls::Tls;

/// Connections at once. Others wait in the system's queue.
const CONNECTIONS_MAX: usize = 256;
/// From the connect to a call with a token that is right: TLS included.
const STRANGER: Duration = Duration::from_secs(10);
/// After a failed accept, as when there are no more files: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Whether somebody with a token has been heard on a connection. Every request carries it.
#[derive(Debug, Clone, Default)]
pub struct Peer(Arc<AtomicBool>);

impl Peer {
    /// Notes that a token was right.
    pub fn is_known(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that ends where no token is shown on it in time.
pub struct Conn {
    stream: Box<dyn Io>,
    peer: Peer,
    /// None once the peer is known.
    timer: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// The connections of a listener, for as long as `stop` is not cancelled.
pub fn incoming(listener: TcpListener, tls: Option<Arc<Tls>>, stop: CancellationToken) -> impl Stream<Item = io::Result<Conn>> {
    let (sender, receiver) = mpsc::channel(16);
    let tls = tls.map(|tls| tls.acceptor(&[b"h2"]));
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = accept(listener, tls, sender) => {}
        }
    });
    futures::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|conn| (Ok(conn), receiver)))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, sender: mpsc::Sender<Conn>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A message is one write or two; what fails here costs a delay only.
                let _ = stream.set_nodelay(true);
                // A handshake that hangs holds up nobody else.
                tokio::spawn(greet(stream, tls.clone(), place, sender.clone()));
            }
            Err(error) => {
                let is_peer = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted);
                if !is_peer {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>, place: OwnedSemaphorePermit, sender: mpsc::Sender<Conn>) {
    let timer = Box::pin(tokio::time::sleep(STRANGER));
    let stream: Box<dyn Io> = match tls {
        None => Box::new(stream),
        Some(tls) => match tokio::time::timeout(STRANGER, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return,
        },
    };
    let conn = Conn { stream, peer: Peer::default(), timer: Some(timer), _place: place };
    // The server has ended where nobody takes it.
    let _ = sender.send(conn).await;
}

impl Conn {
    /// An error once the time to show a token is over.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.peer.known() {
            self.timer = None;
        }
        let timer = self.timer.as_mut()?;
        timer.as_mut().poll(cx).is_ready().then(|| io::ErrorKind::TimedOut.into())
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.overdue(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(time: Duration) -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a place");
        let stream = Box::new(accepted.expect("accepted").0);
        let timer = Some(Box::pin(tokio::time::sleep(time)));
        (Conn { stream, peer: Peer::default(), timer, _place: place }, client.expect("connects"))
    }

    #[tokio::test]
    async fn a_stranger_is_shown_out_whatever_he_sends() {
        let (mut server, mut client) = pair(Duration::from_millis(150)).await;
        let drip = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let error = server.read_to_end(&mut Vec::new()).await.expect_err("shown out");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(server);
        drip.await.expect("the client is told");
    }

    #[tokio::test]
    async fn who_has_shown_a_token_may_stay() {
        let (mut server, mut client) = pair(Duration::from_millis(50)).await;
        server.connect_info().is_known();
        tokio::time::sleep(Duration::from_millis(120)).await;
        client.write_all(b"x").await.expect("written");
        assert_eq!(server.read_u8().await.expect("read"), b'x');
    }
}
