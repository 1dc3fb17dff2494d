//! Recovery of logs: live entries are checked against what their owner could write, then applied, or the log is quarantined.

use std::io;

use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_DATA_MAX, LOG_GENERATIONS, LogControl, LogOrder, LogRef, LogSpace,
    SequenceRange, Uuid,
};
use vernal_sys::Media;

use super::error::{DirectError, LogProblem};
use super::reader::{LiveEntry, LogReader};

/// Where an address lies: in which of the media given to recovery, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the medium.
    pub target: usize,
    /// Offset in it.
    pub offset: u64,
}

/// What recovery did with a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogOutcome {
    /// No transaction was open.
    Idle,
    /// The open transaction's changes were undone.
    Undone {
        /// Entries applied.
        entries: usize,
    },
    /// A committed transaction's redo entries were applied.
    Redone {
        /// Entries applied.
        entries: usize,
    },
    /// The crash tore the entries of a commit: it never happened, and nothing had been changed.
    Torn,
    /// The log is invalid. Nothing was applied, and the log is as it was.
    Quarantined(LogProblem),
}

/// What recovery did with one log of a log space.
#[derive(Debug)]
pub struct LogReport {
    /// The log.
    pub log: Uuid,
    /// What was done.
    pub outcome: LogOutcome,
}

/// Checks that every live entry is one that the owner of the log could have made, and says what recovery would do. Changes
/// nothing.
///
/// `locate` names the place of `len` bytes at an address, or `None` where the owner could not write all of them.
pub fn check_log<L: Media, T: Media>(
    reader: &LogReader<L>,
    locate: &dyn Fn(u64, u64) -> Option<Place>,
    targets: &[T],
) -> LogOutcome {
    for live in reader.live() {
        if place(live, locate, targets).is_none() {
            return LogOutcome::Quarantined(LogProblem::NotWritable {
                index: live.entry.index,
                addr: live.entry.addr,
                len: live.entry.size,
            });
        }
    }
    let entries = reader.live().len();
    match reader.control().range {
        _ if reader.is_torn() => LogOutcome::Torn,
        _ if entries == 0 && reader.control().range != SequenceRange::REDO => LogOutcome::Idle,
        SequenceRange::REDO => LogOutcome::Redone { entries },
        _ => LogOutcome::Undone { entries },
    }
}

fn place<T: Media>(
    live: &LiveEntry,
    locate: &dyn Fn(u64, u64) -> Option<Place>,
    targets: &[T],
) -> Option<Place> {
    let len = u64::from(live.entry.size);
    live.entry.addr.checked_add(len)?;
    let place = locate(live.entry.addr, len)?;
    let end = place.offset.checked_add(len)?;
    (end <= targets.get(place.target)?.len()).then_some(place)
}

/// Undoes or redoes what a crash has left of a transaction. Nothing is changed unless every live entry is valid; a crash
/// inside is made up for by doing it again.
pub fn recover_log<L: Media, T: Media>(
    reader: &mut LogReader<L>,
    locate: &dyn Fn(u64, u64) -> Option<Place>,
    targets: &mut [T],
) -> Result<LogOutcome, DirectError> {
    let outcome = check_log(reader, locate, targets);
    match outcome {
        LogOutcome::Idle | LogOutcome::Quarantined(_) => return Ok(outcome),
        _ => {}
    }
    let log = reader.uuid();
    let failed = |doing| move |source| DirectError::Io { log, doing, source };
    let mut touched = vec![false; targets.len()];
    let live = reader.live();
    // Backward entries first, the last one first: where two of them name one place, the older value stays.
    let backward = live
        .iter()
        .rev()
        .filter(|l| l.entry.order == LogOrder::Backward);
    let forward = live.iter().filter(|l| l.entry.order == LogOrder::Forward);
    let mut buf = [0; LOG_DATA_MAX];
    for live in backward.chain(forward) {
        let at = place(live, locate, targets);
        let data = buf.get_mut(..live.entry.size as usize);
        let (Some(at), Some(data)) = (at, data) else {
            // Both held a moment ago.
            return Err(failed("finding the place of an entry")(io::Error::other(
                "the address map changed during recovery",
            )));
        };
        reader
            .data(live, data)
            .map_err(|e| failed("reading a log entry")(io::Error::other(e)))?;
        if let (Some(target), Some(touched)) =
            (targets.get_mut(at.target), touched.get_mut(at.target))
        {
            target
                .write(at.offset, data)
                .map_err(failed("applying a log entry"))?;
            *touched = true;
        }
    }
    for (target, _) in targets
        .iter_mut()
        .zip(touched)
        .filter(|(_, touched)| *touched)
    {
        target
            .persist()
            .map_err(failed("flushing what was recovered"))?;
    }
    // Only now, for a crash before must find the entries alive.
    end_generation(reader).map_err(failed("ending a generation"))?;
    Ok(outcome)
}

fn end_generation<L: Media>(reader: &mut LogReader<L>) -> io::Result<()> {
    let generation = reader.control().generation;
    let control = if generation + 1 < LOG_GENERATIONS {
        LogControl {
            generation: generation + 1,
            range: SequenceRange::UNDO,
        }
    } else {
        LogControl {
            generation,
            range: SequenceRange::NONE,
        }
    };
    let word = control.encode(reader.seed);
    let head = reader.files.first_mut().ok_or(io::ErrorKind::NotFound)?;
    head.write_word(LOG_CONTROL_OFFSET, word)?;
    head.persist()
}

/// Recovers every log of a log space. `open` opens the file that the space names.
///
/// Each log is recovered or quarantined by itself: their owner's threads changed different places.
pub fn recover_space<L: Media, T: Media>(
    space: &LogSpace,
    mut open: impl FnMut(&LogRef) -> io::Result<L>,
    locate: &dyn Fn(u64, u64) -> Option<Place>,
    targets: &mut [T],
) -> Result<Vec<LogReport>, DirectError> {
    let mut reports = Vec::new();
    for (log, chain) in space.chains() {
        let reader = chain.map_err(LogProblem::from).and_then(|named| {
            let files = named
                .iter()
                .map(|f| {
                    open(f).map_err(|source| LogProblem::Missing {
                        file: f.file,
                        position: f.position,
                        source,
                    })
                })
                .collect::<Result<Vec<L>, _>>()?;
            LogReader::open(files, &named)
        });
        let outcome = match reader {
            Ok(mut reader) => recover_log(&mut reader, locate, targets)?,
            Err(problem) => LogOutcome::Quarantined(problem),
        };
        reports.push(LogReport { log, outcome });
    }
    Ok(reports)
}
