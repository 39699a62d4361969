//! From the bytes of a `copy … to stdout (format binary)` to Arrow columns. Whatever the bytes are, the answer is columns or an error,
//! never a panic; a stream that ends before its trailer is an error. What is asked for is `types`'s.
//!
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"; values as the types' send functions write them.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, Float32Builder, Float64Builder,
        Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, StringBuilder, StructArray,
        Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DECIMAL128_MAX_PRECISION, Field, Fields, IntervalMonthDayNano, i256},
};

use super::{Infinity, types::Kind};
use crate::error::{Error, Result};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Days and microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 946_684_800_000_000;
const DAY_US: i64 = 86_400_000_000;
/// Postgres sends no longer row.
const ROW_BYTES_MAX: usize = 1 << 30;
/// Text in one batch's column: what 32-bit offsets reach.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// What is wrong with a value or with the stream.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    /// The bytes are not what the format says.
    Form(&'static str),
    /// A proper value that its Arrow type does not hold.
    Value(&'static str, String),
    /// An infinity.
    Infinite,
}

type Parsed<T> = std::result::Result<T, Bad>;

/// Reads big-endian pieces off some bytes.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }
    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}

const SHORT: Bad = Bad::Form("it is cut short");
const LONG: Bad = Bad::Form("its length is wrong");

fn fixed<const N: usize>(bytes: &[u8]) -> Parsed<[u8; N]> {
    bytes.try_into().map_err(|_| LONG)
}

/// One column being built.
enum Column {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal128(Decimal128Builder, u8, i8),
    Decimal256(Decimal256Builder, u8, i8),
    NumericText(StringBuilder),
    NumericFloat(Float64Builder),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Uuid(StringBuilder),
    List { field: Arc<Field>, oid: u32, ends: Vec<i32>, valid: Vec<bool>, items: Box<Column> },
    Struct { fields: Fields, oids: Vec<u32>, valid: Vec<bool>, columns: Vec<Column> },
}

impl Column {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => Column::Bool(BooleanBuilder::new()),
            Kind::Int2 => Column::Int2(Int16Builder::new()),
            Kind::Int4 => Column::Int4(Int32Builder::new()),
            Kind::Int8 => Column::Int8(Int64Builder::new()),
            Kind::Oid => Column::Oid(Int64Builder::new()),
            Kind::Float4 => Column::Float4(Float32Builder::new()),
            Kind::Float8 => Column::Float8(Float64Builder::new()),
            Kind::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
                Column::Decimal128(Decimal128Builder::new().with_data_type(kind.data_type()), *precision, *scale)
            }
            Kind::Decimal(precision, scale) => {
                Column::Decimal256(Decimal256Builder::new().with_data_type(kind.data_type()), *precision, *scale)
            }
            Kind::NumericText => Column::NumericText(StringBuilder::new()),
            Kind::NumericFloat => Column::NumericFloat(Float64Builder::new()),
            Kind::Text | Kind::Json => Column::Text(StringBuilder::new()),
            Kind::Jsonb => Column::Jsonb(StringBuilder::new()),
            Kind::Bytea => Column::Bytea(BinaryBuilder::new()),
            Kind::Date => Column::Date(Date32Builder::new()),
            Kind::Time => Column::Time(Time64MicrosecondBuilder::new()),
            Kind::Timestamp | Kind::Timestamptz => Column::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.data_type())),
            Kind::Interval => Column::Interval(IntervalMonthDayNanoBuilder::new()),
            Kind::Uuid => Column::Uuid(StringBuilder::new()),
            Kind::List(element, oid) => Column::List {
                field: Arc::new(element.field("item", true)),
                oid: *oid,
                ends: Vec::new(),
                valid: Vec::new(),
                items: Box::new(Column::new(element)),
            },
            Kind::Struct(attributes) => Column::Struct {
                fields: attributes.iter().map(|attribute| attribute.kind.field(&attribute.name, true)).collect(),
                oids: attributes.iter().map(|attribute| attribute.oid).collect(),
                valid: Vec::new(),
                columns: attributes.iter().map(|attribute| Column::new(&attribute.kind)).collect(),
            },
        }
    }

    fn append_null(&mut self) {
        match self {
            Column::Bool(to) => to.append_null(),
            Column::Int2(to) => to.append_null(),
            Column::Int4(to) => to.append_null(),
            Column::Int8(to) | Column::Oid(to) => to.append_null(),
            Column::Float4(to) => to.append_null(),
            Column::Float8(to) | Column::NumericFloat(to) => to.append_null(),
            Column::Decimal128(to, ..) => to.append_null(),
            Column::Decimal256(to, ..) => to.append_null(),
            Column::NumericText(to) | Column::Text(to) | Column::Jsonb(to) | Column::Uuid(to) => to.append_null(),
            Column::Bytea(to) => to.append_null(),
            Column::Date(to) => to.append_null(),
            Column::Time(to) => to.append_null(),
            Column::Timestamp(to) => to.append_null(),
            Column::Interval(to) => to.append_null(),
            Column::List { ends, valid, .. } => {
                ends.push(ends.last().copied().unwrap_or(0));
                valid.push(false);
            }
            Column::Struct { valid, columns, .. } => {
                valid.push(false);
                columns.iter_mut().for_each(Column::append_null);
            }
        }
    }

    fn append(&mut self, bytes: &[u8], infinity: Infinity) -> Parsed<()> {
        match self.append_value(bytes, infinity) {
            Err(Bad::Infinite) if infinity == Infinity::Null => {
                self.append_null();
                Ok(())
            }
            appended => appended,
        }
    }

    fn append_value(&mut self, bytes: &[u8], infinity: Infinity) -> Parsed<()> {
        match self {
            Column::Bool(to) => match bytes {
                [0] => to.append_value(false),
                [1] => to.append_value(true),
                _ => return Err(Bad::Form("it is no boolean")),
            },
            Column::Int2(to) => to.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Column::Int4(to) => to.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Column::Int8(to) => to.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Column::Oid(to) => to.append_value(u32::from_be_bytes(fixed(bytes)?).into()),
            Column::Float4(to) => to.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Column::Float8(to) => to.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Column::Decimal128(to, precision, scale) => {
                let number = PgNumeric::parse(bytes)?;
                to.append_value(match number.unscaled_small(*precision, *scale) {
                    Some(unscaled) => unscaled,
                    None => number.unscaled(*precision, *scale)?.to_i128().ok_or_else(|| does_not_fit(*precision, *scale))?,
                });
            }
            Column::Decimal256(to, precision, scale) => to.append_value(PgNumeric::parse(bytes)?.unscaled(*precision, *scale)?),
            Column::NumericText(to) => push(to, &PgNumeric::parse(bytes)?.text())?,
            Column::NumericFloat(to) => {
                let text = PgNumeric::parse(bytes)?.text();
                to.append_value(text.parse().map_err(|_| Bad::Form("it is no number"))?);
            }
            Column::Text(to) => push(to, text(bytes)?)?,
            Column::Jsonb(to) => match bytes.split_first() {
                Some((1, json)) => push(to, text(json)?)?,
                _ => return Err(Bad::Form("it is jsonb of another version than 1")),
            },
            Column::Bytea(to) => {
                if to.values_slice().len() + bytes.len() > TEXT_BYTES_MAX {
                    return Err(too_much());
                }
                to.append_value(bytes);
            }
            Column::Date(to) => match i32::from_be_bytes(fixed(bytes)?) {
                i32::MIN | i32::MAX => return Err(Bad::Infinite),
                days => to.append_value(days.checked_add(EPOCH_DAYS).ok_or_else(|| Bad::Value("a date", "it lies too far off".into()))?),
            },
            Column::Time(to) => match i64::from_be_bytes(fixed(bytes)?) {
                us @ 0..DAY_US => to.append_value(us),
                DAY_US => return Err(Bad::Value("24:00:00", "Arrow's day ends before it".into())),
                _ => return Err(Bad::Form("it is no time of day")),
            },
            Column::Timestamp(to) => match i64::from_be_bytes(fixed(bytes)?) {
                i64::MIN | i64::MAX => return Err(Bad::Infinite),
                us => to.append_value(
                    us.checked_add(EPOCH_US).ok_or_else(|| Bad::Value("a timestamp", "it lies further off than Arrow counts".into()))?,
                ),
            },
            Column::Interval(to) => to.append_value(interval(bytes)?),
            Column::Uuid(to) => {
                let mut room = [0; 36];
                push(to, uuid::Uuid::from_bytes(fixed(bytes)?).hyphenated().encode_lower(&mut room))?;
            }
            Column::List { oid, ends, valid, items, .. } => {
                let (count, elements) = array(bytes, *oid)?;
                let end = i64::from(ends.last().copied().unwrap_or(0)) + i64::from(count);
                let end = i32::try_from(end).map_err(|_| too_much())?;
                let mut elements = Cursor(elements);
                for _ in 0..count {
                    match value(&mut elements)? {
                        Some(bytes) => items.append(bytes, infinity)?,
                        None => items.append_null(),
                    }
                }
                if !elements.0.is_empty() {
                    return Err(LONG);
                }
                ends.push(end);
                valid.push(true);
            }
            Column::Struct { oids, valid, columns, .. } => {
                let mut rest = Cursor(bytes);
                if rest.i32().and_then(|count| usize::try_from(count).ok()) != Some(columns.len()) {
                    return Err(Bad::Form("it has another number of attributes than its type"));
                }
                for (column, oid) in columns.iter_mut().zip(oids.iter()) {
                    if rest.u32().ok_or(SHORT)? != *oid {
                        return Err(Bad::Form("an attribute is of another type than it was"));
                    }
                    match value(&mut rest)? {
                        Some(bytes) => column.append(bytes, infinity)?,
                        None => column.append_null(),
                    }
                }
                if !rest.0.is_empty() {
                    return Err(LONG);
                }
                valid.push(true);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let misfit = |error| Error::weir("arrow", format!("decoded values make no column: {error}")).because(error);
        Ok(match self {
            Column::Bool(from) => Arc::new(from.finish()),
            Column::Int2(from) => Arc::new(from.finish()),
            Column::Int4(from) => Arc::new(from.finish()),
            Column::Int8(from) | Column::Oid(from) => Arc::new(from.finish()),
            Column::Float4(from) => Arc::new(from.finish()),
            Column::Float8(from) | Column::NumericFloat(from) => Arc::new(from.finish()),
            Column::Decimal128(from, ..) => Arc::new(from.finish()),
            Column::Decimal256(from, ..) => Arc::new(from.finish()),
            Column::NumericText(from) | Column::Text(from) | Column::Jsonb(from) | Column::Uuid(from) => Arc::new(from.finish()),
            Column::Bytea(from) => Arc::new(from.finish()),
            Column::Date(from) => Arc::new(from.finish()),
            Column::Time(from) => Arc::new(from.finish()),
            Column::Timestamp(from) => Arc::new(from.finish()),
            Column::Interval(from) => Arc::new(from.finish()),
            Column::List { field, ends, valid, items, .. } => {
                let offsets: Vec<i32> = std::iter::once(0).chain(std::mem::take(ends)).collect();
                let (valid, items) = (NullBuffer::from(std::mem::take(valid)), items.finish()?);
                Arc::new(ListArray::try_new(field.clone(), OffsetBuffer::new(offsets.into()), items, Some(valid)).map_err(misfit)?)
            }
            Column::Struct { fields, valid, columns, .. } => {
                let columns = columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
                let valid = NullBuffer::from(std::mem::take(valid));
                Arc::new(StructArray::try_new(fields.clone(), columns, Some(valid)).map_err(misfit)?)
            }
        })
    }
}

fn too_much() -> Bad {
    Bad::Value("a value", "its column has more than 2 GiB in one batch".into())
}

fn push(to: &mut StringBuilder, text: &str) -> Parsed<()> {
    if to.values_slice().len() + text.len() > TEXT_BYTES_MAX {
        return Err(too_much());
    }
    to.append_value(text);
    Ok(())
}

fn text(bytes: &[u8]) -> Parsed<&str> {
    std::str::from_utf8(bytes).map_err(|_| Bad::Value("text", "it is not UTF-8".into()))
}

/// A length and as many bytes; none for null.
fn value<'a>(from: &mut Cursor<'a>) -> Parsed<Option<&'a [u8]>> {
    match from.i32().ok_or(SHORT)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| Bad::Form("it has a negative length"))?;
            from.take(length).map(Some).ok_or(SHORT)
        }
    }
}

/// The number of elements, and their bytes.
fn array(bytes: &[u8], element: u32) -> Parsed<(i32, &[u8])> {
    let mut rest = Cursor(bytes);
    let (dimensions, _flags, oid) = (rest.i32().ok_or(SHORT)?, rest.i32().ok_or(SHORT)?, rest.u32().ok_or(SHORT)?);
    if oid != element {
        return Err(Bad::Form("its elements are of another type than they were"));
    }
    match dimensions {
        0 => Ok((0, rest.0)),
        1 => {
            let (count, _lower) = (rest.i32().ok_or(SHORT)?, rest.i32().ok_or(SHORT)?);
            // Every element has at least a length of four bytes: a count that is too great is found out before anything is set aside.
            match usize::try_from(count) {
                Ok(elements) if elements <= rest.0.len() / 4 => Ok((count, rest.0)),
                _ => Err(SHORT),
            }
        }
        2..=6 => Err(Bad::Value("an array of several dimensions", "a list has one".into())),
        _ => Err(Bad::Form("it is no array")),
    }
}

fn interval(bytes: &[u8]) -> Parsed<IntervalMonthDayNano> {
    let bytes: [u8; 16] = fixed(bytes)?;
    let mut rest = Cursor(&bytes);
    let us = rest.array().map(i64::from_be_bytes).ok_or(SHORT)?;
    let (days, months) = (rest.i32().ok_or(SHORT)?, rest.i32().ok_or(SHORT)?);
    if matches!((months, days, us), (i32::MIN, i32::MIN, i64::MIN) | (i32::MAX, i32::MAX, i64::MAX)) {
        return Err(Bad::Infinite);
    }
    let ns = us.checked_mul(1000).ok_or_else(|| Bad::Value("an interval", "its hours are more than 292 years of nanoseconds".into()))?;
    Ok(IntervalMonthDayNano::new(months, days, ns))
}

/// A `numeric`: digits to the base of 10000, the first with the weight 10000^weight.
struct PgNumeric<'a> {
    digits: &'a [u8],
    weight: i32,
    sign: u16,
    scale: u16,
}

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const MINUS_INFINITY: u16 = 0xf000;

impl<'a> PgNumeric<'a> {
    fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        let mut rest = Cursor(bytes);
        let (count, weight) = (rest.i16().ok_or(SHORT)?, rest.i16().ok_or(SHORT)?);
        let (sign, scale) = (rest.i16().ok_or(SHORT)?.cast_unsigned(), rest.i16().ok_or(SHORT)?.cast_unsigned());
        if usize::try_from(count).ok() != Some(rest.0.len() / 2) || rest.0.len() % 2 != 0 {
            return Err(LONG);
        }
        if !matches!(sign, POSITIVE | NEGATIVE | NAN | INFINITY | MINUS_INFINITY) || scale > 0x3fff {
            return Err(Bad::Form("it is no numeric"));
        }
        let number = Self { digits: rest.0, weight: weight.into(), sign, scale };
        if number.digits().any(|digit| digit > 9999) {
            return Err(Bad::Form("it is no numeric"));
        }
        Ok(number)
    }

    fn digits(&self) -> impl Iterator<Item = u16> + '_ {
        self.digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    fn special(&self) -> Option<&'static str> {
        match self.sign {
            NAN => Some("NaN"),
            INFINITY => Some("Infinity"),
            MINUS_INFINITY => Some("-Infinity"),
            _ => None,
        }
    }

    /// As [`PgNumeric::unscaled`] for most numbers that occur, several times faster; none says nothing.
    fn unscaled_small(&self, precision: u8, scale: i8) -> Option<i128> {
        if self.special().is_some() || self.digits.len() > 16 {
            return None;
        }
        let count = i32::try_from(self.digits.len() / 2).ok()?;
        let whole = self.digits().fold(0_i128, |whole, digit| whole * 10_000 + i128::from(digit));
        let exponent = 4 * (self.weight - count + 1) + i32::from(scale);
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        let whole = if exponent >= 0 {
            whole.checked_mul(power)?
        } else if whole % power == 0 {
            whole / power
        } else {
            return None;
        };
        let fits = whole < 10_i128.checked_pow(precision.into())?;
        fits.then_some(if self.sign == NEGATIVE { -whole } else { whole })
    }

    /// The number times 10^scale, where it is whole and has no more digits than `precision`.
    fn unscaled(&self, precision: u8, scale: i8) -> Parsed<i256> {
        if let Some(special) = self.special() {
            return Err(Bad::Value(special, "a decimal has no such value".into()));
        }
        let unfit = || does_not_fit(precision, scale);
        // 76 digits and the three that the last group may have beyond the scale are 20 groups at most; leading zero groups do not occur.
        let mut whole = i256::ZERO;
        let mut count = 0_i32;
        for digit in self.digits() {
            whole =
                whole.checked_mul(i256::from_i128(10_000)).and_then(|w| w.checked_add(i256::from_i128(digit.into()))).ok_or_else(unfit)?;
            count += 1;
        }
        let exponent = 4 * (self.weight - count + 1) + i32::from(scale);
        if whole != i256::ZERO {
            let power = i256::from_i128(10).checked_pow(exponent.unsigned_abs()).ok_or_else(unfit)?;
            if exponent >= 0 {
                whole = whole.checked_mul(power).ok_or_else(unfit)?;
            } else {
                if whole.checked_rem(power) != Some(i256::ZERO) {
                    return Err(unfit());
                }
                whole = whole.checked_div(power).ok_or_else(unfit)?;
            }
        }
        let limit = i256::from_i128(10).checked_pow(precision.into()).ok_or_else(unfit)?;
        if whole >= limit {
            return Err(unfit());
        }
        Ok(if self.sign == NEGATIVE { whole.wrapping_neg() } else { whole })
    }

    /// As Postgres writes it.
    fn text(&self) -> String {
        if let Some(special) = self.special() {
            return special.to_owned();
        }
        let group = |index: i32| {
            let at = usize::try_from(index).ok().and_then(|index| self.digits.get(2 * index..2 * index + 2));
            at.map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
        };
        let mut text = String::new();
        if self.sign == NEGATIVE {
            text.push('-');
        }
        if self.weight < 0 {
            text.push('0');
        }
        for index in 0..=self.weight {
            // Writing into a String does not fail.
            _ = if index == 0 { write!(text, "{}", group(index)) } else { write!(text, "{:04}", group(index)) };
        }
        if self.scale > 0 {
            text.push('.');
            let start = text.len();
            let wanted = usize::from(self.scale);
            let mut index = self.weight + 1;
            while text.len() - start < wanted {
                _ = write!(text, "{:04}", group(index));
                index += 1;
            }
            text.truncate(start + wanted);
        }
        text
    }
}

fn does_not_fit(precision: u8, scale: i8) -> Bad {
    Bad::Value("a number", format!("decimal({precision},{scale}) does not hold it"))
}

/// Decodes one COPY stream, however it is cut into messages.
pub(super) struct Decoder {
    names: Vec<String>,
    columns: Vec<Column>,
    infinity: Infinity,
    /// What the error messages call the input.
    what: String,
    /// The start of something whose end has not arrived.
    carry: Vec<u8>,
    rows: usize,
    bytes: usize,
    started: bool,
    ended: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("what", &self.what).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Decoder {
    /// For columns of these names and kinds, in the order of the select list.
    pub(super) fn new<'a>(columns: impl IntoIterator<Item = (&'a str, &'a Kind)>, infinity: Infinity, what: impl Into<String>) -> Self {
        let (names, columns) = columns.into_iter().map(|(name, kind)| (name.to_owned(), Column::new(kind))).unzip();
        Self { names, columns, infinity, what: what.into(), carry: Vec::new(), rows: 0, bytes: 0, started: false, ended: false }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.carry.is_empty() {
            let used = self.decode(bytes)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let used = self.decode(&carry)?;
            carry.drain(..used);
            self.carry = carry;
        }
        if self.carry.len() > ROW_BYTES_MAX {
            return Err(self.broken("a row is longer than Postgres sends"));
        }
        Ok(())
    }

    /// Rows since the last batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes since the last batch.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the rows so far: their columns, and their number.
    pub(super) fn batch(&mut self) -> Result<(Vec<ArrayRef>, usize)> {
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        self.bytes = 0;
        Ok((columns, std::mem::take(&mut self.rows)))
    }

    /// Fails unless the stream was whole: header, rows, trailer, and nothing after it.
    pub(super) fn end(&self) -> Result<()> {
        if self.ended && self.carry.is_empty() { Ok(()) } else { Err(self.broken("it ends before its trailer")) }
    }

    /// Decodes what is whole, and says how many bytes that was.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut rest = Cursor(bytes);
        if !self.started {
            let Some(after) = self.header(rest)? else { return Ok(0) };
            rest = after;
            self.started = true;
        }
        loop {
            let done = bytes.len() - rest.0.len();
            if self.ended {
                return if rest.0.is_empty() { Ok(done) } else { Err(self.broken("something follows its trailer")) };
            }
            let Some(count) = rest.i16() else { return Ok(done) };
            if count == -1 {
                self.ended = true;
                continue;
            }
            if usize::try_from(count).ok() != Some(self.columns.len()) {
                return Err(self.broken("a row has another number of columns than was asked for"));
            }
            match self.row(rest)? {
                Some(after) => rest = after,
                None => return Ok(done),
            }
        }
    }

    /// What follows the header; none where it has not arrived as a whole.
    fn header<'a>(&self, mut rest: Cursor<'a>) -> Result<Option<Cursor<'a>>> {
        let known = rest.0.len().min(SIGNATURE.len());
        if rest.0[..known] != SIGNATURE[..known] {
            return Err(self.broken("it does not start as binary COPY does"));
        }
        let (Some(_), Some(flags), Some(extension)) = (rest.take(SIGNATURE.len()), rest.u32(), rest.u32()) else { return Ok(None) };
        // The upper half of the flags is what a reader must know; bit 16 would mean oids before the columns.
        if flags >> 16 != 0 || extension as usize > ROW_BYTES_MAX {
            return Err(self.broken("its header asks for something unknown"));
        }
        Ok(rest.take(extension as usize).map(|_| rest))
    }

    /// Appends one row where all of it is there, and returns what follows.
    fn row<'a>(&mut self, rest: Cursor<'a>) -> Result<Option<Cursor<'a>>> {
        // First a look whether all of it is there, so that no half row is ever appended.
        let mut look = rest;
        for _ in 0..self.columns.len() {
            let Some(length) = look.i32() else { return Ok(None) };
            match usize::try_from(length) {
                Ok(length) if length > ROW_BYTES_MAX => return Err(self.broken("a value is longer than Postgres sends")),
                Ok(length) => {
                    if look.take(length).is_none() {
                        return Ok(None);
                    }
                }
                Err(_) if length == -1 => {}
                Err(_) => return Err(self.broken("a value has a negative length")),
            }
        }
        let mut from = rest;
        for index in 0..self.columns.len() {
            let appended = match value(&mut from) {
                Ok(Some(bytes)) => self.columns[index].append(bytes, self.infinity),
                Ok(None) => {
                    self.columns[index].append_null();
                    Ok(())
                }
                Err(bad) => Err(bad),
            };
            if let Err(bad) = appended {
                return Err(self.bad(&self.names[index], bad));
            }
        }
        self.rows += 1;
        self.bytes += rest.0.len() - from.0.len();
        Ok(Some(from))
    }

    fn broken(&self, why: &str) -> Error {
        Error::system("postgres-protocol", format!("cannot read {}: what the server sent is broken: {why}", self.what)).later()
    }

    fn bad(&self, column: &str, bad: Bad) -> Error {
        let what = &self.what;
        match bad {
            Bad::Form(why) => {
                Error::system("postgres-protocol", format!("cannot read {what}: a value of column \"{column}\" is broken: {why}"))
                    .help("was the column's type changed in this moment? run again")
            }
            Bad::Value(value, why) => {
                Error::user("value-out-of-range", format!("cannot read {what}: column \"{column}\" holds {value}: {why}"))
                    .help(format!("read it as text: query = \"select …, {column}::text as {column} from …\""))
            }
            Bad::Infinite => {
                Error::user("infinity", format!("cannot read {what}: column \"{column}\" holds an infinity, which Arrow has not"))
                    .setting("infinity")
                    .help("set infinity = \"null\" to read infinities as null, or turn them into something else in a \"query\"")
            }
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
