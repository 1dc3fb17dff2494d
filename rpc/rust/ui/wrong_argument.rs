//! An argument of another type than the method takes.
use vernal_rpc::Method;

const SQUARE: Method<u32, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    let _ = conn.call(SQUARE, &7u64);
}
