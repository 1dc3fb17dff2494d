//! Archives of files: they come back byte for byte, holes stay holes, and what is damaged, cut or forged is refused.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_format::archive::{
    ArchiveError, ArchivedPuddle, ArchivedType, Manifest, PoolMode, chunk_sum,
};
use vernal_pool::archive::{
    ArchiveFailure, Arrived, MANIFEST_FILE, ReadOptions, Staging, puddle_file, read_directory,
    read_stream, remove_taken, save_before, write_directory, write_stream,
};

const QUIET: &(dyn Fn(u64) + Sync) = &|_| ();
const NO_LOOK: vernal_pool::archive::Look<'static> = &|_| ();

/// Two puddles of 2 and 4 MiB: some pages with bytes, a few long holes, a chunk without anything.
fn sample(dir: &Path) -> (Manifest, Vec<File>) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut files = Vec::new();
    let mut puddles = Vec::new();
    for (index, (size, places)) in [
        (
            PUDDLE_MIN,
            [
                (0u64, 9000usize),
                (512 << 10, 4096),
                (PUDDLE_MIN - 100, 100),
            ],
        ),
        (
            2 * PUDDLE_MIN,
            [(0, 4096), (PUDDLE_MIN - 50_000, 100_000), (3 << 20, 1)],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join(format!("source-{index}")))
            .unwrap();
        file.set_len(size).unwrap();
        for (at, len) in places {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 33) as u8
                })
                .collect();
            file.write_all_at(&bytes, at).unwrap();
        }
        files.push(file);
        puddles.push(ArchivedPuddle {
            uuid: Uuid([index as u8 + 1; 16]),
            size,
            addr: TRACKED_BASE + ((index as u64) << 30),
            extents: Vec::new(),
        });
    }
    let manifest = Manifest {
        pool: Uuid([7; 16]),
        label: "sample".into(),
        mode: PoolMode::Buffered,
        root: TRACKED_BASE + 12_288,
        puddles,
        types: vec![ArchivedType {
            id: 5,
            size: 24,
            name: "node".into(),
        }],
    };
    (manifest, files)
}

fn refs(files: &[File]) -> Vec<&File> {
    files.iter().collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn same(files: &[File], arrived: &Arrived) {
    assert_eq!(files.len(), arrived.files.len());
    for (from, (path, to)) in files.iter().zip(&arrived.files) {
        assert!(content(from) == content(to), "{}", path.display());
        let (from, to) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert!(
            to.blocks() <= from.blocks() + 8 * 33,
            "holes became blocks: {} -> {}",
            from.blocks(),
            to.blocks()
        );
    }
}

fn staging(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn archived(dir: &Path) -> (Vec<File>, PathBuf, Vec<u8>) {
    let (manifest, files) = sample(dir);
    let path = dir.join("a.archive");
    let out = File::create_new(&path).unwrap();
    let written = write_stream(
        manifest,
        &refs(&files),
        &out,
        "a",
        NO_LOOK,
        || Ok(()),
        QUIET,
    )
    .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, written.bytes);
    (files, path, bytes)
}

#[test]
fn through_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (files, path, bytes) = archived(dir.path());
    assert!(
        bytes.len() < 600_000,
        "holes were stored: {} bytes",
        bytes.len()
    );
    let to = staging(dir.path(), "to");
    let arrived = read_stream(&File::open(path).unwrap(), "a", &mut Staging(&to), QUIET).unwrap();
    assert_eq!(arrived.manifest.label, "sample");
    assert_eq!(arrived.manifest.types.len(), 1);
    same(&files, &arrived);
}

#[test]
fn through_a_pipe_and_the_bytes_are_those_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, files) = sample(dir.path());
    let (mut from, to) = std::io::pipe().unwrap();
    let bytes = std::thread::scope(|scope| {
        let (manifest, files) = (manifest.clone(), &files);
        scope.spawn(move || {
            let out = File::from(std::os::fd::OwnedFd::from(to));
            write_stream(
                manifest,
                &refs(files),
                &out,
                "pipe",
                NO_LOOK,
                || Ok(()),
                QUIET,
            )
            .unwrap();
        });
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let path = dir.path().join("b.archive");
    let out = File::create_new(&path).unwrap();
    write_stream(
        manifest,
        &refs(&files),
        &out,
        "b",
        NO_LOOK,
        || Ok(()),
        QUIET,
    )
    .unwrap();
    assert!(bytes == std::fs::read(&path).unwrap());

    let (from, mut to) = std::io::pipe().unwrap();
    let staged = staging(dir.path(), "to");
    std::thread::scope(|scope| {
        scope.spawn(move || to.write_all(&bytes).unwrap());
        let from = File::from(std::os::fd::OwnedFd::from(from));
        let arrived = read_stream(&from, "pipe", &mut Staging(&staged), QUIET).unwrap();
        same(&files, &arrived);
    });
}

#[test]
fn every_kind_of_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, bytes) = archived(dir.path());
    let mut number = 0;
    let mut read = |bytes: &[u8], as_pipe: bool| {
        number += 1;
        let staged = staging(dir.path(), &format!("to-{number}"));
        if as_pipe {
            let (from, mut to) = std::io::pipe().unwrap();
            std::thread::scope(|scope| {
                // The reader may leave before it has read all.
                scope.spawn(move || to.write_all(bytes));
                read_stream(
                    &File::from(std::os::fd::OwnedFd::from(from)),
                    "x",
                    &mut Staging(&staged),
                    QUIET,
                )
            })
        } else {
            let path = dir.path().join(format!("damaged-{number}"));
            std::fs::write(&path, bytes).unwrap();
            read_stream(
                &File::open(path).unwrap(),
                "x",
                &mut Staging(&staged),
                QUIET,
            )
        }
    };
    let len = bytes.len();
    // A bit in the header, the manifest, the first and the last page of data, the trailer.
    for at in [40, 4100, 8200, len - 4096 - 17, len - 4000, len - 4096 + 9] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        for as_pipe in [false, true] {
            match read(&damaged, as_pipe) {
                Err(ArchiveFailure::Format { .. }) => {}
                other => panic!("bit at {at}: {other:?}"),
            }
        }
    }
    for cut in [
        0,
        8,
        4095,
        4096,
        5000,
        8192,
        20_000,
        len - 4097,
        len - 4096,
        len - 1,
    ] {
        for as_pipe in [false, true] {
            match read(&bytes[..cut], as_pipe) {
                Err(ArchiveFailure::Format {
                    source: ArchiveError::Truncated { .. },
                    ..
                }) => {}
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }
    assert!(read(&bytes, false).is_ok() && read(&bytes, true).is_ok());
}

#[test]
fn a_damaged_chunk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path, mut bytes) = archived(dir.path());
    // The last page before the trailer belongs to the second chunk of the second puddle.
    let at = bytes.len() - 4096 - 10;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let staged = staging(dir.path(), "to");
    let error = read_stream(
        &File::open(path).unwrap(),
        "x",
        &mut Staging(&staged),
        QUIET,
    )
    .unwrap_err();
    let ArchiveFailure::Format {
        source:
            ArchiveError::Chunk {
                puddle: 1,
                chunk: 1,
                ..
            },
        ..
    } = error
    else {
        panic!("{error}");
    };
}

#[test]
fn a_directory_can_be_copied_and_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, files) = sample(dir.path());
    let from = staging(dir.path(), "archive");
    write_directory(manifest, &refs(&files), &from, NO_LOOK, || Ok(()), QUIET).unwrap();
    let copied = staging(dir.path(), "copied");
    same(
        &files,
        &read_directory(&from, &mut Staging(&copied), ReadOptions::default(), QUIET).unwrap(),
    );

    let taken = staging(dir.path(), "taken");
    let arrived = read_directory(
        &from,
        &mut Staging(&taken),
        ReadOptions { take: true },
        QUIET,
    )
    .unwrap();
    same(&files, &arrived);
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&arrived.files[0].0), inode(&puddle_file(&from, 0)));
    remove_taken(&from, &arrived.manifest).unwrap();
    assert!(!from.exists());
    same(&files, &arrived);
}

#[test]
fn an_interrupted_move_leaves_the_archive_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, files) = sample(dir.path());
    let from = staging(dir.path(), "archive");
    write_directory(manifest, &refs(&files), &from, NO_LOOK, || Ok(()), QUIET).unwrap();
    let taken = staging(dir.path(), "taken");
    let arrived = read_directory(
        &from,
        &mut Staging(&taken),
        ReadOptions { take: true },
        QUIET,
    )
    .unwrap();
    save_before(&from, &arrived.files, &[(0, 0, 4096), (1, 4096, 512)]).unwrap();
    arrived.files[0].1.write_all_at(&[0xee; 4096], 0).unwrap();
    arrived.files[1].1.write_all_at(&[0xee; 512], 4096).unwrap();
    // Interrupted here: the staging directory is swept, the archive is read again.
    drop(arrived);
    std::fs::remove_dir_all(&taken).unwrap();
    let copied = staging(dir.path(), "copied");
    same(
        &files,
        &read_directory(&from, &mut Staging(&copied), ReadOptions::default(), QUIET).unwrap(),
    );
}

#[test]
fn links_and_wrong_lengths_in_a_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, files) = sample(dir.path());
    let from = staging(dir.path(), "archive");
    write_directory(manifest, &refs(&files), &from, NO_LOOK, || Ok(()), QUIET).unwrap();
    let staged = staging(dir.path(), "to");
    let victim = puddle_file(&from, 1);
    let read = |take| read_directory(&from, &mut Staging(&staged), ReadOptions { take }, QUIET);

    std::fs::hard_link(&victim, dir.path().join("second-name")).unwrap();
    assert!(read(true).unwrap_err().to_string().contains("one name"));
    std::fs::remove_file(dir.path().join("second-name")).unwrap();

    let kept = dir.path().join("kept");
    std::fs::rename(&victim, &kept).unwrap();
    std::os::unix::fs::symlink(&kept, &victim).unwrap();
    assert!(read(false).is_err() && read(true).is_err());
    std::fs::remove_file(&victim).unwrap();
    std::fs::rename(&kept, &victim).unwrap();
    File::options()
        .write(true)
        .open(&victim)
        .unwrap()
        .set_len(PUDDLE_MIN)
        .unwrap();
    assert!(matches!(
        read(false).unwrap_err(),
        ArchiveFailure::Length { .. }
    ));
    assert!(from.join(MANIFEST_FILE).exists());
}

#[test]
fn sums_do_not_depend_on_pieces() {
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
    let mut pieces = chunk_sum();
    for piece in bytes.chunks(999) {
        pieces.update(piece);
    }
    assert_eq!(pieces.digest(), vernal_format::archive::sum_of(&bytes));
}
