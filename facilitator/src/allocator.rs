//! How the C library's allocator keeps memory.
#![allow(unsafe_code)]

/// Longer blocks than so many bytes are the kernel's again as soon as they are freed.
const KEPT_BYTES: libc::c_int = 512 << 10;

/// Has it keep no long blocks: buffers of streams and of what is read of claims, of 1 MiB and more.
///
/// With the first of them that is freed glibc would raise this bound, up to 32 MiB, and keep twice as much at the end of each
/// thread's heap (`man 3 mallopt`, `M_MMAP_THRESHOLD`): memory would grow for as long as there are threads that haven't
/// freed one yet. `docs/performance.md` has the figures.
pub fn keep_no_long_blocks() {
    // SAFETY: it takes two numbers, and runs before there are other threads. Where it refuses, all is as without it.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES) };
}
