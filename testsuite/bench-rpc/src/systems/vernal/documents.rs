//! Documents as native pointers in a heap: values point to the arrays of their parts and to text, which lies together in one
//! block for each document.

use super::heap::Types;
use crate::cooldb::{Kind, Reader, Step, Value};
use crate::systems::fail;
use crate::{Failure, Result};
use std::mem::{offset_of, size_of};
use std::ops::Deref;
use vernal_format::types::{Member, Shape, TypeBuilder};
use vernal_pool::Pool;

/// The name of [`Node`]'s type.
const VALUE: &str = "cooldb::Value";
/// The name of [`Document`]'s type.
pub const DOCUMENT: &str = "cooldb::Document";

/// A vector as the pools' own: whoever verifies a graph checks that `len` elements lie there.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vector<T> {
    at: *const T,
    len: u64,
    capacity: u64,
}

impl<T> Vector<T> {
    const NONE: Self = Self {
        at: std::ptr::null(),
        len: 0,
        capacity: 0,
    };

    fn new(addr: u64, len: usize) -> Self {
        Self {
            at: addr as *const T,
            len: len as u64,
            capacity: len as u64,
        }
    }

    fn as_slice(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the vectors of a document were checked when it was taken in, or made by this process.
        unsafe { std::slice::from_raw_parts(self.at, self.len as usize) }
    }
}

/// A JSON value, with its name if it is a member of an object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Node {
    kind: u32,
    name_len: u32,
    /// The number, or the bytes of the text.
    number: u64,
    name: *const u8,
    text: *const u8,
    items: Vector<Node>,
}

/// A whole document.
#[repr(C)]
struct Document {
    root: Node,
    /// All names and strings.
    text: Vector<u8>,
}

const NULL: u32 = 0;
const FALSE: u32 = 1;
const TRUE: u32 = 2;
const INT: u32 = 3;
const REAL: u32 = 4;
const TEXT: u32 = 5;
const ARRAY: u32 = 6;
const OBJECT: u32 = 7;

fn vector_shape(element: &str) -> Shape {
    Shape::Record {
        name: format!("vernal::PVec<{element}>"),
        size: size_of::<Vector<u8>>() as u64,
        members: vec![
            Member::new("at", 0, pointer_shape(element)),
            Member::new("len", 8, Shape::Integer(8)),
            Member::new("capacity", 16, Shape::Integer(8)),
        ],
    }
}

fn pointer_shape(target: &str) -> Shape {
    Shape::Pointer {
        target: target.to_owned(),
        target_id: 0,
    }
}

fn members() -> Vec<Member> {
    let kind = Shape::Enum {
        name: "cooldb::Kind".to_owned(),
        size: 4,
        min: NULL as i32,
        max: OBJECT as i32,
    };
    vec![
        Member::new("kind", offset_of!(Node, kind) as u64, kind),
        Member::new(
            "name_len",
            offset_of!(Node, name_len) as u64,
            Shape::Integer(4),
        ),
        Member::new("number", offset_of!(Node, number) as u64, Shape::Integer(8)),
        Member::new("name", offset_of!(Node, name) as u64, pointer_shape("u8")),
        Member::new("text", offset_of!(Node, text) as u64, pointer_shape("u8")),
        Member::new("items", offset_of!(Node, items) as u64, vector_shape(VALUE)),
    ]
}

/// The type of [`Node`].
pub fn value_type() -> TypeBuilder {
    let builder = TypeBuilder::new(VALUE, size_of::<Node>() as u64, 8);
    members().into_iter().fold(builder, TypeBuilder::push)
}

/// The type of [`Document`].
pub fn document_type() -> TypeBuilder {
    let root = Shape::Record {
        name: VALUE.to_owned(),
        size: size_of::<Node>() as u64,
        members: members(),
    };
    TypeBuilder::new(DOCUMENT, size_of::<Document>() as u64, 8)
        .member("root", offset_of!(Document, root) as u64, root)
        .member(
            "text",
            offset_of!(Document, text) as u64,
            vector_shape("u8"),
        )
}

impl Value for Node {
    fn kind(&self) -> Kind<'_> {
        match self.kind {
            FALSE => Kind::Bool(false),
            TRUE => Kind::Bool(true),
            INT => Kind::Int(self.number as i64),
            REAL => Kind::Real(f64::from_bits(self.number)),
            // SAFETY: text lies in the document's block, which was checked when the document was taken in or made.
            TEXT => Kind::Text(unsafe { bytes(self.text, self.number as usize) }),
            ARRAY => Kind::Array,
            OBJECT => Kind::Object,
            _ => Kind::Null,
        }
    }

    fn items(&self) -> impl Iterator<Item = &Self> {
        let items = if self.kind == ARRAY {
            self.items.as_slice()
        } else {
            &[]
        };
        items.iter()
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &Self)> {
        let items = if self.kind == OBJECT {
            self.items.as_slice()
        } else {
            &[]
        };
        // SAFETY: as text.
        items
            .iter()
            .map(|item| (unsafe { bytes(item.name, item.name_len as usize) }, item))
    }
}

/// Text of a document.
///
/// # Safety
///
/// `at` is `len` bytes of a document's text, or `len` is 0.
unsafe fn bytes<'a>(at: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(at, len) }
}

/// A document that lasts.
#[derive(Clone, Copy)]
pub struct Doc(*const Document);

// SAFETY: documents do not change, and are never freed once they are kept.
unsafe impl Send for Doc {}

impl Deref for Doc {
    type Target = Node;

    fn deref(&self) -> &Node {
        // SAFETY: made from the address of a document.
        unsafe { &(*self.0).root }
    }
}

impl Doc {
    /// The document at `addr`.
    ///
    /// # Safety
    ///
    /// A document lies there, as its type says, for as long as the result is used.
    pub unsafe fn at(addr: u64) -> Self {
        Self(addr as *const Document)
    }

    /// A copy in `pool`. What the type does not say is checked here: that text lies in the document's own block.
    pub fn keep(&self, pool: &Pool, types: &Types) -> Result<Self> {
        // SAFETY: as for `deref`.
        let from = unsafe { &*self.0 };
        let text = from.text.as_slice();
        let block = match text.len() {
            0 => 0,
            len => {
                let addr = pool.alloc_bytes(len as u64).map_err(fail("alloc"))?;
                // SAFETY: a new object of this size.
                unsafe {
                    std::ptr::copy_nonoverlapping(text.as_ptr(), addr as *mut u8, len);
                }
                addr
            }
        };
        let moved = Moved {
            from: text.as_ptr() as u64,
            len: text.len() as u64,
            to: block,
        };
        let root = moved.node(&from.root, pool, types, 0)?;
        let addr = types.document.alloc(pool, size_of::<Document>())?;
        // SAFETY: a new object of the type.
        unsafe {
            (addr as *mut Document).write(Document {
                root,
                text: Vector::new(block, text.len()),
            });
            Ok(Self::at(addr))
        }
    }
}

/// The deepest nesting that is taken.
const DEEPEST: u32 = 64;

/// Where the text of a document has gone.
struct Moved {
    from: u64,
    len: u64,
    to: u64,
}

impl Moved {
    fn text(&self, at: *const u8, len: u64) -> Result<*const u8> {
        let offset = (at as u64).wrapping_sub(self.from);
        if offset > self.len || len > self.len - offset {
            return Err(Failure("text outside of the document".to_owned()));
        }
        Ok((self.to + offset) as *const u8)
    }

    fn node(&self, from: &Node, pool: &Pool, types: &Types, depth: u32) -> Result<Node> {
        if depth > DEEPEST {
            return Err(Failure(format!("more than {DEEPEST} levels")));
        }
        let mut node = *from;
        if from.name_len > 0 {
            node.name = self.text(from.name, from.name_len.into())?;
        }
        match from.kind {
            TEXT if from.number > 0 => node.text = self.text(from.text, from.number)?,
            ARRAY | OBJECT if from.items.len > 0 => {
                let items = from.items.as_slice();
                let addr = types.value.alloc(pool, size_of_val(items))?;
                for (i, item) in items.iter().enumerate() {
                    let kept = self.node(item, pool, types, depth + 1)?;
                    // SAFETY: inside the new object.
                    unsafe { (addr as *mut Node).add(i).write(kept) };
                }
                node.items = Vector::new(addr, items.len());
            }
            _ => {}
        }
        Ok(node)
    }
}

/// A document that a client has made for one call.
pub struct Outgoing {
    document: u64,
    parts: Vec<u64>,
}

impl Outgoing {
    /// Builds the encoded document in the client's heap.
    pub fn build(pool: &Pool, types: &Types, encoded: &[u8]) -> Result<Self> {
        // Text is shorter than its encoded form.
        let block = pool
            .alloc_bytes(encoded.len() as u64)
            .map_err(fail("alloc"))?;
        let mut builder = Builder {
            pool,
            types,
            block,
            used: 0,
            parts: vec![block],
        };
        let root = builder.node(&mut Reader::new(encoded), "")?;
        let text = Vector::new(block, builder.used as usize);
        let document = types.document.alloc(pool, size_of::<Document>())?;
        // SAFETY: a new object of the type.
        unsafe { (document as *mut Document).write(Document { root, text }) };
        Ok(Self {
            document,
            parts: builder.parts,
        })
    }

    /// Its address.
    pub fn addr(&self) -> u64 {
        self.document
    }

    /// Frees all of it.
    pub fn free(self, pool: &Pool) -> Result<()> {
        for addr in self.parts.into_iter().chain([self.document]) {
            pool.free(addr).map_err(fail("free"))?;
        }
        Ok(())
    }
}

struct Builder<'a> {
    pool: &'a Pool,
    types: &'a Types,
    block: u64,
    used: u64,
    parts: Vec<u64>,
}

impl Builder<'_> {
    fn text(&mut self, text: &str) -> *const u8 {
        let at = (self.block + self.used) as *mut u8;
        // SAFETY: the block has room for all text of the document.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len()) };
        self.used += text.len() as u64;
        at
    }

    fn node(&mut self, reader: &mut Reader, name: &str) -> Result<Node> {
        let mut node = Node {
            kind: NULL,
            name_len: name.len() as u32,
            number: 0,
            name: std::ptr::null(),
            text: std::ptr::null(),
            items: Vector::NONE,
        };
        if !name.is_empty() {
            node.name = self.text(name);
        }
        match reader.step()? {
            Step::Null => {}
            Step::Bool(b) => node.kind = if b { TRUE } else { FALSE },
            Step::Int(i) => (node.kind, node.number) = (INT, i as u64),
            Step::Real(r) => (node.kind, node.number) = (REAL, r.to_bits()),
            Step::Text(t) => {
                (node.kind, node.number) = (TEXT, t.len() as u64);
                if !t.is_empty() {
                    node.text = self.text(t);
                }
            }
            Step::Array(n) => {
                node.kind = ARRAY;
                node.items = self.items(n, reader, |_| Ok(""))?;
            }
            Step::Object(n) => {
                node.kind = OBJECT;
                node.items = self.items(n, reader, Reader::text)?;
            }
        }
        Ok(node)
    }

    fn items<'s>(
        &mut self,
        count: usize,
        reader: &mut Reader<'s>,
        name: impl Fn(&mut Reader<'s>) -> Result<&'s str>,
    ) -> Result<Vector<Node>> {
        if count == 0 {
            return Ok(Vector::NONE);
        }
        let addr = self
            .types
            .value
            .alloc(self.pool, count * size_of::<Node>())?;
        self.parts.push(addr);
        for i in 0..count {
            let name = name(reader)?;
            let node = self.node(reader, name)?;
            // SAFETY: inside the new object.
            unsafe { (addr as *mut Node).add(i).write(node) };
        }
        Ok(Vector::new(addr, count))
    }
}

/// The documents that a search has found: their count in bytes, and their addresses.
pub struct Found;

impl Found {
    /// Writes the addresses.
    pub fn write<'a>(to: &mut [u8], documents: impl Iterator<Item = &'a Doc>) {
        for (to, document) in to.chunks_exact_mut(8).zip(documents) {
            to.copy_from_slice(&(document.0 as u64).to_le_bytes());
        }
    }

    /// Reads them in place.
    ///
    /// # Safety
    ///
    /// `addr` is what [`Found::write`] has written behind its count, by a server that is trusted, and it and the documents stay.
    pub unsafe fn read<'a>(addr: u64) -> &'a [Doc] {
        // SAFETY: the caller's promise; a document is known by its address.
        unsafe {
            let count = *(addr as *const u64) as usize / 8;
            std::slice::from_raw_parts((addr as *const Doc).add(1), count)
        }
    }
}
