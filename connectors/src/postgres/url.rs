//! From a connection's settings to what the driver connects with: URL, password, TLS. Connecting is `connect`'s.
//! Nothing is taken from the environment or a password file behind the author's back, and nothing of a URL is repeated in an error.

use std::{net::IpAddr, path::PathBuf};

use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::{PostgresConnection, Tls};
use crate::{
    context::RunContext,
    error::{Error, Result},
    secret::Secret,
};

/// Where a connection leads, and as whom.
#[derive(Clone)]
pub(super) struct Target {
    /// What the driver needs.
    pub options: PgConnectOptions,
    /// Host and port, or the socket: for messages.
    pub place: String,
    /// The user.
    pub user: String,
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::user("wrong-url", format!("the connection's \"url\" {why}"))
        .setting("url")
        .help("write postgres://user@host:5432/database, and the password into \"password\"; encode @ : / # ? in it as %40 %3A %2F %23 %3F")
}

/// Reads the settings of the connection `name`, fetching what is secret.
pub(super) async fn target(name: &str, settings: &PostgresConnection, cx: &RunContext) -> Result<Target> {
    let url = settings.url.reveal(&cx.environment, &cx.root).await?;
    let parts = parts(&url)?;
    let password = match (&settings.password, parts.password) {
        (Some(_), Some(_)) => return Err(wrong("holds a password, and so does \"password\"")),
        (Some(secret), None) => secret.reveal(&cx.environment, &cx.root).await?,
        (None, password) => password.unwrap_or_default(),
    };
    let (mode, options) = tls(name, settings, &parts.host, parts.sslmode.as_deref(), cx).await?;
    let user = parts.user.ok_or_else(|| wrong(NO_USER))?;
    let database = parts.database.unwrap_or_else(|| user.clone());
    let mut options = options
        .username(&user)
        .password(&password)
        .database(&database)
        .port(parts.port)
        .ssl_mode(mode)
        .application_name("weir")
        // pgbouncer in transaction mode gives every transaction another backend: nothing may outlive one, and start-up parameters
        // that it does not know end the connection.
        .statement_cache_capacity(0)
        .extra_float_digits(None);
    options = match &parts.host {
        Host::Name(host) => options.host(host),
        Host::Socket(folder) => options.socket(folder),
    };
    let place = match parts.host {
        Host::Name(host) => format!("{host}:{}", parts.port),
        Host::Socket(folder) => format!("{}/.s.PGSQL.{}", folder.display(), parts.port),
    };
    Ok(Target { options, place, user })
}

/// Says what is wrong with a URL, as far as it alone can tell.
pub(super) fn check(text: &str) -> Result<()> {
    if parts(text)?.user.is_none() { Err(wrong(NO_USER)) } else { Ok(()) }
}

const NO_USER: &str = "names no user";

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    host: Host,
    port: u16,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Socket(PathBuf),
}

fn parts(text: &str) -> Result<Parts> {
    let url = Url::parse(text.trim()).map_err(|why| wrong(format!("is not a URL: {why}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("does not start with postgres://"));
    }
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
        Err(_) => Err(wrong("holds bytes that are not UTF-8")),
    };
    let mut host = url.host_str().map_or(Ok(None), decoded)?;
    let mut port = url.port();
    let mut parts = Parts {
        host: Host::Name(String::new()),
        port: 0,
        user: decoded(url.username())?,
        password: url.password().map_or(Ok(None), decoded)?,
        database: decoded(url.path().trim_start_matches('/'))?,
        sslmode: None,
    };
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match key.as_ref() {
            "sslmode" => parts.sslmode = Some(value),
            "host" => host = Some(value),
            "port" => port = Some(value.parse().map_err(|_| wrong("has a port that is no port"))?),
            "dbname" => parts.database = Some(value),
            "user" => parts.user = Some(value),
            "password" => parts.password = Some(value),
            // Weir says who it is itself; the name would be lost, not the connection.
            "application_name" => {}
            "connect_timeout" => return Err(wrong("sets \"connect_timeout\": write it as the connection's setting")),
            "sslrootcert" => return Err(wrong("sets \"sslrootcert\": write it as the connection's setting \"ca\"")),
            "sslcert" => return Err(wrong("sets \"sslcert\": write it as the connection's setting \"client_cert\"")),
            "sslkey" => return Err(wrong("sets \"sslkey\": write it as the connection's setting \"client_key\"")),
            key => return Err(wrong(format!("has the parameter \"{key}\", which Weir does not know"))),
        }
    }
    parts.port = port.unwrap_or(5432);
    parts.host = match host {
        None => return Err(wrong("names no host")),
        Some(path) if path.starts_with('/') => Host::Socket(path.into()),
        Some(name) => Host::Name(name),
    };
    Ok(parts)
}

async fn tls(
    name: &str,
    settings: &PostgresConnection,
    host: &Host,
    sslmode: Option<&str>,
    cx: &RunContext,
) -> Result<(PgSslMode, PgConnectOptions)> {
    let mode = mode(settings.tls, host, sslmode)?;
    let mut options = PgConnectOptions::new_without_pgpass();
    let file = |setting: &'static str, path: &str| {
        let (path, written) = (cx.root.join(path), path.to_owned());
        async move {
            tokio::fs::read(&path).await.map_err(|error| {
                Error::user(
                    "certificate-missing",
                    format!("cannot read \"{written}\", the \"{setting}\" of connection \"{name}\": {}", error.kind()),
                )
                .setting(setting)
                .help("write the path of a file in PEM form, from the project's folder")
            })
        }
    };
    let unusable = |setting: &'static str, what: &str| {
        Error::user("certificate-wrong", format!("the \"{setting}\" of connection \"{name}\" holds no {what} in PEM form"))
            .setting(setting)
            .help(format!("PEM is text that begins with -----BEGIN {}-----", what.to_uppercase()))
    };
    if let Some(path) = &settings.ca {
        let pem = file("ca", path).await?;
        let mut found = CertificateDer::pem_slice_iter(&pem);
        if found.next().is_none_or(|first| first.is_err()) || found.any(|other| other.is_err()) {
            return Err(unusable("ca", "certificate"));
        }
        options = options.ssl_root_cert_from_pem(pem);
    }
    match (&settings.client_cert, &settings.client_key) {
        (None, None) => {}
        (Some(path), Some(key)) => {
            let pem = file("client_cert", path).await?;
            if CertificateDer::pem_slice_iter(&pem).next().is_none_or(|first| first.is_err()) {
                return Err(unusable("client_cert", "certificate"));
            }
            let key = match key {
                Secret::Plain(path) if !path.trim_start().starts_with("-----BEGIN") => file("client_key", path).await?,
                secret => secret.reveal(&cx.environment, &cx.root).await?.into_bytes(),
            };
            if PrivateKeyDer::from_pem_slice(&key).is_err() {
                return Err(unusable("client_key", "private key"));
            }
            options = options.ssl_client_cert_from_pem(pem).ssl_client_key_from_pem(key);
        }
        (Some(_), None) => {
            return Err(Error::user("certificate-wrong", format!("connection \"{name}\" has a \"client_cert\" and no \"client_key\""))
                .setting("client_cert")
                .help("add client_key = \"certs/client.key\""));
        }
        (None, Some(_)) => {
            return Err(Error::user("certificate-wrong", format!("connection \"{name}\" has a \"client_key\" and no \"client_cert\""))
                .setting("client_key")
                .help("add client_cert = \"certs/client.pem\""));
        }
    }
    Ok((mode, options))
}

/// Whether the wire is encrypted and the certificate checked: `tls` where it is written, else the URL's `sslmode`, else a checked
/// certificate, except on this machine.
fn mode(tls: Option<Tls>, host: &Host, sslmode: Option<&str>) -> Result<PgSslMode> {
    let local = match host {
        Host::Socket(_) => true,
        Host::Name(name) => {
            let name = name.trim_matches(['[', ']']);
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    match (tls, sslmode) {
        (Some(_), Some(_)) => Err(wrong("sets \"sslmode\", and the connection sets \"tls\": keep one of them")),
        (Some(Tls::Verify), None) => Ok(PgSslMode::VerifyFull),
        (Some(Tls::Off), None) => Ok(PgSslMode::Disable),
        (None, None) if local => Ok(PgSslMode::Disable),
        (None, None) => Ok(PgSslMode::VerifyFull),
        (None, Some("disable")) => Ok(PgSslMode::Disable),
        (None, Some("allow" | "prefer")) => Ok(PgSslMode::Prefer),
        (None, Some("require")) => Ok(PgSslMode::Require),
        (None, Some("verify-ca")) => Ok(PgSslMode::VerifyCa),
        (None, Some("verify-full")) => Ok(PgSslMode::VerifyFull),
        (None, Some(_)) => Err(wrong("has an \"sslmode\" other than disable, allow, prefer, require, verify-ca and verify-full")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host::Name(name.to_owned())
    }

    #[test]
    fn a_url_is_taken_apart() {
        let found = parts("postgres://me:p%40ss@db.example.com:6432/My%20Base?sslmode=require&application_name=x").expect("a URL");
        assert_eq!(
            found,
            Parts {
                host: host("db.example.com"),
                port: 6432,
                user: Some("me".into()),
                password: Some("p@ss".into()),
                database: Some("My Base".into()),
                sslmode: Some("require".into()),
            }
        );
        for url in ["postgres://me@%2Ftmp%2Fpg:7000/x", "postgresql:///x?host=/tmp/pg&user=me&port=7000"] {
            let found = parts(url).expect(url);
            assert_eq!((found.host, found.port, found.user.as_deref()), (Host::Socket("/tmp/pg".into()), 7000, Some("me")), "{url}");
        }
        assert_eq!(parts("postgres://[::1]/x").expect("a URL").host, host("[::1]"));
    }

    #[test]
    fn a_wrong_url_is_told_and_never_repeated() {
        for (url, why) in [
            ("postgres://me:hush@db:notaport/x", "is not a URL: invalid port number"),
            ("mysql://me:hush@db/x", "does not start with postgres://"),
            ("postgres://me:hush@db/x?sslpassword=hush", "has the parameter \"sslpassword\", which Weir does not know"),
            ("postgres://me:hush@db/x?sslrootcert=ca.pem", "sets \"sslrootcert\": write it as the connection's setting \"ca\""),
            ("postgres:///x", "names no host"),
        ] {
            let error = parts(url).expect_err(url);
            assert_eq!(error.message, format!("the connection's \"url\" {why}"));
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn certificates_are_checked_unless_the_server_is_this_machine_or_the_author_says_so() {
        let of = |tls, host: &Host, sslmode| mode(tls, host, sslmode).map(|mode| format!("{mode:?}")).unwrap_or_else(|error| error.message);
        assert_eq!(of(None, &host("db.example.com"), None), "VerifyFull");
        for local in ["localhost", "127.0.0.1", "[::1]", "127.9.9.9"] {
            assert_eq!(of(None, &host(local), None), "Disable");
        }
        assert_eq!(of(None, &Host::Socket("/tmp".into()), None), "Disable");
        assert_eq!(of(Some(Tls::Verify), &host("localhost"), None), "VerifyFull");
        assert_eq!(of(Some(Tls::Off), &host("db"), None), "Disable");
        assert_eq!(of(None, &host("db"), Some("require")), "Require");
        assert_eq!(of(None, &host("localhost"), Some("verify-full")), "VerifyFull");
        assert!(of(Some(Tls::Off), &host("db"), Some("require")).contains("keep one of them"));
        assert!(of(None, &host("db"), Some("never")).contains("other than disable"));
    }
}
