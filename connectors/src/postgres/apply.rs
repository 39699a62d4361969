//! The SQL that brings staged rows into a table, in each mode. Who runs it, in which transaction, is `load.rs`.

use weir_pipelines::Mode;

use super::{
    table::{Existing, Fills, IS_CURRENT, VALID_FROM, VALID_TO},
    write_types::PgType,
};
use crate::quote::{identifier, identifiers};

/// Staged rows and the table they go to.
#[derive(Debug)]
pub struct Apply<'a> {
    /// The table, in SQL.
    pub target: &'a str,
    /// The staged rows' table, in SQL.
    pub stage: &'a str,
    /// The table as it stands, with the columns that were added for these rows.
    pub existing: &'a Existing,
    /// The columns that staged rows have.
    pub written: &'a [String],
    /// How rows meet what is there.
    pub mode: Mode,
    /// The columns that identify a row.
    pub key: &'a [String],
}

/// One statement of several.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// True where `$1` is the run's start.
    pub started: bool,
}

fn plain(sql: String) -> Statement {
    Statement { sql, started: false }
}

impl Apply<'_> {
    /// What has to be said, in order, in one transaction.
    pub fn statements(&self) -> Vec<Statement> {
        match self.mode {
            Mode::Append => vec![self.insert()],
            Mode::Replace => self.replace(),
            Mode::Merge => self.merge(),
            Mode::DeleteInsert => {
                let keys = identifiers(self.key);
                let delete = format!(
                    "delete from {} t using (select distinct {keys} from {}) s where {}",
                    self.target,
                    self.stage,
                    self.same("t", "s", self.key)
                );
                vec![self.lock(), plain(delete), self.insert()]
            }
            Mode::Snapshot => self.snapshot(),
        }
    }

    /// Readers go on; whoever writes waits until this is over, so that two loads never both find a row missing.
    fn lock(&self) -> Statement {
        plain(format!("lock table {} in share row exclusive mode", self.target))
    }

    fn insert(&self) -> Statement {
        plain(format!("insert into {} ({columns}) select {columns} from {}", self.target, self.stage, columns = identifiers(self.written)))
    }

    fn insert_missing(&self, by: &[String]) -> Statement {
        plain(format!(
            "insert into {} ({}) select {} from {} s where not exists (select from {} t where {})",
            self.target,
            identifiers(self.written),
            self.of("s", self.written),
            self.stage,
            self.target,
            self.same("t", "s", by)
        ))
    }

    fn merge(&self) -> Vec<Statement> {
        let others = self.without(self.key);
        if self.existing.unique.iter().any(|unique| same_set(unique, self.key)) {
            let action = if others.is_empty() {
                "do nothing".to_owned()
            } else {
                format!("do update set {} where {}", self.set(&others, "excluded"), self.differs("t", "excluded", &others))
            };
            return vec![plain(format!(
                "insert into {} as t ({columns}) select {columns} from {} on conflict ({}) {action}",
                self.target,
                self.stage,
                identifiers(self.key),
                columns = identifiers(self.written)
            ))];
        }
        // Of several rows that the table has with one key, one is left: a row takes the place of every row with its key.
        let single = format!(
            "delete from {target} t using {target} o, {} s where {} and {} and (t.tableoid, t.ctid) > (o.tableoid, o.ctid)",
            self.stage,
            self.same("t", "s", self.key),
            self.same("o", "s", self.key),
            target = self.target
        );
        let mut all = vec![self.lock(), plain(single)];
        all.extend(self.update(self.key, &others, &[]));
        all.push(self.insert_missing(self.key));
        all
    }

    /// Updates rows that differ. `reset`: columns that get their default again.
    fn update(&self, by: &[String], others: &[String], reset: &[String]) -> Option<Statement> {
        let mut set: Vec<String> = if others.is_empty() { Vec::new() } else { vec![self.set(others, "s")] };
        set.extend(reset.iter().map(|column| format!("{} = default", identifier(column))));
        // Whether a column has its default already cannot be asked, so such rows are always written.
        let differs = if reset.is_empty() { format!(" and ({})", self.differs("t", "s", others)) } else { String::new() };
        (!set.is_empty()).then(|| {
            plain(format!(
                "update {} t set {} from {} s where {}{differs}",
                self.target,
                set.join(", "),
                self.stage,
                self.same("t", "s", by)
            ))
        })
    }

    fn replace(&self) -> Vec<Statement> {
        let by = self
            .existing
            .referenced
            .iter()
            .map(|(columns, _)| columns)
            .find(|columns| columns.iter().all(|column| self.written.contains(column)));
        let Some(by) = by else {
            return vec![self.lock(), plain(format!("delete from {}", self.target)), self.insert()];
        };
        // Rows that others refer to stay in their place and get the new values; only those that are gone are deleted.
        let missing: Vec<String> = self
            .existing
            .columns
            .iter()
            .filter(|column| column.fills != Fills::Always && !self.written.contains(&column.name))
            .map(|column| column.name.clone())
            .collect();
        let gone =
            format!("delete from {} t where not exists (select from {} s where {})", self.target, self.stage, self.same("t", "s", by));
        let mut all = vec![self.lock()];
        all.extend(self.update(by, &self.without(by), &missing));
        all.push(plain(gone));
        all.push(self.insert_missing(by));
        all
    }

    fn snapshot(&self) -> Vec<Statement> {
        let others = self.without(self.key);
        let current = format!("{} and t.{}", self.same("t", "s", self.key), identifier(IS_CURRENT));
        let mut all = vec![self.lock()];
        if !others.is_empty() {
            let close = format!(
                "update {} t set {} = $1::timestamptz, {} = false from {} s where {current} and ({})",
                self.target,
                identifier(VALID_TO),
                identifier(IS_CURRENT),
                self.stage,
                self.differs("t", "s", &others)
            );
            all.push(Statement { sql: close, started: true });
        }
        // What was closed has no current version now, nor has what is new; what did not change still has one.
        let open = format!(
            "insert into {} ({}, {}) select {}, $1::timestamptz, null, true from {} s where not exists (select from {} t where {current})",
            self.target,
            identifiers(self.written),
            identifiers([VALID_FROM, VALID_TO, IS_CURRENT]),
            self.of("s", self.written),
            self.stage,
            self.target
        );
        all.push(Statement { sql: open, started: true });
        all
    }

    fn without(&self, key: &[String]) -> Vec<String> {
        self.written.iter().filter(|column| !key.contains(column)).cloned().collect()
    }

    fn of(&self, alias: &str, columns: &[String]) -> String {
        columns.iter().map(|column| format!("{alias}.{}", identifier(column))).collect::<Vec<_>>().join(", ")
    }

    fn same(&self, left: &str, right: &str, key: &[String]) -> String {
        key.iter()
            .map(|column| format!("{left}.{quoted} = {right}.{quoted}", quoted = identifier(column)))
            .collect::<Vec<_>>()
            .join(" and ")
    }

    fn set(&self, columns: &[String], from: &str) -> String {
        columns.iter().map(|column| format!("{quoted} = {from}.{quoted}", quoted = identifier(column))).collect::<Vec<_>>().join(", ")
    }

    /// Null equals null, and NaN NaN.
    fn differs(&self, left: &str, right: &str, columns: &[String]) -> String {
        let one = |column: &String| {
            let quoted = identifier(column);
            let pg = self.existing.columns.iter().find(|there| there.name == *column).map(|there| &there.pg);
            // Text that a collation takes for equal may still be other text, and some types have no equality.
            let by_text = |pg: &PgType| matches!(pg, PgType::Text(_) | PgType::Json | PgType::Other);
            match pg {
                Some(PgType::Array(inner, _)) if !by_text(inner) => format!("{left}.{quoted} is distinct from {right}.{quoted}"),
                Some(pg) if !by_text(pg) && !matches!(pg, PgType::Array(..)) => {
                    format!("{left}.{quoted} is distinct from {right}.{quoted}")
                }
                _ => format!("{left}.{quoted}::text collate \"C\" is distinct from {right}.{quoted}::text collate \"C\""),
            }
        };
        columns.iter().map(one).collect::<Vec<_>>().join(" or ")
    }
}

fn same_set(left: &[String], right: &[String]) -> bool {
    left.len() == right.len() && left.iter().all(|column| right.contains(column))
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
