//! An object of one pool cannot be put into another.
use vernal::{Error, PBox, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root<'p> {
    number: Option<PBox<'p, u64>>,
}

fn main() {
    let mut a = Pool::<Root>::open("./a", |_| Ok(Root { number: None })).unwrap();
    let mut b = Pool::<Root>::open("./b", |_| Ok(Root { number: None })).unwrap();
    let _ = a.tx(|_, mut of_a| {
        b.tx(|tx_b, _| {
            of_a.number = Some(tx_b.alloc(1)?);
            Ok::<_, Error>(())
        })
    });
}
