//! What a commit costs: exactly one flush on the critical path, counted by the media.

use vernal_crash::session::{Session, Setup};
use vernal_crash::world::{Geometry, SharedWorld};

fn flushes(world: &SharedWorld) -> Vec<u64> {
    world.borrow().flushes.clone()
}

fn session(geometry: Geometry) -> Session {
    Session::start(&Setup {
        geometry,
        lens: vec![4096, 4096],
        log_len: 1 << 20,
        grow_to: 0,
    })
    .unwrap()
}

/// Journal of a session of two files.
const JOURNAL: usize = 4;

#[test]
fn a_commit_is_exactly_one_flush_of_the_journal() {
    for geometry in [Geometry::DAX, Geometry::SECTOR, Geometry::BLOCK] {
        let mut s = session(geometry);
        for i in 0..50 {
            for file in 0..2 {
                let addr = s.base(file) + 8 * (i * 13 % 512);
                s.store(addr, i + 1);
            }
            let before = flushes(s.world());
            s.commit().unwrap();
            let mut expected = before;
            expected[JOURNAL] += 1;
            assert_eq!(
                flushes(s.world()),
                expected,
                "commit {i} on {}",
                geometry.name()
            );
        }
    }
}

#[test]
fn an_empty_commit_is_no_flush() {
    let mut s = session(Geometry::DAX);
    let addr = s.base(0);
    s.store(addr, 0);
    let before = flushes(s.world());
    s.commit().unwrap();
    assert_eq!(flushes(s.world()), before);
}

#[test]
fn any_number_of_asynchronous_commits_is_one_flush() {
    for geometry in [Geometry::DAX, Geometry::SECTOR] {
        let mut s = session(geometry);
        let before = flushes(s.world());
        for i in 0..20 {
            let addr = s.base(0) + 8 * (i % 7);
            s.store(addr, i + 1);
            s.commit_async().unwrap();
        }
        assert_eq!(
            flushes(s.world()),
            before,
            "asynchronous commits wait for nothing"
        );
        s.flush().unwrap();
        let mut expected = before;
        expected[JOURNAL] += 1;
        assert_eq!(flushes(s.world()), expected);
    }
}

#[test]
fn small_commits_after_asynchronous_ones_share_a_block() {
    let mut s = session(Geometry::SECTOR);
    let free = s.committer().journal().free_bytes();
    for i in 0..20 {
        let addr = s.base(0) + 8 * i;
        s.store(addr, i + 1);
        s.commit_async().unwrap();
    }
    s.flush().unwrap();
    assert_eq!(
        free - s.committer().journal().free_bytes(),
        4096,
        "20 records of 64 bytes fit one block"
    );
}

#[test]
fn a_checkpoint_starts_a_new_generation_at_the_front_of_the_log() {
    for geometry in [Geometry::DAX, Geometry::SECTOR] {
        let mut s = session(geometry);
        for i in 0..5 {
            let addr = s.base(0) + 8 * i;
            s.store(addr, i + 1);
            s.commit().unwrap();
        }
        let (generation, sequence) = (
            s.committer().journal().generation(),
            s.committer().journal().next_sequence(),
        );
        let before = flushes(s.world());
        s.committer().checkpoint().unwrap();
        let journal = s.committer().journal();
        // Either would do to keep stale records dead; a journal has both.
        assert_eq!(journal.generation(), generation + 1);
        assert_eq!(journal.next_sequence(), sequence, "sequences go on");
        assert_eq!(journal.free_bytes(), journal.capacity());
        // One for the home that was written, two for the superblock's slots.
        let after = flushes(s.world());
        assert_eq!(after[0] - before[0], 1);
        assert_eq!(
            after[2] - before[2],
            0,
            "a home that was not written is not flushed"
        );
        assert_eq!(after[JOURNAL] - before[JOURNAL], 2);
    }
}
