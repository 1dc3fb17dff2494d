//! A shared reference into a pool ends where a transaction begins.
use vernal::{Error, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Root {
    number: u64,
}

fn main() {
    let mut pool = Pool::<Root>::open("./p", |_| Ok(Root { number: 0 })).unwrap();
    let before = &pool.root().number;
    let _ = pool.tx(|_, mut root| {
        root.number = 1;
        Ok::<_, Error>(())
    });
    println!("{before}");
}
