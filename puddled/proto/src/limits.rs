//! Every limit of the protocol, each a constant with a name.

/// Longest packet, in bytes. Receivers have a buffer of this size; a longer packet is refused without being read.
pub const MAX_FRAME: usize = 64 << 10;
/// Longest name of a pool, in bytes.
pub const MAX_NAME: usize = vernal_format::puddle::LABEL_MAX;
/// Longest free text (error text, a client's name, a reason), in bytes.
pub const MAX_TEXT: usize = 1024;
/// Longest text of the metrics, in bytes.
pub const MAX_METRICS: usize = 32 << 10;
/// Most puddles that one message names, and most descriptors that travel with one.
pub const MAX_PUDDLES: usize = vernal_abi::puddle::MAX_PUDDLES;
/// Most pools in one page of a list. A page ends earlier when its packet is full.
pub const MAX_PAGE: usize = 128;
/// Most users that a message names for one pool.
pub const MAX_USERS: usize = 16;
/// Longest journal that puddled replays, superblocks included. It bounds what a hostile journal can cost.
pub const MAX_JOURNAL: u64 = 1 << 30;
/// Shortest log file of a direct pool.
pub const MIN_LOG: u64 = 64 << 10;
/// Longest log file of a direct pool.
pub const MAX_LOG: u64 = 1 << 30;
/// Most log files of one client.
pub const MAX_LOGS: usize = vernal_format::MAX_LOG_FILES;
/// Pools that one client may have open.
pub const MAX_OPEN_POOLS: usize = 64;
/// Imports that one client may have unfinished.
pub const MAX_IMPORTS: usize = 4;

/// Longest name of a channel, in bytes, slashes included.
pub const MAX_CHANNEL_NAME: usize = MAX_NAME;
/// Channels that the processes of one user may have open, unless it is root or puddled's own.
pub const MAX_CHANNELS_PER_USER: usize = 256;
/// Connections of one channel.
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections of one channel that come from one user other than the channel's owner, root and puddled's own: nobody can take
/// all of them.
pub const MAX_CONNECTIONS_PER_USER: usize = MAX_CONNECTIONS / 2;
/// Bytes of messages that may wait at a channel for its server to accept them, as the kernel counts them: about 60 arrivals. A
/// connect beyond that is refused as busy, so that a server that does not accept delays nobody.
pub const ARRIVALS_BYTES: usize = 64 << 10;
/// Segments that one side of a connection may own for it, and a server for its channel: a heap's puddles and what lies around
/// them.
pub const MAX_SEGMENTS: usize = MAX_PUDDLES + 32;
/// Most leases that a message names for one segment.
pub const MAX_LEASES: usize = 16;
/// Descriptors that travel with a connection: the control socket, what this side waits at, what wakes the other one.
pub const LINK_FDS: usize = 3;

const _: () = {
    // A kernel passes at most 253 descriptors with one message (SCM_MAX_FD).
    assert!(MAX_PUDDLES <= 253);
    assert!(MAX_METRICS < MAX_FRAME);
};
