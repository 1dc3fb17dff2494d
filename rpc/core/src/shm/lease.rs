//! A connection as the registry knows it: given back when nothing of it is mapped any more.

use std::ops::Deref;
use std::sync::Arc;

use crate::inject;
use crate::registry::{ConnGrant, Registry};

/// The grant of a connection. Every mapping of it holds it, so that the registry hears of the end last: it may give the addresses to
/// somebody else then.
pub(super) struct Lease {
    grant: ConnGrant,
    registry: Arc<dyn Registry>,
}

impl Lease {
    pub(super) fn new(grant: ConnGrant, registry: &Arc<dyn Registry>) -> Arc<Lease> {
        Arc::new(Lease {
            grant,
            registry: Arc::clone(registry),
        })
    }

    pub(super) fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }
}

impl Deref for Lease {
    type Target = ConnGrant;

    #[inline]
    fn deref(&self) -> &ConnGrant {
        &self.grant
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        inject::step();
        // A registry that has ended has forgotten the connection.
        let _ = self.registry.disconnect(self.grant.id);
        inject::step();
    }
}
