//! The handshake that lets a side sleep without missing a message: announce, fence, look again, block.
//!
//! ```text
//!   sleeper                                   ringer
//!   sleep word := odd                         publish a message (or credits)
//!   full fence                                full fence
//!   look for messages once more               sleep word odd?  wake the peer
//!   none: block
//! ```
//!
//! A side can also sleep on a word of the peer's own line, the peer's *bell*, which it may only read: it reads the bell, then
//! announces itself as above, looks once more, and blocks until the bell is no longer what it read. The peer adds one to its bell
//! before it wakes. The bell has to be read first: one that is read after the announcement may have been rung already.
//!
//! Of two full fences one comes first, so either the sleeper sees the message or the ringer sees the sleeper. Without either
//! fence, or without the second look, both can miss each other and the sleeper waits for ever.

use crate::error::RingError;
use crate::layout::{BELL, LINE_WORDS, SLEEP};
use crate::words::{OwnWords, PeerWords};

/// Set in the sleep word of a side that sleeps on the peer's bell.
const ON_BELL: u64 = 1 << 63;

/// Announces in this side's own line that it goes to sleep.
#[derive(Debug)]
pub struct Sleeper<O> {
    line: O,
    epoch: u64,
}

impl<O: OwnWords> Sleeper<O> {
    /// The sleeper of a side, which is awake.
    pub fn new(own_line: O) -> Result<Self, RingError> {
        let found = own_line.count();
        if found < LINE_WORDS {
            return Err(RingError::Words {
                what: "words of the own line",
                needed: LINE_WORDS,
                found,
            });
        }
        Ok(Sleeper {
            line: own_line,
            epoch: 0,
        })
    }

    /// Says that this side is about to block. The caller must now look once more at everything it waits for, then block, and
    /// [`disarm`](Self::disarm) when it is back for whatever reason.
    ///
    /// A wake-up may come at any time after this, also when the second look made blocking needless: a left-over one only
    /// makes a later block return early. Take wake-ups (read the eventfd) before arming again, or look again after taking one.
    pub fn arm(&mut self) {
        self.announce(0);
    }

    /// As [`arm`](Self::arm), for a side that blocks until the peer's [`bell`](Ringer::bell) is not what it was *before* this.
    pub fn arm_for_bell(&mut self) {
        self.announce(ON_BELL);
    }

    fn announce(&mut self, how: u64) {
        self.epoch = self.epoch.wrapping_add(1) | 1;
        self.line.publish(SLEEP, self.epoch & !ON_BELL | how);
        self.line.write_back(SLEEP);
        // Without this fence the second look may read what was there before the announcement was visible.
        self.line.full_fence();
    }

    /// Says that this side is awake.
    pub fn disarm(&mut self) {
        self.epoch = (self.epoch | 1).wrapping_add(1);
        self.line.publish(SLEEP, self.epoch & !ON_BELL);
        self.line.write_back(SLEEP);
    }
}

/// Decides whether the peer has to be woken.
#[derive(Debug)]
pub struct Ringer<P> {
    line: P,
    rung: u64,
}

impl<P: PeerWords> Ringer<P> {
    /// The ringer for the peer with this line.
    pub fn new(peer_line: P) -> Result<Self, RingError> {
        let found = peer_line.count();
        if found < LINE_WORDS {
            return Err(RingError::Words {
                what: "words of the peer's line",
                needed: LINE_WORDS,
                found,
            });
        }
        Ok(Ringer {
            line: peer_line,
            rung: 0,
        })
    }

    /// The line, for its other words.
    pub(crate) fn line(&self) -> &P {
        &self.line
    }

    /// To be called after publishing: does the peer sleep? True at most once for each of its sleeps, since one wake-up is
    /// enough. A peer that lies here harms itself alone.
    #[inline(always)]
    pub fn must_wake(&mut self) -> bool {
        // Without this fence the sleep word may be read before what was published is visible.
        self.line.full_fence();
        self.line.invalidate(SLEEP);
        let epoch = self.line.load(SLEEP);
        let asleep = epoch & 1 == 1 && epoch != self.rung;
        if asleep {
            self.rung = epoch;
            // Whoever rings does so after the sleeper has read the bell.
            self.line.acquire();
        }
        asleep
    }

    /// Whether the peer that has to be woken sleeps on this side's bell.
    pub fn on_bell(&self) -> bool {
        self.rung & ON_BELL != 0
    }

    /// The peer's bell, to be read before [`Sleeper::arm_for_bell`].
    pub fn bell(&self) -> u64 {
        self.line.invalidate(BELL);
        self.line.load(BELL)
    }
}

/// This side's bell, which every thread of it may ring.
#[derive(Clone, Debug)]
pub struct Bell<O> {
    line: O,
}

impl<O: OwnWords> Bell<O> {
    /// The bell in this side's line.
    pub fn new(own_line: O) -> Result<Self, RingError> {
        let found = own_line.count();
        if found < LINE_WORDS {
            return Err(RingError::Words {
                what: "words of the own line",
                needed: LINE_WORDS,
                found,
            });
        }
        Ok(Bell { line: own_line })
    }

    /// Rings: who sleeps on it is to be woken now.
    pub fn ring(&self) {
        self.line.bump(BELL);
        self.line.write_back(BELL);
    }
}
