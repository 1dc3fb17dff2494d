//! A reference to the argument that outlives its handler.
use std::sync::Mutex;
use vernal_rpc::{Call, Channel, Method, Reply};

const KEEP: Method<u64, ()> = Method::new(1);

static KEPT: Mutex<Vec<&u64>> = Mutex::new(Vec::new());

fn main() {
    let chan = Channel::open("sums").unwrap();
    let _ = chan.serve(KEEP, |call: Call<u64>| {
        KEPT.lock().unwrap().push(&call);
        Ok(Reply::value(()))
    });
}
