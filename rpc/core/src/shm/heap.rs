//! The heaps of one end: its own, which the peer reads, and the peer's, which it reads.
//!
//! A heap grows by segments; their owner publishes them in the directory of its ring segment before it sends an address that may lie
//! in one. A receiver that sees an address maps what is new in the directory first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use vernal_pool::Pool;
use vernal_pool::foreign::ForeignHeap;

use super::inspect::Inspector;
use super::layout::{COUNT, ENTRIES, MAX_ENTRIES};
use super::lease::Lease;
use super::link::{Limits, ShmLink};
use super::segment::{Held, Words, mapping_error};
use super::source::Grown;
use crate::Error;
use crate::inject;
use crate::message::Body;
use crate::options::{Passed, Trust};
use crate::registry::{ChannelId, Registry, Scope, SegmentId};
use crate::transport::{Admitted, Peer, PeerSegment};

/// Kinds of directory entries.
const KIND_CONN: u64 = 1;
const KIND_CHANNEL: u64 = 2;

/// A heap of this process and the list of its segments.
struct OwnHeap {
    pool: Pool,
    grown: Arc<Grown>,
}

impl OwnHeap {
    fn new(registry: &Arc<dyn Registry>, scope: Scope, name: &str) -> Result<OwnHeap, Error> {
        let (source, grown) = Grown::source(registry, scope, name);
        let pool = Pool::create_volatile(source).map_err(mapping_error)?;
        Ok(OwnHeap { pool, grown })
    }
}

impl Drop for OwnHeap {
    fn drop(&mut self) {
        let _ = self.pool.clone().close();
    }
}

/// The heap that a server shares with all clients of a channel; made at first use.
pub struct ChannelHeap {
    registry: Arc<dyn Registry>,
    name: String,
    channel: Mutex<ChannelId>,
    own: OnceLock<OwnHeap>,
    making: Mutex<()>,
}

impl std::fmt::Debug for ChannelHeap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelHeap")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ChannelHeap {
    pub(super) fn new(registry: &Arc<dyn Registry>, name: &str, channel: ChannelId) -> ChannelHeap {
        ChannelHeap {
            registry: Arc::clone(registry),
            name: name.to_owned(),
            channel: Mutex::new(channel),
            own: OnceLock::new(),
            making: Mutex::default(),
        }
    }

    /// The channel has another number: its registry was restarted.
    pub(super) fn reopened(&self, channel: ChannelId) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }

    /// The pool.
    pub fn pool(&self) -> Result<Pool, Error> {
        if let Some(own) = self.own.get() {
            return Ok(own.pool.clone());
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = self.own.get() {
            return Ok(own.pool.clone());
        }
        let channel = *self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let own = OwnHeap::new(&self.registry, Scope::Channel(channel), &self.name)?;
        Ok(self.own.get_or_init(|| own).pool.clone())
    }
}

/// A heap of a peer, its segments mapped for reading.
struct Leased {
    /// Taken on drop: the mappings go before the registry is told.
    heap: Option<ForeignHeap>,
    segments: Mutex<Vec<SegmentId>>,
    /// Files, addresses and sizes, if a sandbox reads the heap, too.
    files: Option<Mutex<Vec<PeerSegment>>>,
    lease: Arc<Lease>,
}

/// Heaps of channels that this process reads: several connections to one channel read one mapping.
static CHANNELS: LazyLock<Mutex<HashMap<ChannelId, Weak<Leased>>>> = LazyLock::new(Mutex::default);

impl Leased {
    fn new(lease: &Arc<Lease>, name: &str, lends: bool) -> Arc<Leased> {
        Arc::new(Leased {
            heap: Some(ForeignHeap::new(name)),
            segments: Mutex::default(),
            files: lends.then(Mutex::default),
            lease: Arc::clone(lease),
        })
    }

    fn of_channel(lease: &Arc<Lease>) -> Arc<Leased> {
        let mut channels = CHANNELS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(&lease.channel).and_then(Weak::upgrade) {
            return known;
        }
        channels.retain(|_, known| known.strong_count() > 0);
        let new = Leased::new(lease, &format!("channel {:x}", lease.channel), false);
        channels.insert(lease.channel, Arc::downgrade(&new));
        new
    }

    /// Maps a segment, unless it is mapped.
    fn add(&self, id: SegmentId, scope: Scope) -> Result<(), Error> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.contains(&id) {
            return Ok(());
        }
        let registry = self.lease.registry();
        let segment = registry.map(id)?;
        let added = match &self.heap {
            Some(heap) if segment.scope == scope => heap
                .add(&segment.file, segment.addr, segment.size)
                .map_err(mapping_error),
            _ => Err(Error::Unverified {
                peer: format!("segment {id:x}"),
                why: "it belongs to something else".into(),
            }),
        };
        match added {
            Ok(()) => {
                segments.push(id);
                if let Some(files) = &self.files {
                    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                    files.push((Arc::new(segment.file), segment.addr, segment.size));
                }
                Ok(())
            }
            Err(e) => {
                let _ = registry.drop_segment(id);
                Err(e)
            }
        }
    }

    fn heap(&self) -> Result<&ForeignHeap, Error> {
        self.heap.as_ref().ok_or_else(|| Error::Closed {
            what: "a heap".into(),
        })
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.heap = None;
        let segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        for id in segments.iter() {
            let _ = self.lease.registry().drop_segment(*id);
        }
    }
}

/// The heaps of one end.
pub(super) struct Heaps {
    lease: Arc<Lease>,
    limits: Limits,
    own: OnceLock<Arc<OwnHeap>>,
    making: Mutex<()>,
    /// This side's heap for the whole channel.
    shared: Option<Arc<ChannelHeap>>,
    /// The peer's directory.
    directory: Words,
    /// Entries of it that were looked at.
    seen: AtomicUsize,
    looking: Mutex<()>,
    theirs: Arc<Leased>,
    channel: OnceLock<Arc<Leased>>,
    /// Of the peer's heap, and of its heap for the channel: each learns the types of one.
    inspectors: [Arc<Inspector>; 2],
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heaps {
    /// How far the peer is trusted, and how much it may pass.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn new(
        lease: &Arc<Lease>,
        shared: Option<Arc<ChannelHeap>>,
        limits: Limits,
        peer: &Arc<Held>,
    ) -> Heaps {
        Heaps {
            lease: Arc::clone(lease),
            inspectors: [Inspector::new(&limits), Inspector::new(&limits)],
            own: OnceLock::new(),
            making: Mutex::default(),
            shared,
            directory: peer.words(0..ENTRIES + 2 * MAX_ENTRIES),
            seen: AtomicUsize::new(0),
            looking: Mutex::default(),
            theirs: Leased::new(lease, &format!("connection {:x}", lease.id), limits.lends),
            limits,
            channel: OnceLock::new(),
        }
    }

    /// This side's heap of the connection.
    pub(super) fn own(&self) -> Result<Pool, Error> {
        if let Some(own) = self.own.get() {
            return Ok(own.pool.clone());
        }
        let _making = lock(&self.making);
        if let Some(own) = self.own.get() {
            return Ok(own.pool.clone());
        }
        let name = format!("connection {:x}", self.lease.id);
        let scope = Scope::Conn(self.lease.id);
        let own = OwnHeap::new(self.lease.registry(), scope, &name)?;
        Ok(self.own.get_or_init(|| Arc::new(own)).pool.clone())
    }

    /// What this side publishes in its own directory.
    pub(super) fn published(&self, own: &Arc<Held>) -> Published {
        Published {
            directory: own.words(0..ENTRIES + 2 * MAX_ENTRIES),
            entries: 0,
            conn: 0,
            channel: 0,
        }
    }

    /// Maps what the peer has published since the last look.
    #[inline]
    fn sync(&self, peer: &Peer) -> Result<(), Error> {
        let count = match self.directory.as_ref().get(COUNT) {
            Some(word) => word.load(Ordering::Relaxed) as usize,
            None => 0,
        };
        if count == self.seen.load(Ordering::Acquire) {
            return Ok(());
        }
        self.sync_to(count, peer)
    }

    #[cold]
    fn sync_to(&self, count: usize, peer: &Peer) -> Result<(), Error> {
        // What the entries say was written before the count.
        std::sync::atomic::fence(Ordering::Acquire);
        let corrupt = |why: String| Error::Corrupt {
            peer: peer.name.clone(),
            why,
        };
        if count > MAX_ENTRIES {
            return Err(corrupt(format!(
                "it publishes {count} segments, {MAX_ENTRIES} are the limit"
            )));
        }
        let _looking = lock(&self.looking);
        let words = self.directory.as_ref();
        for at in self.seen.load(Ordering::Relaxed)..count {
            let word = |n: usize| {
                let word = words.get(ENTRIES + 2 * at + n);
                word.map_or(0, |w| w.load(Ordering::Relaxed))
            };
            let (id, kind) = (word(0), word(1));
            match kind {
                KIND_CONN => self.theirs.add(id, Scope::Conn(self.lease.id))?,
                KIND_CHANNEL => self.channel().add(id, Scope::Channel(self.lease.channel))?,
                _ => return Err(corrupt(format!("it publishes a segment of kind {kind}"))),
            }
            self.seen.store(at + 1, Ordering::Release);
        }
        Ok(())
    }

    /// The segments of the peer's heap, for a sandbox.
    pub(super) fn peer_segments(
        &self,
        peer: &Peer,
        from: usize,
    ) -> Result<Vec<PeerSegment>, Error> {
        self.sync(peer)?;
        let Some(files) = &self.theirs.files else {
            return Ok(Vec::new());
        };
        let files = files.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(files.get(from..).unwrap_or_default().to_vec())
    }

    fn channel(&self) -> &Arc<Leased> {
        self.channel.get_or_init(|| Leased::of_channel(&self.lease))
    }

    /// Makes an object of the peer usable, as far as it is trusted.
    pub(super) fn admit(&self, peer: &Peer, body: &Body, expected: u64) -> Result<Admitted, Error> {
        let [conn, channel] = &self.inspectors;
        let (leased, inspector, addr, type_id) = match *body {
            Body::Object { addr, type_id } => (&self.theirs, conn, addr, type_id),
            Body::Shared { addr, type_id } => (self.channel(), channel, addr, type_id),
            _ => {
                return Err(Error::Invalid {
                    what: "plain bytes were to be admitted as an object".into(),
                    remedy: "admit objects only",
                });
            }
        };
        let unverified = |why: String| Error::Unverified {
            peer: peer.name.clone(),
            why,
        };
        if type_id != expected {
            return Err(unverified(format!(
                "an object of type {type_id:#x}, where one of type {expected:#x} is expected"
            )));
        }
        self.sync(peer)?;
        let heap = leased.heap()?;
        match self.limits.trust {
            Trust::Plain => {
                if !addr.is_multiple_of(8) || !heap.contains(addr, 8) {
                    return Err(unverified(format!("{addr:#x} is no object of its heap")));
                }
                Ok(Admitted {
                    addr,
                    passed: Passed::Plain,
                    guard: Box::new(Arc::clone(leased)),
                })
            }
            Trust::Verify => {
                inject::step();
                let (copied, arena) = inspector.copy(heap, addr, expected).map_err(unverified)?;
                Ok(Admitted {
                    addr: copied,
                    passed: Passed::Copied,
                    guard: Box::new(arena),
                })
            }
        }
    }
}

/// This side's directory: what of its heaps the peer can find.
pub(super) struct Published {
    directory: Words,
    entries: usize,
    conn: usize,
    channel: usize,
}

impl Published {
    /// Publishes the segments that have come since the last time.
    #[inline]
    pub(super) fn update(&mut self, link: &ShmLink) -> Result<(), Error> {
        let heaps = &link.heaps;
        if let Some(own) = heaps.own.get()
            && own.grown.count() != self.conn
        {
            self.conn = self.add(&own.grown, self.conn, KIND_CONN)?;
        }
        if let Some(own) = heaps.shared.as_ref().and_then(|s| s.own.get())
            && own.grown.count() != self.channel
        {
            self.channel = self.add(&own.grown, self.channel, KIND_CHANNEL)?;
        }
        Ok(())
    }

    #[cold]
    fn add(&mut self, grown: &Grown, from: usize, kind: u64) -> Result<usize, Error> {
        let new = grown.sealed_from(from)?;
        let words = self.directory.as_ref();
        for id in new.iter().filter(|id| **id != 0) {
            if self.entries >= MAX_ENTRIES {
                return Err(Error::TooLarge {
                    what: "the number of segments of a connection",
                    value: self.entries as u64 + 1,
                    limit: MAX_ENTRIES as u64,
                    remedy: "free objects, or use another connection",
                });
            }
            let at = ENTRIES + 2 * self.entries;
            if let (Some(a), Some(b)) = (words.get(at), words.get(at + 1)) {
                a.store(*id, Ordering::Relaxed);
                b.store(kind, Ordering::Relaxed);
            }
            self.entries += 1;
        }
        inject::step();
        if let Some(count) = words.get(COUNT) {
            count.store(self.entries as u64, Ordering::Release);
        }
        Ok(from + new.len())
    }
}
