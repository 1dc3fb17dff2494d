//! A medium in memory that refuses to become large.

use std::io;
use vernal_sys::Media;

/// The longest medium.
const LONGEST: u64 = 8 << 20;

/// Bytes as a medium.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn range(&self, off: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(off).map_err(io::Error::other)?;
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.0.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(start..end)
    }
}

impl Media for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len > LONGEST {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.resize(len as usize, 0);
        Ok(())
    }

    fn atom(&self) -> usize {
        512
    }

    fn write_unit(&self) -> usize {
        4096
    }

    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = self.range(off, buf.len())?;
        buf.copy_from_slice(self.0.get(range).unwrap_or_default());
        Ok(())
    }

    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        let range = self.range(off, data.len())?;
        if let Some(place) = self.0.get_mut(range) {
            place.copy_from_slice(data);
        }
        Ok(())
    }

    fn persist(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.write(off, data)
    }

    fn flushes(&self) -> u64 {
        0
    }
}
