//! Opening a ClickHouse source: which columns the table or query has, as what each is read, and which filters the server applies.
//! Reading is `read.rs`'s.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate};
use datafusion::{
    catalog::{Session, TableProvider},
    common::ScalarValue,
    error::Result as DataFusionResult,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use serde::Deserialize;

use super::{
    ClickhouseConnection, ClickhouseSource,
    connect::Server,
    name,
    read::ClickhouseScan,
    types::{self, Reading},
};
use crate::{
    Asked, DataColumns, Extent, Opened, Source,
    context::{Coordinates, ReadCount, SourceContext},
    error::{Error, Result},
    incremental::Reach,
    known::Unread,
    pushdown::Filter,
    quote::clickhouse as quote,
    retry::retry,
};

/// A column of the table or query.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name, and as what it is read before a contract's type.
    pub field: FieldRef,
    pub reading: Reading,
}

/// Where a column of the source comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server: the index among its columns.
    Server(usize),
    /// Nowhere: declared, and always null.
    Absent,
    /// The table's name.
    File,
    /// The row's number.
    Row,
}

/// Everything that scans share.
#[derive(Debug)]
pub(super) struct Input {
    pub cx: SourceContext,
    pub server: Arc<Server>,
    /// For messages: `read "default.delays" of "olap"`.
    pub doing: String,
    /// For the coordinate: `olap.default.delays`.
    pub place: String,
    /// What stands after `from`.
    pub from: String,
    pub columns: Vec<Column>,
    pub schema: SchemaRef,
    pub origins: Vec<Origin>,
    pub reach: Option<Arc<Reach>>,
    pub read: Arc<ReadCount>,
}

/// Conditions and the values of their parameters: `p1`, `p2` and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// SQL, all of it to be true.
    pub sql: Vec<String>,
    /// In ClickHouse's text format, before escaping.
    pub values: Vec<String>,
}

impl Conditions {
    /// Adds a filter. False, and nothing changed, where ClickHouse might understand it otherwise.
    fn add(&mut self, filter: &Filter, column: &dyn Fn(&str) -> Option<String>) -> bool {
        let before = self.values.len();
        let values = &mut self.values;
        let mut bind = |value: &ScalarValue| {
            let (text, own) = written(value)?;
            values.push(text);
            Some(format!("{{p{}:{own}}}", values.len()))
        };
        match filter.render(column, &mut bind) {
            Some(sql) => {
                self.sql.push(sql);
                true
            }
            None => {
                self.values.truncate(before);
                false
            }
        }
    }
}

/// A value as a parameter: its text, and its type's name. None where ClickHouse has no such value.
pub(super) fn written(value: &ScalarValue) -> Option<(String, String)> {
    use ScalarValue as S;
    let plain = |text: String, own: &str| Some((text, own.to_owned()));
    match value {
        S::Boolean(Some(value)) => plain(value.to_string(), "Bool"),
        S::Int8(Some(value)) => plain(value.to_string(), "Int8"),
        S::Int16(Some(value)) => plain(value.to_string(), "Int16"),
        S::Int32(Some(value)) => plain(value.to_string(), "Int32"),
        S::Int64(Some(value)) => plain(value.to_string(), "Int64"),
        S::UInt8(Some(value)) => plain(value.to_string(), "UInt8"),
        S::UInt16(Some(value)) => plain(value.to_string(), "UInt16"),
        S::UInt32(Some(value)) => plain(value.to_string(), "UInt32"),
        S::UInt64(Some(value)) => plain(value.to_string(), "UInt64"),
        S::Utf8(Some(value)) | S::LargeUtf8(Some(value)) | S::Utf8View(Some(value)) => plain(value.clone(), "String"),
        S::Decimal128(Some(value), precision, scale) => {
            Some((Decimal128Type::format_decimal(*value, *precision, *scale), format!("Decimal({precision}, {scale})")))
        }
        S::Decimal256(Some(value), precision, scale) => {
            Some((Decimal256Type::format_decimal(*value, *precision, *scale), format!("Decimal({precision}, {scale})")))
        }
        S::Date32(Some(days)) => {
            let date = NaiveDate::default().checked_add_signed(chrono::TimeDelta::try_days(i64::from(*days))?)?;
            in_years(date).then(|| (date.format("%Y-%m-%d").to_string(), "Date32".to_owned()))
        }
        S::TimestampSecond(Some(value), Some(_)) => instant(DateTime::from_timestamp(*value, 0)?, 0),
        S::TimestampMillisecond(Some(value), Some(_)) => instant(DateTime::from_timestamp_millis(*value)?, 3),
        S::TimestampMicrosecond(Some(value), Some(_)) => instant(DateTime::from_timestamp_micros(*value)?, 6),
        S::TimestampNanosecond(Some(value), Some(_)) => instant(DateTime::from_timestamp_nanos(*value), 9),
        _ => None,
    }
}

/// `Date32` and `DateTime64` begin with 1900 and end with 2299; beyond, ClickHouse clamps.
fn in_years(date: NaiveDate) -> bool {
    use chrono::Datelike;
    (1900..=2299).contains(&date.year())
}

fn instant(at: DateTime<chrono::Utc>, digits: usize) -> Option<(String, String)> {
    let text = at.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = &format!("{:09}", at.timestamp_subsec_nanos())[..digits];
    let text = if digits == 0 { text } else { format!("{text}.{fraction}") };
    in_years(at.date_naive()).then(|| (text, format!("DateTime64({digits}, 'UTC')")))
}

impl Input {
    /// A column that a filter may ask the server about: one that comes from there as it is.
    fn comparable(&self, name: &str) -> Option<String> {
        let index = self.schema.index_of(name).ok()?;
        let Origin::Server(column) = self.origins[index] else { return None };
        let column = &self.columns[column];
        let same = column.field.data_type() == self.schema.field(index).data_type();
        (same && column.reading.comparable).then(|| quote::identifier(name))
    }

    fn applies(&self, filter: &Expr) -> bool {
        let filter = Filter::of(filter, &self.schema);
        filter.is_some_and(|filter| Conditions::default().add(&filter, &|name| self.comparable(name)))
    }

    /// The conditions of all these filters that the server applies, and of the rows that are read.
    pub(super) fn conditions(&self, filters: &[Expr]) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some(reached) = self.reach.as_deref().and_then(Reach::asks) {
            // A bound that cannot be said is the reach's to keep.
            conditions.add(&reached, &|name| Some(quote::identifier(name)));
        }
        for filter in filters {
            if let Some(filter) = Filter::of(filter, &self.schema) {
                conditions.add(&filter, &|name| self.comparable(name));
            }
        }
        conditions
    }
}

#[async_trait]
impl Source for ClickhouseSource {
    async fn open(&self, cx: &SourceContext) -> Result<Opened> {
        let server = Server::of(&self.connection, &cx.run).await?;
        let learnt = learn(self, &server, cx).await?;
        let own: SchemaRef = Arc::new(Schema::new(learnt.columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>()));
        let (schema, origins) = columns(own.fields(), cx, &self.connection)?;
        let columns = DataColumns { absent: absent(&schema, &origins), own: Some(own.clone()), ..DataColumns::default() };
        let reach = Reach::of(cx, &own)?.map(Arc::new);
        let read = Arc::new(ReadCount::default());
        let extent = Extent { cursor: reach.as_deref().and_then(Reach::from), ..Extent::default() };
        let input = Input {
            cx: cx.clone(),
            server,
            doing: learnt.doing,
            place: learnt.place,
            from: learnt.from,
            columns: learnt.columns,
            schema,
            origins,
            reach: reach.clone(),
            read: read.clone(),
        };
        let advance = reach.and_then(|reach| reach.advance());
        Ok(Opened { table: Arc::new(ClickhouseTable(Arc::new(input))), advance, read, columns, extent })
    }

    fn outside(&self) -> Option<Asked> {
        let connection = &self.connection;
        Some(match &self.table {
            Some(table) => Asked { what: format!("\"{table}\" of \"{connection}\""), setting: "table" },
            None => Asked { what: format!("the query of \"{connection}\""), setting: "query" },
        })
    }

    fn recall(&self, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
        // That there is such a connection can be known without it.
        cx.run.connections.get::<ClickhouseConnection>(&self.connection)?;
        let (schema, origins) = columns(own.fields(), cx, &self.connection)?;
        let columns = DataColumns { absent: absent(&schema, &origins), own: Some(own.clone()), ..DataColumns::default() };
        let advance = Reach::of(cx, own)?.and_then(|reach| Arc::new(reach).advance());
        Ok(Opened { table: Arc::new(Unread(schema)), advance, read: Arc::default(), columns, extent: Extent::default() })
    }
}

/// The columns that the server does not have.
fn absent(schema: &SchemaRef, origins: &[Origin]) -> Vec<String> {
    let absent = schema.fields().iter().zip(origins).filter(|(_, origin)| **origin == Origin::Absent);
    absent.map(|(field, _)| field.name().clone()).collect()
}

/// What was learnt of a table or a query.
struct Learnt {
    doing: String,
    place: String,
    from: String,
    columns: Vec<Column>,
}

/// A line of the answer to `describe`.
#[derive(Deserialize)]
pub(super) struct Described {
    pub name: String,
    #[serde(rename = "type")]
    pub own: String,
    default_type: String,
}

impl Described {
    /// Whether `select *` has it.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self.default_type.as_str(), "" | "DEFAULT")
    }
}

async fn learn(settings: &ClickhouseSource, server: &Server, cx: &SourceContext) -> Result<Learnt> {
    let connection = &settings.connection;
    let (described, from, what, place) = match (&settings.table, &settings.query) {
        (Some(text), _) => {
            let (database, table) = name::parse(text).map_err(|why| Error::user("wrong-value", why).setting("table"))?;
            let database = database.unwrap_or_else(|| server.database().to_owned());
            let sql = quote::table(&database, &table);
            let from = if settings.merged { format!("{sql} final") } else { sql.clone() };
            (sql, from, format!("\"{database}.{table}\" of \"{connection}\""), format!("{connection}.{database}.{table}"))
        }
        (None, Some(query)) => {
            // A line of its own for the parenthesis: the query may end in a comment.
            let from = format!("(\n{}\n)", query.trim().trim_end_matches(';'));
            (from.clone(), from, format!("the query of \"{connection}\""), format!("{connection}.query"))
        }
        (None, None) => return Err(Error::user("wrong-value", "\"clickhouse\" needs the setting \"table\" or \"query\"")),
    };
    let doing = format!("read {what}");
    let setting = if settings.table.is_some() { "table" } else { "query" };
    let sql = format!("describe table {described}");
    let answer = retry(&cx.run.cancel, || server.rows::<Described>(&sql, &[], &doing)).await.map_err(|error| match error.code {
        "table-missing" | "unknown-column" | "wrong-sql" | "wrong-value" | "database-missing" => error.setting(setting),
        _ => error,
    })?;
    let mut columns: Vec<Column> = Vec::new();
    // What `select *` leaves out is left out.
    for described in answer.into_iter().filter(Described::is_stored) {
        let Described { name, own, .. } = described;
        if columns.iter().any(|column| *column.field.name() == name) {
            return Err(Error::user("column-twice", format!("{what} has two columns \"{name}\""))
                .setting(setting)
                .help("give one another name by \"as\""));
        }
        let binary = settings.binary.contains(&name);
        let reading = types::reading(&own, binary).map_err(|refused| {
            let instead = refused.instead.replace("{}", &quote::identifier(&name));
            Error::user("type-unsupported", format!("column \"{name}\" of {what} {}", refused.why))
                .setting(setting)
                .help(format!("write a \"query\" that selects {instead} as {}, or leaves the column out", quote::identifier(&name)))
        })?;
        if binary && !holds_binary(&reading.data_type) {
            return Err(Error::user("wrong-value", format!("column \"{name}\" is {own}, not String"))
                .setting("binary")
                .help("take it out of \"binary\""));
        }
        let field = Arc::new(Field::new(name, reading.data_type.clone(), reading.nullable));
        columns.push(Column { field, reading });
    }
    if let Some(name) = settings.binary.iter().find(|name| !columns.iter().any(|column| column.field.name() == *name)) {
        let names: Vec<&str> = columns.iter().map(|column| column.field.name().as_str()).collect();
        return Err(Error::user("unknown-column", format!("{what} has no column \"{name}\""))
            .setting("binary")
            .help(format!("the columns are: {}", names.join(", "))));
    }
    if columns.is_empty() {
        return Err(Error::user("no-columns", format!("{what} has no columns")).setting(setting));
    }
    Ok(Learnt { doing, place, from, columns })
}

fn holds_binary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Binary => true,
        DataType::List(field) | DataType::Map(field, _) => holds_binary(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_binary(field.data_type())),
        _ => false,
    }
}

/// The source's columns: declared ones first, then the others, then the coordinates.
fn columns(own: &[FieldRef], cx: &SourceContext, connection: &str) -> Result<(SchemaRef, Vec<Origin>)> {
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut origins = Vec::new();
    let declared = cx.told().into_iter().flat_map(|told| told.fields());
    for field in declared {
        let index = own.iter().position(|column| column.name() == field.name());
        if let Some(column) = index.map(|index| &own[index])
            && !crate::conform::possible(column.data_type(), field.data_type())
        {
            let message =
                format!("\"{}\" is {} in \"{connection}\", which cannot become {}", field.name(), column.data_type(), field.data_type());
            return Err(Error::user("wrong-type", message).help("declare another type for it in the contract"));
        }
        fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
        origins.push(index.map_or(Origin::Absent, Origin::Server));
    }
    for (index, column) in own.iter().enumerate() {
        if !origins.contains(&Origin::Server(index)) {
            fields.push(column.clone());
            origins.push(Origin::Server(index));
        }
    }
    if cx.coordinates {
        if let Some(field) = fields.iter().find(|field| [Coordinates::FILE, Coordinates::ROW].contains(&field.name().as_str())) {
            return Err(Error::user("column-clash", format!("the source has a column \"{}\" of its own", field.name()))
                .help("give it another name by a \"query\""));
        }
        fields.extend(Coordinates::fields());
        origins.extend([Origin::File, Origin::Row]);
    }
    Ok((Arc::new(Schema::new(fields)), origins))
}

/// The rows as a table.
#[derive(Debug)]
struct ClickhouseTable(Arc<Input>);

#[async_trait]
impl TableProvider for ClickhouseTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let verdict = |applies| if applies { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Unsupported };
        Ok(filters.iter().map(|filter| verdict(self.0.applies(filter))).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.0.schema.fields().len()).collect();
        Ok(Arc::new(ClickhouseScan::new(self.0.clone(), projection.cloned().unwrap_or_else(all), filters, limit)?))
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
