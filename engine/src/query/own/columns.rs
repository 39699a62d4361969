//! `weir.columns`: what each column of the lake is, and which pipeline, step and contract say so.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, SchemaRef},
};
use datafusion::error::Result as DfResult;
use serde_json::Value;
use weir_connectors::{
    Config,
    lake::{LakeConfig, Tables, Version},
};
use weir_pipelines::{Pipeline, Rules};

use super::batch;
use crate::{scheduler::Pipelines, workspace::Workspace};

/// A step that loads a table.
struct Loaded<'a> {
    pipeline: &'a Pipeline,
    sink: &'a str,
    from: &'a str,
}

/// The columns of all tables of the lake; a table that cannot be opened has none.
pub(super) async fn table(workspace: &Workspace, tables: &Tables, pipelines: &Pipelines) -> DfResult<RecordBatch> {
    tables.list().await?;
    let mut found = Vec::new();
    for (schema, table) in tables.listed() {
        let opened = tables.table(&schema, &table, Version::Newest).await.ok().flatten();
        found.extend(opened.map(|opened| (schema, table, opened.schema())));
    }
    let mut rows: Vec<Row> = Vec::new();
    let loads = loads(pipelines);
    for (schema, table, columns) in found {
        let loaded = loads.get(&format!("{schema}.{table}")).map_or(&[][..], Vec::as_slice);
        add(&mut rows, workspace, &schema, &table, &columns, loaded);
    }
    let text = |of: fn(&Row) -> Option<&String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as _;
    batch(vec![
        ("schema", text(|row| Some(&row.schema))),
        ("table", text(|row| Some(&row.table))),
        ("column", text(|row| Some(&row.column))),
        ("position", Arc::new(rows.iter().map(|row| Some(row.position)).collect::<UInt64Array>()) as _),
        ("type", text(|row| Some(&row.kind))),
        ("nullable", Arc::new(rows.iter().map(|row| Some(row.nullable)).collect::<BooleanArray>()) as _),
        ("description", text(|row| row.description.as_ref())),
        ("pipeline", text(|row| row.pipeline.as_ref())),
        ("sink", text(|row| row.sink.as_ref())),
        ("step", text(|row| row.step.as_ref())),
        ("contract", text(|row| row.contract.as_ref())),
    ])
}

#[derive(Debug, Default, Clone)]
struct Row {
    schema: String,
    table: String,
    column: String,
    position: u64,
    kind: String,
    nullable: bool,
    description: Option<String>,
    pipeline: Option<String>,
    sink: Option<String>,
    step: Option<String>,
    contract: Option<String>,
}

/// Which sinks load which table.
fn loads(pipelines: &Pipelines) -> BTreeMap<String, Vec<Loaded<'_>>> {
    let mut loads: BTreeMap<String, Vec<Loaded<'_>>> = BTreeMap::new();
    for pipeline in pipelines.values() {
        for sink in pipeline.sinks.iter().filter(|sink| sink.settings.kind.value == LakeConfig::KIND) {
            let Ok(config) = sink.settings.read::<LakeConfig>() else { continue };
            let table = if config.table.contains('.') { config.table } else { format!("main.{}", config.table) };
            loads.entry(table).or_default().push(Loaded { pipeline, sink: &sink.name.value, from: &sink.from.value });
        }
    }
    loads
}

fn add(rows: &mut Vec<Row>, workspace: &Workspace, schema: &str, table: &str, columns: &SchemaRef, loaded: &[Loaded<'_>]) {
    for (at, field) in columns.fields().iter().enumerate() {
        let row = Row {
            schema: schema.to_owned(),
            table: table.to_owned(),
            column: field.name().clone(),
            position: at as u64 + 1,
            kind: shown(field.data_type()),
            nullable: field.is_nullable(),
            ..Row::default()
        };
        if loaded.is_empty() {
            rows.push(row.clone());
        }
        for load in loaded {
            let declared = declared(workspace, load.pipeline, load.from, field.name());
            let (step, contract, description) =
                declared.map_or((load.from.to_owned(), None, None), |(step, contract, text)| (step, Some(contract), text));
            rows.push(Row {
                pipeline: Some(load.pipeline.name.value.clone()),
                sink: Some(load.sink.to_owned()),
                step: Some(step),
                contract,
                description,
                ..row.clone()
            });
        }
    }
}

fn shown(kind: &DataType) -> String {
    crate::sql::sql_name(kind)
}

/// The nearest step towards the sources whose contract declares a column, with that contract and what it says of the column.
fn declared(workspace: &Workspace, pipeline: &Pipeline, step: &str, column: &str) -> Option<(String, String, Option<String>)> {
    let (rules, inputs) = step_of(pipeline, step)?;
    if let Some(path) = &rules.contract
        && let Ok(written) = workspace.contracts.read(pipeline, path)
        && let Ok(schema) = serde_json::from_str::<Value>(&written.file.text)
        && let Some(property) = schema.get("properties").and_then(|properties| properties.get(column))
    {
        let text = property.get("description").or_else(|| property.get("title")).and_then(Value::as_str).map(str::to_owned);
        return Some((step.to_owned(), path.value.clone(), text));
    }
    // Steps come before those that read them, so this ends.
    inputs.into_iter().find_map(|input| declared(workspace, pipeline, input, column))
}

fn step_of<'a>(pipeline: &'a Pipeline, name: &str) -> Option<(&'a Rules, Vec<&'a str>)> {
    let source = pipeline.sources.iter().find(|source| source.name.value == name).map(|source| (&source.rules, vec![]));
    source.or_else(|| {
        let transform = pipeline.transforms.iter().find(|transform| transform.name.value == name)?;
        Some((&transform.rules, transform.inputs.iter().map(|input| input.value.as_str()).collect()))
    })
}
