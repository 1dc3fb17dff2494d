//! The lives that are explored: each a small program with a model of its own, in a table.

use std::collections::BTreeMap;

use vernal_journal::JournalError;

use crate::explore::Trace;
use crate::rng::Rng;
use crate::session::{Session, Setup, SnapshotMemory};
use crate::structures::{BTree, Heap, Kv, List};
use crate::world::Geometry;

/// A life to explore.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Lengths of its files.
    lens: &'static [u64],
    /// Length of its journal, and up to which it grows.
    log: (u64, u64),
    run: fn(&mut Session, &mut Rng) -> Result<(), JournalError>,
    /// What must hold in each committed state.
    walk: fn(&SnapshotMemory<'_>, u64) -> Result<(), String>,
}

/// Every life.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "list",
        lens: &[4096],
        log: (8192, 0),
        run: list,
        walk: walk_list,
    },
    Scenario {
        name: "btree",
        lens: &[16384],
        log: (8192, 0),
        run: btree,
        walk: walk_btree,
    },
    Scenario {
        name: "kv",
        lens: &[8192],
        log: (8192, 0),
        run: kv,
        walk: walk_kv,
    },
    Scenario {
        name: "two-files",
        lens: &[1024, 1024, 512],
        log: (8192, 0),
        run: two_files,
        walk: anything,
    },
    Scenario {
        name: "runs",
        lens: &[1024, 333],
        log: (8192, 0),
        run: runs,
        walk: anything,
    },
    Scenario {
        name: "resize",
        lens: &[1000, 300],
        log: (8192, 0),
        run: resize,
        walk: anything,
    },
    Scenario {
        name: "checkpoint",
        lens: &[2048],
        log: (4096, 0),
        run: checkpoint,
        walk: walk_list,
    },
    Scenario {
        name: "growing-log",
        lens: &[2048],
        log: (4096, 16384),
        run: asynchronous,
        walk: walk_list,
    },
    Scenario {
        name: "async",
        lens: &[2048],
        log: (8192, 0),
        run: asynchronous,
        walk: walk_list,
    },
    Scenario {
        name: "grow-journal",
        lens: &[16384],
        log: (4096, 0),
        run: grow_journal,
        walk: anything,
    },
    Scenario {
        name: "abort",
        lens: &[2048],
        log: (8192, 0),
        run: abort,
        walk: walk_list,
    },
    Scenario {
        name: "sessions",
        lens: &[1024, 700],
        log: (4096, 0),
        run: sessions,
        walk: anything,
    },
];

impl Scenario {
    /// The scenario of this name.
    pub fn by_name(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|s| s.name == name)
    }

    /// Lives it once and checks each committed state.
    pub fn trace(&self, geometry: Geometry, seed: u64) -> Result<Trace, String> {
        let setup = Setup {
            geometry,
            lens: self.lens.to_vec(),
            log_len: self.log.0,
            grow_to: self.log.1,
        };
        let mut session = Session::start(&setup).map_err(|e| e.to_string())?;
        (self.run)(&mut session, &mut Rng::new(seed)).map_err(|e| e.to_string())?;
        let base = session.base(0);
        for (k, snapshot) in session.oracle().snapshots.iter().enumerate().skip(1) {
            (self.walk)(&SnapshotMemory::new(snapshot), base)
                .map_err(|e| format!("commit {k}: {e}"))?;
        }
        Ok(session.into_trace())
    }
}

fn anything(_: &SnapshotMemory<'_>, _: u64) -> Result<(), String> {
    Ok(())
}
fn walk_list(memory: &SnapshotMemory<'_>, base: u64) -> Result<(), String> {
    List::walk(memory, base).map(drop)
}
fn walk_btree(memory: &SnapshotMemory<'_>, base: u64) -> Result<(), String> {
    BTree::walk(memory, base).map(drop)
}
fn walk_kv(memory: &SnapshotMemory<'_>, base: u64) -> Result<(), String> {
    Kv::walk(memory, base).map(drop)
}

/// Compares the newest committed state with the model.
fn same(
    s: &Session,
    model: &BTreeMap<u64, u64>,
    walk: impl Fn(&SnapshotMemory<'_>, u64) -> Result<Vec<(u64, u64)>, String>,
) {
    let newest = s
        .oracle()
        .snapshots
        .last()
        .expect("the first state is always there");
    let found = walk(&SnapshotMemory::new(newest), s.base(0)).expect("a sound structure");
    assert_eq!(
        found,
        model.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(),
        "the structure differs from its model"
    );
}

fn list(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let list = List::new(Heap::format(s, 0));
    let mut model = BTreeMap::new();
    for i in 0..40 {
        let key = rng.below(16);
        if rng.chance(60) {
            list.insert(s, key, i);
            model.insert(key, i);
        } else {
            assert_eq!(list.remove(s, key), model.remove(&key).is_some());
        }
        s.commit()?;
    }
    same(s, &model, |m, b| List::walk(m, b));
    s.close()
}

fn btree(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let heap = Heap::format(s, 0);
    let tree = BTree::new(s, heap);
    let mut model = BTreeMap::new();
    for i in 0..60 {
        tree.insert(s, i * 7 % 61, i);
        model.insert(i * 7 % 61, i);
        if i % 4 == 3 {
            s.commit()?;
        }
    }
    for i in 0..60 {
        let key = rng.below(61);
        assert_eq!(tree.remove(s, key), model.remove(&key).is_some());
        if i % 2 == 1 {
            s.commit()?;
        }
    }
    same(s, &model, |m, b| BTree::walk(m, b));
    s.close()
}

fn kv(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let heap = Heap::format(s, 0);
    let kv = Kv::new(s, heap);
    let mut model = BTreeMap::new();
    for i in 0..70 {
        let key = rng.below(48);
        if rng.chance(75) {
            kv.put(s, key, i);
            model.insert(key, i);
        } else {
            assert_eq!(kv.remove(s, key), model.remove(&key).is_some());
        }
        if i % 2 == 0 {
            s.commit()?;
        }
    }
    s.commit()?;
    same(s, &model, |m, b| Kv::walk(m, b));
    s.close()
}

/// Changes neighbouring lines, whole and in part, of files one of which ends inside a line; plain commits between others.
fn runs(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    for _ in 0..30 {
        for _ in 0..1 + rng.below(3) {
            let file = rng.below(2) as usize;
            let words = s.len(file) / 8;
            let from = rng.below(words);
            let to = words.min(from + 1 + rng.below(40));
            for word in from..to {
                s.store(s.base(file) + 8 * word, rng.number());
            }
        }
        match rng.below(4) {
            0 => s.commit()?,
            1 => {
                s.commit_async()?;
                s.store(s.base(0), rng.number());
                // Something is pending: this one cannot be plain.
                s.commit_plainly()?;
            }
            _ => s.commit_plainly()?,
        }
    }
    s.close()
}

/// Moves amounts between files: a commit that is not atomic across them changes the sum.
fn two_files(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    for i in 0..30 {
        let amount = rng.number();
        for (file, sign) in [(0, 1), (1, -1i64), (2, if i % 3 == 0 { 1 } else { 0 })] {
            let addr = s.base(file) + 8 * rng.below(s.len(file) / 8);
            let value = s.load(addr).wrapping_add(amount.wrapping_mul(sign as u64));
            s.store(addr, value);
        }
        s.commit()?;
        if i == 12 {
            s.remove_file(2)?;
            s.add_file(2)?;
        }
    }
    s.close()
}

/// Grows and shrinks through lengths that end within a word, a line, a page.
fn resize(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    for i in 0..36 {
        let file = (i % 5 == 4) as usize;
        if i % 3 != 1 {
            let len = [1000, 1003, 64, 1, 2500, 777, 512, 513, 0, 3000, 2048, 127]
                [rng.below(12) as usize];
            s.set_len(file, len)?;
        }
        if i % 7 == 6 {
            // Down and up in one commit: what was cut is zero.
            let len = s.len(file);
            s.set_len(file, len / 3)?;
            s.set_len(file, len)?;
        }
        for _ in 0..3 {
            let words = s.len(file).div_ceil(8);
            if words > 0 {
                let addr = s.base(file) + 8 * rng.below(words);
                // The last word may be cut by the end; what lies beyond must not come back.
                let kept = (s.base(file) + s.len(file) - addr).min(8) as u32;
                s.store(addr, rng.number() & (u64::MAX >> (64 - 8 * kept)));
            }
        }
        s.commit()?;
        if i == 20 {
            s.committer().checkpoint()?;
        }
    }
    s.close()
}

/// A journal of one page: recycled every few commits.
fn checkpoint(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let list = List::new(Heap::format(s, 0));
    for i in 0..60 {
        list.insert(s, rng.below(12), i);
        if rng.chance(40) {
            list.remove(s, rng.below(12));
        }
        s.commit()?;
    }
    s.close()
}

fn asynchronous(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let list = List::new(Heap::format(s, 0));
    for i in 0..60 {
        if rng.chance(60) {
            list.insert(s, rng.below(14), i);
        } else {
            list.remove(s, rng.below(14));
        }
        match rng.below(6) {
            0 => s.commit()?,
            1 => {
                s.commit_async()?;
                s.flush()?;
            }
            _ => s.commit_async()?,
        }
    }
    s.flush()?;
    s.close()
}

/// Commits larger than the journal.
fn grow_journal(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    for round in 1..4u64 {
        for i in 0..600 * round {
            let addr = s.base(0) + 8 * (i % 2000);
            s.store(addr, rng.number());
        }
        s.commit()?;
        let addr = s.base(0) + 8 * rng.below(2048);
        s.store(addr, round);
        s.commit()?;
    }
    s.close()
}

fn abort(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    let list = List::new(Heap::format(s, 0));
    s.commit()?;
    for i in 0..50 {
        let before = List::walk(
            &SnapshotMemory::new(s.oracle().snapshots.last().expect("committed")),
            s.base(0),
        );
        list.insert(s, rng.below(14), i);
        list.remove(s, rng.below(14));
        match rng.below(4) {
            0 => s.commit()?,
            1 => s.commit_async()?,
            _ => {
                s.abort();
                s.commit()?;
                let newest = s.oracle().snapshots.last().expect("committed");
                assert_eq!(
                    List::walk(&SnapshotMemory::new(newest), s.base(0)),
                    before,
                    "abort left something"
                );
            }
        }
    }
    s.flush()?;
    s.close()
}

/// Closes, opens again, dies and restarts, with a new journal each time.
fn sessions(s: &mut Session, rng: &mut Rng) -> Result<(), JournalError> {
    for life in 0..4 {
        for i in 0..8 {
            let file = rng.below(2) as usize;
            let addr = s.base(file) + 8 * rng.below(s.len(file) / 8);
            s.store(addr, rng.number());
            if i == 3 && life % 2 == 0 {
                let len = s.len(1) + 72;
                s.set_len(1, len)?;
            }
            s.commit()?;
        }
        match life {
            0 => {
                s.close()?;
                s.open()?;
            }
            3 => s.close()?,
            _ => s.die_and_restart()?,
        }
    }
    Ok(())
}
