//! Emulation of a memory-semantic CXL SSD over a mapped range (being written).

/// Attaches `[addr, addr + len)` when emulation is enabled.
pub fn attach_if_enabled(_addr: u64, _len: u64) {}
/// Detaches a range.
pub fn detach(_addr: u64, _len: u64) {}
