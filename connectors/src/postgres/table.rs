//! What a table that is to be loaded looks like, and how rows fit it: which columns are written, new, missing or refused.
//! Nothing here changes anything; what is done with it is `load.rs` and `apply.rs`.

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use weir_pipelines::{Mode, OnSchemaChange};

use super::{
    connect::Session,
    failed::Doing,
    name::TableName,
    write_types::{COLUMNS_MAX, PgType, RowColumn, fits, of_catalog},
};
use crate::{
    error::{Error, Result},
    quote,
};

/// When a version began: one of the three columns that mode snapshot adds.
pub const VALID_FROM: &str = "valid_from";
/// When a version was closed; null while it is current.
pub const VALID_TO: &str = "valid_to";
/// True for the newest version of a key.
pub const IS_CURRENT: &str = "is_current";

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub pg: PgType,
    /// Its type as Postgres spells it.
    pub sql: String,
    /// False where the table or the type forbids nulls.
    pub nullable: bool,
    /// How it gets a value that rows do not give.
    pub fills: Fills,
}

/// How a column gets a value that rows do not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fills {
    /// It stays null.
    Null,
    /// By a default, which an explicit value may replace.
    Default,
    /// By an expression or a sequence, and never otherwise.
    Always,
}

/// A table as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Existing {
    /// Its columns.
    pub columns: Vec<Column>,
    /// The columns of each unique index that `on conflict` can name, the primary key's first.
    pub unique: Vec<Vec<String>>,
    /// The columns that other tables' foreign keys refer to, and those tables' names.
    pub referenced: Vec<(Vec<String>, String)>,
    /// True where a foreign key refers to the table itself.
    pub refers_to_itself: bool,
    /// The other tables that its own foreign keys refer to.
    pub refers_to: Vec<TableName>,
    /// How many unique indexes it has, those that `on conflict` cannot name too.
    pub unique_count: i64,
    /// True where a check, a foreign key, an exclusion, a trigger, a rule, a policy or a partition's bounds may refuse a row.
    pub refuses: bool,
}

/// What a table may have against rows that are staged beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Nothing that staging and sealing do not find.
    Needless,
    /// Constraints, triggers, partitions.
    All,
    /// The same; a row that a foreign key misses, or waits for, may come with the run.
    ButForeignKeys,
}

impl Existing {
    /// How to ask the table about staged rows that fit its columns and, where the mode wants it, have a key each. `parents_beside`: a row
    /// that a foreign key refers to may come with the same run.
    pub fn trial(&self, rules: &Rules, parents_beside: bool) -> Trial {
        let by_key = |unique: &&Vec<String>| unique.len() == rules.key.len() && unique.iter().all(|column| rules.key.contains(column));
        let merged = if rules.mode == Mode::Merge { self.unique.iter().filter(by_key).count() } else { 0 };
        match self.refuses || usize::try_from(self.unique_count).is_ok_and(|count| count > merged) {
            false => Trial::Needless,
            true if parents_beside => Trial::ButForeignKeys,
            true => Trial::All,
        }
    }
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
}

/// How rows fit a table.
#[derive(Debug, Clone)]
pub struct Fit {
    /// What is written of each row: the column, and where it stands in the row.
    pub written: Vec<(Column, usize)>,
    /// Columns the table gains.
    pub added: Vec<Column>,
    /// The table's columns afterwards.
    pub table: Vec<Column>,
}

const RELATION: &str = "
select c.oid::text, c.relkind::text
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname::text = $1 and c.relname::text = $2";

/// Domains are seen as what lies beneath; the modifier is that of the column, or of the innermost domain.
const COLUMNS: &str = "
with recursive beneath as (
  select a.attnum, t.oid, t.typtype, t.typname, t.typelem, t.typcategory, t.typbasetype, t.typnotnull,
    case when t.typtype = 'd' then t.typtypmod else a.atttypmod end as modifier
  from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
  union all
  select b.attnum, t.oid, t.typtype, t.typname, t.typelem, t.typcategory, t.typbasetype, t.typnotnull or b.typnotnull,
    case when t.typtype = 'd' then t.typtypmod else b.modifier end
  from beneath b join pg_catalog.pg_type t on t.oid = b.typbasetype
  where b.typtype = 'd'
)
select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull or b.typnotnull,
  a.attgenerated::text <> '' or a.attidentity::text = 'a', a.atthasdef or a.attidentity::text <> '',
  b.oid::bigint, b.typtype::text, b.typname::text, b.modifier,
  case when b.typcategory = 'A' then e.oid::bigint end, e.typtype::text, e.typname::text
from beneath b
join pg_catalog.pg_attribute a on a.attrelid = $1::oid and a.attnum = b.attnum
left join pg_catalog.pg_type e on e.oid = b.typelem
where b.typtype <> 'd'
order by a.attnum";

const UNIQUE: &str = "
select array_agg(a.attname::text order by k.place)
from pg_catalog.pg_index i
cross join lateral unnest(i.indkey::int2[]) with ordinality as k(number, place)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
where i.indrelid = $1::oid and i.indisunique and i.indisvalid and i.indisready and i.indimmediate
  and i.indpred is null and i.indexprs is null and k.place <= i.indnkeyatts
group by i.indexrelid, i.indisprimary
order by i.indisprimary desc, i.indexrelid";

const REFERENCES: &str = "
select array_agg(a.attname::text order by k.place), f.conrelid = f.confrelid, f.conrelid::regclass::text
from pg_catalog.pg_constraint f
cross join lateral unnest(f.confkey) with ordinality as k(number, place)
join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number
where f.contype = 'f' and f.confrelid = $1::oid and f.conparentid = 0
group by f.oid, f.conrelid, f.confrelid
order by f.oid";

const REFUSES: &str = "
select exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'f', 't', 'x'))
    or exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled <> 'D')
    or exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid)
    or c.relrowsecurity or c.relkind = 'p',
  (select count(*) from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisunique)
from pg_catalog.pg_class c where c.oid = $1::oid";

const REFERS: &str = "
select distinct n.nspname::text, c.relname::text
from pg_catalog.pg_constraint f
join pg_catalog.pg_class c on c.oid = f.confrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where f.contype = 'f' and f.conrelid = $1::oid and f.confrelid <> f.conrelid";

/// Looks at a table. None where it does not exist; fails with Blame::User for what is no table that can be loaded.
pub async fn look(session: &mut Session, name: &TableName) -> Result<Option<Existing>> {
    let doing = &format!("look at table \"{name}\"");
    let schema = name.schema.as_deref().unwrap_or("public");
    let found = session.fetch(RELATION, &[schema, &name.table], doing).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (oid, kind): (String, String) = (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?);
    let refused = match kind.as_str() {
        "r" | "p" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        "S" => Some("a sequence"),
        "i" | "I" => Some("an index"),
        _ => Some("no table"),
    };
    if let Some(what) = refused {
        return Err(Error::user("not-a-table", format!("\"{name}\" is {what}, which rows cannot be loaded into"))
            .setting("table")
            .help("name the table beneath it, or a new one"));
    }
    let mut columns = Vec::new();
    for row in session.fetch(COLUMNS, &[&oid], doing).await? {
        columns.push(column(&row).doing(doing)?);
    }
    let mut unique = Vec::new();
    for row in session.fetch(UNIQUE, &[&oid], doing).await? {
        unique.push(row.try_get::<Vec<String>, _>(0).doing(doing)?);
    }
    let (mut referenced, mut refers_to_itself) = (Vec::new(), false);
    for row in session.fetch(REFERENCES, &[&oid], doing).await? {
        if row.try_get::<bool, _>(1).doing(doing)? {
            refers_to_itself = true;
        } else {
            referenced.push((row.try_get(0).doing(doing)?, row.try_get(2).doing(doing)?));
        }
    }
    let mut refers_to = Vec::new();
    for row in session.fetch(REFERS, &[&oid], doing).await? {
        refers_to.push(TableName { schema: row.try_get(0).doing(doing)?, table: row.try_get(1).doing(doing)? });
    }
    let (mut refuses, mut unique_count) = (false, 0);
    for row in session.fetch(REFUSES, &[&oid], doing).await? {
        (refuses, unique_count) = (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?);
    }
    Ok(Some(Existing { columns, unique, referenced, refers_to_itself, refers_to, unique_count, refuses }))
}

fn column(row: &sqlx::postgres::PgRow) -> sqlx::Result<Column> {
    let (oid, kind, name, modifier): (i64, String, String, i32) = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
    let number = |oid: i64| u32::try_from(oid).unwrap_or_default();
    let pg = match row.try_get::<Option<i64>, _>(9)? {
        None => of_catalog(number(oid), &kind, &name, modifier),
        Some(element) => {
            let (kind, name): (String, String) = (row.try_get(10)?, row.try_get(11)?);
            match of_catalog(number(element), &kind, &name, modifier) {
                PgType::Other => PgType::Other,
                inner => PgType::Array(Box::new(inner), number(element)),
            }
        }
    };
    let fills = match (row.try_get(3)?, row.try_get(4)?) {
        (true, _) => Fills::Always,
        (false, true) => Fills::Default,
        (false, false) => Fills::Null,
    };
    Ok(Column { name: row.try_get(0)?, sql: row.try_get(1)?, nullable: !row.try_get::<bool, _>(2)?, pg, fills })
}

/// Fits rows to a table, or to none. `schema` is the rows' own, of which `rows` were made.
pub fn fit(schema: &Schema, rows: &[RowColumn], existing: Option<&Existing>, name: &TableName, rules: &Rules) -> Result<Fit> {
    check_key(rows, rules)?;
    let versioned = rules.mode == Mode::Snapshot;
    if versioned && let Some(column) = rows.iter().find(|column| [VALID_FROM, VALID_TO, IS_CURRENT].contains(&column.name.as_str())) {
        return Err(Error::user("reserved-column", format!("column \"{}\" is one that mode = \"snapshot\" makes itself", column.name))
            .help("rename it in a transform"));
    }
    let Some(existing) = existing else {
        let written: Vec<_> = rows.iter().enumerate().map(|(index, column)| (new_column(column), index)).collect();
        let mut table: Vec<Column> = written.iter().map(|(column, _)| column.clone()).collect();
        if versioned {
            table.extend(versions());
        }
        if table.len() > COLUMNS_MAX {
            return Err(Error::user(
                "too-many-columns",
                format!("a Postgres table has at most {COLUMNS_MAX} columns, and the versions need three"),
            )
            .help("select fewer columns in a transform"));
        }
        return Ok(Fit { written, added: Vec::new(), table });
    };
    let mut own = existing.columns.clone();
    if versioned {
        for made in versions() {
            let at = own.iter().position(|column| column.name == made.name && column.sql == made.sql);
            own.remove(at.ok_or_else(|| {
                Error::user("not-a-snapshot", format!("the table has no column \"{}\" of type {}", made.name, made.sql))
                    .help("mode = \"snapshot\" writes tables that it made itself; name a new table")
            })?);
        }
    }
    join(schema, rows, &own, name, rules).map(|mut fit| {
        if versioned {
            fit.table.extend(versions());
        }
        fit
    })
}

/// The three columns of mode snapshot.
fn versions() -> [Column; 3] {
    let column =
        |name: &str, pg: PgType, sql: &str, nullable| Column { name: name.into(), pg, sql: sql.into(), nullable, fills: Fills::Null };
    let instant = "timestamp with time zone";
    [
        column(VALID_FROM, PgType::Timestamptz(6), instant, false),
        column(VALID_TO, PgType::Timestamptz(6), instant, true),
        column(IS_CURRENT, PgType::Bool, "boolean", false),
    ]
}

fn new_column(column: &RowColumn) -> Column {
    let mapped = &column.mapped;
    Column { name: column.name.clone(), pg: mapped.pg.clone(), sql: mapped.sql.clone(), nullable: true, fills: Fills::Null }
}

fn join(schema: &Schema, rows: &[RowColumn], own: &[Column], name: &TableName, rules: &Rules) -> Result<Fit> {
    let (mut written, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for (index, column) in rows.iter().enumerate() {
        let Some(there) = own.iter().find(|there| there.name == column.name) else {
            new.push((new_column(column), index));
            continue;
        };
        if there.fills == Fills::Always {
            return Err(always(&there.name, name));
        }
        if fits(schema.field(index), &there.pg) {
            written.push((there.clone(), index));
        } else {
            changed.push((column, there));
        }
    }
    if !changed.is_empty() {
        return Err(misfit(&changed, name));
    }
    let missing: Vec<&Column> = own.iter().filter(|there| rows.iter().all(|column| column.name != there.name)).collect();
    // What the table fills by itself, nobody misses.
    let missed: Vec<&Column> = missing.iter().filter(|column| column.fills == Fills::Null).copied().collect();
    if rules.on_schema_change == OnSchemaChange::Fail && !(new.is_empty() && missed.is_empty()) {
        let mut what = Vec::new();
        if !new.is_empty() {
            what.push(format!("the table has no {} {}", columns_word(new.len()), names(new.iter().map(|(column, _)| column))));
        }
        if !missed.is_empty() {
            what.push(format!("the rows have no {} {}", columns_word(missed.len()), names(missed)));
        }
        return Err(Error::user("columns-differ", what.join("; "))
            .setting("on_schema_change")
            .about(new.iter().map(|(column, _)| &column.name))
            .help("select the table's columns in a transform, or set on_schema_change = \"add_columns\" (or \"ignore\")"));
    }
    if let Some(column) = missed.iter().find(|column| !column.nullable) {
        let message = format!("the rows have no column \"{}\", which the table does not let be null and has no default for", column.name);
        return Err(Error::user("columns-differ", message).help(format!(
            "select it in a transform, or give it a default: alter table {} alter column {} set default …",
            name.sql(),
            quote::identifier(&column.name)
        )));
    }
    let mut table = own.to_vec();
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
    Ok(Fit { written, added, table })
}

fn always(column: &str, name: &TableName) -> Error {
    let message = format!("column \"{column}\" of table \"{name}\" is always generated by the database, so rows cannot give it");
    Error::user("generated-column", message).about([&column.to_owned()]).help(format!(
        "leave it out in a transform, or, where it is an identity: alter table {} alter column {} set generated by default",
        name.sql(),
        quote::identifier(column)
    ))
}

fn misfit(changed: &[(&RowColumn, &Column)], name: &TableName) -> Error {
    let what: Vec<_> = changed
        .iter()
        .map(|(column, there)| format!("\"{}\" ({} in the rows, {} in the table)", column.name, column.mapped.sql, there.sql))
        .collect();
    let alters: Vec<_> = changed
        .iter()
        .map(|(column, _)| {
            let (quoted, sql) = (quote::identifier(&column.name), &column.mapped.sql);
            format!("alter column {quoted} type {sql} using {quoted}::{sql}")
        })
        .collect();
    Error::user("column-type", format!("other types than the table's: {} {}", columns_word(changed.len()), what.join(", ")))
        .about(changed.iter().map(|(column, _)| &column.name))
        .help(format!("cast in a transform, or change the table: alter table {} {}", name.sql(), alters.join(", ")))
}

fn columns_word(count: usize) -> &'static str {
    if count == 1 { "column" } else { "columns" }
}

fn names<'a>(columns: impl IntoIterator<Item = &'a Column>) -> String {
    columns.into_iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

fn check_key(rows: &[RowColumn], rules: &Rules) -> Result<()> {
    for key in &rules.key {
        let Some(column) = rows.iter().find(|column| column.name == *key) else {
            let all: Vec<_> = rows.iter().map(|column| format!("\"{}\"", column.name)).collect();
            return Err(Error::user("unknown-column", format!("no column \"{key}\" in the rows of sink \"{}\"", rules.step))
                .setting("key")
                .help(format!("the columns are {}", all.join(", "))));
        };
        let why = match column.mapped.pg {
            PgType::Float4 | PgType::Float8 => "a floating-point number, and two of them are seldom equal",
            PgType::Array(..) | PgType::Json | PgType::Jsonb => "nested",
            _ => continue,
        };
        if by_key(rules.mode) {
            return Err(Error::user("key-type", format!("column \"{key}\" cannot be a key: it is {why}"))
                .setting("key")
                .help("cast it to a decimal, an integer or text in a transform"));
        }
    }
    Ok(())
}

/// True of the modes that go by the key.
pub fn by_key(mode: Mode) -> bool {
    matches!(mode, Mode::Merge | Mode::DeleteInsert | Mode::Snapshot)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
