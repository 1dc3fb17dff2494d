//! Builds a program with clang, with and without the plugin.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sources::Program;

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `-O2`.
    O2,
    /// `-O2 -flto=thin`.
    Thin,
    /// `-O2 -flto=full`.
    Full,
}

impl Mode {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "O2" => Ok(Self::O2),
            "thin" => Ok(Self::Thin),
            "full" => Ok(Self::Full),
            other => Err(format!(
                "there is no build {other}: choose from O2, thin, full"
            )),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::O2 => "O2",
            Self::Thin => "thin",
            Self::Full => "full",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::O2 => &["-O2"],
            Self::Thin => &["-O2", "-flto=thin"],
            Self::Full => &["-O2", "-flto=full"],
        }
    }
}

/// Builds `program` below `dir` and returns its path. Objects newer than the plugin are kept.
pub fn build(
    program: &Program,
    mode: Mode,
    plugin: Option<&Path>,
    llvm: u32,
    dir: &Path,
) -> Result<PathBuf, String> {
    let clang = format!("clang-{llvm}");
    let system = if plugin.is_some() { "vernal" } else { "plain" };
    let dir = dir.join(format!("{llvm}-{}-{}-{system}", program.row, mode.name()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    let time = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    let stubs = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/stubs.c");
    let mut objects: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (n, file) in program.files.iter().chain([&stubs]).enumerate() {
        let stem = file
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        objects.push((file.clone(), dir.join(format!("{n}-{stem}.o"))));
    }
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<String>> = Mutex::new(None);
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            s.spawn(|| {
                while let Some((file, object)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fresh = time(object).is_some_and(|t| {
                        [plugin, Some(file)]
                            .into_iter()
                            .flatten()
                            .all(|p| time(p).is_some_and(|p| p < t))
                    });
                    if fresh {
                        continue;
                    }
                    let mut c = Command::new(&clang);
                    c.args(["-c", "-w"]).arg(file).arg("-o").arg(object);
                    // The stubs stand for the runtime, which is never instrumented.
                    if *file == stubs {
                        c.arg("-O2");
                    } else {
                        c.args(mode.flags()).args(&program.flags);
                        program.includes.iter().for_each(|i| {
                            c.arg("-I").arg(i);
                        });
                        if let Some(p) = plugin {
                            c.arg(format!("-fpass-plugin={}", p.display()));
                        }
                    }
                    if let Err(e) = succeed(&mut c) {
                        failed
                            .lock()
                            .unwrap_or_else(|e| e.into_inner())
                            .get_or_insert(e);
                        return;
                    }
                }
            });
        }
    });
    if let Some(e) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(e);
    }
    let path = dir.join(&program.row);
    let mut link = Command::new(&clang);
    link.args(mode.flags())
        .arg("-fuse-ld=lld")
        .args(objects.iter().map(|o| &o.1))
        .args(&program.libs);
    if let Some(p) = plugin.filter(|_| mode != Mode::O2) {
        link.arg(format!("-Wl,--load-pass-plugin={}", p.display()));
    }
    succeed(link.arg("-o").arg(&path))?;
    Ok(path)
}

fn succeed(c: &mut Command) -> Result<(), String> {
    let out = c.output().map_err(|e| {
        format!("cannot run {c:?}: {e}; install the Debian packages clang-22 and lld-22")
    })?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{c:?}: {}\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        )),
    }
}
