//! `std::_Rb_tree_*`: the type-erased half of libstdc++'s red-black tree.
//!
//! The tree hangs below a header node inside the container: `header.parent` is the root (null when empty), `header.left`
//! the smallest and `header.right` the largest node; the root's parent is the header, which is red, and the header's own
//! address stands for the end. Insertion and removal follow the textbook (a red node has black children, every path has
//! the same number of black nodes), with the missing children null.

use super::put;

const RED: u32 = 0;
const BLACK: u32 = 1;

/// `std::_Rb_tree_node_base`
#[repr(C)]
pub struct Node {
    color: u32,
    parent: *mut Node,
    left: *mut Node,
    right: *mut Node,
}

const _: () = {
    assert!(size_of::<Node>() == 32);
    assert!(std::mem::offset_of!(Node, parent) == 8);
};

/// Which child; everything has a mirror image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}
use Side::{Left, Right};

impl Side {
    fn other(self) -> Self {
        match self {
            Left => Right,
            Right => Left,
        }
    }
}

/// A node of a well-formed tree, or null. Every method relies on that: nodes reached by links are valid.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ref(*mut Node);

impl Ref {
    fn is_null(self) -> bool {
        self.0.is_null()
    }
    /// # Safety
    /// Not null, a valid node; so for all methods below.
    unsafe fn parent(self) -> Self {
        // SAFETY: a valid node by contract.
        Self(unsafe { (*self.0).parent })
    }
    unsafe fn child(self, side: Side) -> Self {
        // SAFETY: a valid node by contract.
        Self(unsafe {
            if side == Left {
                (*self.0).left
            } else {
                (*self.0).right
            }
        })
    }
    unsafe fn color(self) -> u32 {
        // SAFETY: a valid node by contract.
        unsafe { (*self.0).color }
    }
    unsafe fn set_parent(self, to: Self) {
        // SAFETY: a valid node by contract.
        unsafe { put(&raw mut (*self.0).parent, to.0) }
    }
    unsafe fn set_child(self, side: Side, to: Self) {
        // SAFETY: a valid node by contract.
        unsafe {
            put(
                if side == Left {
                    &raw mut (*self.0).left
                } else {
                    &raw mut (*self.0).right
                },
                to.0,
            )
        }
    }
    unsafe fn set_color(self, to: u32) {
        // SAFETY: a valid node by contract.
        unsafe {
            if (*self.0).color != to {
                put(&raw mut (*self.0).color, to);
            }
        }
    }
    /// The last node on the way down `side`.
    unsafe fn furthest(self, side: Side) -> Self {
        let mut node = self;
        loop {
            // SAFETY: starts at a valid node and follows links that are not null.
            let next = unsafe { node.child(side) };
            if next.is_null() {
                return node;
            }
            node = next;
        }
    }
}

/// Null counts as black.
unsafe fn is_black(node: Ref) -> bool {
    // SAFETY: null is excluded first; other links lead to valid nodes.
    node.is_null() || unsafe { node.color() } == BLACK
}

/// Puts `new` in the place that `old` has below its parent (or as root).
unsafe fn replace(old: Ref, new: Ref, header: Ref) {
    // SAFETY: `old` is linked, so its parent (perhaps the header) is valid.
    unsafe {
        let parent = old.parent();
        if header.parent() == old {
            header.set_parent(new);
        } else if parent.child(Left) == old {
            parent.set_child(Left, new);
        } else {
            parent.set_child(Right, new);
        }
    }
}

/// Rotates towards `side`: the child on the other side takes the place of `x`.
unsafe fn rotate(x: Ref, side: Side, header: Ref) {
    // SAFETY: callers rotate only where the child that rises exists.
    unsafe {
        let up = x.child(side.other());
        let between = up.child(side);
        x.set_child(side.other(), between);
        if !between.is_null() {
            between.set_parent(x);
        }
        up.set_parent(x.parent());
        replace(x, up, header);
        up.set_child(side, x);
        x.set_parent(up);
    }
}

/// `std::_Rb_tree_insert_and_rebalance(insert_left, x, parent, header)`: links the new node `x` below `parent`.
///
/// # Safety
///
/// As for the C++ function: `x` is a node's memory, `parent` has no child on that side (or is the header of an empty
/// tree, with `insert_left`), and no other thread accesses the tree.
#[unsafe(export_name = "_ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_")]
pub unsafe extern "C" fn insert_and_rebalance(
    insert_left: bool,
    x: *mut Node,
    parent: *mut Node,
    header: *mut Node,
) {
    let (x, parent, header) = (Ref(x), Ref(parent), Ref(header));
    let null = Ref(std::ptr::null_mut());
    // SAFETY: the nodes are valid by the caller's promise, and so is what they link to.
    unsafe {
        put(
            x.0,
            Node {
                color: RED,
                parent: parent.0,
                left: null.0,
                right: null.0,
            },
        );
        if parent == header {
            header.set_parent(x);
            header.set_child(Left, x);
            header.set_child(Right, x);
        } else {
            let side = if insert_left { Left } else { Right };
            parent.set_child(side, x);
            if header.child(side) == parent {
                header.set_child(side, x);
            }
        }
        repair_red(x, header);
    }
}

/// Restores "a red node has a black parent" where `x` may break it.
unsafe fn repair_red(mut x: Ref, header: Ref) {
    // SAFETY: `x` is linked; a red parent is not the root, so the grandparent is a node of the tree.
    unsafe {
        while x != header.parent() && x.parent().color() == RED {
            let grand = x.parent().parent();
            let side = if grand.child(Left) == x.parent() {
                Left
            } else {
                Right
            };
            let uncle = grand.child(side.other());
            if !is_black(uncle) {
                x.parent().set_color(BLACK);
                uncle.set_color(BLACK);
                grand.set_color(RED);
                x = grand;
                continue;
            }
            if x.parent().child(side.other()) == x {
                x = x.parent();
                rotate(x, side, header);
            }
            x.parent().set_color(BLACK);
            grand.set_color(RED);
            rotate(grand, side.other(), header);
        }
        header.parent().set_color(BLACK);
    }
}

/// `std::_Rb_tree_rebalance_for_erase(z, header)`: unlinks `z` and returns it.
///
/// # Safety
///
/// As for the C++ function: `z` is a node of the tree below `header`, and no other thread accesses the tree.
#[unsafe(export_name = "_ZSt28_Rb_tree_rebalance_for_erasePSt18_Rb_tree_node_baseRS_")]
pub unsafe extern "C" fn rebalance_for_erase(z: *mut Node, header: *mut Node) -> *mut Node {
    let (z, header) = (Ref(z), Ref(header));
    // SAFETY: the nodes are valid by the caller's promise, and so is what they link to.
    unsafe {
        let (left, right) = (z.child(Left), z.child(Right));
        // `hole` is the child (or null) that moves up where a node went missing, below `above`.
        let (hole, above, lost) = if left.is_null() || right.is_null() {
            let hole = if left.is_null() { right } else { left };
            if !hole.is_null() {
                hole.set_parent(z.parent());
            }
            replace(z, hole, header);
            for (side, inner) in [(Left, right), (Right, left)] {
                if header.child(side) == z {
                    let next = if inner.is_null() {
                        z.parent()
                    } else {
                        inner.furthest(side)
                    };
                    header.set_child(side, next);
                }
            }
            (hole, z.parent(), z.color())
        } else {
            // The successor has no left child: it leaves its place and takes that of `z`, with its colour.
            let successor = right.furthest(Left);
            let hole = successor.child(Right);
            let lost = successor.color();
            let above = if successor == right {
                successor
            } else {
                let above = successor.parent();
                if !hole.is_null() {
                    hole.set_parent(above);
                }
                above.set_child(Left, hole);
                successor.set_child(Right, right);
                right.set_parent(successor);
                above
            };
            successor.set_child(Left, left);
            left.set_parent(successor);
            successor.set_parent(z.parent());
            replace(z, successor, header);
            successor.set_color(z.color());
            (hole, above, lost)
        };
        if lost == BLACK {
            repair_black(hole, above, header);
        }
    }
    z.0
}

/// Restores the number of black nodes on the paths through `x` (perhaps null), which lack one; `parent` is above it.
unsafe fn repair_black(mut x: Ref, mut parent: Ref, header: Ref) {
    // SAFETY: paths through the sibling have one black node more than those through `x`, so the sibling exists, and where
    // it is red it has children.
    unsafe {
        while x != header.parent() && is_black(x) {
            let side = if parent.child(Left) == x { Left } else { Right };
            let mut sibling = parent.child(side.other());
            if sibling.color() == RED {
                sibling.set_color(BLACK);
                parent.set_color(RED);
                rotate(parent, side, header);
                sibling = parent.child(side.other());
            }
            if is_black(sibling.child(Left)) && is_black(sibling.child(Right)) {
                sibling.set_color(RED);
                x = parent;
                parent = x.parent();
                continue;
            }
            if is_black(sibling.child(side.other())) {
                sibling.child(side).set_color(BLACK);
                sibling.set_color(RED);
                rotate(sibling, side.other(), header);
                sibling = parent.child(side.other());
            }
            sibling.set_color(parent.color());
            parent.set_color(BLACK);
            sibling.child(side.other()).set_color(BLACK);
            rotate(parent, side, header);
            break;
        }
        if !x.is_null() {
            x.set_color(BLACK);
        }
    }
}

/// The neighbour of `x` in order, towards `side`.
unsafe fn step(x: Ref, side: Side) -> Ref {
    // SAFETY: the walk follows links of a well-formed tree and ends at the header at the latest.
    unsafe {
        if !x.child(side).is_null() {
            return x.child(side).furthest(side.other());
        }
        let (mut x, mut up) = (x, x.parent());
        while up.child(side) == x {
            x = up;
            up = up.parent();
        }
        // A root without children on this side: the header was reached from itself.
        if x.child(side) == up { x } else { up }
    }
}

/// `std::_Rb_tree_increment(x)`: the next node, or the header after the last. It and the following write nothing; they are
/// here because a static libstdc++ brings all tree functions as soon as one of them is missing.
///
/// # Safety
///
/// As for the C++ function: `x` is a node of a tree.
#[unsafe(export_name = "_ZSt18_Rb_tree_incrementPSt18_Rb_tree_node_base")]
pub unsafe extern "C" fn increment(x: *mut Node) -> *mut Node {
    // SAFETY: the caller's promise.
    unsafe { step(Ref(x), Right).0 }
}

/// `std::_Rb_tree_increment(const x)`
///
/// # Safety
///
/// As for the C++ function: `x` is a node of a tree.
#[unsafe(export_name = "_ZSt18_Rb_tree_incrementPKSt18_Rb_tree_node_base")]
pub unsafe extern "C" fn increment_const(x: *mut Node) -> *mut Node {
    // SAFETY: the caller's promise.
    unsafe { step(Ref(x), Right).0 }
}

/// `std::_Rb_tree_decrement(x)`: the previous node; the last one for the header.
///
/// # Safety
///
/// As for the C++ function: `x` is a node of a tree, or its header.
#[unsafe(export_name = "_ZSt18_Rb_tree_decrementPSt18_Rb_tree_node_base")]
pub unsafe extern "C" fn decrement(x: *mut Node) -> *mut Node {
    // SAFETY: the caller's promise. Only the header is red and its own grandparent.
    unsafe {
        let x = Ref(x);
        if x.color() == RED && x.parent().parent() == x {
            x.child(Right).0
        } else {
            step(x, Left).0
        }
    }
}

/// `std::_Rb_tree_decrement(const x)`
///
/// # Safety
///
/// As for the C++ function: `x` is a node of a tree, or its header.
#[unsafe(export_name = "_ZSt18_Rb_tree_decrementPKSt18_Rb_tree_node_base")]
pub unsafe extern "C" fn decrement_const(x: *mut Node) -> *mut Node {
    // SAFETY: the caller's promise.
    unsafe { decrement(x) }
}

/// `std::_Rb_tree_black_count(node, root)`: black nodes on the way from `node` up to `root`, both included.
///
/// # Safety
///
/// As for the C++ function: `root` is `node` or above it; a null `node` counts 0.
#[unsafe(export_name = "_ZSt20_Rb_tree_black_countPKSt18_Rb_tree_node_baseS1_")]
pub unsafe extern "C" fn black_count(node: *const Node, root: *const Node) -> u32 {
    let mut count = 0;
    let mut node = Ref(node.cast_mut());
    while !node.is_null() {
        // SAFETY: the walk goes up from a valid node and stops at `root`.
        unsafe {
            count += u32::from(node.color() == BLACK);
            if node.0.cast_const() == root {
                break;
            }
            node = node.parent();
        }
    }
    count
}
