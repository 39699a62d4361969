//! Fingerprints of rows: how they are made (SipHash-2-4 with 128 bits), counted, and written down. Which rows need one is
//! `incremental.rs`'s.

use std::collections::HashMap;

/// Of one version of one row.
pub type Fingerprint = u128;

/// The fingerprint of a row whose identity columns were encoded as `bytes`. Stable: it is written down.
pub fn of(cursor: i128, bytes: &[u8]) -> Fingerprint {
    let mut hash = SipHash::new(0x5765_6972_2063_7572, 0x736f_7220_726f_7773);
    hash.write(&cursor.to_le_bytes());
    hash.write(bytes);
    hash.finish()
}

/// SipHash-2-4 with 128 bits of output, after the reference implementation (github.com/veorq/SipHash): of the standard library's
/// hashers none promises to stay the same.
struct SipHash {
    v: [u64; 4],
    tail: u64,
    len: usize,
}

impl SipHash {
    fn new(k0: u64, k1: u64) -> Self {
        let v = [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573];
        Self { v, tail: 0, len: 0 }
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..count {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !self.len.is_multiple_of(8) || bytes.len() < 8 {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.tail |= u64::from(*first) << (8 * (self.len % 8));
            self.len += 1;
            bytes = rest;
            if self.len.is_multiple_of(8) {
                self.word(self.tail);
                self.tail = 0;
            }
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.len += words.len() * 8;
        if !rest.is_empty() {
            self.write(rest);
        }
    }

    fn finish(mut self) -> u128 {
        self.word(self.tail | (self.len as u64) << 56);
        self.v[2] ^= 0xee;
        self.rounds(4);
        let low = self.v.iter().fold(0, |all, v| all ^ v);
        self.v[1] ^= 0xdd;
        self.rounds(4);
        let high = self.v.iter().fold(0, |all, v| all ^ v);
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Rows by fingerprint: the cursor of each, and how often it occurs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fingerprints(HashMap<Fingerprint, (i128, u32)>);

impl Fingerprints {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains_key(&fingerprint)
    }

    /// How often it occurs.
    pub(super) fn times(&self, fingerprint: Fingerprint) -> u32 {
        self.0.get(&fingerprint).map_or(0, |(_, times)| *times)
    }

    /// Counts one more, and says how many there are now.
    pub(super) fn add(&mut self, fingerprint: Fingerprint, cursor: i128) -> u32 {
        let (_, times) = self.0.entry(fingerprint).or_insert((cursor, 0));
        *times = times.saturating_add(1);
        *times
    }

    /// Counts no fewer than `times`.
    pub(super) fn at_least(&mut self, fingerprint: Fingerprint, cursor: i128, times: u32) {
        let (_, have) = self.0.entry(fingerprint).or_insert((cursor, 0));
        *have = times.max(*have);
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(Fingerprint, i128) -> bool) {
        self.0.retain(|fingerprint, (cursor, _)| keep(*fingerprint, *cursor));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Fingerprint, i128, u32)> {
        self.0.iter().map(|(fingerprint, (cursor, times))| (*fingerprint, *cursor, *times))
    }

    /// As text: for each row, in the order of cursors, how far its cursor lies above the one before, its fingerprint and its count.
    pub(super) fn encode(&self) -> String {
        let mut rows: Vec<_> = self.iter().map(|(fingerprint, cursor, times)| (cursor, fingerprint, times)).collect();
        rows.sort_unstable();
        let mut bytes = Vec::with_capacity(16 + rows.len() * 19);
        let mut last = rows.first().map_or(0, |(cursor, _, _)| *cursor);
        bytes.extend(last.to_le_bytes());
        for (cursor, fingerprint, times) in rows {
            put_number(cursor.wrapping_sub(last).cast_unsigned(), &mut bytes);
            last = cursor;
            bytes.extend(fingerprint.to_le_bytes());
            put_number(u128::from(times), &mut bytes);
        }
        to_base64(&bytes)
    }

    /// Reads what [`Fingerprints::encode`] wrote; none where it did not.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = from_base64(text)?;
        let (first, mut bytes) = bytes.split_first_chunk::<16>()?;
        let mut cursor = i128::from_le_bytes(*first);
        let mut rows = HashMap::new();
        while !bytes.is_empty() {
            cursor = cursor.wrapping_add(take_number(&mut bytes)?.cast_signed());
            let (fingerprint, rest) = bytes.split_first_chunk::<16>()?;
            bytes = rest;
            let times = u32::try_from(take_number(&mut bytes)?).ok()?;
            rows.insert(u128::from_le_bytes(*fingerprint), (cursor, times));
        }
        Some(Self(rows))
    }
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn put_number(mut number: u128, bytes: &mut Vec<u8>) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0;
    for shift in (0..128).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base 64 for URLs, unpadded (RFC 4648, section 5).
fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * place) & 0x3f) as usize]));
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for byte in chunk {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(six);
        }
        group <<= 6 * (4 - chunk.len());
        bytes.extend(&group.to_be_bytes()[1..=(chunk.len().checked_sub(1)?).min(3)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_siphash_of_128_bits() {
        let hash = |len: u8| {
            let mut hash = SipHash::new(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
            (0..len).for_each(|byte| hash.write(&[byte]));
            hash.finish().to_le_bytes()
        };
        // The first two of the reference's vectors.
        assert_eq!(hash(0), [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93]);
        assert_eq!(hash(1), [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45]);
    }

    #[test]
    fn damage_is_noticed() {
        for text in ["", "!", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(Fingerprints::decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_hash_alike_however_they_arrive(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0..80_usize) {
            let whole = of(7, &bytes);
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let mut hash = SipHash::new(0x5765_6972_2063_7572, 0x736f_7220_726f_7773);
            hash.write(&7_i128.to_le_bytes());
            hash.write(left);
            hash.write(right);
            prop_assert_eq!(hash.finish(), whole);
        }

        #[test]
        fn what_is_written_down_is_read_back(rows in proptest::collection::hash_map(any::<u128>(), (any::<i128>(), 1..1000_u32), 0..50)) {
            let fingerprints = Fingerprints(rows);
            prop_assert_eq!(Fingerprints::decode(&fingerprints.encode()), Some(fingerprints));
        }
    }
}
