//! The weir command, built as a binary of the test package so that the tests always run what was just compiled.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::main()
}
