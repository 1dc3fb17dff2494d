//! Mapped memory as a transaction changes it: stores in place, write-backs, one fence for the thread.

use std::io;

use vernal_journal::direct::Home;
use vernal_sys::cpu;

use super::space;

const LINE: u64 = 64;

/// The memory of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct MappedHome;

#[cold]
fn unmapped(addr: u64, len: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{len} bytes at {addr:#x} are not mapped for writing in a direct pool"),
    )
}

impl Home for MappedHome {
    #[inline]
    fn load(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len();
        if !space::is_mapped(addr, len as u64) {
            return Err(unmapped(addr, len as u64));
        }
        // SAFETY: the table says that all of the range is mapped, and pools are not unmapped while a transaction of theirs is
        // open; that no other thread writes it meanwhile is what a program owes that logs a range.
        unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, buf.as_mut_ptr(), len) };
        Ok(())
    }

    #[inline]
    fn store(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        if !space::is_mapped(addr, len) {
            return Err(unmapped(addr, len));
        }
        // SAFETY: mapped, as in `load`; `data` is the log's or the caller's and no part of the range.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), addr as *mut u8, data.len()) };
        let first = addr & !(LINE - 1);
        let lines = (first..addr + len).step_by(LINE as usize);
        // SAFETY: lines of the mapped range, whose ends are page-aligned.
        unsafe { cpu::write_back(lines.map(|line| line as *const u8)) };
        Ok(())
    }

    #[inline]
    fn write_back(&mut self, line: u64) -> io::Result<()> {
        // Lines of ranges that `load` has checked, or that were touched: the check costs less than the instruction.
        if !space::is_mapped(line, LINE) {
            return Err(unmapped(line, LINE));
        }
        // SAFETY: mapped.
        unsafe { cpu::write_back(std::iter::once(line as *const u8)) };
        Ok(())
    }

    #[inline]
    fn fence(&mut self) -> io::Result<()> {
        cpu::fence();
        Ok(())
    }

    fn restore_volatile(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        // SAFETY: `tx::volatile` is unsafe to call: its caller promised that the memory stays writable until the transaction
        // ends.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), addr as *mut u8, data.len()) };
        Ok(())
    }
}
