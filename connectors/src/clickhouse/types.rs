//! What each ClickHouse type is read as: the Arrow type, the conversion that the server makes so that every version sends the same, and
//! what is left to do here. How a type's name is taken apart, and the other direction, is `write_types.rs`'s.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, IntervalMonthDayNanoArray, ListArray, MapArray, StringArray, StructArray},
    compute::cast,
    datatypes::{DataType, Field, Fields, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, UInt8Type},
};

use super::write_types::Type;
use crate::{
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// How a column of one type is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// What it is in Arrow.
    pub data_type: DataType,
    /// Whether nulls occur.
    pub nullable: bool,
    /// The types it is cast to on the server, one after the other.
    pub casts: Vec<String>,
    /// Of an interval: its unit.
    interval: Option<IntervalMonthDayNano>,
    /// Whether a filter may be evaluated on the server, where the value is the same as here.
    pub comparable: bool,
}

/// Why a type cannot be read, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// `holds the state of an aggregation, not a value`.
    pub why: String,
    /// An expression that makes it readable, `{}` for the column.
    pub instead: &'static str,
}

/// One type on its way.
struct Part {
    data_type: DataType,
    nullable: bool,
    /// What the server casts to.
    to: String,
    /// And before that, where one cast does not do.
    through: String,
    comparable: bool,
}

/// How a column is read whose type the server calls `text`. `binary`: as bytes where it is a `String`.
pub(super) fn reading(text: &str, binary: bool) -> Result<Reading, Refused> {
    let own = Type::parse(text);
    let inner = match &own {
        Type::Nullable(inner) => inner.as_ref(),
        own => own,
    };
    if let Type::Other(name) = inner
        && let Some(unit) = name.strip_prefix("Interval")
    {
        let interval = interval(unit).ok_or_else(|| unknown(name))?;
        let nullable = matches!(own, Type::Nullable(_));
        let to = if nullable { "Nullable(Int64)" } else { "Int64" };
        let data_type = DataType::Interval(IntervalUnit::MonthDayNano);
        return Ok(Reading { data_type, nullable, casts: vec![to.into()], interval: Some(interval), comparable: false });
    }
    let part = part(&own, binary)?;
    let written = own.to_string();
    let mut casts = Vec::new();
    if part.through != part.to {
        casts.push(part.through);
    }
    if !casts.is_empty() || part.to != written {
        casts.push(part.to);
    }
    Ok(Reading { data_type: part.data_type, nullable: part.nullable, casts, interval: None, comparable: part.comparable })
}

/// One of a unit.
fn interval(unit: &str) -> Option<IntervalMonthDayNano> {
    Some(match unit {
        "Nanosecond" => IntervalMonthDayNano::new(0, 0, 1),
        "Microsecond" => IntervalMonthDayNano::new(0, 0, 1_000),
        "Millisecond" => IntervalMonthDayNano::new(0, 0, 1_000_000),
        "Second" => IntervalMonthDayNano::new(0, 0, 1_000_000_000),
        "Minute" => IntervalMonthDayNano::new(0, 0, 60_000_000_000),
        "Hour" => IntervalMonthDayNano::new(0, 0, 3_600_000_000_000),
        "Day" => IntervalMonthDayNano::new(0, 1, 0),
        "Week" => IntervalMonthDayNano::new(0, 7, 0),
        "Month" => IntervalMonthDayNano::new(1, 0, 0),
        "Quarter" => IntervalMonthDayNano::new(3, 0, 0),
        "Year" => IntervalMonthDayNano::new(12, 0, 0),
        _ => return None,
    })
}

fn unknown(name: &str) -> Refused {
    Refused { why: format!("is {name}, which has no type in Arrow"), instead: "toString({})" }
}

fn exact(data_type: DataType, to: impl Into<String>) -> Part {
    let to = to.into();
    Part { data_type, nullable: false, through: to.clone(), to, comparable: true }
}

fn text() -> Part {
    Part { comparable: false, ..exact(DataType::Utf8, "String") }
}

fn part(own: &Type, binary: bool) -> Result<Part, Refused> {
    Ok(match own {
        Type::Bool => exact(DataType::Boolean, "Bool"),
        Type::Int(8) => exact(DataType::Int8, "Int8"),
        Type::Int(16) => exact(DataType::Int16, "Int16"),
        Type::Int(32) => exact(DataType::Int32, "Int32"),
        Type::Int(_) => exact(DataType::Int64, "Int64"),
        Type::UInt(8) => exact(DataType::UInt8, "UInt8"),
        Type::UInt(16) => exact(DataType::UInt16, "UInt16"),
        Type::UInt(32) => exact(DataType::UInt32, "UInt32"),
        Type::UInt(_) => exact(DataType::UInt64, "UInt64"),
        Type::Float(32) => exact(DataType::Float32, "Float32"),
        Type::Float(_) => exact(DataType::Float64, "Float64"),
        Type::Decimal(precision, scale) => {
            let arrow_scale = i8::try_from(*scale).map_err(|_| unknown(&own.to_string()))?;
            let data_type = if *precision <= 38 {
                DataType::Decimal128(*precision, arrow_scale)
            } else {
                DataType::Decimal256(*precision, arrow_scale)
            };
            exact(data_type, own.to_string())
        }
        Type::String if binary => Part { comparable: false, ..exact(DataType::Binary, "String") },
        Type::String => exact(DataType::Utf8, "String"),
        Type::FixedString(size) => Part { comparable: false, ..exact(DataType::FixedSizeBinary(*size), own.to_string()) },
        Type::Uuid | Type::Enum(_) => text(),
        Type::Date | Type::Date32 => exact(DataType::Date32, "Date32"),
        Type::DateTime(zone) => instant(0, zone.as_deref()),
        Type::DateTime64(digits, zone) => instant(*digits, zone.as_deref()),
        Type::Nullable(inner) => nullable(part(inner, binary)?),
        // Its values are the same; filters compare them alike.
        Type::LowCardinality(inner) => part(inner, binary)?,
        Type::Array(inner) => {
            let inner = part(inner, binary)?;
            Part {
                data_type: DataType::List(Arc::new(Field::new("item", inner.data_type, inner.nullable))),
                nullable: false,
                to: format!("Array({})", inner.to),
                through: format!("Array({})", inner.through),
                comparable: false,
            }
        }
        Type::Tuple(fields) => tuple(fields, binary)?,
        Type::Map(key, value) => {
            let (key, value) = (part(key, binary)?, part(value, binary)?);
            let fields = vec![Field::new("keys", key.data_type, false), Field::new("values", value.data_type, value.nullable)];
            let entries = Field::new("entries", DataType::Struct(fields.into()), false);
            Part {
                data_type: DataType::Map(Arc::new(entries), false),
                nullable: false,
                to: format!("Map({}, {})", key.to, value.to),
                through: format!("Map({}, {})", key.through, value.through),
                comparable: false,
            }
        }
        Type::Other(name) => return other(name, binary),
    })
}

fn nullable(inner: Part) -> Part {
    if inner.nullable {
        return inner;
    }
    Part { nullable: true, to: format!("Nullable({})", inner.to), through: format!("Nullable({})", inner.through), ..inner }
}

fn tuple(fields: &[(String, Type)], binary: bool) -> Result<Part, Refused> {
    let (mut arrow, mut to, mut through) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (name, own)) in fields.iter().enumerate() {
        let part = part(own, binary)?;
        let label = if name.is_empty() { (index + 1).to_string() } else { name.clone() };
        arrow.push(Field::new(label, part.data_type, part.nullable));
        let named = |to: &str| if name.is_empty() { to.to_owned() } else { format!("{} {to}", quote::identifier(name)) };
        to.push(named(&part.to));
        through.push(named(&part.through));
    }
    Ok(Part {
        data_type: DataType::Struct(arrow.into()),
        nullable: false,
        to: format!("Tuple({})", to.join(", ")),
        through: format!("Tuple({})", through.join(", ")),
        comparable: false,
    })
}

/// An instant, shown in its zone; Arrow counts thousands of its unit.
fn instant(digits: u8, zone: Option<&str>) -> Part {
    let (unit, digits) = match digits {
        0 => (TimeUnit::Second, 0),
        1..=3 => (TimeUnit::Millisecond, 3),
        4..=6 => (TimeUnit::Microsecond, 6),
        _ => (TimeUnit::Nanosecond, 9),
    };
    let zone = zone.unwrap_or("UTC");
    exact(DataType::Timestamp(unit, Some(zone.into())), format!("DateTime64({digits}, {})", quote::literal(zone)))
}

/// What Weir does not write.
fn other(name: &str, binary: bool) -> Result<Part, Refused> {
    let (base, inside) = match name.split_once('(') {
        Some((base, rest)) => (base, rest.strip_suffix(')').unwrap_or(rest)),
        None => (name, ""),
    };
    let point = || Type::Tuple(vec![(String::new(), Type::Float(64)), (String::new(), Type::Float(64))]);
    let array = |inner| Type::Array(Box::new(inner));
    Ok(match base {
        // 39 digits hold 128 bits; 78 would be needed for 256, and no decimal has them.
        "Int128" | "UInt128" => {
            Part { through: "String".into(), comparable: false, ..exact(DataType::Decimal256(39, 0), "Decimal(39, 0)") }
        }
        "Int256" | "UInt256" | "IPv4" | "IPv6" | "JSON" => text(),
        "Dynamic" | "Variant" | "Nothing" => nullable(text()),
        "BFloat16" => Part { comparable: false, ..exact(DataType::Float32, "Float32") },
        "Time" => Part { comparable: false, ..exact(DataType::Time32(TimeUnit::Second), "Time") },
        "Time64" => match inside.trim().parse::<u8>() {
            Ok(0..=3) => Part { comparable: false, ..exact(DataType::Time32(TimeUnit::Millisecond), "Time64(3)") },
            Ok(4..=6) => Part { comparable: false, ..exact(DataType::Time64(TimeUnit::Microsecond), "Time64(6)") },
            Ok(7..=9) => Part { comparable: false, ..exact(DataType::Time64(TimeUnit::Nanosecond), "Time64(9)") },
            _ => return Err(unknown(name)),
        },
        "Point" => part(&point(), binary)?,
        "Ring" | "LineString" => part(&array(point()), binary)?,
        "Polygon" | "MultiLineString" => part(&array(array(point())), binary)?,
        "MultiPolygon" => part(&array(array(array(point()))), binary)?,
        "Nested" => part(&Type::parse(&format!("Array(Tuple({inside}))")), binary)?,
        "SimpleAggregateFunction" => match super::write_types::split(inside).get(1) {
            Some(own) => part(&Type::parse(own.trim()), binary)?,
            None => return Err(unknown(name)),
        },
        "AggregateFunction" => {
            return Err(Refused {
                why: format!("is {name}: the state of an aggregation, not a value"),
                instead: "finalizeAggregation({})",
            });
        }
        _ => return Err(unknown(name)),
    })
}

impl Reading {
    /// Brings what the server sent to the Arrow type. Fails with Blame::User where a text is not UTF-8.
    pub(super) fn bring(&self, column: &ArrayRef, name: &str) -> Result<ArrayRef> {
        match &self.interval {
            Some(unit) => intervals(column, unit, name),
            None => bring(column, &self.data_type, name),
        }
    }
}

fn intervals(column: &ArrayRef, unit: &IntervalMonthDayNano, name: &str) -> Result<ArrayRef> {
    let counts = column.as_primitive_opt::<Int64Type>().ok_or_else(|| strange(column, &DataType::Int64, name))?;
    let too_long = || Error::user("wrong-value", format!("column \"{name}\" holds an interval too long for Arrow"));
    let whole = |count: i64| {
        let part = |each: i32| i32::try_from(count).ok().and_then(|count| count.checked_mul(each));
        let months = if unit.months == 0 { Some(0) } else { part(unit.months) };
        let days = if unit.days == 0 { Some(0) } else { part(unit.days) };
        let nanos = if unit.nanoseconds == 0 { Some(0) } else { count.checked_mul(unit.nanoseconds) };
        Some(IntervalMonthDayNano::new(months?, days?, nanos?))
    };
    let intervals = counts.iter().map(|count| count.map(|count| whole(count).ok_or_else(too_long)).transpose());
    Ok(Arc::new(intervals.collect::<Result<IntervalMonthDayNanoArray>>()?.reinterpret_cast::<IntervalMonthDayNanoType>()))
}

fn bring(column: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
    let from = column.data_type();
    if from == to {
        return Ok(column.clone());
    }
    let broken =
        |error: arrow::error::ArrowError| Error::weir("arrow", format!("column \"{name}\" does not fit together: {error}")).because(error);
    Ok(match (from, to) {
        (DataType::Binary, DataType::Utf8) => {
            let texts = StringArray::try_from_binary(column.as_binary::<i32>().clone());
            Arc::new(texts.map_err(|_| {
                Error::user("not-utf8", format!("column \"{name}\" holds bytes that are not UTF-8 text"))
                    .setting("binary")
                    .help(format!("write binary = [\"{name}\"] to read it as bytes"))
            })?)
        }
        (DataType::LargeBinary | DataType::LargeUtf8 | DataType::Utf8, DataType::Utf8 | DataType::Binary) => {
            cast(column, to).map_err(broken)?
        }
        // Older servers send truth as a number.
        (DataType::UInt8, DataType::Boolean) => {
            Arc::new(column.as_primitive::<UInt8Type>().iter().map(|value| value.map(|value| value != 0)).collect::<BooleanArray>())
        }
        (DataType::List(_), DataType::List(field)) => {
            let list = column.as_list::<i32>();
            let values = bring(list.values(), field.data_type(), name)?;
            Arc::new(ListArray::try_new(field.clone(), list.offsets().clone(), values, list.nulls().cloned()).map_err(broken)?)
        }
        (DataType::Struct(_), DataType::Struct(fields)) => Arc::new(structure(column.as_struct(), fields, name)?),
        (DataType::Map(_, _), DataType::Map(field, sorted)) => {
            let map = column.as_map();
            let DataType::Struct(fields) = field.data_type() else { return Err(strange(column, to, name)) };
            let entries = structure(map.entries(), fields, name)?;
            Arc::new(MapArray::try_new(field.clone(), map.offsets().clone(), entries, map.nulls().cloned(), *sorted).map_err(broken)?)
        }
        _ => return Err(strange(column, to, name)),
    })
}

fn structure(from: &StructArray, fields: &Fields, name: &str) -> Result<StructArray> {
    if from.num_columns() != fields.len() {
        return Err(strange(from, &DataType::Struct(fields.clone()), name));
    }
    let columns =
        from.columns().iter().zip(fields).map(|(column, field)| bring(column, field.data_type(), name)).collect::<Result<Vec<_>>>()?;
    StructArray::try_new(fields.clone(), columns, from.nulls().cloned())
        .map_err(|error| Error::weir("arrow", format!("column \"{name}\" does not fit together: {error}")).because(error))
}

fn strange(column: &dyn Array, to: &DataType, name: &str) -> Error {
    let message = format!("the server sent column \"{name}\" as {}, where {to} was asked for", column.data_type());
    Error::system("clickhouse-protocol", message)
        .help("this version of ClickHouse is not known to Weir: write a \"query\" that converts the column")
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Int64Array};

    use super::*;

    fn of(text: &str) -> (String, Vec<String>) {
        let reading = reading(text, false).expect("readable");
        (format!("{}{}", reading.data_type, if reading.nullable { " null" } else { "" }), reading.casts)
    }

    #[test]
    fn each_type_is_read_as_the_same_on_every_server() {
        for (own, arrow, casts) in [
            ("UInt64", "UInt64", &[][..]),
            ("Nullable(Int8)", "Int8 null", &[]),
            ("LowCardinality(Nullable(String))", "Utf8 null", &["Nullable(String)"]),
            ("Decimal(76, 2)", "Decimal256(76, 2)", &[]),
            ("Date", "Date32", &["Date32"]),
            ("DateTime", "Timestamp(s, \"UTC\")", &["DateTime64(0, 'UTC')"]),
            ("DateTime('Europe/Paris')", "Timestamp(s, \"Europe/Paris\")", &["DateTime64(0, 'Europe/Paris')"]),
            ("DateTime64(3, 'UTC')", "Timestamp(ms, \"UTC\")", &[]),
            ("DateTime64(5)", "Timestamp(µs, \"UTC\")", &["DateTime64(6, 'UTC')"]),
            ("Int128", "Decimal256(39, 0)", &["String", "Decimal(39, 0)"]),
            ("Nullable(UInt256)", "Utf8 null", &["Nullable(String)"]),
            ("Enum8('a' = 1, 'b,)' = 2)", "Utf8", &["String"]),
            ("UUID", "Utf8", &["String"]),
            ("Dynamic", "Utf8 null", &["Nullable(String)"]),
            ("Variant(String, UInt8)", "Utf8 null", &["Nullable(String)"]),
            ("JSON(a Int64)", "Utf8", &["String"]),
            ("Time64(4)", "Time64(µs)", &["Time64(6)"]),
            ("SimpleAggregateFunction(max, Nullable(UInt8))", "UInt8 null", &["Nullable(UInt8)"]),
            ("FixedString(4)", "FixedSizeBinary(4)", &[]),
            ("IntervalWeek", "Interval(MonthDayNano)", &["Int64"]),
        ] {
            assert_eq!(of(own), (arrow.to_owned(), casts.iter().map(|cast| (*cast).to_owned()).collect()), "{own}");
        }
        let (arrow, casts) = of("Array(Tuple(\n    x Enum8('a' = 1),\n    `y z` Int128))");
        assert_eq!(casts, ["Array(Tuple(`x` String, `y z` String))", "Array(Tuple(`x` String, `y z` Decimal(39, 0)))"]);
        assert!(arrow.contains("Struct"), "{arrow}");
    }

    #[test]
    fn what_has_no_value_is_refused_with_what_to_write() {
        let refused = reading("AggregateFunction(sum, UInt8)", false).expect_err("refused");
        assert_eq!(refused.why, "is AggregateFunction(sum, UInt8): the state of an aggregation, not a value");
        assert_eq!(refused.instead, "finalizeAggregation({})");
        assert_eq!(reading("Array(QBit(Float32, 4))", false).expect_err("refused").why, "is QBit(Float32, 4), which has no type in Arrow");
        assert!(reading("Array(IntervalDay)", false).is_err());
    }

    #[test]
    fn text_that_is_none_is_named_by_its_column() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"a", b"\xff"]));
        let error = reading("String", false).expect("readable").bring(&bytes, "payload").expect_err("refused");
        assert_eq!((error.code, error.message.as_str()), ("not-utf8", "column \"payload\" holds bytes that are not UTF-8 text"));
        assert_eq!(error.help.as_deref(), Some("write binary = [\"payload\"] to read it as bytes"));
        assert_eq!(&reading("String", true).expect("readable").bring(&bytes, "payload").expect("brought"), &bytes);
    }

    #[test]
    fn intervals_are_counted_in_arrows_units() {
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None]));
        let weeks = reading("Nullable(IntervalWeek)", false).expect("readable").bring(&counts, "c").expect("brought");
        assert_eq!(weeks.as_primitive::<IntervalMonthDayNanoType>().value(0), IntervalMonthDayNano::new(0, 14, 0));
        assert!(weeks.is_null(1));
        let long: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
        let error = reading("IntervalYear", false).expect("readable").bring(&long, "c").expect_err("refused");
        assert_eq!(error.message, "column \"c\" holds an interval too long for Arrow");
    }
}
