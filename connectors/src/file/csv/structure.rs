//! Where fields and records begin and end: the first of CSV's two phases. Values are `column.rs`'s.
//!
//! The rules. Records end at LF or CRLF; a lone CR is text. A quote opens only as the first byte of a field; inside, two quotes are one;
//! after the closing one comes a delimiter or the record's end. Anything else there, or a quote that is not closed within
//! `record_max` bytes, breaks the record, and then only its first physical line is given up: reading goes on with the next line.
//! Lines that start with the comment byte, and empty lines where a record has several fields, are no records.
//! What is a record depends on the bytes alone, never on where blocks were cut.
//!
//! Two readers of these rules: [`Structure::record`] goes field by field and knows every case; [`Structure::scan`] looks at 64 bytes at a
//! time through comparison masks (after simdcsv, Langdale and Lemire), and hands any record that is not plainly in order to the first.

use memchr::{memchr, memchr2, memrchr};

/// How fields and records are told apart.
#[derive(Debug, Clone, Copy)]
pub struct Structure {
    /// Between fields; ASCII.
    pub delimiter: u8,
    /// Around fields.
    pub quote: Option<u8>,
    /// Opens a line that is no record.
    pub comment: Option<u8>,
    /// The most bytes of a record, without its LF.
    pub record_max: usize,
    /// Fields a record has.
    pub fields: usize,
}

/// A stretch of a block, taken apart.
#[derive(Debug, Default)]
pub struct Index {
    /// Where each field starts, and in the last place where the next would; `used` of them count. A field ends one byte before the next starts.
    starts: Vec<u32>,
    used: usize,
    /// For each whole record with the right number of fields: the place in `starts` of its first field.
    pub rows: Vec<u32>,
    /// The other records.
    pub broken: Vec<Broken>,
}

impl Index {
    /// The starts of fields.
    pub fn starts(&self) -> &[u32] {
        &self.starts[..self.used]
    }

    fn begin(&mut self, at: usize) {
        self.rows.clear();
        self.broken.clear();
        self.used = 0;
        self.push(at);
    }

    fn push(&mut self, start: usize) {
        if self.starts.len() < self.used + 64 {
            self.starts.resize((self.used + 64) * 2, 0);
        }
        self.starts[self.used] = start as u32;
        self.used += 1;
    }
}

/// A record that is not in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its first byte.
    pub start: usize,
    /// Past its last byte, line ending included.
    pub end: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// So many fields instead of [`Structure::fields`].
    Fields(usize),
    /// Text after a closing quote.
    AfterQuote,
    /// No closing quote.
    Unclosed,
    /// A line longer than [`Structure::record_max`].
    TooLong,
}

/// What [`Structure::record`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A record; it ends (line ending included) here.
    Record(usize),
    /// A comment line.
    Comment(usize),
    /// A record that breaks the rules; its first line ends here.
    Broken(usize, Fault),
    /// The block ends too soon to tell.
    More,
}

impl Structure {
    /// Takes apart the record at `start`, passing to `field` where each following field starts (for the last one: past the line ending).
    /// `end`: nothing follows the block.
    pub fn record(&self, block: &[u8], start: usize, end: bool, mut field: impl FnMut(usize)) -> Found {
        if self.comment.is_some() && self.comment == block.get(start).copied() {
            return match memchr(b'\n', &block[start..]) {
                Some(at) => Found::Comment(start + at + 1),
                None if end => Found::Comment(block.len()),
                None => Found::More,
            };
        }
        // The last place where the record's LF may stand, plus one.
        let limit = start.saturating_add(self.record_max).saturating_add(1).min(block.len());
        let exhausted = limit == start.saturating_add(self.record_max).saturating_add(1);
        let mut at = start;
        loop {
            if let Some(quote) = self.quote
                && block.get(at) == Some(&quote)
            {
                let mut from = at + 1;
                let close = loop {
                    let Some(offset) = block.get(from..limit).and_then(|rest| memchr(quote, rest)) else {
                        return if end || exhausted { self.give_up(block, start, end, Fault::Unclosed) } else { Found::More };
                    };
                    let here = from + offset;
                    match block.get(here + 1) {
                        Some(&next) if next == quote => from = here + 2,
                        Some(_) => break here,
                        None if end => break here,
                        None => return Found::More,
                    }
                };
                let after = close + 1;
                match block.get(after) {
                    Some(&byte) if byte == self.delimiter => {
                        at = after + 1;
                        field(at);
                        continue;
                    }
                    Some(b'\n') if after < limit => {
                        field(after + 1);
                        return Found::Record(after + 1);
                    }
                    Some(b'\r') if after + 1 < block.len() => {
                        if block[after + 1] != b'\n' {
                            return self.give_up(block, start, end, Fault::AfterQuote);
                        }
                        if after + 1 < limit {
                            field(after + 2);
                            return Found::Record(after + 2);
                        }
                        return self.give_up(block, start, end, Fault::TooLong);
                    }
                    Some(b'\r') | None if !end => return Found::More,
                    Some(b'\r') | None => {
                        field(block.len() + 1);
                        return Found::Record(block.len());
                    }
                    Some(b'\n') => return self.give_up(block, start, end, Fault::TooLong),
                    Some(_) => return self.give_up(block, start, end, Fault::AfterQuote),
                }
            }
            match block.get(at..limit).and_then(|rest| memchr2(self.delimiter, b'\n', rest)) {
                Some(offset) => {
                    let here = at + offset;
                    field(here + 1);
                    if block[here] == b'\n' {
                        return Found::Record(here + 1);
                    }
                    at = here + 1;
                }
                None if exhausted => return self.give_up(block, start, end, Fault::TooLong),
                None if end => {
                    field(block.len() + 1);
                    return Found::Record(block.len());
                }
                None => return Found::More,
            }
        }
    }

    /// Gives up the first physical line. A line that is itself too long is that; else the fault is one of quotes.
    fn give_up(&self, block: &[u8], start: usize, end: bool, fault: Fault) -> Found {
        let line = memchr(b'\n', &block[start..]).map(|at| start + at);
        let fault = match (line.unwrap_or(block.len()) - start > self.record_max, fault) {
            (true, _) => Fault::TooLong,
            (false, Fault::TooLong) => Fault::Unclosed,
            (false, fault) => fault,
        };
        match line {
            Some(lf) => Found::Broken(lf + 1, fault),
            None if end => Found::Broken(block.len(), fault),
            None => Found::More,
        }
    }

    /// Returns how many bytes at the start of `block` are whole records, when more bytes may follow.
    pub fn whole(&self, block: &[u8]) -> usize {
        if self.quote.is_none_or(|quote| memchr(quote, block).is_none()) {
            return memrchr(b'\n', block).map_or(0, |at| at + 1);
        }
        self.walk::<false>(block, 0, usize::MAX, false, self.careful(block), &mut Index::default())
    }

    /// Whether the block must be read record by record: what a quote means in a comment, the masks cannot know.
    pub fn careful(&self, block: &[u8]) -> bool {
        self.comment.is_some() && self.quote.is_some_and(|quote| memchr(quote, block).is_some())
    }

    /// Takes apart the records from `from` until past `target`, to the block's end at most, and returns where the next record starts.
    /// The block is whole records and shorter than 4 GiB; `careful` is what [`Structure::careful`] says of it.
    pub fn index(&self, block: &[u8], from: usize, target: usize, careful: bool, index: &mut Index) -> usize {
        self.walk::<true>(block, from, target, true, careful, index)
    }

    fn walk<const INDEX: bool>(&self, block: &[u8], from: usize, target: usize, end: bool, careful: bool, index: &mut Index) -> usize {
        if careful {
            return self.walk_slowly::<INDEX>(block, from, target, end, index);
        }
        #[cfg(target_arch = "x86_64")]
        {
            if x86::fast() {
                // SAFETY: `fast` has asked the CPU for the instructions that `scan_avx2` is compiled for.
                return unsafe { x86::scan_avx2::<INDEX>(self, block, from, target, end, index) };
            }
            self.scan::<x86::Sse2, INDEX>(block, from, target, end, index)
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.scan::<Portable, INDEX>(block, from, target, end, index)
    }

    /// The rules, record by record: what `scan` must agree with.
    fn walk_slowly<const INDEX: bool>(&self, block: &[u8], from: usize, target: usize, end: bool, index: &mut Index) -> usize {
        index.begin(from);
        let mut at = from;
        while at < block.len() && (at < target || at == from) {
            match self.step::<INDEX>(block, at, end, index) {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }

    /// Takes one record slowly; none when the block ends too soon to tell.
    fn step<const INDEX: bool>(&self, block: &[u8], start: usize, end: bool, index: &mut Index) -> Option<usize> {
        let first = index.used - 1;
        let found = self.record(block, start, end, |next| {
            if INDEX {
                index.push(next);
            }
        });
        match found {
            Found::Record(next) => {
                if INDEX {
                    let text = block[start..next].strip_suffix(b"\n").unwrap_or(&block[start..next]);
                    self.take(text, start, next, first, index.used - 1 - first, index);
                }
                Some(next)
            }
            Found::Comment(next) => {
                index.used = first + 1;
                if INDEX {
                    index.push(next);
                }
                Some(next)
            }
            Found::Broken(next, fault) => {
                index.used = first + 1;
                if INDEX {
                    index.push(next);
                    index.broken.push(Broken { start, end: next, fault });
                }
                Some(next)
            }
            Found::More => {
                index.used = first + 1;
                None
            }
        }
    }

    /// Files a record under rows, broken ones or nothing. `text` is without its LF.
    #[inline(always)]
    fn take(&self, text: &[u8], start: usize, end: usize, first: usize, fields: usize, index: &mut Index) {
        if self.comment.is_some() && self.comment == text.first().copied() {
            return;
        }
        if fields == self.fields {
            index.rows.push(first as u32);
        } else if fields != 1 || !matches!(text, [] | [b'\r']) {
            index.broken.push(Broken { start, end, fault: Fault::Fields(fields) });
        }
    }

    /// The rules, 64 bytes at a time.
    #[inline(always)]
    fn scan<L: Lanes, const INDEX: bool>(&self, block: &[u8], from: usize, target: usize, end: bool, index: &mut Index) -> usize {
        index.begin(from);
        let quoting = if self.quote.is_some() { u64::MAX } else { 0 };
        let quote = self.quote.unwrap_or(0);
        // The record in hand, and the place of its first field in `index.starts`.
        let (mut record, mut first) = (from, 0usize);
        let mut at = from;
        // What the byte before `at` leaves: all ones inside quotes; one after a field's start; one after a quote.
        let (mut inside, mut after_start, mut after_quote) = (0u64, 1u64, 0u64);
        loop {
            let mut odd = false;
            while at < block.len() && (!INDEX || at < target || record == from) {
                let mut padded = [0u8; 64];
                let (chunk, live): (&[u8; 64], u64) = match block[at..].first_chunk() {
                    Some(chunk) => (chunk, u64::MAX),
                    None => {
                        let rest = &block[at..];
                        padded[..rest.len()].copy_from_slice(rest);
                        (&padded, (1u64 << rest.len()) - 1)
                    }
                };
                let lf = L::eq(chunk, b'\n') & live;
                let separators = (L::eq(chunk, self.delimiter) & live) | lf;
                let quotes = L::eq(chunk, quote) & live & quoting;
                let (mut cuts, mut ends) = (separators, lf);
                if quotes | inside != 0 {
                    let within = prefix_xor(quotes) ^ inside;
                    cuts &= !within;
                    ends &= !within;
                    let opens = quotes & within & !(((separators | quotes) << 1) | after_start | after_quote);
                    let mut closes = quotes & !within & !((separators | quotes) >> 1);
                    if closes != 0 {
                        closes &= !((L::eq(chunk, b'\r') & (lf >> 1)) >> 1);
                        if closes >> 62 != 0 {
                            closes &= !(self.closes_at_edge(block, at, closes >> 62) << 62);
                        }
                    }
                    if opens | closes != 0 {
                        let good = (1u64 << (opens | closes).trailing_zeros()) - 1;
                        cuts &= good;
                        ends &= good;
                        odd = true;
                    }
                    inside = ((within as i64) >> 63) as u64;
                }
                let before = index.used;
                if INDEX {
                    put(index, at, cuts);
                }
                while ends != 0 {
                    let bit = ends.trailing_zeros();
                    let lf_at = at + bit as usize;
                    if lf_at - record > self.record_max {
                        odd = true;
                        break;
                    }
                    if INDEX {
                        let last = before + (cuts & ((1u64 << bit) - 1)).count_ones() as usize;
                        self.take(&block[record..lf_at], record, lf_at + 1, first, last - first, index);
                        first = last;
                    }
                    record = lf_at + 1;
                    ends &= ends - 1;
                }
                if odd {
                    break;
                }
                after_start = separators >> 63;
                after_quote = quotes >> 63;
                at += 64;
            }
            // Only whole records stay. `first` is their last start, which is `record`.
            index.used = first + 1;
            if !odd && at < block.len() || record >= block.len() || (INDEX && record >= target && record > from) {
                return record;
            }
            // An odd record, or the block's last one, which has no line ending or no closing quote.
            match self.step::<INDEX>(block, record, end, index) {
                None => return record,
                Some(next) => record = next,
            }
            first = index.used - 1;
            at = record;
            (inside, after_start, after_quote) = (0, 1, 0);
        }
    }

    /// Of the closing quotes in a chunk's last two bytes, those that a field's end follows.
    #[inline(never)]
    fn closes_at_edge(&self, block: &[u8], at: usize, edge: u64) -> u64 {
        let mut fine = 0;
        for bit in 0..2 {
            let next = at + 62 + bit + 1;
            let ok = match block.get(next) {
                None => false, // the slow reader knows whether the block's end is the file's
                Some(&byte) if byte == self.delimiter || byte == b'\n' || Some(byte) == self.quote => true,
                Some(b'\r') => block.get(next + 1) == Some(&b'\n'),
                Some(_) => false,
            };
            if edge >> bit & 1 == 1 && ok {
                fine |= 1 << bit;
            }
        }
        fine
    }
}

/// Appends the field starts that a mask of separators says: eight at a time whether or not there are as many, which spares branches.
#[inline(always)]
fn put(index: &mut Index, at: usize, mut cuts: u64) {
    let count = cuts.count_ones() as usize;
    let used = index.used;
    if index.starts.len() < used + 64 {
        index.starts.resize((used + 64) * 2, 0);
    }
    let slots: &mut [u32; 64] = (&mut index.starts[used..used + 64]).try_into().expect("64 slots");
    let base = (at as u32).wrapping_add(1);
    let mut fill = |slots: &mut [u32]| {
        for slot in slots {
            *slot = base.wrapping_add(cuts.trailing_zeros());
            cuts &= cuts.wrapping_sub(1);
        }
    };
    fill(&mut slots[..8]);
    if count > 8 {
        fill(&mut slots[8..16]);
        if count > 16 {
            fill(&mut slots[16..count]);
        }
    }
    index.used = used + count;
}

/// Bit i of the result: whether an odd number of bits up to and including i are set.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Compares 64 bytes with one.
trait Lanes {
    /// Bit i: whether byte i is `byte`. Only called where the CPU has what the implementation needs.
    fn eq(chunk: &[u8; 64], byte: u8) -> u64;
}

/// For any CPU.
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "the referee of the tests; there is SSE2 on every x86-64"))]
struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn eq(chunk: &[u8; 64], byte: u8) -> u64 {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        let mut mask = 0;
        for (i, word) in chunk.as_chunks::<8>().0.iter().enumerate() {
            let v = u64::from_le_bytes(*word) ^ (u64::from(byte) * 0x0101_0101_0101_0101);
            // 0x80 in each byte that is zero, exactly; the product gathers these bits in the top byte.
            let zero = !(((v & LOW) + LOW) | v | LOW);
            mask |= ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
        }
        mask
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm256_cmpeq_epi8, _mm256_loadu_si256,
        _mm256_movemask_epi8, _mm256_set1_epi8,
    };

    use super::{Index, Lanes, Structure};

    /// Whether the CPU has what `scan_avx2` needs; asked once, then remembered by the standard library.
    #[inline]
    pub fn fast() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
    }

    /// `Structure::scan`, compiled for these instructions.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn scan_avx2<const INDEX: bool>(s: &Structure, block: &[u8], from: usize, target: usize, end: bool, index: &mut Index) -> usize {
        s.scan::<Avx2, INDEX>(block, from, target, end, index)
    }

    /// SSE2, which every x86-64 has.
    pub struct Sse2;

    impl Lanes for Sse2 {
        #[inline(always)]
        fn eq(chunk: &[u8; 64], byte: u8) -> u64 {
            let mut mask = 0u64;
            for (i, part) in chunk.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: SSE2 is part of x86-64; the load takes the 16 bytes of `part`, aligned or not.
                let bits = unsafe {
                    let bytes = _mm_loadu_si128(part.as_ptr().cast::<__m128i>());
                    _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)))
                };
                mask |= u64::from(bits as u16) << (16 * i);
            }
            mask
        }
    }

    /// AVX2; private to `scan_avx2`, which runs only where `fast` holds.
    pub(super) struct Avx2;

    impl Lanes for Avx2 {
        #[inline(always)]
        fn eq(chunk: &[u8; 64], byte: u8) -> u64 {
            let mut mask = 0u64;
            for (i, part) in chunk.as_chunks::<32>().0.iter().enumerate() {
                // SAFETY: only `scan_avx2` names this type, and `fast` held; the load takes the 32 bytes of `part`, aligned or not.
                let bits = unsafe {
                    let bytes = _mm256_loadu_si256(part.as_ptr().cast::<__m256i>());
                    _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8)))
                };
                mask |= u64::from(bits as u32) << (32 * i);
            }
            mask
        }
    }
}

#[cfg(test)]
mod tests;
