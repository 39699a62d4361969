//! The `postgres` kind: tables of a Postgres database. Settings of sources, sinks and connections are read and checked;
//! rows do not move yet.
//!
//! A source reads a table or the answer of a query. A sink loads a table: `append`, `replace`, `merge`, `delete_insert` and
//! `snapshot`. Both name a connection, which `weir.toml` holds under `[connection.NAME.postgres]`.

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
pub struct PostgresSource {
    /// The connection's name in `weir.toml`. Example: `"crm"`.
    pub connection: String,
    /// The table to read, with its schema. Either this or `query`. Example: `"public.planes"`.
    pub table: Option<String>,
    /// A query to read the answer of, run in a read-only transaction. Example: `"select * from planes where active"`.
    pub query: Option<String>,
}

/// Loads a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSink {
    /// The connection's name in `weir.toml`. Example: `"warehouse"`.
    pub connection: String,
    /// The table to load, with its schema; it is created where it does not exist. Example: `"analytics.delays"`.
    pub table: String,
}

/// Where a database is, and who asks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConnection {
    /// The URL, which may hold user and password. Example: `{ env = "WAREHOUSE_URL" }`.
    pub url: Secret,
    /// The password, where the URL holds none. Example: `{ file = "/run/secrets/pg" }`.
    pub password: Option<Secret>,
    /// Connections open at once. Default 8. Example: `4`.
    #[serde(default = "pool_max")]
    pub pool_max: u32,
}

fn pool_max() -> u32 {
    8
}

impl Config for PostgresSource {
    const KIND: &'static str = "postgres";
    const SUMMARY: &'static str = "a table or a query of a Postgres database (checked; does not run in this version)";
    const EXAMPLE: &'static str = r#"[source.planes.postgres]
connection = "crm"
table = "public.planes"
"#;
}

impl Config for PostgresSink {
    const KIND: &'static str = "postgres";
    const SUMMARY: &'static str = "a table of a Postgres database (checked; does not run in this version)";
    const EXAMPLE: &'static str = r#"[sink.warehouse]
from = "latest"
mode = "append"
[sink.warehouse.postgres]
connection = "warehouse"
table = "analytics.delays"
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
            _ => return Ok(Arc::new(source)),
        };
        Err(wrong(settings, message, span))
    },
};

/// The sink.
pub const SINK: SinkKind = SinkKind {
    kind: PostgresSink::KIND,
    summary: PostgresSink::SUMMARY,
    example: PostgresSink::EXAMPLE,
    schema: || schemars::schema_for!(PostgresSink),
    read: |settings| Ok(Arc::new(settings.read::<PostgresSink>()?)),
    resume: |_, _: &Arc<RunContext>| Err(not_built()),
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
        Ok(())
    },
};

fn wrong(settings: &Settings, message: &str, span: weir_pipelines::Span) -> Diagnostics {
    vec![Diagnostic::error("wrong-value", message).at(&settings.file, span, "")]
}

fn not_built() -> Error {
    Error::user("not-built", "\"postgres\" steps are checked but cannot run in this version")
        .help("use \"file\" sources, and \"lake\" or \"file\" sinks, until a version that has it")
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&self, _: &SourceContext) -> Result<Opened> {
        Err(not_built())
    }
}

#[async_trait]
impl Sink for PostgresSink {
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
    fn a_step_that_cannot_run_says_so() {
        let error = not_built();
        assert_eq!((error.code, error.message.as_str()), ("not-built", "\"postgres\" steps are checked but cannot run in this version"));
        assert!(error.help.is_some());
    }
}
