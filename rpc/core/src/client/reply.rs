//! What a call gives back.

use std::sync::Arc;

use super::Handle;
use crate::error::{Code, Error, Failure};
use crate::message::{Body, Kind, Message};
use crate::options::Passed;
use crate::transport::Admitted;

/// The reply of a call, or an item of a stream. It keeps alive what it points to.
pub struct Reply {
    body: Body,
    /// In a place of its own: a reply of plain bytes is moved without it.
    object: Option<Box<Held>>,
}

/// An object of the server that is being read in place.
struct Held {
    /// Dropped before the server is told.
    admitted: Option<Admitted>,
    inner: Arc<Handle>,
    release: Option<(u64, u64)>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admitted = None;
        if let Some((addr, type_id)) = self.release.take() {
            self.inner.release(addr, type_id);
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("body", &self.body)
            .field("passed", &self.passed())
            .finish()
    }
}

impl Reply {
    /// The plain bytes; empty if it is an object.
    pub fn bytes(&self) -> &[u8] {
        self.body.bytes().unwrap_or_default()
    }

    /// The object's address in this process. `None`: it is plain bytes.
    pub fn object(&self) -> Option<u64> {
        let admitted = self.object.as_ref()?.admitted.as_ref()?;
        Some(admitted.addr)
    }

    /// How it got here.
    pub fn passed(&self) -> Passed {
        self.object
            .as_ref()
            .and_then(|held| held.admitted.as_ref())
            .map_or(Passed::Inline, |admitted| admitted.passed)
    }
}

impl Handle {
    /// The reply in an answer, or the failure that it tells of.
    #[inline]
    pub(super) fn reply(
        self: &Arc<Self>,
        method: u32,
        answer: Message,
        reply_type: Option<u64>,
    ) -> Result<Reply, Error> {
        if !matches!(answer.kind, Kind::Reply | Kind::Item) {
            return Err(self.no_reply(method, &answer));
        }
        match answer.body {
            Body::Inline { .. } | Body::Bytes(_) => Ok(Reply {
                body: answer.body,
                object: None,
            }),
            Body::Object { .. } | Body::Shared { .. } => self.admit(answer.body, reply_type),
        }
    }

    #[cold]
    fn no_reply(&self, method: u32, answer: &Message) -> Error {
        if answer.kind != Kind::Error {
            return self.corrupt("a call for one reply is answered by a stream");
        }
        let text = String::from_utf8_lossy(answer.body.bytes().unwrap_or_default());
        match Code::from_wire(answer.method) {
            Code::DeadlineExceeded => Error::DeadlineExceeded { method },
            code => Error::Remote {
                method,
                failure: Failure::new(code, text),
            },
        }
    }

    #[inline(never)]
    fn admit(self: &Arc<Self>, body: Body, reply_type: Option<u64>) -> Result<Reply, Error> {
        let release = match body {
            Body::Object { addr, type_id } => Some((addr, type_id)),
            _ => None,
        };
        // Whatever happens from here on, the server gets its object back.
        let mut held = Held {
            admitted: None,
            inner: Arc::clone(self),
            release,
        };
        let Some(expected) = reply_type else {
            return Err(Error::Unverified {
                peer: self.link.peer().name.clone(),
                why: "it replied with an object, and this call takes plain bytes".into(),
            });
        };
        let admitted = self.link.admit(&body, expected)?;
        if admitted.passed == Passed::Copied
            && let Some((addr, type_id)) = held.release.take()
        {
            // This side has its own copy.
            self.release(addr, type_id);
        }
        held.admitted = Some(admitted);
        Ok(Reply {
            body,
            object: Some(Box::new(held)),
        })
    }
}
