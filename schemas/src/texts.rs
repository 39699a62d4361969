//! The inner loops of `judge` over texts: one question asked of every text of a column, with the answer for all rows at once. Short texts are
//! numbers, and are compared as such. What is asked, and which answer stands under a null, is `judge`'s.

use std::{collections::HashSet, sync::Mutex};

use ::arrow::{
    array::{Array, ArrowNativeTypeOp, AsArray, ByteView, GenericStringArray, OffsetSizeTrait, StringViewArray},
    buffer::{BooleanBuffer, NullBuffer},
    datatypes::DataType,
};
use multiversion::multiversion;

use crate::scan::{self, BLOCK, answers};

/// Texts of up to so many bytes are a word: the length in its highest byte, the text below.
const WORD_BYTES: usize = 7;
/// Texts of up to so many bytes are the same where their keys are.
const KEY_BYTES: usize = 32;
/// The bytes that a view holds itself.
const VIEW_BYTES: usize = 12;

/// A text of up to `WORD_BYTES`, followed by what does not belong to it.
#[inline(always)]
fn word(followed: u64, length: usize) -> u64 {
    followed & !(u64::MAX << (length.min(WORD_BYTES) * 8)) | (length.min(WORD_BYTES + 1) as u64) << 56
}

/// A text's first eight bytes, and zeros where it has fewer.
#[inline]
fn first(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let kept = text.len().min(8);
    bytes[..kept].copy_from_slice(&text[..kept]);
    u64::from_le_bytes(bytes)
}

/// What is compared in place of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    /// The first bytes, and zeros where there are fewer.
    words: [u64; KEY_BYTES / 8],
    length: u32,
}

impl Key {
    /// No text's: it has no bytes, and one.
    const NONE: Self = Self { words: [1; KEY_BYTES / 8], length: 0 };

    /// Of a text at the start of the bytes.
    #[inline(always)]
    fn of(followed: &[u8], length: usize) -> Self {
        const KEPT: [[u64; KEY_BYTES / 8]; KEY_BYTES + 1] = kept();
        let mut words = [0; KEY_BYTES / 8];
        match followed.first_chunk::<KEY_BYTES>() {
            Some(bytes) => {
                let (eights, _) = bytes.as_chunks::<8>();
                let kept = &KEPT[length.min(KEY_BYTES)];
                for at in 0..KEY_BYTES / 8 {
                    words[at] = u64::from_le_bytes(eights[at]) & kept[at];
                }
            }
            None => {
                let text = &followed[..length];
                words.iter_mut().zip(text.chunks(8)).for_each(|(word, bytes)| *word = first(bytes));
            }
        }
        Self { words, length: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    #[inline(always)]
    fn mixed(&self) -> u64 {
        let [first, second, third, fourth] = self.words;
        first ^ second.rotate_left(29) ^ third.rotate_left(17) ^ fourth.rotate_left(43) ^ u64::from(self.length).rotate_left(53)
    }
}

/// The bits of each word that belong to a text of each length.
const fn kept() -> [[u64; KEY_BYTES / 8]; KEY_BYTES + 1] {
    let mut kept = [[0; KEY_BYTES / 8]; KEY_BYTES + 1];
    let mut length = 0;
    while length <= KEY_BYTES {
        let mut byte = 0;
        while byte < length {
            kept[length][byte / 8] |= 0xff << (byte % 8 * 8);
            byte += 1;
        }
        length += 1;
    }
    kept
}

/// A column of texts, with numbers that are compared in place of short ones.
trait Texts {
    fn rows(&self) -> usize;
    /// The words of the texts from a row on, as many as there are. Of a text that is longer than a word nothing but that is told.
    fn words(&self, from: usize, words: &mut [u64; BLOCK]);
    fn key(&self, row: usize) -> Key;
    fn text(&self, row: usize) -> &str;
    /// True where the text under every row, null or not, has a length in bytes that lies within.
    fn lengths_within(&self, least: usize, most: usize) -> bool;
    /// True where no text has a byte above 127.
    fn ascii(&self) -> bool;
    /// The bytes of all texts, where each has one.
    fn letters(&self) -> Option<&[u8]>;
}

/// True where all steps from one offset to the next lie within.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn steps_within<O: OffsetSizeTrait + ArrowNativeTypeOp>(offsets: &[O], least: usize, most: usize) -> bool {
    let Some(least) = O::from_usize(least) else { return offsets.len() == 1 };
    let most = O::from_usize(most).unwrap_or(O::MAX_TOTAL_ORDER);
    let step = |pair: (&O, &O)| pair.1.sub_wrapping(*pair.0);
    offsets.iter().zip(&offsets[1..]).fold(true, |all, pair| all & step(pair).is_ge(least) & step(pair).is_le(most))
}

impl<O: OffsetSizeTrait + ArrowNativeTypeOp> Texts for GenericStringArray<O> {
    fn rows(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn words(&self, from: usize, words: &mut [u64; BLOCK]) {
        let (offsets, data) = (&self.value_offsets()[from..], self.value_data());
        for (found, (start, end)) in words.iter_mut().zip(offsets.iter().zip(&offsets[1..])) {
            let (start, end) = (start.as_usize(), end.as_usize());
            let followed = match data.get(start..start.wrapping_add(8)) {
                Some(bytes) => u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
                None => first(&data[start..end]),
            };
            *found = word(followed, end.wrapping_sub(start));
        }
    }

    #[inline(always)]
    fn key(&self, row: usize) -> Key {
        let offsets = self.value_offsets();
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        Key::of(&self.value_data()[start..], end.wrapping_sub(start))
    }

    #[inline]
    fn text(&self, row: usize) -> &str {
        self.value(row)
    }

    fn lengths_within(&self, least: usize, most: usize) -> bool {
        steps_within(self.value_offsets(), least, most)
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

    #[inline(always)]
    fn words(&self, from: usize, words: &mut [u64; BLOCK]) {
        for (found, view) in words.iter_mut().zip(&self.views()[from..]) {
            *found = word((*view >> 32) as u64, length(*view));
        }
    }

    #[inline(always)]
    fn key(&self, row: usize) -> Key {
        let view = self.views()[row];
        let length = length(view);
        if length <= VIEW_BYTES {
            let [first, second] = [(view >> 32) as u64, (view >> 96) as u64];
            return Key { words: [first, second, 0, 0], length: length as u32 };
        }
        let view = ByteView::from(view);
        Key::of(&self.data_buffers()[view.buffer_index as usize][view.offset as usize..], length)
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

/// The length in a view.
const fn length(view: u128) -> usize {
    view as u32 as usize
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
pub(crate) fn among(array: &dyn Array, choices: &HashSet<String>, memories: &Memories) -> BooleanBuffer {
    const FEW: usize = 8;
    fn few(texts: &impl Texts, choices: &HashSet<String>) -> BooleanBuffer {
        match texts.letters() {
            Some(letters) => {
                let known: Vec<u8> = choices.iter().filter(|choice| choice.len() == 1).map(|choice| choice.as_bytes()[0]).collect();
                scan::among(letters, &known)
            }
            None => words_among(texts, &choices.iter().map(|choice| word(first(choice.as_bytes()), choice.len())).collect::<Vec<_>>()),
        }
    }
    if choices.len() <= FEW && choices.iter().all(|choice| choice.len() <= WORD_BYTES) {
        return with_texts!(array, texts => few(texts, choices));
    }
    memories.lend(|memory| (memory.asked(array, |text| choices.contains(text)), true))
}

/// Which texts are one of these words.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn words_among<T: Texts>(texts: &T, known: &[u64]) -> BooleanBuffer {
    let rows = texts.rows();
    let mut words = [0; BLOCK];
    let blocks = (0..rows).step_by(BLOCK).map(|from| {
        texts.words(from, &mut words);
        scan::among_block(&words, known)
    });
    answers(blocks.collect(), rows)
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

/// Answers about texts, so that each text is asked about once, as far as there is room. Those about texts of up to `KEY_BYTES` hold for any
/// column; a longer one is known by a row of the column that is asked about.
#[derive(Debug)]
pub(crate) struct Memory {
    bits: u32,
    /// Two words a place, each with its answer in the highest bit.
    words: Vec<[u64; 2]>,
    keys: Vec<Known>,
    column: u32,
}

/// As many memories as are used side by side.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<Vec<Memory>>);

/// What was said is not taken along: some of it is about the rows of one column.
impl Clone for Memories {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Memories {
    /// Calls with a memory, and keeps it unless the call says that it is not to be trusted.
    pub(crate) fn lend<T>(&self, call: impl FnOnce(&mut Memory) -> (T, bool)) -> T {
        const BITS: u32 = 13;
        let memory = self.0.lock().ok().and_then(|mut memories| memories.pop());
        let mut memory = memory.unwrap_or_else(|| Memory::new(BITS));
        let (answer, keep) = call(&mut memory);
        if keep && let Ok(mut memories) = self.0.lock() {
            memories.push(memory);
        }
        answer
    }
}

/// A text that is no word, and the answer about it.
#[derive(Debug, Clone, Copy)]
struct Known {
    key: Key,
    /// Where it is longer than its key.
    row: u32,
    column: u32,
    answer: bool,
}

/// The highest bit of a word that is remembered: the answer.
const YES: u64 = 1 << 63;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Memory {
    /// Room for two to the power of `bits` answers about words, and as many about other texts.
    pub(crate) const fn new(bits: u32) -> Self {
        Self { bits, words: Vec::new(), keys: Vec::new(), column: 0 }
    }

    /// Asks about every text that is not null. Under a null stands any answer.
    pub(crate) fn asked(&mut self, array: &dyn Array, ask: impl FnMut(&str) -> bool) -> BooleanBuffer {
        self.column = self.column.wrapping_add(1);
        with_texts!(array, texts => match texts.lengths_within(0, WORD_BYTES) {
            true => self.of_words(texts, array.nulls(), ask),
            false => self.of_keys(texts, array.nulls(), ask),
        })
    }

    fn of_words(&mut self, texts: &impl Texts, nulls: Option<&NullBuffer>, mut ask: impl FnMut(&str) -> bool) -> BooleanBuffer {
        let shift = 65 - self.bits;
        // No text's length is 127.
        self.words.resize(1 << (self.bits - 1), [!YES; 2]);
        let look = |words: &mut Vec<[u64; 2]>, from| words_known(texts, from, words, shift);
        in_blocks(texts.rows(), nulls, &mut self.words, look, |words, row| {
            let text = texts.text(row);
            let word = word(first(text.as_bytes()), text.len());
            let place = &mut words[(word.wrapping_mul(MIX) >> shift) as usize];
            if let Some(known) = place.iter().find(|known| **known & !YES == word) {
                return known & YES != 0;
            }
            let answer = ask(text);
            *place = [word | if answer { YES } else { 0 }, place[0]];
            answer
        })
    }

    fn of_keys(&mut self, texts: &impl Texts, nulls: Option<&NullBuffer>, mut ask: impl FnMut(&str) -> bool) -> BooleanBuffer {
        let Self { bits, keys, column, .. } = self;
        let (shift, column) = (64 - *bits, *column);
        keys.resize(1 << *bits, Known { key: Key::NONE, row: 0, column: 0, answer: false });
        in_blocks(
            texts.rows(),
            nulls,
            keys,
            |keys, from| keys_known(texts, from, keys, shift),
            |keys, row| {
                let text = texts.text(row);
                let key = texts.key(row);
                let mut mixed = key.mixed();
                if text.len() > KEY_BYTES {
                    let word = |at: usize| first(&text.as_bytes()[at..]);
                    mixed = mixed.wrapping_mul(MIX) ^ word(text.len() - 8) ^ word((text.len() - 8) / 2).rotate_left(41);
                }
                let known = &mut keys[(mixed.wrapping_mul(MIX) >> shift) as usize];
                let same = || known.column == column && texts.text(known.row as usize) == text;
                if known.key == key && (text.len() <= KEY_BYTES || same()) {
                    return known.answer;
                }
                let answer = ask(text);
                if let Ok(row) = u32::try_from(row) {
                    *known = Known { key, row, column, answer };
                }
                answer
            },
        )
    }
}

/// Looks at a block of rows at once, which says of which rows the answer is known and what it is, then settles the others that are not null, row by row.
fn in_blocks<M>(
    rows: usize,
    nulls: Option<&NullBuffer>,
    memory: &mut M,
    look: impl Fn(&mut M, usize) -> (u64, u64),
    mut settle: impl FnMut(&mut M, usize) -> bool,
) -> BooleanBuffer {
    let blocks = (0..rows).step_by(BLOCK).map(|from| {
        let (mut known, mut found) = look(memory, from);
        if rows - from < BLOCK {
            known |= u64::MAX << (rows - from);
        }
        while known != u64::MAX {
            let at = known.trailing_ones() as usize;
            known |= 1 << at;
            if nulls.is_none_or(|nulls| nulls.is_valid(from + at)) {
                found = found & !(1 << at) | u64::from(settle(memory, from + at)) << at;
            }
        }
        found
    });
    answers(blocks.collect(), rows)
}

/// Which words of a block are remembered, and the answers about them.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn words_known<T: Texts>(texts: &T, from: usize, places: &[[u64; 2]], shift: u32) -> (u64, u64) {
    let (mut words, mut known, mut answers) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
    texts.words(from, &mut words);
    for at in 0..BLOCK {
        let [one, other] = places[(words[at].wrapping_mul(MIX) >> shift) as usize].map(|place| place ^ words[at]);
        // What is left of a word that is the same is its answer.
        known[at] = u8::from(one & !YES == 0) | u8::from(other & !YES == 0);
        answers[at] = u8::from(one == YES) | u8::from(other == YES);
    }
    (scan::packed(&known), scan::packed(&answers))
}

/// Which texts of a block are remembered by nothing but their keys, and the answers about them.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn keys_known<T: Texts>(texts: &T, from: usize, places: &[Known], shift: u32) -> (u64, u64) {
    let (mut known, mut answers) = ([0; BLOCK], [0; BLOCK]);
    for row in from..texts.rows().min(from + BLOCK) {
        let key = texts.key(row);
        let place = &places[(key.mixed().wrapping_mul(MIX) >> shift) as usize];
        known[row - from] = u8::from(place.key == key) & u8::from(key.length as usize <= KEY_BYTES);
        answers[row - from] = u8::from(place.answer);
    }
    (scan::packed(&known), scan::packed(&answers))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use ::arrow::array::{ArrayRef, LargeStringArray, StringArray};

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
            for at in [0, 6, 7, 8, 11, 12, 15, 16, 31, 32, 35, 46] {
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

    fn chosen(column: &dyn Array, choices: &[&str]) -> Vec<bool> {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        among(column, &choices, &Memories::default()).iter().collect()
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
                assert_eq!(chosen(&column, set), expected, "{set:?} in {}", column.data_type());
            }
        }
        let letters: Vec<String> = (0..3000).map(|at| ["A", "N", "R"][at % 3].to_owned()).collect();
        for (texts, column) in columns(&letters) {
            for set in [&["A", "N", "R"][..], &["A", "NN"], &["", "R"]] {
                let expected: Vec<bool> = texts.iter().map(|text| set.contains(&text.as_str())).collect();
                assert_eq!(chosen(&column, set), expected);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_what_was_asked() {
        let odd = |text: &str| text.bytes().map(u32::from).sum::<u32>() % 2 == 1;
        let short: Vec<String> = texts().into_iter().filter(|text| text.len() <= WORD_BYTES).cycle().take(200).collect();
        // A table of four places forgets; a large one does not.
        for bits in [2, 10] {
            let mut memory = Memory::new(bits);
            for (texts, column) in columns(&texts()).into_iter().chain(columns(&short)) {
                let asked = RefCell::new(0);
                let found = memory.asked(&column, |text| {
                    *asked.borrow_mut() += 1;
                    odd(text)
                });
                let expected: Vec<bool> = texts.iter().map(|text| odd(text)).collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", column.data_type());
                assert!(*asked.borrow() <= texts.len());
            }
        }
        for three in [["DELIVER IN PERSON", "NONE", "a text of more than thirty-two bytes"], ["EWR", "JFK", ""]] {
            let same = StringArray::from_iter_values((0..1000).map(|row| three[row % 3]));
            let mut asked = 0;
            Memory::new(10).asked(&same, |_| {
                asked += 1;
                true
            });
            assert_eq!(asked, 3);
        }
    }

    #[test]
    fn nobody_is_asked_about_what_stands_under_a_null() {
        for texts in [["a", "b"], ["a", "a text of more than thirty-two bytes"]] {
            let nulls = NullBuffer::from((0..150).map(|row| row % 3 == 0).collect::<Vec<_>>());
            let values: StringArray = (0..150).map(|row| Some(if row % 3 == 0 { texts[row % 2] } else { "nobody's" })).collect();
            let (offsets, data, _) = values.into_parts();
            let column = StringArray::new(offsets, data, Some(nulls.clone()));
            let found = Memory::new(4).asked(&column, |text| {
                assert_ne!(text, "nobody's");
                text == "a"
            });
            for row in (0..150).filter(|row| nulls.is_valid(*row)) {
                assert_eq!(found.value(row), row % 2 == 0);
            }
        }
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
    fn what_was_asked_of_one_column_is_known_of_the_next_and_long_texts_are_asked_again() {
        let long = |last: &str| format!("{}{last}", "x".repeat(40));
        let mut memory = Memory::new(4);
        let mut asked = Vec::new();
        for texts in
            [vec!["a".to_owned(), "b".to_owned(), "a".to_owned(), long("1")], vec!["b".to_owned(), "a".to_owned(), long("2"), long("1")]]
        {
            let column = StringArray::from(texts);
            let found = memory.asked(&column, |text| {
                asked.push(text.to_owned());
                text.len() == 1 || text.ends_with('1')
            });
            let wanted: Vec<bool> = column.iter().flatten().map(|text| text.len() == 1 || text.ends_with('1')).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
        }
        assert_eq!(asked.iter().filter(|text| *text == "a").count(), 1, "{asked:?}");
        assert_eq!(asked.iter().filter(|text| **text == long("1")).count(), 2, "{asked:?}");
    }
}
