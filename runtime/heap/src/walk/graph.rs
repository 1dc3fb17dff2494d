//! The traversal of the graph: a list of objects that are known and not yet visited, and the set of those known.

use super::path::Trail;
use super::plan::{Plan, Plans, Run, Window};
use crate::{Object, ObjectSet, ObjectSpace};
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_format::types::{Field, TypeDesc};

/// What one walk may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Objects.
    pub objects: u64,
    /// Bytes of objects.
    pub bytes: u64,
}

impl Default for Budget {
    /// No limit but the pool itself: each object is visited once.
    fn default() -> Budget {
        Budget {
            objects: u64::MAX,
            bytes: u64::MAX,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on; follow the edge.
    Continue,
    /// Do not look at this object's edges; do not follow this edge.
    Skip,
    /// End the walk.
    Stop,
}

/// An object with its type and its words.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object.
    pub object: Object,
    /// Its type; `None` for memory without type, or with one that is not in the table.
    pub desc: Option<&'a TypeDesc>,
    /// Where its addresses are.
    pub plan: &'a Plan,
    /// All of its words.
    pub words: &'a [AtomicU64],
}

impl<'a> View<'a> {
    /// The object as `space` and `plans` have it; `None` when some of its words are not mapped.
    pub fn of<S: ObjectSpace + ?Sized>(
        space: &'a S,
        plans: &'a Plans,
        object: Object,
    ) -> Option<View<'a>> {
        let count = usize::try_from(object.size / 8).ok()?;
        let words = space.words(object.addr, count)?;
        let known = plans.get(object.type_index);
        Some(View {
            object,
            desc: space.type_desc(object.type_index),
            plan: known.or_else(|| plans.get(crate::TYPE_RAW))?,
            words,
        })
    }

    /// The object's own addresses.
    pub fn window(&self) -> Window {
        Window {
            start: self.object.addr,
            end: self.object.addr.saturating_add(self.object.size),
        }
    }

    /// A word's value now.
    pub fn word(&self, index: usize) -> u64 {
        self.words
            .get(index)
            .map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// The field of a run.
    pub fn field(&self, run: &Run) -> Option<&'a Field> {
        self.desc?.fields().get(run.field as usize)
    }
}

/// What a pointer points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Null,
    /// An object, `offset` bytes from its start.
    Object {
        /// The object.
        object: Object,
        /// How far inside.
        offset: u64,
    },
    /// One past the last byte of an object, where nothing else begins.
    End {
        /// The object.
        object: Object,
    },
    /// Free memory or metadata of the pool.
    Free,
    /// Not the pool's memory.
    Outside,
}

/// What lies at `value`.
pub fn target_of<S: ObjectSpace + ?Sized>(space: &S, value: u64) -> Target {
    if value == 0 {
        return Target::Null;
    }
    if let Some(object) = space.object_at(value) {
        let offset = value.wrapping_sub(object.addr);
        return Target::Object { object, offset };
    }
    if let Some(object) = ending_at(space, value) {
        return Target::End { object };
    }
    match space.words(value & !7, 1) {
        Some(_) => Target::Free,
        None => Target::Outside,
    }
}

/// The object whose last byte is right before `value`.
pub(super) fn ending_at<S: ObjectSpace + ?Sized>(space: &S, value: u64) -> Option<Object> {
    let object = space.object_at(value.checked_sub(1)?)?;
    (object.addr.checked_add(object.size) == Some(value)).then_some(object)
}

/// A pointer that the walk has come to.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// The object that holds it.
    pub from: &'a View<'a>,
    /// Its run.
    pub run: &'a Run,
    /// Its word in the object.
    pub word: usize,
    /// Its value.
    pub value: u64,
    /// What lies there.
    pub target: Target,
}

/// Who is told of objects and edges.
pub trait Visitor {
    /// An object, before its edges.
    fn object(&mut self, view: &View<'_>, trail: &Trail<'_>) -> Flow;
    /// A pointer that is not null. What it points to is visited later, if this returns [`Flow::Continue`] and it is an
    /// object (or its end) that the walk has not seen.
    fn edge(&mut self, edge: &Edge<'_>, trail: &Trail<'_>) -> Flow {
        let _ = (edge, trail);
        Flow::Continue
    }
    /// An object, after its edges, unless it was skipped.
    fn leave(&mut self, view: &View<'_>) -> Flow {
        let _ = view;
        Flow::Continue
    }
}

/// What a walk did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalkReport {
    /// Objects visited.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it ended because the budget did, with objects left.
    pub exhausted: bool,
    /// Whether a visitor ended it.
    pub stopped: bool,
    /// Objects left out because their words are not mapped.
    pub unmapped: u64,
}

/// An object that is known, and the pointer through which it became known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub object: Object,
    /// Index of the entry that holds the pointer; its own index for a root.
    pub parent: usize,
    /// Byte in the parent.
    pub at: u64,
}

/// One walk through the graph. It may be continued with more roots; no object is visited twice.
#[derive(Debug)]
pub struct Walker<'a, S: ?Sized> {
    space: &'a S,
    plans: &'a Plans,
    budget: Budget,
    seen: ObjectSet,
    entries: Vec<Entry>,
    next: usize,
    keep_trails: bool,
    conservative: bool,
    report: WalkReport,
}

impl<'a, S: ObjectSpace + ?Sized> Walker<'a, S> {
    /// A walk in order of distance from the root that can name the path to each object; keeps 40 bytes for each.
    pub fn with_paths(space: &'a S, plans: &'a Plans, budget: Budget) -> Walker<'a, S> {
        Walker {
            space,
            plans,
            budget,
            seen: ObjectSet::new(),
            entries: Vec::new(),
            next: 0,
            keep_trails: true,
            conservative: false,
            report: WalkReport::default(),
        }
    }

    /// A walk in no particular order that keeps only what is left to visit.
    pub fn new(space: &'a S, plans: &'a Plans, budget: Budget) -> Walker<'a, S> {
        Walker {
            keep_trails: false,
            ..Walker::with_paths(space, plans, budget)
        }
    }

    /// Also follows what looks like a pointer in memory whose type nobody named: for finding out what is *not* used.
    pub fn conservative(mut self) -> Walker<'a, S> {
        self.conservative = true;
        self
    }

    /// All objects that have become known: the visited ones, unless the walk ended early.
    pub fn seen(&self) -> &ObjectSet {
        &self.seen
    }

    /// Gives up the walk for the set of objects that have become known.
    pub fn into_seen(self) -> ObjectSet {
        self.seen
    }

    /// Walks from the object at `root`.
    pub fn run(&mut self, root: u64, visitor: &mut impl Visitor) -> WalkReport {
        if let Target::Object { object, .. } = target_of(self.space, root) {
            let index = self.entries.len();
            self.push(object, index, 0);
        }
        while let Some((index, entry)) = self.take() {
            if !self.afford(&entry.object) {
                break;
            }
            let Some(view) = View::of(self.space, self.plans, entry.object) else {
                self.report.unmapped += 1;
                continue;
            };
            self.report.objects += 1;
            self.report.bytes = self.report.bytes.saturating_add(entry.object.size);
            let mut flow = visitor.object(&view, &self.trail(index));
            if flow == Flow::Continue {
                flow = self.edges(index, &view, visitor);
            }
            if flow == Flow::Continue {
                flow = visitor.leave(&view);
            }
            if flow == Flow::Stop {
                self.report.stopped = true;
                break;
            }
        }
        self.report
    }

    fn trail(&self, index: usize) -> Trail<'_> {
        Trail::new(if self.keep_trails { &self.entries } else { &[] }, index)
    }

    fn take(&mut self) -> Option<(usize, Entry)> {
        if self.keep_trails {
            let index = self.next;
            let entry = *self.entries.get(index)?;
            self.next += 1;
            Some((index, entry))
        } else {
            self.entries.pop().map(|e| (0, e))
        }
    }

    fn afford(&mut self, object: &Object) -> bool {
        let objects = self.report.objects < self.budget.objects;
        let bytes = self.report.bytes.saturating_add(object.size) <= self.budget.bytes;
        self.report.exhausted = !(objects && bytes);
        !self.report.exhausted
    }

    fn push(&mut self, object: Object, parent: usize, at: u64) {
        if self.seen.insert(object.addr) {
            self.entries.push(Entry { object, parent, at });
        }
    }

    /// Tells the visitor of each pointer and notes what is to be visited.
    fn edges(&mut self, index: usize, view: &View<'_>, visitor: &mut impl Visitor) -> Flow {
        if self.conservative && view.object.type_index == crate::TYPE_RAW {
            return self.guesses(index, view);
        }
        let mut end = Flow::Continue;
        view.plan
            .pointers(&view.object, view.window(), |word, run| {
                let value = view.word(word);
                if value == 0 || end == Flow::Stop {
                    return;
                }
                let target = target_of(self.space, value);
                let edge = Edge {
                    from: view,
                    run,
                    word,
                    value,
                    target,
                };
                let flow = visitor.edge(&edge, &self.trail(index));
                match (flow, target) {
                    (Flow::Stop, _) => end = Flow::Stop,
                    (Flow::Continue, Target::Object { object, .. } | Target::End { object }) => {
                        self.push(object, index, word as u64 * 8);
                    }
                    _ => {}
                }
            });
        end
    }

    /// Every word of untyped memory that is the address of an object, or of something inside one.
    fn guesses(&mut self, index: usize, view: &View<'_>) -> Flow {
        for word in 0..view.words.len() {
            if let Some(object) = match view.word(word) {
                0 => None,
                value => self.space.object_at(value),
            } {
                self.push(object, index, word as u64 * 8);
            }
        }
        Flow::Continue
    }
}
