//! What compiled code and the runtime must agree on: the address map, the shadow formula and the names of the hooks.
//!
//! This crate is `no_std`, has no dependencies and contains no code that runs: the LLVM pass and the runtime both build
//! on it, so that neither can drift from the other. A change here that alters the meaning of compiled code must change
//! [`ABI_SYMBOL`], so that old objects fail to link instead of failing to persist.
//!
//! # Address map (x86-64, 47-bit user space)
//!
//! ```text
//! 0x5700_0000_0000  direct space 512 GiB   pools that are changed in place
//! 0x5780_0000_0000  RPC space    256 GiB   segments of RPC heaps and rings; puddled gives the addresses
//! 0x57f0_0000_0000  shadow        16 GiB   one byte per 64-byte line of the tracked range
//! 0x5800_0000_0000  tracked range  1 TiB   working copies; the addresses programs see
//! 0x5900_0000_0000  home view      1 TiB   the committed image of the same lines, at a constant distance
//! 0x5a00_0000_0000  end
//! ```
//!
//! The range lies between the highest place the kernel puts a position-independent executable with its `brk` heap
//! (0x5655_5555_4000 plus the heap) and TSan's upper bound for mid-range application memory (0x5a00_0000_0000), and
//! inside what ASan and MSan treat as application memory, so sanitizers stay usable. Every reservation is made with
//! `MAP_FIXED_NOREPLACE`: a collision is an error that names the mapping in the way.
#![no_std]
#![forbid(unsafe_code)]

/// log2 of the size of the tracked range: 1 TiB.
pub const TRACKED_SHIFT: u32 = 40;
/// `addr >> TRACKED_SHIFT` of every tracked address.
pub const TRACKED_TAG: u64 = 0x58;
/// First tracked address.
pub const TRACKED_BASE: u64 = TRACKED_TAG << TRACKED_SHIFT;
/// Bytes in the tracked range.
pub const TRACKED_SIZE: u64 = 1 << TRACKED_SHIFT;
/// One past the last tracked address.
pub const TRACKED_END: u64 = TRACKED_BASE + TRACKED_SIZE;

/// log2 of the tracking granule, one cache line.
pub const LINE_SHIFT: u32 = 6;
/// Bytes per tracked line.
pub const LINE_SIZE: u64 = 1 << LINE_SHIFT;
/// Lines in the tracked range.
pub const LINE_COUNT: u64 = TRACKED_SIZE >> LINE_SHIFT;

/// First byte of the shadow.
pub const SHADOW_BASE: u64 = 0x57f0_0000_0000;
/// Bytes of shadow: one per line.
pub const SHADOW_SIZE: u64 = LINE_COUNT;
/// `shadow(addr) = (addr >> LINE_SHIFT) + SHADOW_OFFSET` (wrapping): the byte for the line that holds `addr`.
pub const SHADOW_OFFSET: u64 = SHADOW_BASE.wrapping_sub(TRACKED_BASE >> LINE_SHIFT);

/// `home(addr) = addr + HOME_DISTANCE`.
pub const HOME_DISTANCE: u64 = TRACKED_SIZE;
/// First address of the home view.
pub const HOME_BASE: u64 = TRACKED_BASE + HOME_DISTANCE;

/// Shadow byte: the line has not been written since the last commit that looked at it.
pub const SHADOW_CLEAN: u8 = 0;
/// Shadow byte: the line is on a thread's dirty list.
pub const SHADOW_DIRTY: u8 = 1;

/// Whether `addr` lies in the tracked range.
#[inline(always)]
pub const fn is_tracked(addr: u64) -> bool {
    addr >> TRACKED_SHIFT == TRACKED_TAG
}

/// The address of the shadow byte of the line that holds the tracked address `addr`.
#[inline(always)]
pub const fn shadow_addr(addr: u64) -> u64 {
    (addr >> LINE_SHIFT).wrapping_add(SHADOW_OFFSET)
}

/// The number of the line that holds the tracked address `addr`, counted from [`TRACKED_BASE`].
#[inline(always)]
pub const fn line_of(addr: u64) -> u64 {
    (addr - TRACKED_BASE) >> LINE_SHIFT
}

/// The tracked address of line `line`.
#[inline(always)]
pub const fn line_addr(line: u64) -> u64 {
    TRACKED_BASE + (line << LINE_SHIFT)
}

/// First address of the direct space: pools that are changed in place, below the shadow and above every place where the
/// kernel puts a position-independent executable. No barrier looks at it.
pub const DIRECT_BASE: u64 = 0x5700_0000_0000;
/// Bytes of the direct space: 512 GiB.
pub const DIRECT_SIZE: u64 = 1 << 39;

/// First address of the RPC space: memory that processes share for calls, between the direct space and the shadow. No barrier
/// looks at it.
pub const RPC_BASE: u64 = 0x5780_0000_0000;
/// Bytes of the RPC space: 256 GiB.
pub const RPC_SIZE: u64 = 1 << 38;

/// Whether `addr` lies in the RPC space.
#[inline(always)]
pub const fn is_rpc(addr: u64) -> bool {
    addr.wrapping_sub(RPC_BASE) < RPC_SIZE
}

/// Segments: the pieces of memory that RPC shares, each written by one process.
pub mod segment {
    /// The smallest segment; home addresses are multiples of this. It is a puddle's smallest size too, so that a segment can
    /// hold a puddle.
    pub const SEGMENT_MIN: u64 = super::puddle::PUDDLE_MIN;
    /// log2 of the largest segment in units of [`SEGMENT_MIN`]: 64 GiB, a quarter of the space.
    pub const SEGMENT_MAX_SHIFT: u32 = 15;

    /// Whether `size` is that of a segment.
    pub const fn is_segment_size(size: u64) -> bool {
        size.is_power_of_two() && size >= SEGMENT_MIN && size <= SEGMENT_MIN << SEGMENT_MAX_SHIFT
    }
}

/// Puddles: the files that pools are made of.
pub mod puddle {
    /// A puddle's allocator metadata, relocation and lazy mapping work in chunks of this many bytes.
    pub const CHUNK_SIZE: u64 = 2 << 20;
    /// Bytes of header for each chunk. All headers of a puddle lie at its front, so that its heap is contiguous.
    pub const CHUNK_HEADER: u64 = 4096;
    /// The smallest puddle; home addresses are multiples of this.
    pub const PUDDLE_MIN: u64 = CHUNK_SIZE;
    /// log2 of the largest puddle in units of [`PUDDLE_MIN`]: 256 GiB.
    pub const PUDDLE_MAX_SHIFT: u32 = 17;
    /// Puddles of one pool.
    pub const MAX_PUDDLES: usize = 64;

    /// Whether `size` is that of a puddle.
    pub const fn is_puddle_size(size: u64) -> bool {
        size.is_power_of_two() && size >= PUDDLE_MIN && size <= PUDDLE_MIN << PUDDLE_MAX_SHIFT
    }
}

/// What compiled code says about the types that it allocates; the layout of a descriptor is drawn in `docs/format.md`.
pub mod types {
    /// The section of an object file that holds the addresses of its `struct vn_type`.
    pub const SECTION: &str = "vernal_types";
    /// `void __vernal_register_types(const struct vn_type *const *start, const struct vn_type *const *stop)`.
    pub const REGISTER: &str = "__vernal_register_types";
    /// `void *__vn_new(vn_pool *, size_t, const struct vn_type *)`: the pass fills in the last argument.
    pub const NEW: &str = "__vn_new";
    /// `void *__vn_root(vn_pool *, size_t, const struct vn_type *)`: likewise.
    pub const ROOT: &str = "__vn_root";
}

/// The hooks that instrumented code calls. All have the `preserve_most` calling convention: on x86-64 they keep every
/// general-purpose register except r11 (vector registers are *not* kept), so that a call costs the hot path no spills.
/// They may be called from any thread, from signal handlers, and before or after `main`. They never fail, never change
/// `errno`, and never lock.
pub mod hooks {
    /// `void __vernal_mark_line(void *addr)`: the line that holds `addr` was written. `addr` must be tracked
    /// ([`super::is_tracked`]) and its page mapped (the caller has just stored to it). Checks the shadow byte itself, so
    /// a redundant call is harmless.
    pub const MARK_LINE: &str = "__vernal_mark_line";
    /// `void __vernal_mark_range(void *addr, size_t len)`: `len` bytes from `addr` were written. Any address and any
    /// length are allowed: the part outside mapped tracked memory is ignored.
    pub const MARK_RANGE: &str = "__vernal_mark_range";
    /// `void __vernal_mark_cstr(void *addr)`: a NUL-terminated string was written at `addr`; its terminator is
    /// included. Any address is allowed: an untracked one returns at once.
    pub const MARK_CSTR: &str = "__vernal_mark_cstr";
}

/// Every instrumented object refers to this symbol and libvernal defines it, so that an object built for another ABI
/// version or another durability mode fails to link. (`b` is the buffered mode, `1` the ABI version.)
pub const ABI_SYMBOL: &str = "__vernal_abi_b1";

/// An LTO object that was left uninstrumented on purpose, to be instrumented at link time, refers to this symbol; the
/// link-time pass removes the reference. Nothing defines it, so linking without the pass is an error and not a silent
/// loss of every update.
pub const LTO_PENDING_SYMBOL: &str = "__vernal_lto_link_needs_vernal_cc";

const _: () = {
    assert!(TRACKED_BASE == 0x5800_0000_0000);
    assert!(shadow_addr(TRACKED_BASE) == SHADOW_BASE);
    assert!(shadow_addr(TRACKED_END - 1) == SHADOW_BASE + SHADOW_SIZE - 1);
    assert!(SHADOW_BASE + SHADOW_SIZE <= TRACKED_BASE);
    assert!(HOME_BASE == TRACKED_END);
    assert!(HOME_BASE + TRACKED_SIZE <= 0x5a00_0000_0000);
    assert!(DIRECT_BASE + DIRECT_SIZE <= RPC_BASE);
    assert!(RPC_BASE + RPC_SIZE <= SHADOW_BASE);
    assert!(is_rpc(RPC_BASE) && is_rpc(RPC_BASE + RPC_SIZE - 1));
    assert!(!is_rpc(RPC_BASE - 1) && !is_rpc(RPC_BASE + RPC_SIZE) && !is_tracked(RPC_BASE));
    assert!(segment::is_segment_size(puddle::PUDDLE_MIN));
    assert!(segment::SEGMENT_MIN << segment::SEGMENT_MAX_SHIFT <= RPC_SIZE);
    assert!(is_tracked(TRACKED_BASE) && is_tracked(TRACKED_END - 1));
    assert!(!is_tracked(TRACKED_BASE - 1) && !is_tracked(TRACKED_END));
    assert!(line_addr(line_of(TRACKED_BASE + 130)) == TRACKED_BASE + 128);
};
