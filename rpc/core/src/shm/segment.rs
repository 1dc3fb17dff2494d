//! Ring segments in this process: each mapped once, for whoever needs it.
//!
//! A process that connects to its own channel is the owner and the reader of both segments; they are mapped at one address, so that it
//! reads what it has mapped as their owner. That gives it nothing that it does not have.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use vernal_pool::segment::Segment as Mapping;

use super::lease::Lease;
use crate::Error;
use crate::inject;
use crate::registry::{Scope, Segment, SegmentId};

/// Own segments by address.
static OWN: LazyLock<Mutex<HashMap<u64, Weak<Mapping>>>> = LazyLock::new(Mutex::default);

/// A mapped segment, and the duty to tell the registry when it is no longer mapped.
pub(super) struct Held {
    /// Taken on drop: the mapping goes before the registry is told.
    mapping: Option<Arc<Mapping>>,
    id: SegmentId,
    lease: Arc<Lease>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {:x}", self.id)
    }
}

pub(super) fn mapping_error(error: vernal_pool::Error) -> Error {
    Error::Registry {
        doing: "mapping a segment",
        why: error.to_string(),
    }
}

fn map_own(file: &File, name: &str, addr: u64, size: u64) -> Result<Arc<Mapping>, Error> {
    let mapping = Arc::new(Mapping::own(file, name, addr, size).map_err(mapping_error)?);
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.retain(|_, known| known.strong_count() > 0);
    own.insert(addr, Arc::downgrade(&mapping));
    Ok(mapping)
}

impl Held {
    /// A new segment of this process, mapped and sealed.
    pub(super) fn own(lease: &Arc<Lease>, segment: Segment) -> Result<Held, Error> {
        let name = format!("ring segment {:x}", segment.id);
        let mut held = Held {
            mapping: None,
            id: segment.id,
            lease: Arc::clone(lease),
        };
        inject::step();
        held.mapping = Some(map_own(&segment.file, &name, segment.addr, segment.size)?);
        inject::step();
        lease.registry().ready(segment.id)?;
        Ok(held)
    }

    /// A peer's segment, of at least `size` bytes, mapped for reading.
    pub(super) fn peer(lease: &Arc<Lease>, id: SegmentId, size: u64) -> Result<Held, Error> {
        let segment = lease.registry().map(id)?;
        let name = format!("ring segment {id:x}");
        let mut held = Held {
            mapping: None,
            id,
            lease: Arc::clone(lease),
        };
        // A segment of another connection would make one client speak for another.
        if segment.scope != Scope::Conn(lease.id) {
            return Err(Error::Corrupt {
                peer: name,
                why: "it belongs to another connection".into(),
            });
        }
        if segment.size < size {
            return Err(Error::Corrupt {
                peer: name,
                why: format!("it has {} bytes and needs {size}", segment.size),
            });
        }
        let known = {
            let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
            own.get(&segment.addr).and_then(Weak::upgrade)
        };
        let mapping = match known {
            Some(mapping) => mapping,
            None => {
                let peer = Mapping::peer(&segment.file, &name, segment.addr, segment.size);
                Arc::new(peer.map_err(mapping_error)?)
            }
        };
        held.mapping = Some(mapping);
        Ok(held)
    }

    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    /// Some of its words.
    pub(super) fn words(self: &Arc<Self>, range: Range<usize>) -> Words {
        let words = self.mapping.as_ref().map_or(&[][..], |m| m.words());
        let words = words.get(range).unwrap_or_default();
        // SAFETY: the mapping neither moves nor ends before the last handle of `held`, of which the result keeps one; it gives
        // the words out for as long as it lives itself.
        let words = unsafe { std::slice::from_raw_parts(words.as_ptr(), words.len()) };
        Words {
            _held: Arc::clone(self),
            words,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        inject::step();
        self.mapping = None;
        inject::step();
        // A registry that has ended has taken it back already.
        let _ = self.lease.registry().drop_segment(self.id);
    }
}

/// Words of a mapped segment. Each access of a ring asks for them: they are found once.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// As long as `_held` says, and given out for as long as `self` only.
    words: &'static [AtomicU64],
    _held: Arc<Held>,
}

impl Words {
    /// The half of a word in which adding to it shows first, for the kernel to wait on.
    pub(super) fn futex(&self, word: usize) -> Option<&AtomicU32> {
        let word = self.words.get(word)?;
        let low = usize::from(cfg!(target_endian = "big"));
        // SAFETY: either half of an aligned, mapped word of eight bytes; this program passes it to the kernel, which may read it, and
        // accesses it by no other means.
        Some(unsafe { &*word.as_ptr().cast::<AtomicU32>().add(low) })
    }
}

impl AsRef<[AtomicU64]> for Words {
    #[inline(always)]
    fn as_ref(&self) -> &[AtomicU64] {
        self.words
    }
}
