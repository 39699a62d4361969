//! Whether docs/reference/errors.md, which `weir explain` prints, has a section for every code in the source, and none besides.

use std::{collections::BTreeSet, fs};

use crate::{
    project::{Project, repository},
    tidy::{code, relative, sources},
};

/// Words with a hyphen that are no codes.
const OTHERS: [&str; 12] = [
    "date-time",
    "utf-8",
    "utf-16",
    "utf-16le",
    "utf-16be",
    "verify-ca",
    "verify-full",
    "weir-judged",
    "x-weir-personal",
    "x-weir-seen",
    "x-weir-type",
    "x-weir-version",
];

/// What a code that is one word stands behind.
const OPENERS: [&str; 7] = ["error(", "warning(", "user(", "system(", "weir(", "say(", "code: "];

/// Sections of this subject have the keywords of JSON Schema, which the validator names.
const ROWS: &str = "## Rows that break their contract";

/// The words in quotes that a source text has, each with what stands before it.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices('"').filter_map(|(at, _)| {
        let (before, rest) = (&text[..at], &text[at + 1..]);
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-')?;
        let word = &rest[..end];
        let is_word = rest[end..].starts_with('"') && word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.ends_with('-');
        (is_word && !before.ends_with('\\')).then_some((before, word))
    })
}

/// The codes of a source text: all words with a hyphen, and those of one word where codes are given.
fn codes(text: &str) -> BTreeSet<String> {
    let opened = |before: &str| OPENERS.iter().any(|opener| before.trim_end().ends_with(opener.trim_end()));
    let mut found: BTreeSet<String> = words(text)
        .filter(|(before, word)| (word.contains('-') && !OTHERS.contains(word)) || opened(before))
        .map(|(_, word)| word.to_owned())
        .collect();
    // Before there is anything that could draw an error, it is drawn by hand.
    for (at, opener) in text.match_indices("\"error[") {
        let rest = &text[at + opener.len()..];
        found.extend(rest.split_once(']').map(|(word, _)| word.to_owned()).filter(|word| !word.starts_with('{')));
    }
    found
}

fn source_codes() -> BTreeSet<String> {
    let own = ["schemas/src/", "pipelines/src/", "connectors/src/", "engine/src/", "weir/src/"];
    let of_tests = ["tests.rs", "golden.rs", "test_server.rs", "schemas/src/fuzz.rs", "schemas/src/suite.rs", "schemas/src/typed.rs"];
    let mut found = BTreeSet::new();
    for path in sources() {
        let name = relative(&path);
        if own.iter().any(|own| name.starts_with(own)) && !name.contains("/tests/") && !of_tests.iter().any(|test| name.ends_with(test)) {
            found.extend(codes(&code(&path)));
        }
    }
    found
}

fn page() -> String {
    fs::read_to_string(repository().join("docs/reference/errors.md")).unwrap()
}

/// The codes that have a section; the second are those of the keywords of JSON Schema.
fn section_codes(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut codes, mut keywords) = (BTreeSet::new(), BTreeSet::new());
    let mut of_rows = false;
    for line in page.lines() {
        if line.starts_with("## ") {
            of_rows = line == ROWS;
        }
        let Some(code) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) else { continue };
        // What cannot be read breaks no keyword: that code is Weir's own.
        let found = if of_rows && code != "malformed" { &mut keywords } else { &mut codes };
        assert!(found.insert(code.to_owned()), "two sections of \"{code}\"");
    }
    (codes, keywords)
}

/// What the page lacks, and what it has too much.
fn difference(source: &BTreeSet<String>, page: &str) -> (Vec<String>, Vec<String>) {
    let (sections, _) = section_codes(page);
    (source.difference(&sections).cloned().collect(), sections.difference(source).cloned().collect())
}

#[test]
fn every_code_has_a_section_and_every_section_a_code() {
    let source = source_codes();
    assert!(source.len() > 250, "{} codes: they are not found", source.len());
    let (missing, unknown) = difference(&source, &page());
    assert!(missing.is_empty(), "docs/reference/errors.md has no section for: {missing:?}");
    assert!(unknown.is_empty(), "docs/reference/errors.md explains what no source says: {unknown:?}");
}

#[test]
fn a_section_that_is_missing_or_too_much_is_noticed() {
    let source = source_codes();
    for code in ["unknown-key", "run", "threads", "no-source", "exclusion"] {
        let without = page().replace(&format!("### `{code}`\n"), "");
        assert_eq!(difference(&source, &without).0, [code]);
    }
    let more = page().replace("### `unknown-key`\n", "### `unknown-key`\n\n### `made-up`\n");
    assert_eq!(difference(&source, &more).1, ["made-up"]);
}

#[test]
fn codes_are_found_where_they_are_given() {
    let text = r#"a => user("exclusion"), Error::weir( "panic", x), ("no-source", y), code: "run", "date-time", name("run"), "\"ab-c\"", "error[threads]: z""#;
    assert_eq!(codes(text).into_iter().collect::<Vec<_>>(), ["exclusion", "no-source", "panic", "run", "threads"]);
}

#[test]
fn every_keyword_that_a_row_may_break_has_a_section() {
    let (_, keywords) = section_codes(&page());
    // `ValidationErrorKind::keyword` of the crate `jsonschema`, but `$ref`, which no row breaks; and `schema`, of schemas/src/check.rs.
    let known = "additionalItems additionalProperties anyOf const contains contentEncoding contentMediaType enum exclusiveMaximum \
                 exclusiveMinimum falseSchema format maxItems maximum maxLength maxProperties minItems minimum minLength minProperties \
                 multipleOf not oneOf pattern propertyNames required schema type unevaluatedItems unevaluatedProperties uniqueItems";
    assert_eq!(keywords, known.split_whitespace().map(str::to_owned).collect());
}

#[test]
fn every_example_is_toml_and_says_both() {
    let page = page();
    let mut seen = 0;
    for section in page.split("\n### `").skip(1) {
        let code = section.split('`').next().unwrap_or_default();
        let block = |opening: &str| section.split_once(opening)?.1.split("\n```").next();
        let (wrong, right) = match (block("\nWrong:\n\n```text\n"), block("\nRight:\n\n```toml\n")) {
            (Some(wrong), Some(right)) => (wrong, right),
            (None, None) => continue,
            _ => panic!("{code} shows what is wrong or what is right, not both"),
        };
        for (text, is_toml) in [(wrong, code != "toml-syntax"), (right, true)] {
            let parsed: Result<toml::Table, _> = toml::from_str(text);
            assert_eq!(parsed.is_ok(), is_toml, "{code}: {parsed:?} of {text}");
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen} examples");
}

#[test]
fn an_unknown_code_is_told_in_json_to_who_asks_for_json() {
    let outcome = Project::new().weir(&["explain", "--json", "unknown-colum"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let told = &outcome.json()["diagnostics"][0];
    assert_eq!(told["code"], "unknown-code", "{outcome}");
    assert_eq!(told["message"], "there is no code \"unknown-colum\"", "{outcome}");
    assert_eq!(told["help"][0], "did you mean \"unknown-column\"?", "{outcome}");
}
