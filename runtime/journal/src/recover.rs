//! Recovery of one file: from whatever a crash left to the last commit.
//!
//! Recovery validates every record before it applies the first, so that an error leaves the file as it was found. It can
//! crash at any point and be repeated: it replays the same records onto whatever is there.

use vernal_abi::LINE_SIZE;
use vernal_format::{Entry, Meta, Superblock, Uuid, WORDS_PER_LINE};
use vernal_sys::Media;

use crate::apply::{apply_line, apply_run};
use crate::error::RecoveryError;
use crate::meta_file::{MetaFile, Recovered, Unrecovered};
use crate::reader::{JournalReader, Log, LogEnd, RecordRef};

/// What recovery found, and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The journal that was replayed; `None` when the file was clean.
    pub journal: Option<Uuid>,
    /// Records alive in the journal.
    pub records: u64,
    /// Entries of them that concern this file.
    pub entries: u64,
    /// Sequence of the last record (0: none).
    pub last_sequence: u64,
    /// Length of the file as it was found.
    pub found_len: u64,
    /// Its committed length.
    pub committed_len: u64,
}

/// What the first pass over the journal learns.
struct Survey<'j, J> {
    report: RecoveryReport,
    /// The journal's log, with what of it is in memory already.
    log: Option<Log<'j, J>>,
    /// Length of the file when the journal's generation began.
    start_len: u64,
}

/// Brings `home` to the last commit: replays the journal that `meta` names, cuts or extends the file to its committed
/// length, makes it durable, and says so in the metadata. A clean file is only checked, and `journal` ignored.
pub fn recover_home<M: Media, J: Media, H: Media>(
    meta: MetaFile<M, Unrecovered>,
    journal: Option<&JournalReader<J>>,
    home: &mut H,
) -> Result<(MetaFile<M, Recovered>, RecoveryReport), RecoveryError> {
    let Survey {
        report,
        log,
        start_len,
    } = survey(&meta, journal, home)?;
    let Some(mut log) = log else {
        return Ok((meta.into_recovered(), report));
    };
    replay(meta.meta(), meta.name(), &mut log, home, start_len)?;
    home.persist()
        .map_err(|e| RecoveryError::io(meta.name(), "flushing the file", e))?;
    let name = meta.name().to_owned();
    let mut meta = meta.into_recovered();
    meta.set_clean(report.committed_len).map_err(|e| match e {
        crate::JournalError::Io { name, op, source } => RecoveryError::Io { name, op, source },
        crate::JournalError::Format { name, source } => RecoveryError::Format { name, source },
        other => RecoveryError::io(&name, "writing", std::io::Error::other(other)),
    })?;
    Ok((meta, report))
}

/// What [`recover_home`] would do, without changing anything.
pub fn check_home<M: Media, J: Media, H: Media>(
    meta: &MetaFile<M, Unrecovered>,
    journal: Option<&JournalReader<J>>,
    home: &H,
) -> Result<RecoveryReport, RecoveryError> {
    survey(meta, journal, home).map(|s| s.report)
}

/// The first pass: checks everything that recovery relies on.
fn survey<'j, M: Media, J: Media, H: Media>(
    meta_file: &MetaFile<M, Unrecovered>,
    journal: Option<&'j JournalReader<J>>,
    home: &H,
) -> Result<Survey<'j, J>, RecoveryError> {
    let meta = meta_file.meta();
    let mut report = RecoveryReport {
        journal: None,
        records: 0,
        entries: 0,
        last_sequence: 0,
        found_len: home.len(),
        committed_len: home.len(),
    };
    let truncated = |expected| RecoveryError::Truncated {
        name: meta_file.name().to_owned(),
        len: home.len(),
        expected,
    };
    let Some((uuid, path)) = meta_file.needed_journal() else {
        if home.len() < meta.committed_len {
            return Err(truncated(meta.committed_len));
        }
        return Ok(Survey {
            start_len: report.committed_len,
            report,
            log: None,
        });
    };
    let Some(journal) = journal else {
        let path = String::from_utf8_lossy(path).into_owned();
        return Err(RecoveryError::JournalMissing {
            name: meta_file.name().to_owned(),
            path,
        });
    };
    if journal.uuid() != uuid {
        return Err(RecoveryError::WrongJournal {
            name: meta_file.name().to_owned(),
            journal: journal.name().to_owned(),
            expected: uuid,
            found: journal.uuid(),
        });
    }
    let member = journal.superblock().member(meta.file).map(|(_, m)| m);
    let Some(member) =
        member.filter(|m| m.base_line == meta.base_line() && m.line_count == meta.line_count())
    else {
        return Err(RecoveryError::NotAMember {
            journal: journal.name().to_owned(),
            name: meta_file.name().to_owned(),
            file: meta.file,
        });
    };
    let start_len = member.committed_len;
    let (mut shortest, mut last) = (start_len, start_len);
    let mut log = journal.log()?;
    let scan = log.scan(|record| {
        validate(
            journal.name(),
            journal.superblock(),
            record,
            |entry| match entry {
                Entry::Line { line, .. } | Entry::Run { line, .. } => {
                    report.entries += u64::from(member.contains(line));
                }
                Entry::SetLen { base_line, len } if base_line == member.base_line => {
                    report.entries += 1;
                    last = len;
                    shortest = shortest.min(len);
                }
                Entry::SetLen { .. } => {}
            },
        )
    })?;
    if let LogEnd::Damaged { later } = scan.end {
        return Err(RecoveryError::Damaged {
            name: journal.name().to_owned(),
            sequence: scan.next_sequence,
            offset: scan.bytes,
            later,
        });
    }
    // Between two lengths a crash leaves either; below all of them, somebody else cut the file.
    if home.len() < shortest {
        return Err(truncated(shortest));
    }
    report.journal = Some(uuid);
    report.records = scan.records;
    report.last_sequence = if scan.records == 0 {
        0
    } else {
        scan.next_sequence.saturating_sub(1)
    };
    report.committed_len = last;
    Ok(Survey {
        report,
        log: Some(log),
        start_len,
    })
}

/// Checks every entry of a record whose checksum is right, and shows it to `see`.
fn validate(
    name: &str,
    sb: &Superblock,
    record: RecordRef<'_>,
    mut see: impl FnMut(Entry<'_>),
) -> Result<(), RecoveryError> {
    let sequence = record.header.sequence;
    for entry in record.entries() {
        let entry = entry.map_err(|problem| RecoveryError::InvalidRecord {
            name: name.to_owned(),
            sequence,
            problem,
        })?;
        match entry {
            Entry::Line { line, .. } if sb.member_at(line).is_none() => {
                return Err(RecoveryError::ForeignLine {
                    name: name.to_owned(),
                    sequence,
                    line,
                });
            }
            Entry::Line { .. } => {}
            Entry::Run { line, words } if !is_in_one_member(sb, line, words) => {
                return Err(RecoveryError::ForeignLine {
                    name: name.to_owned(),
                    sequence,
                    line,
                });
            }
            Entry::Run { .. } => {}
            Entry::SetLen {
                base_line: line,
                len,
            } => {
                let Some(member) = sb.member_at(line).filter(|m| m.base_line == line) else {
                    return Err(RecoveryError::ForeignLine {
                        name: name.to_owned(),
                        sequence,
                        line,
                    });
                };
                if len > member.line_count * LINE_SIZE {
                    return Err(RecoveryError::ImpossibleLength {
                        name: name.to_owned(),
                        sequence,
                        line,
                        len,
                    });
                }
            }
        }
        see(entry);
    }
    Ok(())
}

/// Whether the whole run lies in the place of one file.
fn is_in_one_member(sb: &Superblock, line: u64, words: &[u64]) -> bool {
    let last = line + (words.len() / WORDS_PER_LINE) as u64 - 1;
    sb.member_at(line).is_some_and(|m| m.contains(last))
}

/// The second pass: repeats what the commits did, from the length that the generation began with. A length that is cut
/// and extended again takes the bytes between with it, exactly as it did in the first life.
fn replay<J: Media, H: Media>(
    meta: &Meta,
    name: &str,
    log: &mut Log<'_, J>,
    home: &mut H,
    start_len: u64,
) -> Result<(), RecoveryError> {
    let base = meta.base_line();
    let mut len = start_len;
    set_len(home, name, len)?;
    log.records(|record| {
        for entry in record.entries().flatten() {
            if let Entry::SetLen {
                base_line,
                len: new,
            } = entry
                && base_line == base
            {
                len = new;
                set_len(home, name, len)?;
            }
        }
        for entry in record.entries().flatten() {
            let (line, mask, words) = match entry {
                Entry::Line { line, mask, words } => (line, Some(mask), words),
                Entry::Run { line, words } => (line, None, words),
                Entry::SetLen { .. } => continue,
            };
            let index = line.wrapping_sub(base);
            if index >= meta.line_count() {
                continue;
            }
            match mask {
                Some(mask) => apply_line(home, len, index, mask, words),
                None => apply_run(home, len, index, words),
            }
            .map_err(|e| RecoveryError::io(name, "writing the file", e))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn set_len<H: Media>(home: &mut H, name: &str, len: u64) -> Result<(), RecoveryError> {
    if home.len() == len {
        return Ok(());
    }
    home.set_len(len)
        .map_err(|e| RecoveryError::io(name, "setting the length of the file", e))
}
