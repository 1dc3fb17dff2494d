//! Images written by every version of the formats are still opened, and recover to the same bytes.
//!
//! An image is text: for each medium its length, then offset and bytes of what is not zero. A new version of a format
//! adds an image (`cargo test -p vernal-crash --test golden -- --ignored` writes the current one) and keeps the old ones.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use vernal_crash::explore::{FilePlace, recover_all};
use vernal_crash::session::{Session, Setup};
use vernal_crash::world::{Geometry, SharedWorld, World};

const FILES: [FilePlace; 2] = [
    FilePlace { home: 0, meta: 1 },
    FilePlace { home: 2, meta: 3 },
];
/// Bytes to a line of an image.
const ROW: usize = 32;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// The version of the journal that is written.
const CURRENT: &str = "v2";

/// A crash in the middle of a life with every kind of entry: media as they were, and what recovery must make of them.
fn crashed_life() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let setup = Setup {
        geometry: Geometry::DAX,
        lens: vec![640, 200],
        log_len: 4096,
        grow_to: 0,
    };
    let mut s = Session::start(&setup).unwrap();
    let homes: Vec<Vec<u8>> = FILES
        .iter()
        .map(|f| s.world().borrow().content(f.home).to_vec())
        .collect();
    for i in 0..8u64 {
        for file in 0..2 {
            let addr = s.base(file) + 8 * (i * 5 % 24);
            s.store(addr, 0x0101_0101_0101_0101 * (i + 1) + file as u64);
        }
        match i {
            3 => s.set_len(1, 1003).unwrap(),
            5 => s.set_len(0, 333).unwrap(),
            _ => {}
        }
        match i {
            2 => {
                // A run of three lines, and one of the other file.
                for word in 0..24 {
                    s.store(s.base(0) + 128 + 8 * word, 0x0202_0202_0000_0000 | word);
                }
                s.commit_plainly().unwrap();
            }
            6 => s.commit_async().unwrap(),
            _ => s.commit().unwrap(),
        }
    }
    let mut media: Vec<Vec<u8>> = (0..5)
        .map(|m| s.world().borrow().content(m).to_vec())
        .collect();
    // Nothing of the homes persisted, so that everything hangs on the journal.
    for (file, home) in FILES.iter().zip(homes) {
        media[file.home as usize] = home;
    }
    (media, s.oracle().snapshots.last().unwrap().clone())
}

fn write_image(media: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for bytes in media {
        writeln!(text, "medium {}", bytes.len()).unwrap();
        for (i, row) in bytes
            .chunks(ROW)
            .enumerate()
            .filter(|(_, row)| row.iter().any(|b| *b != 0))
        {
            let hex: String = row.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(text, "{:x} {hex}", i * ROW).unwrap();
        }
    }
    text
}

fn read_image(text: &str) -> Vec<Vec<u8>> {
    let mut media: Vec<Vec<u8>> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (first, second) = line.split_once(' ').expect("two fields");
        if first == "medium" {
            media.push(vec![0; second.parse().expect("a length")]);
            continue;
        }
        let at = usize::from_str_radix(first, 16).expect("an offset");
        for i in 0..second.len() / 2 {
            let byte =
                u8::from_str_radix(&second[2 * i..2 * i + 2], 16).expect("hexadecimal digits");
            media.last_mut().expect("a medium")[at + i] = byte;
        }
    }
    media
}

fn world(media: &[Vec<u8>]) -> SharedWorld {
    let sizes: Vec<_> = media
        .iter()
        .map(|m| (Geometry::DAX, m.len() as u64))
        .collect();
    let mut world = World::new(&sizes);
    for (m, bytes) in media.iter().enumerate() {
        world.write(m as u16, 0, bytes);
    }
    world.shared()
}

fn opens_and_recovers(version: &str) {
    let read = |name: &str| {
        std::fs::read_to_string(golden(&format!("{version}.{name}"))).expect("a golden image")
    };
    let media = read_image(&read("image"));
    let expected = read_image(&read("recovered"));
    let world = world(&media);
    recover_all(&world, &FILES).unwrap();
    for (file, want) in FILES.iter().zip(&expected) {
        assert_eq!(world.borrow().content(file.home), want, "{version}");
    }
}

#[test]
fn every_version_is_opened_and_recovers() {
    opens_and_recovers("v1");
    opens_and_recovers("v2");
}

#[test]
fn this_version_writes_what_it_always_wrote() {
    let (media, _) = crashed_life();
    let golden =
        std::fs::read_to_string(golden(&format!("{CURRENT}.image"))).expect("a golden image");
    assert!(
        write_image(&media) == golden,
        "the bytes on the medium changed: a new format version is due, with a golden image of its own"
    );
}

#[test]
#[ignore = "writes the golden image of a new format version"]
fn write_golden() {
    let (media, expected) = crashed_life();
    std::fs::create_dir_all(golden("")).unwrap();
    std::fs::write(golden(&format!("{CURRENT}.image")), write_image(&media)).unwrap();
    std::fs::write(
        golden(&format!("{CURRENT}.recovered")),
        write_image(&expected),
    )
    .unwrap();
}
