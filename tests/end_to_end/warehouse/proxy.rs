//! A wire between weir and a server that can be cut: passes bytes on, and asks before each piece on its way to the server what to do.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
};

/// What becomes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The connection ends here: the piece never arrives, and neither does an answer.
    Cut,
}

/// A piece on its way to the server.
pub struct Piece<'a> {
    /// Bytes that its connection sent before.
    pub before: usize,
    pub bytes: &'a [u8],
}

/// Listens until the test's process ends.
pub struct Proxy {
    place: String,
}

impl Proxy {
    /// Before `to`, such as `127.0.0.1:5432`.
    pub fn before(to: &str, judge: impl Fn(&Piece) -> Verdict + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (to, judge) = (to.to_owned(), Arc::new(judge));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, judge) = (to.clone(), judge.clone());
                std::thread::spawn(move || {
                    // A server that is away looks like one: the connection is closed at once.
                    let Ok(server) = TcpStream::connect(to) else { return };
                    let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    let back = std::thread::spawn(move || copy(from_server, to_client, |_| Verdict::Pass));
                    copy(client, server, |piece| judge(piece));
                    let _ = back.join();
                });
            }
        });
        Self { place }
    }

    /// Host and port.
    pub fn place(&self) -> &str {
        &self.place
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, judge: impl Fn(&Piece) -> Verdict) {
    let (mut buffer, mut before) = (vec![0; 64 << 10], 0);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        if judge(&Piece { before, bytes }) == Verdict::Cut || to.write_all(bytes).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        before += length;
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// True where the piece says this, letter case aside.
pub fn says(piece: &Piece, words: &str) -> bool {
    let (bytes, words) = (piece.bytes.to_ascii_lowercase(), words.to_ascii_lowercase());
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}
