//! The descriptor of one type, and what goes with it in the program.

use std::cell::RefCell;
use std::collections::HashMap;

use thiserror::Error;
use vernal_format::types::{
    BuildError, FieldKind, Member, Shape, TypeBuilder, TypeDesc, TypeError, canonical_text,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::align::{align_of, size_of};
use crate::die::{Fuel, NodeId, Source, strip, tag};
use crate::names::name_of;
use crate::notes::Notes;
use crate::vtable::Bound;

/// Why a type has no descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// Nothing of its layout is known.
    #[error(
        "type `{0}` is incomplete where it is allocated: include its definition, or cast the result to a complete type"
    )]
    Incomplete(String),
    /// What the compiler says contradicts itself.
    #[error("type `{name}`: {error}; this is a bug of the pass, please report it")]
    Build {
        /// The type.
        name: String,
        /// What is wrong.
        error: BuildError,
    },
}

/// A type as the pass emits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The descriptor.
    pub desc: TypeDesc,
    /// For each vtable pointer, in the order of the fields, what it holds in this program.
    pub bound: Vec<Bound>,
}

impl Described {
    /// Names the symbols that hold this: equal for equal content.
    pub fn symbol_hash(&self) -> u64 {
        let mut bytes = self.desc.blob().to_vec();
        for b in &self.bound {
            bytes.extend_from_slice(b.symbol.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&b.offset.to_le_bytes());
        }
        xxh3_64(&bytes)
    }

    /// Why objects of this type cannot be allocated in a pool: a line per refused field, with the remedy.
    pub fn refusals(&self) -> Vec<String> {
        let fields = self.desc.fields().iter();
        fields
            .filter(|f| f.kind == FieldKind::Refused)
            .map(|f| {
                let field = match f.name.as_str() {
                    "*" => String::new(),
                    name => format!(", field `{name}`"),
                };
                let (name, why) = (self.desc.name(), &f.target);
                format!("type `{name}`{field}: {why}; {}", remedy(why))
            })
            .collect()
    }
}

/// Why the vtables of a class cannot be used.
pub(crate) const NO_VTABLE: &str = "vtable not visible";
/// Why the virtual bases of a class cannot be found.
pub(crate) const NO_VIRTUAL_BASE: &str = "virtual base at an unknown place";

fn remedy(reason: &str) -> &'static str {
    use vernal_format::types::refusal;
    match reason {
        refusal::UNION => {
            "say which member it holds with VN_ACTIVE(member), or that it holds no pointer into the pool with VN_OPAQUE(field)"
        }
        refusal::TAGGED => {
            "say that it is a pointer with VN_TAGGED(field), or a number with VN_OPAQUE(field)"
        }
        refusal::UNALIGNED => "do not pack the struct, or align the pointer to 8 bytes",
        refusal::MEMBER_FUNCTION => "keep a virtual function or an index instead",
        NO_VTABLE => {
            "allocate it in the file that defines the class's first virtual function, or define its constructor in the class"
        }
        NO_VIRTUAL_BASE => {
            "allocate it in the file that defines the class's first virtual function, or define all of them in the class"
        }
        _ => "allocate a type that the compiler can see",
    }
}

/// Describes the types of one module; remembers what it has seen.
pub struct Describer<'a, S: Source + ?Sized> {
    pub(crate) src: &'a S,
    ids: RefCell<HashMap<NodeId, u64>>,
    /// Names of what has none.
    unnamed: RefCell<HashMap<NodeId, String>>,
}

impl<'a, S: Source + ?Sized> Describer<'a, S> {
    /// For one module.
    pub fn new(src: &'a S) -> Self {
        Describer {
            src,
            ids: RefCell::default(),
            unnamed: RefCell::default(),
        }
    }

    /// The descriptor of `ty`.
    pub fn describe(&self, ty: NodeId) -> Result<Described, DescribeError> {
        self.run(ty, true)
    }

    /// The type's name.
    pub fn name(&self, ty: NodeId) -> String {
        name_of(self.src, ty, &|id| self.unnamed(id))
    }

    /// What a type without any name is called: its kind and a hash of its layout, because its place in the source moves.
    fn unnamed(&self, ty: NodeId) -> String {
        let kind = match self.src.die(ty).tag {
            tag::UNION => "union",
            tag::ENUMERATION => "enum",
            _ => "struct",
        };
        if let Some(name) = self.unnamed.borrow().get(&ty) {
            return name.clone();
        }
        // Until it is known, and if it is a part of itself.
        let plain = format!("(unnamed {kind})");
        self.unnamed.borrow_mut().insert(ty, plain.clone());
        let name = match self.build(ty, kind, false) {
            Ok(d) => {
                let hash = xxh3_64(canonical_text(&d.desc).as_bytes());
                format!("(unnamed {kind} {hash:016x})")
            }
            Err(_) => plain,
        };
        self.unnamed.borrow_mut().insert(ty, name.clone());
        name
    }

    /// The id of the type that a pointer points to, 0 when there is none. Ids do not depend on each other: they hash the
    /// names of what pointers point to.
    pub(crate) fn id(&self, ty: NodeId) -> u64 {
        let key = strip(self.src, ty);
        if key == 0 {
            return 0;
        }
        if let Some(&id) = self.ids.borrow().get(&key) {
            return id;
        }
        let id = self.run(ty, false).map_or(0, |d| d.desc.id());
        self.ids.borrow_mut().insert(key, id);
        id
    }

    fn run(&self, ty: NodeId, ids: bool) -> Result<Described, DescribeError> {
        let name = self.name(ty);
        self.build(ty, &name, ids)
    }

    fn build(&self, ty: NodeId, name: &str, ids: bool) -> Result<Described, DescribeError> {
        let bare = strip(self.src, ty);
        if bare == 0 || !self.is_complete(bare) {
            return Err(DescribeError::Incomplete(name.to_owned()));
        }
        let mut size = size_of(self.src, bare);
        let align = align_of(self.src, ty);
        // A typedef can ask for more than the size is a multiple of; C allows no arrays of such a type.
        size = size.next_multiple_of(align.into());
        let mut walk = Walk {
            describer: self,
            ids,
            bounds: Vec::new(),
            depth: 0,
            fuel: Fuel::new(),
        };
        let shape = walk.shape(ty, &Notes::default());
        let blob = TypeBuilder::of(name, size, align, shape.clone()).build();
        let blob = match blob {
            // Two addresses in the same bytes: a layout that no rule above knew.
            Err(BuildError::Rule(TypeError::Overlap { .. } | TypeError::Field { .. })) => {
                walk.bounds.clear();
                refused(name, size, align).build()
            }
            other => other,
        };
        let fail = |error| DescribeError::Build {
            name: name.to_owned(),
            error,
        };
        let blob = blob.map_err(fail)?;
        let desc = TypeDesc::parse(&blob).map_err(|e| fail(e.into()))?;
        if walk.bounds.is_empty() {
            return Ok(Described {
                desc,
                bound: Vec::new(),
            });
        }
        // The fields are in their final order: read off which vtable pointer came where, then give them their real names.
        let order: Vec<usize> = desc
            .fields()
            .iter()
            .filter(|f| f.kind == FieldKind::Vtable)
            .filter_map(|f| f.target.parse().ok())
            .collect();
        let mut shape = shape;
        walk.name_vtables(&mut shape);
        let blob = TypeBuilder::of(name, size, align, shape)
            .build()
            .map_err(fail)?;
        let desc = TypeDesc::parse(&blob).map_err(|e| fail(e.into()))?;
        let bound = order
            .iter()
            .filter_map(|&i| walk.bounds.get(i).map(|b| b.1.clone()))
            .collect();
        Ok(Described { desc, bound })
    }

    fn is_complete(&self, bare: NodeId) -> bool {
        let die = self.src.die(bare);
        let sized = match die.tag {
            tag::SUBROUTINE => false,
            tag::ARRAY => self.is_complete_element(die.base),
            _ => true,
        };
        sized && !die.flags.forward
    }

    fn is_complete_element(&self, ty: NodeId) -> bool {
        let bare = strip(self.src, ty);
        bare != 0 && !self.src.die(bare).flags.forward
    }
}

/// The descriptor of a type that cannot be walked at all.
fn refused(name: &str, size: u64, align: u32) -> TypeBuilder {
    let reason = vernal_format::types::refusal::UNKNOWN.to_owned();
    TypeBuilder::of(name, size, align, Shape::Refused { size, reason })
}

/// One walk over a type.
pub(crate) struct Walk<'a, S: Source + ?Sized> {
    pub describer: &'a Describer<'a, S>,
    /// Whether pointers get the ids of what they point to.
    pub ids: bool,
    /// Vtable pointers found: the class, and what the pointer holds. Their shapes have the index in place of a name.
    pub bounds: Vec<(String, Bound)>,
    pub depth: u32,
    pub fuel: Fuel,
}

impl<S: Source + ?Sized> Walk<'_, S> {
    /// Puts the names of classes where [`Walk::bounds`]' indices stand.
    fn name_vtables(&self, shape: &mut Shape) {
        match shape {
            Shape::Vtable { class } => {
                let found = class.parse().ok().and_then(|i: usize| self.bounds.get(i));
                if let Some((name, _)) = found {
                    class.clone_from(name);
                }
            }
            Shape::Record { members, .. } => {
                let each = |m: &mut Member| self.name_vtables(&mut m.shape);
                members.iter_mut().for_each(each);
            }
            Shape::Array { element, .. } | Shape::Flexible { element, .. } => {
                self.name_vtables(element);
            }
            _ => {}
        }
    }
}
