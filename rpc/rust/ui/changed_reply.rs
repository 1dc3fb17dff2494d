//! A reply is the server's: it can be read.
use vernal_rpc::Method;

const SQUARE: Method<u32, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    let mut square = conn.call(SQUARE, &7).unwrap();
    *square += 1;
}
