//! Which columns does a contract mark as personal, and what else does it say of them? The mark is `"x-weir-personal": true`; it is no rule for
//! rows. What becomes of such values is for whoever writes rows down.

use serde_json::{Map, Value};

use crate::contract::{Contract, ContractError};

/// The keyword that marks a property.
const KEY: &str = "x-weir-personal";
/// Keywords whose members are subschemas by name, those that are one, and those that are a list of them.
const NAMED: [&str; 6] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
const SINGLE: [&str; 10] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "not",
    "if",
    "then",
    "else",
];
const LISTED: [&str; 5] = ["items", "prefixItems", "allOf", "anyOf", "oneOf"];
/// References and branches are followed so deep.
const DEPTH_MAX: usize = 16;

/// A column whose values are about a person.
#[derive(Debug)]
pub struct Personal<'a> {
    /// Its name.
    pub column: &'a str,
    contract: &'a Contract,
    schema: &'a Value,
}

impl Personal<'_> {
    /// What the contract says of the column by a keyword, in the property itself, behind its reference, or in one of its `allOf`.
    pub fn says(&self, keyword: &str) -> Option<&Value> {
        find(&self.contract.root, self.schema, 0, &|members| members.get(keyword))
    }

    /// True of a value that the contract takes in this column.
    pub fn accepts(&self, value: &Value) -> bool {
        let name = self.column.replace('~', "~0").replace('/', "~1");
        self.contract.validators.get(&format!("#/properties/{name}")).is_none_or(|validator| validator.is_valid(value))
    }
}

impl Contract {
    /// The columns that it marks as personal. A column of which a part is marked, a nested field or an item, is one of them.
    pub fn personal(&self) -> Vec<Personal<'_>> {
        let properties = self.root.get("properties").and_then(Value::as_object);
        let marked = properties.into_iter().flatten().filter(|(_, schema)| is_marked(&self.root, schema, 0));
        marked.map(|(column, schema)| Personal { column, contract: self, schema }).collect()
    }
}

/// Checks the mark wherever it stands. Fails with the JSON pointer to one that cannot be meant.
pub(crate) fn check(root: &Value) -> Result<(), (String, ContractError)> {
    let error = |message: String, help: &str| ContractError { message, offset: None, help: Some(help.to_owned()) };
    if root.get(KEY).is_some() {
        let message = format!("\"{KEY}\" marks a property, not all of the row");
        return Err((format!("/{KEY}"), error(message, "write it beside the \"type\" of each property that is personal")));
    }
    let mut waiting = vec![(String::new(), root)];
    while let Some((pointer, schema)) = waiting.pop() {
        if let Some(value) = schema.get(KEY).filter(|value| !value.is_boolean()) {
            let message = format!("\"{KEY}\" is true or false, and {value} is neither");
            let message = if message.len() > 200 { format!("\"{KEY}\" is true or false") } else { message };
            return Err((format!("{pointer}/{KEY}"), error(message, "write \"x-weir-personal\": true where values are about a person")));
        }
        waiting.extend(inside(schema).map(|(way, schema)| (format!("{pointer}/{way}"), schema)));
    }
    Ok(())
}

/// The subschemas of a schema, each with the way to it.
fn inside(schema: &Value) -> impl Iterator<Item = (String, &Value)> {
    let members = schema.as_object();
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let named = NAMED.iter().filter_map(move |key| Some((key, members?.get(*key)?.as_object()?)));
    let named = named.flat_map(move |(key, all)| all.iter().map(move |(name, schema)| (format!("{key}/{}", escaped(name)), schema)));
    let single = SINGLE.iter().filter_map(move |key| Some(((*key).to_owned(), members?.get(*key)?)));
    let listed = LISTED.iter().filter_map(move |key| Some((key, members?.get(*key)?.as_array()?)));
    let listed = listed.flat_map(|(key, all)| all.iter().enumerate().map(move |(at, schema)| (format!("{key}/{at}"), schema)));
    named.chain(single).chain(listed)
}

fn is_marked(root: &Value, schema: &Value, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    schema.get(KEY) == Some(&Value::Bool(true))
        || target(root, schema).is_some_and(|target| is_marked(root, target, depth + 1))
        || inside(schema).any(|(_, schema)| is_marked(root, schema, depth + 1))
}

/// The first answer of the schema, of what it refers to, or of what it is all of.
fn find<'a>(
    root: &'a Value,
    schema: &'a Value,
    depth: usize,
    ask: &dyn Fn(&'a Map<String, Value>) -> Option<&'a Value>,
) -> Option<&'a Value> {
    let members = schema.as_object().filter(|_| depth <= DEPTH_MAX)?;
    let all = members.get("allOf").and_then(Value::as_array).into_iter().flatten();
    ask(members)
        .or_else(|| target(root, schema).and_then(|target| find(root, target, depth + 1, ask)))
        .or_else(|| all.into_iter().find_map(|schema| find(root, schema, depth + 1, ask)))
}

/// What a reference inside the document points at.
fn target<'a>(root: &'a Value, schema: &Value) -> Option<&'a Value> {
    root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(schema: Value) -> Result<Contract, ContractError> {
        Contract::compile("c.json", &schema.to_string())
    }

    #[test]
    fn a_column_is_personal_wherever_the_mark_stands() {
        let contract = compiled(json!({
            "properties": {
                "id": { "type": "integer" },
                "email": { "type": "string", "format": "email", "x-weir-personal": true },
                "name": { "$ref": "#/$defs/name" },
                "phones": { "type": "array", "items": { "type": "string", "x-weir-personal": true } },
                "home": { "allOf": [{ "properties": { "street/1": { "type": "string", "x-weir-personal": true } } }] },
                "city": { "type": "string", "x-weir-personal": false },
                "x-weir-personal": { "type": "integer", "examples": [{ "x-weir-personal": 3 }] },
            },
            "$defs": { "name": { "type": "string", "maxLength": 5, "x-weir-personal": true } },
        }))
        .expect("is a contract");
        let personal = contract.personal();
        assert_eq!(personal.iter().map(|one| one.column).collect::<Vec<_>>(), ["email", "name", "phones", "home"]);
        assert_eq!(personal[0].says("format"), Some(&json!("email")));
        assert_eq!(personal[1].says("maxLength"), Some(&json!(5)));
        assert!(personal[0].accepts(&json!("a@b.org")) && !personal[0].accepts(&json!("ab")));
        assert!(personal[1].accepts(&json!("Ann")) && !personal[1].accepts(&json!("Annabelle")));
    }

    #[test]
    fn a_mark_that_cannot_be_meant_is_pointed_at() {
        let text = r#"{ "properties": { "a": { "type": "string" }, "b": { "items": [{ "x-weir-personal": "yes" }] } } }"#;
        let error = Contract::compile("c.json", text).expect_err("is refused");
        assert_eq!(error.message, "\"x-weir-personal\" is true or false, and \"yes\" is neither");
        assert_eq!(error.offset, text.find("\"yes\""));
        let error = compiled(json!({ "x-weir-personal": true, "properties": {} })).expect_err("is refused");
        assert_eq!(error.message, "\"x-weir-personal\" marks a property, not all of the row");
    }
}
