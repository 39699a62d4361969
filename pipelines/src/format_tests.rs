//! The style, rule by rule; and that nothing but space ever changes, over made and mutated documents.

use proptest::prelude::*;

use super::*;

fn formatted(text: &str) -> String {
    let file = SourceFile::new("p.toml", text);
    let once = format(&file).unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
    let again = format(&SourceFile::new("p.toml", &*once)).unwrap_or_else(|wrong| panic!("{wrong:?}\n{once}"));
    assert_eq!(again, once, "twice is once");
    once
}

/// The files that ship, which are written in the style.
pub(super) const SHIPPED: [&str; 4] = [
    include_str!("../../pipelines/flights/pipeline.toml"),
    include_str!("../../weir.toml"),
    include_str!("../../weir/src/cli/templates/init/weir.toml"),
    include_str!("../../weir/src/cli/templates/init/pipelines/orders/pipeline.toml"),
];

#[test]
fn shipped_files_stay_as_they_are() {
    for text in SHIPPED {
        assert_eq!(formatted(text), text);
    }
}

#[test]
fn keys_and_headers_have_their_spaces() {
    assert_eq!(formatted("  a=1\n\tb   =\t2  \nc . \"d e\" . 'f'= 3\n"), "a = 1\nb = 2\nc.\"d e\".'f' = 3\n");
    assert_eq!(formatted(" [ a . \"b c\" ]  \n [[ d ]]\n"), "[a.\"b c\"]\n\n[[d]]\n");
}

#[test]
fn the_sql_that_tests_give_is_laid_out() {
    let text = "[[test]]\nname = \"t\"\ngiven.a = { sql = \"SELECT  1  AS id\" }\ngiven.b = [{ sql = \"SELECT  1\" }]\n[test.expect]\na = [{ sql = \"SELECT  1\" }]\n";
    assert_eq!(formatted(text), text.replace("\"SELECT  1  AS id\"", "\"select 1 as id\""), "a column called sql is a column");
}

#[test]
fn lists_have_their_spaces() {
    assert_eq!(formatted("a=[ 1,2 ,3, ]\nb={x=1 ,y = [ ]}\nc=[ ]\nd={ }\n"), "a = [1, 2, 3]\nb = { x = 1, y = [] }\nc = []\nd = {}\n");
}

#[test]
fn an_array_that_is_broken_anywhere_is_broken_everywhere() {
    assert_eq!(
        formatted("a = [1,\n   2, [3,\n4]]\n\nb = [\n]\nc = [\n\n\n  1\n\n\n  , 2\n\n]\n"),
        "a = [\n  1,\n  2,\n  [\n    3,\n    4,\n  ],\n]\n\nb = []\nc = [\n  1,\n\n  2,\n]\n"
    );
    assert_eq!(
        formatted("a = [{ b = [1,\n2] }, {b = 3}]\nc = {\n d = 1 # one\n}\n"),
        "a = [{ b = [\n  1,\n  2,\n] }, { b = 3 }]\nc = {\n  d = 1, # one\n}\n"
    );
}

#[test]
fn an_array_that_does_not_fit_its_line_is_broken() {
    let long = format!("key = [\"{0}\", \"{0}\"]\n", "x".repeat(64));
    assert_eq!(long.len(), 142 + 1);
    assert_eq!(formatted(&long), format!("key = [\n  \"{0}\",\n  \"{0}\",\n]\n", "x".repeat(64)));
    let fits = format!("ky = [\"{0}\", \"{0}é\"]\n", "x".repeat(62));
    assert_eq!(formatted(&fits), fits);
    // A table is never broken: readers of TOML 1.0 would not take it.
    let table = format!("a = {{ b = \"{}\", c = [1, 2] }}\n", "x".repeat(150));
    assert_eq!(formatted(&table), format!("a = {{ b = \"{}\", c = [\n  1,\n  2,\n] }}\n", "x".repeat(150)));
}

#[test]
fn comments_stay_where_they_are() {
    let text = "#:schema x\n   #top  \na = 1#one\nb = 2   # two\nc = 3\t\t# three\n[ t ]#four\nx = [ # open\n1 # a\n, # b\n 2, # c\n# d\n]   # end\n";
    let expected = "#:schema x\n#top\na = 1 #one\nb = 2   # two\nc = 3 # three\n\n[t] #four\nx = [ # open\n  1, # a\n  # b\n  2, # c\n  # d\n]   # end\n";
    assert_eq!(formatted(text), expected);
    // The parser takes comments in an inline table where TOML knows none; they move above.
    assert_eq!(formatted("a = { b # one\n= # two\n1 }\n"), "a = {\n  # one\n  # two\n  b = 1,\n}\n");
    assert_eq!(formatted("a = [ # only\n]\nb = [\n# only\n]"), "a = [ # only\n]\nb = [\n  # only\n]\n");
}

#[test]
fn blank_lines_are_one_and_stand_before_tables() {
    assert_eq!(formatted("\n\n\na = 1\n\n\n\nb = 2\n\n\n"), "a = 1\n\nb = 2\n");
    assert_eq!(formatted("a = 1\n[t]\n\n\nb = 2\n[t.u]\nc = 3\n\n[t.v]\n[w]\n"), "a = 1\n\n[t]\nb = 2\n[t.u]\nc = 3\n\n[t.v]\n\n[w]\n");
    assert_eq!(formatted("[[e]]\n[[e]]\n[e.x]\n[e.y]\n"), "[[e]]\n\n[[e]]\n[e.x]\n[e.y]\n");
    assert_eq!(formatted("[a]\n# of b\n# too\n[b]\n\n# in b\nc = 1\n"), "[a]\n\n# of b\n# too\n[b]\n\n# in b\nc = 1\n");
    assert_eq!(formatted("# of a\n[a]\n# not of b\n\n[b]\n"), "# of a\n[a]\n# not of b\n\n[b]\n");
    // A key is compared as it is meant.
    assert_eq!(formatted("['a']\n[\"a\".b]\n"), "['a']\n[\"a\".b]\n");
}

#[test]
fn values_stay_as_they_were_written() {
    for value in [
        "'lit \\n'",
        "\"\\u00e9\\t\"",
        "'''\n  a\n\n\n  b  \n'''",
        "\"\"\"\\\n   a\\\n   b  \"\"\"",
        "0x_ff",
        "1_000",
        "-0.0",
        "+1e-06",
        "inf",
        "nan",
        "1979-05-27 07:32:00.999999-07:00",
        "07:32:00",
        "true",
    ] {
        // What is no TOML is left out here.
        let text = format!("a = {value}\nb = [{value}, {{ c = {value} }}]\n");
        if value != "0x_ff" {
            assert_eq!(formatted(&text), text);
        }
    }
}

#[test]
fn line_breaks_are_those_of_the_first_line_and_a_mark_stays() {
    assert_eq!(
        formatted("a=1\r\nb=[1,\n2]\n\r\nc='''\nx\r\ny'''\r\n"),
        "a = 1\r\nb = [\r\n  1,\r\n  2,\r\n]\r\n\r\nc = '''\nx\r\ny'''\r\n"
    );
    assert_eq!(formatted("a='''\r\n'''\nb=1\r\n"), "a = '''\r\n'''\nb = 1\n");
    assert_eq!(formatted("a=1\nb=2\r\n"), "a = 1\nb = 2\n");
    assert_eq!(formatted("\u{feff}a=1\n"), "\u{feff}a = 1\n");
    assert_eq!(formatted(""), "");
    assert_eq!(formatted("\n \n"), "");
    assert_eq!(formatted("a=1"), "a = 1\n");
}

#[test]
fn what_is_not_toml_is_said_as_the_parser_says_it() {
    let wrong = format(&SourceFile::new("p.toml", "a = 1\nb = [1,\nc = \"x\n")).expect_err("is no TOML");
    assert!(wrong.iter().all(|wrong| wrong.code == "toml-syntax"), "{wrong:?}");
    let wrong = format(&SourceFile::new("p.toml", "a = 1\na = 2\n")).expect_err("is no TOML");
    assert_eq!((wrong.len(), wrong[0].message.as_str()), (1, "duplicate key"));
}

#[test]
fn deep_nesting_is_refused_by_the_parser_and_not_by_the_stack() {
    let deep = format!("a = {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(format(&SourceFile::new("p.toml", deep)).is_err());
    let allowed = format!("a = {}{}\n", "[".repeat(60), "]".repeat(60));
    assert_eq!(formatted(&allowed), allowed);
}

/// The values of a text, as the parser reads them, where SQL is its tokens and comments; two that are not a number are the same.
fn values(text: &str) -> Option<String> {
    let mut table = toml::from_str::<toml::Table>(text).ok()?;
    let mut found: Vec<&mut toml::Value> = Vec::new();
    for (key, value) in &mut table {
        match (key.as_str(), value) {
            ("transform", toml::Value::Table(steps)) => {
                let settings = steps.iter_mut().filter_map(|(_, step)| step.as_table_mut()).flat_map(|step| step.iter_mut());
                found.extend(settings.filter(|(key, _)| ["sql", "filter"].contains(&key.as_str())).map(|(_, value)| value));
            }
            ("expect", toml::Value::Array(list)) => {
                let settings = list.iter_mut().filter_map(|one| one.as_table_mut()).flat_map(|one| one.iter_mut());
                found.extend(settings.filter(|(key, _)| *key == "sql").map(|(_, value)| value));
            }
            ("test", toml::Value::Array(list)) => {
                let given = list.iter_mut().filter_map(|one| one.get_mut("given")?.as_table_mut()).flat_map(|given| given.iter_mut());
                found.extend(given.filter_map(|(_, given)| given.as_table_mut()?.get_mut("sql")));
            }
            _ => {}
        }
    }
    for value in found {
        if let Some(tokens) = value.as_str().and_then(sql::tests::tokens) {
            *value = toml::Value::String(tokens.join("\n"));
        }
    }
    Some(format!("{table:?}"))
}

/// Makes a document out of numbers, each of which decides one thing.
struct Maker {
    choices: std::vec::IntoIter<u8>,
    text: String,
    comments: Vec<String>,
    keys: usize,
    newline: &'static str,
}

impl Maker {
    fn pick(&mut self, below: u8) -> u8 {
        self.choices.next().unwrap_or(0) % below
    }

    fn space(&mut self) {
        let space = ["", " ", "", "  ", "\t", " \t "][usize::from(self.pick(6))];
        self.text.push_str(space);
    }

    fn comment(&mut self) {
        let comment = format!("#{}{}", ["", " ", ":", "# [a] = \" "][usize::from(self.pick(4))], self.comments.len());
        self.text.push_str(&comment);
        let space = ["", "  "][usize::from(self.pick(2))];
        self.text.push_str(space);
        self.comments.push(comment);
    }

    fn end_of_line(&mut self) {
        self.space();
        if self.pick(3) == 1 {
            self.comment();
        }
        self.text.push_str(self.newline);
    }

    /// Space inside an array: line breaks and comments too.
    fn wide_space(&mut self) {
        self.space();
        for _ in 0..[0, 0, 0, 1, 2, 3][usize::from(self.pick(6))] {
            self.end_of_line();
            self.space();
        }
    }

    fn key(&mut self) {
        self.keys += 1;
        let key = match self.pick(5) {
            0 | 1 => format!("k{}", self.keys),
            2 => format!("\"k \\u00e9 {}\"", self.keys),
            3 => format!("'k\"{}'", self.keys),
            _ => {
                let key = format!("d{0} . x", self.keys);
                format!("{key}.'y z'")
            }
        };
        self.text.push_str(&key);
    }

    fn pair(&mut self, depth: u8) {
        self.key();
        self.space();
        self.text.push('=');
        self.space();
        self.value(depth);
    }

    fn value(&mut self, depth: u8) {
        let scalars = [
            "1",
            "-0.0",
            "nan",
            "true",
            "2013-01-01",
            "2013-01-01T10:00:00.5Z",
            "07:32:00",
            "'a # b'",
            "\"a \\\" , ] # b\"",
            "'''\n  x  \n\n\n # no comment\ny'''",
            "\"\"\"a\\\n   b \\\"\"\" c\n\"\"\"",
            "\"\"",
            "0xff",
            "\"0123456789012345678901234567890123456789\"",
        ];
        match self.pick(if depth == 0 { 2 } else { 4 }) {
            0 | 1 => {
                let at = usize::from(self.pick(14));
                self.text.push_str(scalars[at]);
            }
            kind => {
                self.text.push(if kind == 2 { '[' } else { '{' });
                let items = self.pick(5);
                for at in 0..items {
                    self.wide_space();
                    if kind == 2 {
                        self.value(depth - 1)
                    } else {
                        self.pair(depth - 1)
                    }
                    self.wide_space();
                    if at + 1 < items || self.pick(2) == 0 {
                        self.text.push(',');
                    }
                }
                self.wide_space();
                self.text.push(if kind == 2 { ']' } else { '}' });
            }
        }
    }

    fn document(choices: Vec<u8>) -> Maker {
        let newline = if choices.first().is_some_and(|first| first % 4 == 3) { "\r\n" } else { "\n" };
        let mut maker = Maker { choices: choices.into_iter(), text: String::new(), comments: vec![], keys: 0, newline };
        for _ in 0..maker.pick(30) {
            maker.space();
            match maker.pick(6) {
                0 => {}
                1 => {
                    let (open, close) = if maker.pick(2) == 0 { ("[", "]") } else { ("[[", "]]") };
                    maker.text.push_str(open);
                    maker.space();
                    maker.key();
                    maker.space();
                    maker.text.push_str(close);
                }
                _ => maker.pair(3),
            }
            maker.end_of_line();
        }
        maker
    }
}

/// Judges a text that may be TOML or not; says whether it is.
fn judge(text: &str) -> bool {
    let Ok(once) = format(&SourceFile::new("p.toml", text)) else { return false };
    assert_eq!(values(&once), values(text), "no value changes\n{text}\n{once}");
    assert!(values(text).is_some(), "what is formatted is TOML");
    assert_eq!(format(&SourceFile::new("p.toml", &*once)).as_deref(), Ok(once.as_str()), "twice is once");
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_made_document_keeps_values_and_comments(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let made = Maker::document(choices);
        prop_assert!(judge(&made.text), "the maker makes TOML: {}", made.text);
        let formatted = formatted(&made.text);
        let mut rest = formatted.as_str();
        for comment in &made.comments {
            let at = rest.find(comment.as_str());
            prop_assert!(at.is_some(), "{comment} is kept, in its place\n{}\n{formatted}", made.text);
            rest = &rest[at.unwrap_or(0) + comment.len()..];
        }
        for line in formatted.lines().filter(|_| !formatted.contains("'''") && !formatted.contains("\"\"\"")) {
            prop_assert_eq!(line.trim_end(), line, "no space at the end of a line");
        }
    }

    #[test]
    fn a_shipped_file_whose_space_was_disturbed_comes_back(at in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize), 1..20), file in 0..SHIPPED.len()) {
        // Around "=", "," and brackets outside of strings, space means nothing.
        let mut text = String::new();
        let mut spots: Vec<(usize, &str)> = Vec::new();
        let parts: Vec<usize> = SHIPPED[file].match_indices(" = ").map(|(at, _)| at).collect();
        for (index, kind) in at {
            if !parts.is_empty() {
                spots.push((parts[index.index(parts.len())], [" ", "\t", "   ", " ", "\t\t", "  "][kind]));
            }
        }
        spots.sort();
        let mut from = 0;
        for (spot, space) in spots {
            text.push_str(&SHIPPED[file][from..spot]);
            text.push_str(space);
            from = spot;
        }
        text.push_str(&SHIPPED[file][from..]);
        judge(&text);
    }

    #[test]
    fn a_shipped_file_with_anything_put_in_keeps_its_values(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..16_usize), 1..6),
        file in 0..SHIPPED.len(),
    ) {
        let mut text = SHIPPED[file].to_owned();
        let pieces = [" ", "\n", "\t", "\r\n", "# c\n", ",", "\n\n\n", "[", "]", "{", "}", "=", "'", "\"", "a", "\u{e9}"];
        for (index, piece) in edits {
            let at = (0..=index.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.insert_str(at, pieces[piece]);
        }
        judge(&text);
    }

    #[test]
    fn no_text_panics(text in "([ \t\n=,#'\"a\\[\\]{}.1]|\"\"\"|'''){0,60}") {
        judge(&text);
    }
}
