//! Media that fail: full, read-only, torn, erring. What was committed stays, nothing is half-applied, the message helps.

use std::io::ErrorKind;

use vernal_crash::explore::recover_all;
use vernal_crash::session::{Session, Setup};
use vernal_crash::world::{Fault, FaultOn, Geometry, SharedWorld, World};
use vernal_journal::JournalError;

const HOME: u16 = 0;
const META: u16 = 1;
const JOURNAL: u16 = 2;
const GEOMETRIES: [Geometry; 3] = [Geometry::DAX, Geometry::SECTOR, Geometry::BLOCK];

fn session(geometry: Geometry, log_len: u64) -> Session {
    let mut s = Session::start(&Setup {
        geometry,
        lens: vec![1024],
        log_len,
        grow_to: 0,
    })
    .unwrap();
    for i in 0..5 {
        put(&mut s, i, 100 + i);
        s.commit().unwrap();
    }
    s
}

fn put(s: &mut Session, word: u64, value: u64) {
    let addr = s.base(0) + 8 * word;
    s.store(addr, value);
}

fn fault(on: FaultOn, medium: u16, kind: ErrorKind) -> Fault {
    Fault {
        medium,
        on,
        after: 0,
        kind,
        short: 0,
        forever: false,
    }
}

fn plan(s: &Session, fault: Fault) {
    s.world().borrow_mut().faults.push(fault);
}

/// What recovery makes of the media as they are, with no more faults.
fn recovered(s: &Session) -> Vec<u8> {
    let world: SharedWorld = World {
        faults: Vec::new(),
        ..s.world().borrow().clone()
    }
    .shared();
    recover_all(&world, &s.places()).unwrap();
    world.borrow().content(HOME).to_vec()
}

fn snapshot(s: &Session, back: usize) -> Vec<u8> {
    let all = &s.oracle().snapshots;
    all[all.len() - 1 - back][0].clone()
}

#[test]
fn a_full_disk_when_the_file_grows_changes_nothing_and_can_be_retried() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let mut s = session(Geometry::DAX, 8192);
        let committed = snapshot(&s, 0);
        s.set_len(0, 5000).unwrap();
        put(&mut s, 400, 7);
        plan(&s, fault(FaultOn::SetLen, HOME, kind));
        let e = s.commit().unwrap_err();
        assert!(
            matches!(e, JournalError::NoSpace { needed: 5000, .. }),
            "{e}"
        );
        assert!(e.is_recoverable());
        assert!(e.to_string().contains("free disk space"), "{e}");
        assert_eq!(recovered(&s), committed);
        assert_eq!(s.world().borrow().content(HOME), committed);
        // What was staged is still staged.
        s.committer().commit().unwrap();
        assert_eq!(recovered(&s), snapshot(&s, 0));
    }
}

#[test]
fn a_full_disk_when_the_journal_grows_changes_nothing_and_can_be_retried() {
    let mut s = Session::start(&Setup {
        geometry: Geometry::SECTOR,
        lens: vec![1 << 15],
        log_len: 4096,
        grow_to: 0,
    })
    .unwrap();
    for word in 0..2000 {
        put(&mut s, word, word + 1);
    }
    let full = Fault {
        forever: true,
        ..fault(FaultOn::SetLen, JOURNAL, ErrorKind::StorageFull)
    };
    plan(&s, full);
    let e = s.commit().unwrap_err();
    s.world().borrow_mut().faults.clear();
    assert!(
        matches!(e, JournalError::NoSpace { .. }) && e.is_recoverable(),
        "{e}"
    );
    assert_eq!(recovered(&s), vec![0; 1 << 15]);
    s.committer().commit().unwrap();
    assert_eq!(recovered(&s), snapshot(&s, 0));
    assert_eq!(s.committer().stats().growths, 1);
}

#[test]
fn a_failed_commit_stops_the_committer_and_leaves_one_of_two_commits() {
    for geometry in GEOMETRIES {
        for short in [0, 8, 40, 48, 64, 512, 4096] {
            let mut s = session(geometry, 8192);
            let before = snapshot(&s, 0);
            put(&mut s, 70, 7);
            put(&mut s, 3, 8);
            let failing = Fault {
                short,
                ..fault(FaultOn::WriteDurable, JOURNAL, ErrorKind::Other)
            };
            plan(&s, failing);
            let e = s.commit().unwrap_err();
            assert!(
                matches!(e, JournalError::Io { .. }) && !e.is_recoverable(),
                "{e}"
            );
            assert_eq!(
                s.world().borrow().content(HOME),
                before,
                "the last commit stays readable"
            );
            put(&mut s, 1, 1);
            s.stage();
            let e = s.committer().commit().unwrap_err();
            assert!(matches!(e, JournalError::Poisoned { .. }), "{e}");
            assert!(e.to_string().contains("read-only since"), "{e}");
            let after = recovered(&s);
            assert!(
                after == before || after == snapshot(&s, 0),
                "neither commit ({} bytes arrived)",
                short
            );
        }
    }
}

#[test]
fn a_home_that_cannot_be_flushed_keeps_its_journal() {
    for geometry in GEOMETRIES {
        let mut s = session(geometry, 1 << 16);
        plan(&s, fault(FaultOn::Persist, HOME, ErrorKind::Other));
        assert!(matches!(
            s.committer().checkpoint().unwrap_err(),
            JournalError::Io { .. }
        ));
        // A second flush would succeed and mean nothing: it is not tried.
        assert!(matches!(
            s.committer().checkpoint().unwrap_err(),
            JournalError::Poisoned { .. }
        ));
        let records = s.committer().journal().next_sequence();
        assert_eq!(records, 6, "no new generation");
        assert_eq!(recovered(&s), snapshot(&s, 0));
    }
}

#[test]
fn a_superblock_that_cannot_be_written_stops_the_committer() {
    for (after, short) in [(0, 0), (0, 512), (0, 4096), (1, 0), (1, 2048)] {
        let mut s = session(Geometry::SECTOR, 1 << 16);
        plan(
            &s,
            Fault {
                after,
                short,
                ..fault(FaultOn::WriteDurable, JOURNAL, ErrorKind::Other)
            },
        );
        assert!(s.committer().checkpoint().is_err());
        assert!(s.committer().poison().is_some());
        assert_eq!(recovered(&s), snapshot(&s, 0));
    }
}

#[test]
fn an_error_while_applying_a_commit_stops_the_committer_and_keeps_the_commit() {
    let mut s = session(Geometry::DAX, 8192);
    put(&mut s, 9, 9);
    put(&mut s, 90, 9);
    plan(
        &s,
        Fault {
            after: 1,
            ..fault(FaultOn::Write, HOME, ErrorKind::Other)
        },
    );
    assert!(matches!(s.commit().unwrap_err(), JournalError::Io { .. }));
    assert!(s.committer().poison().is_some());
    assert_eq!(recovered(&s), snapshot(&s, 0), "the record was durable");
}

#[test]
fn metadata_that_cannot_be_written_leaves_the_file_usable() {
    for (after, short) in [(0, 0), (0, 600), (1, 0), (1, 600)] {
        let mut s = session(Geometry::SECTOR, 1 << 16);
        plan(
            &s,
            Fault {
                after,
                short,
                ..fault(FaultOn::WriteDurable, META, ErrorKind::Other)
            },
        );
        assert!(s.remove_file(0).is_err());
        assert_eq!(recovered(&s), snapshot(&s, 0));
    }
}

#[test]
fn recovery_on_a_failing_medium_can_be_repeated() {
    for geometry in GEOMETRIES {
        for medium in [HOME, META] {
            for on in [FaultOn::Write, FaultOn::Persist, FaultOn::WriteDurable] {
                for after in 0..4 {
                    let s = session(geometry, 1 << 16);
                    let world = s.world().borrow().clone().shared();
                    world.borrow_mut().faults.push(Fault {
                        after,
                        ..fault(on, medium, ErrorKind::Other)
                    });
                    let first = recover_all(&world, &s.places());
                    if first.is_err() {
                        world.borrow_mut().faults.clear();
                        recover_all(&world, &s.places()).unwrap();
                    }
                    assert_eq!(world.borrow().content(HOME), snapshot(&s, 0));
                }
            }
        }
    }
}

#[test]
fn a_read_only_medium_is_refused_before_anything_changes() {
    let s = session(Geometry::SECTOR, 8192);
    for medium in [HOME, META, JOURNAL] {
        for on in [
            FaultOn::Write,
            FaultOn::WriteDurable,
            FaultOn::Persist,
            FaultOn::SetLen,
        ] {
            plan(
                &s,
                Fault {
                    forever: true,
                    ..fault(on, medium, ErrorKind::ReadOnlyFilesystem)
                },
            );
        }
    }
    let before = s.world().borrow().content(HOME).to_vec();
    let e = recover_all(s.world(), &s.places()).unwrap_err();
    assert!(e.contains("recovery can be repeated"), "{e}");
    assert_eq!(s.world().borrow().content(HOME), before);
}
