//! Writing committed words into a home image: the one piece of code that both a commit and a recovery use.

use std::io;

use vernal_abi::LINE_SIZE;
use vernal_format::WORDS_PER_LINE;
use vernal_sys::Media;

/// Writes the words of one line (of the file's line `index`) that `mask` selects, as far as they lie below `len`.
#[inline(always)]
pub(crate) fn apply_line<H: Media>(
    home: &mut H,
    len: u64,
    index: u64,
    mask: u8,
    words: &[u64],
) -> io::Result<()> {
    let start = index * LINE_SIZE;
    if start + LINE_SIZE <= len {
        match words.first_chunk() {
            Some(line) if mask == u8::MAX => home.write_whole_line(start, line),
            _ => home.write_line(start, mask, words),
        }
    } else {
        apply_tail(home, len, start, mask, words)
    }
}

/// Writes whole lines, from the file's line `index` on, as far as they lie below `len`.
#[inline(always)]
pub(crate) fn apply_run<H: Media>(
    home: &mut H,
    len: u64,
    index: u64,
    words: &[u64],
) -> io::Result<()> {
    let start = index * LINE_SIZE;
    if start + size_of_val(words) as u64 <= len {
        home.write_lines(start, words)
    } else {
        apply_run_at_the_end(home, len, index, words)
    }
}

#[cold]
fn apply_run_at_the_end<H: Media>(
    home: &mut H,
    len: u64,
    index: u64,
    words: &[u64],
) -> io::Result<()> {
    for (index, words) in (index..).zip(words.chunks_exact(WORDS_PER_LINE)) {
        apply_line(home, len, index, u8::MAX, words)?;
    }
    Ok(())
}

/// The line in which the file ends: what lies beyond is not part of the image.
#[cold]
fn apply_tail<H: Media>(
    home: &mut H,
    len: u64,
    start: u64,
    mask: u8,
    words: &[u64],
) -> io::Result<()> {
    let mut rest = mask;
    for word in words {
        let off = start + u64::from(rest.trailing_zeros()) * 8;
        rest &= rest.wrapping_sub(1);
        if off + 8 <= len {
            home.write_word(off, u64::from_le(*word))?;
        } else if off < len {
            home.write(off, &word.to_ne_bytes()[..(len - off) as usize])?;
        }
    }
    Ok(())
}
