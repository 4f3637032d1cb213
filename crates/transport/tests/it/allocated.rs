//! What a piece of work has of memory at most, to the byte: this binary's allocator counts for each thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

thread_local! {
    /// Bytes now, and the most since this was last set; of one thread, which may free what another one has allocated.
    static BYTES: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(more: isize) {
    // A thread that is ending is not looked at.
    let _ = BYTES.try_with(|bytes| {
        let (now, most) = bytes.get();
        bytes.set((now + more, most.max(now + more)));
    });
}

// SAFETY: the system's allocator does all of it, with what it is given.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: what the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: what the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: what the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Does some work of this thread, and says how many bytes it had at most.
pub(crate) async fn most_of(work: impl Future<Output = ()>) -> usize {
    let before = BYTES.with(|bytes| {
        let (now, _) = bytes.get();
        bytes.set((now, now));
        now
    });
    work.await;
    let (_, most) = BYTES.with(Cell::get);
    usize::try_from(most - before).unwrap()
}
