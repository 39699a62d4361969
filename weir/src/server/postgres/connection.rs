//! How does a client connect, and what does it say then? TLS, the startup message, SCRAM; then messages, each answered before the next.
//! <https://www.postgresql.org/docs/18/protocol-flow.html>
//!
//! A task of its own reads what the client says while a statement is answered: so a client that leaves is noticed, and its statement ends.
//! It reads ahead by [`wire::MESSAGE_MAX`] bytes at most.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_engine::query::Door;

use super::{
    IDLE, STARTUP, Shared,
    error::PgError,
    query::Conversation,
    settings::{Changed, Settings},
    wire::{self, Body, GREETING_MAX, MESSAGE_MAX, Message, Out, WireError},
};
use crate::server::users::User;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// The first byte of a TLS record that greets: a client that begins with TLS at once.
const TLS_RECORD: u8 = 0x16;
/// Messages that are read ahead.
const AHEAD: usize = 64;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What a client says first.
struct Greeting {
    parameters: HashMap<String, String>,
    /// Keys of cancel requests are long from 3.2 on.
    long_keys: bool,
    /// Told to a client that asks for more than there is: the newest minor version, and options that are not known.
    negotiate: Option<Vec<String>>,
}

/// Answers one client until it leaves.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let deadline = Instant::now() + STARTUP;
    let ended = tokio::select! {
        () = shared.stop.cancelled() => return,
        opened = timeout_at(deadline, open(stream, &shared, None)) => match opened {
            Ok(Ok(Some((stream, secure, greeting)))) => converse(stream, secure, greeting, deadline, &shared).await,
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => Err(error),
            // Whoever says nothing is told nothing.
            Err(_) => Ok(()),
        },
    };
    if let Err(WireError::Protocol(what)) = ended {
        tracing::debug!(%peer, what, "a client of the Postgres port broke the protocol");
    }
}

/// Tells a client that there is no place for it. A cancel request is taken all the same.
pub(super) async fn turn_away(stream: TcpStream, shared: &Shared) {
    let full = PgError::fatal("53300", "there are too many connections").hint("close some, or try again later");
    let _ = tokio::time::timeout(Duration::from_secs(2), open(stream, shared, Some(full))).await;
}

type Opened = Option<(Box<dyn Stream>, bool, Greeting)>;

/// Everything before the authentication. None where the connection has served its purpose. `refused` is what the client is told instead.
async fn open(stream: TcpStream, shared: &Shared, refused: Option<PgError>) -> wire::Result<Opened> {
    let mut first = [0; 1];
    let direct = stream.peek(&mut first).await? > 0 && first[0] == TLS_RECORD;
    let mut secure = false;
    let mut stream: Box<dyn Stream> = Box::new(stream);
    if direct {
        let Some(acceptor) = &shared.acceptor else { return Ok(None) };
        let tls = acceptor.accept(stream).await?;
        if tls.get_ref().1.alpn_protocol() != Some(super::ALPN) {
            return Err(WireError::Protocol("TLS from the first byte on, without the protocol's name".into()));
        }
        (stream, secure) = (Box::new(tls), true);
    }
    // TLS and GSSAPI are each asked for once, in either order.
    for _ in 0..3 {
        let mut body = wire::sized(&mut stream, GREETING_MAX).await?;
        let code = body.try_get_u32().map_err(|_| WireError::Protocol("a greeting that breaks off".into()))?;
        match code {
            SSL_REQUEST if secure => return Err(WireError::Protocol("TLS within TLS".into())),
            SSL_REQUEST => match &shared.acceptor {
                Some(acceptor) => {
                    stream.write_all(b"S").await?;
                    stream.flush().await?;
                    // What came with the request would have been read in the clear; nothing was read past it.
                    (stream, secure) = (Box::new(acceptor.accept(stream).await?), true);
                }
                None => {
                    stream.write_all(b"N").await?;
                    stream.flush().await?;
                }
            },
            GSS_REQUEST => {
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            CANCEL_REQUEST => {
                if let Ok(number) = body.try_get_i32() {
                    shared.running.cancel(number, &body);
                }
                return Ok(None);
            }
            _ => {
                let mut out = Out::new(&mut stream);
                let greeting = greeting(code, body).and_then(|greeting| match refused {
                    Some(refused) => Err(refused),
                    None if shared.acceptor.is_some() && !secure => Err(PgError::fatal("28000", "this server is asked through TLS only")
                        .hint("connect with sslmode=require, or verify-full")),
                    None => Ok(greeting),
                });
                return match greeting {
                    Ok(greeting) => Ok(Some((stream, secure, greeting))),
                    Err(error) => {
                        error.send(&mut out, None);
                        out.flush().await?;
                        out.close().await;
                        Ok(None)
                    }
                };
            }
        }
    }
    Err(WireError::Protocol("nothing but requests for encryption".into()))
}

/// Reads a startup message.
fn greeting(code: u32, body: Bytes) -> Result<Greeting, PgError> {
    let (major, minor) = (code >> 16, code & 0xffff);
    if major != 3 {
        return Err(PgError::fatal("0A000", format!("version {major}.{minor} of the protocol is not spoken here, 3.0 and 3.2 are")));
    }
    let malformed = |_| PgError::fatal("08P01", "the startup message is malformed");
    let mut body = Body(body);
    let (mut parameters, mut unknown) = (HashMap::new(), Vec::new());
    loop {
        let name = body.string().map_err(malformed)?;
        if name.is_empty() {
            break;
        }
        let value = body.string().map_err(malformed)?;
        match name.starts_with("_pq_.") {
            true => unknown.push(name),
            false => drop(parameters.insert(name, value)),
        }
    }
    let newer = minor > 2;
    // There is no 3.1: what asks for it gets 3.0.
    let negotiate = (newer || minor == 1 || !unknown.is_empty()).then_some(unknown);
    Ok(Greeting { parameters, long_keys: minor >= 2, negotiate })
}

/// Authenticates, and answers messages.
async fn converse(
    mut stream: Box<dyn Stream>,
    secure: bool,
    greeting: Greeting,
    deadline: Instant,
    shared: &Arc<Shared>,
) -> wire::Result<()> {
    let authenticated = {
        let mut out = Out::new(&mut stream);
        if let Some(unknown) = &greeting.negotiate {
            let newest: u32 = if greeting.long_keys { 3 << 16 | 2 } else { 3 << 16 };
            out.message(b'v', |body| {
                body.put_u32(newest);
                body.put_u32(unknown.len() as u32);
                unknown.iter().for_each(|name| wire::text(body, name));
            });
        }
        out.buffer
    };
    let (user, sent) = match timeout_at(deadline, authenticate(&mut stream, secure, &greeting, authenticated, shared)).await {
        Ok(Ok(Some(known))) => known,
        Ok(Ok(None)) | Err(_) => return Ok(()),
        Ok(Err(error)) => return Err(error),
    };
    let gone = CancellationToken::new();
    let leaving = gone.clone().drop_guard();
    let (reader, writer) = tokio::io::split(stream);
    let mut out = Out::new(writer);
    out.buffer = sent;
    let mut secret = vec![0; if greeting.long_keys { 32 } else { 4 }];
    getrandom::fill(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
    let (number, cancel) = shared.running.register(secret.clone());
    let answered = match begin(&user, &greeting, shared) {
        Ok((session, settings, database)) => {
            let mut conversation = Conversation::new(session, settings, user, database, shared.users.clone(), cancel, gone.clone(), out);
            conversation.greet(number, &secret);
            answer(&mut conversation, reader, gone, leaving, shared).await
        }
        Err(error) => {
            error.send(&mut out, None);
            let told = out.flush().await.map_err(WireError::from);
            out.close().await;
            told
        }
    };
    shared.running.forget(number);
    answered
}

/// The SCRAM exchange. Returns the user, and what is still to be sent.
async fn authenticate(
    stream: &mut Box<dyn Stream>,
    secure: bool,
    greeting: &Greeting,
    first: BytesMut,
    shared: &Shared,
) -> wire::Result<Option<(Arc<User>, BytesMut)>> {
    let mut out = Out::new(&mut *stream);
    out.buffer = first;
    let name = greeting.parameters.get("user").cloned().unwrap_or_default();
    let known = if name.is_empty() {
        Err(PgError::fatal("28000", "no user is named"))
    } else {
        let exchange = shared.secrets.begin(secure, &mut out);
        out.flush().await?;
        drop(out);
        let said = password(stream).await?;
        out = Out::new(&mut *stream);
        match exchange.first(&shared.secrets, &shared.users, &name, said, &mut out).await {
            Ok(judge) => {
                out.flush().await?;
                drop(out);
                let said = password(stream).await?;
                out = Out::new(&mut *stream);
                judge.last(&said, &mut out)
            }
            Err(error) => Err(error),
        }
    };
    match known {
        Ok(user) => Ok(Some((user, out.buffer))),
        Err(error) => {
            error.send(&mut out, None);
            out.flush().await?;
            out.close().await;
            Ok(None)
        }
    }
}

async fn password(stream: &mut Box<dyn Stream>) -> wire::Result<Bytes> {
    let (kind, body) = wire::frame(stream, GREETING_MAX).await?;
    match Message::read(kind, body)? {
        Message::Password(body) => Ok(body),
        _ => Err(WireError::Protocol("something else than a password".into())),
    }
}

/// A session for the user, in the catalogue that the client asked for.
fn begin(user: &User, greeting: &Greeting, shared: &Shared) -> Result<(weir_engine::query::Session, Settings, String), PgError> {
    if !user.scopes.has("sql") {
        return Err(PgError::fatal("42501", format!("the token \"{}\" does not open \"sql\"", user.name))
            .hint("make one that does with: weir serve token new NAME --scope sql"));
    }
    let session = shared.catalogue.session(user.who(Door::Postgres));
    let asked = greeting.parameters.get("database").map_or("", String::as_str);
    // libpq asks for a database of the user's name where none is said.
    let database = match asked {
        "" | "weir" => "lake",
        asked if asked == user.name && session.context().catalog(asked).is_none() => "lake",
        asked => asked,
    };
    let found = session.context().catalog(database).is_some();
    if !found {
        let mut known = session.context().catalog_names();
        known.sort();
        return Err(
            PgError::fatal("3D000", format!("there is no database \"{database}\"")).hint(format!("databases are: {}", known.join(", ")))
        );
    }
    let schema = match database {
        "lake" => "main",
        // What clients of Postgres expect where nothing else is said.
        _ => match session.context().catalog(database).map(|catalog| catalog.schema_names()) {
            Some(names) if names.len() == 1 => return settled(session, database, &names[0].clone(), greeting),
            _ => "public",
        },
    };
    settled(session, database, schema, greeting)
}

fn settled(
    session: weir_engine::query::Session,
    database: &str,
    schema: &str,
    greeting: &Greeting,
) -> Result<(weir_engine::query::Session, Settings, String), PgError> {
    let mut settings = Settings::new(schema);
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (name, value) in &greeting.parameters {
        match name.as_str() {
            "user" | "database" => {}
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err(PgError::fatal("0A000", "there is nothing to replicate here")),
            "options" => wanted.extend(options(value)?),
            _ => wanted.push((name.clone(), value.clone())),
        }
    }
    for (name, value) in wanted {
        let values: Vec<String> = match name.as_str() {
            "search_path" => value.split(',').map(|schema| schema.trim().trim_matches('"').to_owned()).collect(),
            _ => vec![value],
        };
        match settings.set(&name, &values) {
            Ok(Changed::Timeout) => session.set_time_limit(settings.statement_timeout),
            Ok(_) => {}
            Err(error) => return Err(PgError { fatal: true, ..error }),
        }
    }
    let (catalog, schema) = super::session::place(&settings.search_path, database, &session);
    session.set_default(&catalog, &schema);
    Ok((session, settings, database.to_owned()))
}

/// `-c name=value --name=value`, as `PGOPTIONS` has them.
fn options(text: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut words = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let word = words.last_mut().expect("one word at least");
        match letter {
            '\\' => word.extend(letters.next()),
            letter if letter.is_whitespace() => words.push(String::new()),
            letter => word.push(letter),
        }
    }
    let mut found = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(setting) => Some(setting.to_owned()),
            None => word.strip_prefix("--").map(str::to_owned),
        };
        let Some((name, value)) = setting.as_ref().and_then(|setting| setting.split_once('=')) else {
            return Err(PgError::fatal("42601", format!("the option \"{word}\" is not read here")).hint("write -c name=value"));
        };
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

/// A message, and the room it takes until it is answered.
type Said = (Message, OwnedSemaphorePermit);

/// Reads what the client says, until it leaves.
async fn listen(mut reader: ReadHalf<Box<dyn Stream>>, said: mpsc::Sender<wire::Result<Said>>, gone: CancellationToken) {
    let room = Arc::new(Semaphore::new(MESSAGE_MAX + (1 << 10)));
    loop {
        let read = async {
            let (kind, body) = wire::frame(&mut reader, MESSAGE_MAX).await?;
            let bytes = body.len() as u32;
            let room = room.clone().acquire_many_owned(bytes).await.expect("the semaphore is never closed");
            Ok((Message::read(kind, body)?, room))
        };
        let read = read.await;
        let ends = !matches!(read, Ok((ref message, _)) if *message != Message::Terminate);
        if matches!(read, Err(WireError::Io(_)) | Ok((Message::Terminate, _))) {
            gone.cancel();
        }
        if said.send(read).await.is_err() || ends {
            return;
        }
    }
}

/// Answers messages until the client leaves, stays silent too long, or the server ends.
async fn answer(
    conversation: &mut Conversation<WriteHalf<Box<dyn Stream>>>,
    reader: ReadHalf<Box<dyn Stream>>,
    gone: CancellationToken,
    leaving: DropGuard,
    shared: &Shared,
) -> wire::Result<()> {
    let (sender, mut said) = mpsc::channel(AHEAD);
    let listening = tokio::spawn(listen(reader, sender, gone));
    let ended = loop {
        let next = match said.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                // Nothing waits to be answered: what is answered goes out.
                conversation.flush().await?;
                tokio::select! {
                    () = shared.stop.cancelled() => break Some(PgError::fatal("57P01", "the server ends")),
                    next = tokio::time::timeout(IDLE, said.recv()) => match next {
                        Ok(next) => next,
                        Err(_) => break Some(PgError::fatal("57P05", "the connection was idle for too long")),
                    },
                }
            }
        };
        match next {
            Some(Ok((Message::Terminate, _))) | None => break None,
            Some(Ok((message, _room))) => {
                let answered = tokio::select! {
                    () = shared.stop.cancelled() => break Some(PgError::fatal("57P01", "the server ends")),
                    answered = conversation.answer(message) => answered,
                };
                if answered?.is_break() {
                    break None;
                }
            }
            Some(Err(WireError::Protocol(what))) => break Some(PgError::fatal("08P01", what)),
            Some(Err(error)) => {
                listening.abort();
                return Err(error);
            }
        }
    };
    listening.abort();
    if let Some(error) = ended {
        conversation.say(&error);
    }
    // A client that takes nothing holds up nobody who wants to stop.
    let _ = tokio::time::timeout(Duration::from_secs(5), conversation.flush()).await;
    conversation.close().await;
    drop(leaving);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_message_is_read_or_refused() {
        let read = |code, bytes: &'static [u8]| greeting(code, Bytes::from_static(bytes));
        let greeting = read(3 << 16, b"user\0ann\0database\0lake\0\0").expect("a greeting");
        assert_eq!(greeting.parameters.get("user").map(String::as_str), Some("ann"));
        assert!(!greeting.long_keys && greeting.negotiate.is_none());
        let newer = read(3 << 16 | 9999, b"user\0ann\0_pq_.x\0y\0\0").expect("a greeting");
        assert_eq!((newer.long_keys, newer.negotiate), (true, Some(vec!["_pq_.x".to_owned()])));
        assert_eq!(read(2 << 16, b"\0").err().map(|error| error.state), Some("0A000"));
        assert_eq!(read(3 << 16, b"user\0ann").err().map(|error| error.state), Some("08P01"));
    }

    #[test]
    fn options_are_read_as_libpq_writes_them() {
        let found = options("-c statement_timeout=5s --search-path=a\\ b -cjit=off").expect("options");
        let expected = [("statement_timeout", "5s"), ("search_path", "a b"), ("jit", "off")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(options("-d 5").is_err());
    }
}
