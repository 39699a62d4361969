//! What of a query one system answers by itself: tables of a connection as they are filtered, joined and grouped there. The query as a
//! tree is `query`'s, its SQL `render`'s, the table that stands for it `table`'s, and which parts of a plan become one `rule`'s. How a
//! system writes and compares is said by its [`Dialect`].
//!
//! Sent is only what means the same there and here, to the last row:
//!
//! - filters as `pushdown` has them, of tables and of what is made from them;
//! - inner and outer joins where columns are equal, of types whose equality is the same;
//! - groups by such columns, with `count`, `count(distinct)` of such columns, `min` and `max` of integers, decimals, dates and timestamps,
//!   and `sum` of integers and decimals where the sum cannot leave its type here and there alike;
//! - the first rows by columns of ordered types, nulls where the query wants them, and limits.
//!
//! Everything else stays here: sums and averages of floats, whose last digits hang on the order of rows; the order of text, which hangs on
//! a collation; division, casts and functions, which every system has its own ideas of.

pub(crate) mod query;
mod render;
pub(crate) mod rule;
pub(crate) mod table;

use std::{fmt::Debug, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::ScalarValue,
    execution::{SendableRecordBatchStream, TaskContext},
};

pub use rule::PushDown;

use query::{Function, JoinKind};

/// How a system writes a query, which of its columns compare as ours, and how it is asked. Expressions are SQL, made by
/// [`Dialect::quoted`] and by these functions alone.
pub(crate) trait Dialect: Debug + Send + Sync + Sized + 'static {
    /// A column: how it is read, and how compared.
    type Column: Debug + Clone + Send + Sync + 'static;
    /// What a plan calls its queries.
    const QUERY: &'static str;
    /// What stands for no column at all in a list of columns.
    const NOTHING: &'static str;
    /// Every column of an answer needs a name of its own.
    const NAMED: bool;
    /// Whether what a query is sent with holds inside views too.
    const REACHES_INTO_VIEWS: bool;

    /// The connection.
    fn connection(&self) -> &str;
    /// A name as SQL.
    fn quoted(name: &str) -> String;
    /// What the column is in Arrow.
    fn data_type(column: &Self::Column) -> &DataType;
    /// What a filter compares with a value; none for a column whose comparison may mean another thing.
    fn compared(column: &Self::Column, expression: &str) -> Option<String>;
    /// A value that the column is compared with: its text, and what stands for it, the `number`-th, in SQL. None where the system has no
    /// such value.
    fn bound(column: &Self::Column, value: &ScalarValue, number: usize) -> Option<(String, String)>;
    /// What rows are grouped by, and the column that it is.
    fn grouped(column: &Self::Column, expression: &str) -> Option<(String, Self::Column)>;
    /// Whether an integer, a decimal, a date or a timestamp has the order that it has here.
    fn ordered(column: &Self::Column) -> bool;
    /// That both are equal, as it is here.
    fn joined(left: (&Self::Column, &str), right: (&Self::Column, &str)) -> Option<String>;
    /// The column of the side of an outer join that rows may lack.
    fn optional(column: &Self::Column) -> Option<Self::Column>;
    /// An aggregate, and the column that it is.
    fn aggregated(function: Function, input: Option<(&Self::Column, &str)>) -> Option<(String, Self::Column)>;
    /// The column in the form that is read.
    fn sent(column: &Self::Column, expression: &str) -> String;
    /// How a join is written.
    fn join(kind: JoinKind) -> &'static str;
    /// Asks. Dropping the stream ends the query there.
    fn rows(self: Arc<Self>, statement: Arc<Statement<Self>>, schema: SchemaRef, context: &TaskContext) -> SendableRecordBatchStream;
}

/// A query as SQL.
#[derive(Debug)]
pub(crate) struct Statement<D: Dialect> {
    pub sql: String,
    /// The values that it is given, in the order of their numbers.
    pub values: Vec<String>,
    /// The columns of its rows.
    pub columns: Vec<D::Column>,
    /// For messages: `"public.planes" of "crm"`.
    pub what: String,
    /// Whether a join in it fills rows up with nulls.
    pub is_outer: bool,
}

#[cfg(test)]
pub(crate) mod property_tests;
