//! Values that several messages share.

use std::fmt;

use serde::{Deserialize, Serialize};
use vernal_format::Uuid;

/// The identity of a pool, a puddle, a journal, a log or an import, as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Id(pub [u8; 16]);

impl From<Uuid> for Id {
    fn from(uuid: Uuid) -> Self {
        Id(uuid.0)
    }
}

impl From<Id> for Uuid {
    fn from(id: Id) -> Self {
        Uuid(id.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid(self.0), f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a pool becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PoolKind {
    /// Commits through a journal; a writer excludes everybody else.
    Buffered,
    /// Changed in place under undo and redo logs; writers share it.
    Direct,
}

/// What a client wants of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Read-only descriptors. A buffered pool stays as it is meanwhile; a direct one may have writers.
    Read,
    /// Descriptors for reading and writing.
    Write,
    /// Read-only descriptors of an image that nobody changes meanwhile, of either kind: for export.
    Snapshot,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, " {:x}"), self.0)
            }
        }
    };
}

number!(
    /// The number of a channel. Numbers of channels, connections and segments are not used again, and those of one puddled are
    /// not those of the next.
    ChannelId,
    "channel"
);
number!(
    /// The number of a connection.
    ConnId,
    "connection"
);
number!(
    /// The number of a segment.
    SegmentId,
    "segment"
);

/// What a segment is for, which decides who may map it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SegmentOf {
    /// A connection: the other side may.
    Conn(ConnId),
    /// A channel, whose server makes it: whoever is connected to the channel may.
    Channel(ChannelId),
}
