//! A reply that is taken for another type than the method gives.
use vernal_rpc::{Method, Ref};

const SQUARE: Method<u32, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    let _: Ref<u32> = conn.call(SQUARE, &7).unwrap();
}
