//! A pipeline that is valid by construction: what [`crate::parse()`] returns and nothing downstream checks again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    cron::Schedule,
    diagnostic::{SourceFile, Span, Spanned},
    params::{Param, ParamValue},
    parse::Changes,
    settings::Settings,
    sql::SqlText,
    test::Test,
};

/// One pipeline file: a directed acyclic graph of steps with unique names.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file it was read from.
    pub file: Arc<SourceFile>,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// Its name: letters, digits, `_` and `-`.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whom to ask.
    pub owner: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// What starts it beside the clock, as written.
    pub triggers: Vec<Trigger>,
    /// Where rows come from, as written.
    pub sources: Vec<Source>,
    /// What changes them, each after the steps it reads.
    pub transforms: Vec<Transform>,
    /// Where they go, as written.
    pub sinks: Vec<Sink>,
    /// Checks made on whole steps before publishing.
    pub expectations: Vec<Expectation>,
    /// What steps make of given rows, as written.
    pub tests: Vec<Test>,
    /// What it was given for this time, as declared.
    pub params: Vec<Param>,
    /// What is worth a word though it is no error.
    pub warnings: Vec<crate::Diagnostic>,
    /// What it was read with for this time.
    pub changes: Changes,
}

impl Pipeline {
    /// The parameters that were given a value for this time, with it.
    pub fn given_params(&self) -> Vec<(Spanned<String>, ParamValue)> {
        let given = self.params.iter().filter(|param| param.is_given);
        given.filter_map(|param| Some((param.name.clone(), param.value.clone()?))).collect()
    }

    /// Whether it can only be run for an interval: its SQL uses `$interval_start` or `$interval_end`, or one of its sources is bounded by them.
    pub fn reads_interval(&self) -> bool {
        self.interval_use(|_| true).is_some()
    }

    /// Where one of these steps, or an expectation, uses the interval of a run first.
    pub fn interval_use(&self, is_meant: impl Fn(&str) -> bool) -> Option<Span> {
        let of_source = |source: &Source| {
            let written = source.incremental.as_ref()?;
            matches!(written.value, Incremental::Interval { .. }).then(|| written.span.clone())
        };
        let by_steps = self.transforms.iter().filter(|step| is_meant(&step.name.value)).filter_map(|step| match &step.operator {
            Operator::Sql(sql) | Operator::Filter(sql) => Some(sql),
            _ => None,
        });
        let by_checks = self.expectations.iter().filter_map(|expectation| match &expectation.expected {
            Expected::NoRows(sql) | Expected::Change { of: Measure::Aggregate(sql), .. } => Some(sql),
            _ => None,
        });
        self.sources
            .iter()
            .filter(|step| is_meant(&step.name.value))
            .find_map(of_source)
            .or_else(|| by_steps.chain(by_checks).find_map(SqlText::interval_use))
    }
}

/// What starts a pipeline beside the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Unique in the pipeline.
    pub name: Spanned<String>,
    /// What it waits for.
    pub kind: TriggerKind,
}

/// What a trigger waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerKind {
    /// A file that comes.
    File {
        /// A file, folder, pattern or URL, as a `file` source's `path`.
        path: Spanned<String>,
        /// It has come when its name and size have not changed for so long. Default 10s.
        debounce: Duration,
        /// The parameter, of type text, that is given its path: one run for each file. None: one run for all that have come.
        param: Option<Spanned<String>>,
    },
    /// Another pipeline publishes.
    Pipeline {
        /// Its name.
        name: Spanned<String>,
    },
}

/// What every row of a step must satisfy, and what becomes of one that does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The contract's path, relative to the pipeline's folder.
    pub contract: Option<Spanned<String>>,
    /// What becomes of an invalid row. Default quarantine.
    pub on_invalid: OnInvalid,
    /// More invalid rows than this fail the run before publishing. Default: no bound, but a source none of whose rows is valid fails.
    pub max_invalid: Option<ShareMax>,
}

/// What becomes of an invalid row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// The run fails at the first one.
    Fail,
    /// It is counted and left out.
    Drop,
    /// It is set aside with reason and source coordinates.
    Quarantine,
}

/// An upper bound given as a number of rows or as a share of the rows read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ShareMax {
    /// At most so many rows.
    Rows(u64),
    /// At most this share, 0 to 1.
    Share(f64),
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Unique in the pipeline.
    pub name: Spanned<String>,
    /// What it is.
    pub description: Option<String>,
    /// Contract and what becomes of rows that break it.
    pub rules: Rules,
    /// What becomes of a change of its columns.
    pub drift: OnDrift,
    /// Only what is new since the last published run.
    pub incremental: Option<Spanned<Incremental>>,
    /// The kind and its own table.
    pub settings: Settings,
}

/// What becomes of a change of a source's columns, where the author says it.
#[derive(Debug, Clone, Default)]
pub struct OnDrift {
    /// Of a column that was not known. Default add.
    pub new_column: Option<Spanned<OnNewColumn>>,
    /// Of a known column that the data lack. Default remove where the source itself says its columns and all of it is read, else null.
    pub missing_column: Option<Spanned<OnMissingColumn>>,
    /// Of a known column with values that are not of its type. Default widen.
    pub type_change: Option<Spanned<OnTypeChange>>,
}

/// What becomes of a column that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNewColumn {
    /// It is a column of the step from now on.
    Add,
    /// It is left out of the step's rows.
    Ignore,
    /// Rows with a value in it are set aside; the others pass without it.
    Quarantine,
    /// The run fails before anything is staged.
    Fail,
}

/// What becomes of a known column that the data lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingColumn {
    /// It stays, with its type, and is null in every row.
    Null,
    /// It is no column of the step any more.
    Remove,
    /// The run fails before anything is staged.
    Fail,
}

/// What becomes of a known column with values that are not of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTypeChange {
    /// It takes the narrowest type that holds both.
    Widen,
    /// It keeps its type, and rows with a value that is not of it are set aside.
    Quarantine,
    /// The run fails before anything is staged.
    Fail,
}

/// How a source knows what is new.
#[derive(Debug, Clone, PartialEq)]
pub enum Incremental {
    /// Rows whose column lies within the interval that the run is for: at its start or later, and before its end.
    Interval {
        /// The column.
        column: String,
    },
    /// Each file once, known by path, size and modification time or entity tag.
    Files,
    /// Rows whose cursor column lies beyond the last published position.
    Cursor {
        /// The column.
        column: String,
        /// How far behind the last position to start again.
        lag: Duration,
        /// Where to start when there is no position yet, as written.
        start: Option<String>,
    },
}

/// What changes rows.
#[derive(Debug, Clone)]
pub struct Transform {
    /// Unique in the pipeline.
    pub name: Spanned<String>,
    /// What it is.
    pub description: Option<String>,
    /// The steps it reads: `from`, or the tables its SQL names. Each exists and is a source or a transform.
    pub inputs: Vec<Spanned<String>>,
    /// Contract and what becomes of rows that break it.
    pub rules: Rules,
    /// What it does.
    pub operator: Operator,
}

/// What a transform does. All but `Sql` have exactly one input.
#[derive(Debug, Clone)]
pub enum Operator {
    /// A query over earlier steps.
    Sql(SqlText),
    /// Keeps the rows for which the predicate is true; the others are counted as filtered.
    Filter(SqlText),
    /// Keeps one row per key.
    Deduplicate {
        /// The columns of the key, at least one.
        key: Vec<Spanned<String>>,
        /// Which one is kept.
        keep: Keep,
        /// The order that first and last are meant in. Ties are broken by the other columns, so the outcome does not depend on arrival.
        order_by: Vec<SortKey>,
    },
    /// Changes types; a value that does not fit makes its row invalid. Column to SQL type.
    Cast(Vec<(Spanned<String>, Spanned<String>)>),
    /// Old name to new name; the other columns stay.
    Rename(Vec<(Spanned<String>, Spanned<String>)>),
    /// Keeps these columns, in this order.
    Select(Vec<Spanned<String>>),
    /// Nested records to columns; with `array`, one row per element with the parent's key beside it.
    Flatten {
        /// Stands between the names of nesting levels. Default `_`.
        separator: String,
        /// The array whose elements become rows.
        array: Option<FlattenArray>,
    },
}

/// Which array becomes child rows.
#[derive(Debug, Clone)]
pub struct FlattenArray {
    /// The list column, with `.` between levels.
    pub column: Spanned<String>,
    /// The parent's columns that each child row carries. At least one.
    pub key: Vec<Spanned<String>>,
    /// A column that holds the element's position from 0, where one is asked for.
    pub position: Option<Spanned<String>>,
}

/// Which row of a key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The first in `order_by`.
    First,
    /// The last in `order_by`.
    Last,
    /// Any one; `order_by` is empty. Still the same one whatever the arrival order.
    Any,
}

/// One column of an order, written `column`, `column asc` or `column desc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// The column.
    pub column: Spanned<String>,
    /// Largest first.
    pub descending: bool,
}

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Unique in the pipeline.
    pub name: Spanned<String>,
    /// What it is.
    pub description: Option<String>,
    /// The step whose rows it takes.
    pub from: Spanned<String>,
    /// How rows meet what is there. Default append.
    pub mode: Spanned<Mode>,
    /// The columns that identify a row; not empty for merge, delete_insert and snapshot.
    pub key: Vec<Spanned<String>>,
    /// What happens when rows have other columns than the destination. Default fail.
    pub on_schema_change: OnSchemaChange,
    /// Columns whose lossy mapping is accepted.
    pub allow_lossy: Vec<Spanned<String>>,
    /// Profiles of `weir.toml` under which it takes part. Empty: always.
    pub profiles: Vec<Spanned<String>>,
    /// The kind and its own table.
    pub settings: Settings,
}

/// How rows meet what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rows are added.
    Append,
    /// Rows take the place of all that was there.
    Replace,
    /// A row takes the place of the one with its key, or is added.
    Merge,
    /// All rows with a key that occurs are deleted, then the rows are added; a key may occur several times.
    DeleteInsert,
    /// Slowly changing dimension, type 2: versions with `valid_from`, `valid_to`, `is_current`.
    Snapshot,
}

impl Mode {
    /// The word a person writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Replace => "replace",
            Mode::Merge => "merge",
            Mode::DeleteInsert => "delete_insert",
            Mode::Snapshot => "snapshot",
        }
    }

    /// Whether it must know which rows are the same.
    pub fn needs_key(self) -> bool {
        matches!(self, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot)
    }
}

/// What happens when rows have other columns than the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSchemaChange {
    /// The run fails before anything is written.
    Fail,
    /// New columns are added to the destination; columns that rows lack become null.
    AddColumns,
    /// New columns are left out; columns that rows lack become null.
    Ignore,
}

/// A check over a step's whole output, made before publishing.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The step. It exists and is a source or a transform.
    pub on: Spanned<String>,
    /// The steps that its rows are asked of: `on`, and what its SQL or its foreign key reads besides. Each is a source or a transform.
    pub reads: Vec<Spanned<String>>,
    /// What is expected, in words.
    pub name: String,
    /// What must hold.
    pub expected: Expected,
    /// True: failure stops publishing. False (`severity = "warn"`): it is recorded.
    pub stops: bool,
    /// Where it was written.
    pub span: Span,
}

/// What must hold of a step's whole output.
#[derive(Debug, Clone)]
pub enum Expected {
    /// The query over the step returns no row.
    NoRows(SqlText),
    /// The number of rows lies between these, both included.
    RowCount {
        /// At least.
        min: u64,
        /// At most.
        max: Option<u64>,
    },
    /// No two rows agree in all of these columns.
    Unique(Vec<Spanned<String>>),
    /// None of these columns holds a null.
    NotNull(Vec<Spanned<String>>),
    /// This column holds these values and nulls alone.
    AcceptedValues {
        /// The column.
        column: Spanned<String>,
        /// At least one.
        values: Vec<Spanned<Scalar>>,
    },
    /// Each row's values in `columns` are those of a row of `references` in `to`, unless one of them is null.
    ForeignKey {
        /// The step's columns, at least one.
        columns: Vec<Spanned<String>>,
        /// Where they must be found.
        references: Reference,
        /// The columns there, as many.
        to: Vec<Spanned<String>>,
    },
    /// The newest value of a column is no older than this when the run starts.
    Freshness {
        /// A column of dates or timestamps.
        column: Spanned<String>,
        /// More than nothing.
        age_max: Duration,
    },
    /// A number lies near those of the last published runs, by its robust z-score.
    Change {
        /// The number.
        of: Measure,
        /// The score's bound, more than 0.
        z_max: f64,
        /// How many published runs are looked at.
        runs: u32,
        /// With fewer values than this, at most `runs`, it holds.
        runs_min: u32,
    },
}

/// A single value as TOML has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i128),
    /// A float, NaN and infinities included.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A datetime, date or time, as TOML writes it: `2026-01-31T06:00:00Z`.
    Datetime(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => write!(f, "\"{text}\""),
            Scalar::Integer(number) => write!(f, "{number}"),
            Scalar::Float(number) => write!(f, "{number:?}"),
            Scalar::Boolean(yes) => write!(f, "{yes}"),
            Scalar::Datetime(text) => f.write_str(text),
        }
    }
}

/// What a foreign key refers to.
#[derive(Debug, Clone)]
pub enum Reference {
    /// A source or transform of the pipeline: its rows in the same run.
    Step(Spanned<String>),
    /// A table of the lake, as it was before the run.
    Lake {
        /// As written: `lake.SCHEMA.TABLE`.
        name: Spanned<String>,
        /// The schema.
        schema: String,
        /// The table.
        table: String,
    },
}

impl Reference {
    /// The name as written.
    pub fn name(&self) -> &Spanned<String> {
        match self {
            Reference::Step(name) | Reference::Lake { name, .. } => name,
        }
    }
}

/// What a change is watched of.
#[derive(Debug, Clone)]
pub enum Measure {
    /// The number of rows.
    RowCount,
    /// One SQL expression of aggregates over the step.
    Aggregate(SqlText),
}

impl Measure {
    /// As written, and as runs remember it.
    pub fn text(&self) -> &str {
        match self {
            Measure::RowCount => "row_count",
            Measure::Aggregate(sql) => sql.text.trim(),
        }
    }
}
