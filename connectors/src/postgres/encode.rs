//! How Arrow rows become Postgres' binary COPY format: each column of a batch is checked and brought into the shape of its table column
//! once, then rows are written one after the other into one buffer, which cannot fail any more. Which types fit is `write_types.rs`.
//!
//! The format is that of the manual's page on COPY; the values are what each type's `recv` function reads.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions},
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::{CastOptions, cast_with_options},
    datatypes::{
        ArrowNativeType, ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, DurationMicrosecondType, Field, FieldRef,
        Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
        IntervalYearMonthType, Schema, TimeUnit, UInt32Type, i256,
    },
    util::display::{FormatOptions, array_value_to_string},
};

use super::{
    numeric::{put_numeric, put_wide},
    write_types::{PgType, RowColumn, element, plain, row_columns},
};
use crate::error::{Error, Result};

/// What a COPY begins with: the signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What a COPY ends with.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// Days from Arrow's epoch to Postgres'.
const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from Arrow's epoch to Postgres'.
const EPOCH_US: i64 = EPOCH_DAYS as i64 * DAY_US;
const DAY_US: i64 = 86_400_000_000;
/// The first and the last day that Postgres has, since its own epoch: 4714-11-24 BC, 5874897-12-31.
const DAYS: (i64, i64) = (-2_451_545, 2_145_031_948);
/// The first and the last microsecond that Postgres has, since its own epoch; the last year is 294276.
const INSTANTS: (i128, i128) = (-211_813_488_000_000_000, 9_223_371_331_200_000_000 - 1);
/// A value of more bytes is no field of a row.
const VALUE_BYTES_MAX: usize = 0x3fff_0000;

/// A column that is written.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Where it stands in the rows.
    pub source: usize,
    /// What it takes.
    pub pg: PgType,
    /// Its type as Postgres spells it, for messages.
    pub sql: String,
    /// False where the table forbids nulls.
    pub nullable: bool,
    /// True for a key column of a mode that goes by the key.
    pub key: bool,
}

/// Turns batches into rows of a COPY.
#[derive(Debug)]
pub struct Encoder {
    step: String,
    targets: Vec<Target>,
}

impl Encoder {
    /// For rows whose columns all fit (`write_types::fits`) the targets. `step` names the sink in messages.
    pub fn new(step: &str, targets: Vec<Target>) -> Self {
        Self { step: step.to_owned(), targets }
    }

    /// For a table that is made for the rows, with a column for each of theirs. Fails for a type that Postgres has nothing for, or that loses
    /// something there.
    pub fn of_new_table(step: &str, rows: &Schema) -> Result<Self> {
        let columns = row_columns(rows, &[]).map_err(|mut wrong| wrong.remove(0))?;
        let target = |(source, column): (usize, RowColumn)| Target {
            name: column.name,
            source,
            pg: column.mapped.pg,
            sql: column.mapped.sql,
            nullable: true,
            key: false,
        };
        Ok(Self::new(step, columns.into_iter().enumerate().map(target).collect()))
    }

    /// Checks a batch and prepares its columns. Fails with Blame::User, naming column and value, for what Postgres cannot hold.
    pub fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let schema = batch.schema_ref();
        let mut columns = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let array = batch.column(target.source);
            if (target.key || !target.nullable) && array.logical_null_count() > 0 {
                return Err(self.null_in(target));
            }
            columns.push(Work { name: &target.name, sql: &target.sql }.column(schema.field(target.source), array, &target.pg)?);
        }
        let fields = i16::try_from(columns.len()).map_err(|_| Error::weir("copy-columns", "a COPY of more columns than a table has"))?;
        Ok(Rows { columns, fields: fields.to_be_bytes(), next: 0, rows: batch.num_rows() })
    }

    fn null_in(&self, target: &Target) -> Error {
        if target.key {
            return Error::user("null-key", format!("sink \"{}\" got a row whose key column \"{}\" is null", self.step, target.name))
                .setting("key")
                .help("leave such rows out with a filter, or require the column in a contract");
        }
        Error::user("null-in-column", format!("column \"{}\" holds a null, which the table does not allow", target.name))
            .help("leave such rows out with a filter, or replace the null with coalesce in a transform")
    }
}

/// A batch whose rows are ready to be written.
#[derive(Debug)]
pub struct Rows {
    columns: Vec<Column>,
    fields: [u8; 2],
    next: usize,
    rows: usize,
}

impl Rows {
    /// Appends rows to `out` until it holds `limit` bytes or more, or there are none left. Returns how many it appended: none at the end.
    pub fn write(&mut self, out: &mut Vec<u8>, limit: usize) -> usize {
        let first = self.next;
        while self.next < self.rows && out.len() < limit {
            out.extend_from_slice(&self.fields);
            for column in &self.columns {
                column.put(self.next, out);
            }
            self.next += 1;
        }
        self.next - first
    }
}

/// One column in the shape in which it is written.
#[derive(Debug)]
struct Column {
    nulls: Option<NullBuffer>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Null,
    Bool(BooleanArray),
    I16(ScalarBuffer<i16>),
    I32(ScalarBuffer<i32>),
    I64(ScalarBuffer<i64>),
    /// Bytes between offsets; `version` goes before a `jsonb`.
    Short {
        offsets: OffsetBuffer<i32>,
        bytes: arrow::buffer::Buffer,
        version: bool,
    },
    Long {
        offsets: OffsetBuffer<i64>,
        bytes: arrow::buffer::Buffer,
        version: bool,
    },
    View {
        views: BinaryViewArray,
        version: bool,
    },
    /// So many bytes each.
    Fixed {
        bytes: arrow::buffer::Buffer,
        width: usize,
    },
    Numeric {
        values: ScalarBuffer<i128>,
        scale: i8,
    },
    Wide {
        values: ScalarBuffer<i256>,
        scale: i8,
    },
    List {
        offsets: OffsetBuffer<i64>,
        first: i64,
        element: Box<Column>,
        oid: u32,
    },
}

impl Column {
    #[inline]
    fn put(&self, row: usize, out: &mut Vec<u8>) {
        if let Some(nulls) = &self.nulls
            && nulls.is_null(row)
        {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return;
        }
        match &self.values {
            Values::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            Values::Bool(values) => out.extend_from_slice(&[0, 0, 0, 1, u8::from(values.value(row))]),
            Values::I16(values) => {
                let mut field = [0, 0, 0, 2, 0, 0];
                field[4..].copy_from_slice(&values[row].to_be_bytes());
                out.extend_from_slice(&field);
            }
            Values::I32(values) => {
                let mut field = [0, 0, 0, 4, 0, 0, 0, 0];
                field[4..].copy_from_slice(&values[row].to_be_bytes());
                out.extend_from_slice(&field);
            }
            Values::I64(values) => {
                let mut field = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
                field[4..].copy_from_slice(&values[row].to_be_bytes());
                out.extend_from_slice(&field);
            }
            #[expect(clippy::cast_sign_loss, reason = "offsets are never negative")]
            Values::Short { offsets, bytes, version } => put_bytes(&bytes[offsets[row] as usize..offsets[row + 1] as usize], *version, out),
            #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "offsets lie inside the buffer")]
            Values::Long { offsets, bytes, version } => put_bytes(&bytes[offsets[row] as usize..offsets[row + 1] as usize], *version, out),
            Values::View { views, version } => put_bytes(views.value(row), *version, out),
            Values::Fixed { bytes, width } => put_bytes(&bytes[row * width..(row + 1) * width], false, out),
            Values::Numeric { values, scale } => put_numeric(values[row].unsigned_abs(), values[row] < 0, *scale, out),
            Values::Wide { values, scale } => put_wide(values[row], *scale, out),
            Values::List { offsets, first, element, oid } => put_list(offsets[row] - first, offsets[row + 1] - first, element, *oid, out),
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "longer values were refused when the column was prepared")]
fn put_bytes(bytes: &[u8], version: bool, out: &mut Vec<u8>) {
    if version {
        out.extend_from_slice(&(bytes.len() as u32 + 1).to_be_bytes());
        out.push(1);
    } else {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    }
    out.extend_from_slice(bytes);
}

/// One dimension, whose first index is 1; an empty array has none.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "offsets lie inside the child, and a list inside a field")]
fn put_list(from: i64, to: i64, element: &Column, oid: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let rows = from as usize..to as usize;
    let holds_null = element.nulls.is_some() || matches!(element.values, Values::Null);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&i32::from(!rows.is_empty()).to_be_bytes());
    out.extend_from_slice(&i32::from(holds_null).to_be_bytes());
    out.extend_from_slice(&oid.to_be_bytes());
    if !rows.is_empty() {
        out.extend_from_slice(&(rows.len() as u32).to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        for row in rows {
            element.put(row, out);
        }
    }
    let bytes = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}

/// What one column is prepared for, by the names that messages use.
#[derive(Clone, Copy)]
struct Work<'a> {
    name: &'a str,
    sql: &'a str,
}

impl Work<'_> {
    fn column(self, field: &Field, array: &ArrayRef, pg: &PgType) -> Result<Column> {
        use DataType::*;
        let array = &self.unpacked(array)?;
        let from = array.data_type();
        if *from == Null {
            return Ok(Column { nulls: None, values: Values::Null });
        }
        let values = match pg {
            PgType::Bool => Values::Bool(array.as_boolean_opt().ok_or_else(|| self.unfit(from))?.clone()),
            PgType::Int2 => Values::I16(self.cast_to::<Int16Type>(array)?.values().clone()),
            PgType::Int4 => Values::I32(self.cast_to::<Int32Type>(array)?.values().clone()),
            PgType::Int8 => Values::I64(self.cast_to::<Int64Type>(array)?.values().clone()),
            PgType::Oid => Values::I32(bits(self.cast_to::<UInt32Type>(array)?.values())),
            PgType::Float4 => Values::I32(bits(self.cast_to::<Float32Type>(array)?.values())),
            PgType::Float8 => Values::I64(bits(self.cast_to::<Float64Type>(array)?.values())),
            PgType::Numeric(_) => self.numeric(array)?,
            PgType::Text(most) => self.text(array, *most)?,
            PgType::Json | PgType::Jsonb => self.json(field, array, *pg == PgType::Jsonb)?,
            PgType::Bytea => self.bytes(array)?,
            PgType::Date => self.dates(array)?,
            PgType::Time(_) => self.times(array)?,
            PgType::Timestamp(_) | PgType::Timestamptz(_) => self.instants(array)?,
            PgType::Interval => self.intervals(array)?,
            PgType::Uuid => self.uuids(array)?,
            PgType::Inet(network) => self.inets(array, *network)?,
            PgType::Array(inner, oid) => self.list(array, inner, *oid)?,
            PgType::Other => return Err(self.unfit(from)),
        };
        Ok(Column { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0).cloned(), values })
    }

    /// The column without dictionaries and runs.
    fn unpacked(self, array: &ArrayRef) -> Result<ArrayRef> {
        let from = array.data_type();
        if !matches!(from, DataType::Dictionary(..) | DataType::RunEndEncoded(..)) {
            return Ok(array.clone());
        }
        let to = match plain(from) {
            // Views share the dictionary's text, so that it is not copied here.
            DataType::Utf8 if matches!(from, DataType::Dictionary(..)) => &DataType::Utf8View,
            other => other,
        };
        self.cast(array, to)
    }

    fn cast(self, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        if array.data_type() == to {
            return Ok(array.clone());
        }
        let options = CastOptions { safe: false, format_options: FormatOptions::default() };
        cast_with_options(array, to, &options).map_err(|error| self.unfit(array.data_type()).because(error))
    }

    fn cast_to<T: ArrowPrimitiveType>(self, array: &ArrayRef) -> Result<PrimitiveArray<T>> {
        Ok(self.cast(array, &T::DATA_TYPE)?.as_primitive::<T>().clone())
    }

    fn unfit(self, from: &DataType) -> Error {
        Error::weir("copy-type", format!("column \"{}\" of type {from} was to be written as {}", self.name, self.sql))
    }

    fn out_of_range(self, array: &dyn Array, row: usize) -> Error {
        let message = format!("column \"{}\": the value {} does not fit the type {}", self.name, shown(array, row), self.sql);
        Error::user("value-out-of-range", message).help("replace the value in a transform, or leave such rows out with a filter")
    }

    /// Fails for the first value outside `low..=high`. Values are looked at twice only where there is one.
    fn within(self, array: &ArrayRef, numbers: &Int64Array, low: i128, high: i128) -> Result<()> {
        let inside = |value: Option<i64>| value.is_none_or(|value| (low..=high).contains(&i128::from(value)));
        if inside(arrow::compute::min(numbers)) && inside(arrow::compute::max(numbers)) {
            return Ok(());
        }
        let row = (0..numbers.len()).find(|row| numbers.is_valid(*row) && !inside(Some(numbers.value(*row)))).unwrap_or(0);
        Err(self.out_of_range(array, row))
    }

    fn numeric(self, array: &ArrayRef) -> Result<Values> {
        use DataType::*;
        let decimal = match array.data_type() {
            Decimal32(p, s) | Decimal64(p, s) => self.cast(array, &Decimal128(*p, *s))?,
            Decimal128(..) | Decimal256(..) => array.clone(),
            _ => self.cast(array, &Decimal128(20, 0))?,
        };
        Ok(match decimal.data_type() {
            Decimal256(_, scale) => Values::Wide { values: decimal.as_primitive::<Decimal256Type>().values().clone(), scale: *scale },
            Decimal128(_, scale) => Values::Numeric { values: decimal.as_primitive::<Decimal128Type>().values().clone(), scale: *scale },
            other => return Err(self.unfit(other)),
        })
    }

    fn text(self, array: &ArrayRef, most: Option<u32>) -> Result<Values> {
        let values = self.strings(array, false)?;
        // A NUL in a byte buffer is one in a value: a whole batch is searched at once, its values only where there is one.
        let suspect = match &values {
            #[expect(clippy::cast_sign_loss, reason = "offsets are never negative")]
            Values::Short { offsets, bytes, .. } => {
                memchr::memchr(0, &bytes[offsets[0] as usize..offsets[offsets.len() - 1] as usize]).is_some()
            }
            Values::View { views, .. } => views.iter().flatten().any(|value| memchr::memchr(0, value).is_some()),
            _ => true,
        };
        for row in 0..if suspect || most.is_some() { array.len() } else { 0 } {
            let Some(value) = string(array, row) else { continue };
            if memchr::memchr(0, value.as_bytes()).is_some() {
                return Err(self.nul(value));
            }
            if let Some(most) = most
                && value.len() > most as usize
                && value.chars().count() > most as usize
            {
                let message = format!("column \"{}\": the value {} is longer than {} allows", self.name, quoted(value), self.sql);
                return Err(Error::user("value-too-long", message)
                    .help("shorten it in a transform, or give the column a longer type in the database"));
            }
        }
        Ok(values)
    }

    fn nul(self, value: &str) -> Error {
        let message =
            format!("column \"{}\" holds a NUL byte, which Postgres cannot hold in text, in the value {}", self.name, quoted(value));
        Error::user("nul-byte", message).help("remove it in a transform, or cast the column to binary")
    }

    /// Text as bytes, whatever its layout.
    fn strings(self, array: &ArrayRef, version: bool) -> Result<Values> {
        let values = match array.data_type() {
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                Values::Short { offsets: text.offsets().clone(), bytes: text.values().clone(), version }
            }
            DataType::LargeUtf8 => {
                let text = array.as_string::<i64>();
                Values::Long { offsets: text.offsets().clone(), bytes: text.values().clone(), version }
            }
            DataType::Utf8View => Values::View { views: array.as_string_view().clone().to_binary_view(), version },
            other => return Err(self.unfit(other)),
        };
        self.short_enough(array, &values)?;
        Ok(values)
    }

    fn bytes(self, array: &ArrayRef) -> Result<Values> {
        let values = match array.data_type() {
            DataType::Binary => {
                let bytes = array.as_binary::<i32>();
                Values::Short { offsets: bytes.offsets().clone(), bytes: bytes.values().clone(), version: false }
            }
            DataType::LargeBinary => {
                let bytes = array.as_binary::<i64>();
                Values::Long { offsets: bytes.offsets().clone(), bytes: bytes.values().clone(), version: false }
            }
            DataType::BinaryView => Values::View { views: array.as_binary_view().clone(), version: false },
            DataType::FixedSizeBinary(_) => return self.fixed(array),
            other => return Err(self.unfit(other)),
        };
        self.short_enough(array, &values)?;
        Ok(values)
    }

    fn fixed(self, array: &ArrayRef) -> Result<Values> {
        let bytes = array.as_fixed_size_binary_opt().ok_or_else(|| self.unfit(array.data_type()))?;
        let width = usize::try_from(bytes.value_length()).map_err(|_| self.unfit(array.data_type()))?;
        Ok(Values::Fixed { bytes: bytes.values().clone(), width })
    }

    fn short_enough(self, array: &ArrayRef, values: &Values) -> Result<()> {
        let long = match values {
            Values::Short { offsets, .. } if ((offsets[offsets.len() - 1] - offsets[0]) as usize) <= VALUE_BYTES_MAX => None,
            Values::Short { offsets, .. } => offsets.lengths().position(|bytes| bytes > VALUE_BYTES_MAX),
            Values::Long { offsets, .. } => offsets.lengths().position(|bytes| bytes > VALUE_BYTES_MAX),
            Values::View { views, .. } => views.lengths().position(|bytes| bytes as usize > VALUE_BYTES_MAX),
            _ => None,
        };
        match long.filter(|row| array.is_valid(*row)) {
            None => Ok(()),
            Some(row) => Err(Error::user(
                "value-too-long",
                format!("column \"{}\": the value {} is longer than the 1 GB that Postgres allows", self.name, shown(array, row)),
            )
            .help("shorten it in a transform, or leave the column out")),
        }
    }

    fn json(self, field: &Field, array: &ArrayRef, version: bool) -> Result<Values> {
        let nul = |text: &str| version && holds_escaped_nul(text.as_bytes());
        if matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            self.text(array, None)?;
            if let Some(text) = (0..array.len()).filter_map(|row| string(array, row)).find(|text| nul(text)) {
                return Err(self.nul(text));
            }
            return self.strings(array, version);
        }
        // The shared spelling of a row as JSON, of which this is a row with one column without a name.
        let (before, after) = (r#"{"":"#.len(), "}".len());
        let field: FieldRef = Arc::new(field.clone().with_name("").with_data_type(array.data_type().clone()).with_nullable(true));
        let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(vec![field])), vec![array.clone()], &options)
            .map_err(|error| self.unfit(array.data_type()).because(error))?;
        let mut offsets = Vec::with_capacity(array.len() + 1);
        let mut bytes = Vec::new();
        offsets.push(0_i64);
        for row in 0..array.len() {
            if array.is_valid(row) {
                let text = weir_schemas::json::text(&batch, row);
                let text = &text[before..text.len() - after];
                if nul(text) {
                    return Err(self.nul(text));
                }
                if text.len() > VALUE_BYTES_MAX {
                    let message = format!("column \"{}\": a value is longer than the 1 GB that Postgres allows", self.name);
                    return Err(Error::user("value-too-long", message).help("shorten it in a transform, or leave the column out"));
                }
                bytes.extend_from_slice(text.as_bytes());
            }
            offsets.push(i64::try_from(bytes.len()).expect("a buffer is shorter than 2^63"));
        }
        Ok(Values::Long { offsets: OffsetBuffer::new(offsets.into()), bytes: bytes.into(), version })
    }

    fn dates(self, array: &ArrayRef) -> Result<Values> {
        let days = self.cast_to::<Int32Type>(array)?;
        let wide = self.cast_to::<Int64Type>(array)?;
        self.within(array, &wide, i128::from(DAYS.0) + i128::from(EPOCH_DAYS), i128::from(DAYS.1) + i128::from(EPOCH_DAYS))?;
        Ok(Values::I32(days.values().iter().map(|days| days.wrapping_sub(EPOCH_DAYS)).collect()))
    }

    fn times(self, array: &ArrayRef) -> Result<Values> {
        let (times, unit) = match array.data_type() {
            DataType::Time32(unit) => (self.cast(&self.cast(array, &DataType::Int32)?, &DataType::Int64)?, *unit),
            DataType::Time64(unit) => (self.cast(array, &DataType::Int64)?, *unit),
            other => return Err(self.unfit(other)),
        };
        self.micros(array, times.as_primitive(), unit, 0, (0, i128::from(DAY_US)))
    }

    fn instants(self, array: &ArrayRef) -> Result<Values> {
        let (array, unit) = match array.data_type() {
            DataType::Timestamp(unit, _) => (array.clone(), *unit),
            DataType::Date64 => (array.clone(), TimeUnit::Millisecond),
            DataType::Date32 => (self.cast(array, &DataType::Timestamp(TimeUnit::Second, None))?, TimeUnit::Second),
            other => return Err(self.unfit(other)),
        };
        let numbers = self.cast_to::<Int64Type>(&array)?;
        self.micros(&array, &numbers, unit, EPOCH_US, INSTANTS)
    }

    /// Numbers of `unit` as microseconds since `epoch`, which lie in `range`.
    fn micros(self, array: &ArrayRef, numbers: &Int64Array, unit: TimeUnit, epoch: i64, range: (i128, i128)) -> Result<Values> {
        let (low, high) = (range.0 + i128::from(epoch), range.1 + i128::from(epoch));
        let (low, high) = match unit {
            TimeUnit::Nanosecond => (low * 1000, high * 1000 + 999),
            _ => (low.div_euclid(i128::from(factor(unit))), high.div_euclid(i128::from(factor(unit)))),
        };
        self.within(array, numbers, low, high)?;
        // What stands where a value is null may be anything, hence the wrapping.
        let values = numbers.values().iter();
        Ok(Values::I64(match unit {
            TimeUnit::Nanosecond => values.map(|value| value.div_euclid(1000).wrapping_sub(epoch)).collect(),
            unit => values.map(|value| value.wrapping_mul(factor(unit)).wrapping_sub(epoch)).collect(),
        }))
    }

    fn intervals(self, array: &ArrayRef) -> Result<Values> {
        let mut bytes = Vec::with_capacity(array.len() * 16);
        let mut push = |months: i32, days: i32, micros: i64| {
            bytes.extend_from_slice(&micros.to_be_bytes());
            bytes.extend_from_slice(&days.to_be_bytes());
            bytes.extend_from_slice(&months.to_be_bytes());
        };
        match array.data_type() {
            DataType::Duration(unit) => {
                let numbers = match unit {
                    TimeUnit::Microsecond => array.as_primitive::<DurationMicrosecondType>().reinterpret_cast::<Int64Type>(),
                    _ => self.cast_to::<Int64Type>(array)?,
                };
                let Values::I64(values) = self.micros(array, &numbers, *unit, 0, (i64::MIN.into(), i64::MAX.into()))? else {
                    return Err(self.unfit(array.data_type()));
                };
                values.iter().for_each(|micros| push(0, 0, *micros));
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                array.as_primitive::<IntervalYearMonthType>().values().iter().for_each(|months| push(*months, 0, 0));
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                let values = array.as_primitive::<IntervalDayTimeType>().values();
                values.iter().for_each(|value| push(0, value.days, i64::from(value.milliseconds) * 1000));
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let values = array.as_primitive::<IntervalMonthDayNanoType>();
                for (row, value) in values.values().iter().enumerate() {
                    if value.nanoseconds % 1000 != 0 && values.is_valid(row) {
                        return Err(self.out_of_range(array, row));
                    }
                    push(value.months, value.days, value.nanoseconds / 1000);
                }
            }
            other => return Err(self.unfit(other)),
        }
        Ok(Values::Fixed { bytes: bytes.into(), width: 16 })
    }

    fn uuids(self, array: &ArrayRef) -> Result<Values> {
        if matches!(array.data_type(), DataType::FixedSizeBinary(_)) {
            return self.fixed(array);
        }
        let mut bytes = Vec::with_capacity(array.len() * 16);
        for row in 0..array.len() {
            let uuid = match string(array, row) {
                None => uuid::Uuid::nil(),
                Some(text) => uuid::Uuid::parse_str(text).map_err(|_| self.wrong(text, "a uuid"))?,
            };
            bytes.extend_from_slice(uuid.as_bytes());
        }
        Ok(Values::Fixed { bytes: bytes.into(), width: 16 })
    }

    /// Family, bits of the mask, whether it is a network, bytes of the address, the address.
    fn inets(self, array: &ArrayRef, network: bool) -> Result<Values> {
        let (mut offsets, mut bytes) = (vec![0_i32], Vec::new());
        for row in 0..array.len() {
            if let Some(text) = string(array, row) {
                let wrong = || self.wrong(text, if network { "a network such as 10.1.0.0/16" } else { "an address such as 10.1.2.3" });
                let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
                let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits: u8 = bits.map_or(Ok(most), str::parse).ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
                let family = if address.is_ipv4() { 2 } else { 3 };
                bytes.extend_from_slice(&[family, bits, u8::from(network), most / 8]);
                match address {
                    std::net::IpAddr::V4(four) => bytes.extend_from_slice(&four.octets()),
                    std::net::IpAddr::V6(six) => bytes.extend_from_slice(&six.octets()),
                }
            }
            offsets.push(i32::try_from(bytes.len()).map_err(|_| self.unfit(array.data_type()))?);
        }
        Ok(Values::Short { offsets: OffsetBuffer::new(offsets.into()), bytes: bytes.into(), version: false })
    }

    fn wrong(self, text: &str, what: &str) -> Error {
        Error::user("wrong-value", format!("column \"{}\": the value {} is not {what}", self.name, quoted(text)))
            .help("correct it in a transform, or leave such rows out with a filter")
    }

    fn list(self, array: &ArrayRef, inner: &PgType, oid: u32) -> Result<Values> {
        let item = element(array.data_type()).ok_or_else(|| self.unfit(array.data_type()))?.clone();
        let large = self.cast(array, &DataType::LargeList(Arc::new(item.clone())))?;
        let list = large.as_list::<i64>();
        let (first, last) = (list.offsets()[0], list.offsets()[list.len()]);
        let at = |offset: i64| usize::try_from(offset).expect("offsets lie inside the child");
        let values = list.values().slice(at(first), at(last - first));
        let element = Box::new(self.column(&item, &values, inner)?);
        Ok(Values::List { offsets: list.offsets().clone(), first, element, oid })
    }
}

/// The same bits as numbers of another type of the same width.
fn bits<A: ArrowNativeType, B: ArrowNativeType>(values: &ScalarBuffer<A>) -> ScalarBuffer<B> {
    ScalarBuffer::new(values.inner().clone(), 0, values.len())
}

/// Microseconds in a unit that is not shorter.
fn factor(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
    }
}

/// A text in a row of any layout; none where it is null.
fn string(array: &ArrayRef, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

/// Says whether JSON spells the character that `jsonb` cannot hold: `\u0000` after an even number of backslashes.
fn holds_escaped_nul(json: &[u8]) -> bool {
    memchr::memmem::find_iter(json, b"\\u0000").any(|at| json[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0)
}

/// The start of a text in quotes, its control characters spelt out.
fn quoted(text: &str) -> String {
    const CHARS: usize = 40;
    let start: String = text.chars().take(CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS).is_some() { format!("\"{start}…\"") } else { format!("\"{start}\"") }
}

/// The start of a value.
fn shown(array: &dyn Array, row: usize) -> String {
    match array_value_to_string(array, row) {
        Ok(text) if !text.is_empty() && text.len() <= 60 && !text.starts_with("ERROR") => text,
        Ok(text) if text.len() > 60 && !text.starts_with("ERROR") => quoted(&text),
        // Arrow has no calendar for it: the bare number then.
        _ => match cast_with_options(array, &DataType::Int64, &CastOptions::default()) {
            Ok(number) => array_value_to_string(&number, row).unwrap_or_else(|_| "?".into()),
            Err(_) => "?".into(),
        },
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
