//! Both sides of the attacks of [`vernal_rpc_core::modes`]: a server whose handlers believe what they read, and a client that uses it.
//!
//! ```text
//! serve NAME MODE        -> addresses of what was loaded since, hidden, before, and written to
//! counter                -> the number that nobody must write
//! connect NAME           put        -> the address of an object of this client
//! try KEY A SECONDS      -> how the call ended: "took VALUE", "error ..."
//! ```

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::Pool;
use vernal_pool::program::ProgramType;
use vernal_rpc_core::modes::Mode;
use vernal_rpc_core::registry::{Puddled, Registry, Scope};
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, ConnectOptions, Connection, Error,
    Failure, KnownTypes, Sandbox, Signature, Trust,
};

use crate::conformance::{PATIENCE, number, patient, word};
use crate::hostile;
use crate::nodes::{self, NODE, PAIR, load, store};

/// The value of an honest object, and of secrets.
pub const HONEST: u64 = 1;
/// What no client may read.
pub const SECRET: u64 = 0x5ec2_e75e_c2e7;

/// Objects of one argument at most.
const MAX_OBJECTS: u64 = 1000;
/// How long a handler may run in a sandbox.
const LIMIT: Duration = Duration::from_secs(3);

// Methods.
const READ: u32 = 1;
const FOLLOW: u32 = 2;
const TWICE: u32 = 3;
const WRITE: u32 = 4;
const FLAG: u32 = 5;
const DO: u32 = 6;
const REPLY: u32 = 7;

/// `struct flag { bool set; }`, as large as a node.
static FLAG_TYPE: std::sync::LazyLock<ProgramType> = std::sync::LazyLock::new(|| {
    let blob = TypeBuilder::new("flag", 16, 8)
        .member("set", 0, Shape::Bool)
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
});

fn types() -> Arc<KnownTypes> {
    Arc::new(KnownTypes::new([&NODE.desc, &PAIR.desc, &FLAG_TYPE.desc]))
}

fn number_of(n: u64) -> Result<Answer, Failure> {
    Ok(Answer::Body(word(n)))
}

/// A handler that a client has taken over does what it is told.
fn hostile_step(what: &str) -> Result<Answer, Failure> {
    let done = match what {
        "loop" => loop {
            std::hint::spin_loop();
        },
        "crash" => std::process::abort(),
        "memory" => hostile::take_memory(512 << 20),
        "file" => std::fs::read("/etc/passwd").map(drop),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
        "child" => hostile::fork(),
        "signal" => hostile::signal_group(),
        "code" => hostile::map_code(),
        other => panic!("{other}"),
    };
    done.map_err(|e| Failure::application(1, e.to_string()))?;
    number_of(HONEST)
}

fn serve_all(channel: &Channel) {
    let node = Some(NODE.desc.id());
    let takes = |argument| Signature {
        argument,
        reply: None,
    };
    let object = |call: &Call<'_>| call.object().unwrap_or(0);
    // The value of what the argument points to.
    channel.serve(READ, takes(node), move |call: &mut Call<'_>| {
        let next = load(object(call));
        number_of(if next == 0 { HONEST } else { load(next + 8) })
    });
    channel.serve(FOLLOW, takes(node), move |call: &mut Call<'_>| {
        let (mut at, mut count) = (object(call), 0);
        while at != 0 {
            count += 1;
            at = load(at);
        }
        number_of(count)
    });
    // Whether it has ever seen two values, where one was checked and the other used.
    channel.serve(TWICE, takes(node), move |call: &mut Call<'_>| {
        let (at, until) = (object(call), Instant::now() + LIMIT / 2);
        let first = load(at + 8);
        while load(at + 8) == first {
            if Instant::now() > until {
                return Err(Failure::application(2, "it stays"));
            }
        }
        number_of(HONEST)
    });
    channel.serve(WRITE, takes(node), move |call: &mut Call<'_>| {
        store(load(object(call)) + 8, SECRET);
        number_of(HONEST)
    });
    let flag = takes(Some(FLAG_TYPE.desc.id()));
    channel.serve(FLAG, flag, move |call: &mut Call<'_>| {
        number_of(load(object(call)) & 0xff)
    });
    channel.serve(DO, Signature::default(), |call: &mut Call<'_>| {
        hostile_step(std::str::from_utf8(call.bytes()).unwrap_or_default())
    });
    let gives = Signature {
        argument: None,
        reply: node,
    };
    channel.serve(REPLY, gives, |call: &mut Call<'_>| {
        let heap = call
            .heap()
            .map_err(|e| Failure::application(1, e.to_string()))?;
        let node = nodes::list(&heap, 0..1);
        store(node, 0x1000);
        Ok(Answer::Object {
            addr: node,
            type_id: NODE.desc.id(),
            release: Box::new(move || {
                let _ = heap.free(node);
            }),
        })
    });
}

/// A page with a node whose value is a secret.
fn secret() -> hostile::Pages {
    let pages = hostile::Pages::new();
    store(pages.addr(), 0);
    store(pages.addr() + 8, SECRET);
    pages
}

#[derive(Default)]
struct Guarded {
    shm: Option<Shm>,
    conn: Option<Connection>,
    counter: Option<hostile::Pages>,
    kept: Vec<Box<dyn std::any::Any>>,
}

fn shm() -> Result<Shm, Error> {
    Ok(Shm::new(Arc::new(Puddled::new("rpc-guarded")?)))
}

/// The mode of a word.
fn options(mode: &str) -> ChannelOptions {
    let plain = mode != Mode::Verify.name();
    ChannelOptions {
        trust: if plain { Trust::Plain } else { Trust::Verify },
        sandbox: match mode == Mode::Process.name() {
            true => Sandbox::Process,
            false => Sandbox::None,
        },
        sandbox_limit: LIMIT,
        max_objects: MAX_OBJECTS,
        types: Some(types()),
        ..ChannelOptions::default()
    }
}

impl Guarded {
    fn serve(&mut self, name: &str, mode: &str) -> Result<String, Error> {
        let channel = Channel::open(&shm()?, name, options(mode))?;
        serve_all(&channel);
        let (before, hidden, counter) = (secret(), secret(), secret());
        vernal_rpc_core::hide(hidden.bytes())?;
        if mode == Mode::Process.name() {
            channel.prefork()?;
        }
        let since = secret();
        store(counter.addr() + 8, HONEST);
        let addrs = [&since, &hidden, &before, &counter].map(hostile::Pages::addr);
        let thread = channel.spawn()?;
        self.kept
            .push(Box::new((before, hidden, since, thread, channel)));
        self.counter = Some(counter);
        let [a, b, c, d] = addrs;
        Ok(format!("{a} {b} {c} {d}"))
    }

    fn conn(&self) -> Result<(&Connection, Pool), Error> {
        let conn = self.conn.as_ref().ok_or_else(|| Error::Closed {
            what: "the connection".into(),
        })?;
        Ok((conn, conn.link().heap()?))
    }

    /// Tries an attack of the table.
    fn attempt(&self, key: &str, target: u64, patience: Duration) -> Result<u64, Error> {
        let (conn, heap) = self.conn()?;
        let call = |method, addr, ty: &ProgramType, deadline| {
            let body = Body::Object {
                addr,
                type_id: ty.desc.id(),
            };
            let options = CallOptions {
                deadline: Some(deadline),
                ..CallOptions::default()
            };
            conn.call(method, body, &options).map(|r| number(r.bytes()))
        };
        // A node that points there.
        let pointing = |to: u64| {
            let node = nodes::list(&heap, HONEST..HONEST + 1);
            store(node, to);
            node
        };
        match key {
            "wild" => call(READ, pointing(0x1000), &NODE, PATIENCE),
            "misaligned" => call(READ, pointing(pointing(0) + 8), &NODE, PATIENCE),
            "private" | "hidden" | "before" | "other" => {
                call(READ, pointing(target), &NODE, PATIENCE)
            }
            "confused" => {
                let pair = heap.alloc(16, &PAIR, 1).expect("a pair");
                call(READ, pointing(pair), &NODE, PATIENCE)
            }
            "bool" => {
                let flag = heap.alloc(16, &FLAG_TYPE, 1).expect("a flag");
                store(flag, 77);
                call(FLAG, flag, &FLAG_TYPE, PATIENCE)
            }
            "cycle" => {
                let node = pointing(0);
                store(node, node);
                call(FOLLOW, node, &NODE, patience)
            }
            "large" => {
                let list = nodes::list(&heap, 0..MAX_OBJECTS + 1);
                call(FOLLOW, list, &NODE, PATIENCE)
            }
            "changing" | "reused" => {
                let node = pointing(0);
                // Whoever gets the memory next writes to it.
                let change = |n: u64| {
                    if key == "reused" && n == 1 {
                        heap.free(node).expect("an object");
                    }
                    store(node + 8, n);
                };
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut n = 0u64;
                        while !stop.load(Ordering::Relaxed) {
                            n += 1;
                            change(n);
                            std::thread::yield_now();
                        }
                    });
                    let done = call(TWICE, node, &NODE, PATIENCE);
                    stop.store(true, Ordering::Relaxed);
                    done
                })
            }
            "write" => call(WRITE, pointing(target), &NODE, PATIENCE),
            "reply" => {
                let options = CallOptions {
                    reply_type: Some(NODE.desc.id()),
                    ..patient()
                };
                let reply = conn.call(REPLY, Body::EMPTY, &options)?;
                Ok(reply.object().unwrap_or(0))
            }
            "truncate" => {
                let registry = Puddled::new("truncate")?;
                let grant = registry.connect("shop")?;
                let segment = registry.segment(Scope::Conn(grant.id), 2 << 20)?;
                segment
                    .file
                    .set_len(0)
                    .map_err(|e| Error::os("truncating", e))?;
                Ok(HONEST)
            }
            what => {
                let body = Body::from_bytes(what.as_bytes()).unwrap_or(Body::EMPTY);
                let options = CallOptions {
                    deadline: Some(patience),
                    ..CallOptions::default()
                };
                conn.call(DO, body, &options).map(|r| number(r.bytes()))
            }
        }
    }

    fn call(&mut self, words: &[&str]) -> Result<String, Error> {
        match *words {
            ["serve", name, mode] => self.serve(name, mode),
            ["counter"] => {
                let counter = self.counter.as_ref().map_or(0, hostile::Pages::addr);
                Ok(load(counter + 8).to_string())
            }
            ["connect", name] => {
                let options = ConnectOptions {
                    types: Some(types()),
                    ..ConnectOptions::default()
                };
                let shm = self.shm.insert(shm()?);
                self.conn = Some(Connection::connect(shm, name, &options)?);
                Ok(String::new())
            }
            ["put"] => {
                let (conn, heap) = self.conn()?;
                let node = nodes::list(&heap, SECRET..SECRET + 1);
                // The server learns of the segment with the first object that it is passed.
                let body = Body::Object {
                    addr: node,
                    type_id: NODE.desc.id(),
                };
                conn.call(READ, body, &patient())?;
                Ok(node.to_string())
            }
            ["honest", seconds] => {
                let (conn, heap) = self.conn()?;
                let node = nodes::list(&heap, HONEST..HONEST + 1);
                let options = CallOptions {
                    deadline: Some(Duration::from_secs(seconds.parse().unwrap_or(60))),
                    ..CallOptions::default()
                };
                let body = Body::Object {
                    addr: node,
                    type_id: NODE.desc.id(),
                };
                let reply = conn.call(READ, body, &options)?;
                Ok(number(reply.bytes()).to_string())
            }
            ["try", key, target, seconds] => {
                let patience = Duration::from_secs(seconds.parse().unwrap_or(60));
                let ended = self.attempt(key, target.parse().unwrap_or(0), patience);
                Ok(match ended {
                    Ok(value) => format!("took {value}"),
                    Err(e) => format!("error {e}"),
                })
            }
            ["attack", name, key] => {
                let key = if key == "release" {
                    "forged-release"
                } else {
                    key
                };
                let ended = crate::attack::attack(name, key, 7);
                ended.map_err(|why| Error::Registry {
                    doing: "attacking",
                    why,
                })
            }
            _ => Err(Error::Invalid {
                what: format!("{words:?} is no command"),
                remedy: "see the head of this file",
            }),
        }
    }
}

/// The process.
pub fn main() -> ExitCode {
    let mut guarded = Guarded::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match guarded.call(&words) {
            Ok(text) => format!("ok {text}"),
            Err(e) => format!("err {e}"),
        };
        let mut out = std::io::stdout();
        if writeln!(out, "{}", answer.replace('\n', " "))
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
    ExitCode::SUCCESS
}
