//! A program with channels: a server or a client as every program is one, with `vernal-rpc-core`, until it is killed.
//!
//! `serve NAME`: answers echoes, sums of lists that clients pass by pointer, and a list of its own in the channel's heap.
//! `call NAME SEED`: connects, calls, checks every answer, disconnects, again and again; whoever it loses it connects to anew.
//! Each answers a line on standard input with `ok` and how many calls it has completed.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::Pool;
use vernal_pool::program::ProgramType;
use vernal_rpc_core::registry::Puddled;
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, ConnectOptions, Connection, Error,
    KnownTypes, Signature, WaitPolicy,
};

const ECHO: u32 = 1;
const SUM: u32 = 2;
const LIST: u32 = 3;
/// Nodes of the server's own list.
const OWN: u64 = 50;

/// How long anything may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);

static DONE: AtomicU64 = AtomicU64::new(0);

fn node_type() -> ProgramType {
    let next = Shape::Pointer {
        target: "rpc-node".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("rpc-node", 16, 8)
        .member("next", 0, next)
        .member("value", 8, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
}

/// A list of the values 1 to `count`, in a volatile pool.
fn list(pool: &Pool, node: &ProgramType, count: u64) -> Result<u64, vernal_pool::Error> {
    let mut head = 0;
    for value in 1..=count {
        let at = pool.alloc(16, node, 1)?;
        // SAFETY: an object of 16 bytes that was allocated just now; nobody else knows of it.
        unsafe {
            (at as *mut u64).write_volatile(head);
            ((at + 8) as *mut u64).write_volatile(value);
        }
        head = at;
    }
    Ok(head)
}

/// The nodes from `at` on: how many, and the sum of their values.
fn walk(mut at: u64, mut each: impl FnMut(u64)) -> (u64, u64) {
    let (mut count, mut sum) = (0u64, 0u64);
    while at != 0 && count < 100_000 {
        // SAFETY: nodes of a verified copy, or of a list that this process has made.
        let (next, value) = unsafe { (*(at as *const u64), *((at + 8) as *const u64)) };
        (count, sum) = (count + 1, sum.wrapping_add(value));
        each(at);
        at = next;
    }
    (count, sum)
}

fn shm() -> Result<Shm, Error> {
    let socket = std::env::var("VERNAL_PUDDLED").unwrap_or_default();
    Ok(Shm::new(Arc::new(Puddled::at(
        Path::new(&socket),
        "rpc-program",
    )?)))
}

/// A channel, and a list in its heap.
fn open(name: &str, node: &ProgramType) -> Result<(Channel, u64), Error> {
    let options = ChannelOptions {
        wait: WaitPolicy::Adaptive,
        types: Some(Arc::new(KnownTypes::new([&node.desc]))),
        ..ChannelOptions::default()
    };
    let channel = Channel::open(&shm()?, name, options)?;
    let heap = channel.shared_heap().ok_or_else(|| Error::Closed {
        what: "the channel's heap".into(),
    })?;
    let own = list(&heap.pool()?, node, OWN).expect("room for a short list");
    Ok((channel, own))
}

fn serve(name: &str) -> Result<(), Error> {
    let node = node_type();
    let id = node.desc.id();
    let until = Instant::now() + PATIENCE;
    let (channel, own) = loop {
        match open(name, &node) {
            // puddled is just being started again.
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            other => break other?,
        }
    };
    let plain = Signature::default();
    channel.serve(ECHO, plain, |call: &mut Call<'_>| {
        DONE.fetch_add(1, Ordering::Relaxed);
        Answer::bytes(call.bytes())
    });
    let summed = Signature {
        argument: Some(id),
        reply: None,
    };
    channel.serve(SUM, summed, |call: &mut Call<'_>| {
        let (count, sum) = walk(call.object().unwrap_or(0), |_| ());
        DONE.fetch_add(1, Ordering::Relaxed);
        Answer::bytes(&[count.to_le_bytes(), sum.to_le_bytes()].concat())
    });
    let listed = Signature {
        argument: None,
        reply: Some(id),
    };
    channel.serve(LIST, listed, move |_: &mut Call<'_>| {
        DONE.fetch_add(1, Ordering::Relaxed);
        Ok(Answer::Shared {
            addr: own,
            type_id: id,
        })
    });
    channel.run()
}

/// Some calls over one connection; every answer must be right.
fn converse(
    conn: &Connection,
    node: &ProgramType,
    mut random: impl FnMut(u64) -> u64,
) -> Result<(), Error> {
    let id = node.desc.id();
    let options = CallOptions {
        deadline: Some(PATIENCE),
        reply_type: None,
    };
    let listing = CallOptions {
        reply_type: Some(id),
        ..options
    };
    for _ in 0..random(40) {
        match random(3) {
            0 => {
                let bytes: Vec<u8> = (0..random(3000)).map(|n| n as u8).collect();
                let Some(body) = Body::from_bytes(&bytes) else {
                    continue;
                };
                let reply = conn.call(ECHO, body, &options)?;
                assert_eq!(reply.bytes(), bytes, "an echo");
            }
            1 => {
                let pool = conn.link().heap()?;
                let count = 1 + random(200);
                let addr = list(&pool, node, count).expect("room in the heap");
                let body = Body::Object { addr, type_id: id };
                let reply = conn.call(SUM, body, &options)?;
                let want = [count.to_le_bytes(), (count * (count + 1) / 2).to_le_bytes()];
                assert_eq!(reply.bytes(), want.concat(), "a sum");
                let mut nodes = Vec::new();
                walk(addr, |at| nodes.push(at));
                for at in nodes {
                    pool.free(at).expect("a node of its own");
                }
            }
            _ => {
                let reply = conn.call(LIST, Body::EMPTY, &listing)?;
                let (count, sum) = walk(reply.object().unwrap_or(0), |_| ());
                assert_eq!(
                    (count, sum),
                    (OWN, OWN * (OWN + 1) / 2),
                    "the server's list"
                );
            }
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn call(name: &str, mut seed: u64) -> Result<(), Error> {
    let node = node_type();
    let options = ConnectOptions {
        types: Some(Arc::new(KnownTypes::new([&node.desc]))),
        ..ConnectOptions::default()
    };
    let mut random = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let shm = loop {
        match shm() {
            Ok(shm) => break shm,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    loop {
        let lost = Connection::connect(&shm, name, &options)
            .and_then(|conn| converse(&conn, &node, &mut random));
        match lost {
            Ok(()) => {}
            // The server could not map what this heap has grown by: puddled was killed in between, and the next one does not know
            // this connection.
            Err(Error::Remote { failure, .. }) if failure.text.starts_with("mapping a segment") => {
            }
            // What was passed was right: a refusal would be a bug on this side or the other.
            Err(
                e @ (Error::Corrupt { .. }
                | Error::Unverified { .. }
                | Error::Remote { .. }
                | Error::DeadlineExceeded { .. }),
            ) => return Err(e),
            // The server, or puddled, is not there just now.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn main() {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("ok {}", DONE.load(Ordering::Relaxed));
            let _ = std::io::stdout().flush();
        }
        std::process::exit(0);
    });
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        ["serve", name, ..] => serve(name),
        ["call", name, seed, ..] => call(name, seed.parse().unwrap_or(1)),
        _ => panic!("serve NAME, or call NAME SEED"),
    };
    println!("err Ended {ended:?}");
    std::process::exit(1);
}
