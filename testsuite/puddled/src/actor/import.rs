//! Imports and copies: what is in them before they are finished.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use vernal_format::Uuid;
use vernal_heap::{Heap, Mapped, OwnedMemory};
use vernal_puddled_client::{ClientError, Import};

use super::{Actor, Answer, local, refused};

impl Actor {
    /// Writes an empty heap with one puddle, or what fits, into an import.
    pub(super) fn begun(&mut self, begun: Result<Import, ClientError>, name: &str) -> Answer {
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
    pub(super) fn rename(&mut self, import: &Import) -> Result<(), String> {
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
