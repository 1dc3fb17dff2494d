//! A process that serves and calls as it is told, over puddled's shared memory: one line asks, one line answers.
//!
//! ```text
//! serve NAME TRUST THREADS   (trust: verify | plain | process | process-verify)   stats NAME   shutdown NAME
//! connect NAME TRUST WAIT -> number                      close N
//! echo N LEN | sum N COUNT | list N COUNT | shared N | stream N COUNT | wild N ADDR TYPE
//! linger N                   (a call that is never answered; says how it ended)
//! attack NAME KIND SEED  crowd NAME COUNT   (connections that never greet)
//! tamper N COUNT ROUNDS      (sums a list that another thread keeps changing)
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vernal_pool::Pool;
use vernal_rpc_core::registry::Puddled;
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, ConnectOptions, Connection, Error,
    Failure, Sandbox, Signature, Trust, WaitPolicy,
};

use crate::conformance::{PATIENCE, number, patient, word};
use crate::nodes::{self, NODE};

/// Echoes plain bytes.
pub const ECHO: u32 = 1;
/// The sum of a list.
pub const SUM: u32 = 2;
/// A list of as many nodes, in the reply heap.
pub const LIST: u32 = 3;
/// A list of the channel's heap.
pub const SHARED: u32 = 4;
/// A stream of numbers.
pub const COUNT: u32 = 5;
/// Runs until nobody waits for it.
pub const LINGER: u32 = 6;

struct Served {
    channel: Channel,
    freed: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<(), Error>>,
}

#[derive(Default)]
struct Actor {
    shm: Option<Shm>,
    served: BTreeMap<String, Served>,
    conns: BTreeMap<u64, Connection>,
    next: u64,
    kept: Vec<Box<dyn std::any::Any>>,
}

fn trust(word: &str) -> Trust {
    match word {
        "plain" | "process" => Trust::Plain,
        _ => Trust::Verify,
    }
}

fn sandbox(word: &str) -> Sandbox {
    match word {
        "process" | "process-verify" => Sandbox::Process,
        _ => Sandbox::None,
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::application(1, error.to_string())
}

fn serve_all(channel: &Channel, freed: &Arc<AtomicU64>) {
    let node = NODE.desc.id();
    let plain = Signature::default();
    let takes = Signature {
        argument: Some(node),
        reply: None,
    };
    let gives = Signature {
        argument: None,
        reply: Some(node),
    };
    channel.serve(ECHO, plain, |call: &mut Call<'_>| {
        Answer::bytes(call.bytes())
    });
    channel.serve(SUM, takes, |call: &mut Call<'_>| {
        let (count, sum) = nodes::sum(call.object().unwrap_or(0));
        let mut out = [0; 16];
        out[..8].copy_from_slice(&count.to_le_bytes());
        out[8..].copy_from_slice(&sum.to_le_bytes());
        Answer::bytes(&out)
    });
    let count = Arc::clone(freed);
    channel.serve(LIST, gives, move |call: &mut Call<'_>| {
        let heap = call.heap().map_err(failure)?;
        let addr = nodes::list(&heap, 0..number(call.bytes()).max(1));
        let count = Arc::clone(&count);
        Ok(Answer::Object {
            addr,
            type_id: NODE.desc.id(),
            release: Box::new(move || {
                nodes::free(&heap, addr);
                count.fetch_add(1, Ordering::SeqCst);
            }),
        })
    });
    let own = channel.clone();
    let made = std::sync::OnceLock::new();
    channel.serve(SHARED, gives, move |_: &mut Call<'_>| {
        let heap = own.shared_heap().ok_or_else(|| failure("no heap"))?;
        let heap = heap.pool().map_err(failure)?;
        let addr = *made.get_or_init(|| nodes::list(&heap, 0..100));
        Ok(Answer::Shared {
            addr,
            type_id: NODE.desc.id(),
        })
    });
    channel.serve(COUNT, plain, |call: &mut Call<'_>| {
        for n in 0..number(call.bytes()) {
            call.send(Answer::Body(word(n)))?;
        }
        Ok(Answer::Ended)
    });
    channel.serve(LINGER, plain, |call: &mut Call<'_>| {
        let until = std::time::Instant::now() + PATIENCE;
        while !call.is_cancelled() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Answer::EMPTY)
    });
}

/// How an error is told: its kind, then its text.
fn tell(error: &Error) -> String {
    let kind = match error {
        Error::PeerDied { .. } => "PeerDied",
        Error::Remote { failure, .. } => return format!("err Remote {failure}"),
        Error::Unverified { .. } => "Unverified",
        Error::Corrupt { .. } => "Corrupt",
        Error::Closed { .. } => "Closed",
        Error::NotFound { .. } => "NotFound",
        Error::Taken { .. } => "Taken",
        Error::Access { .. } => "Access",
        Error::DeadlineExceeded { .. } => "Deadline",
        _ => "Other",
    };
    format!("err {kind} {error}")
}

impl Actor {
    fn shm(&mut self) -> Result<Shm, Error> {
        if self.shm.is_none() {
            self.shm = Some(Shm::new(Arc::new(Puddled::new("rpc-actor")?)));
        }
        self.shm.clone().ok_or_else(|| Error::Closed {
            what: "puddled".into(),
        })
    }

    fn conn(&self, id: u64) -> Result<&Connection, Error> {
        self.conns.get(&id).ok_or_else(|| Error::Closed {
            what: format!("connection {id}"),
        })
    }

    fn serve(&mut self, name: &str, trusted: &str, threads: u64) -> Result<String, Error> {
        let options = ChannelOptions {
            trust: trust(trusted),
            threads: threads as usize,
            types: Some(nodes::types()),
            sandbox: sandbox(trusted),
            // Longer than any machine pauses; what runs without end has a deadline of its own.
            sandbox_limit: PATIENCE,
            ..ChannelOptions::default()
        };
        let channel = Channel::open(&self.shm()?, name, options)?;
        let freed = Arc::new(AtomicU64::new(0));
        serve_all(&channel, &freed);
        let thread = channel.spawn()?;
        let served = Served {
            channel,
            freed,
            thread,
        };
        self.served.insert(name.to_owned(), served);
        Ok(String::new())
    }

    fn stats(&self, name: &str) -> Result<String, Error> {
        let served = self
            .served
            .get(name)
            .ok_or_else(|| Error::NotFound { name: name.into() })?;
        let s = served.channel.stats();
        Ok(format!(
            "clients {} ever {} calls {} corrupt {} sleeps {} freed {}",
            s.clients,
            s.clients_ever,
            s.calls,
            s.corrupt,
            s.sleeps,
            served.freed.load(Ordering::SeqCst)
        ))
    }

    fn connect(&mut self, name: &str, trusted: &str, wait: &str) -> Result<String, Error> {
        let options = ConnectOptions {
            trust: trust(trusted),
            wait: match wait {
                "spin" => WaitPolicy::Spin,
                "block" => WaitPolicy::Block,
                _ => WaitPolicy::Adaptive,
            },
            types: Some(nodes::types()),
            ..ConnectOptions::default()
        };
        let conn = Connection::connect(&self.shm()?, name, &options)?;
        self.next += 1;
        self.conns.insert(self.next, conn);
        Ok(self.next.to_string())
    }

    fn heap(conn: &Connection) -> Result<Pool, Error> {
        conn.link().heap()
    }

    fn sum(conn: &Connection, first: u64) -> Result<(u64, u64), Error> {
        let body = Body::Object {
            addr: first,
            type_id: NODE.desc.id(),
        };
        let reply = conn.call(SUM, body, &patient())?;
        let (count, sum) = reply.bytes().split_at_checked(8).unwrap_or_default();
        Ok((number(count), number(sum)))
    }

    fn object(conn: &Connection, method: u32, argument: u64) -> Result<String, Error> {
        let options = CallOptions {
            reply_type: Some(NODE.desc.id()),
            ..patient()
        };
        let reply = conn.call(method, word(argument), &options)?;
        let (count, sum) = nodes::sum(reply.object().unwrap_or(0));
        Ok(format!("{count} {sum} {:?}", reply.passed()))
    }

    /// Sums a list while another thread changes its pointers and its allocator's words: the server answers with some sum or with an
    /// error, and nothing else happens to it.
    fn tamper(conn: &Connection, count: u64, rounds: u64) -> Result<String, Error> {
        let heap = Self::heap(conn)?;
        let first = nodes::list(&heap, 0..count);
        let stop = AtomicBool::new(false);
        let (mut sums, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seed = 0x9e37_79b9_7f4a_7c15u64;
                let nodes = nodes_of(first, count);
                while !stop.load(Ordering::Relaxed) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = nodes
                        .get((seed >> 33) as usize % nodes.len())
                        .copied()
                        .unwrap_or(first);
                    let old = load_once(at);
                    let lie = match seed >> 61 {
                        0 => 0,
                        1 => at + 8,
                        2 => 0x4141_4141_4141_4141,
                        3 => vernal_abi::RPC_BASE,
                        4 => first & !0xfff,
                        5 => !7,
                        _ => first,
                    };
                    nodes::store(at, lie);
                    std::hint::spin_loop();
                    nodes::store(at, old);
                    if seed >> 59 == 7 {
                        std::thread::yield_now();
                    }
                }
            });
            for _ in 0..rounds {
                match Self::sum(conn, first) {
                    Ok(_) => sums += 1,
                    Err(Error::Remote { .. }) => refused += 1,
                    Err(e) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(e);
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })?;
        let (n, _) = Self::sum(conn, first)?;
        nodes::free(&heap, first);
        Ok(format!("{n} {sums} {refused}"))
    }

    fn call(&mut self, words: &[&str]) -> Result<String, Error> {
        let number_at = |at: usize| words.get(at).and_then(|w| parse(w)).unwrap_or(0);
        let word_at = |at: usize| words.get(at).copied().unwrap_or_default();
        let conn = number_at(1);
        match word_at(0) {
            "serve" => self.serve(word_at(1), word_at(2), number_at(3)),
            "stats" => self.stats(word_at(1)),
            "shutdown" => {
                let Some(served) = self.served.remove(word_at(1)) else {
                    return Err(Error::NotFound {
                        name: word_at(1).into(),
                    });
                };
                served.channel.shutdown(Duration::from_secs(1));
                drop(served.channel);
                served.thread.join().map_err(|_| Error::Closed {
                    what: "the server's thread".into(),
                })??;
                Ok(String::new())
            }
            "connect" => self.connect(word_at(1), word_at(2), word_at(3)),
            "close" => {
                self.conns.remove(&conn);
                Ok(String::new())
            }
            "echo" => {
                let data = vec![7; number_at(2) as usize];
                let body = Body::from_bytes(&data).unwrap_or(Body::EMPTY);
                let reply = self.conn(conn)?.call(ECHO, body, &patient())?;
                Ok((reply.bytes() == data).to_string())
            }
            "sum" => {
                let conn = self.conn(conn)?;
                let heap = Self::heap(conn)?;
                let first = nodes::list(&heap, 0..number_at(2));
                let summed = Self::sum(conn, first);
                nodes::free(&heap, first);
                summed.map(|(count, sum)| format!("{count} {sum}"))
            }
            "list" => Self::object(self.conn(conn)?, LIST, number_at(2)),
            "shared" => Self::object(self.conn(conn)?, SHARED, 0),
            "stream" => {
                let stream = self
                    .conn(conn)?
                    .stream(COUNT, word(number_at(2)), &patient())?;
                let mut count = 0u64;
                for item in stream {
                    item?;
                    count += 1;
                }
                Ok(count.to_string())
            }
            "wild" => {
                let body = Body::Object {
                    addr: number_at(2),
                    type_id: match number_at(3) {
                        0 => NODE.desc.id(),
                        id => id,
                    },
                };
                self.conn(conn)?.call(SUM, body, &patient())?;
                Ok("taken".into())
            }
            "linger" => {
                self.conn(conn)?.call(LINGER, Body::EMPTY, &patient())?;
                Ok("answered".into())
            }
            "crowd" => {
                let crowd = crate::attack::crowd(word_at(1), number_at(2));
                self.kept.push(crowd.map_err(|why| Error::Registry {
                    doing: "crowding",
                    why,
                })?);
                Ok(String::new())
            }
            "attack" => {
                let ended = crate::attack::attack(word_at(1), word_at(2), number_at(3));
                ended.map_err(|why| Error::Registry {
                    doing: "attacking",
                    why,
                })
            }
            "tamper" => Self::tamper(self.conn(conn)?, number_at(2), number_at(3)),
            other => Err(Error::Invalid {
                what: format!("{other:?} is no command"),
                remedy: "see the head of this file",
            }),
        }
    }
}

fn load_once(at: u64) -> u64 {
    nodes::load(at)
}

fn nodes_of(first: u64, count: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let mut at = first;
    while at != 0 && (all.len() as u64) < count {
        all.push(at);
        at = nodes::load(at);
    }
    all
}

fn parse(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The process.
pub fn main() -> ExitCode {
    let mut actor = Actor::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match actor.call(&words) {
            Ok(text) => format!("ok {text}"),
            Err(e) => tell(&e),
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
