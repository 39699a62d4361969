//! The `clickhouse` sink: rows become a table of the MergeTree family.
//!
//! ```toml
//! [sink.olap]
//! from = "delays"
//! mode = "merge"
//! key = ["carrier", "flight"]
//! [sink.olap.clickhouse]
//! connection = "olap"
//! table = "analytics.delays"
//! partition_by = "carrier"
//! ```
//!
//! **Stage and publish.** Rows stream into a table of their own, `<table>__weir_<token>_s`, of the target's structure. Publishing attaches
//! its parts to the target (`append`, `merge`), or exchanges the target for the next table, built beside it (`replace`, `delete_insert`,
//! `snapshot`), or renames the next table where there was none. All of this moves metadata, not rows. A ledger table `weir_load` in the target's
//! database notes what was published. A hidden column `_weir_version` (`MATERIALIZED`, so `select *` and `insert` do not see it) says
//! which load a row came with; a table that lacks it gains it. A server that knows how, and lets the user say so, leaves fewer than 64
//! parts of a stage unmerged: the target merges them after the run, and until then merging would take processor time from loading.
//!
//! **What a reader sees.** Never part of a load: the parts of one `ATTACH PARTITION ALL FROM` appear at once, and so does an exchanged table.
//! Two exceptions are ClickHouse's own. A server that dies in the middle of attaching several parts may show some of them when it is
//! back, until the next `weir run` or `weir runs resume` removes and attaches them whole; loads of less than 64 MB are merged into one
//! part per partition first, so that for a table without partitions the attaching is one rename. And a replicated table takes each partition
//! in a step of its own.
//!
//! **Modes.**
//! - `append` adds the rows to a `MergeTree` or `ReplacingMergeTree` table. Rows that others insert meanwhile stay. An engine whose merges make other
//!   rows of those loaded (`SummingMergeTree`, `AggregatingMergeTree`, …) is refused: whether a run is there could not be told.
//! - `replace` makes the rows the whole table. Where their columns are the table's, everything else about the table stays (codecs, indices,
//!   TTL, settings, grants); where they are others, the table is made anew as the settings say.
//! - `merge` needs `key`, and a `ReplacingMergeTree(_weir_version)` sorted by it, as Weir makes it. A row takes the place of the one with its
//!   key **when ClickHouse merges parts, or at once for those who ask with `FINAL`**: a plain `select` sees older versions beside the new
//!   one until then. `select … final` is always right, as is every select after `optimize table … final`. Of two runs, the one that began later wins.
//!   A row that another program inserts has version 0 and gives way to any that Weir loaded with its key. Two rows of one run with
//!   the same key are an error (`duplicate-key`). The rows need every column of the table.
//! - `delete_insert` needs `key`. All rows of the table whose key occurs are left out of the next table, then the rows are added. A key may occur
//!   several times. Partitions without such a key are attached, not copied. The keys of a run have to fit the server's memory.
//! - `snapshot` needs `key` and keeps history (a slowly changing dimension of type 2) with `valid_from`, `valid_to` and `is_current`, exactly as
//!   the lake's does: a row that differs from the current version of its key closes it at the run's start and opens the next; an unchanged row changes
//!   nothing; a key that does not occur stays current. Null equals null and NaN equals NaN.
//!
//! The last two, and `replace`, put the next table in the target's place: where another program has changed the table since the next
//! one was built, it is built again; what it inserts in the very moment of the exchange stays in the table that goes.
//!
//! **Materialized views** that read the target do not see loads: ClickHouse feeds them by `insert`, and parts are attached.
//!
//! **Keys and nulls.** A null in a key is an error (`null-key`). Columns are `Nullable` where the rows' may be null, except those of the
//! key and of `order_by`. A null in a column that takes none is an error, never a default.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_pipelines::{Diagnostic, Diagnostics, Mode, Settings};

use super::{
    ClickhouseConnection,
    load::{self, ClickhouseLoad, Db},
    name::{self, Place},
    publish,
    table::{self, Existing, Facts, Fit, Rules, VERSION},
    write_types,
};
use crate::{
    Change, Config, Load, Sink, SinkKind,
    context::{RunContext, SinkContext},
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// Loads a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseSink {
    /// The connection's name in `weir.toml`. Example: `"olap"`.
    pub connection: String,
    /// The table to load, with its database where that is not the connection's; it is created where it does not exist. A name that
    /// holds a dot stands in backticks or double quotes. Example: `"analytics.delays"`.
    pub table: String,
    /// The columns that a new table keeps its rows in the order of. Default: the step's key, else none. Example: `["carrier", "time_hour"]`.
    #[serde(default)]
    pub order_by: Vec<String>,
    /// The expression that parts of a new table go by, in ClickHouse's SQL. Default: none. Example: `"toYYYYMM(time_hour)"`.
    pub partition_by: Option<String>,
    /// The engine of a new table, one of the MergeTree family. Default `"MergeTree"`; for mode merge it becomes its Replacing kind.
    /// Example: `"ReplicatedMergeTree"`.
    pub engine: Option<String>,
    /// When rows of a new table go, in ClickHouse's SQL. Default: never. Example: `"time_hour + interval 2 year"`.
    pub ttl: Option<String>,
    /// Settings of a new table's engine. Default: the server's. Example: `{ index_granularity = 4096 }`.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// Rows per part that the server writes while staging, from 10000 to 10000000. Default 1000000. Fewer need less of the server's memory,
    /// more leave it less to merge.
    pub insert_rows: Option<u64>,
}

/// The value of an engine's setting.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Rows per part, where the settings do not say.
pub const INSERT_ROWS: u64 = 1_000_000;

impl Config for ClickhouseSink {
    const KIND: &'static str = "clickhouse";
    const SUMMARY: &'static str = "a table of a ClickHouse server";
    const EXAMPLE: &'static str = r#"[sink.olap]
from = "latest"
mode = "append"
[sink.olap.clickhouse]
connection = "olap"
table = "delays"
order_by = ["carrier", "time_hour"]
"#;
}

/// The sink.
pub const SINK: SinkKind = SinkKind {
    kind: ClickhouseSink::KIND,
    summary: ClickhouseSink::SUMMARY,
    example: ClickhouseSink::EXAMPLE,
    schema: || schemars::schema_for!(ClickhouseSink),
    read,
    types: write_types::type_table,
    column: |field| write_types::map(field).map(|mapped| (mapped.column.to_string(), mapped.loss.is_none())),
    resume: |state, cx: &Arc<RunContext>| Ok(Arc::new(ClickhouseLoad::resume(state, cx)?)),
};

fn read(settings: &Settings) -> Result<Arc<dyn Sink>, Diagnostics> {
    let sink: ClickhouseSink = settings.read()?;
    let mut wrong = Vec::new();
    let mut note = |key: &str, message: String| {
        wrong.push(Diagnostic::error("wrong-value", message).at(&settings.file, settings.span_of(key), ""));
    };
    if let Err(message) = name::parse(&sink.table) {
        note("table", message);
    }
    if let Err(error) = sink.engine_for(Mode::Append) {
        note("engine", error.message);
    }
    if let Err(error) = sink.engine_settings() {
        note("settings", error.message);
    }
    if sink.insert_rows.is_some_and(|rows| !(10_000..=10_000_000).contains(&rows)) {
        note("insert_rows", "\"insert_rows\" is not from 10000 to 10000000".into());
    }
    if wrong.is_empty() { Ok(Arc::new(Configured(Arc::new(sink)))) } else { Err(wrong) }
}

impl ClickhouseSink {
    /// The engine of a new table, with its arguments.
    pub(super) fn engine_for(&self, mode: Mode) -> Result<String> {
        let given = self.engine.as_deref().unwrap_or("MergeTree").trim();
        let (name, arguments, rest) = table::split_engine(given);
        let wrong = |why: &str| Error::user("wrong-value", format!("engine \"{given}\" {why}")).setting("engine");
        if !name.ends_with("MergeTree") || !rest.trim().is_empty() || (given.contains('(') && !given.ends_with(')')) {
            return Err(wrong("is none of the MergeTree family").help("for instance \"MergeTree\" or \"ReplicatedMergeTree\""));
        }
        let base = table::base_engine(name);
        let own = write_types::split(arguments).into_iter().map(str::trim).filter(|part| !part.is_empty() && !part.starts_with('\''));
        if mode == Mode::Merge && base == "MergeTree" {
            let mut all: Vec<&str> = write_types::split(arguments).into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
            all.push(VERSION);
            return Ok(format!("{}ReplacingMergeTree({})", &name[..name.len() - base.len()], all.join(", ")));
        }
        if mode == Mode::Merge && !(base == "ReplacingMergeTree" && own.eq([VERSION])) {
            return Err(
                wrong("cannot hold what mode = \"merge\" loads").help("leave it out, or say \"MergeTree\" or \"ReplicatedMergeTree\"")
            );
        }
        if mode == Mode::Snapshot && base != "MergeTree" {
            return Err(wrong("cannot hold what mode = \"snapshot\" loads").help("leave it out"));
        }
        Ok(given.to_owned())
    }

    /// ` SETTINGS …` of a new table, or nothing.
    pub(super) fn engine_settings(&self) -> Result<String> {
        let mut parts = Vec::with_capacity(self.settings.len());
        for (name, value) in &self.settings {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(Error::user("wrong-value", format!("\"{name}\" is no setting of an engine")).setting("settings"));
            }
            let value = match value {
                Setting::Flag(value) => u8::from(*value).to_string(),
                Setting::Whole(value) => value.to_string(),
                Setting::Number(value) => value.to_string(),
                Setting::Text(value) => quote::literal(value),
            };
            parts.push(format!("{name} = {value}"));
        }
        Ok(if parts.is_empty() { String::new() } else { format!(" SETTINGS {}", parts.join(", ")) })
    }

    /// The table's place. `run` knows the connection's database.
    fn place(&self, cx: &RunContext) -> Result<Place> {
        let (database, table) = name::parse(&self.table).map_err(|why| Error::user("wrong-value", why).setting("table"))?;
        let database = match database {
            Some(database) => database,
            None => {
                let connection: ClickhouseConnection = cx.connections.get(&self.connection)?;
                connection.database.unwrap_or_else(|| "default".into())
            }
        };
        Ok(Place { database, table })
    }
}

/// A sink whose settings were read.
#[derive(Debug)]
pub(super) struct Configured(pub(super) Arc<ClickhouseSink>);

impl Configured {
    fn rules(&self, cx: &SinkContext) -> Rules {
        Rules { step: cx.step.clone(), mode: cx.mode, key: cx.key.clone(), on_schema_change: cx.on_schema_change, settings: self.0.clone() }
    }

    /// Looks at the table and fits the rows to it.
    async fn look(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(Db, Place, Facts, Option<Existing>, Fit)> {
        let columns = table::columns(rows, &cx.allow_lossy)?;
        let rules = self.rules(cx);
        table::check(&columns, &rules)?;
        let place = self.0.place(&cx.run)?;
        let db = Db::open(&cx.run, &self.0.connection, &place).await?;
        let (facts, existing) = table::look(&db, &place).await?;
        let fit = table::fit(&columns, existing.as_ref(), &rules, &facts)?;
        Ok((db, place, facts, existing, fit))
    }

    /// Starts a load.
    pub(super) async fn start(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<ClickhouseLoad> {
        let (db, place, facts, existing, fit) = self.look(rows, cx).await?;
        ClickhouseLoad::new(db, place, &facts, existing.as_ref(), &fit, &self.rules(cx), rows, &cx.run).await
    }
}

#[async_trait]
impl Sink for Configured {
    fn destination(&self, cx: &SinkContext) -> String {
        match self.0.place(&cx.run) {
            Ok(place) => format!("{}.{}", self.0.connection, place.shown()),
            Err(_) => format!("{}.{}", self.0.connection, self.0.table),
        }
    }

    fn check(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(), Vec<Error>> {
        table::columns(rows, &cx.allow_lossy).and_then(|columns| table::check(&columns, &self.rules(cx))).map_err(|error| vec![error])
    }

    fn never_null(&self, rows: &SchemaRef) -> Vec<(&'static str, String)> {
        let within = |setting: &Option<String>, name: &str| setting.as_ref().is_some_and(|setting| table::mentions(setting, name));
        let setting = |name: &String| match name {
            name if self.0.order_by.contains(name) => Some("order_by"),
            name if within(&self.0.partition_by, name) => Some("partition_by"),
            name if within(&self.0.ttl, name) => Some("ttl"),
            _ => None,
        };
        rows.fields().iter().filter_map(|field| Some((setting(field.name())?, field.name().clone()))).collect()
    }

    async fn plan(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Change> {
        let (db, place, _, existing, fit) = self.look(rows, cx).await?;
        let mut steps = Vec::new();
        if !publish::has_ledger(&db, &place.database).await? {
            steps.push(publish::ledger_ddl(&place.database));
        }
        steps.extend(self.steps(&place, existing.as_ref(), &fit, cx));
        Ok(self.change(existing.as_ref(), &fit, steps, cx))
    }

    async fn standing(&self, cx: &SinkContext) -> Result<Option<serde_json::Value>> {
        let place = self.0.place(&cx.run)?;
        let db = Db::open(&cx.run, &self.0.connection, &place).await?;
        let (server, table) = table::look(&db, &place).await?;
        Ok(table.map(|table| serde_json::to_value(Standing { server, table }).expect("names and numbers are JSON")))
    }

    async fn recall(&self, rows: &SchemaRef, cx: &SinkContext, standing: Option<&serde_json::Value>) -> Result<Option<Change>> {
        // What another version wrote is as good as nothing.
        let Some(Standing { server, table }) = standing.and_then(|standing| Standing::deserialize(standing).ok()) else { return Ok(None) };
        let fit = table::fit(&table::columns(rows, &cx.allow_lossy)?, Some(&table), &self.rules(cx), &server)?;
        let steps = self.steps(&self.0.place(&cx.run)?, Some(&table), &fit, cx);
        Ok(Some(self.change(Some(&table), &fit, steps, cx)))
    }

    async fn open(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Arc<dyn Load>> {
        Ok(Arc::new(self.start(rows, cx).await?))
    }
}

/// What is kept of a table.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    server: Facts,
    table: Existing,
}

impl Configured {
    /// What is done to the table, in order: statements as they are sent, and how rows get there. What is said of a table that is put in its
    /// place is said of it by the name that it will have.
    fn steps(&self, place: &Place, existing: Option<&Existing>, fit: &Fit, cx: &SinkContext) -> Vec<String> {
        let target = place.sql();
        let key = cx.key.join(", ");
        let attaches = load::attaches(existing, fit, cx.mode);
        let mut steps = Vec::new();
        match (&fit.new, existing) {
            (Some(new), _) => {
                steps.push(format!("create table {target} ({}) engine = {}{}", table::column_list(&fit.table, 0), new.engine, new.tail))
            }
            (None, Some(existing)) if attaches => {
                steps.extend(load::alterations(existing, &fit.added).into_iter().map(|change| format!("alter table {target} {change}")));
            }
            (None, _) => steps.extend(load::additions(&fit.added).map(|change| format!("alter table {target} {change}"))),
        }
        steps.push(match cx.mode {
            Mode::Append if attaches => format!("alter table {target} attach partition all from the staged rows"),
            Mode::Merge if attaches => {
                format!("alter table {target} attach partition all from the staged rows: they replace rows with the same {key}")
            }
            _ if existing.is_none() => "rename the table of the staged rows to it".into(),
            Mode::DeleteInsert => format!("exchange it for a table without the rows whose {key} occurs, and with the staged rows"),
            Mode::Snapshot => {
                format!("exchange it for a table in which current versions that changed, by {key}, are closed and new ones open")
            }
            _ => "exchange it for the table of the staged rows".into(),
        });
        steps
    }

    fn change(&self, existing: Option<&Existing>, fit: &Fit, steps: Vec<String>, cx: &SinkContext) -> Change {
        Change {
            destination: self.destination(cx),
            creates: existing.is_none(),
            adds: fit.added.iter().map(|column| column.name.clone()).collect(),
            columns: fit.table.iter().map(|column| (column.name.clone(), column.column.to_string())).collect(),
            not_null: match (existing, &fit.new) {
                // A list, a tuple or a map without a value is an empty one, or an error of its own.
                (Some(_), None) => {
                    let strict = fit.table.iter().filter(|column| !column.column.is_nullable() && !column.column.is_nested());
                    strict.map(|column| column.name.clone()).collect()
                }
                _ => Vec::new(),
            },
            steps,
        }
    }
}

#[cfg(test)]
#[path = "sink_bench.rs"]
mod bench;
#[cfg(test)]
#[path = "sink_tests.rs"]
mod live_tests;
#[cfg(test)]
#[path = "sink_types_tests.rs"]
mod types_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(more: &str) -> ClickhouseSink {
        toml::from_str(&format!("connection = \"olap\"\ntable = \"t\"\n{more}")).expect("settings")
    }

    #[test]
    fn merge_makes_the_engine_its_replacing_kind() {
        for (given, merged) in [
            ("", "ReplacingMergeTree(_weir_version)"),
            ("engine = \"MergeTree()\"", "ReplacingMergeTree(_weir_version)"),
            ("engine = \"ReplicatedMergeTree\"", "ReplicatedReplacingMergeTree(_weir_version)"),
            (
                "engine = \"ReplicatedMergeTree('/t/{uuid}', '{replica}')\"",
                "ReplicatedReplacingMergeTree('/t/{uuid}', '{replica}', _weir_version)",
            ),
            ("engine = \"ReplacingMergeTree(_weir_version)\"", "ReplacingMergeTree(_weir_version)"),
        ] {
            assert_eq!(sink(given).engine_for(Mode::Merge).expect("an engine"), merged);
        }
        assert_eq!(sink("").engine_for(Mode::Append).expect("an engine"), "MergeTree");
        let error = sink("engine = \"SummingMergeTree\"").engine_for(Mode::Merge).expect_err("it sums");
        assert_eq!(error.message, "engine \"SummingMergeTree\" cannot hold what mode = \"merge\" loads");
        for engine in ["Memory", "MergeTree; drop table x", "MergeTree() order by a", "MergeTree(a"] {
            let error = sink(&format!("engine = \"{engine}\"")).engine_for(Mode::Append).expect_err("no engine");
            assert_eq!(error.message, format!("engine \"{engine}\" is none of the MergeTree family"));
        }
    }

    #[test]
    fn settings_of_the_engine_are_written_as_values() {
        let settings = sink("settings = { index_granularity = 4096, storage_policy = \"a'b\", x = true }").engine_settings();
        assert_eq!(settings.expect("settings"), " SETTINGS index_granularity = 4096, storage_policy = 'a\\'b', x = 1");
        let error = sink("settings = { \"a = 1, b\" = 1 }").engine_settings().expect_err("no name");
        assert_eq!(error.message, "\"a = 1, b\" is no setting of an engine");
    }
}
