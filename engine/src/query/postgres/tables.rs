//! Which tables of `pg_catalog` tell what there is? Those of the catalogue that a session is in, which is the database of Postgres's
//! clients; the other catalogues are the other databases.
//!
//! Tables are opened for their columns, and only those whose columns are asked for. One that cannot be opened has none.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, MemTable, SchemaProvider, Session, TableProvider},
    common::ScalarValue,
    error::Result as DfResult,
    logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use datafusion_pg_catalog::pg_catalog::{PG_CATALOG_TABLES, oid_field::oid_field};
use parking_lot::Mutex;

use super::types::{oid, pg_type};

/// Who asks, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// The catalogue that the session is in.
    pub catalog: String,
    /// The schema of names without one.
    pub schema: String,
    /// Whose session it is.
    pub user: String,
}

/// The number of the only role that is told of: whoever asks. Nobody sees who else there is.
pub(super) const OWNER: i32 = 10;
/// `pg_catalog`'s own number, the same in every Postgres.
const PG_CATALOG: i32 = 11;
/// The first number that is not Postgres's own.
const FIRST: i32 = 16_384;

/// Tables of what nothing here has: keys, indexes, defaults, triggers.
pub(super) const EMPTY: &[&str] = &[
    "pg_attrdef",
    "pg_constraint",
    "pg_index",
    "pg_inherits",
    "pg_policy",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_sequence",
    "pg_statistic_ext",
    "pg_trigger",
];

/// Columns of keys, which are lists of columns' numbers: what is asked of them are their elements.
const LISTS: [&str; 2] = ["conkey", "confkey"];

/// The columns of an empty table, those of keys as lists.
pub(super) fn with_lists(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match LISTS.contains(&field.name().as_str()) {
        true => Arc::new(Field::new_list(field.name(), Field::new_list_field(DataType::Int16, true), true)),
        false => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Numbers of what has a name, for as long as the process runs: a client may keep what it was told.
static NUMBERS: LazyLock<Mutex<HashMap<String, i32>>> = LazyLock::new(Mutex::default);

fn number(kind: &str, path: &[&str]) -> i32 {
    let mut numbers = NUMBERS.lock();
    let next = FIRST + numbers.len() as i32;
    *numbers.entry(format!("{kind}\0{}", path.join("\0"))).or_insert(next)
}

/// A function, as `pg_proc` has it.
#[derive(Debug, Clone)]
pub(super) struct Routine {
    pub number: i32,
    pub name: String,
    /// `f`unction, `a`ggregate or `w`indow function.
    pub kind: &'static str,
    /// One of Weir's own, which gives a table.
    pub is_table: bool,
    pub arguments: String,
    pub result: &'static str,
}

/// The schema `pg_catalog`.
pub(super) struct PgCatalog {
    pub theirs: Arc<dyn SchemaProvider>,
    told: Arc<Told>,
}

impl Debug for PgCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgCatalog").field("who", &self.told.who).finish_non_exhaustive()
    }
}

/// What the tables are made of.
struct Told {
    who: Owned,
    theirs: Arc<dyn SchemaProvider>,
    catalog: Arc<dyn CatalogProvider>,
    databases: Vec<String>,
    routines: Vec<Routine>,
}

impl PgCatalog {
    pub fn new(
        theirs: Arc<dyn SchemaProvider>,
        catalog: Arc<dyn CatalogProvider>,
        databases: Vec<String>,
        context: &SessionContext,
        who: Owned,
    ) -> Self {
        let told = Told { who, theirs: theirs.clone(), catalog, databases, routines: routines(context) };
        Self { theirs, told: Arc::new(told) }
    }

    /// A table of ours.
    pub fn own(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let kind = Kind::named(name)?;
        Some(Arc::new(Own { kind, schema: kind.schema(), told: self.told.clone() }))
    }

    /// The number of a table, by a name that may have its schema before it.
    pub fn numbered(&self, name: &str) -> Option<i32> {
        let parts: Vec<String> = name.split('.').map(|part| part.trim_matches('"').to_owned()).collect();
        let tables = self.told.tables();
        let found = |schema: &str, table: &str| {
            let known = tables.iter().any(|(known, name)| known == schema && name == table);
            known.then(|| self.told.table_number(schema, table))
        };
        match parts.as_slice() {
            [table] => found("pg_catalog", table).or_else(|| found(&self.told.who.schema, table)),
            [schema, table] => found(schema, table),
            [catalog, schema, table] if *catalog == self.told.who.catalog => found(schema, table),
            _ => None,
        }
    }

    pub fn routines(&self) -> &[Routine] {
        &self.told.routines
    }
}

/// Every function of the session, and Weir's own that give tables.
fn routines(context: &SessionContext) -> Vec<Routine> {
    let state = context.state();
    let mut routines = Vec::new();
    let scalars = state.scalar_functions().iter().map(|(name, function)| (name.clone(), "f", function.signature().clone()));
    let aggregates = state.aggregate_functions().iter().map(|(name, function)| (name.clone(), "a", function.signature().clone()));
    let windows = state.window_functions().iter().map(|(name, function)| (name.clone(), "w", function.signature().clone()));
    for (name, kind, signature) in scalars.chain(aggregates).chain(windows) {
        let arguments = signature.type_signature.to_string_repr().join(" | ");
        routines.push(Routine { number: number("f", &[kind, &name]), name, kind, is_table: false, arguments, result: "any" });
    }
    for name in super::super::functions::FUNCTIONS {
        let number = number("t", &[name]);
        let (name, arguments) = (name.to_owned(), "text, …".to_owned());
        routines.push(Routine { number, name, kind: "f", is_table: true, arguments, result: "SETOF record" });
    }
    routines.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    routines
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Class,
    Namespace,
    Attribute,
    Database,
    Roles,
    Tables,
    Proc,
    Members,
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn boolean(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

fn small(name: &str) -> Field {
    Field::new(name, DataType::Int16, true)
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn id(name: &str) -> Field {
    oid_field(name, "oid", true)
}

fn texts(name: &str) -> Field {
    Field::new(name, DataType::new_list(DataType::Utf8, true), true)
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pg_class" => Kind::Class,
            "pg_namespace" => Kind::Namespace,
            "pg_attribute" => Kind::Attribute,
            "pg_database" => Kind::Database,
            "pg_roles" => Kind::Roles,
            "pg_tables" => Kind::Tables,
            "pg_proc" => Kind::Proc,
            // Nobody is a member of anything.
            "pg_auth_members" => Kind::Members,
            _ => return None,
        })
    }

    /// As Postgres 16 has them. <https://www.postgresql.org/docs/16/catalogs.html>
    fn schema(self) -> SchemaRef {
        let timestamp =
            |name: &str| Field::new(name, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())), true);
        let fields = match self {
            Kind::Class => vec![
                id("oid"),
                text("relname"),
                id("relnamespace"),
                id("reltype"),
                id("reloftype"),
                id("relowner"),
                id("relam"),
                id("relfilenode"),
                id("reltablespace"),
                int("relpages"),
                Field::new("reltuples", DataType::Float32, true),
                int("relallvisible"),
                id("reltoastrelid"),
                boolean("relhasindex"),
                boolean("relisshared"),
                text("relpersistence"),
                text("relkind"),
                small("relnatts"),
                small("relchecks"),
                boolean("relhasrules"),
                boolean("relhastriggers"),
                boolean("relhassubclass"),
                boolean("relrowsecurity"),
                boolean("relforcerowsecurity"),
                boolean("relispopulated"),
                text("relreplident"),
                boolean("relispartition"),
                id("relrewrite"),
                int("relfrozenxid"),
                int("relminmxid"),
                texts("relacl"),
                texts("reloptions"),
                text("relpartbound"),
            ],
            Kind::Namespace => vec![id("oid"), text("nspname"), id("nspowner"), texts("nspacl")],
            Kind::Attribute => vec![
                id("attrelid"),
                text("attname"),
                id("atttypid"),
                small("attlen"),
                small("attnum"),
                int("attcacheoff"),
                int("atttypmod"),
                small("attndims"),
                boolean("attbyval"),
                text("attalign"),
                text("attstorage"),
                text("attcompression"),
                boolean("attnotnull"),
                boolean("atthasdef"),
                boolean("atthasmissing"),
                text("attidentity"),
                text("attgenerated"),
                boolean("attisdropped"),
                boolean("attislocal"),
                small("attinhcount"),
                small("attstattarget"),
                id("attcollation"),
                texts("attacl"),
                texts("attoptions"),
                texts("attfdwoptions"),
                text("attmissingval"),
            ],
            Kind::Database => vec![
                id("oid"),
                text("datname"),
                id("datdba"),
                int("encoding"),
                text("datlocprovider"),
                boolean("datistemplate"),
                boolean("datallowconn"),
                int("datconnlimit"),
                int("datfrozenxid"),
                int("datminmxid"),
                id("dattablespace"),
                text("datcollate"),
                text("datctype"),
                text("daticulocale"),
                text("daticurules"),
                text("datcollversion"),
                texts("datacl"),
            ],
            Kind::Roles => vec![
                text("rolname"),
                boolean("rolsuper"),
                boolean("rolinherit"),
                boolean("rolcreaterole"),
                boolean("rolcreatedb"),
                boolean("rolcanlogin"),
                boolean("rolreplication"),
                int("rolconnlimit"),
                text("rolpassword"),
                timestamp("rolvaliduntil"),
                boolean("rolbypassrls"),
                texts("rolconfig"),
                id("oid"),
            ],
            Kind::Tables => vec![
                text("schemaname"),
                text("tablename"),
                text("tableowner"),
                text("tablespace"),
                boolean("hasindexes"),
                boolean("hasrules"),
                boolean("hastriggers"),
                boolean("rowsecurity"),
            ],
            Kind::Proc => vec![
                id("oid"),
                text("proname"),
                id("pronamespace"),
                id("proowner"),
                id("prolang"),
                Field::new("procost", DataType::Float32, true),
                Field::new("prorows", DataType::Float32, true),
                id("provariadic"),
                text("prosupport"),
                text("prokind"),
                boolean("prosecdef"),
                boolean("proleakproof"),
                boolean("proisstrict"),
                boolean("proretset"),
                text("provolatile"),
                text("proparallel"),
                small("pronargs"),
                small("pronargdefaults"),
                id("prorettype"),
                texts("proargtypes"),
                texts("proallargtypes"),
                texts("proargmodes"),
                texts("proargnames"),
                text("proargdefaults"),
                text("prosrc"),
                text("probin"),
                text("prosqlbody"),
                texts("proconfig"),
                texts("proacl"),
            ],
            Kind::Members => vec![
                id("oid"),
                id("roleid"),
                id("member"),
                id("grantor"),
                boolean("admin_option"),
                boolean("inherit_option"),
                boolean("set_option"),
            ],
        };
        Arc::new(Schema::new(fields))
    }
}

/// One row: the columns that are not null. What is left out is null, or what its column is mostly.
type Row = Vec<(&'static str, ScalarValue)>;

fn s(value: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn n(value: i32) -> ScalarValue {
    ScalarValue::Int32(Some(value))
}

fn h(value: i16) -> ScalarValue {
    ScalarValue::Int16(Some(value))
}

fn b(value: bool) -> ScalarValue {
    ScalarValue::Boolean(Some(value))
}

impl Told {
    fn schemas(&self) -> Vec<String> {
        let mut names = self.catalog.schema_names();
        names.push("information_schema".to_owned());
        names.push("pg_catalog".to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema_number(&self, schema: &str) -> i32 {
        if schema == "pg_catalog" { PG_CATALOG } else { number("n", &[&self.who.catalog, schema]) }
    }

    fn table_number(&self, schema: &str, table: &str) -> i32 {
        number("c", &[&self.who.catalog, schema, table])
    }

    /// Schema and name of every table.
    fn tables(&self) -> Vec<(String, String)> {
        let mut tables = Vec::new();
        for schema in self.schemas() {
            let names = match schema.as_str() {
                "pg_catalog" => PG_CATALOG_TABLES.iter().map(|name| (*name).to_owned()).collect(),
                schema => self.catalog.schema(schema).map(|schema| schema.table_names()).unwrap_or_default(),
            };
            tables.extend(names.into_iter().map(|name| (schema.clone(), name)));
        }
        tables.sort();
        tables
    }

    async fn columns(&self, schema: &str, table: &str) -> Option<SchemaRef> {
        if schema == "pg_catalog" {
            return Some(match Kind::named(table) {
                Some(own) => own.schema(),
                None => self.theirs.table(table).await.ok()??.schema(),
            });
        }
        Some(self.catalog.schema(schema)?.table(table).await.ok()??.schema())
    }

    async fn rows(&self, kind: Kind, wanted: Option<&BTreeSet<i32>>) -> Vec<Row> {
        match kind {
            Kind::Namespace => {
                let row = |name: String| vec![("oid", n(self.schema_number(&name))), ("nspname", s(name)), ("nspowner", n(OWNER))];
                self.schemas().into_iter().map(row).collect()
            }
            Kind::Class => {
                let mut rows = Vec::new();
                for (schema, table) in self.tables() {
                    let kind = self.relkind(&schema, &table).await;
                    rows.push(self.class(&schema, &table, kind));
                }
                rows
            }
            Kind::Tables => {
                let mut rows = Vec::new();
                for (schema, table) in self.tables() {
                    if self.relkind(&schema, &table).await == "v" {
                        continue;
                    }
                    let flags = ["hasindexes", "hasrules", "hastriggers", "rowsecurity"].map(|name| (name, b(false)));
                    let names = [("schemaname", s(schema)), ("tablename", s(table)), ("tableowner", s(&self.who.user))];
                    rows.push(names.into_iter().chain(flags).collect());
                }
                rows
            }
            Kind::Attribute => self.attributes(wanted).await,
            Kind::Database => self.databases.iter().map(|name| database(name)).collect(),
            Kind::Roles => {
                let no = ["rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls"].map(|name| (name, b(false)));
                let yes = ["rolinherit", "rolcanlogin"].map(|name| (name, b(true)));
                let others = [("oid", n(OWNER)), ("rolname", s(&self.who.user)), ("rolconnlimit", n(-1)), ("rolpassword", s("********"))];
                vec![others.into_iter().chain(no).chain(yes).collect()]
            }
            Kind::Proc => self.routines.iter().map(|routine| self.routine(routine)).collect(),
            Kind::Members => Vec::new(),
        }
    }

    /// `v` of a view, as its schema has it, else `r`. No table is opened for it that is listed.
    async fn relkind(&self, schema: &str, table: &str) -> &'static str {
        let is_view = match (schema, self.catalog.schema(schema)) {
            ("information_schema", _) => true,
            ("pg_catalog", _) | (_, None) => false,
            (_, Some(provider)) => matches!(provider.table_type(table).await, Ok(Some(TableType::View))),
        };
        if is_view { "v" } else { "r" }
    }

    fn class(&self, schema: &str, table: &str, kind: &str) -> Row {
        let number = self.table_number(schema, table);
        let zeros = [
            "reltype",
            "reloftype",
            "relam",
            "reltablespace",
            "relpages",
            "relallvisible",
            "reltoastrelid",
            "relrewrite",
            "relfrozenxid",
            "relminmxid",
        ];
        let no = [
            "relhasindex",
            "relisshared",
            "relhasrules",
            "relhastriggers",
            "relhassubclass",
            "relrowsecurity",
            "relforcerowsecurity",
            "relispartition",
        ];
        let own = vec![
            ("oid", n(number)),
            ("relname", s(table)),
            ("relnamespace", n(self.schema_number(schema))),
            ("relowner", n(OWNER)),
            ("relfilenode", n(number)),
            // As Postgres says of a table that it has not counted yet.
            ("reltuples", ScalarValue::Float32(Some(-1.0))),
            ("relpersistence", s("p")),
            ("relkind", s(kind)),
            ("relchecks", h(0)),
            ("relispopulated", b(true)),
            ("relreplident", s("n")),
        ];
        own.into_iter().chain(zeros.map(|name| (name, n(0)))).chain(no.map(|name| (name, b(false)))).collect()
    }

    async fn attributes(&self, wanted: Option<&BTreeSet<i32>>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (schema, table) in self.tables() {
            let number = self.table_number(&schema, &table);
            if wanted.is_some_and(|wanted| !wanted.contains(&number)) {
                continue;
            }
            let Some(columns) = self.columns(&schema, &table).await else { continue };
            for (at, field) in columns.fields().iter().enumerate() {
                let kind = pg_type(field);
                let by_value = (1..=8).contains(&kind.size);
                let align = match kind.size {
                    1 => "c",
                    2 => "s",
                    8 | 16 => "d",
                    _ => "i",
                };
                let storage = match (kind.oid, kind.size) {
                    (oid::NUMERIC, _) => "m",
                    (_, -1) => "x",
                    _ => "p",
                };
                let no = ["atthasdef", "atthasmissing", "attisdropped"].map(|name| (name, b(false)));
                let empty = ["attcompression", "attidentity", "attgenerated"].map(|name| (name, s("")));
                let own = vec![
                    ("attrelid", n(number)),
                    ("attname", s(field.name())),
                    ("atttypid", n(kind.oid as i32)),
                    ("attlen", h(kind.size)),
                    ("attnum", h(i16::try_from(at + 1).unwrap_or(i16::MAX))),
                    ("attcacheoff", n(-1)),
                    ("atttypmod", n(kind.modifier)),
                    ("attndims", h(kind.element.is_some().into())),
                    ("attbyval", b(by_value)),
                    ("attalign", s(align)),
                    ("attstorage", s(storage)),
                    ("attnotnull", b(!field.is_nullable())),
                    ("attislocal", b(true)),
                    ("attinhcount", h(0)),
                    ("attstattarget", h(-1)),
                    ("attcollation", n(0)),
                ];
                rows.push(own.into_iter().chain(no).chain(empty).collect());
            }
        }
        rows
    }

    fn routine(&self, routine: &Routine) -> Row {
        let namespace = if routine.is_table { self.schema_number("weir") } else { PG_CATALOG };
        let zeros = ["prolang", "provariadic"].map(|name| (name, n(0)));
        let no = ["prosecdef", "proleakproof", "proisstrict"].map(|name| (name, b(false)));
        let own = vec![
            ("oid", n(routine.number)),
            ("proname", s(&routine.name)),
            ("pronamespace", n(namespace)),
            ("proowner", n(OWNER)),
            ("procost", ScalarValue::Float32(Some(1.0))),
            ("prorows", ScalarValue::Float32(Some(0.0))),
            ("prosupport", s("-")),
            ("prokind", s(routine.kind)),
            ("proretset", b(routine.is_table)),
            ("provolatile", s("v")),
            ("proparallel", s("s")),
            ("pronargs", h(0)),
            ("pronargdefaults", h(0)),
            // "any", or a record.
            ("prorettype", n(if routine.is_table { 2249 } else { 2276 })),
            ("prosrc", s(&routine.name)),
        ];
        own.into_iter().chain(zeros).chain(no).collect()
    }
}

fn database(name: &str) -> Row {
    vec![
        ("oid", n(number("d", &[name]))),
        ("datname", s(name)),
        ("datdba", n(OWNER)),
        ("encoding", n(6)),
        ("datlocprovider", s("c")),
        ("datistemplate", b(false)),
        ("datallowconn", b(true)),
        ("datconnlimit", n(-1)),
        ("datfrozenxid", n(0)),
        ("datminmxid", n(0)),
        ("dattablespace", n(1663)),
        ("datcollate", s("C")),
        ("datctype", s("C")),
    ]
}

/// A table of ours, made when it is scanned.
struct Own {
    kind: Kind,
    schema: SchemaRef,
    told: Arc<Told>,
}

impl Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The number that a filter asks a column for.
fn asked(filter: &Expr, column: &str) -> Option<BTreeSet<i32>> {
    let number = |expr: &Expr| match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int32) {
            Ok(ScalarValue::Int32(Some(number))) => Some(number),
            _ => None,
        },
        _ => None,
    };
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(found) if found.name == column);
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => match (&*binary.left, &*binary.right) {
            (left, right) if is_column(left) => number(right).map(|one| BTreeSet::from([one])),
            (left, right) if is_column(right) => number(left).map(|one| BTreeSet::from([one])),
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_column(&list.expr) => list.list.iter().map(number).collect(),
        _ => None,
    }
}

#[async_trait]
impl TableProvider for Own {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let wanted = filters.iter().filter_map(|filter| asked(filter, "attrelid")).reduce(|all, one| &all & &one);
        let rows = self.told.rows(self.kind, wanted.as_ref()).await;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let null = ScalarValue::try_from(field.data_type())?;
            let value =
                |row: &Row| row.iter().find(|(name, _)| *name == field.name()).map_or_else(|| null.clone(), |(_, value)| value.clone());
            columns.push(match rows.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => ScalarValue::iter_to_array(rows.iter().map(value))?,
            });
        }
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        MemTable::try_new(self.schema.clone(), vec![vec![batch]])?.scan(state, projection, &[], None).await
    }
}
