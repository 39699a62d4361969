//! A query of one system as a tree: its tables, and what is done with their rows.

use std::sync::Arc;

use super::Dialect;
use crate::pushdown::Filter;

/// Rows of a system. Columns go by their number among those of the input.
#[derive(Debug)]
pub(crate) enum Query<D: Dialect> {
    /// A table.
    Table(Table<D>),
    /// Some of the columns.
    Project(Arc<Query<D>>, Vec<usize>),
    /// The rows that a filter keeps, whose columns are called by their numbers.
    Filter(Arc<Query<D>>, Vec<Filter>),
    /// So many rows, whichever.
    Limit(Arc<Query<D>>, usize),
    /// The first rows.
    Top(Arc<Query<D>>, Vec<Order>, usize),
    /// The columns of both sides, where these are equal.
    Join { left: Arc<Query<D>>, right: Arc<Query<D>>, kind: JoinKind, on: Vec<(usize, usize)> },
    /// The keys, then the aggregates; one row where there are no keys.
    Group { input: Arc<Query<D>>, keys: Vec<usize>, aggregates: Vec<(Function, Option<usize>)> },
}

/// A table of a system.
#[derive(Debug)]
pub(crate) struct Table<D: Dialect> {
    /// What stands after `from`.
    pub from: String,
    /// For messages: `"public.planes" of "crm"`.
    pub what: String,
    /// Name and reading of each column.
    pub columns: Vec<(String, D::Column)>,
    /// Whether it is a query that the system keeps.
    pub is_view: bool,
    /// The system's estimate.
    pub rows: Option<u64>,
}

/// Which rows of a join are kept that find no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
}

/// What is made of a group's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `count(*)`
    CountRows,
    Count,
    CountDistinct,
    Sum,
    Min,
    Max,
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub column: usize,
    pub ascending: bool,
    pub nulls_first: bool,
}

impl<D: Dialect> Query<D> {
    /// Its tables, from left to right.
    pub(crate) fn tables<'a>(&'a self, found: &mut Vec<&'a Table<D>>) {
        match self {
            Query::Table(table) => found.push(table),
            Query::Project(input, _) | Query::Filter(input, _) | Query::Limit(input, _) | Query::Top(input, ..) => input.tables(found),
            Query::Group { input, .. } => input.tables(found),
            Query::Join { left, right, .. } => {
                left.tables(found);
                right.tables(found);
            }
        }
    }

    /// Whether it is the first rows of something already.
    pub(crate) fn is_top(&self) -> bool {
        match self {
            Query::Top(..) => true,
            Query::Project(input, _) => input.is_top(),
            _ => false,
        }
    }
}
