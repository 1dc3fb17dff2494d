//! One type, one pool; and bounds belong to functions.
use vernal::{PBox, Persist};

#[derive(Persist)]
#[repr(C)]
struct Two<'a, 'b> {
    a: PBox<'a, u64>,
    b: PBox<'b, u64>,
}

#[derive(Persist)]
#[repr(C)]
struct Bounded<T: Copy> {
    value: T,
}

fn main() {}
