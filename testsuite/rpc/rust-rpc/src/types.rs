//! What server and clients agree on.

use std::sync::atomic::{AtomicU64, Ordering};

use vernal::{PBox, PString, PVec, Persist, Ptr};
use vernal_rpc::{Method, StreamMethod};

/// Values with gaps between them, in a byte and in a word.
#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
pub enum Kind {
    Leaf = 1,
    Inner = 3,
    Other = 200,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(i64)]
pub enum Wide {
    Low = -(1 << 40),
    High = 1 << 40,
}

#[derive(Persist)]
#[repr(C)]
pub struct Leaf<'p> {
    pub text: PString<'p>,
    pub kind: Kind,
}

/// Everything that a value can be made of.
#[derive(Persist)]
#[repr(C)]
pub struct Tree<'p> {
    pub name: PString<'p>,
    pub kinds: [Kind; 3],
    pub is_root: bool,
    pub letter: char,
    pub wide: Wide,
    pub boxed: PBox<'p, Leaf<'p>>,
    pub maybe: Option<PBox<'p, Tree<'p>>>,
    pub children: PVec<'p, Tree<'p>>,
    pub pair: [PString<'p>; 2],
    pub rows: [Leaf<'p>; 2],
    pub numbers: PVec<'p, u64>,
    pub letters: PVec<'p, char>,
    pub flags: PVec<'p, bool>,
    pub boxed_letter: PBox<'p, char>,
    pub boxed_flag: PBox<'p, bool>,
    pub boxed_row: PBox<'p, [u32; 4]>,
    pub boxes: PVec<'p, PBox<'p, Leaf<'p>>>,
    pub back: Option<Ptr<'p, Leaf<'p>>>,
}

/// Bytes, and not all of them are values.
#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Plain {
    pub number: u32,
    pub letter: char,
    pub kind: Kind,
    pub flag: bool,
    pub rest: [u8; 6],
}

/// The same bytes, and all of them are.
pub type PlainBytes = [u8; 16];

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Who {
    pub uid: u32,
    pub pid: u32,
}

/// Plain, but too large for a message.
#[derive(Persist, Clone, Copy)]
#[repr(C)]
pub struct Large {
    pub numbers: [u64; 1000],
}

/// Plain, with padding.
#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Padded {
    pub small: u8,
    pub large: u64,
}

/// Counts its ends.
#[derive(Persist)]
#[repr(C)]
pub struct Counted<'p> {
    pub text: PString<'p>,
}

/// As `programs/sums.cpp` has it.
#[derive(Persist)]
#[repr(C)]
#[persist(name = "node")]
pub struct Node<'p> {
    pub next: Option<PBox<'p, Node<'p>>>,
    pub value: u64,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
#[persist(name = "total")]
pub struct Total {
    pub sum: u64,
    pub count: u64,
}

pub static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

pub const ECHO: Method<Tree, Tree> = Method::new(1);
pub const PLAIN: Method<Plain, Plain> = Method::new(2);
pub const PLAIN_BYTES: Method<PlainBytes, PlainBytes> = Method::new(2);
pub const PLAIN_SHORT: Method<u32, Plain> = Method::new(2);
pub const HANG: Method<u64, ()> = Method::new(3);
/// How many calls with this argument have hung, and how many of them were cancelled.
pub const HANGING: Method<u64, [u64; 2]> = Method::new(4);
pub const FAIL: Method<u32, ()> = Method::new(5);
pub const DIE: Method<(), ()> = Method::new(6);
pub const WHO: Method<(), Who> = Method::new(7);
pub const COUNT: StreamMethod<u64, u64> = StreamMethod::new(8);
pub const TEXTS: StreamMethod<u64, Leaf> = StreamMethod::new(9);
pub const TABLE: Method<(), Leaf> = Method::new(10);
pub const COUNTED: Method<(), Counted> = Method::new(11);
pub const DROPS: Method<(), u64> = Method::new(12);
pub const LARGE: Method<Large, Large> = Method::new(13);
pub const PADDED: Method<Padded, Padded> = Method::new(14);
pub const OBJECT: Method<Plain, Plain> = Method::of_objects(15);
pub const FLAG_AS_BYTE: Method<u8, u8> = Method::new(16);
pub const FLAG: Method<u8, bool> = Method::new(16);
pub const LEAF_AS_TREE: Method<(), Tree> = Method::new(10);
pub const SUM: Method<Node, Total> = Method::of_objects(20);
pub const NONE: Method<(), ()> = Method::new(99);
pub const STOP: Method<(), ()> = Method::new(100);
