//! The placement against hand-made functions and against random ones under the path checker.

use proptest::prelude::*;

use super::place;
use crate::check::check;
use crate::model::{Access, Block, Event, Function, Key, Loop, Store};
use crate::plan::{MarkKind, Plan, Point};

fn store(key: u32, lo: i64) -> Event {
    Event::Store(Store {
        key,
        access: Access::Fixed {
            lo,
            hi: lo + 8,
            one_line: true,
        },
        certain: true,
    })
}

fn block(succs: &[u32], events: &[Event]) -> Block {
    Block {
        succs: succs.to_vec(),
        events: events.to_vec(),
    }
}

fn function(keys: &[(u32, Option<u32>)], blocks: Vec<Block>) -> Function {
    let keys = keys.iter().map(|&(root, def)| Key { root, def }).collect();
    Function {
        keys,
        blocks,
        loops: vec![],
    }
}

fn placed(f: &Function) -> Plan {
    let plan = place(f);
    check(f, &plan).unwrap_or_else(|e| panic!("{e}\n{f:?}\n{plan:?}"));
    plan
}

const B: Event = Event::Barrier;

#[test]
fn fields_of_one_object_share_a_mark() {
    let plan = placed(&function(
        &[(0, None)],
        vec![block(&[], &[store(0, 0), store(0, 16), B])],
    ));
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].marks.len(), 1);
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Range(0, 24));
}

#[test]
fn one_field_marks_its_line() {
    let plan = placed(&function(
        &[(0, None)],
        vec![block(&[], &[store(0, 8), store(0, 8), B])],
    ));
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Line(8));
}

#[test]
fn far_fields_get_their_own_marks() {
    let plan = placed(&function(
        &[(0, None)],
        vec![block(&[], &[store(0, 0), store(0, 4096), B])],
    ));
    let kinds: Vec<_> = plan.sites[0].marks.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [MarkKind::Line(0), MarkKind::Line(4096)]);
}

#[test]
fn a_barrier_parts_stretches() {
    let plan = placed(&function(
        &[(0, None)],
        vec![block(&[], &[store(0, 0), B, store(0, 8), B])],
    ));
    assert_eq!(plan.sites.len(), 2);
}

#[test]
fn both_arms_store_the_join_marks() {
    let plan = placed(&function(
        &[(0, None)],
        vec![
            block(&[1, 2], &[]),
            block(&[3], &[store(0, 0)]),
            block(&[3], &[store(0, 8)]),
            block(&[], &[B]),
        ],
    ));
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].at, Point::Before { block: 3, event: 0 });
    // Neither store is certain at the join, so no single line may be marked.
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Range(0, 16));
}

#[test]
fn one_arm_stores_that_arm_marks() {
    let plan = placed(&function(
        &[(0, None)],
        vec![
            block(&[1, 2], &[]),
            block(&[2], &[store(0, 0)]),
            block(&[], &[B]),
        ],
    ));
    assert_eq!(plan.sites[0].at, Point::End(1));
}

#[test]
fn a_later_store_on_all_paths_takes_the_mark_over() {
    let plan = placed(&function(
        &[(0, None)],
        vec![
            block(&[1, 2], &[]),
            block(&[2], &[store(0, 0)]),
            block(&[], &[store(0, 8), B]),
        ],
    ));
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].at, Point::Before { block: 2, event: 1 });
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Range(0, 16));
}

#[test]
fn a_branch_does_not_repeat_a_mark_that_nothing_shares() {
    let plan = placed(&function(
        &[(0, None)],
        vec![
            block(&[1, 2], &[store(0, 0)]),
            block(&[], &[B]),
            block(&[], &[B]),
        ],
    ));
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].at, Point::End(0));
}

#[test]
fn an_invariant_store_in_a_loop_is_marked_after_it() {
    let plan = placed(&function(
        &[(0, None)],
        vec![
            block(&[1], &[]),
            block(&[1, 2], &[store(0, 0)]),
            block(&[], &[B]),
        ],
    ));
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].at, Point::Before { block: 2, event: 0 });
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Line(0));
}

#[test]
fn a_conditional_store_in_a_loop_moves_to_its_exit() {
    let mut f = function(
        &[(0, None)],
        vec![
            block(&[1], &[]),
            block(&[2, 3], &[]),
            block(&[3], &[store(0, 0)]),
            block(&[1, 4], &[]),
            block(&[], &[B]),
        ],
    );
    f.loops = vec![Loop {
        blocks: vec![1, 2, 3],
        exits: vec![4],
    }];
    let plan = placed(&f);
    assert_eq!(plan.sites.len(), 1);
    assert_eq!(plan.sites[0].at, Point::Before { block: 4, event: 0 });
    assert_eq!(plan.sites[0].marks[0].kind, MarkKind::Range(0, 8));
}

#[test]
fn a_pointer_that_advances_is_marked_each_time() {
    // Key 0 is a phi of the loop's header.
    let plan = placed(&function(
        &[(0, Some(1))],
        vec![
            block(&[1], &[]),
            block(&[1, 2], &[store(0, 0)]),
            block(&[], &[B]),
        ],
    ));
    assert!(
        plan.sites
            .iter()
            .any(|s| s.at == Point::Edge(1, 1) || s.at == Point::End(1)),
        "{plan:?}"
    );
}

#[test]
fn nothing_enters_an_endless_loop_unmarked() {
    let plan = placed(&function(
        &[(0, None)],
        vec![block(&[1], &[store(0, 0)]), block(&[1], &[])],
    ));
    assert_eq!(plan.sites[0].at, Point::End(0));
}

#[test]
fn a_missing_or_early_mark_is_caught_by_the_checker() {
    let f = function(
        &[(0, None)],
        vec![block(&[1], &[store(0, 0)]), block(&[], &[store(0, 8), B])],
    );
    let mut plan = place(&f);
    assert!(check(&f, &Plan::default()).is_err());
    // Marks hoisted over the second store.
    plan.sites[0].at = Point::End(0);
    assert!(check(&f, &plan).is_err());
}

/// Natural loops of a random graph, found by brute force over back edges of a depth-first walk.
fn loops(f: &Function) -> Vec<Loop> {
    let preds = f.preds();
    let n = f.blocks.len();
    let dominates = |a: u32, b: u32| {
        let mut seen = vec![false; n];
        let mut work = vec![0u32];
        while let Some(x) = work.pop() {
            if x == a || std::mem::replace(&mut seen[x as usize], true) {
                continue;
            }
            if x == b {
                return false;
            }
            work.extend(&f.blocks[x as usize].succs);
        }
        true
    };
    let mut loops: Vec<(u32, Vec<u32>)> = Vec::new();
    for latch in 0..n as u32 {
        for &header in &f.blocks[latch as usize].succs {
            if !dominates(header, latch) {
                continue;
            }
            let mut body = vec![header];
            let mut work = vec![latch];
            while let Some(b) = work.pop() {
                if !body.contains(&b) {
                    body.push(b);
                    work.extend(&preds[b as usize]);
                }
            }
            match loops.iter_mut().find(|l| l.0 == header) {
                Some(l) => body.iter().for_each(|b| {
                    if !l.1.contains(b) {
                        l.1.push(*b);
                    }
                }),
                None => loops.push((header, body)),
            }
        }
    }
    loops.sort_by_key(|l| std::cmp::Reverse(l.1.len()));
    loops
        .into_iter()
        .map(|(_, blocks)| {
            let mut exits: Vec<u32> = blocks
                .iter()
                .flat_map(|&b| &f.blocks[b as usize].succs)
                .copied()
                .filter(|s| !blocks.contains(s))
                .collect();
            exits.sort_unstable();
            exits.dedup();
            let dedicated = exits
                .iter()
                .all(|&e| preds[e as usize].iter().all(|p| blocks.contains(p)));
            Loop {
                blocks,
                exits: if dedicated { exits } else { vec![] },
            }
        })
        .collect()
}

/// Drops unreachable blocks, and stores that their key's definition does not dominate.
fn tidy(mut f: Function) -> Function {
    let n = f.blocks.len();
    let reach = |skip: Option<u32>| {
        let mut seen = vec![false; n];
        let mut work = vec![0u32];
        while let Some(x) = work.pop() {
            if Some(x) == skip || std::mem::replace(&mut seen[x as usize], true) {
                continue;
            }
            work.extend(&f.blocks[x as usize].succs);
        }
        seen
    };
    let live = reach(None);
    let without: Vec<Vec<bool>> = f
        .keys
        .iter()
        .map(|k| k.def.map_or(vec![false; n], |d| reach(Some(d))))
        .collect();
    for (b, block) in f.blocks.iter_mut().enumerate() {
        block.events.retain(|e| match e {
            Event::Store(s) => live[b] && !without[s.key as usize][b],
            Event::Barrier => true,
        });
        if !live[b] {
            block.succs.clear();
        }
    }
    f.loops = loops(&f);
    f
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u32..4, 0i64..6, any::<bool>()).prop_map(|(key, lo, one_line)| {
            Event::Store(Store { key, access: Access::Fixed { lo: lo * 24, hi: lo * 24 + 8, one_line }, certain: true })
        }),
        2 => Just(Event::Barrier),
    ]
}

fn any_function() -> impl Strategy<Value = Function> {
    (2usize..8).prop_flat_map(|n| {
        let blocks = prop::collection::vec(
            (
                prop::collection::vec(1..n as u32, 0..3),
                prop::collection::vec(any_event(), 0..3),
            ),
            n,
        );
        let keys = prop::collection::vec((0u32..3, prop::option::of(0..n as u32)), 4);
        (blocks, keys).prop_map(|(blocks, keys)| {
            let blocks = blocks
                .into_iter()
                .map(|(mut succs, events)| {
                    succs.sort_unstable();
                    succs.dedup();
                    Block { succs, events }
                })
                .collect();
            let keys = keys
                .into_iter()
                .map(|(root, def)| Key { root, def })
                .collect();
            tidy(Function {
                keys,
                blocks,
                loops: vec![],
            })
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_path_obeys_the_rule(f in any_function()) {
        let plan = place(&f);
        if let Err(e) = check(&f, &plan) {
            prop_assert!(false, "{e}\n{f:#?}\n{plan:#?}");
        }
    }
}
