//! Pointer-rich structures in working memory, the usual way a program writes them, and walkers that check them.

mod btree;
mod heap;
mod kv;
mod list;

pub use btree::BTree;
pub use heap::Heap;
pub use kv::Kv;
pub use list::List;
