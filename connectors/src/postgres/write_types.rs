//! Which Postgres type each Arrow type becomes, which mappings lose something, and which columns of a table that exists take a type.
//! How a value is laid out in its column's binary form is `encode.rs`; which Arrow type a Postgres type is read as is `types.rs`.

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::{
    TypeRow,
    error::{Error, Result},
};

const fn row(arrow: &'static str, column: &'static str, exact: bool, note: &'static str) -> TypeRow {
    TypeRow { arrow, column, exact, note }
}

static TYPES: &[TypeRow] = &[
    row("Boolean", "boolean", true, ""),
    row("Int8", "smallint", true, "widened"),
    row("Int16", "smallint", true, ""),
    row("Int32", "integer", true, ""),
    row("Int64", "bigint", true, ""),
    row("UInt8", "smallint", true, "widened"),
    row("UInt16", "integer", true, "widened"),
    row("UInt32", "bigint", true, "widened"),
    row("UInt64", "numeric(20,0)", true, "widened"),
    row("Float16", "real", true, "widened"),
    row("Float32", "real", true, "NaN and the infinities are kept"),
    row("Float64", "double precision", true, "NaN and the infinities are kept"),
    row("Decimal32, Decimal64, Decimal128, Decimal256", "numeric(p,s)", true, "precision and scale are kept; a negative scale becomes 0"),
    row("Utf8, LargeUtf8, Utf8View", "text", true, "the empty string is not null; a NUL byte fails the run"),
    row("Utf8 marked arrow.json", "jsonb", true, "the same JSON value; spaces and the order of keys are not kept"),
    row("Binary, LargeBinary, BinaryView, FixedSizeBinary", "bytea", true, ""),
    row("FixedSizeBinary(16) marked arrow.uuid", "uuid", true, ""),
    row("Date32", "date", true, "before 4714 BC or after 5874897 fails the run"),
    row("Date64", "timestamp without time zone", true, "milliseconds are kept"),
    row("Timestamp(s | ms | us, zone)", "timestamp with time zone", true, "the instant is kept, the zone is not: it reads back in UTC"),
    row("Timestamp(s | ms | us)", "timestamp without time zone", true, "a wall clock reading without a zone"),
    row("Timestamp(ns, zone)", "timestamp with time zone", false, "cut to microseconds"),
    row("Timestamp(ns)", "timestamp without time zone", false, "cut to microseconds"),
    row("Time32, Time64(us)", "time without time zone", true, ""),
    row("Time64(ns)", "time without time zone", false, "cut to microseconds"),
    row("Duration(s | ms | us)", "interval", true, ""),
    row("Duration(ns)", "interval", false, "cut to microseconds"),
    row("Interval", "interval", true, "nanoseconds that are no whole microseconds fail the run"),
    row("Null", "text", true, "all null; takes the destination's type where the column exists"),
    row("List, LargeList, ListView, LargeListView, FixedSizeList", "array", true, "as its element; one dimension"),
    row("Struct, Map and lists of them or of lists: of booleans, integers, text", "jsonb", true, "JSON"),
    row("Struct, Map and lists of them or of lists: of anything else", "jsonb", false, "becomes JSON"),
    row("Dictionary, RunEndEncoded", "as its value", true, ""),
];

/// Every mapping, in the order of the reference.
pub fn type_table() -> Vec<TypeRow> {
    TYPES.to_vec()
}

/// What a column of a table takes, as far as its binary form tells types apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PgType {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `oid`.
    Oid,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`, with its precision and scale where it is limited.
    Numeric(Option<(i32, i32)>),
    /// Whatever takes text as its binary form: `text`, `varchar`, `char`, `name`, `citext`, `xml`, enums. With the greatest number of characters.
    Text(Option<u32>),
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `bytea`.
    Bytea,
    /// `date`.
    Date,
    /// `time`, with its digits of a second.
    Time(u8),
    /// `timestamp`, with its digits of a second.
    Timestamp(u8),
    /// `timestamptz`, with its digits of a second.
    Timestamptz(u8),
    /// `interval` without limits.
    Interval,
    /// `uuid`.
    Uuid,
    /// `inet` or, where true, `cidr`.
    Inet(bool),
    /// An array of a type, with the type's oid.
    Array(Box<PgType>, u32),
    /// A type that rows cannot be written to.
    Other,
}

/// What an Arrow column becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// What it takes.
    pub pg: PgType,
    /// The type as Postgres itself spells it.
    pub sql: String,
    /// What is lost, where something is.
    pub loss: Option<&'static str>,
}

/// A column of rows with what it becomes in a new table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowColumn {
    /// Its name.
    pub name: String,
    /// What it becomes.
    pub mapped: Mapped,
    /// True for a column that holds nothing but nulls and has no type of its own.
    pub untyped: bool,
}

/// Digits of a second that Postgres keeps.
const MICRO: u8 = 6;

/// The type inside dictionaries and runs.
pub fn plain(from: &DataType) -> &DataType {
    match from {
        DataType::Dictionary(_, value) => plain(value),
        DataType::RunEndEncoded(_, value) => plain(value.data_type()),
        other => other,
    }
}

/// The element of any kind of list.
pub fn element(from: &DataType) -> Option<&Field> {
    use DataType::*;
    match plain(from) {
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

fn marked(field: &Field, name: &str) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|found| found == name)
}

/// Maps a column. `None`: Postgres has nothing for its type.
pub fn map(field: &Field) -> Option<Mapped> {
    use DataType::*;
    let cut = "nanoseconds are cut to microseconds";
    let (pg, loss) = match plain(field.data_type()) {
        Boolean => (PgType::Bool, None),
        Int8 | Int16 | UInt8 => (PgType::Int2, None),
        Int32 | UInt16 => (PgType::Int4, None),
        Int64 | UInt32 => (PgType::Int8, None),
        UInt64 => (PgType::Numeric(Some((20, 0))), None),
        Float16 | Float32 => (PgType::Float4, None),
        Float64 => (PgType::Float8, None),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => (PgType::Numeric(Some(digits(*p, *s))), None),
        Utf8 | LargeUtf8 | Utf8View if marked(field, "arrow.json") => (PgType::Jsonb, None),
        Utf8 | LargeUtf8 | Utf8View | Null => (PgType::Text(None), None),
        FixedSizeBinary(16) if marked(field, "arrow.uuid") => (PgType::Uuid, None),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => (PgType::Bytea, None),
        Date32 => (PgType::Date, None),
        Date64 => (PgType::Timestamp(MICRO), None),
        Timestamp(unit, zone) => {
            let pg = if zone.is_some() { PgType::Timestamptz(MICRO) } else { PgType::Timestamp(MICRO) };
            (pg, (*unit == TimeUnit::Nanosecond).then_some(cut))
        }
        Time32(unit) | Time64(unit) => (PgType::Time(MICRO), (*unit == TimeUnit::Nanosecond).then_some(cut)),
        Duration(unit) => (PgType::Interval, (*unit == TimeUnit::Nanosecond).then_some(cut)),
        Interval(_) => (PgType::Interval, None),
        Struct(_) | Map(..) => json(field)?,
        _ => {
            let item = element(field.data_type())?;
            if element(item.data_type()).is_some() || matches!(plain(item.data_type()), Struct(_) | Map(..)) {
                json(field)?
            } else {
                let inner = map(item)?;
                let oid = oid(&inner.pg);
                (PgType::Array(Box::new(inner.pg), oid), inner.loss)
            }
        }
    };
    let sql = sql(&pg);
    Some(Mapped { pg, sql, loss })
}

fn json(field: &Field) -> Option<(PgType, Option<&'static str>)> {
    Some((PgType::Jsonb, (!leaves(field.data_type())?).then_some("it becomes JSON")))
}

/// Says whether JSON holds every value inside as what it is. `None`: there is a type inside that has no JSON.
fn leaves(from: &DataType) -> Option<bool> {
    use DataType::*;
    Some(match plain(from) {
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Utf8 | LargeUtf8 | Utf8View | Null => true,
        Struct(fields) => fields.iter().try_fold(true, |all, field| Some(leaves(field.data_type())? && all))?,
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else { return None };
            let [key, value] = pair.as_ref() else { return None };
            leaves(value.data_type())? && matches!(plain(key.data_type()), Utf8 | LargeUtf8 | Utf8View)
        }
        Union(..) => return None,
        other => match element(other) {
            Some(item) => leaves(item.data_type())?,
            None => false,
        },
    })
}

/// Precision and scale as Postgres of every version takes them.
fn digits(precision: u8, scale: i8) -> (i32, i32) {
    let (precision, scale) = (i32::from(precision), i32::from(scale));
    if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) }
}

/// A type as Postgres spells it.
fn sql(pg: &PgType) -> String {
    match pg {
        PgType::Bool => "boolean".into(),
        PgType::Int2 => "smallint".into(),
        PgType::Int4 => "integer".into(),
        PgType::Int8 => "bigint".into(),
        PgType::Oid => "oid".into(),
        PgType::Float4 => "real".into(),
        PgType::Float8 => "double precision".into(),
        PgType::Numeric(None) => "numeric".into(),
        PgType::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
        PgType::Text(None) => "text".into(),
        PgType::Text(Some(most)) => format!("character varying({most})"),
        PgType::Json => "json".into(),
        PgType::Jsonb => "jsonb".into(),
        PgType::Bytea => "bytea".into(),
        PgType::Date => "date".into(),
        PgType::Time(_) => "time without time zone".into(),
        PgType::Timestamp(_) => "timestamp without time zone".into(),
        PgType::Timestamptz(_) => "timestamp with time zone".into(),
        PgType::Interval => "interval".into(),
        PgType::Uuid => "uuid".into(),
        PgType::Inet(false) => "inet".into(),
        PgType::Inet(true) => "cidr".into(),
        PgType::Array(element, _) => format!("{}[]", sql(element)),
        PgType::Other => "unknown".into(),
    }
}

/// The oid of a type that [`map`] gives; these are fixed in every version of Postgres.
fn oid(pg: &PgType) -> u32 {
    match pg {
        PgType::Bool => 16,
        PgType::Bytea => 17,
        PgType::Int8 => 20,
        PgType::Int2 => 21,
        PgType::Int4 => 23,
        PgType::Oid => 26,
        PgType::Json => 114,
        PgType::Inet(true) => 650,
        PgType::Float4 => 700,
        PgType::Float8 => 701,
        PgType::Inet(false) => 869,
        PgType::Date => 1082,
        PgType::Time(_) => 1083,
        PgType::Timestamp(_) => 1114,
        PgType::Timestamptz(_) => 1184,
        PgType::Interval => 1186,
        PgType::Numeric(_) => 1700,
        PgType::Uuid => 2950,
        PgType::Jsonb => 3802,
        PgType::Text(_) | PgType::Array(..) | PgType::Other => 25,
    }
}

/// What a type of `pg_type` takes: its oid, kind (`typtype`), name and modifier, of the type beneath where it is a domain.
pub fn of_catalog(oid: u32, kind: &str, name: &str, modifier: i32) -> PgType {
    let seconds = || u8::try_from(modifier).unwrap_or(MICRO).min(MICRO);
    match oid {
        16 => PgType::Bool,
        17 => PgType::Bytea,
        // `"char"` is one byte, not text.
        18 => PgType::Other,
        20 => PgType::Int8,
        21 => PgType::Int2,
        23 => PgType::Int4,
        26 => PgType::Oid,
        19 | 25 | 142 => PgType::Text(None),
        114 => PgType::Json,
        650 => PgType::Inet(true),
        700 => PgType::Float4,
        701 => PgType::Float8,
        869 => PgType::Inet(false),
        1042 | 1043 => PgType::Text(u32::try_from(modifier - 4).ok().filter(|_| modifier >= 4)),
        1082 => PgType::Date,
        1083 => PgType::Time(seconds()),
        1114 => PgType::Timestamp(seconds()),
        1184 => PgType::Timestamptz(seconds()),
        1186 if modifier == -1 => PgType::Interval,
        1700 if modifier < 4 => PgType::Numeric(None),
        // The scale is a signed number of eleven bits since Postgres 15, and was never greater than 1000 before.
        1700 => PgType::Numeric(Some((((modifier - 4) >> 16) & 0xffff, (((modifier - 4) & 0x7ff) ^ 1024) - 1024))),
        2950 => PgType::Uuid,
        3802 => PgType::Jsonb,
        _ if kind == "e" || name == "citext" => PgType::Text(None),
        _ => PgType::Other,
    }
}

/// Says whether every value of a column of rows is a value of a table's column. What would be rounded does not fit.
pub fn fits(from: &Field, to: &PgType) -> bool {
    use DataType::*;
    let whole = |from: &DataType| match from {
        Int8 => Some((3, true)),
        UInt8 => Some((3, false)),
        Int16 => Some((5, true)),
        UInt16 => Some((5, false)),
        Int32 => Some((10, true)),
        UInt32 => Some((10, false)),
        Int64 => Some((19, true)),
        UInt64 => Some((20, false)),
        _ => None,
    };
    let decimal = |from: &DataType| match from {
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => Some(digits(*p, *s)),
        _ => None,
    };
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        // What is left of nanoseconds is microseconds: that they are cut was said before.
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 6,
    };
    let from_type = plain(from.data_type());
    if *from_type == Null {
        return *to != PgType::Other;
    }
    let text = matches!(from_type, Utf8 | LargeUtf8 | Utf8View);
    let small = |digits: i32| decimal(from_type).is_some_and(|(precision, scale)| scale == 0 && precision <= digits);
    match to {
        PgType::Bool => *from_type == Boolean,
        PgType::Int2 => matches!(from_type, Int8 | Int16 | UInt8) || small(4),
        PgType::Int4 => matches!(from_type, Int8 | Int16 | Int32 | UInt8 | UInt16) || small(9),
        PgType::Int8 => matches!(from_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32) || small(18),
        PgType::Oid => matches!(from_type, UInt8 | UInt16 | UInt32),
        PgType::Float4 => matches!(from_type, Float16 | Float32 | Int8 | Int16 | UInt8 | UInt16),
        PgType::Float8 => matches!(from_type, Float16 | Float32 | Float64 | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32),
        PgType::Numeric(None) => whole(from_type).is_some() || decimal(from_type).is_some(),
        PgType::Numeric(Some((precision, scale))) => {
            let own = decimal(from_type).or_else(|| whole(from_type).map(|(digits, _)| (digits, 0)));
            own.is_some_and(|(p, s)| s <= *scale && p - s <= precision - scale)
        }
        PgType::Text(_) | PgType::Inet(_) => text,
        PgType::Json | PgType::Jsonb => {
            text || ((matches!(from_type, Struct(_) | Map(..)) || element(from_type).is_some()) && leaves(from_type).is_some())
        }
        PgType::Bytea => matches!(from_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_)),
        PgType::Date => *from_type == Date32,
        PgType::Time(digits) => matches!(from_type, Time32(own) | Time64(own) if unit(own) <= *digits),
        PgType::Timestamp(digits) => match from_type {
            Timestamp(own, None) => unit(own) <= *digits,
            Date64 => *digits >= 3,
            other => *other == Date32,
        },
        PgType::Timestamptz(digits) => matches!(from_type, Timestamp(own, Some(_)) if unit(own) <= *digits),
        PgType::Interval => {
            matches!(from_type, Duration(_) | Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano))
        }
        PgType::Uuid => text || *from_type == FixedSizeBinary(16),
        PgType::Array(inner, _) => element(from_type).is_some_and(|item| fits(item, inner)) && !matches!(**inner, PgType::Array(..)),
        PgType::Other => false,
    }
}

/// The rows' columns with what they become. Every error is told: a mapping that is lossy and not allowed, a type or a name that
/// Postgres has nothing for.
pub fn row_columns(rows: &Schema, allow_lossy: &[String]) -> Result<Vec<RowColumn>, Vec<Error>> {
    let mut columns: Vec<RowColumn> = Vec::with_capacity(rows.fields().len());
    let mut wrong = Vec::new();
    let mut lossy = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for field in rows.fields() {
        let name = field.name();
        if !seen.insert(name) {
            wrong.push(
                Error::user("duplicate-column", format!("the rows have two columns \"{name}\"")).help("rename one of them in a transform"),
            );
            continue;
        }
        if let Err(error) = check_name(name) {
            wrong.push(error);
            continue;
        }
        let Some(mapped) = map(field) else {
            let message = format!("column \"{name}\" has the type {}, for which Postgres has none", field.data_type());
            wrong.push(Error::user("unsupported-type", message).about([name]).help("cast it in a transform, or leave it out"));
            continue;
        };
        if let Some(loss) = mapped.loss
            && !allow_lossy.contains(name)
        {
            lossy.push((name, field.data_type(), mapped.sql.clone(), loss));
        }
        columns.push(RowColumn { name: name.clone(), mapped, untyped: *plain(field.data_type()) == DataType::Null });
    }
    if rows.fields().is_empty() {
        wrong.push(Error::user("no-columns", "the rows have no columns, and a Postgres table that is loaded needs one"));
    }
    if rows.fields().len() > COLUMNS_MAX {
        let message = format!("the rows have {} columns, and a Postgres table has at most {COLUMNS_MAX}", rows.fields().len());
        wrong.push(Error::user("too-many-columns", message).help("select fewer columns in a transform"));
    }
    if !lossy.is_empty() {
        let what: Vec<_> = lossy.iter().map(|(name, from, to, loss)| format!("\"{name}\" ({from} to {to}: {loss})")).collect();
        let names: Vec<_> = lossy.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
        let word = if lossy.len() == 1 { "column" } else { "columns" };
        wrong.push(
            Error::user("lossy-type", format!("writing would lose something of {word} {}", what.join(", ")))
                .setting("allow_lossy")
                .about(lossy.iter().map(|(name, ..)| *name))
                .help(format!("cast in a transform, or accept it: allow_lossy = [{}]", names.join(", "))),
        );
    }
    if wrong.is_empty() { Ok(columns) } else { Err(wrong) }
}

/// Columns of a table at most.
pub const COLUMNS_MAX: usize = 1600;
/// Bytes of a name at most; Postgres cuts longer ones, and two names may become one.
const NAME_BYTES_MAX: usize = 63;
/// Columns that every table has.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Says whether a column may have this name.
pub fn check_name(name: &str) -> Result<()> {
    let why = match name.len() {
        0 => "is empty".to_owned(),
        bytes @ 64.. => format!("has {bytes} bytes, and Postgres keeps only {NAME_BYTES_MAX}"),
        _ if name.contains('\0') => "holds a NUL byte".to_owned(),
        _ if SYSTEM_COLUMNS.contains(&name) => "is one that Postgres itself has in every table".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::user("column-name", format!("the column name \"{name}\" {why}")).help("rename it in a transform"))
}

#[cfg(test)]
#[path = "write_types_tests.rs"]
mod tests;
