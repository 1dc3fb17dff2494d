//! A box cannot be kept outside the transaction that made it: an abort would free what it owns.
use vernal::{Error, PBox, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root<'p> {
    number: Option<PBox<'p, u64>>,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: None })).unwrap();
    let mut kept = None;
    let _ = pool.tx(|tx, _| {
        kept = Some(tx.alloc(7u64)?);
        Ok::<_, Error>(())
    });
}
