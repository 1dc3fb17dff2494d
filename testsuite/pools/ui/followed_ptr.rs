//! Following a pointer that owns nothing is unsafe.
use vernal::{PBox, Ptr};

fn follow<'p>(owner: &PBox<'p, u64>) -> u64 {
    *Ptr::to(owner).get()
}

fn main() {}
