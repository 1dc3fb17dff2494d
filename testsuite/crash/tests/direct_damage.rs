//! Logs that decayed, were forged or are garbage: recovery undoes, redoes, or quarantines and changes nothing.

use vernal_crash::direct::{BASE, DirectSession, DirectSetup, HOME, LOGS, SPACE, locate, open_log};
use vernal_crash::explore::uuid;
use vernal_crash::rng::Rng;
use vernal_crash::world::{Image, Op, SharedWorld, SimMedia, World};
use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_ENTRIES_OFFSET, LOG_ENTRY_HEADER, LogControl, LogEntry, LogKind,
    LogOrder, LogSeed, SequenceRange,
};
use vernal_journal::direct::{LogOutcome, LogReport, LogSpaceFile, recover_space};
use vernal_sys::Media;

const POOL: u64 = 4096;

fn setup() -> DirectSetup {
    DirectSetup {
        pool: POOL,
        log: 8192,
        files: 2,
        threads: 1,
        generation: 1,
    }
}

fn world(images: &[Image]) -> SharedWorld {
    World {
        images: images.to_vec(),
        flushes: vec![0; images.len()],
        ..World::default()
    }
    .shared()
}

/// A process that died inside a transaction of six undo entries, of which everything is on the media, and the pool before.
fn died() -> (Vec<Image>, Vec<u8>) {
    let mut s = DirectSession::start(&setup()).unwrap();
    for round in 0..3 {
        s.begin(0);
        for i in 0..6 {
            s.set(0, 128 * i + 8 * round, 0x1111 * (i + 1) + round)
                .unwrap();
        }
        if round < 2 {
            s.commit(0).unwrap();
        }
    }
    let before = s.committed().to_vec();
    let images = s.world().borrow().images.clone();
    (images, before)
}

fn recover(world: &SharedWorld) -> Result<Vec<LogReport>, String> {
    let space =
        LogSpaceFile::load(SimMedia::new(world, SPACE), "log space").map_err(|e| e.to_string())?;
    recover_space(
        space.space(),
        |named| open_log(world, named),
        &locate(POOL),
        &mut [SimMedia::new(world, HOME)],
    )
    .map_err(|e| e.to_string())
}

/// Recovers one log; what a quarantine says, after checking that it changed nothing.
fn outcome(world: &SharedWorld) -> LogOutcome {
    let writes = world.borrow().log.len();
    let mut reports = recover(world).unwrap();
    assert_eq!(reports.len(), 1);
    let outcome = reports.remove(0).outcome;
    if let LogOutcome::Quarantined(_) = outcome {
        assert_eq!(
            world.borrow().log.len(),
            writes,
            "a quarantined log changed something"
        );
    }
    outcome
}

fn quarantined(world: &SharedWorld) -> String {
    match outcome(world) {
        LogOutcome::Quarantined(why) => why.to_string(),
        other => panic!("not quarantined: {other:?}"),
    }
}

#[test]
fn a_dead_process_is_undone() {
    let (images, before) = died();
    let world = world(&images);
    assert!(matches!(outcome(&world), LogOutcome::Undone { entries: 6 }));
    assert_eq!(world.borrow().content(HOME), before);
    assert!(matches!(outcome(&world), LogOutcome::Idle));
}

/// Every byte of header, control word and entries, with every bit flipped: an older entry is missed by nobody.
#[test]
fn a_damaged_log_is_quarantined_and_a_damaged_last_entry_is_as_if_torn() {
    let (images, before) = died();
    let world = world(&images);
    let mut refused = 0;
    for at in (0..136).chain(LOG_ENTRIES_OFFSET..LOG_ENTRIES_OFFSET + 6 * 64) {
        for bit in 0..8 {
            let old = images[LOGS as usize].data[at as usize];
            let mark = world.borrow().log.len();
            world.borrow_mut().write(LOGS, at, &[old ^ 1 << bit]);
            let now = world.borrow().content(HOME).to_vec();
            match outcome(&world) {
                LogOutcome::Quarantined(_) => {
                    assert_eq!(world.borrow().content(HOME), now);
                    refused += 1;
                }
                LogOutcome::Undone { entries: 6 } => {
                    // Padding is nobody's.
                    assert!(at >= LOG_ENTRIES_OFFSET && at % 64 >= 40, "byte {at}");
                    assert_eq!(world.borrow().content(HOME), before);
                }
                LogOutcome::Undone { entries: 5 } => {
                    assert!(
                        at >= LOG_ENTRIES_OFFSET + 5 * 64,
                        "byte {at}: an entry was missed"
                    );
                }
                other => panic!("byte {at} bit {bit}: {other:?}"),
            }
            world.borrow_mut().roll_back(mark, 0);
        }
    }
    assert!(refused > 128 * 8, "{refused}");
}

#[test]
fn garbage_never_panics_and_never_half_applies() {
    let (images, before) = died();
    let now = images[HOME as usize].data.clone();
    let world = world(&images);
    let mut rng = Rng::new(11);
    let (mut undone, mut refused) = (0, 0);
    for _ in 0..5000 {
        for _ in 0..1 + rng.below(3) {
            let medium = [SPACE, LOGS][rng.below(2) as usize];
            let at = if rng.chance(70) {
                rng.below(2) * 4096 + rng.below(300)
            } else {
                rng.below(8000)
            };
            let bytes: Vec<u8> = (0..1 + rng.below(40)).map(|_| rng.number() as u8).collect();
            world.borrow_mut().write(medium, at, &bytes);
        }
        match recover(&world) {
            Err(_) => refused += 1,
            Ok(reports) => match &reports[..] {
                [
                    LogReport {
                        outcome: LogOutcome::Undone { entries: 6 },
                        ..
                    },
                ] => {
                    assert_eq!(world.borrow().content(HOME), before);
                    undone += 1;
                }
                [
                    LogReport {
                        outcome: LogOutcome::Undone { .. },
                        ..
                    },
                ] => undone += 1,
                _ => {
                    assert_eq!(world.borrow().content(HOME), now);
                    refused += 1;
                }
            },
        }
        world.borrow_mut().roll_back(0, 0);
    }
    assert!(
        undone > 500 && refused > 500,
        "{undone} undone, {refused} refused"
    );
}

/// A log as its first file holds it, made by hand: of generation 9, with this range and these entries.
fn forged(range: SequenceRange, entries: &[(LogEntry, &[u8])]) -> SharedWorld {
    let s = DirectSession::start(&setup()).unwrap();
    let images = s.world().borrow().images.clone();
    let world = world(&images);
    let seed = LogSeed::new(uuid(u64::from(LOGS) + 100));
    let control = LogControl {
        generation: 9,
        range,
    };
    let word = control.encode(seed).to_le_bytes();
    world.borrow_mut().write(LOGS, LOG_CONTROL_OFFSET, &word);
    let mut at = LOG_ENTRIES_OFFSET;
    for (entry, data) in entries {
        let mut bytes = vec![0; LOG_ENTRY_HEADER];
        bytes.extend_from_slice(data);
        entry.encode(seed, &mut bytes);
        world.borrow_mut().write(LOGS, at, &bytes);
        at += entry.span();
    }
    world
}

fn entry(index: u32, kind: LogKind, addr: u64, size: u32) -> LogEntry {
    let undo = matches!(kind, LogKind::Undo | LogKind::Volatile);
    LogEntry {
        addr,
        size,
        index,
        generation: 9,
        unfenced: 0,
        kind,
        sequence: if undo { 1 } else { 3 },
        order: if undo {
            LogOrder::Backward
        } else {
            LogOrder::Forward
        },
    }
}

fn byte(world: &SharedWorld, off: usize) -> u8 {
    world.borrow().content(HOME)[off]
}

#[test]
fn backward_entries_give_the_oldest_value_and_forward_ones_the_newest() {
    let twice = |kind, last| {
        let mut entries = vec![
            (entry(0, kind, BASE + 64, 8), &[1; 8][..]),
            (entry(1, kind, BASE + 68, 8), &[2; 8][..]),
        ];
        entries.extend(last);
        entries
    };
    let world = forged(SequenceRange::UNDO, &twice(LogKind::Undo, None));
    assert!(matches!(outcome(&world), LogOutcome::Undone { entries: 2 }));
    assert_eq!((byte(&world, 68), byte(&world, 72)), (1, 2));
    let seal = (entry(2, LogKind::Seal, 2, 0), &[][..]);
    let world = forged(SequenceRange::REDO, &twice(LogKind::Redo, Some(seal)));
    assert!(matches!(outcome(&world), LogOutcome::Redone { entries: 2 }));
    assert_eq!((byte(&world, 67), byte(&world, 68)), (1, 2));
}

#[test]
fn an_entry_outside_what_its_owner_could_write_quarantines_the_log() {
    for (addr, size) in [
        (BASE - 1, 8),
        (BASE + POOL - 7, 8),
        (BASE + POOL, 1),
        (0, 8),
        (u64::MAX - 3, 8),
        (BASE ^ 1 << 46, 8),
    ] {
        let good = (entry(0, LogKind::Undo, BASE, 8), &[7; 8][..]);
        let bad = (
            entry(1, LogKind::Undo, addr, size),
            &[7; 8][..size as usize],
        );
        let why = quarantined(&forged(SequenceRange::UNDO, &[good, bad]));
        assert!(
            why.contains("entry 1") && why.contains(&format!("{addr:#x}")),
            "{why}"
        );
        // Not live, so nobody asks.
        let world = forged(SequenceRange::NONE, &[good, bad]);
        assert!(matches!(outcome(&world), LogOutcome::Idle));
        // Memory of the process that is gone.
        let volatile = (entry(1, LogKind::Volatile, addr, size), bad.1);
        let world = forged(SequenceRange::UNDO, &[good, volatile]);
        assert!(matches!(outcome(&world), LogOutcome::Undone { entries: 1 }));
    }
}

#[test]
fn redo_entries_count_only_when_they_are_all_there() {
    let redo = |index| {
        (
            entry(index, LogKind::Redo, BASE + 8 * u64::from(index), 8),
            &[5; 8][..],
        )
    };
    let seal = |index, count| (entry(index, LogKind::Seal, count, 0), &[][..]);
    let torn = |entries: &[(LogEntry, &[u8])]| {
        let world = forged(SequenceRange::REDO, entries);
        let outcome = outcome(&world);
        assert!(matches!(outcome, LogOutcome::Torn), "{outcome:?}");
        assert_eq!(world.borrow().content(HOME), vec![0; POOL as usize]);
        // It has ended.
        assert!(
            world
                .borrow()
                .log
                .iter()
                .any(|op| matches!(op, Op::Persist { medium: LOGS }))
        );
    };
    torn(&[]);
    torn(&[redo(0), redo(1)]);
    torn(&[redo(0), seal(1, 2)]);
    torn(&[seal(0, 1)]);
    torn(&[redo(0), seal(1, 1), redo(2)]);
    let undo = (entry(0, LogKind::Undo, BASE + 64, 8), &[9; 8][..]);
    let why = quarantined(&forged(SequenceRange::REDO, &[undo, redo(1)]));
    assert!(why.contains("not sealed"), "{why}");
    let world = forged(SequenceRange::REDO, &[undo, redo(1), seal(2, 1)]);
    assert!(matches!(outcome(&world), LogOutcome::Redone { entries: 1 }));
    assert_eq!((byte(&world, 8), byte(&world, 64)), (5, 0));
}

#[test]
fn the_range_alone_says_what_is_applied() {
    // A scheme of another library: sequences 5 and 9, both forward, selected one after the other.
    let other = |index, sequence, data: &'static [u8]| {
        let mut e = entry(index, LogKind::Redo, BASE + 8 * u64::from(sequence), 8);
        e.sequence = sequence;
        (e, data)
    };
    let entries = [other(0, 5, &[5; 8]), other(1, 9, &[9; 8])];
    for (lo, hi, five, nine) in [(4, 6, 5, 0), (5, 10, 0, 9), (4, 10, 5, 9), (5, 9, 0, 0)] {
        let world = forged(SequenceRange { lo, hi }, &entries);
        outcome(&world);
        assert_eq!(
            (byte(&world, 40), byte(&world, 72)),
            (five, nine),
            "({lo}, {hi})"
        );
    }
}

#[test]
fn missing_truncated_and_exchanged_files_quarantine_the_log() {
    let mut s = DirectSession::start(&setup()).unwrap();
    s.begin(0);
    for i in 0..70 {
        s.set(0, 32 * i, 7).unwrap();
    }
    let images = s.world().borrow().images.clone();
    let whole = world(&images);
    assert!(matches!(
        outcome(&whole),
        LogOutcome::Undone { entries: 70 }
    ));
    // Cut down to nothing, cut in the middle, another file in its place.
    let mut cut = images.clone();
    cut[LOGS as usize + 1].len = 0;
    assert!(quarantined(&world(&cut)).contains("cannot be read"));
    cut[LOGS as usize + 1].len = 4096;
    assert!(quarantined(&world(&cut)).contains("truncated to 4096 bytes of 8192"));
    let mut swapped = images.clone();
    swapped[LOGS as usize + 1] = images[LOGS as usize].clone();
    assert!(quarantined(&world(&swapped)).contains("should be file"));
    let space = LogSpaceFile::load(SimMedia::new(&world(&images), SPACE), "log space").unwrap();
    let mut space = space.space().clone();
    let pool = world(&images);
    let mut home = [SimMedia::new(&pool, HOME)];
    space.files.remove(0);
    let reports = recover_space(&space, |n| open_log(&pool, n), &locate(POOL), &mut home).unwrap();
    let why = format!("{:?}", reports[0].outcome);
    assert!(why.contains("Gap"), "{why}");
    space.files.clear();
    let none = recover_space(&space, |n| open_log(&pool, n), &locate(POOL), &mut home).unwrap();
    assert!(none.is_empty());
    assert_eq!(home[0].len(), POOL);
}
