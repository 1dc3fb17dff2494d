//! A chunk with its new addresses, or a part of one: built aside, put in place with one call.
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

/// What has become of pieces that were to be built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Built {
    /// They are in their places.
    All,
    /// Nothing has changed.
    Nothing,
    /// One is in its place, and the other could not be put there.
    Half,
}

/// A set of pages of a chunk.
#[derive(Default, Clone, Copy)]
struct Pages([u64; PAGES / 64]);

impl Pages {
    fn add(&mut self, page: u64) {
        if let Some(word) = self.0.get_mut((page / 64) as usize) {
            *word |= 1 << (page % 64);
        }
    }

    /// Those of `[from, to)`.
    fn within(&self, from: u64, to: u64) -> Pages {
        let mut pages = Pages::default();
        for page in (from..to).filter(|p| self.has(*p)) {
            pages.add(page);
        }
        pages
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
    pub(super) fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn add(&self, pages: &Pages) {
        for (to, from) in self.0.iter().zip(pages.0) {
            to.fetch_or(from, Ordering::Relaxed);
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

    /// Builds pieces of a region's memory and puts them in their places. With `mark` the lines that change are marked; no commit
    /// looks at them until the caller's bracket ends. Allocates nothing from the heap of the process, because it runs in a signal
    /// handler.
    pub(super) fn build(&self, r: &Region, pieces: &[(u64, u64)], mark: bool) -> Built {
        const NONE: Option<Aside> = None;
        let mut ready = [NONE; 2];
        let prepared = self.image().and_then(|image| {
            let pages = self.pages_with_addresses(image, r)?;
            for (slot, piece) in ready.iter_mut().zip(pieces) {
                *slot = self.piece(image, r, &pages, *piece, mark)?;
            }
            Some(())
        });
        if prepared.is_none() {
            return Built::Nothing;
        }
        for (at, (aside, (from, to))) in ready.into_iter().zip(pieces).enumerate() {
            if self.put(aside, *from, *to).is_none() {
                return match at {
                    0 => Built::Nothing,
                    _ => Built::Half,
                };
            }
        }
        Built::All
    }

    /// One piece; inner `None`: it needs no change.
    #[expect(clippy::option_option, reason = "cannot be built, need not be built")]
    fn piece(
        &self,
        image: &Heap<Arc<Image>>,
        r: &Region,
        pages: &Pages,
        (from, to): (u64, u64),
        mark: bool,
    ) -> Option<Option<Aside>> {
        let page_of = |addr: u64| (addr - r.chunk_start) / mem::PAGE_SIZE;
        let pages = pages.within(page_of(from), page_of(to));
        if pages.is_empty() {
            return Some(None);
        }
        let area = image.memory().area(from)?;
        let aside = Aside::view(area.file(), area.offset(from), to - from).ok()?;
        let first = page_of(from);
        pages.runs(|page, len| {
            aside.populate((page - first) * mem::PAGE_SIZE, len * mem::PAGE_SIZE);
        });
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
        let mut lines = Lines::new(|line, len| {
            for page in page_of(line)..=page_of(line + len - 1) {
                changed.add(page);
            }
            if mark {
                mark_range(line, len);
            }
        });
        let report = rewrite.part(image, (from, to), aside.words(), &mut |line| {
            lines.add(line);
        });
        lines.flush();
        if report.unknown > 0 {
            return None;
        }
        r.changed.add(&changed);
        Some(Some(aside))
    }

    fn put(&self, aside: Option<Aside>, from: u64, to: u64) -> Option<()> {
        let Some(aside) = aside else {
            let prot = match self.read_only {
                true => libc::PROT_READ,
                false => libc::PROT_READ | libc::PROT_WRITE,
            };
            // SAFETY: the piece lies in a mapped puddle of this pool; it holds nothing that has to change.
            return unsafe { mem::mprotect(from, to - from, prot) }.ok();
        };
        // SAFETY: the piece lies in a mapped puddle of this pool, and nobody can access it until this call replaces it; its old
        // content is in the file.
        let put = |aside: Aside| unsafe {
            match self.read_only {
                true => aside.protect()?.put(0, from),
                false => aside.put(0, from),
            }
        };
        put(aside).ok()
    }

    /// Whether a region has anything to rewrite, and is not damaged.
    pub(super) fn has_addresses(&self, r: &Region) -> bool {
        let pages = self
            .image()
            .and_then(|image| self.pages_with_addresses(image, r));
        pages.is_some_and(|pages| !pages.is_empty())
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
