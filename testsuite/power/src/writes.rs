//! What a guest wrote to its disk, in order, as QEMU's `blklogwrites` keeps it; and what a power cut may leave of it.
//!
//! The log begins with a sector that says how large sectors are. Each entry is a sector (where, how many sectors, flags) with the
//! data behind it. A flush is an entry without data.

use crate::{Random, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data are in the log.
    data: u64,
    /// Where it ends in the log.
    pub end: u64,
}

/// A log of writes.
#[derive(Debug)]
pub struct Writes {
    log: File,
    size: u64,
    /// All entries, the oldest first.
    pub entries: Vec<Entry>,
}

/// One crash state.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// How many entries had been written.
    pub entries: usize,
    /// How many of them the last flush had made durable.
    pub durable: usize,
}

impl Writes {
    /// Reads a log whose guest was stopped before it was killed: every entry is complete.
    pub fn read(log: File) -> Result<Writes> {
        let len = log.metadata()?.len();
        let long = |at: u64| -> Result<u64> {
            let mut bytes = [0; 8];
            log.read_exact_at(&mut bytes, at)?;
            Ok(u64::from_le_bytes(bytes))
        };
        if len < 32 || long(0)? != MAGIC {
            return Err("QEMU has written no log of the disk's writes".into());
        }
        let size = long(24)? & u64::from(u32::MAX);
        let mut entries = Vec::new();
        let mut at = size;
        while at + size <= len {
            let (sector, sectors, flags) = (long(at)?, long(at + 8)?, long(at + 16)?);
            if sectors == 0 && flags == 0 {
                break;
            }
            let data = at + size;
            let bytes = if flags & DISCARD != 0 {
                0
            } else {
                sectors * size
            };
            if data + bytes > len {
                break;
            }
            at = data + bytes;
            entries.push(Entry {
                sector,
                sectors,
                flags,
                data,
                end: at,
            });
        }
        // Stopping the guest flushes its disk, which was no flush of the guest's.
        if entries
            .last()
            .is_some_and(|e| e.flags & FLUSH != 0 && e.sectors == 0)
        {
            entries.pop();
        }
        Ok(Writes { log, size, entries })
    }

    /// The state after `entries` entries.
    pub fn cut(&self, entries: usize) -> Cut {
        let before = self.entries.iter().take(entries);
        let flush = before.enumerate().rfind(|(_, e)| e.flags & FLUSH != 0);
        Cut {
            entries,
            durable: flush.map_or(0, |(i, _)| i),
        }
    }

    /// Where the log ended at a cut.
    pub fn end_of(&self, cut: &Cut) -> u64 {
        let last = cut.entries.checked_sub(1);
        last.and_then(|i| self.entries.get(i)).map_or(0, |e| e.end)
    }

    /// Applies to `disk` what a power cut leaves: everything that a flush covered, and of each later sector either the old or the
    /// new content. `chance`: of 8 later sectors so many are new.
    pub fn apply(&self, cut: &Cut, chance: u64, random: &mut Random, disk: &File) -> Result<()> {
        for (i, entry) in self.entries.iter().take(cut.entries).enumerate() {
            if entry.flags & DISCARD != 0 || entry.sectors == 0 {
                continue;
            }
            let mut data = vec![0; (entry.sectors * self.size) as usize];
            self.log.read_exact_at(&mut data, entry.data)?;
            let durable = i < cut.durable || entry.flags & FUA != 0;
            for (k, sector) in data.chunks(self.size as usize).enumerate() {
                if durable || random.below(8) < chance {
                    disk.write_all_at(sector, (entry.sector + k as u64) * self.size)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SECTOR: u64 = 512;

    /// A log of these entries: sector, sectors, flags; each sector is filled with the number of its entry, from 1.
    fn log(entries: &[(u64, u64, u64)]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let mut head = [0; SECTOR as usize];
        head[..8].copy_from_slice(&MAGIC.to_le_bytes());
        head[24..28].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        file.write_all(&head).unwrap();
        for (i, (sector, sectors, flags)) in entries.iter().enumerate() {
            let mut head = [0; SECTOR as usize];
            for (k, value) in [sector, sectors, flags].into_iter().enumerate() {
                head[k * 8..k * 8 + 8].copy_from_slice(&value.to_le_bytes());
            }
            file.write_all(&head).unwrap();
            let data = vec![i as u8 + 1; (sectors * SECTOR) as usize];
            file.write_all(&data).unwrap();
        }
        file
    }

    fn disk(writes: &Writes, entries: usize, chance: u64) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * SECTOR).unwrap();
        let cut = writes.cut(entries);
        writes.apply(&cut, chance, &mut Random(1), &file).unwrap();
        let mut bytes = vec![0; 8 * SECTOR as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.chunks(SECTOR as usize).map(|s| s[0]).collect()
    }

    #[test]
    fn what_a_flush_covered_stays_and_the_rest_may_go() {
        let entries = [(0, 2, 0), (1, 1, 0), (0, 0, FLUSH), (3, 2, 0), (5, 1, FUA)];
        let writes = Writes::read(log(&entries)).unwrap();
        assert_eq!(writes.entries.len(), 5);
        assert_eq!(disk(&writes, 5, 0), [1, 2, 0, 0, 0, 5, 0, 0]);
        assert_eq!(disk(&writes, 5, 8), [1, 2, 0, 4, 4, 5, 0, 0]);
        // Before the flush, nothing is sure.
        assert_eq!(disk(&writes, 2, 0), [0; 8]);
        assert_eq!(disk(&writes, 3, 0), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(writes.end_of(&writes.cut(2)), SECTOR * (1 + 3 + 2));
        assert_eq!(writes.end_of(&writes.cut(0)), 0);
    }

    #[test]
    fn a_flush_at_the_end_and_an_incomplete_entry_do_not_count() {
        let writes = Writes::read(log(&[(0, 1, 0), (0, 0, FLUSH)])).unwrap();
        assert_eq!(writes.entries.len(), 1);
        let file = log(&[(0, 1, 0), (4, 2, 0)]);
        file.set_len(SECTOR * 5).unwrap();
        assert_eq!(Writes::read(file).unwrap().entries.len(), 1);
        assert!(Writes::read(tempfile::tempfile().unwrap()).is_err());
    }
}
