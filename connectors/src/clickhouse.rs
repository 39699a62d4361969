//! The `clickhouse` kind: tables of a ClickHouse server, over HTTP. Settings of sources, sinks and connections are read and
//! checked; rows do not move yet.
//!
//! A source reads a table or the answer of a query. A sink loads a MergeTree table. Both name a connection, which
//! `weir.toml` holds under `[connection.NAME.clickhouse]`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_pipelines::{Diagnostic, Diagnostics, Settings};

use crate::{
    Change, Config, ConnectionKind, Load, Opened, Sink, SinkKind, Source, SourceKind,
    context::{RunContext, SinkContext, SourceContext},
    error::{Error, Result},
    secret::Secret,
};

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
}

/// Loads a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseSink {
    /// The connection's name in `weir.toml`. Example: `"olap"`.
    pub connection: String,
    /// The table to load; it is created where it does not exist. Example: `"delays"`.
    pub table: String,
    /// The order that a new table keeps its rows in. Default: the step's key, else none. Example: `["carrier", "time_hour"]`.
    #[serde(default)]
    pub order_by: Vec<String>,
    /// The expression that parts of a new table go by. Default: none. Example: `"toYYYYMM(time_hour)"`.
    pub partition_by: Option<String>,
}

/// Where a server is, and who asks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseConnection {
    /// The URL of the HTTP interface. Example: `"http://127.0.0.1:8123"`.
    pub url: Secret,
    /// The user. Default `default`. Example: `"loader"`.
    pub user: Option<String>,
    /// The password. Default: none. Example: `{ file = "/run/secrets/clickhouse" }`.
    pub password: Option<Secret>,
    /// The database. Default `default`. Example: `"analytics"`.
    pub database: Option<String>,
}

impl Config for ClickhouseSource {
    const KIND: &'static str = "clickhouse";
    const SUMMARY: &'static str = "a table or a query of a ClickHouse server (checked; does not run in this version)";
    const EXAMPLE: &'static str = r#"[source.delays.clickhouse]
connection = "olap"
table = "delays"
"#;
}

impl Config for ClickhouseSink {
    const KIND: &'static str = "clickhouse";
    const SUMMARY: &'static str = "a table of a ClickHouse server (checked; does not run in this version)";
    const EXAMPLE: &'static str = r#"[sink.olap]
from = "latest"
mode = "append"
[sink.olap.clickhouse]
connection = "olap"
table = "delays"
order_by = ["carrier", "time_hour"]
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
            (Some(_), Some(_)) => ("\"table\" and \"query\" exclude each other", settings.span_of("query")),
            (None, None) => ("\"clickhouse\" needs the setting \"table\" or \"query\"", settings.kind.span.clone()),
            _ => return Ok(Arc::new(source)),
        };
        Err(wrong(settings, message, span))
    },
};

/// The sink.
pub const SINK: SinkKind = SinkKind {
    kind: ClickhouseSink::KIND,
    summary: ClickhouseSink::SUMMARY,
    example: ClickhouseSink::EXAMPLE,
    schema: || schemars::schema_for!(ClickhouseSink),
    read: |settings| Ok(Arc::new(settings.read::<ClickhouseSink>()?)),
    resume: |_, _: &Arc<RunContext>| Err(not_built()),
};

/// The connection.
pub const CONNECTION: ConnectionKind = ConnectionKind {
    kind: ClickhouseConnection::KIND,
    example: ClickhouseConnection::EXAMPLE,
    schema: || schemars::schema_for!(ClickhouseConnection),
    check: |settings| {
        let connection: ClickhouseConnection = settings.read()?;
        match &connection.url {
            Secret::Plain(url) if !(url.starts_with("http://") || url.starts_with("https://")) => {
                Err(wrong(settings, "\"url\" does not start with http:// or https://", settings.span_of("url")))
            }
            _ => Ok(()),
        }
    },
};

fn wrong(settings: &Settings, message: &str, span: weir_pipelines::Span) -> Diagnostics {
    vec![Diagnostic::error("wrong-value", message).at(&settings.file, span, "")]
}

fn not_built() -> Error {
    Error::user("not-built", "\"clickhouse\" steps are checked but cannot run in this version")
        .help("use \"file\" sources, and \"lake\" or \"file\" sinks, until a version that has it")
}

#[async_trait]
impl Source for ClickhouseSource {
    async fn open(&self, _: &SourceContext) -> Result<Opened> {
        Err(not_built())
    }
}

#[async_trait]
impl Sink for ClickhouseSink {
    fn destination(&self, _: &SinkContext) -> String {
        format!("{}.{}", self.connection, self.table)
    }

    async fn plan(&self, _: &SchemaRef, _: &SinkContext) -> Result<Change> {
        Err(not_built())
    }

    async fn open(&self, _: &SchemaRef, _: &SinkContext) -> Result<Arc<dyn Load>> {
        Err(not_built())
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
    fn a_step_that_cannot_run_says_so() {
        let error = not_built();
        assert_eq!((error.code, error.message.as_str()), ("not-built", "\"clickhouse\" steps are checked but cannot run in this version"));
        assert!(error.help.is_some());
    }
}
