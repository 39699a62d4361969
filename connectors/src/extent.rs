//! How much would a source read, as far as that is known before it is read? For `weir plan`; a run does not look at it.

use serde::Serialize;

use crate::incremental::CursorReader;

/// Names of files that are told.
const NAMES_MAX: usize = 3;

/// What a source would read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The files; of a source of files only.
    pub files: Option<Files>,
    /// How many rows there are to choose from.
    pub rows: Option<Rows>,
    /// Where a cursor goes on.
    pub cursor: Option<From>,
}

/// Files that would be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// How many.
    pub count: u64,
    /// Their size as stored, compressed or not.
    pub bytes: u64,
    /// The first of their names.
    pub first: Vec<String>,
    /// How many more there are that were read before and are not read again.
    pub read_before: u64,
}

/// A number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// As the files or the server count them.
    Exact(u64),
    /// As the server guesses from its last look.
    Estimated(u64),
}

/// Where a cursor goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct From {
    /// The cursor column.
    pub column: String,
    /// No row below this value is read; none where all are.
    pub value: Option<String>,
}

impl Files {
    /// Files by name and size.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, u64)>, read_before: u64) -> Self {
        let mut all = Self { read_before, ..Self::default() };
        for (name, bytes) in files {
            all.count += 1;
            all.bytes += bytes;
            if all.first.len() < NAMES_MAX {
                all.first.push(name.to_owned());
            }
        }
        all
    }
}

impl From {
    /// Where this cursor goes on.
    pub fn of(cursor: &CursorReader) -> Self {
        let value = cursor.lower().and_then(|value| {
            let value = value.to_array().ok()?;
            arrow::util::display::array_value_to_string(&value, 0).ok()
        });
        Self { column: cursor.column().to_owned(), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_and_the_first_named() {
        let files = Files::of([("a", 1), ("b", 2), ("c", 3), ("d", 4)], 5);
        assert_eq!(files, Files { count: 4, bytes: 10, first: vec!["a".into(), "b".into(), "c".into()], read_before: 5 });
    }
}
