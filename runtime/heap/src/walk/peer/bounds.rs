//! Whether an object has room for what a pointer says is there, and whether the values that it counts are values.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::decided::{RAW, Spot};
use super::examine::Run;
use super::shape::{Bound, Rule, Scalar, Target};
use super::step::{Seen, Sink, Stop, Todo, null, wrong_value};
use crate::SpanSpace;
use crate::walk::Fault;
use vernal_format::types::{FieldKind, TypeDesc};

/// Bytes of the array in which `std::string` keeps short text.
const LOCAL: u64 = 16;

/// Room for how many values begins at byte `at` of an element of type `found`, as its field says.
fn room(
    found: &TypeDesc,
    at: u64,
    size: u64,
    fits: impl Fn(&vernal_format::types::Field) -> bool,
) -> u64 {
    let fields = found.fields().iter().filter(|f| fits(f));
    let rooms = fields.filter_map(|f| {
        let distance = at.checked_sub(f.offset)?;
        let stride = u64::from(f.stride).max(1);
        let count = match f.is_flex() {
            true => size.saturating_sub(f.offset) / stride,
            false => u64::from(f.count),
        };
        let first = distance.is_multiple_of(stride) && distance / stride < count;
        first.then(|| count - distance / stride)
    });
    rooms.max().unwrap_or(0)
}

impl<S: SpanSpace + ?Sized, K: Sink> Run<'_, S, K> {
    /// Bytes of one value of the pointer's type.
    fn value_size(&self, rule: &Rule) -> Option<u64> {
        match rule.target {
            Target::Type(slot) => self.known.desc(slot).map(TypeDesc::size),
            // What Rust calls so has four bytes, and only its vectors are counted.
            Target::Scalar(Scalar::Byte) if is_rust_char(rule) => Some(4),
            Target::Scalar(Scalar::Byte | Scalar::Bool) => Some(1),
            Target::Scalar(Scalar::Number(n)) => Some(n.into()),
            Target::Part => None,
        }
    }

    /// Whether `count` values of the pointer's type lie where it points.
    pub(super) fn fits(
        &self,
        rule: &Rule,
        value: u64,
        spot: &Spot,
        count: u64,
    ) -> Result<(), Fault> {
        let misfit = || self.misfit(rule, value, spot);
        let one = match rule.target {
            Target::Part => 0,
            _ => self.value_size(rule).ok_or_else(misfit)?,
        };
        let bytes = one.checked_mul(count).ok_or_else(misfit)?;
        let behind = spot.offset.checked_add(bytes).ok_or_else(misfit)?;
        if behind > spot.size || spot.offset >= spot.size {
            return Err(misfit());
        }
        let found = self.known.types.get(spot.slot as usize);
        let at = match found.map(|k| &k.desc) {
            Some(d) if d.size() > 0 && !d.is_flexible() => spot.offset % d.size(),
            _ => spot.offset,
        };
        let within = |fits: &dyn Fn(&vernal_format::types::Field) -> bool| {
            found.is_some_and(|k| room(&k.desc, at, spot.size, fits) >= count)
        };
        let good = match rule.target {
            Target::Type(slot) if spot.slot == slot => {
                at == 0 && (count == 1 || found.is_some_and(|k| !k.desc.is_flexible()))
            }
            Target::Type(slot) => {
                let Some(target) = self.known.types.get(slot as usize) else {
                    return Err(misfit());
                };
                let aligned = value.is_multiple_of(u64::from(target.desc.align()).max(1));
                match found {
                    // Memory without type holds what has no pointers and takes any bytes.
                    None => target.plain && aligned,
                    Some(_) => within(&|f| {
                        f.kind == FieldKind::Part
                            && f.target == target.desc.name()
                            && u64::from(f.elem_size) == one
                    }),
                }
            }
            Target::Part => {
                count == 1 && within(&|f| f.kind == FieldKind::Part && f.target == rule.name)
            }
            Target::Scalar(Scalar::Byte) => !is_rust_char(rule) || value.is_multiple_of(4),
            Target::Scalar(Scalar::Number(n)) => {
                let number = |f: &vernal_format::types::Field| {
                    let kind = matches!(f.kind, FieldKind::Integer | FieldKind::Float);
                    kind && f.elem_size == n
                };
                match found {
                    None => value.is_multiple_of(u64::from(n)),
                    Some(_) => within(&number),
                }
            }
            Target::Scalar(Scalar::Bool) => {
                found.is_none() || within(&|f| f.kind == FieldKind::Bool)
            }
        };
        match good {
            true => Ok(()),
            false => Err(misfit()),
        }
    }

    /// Whether the values lie in the part of an array that was examined.
    pub(super) fn in_use(
        &self,
        rule: &Rule,
        value: u64,
        spot: &Spot,
        count: u64,
    ) -> Result<(), Fault> {
        let Some(used) = self.decided.used.get(&spot.addr) else {
            return Ok(());
        };
        let bytes = self.value_size(rule).unwrap_or(1).saturating_mul(count);
        match spot.offset.saturating_add(bytes) <= *used {
            true => Ok(()),
            false => Err(self.misfit(rule, value, spot)),
        }
    }

    /// What is wrong with a pointer that does not fit.
    #[cold]
    pub(super) fn misfit(&self, rule: &Rule, value: u64, spot: &Spot) -> Fault {
        let found = match self.known.desc(spot.slot) {
            Some(desc) => desc.name().to_owned(),
            None => "memory without type".to_owned(),
        };
        let expected = rule.name.clone();
        match spot.offset {
            0 => Fault::WrongType {
                value,
                expected,
                found,
            },
            _ => Fault::Interior {
                value,
                expected,
                found,
            },
        }
    }

    /// A pointer with a length beside it, or to text.
    #[inline(never)]
    pub(super) fn bounded(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        rule: &Rule,
        word: usize,
        value: u64,
    ) -> Result<(), Stop<K::Error>> {
        let next = |run: &Self, n: usize| run.word(todo, words, word + n);
        match rule.bound {
            Bound::One | Bound::Within => Ok(()),
            Bound::Text if value == 0 => Err(null(rule)),
            Bound::Text => {
                let seen = self.array(rule, value, 1, u64::MAX)?;
                let rest = seen.spot.size.saturating_sub(seen.spot.offset);
                self.charge(rest)?;
                let bytes = self.bytes(&seen, rest);
                if !bytes.contains(&0) {
                    return Err(text(value, "does not end with a zero byte"));
                }
                self.point(todo, word, &seen);
                Ok(())
            }
            Bound::Vector | Bound::String => {
                let (len, capacity) = (next(self, 1), next(self, 2));
                let fault = Fault::Length {
                    value,
                    len,
                    capacity,
                };
                if len > capacity || (value == 0) != (capacity == 0) {
                    return Err(fault.into());
                }
                if value == 0 {
                    return Ok(());
                }
                let seen = self.elements(rule, value, len, capacity, fault)?;
                if rule.bound == Bound::String {
                    self.charge(len)?;
                    let bytes = self.bytes(&seen, len);
                    if std::str::from_utf8(bytes).is_err() {
                        return Err(text(value, "is not UTF-8"));
                    }
                }
                self.point(todo, word, &seen);
                Ok(())
            }
            Bound::Range => {
                let (finish, end) = (next(self, 1), next(self, 2));
                if value == 0 && finish == 0 && end == 0 {
                    return Ok(());
                }
                let one = self.value_size(rule).unwrap_or(0).max(1);
                let (used, all) = (finish.wrapping_sub(value), end.wrapping_sub(value));
                let (len, capacity) = (used / one, all / one);
                let fault = Fault::Length {
                    value,
                    len,
                    capacity,
                };
                let whole = used.is_multiple_of(one) && all.is_multiple_of(one);
                if value == 0 || used > all || !whole || capacity == 0 {
                    return Err(fault.into());
                }
                let seen = self.elements(rule, value, len, capacity, fault)?;
                self.point(todo, word, &seen);
                if K::COPIES {
                    let start = seen.copy.addr.wrapping_add(seen.spot.offset);
                    self.set_word(todo, word + 1, start.wrapping_add(used));
                    self.set_word(todo, word + 2, start.wrapping_add(all));
                }
                Ok(())
            }
            Bound::Chars => self.chars(todo, words, rule, word, value),
        }
    }

    /// `std::string`: short text in the object itself, long text in one of its own.
    fn chars(
        &mut self,
        todo: &Todo,
        words: &[AtomicU64],
        rule: &Rule,
        word: usize,
        value: u64,
    ) -> Result<(), Stop<K::Error>> {
        let len = self.word(todo, words, word + 1);
        let here = word as u64 * 8 + LOCAL;
        if value == todo.addr.wrapping_add(here) {
            let last = here + len;
            let byte = |run: &Self| run.word(todo, words, (last / 8) as usize) >> (last % 8 * 8);
            if len >= LOCAL || here + LOCAL > todo.size || byte(self) & 0xff != 0 {
                return Err(text(value, "is longer than the string has room for"));
            }
            if K::COPIES {
                self.set_word(todo, word, todo.copy.addr.wrapping_add(here));
            }
            return Ok(());
        }
        let capacity = self.word(todo, words, word + 2);
        let fault = Fault::Length {
            value,
            len,
            capacity,
        };
        let room = capacity.checked_add(1);
        let Some(room) = room.filter(|_| value != 0 && len <= capacity) else {
            return Err(fault.into());
        };
        let seen = self.array(rule, value, room, u64::MAX)?;
        let end = seen.spot.offset.saturating_add(len);
        let spot = Spot {
            offset: end,
            ..seen.spot
        };
        if self.bytes(&Seen { spot, ..seen }, 1) != [0] {
            return Err(text(value, "does not end with a zero byte"));
        }
        self.point(todo, word, &seen);
        Ok(())
    }

    fn point(&self, todo: &Todo, word: usize, seen: &Seen) {
        if K::COPIES {
            self.set_word(todo, word, seen.copy.addr.wrapping_add(seen.spot.offset));
        }
    }

    /// The object in which `capacity` values lie, of which `len` are in use and are values.
    fn elements(
        &mut self,
        rule: &Rule,
        value: u64,
        len: u64,
        capacity: u64,
        fault: Fault,
    ) -> Result<Seen, Stop<K::Error>> {
        let Some(one) = self.value_size(rule) else {
            return Err(Stop::from(Fault::ForeignType {
                name: rule.name.clone(),
            }));
        };
        // No memory says how many there are of what has no bytes.
        if one == 0 || capacity.checked_mul(one).is_none() {
            return Err(fault.into());
        }
        let used = len.saturating_mul(one);
        let ty = match rule.target {
            Target::Type(slot) => self.known.types.get(slot as usize),
            Target::Scalar(_) | Target::Part => None,
        };
        let seen = self.array(rule, value, capacity, used)?;
        if seen.spot.size.saturating_sub(seen.spot.offset) < capacity.saturating_mul(one) {
            return Err(fault.into());
        }
        match (ty, rule.target) {
            // Another pointer came first, and what is zero passed as spare.
            (Some(ty), _) if !seen.spot.fresh && ty.zero_is_none => {
                self.charge(used)?;
                let words = self.words_of(&seen);
                let first = seen.spot.offset / one;
                let wrong = wrong_value(ty, words, seen.spot.size, first..first + len, false);
                if let Some((_, fault)) = wrong {
                    return Err(fault.into());
                }
                let size = one / 8;
                for (field, rule) in ty.desc.fields().iter().zip(&ty.rules) {
                    let at = first * size + field.offset / 8;
                    let empty = |n: u64| {
                        let word = words.get((at + n * size) as usize);
                        word.is_some_and(|w| w.load(Relaxed) == 0)
                    };
                    if rule.never_null && (0..len).any(empty) {
                        return Err(null(rule));
                    }
                }
            }
            (None, Target::Scalar(Scalar::Bool)) => {
                self.charge(used)?;
                let bytes = self.bytes(&seen, used);
                if let Some(bad) = bytes.iter().find(|b| **b > 1) {
                    return Err(Stop::from(Fault::Bool {
                        value: (*bad).into(),
                    }));
                }
            }
            (None, Target::Scalar(Scalar::Byte)) if is_rust_char(rule) => {
                self.charge(used)?;
                let bytes = self.bytes(&seen, used);
                let mut chars = bytes.as_chunks::<4>().0.iter();
                if chars.any(|c| char::from_u32(u32::from_le_bytes(*c)).is_none()) {
                    return Err(text(value, "has a number that is no character"));
                }
            }
            _ => {}
        }
        Ok(seen)
    }

    /// The object that a pointer to several values names.
    fn array(
        &mut self,
        rule: &Rule,
        value: u64,
        count: u64,
        used: u64,
    ) -> Result<Seen, Stop<K::Error>> {
        self.report.pointers += 1;
        let spot = self
            .decided
            .spot(self.space, self.known, value, K::COPIES)?;
        self.fits(rule, value, &spot, count)?;
        // A pointer into the middle says nothing of what lies before it.
        let used = match spot.offset {
            0 if spot.slot != RAW => used,
            _ => u64::MAX,
        };
        if !spot.fresh
            && let Some(known) = self.decided.used.get(&spot.addr)
            && spot.offset.saturating_add(used) > *known
        {
            return Err(self.misfit(rule, value, &spot).into());
        }
        let copy = self.note(&spot, used)?;
        Ok(Seen { spot, copy })
    }

    /// Counts what is looked at more than once, so that many pointers to one large object are not many times its work.
    fn charge(&mut self, bytes: u64) -> Result<(), Stop<K::Error>> {
        self.looked_at = self.looked_at.saturating_add(bytes);
        match self.looked_at > self.budget.bytes {
            false => Ok(()),
            true => Err(self.exhausted()),
        }
    }

    fn words_of(&self, seen: &Seen) -> &[AtomicU64] {
        let count = (seen.spot.size / 8) as usize;
        let words = match K::COPIES {
            true => self.sink.words(seen.copy, count),
            false => self.space.words(seen.spot.addr, count),
        };
        words.unwrap_or_default()
    }

    /// `len` bytes from where the pointer points, as they are now.
    fn bytes(&mut self, seen: &Seen, len: u64) -> &[u8] {
        let mut text = std::mem::take(self.text);
        text.clear();
        let (from, end) = (seen.spot.offset, seen.spot.offset.saturating_add(len));
        let first = (from / 8) as usize;
        let last = (end.div_ceil(8) as usize).max(first);
        let words = self.words_of(seen).get(first..last).unwrap_or_default();
        text.extend(words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()));
        *self.text = text;
        let skip = (from % 8) as usize;
        let end = skip.saturating_add(len as usize);
        self.text.get(skip..end).unwrap_or_default()
    }
}

fn is_rust_char(rule: &Rule) -> bool {
    rule.bound == Bound::Vector && rule.name == "char"
}

fn text<E>(value: u64, why: &'static str) -> Stop<E> {
    Stop::from(Fault::Text { value, why })
}
