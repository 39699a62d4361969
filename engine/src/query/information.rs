//! `information_schema`, as DataFusion makes it. Its own fails as a whole where one table cannot be opened; in this one such a table has no columns,
//! and the log says why.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableFunction, TableProvider,
        information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider},
    },
    datasource::TableType,
    error::Result as DfResult,
    execution::SessionState,
};

/// The catalogues of a session, each with `information_schema` in it. DataFusion's own is left off: nothing could stand before it.
#[derive(Debug)]
pub(super) struct Known {
    catalogs: Arc<MemoryCatalogProviderList>,
    functions: Arc<HashMap<String, Arc<TableFunction>>>,
}

impl Known {
    /// Has no catalogues yet. `information_schema` tells of the table functions of this session.
    pub fn new(state: &SessionState) -> Self {
        Self { catalogs: Arc::default(), functions: Arc::new(state.table_functions().clone()) }
    }
}

impl CatalogProviderList for Known {
    fn register_catalog(&self, name: String, catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        self.catalogs.register_catalog(name, plain(catalog))
    }

    fn catalog_names(&self) -> Vec<String> {
        self.catalogs.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let catalog = self.catalogs.catalog(name)?;
        Some(Arc::new(Informed { catalog, all: self.catalogs.clone(), functions: self.functions.clone() }))
    }
}

/// A catalogue as it was before it had `information_schema`.
pub(super) fn plain(catalog: Arc<dyn CatalogProvider>) -> Arc<dyn CatalogProvider> {
    let plain = catalog.downcast_ref::<Informed>().map(|informed| informed.catalog.clone());
    plain.unwrap_or(catalog)
}

/// A catalogue, and `information_schema` in it, which tells of all.
#[derive(Debug)]
struct Informed {
    catalog: Arc<dyn CatalogProvider>,
    all: Arc<MemoryCatalogProviderList>,
    functions: Arc<HashMap<String, Arc<TableFunction>>>,
}

impl CatalogProvider for Informed {
    fn schema_names(&self) -> Vec<String> {
        self.catalog.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name != INFORMATION_SCHEMA {
            return self.catalog.schema(name);
        }
        let openable = MemoryCatalogProviderList::new();
        for name in self.all.catalog_names() {
            let Some(catalog) = self.all.catalog(&name) else { continue };
            openable.register_catalog(name, Arc::new(Openable(catalog)));
        }
        Some(Arc::new(InformationSchemaProvider::new(Arc::new(openable)).with_table_functions((*self.functions).clone())))
    }
}

/// A catalogue, or a schema, whose tables are not there where they cannot be opened.
#[derive(Debug)]
struct Openable<T>(T);

impl CatalogProvider for Openable<Arc<dyn CatalogProvider>> {
    fn schema_names(&self) -> Vec<String> {
        self.0.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Openable(self.0.schema(name)?)))
    }
}

#[async_trait]
impl SchemaProvider for Openable<Arc<dyn SchemaProvider>> {
    fn owner_name(&self) -> Option<&str> {
        self.0.owner_name()
    }

    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(or_none(name, self.0.table(name).await))
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(or_none(name, self.0.table_type(name).await))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

fn or_none<T>(table: &str, asked: DfResult<Option<T>>) -> Option<T> {
    asked.unwrap_or_else(|error| {
        tracing::warn!(table, %error, "a table that cannot be opened is left out of information_schema");
        None
    })
}
