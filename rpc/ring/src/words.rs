//! What a ring asks of memory: words that this side owns, words that only the peer writes, and the fences between them.

/// Words that this side owns: nobody else can write them.
pub trait OwnWords {
    /// Number of words.
    fn count(&self) -> usize;
    /// Stores a word that a later [`publish`](Self::publish) makes valid.
    fn store(&self, word: usize, value: u64);
    /// Stores a word so that whoever reads it also sees all that was stored before it.
    fn publish(&self, word: usize, value: u64);
    /// Makes the cache line of a word visible to a peer that shares no coherent cache. Nothing to do on coherent memory.
    fn write_back(&self, word: usize);
    /// A sequentially consistent fence: what was published before it is visible before anything is loaded after it.
    fn full_fence(&self);
}

/// Words that the peer owns. They are mapped read-only, and each of them may be anything at any time.
pub trait PeerWords {
    /// Number of words.
    fn count(&self) -> usize;
    /// Loads a word, with no ordering of its own: the mapping is read-only, and only plain loads are defined there.
    fn load(&self, word: usize) -> u64;
    /// Orders all later loads and stores after the loads so far.
    fn acquire(&self);
    /// Forgets a cached copy of the line of a word. Nothing to do on coherent memory.
    fn invalidate(&self, word: usize);
    /// A sequentially consistent fence, as in [`OwnWords::full_fence`].
    fn full_fence(&self);
}
