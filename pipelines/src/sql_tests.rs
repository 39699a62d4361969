//! Tests of `sql.rs`: places in every kind of TOML string, relations read, what is refused.

use proptest::prelude::*;
use toml::de::DeTable;

use super::*;
use crate::golden::render;

/// The SQL of a file that holds one key, as the parser of TOML decodes it.
fn sql(toml: &str) -> SqlText {
    let (root, errors) = DeTable::parse_recoverable(toml);
    assert!(errors.is_empty(), "{errors:?}");
    let root = root.into_inner();
    let value = root.get("sql").expect("the tests write sql");
    let text = SqlText::new(SourceFile::new("p.toml", toml), value.span());
    assert_eq!(text.text, value.get_ref().as_str().expect("a string"), "our decoding is toml's");
    text
}

fn names(query: &str) -> Vec<String> {
    let file = SourceFile::new("p.toml", query);
    let text = SqlText { text: query.into(), file, span: 0..query.len() };
    text.relations().expect("a query").iter().map(|relation| relation.parts.join(".")).collect()
}

fn mistakes(query: &str) -> String {
    render(&sql(&format!("sql = '''\n{query}'''")).relations().expect_err("not a step"))
}

#[test]
fn places_are_right_in_every_kind_of_string() {
    for toml in [
        r#"sql = "select é, amout from t""#,
        r"sql = 'select é, amout from t'",
        "sql = '''\nselect é,\n  amout\nfrom t'''",
        "sql = '''\r\nselect é,\r\n  amout\r\nfrom t'''",
        "sql = \"\"\"\nselect \\u00e9,\\n \\\"x\\\", \\\n    amout\nfrom t\"\"\"",
        "sql = \"\"\"select '\\U0001F600', \\\\, amout \\  \n\n  from t\"\"\"",
        "sql = \"select \\x41\\t\\e, amout from t\"",
    ] {
        let sql = sql(toml);
        let at = sql.text.find("amout").expect("in it");
        assert_eq!(&toml[sql.span_of(at..at + 5)], "amout", "{toml}");
        assert_eq!(sql.span_at(at), toml.find("amout").expect("in it"), "{toml}");
        let (line, column) = SourceFile::new("", sql.text.clone()).line_column(at);
        assert_eq!(&toml[sql.span_of_line_column(line as u64, column as u64, None)], "amout", "{toml}");
        assert_eq!(&toml[sql.span_of_line_column(line as u64, column as u64, Some((line as u64, column as u64 + 2)))], "am", "{toml}");
        let end = sql.span_at(sql.text.len());
        assert!(toml[end..].starts_with(['"', '\'']), "{toml}");
    }
}

#[test]
fn an_escape_is_one_place() {
    let toml = r#"sql = "a\u00e9b""#;
    let sql = sql(toml);
    assert_eq!(&toml[sql.span_of(1..3)], "\\u00e9");
    assert_eq!(&toml[sql.span_of(0..4)], "a\\u00e9b");
}

#[test]
fn a_text_from_elsewhere_is_the_whole_string() {
    let file = SourceFile::new("p.toml", "sql = 'select 1'");
    let sql = SqlText { text: "select 2, from".into(), file, span: 6..16 };
    assert_eq!((sql.span_of(7..8), sql.span_at(7), sql.span_of_line_column(9, 9, None)), (6..16, 6, 6..16));
}

#[test]
fn a_query_reads_the_tables_it_names() {
    assert_eq!(names("select * from a join b using (id), c left join (select * from d) x on true"), ["a", "b", "c", "d"]);
    assert_eq!(
        names("select (select max(x) from a) from b where exists (select 1 from c) union all select * from d;"),
        ["a", "b", "c", "d"]
    );
    assert_eq!(names("select * from Flights, \"Planes\", \"my-step\""), ["flights", "Planes", "my-step"]);
    assert_eq!(names("values (1), (2)"), [""; 0]);
    assert_eq!(names("select * from a.b, a.b.c"), ["a.b", "a.b.c"]);
}

#[test]
fn table_functions_are_not_tables() {
    assert_eq!(names("select * from unnest(make_array(1)), generate_series(1, 3) g, range(1, (select max(x) from a)), b"), ["a", "b"]);
    assert_eq!(names("select unnest(x) from a, lateral (select * from b)"), ["a", "b"]);
}

#[test]
fn names_of_with_are_not_tables_where_they_are_in_scope() {
    assert_eq!(names("with x as (select * from a) select * from x join b on true"), ["a", "b"]);
    assert_eq!(names("with x as (select * from a), y as (select * from x) select * from y"), ["a"]);
    // Read before it is in scope: the table of that name.
    assert_eq!(names("with t as (select * from t) select * from t"), ["t"]);
    assert_eq!(names("with y as (select * from x), x as (select 1) select * from y, x"), ["x"]);
    assert_eq!(names("(with t as (select 1) select * from t) union (select * from t)"), ["t"]);
    assert_eq!(names("(with t as (with u as (select 1) select * from u) select * from u cross join t)"), ["u"]);
    assert_eq!(names("with recursive n as (select 1 as id union all select id + 1 from n where id < 9) select * from n"), [""; 0]);
    assert_eq!(names("with x as (select 1) select (select count(*) from x) from a where id in (select id from X)"), ["a"]);
    assert_eq!(names("with FOObar as (select 1) select * from \"FOObar\", foobar"), ["FOObar"]);
}

#[test]
fn relations_know_their_place() {
    let toml = "sql = '''\nselect *\nfrom \"Planes\" p, a.b'''";
    let places: Vec<String> =
        sql(toml).relations().expect("a query").iter().map(|relation| toml[relation.span.clone()].to_owned()).collect();
    assert_eq!(places, ["\"Planes\"", "a.b"]);
}

#[test]
fn what_is_no_query_is_refused() {
    let refused = |word: &str| {
        format!(
            "error[sql-not-a-query]: only queries can be steps\n  2:1 \"{word}\": not a query\n  = help: write a select; Weir's sinks do the writing\n"
        )
    };
    assert_eq!(mistakes("insert into a values (1)"), refused("insert"));
    assert_eq!(mistakes("drop table a"), refused("drop"));
    assert_eq!(mistakes("explain select 1"), refused("explain"));
    assert!(mistakes("with x as (select 1) delete from a").starts_with("error[sql-not-a-query]: only queries can be steps\n"));
    assert_eq!(mistakes("  \n "), "error[sql-empty]: the SQL is empty\n  1:7 \"'''\\n  \\n '''\": write a query here\n");
    assert_eq!(
        mistakes("select 1; select 2"),
        "error[sql-several]: only one query can be a step, and this text holds several statements\n  2:11 \"select\": the second one\n  = help: make it two transforms, or one query with \"with\"\n"
    );
    assert_eq!(
        mistakes("select 1 union table a"),
        "error[sql-not-a-query]: \"table a\" is not supported\n  2:1 \"select\"\n  = help: write \"select * from a\"\n"
    );
}

#[test]
fn a_syntax_error_stands_where_it_is() {
    assert_eq!(
        mistakes("select a\nfrom b whree c = 1 d"),
        "error[sql-syntax]: the SQL does not parse: expected end of statement, found c\n  3:14 \"c\"\n"
    );
    assert_eq!(
        mistakes("select a from"),
        "error[sql-syntax]: the SQL does not parse: expected identifier, found the end of the SQL\n  2:14 \"\"\n"
    );
    assert_eq!(mistakes("select 'a"), "error[sql-syntax]: the SQL does not parse: unterminated string literal\n  2:8 \"'\"\n");
    let deep = format!("select {}1{}", "(".repeat(500), ")".repeat(500));
    assert!(mistakes(&deep).starts_with("error[sql-syntax]: the SQL does not parse: the SQL is nested too deeply\n"));
}

#[test]
fn a_filter_is_an_expression_and_nothing_more() {
    let check = |text: &str| sql(&format!("sql = '''{text}'''")).check_expression().err().map(|found| render(&found)).unwrap_or_default();
    assert_eq!(check("a > 0 and b is not null"), "");
    assert_eq!(check("a >"), "error[sql-syntax]: the SQL does not parse: expected an expression, found the end of the SQL\n  1:13 \"\"\n");
    assert_eq!(
        check("a > 0; drop"),
        "error[sql-syntax]: the SQL does not parse: expected the end of the condition, found ;\n  1:15 \";\"\n"
    );
    assert_eq!(check(" "), "error[sql-empty]: the SQL is empty\n  1:7 \"''' '''\": write a condition here\n");
    assert!(check("a in (select b from c)").starts_with("error[filter-query]: a filter cannot hold a query\n"));
}

proptest! {
    #[test]
    fn decoding_is_that_of_toml(body in "([a-z '\\n\\t]|\"x|\\\\\\\\|\\\\n|\\\\\"|\\\\u00e9|\\\\  \\n  |é|😀){0,40}") {
        let toml = format!("sql = \"\"\"{body}\"\"\"");
        if let (root, errors) = DeTable::parse_recoverable(&toml) && errors.is_empty() {
            let value = root.get_ref().get("sql").expect("one key");
            let text = SqlText::new(SourceFile::new("p.toml", toml.as_str()), value.span());
            prop_assert_eq!(Some(text.text.as_str()), value.get_ref().as_str());
            for (at, c) in text.text.char_indices() {
                let place = text.span_of(at..at + c.len_utf8());
                prop_assert!(toml.get(place.clone()).is_some());
                prop_assert!(toml[place.clone()].starts_with('\\') || toml[place] == *c.to_string());
            }
        }
    }

    #[test]
    fn no_sql_panics(text in "(select|from|with|as|\\(|\\)|,| |\n|a|'|\"|é|;|table|union|values|\\*|unnest|insert into){0,30}|\\PC{0,30}", span in 0usize..40) {
        let file = SourceFile::new("p.toml", text.clone());
        let end = text.len();
        let sql = SqlText { text: text.clone(), file: file.clone(), span: 0..end };
        let _ = (sql.relations(), sql.check_expression(), sql.check_type());
        let elsewhere = SqlText { text, file, span: 0..0 };
        let _ = (elsewhere.relations(), elsewhere.span_of_line_column(span as u64, 3, Some((1, 1))));
    }
}

#[test]
fn what_the_parser_would_read_for_ever_is_answered_at_once() {
    // Each of these takes the parser twice as long for each level; forty of them, years.
    for (open, inner, close) in [
        ("case when true then ", "case 1 true then 1 end", " end"),
        ("case when true then ", "1 1", " end"),
        ("cast(", "1 as", " as int)"),
        ("array[", "1 2", "]"),
        ("substring(", "1 2", " from 1)"),
        ("case when cast(array[", "1 2", "] as int) then 1 end"),
    ] {
        for (deep, is_closed) in [(20, true), (40, true), (40, false)] {
            let close = if is_closed { close.repeat(deep) } else { String::new() };
            let query = format!("select {}{inner}{close}", open.repeat(deep));
            let mistake = mistakes(&query);
            assert!(mistake.starts_with("error[sql-syntax]: the SQL does not parse: "), "{query}\n{mistake}");
        }
    }
    for broken in [format!("select {}.a", "a.".repeat(40)), format!("select {}(", "a.".repeat(40)), format!("select {}", "a.".repeat(40))] {
        let mistake = mistakes(&broken);
        assert!(mistake.starts_with("error[sql-syntax]: the SQL does not parse: expected a name after the point, found "), "{mistake}");
    }
    assert_eq!(names(&format!("select {}a", "a.".repeat(40))), [""; 0]);
    let deep = |open: &str, close: &str| format!("select {}1{}", open.repeat(20), close.repeat(20));
    for right in [deep("case when true then ", " end"), deep("cast(", " as int)"), deep("array[", "]"), deep("abs(", ")")] {
        assert_eq!(names(&right), [""; 0], "{right}");
    }
    assert_eq!(
        mistakes(&format!("select {}1{}", "position(".repeat(9), ", 'a')".repeat(9))),
        "error[sql-too-deep]: more than 8 calls of position or overlay stand within one another\n  2:80 \"position\": one too many\n  = help: make the inner ones a column of a step before\n"
    );
}
