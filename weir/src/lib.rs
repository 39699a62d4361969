//! Everything a person touches: the command, terminals, the environment, exit codes. What the words mean is the engine's.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this crate is the command: standard output is its answer, standard error its talk"
)]

pub mod cli;
pub mod project;
pub mod render;
pub mod server;
pub mod telemetry;
pub mod watch;

pub use cli::main;
