//! How things look to a person: diagnostics, errors, tables, numbers, progress. What is said is decided elsewhere.

pub mod diagnostic;
pub mod diff;
pub mod error;
pub mod expanded;
pub mod graph;
pub mod junit;
pub mod number;
pub mod progress;
pub mod rows;
pub mod sarif;
pub mod style;
pub mod summary;
pub mod table;
pub mod text;

pub use style::Style;
pub use table::Table;
