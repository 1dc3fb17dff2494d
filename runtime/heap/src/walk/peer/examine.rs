//! The examination: one way through the graph, for verifying in place and for copying.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::decided::{Decided, RAW, Spot};
use super::known::{Few, Known, KnownTypes};
use super::outcome::{Allowed, GraphCopy, GraphError, GraphReport, GraphTarget, Placed};
use super::shape::{Bound, Rule, fault_of};
use super::step::{Copies, InPlace, Sink, Stop, Todo, inside, named, null, unmapped, wrong_value};
use crate::walk::{Budget, Fault, Window};
use crate::{Object, SpanSpace};
/// Examines the graphs of one peer. It keeps what it learned of that peer's types, and its memory, from one to the next: a
/// heap needs one of its own.
#[derive(Debug)]
pub struct Examiner {
    known: Arc<KnownTypes>,
    decided: Decided,
    stack: Vec<Todo>,
    text: Vec<u8>,
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
            led: true,
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
            // The only time that these words of the peer are loaded. What is not in use is zero, not what an earlier graph left.
            let from = words.get(..(used.min(spot.size) as usize).div_ceil(8));
            let from = from.unwrap_or_default();
            for (to, from) in to.iter().zip(from) {
                to.store(from.load(Relaxed), Relaxed);
            }
            (to.iter().skip(from.len())).for_each(|w| w.store(0, Relaxed));
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

    #[inline(never)]
    fn next_view(&mut self, addr: u64, count: usize) -> Option<&'a [AtomicU64]> {
        let (base, end) = self.space.puddle_at(addr)?;
        let all = usize::try_from(end.checked_sub(base)? / 8).ok()?;
        let Some(words) = self.space.words(base, all) else {
            // A heap whose words do not lie one behind the other: an image that came over the wire.
            return self.space.words(addr, count);
        };
        self.last = (base, words);
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
