//! The only place where a name becomes SQL.

/// Quotes a name for DataFusion, Postgres and ClickHouse alike: `a"b` becomes `"a""b"`.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes several names, separated by commas.
pub fn identifiers<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// What only Postgres writes so.
pub mod postgres {
    /// A table's name with its schema's, where it has one: `"analytics"."My Table"`.
    pub fn table(schema: Option<&str>, name: &str) -> String {
        schema.map_or_else(|| super::identifier(name), |schema| format!("{}.{}", super::identifier(schema), super::identifier(name)))
    }

    /// A text in the few statements that take no parameters (`comment on`, `set transaction snapshot`): nowhere else.
    /// Right whatever `standard_conforming_strings` is.
    pub fn literal(text: &str) -> String {
        let doubled = text.replace('\'', "''");
        if text.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
    }
}

/// What only ClickHouse writes so: in its quoted names and texts a backslash escapes.
pub mod clickhouse {
    fn quoted(text: &str, quote: char) -> String {
        let mut out = String::with_capacity(text.len() + 2);
        out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\0' => out.push_str("\\0"),
                c if c == quote => out.extend(['\\', c]),
                c => out.push(c),
            }
        }
        out.push(quote);
        out
    }

    /// A name: `` a`b `` becomes `` `a\`b` ``.
    pub fn identifier(name: &str) -> String {
        quoted(name, '`')
    }

    /// Several names, separated by commas.
    pub fn identifiers<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
        names.into_iter().map(|name| identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
    }

    /// A table's name with its database's.
    pub fn table(database: &str, name: &str) -> String {
        format!("{}.{}", identifier(database), identifier(name))
    }

    /// A text where a statement takes no parameters (a type's time zone, a table's comment, an engine's setting): nowhere else.
    pub fn literal(text: &str) -> String {
        quoted(text, '\'')
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[test]
    fn a_postgres_table_has_its_schema_before_it_and_a_literal_is_one_text() {
        assert_eq!(postgres::table(Some("a.b"), "x\"; drop table x; --"), "\"a.b\".\"x\"\"; drop table x; --\"");
        assert_eq!(postgres::table(None, "T"), "\"T\"");
        assert_eq!(postgres::literal("it's"), "'it''s'");
        assert_eq!(postgres::literal("\\'; --"), " E'\\\\''; --'");
    }

    #[test]
    fn clickhouse_names_and_texts_escape_what_ends_them() {
        assert_eq!(clickhouse::table("a.b", "x`; drop table x; --\\"), "`a.b`.`x\\`; drop table x; --\\\\`");
        assert_eq!(clickhouse::identifiers(["a", "b\"c"]), "`a`, `b\"c`");
        assert_eq!(clickhouse::literal("it's\\"), "'it\\'s\\\\'");
    }

    #[test]
    fn quotes_inside_names_are_doubled() {
        assert_eq!(identifier("plain"), "\"plain\"");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(identifier(""), "\"\"");
        assert_eq!(identifiers(["a", "b c"]), "\"a\", \"b c\"");
        assert_eq!(identifiers(Vec::<String>::new()), "");
    }

    #[tokio::test]
    async fn a_hostile_name_stays_one_name() {
        for name in ["x\" from t; drop table t; --", "Größe", "select", "a.b", "line\nbreak", "'", "\"", "`", "\\", "%s", "Case"] {
            let query = format!("select 1 as {}", identifier(name));
            let rows = SessionContext::new().sql(&query).await.expect("one statement").collect().await.expect("one row");
            assert_eq!(rows[0].schema().field(0).name(), name);
        }
    }
}
