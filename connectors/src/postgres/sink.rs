//! The `postgres` sink: its settings, what can be known to fail before anything runs, and what a run would change.
//!
//! **Modes.** As those of the lake, on a table that keeps what it is: `replace` keeps the table's views, grants, foreign keys and indexes,
//! and rows that other tables refer to are updated in their place. `merge` goes by `insert … on conflict` where the table has a unique
//! index on exactly the key columns, and otherwise by update and insert under a lock that lets readers go on; rows that would not change are not
//! written. A table that does not exist is made, with its schema: `merge` gives it a primary key, `delete_insert` an index on the key,
//! `snapshot` a unique index on the key and `valid_from`.
//!
//! **Columns.** A column that the table has and the rows lack keeps its old value in `merge`, and gets its default in new rows. One that has
//! a default, or that the database generates, nobody misses. A column fits where every value of its type does; what would be
//! rounded or cut does not.
//!
//! **Partitions.** A partitioned table is its owner's to make: which partitions there are is no property of rows. Weir loads it like any other.
//!
//! **Stage and publish** is described in `load.rs`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::SecondsFormat;
use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::Row;
use weir_pipelines::{Diagnostic, Mode};

use super::{
    connect::{Pool, Session, application_name},
    ddl::{add_columns, add_key, add_versions, create_table},
    failed::Doing,
    ledger::Ledger,
    load::{PostgresLoad, Start},
    name::TableName,
    table::{self, Existing, Fit, Rules, by_key},
    write_types::{self, RowColumn},
};
use crate::{
    Change, Config, Load, Sink, SinkKind,
    context::SinkContext,
    error::{Error, Result},
    quote,
};

/// Loads a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSink {
    /// The connection's name in `weir.toml`. Example: `"warehouse"`.
    pub connection: String,
    /// The table to load, as `schema.table`; without a schema it is in `public`. It is created where it does not exist.
    /// Example: `"analytics.delays"`.
    pub table: String,
    /// Whether a table that is made here gets a primary key (`merge`) or an index (`delete_insert`, `snapshot`) on its key. Default true.
    #[serde(default = "yes")]
    pub primary_key: bool,
    /// Connections that send rows at once, where they go to a new or a staged table. Default: the run's partitions, and never more than
    /// `pool_max` of the connection. Example: `4`.
    #[serde(default)]
    pub parallel: Option<usize>,
}

fn yes() -> bool {
    true
}

impl Config for PostgresSink {
    const KIND: &'static str = "postgres";
    const SUMMARY: &'static str = "a table of a Postgres database";
    const EXAMPLE: &'static str = r#"[sink.warehouse]
from = "latest"
mode = "append"
[sink.warehouse.postgres]
connection = "warehouse"
table = "analytics.delays"
"#;
}

/// The sink.
pub const SINK: SinkKind = SinkKind {
    kind: PostgresSink::KIND,
    summary: PostgresSink::SUMMARY,
    example: PostgresSink::EXAMPLE,
    schema: || schemars::schema_for!(PostgresSink),
    read: |settings| {
        let sink: PostgresSink = settings.read()?;
        let mut wrong = Vec::new();
        if let Err(error) = TableName::parse(&sink.table) {
            wrong.push(super::told(settings, error));
        }
        if sink.parallel == Some(0) {
            wrong.push(Diagnostic::error("wrong-value", "\"parallel\" is 1 or more").at(&settings.file, settings.span_of("parallel"), ""));
        }
        if wrong.is_empty() { Ok(Arc::new(sink)) } else { Err(wrong) }
    },
    types: write_types::type_table,
    column: |field| write_types::map(field).map(|mapped| (mapped.sql, mapped.loss.is_none())),
    resume: |state, cx| Ok(Arc::new(PostgresLoad::resume(state, cx)?)),
};

/// A table as messages name it: `warehouse.public.delays`, a part that could be read in two ways in double quotes.
pub fn destination(connection: &str, name: &TableName) -> String {
    let part = |part: &str| if part.contains(['.', '"']) { quote::identifier(part) } else { part.to_owned() };
    format!("{connection}.{}.{}", part(name.schema.as_deref().unwrap_or("public")), part(&name.table))
}

impl PostgresSink {
    /// The table with its schema.
    fn name(&self) -> Result<TableName> {
        let name = TableName::parse(&self.table)?;
        Ok(TableName { schema: Some(name.schema.unwrap_or_else(|| "public".to_owned())), table: name.table })
    }

    fn rules(cx: &SinkContext) -> Rules {
        Rules { step: cx.step.clone(), mode: cx.mode, key: cx.key.clone(), on_schema_change: cx.on_schema_change }
    }

    /// Looks at the table and fits the rows to it.
    async fn look(&self, session: &mut Session, rows: &SchemaRef, cx: &SinkContext) -> Result<(TableName, Option<Existing>, Fit)> {
        let name = self.name()?;
        let columns = columns(rows, cx)?;
        let existing = table::look(session, &name).await?;
        let fit = table::fit(rows, &columns, existing.as_ref(), &name, &Self::rules(cx))?;
        if existing.is_some() {
            check_rights(session, &name, cx.mode).await?;
        }
        Ok((name, existing, fit))
    }
}

fn columns(rows: &SchemaRef, cx: &SinkContext) -> Result<Vec<RowColumn>> {
    write_types::row_columns(rows, &cx.allow_lossy).map_err(|mut wrong| wrong.remove(0))
}

/// Fails where the connection's user lacks a right on the table that the mode needs.
async fn check_rights(session: &mut Session, name: &TableName, mode: Mode) -> Result<()> {
    let needed: &[&str] = match mode {
        Mode::Append => &["INSERT"],
        Mode::Replace => &["INSERT", "DELETE"],
        Mode::DeleteInsert => &["SELECT", "INSERT", "DELETE"],
        Mode::Merge | Mode::Snapshot => &["SELECT", "INSERT", "UPDATE"],
    };
    let doing = format!("look at the rights on table \"{name}\"");
    let checks: Vec<_> = needed
        .iter()
        .map(|right| match *right {
            "DELETE" => "has_table_privilege($1::regclass, 'DELETE')".to_owned(),
            right => format!("has_any_column_privilege($1::regclass, '{right}')"),
        })
        .collect();
    let found = session.fetch(&format!("select {}", checks.join(", ")), &[&name.sql()], &doing).await?;
    let mut lacks = Vec::new();
    for (index, right) in needed.iter().enumerate() {
        if let Some(row) = found.first()
            && !row.try_get::<bool, _>(index).doing(&doing)?
        {
            lacks.push(right.to_lowercase());
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let user = session.pool().user().to_owned();
    Err(Error::user("no-privilege", format!("user \"{user}\" may not {} in table \"{name}\"", lacks.join(", "))).help(format!(
        "let the table's owner say: grant {} on {} to {}",
        lacks.join(", "),
        name.sql(),
        quote::identifier(&user)
    )))
}

#[async_trait]
impl Sink for PostgresSink {
    fn destination(&self, _: &SinkContext) -> String {
        match self.name() {
            Ok(name) => destination(&self.connection, &name),
            Err(_) => format!("{}.{}", self.connection, self.table),
        }
    }

    fn check(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(), Vec<Error>> {
        let name = self.name().map_err(|error| vec![error])?;
        let columns = write_types::row_columns(rows, &cx.allow_lossy)?;
        table::fit(rows, &columns, None, &name, &Self::rules(cx)).map(drop).map_err(|error| vec![error])
    }

    async fn plan(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Change> {
        let pool = Pool::open(&cx.run, &self.connection).await?;
        let mut session = pool.begin_read(&application_name(&cx.run.run, &cx.step), None).await?;
        let (name, existing, fit) = self.look(&mut session, rows, cx).await?;
        let mut steps = Ledger::of(&name).missing(&mut session).await?;
        session.rollback().await;
        steps.extend(self.steps(&name, existing.as_ref(), &fit, cx));
        Ok(self.change(&name, existing.as_ref(), &fit, steps))
    }

    async fn standing(&self, cx: &SinkContext) -> Result<Option<serde_json::Value>> {
        let pool = Pool::open(&cx.run, &self.connection).await?;
        let mut session = pool.begin_read(&application_name(&cx.run.run, &cx.step), None).await?;
        let existing = table::look(&mut session, &self.name()?).await?;
        session.rollback().await;
        Ok(existing.map(|existing| serde_json::to_value(existing).expect("names and numbers are JSON")))
    }

    async fn recall(&self, rows: &SchemaRef, cx: &SinkContext, standing: Option<&serde_json::Value>) -> Result<Option<Change>> {
        // What another version wrote is as good as nothing.
        let Some(existing) = standing.and_then(|standing| Existing::deserialize(standing).ok()) else { return Ok(None) };
        let name = self.name()?;
        let fit = table::fit(rows, &columns(rows, cx)?, Some(&existing), &name, &Self::rules(cx))?;
        let steps = self.steps(&name, Some(&existing), &fit, cx);
        Ok(Some(self.change(&name, Some(&existing), &fit, steps)))
    }

    async fn open(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Arc<dyn Load>> {
        let pool = Pool::open(&cx.run, &self.connection).await?;
        let mut session = pool.begin_read(&application_name(&cx.run.run, &cx.step), None).await?;
        let (name, existing, fit) = self.look(&mut session, rows, cx).await?;
        session.rollback().await;
        let start = Start {
            connection: &self.connection,
            name: &name,
            existing: existing.as_ref(),
            fit: &fit,
            rules: &Self::rules(cx),
            keyed: self.primary_key && by_key(cx.mode),
            may_decide: cx.may_decide,
            parallel: self.parallel.unwrap_or(cx.run.partitions),
            parents_beside: existing.iter().flat_map(|existing| &existing.refers_to).any(|parent| {
                let parent = destination(&self.connection, parent);
                cx.beside.contains(&parent)
            }),
        };
        Ok(Arc::new(PostgresLoad::new(&cx.run, rows, &start)))
    }
}

impl PostgresSink {
    /// What is done to the table, in order: statements as they are sent, and how rows get there.
    fn steps(&self, name: &TableName, existing: Option<&Existing>, fit: &Fit, cx: &SinkContext) -> Vec<String> {
        let (sql, mut steps) = (name.sql(), Vec::new());
        match existing {
            None => {
                let staged: Vec<_> = fit.written.iter().map(|(column, _)| (column.name.clone(), column.sql.clone())).collect();
                steps.push(create_table(&sql, &staged));
                if cx.mode == Mode::Snapshot {
                    steps.push(add_versions(&sql, &cx.run.started_at.to_rfc3339_opts(SecondsFormat::Micros, true)));
                }
                steps.extend(self.primary_key.then(|| add_key(&sql, cx.mode, &cx.key)).flatten());
            }
            Some(_) if !fit.added.is_empty() => {
                steps.push(add_columns(&sql, fit.added.iter().map(|column| (column.name.as_str(), column.sql.as_str()))));
            }
            Some(_) => {}
        }
        let key = cx.key.join(", ");
        let unique = |existing: &Existing| {
            existing.unique.iter().any(|index| index.len() == cx.key.len() && index.iter().all(|c| cx.key.contains(c)))
        };
        steps.push(match (existing, cx.mode) {
            (None, _) | (_, Mode::Append) => "copy the rows into it".into(),
            (Some(existing), Mode::Replace) if !existing.referenced.is_empty() => {
                let tables: Vec<_> = existing.referenced.iter().map(|(_, table)| table.as_str()).collect();
                format!("update rows in their place, which {} refers to, delete those that are gone, add the others", tables.join(", "))
            }
            (Some(_), Mode::Replace) => "delete all rows, copy the new ones in".into(),
            (Some(existing), Mode::Merge) if unique(existing) => format!("insert the rows, on conflict ({key}) update those that differ"),
            (Some(_), Mode::Merge) => {
                format!("update rows with the same {key} that differ, add the others, while no one else writes the table")
            }
            (Some(_), Mode::DeleteInsert) => format!("delete rows whose {key} occurs, add the rows"),
            (Some(_), Mode::Snapshot) => format!("close current versions that changed, by {key}, and open new ones"),
        });
        steps
    }

    fn change(&self, name: &TableName, existing: Option<&Existing>, fit: &Fit, steps: Vec<String>) -> Change {
        Change {
            destination: destination(&self.connection, name),
            creates: existing.is_none(),
            adds: fit.added.iter().map(|column| column.name.clone()).collect(),
            columns: fit.table.iter().map(|column| (column.name.clone(), column.sql.clone())).collect(),
            not_null: fit.table.iter().filter(|column| !column.nullable).map(|column| column.name.clone()).collect(),
            steps,
        }
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
