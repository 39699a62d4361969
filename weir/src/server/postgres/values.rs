//! How is a value of an Arrow column written for Postgres's clients, as text and in binary? Which type a column has there is
//! `weir_engine::query::postgres`'s to say.
//!
//! `arrow-pg` is not used for it: it knows no type for maps, lists of lists or decimals of 256 bits, sends a struct as a record whose
//! fields a client cannot name, numbers that have 38 digits through a type of 28, and makes a value of each cell before it writes it.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
        FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray,
        RecordBatch, StringArray, StringViewArray,
    },
    compute::cast,
    datatypes::{
        DataType, Field, FieldRef, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Schema,
        TimeUnit,
    },
    error::ArrowError,
};
use bytes::{BufMut, BytesMut};
use weir_engine::query::postgres::types::{PgType, oid, pg_type};

use super::{
    temporal::{self, EPOCH_DAYS, EPOCH_MICROS, Length, Style},
    wire::end,
};

/// A value that Postgres's type cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// It lies too far away.
    #[error("a value of column \"{0}\" is out of the range of its type")]
    Range(String),
    /// Arrow could not turn the column into what is written.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// A column of one batch, ready to be written.
pub struct Column {
    name: String,
    cells: Cells,
    nulls: Option<arrow::buffer::NullBuffer>,
}

enum Cells {
    Null,
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytes(BinaryArray),
    LargeBytes(LargeBinaryArray),
    BytesView(BinaryViewArray),
    FixedBytes(FixedSizeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(Date32Array),
    Time(Int64Array, TimeUnit),
    Timestamp(Int64Array, TimeUnit, bool),
    Length(ArrayRef),
    List(ArrayRef, FieldRef, u32),
    /// As the one column of a batch, the form in which JSON is made of it.
    Json(RecordBatch),
}

impl Column {
    /// Takes a column of a batch.
    pub fn new(field: &Field, array: &ArrayRef) -> Result<Self, ValueError> {
        Self::typed(field, array, pg_type(field))
    }

    fn typed(field: &Field, array: &ArrayRef, kind: PgType) -> Result<Self, ValueError> {
        let as_type = |kind: &DataType| cast(array, kind);
        let int64 = |array: &ArrayRef| -> Result<Int64Array, ArrowError> {
            let widened = if array.data_type().primitive_width() == Some(4) { cast(array, &DataType::Int32)? } else { array.clone() };
            Ok(cast(&widened, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let cells = match field.data_type() {
            // What has another form within is turned into it first, and what is smaller than Postgres's types is widened.
            DataType::Dictionary(_, value) => {
                let field = field.clone().with_data_type(value.as_ref().clone());
                return Self::typed(&field, &as_type(value)?, kind);
            }
            DataType::RunEndEncoded(_, value) => {
                let inner = value.as_ref().clone().with_name(field.name());
                return Self::typed(&inner, &as_type(value.data_type())?, kind);
            }
            _ if kind.oid == oid::JSON && !field.data_type().is_string() => {
                let alone = Schema::new(vec![field.clone().with_name("").with_nullable(true)]);
                Cells::Json(RecordBatch::try_new(Arc::new(alone), vec![array.clone()])?)
            }
            DataType::Null => Cells::Null,
            DataType::Boolean => Cells::Bool(array.as_boolean().clone()),
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Cells::Int16(as_type(&DataType::Int16)?.as_primitive().clone()),
            DataType::UInt16 | DataType::Int32 => Cells::Int32(as_type(&DataType::Int32)?.as_primitive().clone()),
            DataType::UInt32 | DataType::Int64 => Cells::Int64(as_type(&DataType::Int64)?.as_primitive().clone()),
            DataType::UInt64 => Cells::Decimal128(as_type(&DataType::Decimal128(20, 0))?.as_primitive().clone(), 0),
            DataType::Float16 | DataType::Float32 => Cells::Float32(as_type(&DataType::Float32)?.as_primitive().clone()),
            DataType::Float64 => Cells::Float64(array.as_primitive().clone()),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                Cells::Decimal128(as_type(&DataType::Decimal128(*precision, *scale))?.as_primitive().clone(), *scale)
            }
            DataType::Decimal128(_, scale) => Cells::Decimal128(array.as_primitive().clone(), *scale),
            DataType::Decimal256(_, scale) => Cells::Decimal256(array.as_primitive().clone(), *scale),
            DataType::Utf8 => Cells::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Cells::LargeText(array.as_string().clone()),
            DataType::Utf8View => Cells::TextView(array.as_string_view().clone()),
            DataType::Binary => Cells::Bytes(array.as_binary().clone()),
            DataType::LargeBinary => Cells::LargeBytes(array.as_binary().clone()),
            DataType::BinaryView => Cells::BytesView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) if kind.oid == oid::UUID => Cells::Uuid(array.as_fixed_size_binary().clone()),
            DataType::FixedSizeBinary(_) => Cells::FixedBytes(array.as_fixed_size_binary().clone()),
            DataType::Date32 | DataType::Date64 => Cells::Date(as_type(&DataType::Date32)?.as_primitive().clone()),
            DataType::Time32(unit) | DataType::Time64(unit) => Cells::Time(int64(array)?, *unit),
            DataType::Timestamp(unit, zone) => Cells::Timestamp(int64(array)?, *unit, zone.is_some()),
            DataType::Duration(_) | DataType::Interval(_) => Cells::Length(array.clone()),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => Cells::List(array.clone(), item.clone(), kind.element.unwrap_or(oid::TEXT)),
            DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => unreachable!("these are JSON to Postgres's clients"),
        };
        let nulls = if matches!(cells, Cells::Null) { None } else { array.logical_nulls() };
        Ok(Self { name: field.name().clone(), cells, nulls })
    }

    /// True where there is no value.
    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.cells, Cells::Null) || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// A value with its length before it, as rows and binary COPY have them.
    pub fn field(&self, row: usize, binary: bool, style: &Style, out: &mut BytesMut) -> Result<(), ValueError> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let at = out.len();
        out.put_u32(0);
        if binary {
            self.binary(row, out)?
        } else {
            self.text(row, style, out)?
        }
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn range(&self) -> ValueError {
        ValueError::Range(self.name.clone())
    }

    fn micros(&self, value: i64, unit: TimeUnit) -> Result<i64, ValueError> {
        temporal::micros(value, unit).ok_or_else(|| self.range())
    }

    /// The text of a value that is not null.
    pub fn text(&self, row: usize, style: &Style, out: &mut BytesMut) -> Result<(), ValueError> {
        match &self.cells {
            Cells::Null => {}
            Cells::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Cells::Int16(array) => display(array.value(row), out),
            Cells::Int32(array) => display(array.value(row), out),
            Cells::Int64(array) => display(array.value(row), out),
            Cells::Float32(array) => float(array.value(row), 6, out),
            Cells::Float64(array) => float(array.value(row), 15, out),
            Cells::Decimal128(array, scale) => decimal(&array.value(row).to_string(), *scale, out),
            Cells::Decimal256(array, scale) => decimal(&array.value(row).to_string(), *scale, out),
            Cells::Bytes(_) | Cells::LargeBytes(_) | Cells::BytesView(_) | Cells::FixedBytes(_) => {
                out.extend_from_slice(b"\\x");
                hex(self.bytes(row), out);
            }
            Cells::Uuid(array) => {
                let value = array.value(row);
                for (at, part) in [(0, 4), (4, 6), (6, 8), (8, 10), (10, 16)].into_iter().enumerate() {
                    if at > 0 {
                        out.put_u8(b'-');
                    }
                    hex(&value[part.0..part.1], out);
                }
            }
            Cells::Text(_) | Cells::LargeText(_) | Cells::TextView(_) => out.extend_from_slice(self.bytes(row)),
            Cells::Date(array) => temporal::date(array.value(row), out),
            Cells::Time(array, unit) => temporal::time(self.micros(array.value(row), *unit)?, out),
            Cells::Timestamp(array, unit, zoned) => {
                let zone = zoned.then_some(&style.zone);
                temporal::timestamp(self.micros(array.value(row), *unit)?, zone, out);
            }
            Cells::Length(array) => self.length(array, row)?.write(style, out),
            Cells::List(array, item, _) => self.list_text(array, item, row, style, out)?,
            Cells::Json(batch) => json(batch, row, out),
        }
        Ok(())
    }

    /// The bytes of a value that is not null.
    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        match &self.cells {
            Cells::Null => {}
            Cells::Bool(array) => out.put_u8(array.value(row).into()),
            Cells::Int16(array) => out.put_i16(array.value(row)),
            Cells::Int32(array) => out.put_i32(array.value(row)),
            Cells::Int64(array) => out.put_i64(array.value(row)),
            Cells::Float32(array) => out.put_f32(array.value(row)),
            Cells::Float64(array) => out.put_f64(array.value(row)),
            Cells::Decimal128(array, scale) => numeric(&array.value(row).to_string(), *scale, out),
            Cells::Decimal256(array, scale) => numeric(&array.value(row).to_string(), *scale, out),
            Cells::Uuid(array) => out.extend_from_slice(array.value(row)),
            Cells::Text(_)
            | Cells::LargeText(_)
            | Cells::TextView(_)
            | Cells::Bytes(_)
            | Cells::LargeBytes(_)
            | Cells::BytesView(_)
            | Cells::FixedBytes(_) => out.extend_from_slice(self.bytes(row)),
            Cells::Date(array) => {
                let days = i64::from(array.value(row)) - EPOCH_DAYS;
                out.put_i32(days.try_into().map_err(|_| self.range())?);
            }
            Cells::Time(array, unit) => out.put_i64(self.micros(array.value(row), *unit)?),
            Cells::Timestamp(array, unit, _) => {
                let micros = self.micros(array.value(row), *unit)?;
                out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or_else(|| self.range())?);
            }
            Cells::Length(array) => {
                let length = self.length(array, row)?;
                out.put_i64(length.micros);
                out.put_i32(length.days);
                out.put_i32(length.months);
            }
            Cells::List(array, item, element) => self.list_binary(array, item, *element, row, out)?,
            Cells::Json(batch) => json(batch, row, out),
        }
        Ok(())
    }

    fn bytes(&self, row: usize) -> &[u8] {
        match &self.cells {
            Cells::Text(array) => array.value(row).as_bytes(),
            Cells::LargeText(array) => array.value(row).as_bytes(),
            Cells::TextView(array) => array.value(row).as_bytes(),
            Cells::Bytes(array) => array.value(row),
            Cells::LargeBytes(array) => array.value(row),
            Cells::BytesView(array) => array.value(row),
            Cells::FixedBytes(array) => array.value(row),
            _ => &[],
        }
    }

    fn length(&self, array: &ArrayRef, row: usize) -> Result<Length, ValueError> {
        Ok(match array.data_type() {
            DataType::Interval(IntervalUnit::YearMonth) => {
                Length { months: array.as_primitive::<IntervalYearMonthType>().value(row), days: 0, micros: 0 }
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                let value = array.as_primitive::<IntervalDayTimeType>().value(row);
                Length { months: 0, days: value.days, micros: i64::from(value.milliseconds) * 1_000 }
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                Length { months: value.months, days: value.days, micros: value.nanoseconds.div_euclid(1_000) }
            }
            DataType::Duration(unit) => {
                let value = cast(&array.slice(row, 1), &DataType::Int64)?.as_primitive::<Int64Type>().value(0);
                Length { months: 0, days: 0, micros: self.micros(value, *unit)? }
            }
            other => return Err(ArrowError::CastError(format!("{other} is no length of time")).into()),
        })
    }

    fn list_text(&self, array: &ArrayRef, item: &Field, row: usize, style: &Style, out: &mut BytesMut) -> Result<(), ValueError> {
        let items = items(array, row);
        let column = Column::new(item, &items)?;
        let mut one = BytesMut::new();
        out.put_u8(b'{');
        for at in 0..items.len() {
            if at > 0 {
                out.put_u8(b',');
            }
            if column.is_null(at) {
                out.extend_from_slice(b"NULL");
                continue;
            }
            one.clear();
            column.text(at, style, &mut one)?;
            let special = |byte: &u8| matches!(byte, b'{' | b'}' | b'"' | b',' | b'\\') || byte.is_ascii_whitespace() || *byte == 0x0b;
            if one.is_empty() || one.eq_ignore_ascii_case(b"null") || one.iter().any(special) {
                out.put_u8(b'"');
                for byte in &one {
                    if matches!(byte, b'"' | b'\\') {
                        out.put_u8(b'\\');
                    }
                    out.put_u8(*byte);
                }
                out.put_u8(b'"');
            } else {
                out.extend_from_slice(&one);
            }
        }
        out.put_u8(b'}');
        Ok(())
    }

    fn list_binary(&self, array: &ArrayRef, item: &Field, element: u32, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let items = items(array, row);
        let column = Column::new(item, &items)?;
        out.put_i32(i32::from(!items.is_empty()));
        out.put_i32((0..items.len()).any(|at| column.is_null(at)).into());
        out.put_u32(element);
        if !items.is_empty() {
            out.put_u32(items.len() as u32);
            out.put_i32(1);
        }
        for at in 0..items.len() {
            column.field(at, true, &Style::default(), out)?;
        }
        Ok(())
    }
}

fn items(array: &ArrayRef, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        _ => array.as_fixed_size_list().value(row),
    }
}

/// The JSON of the one column of a batch whose name is empty.
fn json(batch: &RecordBatch, row: usize, out: &mut BytesMut) {
    let text = weir_schemas::json::text(batch, row);
    // `{"":…}`
    out.extend_from_slice(&text.as_bytes()[4..text.len() - 1]);
}

fn display(value: impl std::fmt::Display, out: &mut BytesMut) {
    let _ = write!(out, "{value}");
}

fn hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

/// The shortest text that reads back as the same float; with an exponent from 10^`digits` on and below 0.0001.
fn float<F: Into<f64> + std::fmt::LowerExp + Copy>(value: F, digits: i32, out: &mut BytesMut) {
    let wide: f64 = value.into();
    if !wide.is_finite() {
        let text = match wide {
            _ if wide.is_nan() => "NaN",
            _ if wide > 0.0 => "Infinity",
            _ => "-Infinity",
        };
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let all: String = mantissa.chars().filter(|digit| *digit != '.').collect();
    out.extend_from_slice(sign.as_bytes());
    if exponent < 0 {
        let _ = write!(out, "0.{}{all}", "0".repeat((-exponent - 1) as usize));
    } else if all.len() as i32 > exponent + 1 {
        let (whole, rest) = all.split_at(exponent as usize + 1);
        let _ = write!(out, "{whole}.{rest}");
    } else {
        let _ = write!(out, "{all}{}", "0".repeat((exponent + 1) as usize - all.len()));
    }
}

/// Sign, digits before the point, digits behind it.
fn parts(unscaled: &str, scale: i8) -> (bool, String, String) {
    let (negative, digits) = unscaled.strip_prefix('-').map_or((false, unscaled), |rest| (true, rest));
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { usize::from(scale.unsigned_abs()) };
        return (negative, format!("{digits}{}", "0".repeat(zeros)), String::new());
    }
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, rest) = padded.split_at(padded.len() - scale);
    (negative, whole.to_owned(), rest.to_owned())
}

fn decimal(unscaled: &str, scale: i8, out: &mut BytesMut) {
    let (negative, whole, rest) = parts(unscaled, scale);
    let sign = if negative { "-" } else { "" };
    let point = if rest.is_empty() { "" } else { "." };
    let _ = write!(out, "{sign}{whole}{point}{rest}");
}

/// Postgres's numeric: groups of four decimal digits.
fn numeric(unscaled: &str, scale: i8, out: &mut BytesMut) {
    let (negative, whole, rest) = parts(unscaled, scale);
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let all = format!("{whole}{rest}{}", "0".repeat((4 - rest.len() % 4) % 4));
    let groups: Vec<i16> =
        all.as_bytes().chunks(4).map(|group| group.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0'))).collect();
    let mut weight = (whole.len() / 4) as i16 - 1;
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |at| at + 1);
    weight = if first == groups.len() { 0 } else { weight - first as i16 };
    let groups = &groups[first..last.max(first)];
    out.put_i16(groups.len() as i16);
    out.put_i16(weight);
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_i16(rest.len() as i16);
    for group in groups {
        out.put_i16(*group);
    }
}

/// The columns of a batch, to be written row by row.
pub struct Rows {
    columns: Vec<Column>,
    /// How many rows there are.
    pub len: usize,
}

impl Rows {
    /// Takes a batch.
    pub fn new(batch: &RecordBatch) -> Result<Self, ValueError> {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| Column::new(field, array));
        Ok(Self { columns: columns.collect::<Result<_, _>>()?, len: batch.num_rows() })
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// One row as a message; `binary` says it of each column. Nothing is written of a row that cannot be.
    pub fn data_row(&self, row: usize, binary: &[bool], style: &Style, out: &mut BytesMut) -> Result<(), ValueError> {
        let begin = out.len();
        out.put_u8(b'D');
        let at = out.len();
        out.put_u32(0);
        out.put_u16(self.columns.len() as u16);
        for (column, binary) in self.columns.iter().zip(binary) {
            if let Err(error) = column.field(row, *binary, style, out) {
                out.truncate(begin);
                return Err(error);
            }
        }
        end(out, at);
        Ok(())
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
