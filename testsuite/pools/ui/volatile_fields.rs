//! What means nothing in another run is refused where it is declared.
use std::cell::Cell;
use std::rc::Rc;
use vernal::{Persist, PVec};

#[derive(Persist)]
#[repr(C)]
struct Volatile<'p> {
    fine: PVec<'p, u64>,
    reference: &'p u64,
    boxed: Box<u64>,
    list: Vec<u64>,
    text: String,
    shared: Rc<u64>,
    function: fn(u64) -> u64,
    pointer: *mut u64,
    cell: Cell<u64>,
    object: Option<Box<dyn Send>>,
    tuple: (u64, u64),
}

fn main() {}
