//! `vernal rpc modes`: how a receiver is kept safe from what it is sent, on this machine; `docs/trust.md` has the same table with
//! the reasons.
//!
//! A mode that is not built says so, and what this kernel would offer for it: nobody should take a row for more than it is.

use super::list::table;
use crate::pool::outcome::{Outcome, Report};
use serde_json::{Value, json};
use std::fs;

/// Whether a mode protects anybody here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It does.
    InForce,
    /// It is chosen per channel or connection.
    Chosen,
    /// It is not part of this version, and the kernel offers what it would need.
    NotBuilt,
    /// It is not part of this version, and the kernel does not offer what it would need.
    NotHere,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            State::InForce => "in force",
            State::Chosen => "chosen per channel",
            State::NotBuilt => "not built",
            State::NotHere => "not built, not on this kernel",
        }
    }
}

struct Mode {
    kind: &'static str,
    name: &'static str,
    state: State,
    closes: &'static str,
    leaves: &'static str,
}

fn contains(path: &str, word: &str) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(|c: char| c.is_whitespace() || c == ',')
        .any(|w| w == word)
}

fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text
        .split(['.', '-'])
        .map(|n| n.trim().parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next())
}

fn modes() -> Vec<Mode> {
    let offered = |is: bool| match is {
        true => State::NotBuilt,
        false => State::NotHere,
    };
    let uffd = fs::exists("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or(false);
    vec![
        Mode {
            kind: "memory",
            name: "one writer",
            state: State::InForce,
            closes: "truncation, growth, a second writable mapping, writing or punching through any descriptor, a new mapping of /proc/self/fd: sealed by the kernel before a peer gets the segment, and looked at by the peer",
            leaves: "the owner's own mapping, and those that it made before the seal or left to a forked child: the sender can change what it has sent",
        },
        Mode {
            kind: "passing",
            name: "inline",
            state: State::InForce,
            closes: "all changes after sending: the bytes are read once, into private memory",
            leaves: "nothing",
        },
        Mode {
            kind: "passing",
            name: "verify by copy",
            state: State::Chosen,
            closes: "all changes after sending, wild pointers, wrong types and values, pointers out of the heap, cycles without end, forged metadata: each word is read once, checked, and kept in private memory",
            leaves: "values that are well formed and wrong; addresses are not secrets",
        },
        Mode {
            kind: "passing",
            name: "plain",
            state: State::Chosen,
            closes: "nothing but pointers of the argument itself that lie outside of the peer's memory",
            leaves: "everything else: for processes that trust each other",
        },
        Mode {
            kind: "seal",
            name: "bpf-lsm",
            state: offered(contains("/sys/kernel/security/lsm", "bpf")),
            closes: "",
            leaves: "",
        },
        Mode {
            kind: "seal",
            name: "userfaultfd",
            state: offered(uffd && kernel() >= (5, 19)),
            closes: "",
            leaves: "decided against: a forked child, a kept descriptor or an earlier second mapping writes through it (docs/adr/0019)",
        },
        Mode {
            kind: "seal",
            name: "seccomp",
            state: offered(contains(
                "/proc/sys/kernel/seccomp/actions_avail",
                "user_notif",
            )),
            closes: "",
            leaves: "",
        },
        Mode {
            kind: "seal",
            name: "mprotect",
            state: State::NotBuilt,
            closes: "",
            leaves: "advisory: the sender can take it back",
        },
        Mode {
            kind: "sandbox",
            name: "verify",
            state: State::Chosen,
            closes: "what verify by copy closes: the handler runs on memory that nobody else can change",
            leaves: "errors of the handler itself",
        },
        Mode {
            kind: "sandbox",
            name: "keys",
            state: offered(contains("/proc/cpuinfo", "ospke")),
            closes: "",
            leaves: "",
        },
        Mode {
            kind: "sandbox",
            name: "process",
            state: State::NotBuilt,
            closes: "",
            leaves: "",
        },
    ]
}

fn row(mode: Option<&Mode>) -> Vec<String> {
    match mode {
        None => vec!["KIND".into(), "MODE".into(), "HERE".into()],
        Some(m) => vec![m.kind.into(), m.name.into(), m.state.text().into()],
    }
}

fn json_of(m: &Mode) -> Value {
    json!({"kind": m.kind, "mode": m.name, "state": m.state.text(), "closes": m.closes, "does_not_close": m.leaves})
}

pub fn run() -> Outcome {
    let modes = modes();
    let mut text = table(&modes, row);
    for m in &modes {
        for (what, list) in [("closes", m.closes), ("does not close", m.leaves)] {
            if !list.is_empty() {
                text.push_str(&format!("\n\n{} {} {what}: {list}", m.kind, m.name));
            }
        }
    }
    let json = json!({"modes": modes.iter().map(json_of).collect::<Vec<_>>()});
    Ok(Report::fine(text, json))
}
