//! The CPU: non-temporal copies, cache-line write-back, fences, and the comparison of two lines.

use std::arch::x86_64 as x86;
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteBack {
    Clwb,
    ClflushOpt,
    Clflush,
}

fn write_back_kind() -> WriteBack {
    static KIND: OnceLock<WriteBack> = OnceLock::new();
    *KIND.get_or_init(|| {
        // CPUID leaf 7: EBX bit 24 = CLWB, bit 23 = CLFLUSHOPT (Intel SDM vol. 2A, CPUID).
        let ebx = x86::__cpuid_count(7, 0).ebx;
        if ebx & (1 << 24) != 0 {
            WriteBack::Clwb
        } else if ebx & (1 << 23) != 0 {
            WriteBack::ClflushOpt
        } else {
            WriteBack::Clflush
        }
    })
}

/// Writes the given cache lines back to memory (CLWB, else CLFLUSHOPT, else CLFLUSH); durable after [`fence`].
///
/// # Safety
///
/// Every address must be mapped.
pub unsafe fn write_back(lines: impl Iterator<Item = *const u8>) {
    let kind = write_back_kind();
    for line in lines {
        // SAFETY: the caller promises a mapped address; the instruction chosen is one this CPU has.
        unsafe {
            match kind {
                WriteBack::Clwb => {
                    std::arch::asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags))
                }
                WriteBack::ClflushOpt => {
                    std::arch::asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
                }
                WriteBack::Clflush => x86::_mm_clflush(line),
            }
        }
    }
}

/// Orders and completes earlier non-temporal stores and write-backs (SFENCE).
#[inline]
pub fn fence() {
    // SAFETY: SFENCE is part of SSE, which x86-64 guarantees.
    unsafe { x86::_mm_sfence() }
}

/// Brings the cache line at `addr` into the cache, to be written (PREFETCHW). Any address is allowed: it never faults.
#[inline]
pub fn prefetch_for_write(addr: u64) {
    // SAFETY: a hint; CPUs without it execute it as a no-operation (Intel SDM vol. 2B, PREFETCHW).
    unsafe {
        std::arch::asm!("prefetchw byte ptr [{}]", in(reg) addr, options(nostack, preserves_flags))
    };
}

/// Brings the cache line at `addr` into the cache, to be read. Any address is allowed: it never faults.
#[inline]
pub fn prefetch(addr: u64) {
    // SAFETY: a hint, part of SSE.
    unsafe {
        std::arch::asm!("prefetcht0 byte ptr [{}]", in(reg) addr, options(nostack, preserves_flags))
    };
}

/// Copies `src` to `dst` with non-temporal stores; durable after [`fence`] when `dst` is byte-addressable media.
///
/// # Safety
///
/// `dst` must be 64-byte aligned and writable for `src.len()` bytes, a multiple of 64, and must not overlap `src`.
#[inline]
pub unsafe fn copy_non_temporal(dst: *mut u8, src: &[u8]) {
    debug_assert!((dst as usize).is_multiple_of(64) && src.len().is_multiple_of(64));
    for (i, line) in src.chunks_exact(64).enumerate() {
        // SAFETY: i*64 < src.len(), so the line stays inside the range the caller promised, aligned because dst is.
        unsafe { stream_line(dst.add(i * 64), line.as_ptr()) };
    }
}

/// Copies one line with non-temporal stores.
///
/// # Safety
///
/// `to` must be 64-byte aligned and writable, `from` readable, for 64 bytes each; they must not overlap.
#[inline(always)]
pub unsafe fn stream_line(to: *mut u8, from: *const u8) {
    let (to, from) = (to.cast::<x86::__m128i>(), from.cast::<x86::__m128i>());
    // SAFETY: four unaligned 16-byte loads and four aligned stores inside the caller's 64 bytes.
    unsafe {
        let (a, b) = (
            x86::_mm_loadu_si128(from),
            x86::_mm_loadu_si128(from.add(1)),
        );
        let (c, d) = (
            x86::_mm_loadu_si128(from.add(2)),
            x86::_mm_loadu_si128(from.add(3)),
        );
        x86::_mm_stream_si128(to, a);
        x86::_mm_stream_si128(to.add(1), b);
        x86::_mm_stream_si128(to.add(2), c);
        x86::_mm_stream_si128(to.add(3), d);
    }
}

/// Copies the line at `from`, which other threads may be writing, to `to`. Each aligned word is seen old or new: x86-64
/// never tears an aligned 8-byte access, also not inside a wider one (Intel SDM vol. 3A, 9.1.1; AMD APM vol. 2, 7.3.2).
///
/// # Safety
///
/// Both pointers must be 64-byte aligned; `from` readable and `to` writable for 64 bytes.
#[inline(always)]
pub unsafe fn copy_line(from: *const u8, to: *mut u8) {
    // SAFETY: 64 bytes, aligned, as the caller promises. Assembly, because a plain load of memory that another thread
    // writes is undefined in Rust, and eight atomic loads are twice as slow.
    unsafe {
        std::arch::asm!(
            "movdqa {a}, [{f}]", "movdqa {b}, [{f} + 16]", "movdqa {c}, [{f} + 32]", "movdqa {d}, [{f} + 48]",
            "movdqa [{t}], {a}", "movdqa [{t} + 16], {b}", "movdqa [{t} + 32], {c}", "movdqa [{t} + 48], {d}",
            f = in(reg) from, t = in(reg) to,
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Which of the eight words of the lines at `a` and `b` differ: bit i for word i.
///
/// Other threads may write to `a` meanwhile; each word is then seen old or new (the x86 memory model has no torn aligned
/// words), which is all that a commit promises about stores that race with it.
///
/// # Safety
///
/// Both pointers must be 64-byte aligned and readable for 64 bytes.
#[inline]
pub unsafe fn differing_words(a: *const u8, b: *const u8) -> u8 {
    let (a, b) = (a.cast::<x86::__m128i>(), b.cast::<x86::__m128i>());
    // SAFETY: 4 x 16 bytes from aligned pointers with 64 readable bytes each; SSE2 is part of x86-64.
    let halves = unsafe {
        let eq =
            |i| x86::_mm_cmpeq_epi32(x86::_mm_load_si128(a.add(i)), x86::_mm_load_si128(b.add(i)));
        let low = x86::_mm_packs_epi32(eq(0), eq(1));
        let high = x86::_mm_packs_epi32(eq(2), eq(3));
        // One bit per 32-bit half: set where equal.
        x86::_mm_movemask_epi8(x86::_mm_packs_epi16(low, high)) as u32
    };
    // A word is equal when both its halves are: bits 0, 2, 4, … of `equal`, drawn together.
    let equal = halves & (halves >> 1) & 0x5555;
    let equal = (equal | equal >> 1) & 0x3333;
    let equal = (equal | equal >> 2) & 0x0f0f;
    let equal = equal | equal >> 4;
    !(equal as u8)
}

/// The inner loop of XXH3-64: each of at most 16 stripes is mixed with the eight words of the secret that begin at its number.
/// What `vernal_format::accumulate` does, with the widest vectors that the CPU has.
pub fn xxh3_accumulate(acc: &mut [u64; 8], stripes: &[[u64; 8]], secret: &[u64; 24]) {
    static WIDE: OnceLock<bool> = OnceLock::new();
    if *WIDE.get_or_init(|| std::arch::is_x86_feature_detected!("avx2")) {
        // SAFETY: the CPU has AVX2.
        unsafe { xxh3_accumulate_avx2(acc, stripes, secret) }
    } else {
        xxh3_accumulate_with(acc, stripes, secret);
    }
}

#[target_feature(enable = "avx2")]
fn xxh3_accumulate_avx2(acc: &mut [u64; 8], stripes: &[[u64; 8]], secret: &[u64; 24]) {
    const { assert!(cfg!(target_endian = "little")) };
    let [low, high] = [0, 4].map(|i| {
        // SAFETY: four of the eight accumulators; unaligned loads.
        unsafe { x86::_mm256_loadu_si256(acc.as_ptr().add(i).cast()) }
    });
    let (mut low, mut high) = (low, high);
    for (stripe, key) in stripes.iter().zip(secret.array_windows::<8>()) {
        let mix = |acc: x86::__m256i, i: usize| {
            // SAFETY: four of eight words each; unaligned loads.
            let (word, key) = unsafe {
                (
                    x86::_mm256_loadu_si256(stripe.as_ptr().add(i).cast()),
                    x86::_mm256_loadu_si256(key.as_ptr().add(i).cast()),
                )
            };
            let keyed = x86::_mm256_xor_si256(word, key);
            let product = x86::_mm256_mul_epu32(keyed, x86::_mm256_srli_epi64(keyed, 32));
            let swapped = x86::_mm256_shuffle_epi32(word, 0b01_00_11_10);
            x86::_mm256_add_epi64(product, x86::_mm256_add_epi64(acc, swapped))
        };
        low = mix(low, 0);
        high = mix(high, 4);
    }
    // SAFETY: as the loads above.
    unsafe {
        x86::_mm256_storeu_si256(acc.as_mut_ptr().cast(), low);
        x86::_mm256_storeu_si256(acc.as_mut_ptr().add(4).cast(), high);
    }
}

fn xxh3_accumulate_with(acc: &mut [u64; 8], stripes: &[[u64; 8]], secret: &[u64; 24]) {
    for (stripe, key) in stripes.iter().zip(secret.array_windows::<8>()) {
        let mut next = *acc;
        for i in 0..8 {
            let keyed = stripe[i] ^ key[i];
            let product = (keyed & 0xffff_ffff).wrapping_mul(keyed >> 32);
            next[i] = next[i].wrapping_add(product).wrapping_add(stripe[i ^ 1]);
        }
        *acc = next;
    }
}

/// Whether `count` words are all zero.
///
/// # Safety
///
/// `words` must be readable for `count` words and a multiple of 8.
pub unsafe fn is_zero(words: *const u64, count: usize) -> bool {
    let wide = count / 8 * 8;
    let mut i = 0;
    while i < wide {
        let at = words.wrapping_add(i).cast::<x86::__m128i>();
        // SAFETY: eight words from `i` on, all of them below `count`; SSE2 is part of x86-64.
        let zero = unsafe {
            let load = |k| x86::_mm_loadu_si128(at.add(k));
            let any = x86::_mm_or_si128(
                x86::_mm_or_si128(load(0), load(1)),
                x86::_mm_or_si128(load(2), load(3)),
            );
            x86::_mm_movemask_epi8(x86::_mm_cmpeq_epi8(any, x86::_mm_setzero_si128())) == 0xffff
        };
        if !zero {
            return false;
        }
        i += 8;
    }
    // SAFETY: below `count`.
    (wide..count).all(|i| unsafe { words.add(i).read() } == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Line([u8; 64]);

    #[test]
    fn every_byte_of_a_line_shows_in_its_words_bit() {
        let a = Line([0x5a; 64]);
        for i in 0..64 {
            let mut b = Line([0x5a; 64]);
            b.0[i] ^= 0x80;
            // SAFETY: aligned, 64 bytes each.
            let mask = unsafe { differing_words(a.0.as_ptr(), b.0.as_ptr()) };
            assert_eq!(mask, 1 << (i / 8), "byte {i}");
        }
        // SAFETY: aligned, 64 bytes each.
        assert_eq!(unsafe { differing_words(a.0.as_ptr(), a.0.as_ptr()) }, 0);
    }

    #[test]
    fn wide_and_narrow_vectors_accumulate_alike() {
        let word = |i: u64| {
            i.wrapping_add(7)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(23)
        };
        let secret: [u64; 24] = std::array::from_fn(|i| word(i as u64 + 1000));
        let stripes: Vec<[u64; 8]> = (0..17)
            .map(|s| std::array::from_fn(|i| word(s * 8 + i as u64)))
            .collect();
        for n in 0..=17 {
            let mut a: [u64; 8] = std::array::from_fn(|i| word(i as u64 + 5000));
            let mut b = a;
            xxh3_accumulate(&mut a, &stripes[..n], &secret);
            xxh3_accumulate_with(&mut b, &stripes[..n], &secret);
            assert_eq!(a, b, "{n} stripes");
        }
    }

    #[test]
    fn zero_words_are_zero_and_one_bit_is_not() {
        let mut words = [0u64; 37];
        for count in 0..=37 {
            // SAFETY: within the array.
            assert!(unsafe { is_zero(words.as_ptr(), count) });
        }
        for i in 0..37 {
            words[i] = 1 << (i % 64);
            // SAFETY: within the array.
            assert!(!unsafe { is_zero(words.as_ptr(), 37) }, "word {i}");
            words[i] = 0;
        }
    }

    #[test]
    fn non_temporal_copy_copies() {
        let mut dst = Line([0; 64]);
        let src: Vec<u8> = (0..64).collect();
        // SAFETY: dst is aligned and 64 bytes long.
        unsafe { copy_non_temporal(dst.0.as_mut_ptr(), &src) };
        fence();
        assert_eq!(dst.0[..], src[..]);
    }
}
