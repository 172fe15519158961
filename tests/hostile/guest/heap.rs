//! The allocator: blocks of powers of two, each aligned to its size, so that what devices are given lies in whole pages.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

/// Blocks of 2^4 to 2^24 bytes.
const CLASSES: usize = 25;
const SMALLEST: u32 = 4;

struct State {
    next: u64,
    free: [*mut u8; CLASSES],
}

struct Heap(UnsafeCell<State>);

// SAFETY: there is one CPU, and its interrupt handlers allocate nothing.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State { next: 0, free: [ptr::null_mut(); CLASSES] }));

/// All memory from here is the heap's.
pub fn start(free: u64) {
    // SAFETY: nothing else has the state at this time.
    unsafe { (*HEAP.0.get()).next = free };
}

/// The block's size as a power of two.
fn class(layout: Layout) -> u32 {
    layout.size().max(layout.align()).next_power_of_two().trailing_zeros().max(SMALLEST)
}

// SAFETY: a block is handed out once until it is freed, has the size of its class, and lies in RAM: guests of this program have
// more of it than it ever takes.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = class(layout);
        // SAFETY: one CPU, and nothing that is called here allocates.
        let state = unsafe { &mut *self.0.get() };
        let Some(free) = state.free.get_mut(class as usize) else { return ptr::null_mut() };
        if free.is_null() {
            let start = state.next.next_multiple_of(1 << class);
            state.next = start + (1 << class);
            return start as *mut u8;
        }
        let block = *free;
        // SAFETY: a free block begins with the address of the next.
        *free = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; blocks have at least the size of an address.
        unsafe {
            let free = &mut (&mut *self.0.get()).free[class(layout) as usize];
            block.cast::<*mut u8>().write(*free);
            *free = block;
        }
    }
}
