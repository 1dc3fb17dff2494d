//! A type that does not say that it is persistent is not.
use vernal::Persist;

struct Plain(u64);

#[derive(Persist)]
#[repr(C)]
struct Holder {
    plain: Plain,
}

fn main() {}
