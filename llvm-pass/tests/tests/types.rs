//! The descriptors of allocated types: programs in C and C++ ask the compiler by `offsetof`, `sizeof` and real vtable
//! pointers whether what the pass filled in is right, at every level, and both clangs must say the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vernal_pass_tests::{VERSIONS, here, plugin, run, scratch};

/// How a program is built: a name, flags for the compiler, flags for the link (`PLUGIN` loads the pass there).
const WAYS: &[(&str, &[&str], &[&str])] = &[
    ("O0", &["-O0"], &[]),
    ("O2", &["-O2"], &[]),
    ("Os", &["-Os"], &[]),
    ("g", &["-O2", "-g"], &[]),
    (
        "sections",
        &["-O2", "-ffunction-sections", "-fdata-sections"],
        &["-Wl,--gc-sections"],
    ),
    (
        "sections-bfd",
        &["-O2", "-ffunction-sections", "-fdata-sections"],
        &["-fuse-ld=bfd", "-Wl,--gc-sections"],
    ),
    ("no-pie", &["-O2", "-fno-pie"], &["-no-pie"]),
    ("lto", &["-O2", "-flto=full"], &["-flto=full", "PLUGIN"]),
    ("thin", &["-O2", "-flto=thin"], &["-flto=thin", "PLUGIN"]),
    (
        "fat",
        &["-O2", "-flto=full", "-ffat-lto-objects"],
        &["-flto=full", "PLUGIN"],
    ),
    (
        "fat-native",
        &["-O2", "-flto=full", "-ffat-lto-objects"],
        &[],
    ),
];

/// What `vernal-cc` adds.
const TYPES: &[&str] = &[
    "-Xclang",
    "-fdeclspec",
    "-Xclang",
    "-debug-info-kind=standalone",
];
const STRIP: &[&str] = &["-Xclang", "-dwarf-debug-flags", "-Xclang", "vernal-strip"];

fn fixture(name: &str) -> PathBuf {
    here().join("fixtures/types").join(name)
}

fn folder(name: &str) -> PathBuf {
    scratch(Path::new(env!("CARGO_TARGET_TMPDIR")), name)
}

fn clang(version: u32, cxx: bool) -> Command {
    Command::new(format!("clang{}-{version}", if cxx { "++" } else { "" }))
}

/// Compiles one file with the pass; the layouts go to `layouts`.
fn compile(
    version: u32,
    source: &Path,
    flags: &[&str],
    object: &Path,
    layouts: Option<&Path>,
) -> Output {
    let cxx = source.extension().is_some_and(|e| e == "cc");
    let mut command = clang(version, cxx);
    command
        .args(["-c", "-w"])
        .arg(if cxx { "-std=c++20" } else { "-std=gnu17" })
        .arg(format!("-fpass-plugin={}", plugin(version).display()))
        .args(TYPES)
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(object);
    if !flags.contains(&"-g") {
        command.args(STRIP);
    }
    if let Some(path) = layouts {
        let _ = std::fs::remove_file(path);
        command.env("VERNAL_PASS_TYPES", path);
    }
    run(&mut command)
}

/// Builds and runs the program in every way. Returns the layouts, which must not depend on the way.
fn holds(version: u32, name: &str, sources: &[&str]) -> String {
    let dir = folder(&format!("types-{name}-{version}"));
    let runtime = dir.join("runtime.o");
    run(clang(version, false)
        .args(["-O1", "-w", "-fdeclspec", "-c"])
        .arg(fixture("runtime.c"))
        .arg("-o")
        .arg(&runtime));
    let marks = dir.join("marks.o");
    run(clang(version, false)
        .args(["-O1", "-c"])
        .args([
            format!("-DTRACKED_BASE={:#x}ul", vernal_abi::TRACKED_BASE),
            format!("-DSHADOW_BASE={:#x}ul", vernal_abi::SHADOW_BASE),
            format!("-DSHADOW_SIZE={:#x}ul", vernal_abi::SHADOW_SIZE),
        ])
        .arg(here().join("fixtures/runtime.c"))
        .arg("-o")
        .arg(&marks));
    // Optimised and not: the fixture has classes whose vtables are visible only when clang optimises.
    let mut all: [Option<String>; 2] = [None, None];
    let mut failed = Vec::new();
    for (way, flags, link_flags) in WAYS {
        let mut layouts = String::new();
        let mut objects = vec![runtime.clone(), marks.clone()];
        for source in sources {
            let object = dir.join(format!("{way}-{source}.o"));
            let text = dir.join("layouts");
            compile(version, &fixture(source), flags, &object, Some(&text));
            layouts += &std::fs::read_to_string(&text).expect("the pass wrote the layouts");
            objects.push(object);
        }
        let first = &mut all[usize::from(flags.contains(&"-O0"))];
        if *first.get_or_insert_with(|| layouts.clone()) != layouts {
            failed.push(format!("{way}: other layouts than before"));
        }
        let program = dir.join(way);
        let mut link = clang(version, sources[0].ends_with(".cc"));
        link.arg("-fuse-ld=lld");
        for flag in *link_flags {
            match *flag {
                "PLUGIN" => link.arg(format!(
                    "-Wl,--load-pass-plugin={}",
                    plugin(version).display()
                )),
                flag => link.arg(flag),
            };
        }
        run(link.args(objects).arg("-lpthread").arg("-o").arg(&program));
        let out = Command::new(&program)
            .output()
            .expect("the program that was just built runs");
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            failed.push(format!("{way}: {}\n{said}", out.status));
        }
    }
    assert!(
        failed.is_empty(),
        "{name}, LLVM {version}:\n{}",
        failed.join("\n")
    );
    all.into_iter().flatten().collect()
}

#[test]
fn c_types() {
    let said: Vec<_> = VERSIONS
        .iter()
        .map(|&v| holds(v, "c", &["types.c"]))
        .collect();
    assert_eq!(said[0], said[1], "the clangs differ");
}

#[test]
fn cxx_types() {
    let said: Vec<_> = VERSIONS
        .iter()
        .map(|&v| holds(v, "cxx", &["types.cc", "other.cc"]))
        .collect();
    assert_eq!(said[0], said[1], "the clangs differ");
}

/// A pool that a C program made is opened by a C++ program with the same header.
#[test]
fn c_and_cxx_agree() {
    let dir = folder("types-shared");
    let header = std::fs::read_to_string(fixture("shared.h")).expect("the fixture is there");
    let mut said = Vec::new();
    for (name, version) in [("a.c", 22), ("a.cc", 22), ("b.c", 19), ("b.cc", 19)] {
        let source = dir.join(name);
        std::fs::write(&source, &header).expect("the scratch folder can be written");
        let layouts = dir.join("layouts");
        let flags = ["-O1", "-I", fixture("").to_str().unwrap_or_default()].map(str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        compile(version, &source, &flags, &dir.join("o"), Some(&layouts));
        said.push(std::fs::read_to_string(&layouts).expect("the pass wrote the layouts"));
    }
    assert!(said[0].contains("shared: "), "{}", said[0]);
    assert!(said.iter().all(|s| *s == said[0]), "{said:#?}");
}
