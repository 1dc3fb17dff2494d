//! Where the addresses of a type are, in the form that is fast to go through.

use crate::{Object, ObjectSpace, TYPE_FIRST, TYPE_META, TYPE_RAW};
use vernal_format::types::{FieldKind, TypeDesc, field_flags};

/// Addresses of one field, in one element of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// From the start of the element.
    pub offset: u64,
    /// From one address to the next.
    pub stride: u64,
    /// How many; of a flexible field as many as fit.
    pub count: u64,
    /// Pointer, function or vtable.
    pub kind: FieldKind,
    /// Index of the field in the descriptor.
    pub field: u32,
    /// Which address point, for a vtable.
    pub aux: u64,
    /// Whether an annotation says that it is a pointer: it may be another value instead, or carry a tag in its low bits.
    pub annotated: bool,
    flex: bool,
}

/// What of an address range is looked at: one chunk, or one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First address, a multiple of 8.
    pub start: u64,
    /// End, a multiple of 8.
    pub end: u64,
}

/// A type's addresses. Made once for each type of a pool.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    size: u64,
    flexible: bool,
    /// Every word of an element is a pointer of one run, so that an array of elements is one run, too.
    dense: bool,
    /// Words of one element that hold its pointers, if those are few: most objects of a pool are one small element.
    few: Option<Box<[u32]>>,
    pointers: Box<[Run]>,
    bound: Box<[Run]>,
}

impl Plan {
    /// The plan of a type.
    pub fn of(desc: &TypeDesc) -> Plan {
        let runs = |bound: bool| -> Box<[Run]> {
            desc.fields()
                .iter()
                .enumerate()
                .filter(|(_, f)| f.kind.is_address() && (f.kind != FieldKind::Pointer) == bound)
                .map(|(index, f)| Run {
                    offset: f.offset,
                    stride: f.stride.into(),
                    count: f.count.into(),
                    kind: f.kind,
                    field: index as u32,
                    aux: f.aux,
                    annotated: f.flags & field_flags::ANNOTATED != 0,
                    flex: f.is_flex(),
                })
                .collect()
        };
        let pointers = runs(false);
        let dense = match &*pointers {
            [r] => !r.flex && r.stride == 8 && r.offset == 0 && r.count * 8 == desc.size(),
            _ => false,
        };
        Plan {
            few: few(&pointers),
            size: desc.size(),
            flexible: desc.is_flexible(),
            dense,
            pointers,
            bound: runs(true),
        }
    }

    /// Whether there is nothing to find.
    pub fn is_opaque(&self) -> bool {
        self.pointers.is_empty() && self.bound.is_empty()
    }

    /// Whether there are pointers to data.
    pub fn has_pointers(&self) -> bool {
        !self.pointers.is_empty()
    }

    /// Whether there are functions or vtables.
    pub fn is_bound(&self) -> bool {
        !self.bound.is_empty()
    }

    /// The pointers of an object that is one element and lies in the window as a whole: the object's word in the window, and
    /// the words from there. Everything else, `None`, is for [`Plan::pointers`].
    #[inline(always)]
    pub fn whole(&self, object: &Object, window: Window) -> Option<(usize, &[u32])> {
        let few = self.few.as_deref()?;
        let one = object.size >= self.size && object.size / 2 < self.size;
        let inside = object.addr >= window.start
            && object.addr < window.end
            && object.size <= window.end - object.addr
            && object.addr.is_multiple_of(8);
        (one && inside).then(|| (((object.addr - window.start) / 8) as usize, few))
    }

    /// Calls `f` with each pointer of `object` inside the window: its word in the window, and its run.
    #[inline(always)]
    pub fn pointers(&self, object: &Object, window: Window, mut f: impl FnMut(usize, &Run)) {
        if self.dense
            && let [run] = &*self.pointers
        {
            // Whole elements only: what lies behind the last one is not an address.
            let count = self.elements(object.size) * run.count;
            let Some(place) = Place::of(object, window) else {
                return;
            };
            return place.run(object.addr, 8, count, |word| f(word, run));
        }
        self.addresses(&self.pointers, object, window, &mut f);
    }

    /// The same for functions and vtables.
    #[inline]
    pub fn bound(&self, object: &Object, window: Window, mut f: impl FnMut(usize, &Run)) {
        self.addresses(&self.bound, object, window, &mut f);
    }

    /// Whole elements in `size` bytes.
    #[inline(always)]
    fn elements(&self, size: u64) -> u64 {
        // A division costs more than the rest of a small object.
        if self.flexible || self.size == 0 || size / 2 < self.size {
            u64::from(size >= self.size)
        } else {
            size / self.size
        }
    }

    #[inline(always)]
    fn addresses(
        &self,
        runs: &[Run],
        object: &Object,
        window: Window,
        f: &mut impl FnMut(usize, &Run),
    ) {
        if runs.is_empty() {
            return;
        }
        let Some(place) = Place::of(object, window) else {
            return;
        };
        let (first, last) = place.elements(object.addr, self.size, self.elements(object.size));
        for element in first..last {
            let base = object.addr + element * self.size;
            for run in runs {
                let count = match run.flex {
                    false => run.count,
                    true => match object.size.checked_sub(run.offset + 8) {
                        None => continue,
                        Some(rest) => rest / run.stride + 1,
                    },
                };
                place.run(base + run.offset, run.stride, count, |word| f(word, run));
            }
        }
    }
}

/// Pointers that are listed one by one.
const FEW: u64 = 64;

/// The words of all runs, if they are few and none is flexible.
fn few(runs: &[Run]) -> Option<Box<[u32]>> {
    let total = runs.iter().fold(0u64, |n, r| n.saturating_add(r.count));
    if total > FEW || runs.iter().any(|r| r.flex) {
        return None;
    }
    let each = |r: &Run| {
        let (offset, stride) = (r.offset, r.stride);
        (0..r.count).map(move |i| u32::try_from((offset + i * stride) / 8).ok())
    };
    let mut words: Vec<u32> = runs.iter().flat_map(each).collect::<Option<_>>()?;
    words.sort_unstable();
    Some(words.into())
}

/// An object in a window, and whether all of it is.
struct Place {
    window: Window,
    inside: bool,
}

impl Place {
    /// `None` when they do not meet, or when the object cannot be one: its place came from damaged metadata.
    #[inline(always)]
    fn of(object: &Object, window: Window) -> Option<Place> {
        let end = object.addr.checked_add(object.size)?;
        if object.addr >= window.end || end <= window.start || !object.addr.is_multiple_of(8) {
            return None;
        }
        Some(Place {
            window,
            inside: object.addr >= window.start && end <= window.end,
        })
    }

    /// The elements of an array that may reach into the window.
    #[inline(always)]
    fn elements(&self, addr: u64, size: u64, count: u64) -> (u64, u64) {
        if self.inside || size == 0 || count == 1 {
            return (0, count);
        }
        let first = self.window.start.saturating_sub(addr) / size;
        let last = (self.window.end - addr).div_ceil(size);
        (first.min(count), last.min(count))
    }

    /// The words of a run that lie in the window.
    #[inline(always)]
    fn run(&self, first: u64, stride: u64, count: u64, mut f: impl FnMut(usize)) {
        let (mut from, mut to) = (0, count);
        if !self.inside && stride != 0 {
            from = self.window.start.saturating_sub(first).div_ceil(stride);
            let room = self.window.end.saturating_sub(first);
            to = count.min(if room < 8 { 0 } else { (room - 8) / stride + 1 });
        }
        let mut at = first
            .wrapping_add(from.wrapping_mul(stride))
            .wrapping_sub(self.window.start);
        for _ in from..to {
            f((at / 8) as usize);
            at = at.wrapping_add(stride);
        }
    }
}

/// The plans of all types of a pool.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    plans: Vec<Plan>,
    opaque: Plan,
}

impl Plans {
    /// Compiles the pool's type table as it is now. Types that are taken in later are unknown to these plans.
    pub fn of<S: ObjectSpace + ?Sized>(space: &S) -> Plans {
        let mut plans = Vec::new();
        while let Some(desc) = u32::try_from(plans.len())
            .ok()
            .and_then(|n| n.checked_add(TYPE_FIRST))
            .and_then(|index| space.type_desc(index))
        {
            plans.push(Plan::of(desc));
        }
        Plans {
            plans,
            opaque: Plan::default(),
        }
    }

    /// The plan of a type index; `None` for one that is not in the table.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Plan> {
        match index {
            TYPE_RAW | TYPE_META => Some(&self.opaque),
            _ => self.plans.get((index - TYPE_FIRST) as usize),
        }
    }
}
