//! The JSON Schema of `weir.toml`.

use serde_json::{Map, Value, json};

use super::{KindSchema, add_kind, duration, kind_keys, merge, named, table, written};
use crate::{parse::server::LOGS, server::Cause};

/// Builds the JSON Schema (draft 2020-12) of `weir.toml`, with the settings of these kinds of connection and of alert in it.
pub fn project_schema(connections: &[KindSchema], alerts: &[KindSchema]) -> Value {
    let mut defs = Map::new();
    defs.insert("duration".into(), super::duration_text());
    for kind in connections {
        add_kind(&mut defs, "connection", kind);
        add_kind(&mut defs, "overlay", &KindSchema { settings: partial(kind.settings.clone()), ..kind.clone() });
    }
    for kind in alerts {
        add_kind(&mut defs, "alert", kind);
        add_kind(&mut defs, "alert_overlay", &KindSchema { settings: partial(kind.settings.clone()), ..kind.clone() });
    }
    defs.insert("connection".into(), connection("connection", connections));
    defs.insert("overlay".into(), connection("overlay", connections));
    let kinds: Vec<Value> = alerts.iter().map(|kind| json!({ "required": [kind.kind] })).collect();
    let mut whole = alert("alert", alerts);
    merge(&mut whole, json!({ "oneOf": kinds }));
    defs.insert("alert".into(), whole);
    defs.insert("alert_overlay".into(), alert("alert_overlay", alerts));
    let about = "Laid over the settings above by `--profile NAME`: what it names takes their place.";
    defs.insert("profile".into(), table(about, shared("overlay", "alert_overlay"), &[]));
    let mut properties = shared("connection", "alert");
    merge(
        &mut properties,
        json!({ "profile": named("profile", "Settings for a place to run, by name: [profile.NAME.lake], [profile.NAME.connection.NAME.KIND].") }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Weir project",
        "description": "What the pipelines of a project share. Everything is optional; the file also marks the project's root.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "$defs": defs,
    })
}

/// What both the root and a profile may hold.
fn shared(connection: &str, alert: &str) -> Value {
    let size = json!({
        "description": "What all runs of a process may hold, such as \"2GB\" or a number of bytes; larger sorts and joins spill to disk. Default half of the machine or of the cgroup.",
        "anyOf": [{ "type": "string", "pattern": "^[0-9]" }, { "type": "integer", "minimum": 1 }],
    });
    json!({
        "connection": named(connection, "Servers that steps name: one table per connection, [connection.NAME.KIND]."),
        "lake": table(
            "The embedded Delta Lake.",
            json!({ "path": { "type": "string", "default": ".weir/lake", "description": "A folder, relative to this file, or s3://bucket/folder." } }),
            &[],
        ),
        "memory": table("Bounds on memory.", json!({ "limit": size }), &[]),
        "quarantine": table(
            "Rows that broke their contract.",
            json!({ "keep": duration("How long rows that were mended or discarded are kept. Default until they are purged.") }),
            &[],
        ),
        "state": state(),
        "server": server(),
        "alert": named(alert, "Whom `weir serve` tells what: one table per alert, [alert.NAME], with its kind below it, [alert.NAME.KIND]."),
    })
}

fn server() -> Value {
    let runs = |default: Option<u32>, description: &str| {
        let mut runs = json!({ "type": "integer", "minimum": 1, "maximum": 1024, "description": description });
        if let Some(default) = default {
            merge(&mut runs, json!({ "default": default }));
        }
        runs
    };
    table(
        "What `weir serve` does.",
        json!({
            "listen": { "type": "string", "default": "127.0.0.1:8484", "description": "Where the HTTP port is: an IP address and a port. Port 0 takes a free one." },
            "expose": { "type": "boolean", "default": false, "description": "Whether `listen` may be an address that other machines reach." },
            "runs_max": runs(Some(4), "Runs at once in one process."),
            "connection_runs_max": { "type": "object", "description": "Runs at once of pipelines that use a connection, by its name.", "additionalProperties": runs(None, "Runs at once.") },
            "otlp": { "type": "string", "pattern": "^https?://", "description": "The base URL of an OTLP receiver over HTTP, to which traces and metrics go. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says." },
            "log": { "enum": written(&LOGS), "description": "The form of log lines. Default text on a terminal, else json." },
        }),
        &[],
    )
}

/// An alert: what it tells and whom, by exactly one kind.
fn alert(role: &str, kinds: &[KindSchema]) -> Value {
    let causes = Cause::ALL.map(Cause::as_str);
    let mut alert = table(
        "Whom to tell what.",
        json!({
            "on": {
                "type": "array", "minItems": 1, "uniqueItems": true,
                "items": { "enum": causes },
                "description": "What is told: a run that failed for good, one that is late, one that loaded no rows, one that rejected too many, a file that is wrong, and that one of these is over. Default all.",
            },
            "pipelines": {
                "type": "array", "minItems": 1, "items": { "type": "string", "pattern": "^[A-Za-z0-9_*-]+$" },
                "description": "Names of the pipelines it is about; * stands for any letters. Default all.",
            },
            "repeat": duration("How long until what still stands is told again. Default 4h; 1m for alertmanager, which repeats by its own rules."),
            "group": duration("How long the first of several waits, so that they are told together. Default 30s; 0s for alertmanager."),
            "max_rejected": {
                "description": "More rejected rows than this in a run are told: a number, or a share of the rows read such as \"1%\". Default 0.",
                "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^\\d+(\\.\\d+)?\\s*%$|^\\d+$" }],
            },
        }),
        &[],
    );
    if let Some(properties) = alert.get_mut("properties") {
        merge(properties, kind_keys(role, kinds));
    }
    alert
}

fn state() -> Value {
    let place =
        |key: &str, of: Value| json!({ "type": "object", "properties": { key: of }, "required": [key], "additionalProperties": false });
    let words = json!({
        "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "What writes it to its standard output: a program and its arguments. No shell is involved.",
    });
    let text = |description: &str| json!({ "type": "string", "description": description });
    table(
        "Where the run history is kept in place of the SQLite file .weir/state.db, which one server can use.",
        json!({
            "url": {
                "description": "A Postgres database, postgres://user:password@host:5432/database, best as { env = \"WEIR_STATE_URL\" }. Several servers may share it.",
                "anyOf": [
                    { "type": "string" },
                    place("env", text("The environment variable that holds it.")),
                    place("file", text("The file that holds it. Relative paths start from the project's folder.")),
                    place("command", words),
                ],
            },
            "schema": { "type": "string", "default": "weir", "description": "The schema that its tables are in; it is made where it is missing." },
        }),
        &["url"],
    )
}

/// A connection: exactly one kind.
fn connection(role: &str, kinds: &[KindSchema]) -> Value {
    let mut connection = table("A server that steps name.", kind_keys(role, kinds), &[]);
    let required: Vec<Value> = kinds.iter().map(|kind| json!({ "required": [kind.kind] })).collect();
    merge(&mut connection, json!({ "oneOf": required }));
    connection
}

/// Settings of which each may stand elsewhere: a profile's are laid over others.
fn partial(mut settings: Value) -> Value {
    if let Value::Object(settings) = &mut settings {
        settings.remove("required");
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        parse::server::{ALERT_KEYS, SERVER_KEYS},
        project::KEYS,
    };

    #[test]
    fn the_schema_has_every_key_that_the_parser_knows_and_no_other() {
        let settings = json!({ "type": "object", "properties": { "url": { "type": "string" } }, "required": ["url"] });
        let kind = |kind: &str| KindSchema { kind: kind.into(), summary: "A server.".into(), settings: settings.clone() };
        let schema = project_schema(&[kind("postgres")], &[kind("webhook")]);
        let keys = |table: &Value| {
            let mut keys: Vec<String> = table["properties"].as_object().expect("a table").keys().cloned().collect();
            keys.sort();
            keys
        };
        let mut known = KEYS.map(str::to_owned).to_vec();
        known.sort();
        assert_eq!(keys(&schema["$defs"]["profile"]), known);
        known.push("profile".into());
        known.sort();
        assert_eq!(keys(&schema), known);
        assert_eq!(schema["$defs"]["connection-postgres"]["required"][0], "url");
        assert!(schema["$defs"]["overlay-postgres"].get("required").is_none(), "a profile may name a part");
        assert_eq!(schema["$defs"]["alert"]["oneOf"][0]["required"][0], "webhook");
        assert!(
            schema["$defs"]["alert_overlay"].get("oneOf").is_none() && schema["$defs"]["alert_overlay-webhook"].get("required").is_none()
        );
        let sorted = |known: &[&str]| {
            let mut known: Vec<String> = known.iter().map(|&key| key.to_owned()).collect();
            known.sort();
            known
        };
        assert_eq!(keys(&schema["properties"]["server"]), sorted(&SERVER_KEYS));
        assert_eq!(keys(&schema["$defs"]["alert"]), sorted(&[ALERT_KEYS.as_slice(), &["webhook"]].concat()));
    }
}
