//! What stands on disk under a lake or a quarantine, read from the Delta logs themselves.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Every Delta table below a folder.
pub fn tables(folder: &Path) -> Vec<PathBuf> {
    files(folder)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "00000000000000000000.json"))
        .filter_map(|path| path.parent()?.parent().map(Path::to_owned))
        .collect()
}

/// The commits of a Delta table, oldest first, each as its actions.
pub fn commits(table: &Path) -> Vec<Vec<Value>> {
    let Ok(entries) = fs::read_dir(table.join("_delta_log")) else { return Vec::new() };
    let mut logs: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.len() == 25 && name.ends_with(".json") && name[..20].bytes().all(|b| b.is_ascii_digit())
        })
        .collect();
    logs.sort();
    logs.iter()
        .map(|log| fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).expect("a log line is JSON")).collect())
        .collect()
}

/// The application transactions of a table: (application, version) in the order of commits.
pub fn transactions(table: &Path) -> Vec<(String, i64)> {
    commits(table)
        .into_iter()
        .flatten()
        .filter_map(|action| Some((action["txn"]["appId"].as_str()?.to_owned(), action["txn"]["version"].as_i64()?)))
        .collect()
}

/// Files below a folder that no Delta log knows and that are not the log: leftovers of a load that was never published.
/// `seen`: folders to look in; the tables' own `_delta_log` must hold nothing temporary either.
pub fn strays(folder: &Path) -> Vec<PathBuf> {
    let mut known = BTreeSet::new();
    for table in tables(folder) {
        for action in commits(&table).into_iter().flatten() {
            for kind in ["add", "remove", "cdc"] {
                if let Some(path) = action[kind]["path"].as_str() {
                    known.insert(table.join(unescape(path)));
                }
            }
        }
    }
    files(folder)
        .into_iter()
        .filter(|path| !known.contains(path))
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            let log = path.parent().is_some_and(|parent| parent.ends_with("_delta_log"));
            let version = name.len() >= 20 && name[..20].bytes().all(|b| b.is_ascii_digit());
            !(log && (version || name == "_last_checkpoint"))
        })
        .collect()
}

/// Every file below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                // It went away while we looked: a run is going on.
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// Paths in a Delta log are URL-encoded.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped =
            (first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).expect("paths are UTF-8")
}
