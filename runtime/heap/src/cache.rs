//! What a thread keeps: the spans that it alone allocates from.

/// A thread's spans of one heap, from [`crate::Heap::thread_cache`]. It holds no objects: every allocated object is in its
/// span's bitmap. Dropping it gives the spans back.
#[derive(Debug, Default)]
pub struct ThreadCache {
    _heap: u64,
}
