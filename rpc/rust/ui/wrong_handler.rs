//! A handler that takes and gives something else than its method.
use vernal_rpc::{Call, Channel, Method, Reply};

const SQUARE: Method<u32, u64> = Method::new(1);

fn main() {
    let chan = Channel::open("sums").unwrap();
    let _ = chan.serve(SQUARE, |call: Call<u64>| Ok(Reply::value(*call)));
    let _ = chan.serve(SQUARE, |_: Call<u32>| Ok(Reply::value(true)));
}
