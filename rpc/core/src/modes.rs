//! What each way of running handlers closes, as one table: `vernal rpc modes` prints it, `docs/trust.md` shows it, and the test suite runs
//! each cell of it.

/// How a handler is kept from harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// [`crate::Trust::Plain`]: not at all.
    Plain,
    /// [`crate::Trust::Verify`]: it reads a checked copy.
    Verify,
    /// [`crate::Sandbox::Process`], with [`crate::Trust::Plain`]: it runs in a helper of its client.
    Process,
}

/// All of them, as the columns of the table.
pub const MODES: [Mode; 3] = [Mode::Plain, Mode::Verify, Mode::Process];

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Verify => "verify",
            Mode::Process => "process",
        }
    }
}

/// How an attack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is refused, or ends the handler: the caller gets an error, the server goes on.
    Closed,
    /// The handler is misled, or ended. It runs in a helper that serves this client alone, and has nothing of others to read there:
    /// nobody else is harmed, and the server goes on.
    Contained,
    /// It succeeds.
    Open,
}

impl Outcome {
    /// As tables have it.
    pub fn text(self) -> &'static str {
        match self {
            Outcome::Closed => "closed",
            Outcome::Contained => "contained",
            Outcome::Open => "**open**",
        }
    }
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Names it in the test suite.
    pub key: &'static str,
    /// What a client, or a handler that it has taken over, does.
    pub what: &'static str,
    ends: [Outcome; 3],
}

impl Attack {
    /// How it ends in that mode.
    pub fn ends(&self, mode: Mode) -> Outcome {
        let [plain, verify, process] = self.ends;
        match mode {
            Mode::Plain => plain,
            Mode::Verify => verify,
            Mode::Process => process,
        }
    }
}

const fn attack(key: &'static str, what: &'static str, ends: [Outcome; 3]) -> Attack {
    Attack { key, what, ends }
}

use Outcome::{Closed, Contained, Open};

/// The table.
pub const ATTACKS: [Attack; 26] = [
    attack("wild", "a pointer to no memory", [Open, Closed, Closed]),
    attack(
        "misaligned",
        "a pointer into the middle of an object",
        [Open, Closed, Contained],
    ),
    attack(
        "private",
        "a pointer to what the server has loaded since",
        [Open, Closed, Contained],
    ),
    attack(
        "hidden",
        "a pointer to memory that was hidden",
        [Open, Closed, Contained],
    ),
    attack(
        "before",
        "a pointer to what the server had loaded before",
        [Open, Closed, Open],
    ),
    attack(
        "other",
        "a pointer to the object of another client",
        [Open, Closed, Closed],
    ),
    attack(
        "confused",
        "a pointer to an object of another type",
        [Open, Closed, Contained],
    ),
    attack("bool", "a bool that is neither", [Open, Closed, Contained]),
    attack(
        "reused",
        "an object that is freed and used again while the handler reads it",
        [Open, Closed, Contained],
    ),
    attack(
        "cycle",
        "a cycle, for a handler that follows it",
        [Open, Open, Closed],
    ),
    attack(
        "large",
        "more objects than the server takes",
        [Open, Closed, Contained],
    ),
    attack(
        "changing",
        "an object that changes while the handler reads it",
        [Open, Closed, Contained],
    ),
    attack(
        "write",
        "a handler that writes where the argument points to",
        [Open, Closed, Contained],
    ),
    attack("loop", "a handler that never ends", [Open, Open, Closed]),
    attack(
        "memory",
        "a handler that takes memory without end",
        [Open, Open, Closed],
    ),
    attack(
        "crash",
        "a handler that gives up (abort)",
        [Open, Open, Closed],
    ),
    attack("file", "a handler that opens a file", [Open, Open, Closed]),
    attack(
        "socket",
        "a handler that opens a socket",
        [Open, Open, Closed],
    ),
    attack(
        "child",
        "a handler that starts a process",
        [Open, Open, Closed],
    ),
    attack(
        "signal",
        "a handler that signals the server",
        [Open, Open, Closed],
    ),
    attack(
        "code",
        "a handler that maps memory to execute",
        [Open, Open, Closed],
    ),
    attack(
        "reply",
        "a handler that replies with a wild pointer",
        [Closed, Closed, Closed],
    ),
    attack(
        "truncate",
        "the truncation of a segment",
        [Closed, Closed, Closed],
    ),
    attack(
        "release",
        "the release of an object that it was not given",
        [Closed, Closed, Closed],
    ),
    attack(
        "credits",
        "credit for what was never sent",
        [Closed, Closed, Closed],
    ),
    attack(
        "noise",
        "noise in the words of its ring",
        [Closed, Closed, Closed],
    ),
];

/// What ends so in that mode, as a sentence lists it.
pub fn list(mode: Mode, outcome: Outcome) -> String {
    let of = ATTACKS.iter().filter(|a| a.ends(mode) == outcome);
    of.map(|a| a.what).collect::<Vec<_>>().join("; ")
}

/// The table as Markdown.
pub fn markdown() -> String {
    let mut out = String::from("| attack |");
    MODES
        .iter()
        .for_each(|m| out.push_str(&format!(" {} |", m.name())));
    out.push_str("\n| --- |");
    MODES.iter().for_each(|_| out.push_str(" --- |"));
    for a in &ATTACKS {
        out.push_str(&format!("\n| {} |", a.what));
        MODES
            .iter()
            .for_each(|m| out.push_str(&format!(" {} |", a.ends(*m).text())));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attack_has_a_name_of_its_own() {
        for (n, a) in ATTACKS.iter().enumerate() {
            assert!(
                ATTACKS.iter().skip(n + 1).all(|b| b.key != a.key),
                "{}",
                a.key
            );
        }
    }

    #[test]
    fn the_page_on_trust_shows_this_table() {
        let page = include_str!("../../../docs/trust.md");
        assert!(
            page.contains(&markdown()),
            "docs/trust.md must show this table:\n\n{}",
            markdown()
        );
    }
}
