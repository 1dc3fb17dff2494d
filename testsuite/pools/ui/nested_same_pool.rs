//! A second transaction on the same pool would have the root twice.
use vernal::{Error, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root {
    number: u64,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: 0 })).unwrap();
    let _ = pool.tx(|_, mut first| {
        first.number = pool.tx(|_, second| Ok::<_, Error>(second.number))?;
        Ok::<_, Error>(())
    });
}
