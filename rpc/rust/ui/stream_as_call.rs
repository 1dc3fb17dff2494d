//! A method that answers with a stream, called for one reply.
use vernal_rpc::StreamMethod;

const COUNT: StreamMethod<u64, u64> = StreamMethod::new(1);

fn main() {
    let conn = vernal_rpc::connect("sums").unwrap();
    let _ = conn.call(COUNT, &7);
}
