//! What an interposed `mmap`, `munmap`, `mremap` and `msync` do: windows of a file at its home address.

use super::{invalid, lock};
use crate::config;
use crate::error::Error;
use std::path::Path;
use vernal_sys::mem;

/// A request to map a window of a file.
#[derive(Debug)]
pub struct MapRequest<'a> {
    /// Absolute path.
    pub path: &'a Path,
    /// The program's descriptor.
    pub fd: i32,
    /// Offset of the window.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// Whether stores are wanted.
    pub writable: bool,
    /// An address that the program insists on.
    pub fixed: Option<u64>,
}

/// Maps a window of an opted-in file at its home address; what an interposed `mmap` does.
pub fn map_window(r: &MapRequest<'_>) -> Result<u64, Error> {
    let mut l = lock()?;
    let s = l.state();
    if !r.offset.is_multiple_of(mem::PAGE_SIZE) || r.len == 0 {
        return Err(invalid(format!(
            "{}: a mapping of {} bytes at offset {}: the offset must be a multiple of 4096 and the length not 0",
            r.path.display(),
            r.len,
            r.offset
        )));
    }
    let index = s.find_or_map(r.path, r.writable, |_| Ok(()))?;
    let m = &mut s.mappings[index];
    let at = m.slot.base + r.offset;
    let fits = r
        .offset
        .checked_add(r.len)
        .is_some_and(|end| end <= m.slot.len);
    let error = if !fits {
        Some(Error::TooLarge {
            path: r.path.display().to_string(),
            len: r.offset.saturating_add(r.len),
            what: "the address space kept for this file",
        })
    } else if r.fixed.is_some_and(|want| want != at) {
        Some(invalid(format!(
            "{}: MAP_FIXED at {:#x}, but the file's home address puts this window at {at:#x}: map without MAP_FIXED (the \
             address is the same in every run)",
            r.path.display(),
            r.fixed.unwrap_or(0)
        )))
    } else if r.writable && m.read_only {
        Some(invalid(format!(
            "{} is mapped read-only by this process already: unmap that first",
            r.path.display()
        )))
    } else {
        None
    };
    if let Some(e) = error {
        if s.mappings[index].windows.is_empty() {
            s.release(index)?;
        }
        return Err(e);
    }
    m.windows.push((r.offset, r.len));
    Ok(at)
}

/// Unmaps a window; the file is released with the last one.
pub fn unmap_window(addr: u64, len: u64) -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let index = match s.index_at(addr) {
        Ok(i) => i,
        // munmap of an address that is not mapped is no error (munmap(2)).
        Err(_) => return Ok(()),
    };
    let m = &mut s.mappings[index];
    let off = addr - m.slot.base;
    let end = off.saturating_add(mem::page_up(len).unwrap_or(len));
    let mut left = Vec::new();
    for &(o, l) in &m.windows {
        let w_end = o + mem::page_up(l).unwrap_or(l);
        if end <= o || off >= w_end {
            left.push((o, l));
            continue;
        }
        if o < off {
            left.push((o, off - o));
        }
        if end < w_end {
            left.push((end, w_end - end));
        }
    }
    let close = left.is_empty();
    let before = std::mem::replace(&mut m.windows, left);
    if close {
        s.close(index, own, config::get().unmap_discards)
            .inspect_err(|e| {
                if matches!(e, Error::NoSpace { .. })
                    && let Ok(i) = s.index_at(addr)
                {
                    s.mappings[i].windows = before;
                }
            })?;
    }
    Ok(())
}

/// Grows or shrinks a window in place.
pub fn remap_window(addr: u64, old: u64, new: u64, moved: Option<u64>) -> Result<(), Error> {
    let mut l = lock()?;
    let s = l.state();
    let index = s.index_at(addr)?;
    let m = &mut s.mappings[index];
    let off = addr - m.slot.base;
    if moved.is_some_and(|to| to != addr) {
        return Err(invalid(
            "mremap: a mapped file stays at its home address (MREMAP_FIXED is not possible)".into(),
        ));
    }
    if new == 0 || off.checked_add(new).is_none_or(|end| end > m.slot.len) {
        return Err(Error::TooLarge {
            path: m.path.display().to_string(),
            len: new,
            what: "the address space kept for this file",
        });
    }
    match m
        .windows
        .iter_mut()
        .find(|w| w.0 == off && mem::page_up(w.1) == mem::page_up(old))
    {
        Some(w) => {
            w.1 = new;
            Ok(())
        }
        None => Err(invalid(format!(
            "mremap: {old} bytes at {addr:#x} are not one mapping"
        ))),
    }
}

/// What POSIX demands of msync's arguments.
pub fn check_msync(addr: u64, flags: i32) -> Result<(), Error> {
    if !addr.is_multiple_of(mem::PAGE_SIZE) {
        return Err(invalid(format!(
            "msync: {addr:#x} is not the start of a page"
        )));
    }
    if flags & !(libc::MS_SYNC | libc::MS_ASYNC | libc::MS_INVALIDATE) != 0
        || flags & (libc::MS_SYNC | libc::MS_ASYNC) == libc::MS_SYNC | libc::MS_ASYNC
    {
        return Err(invalid(format!("msync: flags {flags:#x} are not valid")));
    }
    Ok(())
}
