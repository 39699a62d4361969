//! A table's place, as people write it and as SQL.

use super::write_types;
use crate::quote::clickhouse as quote;

/// A table's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
}

impl Place {
    /// As SQL.
    pub fn sql(&self) -> String {
        quote::table(&self.database, &self.table)
    }

    /// As people write it.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

/// Reads `table`, `database.table` or either part in backticks or double quotes, which a name with a dot needs.
pub fn parse(text: &str) -> Result<(Option<String>, String), String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let end = match rest.chars().next() {
            Some('`' | '"') => write_types::quoted_end(rest).ok_or_else(|| format!("the name {text} has a quote that does not end"))?,
            _ => rest.find('.').unwrap_or(rest.len()),
        };
        let part = write_types::unquote(&rest[..end]);
        if part.is_empty() || part.contains('\0') {
            return Err(format!("\"{text}\" is no table's name: a part of it is empty"));
        }
        parts.push(part);
        match rest[end..].strip_prefix('.') {
            Some(more) => rest = more,
            None if rest[end..].is_empty() => break,
            None => return Err(format!("\"{text}\" is no table's name: something follows a quoted part")),
        }
    }
    match (parts.pop(), parts.pop(), parts.pop()) {
        (Some(table), database, None) => Ok((database, table)),
        _ => Err(format!("\"{text}\" has more than a database and a table: put a name that holds a dot in backticks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_may_hold_anything_in_quotes() {
        let named = |database: &str, table: &str| Ok(((!database.is_empty()).then(|| database.to_owned()), table.to_owned()));
        assert_eq!(parse("delays"), named("", "delays"));
        assert_eq!(parse("analytics.delays"), named("analytics", "delays"));
        assert_eq!(parse("`a.b`.\"c.d\""), named("a.b", "c.d"));
        assert_eq!(parse("`x``y\\`z`"), named("", "x`y`z"));
        assert_eq!(parse("größe; drop table x; --"), named("", "größe; drop table x; --"));
        assert_eq!(parse("a.b.c"), Err("\"a.b.c\" has more than a database and a table: put a name that holds a dot in backticks".into()));
        for wrong in ["", ".", "a.", ".a", "`a", "`a`b", "``", "a..b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let hostile = Place { database: "a`b".into(), table: "x`; drop table y; --".into() };
        assert_eq!(hostile.sql(), "`a\\`b`.`x\\`; drop table y; --`");
    }
}
