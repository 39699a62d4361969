//! Whether a certificate that cannot be used is refused, with the reason, and one that can is shown to those who may see it.

use std::{collections::HashMap, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use weir_engine::workspace::Machine;
use weir_pipelines::{Project, SourceFile};

use super::*;

fn workspace(root: &Path, tls: &str) -> Workspace {
    let text = format!("[server.tls]\n{tls}");
    let project = Project::parse(SourceFile::new("weir.toml", text.as_str()), root.to_owned(), None).expect("right");
    let environment = HashMap::from([("TLS_KEY".to_owned(), std::fs::read_to_string(root.join("server.key")).unwrap_or_default())]);
    Workspace::new(project, environment, Machine { memory_bytes: 1 << 30, cpus: 1 }, Utc::now)
}

/// A certificate for localhost, and its key, as PEM.
fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    change(&mut params);
    (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
}

const BOTH: &str = "certificate = \"server.pem\"\nkey = { file = \"server.key\" }\n";

/// What is said of a folder with these files: the code, the message, and what is pointed at.
async fn refused(files: &[(&str, &str)], tls: &str) -> (&'static str, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let Err(Failure::Diagnostics(found)) = Tls::load(&workspace(folder.path(), tls)).await else { panic!("it is taken: {tls}") };
    let label = &found[0].labels[0];
    assert_eq!((found.len(), found[0].help.is_empty()), (1, found[0].code == "secret-missing"));
    (found[0].code, found[0].message.clone(), label.file.text[label.span.clone()].to_owned())
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_the_reason() {
    let (certificate, key) = pair(|_| {});
    let (_, other) = pair(|_| {});
    let (expired, expired_key) = pair(|params| {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    });
    let (early, early_key) = pair(|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old_encrypted =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let torn = "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let files = |certificate: &str, key: &str| vec![("server.pem", certificate.to_owned()), ("server.key", key.to_owned())];
    for (files, code, message, at) in [
        (vec![], "tls-file", "cannot read \"server.pem\": entity not found", "\"server.pem\""),
        (files("", &key), "tls-certificate", "there is no certificate in \"server.pem\"", "\"server.pem\""),
        (files(&key, &key), "tls-certificate", "there is no certificate in \"server.pem\"", "\"server.pem\""),
        (files(no_certificate, &key), "tls-certificate", "what \"server.pem\" holds is no certificate", "\"server.pem\""),
        (
            files(&expired, &expired_key),
            "tls-expired",
            "a certificate in \"server.pem\" has expired: it was valid until 2021-01-01T00:00:00Z",
            "\"server.pem\"",
        ),
        (
            files(&early, &early_key),
            "tls-expired",
            "a certificate in \"server.pem\" is not valid yet: it is from 3000-01-01T00:00:00Z on",
            "\"server.pem\"",
        ),
        (
            vec![("server.pem", certificate.clone())],
            "secret-missing",
            "cannot read the secret in \"server.key\": entity not found",
            "{ file = \"server.key\" }",
        ),
        (files(&certificate, ""), "tls-key", "there is no private key where \"key\" says", "{ file = \"server.key\" }"),
        (files(&certificate, &certificate), "tls-key", "there is no private key where \"key\" says", "{ file = \"server.key\" }"),
        (files(&certificate, &encrypted), "tls-key", "the private key is encrypted", "{ file = \"server.key\" }"),
        (files(&certificate, old_encrypted), "tls-key", "the private key is encrypted", "{ file = \"server.key\" }"),
        (
            files(&certificate, &other),
            "tls-mismatch",
            "the private key does not belong to the certificate in \"server.pem\"",
            "{ file = \"server.key\" }",
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(refused(&files, BOTH).await, (code, message.to_owned(), at.to_owned()));
    }
    let both = [("server.pem", certificate.as_str()), ("server.key", key.as_str())];
    let (code, message, _) = refused(&[("server.pem", torn), both[1]], BOTH).await;
    assert!(code == "tls-certificate" && message.starts_with("\"server.pem\" is torn: "), "{message}");
    let (code, message, _) = refused(&[both[0], ("server.key", no_key)], BOTH).await;
    assert!(code == "tls-key" && message.starts_with("the private key cannot be used: "), "{message}");
    let with_ca = format!("{BOTH}client_ca = \"ca.pem\"\n");
    let (code, message, at) = refused(&both, &with_ca).await;
    assert_eq!((code, message.as_str(), at.as_str()), ("tls-file", "cannot read \"ca.pem\": entity not found", "\"ca.pem\""));
    let (code, message, _) = refused(&[both[0], both[1], ("ca.pem", "")], &with_ca).await;
    assert_eq!((code, message.as_str()), ("tls-certificate", "there is no certificate in \"ca.pem\""));
    let (code, message, _) = refused(&[both[0], both[1], ("ca.pem", no_certificate)], &with_ca).await;
    assert!(code == "tls-certificate" && message.starts_with("a certificate in \"ca.pem\" cannot be an authority's: "), "{message}");
}

/// Greets, and says a byte to and fro.
async fn greet(acceptor: &TlsAcceptor, client: ClientConfig) -> Result<Option<Vec<u8>>, std::io::Error> {
    let (near, far) = tokio::io::duplex(1 << 14);
    let server = async {
        let mut stream = acceptor.accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    };
    let asks = async {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        stream.write_u8(7).await?;
        assert_eq!(stream.read_u8().await?, 7);
        Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    let (_, asked) = tokio::join!(server, asks);
    asked
}

#[tokio::test]
async fn clients_are_greeted_with_tls_1_3_and_must_show_a_certificate_where_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = pair(|_| {});
    let mut authority = CertificateParams::new(vec![]).expect("no name");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
    let client_key = KeyPair::generate().expect("a key");
    let client = CertificateParams::new(vec!["ann".to_owned()]).expect("a name").signed_by(&client_key, &authority).expect("signed");
    for (name, text) in [("server.pem", &certificate), ("server.key", &key), ("ca.pem", &authority.pem())] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")).expect("added");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).expect("known");
        builder.with_root_certificates(trusted.clone())
    };
    let stranger = |alpn: &[u8]| {
        let mut client = versions(&[&TLS13]).with_no_client_auth();
        client.alpn_protocols = vec![alpn.to_vec()];
        client
    };

    let key = "certificate = \"server.pem\"\nkey = { env = \"TLS_KEY\" }\n";
    let tls = Tls::load(&workspace(folder.path(), key)).await.expect("right").expect("a table");
    assert_eq!(tls.certificate_pem(), certificate.as_bytes());
    let acceptor = tls.acceptor(&[b"http/1.1"]);
    assert_eq!(greet(&acceptor, stranger(b"http/1.1")).await.expect("greeted").as_deref(), Some(b"http/1.1".as_slice()));
    assert!(greet(&acceptor, stranger(b"h2")).await.is_err(), "another protocol is meant");
    let old = versions(&[&rustls::version::TLS12]).with_no_client_auth();
    assert!(greet(&acceptor, old).await.is_err(), "TLS 1.2 is not spoken");

    let tls = Tls::load(&workspace(folder.path(), &format!("{key}client_ca = \"ca.pem\"\n"))).await.expect("right").expect("a table");
    let acceptor = tls.acceptor(&[]);
    assert!(greet(&acceptor, versions(&[&TLS13]).with_no_client_auth()).await.is_err(), "no certificate is shown");
    let own = PrivateKeyDer::try_from(client_key.serialize_der()).expect("a key");
    let known = versions(&[&TLS13]).with_client_auth_cert(vec![client.der().clone()], own).expect("a pair");
    greet(&acceptor, known).await.expect("greeted");
    let own = PrivateKeyDer::from_pem_slice(pair(|_| {}).1.as_bytes());
    assert!(own.is_ok());
    let (forged, forged_key) = pair(|_| {});
    let forged = CertificateDer::from_pem_slice(forged.as_bytes()).expect("a certificate");
    let forged_key = PrivateKeyDer::from_pem_slice(forged_key.as_bytes()).expect("a key");
    let forger = versions(&[&TLS13]).with_client_auth_cert(vec![forged], forged_key).expect("a pair");
    assert!(greet(&acceptor, forger).await.is_err(), "another authority has signed it");
}
