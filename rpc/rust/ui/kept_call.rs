//! A call that outlives its handler.
use std::sync::Mutex;
use vernal_rpc::{Call, Channel, Method, Reply};

const KEEP: Method<u64, ()> = Method::new(1);

fn main() {
    let kept: Mutex<Vec<Call<u64>>> = Mutex::new(Vec::new());
    let chan = Channel::open("sums").unwrap();
    let _ = chan.serve(KEEP, move |call: Call<u64>| {
        kept.lock().unwrap().push(call);
        Ok(Reply::value(()))
    });
}
