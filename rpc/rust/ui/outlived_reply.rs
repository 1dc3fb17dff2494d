//! A reference into a reply that is released.
use vernal_rpc::Method;

const SQUARE: Method<u32, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    let square = conn.call(SQUARE, &7).unwrap();
    let inside: &u64 = &square;
    drop(square);
    println!("{inside}");
}
