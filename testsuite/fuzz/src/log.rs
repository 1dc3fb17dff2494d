//! Logs of direct pools, and the log space that lists them.

use crate::input::Input;
use crate::media::Bytes;
use vernal_abi::DIRECT_BASE;
use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_ENTRIES_OFFSET, LOG_ENTRY_HEADER, LogControl, LogEntry, LogHeader,
    LogKind, LogOrder, LogRef, LogSeed, LogSpace, SLOT_LEN, SequenceRange, Slot, Uuid,
};
use vernal_journal::direct::{LogReader, Place, recover_log};

const LOG: Uuid = Uuid([4; 16]);
const SPACE: Uuid = Uuid([6; 16]);
/// Bytes of a log file.
const LEN: u64 = 32 << 10;
/// Bytes of the memory that the log's owner could write.
const TARGET: u64 = 4096;

/// A log of one or two files: right seals around hostile entries, then recovery of the memory that they name.
pub(crate) fn recover(bytes: &[u8]) {
    let mut input = Input(bytes);
    let shape = input.u8();
    let seed = LogSeed::new(LOG);
    let mut files = Vec::new();
    let mut named = Vec::new();
    for position in 0..1 + u32::from(shape & 1) {
        let file = if position == 0 { LOG } else { Uuid([5; 16]) };
        let header = LogHeader {
            file,
            log: LOG,
            space: SPACE,
            position,
            len: LEN,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(LEN as usize, 0);
        files.push(bytes);
        named.push(LogRef {
            file,
            log: LOG,
            position,
            len: LEN,
        });
    }
    let control = LogControl {
        generation: 1,
        range: SequenceRange {
            lo: input.u8() & 15,
            hi: input.u8() & 15,
        },
    };
    let word = match shape & 6 {
        6 => input.u64(),
        _ => control.encode(seed),
    };
    let at = LOG_CONTROL_OFFSET as usize;
    files[0][at..at + 8].copy_from_slice(&word.to_le_bytes());
    let mut index = 0;
    for file in &mut files {
        let mut at = LOG_ENTRIES_OFFSET as usize;
        while let Some(place) = file.get_mut(at..)
            && !input.is_empty()
        {
            let kind = input.u8();
            if kind == 0xff {
                break;
            }
            let entry = entry(&mut input, kind, index);
            let size = entry.size as usize;
            let Some(place) = place.get_mut(..LOG_ENTRY_HEADER + size) else {
                break;
            };
            let data = input.take(size);
            for (to, from) in place.iter_mut().skip(LOG_ENTRY_HEADER).zip(data) {
                *to = *from;
            }
            entry.encode(seed, place);
            if kind & 0x40 != 0
                && let Some(byte) = place.get_mut(usize::from(input.u8()))
            {
                *byte ^= 1;
            }
            at += entry.span() as usize;
            index += 1;
        }
    }
    let files = files.into_iter().map(Bytes).collect();
    let mut reader = match LogReader::open(files, &named) {
        Ok(reader) => reader,
        Err(e) => {
            let _ = e.to_string();
            return;
        }
    };
    let locate = |addr: u64, len: u64| {
        let offset = addr.checked_sub(DIRECT_BASE)?;
        let end = offset.checked_add(len)?;
        (end <= TARGET).then_some(Place { target: 0, offset })
    };
    let mut targets = [Bytes(vec![0; TARGET as usize])];
    let _ = recover_log(&mut reader, &locate, &mut targets);
    assert_eq!(targets[0].0.len() as u64, TARGET);
}

fn entry(input: &mut Input<'_>, kind: u8, index: u32) -> LogEntry {
    LogEntry {
        addr: match input.u8() {
            0 => input.u64(),
            1 => u64::MAX - u64::from(input.u8()),
            _ => DIRECT_BASE + u64::from(input.u16() & 0x1fff),
        },
        size: match input.u8() {
            0 => input.u32() & 0xffff,
            small => u32::from(small & 63),
        },
        index: match kind & 0x20 {
            0 => index,
            _ => input.u32(),
        },
        generation: 1 + u64::from(kind == 0x80),
        unfenced: input.u8(),
        kind: match kind & 3 {
            0 => LogKind::Undo,
            1 => LogKind::Redo,
            2 => LogKind::Volatile,
            _ => LogKind::Seal,
        },
        sequence: input.u8() & 15,
        order: match kind & 4 {
            0 => LogOrder::Forward,
            _ => LogOrder::Backward,
        },
    }
}

/// A log space with a right seal; its chains.
pub(crate) fn space(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut files = Vec::new();
    while !input.is_empty() && files.len() < vernal_format::MAX_LOG_FILES {
        files.push(LogRef {
            file: Uuid([input.u8(); 16]),
            log: Uuid([input.u8() & 7; 16]),
            position: u32::from(input.u8() & 3),
            len: u64::from(input.u16()) << 12,
        });
    }
    let space = LogSpace {
        update: 1,
        uuid: SPACE,
        files,
    };
    let _ = space.chains();
    let mut slot = [0; SLOT_LEN];
    space.encode(&mut slot);
    if let Ok(read) = LogSpace::decode(&slot) {
        assert_eq!(read, space);
    }
}
