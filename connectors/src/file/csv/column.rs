//! One column on its way from text to Arrow: the second of CSV's two phases, a loop per column over a strip of records.
//! Also takes single values, for NDJSON. What a text means is `values.rs`'s; where fields are, `structure.rs`'s.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, GenericStringArray, NullArray, NullBufferBuilder,
        OffsetSizeTrait, PrimitiveArray,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{infer, values};
use crate::error::{Error, Result};

/// How values are written in a file.
#[derive(Debug, Clone)]
pub struct Style {
    /// Around values; a raw value that starts with it is quoted.
    pub quote: Option<u8>,
    /// Spellings of null, for unquoted values.
    pub null: Vec<Vec<u8>>,
    /// Bit n (63 for all longer ones): there is a spelling of n bytes.
    pub null_lengths: u64,
    /// Between a number's whole part and its fraction.
    pub point: u8,
}

impl Style {
    #[inline(always)]
    fn is_null(&self, raw: &[u8]) -> bool {
        self.null_lengths >> raw.len().min(63) & 1 == 1 && self.null.iter().any(|spelt| spelt == raw)
    }

    /// The value without its quotes, null spellings aside; none for null. Text is as it was written between quotes or delimiters.
    pub fn value<'a>(&self, raw: &'a [u8]) -> Option<(Cow<'a, [u8]>, bool)> {
        if raw.is_empty() {
            return None;
        }
        match self.quote {
            Some(quote) if raw[0] == quote => Some((unquote(raw, quote), true)),
            _ if self.is_null(raw) => None,
            _ => Some((Cow::Borrowed(raw), false)),
        }
    }

    /// A value that is not text: trimmed; an unquoted one of spaces, or a null spelling among spaces, is null.
    pub fn trimmed<'a>(&self, raw: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let (value, quoted) = self.value(raw)?;
        let value = match value {
            Cow::Borrowed(value) => Cow::Borrowed(values::trim(value)),
            Cow::Owned(value) => Cow::Owned(values::trim(&value).to_vec()),
        };
        if !quoted && (value.is_empty() || self.is_null(&value)) { None } else { Some(value) }
    }
}

/// What stands between a well-formed field's quotes.
pub fn unquote(raw: &[u8], quote: u8) -> Cow<'_, [u8]> {
    let inner = &raw[1..raw.len() - 1];
    let Some(mut at) = memchr::memchr(quote, inner) else { return Cow::Borrowed(inner) };
    let mut out = Vec::with_capacity(inner.len());
    let mut from = 0;
    loop {
        out.extend_from_slice(&inner[from..=at]);
        from = at + 2;
        match inner.get(from..).and_then(|rest| memchr::memchr(quote, rest)) {
            Some(offset) => at = from + offset,
            None => break,
        }
    }
    out.extend_from_slice(inner.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// Records of a block, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Strip<'a> {
    /// The block.
    pub block: &'a [u8],
    /// Where fields start; see `Index`.
    pub starts: &'a [u32],
    /// The place in `starts` of each record's first field.
    pub rows: &'a [u32],
    /// How values are written.
    pub style: &'a Style,
    /// Whether all of it is known to be UTF-8.
    pub utf8: bool,
}

impl<'a> Strip<'a> {
    /// Where a record's field starts, and the field. `last`: it is the record's last, and may have a CR after it.
    #[inline(always)]
    pub fn raw(&self, row: u32, field: usize, last: bool) -> (usize, &'a [u8]) {
        let at = row as usize + field;
        let (start, end) = (self.starts[at] as usize, (self.starts[at + 1] as usize).wrapping_sub(1));
        let raw = &self.block[start..end];
        match raw {
            [rest @ .., b'\r'] if last => (start, rest),
            _ => (start, raw),
        }
    }
}

/// Numbers and their like.
#[derive(Debug)]
pub struct Numbers<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
}

/// Texts end to end. The buffer is longer than what is used, so that short texts can be copied 16 bytes at a time.
#[derive(Debug)]
pub struct Texts<O> {
    bytes: Vec<u8>,
    used: usize,
    offsets: Vec<O>,
    nulls: NullBufferBuilder,
}

/// A column that grows.
#[derive(Debug)]
#[allow(missing_docs, reason = "the variants are Arrow's types")]
pub enum Column {
    Null(usize),
    Boolean(BooleanBufferBuilder, NullBufferBuilder),
    Int8(Numbers<i8>),
    Int16(Numbers<i16>),
    Int32(Numbers<i32>),
    Int64(Numbers<i64>),
    UInt8(Numbers<u8>),
    UInt16(Numbers<u16>),
    UInt32(Numbers<u32>),
    UInt64(Numbers<u64>),
    Float32(Numbers<f32>),
    Float64(Numbers<f64>),
    Date(Numbers<i32>),
    Time(Numbers<i64>),
    /// Units a second has, and whether values carry a zone.
    Timestamp(Numbers<i64>, i64, bool),
    /// Precision and scale.
    Decimal(Numbers<i128>, u8, i8),
    Text(Texts<i32>),
    LargeText(Texts<i64>),
    Binary(Texts<i32>),
}

impl<T: ArrowNativeType> Numbers<T> {
    fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    #[inline(always)]
    fn push(&mut self, value: T) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    #[inline(always)]
    fn push_null(&mut self) {
        self.values.push(T::default());
        self.nulls.append_null();
    }

    #[inline(always)]
    fn put(&mut self, value: Option<T>) -> bool {
        value.inspect(|&v| self.push(v)).is_some()
    }

    /// Appends a strip's values: `fast` gets block, start and length and may decline, `slow` a trimmed value without quotes.
    /// Rows at fault hold null and are noted.
    #[expect(clippy::too_many_arguments, reason = "the hot loop, inlined into each of its few callers")]
    #[inline(always)]
    fn fill(
        &mut self,
        strip: &Strip<'_>,
        field: usize,
        last: bool,
        faults: &mut Vec<usize>,
        nullable: bool,
        fast: impl Fn(&[u8], usize, usize) -> Option<T>,
        slow: impl Fn(&[u8]) -> Option<T>,
    ) {
        self.values.reserve(strip.rows.len());
        for (i, &row) in strip.rows.iter().enumerate() {
            let (start, raw) = strip.raw(row, field, last);
            if !raw.is_empty() && !strip.style.is_null(raw) {
                if let Some(value) = fast(strip.block, start, raw.len()) {
                    self.push(value);
                    continue;
                }
                if let Some(value) = strip.style.trimmed(raw) {
                    match slow(&value) {
                        Some(value) => self.push(value),
                        None => {
                            faults.push(i);
                            self.push_null();
                        }
                    }
                    continue;
                }
            }
            if !nullable {
                faults.push(i);
            }
            self.push_null();
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn finish<P: ArrowPrimitiveType<Native = T>>(self, data_type: &DataType) -> PrimitiveArray<P> {
        PrimitiveArray::new(ScalarBuffer::from(self.values), self.nulls.build()).with_data_type(data_type.clone())
    }
}

impl<O: OffsetSizeTrait> Texts<O> {
    fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(O::usize_as(0));
        Self { bytes: Vec::new(), used: 0, offsets, nulls: NullBufferBuilder::new(rows) }
    }

    #[inline(always)]
    fn close(&mut self) {
        self.offsets.push(O::usize_as(self.used));
        self.nulls.append_non_null();
    }

    fn push_null(&mut self) {
        self.offsets.push(O::usize_as(self.used));
        self.nulls.append_null();
    }

    #[inline(never)]
    fn room(&mut self, bytes: usize) {
        self.bytes.resize((self.used + bytes).max(self.bytes.len() * 2).max(1024), 0);
    }

    fn push(&mut self, text: &[u8]) {
        if self.used + text.len() > self.bytes.len() {
            self.room(text.len());
        }
        self.bytes[self.used..self.used + text.len()].copy_from_slice(text);
        self.used += text.len();
        self.close();
    }

    /// Appends `block[start..start + len]`.
    #[inline(always)]
    fn copy(&mut self, block: &[u8], start: usize, len: usize) {
        if len <= 16
            && let Some(chunk) = block.get(start..).and_then(|rest| rest.first_chunk::<16>())
        {
            if self.bytes.len().wrapping_sub(self.used) < 16 {
                self.room(16);
            }
            if let Some(room) = self.bytes.get_mut(self.used..).and_then(|rest| rest.first_chunk_mut::<16>()) {
                *room = *chunk;
            }
            self.used = self.used.wrapping_add(len);
            self.close();
        } else {
            self.push(&block[start..start + len]);
        }
    }

    fn fill(&mut self, strip: &Strip<'_>, field: usize, last: bool, faults: &mut Vec<usize>, nullable: bool) {
        for (i, &row) in strip.rows.iter().enumerate() {
            let (start, raw) = strip.raw(row, field, last);
            if raw.is_empty() || strip.style.is_null(raw) {
                if !nullable {
                    faults.push(i);
                }
                self.push_null();
            } else if !strip.utf8 && std::str::from_utf8(raw).is_err() {
                faults.push(i);
                self.push_null();
            } else if strip.style.quote == Some(raw[0]) {
                match unquote(raw, raw[0]) {
                    Cow::Borrowed(text) => self.copy(strip.block, start + 1, text.len()),
                    Cow::Owned(text) => self.push(&text),
                }
            } else {
                self.copy(strip.block, start, raw.len());
            }
        }
    }

    fn fill_base64(&mut self, strip: &Strip<'_>, field: usize, last: bool, faults: &mut Vec<usize>, nullable: bool) {
        for (i, &row) in strip.rows.iter().enumerate() {
            let (_, raw) = strip.raw(row, field, last);
            match strip.style.trimmed(raw) {
                Some(text) => {
                    if !self.push_base64(&text) {
                        faults.push(i);
                        self.push_null();
                    }
                }
                None => {
                    if !nullable {
                        faults.push(i);
                    }
                    self.push_null();
                }
            }
        }
    }

    fn push_base64(&mut self, text: &[u8]) -> bool {
        self.bytes.truncate(self.used);
        let done = values::base64(text, &mut self.bytes).is_some();
        if done {
            self.used = self.bytes.len();
            self.close();
        }
        done
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.used = self.offsets[rows].as_usize();
        self.nulls.truncate(rows);
    }

    fn parts(mut self) -> (OffsetBuffer<O>, Buffer, Option<arrow::buffer::NullBuffer>) {
        self.bytes.truncate(self.used);
        (OffsetBuffer::new(ScalarBuffer::from(self.offsets)), Buffer::from_vec(self.bytes), self.nulls.build())
    }

    fn finish(self) -> Result<ArrayRef> {
        let (offsets, bytes, nulls) = self.parts();
        // Checks once more that it is UTF-8, which costs little in one piece and spares an unsafe promise.
        let array = GenericStringArray::<O>::try_new(offsets, bytes, nulls);
        Ok(Arc::new(array.map_err(|e| Error::weir("text-column", "a text column holds bytes that are not UTF-8").because(e))?))
    }
}

/// Does the same with whichever numbers a column holds.
macro_rules! numbers {
    ($column:expr, $n:ident => $body:expr) => {
        match $column {
            Column::Int8($n) => $body,
            Column::Int16($n) => $body,
            Column::Int32($n) => $body,
            Column::Int64($n) | Column::Time($n) | Column::Timestamp($n, ..) => $body,
            Column::UInt8($n) => $body,
            Column::UInt16($n) => $body,
            Column::UInt32($n) => $body,
            Column::UInt64($n) => $body,
            Column::Float32($n) => $body,
            Column::Float64($n) => $body,
            Column::Date($n) => $body,
            Column::Decimal($n, ..) => $body,
            Column::Null(_) | Column::Boolean(..) | Column::Text(_) | Column::LargeText(_) | Column::Binary(_) => unreachable!("numbers"),
        }
    };
}

impl Column {
    /// An empty column of a type; none for a type that text values do not make.
    pub fn new(data_type: &DataType, rows: usize) -> Option<Self> {
        Some(match data_type {
            DataType::Null => Self::Null(0),
            DataType::Boolean => Self::Boolean(BooleanBufferBuilder::new(rows), NullBufferBuilder::new(rows)),
            DataType::Int8 => Self::Int8(Numbers::new(rows)),
            DataType::Int16 => Self::Int16(Numbers::new(rows)),
            DataType::Int32 => Self::Int32(Numbers::new(rows)),
            DataType::Int64 => Self::Int64(Numbers::new(rows)),
            DataType::UInt8 => Self::UInt8(Numbers::new(rows)),
            DataType::UInt16 => Self::UInt16(Numbers::new(rows)),
            DataType::UInt32 => Self::UInt32(Numbers::new(rows)),
            DataType::UInt64 => Self::UInt64(Numbers::new(rows)),
            DataType::Float32 => Self::Float32(Numbers::new(rows)),
            DataType::Float64 => Self::Float64(Numbers::new(rows)),
            DataType::Date32 => Self::Date(Numbers::new(rows)),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Numbers::new(rows)),
            DataType::Timestamp(unit, zone) => {
                let per_second = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                Self::Timestamp(Numbers::new(rows), per_second, zone.is_some())
            }
            DataType::Decimal128(precision, scale) => Self::Decimal(Numbers::new(rows), *precision, *scale),
            DataType::Utf8 => Self::Text(Texts::new(rows)),
            DataType::LargeUtf8 => Self::LargeText(Texts::new(rows)),
            DataType::Binary => Self::Binary(Texts::new(rows)),
            _ => return None,
        })
    }

    /// Makes room for so many bytes of texts.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        match &mut self {
            Self::Text(texts) | Self::Binary(texts) => texts.bytes = vec![0; bytes],
            Self::LargeText(texts) => texts.bytes = vec![0; bytes],
            _ => {}
        }
        self
    }

    /// The bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text(texts) | Self::Binary(texts) => texts.used,
            Self::LargeText(texts) => texts.used,
            _ => 0,
        }
    }

    /// Whether it takes text as it stands, which must be UTF-8 then.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::LargeText(_))
    }

    /// Appends field `field` of every record of the strip, and notes which records (by place in the strip) hold what is no such value. An `exact`
    /// column takes just the values that `infer.rs` learns its type from: no `007`.
    pub fn fill(&mut self, strip: &Strip<'_>, field: usize, last: bool, nullable: bool, exact: bool, faults: &mut Vec<usize>) {
        let point = strip.style.point;
        /// An integer type that `i64` has room for while it is read fast.
        macro_rules! integers {
            ($n:expr, $t:ty) => {
                $n.fill(
                    strip,
                    field,
                    last,
                    faults,
                    nullable,
                    |block, start, len| values::integer_fast(block, start, len).and_then(|v| <$t>::try_from(v).ok()),
                    |text| values::integer(text).and_then(|v| <$t>::try_from(v).ok()),
                )
            };
        }
        macro_rules! floats {
            ($n:expr, $t:ty, $read:expr) => {
                $n.fill(
                    strip,
                    field,
                    last,
                    faults,
                    nullable,
                    |block, start, len| if point == b'.' { $read(block, start, len) } else { None },
                    |text| float_with::<$t>(text, point),
                )
            };
        }
        macro_rules! others {
            ($n:expr, $read:expr) => {
                $n.fill(strip, field, last, faults, nullable, |block, start, len| $read(&block[start..start + len]), $read)
            };
        }
        match self {
            Self::Int64(n) if exact => n.fill(
                strip,
                field,
                last,
                faults,
                nullable,
                |block, start, len| values::integer_fast(block, start, len).filter(|_| infer::is_plain(&block[start..start + len])),
                |text| values::integer(text).filter(|_| infer::is_integer(text)).and_then(|v| v.try_into().ok()),
            ),
            Self::Float64(n) if exact => n.fill(
                strip,
                field,
                last,
                faults,
                nullable,
                // One that is longer may be an integer that is none of 64 bits.
                |block, start, len| {
                    let text = &block[start..start + len];
                    if point != b'.' || len > 18 || !infer::is_plain(text) {
                        return None;
                    }
                    values::float_at(block, start, len)
                },
                |text| float_with(text, point).filter(|_| infer::is_number(text, point)),
            ),
            Self::Null(rows) => {
                for (i, &row) in strip.rows.iter().enumerate() {
                    if strip.style.trimmed(strip.raw(row, field, last).1).is_some() {
                        faults.push(i);
                    }
                }
                *rows += strip.rows.len();
            }
            Self::Boolean(bits, nulls) => {
                for (i, &row) in strip.rows.iter().enumerate() {
                    let text = strip.style.trimmed(strip.raw(row, field, last).1);
                    let value = text.as_deref().and_then(values::boolean);
                    bits.append(value.unwrap_or(false));
                    nulls.append(value.is_some());
                    if value.is_none() && (text.is_some() || !nullable) {
                        faults.push(i);
                    }
                }
            }
            Self::Int8(n) => integers!(n, i8),
            Self::Int16(n) => integers!(n, i16),
            Self::Int32(n) => integers!(n, i32),
            Self::Int64(n) => integers!(n, i64),
            Self::UInt8(n) => integers!(n, u8),
            Self::UInt16(n) => integers!(n, u16),
            Self::UInt32(n) => integers!(n, u32),
            Self::UInt64(n) => integers!(n, u64),
            Self::Float32(n) => floats!(n, f32, |block: &[u8], start, len| values::float(&block[start..start + len])),
            Self::Float64(n) => floats!(n, f64, values::float_at),
            Self::Date(n) => others!(n, values::date),
            Self::Time(n) => others!(n, values::time_us),
            Self::Timestamp(n, per_second, zoned) => {
                let (per_second, zoned) = (*per_second, *zoned);
                others!(n, |text: &[u8]| timestamp(text, per_second, zoned));
            }
            Self::Decimal(n, precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                let fast =
                    |block: &[u8], start, len| if point == b'.' { values::decimal_fast(block, start, len, precision, scale) } else { None };
                n.fill(strip, field, last, faults, nullable, fast, |text| values::decimal(text, precision, scale, point));
            }
            Self::Text(texts) => texts.fill(strip, field, last, faults, nullable),
            Self::LargeText(texts) => texts.fill(strip, field, last, faults, nullable),
            Self::Binary(texts) => texts.fill_base64(strip, field, last, faults, nullable),
        }
    }

    /// Appends one value given as text (a float or a decimal with a point), or says that it is none of this type.
    pub fn push(&mut self, text: &[u8]) -> bool {
        macro_rules! integer {
            ($n:expr) => {
                $n.put(values::integer(text).and_then(|v| v.try_into().ok()))
            };
        }
        match self {
            Self::Null(_) => false,
            Self::Boolean(bits, nulls) => match values::boolean(text) {
                Some(value) => {
                    bits.append(value);
                    nulls.append_non_null();
                    true
                }
                None => false,
            },
            Self::Int8(n) => integer!(n),
            Self::Int16(n) => integer!(n),
            Self::Int32(n) => integer!(n),
            Self::Int64(n) => match values::integer_fast(text, 0, text.len()) {
                Some(value) => n.put(Some(value)),
                None => integer!(n),
            },
            Self::UInt8(n) => integer!(n),
            Self::UInt16(n) => integer!(n),
            Self::UInt32(n) => integer!(n),
            Self::UInt64(n) => integer!(n),
            Self::Float32(n) => n.put(values::float(text)),
            Self::Float64(n) => n.put(values::float(text)),
            Self::Date(n) => n.put(values::date(text)),
            Self::Time(n) => n.put(values::time_us(text)),
            Self::Timestamp(n, per_second, zoned) => n.put(timestamp(text, *per_second, *zoned)),
            Self::Decimal(n, precision, scale) => n.put(values::decimal(text, *precision, *scale, b'.')),
            Self::Text(texts) => {
                texts.push(text);
                true
            }
            Self::LargeText(texts) => {
                texts.push(text);
                true
            }
            Self::Binary(texts) => texts.push_base64(text),
        }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        match self {
            Self::Null(rows) => *rows,
            Self::Boolean(bits, _) => bits.len(),
            Self::Text(texts) | Self::Binary(texts) => texts.offsets.len() - 1,
            Self::LargeText(texts) => texts.offsets.len() - 1,
            column => numbers!(column, n => n.values.len()),
        }
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        match self {
            Self::Null(rows) => *rows += 1,
            Self::Boolean(bits, nulls) => {
                bits.append(false);
                nulls.append_null();
            }
            Self::Text(texts) | Self::Binary(texts) => texts.push_null(),
            Self::LargeText(texts) => texts.push_null(),
            column => numbers!(column, n => n.push_null()),
        }
    }

    /// Forgets the rows from `rows` on.
    pub fn truncate(&mut self, rows: usize) {
        match self {
            Self::Null(n) => *n = rows.min(*n),
            Self::Boolean(bits, nulls) => {
                bits.truncate(rows);
                nulls.truncate(rows);
            }
            Self::Text(texts) | Self::Binary(texts) => texts.truncate(rows),
            Self::LargeText(texts) => texts.truncate(rows),
            column => numbers!(column, n => n.truncate(rows)),
        }
    }

    /// The column as an array of the type it was made for.
    pub fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Self::Null(rows) => Arc::new(NullArray::new(rows)),
            Self::Boolean(mut bits, nulls) => Arc::new(BooleanArray::new(bits.finish(), nulls.build())),
            Self::Int8(n) => Arc::new(n.finish::<Int8Type>(data_type)),
            Self::Int16(n) => Arc::new(n.finish::<Int16Type>(data_type)),
            Self::Int32(n) => Arc::new(n.finish::<Int32Type>(data_type)),
            Self::Int64(n) => Arc::new(n.finish::<Int64Type>(data_type)),
            Self::UInt8(n) => Arc::new(n.finish::<UInt8Type>(data_type)),
            Self::UInt16(n) => Arc::new(n.finish::<UInt16Type>(data_type)),
            Self::UInt32(n) => Arc::new(n.finish::<UInt32Type>(data_type)),
            Self::UInt64(n) => Arc::new(n.finish::<UInt64Type>(data_type)),
            Self::Float32(n) => Arc::new(n.finish::<Float32Type>(data_type)),
            Self::Float64(n) => Arc::new(n.finish::<Float64Type>(data_type)),
            Self::Date(n) => Arc::new(n.finish::<Date32Type>(data_type)),
            Self::Time(n) => Arc::new(n.finish::<Time64MicrosecondType>(data_type)),
            Self::Timestamp(n, 1, _) => Arc::new(n.finish::<TimestampSecondType>(data_type)),
            Self::Timestamp(n, 1_000, _) => Arc::new(n.finish::<TimestampMillisecondType>(data_type)),
            Self::Timestamp(n, 1_000_000, _) => Arc::new(n.finish::<TimestampMicrosecondType>(data_type)),
            Self::Timestamp(n, ..) => Arc::new(n.finish::<TimestampNanosecondType>(data_type)),
            Self::Decimal(n, ..) => Arc::new(n.finish::<Decimal128Type>(data_type)),
            Self::Text(texts) => texts.finish()?,
            Self::LargeText(texts) => texts.finish()?,
            Self::Binary(texts) => {
                let (offsets, bytes, nulls) = texts.parts();
                let array: BinaryArray = BinaryArray::new(offsets, bytes, nulls);
                Arc::new(array) as Arc<dyn Array>
            }
        })
    }
}

/// A stamp in a column's unit; zoned columns take zoned stamps, the others the others.
#[inline(always)]
fn timestamp(text: &[u8], per_second: i64, zoned: bool) -> Option<i64> {
    let stamp = values::stamp(text)?;
    if stamp.zoned == zoned { values::stamp_in(stamp, per_second) } else { None }
}

/// A float whose fraction may stand behind another sign than a point.
pub fn float_with<F: fast_float2::FastFloat + Into<f64> + Copy>(text: &[u8], point: u8) -> Option<F> {
    if point == b'.' {
        return values::float(text);
    }
    if text.contains(&b'.') {
        return None;
    }
    let pointed: Vec<u8> = text.iter().map(|&b| if b == point { b'.' } else { b }).collect();
    values::float(&pointed)
}

/// A type in the words of a reason.
pub fn expected(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => "text".into(),
        DataType::Binary => "base64".into(),
        DataType::Date32 => "date (YYYY-MM-DD)".into(),
        DataType::Time64(_) => "time (HH:MM:SS)".into(),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => "seconds",
                TimeUnit::Millisecond => "milliseconds",
                TimeUnit::Microsecond => "microseconds",
                TimeUnit::Nanosecond => "nanoseconds",
            };
            format!("timestamp {} zone, to {unit} at most", if zone.is_some() { "with" } else { "without" })
        }
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::List(_) => "array".into(),
        DataType::Struct(_) => "object".into(),
        other => other.to_string().to_lowercase(),
    }
}
