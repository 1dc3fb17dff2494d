//! The client process: commands on standard input, one answer a line.
//!
//! ```text
//! create NAME MODE [direct|buffered]   open NAME r|w|s          close NAME
//! write NAME PUDDLE OFFSET TEXT        commit                   read NAME PUDDLE OFFSET LENGTH
//! grow NAME BYTES                      adopt NAME               shrink NAME ID
//! forge ID ADDR BYTES TEXT             forge-len NAME BYTES     journal-bytes OFFSET TEXT
//! cut NAME PUDDLE BYTES                import NAME PUDDLES      finish | finish-open | abort
//! fork NAME                            whoami                   any request of the client, by its method's name
//! ```
//!
//! A write changes the actor's memory; `commit` stages what differs from the files and commits it with `vernal-journal`, as the runtime
//! does. `forge` commits lines of a puddle that was never granted; `adopt` makes puddles that have been granted by `grow` part of the
//! heap.

mod direct;
mod forge;
mod heap;
mod import;
mod pools;
mod puddle;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

use vernal_journal::Committer;
use vernal_journal::direct::DirectLog;
use vernal_puddled_client::{Client, ClientError, Import};
use vernal_puddled_proto::{Id, PoolKind};
use vernal_sys::FileMedia;

use puddle::{Puddle, take};

/// Bytes of the actor's journal.
const LOG_LEN: u64 = 1 << 20;

type Answer = Result<String, String>;

struct Open {
    id: Id,
    kind: PoolKind,
    writes: bool,
    puddles: Vec<Puddle>,
    /// Granted, and not yet in the heap.
    fresh: Vec<Puddle>,
}

struct Actor {
    client: Client,
    pools: BTreeMap<String, Open>,
    committer: Option<Committer<FileMedia, FileMedia>>,
    journal: Option<File>,
    log: Option<DirectLog<FileMedia>>,
    import: Option<Import>,
    /// Descriptors that outlive their pools.
    kept: Vec<OwnedFd>,
}

/// Does what standard input says until it ends.
pub fn main() -> ExitCode {
    let socket = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    let client = match Client::connect(&socket, "actor") {
        Ok(client) => client,
        Err(e) => {
            println!("err Connect {e}");
            return ExitCode::FAILURE;
        }
    };
    let mut actor = Actor {
        client,
        pools: BTreeMap::new(),
        committer: None,
        journal: None,
        log: None,
        import: None,
        kept: Vec::new(),
    };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match actor.obey(&words) {
            Ok(text) => format!("ok {text}"),
            Err(text) => format!("err {text}"),
        };
        println!("{}", answer.replace('\n', " "));
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}

fn refused(e: ClientError) -> String {
    match e.code() {
        Some(code) => format!("{code:?} {e}"),
        None => format!("Client {e}"),
    }
}

fn local(e: impl std::fmt::Display) -> String {
    format!("Actor {e}")
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| local(format!("{text}: {e}")))
}

fn mode(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8).map_err(local)
}

fn id(text: &str) -> Result<Id, String> {
    u128::from_str_radix(text, 16)
        .map(|n| Id(n.to_be_bytes()))
        .map_err(local)
}

impl Actor {
    fn obey(&mut self, words: &[&str]) -> Answer {
        match words {
            ["whoami"] => Ok(self.client.id().to_string()),
            ["create", name, m, rest @ ..] => {
                let kind = match rest {
                    ["direct", ..] => PoolKind::Direct,
                    _ => PoolKind::Buffered,
                };
                let size = rest.get(1).map_or(Ok(0), |s| number(s))?;
                let made = self.client.create(name, mode(m)?, kind, size);
                made.map(|p| p.id.to_string()).map_err(refused)
            }
            ["open", name, how] => self.open(name, how),
            ["refresh", name] => self.refresh(name),
            ["close", name] => self.close(name),
            ["drop", name] => {
                self.pools.remove(*name);
                Ok(String::new())
            }
            ["write", name, puddle, offset, text] => {
                let p = self.puddle(name, puddle)?;
                p.write(number(offset)?, text.as_bytes());
                Ok(String::new())
            }
            ["commit"] => self.commit(),
            ["read", name, puddle, offset, len] => {
                let p = self.puddle(name, puddle)?;
                let mut buf = vec![0; number(len)? as usize];
                p.file
                    .read_exact_at(&mut buf, number(offset)?)
                    .map_err(local)?;
                Ok(String::from_utf8_lossy(&buf).replace('\0', "."))
            }
            ["store", name, puddle, offset, text] => {
                let p = self.puddle(name, puddle)?;
                let done = p.file.write_all_at(text.as_bytes(), number(offset)?);
                done.map(|()| String::new()).map_err(local)
            }
            ["cut", name, puddle, len] => {
                let p = self.puddle(name, puddle)?;
                let done = p.file.set_len(number(len)?);
                done.map(|()| String::new()).map_err(local)
            }
            ["grow", name, size] => {
                let (pool, kind) = (self.pool(name)?.id, self.pool(name)?.kind);
                let granted = self.client.grow(pool, number(size)?).map_err(refused)?;
                let text = format!(
                    "{} {:#x} {}",
                    granted.info.id, granted.info.addr, granted.info.size
                );
                let puddle = take(granted)?;
                let puddle = match kind {
                    PoolKind::Buffered => self.serve(puddle)?,
                    PoolKind::Direct => puddle,
                };
                if let Some(pool) = self.pools.get_mut(*name) {
                    pool.fresh.push(puddle);
                }
                Ok(text)
            }
            ["adopt", name] => self.adopt(name),
            ["leave", name, puddle] => self.leave(name, puddle),
            ["shrink", name, puddle] => {
                let pool = self.pool(name)?.id;
                let done = self.client.shrink(pool, id(puddle)?);
                done.map(|()| String::new()).map_err(refused)
            }
            ["forge", puddle, addr, size, text] => self.forge(puddle, addr, size, text),
            ["forge-len", name, len] => self.forge_len(name, number(len)?),
            ["journal-bytes", offset, text] => {
                let (_, file) = self.client.journal().map_err(refused)?;
                let done = file.write_all_at(text.as_bytes(), number(offset)?);
                done.map(|()| String::new()).map_err(local)
            }
            ["lookalikes"] => self.lookalikes(),
            ["journal-len", len] => {
                let (_, file) = self.client.journal().map_err(refused)?;
                let done = file.set_len(number(len)?);
                done.map(|()| String::new()).map_err(local)
            }
            ["undo", name, offset, text] => self.undo(name, number(offset)?, text),
            ["undo-at", addr, text] => self.undo_at(number(addr)?, text),
            ["end-tx"] => self.end_tx(),
            ["import", name, sizes @ ..] => {
                let sizes: Vec<u64> = sizes.iter().map(|s| number(s)).collect::<Result<_, _>>()?;
                let begun =
                    self.client
                        .import_begin(name, 0o600, PoolKind::Buffered, &sizes, false);
                self.begun(begun, name)
            }
            ["clone", from, name] => {
                let begun = self.client.clone_begin(from, name, 0o600);
                let import = begun.map_err(refused)?;
                // The identities of the copy are others: the directory must say so.
                self.rename(&import)?;
                let text = import.id.to_string();
                self.import = Some(import);
                Ok(text)
            }
            ["finish"] => {
                let import = self.import.take().ok_or_else(|| local("no import"))?;
                drop(import.puddles);
                let done = self.client.import_finish(import.id);
                done.map(|p| p.id.to_string()).map_err(refused)
            }
            ["finish-open"] => {
                let import = self.import.as_ref().ok_or_else(|| local("no import"))?.id;
                let done = self.client.import_finish(import);
                done.map(|p| p.id.to_string()).map_err(refused)
            }
            ["abort"] => {
                let import = self.import.take().ok_or_else(|| local("no import"))?;
                let done = self.client.import_abort(import.id);
                done.map(|()| String::new()).map_err(refused)
            }
            ["keep", name] => {
                // As a forked child would: the pool stays open here when the connection has ended.
                let p = self.puddle(name, "0")?;
                let copy = p.file.try_clone().map_err(local)?;
                self.kept.push(copy.into());
                Ok(String::new())
            }
            ["reconnect", socket] => {
                let client = Client::connect(socket.as_ref(), "actor").map_err(refused)?;
                self.client = client;
                Ok(self.client.id().to_string())
            }
            ["is-read-only", name] => {
                let p = self.puddle(name, "0")?;
                let failed = p.file.write_all_at(b"x", 0).is_err();
                let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&p.file));
                let reopened = std::fs::OpenOptions::new().write(true).open(again).is_ok();
                Ok(format!("{failed} {reopened}"))
            }
            _ => self.request(words),
        }
    }

    fn request(&mut self, words: &[&str]) -> Answer {
        let c = &mut self.client;
        let done = match words {
            ["remove", name] => c.remove(name),
            ["set_mode", name, m] => c.set_mode(name, mode(m)?),
            ["chown", name, owner] => c.chown(name, Some(number(owner)? as u32), None),
            ["accept", name] => c.accept(name),
            ["quota", uid] => {
                return c
                    .quota(number(uid)? as u32)
                    .map(|q| format!("{q:?}"))
                    .map_err(refused);
            }
            ["set_quota", uid, bytes] => {
                return c
                    .set_quota(number(uid)? as u32, Some(number(bytes)?))
                    .map(|q| format!("{q:?}"))
                    .map_err(refused);
            }
            ["stat", name] => {
                return c
                    .stat(name)
                    .map(|(s, p)| format!("{:?} {} {:04o}", s.condition, p.len(), s.mode))
                    .map_err(refused);
            }
            ["list"] => {
                let names = |l: Vec<vernal_puddled_proto::PoolStat>| {
                    let names: Vec<String> = l.into_iter().map(|p| p.name).collect();
                    names.join(" ")
                };
                return c.list().map(names).map_err(refused);
            }
            _ => return Err(local(format!("what is {words:?}?"))),
        };
        done.map(|()| String::new()).map_err(refused)
    }

    fn pool(&self, name: &str) -> Result<&Open, String> {
        self.pools
            .get(name)
            .ok_or_else(|| local(format!("{name} is not open")))
    }

    fn puddle(&self, name: &str, index: &str) -> Result<&Puddle, String> {
        let pool = self.pool(name)?;
        let index = number(index)? as usize;
        let all = pool.puddles.iter().chain(&pool.fresh);
        all.into_iter()
            .nth(index)
            .ok_or_else(|| local(format!("{name} has no puddle {index}")))
    }
}
