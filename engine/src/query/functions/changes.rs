//! `history('schema.table')`: the commits of a lake table. `changes('schema.table', from, to)`: the rows that differ between two versions.

use std::sync::Arc;

use arrow::{
    array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, TimeUnit},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    catalog::{MemTable, TableProvider},
    common::{Column, ScalarValue},
    datasource::ViewTable,
    functions::math::expr_fn::abs,
    functions_aggregate::expr_fn::sum,
    logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, cast, create_udf, lit, when},
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

/// The rows of which one version has more than another: `_change` says `insert` or `delete`, `_rows` how many. They have the columns of the later
/// version, then those that only the earlier one has; a column that a version lacks is null there. Where its type has changed, a column has one that
/// holds the values of both, or is text.
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

/// Integers, and floats, from the narrowest to the widest.
const WIDER: [&[DataType]; 2] =
    [&[DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64], &[DataType::Float16, DataType::Float32, DataType::Float64]];

/// The type in which values of both lose nothing: text where no other is.
fn common(one: &DataType, other: &DataType) -> DataType {
    if one == other {
        return one.clone();
    }
    for wider in WIDER {
        let place = |of: &DataType| wider.iter().position(|known| known == of);
        if let (Some(one), Some(other)) = (place(one), place(other)) {
            return wider[one.max(other)].clone();
        }
    }
    if let (DataType::Decimal128(one, one_scale), DataType::Decimal128(other, other_scale)) = (one, other) {
        let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
        let scale = (*one_scale).max(*other_scale);
        let digits = whole(*one, *one_scale).max(whole(*other, *other_scale)) + i16::from(scale);
        if let Ok(precision) = u8::try_from(digits)
            && precision <= DECIMAL128_MAX_PRECISION
        {
            return DataType::Decimal128(precision, scale);
        }
    }
    DataType::Utf8
}

/// Writes values of a type as text, those too that no cast makes text of: lists, structs, bytes.
fn written(of: &DataType) -> ScalarUDF {
    let write = |given: &[ColumnarValue]| -> datafusion::error::Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(given)?;
        let values: &dyn Array = &arrays[0];
        let options = FormatOptions::new().with_display_error(false).with_null("null");
        let formatter = ArrayFormatter::try_new(values, &options)?;
        let text = |at: usize| if values.is_null(at) { Ok(None) } else { formatter.value(at).try_to_string().map(Some) };
        let texts = (0..values.len()).map(text).collect::<Result<StringArray, ArrowError>>()?;
        Ok(ColumnarValue::Array(Arc::new(texts)))
    };
    create_udf("__weir_text", vec![of.clone()], DataType::Utf8, Volatility::Immutable, Arc::new(write))
}

/// The columns of the later version, then those that only the earlier one has, each with the type in which it is compared.
fn shape(before: &Schema, after: &Schema) -> Vec<(String, DataType)> {
    let both = after.fields().iter().map(|field| match before.field_with_name(field.name()) {
        Ok(earlier) => (field.name().clone(), common(earlier.data_type(), field.data_type())),
        Err(_) => (field.name().clone(), field.data_type().clone()),
    });
    let gone = before.fields().iter().filter(|field| after.field_with_name(field.name()).is_err());
    both.chain(gone.map(|field| (field.name().clone(), field.data_type().clone()))).collect()
}

fn compared(
    session: &SessionContext,
    before: Arc<dyn TableProvider>,
    after: Arc<dyn TableProvider>,
) -> datafusion::error::Result<Arc<dyn TableProvider>> {
    let shape = shape(&before.schema(), &after.schema());
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let counted = |table: Arc<dyn TableProvider>, count: i64| -> datafusion::error::Result<DataFrame> {
        let own = table.schema();
        let mut all = vec![lit(count).alias(COUNT)];
        for (name, to) in &shape {
            let value = match own.field_with_name(name).map(Field::data_type) {
                Ok(same) if same == to => column(name),
                Ok(from) if *to == DataType::Utf8 => written(from).call(vec![column(name)]),
                Ok(_) => cast(column(name), to.clone()),
                Err(_) => cast(lit(ScalarValue::Null), to.clone()),
            };
            all.push(value.alias(name));
        }
        session.read_table(table)?.select(all)
    };
    // What both have as often cancels out.
    let both = counted(after, 1)?.union(counted(before, -1)?)?;
    let keys: Vec<Expr> = shape.iter().map(|(name, _)| column(name)).collect();
    let differ = both.aggregate(keys.clone(), vec![sum(column(COUNT)).alias(COUNT)])?.filter(column(COUNT).not_eq(lit(0_i64)))?;
    let mut all = vec![
        when(column(COUNT).gt(lit(0_i64)), lit("insert")).otherwise(lit("delete"))?.alias("_change"),
        abs(column(COUNT)).alias("_rows"),
    ];
    all.extend(keys);
    Ok(Arc::new(ViewTable::new(differ.select(all)?.into_unoptimized_plan(), None)))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Decimal128Array, Float32Array, Float64Array, Int32Array, StructArray},
        util::pretty::pretty_format_batches,
    };

    use super::*;

    /// What has changed from one state to another, in order.
    async fn changed(before: Vec<(&str, ArrayRef)>, after: Vec<(&str, ArrayRef)>) -> String {
        let table = |columns: Vec<(&str, ArrayRef)>| {
            let batch = RecordBatch::try_from_iter(columns).expect("a batch");
            Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table"))
        };
        let session = SessionContext::new();
        let view = compared(&session, table(before), table(after)).expect("is planned");
        let name = |at: usize| view.schema().field(at).name().clone();
        let sorted = (0..view.schema().fields().len()).map(|at| column(&name(at)).sort(true, true)).collect();
        let rows = session.read_table(view.clone()).and_then(|rows| rows.sort(sorted)).expect("is planned").collect().await.expect("rows");
        let table = pretty_format_batches(&rows).expect("a table").to_string();
        let lines = table.lines().filter(|line| line.starts_with('|')).map(|line| line.replace(' ', ""));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn column(name: &str) -> Expr {
        Expr::Column(Column::from_name(name))
    }

    fn ids() -> (&'static str, ArrayRef) {
        ("id", Arc::new(Int64Array::from(vec![1])))
    }

    #[tokio::test]
    async fn a_value_that_the_later_type_does_not_hold_has_changed() {
        let float: ArrayRef = Arc::new(Float64Array::from(vec![10.5]));
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![10]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["ten"]));
        assert_eq!(
            changed(vec![ids(), ("n", float)], vec![ids(), ("n", whole.clone())]).await,
            "|_change|_rows|id|n|\n|delete|1|1|10.5|\n|insert|1|1|10|"
        );
        assert_eq!(
            changed(vec![ids(), ("n", text)], vec![ids(), ("n", whole.clone())]).await,
            "|_change|_rows|id|n|\n|delete|1|1|ten|\n|insert|1|1|10|"
        );
        let field = Arc::new(Field::new("a", DataType::Int64, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, whole.clone())]));
        assert_eq!(
            changed(vec![ids(), ("n", nested)], vec![ids(), ("n", whole)]).await,
            "|_change|_rows|id|n|\n|delete|1|1|{a:10}|\n|insert|1|1|10|"
        );
    }

    #[tokio::test]
    async fn the_same_value_in_a_wider_type_has_not_changed() {
        let decimal = |value: i128, precision: u8, scale: i8| -> ArrayRef {
            let values = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale);
            Arc::new(values.expect("fits"))
        };
        let before: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int32Array::from(vec![7]))),
            ("f", Arc::new(Float32Array::from(vec![0.5]))),
            ("d", decimal(1250, 10, 2)),
            ("t", Arc::new(StringArray::from(vec!["7"]))),
        ];
        let after: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int64Array::from(vec![7]))),
            ("f", Arc::new(Float64Array::from(vec![0.5]))),
            ("d", decimal(125, 12, 1)),
            ("t", Arc::new(Int64Array::from(vec![7]))),
        ];
        let unchanged = changed(before, after).await;
        assert!(!unchanged.contains("insert") && !unchanged.contains("delete"), "{unchanged}");
        assert_eq!(common(&DataType::Decimal128(10, 2), &DataType::Decimal128(12, 1)), DataType::Decimal128(13, 2));
        assert_eq!(common(&DataType::Decimal128(38, 0), &DataType::Decimal128(38, 10)), DataType::Utf8);
        assert_eq!(common(&DataType::Int64, &DataType::Float64), DataType::Utf8);
    }

    #[tokio::test]
    async fn a_column_that_only_one_version_has_is_compared_too() {
        let texts = || -> ArrayRef { Arc::new(StringArray::from(vec![Some("x"), None])) };
        let two = || ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef);
        assert_eq!(
            changed(vec![("old", texts()), two()], vec![two(), ("new", texts())]).await,
            "|_change|_rows|id|new|old|\n|delete|1|1||x|\n|insert|1|1|x||"
        );
    }
}
