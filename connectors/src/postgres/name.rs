//! What a person calls a table: `analytics.delays`, `delays`, `analytics."My ""Table"""`. Becoming SQL is `quote`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    quote,
};

/// Postgres cuts longer names off without an error.
const NAME_BYTES_MAX: usize = 63;

/// A table, with its schema where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema; without one, the server's `search_path` decides.
    pub schema: Option<String>,
    /// The table in it.
    pub table: String,
}

impl TableName {
    /// Reads a name. Dots outside double quotes separate schema and table. A part that starts with a double quote ends with one and has
    /// those inside it doubled, as in SQL; any other part is the name as written: spaces, capitals and quotes in it stand for themselves,
    /// and nothing is folded to lower case. Fails with Blame::User, pointing at the setting `table`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::user("wrong-table", format!("\"table\" is not the name of a table: {why}"))
                .setting("table")
                .help("write schema.table; put a name that has dots in double quotes: schema.\"my.table\"")
        };
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = first_part(rest).map_err(wrong)?;
            if part.is_empty() {
                return Err(wrong("a part of it is empty"));
            }
            if part.contains('\0') {
                return Err(wrong("it holds a NUL character"));
            }
            if part.len() > NAME_BYTES_MAX {
                return Err(wrong(&format!("\"{part}\" is longer than the {NAME_BYTES_MAX} bytes that Postgres keeps of a name")));
            }
            parts.push(part);
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(Self { schema: None, table }),
            (Some(schema), Some(table), None) => Ok(Self { schema: Some(schema), table }),
            _ => Err(wrong("it has more than two parts")),
        }
    }

    /// Makes the name of a table in the schema of this one.
    #[must_use]
    pub fn beside(&self, table: impl Into<String>) -> Self {
        Self { schema: self.schema.clone(), table: table.into() }
    }

    /// The name in SQL.
    pub fn sql(&self) -> String {
        quote::postgres::table(self.schema.as_deref(), &self.table)
    }
}

/// The name as a person would say it, without quotes: for messages, not for SQL.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

/// The first part, and what follows its dot.
fn first_part(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(match text.split_once('.') {
            Some((part, after)) => (part.to_owned(), Some(after)),
            None => (text.to_owned(), None),
        });
    };
    let mut part = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"').ok_or("a double quote is not closed")?;
        part.push_str(before);
        if let Some(after) = after.strip_prefix('"') {
            part.push('"');
            rest = after;
            continue;
        }
        return match after.strip_prefix('.') {
            Some(after) => Ok((part, Some(after))),
            None if after.is_empty() => Ok((part, None)),
            None => Err("something follows the closing double quote"),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (Option<String>, String) {
        let name = TableName::parse(text).expect("a name");
        (name.schema, name.table)
    }

    #[test]
    fn a_name_is_what_was_written() {
        let schema = |schema: &str, table: &str| (Some(schema.to_owned()), table.to_owned());
        assert_eq!(parsed("delays"), (None, "delays".into()));
        assert_eq!(parsed("analytics.delays"), schema("analytics", "delays"));
        assert_eq!(parsed("Analytics.My Delays"), schema("Analytics", "My Delays"));
        assert_eq!(parsed("analytics.\"My \"\"Table\"\"\""), schema("analytics", "My \"Table\""));
        assert_eq!(parsed("\"a.b\".\"c.d\""), schema("a.b", "c.d"));
        assert_eq!(parsed("\"a.b\""), (None, "a.b".into()));
        assert_eq!(parsed("My \"T\"; drop table x; --"), (None, "My \"T\"; drop table x; --".into()));
        assert_eq!(TableName::parse("s.My \"T\"").expect("a name").sql(), "\"s\".\"My \"\"T\"\"\"");
    }

    #[test]
    fn what_is_no_name_is_said() {
        let long = "x".repeat(64);
        for (text, why) in [
            ("", "a part of it is empty"),
            ("a.", "a part of it is empty"),
            (".a", "a part of it is empty"),
            ("a.b.c", "it has more than two parts"),
            ("\"; drop table x; --", "a double quote is not closed"),
            ("\"a\"b", "something follows the closing double quote"),
            ("a\0b", "it holds a NUL character"),
            (&long, "is longer than the 63 bytes that Postgres keeps of a name"),
        ] {
            let error = TableName::parse(text).expect_err(text);
            assert!(error.message.ends_with(why), "{text}: {}", error.message);
            assert_eq!((error.code, error.setting.as_deref()), ("wrong-table", Some("table")));
        }
    }

    proptest! {
        #[test]
        fn what_sql_quotes_is_read_back(schema in "[^\\x00]{1,15}", table in "[^\\x00]{1,15}") {
            let name = TableName { schema: Some(schema), table };
            prop_assert_eq!(TableName::parse(&name.sql()).expect("a name"), name);
        }
    }
}
