//! The suite over TCP; objects as copies of their graphs; peers that say anything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::tcp::Tcp;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, Code, ConnectOptions, Connection,
    Error, Failure, Passed, Signature,
};
use vernal_rpc_tests::conformance::{ECHO, Harness, Server, eventually, number, patient, word};
use vernal_rpc_tests::local::Local;
use vernal_rpc_tests::nodes::{self, NODE, PAIR};
use vernal_rpc_tests::suite;

struct Loopback(Tcp);

static NAMES: AtomicU64 = AtomicU64::new(0);
/// Any port of this host.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Harness for Loopback {
    fn channel(&self, options: ChannelOptions) -> (Channel, String) {
        let name = format!("test/{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let channel = Channel::new(&name, options).expect("a channel");
        let address = channel.listen_tcp(&self.0, ANY).expect("a listener");
        (channel, address)
    }

    fn connect(&self, address: &str, options: ConnectOptions) -> Result<Connection, Error> {
        Connection::connect(&self.0, address, &options)
    }
}

suite!(Loopback(Tcp::new()));

const SUM: u32 = 101;
const LIST: u32 = 102;
const SHARED: u32 = 103;
const LISTS: u32 = 104;

fn server_options() -> ChannelOptions {
    ChannelOptions {
        types: Some(nodes::types()),
        ..ChannelOptions::default()
    }
}

fn client_options() -> ConnectOptions {
    ConnectOptions {
        types: Some(nodes::types()),
        ..ConnectOptions::default()
    }
}

/// Takes and gives lists; how many of its replies were freed.
fn serve_lists(channel: &Channel) -> Arc<AtomicU64> {
    let failure = |e: Error| Failure::new(Code::Internal, e.to_string());
    let takes = Signature {
        argument: Some(NODE.desc.id()),
        reply: None,
    };
    channel.serve(SUM, takes, |call: &mut Call<'_>| {
        assert_eq!(call.passed(), Passed::Copied);
        let (count, sum) = nodes::sum(call.object().expect("an object"));
        Answer::bytes(&[count.to_le_bytes(), sum.to_le_bytes()].concat())
    });
    let freed = Arc::new(AtomicU64::new(0));
    let list =
        move |call: &Call<'_>, count: u64, freed: &Arc<AtomicU64>| -> Result<Answer, Failure> {
            let heap = call.heap().map_err(failure)?;
            let addr = nodes::list(&heap, 0..count);
            let freed = Arc::clone(freed);
            Ok(Answer::Object {
                addr,
                type_id: NODE.desc.id(),
                release: Box::new(move || {
                    nodes::free(&heap, addr);
                    freed.fetch_add(1, Ordering::SeqCst);
                }),
            })
        };
    let gives = Signature {
        argument: None,
        reply: Some(NODE.desc.id()),
    };
    let count = Arc::clone(&freed);
    channel.serve(LIST, gives, move |call: &mut Call<'_>| {
        let n = number(call.bytes());
        list(call, n, &count)
    });
    let count = Arc::clone(&freed);
    channel.serve(LISTS, gives, move |call: &mut Call<'_>| {
        for n in 1..=number(call.bytes()) {
            let item = list(call, n, &count)?;
            call.send(item)?;
        }
        Ok(Answer::Ended)
    });
    let own = channel.clone();
    channel.serve(SHARED, gives, move |_: &mut Call<'_>| {
        let heap = own.shared_heap().expect("a heap").pool().map_err(failure)?;
        let addr = nodes::list(&heap, 0..100);
        Ok(Answer::Shared {
            addr,
            type_id: NODE.desc.id(),
        })
    });
    freed
}

fn gives_lists() -> CallOptions {
    CallOptions {
        reply_type: Some(NODE.desc.id()),
        ..patient()
    }
}

/// Passes an object of the connection's heap.
fn pass(conn: &Connection, addr: u64, type_id: u64) -> Result<(u64, u64), Error> {
    let reply = conn.call(SUM, Body::Object { addr, type_id }, &patient())?;
    let (count, sum) = reply.bytes().split_at(8);
    Ok((number(count), number(sum)))
}

#[test]
fn objects_travel_both_ways() {
    let registry = Arc::new(Local::default());
    let shm = Shm::new(registry as _);
    for threads in [0, 2] {
        let name = format!("test/{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let options = ChannelOptions {
            threads,
            ..server_options()
        };
        let channel = Channel::open(&shm, &name, options).expect("a channel");
        let freed = serve_lists(&channel);
        let address = channel.listen_tcp(&Tcp::new(), ANY).expect("a listener");
        let thread = channel.spawn().expect("a thread");
        let conn = Connection::connect(&Tcp::new(), &address, &client_options()).expect("connects");
        let heap = conn.link().heap().expect("a heap");
        let mut replies = 0;
        for count in [1u64, 2, 100, 30_000] {
            let sum = count * (count - 1) / 2;
            let first = nodes::list(&heap, 0..count);
            assert_eq!(
                pass(&conn, first, NODE.desc.id()).expect("a sum"),
                (count, sum)
            );
            nodes::free(&heap, first);
            let reply = conn
                .call(LIST, word(count), &gives_lists())
                .expect("a list");
            assert_eq!(reply.passed(), Passed::Copied);
            assert_eq!(nodes::sum(reply.object().expect("an object")), (count, sum));
            replies += 1;
        }
        // Of the channel's heap, which clients in shared memory read in place.
        for _ in 0..2 {
            let reply = conn
                .call(SHARED, Body::EMPTY, &gives_lists())
                .expect("a list");
            assert_eq!(nodes::sum(reply.object().expect("an object")), (100, 4950));
        }
        let mut items = 0;
        let stream = conn
            .stream(LISTS, word(50), &gives_lists())
            .expect("a stream");
        for item in stream {
            let item = item.expect("an item");
            items += 1;
            assert_eq!(nodes::sum(item.object().expect("an object")).0, items);
        }
        assert_eq!(items, 50);
        eventually("the objects of replies are freed", || {
            freed.load(Ordering::SeqCst) == replies + 50
        });
        drop(conn);
        channel.shutdown(std::time::Duration::ZERO);
        thread.join().expect("no panic").expect("ends well");
    }
}

#[test]
fn what_cannot_be_passed_fails_its_call_alone() {
    let channel = Channel::new("lists", server_options()).expect("a channel");
    serve_lists(&channel);
    let address = channel.listen_tcp(&Tcp::new(), ANY).expect("a listener");
    let thread = channel.spawn().expect("a thread");
    let conn = Connection::connect(&Tcp::new(), &address, &client_options()).expect("connects");
    let heap = conn.link().heap().expect("a heap");
    let node = NODE.desc.id();
    let first = nodes::list(&heap, 0..3);
    let wrong = heap.alloc(16, &PAIR, 2).expect("a pair");
    for (what, addr, type_id, says) in [
        ("a wild address", 0x1234_5678, node, "its sender says"),
        (
            "the middle of an object",
            first + 8,
            node,
            "its sender says",
        ),
        ("an object of another type", wrong, node, "its sender says"),
        (
            "a type that the method does not take",
            wrong,
            PAIR.desc.id(),
            "expected",
        ),
        ("a type that nobody knows", first, 5, "5"),
    ] {
        let e = pass(&conn, addr, type_id).expect_err(what).to_string();
        assert!(e.contains(says), "{what}: {e}");
    }
    // A pointer out of the heap, deep in the list.
    nodes::store(nodes::load(first), 0x7fff_0000_0000);
    let e = pass(&conn, first, node)
        .expect_err("a wild pointer")
        .to_string();
    assert!(e.contains("out of the pool"), "{e}");
    // An object where plain bytes are expected, and the other way round.
    let object = Body::Object {
        addr: wrong,
        type_id: PAIR.desc.id(),
    };
    assert!(conn.call(LIST, object, &gives_lists()).is_err());
    assert!(conn.call(SUM, word(1), &patient()).is_err());
    let reply = conn.call(LIST, word(3), &patient());
    assert!(matches!(reply, Err(Error::Unverified { .. })), "{reply:?}");
    // The connection goes on.
    let reply = conn.call(LIST, word(3), &gives_lists()).expect("a list");
    assert_eq!(nodes::sum(reply.object().expect("an object")), (3, 3));
    channel.shutdown(std::time::Duration::ZERO);
    thread.join().expect("no panic").expect("ends well");
}

#[test]
fn too_large_graphs_fail_their_calls_alone() {
    let options = ChannelOptions {
        max_bytes: 64 << 10,
        max_objects: 1000,
        ..server_options()
    };
    let channel = Channel::new("lists", options).expect("a channel");
    serve_lists(&channel);
    let address = channel.listen_tcp(&Tcp::new(), ANY).expect("a listener");
    let thread = channel.spawn().expect("a thread");
    let conn = Connection::connect(&Tcp::new(), &address, &client_options()).expect("connects");
    let heap = conn.link().heap().expect("a heap");
    for (count, good) in [(1000, true), (1001, false), (200_000, false), (1000, true)] {
        let first = nodes::list(&heap, 0..count);
        let passed = pass(&conn, first, NODE.desc.id());
        assert_eq!(passed.is_ok(), good, "{count}: {passed:?}");
        nodes::free(&heap, first);
    }
    channel.shutdown(std::time::Duration::ZERO);
    thread.join().expect("no panic").expect("ends well");
}

#[test]
fn tokens_open_doors() {
    let secret = || Tcp::with_token(b"open sesame").expect("a token");
    let harness = Loopback(secret());
    let server = Server::start(&harness, ChannelOptions::default());
    let connect = |tcp: &Tcp| Connection::connect(tcp, &server.address, &ConnectOptions::default());
    for wrong in [
        Tcp::new(),
        Tcp::with_token(b"open barley").expect("a token"),
    ] {
        let e = connect(&wrong).expect_err("refused");
        assert!(matches!(e, Error::Access { .. }), "{e}");
    }
    let conn = connect(&secret()).expect("connects");
    conn.call(ECHO, word(1), &patient()).expect("an echo");
    assert!(Tcp::with_token(b"").is_err() && Tcp::with_token(&[1; 257]).is_err());
    assert!(!format!("{:?}", secret()).contains("sesame"));
    // Who does not know the token does not learn which names there are.
    let other = server.address.replace("test/", "none/");
    let e = Connection::connect(&Tcp::new(), &other, &ConnectOptions::default());
    assert!(matches!(e, Err(Error::Access { .. })), "{e:?}");
    let e = Connection::connect(&secret(), &other, &ConnectOptions::default());
    assert!(matches!(e, Err(Error::NotFound { .. })), "{e:?}");
    for bad in ["shop", "tcp://", "tcp://127.0.0.1:1", "tcp://127.0.0.1:1/"] {
        let e = Connection::connect(&secret(), bad, &ConnectOptions::default());
        assert!(matches!(e, Err(Error::Name { .. })), "{bad}: {e:?}");
    }
}

/// What an honest client says first.
fn greeting(name: &str) -> Vec<u8> {
    // Taken from one, so that this test need not know the layout.
    let door = std::net::TcpListener::bind(ANY).expect("a port");
    let at = door.local_addr().expect("an address");
    let address = format!("tcp://{at}/{name}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(Connection::connect(
                &Tcp::new(),
                &address,
                &ConnectOptions::default(),
            ))
        });
        let (mut socket, _) = door.accept().expect("a client");
        let mut bytes = vec![0; 40 + name.len()];
        socket.read_exact(&mut bytes).expect("a greeting");
        bytes
    })
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Noise, floods and half messages, before and after the greeting: each ends its own connection, at most.
#[test]
fn hostile_clients_harm_themselves() {
    let harness = Loopback(Tcp::new());
    let options = ChannelOptions {
        types: Some(nodes::types()),
        max_bytes: 1 << 20,
        ..ChannelOptions::default()
    };
    let server = Server::start(&harness, options);
    serve_lists(&server.channel);
    let honest = harness
        .connect(&server.address, client_options())
        .expect("connects");
    let (host, name) = server
        .address
        .trim_start_matches("tcp://")
        .split_once('/')
        .expect("an address");
    let hello = greeting(name);
    let mut rng = Rng(0x0dd_ba11);
    for round in 0..150u64 {
        let mut socket = TcpStream::connect(host).expect("connects");
        let mut say = Vec::new();
        match round % 5 {
            // Noise instead of a greeting, or a greeting with a changed byte.
            0 => say.extend((0..rng.next() % 600).map(|_| rng.next() as u8)),
            1 => {
                say.extend_from_slice(&hello);
                let at = rng.next() as usize % say.len();
                say[at] ^= 1 << (rng.next() % 8);
            }
            // Frames: noise, nearly right ones, and graphs.
            _ => {
                say.extend_from_slice(&hello);
                for _ in 0..rng.next() % 20 {
                    let length =
                        [0, 8, 200, 4096, 4097, 1 << 21, u64::MAX][rng.next() as usize % 7];
                    let kind = rng.next() % 11;
                    let shape = rng.next() % 6;
                    let method = [1, 3, 5, 101, 102, 104][rng.next() as usize % 6];
                    let words = [
                        length,
                        kind | shape << 8 | method << 32,
                        rng.next() % 4,
                        rng.next() % 3,
                        rng.next(),
                        NODE.desc.id(),
                    ];
                    say.extend(words.iter().flat_map(|w| w.to_le_bytes()));
                    let body = length.min(5000);
                    if round % 2 == 0 {
                        say.extend_from_slice(b"VNGRAPH1");
                    }
                    say.extend((0..body).map(|_| rng.next() as u8));
                }
            }
        }
        // The server may hang up in the middle.
        let _ = socket.write_all(&say);
        if round % 3 == 0 {
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = socket.set_read_timeout(Some(std::time::Duration::from_millis(20)));
            let _ = socket.read_to_end(&mut rest);
        }
        drop(socket);
        let reply = honest.call(ECHO, word(round), &patient()).expect("an echo");
        assert_eq!(number(reply.bytes()), round);
    }
    drop(honest);
    eventually("all clients are gone", || {
        server.channel.stats().clients == 0
    });
}

/// A server that answers anything: the client gets errors.
#[test]
fn hostile_servers_harm_nobody() {
    let door = std::net::TcpListener::bind(ANY).expect("a port");
    let address = format!("tcp://{}/shop", door.local_addr().expect("an address"));
    // What an honest server answers.
    let server = Server::start(&Loopback(Tcp::new()), ChannelOptions::default());
    let (host, name) = server
        .address
        .trim_start_matches("tcp://")
        .split_once('/')
        .expect("an address");
    let mut socket = TcpStream::connect(host).expect("connects");
    socket.write_all(&greeting(name)).expect("sent");
    let mut welcome = vec![0; 40];
    socket.read_exact(&mut welcome).expect("an answer");
    const ROUNDS: u64 = 60;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng(0x5eed);
            for round in 0..ROUNDS {
                let (mut socket, _) = door.accept().expect("a client");
                let mut say = welcome.clone();
                if round % 4 == 0 {
                    let at = rng.next() as usize % say.len();
                    say[at] ^= 1 << (rng.next() % 8);
                }
                let _ = socket.write_all(&say);
                // A call has come when there is more than the greeting.
                let mut call = [0; 4096];
                let _ = socket.read(&mut call);
                for _ in 0..rng.next() % 8 {
                    let length = rng.next() % 100;
                    let words = [
                        length,
                        rng.next() % 11 + (rng.next() % 6) * 256,
                        rng.next() % 70,
                        0,
                        rng.next(),
                        NODE.desc.id(),
                    ];
                    let mut frame: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                    frame.extend((0..length).map(|_| rng.next() as u8));
                    let _ = socket.write_all(&frame);
                }
            }
        });
        for _ in 0..ROUNDS {
            if let Ok(conn) = Connection::connect(&Tcp::new(), &address, &client_options()) {
                // It may even be answered; it must end.
                let _ = conn.call(ECHO, word(1), &patient());
                let _ = conn.call(LIST, word(1), &gives_lists());
            }
        }
    });
}

/// From now on this socket's host is gone: nothing that arrives reaches the socket, so nothing is acknowledged, no probe is answered, and
/// no end is sent.
fn vanish(socket: &TcpStream) {
    use std::os::fd::AsRawFd;
    // BPF_RET | BPF_K, 0: the socket takes no byte of any packet.
    let mut none = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut none,
    };
    // SAFETY: the program and its one instruction live through the call, which copies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// A host that vanishes without a word is noticed, whether it was asked something or not.
#[test]
fn hosts_that_vanish_are_noticed() {
    let tcp = Tcp::new().with_silence(std::time::Duration::from_secs(2));
    let server = Server::start(&Loopback(tcp.clone()), ChannelOptions::default());
    let (host, name) = server
        .address
        .trim_start_matches("tcp://")
        .split_once('/')
        .expect("an address");
    let mut welcome = vec![0; 40];
    let mut idle = TcpStream::connect(host).expect("connects");
    idle.write_all(&greeting(name)).expect("sent");
    idle.read_exact(&mut welcome).expect("an answer");
    eventually("the client is there", || {
        server.channel.stats().clients == 1
    });
    vanish(&idle);
    // A server that answers, and is gone when it is called; the same for one that is never called.
    let door = std::net::TcpListener::bind(ANY).expect("a port");
    let address = format!("tcp://{}/shop", door.local_addr().expect("an address"));
    let connect = || {
        std::thread::scope(|scope| {
            let accepted = scope.spawn(|| {
                let (mut socket, _) = door.accept().expect("a client");
                socket.write_all(&welcome).expect("sent");
                socket
            });
            let conn = Connection::connect(&tcp, &address, &client_options()).expect("connects");
            (conn, accepted.join().expect("a socket"))
        })
    };
    let (called, socket) = connect();
    vanish(&socket);
    let (silent, other) = connect();
    let waiting = silent.start(ECHO, word(1), &patient()).expect("sent");
    let mut call = [0; 48];
    (&other).read_exact(&mut call).expect("a call");
    vanish(&other);
    let ended = called.call(ECHO, word(1), &CallOptions::default());
    assert!(matches!(ended, Err(Error::PeerDied { .. })), "{ended:?}");
    // Everything that it was sent was acknowledged: only probes tell.
    let ended = waiting.wait();
    assert!(matches!(ended, Err(Error::PeerDied { .. })), "{ended:?}");
    eventually("the server notices", || server.channel.stats().clients == 0);
    // None of them has ended by itself.
    drop((idle, socket, other));
}
