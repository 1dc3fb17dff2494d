//! A taste of the suite for `cargo test`: one program per language. All of it is `vernal-pool-programs run`.

use std::process::Command;

/// Runs the suite on what matches `only`; None if Vernal's tools are not built in this profile.
fn run(only: &str) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vernal-pool-programs"));
    let output = command
        .args(["run", "--kills", "4", "--steps", "80", "--only", only])
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
fn containers_of_cxx_equal_their_twin_after_kills() {
    let Some(out) = run("containers-O2") else {
        return;
    };
    assert!(out.contains("80 steps as the twin"), "{out}");
}

#[test]
fn a_rust_program_of_plain_cargo_equals_its_twin_after_kills() {
    let Some(out) = run("rust-plain") else {
        return;
    };
    assert!(out.contains("80 steps as the twin"), "{out}");
}

#[test]
fn the_example_in_c_survives_kills() {
    let Some(out) = run("example-queue") else {
        return;
    };
    assert!(out.ends_with("1 passed, 0 failed\n"), "{out}");
}

#[test]
fn the_kernel_gets_memory_of_a_moved_pool_that_nobody_has_touched() {
    let Some(out) = run("kernel-calls") else {
        return;
    };
    assert!(out.ends_with("1 passed, 0 failed\n"), "{out}");
}
