//! The inner loops of `judge`: one question asked of every number, or of every text, of a column, with the answer for all rows at once. What
//! is asked, and which answer stands under a null, is `judge`'s.

use std::collections::HashSet;

use ::arrow::{
    array::{Array, AsArray, GenericStringArray, OffsetSizeTrait, PrimitiveArray, StringViewArray},
    buffer::BooleanBuffer,
    datatypes::{ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};

/// Asks the same of every value. That all of them hold is seen without a branch, many at a time; only where one does not, bits are made.
pub(crate) fn every<T: Copy>(values: &[T], holds: impl Fn(T) -> bool) -> BooleanBuffer {
    if values.iter().fold(true, |all, value| all & holds(*value)) {
        return BooleanBuffer::new_set(values.len());
    }
    BooleanBuffer::collect_bool(values.len(), |row| holds(values[row]))
}

/// What integers may be, both ends included, asked in their own width.
pub(crate) fn within(array: &dyn Array, (least, most): (i128, i128)) -> BooleanBuffer {
    fn of<T: ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128> + Ord>>(
        array: &PrimitiveArray<T>,
        least: i128,
        most: i128,
        ends: (T::Native, T::Native),
    ) -> BooleanBuffer {
        let (low, high) = (ends.0.into(), ends.1.into());
        if least > high || most < low || least > most {
            return BooleanBuffer::new_unset(array.len());
        }
        if least <= low && most >= high {
            return BooleanBuffer::new_set(array.len());
        }
        let least = T::Native::try_from(least.max(low)).unwrap_or(ends.0);
        let most = T::Native::try_from(most.min(high)).unwrap_or(ends.1);
        every(array.values(), |value| (value >= least) & (value <= most))
    }
    if let Some(values) = array.as_primitive_opt::<Int64Type>()
        && within_small(values.values(), least, most)
    {
        return BooleanBuffer::new_set(array.len());
    }
    macro_rules! in_width {
        ($($of:ident $as:ident $native:ident),*) => {
            match array.data_type() {
                $(DataType::$of => of::<$as>(array.as_primitive(), least, most, ($native::MIN, $native::MAX)),)*
                other => unreachable!("{other} is no integer"),
            }
        };
    }
    in_width!(
        Int8 Int8Type i8, Int16 Int16Type i16, Int32 Int32Type i32, Int64 Int64Type i64,
        UInt8 UInt8Type u8, UInt16 UInt16Type u16, UInt32 UInt32Type u32, UInt64 UInt64Type u64
    )
}

/// True where all values are small and lie within. Differences of small numbers do not overflow, so their signs say it, two at a time.
fn within_small(values: &[i64], least: i128, most: i128) -> bool {
    const SMALL: i64 = 1 << 61;
    let small = |limit: i128| i64::try_from(limit.clamp((-SMALL).into(), (SMALL - 1).into())).unwrap_or(0);
    if least >= SMALL.into() || most < (-SMALL).into() {
        return false;
    }
    let (least, most) = (small(least), small(most));
    let large = |value: i64| value.wrapping_add(SMALL) & (3 << 62);
    let outside = |value: i64| value.wrapping_sub(least) | most.wrapping_sub(value);
    values.iter().fold(0, |signs, &value| signs | large(value) | (outside(value) & i64::MIN)) == 0
}

/// Which integers a divisor divides.
pub(crate) fn divided(array: &dyn Array, divisor: u64) -> BooleanBuffer {
    fn of<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, divides: impl Fn(T::Native) -> bool) -> BooleanBuffer {
        let values = array.values();
        BooleanBuffer::collect_bool(values.len(), |row| divides(values[row]))
    }
    macro_rules! in_width {
        ($($of:ident $as:ident $to:ty),*) => {
            match array.data_type() {
                $(DataType::$of => of::<$as>(array.as_primitive(), |value| <$to>::from(value).unsigned_abs() % divisor == 0),)*
                DataType::UInt8 => of::<UInt8Type>(array.as_primitive(), |value| u64::from(value) % divisor == 0),
                DataType::UInt16 => of::<UInt16Type>(array.as_primitive(), |value| u64::from(value) % divisor == 0),
                DataType::UInt32 => of::<UInt32Type>(array.as_primitive(), |value| u64::from(value) % divisor == 0),
                DataType::UInt64 => of::<UInt64Type>(array.as_primitive(), |value| value % divisor == 0),
                other => unreachable!("{other} is no integer"),
            }
        };
    }
    match divisor {
        1 => BooleanBuffer::new_set(array.len()),
        _ => in_width!(Int8 Int8Type i64, Int16 Int16Type i64, Int32 Int32Type i64, Int64 Int64Type i64),
    }
}

/// The bytes of a text that its head holds, and those that its tail does.
const HEAD_BYTES: usize = 12;
const TAIL_BYTES: usize = 16;

/// A text's length, and its first bytes above. Texts of up to `HEAD_BYTES` are the same where their heads are.
fn head_of(text: &[u8]) -> u128 {
    let first = &text[..text.len().min(HEAD_BYTES)];
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes[4..4 + first.len()].copy_from_slice(first);
    u128::from_le_bytes(bytes)
}

/// A text of less than eight bytes in one number, its length in the highest byte. Of a longer one that is eight.
fn word_of(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let first = &text[..text.len().min(7)];
    bytes[..first.len()].copy_from_slice(first);
    u64::from_le_bytes(bytes) | (text.len().min(8) as u64) << 56
}

/// The bytes behind the head's, as many as fit.
fn tail_of(text: &[u8]) -> u128 {
    let more = text.get(HEAD_BYTES..).unwrap_or_default();
    let more = &more[..more.len().min(TAIL_BYTES)];
    let mut bytes = [0; 16];
    bytes[..more.len()].copy_from_slice(more);
    u128::from_le_bytes(bytes)
}

/// The length in a head.
const fn length(head: u128) -> usize {
    head as u32 as usize
}

/// A column of texts, with numbers that are compared in place of short ones.
trait Texts {
    fn rows(&self) -> usize;
    fn word(&self, row: usize) -> u64;
    fn head(&self, row: usize) -> u128;
    fn tail(&self, row: usize) -> u128;
    fn text(&self, row: usize) -> &str;
    /// True where the text under every row, null or not, has a length in bytes that lies within.
    fn lengths_within(&self, least: usize, most: usize) -> bool;
    /// True where no text has a byte above 127.
    fn ascii(&self) -> bool;
    /// The bytes of all texts, where each has one.
    fn letters(&self) -> Option<&[u8]>;
}

impl<O: OffsetSizeTrait> Texts for GenericStringArray<O> {
    fn rows(&self) -> usize {
        self.len()
    }

    #[inline]
    fn word(&self, row: usize) -> u64 {
        let offsets = self.value_offsets();
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let length = end.wrapping_sub(start).min(8);
        match self.value_data().get(start..start.wrapping_add(8)) {
            Some(bytes) => {
                let bytes = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                bytes & !(u64::MAX << (length.min(7) * 8)) | (length as u64) << 56
            }
            None => word_of(self.value(row).as_bytes()),
        }
    }

    #[inline]
    fn head(&self, row: usize) -> u128 {
        let offsets = self.value_offsets();
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let length = end.wrapping_sub(start);
        match self.value_data().get(start..start.wrapping_add(16)) {
            // What follows the text is shifted out.
            Some(bytes) if length <= u32::MAX as usize => {
                let bytes = u128::from_le_bytes(bytes.try_into().unwrap_or_default());
                let kept = bytes & !(u128::MAX << (length.min(HEAD_BYTES) * 8));
                kept << 32 | length as u128
            }
            _ => head_of(self.value(row).as_bytes()),
        }
    }

    #[inline]
    fn tail(&self, row: usize) -> u128 {
        let offsets = self.value_offsets();
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let length = end.wrapping_sub(start).saturating_sub(HEAD_BYTES).min(TAIL_BYTES);
        let start = start.wrapping_add(HEAD_BYTES);
        match self.value_data().get(start..start.wrapping_add(16)) {
            Some(bytes) if length < TAIL_BYTES => {
                let bytes = u128::from_le_bytes(bytes.try_into().unwrap_or_default());
                bytes & !(u128::MAX << (length * 8))
            }
            Some(bytes) => u128::from_le_bytes(bytes.try_into().unwrap_or_default()),
            None => tail_of(self.value(row).as_bytes()),
        }
    }

    #[inline]
    fn text(&self, row: usize) -> &str {
        self.value(row)
    }

    fn lengths_within(&self, least: usize, most: usize) -> bool {
        let offsets = self.value_offsets();
        let length = |pair: (&O, &O)| pair.1.as_usize().wrapping_sub(pair.0.as_usize());
        offsets.iter().zip(&offsets[1..]).fold(true, |all, pair| all & (length(pair) >= least) & (length(pair) <= most))
    }

    fn ascii(&self) -> bool {
        self.is_ascii()
    }

    fn letters(&self) -> Option<&[u8]> {
        let offsets = self.value_offsets();
        let (start, end) = (offsets[0].as_usize(), offsets[self.len()].as_usize());
        (end.wrapping_sub(start) == self.len() && self.lengths_within(1, 1)).then(|| &self.value_data()[start..end])
    }
}

impl Texts for StringViewArray {
    fn rows(&self) -> usize {
        self.len()
    }

    #[inline]
    fn word(&self, row: usize) -> u64 {
        let view = self.views()[row];
        // The text stands above its length; of a longer one nothing but that is needed.
        let bytes = (view >> 32) as u64 & !(u64::MAX << (length(view).min(7) * 8));
        bytes | (length(view).min(8) as u64) << 56
    }

    #[inline]
    fn head(&self, row: usize) -> u128 {
        let view = self.views()[row];
        if length(view) <= HEAD_BYTES { view } else { head_of(self.value(row).as_bytes()) }
    }

    #[inline]
    fn tail(&self, row: usize) -> u128 {
        if length(self.views()[row]) <= HEAD_BYTES { 0 } else { tail_of(self.value(row).as_bytes()) }
    }

    #[inline]
    fn text(&self, row: usize) -> &str {
        self.value(row)
    }

    fn lengths_within(&self, least: usize, most: usize) -> bool {
        self.views().iter().fold(true, |all, view| all & (length(*view) >= least) & (length(*view) <= most))
    }

    fn ascii(&self) -> bool {
        self.is_ascii()
    }

    fn letters(&self) -> Option<&[u8]> {
        None
    }
}

macro_rules! with_texts {
    ($array:expr, $texts:ident => $do:expr) => {
        match $array.data_type() {
            DataType::Utf8 => {
                let $texts = $array.as_string::<i32>();
                $do
            }
            DataType::LargeUtf8 => {
                let $texts = $array.as_string::<i64>();
                $do
            }
            _ => {
                let $texts = $array.as_string_view();
                $do
            }
        }
    };
}

/// Which texts are among the choices.
pub(crate) fn among(array: &dyn Array, choices: &[&str]) -> BooleanBuffer {
    const FEW: usize = 8;
    if choices.len() > FEW {
        let choices: HashSet<&str> = choices.iter().copied().collect();
        return remembered(array, |_| None, |text| choices.contains(text));
    }
    fn few(texts: &impl Texts, choices: &[&str]) -> BooleanBuffer {
        if let Some(letters) = texts.letters() {
            let known: Vec<u8> = choices.iter().filter(|choice| choice.len() == 1).map(|choice| choice.as_bytes()[0]).collect();
            // Chunk by chunk and choice by choice, so that many letters are compared at once.
            let all = letters.chunks(1024).all(|letters| {
                let mut hits = [0_u8; 1024];
                for known in &known {
                    hits.iter_mut().zip(letters).for_each(|(hit, letter)| *hit |= u8::from(letter == known));
                }
                hits[..letters.len()].iter().fold(1, |all, hit| all & hit) == 1
            });
            return match all {
                true => BooleanBuffer::new_set(letters.len()),
                false => BooleanBuffer::collect_bool(letters.len(), |row| known.contains(&letters[row])),
            };
        }
        if choices.iter().all(|choice| choice.len() < 8) {
            let words: Vec<u64> = choices.iter().map(|choice| word_of(choice.as_bytes())).collect();
            return BooleanBuffer::collect_bool(texts.rows(), |row| {
                let word = texts.word(row);
                words.iter().fold(false, |any, known| any | (*known == word))
            });
        }
        let heads: Vec<u128> = choices.iter().map(|choice| head_of(choice.as_bytes())).collect();
        if choices.iter().all(|choice| choice.len() <= HEAD_BYTES) {
            return BooleanBuffer::collect_bool(texts.rows(), |row| {
                let head = texts.head(row);
                heads.iter().fold(false, |any, known| any | (*known == head))
            });
        }
        BooleanBuffer::collect_bool(texts.rows(), |row| {
            let head = texts.head(row);
            heads.iter().zip(choices).any(|(known, choice)| *known == head && *choice == texts.text(row))
        })
    }
    with_texts!(array, texts => few(texts, choices))
}

/// Which texts have from `least` to `most` code points.
pub(crate) fn lengths(array: &dyn Array, least: u64, most: u64) -> BooleanBuffer {
    fn of(texts: &impl Texts, least: u64, most: u64) -> BooleanBuffer {
        // A code point has from one to four bytes, and where all is ASCII it has one.
        let most_bytes = usize::try_from(most).unwrap_or(usize::MAX);
        let long_enough = |bytes: u64| usize::try_from(bytes).is_ok_and(|bytes| texts.lengths_within(bytes, most_bytes));
        if long_enough(least.saturating_mul(4).saturating_sub(3)) || (least > 1 && texts.ascii() && long_enough(least)) {
            return BooleanBuffer::new_set(texts.rows());
        }
        BooleanBuffer::collect_bool(texts.rows(), |row| length_within(texts.text(row), least, most))
    }
    with_texts!(array, texts => of(texts, least, most))
}

/// True of a text of from `least` to `most` code points.
fn length_within(text: &str, least: u64, most: u64) -> bool {
    let bytes = text.len() as u64;
    // A code point has from one to four bytes.
    if bytes < least || bytes.div_ceil(4) > most {
        return false;
    }
    if bytes <= most && bytes.div_ceil(4) >= least {
        return true;
    }
    (least..=most).contains(&(text.chars().count() as u64))
}

/// Asks once about each text of a column, as far as a small table remembers, unless its row is decided.
pub(crate) fn remembered(array: &dyn Array, decided: impl Fn(usize) -> Option<bool>, ask: impl FnMut(&str) -> bool) -> BooleanBuffer {
    remembered_in(&mut Memory::new(10), array, decided, ask)
}

/// Answers about texts. Those about short texts hold for any column; a long one is known by a row of the column that is asked about.
#[derive(Debug)]
pub(crate) struct Memory {
    slots: Vec<Slot>,
    bits: u32,
    column: u32,
}

/// A slot of the table: a text, by its numbers and, where it is long, by a row that has it, and the answer.
#[derive(Debug, Clone, Copy)]
struct Slot {
    head: u128,
    tail: u128,
    row: u32,
    column: u32,
    answer: bool,
}

impl Memory {
    /// Room for two to the power of `bits` answers.
    pub(crate) fn new(bits: u32) -> Self {
        // A head of all ones is no text's.
        let empty = Slot { head: u128::MAX, tail: 0, row: 0, column: 0, answer: false };
        Self { slots: vec![empty; 1 << bits], bits, column: 0 }
    }
}

/// The same, by what has been asked before.
pub(crate) fn remembered_in(
    memory: &mut Memory,
    array: &dyn Array,
    decided: impl Fn(usize) -> Option<bool>,
    ask: impl FnMut(&str) -> bool,
) -> BooleanBuffer {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    fn of(
        memory: &mut Memory,
        texts: &impl Texts,
        decided: impl Fn(usize) -> Option<bool>,
        mut ask: impl FnMut(&str) -> bool,
    ) -> BooleanBuffer {
        memory.column = memory.column.wrapping_add(1);
        let Memory { slots, bits, column } = memory;
        let (shift, column) = (64 - *bits, *column);
        BooleanBuffer::collect_bool(texts.rows(), |row| {
            if let Some(answer) = decided(row) {
                return answer;
            }
            let (head, tail) = (texts.head(row), texts.tail(row));
            let mut mixed = (head as u64) ^ ((head >> 64) as u64).rotate_left(29) ^ (tail as u64).rotate_left(17) ^ ((tail >> 64) as u64);
            let long = length(head) > HEAD_BYTES + TAIL_BYTES;
            if long {
                let bytes = texts.text(row).as_bytes();
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
                mixed = mixed.wrapping_mul(MIX) ^ word(bytes.len() - 8) ^ word((bytes.len() - 8) / 2).rotate_left(41);
            }
            let slot = &mut slots[(mixed.wrapping_mul(MIX) >> shift) as usize];
            let same = || slot.column == column && texts.text(slot.row as usize) == texts.text(row);
            if (slot.head == head) & (slot.tail == tail) && (!long || same()) {
                return slot.answer;
            }
            let answer = ask(texts.text(row));
            if let Ok(row) = u32::try_from(row) {
                *slot = Slot { head, tail, row, column, answer };
            }
            answer
        })
    }
    with_texts!(array, texts => of(memory, texts, decided, ask))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use ::arrow::array::{ArrayRef, Int8Array, Int64Array, LargeStringArray, StringArray, UInt64Array};

    use super::*;

    /// Texts of every length around those that matter, many of them twice, some alike but for one byte; each in all three layouts, and sliced.
    fn columns(texts: &[String]) -> Vec<(Vec<String>, ArrayRef)> {
        let mut columns = Vec::new();
        for (from, to) in [(0, texts.len()), (3, texts.len()), (1, texts.len() - 40), (5, 5)] {
            let kept = texts[from..to].to_vec();
            let arrays: [ArrayRef; 3] = [
                Arc::new(StringArray::from_iter_values(texts)),
                Arc::new(LargeStringArray::from_iter_values(texts)),
                Arc::new(StringViewArray::from_iter_values(texts)),
            ];
            columns.extend(arrays.map(|array| (kept.clone(), array.slice(from, to - from))));
        }
        columns
    }

    fn texts() -> Vec<String> {
        let mut texts = Vec::new();
        for length in (0..48).chain(0..48) {
            let text = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[..length].to_owned();
            texts.push(text.replace('m', "é"));
            texts.push(text.replace('a', "\0"));
            texts.push(format!("{text}\0"));
            for at in [0, 11, 12, 27, 28, 29, 35, 46] {
                if at < length {
                    let mut other = text.clone();
                    other.replace_range(at..=at, "-");
                    texts.push(other);
                }
            }
            texts.push(text);
        }
        texts
    }

    #[test]
    fn texts_are_found_among_choices_of_any_length() {
        let texts = texts();
        let sets: [&[&str]; 7] = [
            &["abcdefg", "abcdef", "é"],
            &["", "a", "abc"],
            &["abcdefghijkl", "abcdefghijk"],
            &["abcdefghijkl", "abcdefghijklm"],
            &["a\0", "\0"],
            &[],
            &["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefghijkléno", "abcdefghijk-"],
        ];
        for (texts, column) in columns(&texts) {
            for set in sets {
                let expected: Vec<bool> = texts.iter().map(|text| set.contains(&text.as_str())).collect();
                assert_eq!(among(&column, set).iter().collect::<Vec<_>>(), expected, "{set:?} in {}", column.data_type());
            }
        }
        let letters: Vec<String> = (0..3000).map(|at| ["A", "N", "R"][at % 3].to_owned()).collect();
        for (texts, column) in columns(&letters) {
            for set in [&["A", "N", "R"][..], &["A", "NN"], &["", "R"]] {
                let expected: Vec<bool> = texts.iter().map(|text| set.contains(&text.as_str())).collect();
                assert_eq!(among(&column, set).iter().collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_what_was_asked() {
        for (texts, column) in columns(&texts()) {
            let asked = RefCell::new(0);
            let odd = |text: &str| text.bytes().map(u32::from).sum::<u32>() % 2 == 1;
            let ask = |text: &str| {
                *asked.borrow_mut() += 1;
                odd(text)
            };
            let found = remembered(&column, |row| (row % 7 == 3).then_some(true), ask);
            let expected: Vec<bool> = texts.iter().enumerate().map(|(row, text)| row % 7 == 3 || odd(text)).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", column.data_type());
            assert!(*asked.borrow() <= texts.len());
        }
        let same = StringArray::from_iter_values(
            (0..1000).map(|row| ["DELIVER IN PERSON", "NONE", "a text of more than twenty-eight bytes"][row % 3]),
        );
        let mut asked = 0;
        remembered(
            &same,
            |_| None,
            |_| {
                asked += 1;
                true
            },
        );
        assert_eq!(asked, 3);
    }

    #[test]
    fn lengths_are_counted_in_code_points() {
        let ascii: Vec<String> = texts().into_iter().filter(|text| text.is_ascii()).collect();
        for (texts, column) in columns(&texts()).into_iter().chain(columns(&ascii)) {
            for (least, most) in [(0, u64::MAX), (1, 44), (5, 30), (0, 0), (48, 49), (u64::MAX, u64::MAX), (9, 3)] {
                let expected: Vec<bool> = texts.iter().map(|text| (least..=most).contains(&(text.chars().count() as u64))).collect();
                assert_eq!(lengths(&column, least, most).iter().collect::<Vec<_>>(), expected, "{least} to {most}");
            }
        }
    }

    #[test]
    fn integers_are_asked_in_their_own_width() {
        let small = [i8::MIN, -1, 0, 1, 7, i8::MAX];
        let signed = [i64::MIN, -1, 0, 1, 7, i64::MAX];
        let large = [0, 1, 7, u64::MAX - 1, u64::MAX];
        let few = [-1, 0, 1, 2, 7];
        let columns: [(ArrayRef, Vec<i128>); 4] = [
            (Arc::new(Int64Array::from_iter_values(few)), few.map(i128::from).to_vec()),
            (Arc::new(Int8Array::from_iter_values(small)), small.map(i128::from).to_vec()),
            (Arc::new(Int64Array::from_iter_values(signed)), signed.map(i128::from).to_vec()),
            (Arc::new(UInt64Array::from_iter_values(large)), large.map(i128::from).to_vec()),
        ];
        let ends = [i128::MIN, -300, -1, 0, 1, 7, 127, 128, 1 << 63, u64::MAX.into(), i128::MAX];
        for (column, values) in &columns {
            for least in ends {
                for most in ends {
                    let expected: Vec<bool> = values.iter().map(|value| (least..=most).contains(value)).collect();
                    assert_eq!(within(column, (least, most)).iter().collect::<Vec<_>>(), expected, "{least} to {most}");
                }
            }
            for divisor in [1, 2, 7, 127, 1 << 63, u64::MAX] {
                let expected: Vec<bool> = values.iter().map(|value| value % i128::from(divisor) == 0).collect();
                assert_eq!(divided(column, divisor).iter().collect::<Vec<_>>(), expected, "by {divisor}");
            }
        }
    }

    #[test]
    fn what_was_asked_of_one_column_is_known_of_the_next_and_long_texts_are_asked_again() {
        let long = |last: &str| format!("{}{last}", "x".repeat(40));
        let mut memory = Memory::new(4);
        let mut asked = Vec::new();
        for texts in
            [vec!["a".to_owned(), "b".to_owned(), "a".to_owned(), long("1")], vec!["b".to_owned(), "a".to_owned(), long("2"), long("1")]]
        {
            let column = StringArray::from(texts);
            let found = remembered_in(
                &mut memory,
                &column,
                |_| None,
                |text| {
                    asked.push(text.to_owned());
                    text.len() == 1 || text.ends_with('1')
                },
            );
            let wanted: Vec<bool> = column.iter().flatten().map(|text| text.len() == 1 || text.ends_with('1')).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
        }
        assert_eq!(asked.iter().filter(|text| *text == "a").count(), 1, "{asked:?}");
        assert_eq!(asked.iter().filter(|text| **text == long("1")).count(), 2, "{asked:?}");
    }
}
