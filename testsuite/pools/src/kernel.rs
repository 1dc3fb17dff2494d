//! Memory of a pool that has moved, given to the kernel before the program has touched it (`programs/kernel.c`).

use crate::Result;
use crate::build::{compile, here};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use vernal_programs::tools::{Tools, run};

/// Its name in reports.
pub const NAME: &str = "kernel-calls";

/// Builds the program, makes a pool, clones it, and lets the program use the clone beside the original.
pub fn check(tools: &Tools) -> Result<String> {
    let executable = compile(
        tools,
        &here().join("programs/kernel.c"),
        &["-O2"],
        "pool-kernel",
    )?;
    let folder = tools.work.join("run").join("pool-kernel");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let (pool, moved) = (folder.join("pool"), folder.join("moved"));
    let say = |arguments: &[&str], pools: &[&Path]| -> Result<String> {
        let mut command = Command::new(&executable);
        command
            .args(arguments)
            .args(pools)
            .env("LD_LIBRARY_PATH", &tools.bin)
            .stdin(Stdio::null());
        Ok(String::from_utf8_lossy(&run(&mut command)?.stdout).into_owned())
    };
    say(&["make"], &[&pool])?;
    let mut clone = Command::new(tools.bin.join("vernal"));
    // The large object is bytes and no addresses, and nobody can know that.
    run(clone
        .args(["pool", "clone", "--allow-untyped"])
        .arg(&pool)
        .arg(&moved))?;
    say(&["use"], &[&pool, &moved])?;
    let said = say(&["check"], &[&moved])?;
    if !said.contains("every call had its memory") {
        return Err(format!("printed {said:?}").into());
    }
    fs::remove_dir_all(&folder)?;
    Ok("12 calls with memory that nobody had touched".to_owned())
}
