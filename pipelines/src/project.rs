//! `weir.toml`: what a project's pipelines share, with the chosen profile laid over it.
//! What a kind of connection or of alert may hold is left to those who read it; `{ env = … }` and its kin stay as written.

use std::{path::PathBuf, sync::Arc, time::Duration};

use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, SourceFile, Spanned},
    parse::{
        after_syntax, server, sort, syntax_errors,
        walk::{Table, Walk, in_order, integer, is_name, suggest},
    },
    server::{Alert, Server},
    settings::{Document, Settings},
    units,
};

/// A project: the folder that holds `weir.toml`, pipelines, contracts and `.weir/`.
#[derive(Debug, Clone)]
pub struct Project {
    /// `weir.toml` as it was read; none where a pipeline file stands alone.
    pub file: Option<Arc<SourceFile>>,
    /// The project's folder.
    pub root: PathBuf,
    /// Connections by name.
    pub connections: IndexMap<String, Connection>,
    /// The lake's folder or URL as written, relative to `root`. Default `.weir/lake`.
    pub lake_path: String,
    /// What runs may hold in memory. None: half of the machine or of the cgroup.
    pub memory_limit_bytes: Option<u64>,
    /// How long the quarantine keeps rows that were mended or discarded. None: until they are purged.
    pub quarantine_keep: Option<Duration>,
    /// The `[state]` table: where the run history is kept in place of `.weir/state.db`.
    pub state: Option<Settings>,
    /// What a server of the project does.
    pub server: Server,
    /// Whom it alerts, in the order they were written.
    pub alerts: Vec<Alert>,
    /// Profiles that `weir.toml` offers.
    pub profiles: Vec<String>,
    /// The chosen one.
    pub profile: Option<String>,
}

/// A `[connection.NAME.KIND]` table.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The kind and its own table.
    pub settings: Settings,
}

/// What could be read of `weir.toml`, and what is wrong with the rest.
#[derive(Debug, Clone)]
pub struct PartialProject {
    /// What it says, as far as it can be read; elsewhere the defaults.
    pub project: Project,
    /// All that is wrong with it, in source order.
    pub found: Diagnostics,
    /// Codes of errors in pipelines that may only follow from those here: a connection that is not known may be one that could not be read.
    pub follow_on: Vec<&'static str>,
}

/// What `SELECT` finds under these names is not a connection.
const CATALOGUES: [&str; 3] = ["lake", "quarantine", "call"];

pub(crate) const KEYS: [&str; 7] = ["connection", "lake", "memory", "quarantine", "state", "server", "alert"];

impl Project {
    /// A project without `weir.toml`.
    pub fn bare(root: PathBuf) -> Self {
        Self {
            file: None,
            root,
            connections: IndexMap::new(),
            lake_path: ".weir/lake".into(),
            memory_limit_bytes: None,
            quarantine_keep: None,
            state: None,
            server: Server::default(),
            alerts: Vec::new(),
            profiles: Vec::new(),
            profile: None,
        }
    }

    /// Reads `weir.toml`. `profile` names the `[profile.NAME]` table laid over it. Profiles that are not chosen are checked too.
    pub fn parse(file: Arc<SourceFile>, root: PathBuf, profile: Option<&str>) -> Result<Self, Diagnostics> {
        let PartialProject { project, found, .. } = Self::parse_partial(file, root, profile);
        if found.is_empty() { Ok(project) } else { Err(found) }
    }

    /// Reads `weir.toml` as [`Self::parse`] does, and hands on what is whole of a wrong one too.
    pub fn parse_partial(file: Arc<SourceFile>, root: PathBuf, profile: Option<&str>) -> PartialProject {
        let mut document = Document::new(file.clone());
        document.profile = profile.map(str::to_owned);
        let document = Arc::new(document);
        // What is wrong is said of the text as written, each part once; what holds is read with the profile laid over it.
        let plain = Arc::new(Document::new(file.clone()));
        let (written, syntax) = plain.root();
        let mut walk = Walk::new(&plain);
        let profiles = check(&mut walk, &written);
        if let Some(profile) = profile
            && !profiles.iter().any(|known| known == profile)
        {
            let known: Vec<&str> = profiles.iter().map(String::as_str).collect();
            let mut found = Diagnostic::error("unknown-profile", format!("no profile \"{profile}\" in {}", file.path));
            suggest(&mut found, profile, &known);
            found.help.push(match known.as_slice() {
                [] => format!("add a table such as [profile.{profile}.lake]"),
                known => format!("profiles are: {}", known.join(", ")),
            });
            walk.found.push(found);
        }
        let (merged, _) = document.root();
        let mut project = Self { file: Some(file.clone()), profiles, profile: profile.map(str::to_owned), ..Self::bare(root) };
        if let Some(path) = value(&merged, "lake", "path").and_then(DeValue::as_str) {
            project.lake_path = path.to_owned();
        }
        project.memory_limit_bytes = value(&merged, "memory", "limit").and_then(|limit| size(limit).ok());
        project.quarantine_keep = value(&merged, "quarantine", "keep").and_then(|keep| age(keep).ok());
        if let Some(DeValue::Table(connections)) = merged.get("connection").map(toml::Spanned::get_ref) {
            for (name, value) in in_order(connections) {
                let DeValue::Table(kinds) = value.get_ref() else { continue };
                for (kind, value) in in_order(kinds) {
                    let path = vec!["connection".into(), name.value.clone(), kind.value.clone()];
                    let settings = Settings::new(&document, path, kind, value.span());
                    project.connections.insert(name.value.clone(), Connection { settings });
                }
            }
        }
        if let Some((key, state)) = merged.get_key_value("state").filter(|(_, state)| state.get_ref().is_table()) {
            let kind = Spanned { value: "state".to_owned(), span: key.span() };
            project.state = Some(Settings::new(&document, vec!["state".into()], kind, state.span()));
        }
        // What is wrong with a part has been said of it; here it is what the parts come to.
        let mut whole = Walk::new(&document);
        if let Some(value) = merged.get("server") {
            project.server = server::server(&mut whole, value);
            whole.found.clear();
            if let Some(entries) = value.get_ref().as_table() {
                server::check_server(&mut whole, entries, &project.server, project.connections.iter());
            }
        }
        if let Some(DeValue::Table(alerts)) = merged.get("alert").map(toml::Spanned::get_ref) {
            for (name, value) in in_order(alerts) {
                let entries = value.get_ref().as_table();
                project.alerts.extend(entries.and_then(|entries| server::alert(&document, &name, entries)));
            }
        }
        walk.found.append(&mut whole.found);
        let mut follow_on = Vec::new();
        let is_chosen = profile.is_none_or(|profile| project.profiles.iter().any(|known| known == profile));
        if !syntax.is_empty() || !is_chosen || !are_names_known(&merged) {
            follow_on.extend(["unknown-connection", "unknown-profile"]);
        }
        let mut found = after_syntax(walk.found, syntax_errors(&file, &syntax));
        if merged.contains_key("lake") && value(&merged, "lake", "path").is_none_or(|path| !path.is_str()) {
            follow_on.push("unknown-table");
        }
        sort(&mut found);
        PartialProject { project, found, follow_on }
    }
}

/// False where a table of connections or profiles may stand under a name that is not read.
fn are_names_known(root: &DeTable<'_>) -> bool {
    let is_known = |key: &str| KEYS.contains(&key) || key == "profile";
    let table = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().is_table();
    let has_kind = |connection: &toml::Spanned<DeValue<'_>>| connection.get_ref().as_table().is_some_and(|kinds| kinds.values().any(table));
    let are_connections = match root.get("connection").map(toml::Spanned::get_ref) {
        Some(DeValue::Table(connections)) => connections.values().all(has_kind),
        connections => connections.is_none(),
    };
    root.keys().all(|key| is_known(key.get_ref())) && are_connections && root.get("profile").is_none_or(table)
}

fn value<'t, 'i>(root: &'t DeTable<'i>, table: &str, key: &str) -> Option<&'t DeValue<'i>> {
    root.get(table)?.get_ref().as_table()?.get(key).map(toml::Spanned::get_ref)
}

fn size(value: &DeValue<'_>) -> Result<u64, String> {
    let bytes = match value {
        DeValue::String(text) => units::size_bytes(text)?,
        DeValue::Integer(number) => integer(number).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        other => return Err(format!("expected a size such as \"2GB\" for \"limit\", found {}", crate::parse::walk::type_name(other))),
    };
    if bytes == 0 { Err("\"limit\" must be more than nothing".into()) } else { Ok(bytes) }
}

fn age(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::String(text) => units::duration(text),
        other => Err(format!("expected a duration such as \"90d\" for \"keep\", found {}", crate::parse::walk::type_name(other))),
    }
}

/// Checks the whole file and returns the names of its profiles.
fn check(walk: &mut Walk<'_>, root: &DeTable<'_>) -> Vec<String> {
    let start = 0..0;
    let known: Vec<&str> = KEYS.into_iter().chain(["profile"]).collect();
    walk.unknown_keys(Table { entries: root, what: "weir.toml", span: &start }, &known);
    check_shared(walk, root, None);
    let Some(value) = root.get("profile") else { return vec![] };
    let Some(profiles) = walk.as_table("profile", value) else { return vec![] };
    let mut names = Vec::new();
    for (name, value) in in_order(profiles) {
        check_name(walk, &name, "a profile");
        if let Some(profile) = walk.as_table(&name.value, value) {
            let what = format!("profile \"{}\"", name.value);
            walk.unknown_keys(Table { entries: profile, what: &what, span: &name.span }, &KEYS);
            check_shared(walk, profile, Some(root));
        }
        names.push(name.value);
    }
    names
}

fn check_name(walk: &mut Walk<'_>, name: &Spanned<String>, what: &str) {
    if !is_name(&name.value, false) {
        let message = format!("\"{}\" cannot be the name of {what}", name.value);
        walk.error("bad-name", message, name.span.clone(), "").help.push("a name has letters, digits, \"_\" and \"-\"".into());
    }
}

/// Checks what both the root and a profile may hold; a profile is laid over `base`.
fn check_shared(walk: &mut Walk<'_>, root: &DeTable<'_>, base: Option<&DeTable<'_>>) {
    if let Some(value) = root.get("connection")
        && let Some(connections) = walk.as_table("connection", value)
    {
        for (name, value) in in_order(connections) {
            check_name(walk, &name, "a connection");
            if CATALOGUES.contains(&name.value.as_str()) {
                let message = format!("\"{}\" cannot be the name of a connection: SQL calls something else so", name.value);
                walk.error("bad-name", message, name.span.clone(), "").help.push("give the connection another name".into());
            }
            if let Some(connection) = walk.as_table(&name.value, value) {
                check_connection(walk, &name, connection);
            }
        }
    }
    for (key, known) in [("lake", "path"), ("memory", "limit"), ("quarantine", "keep")] {
        let Some(value) = root.get(key) else { continue };
        let span = value.span();
        let Some(entries) = walk.as_table(key, value) else { continue };
        let what = format!("[{key}]");
        let table = Table { entries, what: &what, span: &span };
        walk.unknown_keys(table, &[known]);
        if known == "path" && entries.contains_key("path") {
            walk.required(table, "path", "");
        }
        if let Some(limit) = entries.get("limit").filter(|_| known == "limit")
            && let Err(message) = size(limit.get_ref())
        {
            walk.error("bad-size", message, limit.span(), "");
        }
        if let Some(keep) = entries.get("keep").filter(|_| known == "keep")
            && let Err(message) = age(keep.get_ref())
        {
            walk.error("bad-duration", message, keep.span(), "");
        }
    }
    if let Some(value) = root.get("state") {
        // Its keys are checked by who reads them, as a connection's are.
        walk.as_table("state", value);
    }
    if let Some(value) = root.get("server") {
        server::server(walk, value);
    }
    if let Some(value) = root.get("alert")
        && let Some(alerts) = walk.as_table("alert", value)
    {
        for (name, value) in in_order(alerts) {
            check_name(walk, &name, "an alert");
            let is_part = base.and_then(|base| self::value(base, "alert", &name.value)).is_some();
            if let Some(entries) = walk.as_table(&name.value, value) {
                server::check_alert(walk, &name, entries, is_part);
            }
        }
    }
}

fn check_connection(walk: &mut Walk<'_>, name: &Spanned<String>, connection: &DeTable<'_>) {
    let mut kinds: Vec<Spanned<String>> = Vec::new();
    let mut doubtful = false;
    for (key, value) in in_order(connection) {
        if value.get_ref().is_table() {
            kinds.push(key);
        } else {
            doubtful = true;
            let message = format!("connection \"{}\" has no key \"{}\"", name.value, key.value);
            walk.error("unknown-key", message, key.span, "not a kind")
                .help
                .push(format!("a connection's settings stand under its kind, for instance [connection.{}.postgres]", name.value));
        }
    }
    match kinds.as_slice() {
        [] if !doubtful => {
            let message = format!("connection \"{}\" does not say its kind", name.value);
            walk.error("missing-kind", message, name.span.clone(), "")
                .help
                .push(format!("add a table such as [connection.{}.postgres]", name.value));
        }
        [first, second, ..] => {
            let message = format!("connection \"{}\" is of two kinds, \"{}\" and \"{}\"", name.value, first.value, second.value);
            let file = walk.file().clone();
            let found = Diagnostic::error("two-kinds", message)
                .at(&file, second.span.clone(), "second")
                .at(&file, first.span.clone(), "first")
                .help("make it two connections");
            walk.found.push(found);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::golden::{check, render};

    const TEXT: &str = r#"
[connection.warehouse.postgres]
url = { env = "WAREHOUSE_URL" }
pool_max = 8
[connection.olap.clickhouse]
url = "http://127.0.0.1:8123"
[lake]
path = "lake"
[memory]
limit = "2GB"
[server]
listen = "127.0.0.1:8080"
connection_runs_max = { warehouse = 2 }
[server.sql]
postgres = "127.0.0.1:5484"
limits = { rows = 100, time = "none" }
user.ann = { rows = 200 }
[alert.ops]
repeat = "1h"
[alert.ops.webhook]
url = { env = "OPS_URL" }
[profile.prod.lake]
path = "s3://company-lake/weir"
[profile.prod.connection.warehouse.postgres]
url = { file = "/run/secrets/url" }
[profile.prod.connection.olap.postgres]
url = "postgres://olap"
[profile.prod.connection.new.http]
[profile.prod.server]
listen = "0.0.0.0:8080"
expose = true
[profile.prod.server.sql.limits]
bytes = "1MB"
[profile.prod.server.tls]
certificate = "server.pem"
key = { env = "KEY" }
[profile.prod.alert.ops]
on = ["failed"]
[profile.prod.alert.ops.slack]
url = { env = "SLACK_URL" }
[profile.small]
memory.limit = 1048576
"#;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Postgres {
        url: toml::Value,
        pool_max: Option<u32>,
    }

    fn project(profile: Option<&str>) -> Result<Project, Diagnostics> {
        Project::parse(SourceFile::new("weir.toml", TEXT), "/project".into(), profile)
    }

    fn kinds(project: &Project) -> Vec<String> {
        project.connections.iter().map(|(name, connection)| format!("{name}: {}", connection.settings.kind.value)).collect()
    }

    #[test]
    fn a_project_is_read() {
        let project = project(None).expect("right");
        assert_eq!((project.lake_path.as_str(), project.memory_limit_bytes), ("lake", Some(2_000_000_000)));
        assert_eq!(project.profiles, ["prod", "small"]);
        assert_eq!(kinds(&project), ["warehouse: postgres", "olap: clickhouse"]);
        let settings: Postgres = project.connections["warehouse"].settings.read().expect("right");
        assert_eq!(settings.url.to_string(), r#"{ env = "WAREHOUSE_URL" }"#, "values stay unresolved");
    }

    #[test]
    fn a_profile_is_laid_over_it_and_secrets_are_replaced_whole() {
        let prod = project(Some("prod")).expect("right");
        assert_eq!((prod.lake_path.as_str(), prod.memory_limit_bytes), ("s3://company-lake/weir", Some(2_000_000_000)));
        assert_eq!(kinds(&prod), ["warehouse: postgres", "olap: postgres", "new: http"]);
        let settings: Postgres = prod.connections["warehouse"].settings.read().expect("right");
        assert_eq!((settings.url.to_string().as_str(), settings.pool_max), (r#"{ file = "/run/secrets/url" }"#, Some(8)));
        assert_eq!(project(Some("small")).expect("right").memory_limit_bytes, Some(1 << 20));
    }

    #[test]
    fn a_server_and_its_alerts_are_read_with_the_profile_laid_over_them() {
        let plain = project(None).expect("right");
        assert_eq!(plain.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(plain.server.connection_runs_max.get("warehouse"), Some(&2));
        assert_eq!((plain.server.runs_max, plain.server.expose, plain.server.log), (4, false, None));
        let [ops] = plain.alerts.as_slice() else { panic!("{:?}", plain.alerts) };
        assert_eq!((ops.name.as_str(), ops.settings.kind.value.as_str(), ops.on.len()), ("ops", "webhook", 6));
        assert_eq!((ops.repeat, ops.group), (Some(Duration::from_secs(3600)), None));
        let prod = project(Some("prod")).expect("right");
        assert_eq!((prod.server.listen.to_string().as_str(), prod.server.expose), ("0.0.0.0:8080", true));
        let [ops] = prod.alerts.as_slice() else { panic!("{:?}", prod.alerts) };
        assert_eq!((ops.settings.kind.value.as_str(), ops.on.as_slice()), ("slack", [crate::Cause::Failed].as_slice()));
        assert_eq!(ops.settings.entries().keys().collect::<Vec<_>>(), ["url"], "another kind takes the place of the first");
        assert_eq!(ops.repeat, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn limits_of_queries_are_those_of_the_user_over_those_of_all_over_the_defaults() {
        let limits = |profile: Option<&str>, user: &str| project(profile).expect("right").server.sql.limits_of(user);
        let default = crate::QueryLimits::default();
        assert_eq!(limits(None, "bob"), crate::QueryLimits { rows: Some(100), time: None, ..default });
        assert_eq!(limits(None, "ann"), crate::QueryLimits { rows: Some(200), time: None, ..default });
        assert_eq!(limits(Some("prod"), "ann"), crate::QueryLimits { rows: Some(200), time: None, bytes: Some(1_000_000), ..default });
        let prod = project(Some("prod")).expect("right").server;
        assert_eq!((prod.sql.postgres.map(|address| address.to_string()).as_deref(), prod.sql.flight), (Some("127.0.0.1:5484"), None));
        let tls = prod.tls.expect("a table");
        assert_eq!(
            tls.entries().into_iter().collect::<Vec<_>>(),
            [("certificate".to_owned(), "\"server.pem\"".to_owned()), ("key".to_owned(), "{ env = \"KEY\" }".to_owned()),]
        );
        assert!(project(None).expect("right").server.tls.is_none());
    }

    #[test]
    fn a_profile_that_is_not_there_is_told() {
        let found = project(Some("prd")).expect_err("wrong");
        assert_eq!(
            render(&found),
            "error[unknown-profile]: no profile \"prd\" in weir.toml\n  = help: did you mean \"prod\"?\n  = help: profiles are: prod, small\n"
        );
        let found = Project::parse(SourceFile::new("weir.toml", ""), "/".into(), Some("a")).expect_err("wrong");
        assert_eq!(
            render(&found),
            "error[unknown-profile]: no profile \"a\" in weir.toml\n  = help: add a table such as [profile.a.lake]\n"
        );
    }

    #[test]
    fn an_empty_file_is_a_bare_project() {
        let project = Project::parse(SourceFile::new("weir.toml", ""), "/".into(), None).expect("right");
        assert_eq!((project.lake_path.as_str(), project.memory_limit_bytes, project.connections.len()), (".weir/lake", None, 0));
    }

    #[test]
    fn every_mistake_has_its_words() {
        check("golden/project.txt", |text| match Project::parse(SourceFile::new("weir.toml", text), "/".into(), None) {
            Ok(_) => "right\n".into(),
            Err(found) => render(&found),
        });
    }
}
