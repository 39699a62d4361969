//! Connections to the HTTP port, and what they may cost: so many at once, so long to greet with TLS, and so long for a request.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

/// Connections at once. Others wait in the system's queue.
const CONNECTIONS_MAX: usize = 256;
/// What a client has to greet with TLS.
const GREETING: Duration = Duration::from_secs(10);
/// How long a connection may lie idle between requests.
const IDLE: Duration = Duration::from_secs(75);
/// From a request's first byte to its answer's: what reading may take, and what answering may.
const REQUEST: Duration = Duration::from_secs(20);
/// After a failed accept, as when there are no more files: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A listener whose connections end when they take too long.
pub struct Bounded {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    greeting: Duration,
    idle: Duration,
    request: Duration,
}

impl std::fmt::Debug for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Bounded {
    /// Wraps a listener, whose clients are greeted with TLS where there is an acceptor.
    pub fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { listener, tls, places, greeting: GREETING, idle: IDLE, request: REQUEST }
    }
}

/// Lets a request wait for longer than others: the connection does not end while it is held.
#[derive(Debug, Clone, Default)]
pub struct Patience(Arc<AtomicUsize>);

impl Patience {
    /// Holds the connection's time until the guard is dropped. Whoever holds it has a bound of its own.
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.0.clone())
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Patience {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().patience.clone()
    }
}

/// Holds a connection's time.
#[derive(Debug)]
pub struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
                    // A client is greeted when its connection is first read, on a task of its own: nobody waits for it.
                    let (stream, first) = match &self.tls {
                        None => (Stream::Plain(stream), self.idle),
                        Some(tls) => (Stream::Greeting(Box::new(tls.accept(stream))), self.greeting),
                    };
                    let timer = Box::pin(tokio::time::sleep(first));
                    let (idle, request) = (self.idle, self.request);
                    let timed = Timed { stream, timer, asked: false, idle, request, patience: Patience::default(), _place: place };
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

/// What bytes come and go by.
enum Stream {
    Plain(TcpStream),
    /// The client is not greeted yet.
    Greeting(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that ends by itself: where it is not greeted in time, where it lies idle, where a request comes too slowly, where nobody takes its
/// answer.
pub struct Timed {
    stream: Stream,
    timer: Pin<Box<Sleep>>,
    /// A request has begun and is not answered yet.
    asked: bool,
    idle: Duration,
    request: Duration,
    patience: Patience,
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timed").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Timed {
    fn allow(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }

    /// What waits waits no longer than the timer, unless somebody holds it.
    fn within<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        ready!(self.timer.as_mut().poll(cx));
        while self.patience.0.load(Ordering::Relaxed) > 0 {
            let request = self.request;
            self.allow(request);
            ready!(self.timer.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.asked = false;
            let idle = self.idle;
            self.allow(idle);
        }
    }

    /// Greets the client where that is due, and does what is meant with the stream.
    fn with<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut dyn Io>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Stream::Greeting(greeting) = &mut self.stream {
            let stream =
                ready!(Pin::new(greeting.as_mut()).poll(cx)).inspect_err(|error| tracing::debug!(%error, "a client is not greeted"))?;
            self.stream = Stream::Tls(Box::new(stream));
            let idle = self.idle;
            self.allow(idle);
        }
        match &mut self.stream {
            Stream::Plain(stream) => act(Pin::new(stream), cx),
            Stream::Tls(stream) => act(Pin::new(stream.as_mut()), cx),
            Stream::Greeting(_) => Poll::Pending,
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.with(cx, |stream, cx| stream.poll_read(cx, buffer));
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
        let polled = self.with(cx, |stream, cx| stream.poll_write(cx, bytes));
        self.wrote(&polled);
        self.within(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = self.with(cx, |stream, cx| stream.poll_write_vectored(cx, parts));
        self.wrote(&polled);
        self.within(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        // TLS copies what it encrypts; it gathers what it is given.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.with(cx, |stream, cx| stream.poll_flush(cx));
        self.within(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.with(cx, |stream, cx| stream.poll_shutdown(cx));
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
        let mut bounded = Bounded::new(listener, None);
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
    async fn a_request_that_is_held_waits_for_as_long_as_that() {
        let (mut server, mut client) = pair(60_000, 50).await;
        client.write_all(b"a").await.expect("written");
        assert_eq!(server.read_u8().await.expect("read"), b'a');
        let held = server.patience.hold();
        let waits = tokio::spawn(async move { server.read_u8().await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waits.is_finished());
        drop(held);
        assert_eq!(waits.await.expect("it ends").expect_err("ended").kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_does_not_greet_is_let_go() {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let own = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("known");
        let config = config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], own).expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut bounded = Bounded::new(listener, Some(TlsAcceptor::from(Arc::new(config))));
        bounded.greeting = Duration::from_millis(100);
        // One says nothing, and the next one is accepted meanwhile; it says what is no TLS.
        let (silent, (mut first, _)) = tokio::join!(TcpStream::connect(address), bounded.accept());
        let (loud, (mut second, _)) = tokio::join!(TcpStream::connect(address), bounded.accept());
        let mut loud = loud.expect("connects");
        loud.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        assert_eq!(second.read_u8().await.expect_err("no TLS").kind(), io::ErrorKind::InvalidData);
        assert_eq!(first.read_u8().await.expect_err("let go").kind(), io::ErrorKind::TimedOut);
        drop(silent);
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_ends() {
        let (mut server, client) = pair(50, 60_000).await;
        assert_eq!(server.read_u8().await.expect_err("ended").kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
