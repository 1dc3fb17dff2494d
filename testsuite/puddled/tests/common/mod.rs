//! What the tests of channels begin with: a puddled of their own, and processes of `puddled-rpc`.

use std::path::Path;

use vernal_puddled_tests::{Actor, Place};

/// puddled, which does not run yet.
pub fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

/// A process of the user `uid`.
pub fn rpc(place: &Place, name: &str, uid: Option<u32>) -> Actor {
    place.run(Path::new(env!("CARGO_BIN_EXE_puddled-rpc")), name, uid)
}

/// A server with the channel `shop/stock` and a client that is connected to it: both, and the connection.
pub fn connected(
    place: &Place,
    server: Option<u32>,
    client: Option<u32>,
) -> (Actor, Actor, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_puddled-rpc"));
    vernal_puddled_tests::rpc::connected(program, place, server, client)
}
