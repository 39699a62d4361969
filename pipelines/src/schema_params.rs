//! Where in the JSON Schema of a pipeline file may `{ param = "name" }` stand? In the place of any value that is no table.

use serde_json::{Map, Value, json};

/// What holds code, or is no value of a setting.
const NOT_HERE: [&str; 6] = ["sql", "filter", "of", "query", "cast", "rename"];
/// Definitions whose tables hold settings.
const SETTINGS: [&str; 6] = ["source", "transform", "sink", "schedule", "trigger", "expectation"];

/// Lets a parameter stand for each value of a setting.
pub(crate) fn allow(defs: &mut Map<String, Value>) {
    let known = Value::Object(defs.clone());
    for (name, definition) in defs.iter_mut() {
        let is_kind = name.starts_with("source-") || name.starts_with("sink-");
        if is_kind || SETTINGS.contains(&name.as_str()) {
            tables(definition, &known);
        }
    }
    let name = json!({ "type": "string", "description": "The parameter's name." });
    let parameter = json!({
        "type": "object",
        "description": "The value of a parameter of [params].",
        "properties": { "param": name },
        "required": ["param"],
        "additionalProperties": false,
    });
    defs.insert("parameter".into(), parameter);
}

fn tables(schema: &mut Value, known: &Value) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::Object(properties) if key == "properties" => {
                        for (name, property) in properties {
                            if NOT_HERE.contains(&name.as_str()) {
                                continue;
                            }
                            tables(property, known);
                            if is_value(property, known) {
                                widen(property);
                            }
                        }
                    }
                    other if key != "if" => tables(other, known),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| tables(item, known)),
        _ => {}
    }
}

/// Whether a schema is of values and lists alone.
fn is_value(schema: &Value, known: &Value) -> bool {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix("#/$defs").and_then(|pointer| known.pointer(pointer));
        return target.is_some_and(|target| is_value(target, known));
    }
    let of = |types: &Value| {
        !types.as_str().into_iter().chain(types.as_array().into_iter().flatten().filter_map(Value::as_str)).any(|word| word == "object")
    };
    let alternatives = ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    let all = alternatives.clone().all(|one| is_value(one, known));
    match schema.get("type") {
        Some(types) => of(types) && all,
        None => (schema.get("enum").is_some() || schema.get("const").is_some() || alternatives.count() > 0) && all,
    }
}

fn widen(property: &mut Value) {
    let mut written = property.take();
    let mut wide = json!({});
    for key in ["description", "default"] {
        if let Some(said) = written.as_object_mut().and_then(|entries| entries.remove(key)) {
            wide[key] = said;
        }
    }
    wide["anyOf"] = json!([written, { "$ref": "#/$defs/parameter" }]);
    *property = wide;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{KindSchema, pipeline_schema};

    #[test]
    fn a_parameter_may_stand_for_a_value_and_for_no_table_or_code() {
        let settings = json!({
            "type": "object",
            "properties": {
                "path": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }], "description": "Where." },
                "format": { "$ref": "#/$defs/Format" },
                "csv": { "$ref": "#/$defs/Csv" },
                "query": { "type": ["string", "null"] },
            },
            "$defs": {
                "Format": { "enum": ["csv", "json"] },
                "Csv": { "type": "object", "properties": { "delimiter": { "type": "string" } }, "additionalProperties": false },
            },
        });
        let file = KindSchema { kind: "file".into(), summary: "Files.".into(), settings };
        let schema = pipeline_schema(std::slice::from_ref(&file), std::slice::from_ref(&file));
        let takes = |pointer: &str| {
            let found = schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
            found["anyOf"].as_array().is_some_and(|all| all.contains(&json!({ "$ref": "#/$defs/parameter" })))
        };
        for pointer in [
            "source-file/properties/path",
            "source-file/properties/format",
            "source-file/$defs/Csv/properties/delimiter",
            "source/properties/contract",
            "source/properties/max_invalid",
            "sink/properties/mode",
            "sink/properties/key",
            "schedule/properties/every",
            "expectation/properties/accepted_values/properties/values",
        ] {
            assert!(takes(&format!("/$defs/{pointer}")), "{pointer}");
        }
        for pointer in [
            "source-file/properties/csv",
            "source-file/properties/query",
            "source/properties/file",
            "transform/properties/sql",
            "transform/properties/cast",
            "transform/properties/deduplicate",
            "expectation/properties/change/properties/of",
            "test/properties/name",
        ] {
            assert!(!takes(&format!("/$defs/{pointer}")), "{pointer}");
        }
        assert_eq!(schema["$defs"]["source-file"]["properties"]["path"]["description"], "Where.");
    }
}
