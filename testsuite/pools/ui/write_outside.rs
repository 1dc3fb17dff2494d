//! Outside of transactions the root is read-only.
use vernal::{Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root {
    number: u64,
}

fn main() {
    let pool = Pool::<Root>::open("./p", |_| Ok(Root { number: 0 })).unwrap();
    pool.root().number = 1;
}
