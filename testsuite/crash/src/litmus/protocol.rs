//! What the two sides of the search do: the runtime's protocol, and those with a step left out or moved.

/// What barrier and commit do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// Name for reports.
    pub name: &'static str,
    /// The mark comes before the store.
    pub mark_first: bool,
    /// A cleared line stays on the recheck list.
    pub recheck: bool,
    /// A commit may drop lines from the recheck list.
    pub forget: bool,
    /// Before it drops them, every thread passes a barrier, after the commit that has cleared them and perhaps during others.
    pub barrier: bool,
    /// A barrier counts for the commit during which it begins, too.
    pub hasty_barrier: bool,
    /// Between barrier and drop the lines are compared once more.
    pub look_again: bool,
    /// Lines that this very commit has cleared stay.
    pub keep_fresh: bool,
    /// The first commit believes a flag that says that there is one thread, and lists nothing for a recheck.
    pub believes_alone: bool,
    /// A slot announces the line, or a count that a mark is dropped, before the byte is set.
    pub announce: bool,
    /// A commit looks at a line that is announced, or at the shadow while the count is raised.
    pub heed: bool,
    /// A slot that announces is left to its owner to fill.
    pub leave: bool,
    /// The lists have no room: marks are dropped.
    pub full: bool,
}

/// What a writer does, one step each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Store,
    /// Reads the shadow byte; leaves out the rest of the mark when it is set.
    Check,
    Announce,
    Set,
    Fill,
    Flag,
    Lower,
}

impl Protocol {
    /// What the runtime does.
    pub const CORRECT: Protocol = Protocol {
        name: "correct",
        mark_first: false,
        recheck: true,
        forget: true,
        barrier: true,
        hasty_barrier: false,
        look_again: true,
        keep_fresh: true,
        believes_alone: false,
        announce: true,
        heed: true,
        leave: true,
        full: false,
    };

    /// What the runtime does when a list is full.
    pub const FULL: Protocol = Protocol {
        name: "correct, lists full",
        full: true,
        ..Self::CORRECT
    };

    /// The protocol with a step left out or moved: each of these loses updates.
    pub const BROKEN: [Protocol; 12] = [
        Protocol {
            name: "byte set before a slot announces the line",
            announce: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "slot that announces a line passed over",
            heed: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "slot that announces a line consumed",
            leave: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "byte set before the dropped mark is announced",
            announce: false,
            ..Self::FULL
        },
        Protocol {
            name: "dropped mark that is announced passed over",
            heed: false,
            ..Self::FULL
        },
        Protocol {
            name: "mark before the store",
            mark_first: true,
            ..Self::CORRECT
        },
        Protocol {
            name: "no recheck list",
            recheck: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck list dropped without membarrier",
            barrier: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "barrier that begins inside a commit counts for it",
            hasty_barrier: true,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck list dropped without looking again",
            look_again: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "lines of the same commit dropped too",
            keep_fresh: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck skipped, a flag says single-threaded",
            believes_alone: true,
            ..Self::CORRECT
        },
    ];

    /// A store and its mark.
    pub(super) fn writer(&self) -> &'static [Action] {
        use Action::*;
        match (self.full, self.announce, self.mark_first) {
            (true, true, _) => &[Store, Check, Announce, Set, Flag, Lower],
            (true, false, _) => &[Store, Check, Set, Flag],
            (false, false, _) => &[Store, Check, Set, Fill],
            (false, true, false) => &[Store, Check, Announce, Set, Fill],
            (false, true, true) => &[Check, Announce, Set, Fill, Store],
        }
    }
}
