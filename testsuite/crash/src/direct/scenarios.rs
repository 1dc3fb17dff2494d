//! Lives of direct transactions that are explored, each with a model of its own, in a table.

use std::collections::BTreeMap;

use vernal_format::LOG_GENERATIONS;
use vernal_journal::direct::DirectError;

use super::list::{DirectList, Style};
use super::{Canonical, DirectSession, DirectSetup};
use crate::explore::Trace;
use crate::rng::Rng;

/// A life to explore.
#[derive(Clone, Copy)]
pub struct DirectScenario {
    /// Its name.
    pub name: &'static str,
    setup: DirectSetup,
    run: fn(&mut DirectSession, &mut Rng) -> Result<(), DirectError>,
    canonical: Option<Canonical>,
}

const SMALL: DirectSetup = DirectSetup {
    pool: 1024,
    log: 8192,
    files: 1,
    threads: 1,
    generation: 1,
};

/// Every life.
pub const DIRECT_SCENARIOS: &[DirectScenario] = &[
    DirectScenario {
        name: "direct-undo",
        setup: SMALL,
        run: |s, rng| list(s, rng, Style::Undo),
        canonical: None,
    },
    DirectScenario {
        name: "direct-redo",
        setup: SMALL,
        run: |s, rng| list(s, rng, Style::Redo),
        canonical: None,
    },
    DirectScenario {
        name: "direct-hybrid",
        setup: SMALL,
        run: |s, rng| list(s, rng, Style::Hybrid),
        canonical: None,
    },
    DirectScenario {
        name: "direct-fresh",
        setup: SMALL,
        run: |s, rng| list(s, rng, Style::Fresh),
        canonical: Some(DirectList::canonical),
    },
    DirectScenario {
        name: "direct-abort",
        setup: SMALL,
        run: abort,
        canonical: None,
    },
    DirectScenario {
        name: "direct-mixed",
        setup: SMALL,
        run: mixed,
        canonical: None,
    },
    DirectScenario {
        name: "direct-chain",
        setup: DirectSetup {
            pool: 8192,
            files: 4,
            ..SMALL
        },
        run: chain,
        canonical: None,
    },
    DirectScenario {
        name: "direct-threads",
        setup: DirectSetup {
            pool: 2048,
            files: 2,
            threads: 2,
            ..SMALL
        },
        run: threads,
        canonical: None,
    },
    DirectScenario {
        name: "direct-generations",
        setup: SMALL,
        run: generations,
        canonical: None,
    },
];

impl DirectScenario {
    /// The scenario of this name.
    pub fn by_name(name: &str) -> Option<&'static DirectScenario> {
        DIRECT_SCENARIOS.iter().find(|s| s.name == name)
    }

    /// Lives it once.
    pub fn trace(&self, seed: u64) -> Result<Trace, String> {
        let mut session = DirectSession::start(&self.setup).map_err(|e| e.to_string())?;
        (self.run)(&mut session, &mut Rng::new(seed)).map_err(|e| e.to_string())?;
        Ok(session.into_trace(self.canonical))
    }
}

fn same(s: &DirectSession, base: u64, model: &BTreeMap<u64, u64>) {
    let found = DirectList::walk(s.committed(), base).expect("a sound list");
    let want: Vec<_> = model.iter().map(|(k, v)| (*k, *v)).collect();
    assert_eq!(found, want, "the list differs from its model");
}

fn list(s: &mut DirectSession, rng: &mut Rng, style: Style) -> Result<(), DirectError> {
    let list = DirectList {
        thread: 0,
        base: 0,
        nodes: 12,
        style,
    };
    let mut model = BTreeMap::new();
    for i in 1..30 {
        let key = rng.below(14);
        s.begin(0);
        if rng.chance(60) {
            if list.insert(s, key, i)? {
                model.insert(key, i);
            }
        } else {
            assert_eq!(list.remove(s, key)?, model.remove(&key).is_some());
        }
        s.commit(0)?;
        same(s, 0, &model);
    }
    Ok(())
}

/// Aborts, nested and not, between commits: nothing of them may come back later.
fn abort(s: &mut DirectSession, rng: &mut Rng) -> Result<(), DirectError> {
    let mut model = BTreeMap::new();
    for i in 1..40 {
        let style = [Style::Undo, Style::Redo, Style::Hybrid][rng.below(3) as usize];
        let list = DirectList {
            thread: 0,
            base: 0,
            nodes: 12,
            style,
        };
        let before = model.clone();
        let key = rng.below(14);
        s.begin(0);
        let nested = rng.chance(50);
        if nested {
            s.begin(0);
        }
        if rng.chance(70) {
            if list.insert(s, key, i)? {
                model.insert(key, i);
            }
        } else {
            list.remove(s, key)?;
            model.remove(&key);
        }
        match rng.below(3) {
            0 => {
                s.abort(0)?;
                model = before;
                if nested {
                    assert!(matches!(s.undo(0, 0, 8), Err(DirectError::Aborted)));
                    assert!(matches!(s.commit(0), Err(DirectError::Aborted)));
                }
            }
            1 if nested => {
                s.commit(0)?;
                s.abort(0)?;
                model = before;
            }
            _ => {
                if nested {
                    s.commit(0)?;
                }
                s.commit(0)?;
            }
        }
        same(s, 0, &model);
    }
    // A long transaction that wrote entries and is gone, and a short one in its place.
    for i in 0..4u64 {
        let place = |j: u64| 128 + 64 * (7 * i + j) % 896;
        s.begin(0);
        for j in 0..6 {
            s.redo(0, place(j), &[0xbb; 8])?;
        }
        s.abort(0)?;
        s.begin(0);
        for j in 0..1 + i {
            s.redo(0, place(j + 3), &[i as u8 + 1; 8])?;
        }
        s.commit(0)?;
    }
    Ok(())
}

/// The last generations and the first ones again, while the log holds longer transactions of the first ones.
fn generations(s: &mut DirectSession, rng: &mut Rng) -> Result<(), DirectError> {
    for _ in 0..2 {
        s.begin(0);
        for j in 0..8 {
            s.set(0, 128 + 64 * j, rng.number())?;
        }
        s.commit(0)?;
    }
    s.jump(0, LOG_GENERATIONS - 2);
    for j in 0..6 {
        s.begin(0);
        s.set(0, 128 + 72 * j, rng.number())?;
        s.commit(0)?;
    }
    mixed(s, rng)
}

/// Ranges of any place and length, logged in any mixture, committed or aborted.
fn mixed(s: &mut DirectSession, rng: &mut Rng) -> Result<(), DirectError> {
    for _ in 0..24 {
        s.begin(0);
        for _ in 0..rng.below(4) {
            let most = if rng.chance(80) { 24 } else { 150 };
            let len = 1 + rng.below(most);
            let off = rng.below(1024 - len);
            let data: Vec<u8> = (0..len).map(|_| rng.number() as u8).collect();
            match rng.below(5) {
                0 | 1 => {
                    s.undo(0, off, len)?;
                    s.store_bytes(0, off, &data);
                }
                2 | 3 => s.redo(0, off, &data)?,
                _ => s.log(0).volatile(off, &data)?,
            }
        }
        if rng.chance(25) {
            s.abort(0)?;
        } else {
            s.commit(0)?;
        }
    }
    Ok(())
}

/// Transactions larger than a log file, which the log outgrows, and small ones in the long log afterwards.
fn chain(s: &mut DirectSession, rng: &mut Rng) -> Result<(), DirectError> {
    for round in 0..7u64 {
        s.begin(0);
        for i in 0..[3, 40, 70, 150, 2, 130, 1][round as usize] {
            let off = 8 * rng.below(1024);
            match (round + i) % 3 {
                0 => s.set(0, off, rng.number())?,
                1 => {
                    let off = off.min(8192 - 200);
                    s.undo(0, off, 200)?;
                    s.store(0, off + 8 * rng.below(25), rng.number());
                }
                _ => s.set(0, off, round)?,
            }
        }
        if round == 3 {
            s.abort(0)?;
        } else {
            s.commit(0)?;
        }
    }
    Ok(())
}

/// Two threads whose transactions overlap in time, each with its log, on places of their own.
fn threads(s: &mut DirectSession, rng: &mut Rng) -> Result<(), DirectError> {
    let lists = [0, 1].map(|thread| DirectList {
        thread,
        base: 1024 * thread as u64,
        nodes: 12,
        style: [Style::Undo, Style::Hybrid][thread],
    });
    let mut models = [BTreeMap::new(), BTreeMap::new()];
    let mut open = [None, None];
    for i in 1..70 {
        let t = rng.below(2) as usize;
        let (list, model) = (lists[t], &mut models[t]);
        match open[t].take() {
            None => {
                let before = model.clone();
                let key = rng.below(14);
                s.begin(t);
                if rng.chance(65) {
                    if list.insert(s, key, i)? {
                        model.insert(key, i);
                    }
                } else {
                    list.remove(s, key)?;
                    model.remove(&key);
                }
                open[t] = Some(before);
            }
            Some(before) => {
                if rng.chance(20) {
                    s.abort(t)?;
                    *model = before;
                } else {
                    s.commit(t)?;
                }
                same(s, list.base, model);
            }
        }
    }
    Ok(())
}
