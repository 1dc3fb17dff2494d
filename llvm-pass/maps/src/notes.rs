//! Annotations: what the program says where its types do not.
//!
//! In C, clang keeps the attribute `btf_decl_tag("vernal:…")` of a member or a type. In C++ it ignores that attribute, but
//! keeps declarations of static members; in both languages it keeps arrays without elements. So the macros of
//! `vernal_pool.h` declare a member whose name is the annotation, and which has no place in the object:
//!
//! | note | attribute | member | says |
//! | --- | --- | --- | --- |
//! | opaque | `vernal:opaque` | `vernal_opaque_NAME` | bytes: whatever is there, it is no pointer of the pool |
//! | tagged | `vernal:tagged` | `vernal_tagged_NAME` | a pointer whose low three bits may be set |
//! | active | `vernal:active=MEMBER` | `vernal_active_MEMBER` | of this union, MEMBER is what it holds |

use std::collections::HashSet;

use crate::die::{Die, Source, tag};

const PREFIX: &str = "vernal_";

/// What is annotated in one struct, class or union.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    opaque: HashSet<String>,
    tagged: HashSet<String>,
    active: HashSet<String>,
}

impl Notes {
    /// The notes that the members of `die` make.
    pub fn of<S: Source + ?Sized>(src: &S, die: &Die) -> Notes {
        let mut notes = Notes::default();
        for &id in &die.elements {
            let member = src.die(id);
            if is_note(src, &member) {
                notes.add_member(&member.name);
            }
        }
        notes
    }

    fn add_member(&mut self, name: &str) {
        let Some((what, member)) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
        else {
            return;
        };
        let set = match what {
            "opaque" => &mut self.opaque,
            "tagged" => &mut self.tagged,
            "active" => &mut self.active,
            _ => return,
        };
        set.insert(member.to_owned());
    }

    /// Whether `member` is bytes, by a note of this type or by its attribute.
    pub fn is_opaque(&self, member: &Die) -> bool {
        self.opaque.contains(&member.name) || has(member, "opaque")
    }

    /// Whether `member` is a pointer with low bits set.
    pub fn is_tagged(&self, member: &Die) -> bool {
        self.tagged.contains(&member.name) || has(member, "tagged")
    }

    /// Whether the union's member called `name` is what the union holds.
    pub fn is_active(&self, name: &str) -> bool {
        self.active.contains(name)
    }

    /// These notes and those that the attributes of `die` make about the union that it is or has.
    pub fn and_of(&self, die: &Die) -> Notes {
        let mut notes = self.clone();
        for note in &die.notes {
            if let Some(active) = note.strip_prefix("vernal:active=") {
                notes.active.insert(active.to_owned());
            }
        }
        notes
    }

    /// These notes and others.
    pub fn and(&self, other: &Notes) -> Notes {
        let mut notes = self.clone();
        notes.active.extend(other.active.iter().cloned());
        notes
    }
}

/// Whether a type as a whole is bytes.
pub fn is_opaque_type(die: &Die) -> bool {
    has(die, "opaque")
}

fn has(die: &Die, what: &str) -> bool {
    die.notes
        .iter()
        .any(|n| n.strip_prefix("vernal:") == Some(what))
}

/// Whether a member is an annotation: it has the name of one and no place in the object.
pub fn is_note<S: Source + ?Sized>(src: &S, member: &Die) -> bool {
    if !matches!(member.tag, tag::MEMBER | tag::VARIABLE) || !member.name.starts_with(PREFIX) {
        return false;
    }
    if member.flags.is_static || member.tag == tag::VARIABLE {
        return true;
    }
    member.base != 0 && {
        let ty = src.die(member.base);
        ty.tag == tag::ARRAY && ty.size == 0
    }
}
