//! A ClickHouse server as one looks through it: its tables, and how queries over them are written and asked. What each type is read as, and
//! how answers come, is the source's.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::TableProvider,
    common::ScalarValue,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::stream::RecordBatchStreamAdapter,
};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    ClickhouseConnection,
    connect::{Answer, Server},
    source::{Described, written},
    types::{self, Reading},
};
use crate::{
    Config,
    browse::{Browse, BrowseKind, Listed, ListedKind, Places, TimeLimit, impatient, look},
    context::RunContext,
    error::{Error, Result, Retry},
    quote::clickhouse as quote,
    remote::{
        Dialect, Statement,
        query::{Function, JoinKind, Query, Table},
        rule,
        table::RemoteTable,
    },
};

/// The server ends a query so much later than it should have ended: whoever waits has said why by then.
const GRACE: Duration = Duration::from_secs(1);

/// Looking through.
pub const BROWSE: BrowseKind = BrowseKind {
    kind: ClickhouseConnection::KIND,
    open: |connection, cx| {
        // That there is such a connection, and that its settings can be read, is known without asking.
        cx.connections.get::<ClickhouseConnection>(connection)?;
        Ok(Arc::new(Clickhouse(Arc::new(Databases { connection: connection.to_owned(), cx: impatient(cx), places: Places::new() }))))
    },
    push: rule::push::<Databases>,
};

/// A server that is looked through.
#[derive(Debug)]
struct Clickhouse(Arc<Databases>);

/// A server that is asked.
#[derive(Debug)]
struct Databases {
    connection: String,
    cx: RunContext,
    places: Places,
}

impl Databases {
    async fn server(&self) -> Result<Arc<Server>> {
        Server::of(&self.connection, &self.cx).await
    }
}

/// Databases of the server's own.
fn is_system(database: &str) -> bool {
    matches!(database, "system" | "information_schema" | "INFORMATION_SCHEMA")
}

fn kind_of(engine: &str) -> ListedKind {
    if engine.ends_with("View") { ListedKind::View } else { ListedKind::Table }
}

/// A line of `system.tables`.
#[derive(Deserialize)]
struct Told {
    database: String,
    name: String,
    engine: String,
}

#[async_trait]
impl Browse for Clickhouse {
    async fn tables(&self) -> Result<Vec<Listed>> {
        let doing = format!("list the tables of \"{}\"", self.0.connection);
        let _place = self.0.places.place(&self.0.connection).await?;
        let told: Vec<Told> = look(&self.0.connection, async {
            let server = self.0.server().await?;
            // What a view keeps, and what a load has staged, is read through others.
            let sql = "select database, name, engine from system.tables where not is_temporary and not startsWith(name, '.inner') \
                       and not startsWith(name, 'weir_stage_') order by database, name";
            server.rows(sql, &[], &doing).await
        })
        .await?;
        let own = told.into_iter().filter(|told| !is_system(&told.database));
        Ok(own.map(|told| Listed { kind: kind_of(&told.engine), schema: told.database, table: told.name }).collect())
    }

    async fn table(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if is_system(schema) {
            return Ok(None);
        }
        let databases = &self.0;
        let what = format!("\"{schema}.{table}\" of \"{}\"", databases.connection);
        let from = quote::table(schema, table);
        let doing = format!("read {what}");
        let (database, name) = (schema.to_owned(), table.to_owned());
        let _place = databases.places.place(&databases.connection).await?;
        let learnt = look(&databases.connection, async {
            let server = databases.server().await?;
            let described = server.rows::<Described>(&format!("describe table {from}"), &[], &doing).await?;
            let params = [("database", database), ("name", name)];
            let sql = "select database, name, engine from system.tables where database = {database:String} and name = {name:String}";
            Ok((described, server.rows::<Told>(sql, &params, &doing).await?))
        });
        let (described, told) = match learnt.await {
            Ok(learnt) => learnt,
            Err(error) if matches!(error.code, "table-missing" | "database-missing") => return Ok(None),
            Err(error) => return Err(Error { setting: None, ..error }),
        };
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for Described { name, own, .. } in described.into_iter().filter(Described::is_stored) {
            // The state of an aggregation has no value to show.
            let Ok(reading) = types::reading(&own, false) else { continue };
            fields.push(Field::new(&name, reading.data_type.clone(), reading.nullable));
            columns.push((name, Column { own, reading }));
        }
        let kind = told.first().map(|told| kind_of(&told.engine));
        // One of which nothing is told may be a view.
        let is_view = kind.is_none_or(|kind| kind == ListedKind::View);
        let query = Query::Table(Table { from, what, columns, is_view, rows: None });
        Ok(Some(Arc::new(RemoteTable {
            system: databases.clone(),
            query: Arc::new(query),
            schema: Arc::new(Schema::new(fields)),
            kind: kind.unwrap_or(ListedKind::Table),
        })))
    }
}

/// A column, under the name of its type.
#[derive(Debug, Clone)]
struct Column {
    own: String,
    reading: Reading,
}

impl Column {
    /// One that the server makes.
    fn made(own: &str) -> Option<Self> {
        Some(Self { own: own.to_owned(), reading: types::reading(own, false).ok()? })
    }

    /// The name of its type, without what only says how it is kept.
    fn bare(&self) -> &str {
        let inner = |text: &'_ str| text.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')).map(str::len);
        match inner(&self.own) {
            Some(length) => &self.own["LowCardinality(".len()..][..length],
            None => &self.own,
        }
    }
}

impl Dialect for Databases {
    type Column = Column;
    const QUERY: &'static str = "ClickhouseQuery";
    const NOTHING: &'static str = "1";
    const NAMED: bool = true;
    const REACHES_INTO_VIEWS: bool = true;

    fn connection(&self) -> &str {
        &self.connection
    }

    fn quoted(name: &str) -> String {
        quote::identifier(name)
    }

    fn data_type(column: &Column) -> &DataType {
        &column.reading.data_type
    }

    fn compared(column: &Column, sql: &str) -> Option<String> {
        column.reading.comparable.then(|| sql.to_owned())
    }

    fn bound(_: &Column, value: &ScalarValue, number: usize) -> Option<(String, String)> {
        let (text, own) = written(value)?;
        Some((text, format!("{{p{number}:{own}}}")))
    }

    fn grouped(column: &Column, sql: &str) -> Option<(String, Column)> {
        column.reading.comparable.then(|| (sql.to_owned(), column.clone()))
    }

    fn ordered(column: &Column) -> bool {
        column.reading.comparable
    }

    fn joined(left: (&Column, &str), right: (&Column, &str)) -> Option<String> {
        (left.0.reading.comparable && right.0.reading.comparable).then(|| format!("{} = {}", left.1, right.1))
    }

    fn optional(column: &Column) -> Option<Column> {
        if column.reading.nullable {
            return Some(column.clone());
        }
        // A list, a map or a tuple that is missing is an empty one there.
        column.reading.comparable.then(|| Column::made(&format!("Nullable({})", column.bare())))?
    }

    fn aggregated(function: Function, input: Option<(&Column, &str)>) -> Option<(String, Column)> {
        let cast = |sql: String, own: String| Some((format!("cast({sql} as {own})"), Column::made(&own)?));
        let count = |sql: String| cast(sql, "Int64".to_owned());
        match (function, input) {
            (Function::CountRows, _) => count("count()".to_owned()),
            (Function::Count, Some((column, sql))) => column.reading.comparable.then(|| count(format!("count({sql})")))?,
            // What `count(distinct …)` counts is a setting, and may be about so many.
            (Function::CountDistinct, Some((column, sql))) => column.reading.comparable.then(|| count(format!("uniqExact({sql})")))?,
            (Function::Sum, Some((column, sql))) => {
                // Of no rows a sum is null, not nothing.
                let sum = format!("sumOrNull({sql})");
                match &column.reading.data_type {
                    DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => cast(sum, "Nullable(Int64)".to_owned()),
                    DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => cast(sum, "Nullable(UInt64)".to_owned()),
                    DataType::Decimal128(precision @ ..=28, scale) | DataType::Decimal256(precision @ 39..=66, scale)
                        if column.reading.comparable =>
                    {
                        cast(sum, format!("Nullable(Decimal({}, {scale}))", precision + 10))
                    }
                    _ => None,
                }
            }
            (Function::Min | Function::Max, Some((column, sql))) => {
                let name = if function == Function::Min { "minOrNull" } else { "maxOrNull" };
                Some((format!("{name}({sql})"), Self::optional(column)?))
            }
            (_, None) => None,
        }
    }

    fn sent(column: &Column, sql: &str) -> String {
        column.reading.casts.iter().fold(sql.to_owned(), |inner, own| format!("cast({inner} as {own})"))
    }

    fn join(kind: JoinKind) -> &'static str {
        // All rows that match, whatever a profile says; what rows lack is null by the setting that goes with every query.
        match kind {
            JoinKind::Inner => "all inner join",
            JoinKind::Left => "all left join",
        }
    }

    fn rows(self: Arc<Self>, statement: Arc<Statement<Self>>, schema: SchemaRef, context: &TaskContext) -> SendableRecordBatchStream {
        let config = context.session_config();
        let asking = Asking {
            limit: config.get_extension::<TimeLimit>().map(|limit| limit.0 + GRACE),
            batch_rows: config.batch_size().max(1),
            doing: format!("read {}", statement.what),
            databases: self,
            statement,
            schema: schema.clone(),
        };
        let rows = Rows { asking: Arc::new(asking), answer: None, ready: None };
        let batches = futures::stream::try_unfold(rows, |mut rows| async move {
            Ok(rows.next().await.map_err(DataFusionError::from)?.map(|batch| (batch, rows)))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

/// One query.
struct Asking {
    databases: Arc<Databases>,
    statement: Arc<Statement<Databases>>,
    schema: SchemaRef,
    limit: Option<Duration>,
    batch_rows: usize,
    doing: String,
}

/// Its rows on their way.
struct Rows {
    asking: Arc<Asking>,
    answer: Option<(Answer, OwnedSemaphorePermit)>,
    /// Rows not handed out yet, and how many of them were.
    ready: Option<(RecordBatch, usize)>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let asking = self.asking.clone();
        loop {
            if let Some((batch, from)) = self.ready.take()
                && from < batch.num_rows()
            {
                let rows = asking.batch_rows.min(batch.num_rows() - from);
                let some = batch.slice(from, rows);
                self.ready = Some((batch, from + rows));
                return Ok(Some(some));
            }
            if self.answer.is_none() {
                let place = asking.databases.places.place(&asking.databases.connection).await?;
                self.answer = Some((asking.ask().await?, place));
            }
            let (answer, _) = self.answer.as_mut().expect("it was just asked");
            let Some(sent) = answer.next().await? else { return Ok(None) };
            self.ready = Some((asking.bring(&sent)?, 0));
        }
    }
}

impl Asking {
    async fn ask(&self) -> Result<Answer> {
        let names: Vec<String> = (1..=self.statement.values.len()).map(|number| format!("p{number}")).collect();
        let params: Vec<(&str, String)> = names.iter().map(String::as_str).zip(self.statement.values.iter().cloned()).collect();
        let ask = async || {
            let server = look(&self.databases.connection, self.databases.server()).await?;
            let mut options = Vec::new();
            if self.statement.is_outer {
                options.push(("join_use_nulls", "1"));
            }
            // The connection's own limit holds where it is the lower one.
            let limit = self.limit.into_iter().chain(server.query_timeout()).min().map(|limit| limit.as_secs_f64().to_string());
            options.extend(limit.as_deref().map(|limit| ("max_execution_time", limit)));
            let query_id = format!("weir-sql-{}", uuid::Uuid::now_v7());
            server.arrow_with(&self.statement.sql, &params, &options, &query_id, &self.doing).await
        };
        match ask().await {
            // A connection that was kept may have died meanwhile, of which only using it tells.
            Err(error) if error.retry == Retry::Later => ask().await,
            asked => asked,
        }
    }

    /// What the server sent, as its columns are read.
    fn bring(&self, sent: &RecordBatch) -> Result<RecordBatch> {
        let columns = &self.statement.columns;
        if !columns.is_empty() && sent.num_columns() != columns.len() {
            let message = format!("cannot {}: the answer has {} columns, not {}", self.doing, sent.num_columns(), columns.len());
            return Err(Error::system("clickhouse-protocol", message));
        }
        let fields = self.schema.fields().iter();
        let brought =
            columns.iter().zip(fields).zip(sent.columns()).map(|((column, field), array)| column.reading.bring(array, field.name()));
        let brought: Vec<ArrayRef> = brought.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(sent.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), brought, &options).map_err(|error| {
            Error::system("columns-changed", format!("cannot {}: {error}", self.doing))
                .help("was the table changed in this moment? ask again")
        })
    }
}

#[cfg(test)]
#[path = "browse_tests.rs"]
mod tests;
