//! memcached as Debian ships it: YCSB A to D and F (it has no scans, so no E) over its Unix socket, and over the preloaded shim.
//!
//! Server and client are the same programs in each column; only the environment differs. Records are YCSB's: 1000 bytes, keys
//! drawn by Zipf's law. All pairs are alive at once, stopped when it is not their turn.

use crate::machine::cpus;
use crate::plan::{Contender, Part, Placement, System, Wait};
use crate::process::{Folders, Process, Sample};
use crate::results::{Key, Results};
use crate::{Failure, Result};
use rustix::process::Signal;
use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Rows: share of reads, of inserts, of reads with an update in a thousand operations; the rest are updates.
const ROWS: [(&str, u64, u64, u64); 5] = [
    ("A 50/50", 500, 0, 0),
    ("B 95/5", 950, 0, 0),
    ("C GET", 1000, 0, 0),
    ("D latest", 950, 50, 0),
    ("F read-modify-write", 500, 0, 500),
];
/// Bytes of a record.
const RECORD: usize = 1000;
/// Records that are loaded.
const RECORDS: u64 = 20_000;
/// Operations of a turn.
const OPERATIONS: u64 = 4_000;

const COLUMNS: [Contender; 3] = [
    Contender {
        system: System::Uds,
        wait: Wait::Block,
    },
    Contender {
        system: System::Shim,
        wait: Wait::Poll,
    },
    Contender {
        system: System::Shim,
        wait: Wait::Block,
    },
];

fn fail<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |e| Failure(format!("memcached: {what}: {e}"))
}

/// A server and its client.
struct Pair {
    contender: Contender,
    server: Process,
    client: Process,
}

impl Pair {
    fn start(contender: Contender, library: &Path, folders: &Folders) -> Result<Pair> {
        let at = folders.run.join(format!("memcached-{contender}"));
        let preload = |command: &mut Command| {
            if contender.system == System::Shim {
                let wait = if contender.wait == Wait::Poll {
                    "spin"
                } else {
                    "block"
                };
                command
                    .env("LD_PRELOAD", library)
                    .env("VERNAL_SHIM", &at)
                    .env("VERNAL_SHIM_WAIT", wait);
            }
        };
        let mut server = Command::new("/bin/sh");
        // One worker, as one client keeps busy; `ok` is what the harness waits for.
        server
            .args([
                "-c",
                "echo ok; exec memcached -u root -t 1 -m 256 -s \"$0\"",
            ])
            .arg(&at);
        preload(&mut server);
        let log = |side: &str| {
            folders
                .log
                .join(format!("memcached-{contender}-{side}.txt"))
        };
        let server = Process::start(format!("memcached {contender}"), server, log("server"))?;
        let mut client = Command::new(std::env::current_exe().map_err(fail("this program"))?);
        client.arg("memcached").arg(&at).arg(RECORDS.to_string());
        preload(&mut client);
        let client = Process::start(format!("client {contender}"), client, log("client"))?;
        let pair = Pair {
            contender,
            server,
            client,
        };
        pair.signal(Signal::STOP)?;
        Ok(pair)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server.signal(signal)?;
        self.client.signal(signal)
    }

    fn turn(&mut self, placement: Placement, row: usize, seed: u64) -> Result<Sample> {
        let all = cpus();
        let first = all.first().copied().unwrap_or(0);
        let other = if placement == Placement::Two {
            all.get(1).copied().unwrap_or(first)
        } else {
            first
        };
        self.client.pin(&[first])?;
        self.server.pin(&[other])?;
        self.signal(Signal::CONT)?;
        let (client, server) = (&mut self.client, &mut self.server);
        let said = client.command(&format!("{row} {OPERATIONS} {seed}"), || server.alive())?;
        self.signal(Signal::STOP)?;
        match said[..] {
            [ns, units] => Ok(Sample {
                ns,
                units,
                ..Sample::default()
            }),
            _ => Err(Failure(format!(
                "memcached {}: the client said {said:?}",
                self.contender
            ))),
        }
    }
}

/// Measures; or why nothing was measured.
pub fn run(folders: &Folders, rounds: u32, results: &mut Results) -> Result<Option<String>> {
    if !Path::new("/usr/bin/memcached").exists() {
        return Ok(Some(
            "memcached is not installed: apt-get install memcached".to_owned(),
        ));
    }
    let here = std::env::current_exe().map_err(fail("this program"))?;
    let library: PathBuf = here.with_file_name("libvernal_shim.so");
    if !library.exists() {
        let shown = library.display();
        return Ok(Some(format!(
            "{shown} is not built: cargo build --release --package vernal-shim"
        )));
    }
    let columns = COLUMNS
        .iter()
        .filter(|c| !c.placements(cpus().len()).is_empty());
    let pairs = columns.map(|&c| Pair::start(c, &library, folders));
    let mut pairs = pairs.collect::<Result<Vec<Pair>>>()?;
    for round in 0..rounds {
        for (row, (name, ..)) in ROWS.iter().enumerate() {
            for at in 0..pairs.len() {
                // A different one is first in each round.
                let first = (at + round as usize) % pairs.len();
                let Some(pair) = pairs.get_mut(first) else {
                    continue;
                };
                let placements = match pair.contender.wait {
                    Wait::Poll => vec![Placement::Two],
                    _ => pair.contender.placements(cpus().len()),
                };
                for placement in placements {
                    let seed = u64::from(round) << 32 | row as u64;
                    let sample = pair.turn(placement, row, seed)?;
                    let key = Key {
                        part: Part::Memcached,
                        row: (row, (*name).to_owned()),
                        contender: pair.contender,
                        placement,
                    };
                    results.add(key, &sample);
                }
            }
        }
    }
    Ok(None)
}

/// Numbers by Zipf's law, as YCSB draws them (Gray et al., constant 0.99).
struct Zipf {
    items: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    state: u64,
}

impl Zipf {
    fn new(items: u64, seed: u64) -> Zipf {
        const THETA: f64 = 0.99;
        let zeta = |n: u64| (1..=n).map(|i| 1.0 / (i as f64).powf(THETA)).sum::<f64>();
        let all = zeta(items);
        let items = items as f64;
        Zipf {
            items,
            zeta: all,
            alpha: 1.0 / (1.0 - THETA),
            eta: (1.0 - (2.0 / items).powf(1.0 - THETA)) / (1.0 - zeta(2) / all),
            state: seed | 1,
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// The rank of an item: 0 is the most popular one.
    fn rank(&mut self) -> u64 {
        let u = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let at = u * self.zeta;
        if at < 1.0 {
            return 0;
        }
        if at < 1.0 + 0.5_f64.powf(0.99) {
            return 1;
        }
        ((self.items * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64)
            .min(self.items as u64 - 1)
    }
}

/// The client's connection: an ordinary stream.
struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Connection {
    fn call(&mut self, end: &[u8]) -> Result<()> {
        self.stream
            .write_all(&self.request)
            .map_err(fail("write"))?;
        let mut have = 0;
        self.reply.resize(4 * RECORD, 0);
        while !self
            .reply
            .get(..have)
            .is_some_and(|reply| reply.ends_with(end))
        {
            let free = self.reply.get_mut(have..).unwrap_or_default();
            match self.stream.read(free).map_err(fail("read"))? {
                0 => {
                    return Err(Failure(
                        "memcached: the connection or the reply has ended".to_owned(),
                    ));
                }
                n => have += n,
            }
        }
        self.reply.truncate(have);
        Ok(())
    }

    fn set(&mut self, key: u64, fill: u8) -> Result<()> {
        self.request.clear();
        // Infallible: writing to memory.
        let _ = write!(self.request, "set user{key:016} 0 0 {RECORD}\r\n");
        self.request
            .resize(self.request.len() + RECORD, b'a' + fill % 26);
        self.request.extend_from_slice(b"\r\n");
        self.call(b"\r\n")?;
        match self.reply[..] {
            [b'S', b'T', ..] => Ok(()),
            _ => Err(Failure(format!(
                "memcached: set: {}",
                String::from_utf8_lossy(&self.reply)
            ))),
        }
    }

    fn get(&mut self, key: u64) -> Result<()> {
        self.request.clear();
        // Infallible, as above.
        let _ = write!(self.request, "get user{key:016}\r\n");
        self.call(b"END\r\n")?;
        if self.reply.len() < RECORD {
            return Err(Failure(format!("memcached: user{key} is not there")));
        }
        Ok(())
    }
}

/// The client's process: loads the records, then executes the lines of the harness.
pub fn client(at: &Path, records: u64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    let stream = loop {
        match UnixStream::connect(at) {
            Ok(stream) => break stream,
            Err(e) if Instant::now() > until => return Err(fail("connect")(e)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut connection = Connection {
        stream,
        request: Vec::new(),
        reply: Vec::new(),
    };
    let mut next = 0;
    while next < records {
        connection.set(next, next as u8)?;
        next += 1;
    }
    let mut zipf = Zipf::new(records, 1);
    println!("ok");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(fail("input"))?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [row, operations, seed] = numbers[..] else {
            return Err(Failure(format!("memcached: not understood: {line:?}")));
        };
        let row = usize::try_from(row).ok().and_then(|row| ROWS.get(row));
        let &(name, reads, inserts, updates) =
            row.ok_or_else(|| Failure(format!("no row {line}")))?;
        zipf.state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let start = Instant::now();
        for _ in 0..operations {
            let rank = zipf.rank();
            // The popular ones lie scattered; in D they are the latest.
            let key = match name.starts_with('D') {
                true => next - 1 - rank.min(next - 1),
                false => rank.wrapping_mul(0x9e37_79b9) % records,
            };
            let kind = zipf.next() >> 20;
            match kind % 1000 {
                k if k < reads => connection.get(key)?,
                k if k < reads + inserts => {
                    connection.set(next, kind as u8)?;
                    next += 1;
                }
                k if k < reads + inserts + updates => {
                    connection.get(key)?;
                    connection.set(key, kind as u8)?;
                }
                _ => connection.set(key, kind as u8)?,
            }
        }
        println!("ok {} {operations}", start.elapsed().as_nanos());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_records_are_popular() {
        let mut zipf = Zipf::new(1000, 7);
        let ranks: Vec<u64> = (0..10_000).map(|_| zipf.rank()).collect();
        assert!(ranks.iter().all(|&rank| rank < 1000));
        let popular = ranks.iter().filter(|&&rank| rank < 10).count();
        // By the law about 39 % of all draws are among the first ten.
        assert!((3_000..5_000).contains(&popular), "{popular}");
    }
}
