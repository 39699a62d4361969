//! What is there? Catalogues, schemas, tables, their kinds and keys, as Flight SQL lists them: what the caller may see, and nothing else.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_flight::{
    error::FlightError,
    sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables},
};
use datafusion::common::TableReference;
use weir_connectors::Blame;
use weir_engine::{Failure, query::Session};

use super::encode;

/// A table's columns are waited for this long: one that cannot be reached is listed without.
const LOOK: Duration = Duration::from_secs(5);
/// What keeps its rows.
const TABLE: &str = "TABLE";
/// What makes them when they are asked for.
const VIEW: &str = "VIEW";

/// The catalogues.
pub fn catalogs(session: &Session, command: CommandGetCatalogs) -> Result<RecordBatch, Failure> {
    let mut builder = command.into_builder();
    for name in session.context().catalog_names() {
        builder.append(name);
    }
    builder.build().map_err(|error| failed(&error))
}

/// The schemas that a pattern matches. One without tables is there, too, where its catalogue has it.
pub async fn schemas(session: &Session, command: CommandGetDbSchemas) -> Result<RecordBatch, Failure> {
    let mut found: BTreeSet<(String, String)> = session.tables().await?.into_iter().map(|table| (table.catalog, table.schema)).collect();
    let context = session.context();
    for catalog in context.catalog_names() {
        let names = context.catalog(&catalog).map(|provider| provider.schema_names()).unwrap_or_default();
        found.extend(names.into_iter().map(|schema| (catalog.clone(), schema)));
    }
    let mut builder = command.into_builder();
    for (catalog, schema) in found {
        builder.append(catalog, schema);
    }
    builder.build().map_err(|error| failed(&error))
}

/// The tables that patterns match; with their columns, where they are asked for.
pub async fn tables(session: &Session, command: CommandGetTables) -> Result<RecordBatch, Failure> {
    let empty = Schema::empty();
    let mut names = CommandGetTables { include_schema: false, ..command.clone() }.into_builder();
    for table in session.tables().await? {
        let kind = if table.is_view { VIEW } else { TABLE };
        names.append(table.catalog, table.schema, table.table, kind, &empty).map_err(|error| failed(&error))?;
    }
    let names = names.build().map_err(|error| failed(&error))?;
    if !command.include_schema {
        return Ok(names);
    }
    let mut builder = command.into_builder();
    let [catalogs, schemas, tables, kinds] = [0, 1, 2, 3].map(|column| names.column(column).as_string::<i32>());
    for row in 0..names.num_rows() {
        let [catalog, schema, table, kind] = [catalogs, schemas, tables, kinds].map(|column| column.value(row));
        let columns = columns(session, TableReference::full(catalog, schema, table)).await;
        builder.append(catalog, schema, table, kind, &columns).map_err(|error| failed(&error))?;
    }
    builder.build().map_err(|error| failed(&error))
}

async fn columns(session: &Session, table: TableReference) -> SchemaRef {
    match tokio::time::timeout(LOOK, session.context().table_provider(table)).await {
        Ok(Ok(provider)) => encode::plain(&provider.schema()),
        // Why it cannot be reached is said to whoever queries it.
        _ => Arc::new(Schema::empty()),
    }
}

/// The kinds of tables.
pub fn table_types() -> Result<RecordBatch, Failure> {
    let kinds = StringArray::from(vec![TABLE, VIEW]);
    RecordBatch::try_new(table_types_schema(), vec![Arc::new(kinds)]).map_err(|error| failed(&error.into()))
}

/// The columns of [`table_types`].
pub fn table_types_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]))
}

/// The columns of primary keys, of which there are none: the lake has keys of loads, which no table promises.
pub fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The columns of foreign keys, of which there are none.
pub fn foreign_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

fn failed(error: &FlightError) -> Failure {
    Failure::error("output-failed", format!("the answer cannot be put together: {error}")).blame(Blame::Weir)
}
