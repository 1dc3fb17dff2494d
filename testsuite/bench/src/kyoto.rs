//! Kyoto Cabinet: the peer is Debian's library, Vernal's row the same version's source, compiled by vernal-c++.

use crate::compile::{Toolbox, plain_cxx, run, system_name};
use crate::plan::System;
use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library's translation units; its tools and tests are not needed.
const UNITS: [&str; 10] = [
    "kcutil",
    "kcthread",
    "kcfile",
    "kccompress",
    "kcmap",
    "kcdb",
    "kchashdb",
    "kcdirdb",
    "kcdbext",
    "kcpolydb",
];
/// The paths that the library's Makefile defines. (Not `_MYGCCATOMIC`: clang refuses what the library then does with GCC's
/// atomics; POSIX spin locks take their place.)
const DEFINES: [&str; 7] = [
    "-D_KC_PREFIX=\"/usr\"",
    "-D_KC_INCLUDEDIR=\"/usr/include\"",
    "-D_KC_LIBDIR=\"/usr/lib\"",
    "-D_KC_BINDIR=\"/usr/bin\"",
    "-D_KC_LIBEXECDIR=\"/usr/libexec\"",
    "-D_KC_APPINC=\"-I/usr/include\"",
    "-D_KC_APPLIBS=\"-lkyotocabinet\"",
];

/// Builds the program of a Kyoto Cabinet row and returns its path.
pub fn build(tools: &Toolbox, system: System) -> Result<PathBuf> {
    let program = tools.out().join(format!("kv-{}", system_name(system)));
    let workload = tools.sources().join("kv_kyoto.cc");
    let driver = tools.sources().join("driver.c");
    if system != System::KyotoVernal {
        let mut command = Command::new(plain_cxx()?);
        command.args(["-O2", "-Wno-deprecated"]);
        if system == System::KyotoWal {
            command.arg("-DKYOTO_WAL");
        }
        command
            .arg(workload)
            .args(["-x", "c"])
            .arg(driver)
            .arg("-o")
            .arg(&program)
            .arg("-lkyotocabinet");
        run(command)?;
        return Ok(program);
    }
    let (cxx, cc) = (tools.vernal("vernal-c++")?, tools.vernal("vernal-cc")?);
    let source = source(tools.out())?;
    let objects = tools.out().join("kyoto-vernal");
    std::fs::create_dir_all(&objects)
        .map_err(|e| Failure(format!("{}: {e}", objects.display())))?;
    let mut link = Command::new(&cxx);
    link.arg("-O2").arg("-o").arg(&program);
    for unit in UNITS {
        let from = source.join(format!("{unit}.cc"));
        if from.exists() {
            link.arg(compile(&cxx, &from, &source, &objects)?);
        }
    }
    link.arg(compile(&cxx, &workload, &source, &objects)?);
    let object = objects.join("driver.o");
    let mut command = Command::new(cc);
    command
        .args(["-O2", "-std=gnu11", "-c"])
        .arg(driver)
        .arg("-o")
        .arg(&object);
    run(command)?;
    link.arg(object).arg("-lpthread");
    run(link)?;
    Ok(program)
}

fn compile(cxx: &Path, from: &Path, include: &Path, objects: &Path) -> Result<PathBuf> {
    let stem = from.file_stem().unwrap_or_default();
    let object = objects.join(stem).with_extension("o");
    let mut command = Command::new(cxx);
    command
        .args(["-O2", "-std=gnu++14", "-Wno-everything", "-c"])
        .args(DEFINES);
    command
        .arg("-I")
        .arg(include)
        .arg(from)
        .arg("-o")
        .arg(&object);
    run(command)?;
    Ok(object)
}

/// The unpacked Debian source package; fetched with apt when it is not there. The system's package lists and settings
/// stay as they are: its sources are read again as sources of source packages, with lists of their own in `out`.
fn source(out: &Path) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("VERNAL_KYOTO_SOURCE") {
        return Ok(dir.into());
    }
    let dir = out.join("kyoto-source");
    let find = || {
        let entries = std::fs::read_dir(&dir).ok()?;
        entries
            .flatten()
            .map(|e| e.path())
            .find(|p| p.join("kchashdb.h").exists())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    fetch(&dir).map_err(|Failure(e)| {
        Failure(format!(
            "Debian's source package kyotocabinet cannot be fetched: {e}\nSet VERNAL_KYOTO_SOURCE to the unpacked source"
        ))
    })?;
    find().ok_or_else(|| Failure("the source package kyotocabinet holds no kchashdb.h".to_owned()))
}

fn fetch(dir: &Path) -> Result<()> {
    let io = |e: std::io::Error| Failure(format!("{}: {e}", dir.display()));
    let (parts, lists) = (dir.join("sources"), dir.join("lists"));
    std::fs::create_dir_all(&parts).map_err(io)?;
    std::fs::create_dir_all(lists.join("partial")).map_err(io)?;
    let system = std::fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    for file in system.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let (Ok(text), Some(name)) = (std::fs::read_to_string(&file), file.file_name()) else {
            continue;
        };
        let as_source = |line: &str| match line {
            _ if line.starts_with("Types:") => "Types: deb-src".to_owned(),
            _ if line.starts_with("deb ") => line.replacen("deb", "deb-src", 1),
            _ => line.to_owned(),
        };
        let text: Vec<String> = text.lines().map(as_source).collect();
        std::fs::write(parts.join(name), text.join("\n") + "\n").map_err(io)?;
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(dir)
            .args(["-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o"]);
        apt.arg(format!("Dir::Etc::sourceparts={}", parts.display()))
            .arg("-o");
        apt.arg(format!("Dir::State::lists={}", lists.display()));
        apt
    };
    let mut update = apt();
    update.arg("update");
    run(update)?;
    let mut source = apt();
    source.args(["source", "--only-source", "kyotocabinet"]);
    run(source)
}
