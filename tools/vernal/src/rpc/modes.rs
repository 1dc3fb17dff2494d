//! `vernal rpc modes`: how a receiver is kept safe from what it is sent, on this machine; `docs/trust.md` has the same table with
//! the reasons.
//!
//! A mode that is not built says so, and what this kernel would offer for it: nobody should take a row for more than it is.

use super::list::table;
use crate::pool::outcome::{Outcome, Report};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fs;
use vernal_rpc_core::modes::{self, Mode as Attacked, Outcome as Ends};

/// Whether a mode protects anybody here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It does.
    InForce,
    /// It is chosen per channel or connection.
    Chosen,
    /// It is part of this version, and the kernel does not offer what it needs.
    NotOffered,
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
            State::NotOffered => "not on this kernel",
            State::NotBuilt => "not built",
            State::NotHere => "not built, not on this kernel",
        }
    }
}

struct Mode {
    kind: &'static str,
    name: &'static str,
    state: State,
    closes: Cow<'static, str>,
    /// What harms only who does it.
    contains: Cow<'static, str>,
    leaves: Cow<'static, str>,
}

/// A row of the table that the test suite runs, `vernal_rpc_core::modes`.
fn tried(kind: &'static str, name: &'static str, state: State, mode: Attacked) -> Mode {
    let list = |outcome| modes::list(mode, outcome).into();
    Mode {
        kind,
        name,
        state,
        closes: list(Ends::Closed),
        contains: list(Ends::Contained),
        leaves: list(Ends::Open),
    }
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

/// A row that says what it closes and what not.
fn said(
    kind: &'static str,
    name: &'static str,
    state: State,
    [closes, leaves]: [&'static str; 2],
) -> Mode {
    Mode {
        kind,
        name,
        state,
        closes: closes.into(),
        contains: "".into(),
        leaves: leaves.into(),
    }
}

fn all() -> Vec<Mode> {
    let offered = |is: bool| match is {
        true => State::NotBuilt,
        false => State::NotHere,
    };
    // What helpers are shut in with; a kernel without it makes none.
    let seccomp = contains("/proc/sys/kernel/seccomp/actions_avail", "errno");
    let uffd = fs::exists("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or(false);
    vec![
        said(
            "memory",
            "one writer",
            State::InForce,
            [
                "truncation, growth, a second writable mapping, writing or punching through any descriptor, a new mapping of /proc/self/fd: sealed by the kernel before a peer gets the segment, and looked at by the peer",
                "the owner's own mapping, and those that it made before the seal or left to a forked child: the sender can change what it has sent",
            ],
        ),
        said(
            "passing",
            "inline",
            State::InForce,
            [
                "all changes after sending: the bytes are read once, into private memory",
                "nothing",
            ],
        ),
        said(
            "passing",
            "verify by copy",
            State::Chosen,
            [
                "all changes after sending, wild pointers, wrong types and values, pointers out of the heap, cycles without end, forged metadata: each word is read once, checked, and kept in private memory",
                "values that are well formed and wrong; addresses are not secrets",
            ],
        ),
        said(
            "passing",
            "plain",
            State::Chosen,
            [
                "nothing but pointers of the argument itself that lie outside of the peer's memory",
                "everything else: for processes that trust each other",
            ],
        ),
        said(
            "seal",
            "bpf-lsm",
            offered(contains("/sys/kernel/security/lsm", "bpf")),
            ["", ""],
        ),
        said(
            "seal",
            "userfaultfd",
            offered(uffd && kernel() >= (5, 19)),
            [
                "",
                "decided against: a forked child, a kept descriptor or an earlier second mapping writes through it (docs/adr/0019)",
            ],
        ),
        said(
            "seal",
            "seccomp",
            offered(contains(
                "/proc/sys/kernel/seccomp/actions_avail",
                "user_notif",
            )),
            ["", ""],
        ),
        said(
            "seal",
            "mprotect",
            State::NotBuilt,
            ["", "advisory: the sender can take it back"],
        ),
        tried("sandbox", "none, plain", State::Chosen, Attacked::Plain),
        tried("sandbox", "verify", State::Chosen, Attacked::Verify),
        tried(
            "sandbox",
            "process",
            match seccomp {
                true => State::Chosen,
                false => State::NotOffered,
            },
            Attacked::Process,
        ),
        said(
            "sandbox",
            "keys",
            offered(contains("/proc/cpuinfo", "ospke")),
            ["", ""],
        ),
    ]
}

fn row(mode: Option<&Mode>) -> Vec<String> {
    match mode {
        None => vec!["KIND".into(), "MODE".into(), "HERE".into()],
        Some(m) => vec![m.kind.into(), m.name.into(), m.state.text().into()],
    }
}

fn json_of(m: &Mode) -> Value {
    json!({"kind": m.kind, "mode": m.name, "state": m.state.text(), "closes": m.closes, "contains": m.contains, "does_not_close": m.leaves})
}

pub fn run() -> Outcome {
    let modes = all();
    let mut text = table(&modes, row);
    for m in &modes {
        let lists = [
            ("closes", &m.closes),
            ("contains (harms its own caller only)", &m.contains),
            ("does not close", &m.leaves),
        ];
        for (what, list) in lists {
            if !list.is_empty() {
                text.push_str(&format!("\n\n{} {} {what}: {list}", m.kind, m.name));
            }
        }
    }
    let json = json!({"modes": modes.iter().map(json_of).collect::<Vec<_>>()});
    Ok(Report::fine(text, json))
}
