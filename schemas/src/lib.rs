//! What rows look like: contracts (JSON Schema), the one table of types, and the check of Arrow batches. No TOML, no I/O.

pub mod arrow;
pub mod check;
pub mod contract;
mod document;
pub mod json;
mod judge;
mod kernel;
mod temporal;

pub use check::{Verdict, Violation};
pub use contract::{Contract, ContractError};
