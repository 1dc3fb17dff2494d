//! What a ring asks of memory: words that this side owns, words that only the peer writes, and the fences between them.

use crate::layout::LINE_WORDS;
use crate::message::{BODY, HEADER, has_body};

/// Words that this side owns: nobody else can write them.
pub trait OwnWords {
    /// Number of words.
    fn count(&self) -> usize;
    /// Stores a word that a later [`publish`](Self::publish) makes valid.
    fn store(&self, word: usize, value: u64);
    /// Stores words 1, 2, 5 of the line that begins at `first`, and with `body` the others too, but not word 0.
    #[inline]
    fn store_line(&self, first: usize, words: &[u64; LINE_WORDS], body: bool) {
        for at in HEADER
            .into_iter()
            .chain(BODY.into_iter().take(if body { 4 } else { 0 }))
        {
            self.store(first + at, words[at]);
        }
    }
    /// Stores a word so that whoever reads it also sees all that was stored before it.
    fn publish(&self, word: usize, value: u64);
    /// Adds one to a word. Several threads of this side may do so at once.
    fn bump(&self, word: usize);
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
    /// Loads words 1, 2, 5 of the line that begins at `first`, and the others as word 2 says that there is a body: each of them
    /// once, after [`acquire`](Self::acquire). Word 0 and what is not loaded are zero.
    #[inline]
    fn load_line(&self, first: usize) -> [u64; LINE_WORDS] {
        let mut words = [0; LINE_WORDS];
        for at in HEADER {
            words[at] = self.load(first + at);
        }
        if has_body(words[2]) {
            for at in BODY {
                words[at] = self.load(first + at);
            }
        }
        words
    }
    /// Orders all later loads and stores after the loads so far.
    fn acquire(&self);
    /// Forgets a cached copy of the line of a word. Nothing to do on coherent memory.
    fn invalidate(&self, word: usize);
    /// A sequentially consistent fence, as in [`OwnWords::full_fence`].
    fn full_fence(&self);
}
