//! What rows look like: contracts (JSON Schema), the one table of types, and the check of Arrow batches. No TOML, no I/O.

pub mod arrow;
mod cells;
pub mod check;
pub mod contract;
pub mod coverage;
pub mod diff;
mod document;
mod fate;
pub mod field;
#[cfg(test)]
mod fuzz;
pub mod infer;
pub mod json;
mod judge;
mod kernel;
mod keys;
mod lists;
pub mod personal;
pub mod prove;
mod scan;
mod seen;
mod serving;
#[cfg(test)]
mod suite;
mod temporal;
mod texts;
#[cfg(test)]
mod typed;
pub mod version;
pub mod widen;
mod words;

pub use check::{Verdict, Violation};
pub use contract::{Contract, ContractError};
pub use version::Version;
