//! A transaction belongs to its thread.
use vernal::{Error, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root {
    number: u64,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: 0 })).unwrap();
    let _ = pool.tx(|tx, _| {
        std::thread::scope(|scope| {
            scope.spawn(|| tx.alloc(1u64).is_ok());
        });
        Ok::<_, Error>(())
    });
}
