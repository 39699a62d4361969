//! Ad-hoc SQL, read-only: `lake.<schema>.<table>` (and `"<table>@<version>"` for an older state), `quarantine.<pipeline>.<step>`,
//! and the tables of `weir.` (`query/own.rs`). One statement at a time; whatever would change something is refused.

use std::{collections::HashMap, sync::Arc};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::{
    catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider},
    common::TableReference,
    error::{DataFusionError, Result as DfResult},
    execution::{SendableRecordBatchStream, SessionStateBuilder, context::SQLOptions},
    physical_plan::stream::RecordBatchStreamAdapter,
    prelude::{DataFrame, SessionConfig, SessionContext},
    sql::parser::Statement,
    sql::sqlparser::{
        ast,
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use futures::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use weir_connectors::{
    lake::{self, Version},
    quote,
};
use weir_pipelines::{Diagnostic, SourceFile, SqlText};

use crate::{
    check::{Column, columns},
    error::{Failure, Result},
    sql::{diagnose, explain},
    workspace::Workspace,
};

mod own;

/// A session that knows everything ingested.
pub struct Session {
    session: SessionContext,
}

/// A table a query may name.
#[derive(Debug, Clone, Serialize)]
pub struct TableName {
    /// `lake` or `quarantine`.
    pub catalog: String,
    /// The schema, or the pipeline.
    pub schema: String,
    /// The table, or the step.
    pub table: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

impl Session {
    /// Opens a session over the lake, the quarantine and the run history as they are now.
    pub async fn open(workspace: &Workspace) -> Result<Self> {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema("lake", "main")
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_target_partitions(workspace.cpus);
        config.options_mut().sql_parser.collect_spans = true;
        config.options_mut().execution.parquet.pushdown_filters = true;
        let state =
            SessionStateBuilder::new().with_config(config).with_runtime_env(workspace.runtime(None)?).with_default_features().build();
        let mut session = SessionContext::new_with_state(state);
        datafusion_functions_json::register_all(&mut session).map_err(|error| crate::run::explain(&error))?;
        let environment = &workspace.environment;
        let quarantine = workspace.state_dir.join("quarantine").display().to_string();
        let mut lake = DeltaCatalog::list(&workspace.lake, environment).await?;
        // Present even when empty, so that an unqualified name is answered by "no such table", not by "no such schema".
        lake.schemas.entry("main".to_owned()).or_insert_with(|| Arc::new(MemorySchemaProvider::new()));
        lake.schemas.insert("weir".to_owned(), own::history_schema(workspace).await?);
        session.register_catalog("lake", Arc::new(lake));
        session.register_catalog("quarantine", Arc::new(DeltaCatalog::list(&quarantine, environment).await?));
        Ok(Self { session })
    }

    /// Answers one query. Cancelling ends its stream with an error.
    pub async fn query(&self, sql: &str, cancel: CancellationToken) -> Result<SendableRecordBatchStream> {
        let sql = &time_travel(sql);
        let text = SqlText::plain(SourceFile::new("<sql>", sql.as_str()));
        self.read_only(&text)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let planned = async {
            let frame = self.session.sql_with_options(sql, options).await?;
            frame.execute_stream().await
        };
        let stream = tokio::select! {
            stream = planned => match stream {
                Ok(stream) => stream,
                Err(error) => return Err(refuse(&self.session, &error, &text).await),
            },
            () = cancel.cancelled() => return Err(Failure::Interrupted),
        };
        let schema = stream.schema();
        // An end that was forced must not look like the end of the rows.
        let stopped = futures::stream::unfold(Some((stream, cancel)), async |state| {
            let (mut stream, cancel) = state?;
            tokio::select! {
                batch = stream.next() => batch.map(|batch| (batch, Some((stream, cancel)))),
                () = cancel.cancelled() => Some((Err(DataFusionError::Execution("the query was cancelled".into())), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stopped)))
    }

    /// Refuses what is no query before its tables are looked up.
    fn read_only(&self, text: &SqlText) -> Result<()> {
        text.check_depth()?;
        let dialect = self.session.copied_config().options().sql_parser.dialect;
        let parsed = self.session.state().sql_to_statement(&text.text, &dialect).map_err(|error| diagnose(&error, text))?;
        let reads = match &parsed {
            Statement::Explain(_) => true,
            Statement::Statement(statement) => matches!(
                statement.as_ref(),
                ast::Statement::Query(_)
                    | ast::Statement::ExplainTable { .. }
                    | ast::Statement::ShowTables { .. }
                    | ast::Statement::ShowColumns { .. }
                    | ast::Statement::ShowVariable { .. }
                    | ast::Statement::ShowFunctions { .. }
            ),
            _ => false,
        };
        if reads {
            return Ok(());
        }
        let refused = Diagnostic::error("read-only", "only queries are answered here, nothing is changed");
        Err(refused.at(&text.file, text.span.clone(), "").help("tables change by running pipelines").into())
    }

    /// Answers one query with all its rows.
    pub async fn collect(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut stream = self.query(sql, CancellationToken::new()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(|error| crate::run::explain(&error))?);
        }
        Ok(batches)
    }

    /// A quarantine table.
    pub async fn quarantined(&self, pipeline: &str, step: &str) -> Result<DataFrame> {
        self.session.table(TableReference::full("quarantine", pipeline, step)).await.map_err(|error| crate::run::explain(&error))
    }

    /// Every table, with its columns. A table that cannot be opened has none.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        let mut tables = Vec::new();
        for catalog in ["lake", "quarantine"] {
            let Some(provider) = self.session.catalog(catalog) else { continue };
            let mut schemas = provider.schema_names();
            schemas.sort();
            for schema in schemas.into_iter().filter(|schema| schema != "information_schema") {
                let Some(provider) = provider.schema(&schema) else { continue };
                let mut names = provider.table_names();
                names.sort();
                for table in names {
                    let opened = provider.table(&table).await.ok().flatten();
                    tables.push(TableName {
                        catalog: catalog.to_owned(),
                        schema: schema.clone(),
                        columns: opened.map(|table| columns(&table.schema())).unwrap_or_default(),
                        table,
                    });
                }
            }
        }
        Ok(tables)
    }

    /// A session with the same memory and stores that knows no tables.
    pub fn apart(&self) -> SessionContext {
        crate::plan::fork(&self.session)
    }

    /// A table by its qualified name.
    pub async fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        // Names of pipelines may have characters in them that SQL would want quotes for.
        let reference = match name.split('.').collect::<Vec<_>>()[..] {
            [catalog, schema, table] if !name.contains('"') => TableReference::full(catalog, schema, table),
            _ => TableReference::parse_str(name),
        };
        match self.session.table_provider(reference).await {
            Ok(table) => Ok(table),
            Err(error) if weir_connectors::Error::find(&error).is_some() => Err(crate::run::explain(&error)),
            Err(_) => {
                let tables = self.tables().await?;
                let known: Vec<String> = tables.iter().map(|table| format!("{}.{}.{}", table.catalog, table.schema, table.table)).collect();
                let missing = Diagnostic::error("unknown-table", format!("there is no table \"{name}\""))
                    .did_you_mean(name, known.iter().map(String::as_str));
                let help = match known.is_empty() {
                    true => "there are no tables yet: run a pipeline first".to_owned(),
                    false => format!("tables are: {}", crate::transforms::listed(&known)),
                };
                Err(missing.help(help).into())
            }
        }
    }

    /// Words for completion: qualified tables, and columns.
    pub async fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for table in self.tables().await.unwrap_or_default() {
            names.push(format!("{}.{}.{}", table.catalog, table.schema, table.table));
            names.extend(table.columns.into_iter().map(|column| column.name));
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Turns `table version as of 3` and `table timestamp as of '2026-01-31'`, which DataFusion's parser does not know, into
/// `"table@3"` and `"table@2026-01-31"`.
fn time_travel(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location() else { return sql.to_owned() };
    let tokens: Vec<_> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect();
    let file = SqlText::plain(SourceFile::new("<sql>", sql));
    let offset = |line, column| file.span_of_line_column(line, column, Some((line, column))).start;
    let word = |at: usize, words: &[&str]| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
        _ => false,
    };
    let (mut answer, mut done) = (String::new(), 0);
    for at in 1..tokens.len() {
        if !(word(at, &["version", "timestamp"]) && word(at + 1, &["as"]) && word(at + 2, &["of"])) {
            continue;
        }
        let (Token::Word(table), Some(version)) = (&tokens[at - 1].token, tokens.get(at + 3)) else { continue };
        let value = match &version.token {
            Token::Number(number, _) => number.clone(),
            Token::SingleQuotedString(text) => text.clone(),
            _ => continue,
        };
        let name = if table.quote_style.is_some() { table.value.clone() } else { table.value.to_lowercase() };
        let start = tokens[at - 1].span.start;
        answer.push_str(&sql[done..offset(start.line, start.column)]);
        answer.push_str(&quote::identifier(&format!("{name}@{value}")));
        done = offset(version.span.end.line, version.span.end.column);
    }
    answer.push_str(&sql[done..]);
    answer
}

async fn refuse(session: &SessionContext, error: &DataFusionError, text: &SqlText) -> Failure {
    if weir_connectors::Error::find(error).is_some() || matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        return crate::run::explain(error);
    }
    explain(session, text, error).await.into()
}

/// The Delta tables under a folder: `<folder>/<schema>/<table>`.
#[derive(Debug)]
struct DeltaCatalog {
    schemas: HashMap<String, Arc<dyn SchemaProvider>>,
}

impl DeltaCatalog {
    async fn list(root: &str, environment: &Arc<HashMap<String, String>>) -> Result<Self> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for (schema, table) in lake::tables(root, environment).await? {
            names.entry(schema).or_default().push(table);
        }
        let schemas = names.into_iter().map(|(schema, tables)| {
            let provider = DeltaSchema { root: root.to_owned(), environment: environment.clone(), schema: schema.clone(), tables };
            (schema, Arc::new(provider) as Arc<dyn SchemaProvider>)
        });
        Ok(Self { schemas: schemas.collect() })
    }
}

impl CatalogProvider for DeltaCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).cloned()
    }
}

/// One schema; its tables are opened when a query names them.
#[derive(Debug)]
struct DeltaSchema {
    root: String,
    environment: Arc<HashMap<String, String>>,
    schema: String,
    tables: Vec<String>,
}

/// What follows the `@` of a table's name: a version, a date or an instant.
fn version(text: &str) -> Option<Version> {
    if let Ok(number) = text.parse() {
        return Some(Version::Number(number));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(Version::At(at.with_timezone(&Utc)));
    }
    let end_of_day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_micro_opt(23, 59, 59, 999_999)?;
    Some(Version::At(end_of_day.and_utc()))
}

#[async_trait]
impl SchemaProvider for DeltaSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.clone()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let (table, at) = match name.split_once('@') {
            Some((table, text)) => {
                let Some(version) = version(text) else {
                    return Err(DataFusionError::Plan(format!(
                        "\"{text}\" is no version: write \"{table}@3\", \"{table}@2026-01-31\" or \"{table}@2026-01-31T06:00:00Z\""
                    )));
                };
                (table, version)
            }
            None => (name, Version::Newest),
        };
        if !self.tables.iter().any(|known| known == table) {
            return Ok(None);
        }
        let opened = lake::open_table(&self.root, &self.environment, &self.schema, table, at).await?;
        match opened {
            Some(table) => Ok(Some(lake::provider(&table).await?)),
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        let table = name.split_once('@').map_or(name, |(table, _)| table);
        self.tables.iter().any(|known| known == table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_becomes_part_of_the_name() {
        let cases = [
            ("select * from lake.a.b version as of 3", "select * from lake.a.\"b@3\""),
            ("select * from B VERSION AS OF 3 x, c", "select * from \"b@3\" x, c"),
            ("select 1 from \"B\" timestamp as of '2026-01-31' where x = 1", "select 1 from \"B@2026-01-31\" where x = 1"),
            ("select 'é', version from t -- version as of 3", "select 'é', version from t -- version as of 3"),
            ("select * from 'torn", "select * from 'torn"),
        ];
        for (sql, expected) in cases {
            assert_eq!(time_travel(sql), expected);
        }
    }
}
