//! The frame of a message.
//!
//! ```text
//!   0   u64  bytes behind this header
//!   8   u8   kind · u8 shape · u16 0 · u32 method
//!   16  u64  call
//!   24  u64  deadline
//!   32  u64  address of the object, as its sender knows it
//!   40  u64  type of the object
//! ```

use crate::message::{Kind, TEXT_MAX};

/// Bytes of a header.
pub(super) const HEADER: usize = 48;

/// What is behind a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Plain bytes.
    Bytes = 0,
    /// The graph of an object of the connection's heap.
    Object = 1,
    /// The graph of an object of the channel's heap.
    Shared = 2,
    /// Why an object could not be sent, as text.
    Unsent = 3,
    /// Nothing: an object that was sent before is named.
    Named = 4,
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub length: u64,
    pub kind: Kind,
    pub shape: Shape,
    pub method: u32,
    pub call: u64,
    pub deadline: u64,
    pub addr: u64,
    pub type_id: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER] {
        let words = [
            self.length,
            self.kind as u64 | (self.shape as u64) << 8 | u64::from(self.method) << 32,
            self.call,
            self.deadline,
            self.addr,
            self.type_id,
        ];
        let mut out = [0; HEADER];
        for (to, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        out
    }

    /// The header of these bytes. `graph`: the longest graph that this side takes. `Err` says what is wrong.
    pub fn decode(bytes: &[u8; HEADER], graph: u64) -> Result<Header, String> {
        let word = |n: usize| {
            let at = bytes.as_chunks::<8>().0.get(n);
            at.map_or(0, |w| u64::from_le_bytes(*w))
        };
        let head = word(1);
        let Some(kind) = Kind::from_wire(head as u8) else {
            return Err(format!("a message has kind {}", head as u8));
        };
        let shape = match (head >> 8) as u8 {
            0 => Shape::Bytes,
            1 => Shape::Object,
            2 => Shape::Shared,
            3 => Shape::Unsent,
            4 => Shape::Named,
            n => return Err(format!("a message has shape {n}")),
        };
        if head >> 16 & 0xffff != 0 {
            return Err("reserved bytes of a message are not zero".into());
        }
        let most = match shape {
            Shape::Bytes | Shape::Unsent => TEXT_MAX as u64,
            Shape::Object | Shape::Shared => graph,
            Shape::Named => 0,
        };
        let length = word(0);
        if length > most {
            return Err(format!(
                "a message has {length} bytes, {most} are the limit"
            ));
        }
        if (shape == Shape::Named) != (kind == Kind::Release) {
            return Err("only a release names an object without sending it".into());
        }
        // What came with any other kind would be kept for a call that never takes it, message after message.
        let sends = matches!(shape, Shape::Object | Shape::Shared | Shape::Unsent);
        if sends && !matches!(kind, Kind::Call | Kind::Reply | Kind::Item) {
            return Err(format!("a message of kind {kind:?} has an object"));
        }
        Ok(Header {
            length,
            kind,
            shape,
            method: (head >> 32) as u32,
            call: word(2),
            deadline: word(3),
            addr: word(4),
            type_id: word(5),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_travel() {
        for (kind, shape, length) in [
            (Kind::Call, Shape::Bytes, TEXT_MAX as u64),
            (Kind::Reply, Shape::Object, 1 << 20),
            (Kind::Item, Shape::Shared, 0),
            (Kind::Reply, Shape::Unsent, 7),
            (Kind::Release, Shape::Named, 0),
        ] {
            let header = Header {
                length,
                kind,
                shape,
                method: u32::MAX,
                call: 1,
                deadline: 2,
                addr: 3,
                type_id: u64::MAX,
            };
            assert_eq!(Header::decode(&header.encode(), 1 << 20), Ok(header));
        }
    }

    #[test]
    fn what_no_sender_writes_is_refused() {
        let good = Header {
            length: 8,
            kind: Kind::Call,
            shape: Shape::Bytes,
            method: 0,
            call: 0,
            deadline: 0,
            addr: 0,
            type_id: 0,
        }
        .encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Header::decode(&bytes, 1 << 20).expect_err("refused")
        };
        with(2, 1);
        with(7, 0x80);
        with(8, 0);
        with(8, 200);
        with(8, Kind::Release as u8);
        with(9, 4);
        with(9, 5);
        with(10, 1);
        with(11, 1);
        for shape in [Shape::Object, Shape::Shared, Shape::Unsent] {
            for kind in 1..=9 {
                let mut bytes = good;
                (bytes[8], bytes[9]) = (kind, shape as u8);
                let kind = Kind::from_wire(kind).expect("a kind");
                let carries = matches!(kind, Kind::Call | Kind::Reply | Kind::Item);
                let decoded = Header::decode(&bytes, 1 << 20);
                assert_eq!(decoded.is_ok(), carries, "{kind:?} {shape:?}");
            }
        }
    }
}
