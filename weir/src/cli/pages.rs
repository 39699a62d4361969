//! A kind's settings as a page: read from its JSON Schema, drawn as text, as Markdown or as JSON. The words are the connector's own.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::render::{Style, Table, table::Look, text::wrap};

/// Nested tables are shown as dotted settings, so deep.
const DEPTH_MAX: usize = 4;
/// Columns of a description on a terminal.
const TEXT_WIDTH: usize = 92;

/// What a kind is used as.
#[derive(Debug, Clone, Serialize)]
pub struct Role {
    /// `source`, `sink` or `connection`.
    pub role: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Its settings, in their order.
    pub settings: Vec<Setting>,
    /// A step a person could paste.
    pub example: &'static str,
}

/// All that is known of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// The key that names the kind.
    pub kind: &'static str,
    /// What it is used as.
    pub roles: Vec<Role>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The key, dotted inside a nested table.
    pub name: String,
    /// Its type in words.
    pub r#type: String,
    /// True where nothing works without it.
    pub required: bool,
    /// Its default as TOML, where there is one.
    pub default: Option<String>,
    /// What it means.
    pub description: String,
}

/// Reads the settings out of a JSON Schema as schemars makes it.
pub fn settings(schema: &Value) -> Vec<Setting> {
    settings_of(schema, schema)
}

/// Reads the settings out of a table that is a part of a JSON Schema.
pub fn settings_of(root: &Value, table: &Value) -> Vec<Setting> {
    let mut found = Vec::new();
    collect(root, table, "", 0, &mut found);
    found
}

fn collect(root: &Value, table: &Value, prefix: &str, depth: usize, found: &mut Vec<Setting>) {
    let table = resolve(root, table);
    let required: Vec<&str> = table.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = table.get("properties").and_then(Value::as_object) else { return };
    for (key, value) in properties {
        let name = format!("{prefix}{key}");
        let inner = resolve(root, without_null(root, value));
        let nested = inner.get("properties").is_some_and(Value::is_object);
        found.push(Setting {
            r#type: if nested { "table".to_owned() } else { type_of(root, value, 0) },
            required: required.contains(&key.as_str()),
            default: value.get("default").and_then(default_text),
            description: description(root, value, inner),
            name: name.clone(),
        });
        if nested && depth < DEPTH_MAX {
            collect(root, inner, &format!("{name}."), depth + 1, found);
        }
    }
}

/// What a reference leads to.
pub fn resolve<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let mut value = value;
    for _ in 0..DEPTH_MAX {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
        match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(target) => value = target,
            None => return value,
        }
    }
    value
}

/// A parameter may stand for any value: the pages say so once.
fn is_parameter(option: &Value) -> bool {
    option.get("$ref").and_then(Value::as_str) == Some("#/$defs/parameter")
}

/// `anyOf: [X, null]` is how an optional X is written.
fn without_null<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let value = resolve(root, value);
    let options: Vec<&Value> = value
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|option| option.get("type").and_then(Value::as_str) != Some("null") && !is_parameter(option))
        .collect();
    match options.as_slice() {
        [one] => resolve(root, one),
        _ => value,
    }
}

fn type_of(root: &Value, value: &Value, depth: usize) -> String {
    let value = resolve(root, value);
    if depth > DEPTH_MAX {
        return "value".to_owned();
    }
    if let Some(constant) = value.get("const") {
        return literal(constant);
    }
    if let Some(values) = value.get("enum").and_then(Value::as_array) {
        return join(values.iter().filter(|value| !value.is_null()).map(literal));
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(options) = value.get(key).and_then(Value::as_array) {
            return join(
                options
                    .iter()
                    .filter(|option| !is_parameter(option))
                    .map(|option| type_of(root, option, depth + 1))
                    .filter(|word| word != "nothing"),
            );
        }
    }
    let word = |name: &str| match name {
        "string" => "text".to_owned(),
        "integer" => "integer".to_owned(),
        "number" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "null" => "nothing".to_owned(),
        "array" => match value.get("items") {
            Some(items) => format!("list of {}", type_of(root, items, depth + 1)),
            None => "list".to_owned(),
        },
        "object" => match value.get("additionalProperties").filter(|inner| inner.is_object()) {
            Some(inner) => format!("table of {}", type_of(root, inner, depth + 1)),
            None => match value.get("properties").and_then(Value::as_object) {
                Some(properties) => format!("{{ {} }}", properties.keys().map(|key| format!("{key} = …")).collect::<Vec<_>>().join(", ")),
                None => "table".to_owned(),
            },
        },
        other => other.to_owned(),
    };
    match value.get("type") {
        Some(Value::String(name)) => word(name),
        Some(Value::Array(names)) => join(names.iter().filter_map(Value::as_str).filter(|name| *name != "null").map(word)),
        _ => "value".to_owned(),
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    let mut found: Vec<String> = Vec::new();
    for word in words {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    found.join(" or ")
}

/// A value as TOML would spell it.
fn literal(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let entries: Vec<String> =
                table.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| format!("{key} = {}", literal(value))).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn default_text(value: &Value) -> Option<String> {
    let said = match value {
        Value::Null => false,
        Value::Object(table) => table.values().any(|value| !value.is_null()),
        _ => true,
    };
    said.then(|| literal(value))
}

/// The setting's own words, else its type's; then what each of its values means.
fn description(root: &Value, value: &Value, inner: &Value) -> String {
    let own = |value: &Value| value.get("description").and_then(Value::as_str).map(paragraphs);
    let mut text = own(value).or_else(|| own(inner)).unwrap_or_default();
    for option in inner.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let option = resolve(root, option);
        let said: Option<&Map<String, Value>> = option.as_object().filter(|option| option.contains_key("const"));
        if let Some(option) = said
            && let Some(words) = option.get("description").and_then(Value::as_str)
        {
            text.push_str(&format!("\n{}: {}", literal(&option["const"]), paragraphs(words)));
        }
    }
    text
}

/// One line per paragraph: where a doc comment was broken says nothing.
fn paragraphs(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
}

/// Draws a page for a terminal.
pub fn render(page: &Page, style: Style) -> String {
    let mut out = String::new();
    for role in &page.roles {
        out.push_str(&format!("{} as a {}: {}\n\n", style.bold(page.kind), role.role, role.summary));
        for setting in &role.settings {
            let required = if setting.required { ", required" } else { "" };
            let default = setting.default.as_ref().map(|default| format!(", default {default}")).unwrap_or_default();
            out.push_str(&format!("  {}  {}\n", style.bold(&setting.name), style.dim(&format!("{}{required}{default}", setting.r#type))));
            for line in wrap(&setting.description, TEXT_WIDTH) {
                out.push_str(format!("      {line}").trim_end());
                out.push('\n');
            }
        }
        out.push_str("\n  example:\n");
        for line in role.example.trim().lines() {
            out.push_str(format!("    {line}").trim_end());
            out.push('\n');
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Draws a page of the reference.
pub fn markdown(page: &Page) -> String {
    let mut out = format!("# `{}`\n\n<!-- Made by `weir dev generate` from the settings' own documentation. -->\n", page.kind);
    for role in &page.roles {
        out.push_str(&format!("\n## As a {}\n\n{}\n\n", role.role, role.summary));
        if role.settings.is_empty() {
            out.push_str("It has no settings.\n");
        } else {
            out.push_str(&markdown_table("setting", &role.settings));
        }
        out.push_str(&format!("\n```toml\n{}\n```\n", role.example.trim()));
    }
    out
}

/// Settings as a table of the reference; `what` they are called.
pub fn markdown_table(what: &str, settings: &[Setting]) -> String {
    let mut table = Table::new(Look::Markdown, &[what, "type", "default", "meaning"]);
    for setting in settings {
        let default = match (&setting.default, setting.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        // A cell is one line; paragraphs are set apart by breaks.
        let meaning = setting.description.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("<br>");
        table.row([format!("`{}`", setting.name), setting.r#type.clone(), default, meaning]);
    }
    table.render(Style::PLAIN)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;

    /// How it is packed.
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Packing {
        /// Not at all.
        None,
        /// With gzip.
        Gzip,
    }

    /// CSV settings.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Csv {
        /// Spellings of null. Default none.
        null: Vec<String>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Sample {
        /// Where it is.
        path: String,
        /// At most
        /// so many.
        #[serde(default = "seven")]
        rows_max: u64,
        /// How.
        packing: Option<Packing>,
        csv: Option<Csv>,
    }

    fn seven() -> u64 {
        7
    }

    fn page() -> Page {
        let settings = settings(&schemars::schema_for!(Sample).to_value());
        Page {
            kind: "sample",
            roles: vec![Role {
                role: "source",
                summary: "Reads samples",
                settings,
                example: "[source.s]\n[source.s.sample]\npath = \"x\"",
            }],
        }
    }

    #[test]
    fn a_schema_is_read_into_settings() {
        let all = page().roles.remove(0).settings;
        let names: Vec<&str> = all.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(names, ["path", "rows_max", "packing", "csv", "csv.null"]);
        let types: Vec<&str> = all.iter().map(|setting| setting.r#type.as_str()).collect();
        assert_eq!(types, ["text", "integer", "\"none\" or \"gzip\"", "table", "list of text"]);
        assert!(all[0].required && !all[1].required && all[4].required);
        assert_eq!(all[1].default.as_deref(), Some("7"));
        assert_eq!(all[2].description, "How.\n\"none\": Not at all.\n\"gzip\": With gzip.");
        assert_eq!(all[3].description, "CSV settings.");
    }

    #[test]
    fn a_page_reads_well_on_a_terminal() {
        assert_eq!(
            render(&page(), Style::PLAIN),
            r#"sample as a source: Reads samples

  path  text, required
      Where it is.
  rows_max  integer, default 7
      At most so many.
  packing  "none" or "gzip"
      How.
      "none": Not at all.
      "gzip": With gzip.
  csv  table
      CSV settings.
  csv.null  list of text, required
      Spellings of null. Default none.

  example:
    [source.s]
    [source.s.sample]
    path = "x"
"#
        );
    }

    #[test]
    fn a_page_of_the_reference_is_markdown() {
        let text = markdown(&page());
        assert!(text.starts_with("# `sample`\n"), "{text}");
        assert!(text.contains("| `rows_max` | integer          | `7`      | At most so many. "), "{text}");
        assert!(text.contains("How.<br>\"none\": Not at all.<br>\"gzip\": With gzip. |"), "{text}");
        assert!(text.ends_with("\n```toml\n[source.s]\n[source.s.sample]\npath = \"x\"\n```\n"), "{text}");
    }
}
