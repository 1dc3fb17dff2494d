//! Little-endian fields of variable structures: a writer, and a reader that cannot run past the end.

use super::ArchiveError;
use crate::Uuid;

/// Appends fields to a buffer.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.bytes.extend_from_slice(&value.0);
    }

    /// A length of 4 bytes, then the bytes.
    pub(super) fn blob(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.bytes.extend_from_slice(value);
    }
}

/// Takes fields from the front of a slice; what is not there is [`ArchiveError::Truncated`].
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], ArchiveError> {
        let (front, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ArchiveError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let (front, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(ArchiveError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*front)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ArchiveError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ArchiveError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, ArchiveError> {
        self.array().map(Uuid)
    }

    /// A count of things of at least `each` bytes, so that a count cannot promise more than the bytes can hold.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        each: usize,
        limit: usize,
    ) -> Result<usize, ArchiveError> {
        let count = self.u32()?;
        let bad = ArchiveError::field(self.what, field, count.into());
        let count = usize::try_from(count).map_err(|_| bad.clone())?;
        if count > limit {
            return Err(bad);
        }
        match count.checked_mul(each) {
            Some(need) if need <= self.rest.len() => Ok(count),
            _ => Err(ArchiveError::Truncated { what: self.what }),
        }
    }

    pub(super) fn blob(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'a [u8], ArchiveError> {
        let len = self.count(field, 1, limit)?;
        self.take(len)
    }

    pub(super) fn text(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<String, ArchiveError> {
        let bytes = self.blob(field, limit)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(ArchiveError::Text { what: field }),
        }
    }

    /// Demands that nothing is left.
    pub(super) fn end(&self) -> Result<(), ArchiveError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(ArchiveError::field(
                self.what,
                "trailing bytes",
                left as u64,
            )),
        }
    }
}
