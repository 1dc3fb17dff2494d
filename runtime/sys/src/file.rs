//! Media on ordinary files: metadata through the page cache, journals through `O_DIRECT|O_DSYNC`.

use crate::media::Media;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// What a file's blocks are aligned to for direct I/O.
const DIRECT_UNIT: usize = 4096;
/// Bytes that a device persists whole.
const SECTOR: usize = 512;

/// A heap buffer aligned for direct I/O.
#[derive(Debug)]
struct AlignedBuf {
    ptr: *mut u8,
    cap: usize,
}

// SAFETY: uniquely owned memory.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    fn new(cap: usize) -> Self {
        let layout = Self::layout(cap);
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        if ptr.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        Self { ptr, cap }
    }

    fn layout(cap: usize) -> Layout {
        Layout::from_size_align(cap.max(DIRECT_UNIT), DIRECT_UNIT)
            .expect("capacity below isize::MAX")
    }

    fn filled(&mut self, data: &[u8]) -> &[u8] {
        if data.len() > self.cap {
            *self = Self::new(data.len().next_power_of_two());
        }
        // SAFETY: cap >= data.len() bytes are ours and initialised, &mut self makes the access unique.
        let buf = unsafe { std::slice::from_raw_parts_mut(self.ptr, data.len()) };
        buf.copy_from_slice(data);
        buf
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.ptr, Self::layout(self.cap)) };
    }
}

/// A file as a medium. Plain writes go through the page cache; [`Media::write_durable`] is one `O_DIRECT|O_DSYNC` write
/// where the file system allows that, else one write and one `fdatasync`.
#[derive(Debug)]
pub struct FileMedia {
    file: File,
    direct: Option<File>,
    buf: AlignedBuf,
    len: u64,
    flushes: u64,
}

impl FileMedia {
    /// Opens `path` for reading and writing through the page cache.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Opens `path` for reading only; writes will fail.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::from_file(File::open(path)?)
    }

    /// Creates `path` (which must not exist) with the owner and mode of `like`; see [`create_like`].
    pub fn create_new(path: &Path, like: &Metadata) -> io::Result<Self> {
        Self::from_file(create_like(path, like)?)
    }

    /// Wraps an open file.
    pub fn from_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            direct: None,
            buf: AlignedBuf::new(DIRECT_UNIT),
            len,
            flushes: 0,
        })
    }

    /// Adds the direct, synchronous descriptor that a journal writes through. Space must have been written (not only
    /// reserved) before, or each write also waits for the file system's own journal to convert the extent.
    pub fn with_direct(mut self, path: &Path) -> Self {
        // Not every file system takes O_DIRECT (tmpfs before Linux 6.5); write + fdatasync is the same promise, slower.
        self.direct = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
            .open(path)
            .ok();
        self
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flushes += 1;
        self.file.sync_data()
    }
}

impl Media for FileMedia {
    fn len(&self) -> u64 {
        self.len
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        crate::mem::ftruncate(self.file.as_raw_fd(), signed(len)?)?;
        if len > self.len {
            self.reserve(self.len, len - self.len)?;
            if self.direct.is_some() {
                zero_fill(&self.file, self.len, len)?;
            }
        }
        self.len = len;
        Ok(())
    }

    fn atom(&self) -> usize {
        SECTOR
    }

    fn write_unit(&self) -> usize {
        DIRECT_UNIT
    }

    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, off)
    }

    fn next_data(&self, off: u64) -> io::Result<u64> {
        // SAFETY: lseek takes no pointers. Nobody uses the descriptor's position.
        let at = unsafe { libc::lseek(self.file.as_raw_fd(), signed(off)?, libc::SEEK_DATA) };
        if let Ok(at) = u64::try_from(at) {
            return Ok(at);
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            // Nothing but a hole is left.
            Some(libc::ENXIO) => Ok(self.len.max(off)),
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(off),
            _ => Err(e),
        }
    }

    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        // write_all_at resumes after short writes; what remains an error is one.
        self.file.write_all_at(data, off)?;
        self.len = self.len.max(off + data.len() as u64);
        Ok(())
    }

    fn write_line(&mut self, off: u64, mask: u8, words: &[u64]) -> io::Result<()> {
        // One call for each run of neighbours: recovery of many small commits is made of these calls.
        let (mut rest, mut words) = (mask, words);
        while rest != 0 {
            let first = rest.trailing_zeros();
            let count = (rest >> first).trailing_ones();
            let Some((run, others)) = words.split_at_checked(count as usize) else {
                break;
            };
            let mut bytes = [0u8; 64];
            for (to, word) in bytes.chunks_exact_mut(8).zip(run) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            self.write(off + u64::from(first) * 8, &bytes[..run.len() * 8])?;
            words = others;
            rest &= rest.wrapping_add(1 << first);
        }
        Ok(())
    }

    fn persist(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_at(self.buf.filled(data), off) {
                Ok(n) if n == data.len() => {
                    self.flushes += 1;
                    self.len = self.len.max(off + data.len() as u64);
                    return Ok(());
                }
                // A short direct write (a signal, a nearly full disk) is finished by the buffered path below, whose
                // fdatasync covers both parts.
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => self.direct = None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.write(off, data)?;
        self.sync()
    }

    fn flushes(&self) -> u64 {
        self.flushes
    }
}

impl FileMedia {
    /// Reserves space so that later writes to `[off, off + len)` cannot run out of it.
    fn reserve(&self, off: u64, len: u64) -> io::Result<()> {
        reserve_space(&self.file, off, len)
    }
}

/// Creates `path` (which must not exist) for reading and writing, with the owner and mode of `like`: what lies beside a
/// file holds its content, and must be open to the same users and no others.
pub fn create_like(path: &Path, like: &Metadata) -> io::Result<File> {
    let mode = like.mode() & 0o666;
    // Nobody else may open it before owner and mode are right.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode & 0o600)
        .open(path)?;
    let made = file.metadata()?;
    let set = || {
        if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    };
    if let Err(e) = set() {
        // A process that may write to another user's file cannot always give its own away: the file then stays with this
        // user, closed to all others.
        if e.kind() != io::ErrorKind::PermissionDenied {
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
    }
    Ok(file)
}

/// Reserves blocks for `[off, off + len)` of `file` without changing its length or content. A file system that cannot
/// reserve is not an error: the space is then found, or not, when it is written.
pub fn reserve_space(file: &File, off: u64, len: u64) -> io::Result<()> {
    // SAFETY: fallocate takes no pointers.
    if unsafe {
        libc::fallocate(
            file.as_raw_fd(),
            libc::FALLOC_FL_KEEP_SIZE,
            signed(off)?,
            signed(len)?,
        )
    } == 0
    {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => Ok(()),
        _ => Err(e),
    }
}

fn zero_fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0u8; CHUNK as usize];
    let mut at = from;
    while at < to {
        let n = CHUNK.min(to - at);
        file.write_all_at(&zeros[..n as usize], at)?;
        at += n;
    }
    file.sync_data()
}

fn signed(v: u64) -> io::Result<i64> {
    i64::try_from(v).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Makes the directory entry of a newly created or removed `path` durable.
pub fn sync_parent_dir(path: &Path) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("vernal-sys-{}-{name}", std::process::id()))
    }

    #[test]
    fn direct_writes_read_back_and_count_one_flush() {
        let path = temp("direct");
        let _ = std::fs::remove_file(&path);
        let like = std::fs::metadata("/proc/self/exe").unwrap();
        let mut m = FileMedia::create_new(&path, &like)
            .unwrap()
            .with_direct(&path);
        m.set_len(1 << 16).unwrap();
        let data: Vec<u8> = (0..8192u32).map(|i| i as u8).collect();
        let before = m.flushes();
        m.write_durable(4096, &data).unwrap();
        assert_eq!(m.flushes() - before, 1);
        let mut back = vec![0; 8192];
        m.read(4096, &mut back).unwrap();
        assert_eq!(back, data);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn lines_are_written_by_their_masks() {
        let path = temp("lines");
        let _ = std::fs::remove_file(&path);
        let like = std::fs::metadata("/proc/self/exe").unwrap();
        let mut m = FileMedia::create_new(&path, &like).unwrap();
        m.set_len(4096).unwrap();
        for mask in 0..=255u8 {
            m.write(64, &[0xee; 64]).unwrap();
            let words: Vec<u64> = (0..mask.count_ones()).map(u64::from).collect();
            m.write_line(64, mask, &words).unwrap();
            let mut back = [0u8; 64];
            m.read(64, &mut back).unwrap();
            let mut next = 0u64;
            for (i, word) in back.as_chunks::<8>().0.iter().enumerate() {
                let written = mask & 1 << i != 0;
                let want = if written { next } else { 0xeeee_eeee_eeee_eeee };
                assert_eq!(u64::from_le_bytes(*word), want, "{mask:#b} word {i}");
                next += u64::from(written);
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn holes_are_skipped_and_data_is_not() {
        let path = temp("holes");
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let mut m = FileMedia::from_file(file).unwrap();
        m.set_len(8 << 20).unwrap();
        m.write(5 << 20, &[1]).unwrap();
        // A file system that knows no holes answers with the place that it was asked for.
        let at = m.next_data(1 << 20).unwrap();
        assert!((1 << 20..=5 << 20).contains(&at), "{at}");
        assert_eq!(m.next_data(5 << 20).unwrap(), 5 << 20);
        let end = m.next_data(7 << 20).unwrap();
        assert!((7 << 20..=8 << 20).contains(&end), "{end}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_lies_beside_a_private_file_is_private() {
        let (path, beside) = (temp("private"), temp("private.beside"));
        let _ = std::fs::remove_file(&beside);
        std::fs::write(&path, "x").unwrap();
        for mode in [0o600, 0o640, 0o666, 0o400] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let made = create_like(&beside, &std::fs::metadata(&path).unwrap()).unwrap();
            assert_eq!(made.metadata().unwrap().mode() & 0o777, mode);
            std::fs::remove_file(&beside).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn writing_a_read_only_medium_is_an_error() {
        let path = temp("ro");
        std::fs::write(&path, [0u8; 64]).unwrap();
        let mut m = FileMedia::open_read_only(&path).unwrap();
        assert!(m.write(0, &[1]).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
