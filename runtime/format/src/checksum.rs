//! The checksum of records: XXH3-64 with a seed, over whole words.
//!
//! The numbers are those of the XXH3 library (a test compares them for every length); what is left out is what a record never
//! needs, and what depends on the seed alone is derived once for each generation of a journal instead of once for each
//! record: for a small commit that was most of the checksum's time.

use xxhash_rust::const_xxh3::const_custom_default_secret;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::IntoBytes;

use crate::uuid::Uuid;

const P32_1: u64 = 0x9E37_79B1;
const P32_2: u64 = 0x85EB_CA77;
const P32_3: u64 = 0xC2B2_AE3D;
const P64_1: u64 = 0x9E37_79B1_85EB_CA87;
const P64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P64_3: u64 = 0x1656_67B1_9E37_79F9;
const P64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const P64_5: u64 = 0x27D4_EB2F_1656_67C5;

/// Words of a stripe, the unit of the long form.
const STRIPE: usize = 8;
/// Stripes after which the accumulators are scrambled.
const BLOCK: usize = 16;
/// Longest inputs, in words, of the two short forms.
const SHORT: usize = 16;
const MIDDLE: usize = 30;
/// Words of a short form's first part.
const FIRST: usize = 16;

/// The seed of all checksums of one generation of one journal: neither a stale record of an earlier generation nor one
/// of another journal that had the same blocks can be valid.
fn record_seed(journal: Uuid, generation: u64) -> u64 {
    xxh3_64(&journal.0).wrapping_add(generation)
}

/// What the checksums of one generation of one journal are made with: a seed, and all that XXH3 derives from it.
#[derive(Debug, Clone)]
pub struct RecordKey {
    seed: u64,
    /// The secret of the seed.
    secret: [u64; 24],
    /// Its parts that XXH3 reads at odd offsets: for the middle form, for its last words, for the last stripe of the long form,
    /// for its end.
    middle: [[u64; 2]; 7],
    last: [u64; 2],
    last_stripe: [u64; STRIPE],
    end: [u64; STRIPE],
}

fn word_at(secret: &[u8; 192], at: usize) -> u64 {
    let bytes = secret.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |b| u64::from_le_bytes(*b))
}

impl RecordKey {
    /// The key of a generation.
    pub fn new(journal: Uuid, generation: u64) -> RecordKey {
        RecordKey::from_seed(record_seed(journal, generation))
    }

    /// The key of a seed.
    pub fn from_seed(seed: u64) -> RecordKey {
        let (secret, plain) = (
            const_custom_default_secret(seed),
            const_custom_default_secret(0),
        );
        // At odd offsets the library adds the seed to what it reads of the plain secret.
        let seeded = |at| {
            let (low, high) = (word_at(&plain, at), word_at(&plain, at + 8));
            [low.wrapping_add(seed), high.wrapping_sub(seed)]
        };
        RecordKey {
            seed,
            secret: std::array::from_fn(|i| word_at(&secret, i * 8)),
            middle: std::array::from_fn(|i| seeded(i * 16 + 3)),
            last: seeded(119),
            last_stripe: std::array::from_fn(|i| word_at(&secret, 121 + i * 8)),
            end: std::array::from_fn(|i| word_at(&secret, 11 + i * 8)),
        }
    }

    /// XXH3-64 of `words`, little-endian ones, with this seed.
    pub fn checksum(&self, words: &[u64]) -> u64 {
        self.checksum_by(words, accumulate)
    }

    /// As [`RecordKey::checksum`]; what takes the time is done by `accumulate`, which has to do what [`accumulate`] does.
    #[inline]
    pub fn checksum_by(&self, words: &[u64], accumulate: Accumulate) -> u64 {
        match words.len() {
            0..=2 => xxh3_64_with_seed(words.as_bytes(), self.seed),
            3..=SHORT => self.short(words),
            17..=MIDDLE => self.middle(words),
            _ => self.long(words, accumulate),
        }
    }

    #[inline]
    fn secret_pair(&self, i: usize) -> [u64; 2] {
        [self.secret[(i * 2) % 24], self.secret[(i * 2 + 1) % 24]]
    }

    /// 17 to 128 bytes: pairs of words from both ends.
    #[inline]
    fn short(&self, words: &[u64]) -> u64 {
        // A record of one line has 13 words. Arrays, so that no index is checked.
        if let (13.., Some(front), Some(back)) = (
            words.len(),
            words.first_chunk::<8>(),
            words.last_chunk::<8>(),
        ) {
            let mut acc = (words.len() as u64 * 8).wrapping_mul(P64_1);
            for i in 0..4 {
                let (front, back) = (pair(front, 2 * i), pair(back, 6 - 2 * i));
                acc = acc
                    .wrapping_add(mix(front, self.secret_pair(2 * i)))
                    .wrapping_add(mix(back, self.secret_pair(2 * i + 1)));
            }
            return avalanche(acc);
        }
        let bytes = words.len() as u64 * 8;
        let mut acc = bytes.wrapping_mul(P64_1);
        let rounds = (words.len() - 1) / 4 + 1;
        for i in 0..rounds {
            let back = words.len() - 2 - 2 * i;
            acc = acc
                .wrapping_add(mix(pair(words, 2 * i), self.secret_pair(2 * i)))
                .wrapping_add(mix(pair(words, back), self.secret_pair(2 * i + 1)));
        }
        avalanche(acc)
    }

    /// 129 to 240 bytes.
    #[inline]
    fn middle(&self, words: &[u64]) -> u64 {
        let bytes = words.len() as u64 * 8;
        let mut acc = bytes.wrapping_mul(P64_1);
        let Some((first, rest)) = words.split_first_chunk::<FIRST>() else {
            return 0; // Nothing shorter comes here.
        };
        for i in 0..FIRST / 2 {
            acc = acc.wrapping_add(mix(pair(first, 2 * i), self.secret_pair(i)));
        }
        acc = avalanche(acc);
        for (p, key) in rest.as_chunks::<2>().0.iter().zip(&self.middle) {
            acc = acc.wrapping_add(mix(pair(p, 0), *key));
        }
        let last = words.last_chunk::<2>().unwrap_or(&[0; 2]);
        acc = acc.wrapping_add(mix(pair(last, 0), self.last));
        avalanche(acc)
    }

    /// More than 240 bytes.
    #[inline]
    fn long(&self, words: &[u64], accumulate: Accumulate) -> u64 {
        let mut acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1];
        // The last stripe is the last eight words, whatever the length: at least one of them is left for it.
        let (stripes, _) = words[..words.len() - 1].as_chunks::<STRIPE>();
        let mut blocks = stripes.chunks_exact(BLOCK);
        let scramble_key: &[u64; STRIPE] = last_of(&self.secret);
        for block in &mut blocks {
            accumulate(&mut acc, block, &self.secret);
            for (a, key) in acc.iter_mut().zip(scramble_key) {
                *a = (*a ^ (*a >> 47) ^ key).wrapping_mul(P32_1);
            }
        }
        accumulate(&mut acc, blocks.remainder(), &self.secret);
        accumulate_stripe(&mut acc, last_of(words), &self.last_stripe);
        let mut result = (words.len() as u64 * 8).wrapping_mul(P64_1);
        for i in 0..4 {
            let p = [
                acc[2 * i] ^ self.end[2 * i],
                acc[2 * i + 1] ^ self.end[2 * i + 1],
            ];
            result = result.wrapping_add(fold(p[0], p[1]));
        }
        avalanche(result)
    }
}

/// Takes at most a block of stripes into the accumulators: accumulators, stripes, secret.
pub type Accumulate = fn(&mut [u64; STRIPE], &[[u64; STRIPE]], &[u64; 24]);

/// The portable [`Accumulate`].
pub fn accumulate(acc: &mut [u64; STRIPE], stripes: &[[u64; STRIPE]], secret: &[u64; 24]) {
    for (stripe, key) in stripes.iter().zip(secret.array_windows::<STRIPE>()) {
        accumulate_stripe(acc, stripe, key);
    }
}

#[inline(always)]
fn accumulate_stripe(acc: &mut [u64; STRIPE], stripe: &[u64; STRIPE], key: &[u64; STRIPE]) {
    let mut next = *acc;
    for i in 0..STRIPE {
        let word = u64::from_le(stripe[i]);
        let keyed = word ^ key[i];
        let product = (keyed & 0xffff_ffff).wrapping_mul(keyed >> 32);
        next[i] = next[i]
            .wrapping_add(product)
            .wrapping_add(u64::from_le(stripe[i ^ 1]));
    }
    *acc = next;
}

/// The last eight words of a slice that has them.
#[inline(always)]
fn last_of(words: &[u64]) -> &[u64; STRIPE] {
    const NONE: &[u64; STRIPE] = &[0; STRIPE];
    words.last_chunk().unwrap_or(NONE)
}

#[inline(always)]
fn pair(words: &[u64], at: usize) -> [u64; 2] {
    let word = |i| words.get(i).map_or(0, |w: &u64| u64::from_le(*w));
    [word(at), word(at + 1)]
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn mix(words: [u64; 2], key: [u64; 2]) -> u64 {
    fold(words[0] ^ key[0], words[1] ^ key[1])
}

#[inline(always)]
fn avalanche(mut x: u64) -> u64 {
    x ^= x >> 37;
    x = x.wrapping_mul(0x1656_6791_9E37_79F9);
    x ^ x >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_the_checksum_of_the_library() {
        let mut state = 1u64;
        let words: Vec<u64> = (0..1200)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state ^ state >> 29
            })
            .collect();
        for seed in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
            let key = RecordKey::from_seed(seed);
            for n in 0..=words.len() {
                let input = &words[..n];
                let want = xxh3_64_with_seed(input.as_bytes(), seed);
                assert_eq!(key.checksum(input), want, "{n} words, seed {seed:#x}");
            }
        }
    }

    #[test]
    fn every_bit_counts() {
        let key = RecordKey::from_seed(7);
        for n in [5, 14, 23, 31, 80, 200] {
            let mut words = vec![0u64; n];
            let clean = key.checksum(&words);
            for bit in 0..n * 64 {
                words[bit / 64] ^= 1 << (bit % 64);
                assert_ne!(key.checksum(&words), clean, "{n} words, bit {bit}");
                words[bit / 64] ^= 1 << (bit % 64);
            }
        }
    }
}
