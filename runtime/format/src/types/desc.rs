//! A parsed descriptor, and the parser that every descriptor from a pool or an archive passes once.

use super::check::check_fields;
use super::error::TypeError;
use super::text::type_id_of;
use super::{
    MAX_TYPE_ALIGN, MAX_TYPE_FIELDS, MAX_TYPE_LEN, MAX_TYPE_SIZE, TYPE_FIELD_LEN, TYPE_HEADER_LEN,
    TYPE_MAGIC, TYPE_VERSION, field_flags, type_flags,
};

/// What a leaf field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FieldKind {
    /// An 8-byte pointer to data. `aux`: id of the target's type, 0 when not known.
    Pointer = 1,
    /// An 8-byte pointer to code.
    Function = 2,
    /// An 8-byte pointer to a vtable. `aux`: which of the process's address points it is.
    Vtable = 3,
    /// An integer, or bit fields.
    Integer = 4,
    /// A floating point number.
    Float = 5,
    /// A byte that is 0 or 1.
    Bool = 6,
    /// An integer that lies in a range. `aux`: low half the least value, high half the greatest, both signed.
    Enum = 7,
    /// Bytes without meaning: characters, padding that counts, annotated unions.
    Bytes = 8,
    /// Something that may hide pointers. The target name says why; objects of such types are not allocated.
    Refused = 9,
    /// Not data: a nested struct, base or member of class type lies here; the target name is that type. Pointers to it
    /// are checked against this.
    Part = 11,
}

impl FieldKind {
    /// The kind of number `n`. 10 is reserved for self-relative pointers.
    pub const fn from_u16(n: u16) -> Option<FieldKind> {
        Some(match n {
            1 => FieldKind::Pointer,
            2 => FieldKind::Function,
            3 => FieldKind::Vtable,
            4 => FieldKind::Integer,
            5 => FieldKind::Float,
            6 => FieldKind::Bool,
            7 => FieldKind::Enum,
            8 => FieldKind::Bytes,
            9 => FieldKind::Refused,
            11 => FieldKind::Part,
            _ => return None,
        })
    }

    /// Whether a process writes an address here: pointers to data, code or vtables.
    pub const fn is_address(self) -> bool {
        matches!(
            self,
            FieldKind::Pointer | FieldKind::Function | FieldKind::Vtable
        )
    }

    /// The word for this kind in canonical text.
    pub const fn word(self) -> &'static str {
        match self {
            FieldKind::Pointer => "ptr",
            FieldKind::Function => "fn",
            FieldKind::Vtable => "vptr",
            FieldKind::Integer => "int",
            FieldKind::Float => "float",
            FieldKind::Bool => "bool",
            FieldKind::Enum => "enum",
            FieldKind::Bytes => "bytes",
            FieldKind::Refused => "refused",
            FieldKind::Part => "part",
        }
    }
}

/// One leaf field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// Of the first element, from the start of the object.
    pub offset: u64,
    /// What it holds.
    pub kind: FieldKind,
    /// Bytes of one element.
    pub elem_size: u32,
    /// Elements; 1 for a flexible field, which repeats as far as the object reaches.
    pub count: u32,
    /// Bytes from one element to the next; `elem_size` when there is one.
    pub stride: u32,
    /// [`field_flags`].
    pub flags: u16,
    /// Name of the type that a pointer points to, of an enum, of a part; the cause of a refusal.
    pub target: String,
    /// By kind: see [`FieldKind`].
    pub aux: u64,
    /// Path from the object: `next`, `base::x`, `slot[].key`.
    pub name: String,
}

impl Field {
    /// Whether it repeats to the end of the object.
    pub const fn is_flex(&self) -> bool {
        self.flags & field_flags::FLEX != 0
    }

    /// Least and greatest value of an enum.
    pub const fn enum_range(&self) -> (i32, i32) {
        (self.aux as u32 as i32, (self.aux >> 32) as u32 as i32)
    }

    /// `aux` of an enum with this range.
    pub const fn enum_aux(min: i32, max: i32) -> u64 {
        (min as u32 as u64) | ((max as u32 as u64) << 32)
    }

    /// One past its last byte in the fixed part; `None` on overflow. A flexible field ends after its first element.
    pub fn end(&self) -> Option<u64> {
        u64::from(self.count.checked_sub(1)?)
            .checked_mul(u64::from(self.stride))?
            .checked_add(u64::from(self.elem_size))?
            .checked_add(self.offset)
    }

    /// The path of element `index`: `slot[].key` becomes `slot[3].key`.
    pub fn element_name(&self, index: u64) -> String {
        if self.name.contains("[]") {
            self.name.replacen("[]", &format!("[{index}]"), 1)
        } else if self.count > 1 || self.is_flex() {
            format!("{}[{index}]", self.name)
        } else {
            self.name.clone()
        }
    }

    /// What identity and order look at. Names of fields are not part of it, nor is an id that only helps a lookup.
    pub(super) fn key(&self) -> (u64, FieldKind, u32, u32, u32, u16, &str) {
        let flex = self.flags & field_flags::FLEX;
        (
            self.offset,
            self.kind,
            self.elem_size,
            self.count,
            self.stride,
            flex,
            &self.target,
        )
    }
}

/// Orders fields as a descriptor holds them.
pub(super) fn sort_fields(fields: &mut [Field]) {
    fields.sort_by(|a, b| {
        a.key()
            .cmp(&b.key())
            .then_with(|| (a.aux, &a.name).cmp(&(b.aux, &b.name)))
    });
}

/// A descriptor that has been validated: sorted, in bounds, aligned, without addresses that overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeDesc {
    blob: Vec<u8>,
    id: u64,
    flags: u16,
    size: u64,
    align: u32,
    name: String,
    fields: Vec<Field>,
}

impl TypeDesc {
    /// Reads a descriptor. Accepts any bytes; the result obeys every rule of `docs/format.md`.
    pub fn parse(blob: &[u8]) -> Result<TypeDesc, TypeError> {
        let short = TypeError::Length {
            len: blob.len(),
            needed: TYPE_HEADER_LEN as u64,
        };
        if blob.len() > MAX_TYPE_LEN {
            return Err(TypeError::Length {
                len: blob.len(),
                needed: MAX_TYPE_LEN as u64,
            });
        }
        let header = blob.get(..TYPE_HEADER_LEN).ok_or(short.clone())?;
        let r = Reader(header);
        if r.u32(0) != TYPE_MAGIC {
            return Err(TypeError::Magic { found: r.u32(0) });
        }
        if r.u16(4) != TYPE_VERSION {
            return Err(TypeError::Version { found: r.u16(4) });
        }
        let total = r.u32(44);
        if total as usize != blob.len() || !total.is_multiple_of(8) {
            return Err(TypeError::Length {
                len: blob.len(),
                needed: u64::from(total),
            });
        }
        let mut strings = Strings::new(blob, r.u32(40));
        let name = strings.get(r.u32(32), r.u32(36))?;
        let bad = |what, value| {
            Err(TypeError::Header {
                name: name.clone(),
                what,
                value,
            })
        };
        if name.is_empty() {
            return bad("the length of the name", 0);
        }
        let (flags, id, size, align, count) = (r.u16(6), r.u64(8), r.u64(16), r.u32(24), r.u32(28));
        if !align.is_power_of_two() || align > MAX_TYPE_ALIGN {
            return bad("the alignment", align.into());
        }
        if size > MAX_TYPE_SIZE || !size.is_multiple_of(align.into()) {
            return bad("the size", size);
        }
        if count as usize > MAX_TYPE_FIELDS {
            return bad("the number of fields", count.into());
        }
        if u64::from(r.u32(40)) != (TYPE_HEADER_LEN + count as usize * TYPE_FIELD_LEN) as u64 {
            return bad("the offset of the strings", r.u32(40).into());
        }
        let mut fields = Vec::with_capacity(count as usize);
        for index in 0..count as usize {
            let at = TYPE_HEADER_LEN + index * TYPE_FIELD_LEN;
            let bytes = blob.get(at..at + TYPE_FIELD_LEN).ok_or(short.clone())?;
            fields.push(read_field(&name, bytes, &mut strings)?);
        }
        strings.padding()?;
        let desc = TypeDesc {
            blob: blob.to_vec(),
            id,
            flags,
            size,
            align,
            name,
            fields,
        };
        desc.check()?;
        Ok(desc)
    }

    /// Every rule about how fields, size, flags and id fit together.
    fn check(&self) -> Result<(), TypeError> {
        check_fields(&self.name, self.size, self.align, &self.fields)?;
        let flags = derived_flags(&self.fields);
        if flags != self.flags {
            return Err(TypeError::Header {
                name: self.name.clone(),
                what: "the flags word",
                value: self.flags.into(),
            });
        }
        let computed = type_id_of(&self.name, self.size, self.align, &self.fields);
        if computed != self.id {
            return Err(TypeError::Id {
                name: self.name.clone(),
                found: self.id,
                computed,
            });
        }
        Ok(())
    }

    /// The bytes that it was parsed from.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Hash of name and layout.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// [`type_flags`].
    pub const fn flags(&self) -> u16 {
        self.flags
    }

    /// Bytes of one object, without a flexible tail.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Alignment of an object.
    pub const fn align(&self) -> u32 {
        self.align
    }

    /// The type's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All leaf fields, by offset.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether some field points to a vtable.
    pub const fn is_polymorphic(&self) -> bool {
        self.flags & type_flags::POLYMORPHIC != 0
    }

    /// Whether it ends in a flexible array.
    pub const fn is_flexible(&self) -> bool {
        self.flags & type_flags::FLEXIBLE != 0
    }

    /// Whether it holds no pointers.
    pub const fn is_opaque(&self) -> bool {
        self.flags & type_flags::OPAQUE != 0
    }

    /// The first field that keeps this type out of pools, if there is one.
    pub fn refused(&self) -> Option<&Field> {
        self.fields.iter().find(|f| f.kind == FieldKind::Refused)
    }

    /// Elements of this type in an object of `bytes` bytes: a flexible type has one.
    pub fn elements_in(&self, bytes: u64) -> u64 {
        if self.is_flexible() || self.size == 0 {
            u64::from(bytes >= self.size)
        } else {
            bytes / self.size
        }
    }
}

/// The flags that follow from the fields.
pub(super) fn derived_flags(fields: &[Field]) -> u16 {
    let any = |kind| fields.iter().any(|f| f.kind == kind);
    let mut flags = 0;
    if any(FieldKind::Vtable) {
        flags |= type_flags::POLYMORPHIC;
    }
    if fields.iter().any(Field::is_flex) {
        flags |= type_flags::FLEXIBLE;
    }
    if any(FieldKind::Refused) {
        flags |= type_flags::REFUSED;
    } else if !fields.iter().any(|f| f.kind.is_address()) {
        flags |= type_flags::OPAQUE;
    }
    flags
}

/// Reads one entry of the field table.
fn read_field(name: &str, bytes: &[u8], strings: &mut Strings) -> Result<Field, TypeError> {
    let r = Reader(bytes);
    let field = strings.get(r.u32(32), r.u32(36))?;
    let Some(kind) = FieldKind::from_u16(r.u16(8)) else {
        return Err(TypeError::Field {
            name: name.to_string(),
            field,
            what: "is of an unknown kind",
        });
    };
    Ok(Field {
        offset: r.u64(0),
        kind,
        flags: r.u16(10),
        elem_size: r.u32(12),
        count: r.u32(16),
        stride: r.u32(20),
        aux: r.u64(24),
        name: field,
        target: strings.get(r.u32(40), r.u32(44))?,
    })
}

/// Little-endian numbers at offsets; 0 outside, which callers have excluded.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..).and_then(|b| b.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

/// The strings of a descriptor, and how far they are used.
struct Strings<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Strings<'a> {
    fn new(blob: &'a [u8], offset: u32) -> Strings<'a> {
        Strings {
            bytes: blob.get(offset as usize..).unwrap_or(&[]),
            used: 0,
        }
    }

    fn get(&mut self, offset: u32, len: u32) -> Result<String, TypeError> {
        let bad = |what| TypeError::Text { offset, len, what };
        let start = offset as usize;
        let end = start.checked_add(len as usize).ok_or(bad("too long"))?;
        let bytes = self.bytes.get(start..end).ok_or(bad("outside"))?;
        let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
        // Names reach terminals and pages: nothing in them may move a cursor.
        if text.chars().any(char::is_control) {
            return Err(bad("not printable"));
        }
        self.used = self.used.max(end);
        Ok(text.to_string())
    }

    /// After the last string come fewer than 8 bytes, all zero.
    fn padding(&self) -> Result<(), TypeError> {
        let rest = self.bytes.get(self.used..).unwrap_or(&[]);
        if rest.len() >= 8 || rest.iter().any(|b| *b != 0) {
            return Err(TypeError::Text {
                offset: self.used as u32,
                len: rest.len() as u32,
                what: "not padding",
            });
        }
        Ok(())
    }
}
