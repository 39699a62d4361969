//! The `lake` sink: rows become tables of the embedded warehouse, Delta Lake tables in a folder or bucket that
//! `weir sql` reads as `lake.<schema>.<table>`, and that Spark, DuckDB, Polars and pandas read as well.
//!
//! ```toml
//! [sink.lake]
//! from = "delays"
//! mode = "merge"
//! key = ["carrier", "flight"]
//! [sink.lake.lake]
//! table = "flights.delays"
//! partition_by = ["carrier"]
//! ```
//!
//! **Stage and publish.** While rows stream, Parquet files (zstd, about `target_file_size` each, named after the run) are
//! written into the table's folder. No reader looks at them, because a reader goes by the table's log. Publishing is
//! one commit to that log. It carries the run as an application transaction and by name, so that publishing twice finds its own commit
//! and changes nothing. A run that does not publish deletes its files.
//!
//! **Modes.**
//! - `append` adds the rows.
//! - `replace` makes the rows the whole table; their columns become its columns. Earlier versions can still be queried.
//! - `merge` needs `key`. A row takes the place of every row with its key, or is added. Columns that the table has and the
//!   rows lack keep their old value. Two rows of one run with the same key are an error (`duplicate-key`): put a
//!   `deduplicate` before the sink.
//! - `delete_insert` needs `key`. All rows of the table whose key occurs are deleted, then the rows are added. A key may
//!   occur several times.
//! - `snapshot` needs `key` and keeps history (a slowly changing dimension of type 2). Three columns are added: `valid_from`
//!   and `valid_to` (timestamps) and `is_current`. A row that differs from the current version of its key closes that version
//!   at the run's start and opens the next; an unchanged row changes nothing. A key that is in the table and not in the rows stays
//!   current: a source that has fallen silent about a row has not said that it is gone. A column that is new to the
//!   table counts as changed where it is not null; one that the rows lack is not compared and is null in new versions.
//!
//! The last three rewrite only the files that hold a key of the run.
//!
//! **Keys.** A null in a key column is an error (`null-key`): null equals nothing, so such a row could never be found
//! again. Floating-point and nested columns cannot be keys. Text is compared byte by byte. In comparisons of `snapshot`, null equals null and NaN equals NaN.
//!
//! **Columns.** `on_schema_change` decides about new and missing columns: `fail` (default), `add_columns`, `ignore`. A column
//! of a narrower type than the table's is widened where every value fits (32-bit to 64-bit integers, and so on); any other change of
//! type is an error. Every Arrow type maps as the table in [`types`] says; a lossy mapping is refused unless the column is in `allow_lossy`.
//!
//! **Other writers.** Appending goes on top of whatever they committed meanwhile; every other mode works out its changes anew from the newest
//! version and tries again. Tables with column mapping, constraints, generated or identity columns, invariants or row tracking are refused.

mod cached;
mod files;
mod keys;
pub mod publish;
mod rewrite;
mod rows;
pub mod schema;
mod stage;
mod stats;
pub mod table;
pub mod types;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use deltalake::DeltaTable;
use serde::{Deserialize, Serialize};
use weir_pipelines::{Diagnostic, Diagnostics, Settings};

use crate::{
    Change, Config, Load, Sink, SinkKind,
    context::{RunContext, SinkContext},
    error::{Error, Result},
    known::KnownColumn,
};
pub use cached::Tables;
use publish::{LakeLoad, State};
use schema::{Existing, Fit, Rules};
use table::Place;
pub use table::{CommitOf, Version, commits, open_table, provider, tables, vacuum};
pub use types::type_table;

/// Where rows go in the lake.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// The table, as `schema.table`; without a dot the schema is `main`. Letters, digits, `_` and `-`. Example: `"flights.delays"`.
    pub table: String,
    /// Columns whose values divide the table into folders, so that queries about few values read few files. Default: none. For a
    /// table that exists, what it is partitioned by. Example: `["carrier"]`.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// The size at which a data file is closed and the next begun. Default `"128MB"`. Smaller suits tables that are merged into often, as
    /// whole files are rewritten.
    #[serde(default)]
    pub target_file_size: Option<String>,
}

impl Config for LakeConfig {
    const KIND: &'static str = "lake";
    const SUMMARY: &'static str = "a Delta Lake table in the project's lake: a folder or a bucket";
    const EXAMPLE: &'static str = "\
[sink.lake]
from = \"delays\"
mode = \"append\"
[sink.lake.lake]
table = \"flights.delays\"
partition_by = [\"carrier\"]
";
}

/// The `lake` sink.
pub const SINK: SinkKind = SinkKind {
    kind: LakeConfig::KIND,
    summary: LakeConfig::SUMMARY,
    example: LakeConfig::EXAMPLE,
    schema: || schemars::schema_for!(LakeConfig),
    read,
    types: type_table,
    column: |field| types::map(field.data_type()).map(|mapped| (types::delta_name(&mapped.lake), mapped.loss.is_none())),
    resume: |state, cx| Ok(Arc::new(LakeLoad::resume(state, cx)?)),
};

const FILE_BYTES: u64 = 128_000_000;

fn read(settings: &Settings) -> Result<Arc<dyn Sink>, Diagnostics> {
    let config: LakeConfig = settings.read()?;
    let mut wrong = Vec::new();
    let mut note = |key: &str, message: String| {
        wrong.push(Diagnostic::error("wrong-value", message).at(&settings.file, settings.span_of(key), ""));
    };
    let name = table::parse_name(&config.table).unwrap_or_else(|message| {
        note("table", message);
        Default::default()
    });
    let file_bytes = match config.target_file_size.as_deref().map(weir_pipelines::units::size_bytes) {
        None => FILE_BYTES,
        Some(Ok(bytes)) if bytes >= 1_000_000 => bytes,
        Some(Ok(_)) => {
            note("target_file_size", "a data file of less than 1MB costs more than it holds".into());
            FILE_BYTES
        }
        Some(Err(message)) => {
            note("target_file_size", message);
            FILE_BYTES
        }
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Arc::new(LakeSink { target: Target::Named(name.0, name.1), partition_by: config.partition_by, file_bytes }))
}

/// A sink that writes the table in `folder` (an absolute path or a URL), wherever that is. `name` is how messages call it.
pub fn at(folder: &str, name: &str, partition_by: &[String]) -> Arc<dyn Sink> {
    let target = Target::Folder { folder: folder.to_owned(), name: name.to_owned() };
    Arc::new(LakeSink { target, partition_by: partition_by.to_vec(), file_bytes: FILE_BYTES })
}

#[derive(Debug, Clone)]
enum Target {
    Named(String, String),
    Folder { folder: String, name: String },
}

#[derive(Debug, Clone)]
struct LakeSink {
    target: Target,
    partition_by: Vec<String>,
    file_bytes: u64,
}

impl LakeSink {
    fn place(&self, cx: &RunContext) -> Result<Place> {
        match &self.target {
            Target::Named(schema, table) => {
                let place = Place::named(&cx.lake, schema, table, &cx.environment)?;
                Ok(place.expect("what a sink calls its table is the name of a folder"))
            }
            Target::Folder { folder, name } => Place::at(folder, name, &cx.environment),
        }
    }

    fn rules(&self, cx: &SinkContext) -> Rules {
        Rules {
            step: cx.step.clone(),
            mode: cx.mode,
            key: cx.key.clone(),
            on_schema_change: cx.on_schema_change,
            partition_by: self.partition_by.clone(),
        }
    }

    /// Looks at the table and fits the rows to it.
    async fn look(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(Place, Option<DeltaTable>, Option<Existing>, Fit)> {
        let place = self.place(&cx.run)?;
        let columns = schema::lake_columns(rows, &cx.allow_lossy)?;
        let table = place.open(Version::Newest).await?;
        let existing = table.as_ref().map(|table| schema::existing(table, &place.name)).transpose()?;
        let fit = schema::fit(&columns, existing.as_ref(), &self.rules(cx))?;
        Ok((place, table, existing, fit))
    }
}

#[async_trait]
impl Sink for LakeSink {
    fn destination(&self, _: &SinkContext) -> String {
        match &self.target {
            Target::Named(schema, table) => format!("lake.{schema}.{table}"),
            Target::Folder { name, .. } => name.clone(),
        }
    }

    fn check(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<(), Vec<Error>> {
        let columns = schema::lake_columns(rows, &cx.allow_lossy);
        columns.and_then(|columns| schema::check(&columns, &self.rules(cx))).map_err(|error| vec![error])
    }

    async fn plan(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Change> {
        let (place, table, existing, fit) = self.look(rows, cx).await?;
        let mut steps = vec![format!("write Parquet files into \"{}\"", place.shown())];
        steps.extend(Self::steps(existing.as_ref(), &fit, cx));
        let version = table.as_ref().and_then(DeltaTable::version).map_or(0, |version| version + 1);
        steps.push(format!("commit all of it as version {version}"));
        Ok(Self::change(&place.name, existing.as_ref(), &fit, steps))
    }

    async fn standing(&self, cx: &SinkContext) -> Result<Option<serde_json::Value>> {
        let place = self.place(&cx.run)?;
        if place.local.is_some() {
            return Ok(None);
        }
        let table = place.open(Version::Newest).await?;
        let existing = table.as_ref().map(|table| schema::existing(table, &place.name)).transpose()?;
        Ok(existing.map(|existing| serde_json::to_value(Standing::from(&existing)).expect("names are JSON")))
    }

    async fn recall(&self, rows: &SchemaRef, cx: &SinkContext, standing: Option<&serde_json::Value>) -> Result<Option<Change>> {
        let place = self.place(&cx.run)?;
        let existing = match place.local {
            // A table on this machine says itself what it is.
            Some(_) => {
                let table = place.open(Version::Newest).await?;
                table.as_ref().map(|table| schema::existing(table, &place.name)).transpose()?
            }
            None => standing.and_then(|standing| Standing::deserialize(standing).ok()?.existing()),
        };
        let Some(existing) = existing else { return Ok(None) };
        let fit = schema::fit(&schema::lake_columns(rows, &cx.allow_lossy)?, Some(&existing), &self.rules(cx))?;
        Ok(Some(Self::change(&place.name, Some(&existing), &fit, Self::steps(Some(&existing), &fit, cx))))
    }

    async fn open(&self, rows: &SchemaRef, cx: &SinkContext) -> Result<Arc<dyn Load>> {
        let (place, table, _, fit) = self.look(rows, cx).await?;
        let state = State::new(&place, table.as_ref(), &fit, &self.rules(cx), &cx.run, self.file_bytes).await?;
        Ok(Arc::new(LakeLoad::new(cx.run.clone(), place, state, rows.clone(), &fit)))
    }
}

/// What is kept of a table.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    columns: Vec<KnownColumn>,
    partitions: Vec<String>,
}

impl From<&Existing> for Standing {
    fn from(existing: &Existing) -> Self {
        let field = |column: &schema::Column| Field::new(&column.name, column.lake.clone(), column.nullable);
        Self {
            columns: existing.columns.iter().map(|column| KnownColumn::of(&field(column))).collect(),
            partitions: existing.partitions.clone(),
        }
    }
}

impl Standing {
    fn existing(self) -> Option<Existing> {
        let column = |field: Field| schema::Column {
            name: field.name().clone(),
            lake: field.data_type().clone(),
            nullable: field.is_nullable(),
            untyped: false,
        };
        let columns: Option<Vec<_>> = self.columns.iter().map(|known| known.field().map(column)).collect();
        Some(Existing { columns: columns?, partitions: self.partitions })
    }
}

impl LakeSink {
    /// What the commit says of the table, in order.
    fn steps(existing: Option<&Existing>, fit: &Fit, cx: &SinkContext) -> Vec<String> {
        let (key, mut steps) = (cx.key.join(", "), Vec::new());
        if existing.is_none() {
            let partitioned =
                if fit.partitions.is_empty() { String::new() } else { format!(", partitioned by {}", fit.partitions.join(", ")) };
            steps.push(format!("create the table ({}){partitioned}", Self::columns(fit)));
        } else if cx.mode == weir_pipelines::Mode::Replace && fit.changes {
            steps.push(format!("give the table the rows' columns ({})", Self::columns(fit)));
        }
        steps.extend(fit.added.iter().map(|column| format!("add column \"{}\" {}", column.name, types::delta_name(&column.lake))));
        steps.push(match cx.mode {
            weir_pipelines::Mode::Append => "add the rows".into(),
            weir_pipelines::Mode::Replace => "put the rows in the place of all that is there".into(),
            weir_pipelines::Mode::Merge => format!("replace rows with the same {key}, add the others"),
            weir_pipelines::Mode::DeleteInsert => format!("delete rows whose {key} occurs, add the rows"),
            weir_pipelines::Mode::Snapshot => format!("close current versions that changed, by {key}, and open new ones"),
        });
        steps
    }

    fn columns(fit: &Fit) -> String {
        fit.table.iter().map(|column| format!("{} {}", column.name, types::delta_name(&column.lake))).collect::<Vec<_>>().join(", ")
    }

    fn change(name: &str, existing: Option<&Existing>, fit: &Fit, steps: Vec<String>) -> Change {
        Change {
            destination: name.to_owned(),
            creates: existing.is_none(),
            adds: if existing.is_some() { fit.added.iter().map(|column| column.name.clone()).collect() } else { Vec::new() },
            columns: fit.table.iter().map(|column| (column.name.clone(), types::delta_name(&column.lake))).collect(),
            not_null: fit.table.iter().filter(|column| !column.nullable).map(|column| column.name.clone()).collect(),
            steps,
        }
    }
}

/// DataFusion's error as a connector's: the connector's own where one lies beneath.
pub(crate) fn from_datafusion(error: DataFusionError) -> Error {
    let error = match Error::taken_out(error) {
        Ok(own) => return own,
        Err(error) => error,
    };
    match error.find_root() {
        DataFusionError::ResourcesExhausted(what) => Error::user("out-of-memory", format!("the lake sink ran out of memory: {what}"))
            .help("raise \"limit\" under [memory] in weir.toml")
            .because(error),
        root => Error::system("dataflow", root.strip_backtrace()).because(error),
    }
}
