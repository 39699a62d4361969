//! Which files a path, glob, folder or URL means, sorted by name, with what is known of each from outside.
//! What is in them is the readers'.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::TryStreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, path::Path as ObjectPath};
use percent_encoding::percent_decode_str;
use url::Url;
use weir_pipelines::diagnostic::nearest;

use crate::error::{Beneath, Error, Result};

/// Folders nest no deeper than this; more is a loop that escaped notice.
const DEPTH_MAX: usize = 64;
/// No object store is waited for longer than this when files are listed.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);
/// How Hive spells a null in a folder's name.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file that was found.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Its path as a person would write it in the pipeline (relative paths stay so), or its URL.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// Its size as stored, compressed or not.
    pub size_bytes: u64,
    /// Changes whenever the file does: size and modification time, or the entity tag.
    pub version: String,
    /// `key=value` folders on the way to it, outermost first; a null where Hive's null was written.
    pub partitions: Vec<(String, Option<String>)>,
}

impl FoundFile {
    /// Opens a file on a disk. Fails where it is to be the one that was listed, and is not.
    pub(super) fn open_local(&self, path: &Path, as_listed: bool) -> Result<fs::File> {
        let cannot_open = |error| cannot_open(&self.name, path, error);
        let opened = fs::File::open(path).map_err(cannot_open)?;
        if as_listed {
            self.expect(&local_version(&opened.metadata().map_err(cannot_open)?))?;
        }
        Ok(opened)
    }

    /// Fails where an object is not the one that was listed.
    pub(super) fn expect_remote(&self, meta: &ObjectMeta) -> Result<()> {
        self.expect(&remote_version(meta))
    }

    fn expect(&self, version: &str) -> Result<()> {
        // One store quotes a tag when it lists and not when it answers; a server that packs what it sends marks it as weak.
        let bare = |version: &str| version.trim_start_matches("W/").trim_matches('"').to_owned();
        if bare(version) == bare(&self.version) {
            return Ok(());
        }
        Err(Error::system("file-changed", format!("\"{}\" was changed after it had been listed", self.name))
            .later()
            .setting("path")
            .help("run again; write a file elsewhere on the same disk, then rename it to where it is read"))
    }
}

/// Where a file is.
#[derive(Debug, Clone)]
pub enum Location {
    /// On a disk.
    Local(PathBuf),
    /// In an object store, or behind HTTP.
    Remote(Arc<dyn ObjectStore>, ObjectPath),
}

/// Lists the files that `paths` mean, without doubles. Relative paths start from `folder`. `hive`: `key=value` parts of the whole
/// path are columns (true), none are (false), or those below the folder or within the glob are (none given).
/// Fails with Blame::User where a path means no file.
pub async fn list(paths: &[String], folder: &Path, hive: Option<bool>, environment: &HashMap<String, String>) -> Result<Vec<FoundFile>> {
    list_within(paths, folder, hive, environment, None).await
}

/// The same, where files on disks lie within a folder and in none that is hidden there, once links are followed; none given: anywhere.
/// Fails with Blame::User at a path that leads elsewhere, and looks at nothing there.
pub async fn list_within(
    paths: &[String],
    folder: &Path,
    hive: Option<bool>,
    environment: &HashMap<String, String>,
    within: Option<&Path>,
) -> Result<Vec<FoundFile>> {
    let mut found = BTreeMap::new();
    for path in paths {
        let files = if path.contains("://") {
            tokio::time::timeout(LIST_TIMEOUT, list_remote(path, hive, environment)).await.map_err(|_| {
                Error::system("unreachable", format!("\"{path}\" did not answer within {} s", LIST_TIMEOUT.as_secs())).later()
            })?
        } else {
            let (path, folder, within) = (path.clone(), folder.to_owned(), within.map(Path::to_owned));
            let listing = tokio::task::spawn_blocking(move || list_local(&path, &folder, hive, within.as_deref()));
            listing.await.map_err(|error| Error::weir("panic", "listing files panicked").because(error))?
        };
        for file in files.map_err(|error| if error.setting.is_none() { error.setting("path") } else { error })? {
            found.insert(file.name.clone(), file);
        }
    }
    Ok(found.into_values().collect())
}

/// Says whether a path or a URL is a pattern. A `?` in a URL starts a query instead.
fn is_glob(path: &str) -> bool {
    path.contains(['*', '[', '{']) || (path.contains('?') && !path.contains("://"))
}

/// Splits a pattern after the last `/` before its first wildcard.
fn split_glob(pattern: &str) -> (&str, &str) {
    let first = pattern.find(['*', '[', '{', '?']).unwrap_or(pattern.len());
    pattern.split_at(pattern[..first].rfind('/').map_or(0, |slash| slash + 1))
}

fn matcher(pattern: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob = glob.map_err(|error| {
        Error::user("glob-invalid", format!("\"{pattern}\" is not a pattern: {}", error.kind())).help(
            "\"*\", \"?\", \"[abc]\", \"[a-z]\" and \"{one,two}\" stand for letters; one that means itself stands in brackets: \"[[]\"",
        )
    })?;
    Ok(glob.compile_matcher())
}

fn partitions(parts: &str) -> Vec<(String, Option<String>)> {
    let folders = parts.rsplit_once('/').map_or("", |(folders, _)| folders);
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = folders.split('/').filter_map(|part| part.split_once('=')).filter(|(key, _)| !key.is_empty());
    pairs.map(|(key, value)| (decode(key), (value != HIVE_NULL).then(|| decode(value)))).collect()
}

/// The part of a name in which `key=value` folders count.
fn hive_part<'a>(name: &'a str, below: &'a str, hive: Option<bool>) -> &'a str {
    match hive {
        Some(true) => name,
        Some(false) => "",
        None => below,
    }
}

/// Drops `./` and doubled slashes, so that one file has one name.
fn tidy(path: &str) -> String {
    let absolute = path.starts_with('/');
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let tidy = parts.join("/");
    if absolute { format!("/{tidy}") } else { tidy }
}

/// Whether a path, or what there is of it, lies within a folder and in none that is hidden there, once links are followed.
fn is_within(path: &Path, within: &Path) -> bool {
    let (Some(path), Ok(within)) = (path.ancestors().find_map(|path| fs::canonicalize(path).ok()), fs::canonicalize(within)) else {
        return false;
    };
    let is_hidden = |part: &OsStr| part.as_encoded_bytes().starts_with(b".");
    path.strip_prefix(within).is_ok_and(|below| !below.iter().any(is_hidden))
}

/// Fails at a path that leads out of the folder that files are to lie within.
fn held_within(written: &str, path: &Path, within: Option<&Path>) -> Result<()> {
    match within {
        Some(within) if !is_within(path, within) => {
            Err(Error::user("not-allowed", format!("the file \"{written}\" is not open to who asks through a port"))
                .help("a link on the way to it leads out of the project's folder, or into a hidden folder"))
        }
        _ => Ok(()),
    }
}

fn list_local(written: &str, folder: &Path, hive: Option<bool>, within: Option<&Path>) -> Result<Vec<FoundFile>> {
    if written.is_empty() {
        return Err(Error::user("file-missing", "the path is empty").help("write a file, a folder, a pattern or a URL"));
    }
    let path = tidy(written);
    let full = folder.join(&path);
    let held = |path: &Path| held_within(written, path, within);
    held(&full)?;
    match fs::metadata(&full) {
        Ok(meta) if meta.is_dir() => {
            let mut files = Vec::new();
            walk(
                &full,
                String::new(),
                DEPTH_MAX,
                &|name| !name.starts_with('.') && (!name.starts_with('_') || name.contains('=')),
                &held,
                &mut files,
            )?;
            if files.is_empty() {
                return Err(Error::user("folder-empty", format!("the folder \"{written}\" holds no file"))
                    .help("put files into it, or name another folder; names that start with \".\" or \"_\" do not count"));
            }
            let prefix = if path.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches('/')) };
            let found = |below: String| {
                let path = full.join(&below);
                held(&path)?;
                local_file(format!("{prefix}{below}"), &path, &below, hive)
            };
            files.into_iter().map(found).collect()
        }
        Ok(_) => Ok(vec![local_file(path.clone(), &full, "", hive)?]),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_glob(&path) => list_glob(written, &path, folder, hive, &held),
        Err(error) => Err(cannot_open(written, &full, error)),
    }
}

fn list_glob(written: &str, path: &str, folder: &Path, hive: Option<bool>, held: &dyn Fn(&Path) -> Result<()>) -> Result<Vec<FoundFile>> {
    let (prefix, pattern) = split_glob(path);
    let matcher = matcher(pattern)?;
    let depth = if pattern.contains("**") { DEPTH_MAX } else { pattern.split('/').count() };
    // As in a shell: a hidden file is only meant where the pattern says so.
    let hidden_too = pattern.split('/').any(|part| part.starts_with('.'));
    let base = folder.join(prefix);
    let mut files = Vec::new();
    if base.is_dir() {
        walk(&base, String::new(), depth, &|name| hidden_too || !name.starts_with('.'), held, &mut files)?;
    }
    files.retain(|file| matcher.is_match(file));
    if files.is_empty() {
        return Err(Error::user("glob-empty", format!("\"{written}\" matches no file"))
            .help(format!("it is looked for from \"{}\"; \"*\" stops at \"/\", \"**\" does not", folder.display())));
    }
    let found = |below: String| {
        let path = base.join(&below);
        held(&path)?;
        local_file(format!("{prefix}{below}"), &path, &below, hive)
    };
    files.into_iter().map(found).collect()
}

/// Adds the files under `folder` whose names, and whose folders' names, `wanted` likes, as paths below it. Goes into no linked folder that `held`
/// refuses: it ends the walk.
fn walk(
    folder: &Path,
    below: String,
    depth: usize,
    wanted: &dyn Fn(&str) -> bool,
    held: &dyn Fn(&Path) -> Result<()>,
    files: &mut Vec<String>,
) -> Result<()> {
    let unreadable = |error: io::Error| Error::system("unreadable", format!("cannot list \"{}\": {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::user("name-not-text", format!("the name of \"{}\" is not UTF-8", folder.join(&name).display())).help("rename the file")
        })?;
        if !wanted(&name) {
            continue;
        }
        let path = entry.path();
        // A link that leads nowhere, or a file deleted meanwhile, is no file.
        let Ok(meta) = fs::metadata(&path) else { continue };
        let below = if below.is_empty() { name } else { format!("{below}/{name}") };
        if meta.is_dir() {
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let looped = linked
                && match (fs::canonicalize(&path), fs::canonicalize(folder)) {
                    (Ok(target), Ok(here)) => here.starts_with(target),
                    _ => true,
                };
            if depth > 1 && !looped {
                if linked {
                    held(&path)?;
                }
                walk(&path, below, depth - 1, wanted, held, files)?;
            }
        } else if meta.is_file() {
            files.push(below);
        }
    }
    Ok(())
}

fn local_file(name: String, path: &Path, below: &str, hive: Option<bool>) -> Result<FoundFile> {
    let meta = fs::metadata(path).map_err(|error| cannot_open(&name, path, error))?;
    if !meta.is_file() {
        return Err(Error::user("not-a-file", format!("\"{name}\" is not a regular file"))
            .help("files may be read more than once, which pipes and devices do not allow"));
    }
    Ok(FoundFile {
        partitions: partitions(hive_part(&name, below, hive)),
        version: local_version(&meta),
        size_bytes: meta.len(),
        location: Location::Local(path.to_owned()),
        name,
    })
}

fn local_version(meta: &fs::Metadata) -> String {
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos());
    format!("{}|{modified}", meta.len())
}

fn remote_version(meta: &ObjectMeta) -> String {
    let stamp = || format!("{}|{}", meta.size, meta.last_modified.timestamp_nanos_opt().unwrap_or_default());
    meta.e_tag.clone().unwrap_or_else(stamp)
}

/// Says why a local file cannot be opened, and which name may have been meant.
pub(super) fn cannot_open(name: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let missing = Error::user("file-missing", format!("there is no file \"{name}\"")).setting("path");
            let beside: Vec<String> = path
                .parent()
                .and_then(|parent| fs::read_dir(parent).ok())
                .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).take(10_000).collect())
                .unwrap_or_default();
            let wanted = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match nearest(wanted, beside.iter().map(String::as_str)) {
                Some(near) => missing.help(format!("did you mean \"{near}\"?")),
                None => missing.help(format!("it is looked for at \"{}\"", path.display())),
            }
        }
        io::ErrorKind::PermissionDenied => Error::user("unreadable", format!("cannot read \"{name}\": permission denied")).setting("path"),
        _ => Error::system("unreadable", format!("cannot read \"{name}\": {error}")).setting("path"),
    }
}

/// A URL as messages may show it: without user, password and query.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Connects to the store of a URL with the credentials of the environment, and returns the URL's path in it.
pub(super) fn store(url: &str, environment: &HashMap<String, String>) -> Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let shown = without_secrets(url);
    let invalid =
        |why: String| Error::user("url-invalid", format!("\"{shown}\" is not a URL that files are read from: {why}")).setting("path");
    let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    if !["file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https"].contains(&parsed.scheme()) {
        return Err(invalid(format!("no scheme \"{}\"", parsed.scheme())).help("schemes are: s3, gs, az, abfss, https, http, file"));
    }
    if parsed.password().is_some() || (!parsed.username().is_empty() && matches!(parsed.scheme(), "http" | "https")) {
        return Err(invalid("it holds a user or a password".into()).help("give credentials in the environment, not in the file"));
    }
    if parsed.query().is_some() {
        return Err(invalid("it has a query".into()).help("a signed URL cannot be read; give credentials in the environment"));
    }
    let mut options: Vec<(String, String)> = environment
        .iter()
        .filter(|(key, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if parsed.scheme() == "http" {
        options.push(("allow_http".into(), "true".into()));
    }
    let (store, path) = object_store::parse_url_opts(&parsed, options).map_err(|error| remote_error(url, error))?;
    Ok((Arc::from(store), path))
}

/// Says what an object store answered, without what may hold a credential.
pub(super) fn remote_error(name: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let answer = match &error {
        E::NotFound { .. } => Error::user("file-missing", format!("there is no file \"{name}\"")),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            Error::user("unreadable", format!("cannot read \"{name}\": access denied"))
                .help("credentials are taken from the environment: AWS_*, AZURE_*, GOOGLE_*")
        }
        E::Generic { .. } => Error::system("unreachable", format!("cannot reach \"{name}\": {}", innermost(&error))).later(),
        _ => Error::system("unreadable", format!("cannot read \"{name}\"")),
    };
    let answer = answer.setting("path");
    // What wraps the cause repeats it, and the URL.
    if answer.code == "unreachable" { answer.because(Beneath(error)) } else { answer.because(error) }
}

/// What an error says that no other lies beneath.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(beneath) => innermost(beneath),
        None => error.to_string(),
    }
}

async fn list_remote(written: &str, hive: Option<bool>, environment: &HashMap<String, String>) -> Result<Vec<FoundFile>> {
    let glob = is_glob(written);
    let (prefix, pattern) = if glob { split_glob(written) } else { (written, "") };
    let http = Url::parse(prefix).is_ok_and(|url| matches!(ObjectStoreScheme::parse(&url), Ok((ObjectStoreScheme::Http, _))));
    if glob && http {
        return Err(Error::user("glob-http", format!("\"{written}\" is a pattern, and HTTP cannot list files"))
            .help("name each file: path = [\"https://…/a.csv\", \"https://…/b.csv\"]"));
    }
    let (store, path) = store(prefix, environment)?;
    if !glob && !written.ends_with('/') {
        match store.head(&path).await {
            Ok(meta) => return Ok(vec![remote_file(written.to_owned(), &store, meta, "", hive)]),
            Err(object_store::Error::NotFound { .. }) if !http => {}
            Err(error) => return Err(remote_error(written, error)),
        }
    }
    let metas: Vec<ObjectMeta> = store.list(Some(&path)).try_collect().await.map_err(|error| remote_error(written, error))?;
    let matcher = if glob { Some(matcher(pattern)?) } else { None };
    let base = format!("{}/", prefix.trim_end_matches('/'));
    let mut files = Vec::new();
    for meta in metas {
        let Some(parts) = meta.location.prefix_match(&path) else { continue };
        let below = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let wanted = match &matcher {
            Some(matcher) => matcher.is_match(&below),
            None => !below.split('/').any(|name| name.starts_with('.') || (name.starts_with('_') && !name.contains('='))),
        };
        if wanted && meta.size > 0 {
            files.push(remote_file(format!("{base}{below}"), &store, meta, &below, hive));
        }
    }
    if files.is_empty() {
        return Err(match (glob, written.ends_with('/')) {
            (true, _) => Error::user("glob-empty", format!("\"{written}\" matches no file")),
            (_, true) => Error::user("folder-empty", format!("the folder \"{written}\" holds no file")),
            _ => Error::user("file-missing", format!("there is no file \"{written}\"")),
        });
    }
    Ok(files)
}

fn remote_file(name: String, store: &Arc<dyn ObjectStore>, meta: ObjectMeta, below: &str, hive: Option<bool>) -> FoundFile {
    FoundFile {
        partitions: partitions(hive_part(&name, below, hive)),
        version: remote_version(&meta),
        size_bytes: meta.size,
        location: Location::Remote(store.clone(), meta.location),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Retry;

    async fn names(paths: &[&str], folder: &Path) -> Result<Vec<String>> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        Ok(list(&paths, folder, None, &HashMap::new()).await?.into_iter().map(|file| file.name).collect())
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
            fs::write(path, "a\n1\n").expect("a file");
        }
        dir
    }

    #[tokio::test]
    async fn a_file_is_what_was_listed_by_its_size_and_time_or_its_tag() {
        let dir = folder(&["a.csv"]);
        let mut file = list(&["a.csv".into()], dir.path(), None, &HashMap::new()).await.expect("a file").remove(0);
        let path = dir.path().join("a.csv");
        file.open_local(&path, true).expect("the same");
        fs::write(&path, "a\n1\n2\n").expect("a file");
        file.open_local(&path, false).expect("any");
        let error = file.open_local(&path, true).expect_err("another size");
        assert_eq!((error.code, error.retry), ("file-changed", Retry::Later));
        assert_eq!(error.message, "\"a.csv\" was changed after it had been listed");
        assert_eq!(error.help.as_deref(), Some("run again; write a file elsewhere on the same disk, then rename it to where it is read"));
        let object = |tag: Option<&str>, second: i64| ObjectMeta {
            location: "a.csv".into(),
            last_modified: chrono::DateTime::from_timestamp(second, 0).expect("a time"),
            size: 4,
            e_tag: tag.map(str::to_owned),
            version: None,
        };
        for (listed, now, is_same) in [
            (object(Some("\"x\""), 1), object(Some("\"x\""), 2), true),
            (object(Some("x"), 1), object(Some("\"x\""), 1), true),
            (object(Some("\"x\""), 1), object(Some("W/\"x\""), 1), true),
            (object(Some("\"x\""), 1), object(Some("\"y\""), 1), false),
            (object(None, 1), object(None, 1), true),
            (object(None, 1), object(None, 2), false),
        ] {
            file.version = remote_version(&listed);
            assert_eq!(file.expect_remote(&now).is_ok(), is_same, "{listed:?} {now:?}");
        }
    }

    #[tokio::test]
    async fn a_glob_finds_files_sorted_and_stops_at_slashes() {
        let dir = folder(&["d/b.csv", "d/a.csv", "d/.hidden.csv", "d/x/c.csv", "d/a.json"]);
        assert_eq!(names(&["d/*.csv"], dir.path()).await.expect("files"), ["d/a.csv", "d/b.csv"]);
        assert_eq!(names(&["./d/**/*.csv"], dir.path()).await.expect("files"), ["d/a.csv", "d/b.csv", "d/x/c.csv"]);
        assert_eq!(names(&["d/{a,b}.csv", "d/a.csv"], dir.path()).await.expect("files"), ["d/a.csv", "d/b.csv"]);
    }

    #[tokio::test]
    async fn a_name_with_brackets_is_a_file_where_it_exists() {
        let dir = folder(&["a[1].csv", "a1.csv"]);
        assert_eq!(names(&["a[1].csv"], dir.path()).await.expect("files"), ["a[1].csv"]);
    }

    #[tokio::test]
    async fn a_folder_gives_its_files_and_what_their_folders_say() {
        let dir = folder(&["t/year=2013/month=01/a.csv", "t/year=__HIVE_DEFAULT_PARTITION__/b%20.csv", "t/_SUCCESS", "t/c=d%2Fe/f.csv"]);
        let files = list(&["t".into()], dir.path(), None, &HashMap::new()).await.expect("files");
        let parts: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.partitions.clone())).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parts,
            [
                ("t/c=d%2Fe/f.csv", vec![("c".to_owned(), some("d/e"))]),
                ("t/year=2013/month=01/a.csv", vec![("year".to_owned(), some("2013")), ("month".to_owned(), some("01"))]),
                ("t/year=__HIVE_DEFAULT_PARTITION__/b%20.csv", vec![("year".to_owned(), None)]),
            ]
        );
        let none = list(&["t".into()], dir.path(), Some(false), &HashMap::new()).await.expect("files");
        assert!(none.iter().all(|file| file.partitions.is_empty()));
    }

    #[tokio::test]
    async fn only_parts_within_the_pattern_become_columns() {
        let dir = folder(&["run=1/day=2/a.csv"]);
        let files = list(&["run=1/*/a.csv".into()], dir.path(), None, &HashMap::new()).await.expect("files");
        assert_eq!(files[0].partitions, [("day".to_owned(), Some("2".to_owned()))]);
    }

    #[tokio::test]
    async fn what_means_no_file_is_an_error_that_points_at_the_path() {
        let dir = folder(&["flights.csv", "empty/.keep"]);
        let error = names(&["flihts.csv"], dir.path()).await.expect_err("missing");
        assert_eq!((error.code, error.message.as_str()), ("file-missing", "there is no file \"flihts.csv\""));
        assert_eq!((error.setting.as_deref(), error.help.as_deref()), (Some("path"), Some("did you mean \"flights.csv\"?")));
        let error = names(&["data/*.csv"], dir.path()).await.expect_err("nothing matches");
        assert_eq!((error.code, error.message.as_str()), ("glob-empty", "\"data/*.csv\" matches no file"));
        assert_eq!(error.setting.as_deref(), Some("path"));
        let error = names(&["empty"], dir.path()).await.expect_err("empty");
        assert_eq!((error.code, error.message.as_str()), ("folder-empty", "the folder \"empty\" holds no file"));
        let error = names(&["flights.csv/x"], dir.path()).await.expect_err("a file is no folder");
        assert_eq!(error.code, "file-missing");
        assert_eq!(names(&["a[.csv"], dir.path()).await.expect_err("no pattern").code, "glob-invalid");
    }

    #[tokio::test]
    async fn links_out_of_the_folder_that_files_are_to_lie_within_are_refused() {
        let outside = folder(&["out.csv", "below/out.csv"]);
        let dir = folder(&["d/a.csv", ".hidden/h.csv", "mixed/a.csv", "in/x.txt", "into_hidden/x.txt", "under/x.txt", "rows/x.txt"]);
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).expect("a link");
        link(&dir.path().join("d/a.csv"), "in/a.csv");
        link(&dir.path().join("d"), "in/folder");
        link(&outside.path().join("out.csv"), "mixed/out.csv");
        link(&dir.path().join(".hidden/h.csv"), "into_hidden/h.csv");
        link(outside.path(), "under/folder");
        link(outside.path(), "rows/t.csv");
        link(&outside.path().join("none.csv"), "in/nowhere.csv");
        let listed = async |path: &str| {
            let found = list_within(&[path.to_owned()], dir.path(), None, &HashMap::new(), Some(dir.path())).await;
            found.map(|files| files.into_iter().map(|file| file.name).collect::<Vec<_>>())
        };
        for (path, names) in [
            ("d/a.csv", vec!["d/a.csv"]),
            ("in/**/*.csv", vec!["in/a.csv", "in/folder/a.csv"]),
            ("in/folder", vec!["in/folder/a.csv"]),
            ("mixed/a*.csv", vec!["mixed/a.csv"]),
            ("under/*.txt", vec!["under/x.txt"]),
        ] {
            assert_eq!(listed(path).await.expect("files"), names, "{path}");
        }
        for path in [
            "mixed/out.csv",
            "mixed/*.csv",
            "mixed",
            "into_hidden/h.csv",
            "into_hidden/*.csv",
            "under/folder/out.csv",
            "under/folder/ou.csv",
            "under/folder/none/x.csv",
            "under/folder/*.csv",
            "under/folder",
            "under/*/*.csv",
            "under/**/*.csv",
            "under",
            "rows/t.csv",
            ".hidden/h.csv",
            "../x.csv",
        ] {
            let error = listed(path).await.expect_err(path);
            let message = format!("the file \"{path}\" is not open to who asks through a port");
            assert_eq!((error.code, error.message), ("not-allowed", message));
            let help = "a link on the way to it leads out of the project's folder, or into a hidden folder";
            assert_eq!((error.blame, error.help.as_deref()), (crate::Blame::User, Some(help)), "{path}");
        }
        let error = listed("in/nowhere.csv").await.expect_err("it leads nowhere");
        assert_eq!((error.code, error.message.as_str()), ("file-missing", "there is no file \"in/nowhere.csv\""));
        // Of a pipeline, links lead anywhere.
        assert_eq!(names(&["under/**/*.csv"], dir.path()).await.expect("files"), ["under/folder/below/out.csv", "under/folder/out.csv"]);
    }

    #[tokio::test]
    async fn urls_go_through_an_object_store() {
        let dir = folder(&["t/day=1/a.csv", "t/day=2/b.csv", "t/_log/c.csv"]);
        let url = format!("file://{}", dir.path().canonicalize().expect("a path").display());
        let found = names(&[&format!("{url}/t/")], dir.path()).await.expect("files");
        assert_eq!(found, [format!("{url}/t/day=1/a.csv"), format!("{url}/t/day=2/b.csv")]);
        let found = names(&[&format!("{url}/t/day=*/b.csv")], dir.path()).await.expect("files");
        assert_eq!(found, [format!("{url}/t/day=2/b.csv")]);
        let error = names(&[&format!("{url}/t/none.csv")], dir.path()).await.expect_err("missing");
        assert_eq!((error.code, error.setting.as_deref()), ("file-missing", Some("path")));
        assert_eq!(names(&["ftp://h/x.csv"], dir.path()).await.expect_err("no such scheme").code, "url-invalid");
        assert_eq!(names(&["https://h/*.csv"], dir.path()).await.expect_err("no listing").code, "glob-http");
    }
}
