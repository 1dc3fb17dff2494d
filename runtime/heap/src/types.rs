//! Types that have changed: what a pool was written with against what a program was compiled with.

use std::collections::HashMap;
use std::fmt::Write;
use thiserror::Error;
use vernal_format::types::{Field, FieldKind, TypeDesc, canonical_text, diff};

/// A type of the pool's type table.
#[derive(Debug, Clone, Copy)]
pub struct PoolType<'a> {
    /// Its index in the table.
    pub index: u32,
    /// Its descriptor.
    pub desc: &'a TypeDesc,
}

/// What a type of the program is in the pool.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped {
    /// The pool has it.
    Same {
        /// Its index.
        index: u32,
    },
    /// The pool has none of this name in use: taken in when it is first allocated.
    New,
    /// The pool's objects of this name fit the program's type, which only allows more values of some enum. New objects get
    /// the program's descriptor.
    Widened {
        /// Index of the pool's type.
        index: u32,
    },
    /// The pool's objects have another layout, and the program has a hook that converts them.
    Changed(Box<Migration>),
}

/// How the types of a program and a pool fit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping {
    /// For each type of the program, in its order.
    pub types: Vec<Mapped>,
}

impl Mapping {
    /// The migrations that have to run before the program sees the pool.
    pub fn migrations(&self) -> impl Iterator<Item = &Migration> {
        self.types.iter().filter_map(|t| match t {
            Mapped::Changed(m) => Some(&**m),
            _ => None,
        })
    }
}

/// Why a program must not use a pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypeMismatch {
    /// Types whose layout changed.
    #[error("{} of this program changed since the pool was written:\n{text}register a migration with vn_migrate before opening, or run the program that wrote it", names(.types))]
    Changed {
        /// Their names.
        types: Vec<String>,
        /// Both layouts of each, side by side.
        text: String,
    },
    /// One program describes a type in two ways.
    #[error(
        "the program describes `{name}` in two ways; compile all of it with the same options:\n{text}"
    )]
    Ambiguous {
        /// The type.
        name: String,
        /// Both layouts.
        text: String,
    },
}

fn names(types: &[String]) -> String {
    let quoted: Vec<String> = types.iter().map(|t| format!("`{t}`")).collect();
    match quoted.as_slice() {
        [one] => format!("type {one}"),
        many => format!("types {}", many.join(", ")),
    }
}

/// Compares the types of a pool with those of a program.
///
/// `in_use` tells whether any object has the pool's type of this index; it is only asked for types that the program has in
/// another form, because a migration leaves the old form behind in the table. `migratable` tells whether the program has a
/// hook for a name. All changed types without one are named in one error.
pub fn reconcile(
    pool: &[PoolType<'_>],
    program: &[&TypeDesc],
    in_use: &dyn Fn(u32) -> bool,
    migratable: &dyn Fn(&str) -> bool,
) -> Result<Mapping, TypeMismatch> {
    let mut by_name: HashMap<&str, Vec<PoolType<'_>>> = HashMap::new();
    for t in pool {
        by_name.entry(t.desc.name()).or_default().push(*t);
    }
    let mut known: HashMap<&str, &TypeDesc> = HashMap::new();
    let (mut mapping, mut changed, mut text) = (Mapping::default(), Vec::new(), String::new());
    for desc in program {
        if let Some(other) = known.insert(desc.name(), desc)
            && other.id() != desc.id()
        {
            return Err(TypeMismatch::Ambiguous {
                name: desc.name().to_string(),
                text: diff(other, desc),
            });
        }
        let versions = by_name.get(desc.name()).map_or(&[][..], |v| v);
        let mut mapped = Mapped::New;
        for version in versions {
            if version.desc.id() == desc.id() {
                // The newest form wins over a widened one, but not over objects that must be converted first.
                if !matches!(mapped, Mapped::Changed(_)) {
                    mapped = Mapped::Same {
                        index: version.index,
                    };
                }
            } else if widens(version.desc, desc) {
                if mapped == Mapped::New {
                    mapped = Mapped::Widened {
                        index: version.index,
                    };
                }
            } else if in_use(version.index) {
                if migratable(desc.name()) && !matches!(mapped, Mapped::Changed(_)) {
                    let plan = Migration::new(version.index, version.desc, desc);
                    mapped = Mapped::Changed(Box::new(plan));
                } else {
                    changed.push(desc.name().to_string());
                    let _ = writeln!(text, "{}", diff(version.desc, desc));
                }
            }
        }
        mapping.types.push(mapped);
    }
    if changed.is_empty() {
        Ok(mapping)
    } else {
        changed.dedup();
        Err(TypeMismatch::Changed {
            types: changed,
            text,
        })
    }
}

/// Whether every object of `old` is one of `new`: the same layout, and each enum of `new` has all values of `old`.
fn widens(old: &TypeDesc, new: &TypeDesc) -> bool {
    let same_but_enums = old.name() == new.name()
        && (old.size(), old.align()) == (new.size(), new.align())
        && old.fields().len() == new.fields().len();
    same_but_enums
        && old.fields().iter().zip(new.fields()).all(|(a, b)| {
            let wider = match a.kind {
                FieldKind::Enum => {
                    let ((a_min, a_max), (b_min, b_max)) = (a.enum_range(), b.enum_range());
                    // The same bytes must mean the same value in both.
                    (a_min < 0) == (b_min < 0) && b_min <= a_min && a_max <= b_max
                }
                _ => true,
            };
            wider && place(a) == place(b) && a.target == b.target
        })
}

/// What of a field decides where its bytes are and what they mean.
fn place(f: &Field) -> (u64, FieldKind, u32, u32, u32, bool) {
    (
        f.offset,
        f.kind,
        f.elem_size,
        f.count,
        f.stride,
        f.is_flex(),
    )
}

/// Bytes that a field of the same name takes from old to new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carry {
    /// The field.
    pub name: String,
    /// Offset in the old object.
    pub old_offset: u64,
    /// Stride in the old object.
    pub old_stride: u64,
    /// Offset in the new object.
    pub new_offset: u64,
    /// Stride in the new object.
    pub new_stride: u64,
    /// Bytes of one element.
    pub elem_size: u64,
    /// Elements that both have; `None` for a flexible field: as many as the shorter object has.
    pub count: Option<u64>,
}

/// How the objects of a changed type become new ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Index of the old type in the pool's table.
    pub pool_index: u32,
    /// The type as the pool has it.
    pub old: TypeDesc,
    /// The type as the program has it.
    pub new: TypeDesc,
    /// What carries over by name.
    pub carried: Vec<Carry>,
    /// Fields of the old type that the new one does not have, or has as something else.
    pub dropped: Vec<String>,
    /// Fields of the new type that begin as zero.
    pub added: Vec<String>,
}

impl Migration {
    /// The plan from one descriptor to another: fields of the same name, kind and element size carry over.
    pub fn new(pool_index: u32, old: &TypeDesc, new: &TypeDesc) -> Migration {
        let data = |d: &TypeDesc| -> Vec<Field> {
            let leaves = d.fields().iter().filter(|f| f.kind != FieldKind::Part);
            leaves.cloned().collect()
        };
        let (from, to) = (data(old), data(new));
        let mut plan = Migration {
            pool_index,
            old: old.clone(),
            new: new.clone(),
            carried: Vec::new(),
            dropped: Vec::new(),
            added: Vec::new(),
        };
        for f in &to {
            let same = from.iter().find(|o| {
                o.name == f.name
                    && (o.kind, o.elem_size, o.is_flex()) == (f.kind, f.elem_size, f.is_flex())
                    && (o.kind != FieldKind::Pointer || o.target == f.target)
            });
            match same {
                Some(o) => plan.carried.push(Carry {
                    name: f.name.clone(),
                    old_offset: o.offset,
                    old_stride: o.stride.into(),
                    new_offset: f.offset,
                    new_stride: f.stride.into(),
                    elem_size: f.elem_size.into(),
                    count: (!f.is_flex()).then(|| o.count.min(f.count).into()),
                }),
                None => plan.added.push(f.name.clone()),
            }
        }
        let kept = |name: &str| plan.carried.iter().any(|c| c.name == name);
        plan.dropped = from
            .iter()
            .filter(|o| !kept(&o.name))
            .map(|o| o.name.clone())
            .collect();
        plan
    }

    /// Bytes of the new object for an old one of `old_bytes`: all elements of an array, all of a flexible tail. `None` when
    /// no object is that large.
    pub fn new_bytes(&self, old_bytes: u64) -> Option<u64> {
        if self.new.is_flexible() {
            let tail = old_bytes.saturating_sub(self.old.size());
            return self.new.size().checked_add(tail);
        }
        let elements = self.old.elements_in(old_bytes).max(1);
        elements.checked_mul(self.new.size())
    }

    /// Copies what carries over, element by element, into a zeroed new object. The program's hook runs after this.
    pub fn carry(&self, old: &[u8], new: &mut [u8]) {
        let elements = self.old.elements_in(old.len() as u64);
        for element in 0..elements {
            let (from, to) = (element * self.old.size(), element * self.new.size());
            for c in &self.carried {
                let mut index = 0;
                while c.count.is_none_or(|n| index < n) {
                    let source = range(from + c.old_offset, index, c.old_stride, c.elem_size);
                    let target = range(to + c.new_offset, index, c.new_stride, c.elem_size);
                    let (Some(source), Some(target)) = (source, target) else {
                        break;
                    };
                    let (Some(bytes), Some(place)) = (old.get(source), new.get_mut(target)) else {
                        break;
                    };
                    place.copy_from_slice(bytes);
                    index += 1;
                }
            }
        }
    }

    /// What changes, in one paragraph for a log.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "`{}`: {} fields carry over",
            self.new.name(),
            self.carried.len()
        );
        for (what, fields) in [("dropped", &self.dropped), ("new", &self.added)] {
            if !fields.is_empty() {
                let _ = write!(text, "; {what}: {}", fields.join(", "));
            }
        }
        text
    }
}

fn range(base: u64, index: u64, stride: u64, len: u64) -> Option<std::ops::Range<usize>> {
    let start = index.checked_mul(stride)?.checked_add(base)?;
    let end = start.checked_add(len)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The program's types without those that say the same twice, as linked modules do.
pub fn unique<'a>(types: impl IntoIterator<Item = &'a TypeDesc>) -> Vec<&'a TypeDesc> {
    let mut seen = HashMap::new();
    let mut out = Vec::new();
    for t in types {
        // Equal ids mean equal canonical texts, but for an attacker's collision: then the texts tell.
        let texts: &mut Vec<String> = seen.entry(t.id()).or_default();
        let text = canonical_text(t);
        if !texts.contains(&text) {
            texts.push(text);
            out.push(t);
        }
    }
    out
}
