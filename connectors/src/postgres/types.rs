//! Which Arrow type each Postgres type is read as, and what is asked of the server so that it sends a form that is decoded without loss.
//! Decoding is `decode`'s; which column types rows are written to is `write_types`'s.
//!
//! | Postgres | Arrow |
//! |---|---|
//! | `boolean`, `smallint`, `integer`, `bigint` | Boolean, Int16, Int32, Int64 |
//! | `oid` | Int64 |
//! | `real`, `double precision` | Float32, Float64; NaN and the infinities are kept |
//! | `numeric(p,s)` up to 76 digits | Decimal128 or Decimal256; NaN is an error unless `numeric` says text or float |
//! | `numeric` | Utf8, digit for digit as Postgres writes it, NaN and infinities included; the setting `numeric` chooses another type |
//! | `text`, `varchar`, `name`, enums | Utf8 |
//! | `char(n)` | Utf8 with its padding |
//! | `json`, `jsonb` | Utf8 marked `arrow.json` |
//! | `bytea` | Binary |
//! | `date`, `time` | Date32, Time64(us); 24:00 is an error |
//! | `timestamp`, `timestamptz` | Timestamp(us), Timestamp(us, "UTC"); infinities are an error, or null by the setting `infinity` |
//! | `interval` | Interval(MonthDayNano) |
//! | `uuid` | Utf8: joins, filters, contracts and JSON know a UUID as text, and every destination keeps it |
//! | arrays | List; of one dimension only, their lower bound is not kept |
//! | composites | Struct, where every attribute is of a type in this table, else their text |
//! | domains | as the type beneath |
//! | `money` | Utf8, its amount without currency |
//! | everything else: `inet`, `bit`, `timetz`, `xml`, `tsvector`, `hstore`, … | Utf8, as `::text` writes it (`10.0.0.1/32`) |

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, IntervalUnit, TimeUnit};
use sqlx::Row;

use super::{connect::Session, failed::Doing};
use crate::error::{Error, Result};

/// Types nest no deeper: a composite of arrays of composites.
const DEPTH_MAX: usize = 8;

/// How `numeric` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Numeric {
    /// With a precision as a decimal, without one as text.
    #[default]
    Exact,
    /// All of it as text.
    Text,
    /// All of it as Float64, rounded.
    Float,
    /// Without a precision as a decimal of this precision and scale; a value that does not fit is an error.
    Decimal(u8, i8),
}

impl Numeric {
    /// Reads `text`, `float64` or `decimal(38,9)`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no way to read numeric: write text, float64, or decimal(38,9) with your precision and scale");
        match text {
            "text" => return Ok(Numeric::Text),
            "float64" => return Ok(Numeric::Float),
            _ => {}
        }
        let inside = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
        let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
        let precision: u8 = precision.trim().parse().map_err(|_| wrong())?;
        let scale: i8 = scale.trim().parse().map_err(|_| wrong())?;
        if precision == 0 || precision > DECIMAL256_MAX_PRECISION || scale < 0 || scale.unsigned_abs() > precision {
            return Err(format!("\"{text}\" is no decimal: precision is 1 to {DECIMAL256_MAX_PRECISION}, scale 0 to the precision"));
        }
        Ok(Numeric::Decimal(precision, scale))
    }
}

/// The binary forms that are decoded, each with one Arrow type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// Decimal128 where the precision allows it, else Decimal256.
    Decimal(u8, i8),
    NumericText,
    NumericFloat,
    Text,
    Json,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    /// The element, and its oid as arrays state it.
    List(Box<Kind>, u32),
    Struct(Vec<Attribute>),
}

/// An attribute of a composite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    pub name: String,
    pub kind: Kind,
    /// As records state it.
    pub oid: u32,
}

impl Kind {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 | Kind::Oid => DataType::Int64,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 | Kind::NumericFloat => DataType::Float64,
            Kind::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => DataType::Decimal128(*precision, *scale),
            Kind::Decimal(precision, scale) => DataType::Decimal256(*precision, *scale),
            Kind::NumericText | Kind::Text | Kind::Json | Kind::Jsonb | Kind::Uuid => DataType::Utf8,
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::List(element, _) => DataType::List(Arc::new(element.field("item", true))),
            Kind::Struct(attributes) => {
                DataType::Struct(attributes.iter().map(|attribute| attribute.kind.field(&attribute.name, true)).collect())
            }
        }
    }

    pub(super) fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.data_type(), nullable);
        match self {
            Kind::Json | Kind::Jsonb => field.with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())])),
            _ => field,
        }
    }
}

/// How a column's values are compared in a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// As they are.
    Plainly,
    /// Byte by byte, as their text.
    AsText,
    /// Text in a collation that tells unequal texts apart.
    Text,
    /// A UUID with a text.
    Uuid,
    /// Not at the server.
    Never,
}

/// How a type's values are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub kind: Kind,
    /// What follows the column in the select list: a cast to the text form, or one that changes nothing unless somebody changes the
    /// column's type between looking and reading, for the binary form does not say its type.
    pub cast: String,
    pub compared: Compared,
}

/// A type as the catalog describes it.
#[derive(Debug, Clone)]
pub(super) struct PgType {
    /// `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    class: String,
    /// An array.
    array: bool,
    base: u32,
    base_modifier: i32,
    element: u32,
    relation: u32,
    attributes: Vec<(String, u32, i32)>,
}

/// Types by oid, with those they are made of.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, PgType>);

impl Types {
    /// Asks the catalog for these types and what they are made of.
    pub(super) async fn learn(session: &mut Session, oids: impl IntoIterator<Item = u32>, doing: &str) -> Result<Self> {
        let mut types = HashMap::new();
        let mut open: BTreeSet<u32> = oids.into_iter().filter(|oid| !is_scalar(*oid)).collect();
        for _ in 0..2 * DEPTH_MAX {
            if open.is_empty() {
                break;
            }
            let list = open.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let rows = session
                .fetch(
                    "select oid::int8, typtype::text, (typcategory = 'A' and typelem <> 0) as is_array, typbasetype::int8, typtypmod, \
                     typelem::int8, typrelid::int8 from pg_catalog.pg_type where oid = any (string_to_array($1, ',')::oid[])",
                    &[&list],
                    doing,
                )
                .await?;
            let mut found = HashMap::new();
            for row in &rows {
                let number = |index: usize| row.try_get::<i64, _>(index).doing(doing).map(oid);
                let pg_type = PgType {
                    class: row.try_get(1).doing(doing)?,
                    array: row.try_get(2).doing(doing)?,
                    base: number(3)?,
                    base_modifier: row.try_get(4).doing(doing)?,
                    element: number(5)?,
                    relation: number(6)?,
                    attributes: Vec::new(),
                };
                found.insert(number(0)?, pg_type);
            }
            let relations: Vec<String> = found.values().filter(|t| t.relation != 0).map(|t| t.relation.to_string()).collect();
            if !relations.is_empty() {
                let rows = session
                    .fetch(
                        "select attrelid::int8, attname::text, atttypid::int8, atttypmod from pg_catalog.pg_attribute \
                         where attrelid = any (string_to_array($1, ',')::oid[]) and attnum > 0 and not attisdropped \
                         order by attrelid, attnum",
                        &[&relations.join(",")],
                        doing,
                    )
                    .await?;
                for row in &rows {
                    let relation = oid(row.try_get::<i64, _>(0).doing(doing)?);
                    let attribute =
                        (row.try_get(1).doing(doing)?, oid(row.try_get::<i64, _>(2).doing(doing)?), row.try_get(3).doing(doing)?);
                    if let Some(owner) = found.values_mut().find(|owner| owner.relation == relation) {
                        owner.attributes.push(attribute);
                    }
                }
            }
            open = found
                .values()
                .flat_map(|t| [t.base, t.element].into_iter().chain(t.attributes.iter().map(|attribute| attribute.1)))
                .filter(|oid| *oid != 0 && !is_scalar(*oid) && !types.contains_key(oid) && !found.contains_key(oid))
                .collect();
            types.extend(found);
        }
        Ok(Self(types))
    }

    /// How values of a type are asked for and read.
    pub(super) fn reading(&self, oid: u32, modifier: i32, numeric: Numeric) -> Reading {
        let text = |cast: &str| Reading { kind: Kind::Text, cast: cast.to_owned(), compared: Compared::AsText };
        let (oid, modifier) = self.beneath(oid, modifier);
        if oid == oids::MONEY {
            return text("::pg_catalog.numeric::pg_catalog.text");
        }
        if let Some((kind, name)) = scalar(oid, modifier, numeric) {
            let compared = match (&kind, oid) {
                (_, oids::BPCHAR) => Compared::Never,
                (Kind::Text, _) => Compared::Text,
                (Kind::Json | Kind::Jsonb | Kind::NumericText, _) => Compared::AsText,
                (Kind::Uuid, _) => Compared::Uuid,
                _ => Compared::Plainly,
            };
            return Reading { kind, cast: format!("::pg_catalog.{name}"), compared };
        }
        let Some(known) = self.0.get(&oid) else { return text("::pg_catalog.text") };
        if known.array {
            let (element, element_modifier) = self.beneath(known.element, modifier);
            if element == oids::MONEY {
                let kind = Kind::List(Box::new(Kind::Text), oids::TEXT);
                return Reading { kind, cast: "::pg_catalog.numeric[]::pg_catalog.text[]".into(), compared: Compared::Plainly };
            }
            if let Some((kind, name)) = scalar(element, element_modifier, numeric) {
                let cast = format!("::pg_catalog.{name}[]");
                let oid = if name == "text" { oids::TEXT } else { element };
                return Reading { kind: Kind::List(Box::new(kind), oid), cast, compared: Compared::Plainly };
            }
            if let Some(kind @ Kind::Struct(_)) = self.sent(element, element_modifier, numeric, 0) {
                return Reading { kind: Kind::List(Box::new(kind), known.element), cast: String::new(), compared: Compared::Plainly };
            }
            let kind = Kind::List(Box::new(Kind::Text), oids::TEXT);
            return Reading { kind, cast: "::pg_catalog.text[]".into(), compared: Compared::Plainly };
        }
        match self.sent(oid, modifier, numeric, 0) {
            // To Postgres a record is null where all its fields are, and not null where none is.
            Some(kind @ Kind::Struct(_)) => Reading { kind, cast: String::new(), compared: Compared::Never },
            _ => text("::pg_catalog.text"),
        }
    }

    /// The type under domains.
    fn beneath(&self, mut oid: u32, mut modifier: i32) -> (u32, i32) {
        for _ in 0..DEPTH_MAX {
            match self.0.get(&oid) {
                Some(domain) if domain.class == "d" => (oid, modifier) = (domain.base, domain.base_modifier),
                _ => break,
            }
        }
        (oid, modifier)
    }

    /// What the binary form of a type is, as it stands inside a record; none for one that is not decoded.
    fn sent(&self, oid: u32, modifier: i32, numeric: Numeric, depth: usize) -> Option<Kind> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (oid, modifier) = self.beneath(oid, modifier);
        if let Some((kind, _)) = scalar(oid, modifier, numeric) {
            return Some(kind);
        }
        let known = self.0.get(&oid)?;
        if known.array {
            return Some(Kind::List(Box::new(self.sent(known.element, modifier, numeric, depth + 1)?), known.element));
        }
        match known.class.as_str() {
            "e" => Some(Kind::Text),
            "c" if !known.attributes.is_empty() => {
                let attributes = known.attributes.iter().map(|(name, oid, modifier)| {
                    Some(Attribute { name: name.clone(), kind: self.sent(*oid, *modifier, numeric, depth + 1)?, oid: *oid })
                });
                Some(Kind::Struct(attributes.collect::<Option<_>>()?))
            }
            _ => None,
        }
    }
}

/// Oids are 32 bits; the catalog's come as 64.
pub(super) fn oid(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// Oids that never change, from `pg_type.dat`.
mod oids {
    pub const TEXT: u32 = 25;
    pub const BPCHAR: u32 = 1042;
    pub const MONEY: u32 = 790;
}

fn is_scalar(oid: u32) -> bool {
    scalar(oid, -1, Numeric::Text).is_some()
}

/// A built-in type whose binary form is decoded, and the type to cast to.
fn scalar(oid: u32, modifier: i32, numeric: Numeric) -> Option<(Kind, &'static str)> {
    Some(match oid {
        16 => (Kind::Bool, "bool"),
        17 => (Kind::Bytea, "bytea"),
        19 => (Kind::Text, "text"),
        20 => (Kind::Int8, "int8"),
        21 => (Kind::Int2, "int2"),
        23 => (Kind::Int4, "int4"),
        oids::TEXT | 1043 => (Kind::Text, "text"),
        26 => (Kind::Oid, "oid"),
        114 => (Kind::Json, "json"),
        700 => (Kind::Float4, "float4"),
        701 => (Kind::Float8, "float8"),
        oids::BPCHAR => (Kind::Text, "bpchar"),
        1082 => (Kind::Date, "date"),
        1083 => (Kind::Time, "time"),
        1114 => (Kind::Timestamp, "timestamp"),
        1184 => (Kind::Timestamptz, "timestamptz"),
        1186 => (Kind::Interval, "interval"),
        1700 => (numeric_kind(modifier, numeric), "numeric"),
        2950 => (Kind::Uuid, "uuid"),
        3802 => (Kind::Jsonb, "jsonb"),
        _ => return None,
    })
}

fn numeric_kind(modifier: i32, numeric: Numeric) -> Kind {
    match (numeric, precision_and_scale(modifier)) {
        (Numeric::Text, _) => Kind::NumericText,
        (Numeric::Float, _) => Kind::NumericFloat,
        (Numeric::Exact | Numeric::Decimal(..), Some((precision, scale))) => {
            // Postgres counts digits from the scale on, either side of the point; Arrow counts all from the point.
            let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
            match (u8::try_from(precision), i8::try_from(scale)) {
                (Ok(precision), Ok(scale)) if precision <= DECIMAL256_MAX_PRECISION => Kind::Decimal(precision, scale),
                _ => Kind::NumericText,
            }
        }
        (Numeric::Decimal(precision, scale), None) => Kind::Decimal(precision, scale),
        (Numeric::Exact, None) => Kind::NumericText,
    }
}

/// As `numeric` packs them: precision in the upper, scale in the lower eleven bits (with its sign, from Postgres 15 on).
fn precision_and_scale(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}

/// Fails where two columns have one name.
pub(super) fn distinct<'a>(names: impl IntoIterator<Item = &'a str>, whose: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(Error::user("column-twice", format!("{whose} has two columns called \"{twice}\""))
            .setting("query")
            .help(format!("give one of them another name: … as {twice}_2"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modifier(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    #[test]
    fn numeric_is_a_decimal_where_its_digits_are_known() {
        let exact = |precision, scale| numeric_kind(modifier(precision, scale), Numeric::Exact);
        assert_eq!(exact(12, 2), Kind::Decimal(12, 2));
        assert_eq!(exact(38, 38).data_type(), DataType::Decimal128(38, 38));
        assert_eq!(exact(76, 10).data_type(), DataType::Decimal256(76, 10));
        assert_eq!(exact(77, 0), Kind::NumericText);
        assert_eq!(exact(3, -2), Kind::Decimal(5, 0));
        assert_eq!(exact(3, 5), Kind::Decimal(5, 5));
        assert_eq!(numeric_kind(-1, Numeric::Exact), Kind::NumericText);
        assert_eq!(numeric_kind(-1, Numeric::Decimal(20, 4)), Kind::Decimal(20, 4));
        assert_eq!(numeric_kind(modifier(12, 2), Numeric::Float), Kind::NumericFloat);
    }

    #[test]
    fn the_setting_numeric_is_read() {
        assert_eq!(Numeric::parse("decimal(38, 9)"), Ok(Numeric::Decimal(38, 9)));
        assert_eq!(Numeric::parse("decimal(20)"), Ok(Numeric::Decimal(20, 0)));
        assert_eq!(Numeric::parse("text"), Ok(Numeric::Text));
        for wrong in ["", "decimal", "decimal()", "decimal(77,0)", "decimal(3,4)", "decimal(0,0)", "decimal(3,-1)", "float"] {
            assert!(Numeric::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_type_is_read_as_what_lies_beneath_it() {
        let pg = |class: &str| PgType {
            class: class.into(),
            array: false,
            base: 0,
            base_modifier: -1,
            element: 0,
            relation: 0,
            attributes: Vec::new(),
        };
        let composite = PgType { relation: 1, attributes: vec![("a".into(), 23, -1), ("b".into(), 1001, -1)], ..pg("c") };
        let odd = PgType { relation: 1, attributes: vec![("a".into(), 869, -1)], ..pg("c") };
        let types = Types(HashMap::from([
            (1000, PgType { base: 1700, base_modifier: modifier(9, 3), ..pg("d") }),
            (1001, pg("e")),
            (1002, PgType { array: true, element: 1000, ..pg("b") }),
            (1003, composite),
            (1004, PgType { array: true, element: 1003, ..pg("b") }),
            (1005, odd),
            (1006, PgType { array: true, element: 1001, ..pg("b") }),
            (1007, PgType { array: true, element: 869, ..pg("b") }),
            (869, pg("b")),
        ]));
        let of = |oid| types.reading(oid, -1, Numeric::Exact);
        assert_eq!((of(1000).kind, of(1000).cast.as_str()), (Kind::Decimal(9, 3), "::pg_catalog.numeric"));
        assert_eq!((of(1001).kind, of(1001).cast.as_str()), (Kind::Text, "::pg_catalog.text"));
        assert_eq!(
            of(1002),
            Reading {
                kind: Kind::List(Box::new(Kind::Decimal(9, 3)), 1700),
                cast: "::pg_catalog.numeric[]".into(),
                compared: Compared::Plainly
            }
        );
        let attributes =
            vec![Attribute { name: "a".into(), kind: Kind::Int4, oid: 23 }, Attribute { name: "b".into(), kind: Kind::Text, oid: 1001 }];
        assert_eq!((of(1003).kind, of(1003).cast.as_str()), (Kind::Struct(attributes.clone()), ""));
        assert_eq!(of(1004).kind, Kind::List(Box::new(Kind::Struct(attributes)), 1003));
        assert_eq!((of(1005).kind, of(1005).cast.as_str()), (Kind::Text, "::pg_catalog.text"));
        for array in [1006, 1007] {
            assert_eq!((of(array).kind, of(array).cast.as_str()), (Kind::List(Box::new(Kind::Text), 25), "::pg_catalog.text[]"));
        }
        assert_eq!(of(790).cast, "::pg_catalog.numeric::pg_catalog.text");
        assert_eq!(of(2950).compared, Compared::Uuid);
        assert_eq!(of(1042).compared, Compared::Never);
        assert_eq!(of(424_242).kind, Kind::Text);
    }
}
