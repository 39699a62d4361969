//! The `weir` command: all of it but how it allocates memory is in the library.

use std::process::ExitCode;

/// Lets what is freed go back to the system, where it would count as the command's memory: docs/decisions/014-allocator.md.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_memory_back() {
    /// Larger pieces are mapped for themselves, and unmapped when they are freed.
    const MAPPED_BYTES: libc::c_int = 256 << 10;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: it changes settings of the C library's malloc and takes numbers alone; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(processors).unwrap_or(libc::c_int::MAX));
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_memory_back();
    weir::main()
}
