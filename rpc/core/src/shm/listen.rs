//! Taking clients, on the server's side.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::dial::{Shm, Side, endpoint, own_segment};
use super::greet::{self, Greeting, REFUSED_INCOMPATIBLE};
use super::heap::{ChannelHeap, Heaps};
use super::layout::Layout;
use super::lease::Lease;
use super::link::Limits;
use super::segment::Held;
use crate::Error;
use crate::inject;
use crate::options::{ChannelOptions, Sandbox};
use crate::registry::{Announcements, Registry};
use crate::transport::{self, Advance, Listen, Peer};
use vernal_heap::walk::Budget;

/// A channel's name at a registry, and the clients that come to it.
pub struct ShmListener {
    registry: Arc<dyn Registry>,
    name: String,
    mode: u16,
    layout: Layout,
    limits: Limits,
    announcements: Box<dyn Announcements>,
    shared: Arc<ChannelHeap>,
}

impl std::fmt::Debug for ShmListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmListener")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Shm {
    /// Takes the name of a channel. The name is free again when the listener is dropped, or the process dies.
    pub fn listen(&self, name: &str, options: &ChannelOptions) -> Result<ShmListener, Error> {
        inject::init();
        let layout = Layout::new(options.slots)?;
        let announcements = self.registry.open_channel(name, options.mode)?;
        inject::step();
        let shared = ChannelHeap::new(&self.registry, name, announcements.channel());
        Ok(ShmListener {
            registry: Arc::clone(&self.registry),
            name: name.to_owned(),
            mode: options.mode,
            layout,
            limits: Limits {
                trust: options.trust,
                budget: Budget {
                    objects: options.max_objects,
                    bytes: options.max_bytes,
                },
                types: (&options.types).into(),
                lends: options.sandbox != Sandbox::None,
            },
            announcements,
            shared: Arc::new(shared),
        })
    }
}

impl ShmListener {
    /// The heap that this server shares with all clients of the channel.
    pub fn shared_heap(&self) -> Arc<ChannelHeap> {
        Arc::clone(&self.shared)
    }
}

impl Listen for ShmListener {
    fn event(&self) -> BorrowedFd<'_> {
        self.announcements.event()
    }

    fn accept(&self) -> Result<Option<Box<dyn transport::Greeting>>, Error> {
        let Some(grant) = self.announcements.next()? else {
            return Ok(None);
        };
        let peer = Peer {
            name: format!("client {} (pid {}, uid {})", grant.id, grant.pid, grant.uid),
            uid: Some(grant.uid),
            gid: Some(grant.gid),
            pid: Some(grant.pid),
        };
        Ok(Some(Box::new(Guest {
            lease: Lease::new(grant, &self.registry),
            peer,
            layout: self.layout,
            limits: self.limits.clone(),
            shared: Arc::clone(&self.shared),
        })))
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.announcements = self.registry.open_channel(&self.name, self.mode)?;
        self.shared.reopened(self.announcements.channel());
        Ok(())
    }
}

impl Drop for ShmListener {
    fn drop(&mut self) {
        // A registry that has ended has forgotten the channel.
        let _ = self.registry.close_channel(self.announcements.channel());
    }
}

/// A client that has not greeted.
struct Guest {
    lease: Arc<Lease>,
    peer: Peer,
    layout: Layout,
    limits: Limits,
    shared: Arc<ChannelHeap>,
}

impl transport::Greeting for Guest {
    fn event(&self) -> BorrowedFd<'_> {
        self.lease.control.as_fd()
    }

    fn advance(self: Box<Self>) -> Result<Advance, Error> {
        let (hello, layout) = match greet::receive(&self.lease.control, &self.peer.name) {
            Ok(Some(greeted)) => greeted,
            Ok(None) => return Ok(Advance::Waiting(self)),
            Err(e) => {
                if matches!(e, Error::Incompatible { .. }) {
                    let none = Greeting {
                        segment: 0,
                        slots: 0,
                    };
                    // It may learn why; a client that is gone need not.
                    let _ = none.send(&self.lease.control, REFUSED_INCOMPATIBLE);
                }
                return Err(e);
            }
        };
        inject::step();
        let held = Arc::new(Held::peer(&self.lease, hello.segment, layout.size())?);
        inject::step();
        let theirs = Side { held, layout };
        let own = own_segment(&self.lease, self.layout)?;
        let welcome = Greeting {
            segment: own.held.id(),
            slots: self.layout.slots() as u32,
        };
        inject::step();
        welcome.send(&self.lease.control, 0)?;
        inject::step();
        let shared = Some(Arc::clone(&self.shared));
        let heaps = Heaps::new(&self.lease, shared, self.limits, &theirs.held);
        endpoint(self.lease, self.peer, &own, &theirs, heaps).map(Advance::Connected)
    }
}
