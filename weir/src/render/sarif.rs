//! Draws what a check found as SARIF 2.1.0, which code hosts and editors read:
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>

use std::path::Path;

use serde_json::{Value, json};
use weir_pipelines::{Diagnostic, Label, Severity};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// What relative paths start from.
const BASE: &str = "%SRCROOT%";

/// One run of a check as a SARIF log. Paths of files start from `folder`, an absolute path.
pub fn to_sarif(diagnostics: &[Diagnostic], folder: &Path, exit_code: u8) -> Value {
    let mut codes: Vec<&str> = diagnostics.iter().map(|one| one.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<Value> = diagnostics.iter().map(|one| result(one, &codes)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "weir", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "invocations": [{ "executionSuccessful": true, "exitCode": exit_code }],
            "originalUriBaseIds": { BASE: { "uri": format!("{}/", uri(folder.to_string_lossy().trim_end_matches('/'))) } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(one: &Diagnostic, codes: &[&str]) -> Value {
    let help = one.help.iter().map(|help| format!("\nhelp: {help}"));
    let text: String = std::iter::once(one.message.clone()).chain(help).collect();
    let mut result = json!({
        "ruleId": one.code,
        "ruleIndex": codes.iter().position(|code| *code == one.code),
        "level": match one.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": { "text": text },
    });
    match (one.labels.split_first(), &one.file) {
        (Some((first, others)), _) => {
            result["locations"] = json!([location(first)]);
            if !others.is_empty() {
                result["relatedLocations"] = others.iter().map(location).collect();
            }
        }
        (None, Some(file)) => result["locations"] = json!([{ "physicalLocation": { "artifactLocation": artifact(&file.path) } }]),
        (None, None) => {}
    }
    result
}

fn location(label: &Label) -> Value {
    let (start, end) = (label.file.line_column(label.span.start), label.file.line_column(label.span.end.max(label.span.start)));
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": artifact(&label.file.path),
        "region": { "startLine": start.0, "startColumn": start.1, "endLine": end.0, "endColumn": end.1 },
    } });
    if !label.text.is_empty() {
        location["message"] = json!({ "text": label.text });
    }
    location
}

/// A file by its path: below the folder, or wherever an absolute path leads.
fn artifact(path: &str) -> Value {
    if path.starts_with('/') { json!({ "uri": uri(path) }) } else { json!({ "uri": uri(path), "uriBaseId": BASE }) }
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use weir_pipelines::SourceFile;

    use super::*;

    /// The essentials of the SARIF schema: which members an object must have, which it may have, and what they are.
    #[derive(Clone, Copy)]
    enum Shape {
        Text,
        Whole,
        Yes,
        One(&'static [(&'static str, bool, Shape)]),
        Many(&'static Shape),
        Named(&'static Shape),
        Word(&'static [&'static str]),
    }

    const MESSAGE: Shape = Shape::One(&[("text", true, Shape::Text)]);
    const ARTIFACT: Shape = Shape::One(&[("uri", true, Shape::Text), ("uriBaseId", false, Shape::Text)]);
    const REGION: Shape = Shape::One(&[
        ("startLine", true, Shape::Whole),
        ("startColumn", true, Shape::Whole),
        ("endLine", true, Shape::Whole),
        ("endColumn", true, Shape::Whole),
    ]);
    const LOCATION: Shape = Shape::One(&[
        ("physicalLocation", true, Shape::One(&[("artifactLocation", true, ARTIFACT), ("region", false, REGION)])),
        ("message", false, MESSAGE),
    ]);
    const RESULT: Shape = Shape::One(&[
        ("ruleId", true, Shape::Text),
        ("ruleIndex", true, Shape::Whole),
        ("level", true, Shape::Word(&["none", "note", "warning", "error"])),
        ("message", true, MESSAGE),
        ("locations", false, Shape::Many(&LOCATION)),
        ("relatedLocations", false, Shape::Many(&LOCATION)),
    ]);
    const DRIVER: Shape = Shape::One(&[
        ("name", true, Shape::Text),
        ("version", true, Shape::Text),
        ("rules", true, Shape::Many(&Shape::One(&[("id", true, Shape::Text)]))),
    ]);
    const RUN: Shape = Shape::One(&[
        ("tool", true, Shape::One(&[("driver", true, DRIVER)])),
        ("invocations", true, Shape::Many(&Shape::One(&[("executionSuccessful", true, Shape::Yes), ("exitCode", true, Shape::Whole)]))),
        ("originalUriBaseIds", true, Shape::Named(&ARTIFACT)),
        ("columnKind", true, Shape::Word(&["utf16CodeUnits", "unicodeCodePoints"])),
        ("results", true, Shape::Many(&RESULT)),
    ]);
    const LOG: Shape =
        Shape::One(&[("$schema", true, Shape::Text), ("version", true, Shape::Word(&["2.1.0"])), ("runs", true, Shape::Many(&RUN))]);

    fn hold(value: &Value, shape: &Shape, at: &str) {
        match shape {
            Shape::Text => assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{at} is a text: {value}"),
            Shape::Whole => assert!(value.is_u64(), "{at} is a whole number: {value}"),
            Shape::Yes => assert!(value.is_boolean(), "{at} is true or false: {value}"),
            Shape::Word(words) => assert!(value.as_str().is_some_and(|word| words.contains(&word)), "{at} is one of {words:?}: {value}"),
            Shape::Many(inner) => {
                let items = value.as_array().unwrap_or_else(|| panic!("{at} is an array: {value}"));
                items.iter().enumerate().for_each(|(index, item)| hold(item, inner, &format!("{at}/{index}")));
            }
            Shape::Named(inner) => {
                let members = value.as_object().unwrap_or_else(|| panic!("{at} is an object: {value}"));
                members.iter().for_each(|(name, item)| hold(item, inner, &format!("{at}/{name}")));
            }
            Shape::One(members) => {
                let object = value.as_object().unwrap_or_else(|| panic!("{at} is an object: {value}"));
                for name in object.keys() {
                    assert!(members.iter().any(|(known, ..)| known == name), "{at} has no member \"{name}\"");
                }
                for (name, required, inner) in *members {
                    match object.get(*name) {
                        Some(member) => hold(member, inner, &format!("{at}/{name}")),
                        None => assert!(!required, "{at} needs the member \"{name}\""),
                    }
                }
            }
        }
    }

    fn found() -> Vec<Diagnostic> {
        let file = SourceFile::new("pipelines/ä b/pipeline.toml", "name = \"x\"\nsql = \"sélect é\"\n");
        let contract = SourceFile::new("/shared/a.schema.json", "{}\n");
        vec![
            Diagnostic::error("unknown-column", "no column \"é\"")
                .at(&file, 26..28, "not found")
                .at(&contract, 0..2, "")
                .help("one")
                .help("two"),
            Diagnostic::warning("unread-step", "nobody reads it").at(&file, 0..4, ""),
            Diagnostic::error("file-missing", "there is no file \"x\""),
            Diagnostic { file: Some(contract), ..Diagnostic::error("contract", "not JSON") },
        ]
    }

    #[test]
    fn a_log_has_the_shape_that_the_standard_asks_for() {
        let log = to_sarif(&found(), Path::new("/home/me/my shop"), 2);
        hold(&log, &LOG, "");
        let run = &log["runs"][0];
        for result in run["results"].as_array().expect("an array") {
            let index = usize::try_from(result["ruleIndex"].as_u64().expect("a number")).expect("is small");
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        }
        hold(&to_sarif(&[], Path::new("/"), 0), &LOG, "");
    }

    #[test]
    fn places_are_counted_from_one_and_in_characters() {
        let log = to_sarif(&found(), Path::new("/home/me/my shop"), 2);
        let run = &log["runs"][0];
        assert_eq!(run["originalUriBaseIds"][BASE]["uri"], "file:///home/me/my%20shop/");
        let first = &run["results"][0];
        assert_eq!(first["message"]["text"], "no column \"é\"\nhelp: one\nhelp: two");
        assert_eq!(
            first["locations"][0],
            json!({ "physicalLocation": {
                "artifactLocation": { "uri": "pipelines/%C3%A4%20b/pipeline.toml", "uriBaseId": BASE },
                "region": { "startLine": 2, "startColumn": 15, "endLine": 2, "endColumn": 16 },
            }, "message": { "text": "not found" } })
        );
        assert_eq!(first["relatedLocations"][0]["physicalLocation"]["artifactLocation"], json!({ "uri": "file:///shared/a.schema.json" }));
        assert_eq!(run["results"][2].get("locations"), None);
        assert_eq!(run["results"][3]["locations"][0]["physicalLocation"].get("region"), None);
    }
}
