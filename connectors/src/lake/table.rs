//! Where a table of the lake lies and how it is opened, at the newest or an earlier version; which tables there are.
//! What is written there is `stage.rs` and `publish.rs`.

use std::{
    collections::HashMap,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::{catalog::TableProvider, execution::object_store::ObjectStoreUrl};
use deltalake::{
    DeltaTable, DeltaTableError,
    logstore::{LogStoreRef, StorageConfig, default_logstore},
};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path, prefix::PrefixStore};
use url::Url;

use super::{files::Files, rows::Rows};
use crate::error::{Beneath, Error, Result, io_error};

/// Which state of a table is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The newest.
    Newest,
    /// This version of the log, from 0.
    Number(u64),
    /// The newest that had been committed at this instant.
    At(DateTime<Utc>),
}

/// Where one table lies.
#[derive(Debug, Clone)]
pub struct Place {
    /// As a person names it, for messages.
    pub name: String,
    /// Its folder.
    pub url: Url,
    /// Its folder on this machine's disk, where it is there.
    pub local: Option<PathBuf>,
    /// The store that holds it, from its root.
    pub store: Arc<dyn ObjectStore>,
    /// Its folder inside the store.
    pub prefix: Path,
}

impl Place {
    /// The table in the folder `folder`: an absolute path or a URL.
    pub fn at(folder: &str, name: impl Into<String>, environment: &HashMap<String, String>) -> Result<Self> {
        let name = name.into();
        let local = match Url::parse(folder) {
            Ok(url) if url.scheme() == "file" => Some(url.to_file_path().map_err(|()| not_a_place(folder))?),
            Ok(url) if object_store::ObjectStoreScheme::parse(&url).is_err() => return Err(not_a_place(folder)),
            Ok(url) => {
                let options: HashMap<_, _> = environment.iter().filter(|(key, _)| is_store_option(key)).collect();
                let (store, prefix) = object_store::parse_url_opts(&url, options).map_err(|error| not_a_place(folder).because(error))?;
                if matches!(url.scheme(), "http" | "https" | "memory") && !url.host_str().is_some_and(is_store_host) {
                    return Err(not_a_place(folder));
                }
                return Ok(Self { name, url, local: None, store: Arc::from(store), prefix });
            }
            Err(_) => Some(PathBuf::from(folder)),
        };
        let path = local.expect("every other case has returned");
        if !path.is_absolute() {
            return Err(Error::weir("lake-path", format!("the lake's path \"{folder}\" is not absolute")));
        }
        // The kernel of the table format decodes a local path once too often, and would look elsewhere.
        if path.to_string_lossy().contains('%') {
            return Err(Error::user("lake-path", format!("the folder \"{folder}\" has a % in its name, which Delta tables cannot have"))
                .help("choose another folder with \"path\" under [lake] in weir.toml"));
        }
        let url = Url::from_directory_path(&path).map_err(|()| not_a_place(folder))?;
        let prefix = Path::from_absolute_path(&path).map_err(|error| not_a_place(folder).because(error))?;
        Ok(Self { name, url, local: Some(path), store: Arc::new(LocalFileSystem::new()), prefix })
    }

    /// The table `schema.table` of the lake at `lake`. `None`: these are no names of folders, so there is no such table, whatever lies where they lead.
    pub fn named(lake: &str, schema: &str, table: &str, environment: &HashMap<String, String>) -> Result<Option<Self>> {
        if ![schema, table].into_iter().all(|name| is_folder(lake, name)) {
            return Ok(None);
        }
        let folder = join(lake, &[schema, table]);
        Self::at(&folder, format!("lake.{schema}.{table}"), environment).map(Some)
    }

    /// The folder as messages show it.
    pub fn shown(&self) -> String {
        self.local.as_ref().map_or_else(|| self.url.to_string(), |path| path.display().to_string())
    }

    /// A file of the table inside its store.
    pub fn path(&self, relative: &str) -> Path {
        relative.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What DataFusion calls the store.
    pub fn store_url(&self) -> ObjectStoreUrl {
        match &self.local {
            Some(_) => ObjectStoreUrl::local_filesystem(),
            None => ObjectStoreUrl::parse(&self.url[..url::Position::BeforePath]).expect("a URL's origin is a store's URL"),
        }
    }

    /// The table's log.
    pub fn log_store(&self) -> LogStoreRef {
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(self.store.clone(), self.prefix.clone()));
        default_logstore(prefixed, self.store.clone(), &self.url, &StorageConfig::default())
    }

    /// Opens the table. `None`: there is none.
    pub async fn open(&self, version: Version) -> Result<Option<DeltaTable>> {
        let mut table = DeltaTable::new(self.log_store());
        if self.local.as_ref().is_some_and(|path| !path.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        if !table.verify_deltatable_existence().await.map_err(|error| self.failed("read", error))? {
            return Ok(None);
        }
        match version {
            Version::Newest => table.load().await.map_err(|error| self.failed("read", error))?,
            Version::Number(number) => {
                let newest = table.get_latest_version().await.map_err(|error| self.failed("read", error))?;
                if number > newest {
                    return Err(self.no_version(format!("{number}"), newest));
                }
                table.load_version(number).await.map_err(|error| match error {
                    DeltaTableError::InvalidVersion(_) => self.no_version(format!("{number}"), newest),
                    other => self.failed("read", other),
                })?;
            }
            Version::At(instant) => {
                table.load_with_datetime(instant).await.map_err(|error| self.failed("read", error))?;
                // Before the first commit the loader answers with the first.
                let committed = table.version().and_then(|number| table.snapshot().ok()?.version_timestamp(number));
                if let Some(first) =
                    committed.filter(|millis| *millis > instant.timestamp_millis()).and_then(DateTime::from_timestamp_millis)
                {
                    let said = |instant: DateTime<Utc>| instant.to_rfc3339_opts(SecondsFormat::Millis, true);
                    return Err(Error::user("version-missing", format!("table \"{}\" had no version at {}", self.name, said(instant)))
                        .help(format!("the first version that is there was made at {}", said(first))));
                }
            }
        }
        Ok(Some(table))
    }

    fn no_version(&self, wanted: String, newest: u64) -> Error {
        Error::user("version-missing", format!("table \"{}\" has no version {wanted}", self.name))
            .help(format!("its newest version is {newest}; versions whose log was cleaned up are gone"))
    }

    /// An error of the table format, said as what was being done where.
    pub fn failed(&self, doing: &str, error: DeltaTableError) -> Error {
        let message = format!("cannot {doing} table \"{}\" at \"{}\"", self.name, self.shown());
        if let Some(io) = io_error(&error) {
            return disk_error(&message, io).because(error);
        }
        match error {
            DeltaTableError::ObjectStore { source } => Error::system("lake-store", format!("{message}: {source}")).later(),
            other => {
                // The kernel's errors go on with a backtrace.
                let text = other.to_string();
                let why = text.lines().next().unwrap_or_default();
                Error::system("lake-table", format!("{message}: {why}"))
                    .help("the table's log in _delta_log is damaged: restore the table's folder from a copy, or load into a new table")
                    .because(Beneath(other))
            }
        }
    }
}

/// What the disk refused, with what to do about it.
pub(super) fn disk_error(message: &str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::*;
    match error.kind() {
        StorageFull | QuotaExceeded => {
            Error::system("disk-full", format!("{message}: no space left")).help("free some space and run again").later()
        }
        PermissionDenied | ReadOnlyFilesystem => Error::system("lake-read-only", format!("{message}: not allowed to write"))
            .help("give the user that runs weir write access to the folder, or name another with \"path\" under [lake] in weir.toml"),
        NotADirectory | AlreadyExists => Error::system("lake-disk", format!("{message}: a file stands where a folder is needed"))
            .help("move the file away, or name another folder with \"path\" under [lake] in weir.toml"),
        _ => Error::system("lake-disk", format!("{message}: {error}")),
    }
}

fn not_a_place(folder: &str) -> Error {
    Error::user("lake-url", format!("\"{folder}\" is no place for a lake"))
        .help("give a folder, or a URL that starts with s3://, gs:// or az://, as \"path\" under [lake] in weir.toml")
}

fn is_store_option(key: &str) -> bool {
    ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| key.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix)))
}

/// Object stores that are addressed by plain HTTPS; any other web server cannot be written to.
fn is_store_host(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".windows.net") || host.ends_with(".r2.cloudflarestorage.com")
}

/// Whether a name is that of one folder in the lake. Others lead out of it: an absolute path takes the place of all before it, `..` goes up, and in
/// a URL `%2e` is a dot, a tab is nothing, and the path ends at `?` and `#`.
fn is_folder(lake: &str, name: &str) -> bool {
    let leads_away = |letter: char| matches!(letter, '/' | '\\' | '%') || letter.is_control();
    let is_dots = name.chars().all(|letter| letter == '.');
    let ends_an_address = Url::parse(lake).is_ok() && name.contains(['?', '#']);
    !(is_dots || ends_an_address || name.contains("..") || name.contains(leads_away))
}

fn join(lake: &str, parts: &[&str]) -> String {
    if Url::parse(lake).is_ok() {
        return parts.iter().fold(lake.trim_end_matches('/').to_owned(), |url, part| url + "/" + part);
    }
    parts.iter().fold(PathBuf::from(lake), |path, part| path.join(part)).to_string_lossy().into_owned()
}

/// Splits `schema.table`; a name without a dot is in the schema `main`. `Err`: what is wrong with it.
pub fn parse_name(name: &str) -> Result<(String, String), String> {
    let (schema, table) = match name.split('.').collect::<Vec<_>>()[..] {
        [table] => ("main", table),
        [schema, table] => (schema, table),
        _ => return Err(format!("\"{name}\" has more than one dot; write schema.table")),
    };
    for part in [schema, table] {
        if part.is_empty() || part.starts_with(['_', '-']) || !part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(format!("\"{name}\" is no table name; use letters, digits, _ and -, with a letter or digit first"));
        }
    }
    Ok((schema.to_owned(), table.to_owned()))
}

/// Opens `schema.table` of the lake at `lake`. `None`: there is no such table.
pub async fn open_table(
    lake: &str,
    environment: &HashMap<String, String>,
    schema: &str,
    table: &str,
    version: Version,
) -> Result<Option<DeltaTable>> {
    match Place::named(lake, schema, table, environment)? {
        Some(place) => place.open(version).await,
        None => Ok(None),
    }
}

/// The rows of an opened table, for DataFusion.
pub async fn provider(table: &DeltaTable) -> Result<Arc<dyn TableProvider>> {
    let provider = table.table_provider().await.map_err(|error| {
        Error::system("lake-table", format!("cannot read the table at \"{}\": {error}", table.table_url())).because(error)
    })?;
    Ok(match Files::of(table, provider.schema()) {
        Some(files) => Arc::new(files),
        None => Arc::new(Rows(provider)),
    })
}

/// What a commit of a table says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOf {
    /// Its number.
    pub version: u64,
    /// Milliseconds since 1970.
    pub at_ms: Option<i64>,
    /// What was done, in Delta's words: `WRITE`, `MERGE`.
    pub operation: Option<String>,
    /// The run that made it; none where it was no run of Weir.
    pub run: Option<String>,
    /// Its pipeline.
    pub pipeline: Option<String>,
    /// Rows of the files that it added, where all of them say how many.
    pub rows_added: Option<i64>,
}

/// The commits of a table whose log entries are still there, newest first; a thousand at most.
pub async fn commits(table: &DeltaTable) -> Result<Vec<CommitOf>> {
    const COMMITS_MAX: usize = 1000;
    let log = table.log_store();
    let mut commits = Vec::new();
    for version in (0..=table.version().unwrap_or_default()).rev().take(COMMITS_MAX) {
        let failed = |error: DeltaTableError| {
            Error::system("lake-table", format!("cannot read commit {version} of the table at \"{}\"", table.table_url())).because(error)
        };
        let Some(entry) = log.read_commit_entry(version).await.map_err(failed)? else { break };
        commits.push(commit(version, &entry));
    }
    Ok(commits)
}

fn commit(version: u64, entry: &[u8]) -> CommitOf {
    let mut commit = CommitOf { version, at_ms: None, operation: None, run: None, pipeline: None, rows_added: Some(0) };
    for line in entry.split(|byte| *byte == b'\n') {
        let Ok(action) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        if let Some(info) = action.get("commitInfo") {
            let text = |key: &str| info.get(key).and_then(|value| value.as_str()).map(str::to_owned);
            commit.at_ms = info.get("timestamp").and_then(serde_json::Value::as_i64);
            (commit.operation, commit.pipeline) = (text("operation"), text("weirPipeline"));
            commit.run = text("weirLoad").and_then(|token| token.rsplit_once('-').map(|(run, _)| run.to_owned()));
        } else if let Some(add) = action.get("add") {
            let stats =
                add.get("stats").and_then(|stats| stats.as_str()).and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
            let rows = stats.and_then(|stats| stats.get("numRecords")?.as_i64());
            commit.rows_added = commit.rows_added.zip(rows).map(|(sum, rows)| sum + rows);
        }
    }
    commit
}

/// Removes the files of a table that its newest version does not read: what was deleted is gone then, and earlier versions with it.
pub async fn vacuum(table: DeltaTable) -> Result<()> {
    let url = table.table_url().to_string();
    let vacuum = table.vacuum().with_retention_period(chrono::Duration::zero()).with_enforce_retention_duration(false);
    let failed = |error| Error::system("lake-vacuum", format!("cannot remove old files of the table at \"{url}\"")).because(error).later();
    vacuum.await.map(drop).map_err(failed)
}

/// Every table of the lake as schema and name, sorted.
pub async fn tables(lake: &str, environment: &HashMap<String, String>) -> Result<Vec<(String, String)>> {
    let root = Place::at(lake, "lake", environment)?;
    let mut found = Vec::new();
    if let Some(path) = &root.local {
        for (schema, folder) in folders(path)? {
            for (table, folder) in folders(&folder)? {
                if folder.join("_delta_log").is_dir() {
                    found.push((schema.clone(), table));
                }
            }
        }
    } else {
        let failed = |error: object_store::Error| Error::system("lake-store", format!("cannot list \"{lake}\": {error}")).later();
        for schema in root.store.list_with_delimiter(Some(&root.prefix)).await.map_err(failed)?.common_prefixes {
            for table in root.store.list_with_delimiter(Some(&schema)).await.map_err(failed)?.common_prefixes {
                let log = table.clone().join("_delta_log");
                if root.store.list(Some(&log)).next().await.transpose().map_err(failed)?.is_some()
                    && let (Some(schema), Some(table)) = (schema.filename(), table.filename())
                {
                    found.push((schema.to_owned(), table.to_owned()));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn folders(path: &FsPath) -> Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(disk_error(&format!("cannot list \"{}\"", path.display()), &error).because(error)),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(['_', '.']) && entry.path().is_dir() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// The files of `run` in the table's folder, relative to it. Partition folders are searched, the log is not.
pub(super) async fn files_of_run(place: &Place, run: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if let Some(root) = &place.local {
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk_error(&format!("cannot list \"{}\"", folder.display()), &error).because(error)),
            };
            for entry in entries.flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && name != "_delta_log" => open.push(path),
                    Ok(kind) if kind.is_file() && name.to_string_lossy().contains(run) => {
                        if let Ok(relative) = path.strip_prefix(root) {
                            found.push(relative.to_string_lossy().into_owned());
                        }
                    }
                    _ => {}
                }
            }
        }
    } else {
        let mut listed = place.store.list(Some(&place.prefix));
        while let Some(meta) = listed.try_next().await.map_err(|error| store_failed(place, error))? {
            let Some(parts) = meta.location.prefix_match(&place.prefix) else { continue };
            let relative: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            if relative.first().is_some_and(|first| first != "_delta_log") && relative.last().is_some_and(|last| last.contains(run)) {
                found.push(relative.join("/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Deletes files of the table; one that is gone already is fine. Folders left empty go too.
pub(super) async fn delete(place: &Place, files: &[String]) -> Result<()> {
    for file in files {
        if let Some(root) = &place.local {
            let path = root.join(file);
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(disk_error(&format!("cannot delete \"{}\"", path.display()), &error).because(error)),
            }
            let mut folder = path.parent();
            // A folder that still holds something refuses to go, which is what is wanted.
            while let Some(empty) = folder.filter(|folder| folder.starts_with(root) && std::fs::remove_dir(folder).is_ok()) {
                folder = empty.parent();
            }
        } else {
            match place.store.delete(&place.path(file)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(store_failed(place, error)),
            }
        }
    }
    Ok(())
}

fn store_failed(place: &Place, error: object_store::Error) -> Error {
    Error::system("lake-store", format!("cannot reach \"{}\": {error}", place.shown())).later().because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_a_schema_and_a_name() {
        assert_eq!(parse_name("flights.delays"), Ok(("flights".into(), "delays".into())));
        assert_eq!(parse_name("delays"), Ok(("main".into(), "delays".into())));
        for wrong in ["", ".", "a.b.c", "a.", "../etc", "a/b", "_delta_log", "a b", ".hidden"] {
            assert!(parse_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_that_cannot_hold_a_lake_is_refused() {
        let none = HashMap::new();
        for wrong in ["https://example.com/lake", "ftp://example.com/lake", "nonsense://x/y", "memory:///x"] {
            assert_eq!(Place::at(wrong, "t", &none).expect_err(wrong).code, "lake-url", "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_readers_would_look_for_elsewhere_is_refused() {
        let error = Place::at("/data/100%25 lake", "t", &HashMap::new()).expect_err("refused");
        assert_eq!((error.code, error.blame), ("lake-path", crate::Blame::User));
    }

    #[test]
    fn a_bucket_is_reached_with_the_environments_keys() {
        let environment = HashMap::from([
            ("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "secret".to_owned()),
            ("REGION".to_owned(), "not for us".to_owned()),
        ]);
        let place = Place::named("s3://bucket/some/lake/", "s", "t", &environment).expect("a place").expect("names of folders");
        assert_eq!(place.prefix.as_ref(), "some/lake/s/t");
        assert_eq!(place.store_url().as_str(), "s3://bucket/");
        assert!(!format!("{place:?}").contains("not for us"));
    }

    #[test]
    fn a_name_that_leads_out_of_the_lake_is_no_table() {
        let none = HashMap::new();
        let aside = ["", ".", "..", "...", "../x", "a..b", "/etc", "a/b", "a\\b", "%2e%2e", ".%2e", "%", ".\t.", "a\0", "a\n"];
        for lake in ["/data/lake", "s3://bucket/lake"] {
            for name in aside {
                assert!(Place::named(lake, name, "t", &none).expect("looked at").is_none(), "{lake} {name:?}");
                assert!(Place::named(lake, "s", name, &none).expect("looked at").is_none(), "{lake} {name:?}");
            }
        }
        for name in ["a?b", "#"] {
            assert!(Place::named("s3://bucket/lake", name, "t", &none).expect("looked at").is_none(), "{name}");
        }
        for name in ["delays", "a-b_1", "Größe", "a table of another's", "v1.2", ".x", "a?b", "#"] {
            let place = Place::named("/data/lake", name, "t", &none).expect("looked at").expect(name);
            assert_eq!(place.local, Some(PathBuf::from("/data/lake").join(name).join("t")));
        }
    }

    #[tokio::test]
    async fn a_lake_that_is_not_there_has_no_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = folder.path().join("not there").to_string_lossy().into_owned();
        assert!(tables(&lake, &HashMap::new()).await.expect("listed").is_empty());
        assert!(open_table(&lake, &HashMap::new(), "s", "t", Version::Newest).await.expect("asked").is_none());
    }
}
