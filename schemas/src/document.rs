//! Where things are in a schema document: local references followed, and a JSON pointer's byte offset in the text.
//! What a subschema means is left to `arrow` and `check`.

use std::ops::Range;

use jsonschema::{Draft, ValidatorMap};
use serde_json::{Map, Value};

/// A parsed contract, before it is boiled down to validator, types and rules.
pub(crate) struct Document<'a> {
    /// The whole schema.
    pub(crate) root: &'a Value,
    /// Every subschema, compiled, by `#` and JSON pointer.
    pub(crate) validators: &'a ValidatorMap,
    /// Which keywords there are, and what they mean.
    pub(crate) draft: Draft,
    /// Drafts 4 to 7 ignore what stands beside a `$ref`.
    pub(crate) ref_stands_alone: bool,
    /// A subschema has an `$id` of its own, so that what a reference means depends on where it stands.
    several_bases: bool,
}

/// A subschema and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// JSON pointer from the root: empty, or starting with `/`.
    pub(crate) pointer: String,
    /// The subschema.
    pub(crate) schema: &'a Value,
}

impl<'a> Place<'a> {
    /// Steps down one key or index.
    pub(crate) fn child(&self, key: &str, schema: &'a Value) -> Self {
        Self { pointer: format!("{}/{}", self.pointer, escape(key)), schema }
    }

    /// The subschema under a keyword.
    pub(crate) fn keyword(&self, key: &str) -> Option<Self> {
        self.schema.get(key).map(|schema| self.child(key, schema))
    }

    /// The subschemas listed under a keyword.
    pub(crate) fn list(&self, key: &str) -> Vec<Self> {
        let Some(list) = self.keyword(key) else { return vec![] };
        let items = list.schema.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(|(index, schema)| list.child(&index.to_string(), schema)).collect()
    }

    /// The subschemas under the names of a keyword's object.
    pub(crate) fn named(&self, key: &str) -> Vec<(&'a str, Self)> {
        let Some(table) = self.keyword(key) else { return vec![] };
        table.schema.as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), table.child(name, schema))).collect()
    }
}

impl<'a> Document<'a> {
    pub(crate) fn new(root: &'a Value, validators: &'a ValidatorMap) -> Self {
        let draft = Draft::default().detect(root);
        let ref_stands_alone = matches!(draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7);
        let several_bases = root.as_object().into_iter().flatten().any(|(_, inner)| has_base(inner));
        Self { root, validators, draft, ref_stands_alone, several_bases }
    }

    /// True where a subschema has an `$id` of its own.
    pub(crate) fn several_bases(&self) -> bool {
        self.several_bases
    }

    pub(crate) fn top(&self) -> Place<'a> {
        Place { pointer: String::new(), schema: self.root }
    }

    /// Follows a `$ref` inside the document: `#`, `#/a/pointer`, `#anchor`, or the same behind the document's own `$id`. None
    /// where that is not plain: what depends on it is then left open, and the validator alone knows.
    pub(crate) fn follow(&self, reference: &str) -> Option<Place<'a>> {
        if self.several_bases {
            return None;
        }
        let own = self.root.get("$id").or_else(|| self.root.get("id")).and_then(Value::as_str).unwrap_or_default();
        let own = own.trim_end_matches('#');
        let fragment = match reference.strip_prefix('#') {
            Some(fragment) => fragment,
            None if !own.is_empty() => match reference.strip_prefix(own)? {
                "" => "",
                rest => rest.strip_prefix('#')?,
            },
            None => return None,
        };
        if fragment.is_empty() {
            return Some(self.top());
        }
        if !fragment.starts_with('/') {
            return self.anchor(fragment);
        }
        let pointer = percent_decode(fragment)?;
        self.root.pointer(&pointer).map(|schema| Place { pointer, schema })
    }

    /// The one place with a name of its own: `$anchor` or `$dynamicAnchor` in 2019-09 and later, `$id` or `id` of the form `#name` before.
    fn anchor(&self, name: &str) -> Option<Place<'a>> {
        let (words, prefix): (&[&str], &str) = match (self.ref_stands_alone, self.draft) {
            (false, _) => (&["$anchor", "$dynamicAnchor"], ""),
            (true, Draft::Draft4) => (&["id"], "#"),
            (true, _) => (&["$id"], "#"),
        };
        let named = |members: &Map<String, Value>| {
            let text = |word: &&str| members.get(*word).and_then(Value::as_str).and_then(|text| text.strip_prefix(prefix));
            words.iter().filter_map(text).any(|text| text == name)
        };
        let mut found = Vec::new();
        anchors(&self.top(), &named, &mut found);
        // Of two of one name only the crate knows which it takes.
        if found.len() == 1 { found.pop() } else { None }
    }

    /// True when the JSON `null` is valid against all of these subschemas. A subschema in which the document cannot be followed
    /// (one that the validator did not compile) does not accept it.
    pub(crate) fn accepts_null(&self, places: &[Place<'_>]) -> bool {
        places
            .iter()
            .all(|place| self.validators.get(&format!("#{}", place.pointer)).is_some_and(|validator| validator.is_valid(&Value::Null)))
    }
}

/// True when there is an `$id` (or draft 4's `id`) in it that changes what references mean, or a `$schema` that changes what keywords do.
fn has_base(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            let is_base = |key: &str| members.get(key).and_then(Value::as_str).is_some_and(|id| !id.starts_with('#'));
            is_base("$id") || is_base("id") || is_base("$schema") || members.values().any(has_base)
        }
        Value::Array(items) => items.iter().any(has_base),
        _ => false,
    }
}

/// Collects the places whose schema has a name.
fn anchors<'a>(place: &Place<'a>, named: &impl Fn(&Map<String, Value>) -> bool, found: &mut Vec<Place<'a>>) {
    match place.schema {
        Value::Object(members) => {
            if named(members) {
                found.push(place.clone());
            }
            let skip = |key: &str| matches!(key, "enum" | "const" | "default" | "examples");
            members.iter().filter(|(key, _)| !skip(key)).for_each(|(key, schema)| anchors(&place.child(key, schema), named, found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, schema)| anchors(&place.child(&index.to_string(), schema), named, found));
        }
        _ => {}
    }
}

/// Writes a name as one step of a JSON pointer.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// The byte offset of a 1-based line and 1-based byte column, as `serde_json` counts them.
pub(crate) fn offset_of_line(text: &str, line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        _ => text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let mut offset = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// The byte offset at which the value under a JSON pointer starts in a well-formed JSON text.
pub(crate) fn offset_of(text: &str, pointer: &str) -> Option<usize> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.enter(text, pointer)?;
    Some(scan.at)
}

/// The bytes of the value under a JSON pointer in a well-formed JSON text, with its key where it is a member of an object.
pub(crate) fn span_of(text: &str, pointer: &str) -> Option<Range<usize>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    let start = scan.enter(text, pointer)?;
    scan.skip_value()?;
    Some(start..scan.at)
}

/// A walk over JSON that is known to be well formed.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn space(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Goes to the value under a pointer. Returns where it starts, or its key.
    fn enter(&mut self, text: &str, pointer: &str) -> Option<usize> {
        self.space();
        let mut start = self.at;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            match self.bytes.get(self.at)? {
                b'{' => start = self.enter_member(text, &step)?,
                b'[' => {
                    self.enter_item(step.parse().ok()?)?;
                    self.space();
                    start = self.at;
                }
                _ => return None,
            }
        }
        Some(start)
    }

    /// Goes to the value of a member. Returns where its key starts.
    fn enter_member(&mut self, text: &str, name: &str) -> Option<usize> {
        self.at += 1;
        loop {
            self.space();
            let start = self.at;
            if self.bytes.get(start) != Some(&b'"') {
                return None;
            }
            self.skip_value()?;
            let key: String = serde_json::from_str(&text[start..self.at]).ok()?;
            self.space();
            self.at += 1; // the colon
            self.space();
            if key == name {
                return Some(start);
            }
            self.skip_value()?;
            self.space();
            self.at += 1; // the comma; past a closing brace the next key is not found and the walk ends
        }
    }

    fn enter_item(&mut self, index: usize) -> Option<()> {
        self.at += 1;
        for _ in 0..index {
            self.space();
            self.skip_value()?;
            self.space();
            if self.bytes.get(self.at) != Some(&b',') {
                return None;
            }
            self.at += 1;
        }
        self.space();
        Some(())
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    while *self.bytes.get(self.at)? != b'"' {
                        self.at += if self.bytes[self.at] == b'\\' { 2 } else { 1 };
                    }
                    self.at += 1;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                byte if byte.is_ascii_whitespace() => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    while self.bytes.get(self.at).is_some_and(|byte| !b",:]} \t\r\n".contains(byte)) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_found_in_the_text() {
        let text = r#" { "a~/b" : [1, {"x": "}\"", "é": [true, null ,{"deep" : -1.5e3}]}], "z":{} }"#;
        for pointer in ["", "/a~0~1b", "/a~0~1b/0", "/a~0~1b/1/x", "/a~0~1b/1/é/2/deep", "/z"] {
            let offset = offset_of(text, pointer).expect(pointer);
            let value: Value = serde_json::from_str(text).expect("JSON");
            let mut found = serde_json::Deserializer::from_str(&text[offset..]).into_iter::<Value>();
            assert_eq!(found.next().expect("a value").expect("JSON"), *value.pointer(pointer).expect("there"), "{pointer}");
        }
        for (pointer, part) in [("/z", r#""z":{}"#), ("/a~0~1b/0", "1"), ("/a~0~1b/1/é/2/deep", r#""deep" : -1.5e3"#)] {
            assert_eq!(&text[span_of(text, pointer).expect(pointer)], part);
        }
        assert_eq!(span_of(text, ""), Some(1..text.len()));
        assert_eq!(span_of(text, "/none"), None);
        assert_eq!(offset_of(text, "/none"), None);
        assert_eq!(offset_of(text, "/a~0~1b/7"), None);
        assert_eq!(offset_of(text, "/z/none"), None);
    }

    #[test]
    fn a_line_and_column_become_a_byte_offset() {
        let text = "{\n  \"é\": x\n}";
        let error = serde_json::from_str::<Value>(text).expect_err("not JSON");
        assert_eq!(&text[offset_of_line(text, error.line(), error.column())..][..1], "x");
        assert_eq!(offset_of_line(text, 9, 9), text.len());
    }
}
