//! Recovery: what a client's journal and logs hold is brought into the puddles that it was granted, and into nothing else.
//!
//! Everything is checked before the first byte is changed. What cannot be valid is [`Trouble::Invalid`]: then nothing was applied,
//! and journal and pools go into quarantine. Recovery can be cut short anywhere and repeated: the grant stays in the registry until all
//! is done, and metadata say of each puddle whether it is.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vernal_abi::LINE_SIZE;
use vernal_format::{Entry, LogRef, LogSpace, Uuid, WORDS_PER_LINE};
use vernal_journal::direct::{LogOutcome, LogReader, Place, check_log, recover_log};
use vernal_journal::{JournalReader, LogEnd, RecoveryError, SUPERBLOCKS_LEN, recover_home};
use vernal_puddled_proto::limits::MAX_JOURNAL;
use vernal_puddled_proto::{ErrorCode, Id, PoolKind};
use vernal_sys::{FileMedia, Media};

use crate::client::Client;
use crate::fail::{Outcome, refuse};
use crate::inject;
use crate::layout::Layout;
use crate::ops::grow_delete;
use crate::page::{self, Page};
use crate::puddle;
use crate::records::{GrantRecord, GrantedPool, PoolRecord, PuddleRecord};
use crate::state::Shared;

/// Why what a client left could not be settled.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It cannot be valid: nothing was applied.
    Invalid(String),
    /// puddled could not read or write; it may work the next time.
    Failed(String),
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Records of a journal, or entries of logs, that were replayed.
    pub replayed: u64,
    /// Puddles that could not be brought to their last commit because their files are not as they should be: pool, puddle, why.
    pub damaged: Vec<(Id, Id, String)>,
    /// How long it took to read and check the journal.
    pub checking: Duration,
}

fn invalid<T>(why: impl std::fmt::Display) -> Result<T, Trouble> {
    Err(Trouble::Invalid(why.to_string()))
}

/// A grant and the pools that it names, as they are now.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub shared: &'a Shared,
    pub grant: &'a GrantRecord,
    /// Where journal and logs lie.
    pub folder: &'a Path,
    /// The records of the pools of the grant that are still there.
    pub pools: &'a HashMap<Id, PoolRecord>,
}

impl Job<'_> {
    /// Replays what the grant's client left.
    pub fn run(&self) -> Result<Report, Trouble> {
        let mut report = Report::default();
        self.replay_journal(&mut report)?;
        self.replay_logs(&mut report)?;
        Ok(report)
    }

    /// The puddles that the client could write, and that still belong to the pool: with their pool and file.
    fn writable(&self, kind: PoolKind) -> Vec<(&PoolRecord, PuddleRecord, PathBuf)> {
        let mut all = Vec::new();
        for granted in &self.grant.pools {
            let Some(pool) = self.pools.get(&granted.pool).filter(|p| p.kind == kind) else {
                continue;
            };
            let dir = self.shared.layout.pool(pool.id);
            for (i, p) in pool.puddles.iter().enumerate() {
                // Same identity, place and size as when it was granted: else it is another puddle.
                if granted.puddles.contains(p) {
                    all.push((pool, *p, Layout::puddle(&dir, i, p.id)));
                }
            }
        }
        all
    }

    /// Identities that the client's journal may name without harm: it gave those puddles back itself, and nothing is replayed there.
    fn harmless(&self) -> HashSet<Id> {
        let granted = self.grant.pools.iter();
        let gone = |g: &GrantedPool| {
            let now: HashSet<Id> = self
                .pools
                .get(&g.pool)
                .map(|p| p.puddles.iter().map(|p| p.id).collect())
                .unwrap_or_default();
            let released = g.released.iter().copied();
            let missing = g.puddles.iter().map(|p| p.id);
            released
                .chain(missing)
                .filter(move |id| !now.contains(id))
                .collect::<Vec<_>>()
        };
        granted.flat_map(gone).collect()
    }

    fn replay_journal(&self, report: &mut Report) -> Result<(), Trouble> {
        let Some(id) = self.grant.journal else {
            return Ok(());
        };
        let puddles = self.writable(PoolKind::Buffered);
        if puddles.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let reader = self.open_journal(id)?;
        if let Some(reader) = &reader {
            self.check_journal(reader, id, &puddles)?;
        }
        report.checking = began.elapsed();
        inject::step();
        for (pool, puddle, path) in &puddles {
            match self.recover_puddle(reader.as_ref(), id, puddle, path)? {
                Ok(records) => report.replayed = report.replayed.max(records),
                Err(damage) => report.damaged.push((pool.id, puddle.id, damage)),
            }
            inject::step();
        }
        Ok(())
    }

    /// The journal; `None` when its client never got so far as to make it one.
    fn open_journal(&self, id: Id) -> Result<Option<JournalReader<FileMedia>>, Trouble> {
        let path = Layout::journal(self.folder);
        let name = path.display().to_string();
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Trouble::Invalid(format!(
                "the journal {name} is missing: restore it from a backup"
            )),
            _ => Trouble::Failed(format!("reading the journal {name}: {e}")),
        };
        let media = FileMedia::open_read_only(&path).map_err(failed)?;
        // A length is free to claim and dear to read.
        if media.len() > MAX_JOURNAL {
            return invalid(format!(
                "the journal {name} has {} bytes, and {MAX_JOURNAL} are allowed",
                media.len()
            ));
        }
        if never_made(&media).map_err(failed)? {
            return Ok(None);
        }
        let reader = JournalReader::open(media, name).map_err(trouble)?;
        if reader.uuid() != Uuid::from(id) {
            return invalid(format!(
                "the journal {} says that it is {}, and it was given the identity {id}",
                reader.name(),
                reader.uuid()
            ));
        }
        Ok(Some(reader))
    }

    /// Checks that the journal names nothing but what its client was granted, and says nothing of it that no Vernal says.
    fn check_journal(
        &self,
        reader: &JournalReader<FileMedia>,
        id: Id,
        puddles: &[(&PoolRecord, PuddleRecord, PathBuf)],
    ) -> Result<(), Trouble> {
        let name = reader.name();
        let granted: HashMap<Uuid, &PuddleRecord> = puddles
            .iter()
            .map(|(_, p, _)| (Uuid::from(p.id), p))
            .collect();
        let harmless = self.harmless();
        let sb = reader.superblock();
        for member in sb.members.iter().flatten() {
            let Some(p) = granted.get(&member.file) else {
                if harmless.contains(&Id::from(member.file)) {
                    continue;
                }
                return invalid(format!(
                    "the journal {name} serves the puddle {}, which its client was not granted",
                    member.file
                ));
            };
            let lines = p.size / LINE_SIZE;
            if vernal_abi::line_addr(member.base_line) != p.addr
                || member.line_count != lines
                || member.committed_len != p.size
            {
                return invalid(format!(
                    "the journal {name} has puddle {} at {:#x} with {} bytes in {} lines, and it is at {:#x} with {}",
                    p.id,
                    vernal_abi::line_addr(member.base_line),
                    member.committed_len,
                    member.line_count,
                    p.addr,
                    p.size
                ));
            }
        }
        let scanned = reader.scan(|record| {
            let sequence = record.header.sequence;
            for entry in record.entries() {
                let entry = entry.map_err(|problem| RecoveryError::InvalidRecord {
                    name: name.to_owned(),
                    sequence,
                    problem,
                })?;
                let (line, last) = match entry {
                    Entry::Line { line, .. } => (line, line),
                    Entry::Run { line, words } => {
                        (line, line + (words.len() / WORDS_PER_LINE) as u64 - 1)
                    }
                    Entry::SetLen { base_line, .. } => (base_line, base_line),
                };
                let Some(member) = sb.member_at(line).filter(|m| m.contains(last)) else {
                    return Err(RecoveryError::ForeignLine {
                        name: name.to_owned(),
                        sequence,
                        line,
                    });
                };
                // The length of a puddle never changes.
                if let Entry::SetLen { base_line, len } = entry
                    && (base_line != member.base_line || len != member.line_count * LINE_SIZE)
                {
                    return Err(RecoveryError::ImpossibleLength {
                        name: name.to_owned(),
                        sequence,
                        line,
                        len,
                    });
                }
            }
            Ok(())
        });
        let summary = scanned.map_err(trouble)?;
        if let LogEnd::Damaged { later } = summary.end {
            return invalid(RecoveryError::Damaged {
                name: name.to_owned(),
                sequence: summary.next_sequence,
                offset: summary.bytes,
                later,
            });
        }
        tracing::debug!(journal = %id, records = summary.records, "journal checked");
        Ok(())
    }

    /// Recovers one puddle; the inner error is damage of its files.
    fn recover_puddle(
        &self,
        reader: Option<&JournalReader<FileMedia>>,
        journal: Id,
        puddle: &PuddleRecord,
        path: &Path,
    ) -> Result<Result<u64, puddle::Damage>, Trouble> {
        let file = match restore_len(path, puddle.size) {
            Ok(file) => file,
            Err(damage) => return Ok(Err(damage)),
        };
        let meta = match puddle::open_meta(path, puddle) {
            Ok(meta) => meta,
            Err(damage) => return Ok(Err(damage)),
        };
        match meta.needed_journal() {
            None => return Ok(Ok(0)),
            Some((needed, _)) if needed != Uuid::from(journal) => {
                return Ok(Err(format!(
                    "the metadata file {} names the journal {needed}, and its writer had {journal}: restore both from one backup",
                    meta.name()
                )));
            }
            Some(_) => {}
        }
        let failed = |e: &dyn std::fmt::Display| Trouble::Failed(e.to_string());
        // A file that is no member has no commit in the journal: its writer had not begun, or has ended in order.
        let member = reader.filter(|r| r.superblock().member(Uuid::from(puddle.id)).is_some());
        let Some(reader) = member else {
            let mut meta = meta.without_journal();
            meta.set_clean(puddle.size).map_err(|e| failed(&e))?;
            return Ok(Ok(0));
        };
        let mut home = FileMedia::from_file(file).map_err(|e| failed(&e))?;
        match recover_home(meta, Some(reader), &mut home) {
            Ok((_, report)) => Ok(Ok(report.records)),
            Err(e) => Err(trouble(e)),
        }
    }

    fn replay_logs(&self, report: &mut Report) -> Result<(), Trouble> {
        if self.grant.logs.is_empty() {
            return Ok(());
        }
        let puddles = self.writable(PoolKind::Direct);
        let mut targets = Vec::with_capacity(puddles.len());
        let mut places: Vec<(PuddleRecord, usize)> = Vec::with_capacity(puddles.len());
        for (pool, puddle, path) in &puddles {
            let opened = restore_len(path, puddle.size)
                .and_then(|f| FileMedia::from_file(f).map_err(|e| e.to_string()));
            match opened {
                Ok(media) => {
                    places.push((*puddle, targets.len()));
                    targets.push(media);
                }
                Err(damage) => report.damaged.push((pool.id, puddle.id, damage)),
            }
        }
        let locate = |addr: u64, len: u64| {
            let end = addr.checked_add(len)?;
            places.iter().find_map(|(p, target)| {
                let offset = addr.checked_sub(p.addr)?;
                (end <= p.addr.checked_add(p.size)?).then_some(Place {
                    target: *target,
                    offset,
                })
            })
        };
        let mut readers = self.open_logs()?;
        for reader in &readers {
            if let LogOutcome::Quarantined(problem) = check_log(reader, &locate, &targets) {
                return invalid(format!("the log {} is not valid: {problem}", reader.uuid()));
            }
        }
        inject::step();
        for reader in &mut readers {
            match recover_log(reader, &locate, &mut targets) {
                Ok(LogOutcome::Undone { entries } | LogOutcome::Redone { entries }) => {
                    report.replayed = report
                        .replayed
                        .saturating_add(u64::try_from(entries).unwrap_or(u64::MAX));
                }
                Ok(LogOutcome::Quarantined(problem)) => {
                    return invalid(format!("the log {} is not valid: {problem}", reader.uuid()));
                }
                Ok(_) => {}
                Err(e) => return Err(Trouble::Failed(e.to_string())),
            }
            inject::step();
        }
        Ok(())
    }

    fn open_logs(&self) -> Result<Vec<LogReader<FileMedia>>, Trouble> {
        let space = LogSpace {
            update: 0,
            uuid: Uuid::default(),
            files: self
                .grant
                .logs
                .iter()
                .map(|l| LogRef {
                    file: Uuid::from(l.id),
                    log: Uuid::from(l.log),
                    position: l.position,
                    len: l.size,
                })
                .collect(),
        };
        let mut readers = Vec::new();
        for (log, chain) in space.chains() {
            let named = match chain {
                Ok(named) => named,
                Err(gap) => return invalid(gap),
            };
            let mut files = Vec::with_capacity(named.len());
            for file in &named {
                let path = Layout::log(self.folder, Id::from(file.file));
                match FileMedia::open(&path) {
                    Ok(media) => files.push(media),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        return invalid(format!("the log file {} is missing", path.display()));
                    }
                    Err(e) => {
                        return Err(Trouble::Failed(format!("reading {}: {e}", path.display())));
                    }
                }
            }
            match LogReader::open(files, &named) {
                Ok(reader) => readers.push(reader),
                Err(problem) => return invalid(format!("the log {log} is not valid: {problem}")),
            }
        }
        Ok(readers)
    }
}

fn trouble(e: RecoveryError) -> Trouble {
    match e {
        RecoveryError::Io { .. } => Trouble::Failed(e.to_string()),
        other => Trouble::Invalid(other.to_string()),
    }
}

/// Opens a puddle for recovery. A writer can have changed its file's length: what is too long is cut, for nothing there is part of
/// the pool; what is too short has lost bytes.
fn restore_len(path: &Path, size: u64) -> Result<std::fs::File, puddle::Damage> {
    if let Ok(file) = crate::layout::open_rw(path)
        && file.metadata().is_ok_and(|m| m.len() > size)
        && file.set_len(size).is_ok()
    {
        tracing::warn!(file = %path.display(), "a client had made a puddle longer; it was cut to its size");
    }
    puddle::open(path, size, true)
}

/// Whether a journal was never finished: its first superblock is written before its second, and no record before both. A second slot
/// of zeros says so, whatever a crash left of the first.
pub(crate) fn never_made<M: Media>(media: &M) -> io::Result<bool> {
    let slot = SUPERBLOCKS_LEN / 2;
    let from = slot.min(media.len());
    let len = media.len().min(SUPERBLOCKS_LEN) - from;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    media.read(from, &mut bytes)?;
    Ok(bytes.iter().all(|&b| b == 0))
}

/// The client closes a direct pool: no transaction of it may be open there.
pub(crate) fn close_direct(shared: &Shared, client: &Client, record: &PoolRecord) -> Outcome<()> {
    let folder = shared.layout.client(client.id);
    let pools = HashMap::from([(record.id, record.clone())]);
    let job = Job {
        shared,
        grant: &client.grant,
        folder: &folder,
        pools: &pools,
    };
    let readers = match job.open_logs() {
        Ok(readers) => readers,
        Err(Trouble::Invalid(why) | Trouble::Failed(why)) => {
            return refuse(
                ErrorCode::Invalid,
                format!("{why}: end the process, and its pools are recovered"),
            );
        }
    };
    let busy = readers.iter().any(|r| {
        r.live().iter().any(|l| {
            record
                .puddles
                .iter()
                .any(|p| l.entry.addr.wrapping_sub(p.addr) < p.size)
        })
    });
    if busy {
        return refuse(
            ErrorCode::Busy,
            format!(
                "pool {:?} has a transaction open: commit or abort it, then close the pool",
                record.name
            ),
        );
    }
    Ok(())
}

/// The puddles of `record` that its committed pool page does not name: growth that no commit followed. None when the page cannot be
/// believed.
pub(crate) fn unnamed(shared: &Shared, record: &PoolRecord) -> Vec<PuddleRecord> {
    if record.puddles.len() < 2 {
        return Vec::new();
    }
    let root = Layout::puddle(&shared.layout.pool(record.id), 0, record.id);
    match page::read(&root, record) {
        Page::Named(named) => record
            .puddles
            .iter()
            .skip(1)
            .filter(|p| !named.contains(&p.id))
            .copied()
            .collect(),
        Page::Damaged(why) => {
            tracing::warn!(pool = %record.name, why, "pool page not readable; puddles are kept");
            Vec::new()
        }
    }
}

/// Those of them that can go: none while others than `client` use the pool, for one of them may be about to commit.
pub(crate) fn orphans(shared: &Shared, record: &PoolRecord, client: u64) -> Vec<PuddleRecord> {
    let others = |p: &crate::state::Pool| p.users.iter().any(|u| u.client != client);
    if shared.state().pools.get(&record.id).is_none_or(others) {
        return Vec::new();
    }
    unnamed(shared, record)
}

/// The same at a close, with the registry following.
pub(crate) fn drop_orphans(
    shared: &Shared,
    client: &mut Client,
    record: &PoolRecord,
) -> Outcome<()> {
    for puddle in orphans(shared, record, client.id) {
        if let Ok(granted) = client.granted(record.id) {
            granted.puddles.retain(|p| p.id != puddle.id);
            granted.released.push(puddle.id);
        }
        shared.state().unlist(record.id, puddle.id);
        client.record_with_pool(shared, record.id)?;
        grow_delete(shared, record, &puddle)?;
    }
    Ok(())
}
