//! What a commit covers, and what it does not.

use super::story::Stage;
use super::{Checked, Entry, wrong};
use crate::place::{Medium, Place};

pub const CASES: &[Entry] = &[
    ("msync survives a kill", survives),
    ("what was not committed never happened", uncommitted),
    ("exit commits nothing", exit_commits_nothing),
    ("munmap commits", munmap_commits),
    ("VERNAL_UNMAP=discard forgets", unmap_discards),
    ("msync of a sub-range forgets nothing", sub_range),
    ("MS_ASYNC is covered by a later MS_SYNC", asynchronous),
    ("pointers stay valid from run to run", pointers),
    ("several files commit together", several_files),
    (
        "several files are killed together at every point",
        several_files_killed,
    ),
    (
        "checkpoints are killed at all kinds of points",
        checkpoints_killed,
    ),
    ("ftruncate grows and shrinks with the commit", truncate),
    ("mremap grows in place", remap),
    (
        "a kill before the commit takes a new length back",
        length_taken_back,
    ),
    ("abort goes back to the last commit", abort),
    ("longjmp leaves its stores", jump),
    ("a signal handler can store and commit", handler),
    (
        "after recovery the file is the program's image",
        plain_image,
    ),
    ("a file that is not opted in is left alone", not_opted_in),
];

fn survives(place: &Place) -> Checked {
    for medium in [Medium::Shm, Medium::Disk] {
        let stage = Stage::on(place, medium)?;
        stage.expect(
            "map A 65536 set A 0 1 set A 40000 2 sync A kill",
            &["map ok", "sync ok"],
        )?;
        stage.vernal(&["check", "A"], 3, &["last writer died", "vernal recover"])?;
        stage.expect(
            "map A 65536 get A 0 get A 40000 unmap A",
            &["map ok", "a.img[0] = 1", "a.img[40000] = 2", "unmap ok"],
        )?;
        stage.vernal(&["check", "A"], 0, &["clean"])?;
    }
    Ok(())
}

fn uncommitted(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 65536 set A 0 1 set A 4096 1 sync A set A 0 2 set A 8192 9 kill",
        &["map ok", "sync ok"],
    )?;
    stage.expect(
        "map A 65536 get A 0 get A 4096 get A 8192",
        &[
            "map ok",
            "a.img[0] = 1",
            "a.img[4096] = 1",
            "a.img[8192] = 0",
        ],
    )
}

fn exit_commits_nothing(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 4096 set A 0 1 sync A set A 0 2",
        &["map ok", "sync ok"],
    )?;
    stage.expect("map A 4096 get A 0", &["map ok", "a.img[0] = 1"])
}

fn munmap_commits(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect("map A 4096 set A 0 3 unmap A kill", &["map ok", "unmap ok"])?;
    stage.vernal(&["check", "A"], 0, &["clean"])?;
    stage.expect("map A 4096 get A 0", &["map ok", "a.img[0] = 3"])
}

fn unmap_discards(place: &Place) -> Checked {
    let stage = Stage::new(place)?.with("VERNAL_UNMAP", "discard");
    stage.expect(
        "map A 4096 set A 0 3 sync A set A 0 4 unmap A",
        &["map ok", "sync ok", "unmap ok"],
    )?;
    stage.expect("map A 4096 get A 0", &["map ok", "a.img[0] = 3"])
}

fn sub_range(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let story =
        "map A 65536 set A 0 1 set A 20480 2 sync A 0 4096 set A 0 3 sync A 20480 4096 kill";
    stage.expect(story, &["map ok", "sync ok", "sync ok"])?;
    stage.expect(
        "map A 65536 get A 0 get A 20480",
        &["map ok", "a.img[0] = 3", "a.img[20480] = 2"],
    )
}

fn asynchronous(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 4096 set A 0 1 async A set A 8 2 sync A kill",
        &["map ok", "async ok", "sync ok"],
    )?;
    stage.expect(
        "map A 4096 get A 0 get A 8",
        &["map ok", "a.img[0] = 1", "a.img[8] = 2"],
    )
}

fn pointers(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 65536 set A 40960 77 pointer A 0 40960 sync A kill",
        &["map ok", "sync ok"],
    )?;
    for _ in 0..3 {
        stage.expect("map A 65536 follow A 0", &["map ok", "-> 77"])?;
    }
    Ok(())
}

fn several_files(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    // One msync, of one file, commits both.
    stage.expect(
        "map A 4096 map B 8192 set A 0 1 set B 4096 2 sync A kill",
        &["map ok", "map ok", "sync ok"],
    )?;
    // Recovered one at a time, by whoever comes first.
    stage.expect(
        "map B 8192 get B 4096 unmap B",
        &["map ok", "b.img[4096] = 2", "unmap ok"],
    )?;
    stage.vernal(&["recover", "A"], 0, &["recovered"])?;
    stage.expect(
        "map A 4096 get A 0 unmap A",
        &["map ok", "a.img[0] = 1", "unmap ok"],
    )?;
    match stage.journals()?.as_slice() {
        [] => Ok(()),
        left => wrong(format!(
            "both files are clean, and {left:?} are left behind"
        )),
    }
}

/// Four commits of the same number to two files, killed at each injection point: the numbers never differ.
fn several_files_killed(place: &Place) -> Checked {
    let mut stage = Stage::on(place, Medium::Shm)?;
    let mut story = "map A 4096 map B 4096".to_owned();
    for i in 1..=4 {
        story.push_str(&format!(
            " set A 64 {i} set B 128 {i} set A 2048 {i} sync B"
        ));
    }
    story.push_str(" unmap A unmap B");
    for at in 1..1000 {
        stage.files.clear()?;
        stage.set("VERNAL_TEST_KILL_AT", Some(at.to_string()));
        let ended = stage.tell(&story)?;
        stage.set("VERNAL_TEST_KILL_AT", None);
        if !ended.killed() && !ended.status.success() {
            return wrong(format!("point {at}: {} {}", ended.status, ended.err));
        }
        let acknowledged = ended.out.matches("sync ok").count();
        let found = stage.tell("map A 4096 map B 4096 get A 64 get B 128 get A 2048")?;
        let values: Vec<usize> = found
            .out
            .lines()
            .filter_map(|l| l.split(" = ").nth(1)?.parse().ok())
            .collect();
        let fits = |v: usize| v == acknowledged || v == acknowledged + 1;
        match values.as_slice() {
            [a, b, c] if a == b && b == c && fits(*a) => {}
            _ => {
                return wrong(format!(
                    "killed at point {at} after {acknowledged} commits: {}{}",
                    found.out, found.err
                ));
            }
        }
        if !ended.killed() {
            return if at > 10 {
                Ok(())
            } else {
                wrong(format!("only {at} injection points"))
            };
        }
    }
    wrong("the story never ended without a kill")
}

/// Commits so large that the journal is recycled every other time, killed at each injection point that is not a mark: those lie
/// between the number of points that a run passes before an `msync` and after it.
fn checkpoints_killed(place: &Place) -> Checked {
    const BYTES: u64 = 400_000;
    const COMMITS: u64 = 6;
    /// More points than end a process.
    const SLACK: u64 = 12;
    for medium in [Medium::Shm, Medium::Disk] {
        let mut stage = Stage::on(place, medium)?;
        let mut story = "map A 1048576".to_owned();
        let mut windows = Vec::new();
        for i in 1..=COMMITS {
            story.push_str(&format!(" fill A 0 {BYTES} {i}"));
            let before = stage.count(&story)?;
            story.push_str(" sync A");
            let after = stage.count(&story)?;
            windows.push(before.saturating_sub(SLACK)..=after);
        }
        stage.set("VERNAL_STATS", Some("1".to_owned()));
        stage.expect_parts(&story, &["checkpoints: "])?;
        let said = stage.tell(&story)?.err;
        if said.contains("checkpoints: 0") {
            return wrong(format!("the journal was never recycled: {said}"));
        }
        stage.set("VERNAL_STATS", None);
        for at in windows.into_iter().flat_map(spread) {
            stage.files.clear()?;
            stage.set("VERNAL_TEST_KILL_AT", Some(at.to_string()));
            let ended = stage.tell(&story)?;
            stage.set("VERNAL_TEST_KILL_AT", None);
            let acknowledged = ended.out.matches("sync ok").count() as u64;
            let found = stage.tell(&format!(
                "map A 1048576 sum A 0 {BYTES} sum A {BYTES} 600000"
            ))?;
            let fits = |n: u64| found.out == format!("map ok\nsum {}\nsum 0\n", n * BYTES);
            if !fits(acknowledged) && !fits(acknowledged + 1) {
                let text = format!("{}{}", found.out, found.err);
                return wrong(format!(
                    "{medium:?}: killed at point {at} after {acknowledged} commits: {text}"
                ));
            }
        }
    }
    Ok(())
}

/// All points of a window, or when there are many (a checkpoint has one for each run of lines): those of its ends, and some between.
fn spread(window: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    const ENDS: u64 = 16;
    const BETWEEN: u64 = 16;
    let (first, last) = (*window.start(), *window.end());
    let step = (last.saturating_sub(first) / BETWEEN).max(1);
    window
        .filter(|at| at - first < ENDS || last - at < ENDS || (at - first).is_multiple_of(step))
        .collect()
}

fn truncate(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let grow =
        "map A 8192 set A 4096 5 sync A truncate A 65536 remap A 65536 set A 61440 6 sync A kill";
    stage.expect(
        grow,
        &["map ok", "sync ok", "truncate ok", "remap ok", "sync ok"],
    )?;
    stage.expect(
        "map A 65536 get A 4096 get A 61440 unmap A",
        &["map ok", "a.img[4096] = 5", "a.img[61440] = 6", "unmap ok"],
    )?;
    length(&stage, 65536)?;
    // Shrunk and grown again, the part between reads as zeros.
    let shrink = "map A 65536 truncate A 4096 remap A 4096 sync A truncate A 65536 remap A 65536 sync A get A 4096 get A 61440 kill";
    let said = [
        "map ok",
        "truncate ok",
        "remap ok",
        "sync ok",
        "truncate ok",
        "remap ok",
        "sync ok",
        "a.img[4096] = 0",
        "a.img[61440] = 0",
    ];
    stage.expect(shrink, &said)?;
    stage.expect(
        "map A 65536 get A 4096 get A 61440 unmap A",
        &["map ok", "a.img[4096] = 0", "a.img[61440] = 0", "unmap ok"],
    )?;
    length(&stage, 65536)
}

fn remap(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    // Without `moved` in between.
    let story = "map A 4096 pointer A 0 8 truncate A 1048576 remap A 1048576 set A 8 4 set A 1000000 9 sync A follow A 0 kill";
    stage.expect(
        story,
        &["map ok", "truncate ok", "remap ok", "sync ok", "-> 4"],
    )?;
    stage.expect(
        "map A 1048576 get A 1000000 follow A 0",
        &["map ok", "a.img[1000000] = 9", "-> 4"],
    )
}

fn length_taken_back(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 8192 set A 0 1 sync A truncate A 65536 remap A 65536 set A 40960 1 kill",
        &["map ok", "sync ok", "truncate ok", "remap ok"],
    )?;
    stage.vernal(&["recover", "A"], 0, &["recovered"])?;
    length(&stage, 8192)?;
    stage.expect("map A 8192 get A 0", &["map ok", "a.img[0] = 1"])
}

fn length(stage: &Stage<'_>, expected: u64) -> Checked {
    let found = std::fs::metadata(stage.file("a"))?.len();
    if found == expected {
        Ok(())
    } else {
        wrong(format!("the file has {found} bytes, not {expected}"))
    }
}

fn abort(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let story = "map A 65536 set A 0 1 sync A set A 0 2 set A 40960 3 abort get A 0 get A 40960 set A 8 4 sync A kill";
    stage.expect(
        story,
        &[
            "map ok",
            "sync ok",
            "abort ok",
            "a.img[0] = 1",
            "a.img[40960] = 0",
            "sync ok",
        ],
    )?;
    stage.expect(
        "map A 65536 get A 0 get A 8 get A 40960",
        &["map ok", "a.img[0] = 1", "a.img[8] = 4", "a.img[40960] = 0"],
    )
}

fn jump(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 4096 jump A 16 5 sync A kill",
        &["map ok", "jumped", "sync ok"],
    )?;
    stage.expect("map A 4096 get A 16", &["map ok", "a.img[16] = 5"])
}

fn handler(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 4096 set A 0 1 handler A 8 2 kill",
        &["map ok", "handler sync ok"],
    )?;
    stage.expect(
        "map A 4096 get A 0 get A 8",
        &["map ok", "a.img[0] = 1", "a.img[8] = 2"],
    )
}

fn plain_image(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect(
        "map A 8192 fill A 100 5000 0x41 sync A fill A 0 8192 0x42 kill",
        &["map ok", "sync ok"],
    )?;
    stage.vernal(&["recover", "A"], 0, &["recovered"])?;
    let bytes = std::fs::read(stage.file("a"))?;
    let right =
        |(at, byte): (usize, &u8)| *byte == if (100..5100).contains(&at) { 0x41 } else { 0 };
    if bytes.len() == 8192 && bytes.iter().enumerate().all(right) {
        Ok(())
    } else {
        wrong("the file is not the committed image")
    }
}

fn not_opted_in(place: &Place) -> Checked {
    let stage = Stage::new(place)?.with("VERNAL_PATHS", "/nowhere/*.img");
    stage.expect("map A 4096 set A 0 1 sync A", &["map ok", "sync ok"])?;
    stage.vernal(&["check", "A"], 5, &["has no metadata"])?;
    match stage.journals()?.is_empty() && !stage.file("a.img.vernal").exists() {
        true => Ok(()),
        false => wrong("Vernal left files beside a file that was not opted in"),
    }
}
