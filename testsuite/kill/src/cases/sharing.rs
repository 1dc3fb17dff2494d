//! One file, one process, one address: what happens when two want it.

use super::story::Stage;
use super::{Checked, Entry, wrong};
use crate::place::Place;

pub const CASES: &[Entry] = &[
    ("a forked child cannot commit, its parent can", forked),
    ("a second process is told who has the file", opened_twice),
    ("the lock goes with its process", lock_released),
    (
        "a copy that wants the same address is refused",
        same_address,
    ),
    ("MAP_FIXED at another address is refused", fixed_elsewhere),
    ("check and info work on a file in use", looked_at_in_use),
    (
        "files that were moved together are recovered together",
        moved_together,
    ),
];

fn forked(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let story = "map A 4096 set A 0 1 sync A set A 8 2 child A sync A get A 0 kill";
    let ended = stage.tell(story)?;
    let lines: Vec<&str> = ended.out.lines().collect();
    match lines.as_slice() {
        [
            "map ok",
            "sync ok",
            child,
            "child ended 0",
            "sync ok",
            "a.img[0] = 1",
        ] if child.starts_with("child sync EACCES: ") && child.contains("fork") => {}
        _ => return wrong(format!("{lines:?} {}", ended.err)),
    }
    stage.expect(
        "map A 4096 get A 0 get A 8",
        &["map ok", "a.img[0] = 1", "a.img[8] = 2"],
    )
}

fn opened_twice(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let mut first = stage.start("map A 4096 set A 0 1 sync A hang")?;
    let holder = format!("process {}", first.pid());
    stage.expect_parts("map A 4096", &["map EBUSY", &holder])?;
    first.kill()?;
    first.end()?;
    stage.expect("map A 4096 get A 0", &["map ok", "a.img[0] = 1"])
}

fn lock_released(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    for value in 1..=5 {
        stage.expect(
            &format!("map A 4096 get A 0 set A 0 {value} sync A kill"),
            &["map ok", &format!("a.img[0] = {}", value - 1), "sync ok"],
        )?;
    }
    // In one process, too.
    stage.expect(
        "map A 4096 unmap A map A 4096 get A 0 unmap A",
        &["map ok", "unmap ok", "map ok", "a.img[0] = 5", "unmap ok"],
    )
}

fn same_address(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect("map A 4096 set A 0 1 unmap A", &["map ok", "unmap ok"])?;
    std::fs::copy(stage.file("a"), stage.file("b"))?;
    std::fs::copy(stage.file("a.img.vernal"), stage.file("b.img.vernal"))?;
    stage.expect_parts(
        "map A 4096 map B 4096",
        &["map EADDRINUSE", "b.img", "is taken by", "unmap that first"],
    )?;
    // One at a time, the copy works.
    stage.expect("map B 4096 get B 0", &["map ok", "b.img[0] = 1"])
}

fn fixed_elsewhere(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect_parts("map A 4096 0x100000000000", &["map E", "MAP_FIXED"])
}

fn looked_at_in_use(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let mut first = stage.start("map A 4096 set A 0 1 sync A hang")?;
    let holder = format!("process {}", first.pid());
    stage.vernal(&["check", "A"], 6, &["is mapped by", &holder])?;
    stage.vernal(&["recover", "A"], 6, &[&holder])?;
    stage.vernal(
        &["info", "A"],
        0,
        &["home address", "0x58", "active", "generation"],
    )?;
    stage.vernal(
        &["info", "--records", "--json", "A"],
        0,
        &["\"record_list\":[{", "\"state\":\"active\""],
    )?;
    stage.vernal(&["check", "--json", "A"], 6, &["\"state\":\"in-use\""])?;
    first.kill()?;
    first.end()?;
    stage.vernal(
        &["recover", "--json", "A"],
        0,
        &["\"state\":\"clean\"", "\"committed_length\":4096"],
    )
}

/// Two files of one journal, moved before recovery. The journal names places where nothing is any more; the first file's recovery
/// must not take it for nobody's.
fn moved_together(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 4096 map B 4096 set A 0 1 set B 0 2 sync A sync B set A 8 3 set B 8 4 sync A sync B kill",
        &["map ok", "map ok", "sync ok", "sync ok", "sync ok", "sync ok"],
    )?;
    let moved = stage.files.path().join("moved");
    std::fs::create_dir(&moved)?;
    for entry in std::fs::read_dir(stage.files.path())?.flatten() {
        if entry.path().is_file() {
            std::fs::rename(entry.path(), moved.join(entry.file_name()))?;
        }
    }
    // Nothing of the files was flushed since: all of it is in the journal alone.
    let at = |name: &str| moved.join(name).to_string_lossy().into_owned();
    let (a, b) = (at("a.img"), at("b.img"));
    for file in [&a, &b] {
        std::fs::write(file, [0; 4096])?;
    }
    stage.vernal(&["recover", &a], 0, &[])?;
    stage.vernal(&["recover", &b], 0, &[])?;
    for (file, words) in [(&a, [1u64, 3]), (&b, [2, 4])] {
        let content = std::fs::read(file)?;
        let found: Vec<&[u8]> = content.chunks(8).take(2).collect();
        if found != words.map(u64::to_le_bytes) {
            return wrong(format!("{file} holds {found:?} instead of {words:?}"));
        }
    }
    let left = std::fs::read_dir(&moved)?.flatten();
    let journals = left.filter(|e| e.file_name().to_string_lossy().contains("journal"));
    match journals.count() {
        0 => Ok(()),
        n => wrong(format!("{n} journals are left, which nobody needs")),
    }
}
