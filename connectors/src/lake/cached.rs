//! Tables of a lake that stay open between queries: a look at the log tells whether there is a newer commit, and nothing is listed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use parking_lot::Mutex;

use super::table::{self, Place, Version};
use crate::error::Result;

/// Tables that are kept open at most; the one that was asked for longest ago makes room.
const TABLES_MAX: usize = 256;
/// For so long a list of the tables is not made anew.
const LISTED: Duration = Duration::from_secs(5);

/// The tables below a folder of a lake, as `<folder>/<schema>/<table>`.
#[derive(Debug)]
pub struct Tables {
    root: String,
    environment: Arc<HashMap<String, String>>,
    open: Mutex<HashMap<(String, String), Arc<Kept>>>,
    listed: Mutex<(Option<Instant>, Vec<(String, String)>)>,
}

/// A table as it was when somebody last looked.
#[derive(Debug)]
struct Kept {
    place: Place,
    provider: Arc<dyn TableProvider>,
    commit: Commit,
    asked: Mutex<Instant>,
}

/// What tells a commit from another one of the same number, where a table was removed and made anew.
#[derive(Debug, PartialEq, Eq)]
struct Commit {
    version: u64,
    modified_ms: i64,
    bytes: u64,
    tag: Option<String>,
}

impl Commit {
    fn new(version: u64, meta: ObjectMeta) -> Self {
        Self { version, modified_ms: meta.last_modified.timestamp_millis(), bytes: meta.size, tag: meta.e_tag }
    }
}

impl Tables {
    /// Looks at nothing yet. `root` is an absolute path or a URL.
    pub fn new(root: impl Into<String>, environment: Arc<HashMap<String, String>>) -> Self {
        Self { root: root.into(), environment, open: Mutex::default(), listed: Mutex::default() }
    }

    /// A table in a version. `None`: there is no such table. While nothing is committed, the newest version is the same allocation.
    pub async fn table(&self, schema: &str, table: &str, version: Version) -> Result<Option<Arc<dyn TableProvider>>> {
        if !matches!(version, Version::Newest) {
            return match self.past(schema, table, version).await? {
                Some(table) => Ok(Some(table::provider(&table).await?)),
                None => Ok(None),
            };
        }
        let key = (schema.to_owned(), table.to_owned());
        let kept = self.open.lock().get(&key).cloned();
        if let Some(kept) = kept {
            *kept.asked.lock() = Instant::now();
            if kept.is_newest().await? {
                return Ok(Some(kept.provider.clone()));
            }
        }
        let Some(place) = Place::named(&self.root, schema, table, &self.environment)? else { return Ok(None) };
        let Some(opened) = place.open(Version::Newest).await? else {
            self.open.lock().remove(&key);
            return Ok(None);
        };
        let provider = table::provider(&opened).await?;
        let number = opened.version().unwrap_or_default();
        // A commit that is cleaned up cannot be told from another one: such a table is opened each time.
        if let Some(meta) = head(&place, number).await? {
            let kept = Kept { commit: Commit::new(number, meta), place, provider: provider.clone(), asked: Instant::now().into() };
            self.keep(key, Arc::new(kept));
        }
        Ok(Some(provider))
    }

    /// A table in a version, as Delta knows it.
    pub async fn past(&self, schema: &str, table: &str, version: Version) -> Result<Option<DeltaTable>> {
        table::open_table(&self.root, &self.environment, schema, table, version).await
    }

    /// Whether this is the newest version of one of these tables, as far as is known.
    pub fn holds(&self, provider: &Arc<dyn TableProvider>) -> bool {
        self.open.lock().values().any(|kept| Arc::ptr_eq(&kept.provider, provider))
    }

    fn keep(&self, key: (String, String), kept: Arc<Kept>) {
        let mut open = self.open.lock();
        if open.len() >= TABLES_MAX && !open.contains_key(&key) {
            let oldest = open.iter().min_by_key(|(_, kept)| *kept.asked.lock()).map(|(key, _)| key.clone());
            oldest.map(|oldest| open.remove(&oldest));
        }
        open.insert(key, kept);
    }

    /// Lists the tables, unless that was done a moment ago.
    pub async fn list(&self) -> Result<()> {
        if self.listed.lock().0.is_some_and(|at| at.elapsed() < LISTED) {
            return Ok(());
        }
        let tables = table::tables(&self.root, &self.environment).await?;
        *self.listed.lock() = (Some(Instant::now()), tables);
        Ok(())
    }

    /// Schemas and tables as they were last listed, sorted.
    pub fn listed(&self) -> Vec<(String, String)> {
        self.listed.lock().1.clone()
    }
}

impl Kept {
    async fn is_newest(&self) -> Result<bool> {
        let version = self.commit.version;
        if head(&self.place, version + 1).await?.is_some() {
            return Ok(false);
        }
        Ok(head(&self.place, version).await?.is_some_and(|meta| Commit::new(version, meta) == self.commit))
    }
}

/// What the store says of a commit. `None`: there is none of this number.
async fn head(place: &Place, version: u64) -> Result<Option<ObjectMeta>> {
    match place.store.head(&place.path(&format!("_delta_log/{version:020}.json"))).await {
        Ok(meta) => Ok(Some(meta)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(place.failed("read", error.into())),
    }
}
