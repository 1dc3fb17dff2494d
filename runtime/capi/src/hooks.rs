//! The hooks that instrumented code calls (`vernal_abi::hooks`).
//!
//! They follow the `preserve_most` convention: every general-purpose register but r11 survives. Stable Rust cannot compile
//! a function to that convention, so the entry points are assembly that saves what the slow path may use; the fast path of
//! [`__vernal_mark_line`] is complete here and touches nothing else.

use std::arch::naked_asm;
use vernal_abi as abi;
use vernal_snapshot::thread::{RING_OFFSET, RING_ROOM, mark_cstr, mark_range, mark_slow};

/// Defined for [`abi::ABI_SYMBOL`]: instrumented objects refer to it.
#[unsafe(no_mangle)]
pub static __vernal_abi_b1: u8 = 1;

const _: () = assert!(RING_OFFSET == 4096);

/// Saves the registers that a C function may change and `preserve_most` may not, calls `$target` with rdi and rsi as they
/// are, and restores them. Entered with `$pushed` extra words on the stack below the return address; keeps rsp aligned.
macro_rules! call_saving {
    ($odd:literal) => {
        concat!(
            "push rdx\n push rsi\n push rdi\n push r8\n push r9\n push r10\n push rbp\n",
            "mov rbp, rsp\n and rsp, -16\n call {target}\n mov rsp, rbp\n",
            "pop rbp\n pop r10\n pop r9\n pop r8\n pop rdi\n pop rsi\n pop rdx\n",
            $odd
        )
    };
}

/// Marks the line that holds a tracked address (`vernal_abi::hooks::MARK_LINE`).
///
/// # Safety
///
/// Called by instrumented code only, after a store to `addr`, which must be tracked.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __vernal_mark_line(addr: *mut u8) {
    naked_asm!(
        "push rax",
        "push rcx",
        "mov rax, rdi",
        "shr rax, 6",
        "movabs r11, {shadow}",
        "cmp byte ptr [rax + r11], 0",
        "jne 2f",
        "mov rcx, qword ptr [rip + __vernal_tls@GOTTPOFF]",
        "mov rcx, qword ptr fs:[rcx]",
        "test rcx, rcx",
        "jz 3f",
        // fast_slots is 0 when fault injection counts marks.
        "cmp qword ptr [rcx + 16], 0",
        "je 3f",
        "mov r11, qword ptr [rcx]",
        "sub r11, qword ptr [rcx + 8]",
        "cmp r11, {room}",
        "jae 4f",
        "mov r11d, 1",
        "xadd qword ptr [rcx], r11",
        "movzx r11d, r11w",
        "lea rcx, [rcx + r11*8 + 4096]",
        // The slot announces the line (rax is its number), the byte is set, the slot is filled: whoever finds the byte set
        // and commits must find the line as well (vernal_snapshot::thread).
        "mov qword ptr [rcx], rax",
        "movabs r11, {shadow}",
        "mov byte ptr [rax + r11], 1",
        "mov qword ptr [rcx], rdi",
        "cmp byte ptr [rip + {prefetch}], 0",
        "je 2f",
        // The next commit compares this line with its home line and writes to that, which is seldom in the cache: fetch it
        // now, while the program works on (docs/adr/0010). A prefetch never faults.
        "movabs r11, {home}",
        "prefetchw byte ptr [rdi + r11]",
        "2:",
        "pop rcx",
        "pop rax",
        "ret",
        // The ring is full: the address is dropped, the shadow keeps it.
        "4:",
        "movabs r11, {shadow}",
        "inc dword ptr [rcx + {dropping}]",
        "mov byte ptr [rax + r11], 1",
        "mov byte ptr [rcx + {overflow}], 1",
        "dec dword ptr [rcx + {dropping}]",
        "pop rcx",
        "pop rax",
        "ret",
        "3:",
        call_saving!("pop rcx\n pop rax\n ret"),
        shadow = const abi::SHADOW_OFFSET as i64,
        home = const abi::HOME_DISTANCE as i64,
        prefetch = sym vernal_snapshot::thread::PREFETCH_HOME,
        room = const RING_ROOM as i32,
        dropping = const std::mem::offset_of!(vernal_snapshot::thread::Control, dropping),
        overflow = const std::mem::offset_of!(vernal_snapshot::thread::Control, overflow),
        target = sym mark_slow,
    )
}

/// Marks `[addr, addr + len)` (`vernal_abi::hooks::MARK_RANGE`).
///
/// # Safety
///
/// Called by instrumented code only; any address and length are allowed.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __vernal_mark_range(addr: *mut u8, len: usize) {
    naked_asm!(
        // Code marks ranges without checking them first: leave at once when the range starts outside. (An object never
        // straddles the tracked range's lower end: nothing can be mapped across it.)
        "mov r11, rdi",
        "shr r11, 40",
        "cmp r11d, 0x58",
        "jne 2f",
        "push rax",
        "push rcx",
        call_saving!("pop rcx\n pop rax\n"),
        "2:",
        "ret",
        target = sym mark_range,
    )
}

/// Marks the string at `addr` (`vernal_abi::hooks::MARK_CSTR`).
///
/// # Safety
///
/// Called by instrumented code only; a tracked `addr` must hold a terminated string.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __vernal_mark_cstr(addr: *mut u8) {
    naked_asm!(
        "mov r11, rdi",
        "shr r11, 40",
        "cmp r11d, 0x58",
        "jne 2f",
        "push rax",
        "push rcx",
        call_saving!("pop rcx\n pop rax\n"),
        "2:",
        "ret",
        target = sym mark_cstr,
    )
}

const _: () = assert!(abi::TRACKED_SHIFT == 40 && abi::TRACKED_TAG == 0x58);
