//! Debug information as this crate sees it: the few properties of a DWARF entry that layouts follow from.

use std::cell::Cell;
use std::rc::Rc;

use crate::vtable::VtableView;

/// Names a node of the debug information; 0 is none (`void`).
pub type NodeId = usize;

/// DWARF's tags of types and of what they consist of.
pub mod tag {
    #![allow(missing_docs)]
    pub const ARRAY: u16 = 0x01;
    pub const CLASS: u16 = 0x02;
    pub const ENUMERATION: u16 = 0x04;
    pub const MEMBER: u16 = 0x0d;
    pub const POINTER: u16 = 0x0f;
    pub const REFERENCE: u16 = 0x10;
    pub const STRUCTURE: u16 = 0x13;
    pub const SUBROUTINE: u16 = 0x15;
    pub const TYPEDEF: u16 = 0x16;
    pub const UNION: u16 = 0x17;
    pub const INHERITANCE: u16 = 0x1c;
    pub const PTR_TO_MEMBER: u16 = 0x1f;
    pub const SUBRANGE: u16 = 0x21;
    pub const BASE: u16 = 0x24;
    pub const CONST: u16 = 0x26;
    pub const ENUMERATOR: u16 = 0x28;
    pub const SUBPROGRAM: u16 = 0x2e;
    pub const TEMPLATE_TYPE: u16 = 0x2f;
    pub const VARIABLE: u16 = 0x34;
    pub const VOLATILE: u16 = 0x35;
    pub const RESTRICT: u16 = 0x37;
    pub const NAMESPACE: u16 = 0x39;
    pub const UNSPECIFIED: u16 = 0x3b;
    pub const RVALUE_REFERENCE: u16 = 0x42;
    pub const TEMPLATE_ALIAS: u16 = 0x43;
    pub const ATOMIC: u16 = 0x47;
    pub const IMMUTABLE: u16 = 0x4b;
}

/// DWARF's encodings of base types.
pub mod ate {
    #![allow(missing_docs)]
    pub const BOOLEAN: u32 = 0x02;
    pub const COMPLEX_FLOAT: u32 = 0x03;
    pub const FLOAT: u32 = 0x04;
}

/// Properties of a [`Die`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DieFlags {
    /// A declaration without layout.
    pub forward: bool,
    /// A base class that is virtual.
    pub is_virtual: bool,
    /// A bit field.
    pub bit_field: bool,
    /// A static member: no part of the object.
    pub is_static: bool,
    /// Made by the compiler: the pointer to a vtable.
    pub artificial: bool,
    /// `enum class`: has a fixed underlying type.
    pub enum_class: bool,
    /// A vector of the hardware.
    pub vector: bool,
}

/// One node of debug information. What a tag does not have is 0 or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Die {
    /// [`tag`].
    pub tag: u16,
    /// Its name, without scopes.
    pub name: String,
    /// The mangled name of its type information (`_ZTS…`); C++ only.
    pub identifier: String,
    /// Bits.
    pub size: u64,
    /// Bits from the start of what contains it. Of a virtual base: how many *bytes* in front of the address point the
    /// vtable says where it lies.
    pub offset: u64,
    /// Bits, where the program asked for an alignment.
    pub align: u32,
    /// [`ate`] of a base type.
    pub encoding: u32,
    /// Its properties.
    pub flags: DieFlags,
    /// The type it is derived from, points to, or has.
    pub base: NodeId,
    /// What contains it.
    pub scope: NodeId,
    /// Members and bases, subranges, enumerators; the types of a function, the returned one first.
    pub elements: Vec<NodeId>,
    /// Arguments of a template.
    pub params: Vec<NodeId>,
    /// Texts of `btf_decl_tag` attributes.
    pub notes: Vec<String>,
    /// Elements of a subrange (-1 when it is not known), value of an enumerator.
    pub value: i128,
}

/// Debug information and vtables of one module.
pub trait Source {
    /// A node. Never asked for 0.
    fn die(&self, id: NodeId) -> Rc<Die>;
    /// What the module knows of the vtable with this symbol.
    fn vtable(&self, symbol: &str) -> VtableView;
    /// The groups of vtables that the module mentions: symbol and, as a demangler writes it, class.
    fn vtables(&self) -> Vec<(String, String)>;
}

/// Skips what does not change a layout: typedefs and qualifiers. Gives up on cycles, which damaged input could have.
pub(crate) fn strip<S: Source + ?Sized>(src: &S, mut ty: NodeId) -> NodeId {
    const MAX: usize = 256;
    for _ in 0..MAX {
        if ty == 0 {
            break;
        }
        let die = src.die(ty);
        match die.tag {
            tag::TYPEDEF
            | tag::TEMPLATE_ALIAS
            | tag::CONST
            | tag::VOLATILE
            | tag::RESTRICT
            | tag::ATOMIC
            | tag::IMMUTABLE => ty = die.base,
            _ => return ty,
        }
    }
    0
}

/// How many nodes one question may visit: far more than a type has that fits a descriptor, so that debug information that
/// refers to itself in circles ends as a refused type.
pub(crate) struct Fuel(Cell<u32>);

impl Fuel {
    const FULL: u32 = 50_000;

    pub fn new() -> Self {
        Fuel(Cell::new(Self::FULL))
    }

    /// Pays for one node; false when nothing is left.
    pub fn burn(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}
