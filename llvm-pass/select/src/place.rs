//! Places the marks: as late as the rule allows, so that one mark serves many stores.
//!
//! Data-flow analyses over sets of keys:
//!
//! * *anticipated* (backward, on all paths): from here every path stores through the key before it meets a barrier. A
//!   mark is not needed yet, whatever is pending: the one after that store will cover it.
//! * *pending* (forward, on all paths): every path to here has stored through the key and not marked it since.
//!
//! * *partly anticipated* (backward, on some path), over roots: a later store could share a range check.
//!
//! A key may flow unmarked into a block if it is pending on all incoming edges or anticipated there; where it cannot, the
//! mark goes on the edge. At the end of a block with several successors a key that no later store could share a check with
//! is marked at once: to carry it on would only repeat the mark on every path. At a barrier everything pending is marked. A key never flows into the block that defines it.
//! Finally two analyses over single stores tell which bytes each mark has to cover, and whether they are all certain to
//! have been written.

use crate::bits::Bits;
use crate::model::{Access, Event, Function, Store};
use crate::plan::{Mark, MarkKind, Plan, Point, Site};

/// Stores further apart than this (in bytes) get marks of their own.
const GAP: i64 = 64;

/// Places the marks of `f`.
pub fn place(f: &Function) -> Plan {
    let flow = Flow::new(f);
    let sites = flow.sites();
    let Some(f) = sink_out_of_loops(f, &sites) else {
        return flow.plan(&sites);
    };
    let flow = Flow::new(&f);
    let sites = flow.sites();
    let mut plan = flow.plan(&sites);
    // Events were only ever removed from or added to blocks; the caller's indices of barriers must come back.
    for site in &mut plan.sites {
        if let Point::Before { block, event } = &mut site.at {
            *event = f.original_index(*block, *event);
        }
    }
    plan
}

/// A function whose events remember their index in the caller's function.
struct Moved {
    f: Function,
    index: Vec<Vec<u32>>,
}

impl std::ops::Deref for Moved {
    type Target = Function;
    fn deref(&self) -> &Function {
        &self.f
    }
}

impl Moved {
    fn original_index(&self, block: u32, event: u32) -> u32 {
        self.index[block as usize][event as usize]
    }
}

/// Moves stores through loop-invariant keys out of loops without barriers, where a mark would otherwise be needed inside
/// the loop. Returns nothing if there is none.
fn sink_out_of_loops(f: &Function, sites: &[(Point, Bits)]) -> Option<Moved> {
    let mut moves: Vec<(usize, usize)> = Vec::new();
    let reaches = reaches_barrier(f, &f.preds());
    for (l, lp) in f.loops.iter().enumerate() {
        let barrier = |&b: &u32| f.blocks[b as usize].events.contains(&Event::Barrier);
        let endless = |&e: &u32| !reaches[e as usize];
        if lp.exits.is_empty() || lp.blocks.iter().any(barrier) || lp.exits.iter().any(endless) {
            continue;
        }
        let inside = |b: u32| lp.blocks.contains(&b);
        for (point, keys) in sites {
            let here = match *point {
                Point::Before { block, .. } | Point::Start(block) | Point::End(block) => {
                    inside(block)
                }
                Point::Edge(from, to) => inside(from) && inside(to),
            };
            if here {
                for key in keys.iter() {
                    let outer = |&(m, k): &(usize, usize)| {
                        k == key && lp.blocks.iter().all(|b| f.loops[m].blocks.contains(b))
                    };
                    if !f.keys[key].def.is_some_and(inside) && !moves.iter().any(outer) {
                        moves.push((l, key));
                    }
                }
            }
        }
    }
    if moves.is_empty() {
        return None;
    }
    let mut blocks: Vec<Vec<(u32, Event)>> = f
        .blocks
        .iter()
        .map(|b| {
            b.events
                .iter()
                .enumerate()
                .map(|(i, &e)| (i as u32, e))
                .collect()
        })
        .collect();
    for (l, key) in moves {
        let mut moved: Vec<Store> = Vec::new();
        for &b in &f.loops[l].blocks {
            blocks[b as usize].retain(|(_, e)| match e {
                Event::Store(s) if s.key as usize == key => {
                    let s = Store {
                        certain: false,
                        ..*s
                    };
                    if !moved.contains(&s) {
                        moved.push(s);
                    }
                    false
                }
                _ => true,
            });
        }
        for &exit in &f.loops[l].exits {
            blocks[exit as usize].splice(0..0, moved.iter().map(|&s| (u32::MAX, Event::Store(s))));
        }
    }
    let mut g = f.clone();
    let mut index = Vec::new();
    for (block, events) in g.blocks.iter_mut().zip(blocks) {
        index.push(events.iter().map(|e| e.0).collect());
        block.events = events.into_iter().map(|e| e.1).collect();
    }
    Some(Moved { f: g, index })
}

struct Flow<'f> {
    f: &'f Function,
    preds: Vec<Vec<u32>>,
    /// Keys that may flow unmarked into each block.
    flows_in: Vec<Bits>,
    /// Keys that flow out of each block, if they are pending there.
    flows_out: Vec<Bits>,
}

impl<'f> Flow<'f> {
    fn new(f: &'f Function) -> Self {
        let preds = f.preds();
        let closed = never_flows(f, &preds);
        let anticipated = anticipated(f, &preds, &closed);
        let flows_out = shareable(f, &preds);
        let flows_in = pending(f, &preds, &closed, &anticipated, &flows_out);
        Self {
            f,
            preds,
            flows_in,
            flows_out,
        }
    }

    /// The points that need marks, with the keys to mark.
    fn sites(&self) -> Vec<(Point, Bits)> {
        let mut sites = Vec::new();
        for (b, block) in self.f.blocks.iter().enumerate() {
            let mut now = self.flows_in[b].clone();
            for (i, event) in block.events.iter().enumerate() {
                match event {
                    Event::Store(s) => now.set(s.key as usize),
                    Event::Barrier => {
                        if !now.is_empty() {
                            sites.push((
                                Point::Before {
                                    block: b as u32,
                                    event: i as u32,
                                },
                                now.clone(),
                            ));
                        }
                        now.clear();
                    }
                }
            }
            if block.succs.is_empty() {
                if !now.is_empty() {
                    sites.push((Point::End(b as u32), now));
                }
                continue;
            }
            // What no successor accepts is marked once, at the end of the block.
            let mut all = now.clone();
            for &s in &block.succs {
                all.minus(&self.flows_in[s as usize]);
            }
            let mut stops = now.clone();
            stops.minus(&self.flows_out[b]);
            all.or(&stops);
            if !all.is_empty() {
                sites.push((Point::End(b as u32), all.clone()));
            }
            now.minus(&all);
            for &s in &block.succs {
                let mut edge = now.clone();
                edge.minus(&self.flows_in[s as usize]);
                if !edge.is_empty() {
                    let at = match self.preds[s as usize].len() {
                        1 => Point::Start(s),
                        _ => Point::Edge(b as u32, s),
                    };
                    sites.push((at, edge));
                }
            }
        }
        sites
    }

    /// Computes what each mark covers.
    fn plan(&self, sites: &[(Point, Bits)]) -> Plan {
        let stores: Vec<Store> = self
            .f
            .blocks
            .iter()
            .flat_map(|b| &b.events)
            .filter_map(|e| match e {
                Event::Store(s) => Some(*s),
                Event::Barrier => None,
            })
            .collect();
        let reach = Reach::new(self, &stores);
        let mut plan = Plan::default();
        for (at, keys) in sites {
            let (may, must) = reach.at(*at);
            let mut marks: Vec<Mark> = Vec::new();
            for key in keys.iter() {
                let covered: Vec<(Store, bool)> = may
                    .iter()
                    .filter(|&s| stores[s].key as usize == key)
                    .map(|s| (stores[s], must.has(s)))
                    .collect();
                marks.extend(cover(&covered).into_iter().map(|kind| Mark {
                    key: key as u32,
                    kind,
                }));
            }
            marks.sort_by_key(|m| self.f.keys[m.key as usize].root);
            if !marks.is_empty() {
                plan.sites.push(Site { at: *at, marks });
            }
        }
        plan
    }
}

/// The fewest marks that cover `stores` (of one key), each with whether it is pending on all paths.
///
/// A line mark needs a store that is certain: one pending on all paths, or the only span there is (the key is pending on
/// all paths, so one of its stores happened).
fn cover(stores: &[(Store, bool)]) -> Vec<MarkKind> {
    let mut spans: Vec<(i64, i64, bool)> = Vec::new();
    let only = stores.windows(2).all(|w| w[0].0.access == w[1].0.access);
    for &(store, must) in stores {
        match store.access {
            Access::Whole => return vec![MarkKind::Whole],
            Access::Fixed { lo, hi, one_line } => {
                spans.push((lo, hi, one_line && store.certain && (must || only)))
            }
        }
    }
    spans.sort_unstable();
    spans.dedup();
    let mut kinds: Vec<MarkKind> = Vec::new();
    let mut group: Option<(i64, i64, Option<i64>)> = None;
    for (lo, hi, line) in spans {
        group = match group {
            // Different spans, or one span that is not always safe to mark by its line.
            Some((glo, ghi, _)) if lo - ghi < GAP => Some((glo, ghi.max(hi), None)),
            done => {
                kinds.extend(done.map(finish));
                Some((lo, hi, line.then_some(lo)))
            }
        };
    }
    kinds.extend(group.map(finish));
    kinds
}

fn finish((lo, hi, line): (i64, i64, Option<i64>)) -> MarkKind {
    line.map_or(MarkKind::Range(lo, hi), MarkKind::Line)
}

/// For each block the keys that must not flow into it: those it defines, and all keys where no barrier can be reached (an
/// endless loop has no later point that could mark).
fn never_flows(f: &Function, preds: &[Vec<u32>]) -> Vec<Bits> {
    let keys = f.keys.len();
    let reaches = reaches_barrier(f, preds);
    let mut closed: Vec<Bits> = reaches
        .iter()
        .map(|&r| {
            if r {
                Bits::empty(keys)
            } else {
                Bits::full(keys)
            }
        })
        .collect();
    for (k, key) in f.keys.iter().enumerate() {
        if let Some(def) = key.def {
            closed[def as usize].set(k);
        }
    }
    if let Some(entry) = closed.first_mut() {
        *entry = Bits::full(keys);
    }
    closed
}

/// The blocks from which a barrier or an exit can be reached.
fn reaches_barrier(f: &Function, preds: &[Vec<u32>]) -> Vec<bool> {
    let mut reaches = vec![false; f.blocks.len()];
    let mut work: Vec<u32> = Vec::new();
    for (b, block) in f.blocks.iter().enumerate() {
        if block.succs.is_empty() || block.events.contains(&Event::Barrier) {
            reaches[b] = true;
            work.push(b as u32);
        }
    }
    while let Some(b) = work.pop() {
        for &p in &preds[b as usize] {
            if !std::mem::replace(&mut reaches[p as usize], true) {
                work.push(p);
            }
        }
    }
    reaches
}

/// Per block, the keys anticipated at its start.
fn anticipated(f: &Function, preds: &[Vec<u32>], closed: &[Bits]) -> Vec<Bits> {
    let keys = f.keys.len();
    let mut at_start = vec![Bits::empty(keys); f.blocks.len()];
    let mut work: Vec<u32> = (0..f.blocks.len() as u32).collect();
    while let Some(b) = work.pop() {
        let block = &f.blocks[b as usize];
        let mut now = match block.succs.is_empty() {
            true => Bits::empty(keys),
            false => Bits::full(keys),
        };
        for &s in &block.succs {
            now.and(&at_start[s as usize]);
        }
        for event in block.events.iter().rev() {
            match event {
                Event::Store(s) => now.set(s.key as usize),
                Event::Barrier => now.clear(),
            }
        }
        now.minus(&closed[b as usize]);
        if now != at_start[b as usize] {
            at_start[b as usize] = now;
            work.extend(&preds[b as usize]);
        }
    }
    at_start
}

/// Per block, the keys worth carrying over its end: all if there is one way on, else those whose root some path stores to
/// again before a barrier.
fn shareable(f: &Function, preds: &[Vec<u32>]) -> Vec<Bits> {
    let roots = f
        .keys
        .iter()
        .map(|k| k.root as usize + 1)
        .max()
        .unwrap_or(0);
    let mut at_start = vec![Bits::empty(roots); f.blocks.len()];
    let mut work: Vec<u32> = (0..f.blocks.len() as u32).collect();
    let at_end = |at_start: &[Bits], b: usize| {
        let mut now = Bits::empty(roots);
        for &s in &f.blocks[b].succs {
            now.or(&at_start[s as usize]);
        }
        now
    };
    while let Some(b) = work.pop() {
        let mut now = at_end(&at_start, b as usize);
        for event in f.blocks[b as usize].events.iter().rev() {
            match event {
                Event::Store(s) => now.set(f.keys[s.key as usize].root as usize),
                Event::Barrier => now.clear(),
            }
        }
        if now != at_start[b as usize] {
            at_start[b as usize] = now;
            work.extend(&preds[b as usize]);
        }
    }
    (0..f.blocks.len())
        .map(|b| {
            if f.blocks[b].succs.len() < 2 {
                return Bits::full(f.keys.len());
            }
            let again = at_end(&at_start, b);
            let mut keys = Bits::empty(f.keys.len());
            for (k, key) in f.keys.iter().enumerate() {
                if again.has(key.root as usize) {
                    keys.set(k);
                }
            }
            keys
        })
        .collect()
}

/// Per block, the keys that may flow in unmarked.
fn pending(
    f: &Function,
    preds: &[Vec<u32>],
    closed: &[Bits],
    anticipated: &[Bits],
    flows_out: &[Bits],
) -> Vec<Bits> {
    let keys = f.keys.len();
    let mut flows_in = vec![Bits::full(keys); f.blocks.len()];
    let mut out = vec![Bits::full(keys); f.blocks.len()];
    let mut work: Vec<u32> = (0..f.blocks.len() as u32).rev().collect();
    while let Some(b) = work.pop() {
        let mut now = Bits::full(keys);
        for &p in &preds[b as usize] {
            now.and(&out[p as usize]);
        }
        now.or(&anticipated[b as usize]);
        now.minus(&closed[b as usize]);
        flows_in[b as usize] = now.clone();
        for event in &f.blocks[b as usize].events {
            match event {
                Event::Store(s) => now.set(s.key as usize),
                Event::Barrier => now.clear(),
            }
        }
        now.and(&flows_out[b as usize]);
        if now != out[b as usize] {
            out[b as usize] = now;
            work.extend(&f.blocks[b as usize].succs);
        }
    }
    flows_in
}

/// Which stores reach each block unmarked: on some path, and on all paths.
struct Reach<'a> {
    flow: &'a Flow<'a>,
    stores: &'a [Store],
    /// Index of the first store of each block.
    first: Vec<usize>,
    may_in: Vec<Bits>,
    must_in: Vec<Bits>,
}

impl<'a> Reach<'a> {
    fn new(flow: &'a Flow<'a>, stores: &'a [Store]) -> Self {
        let f = flow.f;
        let n = stores.len();
        let mut first = Vec::with_capacity(f.blocks.len());
        let mut next = 0;
        for b in &f.blocks {
            first.push(next);
            next += b
                .events
                .iter()
                .filter(|e| matches!(e, Event::Store(_)))
                .count();
        }
        // The stores whose key may flow into each block, and out of it.
        let of_keys = |keys: &Bits| {
            let mut g = Bits::empty(n);
            for (i, s) in stores.iter().enumerate() {
                if keys.has(s.key as usize) {
                    g.set(i);
                }
            }
            g
        };
        let gate: Vec<Bits> = flow.flows_in.iter().map(of_keys).collect();
        let leave: Vec<Bits> = flow.flows_out.iter().map(of_keys).collect();
        let blocks = f.blocks.len();
        let mut reach = Self {
            flow,
            stores,
            first,
            may_in: vec![Bits::empty(n); blocks],
            must_in: gate.clone(),
        };
        let mut may_out = vec![Bits::empty(n); blocks];
        let mut must_out = vec![Bits::full(n); blocks];
        let mut work: Vec<u32> = (0..blocks as u32).rev().collect();
        while let Some(b) = work.pop() {
            let bi = b as usize;
            let mut may = Bits::empty(n);
            let mut must = Bits::full(n);
            for &p in &flow.preds[bi] {
                may.or(&may_out[p as usize]);
                must.and(&must_out[p as usize]);
            }
            may.and(&gate[bi]);
            must.and(&gate[bi]);
            reach.may_in[bi] = may.clone();
            reach.must_in[bi] = must.clone();
            let all = f.blocks[bi].events.len();
            reach.step(b, all, &mut may, &mut must);
            may.and(&leave[bi]);
            must.and(&leave[bi]);
            if may != may_out[bi] || must != must_out[bi] {
                may_out[bi] = may;
                must_out[bi] = must;
                work.extend(&f.blocks[bi].succs);
            }
        }
        reach
    }

    /// Applies the first `events` events of block `b`.
    fn step(&self, b: u32, events: usize, may: &mut Bits, must: &mut Bits) {
        let mut id = self.first[b as usize];
        for event in &self.flow.f.blocks[b as usize].events[..events] {
            match event {
                Event::Store(s) => {
                    debug_assert_eq!(*s, self.stores[id]);
                    may.set(id);
                    must.set(id);
                    id += 1;
                }
                Event::Barrier => {
                    may.clear();
                    must.clear();
                }
            }
        }
    }

    /// The stores pending at a point: on some path, on all paths.
    fn at(&self, at: Point) -> (Bits, Bits) {
        let (b, events) = match at {
            Point::Before { block, event } => (block, event as usize),
            Point::End(b) | Point::Edge(b, _) => (b, self.flow.f.blocks[b as usize].events.len()),
            // Only used for a block with one predecessor.
            Point::Start(b) => {
                let p = self.flow.preds[b as usize][0];
                (p, self.flow.f.blocks[p as usize].events.len())
            }
        };
        let mut may = self.may_in[b as usize].clone();
        let mut must = self.must_in[b as usize].clone();
        self.step(b, events, &mut may, &mut must);
        (may, must)
    }
}

#[cfg(test)]
mod tests;
