//! The `postgres` kind: tables of a Postgres database. Here are the settings of sources and connections; what they do is the
//! submodules'.
//!
//! A source reads a table or the answer of a query. A sink loads a table: `append`, `replace`, `merge`, `delete_insert` and
//! `snapshot`. Both name a connection, which `weir.toml` holds under `[connection.NAME.postgres]`.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_pipelines::{Diagnostic, Diagnostics, Settings, units::duration};

mod apply;
mod browse;
pub mod connect;
mod copy;
mod ddl;
mod decode;
mod encode;
pub mod failed;
mod filter;
mod ledger;
pub mod load;
pub mod name;
mod numeric;
mod probe;
mod scan;
mod sink;
mod source;
mod table;
#[cfg(test)]
pub(crate) mod test_server;
mod types;
mod url;
mod write_types;

pub use browse::BROWSE;
pub use encode::{Encoder, Rows};
pub use sink::{PostgresSink, SINK};

use name::TableName;
use types::Numeric;

use crate::{
    Asked, Config, ConnectionKind, Opened, Source, SourceKind,
    context::SourceContext,
    error::{Error, Result},
    secret::Secret,
};

/// Reads a table, or the answer of a query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSource {
    /// The connection's name in `weir.toml`. Example: `"crm"`.
    pub connection: String,
    /// The table to read, with its schema. Either this or `query`. Example: `"public.planes"`.
    pub table: Option<String>,
    /// A query to read the answer of, run in a read-only transaction. Example: `"select * from planes where active"`.
    pub query: Option<String>,
    /// Streams that read a table at once, each over a connection of its own and all of one snapshot; a query has one. Default: one per
    /// processor. Example: `1`.
    pub partitions: Option<usize>,
    /// How `numeric` is read: `"text"`, `"float64"` (rounded), or `"decimal(38,9)"` for columns without a precision of their own.
    /// Default: as the decimal that the column is, and as text where it has no precision. Example: `"decimal(38,9)"`.
    pub numeric: Option<String>,
    /// What becomes of `infinity` in dates, timestamps and intervals, which Arrow has not. Default `"fail"`. Example: `"null"`.
    #[serde(default)]
    pub infinity: Infinity,
}

/// What becomes of `infinity` in dates, timestamps and intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Infinity {
    /// An error.
    #[default]
    Fail,
    /// Null.
    Null,
}

impl PostgresSource {
    fn numeric(&self) -> Result<Numeric> {
        let parsed = self.numeric.as_deref().map(Numeric::parse).transpose();
        parsed.map(Option::unwrap_or_default).map_err(|why| Error::user("wrong-value", why).setting("numeric"))
    }
}

/// Where a database is, and who asks. Works behind pgbouncer in transaction mode.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConnection {
    /// The URL, which may hold the password; `sslmode` in it is obeyed. Example: `{ env = "WAREHOUSE_URL" }`.
    pub url: Secret,
    /// The password, where the URL holds none. Example: `{ file = "/run/secrets/pg" }`.
    pub password: Option<Secret>,
    /// Connections open at once. Default 8. Example: `4`.
    #[serde(default = "pool_max")]
    pub pool_max: u32,
    /// `"verify"`: encrypted, and the server's certificate is checked. `"off"`: neither. Default `"verify"`, and `"off"` where the host is
    /// this machine. Example: `"off"`.
    pub tls: Option<Tls>,
    /// A file with the certificates (PEM) of the authorities that may have signed the server's, besides the public ones. Relative paths
    /// start from the project's folder. Example: `"certs/ca.pem"`.
    pub ca: Option<String>,
    /// A file with the client's certificate (PEM), where the server asks for one. Example: `"certs/client.pem"`.
    pub client_cert: Option<String>,
    /// The client certificate's private key (PEM): a file, or a secret that holds the key itself. Example: `"certs/client.key"`.
    pub client_key: Option<Secret>,
    /// Longest time to connect. Default `"10s"`. Example: `"30s"`.
    pub connect_timeout: Option<String>,
    /// Longest time for one statement, reading or loading a whole table included. Default: the server's own limit, mostly none.
    /// Example: `"1h"`.
    pub statement_timeout: Option<String>,
    /// How long a connection that nobody uses is kept. Default `"10m"`. Example: `"1m"`.
    pub idle_timeout: Option<String>,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Encrypted, and the server's certificate is checked against its name and the authorities.
    Verify,
    /// Not encrypted.
    Off,
}

fn pool_max() -> u32 {
    8
}

/// A connection's times.
struct Times {
    connect: Duration,
    statement: Option<Duration>,
    idle: Duration,
}

impl PostgresConnection {
    /// Reads the times; the error names the setting.
    fn times(&self) -> Result<Times> {
        let time = |setting: &'static str, text: &Option<String>| match text.as_deref().map(duration) {
            None => Ok(None),
            Some(Ok(Duration::ZERO)) => Err(Error::user("wrong-value", format!("\"{setting}\" is more than nothing")).setting(setting)),
            Some(Ok(time)) => Ok(Some(time)),
            Some(Err(why)) => Err(Error::user("wrong-value", format!("\"{setting}\": {why}")).setting(setting)),
        };
        Ok(Times {
            connect: time("connect_timeout", &self.connect_timeout)?.unwrap_or(Duration::from_secs(10)),
            statement: time("statement_timeout", &self.statement_timeout)?,
            idle: time("idle_timeout", &self.idle_timeout)?.unwrap_or(Duration::from_secs(600)),
        })
    }
}

impl Config for PostgresSource {
    const KIND: &'static str = "postgres";
    const SUMMARY: &'static str = "a table or a query of a Postgres database";
    const EXAMPLE: &'static str = r#"[source.planes.postgres]
connection = "crm"
table = "public.planes"
"#;
}

impl Config for PostgresConnection {
    const KIND: &'static str = "postgres";
    const SUMMARY: &'static str = "a Postgres database";
    const EXAMPLE: &'static str = r#"[connection.warehouse.postgres]
url = { env = "WAREHOUSE_URL" }
pool_max = 8
"#;
}

/// The source.
pub const SOURCE: SourceKind = SourceKind {
    kind: PostgresSource::KIND,
    summary: PostgresSource::SUMMARY,
    example: PostgresSource::EXAMPLE,
    schema: || schemars::schema_for!(PostgresSource),
    read: |settings| {
        let source: PostgresSource = settings.read()?;
        let (message, span) = match (&source.table, &source.query) {
            (Some(_), Some(_)) => ("\"table\" and \"query\" exclude each other", settings.span_of("query")),
            (None, None) => ("\"postgres\" needs the setting \"table\" or \"query\"", settings.kind.span.clone()),
            (None, Some(_)) if source.partitions.is_some_and(|partitions| partitions > 1) => {
                ("a query is read by one stream: leave \"partitions\" out", settings.span_of("partitions"))
            }
            _ if source.partitions == Some(0) => ("\"partitions\" is 1 or more", settings.span_of("partitions")),
            _ => {
                let table = source.table.as_deref().map(TableName::parse).transpose();
                return match table.and_then(|_| source.numeric()) {
                    Ok(_) => Ok(Arc::new(source)),
                    Err(error) => Err(vec![told(settings, error)]),
                };
            }
        };
        Err(wrong(settings, message, span))
    },
};

/// The connection.
pub const CONNECTION: ConnectionKind = ConnectionKind {
    kind: PostgresConnection::KIND,
    example: PostgresConnection::EXAMPLE,
    schema: || schemars::schema_for!(PostgresConnection),
    check: |settings| {
        let connection: PostgresConnection = settings.read()?;
        if connection.pool_max == 0 {
            return Err(wrong(settings, "\"pool_max\" is 1 or more", settings.span_of("pool_max")));
        }
        if let Secret::Plain(url) = &connection.url
            && !(url.starts_with("postgres://") || url.starts_with("postgresql://"))
        {
            return Err(wrong(settings, "\"url\" does not start with postgres://", settings.span_of("url")));
        }
        if let Secret::Plain(url) = &connection.url
            && let Err(error) = url::check(url)
        {
            return Err(vec![told(settings, error)]);
        }
        if let Err(error) = connection.times() {
            let setting = error.setting.as_deref().unwrap_or("url");
            return Err(wrong(settings, &error.message, settings.span_of(setting)));
        }
        if connection.client_cert.is_some() != connection.client_key.is_some() {
            let given = if connection.client_cert.is_some() { "client_cert" } else { "client_key" };
            return Err(wrong(settings, "\"client_cert\" and \"client_key\" go together", settings.span_of(given)));
        }
        Ok(())
    },
    probe: |name, cx| Box::pin(probe::probe(name, cx)),
};

/// An error of a setting, where the setting stands.
fn told(settings: &Settings, error: Error) -> Diagnostic {
    let span = error.setting.as_deref().map_or_else(|| settings.kind.span.clone(), |setting| settings.span_of(setting));
    error.help.into_iter().fold(Diagnostic::error(error.code, error.message).at(&settings.file, span, ""), Diagnostic::help)
}

fn wrong(settings: &Settings, message: &str, span: weir_pipelines::Span) -> Diagnostics {
    vec![Diagnostic::error("wrong-value", message).at(&settings.file, span, "")]
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&self, cx: &SourceContext) -> Result<Opened> {
        source::open(self, cx).await
    }

    fn outside(&self) -> Option<Asked> {
        Some(self.asked())
    }

    fn recall(&self, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
        source::recall(self, own, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<T: serde::de::DeserializeOwned>(example: &str, path: [&str; 3]) -> T {
        let table: toml::Table = toml::from_str(example).expect("TOML");
        let mut value = toml::Value::Table(table);
        for part in path {
            value = value.get(part).expect("the example has it").clone();
        }
        value.try_into().expect("settings")
    }

    #[test]
    fn examples_are_settings_and_secrets_stay_unseen() {
        let source: PostgresSource = settings(PostgresSource::EXAMPLE, ["source", "planes", "postgres"]);
        assert_eq!(source.table.as_deref(), Some("public.planes"));
        let sink: PostgresSink = settings(PostgresSink::EXAMPLE, ["sink", "warehouse", "postgres"]);
        assert_eq!(sink.connection, "warehouse");
        let connection: PostgresConnection = settings(PostgresConnection::EXAMPLE, ["connection", "warehouse", "postgres"]);
        assert_eq!(connection.pool_max, 8);
        let plain: PostgresConnection = toml::from_str("url = \"postgres://me:hush@db/x\"").expect("settings");
        assert!(!format!("{plain:?}").contains("hush"));
    }

    #[test]
    fn wrong_settings_are_told() {
        let numeric: PostgresSource = toml::from_str("connection = \"x\"\ntable = \"t\"\nnumeric = \"decimal(99,0)\"").expect("settings");
        let error = numeric.numeric().expect_err("no decimal");
        assert_eq!(error.message, "\"decimal(99,0)\" is no decimal: precision is 1 to 76, scale 0 to the precision");
        let times: PostgresConnection = toml::from_str("url = \"postgres://x\"\nidle_timeout = \"0s\"").expect("settings");
        assert_eq!(times.times().err().expect("no time").message, "\"idle_timeout\" is more than nothing");
    }
}
