//! A Bloom filter over hashes, whose bits of one key stand in one word. It asks without a branch, so that a processor fetches the words of many keys at
//! once.

use arrow::buffer::BooleanBuffer;

/// Which keys there are, and a few that there are not.
#[derive(Debug)]
pub struct Bloom(Vec<u64>);

impl Bloom {
    /// One that takes so much memory. With ten bits for each key, one in fifty others gets through; with sixteen, one in two hundred.
    pub fn new(bytes: usize) -> Self {
        Self(vec![0; (bytes / size_of::<u64>()).max(1)])
    }

    /// The word of a key, by the upper bits of its hash, and four bits in it, by the lower.
    fn place(&self, hash: u64) -> (usize, u64) {
        let word = (u128::from(hash) * self.0.len() as u128) >> 64;
        let bits = [0, 6, 12, 18].map(|from| 1 << ((hash >> from) & 63));
        (word as usize, bits[0] | bits[1] | bits[2] | bits[3])
    }

    /// Adds keys.
    pub fn insert(&mut self, hashes: &[u64]) {
        for hash in hashes {
            let (word, bits) = self.place(*hash);
            self.0[word] |= bits;
        }
    }

    /// Which of these may be among the keys.
    pub fn may_have(&self, hashes: &[u64]) -> BooleanBuffer {
        BooleanBuffer::collect_bool(hashes.len(), |row| {
            let (word, bits) = self.place(hashes[row]);
            self.0[word] & bits == bits
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::hash_utils::{RandomState, create_hashes};

    use super::*;

    /// Hashes of numbers, as joins make them.
    fn hashes(numbers: std::ops::Range<i64>) -> Vec<u64> {
        let column: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(numbers));
        let mut hashes = vec![0; column.len()];
        create_hashes([&column], &RandomState::with_seed(7), &mut hashes).expect("hashed");
        hashes
    }

    #[test]
    fn every_key_gets_through_and_few_others() {
        let (keys, others) = (hashes(0..50_000), hashes(50_000..150_000));
        for (bits, at_most) in [(10, 20), (16, 100)] {
            let mut bloom = Bloom::new(keys.len() * bits / 8);
            bloom.insert(&keys);
            assert_eq!(bloom.may_have(&keys).count_set_bits(), keys.len());
            let through = bloom.may_have(&others).count_set_bits();
            assert!(through < others.len() / at_most, "{bits} bits: {through} of {}", others.len());
        }
    }

    #[test]
    fn an_empty_one_and_one_that_is_too_small_answer() {
        let keys = hashes(0..1000);
        let mut bloom = Bloom::new(0);
        assert_eq!(bloom.may_have(&keys).count_set_bits(), 0);
        bloom.insert(&keys);
        assert_eq!(bloom.may_have(&keys).count_set_bits(), 1000);
    }
}
