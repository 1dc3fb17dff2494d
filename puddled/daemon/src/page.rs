//! The pool page of a root puddle: written when a pool is made, and read to see which puddles were committed.
//!
//! Only the two structures that say this are looked at, from bytes that were read. Whatever else a heap holds is the business of the
//! client that opens it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE, MAX_PUDDLES};
use vernal_format::Uuid;
use vernal_format::puddle::{DIRECTORY_ENTRY_WORDS, DirectorySlot, PAGE_BYTES, PoolHead};
use vernal_heap::{Heap, Mapped, OwnedMemory, PoolIdentity};
use vernal_puddled_proto::{ErrorCode, Id, PoolKind};

use crate::fail::{Outcome, refuse};
use crate::records::PoolRecord;

/// What a pool page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    /// These puddles, the root among them.
    Named(BTreeSet<Id>),
    /// Nothing that can be believed; why.
    Damaged(String),
}

/// Writes an empty heap into the root puddle, whose bytes are zeros.
pub(crate) fn format(root: &File, record: &PoolRecord) -> Outcome<()> {
    let internal = |e: &dyn std::fmt::Display| {
        refuse(
            ErrorCode::Internal,
            format!("formatting pool {:?}: {e}", record.name),
        )
    };
    let Some(puddle) = record.puddles.first() else {
        return internal(&"it has no puddle");
    };
    // All that an empty heap has lies in the chunk headers and the page behind them.
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(puddle.addr, page_offset(puddle.size) + PAGE_BYTES);
    // The heap looks whether a puddle's last word is there.
    let last = puddle.size.saturating_sub(PAGE_BYTES);
    memory.add_zeroed(puddle.addr + last, PAGE_BYTES);
    let mapped = Mapped {
        uuid: Uuid::from(puddle.id),
        addr: puddle.addr,
        size: puddle.size,
    };
    let identity = PoolIdentity {
        uuid: Uuid::from(record.id),
        label: record.name.clone(),
        direct: record.kind == PoolKind::Direct,
    };
    if let Err(e) = Heap::format_root(&memory, mapped, &identity) {
        return internal(&e);
    }
    for (addr, words) in memory.areas() {
        // Page by page, so that what stays zero stays a hole.
        for (i, page) in words.chunks(PAGE_BYTES as usize / 8).enumerate() {
            let bytes: Vec<u8> = page
                .iter()
                .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
                .collect();
            if bytes.iter().all(|&b| b == 0) {
                continue;
            }
            let at = addr.saturating_sub(puddle.addr) + i as u64 * PAGE_BYTES;
            if let Err(e) = root.write_all_at(&bytes, at) {
                return internal(&e);
            }
        }
    }
    Ok(())
}

/// Where the pool page lies in a root puddle of `size` bytes.
fn page_offset(size: u64) -> u64 {
    size / CHUNK_SIZE * CHUNK_HEADER
}

/// Reads the pool page of `record` in its root puddle at `path`.
pub(crate) fn read(path: &Path, record: &PoolRecord) -> Page {
    match File::open(path) {
        Ok(file) => read_file(&file, record),
        Err(e) => Page::Damaged(format!("the file {} cannot be opened: {e}", path.display())),
    }
}

/// Reads the pool page of `record` in its root puddle.
pub(crate) fn read_file(root: &File, record: &PoolRecord) -> Page {
    let Some(puddle) = record.puddles.first() else {
        return Page::Damaged("the pool has no puddle".into());
    };
    let mut bytes = [0; PAGE_BYTES as usize];
    if let Err(e) = root.read_exact_at(&mut bytes, page_offset(puddle.size)) {
        return Page::Damaged(format!("its pool page cannot be read: {e}"));
    }
    let words: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| u64::from_le_bytes(*b))
        .collect();
    match named(&words) {
        Ok(named) if named.contains(&puddle.id) => Page::Named(named),
        Ok(_) => Page::Damaged(format!(
            "its pool page does not name its root puddle {}",
            puddle.id
        )),
        Err(e) => Page::Damaged(e),
    }
}

fn named(words: &[u64]) -> Result<BTreeSet<Id>, String> {
    let head = words.first_chunk().ok_or("its pool page is too short")?;
    PoolHead::parse(head).map_err(|e| e.to_string())?;
    let mut named = BTreeSet::new();
    for slot in 0..MAX_PUDDLES {
        let at = DirectorySlot::offset(slot) as usize / 8;
        let entry: Option<&[u64; DIRECTORY_ENTRY_WORDS]> =
            words.get(at..).and_then(|w| w.first_chunk());
        let entry = entry.ok_or("its pool page is too short")?;
        if let Some(entry) = DirectorySlot::parse(entry).map_err(|e| e.to_string())? {
            named.insert(Id::from(entry.uuid));
        }
    }
    Ok(named)
}
