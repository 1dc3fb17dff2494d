//! One `.ll` file per rule: `opt` runs the pass on it, FileCheck compares what came out with the comments in it.
//!
//! The first line of a file says how: `; RUN: opt -passes=… | FileCheck`. Further `RUN` lines give further prefixes; a line
//! `; VERSIONS: 22` restricts the file to that LLVM. `VERNAL_PASS_STATS` goes to the same output as the module, as a line
//! `STATS: {json}`, so that rules about counters can be checked too.

use std::path::Path;
use std::process::{Command, Stdio};

use vernal_pass_tests::{VERSIONS, here, plugin, scratch};

/// One `RUN` line: the pass pipeline, the options of the pass, FileCheck's prefix.
struct Run {
    passes: String,
    options: String,
    prefix: String,
}

fn runs(text: &str) -> Vec<Run> {
    text.lines()
        .filter_map(|l| l.strip_prefix("; RUN:"))
        .map(|l| {
            let word = |name: &str, default: &str| {
                let found = l
                    .split_whitespace()
                    .find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
                found.unwrap_or(default).to_owned()
            };
            Run {
                passes: word("passes", "vernal"),
                options: word("options", "far=0"),
                prefix: word("prefix", "CHECK"),
            }
        })
        .collect()
}

fn check(version: u32, file: &Path, run: &Run, dir: &Path) -> Result<(), String> {
    let stats = dir.join("stats");
    let _ = std::fs::remove_file(&stats);
    let opt = Command::new(format!("opt-{version}"))
        .arg(format!("-load-pass-plugin={}", plugin(version).display()))
        .arg(format!("-passes={}", run.passes))
        .args(["-verify-each", "-S", "-o", "-"])
        .arg(file)
        .env("VERNAL_PASS_STATS", &stats)
        .env("VERNAL_PASS_OPTIONS", &run.options)
        .output()
        .map_err(|e| {
            format!("cannot run opt-{version}: {e}; install the Debian package llvm-{version}")
        })?;
    let said = String::from_utf8_lossy(&opt.stderr).into_owned();
    if !opt.status.success() {
        return Err(format!("opt: {}\n{said}", opt.status));
    }
    let mut text = String::from_utf8_lossy(&opt.stdout).into_owned();
    for line in said.lines() {
        text.push_str(&format!("; WARNED: {line}\n"));
    }
    for line in std::fs::read_to_string(&stats).unwrap_or_default().lines() {
        text.push_str(&format!("; STATS: {line}\n"));
    }
    let output = dir.join("output.ll");
    std::fs::write(&output, &text).map_err(|e| e.to_string())?;
    let filecheck = Command::new("FileCheck-22")
        .arg(format!("--check-prefix={}", run.prefix))
        .arg(format!("--input-file={}", output.display()))
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            format!("cannot run FileCheck-22: {e}; install the Debian package llvm-22-tools")
        })?;
    if filecheck.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}\n--- output:\n{text}",
        String::from_utf8_lossy(&filecheck.stderr)
    ))
}

#[test]
fn every_rule_holds() {
    let folder = here().join("filecheck");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of tests is there")
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "ll"))
        .collect();
    files.sort();
    assert!(
        files.len() > 20,
        "found only {} tests in {}",
        files.len(),
        folder.display()
    );
    let dir = scratch(Path::new(env!("CARGO_TARGET_TMPDIR")), "filecheck");
    let mut failed = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a test that was just listed can be read");
        let runs = runs(&text);
        assert!(!runs.is_empty(), "{} has no RUN line", file.display());
        let only: Option<Vec<u32>> = text
            .lines()
            .find_map(|l| l.strip_prefix("; VERSIONS: "))
            .map(|l| {
                l.split_whitespace()
                    .filter_map(|v| v.parse().ok())
                    .collect()
            });
        for version in VERSIONS
            .iter()
            .filter(|v| only.as_ref().is_none_or(|o| o.contains(v)))
        {
            for run in &runs {
                if let Err(e) = check(*version, file, run, &dir) {
                    failed.push(format!(
                        "== {} (LLVM {version}, {})\n{e}",
                        file.display(),
                        run.prefix
                    ));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} failures\n{}",
        failed.len(),
        failed.join("\n")
    );
}
