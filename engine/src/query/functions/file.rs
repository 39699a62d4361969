//! `file('data/*.csv', delimiter => ';')`: files as a table, whatever a source of files reads. Parquet is read by DataFusion's own reader,
//! which passes over what a filter cannot want; the rest by the reader of runs.
//!
//! Whoever asks through a port gets files of the project alone: relative paths without `..` and hidden folders, that end as files of
//! rows do, so that a key or a configuration beside them is no table. Where a link leads elsewhere it is refused as its target would be.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, ScalarValue, Statistics},
    datasource::{
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
        physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder},
        source::DataSourceExec,
    },
    error::Result as DfResult,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use serde_json::{Map, Value};
use weir_connectors::{
    Blame, Error, Purpose, Reject, Rejects, RunContext, Source, SourceContext,
    files::{self, FoundFile},
    floats::{is_float, unbounded},
};
use weir_pipelines::{Diagnostic, SqlText};

use super::{
    super::{Door, Inner},
    Call, allowed,
};
use crate::error::{Failure, Result};

/// What it takes, and the setting of a source of files that each is.
const ARGUMENTS: [(&str, &[&str]); 14] = [
    ("path", &["path"]),
    ("format", &["format"]),
    ("compression", &["compression"]),
    ("encoding", &["encoding"]),
    ("delimiter", &["csv", "delimiter"]),
    ("quote", &["csv", "quote"]),
    ("header", &["csv", "header"]),
    ("null", &["csv", "null"]),
    ("decimal", &["csv", "decimal"]),
    ("comment", &["csv", "comment"]),
    ("records", &["json", "records"]),
    ("infer_rows", &["infer_rows"]),
    ("hive", &["hive"]),
    ("metadata", &["metadata"]),
];

/// Opens what a call names, in the memory of a session.
pub(super) async fn open(inner: &Inner, session: &SessionContext, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    allowed(inner, "files", call, text)?;
    let settings = settings(call, text)?;
    let paths = paths(&settings);
    let through_port = inner.who.door != Door::Prompt;
    if through_port && let Some(path) = paths.iter().find(|path| !is_open(path)) {
        let refused = Diagnostic::error("not-allowed", format!("the file \"{path}\" is not open to who asks through a port")).at(
            &text.file,
            call.span.clone(),
            "",
        );
        return Err(refused.help("name files of rows in the project's folder, by a relative path such as data/flights/*.parquet").into());
    }
    let workspace = &inner.catalogue.workspace;
    let wrong = |error: &Error| at_call(error, call, text);
    let mut run = RunContext::clone(&*workspace.dry_context("sql")?);
    run.runtime = session.runtime_env();
    let within = through_port.then(|| run.root.clone());
    let source = files::source(settings.clone(), within.clone()).map_err(|error| wrong(&error))?;
    let context = SourceContext {
        folder: run.root.clone(),
        run: Arc::new(run),
        step: "file".to_owned(),
        declared: None,
        shape: None,
        known: None,
        coordinates: false,
        incremental: None,
        seen: BTreeMap::new(),
        rejects: Arc::new(Refusing),
        purpose: Purpose::Plan,
    };
    // What is read later is held against the types that all rows have, so all rows are looked at unless somebody says how many.
    let reading = SourceContext { purpose: Purpose::Run, ..context.clone() };
    let opened = source.open(&reading).await.map_err(|error| wrong(&error))?;
    let schema = opened.table.schema();
    let hive = settings.get("hive").and_then(Value::as_bool);
    if !settings.contains_key("metadata") {
        let found = files::list(&paths, &context.folder, hive, &workspace.environment, within.as_deref()).await;
        let found = found.map_err(|error| wrong(&error))?;
        let format = settings.get("format").and_then(Value::as_str);
        if let Some(table) = parquet(&found, format, &schema) {
            return Ok(table);
        }
    }
    Ok(Arc::new(Read { source, context: reading, schema }))
}

/// The arguments as settings of a source.
fn settings(call: &Call, text: &SqlText) -> Result<Map<String, Value>> {
    let names: Vec<&str> = ARGUMENTS.iter().map(|(name, _)| *name).collect();
    let mut settings = Map::new();
    for (at, argument) in call.arguments.iter().enumerate() {
        let wrong = |message: String| Diagnostic::error("argument", message).at(&text.file, argument.span.clone(), "");
        let takes = || format!("it takes {}", names.join(", "));
        let name = match &argument.name {
            Some(name) => name.as_str(),
            None if at == 0 => "path",
            None => return Err(wrong("the arguments of file after the path have names".to_owned()).help("write format => 'csv'").into()),
        };
        let Some((_, path)) = ARGUMENTS.iter().find(|(known, _)| *known == name) else {
            return Err(wrong(format!("file has no argument \"{name}\"")).did_you_mean(name, names.iter().copied()).help(takes()).into());
        };
        let Some(mut value) = value(&argument.value) else {
            return Err(wrong(format!("\"{name}\" of file is a text, a number, true or false, or a list of texts")).into());
        };
        if matches!(name, "null" | "metadata") && value.is_string() {
            value = Value::Array(vec![value]);
        }
        let mut table = &mut settings;
        let (last, tables) = path.split_last().expect("a setting has a name");
        for part in tables {
            let below = table.entry(*part).or_insert_with(|| Value::Object(Map::new()));
            table = below.as_object_mut().expect("only tables have settings below them");
        }
        if table.insert((*last).to_owned(), value).is_some() {
            return Err(wrong(format!("\"{name}\" is given twice")).into());
        }
    }
    if !settings.contains_key("path") {
        let missing = Diagnostic::error("argument", "file needs \"path\"").at(&text.file, call.span.clone(), "");
        return Err(missing.help("write file('data/flights.csv')").into());
    }
    Ok(settings)
}

fn value(value: &ScalarValue) -> Option<Value> {
    Some(match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            Value::from(text.as_str())
        }
        ScalarValue::Boolean(Some(truth)) => Value::from(*truth),
        ScalarValue::Int64(Some(number)) => Value::from(*number),
        ScalarValue::List(list) => {
            let items = list.value(0);
            let texts = (0..items.len()).map(|row| self::value(&ScalarValue::try_from_array(&items, row).ok()?));
            Value::Array(texts.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn paths(settings: &Map<String, Value>) -> Vec<String> {
    match settings.get("path") {
        Some(Value::String(path)) => vec![path.clone()],
        Some(Value::Array(paths)) => paths.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Whether a path is one of the project's files of rows.
fn is_open(path: &str) -> bool {
    let parts_are = path.split(['/', '\\']).all(|part| !part.starts_with('.') && !part.is_empty());
    !path.contains("://") && !Path::new(path).is_absolute() && parts_are && files::is_data(path)
}

/// A connector's error, pointed at the call where a person's words are at fault.
fn at_call(error: &Error, call: &Call, text: &SqlText) -> Failure {
    if error.blame != Blame::User {
        return Failure::from_connector(error);
    }
    let diagnostic = Diagnostic::error(error.code, error.message.clone()).at(&text.file, call.span.clone(), "");
    error.help.iter().fold(diagnostic, |diagnostic, help| diagnostic.help(help.clone())).into()
}

/// Local Parquet files by DataFusion's own reader; none where that would read something else.
fn parquet(found: &[FoundFile], format: Option<&str>, schema: &SchemaRef) -> Option<Arc<dyn TableProvider>> {
    let is_parquet = |path: &str| format == Some("parquet") || format.is_none() && files::is_parquet(path);
    let urls = found.iter().map(|file| {
        let path = file.local_path()?;
        // What stands for other letters in a pattern or a URL would be read as that.
        let plain = path.is_absolute() && !path.to_str()?.contains(['*', '?', '[', ']', '{', '}', '%', '#']);
        (plain && is_parquet(path.to_str()?) && !file.has_folder_columns()).then(|| ListingTableUrl::parse(path.to_str()?).ok())?
    });
    let urls: Vec<ListingTableUrl> = urls.collect::<Option<_>>()?;
    if urls.is_empty() {
        return None;
    }
    let extension = String::new();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(extension);
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema.clone());
    let floats: Vec<usize> = (0..schema.fields().len()).filter(|at| is_float(schema.field(*at).data_type())).collect();
    if floats.is_empty() {
        return ListingTable::try_new(config).ok().map(|table| Arc::new(table) as Arc<dyn TableProvider>);
    }
    let adapter = unbounded(floats.iter().map(|at| schema.field(*at).name().clone()));
    let table = ListingTable::try_new(config.with_expr_adapter_factory(adapter)).ok()?;
    Some(Arc::new(WithFloats { table, floats }))
}

/// Parquet files with floating point numbers. DataFusion answers by the bounds of a column, and takes one of equal bounds for constant; NaN is in
/// neither bound.
#[derive(Debug)]
struct WithFloats {
    table: ListingTable,
    floats: Vec<usize>,
}

impl WithFloats {
    fn without_bounds(&self, mut statistics: Statistics) -> Statistics {
        for at in &self.floats {
            if let Some(column) = statistics.column_statistics.get_mut(*at) {
                *column =
                    ColumnStatistics { null_count: column.null_count, byte_size: column.byte_size, ..ColumnStatistics::new_unknown() };
            }
        }
        statistics
    }
}

#[async_trait]
impl TableProvider for WithFloats {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = self.table.scan(state, projection, filters, limit).await?;
        let Some(config) = plan.downcast_ref::<DataSourceExec>().and_then(|exec| exec.data_source().downcast_ref::<FileScanConfig>())
        else {
            return Ok(plan);
        };
        let known = self.without_bounds(config.statistics());
        let groups = config.file_groups.iter().map(|group| {
            let files = group.iter().cloned().map(|mut file| {
                file.statistics = file.statistics.map(|statistics| Arc::new(self.without_bounds(Arc::unwrap_or_clone(statistics))));
                file
            });
            FileGroup::new(files.collect())
        });
        let groups = groups.collect();
        let config = FileScanConfigBuilder::from(config.clone()).with_file_groups(groups).with_statistics(known);
        Ok(DataSourceExec::from_data_source(config.build()))
    }
}

/// Files as a table that the reader of runs reads, anew each time.
#[derive(Debug)]
struct Read {
    source: Arc<dyn Source>,
    context: SourceContext,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Read {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        // The memory is that of whoever reads, not of whoever planned.
        let mut run = RunContext::clone(&self.context.run);
        run.runtime = state.runtime_env().clone();
        // The columns as they were when the statement was planned, whatever is in the files by now.
        let context = SourceContext { run: Arc::new(run), shape: Some(self.schema.clone()), ..self.context.clone() };
        let opened = self.source.open(&context).await?;
        let wanted: Vec<usize> =
            self.schema.fields().iter().map(|field| opened.table.schema().index_of(field.name())).collect::<Result<_, _>>()?;
        let projection = match projection {
            Some(columns) => columns.iter().map(|column| wanted[*column]).collect(),
            None => wanted,
        };
        opened.table.scan(state, Some(&projection), filters, limit).await
    }
}

/// Ends a query at the first record that cannot be read: an answer without it would pass for a whole one.
#[derive(Debug)]
struct Refusing;

impl Rejects for Refusing {
    fn reject(&self, rejects: Vec<Reject>) -> weir_connectors::Result<()> {
        let Some(first) = rejects.first() else { return Ok(()) };
        let place = match (&first.file, first.row) {
            (Some(file), Some(row)) => format!("\"{file}\", row {row}"),
            (Some(file), None) => format!("\"{file}\""),
            _ => "a file".to_owned(),
        };
        let column = first.column.as_ref().map(|column| format!(", column \"{column}\"")).unwrap_or_default();
        Err(Error::user("bad-row", format!("cannot read {place}{column}: {}", first.reason))
            .help("correct the record, or load the file by a pipeline, which sets such rows aside"))
    }
}
