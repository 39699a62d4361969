//! How SQL is laid out, by example; and that its tokens, comments and meaning stay, over made texts and disturbed queries.

use proptest::prelude::*;
use sqlparser::parser::Parser;

use super::*;

/// Lays out a SQL text in quotes; what stays comes back as it is.
fn laid_out(raw: &str) -> String {
    let once = layout(raw, "\n").unwrap_or_else(|| raw.to_owned());
    assert_eq!(layout(&once, "\n"), None, "twice is once: {once}");
    once
}

/// Lays out a SQL text of several lines.
fn several(sql: &str) -> String {
    let new = laid_out(&format!("'''\n{sql}\n'''"));
    new.strip_prefix("'''\n").and_then(|new| new.strip_suffix("\n'''")).expect("is in its quotes").to_owned()
}

fn one(sql: &str) -> String {
    laid_out(&format!("\"{sql}\"")).trim_matches('"').to_owned()
}

#[test]
fn words_are_small_and_names_are_not() {
    assert_eq!(
        one("SELECT Count(*) AS Left, T.Order, Case When A THEN TRUE Else NULL END FROM T"),
        "select Count(*) as Left, T.Order, case when A then true else null end from T"
    );
    assert_eq!(one("select \\\"From\\\", 'SELECT  x' from T"), "select \\\"From\\\", 'SELECT  x' from T");
}

#[test]
fn a_space_stands_where_one_belongs() {
    assert_eq!(one("a+b *-c>= - 1   and  x ||y<>'z'"), "a + b * -c >= -1 and x || y <> 'z'");
    assert_eq!(one("f( a ,b )::int and t . c in(1,2) and g (x)"), "f(a, b)::int and t.c in (1, 2) and g (x)");
    assert_eq!(one("select * ,t.* from(select 1)t"), "select *, t.* from (select 1)t");
    assert_eq!(one("case when a then 1 end-1"), "case when a then 1 end - 1");
    assert_eq!(one("a[ 1 ] -> 'x'->>'y' @>z"), "a[1] -> 'x'->>'y' @>z");
    // Two signs in a row would be a comment.
    assert_eq!(one("a - - 1"), "a - -1");
    assert_eq!(one("- - a"), "- -a");
    assert_eq!(one("count(*)over(partition by a order by b)"), "count(*)over (partition by a order by b)");
}

#[test]
fn a_text_on_one_line_stays_there_or_as_it_is() {
    assert_eq!(one("SELECT 1 -- Why"), "select 1 -- Why");
    assert_eq!(one("SELECT 1\\nfrom t"), "SELECT 1\\nfrom t");
    let long = format!("a+{}", "b".repeat(140));
    assert_eq!(one(&long), long);
    assert_eq!(laid_out("\"\"\"SELECT 1\"\"\""), "\"\"\"select 1\"\"\"");
    assert_eq!(laid_out("'''SELECT '' '''"), "'''SELECT '' '''");
    assert_eq!(laid_out("'a>1'"), "'a > 1'");
}

#[test]
fn what_is_no_sql_or_breaks_lines_with_a_backslash_stays() {
    for raw in
        ["\"select  'x\"", "''", "\"  \"", "\"\"\"\nselect  1,\\\n   2\n\"\"\"", "\"\"\"\nselect\\t 1\n\"\"\"", "'''\nselect  /* x\n'''"]
    {
        assert_eq!(laid_out(raw), raw);
    }
    // A backslash inside a token is the token's.
    assert_eq!(laid_out("\"\"\"\nSELECT  '\\\\d+'\n\"\"\""), "\"\"\"\nselect '\\\\d+'\n\"\"\"");
}

#[test]
fn a_query_over_several_lines_has_a_line_for_each_clause() {
    assert_eq!(
        several("SELECT a,\n b from t\n  where x and y group by a, b having count(*)>1 order by a LIMIT 3"),
        "select a,\n  b\nfrom t\nwhere x and y\ngroup by a, b\nhaving count(*) > 1\norder by a\nlimit 3"
    );
    assert_eq!(several("  SELECT a from t  "), "select a from t");
    let long = format!("select {} from t where x", "a".repeat(130));
    assert_eq!(several(&long), format!("select {}\nfrom t\nwhere x", "a".repeat(130)));
}

#[test]
fn line_breaks_of_the_author_stay() {
    let shipped = "select\n  make_date(f.year, f.month, f.day) as date,\n  f.time_hour, f.carrier,\n  a.name\nfrom flown f\n\
                   left join airlines a on a.carrier = f.carrier\nleft join weather w\n  on w.origin = f.origin\n  and w.time_hour = f.time_hour";
    assert_eq!(several(shipped), shipped);
    let indented: String = shipped.lines().map(|line| format!("\t     {}\n", line.trim())).collect();
    assert_eq!(several(&indented), shipped);
    assert_eq!(several("select a\n\n\n\nfrom t join u on true\nwhere a"), "select a\n\nfrom t join u on true\nwhere a");
    assert_eq!(several("a > 1\nand b\n   or c"), "a > 1\n  and b\n  or c");
    assert_eq!(several("select a\n, b\n, left(c, 1)\nfrom t\n, u"), "select a\n  , b\n  , left(c, 1)\nfrom t\n  , u");
}

#[test]
fn what_stands_in_brackets_is_set_in() {
    assert_eq!(
        several(
            "with a as (\nselect 1 as x union all select 2\n), b as (select 2),\nc as (select 3)\nselect * from a where x in (\n1,\n2)"
        ),
        "with a as (\n  select 1 as x\n  union all\n  select 2\n), b as (select 2),\nc as (select 3)\nselect *\nfrom a\nwhere x in (\n  1,\n  2\n)"
    );
    assert_eq!(
        several("select * from (\nselect a\nfrom t\nunion\nselect b from u where x = (select max(x) from v)\n) where a"),
        "select * from (\n  select a\n  from t\n  union\n  select b\n  from u\n  where x = (select max(x) from v)\n) where a"
    );
    assert_eq!(
        several("select sum(case\nwhen a then 1\nelse 2\nend) as s,\n coalesce(\nb,\nc) from t"),
        "select sum(case\n  when a then 1\n  else 2\nend) as s,\n  coalesce(\n    b,\n    c\n  )\nfrom t"
    );
    assert_eq!(
        several("select extract(year from d), a is distinct from b, * except (c),\n sum(x) over (order by d) from t"),
        "select extract(year from d), a is distinct from b, * except (c),\n  sum(x) over (order by d)\nfrom t"
    );
}

#[test]
fn comments_stay_where_they_are() {
    let text = "-- what it is\nselect a,   -- one\n  /* two\n     lines */ b\n-- where from\nfrom t -- three\n\n-- which\nwhere x -- y";
    assert_eq!(several(text), text);
    assert_eq!(several("SELECT a--x\n, b -- y  \n from t"), "select a --x\n  , b -- y  \nfrom t");
}

#[test]
fn line_breaks_are_those_of_the_file() {
    let new = layout("'''\r\nselect a -- x\r\nFROM t\r\n'''", "\r\n");
    assert_eq!(new.as_deref(), Some("'''\r\nselect a -- x\r\nfrom t\r\n'''"));
    assert_eq!(layout("'''\nselect a -- x\nFROM t\n'''", "\r\n"), new);
}

#[test]
fn deep_and_large_texts_end_soon() {
    for sql in [
        "(".repeat(50_000),
        format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        "-- c\n".repeat(20_000),
        "/**/".repeat(20_000),
        "a,".repeat(50_000),
        "case when ".repeat(20_000),
        "- ".repeat(50_000),
    ] {
        laid_out(&format!("'''\n{sql}\n'''"));
    }
}

/// Queries of many forms.
const QUERIES: [&str; 14] = [
    "select a, b from t where a > 1 and b is not null",
    "select * except (c), t.x::int from t left join u on t.id = u.id and t.x <> u.x",
    "with a as (select 1 as x), b as (select x + 1 as y from a) select a.x, b.y from a cross join b",
    "select count(*) filter (where x > -1) as n, sum(y) over (partition by z order by w desc nulls last) from t group by z, w having count(*) > 1",
    "select case when a = 'SELECT  --' then 1 else - 2 end as c from \"From\" order by 1 desc limit 3 offset 2",
    "select extract(year from d), cast(x as decimal(10, 2)), interval '1 day', date '2013-01-01' from t",
    "(select a from t) union all (select b from u) order by 1",
    "select a from t where b in (1, 2, 3) or exists (select 1 from u where u.a = t.a) or not (c between 1 and 2)",
    "select t.\"Order\", u.left from t join lateral (select t.a as left) u on true",
    "select a is distinct from b, a like 'x%' escape '!', a || b, a % 2, -a, - -a, +a * -b from t",
    "select arr[1], {'k': 1}, [1, 2], x -> 'y', x ->> 'z' from t",
    "select distinct on (a) a, b from t window w as (order by b)",
    "select * from (values (1, 'a'), (2, 'b')) as v (n, s) except select 1, 'a' intersect select 2, 'b'",
    "select a from t where s = $$ it's  $$ and u = E'\\\\n' and v = X'ff' and w = 1e-6",
];

/// The queries of the files that ship.
fn shipped() -> Vec<String> {
    let mut found = Vec::new();
    for text in crate::format::tests::SHIPPED {
        let table: toml::Table = toml::from_str(text).expect("is TOML");
        let steps = table.get("transform").and_then(toml::Value::as_table).into_iter().flat_map(|steps| steps.values());
        let checks = table.get("expect").and_then(toml::Value::as_array).into_iter().flatten();
        found.extend(steps.chain(checks).filter_map(|step| Some(step.get("sql")?.as_str()?.to_owned())));
    }
    assert!(found.len() > 4, "the queries are found");
    found
}

/// The meaning of a query, as the parser reads it.
fn meaning(sql: &str) -> Option<String> {
    Parser::parse_sql(&GenericDialect {}, sql).ok().map(|parsed| format!("{}", parsed.first().expect("a query")).to_lowercase())
}

/// Tokens and comments of a SQL text, words of SQL in small letters.
pub(in crate::format) fn tokens(sql: &str) -> Option<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let kept = tokens.into_iter().filter_map(|token| match token {
        Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => Some(format!("--{}", comment.trim_end_matches(['\r', '\n']))),
        Token::Whitespace(Whitespace::MultiLineComment(comment)) => Some(format!("/*{comment}*/")),
        Token::Whitespace(_) => None,
        Token::Word(word) if word.quote_style.is_none() && WORDS.contains(&word.value.to_lowercase().as_str()) => {
            Some(word.value.to_lowercase())
        }
        token => Some(format!("{token:?}")),
    });
    Some(kept.collect())
}

fn decoded(raw: &str) -> String {
    let value = DeValue::parse(raw).unwrap_or_else(|error| panic!("{error}: {raw}"));
    value.get_ref().as_str().expect("a string").to_owned()
}

/// Puts other space between the tokens of a query, and other capitals into its words.
fn disturbed(sql: &str, choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut pick = |below: u8| choices.next().unwrap_or(0) % below;
    let mut out = String::new();
    for token in Tokenizer::new(&GenericDialect {}, sql).tokenize().expect("is SQL") {
        match &token {
            Token::Whitespace(_) => {
                out.push_str([" ", "\n", "  \t", "\n\n\n   ", " /* c */ ", " -- c\n", "\r\n"][usize::from(pick(7))]);
            }
            Token::Word(word) if word.quote_style.is_none() && !word.value.eq_ignore_ascii_case("order") && pick(2) == 1 => {
                out.push_str(&word.value.to_uppercase());
            }
            // What is unescaped here is not written by the tokenizer as it was.
            Token::EscapedStringLiteral(_) => out.push_str("E'\\\\n'"),
            _ => out.push_str(&token.to_string()),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_disturbed_query_means_the_same(query in 0..QUERIES.len(), choices in prop::collection::vec(any::<u8>(), 1..60)) {
        let before = disturbed(QUERIES[query], &choices);
        prop_assert!(meaning(&before).is_some(), "{before}");
        let raw = format!("'''\n{before}\n'''");
        let after = decoded(&laid_out(&raw));
        prop_assert_eq!(tokens(&after), tokens(&before));
        prop_assert_eq!(meaning(&after), meaning(&before));
    }

    #[test]
    fn shipped_queries_are_parsed_the_same(query in any::<prop::sample::Index>(), choices in prop::collection::vec(any::<u8>(), 1..60)) {
        let queries = shipped();
        let query = &queries[query.index(queries.len())];
        let after = decoded(&laid_out(&format!("'''\n{}\n'''", disturbed(query, &choices))));
        let parsed = |sql: &str| Parser::parse_sql(&GenericDialect {}, sql).expect("is SQL");
        // Capitals of names and functions were disturbed too, and are not mended.
        prop_assert_eq!(parsed(&after.to_lowercase()), parsed(&query.to_lowercase()));
    }

    #[test]
    fn made_texts_keep_their_tokens(
        parts in prop::collection::vec((0..48_usize, 0..8_usize), 0..40),
        quote in 0..4_usize,
    ) {
        let words = [
            "select", "SELECT", "From", "where", "a", "b.c", "\"x y\"", "'it''s'", "1", "2.5", ".5", "-", "+", "*", "/", "%", "(", ")", "[",
            "]", ",", ";", ".", "::", ":", "=", "<", ">", "|", "||", "->", "@", "#", "$1", "case", "end", "when", "with", "as", "group",
            "by", "union", "except", "/*c*/", "-- c", "\\", "{", "'",
        ];
        let spaces = [" ", "", "\n", "  ", "\t", "\r\n", "\n\n\n", "\u{a0}"];
        let sql: String = parts.iter().map(|(word, space)| format!("{}{}", words[*word], spaces[*space])).collect();
        let raw = match quote {
            0 => format!("'''\n{sql}\n'''"),
            1 => format!("\"\"\"{}\"\"\"", sql.replace('\\', "\\\\").replace('"', "\\\"")),
            2 => toml::Value::String(sql.clone()).to_string(),
            _ => format!("\"{}\"", sql.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")),
        };
        prop_assume!(DeValue::parse(&raw).is_ok());
        let before = decoded(&raw);
        let after = decoded(&laid_out(&raw));
        prop_assert_eq!(tokens(&after), tokens(&before));
    }
}
