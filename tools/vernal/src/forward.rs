//! `vernal cc` and `vernal c++`: the compiler driver that lies beside this program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes `driver`; returns only when that fails.
pub fn run(driver: &str, arguments: &[OsString]) -> u8 {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(driver)));
    let program = beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| driver.into());
    let error = Command::new(&program).args(arguments).exec();
    eprintln!(
        "vernal: cannot run {}: {error}: install {driver} beside `vernal`, or on PATH",
        program.display()
    );
    crate::code::ERROR
}
