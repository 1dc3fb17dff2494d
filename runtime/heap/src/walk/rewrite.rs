//! Relocation and rebinding: every address of a chunk gets its new value, found through the allocator's metadata and not
//! through the graph, so that chunks can be done in any order, by any thread, or when they are first touched.

use super::plan::{Plan, Plans, Run, Window};
use super::translate::{Hint, Redirects, Translate};
use crate::{Object, ObjectSpace};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;
use vernal_abi::LINE_SIZE;
use vernal_format::types::FieldKind;

/// Refusals that a report lists by name.
const LISTED: usize = 100;

/// What this process puts where another one had its vtables and functions.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    vtables: Vec<Option<Box<[u64]>>>,
    functions: Redirects,
}

impl Binding {
    /// Functions move with their modules; each module that is loaded here is one range, moved or not.
    pub fn new(functions: Redirects) -> Binding {
        Binding {
            vtables: Vec::new(),
            functions,
        }
    }

    /// The address points of a type, in the order of its vtable fields.
    pub fn set_vtables(&mut self, type_index: u32, points: &[u64]) {
        let at = type_index as usize;
        if self.vtables.len() <= at {
            self.vtables.resize(at + 1, None);
        }
        if let Some(slot) = self.vtables.get_mut(at) {
            *slot = Some(points.into());
        }
    }

    /// The new value of an address of code, or `None` when it is not known here.
    fn rebind(&self, type_index: u32, run: &Run, value: u64) -> Option<u64> {
        // An object that is zero was never constructed, or has no function to call.
        if value == 0 {
            return Some(0);
        }
        if run.kind == FieldKind::Function {
            return self.functions.find(value);
        }
        let points = self.vtables.get(type_index as usize)?.as_ref()?;
        points.get(usize::try_from(run.aux).ok()?).copied()
    }
}

/// An address of code that this process does not have. The word is left as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it lies.
    pub addr: u64,
    /// Its value.
    pub value: u64,
    /// Type of the object.
    pub type_index: u32,
    /// Field of the type.
    pub field: u32,
}

/// What a rewrite did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Objects looked at; one that spans chunks counts in each.
    pub objects: u64,
    /// Pointers looked at.
    pub pointers: u64,
    /// Pointers that changed.
    pub changed: u64,
    /// Functions and vtables that changed.
    pub rebound: u64,
    /// Objects whose type is not in the table. Their words stay as they are: the pool is damaged.
    pub unknown: u64,
    /// Functions and vtables that this process does not have: the first hundred.
    pub refused: Vec<Refused>,
    /// How many there are.
    pub refused_count: u64,
}

impl RewriteReport {
    /// Adds what another chunk gave.
    pub fn add(&mut self, other: RewriteReport) {
        self.objects += other.objects;
        self.pointers += other.pointers;
        self.changed += other.changed;
        self.rebound += other.rebound;
        self.unknown += other.unknown;
        self.refused_count += other.refused_count;
        let room = LISTED.saturating_sub(self.refused.len());
        self.refused.extend(other.refused.into_iter().take(room));
    }
}

/// Why a chunk cannot be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// There is no such chunk.
    #[error("the pool has no chunk {chunk}")]
    NoChunk {
        /// Its number.
        chunk: usize,
    },
    /// The words that were given are not the chunk's.
    #[error("chunk {chunk} has {needed} words, but {given} were given to rewrite")]
    Words {
        /// Its number.
        chunk: usize,
        /// Words of the chunk.
        needed: u64,
        /// Words given.
        given: usize,
    },
}

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a, T> {
    /// Plans of the pool's types.
    pub plans: &'a Plans,
    /// New values of pointers to data.
    pub pointers: &'a T,
    /// New values of functions and vtables, if they change.
    pub binding: Option<&'a Binding>,
}

impl<T: Translate> Rewrite<'_, T> {
    /// Rewrites one chunk in `target`: the words of [`ObjectSpace::chunk_range`], in place or in a copy. Calls `lines` with
    /// the address (in the pool) of each line that changes, once for each run of changes in it.
    ///
    /// A crash in between loses nothing when the change becomes durable at once or not at all. Doing it twice does harm:
    /// an address may be both old and new. The chunk's epoch tells whether it is done.
    pub fn chunk<S: ObjectSpace + ?Sized>(
        &self,
        space: &S,
        chunk: usize,
        target: &[AtomicU64],
        lines: &mut dyn FnMut(u64),
    ) -> Result<RewriteReport, RewriteError> {
        let (start, end) = space
            .chunk_range(chunk)
            .ok_or(RewriteError::NoChunk { chunk })?;
        let needed = end.saturating_sub(start) / 8;
        // Exactly the chunk: what lies behind it is the next chunk's, and is rewritten with that.
        let words = usize::try_from(needed).ok().and_then(|n| target.get(..n));
        let target = words.ok_or(RewriteError::Words {
            chunk,
            needed,
            given: target.len(),
        })?;
        let (mut words, mut report) = self.begin(start, end, target, lines);
        space.for_each_overlapping(chunk, &mut |object| {
            self.object(&object, &mut words, &mut report);
            true
        });
        Ok(report)
    }

    /// Like [`Rewrite::chunk`] for a part `[start, end)` of one chunk, whose words are `target`: what lies in it of an object is
    /// rewritten, whatever lies outside is not.
    pub fn part<S: ObjectSpace + ?Sized>(
        &self,
        space: &S,
        (start, end): (u64, u64),
        target: &[AtomicU64],
        lines: &mut dyn FnMut(u64),
    ) -> RewriteReport {
        let count = usize::try_from(end.saturating_sub(start) / 8).unwrap_or(0);
        let target = target.get(..count).unwrap_or(target);
        let end = start + target.len() as u64 * 8;
        let (mut words, mut report) = self.begin(start, end, target, lines);
        space.for_each_within(start, end, &mut |object| {
            self.object(&object, &mut words, &mut report);
            true
        });
        report
    }

    fn begin<'w>(
        &self,
        start: u64,
        end: u64,
        target: &'w [AtomicU64],
        lines: &'w mut dyn FnMut(u64),
    ) -> (Words<'w>, RewriteReport) {
        let words = Words {
            window: Window { start, end },
            target,
            lines,
            last: u64::MAX,
            hint: Hint::default(),
        };
        (words, RewriteReport::default())
    }

    #[inline(always)]
    fn object(&self, object: &Object, words: &mut Words<'_>, report: &mut RewriteReport) {
        report.objects += 1;
        let Some(plan) = self.plans.get(object.type_index) else {
            report.unknown += 1;
            return;
        };
        match plan.whole(object, words.window) {
            Some((base, offsets)) => {
                let mut changed = 0;
                for offset in offsets {
                    changed += u64::from(words.rewrite(base + *offset as usize, self.pointers));
                }
                report.pointers += offsets.len() as u64;
                report.changed += changed;
            }
            None => self.spread(plan, object, words, report),
        }
        if let Some(binding) = self.binding
            && plan.is_bound()
        {
            plan.bound(object, words.window, |word, run| {
                let Some(cell) = words.target.get(word) else {
                    return;
                };
                let value = cell.load(Ordering::Relaxed);
                match binding.rebind(object.type_index, run, value) {
                    Some(new) if new == value => {}
                    Some(new) => {
                        cell.store(new, Ordering::Relaxed);
                        report.rebound += 1;
                        words.changed(word);
                    }
                    None => {
                        report.refused_count += 1;
                        if report.refused.len() < LISTED {
                            report.refused.push(Refused {
                                addr: words.window.start + word as u64 * 8,
                                value,
                                type_index: object.type_index,
                                field: run.field,
                            });
                        }
                    }
                }
            });
        }
    }

    /// The pointers of an array, a large object, or one that lies across the border of a chunk.
    #[inline(never)]
    fn spread(
        &self,
        plan: &Plan,
        object: &Object,
        words: &mut Words<'_>,
        report: &mut RewriteReport,
    ) {
        let (mut seen, mut changed) = (0, 0);
        plan.pointers(object, words.window, |word, _| {
            seen += 1;
            changed += u64::from(words.rewrite(word, self.pointers));
        });
        report.pointers += seen;
        report.changed += changed;
    }

    /// Rewrites the whole pool in place, chunks in parallel. `lines` is called from several threads.
    pub fn pool<S: ObjectSpace + Sync + ?Sized>(
        &self,
        space: &S,
        lines: &(dyn Fn(u64) + Sync),
    ) -> Result<RewriteReport, RewriteError>
    where
        T: Sync,
    {
        (0..space.chunk_count())
            .into_par_iter()
            .map(|chunk| {
                let (start, end) = space
                    .chunk_range(chunk)
                    .ok_or(RewriteError::NoChunk { chunk })?;
                let needed = end.saturating_sub(start) / 8;
                let words = usize::try_from(needed)
                    .ok()
                    .and_then(|n| space.words(start, n))
                    .ok_or(RewriteError::Words {
                        chunk,
                        needed,
                        given: 0,
                    })?;
                self.chunk(space, chunk, words, &mut |line| lines(line))
            })
            .try_reduce(RewriteReport::default, |mut a, b| {
                a.add(b);
                Ok(a)
            })
    }
}

/// The words that are rewritten, and the line last reported.
struct Words<'a> {
    window: Window,
    target: &'a [AtomicU64],
    lines: &'a mut dyn FnMut(u64),
    last: u64,
    hint: Hint,
}

impl Words<'_> {
    /// Gives one pointer its new value; whether that is another one.
    #[inline(always)]
    fn rewrite<T: Translate>(&mut self, word: usize, pointers: &T) -> bool {
        let Some(cell) = self.target.get(word) else {
            return false;
        };
        let value = cell.load(Ordering::Relaxed);
        let new = pointers.translate_near(value, &mut self.hint);
        if new == value {
            return false;
        }
        cell.store(new, Ordering::Relaxed);
        self.changed(word);
        true
    }

    #[inline(always)]
    fn changed(&mut self, word: usize) {
        let line = (self.window.start + word as u64 * 8) & !(LINE_SIZE - 1);
        if line != self.last {
            self.last = line;
            (self.lines)(line);
        }
    }
}
