//! Which objects can be reached: what is not, is a leak.

use super::graph::{Budget, Flow, View, Visitor, WalkReport, Walker};
use super::path::Trail;
use super::plan::Plans;
use crate::{ObjectSet, ObjectSpace};

struct Nothing;

impl Visitor for Nothing {
    fn object(&mut self, _: &View<'_>, _: &Trail<'_>) -> Flow {
        Flow::Continue
    }
}

/// The objects that can be reached from the root and from `more`. In doubt an object counts as reached: memory without
/// type is searched for anything that looks like a pointer. A pointer to where one object ends and another begins reaches
/// the one that begins: what holds the end of an array holds its start, too. A set from a walk that the budget ended is not complete, and nothing may be reclaimed by it.
pub fn reach<S: ObjectSpace + ?Sized>(
    space: &S,
    plans: &Plans,
    more: &[u64],
    budget: Budget,
) -> (ObjectSet, WalkReport) {
    let mut walker = Walker::new(space, plans, budget).conservative();
    let mut report = WalkReport::default();
    for root in space.root().into_iter().chain(more.iter().copied()) {
        report = walker.run(root, &mut Nothing);
        if report.exhausted {
            break;
        }
    }
    (walker.into_seen(), report)
}
