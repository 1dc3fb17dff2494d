//! Media that decay or were tampered with: every bit of every structure, and the cases that have names.

use vernal_crash::explore::{FilePlace, journal_path, recover_all, uuid};
use vernal_crash::session::{Session, Setup};
use vernal_crash::world::{Geometry, Image, SharedWorld, SimMedia, World};
use vernal_format::{
    LOG_OFFSET, MAX_RUN_LINES, RecordKey, SLOT_LEN, run_entry_header, seal_record,
    set_len_entry_header,
};
use vernal_journal::{
    JournalReader, MetaFile, RecordBuilder, RecoveryError, check_home, recover_home,
};

const HOME: u16 = 0;
const META: u16 = 1;
const JOURNAL: u16 = 2;
const PLACE: FilePlace = FilePlace {
    home: HOME,
    meta: META,
};

/// A crashed life: its media, its commits, and where its records are.
struct Crashed {
    images: Vec<Image>,
    commits: Vec<Vec<u8>>,
    /// First byte of each record, and one past the last.
    records: Vec<u64>,
}

fn crashed() -> Crashed {
    let mut s = Session::start(&Setup {
        geometry: Geometry::DAX,
        lens: vec![512],
        log_len: 4096,
        grow_to: 0,
    })
    .unwrap();
    let start = s.world().borrow().images[HOME as usize].clone();
    let mut records = Vec::new();
    for i in 0..6 {
        for k in 0..=i % 3 {
            let addr = s.base(0) + 8 * (i * 7 + k * 3);
            s.store(addr, 0x1111_1111 * (i + 1));
        }
        records.push(4096 - s.committer().journal().free_bytes());
        s.commit().unwrap();
    }
    records.push(4096 - s.committer().journal().free_bytes());
    let mut images = s.world().borrow().images.clone();
    // Of the home nothing has persisted: every commit is in the journal only.
    images[HOME as usize] = start;
    let commits = s
        .oracle()
        .snapshots
        .iter()
        .map(|files| files[0].clone())
        .collect();
    Crashed {
        images,
        commits,
        records,
    }
}

impl Crashed {
    fn world(&self) -> SharedWorld {
        World {
            images: self.images.clone(),
            flushes: vec![0; self.images.len()],
            ..World::default()
        }
        .shared()
    }

    /// Recovers with these bytes changed; the result's commit number, or the error and an untouched file.
    fn recover_with(
        &self,
        world: &SharedWorld,
        change: impl FnOnce(&mut World),
    ) -> Result<usize, String> {
        let before = {
            let mut w = world.borrow_mut();
            change(&mut w);
            w.content(HOME).to_vec()
        };
        let result = recover_all(world, &[PLACE]);
        let after = world.borrow().content(HOME).to_vec();
        let result = result.map(|()| {
            self.commits
                .iter()
                .rposition(|c| *c == after)
                .expect("a state no commit made")
        });
        if result.is_err() {
            assert_eq!(after, before, "an error changed the file");
        }
        world.borrow_mut().roll_back(0, 0);
        result
    }

    fn last(&self) -> usize {
        self.commits.len() - 1
    }
}

/// Every single-bit flip and both constant bytes at `at`.
fn values(old: u8) -> impl Iterator<Item = u8> {
    (0..8)
        .map(move |bit| old ^ (1 << bit))
        .chain([0, 0xff])
        .filter(move |v| *v != old)
}

#[test]
fn a_damaged_slot_of_metadata_or_superblock_is_made_up_for_by_the_other() {
    let c = crashed();
    let world = c.world();
    for medium in [META, JOURNAL] {
        for at in 0..2 * SLOT_LEN {
            for value in values(c.images[medium as usize].data[at]) {
                let result = c.recover_with(&world, |w| w.write(medium, at as u64, &[value]));
                assert_eq!(
                    result,
                    Ok(c.last()),
                    "medium {medium} byte {at} = {value:#x}"
                );
            }
        }
    }
}

#[test]
fn a_damaged_record_is_refused_and_a_damaged_last_one_is_as_if_torn() {
    let c = crashed();
    let world = c.world();
    let count = c.records.len() - 1;
    for record in 0..count {
        for at in LOG_OFFSET + c.records[record]..LOG_OFFSET + c.records[record + 1] {
            for value in values(c.images[JOURNAL as usize].data[at as usize]) {
                let result = c.recover_with(&world, |w| w.write(JOURNAL, at, &[value]));
                match result {
                    // Padding is nobody's.
                    Ok(k) if k == c.last() => {}
                    Ok(k) => {
                        assert_eq!(
                            (record, k),
                            (count - 1, c.last() - 1),
                            "byte {at} = {value:#x}: commits were lost"
                        );
                    }
                    Err(e) => {
                        assert!(record < count - 1, "byte {at} = {value:#x}: {e}");
                        assert!(e.contains("is damaged although the later record"), "{e}");
                    }
                }
            }
        }
    }
}

#[test]
fn random_garbage_never_panics_and_never_half_applies() {
    let c = crashed();
    let world = c.world();
    let mut rng = vernal_crash::rng::Rng::new(7);
    let (mut recovered, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let writes: Vec<(u16, u64, Vec<u8>)> = (0..1 + rng.below(4))
            .map(|_| {
                let medium = 1 + rng.below(2) as u16;
                let end = if medium == META {
                    8192
                } else {
                    LOG_OFFSET + 1024
                };
                // Half of them where it hurts.
                let at = if rng.chance(50) {
                    rng.below(end - 64)
                } else {
                    (rng.below(4) * 4096 + rng.below(128)) % (end - 64)
                };
                (
                    medium,
                    at,
                    (0..1 + rng.below(40)).map(|_| rng.number() as u8).collect(),
                )
            })
            .collect();
        // Several faults at a time may lose what one may not, but `recover_with` accepts no state that never was.
        match c.recover_with(&world, |w| {
            writes
                .iter()
                .for_each(|(m, at, bytes)| w.write(*m, *at, bytes))
        }) {
            Ok(_) => recovered += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        recovered > 1000 && refused > 1000,
        "{recovered} recovered, {refused} refused: the garbage is too tame"
    );
}

/// Changes both slots and gives them the right checksums.
fn rewrite(world: &SharedWorld, medium: u16, change: impl Fn(&mut [u8; SLOT_LEN])) {
    let mut w = world.borrow_mut();
    for slot in 0..2 {
        let mut bytes: [u8; SLOT_LEN] = w.content(medium)[slot * SLOT_LEN..(slot + 1) * SLOT_LEN]
            .try_into()
            .unwrap();
        change(&mut bytes);
        // The checksum of the new content.
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[16..]);
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        w.write(medium, (slot * SLOT_LEN) as u64, &bytes);
    }
}

#[test]
fn a_newer_version_is_an_error_that_names_both() {
    let c = crashed();
    for (medium, newest) in [(META, "up to 1"), (JOURNAL, "up to 2")] {
        let world = c.world();
        rewrite(&world, medium, |slot| {
            slot[16..20].copy_from_slice(&9u32.to_le_bytes())
        });
        let e = recover_all(&world, &[PLACE]).unwrap_err();
        assert!(e.contains("format version 9") && e.contains(newest), "{e}");
    }
}

#[test]
fn both_slots_damaged_is_an_error_that_says_what_is_wrong_with_each() {
    let c = crashed();
    for medium in [META, JOURNAL] {
        let world = c.world();
        {
            let mut w = world.borrow_mut();
            w.write(medium, 100, &[0xee; 8]);
            w.write(medium, 4096, &[0xee; 8]);
        }
        let e = recover_all(&world, &[PLACE]).unwrap_err();
        assert!(
            e.contains("both copies") && e.contains("checksum") && e.contains("magic number"),
            "{e}"
        );
    }
}

fn load(world: &SharedWorld) -> MetaFile<SimMedia, vernal_journal::Unrecovered> {
    MetaFile::load(SimMedia::new(world, META), "F.vernal").unwrap()
}

#[test]
fn a_missing_journal_is_an_error_that_names_it() {
    let c = crashed();
    let world = c.world();
    let mut home = SimMedia::new(&world, HOME);
    let e = recover_home(load(&world), None::<&JournalReader<SimMedia>>, &mut home).unwrap_err();
    assert!(matches!(e, RecoveryError::JournalMissing { .. }), "{e}");
    assert!(e.to_string().contains("put the journal back"), "{e}");
    assert_eq!(world.borrow().content(HOME), c.commits[0]);
}

#[test]
fn another_journal_is_refused() {
    let c = crashed();
    let world = c.world();
    rewrite(&world, JOURNAL, |slot| {
        slot[32..48].copy_from_slice(&uuid(99).0)
    });
    let e = recover_all(&world, &[PLACE]).unwrap_err();
    assert!(
        e.contains(&uuid(1).to_string()) && e.contains(&uuid(99).to_string()),
        "{e}"
    );
}

#[test]
fn a_journal_that_does_not_serve_the_file_is_refused() {
    let c = crashed();
    let world = c.world();
    rewrite(&world, JOURNAL, |slot| {
        slot[128..144].copy_from_slice(&uuid(55).0)
    });
    let e = recover_all(&world, &[PLACE]).unwrap_err();
    assert!(e.contains("does not serve"), "{e}");
}

#[test]
fn a_truncated_file_is_refused_active_or_clean() {
    let c = crashed();
    let world = c.world();
    world.borrow_mut().set_len(HOME, 511);
    let e = recover_all(&world, &[PLACE]).unwrap_err();
    assert!(
        e.contains("truncated to 511 bytes, and 512 were committed"),
        "{e}"
    );
    let world = c.world();
    recover_all(&world, &[PLACE]).unwrap();
    world.borrow_mut().set_len(HOME, 100);
    let e = recover_all(&world, &[PLACE]).unwrap_err();
    assert!(e.contains("truncated to 100 bytes"), "{e}");
}

#[test]
fn a_clean_file_that_somebody_extended_is_taken_as_it_is() {
    let c = crashed();
    let world = c.world();
    recover_all(&world, &[PLACE]).unwrap();
    world.borrow_mut().set_len(HOME, 600);
    recover_all(&world, &[PLACE]).unwrap();
    assert_eq!(world.borrow().content(HOME).len(), 600);
}

#[test]
fn a_truncated_journal_is_refused() {
    let c = crashed();
    for len in [LOG_OFFSET + 64, LOG_OFFSET, 8192] {
        let world = c.world();
        world.borrow_mut().set_len(JOURNAL, len);
        let e = recover_all(&world, &[PLACE]).unwrap_err();
        assert!(e.contains("is truncated"), "{e}");
    }
}

/// Appends a record with a right checksum and these payload words behind the last one.
fn forge(c: &Crashed, world: &SharedWorld, payload: &[u64], entries: u32) {
    let mut words = vec![0; 5];
    words.extend_from_slice(payload);
    seal_record(
        &mut words,
        &RecordKey::new(uuid(1), 1),
        1,
        c.last() as u64 + 1,
        entries,
        0,
    );
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    world
        .borrow_mut()
        .write(JOURNAL, LOG_OFFSET + c.records[c.records.len() - 1], &bytes);
}

#[test]
fn a_valid_record_that_says_impossible_things_quarantines_the_journal() {
    let c = crashed();
    let base = load(&c.world()).meta().base_line();
    let line = |line: u64, mask: u64| line << 8 | mask;
    let run = |line, count| run_entry_header(line, count);
    let cases: [(&str, Vec<u64>, u32); 19] = [
        ("zero mask", vec![line(base, 0), 1], 1),
        ("no entry data", vec![line(base, 3), 1], 1),
        ("too many words", vec![line(base, 1), 1, 2], 1),
        ("fewer entries than stated", vec![line(base, 1), 1], 2),
        (
            "more entries than stated",
            vec![line(base, 1), 1, line(base, 1), 1],
            1,
        ),
        ("unknown kind", vec![7 << 56 | line(base, 1), 1], 1),
        ("stray bit", vec![1 << 42 | line(base, 1), 1], 1),
        ("line before the file", vec![line(base - 1, 1), 1], 1),
        ("line behind the file", vec![line(base + 1024, 1), 1], 1),
        (
            "length of no file",
            vec![set_len_entry_header(base + 1), 64],
            1,
        ),
        (
            "length with a mask",
            vec![set_len_entry_header(base) | 1, 64],
            1,
        ),
        (
            "length beyond the place",
            vec![set_len_entry_header(base), (1 << 16) + 1],
            1,
        ),
        ("nothing, said to be something", vec![], 1),
        ("run without its words", vec![run(base, 2), 0, 0], 1),
        (
            "run that ends in its second line",
            {
                let mut words = vec![run(base, 2)];
                words.resize(1 + 15, 0);
                words
            },
            1,
        ),
        (
            "longest run, of one line",
            vec![run(base, MAX_RUN_LINES), 0, 0, 0, 0, 0, 0, 0, 0],
            1,
        ),
        (
            "run with a mask",
            vec![run(base, 1) | 1, 0, 0, 0, 0, 0, 0, 0, 0],
            1,
        ),
        (
            "run that begins before the file",
            {
                let mut words = vec![run(base - 1, 2)];
                words.resize(1 + 16, 0);
                words
            },
            1,
        ),
        (
            "run that ends behind the file",
            {
                let mut words = vec![run(base + 1023, 2)];
                words.resize(1 + 16, 0);
                words
            },
            1,
        ),
    ];
    for (what, payload, entries) in cases {
        let world = c.world();
        forge(&c, &world, &payload, entries);
        let e = recover_all(&world, &[PLACE]).expect_err(what);
        assert!(e.contains("nothing was replayed"), "{what}: {e}");
        assert_eq!(
            world.borrow().content(HOME),
            c.commits[0],
            "{what} changed the file"
        );
    }
    // The same way, a record that says possible things counts.
    let world = c.world();
    forge(&c, &world, &[line(base, 1), 0x77], 1);
    recover_all(&world, &[PLACE]).unwrap();
    assert_eq!(world.borrow().content(HOME)[0], 0x77);
    // A run may go on behind the end of the file, to the end of its place.
    let world = c.world();
    let mut words = vec![run(base, 12)];
    words.extend((0..12 * 8).map(|i| i / 8));
    words.push(run(base + 1022, 2));
    words.extend([0x77; 16]);
    forge(&c, &world, &words, 2);
    recover_all(&world, &[PLACE]).unwrap();
    let content: Vec<u8> = (0..8)
        .flat_map(|i| [i, 0, 0, 0, 0, 0, 0, 0].repeat(8))
        .collect();
    assert_eq!(world.borrow().content(HOME), &content[..]);
}

#[test]
fn a_record_of_another_generation_or_journal_does_not_count() {
    let c = crashed();
    let base = load(&c.world()).meta().base_line();
    for (seed, generation, sequence) in [
        (RecordKey::new(uuid(1), 1), 2, 7),
        (RecordKey::new(uuid(1), 2), 2, 7),
        (RecordKey::new(uuid(1), 0), 1, 7),
        (RecordKey::new(uuid(2), 1), 1, 7),
        (RecordKey::new(uuid(1), 1), 1, 8),
        (RecordKey::new(uuid(1), 1), 1, 6),
    ] {
        let mut words = vec![0, 0, 0, 0, 0, base << 8 | 1, 0x77];
        // `unflushed` says that nothing before it is promised, so that its place is all that counts.
        seal_record(&mut words, &seed, generation, sequence, 1, 100);
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let world = c.world();
        let result = c.recover_with(&world, |w| {
            w.write(JOURNAL, LOG_OFFSET + c.records[c.records.len() - 1], &bytes)
        });
        assert_eq!(
            result,
            Ok(c.last()),
            "generation {generation}, sequence {sequence}"
        );
    }
}

#[test]
fn checking_changes_nothing_and_says_what_recovery_would_do() {
    let c = crashed();
    let world = c.world();
    let journal = JournalReader::open(SimMedia::new(&world, JOURNAL), "journal").unwrap();
    let home = SimMedia::new(&world, HOME);
    let report = check_home(&load(&world), Some(&journal), &home).unwrap();
    assert_eq!(
        (report.records, report.last_sequence, report.committed_len),
        (6, 6, 512)
    );
    assert!(world.borrow().log.is_empty(), "the check wrote something");
    let summary = journal.summary().unwrap();
    assert_eq!((summary.records, summary.next_sequence), (6, 7));
    let served = journal.members().unwrap();
    assert_eq!(
        served[0].meta_path.as_deref(),
        Some(&journal_path(META)[..])
    );
    let mut home = home;
    let (_, done) = recover_home(load(&world), Some(&journal), &mut home).unwrap();
    assert_eq!(done, report);
}

#[test]
fn a_giant_record_header_is_bounded_by_the_log() {
    let c = crashed();
    let world = c.world();
    let mut words = RecordBuilder::new();
    words.push_line(1, 1, &[1; 8]);
    let mut bytes = words.bytes().to_vec();
    bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    let result = c.recover_with(&world, |w| {
        w.write(JOURNAL, LOG_OFFSET + c.records[6], &bytes)
    });
    assert_eq!(result, Ok(c.last()));
}
