//! Every structure comes back as it was written, and no bytes make a parser panic.

use proptest::prelude::*;
use vernal_abi::{LINE_COUNT, TRACKED_BASE};
use vernal_format::{
    Entries, Entry, HEADER_WORDS, MAX_RUN_LINES, MEMBER_PATH_LEN, Member, MemberPath, Meta,
    MetaState, RecordHeader, RecordKey, SLOT_LEN, Slot, Superblock, Uuid, newest_slot,
    run_entry_header, seal_record, verify_record,
};

fn meta() -> impl Strategy<Value = Meta> {
    let state = prop_oneof![
        Just(MetaState::Clean),
        (
            any::<[u8; 16]>(),
            proptest::collection::vec(any::<u8>(), 0..=1024)
        )
            .prop_map(|(journal, path)| MetaState::Active {
                journal: Uuid(journal),
                path
            }),
    ];
    (
        any::<u64>(),
        any::<[u8; 16]>(),
        0u64..1 << 20,
        1u64..1 << 20,
        any::<u64>(),
        state,
    )
        .prop_map(|(update, file, line, lines, len, state)| Meta {
            update,
            file: Uuid(file),
            home_addr: TRACKED_BASE + line * 64,
            slot_len: lines * 64,
            committed_len: len % (lines * 64 + 1),
            state,
        })
}

proptest! {
    #[test]
    fn metadata_round_trips(meta in meta()) {
        let mut slot = [0xaa; SLOT_LEN];
        meta.encode(&mut slot);
        prop_assert_eq!(Meta::decode(&slot), Ok(meta));
    }

    #[test]
    fn any_bytes_in_a_slot_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), SLOT_LEN), magic in any::<bool>()) {
        let mut slot: [u8; SLOT_LEN] = bytes.try_into().unwrap();
        if magic {
            // Past magic number, checksum and version, into the body.
            slot[..8].copy_from_slice(&Meta::MAGIC.to_le_bytes());
            slot[16..20].copy_from_slice(&1u32.to_le_bytes());
            let sum = xxhash_rust::xxh3::xxh3_64(&slot[16..]);
            slot[8..16].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = Meta::decode(&slot);
        slot[..8].copy_from_slice(&Superblock::MAGIC.to_le_bytes());
        let _ = Superblock::decode(&slot);
        let _ = newest_slot::<Superblock>(&[slot, [0; SLOT_LEN]]);
        let _ = MemberPath::decode(slot[..MEMBER_PATH_LEN].try_into().unwrap());
    }

    #[test]
    fn superblocks_round_trip(generation in any::<u64>(), place in 0u64..LINE_COUNT - 64, index in 0usize..64) {
        let mut members = vec![None; 64];
        members[index] = Some(Member { file: Uuid([3; 16]), base_line: place, line_count: 64, committed_len: 4096 });
        let sb = Superblock {
            update: 5, journal: Uuid([9; 16]), generation, first_sequence: 7, log_offset: vernal_format::LOG_OFFSET,
            log_len: 1 << 20, write_unit: 4096, members,
        };
        let mut slot = [0; SLOT_LEN];
        sb.encode(&mut slot);
        prop_assert_eq!(Superblock::decode(&slot), Ok(sb));
    }

    #[test]
    fn member_paths_round_trip(path in proptest::collection::vec(any::<u8>(), 0..=1024), at in 0usize..MEMBER_PATH_LEN, bit in 0u8..8) {
        let entry = MemberPath { file: Uuid([1; 16]), path };
        let mut bytes = entry.encode();
        prop_assert_eq!(MemberPath::decode(&bytes), Some(entry));
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(MemberPath::decode(&bytes), None);
    }

    #[test]
    fn any_payload_is_bounded(payload in proptest::collection::vec(any::<u64>(), 0..64), entries in 0u32..80) {
        let mut data = 0;
        for entry in Entries::new(&payload, entries).flatten() {
            data += match entry {
                Entry::Line { line, mask, words } => {
                    prop_assert!(line < LINE_COUNT && mask.count_ones() as usize == words.len());
                    1 + words.len()
                }
                Entry::Run { line, words } => {
                    let count = words.len() as u64 / 8;
                    prop_assert!((1..=MAX_RUN_LINES).contains(&count) && line + count <= LINE_COUNT);
                    1 + words.len()
                }
                Entry::SetLen { .. } => 2,
            };
        }
        prop_assert!(data <= payload.len());
    }

    #[test]
    fn runs_of_any_length_are_bounded(
        line in prop_oneof![0..LINE_COUNT, LINE_COUNT - 40..LINE_COUNT],
        count in prop_oneof![1..=8u64, 1..=MAX_RUN_LINES],
        flip in prop_oneof![Just(0u64), (0u32..64).prop_map(|bit| 1 << bit)],
        words in 0usize..80,
    ) {
        let mut payload = vec![run_entry_header(line, count) ^ flip];
        payload.extend((0..words as u64).map(|i| i << 8));
        let first = Entries::new(&payload, 1).next().expect("one entry at least");
        if flip == 0 {
            let fits = line + count <= LINE_COUNT && count as usize * 8 <= words;
            prop_assert_eq!(first.is_ok(), fits, "{:?}", first);
        }
        if let Ok(Entry::Run { line, words: own }) = first {
            prop_assert!(own.len() <= words && line + own.len() as u64 / 8 <= LINE_COUNT);
        }
    }

    #[test]
    fn a_record_is_valid_only_as_written(payload in proptest::collection::vec(any::<u64>(), 0..40), at in any::<usize>(), bit in 0u32..64) {
        let mut words = vec![0; HEADER_WORDS];
        words.extend_from_slice(&payload);
        let key = RecordKey::new(Uuid([4; 16]), 3);
        seal_record(&mut words, &key, 3, 11, 2, 1);
        prop_assert!(verify_record(&words, &key));
        prop_assert!(!verify_record(&words, &RecordKey::new(Uuid([4; 16]), 4)));
        prop_assert!(!verify_record(&words, &RecordKey::new(Uuid([5; 16]), 3)));
        let header = RecordHeader::parse(words.first_chunk().unwrap()).unwrap();
        prop_assert_eq!((header.generation, header.sequence, header.entries, header.unflushed), (3, 11, 2, 1));
        prop_assert_eq!(header.record_bytes() as usize, words.len() * 8);
        let at = at % words.len();
        words[at] ^= 1 << bit;
        prop_assert!(!verify_record(&words, &key));
    }
}

#[test]
fn the_newest_intact_slot_wins_wherever_it_is() {
    let slot = |update| {
        let meta = Meta {
            update,
            file: Uuid([1; 16]),
            home_addr: TRACKED_BASE,
            slot_len: 4096,
            committed_len: update,
            state: MetaState::Clean,
        };
        let mut bytes = [0; SLOT_LEN];
        meta.encode(&mut bytes);
        bytes
    };
    let chosen = |slots| newest_slot::<Meta>(&slots).map(|(i, m)| (i, m.update));
    assert_eq!(chosen([slot(7), slot(8)]), Ok((1, 8)));
    assert_eq!(chosen([slot(9), slot(8)]), Ok((0, 9)));
    let mut damaged = slot(9);
    damaged[200] ^= 1;
    assert_eq!(chosen([damaged, slot(8)]), Ok((1, 8)));
    assert_eq!(chosen([slot(8), damaged]), Ok((0, 8)));
    assert!(chosen([damaged, damaged]).is_err());
}
