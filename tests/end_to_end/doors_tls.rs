//! The ports of a server under TLS, as Python's own TLS sees them: version, certificate, certificates of clients, and greetings that never end.

use std::{
    io::Read,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    http_sql::Served,
    project::{Running, repository},
    referee,
};

/// The other ports of SQL beside HTTP's.
const PORTS: &str = "[server.sql]\npostgres = \"127.0.0.1:0\"\nflight = \"127.0.0.1:0\"\n";

/// Asks `select 1` by TLS: the version that was spoken and the answer, or why there is none. `-` stands for what is not given.
const CLIENT: &str = r#"
import http.client, json, ssl, sys
address, token, ca, certificate, key, version = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
if version == "1.2":
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if certificate != "-":
    context.load_cert_chain(certificate, key)
host, port = address.rsplit(":", 1)
try:
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
    connection.request("POST", "/api/sql", json.dumps({"sql": "select 1 as one"}), {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    print(connection.sock.version() if connection.sock else "closed", answer.status, json.loads(answer.read())["rows"])
except (ssl.SSLError, ConnectionError, http.client.HTTPException) as error:
    print("refused", type(error).__name__)
"#;

fn support(name: &str) -> String {
    repository().join("tests/support/tls").join(name).display().to_string()
}

fn settings(more: &str) -> String {
    format!("[server.tls]\ncertificate = \"{}\"\nkey = {{ file = \"{}\" }}\n{more}", support("server.pem"), support("server.key"))
}

fn ask(served: &Served, token: &str, ca: &str, certificate: Option<(&str, &str)>, version: &str) -> Option<String> {
    let (certificate, key) =
        certificate.map_or(("-".to_owned(), "-".to_owned()), |(certificate, key)| (support(certificate), support(key)));
    let mut client = Command::new(referee::python()?);
    client.args(["-c", CLIENT, &served.address, token, &support(ca), &certificate, &key, version]);
    let outcome = client.output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    Some(String::from_utf8(outcome.stdout).unwrap().trim().to_owned())
}

/// The part of a text that stands between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let part = text.split(before).nth(1).and_then(|rest| rest.split(after).next());
    part.unwrap_or_else(|| panic!("there is no \"{before}\" in {text}"))
}

/// What a server with three ports has printed of them.
fn printed(served: &Served) -> String {
    let path = served.project.path("serve.out");
    let read = || std::fs::read_to_string(&path).unwrap();
    served.wait_for("they are printed", |_| read().matches('\n').count() == 3);
    read()
}

/// What `tests/support/tls_clients.py` is told by a server whose addresses were printed. `certificates`: it asks for them, and has reason to take the
/// client's ("known") or not ("foreign").
fn told(served: &Served, token: &str, certificates: Option<&str>) -> Option<Value> {
    let python = referee::python()?;
    let printed = printed(served);
    let config = json!({
        "postgres": between(&printed, "@", "/lake"), "flight": between(&printed, "grpc+tls://", " "),
        "printed": format!("postgresql://{}", between(&printed, "postgresql://", "\n")),
        "user": "ann", "token": token, "ca": support("ca.pem"), "other_ca": support("other-ca.pem"),
        "certificate": support("client.pem"), "key": support("client.key"), "certificates": certificates,
    });
    let script = repository().join("tests/support/tls_clients.py").display().to_string();
    let client = served.project.program(python.to_str().unwrap(), &[&script, &config.to_string()]);
    let outcome = Running::start(client).wait(Duration::from_secs(240));
    assert_eq!(outcome.code, 0, "{outcome}\n{}", served.log());
    Some(outcome.json())
}

#[test]
fn a_port_with_a_certificate_speaks_tls_1_3_and_nothing_else() {
    let served = Served::new(&settings(""), &[]);
    let token = served.token("ann", "sql");
    let Some(answer) = ask(&served, &token, "ca.pem", None, "1.3") else { return };
    assert_eq!(answer, "TLSv1.3 200 [{'one': 1}]");
    let old = ask(&served, &token, "ca.pem", None, "1.2").unwrap();
    assert!(old.starts_with("refused"), "{old}");
    assert_eq!(ask(&served, &token, "other-ca.pem", None, "1.3").unwrap(), "refused SSLCertVerificationError");

    // Who says nothing holds up nobody, and is let go.
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&served.address).unwrap()).collect();
    assert_eq!(ask(&served, &token, "ca.pem", None, "1.3").unwrap(), "TLSv1.3 200 [{'one': 1}]");
    let since = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let read = stream.read(&mut [0; 1]);
        assert!(matches!(read, Ok(0)) || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    // In the clear there is no answer, and no token is asked for.
    let mut plain = TcpStream::connect(&served.address).unwrap();
    std::io::Write::write_all(&mut plain, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn clients_show_a_certificate_where_an_authority_is_named() {
    let served = Served::new(&settings(&format!("client_ca = \"{}\"\n", support("ca.pem"))), &[]);
    let token = served.token("ann", "sql");
    let Some(none) = ask(&served, &token, "ca.pem", None, "1.3") else { return };
    assert!(none.starts_with("refused"), "{none}");
    let shown = ask(&served, &token, "ca.pem", Some(("client.pem", "client.key")), "1.3").unwrap();
    assert_eq!(shown, "TLSv1.3 200 [{'one': 1}]");
}

#[test]
fn psycopg_adbc_and_pyarrow_ask_through_tls_1_3_and_nothing_else() {
    let served = Served::new(&format!("{PORTS}{}", settings("")), &["--print-urls"]);
    let token = served.token("ann", "sql");
    let Some(told) = told(&served, &token, None) else { return };
    let in_the_clear = ["FATAL", "28000", "this server is asked through TLS only", "connect with sslmode=require, or verify-full"];
    let expected = json!({
        // Greeted by hand, with TLS 1.3 and with 1.2 at most: the version, and the protocol inside.
        "postgres": ["TLSv1.3 None", "refused: old"],
        "postgres at once": ["TLSv1.3 postgresql", "refused: old"],
        "flight": ["TLSv1.3 h2", "refused: old"],
        "in the clear": in_the_clear,
        "psycopg": "42 TLS",
        "psycopg, bound": "42 TLS",
        "psycopg, unbound": "42 TLS",
        "psycopg, old": "refused: old",
        "psycopg, other authority": "refused: unknown authority",
        "psycopg, in the clear": format!("FATAL:  {}\nHINT:  {}", in_the_clear[2], in_the_clear[3]),
        "psycopg, as printed": "42 TLS",
        "adbc": "42",
        "adbc, other authority": "refused: unknown authority",
        "adbc, in the clear": "refused: closed",
        "pyarrow": "42",
        "pyarrow, other authority": "refused: unknown authority",
        "pyarrow, in the clear": "refused: closed",
    });
    assert_eq!(told, expected);
    assert!(!served.log().contains(&token), "the log shows a token");
}

#[test]
fn every_port_takes_certificates_of_the_named_authority_and_of_no_other() {
    for (authority, certificates, shown, by_hand) in
        [("ca.pem", "known", "42", "no certificate"), ("other-ca.pem", "foreign", "refused", "foreign certificate")]
    {
        let more = format!("client_ca = \"{}\"\n", support(authority));
        let served = Served::new(&format!("{PORTS}{}", settings(&more)), &["--print-urls"]);
        let token = served.token("ann", "sql");
        let Some(told) = told(&served, &token, Some(certificates)) else { return };
        // With no certificate, and with the client's.
        let psycopg = if certificates == "known" { "42 TLS" } else { shown };
        let expected = json!({
            "psycopg": ["refused", psycopg], "adbc": ["refused", shown], "pyarrow": ["refused", shown],
            "postgres": format!("refused: {by_hand}"), "flight": format!("refused: {by_hand}"),
        });
        assert_eq!(told, expected, "{authority}");
        let http = ask(&served, &token, "ca.pem", Some(("client.pem", "client.key")), "1.3").unwrap();
        assert_eq!(http == "TLSv1.3 200 [{'one': 1}]", certificates == "known", "{http}");
        assert!(certificates == "known" || http.starts_with("refused"), "{http}");
    }
}

#[test]
fn addresses_of_every_port_are_printed_as_clients_take_them_and_only_where_that_is_asked_for() {
    for (tls, http, mode, flight) in [(String::new(), "http", "disable", "grpc"), (settings(""), "https", "require", "grpc+tls")] {
        let settings = format!("{PORTS}{tls}");
        let served = Served::new(&settings, &["--print-urls"]);
        let (printed, log) = (printed(&served), served.log());
        let token = between(&printed, "Bearer ", "\"");
        let digits = token.strip_prefix("weir_").unwrap_or_default();
        assert!(digits.len() == 64 && digits.chars().all(|digit| digit.is_ascii_hexdigit()), "no token: {} characters", token.len());
        let [postgres, arrow] = ["Postgres", "Arrow Flight SQL"].map(|door| between(&log, &format!("{door} address="), "\n"));
        let expected = format!(
            "http      {http}://{}/api/sql  with the header \"Authorization: Bearer TOKEN\"\n\
             postgres  postgresql://weir:TOKEN@{postgres}/lake?sslmode={mode}\n\
             flight    {flight}://{arrow}  with the user weir and the password TOKEN\n",
            served.address
        );
        assert_eq!(printed.replace(token, "TOKEN"), expected);
        assert!(!served.log().contains(token), "the log shows a token");

        let quiet = Served::new(&settings, &[]);
        // Another command's time is more than printing would take.
        quiet.token("ann", "sql");
        assert_eq!(std::fs::read_to_string(quiet.project.path("serve.out")).unwrap(), "");
        let said = quiet.log();
        let mut after = said.split("weir_").skip(1);
        assert!(after.all(|rest| !rest.chars().take(16).all(|digit| digit.is_ascii_hexdigit())), "{said}");
        assert!(said.contains("Arrow Flight SQL address=") && !said.contains("Bearer"), "{said}");
    }
}
