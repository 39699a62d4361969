//! The lake and the quarantine as catalogues: tables are opened when a query names them, and stay open.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    datasource::TableType,
    error::{DataFusionError, Result as DfResult},
};
use parking_lot::RwLock;
use weir_connectors::lake::{Tables, Version};

/// Delta tables as `SCHEMA.TABLE`, and schemas besides that hold no Delta tables.
#[derive(Debug)]
pub(super) struct DeltaCatalog {
    tables: Arc<Tables>,
    others: RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>,
}

impl DeltaCatalog {
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { tables, others: RwLock::default() }
    }
}

impl CatalogProvider for DeltaCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tables.listed().into_iter().map(|(schema, _)| schema).collect();
        names.extend(self.others.read().keys().cloned());
        // The default schema is there even where it is empty.
        names.push("main".to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(other) = self.others.read().get(name) {
            return Some(other.clone());
        }
        // These have no folder of their own, whoever looks for them.
        if matches!(name, "information_schema" | "pg_catalog") {
            return None;
        }
        Some(Arc::new(DeltaSchema { tables: self.tables.clone(), schema: name.to_owned() }))
    }

    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> DfResult<Option<Arc<dyn SchemaProvider>>> {
        Ok(self.others.write().insert(name.to_owned(), schema))
    }
}

/// One schema.
#[derive(Debug)]
struct DeltaSchema {
    tables: Arc<Tables>,
    schema: String,
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
        self.tables.listed().into_iter().filter(|(schema, _)| *schema == self.schema).map(|(_, table)| table).collect()
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
        Ok(self.tables.table(&self.schema, table, at).await?)
    }

    /// As it is listed: no table is opened for it.
    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let table = name.split_once('@').map_or(name, |(table, _)| table);
        self.tables.listed().iter().any(|(schema, known)| *schema == self.schema && known == table)
    }
}
