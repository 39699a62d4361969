//! The JSON Schema of `weir.toml`.

use serde_json::{Map, Value, json};

use super::{KindSchema, add_kind, duration, kind_keys, merge, named, table, written};
use crate::{
    parse::{doors::NONE, server::LOGS},
    server::Cause,
};

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

/// A size, in words or as a number of bytes.
fn size(description: &str) -> Value {
    json!({
        "description": format!("{description} Written as \"256MB\", \"2GB\", \"1GiB\" or a number of bytes."),
        "anyOf": [{ "type": "string", "pattern": "^[0-9]" }, { "type": "integer", "minimum": 1 }],
    })
}

/// A limit that may be `"none"`.
fn limit(mut of: Value, description: &str, default: &Value) -> Value {
    if let Value::Object(of) = &mut of {
        of.remove("description");
    }
    json!({ "description": description, "default": default, "anyOf": [of, { "const": NONE }] })
}

/// `[server.sql]`.
fn sql(at_once: &dyn Fn(Option<u32>, &str) -> Value) -> Value {
    let limits = |about: &str| {
        table(
            about,
            json!({
                "rows": limit(json!({ "type": "integer", "minimum": 1 }), "Rows of an answer, or \"none\".", &json!(10_000_000)),
                "bytes": limit(size(""), "Bytes of an answer as Arrow holds them, such as \"4GB\", or \"none\".", &json!("4GB")),
                "time": limit(json!({ "$ref": "#/$defs/duration" }), "From a query's start to its last row, such as \"5m\", or \"none\".", &json!("5m")),
                "memory": limit(size(""), "What a query may hold in memory, such as \"1GB\", or \"none\".", &json!("1GB")),
                "queries": at_once(Some(4), "Queries at once, of one user; others wait."),
                "wait": duration("How long a query waits for its turn. Default 30s; 0s refuses it at once."),
            }),
            &[],
        )
    };
    let address = |description: &str| json!({ "type": "string", "description": description });
    table(
        "How `weir serve` answers SQL.",
        json!({
            "postgres": address("Where the port is that speaks Postgres's protocol, such as \"127.0.0.1:5484\". Default: there is none."),
            "flight": address("Where the port of Arrow Flight SQL is, such as \"127.0.0.1:8485\". Default: there is none."),
            "queries_max": at_once(Some(8), "Queries at once, of all users; others wait, those of each user in turn."),
            "memory": size("What all queries may hold in memory together. Default half of [memory] limit."),
            "limits": limits("What each query of each user may cost."),
            "user": {
                "type": "object",
                "description": "The same limits for single users, by the names of their tokens: [server.sql.user.NAME]. What is not said is as in [server.sql.limits].",
                "additionalProperties": limits("What the queries of this user may cost."),
            },
        }),
        &[],
    )
}

/// `[server.tls]`. A profile may hold a part of it, so nothing is required here.
fn tls() -> Value {
    let path = |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
    table(
        "The certificate of all ports of `weir serve`. They speak TLS 1.3 then, and nothing else.",
        json!({
            "certificate": path("The certificate and those between it and its authority, as PEM. Relative paths start from the project's folder."),
            "key": secret("The certificate's private key as PEM, best as { file = \"server.key\" }. It may not be encrypted."),
            "client_ca": path("Certificates of authorities, as PEM: clients must show a certificate of one of them then."),
        }),
        &[],
    )
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
            "expose": { "type": "boolean", "default": false, "description": "Whether `listen`, and the addresses of `sql`, may be such that other machines reach." },
            "runs_max": runs(Some(4), "Runs at once in one process."),
            "connection_runs_max": { "type": "object", "description": "Runs at once of pipelines that use a connection, by its name.", "additionalProperties": runs(None, "Runs at once.") },
            "otlp": { "type": "string", "pattern": "^https?://", "description": "The base URL of an OTLP receiver over HTTP, to which traces and metrics go. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says." },
            "log": { "enum": written(&LOGS), "description": "The form of log lines. Default text on a terminal, else json." },
            "sql": sql(&runs),
            "tls": tls(),
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

/// A text, or where to fetch it.
fn secret(description: &str) -> Value {
    let place =
        |key: &str, of: Value| json!({ "type": "object", "properties": { key: of }, "required": [key], "additionalProperties": false });
    let words = json!({
        "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "What writes it to its standard output: a program and its arguments. No shell is involved.",
    });
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "description": description,
        "anyOf": [
            { "type": "string" },
            place("env", text("The environment variable that holds it.")),
            place("file", text("The file that holds it. Relative paths start from the project's folder.")),
            place("command", words),
        ],
    })
}

fn state() -> Value {
    table(
        "Where the run history is kept in place of the SQLite file .weir/state.db, which one server can use.",
        json!({
            "url": secret("A Postgres database, postgres://user:password@host:5432/database, best as { env = \"WEIR_STATE_URL\" }. Several servers may share it."),
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
        parse::{
            doors::{LIMIT_KEYS, SQL_KEYS, TLS_KEYS},
            server::{ALERT_KEYS, SERVER_KEYS},
        },
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
        let server = &schema["properties"]["server"];
        assert_eq!(keys(server), sorted(&SERVER_KEYS));
        let sql = &server["properties"]["sql"];
        assert_eq!(keys(sql), sorted(&SQL_KEYS));
        assert_eq!(keys(&sql["properties"]["limits"]), sorted(&LIMIT_KEYS));
        assert_eq!(keys(&sql["properties"]["user"]["additionalProperties"]), sorted(&LIMIT_KEYS));
        assert_eq!(keys(&server["properties"]["tls"]), sorted(&TLS_KEYS));
        assert_eq!(keys(&schema["$defs"]["alert"]), sorted(&[ALERT_KEYS.as_slice(), &["webhook"]].concat()));
    }
}
