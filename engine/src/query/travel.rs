//! Earlier states of a table: `table version as of 3` and `table timestamp as of '2026-01-31'`, which DataFusion's parser does not know.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, Tokenizer},
};
use weir_connectors::quote;
use weir_pipelines::sql::names_a_table;

use super::places::Places;

/// Turns `table version as of 3` and `table timestamp as of '2026-01-31'`, which DataFusion's parser does not know, into
/// `"table@3"` and `"table@2026-01-31"`.
pub(super) fn time_travel(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location() else { return sql.to_owned() };
    let tokens: Vec<_> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect();
    let word = |at: usize, words: &[&str]| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
        _ => false,
    };
    let mut places = None;
    let (mut answer, mut done) = (String::new(), 0);
    for at in 1..tokens.len() {
        if !(word(at, &["version", "timestamp"]) && word(at + 1, &["as"]) && word(at + 2, &["of"])) {
            continue;
        }
        // An alias has no versions.
        if !names_a_table(&tokens, at) {
            continue;
        }
        let (Token::Word(table), Some(version)) = (&tokens[at - 1].token, tokens.get(at + 3)) else { continue };
        let value = match &version.token {
            Token::Number(number, _) => number.clone(),
            Token::SingleQuotedString(text) => text.clone(),
            _ => continue,
        };
        let name = if table.quote_style.is_some() { table.value.clone() } else { table.value.to_lowercase() };
        let places = places.get_or_insert_with(|| Places::new(sql));
        answer.push_str(&sql[done..places.byte(tokens[at - 1].span.start)]);
        answer.push_str(&quote::identifier(&format!("{name}@{value}")));
        done = places.byte(version.span.end);
    }
    answer.push_str(&sql[done..]);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_becomes_part_of_the_name() {
        let cases = [
            ("select * from lake.a.b version as of 3", "select * from lake.a.\"b@3\""),
            ("select * from B VERSION AS OF 3 x, c", "select * from \"b@3\" x, c"),
            ("select 1 from \"B\" timestamp as of '2026-01-31' where x = 1", "select 1 from \"B@2026-01-31\" where x = 1"),
            ("select 'é', version from t -- version as of 3", "select 'é', version from t -- version as of 3"),
            ("select * from 'torn", "select * from 'torn"),
            ("select * from t s version as of 3", "select * from t s version as of 3"),
            ("select * from t as s version as of 3", "select * from t as s version as of 3"),
            ("select * from a.t version as of 3 s, (t version as of 4)", "select * from a.\"t@3\" s, (\"t@4\")"),
            ("select * from a join b.t version as of 3 using (id)", "select * from a join b.\"t@3\" using (id)"),
            ("select 'é\n',\n* from t version\nas of 3, \"ü\"\nversion as of 4", "select 'é\n',\n* from \"t@3\", \"ü@4\""),
        ];
        for (sql, expected) in cases {
            assert_eq!(time_travel(sql), expected);
        }
    }

    #[test]
    fn a_text_of_very_many_versions_is_gone_through_once() {
        for between in [", ", ",\n"] {
            let versions = vec!["t version as of 3"; 50_000].join(between);
            let expected = vec!["\"t@3\""; 50_000].join(between);
            assert_eq!(time_travel(&format!("select * from {versions}")), format!("select * from {expected}"));
        }
    }
}
