//! The identity of a file or a journal: 16 random bytes.

use std::fmt;

/// 16 random bytes, supplied by the caller: logic crates have no random source and no clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The identity that names nothing.
    pub const NIL: Uuid = Uuid([0; 16]);

    /// Whether this names nothing.
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }

    /// The first 8 bytes as a number: 16 hexadecimal digits of it name a journal file.
    pub fn short(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
