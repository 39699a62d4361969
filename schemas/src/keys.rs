//! Which columns tell rows apart, as far as the first rows show: candidates, to be held against all rows by whoever can read them again.

use std::collections::HashSet;

/// Rows that are looked at.
pub(crate) const ROWS_MAX: usize = 65_536;
/// Columns that combinations of two are made of, and of three.
const PAIRED_MAX: usize = 16;
const TRIPLED_MAX: usize = 16;
/// Candidates that are named.
const CANDIDATES_MAX: usize = 6;

/// The values of some columns in the first rows, as hashes.
#[derive(Debug)]
pub(crate) struct Sample {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// Which column of the rows.
    index: usize,
    hashes: Vec<u64>,
}

impl Sample {
    /// A sample of no rows of these columns.
    pub(crate) fn new(indexes: impl IntoIterator<Item = usize>) -> Self {
        Self { columns: indexes.into_iter().map(|index| Column { index, hashes: Vec::new() }).collect() }
    }

    /// True where more rows of a column are wanted.
    pub(crate) fn wants(&self, index: usize) -> bool {
        self.columns.iter().any(|column| column.index == index && column.hashes.len() < ROWS_MAX)
    }

    /// Adds a column's next values.
    pub(crate) fn add(&mut self, index: usize, hashes: impl Iterator<Item = u64>) {
        if let Some(column) = self.columns.iter_mut().find(|column| column.index == index) {
            let left = ROWS_MAX.saturating_sub(column.hashes.len());
            column.hashes.extend(hashes.take(left));
        }
    }

    /// Leaves a column out: it has a null, which tells nothing apart.
    pub(crate) fn leave(&mut self, index: usize) {
        self.columns.retain(|column| column.index != index);
    }

    /// The smallest sets of columns without two equal rows in the sample: single ones, else pairs, else triples.
    pub(crate) fn candidates(&self) -> Vec<Vec<usize>> {
        let rows = self.columns.first().map_or(0, |column| column.hashes.len());
        // One row tells nothing.
        if rows < 2 {
            return vec![];
        }
        let mut found = Vec::new();
        let mut rest = Vec::new();
        for column in &self.columns {
            if distinct(rows, |row| column.hashes[row]) {
                found.push(vec![column.index]);
            } else {
                rest.push(column);
            }
        }
        if found.is_empty() {
            let paired = &rest[..rest.len().min(PAIRED_MAX)];
            for (at, first) in paired.iter().enumerate() {
                for second in &paired[at + 1..] {
                    if distinct(rows, |row| mix(first.hashes[row], second.hashes[row])) {
                        found.push(vec![first.index, second.index]);
                    }
                }
            }
        }
        if found.is_empty() {
            let tripled = &rest[..rest.len().min(TRIPLED_MAX)];
            for (at, first) in tripled.iter().enumerate() {
                for (skip, second) in tripled.iter().enumerate().skip(at + 1) {
                    for third in &tripled[skip + 1..] {
                        if distinct(rows, |row| mix(mix(first.hashes[row], second.hashes[row]), third.hashes[row])) {
                            found.push(vec![first.index, second.index, third.index]);
                        }
                    }
                }
            }
        }
        found.truncate(CANDIDATES_MAX);
        found
    }
}

fn distinct(rows: usize, of: impl Fn(usize) -> u64) -> bool {
    let mut seen = HashSet::new();
    (0..rows).all(|row| seen.insert(of(row)))
}

/// Two hashes as one, in order (the finaliser of MurmurHash3).
fn mix(first: u64, second: u64) -> u64 {
    let mut hash = first.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(columns: &[&[u64]]) -> Sample {
        let mut sample = Sample::new(0..columns.len());
        for (index, column) in columns.iter().enumerate() {
            sample.add(index, column.iter().map(|value| mix(*value, 7)));
        }
        sample
    }

    #[test]
    fn the_smallest_sets_are_named() {
        assert_eq!(sample(&[&[1, 2, 3], &[1, 1, 2], &[4, 5, 6]]).candidates(), [vec![0], vec![2]]);
        assert_eq!(sample(&[&[1, 1, 2, 2], &[1, 2, 1, 2], &[7, 7, 7, 7]]).candidates(), [vec![0, 1]]);
        let (a, b, c) = ([1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 1, 1, 2, 2], [1, 2, 1, 2, 1, 2, 1, 2]);
        assert_eq!(sample(&[&a, &b, &c]).candidates(), [vec![0, 1, 2]]);
        assert_eq!(sample(&[&[1, 1]]).candidates(), Vec::<Vec<usize>>::new());
        assert_eq!(sample(&[&[1]]).candidates(), Vec::<Vec<usize>>::new(), "one row tells nothing");
    }

    #[test]
    fn a_column_with_a_null_is_left_out() {
        let mut sample = sample(&[&[1, 2], &[1, 1]]);
        sample.leave(0);
        assert!(!sample.wants(0));
        assert_eq!(sample.candidates(), Vec::<Vec<usize>>::new());
    }
}
