//! What one step of an examination works on: objects to do, where the checked bytes are, why it ends.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;

use super::decided::Spot;
use super::known::Known;
use super::outcome::{GraphError, GraphTarget, Placed};
use super::shape::{Rule, fault_of};
use crate::walk::Fault;
use crate::walk::inspect::read_uint;
use vernal_format::types::TypeDesc;

/// An object that is known and not yet examined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Todo {
    pub addr: u64,
    pub size: u64,
    /// Bytes that are in use, the whole of them or the elements that a length counts.
    pub used: u64,
    /// A length counts them: none is spare.
    pub counted: bool,
    pub slot: u32,
    pub copy: Placed,
}

/// An object whose bound is checked: where its bytes are now.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub spot: Spot,
    pub copy: Placed,
}

/// Why the examination ends. Boxed, because nearly all results are none.
pub(super) enum Stop<E> {
    Fault(Box<Fault>),
    Error(Box<GraphError<E>>),
}

impl<E> From<Box<Fault>> for Stop<E> {
    fn from(fault: Box<Fault>) -> Self {
        Stop::Fault(fault)
    }
}

impl<E> From<Fault> for Stop<E> {
    #[cold]
    fn from(fault: Fault) -> Self {
        Stop::Fault(Box::new(fault))
    }
}

/// Where the checked bytes are.
pub(super) trait Sink {
    type Error;
    const COPIES: bool;
    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Self::Error>;
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]>;
}

/// The bytes stay where they are.
pub(super) struct InPlace;

impl Sink for InPlace {
    type Error = Infallible;
    const COPIES: bool = false;
    fn place(&mut self, _: u64, _: u64, _: Option<&TypeDesc>) -> Result<Placed, Infallible> {
        Ok(Placed::default())
    }
    fn words(&self, _: Placed, _: usize) -> Option<&[AtomicU64]> {
        None
    }
}

pub(super) struct Copies<'a, T>(pub &'a mut T);

impl<T: GraphTarget> Sink for Copies<'_, T> {
    type Error = T::Error;
    const COPIES: bool = true;
    #[inline(always)]
    fn place(&mut self, size: u64, align: u64, ty: Option<&TypeDesc>) -> Result<Placed, T::Error> {
        self.0.place(size, align, ty)
    }
    #[inline(always)]
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.0.words(at, count)
    }
}

/// The first value among these elements that is none: its place and what is wrong. `spare`: what is zero behind the first
/// element may not be in use.
pub(super) fn wrong_value(
    ty: &Known,
    words: &[AtomicU64],
    size: u64,
    elements: std::ops::Range<u64>,
    spare: bool,
) -> Option<(u64, Fault)> {
    for element in elements {
        for v in &ty.values {
            let base = element * ty.desc.size() + v.offset;
            let count = match v.flex {
                false => v.count,
                true => match size.checked_sub(base + u64::from(v.size)) {
                    Some(rest) => rest / v.stride.max(1) + 1,
                    None => 0,
                },
            };
            for i in 0..count {
                let at = base + i * v.stride;
                let raw = read_uint(words, at, v.size);
                let unused = spare && raw == 0 && (element > 0 || v.flex);
                if !unused && !v.takes(raw) {
                    let field = ty.desc.fields().get(v.field as usize)?;
                    return Some((at, fault_of(field, raw)));
                }
            }
        }
    }
    None
}

#[cold]
pub(super) fn null<E>(rule: &Rule) -> Stop<E> {
    Stop::from(Fault::Null {
        expected: rule.name.clone(),
    })
}

#[cold]
pub(super) fn unmapped<E>(value: u64) -> Stop<E> {
    Stop::from(Fault::Outside { value })
}

#[cold]
pub(super) fn inside(ranges: &[(u64, u64)], spot: &Spot) -> Result<(), Fault> {
    let at = ranges.partition_point(|r| r.0 <= spot.addr);
    let range = at.checked_sub(1).and_then(|at| ranges.get(at));
    match range {
        Some(r) if spot.addr.saturating_add(spot.size) <= r.1 => Ok(()),
        _ => Err(Fault::NotSealed {
            value: spot.addr,
            size: spot.size,
        }),
    }
}

#[cold]
pub(super) fn named<E>(todo: &Todo, ty: &Known, word: usize, stop: Stop<E>) -> Box<GraphError<E>> {
    match stop {
        Stop::Error(e) => e,
        Stop::Fault(fault) => {
            let at = word as u64 * 8;
            let place = crate::walk::path::place_name(Some(&ty.desc), at);
            Box::new(GraphError::Fault {
                place: format!("{}.{place}", ty.desc.name()),
                addr: todo.addr.saturating_add(at),
                fault: *fault,
            })
        }
    }
}
