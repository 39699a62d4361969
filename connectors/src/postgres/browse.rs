//! A Postgres database as one looks through it: its tables, and how queries over them are written and asked. Each query is a transaction of
//! its own, repeatable read and read only, and a `copy … to stdout` in it; types, values and their comparison are the source's.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::TableProvider,
    common::ScalarValue,
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::stream::RecordBatchReceiverStreamBuilder,
};
use futures::StreamExt;
use sqlx::Row;
use tokio::sync::mpsc::Sender;

use super::{
    Infinity, PostgresConnection,
    connect::Pool,
    decode::Decoder,
    failed::Doing,
    filter::{binding, expression, setting, written},
    name::TableName,
    source::{Column, described},
    types::{Compared, Kind, Numeric},
};
use crate::{
    Config,
    browse::{Browse, BrowseKind, Listed, ListedKind, Places, TimeLimit, impatient, look},
    context::RunContext,
    error::{Error, Result},
    quote,
    remote::{
        Dialect, Statement,
        query::{Function, JoinKind, Query, Table},
        rule,
        table::RemoteTable,
    },
};

/// What ad-hoc queries are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "weir sql";
/// A batch is handed on when it has so many bytes, however few rows those are.
const BATCH_BYTES: usize = 8 << 20;
/// The server ends a query so much later than it should have ended.
const GRACE: Duration = Duration::from_secs(1);
/// Batches that wait for whoever takes them.
const BATCHES_WAITING: usize = 2;

/// Looking through.
pub const BROWSE: BrowseKind = BrowseKind {
    kind: PostgresConnection::KIND,
    open: |connection, cx| {
        // That there is such a connection, and that its settings can be read, is known without asking.
        cx.connections.get::<PostgresConnection>(connection)?;
        Ok(Arc::new(Postgres(Arc::new(Database { connection: connection.to_owned(), cx: impatient(cx), places: Places::new() }))))
    },
    push: rule::push::<Database>,
};

/// A database that is looked through.
#[derive(Debug)]
struct Postgres(Arc<Database>);

/// A database that is asked.
#[derive(Debug)]
struct Database {
    connection: String,
    cx: RunContext,
    places: Places,
}

impl Database {
    async fn pool(&self) -> Result<Arc<Pool>> {
        Pool::open(&self.cx, &self.connection).await
    }
}

/// Schemas of the server's own.
fn is_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

fn kind_of(relkind: &str) -> ListedKind {
    if matches!(relkind, "v" | "m") { ListedKind::View } else { ListedKind::Table }
}

#[async_trait]
impl Browse for Postgres {
    async fn tables(&self) -> Result<Vec<Listed>> {
        let doing = format!("list the tables of \"{}\"", self.0.connection);
        let _place = self.0.places.place(&self.0.connection).await?;
        look(&self.0.connection, async {
            let pool = self.0.pool().await?;
            let mut session = pool.begin_read(APPLICATION_NAME, None).await?;
            // Partitions are read through their table; what a load has staged is nobody's yet.
            let found = session
                .fetch(
                    "select n.nspname::text, c.relname::text, c.relkind::text from pg_catalog.pg_class c \
                     join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'f') \
                     and not c.relispartition and c.relpersistence <> 't' and n.nspname not like 'pg\\_%' \
                     and n.nspname <> 'information_schema' and c.relname not like 'weir\\_stage\\_%' \
                     and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') order by 1, 2",
                    &[],
                    &doing,
                )
                .await?;
            let mut listed = Vec::with_capacity(found.len());
            for row in &found {
                let relkind: String = row.try_get(2).doing(&doing)?;
                let (schema, table) = (row.try_get(0).doing(&doing)?, row.try_get(1).doing(&doing)?);
                listed.push(Listed { schema, table, kind: kind_of(&relkind) });
            }
            session.rollback().await;
            Ok(listed)
        })
        .await
    }

    async fn table(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if is_system(schema) {
            return Ok(None);
        }
        let database = &self.0;
        let name = TableName { schema: Some(schema.to_owned()), table: table.to_owned() };
        let _place = database.places.place(&database.connection).await?;
        let learnt = look(&database.connection, async {
            let pool = database.pool().await?;
            let mut session = pool.begin_read(APPLICATION_NAME, None).await?;
            let learnt = described(&mut session, &database.connection, &name, Numeric::Exact).await;
            session.rollback().await;
            learnt
        });
        let learnt = match learnt.await {
            Ok(learnt) => learnt,
            Err(error) if error.code == "table-missing" => return Ok(None),
            Err(error) => return Err(Error { setting: None, ..error }),
        };
        let fields: Vec<_> = learnt.columns.iter().map(|column| column.field.clone()).collect();
        let kind = kind_of(learnt.relkind.as_deref().unwrap_or_default());
        let query = Query::Table(Table {
            is_view: kind == ListedKind::View,
            from: learnt.from,
            what: learnt.what,
            columns: learnt.columns.into_iter().map(|column| (column.name.clone(), column)).collect(),
            rows: learnt.rows,
        });
        Ok(Some(Arc::new(RemoteTable { system: database.clone(), query: Arc::new(query), schema: Arc::new(Schema::new(fields)), kind })))
    }
}

/// Byte by byte, whatever the columns' own collations are.
fn as_bytes(expression: &str) -> String {
    format!("{expression}::pg_catalog.text collate \"C\"")
}

/// A column that the server makes.
fn made(kind: Kind, cast: &str, compared: Compared) -> Column {
    let field = Arc::new(kind.field("", true));
    Column { name: String::new(), field, kind, cast: format!("::pg_catalog.{cast}"), compared, deterministic: true }
}

impl Dialect for Database {
    type Column = Column;
    const QUERY: &'static str = "PostgresQuery";
    const NOTHING: &'static str = "";
    const NAMED: bool = false;
    const REACHES_INTO_VIEWS: bool = false;

    fn connection(&self) -> &str {
        &self.connection
    }

    fn quoted(name: &str) -> String {
        quote::identifier(name)
    }

    fn data_type(column: &Column) -> &DataType {
        column.field.data_type()
    }

    fn compared(column: &Column, sql: &str) -> Option<String> {
        expression(column, sql)
    }

    fn bound(column: &Column, value: &ScalarValue, number: usize) -> Option<(String, String)> {
        let (text, cast) = written(value, column.compared)?;
        Some((text, setting(number, cast)))
    }

    fn grouped(column: &Column, sql: &str) -> Option<(String, Column)> {
        match column.compared {
            Compared::Never => None,
            Compared::Plainly | Compared::Uuid => Some((sql.to_owned(), column.clone())),
            Compared::Text if column.deterministic => Some((sql.to_owned(), column.clone())),
            // Two texts that are unequal here may be one value there, as 1.0 and 1.00 are.
            Compared::Text | Compared::AsText if matches!(column.kind, Kind::Text | Kind::NumericText) => {
                Some((expression(column, sql)?, made(Kind::Text, "text", Compared::Text)))
            }
            Compared::Text | Compared::AsText => None,
        }
    }

    fn ordered(column: &Column) -> bool {
        column.compared == Compared::Plainly
    }

    fn joined(left: (&Column, &str), right: (&Column, &str)) -> Option<String> {
        let is_text = |column: &Column| {
            matches!(column.compared, Compared::Text | Compared::AsText) && matches!(column.kind, Kind::Text | Kind::NumericText)
        };
        // Columns of two collations cannot be compared unless somebody says how.
        let bytes = |(column, sql): (&Column, &str)| match column.compared {
            Compared::Text => as_bytes(sql),
            _ => as_bytes(&format!("{sql}{}", column.cast)),
        };
        match (left.0.compared, right.0.compared) {
            (Compared::Plainly, Compared::Plainly) | (Compared::Uuid, Compared::Uuid) => Some(format!("{} = {}", left.1, right.1)),
            _ if is_text(left.0) && is_text(right.0) => Some(format!("{} = {}", bytes(left), bytes(right))),
            _ => None,
        }
    }

    fn optional(column: &Column) -> Option<Column> {
        Some(column.clone())
    }

    fn aggregated(function: Function, input: Option<(&Column, &str)>) -> Option<(String, Column)> {
        let count = |sql: String| Some((sql, made(Kind::Int8, "int8", Compared::Plainly)));
        match (function, input) {
            (Function::CountRows, _) => count("count(*)".to_owned()),
            (Function::Count, Some((_, sql))) => count(format!("count({sql})")),
            (Function::CountDistinct, Some((column, sql))) => count(format!("count(distinct {})", Self::grouped(column, sql)?.0)),
            (Function::Sum, Some((column, sql))) => {
                let sum = format!("sum({sql})");
                match column.kind {
                    // As many rows as it takes for these to leave 64 bits, no table has. A sum of bigint may, and is no bigint there.
                    Kind::Int2 | Kind::Int4 => Some((sum, made(Kind::Int8, "int8", Compared::Plainly))),
                    Kind::Decimal(precision, scale) => {
                        let wide = precision.checked_add(10)?;
                        let most = if precision <= DECIMAL128_MAX_PRECISION { DECIMAL128_MAX_PRECISION } else { DECIMAL256_MAX_PRECISION };
                        (wide <= most).then(|| (sum, made(Kind::Decimal(wide, scale), "numeric", Compared::Plainly)))
                    }
                    _ => None,
                }
            }
            (Function::Min | Function::Max, Some((column, sql))) => {
                let is_known = matches!(
                    column.kind,
                    Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Decimal(..) | Kind::Date | Kind::Timestamp | Kind::Timestamptz
                );
                let name = if function == Function::Min { "min" } else { "max" };
                is_known.then(|| (format!("{name}({sql})"), column.clone()))
            }
            (_, None) => None,
        }
    }

    fn sent(column: &Column, sql: &str) -> String {
        format!("{sql}{}", column.cast)
    }

    fn join(kind: JoinKind) -> &'static str {
        match kind {
            JoinKind::Inner => "inner join",
            JoinKind::Left => "left join",
        }
    }

    fn rows(self: Arc<Self>, statement: Arc<Statement<Self>>, schema: SchemaRef, context: &TaskContext) -> SendableRecordBatchStream {
        let config = context.session_config();
        let asking = Asking {
            // Whoever waits has ended it by then, and said why.
            limit: config.get_extension::<TimeLimit>().map(|limit| limit.0 + GRACE),
            batch_rows: config.batch_size().max(1),
            doing: format!("read {}", statement.what),
            database: self,
            statement,
            schema: schema.clone(),
        };
        let mut stream = RecordBatchReceiverStreamBuilder::new(schema, BATCHES_WAITING);
        let out = stream.tx();
        // The task ends with the stream: its connection is closed then, and the server stops.
        stream.spawn(async move { asking.read(&out).await.map_err(DataFusionError::from) });
        stream.build()
    }
}

/// One query under way.
struct Asking {
    database: Arc<Database>,
    statement: Arc<Statement<Database>>,
    schema: SchemaRef,
    limit: Option<Duration>,
    batch_rows: usize,
    doing: String,
}

impl Asking {
    async fn read(&self, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<()> {
        let (database, statement) = (&self.database, &self.statement);
        let place = database.places.place(&database.connection).await?;
        let mut session = look(&database.connection, async {
            let pool = database.pool().await?;
            pool.begin_read(APPLICATION_NAME, None).await
        })
        .await?;
        if let Some(limit) = self.limit {
            // The connection's own limit, or its role's, holds where it is the lower one; 0 is none.
            let limit = limit.as_millis().clamp(1, i32::MAX as u128).to_string();
            let sql = "select set_config('statement_timeout', least($1::int8, nullif(setting::int8, 0))::text, true) \
                       from pg_catalog.pg_settings where name = 'statement_timeout'";
            session.fetch(sql, &[&limit], &self.doing).await?;
        }
        if let Some((sql, binds)) = binding(&statement.values) {
            session.fetch(&sql, &binds, &self.doing).await?;
        }
        let columns = statement.columns.iter().zip(self.schema.fields()).map(|(column, field)| (field.name().as_str(), &column.kind));
        let mut decoder = Decoder::new(columns, Infinity::Fail, &statement.what);
        let sql = format!("copy ({}) to stdout (format binary)", statement.sql);
        {
            let mut bytes = std::pin::pin!(session.copy_out(&sql, &self.doing).await?);
            while let Some(bytes) = bytes.next().await {
                decoder.push(&bytes?)?;
                if (decoder.rows() >= self.batch_rows || decoder.bytes() >= BATCH_BYTES) && !self.hand_out(&mut decoder, out).await? {
                    return Ok(());
                }
            }
        }
        decoder.end()?;
        // The rows that are left may wait for whoever takes them; the server need not.
        session.rollback().await;
        drop(place);
        self.hand_out(&mut decoder, out).await.map(|_| ())
    }

    /// Hands out what has been decoded, in batches. False where nobody takes rows any more.
    async fn hand_out(&self, decoder: &mut Decoder, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<bool> {
        if decoder.rows() == 0 {
            return Ok(true);
        }
        let (columns, rows) = decoder.batch()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| {
            Error::system("columns-changed", format!("cannot {}: {error}", self.doing))
                .help("was the table changed in this moment? ask again")
        })?;
        let mut from = 0;
        while from < rows {
            let some = self.batch_rows.min(rows - from);
            if out.send(Ok(batch.slice(from, some))).await.is_err() {
                return Ok(false);
            }
            from += some;
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "browse_tests.rs"]
mod tests;
