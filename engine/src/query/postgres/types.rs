//! Which Postgres type does a column have? One table, asked by `pg_attribute` and by the door that speaks Postgres's protocol, so that what
//! a client is told of a table is what it then gets.
//!
//! | Arrow | Postgres |
//! |---|---|
//! | Boolean | bool |
//! | Int8, UInt8, Int16 | int2 |
//! | UInt16, Int32 | int4 |
//! | UInt32, Int64 | int8 |
//! | UInt64 | numeric(20,0) |
//! | Float16, Float32; Float64 | float4; float8 |
//! | decimals | numeric(p,s) |
//! | text; text marked `arrow.json` | text; json |
//! | binary; 16 bytes marked `arrow.uuid` | bytea; uuid |
//! | dates, times, timestamps without and with a zone | date, time, timestamp, timestamptz |
//! | durations, intervals | interval |
//! | lists of these | arrays of these |
//! | structs, maps, unions, lists of them and lists of lists | json |
//! | null | text |

use arrow::datatypes::{DataType, Field};
use weir_schemas::arrow::is_json_text;

/// A type as Postgres knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgType {
    /// The number of its row in `pg_type`.
    pub oid: u32,
    /// Bytes of a value, -1 where they vary.
    pub size: i16,
    /// Precision and scale of a numeric, else -1.
    pub modifier: i32,
    /// For an array: the type of what is in it.
    pub element: Option<u32>,
}

/// Object ids of `pg_type`, which are the same in every Postgres.
#[expect(missing_docs, reason = "each is the name of its type")]
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// Each type that arrays are made of, and the type of such arrays.
pub const ARRAYS: &[(u32, u32)] = &[
    (oid::BOOL, 1000),
    (oid::BYTEA, 1001),
    (oid::CHAR, 1002),
    (oid::NAME, 1003),
    (oid::INT2, 1005),
    (oid::INT4, 1007),
    (oid::TEXT, 1009),
    (oid::BPCHAR, 1014),
    (oid::VARCHAR, 1015),
    (oid::INT8, 1016),
    (oid::FLOAT4, 1021),
    (oid::FLOAT8, 1022),
    (oid::OID, 1028),
    (oid::TIMESTAMP, 1115),
    (oid::DATE, 1182),
    (oid::TIME, 1183),
    (oid::TIMESTAMPTZ, 1185),
    (oid::INTERVAL, 1187),
    (oid::NUMERIC, 1231),
    (oid::JSON, 199),
    (oid::JSONB, 3807),
    (oid::UUID, 2951),
];

/// Names of types, as `to_regtype` is asked for them.
pub(super) const NAMES: &[(&str, u32)] = &[
    ("bool", oid::BOOL),
    ("boolean", oid::BOOL),
    ("bytea", oid::BYTEA),
    ("name", oid::NAME),
    ("int8", oid::INT8),
    ("bigint", oid::INT8),
    ("int2", oid::INT2),
    ("smallint", oid::INT2),
    ("int4", oid::INT4),
    ("integer", oid::INT4),
    ("text", oid::TEXT),
    ("oid", oid::OID),
    ("json", oid::JSON),
    ("jsonb", oid::JSONB),
    ("float4", oid::FLOAT4),
    ("real", oid::FLOAT4),
    ("float8", oid::FLOAT8),
    ("double precision", oid::FLOAT8),
    ("varchar", oid::VARCHAR),
    ("date", oid::DATE),
    ("time", oid::TIME),
    ("timestamp", oid::TIMESTAMP),
    ("timestamptz", oid::TIMESTAMPTZ),
    ("interval", oid::INTERVAL),
    ("numeric", oid::NUMERIC),
    ("uuid", oid::UUID),
];

/// A type as Postgres' own `format_type` spells it; `modifier`: a column's, -1 where it has none, nothing where no column is meant.
pub(super) fn spelt(oid: u32, modifier: Option<i32>) -> String {
    let given = modifier.filter(|modifier| *modifier >= 0);
    let bits = |name: &str| given.filter(|bits| *bits > 0).map_or_else(|| name.to_owned(), |bits| format!("{name}({bits})"));
    let length = |name: &str| given.filter(|given| *given > 4).map_or_else(|| name.to_owned(), |given| format!("{name}({})", given - 4));
    let within = |name: &str, rest: &str| given.map_or_else(|| format!("{name}{rest}"), |digits| format!("{name}({digits}){rest}"));
    let name = match oid {
        oid::BPCHAR if modifier.is_some_and(|modifier| modifier < 0) => "bpchar",
        oid::BPCHAR => return length("character"),
        oid::VARCHAR => return length("character varying"),
        oid::NUMERIC => match given.filter(|given| *given >= 4) {
            Some(modifier) => {
                let (precision, scale) = (((modifier - 4) >> 16) & 0xffff, (((modifier - 4) & 0x7ff) ^ 1024) - 1024);
                return format!("numeric({precision},{scale})");
            }
            None => "numeric",
        },
        oid::TIME => return within("time", " without time zone"),
        oid::TIMESTAMP => return within("timestamp", " without time zone"),
        oid::TIMESTAMPTZ => return within("timestamp", " with time zone"),
        oid::BOOL => "boolean",
        oid::BYTEA => "bytea",
        oid::CHAR => "\"char\"",
        oid::NAME => "name",
        oid::INT8 => "bigint",
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::TEXT => "text",
        oid::OID => "oid",
        oid::JSON => "json",
        oid::JSONB => "jsonb",
        oid::FLOAT4 => "real",
        oid::FLOAT8 => "double precision",
        oid::UNKNOWN => "unknown",
        oid::DATE => "date",
        oid::INTERVAL => "interval",
        oid::UUID => "uuid",
        1266 => return within("time", " with time zone"),
        1560 => return bits("bit"),
        1562 => return bits("bit varying"),
        // Those of the columns of `pg_catalog`, and others that clients look up.
        0 => "-",
        142 => "xml",
        790 => "money",
        869 => "inet",
        2276 => "\"any\"",
        22 => "int2vector",
        24 => "regproc",
        27 => "tid",
        28 => "xid",
        29 => "cid",
        30 => "oidvector",
        194 => "pg_node_tree",
        1033 => "aclitem",
        1034 => "aclitem[]",
        2205 => "regclass",
        2206 => "regtype",
        2249 => "record",
        2277 => "anyarray",
        2278 => "void",
        other => return element(other).map_or_else(|| "???".to_owned(), |element| format!("{}[]", spelt(element, modifier))),
    };
    name.to_owned()
}

/// What is in an array of the given type.
pub fn element(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(_, known)| *known == array).map(|(element, _)| *element)
}

/// The key with which `pg_catalog` marks its object ids, and the one for its one-byte characters.
const OID_ALIAS: &str = "pg.oid_alias";
const ONE_CHARACTER: &str = "pg.char";

/// The type of a column.
pub fn pg_type(field: &Field) -> PgType {
    if field.data_type() == &DataType::Int32 && field.metadata().contains_key(OID_ALIAS) {
        // Clients know what an oid is; `regclass` and its like they would have to look up.
        return of(oid::OID, 4);
    }
    if field.metadata().contains_key(ONE_CHARACTER) && field.data_type().is_string() {
        return of(oid::CHAR, 1);
    }
    if is_json_text(field) {
        return of(oid::JSON, -1);
    }
    if field.extension_type_name() == Some("arrow.uuid") && field.data_type() == &DataType::FixedSizeBinary(16) {
        return of(oid::UUID, 16);
    }
    plain(field.data_type())
}

fn of(oid: u32, size: i16) -> PgType {
    PgType { oid, size, modifier: -1, element: None }
}

fn numeric(precision: u8, scale: i8) -> PgType {
    // As Postgres packs them; a scale below zero is one of eleven bits.
    let modifier = ((i32::from(precision) << 16) | (i32::from(scale) & 0x7ff)) + 4;
    PgType { oid: oid::NUMERIC, size: -1, modifier, element: None }
}

fn plain(kind: &DataType) -> PgType {
    match kind {
        DataType::Boolean => of(oid::BOOL, 1),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => of(oid::INT2, 2),
        DataType::UInt16 | DataType::Int32 => of(oid::INT4, 4),
        DataType::UInt32 | DataType::Int64 => of(oid::INT8, 8),
        DataType::UInt64 => numeric(20, 0),
        DataType::Float16 | DataType::Float32 => of(oid::FLOAT4, 4),
        DataType::Float64 => of(oid::FLOAT8, 8),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => numeric(*precision, *scale),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => of(oid::BYTEA, -1),
        DataType::Date32 | DataType::Date64 => of(oid::DATE, 4),
        DataType::Time32(_) | DataType::Time64(_) => of(oid::TIME, 8),
        DataType::Timestamp(_, None) => of(oid::TIMESTAMP, 8),
        DataType::Timestamp(_, Some(_)) => of(oid::TIMESTAMPTZ, 8),
        DataType::Duration(_) | DataType::Interval(_) => of(oid::INTERVAL, 16),
        DataType::Dictionary(_, value) => plain(value),
        DataType::RunEndEncoded(_, value) => pg_type(value),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => list(item),
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => of(oid::JSON, -1),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => of(oid::TEXT, -1),
    }
}

fn list(item: &Field) -> PgType {
    let nested = matches!(item.data_type(), DataType::Struct(_) | DataType::Map(..) | DataType::Union(..)) || is_list(item.data_type());
    let inner = pg_type(item);
    match ARRAYS.iter().find(|(element, _)| *element == inner.oid) {
        Some((element, array)) if !nested => PgType { oid: *array, size: -1, modifier: inner.modifier, element: Some(*element) },
        // An array of Postgres has sides of one length, and no names in it: JSON says what is there.
        _ => of(oid::JSON, -1),
    }
}

fn is_list(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) | DataType::LargeListView(_)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn lists_of_plain_values_are_arrays_and_what_is_nested_is_json() {
        let item = |kind| Arc::new(Field::new("item", kind, true));
        assert_eq!(plain(&DataType::List(item(DataType::Int64))).oid, 1016);
        assert_eq!(plain(&DataType::List(item(DataType::UInt64))).oid, 1231);
        assert_eq!(plain(&DataType::List(item(DataType::List(item(DataType::Int64))))).oid, oid::JSON);
        assert_eq!(plain(&DataType::List(item(DataType::Struct(vec![item(DataType::Utf8)].into())))).oid, oid::JSON);
        assert_eq!(plain(&DataType::Decimal128(12, 2)).modifier, ((12 << 16) | 2) + 4);
    }

    #[test]
    fn types_are_spelt_as_postgres_does() {
        let of = |kind: DataType| {
            let known = plain(&kind);
            spelt(known.oid, Some(known.modifier))
        };
        let items = |kind| DataType::List(Arc::new(Field::new("item", kind, true)));
        assert_eq!(of(DataType::UInt64), "numeric(20,0)");
        assert_eq!(of(DataType::Decimal128(38, 0)), "numeric(38,0)");
        assert_eq!(of(DataType::Decimal128(5, -2)), "numeric(5,-2)");
        assert_eq!(of(items(DataType::Decimal128(20, 3))), "numeric(20,3)[]");
        assert_eq!(of(items(DataType::Utf8)), "text[]");
        for (oid, modifier, name) in [
            (oid::NUMERIC, None, "numeric"),
            (oid::BPCHAR, None, "character"),
            (oid::BPCHAR, Some(-1), "bpchar"),
            (oid::BPCHAR, Some(7), "character(3)"),
            (oid::VARCHAR, Some(24), "character varying(20)"),
            (oid::VARCHAR, Some(-1), "character varying"),
            (oid::TIMESTAMPTZ, Some(3), "timestamp(3) with time zone"),
            (oid::TIME, Some(-1), "time without time zone"),
            (1002, Some(-1), "\"char\"[]"),
            (1266, Some(-1), "time with time zone"),
            (1562, Some(9), "bit varying(9)"),
            (2276, None, "\"any\""),
            (0, None, "-"),
            (oid::NUMERIC, Some(0), "numeric"),
            (4_000_000, Some(-1), "???"),
        ] {
            assert_eq!(spelt(oid, modifier), name);
        }
    }
}
