//! The JSON Schema of `weir.toml`.

use serde_json::{Map, Value, json};

use super::{KindSchema, add_kind, duration, kind_keys, merge, named, table};

/// Builds the JSON Schema (draft 2020-12) of `weir.toml`, with the settings of these kinds of connection in it.
pub fn project_schema(connections: &[KindSchema]) -> Value {
    let mut defs = Map::new();
    defs.insert("duration".into(), super::duration_text());
    for kind in connections {
        add_kind(&mut defs, "connection", kind);
        add_kind(&mut defs, "overlay", &KindSchema { settings: partial(kind.settings.clone()), ..kind.clone() });
    }
    defs.insert("connection".into(), connection("connection", connections));
    defs.insert("overlay".into(), connection("overlay", connections));
    let profile = table("Laid over the settings above by `--profile NAME`: what it names takes their place.", shared("overlay"), &[]);
    defs.insert("profile".into(), profile);
    let mut properties = shared("connection");
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
fn shared(connection: &str) -> Value {
    let size = json!({
        "description": "What all runs of a process may hold, such as \"2GB\" or a number of bytes; larger sorts and joins spill to disk. Default half of the machine or of the cgroup.",
        "anyOf": [{ "type": "string", "pattern": "^[0-9]" }, { "type": "integer", "minimum": 1 }],
    });
    // What their keys are is for those who read them.
    let open = |description: &str| json!({ "type": "object", "description": description, "additionalProperties": true });
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
        "server": open("The server; its keys are not read yet."),
        "alert": { "type": "object", "description": "Alerts by name, [alert.NAME]; not read yet.", "additionalProperties": open("An alert.") },
    })
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
    use crate::project::KEYS;

    #[test]
    fn the_schema_has_every_key_that_the_parser_knows_and_no_other() {
        let settings = json!({ "type": "object", "properties": { "url": { "type": "string" } }, "required": ["url"] });
        let schema = project_schema(&[KindSchema { kind: "postgres".into(), summary: "A server.".into(), settings }]);
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
    }
}
