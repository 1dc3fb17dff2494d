//! Structs and classes: members, bit fields, bases, virtual bases, vtable pointers.

use std::collections::HashMap;

use vernal_format::types::{Member, Shape};

use crate::describe::{NO_VIRTUAL_BASE, NO_VTABLE, Walk};
use crate::die::{Die, NodeId, Source, strip, tag};
use crate::notes::{self, Notes};
use crate::shapes::{integer, refused};
use crate::vtable::{Bound, VtableView, symbol_of};

const MAX_PARTS: usize = 1000;

/// What concerns a complete object as a whole, and not its bases one by one.
struct Complete {
    name: String,
    size: u64,
    symbol: String,
    view: VtableView,
    /// Offsets of vtable pointers, ascending.
    parts: Vec<u64>,
    /// Virtual bases and where they lie.
    virtuals: Vec<(NodeId, u64)>,
}

/// A virtual base as its class mentions it: the base, where the class lies, where its vtable has the offset.
type Mention = (NodeId, u64, u64);

impl<S: Source + ?Sized> Walk<'_, S> {
    /// The shape of a struct or class that is not a base.
    pub(crate) fn object(&mut self, ty: NodeId, bare: NodeId, die: &Die, outer: &Notes) -> Shape {
        let size = die.size.div_ceil(8);
        let anonymous = die.name.is_empty() && strip(self.src(), ty) == ty;
        let name = match anonymous {
            true => String::new(),
            false => self.describer.name(ty),
        };
        let complete = match self.complete(bare, die, &name) {
            Ok(complete) => complete,
            Err(reason) => return refused(size, reason),
        };
        let mut members = self.members(die, &complete, 0, outer);
        for &(base, at) in &complete.virtuals {
            members.extend(self.base(base, at, &complete, 0));
        }
        Shape::Record {
            name,
            size,
            members,
        }
    }

    fn complete(&self, bare: NodeId, die: &Die, name: &str) -> Result<Complete, &'static str> {
        let (mut parts, mut mentions) = (Vec::new(), Vec::new());
        self.parts(bare, 0, &mut parts, &mut mentions, 0);
        let mut virtuals: HashMap<NodeId, u64> = HashMap::new();
        let mut order = Vec::new();
        let mut view = VtableView::Absent;
        let mut symbol = String::new();
        if !(parts.is_empty() && mentions.is_empty()) {
            symbol = symbol_of(name, &die.identifier, || self.src().vtables()).ok_or(NO_VTABLE)?;
            view = self.src().vtable(&symbol);
        }
        let mut next = 0;
        while let Some(&(base, at, before)) = mentions.get(next) {
            next += 1;
            let base = strip(self.src(), base);
            if base == 0 || virtuals.contains_key(&base) {
                continue;
            }
            let place = view.virtual_base(at, before).ok_or(NO_VIRTUAL_BASE)?;
            if virtuals.len() > MAX_PARTS {
                return Err(NO_VIRTUAL_BASE);
            }
            virtuals.insert(base, place);
            order.push((base, place));
            self.parts(base, place, &mut parts, &mut mentions, 0);
        }
        parts.sort_unstable();
        parts.dedup();
        Ok(Complete {
            name: name.to_owned(),
            size: die.size.div_ceil(8),
            symbol,
            view,
            parts,
            virtuals: order,
        })
    }

    /// Finds the vtable pointers and the virtual bases of a class that lies at `at`, without looking into the latter.
    fn parts(
        &self,
        class: NodeId,
        at: u64,
        parts: &mut Vec<u64>,
        mentions: &mut Vec<Mention>,
        depth: u32,
    ) {
        const MAX_DEPTH: u32 = 100;
        let class = strip(self.src(), class);
        let full = parts.len() + mentions.len() > MAX_PARTS;
        if class == 0 || depth > MAX_DEPTH || full || !self.fuel.burn() {
            return;
        }
        let die = self.src().die(class);
        for &id in &die.elements {
            let m = self.src().die(id);
            match m.tag {
                tag::MEMBER if is_vptr(&m) => parts.push(at.saturating_add(m.offset / 8)),
                tag::INHERITANCE if m.flags.is_virtual => mentions.push((m.base, at, m.offset)),
                tag::INHERITANCE => {
                    let place = at.saturating_add(m.offset / 8);
                    self.parts(m.base, place, parts, mentions, depth + 1);
                }
                _ => {}
            }
        }
    }

    /// Members and bases of the class that lies at `at` in the complete object.
    fn members(&mut self, die: &Die, complete: &Complete, at: u64, outer: &Notes) -> Vec<Member> {
        let size = die.size.div_ceil(8);
        let own = Notes::of(self.src(), die);
        // What contains an anonymous struct may annotate its unions; a class with a name speaks for itself.
        let notes = match die.name.is_empty() {
            true => own.and(outer),
            false => own,
        };
        let mut members = Vec::new();
        let mut bits = Vec::new();
        for &id in &die.elements {
            let m = self.src().die(id);
            match m.tag {
                tag::MEMBER if m.flags.is_static || notes::is_note(self.src(), &m) => {}
                tag::MEMBER if is_vptr(&m) => {
                    let place = at.saturating_add(m.offset / 8);
                    let shape = self.vptr(place, complete);
                    members.push(Member::new(&m.name, m.offset / 8, shape));
                }
                tag::MEMBER if m.flags.bit_field => bits.push(m),
                tag::MEMBER => members.push(self.member(&m, &notes, size)),
                tag::INHERITANCE if !m.flags.is_virtual => {
                    let place = at.saturating_add(m.offset / 8);
                    members.extend(self.base(m.base, place, complete, at));
                }
                _ => {}
            }
        }
        members.extend(bit_fields(&bits));
        members
    }

    /// The base class that lies at `at` in the complete object, as a member of the class that lies at `from`. An empty one
    /// is left out: it has no bytes of its own.
    fn base(&mut self, base: NodeId, at: u64, complete: &Complete, from: u64) -> Option<Member> {
        const MAX_DEPTH: u32 = 100;
        let bare = strip(self.src(), base);
        if bare == 0 || self.depth > MAX_DEPTH || !self.fuel.burn() {
            return None;
        }
        self.depth += 1;
        let die = self.src().die(bare);
        let name = self.describer.name(base);
        // A buffer of libstdc++ can be a base: its value is one then.
        let value = self.buffered(&die, die.size.div_ceil(8));
        let shape = match value {
            Some(value) => self.shape(value, &Notes::default()),
            None => {
                let members = self.members(&die, complete, at, &Notes::default());
                // Without its virtual bases, and without padding that the derived class uses, a base may be smaller than an
                // object of its class.
                let room = complete.size.saturating_sub(at);
                Shape::Record {
                    name: name.clone(),
                    size: die.size.div_ceil(8).min(room),
                    members,
                }
            }
        };
        self.depth -= 1;
        if matches!(&shape, Shape::Record { members, .. } if members.is_empty()) {
            return None;
        }
        Some(Member {
            base: true,
            ..Member::new(&name, at.checked_sub(from)?, shape)
        })
    }

    fn vptr(&mut self, place: u64, complete: &Complete) -> Shape {
        let simple = complete.virtuals.is_empty();
        let Some(offset) = complete.view.point(place, &complete.parts, simple) else {
            return refused(8, NO_VTABLE);
        };
        let bound = Bound {
            symbol: complete.symbol.clone(),
            offset,
        };
        self.bounds.push((complete.name.clone(), bound));
        Shape::Vtable {
            class: (self.bounds.len() - 1).to_string(),
        }
    }
}

/// Whether a member is the pointer to a vtable: clang names it after the class that introduces it.
fn is_vptr(m: &Die) -> bool {
    m.flags.artificial && (m.name.starts_with("_vptr$") || m.name.starts_with("_vptr."))
}

/// Bit fields as the integers that hold them: those that share a byte are one field.
fn bit_fields(bits: &[std::rc::Rc<Die>]) -> Vec<Member> {
    let mut runs: Vec<(u64, u64, String)> = Vec::new();
    let mut sorted: Vec<&Die> = bits.iter().map(|d| &**d).collect();
    sorted.sort_by_key(|d| d.offset);
    for d in sorted {
        let first = d.offset / 8;
        let end = d.offset.saturating_add(d.size.max(1)).div_ceil(8);
        match runs.last_mut() {
            Some((_, last, names)) if first < *last => {
                *last = end.max(*last);
                names.push(',');
                names.push_str(&d.name);
            }
            _ => runs.push((first, end, d.name.clone())),
        }
    }
    runs.into_iter()
        .map(|(first, end, name)| Member::new(&name, first, integer(end - first)))
        .collect()
}
