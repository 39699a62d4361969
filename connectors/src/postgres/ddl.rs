//! The statements that make a table and change it. When they are said is `load.rs`; `weir plan` shows them.

use weir_pipelines::Mode;

use super::table::{IS_CURRENT, VALID_FROM, VALID_TO};
use crate::quote::{identifier, identifiers, postgres::literal};

/// The statement that makes a new table.
pub fn create_table(name: &str, columns: &[(String, String)]) -> String {
    let columns: Vec<_> = columns.iter().map(|(column, sql)| format!("{} {sql}", identifier(column))).collect();
    format!("create table {name} ({})", columns.join(", "))
}

/// The statement that adds the columns of versions to a table of which every row is current.
pub fn add_versions(name: &str, started: &str) -> String {
    let [from, to, current] = [VALID_FROM, VALID_TO, IS_CURRENT].map(identifier);
    format!(
        "alter table {name} add column {from} timestamp with time zone not null default {}, add column {to} timestamp with time zone, \
         add column {current} boolean not null default true; \
         alter table {name} alter column {from} drop default, alter column {current} drop default",
        literal(started)
    )
}

/// The statement that gives a new table the index its mode goes by.
pub fn add_key(name: &str, mode: Mode, key: &[String]) -> Option<String> {
    let columns = identifiers(key);
    match mode {
        Mode::Merge => Some(format!("alter table {name} add primary key ({columns})")),
        Mode::DeleteInsert => Some(format!("create index on {name} ({columns})")),
        Mode::Snapshot => Some(format!("create unique index on {name} ({columns}, {})", identifier(VALID_FROM))),
        Mode::Append | Mode::Replace => None,
    }
}

/// The statement that adds columns to a table.
pub fn add_columns<'a>(name: &str, columns: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let adds: Vec<_> = columns.into_iter().map(|(column, sql)| format!("add column {} {sql}", identifier(column))).collect();
    format!("alter table {name} {}", adds.join(", "))
}
