//! What a field of the receiver's type demands: of the object that a pointer names, of lengths, of values.

use std::collections::HashMap;

use crate::walk::inspect::enum_value;
use vernal_format::types::{Field, FieldKind, TypeDesc};

/// What a pointer may point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Target {
    /// An object, element or part of this known type.
    Type(u32),
    /// A value without pointers.
    Scalar(Scalar),
    /// A part of an object, known by its name only.
    #[default]
    Part,
}

/// Values that have no descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// Any byte of any object.
    Byte,
    /// An integer or float of so many bytes.
    Number(u32),
    /// A byte that is 0 or 1.
    Bool,
}

/// How far a pointer reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Bound {
    /// One value, or as many as there are.
    #[default]
    One,
    /// A zero byte ends it.
    Text,
    /// `PVec`: length in the next word, capacity in the one after.
    Vector,
    /// The same, and the bytes are UTF-8.
    String,
    /// `std::vector`: the end in the next word, the end of the memory in the one after.
    Range,
    /// `std::string`: length in the next word, then room for short ones.
    Chars,
    /// A pointer that another one's bound speaks for.
    Within,
}

/// What is demanded of a pointer.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    pub target: Target,
    /// Place of the type that it usually points to.
    pub exact: u32,
    pub bound: Bound,
    /// Null is no value.
    pub never_null: bool,
    /// A demand says what it points to.
    pub led: bool,
    /// Name of the target, as the type has it.
    pub name: String,
}

impl Rule {
    /// It points to a value of the type at this place, whatever its name says.
    /// `false`: somebody else has said otherwise.
    pub fn lead_to(&mut self, slot: u32) -> bool {
        if self.led && self.exact != slot {
            return false;
        }
        self.led = true;
        self.target = Target::Type(slot);
        self.exact = slot;
        if self.bound == Bound::Text {
            self.bound = Bound::One;
        }
        true
    }
}

/// What a value has to be besides what its type's descriptor says: languages promise more than layouts do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// The pointer at this offset is never null.
    NotNull {
        /// From the start of an element.
        offset: u64,
    },
    /// The integer at this offset is one of these.
    OneOf {
        /// From the start of an element.
        offset: u64,
        /// Its bytes.
        size: u32,
        /// Its values, as unsigned numbers of that size.
        values: Vec<u64>,
    },
    /// The pointer at this offset leads to values of the type with this id. Descriptors name what they point to, and a name can
    /// stand for different layouts in two languages: `char` does.
    Target {
        /// From the start of an element.
        offset: u64,
        /// The id.
        id: u64,
    },
}

/// A field that not every value fits.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pub field: u32,
    pub offset: u64,
    pub stride: u64,
    pub count: u64,
    pub flex: bool,
    pub size: u32,
    min: i64,
    span: u64,
    /// Only these, in order.
    set: Option<Box<[u64]>>,
    /// Not these: the surrogates are no characters of Rust.
    except: Option<(u64, u64)>,
}

impl Values {
    pub fn of((index, f): (usize, &Field)) -> Option<Values> {
        let (min, max) = match f.kind {
            FieldKind::Bool => (0, 1),
            FieldKind::Enum => f.enum_range(),
            _ => return None,
        };
        Some(Values {
            field: index as u32,
            offset: f.offset,
            stride: f.stride.into(),
            count: f.count.into(),
            flex: f.is_flex(),
            size: f.elem_size,
            min: min.into(),
            span: i64::from(max).wrapping_sub(min.into()) as u64,
            set: None,
            except: (f.target == "char" && f.elem_size == 4).then_some((0xd800, 0xdfff)),
        })
    }

    /// The integer field that a demand speaks of.
    pub fn one_of((index, f): (usize, &Field), values: &[u64]) -> Values {
        let mut set = values.to_vec();
        set.sort_unstable();
        Values {
            field: index as u32,
            offset: f.offset,
            stride: f.stride.into(),
            count: f.count.into(),
            flex: f.is_flex(),
            size: f.elem_size,
            min: 0,
            span: u64::MAX,
            set: Some(set.into()),
            except: None,
        }
    }

    /// Whether the bytes, as an unsigned number, are a value.
    #[inline(always)]
    pub fn takes(&self, raw: u64) -> bool {
        self.in_range(raw) && self.is_listed(raw)
    }

    #[inline(always)]
    fn in_range(&self, raw: u64) -> bool {
        let raw = match self.min < 0 {
            true => {
                let shift = 64 - 8 * self.size.min(8);
                (((raw << shift) as i64) >> shift) as u64
            }
            false => raw,
        };
        raw.wrapping_sub(self.min as u64) <= self.span
    }

    #[inline(always)]
    fn is_listed(&self, raw: u64) -> bool {
        match (&self.set, self.except) {
            (None, None) => true,
            (set, except) => {
                set.as_ref().is_none_or(|s| s.binary_search(&raw).is_ok())
                    && except.is_none_or(|(first, last)| raw < first || raw > last)
            }
        }
    }
}

/// What is wrong with a value that [`Values::takes`] refuses.
pub(super) fn fault_of(field: &Field, raw: u64) -> crate::walk::Fault {
    match field.kind {
        FieldKind::Bool => crate::walk::Fault::Bool { value: raw },
        FieldKind::Integer => crate::walk::Fault::NotListed { value: raw },
        _ => {
            let (min, max) = field.enum_range();
            crate::walk::Fault::Enum {
                value: enum_value(raw, field),
                name: field.target.clone(),
                min,
                max,
            }
        }
    }
}

/// What has no descriptor of its own.
pub(super) fn scalar(name: &str) -> Option<Scalar> {
    Some(match name {
        "" | "void" | "()" | "char" | "signed char" | "unsigned char" | "std::byte" | "char8_t"
        | "u8" | "i8" => Scalar::Byte,
        "short" | "unsigned short" | "char16_t" | "u16" | "i16" | "_Float16" | "__bf16" => {
            Scalar::Number(2)
        }
        "int" | "unsigned int" | "wchar_t" | "char32_t" | "float" | "u32" | "i32" | "f32" => {
            Scalar::Number(4)
        }
        "long" | "unsigned long" | "long long" | "unsigned long long" | "double" | "u64"
        | "i64" | "f64" | "usize" | "isize" => Scalar::Number(8),
        "__int128" | "unsigned __int128" | "long double" | "u128" | "i128" => Scalar::Number(16),
        "bool" | "_Bool" => Scalar::Bool,
        _ => return None,
    })
}

const VECTOR: &str = "vernal::PVec<";
const STRING: &str = "vernal::PString";

/// The bounds of a type's pointers, by field.
pub(super) fn bounds_of(desc: &TypeDesc) -> HashMap<usize, Bound> {
    let mut bounds = HashMap::new();
    let fields = desc.fields();
    let mut set = |offset: u64, bound: Bound| {
        let at = fields
            .iter()
            .position(|f| f.kind == FieldKind::Pointer && f.offset == offset);
        if let Some(at) = at {
            let known = bounds.entry(at).or_insert(bound);
            // A string is a vector, too.
            if bound == Bound::String {
                *known = bound;
            }
        }
    };
    let parts = fields.iter().filter(|f| f.kind == FieldKind::Part);
    let places = parts.map(|f| (f.offset, f.target.as_str()));
    for (offset, name) in std::iter::once((0, desc.name())).chain(places) {
        if name.starts_with(VECTOR) {
            set(offset, Bound::Vector);
        } else if name == STRING {
            set(offset, Bound::String);
        }
    }
    for f in fields.iter().filter(|f| f.kind == FieldKind::Pointer) {
        let member = |suffix: &str, ends: &str, distance: u64| {
            let prefix = f.name.strip_suffix(suffix)?;
            let name = format!("{prefix}{ends}");
            let at = f.offset.checked_add(distance)?;
            fields
                .iter()
                .position(|o| o.name == name && o.offset == at && o.kind == FieldKind::Pointer)
        };
        let finish = member("_M_start", "_M_finish", 8);
        let end = member("_M_start", "_M_end_of_storage", 16);
        if let (Some(finish), Some(end)) = (finish, end) {
            bounds.insert(finish, Bound::Within);
            bounds.insert(end, Bound::Within);
            let at = fields.iter().position(|o| std::ptr::eq(o, f));
            bounds.extend(at.map(|at| (at, Bound::Range)));
        }
        let chars = f.name.strip_suffix("_M_dataplus._M_p").is_some_and(|p| {
            let name = format!("{p}_M_string_length");
            fields
                .iter()
                .any(|o| o.name == name && o.offset == f.offset + 8)
        });
        if chars {
            let at = fields.iter().position(|o| std::ptr::eq(o, f));
            bounds.extend(at.map(|at| (at, Bound::Chars)));
        }
    }
    bounds
}

/// Classes of the standard library whose pointers this module can check.
const TRUSTED: &[&str] = &[
    "std::vector<",
    "std::basic_string<char",
    "std::pair<",
    "std::tuple<",
    "std::array<",
    "std::unique_ptr<",
    "std::optional<",
    "std::allocator<",
    "std::default_delete<",
];

/// Why objects of a type are not taken from a peer at all: the field and the cause.
pub(super) fn distrusted(desc: &TypeDesc) -> Option<(String, String)> {
    let bound = desc
        .fields()
        .iter()
        .find(|f| matches!(f.kind, FieldKind::Function | FieldKind::Vtable));
    if let Some(f) = bound {
        let cause = "it is the address of code, which means something else in another process";
        return Some((f.name.clone(), cause.to_owned()));
    }
    // Without pointers nothing hangs together.
    if !desc.fields().iter().any(|f| f.kind.is_address()) {
        return None;
    }
    let parts = desc.fields().iter().filter(|f| f.kind == FieldKind::Part);
    let parts = parts.map(|f| (f.name.as_str(), f.target.as_str()));
    for (field, name) in std::iter::once(("", desc.name())).chain(parts) {
        let plain = name.replace("std::__cxx11::", "std::");
        let inner = plain.starts_with("std::_") && !field.is_empty();
        let standard = plain.starts_with("std::") && !inner;
        let trusted = TRUSTED.iter().any(|t| plain.starts_with(t));
        if standard && (!trusted || plain.starts_with("std::vector<bool")) {
            let cause = format!(
                "nobody checks how the pointers inside a {name} hang together: use std::vector, or trust the peer"
            );
            return Some((field.to_owned(), cause));
        }
    }
    None
}
