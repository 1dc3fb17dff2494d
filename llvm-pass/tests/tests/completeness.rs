//! Runs programs that store into tracked memory in every way, built at every level, and demands that no byte is missed.

use std::path::{Path, PathBuf};
use std::process::Command;

use vernal_pass_tests::{VERSIONS, here, plugin, run, scratch};

/// How a program is built: a name, flags for the compiler, whether the linker needs the plugin.
const WAYS: &[(&str, &[&str], bool)] = &[
    ("O0", &["-O0"], false),
    ("O1", &["-O1"], false),
    ("O2", &["-O2"], false),
    ("O3", &["-O3"], false),
    ("Os", &["-Os"], false),
    ("fortify", &["-O2", "-D_FORTIFY_SOURCE=2"], false),
    ("no-builtin", &["-O2", "-fno-builtin"], false),
    ("lto", &["-O2", "-flto=full"], true),
    ("lto-O0", &["-O0", "-flto=full"], true),
    ("thin", &["-O2", "-flto=thin"], true),
    ("fat", &["-O2", "-flto=full", "-ffat-lto-objects"], true),
    (
        "fat-native",
        &["-O2", "-flto=full", "-ffat-lto-objects"],
        false,
    ),
];

fn defines() -> Vec<String> {
    vec![
        format!("-DTRACKED_BASE={:#x}ul", vernal_abi::TRACKED_BASE),
        format!("-DSHADOW_BASE={:#x}ul", vernal_abi::SHADOW_BASE),
        format!("-DSHADOW_SIZE={:#x}ul", vernal_abi::SHADOW_SIZE),
    ]
}

fn runtime(version: u32, dir: &Path) -> PathBuf {
    let object = dir.join("runtime.o");
    run(Command::new(format!("clang-{version}"))
        .args(["-O1", "-c"])
        .args(defines())
        .arg(here().join("fixtures/runtime.c"))
        .arg("-o")
        .arg(&object));
    object
}

fn build_and_run(version: u32, source: &str) {
    let plugin = plugin(version);
    let cxx = source.ends_with(".cc");
    let compiler = format!("clang{}-{version}", if cxx { "++" } else { "" });
    let dir = scratch(
        Path::new(env!("CARGO_TARGET_TMPDIR")),
        &format!("{source}-{version}"),
    );
    let runtime = runtime(version, &dir);
    let mut failed = Vec::new();
    for (name, flags, at_link) in WAYS {
        let (object, program) = (dir.join(format!("{name}.o")), dir.join(name));
        run(Command::new(&compiler)
            .args(*flags)
            .args(["-w", "-c"])
            .arg(format!("-fpass-plugin={}", plugin.display()))
            .arg(here().join("fixtures").join(source))
            .arg("-o")
            .arg(&object));
        let mut link = Command::new(&compiler);
        link.arg("-fuse-ld=lld")
            .args([&object, &runtime])
            .args(["-lm", "-lpthread", "-o"])
            .arg(&program);
        if *at_link {
            link.args(*flags)
                .arg(format!("-Wl,--load-pass-plugin={}", plugin.display()));
        }
        run(&mut link);
        let out = Command::new(&program)
            .output()
            .expect("the program that was just built runs");
        if !out.status.success() {
            failed.push(format!(
                "{name}: {}\n{}",
                out.status,
                String::from_utf8_lossy(&out.stderr)
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{source}, LLVM {version}:\n{}",
        failed.join("\n")
    );
}

#[test]
fn c_stores_are_marked() {
    VERSIONS.iter().for_each(|&v| build_and_run(v, "kinds.c"));
}

#[test]
fn cxx_stores_are_marked() {
    VERSIONS.iter().for_each(|&v| build_and_run(v, "kinds.cc"));
}

/// An LTO object that was never instrumented must not link.
#[test]
fn an_lto_link_without_the_plugin_fails() {
    for version in VERSIONS {
        let dir = scratch(
            Path::new(env!("CARGO_TARGET_TMPDIR")),
            &format!("pending-{version}"),
        );
        let object = dir.join("a.o");
        for lto in ["-flto=full", "-flto=thin"] {
            run(Command::new(format!("clang-{version}"))
                .args([lto, "-w", "-O2", "-c"])
                .arg(format!("-fpass-plugin={}", plugin(version).display()))
                .arg(here().join("fixtures/kinds.c"))
                .arg("-o")
                .arg(&object));
            let out = Command::new(format!("clang-{version}"))
                .args([lto, "-fuse-ld=lld", "-O2", "-lm"])
                .args([&object, &runtime(version, &dir)])
                .arg("-o")
                .arg(dir.join("a"))
                .output()
                .expect("clang runs");
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(!out.status.success(), "{lto}: linked without the pass");
            assert!(text.contains(vernal_abi::LTO_PENDING_SYMBOL), "{text}");
        }
    }
}
