//! What rows look like: contracts (JSON Schema), the one table of types, and the check of Arrow batches. No TOML, no I/O.

pub mod arrow;
mod cells;
pub mod check;
pub mod contract;
pub mod diff;
mod document;
mod fate;
pub mod field;
pub mod infer;
pub mod json;
mod judge;
mod kernel;
mod keys;
pub mod prove;
mod seen;
mod temporal;
pub mod version;
mod words;

pub use check::{Verdict, Violation};
pub use contract::{Contract, ContractError};
pub use version::Version;
