//! Where the marks go.

/// All marks of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Points with marks, at most one entry per point.
    pub sites: Vec<Site>,
}

/// The marks of one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where.
    pub at: Point,
    /// What, ordered by root.
    pub marks: Vec<Mark>,
}

/// A program point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Just before an event (a barrier) of a block.
    Before {
        /// The block.
        block: u32,
        /// Index into its events.
        event: u32,
    },
    /// At the start of a block.
    Start(u32),
    /// At the end of a block, after all its events.
    End(u32),
    /// On an edge.
    Edge(u32, u32),
}

/// One mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The address base.
    pub key: u32,
    /// The bytes.
    pub kind: MarkKind,
}

/// What a mark covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The line of the byte at this offset, which is certain to have been written.
    Line(i64),
    /// Bytes `[lo, hi)`; any of them may be outside the object.
    Range(i64, i64),
    /// The length that the emitter knows.
    Whole,
}
