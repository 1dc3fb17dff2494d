//! Gathering for the plain commit: runs of marked lines, whole, in the process' only thread.

use super::Gather;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, compiler_fence};
use vernal_abi as abi;
use vernal_sys::RESERVE_CHUNK;

/// Clears the bytes of `count` lines in the process' only thread.
#[inline(always)]
fn clear_shadow(line: u64, count: u64) {
    let mut at = abi::shadow_addr(line);
    let end = at + count;
    // Eight at a time where there are as many: a signal handler sets a byte before or after.
    while at < end {
        if at.is_multiple_of(8) && end - at >= 8 {
            // SAFETY: the shadow of lines in mapped slots, aligned.
            unsafe { AtomicU64::from_ptr(at as *mut u64) }.store(0, Ordering::Relaxed);
            at += 8;
        } else {
            // SAFETY: as above.
            unsafe { AtomicU8::from_ptr(at as *mut u8) }
                .store(abi::SHADOW_CLEAN, Ordering::Relaxed);
            at += 1;
        }
    }
    const { assert!(abi::SHADOW_CLEAN == 0) };
}

impl Gather {
    /// [`Gather::run`] for `count` lines in one [`RESERVE_CHUNK`], in the process' only thread, whole: `false`, and nothing
    /// has happened, when they are not all lines of a mapped file whose home has blocks for them.
    #[inline(always)]
    pub fn take_plainly(
        &mut self,
        line: u64,
        count: u64,
        hint: &mut usize,
        mut stage: impl FnMut(u64, &[[u64; 8]]),
    ) -> bool {
        let end = line + count * abi::LINE_SIZE;
        let Some(e) = self.find(line, hint).and_then(|i| self.extents.get(i)) else {
            return false;
        };
        let chunk = ((line - e.base) / RESERVE_CHUNK) as usize;
        let whole = e.holds(end - 1);
        if !e.member || !whole || e.reserved.get().get(chunk).is_none_or(|r| *r == 0) {
            return false;
        }
        clear_shadow(line, count);
        // Before the lines are read: what a signal handler stores from here on is marked anew.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: mapped, aligned lines that nobody else can be writing to: there is one thread, and it is here.
        let lines = unsafe { std::slice::from_raw_parts(line as *const [u64; 8], count as usize) };
        stage(line, lines);
        true
    }
}
