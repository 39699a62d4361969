//! How batches become the Arrow stream of an insert: values checked against the columns that take them, layouts that every server
//! reads, nothing clamped. Which types meet is `write_types.rs`'s; sending is `load.rs`'s.

use std::{ops::RangeInclusive, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, MapArray, RecordBatch, StringBuilder, StructArray, UInt32Array,
    },
    buffer::{Buffer, OffsetBuffer},
    compute::{CastOptions, cast_with_options, is_null, nullif, take},
    datatypes::{
        DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, Int64Type,
        IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Schema, SchemaRef, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
    error::ArrowError,
    ipc::writer::StreamEncoder,
    util::display::{FormatOptions, array_value_to_string},
};
use bytes::{Bytes, BytesMut};

use super::write_types::{Type, digits};
use crate::error::{Error, Result};

/// Where rows of one column go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The table's column.
    pub name: String,
    /// Its type.
    pub column: Type,
    /// Where it stands in the rows.
    pub source: usize,
    /// True of a column that identifies rows in a mode that needs it: a null is a `null-key`.
    pub key: bool,
    /// True where the author accepts a loss: null lists, tuples and maps become empty ones, fractions of a second are cut.
    pub lossy: bool,
}

/// Turns batches into what the server reads.
#[derive(Debug, Clone)]
pub struct Encoder {
    step: String,
    targets: Vec<Target>,
    /// True of a server whose dates reach from year 1 to 9999.
    wide: bool,
    schema: SchemaRef,
}

impl Encoder {
    /// Prepares to encode rows of the schema `rows`.
    pub fn new(step: &str, targets: Vec<Target>, wide: bool, rows: &Schema) -> Result<Self> {
        let mut encoder = Self { step: step.to_owned(), targets, wide, schema: Arc::new(Schema::empty()) };
        let empty = RecordBatch::new_empty(Arc::new(rows.clone()));
        let fields: Vec<Field> = encoder
            .columns(&empty)?
            .iter()
            .zip(&encoder.targets)
            .map(|(array, target)| Field::new(&target.name, array.data_type().clone(), true))
            .collect();
        encoder.schema = Arc::new(Schema::new(fields));
        Ok(encoder)
    }

    /// The batch as the server reads it. Fails with Blame::User where a value does not fit its column.
    pub fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        RecordBatch::try_new(self.schema.clone(), self.columns(batch)?).map_err(|error| wrong("a batch differs from its schema", error))
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let convert = |target: &Target| {
            let work = Work { wide: self.wide, lossy: target.lossy };
            let array = batch.column(target.source);
            if target.key && array.logical_null_count() > 0 {
                return Err(null_key(&self.step, &target.name));
            }
            work.convert(&target.name, array, &target.column)
        };
        self.targets.iter().map(convert).collect()
    }
}

/// A null where a key must be, in the words of every sink.
pub fn null_key(step: &str, key: &str) -> Error {
    Error::user("null-key", format!("sink \"{step}\" got a row whose key column \"{key}\" is null"))
        .setting("key")
        .help("leave such rows out with a filter, or require the column in a contract")
}

fn wrong(what: &str, error: ArrowError) -> Error {
    Error::weir("clickhouse-encode", what).because(error)
}

/// One Arrow stream: the body of one insert.
pub struct Frames {
    stream: StreamEncoder,
    /// Buffers of pieces that were sent, to be filled again once nobody reads them any more.
    sent: Vec<BytesMut>,
}

/// Buffers that are kept: pieces that may be on their way at once.
const KEPT: usize = 4;

impl Frames {
    /// Begins a stream.
    pub fn new(encoder: &Encoder) -> Result<Self> {
        let stream = StreamEncoder::try_new(&encoder.schema).map_err(|error| wrong("an Arrow stream cannot begin", error))?;
        Ok(Self { stream, sent: Vec::new() })
    }

    /// The bytes of one converted batch, those of the beginning before the first.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let parts = self.stream.encode(batch).map_err(|error| wrong("a batch cannot be written", error))?;
        Ok(together(&parts, &mut self.sent))
    }

    /// The bytes of the end.
    pub fn end(mut self) -> Result<Bytes> {
        let parts = self.stream.finish().map_err(|error| wrong("an Arrow stream cannot end", error))?;
        Ok(together(&parts, &mut self.sent))
    }
}

/// One piece of many: each piece that is sent costs the server a turn.
fn together(parts: &[Buffer], sent: &mut Vec<BytesMut>) -> Bytes {
    let size = parts.iter().map(Buffer::len).sum();
    let mut piece = match sent.iter_mut().position(|buffer| buffer.try_reclaim(size)) {
        Some(at) => sent.swap_remove(at),
        // Room for pieces that are somewhat larger.
        None => BytesMut::with_capacity(size + size / 4),
    };
    parts.iter().for_each(|part| piece.extend_from_slice(part));
    let bytes = piece.split().freeze();
    sent.truncate(KEPT - 1);
    sent.push(piece);
    bytes
}

/// How one column is converted.
#[derive(Clone, Copy)]
struct Work {
    wide: bool,
    lossy: bool,
}

impl Work {
    fn convert(self, path: &str, array: &ArrayRef, to: &Type) -> Result<ArrayRef> {
        use DataType::*;
        match array.data_type() {
            Dictionary(_, value) => return self.convert(path, &cast(path, array, value, to)?, to),
            RunEndEncoded(_, value) => return self.convert(path, &cast(path, array, value.data_type(), to)?, to),
            _ => {}
        }
        match to {
            Type::LowCardinality(inner) => self.convert(path, array, inner),
            Type::Nullable(inner) => self.plain(path, array, inner),
            Type::Array(inner) => self.list(path, array, inner, to),
            Type::Tuple(parts) => self.tuple(path, array, parts, to),
            Type::Map(key, value) => self.map(path, array, key, value, to),
            plain => {
                if array.logical_null_count() > 0 {
                    let message = format!("column \"{path}\" holds a null, which the table does not allow");
                    return Err(Error::user("null-in-column", message).help("leave such rows out with a filter, or give the null a value"));
                }
                self.plain(path, array, plain)
            }
        }
    }

    fn plain(self, path: &str, array: &ArrayRef, to: &Type) -> Result<ArrayRef> {
        use DataType::*;
        let from = array.data_type();
        match (from, to) {
            (Null, to) => Ok(arrow::array::new_null_array(&nulls_as(to), array.len())),
            (Utf8View, _) => cast(path, array, &Utf8, to),
            (BinaryView, _) => cast(path, array, &Binary, to),
            (FixedSizeBinary(_), Type::String) => cast(path, array, &Binary, to),
            (Float16, _) => cast(path, array, &Float32, to),
            (Interval(unit), _) => Ok(intervals(array, *unit)),
            (Time32(_) | Time64(_) | Duration(_), _) => cast(path, array, &Utf8, to),
            (Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..), Type::Decimal(p, s)) => {
                // The type's digits are a promise that Arrow does not check when an array is made.
                check_digits(path, array, to)?;
                cast(path, array, &decimal(*p, *s), to)
            }
            (Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64, Type::Decimal(p, s)) => {
                cast(path, array, &decimal(*p, *s), to)
            }
            (Date32, _) => {
                let days = if *to == Type::Date { 0..=65_535 } else { self.seconds(to).start() / DAY..=self.seconds(to).end() / DAY };
                check(path, array, to, &days)?;
                Ok(array.clone())
            }
            (Date64, to) => self.instants(path, &cast(path, array, &Timestamp(TimeUnit::Millisecond, None), to)?, to),
            (Timestamp(..), to) => self.instants(path, array, to),
            _ => Ok(array.clone()),
        }
    }

    /// The instants, in seconds since 1970, that a column can hold.
    fn seconds(self, to: &Type) -> RangeInclusive<i64> {
        match to {
            Type::DateTime(_) => 0..=i64::from(u32::MAX),
            Type::DateTime64(9, _) => (if self.wide { -9_223_372_036 } else { YEAR_1900 })..=9_223_372_036,
            _ if self.wide => YEAR_1..=YEAR_10000 - 1,
            _ => YEAR_1900..=YEAR_2300 - 1,
        }
    }

    /// Timestamps in the unit of their column.
    fn instants(self, path: &str, array: &ArrayRef, to: &Type) -> Result<ArrayRef> {
        let DataType::Timestamp(unit, _) = array.data_type() else { return Err(Error::weir("clickhouse-encode", "no timestamps")) };
        let per_second = 10_i64.pow(u32::from(digits(*unit)));
        let seconds = self.seconds(to);
        let mut ticks =
            seconds.start().saturating_mul(per_second)..=seconds.end().saturating_mul(per_second).saturating_add(per_second - 1);
        if matches!(to, Type::DateTime64(9, _)) {
            // The first and the last second of what 64 bits of nanoseconds hold are not whole.
            ticks = match *unit {
                TimeUnit::Nanosecond if self.wide => i64::MIN + 1..=i64::MAX,
                TimeUnit::Nanosecond => *ticks.start()..=i64::MAX,
                _ => *ticks.start()..=seconds.end().saturating_mul(per_second),
            };
        }
        check(path, array, to, &ticks)?;
        let there = match to {
            Type::DateTime64(there, _) => *there,
            _ => 0,
        };
        if there < digits(*unit) && !self.lossy {
            whole(path, array, to, 10_i64.pow(u32::from(digits(*unit) - there)))?;
        }
        let wire = match there {
            0 => TimeUnit::Second,
            1..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            _ => TimeUnit::Nanosecond,
        };
        if wire == TimeUnit::Nanosecond && there < 9 {
            // Seven and eight digits reach further than nanoseconds, and the server cuts what it is sent.
            check(path, array, to, &(-9_223_372_036_i64.saturating_mul(per_second)..=9_223_372_036_i64.saturating_mul(per_second)))?;
        }
        let wire_type = DataType::Timestamp(wire, Some("UTC".into()));
        if there < digits(*unit) {
            // Towards the past, as Postgres and the lake cut: a cast would make what is before 1970 later.
            let step = 10_i64.pow(u32::from(digits(*unit) - there));
            let back = 10_i64.pow(u32::from(digits(wire).saturating_sub(there)));
            let numbers = cast(path, array, &DataType::Int64, to)?;
            let cut: Int64Array = numbers.as_primitive::<Int64Type>().unary(|value| value.div_euclid(step) * back);
            return cast(path, &(Arc::new(cut) as ArrayRef), &wire_type, to);
        }
        cast(path, array, &wire_type, to)
    }

    fn null_nested(self, path: &str, array: &ArrayRef, to: &Type) -> Result<()> {
        if self.lossy || array.logical_null_count() == 0 {
            return Ok(());
        }
        let (what, becomes) = match to {
            Type::Array(_) => ("list", "an empty list"),
            Type::Tuple(_) => ("struct", "a struct of null fields"),
            _ => ("map", "an empty map"),
        };
        let top = path.split('.').next().unwrap_or(path);
        Err(Error::user("null-in-column", format!("column \"{path}\" holds a null {what}, and ClickHouse has none"))
            .setting("allow_lossy")
            .help(format!("give it a value in a transform, or accept {becomes} in its place: allow_lossy = [\"{top}\"]")))
    }

    fn list(self, path: &str, array: &ArrayRef, inner: &Type, to: &Type) -> Result<ArrayRef> {
        use DataType::*;
        let array = match array.data_type() {
            List(_) => array.clone(),
            LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => cast(path, array, &List(item.clone()), to)?,
            _ => return Err(Error::weir("clickhouse-encode", format!("column \"{path}\" is no list"))),
        };
        self.null_nested(path, &array, to)?;
        let array = without_values_under_nulls(&array)?;
        let list = array.as_list::<i32>();
        let (offsets, from, length) = rebased(list.offsets());
        let values = self.convert(&format!("{path}.element"), &list.values().slice(from, length), inner)?;
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(item, offsets, values, None).map_err(|error| wrong("a list cannot be made", error))?))
    }

    fn tuple(self, path: &str, array: &ArrayRef, parts: &[(String, Type)], to: &Type) -> Result<ArrayRef> {
        let Some(from) = array.as_struct_opt() else {
            return Err(Error::weir("clickhouse-encode", format!("column \"{path}\" is no struct")));
        };
        self.null_nested(path, array, to)?;
        let absent = if from.null_count() > 0 { Some(is_null(array).map_err(|error| wrong("nulls cannot be told", error))?) } else { None };
        let (mut fields, mut columns) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for (name, part) in parts {
            let Some(column) = from.column_by_name(name) else {
                return Err(Error::weir("clickhouse-encode", format!("column \"{path}\" has no field \"{name}\"")));
            };
            let column = match &absent {
                Some(absent) => nullif(column, absent as &BooleanArray).map_err(|error| wrong("nulls cannot be set", error))?,
                None => column.clone(),
            };
            let column = self.convert(&format!("{path}.{name}"), &column, part)?;
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        }
        let made = StructArray::try_new_with_length(fields.into(), columns, None, from.len());
        Ok(Arc::new(made.map_err(|error| wrong("a struct cannot be made", error))?))
    }

    fn map(self, path: &str, array: &ArrayRef, key: &Type, value: &Type, to: &Type) -> Result<ArrayRef> {
        self.null_nested(path, array, to)?;
        let array = without_values_under_nulls(array)?;
        let Some(from) = array.as_map_opt() else {
            return Err(Error::weir("clickhouse-encode", format!("column \"{path}\" is no map")));
        };
        let (offsets, start, length) = rebased(from.offsets());
        let keys = self.convert(&format!("{path}.key"), &from.keys().slice(start, length), key)?;
        let values = self.convert(&format!("{path}.value"), &from.values().slice(start, length), value)?;
        let fields = vec![Field::new("key", keys.data_type().clone(), false), Field::new("value", values.data_type().clone(), true)];
        let entries = StructArray::try_new_with_length(fields.into(), vec![keys, values], None, length);
        let entries = entries.map_err(|error| wrong("the entries of a map cannot be made", error))?;
        let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, None, false).map_err(|error| wrong("a map cannot be made", error))?))
    }
}

const DAY: i64 = 86_400;
/// 0001-01-01, in seconds since 1970.
const YEAR_1: i64 = -719_162 * DAY;
const YEAR_1900: i64 = -25_567 * DAY;
const YEAR_2300: i64 = 120_530 * DAY;
const YEAR_10000: i64 = 2_932_897 * DAY;

/// Lists or maps whose null entries have no values, and whose nulls are gone.
fn without_values_under_nulls(array: &ArrayRef) -> Result<ArrayRef> {
    if array.null_count() == 0 {
        return Ok(array.clone());
    }
    let rows = (0..array.len()).map(|row| array.is_valid(row).then(|| u32::try_from(row).expect("a batch holds fewer than 2^32 rows")));
    take(array, &rows.collect::<UInt32Array>(), None).map_err(|error| wrong("nulls cannot be taken out", error))
}

/// Offsets from 0 on, and the part of the values that they speak of.
fn rebased(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let (from, length) = (usize::try_from(first).expect("an offset is not negative"), usize::try_from(last - first).expect("offsets grow"));
    if first == 0 {
        return (offsets.clone(), from, length);
    }
    (OffsetBuffer::new(offsets.iter().map(|offset| offset - first).collect()), from, length)
}

/// The Arrow type in which nulls of a column are sent.
fn nulls_as(to: &Type) -> DataType {
    use DataType::*;
    match to {
        Type::Bool => Boolean,
        Type::Int(8) => Int8,
        Type::Int(16) => Int16,
        Type::Int(32) => Int32,
        Type::Int(_) => Int64,
        Type::UInt(8) => UInt8,
        Type::UInt(16) => UInt16,
        Type::UInt(32) => UInt32,
        Type::UInt(_) => UInt64,
        Type::Float(32) => Float32,
        Type::Float(_) => Float64,
        Type::Decimal(p, s) => decimal(*p, *s),
        Type::FixedString(size) => FixedSizeBinary(*size),
        Type::Uuid => FixedSizeBinary(16),
        Type::Date | Type::Date32 => Date32,
        Type::DateTime(_) | Type::DateTime64(..) => Timestamp(TimeUnit::Second, Some("UTC".into())),
        Type::Nullable(inner) | Type::LowCardinality(inner) => nulls_as(inner),
        _ => Utf8,
    }
}

fn decimal(precision: u8, scale: u8) -> DataType {
    let scale = i8::try_from(scale).expect("a scale is at most 76");
    if precision <= 38 { DataType::Decimal128(precision, scale) } else { DataType::Decimal256(precision, scale) }
}

/// Casts; what does not fit is an error.
fn cast(path: &str, array: &ArrayRef, wire: &DataType, to: &Type) -> Result<ArrayRef> {
    if array.data_type() == wire {
        return Ok(array.clone());
    }
    cast_with_options(array, wire, &CastOptions { safe: false, format_options: FormatOptions::default() }).map_err(|error| {
        Error::user("value-out-of-range", format!("column \"{path}\": a value does not fit the type {to}"))
            .help("cast the column in a transform, or leave it out")
            .because(error)
    })
}

fn out_of_range(path: &str, array: &ArrayRef, row: usize, to: &Type, why: &str) -> Error {
    let value = array_value_to_string(array, row).unwrap_or_else(|_| "a value".into());
    Error::user("value-out-of-range", format!("column \"{path}\" holds {value}, which the type {to} cannot: {why}"))
        .help("replace the value in a transform, or leave such rows out with a filter")
}

/// The values of dates and timestamps, with the array's length and nulls.
fn ticks(array: &ArrayRef) -> Vec<Option<i64>> {
    use DataType::*;
    match array.data_type() {
        Date32 => array.as_primitive::<Date32Type>().iter().map(|value| value.map(i64::from)).collect(),
        Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().iter().collect(),
        Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().iter().collect(),
        Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        _ => array.as_primitive::<TimestampNanosecondType>().iter().collect(),
    }
}

/// The smallest and the largest of dates or timestamps that are not null.
fn bounds(array: &ArrayRef) -> Option<(i64, i64)> {
    use DataType::*;
    use arrow::compute::{max, min};
    match array.data_type() {
        Date32 => min(array.as_primitive::<Date32Type>()).map(i64::from).zip(max(array.as_primitive::<Date32Type>()).map(i64::from)),
        Timestamp(TimeUnit::Second, _) => {
            let array = array.as_primitive::<TimestampSecondType>();
            min(array).zip(max(array))
        }
        Timestamp(TimeUnit::Millisecond, _) => {
            let array = array.as_primitive::<TimestampMillisecondType>();
            min(array).zip(max(array))
        }
        Timestamp(TimeUnit::Microsecond, _) => {
            let array = array.as_primitive::<TimestampMicrosecondType>();
            min(array).zip(max(array))
        }
        _ => {
            let array = array.as_primitive::<TimestampNanosecondType>();
            min(array).zip(max(array))
        }
    }
}

fn check(path: &str, array: &ArrayRef, to: &Type, range: &RangeInclusive<i64>) -> Result<()> {
    match bounds(array) {
        Some((low, high)) if !(range.contains(&low) && range.contains(&high)) => {
            let row = ticks(array).iter().position(|value| value.is_some_and(|value| !range.contains(&value))).unwrap_or_default();
            Err(out_of_range(path, array, row, to, "it is outside what this server holds"))
        }
        _ => Ok(()),
    }
}

fn whole(path: &str, array: &ArrayRef, to: &Type, unit: i64) -> Result<()> {
    let values = ticks(array);
    match values.iter().position(|value| value.is_some_and(|value| value % unit != 0)) {
        Some(row) => Err(out_of_range(path, array, row, to, "it has more digits after the second")
            .setting("allow_lossy")
            .help("cut the value in a transform, or accept that it is cut with allow_lossy")),
        None => Ok(()),
    }
}

/// Checks that decimals have no more digits than their type says.
fn check_digits(path: &str, array: &ArrayRef, to: &Type) -> Result<()> {
    use DataType::*;
    // Value by value: the arrays' own check takes a negative scale for a large one.
    fn fits<T: DecimalType>(array: &ArrayRef, precision: u8) -> bool {
        array.as_primitive::<T>().iter().flatten().all(|value| T::is_valid_decimal_precision(value, precision))
    }
    let fits = match array.data_type() {
        Decimal32(precision, _) => fits::<Decimal32Type>(array, *precision),
        Decimal64(precision, _) => fits::<Decimal64Type>(array, *precision),
        Decimal128(precision, _) => fits::<Decimal128Type>(array, *precision),
        Decimal256(precision, _) => fits::<Decimal256Type>(array, *precision),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Error::user("value-out-of-range", format!("column \"{path}\": a value has more digits than the type {to}"))
        .help("cast the column in a transform, or leave it out"))
}

fn intervals(array: &ArrayRef, unit: IntervalUnit) -> ArrayRef {
    let mut text = StringBuilder::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            text.append_null();
            continue;
        }
        let (months, days, nanos) = match unit {
            IntervalUnit::YearMonth => (array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0),
            IntervalUnit::DayTime => {
                let value = array.as_primitive::<IntervalDayTimeType>().value(row);
                (0, value.days, i64::from(value.milliseconds) * 1_000_000)
            }
            IntervalUnit::MonthDayNano => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
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
#[path = "encode_tests.rs"]
mod tests;
