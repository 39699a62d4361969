//! The `weir` command: the allocator, and nothing else that is not in the library.

use std::process::ExitCode;

/// Batches are many allocations of a few kilobytes from many threads; mimalloc is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::main()
}
