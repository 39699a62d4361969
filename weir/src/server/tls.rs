//! The certificate of a server's ports: `[server.tls]` read at the start. What is wrong with it is a refusal to start, never a port in the clear.

use std::{path::Path, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use rustls::{
    Error as TlsError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use weir_connectors::{Error, secret::Secret};
use weir_engine::{Failure, Workspace};
use weir_pipelines::{Diagnostic, Settings};
use x509_certificate::X509Certificate;

/// No file of certificates is larger.
const FILE_MAX: u64 = 1 << 20;

/// `[server.tls]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSettings {
    certificate: String,
    key: Secret,
    #[serde(default)]
    client_ca: Option<String>,
}

/// A certificate, its key, and whose certificates clients must show.
pub struct Tls {
    config: ServerConfig,
    certificate_pem: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads what `[server.tls]` names; none where there is no such table. Fails with what is wrong, and where weir.toml names it.
    pub async fn load(workspace: &Workspace) -> Result<Option<Arc<Self>>, Failure> {
        let Some(settings) = &workspace.project.server.tls else { return Ok(None) };
        let TlsSettings { certificate, key, client_ca } = settings.read()?;
        let root = &workspace.project.root;
        let pem = read(settings, "certificate", root, &certificate).await?;
        let chain = certificates(settings, "certificate", &certificate, &pem)?;
        check_validity(settings, &certificate, &chain, (workspace.clock)())?;
        let key = key.reveal(&workspace.environment, root).await.map_err(|error| at(settings, "key", error))?;
        let key = private_key(settings, &key)?;
        let client_ca = match client_ca {
            None => None,
            Some(path) => {
                let pem = read(settings, "client_ca", root, &path).await?;
                Some(roots(settings, &path, &certificates(settings, "client_ca", &path, &pem)?)?)
            }
        };
        let config = config(settings, &certificate, chain, key, client_ca)?;
        Ok(Some(Arc::new(Self { config, certificate_pem: pem })))
    }

    /// Greets clients: TLS 1.3, and one of these protocols where a client names any (ALPN), such as `http/1.1`.
    pub fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The certificate, and those between it and its authority, as PEM.
    pub fn certificate_pem(&self) -> &[u8] {
        &self.certificate_pem
    }
}

/// What is wrong with a setting, pointed at.
fn wrong(settings: &Settings, key: &str, code: &'static str, message: String, help: &str) -> Failure {
    Diagnostic::error(code, message).at(&settings.file, settings.span_of(key), "").help(help).into()
}

/// The same of what a secret's place says.
fn at(settings: &Settings, key: &str, error: Error) -> Failure {
    let found = Diagnostic::error(error.code, error.message).at(&settings.file, settings.span_of(key), "");
    error.help.into_iter().fold(found, |found, help| found.help(help)).into()
}

async fn read(settings: &Settings, key: &str, root: &Path, path: &str) -> Result<Vec<u8>, Failure> {
    let whole = root.join(path);
    let unreadable = |why: String| {
        let help = "paths start from the folder of weir.toml; the server's user must be allowed to read the file";
        wrong(settings, key, "tls-file", format!("cannot read \"{path}\": {why}"), help)
    };
    let about = tokio::fs::metadata(&whole).await.map_err(|error| unreadable(error.kind().to_string()))?;
    if !about.is_file() || about.len() > FILE_MAX {
        return Err(unreadable(format!("it is no file of up to {FILE_MAX} bytes")));
    }
    tokio::fs::read(&whole).await.map_err(|error| unreadable(error.kind().to_string()))
}

fn certificates(settings: &Settings, key: &str, path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let help = "it is a text that begins with -----BEGIN CERTIFICATE-----";
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| wrong(settings, key, "tls-certificate", format!("\"{path}\" is torn: {error}"), help))?;
    if read.is_empty() {
        return Err(wrong(settings, key, "tls-certificate", format!("there is no certificate in \"{path}\""), help));
    }
    Ok(read)
}

fn check_validity(settings: &Settings, path: &str, chain: &[CertificateDer<'_>], now: DateTime<Utc>) -> Result<(), Failure> {
    let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for certificate in chain {
        let read = X509Certificate::from_der(certificate).map_err(|_| {
            let help = "it is a text that begins with -----BEGIN CERTIFICATE-----";
            wrong(settings, "certificate", "tls-certificate", format!("what \"{path}\" holds is no certificate"), help)
        })?;
        let (begins, ends) = (read.validity_not_before(), read.validity_not_after());
        if now > ends {
            let message = format!("a certificate in \"{path}\" has expired: it was valid until {}", shown(ends));
            return Err(wrong(settings, "certificate", "tls-expired", message, "have it renewed, and start the server again"));
        }
        if now < begins {
            let message = format!("a certificate in \"{path}\" is not valid yet: it is from {} on", shown(begins));
            return Err(wrong(settings, "certificate", "tls-expired", message, "see whether the clock of this machine is right"));
        }
    }
    Ok(())
}

fn private_key(settings: &Settings, pem: &str) -> Result<PrivateKeyDer<'static>, Failure> {
    if pem.lines().any(|line| line.contains("ENCRYPTED")) {
        let help = "decrypt it, for instance with: openssl pkey -in server.key -out plain.key; and let nobody else read that file";
        return Err(wrong(settings, "key", "tls-key", "the private key is encrypted".into(), help));
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        let help =
            "it is a text that begins with -----BEGIN PRIVATE KEY-----, -----BEGIN RSA PRIVATE KEY----- or -----BEGIN EC PRIVATE KEY-----";
        // What is there may be another secret: none of it is shown.
        wrong(settings, "key", "tls-key", "there is no private key where \"key\" says".into(), help)
    })
}

fn roots(settings: &Settings, path: &str, authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| {
            let message = format!("a certificate in \"{path}\" cannot be an authority's: {error}");
            wrong(settings, "client_ca", "tls-certificate", message, "it is the certificate that signed those of the clients")
        })?;
    }
    Ok(roots)
}

fn config(
    settings: &Settings,
    path: &str,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<RootCertStore>,
) -> Result<ServerConfig, Failure> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let unfit = |error: TlsError| match error {
        TlsError::InconsistentKeys(_) => {
            let message = format!("the private key does not belong to the certificate in \"{path}\"");
            wrong(settings, "key", "tls-mismatch", message, "the server's own certificate comes first in the file, then those between")
        }
        error => {
            let message = format!("the private key cannot be used: {error}");
            wrong(
                settings,
                "key",
                "tls-key",
                message,
                "take an RSA key of 2048 bits or more, an ECDSA key on P-256, P-384 or P-521, or Ed25519",
            )
        }
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]).map_err(unfit)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| {
                let message = format!("certificates of clients cannot be checked: {error}");
                wrong(settings, "client_ca", "tls-certificate", message, "it is the certificate that signed those of the clients")
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(unfit)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
