//! The state in the pool.

use crate::{Change, digest_of};
use vernal::{Error, PBox, PString, PVec, Persist, Tx};

/// Where the heaviest part of a node's subtree last grew: an enum, so that the pool has one.
#[derive(Persist, Clone, Copy, PartialEq)]
#[repr(u8)]
pub enum Side {
    Neither,
    Left,
    Right = 9,
}

/// A binary search tree's node.
#[derive(Persist)]
#[repr(C)]
pub struct Node<'p> {
    side: Side,
    key: u64,
    text: PString<'p>,
    left: Link<'p>,
    right: Link<'p>,
}

type Link<'p> = Option<PBox<'p, Node<'p>>>;

/// A generic type, in two instances.
#[derive(Persist)]
#[repr(C)]
pub struct Counted<T> {
    changes: u32,
    items: T,
}

#[derive(Persist)]
#[repr(C)]
pub struct Root<'p> {
    pub steps: u64,
    pub tree: Link<'p>,
    pub texts: PVec<'p, PString<'p>>,
    samples: Counted<PVec<'p, f64>>,
    flags: Counted<[bool; 64]>,
}

impl Root<'_> {
    pub fn new() -> Self {
        Self {
            steps: 0,
            tree: None,
            texts: PVec::new(),
            samples: Counted {
                changes: 0,
                items: PVec::new(),
            },
            flags: Counted {
                changes: 0,
                items: [false; 64],
            },
        }
    }
}

pub fn apply<'p>(tx: &Tx<'p>, root: &mut Root<'p>, change: Change) -> Result<(), Error> {
    match change {
        Change::Insert { key, text } => insert(tx, &mut root.tree, key, &text)?,
        Change::Remove { key } => drop(remove(&mut root.tree, key)),
        Change::Push { text } => {
            let middle = root.texts.len() / 2;
            let text = tx.string(&text)?;
            root.texts.insert(tx, middle, text)?;
        }
        Change::Take { at, keep_order } => {
            if let Some(at) = index(at, root.texts.len()) {
                if keep_order {
                    drop(root.texts.remove(at));
                } else {
                    drop(root.texts.swap_remove(at));
                }
            }
        }
        Change::Rewrite { at, text } => {
            if let Some(at) = index(at, root.texts.len()) {
                let place = &mut root.texts[at];
                place.set(tx, &text)?;
                place.push_str(tx, "!")?;
            }
        }
        Change::Sample { value } => {
            let samples = &mut root.samples;
            samples.changes += 1;
            samples.items.push(tx, value)?;
            if samples.items.len() > 100 {
                samples.items.truncate(50);
                samples.items.as_mut_slice().reverse();
            }
        }
        Change::Flip { at } => {
            root.flags.changes += 1;
            let flag = &mut root.flags.items[at as usize % 64];
            *flag = !*flag;
        }
    }
    Ok(())
}

/// An element of a vector of `len`, if it has any.
fn index(at: u64, len: usize) -> Option<usize> {
    (at as usize).checked_rem(len)
}

fn insert<'p>(tx: &Tx<'p>, mut link: &mut Link<'p>, key: u64, text: &str) -> Result<(), Error> {
    while let Some(node) = link {
        if node.key == key {
            return node.text.set(tx, text);
        }
        node.side = if key < node.key {
            Side::Left
        } else {
            Side::Right
        };
        link = if key < node.key {
            &mut node.left
        } else {
            &mut node.right
        };
    }
    *link = Some(tx.alloc(Node {
        side: Side::Neither,
        key,
        text: tx.string(text)?,
        left: None,
        right: None,
    })?);
    Ok(())
}

fn remove<'p>(mut link: &mut Link<'p>, key: u64) -> Option<PBox<'p, Node<'p>>> {
    // The search reads: only the link that changes is announced.
    while link.as_ref().is_some_and(|n| n.key != key) {
        let node = link.as_mut()?;
        link = if key < node.key {
            &mut node.left
        } else {
            &mut node.right
        };
    }
    let mut node = link.take()?;
    *link = match (node.left.take(), node.right.take()) {
        (None, only) | (only, None) => only,
        (Some(left), right) => {
            let mut right = right;
            // The smallest node of the right side takes the place.
            let mut least = &mut right;
            while least.as_ref().is_some_and(|n| n.left.is_some()) {
                least = &mut least.as_mut()?.left;
            }
            let mut least_node = least.take()?;
            *least = least_node.right.take();
            least_node.left = Some(left);
            least_node.right = right;
            Some(least_node)
        }
    };
    Some(node)
}

fn walk(link: &Link<'_>, visit: &mut dyn FnMut(u64, &str)) {
    if let Some(node) = link {
        walk(&node.left, visit);
        visit(node.key, &node.text);
        walk(&node.right, visit);
    }
}

pub fn sum(root: &Root<'_>) -> u64 {
    digest_of(
        root.steps,
        &mut |visit| walk(&root.tree, visit),
        &mut root.texts.iter().map(|t| t.as_str()),
        &root.samples.items,
        &root.flags.items,
    )
}
