//! A hostile client: it speaks to the registry as any client does, and then writes what it likes into its own memory.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use vernal_pool::segment::Segment as Mapping;
use vernal_rpc_core::Error;
use vernal_rpc_core::registry::{ConnGrant, Puddled, Registry, Scope, SegmentId};

use crate::conformance::PATIENCE;

/// Words of a ring segment, as `docs/format.md` draws it.
const COUNT: usize = 16;
const ENTRIES: usize = 24;
const LINE: usize = 512;
const SLOTS: usize = 528;
const SLOT_COUNT: u64 = 64;
const SIZE: u64 = 2 << 20;

/// What is tried.
pub const ATTACKS: [&str; 15] = [
    "silent",
    "short-greeting",
    "garbage-greeting",
    "huge-ring",
    "unknown-segment",
    "unready-segment",
    "foreign-segment",
    "twice",
    "noise",
    "forged-release",
    "wild-text",
    "credits",
    "directory",
    "server-kinds",
    "flood",
];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn greeting(abi: u64, segment: u64, slots: u64) -> [u8; 40] {
    let words = [u64::from_le_bytes(*b"VNRPCHI1"), 2, abi, segment, slots];
    let mut out = [0; 40];
    for (to, word) in out.chunks_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The hash that this version's greeting has, learned from a server: its own greeting says it.
fn learn_abi(registry: &Puddled, name: &str) -> Result<u64, String> {
    let grant = registry.connect(name).map_err(|e| e.to_string())?;
    let greeting = greeting(0, 0, 64);
    send(&grant.control, &greeting, SendFlags::NOSIGNAL).map_err(|e| e.to_string())?;
    let answer = receive(&grant).ok_or("no answer to a greeting with another layout")?;
    let word = answer.get(16..24).and_then(|b| b.try_into().ok());
    let _ = registry.disconnect(grant.id);
    word.map(u64::from_le_bytes)
        .ok_or_else(|| "a short answer".into())
}

/// The next packet; `None`: the server has ended the connection.
fn receive(grant: &ConnGrant) -> Option<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(30);
    let mut packet = vec![0; 64];
    while Instant::now() < until {
        let mut fds = [PollFd::new(&grant.control, PollFlags::IN)];
        let _ = poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            }),
        );
        match recv(&grant.control, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return None,
            Ok((_, n)) => {
                packet.truncate(n);
                return Some(packet);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    panic!("the server neither answers nor hangs up")
}

struct Attacker {
    registry: Puddled,
    grant: ConnGrant,
    ring: Mapping,
    id: SegmentId,
    abi: u64,
}

impl Attacker {
    fn new(name: &str) -> Result<Attacker, String> {
        let text = |e: vernal_rpc_core::Error| e.to_string();
        let registry = Puddled::new("attacker").map_err(text)?;
        let abi = learn_abi(&registry, name)?;
        let grant = registry.connect(name).map_err(text)?;
        let segment = registry
            .segment(Scope::Conn(grant.id), SIZE)
            .map_err(text)?;
        let ring = Mapping::own(&segment.file, "ring", segment.addr, segment.size)
            .map_err(|e| e.to_string())?;
        Ok(Attacker {
            registry,
            grant,
            ring,
            id: segment.id,
            abi,
        })
    }

    fn greet(&self, segment: u64, slots: u64) {
        let packet = greeting(self.abi, segment, slots);
        let _ = send(&self.grant.control, &packet, SendFlags::NOSIGNAL);
    }

    /// As an honest client does it.
    fn enter(&self) -> Result<(), String> {
        self.registry.ready(self.id).map_err(|e| e.to_string())?;
        self.greet(self.id, SLOT_COUNT);
        let welcome = receive(&self.grant).ok_or("not welcome")?;
        (welcome.len() == 40)
            .then_some(())
            .ok_or_else(|| "a strange welcome".into())
    }

    fn put(&self, word: usize, value: u64) {
        if let Some(w) = self.ring.words().get(word) {
            w.store(value, Ordering::Release);
        }
    }

    /// Publishes message `n` with these words behind word 0, and rings.
    fn publish(&self, n: u64, kind: u64, flags: u64, rest: [u64; 7]) {
        let base = SLOTS + (n % SLOT_COUNT) as usize * 8;
        for (at, word) in rest.into_iter().enumerate() {
            self.put(base + 1 + at, word);
        }
        self.put(base, (n + 1) << 16 | kind << 8 | flags);
        self.ring_bell();
    }

    fn ring_bell(&self) {
        let _ = rustix::io::write(&self.grant.wake, &[1]);
    }

    /// Whether the server ends the connection.
    fn is_put_out(&self) -> bool {
        receive(&self.grant).is_none()
    }
}

/// Connects many times and says nothing; the connections end with the result.
pub fn crowd(name: &str, count: u64) -> Result<Box<dyn std::any::Any>, String> {
    let registry = Puddled::new("crowd").map_err(|e| e.to_string())?;
    // A crowd that is faster than the server finds its queue full now and then.
    let until = Instant::now() + PATIENCE;
    let connect = |_| {
        loop {
            match registry.connect(name) {
                Err(Error::Backlog { .. }) if Instant::now() < until => {
                    std::thread::yield_now();
                }
                done => return done.map_err(|e| e.to_string()),
            }
        }
    };
    let grants: Vec<ConnGrant> = (0..count).map(connect).collect::<Result<_, _>>()?;
    Ok(Box::new((grants, registry)))
}

/// Attacks the server of a channel; says how it ended.
pub fn attack(name: &str, kind: &str, seed: u64) -> Result<String, String> {
    let mut rng = Rng(seed | 1);
    let a = Attacker::new(name)?;
    let out = |a: &Attacker| {
        Ok(if a.is_put_out() {
            "put out"
        } else {
            "still in"
        }
        .to_string())
    };
    match kind {
        "silent" => return Ok("waits".into()),
        "short-greeting" => {
            let packet = greeting(a.abi, a.id, 64);
            let cut = packet.get(..(rng.next() % 40) as usize).unwrap_or_default();
            // An empty packet is an end of file to its reader.
            let _ = send(&a.grant.control, cut, SendFlags::NOSIGNAL);
        }
        "garbage-greeting" => {
            let mut packet = vec![0u8; (rng.next() % 400) as usize + 1];
            packet.iter_mut().for_each(|b| *b = rng.next() as u8);
            let _ = send(&a.grant.control, &packet, SendFlags::NOSIGNAL);
        }
        "huge-ring" => {
            let sizes = [0, 1, 3, 1 << 13, 1 << 31, u64::MAX, 4096];
            a.registry.ready(a.id).map_err(|e| e.to_string())?;
            let at = (rng.next() % sizes.len() as u64) as usize;
            a.greet(a.id, sizes.get(at).copied().unwrap_or(0));
        }
        "unknown-segment" => a.greet(rng.next(), SLOT_COUNT),
        "unready-segment" => a.greet(a.id, SLOT_COUNT),
        "foreign-segment" => {
            // A segment of another connection of this process.
            let other = Attacker::new(name)?;
            other.registry.ready(other.id).map_err(|e| e.to_string())?;
            a.greet(other.id, SLOT_COUNT);
            return out(&a);
        }
        "twice" => {
            a.enter()?;
            a.greet(a.id, SLOT_COUNT);
        }
        "noise" => {
            a.enter()?;
            for _ in 0..2000 {
                let word = (rng.next() % 4096) as usize;
                a.put(word, rng.next());
                if rng.next().is_multiple_of(4) {
                    a.ring_bell();
                }
            }
            // Whatever it read of that, this ends it.
            for slot in 0..SLOT_COUNT as usize {
                a.put(SLOTS + slot * 8, rng.next() | 1 << 63);
            }
            a.ring_bell();
        }
        "forged-release" => {
            a.enter()?;
            a.publish(0, 5, 0, [0, 0xff << 32, rng.next(), 0, 0, 0, 0]);
        }
        "wild-text" => {
            a.enter()?;
            let lens = [4097, u64::MAX, 4096, 64, 1 << 40];
            let at = (rng.next() % lens.len() as u64) as usize;
            let offset = u64::MAX - rng.next() % 5000 * 64;
            let len = lens.get(at).copied().unwrap_or(0);
            a.publish(
                0,
                1,
                1,
                [1 << 16, 0xff << 32 | 1, offset & !63, len, 0, 0, 0],
            );
        }
        "credits" => {
            a.enter()?;
            // It says that it has taken what was never sent, then makes the server send until it looks.
            a.put(LINE, rng.next() | 1 << 40);
            for n in 0..2000 {
                a.publish(n, 1, 0, [(n + 1) << 16, 1, 0, 0, 0, 0, 0]);
                if n % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
        "directory" => {
            a.enter()?;
            match rng.next() % 3 {
                0 => a.put(COUNT, rng.next() | 1 << 20),
                1 => {
                    a.put(ENTRIES, rng.next());
                    a.put(ENTRIES + 1, 3 + rng.next() % 100);
                    a.put(COUNT, 1);
                }
                _ => {
                    // Its own ring segment as a heap: it has no heap's words, and is its to write.
                    a.put(ENTRIES, a.id);
                    a.put(ENTRIES + 1, 1);
                    a.put(COUNT, 1);
                }
            }
            // Any object makes the server look; it may refuse the argument and keep the client.
            a.publish(
                0,
                1,
                0,
                [
                    1 << 16,
                    0xff << 32 | 2,
                    a.ring.addr(),
                    crate::nodes::NODE.desc.id(),
                    0,
                    0,
                    0,
                ],
            );
            a.publish(1, 99, 0, [0; 7]);
        }
        "server-kinds" => {
            a.enter()?;
            let kinds = [2, 3, 6, 7, 10, 77, 255];
            let at = (rng.next() % kinds.len() as u64) as usize;
            a.publish(
                0,
                kinds.get(at).copied().unwrap_or(0),
                0,
                [1 << 16, 0, 0, 0, 0, 0, 0],
            );
        }
        "flood" => {
            a.enter()?;
            // Calls, and no credit for a single reply: at most a ring and a queue of replies are kept for it.
            for n in 0..20_000 {
                a.publish(n, 1, 0, [(n + 1) << 16, 1, 0, 0, 0, 0, 0]);
                if n % 32 == 31 {
                    let until = Instant::now() + Duration::from_secs(20);
                    // Its own slots may be written again when the server has taken them, which only the server's line says; it waits.
                    std::thread::sleep(Duration::from_micros(300));
                    if Instant::now() > until {
                        break;
                    }
                }
            }
        }
        other => return Err(format!("{other:?} is no attack")),
    }
    out(&a)
}
