//! Objects and fields as values that people read, streamed: a page or a JSON document is written as the walk goes.

use super::graph::{Budget, Flow, View, Visitor, WalkReport, Walker};
use super::path::Trail;
use super::plan::Plans;
use crate::ObjectSpace;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_format::types::{Field, FieldKind};

/// Bytes of one value that are shown.
const SHOWN: u64 = 256;

/// The value of a leaf field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A pointer; 0 is null.
    Pointer(u64),
    /// An address of code.
    Code(u64),
    /// An integer, zero-extended: its type's sign is not known.
    Integer(u64),
    /// A number.
    Float(f64),
    /// A bool.
    Bool(bool),
    /// An enum's value.
    Enum(i64),
    /// Bytes: at most the first 256; and numbers wider than a word.
    Bytes(Vec<u8>),
}

/// One leaf field of an object.
#[derive(Debug, Clone)]
pub struct FieldValue<'a> {
    /// Path from the object: `slot[3].key`, in an array of objects `[7].slot[3].key`.
    pub name: String,
    /// Its description.
    pub field: &'a Field,
    /// From the object's first byte.
    pub offset: u64,
    /// What it holds.
    pub value: Value,
}

impl<'a> View<'a> {
    /// Calls `f` with each leaf field, element by element, until `f` returns `false`. Parts are left out: their fields
    /// follow by themselves.
    pub fn for_each_field(&self, f: &mut dyn FnMut(FieldValue<'a>) -> bool) {
        let Some(desc) = self.desc else { return };
        let elements = desc.elements_in(self.object.size);
        let array = elements > 1;
        for element in 0..elements {
            let base = element * desc.size();
            for field in desc.fields().iter().filter(|f| f.kind != FieldKind::Part) {
                for index in 0..self.count_of(field) {
                    let offset = base + field.offset + index * u64::from(field.stride);
                    let name = match (array, field.name == "*") {
                        (true, true) => format!("[{element}]"),
                        (true, false) => format!("[{element}].{}", field.element_name(index)),
                        (false, _) => field.element_name(index),
                    };
                    let value = value_at(self.words, field, offset);
                    if !f(FieldValue {
                        name,
                        field,
                        offset,
                        value,
                    }) {
                        return;
                    }
                }
            }
        }
    }

    /// Elements of a field in this object: those of a flexible one as far as the object reaches.
    pub(super) fn count_of(&self, field: &Field) -> u64 {
        if !field.is_flex() {
            return field.count.into();
        }
        let first = field.offset.saturating_add(field.elem_size.into());
        match self.object.size.checked_sub(first) {
            Some(rest) => rest / u64::from(field.stride).max(1) + 1,
            None => 0,
        }
    }
}

/// Up to 8 bytes as a number, zero-extended.
pub(super) fn read_uint(words: &[AtomicU64], offset: u64, size: u32) -> u64 {
    let mut bytes = [0; 8];
    for (i, byte) in bytes.iter_mut().enumerate().take(size as usize) {
        *byte = byte_at(words, offset + i as u64);
    }
    u64::from_le_bytes(bytes)
}

fn byte_at(words: &[AtomicU64], offset: u64) -> u8 {
    let word = usize::try_from(offset / 8).ok().and_then(|w| words.get(w));
    word.map_or(0, |w| (w.load(Ordering::Relaxed) >> (offset % 8 * 8)) as u8)
}

/// The value of an enum: signed if its range has negative values.
pub(super) fn enum_value(raw: u64, field: &Field) -> i64 {
    let shift = 64 - 8 * field.elem_size.min(8);
    if field.enum_range().0 < 0 {
        ((raw << shift) as i64) >> shift
    } else {
        // Values beyond the greatest i64 are out of every range.
        i64::try_from(raw).unwrap_or(i64::MAX)
    }
}

fn value_at(words: &[AtomicU64], field: &Field, offset: u64) -> Value {
    let size = field.elem_size;
    let raw = || read_uint(words, offset, size);
    match field.kind {
        FieldKind::Pointer => Value::Pointer(raw()),
        FieldKind::Function | FieldKind::Vtable => Value::Code(raw()),
        FieldKind::Integer if size <= 8 => Value::Integer(raw()),
        FieldKind::Float if size == 4 => Value::Float(f32::from_bits(raw() as u32).into()),
        FieldKind::Float if size == 8 => Value::Float(f64::from_bits(raw())),
        FieldKind::Bool => Value::Bool(raw() != 0),
        FieldKind::Enum => Value::Enum(enum_value(raw(), field)),
        _ => {
            let shown = u64::from(size).min(SHOWN);
            Value::Bytes((0..shown).map(|i| byte_at(words, offset + i)).collect())
        }
    }
}

struct Each<'f>(&'f mut dyn FnMut(&View<'_>, &Trail<'_>) -> Flow);

impl Visitor for Each<'_> {
    fn object(&mut self, view: &View<'_>, trail: &Trail<'_>) -> Flow {
        (self.0)(view, trail)
    }
}

/// Calls `f` with each object that can be reached from the root, nearest first, within the budget.
pub fn inspect<S: ObjectSpace + ?Sized>(
    space: &S,
    plans: &Plans,
    budget: Budget,
    f: &mut dyn FnMut(&View<'_>, &Trail<'_>) -> Flow,
) -> WalkReport {
    let mut walker = Walker::with_paths(space, plans, budget);
    match space.root() {
        Some(root) => walker.run(root, &mut Each(f)),
        None => WalkReport::default(),
    }
}
