//! Trust in a peer's pointers is a promise of the program.
use vernal_rpc::ConnectOptions;

fn main() {
    let _ = ConnectOptions::new().trust_peers().connect("sums");
}
