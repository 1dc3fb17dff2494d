//! A deep copy of a graph into another heap: sharing and cycles stay as they are.

use super::graph::{Budget, Edge, Flow, Target, View, Visitor, Walker, ending_at};
use super::matching::{Match, inside};
use super::path::Trail;
use super::plan::Plans;
use crate::{Object, ObjectSpace, TYPE_FIRST};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use thiserror::Error;
use vernal_format::types::TypeDesc;

/// Where the copy goes.
pub trait CopyTarget {
    /// What can go wrong there.
    type Error;
    /// Makes room for a copy of `object`, zeroed or not, and returns its address. `desc` is `None` for memory without
    /// type.
    fn allocate(&mut self, object: &Object, desc: Option<&TypeDesc>) -> Result<u64, Self::Error>;
    /// Stores all words of the object at `addr`.
    fn write(&mut self, addr: u64, words: &[u64]) -> Result<(), Self::Error>;
}

/// What becomes of a pointer to nothing in the pool: out of it, or to free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum External {
    /// The copy fails and names it.
    #[default]
    Refuse,
    /// The copy has the same pointer.
    Keep,
    /// The copy has null.
    Null,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Address of the root's copy.
    pub root: u64,
    /// Objects copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pointers to nothing in the pool that were kept or made null.
    pub external: u64,
}

/// Why a graph cannot be copied. The copies that were made are not linked to anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CopyError<E> {
    /// The target refused.
    #[error("the target of the copy: {0}")]
    Target(E),
    /// Where the copy should begin is no object.
    #[error("{addr:#x} is no object: nothing to copy")]
    NoObject {
        /// The address.
        addr: u64,
    },
    /// A pointer out of the pool.
    #[error(
        "{path} is {value:#x}, which is no object of the pool: set it to null, or copy with dangling pointers allowed"
    )]
    External {
        /// Way to the pointer.
        path: String,
        /// Its value.
        value: u64,
    },
    /// An object whose type the pool does not say.
    #[error(
        "{path} has type index {index}, which is not in the pool's type table: run `vernal pool check`"
    )]
    UnknownType {
        /// Way to the object.
        path: String,
        /// The index.
        index: u32,
    },
    /// More than the budget allows.
    #[error("the graph has more than {objects} objects or {bytes} bytes: raise the budget")]
    Budget {
        /// Objects allowed.
        objects: u64,
        /// Bytes allowed.
        bytes: u64,
    },
    /// Words of the pool are missing.
    #[error("{count} objects are not mapped: open all puddles of the pool")]
    Unmapped {
        /// How many.
        count: u64,
    },
}

struct Copier<'a, S: ?Sized, C: CopyTarget> {
    space: &'a S,
    target: &'a mut C,
    external: External,
    copies: HashMap<u64, u64>,
    words: Vec<u64>,
    report: CopyReport,
    error: Option<CopyError<C::Error>>,
}

impl<S: ObjectSpace + ?Sized, C: CopyTarget> Copier<'_, S, C> {
    /// Address of an object's copy.
    fn copy_of(&mut self, object: &Object) -> Option<u64> {
        if let Some(copy) = self.copies.get(&object.addr) {
            return Some(*copy);
        }
        match self
            .target
            .allocate(object, self.space.type_desc(object.type_index))
        {
            Ok(copy) => {
                self.copies.insert(object.addr, copy);
                Some(copy)
            }
            Err(e) => {
                self.error = Some(CopyError::Target(e));
                None
            }
        }
    }

    /// The object that a pointer means, and how far into it. Where one object ends and another begins, it is the one that
    /// begins, unless only the other fits the pointer's type.
    fn meaning(&self, edge: &Edge<'_>) -> Option<(Object, u64)> {
        match edge.target {
            Target::Object { object, offset: 0 } => {
                let before = ending_at(self.space, edge.value);
                let (Some(before), Some(field)) = (before, edge.from.field(edge.run)) else {
                    return Some((object, 0));
                };
                let begins = inside(self.space, &field.target, field.aux, &object, 0);
                let ends = inside(self.space, &field.target, field.aux, &before, before.size);
                if begins != Match::Fits && ends == Match::Fits {
                    Some((before, before.size))
                } else {
                    Some((object, 0))
                }
            }
            Target::Object { object, offset } => Some((object, offset)),
            Target::End { object } => Some((object, object.size)),
            _ => None,
        }
    }
}

impl<S: ObjectSpace + ?Sized, C: CopyTarget> Visitor for Copier<'_, S, C> {
    fn object(&mut self, view: &View<'_>, trail: &Trail<'_>) -> Flow {
        if view.desc.is_none() && view.object.type_index >= TYPE_FIRST {
            self.error = Some(CopyError::UnknownType {
                path: trail.path(self.space).unwrap_or_default(),
                index: view.object.type_index,
            });
            return Flow::Stop;
        }
        self.words.clear();
        self.words
            .extend(view.words.iter().map(|w| w.load(Ordering::Relaxed)));
        Flow::Continue
    }

    fn edge(&mut self, edge: &Edge<'_>, trail: &Trail<'_>) -> Flow {
        let new = match self.meaning(edge) {
            Some((object, offset)) => match self.copy_of(&object) {
                Some(copy) => copy.wrapping_add(offset),
                None => return Flow::Stop,
            },
            // What is no address of the pool may be the other member of an annotated union.
            None if edge.run.annotated => edge.value,
            None if self.external == External::Refuse => {
                let at = edge.word as u64 * 8;
                let place = super::path::place_name(edge.from.desc, at);
                let object = trail.path(self.space).unwrap_or_default();
                self.error = Some(CopyError::External {
                    path: super::path::join(&object, &place),
                    value: edge.value,
                });
                return Flow::Stop;
            }
            None => {
                self.report.external += 1;
                if self.external == External::Keep {
                    edge.value
                } else {
                    0
                }
            }
        };
        if let Some(word) = self.words.get_mut(edge.word) {
            *word = new;
        }
        Flow::Continue
    }

    fn leave(&mut self, view: &View<'_>) -> Flow {
        let Some(copy) = self.copy_of(&view.object) else {
            return Flow::Stop;
        };
        match self.target.write(copy, &self.words) {
            Ok(()) => Flow::Continue,
            Err(e) => {
                self.error = Some(CopyError::Target(e));
                Flow::Stop
            }
        }
    }
}

/// Copies what can be reached from the object at `root`. An object is held in memory while it is copied.
///
/// Functions and vtables are copied as they are: source and target are heaps of one process.
pub fn copy<S: ObjectSpace + ?Sized, C: CopyTarget>(
    space: &S,
    plans: &Plans,
    root: u64,
    external: External,
    budget: Budget,
    target: &mut C,
) -> Result<CopyReport, CopyError<C::Error>> {
    let Some(object) = space.object_at(root).filter(|o| o.addr == root) else {
        return Err(CopyError::NoObject { addr: root });
    };
    let mut copier = Copier {
        space,
        target,
        external,
        copies: HashMap::new(),
        words: Vec::new(),
        report: CopyReport::default(),
        error: None,
    };
    let walk = Walker::with_paths(space, plans, budget).run(root, &mut copier);
    let copied = copier.copies.get(&object.addr).copied();
    if let Some(error) = copier.error {
        return Err(error);
    }
    if walk.exhausted {
        return Err(CopyError::Budget {
            objects: budget.objects,
            bytes: budget.bytes,
        });
    }
    match copied {
        Some(root) if walk.unmapped == 0 => Ok(CopyReport {
            root,
            objects: walk.objects,
            bytes: walk.bytes,
            ..copier.report
        }),
        _ => Err(CopyError::Unmapped {
            count: walk.unmapped,
        }),
    }
}
