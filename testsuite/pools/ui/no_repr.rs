//! A layout that the next compiler may change.
use vernal::Persist;

#[derive(Persist)]
struct Loose {
    number: u64,
}

#[derive(Persist)]
enum Kind {
    A,
    B,
}

#[derive(Persist)]
#[repr(C, packed)]
struct Packed {
    byte: u8,
    number: u64,
}

fn main() {}
