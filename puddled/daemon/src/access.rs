//! Who is on the other side of a connection, and what it may do.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt::socket_peercred;
use vernal_puddled_proto::Access;
use vernal_sys::service::peer_groups;

use crate::records::PoolRecord;
use crate::rpc::Channel;

/// The process at the other side of a connection, as of its connect: what it becomes later does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Root, or puddled's own user.
    pub admin: bool,
}

impl Peer {
    pub fn of(socket: &OwnedFd) -> io::Result<Self> {
        let cred = socket_peercred(socket)?;
        let uid = cred.uid.as_raw();
        let own = rustix::process::geteuid().as_raw();
        Ok(Peer {
            pid: cred.pid.as_raw_nonzero().get().cast_unsigned(),
            uid,
            gid: cred.gid.as_raw(),
            groups: peer_groups(socket.as_fd())?,
            admin: uid == 0 || uid == own,
        })
    }

    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// The bits of `mode` that this peer has; as for files, the first class that fits decides.
    fn bits(&self, owner: u32, group: u32, mode: u16) -> u16 {
        let shift = if self.uid == owner {
            6
        } else if self.in_group(group) {
            3
        } else {
            0
        };
        if self.admin {
            0o6
        } else {
            (mode >> shift) & 0o7
        }
    }

    /// Whether this peer may open `pool` so.
    pub fn may(&self, pool: &PoolRecord, access: Access) -> bool {
        let bits = self.bits(pool.owner, pool.group, pool.mode);
        match access {
            Access::Read | Access::Snapshot => bits & 0o4 != 0,
            Access::Write => bits & 0o6 == 0o6,
        }
    }

    /// Whether this peer may know that `pool` is there.
    pub fn may_see(&self, pool: &PoolRecord) -> bool {
        self.uid == pool.owner || self.may(pool, Access::Read)
    }

    /// Whether this peer may connect to `channel`.
    pub fn may_connect(&self, channel: &Channel) -> bool {
        self.bits(channel.owner, channel.group, channel.mode) & 0o6 == 0o6
    }

    /// Whether this peer may know that `channel` is there.
    pub fn may_see_channel(&self, channel: &Channel) -> bool {
        let bits = self.bits(channel.owner, channel.group, channel.mode);
        self.uid == channel.owner || self.uid == channel.server.info.uid || bits & 0o4 != 0
    }

    /// Whether this peer may remove `pool` and change its mode.
    pub fn owns(&self, pool: &PoolRecord) -> bool {
        self.admin || self.uid == pool.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::PoolStatus;
    use vernal_puddled_proto::{Id, PoolKind};

    fn pool(mode: u16) -> PoolRecord {
        PoolRecord {
            id: Id([1; 16]),
            name: "p".into(),
            owner: 10,
            group: 20,
            mode,
            kind: PoolKind::Buffered,
            created: 0,
            status: PoolStatus::Live,
            puddles: Vec::new(),
        }
    }

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            pid: 1,
            uid,
            gid,
            groups: groups.to_vec(),
            admin: uid == 0,
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let (owner, member, other) = (peer(10, 1, &[]), peer(11, 1, &[20]), peer(12, 1, &[]));
        let p = pool(0o640);
        assert!(owner.may(&p, Access::Write));
        assert!(member.may(&p, Access::Read) && !member.may(&p, Access::Write));
        assert!(!other.may(&p, Access::Read) && !other.may_see(&p));
        // An owner without rights does not get those of others.
        let p = pool(0o066);
        assert!(!owner.may(&p, Access::Read) && owner.may_see(&p) && owner.owns(&p));
        assert!(member.may(&p, Access::Write) && other.may(&p, Access::Write));
        // Writing needs reading: the heap cannot be changed unseen.
        assert!(!owner.may(&pool(0o200), Access::Write));
        assert!(peer(0, 0, &[]).may(&pool(0), Access::Write));
    }
}
