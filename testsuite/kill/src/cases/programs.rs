//! The longer programs: threads, brackets, signals, exceptions, the audit, page mode.

use super::story::Stage;
use super::{Checked, Entry, Problem, wrong};
use crate::child::{Ended, Running};
use crate::place::{Build, Medium, Place};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const CASES: &[Entry] = &[
    ("threads that store and commit lose nothing", threads),
    ("threads lose nothing in page mode", threads_in_page_mode),
    ("what racing threads were told is durable, is", races),
    (
        "a mark is interrupted at each of its instructions",
        interrupted_marks,
    ),
    ("op brackets give a consistent cut", brackets),
    ("signals interrupt stores and commits", signals),
    ("C++ containers stay whole across exceptions", exceptions),
    ("the audit finds an uninstrumented store", audit_finds),
    (
        "the audit is silent for an instrumented program",
        audit_silent,
    ),
    ("vernal run makes an untouched program safe", page_mode),
    ("vernal run refuses what it cannot track", run_refuses),
];

/// Runs `program` with a file and `arguments`.
fn run(
    stage: &Stage<'_>,
    program: &Path,
    build: Build,
    arguments: &[&str],
) -> Result<Ended, Problem> {
    let mut command = stage.command(program, build);
    command.arg(stage.file("a")).args(arguments);
    stage.run(command)
}

/// A program that writes and kills itself, and then checks: it must say the same before and after.
fn write_then_check(
    place: &Place,
    source: &str,
    build: Build,
    medium: Medium,
    last: &[&str],
    expected: Option<&str>,
) -> Checked {
    let stage = Stage::on(place, medium)?;
    let program = place.compile(source, build)?;
    let written = run(&stage, &program, build, &[&["write"], last].concat())?;
    if !written.killed() {
        return wrong(format!(
            "{source} did not reach its end: {} {}",
            written.status,
            written.err.trim()
        ));
    }
    let checked = run(&stage, &program, build, &[&["check"], last].concat())?;
    let expected = expected.unwrap_or(written.out.trim());
    if !checked.status.success() || checked.out.trim() != expected {
        let status = checked.status;
        return wrong(format!(
            "{source} wrote {:?} and found {:?} ({status}) {}",
            written.out.trim(),
            checked.out.trim(),
            checked.err.trim()
        ));
    }
    Ok(())
}

fn threads(place: &Place) -> Checked {
    for build in [Build::O0, Build::O2] {
        for medium in [Medium::Shm, Medium::Disk] {
            write_then_check(
                place,
                "cases/threads.c",
                build,
                medium,
                &["700"],
                Some("complete"),
            )?;
        }
    }
    Ok(())
}

fn threads_in_page_mode(place: &Place) -> Checked {
    write_then_check(
        place,
        "cases/threads.c",
        Build::Page,
        Medium::Shm,
        &["300"],
        Some("complete"),
    )
}

/// Killed again and again on one file: no thread ever loses a round that its msync acknowledged, and no line is mixed but for the
/// round in flight.
fn races(place: &Place) -> Checked {
    for (build, rounds) in [(Build::O2, 20), (Build::Page, 4)] {
        let stage = Stage::on(place, Medium::Shm)?;
        let program = place.compile("cases/races.c", build)?;
        for round in 0..rounds {
            let mut command = stage.command(&program, build);
            command.arg(stage.file("a")).arg("write");
            // Every other time by itself, at an injection point that some thread comes to while the others run.
            let by_itself = round % 2 == 1;
            if by_itself {
                command.env("VERNAL_TEST_KILL_AT", (200 + round * 397).to_string());
            }
            let mut running = Running::start(command, stage.notes.path())?;
            if !by_itself {
                running.wait_for("0 ")?;
                std::thread::sleep(Duration::from_millis(5 + round * 2));
                running.kill()?;
            }
            let ended = running.end()?;
            if !ended.killed() {
                return wrong(format!(
                    "it ended by itself: {} {}",
                    ended.status, ended.err
                ));
            }
            let acknowledged = ended.out;
            let dumped = run(&stage, &program, build, &["dump"])?;
            if !dumped.status.success() {
                return wrong(format!("{} {}", dumped.status, dumped.err));
            }
            for line in dumped.out.lines() {
                let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
                let &[thread, ref own @ .., shared] = numbers.as_slice() else {
                    return wrong(format!("dump: {line:?}"));
                };
                let told = last_round(&acknowledged, thread);
                let in_order = own
                    .windows(2)
                    .all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 1);
                if !in_order || own.iter().any(|&word| word < told) || shared < told {
                    return wrong(format!(
                        "{build:?} kill {round}: thread {thread} was told that round {told} is durable, and the file holds {line:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The last round that thread `thread` said was durable.
fn last_round(said: &str, thread: u64) -> u64 {
    let whole = &said[..said.rfind('\n').map_or(0, |at| at + 1)];
    let of_thread = |line: &str| {
        let (t, round) = line.split_once(' ')?;
        (t.parse::<u64>().ok()? == thread).then(|| round.parse().ok())?
    };
    whole.lines().rev().find_map(of_thread).unwrap_or(0)
}

fn brackets(place: &Place) -> Checked {
    let stage = Stage::on(place, Medium::Shm)?;
    let program = place.compile("cases/brackets.c", Build::O2)?;
    for round in 0..6 {
        let mut command = stage.command(&program, Build::O2);
        command.arg(stage.file("a")).arg("write");
        let mut running = Running::start(command, stage.notes.path())?;
        running.wait_for("committed")?;
        std::thread::sleep(Duration::from_millis(round * 3));
        running.kill()?;
        running.end()?;
        let checked = run(&stage, &program, Build::O2, &["check"])?;
        if !checked.status.success()
            || !checked.out.starts_with("whole, ")
            || checked.out.contains(" 0 pairs")
        {
            return wrong(format!(
                "round {round}: {} {} {}",
                checked.status,
                checked.out.trim(),
                checked.err.trim()
            ));
        }
    }
    Ok(())
}

/// What a commit of the one who interrupts does not hold is lost if the machine stops then.
fn interrupted_marks(place: &Place) -> Checked {
    let program = place.compile("cases/steps.c", Build::O2)?;
    for by in ["handler", "thread"] {
        let stage = Stage::on(place, Medium::Shm)?;
        let ended = run(&stage, &program, Build::O2, &[by])?;
        if !ended.status.success() || ended.out.trim() != "complete" {
            return wrong(format!("{by}: {} {}", ended.status, ended.err.trim()));
        }
    }
    Ok(())
}

fn signals(place: &Place) -> Checked {
    write_then_check(place, "cases/signals.c", Build::O2, Medium::Shm, &[], None)
}

fn exceptions(place: &Place) -> Checked {
    for build in [Build::O0, Build::O2] {
        write_then_check(place, "cases/exceptions.cpp", build, Medium::Shm, &[], None)?;
    }
    Ok(())
}

/// `tool` compiled without the pass: its stores are not seen, and the audit says where.
fn audit_finds(place: &Place) -> Checked {
    let stage = Stage::new(place)?.with("VERNAL_AUDIT", "1");
    let program = stage.notes.file("unseen");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(place.tool("vernal-cc"))
        .args(["--vernal-no-pass", "-O1", "-I"])
        .arg(sources.join("../../runtime/capi/include"))
        .arg(sources.join("cases/tool.c"))
        .arg("-o")
        .arg(&program)
        .output()?;
    if !output.status.success() {
        return wrong(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut command = stage.command(&program, Build::O2);
    let file = stage.file("a");
    let file = file.to_string_lossy();
    command.args([
        "map", &file, "65536", "set", &file, "8200", "1", "sync", &file,
    ]);
    let ended = stage.run(command)?;
    if ended.status.success() {
        return wrong(format!(
            "the missed store went unnoticed: {}{}",
            ended.out, ended.err
        ));
    }
    let said = &ended.err;
    if said.contains("audit") && said.contains("offset 8200") {
        Ok(())
    } else {
        wrong(format!("the audit does not name the offset: {said}"))
    }
}

fn audit_silent(place: &Place) -> Checked {
    let stage = Stage::new(place)?.with("VERNAL_AUDIT", "1");
    let story = "map A 65536 set A 8200 1 fill A 100 9000 3 sync A truncate A 131072 remap A 131072 fill A 70000 50000 9 sync A abort jump A 0 1 unmap A";
    let said = [
        "map ok",
        "sync ok",
        "truncate ok",
        "remap ok",
        "sync ok",
        "abort ok",
        "jumped",
        "unmap ok",
    ];
    stage.expect(story, &said)?;
    for source in ["workloads/list.c", "workloads/btree.c", "workloads/kv.c"] {
        let program = place.compile(source, Build::O2)?;
        let stage = Stage::new(place)?.with("VERNAL_AUDIT", "1");
        let ended = run(&stage, &program, Build::O2, &["run", "1", "300"])?;
        if !ended.status.success() {
            return wrong(format!("{source}: {} {}", ended.status, ended.err.trim()));
        }
    }
    Ok(())
}

/// The tool, built by plain clang, through the real command.
fn page_mode(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let program = place.compile("cases/tool.c", Build::Page)?;
    let file = stage.file("a").to_string_lossy().into_owned();
    let tell = |words: &[&str]| {
        let mut command = Command::new(place.tool("vernal"));
        command.args(["run", "--paths", &file, "--"]).arg(&program);
        command.args(
            words
                .iter()
                .map(|word| if *word == "A" { file.as_str() } else { word }),
        );
        stage.run(command)
    };
    let ended = tell(&[
        "map", "A", "65536", "set", "A", "0", "1", "fill", "A", "9000", "100", "2", "sync", "A",
        "set", "A", "0", "7", "kill",
    ])?;
    if ended.out != "map ok\nsync ok\n" || !ended.killed() {
        return wrong(format!("{} {} {}", ended.status, ended.out, ended.err));
    }
    let ended = tell(&[
        "map", "A", "65536", "get", "A", "0", "sum", "A", "9000", "200",
    ])?;
    if ended.out == "map ok\na.img[0] = 1\nsum 200\n" {
        Ok(())
    } else {
        wrong(format!("{} {} {}", ended.status, ended.out, ended.err))
    }
}

fn run_refuses(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    let static_program = stage.notes.file("static");
    let source = stage.notes.file("static.c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let built = Command::new("clang-22")
        .arg("-static")
        .arg(&source)
        .arg("-o")
        .arg(&static_program)
        .output()?;
    stage.vernal(
        &[
            "run",
            "--paths",
            "/x/*.img",
            "--",
            "no-such-program-anywhere",
        ],
        1,
        &["PATH"],
    )?;
    if std::env::var_os("VERNAL_PATHS").is_none() {
        stage.vernal(&["run", "--", "true"], 1, &["VERNAL_PATHS"])?;
    }
    if !built.status.success() {
        return Err(Problem::Skip("no static C library here".into()));
    }
    let path = static_program.to_string_lossy();
    stage.vernal(
        &["run", "--paths", "/x/*.img", "--", &path],
        1,
        &["statically linked", "vernal-cc"],
    )
}
