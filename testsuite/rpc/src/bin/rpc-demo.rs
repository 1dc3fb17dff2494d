//! What `cargo xtask demo rpc` runs: a server of trees, a client, and a client that cheats.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::Pool;
use vernal_pool::program::ProgramType;
use vernal_rpc_core::registry::Puddled;
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, ConnectOptions, Connection, Error,
    Failure, KnownTypes, Signature, Trust,
};
use vernal_rpc_tests::nodes::{load, store};

const NAME: &str = "demo/trees";
/// The sum of a tree, taken twice with a pause between.
const SUM_TWICE: u32 = 1;
/// A tree of the server.
const GIVE: u32 = 2;
const DEPTH: u32 = 9;

/// `struct tree { struct tree *left, *right; uint64_t value; }`.
fn tree_type() -> ProgramType {
    let child = || Shape::Pointer {
        target: "tree".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("tree", 24, 8)
        .member("left", 0, child())
        .member("right", 8, child())
        .member("value", 16, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
}

fn grow(pool: &Pool, ty: &ProgramType, depth: u32, all: &mut Vec<u64>) -> u64 {
    let node = pool.alloc(24, ty, 1).expect("a node");
    all.push(node);
    store(node + 16, all.len() as u64);
    for side in [0, 8] {
        let child = if depth > 0 {
            grow(pool, ty, depth - 1, all)
        } else {
            0
        };
        store(node + side, child);
    }
    node
}

/// Pointers are checked when a tree is admitted; that it is a tree, and no ring, is for its reader to see to.
fn sum(root: u64) -> u64 {
    let (mut sum, mut seen) = (0u64, 0);
    let mut waiting = vec![root];
    while let Some(node) = waiting.pop() {
        seen += 1;
        if node != 0 && seen < 100_000 {
            sum = sum.wrapping_add(load(node + 16));
            waiting.extend([load(node), load(node + 8)]);
        }
    }
    sum
}

fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

fn shm() -> Result<Shm, Error> {
    Ok(Shm::new(Arc::new(Puddled::new("rpc-demo")?)))
}

fn serve(ty: ProgramType) -> Result<(), Error> {
    let id = ty.desc.id();
    let options = ChannelOptions {
        types: Some(Arc::new(KnownTypes::new([&ty.desc]))),
        ..ChannelOptions::default()
    };
    let channel = Channel::open(&shm()?, NAME, options)?;
    let takes = Signature {
        argument: Some(id),
        reply: None,
    };
    channel.serve(SUM_TWICE, takes, |call: &mut Call<'_>| {
        let tree = call.object().unwrap_or(0);
        let first = sum(tree);
        std::thread::sleep(Duration::from_millis(20));
        let second = sum(tree);
        let mut out = [0; 16];
        let words = first.to_le_bytes().into_iter().chain(second.to_le_bytes());
        out.iter_mut().zip(words).for_each(|(to, from)| *to = from);
        Answer::bytes(&out)
    });
    let heap = channel.shared_heap().map(|heap| heap.pool()).transpose()?;
    let Some(heap) = heap else {
        return Ok(());
    };
    let own = grow(&heap, &ty, DEPTH, &mut Vec::new());
    let before = sum(own);
    let gives = Signature {
        argument: None,
        reply: Some(id),
    };
    channel.serve(GIVE, gives, move |_: &mut Call<'_>| {
        if sum(own) != before {
            return Err(Failure::application(1, "somebody has changed my tree"));
        }
        Ok(Answer::Shared {
            addr: own,
            type_id: id,
        })
    });
    say("serving");
    channel.run()
}

fn sum_twice(conn: &Connection, tree: u64, id: u64) -> Result<(u64, u64), Error> {
    let body = Body::Object {
        addr: tree,
        type_id: id,
    };
    let reply = conn.call(SUM_TWICE, body, &CallOptions::default())?;
    let word = |at: usize| {
        let bytes = reply
            .bytes()
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    Ok((word(0), word(8)))
}

fn connect(ty: &ProgramType, trust: Trust) -> Result<Connection, Error> {
    let options = ConnectOptions {
        trust,
        types: Some(Arc::new(KnownTypes::new([&ty.desc]))),
        ..ConnectOptions::default()
    };
    Connection::connect(&shm()?, NAME, &options)
}

fn give(conn: &Connection, ty: &ProgramType) -> Result<vernal_rpc_core::Reply, Error> {
    let options = CallOptions {
        reply_type: Some(ty.desc.id()),
        ..CallOptions::default()
    };
    conn.call(GIVE, Body::EMPTY, &options)
}

fn client(ty: &ProgramType) -> Result<(), Error> {
    let conn = connect(ty, Trust::Verify)?;
    let heap = conn.link().heap()?;
    let mut all = Vec::new();
    let tree = grow(&heap, ty, DEPTH, &mut all);
    let (first, second) = sum_twice(&conn, tree, ty.desc.id())?;
    let right = sum(tree);
    let reply = give(&conn, ty)?;
    let given = sum(reply.object().unwrap_or(0));
    let fits = first == right && second == right && given == right;
    say(&format!(
        "{} nodes there, as many back, by pointer: {}",
        all.len(),
        if fits { "right" } else { "WRONG" }
    ));
    Ok(())
}

fn hostile(ty: &ProgramType) -> Result<(), Error> {
    let conn = connect(ty, Trust::Plain)?;
    let heap = conn.link().heap()?;
    let mut all = Vec::new();
    let tree = grow(&heap, ty, DEPTH, &mut all);
    let (mut same, mut differ, mut refused) = (0, 0, 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0usize;
            while !stop.load(Ordering::Relaxed) {
                n = n.wrapping_mul(25_214_903_917).wrapping_add(11);
                let node = all.get((n >> 16) % all.len()).copied().unwrap_or(tree);
                let word = node + [0, 8, 16].get(n % 3).copied().unwrap_or(0);
                let old = load(word);
                store(
                    word,
                    if n.is_multiple_of(2) {
                        tree
                    } else {
                        0x4141_4141_4141_4141
                    },
                );
                store(word, old);
            }
        });
        for _ in 0..30 {
            match sum_twice(&conn, tree, ty.desc.id()) {
                Ok((a, b)) if a == b => same += 1,
                Ok(_) => differ += 1,
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    say(&format!(
        "changes the tree while the server reads it: {same} calls saw one tree, {refused} were refused, {differ} saw it CHANGE"
    ));
    match sum_twice(&conn, 0x4141_4141_4140, ty.desc.id()) {
        Ok(_) => say("passes a wild pointer: TAKEN"),
        Err(e) => say(&format!("passes a wild pointer: {e}")),
    }
    let reply = give(&conn, ty)?;
    let theirs = reply.object().unwrap_or(0);
    say(&format!(
        "reads the server's own tree in place (sum {}), and now writes to it",
        sum(theirs)
    ));
    store(theirs + 16, 0);
    say("WROTE to the server's tree");
    Ok(())
}

fn main() -> ExitCode {
    let ty = tree_type();
    let done = match std::env::args().nth(1).as_deref() {
        Some("server") => serve(ty),
        Some("client") => client(&ty),
        Some("hostile") => hostile(&ty),
        _ => Err(Error::Invalid {
            what: "rpc-demo was not told what to be".into(),
            remedy: "say server, client or hostile",
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
