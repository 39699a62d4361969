//! The rows that a test gives to a step, as a table: columns typed by the contract, by the test, or by their own values.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt64Array, new_null_array},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{catalog::TableProvider, common::DFSchema, datasource::MemTable, logical_expr::ExprSchemable, prelude::SessionContext};
use indexmap::IndexMap;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weir_connectors::Coordinates;
use weir_pipelines::{Diagnostic, Diagnostics, GivenRows, Literal, Pipeline, Row, Rules, SourceFile, Spanned, SqlText};

use super::{query, value};
use crate::{contracts::Contracts, error::Result, sql::sql_name};

/// What a contract says about rows that a test writes.
#[derive(Debug)]
pub struct Declared {
    columns: SchemaRef,
    schema: Value,
}

/// Reads what the contract of a step declares. One that is wrong is told where the step is planned.
pub fn declared(pipeline: &Pipeline, rules: &Rules, contracts: &Contracts) -> Option<Declared> {
    let path = rules.contract.as_ref()?;
    let text = std::fs::read_to_string(pipeline.folder.join(&path.value)).ok()?;
    let columns = contracts.compile(&path.value, &text).ok()?.columns().clone();
    Some(Declared { columns, schema: serde_json::from_str(&text).ok()? })
}

/// What is asked of given rows.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Which columns they have: nothing is executed.
    Columns,
    /// All of them, until this is cancelled.
    Rows(&'a CancellationToken),
}

/// The rows given in the file itself, as a table. With a contract, the last two columns say which row of the test it is. Fails with what is
/// wrong with them, and where it is interrupted.
pub async fn table(
    session: &SessionContext,
    pipeline: &Pipeline,
    rows: &GivenRows,
    declared: Option<&Declared>,
    asked: Asked<'_>,
) -> Result<Arc<dyn TableProvider>> {
    let file = &pipeline.file;
    let batch = match rows {
        GivenRows::Typed { columns, rows } => value::batch(&typed(session, columns, file)?, rows, file)?,
        GivenRows::Rows(rows) => {
            let rows = declared.map_or_else(|| rows.clone(), |declared| complete(rows, declared));
            value::batch(&inferred(&rows, declared, file)?, &rows, file)?
        }
        GivenRows::Sql(sql) => {
            let batch = query::rows(session, sql, asked).await?;
            declared.map_or(Ok(batch.clone()), |declared| fitted(&batch, declared, sql))?
        }
        GivenRows::File(_) => unreachable!("a file is opened as a source"),
    };
    let batch = if declared.is_some() { numbered(&batch) } else { batch };
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a batch is of its own schema");
    Ok(Arc::new(table))
}

/// The columns that a test declares.
pub fn typed(
    session: &SessionContext,
    columns: &IndexMap<String, Spanned<String>>,
    file: &Arc<SourceFile>,
) -> Result<SchemaRef, Diagnostics> {
    let mut wrong = Diagnostics::new();
    let mut fields = Vec::new();
    for (name, word) in columns {
        match column_type(session, &word.value) {
            Some(data_type) => fields.push(Field::new(name, data_type, true)),
            None => wrong.push(
                Diagnostic::error("unknown-type", format!("\"{}\" is not a SQL type", word.value)).at(file, word.span.clone(), "").help(
                    "types are those of SQL: bigint, double, decimal(12,2), text, boolean, date, timestamp, …; or Arrow's, such as Int32",
                ),
            ),
        }
    }
    if wrong.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(wrong) }
}

/// The type that a word of SQL, or else of Arrow, means.
fn column_type(session: &SessionContext, word: &str) -> Option<DataType> {
    let schema = DFSchema::empty();
    // A word is a type and nothing else: what goes on after it would be SQL of its own.
    let is_word = word.chars().all(|letter| letter.is_alphanumeric() || " (),_\"'<>[]:+-/µ".contains(letter));
    let of_sql = || session.parse_sql_expr(&format!("cast(null as {word})"), &schema).and_then(|cast| cast.get_type(&schema)).ok();
    match word.parse::<DataType>().ok().or_else(|| is_word.then(of_sql).flatten())? {
        DataType::Utf8View => Some(DataType::Utf8),
        other => Some(other),
    }
}

/// The shortest word that means a type.
pub fn type_word(session: &SessionContext, data_type: &DataType) -> String {
    let words = ["bigint", "int", "smallint", "tinyint", "double", "real", "text", "boolean", "date", "bytea"];
    let word = words.into_iter().find(|word| column_type(session, word).as_ref() == Some(data_type)).map(str::to_owned);
    word.unwrap_or_else(|| match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string(),
    })
}

/// Columns of the contract, then those that only the rows have.
fn inferred(rows: &[Row], declared: Option<&Declared>, file: &Arc<SourceFile>) -> Result<SchemaRef, Diagnostics> {
    let mut wrong = Diagnostics::new();
    let mut fields: Vec<Field> = match declared {
        Some(declared) => declared.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect(),
        None => Vec::new(),
    };
    for (name, _) in rows.iter().flat_map(|row| &row.cells) {
        if fields.iter().any(|field| *field.name() == name.value) {
            continue;
        }
        let values = rows.iter().flat_map(|row| &row.cells).filter(|(other, _)| other.value == name.value).map(|(_, value)| value);
        let data_type = match value::common_type(values) {
            Ok(data_type) => data_type,
            Err((span, what)) => {
                wrong.push(
                    Diagnostic::error("wrong-type", format!("the values of \"{}\" are of no one type: {what}", name.value))
                        .at(file, span, "")
                        .help("write all of them alike, or give the column a type: { columns = { … }, rows = [ … ] }"),
                );
                DataType::Null
            }
        };
        fields.push(Field::new(&name.value, data_type, true));
    }
    if wrong.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(wrong) }
}

/// The columns that the contract requires and for which it has an example, a default or a constant, with that.
fn samples(declared: &Declared) -> Vec<(&str, Literal)> {
    let required = declared.schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut samples = Vec::new();
    for name in required {
        let Some(property) = declared.schema.get("properties").and_then(|properties| properties.get(name)) else { continue };
        let first = |key: &str| property.get(key).and_then(|values| values.get(0));
        let sample = first("examples").or_else(|| property.get("default")).or_else(|| property.get("const")).or_else(|| first("enum"));
        let data_type = declared.columns.field_with_name(name).map_or(DataType::Null, |field| field.data_type().clone());
        if let Some(literal) = sample.and_then(|sample| value::from_json(sample, &data_type)) {
            samples.push((name, literal));
        }
    }
    samples
}

/// Gives each row the columns that its contract requires and it leaves out.
fn complete(rows: &[Row], declared: &Declared) -> Vec<Row> {
    let samples = samples(declared);
    let mut rows = rows.to_vec();
    for row in &mut rows {
        for (name, literal) in &samples {
            if !row.cells.iter().any(|(known, _)| known.value == *name) {
                let span = row.span.clone();
                row.cells.push((Spanned::new((*name).to_owned(), span.clone()), Spanned::new(literal.clone(), span)));
            }
        }
    }
    rows
}

/// A query's rows in the columns of the contract: each as the contract types it, those that the query leaves out as in rows that are written.
/// What the contract does not declare stays as it is, behind them.
fn fitted(batch: &RecordBatch, declared: &Declared, sql: &SqlText) -> Result<RecordBatch, Diagnostics> {
    let wrong = |message: String| Diagnostic::error("wrong-type", message).at(&sql.file, sql.span.clone(), "");
    let schema = batch.schema();
    let samples = samples(declared);
    let (mut fields, mut columns, mut found) = (Vec::new(), Vec::<ArrayRef>::new(), Diagnostics::new());
    for field in declared.columns.fields() {
        let to = field.data_type();
        let column = match batch.column_by_name(field.name()) {
            Some(column) => query::cast_to(column, to).unwrap_or_else(|why| {
                let own = sql_name(column.data_type());
                let message = format!("\"{}\" is {} in the contract, and {own} here: {why}", field.name(), sql_name(to));
                found.push(wrong(message).help(format!("write it as the contract has it, as in cast(… as {})", sql_name(to))));
                new_null_array(to, batch.num_rows())
            }),
            None => match samples.iter().find(|(name, _)| name == field.name()) {
                Some((_, sample)) => {
                    let cell = value::cell(sample, to).ok();
                    cell.map_or_else(|| new_null_array(to, batch.num_rows()), |cell| query::repeated(&cell, batch.num_rows()))
                }
                None => new_null_array(to, batch.num_rows()),
            },
        };
        fields.push(field.as_ref().clone().with_nullable(true));
        columns.push(column);
    }
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if declared.columns.index_of(field.name()).is_err() {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    if !found.is_empty() {
        return Err(found);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).expect("every column has a cell of each row"))
}

fn numbered(batch: &RecordBatch) -> RecordBatch {
    let rows = batch.num_rows();
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.extend(Coordinates::fields());
    let file = DictionaryArray::new(Int32Array::from(vec![0; rows]), Arc::new(StringArray::from(vec!["given"])));
    let numbers = UInt64Array::from_iter_values(1..=rows as u64);
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.extend([Arc::new(file) as ArrayRef, Arc::new(numbers)]);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("every column has a cell of each row")
}
