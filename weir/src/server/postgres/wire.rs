//! What bytes come in and go out? Frames of the Postgres protocol (version 3) with a bound each, the client's messages, and a buffer of the
//! server's that is written out while it fills. <https://www.postgresql.org/docs/18/protocol-message-formats.html>
//!
//! Frames are cut before they are read, so that a message can never be read past its end; a number of things in it is believed only as far
//! as there are bytes for them.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message of a client that has shown who it is, in bytes.
pub const MESSAGE_MAX: usize = 16 << 20;
/// The longest before that.
pub const GREETING_MAX: usize = 10_000;
/// What is to be sent is written out once there is so much of it, in bytes.
const WRITE_AT: usize = 64 << 10;
/// A client that takes nothing of what is written for so long is gone.
const STALLED: Duration = Duration::from_secs(300);

/// What goes wrong with a client's bytes.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke, or the client has left.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are none of the protocol's.
    #[error("{0}")]
    Protocol(String),
}

/// Results of reading.
pub type Result<T> = std::result::Result<T, WireError>;

fn broken<T>(what: impl Into<String>) -> Result<T> {
    Err(WireError::Protocol(what.into()))
}

/// What `Describe` and `Close` concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal, which a cursor is too.
    Portal,
}

/// A message of the client's, once the connection is open.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// Statements, to be answered at once.
    Query(String),
    /// Prepares a statement; types are object ids, 0 where the server is to find out.
    Parse { name: String, sql: String, types: Vec<u32> },
    /// Gives a prepared statement its values.
    Bind { portal: String, statement: String, formats: Vec<i16>, values: Vec<Option<Bytes>>, results: Vec<i16> },
    /// Asks for types.
    Describe { target: Target, name: String },
    /// Asks for rows; 0 is all.
    Execute { portal: String, rows: u32 },
    /// Forgets a statement or a portal.
    Close { target: Target, name: String },
    /// Asks for what is ready.
    Flush,
    /// Ends a group of messages.
    Sync,
    /// A password, or a part of a SASL exchange.
    Password(Bytes),
    /// Data for a COPY that was never begun, or its end. Dropped, as Postgres does.
    Copy,
    /// Leaves.
    Terminate,
}

/// Reads one frame: its type and its body. A length is believed only up to `max`.
pub async fn frame<R: AsyncRead + Unpin>(reader: &mut R, max: usize) -> Result<(u8, Bytes)> {
    let kind = reader.read_u8().await?;
    let body = sized(reader, max).await?;
    Ok((kind, body))
}

/// Reads a body behind its length, as a client's first messages are.
pub async fn sized<R: AsyncRead + Unpin>(reader: &mut R, max: usize) -> Result<Bytes> {
    let length = reader.read_u32().await? as usize;
    if length < 4 || length - 4 > max {
        return broken(format!("a message of {length} bytes: between 4 and {} are read", max + 4));
    }
    let mut rest = length - 4;
    let mut body = BytesMut::with_capacity(rest.min(8 << 10));
    while rest > 0 {
        // Memory follows the bytes that came, not the length that was claimed.
        let read = (&mut *reader).take(rest as u64).read_buf(&mut body).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        rest -= read;
    }
    Ok(body.freeze())
}

impl Message {
    /// Reads a frame's body.
    pub fn read(kind: u8, body: Bytes) -> Result<Self> {
        let mut body = Body(body);
        let message = match kind {
            b'Q' => Message::Query(body.string()?),
            b'P' => {
                let (name, sql) = (body.string()?, body.string()?);
                let types = body.count(4)?;
                Message::Parse { name, sql, types: (0..types).map(|_| body.u32()).collect::<Result<_>>()? }
            }
            b'B' => {
                let (portal, statement) = (body.string()?, body.string()?);
                let formats = body.count(2)?;
                let formats = (0..formats).map(|_| body.i16()).collect::<Result<Vec<_>>>()?;
                let values = body.count(4)?;
                let values = (0..values).map(|_| body.value()).collect::<Result<Vec<_>>>()?;
                let results = body.count(2)?;
                let results = (0..results).map(|_| body.i16()).collect::<Result<Vec<_>>>()?;
                Message::Bind { portal, statement, formats, values, results }
            }
            b'D' => Message::Describe { target: body.target()?, name: body.string()? },
            b'C' => Message::Close { target: body.target()?, name: body.string()? },
            // A negative number of rows is all of them, as in Postgres.
            b'E' => Message::Execute { portal: body.string()?, rows: body.u32()?.try_into().map_or(0, |rows: i32| rows as u32) },
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'p' => return Ok(Message::Password(body.0)),
            b'd' | b'c' | b'f' => return Ok(Message::Copy),
            b'F' => return broken("calls of functions by their number are not answered here"),
            other => return broken(format!("a message of type {other} is not known")),
        };
        if body.0.has_remaining() && kind != b'X' {
            return broken(format!("{} bytes too many in a message of type \"{}\"", body.0.remaining(), char::from(kind)));
        }
        Ok(message)
    }
}

/// What is left of a message.
pub struct Body(pub Bytes);

impl Body {
    /// A text that ends with a zero byte.
    pub fn string(&mut self) -> Result<String> {
        let Some(end) = self.0.iter().position(|byte| *byte == 0) else { return broken("a text that does not end") };
        let text = self.0.split_to(end);
        self.0.advance(1);
        match String::from_utf8(text.to_vec()) {
            Ok(text) => Ok(text),
            Err(_) => broken("a text that is not UTF-8"),
        }
    }

    /// An unsigned number of four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().or_else(|_| broken("a message that breaks off"))
    }

    fn i16(&mut self) -> Result<i16> {
        self.0.try_get_i16().or_else(|_| broken("a message that breaks off"))
    }

    /// How many things of at least so many bytes follow.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.0.try_get_u16().map(usize::from).or_else(|_| broken("a message that breaks off"))?;
        if count * least > self.0.remaining() {
            return broken(format!("{count} things announced, {} bytes follow", self.0.remaining()));
        }
        Ok(count)
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length if length as usize <= self.0.remaining() => Ok(Some(self.0.split_to(length as usize))),
            _ => broken("a value that breaks off"),
        }
    }

    fn target(&mut self) -> Result<Target> {
        match self.0.try_get_u8() {
            Ok(b'S') => Ok(Target::Statement),
            Ok(b'P') => Ok(Target::Portal),
            _ => broken("neither a statement nor a portal is meant"),
        }
    }
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// The object id of its type.
    pub oid: u32,
    /// Bytes of a value; -1 where they vary.
    pub size: i16,
    /// The type's modifier; -1 where there is none.
    pub modifier: i32,
    /// Whether it comes in binary.
    pub binary: bool,
}

/// What is to be sent, and where to. Writing waits for the client: nothing gathers that it does not take.
pub struct Out<W> {
    writer: W,
    /// Not written yet.
    pub buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Out<W> {
    /// An empty buffer before a writer.
    pub fn new(writer: W) -> Self {
        Self { writer, buffer: BytesMut::with_capacity(8 << 10) }
    }

    /// Adds a message.
    pub fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buffer.put_u8(kind);
        let at = self.buffer.len();
        self.buffer.put_u32(0);
        body(&mut self.buffer);
        end(&mut self.buffer, at);
    }

    /// Adds a message of nothing but its type.
    pub fn bare(&mut self, kind: u8) {
        self.message(kind, |_| {});
    }

    /// Tells a parameter's value.
    pub fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            text(body, name);
            text(body, value);
        });
    }

    /// Tells that a command is done.
    pub fn complete(&mut self, tag: &str) {
        self.message(b'C', |body| text(body, tag));
    }

    /// Describes the columns of what follows.
    pub fn row_description(&mut self, columns: &[Described]) {
        self.message(b'T', |body| {
            body.put_u16(columns.len() as u16);
            for column in columns {
                text(body, &column.name);
                body.put_u32(0);
                body.put_i16(0);
                body.put_u32(column.oid);
                body.put_i16(column.size);
                body.put_i32(column.modifier);
                body.put_i16(i16::from(column.binary));
            }
        });
    }

    /// True where enough has gathered to be written.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= WRITE_AT
    }

    /// Writes everything. Dropping the future loses nothing: what is not written stays in the buffer.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            match tokio::time::timeout(STALLED, self.writer.write_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        tokio::time::timeout(STALLED, self.writer.flush()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says good-bye to the stream below, so that what was written arrives.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.writer.shutdown()).await;
    }
}

/// Writes the length of what begins at `at`, where four bytes were kept for it.
pub fn end(buffer: &mut BytesMut, at: usize) {
    let length = (buffer.len() - at) as u32;
    buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A text and the zero byte that ends it. One within is left out: it would end the text early.
pub fn text(buffer: &mut BytesMut, value: &str) {
    buffer.extend(value.bytes().filter(|byte| *byte != 0));
    buffer.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_length_is_not_believed() {
        let mut bytes: &[u8] = b"Q\xff\xff\xff\xffselect";
        assert!(matches!(frame(&mut bytes, MESSAGE_MAX).await, Err(WireError::Protocol(_))));
        let mut bytes: &[u8] = b"Q\x00\x00\x00\x03";
        assert!(matches!(frame(&mut bytes, MESSAGE_MAX).await, Err(WireError::Protocol(_))));
        let mut bytes: &[u8] = b"Q\x00\x00\x10\x00select";
        assert!(matches!(frame(&mut bytes, MESSAGE_MAX).await, Err(WireError::Io(_))));
    }

    #[tokio::test]
    async fn a_message_is_read_to_its_end_and_no_further() {
        let mut bytes: &[u8] = b"Q\x00\x00\x00\x0dselect 1\x00rest";
        let (kind, body) = frame(&mut bytes, MESSAGE_MAX).await.expect("a frame");
        assert_eq!(Message::read(kind, body).expect("a message"), Message::Query("select 1".into()));
        assert_eq!(bytes, b"rest");
    }

    #[test]
    fn no_bytes_panic_and_what_breaks_off_is_refused() {
        let whole: &[(u8, &[u8])] = &[
            (b'P', b"a\0select 1\0\x00\x02\x00\x00\x00\x17\x00\x00\x00\x19"),
            (b'B', b"p\0s\0\x00\x01\x00\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00\x02ab\x00\x01\x00\x01"),
            (b'D', b"Sname\0"),
            (b'E', b"p\0\x00\x00\x00\x05"),
            (b'C', b"Pname\0"),
            (b'Q', b"select\0"),
        ];
        for (kind, bytes) in whole {
            Message::read(*kind, Bytes::copy_from_slice(bytes)).expect("a whole message");
            for end in 0..bytes.len() {
                Message::read(*kind, Bytes::copy_from_slice(&bytes[..end])).expect_err("a part of one");
            }
            let longer = [*bytes, b"x"].concat();
            Message::read(*kind, longer.into()).expect_err("more than one");
        }
        for kind in 0..=u8::MAX {
            for bytes in [&b""[..], b"\xff\xff", b"\0\0\xff\xff\xff\xff", b"S", b"\x80\0"] {
                let _ = Message::read(kind, Bytes::copy_from_slice(bytes));
            }
        }
    }
}
