//! Saved queries: what their headers say, and every mistake in one.

use super::*;
use crate::golden;

fn parse(text: &str) -> Result<(Saved, Diagnostics), Diagnostics> {
    Saved::parse(&SourceFile::new("queries/delays.sql", text))
}

#[test]
fn every_mistake_is_pointed_at() {
    golden::check("golden/wrong_saved.txt", |input| match parse(input) {
        Ok((saved, found)) => {
            let params: Vec<String> = saved.params.iter().map(ToString::to_string).collect();
            format!("{}({})\n{}", saved.name.value, params.join(", "), golden::render(&found))
        }
        Err(found) => golden::render(&found),
    });
}

#[test]
fn a_header_says_name_description_and_parameters() {
    let text = "-- name: delays\n-- description: delays of one carrier\n--\n-- A comment of no key.\n\
                -- param carrier: text            the carrier's code\n-- param since: date = '2013-01-01'\n\
                -- param least: decimal(12, 2) = -0.50   in minutes: never more\n-- param until: timestamptz = null\n\
                -- param note: text = 'it''s'\n\nselect $carrier, $since, $least, $until, $note -- name: no key here\n;\n";
    let (saved, found) = parse(text).expect("is right");
    assert!(found.is_empty(), "{}", golden::render(&found));
    assert_eq!((saved.name.value.as_str(), saved.description.as_str()), ("delays", "delays of one carrier"));
    let params: Vec<String> = saved.params.iter().map(ToString::to_string).collect();
    assert_eq!(
        params,
        [
            "carrier: text",
            "since: date = '2013-01-01'",
            "least: decimal(12, 2) = -0.50",
            "until: timestamptz = null",
            "note: text = 'it''s'"
        ]
    );
    let descriptions: Vec<&str> = saved.params.iter().map(|param| param.description.as_str()).collect();
    assert_eq!(descriptions, ["the carrier's code", "", "in minutes: never more", "", ""]);
    assert_eq!(saved.sql.text, text);
    assert_eq!(&text[saved.params[1].name.span.clone()], "since");
}

#[test]
fn an_older_version_of_a_table_may_be_read() {
    let text = "-- name: old\nselect * from a.b version as of 3 join \"x\" timestamp as of '2026-01-31' on true";
    let (_, found) = parse(text).expect("is right");
    assert!(found.is_empty());
    let wrong = parse("-- name: old\nselect * from a.b version as of 3 whree x").expect_err("is wrong");
    // The parser takes the word for an alias, and stops behind it, at its place in the file.
    let text = &wrong[0].labels[0].file.text;
    assert_eq!((wrong[0].code, &text[wrong[0].labels[0].span.clone()]), ("sql-syntax", "x"));
}

#[test]
fn two_queries_have_two_names() {
    let file = |path: &str, name: &str| SourceFile::new(path, format!("-- name: {name}\nselect 1"));
    let (all, found) = Saved::parse_all(&[file("queries/z.sql", "b"), file("queries/y.sql", "a"), file("queries/x.sql", "b")]);
    assert_eq!(all.iter().map(|saved| saved.name.value.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        golden::render(&found),
        "error[duplicate-name]: two saved queries are called \"b\"\n  1:10 \"b\": the second one\n  1:10 \"b\": the first one\n"
    );
    assert_eq!(found[0].labels[1].file.path, "queries/z.sql");
}

proptest::proptest! {
    #[test]
    fn whatever_stands_in_a_file_is_answered(text in "(-- (name|param|description|x)?( [a-z$']{0,3})?:? ?(text|date|decimal\\()?.{0,12}\n){0,4}.{0,40}") {
        let answer = parse(&text);
        for one in answer.as_ref().err().into_iter().flatten() {
            for label in &one.labels {
                proptest::prop_assert!(text.get(label.span.clone()).is_some(), "{one:?}");
            }
        }
    }
}
