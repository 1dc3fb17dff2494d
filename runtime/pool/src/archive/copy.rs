//! Bytes from one file to another, by the cheapest way that the file systems offer.

use super::Progress;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes per system call, so that progress is told in time.
const STEP: u64 = 32 << 20;
/// Bytes per read and write when the kernel cannot copy by itself.
const BUFFER: usize = 256 << 10;

/// Copies ranges. `copy_file_range` shares blocks where the file system can, and else copies inside the kernel; between file
/// systems that it does not connect, bytes go through a buffer.
pub(super) struct Copier<'a> {
    kernel: Cell<bool>,
    progress: Progress<'a>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(progress: Progress<'a>) -> Copier<'a> {
        Copier {
            kernel: Cell::new(true),
            progress,
        }
    }

    /// Copies `len` bytes from `from` at `from_at` to `to` at `to_at`.
    pub(super) fn copy(
        &self,
        from: &File,
        from_at: u64,
        to: &File,
        to_at: u64,
        len: u64,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len && self.kernel.get() {
            let (mut source, mut target) = (from_at + done, to_at + done);
            let step = (len - done).min(STEP) as usize;
            match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), step)
            {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(copied) => {
                    done += copied as u64;
                    (self.progress)(copied as u64);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) if unsupported(e) => self.kernel.set(false),
                Err(e) => return Err(e.into()),
            }
        }
        let mut buffer = Vec::new();
        while done < len {
            buffer.resize(BUFFER.min((len - done) as usize), 0);
            from.read_exact_at(&mut buffer, from_at + done)?;
            to.write_all_at(&buffer, to_at + done)?;
            done += buffer.len() as u64;
            (self.progress)(buffer.len() as u64);
        }
        Ok(())
    }
}

/// Whether the error says that this pair of files cannot be copied so, and not that something is wrong.
fn unsupported(e: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [
        Errno::XDEV,
        Errno::INVAL,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::PERM,
        Errno::TXTBSY,
    ]
    .contains(&e)
}
