//! What is sent and what comes back: both are functions of a seed, so that the harness knows what every call must yield.
//!
//! All systems do the same work for one call: the client writes each word of the request, the server reads each and writes
//! the words of the reply from them, the client reads those and adds them up.

/// Between the words of one request.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Between the seeds of two calls.
const CALL: u64 = 0x2545_f491_4f6c_dd1d;

/// The seed of call number `call` on connection `thread`.
pub fn seed_of(seed: u64, thread: u64, call: u64) -> u64 {
    seed.wrapping_add(thread << 40)
        .wrapping_add(call.wrapping_mul(CALL))
}

/// Writes a request; its size is a multiple of 8.
pub fn fill(request: &mut [u8], seed: u64) {
    let mut word = seed;
    for chunk in request.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
}

fn answer_word(word: u64) -> u64 {
    (word ^ (word >> 9)).wrapping_add(1)
}

/// Writes the reply to `request`.
pub fn answer(request: &[u8], reply: &mut [u8]) {
    for (from, to) in request.chunks_exact(8).zip(reply.chunks_exact_mut(8)) {
        to.copy_from_slice(&answer_word(word_of(from)).to_le_bytes());
    }
}

/// Reads a reply.
pub fn sum(reply: &[u8]) -> u64 {
    reply
        .chunks_exact(8)
        .fold(0, |sum, chunk| sum.wrapping_add(word_of(chunk)))
}

fn word_of(chunk: &[u8]) -> u64 {
    // Chunks are of 8 bytes: the default is never taken.
    chunk.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

/// What [`sum`] must find in the reply to a request of `size` bytes.
pub fn expected(size: usize, seed: u64) -> u64 {
    let mut word = seed;
    (0..size / 8).fold(0, |sum: u64, _| {
        let next = sum.wrapping_add(answer_word(word));
        word = word.wrapping_add(STEP);
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_sum_is_what_a_call_yields() {
        for size in [0, 8, 64, 4096] {
            for call in 0..5 {
                let seed = seed_of(7, 3, call);
                let (mut request, mut reply) = (vec![0; size], vec![0; size]);
                fill(&mut request, seed);
                answer(&request, &mut reply);
                assert_eq!(sum(&reply), expected(size, seed), "size {size}");
            }
        }
    }

    #[test]
    fn a_changed_byte_changes_the_sum() {
        let (mut request, mut reply) = ([0; 64], [0; 64]);
        fill(&mut request, 1);
        request[17] ^= 4;
        answer(&request, &mut reply);
        assert_ne!(sum(&reply), expected(64, 1));
    }
}
