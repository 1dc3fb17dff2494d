//! The examination: one way through the graph, for verifying in place and for copying.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use thiserror::Error;

use super::decided::{Decided, RAW, Spot};
use super::known::{Few, Known, KnownTypes};
use super::shape::{Bound, Rule, fault_of};
use crate::walk::inspect::read_uint;
use crate::walk::{Budget, Fault, Window};
use crate::{Object, SpanSpace};
use vernal_format::types::TypeDesc;

/// Where an examination may look.
#[derive(Debug, Clone, Copy)]
pub enum Allowed<'a> {
    /// Everywhere in the peer's heap.
    All,
    /// Only inside these ranges, by address: start and end. What lies outside is not sealed.
    Ranges(&'a [(u64, u64)]),
}

/// Where a copy lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Its address.
    pub addr: u64,
    /// What the target makes of it.
    pub block: usize,
    /// The same.
    pub word: usize,
}

/// Where copies go: memory that no peer can write, and that nobody else knows yet.
pub trait GraphTarget {
    /// What can go wrong there.
    type Error;
    /// Room for an object of `size` bytes, a multiple of 8, at a multiple of `align`. `ty`: its type, the receiver's own.
    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Self::Error>;
    /// The words of an object that was placed.
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]>;
}

/// What an examination did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphReport {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pointers that are not null.
    pub pointers: u64,
}

/// A graph that was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphCopy {
    /// Address of the root's copy.
    pub root: u64,
    /// What was copied.
    pub report: GraphReport,
}

/// Why a graph is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GraphError<E = Infallible> {
    /// Something in it is wrong.
    #[error("{place} (at {addr:#x}) {fault}")]
    Fault {
        /// Type and field, or `root`.
        place: String,
        /// Address of the field.
        addr: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// More than the budget allows.
    #[error(
        "the graph has more than {objects} objects or {bytes} bytes: send less, or raise the receiver's limit"
    )]
    Budget {
        /// Objects allowed.
        objects: u64,
        /// Bytes allowed.
        bytes: u64,
    },
    /// The receiver does not know the type that it asks for.
    #[error("no type with the id {id:016x} is known here: pass it to the set of known types")]
    Expected {
        /// The id.
        id: u64,
    },
    /// The target of the copy refused.
    #[error("the target of the copy: {0}")]
    Target(E),
}

/// Examines the graphs of one peer. It keeps what it learned of that peer's types, and its memory, from one to the next: a
/// heap needs one of its own.
#[derive(Debug)]
pub struct Examiner {
    known: Arc<KnownTypes>,
    decided: Decided,
    stack: Vec<Todo>,
    text: Vec<u8>,
}

/// An object that is known and not yet examined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Todo {
    pub addr: u64,
    pub size: u64,
    /// Bytes that are in use, the whole of them or the elements that a length counts.
    pub used: u64,
    /// A length counts them: none is spare.
    pub counted: bool,
    pub slot: u32,
    pub copy: Placed,
}

/// An object whose bound is checked: where its bytes are now.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub spot: Spot,
    pub copy: Placed,
}

/// Why the examination ends. Boxed, because nearly all results are none.
pub(super) enum Stop<E> {
    Fault(Box<Fault>),
    Error(Box<GraphError<E>>),
}

impl<E> From<Box<Fault>> for Stop<E> {
    fn from(fault: Box<Fault>) -> Self {
        Stop::Fault(fault)
    }
}

impl<E> From<Fault> for Stop<E> {
    #[cold]
    fn from(fault: Fault) -> Self {
        Stop::Fault(Box::new(fault))
    }
}

/// Where the checked bytes are.
pub(super) trait Sink {
    type Error;
    const COPIES: bool;
    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Self::Error>;
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]>;
}

/// The bytes stay where they are.
struct InPlace;

impl Sink for InPlace {
    type Error = Infallible;
    const COPIES: bool = false;
    fn place(&mut self, _: u64, _: u64, _: Option<&TypeDesc>) -> Result<Placed, Infallible> {
        Ok(Placed::default())
    }
    fn words(&self, _: Placed, _: usize) -> Option<&[AtomicU64]> {
        None
    }
}

struct Copies<'a, T>(&'a mut T);

impl<T: GraphTarget> Sink for Copies<'_, T> {
    type Error = T::Error;
    const COPIES: bool = true;
    #[inline(always)]
    fn place(&mut self, size: u64, align: u64, ty: Option<&TypeDesc>) -> Result<Placed, T::Error> {
        self.0.place(size, align, ty)
    }
    #[inline(always)]
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.0.words(at, count)
    }
}

impl Examiner {
    /// An examiner for one peer's heap.
    pub fn new(known: Arc<KnownTypes>) -> Examiner {
        Examiner {
            known,
            decided: Decided::default(),
            stack: Vec::new(),
            text: Vec::new(),
        }
    }

    /// The types that it goes by.
    pub fn known(&self) -> &Arc<KnownTypes> {
        &self.known
    }

    /// Verifies the graph from `root`, an object of the type with the id `expected`, where it lies.
    ///
    /// The result holds as long as the graph's bytes stay: they have to be sealed before, and `allowed` says which are.
    pub fn verify<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        root: u64,
        expected: u64,
        allowed: Allowed<'_>,
        budget: Budget,
    ) -> Result<GraphReport, GraphError> {
        let (_, report) = self.run(space, root, expected, allowed, budget, InPlace)?;
        Ok(report)
    }

    /// Copies the graph from `root`, an object of the type with the id `expected`, into `target`, and verifies the copy while
    /// it is made. Nothing needs to be sealed. After an error the copies that were made are not linked to anything.
    pub fn copy<S: SpanSpace + ?Sized, T: GraphTarget>(
        &mut self,
        space: &S,
        root: u64,
        expected: u64,
        budget: Budget,
        target: &mut T,
    ) -> Result<GraphCopy, GraphError<T::Error>> {
        let sink = Copies(target);
        let (root, report) = self.run(space, root, expected, Allowed::All, budget, sink)?;
        Ok(GraphCopy { root, report })
    }

    fn run<S: SpanSpace + ?Sized, K: Sink>(
        &mut self,
        space: &S,
        root: u64,
        expected: u64,
        allowed: Allowed<'_>,
        budget: Budget,
        sink: K,
    ) -> Result<(u64, GraphReport), GraphError<K::Error>> {
        let known = Arc::clone(&self.known);
        let Some(slot) = known.slot(expected) else {
            return Err(GraphError::Expected { id: expected });
        };
        self.decided.clear();
        self.stack.clear();
        let mut run = Run {
            space,
            known: &known,
            decided: &mut self.decided,
            stack: &mut self.stack,
            text: &mut self.text,
            allowed,
            budget,
            sink,
            report: GraphReport::default(),
            looked_at: 0,
            last: (0, &[]),
        };
        let at_root = |stop| match stop {
            Stop::Error(e) => *e,
            Stop::Fault(fault) => GraphError::Fault {
                place: "root".into(),
                addr: root,
                fault: *fault,
            },
        };
        let start = run.root(root, slot).map_err(at_root)?;
        run.all().map_err(|e| *e)?;
        let report = run.report;
        self.decided.clear();
        Ok((start, report))
    }
}

pub(super) struct Run<'a, S: ?Sized, K> {
    pub space: &'a S,
    pub known: &'a KnownTypes,
    pub decided: &'a mut Decided,
    pub stack: &'a mut Vec<Todo>,
    pub text: &'a mut Vec<u8>,
    pub allowed: Allowed<'a>,
    pub budget: Budget,
    pub sink: K,
    pub report: GraphReport,
    /// Bytes that were looked at besides.
    pub looked_at: u64,
    /// First address and words of a puddle.
    pub last: (u64, &'a [AtomicU64]),
}

impl<'a, S: SpanSpace + ?Sized, K: Sink> Run<'a, S, K> {
    /// The root object; the address of its copy.
    fn root(&mut self, root: u64, slot: u32) -> Result<u64, Stop<K::Error>> {
        let rule = Rule {
            target: super::shape::Target::Type(slot),
            exact: slot,
            bound: Bound::One,
            never_null: true,
            name: self.known.desc(slot).map_or("", |d| d.name()).to_owned(),
        };
        let spot = self.decided.spot(self.space, self.known, root, K::COPIES)?;
        if spot.slot != slot || spot.offset != 0 {
            return Err(self.misfit(&rule, root, &spot).into());
        }
        self.note(&spot, u64::MAX).map(|copy| copy.addr)
    }

    /// Takes a new object in: within the budget and the ranges, copied if this is a copy. Of an array the first `used` bytes
    /// count.
    #[inline(always)]
    pub(super) fn note(&mut self, spot: &Spot, used: u64) -> Result<Placed, Stop<K::Error>> {
        if !spot.fresh {
            let copy = match K::COPIES {
                true => self
                    .decided
                    .copies
                    .get(spot.copy)
                    .copied()
                    .unwrap_or_default(),
                false => Placed::default(),
            };
            return Ok(copy);
        }
        self.report.objects += 1;
        self.report.bytes += spot.size;
        if self.report.objects > self.budget.objects || self.report.bytes > self.budget.bytes {
            return Err(self.exhausted());
        }
        if let Allowed::Ranges(ranges) = self.allowed {
            inside(ranges, spot)?;
        }
        let count = (spot.size / 8) as usize;
        let known = self.known.types.get(spot.slot as usize);
        let mut copy = Placed::default();
        let Some(words) = self.view(spot.addr, count) else {
            return Err(unmapped(spot.addr));
        };
        if K::COPIES {
            let align = known.map_or(16, |k| u64::from(k.desc.align()).max(16));
            let ty = known.map(|k| &k.desc);
            copy = self
                .sink
                .place(spot.size, align, ty)
                .map_err(|e| Stop::Error(Box::new(GraphError::Target(e))))?;
            let Some(to) = self.sink.words(copy, count) else {
                return Err(unmapped(copy.addr));
            };
            // The only time that these words of the peer are loaded. What is not in use is zero in a copy.
            let from = words.get(..(used.min(spot.size) as usize).div_ceil(8));
            for (to, from) in to.iter().zip(from.unwrap_or_default()) {
                to.store(from.load(Relaxed), Relaxed);
            }
            if let Some(noted) = self.decided.copies.get_mut(spot.copy) {
                *noted = copy;
            }
        } else {
            // Begins to bring it into the cache: it is needed soon, and nothing waits for it now.
            for line in words.iter().step_by(8).take(4) {
                line.load(Relaxed);
            }
        }
        let leaf = known.is_none_or(|k| k.plain);
        if !leaf {
            if used < spot.size {
                self.decided.used.insert(spot.addr, used);
            }
            self.stack.push(Todo {
                addr: spot.addr,
                size: spot.size,
                used: used.min(spot.size),
                counted: used != u64::MAX,
                slot: spot.slot,
                copy,
            });
        }
        Ok(copy)
    }

    /// The peer's words at `addr`. Those of the puddle that was looked at last are at hand.
    #[inline(always)]
    fn view(&mut self, addr: u64, count: usize) -> Option<&'a [AtomicU64]> {
        let (base, words) = self.last;
        let first = (addr.wrapping_sub(base) / 8) as usize;
        match words.get(first..first.wrapping_add(count)) {
            Some(found) => Some(found),
            None => self.next_view(addr, count),
        }
    }

    #[cold]
    fn next_view(&mut self, addr: u64, count: usize) -> Option<&'a [AtomicU64]> {
        let (base, end) = self.space.puddle_at(addr)?;
        let all = usize::try_from(end.checked_sub(base)? / 8).ok()?;
        self.last = (base, self.space.words(base, all)?);
        let first = (addr.checked_sub(base)? / 8) as usize;
        self.last.1.get(first..first.checked_add(count)?)
    }

    #[cold]
    pub(super) fn exhausted(&self) -> Stop<K::Error> {
        Stop::Error(Box::new(GraphError::Budget {
            objects: self.budget.objects,
            bytes: self.budget.bytes,
        }))
    }

    fn all(&mut self) -> Result<(), Box<GraphError<K::Error>>> {
        while let Some(todo) = self.stack.pop() {
            self.examine(todo)?;
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn word(&self, todo: &Todo, words: &[AtomicU64], index: usize) -> u64 {
        match K::COPIES {
            false => words.get(index).map_or(0, |w| w.load(Relaxed)),
            true => self.copied(todo).get(index).map_or(0, |w| w.load(Relaxed)),
        }
    }

    pub(super) fn set_word(&self, todo: &Todo, index: usize, value: u64) {
        if let Some(word) = self.copied(todo).get(index) {
            word.store(value, Relaxed);
        }
    }

    #[inline(always)]
    fn examine(&mut self, todo: Todo) -> Result<(), Box<GraphError<K::Error>>> {
        let known: &'a KnownTypes = self.known;
        let Some(ty) = known.types.get(todo.slot as usize) else {
            return Ok(());
        };
        let count = (todo.size / 8) as usize;
        let words = match K::COPIES {
            false => self.view(todo.addr, count).unwrap_or_default(),
            true => &[],
        };
        match &ty.few {
            Some(few) if todo.size / 2 < ty.desc.size() && todo.used == todo.size => {
                self.few(&todo, words, ty, few)
            }
            _ => {
                self.pointers(&todo, words, ty)?;
                match ty.values.is_empty() {
                    true => Ok(()),
                    false => self.values(&todo, words, ty),
                }
            }
        }
    }

    /// One element with few pointers.
    #[inline(always)]
    fn few(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        ty: &'a Known,
        few: &'a Few,
    ) -> Result<(), Box<GraphError<K::Error>>> {
        for run in &few.runs {
            let Some(rule) = ty.rules.get(run.rule as usize) else {
                continue;
            };
            let (mut word, end) = (run.first as usize, (run.first + run.count) as usize);
            if !K::COPIES {
                let values = words.get(word..end).unwrap_or_default();
                for (i, value) in values.iter().enumerate() {
                    let value = value.load(Relaxed);
                    if value == 0 && run.skip_null {
                        continue;
                    }
                    if let Err(stop) = self.edge(todo, words, rule, word + i, value) {
                        return Err(named(todo, ty, word + i, stop));
                    }
                }
                continue;
            }
            while word < end {
                // The words of a copy are borrowed from what it goes to, where the next object is placed meanwhile.
                let mut values = [0; 8];
                let count = (end - word).min(8);
                let from = self.copied(todo).get(word..word + count);
                let from = from.unwrap_or_default();
                let mut some = 0u32;
                for (i, (to, from)) in values.iter_mut().zip(from).enumerate() {
                    *to = from.load(Relaxed);
                    some |= u32::from(*to != 0) << i;
                }
                if !run.skip_null {
                    some = (1 << count) - 1;
                }
                while some != 0 {
                    let i = some.trailing_zeros() as usize & 7;
                    some &= some - 1;
                    if let Err(stop) = self.edge(todo, words, rule, word + i, values[i]) {
                        return Err(named(todo, ty, word + i, stop));
                    }
                }
                word += count;
            }
        }
        if few.values.is_empty() {
            return Ok(());
        }
        let from = match K::COPIES {
            false => words,
            true => self.copied(todo),
        };
        for v in &few.values {
            let word = from.get(v.word as usize).map_or(0, |w| w.load(Relaxed));
            let raw = word >> v.shift & v.mask;
            let Some(values) = ty.values.get(v.values as usize) else {
                continue;
            };
            if !values.takes(raw) {
                let field = ty.desc.fields().get(values.field as usize);
                let fault = field.map_or(Fault::Bool { value: raw }, |f| fault_of(f, raw));
                return Err(named(todo, ty, v.word as usize, Stop::from(fault)));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn copied(&self, todo: &Todo) -> &[AtomicU64] {
        let words = self.sink.words(todo.copy, (todo.size / 8) as usize);
        words.unwrap_or_default()
    }

    /// An array, or a type with a flexible end or many pointers.
    #[inline(never)]
    fn pointers(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        ty: &'a Known,
    ) -> Result<(), Box<GraphError<K::Error>>> {
        let object = Object {
            addr: todo.addr,
            size: todo.used,
            type_index: 0,
        };
        let window = Window {
            start: todo.addr,
            end: todo.addr + todo.size,
        };
        let mut result = Ok(());
        ty.plan.pointers(&object, window, |word, run| {
            if result.is_ok() {
                result = self.pointer(todo, words, ty, word, run.field);
            }
        });
        result
    }

    #[inline(always)]
    fn pointer(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        ty: &'a Known,
        word: usize,
        field: u32,
    ) -> Result<(), Box<GraphError<K::Error>>> {
        let value = self.word(todo, words, word);
        let Some(rule) = ty.rules.get(field as usize) else {
            return Ok(());
        };
        if value == 0 && matches!(rule.bound, Bound::One | Bound::Text) {
            // Behind the first element may be room that is not in use.
            let spare = !todo.counted && word as u64 * 8 >= ty.desc.size();
            if !rule.never_null || spare {
                return Ok(());
            }
        }
        match self.edge(todo, words, rule, word, value) {
            Ok(()) => Ok(()),
            Err(stop) => Err(named(todo, ty, word, stop)),
        }
    }

    #[inline(always)]
    fn edge(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        rule: &Rule,
        word: usize,
        value: u64,
    ) -> Result<(), Stop<K::Error>> {
        if rule.bound != Bound::One {
            return self.bounded(todo, words, rule, word, value);
        }
        if value == 0 {
            return Err(null(rule));
        }
        self.report.pointers += 1;
        let spot = self
            .decided
            .spot(self.space, self.known, value, K::COPIES)?;
        if spot.slot != rule.exact || spot.offset != 0 || spot.slot == RAW {
            self.fits(rule, value, &spot, 1)?;
        }
        if !spot.fresh && !self.decided.used.is_empty() {
            self.in_use(rule, value, &spot, 1)?;
        }
        let copy = self.note(&spot, u64::MAX)?;
        if K::COPIES {
            self.set_word(todo, word, copy.addr.wrapping_add(spot.offset));
        }
        Ok(())
    }
}

impl<S: SpanSpace + ?Sized, K: Sink> Run<'_, S, K> {
    /// What stands in an enum or bool is one of its values.
    fn values(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        ty: &Known,
    ) -> Result<(), Box<GraphError<K::Error>>> {
        let elements = ty.desc.elements_in(todo.used);
        let spare = !todo.counted;
        let wrong = match K::COPIES {
            false => wrong_value(ty, words, todo.used, 0..elements, spare),
            true => {
                let copied = self.sink.words(todo.copy, (todo.size / 8) as usize);
                wrong_value(
                    ty,
                    copied.unwrap_or_default(),
                    todo.used,
                    0..elements,
                    spare,
                )
            }
        };
        match wrong {
            None => Ok(()),
            Some((at, fault)) => Err(named(todo, ty, (at / 8) as usize, Stop::from(fault))),
        }
    }
}

/// The first value among these elements that is none: its place and what is wrong. `spare`: what is zero behind the first
/// element may not be in use.
pub(super) fn wrong_value(
    ty: &Known,
    words: &[AtomicU64],
    size: u64,
    elements: std::ops::Range<u64>,
    spare: bool,
) -> Option<(u64, Fault)> {
    for element in elements {
        for v in &ty.values {
            let base = element * ty.desc.size() + v.offset;
            let count = match v.flex {
                false => v.count,
                true => match size.checked_sub(base + u64::from(v.size)) {
                    Some(rest) => rest / v.stride.max(1) + 1,
                    None => 0,
                },
            };
            for i in 0..count {
                let at = base + i * v.stride;
                let raw = read_uint(words, at, v.size);
                let unused = spare && raw == 0 && (element > 0 || v.flex);
                if !unused && !v.takes(raw) {
                    let field = ty.desc.fields().get(v.field as usize)?;
                    return Some((at, fault_of(field, raw)));
                }
            }
        }
    }
    None
}

#[cold]
pub(super) fn null<E>(rule: &Rule) -> Stop<E> {
    Stop::from(Fault::Null {
        expected: rule.name.clone(),
    })
}

#[cold]
fn unmapped<E>(value: u64) -> Stop<E> {
    Stop::from(Fault::Outside { value })
}

#[cold]
fn inside(ranges: &[(u64, u64)], spot: &Spot) -> Result<(), Fault> {
    let at = ranges.partition_point(|r| r.0 <= spot.addr);
    let range = at.checked_sub(1).and_then(|at| ranges.get(at));
    match range {
        Some(r) if spot.addr.saturating_add(spot.size) <= r.1 => Ok(()),
        _ => Err(Fault::NotSealed {
            value: spot.addr,
            size: spot.size,
        }),
    }
}

#[cold]
fn named<E>(todo: &Todo, ty: &Known, word: usize, stop: Stop<E>) -> Box<GraphError<E>> {
    match stop {
        Stop::Error(e) => e,
        Stop::Fault(fault) => {
            let at = word as u64 * 8;
            let place = crate::walk::path::place_name(Some(&ty.desc), at);
            Box::new(GraphError::Fault {
                place: format!("{}.{place}", ty.desc.name()),
                addr: todo.addr.saturating_add(at),
                fault: *fault,
            })
        }
    }
}
