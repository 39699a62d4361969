//! How often the values of a column come again: whether a dictionary in a Parquet file pays. Asked by whoever writes one.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};

/// A column of more than one value in so many rows has no dictionary: it would take time, and room that packing saves otherwise.
const REPEATS: usize = 5;
/// Fewer rows do not tell what those behind them are like.
const FEW: usize = 4096;

/// What was seen in the first rows of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// Rows that hold a value.
    rows: usize,
    /// Different values.
    values: usize,
    /// Rows with another value than the row before.
    changes: usize,
    /// What is nested has no column of its own, and a dictionary pays where it pays for the leaves.
    nested: bool,
}

impl Repeats {
    /// Looks at rows.
    pub fn of<'a>(parts: impl Iterator<Item = &'a ArrayRef>) -> Self {
        let (mut seen, mut hashes, mut repeats) = (HashSet::new(), Vec::new(), Self { rows: 0, values: 0, changes: 0, nested: false });
        let mut last = None;
        for part in parts {
            hashes.clear();
            hashes.resize(part.len(), 0);
            if part.data_type().is_nested() || create_hashes([part], &RandomState::with_seed(0), &mut hashes).is_err() {
                return Self { nested: true, ..repeats };
            }
            for row in (0..part.len()).filter(|row| part.is_valid(*row)) {
                repeats.rows += 1;
                repeats.changes += usize::from(last != Some(hashes[row]));
                last = Some(hashes[row]);
                seen.insert(hashes[row]);
            }
        }
        Self { values: seen.len(), ..repeats }
    }

    /// Whether a dictionary pays, where the rows seen are many.
    pub fn pay(&self) -> bool {
        self.nested || self.values * REPEATS <= self.rows
    }

    /// Whether a dictionary may pay in the long run, where the rows seen are a few thousand. It does not where a value that changes is most often a new
    /// one: of values dealt at random, this many in so few rows are too many in a file; of sorted ones, no old value comes back.
    pub fn may_pay(&self) -> bool {
        self.rows < FEW || self.pay() || self.values * 4 <= self.changes * 3
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, ListArray, StringArray},
        datatypes::Int64Type,
    };

    use super::*;

    fn of(values: impl Iterator<Item = Option<i64>>) -> Repeats {
        let column: ArrayRef = Arc::new(values.collect::<Int64Array>());
        Repeats::of([column.slice(0, column.len() / 3), column.slice(column.len() / 3, column.len() - column.len() / 3)].iter())
    }

    /// Numbers dealt at random below a bound.
    fn dealt(below: i64, count: i64) -> impl Iterator<Item = Option<i64>> {
        (0..count)
            .map(move |n| Some((n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33).rem_euclid(below)))
    }

    #[test]
    fn what_is_counted_are_rows_values_and_changes() {
        let column = [Some(1), Some(1), None, Some(1), Some(2), Some(1), None];
        assert_eq!(of(column.into_iter()), Repeats { rows: 5, values: 2, changes: 3, nested: false });
    }

    #[test]
    fn a_dictionary_pays_where_values_come_again() {
        let cases = [
            ("one value", of((0..8192).map(|_| Some(7))), (true, true)),
            ("only nulls", of((0..8192).map(|_| None)), (true, true)),
            ("a few, dealt", of(dealt(50, 8192)), (true, true)),
            ("thousands, dealt: they come again later", of(dealt(2_500, 8192)), (false, true)),
            ("more than a file has use for, dealt", of(dealt(1_000_000, 8192)), (false, false)),
            ("a key", of((0..8192).map(Some)), (false, false)),
            ("a key of four rows each", of((0..8192).map(|n| Some(n / 4))), (false, false)),
            ("a day of a thousand rows each", of((0..8192).map(|n| Some(n / 1000))), (true, true)),
            ("a key, of which too little is known", of((0..1000).map(Some)), (false, true)),
        ];
        for (what, repeats, pays) in cases {
            assert_eq!((repeats.pay(), repeats.may_pay()), pays, "{what}: {repeats:?}");
        }
    }

    #[test]
    fn texts_are_looked_at_and_what_is_nested_is_not() {
        let texts: ArrayRef = Arc::new((0..8192).map(|n| Some(format!("text {n}"))).collect::<StringArray>());
        assert!(!Repeats::of([&texts].into_iter()).may_pay());
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>((0..8192).map(|n| Some([Some(n)]))));
        assert!(Repeats::of([&lists].into_iter()).pay());
    }
}
