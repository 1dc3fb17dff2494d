//! Numbers as bytes of varying length, bytes as base64.

use std::io::{self, Write};

/// Appends `value`, 7 bits to a byte, lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes what it is given as base64, without line breaks and padding only at the end.
pub(super) struct Base64Writer<W: Write> {
    to: W,
    held: Vec<u8>,
}

impl<W: Write> Base64Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Base64Writer {
            to,
            held: Vec::new(),
        }
    }

    fn digit(group: u32, shift: u32) -> u8 {
        DIGITS
            .get((group >> shift & 63) as usize)
            .copied()
            .unwrap_or(b'A')
    }

    /// Writes the last group.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.last()?;
        self.to.flush()
    }

    fn last(&mut self) -> io::Result<()> {
        let group = self
            .held
            .iter()
            .zip([16, 8])
            .fold(0, |group, (byte, shift)| group | u32::from(*byte) << shift);
        let text: Vec<u8> = match self.held.len() {
            0 => Vec::new(),
            1 => vec![Self::digit(group, 18), Self::digit(group, 12), b'=', b'='],
            _ => vec![
                Self::digit(group, 18),
                Self::digit(group, 12),
                Self::digit(group, 6),
                b'=',
            ],
        };
        self.held.clear();
        self.to.write_all(&text)
    }
}

impl Base64Writer<Vec<u8>> {
    /// The text.
    pub(super) fn into_inner(mut self) -> Vec<u8> {
        // Writing to memory cannot fail.
        let _ = self.last();
        self.to
    }
}

impl<W: Write> Write for Base64Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let whole = self.held.len() - self.held.len() % 3;
        let mut text = Vec::with_capacity(whole / 3 * 4);
        for group in self.held.get(..whole).unwrap_or_default().chunks_exact(3) {
            let group = group
                .iter()
                .fold(0, |group, byte| group << 8 | u32::from(*byte));
            text.extend([18, 12, 6, 0].map(|shift| Self::digit(group, shift)));
        }
        self.held.drain(..whole);
        self.to.write_all(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_usual_one_however_it_is_cut() {
        for (plain, text) in [
            ("", ""),
            ("M", "TQ=="),
            ("Ma", "TWE="),
            ("Man", "TWFu"),
            ("Many hands", "TWFueSBoYW5kcw=="),
        ] {
            for step in 1..5 {
                let mut out = Base64Writer::new(Vec::new());
                for piece in plain.as_bytes().chunks(step) {
                    out.write_all(piece).unwrap();
                }
                assert_eq!(out.into_inner(), text.as_bytes());
            }
        }
    }

    #[test]
    fn varints_of_every_length() {
        let mut out = Vec::new();
        for value in [0, 127, 128, 300, u64::MAX] {
            varint(&mut out, value);
        }
        assert_eq!(out.len(), 1 + 1 + 2 + 2 + 10);
        assert_eq!(&out[..6], [0, 127, 0x80, 1, 0xac, 2]);
    }
}
