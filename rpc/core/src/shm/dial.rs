//! Connecting, on the client's side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::greet::{self, Greeting};
use super::heap::Heaps;
use super::layout::{
    HEADER_MAGIC, HEADER_TEXT_LEN, HEADER_TEXT_OFFSET, HEADER_VERSION_SLOTS, Layout, MAGIC, VERSION,
};
use super::lease::Lease;
use super::link::{Limits, ShmLink};
use super::rings::halves;
use super::segment::Held;
use crate::Error;
use crate::inject;
use crate::options::ConnectOptions;
use crate::registry::{ConnGrant, Registry, Scope};
use crate::transport::{Dial, Endpoint, Peer};
use vernal_heap::walk::Budget;

/// Shared memory on this host, with the names of a registry.
#[derive(Clone)]
pub struct Shm {
    pub(super) registry: Arc<dyn Registry>,
}

impl std::fmt::Debug for Shm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shm")
    }
}

impl Shm {
    /// With the names and the memory of `registry`.
    pub fn new(registry: Arc<dyn Registry>) -> Shm {
        Shm { registry }
    }

    /// Where names and memory come from.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }
}

/// A new ring segment of this process for a connection, with its header.
pub(super) fn own_segment(lease: &Arc<Lease>, layout: Layout) -> Result<Side, Error> {
    let scope = Scope::Conn(lease.id);
    let segment = lease.registry().segment(scope, layout.size())?;
    let held = Arc::new(Held::own(lease, segment)?);
    let header = held.words(0..8);
    let texts = layout.texts();
    let words = [
        (
            HEADER_VERSION_SLOTS,
            u64::from(VERSION) | (layout.slots() as u64) << 32,
        ),
        (HEADER_TEXT_OFFSET, texts.start as u64 * 8),
        (HEADER_TEXT_LEN, texts.len() as u64 * 8),
        (HEADER_MAGIC, MAGIC),
    ];
    for (at, value) in words {
        if let Some(word) = header.as_ref().get(at) {
            word.store(value, std::sync::atomic::Ordering::Release);
        }
    }
    Ok(Side { held, layout })
}

/// A ring segment that is mapped.
pub(super) struct Side {
    pub(super) held: Arc<Held>,
    pub(super) layout: Layout,
}

/// An endpoint of two mapped ring segments.
pub(super) fn endpoint(
    lease: Arc<Lease>,
    peer: Peer,
    own: &Side,
    theirs: &Side,
    heaps: Heaps,
) -> Result<Endpoint, Error> {
    let published = heaps.published(&own.held);
    let link = Arc::new(ShmLink::new(peer, lease, heaps, own));
    let (tx, rx) = halves(own, theirs, &link, published)?;
    Ok(Endpoint {
        tx: Box::new(tx),
        rx: Box::new(rx),
        link,
    })
}

/// First and longest pause of a client that finds the server's queue full.
const NAPS: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// Asks for a connection, again as long as the server's queue of new clients is full and time is left.
fn connect(registry: &dyn Registry, name: &str, until: Instant) -> Result<ConnGrant, Error> {
    let (mut nap, longest) = NAPS;
    loop {
        match registry.connect(name) {
            Err(Error::Backlog { .. }) if Instant::now() + nap < until => {
                std::thread::sleep(nap);
                nap = (nap * 2).min(longest);
            }
            done => return done,
        }
    }
}

impl Dial for Shm {
    fn dial(&self, name: &str, options: &ConnectOptions) -> Result<Endpoint, Error> {
        inject::init();
        let until = Instant::now() + options.timeout;
        let layout = Layout::new(options.slots)?;
        let grant = connect(&*self.registry, name, until)?;
        let peer = Peer {
            name: format!("server {name} (pid {})", grant.pid),
            uid: Some(grant.uid),
            gid: Some(grant.gid),
            pid: Some(grant.pid),
        };
        let lease = Lease::new(grant, &self.registry);
        inject::step();
        let (own, theirs) = greet(&lease, &peer, layout, options, until)?;
        let limits = Limits {
            trust: options.trust,
            budget: Budget {
                objects: options.max_objects,
                bytes: options.max_bytes,
            },
            types: (&options.types).into(),
            lends: false,
        };
        let heaps = Heaps::new(&lease, None, limits, &theirs.held);
        endpoint(lease, peer, &own, &theirs, heaps)
    }
}

/// Both ring segments, greeted for.
fn greet(
    lease: &Arc<Lease>,
    peer: &Peer,
    layout: Layout,
    options: &ConnectOptions,
    until: Instant,
) -> Result<(Side, Side), Error> {
    let own = own_segment(lease, layout)?;
    let hello = Greeting {
        segment: own.held.id(),
        slots: options.slots,
    };
    inject::step();
    hello.send(&lease.control, 0)?;
    inject::step();
    let (welcome, layout) = loop {
        if let Some(greeted) = greet::receive(&lease.control, &peer.name)? {
            break greeted;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Access {
                what: format!("{} does not answer within {:?}", peer.name, options.timeout),
            });
        }
        let mut fds = [PollFd::new(&lease.control, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    };
    let held = Arc::new(Held::peer(lease, welcome.segment, layout.size())?);
    inject::step();
    Ok((own, Side { held, layout }))
}
