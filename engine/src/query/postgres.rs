//! What do clients of Postgres find where they look for tables? `pg_catalog`, as it tells of the catalogue that a session is in.
//!
//! The tables that tell of what there is (`tables`) and the functions that tell who asks are ours; what is the same in every Postgres, such
//! as `pg_type`, and the parser that turns its clients' queries into ones that DataFusion knows, are `datafusion-pg-catalog`'s. That parser
//! reads statements that ask `pg_catalog` and no others: what a person writes means the same through each door. A session that never asks
//! pays nothing.

mod functions;
mod rewrite;
mod tables;
pub mod types;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider},
    datasource::empty::EmptyTable,
    error::{DataFusionError, Result as DfResult},
    execution::SessionStateBuilder,
    prelude::SessionContext,
    sql::{
        parser::Statement as Parsed,
        sqlparser::{
            dialect::PostgreSqlDialect,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use datafusion_pg_catalog::{
    pg_catalog::{
        PG_CATALOG_TABLES, PgCatalogSchemaProvider, PgCatalogStaticTables, context::EmptyContextProvider,
        generate_series_arg_coercion::CoerceIntArgsToBigInt, oid_type_planner::PgOidTypePlanner,
    },
    sql::PostgresCompatibilityParser,
};
use parking_lot::Mutex;
use weir_pipelines::SqlText;

use crate::{
    error::{Failure, Result},
    sql::diagnose,
};

use super::information::{Known, plain};
use tables::Owned;

/// The version that `version()` claims: clients ask for no more than that one has.
pub const VERSION: &str = "16.6";

/// Functions of Postgres that tell of the session, and names of types that are looked up in `pg_catalog`.
const ASKED: &[&str] = &[
    "version",
    "current_schema",
    "current_schemas",
    "current_database",
    "current_setting",
    "session_user",
    "current_user",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_any_column_privilege",
    "format_type",
    "obj_description",
    "col_description",
    "shobj_description",
    "to_regclass",
    "to_regtype",
    "quote_ident",
];
const LOOKED_UP: &[&str] = &["regclass", "regtype", "regproc", "regnamespace", "regrole", "regprocedure"];

/// Whether a statement asks `pg_catalog`.
pub fn asks(sql: &str) -> bool {
    // The cheap question first: most statements have none of these words.
    let lower = sql.to_ascii_lowercase();
    let has = |word: &&str| lower.contains(*word);
    if !lower.contains("pg_") && !ASKED.iter().chain(LOOKED_UP).any(has) {
        return false;
    }
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return false };
    let tokens: Vec<_> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    tokens.iter().enumerate().any(|(at, token)| {
        let Token::Word(word) = token else { return false };
        let name = word.value.to_ascii_lowercase();
        let called = tokens.get(at + 1) == Some(&Token::LParen);
        let cast = at > 0 && matches!(tokens[at - 1], Token::DoubleColon);
        match name.as_str() {
            "pg_catalog" => true,
            "current_user" | "session_user" => word.quote_style.is_none() && (at == 0 || tokens[at - 1] != Token::Period),
            name if PG_CATALOG_TABLES.contains(&name) => true,
            name if called => name.starts_with("pg_") || ASKED.contains(&name),
            name => cast && LOOKED_UP.contains(&name),
        }
    })
}

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// Reads a statement that asks `pg_catalog`.
pub(super) fn parse(text: &SqlText) -> Result<Parsed> {
    let mut statements = PARSER.parse(&text.text).map_err(|error| diagnose(&error.into(), text))?;
    if statements.len() != 1 {
        return Err(Failure::error("sql-several", "one statement at a time is answered"));
    }
    let mut statement = statements.remove(0);
    rewrite::adapt(&mut statement);
    Ok(Parsed::Statement(Box::new(statement)))
}

/// The context in which a session asks `pg_catalog`: made when it first does, and again when its defaults have changed.
#[derive(Default)]
pub(super) struct Asked(Mutex<Option<(Owned, SessionContext)>>);

impl Asked {
    /// A context that knows what the given one knows, and `pg_catalog` besides.
    pub fn context(&self, context: &SessionContext, user: &str) -> DfResult<SessionContext> {
        let config = context.copied_config();
        let names = &config.options().catalog;
        let owned = Owned { catalog: names.default_catalog.clone(), schema: names.default_schema.clone(), user: user.to_owned() };
        let mut asked = self.0.lock();
        match asked.as_ref() {
            Some((known, context)) if *known == owned => Ok(context.clone()),
            _ => {
                let context = open(context, &owned)?;
                *asked = Some((owned, context.clone()));
                Ok(context)
            }
        }
    }
}

/// What is the same in every Postgres: read from its bytes once, by who asks first.
static SAME: LazyLock<std::result::Result<Arc<PgCatalogStaticTables>, String>> =
    LazyLock::new(|| PgCatalogStaticTables::try_new().map(Arc::new).map_err(|error| error.to_string()));

/// A context that knows what the given one knows, and `pg_catalog` with its functions besides.
fn open(context: &SessionContext, who: &Owned) -> DfResult<SessionContext> {
    let same = SAME.as_ref().map_err(|error| DataFusionError::Internal(error.clone()))?;
    // Its own dynamic tables list nothing: ours do. So no circle of pointers keeps a session alive.
    let nothing: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
    let theirs = Arc::new(PgCatalogSchemaProvider::try_new(nothing, same.clone(), EmptyContextProvider)?);
    let mut databases = context.catalog_names();
    databases.sort();
    let state = context.state();
    let catalogs = Known::new(&state);
    let mut tables = None;
    for name in &databases {
        let Some(inner) = context.catalog(name).map(plain) else { continue };
        let catalog = if *name == who.catalog {
            let own = Arc::new(tables::PgCatalog::new(theirs.clone(), inner.clone(), databases.clone(), context, who.clone()));
            tables = Some(own.clone());
            Arc::new(With { inner, own })
        } else {
            inner
        };
        catalogs.register_catalog(name.clone(), catalog);
    }
    let state = SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(catalogs));
    let own = SessionContext::new_with_state(state.with_type_planner(Arc::new(PgOidTypePlanner)).build());
    own.register_udtf("pg_get_keywords", same.pg_get_keywords.clone());
    functions::register(&own, who, tables);
    CoerceIntArgsToBigInt::widen(&own);
    Ok(own)
}

/// A catalogue, and `pg_catalog` in it.
#[derive(Debug)]
struct With {
    inner: Arc<dyn CatalogProvider>,
    own: Arc<tables::PgCatalog>,
}

impl CatalogProvider for With {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.inner.schema_names();
        names.push("pg_catalog".to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            "pg_catalog" => Some(self.own.clone()),
            name => self.inner.schema(name),
        }
    }
}

/// `pg_catalog`: our tables before those that are the same in every Postgres.
#[async_trait]
impl SchemaProvider for tables::PgCatalog {
    fn table_names(&self) -> Vec<String> {
        PG_CATALOG_TABLES.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.own(name) {
            Some(own) => Ok(Some(own)),
            None => match self.theirs.table(name).await? {
                Some(theirs) if tables::EMPTY.contains(&name) => Ok(Some(Arc::new(EmptyTable::new(tables::with_lists(&theirs.schema()))))),
                theirs => Ok(theirs),
            },
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        PG_CATALOG_TABLES.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_pg_catalog_is_read_as_postgres_would() {
        for asking in [
            "select * from pg_catalog.pg_class",
            "select relname from PG_CLASS",
            "select current_schema()",
            "select 'x'::regclass",
            "select current_user",
            "select pg_backend_pid()",
            "select version()",
        ] {
            assert!(asks(asking), "{asking}");
        }
        for own in [
            "select version from t",
            "select pg_rating from films",
            "select 'pg_catalog'",
            "select 1 -- pg_class",
            "select t.current_user from t",
            "select * from t version as of 3",
            "select 'torn",
        ] {
            assert!(!asks(own), "{own}");
        }
    }
}
