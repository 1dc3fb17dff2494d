//! Journals that no program makes.

use std::os::unix::fs::FileExt;

use vernal_abi::{LINE_SIZE, line_of};
use vernal_format::{Member, Uuid};
use vernal_sys::FileMedia;

use super::{Actor, Answer, LOG_LEN, id, local, number, refused};

impl Actor {
    /// Commits a line of a puddle that was never granted: the journal is valid in itself. Nothing of it is applied by the actor.
    pub(super) fn forge(&mut self, puddle: &str, addr: &str, size: &str, text: &str) -> Answer {
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
    pub(super) fn forge_len(&mut self, name: &str, len: u64) -> Answer {
        let home = self.puddle(name, "0")?.home;
        let home = home.ok_or_else(|| local("not open for writing"))?;
        let committer = self.committer()?;
        committer.stage_set_len(home, len).map_err(local)?;
        committer.commit().map(|s| s.to_string()).map_err(local)
    }

    /// Behind the records, every line looks like a record of a quarter of the log, later than one that is missing.
    pub(super) fn lookalikes(&mut self) -> Answer {
        let (_, file) = self.client.journal().map_err(refused)?;
        let mut line = [0u8; 64];
        line[8] = 1; // generation
        line[16..24].copy_from_slice(&1_000_000u64.to_le_bytes());
        line[24..28].copy_from_slice(&((LOG_LEN / 32) as u32).to_le_bytes());
        line[28] = 1; // entries
        line[32..36].copy_from_slice(b"VRNR");
        let tail = line.repeat((LOG_LEN / 128) as usize);
        let at = vernal_journal::LOG_OFFSET + LOG_LEN / 2;
        let done = file.write_all_at(&tail, at);
        done.map(|()| String::new()).map_err(local)
    }
}
