//! What the folder list promises: layers of crates, `//!` lines, file sizes, connectors named in one place, one Arrow.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{lake, project::repository};

/// Left to right: a crate uses only crates to its left.
const LAYERS: [&str; 7] = ["schemas", "pipelines", "connectors", "engine", "weir", "tests", "benches"];

/// What a crate may not use besides crates to its right.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("schemas", &["toml", "tokio", "datafusion", "deltalake", "object_store", "sqlx", "clap"]),
    ("pipelines", &["weir-schemas", "arrow", "datafusion", "tokio", "deltalake", "object_store", "sqlx", "clap", "tracing"]),
    ("connectors", &["clap", "indicatif", "rustyline", "tracing-subscriber"]),
    ("engine", &["toml", "clap", "indicatif", "rustyline", "tracing-subscriber"]),
];

/// Every Rust file of the repository.
pub fn sources() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = LAYERS.iter().flat_map(|layer| lake::files(&repository().join(layer))).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(found.len() > 30, "the sources are not found: {found:?}");
    found
}

/// A path as it is from the repository's root.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_crate_uses_only_crates_to_its_left() {
    let mut wrong = Vec::new();
    for (place, layer) in LAYERS.iter().enumerate() {
        let text = fs::read_to_string(repository().join(layer).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for name in dependencies.keys() {
                let ours = match name.as_str() {
                    "weir" => Some("weir"),
                    name => name.strip_prefix("weir-"),
                };
                let right = ours.is_some_and(|ours| LAYERS.iter().position(|layer| *layer == ours).is_none_or(|other| other >= place));
                let forbidden =
                    section == "dependencies" && FORBIDDEN.iter().any(|(crate_, names)| crate_ == layer && names.contains(&name.as_str()));
                if right || forbidden {
                    wrong.push(format!("{layer}/Cargo.toml: [{section}] {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_version_stands_in_the_root_manifest() {
    for layer in LAYERS {
        let text = fs::read_to_string(repository().join(layer).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                assert_eq!(value.get("workspace"), Some(&toml::Value::Boolean(true)), "{layer}/Cargo.toml: {name} is not the workspace's");
            }
        }
    }
}

#[test]
fn every_file_opens_by_saying_what_it_answers() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            !first.starts_with("//! ") || first.len() < 12
        })
        .map(|path| relative(path))
        .collect();
    assert!(wrong.is_empty(), "no //! line that says what the file is for: {wrong:#?}");
}

#[test]
fn no_file_is_longer_than_seven_hundred_lines() {
    let long: Vec<String> = sources()
        .iter()
        .map(|path| (fs::read_to_string(path).unwrap().lines().count(), relative(path)))
        .filter(|(lines, _)| *lines > 700)
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert!(long.is_empty(), "each of these is two files: {long:#?}");
}

/// The code of a file: comments and the unit tests at its end taken off.
pub fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_connector_is_named_only_in_its_own_file_and_in_the_list() {
    let mut wrong = Vec::new();
    for kind in ["postgres", "clickhouse"] {
        let own = [format!("connectors/src/{kind}.rs"), format!("connectors/src/{kind}/"), "connectors/src/lib.rs".to_owned()];
        // The door that speaks Postgres's protocol, its settings, and what its clients look tables up in, are not the connector.
        let doors = [
            "weir/src/server/",
            "engine/src/query.rs",
            "engine/src/query/",
            "pipelines/src/parse/doors.rs",
            "pipelines/src/schema/project.rs",
        ];
        for path in sources() {
            let name = relative(&path);
            // Tests and their inputs may name whom they test.
            let test = name.starts_with("tests/") || name.starts_with("benches/") || name.contains("/tests/") || name.ends_with("tests.rs");
            let is_door = kind == "postgres" && doors.iter().any(|door| name.starts_with(door));
            if test || is_door || own.iter().any(|own| name.starts_with(own.as_str())) {
                continue;
            }
            for (number, line) in code(&path).lines().enumerate() {
                let line = line.to_lowercase();
                // "The Postgres dialect" of a SQL parser is not the connector; a module path or a quoted kind is.
                if line.contains(&format!("{kind}::")) || line.contains(&format!("\"{kind}\"")) {
                    wrong.push(format!("{name} (line {} of its code): {}", number + 1, line.trim()));
                }
            }
        }
    }
    for path in sources() {
        let name = relative(&path);
        let outside = !name.starts_with("connectors/") && !name.starts_with("tests/") && !name.starts_with("benches/");
        for kind in ["weir_connectors::file::", "weir_connectors::lake::"] {
            // The quarantine and the ad-hoc session are lake tables by design: they use the lake's table functions.
            if outside && !name.starts_with("engine/") && code(&path).contains(kind) {
                wrong.push(format!("{name}: {kind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn connectors_do_not_know_one_another() {
    let kinds = ["file", "lake", "postgres", "clickhouse"];
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        let Some(own) =
            kinds.iter().find(|kind| name == format!("connectors/src/{kind}.rs") || name.starts_with(&format!("connectors/src/{kind}/")))
        else {
            continue;
        };
        for other in kinds.iter().filter(|other| other != &own) {
            if code(&path).contains(&format!("crate::{other}::")) {
                wrong.push(format!("{name} uses crate::{other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_neither_print_nor_read_the_environment() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        if !["schemas/src", "pipelines/src", "connectors/src", "engine/src"].iter().any(|library| name.starts_with(library))
            || name.ends_with("tests.rs")
            || name.ends_with("test_server.rs")
            || name.ends_with("golden.rs")
        {
            continue;
        }
        for word in ["println!(", "eprint!(", "std::env::var", "env::var(", "Utc::now()", "todo!(", "unimplemented!("] {
            if code(&path).contains(word) {
                wrong.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_one_arrow_one_datafusion_and_one_object_store() {
    let lock: toml::Table = toml::from_str(&fs::read_to_string(repository().join("Cargo.lock")).unwrap()).unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        versions.entry(package["name"].as_str().unwrap()).or_default().push(package["version"].as_str().unwrap());
    }
    let mut seen = 0;
    for (name, versions) in &versions {
        if *name == "arrow"
            || name.starts_with("arrow-")
            || *name == "parquet"
            || *name == "object_store"
            || name.starts_with("datafusion")
            || name.starts_with("deltalake")
        {
            assert_eq!(versions.len(), 1, "{name} {versions:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "Cargo.lock holds {seen} of these packages: it was not read");
}

#[test]
fn nothing_in_the_repository_names_the_machine_it_was_made_on() {
    let mut wrong = Vec::new();
    let own = repository().join("tests/end_to_end/tidy.rs");
    for path in sources().into_iter().chain(lake::files(&repository().join("docs"))) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        // Split, so that this file does not find itself.
        for word in [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tm", "p/w/")] {
            if path != own && text.contains(word) {
                wrong.push(format!("{}: {word}", relative(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
