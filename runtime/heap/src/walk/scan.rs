//! Pointers that lead out of the pool, or to nothing in it: what an export lists before it refuses.

use super::plan::{Plans, Window};
use crate::{Object, ObjectSpace};
use std::sync::atomic::Ordering;
use vernal_format::types::FieldKind;

/// The memory of a pool's objects, as ranges.
#[derive(Debug, Clone, Default)]
pub struct PoolRanges {
    ranges: Vec<(u64, u64)>,
}

impl PoolRanges {
    /// The chunks of a pool, adjacent ones as one range.
    pub fn of<S: ObjectSpace + ?Sized>(space: &S) -> PoolRanges {
        let mut ranges: Vec<(u64, u64)> = (0..space.chunk_count())
            .filter_map(|chunk| space.chunk_range(chunk))
            .collect();
        ranges.sort_unstable();
        ranges.dedup_by(|b, a| {
            let joined = b.0 <= a.1;
            if joined {
                a.1 = a.1.max(b.1);
            }
            joined
        });
        PoolRanges { ranges }
    }

    /// Whether `value` lies in the pool or is the end of a range.
    #[inline]
    pub fn contains(&self, value: u64) -> bool {
        self.find(value).is_some()
    }

    /// The range that `value` lies in, or is the end of.
    fn find(&self, value: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|r| r.0 <= value);
        let range = self.ranges.get(at.checked_sub(1)?)?;
        (value <= range.1).then_some(*range)
    }
}

/// Looks pointers up. Most lead to where the one before them leads.
struct Inside<'a> {
    ranges: &'a PoolRanges,
    start: u64,
    len: u64,
}

impl Inside<'_> {
    /// Whether the value is null, or in the pool.
    #[inline(always)]
    fn holds(&mut self, value: u64) -> bool {
        // Before the first range is found this one holds null only.
        value == 0 || value.wrapping_sub(self.start) <= self.len || self.holds_far(value)
    }

    fn holds_far(&mut self, value: u64) -> bool {
        let Some((start, end)) = self.ranges.find(value) else {
            return false;
        };
        (self.start, self.len) = (start, end - start);
        true
    }
}

/// A pointer that leads out of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The object that holds it.
    pub object: Object,
    /// Where it lies.
    pub addr: u64,
    /// Its value.
    pub value: u64,
    /// Index of its field in the type's descriptor.
    pub field: u32,
    /// Whether it points to code: a function or a vtable. Such values are bound to a process by nature.
    pub kind: FieldKind,
}

impl Finding {
    /// `type.field`, with the element's index: `table.slot[3].key`.
    pub fn name<S: ObjectSpace + ?Sized>(&self, space: &S) -> String {
        let desc = space.type_desc(self.object.type_index);
        let place = super::path::place_name(desc, self.addr.wrapping_sub(self.object.addr));
        match desc {
            Some(desc) if place.starts_with('[') => format!("{}{place}", desc.name()),
            Some(desc) => format!("{}.{place}", desc.name()),
            None => place,
        }
    }
}

/// Calls `f` with each address of `chunk` that is not null and not an address of the pool, until `f` returns `false`.
/// Functions and vtables are among them if `code` says so.
pub fn scan_external<S: ObjectSpace + ?Sized>(
    space: &S,
    plans: &Plans,
    ranges: &PoolRanges,
    chunk: usize,
    code: bool,
    f: &mut dyn FnMut(Finding) -> bool,
) {
    let Some((start, end)) = space.chunk_range(chunk) else {
        return;
    };
    let window = Window { start, end };
    let count = usize::try_from(end.saturating_sub(start) / 8).unwrap_or(0);
    let Some(words) = space.words(start, count) else {
        return;
    };
    let mut inside = Inside {
        ranges,
        start: 0,
        len: 0,
    };
    space.for_each_overlapping(chunk, &mut |object| {
        let Some(plan) = plans.get(object.type_index) else {
            return true;
        };
        // Most objects are one small element, and none of their pointers leads out: nothing else need be known of those.
        if !(code && plan.is_bound())
            && let Some((base, offsets)) = plan.whole(&object, window)
        {
            let value = |offset: &u32| {
                let word = words.get(base + *offset as usize);
                word.map_or(0, |w| w.load(Ordering::Relaxed))
            };
            if offsets.iter().all(|offset| inside.holds(value(offset))) {
                return true;
            }
        }
        let mut more = true;
        let mut look = |word: usize, run: &super::plan::Run| {
            let value = words.get(word).map_or(0, |w| w.load(Ordering::Relaxed));
            // An annotated pointer may be something else, and then it is nothing that points out of the pool.
            let outside = value != 0 && !run.annotated && !ranges.contains(value);
            if more && outside {
                more = f(Finding {
                    object,
                    addr: start + word as u64 * 8,
                    value,
                    field: run.field,
                    kind: run.kind,
                });
            }
        };
        plan.pointers(&object, window, &mut look);
        if code && plan.is_bound() {
            plan.bound(&object, window, &mut look);
        }
        more
    });
}

/// A word of memory without type that is the address of an object, or of something inside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untyped {
    /// The memory that holds it.
    pub object: Object,
    /// Where it lies.
    pub addr: u64,
    /// Its value.
    pub value: u64,
}

/// Whether a word of memory without type is taken for a pointer: nothing else can tell.
pub(super) fn looks_like_pointer<S: ObjectSpace + ?Sized>(space: &S, value: u64) -> bool {
    value != 0 && space.object_at(value).is_some()
}

/// Calls `f` with each word of `chunk` that would have to be rewritten if the pool moved and cannot be, because nobody knows
/// whether it is a pointer: memory that has no type. Until `f` returns `false`. `here` gives the address at which `space`
/// has what a value may point to; `None`: the value is no address of the pool.
pub fn scan_untyped<S: ObjectSpace + ?Sized>(
    space: &S,
    chunk: usize,
    here: &dyn Fn(u64) -> Option<u64>,
    f: &mut dyn FnMut(Untyped) -> bool,
) {
    let Some((start, end)) = space.chunk_range(chunk) else {
        return;
    };
    space.for_each_untyped(chunk, &mut |object| {
        let from = object.addr.max(start);
        let to = object.addr.saturating_add(object.size).min(end);
        let count = usize::try_from(to.saturating_sub(from) / 8).unwrap_or(0);
        let words = space.words(from, count).unwrap_or_default();
        for (word, addr) in words.iter().zip((from..).step_by(8)) {
            let value = word.load(Ordering::Relaxed);
            let hit = here(value).is_some_and(|place| looks_like_pointer(space, place));
            if hit
                && !f(Untyped {
                    object,
                    addr,
                    value,
                })
            {
                return false;
            }
        }
        true
    });
}
