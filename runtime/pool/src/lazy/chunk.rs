//! One chunk with its new addresses: built aside, put in place with one call.
//!
//! A chunk without addresses only becomes accessible. Of any other, a private view of the file is made, in which only the pages
//! with addresses become the process's own, all in one call: a fault for each costs more than rewriting it does (docs/adr/0017).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi::LINE_SIZE;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_heap::walk::Rewrite;
use vernal_heap::{Heap, ObjectSpace, PoolMemory};
use vernal_snapshot::thread::mark_range;
use vernal_sys::{Aside, mem};

use super::image::Image;
use super::{Lazy, Region};

/// Pages of a chunk.
const PAGES: usize = (CHUNK_SIZE / mem::PAGE_SIZE) as usize;

/// A set of pages of a chunk.
#[derive(Default, Clone, Copy)]
struct Pages([u64; PAGES / 64]);

impl Pages {
    fn add(&mut self, page: u64) {
        if let Some(word) = self.0.get_mut((page / 64) as usize) {
            *word |= 1 << (page % 64);
        }
    }

    fn has(&self, page: u64) -> bool {
        let word = self.0.get((page / 64) as usize);
        word.is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// Calls `f` with each run of pages: first, and how many.
    fn runs(&self, mut f: impl FnMut(u64, u64)) {
        let mut from = 0;
        while from < PAGES as u64 {
            let len = (from..PAGES as u64).take_while(|p| self.has(*p)).count() as u64;
            if len > 0 {
                f(from, len);
            }
            from += len + 1;
        }
    }
}

/// The pages of a chunk that its rewriting has changed.
#[derive(Default)]
pub(super) struct ChangedPages([AtomicU64; PAGES / 64]);

impl ChangedPages {
    fn set(&self, pages: &Pages) {
        for (to, from) in self.0.iter().zip(pages.0) {
            to.store(from, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Pages {
        let mut pages = Pages::default();
        for (to, from) in pages.0.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed);
        }
        pages
    }
}

/// Takes lines one by one and passes on those that follow each other as one range.
struct Lines<F: FnMut(u64, u64)> {
    start: u64,
    end: u64,
    f: F,
}

impl<F: FnMut(u64, u64)> Lines<F> {
    fn new(f: F) -> Self {
        Lines {
            start: 0,
            end: 0,
            f,
        }
    }

    #[inline]
    fn add(&mut self, line: u64) {
        if line != self.end {
            self.flush();
            self.start = line;
        }
        self.end = line + LINE_SIZE;
    }

    fn flush(&mut self) {
        if self.end > self.start {
            (self.f)(self.start, self.end - self.start);
        }
        (self.start, self.end) = (0, 0);
    }
}

impl Lazy {
    /// The pages of a chunk in which addresses may have to be rewritten; `None`: it holds objects of no known type.
    fn pages_with_addresses(&self, image: &Heap<Arc<Image>>, r: &Region) -> Option<Pages> {
        let (mut pages, mut known) = (Pages::default(), true);
        image.for_each_span(r.chunk, &mut |addr, len, type_index| {
            let Some(plan) = self.plans.get(type_index) else {
                known = false;
                return false;
            };
            if plan.has_pointers() || (self.binding.is_some() && plan.is_bound()) {
                let first = addr.saturating_sub(r.chunk_start) / mem::PAGE_SIZE;
                for page in first..first + len.div_ceil(mem::PAGE_SIZE) {
                    pages.add(page);
                }
            }
            true
        });
        known.then_some(pages)
    }

    /// Builds a region's memory and puts it in its place. With `mark` the lines that change are marked; no commit looks at them
    /// until the caller's bracket ends. Allocates nothing from the heap of the process, because it runs in a signal handler.
    pub(super) fn build(&self, r: &Region, mark: bool) -> Option<()> {
        let image = self.image()?;
        let area = image.memory().area(r.start)?;
        let pages = self.pages_with_addresses(image, r)?;
        if pages.is_empty() {
            let prot = match self.read_only {
                true => libc::PROT_READ,
                false => libc::PROT_READ | libc::PROT_WRITE,
            };
            r.changed.set(&pages);
            // SAFETY: the region lies in a mapped puddle of this pool; it holds nothing that has to change.
            return unsafe { mem::mprotect(r.start, r.end - r.start, prot) }.ok();
        }
        let front = r.start - r.chunk_start;
        let aside = Aside::view(area.file(), area.offset(r.chunk_start), CHUNK_SIZE).ok()?;
        pages.runs(|first, len| aside.populate(first * mem::PAGE_SIZE, len * mem::PAGE_SIZE));
        let rewrite = Rewrite {
            plans: &self.plans,
            pointers: if r.older {
                &self.previous
            } else {
                &self.current
            },
            binding: self.binding.as_ref(),
        };
        let mut changed = Pages::default();
        let mut lines = Lines::new(|from, len| {
            for page in (from - r.chunk_start) / mem::PAGE_SIZE
                ..=(from + len - 1 - r.chunk_start) / mem::PAGE_SIZE
            {
                changed.add(page);
            }
            if mark {
                mark_range(from, len);
            }
        });
        let report = rewrite
            .chunk(image, r.chunk, aside.words(), &mut |line| lines.add(line))
            .ok()?;
        lines.flush();
        if report.unknown > 0 {
            return None;
        }
        r.changed.set(&changed);
        // SAFETY: the region lies in a mapped puddle of this pool, and nobody can access it until this call replaces it; its old
        // content is in the file.
        let put = |aside: Aside| unsafe {
            match self.read_only {
                true => aside.protect()?.put(front, r.start),
                false => aside.put(front, r.start),
            }
        };
        put(aside).ok()
    }

    /// Marks what the rewriting of a region has changed, but for the line `but`. The region is accessible, and its changes were
    /// not marked when it was built.
    pub(super) fn mark_changed(&self, r: &Region, here: &impl PoolMemory, but: u64) -> Option<()> {
        const WORDS: usize = (mem::PAGE_SIZE / 8) as usize;
        const LINE_WORDS: usize = (LINE_SIZE / 8) as usize;
        let image = self.image()?;
        let pages = r.changed.get();
        let mut lines = Lines::new(|from, len| mark_range(from, len));
        for page in (0..PAGES as u64).filter(|p| pages.has(*p)) {
            let addr = r.chunk_start + page * mem::PAGE_SIZE;
            let now = here.words(addr, WORDS)?;
            let was = image.memory().words(addr, WORDS)?;
            let both = now.chunks(LINE_WORDS).zip(was.chunks(LINE_WORDS));
            for ((now, was), line) in both.zip((addr..).step_by(LINE_SIZE as usize)) {
                let differ = now
                    .iter()
                    .zip(was)
                    .any(|(a, b)| a.load(Ordering::Relaxed) != b.load(Ordering::Relaxed));
                if differ && line != but {
                    lines.add(line);
                }
            }
        }
        lines.flush();
        Some(())
    }
}
