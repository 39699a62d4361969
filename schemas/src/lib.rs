//! What rows look like: contracts (JSON Schema), the one table of types, and the check of Arrow batches. No TOML, no I/O.

pub mod arrow;
pub mod check;
pub mod contract;
mod document;
#[cfg(test)]
mod fuzz;
pub mod json;
mod judge;
mod kernel;
mod lists;
mod serving;
#[cfg(test)]
mod suite;
mod temporal;
#[cfg(test)]
mod typed;

pub use check::{Verdict, Violation};
pub use contract::{Contract, ContractError};
