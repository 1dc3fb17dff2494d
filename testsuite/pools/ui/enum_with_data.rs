//! Which pointers an enum holds depends on its value.
use vernal::{PBox, Persist};

#[derive(Persist)]
#[repr(C, u8)]
enum Tree<'p> {
    Leaf(u64),
    Node(PBox<'p, u64>),
}

#[derive(Persist)]
#[repr(C)]
union Either {
    a: u64,
    b: f64,
}

fn main() {}
