//! `std::__detail::_List_node_base`: a ring of nodes linked both ways. The list object holds one node of the ring, its end.

use super::put;

/// `std::__detail::_List_node_base`
#[repr(C)]
pub struct Node {
    next: *mut Node,
    prev: *mut Node,
}

const _: () = assert!(size_of::<Node>() == 16);

/// Makes `b` the successor of `a`.
///
/// # Safety
///
/// Both must be valid nodes that only this thread accesses.
#[inline(always)]
unsafe fn join(a: *mut Node, b: *mut Node) {
    // SAFETY: both nodes are valid by the caller's promise.
    unsafe {
        put(&raw mut (*a).next, b);
        put(&raw mut (*b).prev, a);
    }
}

/// `this->_M_hook(position)`: links `this` in front of `position`.
///
/// # Safety
///
/// As for the C++ function: `this` is an unlinked node, `position` is linked.
#[unsafe(export_name = "_ZNSt8__detail15_List_node_base7_M_hookEPS0_")]
pub unsafe extern "C" fn hook(this: *mut Node, position: *mut Node) {
    // SAFETY: a linked node's neighbours are valid.
    unsafe {
        let before = (*position).prev;
        join(this, position);
        join(before, this);
    }
}

/// `this->_M_unhook()`: takes `this` out of its ring.
///
/// # Safety
///
/// As for the C++ function: `this` is linked.
#[unsafe(export_name = "_ZNSt8__detail15_List_node_base9_M_unhookEv")]
pub unsafe extern "C" fn unhook(this: *mut Node) {
    // SAFETY: a linked node's neighbours are valid.
    unsafe { join((*this).prev, (*this).next) }
}

/// `this->_M_transfer(first, last)`: moves the nodes `[first, last)` in front of `this`.
///
/// # Safety
///
/// As for the C++ function: all three are linked, `last` is reachable from `first`, and `this` is not within.
#[unsafe(export_name = "_ZNSt8__detail15_List_node_base11_M_transferEPS0_S1_")]
pub unsafe extern "C" fn transfer(this: *mut Node, first: *mut Node, last: *mut Node) {
    if this == last || first == last {
        return;
    }
    // SAFETY: the neighbours of linked nodes are valid; they are read before any link changes.
    unsafe {
        let (before_first, final_moved, before_this) = ((*first).prev, (*last).prev, (*this).prev);
        join(before_first, last);
        join(before_this, first);
        join(final_moved, this);
    }
}

/// `this->_M_reverse()`: reverses the ring.
///
/// # Safety
///
/// As for the C++ function: `this` is linked.
#[unsafe(export_name = "_ZNSt8__detail15_List_node_base10_M_reverseEv")]
pub unsafe extern "C" fn reverse(this: *mut Node) {
    let mut node = this;
    loop {
        // SAFETY: each node of the ring is valid, and the walk ends where it began.
        unsafe {
            let Node { next, prev } = node.read();
            put(&raw mut (*node).next, prev);
            put(&raw mut (*node).prev, next);
            node = next;
        }
        if node == this {
            return;
        }
    }
}

/// `_List_node_base::swap(x, y)`: exchanges the contents of two lists, given by their end nodes.
///
/// # Safety
///
/// As for the C++ function: both are end nodes of lists.
#[unsafe(export_name = "_ZNSt8__detail15_List_node_base4swapERS0_S1_")]
pub unsafe extern "C" fn swap(x: *mut Node, y: *mut Node) {
    if x == y {
        return;
    }
    // SAFETY: the end nodes and their neighbours are valid; the copies are taken before any link changes.
    unsafe {
        let (of_x, of_y) = (x.read(), y.read());
        let adopt = |end: *mut Node, from: *mut Node, content: Node| {
            if content.next == from {
                join(end, end);
            } else {
                join(end, content.next);
                join(content.prev, end);
            }
        };
        adopt(x, y, of_y);
        adopt(y, x, of_x);
    }
}
