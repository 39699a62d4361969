//! What no real server does on demand: answers that break off, proxies in between, certificates of all sorts.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread::JoinHandle,
};

use arrow::{
    array::{ArrayRef, Int64Array},
    ipc::writer::StreamWriter,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, server::WebPkiClientVerifier};

use super::{
    super::test_server::{run_context, url},
    *,
};
use crate::error::Retry;

const ABOUT: &str = "{\"version\":\"26.9\",\"zone\":\"UTC\"}\n";

/// An answer of status 200 whose body is exactly this.
fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    answer
}

fn other(status: &str, more: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Chunks, each of them sent whole; without `end` the connection just closes.
fn chunked(chunks: &[&[u8]], end: bool) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend(*chunk);
        answer.extend(b"\r\n");
    }
    if end {
        answer.extend(b"0\r\n\r\n");
    }
    answer
}

/// Reads a request to its end, and says what its head was, in lower case.
fn take_request(stream: &mut (impl Read + ?Sized)) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

/// Answers one request per connection, in this order; later ones get nothing.
fn serve(answers: Vec<Vec<u8>>, tls: Option<Arc<ServerConfig>>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let Ok((stream, _)) = listener.accept() else { return };
            let reply = |mut stream: &mut dyn ReadWrite| {
                if take_request(&mut stream).is_some() {
                    // Whoever asked may have gone.
                    let _ = stream.write_all(&answer).and_then(|()| stream.flush());
                }
            };
            match &tls {
                None => reply(&mut { stream }),
                Some(config) => {
                    let connection = ServerConnection::new(config.clone()).expect("a TLS server");
                    let mut stream = StreamOwned::new(connection, stream);
                    reply(&mut stream);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        }
    });
    (format!("{scheme}://me:hush-hush@localhost:{port}"), thread)
}

trait ReadWrite: Read + Write {}
impl ReadWrite for TcpStream {}
impl ReadWrite for StreamOwned<ServerConnection, TcpStream> {}

fn arrow_rows() -> Vec<u8> {
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef)]).expect("rows");
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
    writer.write(&rows).expect("written");
    writer.into_inner().expect("ended")
}

/// Opens a server that answers so, and reads all rows: their number, or the error.
async fn read(answer: Vec<u8>) -> Result<usize> {
    let (url, _) = serve(vec![ok(ABOUT.as_bytes()), answer], None);
    let run = run_context(&url, "");
    run.cancel.cancel();
    let server = Server::of("ch", &run).await?;
    assert_eq!((server.version(), server.zone(), server.database()), ("26.9", "UTC", "default"));
    let mut answer = server.arrow("select 1", &[], "id", "read \"t\"").await?;
    let mut rows = 0;
    while let Some(batch) = answer.next().await? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

#[tokio::test]
async fn no_limit_of_a_users_profile_may_cut_an_answer_short() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let head = take_request(&mut stream).expect("a request");
        stream.write_all(&ok(ABOUT.as_bytes())).expect("an answer");
        head
    });
    Server::of("ch", &run_context(&url, "")).await.expect("a server");
    let asked = asked.join().expect("a request");
    for setting in ["timeout", "result", "read", "group_by", "sort", "distinct", "join", "set", "transfer"] {
        assert!(asked.contains(&format!("{setting}_overflow_mode=throw")), "{setting}: {asked}");
    }
    assert!(asked.contains("limit=0") && asked.contains("offset=0"), "{asked}");
}

#[tokio::test]
async fn only_a_whole_answer_is_taken_for_one() {
    let whole = arrow_rows();
    let without_end = &whole[..whole.len() - 8];
    let middle = whole.len() / 2;
    let exception = b"Code: 241. DB::Exception: Memory limit exceeded: would use 9 GiB. (MEMORY_LIMIT_EXCEEDED) (version 24.3.1)\n";
    assert_eq!(read(ok(&whole)).await.expect("whole"), 1000);
    assert_eq!(read(chunked(&[&whole[..middle], &whole[middle..]], true)).await.expect("whole"), 1000);
    for (what, answer) in [
        ("nothing at all", ok(b"")),
        ("no end marker", ok(without_end)),
        ("the middle of a batch", ok(&whole[..middle])),
        ("no last chunk", chunked(&[without_end], false)),
        ("no last chunk after the end marker", chunked(&[&whole], false)),
        ("something else", ok(b"<html>Welcome to the proxy</html>")),
    ] {
        let error = read(answer).await.expect_err(what);
        assert_eq!((error.code, error.retry), ("connection-lost", Retry::Later), "{what}: {error}");
    }
    for (what, answer) in [("at once", chunked(&[exception], true)), ("behind rows", ok(&[without_end, exception].concat()))] {
        let error = read(answer).await.expect_err(what);
        assert_eq!(error.code, "server-memory", "{what}: {error}");
        assert_eq!(error.message, "cannot read \"t\": Memory limit exceeded: would use 9 GiB", "{what}");
    }
}

#[tokio::test]
async fn what_stands_between_is_understood() {
    let code = |number: u32| format!("x-clickhouse-exception-code: {number}\r\n");
    for (answer, expected, retry) in [
        (other("503 Service Unavailable", "", ""), "server-resources", Retry::Later),
        (other("429 Too Many Requests", "", ""), "too-many-queries", Retry::Later),
        (other("404 Not Found", "", "<html>no such page</html>"), "clickhouse-protocol", Retry::Never),
        (other("500 Internal Server Error", &code(202), ""), "too-many-queries", Retry::Later),
        (
            other("403 Forbidden", &code(516), "Code: 516. DB::Exception: me: Authentication failed. (AUTHENTICATION_FAILED)"),
            "wrong-password",
            Retry::Never,
        ),
        (other("200 OK", "", "<html>hello</html>"), "clickhouse-protocol", Retry::Never),
    ] {
        let (url, _) = serve(vec![answer], None);
        let run = run_context(&url, "");
        run.cancel.cancel();
        let error = Server::of("ch", &run).await.expect_err("refused");
        assert_eq!((error.code, error.retry), (expected, retry), "{error}");
        assert!(error.message.starts_with("cannot connect to \"localhost:"), "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn what_may_succeed_later_is_tried_again() {
    let (url, _) = serve(vec![other("503 Service Unavailable", "", ""), ok(ABOUT.as_bytes())], None);
    assert_eq!(Server::of("ch", &run_context(&url, "")).await.expect("the second time").version(), "26.9");
}

fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/support/tls").join(name)
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let pem = |name: &str| std::fs::read(certificate(name)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = || CertificateDer::pem_slice_iter(&pem("server.pem")).collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = || PrivateKeyDer::from_pem_slice(&pem("server.key")).expect("a key");
    let builder = || ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
    let plain = Arc::new(builder().with_no_client_auth().with_single_cert(chain(), key()).expect("a server"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem("ca.pem")) {
        roots.add(certificate.expect("a certificate")).expect("a root");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
    let mutual = Arc::new(builder().with_client_cert_verifier(verifier).with_single_cert(chain(), key()).expect("a server"));

    let setting = |key: &str, name: &str| format!("{key} = {}\n", toml::Value::String(certificate(name).display().to_string()));
    let (ca, own) = (setting("ca", "ca.pem"), setting("client_cert", "client.pem") + &setting("client_key", "client.key"));
    for (what, config, settings, works) in [
        ("the right CA", &plain, ca.clone(), true),
        ("another CA", &plain, setting("ca", "other-ca.pem"), false),
        ("what the system trusts", &plain, String::new(), false),
        ("no certificate of one's own", &mutual, ca.clone(), false),
        ("one's own certificate", &mutual, ca.clone() + &own, true),
    ] {
        let (url, _) = serve(vec![ok(ABOUT.as_bytes())], Some(config.clone()));
        let run = run_context(&url, &settings);
        run.cancel.cancel();
        match Server::of("ch", &run).await {
            Ok(server) => assert!(works, "{what}: {server:?}"),
            Err(error) => {
                assert!(!works, "{what}: {error:?}");
                assert_eq!(error.code, "tls", "{what}: {error:?}");
                assert!(error.message.contains("no encrypted connection"), "{what}: {error}");
            }
        }
    }
    let run = run_context("https://localhost:1", &(setting("ca", "README.md") + "connect_timeout = \"1s\""));
    let error = Server::of("ch", &run).await.expect_err("no certificate");
    assert_eq!(error.code, "certificate");
    assert!(error.message.ends_with("README.md\": it holds no certificate"), "{error}");
}

#[tokio::test]
async fn one_place_is_waited_for_and_given_back() {
    let Some(url) = url() else { return };
    let server = Server::of("ch", &run_context(&url, "pool_max = 1")).await.expect("opens");
    for _ in 0..3 {
        server.execute("select 1", &[], &[], None, "ask").await.expect("a place");
        let mut answer = server.arrow("select 1 as n", &[], &uuid::Uuid::now_v7().to_string(), "ask").await.expect("a place");
        assert_eq!(answer.next().await.expect("rows").expect("a row").num_rows(), 1);
        assert!(answer.next().await.expect("an end").is_none());
    }
}

#[tokio::test]
async fn a_query_ends_at_its_timeout() {
    let Some(url) = url() else { return };
    let server = Server::of("ch", &run_context(&url, "query_timeout = \"1s\"")).await.expect("opens");
    let error = server
        .execute("select sleepEachRow(0.5) from numbers(60) settings max_block_size = 1", &[], &[], None, "sleep")
        .await
        .expect_err("too long");
    assert_eq!((error.code, error.message.as_str()), ("statement-timeout", "cannot sleep: it took longer than the query timeout"));
}
