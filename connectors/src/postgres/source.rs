//! Opening a Postgres source: what the table or query is called, which columns it has and as what they are read, whether it can be read
//! in pieces. Reading is `scan`'s.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session as DataFusionSession, TableProvider},
    error::Result as DataFusionResult,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use sqlx::{Column as _, Row};

use super::{
    Infinity, PostgresConnection, PostgresSource,
    connect::{Pool, Session, application_name},
    failed::Doing,
    filter::Conditions,
    name::TableName,
    scan::PostgresScan,
    types::{Compared, Kind, Numeric, Types, distinct, oid},
};
use crate::{
    Asked, DataColumns, Extent, Opened,
    conform::possible,
    context::{Coordinates, ReadCount, SourceContext},
    error::{Blame, Error, Result},
    extent::Rows,
    incremental::Reach,
    known::Unread,
    pushdown::Filter,
    quote,
};

/// The first server whose scans of a range of a table's pages read those pages only.
const RANGES_SINCE: u32 = 140_000;

/// A column of the table or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// As it is read, before a contract's type.
    pub field: FieldRef,
    pub kind: Kind,
    pub cast: String,
    pub compared: Compared,
    /// Its collation tells unequal texts apart.
    pub deterministic: bool,
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
    pub pool: Arc<Pool>,
    /// For messages: `"public.planes" of "crm"`.
    pub what: String,
    /// For the coordinate: `crm.public.planes`.
    pub place: String,
    /// What stands after `from`.
    pub from: String,
    pub columns: Vec<Column>,
    pub schema: SchemaRef,
    pub origins: Vec<Origin>,
    /// The table's pages, where it can be read in pieces.
    pub pages: Option<u64>,
    /// Pieces read at once, at most.
    pub readers: usize,
    /// The server's estimate.
    pub rows: Option<u64>,
    pub infinity: Infinity,
    pub reach: Option<Arc<Reach>>,
    pub read: Arc<ReadCount>,
}

impl Input {
    /// The columns of the source, in the server's words: only those that come from there as they are.
    fn column(&self, name: &str) -> Option<&Column> {
        let index = self.schema.index_of(name).ok()?;
        match self.origins[index] {
            Origin::Server(column) => {
                let column = &self.columns[column];
                // The server's infinity is a null here: it would answer for another value than DataFusion sees.
                let shifts = self.infinity == Infinity::Null && may_be_infinite(column.field.data_type());
                (!shifts && column.field.data_type() == self.schema.field(index).data_type()).then_some(column)
            }
            _ => None,
        }
    }

    /// The filter's conditions, where the server may apply it.
    fn conditions(&self, filter: &Expr) -> Option<Conditions> {
        let filter = Filter::of(filter, &self.schema)?;
        let mut conditions = Conditions::default();
        conditions.add(&filter, &|name| self.column(name)).then_some(conditions)
    }

    /// The conditions of all these filters, and of the rows that are read. Those that the server does not apply are DataFusion's, or the
    /// reach's.
    pub(super) fn all_conditions(&self, filters: &[Expr]) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some(reached) = self.reach.as_deref().and_then(Reach::asks) {
            conditions.add(&reached, &|name| self.column(name));
        }
        for filter in filters {
            if let Some(filter) = Filter::of(filter, &self.schema) {
                conditions.add(&filter, &|name| self.column(name));
            }
        }
        conditions
    }
}

fn may_be_infinite(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date32 | DataType::Timestamp(..) | DataType::Interval(_) => true,
        DataType::List(item) => may_be_infinite(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| may_be_infinite(field.data_type())),
        _ => false,
    }
}

/// What was learnt of a table or a query.
pub(super) struct Learnt {
    pub what: String,
    place: String,
    pub from: String,
    pub columns: Vec<Column>,
    /// What it is to the catalog: `r`, `v` and so on; none of a query.
    pub relkind: Option<String>,
    pages: Option<u64>,
    pub rows: Option<u64>,
}

/// Connects, learns the columns, and returns the rows as a table.
pub(super) async fn open(settings: &PostgresSource, cx: &SourceContext) -> Result<Opened> {
    let pool = Pool::open(&cx.run, &settings.connection).await?;
    let mut session = pool.begin_read(&application_name(&cx.run.run, &cx.step), None).await?;
    let numeric = settings.numeric()?;
    let learnt = match (&settings.table, &settings.query) {
        (Some(table), _) => learn_table(&mut session, &settings.connection, &TableName::parse(table)?, numeric).await?,
        (None, Some(query)) => learn_query(&mut session, &settings.connection, query, numeric).await?,
        (None, None) => return Err(Error::user("wrong-value", "\"postgres\" needs the setting \"table\" or \"query\"")),
    };
    session.rollback().await;
    let own: Vec<FieldRef> = learnt.columns.iter().map(|column| column.field.clone()).collect();
    let (schema, origins) = columns(&own, &learnt.what, settings.setting(), cx)?;
    let told = DataColumns { absent: absent(&schema, &origins), own: Some(Arc::new(Schema::new(own))), ..DataColumns::default() };
    let reach = reach(&schema, cx)?;
    let read = Arc::new(ReadCount::default());
    let extent = Extent { files: None, rows: learnt.rows.map(Rows::Estimated), cursor: reach.as_deref().and_then(Reach::from) };
    let input = Input {
        cx: cx.clone(),
        readers: settings.partitions.unwrap_or(cx.run.partitions).clamp(1, pool.max()),
        pool,
        what: learnt.what,
        place: learnt.place,
        from: learnt.from,
        columns: learnt.columns,
        schema,
        origins,
        pages: learnt.pages,
        rows: learnt.rows,
        infinity: settings.infinity,
        reach: reach.clone(),
        read: read.clone(),
    };
    let advance = reach.and_then(|reach| reach.advance());
    Ok(Opened { table: Arc::new(PostgresTable(Arc::new(input))), advance, read, columns: told, extent })
}

/// The same of columns that are known, without asking.
pub(super) fn recall(settings: &PostgresSource, own: &SchemaRef, cx: &SourceContext) -> Result<Opened> {
    // That there is such a connection can be known without it.
    cx.run.connections.get::<PostgresConnection>(&settings.connection)?;
    let (schema, origins) = columns(own.fields(), &settings.asked().what, settings.setting(), cx)?;
    let columns = DataColumns { absent: absent(&schema, &origins), own: Some(own.clone()), ..DataColumns::default() };
    let advance = reach(&schema, cx)?.and_then(|reach| reach.advance());
    Ok(Opened { table: Arc::new(Unread(schema)), advance, read: Arc::default(), columns, extent: Extent::default() })
}

impl PostgresSource {
    pub(super) fn asked(&self) -> Asked {
        let connection = &self.connection;
        let what = match &self.table {
            Some(table) => match TableName::parse(table) {
                Ok(name) => format!("\"{name}\" of \"{connection}\""),
                Err(_) => format!("\"{table}\" of \"{connection}\""),
            },
            None => format!("the query of \"{connection}\""),
        };
        Asked { what, setting: self.setting() }
    }

    /// The setting that says what is read.
    fn setting(&self) -> &'static str {
        if self.table.is_some() { "table" } else { "query" }
    }
}

/// The columns that the server does not have.
fn absent(schema: &SchemaRef, origins: &[Origin]) -> Vec<String> {
    let absent = schema.fields().iter().zip(origins).filter(|(_, origin)| **origin == Origin::Absent);
    absent.map(|(field, _)| field.name().clone()).collect()
}

/// Which rows are read, where not all: by a column of the data.
fn reach(schema: &SchemaRef, cx: &SourceContext) -> Result<Option<Arc<Reach>>> {
    let coordinates = if cx.coordinates { Coordinates::fields().len() } else { 0 };
    let data = schema.fields().len() - coordinates;
    let own = Schema::new(schema.fields()[..data].to_vec());
    Ok(Reach::of(cx, &own)?.map(Arc::new))
}

async fn learn_table(session: &mut Session, connection: &str, name: &TableName, numeric: Numeric) -> Result<Learnt> {
    let learnt = described(session, connection, name, numeric).await?;
    // Whether it may be read is only known by asking for it.
    let list = learnt.columns.iter().map(|column| quote::identifier(&column.name)).collect::<Vec<_>>().join(", ");
    session.execute(&format!("select {list} from {} limit 0", learnt.from), &format!("read {}", learnt.what)).await?;
    Ok(learnt)
}

/// What the catalog says of a table; whether it may be read is another question.
pub(super) async fn described(session: &mut Session, connection: &str, name: &TableName, numeric: Numeric) -> Result<Learnt> {
    let asked = format!("read \"{name}\" of \"{connection}\"");
    let found = session
        .fetch(
            "select c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relhassubclass, coalesce(m.amname::text, ''), \
             case when c.reltuples >= 0 then c.reltuples::int8 end, c.oid::text \
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             left join pg_catalog.pg_am m on m.oid = c.relam where c.oid = pg_catalog.to_regclass($1)",
            &[&name.sql()],
            &asked,
        )
        .await?;
    let Some(row) = found.first() else { return Err(missing(session, connection, name).await) };
    let schema: String = row.try_get(1).doing(&asked)?;
    let table: String = row.try_get(2).doing(&asked)?;
    let relkind: String = row.try_get(3).doing(&asked)?;
    let inherited: bool = row.try_get(4).doing(&asked)?;
    let method: String = row.try_get(5).doing(&asked)?;
    let rows: Option<i64> = row.try_get(6).doing(&asked)?;
    let relation: String = row.try_get(7).doing(&asked)?;
    let kind = match relkind.as_str() {
        "r" | "p" | "v" | "m" | "f" => None,
        "S" => Some("a sequence"),
        "i" | "I" => Some("an index"),
        "c" => Some("a composite type"),
        _ => Some("no table"),
    };
    if let Some(kind) = kind {
        return Err(Error::user("table-missing", format!("\"{name}\" of \"{connection}\" is {kind}, not a table")).setting("table"));
    }
    let name = TableName { schema: Some(schema), table };
    let (what, from) = (format!("\"{name}\" of \"{connection}\""), name.sql());
    let doing = format!("read {what}");

    // A column is not null where every row there is has been checked; from 18 on, constraints exist that only new rows keep. What a foreign
    // table says of its rows nobody checks.
    let found = session
        .fetch(
            "select a.attname::text, a.atttypid::int8, a.atttypmod, a.attnotnull and not exists (select from pg_catalog.pg_constraint k \
             where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated and a.attnum = any (k.conkey)) \
             and not exists (select from pg_catalog.pg_class f where f.relkind = 'f' and (f.oid = a.attrelid \
             or f.oid in (select relid from pg_catalog.pg_partition_tree(a.attrelid)))), \
             coalesce(l.collisdeterministic, true) from pg_catalog.pg_attribute a left join pg_catalog.pg_collation l \
             on l.oid = a.attcollation where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped order by a.attnum",
            &[&relation],
            &doing,
        )
        .await?;
    let mut described = Vec::with_capacity(found.len());
    for row in &found {
        described.push(Described {
            name: row.try_get(0).doing(&doing)?,
            oid: oid(row.try_get(1).doing(&doing)?),
            modifier: row.try_get(2).doing(&doing)?,
            not_null: row.try_get(3).doing(&doing)?,
            deterministic: row.try_get(4).doing(&doing)?,
        });
    }
    let types = Types::learn(session, described.iter().map(|column| column.oid), &doing).await?;
    let columns: Vec<Column> = described.into_iter().map(|column| column.read(&types, numeric)).collect();

    let pages = match relkind.as_str() {
        _ if session.pool().server().version < RANGES_SINCE => None,
        "r" | "m" if method == "heap" && !inherited => {
            Some("select pg_catalog.pg_relation_size($1::oid::regclass) / current_setting('block_size')::int8, true")
        }
        // Every piece reads the same pages of all partitions, so the largest says how many pages there are.
        "p" => Some(
            "select coalesce(max(pg_catalog.pg_relation_size(c.oid)), 0) / current_setting('block_size')::int8, \
             coalesce(bool_and(c.relkind = 'r' and m.amname = 'heap'), false) from pg_catalog.pg_partition_tree($1::oid::regclass) t \
             join pg_catalog.pg_class c on c.oid = t.relid left join pg_catalog.pg_am m on m.oid = c.relam where t.isleaf",
        ),
        _ => None,
    };
    let pages = match pages {
        None => None,
        Some(sql) => {
            let found = session.fetch(sql, &[&relation], &doing).await?;
            let row = found.first().ok_or_else(|| Error::weir("postgres", "an aggregate has one row"))?;
            let (pages, whole): (i64, bool) = (row.try_get(0).doing(&doing)?, row.try_get(1).doing(&doing)?);
            whole.then(|| u64::try_from(pages).unwrap_or_default())
        }
    };
    let place = format!("{connection}.{name}");
    Ok(Learnt { what, place, from, columns, relkind: Some(relkind), pages, rows: rows.and_then(|rows| u64::try_from(rows).ok()) })
}

/// Says that there is no such table, and which one may be meant.
async fn missing(session: &mut Session, connection: &str, name: &TableName) -> Error {
    let error = Error::user("table-missing", format!("connection \"{connection}\" has no table \"{name}\"")).setting("table");
    let similar = session
        .fetch(
            "select n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p', 'v', 'm', 'f') and lower(c.relname) = lower($1) and n.nspname not like 'pg\\_%' \
             order by 1, 2 limit 3",
            &[&name.table],
            "look for tables",
        )
        .await
        .unwrap_or_default();
    let similar: Vec<String> = similar
        .iter()
        .filter_map(|row| Some(format!("\"{}.{}\"", row.try_get::<String, _>(0).ok()?, row.try_get::<String, _>(1).ok()?)))
        .collect();
    if similar.is_empty() {
        error.help("correct the name: it is case-sensitive, and schema.table says which schema it is in")
    } else {
        error.help(format!("did you mean {}?", similar.join(" or ")))
    }
}

async fn learn_query(session: &mut Session, connection: &str, query: &str, numeric: Numeric) -> Result<Learnt> {
    let what = format!("the query of \"{connection}\"");
    let doing = format!("read {what}");
    // A line of its own for the parenthesis: the query may end in a comment.
    let from = format!("(\n{}\n) as weir_query", query.trim().trim_end_matches(';'));
    let wrong = |mut error: Error| {
        if error.blame == Blame::User && error.setting.is_none() {
            error.setting = Some("query".into());
        }
        error
    };
    // One row of nulls, whose types tell the query's; the query itself is planned and not executed.
    let found = session
        .fetch_simple(&format!("select weir_query.* from (select) as one left join {from} on false"), &doing)
        .await
        .map_err(wrong)?;
    let row = found.first().ok_or_else(|| Error::weir("postgres", "a left join keeps its one row"))?;
    distinct(row.columns().iter().map(|column| column.name()), "the query")?;

    // Where a column of a table is what is selected, the table tells its precision and scale, and the domain it is of.
    let origins: Vec<String> = row
        .columns()
        .iter()
        .filter_map(|column| Some(format!("({}, {})", column.relation_id()?.0, column.relation_attribute_no()?)))
        .collect();
    let mut exact = HashMap::new();
    if !origins.is_empty() {
        let sql = format!(
            "select attrelid::int8, attnum, atttypid::int8, atttypmod from pg_catalog.pg_attribute where (attrelid, attnum) in ({})",
            origins.join(", ")
        );
        for row in session.fetch(&sql, &[], &doing).await? {
            let (relation, number): (i64, i16) = (row.try_get(0).doing(&doing)?, row.try_get(1).doing(&doing)?);
            let (type_oid, modifier): (i64, i32) = (row.try_get(2).doing(&doing)?, row.try_get(3).doing(&doing)?);
            exact.insert((oid(relation), number), (oid(type_oid), modifier));
        }
    }
    let described: Vec<Described> = row
        .columns()
        .iter()
        .map(|column| {
            let origin = column.relation_id().map(|relation| relation.0).zip(column.relation_attribute_no());
            let told = (column.type_info().oid().map_or(0, |oid| oid.0), -1);
            let (oid, modifier) = origin.and_then(|origin| exact.get(&origin).copied()).unwrap_or(told);
            Described { name: column.name().to_owned(), oid, modifier, not_null: false, deterministic: false }
        })
        .collect();
    if let Some(unknown) = described.iter().find(|column| column.oid == 0) {
        return Err(Error::weir("postgres", format!("the type of column \"{}\" is not told", unknown.name)));
    }
    let types = Types::learn(session, described.iter().map(|column| column.oid), &doing).await?;
    let columns = described.into_iter().map(|column| column.read(&types, numeric)).collect();
    Ok(Learnt { what, place: format!("{connection} (query)"), from, columns, relkind: None, pages: None, rows: None })
}

/// A column as the server describes it.
struct Described {
    name: String,
    oid: u32,
    modifier: i32,
    not_null: bool,
    deterministic: bool,
}

impl Described {
    fn read(self, types: &Types, numeric: Numeric) -> Column {
        let reading = types.reading(self.oid, self.modifier, numeric);
        Column {
            field: Arc::new(reading.kind.field(&self.name, !self.not_null)),
            name: self.name,
            kind: reading.kind,
            cast: reading.cast,
            compared: reading.compared,
            deterministic: self.deterministic,
        }
    }
}

/// The source's columns: those declared in their order, then the others, then the coordinates.
fn columns(own: &[FieldRef], what: &str, setting: &str, cx: &SourceContext) -> Result<(SchemaRef, Vec<Origin>)> {
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut origins = Vec::new();
    let is_declared = |name: &str| cx.told().is_some_and(|told| told.index_of(name).is_ok());
    for field in cx.told().into_iter().flat_map(|told| told.fields()) {
        let Some(index) = own.iter().position(|column| column.name() == field.name()) else {
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            origins.push(Origin::Absent);
            continue;
        };
        let column = &own[index];
        let (from, to) = (column.data_type(), field.data_type());
        if !possible(from, to) {
            return Err(Error::user("wrong-type", format!("\"{}\" is {from} in {what}, which cannot become {to}", field.name()))
                .setting(setting)
                .help("declare another type for it in the contract"));
        }
        // What does not fit its declared type leaves the stream, so a column stays as not null as it was.
        fields.push(Arc::new(field.as_ref().clone().with_nullable(column.is_nullable() || to.is_nested())));
        origins.push(Origin::Server(index));
    }
    for (index, column) in own.iter().enumerate().filter(|(_, column)| !is_declared(column.name())) {
        fields.push(column.clone());
        origins.push(Origin::Server(index));
    }
    if cx.coordinates {
        for (field, origin) in Coordinates::fields().into_iter().zip([Origin::File, Origin::Row]) {
            if fields.iter().any(|known| known.name() == field.name()) {
                let message = format!("{what} has a column \"{}\" of its own", field.name());
                return Err(Error::user("column-clash", message).help("give it another name in a \"query\""));
            }
            fields.push(field);
            origins.push(origin);
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    Ok((schema, origins))
}

/// The rows as a table.
#[derive(Debug)]
pub(super) struct PostgresTable(Arc<Input>);

#[async_trait]
impl TableProvider for PostgresTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let exact = |filter: &&Expr| match self.0.conditions(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(exact).collect())
    }

    async fn scan(
        &self,
        _: &dyn DataFusionSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.0.schema.fields().len()).collect();
        // A filter that was promised and is not sent would let rows through.
        if let Some(filter) = filters.iter().find(|filter| self.0.conditions(filter).is_none()) {
            return Err(Error::weir("filter-lost", format!("the filter {filter} cannot be sent to Postgres")).into());
        }
        Ok(Arc::new(PostgresScan::new(self.0.clone(), projection.cloned().unwrap_or_else(all), filters, limit)?))
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
