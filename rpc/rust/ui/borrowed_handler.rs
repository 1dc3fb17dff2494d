//! A handler that refers to what is gone before the channel.
use vernal_rpc::{Call, Channel, Method, Reply};

const ADD: Method<u64, u64> = Method::new(1);

fn main() {
    let chan = Channel::open("sums").unwrap();
    let more = 7;
    let _ = chan.serve(ADD, |call: Call<u64>| Ok(Reply::value(*call + more)));
}
