//! A method whose argument cannot lie in a heap.
use vernal_rpc::Method;

const FIND: Method<String, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("shop/stock").unwrap();
    let _ = conn.call(FIND, &"bolts".to_owned());
}
