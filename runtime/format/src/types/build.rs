//! Building descriptors.

use super::check::check_fields;
use super::desc::{Field, FieldKind, TypeDesc, derived_flags, sort_fields};
use super::error::TypeError;
use super::shape::{Leaf, Member, Shape, TooMany, flatten, refuse_unaligned};
use super::text::type_id_of;
use super::{
    MAX_TYPE_FIELDS, MAX_TYPE_LEN, TYPE_FIELD_LEN, TYPE_HEADER_LEN, TYPE_MAGIC, TYPE_VERSION,
    refusal,
};
use std::collections::HashMap;
use thiserror::Error;

/// Why no descriptor can be built.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// What was given contradicts the rules; this is a bug of the compiler that gave it.
    #[error(transparent)]
    Rule(#[from] TypeError),
    /// Names of more than [`MAX_TYPE_LEN`] bytes.
    #[error(
        "type `{name}`: its descriptor would have {len} bytes, more than {MAX_TYPE_LEN}; shorten its names"
    )]
    TooLong {
        /// The type, shortened.
        name: String,
        /// Bytes it would have.
        len: usize,
    },
}

/// Builds the descriptor of one type.
///
/// ```
/// use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
///
/// let next = Shape::Pointer { target: "node".into(), target_id: 0 };
/// let blob = TypeBuilder::new("node", 16, 8)
///     .member("next", 0, next)
///     .member("value", 8, Shape::Integer(8))
///     .build()?;
/// let node = TypeDesc::parse(&blob)?;
/// assert_eq!(vernal_format::types::canonical_text(&node), "node{16,8;0:ptr:8*1/8:node;8:int:8*1/8:;}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TypeBuilder {
    name: String,
    size: u64,
    align: u32,
    members: Vec<Member>,
}

impl TypeBuilder {
    /// A type of `size` bytes, a multiple of `align`.
    pub fn new(name: &str, size: u64, align: u32) -> TypeBuilder {
        TypeBuilder {
            name: name.to_string(),
            size,
            align,
            members: Vec::new(),
        }
    }

    /// The type that `shape` describes: the members of a struct, or one value without a name of its own.
    pub fn of(name: &str, size: u64, align: u32, shape: Shape) -> TypeBuilder {
        let mut builder = TypeBuilder::new(name, size, align);
        match shape {
            Shape::Record { members, .. } => builder.members = members,
            other => builder.members.push(Member::new("*", 0, other)),
        }
        builder
    }

    /// Adds a member.
    pub fn member(self, name: &str, offset: u64, shape: Shape) -> TypeBuilder {
        self.push(Member::new(name, offset, shape))
    }

    /// Adds a base class: its fields are called `name::field`.
    pub fn base(self, name: &str, offset: u64, shape: Shape) -> TypeBuilder {
        self.push(Member {
            base: true,
            ..Member::new(name, offset, shape)
        })
    }

    /// Adds a member whose shape the program's annotation chose.
    pub fn annotated(self, name: &str, offset: u64, shape: Shape) -> TypeBuilder {
        self.push(Member {
            annotated: true,
            ..Member::new(name, offset, shape)
        })
    }

    /// Adds a member or a base.
    pub fn push(mut self, member: Member) -> TypeBuilder {
        self.members.push(member);
        self
    }

    /// The descriptor. Pointers that are not aligned, and types with too many fields, become refused fields: the
    /// program compiles, and allocating such a type in a pool is an error that names the field.
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        let mut fields = self.fields();
        sort_fields(&mut fields);
        // The same bytes described twice in the same way: members of an annotated union, bit fields of one integer.
        fields.dedup_by(|b, a| {
            let same = (a.offset, a.kind, a.elem_size, a.count, a.stride)
                == (b.offset, b.kind, b.elem_size, b.count, b.stride);
            same && matches!(
                a.kind,
                FieldKind::Integer | FieldKind::Bytes | FieldKind::Float | FieldKind::Refused
            ) && a.target == b.target
        });
        let vtables = fields.iter_mut().filter(|f| f.kind == FieldKind::Vtable);
        for (index, field) in vtables.enumerate() {
            field.aux = index as u64;
        }
        check_fields(&self.name, self.size, self.align, &fields)?;
        let blob = encode(&self.name, self.size, self.align, &fields)?;
        // What leaves here is what every reader accepts.
        TypeDesc::parse(&blob)?;
        Ok(blob)
    }

    fn fields(&self) -> Vec<Field> {
        let shape = Shape::Record {
            name: String::new(),
            size: self.size,
            members: self.members.clone(),
        };
        let leaves = flatten(&shape, 0).unwrap_or_else(|TooMany| vec![self.too_many()]);
        let fields: Option<Vec<Field>> = leaves
            .into_iter()
            .map(|mut leaf| {
                refuse_unaligned(&mut leaf, self.align);
                leaf.field()
            })
            .collect();
        match fields {
            Some(fields) if fields.len() <= MAX_TYPE_FIELDS => fields,
            _ => self.too_many().field().into_iter().collect(),
        }
    }

    /// The one field of a type that has too many.
    fn too_many(&self) -> Leaf {
        let size = self.size.min(u32::MAX.into());
        Leaf {
            offset: 0,
            kind: FieldKind::Refused,
            size,
            count: 1,
            stride: size,
            flags: 0,
            aux: 0,
            name: "*".to_string(),
            target: refusal::TOO_MANY_FIELDS.to_string(),
        }
    }
}

/// The strings behind the fields; each text is there once.
#[derive(Default)]
struct Pool {
    bytes: Vec<u8>,
    places: HashMap<String, usize>,
}

impl Pool {
    fn place(&mut self, text: &str) -> (usize, usize) {
        let at = *self.places.entry(text.to_string()).or_insert_with(|| {
            let at = self.bytes.len();
            self.bytes.extend_from_slice(text.as_bytes());
            at
        });
        (at, text.len())
    }
}

fn encode(name: &str, size: u64, align: u32, fields: &[Field]) -> Result<Vec<u8>, BuildError> {
    let mut pool = Pool::default();
    let name_place = pool.place(name);
    let places: Vec<_> = fields
        .iter()
        .map(|f| (pool.place(&f.name), pool.place(&f.target)))
        .collect();
    let strings = TYPE_HEADER_LEN + fields.len() * TYPE_FIELD_LEN;
    let total = (strings + pool.bytes.len()).next_multiple_of(8);
    if total > MAX_TYPE_LEN {
        return Err(BuildError::TooLong {
            name: name.chars().take(80).collect(),
            len: total,
        });
    }
    // From here on every length fits its 32 bits.
    let mut blob = Vec::with_capacity(total);
    let word = |blob: &mut Vec<u8>, n: usize| blob.extend_from_slice(&(n as u32).to_le_bytes());
    word(&mut blob, TYPE_MAGIC as usize);
    blob.extend_from_slice(&TYPE_VERSION.to_le_bytes());
    blob.extend_from_slice(&derived_flags(fields).to_le_bytes());
    blob.extend_from_slice(&type_id_of(name, size, align, fields).to_le_bytes());
    blob.extend_from_slice(&size.to_le_bytes());
    word(&mut blob, align as usize);
    word(&mut blob, fields.len());
    word(&mut blob, name_place.0);
    word(&mut blob, name_place.1);
    word(&mut blob, strings);
    word(&mut blob, total);
    for (f, (name, target)) in fields.iter().zip(&places) {
        blob.extend_from_slice(&f.offset.to_le_bytes());
        blob.extend_from_slice(&(f.kind as u16).to_le_bytes());
        blob.extend_from_slice(&f.flags.to_le_bytes());
        word(&mut blob, f.elem_size as usize);
        word(&mut blob, f.count as usize);
        word(&mut blob, f.stride as usize);
        blob.extend_from_slice(&f.aux.to_le_bytes());
        for n in [name.0, name.1, target.0, target.1] {
            word(&mut blob, n);
        }
    }
    blob.extend_from_slice(&pool.bytes);
    blob.resize(total, 0);
    Ok(blob)
}
