//! `vernal run`: preloads libvernal into a program that the compiler has not seen, in page mode.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use vernal_cc::Component;

/// Becomes the program; returns only when that fails.
pub fn run(paths: Option<String>, program: &[OsString]) -> u8 {
    let error = match prepare(paths, program) {
        Ok(mut command) => {
            let reason = command.exec();
            format!("cannot run {}: {reason}", command.get_program().display())
        }
        Err(text) => text,
    };
    eprintln!("vernal: {error}");
    crate::code::ERROR
}

fn prepare(paths: Option<String>, program: &[OsString]) -> Result<Command, String> {
    let (name, arguments) = program
        .split_first()
        .ok_or("name a program after `vernal run --`")?;
    let chosen = paths.or_else(|| env::var("VERNAL_PATHS").ok()).filter(|p| !p.is_empty()).ok_or(
        "no file is opted in, so nothing would be failure-atomic: give --paths '/data/*.img', or set VERNAL_PATHS",
    )?;
    let mut command = preloaded(name, Component::Shared)?;
    command.args(arguments);
    command
        .env("VERNAL_MODE", "page")
        .env("VERNAL_PATHS", chosen);
    Ok(command)
}

/// A command that runs `name` with one of our libraries preloaded, before those that are preloaded already.
pub fn preloaded(name: &OsStr, component: Component) -> Result<Command, String> {
    let path = find(name)?;
    refuse_what_cannot_be_preloaded(&path)?;
    let folder = vernal_cc::library_dir().map_err(|e| e.to_string())?;
    let library = component.find_in(&folder).map_err(|e| e.to_string())?;
    let mut preload = library.into_os_string();
    if preload.to_string_lossy().contains([' ', ':']) {
        let shown = preload.to_string_lossy();
        return Err(format!(
            "{shown}: LD_PRELOAD cannot name a path with a space or a colon: install Vernal elsewhere"
        ));
    }
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|o| !o.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let mut command = Command::new(&path);
    command.arg0(name).env("LD_PRELOAD", preload);
    Ok(command)
}

/// The file that a shell would run for `name`.
fn find(name: &OsStr) -> Result<PathBuf, String> {
    let runnable = |path: &Path| {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let shown = name.to_string_lossy();
    if shown.contains('/') {
        let path = PathBuf::from(name);
        return if runnable(&path) {
            Ok(path)
        } else {
            Err(format!("{shown} is not a program that can be run"))
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| runnable(path));
    found.ok_or_else(|| {
        format!("{shown} is not on PATH: give its path, as in `vernal run -- ./{shown}`")
    })
}

/// The dynamic linker preloads; without one, or for set-user-id programs, nothing would be tracked, silently.
fn refuse_what_cannot_be_preloaded(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| format!("{shown}: {e}"))?;
    let mode = file
        .metadata()
        .map_err(|e| format!("{shown}: {e}"))?
        .permissions()
        .mode();
    if mode & 0o6000 != 0 {
        return Err(format!(
            "{shown} is set-user-id or set-group-id, and ignores preloading: copy it without that bit, or compile it with vernal-cc"
        ));
    }
    match interpreter(&file) {
        Ok(Elf::Static) => Err(format!(
            "{shown} is statically linked, so nothing can be preloaded: compile it with vernal-cc instead"
        )),
        // A script's interpreter is what is preloaded.
        Ok(Elf::Dynamic | Elf::Other) => Ok(()),
        Err(e) => Err(format!("{shown}: {e}")),
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Elf {
    Dynamic,
    Static,
    Other,
}

/// Whether an ELF file names a dynamic linker: a program header of type PT_INTERP.
fn interpreter(mut file: &File) -> std::io::Result<Elf> {
    const HEADER: usize = 64;
    const ENTRY: usize = 56;
    const PT_INTERP: u32 = 3;
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match file.read(&mut header[have..])? {
            0 => return Ok(Elf::Other),
            n => have += n,
        }
    }
    // 64-bit ELF, little-endian.
    if header[..6] != [0x7f, b'E', b'L', b'F', 2, 1] {
        return Ok(Elf::Other);
    }
    let offset = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
    let size = u16::from_le_bytes([header[54], header[55]]);
    let count = u16::from_le_bytes([header[56], header[57]]);
    if usize::from(size) != ENTRY {
        return Ok(Elf::Other);
    }
    for index in 0..u64::from(count) {
        let mut kind = [0; 4];
        let Some(at) = offset.checked_add(index * ENTRY as u64) else {
            return Ok(Elf::Other);
        };
        if file.read_at(&mut kind, at)? < kind.len() {
            return Ok(Elf::Other);
        }
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(Elf::Dynamic);
        }
    }
    Ok(Elf::Static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_dynamic_programs_from_the_rest() -> std::io::Result<()> {
        assert_eq!(interpreter(&File::open("/proc/self/exe")?)?, Elf::Dynamic);
        assert_eq!(interpreter(&File::open("/dev/null")?)?, Elf::Other);
        let manifest = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))?;
        assert_eq!(interpreter(&manifest)?, Elf::Other);
        Ok(())
    }

    #[test]
    fn programs_are_found_as_a_shell_does() {
        assert!(find(OsStr::new("sh")).is_ok());
        let error = find(OsStr::new("no-such-program-anywhere")).unwrap_err();
        assert!(error.contains("PATH"), "{error}");
        assert!(find(OsStr::new("/dev/null")).is_err());
    }
}
