//! Which tables are there, by which names? For people: `weir sql`'s listings and completion, and commands that take a table's name.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::{catalog::TableProvider, common::TableReference, datasource::TableType};
use weir_pipelines::Diagnostic;

use super::{Session, TableName};
use crate::{check::Column, error::Result, sql::sql_name};

impl Session {
    /// Every table, with its columns. A table that cannot be opened has none.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        self.inner.list().await?;
        let context = self.context();
        let mut tables = Vec::new();
        let mut catalogs = context.catalog_names();
        // What was ingested first, then what is live.
        catalogs.sort_by_key(|name| (!matches!(name.as_str(), "lake" | "quarantine"), name.clone()));
        for catalog in catalogs {
            let Some(provider) = context.catalog(&catalog) else { continue };
            let mut schemas = provider.schema_names();
            schemas.sort();
            for schema in schemas.into_iter().filter(|schema| !matches!(schema.as_str(), "information_schema" | "pg_catalog")) {
                let Some(provider) = provider.schema(&schema) else { continue };
                let mut names = provider.table_names();
                names.sort();
                for table in names {
                    let opened = provider.table(&table).await.ok().flatten();
                    let kind = provider.table_type(&table).await.ok().flatten();
                    tables.push(TableName {
                        catalog: catalog.clone(),
                        schema: schema.clone(),
                        columns: opened.map(|table| columns(&table.schema())).unwrap_or_default(),
                        is_view: kind == Some(TableType::View),
                        table,
                    });
                }
            }
        }
        Ok(tables)
    }

    /// Connections that had no tables when they were listed last, and why.
    pub fn unreachable(&self) -> Vec<(String, String)> {
        self.inner.catalogue.connections.unreachable(&self.inner.who.scopes)
    }

    /// A table by its qualified name.
    pub async fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        // Names of pipelines may have characters in them that SQL would want quotes for.
        let reference = match name.split('.').collect::<Vec<_>>()[..] {
            [catalog, schema, table] if !name.contains('"') => TableReference::full(catalog, schema, table),
            _ => TableReference::parse_str(name),
        };
        match self.context().table_provider(reference).await {
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

/// Columns with their types as SQL calls them, as answers have them.
fn columns(schema: &Schema) -> Vec<Column> {
    let column =
        |field: &FieldRef| Column { name: field.name().clone(), r#type: sql_name(field.data_type()), nullable: field.is_nullable() };
    schema.fields().iter().map(column).collect()
}
