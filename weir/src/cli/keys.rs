//! docs/reference/{pipeline,project}.md: every key of the two files a person writes, from their JSON Schemas.

use serde_json::{Map, Value};

use super::pages::{Setting, markdown_table, resolve, settings_of};

/// What the prefix of a kind's definition says: its page stands in connectors/.
const ROLES: [&str; 4] = ["source", "sink", "connection", "overlay"];

/// A page with a section for the file itself and one for each of its tables.
pub fn page(title: &str, about: &str, schema: &Value) -> String {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let (mut own, mut sections) = (Map::new(), String::new());
    for (key, value) in &properties {
        let Some((heading, table)) = section(schema, key, value) else {
            own.insert(key.clone(), value.clone());
            continue;
        };
        let said = value.get("description").or_else(|| table.get("description")).and_then(Value::as_str).unwrap_or_default();
        let (settings, kinds) = keys(schema, table);
        sections.push_str(&format!("\n## `{heading}`\n\n{said}\n"));
        if !settings.is_empty() {
            sections.push_str(&format!("\n{}", markdown_table("key", &settings)));
        }
        if !kinds.is_empty() {
            let links: Vec<String> = kinds.iter().map(|kind| format!("[`{kind}`](connectors/{kind}.md)")).collect();
            sections.push_str(&format!("\nExactly one kind stands below it: {}.\n", links.join(", ")));
        }
    }
    let mut out = format!("# {title}\n\n<!-- Made by `weir dev generate` from the file's JSON Schema. -->\n\n{about}\n");
    if !own.is_empty() {
        let file = serde_json::json!({ "properties": own, "required": schema["required"] });
        out.push_str(&format!("\n## At the top\n\n{}", markdown_table("key", &settings_of(schema, &file))));
    }
    out + &sections
}

/// How a table is headed in the file, and what may stand in it; none where the key has a plain value.
fn section<'a>(root: &'a Value, key: &str, value: &'a Value) -> Option<(String, &'a Value)> {
    let resolved = resolve(root, value);
    let has_keys = |table: &&Value| table.get("properties").is_some();
    // A value or a table: the table is what has keys.
    let either = |part: &'a Value| {
        let options = part.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        options.map(|option| resolve(root, option)).find(has_keys).unwrap_or(part)
    };
    let table = |part: &str| resolved.get(part).map(|part| either(resolve(root, part))).filter(|part| part.is_object());
    if let Some(row) = table("items").filter(has_keys) {
        return Some((format!("[[{key}]]"), row));
    }
    if let Some(named) = table("additionalProperties").filter(has_keys) {
        return Some((format!("[{key}.NAME]"), named));
    }
    Some((format!("[{key}]"), resolved)).filter(|(_, table)| has_keys(table))
}

/// A table's keys, and the kinds it may be of.
fn keys(root: &Value, table: &Value) -> (Vec<Setting>, Vec<String>) {
    let mut table = table.clone();
    let mut kinds = Vec::new();
    if let Some(properties) = table.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|key, value| {
            let is_kind = ROLES.iter().any(|role| value.get("$ref").and_then(Value::as_str) == Some(&format!("#/$defs/{role}-{key}")));
            if is_kind {
                kinds.push(key.clone());
            }
            !is_kind
        });
    }
    (settings_of(root, &table), kinds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_table_of_a_file_has_its_section() {
        let schema = json!({
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "description": "Its name." },
                "memory": { "type": "object", "description": "Bounds.", "properties": { "limit": { "type": "integer", "default": 7, "description": "So much." } } },
                "source": { "type": "object", "description": "Where from.", "additionalProperties": { "$ref": "#/$defs/source" } },
                "test": { "type": "array", "description": "What holds.", "items": { "$ref": "#/$defs/test" } },
            },
            "$defs": {
                "source": { "type": "object", "properties": { "from": { "type": "string", "description": "Which." }, "file": { "$ref": "#/$defs/source-file" } } },
                "source-file": { "type": "object", "properties": { "path": { "type": "string", "description": "Where it is." } } },
                "test": { "type": "object", "properties": { "now": { "description": "The time." } } },
            },
        });
        let page = page("A file", "About it.", &schema);
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(headings, ["# A file", "## At the top", "## `[memory]`", "## `[source.NAME]`", "## `[[test]]`"]);
        let names: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(names, ["name", "limit", "from", "now"], "a kind's settings stand on its own page");
        assert!(page.contains("Exactly one kind stands below it: [`file`](connectors/file.md).\n"), "{page}");
    }
}
