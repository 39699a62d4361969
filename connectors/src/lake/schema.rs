//! How the columns of a run's rows meet those of a table: what is new, missing, changed, partitioned, and whether that is allowed.
//! Which type becomes which is `types.rs`; nothing here reads or writes.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::{
    DeltaTable,
    kernel::{
        StructType,
        engine::arrow_conversion::{TryIntoArrow, TryIntoKernel},
    },
};
use weir_pipelines::{Mode, OnSchemaChange};

use super::types;
use crate::error::{Error, Result};

/// The three columns that mode snapshot adds.
pub const VALID_FROM: &str = "valid_from";
/// When a version was closed; null while it is current.
pub const VALID_TO: &str = "valid_to";
/// True for the newest version of a key.
pub const IS_CURRENT: &str = "is_current";

/// A column by its name and lake type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The Arrow type that stands for its Delta type.
    pub lake: DataType,
    /// False where the table forbids nulls; Weir itself never does.
    pub nullable: bool,
    /// True for a column of rows that holds nothing but nulls and has no type of its own.
    pub untyped: bool,
}

impl Column {
    fn new(name: &str, lake: DataType) -> Self {
        Self { name: name.to_owned(), lake, nullable: true, untyped: false }
    }
}

/// A table as it stands.
#[derive(Debug, Clone)]
pub struct Existing {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its partition columns.
    pub partitions: Vec<String>,
}

/// What a sink's author decided.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The sink step's name.
    pub step: String,
    /// How rows meet what is there.
    pub mode: Mode,
    /// The columns that identify a row.
    pub key: Vec<String>,
    /// What happens to new and missing columns.
    pub on_schema_change: OnSchemaChange,
    /// The settings' `partition_by`; empty says nothing.
    pub partition_by: Vec<String>,
}

/// How rows fit a table.
#[derive(Debug, Clone)]
pub struct Fit {
    /// What is written of each row: the column, and where it stands in the row.
    pub written: Vec<(Column, usize)>,
    /// Columns the table gains.
    pub added: Vec<Column>,
    /// Columns the table has and the rows lack.
    pub missing: Vec<Column>,
    /// The table's columns afterwards.
    pub table: Vec<Column>,
    /// The table's partition columns afterwards.
    pub partitions: Vec<String>,
    /// True when the table's schema or partitioning changes.
    pub changes: bool,
}

/// The rows' columns as lake columns. Fails where a mapping is lossy and not allowed, or where there is none.
pub fn lake_columns(rows: &Schema, allow_lossy: &[String]) -> Result<Vec<Column>> {
    let mut seen: Vec<(String, &str)> = Vec::new();
    let mut columns = Vec::with_capacity(rows.fields().len());
    let mut lossy = Vec::new();
    for field in rows.fields() {
        let name = field.name();
        let lower = name.to_lowercase();
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == lower) {
            return Err(Error::user("duplicate-column", format!("the columns \"{other}\" and \"{name}\" are one column in a Delta table"))
                .help("rename one of them; upper and lower case do not tell columns apart there"));
        }
        seen.push((lower, name));
        let Some(mapped) = types::map(field.data_type()) else {
            return Err(Error::user(
                "unsupported-type",
                format!("column \"{name}\" has the type {}, for which Delta has none", field.data_type()),
            )
            .about([name])
            .help("cast it in a transform, or leave it out"));
        };
        if let Some(loss) = mapped.loss
            && !allow_lossy.contains(name)
        {
            lossy.push((name, field.data_type(), types::delta_name(&mapped.lake), loss));
        }
        columns.push(Column { untyped: field.data_type() == &DataType::Null, ..Column::new(name, mapped.lake) });
    }
    if columns.is_empty() {
        return Err(Error::user("no-columns", "the rows have no columns, and a Delta table needs one"));
    }
    if !lossy.is_empty() {
        let what: Vec<_> = lossy.iter().map(|(name, from, to, loss)| format!("\"{name}\" ({from} to {to}: {loss})")).collect();
        let names: Vec<_> = lossy.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
        return Err(Error::user(
            "lossy-type",
            format!("writing would lose something of {} {}", columns_word(lossy.len()), what.join(", ")),
        )
        .setting("allow_lossy")
        .about(lossy.iter().map(|(name, ..)| *name))
        .help(format!("cast in a transform, or accept it: allow_lossy = [{}]", names.join(", "))));
    }
    Ok(columns)
}

fn columns_word(count: usize) -> &'static str {
    if count == 1 { "column" } else { "columns" }
}

fn names<'a>(columns: impl IntoIterator<Item = &'a Column>) -> String {
    columns.into_iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

/// Says what no table could take, whether there is one already or not.
pub fn check(rows: &[Column], rules: &Rules) -> Result<()> {
    check_key(rows, rules)?;
    let reserved = [VALID_FROM, VALID_TO, IS_CURRENT];
    if rules.mode == Mode::Snapshot
        && let Some(column) = rows.iter().find(|column| reserved.contains(&column.name.to_lowercase().as_str()))
    {
        return Err(Error::user("reserved-column", format!("column \"{}\" is one that mode = \"snapshot\" makes itself", column.name))
            .about([&column.name])
            .help(format!("give it another name in a transform: {} as other_name", column.name)));
    }
    // A table that is there may be partitioned by a column that the rows lack.
    let mut seen = HashSet::new();
    rules.partition_by.iter().try_for_each(|name| check_partition(name, rows.iter().find(|column| column.name == *name), &mut seen))
}

/// Fits rows to a table, or to none.
pub fn fit(rows: &[Column], existing: Option<&Existing>, rules: &Rules) -> Result<Fit> {
    check(rows, rules)?;
    let versioned = rules.mode == Mode::Snapshot;
    let versions = || {
        let instant = || DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        [Column::new(VALID_FROM, instant()), Column::new(VALID_TO, instant()), Column::new(IS_CURRENT, DataType::Boolean)]
    };
    let mut fit = match existing {
        Some(existing) if rules.mode != Mode::Replace => {
            let mut own = existing.clone();
            if versioned {
                for made in versions() {
                    let at = own.columns.iter().position(|column| column.name == made.name && column.lake == made.lake);
                    own.columns.remove(at.ok_or_else(|| {
                        Error::user(
                            "not-a-snapshot",
                            format!("the table has no column \"{}\" of type {}", made.name, types::delta_name(&made.lake)),
                        )
                        .help("mode = \"snapshot\" writes tables that it made itself; name a new table")
                    })?);
                }
            }
            join(rows, &own, rules)?
        }
        _ => {
            let partitions = match existing {
                Some(existing) if rules.partition_by.is_empty() => existing.partitions.clone(),
                _ => rules.partition_by.clone(),
            };
            let changes = existing.is_none_or(|existing| {
                partitions != existing.partitions
                    || rows.len() != existing.columns.len()
                    || rows.iter().zip(&existing.columns).any(|(a, b)| a.name != b.name || a.lake != b.lake || !b.nullable)
            });
            let written: Vec<_> = rows.iter().cloned().enumerate().map(|(index, column)| (column, index)).collect();
            Fit { written, added: Vec::new(), missing: Vec::new(), table: rows.to_vec(), partitions, changes }
        }
    };
    if versioned {
        fit.table.extend(versions());
    }
    check_partitions(&fit)?;
    Ok(fit)
}

fn join(rows: &[Column], own: &Existing, rules: &Rules) -> Result<Fit> {
    if !rules.partition_by.is_empty() && rules.partition_by != own.partitions {
        let by = |columns: &[String]| match columns {
            [] => "not partitioned".to_owned(),
            _ => format!("partitioned by {}", columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("the table is {}, and is to be {}", by(&own.partitions), by(&rules.partition_by));
        return Err(Error::user("partitions-differ", message)
            .setting("partition_by")
            .help("leave partition_by out, or load once with mode = \"replace\" to partition the table anew"));
    }
    let (mut written, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for (index, column) in rows.iter().enumerate() {
        let Some(there) = own.columns.iter().find(|there| there.name == column.name) else {
            if let Some(there) = own.columns.iter().find(|there| there.name.to_lowercase() == column.name.to_lowercase()) {
                return Err(Error::user(
                    "duplicate-column",
                    format!(
                        "column \"{}\" of the rows and \"{}\" of the table differ only in upper and lower case",
                        column.name, there.name
                    ),
                )
                .help("rename the column in a transform"));
            }
            new.push((column.clone(), index));
            continue;
        };
        if column.untyped || types::widens(&column.lake, &there.lake) {
            written.push((there.clone(), index));
        } else {
            let (from, to) = (types::delta_name(&column.lake), types::delta_name(&there.lake));
            changed.push((&column.name, format!("\"{}\" ({from} in the rows, {to} in the table)", column.name)));
        }
    }
    let missing: Vec<Column> = own.columns.iter().filter(|there| rows.iter().all(|column| column.name != there.name)).cloned().collect();
    if !changed.is_empty() {
        let what: Vec<&str> = changed.iter().map(|(_, what)| what.as_str()).collect();
        return Err(Error::user(
            "column-type-changed",
            format!("other types than the table's: {} {}", columns_word(changed.len()), what.join(", ")),
        )
        .about(changed.iter().map(|(name, _)| *name))
        .help("cast in a transform, or load once with mode = \"replace\" to give the table the new types"));
    }
    if rules.on_schema_change == OnSchemaChange::Fail && !(new.is_empty() && missing.is_empty()) {
        let mut what = Vec::new();
        if !new.is_empty() {
            what.push(format!("the table has no {} {}", columns_word(new.len()), names(new.iter().map(|(column, _)| column))));
        }
        if !missing.is_empty() {
            what.push(format!("the rows have no {} {}", columns_word(missing.len()), names(&missing)));
        }
        return Err(Error::user("columns-differ", what.join("; "))
            .setting("on_schema_change")
            .about(new.iter().map(|(column, _)| &column.name))
            .help("select the table's columns in a transform, or set on_schema_change = \"add_columns\" (or \"ignore\")"));
    }
    if let Some(column) = missing.iter().find(|column| !column.nullable) {
        return Err(Error::user(
            "columns-differ",
            format!("the rows have no column \"{}\", which the table does not let be null", column.name),
        ));
    }
    let mut table = own.columns.clone();
    let mut added = Vec::new();
    if rules.on_schema_change != OnSchemaChange::Ignore {
        for (column, index) in new {
            added.push(column.clone());
            table.push(column.clone());
            written.push((column, index));
        }
    }
    if let Some(key) = rules.key.iter().find(|key| written.iter().all(|(column, _)| column.name != **key)) {
        return Err(Error::user("unknown-column", format!("the table has no key column \"{key}\"")).setting("key"));
    }
    if written.is_empty() {
        return Err(Error::user("columns-differ", "the rows and the table have no column in common"));
    }
    let changes = !added.is_empty();
    Ok(Fit { written, added, missing, table, partitions: own.partitions.clone(), changes })
}

fn check_key(rows: &[Column], rules: &Rules) -> Result<()> {
    for key in &rules.key {
        let Some(column) = rows.iter().find(|column| column.name == *key) else {
            return Err(Error::user("unknown-column", format!("no column \"{key}\" in the rows of sink \"{}\"", rules.step))
                .setting("key")
                .help(format!("the columns are {}", names(rows))));
        };
        let why = match column.lake {
            DataType::Float32 | DataType::Float64 => "a floating-point number, and two of them are seldom equal",
            DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => "nested",
            _ => continue,
        };
        let modes = [Mode::Merge, Mode::DeleteInsert, Mode::Snapshot];
        if modes.contains(&rules.mode) {
            return Err(Error::user("key-type", format!("column \"{key}\" cannot be a key: it is {why}"))
                .setting("key")
                .help("cast it to a decimal, an integer or text in a transform"));
        }
    }
    Ok(())
}

fn check_partitions(fit: &Fit) -> Result<()> {
    let mut seen = HashSet::new();
    for name in &fit.partitions {
        let Some(column) = fit.table.iter().find(|column| column.name == *name) else {
            return Err(Error::user("unknown-column", format!("no column \"{name}\" to partition by"))
                .setting("partition_by")
                .help(format!("the columns are {}", names(&fit.table))));
        };
        check_partition(name, Some(column), &mut seen)?;
    }
    if fit.partitions.len() == fit.table.len() {
        return Err(Error::user("partition-column", "the table is partitioned by all its columns, and needs one besides")
            .setting("partition_by")
            .help("leave out those that have many values"));
    }
    Ok(())
}

fn check_partition<'a>(name: &'a str, column: Option<&Column>, seen: &mut HashSet<&'a str>) -> Result<()> {
    use DataType::*;
    let wrong = |why: String| {
        Error::user("partition-column", format!("the table cannot be partitioned by \"{name}\"{why}")).setting("partition_by")
    };
    if [VALID_FROM, VALID_TO, IS_CURRENT].contains(&name) {
        return Err(wrong(", which mode = \"snapshot\" makes".into()).help("choose a column of the rows"));
    }
    if !seen.insert(name) {
        return Err(wrong(" twice".into()).help("name each column once"));
    }
    match column {
        Some(Column { lake, .. })
            if !matches!(lake, Boolean | Int8 | Int16 | Int32 | Int64 | Utf8 | Date32 | Timestamp(..) | Decimal128(..)) =>
        {
            Err(wrong(format!(", of type {}", types::delta_name(lake))).help("choose a column of text, whole numbers, dates or timestamps"))
        }
        _ => Ok(()),
    }
}

/// The columns and partitions of an opened table. Fails for a table whose features Weir cannot keep when it writes.
pub fn existing(table: &DeltaTable, name: &str) -> Result<Existing> {
    let unreadable = |error: String| Error::system("lake-table", format!("cannot read the schema of table \"{name}\": {error}"));
    let state = table.snapshot().map_err(|error| unreadable(error.to_string()))?;
    let delta = state.schema();
    let configuration = state.metadata().configuration();
    let mode = configuration.get("delta.columnMapping.mode").map_or("none", String::as_str);
    let refused = if mode != "none" {
        Some("column mapping")
    } else if configuration.keys().any(|key| key.starts_with("delta.constraints.")) {
        Some("check constraints")
    } else if configuration.get("delta.enableRowTracking").is_some_and(|on| on == "true") {
        Some("row tracking")
    } else {
        delta.fields().find_map(|field| {
            let metadata = field.metadata();
            let has = |prefix: &str| metadata.keys().any(|key| key.starts_with(prefix));
            if has("delta.generationExpression") {
                Some("generated columns")
            } else if has("delta.invariants") {
                Some("column invariants")
            } else if has("delta.identity") {
                Some("identity columns")
            } else {
                None
            }
        })
    };
    if let Some(feature) = refused {
        return Err(Error::user("table-feature", format!("table \"{name}\" uses {feature}, which weir cannot write"))
            .help("load into a table of its own, and let whoever made that one merge it"));
    }
    Ok(Existing {
        columns: from_delta(&delta).map_err(|error| unreadable(error.to_string()))?,
        partitions: state.metadata().partition_columns().iter().map(ToString::to_string).collect(),
    })
}

/// The columns of a Delta schema.
pub fn from_delta(delta: &StructType) -> Result<Vec<Column>> {
    let arrow: Schema =
        delta.try_into_arrow().map_err(|error| Error::system("lake-table", format!("a column's type is none of Arrow's: {error}")))?;
    Ok(arrow
        .fields()
        .iter()
        .map(|field| Column {
            nullable: field.is_nullable(),
            ..Column::new(field.name(), types::map(field.data_type()).map_or_else(|| field.data_type().clone(), |mapped| mapped.lake))
        })
        .collect())
}

/// The Delta schema of columns.
pub fn to_delta(columns: &[Column]) -> Result<StructType> {
    arrow_schema(columns)
        .as_ref()
        .try_into_kernel()
        .map_err(|error| Error::weir("lake-schema", format!("the columns have no Delta schema: {error}")))
}

/// The Arrow schema of columns.
pub fn arrow_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| Field::new(&column.name, column.lake.clone(), column.nullable)).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mode: Mode, on_schema_change: OnSchemaChange) -> Rules {
        Rules { step: "out".into(), mode, key: vec![], on_schema_change, partition_by: vec![] }
    }

    fn existing() -> Existing {
        Existing { columns: vec![Column::new("id", DataType::Int64), Column::new("name", DataType::Utf8)], partitions: vec![] }
    }

    #[test]
    fn new_and_missing_columns_are_both_named() {
        let rows = [Column::new("id", DataType::Int64), Column::new("city", DataType::Utf8)];
        let error = fit(&rows, Some(&existing()), &rules(Mode::Append, OnSchemaChange::Fail)).expect_err("they differ");
        assert_eq!(error.message, "the table has no column \"city\"; the rows have no column \"name\"");
        assert_eq!(error.setting.as_deref(), Some("on_schema_change"));
        let added = fit(&rows, Some(&existing()), &rules(Mode::Append, OnSchemaChange::AddColumns)).expect("fits");
        assert_eq!(names(&added.table), "\"id\", \"name\", \"city\"");
        let ignored = fit(&rows, Some(&existing()), &rules(Mode::Append, OnSchemaChange::Ignore)).expect("fits");
        assert_eq!(ignored.written.len(), 1);
        assert!(!ignored.changes);
    }

    #[test]
    fn a_narrower_number_is_widened_and_a_wider_one_refused() {
        let narrow = [Column::new("id", DataType::Int32), Column::new("name", DataType::Utf8)];
        let fitted = fit(&narrow, Some(&existing()), &rules(Mode::Append, OnSchemaChange::Fail)).expect("fits");
        assert_eq!(fitted.written[0].0.lake, DataType::Int64);
        let wide = [Column::new("id", DataType::Float64), Column::new("name", DataType::Utf8)];
        for change in [OnSchemaChange::Fail, OnSchemaChange::AddColumns, OnSchemaChange::Ignore] {
            let error = fit(&wide, Some(&existing()), &rules(Mode::Append, change)).expect_err("it does not fit");
            assert_eq!(error.code, "column-type-changed");
            assert!(error.message.contains("\"id\" (double in the rows, long in the table)"), "{error}");
        }
    }

    #[test]
    fn a_column_of_nulls_takes_the_tables_type() {
        let rows = [Column { untyped: true, ..Column::new("id", DataType::Utf8) }, Column::new("name", DataType::Utf8)];
        let fitted = fit(&rows, Some(&existing()), &rules(Mode::Append, OnSchemaChange::Fail)).expect("fits");
        assert_eq!(fitted.written[0].0.lake, DataType::Int64);
    }

    #[test]
    fn names_that_differ_only_in_case_are_refused() {
        let rows = Schema::new(vec![Field::new("Id", DataType::Int64, true), Field::new("id", DataType::Int64, true)]);
        assert_eq!(lake_columns(&rows, &[]).expect_err("one column").code, "duplicate-column");
        let rows = [Column::new("ID", DataType::Int64), Column::new("name", DataType::Utf8)];
        let error = fit(&rows, Some(&existing()), &rules(Mode::Append, OnSchemaChange::AddColumns)).expect_err("one column");
        assert_eq!(error.code, "duplicate-column");
    }

    #[test]
    fn a_lossy_column_is_named_with_the_setting_that_accepts_it() {
        let rows = Schema::new(vec![Field::new("at", DataType::Time32(arrow::datatypes::TimeUnit::Second), true)]);
        let error = lake_columns(&rows, &[]).expect_err("lossy");
        assert!(error.message.contains("\"at\" (Time32(s) to string: a time of day becomes text)"), "{error}");
        assert!(error.help.as_deref().is_some_and(|help| help.contains("allow_lossy = [\"at\"]")));
        assert_eq!(lake_columns(&rows, &["at".into()]).expect("accepted").len(), 1);
    }

    #[test]
    fn keys_and_partitions_are_checked_before_anything_is_written() {
        let rows = [Column::new("id", DataType::Float64), Column::new("name", DataType::Utf8)];
        let keyed = |key: &str| Rules { key: vec![key.into()], ..rules(Mode::Merge, OnSchemaChange::Fail) };
        assert_eq!(fit(&rows, None, &keyed("id")).expect_err("a float").code, "key-type");
        assert_eq!(fit(&rows, None, &keyed("nix")).expect_err("unknown").code, "unknown-column");
        let by = |names: &[&str]| Rules {
            partition_by: names.iter().map(ToString::to_string).collect(),
            ..rules(Mode::Append, OnSchemaChange::Fail)
        };
        assert_eq!(fit(&rows, None, &by(&["nix"])).expect_err("unknown").code, "unknown-column");
        assert_eq!(fit(&rows, None, &by(&["id"])).expect_err("a float").code, "partition-column");
        assert_eq!(fit(&rows[1..], None, &by(&["name"])).expect_err("nothing else").code, "partition-column");
        assert_eq!(fit(&rows, Some(&existing()), &by(&["name"])).expect_err("differs").code, "partitions-differ");
    }

    #[test]
    fn a_schema_survives_the_way_through_delta() {
        let columns = vec![
            Column::new("a b", DataType::Decimal128(20, 3)),
            Column::new("t", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)),
            Column::new("l", types::map(&DataType::LargeList(Arc::new(Field::new("x", DataType::UInt8, false)))).expect("mapped").lake),
        ];
        assert_eq!(from_delta(&to_delta(&columns).expect("delta")).expect("arrow"), columns);
    }
}
