//! A puddled of its own and the processes that use it.

use std::path::PathBuf;

use vernal_puddled_client::proto::RpcStatus;
use vernal_puddled_tests::{Actor, Place};

use crate::conformance::eventually;

/// What a test runs in.
pub struct World {
    /// puddled and its folder.
    pub place: Place,
    actor: PathBuf,
}

impl World {
    /// puddled runs. `puddled` and `actor` are this crate's programs.
    pub fn start(puddled: &str, actor: &str) -> World {
        let mut place = Place::new_in_memory(puddled, actor);
        place.start();
        World {
            place,
            actor: actor.into(),
        }
    }

    /// A process of this user.
    pub fn actor(&self, name: &str) -> Actor {
        self.place.run(&self.actor, name, None)
    }

    /// What puddled has.
    pub fn status(&self) -> RpcStatus {
        self.place.client().rpc_status().expect("puddled serves")
    }

    /// Waits until puddled has so many channels, connections and segments, and no orphan.
    pub fn settled(&self, channels: u64, connections: u64, segments: u64) {
        let mut last = RpcStatus::default();
        eventually(
            &format!("{channels} channels, {connections} connections, {segments} segments"),
            || {
                last = self.status();
                (last.channels, last.connections, last.segments, last.orphans)
                    == (channels, connections, segments, 0)
            },
        );
    }
}

/// A number behind a word of an answer: `clients 3 ever 4`.
pub fn field(answer: &str, name: &str) -> u64 {
    let mut words = answer.split_whitespace().skip_while(|w| *w != name);
    words
        .nth(1)
        .and_then(|w| w.parse().ok())
        .unwrap_or(u64::MAX)
}
