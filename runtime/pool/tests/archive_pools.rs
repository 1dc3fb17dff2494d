//! Whole pools: exported, imported, cloned, moved; their identities are new, their pointers lead where they led.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::types::{Shape, TypeBuilder};
use vernal_format::{Meta, MetaState, Uuid};
use vernal_heap::{Heap, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};
use vernal_pool::archive::{
    ArchiveFailure, MANIFEST_FILE, PoolImage, ROOT_FILE, ReadOptions, Source, clone, import,
    member_file, write_directory, write_stream,
};

const QUIET: &(dyn Fn(u64) + Sync) = &|_| ();
const NO_LOOK: vernal_pool::archive::Look<'static> = &|_| ();
const NODES: u64 = 20_000;
/// Nodes of the archive that is kept.
const GOLDEN_NODES: u64 = 50;

/// A pool of two puddles with a list of nodes {next, value} through both. `last` is what the last node points to.
fn make(dir: &Path, last: u64) {
    make_with(dir, last, NODES);
}

fn make_with(dir: &Path, last: u64, nodes: u64) {
    std::fs::create_dir(dir).unwrap();
    let puddles = [
        (Uuid([1; 16]), TRACKED_BASE + (5 << 30), PUDDLE_MIN),
        (Uuid([2; 16]), TRACKED_BASE + (9 << 30), 2 * PUDDLE_MIN),
    ];
    let mut memory = OwnedMemory::new();
    for (_, addr, size) in puddles {
        memory.add_zeroed(addr, size);
    }
    let mapped = puddles.map(|(uuid, addr, size)| Mapped { uuid, addr, size });
    let identity = PoolIdentity {
        uuid: Uuid([7; 16]),
        label: "first".into(),
        direct: false,
    };
    Heap::format_root(&memory, mapped[0], &identity).unwrap();
    let heap = Heap::open(&memory, &mapped[..1]).unwrap();
    heap.add_puddle(mapped[1]).unwrap();
    let mut cache = heap.thread_cache();
    let pointer = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("node", 128, 8)
        .member("next", 0, pointer)
        .member("value", 8, Shape::Integer(8))
        .build()
        .unwrap();
    let ty = heap.intern_type(&mut cache, &blob).unwrap();
    let set = |addr: u64, value: u64| {
        let words = ObjectSpace::words(&heap, addr, 1).unwrap();
        words[0].store(value, Ordering::Relaxed);
    };
    let mut before = 0;
    for n in 0..nodes {
        let node = heap.alloc(&mut cache, 128, 8, ty).unwrap();
        set(node + 8, n);
        if before == 0 {
            heap.set_root(node).unwrap();
        } else {
            set(before, node);
        }
        before = node;
    }
    set(before, last);
    drop(cache);
    for (index, (uuid, addr, size)) in puddles.into_iter().enumerate() {
        let path = match index {
            0 => dir.join(ROOT_FILE),
            _ => dir.join(member_file(uuid)),
        };
        let file = File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        for (base, words) in memory.areas().filter(|(base, _)| *base == addr) {
            assert_eq!(base, addr);
            for (page, words) in words.chunks(512).enumerate() {
                let bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
                    .collect();
                if bytes.iter().any(|b| *b != 0) {
                    file.write_all_at(&bytes, page as u64 * 4096).unwrap();
                }
            }
        }
        let meta = Meta {
            update: 0,
            file: uuid,
            home_addr: addr,
            slot_len: size,
            committed_len: size,
            state: MetaState::Clean,
        };
        vernal_snapshot::write_meta(&path, meta).unwrap();
    }
}

/// Values of the list, by native pointers.
fn values(image: &PoolImage) -> u64 {
    let heap = image.heap();
    let word = |addr: u64| ObjectSpace::words(heap, addr, 1).unwrap()[0].load(Ordering::Relaxed);
    let (mut at, mut count) = (heap.root().unwrap(), 0);
    while at != 0 && heap.object_at(at).is_some() {
        assert_eq!(word(at + 8), count);
        at = word(at);
        count += 1;
    }
    count
}

fn uuids(pool: &Path) -> Vec<Uuid> {
    let image = PoolImage::open(pool).unwrap();
    let mut all = vec![image.heap().identity().uuid];
    all.extend(image.directory().iter().map(|entry| entry.uuid));
    assert_eq!(values(&image), NODES);
    assert_eq!(image.dangling(10, 2), (0, vec![]));
    let report = image.heap().check();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    all
}

fn distinct(a: &[Uuid], b: &[Uuid]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().all(|uuid| !b.contains(uuid)));
}

fn left_behind(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("vernal-import"))
        .collect()
}

fn export(pool: &Path, to: &Path) {
    let image = PoolImage::open(pool).unwrap();
    let out = File::create_new(to).unwrap();
    write_stream(
        image.manifest(),
        &image.files(),
        &out,
        "a",
        NO_LOOK,
        || Ok(()),
        QUIET,
    )
    .unwrap();
}

#[test]
fn export_import_and_clone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, archive) = (dir.path().join("first"), dir.path().join("a"));
    make(&first, 0);
    export(&first, &archive);
    let second = dir.path().join("second");
    let from = File::open(&archive).unwrap();
    let manifest = import(
        Source::Stream(&from, "a"),
        &second,
        ReadOptions::default(),
        QUIET,
    )
    .unwrap();
    assert_eq!(manifest.label, "first");
    assert_eq!(manifest.types[0].name, "node");
    assert_eq!(
        PoolImage::open(&second).unwrap().heap().identity().label,
        "second"
    );
    let third = dir.path().join("third");
    clone(&PoolImage::open(&first).unwrap(), &third, QUIET).unwrap();
    let (a, b, c) = (uuids(&first), uuids(&second), uuids(&third));
    distinct(&a, &b);
    distinct(&b, &c);
    distinct(&a, &c);
    assert_eq!(left_behind(dir.path()), Vec::<PathBuf>::new());
    // A name that is taken stays what it is.
    let from = File::open(&archive).unwrap();
    let again = import(
        Source::Stream(&from, "a"),
        &second,
        ReadOptions::default(),
        QUIET,
    );
    assert!(matches!(again, Err(ArchiveFailure::Exists { .. })));
    assert_eq!(uuids(&second), b);
}

#[test]
fn a_directory_is_moved_in() {
    let dir = tempfile::tempdir().unwrap();
    let (first, archive) = (dir.path().join("first"), dir.path().join("archive"));
    make(&first, 0);
    std::fs::create_dir(&archive).unwrap();
    let image = PoolImage::open(&first).unwrap();
    write_directory(
        image.manifest(),
        &image.files(),
        &archive,
        NO_LOOK,
        || Ok(()),
        QUIET,
    )
    .unwrap();
    drop(image);
    let second = dir.path().join("second");
    import(
        Source::Directory(&archive),
        &second,
        ReadOptions { take: true },
        QUIET,
    )
    .unwrap();
    assert!(!archive.exists());
    distinct(&uuids(&first), &uuids(&second));
}

#[test]
fn a_failed_move_leaves_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let (first, archive) = (dir.path().join("first"), dir.path().join("archive"));
    make(&first, 0);
    std::fs::create_dir(&archive).unwrap();
    let image = PoolImage::open(&first).unwrap();
    // The manifest names another pool than the pages do.
    let mut forged = image.manifest();
    forged.pool = Uuid([9; 16]);
    write_directory(forged, &image.files(), &archive, NO_LOOK, || Ok(()), QUIET).unwrap();
    drop(image);
    let second = dir.path().join("second");
    let error = import(
        Source::Directory(&archive),
        &second,
        ReadOptions { take: true },
        QUIET,
    )
    .unwrap_err();
    assert!(matches!(error, ArchiveFailure::Damaged { .. }), "{error}");
    assert!(archive.join(MANIFEST_FILE).exists() && !second.exists());
    assert_eq!(left_behind(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_an_interrupted_import_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (first, archive) = (dir.path().join("first"), dir.path().join("a"));
    make(&first, 0);
    export(&first, &archive);
    let stale = dir.path().join(".old.vernal-import-0123");
    std::fs::create_dir(&stale).unwrap();
    std::fs::write(stale.join("lock"), "").unwrap();
    std::fs::write(stale.join("0.puddle"), "half").unwrap();
    let alive = dir.path().join(".new.vernal-import-4567");
    std::fs::create_dir(&alive).unwrap();
    let lock = File::create(alive.join("lock")).unwrap();
    assert!(vernal_sys::os::try_lock(&lock).unwrap());
    let from = File::open(&archive).unwrap();
    let second = dir.path().join("second");
    import(
        Source::Stream(&from, "a"),
        &second,
        ReadOptions::default(),
        QUIET,
    )
    .unwrap();
    assert_eq!(left_behind(dir.path()), vec![alive]);
}

#[test]
fn a_truncated_archive_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, archive) = (dir.path().join("first"), dir.path().join("a"));
    make(&first, 0);
    export(&first, &archive);
    let len = std::fs::metadata(&archive).unwrap().len();
    File::options()
        .write(true)
        .open(&archive)
        .unwrap()
        .set_len(len - 8192)
        .unwrap();
    let from = File::open(&archive).unwrap();
    let second = dir.path().join("second");
    assert!(
        import(
            Source::Stream(&from, "a"),
            &second,
            ReadOptions::default(),
            QUIET
        )
        .is_err()
    );
    assert!(!second.exists());
    assert_eq!(left_behind(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn dangling_pointers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    make(&first, 0x1234_5678);
    let image = PoolImage::open(&first).unwrap();
    let (count, list) = image.dangling(10, 2);
    assert_eq!(count, 1);
    assert_eq!(
        (list[0].field.as_str(), list[0].target),
        ("node.next", 0x1234_5678)
    );
}

#[test]
fn a_missing_puddle_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    make(&first, 0);
    std::fs::remove_file(first.join(member_file(Uuid([2; 16])))).unwrap();
    let error = PoolImage::open(&first).unwrap_err().to_string();
    assert!(error.contains(&member_file(Uuid([2; 16]))), "{error}");
    let error = PoolImage::open(dir.path()).unwrap_err();
    assert!(matches!(error, ArchiveFailure::NoPool { .. }));
}

/// Written by the first version. Every later one has to import it; `VERNAL_BLESS=1` writes it anew when the format changes, beside the
/// old ones.
#[test]
fn the_archive_of_version_1_is_imported() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.archive");
    let dir = tempfile::tempdir().unwrap();
    if std::env::var_os("VERNAL_BLESS").is_some() {
        let pool = dir.path().join("golden");
        make_with(&pool, 0, GOLDEN_NODES);
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        export(&pool, &golden);
    }
    let second = dir.path().join("second");
    let from = File::open(&golden).unwrap();
    let manifest = import(
        Source::Stream(&from, "golden"),
        &second,
        ReadOptions::default(),
        QUIET,
    )
    .unwrap();
    assert_eq!(manifest.label, "first");
    assert_eq!(manifest.pool, Uuid([7; 16]));
    let image = PoolImage::open(&second).unwrap();
    assert_eq!(values(&image), GOLDEN_NODES);
    assert!(image.heap().check().is_sound());
}
