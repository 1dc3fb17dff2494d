//! So do the objects that it can change.
use vernal::{Error, PBox, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root<'p> {
    number: PBox<'p, u64>,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |tx| Ok(Root { number: tx.alloc(0)? })).unwrap();
    let _ = pool.tx(|_, mut root| {
        let number = &mut root.number;
        std::thread::scope(|scope| {
            scope.spawn(move || **number = 1);
        });
        Ok::<_, Error>(())
    });
}
