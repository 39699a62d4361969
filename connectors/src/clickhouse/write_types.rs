//! Which ClickHouse type each Arrow type becomes, which mappings lose something, and which columns of a table take which rows.
//! How values are converted is `encode.rs`; how two lists of columns meet is `table.rs`.

use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};

use serde::{Deserialize, Serialize};

use crate::{TypeRow, quote};

/// A column type, as far as Weir writes it. Kept as the server writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Type {
    /// `Bool`.
    Bool,
    /// `Int8` to `Int64`, by its bits.
    Int(u16),
    /// `UInt8` to `UInt64`, by its bits.
    UInt(u16),
    /// `Float32`, `Float64`.
    Float(u16),
    /// `Decimal(precision, scale)`.
    Decimal(u8, u8),
    /// `String`: bytes.
    String,
    /// `FixedString(n)`.
    FixedString(i32),
    /// `UUID`.
    Uuid,
    /// `Date`: 1970 to 2149.
    Date,
    /// `Date32`.
    Date32,
    /// `DateTime`, with its zone where it names one: whole seconds, 1970 to 2106.
    DateTime(Option<String>),
    /// `DateTime64`: digits after the second, and the zone where it names one.
    DateTime64(u8, Option<String>),
    /// `Nullable(T)`.
    Nullable(Box<Type>),
    /// `LowCardinality(T)`.
    LowCardinality(Box<Type>),
    /// `Array(T)`.
    Array(Box<Type>),
    /// `Tuple(name T, …)`.
    Tuple(Vec<(String, Type)>),
    /// `Map(K, V)`.
    Map(Box<Type>, Box<Type>),
    /// `Enum8(…)`, `Enum16(…)`: as the server writes it.
    Enum(String),
    /// Any other: as the server writes it. Takes no rows.
    Other(String),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bool => f.write_str("Bool"),
            Type::Int(bits) => write!(f, "Int{bits}"),
            Type::UInt(bits) => write!(f, "UInt{bits}"),
            Type::Float(bits) => write!(f, "Float{bits}"),
            Type::Decimal(precision, scale) => write!(f, "Decimal({precision}, {scale})"),
            Type::String => f.write_str("String"),
            Type::FixedString(size) => write!(f, "FixedString({size})"),
            Type::Uuid => f.write_str("UUID"),
            Type::Date => f.write_str("Date"),
            Type::Date32 => f.write_str("Date32"),
            Type::DateTime(None) => f.write_str("DateTime"),
            Type::DateTime(Some(zone)) => write!(f, "DateTime({})", quote::clickhouse::literal(zone)),
            Type::DateTime64(digits, None) => write!(f, "DateTime64({digits})"),
            Type::DateTime64(digits, Some(zone)) => write!(f, "DateTime64({digits}, {})", quote::clickhouse::literal(zone)),
            Type::Nullable(inner) => write!(f, "Nullable({inner})"),
            Type::LowCardinality(inner) => write!(f, "LowCardinality({inner})"),
            Type::Array(inner) => write!(f, "Array({inner})"),
            Type::Tuple(parts) => {
                f.write_str("Tuple(")?;
                for (index, (name, part)) in parts.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    match name.as_str() {
                        "" => write!(f, "{comma}{part}")?,
                        name => write!(f, "{comma}{} {part}", quote::clickhouse::identifier(name))?,
                    }
                }
                f.write_str(")")
            }
            Type::Map(key, value) => write!(f, "Map({key}, {value})"),
            Type::Enum(text) | Type::Other(text) => f.write_str(text),
        }
    }
}

impl From<String> for Type {
    fn from(text: String) -> Self {
        Type::parse(&text)
    }
}

impl From<Type> for String {
    fn from(kind: Type) -> Self {
        kind.to_string()
    }
}

impl Type {
    fn utc(digits: u8) -> Self {
        Type::DateTime64(digits, Some("UTC".into()))
    }

    /// The type that holds nulls as well, where ClickHouse has one: lists, tuples and maps are never null.
    pub fn nullable(self) -> Self {
        match self {
            Type::Nullable(_) | Type::LowCardinality(_) | Type::Array(_) | Type::Tuple(_) | Type::Map(..) | Type::Other(_) => self,
            plain => Type::Nullable(Box::new(plain)),
        }
    }

    /// True of a type that can hold a null at its top.
    pub fn is_nullable(&self) -> bool {
        match self {
            Type::Nullable(_) => true,
            Type::LowCardinality(inner) => inner.is_nullable(),
            _ => false,
        }
    }

    /// True of lists, tuples and maps.
    pub fn is_nested(&self) -> bool {
        matches!(self, Type::Array(_) | Type::Tuple(_) | Type::Map(..))
    }

    /// The type under `Nullable` and `LowCardinality`.
    pub fn bare(&self) -> &Type {
        match self {
            Type::Nullable(inner) | Type::LowCardinality(inner) => inner.bare(),
            other => other,
        }
    }

    /// Reads a type as the server writes it. What Weir does not write is [`Type::Other`].
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let other = || Type::Other(text.to_owned());
        let (name, inside) = match text.split_once('(') {
            Some((name, rest)) if rest.ends_with(')') => (name, Some(&rest[..rest.len() - 1])),
            Some(_) => return other(),
            None => (text, None),
        };
        let parts = inside.map(split).unwrap_or_default();
        let first = || parts.first().map_or("", |part| part.trim());
        let boxed = || Box::new(Type::parse(first()));
        let zone = |part: Option<&&str>| part.map(|part| unquote(part.trim()));
        match (name, parts.len()) {
            ("Bool", 0) => Type::Bool,
            ("Int8", 0) => Type::Int(8),
            ("Int16", 0) => Type::Int(16),
            ("Int32", 0) => Type::Int(32),
            ("Int64", 0) => Type::Int(64),
            ("UInt8", 0) => Type::UInt(8),
            ("UInt16", 0) => Type::UInt(16),
            ("UInt32", 0) => Type::UInt(32),
            ("UInt64", 0) => Type::UInt(64),
            ("Float32", 0) => Type::Float(32),
            ("Float64", 0) => Type::Float(64),
            ("Decimal", 2) => match (first().parse(), parts[1].trim().parse()) {
                (Ok(precision), Ok(scale)) => Type::Decimal(precision, scale),
                _ => other(),
            },
            ("String", 0) => Type::String,
            ("FixedString", 1) => first().parse().map_or_else(|_| other(), Type::FixedString),
            ("UUID", 0) => Type::Uuid,
            ("Date", 0) => Type::Date,
            ("Date32", 0) => Type::Date32,
            ("DateTime", 0 | 1) => Type::DateTime(zone(parts.first())),
            ("DateTime64", 1 | 2) => first().parse().map_or_else(|_| other(), |digits| Type::DateTime64(digits, zone(parts.get(1)))),
            ("Nullable", 1) => Type::Nullable(boxed()),
            ("LowCardinality", 1) => Type::LowCardinality(boxed()),
            ("Array", 1) => Type::Array(boxed()),
            ("Map", 2) => Type::Map(boxed(), Box::new(Type::parse(parts[1]))),
            ("Tuple", 1..) => Type::Tuple(parts.iter().map(|part| tuple_part(part.trim())).collect()),
            ("Enum8" | "Enum16", 1..) => Type::Enum(text.to_owned()),
            _ => other(),
        }
    }
}

/// `name Type` or `Type`.
fn tuple_part(part: &str) -> (String, Type) {
    let end = match part.chars().next() {
        Some('`') => quoted_end(part),
        _ => part.find([' ', '(']).filter(|at| part.as_bytes()[*at] == b' '),
    };
    match end {
        Some(at) => (unquote(&part[..at]), Type::parse(&part[at..])),
        None => (String::new(), Type::parse(part)),
    }
}

/// Where the quoted text that `text` begins with ends.
pub fn quoted_end(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                }
                _ => return Some(at + c.len_utf8()),
            }
        }
    }
    None
}

/// Splits at the commas that stand in no parentheses and in no quotes.
pub fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from, mut at) = (Vec::new(), 0_usize, 0, 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '`' | '\'' | '"' => {
                at += quoted_end(&text[at..]).unwrap_or(text.len() - at);
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    parts.push(&text[from..]);
    parts
}

/// The name or text that the server wrote, without its quotes.
pub fn unquote(text: &str) -> String {
    let quote = match text.chars().next() {
        Some(quote @ ('`' | '\'' | '"')) if text.len() > 1 && text.ends_with(quote) => quote,
        _ => return text.to_owned(),
    };
    let mut out = String::with_capacity(text.len());
    let mut chars = text[1..text.len() - 1].chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('0') => out.push('\0'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c if c == quote && chars.peek() == Some(&quote) => {
                chars.next();
                out.push(quote);
            }
            c => out.push(c),
        }
    }
    out
}

const fn row(arrow: &'static str, column: &'static str, exact: bool, note: &'static str) -> TypeRow {
    TypeRow { arrow, column, exact, note }
}

const YEARS: &str = "a value outside the server's range (1900 to 2299; since ClickHouse 26 the years 1 to 9999) fails the run";

static TYPES: &[TypeRow] = &[
    row("Boolean", "Bool", true, ""),
    row("Int8", "Int8", true, ""),
    row("Int16", "Int16", true, ""),
    row("Int32", "Int32", true, ""),
    row("Int64", "Int64", true, ""),
    row("UInt8", "UInt8", true, ""),
    row("UInt16", "UInt16", true, ""),
    row("UInt32", "UInt32", true, ""),
    row("UInt64", "UInt64", true, ""),
    row("Float16", "Float32", true, "widened"),
    row("Float32", "Float32", true, "NaN and the infinities are kept"),
    row("Float64", "Float64", true, "NaN and the infinities are kept"),
    row(
        "Decimal32, Decimal64, Decimal128, Decimal256",
        "Decimal(p, s)",
        true,
        "precision and scale are kept; a negative scale becomes 0; at most 76 digits",
    ),
    row("Utf8, LargeUtf8, Utf8View", "String", true, "the empty string is not null"),
    row("Binary, LargeBinary, BinaryView", "String", true, "the same bytes; the column does not say that they are no text"),
    row("FixedSizeBinary", "FixedString(n)", true, ""),
    row("FixedSizeBinary(16) of the extension type arrow.uuid", "UUID", true, ""),
    row("Date32", "Date32", true, YEARS),
    row("Date64", "DateTime64(3, 'UTC')", true, YEARS),
    row("Timestamp(s, zone)", "DateTime64(0, 'UTC')", true, "the instant is kept, the zone is not: it reads back in UTC"),
    row("Timestamp(ms, zone)", "DateTime64(3, 'UTC')", true, "the instant is kept, the zone is not: it reads back in UTC"),
    row("Timestamp(us, zone)", "DateTime64(6, 'UTC')", true, "the instant is kept, the zone is not: it reads back in UTC"),
    row("Timestamp(ns, zone)", "DateTime64(9, 'UTC')", true, "the instant is kept, the zone is not; 1677 to 2262"),
    row("Timestamp(s | ms | us | ns)", "DateTime64(0 | 3 | 6 | 9, 'UTC')", true, "the wall clock's reading, as if the clock hung in UTC"),
    row("Time32, Time64", "String", false, "ISO 8601 text such as 09:30:00"),
    row("Duration", "String", false, "ISO 8601 text such as PT90S"),
    row("Interval", "String", false, "ISO 8601 text such as P1M2DT3S"),
    row("Null", "String", true, "all null; takes the destination's type where the column exists"),
    row(
        "List, LargeList, ListView, LargeListView, FixedSizeList",
        "Array",
        true,
        "as its element; a null list fails the run, or becomes [] where the column is in allow_lossy",
    ),
    row(
        "Struct",
        "Tuple",
        true,
        "as its fields; a null struct fails the run, or becomes one of null fields where the column is in allow_lossy",
    ),
    row("Map", "Map", true, "as its key and value; a null map fails the run, or becomes {} where the column is in allow_lossy"),
    row("Dictionary, RunEndEncoded", "as its value", true, ""),
];

/// Every mapping, in the order of the reference.
pub fn type_table() -> Vec<TypeRow> {
    TYPES.to_vec()
}

/// What an Arrow type becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The column type, not null at its top.
    pub column: Type,
    /// What is lost, where something is.
    pub loss: Option<&'static str>,
}

/// Maps a field. `None`: ClickHouse has nothing for it.
pub fn map(field: &Field) -> Option<Mapped> {
    let exact = |column| Mapped { column, loss: None };
    let lossy = |loss| Mapped { column: Type::String, loss: Some(loss) };
    if field.data_type() == &DataType::FixedSizeBinary(16) && is_uuid(field) {
        return Some(exact(Type::Uuid));
    }
    use DataType::*;
    Some(match field.data_type() {
        Boolean => exact(Type::Bool),
        Int8 => exact(Type::Int(8)),
        Int16 => exact(Type::Int(16)),
        Int32 => exact(Type::Int(32)),
        Int64 => exact(Type::Int(64)),
        UInt8 => exact(Type::UInt(8)),
        UInt16 => exact(Type::UInt(16)),
        UInt32 => exact(Type::UInt(32)),
        UInt64 => exact(Type::UInt(64)),
        Float16 | Float32 => exact(Type::Float(32)),
        Float64 => exact(Type::Float(64)),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => {
            let (precision, scale) = decimal(*p, *s);
            if precision > 76 {
                return None;
            }
            exact(Type::Decimal(precision, scale))
        }
        Utf8 | LargeUtf8 | Utf8View | Null | Binary | LargeBinary | BinaryView | FixedSizeBinary(0) => exact(Type::String),
        FixedSizeBinary(size) => exact(Type::FixedString(*size)),
        Date32 => exact(Type::Date32),
        Date64 => exact(Type::utc(3)),
        Timestamp(unit, _) => exact(Type::utc(digits(*unit))),
        Time32(_) | Time64(_) => lossy("a time of day becomes text"),
        Duration(_) => lossy("a duration becomes text"),
        Interval(_) => lossy("an interval becomes text"),
        Dictionary(_, value) => map(&Field::new("", value.as_ref().clone(), true))?,
        RunEndEncoded(_, value) => map(value)?,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => {
            let item = map(item)?;
            Mapped { column: Type::Array(Box::new(item.column.nullable())), loss: item.loss }
        }
        Struct(fields) => {
            let (mut parts, mut loss): (Vec<(std::string::String, Type)>, _) = (Vec::with_capacity(fields.len()), None);
            for field in fields {
                let mapped = map(field)?;
                loss = loss.or(mapped.loss);
                if field.name().is_empty() || parts.iter().any(|(name, _)| name == field.name()) {
                    return None;
                }
                parts.push((field.name().clone(), mapped.column.nullable()));
            }
            if parts.is_empty() {
                return None;
            }
            Mapped { column: Type::Tuple(parts), loss }
        }
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else { return None };
            let [key, value] = pair.as_ref() else { return None };
            let (key, value) = (map(key)?, map(value)?);
            if key.column.is_nested() || matches!(key.column, Type::Float(_)) {
                return None;
            }
            Mapped { column: Type::Map(Box::new(key.column), Box::new(value.column.nullable())), loss: key.loss.or(value.loss) }
        }
        _ => return None,
    })
}

/// True of a field that is a UUID by Arrow's canonical extension type.
pub fn is_uuid(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.uuid")
}

/// Precision and scale without a negative scale.
fn decimal(precision: u8, scale: i8) -> (u8, u8) {
    match u8::try_from(scale) {
        Ok(scale) => (precision.max(scale), scale),
        Err(_) => (precision.saturating_add(scale.unsigned_abs()), 0),
    }
}

/// Digits after the second.
pub fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Says whether a column of the type `to` takes values of the Arrow type `from`: every one, or those that the check of values lets
/// pass. `lossy`: digits after the second may be cut. `server_utc`: the server's own zone is UTC.
pub fn accepts(from: &DataType, to: &Type, lossy: bool, server_utc: bool) -> bool {
    use DataType::*;
    let again = |from: &DataType, to: &Type| accepts(from, to, lossy, server_utc);
    let utc = |zone: &Option<std::string::String>| zone.as_ref().map_or(server_utc, |zone| zone == "UTC" || zone == "Etc/UTC");
    let integer = |from: &DataType| match from {
        Int8 => Some((true, 8, 3)),
        Int16 => Some((true, 16, 5)),
        Int32 => Some((true, 32, 10)),
        Int64 => Some((true, 64, 19)),
        UInt8 => Some((false, 8, 3)),
        UInt16 => Some((false, 16, 5)),
        UInt32 => Some((false, 32, 10)),
        UInt64 => Some((false, 64, 20)),
        _ => None,
    };
    match (from, to) {
        (_, Type::Nullable(inner) | Type::LowCardinality(inner)) => again(from, inner),
        (_, Type::Other(_)) => false,
        (Null, to) => !to.is_nested(),
        (Dictionary(_, value), to) => again(value, to),
        (RunEndEncoded(_, value), to) => again(value.data_type(), to),
        (Boolean, Type::Bool) => true,
        (from, Type::Int(bits)) => integer(from).is_some_and(|(signed, from, _)| if signed { from <= *bits } else { from < *bits }),
        (from, Type::UInt(bits)) => integer(from).is_some_and(|(signed, from, _)| !signed && from <= *bits),
        (Float16 | Float32, Type::Float(_)) | (Float64, Type::Float(64)) => true,
        (from, Type::Float(bits)) => integer(from).is_some_and(|(_, from, _)| from <= bits / 2),
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s), Type::Decimal(q, t)) => {
            let (p, s) = decimal(*p, *s);
            *t >= s && i16::from(*q) - i16::from(*t) >= i16::from(p) - i16::from(s)
        }
        (from, Type::Decimal(q, t)) => integer(from).is_some_and(|(_, _, digits)| i16::from(*q) - i16::from(*t) >= digits),
        (Utf8 | LargeUtf8 | Utf8View, Type::String | Type::Enum(_)) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Type::String) => true,
        (Time32(_) | Time64(_) | Duration(_) | Interval(_), Type::String) => true,
        (FixedSizeBinary(from), Type::FixedString(to)) => from == to,
        (FixedSizeBinary(16), Type::Uuid) => true,
        (Date32, Type::Date32 | Type::Date) => true,
        (Date64, Type::DateTime64(digits, zone)) => *digits >= 3 && utc(zone),
        (Timestamp(unit, zoned), Type::DateTime64(there, zone)) => (zoned.is_some() || utc(zone)) && (lossy || digits(*unit) <= *there),
        (Timestamp(_, zoned), Type::DateTime(zone)) => zoned.is_some() || utc(zone),
        (List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _), Type::Array(inner)) => {
            again(item.data_type(), inner)
        }
        (Struct(fields), Type::Tuple(parts)) => {
            fields.len() == parts.len()
                && parts.iter().all(|(name, part)| {
                    fields.iter().find(|field| field.name() == name).is_some_and(|field| again(field.data_type(), part))
                })
        }
        (Map(entries, _), Type::Map(key, value)) => match entries.data_type() {
            Struct(pair) if pair.len() == 2 => again(pair[0].data_type(), key) && again(pair[1].data_type(), value),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
#[path = "write_types_tests.rs"]
mod tests;
