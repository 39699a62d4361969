//! How a decimal is written in Postgres' binary form of `numeric`: digits to the base of ten thousand, the most significant first, aligned
//! at the decimal point and without zeros at either end; the weight of the first; the sign; how many decimal places are shown.

use arrow::datatypes::i256;

/// Digits to the base of ten thousand, the least first, being gathered.
struct Digits {
    digits: [u16; 24],
    count: usize,
}

impl Digits {
    #[inline]
    fn push(&mut self, digit: u16) {
        self.digits[self.count] = digit;
        self.count += 1;
    }

    /// All digits of a number, the most significant not zero.
    #[inline]
    fn push_all(&mut self, mut rest: u64) {
        while rest > 0 {
            self.push((rest % 10_000) as u16);
            rest /= 10_000;
        }
    }

    /// `groups` digits of a number.
    fn push_groups(&mut self, mut rest: u64, groups: usize) {
        for _ in 0..groups {
            self.push((rest % 10_000) as u16);
            rest /= 10_000;
        }
    }

    /// All digits of a long number.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of less than 64 bits, or what was found to fit")]
    fn push_long(&mut self, mut rest: u128) {
        const CHUNK: u128 = 10_000_000_000_000_000;
        while rest > u128::from(u64::MAX) {
            self.push_groups((rest % CHUNK) as u64, 4);
            rest /= CHUNK;
        }
        self.push_all(rest as u64);
    }

    /// `fraction` of the digits stand right of the point, of a number that may have fewer.
    #[inline]
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 24 digits")]
    fn finish(&self, fraction: i16, negative: bool, scale: i8, out: &mut Vec<u8>) {
        let zeros = self.digits[..self.count].iter().take_while(|digit| **digit == 0).count();
        let count = self.count - zeros;
        let weight = if count == 0 { 0 } else { self.count as i16 - 1 - fraction };
        let mut field = [0_u8; 4 + 8 + 2 * 24];
        field[..4].copy_from_slice(&(8 + 2 * count as u32).to_be_bytes());
        field[4..6].copy_from_slice(&(count as u16).to_be_bytes());
        field[6..8].copy_from_slice(&weight.to_be_bytes());
        if negative && count > 0 {
            field[8] = 0x40;
        }
        field[10..12].copy_from_slice(&i16::from(scale.max(0)).to_be_bytes());
        for (place, digit) in field[12..].chunks_exact_mut(2).zip(self.digits[zeros..self.count].iter().rev()) {
            place.copy_from_slice(&digit.to_be_bytes());
        }
        out.extend_from_slice(&field[..12 + 2 * count]);
    }
}

/// How many digits stand right of the point, and how many decimal places the least of them lacks.
#[inline]
fn places(scale: i8) -> (i16, u32) {
    let scale = i16::from(scale);
    let groups = (scale + 3).div_euclid(4);
    (groups, (groups * 4 - scale).unsigned_abs().into())
}

/// Appends a number of `scale` decimal places, with its length before it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what was found to fit 64 bits, and a digit")]
pub(super) fn put_numeric(value: u128, negative: bool, scale: i8, out: &mut Vec<u8>) {
    let (groups, lacks) = places(scale);
    let mut digits = Digits { digits: [0; 24], count: 0 };
    if value <= u128::from(u64::MAX) {
        let mut rest = value as u64;
        if lacks > 0 && rest > 0 {
            let (unit, factor) = (10_u64.pow(4 - lacks), 10_u64.pow(lacks));
            digits.push((rest % unit * factor) as u16);
            rest /= unit;
        }
        digits.push_all(rest);
    } else {
        let mut rest = value;
        if lacks > 0 {
            let (unit, factor) = (10_u128.pow(4 - lacks), 10_u128.pow(lacks));
            digits.push((rest % unit * factor) as u16);
            rest /= unit;
        }
        digits.push_long(rest);
    }
    digits.finish(groups, negative, scale, out);
}

/// The same for a number of up to 76 digits.
#[expect(clippy::cast_possible_truncation, reason = "a digit, and chunks of 16 decimal places")]
pub(super) fn put_wide(value: i256, scale: i8, out: &mut Vec<u8>) {
    if let Some(short) = value.to_i128() {
        return put_numeric(short.unsigned_abs(), short < 0, scale, out);
    }
    const CHUNK: i128 = 10_000_000_000_000_000;
    let (groups, lacks) = places(scale);
    let mut digits = Digits { digits: [0; 24], count: 0 };
    let mut rest = value.wrapping_abs();
    let cut = |rest: &mut i256, unit: i128| {
        let unit = i256::from_i128(unit);
        let low = rest.wrapping_rem(unit).as_i128();
        *rest = rest.wrapping_div(unit);
        low.unsigned_abs()
    };
    if lacks > 0 {
        let low = cut(&mut rest, 10_i128.pow(4 - lacks));
        digits.push((low * 10_u128.pow(lacks)) as u16);
    }
    while rest.to_i128().is_none() {
        let low = cut(&mut rest, CHUNK);
        digits.push_groups(low as u64, 4);
    }
    digits.push_long(rest.as_i128().unsigned_abs());
    digits.finish(groups, value.is_negative(), scale, out);
}
