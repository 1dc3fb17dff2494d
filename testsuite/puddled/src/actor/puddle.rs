//! A puddle as the actor has it, and memory that is changed in place.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_format::Uuid;
use vernal_heap::Mapped;
use vernal_journal::HomeId;
use vernal_journal::direct::Home;
use vernal_puddled_client::Granted;
use vernal_puddled_proto::PuddleInfo;

use super::local;

/// A puddle as the actor has it.
pub(super) struct Puddle {
    pub info: PuddleInfo,
    pub file: File,
    /// The working copy.
    pub words: Vec<AtomicU64>,
    pub home: Option<HomeId>,
}

pub(super) fn take(granted: Granted) -> Result<Puddle, String> {
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
    pub fn write(&self, offset: u64, text: &[u8]) {
        for (i, byte) in text.iter().enumerate() {
            let at = offset as usize + i;
            let word = &self.words[at / 8];
            let shift = at % 8 * 8;
            let old = word.load(Ordering::Relaxed);
            let new = old & !(0xff << shift) | u64::from(*byte) << shift;
            word.store(new, Ordering::Relaxed);
        }
    }

    pub fn line(&self, line: usize) -> [u64; 8] {
        std::array::from_fn(|i| self.words[line * 8 + i].load(Ordering::Relaxed))
    }

    pub fn mapped(&self) -> Mapped {
        Mapped {
            uuid: Uuid::from(self.info.id),
            addr: self.info.addr,
            size: self.info.size,
        }
    }
}

/// Memory changed in place, for a direct log.
pub(super) struct InPlace<'a>(pub &'a [Puddle]);

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
