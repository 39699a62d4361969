//! The only place where a name becomes SQL.

/// Quotes a name for DataFusion, Postgres and ClickHouse alike: `a"b` becomes `"a""b"`.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes several names, separated by commas.
pub fn identifiers<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

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
