//! The greeting: one packet from the client, one from the server, on the control socket.
//!
//! ```text
//!   0   u64  "VNRPCHI1"
//!   8   u32  version of the protocol
//!   12  u32  0: welcome; else the code of a refusal (server only)
//!   16  u64  ABI: what both sides must agree on about memory
//!   24  u64  ring segment
//!   32  u32  its slots
//!   36  u32  0
//! ```

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::AsFd;

use super::layout::{Layout, VERSION};
use crate::Error;
use crate::message::{INLINE_MAX, TEXT_MAX};
use crate::registry::SegmentId;

const MAGIC: u64 = u64::from_le_bytes(*b"VNRPCHI1");
/// Bytes of a greeting.
const LEN: usize = 40;

/// What two processes that map the same memory must agree on, as one number: where things lie and how long they are.
const ABI: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let words = [
        vernal_abi::RPC_BASE,
        vernal_abi::RPC_SIZE,
        vernal_abi::puddle::CHUNK_SIZE,
        vernal_abi::puddle::CHUNK_HEADER,
        vernal_ring::LINE_BYTES as u64,
        INLINE_MAX as u64,
        TEXT_MAX as u64,
        super::layout::RING as u64,
        super::layout::ENTRIES as u64,
        super::layout::MAX_ENTRIES as u64,
    ];
    let mut at = 0;
    while at < words.len() {
        hash = (hash ^ words[at]).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
};

/// A side's ring segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) segment: SegmentId,
    pub(super) slots: u32,
}

impl Greeting {
    fn encode(self, status: u32) -> [u8; LEN] {
        let mut out = [0; LEN];
        let words = [
            MAGIC,
            u64::from(VERSION) | u64::from(status) << 32,
            ABI,
            self.segment,
            u64::from(self.slots),
        ];
        for (to, word) in out.chunks_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn decode(packet: &[u8], peer: &str) -> Result<(Greeting, Layout), Error> {
        let corrupt = |why: &str| Error::Corrupt {
            peer: peer.to_owned(),
            why: why.to_owned(),
        };
        let (words, rest) = packet.as_chunks::<8>();
        let &[magic, version, abi, segment, slots] = words else {
            return Err(corrupt("its greeting has another length"));
        };
        let word = u64::from_le_bytes;
        if word(magic) != MAGIC || !rest.is_empty() {
            return Err(corrupt("its greeting is none"));
        }
        let incompatible = |what, theirs, ours| Error::Incompatible {
            peer: peer.to_owned(),
            what,
            theirs,
            ours,
        };
        let theirs = word(version) as u32;
        if theirs != VERSION {
            let (theirs, ours) = (theirs.into(), VERSION.into());
            return Err(incompatible("protocol version", theirs, ours));
        }
        match (word(version) >> 32) as u32 {
            0 => {}
            REFUSED_INCOMPATIBLE => {
                return Err(incompatible(
                    "another memory layout; this side has",
                    word(abi),
                    ABI,
                ));
            }
            _ => {
                return Err(Error::Access {
                    what: format!("{peer} takes no more connections"),
                });
            }
        }
        if word(abi) != ABI {
            return Err(incompatible("memory layout", word(abi), ABI));
        }
        let slots =
            u32::try_from(word(slots)).map_err(|_| corrupt("its ring has too many slots"))?;
        let layout = Layout::new(slots).map_err(|_| corrupt("its ring has an impossible size"))?;
        let greeting = Greeting {
            segment: word(segment),
            slots,
        };
        Ok((greeting, layout))
    }

    /// Sends it; a refusal if `status` is not 0.
    pub(super) fn send(self, control: impl AsFd, status: u32) -> Result<(), Error> {
        let packet = self.encode(status);
        loop {
            match send(&control, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::os("greeting", e)),
            }
        }
    }
}

/// Whether a packet is a greeting: what a fuzzer calls.
#[doc(hidden)]
pub fn check_greeting(packet: &[u8]) -> Result<(), Error> {
    Greeting::decode(packet, "a peer").map(|_| ())
}

/// The status of a server that cannot talk to this client.
pub(super) const REFUSED_INCOMPATIBLE: u32 = 1;

/// The peer's greeting, if it has come. Does not block.
pub(super) fn receive(control: impl AsFd, peer: &str) -> Result<Option<(Greeting, Layout)>, Error> {
    // One byte more than a greeting has: a longer packet is seen as one.
    let mut packet = [0u8; LEN + 1];
    loop {
        return match recv(&control, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(Error::PeerDied {
                peer: peer.to_owned(),
            }),
            Ok((_, len)) => {
                let packet = packet.get(..len.min(LEN + 1)).unwrap_or_default();
                Greeting::decode(packet, peer).map(Some)
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => Err(Error::PeerDied {
                peer: peer.to_owned(),
            }),
            Err(e) => Err(Error::os("reading a greeting", e)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_travel_and_garbage_is_refused() {
        let greeting = Greeting {
            segment: 77,
            slots: 256,
        };
        let packet = greeting.encode(0);
        let (back, layout) = Greeting::decode(&packet, "x").unwrap();
        assert_eq!((back, layout.slots()), (greeting, 256));
        for at in 0..LEN {
            let mut bad = packet;
            bad[at] ^= 0x41;
            let read = Greeting::decode(&bad, "x");
            // The segment's number is the registry's to judge.
            assert_eq!(read.is_ok(), (24..32).contains(&at), "byte {at}: {read:?}");
        }
        for len in 0..LEN {
            assert!(Greeting::decode(&packet[..len], "x").is_err());
        }
        assert!(Greeting::decode(&[0; LEN + 1], "x").is_err());
        assert!(matches!(
            Greeting::decode(&greeting.encode(REFUSED_INCOMPATIBLE), "x"),
            Err(Error::Incompatible { .. })
        ));
    }
}
