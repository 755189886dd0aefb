//! An allocator that looks through every block that is given back for bytes that should have been wiped. What was in
//! registers or on a stack alone it doesn't see.
#![allow(unsafe_code, reason = "an allocator can't be written without")]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many bytes of a secret as are looked for.
pub const PATTERN: usize = 16;

struct Scanning;

static WANTED: AtomicPtr<Vec<[u8; PATTERN]>> = AtomicPtr::new(std::ptr::null_mut());
static FOUND: AtomicUsize = AtomicUsize::new(0);
/// Tests run one at a time here: the allocator is everybody's, and what one test frees another would find.
static TURN: Mutex<()> = Mutex::new(());

pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: calls go to the system's allocator; blocks are only read before they are given back.
unsafe impl GlobalAlloc for Scanning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // What a block held before is no leak of its next owner.
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let wanted = WANTED.load(Ordering::Acquire);
        if !wanted.is_null() && layout.size() >= PATTERN {
            // SAFETY: the block is whole and was zeroed when it was given out; the patterns are never freed.
            let (block, wanted) = unsafe { (std::slice::from_raw_parts(pointer, layout.size()), &*wanted) };
            let is_there = |window: &[u8]| wanted.iter().any(|pattern| window == pattern);
            if block.windows(PATTERN).any(is_there) {
                FOUND.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Scanning = Scanning;

/// How many blocks were given back with the beginning of any of `secrets` in them while `work` ran, on any thread.
pub fn left_behind_of(secrets: &[&[u8]], work: impl FnOnce()) -> usize {
    let patterns = secrets.iter().map(|secret| secret[..PATTERN].try_into().unwrap());
    let patterns: &'static mut Vec<[u8; PATTERN]> = Box::leak(Box::new(patterns.collect()));
    FOUND.store(0, Ordering::Relaxed);
    WANTED.store(patterns, Ordering::Release);
    work();
    WANTED.store(std::ptr::null_mut(), Ordering::Release);
    FOUND.load(Ordering::Relaxed)
}
