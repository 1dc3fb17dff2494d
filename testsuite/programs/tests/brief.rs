//! A taste of the suite for `cargo test`: one program and the proof that the audit finds what is not instrumented. All of it
//! is `vernal-programs run` (`cargo xtask test`, `cargo xtask soak programs`).

use std::process::Command;

/// Runs the suite on what matches `only`; None if Vernal's tools are not built in this profile.
fn run(only: &str) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vernal-programs"));
    let output = command
        .args(["run", "--kills", "4", "--only", only])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if err.contains("run `cargo build --release` first") {
        eprintln!("skipped: {err}");
        return None;
    }
    assert!(output.status.success(), "{out}\n{err}");
    Some(out.into_owned())
}

#[test]
fn collections_of_cxx() {
    let Some(out) = run("cxx-O2") else { return };
    assert!(
        out.contains("300 steps audited, 0 bytes missed; 4 kills, 0 inconsistent"),
        "{out}"
    );
}

#[test]
fn the_audit_finds_an_uninstrumented_program() {
    let Some(out) = run("audit-finds") else {
        return;
    };
    assert!(out.ends_with("1 passed, 0 failed\n"), "{out}");
}

#[test]
fn every_program_is_listed() {
    let output = Command::new(env!("CARGO_BIN_EXE_vernal-programs"))
        .arg("list")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in [
        "sqlite",
        "zstd",
        "kyoto",
        "lua",
        "boost",
        "cxx",
        "rust",
        "example-phonebook",
    ] {
        assert!(out.contains(name), "{name} is missing in\n{out}");
    }
}
