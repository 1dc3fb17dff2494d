//! Archives come back as they were written, damage is found, and no bytes make a parser panic.

use proptest::prelude::*;
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::{CHUNK_SIZE, PUDDLE_MIN};
use vernal_format::Uuid;
use vernal_format::archive::{
    ArchiveError, ArchiveHeader, ArchivedPuddle, ArchivedType, DataLayout, Extent, HEADER_LEN,
    Manifest, PoolMode, StoredChunk, Trailer,
};

fn puddle(index: u8, shift: u32, holes: &[(u64, u64)]) -> ArchivedPuddle {
    let size = PUDDLE_MIN << shift;
    let mut extents = Vec::new();
    let mut at = 0;
    for (skip, len) in holes {
        let offset = at + skip * 4096;
        let len = (len + 1) * 4096;
        if offset + len > size {
            break;
        }
        extents.push(Extent { offset, len });
        at = offset + len;
    }
    ArchivedPuddle {
        uuid: Uuid([index + 1; 16]),
        size,
        addr: TRACKED_BASE + (u64::from(index) << 32),
        extents,
    }
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let holes = proptest::collection::vec((0u64..300, 0u64..1500), 0..12);
    let puddles = proptest::collection::vec((0u32..4, holes), 1..5);
    let types = proptest::collection::vec((any::<u64>(), any::<u64>(), "[a-z:<>]{0,40}"), 0..5);
    (
        any::<[u8; 16]>(),
        "[a-z ]{0,60}",
        puddles,
        types,
        0u64..PUDDLE_MIN,
    )
        .prop_map(|(pool, label, puddles, types, root)| Manifest {
            pool: Uuid(pool),
            label,
            mode: PoolMode::Buffered,
            root: TRACKED_BASE + root,
            puddles: puddles
                .iter()
                .enumerate()
                .map(|(i, (shift, holes))| puddle(i as u8, *shift, holes))
                .collect(),
            types: types
                .into_iter()
                .map(|(id, size, name)| ArchivedType { id, size, name })
                .collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(128)))]

    #[test]
    fn manifests_round_trip(manifest in manifest()) {
        let bytes = manifest.encode();
        prop_assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        let chunks: Vec<StoredChunk> = manifest.stored_chunks().collect();
        prop_assert_eq!(chunks.iter().map(|c| c.bytes).sum::<u64>(), manifest.stored_bytes());
        prop_assert!(chunks.windows(2).all(|w| (w[0].puddle, w[0].chunk) < (w[1].puddle, w[1].chunk)));
        prop_assert!(chunks.iter().all(|c| c.bytes > 0 && c.bytes <= CHUNK_SIZE));
        let trailer = Trailer { stored: manifest.stored_bytes(), sums: (0..chunks.len() as u64).collect() };
        let end = trailer.encode();
        prop_assert_eq!(end.len() as u64, Trailer::len_for(&manifest));
        prop_assert_eq!(Trailer::decode(&end, &manifest), Ok(trailer));
    }

    #[test]
    fn a_changed_or_cut_manifest_is_an_answer(manifest in manifest(), at in any::<usize>(), value in any::<u8>(), cut in any::<usize>()) {
        let mut bytes = manifest.encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(read) = Manifest::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes.clone());
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Manifest::decode(&bytes);
        let mut page = [0; HEADER_LEN];
        page[..bytes.len()].copy_from_slice(&bytes);
        let _ = ArchiveHeader::decode(&page);
    }

    #[test]
    fn a_flipped_bit_in_header_or_trailer_is_found(manifest in manifest(), at in any::<usize>(), bit in 0u8..8) {
        let bytes = manifest.encode();
        let header = ArchiveHeader::of(DataLayout::Packed, &bytes);
        prop_assert!(header.verify_manifest(&bytes).is_ok());
        let mut page = header.encode();
        prop_assert_eq!(ArchiveHeader::decode(&page), Ok(header));
        page[at % HEADER_LEN] ^= 1 << bit;
        prop_assert!(ArchiveHeader::decode(&page).is_err());
        let sums = vec![3; manifest.stored_chunks().count()];
        let mut end = Trailer { stored: manifest.stored_bytes(), sums }.encode();
        let at = at % end.len();
        end[at] ^= 1 << bit;
        prop_assert!(Trailer::decode(&end, &manifest).is_err());
    }
}

fn plain() -> Manifest {
    Manifest {
        pool: Uuid([7; 16]),
        label: "sensors".into(),
        mode: PoolMode::Buffered,
        root: TRACKED_BASE + 8192,
        puddles: vec![puddle(0, 0, &[(0, 3)]), puddle(1, 1, &[(1, 0)])],
        types: vec![],
    }
}

fn field(manifest: &Manifest) -> &'static str {
    match Manifest::decode(&manifest.encode()) {
        Err(ArchiveError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_lie_of_a_manifest_is_named() {
    type Lie = fn(&mut Manifest);
    let cases: [(&str, Lie); 9] = [
        ("puddle size", |m| m.puddles[0].size = 3 << 20),
        ("puddle address", |m| m.puddles[0].addr = 0x1000),
        ("puddle address", |m| {
            m.puddles[0].addr = u64::MAX - 0x1f_ffff
        }),
        ("overlapping puddle address", |m| {
            m.puddles[1].addr = m.puddles[0].addr
        }),
        ("puddle identity used twice", |m| {
            m.puddles[1].uuid = m.puddles[0].uuid
        }),
        ("extent offset", |m| {
            m.puddles[0].extents[0].offset = PUDDLE_MIN
        }),
        ("extent length", |m| m.puddles[0].extents[0].len = 17),
        ("extent order", |m| {
            let first = m.puddles[0].extents[0];
            m.puddles[0].extents.push(first)
        }),
        ("root", |m| m.root = 5),
    ];
    for (name, change) in cases {
        let mut manifest = plain();
        change(&mut manifest);
        assert_eq!(field(&manifest), name);
    }
}

#[test]
fn another_abi_and_a_newer_version_are_told_from_damage() {
    let bytes = plain().encode();
    let good = ArchiveHeader::of(DataLayout::Beside, &bytes).encode();
    let sealed = |at: usize, value: u32| {
        let mut page = good;
        page[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&page[16..]);
        page[8..16].copy_from_slice(&sum.to_le_bytes());
        ArchiveHeader::decode(&page)
    };
    assert_eq!(
        sealed(16, 9),
        Err(ArchiveError::NewerVersion {
            found: 9,
            supported: 1
        })
    );
    assert!(matches!(
        sealed(20, 2),
        Err(ArchiveError::Abi {
            what: "architecture",
            found: 2,
            ..
        })
    ));
    assert!(matches!(
        sealed(24, 0x0403_0201),
        Err(ArchiveError::Abi {
            what: "byte order",
            ..
        })
    ));
    assert!(matches!(
        sealed(64, u32::MAX),
        Err(ArchiveError::Field {
            field: "manifest length",
            ..
        })
    ));
}
