//! A call that carries nothing against the two cache lines that it has to move, in interleaved rounds.
//!
//! `cargo bench -p vernal-rpc-tests --bench round_trip`; `-- --calls N` makes N calls and nothing else, for callgrind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{
    Answer, Body, CallOptions, Channel, ChannelOptions, ConnectOptions, Connection, Signature,
    WaitPolicy,
};
use vernal_rpc_tests::local::Local;

const CALLS: u64 = 20_000;
const ROUNDS: usize = 41;

#[repr(align(128))]
struct Line(AtomicU64);

/// Both directions of a ping-pong.
struct Raw {
    there: Line,
    back: Line,
    stop: AtomicBool,
}

fn raw_round(raw: &Raw, from: u64) -> f64 {
    let start = Instant::now();
    for n in from + 1..=from + CALLS {
        raw.there.0.store(n, Ordering::Release);
        while raw.back.0.load(Ordering::Acquire) != n {}
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

fn calls(conn: &Connection, body: &Body, count: u64) -> f64 {
    let options = CallOptions::default();
    let start = Instant::now();
    for _ in 0..count {
        conn.call(1, body.clone(), &options).expect("a reply");
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn best(all: &[f64]) -> f64 {
    all.iter().copied().fold(f64::INFINITY, f64::min)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let only = args
        .iter()
        .position(|a| a == "--calls")
        .and_then(|at| args.get(at + 1)?.parse::<u64>().ok());
    let shm = Shm::new(Arc::new(Local::default()));
    let options = ChannelOptions {
        wait: WaitPolicy::Spin,
        ..ChannelOptions::default()
    };
    let channel = Channel::open(&shm, "bench", options).expect("a channel");
    channel.serve(1, Signature::default(), |call| Answer::bytes(call.bytes()));
    let server = channel.spawn().expect("a thread");
    let options = ConnectOptions {
        wait: WaitPolicy::Spin,
        ..ConnectOptions::default()
    };
    let conn = Connection::connect(&shm, "bench", &options).expect("connects");
    if let Some(count) = only {
        println!("{:.1} ns", calls(&conn, &Body::EMPTY, count));
    } else {
        interleaved(&conn);
    }
    channel.shutdown(std::time::Duration::ZERO);
    server.join().expect("no panic").expect("a clean end");
}

fn interleaved(conn: &Connection) {
    let raw = Arc::new(Raw {
        there: Line(AtomicU64::new(0)),
        back: Line(AtomicU64::new(0)),
        stop: AtomicBool::new(false),
    });
    let text = Body::from_bytes(&[7; 64]).expect("short");
    let (mut bare, mut none, mut some, mut ratio) = (vec![], vec![], vec![], vec![]);
    let mut from = 0;
    for _ in 0..ROUNDS {
        raw.stop.store(false, Ordering::Release);
        let theirs = Arc::clone(&raw);
        // The echo of the ping-pong runs during its own rounds only: the channel's thread must not share a processor with it.
        let echo = std::thread::spawn(move || {
            while !theirs.stop.load(Ordering::Acquire) {
                let n = theirs.there.0.load(Ordering::Acquire);
                theirs.back.0.store(n, Ordering::Release);
            }
        });
        let r = raw_round(&raw, from);
        from += CALLS;
        raw.stop.store(true, Ordering::Release);
        echo.join().expect("no panic");
        let n = calls(conn, &Body::EMPTY, CALLS);
        some.push(calls(conn, &text, CALLS));
        ratio.push(n / r);
        bare.push(r);
        none.push(n);
    }
    for (what, all) in [
        ("raw ping-pong", &bare),
        ("no-op call", &none),
        ("64-byte echo", &some),
    ] {
        let (middle, least) = (median(all.clone()), best(all));
        println!("{what:14} median {middle:7.1} ns   best {least:7.1} ns");
    }
    println!(
        "no-op / raw: median of rounds {:.2}, best/best {:.2}",
        median(ratio),
        best(&none) / best(&bare)
    );
}
