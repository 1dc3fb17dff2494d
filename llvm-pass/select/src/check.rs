//! The rule, by brute force: walks every path of a function with its plan and reports the first violation.
//!
//! Exponential in the number of stores; meant for tests and for debugging the placement.

use std::collections::{HashMap, HashSet};

use crate::model::{Access, Event, Function, Store};
use crate::plan::{MarkKind, Plan, Point};

/// What a path has done so far.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    block: u32,
    /// Indices of stores not yet covered.
    pending: Vec<usize>,
    /// Bytes certainly written since their key was computed: stores seen, for the certainty of line marks.
    written: Vec<usize>,
    /// Keys computed on this path.
    defined: Vec<u32>,
}

/// Checks `plan` against the rule on every path of `f`.
///
/// # Errors
///
/// Names the first path point at which a store is not covered, or a line is marked that was not written.
pub fn check(f: &Function, plan: &Plan) -> Result<(), String> {
    let mut stores: Vec<Store> = Vec::new();
    let mut ids: HashMap<(u32, u32), usize> = HashMap::new();
    for (b, block) in f.blocks.iter().enumerate() {
        for (i, e) in block.events.iter().enumerate() {
            if let Event::Store(s) = e {
                ids.insert((b as u32, i as u32), stores.len());
                stores.push(*s);
            }
        }
    }
    let endless = endless(f);
    let marks: HashMap<Point, &[crate::plan::Mark]> =
        plan.sites.iter().map(|s| (s.at, &s.marks[..])).collect();
    if marks.len() != plan.sites.len() {
        return Err("two sites at one point".into());
    }
    let apply = |st: &mut State, at: Point| -> Result<(), String> {
        for m in marks.get(&at).copied().unwrap_or_default() {
            if f.keys[m.key as usize].def.is_some() && !st.defined.contains(&m.key) {
                return Err(format!(
                    "{at:?}: key {} is marked before it is computed",
                    m.key
                ));
            }
            if let MarkKind::Line(off) = m.kind {
                let sure = |&s: &usize| {
                    stores[s].key == m.key
                        && stores[s].certain
                        && matches!(stores[s].access, Access::Fixed { lo, hi, .. } if lo <= off && off < hi)
                };
                if !st.written.iter().any(sure) {
                    return Err(format!(
                        "{at:?}: line {off} of key {} marked, not written",
                        m.key
                    ));
                }
            }
            st.pending.retain(|&s| {
                let covered = stores[s].key == m.key
                    && match (m.kind, stores[s].access) {
                        (MarkKind::Line(off), Access::Fixed { lo, hi, one_line }) => {
                            one_line && lo <= off && off < hi
                        }
                        (MarkKind::Range(a, z), Access::Fixed { lo, hi, .. }) => a <= lo && hi <= z,
                        (MarkKind::Whole, Access::Whole) => true,
                        _ => false,
                    };
                !covered
            });
        }
        Ok(())
    };
    let mut seen: HashSet<State> = HashSet::new();
    let mut work = vec![State {
        block: 0,
        pending: vec![],
        written: vec![],
        defined: vec![],
    }];
    while let Some(state) = work.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let mut st = state;
        let b = st.block;
        for (k, key) in f.keys.iter().enumerate() {
            if key.def == Some(b) {
                if let Some(s) = st.pending.iter().find(|&&s| stores[s].key as usize == k) {
                    return Err(format!(
                        "block {b}: key {k} is computed again while store {s} is unmarked"
                    ));
                }
                st.written.retain(|&s| stores[s].key as usize != k);
                if !st.defined.contains(&(k as u32)) {
                    st.defined.push(k as u32);
                    st.defined.sort_unstable();
                }
            }
        }
        apply(&mut st, Point::Start(b))?;
        if endless[b as usize] && !st.pending.is_empty() {
            return Err(format!("block {b}: unmarked store enters an endless loop"));
        }
        for (i, e) in f.blocks[b as usize].events.iter().enumerate() {
            match e {
                Event::Store(_) => {
                    let id = ids[&(b, i as u32)];
                    for list in [&mut st.pending, &mut st.written] {
                        if !list.contains(&id) {
                            list.push(id);
                            list.sort_unstable();
                        }
                    }
                }
                Event::Barrier => {
                    apply(
                        &mut st,
                        Point::Before {
                            block: b,
                            event: i as u32,
                        },
                    )?;
                    if let Some(s) = st.pending.first() {
                        return Err(format!(
                            "block {b} event {i}: store {s} is unmarked at a barrier"
                        ));
                    }
                }
            }
        }
        apply(&mut st, Point::End(b))?;
        if f.blocks[b as usize].succs.is_empty()
            && let Some(s) = st.pending.first()
        {
            return Err(format!("block {b}: store {s} is unmarked at the exit"));
        }
        for &s in &f.blocks[b as usize].succs {
            let mut next = State {
                block: s,
                ..st.clone()
            };
            apply(&mut next, Point::Edge(b, s))?;
            work.push(next);
        }
    }
    Ok(())
}

/// Blocks from which neither an exit nor a barrier can be reached.
fn endless(f: &Function) -> Vec<bool> {
    let mut endless: Vec<bool> = f
        .blocks
        .iter()
        .map(|b| !b.succs.is_empty() && !b.events.contains(&Event::Barrier))
        .collect();
    loop {
        let mut changed = false;
        for b in 0..f.blocks.len() {
            if endless[b] && f.blocks[b].succs.iter().any(|&s| !endless[s as usize]) {
                endless[b] = false;
                changed = true;
            }
        }
        if !changed {
            return endless;
        }
    }
}
