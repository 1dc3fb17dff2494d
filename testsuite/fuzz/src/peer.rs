//! The heap of a peer, whose words are hostile: verified where it lies, and copied.

use crate::graph::{BASE, BUDGET, SIZE, sound};
use crate::input::Input;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_heap::walk::{Allowed, Arena, Examiner};
use vernal_heap::{ForeignSpace, ObjectSpace, OwnedMemory, PoolMemory};

/// Words of the pages in which the metadata and the first objects lie.
const WORDS: usize = 512 * 48;

/// Changes words of a sound heap as the input says, then examines it as a receiver does, twice: an examiner and a space keep what
/// they learned.
pub(crate) fn examine(bytes: &[u8]) {
    let sound = sound();
    let mut memory = OwnedMemory::new();
    memory.add_words(
        BASE,
        sound.words.iter().copied().map(AtomicU64::new).collect(),
    );
    let mut input = Input(bytes);
    while !input.is_empty() {
        let at = usize::from(input.u16()) % WORDS;
        let Some(word) = memory
            .words(BASE + at as u64 * 8, 1)
            .and_then(|w| w.first())
        else {
            continue;
        };
        let value = match input.u8() {
            0 => input.u64(),
            1 => BASE + u64::from(input.u32()) % (SIZE + 4096),
            2 => u64::from(input.u16()),
            flip => word.load(Ordering::Relaxed) ^ 1 << (flip & 63),
        };
        word.store(value, Ordering::Relaxed);
    }
    let space = ForeignSpace::new(&memory);
    assert!(space.add(BASE, SIZE));
    let mut examiner = Examiner::new(Arc::clone(&sound.known));
    let mut arena = Arena::new();
    for _ in 0..2 {
        let (root, ty) = (sound.root, sound.root_type);
        let verified = examiner.verify(&space, root, ty, Allowed::All, BUDGET);
        let copied = examiner.copy(&space, root, ty, BUDGET, &mut arena);
        // Nobody writes meanwhile: both ways say the same.
        let copied = copied.map(|copy| copy.report);
        assert_eq!(copied, verified);
        match verified {
            Ok(report) => assert!(report.objects <= BUDGET.objects && report.bytes <= BUDGET.bytes),
            Err(e) => drop(e.to_string()),
        }
        arena.clear();
    }
    let _ = space.root();
}
