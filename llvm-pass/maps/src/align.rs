//! Alignment of types. Debug information has it only where the program asked for one, so it follows from the members and
//! from where they lie: a member at an odd place shows that its struct is packed.

use crate::die::{Die, Fuel, NodeId, Source, strip, tag};
use crate::notes;

/// The largest natural alignment of x86-64: `long double`, `__int128`, SSE vectors. Larger ones are asked for.
const MAX_NATURAL: u64 = 16;
const MAX_DEPTH: u32 = 64;

/// Bytes of a type, 0 when it has no size.
pub(crate) fn size_of<S: Source + ?Sized>(src: &S, ty: NodeId) -> u64 {
    let ty = strip(src, ty);
    if ty == 0 {
        return 0;
    }
    let die = src.die(ty);
    match die.tag {
        // `decltype(nullptr)` and references are as large as pointers.
        tag::UNSPECIFIED | tag::REFERENCE | tag::RVALUE_REFERENCE if die.size == 0 => 8,
        _ => die.size.div_ceil(8),
    }
}

/// The alignment of a type in bytes.
pub(crate) fn align_of<S: Source + ?Sized>(src: &S, ty: NodeId) -> u32 {
    clamp(align(src, ty, &Fuel::new(), 0))
}

fn clamp(align: u64) -> u32 {
    let max = u64::from(vernal_format::types::MAX_TYPE_ALIGN);
    u32::try_from(align.clamp(1, max)).unwrap_or(1)
}

fn align<S: Source + ?Sized>(src: &S, ty: NodeId, fuel: &Fuel, depth: u32) -> u64 {
    // A typedef may carry an alignment of its own.
    let mut asked = 0;
    let mut at = ty;
    for _ in 0..MAX_DEPTH {
        if at == 0 {
            return 1;
        }
        let die = src.die(at);
        asked = asked.max(u64::from(die.align) / 8);
        if strip(src, at) == at {
            break;
        }
        at = die.base;
    }
    if at == 0 || depth > MAX_DEPTH || !fuel.burn() {
        return 1;
    }
    let die = src.die(at);
    let size = size_of(src, at);
    let natural = match die.tag {
        tag::STRUCTURE | tag::CLASS | tag::UNION => of_members(src, &die, fuel, depth),
        tag::ARRAY if !die.flags.vector => align(src, die.base, fuel, depth + 1),
        tag::ARRAY => divisor(size, size),
        tag::PTR_TO_MEMBER => 8,
        _ => divisor(size, MAX_NATURAL),
    };
    natural.max(asked)
}

fn of_members<S: Source + ?Sized>(src: &S, die: &Die, fuel: &Fuel, depth: u32) -> u64 {
    let size = die.size / 8;
    let mut all = 1;
    for &id in &die.elements {
        let m = src.die(id);
        let place = matches!(m.tag, tag::MEMBER | tag::INHERITANCE) && !m.flags.is_static;
        if !place || notes::is_note(src, &m) {
            continue;
        }
        let asked = u64::from(m.align) / 8;
        let own = align(src, m.base, fuel, depth + 1).max(asked);
        all = all.max(match () {
            // Where these lie is not in `offset`.
            () if m.flags.bit_field || m.flags.is_virtual => own,
            () => divisor(m.offset / 8, own),
        });
    }
    divisor(size, all.max(u64::from(die.align) / 8))
}

/// The largest power of two that divides `n` and is at most `limit`.
fn divisor(n: u64, limit: u64) -> u64 {
    let limit = match limit.checked_next_power_of_two() {
        Some(p) if p > limit => p / 2,
        Some(p) => p,
        None => 1,
    };
    match n {
        0 => limit.max(1),
        n => (1 << n.trailing_zeros()).min(limit.max(1)),
    }
}
