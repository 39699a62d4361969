//! Which Delta type each Arrow type becomes, which mappings lose something, and how a column is converted.
//! How two schemas meet (new, missing and changed columns) is `schema.rs`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringBuilder, TimestampMicrosecondArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType, Field, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, TimeUnit,
        TimestampNanosecondType,
    },
    util::display::FormatOptions,
};

use crate::{
    TypeRow,
    error::{Error, Result},
};

const fn row(arrow: &'static str, column: &'static str, exact: bool, note: &'static str) -> TypeRow {
    TypeRow { arrow, column, exact, note }
}

static TYPES: &[TypeRow] = &[
    row("Boolean", "boolean", true, ""),
    row("Int8", "byte", true, ""),
    row("Int16", "short", true, ""),
    row("Int32", "integer", true, ""),
    row("Int64", "long", true, ""),
    row("UInt8", "short", true, "widened"),
    row("UInt16", "integer", true, "widened"),
    row("UInt32", "long", true, "widened"),
    row("UInt64", "decimal(20,0)", true, "widened"),
    row("Float16", "float", true, "widened"),
    row("Float32", "float", true, "NaN and the infinities are kept"),
    row("Float64", "double", true, "NaN and the infinities are kept"),
    row("Decimal32, Decimal64, Decimal128", "decimal", true, "precision and scale are kept; a negative scale becomes 0"),
    row("Decimal256 of at most 38 digits", "decimal", true, "precision and scale are kept"),
    row("Decimal256 of more than 38 digits", "decimal(38,s)", false, "a value of more than 38 digits fails the run"),
    row("Utf8, LargeUtf8, Utf8View", "string", true, "the empty string is not null"),
    row("Binary, LargeBinary, BinaryView, FixedSizeBinary", "binary", true, ""),
    row("Date32", "date", true, ""),
    row("Date64", "timestamp_ntz", true, "milliseconds are kept"),
    row("Timestamp(s | ms | us, zone)", "timestamp", true, "the instant is kept, the zone is not: it reads back in UTC"),
    row("Timestamp(s | ms | us)", "timestamp_ntz", true, "a wall clock reading without a zone"),
    row("Timestamp(ns, zone)", "timestamp", false, "cut to microseconds"),
    row("Timestamp(ns)", "timestamp_ntz", false, "cut to microseconds"),
    row("Time32, Time64", "string", false, "ISO 8601 text such as 09:30:00"),
    row("Duration", "string", false, "ISO 8601 text such as PT90S"),
    row("Interval", "string", false, "ISO 8601 text such as P1M2DT3S"),
    row("Null", "string", true, "all null; takes the destination's type where the column exists"),
    row("List, LargeList, ListView, LargeListView, FixedSizeList", "array", true, "as its element"),
    row("Struct", "struct", true, "as its fields"),
    row("Map", "map", true, "as its key and value"),
    row("Dictionary, RunEndEncoded", "as its value", true, ""),
];

/// Every mapping, in the order of the reference.
pub fn type_table() -> Vec<TypeRow> {
    TYPES.to_vec()
}

/// What an Arrow type becomes in the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The Arrow type that stands for the Delta type.
    pub lake: DataType,
    /// What is lost, where something is.
    pub loss: Option<&'static str>,
}

impl Mapped {
    fn exact(lake: DataType) -> Self {
        Self { lake, loss: None }
    }
    fn lossy(lake: DataType, loss: &'static str) -> Self {
        Self { lake, loss: Some(loss) }
    }
    fn wrap(self, outer: impl FnOnce(DataType) -> DataType) -> Self {
        Self { lake: outer(self.lake), loss: self.loss }
    }
}

/// Maps an Arrow type. `None`: Delta has nothing for it.
pub fn map(from: &DataType) -> Option<Mapped> {
    use DataType::*;
    let utc = || Some(Arc::<str>::from("UTC"));
    Some(match from {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 => Mapped::exact(from.clone()),
        UInt8 => Mapped::exact(Int16),
        UInt16 => Mapped::exact(Int32),
        UInt32 => Mapped::exact(Int64),
        UInt64 => Mapped::exact(Decimal128(20, 0)),
        Float16 => Mapped::exact(Float32),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => decimal(*p, *s)?,
        Utf8 | LargeUtf8 | Utf8View | Null => Mapped::exact(Utf8),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Mapped::exact(Binary),
        Date64 => Mapped::exact(Timestamp(TimeUnit::Microsecond, None)),
        Timestamp(unit, zone) => {
            let lake = Timestamp(TimeUnit::Microsecond, zone.as_ref().and_then(|_| utc()));
            match unit {
                TimeUnit::Nanosecond => Mapped::lossy(lake, "nanoseconds are cut to microseconds"),
                _ => Mapped::exact(lake),
            }
        }
        Time32(_) | Time64(_) => Mapped::lossy(Utf8, "a time of day becomes text"),
        Duration(_) => Mapped::lossy(Utf8, "a duration becomes text"),
        Interval(_) => Mapped::lossy(Utf8, "an interval becomes text"),
        Dictionary(_, value) => map(value)?,
        RunEndEncoded(_, value) => map(value.data_type())?,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => {
            map(item.data_type())?.wrap(|lake| List(Arc::new(Field::new("element", lake, true))))
        }
        Struct(fields) => {
            if fields.is_empty() {
                return None;
            }
            let mut loss = None;
            let mut lake = Vec::with_capacity(fields.len());
            for field in fields {
                let mapped = map(field.data_type())?;
                loss = loss.or(mapped.loss);
                lake.push(Field::new(field.name(), mapped.lake, true));
            }
            Mapped { lake: Struct(lake.into()), loss }
        }
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else { return None };
            let [key, value] = pair.as_ref() else { return None };
            let (key, value) = (map(key.data_type())?, map(value.data_type())?);
            Mapped { loss: key.loss.or(value.loss), lake: map_of(key.lake, value.lake) }
        }
        _ => return None,
    })
}

fn map_of(key: DataType, value: DataType) -> DataType {
    let pair = DataType::Struct(vec![Field::new("key", key, false), Field::new("value", value, true)].into());
    DataType::Map(Arc::new(Field::new("key_value", pair, false)), false)
}

fn decimal(precision: u8, scale: i8) -> Option<Mapped> {
    let (digits, scale) = match scale {
        ..0 => (u32::from(precision) + u32::from(scale.unsigned_abs()), 0),
        _ => (u32::from(precision).max(scale.unsigned_abs().into()), scale),
    };
    match u8::try_from(digits) {
        Ok(digits) if digits <= 38 => Some(Mapped::exact(DataType::Decimal128(digits, scale))),
        _ if scale <= 38 => Some(Mapped::lossy(DataType::Decimal128(38, scale), "more than 38 digits do not fit")),
        _ => None,
    }
}

/// Says whether every value of lake type `from` is a value of lake type `to`.
pub fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let digits = |from: &DataType| match from {
        Int8 => Some(3),
        Int16 => Some(5),
        Int32 => Some(10),
        Int64 => Some(19),
        _ => None,
    };
    match (from, to) {
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) | (Int16, Int32 | Int64 | Float32 | Float64) => true,
        (Int32, Int64 | Float64) | (Float32, Float64) => true,
        (Decimal128(p, s), Decimal128(q, t)) => t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s),
        (_, Decimal128(p, s)) if digits(from).is_some() => i16::from(*p) - i16::from(*s) >= digits(from).expect("tested by the guard"),
        (List(a), List(b)) => widens(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && widens(a.data_type(), b.data_type()))
        }
        (Map(a, _), Map(b, _)) => widens(a.data_type(), b.data_type()),
        _ => from == to,
    }
}

/// The Delta name of a lake type.
pub fn delta_name(lake: &DataType) -> String {
    use DataType::*;
    match lake {
        Boolean => "boolean".into(),
        Int8 => "byte".into(),
        Int16 => "short".into(),
        Int32 => "integer".into(),
        Int64 => "long".into(),
        Float32 => "float".into(),
        Float64 => "double".into(),
        Utf8 | LargeUtf8 | Utf8View => "string".into(),
        Binary | LargeBinary | BinaryView => "binary".into(),
        Date32 => "date".into(),
        Timestamp(_, Some(_)) => "timestamp".into(),
        Timestamp(_, None) => "timestamp_ntz".into(),
        Decimal128(p, s) => format!("decimal({p},{s})"),
        List(item) => format!("array<{}>", delta_name(item.data_type())),
        Struct(fields) => {
            let inner: Vec<_> = fields.iter().map(|f| format!("{}:{}", f.name(), delta_name(f.data_type()))).collect();
            format!("struct<{}>", inner.join(","))
        }
        Map(entries, _) => match entries.data_type() {
            Struct(pair) if pair.len() == 2 => {
                format!("map<{},{}>", delta_name(pair[0].data_type()), delta_name(pair[1].data_type()))
            }
            _ => "map".into(),
        },
        other => other.to_string(),
    }
}

/// Says whether a lake type, or one inside it, is a timestamp without a zone, which Delta calls a table feature.
pub fn holds_ntz(lake: &DataType) -> bool {
    match lake {
        DataType::Timestamp(_, None) => true,
        DataType::List(inner) | DataType::Map(inner, _) => holds_ntz(inner.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_ntz(field.data_type())),
        _ => false,
    }
}

/// The Arrow type in which a column of type `from` is handed to the Parquet writer: text and bytes keep their layout,
/// as Parquet stores them alike.
pub fn layout(from: &DataType, lake: &DataType) -> DataType {
    use DataType::*;
    match (from, lake) {
        (Utf8 | LargeUtf8 | Utf8View, Utf8) | (Binary | LargeBinary | BinaryView, Binary) => from.clone(),
        (Dictionary(_, value), Utf8) if matches!(**value, Utf8 | LargeUtf8) => from.clone(),
        _ => lake.clone(),
    }
}

/// Converts a column to its lake type. A value that does not fit is an error, never a null.
/// Text and bytes in any of Arrow's layouts are left as they are: Parquet stores them alike.
pub fn convert(column: &str, array: &ArrayRef, lake: &DataType) -> Result<ArrayRef> {
    use DataType::*;
    let from = array.data_type();
    if layout(from, lake) == *from {
        return Ok(array.clone());
    }
    let failed = |error: arrow::error::ArrowError| {
        Error::user("value-out-of-range", format!("column \"{column}\": a value does not fit the type {}", delta_name(lake)))
            .help("cast the column in a transform, or leave it out")
            .because(error)
    };
    match (from, lake) {
        (Null, _) => return Ok(arrow::array::new_null_array(lake, array.len())),
        (Interval(unit), Utf8) => return Ok(intervals(array, *unit)),
        // Towards the past, as every destination cuts: a cast would make what is before 1970 later.
        (Timestamp(TimeUnit::Nanosecond, _), Timestamp(TimeUnit::Microsecond, _)) => {
            let cut: TimestampMicrosecondArray = array.as_primitive::<TimestampNanosecondType>().unary(|nanos| nanos.div_euclid(1000));
            return Ok(Arc::new(cut.with_data_type(lake.clone())));
        }
        (Dictionary(_, value), _) => {
            let plain = cast(array, value).map_err(failed)?;
            return convert(column, &plain, lake);
        }
        (RunEndEncoded(_, value), _) => {
            let plain = cast(array, value.data_type()).map_err(failed)?;
            return convert(column, &plain, lake);
        }
        // Through its parts: a cast of the whole would turn an interval inside into text that is not ISO 8601, and
        // would match the fields of a struct by position.
        (Struct(_), Struct(fields)) => {
            let from = array.as_struct();
            let mut columns = Vec::with_capacity(fields.len());
            for (field, inner) in fields.iter().zip(from.columns()) {
                columns.push(plain(convert(&format!("{column}.{}", field.name()), inner, field.data_type())?, field.data_type())?);
            }
            let made = arrow::array::StructArray::try_new(fields.clone(), columns, from.nulls().cloned()).map_err(failed)?;
            return Ok(Arc::new(made));
        }
        (List(_), List(field)) => {
            let from = array.as_list::<i32>();
            let values = plain(convert(column, from.values(), field.data_type())?, field.data_type())?;
            let made = arrow::array::ListArray::try_new(field.clone(), from.offsets().clone(), values, from.nulls().cloned());
            return Ok(Arc::new(made.map_err(failed)?));
        }
        (LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _), List(_)) => {
            let list = cast(array, &List(item.clone())).map_err(failed)?;
            return convert(column, &list, lake);
        }
        (Map(_, _), Map(entries, sorted)) => {
            let from = array.as_map();
            let pairs: ArrayRef = Arc::new(from.entries().clone());
            let pairs = convert(column, &pairs, entries.data_type())?;
            let made = arrow::array::MapArray::try_new(
                entries.clone(),
                from.offsets().clone(),
                pairs.as_struct().clone(),
                from.nulls().cloned(),
                *sorted,
            );
            return Ok(Arc::new(made.map_err(failed)?));
        }
        _ => {}
    }
    cast(array, lake).map_err(failed)
}

/// Inside a nested column the layout has to be the declared one.
fn plain(array: ArrayRef, lake: &DataType) -> Result<ArrayRef> {
    if array.data_type() == lake {
        return Ok(array);
    }
    cast(&array, lake).map_err(|error| Error::weir("lake-cast", "a nested column could not be converted").because(error))
}

/// Casts; what does not fit is an error.
pub(super) fn cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, format_options: FormatOptions::default() })
}

fn intervals(array: &ArrayRef, unit: IntervalUnit) -> ArrayRef {
    let mut text = StringBuilder::new();
    for index in 0..array.len() {
        if array.is_null(index) {
            text.append_null();
            continue;
        }
        let (months, days, nanos) = match unit {
            IntervalUnit::YearMonth => (array.as_primitive::<IntervalYearMonthType>().value(index), 0, 0),
            IntervalUnit::DayTime => {
                let value = array.as_primitive::<IntervalDayTimeType>().value(index);
                (0, value.days, i64::from(value.milliseconds) * 1_000_000)
            }
            IntervalUnit::MonthDayNano => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(index);
                (value.months, value.days, value.nanoseconds)
            }
        };
        text.append_value(iso_interval(months, days, nanos));
    }
    Arc::new(text.finish())
}

fn iso_interval(months: i32, days: i32, nanos: i64) -> String {
    let mut text = String::from("P");
    if months != 0 {
        text += &format!("{months}M");
    }
    if days != 0 {
        text += &format!("{days}D");
    }
    if nanos != 0 {
        let sign = if nanos < 0 { "-" } else { "" };
        let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
        let fraction = if rest == 0 { String::new() } else { format!(".{rest:09}").trim_end_matches('0').to_owned() };
        text += &format!("T{sign}{seconds}{fraction}S");
    }
    if text == "P" { "PT0S".into() } else { text }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DurationSecondArray, FixedSizeListArray, Int64Array, Time32SecondArray, UInt64Array};

    use super::*;

    #[test]
    fn a_mapping_that_loses_something_says_what() {
        let zone = Some(Arc::<str>::from("Europe/Berlin"));
        let mapped = map(&DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())).expect("mapped");
        assert_eq!(mapped.loss, Some("nanoseconds are cut to microseconds"));
        assert_eq!(delta_name(&mapped.lake), "timestamp");
        assert_eq!(map(&DataType::Timestamp(TimeUnit::Second, zone)).expect("mapped").loss, None);
        let inside = DataType::List(Arc::new(Field::new("item", DataType::Time32(TimeUnit::Second), true)));
        assert_eq!(map(&inside).expect("mapped").loss, Some("a time of day becomes text"));
    }

    #[test]
    fn a_union_has_no_delta_type() {
        let fields = arrow::datatypes::UnionFields::try_new([0i8], [Field::new("a", DataType::Int8, true)]).expect("fields");
        assert_eq!(map(&DataType::Union(fields, arrow::datatypes::UnionMode::Sparse)), None);
    }

    #[test]
    fn only_a_type_that_holds_every_value_widens() {
        assert!(widens(&DataType::Int32, &DataType::Int64));
        assert!(widens(&DataType::Int64, &DataType::Decimal128(20, 0)));
        assert!(widens(&DataType::Decimal128(10, 2), &DataType::Decimal128(12, 3)));
        assert!(!widens(&DataType::Int64, &DataType::Float64));
        assert!(!widens(&DataType::Int64, &DataType::Int32));
        assert!(!widens(&DataType::Int64, &DataType::Decimal128(19, 1)));
        assert!(!widens(&DataType::Utf8, &DataType::Int64));
    }

    #[test]
    fn decimals_keep_their_digits() {
        assert_eq!(map(&DataType::Decimal256(38, 4)).expect("mapped"), Mapped::exact(DataType::Decimal128(38, 4)));
        assert_eq!(map(&DataType::Decimal128(5, -3)).expect("mapped"), Mapped::exact(DataType::Decimal128(8, 0)));
        assert!(map(&DataType::Decimal256(60, 4)).expect("mapped").loss.is_some());
    }

    #[test]
    fn the_largest_unsigned_number_is_kept() {
        let array: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 0]));
        let out = convert("n", &array, &DataType::Decimal128(20, 0)).expect("converted");
        assert_eq!(out.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), i128::from(u64::MAX));
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_and_not_a_null() {
        let array: ArrayRef = Arc::new(arrow::array::TimestampSecondArray::from(vec![i64::MAX]));
        let error = convert("t", &array, &DataType::Timestamp(TimeUnit::Microsecond, None)).expect_err("too far");
        assert_eq!(error.code, "value-out-of-range");
        assert!(error.message.contains("\"t\""), "{error}");
    }

    #[test]
    fn intervals_and_durations_are_iso_text() {
        assert_eq!(iso_interval(0, 0, 0), "PT0S");
        assert_eq!(iso_interval(14, -2, 3_500_000_000), "P14M-2DT3.5S");
        assert_eq!(iso_interval(0, 0, -1), "PT-0.000000001S");
        let array: ArrayRef = Arc::new(DurationSecondArray::from(vec![90]));
        let text = convert("d", &array, &DataType::Utf8).expect("converted");
        assert_eq!(text.as_string::<i32>().value(0), "PT90S");
        let array: ArrayRef = Arc::new(Time32SecondArray::from(vec![34_200]));
        assert_eq!(convert("t", &array, &DataType::Utf8).expect("converted").as_string::<i32>().value(0), "09:30:00");
    }

    #[test]
    fn a_fixed_size_list_becomes_a_list_of_the_declared_element() {
        let item = Arc::new(Field::new("item", DataType::Int64, true));
        let array: ArrayRef =
            Arc::new(FixedSizeListArray::try_new(item, 2, Arc::new(Int64Array::from(vec![1, 2, 3, 4])), None).expect("list"));
        let mapped = map(array.data_type()).expect("mapped");
        let out = convert("l", &array, &mapped.lake).expect("converted");
        assert_eq!(out.data_type(), &mapped.lake);
        assert_eq!(out.as_list::<i32>().value(1).as_primitive::<arrow::datatypes::Int64Type>().values(), &[3, 4]);
    }

    #[test]
    fn every_documented_type_is_mapped_as_documented() {
        use DataType::*;
        let utc = Some(Arc::<str>::from("UTC"));
        let cases = [
            ("Boolean", Boolean),
            ("Int8", Int8),
            ("Int16", Int16),
            ("Int32", Int32),
            ("Int64", Int64),
            ("UInt8", UInt8),
            ("UInt16", UInt16),
            ("UInt32", UInt32),
            ("UInt64", UInt64),
            ("Float16", Float16),
            ("Float32", Float32),
            ("Float64", Float64),
            ("Utf8, LargeUtf8, Utf8View", Utf8View),
            ("Binary, LargeBinary, BinaryView, FixedSizeBinary", FixedSizeBinary(3)),
            ("Date32", Date32),
            ("Date64", Date64),
            ("Timestamp(s | ms | us, zone)", Timestamp(TimeUnit::Millisecond, utc.clone())),
            ("Timestamp(s | ms | us)", Timestamp(TimeUnit::Second, None)),
            ("Timestamp(ns, zone)", Timestamp(TimeUnit::Nanosecond, utc)),
            ("Timestamp(ns)", Timestamp(TimeUnit::Nanosecond, None)),
            ("Time32, Time64", Time64(TimeUnit::Nanosecond)),
            ("Duration", Duration(TimeUnit::Second)),
            ("Interval", Interval(IntervalUnit::MonthDayNano)),
            ("Null", Null),
        ];
        for (name, arrow) in cases {
            let row = TYPES.iter().find(|row| row.arrow == name).expect("a row of the table");
            let mapped = map(&arrow).expect("mapped");
            assert_eq!((delta_name(&mapped.lake).as_str(), mapped.loss.is_none()), (row.column, row.exact), "{name}");
        }
    }
}
