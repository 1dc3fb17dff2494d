//! Slots, type descriptors, puddle headers and the pool page.

use crate::input::Input;
use vernal_format::types::{TypeDesc, canonical_text};
use vernal_format::{
    LogSpace, MEMBER_PATH_LEN, MemberPath, Meta, SLOT_LEN, Slot, Superblock, newest_slot, puddle,
};
use xxhash_rust::xxh3::xxh3_64;

/// A slot with the right magic number and checksum around hostile bytes.
fn sealed<S: Slot>(body: &[u8]) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    for (to, from) in slot.iter_mut().skip(16).zip(body) {
        *to = *from;
    }
    let (head, rest) = slot.split_at_mut(16);
    head[..8].copy_from_slice(&S::MAGIC.to_le_bytes());
    head[8..].copy_from_slice(&xxh3_64(rest).to_le_bytes());
    slot
}

fn one<S: Slot + std::fmt::Debug>(body: &[u8]) {
    let slot = sealed::<S>(body);
    match S::decode(&slot) {
        // What is read is written again: nothing that a parser accepts makes the writer fail.
        Ok(value) => {
            let mut again = [0; SLOT_LEN];
            value.encode(&mut again);
            assert!(S::decode(&again).is_ok(), "{value:?}");
        }
        Err(e) => drop(e.to_string()),
    }
    let _ = newest_slot::<S>(&[slot, [0; SLOT_LEN]]);
}

pub(crate) fn slots(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.u8() % 4 {
        0 => one::<Meta>(input.0),
        1 => one::<Superblock>(input.0),
        2 => one::<LogSpace>(input.0),
        _ => {
            let mut entry: [u8; MEMBER_PATH_LEN] = input.array();
            let sum = xxh3_64(&entry[8..]);
            entry[..8].copy_from_slice(&sum.to_le_bytes());
            if let Some(path) = MemberPath::decode(&entry) {
                assert_eq!(MemberPath::decode(&path.encode()), Some(path));
            }
        }
    }
}

pub(crate) fn types(bytes: &[u8]) {
    match TypeDesc::parse(bytes) {
        Ok(desc) => {
            let _ = canonical_text(&desc);
            for field in desc.fields() {
                let _ = (field.end(), field.element_name(3), field.enum_range());
            }
            for size in [0, 1, desc.size(), u64::MAX] {
                let _ = desc.elements_in(size);
            }
            assert_eq!(desc.blob(), bytes);
        }
        Err(e) => drop(e.to_string()),
    }
}

fn words<const N: usize>(input: &mut Input<'_>) -> [u64; N] {
    std::array::from_fn(|_| input.u64())
}

pub(crate) fn pool_page(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut header: [u64; puddle::PUDDLE_HEADER_WORDS] = words(&mut input);
    if header[0] & 1 == 0 {
        header[0] = puddle::PUDDLE_MAGIC;
        let mut fixed = [0; 40];
        for (to, word) in fixed.chunks_exact_mut(8).zip(header) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        header[7] = xxh3_64(&fixed);
    }
    if let Ok(parsed) = puddle::PuddleHeader::parse(&header) {
        assert_eq!(parsed.encode(), header);
    }
    let mut head: [u64; puddle::PoolHead::WORDS] = words(&mut input);
    if head[0] & 1 == 0 {
        head[0] = puddle::POOL_MAGIC;
    }
    match puddle::PoolHead::parse(&head) {
        Ok(parsed) => assert_eq!(parsed.encode(), Some(head)),
        Err(e) => drop(e.to_string()),
    }
    let entry: [u64; puddle::DIRECTORY_ENTRY_WORDS] = words(&mut input);
    if let Ok(Some(slot)) = puddle::DirectorySlot::parse(&entry) {
        assert_eq!(slot.encode(), entry);
    }
    while !input.is_empty() {
        let bits = input.u32();
        if let Some(desc) = puddle::PageDesc::decode(bits) {
            assert_eq!(desc.encode(), bits);
        }
        let _ = puddle::type_block_of(u64::from(bits) << 20);
    }
}
