//! The journal: superblock, records and recovery.

use crate::input::Input;
use crate::media::Bytes;
use vernal_abi::{TRACKED_BASE, line_of};
use vernal_format::{
    Entries, HEADER_WORDS, LOG_OFFSET, MAX_MEMBERS, Member, MemberPath, Meta, MetaState, RecordKey,
    SLOT_LEN, Slot, Superblock, Uuid, seal_record,
};
use vernal_journal::{JournalReader, MetaFile, check_home, recover_home};

const JOURNAL: Uuid = Uuid([9; 16]);
const FILE: Uuid = Uuid([3; 16]);
/// Lines of the file's place.
const LINES: u64 = 1 << 10;
/// Bytes of the log.
const LOG_LEN: u64 = 64 << 10;

/// Entries of one payload.
pub(crate) fn payload(bytes: &[u8]) {
    let mut input = Input(bytes);
    let count = input.u32();
    let mut words = Vec::new();
    while !input.is_empty() {
        words.push(input.u64());
    }
    for entry in Entries::new(&words, count) {
        if let Err(e) = entry {
            let _ = format!("{e:?}");
            break;
        }
    }
}

/// A journal whose records are sealed around hostile payloads, sequences and counts; recovery of a file that it serves.
pub(crate) fn recover(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut members = vec![None; MAX_MEMBERS];
    let member = Member {
        file: FILE,
        base_line: line_of(TRACKED_BASE) + u64::from(input.u8()),
        line_count: LINES,
        committed_len: u64::from(input.u16()),
    };
    members[usize::from(input.u8()) % MAX_MEMBERS] = Some(member);
    let superblock = Superblock {
        update: 1,
        journal: JOURNAL,
        generation: 1,
        first_sequence: u64::from(input.u8()),
        log_offset: LOG_OFFSET,
        log_len: LOG_LEN,
        write_unit: if input.u8() & 1 == 0 { 64 } else { 4096 },
        members,
    };
    let mut slot = [0; SLOT_LEN];
    superblock.encode(&mut slot);
    let mut journal = slot.repeat(2);
    journal.resize((LOG_OFFSET + LOG_LEN) as usize, 0);
    let path = MemberPath {
        file: FILE,
        path: b"/f.vernal".to_vec(),
    };
    let at = MemberPath::offset(0) as usize;
    let path = path.encode();
    journal[at..at + path.len()].copy_from_slice(&path);
    records(&mut input, &superblock, &mut journal);

    let meta = Meta {
        update: 1,
        file: FILE,
        home_addr: TRACKED_BASE + member.base_line * 64,
        slot_len: LINES * 64,
        committed_len: member.committed_len.min(LINES * 64),
        state: MetaState::Active {
            journal: JOURNAL,
            path: b"/j".to_vec(),
        },
    };
    let mut slot = [0; SLOT_LEN];
    meta.encode(&mut slot);
    let load = || MetaFile::load(Bytes(slot.repeat(2)), "f.vernal");
    let mut home = Bytes(vec![0x55; usize::from(input.u16())]);
    let before = home.len_of();
    let (Ok(meta), Ok(reader)) = (load(), JournalReader::open(Bytes(journal), "journal")) else {
        return;
    };
    let _ = reader.members();
    let dry = check_home(&meta, Some(&reader), &home);
    match recover_home(meta, Some(&reader), &mut home) {
        Ok((_, report)) => {
            let dry = dry.expect("recovery did what the check refused");
            assert_eq!(dry.committed_len, report.committed_len);
            assert!(home.len_of() <= LINES * 64);
        }
        Err(e) => {
            let _ = e.to_string();
            assert_eq!(
                home.len_of(),
                before,
                "a refused recovery has changed the file"
            );
        }
    }
}

impl Bytes {
    fn len_of(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Writes sealed records one behind the other, as long as the input lasts.
fn records(input: &mut Input<'_>, superblock: &Superblock, journal: &mut [u8]) {
    let key = RecordKey::new(superblock.journal, superblock.generation);
    let mut at = LOG_OFFSET as usize;
    let mut sequence = superblock.first_sequence;
    while !input.is_empty() {
        let kind = input.u8();
        let entries = u32::from(input.u8());
        let unflushed = u32::from(kind >> 4);
        let count = usize::from(input.u8() % 40);
        let mut words = vec![0; HEADER_WORDS];
        for _ in 0..count {
            // Entries for the file, and others.
            let word = match input.u8() % 5 {
                0 => vernal_format::line_entry_header(
                    superblock
                        .members
                        .iter()
                        .flatten()
                        .map(|m| m.base_line)
                        .sum::<u64>()
                        + u64::from(input.u8()),
                    input.u8(),
                ),
                1 => vernal_format::set_len_entry_header(
                    superblock
                        .members
                        .iter()
                        .flatten()
                        .map(|m| m.base_line)
                        .sum(),
                ),
                2 => u64::from(input.u16()),
                3 => {
                    // A run, with as many words as it needs, or with fewer.
                    let base = superblock.members.iter().flatten().map(|m| m.base_line);
                    let (shape, lines) = (input.u8(), u64::from(input.u8() % 24));
                    let line = base.sum::<u64>() + u64::from(shape >> 2);
                    words.push(vernal_format::run_entry_header(line, lines + 1).to_le());
                    let room = if shape & 3 == 0 { 3 } else { 8 * (lines + 1) };
                    words.extend((0..room).map(|i| (i * 0x0101).to_le()));
                    continue;
                }
                _ => input.u64(),
            };
            words.push(word.to_le());
        }
        seal_record(
            &mut words,
            &key,
            superblock.generation,
            sequence,
            entries,
            unflushed,
        );
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if kind & 3 == 3
            && let Some(byte) = bytes.get_mut(usize::from(input.u8()))
        {
            *byte ^= 1;
        }
        let Some(place) = journal.get_mut(at..at + bytes.len()) else {
            return;
        };
        place.copy_from_slice(&bytes);
        let unit = if kind & 4 == 0 {
            64
        } else {
            superblock.write_unit as usize
        };
        at = (at + bytes.len()).next_multiple_of(unit);
        sequence = sequence.wrapping_add(if kind & 8 == 0 { 1 } else { u64::from(kind) });
    }
}
