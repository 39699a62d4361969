//! Each connection of `weir.toml` as a catalogue of its own: `crm.public.planes`. What a system has is asked when a query names it, kept for
//! half a minute, and shared by all sessions. A system that cannot be reached fails the queries that name it, and no other; where tables
//! are listed it has none.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    datasource::TableType,
    error::Result as DfResult,
};
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use weir_connectors::{BROWSED, Browse, Error, Listed, ListedKind};

use super::limits::Scopes;
use crate::{error::Result, workspace::Workspace};

/// What was told so lately is told again without asking.
const FRESH: Duration = Duration::from_secs(30);
/// A system that could not be reached is left alone so long where tables are only listed.
const PAUSE: Duration = Duration::from_secs(10);
/// A list waits no longer for one system.
const LIST_WAIT: Duration = Duration::from_secs(5);
/// Tables of one system that are kept open.
const OPEN_MAX: usize = 1000;

/// The project's connections that can be looked through.
pub(super) struct Connections {
    each: BTreeMap<String, Arc<Connection>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.each.keys()).finish()
    }
}

impl Connections {
    /// Makes ready to ask. Asks nobody.
    pub fn new(workspace: &Workspace) -> Result<Self> {
        let mut each = BTreeMap::new();
        let cx = workspace.dry_context("sql")?;
        for (name, connection) in &workspace.project.connections {
            let Some(kind) = BROWSED.iter().find(|kind| kind.kind == connection.settings.kind.value) else { continue };
            let browse = (kind.open)(name, &cx);
            let connection = Connection {
                name: name.clone(),
                browse,
                listed: RwLock::default(),
                open: Mutex::default(),
                listing: tokio::sync::Mutex::default(),
            };
            each.insert(name.clone(), Arc::new(connection));
        }
        Ok(Self { each })
    }

    /// A catalogue for each. Those that the scopes do not open are empty, and refuse whoever names a table.
    pub fn catalogues(&self, scopes: &Scopes) -> Vec<(String, Arc<dyn CatalogProvider>)> {
        let each = self.each.iter().map(|(name, connection)| {
            let catalogue: Arc<dyn CatalogProvider> = match scopes.connection(name) {
                true => Arc::new(Catalogue(connection.clone())),
                false => Arc::new(Closed(name.clone())),
            };
            (name.clone(), catalogue)
        });
        each.collect()
    }

    /// Asks those that the scopes open for their tables, all at once, where what is known of them is old. One that gives no answer has no
    /// tables then, and the log says why.
    pub async fn list(&self, scopes: &Scopes) {
        let open = self.each.values().filter(|connection| scopes.connection(&connection.name));
        join_all(open.map(|connection| connection.list())).await;
    }

    /// Why connections had no tables when they were listed last: the name, and what was wrong.
    pub fn unreachable(&self, scopes: &Scopes) -> Vec<(String, String)> {
        let open = self.each.values().filter(|connection| scopes.connection(&connection.name));
        open.filter_map(|connection| Some((connection.name.clone(), connection.listed.read().as_ref()?.tables.as_ref().err()?.clone())))
            .collect()
    }
}

/// One connection, and what is known of it.
struct Connection {
    name: String,
    browse: weir_connectors::Result<Arc<dyn Browse>>,
    listed: RwLock<Option<Lately>>,
    open: Mutex<HashMap<(String, String), (Instant, Arc<dyn TableProvider>)>>,
    /// Held by whoever asks for the list, so that others wait for the same answer.
    listing: tokio::sync::Mutex<()>,
}

/// What a system told when it was asked for its tables.
#[derive(Debug)]
struct Lately {
    at: Instant,
    tables: Result<Arc<Vec<Listed>>, String>,
}

impl Lately {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < if self.tables.is_ok() { FRESH } else { PAUSE }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connection {
    fn browse(&self) -> weir_connectors::Result<&Arc<dyn Browse>> {
        self.browse.as_ref().map_err(Error::again)
    }

    fn is_fresh(&self) -> bool {
        self.listed.read().as_ref().is_some_and(Lately::is_fresh)
    }

    async fn list(&self) {
        if self.is_fresh() {
            return;
        }
        let _alone = self.listing.lock().await;
        if self.is_fresh() {
            return;
        }
        let asked = async {
            match tokio::time::timeout(LIST_WAIT, self.browse()?.tables()).await {
                Ok(tables) => tables,
                Err(_) => Err(Error::system("connect-timeout", format!("no answer within {} s", LIST_WAIT.as_secs()))),
            }
        };
        let tables = asked.await.map(Arc::new).map_err(|error| error.message);
        if let Err(error) = &tables {
            tracing::warn!(connection = self.name, error, "the tables of a connection cannot be listed");
        }
        *self.listed.write() = Some(Lately { at: Instant::now(), tables });
    }

    fn listed(&self) -> Arc<Vec<Listed>> {
        let listed = self.listed.read();
        listed.as_ref().and_then(|lately| lately.tables.as_ref().ok()).cloned().unwrap_or_default()
    }

    async fn table(&self, schema: &str, table: &str) -> weir_connectors::Result<Option<Arc<dyn TableProvider>>> {
        let key = (schema.to_owned(), table.to_owned());
        let known = self.open.lock().get(&key).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, table)| table.clone());
        if known.is_some() {
            return Ok(known);
        }
        let found = self.browse()?.table(schema, table).await?;
        let mut open = self.open.lock();
        open.retain(|_, (at, _)| at.elapsed() < FRESH);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        if let Some(found) = &found {
            open.insert(key, (Instant::now(), found.clone()));
        }
        Ok(found)
    }
}

/// A connection's tables.
#[derive(Debug)]
struct Catalogue(Arc<Connection>);

impl CatalogProvider for Catalogue {
    fn schema_names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.0.listed().iter().map(|listed| listed.schema.clone()).collect();
        names.into_iter().collect()
    }

    /// Any, listed or not: whether it is there is asked with the table.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if matches!(name, "information_schema" | "pg_catalog") {
            return None;
        }
        Some(Arc::new(Schema { connection: self.0.clone(), name: name.to_owned() }))
    }
}

/// The tables of one schema.
#[derive(Debug)]
struct Schema {
    connection: Arc<Connection>,
    name: String,
}

impl Schema {
    fn kind(&self, table: &str) -> Option<ListedKind> {
        let listed = self.connection.listed();
        listed.iter().find(|listed| listed.schema == self.name && listed.table == table).map(|listed| listed.kind)
    }
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        let listed = self.connection.listed();
        listed.iter().filter(|listed| listed.schema == self.name).map(|listed| listed.table.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.connection.table(&self.name, name).await?)
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        match self.kind(name) {
            Some(ListedKind::Table) => Ok(Some(TableType::Base)),
            Some(ListedKind::View) => Ok(Some(TableType::View)),
            None => Ok(self.table(name).await?.map(|table| table.table_type())),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.kind(name).is_some() || self.connection.open.lock().contains_key(&(self.name.clone(), name.to_owned()))
    }
}

/// A connection that is not open to whoever asks: it has nothing, and says why when a table of it is named.
#[derive(Debug)]
struct Closed(String);

impl CatalogProvider for Closed {
    fn schema_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (!matches!(name, "information_schema" | "pg_catalog")).then(|| Arc::new(ClosedSchema(self.0.clone())) as _)
    }
}

#[derive(Debug)]
struct ClosedSchema(String);

#[async_trait]
impl SchemaProvider for ClosedSchema {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, _: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let name = &self.0;
        let refused = Error::user("not-allowed", format!("connection \"{name}\" is not open to this user: the token has no scope for it"));
        Err(refused.help(format!("make a token with it: weir serve token new NAME --scope sql --scope connection:{name}")).into())
    }

    fn table_exist(&self, _: &str) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
