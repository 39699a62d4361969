//! The `clickhouse` kind: tables of a ClickHouse server, over HTTP. Here are the settings of sources and connections; connecting is
//! `connect.rs`'s, reading `source.rs`'s and `read.rs`'s, loading `sink.rs`'s.
//!
//! A source reads a table or the answer of a query. A sink loads a MergeTree table. Both name a connection, which
//! `weir.toml` holds under `[connection.NAME.clickhouse]`. The connection's user must be allowed to change settings of a query
//! (`readonly` 0 or 2 in its profile): rows travel in Arrow's format, which settings make exact.
//!
//! Rows come as ClickHouse has them. What Arrow has no type for comes as text: `UUID`, `IPv4`, `IPv6`, `Enum`, `Int256`, `UInt256`, and
//! `JSON`, `Dynamic` and `Variant` as JSON or as their text. `Int128` and `UInt128` are decimals of 39 digits. `DateTime` without a zone is
//! an instant, shown in UTC. A `String` may hold any bytes: one that is not UTF-8 ends the run with its column's name, and `binary` reads
//! such columns as bytes. `AggregateFunction` holds no value; `finalizeAggregation(column)` in a query makes one.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use weir_pipelines::{Diagnostic, Diagnostics, Settings};

mod browse;
mod connect;
mod encode;
mod failed;
mod fill;
mod load;
mod name;
mod probe;
mod publish;
mod read;
mod rewrite;
mod sink;
mod source;
mod table;
#[cfg(test)]
mod test_server;
mod types;
mod write_types;

pub use browse::BROWSE;
pub use sink::{ClickhouseSink, SINK};

use crate::{Config, ConnectionKind, SourceKind, secret::Secret};

/// Reads a table, or the answer of a query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseSource {
    /// The connection's name in `weir.toml`. Example: `"olap"`.
    pub connection: String,
    /// The table to read, with its database where that is not the connection's. Either this or `query`. Example: `"delays"`.
    pub table: Option<String>,
    /// A query to read the answer of. Example: `"select * from delays final"`.
    pub query: Option<String>,
    /// Reads a table as it is once its parts are merged: of a ReplacingMergeTree one row per key. Default false.
    #[serde(default, rename = "final")]
    pub merged: bool,
    /// Columns of `String` that hold bytes rather than UTF-8 text. Example: `["payload"]`.
    #[serde(default)]
    pub binary: Vec<String>,
}

/// Where a server is, and who asks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseConnection {
    /// The URL of the HTTP interface; it may hold user and password. Example: `"http://127.0.0.1:8123"`.
    pub url: Secret,
    /// The user. Default `default`. Example: `"loader"`.
    pub user: Option<String>,
    /// The password. Default: none. Example: `{ file = "/run/secrets/clickhouse" }`.
    pub password: Option<Secret>,
    /// The database. Default `default`. Example: `"analytics"`.
    pub database: Option<String>,
    /// How rows are compressed on their way: `lz4` or `none`. Default: `none` where the server is on this machine, else `lz4`.
    pub compression: Option<Transport>,
    /// A file of PEM certificates: only what they vouch for is trusted. Default: what the system trusts. Example: `"certs/ca.pem"`.
    pub ca: Option<String>,
    /// A file with this client's own PEM certificate, where the server asks for one. Example: `"certs/loader.pem"`.
    pub client_cert: Option<String>,
    /// A file with its PEM key. Example: `"/run/secrets/loader.key"`.
    pub client_key: Option<String>,
    /// How long connecting and the first answer may take. Default `10s`. Example: `"30s"`.
    #[serde(default)]
    pub connect_timeout: ConnectTimeout,
    /// How long one query may take, which the server watches too. Default: no limit of ours. Example: `"30m"`.
    pub query_timeout: Option<Span>,
    /// How long a connection that nobody uses is kept: less than the server keeps it. Default `2s`. Example: `"30s"`.
    pub idle_timeout: Option<Span>,
    /// Requests under way at once. Default 8. Example: `4`.
    #[serde(default = "pool_max")]
    pub pool_max: u32,
}

/// How rows are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// LZ4: fast, about half the bytes.
    Lz4,
    /// Not at all.
    None,
}

/// A duration as people write it: `90s`, `10m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let duration = weir_pipelines::units::duration(&text)?;
        if duration.is_zero() { Err(format!("\"{text}\" is no time at all")) } else { Ok(Span(duration)) }
    }
}

/// How long connecting may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ConnectTimeout(pub Span);

impl Default for ConnectTimeout {
    fn default() -> Self {
        ConnectTimeout(Span(Duration::from_secs(10)))
    }
}

fn pool_max() -> u32 {
    8
}

impl Config for ClickhouseSource {
    const KIND: &'static str = "clickhouse";
    const SUMMARY: &'static str = "a table or a query of a ClickHouse server";
    const EXAMPLE: &'static str = r#"[source.delays.clickhouse]
connection = "olap"
table = "delays"
"#;
}

impl Config for ClickhouseConnection {
    const KIND: &'static str = "clickhouse";
    const SUMMARY: &'static str = "a ClickHouse server";
    const EXAMPLE: &'static str = r#"[connection.olap.clickhouse]
url = "http://127.0.0.1:8123"
user = "loader"
password = { file = "/run/secrets/clickhouse" }
"#;
}

/// The source.
pub const SOURCE: SourceKind = SourceKind {
    kind: ClickhouseSource::KIND,
    summary: ClickhouseSource::SUMMARY,
    example: ClickhouseSource::EXAMPLE,
    schema: || schemars::schema_for!(ClickhouseSource),
    read: |settings| {
        let source: ClickhouseSource = settings.read()?;
        let (message, span) = match (&source.table, &source.query) {
            (None, Some(_)) if source.merged => ("\"final\" is for a \"table\": write it into the query", settings.span_of("final")),
            (Some(_), Some(_)) => ("\"table\" and \"query\" exclude each other", settings.span_of("query")),
            (None, None) => ("\"clickhouse\" needs the setting \"table\" or \"query\"", settings.kind.span.clone()),
            _ => return Ok(Arc::new(source)),
        };
        Err(wrong(settings, message, span))
    },
};

/// The connection.
pub const CONNECTION: ConnectionKind = ConnectionKind {
    kind: ClickhouseConnection::KIND,
    example: ClickhouseConnection::EXAMPLE,
    schema: || schemars::schema_for!(ClickhouseConnection),
    check: |settings| {
        let connection: ClickhouseConnection = settings.read()?;
        if let Secret::Plain(url) = &connection.url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return Err(wrong(settings, "\"url\" does not start with http:// or https://", settings.span_of("url")));
        }
        if connection.pool_max == 0 {
            return Err(wrong(settings, "\"pool_max\" is 1 or more", settings.span_of("pool_max")));
        }
        match (&connection.client_cert, &connection.client_key) {
            (Some(_), None) => Err(wrong(settings, "\"client_cert\" needs \"client_key\"", settings.span_of("client_cert"))),
            (None, Some(_)) => Err(wrong(settings, "\"client_key\" needs \"client_cert\"", settings.span_of("client_key"))),
            _ => Ok(()),
        }
    },
    probe: |name, run| Box::pin(probe::probe(name, run)),
};

fn wrong(settings: &Settings, message: &str, span: weir_pipelines::Span) -> Diagnostics {
    vec![Diagnostic::error("wrong-value", message).at(&settings.file, span, "")]
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
        let source: ClickhouseSource = settings(ClickhouseSource::EXAMPLE, ["source", "delays", "clickhouse"]);
        assert_eq!(source.table.as_deref(), Some("delays"));
        let sink: ClickhouseSink = settings(ClickhouseSink::EXAMPLE, ["sink", "olap", "clickhouse"]);
        assert_eq!(sink.order_by, ["carrier", "time_hour"]);
        let connection: ClickhouseConnection = settings(ClickhouseConnection::EXAMPLE, ["connection", "olap", "clickhouse"]);
        assert_eq!(connection.user.as_deref(), Some("loader"));
        let plain: ClickhouseConnection = toml::from_str("url = \"http://h\"\npassword = \"hush\"").expect("settings");
        assert!(!format!("{plain:?}").contains("hush"));
    }

    #[test]
    fn what_a_connection_may_not_say_is_told() {
        for (text, why) in [
            ("url = \"http://h\"\nconnect_timeout = \"soon\"", "\"soon\" is not a duration"),
            ("url = \"http://h\"\nquery_timeout = \"0s\"", "\"0s\" is no time at all"),
            ("url = \"http://h\"\ncompression = \"zip\"", "unknown variant `zip`"),
            ("url = \"http://h\"\nverify = false", "unknown field `verify`"),
        ] {
            let error = toml::from_str::<ClickhouseConnection>(text).expect_err("refused");
            assert!(error.message().contains(why), "{text}: {error}");
        }
        let connection: ClickhouseConnection = toml::from_str("url = \"http://h\"").expect("settings");
        assert_eq!((connection.pool_max, connection.connect_timeout.0.0), (8, Duration::from_secs(10)));
    }
}
