//! Which words of a line changed.

/// The words of `work` that differ from `home`, as a mask: bit `i` is word `i`.
///
/// Without branches, so that the compiler uses vector compares where the target has them.
#[inline]
pub fn diff_line(work: &[u64; 8], home: &[u64; 8]) -> u8 {
    let mut mask = 0;
    for i in 0..8 {
        mask |= u8::from(work[i] != home[i]) << i;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subset_of_words_is_its_own_mask() {
        let home = std::array::from_fn(|i| i as u64 * 0x0101);
        for mask in 0..=255u8 {
            let work = std::array::from_fn(|i| home[i] ^ (u64::from(mask >> i & 1) << (i * 7)));
            assert_eq!(diff_line(&work, &home), mask);
        }
    }
}
