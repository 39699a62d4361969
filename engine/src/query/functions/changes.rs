//! `history('schema.table')`: the commits of a lake table. `changes('schema.table', from, to)`: the rows that differ between two versions.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use datafusion::{
    catalog::{MemTable, TableProvider},
    common::{Column, ScalarValue},
    datasource::ViewTable,
    functions::math::expr_fn::abs,
    functions_aggregate::expr_fn::sum,
    logical_expr::{Expr, cast, lit, when},
    prelude::{DataFrame, SessionContext},
};
use weir_connectors::lake::{self, Version};
use weir_pipelines::{Diagnostic, SqlText};

use super::{super::Inner, Call, Given};
use crate::error::Result;

/// How much oftener the later version has a row. No column is called so.
const COUNT: &str = "__weir_count";

/// Schema and table of `schema.table`, with `lake.` before it or not.
fn named(given: &Given<'_>) -> Result<(String, String)> {
    let name = given.text("table")?;
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [schema, table] | ["lake", schema, table] => Ok((schema.to_owned(), table.to_owned())),
        _ => {
            let wrong = Diagnostic::error("argument", format!("\"{name}\" is no table of the lake: write schema.table"));
            Err(given.point("table", wrong).into())
        }
    }
}

fn unknown(given: &Given<'_>, schema: &str, table: &str) -> crate::Failure {
    given.point("table", Diagnostic::error("unknown-table", format!("there is no table \"lake.{schema}.{table}\""))).into()
}

/// The commits of a table, newest first.
pub(super) async fn history(inner: &Inner, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    let given = Given::new(call, &["table"], text)?;
    let (schema, table) = named(&given)?;
    let Some(opened) = inner.catalogue.lake.past(&schema, &table, Version::Newest).await? else {
        return Err(unknown(&given, &schema, &table));
    };
    let commits = lake::commits(&opened).await?;
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = vec![
        Field::new("version", DataType::UInt64, true),
        Field::new("committed_at", instant, true),
        Field::new("operation", DataType::Utf8, true),
        Field::new("run", DataType::Utf8, true),
        Field::new("pipeline", DataType::Utf8, true),
        Field::new("rows_added", DataType::Int64, true),
    ];
    let texts = |of: fn(&lake::CommitOf) -> Option<&String>| Arc::new(commits.iter().map(of).collect::<StringArray>()) as _;
    let columns = vec![
        Arc::new(commits.iter().map(|commit| commit.version).collect::<UInt64Array>()) as _,
        Arc::new(commits.iter().map(|commit| commit.at_ms.map(|ms| ms * 1000)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            as _,
        texts(|commit| commit.operation.as_ref()),
        texts(|commit| commit.run.as_ref()),
        texts(|commit| commit.pipeline.as_ref()),
        Arc::new(commits.iter().map(|commit| commit.rows_added).collect::<Int64Array>()) as _,
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| crate::run::explain(&error.into()))?;
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(|error| crate::run::explain(&error))?;
    Ok(Arc::new(table))
}

/// The rows of which one version has more than another: `_change` says `insert` or `delete`, `_rows` how many.
pub(super) async fn changes(inner: &Inner, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    let given = Given::new(call, &["table", "from", "to"], text)?;
    let (schema, table) = named(&given)?;
    let from = Version::Number(given.number("from")?);
    let to = given.optional_number("to")?.map_or(Version::Newest, Version::Number);
    let lake = &inner.catalogue.lake;
    let (Some(before), Some(after)) = (lake.table(&schema, &table, from).await?, lake.table(&schema, &table, to).await?) else {
        return Err(unknown(&given, &schema, &table));
    };
    let session = inner.context.read().clone();
    compared(&session, before, after).map_err(|error| crate::run::explain(&error))
}

fn compared(
    session: &SessionContext,
    before: Arc<dyn TableProvider>,
    after: Arc<dyn TableProvider>,
) -> datafusion::error::Result<Arc<dyn TableProvider>> {
    // Columns of the later version; one that the earlier one lacks is null there.
    let shape = after.schema();
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let counted = |table: Arc<dyn TableProvider>, count: i64| -> datafusion::error::Result<DataFrame> {
        let frame = session.read_table(table)?;
        let has = frame.schema().clone();
        let mut all = vec![lit(count).alias(COUNT)];
        for field in shape.fields() {
            let value = if has.has_column_with_unqualified_name(field.name()) { column(field.name()) } else { lit(ScalarValue::Null) };
            all.push(cast(value, field.data_type().clone()).alias(field.name()));
        }
        frame.select(all)
    };
    // What both have as often cancels out.
    let both = counted(after, 1)?.union(counted(before, -1)?)?;
    let keys: Vec<Expr> = shape.fields().iter().map(|field| column(field.name())).collect();
    let differ = both.aggregate(keys.clone(), vec![sum(column(COUNT)).alias(COUNT)])?.filter(column(COUNT).not_eq(lit(0_i64)))?;
    let mut all = vec![
        when(column(COUNT).gt(lit(0_i64)), lit("insert")).otherwise(lit("delete"))?.alias("_change"),
        abs(column(COUNT)).alias("_rows"),
    ];
    all.extend(keys);
    Ok(Arc::new(ViewTable::new(differ.select(all)?.into_unoptimized_plan(), None)))
}
