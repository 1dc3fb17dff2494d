//! What a transaction reads cannot leave it by reference.
use vernal::{Error, PBox, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root<'p> {
    number: Option<PBox<'p, u64>>,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: None })).unwrap();
    let escaped = pool.tx(|_, root| Ok::<_, Error>(root.number.as_ref()));
    drop(escaped);
}
