//! The inner loops of `judge` over numbers: one question asked of every value of a column, with the answer for all rows at once. What is asked,
//! and which answer stands under a null, is `judge`'s. The same for texts is `texts`.

use std::collections::HashSet;

use ::arrow::{
    array::{Array, ArrowNativeTypeOp, AsArray, PrimitiveArray},
    buffer::{BooleanBuffer, Buffer},
    datatypes::{ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use multiversion::multiversion;

/// So many rows are looked at together: as many as a word has bits.
pub(crate) const BLOCK: usize = 64;

/// Answers, each 0 or 1, as bits: what is multiplied moves the lowest bits of eight bytes next to each other.
#[inline(always)]
pub(crate) fn packed(answers: &[u8; BLOCK]) -> u64 {
    let (eights, _) = answers.as_chunks::<8>();
    let bits = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().enumerate().fold(0, |word, (at, eight)| word | bits(eight) << (8 * at))
}

/// The answers about so many rows, from words of bits.
pub(crate) fn answers(words: Vec<u64>, count: usize) -> BooleanBuffer {
    BooleanBuffer::new(Buffer::from_vec(words), 0, count)
}

/// Asks the same of every value, without a branch.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
pub(crate) fn every<T: Copy, F: Fn(T) -> bool>(values: &[T], holds: F) -> BooleanBuffer {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    let mut words = Vec::with_capacity(blocks.len() + 1);
    let mut found = [0; BLOCK];
    for block in blocks {
        found.iter_mut().zip(block).for_each(|(found, value)| *found = u8::from(holds(*value)));
        words.push(packed(&found));
    }
    found.fill(0);
    found.iter_mut().zip(rest).for_each(|(found, value)| *found = u8::from(holds(*value)));
    words.push(packed(&found));
    answers(words, values.len())
}

/// Which values are among a few.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
pub(crate) fn among<T: Copy + PartialEq>(values: &[T], few: &[T]) -> BooleanBuffer {
    let words = values.chunks(BLOCK).map(|block| among_block(block, few)).collect();
    answers(words, values.len())
}

/// Which values of a block are among a few: the block is gone through once for each, so that many values are compared at once.
#[inline(always)]
pub(crate) fn among_block<T: Copy + PartialEq>(block: &[T], few: &[T]) -> u64 {
    let mut found = [0; BLOCK];
    for one in few {
        found.iter_mut().zip(block).for_each(|(found, value)| *found |= u8::from(value == one));
    }
    packed(&found)
}

macro_rules! with_integers {
    ($array:expr, $integers:ident => $do:expr) => {
        match $array.data_type() {
            DataType::Int8 => with_integers!(@ $array, Int8Type, $integers => $do),
            DataType::Int16 => with_integers!(@ $array, Int16Type, $integers => $do),
            DataType::Int32 => with_integers!(@ $array, Int32Type, $integers => $do),
            DataType::Int64 => with_integers!(@ $array, Int64Type, $integers => $do),
            DataType::UInt8 => with_integers!(@ $array, UInt8Type, $integers => $do),
            DataType::UInt16 => with_integers!(@ $array, UInt16Type, $integers => $do),
            DataType::UInt32 => with_integers!(@ $array, UInt32Type, $integers => $do),
            DataType::UInt64 => with_integers!(@ $array, UInt64Type, $integers => $do),
            other => unreachable!("{other} is no integer"),
        }
    };
    (@ $array:expr, $of:ident, $integers:ident => $do:expr) => {{
        let $integers: &PrimitiveArray<$of> = $array.as_primitive();
        $do
    }};
}

/// A width of integers.
trait Integer: ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128> + Ord> {}

impl<T: ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128> + Ord>> Integer for T {}

/// What integers may be, both ends included, asked in their own width.
pub(crate) fn within(array: &dyn Array, (least, most): (i128, i128)) -> BooleanBuffer {
    fn of<T: Integer>(array: &PrimitiveArray<T>, least: i128, most: i128) -> BooleanBuffer {
        let (lowest, highest) = (T::Native::MIN_TOTAL_ORDER, T::Native::MAX_TOTAL_ORDER);
        let (low, high) = (lowest.into(), highest.into());
        if least > high || most < low || least > most {
            return BooleanBuffer::new_unset(array.len());
        }
        if least <= low && most >= high {
            return BooleanBuffer::new_set(array.len());
        }
        let least = T::Native::try_from(least.max(low)).unwrap_or(lowest);
        let most = T::Native::try_from(most.min(high)).unwrap_or(highest);
        every(array.values(), |value| (value >= least) & (value <= most))
    }
    with_integers!(array, integers => of(integers, least, most))
}

/// Which integers are among these.
pub(crate) fn whole(array: &dyn Array, choices: &HashSet<i128>) -> BooleanBuffer {
    const FEW: usize = 16;
    fn of<T: Integer>(array: &PrimitiveArray<T>, choices: &HashSet<i128>) -> BooleanBuffer {
        let values = array.values();
        let mut few: Vec<T::Native> = choices.iter().filter_map(|choice| T::Native::try_from(*choice).ok()).collect();
        if few.len() <= FEW {
            return among(values, &few);
        }
        few.sort_unstable();
        BooleanBuffer::collect_bool(values.len(), |row| few.binary_search(&values[row]).is_ok())
    }
    with_integers!(array, integers => of(integers, choices))
}

/// Which integers a divisor divides.
pub(crate) fn divided(array: &dyn Array, divisor: u64) -> BooleanBuffer {
    fn of<T: Integer>(array: &PrimitiveArray<T>, divisor: u64) -> BooleanBuffer {
        let divides = |value: T::Native| u64::try_from(value.into().unsigned_abs()).is_ok_and(|value| value % divisor == 0);
        every(array.values(), divides)
    }
    match divisor {
        1 => BooleanBuffer::new_set(array.len()),
        _ => with_integers!(array, integers => of(integers, divisor)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::arrow::array::{ArrayRef, Int8Array, Int64Array, UInt64Array};

    use super::*;

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
    fn answers_are_packed_row_by_row_whatever_their_number() {
        for count in [0, 1, 7, 8, 63, 64, 65, 127, 128, 200] {
            let values: Vec<u32> = (0..count).map(|row| row * 7919 % 11).collect();
            let expected = |holds: &dyn Fn(u32) -> bool| values.iter().map(|value| holds(*value)).collect::<Vec<_>>();
            assert_eq!(every(&values, |value| value > 4).iter().collect::<Vec<_>>(), expected(&|value| value > 4));
            assert_eq!(among(&values, &[3, 9]).iter().collect::<Vec<_>>(), expected(&|value| matches!(value, 3 | 9)));
            assert_eq!(among(&values, &[]).count_set_bits(), 0);
        }
    }
}
