//! The `weir` command: all of it but how it allocates memory is in the library.

use std::process::ExitCode;

/// Lets what is freed go back to the system, as it would count as the command's memory: docs/decisions/014-allocator.md. What the environment
/// says of it has been read before, and holds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_memory_back() {
    /// Larger pieces are mapped for themselves, and unmapped when they are freed.
    const MAPPED_BYTES: libc::c_int = 256 << 10;
    /// What an arena keeps of what is free at its end: with less it is given back and asked for again for every batch.
    const KEPT_BYTES: libc::c_int = 1 << 20;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = libc::c_int::try_from(processors).unwrap_or(libc::c_int::MAX);
    for (variable, setting, value) in [
        ("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, KEPT_BYTES),
        ("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, arenas),
    ] {
        if std::env::var_os(variable).is_none() && std::env::var_os("GLIBC_TUNABLES").is_none() {
            // SAFETY: it changes a setting of the C library's malloc and takes numbers alone; no other thread runs yet.
            unsafe {
                libc::mallopt(setting, value);
            }
        }
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_memory_back();
    weir::main()
}
