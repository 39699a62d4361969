//! What diagnostics look like, drawn in full.

use super::*;

fn at(text: &str, needle: &str) -> std::ops::Range<usize> {
    let start = text.find(needle).expect("the test's text holds it");
    start..start + needle.len()
}

fn drawn(diagnostic: &Diagnostic) -> String {
    render(diagnostic, Style::PLAIN)
}

#[test]
fn a_label_is_drawn_under_its_word() {
    let text = format!("{}  select id, amout from orders\n", "\n".repeat(13));
    let file = SourceFile::new("pipelines/orders/pipeline.toml", &*text);
    let diagnostic = Diagnostic::error("unknown-column", "no column \"amout\" in step \"orders\"")
        .at(&file, at(&text, "amout"), "not found")
        .help("did you mean \"amount\"?");
    assert_eq!(
        drawn(&diagnostic),
        r#"error[unknown-column]: no column "amout" in step "orders"
  --> pipelines/orders/pipeline.toml:14:14
   |
14 |   select id, amout from orders
   |              ^^^^^ not found
   = help: did you mean "amount"?
"#
    );
}

#[test]
fn tabs_and_wide_characters_keep_the_underline_in_place() {
    let text = "\tname\t= \"東京\" # x\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::error("a", "b").at(&file, at(text, "\"東京\""), "wide").at(&file, at(text, "x"), "after");
    assert_eq!(
        drawn(&diagnostic),
        r#"error[a]: b
 --> p.toml:1:9
  |
1 |     name    = "東京" # x
  |               ^^^^^^   - after
  |               |
  |               wide
"#
    );
}

#[test]
fn labels_in_two_files_are_drawn_one_file_after_the_other() {
    let contract = SourceFile::new("row.schema.json", "{\n  \"required\": [\"id\"]\n}\n");
    let text = format!("{}contract = \"row.schema.json\"\n", "\n".repeat(11));
    let pipeline = SourceFile::new("pipeline.toml", &*text);
    let diagnostic = Diagnostic::error("x", "m")
        .at(&contract, at(&contract.text, "\"id\""), "required here")
        .at(&pipeline, at(&text, "\"row.schema.json\""), "the contract")
        .help("h");
    assert_eq!(
        drawn(&diagnostic),
        r#"error[x]: m
  --> row.schema.json:2:16
   |
 2 |   "required": ["id"]
   |                ^^^^ required here
  ::: pipeline.toml:12:12
   |
12 | contract = "row.schema.json"
   |            ----------------- the contract
   = help: h
"#
    );
}

#[test]
fn a_span_of_several_lines_is_underlined_on_each() {
    let text = "sql = \"\"\"\n  select 1\n\"\"\"\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::warning("w", "m").at(&file, 6..text.len(), "all of it");
    assert_eq!(
        drawn(&diagnostic),
        r#"warning[w]: m
 --> p.toml:1:7
  |
1 | sql = """
  |       ^^^
2 |   select 1
  |   ^^^^^^^^
3 | """
  | ^^^ all of it
"#
    );
}

#[test]
fn a_long_span_and_distant_labels_are_shortened_with_dots() {
    let text = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::error("x", "m").at(&file, at(text, "b\nc\nd\ne\nf\ng"), "here").at(&file, at(text, "i"), "there");
    assert_eq!(
        drawn(&diagnostic),
        "error[x]: m\n --> p.toml:2:1\n  |\n2 | b\n  | ^\n3 | c\n  | ^\n...\n7 | g\n  | ^ here\n8 | h\n9 | i\n  | - there\n"
    );
}

#[test]
fn labels_of_one_line_stand_beneath_one_another() {
    let text = "key = [\"a\", \"a\"]\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::error("twice", "the key names \"a\" twice").at(&file, 12..15, "again").at(&file, 7..10, "first").at(
        &file,
        0..3,
        "of this key",
    );
    assert_eq!(
        drawn(&diagnostic),
        r#"error[twice]: the key names "a" twice
 --> p.toml:1:13
  |
1 | key = ["a", "a"]
  | ---    ---  ^^^ again
  | |      |
  | |      first
  | of this key
"#
    );
}

#[test]
fn a_label_inside_another_does_not_write_over_it() {
    let text = "from = \"abcdef\"\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::error("x", "m").at(&file, 9..11, "inner").at(&file, 7..15, "outer");
    assert_eq!(
        drawn(&diagnostic),
        r#"error[x]: m
 --> p.toml:1:10
  |
1 | from = "abcdef"
  |        --^^----
  |        | |
  |        | inner
  |        outer
"#
    );
}

#[test]
fn empty_spans_ends_of_files_and_offsets_inside_a_character_are_drawn() {
    let file = SourceFile::new("p.toml", "ä = 1");
    for (span, column) in [(6..6, 6), (99..120, 6)] {
        let diagnostic = Diagnostic::error("x", "m").at(&file, span, "here");
        assert_eq!(drawn(&diagnostic), format!("error[x]: m\n --> p.toml:1:{column}\n  |\n1 | ä = 1\n  |      ^ here\n"));
    }
    let inside = Diagnostic::error("x", "m").at(&file, 1..1, "");
    assert_eq!(drawn(&inside), "error[x]: m\n --> p.toml:1:1\n  |\n1 | ä = 1\n  | ^\n");
    let empty = SourceFile::new("p.toml", "");
    assert_eq!(drawn(&Diagnostic::error("x", "m").at(&empty, 0..0, "")), "error[x]: m\n --> p.toml:1:1\n  |\n1 |\n  | ^\n");
}

#[test]
fn windows_line_ends_and_control_characters_do_not_reach_the_terminal() {
    let text = "a = \"\u{1b}[31m\"\r\nb = 2\r\n";
    let file = SourceFile::new("p.toml", text);
    let diagnostic = Diagnostic::error("x", "odd \u{1b}[0m").at(&file, at(text, "b"), "this\u{7}").at(&file, at(text, "[31m"), "");
    assert_eq!(
        drawn(&diagnostic),
        "error[x]: odd \\u{1b}[0m\n --> p.toml:2:1\n  |\n1 | a = \"\u{fffd}[31m\"\n  |       ----\n2 | b = 2\n  | ^ this\\u{7}\n"
    );
}

#[test]
fn a_very_long_line_is_shown_around_its_label() {
    let text = format!("{}needle{}", "x".repeat(5000), "y".repeat(5000));
    let file = SourceFile::new("p.toml", &*text);
    let drawn = drawn(&Diagnostic::error("x", "m").at(&file, 5000..5006, "here"));
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines[3], format!("1 | …{}needle{}…", "x".repeat(40), "y".repeat(114)));
    assert_eq!(lines[4], format!("  |  {}^^^^^^ here", " ".repeat(40)));
}

#[test]
fn without_a_place_message_and_help_remain() {
    let file = SourceFile::new("p.toml", "");
    let mut diagnostic = Diagnostic::error("no-file", "no file").help("first\nsecond");
    assert_eq!(drawn(&diagnostic), "error[no-file]: no file\n  = help: first\n          second\n");
    diagnostic.file = Some(file);
    assert_eq!(drawn(&diagnostic), "error[no-file]: no file\n --> p.toml\n  = help: first\n          second\n");
}

#[test]
fn colours_mark_severity_frame_and_labels() {
    let file = SourceFile::new("p.toml", "a b\n");
    let diagnostic = Diagnostic::error("x", "m").at(&file, 0..1, "one").at(&file, 2..3, "");
    assert_eq!(
        render(&diagnostic, Style::COLOR),
        "\u{1b}[1;31merror[x]\u{1b}[0m: \u{1b}[1mm\u{1b}[0m\n \u{1b}[1;34m-->\u{1b}[0m p.toml:1:1\n  \u{1b}[1;34m|\u{1b}[0m\n\
         \u{1b}[1;34m1 |\u{1b}[0m a b\n  \u{1b}[1;34m|\u{1b}[0m \u{1b}[1;31m^\u{1b}[0m \u{1b}[1;34m-\u{1b}[0m\n  \u{1b}[1;34m|\u{1b}[0m \u{1b}[1;31m|\u{1b}[0m\n\
         \u{20} \u{1b}[1;34m|\u{1b}[0m \u{1b}[1;31mone\u{1b}[0m\n"
    );
}

#[test]
fn as_json_places_are_lines_and_columns() {
    let file = SourceFile::new("p.toml", "ä = 1\nb = 2\n");
    let diagnostic = Diagnostic::error("x", "m").at(&file, 7..8, "here").help("h");
    assert_eq!(
        to_json(&diagnostic),
        json!({
            "code": "x", "severity": "error", "message": "m", "file": "p.toml", "line": 2, "column": 1,
            "labels": [{"file": "p.toml", "line": 2, "column": 1, "end_line": 2, "end_column": 2, "start": 7, "end": 8, "text": "here"}],
            "help": ["h"],
        })
    );
}
