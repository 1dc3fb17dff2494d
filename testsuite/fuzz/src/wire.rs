//! Graphs as bytes: raw ones, and a sound one with changed words. The checksum is set right, or nothing else would be reached.

use crate::graph::{BUDGET, sound};
use crate::input::Input;
use std::sync::Arc;
use vernal_heap::walk::Arena;
use vernal_rpc_core::wire::Decoder;

/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 56..64;

fn set(bytes: &mut [u8], at: std::ops::Range<usize>, value: u64) {
    if let Some(place) = bytes.get_mut(at) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// First byte odd: the rest is an image, whose length and type are set right. Even: pairs of a place (16 bits) and a word for the sound one.
pub(crate) fn decode(bytes: &[u8]) {
    let sound = sound();
    let mut input = Input(bytes);
    let mut image = match input.u8() % 2 {
        1 => {
            let mut image = input.0.to_vec();
            let length = image.len() as u64;
            set(&mut image, 0..8, u64::from_le_bytes(*b"VNGRAPH1"));
            set(&mut image, 32..40, length);
            set(&mut image, 48..56, sound.root_type);
            image
        }
        _ => {
            let mut image = sound.image.clone();
            while !input.is_empty() {
                let at = usize::from(input.u16()) * 8 % image.len();
                set(&mut image, at..at + 8, input.u64());
            }
            image
        }
    };
    set(&mut image, CHECKSUM, 0);
    let sum = xxhash_rust::xxh3::xxh3_64(&image);
    set(&mut image, CHECKSUM, sum);
    let mut decoder = Decoder::new(Arc::clone(&sound.known));
    let mut arena = Arena::new();
    let decoded = decoder.decode(&image, sound.root_type, BUDGET, &mut arena);
    let unchanged = image == sound.image;
    assert!(
        !unchanged || decoded.is_ok(),
        "the sound graph is refused: {decoded:?}"
    );
    // What went wrong does not stay.
    let again = decoder.decode(&sound.image, sound.root_type, BUDGET, &mut arena);
    assert!(again.is_ok(), "the next graph is refused: {again:?}");
}
