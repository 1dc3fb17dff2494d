//! A part of one connection's argument in another's.
use vernal::{PBox, Persist};
use vernal_rpc::Connection;

#[derive(Persist)]
#[repr(C)]
struct Node<'p> {
    value: PBox<'p, u64>,
}

fn both(one: &Connection, other: &Connection) {
    let _ = one.build::<Node>(|a| {
        let _ = other.build::<Node>(|_| Ok(Node { value: a.alloc(7)? }));
        Ok(Node { value: a.alloc(7)? })
    });
}

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    both(&conn, &conn);
}
