//! The suite over shared memory, both sides in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{Channel, ChannelOptions, ConnectOptions, Connection, Error};
use vernal_rpc_tests::conformance::Harness;
use vernal_rpc_tests::local::Local;
use vernal_rpc_tests::suite;

struct InProcess(Shm);

static NAMES: AtomicU64 = AtomicU64::new(0);

impl InProcess {
    fn new() -> InProcess {
        InProcess(Shm::new(Arc::new(Local::default())))
    }
}

impl Harness for InProcess {
    fn channel(&self, options: ChannelOptions) -> (Channel, String) {
        let name = format!("test/{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let channel = Channel::open(&self.0, &name, options).expect("a channel");
        (channel, name)
    }

    fn connect(&self, address: &str, options: ConnectOptions) -> Result<Connection, Error> {
        Connection::connect(&self.0, address, &options)
    }
}

suite!(InProcess::new());

#[test]
fn nothing_is_left() {
    use vernal_rpc_tests::conformance::{ECHO, Server, eventually, patient, word};
    let registry = Arc::new(Local::default());
    let harness = InProcess(Shm::new(Arc::clone(&registry) as _));
    for _ in 0..10 {
        let server = Server::start(&harness, ChannelOptions::default());
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        conn.call(ECHO, word(1), &patient()).expect("an echo");
        let heap = conn.link().heap().expect("a heap");
        assert!(heap.is_volatile());
        drop(heap);
        let (segments, conns, channels) = registry.left();
        assert_eq!((segments, conns, channels), (3, 1, 1));
        drop(conn);
        drop(server);
        eventually("all is given back", || registry.left() == (0, 0, 0));
    }
}
