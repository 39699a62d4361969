//! The ports of a server under TLS, as Python's own TLS sees them: version, certificate, certificates of clients, and greetings that never end.

use std::{
    io::Read,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::{http_sql::Served, project::repository, referee};

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
