//! The memory of segments: memfds whose seals say who may write.
//!
//! A segment can neither shrink nor grow from the start, so that nobody who has it mapped can be made to fault by a truncation. When
//! its owner has mapped it, [`seal`] takes the possibility of any further writable mapping away, for every process and every
//! descriptor, and of any further seal. The kernel enforces it; receivers look at the seals themselves.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

/// Makes the memory of a segment. Pages come when they are first touched, and their user's control group pays for them.
pub(crate) fn create(name: &str, size: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 know no memory that cannot be executed.
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    ftruncate(&fd, size)?;
    // Nobody else opens it through /proc; whoever may all the same still meets the seals.
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(File::from(fd))
}

/// Nobody had the segment mapped, and now nobody ever can for writing.
#[derive(Debug)]
pub(crate) struct NotMapped;

/// Seals a segment that its owner has mapped.
pub(crate) fn seal(file: &File) -> io::Result<Result<(), NotMapped>> {
    // The kernel refuses this seal as long as there is a writable mapping: the way to ask whether there is one.
    match fcntl_add_seals(file, SealFlags::WRITE) {
        Ok(()) => return Ok(Err(NotMapped)),
        Err(Errno::BUSY) => {}
        Err(e) => return Err(e.into()),
    }
    fcntl_add_seals(file, SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
    Ok(Ok(()))
}

/// A read-only descriptor of its own: no flag of it is shared with anybody, and no mapping of it can ever be made writable.
pub(crate) fn read_only(file: &Arc<File>) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const SIZE: u64 = 2 << 20;

    #[test]
    fn what_nobody_has_mapped_is_not_ready() {
        let file = create("test", SIZE).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        file.write_all_at(b"content", 0).unwrap();
        assert!(file.set_len(SIZE / 2).is_err() && file.set_len(SIZE * 2).is_err());
        assert!(seal(&file).unwrap().is_err());
        assert!(file.write_all_at(b"changed", 0).is_err());
        let copy = read_only(&Arc::new(file)).unwrap();
        let mut bytes = [0; 7];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"content");
    }
}
