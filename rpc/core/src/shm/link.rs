//! What every thread may ask of one end: who the peer is, whether it lives, and its objects.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use vernal_pool::Pool;

use super::dial::Side;
use super::heap::Heaps;
use super::layout::{LATENCY, MODE};
use super::lease::Lease;
use super::rings::ring_bell;
use super::segment::Words;
use super::stats::mode_word;
use crate::Error;
use crate::latency::{Latency, Recorder, WORDS};
use crate::message::Body;
use crate::options::{Trust, Types};
use crate::registry::{ConnId, Scope, Segment, SegmentId};
use crate::transport::{Admitted, Lend, Link, Peer, PeerSegment};
use vernal_heap::walk::Budget;

/// One end of a connection over shared memory.
pub struct ShmLink {
    peer: Peer,
    lease: Arc<Lease>,
    pub(super) heaps: Heaps,
    closed: AtomicBool,
    /// In this side's ring segment, where tools find it.
    latency: Recorder<Words>,
}

impl std::fmt::Debug for ShmLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmLink")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// How far a side trusts, and how much it takes at once.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) trust: Trust,
    pub(crate) budget: Budget,
    pub(crate) types: Types,
    /// A sandbox reads the peer's heap: its files are kept.
    pub(crate) lends: bool,
}

impl ShmLink {
    pub(super) fn new(peer: Peer, lease: Arc<Lease>, heaps: Heaps, own: &Side) -> ShmLink {
        let words = own.held.words(MODE..LATENCY + WORDS);
        if let Some(mode) = words.as_ref().first() {
            mode.store(mode_word(heaps.limits()), Ordering::Relaxed);
        }
        ShmLink {
            latency: Recorder::over(own.held.words(LATENCY..LATENCY + WORDS)),
            peer,
            lease,
            heaps,
            closed: AtomicBool::new(false),
        }
    }

    /// Names the connection at its registry.
    pub fn conn(&self) -> ConnId {
        self.lease.id
    }

    #[cold]
    pub(super) fn corrupt(&self, why: String) -> Error {
        Error::Corrupt {
            peer: self.peer.name.clone(),
            why,
        }
    }

    #[cold]
    pub(super) fn wake(&self) {
        ring_bell(&self.lease.wake);
    }

    fn died(&self) -> Error {
        Error::PeerDied {
            peer: self.peer.name.clone(),
        }
    }
}

impl Link for ShmLink {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.lease.wait.as_fd(), self.lease.control.as_fd()]
    }

    fn acknowledge(&self) -> Result<(), Error> {
        let mut bells = [0u8; 64];
        match rustix::io::read(&self.lease.wait, &mut bells) {
            // It was woken. If the peer has died meanwhile, the next sleep is a short one.
            Ok(n) if n > 0 && !self.closed.load(Ordering::Acquire) => return Ok(()),
            _ => {}
        }
        let mut none = [0u8; 1];
        match recv(&self.lease.control, &mut none, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(self.died()),
            Ok(_) => Err(self.corrupt("it goes on greeting".into())),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(self.died()),
        }
    }

    fn admit(&self, body: &Body, expected: u64) -> Result<Admitted, Error> {
        self.heaps.admit(&self.peer, body, expected)
    }

    fn heap(&self) -> Result<Pool, Error> {
        self.heaps.own()
    }

    fn lend(&self) -> Option<&dyn Lend> {
        Some(self)
    }

    fn timed(&self, took: Duration) {
        self.latency.record(took);
    }

    fn latency(&self) -> Latency {
        self.latency.read()
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // Both sides see the end; the descriptor itself stays until nobody uses it.
            let _ = shutdown(&self.lease.control, Shutdown::Both);
        }
    }
}

impl Lend for ShmLink {
    fn peer_segments(&self, from: usize) -> Result<Vec<PeerSegment>, Error> {
        self.heaps.peer_segments(&self.peer, from)
    }

    fn segment(&self, size: u64) -> Result<Segment, Error> {
        let scope = Scope::Conn(self.lease.id);
        self.lease.registry().segment(scope, size)
    }

    fn ready(&self, segment: SegmentId) -> Result<(), Error> {
        self.lease.registry().ready(segment)
    }

    fn drop_segment(&self, segment: SegmentId) {
        // A registry that has ended has taken it back already.
        let _ = self.lease.registry().drop_segment(segment);
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        self.close();
    }
}
