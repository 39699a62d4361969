//! Whether docs/reference/errors.md, which `weir explain` prints, has a section for every code in the source, and none besides;
//! and whether a test holds the text of every error that a person can cause.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    project::{Project, repository},
    tidy::{code, relative, sources},
};

/// Words with a hyphen that are no codes.
const OTHERS: [&str; 19] = [
    "date-time",
    "date-time-local",
    "from-history",
    "idn-email",
    "idn-hostname",
    "iri-reference",
    "no-store",
    "uri-reference",
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

/// Sections of this subject have the codes that are Weir's own faults, which no file causes.
const OWN_FAULTS: &str = "## Faults in Weir itself";

/// Codes without a case: why, and which. A code that a case has by now is taken out of here: the test says so.
const WITHOUT_A_CASE: [(&str, &str); 14] = [
    ("servers that share a state, killed or held still at the right moment, cause it", "lane-lost not-leading process-died task-lost"),
    (
        "the network or a server's state causes it, and no server of the tests can be brought to it",
        "connect-timeout connection-busy not-admitted pool-exhausted pool-full server-stopping starting tls too-late too-many-connections \
         too-many-queries",
    ),
    ("what is not the server that is meant answers", "clickhouse-protocol postgres-protocol"),
    (
        "a server's own limits, faults and other users cause it",
        "cancelled clickhouse conflict keeper locked postgres quota server-broken server-memory server-resources table-exists table-read-only \
         too-many-parts unknown-setting",
    ),
    (
        "something else writes to the same place in the same moment",
        "changed-meanwhile clickhouse-busy clickhouse-changed columns-changed file-changed lake-busy lake-changed load-lost load-settled \
         rows-lost table-changed",
    ),
    ("a right is missing that whoever runs the tests may have", "lake-read-only lake-write ledger unreadable"),
    (
        "what a disk or an object store refuses, or what is damaged in Weir's own folders",
        "cursor-state failing-unreadable file-read lake-log-cleaned lake-store lake-vacuum quarantine-unreadable spill-failed",
    ),
    ("a terminal, or an input that breaks off", "input-failed terminal threads"),
    ("for those who work on Weir", "stale"),
    ("the run goes on without it, and says so in a note", "types-guessed"),
    ("the system gives no chance", "no-random-numbers"),
    ("the machine's memory, or more rows than a case has", "cursor-window memory out-of-memory"),
    ("not every file system can hold such a name", "name-not-text"),
    (
        "a check before it finds what leads to it: it is told with another code, and this one is there should that check ever miss",
        "cannot-compare cannot-plan csv-column-missing csv-type cursor-identity dataflow format-unfit interrupted json-type not-null rows-left-out text-invalid",
    ),
];

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

/// The codes of the sections that tell of faults in Weir itself.
fn own_faults(page: &str) -> BTreeSet<String> {
    let part = page.split_once(&format!("\n{OWN_FAULTS}\n")).expect("a subject of the page").1;
    section_codes(part.split("\n## ").next().unwrap_or_default()).0
}

/// The codes of errors and warnings whose text a test holds: expected output, golden files, words asserted in Rust.
fn told_codes() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for folder in ["tests/cases", "tests/end_to_end", "pipelines/src/golden"] {
        texts_below(&repository().join(folder), &mut texts);
    }
    let openers = ["error[", "warning[", "fails = \\\"", "fails = \""];
    let mut found = BTreeSet::new();
    for text in &texts {
        for opener in openers {
            found.extend(text.match_indices(opener).filter_map(|(at, _)| {
                let rest = &text[at + opener.len()..];
                let word = &rest[..rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-')?];
                rest[word.len()..].starts_with([']', '"', '\\']).then(|| word.to_owned())
            }));
        }
    }
    found
}

fn texts_below(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            texts_below(&path, texts);
        } else if name == "case.toml" || (name != "codes.rs" && [".stderr", ".stdout", ".rs", ".txt"].iter().any(|end| name.ends_with(end)))
        {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
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
fn every_code_that_a_person_can_cause_has_its_text_in_a_test() {
    let page = page();
    let (sections, _) = section_codes(&page);
    let (told, own) = (told_codes(), own_faults(&page));
    assert!(own.contains("panic") && !own.contains("malformed") && told.len() > 150, "{} codes in tests, {own:?}", told.len());
    let without: BTreeSet<&str> = WITHOUT_A_CASE.iter().flat_map(|(_, codes)| codes.split_whitespace()).collect();
    let of = |wanted: &dyn Fn(&str) -> bool| sections.iter().map(String::as_str).filter(|code| wanted(code)).collect::<Vec<_>>();
    let missing = of(&|code| !told.contains(code) && !own.contains(code) && !without.contains(code));
    assert!(missing.is_empty(), "no test holds the text of: {missing:?}; a case in tests/cases is easily written");
    let needless = of(&|code| told.contains(code) && without.contains(code));
    assert!(needless.is_empty(), "a test holds the text by now, take it out of WITHOUT_A_CASE: {needless:?}");
    let unknown: Vec<&&str> = without.iter().filter(|code| !sections.contains(**code) || own.contains(**code)).collect();
    assert!(unknown.is_empty(), "WITHOUT_A_CASE names what is no code, or a fault of Weir itself: {unknown:?}");
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
