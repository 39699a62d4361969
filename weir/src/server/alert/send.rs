//! How a message of an alert goes out: the settings of each kind, its secrets, and one try over HTTP or SMTP.

use std::{collections::BTreeMap, fmt, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use weir_connectors::{Blame, Error, secret::Secret};
use weir_engine::{Failure, Workspace};
use weir_pipelines::{Alert, Diagnostic, Diagnostics, Settings};

use super::message::Message;

/// A receiver answers within this.
const ANSWER: Duration = Duration::from_secs(10);
/// It takes a connection within this.
const CONNECT: Duration = Duration::from_secs(5);

/// [alert.NAME.webhook]
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where messages are sent, by POST. Example: `"https://example.com/weir"`.
    url: Secret,
    /// Headers to send besides. Example: `{ Authorization = { env = "OPS_TOKEN" } }`.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
}

/// [alert.NAME.slack]
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The incoming webhook's URL, which is a secret by itself. Example: `{ env = "SLACK_URL" }`.
    url: Secret,
}

/// [alert.NAME.smtp]
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// The server, and its port where it is not the usual one: 587, or 465 with `tls = "tls"`, or 25 with `tls = "none"`. Example: `"mail.example.com"`.
    server: String,
    /// Who writes. Example: `"Weir <weir@example.com>"`.
    from: String,
    /// Who is written to. Example: `["ops@example.com"]`.
    to: Vec<String>,
    /// The user, where the server asks for one.
    user: Option<String>,
    /// Its password. Example: `{ file = "/run/secrets/smtp" }`.
    password: Option<Secret>,
    /// `starttls`, `tls` from the first byte, or `none`. Default `starttls`.
    #[serde(default)]
    tls: SmtpTls,
    #[serde(skip)]
    parsed: Option<Parsed>,
}

/// How a connection to a mail server is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// After a greeting; without it, nothing is sent.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

/// What of the settings has been read.
#[derive(Debug, Clone)]
struct Parsed {
    host: String,
    port: u16,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// [alert.NAME.alertmanager]
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Its base URL. Example: `"http://127.0.0.1:9093"`.
    url: Secret,
    /// Headers to send besides. Example: `{ Authorization = { env = "ALERTMANAGER_TOKEN" } }`.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
}

fn wrong(settings: &Settings, key: &str, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error("wrong-value", message).at(&settings.file, settings.span_of(key), "")
}

/// The same of a value that may be a secret: the line that it stands in is not shown.
fn wrong_secret(settings: &Settings, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error("wrong-value", message).at(&settings.file, settings.kind.span.clone(), "")
}

/// Checks a URL that is written; one kept elsewhere is checked when it is there.
fn check_url(settings: &Settings, url: &Secret, found: &mut Diagnostics) {
    if let Secret::Plain(text) = url
        && let Err(why) = parse_url(text)
    {
        found.push(wrong_secret(settings, format!("\"url\" {why}")));
    }
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL that starts with http:// or https://")?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err("is no URL that starts with http:// or https://"),
    }
}

fn check_headers(settings: &Settings, headers: &BTreeMap<String, Secret>, found: &mut Diagnostics) {
    for (name, value) in headers {
        if HeaderName::try_from(name.as_str()).is_err() {
            found.push(wrong_secret(settings, format!("\"{name}\" cannot be the name of a header")));
        }
        if let Secret::Plain(text) = value
            && HeaderValue::try_from(text.as_str()).is_err()
        {
            let message = format!("the value of the header \"{name}\" has a letter that no header may have");
            found.push(wrong_secret(settings, message));
        }
    }
}

fn or<T>(value: T, found: Diagnostics) -> Result<T, Diagnostics> {
    if found.is_empty() { Ok(value) } else { Err(found) }
}

impl Webhook {
    /// Reads and checks it.
    pub fn read(alert: &Alert) -> Result<Self, Diagnostics> {
        let (webhook, mut found): (Self, _) = (alert.settings.read()?, Diagnostics::new());
        check_url(&alert.settings, &webhook.url, &mut found);
        check_headers(&alert.settings, &webhook.headers, &mut found);
        or(webhook, found)
    }
}

impl Slack {
    /// Reads and checks it.
    pub fn read(alert: &Alert) -> Result<Self, Diagnostics> {
        let (slack, mut found): (Self, _) = (alert.settings.read()?, Diagnostics::new());
        check_url(&alert.settings, &slack.url, &mut found);
        or(slack, found)
    }
}

impl Alertmanager {
    /// Reads and checks it.
    pub fn read(alert: &Alert) -> Result<Self, Diagnostics> {
        let (alertmanager, mut found): (Self, _) = (alert.settings.read()?, Diagnostics::new());
        check_url(&alert.settings, &alertmanager.url, &mut found);
        check_headers(&alert.settings, &alertmanager.headers, &mut found);
        or(alertmanager, found)
    }
}

impl Smtp {
    /// Reads and checks it.
    pub fn read(alert: &Alert) -> Result<Self, Diagnostics> {
        let settings = &alert.settings;
        let (smtp, mut found): (Self, _) = (settings.read()?, Diagnostics::new());
        let place = host_port(&smtp.server, smtp.tls);
        if place.is_none() {
            found.push(wrong(settings, "server", format!("\"{}\" is no name of a server, nor one with a port", smtp.server)));
        }
        let mut mailbox = |key: &str, text: &str| {
            let parsed = text.parse::<Mailbox>();
            if parsed.is_err() {
                let why = wrong(settings, key, format!("\"{text}\" is no mail address"));
                found.push(why.help("write one such as \"ops@example.com\" or \"Weir <weir@example.com>\""));
            }
            parsed.ok()
        };
        let from = mailbox("from", &smtp.from);
        let to: Vec<Mailbox> = smtp.to.iter().filter_map(|text| mailbox("to", text)).collect();
        if smtp.to.is_empty() {
            found.push(wrong(settings, "to", "\"to\" names nobody"));
        }
        match (&smtp.user, &smtp.password) {
            (Some(_), None) => found.push(wrong(settings, "user", "\"user\" needs \"password\"")),
            (None, Some(_)) => found.push(wrong(settings, "password", "\"password\" needs \"user\"")),
            _ => {}
        }
        let is_local = place.as_ref().is_some_and(|(host, _)| host == "localhost" || host.starts_with("127.") || host == "::1");
        if smtp.password.is_some() && smtp.tls == SmtpTls::None && !is_local {
            let why = wrong(settings, "tls", "a password is not sent where anybody on the way can read it");
            found.push(why.help("leave \"tls\" out, or make it \"tls\""));
        }
        if let (true, Some((host, port)), Some(from)) = (found.is_empty(), place, from) {
            return Ok(Self { parsed: Some(Parsed { host, port, from, to }), ..smtp });
        }
        Err(found)
    }
}

/// The host and port of `mail.example.com`, `mail.example.com:2525` or `[::1]:25`.
pub fn host_port(server: &str, tls: SmtpTls) -> Option<(String, u16)> {
    let usual = match tls {
        SmtpTls::Starttls => 587,
        SmtpTls::Tls => 465,
        SmtpTls::None => 25,
    };
    // What a URL may name as its host.
    let url = Url::parse(&format!("smtp://{server}")).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.path().is_empty() && url.query().is_none();
    let host = url.host_str().filter(|host| !host.is_empty() && is_bare && !host.contains(['%', ' ']))?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), url.port().unwrap_or(usual)))
}

/// Whom a message goes to.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// Whoever takes JSON.
    Webhook(Webhook),
    /// A chat.
    Slack(Slack),
    /// People.
    Smtp(Box<Smtp>),
    /// An Alertmanager.
    Alertmanager(Alertmanager),
}

/// What sending needs, shared by all alerts.
#[derive(Clone)]
pub struct Sender {
    workspace: Workspace,
    client: reqwest::Client,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    /// Makes the HTTP client.
    pub fn new(workspace: &Workspace) -> Result<Self, Failure> {
        // A redirect would make another request of it, and carry headers where they are not meant to go.
        let client = reqwest::Client::builder().timeout(ANSWER).connect_timeout(CONNECT).redirect(Policy::none());
        let client = client.user_agent(concat!("weir/", env!("CARGO_PKG_VERSION"))).build();
        let client = client.map_err(|error| Failure::error("tls", format!("no HTTP client can be made: {error}")).blame(Blame::System))?;
        Ok(Self { workspace: workspace.clone(), client })
    }

    async fn reveal(&self, secret: &Secret) -> Result<String, Error> {
        secret.reveal(&self.workspace.environment, &self.workspace.project.root).await
    }

    /// Whether all that a receiver needs is there. Nothing is sent.
    pub async fn try_secrets(&self, receiver: &Receiver) -> Result<(), Error> {
        match receiver {
            Receiver::Webhook(Webhook { url, headers }) | Receiver::Alertmanager(Alertmanager { url, headers }) => {
                self.url(url).await?;
                self.headers(headers).await.map(drop)
            }
            Receiver::Slack(slack) => self.url(&slack.url).await.map(drop),
            Receiver::Smtp(smtp) => match &smtp.password {
                Some(password) => self.reveal(password).await.map(drop),
                None => Ok(()),
            },
        }
    }

    async fn url(&self, url: &Secret) -> Result<Url, Error> {
        let text = self.reveal(url).await?;
        // What it is may be a secret: it is not shown.
        parse_url(&text).map_err(|why| Error::user("wrong-value", format!("\"url\" {why}")))
    }

    async fn headers(&self, headers: &BTreeMap<String, Secret>) -> Result<HeaderMap, Error> {
        let mut all = HeaderMap::new();
        for (name, secret) in headers {
            let wrong = || Error::user("wrong-value", format!("the header \"{name}\" cannot be sent"));
            let mut value = HeaderValue::try_from(self.reveal(secret).await?).map_err(|_| wrong())?;
            value.set_sensitive(true);
            all.insert(HeaderName::try_from(name.as_str()).map_err(|_| wrong())?, value);
        }
        Ok(all)
    }

    async fn post(&self, url: Url, headers: HeaderMap, body: &Value) -> Result<(), String> {
        let request = self.client.post(url).headers(headers).header(CONTENT_TYPE, "application/json").body(body.to_string());
        // The URL may hold a secret: no error shows it.
        let answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered with status {status}")) }
    }

    async fn mail(&self, smtp: &Smtp, message: &Message) -> Result<(), String> {
        let parsed = smtp.parsed.as_ref().ok_or("its settings were not read")?;
        let mut mail = lettre::Message::builder().from(parsed.from.clone()).message_id(None).subject(message.subject());
        for to in &parsed.to {
            mail = mail.to(to.clone());
        }
        let mail = mail.header(ContentType::TEXT_PLAIN).body(format!("{}\n", message.text())).map_err(|error| error.to_string())?;
        let tls = match smtp.tls {
            SmtpTls::None => Tls::None,
            with => {
                let parameters = TlsParameters::new(parsed.host.clone()).map_err(|error| error.to_string())?;
                if with == SmtpTls::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) }
            }
        };
        let mut server =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&parsed.host).port(parsed.port).tls(tls).timeout(Some(ANSWER));
        if let (Some(user), Some(password)) = (&smtp.user, &smtp.password) {
            let password = self.reveal(password).await.map_err(|error| error.message)?;
            server = server.credentials(Credentials::new(user.clone(), password));
        }
        let sent = tokio::time::timeout(ANSWER * 2, server.build().send(mail)).await;
        sent.map_err(|_| "it took too long".to_owned())?.map(drop).map_err(|error| chain(&error))
    }
}

/// An error with what lies beneath it, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        beneath = error.source();
    }
    text.replace(['\r', '\n'], " ")
}

/// One alert's way out.
#[derive(Debug)]
pub struct Post {
    /// The alert's name.
    pub alert: String,
    /// Whom it tells.
    pub receiver: Receiver,
    /// With what.
    pub sender: Sender,
    /// How soon it tells again what stands.
    pub repeat: Duration,
}

impl Post {
    /// Sends a message, in one try. What it was, and any secret, is in no error.
    pub async fn send(&self, message: &Message) -> Result<(), String> {
        let (sender, missing) = (&self.sender, |error: Error| error.message);
        match &self.receiver {
            Receiver::Webhook(webhook) => {
                let (url, headers) = (sender.url(&webhook.url).await, sender.headers(&webhook.headers).await);
                sender.post(url.map_err(missing)?, headers.map_err(missing)?, &message.json()).await
            }
            Receiver::Slack(slack) => sender.post(sender.url(&slack.url).await.map_err(missing)?, HeaderMap::new(), &message.slack()).await,
            Receiver::Alertmanager(alertmanager) => {
                let mut url = sender.url(&alertmanager.url).await.map_err(missing)?;
                let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
                url.set_path(&path);
                let headers = sender.headers(&alertmanager.headers).await.map_err(missing)?;
                sender.post(url, headers, &message.alertmanager(self.repeat)).await
            }
            Receiver::Smtp(smtp) => sender.mail(smtp, message).await,
        }
    }
}
