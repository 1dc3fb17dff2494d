//! What a server says is hostile: every kind of message at any time, with any number, for calls that were made and not made. The client
//! answers with an error, never with a wrong reply, a wait for ever or a panic.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vernal_pool::Pool;
use vernal_rpc_core::transport::{Admitted, Endpoint, Link, Peer, Rx, Tx};
use vernal_rpc_core::{
    Body, CallOptions, Code, ConnectOptions, Connection, Error, Kind, Message, WaitPolicy,
};
use vernal_rpc_tests::conformance::{number, word};

/// What the server makes of each message that it is sent.
type Script = Box<dyn FnMut(&Message) -> Vec<Message> + Send>;

#[derive(Default)]
struct Wire {
    to_client: Mutex<VecDeque<Message>>,
    released: Mutex<Vec<u64>>,
    closed: AtomicBool,
}

struct Half(Arc<Wire>, Script, Arc<OwnedFd>);
struct Other(Arc<Wire>);
struct End(Arc<Wire>, Peer, Arc<OwnedFd>);

fn ring(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

impl Tx for Half {
    fn try_send(&mut self, message: &Message) -> Result<bool, Error> {
        if let (Kind::Release, Some((addr, _))) = (message.kind, message.body.object()) {
            self.0.released.lock().expect("the wire").push(addr);
        }
        let answers = (self.1)(message);
        self.0.to_client.lock().expect("the wire").extend(answers);
        ring(&self.2);
        Ok(true)
    }
}

impl Rx for Other {
    fn try_recv(&mut self) -> Result<Option<Message>, Error> {
        Ok(self.0.to_client.lock().expect("the wire").pop_front())
    }

    fn arm(&mut self) -> Result<bool, Error> {
        Ok(self.0.to_client.lock().expect("the wire").is_empty())
    }

    fn disarm(&mut self) {}
}

impl Link for End {
    fn peer(&self) -> &Peer {
        &self.1
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.2.as_fd()]
    }

    fn acknowledge(&self) -> Result<(), Error> {
        let _ = rustix::io::read(&self.2, &mut [0u8; 8]);
        match self.0.closed.load(Ordering::SeqCst) {
            true => Err(Error::PeerDied {
                peer: self.1.name.clone(),
            }),
            false => Ok(()),
        }
    }

    fn admit(&self, _: &Body, _: u64) -> Result<Admitted, Error> {
        Err(Error::Unverified {
            peer: self.1.name.clone(),
            why: "it always is".into(),
        })
    }

    fn heap(&self) -> Result<Pool, Error> {
        Err(Error::Closed {
            what: "this end has no heap".into(),
        })
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        ring(&self.2);
    }
}

fn connect(
    script: impl FnMut(&Message) -> Vec<Message> + Send + 'static,
) -> (Connection, Arc<Wire>) {
    let wire = Arc::new(Wire::default());
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event = Arc::new(eventfd(0, flags).expect("an event"));
    let peer = Peer {
        name: "a hostile server".into(),
        uid: None,
        gid: None,
        pid: None,
    };
    let endpoint = Endpoint {
        tx: Box::new(Half(
            Arc::clone(&wire),
            Box::new(script),
            Arc::clone(&event),
        )),
        rx: Box::new(Other(Arc::clone(&wire))),
        link: Arc::new(End(Arc::clone(&wire), peer, event)),
    };
    let options = ConnectOptions {
        slots: 16,
        wait: WaitPolicy::Block,
        ..ConnectOptions::default()
    };
    (Connection::over(endpoint, &options), wire)
}

fn options() -> CallOptions {
    CallOptions {
        deadline: Some(Duration::from_secs(20)),
        ..CallOptions::default()
    }
}

fn reply(call: u64, n: u64) -> Message {
    Message {
        body: word(n),
        ..Message::bare(Kind::Reply, call)
    }
}

fn assert_corrupt(result: Result<vernal_rpc_core::Reply, Error>) {
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn answers_to_no_call() {
    // A place that does not exist ends the connection; a use of a place that is over is forgotten, and its object released.
    let (conn, _) = connect(|m| vec![reply(m.call | 0xffff, 1)]);
    assert_corrupt(conn.call(1, Body::EMPTY, &options()));
    assert!(!conn.is_open());
    let (conn, wire) = connect(|m| match m.kind {
        Kind::Call => {
            let stale = Message {
                body: Body::Object {
                    addr: 0x1000,
                    type_id: 7,
                },
                ..reply(m.call.wrapping_sub(1 << 16), 0)
            };
            vec![stale, reply(m.call, 5), reply(m.call, 6)]
        }
        _ => Vec::new(),
    });
    for _ in 0..50 {
        let got = conn
            .call(1, Body::EMPTY, &options())
            .expect("the first reply");
        assert_eq!(number(got.bytes()), 5);
    }
    assert!(
        wire.released
            .lock()
            .expect("the wire")
            .iter()
            .all(|a| *a == 0x1000)
    );
    assert!(!wire.released.lock().expect("the wire").is_empty());
}

#[test]
fn messages_that_only_clients_send() {
    for kind in [Kind::Call, Kind::Cancel, Kind::Release, Kind::Credit] {
        let (conn, _) = connect(move |m| vec![Message::bare(kind, m.call)]);
        assert_corrupt(conn.call(1, Body::EMPTY, &options()));
    }
}

#[test]
fn streams_where_none_are_expected_and_too_long_ones() {
    let (conn, _) = connect(|m| vec![Message::bare(Kind::Item, m.call)]);
    assert_corrupt(conn.call(1, Body::EMPTY, &options()));
    let (conn, _) = connect(|m| vec![Message::bare(Kind::End, m.call)]);
    assert_corrupt(conn.call(1, Body::EMPTY, &options()));
    // Items that nobody has taken yet are kept, up to the window: while another call is waited for, they pile up.
    let (conn, _) = connect(|m| match (m.kind, m.method) {
        (Kind::Call, 1) => (0..1000)
            .map(|_| Message::bare(Kind::Item, m.call))
            .collect(),
        (Kind::Call, _) => vec![reply(m.call, 1)],
        _ => Vec::new(),
    });
    let stream = conn.stream(1, Body::EMPTY, &options()).expect("room");
    assert_corrupt(conn.call(2, Body::EMPTY, &options()));
    let items: Vec<_> = stream.collect();
    assert!(items.len() <= 33, "{}", items.len());
    assert!(matches!(items.last(), Some(Err(Error::Corrupt { .. }))));
}

#[test]
fn objects_that_nobody_asked_for() {
    let (conn, wire) = connect(|m| match m.kind {
        Kind::Call => vec![Message {
            body: Body::Object {
                addr: 0x4141,
                type_id: 1,
            },
            ..Message::bare(Kind::Reply, m.call)
        }],
        _ => Vec::new(),
    });
    for reply_type in [None, Some(1)] {
        let options = CallOptions {
            reply_type,
            ..options()
        };
        let got = conn.call(1, Body::EMPTY, &options);
        assert!(matches!(got, Err(Error::Unverified { .. })), "{got:?}");
    }
    assert_eq!(*wire.released.lock().expect("the wire"), [0x4141, 0x4141]);
    assert!(conn.is_open());
}

#[test]
fn errors_without_sense() {
    let (conn, _) = connect(|m| {
        vec![Message {
            method: 12_345,
            body: Body::from_bytes(&[0xff, 0xfe, 0x80]).expect("short"),
            ..Message::bare(Kind::Error, m.call)
        }]
    });
    match conn.call(1, Body::EMPTY, &options()) {
        Err(Error::Remote { failure, .. }) => assert_eq!(failure.code, Code::Internal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_messages_at_all() {
    let kinds: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::from_wire).collect();
    for seed in 1..200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let kinds = kinds.clone();
        let (conn, _) = connect(move |m| {
            let mut answers: Vec<Message> = (0..next() % 4)
                .map(|_| Message {
                    method: next() as u32,
                    body: match next() % 3 {
                        0 => word(next()),
                        1 => Body::Object {
                            addr: next(),
                            type_id: next(),
                        },
                        _ => Body::EMPTY,
                    },
                    ..Message::bare(
                        kinds[(next() % kinds.len() as u64) as usize],
                        m.call
                            .wrapping_add((next() % 3) << 16)
                            .wrapping_add(next() % 20),
                    )
                })
                .collect();
            answers.push(reply(m.call, 1));
            answers
        });
        for _ in 0..20 {
            // Whatever comes of them: each ends.
            let short = CallOptions {
                deadline: Some(Duration::from_secs(20)),
                ..CallOptions::default()
            };
            let call = conn.start(1, Body::EMPTY, &short);
            let stream = conn.stream(1, Body::EMPTY, &short);
            if let Ok(call) = call {
                let late = call.wait();
                assert!(
                    !matches!(late, Err(Error::DeadlineExceeded { .. })),
                    "seed {seed}"
                );
            }
            for item in stream.into_iter().flatten().take(100) {
                let late = matches!(item, Err(Error::DeadlineExceeded { .. }));
                assert!(!late, "seed {seed}");
            }
        }
    }
}
