//! The addresses of segments, and the file that remembers how far they went.
//!
//! Connections outlive puddled, and with them mappings that the next puddled knows nothing of. So addresses are given in a circle,
//! and the next puddled goes on where the last one stopped: the address of a living mapping comes up again only when the whole space
//! has been given out in between, and then mapping it is an error that names the mapping in the way. A crash of the machine ends all
//! processes, so the file need not be durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vernal_abi::{RPC_BASE, RPC_SIZE};
use vernal_sys::os::random_uuid;

use crate::space::{Space, SpaceError};

/// The file is written once for so many bytes of addresses.
const STEP: u64 = 4 << 30;

/// The addresses of segments.
#[derive(Debug)]
pub(crate) struct Addresses {
    space: Space,
    /// The end of the step that the file names.
    reached: u64,
    file: Option<File>,
}

impl Addresses {
    /// Goes on where `file` says that an earlier puddled stopped; anywhere if it says nothing, since other puddleds may serve the
    /// same process.
    pub fn new(file: Option<File>) -> Self {
        let saved = file.as_ref().and_then(load);
        let from = saved.unwrap_or_else(|| {
            let random =
                random_uuid().map_or(0, |[a, b, ..]| u64::from(u16::from_le_bytes([a, b])));
            RPC_BASE + random % (RPC_SIZE / STEP) * STEP
        });
        Addresses {
            space: Space::rpc(from),
            reached: from,
            file,
        }
    }

    pub fn allocate(&mut self, size: u64) -> Result<u64, SpaceError> {
        let addr = self.space.allocate(size)?;
        let end = addr + size;
        // Behind the step, or before it: the circle was closed.
        if end > self.reached || addr.saturating_add(STEP) < self.reached {
            self.reached = end.next_multiple_of(STEP);
            if let Some(file) = &self.file
                && let Err(e) = file.write_all_at(&self.reached.to_le_bytes(), 0)
            {
                tracing::warn!(error = %e, "how far addresses went cannot be written: after a restart of puddled, mappings may collide");
            }
        }
        Ok(addr)
    }

    pub fn release(&mut self, addr: u64) {
        self.space.release(addr);
    }

    pub fn used(&self) -> u64 {
        self.space.used()
    }
}

fn load(file: &File) -> Option<u64> {
    let mut bytes = [0; 8];
    let read: io::Result<()> = file.read_exact_at(&mut bytes, 0);
    let at = u64::from_le_bytes(bytes);
    let fits = (RPC_BASE..=RPC_BASE + RPC_SIZE).contains(&at) && at.is_multiple_of(STEP);
    (read.is_ok() && fits).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 2 << 20;

    #[test]
    fn a_restart_goes_on_behind() {
        let open = |file: &tempfile::NamedTempFile| Some(file.reopen().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut last = None;
        // Three times round the circle.
        for _ in 0..3 * RPC_SIZE / STEP {
            let mut addresses = Addresses::new(open(&file));
            for _ in 0..3 {
                let addr = addresses.allocate(M).unwrap();
                assert_ne!(last, Some(addr));
                last = Some(addr);
                addresses.release(addr);
            }
            assert_eq!(addresses.used(), 0);
        }
        // Nonsense is no place to go on.
        std::fs::write(file.path(), [0xff; 8]).unwrap();
        let addr = Addresses::new(open(&file)).allocate(M).unwrap();
        assert!(vernal_abi::is_rpc(addr));
    }

    #[test]
    fn given_back_addresses_are_not_the_next_ones() {
        let mut addresses = Addresses::new(None);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let addr = addresses.allocate(M).unwrap();
            assert!(seen.insert(addr));
            addresses.release(addr);
        }
    }
}
