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

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_abi::{LINE_SIZE, line_of};
use vernal_format::{Member, Uuid};
use vernal_heap::{Heap, Mapped, OwnedMemory, PoolMemory};
use vernal_journal::direct::{DirectLog, Home};
use vernal_journal::{Committer, HomeId, Journal, JournalConfig};
use vernal_puddled_client::{Client, ClientError, Granted, Import};
use vernal_puddled_proto::{Access, Id, PoolKind, PuddleInfo};
use vernal_sys::FileMedia;

/// Bytes of the actor's journal.
const LOG_LEN: u64 = 1 << 20;

type Answer = Result<String, String>;

/// A puddle as the actor has it.
struct Puddle {
    info: PuddleInfo,
    file: File,
    /// The working copy.
    words: Vec<AtomicU64>,
    home: Option<HomeId>,
}

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

fn take(granted: Granted) -> Result<Puddle, String> {
    let mut words = Vec::new();
    let mut buf = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < granted.info.size {
        granted.file.read_exact_at(&mut buf, at).map_err(local)?;
        let (parts, _) = buf.as_chunks::<8>();
        words.extend(parts.iter().map(|b| AtomicU64::new(u64::from_le_bytes(*b))));
        at += buf.len() as u64;
    }
    Ok(Puddle {
        info: granted.info,
        file: granted.file,
        words,
        home: None,
    })
}

impl Puddle {
    fn write(&self, offset: u64, text: &[u8]) {
        for (i, byte) in text.iter().enumerate() {
            let at = offset as usize + i;
            let word = &self.words[at / 8];
            let shift = at % 8 * 8;
            let old = word.load(Ordering::Relaxed);
            let new = old & !(0xff << shift) | u64::from(*byte) << shift;
            word.store(new, Ordering::Relaxed);
        }
    }

    fn line(&self, line: usize) -> [u64; 8] {
        std::array::from_fn(|i| self.words[line * 8 + i].load(Ordering::Relaxed))
    }

    fn mapped(&self) -> Mapped {
        Mapped {
            uuid: Uuid::from(self.info.id),
            addr: self.info.addr,
            size: self.info.size,
        }
    }
}

/// Memory changed in place, for a direct log.
struct InPlace<'a>(&'a [Puddle]);

impl InPlace<'_> {
    fn at(&self, addr: u64) -> std::io::Result<(&Puddle, u64)> {
        self.0
            .iter()
            .find_map(|p| {
                let offset = addr.checked_sub(p.info.addr)?;
                (offset < p.info.size).then_some((p, offset))
            })
            .ok_or_else(|| std::io::Error::other("no such address"))
    }
}

impl Home for InPlace<'_> {
    fn load(&self, addr: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let (p, offset) = self.at(addr)?;
        p.file.read_exact_at(buf, offset)
    }
    fn store(&mut self, addr: u64, data: &[u8]) -> std::io::Result<()> {
        let (p, offset) = self.at(addr)?;
        p.file.write_all_at(data, offset)
    }
    fn write_back(&mut self, _line: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn fence(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn restore_volatile(&mut self, _addr: u64, _data: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
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
            ["lookalikes"] => {
                // Behind the records, every line looks like a record of half the log, later than one that is missing.
                let (_, file) = self.client.journal().map_err(refused)?;
                let mut line = [0u8; 64];
                line[8] = 1; // generation
                line[16..24].copy_from_slice(&1_000_000u64.to_le_bytes());
                line[24..28].copy_from_slice(&((LOG_LEN / 16) as u32).to_le_bytes());
                line[28] = 1; // entries
                line[32..36].copy_from_slice(b"VRNR");
                let tail = line.repeat((LOG_LEN / 128) as usize);
                let at = vernal_journal::LOG_OFFSET + LOG_LEN / 2;
                let done = file.write_all_at(&tail, at);
                done.map(|()| String::new()).map_err(local)
            }
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

    fn open(&mut self, name: &str, how: &str) -> Answer {
        let access = match how {
            "r" => Access::Read,
            "s" => Access::Snapshot,
            _ => Access::Write,
        };
        let opened = self.client.open(name, access).map_err(refused)?;
        let mut open = Open {
            id: opened.pool.id,
            kind: opened.pool.kind,
            writes: access == Access::Write,
            puddles: Vec::new(),
            fresh: Vec::new(),
        };
        let serve = open.writes && open.kind == PoolKind::Buffered;
        for granted in opened.puddles {
            let puddle = take(granted)?;
            open.puddles
                .push(if serve { self.serve(puddle)? } else { puddle });
        }
        let infos: Vec<String> = open
            .puddles
            .iter()
            .map(|p| format!("{} {:#x} {}", p.info.id, p.info.addr, p.info.size))
            .collect();
        self.pools.insert(name.to_owned(), open);
        Ok(infos.join(" "))
    }

    fn refresh(&mut self, name: &str) -> Answer {
        let pool = self.pool(name)?.id;
        let opened = self.client.refresh(pool).map_err(refused)?;
        let puddles = opened
            .puddles
            .into_iter()
            .map(take)
            .collect::<Result<Vec<_>, _>>()?;
        let text = puddles.len().to_string();
        if let Some(pool) = self.pools.get_mut(name) {
            pool.puddles = puddles;
        }
        Ok(text)
    }

    fn committer(&mut self) -> Result<&mut Committer<FileMedia, FileMedia>, String> {
        if self.committer.is_none() {
            let (info, file) = self.client.journal().map_err(refused)?;
            self.journal = Some(file.try_clone().map_err(local)?);
            let media = FileMedia::from_file(file).map_err(local)?;
            let config = JournalConfig {
                uuid: Uuid::from(info.id),
                name: info.name,
                log_len: LOG_LEN,
            };
            let journal = Journal::create(media, config).map_err(local)?;
            self.committer = Some(Committer::new(journal));
        }
        self.committer.as_mut().ok_or_else(|| local("no journal"))
    }

    /// Makes the journal serve a puddle.
    fn serve(&mut self, mut puddle: Puddle) -> Result<Puddle, String> {
        let media = puddle
            .file
            .try_clone()
            .and_then(FileMedia::from_file)
            .map_err(local)?;
        let member = Member {
            file: Uuid::from(puddle.info.id),
            base_line: line_of(puddle.info.addr),
            line_count: puddle.info.size / LINE_SIZE,
            committed_len: puddle.info.size,
        };
        let home = self
            .committer()?
            .add_granted(media, "a puddle", member)
            .map_err(local)?;
        puddle.home = Some(home);
        Ok(puddle)
    }

    fn commit(&mut self) -> Answer {
        let Some(committer) = &mut self.committer else {
            return Err(local("nothing is open for writing"));
        };
        for pool in self.pools.values().filter(|p| p.writes) {
            for p in pool.puddles.iter().chain(&pool.fresh) {
                let mut bytes = vec![0u8; p.info.size as usize];
                p.file.read_exact_at(&mut bytes, 0).map_err(local)?;
                let first = line_of(p.info.addr);
                for (i, old) in bytes.as_chunks::<64>().0.iter().enumerate() {
                    let (words, _) = old.as_chunks::<8>();
                    let home: [u64; 8] = std::array::from_fn(|k| u64::from_le_bytes(words[k]));
                    committer.stage_line(first + i as u64, &p.line(i), &home);
                }
            }
        }
        committer.commit().map(|s| s.to_string()).map_err(local)
    }

    fn close(&mut self, name: &str) -> Answer {
        let pool = self
            .pools
            .remove(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let id = pool.id;
        if let Some(committer) = &mut self.committer {
            for p in pool.puddles.iter().chain(&pool.fresh) {
                if let Some(home) = p.home {
                    committer.remove_granted(home).map_err(local)?;
                }
            }
        }
        drop(pool);
        self.client
            .close(id)
            .map(|()| String::new())
            .map_err(refused)
    }

    /// Makes the granted puddles part of the heap, in memory.
    fn adopt(&mut self, name: &str) -> Answer {
        let pool = self
            .pools
            .get_mut(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let mut memory = OwnedMemory::new();
        let copy = |p: &Puddle| {
            p.words
                .iter()
                .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)))
                .collect::<Vec<_>>()
        };
        for p in pool.puddles.iter().chain(&pool.fresh) {
            memory.add_words(p.info.addr, copy(p));
        }
        let mapped: Vec<Mapped> = pool.puddles.iter().map(Puddle::mapped).collect();
        let heap = Heap::open(&memory, &mapped).map_err(local)?;
        for p in &pool.fresh {
            heap.add_puddle(p.mapped()).map_err(local)?;
        }
        drop(heap);
        for p in pool.puddles.iter().chain(&pool.fresh) {
            let words = memory
                .words(p.info.addr, p.words.len())
                .ok_or_else(|| local("the heap's memory"))?;
            for (to, from) in p.words.iter().zip(words) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        let fresh = std::mem::take(&mut pool.fresh);
        pool.puddles.extend(fresh);
        Ok(String::new())
    }

    /// Takes a puddle out of the heap (in memory), commits that, and makes the journal serve it no more.
    fn leave(&mut self, name: &str, puddle: &str) -> Answer {
        let gone = id(puddle)?;
        let pool = self
            .pools
            .get_mut(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let mut memory = OwnedMemory::new();
        for p in &pool.puddles {
            let words = p.words.iter();
            let copy = words.map(|w| AtomicU64::new(w.load(Ordering::Relaxed)));
            memory.add_words(p.info.addr, copy.collect());
        }
        let mapped: Vec<Mapped> = pool.puddles.iter().map(Puddle::mapped).collect();
        let heap = Heap::open(&memory, &mapped).map_err(local)?;
        heap.remove_puddle(Uuid::from(gone)).map_err(local)?;
        drop(heap);
        for p in &pool.puddles {
            let words = memory
                .words(p.info.addr, p.words.len())
                .ok_or_else(|| local("the heap's memory"))?;
            for (to, from) in p.words.iter().zip(words) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.commit()?;
        let pool = self.pools.get_mut(name).ok_or_else(|| local("no pool"))?;
        let at = pool.puddles.iter().position(|p| p.info.id == gone);
        let left = at.map(|at| pool.puddles.remove(at));
        let home = left.as_ref().and_then(|p| p.home);
        if let (Some(home), Some(committer)) = (home, &mut self.committer) {
            committer.remove_granted(home).map_err(local)?;
        }
        Ok(String::new())
    }

    /// Commits a line of a puddle that was never granted: the journal is valid in itself. Nothing of it is applied by the actor.
    fn forge(&mut self, puddle: &str, addr: &str, size: &str, text: &str) -> Answer {
        let (addr, size) = (number(addr)?, number(size)?);
        let scratch = tempfile::tempfile().map_err(local)?;
        scratch.set_len(size).map_err(local)?;
        let media = FileMedia::from_file(scratch).map_err(local)?;
        let member = Member {
            file: Uuid::from(id(puddle)?),
            base_line: line_of(addr),
            line_count: size / LINE_SIZE,
            committed_len: size,
        };
        let committer = self.committer()?;
        committer
            .add_granted(media, "a victim", member)
            .map_err(local)?;
        let mut bytes = [0; 64];
        let len = text.len().min(64);
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        let (words, _) = bytes.as_chunks::<8>();
        let work: [u64; 8] = std::array::from_fn(|i| u64::from_le_bytes(words[i]));
        // The line behind the headers of a puddle with one chunk.
        let line = line_of(addr) + 8192 / LINE_SIZE;
        committer.stage_line(line, &work, &[0; 8]);
        committer.commit().map(|s| s.to_string()).map_err(local)
    }

    /// Commits another length of a puddle.
    fn forge_len(&mut self, name: &str, len: u64) -> Answer {
        let home = self.puddle(name, "0")?.home;
        let home = home.ok_or_else(|| local("not open for writing"))?;
        let committer = self.committer()?;
        committer.stage_set_len(home, len).map_err(local)?;
        committer.commit().map(|s| s.to_string()).map_err(local)
    }

    fn log(&mut self) -> Result<&mut DirectLog<FileMedia>, String> {
        if self.log.is_none() {
            let (info, file) = self.client.log(64 << 10, None).map_err(refused)?;
            let media = FileMedia::from_file(file).map_err(local)?;
            let header = vernal_format::LogHeader {
                file: info.id.into(),
                log: info.log.into(),
                space: info.space.into(),
                position: info.position,
                len: info.size,
            };
            let log = DirectLog::new(media, &header, 1, vernal_journal::direct::NoSupply);
            self.log = Some(log);
        }
        self.log.as_mut().ok_or_else(|| local("no log"))
    }

    /// Begins a transaction on a direct pool, logs a place and changes it.
    fn undo(&mut self, name: &str, offset: u64, text: &str) -> Answer {
        self.log()?;
        let pool = self
            .pools
            .get(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let root = pool.puddles.first().ok_or_else(|| local("no puddle"))?;
        let addr = root.info.addr + offset;
        let mut home = InPlace(&pool.puddles);
        let log = self.log.as_mut().ok_or_else(|| local("no log"))?;
        if log.depth() == 0 {
            log.begin().map_err(local)?;
        }
        log.undo(&mut home, addr, text.len() as u64)
            .map_err(local)?;
        home.store(addr, text.as_bytes()).map_err(local)?;
        Ok(String::new())
    }

    /// Logs an undo entry for an address that is not the actor's.
    fn undo_at(&mut self, addr: u64, text: &str) -> Answer {
        let log = self.log()?;
        if log.depth() == 0 {
            log.begin().map_err(local)?;
        }
        /// Claims that every address holds the same text.
        struct Anywhere(Vec<u8>);
        impl Home for Anywhere {
            fn load(&self, _addr: u64, buf: &mut [u8]) -> std::io::Result<()> {
                for (to, from) in buf.iter_mut().zip(&self.0) {
                    *to = *from;
                }
                Ok(())
            }
            fn store(&mut self, _addr: u64, _data: &[u8]) -> std::io::Result<()> {
                Ok(())
            }
            fn write_back(&mut self, _line: u64) -> std::io::Result<()> {
                Ok(())
            }
            fn fence(&mut self) -> std::io::Result<()> {
                Ok(())
            }
            fn restore_volatile(&mut self, _addr: u64, _data: &[u8]) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut home = Anywhere(text.as_bytes().to_vec());
        let done = log.undo(&mut home, addr, text.len() as u64);
        done.map(|()| String::new()).map_err(local)
    }

    fn end_tx(&mut self) -> Answer {
        let puddles: Vec<&Puddle> = self.pools.values().flat_map(|p| &p.puddles).collect();
        let _ = puddles;
        let pool = self
            .pools
            .values()
            .next()
            .ok_or_else(|| local("nothing is open"))?;
        let mut home = InPlace(&pool.puddles);
        let log = self.log.as_mut().ok_or_else(|| local("no log"))?;
        let done = log.commit(&mut home);
        done.map(|()| String::new()).map_err(local)
    }

    /// Writes an empty heap with one puddle, or what fits, into an import.
    fn begun(&mut self, begun: Result<Import, ClientError>, name: &str) -> Answer {
        let import = begun.map_err(refused)?;
        let mut memory = OwnedMemory::new();
        for p in &import.puddles {
            memory.add_zeroed(p.info.addr, p.info.size);
        }
        let mapped: Vec<Mapped> = import
            .puddles
            .iter()
            .map(|p| Mapped {
                uuid: Uuid::from(p.info.id),
                addr: p.info.addr,
                size: p.info.size,
            })
            .collect();
        let identity = vernal_heap::PoolIdentity {
            uuid: Uuid::from(import.id),
            label: name.to_owned(),
            direct: false,
        };
        if let Some((root, rest)) = mapped.split_first() {
            Heap::format_root(&memory, *root, &identity).map_err(local)?;
            let heap = Heap::open(&memory, &[*root]).map_err(local)?;
            for p in rest {
                heap.add_puddle(*p).map_err(local)?;
            }
        }
        for (p, (_, words)) in import.puddles.iter().zip(memory.areas()) {
            let bytes: Vec<u8> = words
                .iter()
                .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
                .collect();
            p.file.write_all_at(&bytes, 0).map_err(local)?;
        }
        let text = import.id.to_string();
        self.import = Some(import);
        Ok(text)
    }

    /// Gives the directory of a copied root puddle the identities of the copy.
    fn rename(&mut self, import: &Import) -> Result<(), String> {
        use vernal_format::puddle::{DIRECTORY_ENTRY_WORDS, DirectorySlot};
        let root = import.puddles.first().ok_or_else(|| local("no puddle"))?;
        let page = root.info.size / vernal_abi::puddle::CHUNK_SIZE * 4096;
        for (slot, p) in import.puddles.iter().enumerate() {
            let at = page + DirectorySlot::offset(slot);
            let mut bytes = [0; DIRECTORY_ENTRY_WORDS * 8];
            root.file.read_exact_at(&mut bytes, at).map_err(local)?;
            let (parts, _) = bytes.as_chunks::<8>();
            let words = std::array::from_fn(|i| u64::from_le_bytes(parts[i]));
            let entry = DirectorySlot::parse(&words).map_err(local)?;
            let mut entry = entry.ok_or_else(|| local("an empty slot"))?;
            entry.uuid = Uuid::from(p.info.id);
            let words = entry.encode();
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            root.file.write_all_at(&bytes, at).map_err(local)?;
        }
        Ok(())
    }
}
