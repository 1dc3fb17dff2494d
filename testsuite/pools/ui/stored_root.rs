//! The root of a transaction cannot be kept either.
use vernal::{Error, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root {
    number: u64,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: 0 })).unwrap();
    let mut kept = None;
    let _ = pool.tx(|_, root| {
        kept = Some(root);
        Ok::<_, Error>(())
    });
}
