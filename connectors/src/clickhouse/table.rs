//! What the target is, what a new one would be, and how rows meet its columns. Which type becomes which is `write_types.rs`; nothing
//! here writes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use serde::{Deserialize, Serialize};
use weir_pipelines::{Mode, OnSchemaChange};

use super::{
    encode::Target,
    load::Db,
    name::Place,
    sink::ClickhouseSink,
    write_types::{self, Type},
};
use crate::{
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// The hidden column: which load a row came with, and the version by which `ReplacingMergeTree` chooses.
pub const VERSION: &str = "_weir_version";
/// The three columns that mode snapshot adds.
pub const VALID_FROM: &str = "valid_from";
/// When a version was closed; null while it is current.
pub const VALID_TO: &str = "valid_to";
/// True for the newest version of a key.
pub const IS_CURRENT: &str = "is_current";

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column: Type,
}

/// A column of a table that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct There {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column: Type,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or nothing.
    pub kind: String,
    /// True of a column that the partition key speaks of.
    pub partitions: bool,
}

impl There {
    /// True of a column that rows can be put into.
    pub fn writable(&self) -> bool {
        self.kind.is_empty() || self.kind == "DEFAULT"
    }

    /// True of a column that a row need not give.
    fn optional(&self) -> bool {
        self.kind == "DEFAULT" || self.column.is_nullable() || self.column.is_nested()
    }
}

/// A table as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Existing {
    /// Its identity, which renaming and exchanging leave.
    pub uuid: String,
    /// Its engine: one of the MergeTree family.
    pub engine: String,
    /// The engine's arguments, as the server writes them, without those of replication.
    pub arguments: String,
    /// What follows the engine in its definition.
    pub tail: String,
    /// The columns it is sorted by; none where it is sorted by anything but columns.
    pub sorting: Option<Vec<String>>,
    /// The expression that its parts go by.
    pub partition_key: String,
    /// Its columns.
    pub columns: Vec<There>,
}

impl Existing {
    /// The engine without what says that it is replicated.
    pub fn base(&self) -> &str {
        base_engine(&self.engine)
    }

    /// True of a table whose parts other servers hold as well.
    pub fn replicated(&self) -> bool {
        self.engine.starts_with("Replicated")
    }

    /// True of a table whose rows go when their time is over.
    pub fn expires(&self) -> bool {
        self.tail.contains(" TTL ")
    }

    /// True of a table that has the hidden column.
    pub fn versioned(&self) -> bool {
        self.columns.iter().any(|column| column.name == VERSION)
    }
}

/// `ReplicatedReplacingMergeTree` is `ReplacingMergeTree`.
pub fn base_engine(engine: &str) -> &str {
    engine.strip_prefix("Replicated").or_else(|| engine.strip_prefix("Shared")).unwrap_or(engine)
}

/// The engine's name, its arguments, and what follows them.
pub fn split_engine(full: &str) -> (&str, &str, &str) {
    let end = full.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(full.len());
    let (name, rest) = full.split_at(end);
    let Some(inside) = rest.strip_prefix('(') else { return (name, "", rest) };
    let (mut depth, mut at) = (1_usize, 0);
    while let Some(c) = inside[at..].chars().next() {
        match c {
            '`' | '\'' | '"' => {
                at += write_types::quoted_end(&inside[at..]).unwrap_or(inside.len() - at);
                continue;
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (name, &inside[..at], &inside[at + 1..]);
        }
        at += c.len_utf8();
    }
    (name, inside, "")
}

/// The columns in a list such as ``a, `b c` `` or `(a)`, as the server shows what was written that way; none where something else
/// stands in it.
pub fn plain_columns(list: &str) -> Option<Vec<String>> {
    let list = list.trim();
    let list = list.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(list);
    let parts = write_types::split(list);
    if list.trim().is_empty() {
        return Some(Vec::new());
    }
    parts
        .into_iter()
        .map(|part| {
            let part = part.trim();
            let plain = match part.chars().next() {
                Some('`' | '"') => write_types::quoted_end(part) == Some(part.len()),
                Some(c) => !c.is_ascii_digit() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                None => false,
            };
            plain.then(|| write_types::unquote(part))
        })
        .collect()
}

/// What is to be known of a server before rows go there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Dates reach from year 1 to 9999; else from 1900 to 2299.
    pub wide: bool,
    /// The server's zone is UTC.
    pub utc: bool,
}

/// Asks about the server and the table. Fails with Blame::User where the table is none that Weir can load.
pub async fn look(db: &Db, place: &Place) -> Result<(Facts, Option<Existing>)> {
    let database = [("d", place.database.clone())];
    let latest = "toDateTime64(253402300799, 0, 'UTC')";
    let facts = db.row(&[latest, "(select any(engine) from system.databases where name = {d:String})"], "", &database).await?;
    let of = |index: usize| facts.get(index).map_or("", String::as_str);
    match of(1) {
        "Atomic" | "Replicated" | "Shared" => {}
        "" => {
            return Err(Error::user("unknown-database", format!("there is no database \"{}\"", place.database))
                .setting("table")
                .help("create it, or name another one in the connection or before the table's name"));
        }
        engine => {
            let message = format!("database \"{}\" has the engine {engine}, whose tables cannot be exchanged in one step", place.database);
            return Err(Error::user("database-engine", message).setting("table").help("load into a database of the engine Atomic"));
        }
    }
    let known = Facts { wide: of(0).starts_with("9999"), utc: db.utc() };
    let here = [("d", place.database.clone()), ("t", place.table.clone())];
    let described = ["uuid", "engine", "engine_full", "sorting_key", "partition_key"];
    let table = db.rows(&described, "from system.tables where database = {d:String} and name = {t:String}", &here).await?;
    let Some(table) = table.into_iter().next() else { return Ok((known, None)) };
    let [uuid, engine, full, sorting, partition_key] = <[String; 5]>::try_from(table)
        .map_err(|_| Error::system("clickhouse-protocol", "the server describes a table in another way than it was asked to"))?;
    if !engine.ends_with("MergeTree") {
        return Err(Error::user("table-engine", format!("table \"{}\" has the engine {engine}, which cannot be loaded", place.shown()))
            .setting("table")
            .help("load a table of the MergeTree family; name the table behind a view or a Distributed table"));
    }
    let (name, arguments, tail) = split_engine(&full);
    if name != engine || !tail.contains("ORDER BY") {
        return Err(Error::user("table-engine", format!("table \"{}\" is defined in the old way, without ORDER BY", place.shown()))
            .setting("table")
            .help("copy it into a table that has ORDER BY, or load into a new one"));
    }
    let arguments = match base_engine(&engine) == engine {
        true => arguments.to_owned(),
        // A path and a replica's name come first.
        false => {
            let own = write_types::split(arguments).into_iter().filter(|part| !part.trim_start().starts_with('\''));
            own.map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
        }
    };
    let described = ["name", "type", "default_kind", "is_in_partition_key"];
    let rest = "from system.columns where database = {d:String} and table = {t:String} order by position";
    let mut columns = Vec::new();
    for row in db.rows(&described, rest, &here).await? {
        let [name, column, kind, partitions] = <[String; 4]>::try_from(row)
            .map_err(|_| Error::system("clickhouse-protocol", "the server describes columns in another way than it was asked to"))?;
        columns.push(There { name, column: Type::parse(&column), kind, partitions: partitions == "1" });
    }
    if let Some(column) = columns.iter().find(|column| column.name == VERSION)
        && (column.kind != "MATERIALIZED" || column.column != Type::UInt(64))
    {
        let message = format!("table \"{}\" has a column \"{VERSION}\" that is not weir's own", place.shown());
        return Err(Error::user("table-feature", message).help(format!("rename it, or define it as {VERSION} UInt64 MATERIALIZED 0")));
    }
    let sorting = plain_columns(&sorting);
    Ok((known, Some(Existing { uuid, engine, arguments, tail: tail.to_owned(), sorting, partition_key, columns })))
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
    /// The settings.
    pub settings: Arc<ClickhouseSink>,
}

impl Rules {
    /// True of the modes that go by a key.
    pub fn keyed(&self) -> bool {
        matches!(self.mode, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot)
    }
}

/// A column of rows.
#[derive(Debug, Clone)]
pub struct RowColumn {
    name: String,
    from: DataType,
    column: Type,
    nullable: bool,
    lossy: bool,
}

/// How rows fit a table.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Where the rows' columns go.
    pub targets: Vec<Target>,
    /// Columns the table gains.
    pub added: Vec<Column>,
    /// The table's columns afterwards.
    pub table: Vec<Column>,
    /// The definition of a table that takes the target's place, where it is not made after the target.
    pub new: Option<New>,
}

/// A table to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// Its engine with its arguments, as a person would write it.
    pub engine: String,
    /// What follows the engine: `PARTITION BY … ORDER BY … TTL … SETTINGS …`.
    pub tail: String,
    /// True where rows go when their time is over.
    pub expires: bool,
}

/// The rows' columns. Fails where a mapping is lossy and not allowed, or where there is none.
pub fn columns(rows: &Schema, allow_lossy: &[String]) -> Result<Vec<RowColumn>> {
    let mut columns: Vec<RowColumn> = Vec::with_capacity(rows.fields().len());
    let mut lossy = Vec::new();
    for field in rows.fields() {
        let name = field.name();
        if name.is_empty() || columns.iter().any(|column| column.name == *name) {
            return Err(Error::user("duplicate-column", format!("the rows have two columns \"{name}\", or one without a name"))
                .help("rename one of them in a transform"));
        }
        if name == VERSION || ["_partition_id", "_part"].contains(&name.as_str()) {
            return Err(Error::user("reserved-column", format!("column \"{name}\" is one that the table has of itself"))
                .help("rename it in a transform"));
        }
        let Some(mapped) = write_types::map(field) else {
            let message = format!("column \"{name}\" has the type {}, for which ClickHouse has none", field.data_type());
            return Err(Error::user("unsupported-type", message).about([name]).help("cast it in a transform, or leave it out"));
        };
        let allowed = allow_lossy.contains(name);
        if let Some(loss) = mapped.loss
            && !allowed
        {
            lossy.push((name, field.data_type(), mapped.column.to_string(), loss));
        }
        columns.push(RowColumn {
            name: name.clone(),
            from: field.data_type().clone(),
            column: mapped.column,
            nullable: field.is_nullable() || field.data_type() == &DataType::Null,
            lossy: allowed,
        });
    }
    if columns.is_empty() {
        return Err(Error::user("no-columns", "the rows have no columns, and a table needs one"));
    }
    if !lossy.is_empty() {
        let what: Vec<_> = lossy.iter().map(|(name, from, to, loss)| format!("\"{name}\" ({from} to {to}: {loss})")).collect();
        let names: Vec<_> = lossy.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
        let message = format!("writing would lose something of {} {}", columns_word(lossy.len()), what.join(", "));
        return Err(Error::user("lossy-type", message)
            .setting("allow_lossy")
            .about(lossy.iter().map(|(name, ..)| *name))
            .help(format!("cast in a transform, or accept it: allow_lossy = [{}]", names.join(", "))));
    }
    Ok(columns)
}

fn columns_word(count: usize) -> &'static str {
    if count == 1 { "column" } else { "columns" }
}

fn names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Checks what needs no server: the key, and what a new table would be.
pub fn check(rows: &[RowColumn], rules: &Rules) -> Result<()> {
    check_key(rows, rules)?;
    let reserved = [VALID_FROM, VALID_TO, IS_CURRENT];
    if rules.mode == Mode::Snapshot
        && let Some(column) = rows.iter().find(|column| reserved.contains(&column.name.as_str()))
    {
        return Err(Error::user("reserved-column", format!("column \"{}\" is one that mode = \"snapshot\" makes itself", column.name))
            .help("rename it in a transform"));
    }
    define(rows, None, rules).map(drop)
}

fn check_key(rows: &[RowColumn], rules: &Rules) -> Result<()> {
    for key in &rules.key {
        let Some(column) = rows.iter().find(|column| column.name == *key) else {
            return Err(Error::user("unknown-column", format!("no column \"{key}\" in the rows of sink \"{}\"", rules.step))
                .setting("key")
                .help(format!("the columns are {}", names(rows.iter().map(|column| &column.name)))));
        };
        let why = match column.column {
            Type::Float(_) => "a floating-point number, and two of them are seldom equal",
            Type::Array(_) | Type::Tuple(_) | Type::Map(..) => "nested",
            _ => continue,
        };
        if rules.keyed() {
            return Err(Error::user("key-type", format!("column \"{key}\" cannot be a key: it is {why}"))
                .setting("key")
                .help("cast it to a decimal, an integer or text in a transform"));
        }
    }
    Ok(())
}

/// Fits rows to a table, or to none.
pub fn fit(rows: &[RowColumn], existing: Option<&Existing>, rules: &Rules, facts: &Facts) -> Result<Fit> {
    check(rows, rules)?;
    let Some(existing) = existing else { return define(rows, None, rules) };
    if existing.replicated() && !matches!(rules.mode, Mode::Append | Mode::Merge) {
        let message = format!("mode = \"{}\" cannot load the table, whose engine is {}", rules.mode.as_str(), existing.engine);
        return Err(Error::user("table-engine", message).setting("mode").help("use append or merge, or a table that is not replicated"));
    }
    if rules.mode == Mode::Replace {
        let kept = Rules { on_schema_change: OnSchemaChange::Fail, ..rules.clone() };
        return match join(rows, existing, &kept, facts) {
            Ok(fit) => Ok(fit),
            Err(error) if matches!(error.code, "columns-differ" | "column-type-changed") => define(rows, Some(existing), rules),
            Err(error) => Err(error),
        };
    }
    let mut own = existing.clone();
    if rules.mode == Mode::Snapshot {
        if existing.base() != "MergeTree" {
            return Err(Error::user("not-a-snapshot", format!("mode = \"snapshot\" needs the engine MergeTree, not {}", existing.engine))
                .help("name a new table"));
        }
        for made in versions() {
            let at = own.columns.iter().position(|column| column.name == made.name && column.column == made.column && column.writable());
            own.columns.remove(at.ok_or_else(|| {
                Error::user("not-a-snapshot", format!("the table has no column \"{}\" of type {}", made.name, made.column))
                    .help("mode = \"snapshot\" writes tables that it made itself; name a new table")
            })?);
        }
    }
    if rules.mode == Mode::Merge {
        check_merge(existing, rules)?;
    }
    if rules.mode == Mode::Append && !matches!(existing.base(), "MergeTree" | "ReplacingMergeTree") {
        let message = format!(
            "mode = \"append\" cannot load a table of the engine {}, whose merges make other rows of those loaded",
            existing.engine
        );
        return Err(Error::user("table-engine", message).setting("mode").help(
            "whether a run has been loaded could not be told once parts were merged: load a MergeTree table and sum up in a query or a \
             refreshable view; mode = \"replace\" and mode = \"delete_insert\" take any table",
        ));
    }
    let mut fit = join(rows, &own, rules, facts)?;
    if rules.mode == Mode::Snapshot {
        fit.table.extend(versions());
    }
    Ok(fit)
}

/// The columns that mode snapshot makes.
pub fn versions() -> [Column; 3] {
    let instant = || Type::DateTime64(6, Some("UTC".into()));
    [
        Column { name: VALID_FROM.into(), column: instant() },
        Column { name: VALID_TO.into(), column: instant().nullable() },
        Column { name: IS_CURRENT.into(), column: Type::Bool },
    ]
}

fn check_merge(existing: &Existing, rules: &Rules) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::user("not-a-merge-table", what).setting("mode").help(
            "let weir make the table (name a new one), or define it with ENGINE = ReplacingMergeTree(_weir_version), \
             the column _weir_version UInt64 MATERIALIZED 0, ORDER BY the key, and PARTITION BY nothing but key columns; \
             mode = \"delete_insert\" takes any table",
        ))
    };
    let key = names(&rules.key);
    if existing.base() != "ReplacingMergeTree" || plain_columns(&existing.arguments).as_deref() != Some(&[VERSION.to_owned()]) {
        let there = match existing.arguments.as_str() {
            "" => existing.engine.clone(),
            arguments => format!("{}({arguments})", existing.engine),
        };
        return refuse(format!("mode = \"merge\" needs a table of the engine ReplacingMergeTree(_weir_version), and this one is {there}"));
    }
    let sorted = existing
        .sorting
        .as_ref()
        .is_some_and(|sorting| sorting.len() == rules.key.len() && sorting.iter().all(|column| rules.key.contains(column)));
    if !sorted {
        return refuse(format!("mode = \"merge\" replaces rows by what the table is sorted by, and that is not the key {key}"));
    }
    if let Some(column) = existing.columns.iter().find(|column| column.partitions && !rules.key.contains(&column.name)) {
        return refuse(format!(
            "the table is partitioned by \"{}\", which is not of the key {key}: a row would not meet its older version",
            column.name
        ));
    }
    Ok(())
}

/// Meets rows with the columns of a table.
fn join(rows: &[RowColumn], own: &Existing, rules: &Rules, facts: &Facts) -> Result<Fit> {
    let (mut targets, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let target = |column: &RowColumn, source: usize, to: Type| Target {
        name: column.name.clone(),
        column: to,
        source,
        key: rules.keyed() && rules.key.contains(&column.name),
        lossy: column.lossy,
    };
    for (source, column) in rows.iter().enumerate() {
        let Some(there) = own.columns.iter().find(|there| there.name == column.name) else {
            new.push((column, source));
            continue;
        };
        if !there.writable() {
            let message = format!("column \"{}\" of the table is {}: the server fills it", there.name, there.kind);
            return Err(Error::user("table-feature", message).help("leave the column out in a transform"));
        }
        if write_types::accepts(&column.from, &there.column, column.lossy, facts.utc) {
            targets.push(target(column, source, there.column.clone()));
        } else {
            let what = format!("\"{}\" ({} in the rows, {} in the table)", column.name, column.column, there.column);
            changed.push((&column.name, what));
        }
    }
    let missing: Vec<&There> =
        own.columns.iter().filter(|there| there.writable() && rows.iter().all(|column| column.name != there.name)).collect();
    if !changed.is_empty() {
        let what: Vec<&str> = changed.iter().map(|(_, what)| what.as_str()).collect();
        let message = format!("other types than the table's: {} {}", columns_word(changed.len()), what.join(", "));
        return Err(Error::user("column-type-changed", message)
            .about(changed.iter().map(|(name, _)| *name))
            .help("cast in a transform, or load once with mode = \"replace\" to give the table the new types"));
    }
    if rules.on_schema_change == OnSchemaChange::Fail && !(new.is_empty() && missing.is_empty()) {
        let mut what = Vec::new();
        if !new.is_empty() {
            what.push(format!("the table has no {} {}", columns_word(new.len()), names(new.iter().map(|(column, _)| &column.name))));
        }
        if !missing.is_empty() {
            what.push(format!("the rows have no {} {}", columns_word(missing.len()), names(missing.iter().map(|there| &there.name))));
        }
        return Err(Error::user("columns-differ", what.join("; "))
            .setting("on_schema_change")
            .about(new.iter().map(|(column, _)| &column.name))
            .help("select the table's columns in a transform, or set on_schema_change = \"add_columns\" (or \"ignore\")"));
    }
    if rules.mode == Mode::Merge && !missing.is_empty() {
        let missing = names(missing.iter().map(|there| &there.name));
        return Err(Error::user(
            "columns-differ",
            format!("mode = \"merge\" puts whole rows in the place of older ones, and the rows have no {missing}"),
        )
        .help("join the table in a transform to keep its values, or use mode = \"delete_insert\""));
    }
    if let Some(there) = missing.iter().find(|there| !there.optional()) {
        let message = format!("the rows have no column \"{}\", which the table does not let be null", there.name);
        return Err(Error::user("columns-differ", message).help("give it a DEFAULT in the table, or select it in a transform"));
    }
    let mut table: Vec<Column> = own
        .columns
        .iter()
        .filter(|there| there.name != VERSION)
        .map(|there| Column { name: there.name.clone(), column: there.column.clone() })
        .collect();
    let mut added = Vec::new();
    if rules.on_schema_change != OnSchemaChange::Ignore {
        for (column, source) in new {
            let made = Column { name: column.name.clone(), column: column.column.clone().nullable() };
            targets.push(target(column, source, made.column.clone()));
            table.push(made.clone());
            added.push(made);
        }
    }
    if let Some(key) = rules.key.iter().find(|key| rules.keyed() && targets.iter().all(|target| target.name != **key)) {
        return Err(Error::user("unknown-column", format!("the table has no key column \"{key}\"")).setting("key"));
    }
    if targets.is_empty() {
        return Err(Error::user("columns-differ", "the rows and the table have no column in common"));
    }
    Ok(Fit { targets, added, table, new: None })
}

/// A table made for the rows: the target does not exist, or is replaced by one of other columns.
fn define(rows: &[RowColumn], replaced: Option<&Existing>, rules: &Rules) -> Result<Fit> {
    let settings = &rules.settings;
    let has = |name: &String| rows.iter().any(|column| column.name == *name);
    if let Some(name) = settings.order_by.iter().find(|name| !has(name)) {
        return Err(Error::user("unknown-column", format!("no column \"{name}\" to order by"))
            .setting("order_by")
            .help(format!("the columns are {}", names(rows.iter().map(|column| &column.name)))));
    }
    let before = replaced.and_then(|table| table.sorting.clone()).filter(|sorting| sorting.iter().all(has));
    let order = match (&settings.order_by, before) {
        (given, _) if !given.is_empty() => given.clone(),
        (_, Some(before)) => before,
        _ => rules.key.clone(),
    };
    if rules.mode == Mode::Merge && !(order.len() == rules.key.len() && order.iter().all(|name| rules.key.contains(name))) {
        let message = format!(
            "mode = \"merge\" replaces rows by what the table is ordered by, so order_by has to hold the key {}",
            names(&rules.key)
        );
        return Err(Error::user("order-by-key", message)
            .setting("order_by")
            .help("leave order_by out, or give the key's columns in another order"));
    }
    let partition = match (&settings.partition_by, replaced) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(table)) if !table.partition_key.is_empty() && table.columns.iter().filter(|c| c.partitions).all(|c| has(&c.name)) => {
            Some(table.partition_key.clone())
        }
        _ => None,
    };
    if rules.mode == Mode::Merge
        && let Some(partition) = &partition
        && let Some(column) = rows.iter().find(|column| !rules.key.contains(&column.name) && mentions(partition, &column.name))
    {
        let message = format!(
            "mode = \"merge\" cannot partition by \"{}\", which is not of the key: a row would not meet its older version",
            column.name
        );
        return Err(Error::user("partition-column", message).setting("partition_by").help("partition by key columns only"));
    }
    // What the server takes no null in; where the rows hold one there, they fail.
    let within = |expression: &Option<String>, name: &str| expression.as_ref().is_some_and(|expression| mentions(expression, name));
    let required = |name: &String| {
        order.contains(name) || within(&partition, name) || within(&settings.ttl, name) || (rules.keyed() && rules.key.contains(name))
    };
    let typed = |column: &RowColumn| match column.nullable && !required(&column.name) {
        true => column.column.clone().nullable(),
        false => column.column.clone(),
    };
    let table: Vec<Column> = rows.iter().map(|column| Column { name: column.name.clone(), column: typed(column) }).collect();
    let targets = rows
        .iter()
        .zip(&table)
        .enumerate()
        .map(|(source, (column, made))| Target {
            name: column.name.clone(),
            column: made.column.clone(),
            source,
            key: rules.keyed() && rules.key.contains(&column.name),
            lossy: column.lossy,
        })
        .collect();
    let mut tail = String::new();
    if let Some(partition) = &partition {
        tail += &format!(" PARTITION BY {partition}");
    }
    tail += &match order.len() {
        0 => " ORDER BY tuple()".to_owned(),
        _ => format!(" ORDER BY ({})", quote::identifiers(&order)),
    };
    if let Some(ttl) = &settings.ttl {
        tail += &format!(" TTL {ttl}");
    }
    tail += &settings.engine_settings()?;
    let engine = settings.engine_for(rules.mode)?;
    let mut fit = Fit { targets, added: Vec::new(), table, new: Some(New { engine, tail, expires: settings.ttl.is_some() }) };
    if rules.mode == Mode::Snapshot {
        fit.table.extend(versions());
    }
    Ok(fit)
}

/// Says whether an expression speaks of a column. A text that happens to hold the name does not count.
pub fn mentions(expression: &str, column: &str) -> bool {
    let mut at = 0;
    while let Some(c) = expression[at..].chars().next() {
        if matches!(c, '`' | '"' | '\'') {
            let end = write_types::quoted_end(&expression[at..]).unwrap_or(expression.len() - at);
            if c != '\'' && write_types::unquote(&expression[at..at + end]) == column {
                return true;
            }
            at += end;
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end = expression[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(expression.len() - at);
            if &expression[at..at + end] == column {
                return true;
            }
            at += end;
        } else {
            at += c.len_utf8();
        }
    }
    false
}

/// The column list of a table to be made, the hidden column with the constant `version`.
pub fn column_list(table: &[Column], version: u64) -> String {
    let mut list: Vec<String> = table.iter().map(|column| format!("{} {}", quote::identifier(&column.name), column.column)).collect();
    list.push(format!("{VERSION} UInt64 MATERIALIZED {version}"));
    list.join(", ")
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
