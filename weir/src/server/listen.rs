//! Connections to the HTTP port, and what they may cost: so many at once, and so long for a request.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Connections at once. Others wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may lie idle between requests.
const IDLE: Duration = Duration::from_secs(75);
/// From a request's first byte to its answer's: what reading may take, and what answering may.
const REQUEST: Duration = Duration::from_secs(20);
/// After a failed accept, as when there are no more files: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A listener whose connections end when they take too long.
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle: Duration,
    request: Duration,
}

impl Bounded {
    /// Wraps a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), idle: IDLE, request: REQUEST }
    }
}

impl Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // An answer is one write or two; what fails here costs a delay only.
                    let _ = stream.set_nodelay(true);
                    let timer = Box::pin(tokio::time::sleep(self.idle));
                    let timed = Timed { stream, timer, asked: false, idle: self.idle, request: self.request, _place: place };
                    return (timed, address);
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

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself: where it lies idle, where a request comes too slowly, where nobody takes its answer.
#[derive(Debug)]
pub struct Timed {
    stream: TcpStream,
    timer: Pin<Box<Sleep>>,
    /// A request has begun and is not answered yet.
    asked: bool,
    idle: Duration,
    request: Duration,
    _place: OwnedSemaphorePermit,
}

impl Timed {
    fn allow(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }

    /// What waits waits no longer than the timer.
    fn within<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.asked = false;
            let idle = self.idle;
            self.allow(idle);
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && !self.asked {
            self.asked = true;
            let request = self.request;
            self.allow(request);
        }
        self.within(cx, polled)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&polled);
        self.within(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(&polled);
        self.within(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.within(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(idle_ms: u64, request_ms: u64) -> (Timed, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut bounded = Bounded::new(listener);
        (bounded.idle, bounded.request) = (Duration::from_millis(idle_ms), Duration::from_millis(request_ms));
        let (client, (server, _)) = tokio::join!(TcpStream::connect(address), bounded.accept());
        (server, client.expect("connects"))
    }

    #[tokio::test]
    async fn a_request_that_drips_is_cut_off_however_it_drips() {
        let (mut server, mut client) = pair(60_000, 150).await;
        let drip = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut read = Vec::new();
        let error = server.read_to_end(&mut read).await.expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!read.is_empty());
        drop(server);
        drip.await.expect("the client is told");
    }

    #[tokio::test]
    async fn an_answer_gives_the_next_request_its_time() {
        let (mut server, mut client) = pair(60_000, 300).await;
        for _ in 0..4 {
            client.write_all(b"a").await.expect("written");
            assert_eq!(server.read_u8().await.expect("read"), b'a');
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.write_all(b"b").await.expect("answered");
        }
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_ends() {
        let (mut server, client) = pair(50, 60_000).await;
        assert_eq!(server.read_u8().await.expect_err("ended").kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
