//! Builds a program at a level with Vernal's compiler drivers. What has not changed is not built again.

use crate::Result;
use crate::programs::{Program, Recipe};
use crate::tools::{Tools, run};
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How it is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `-O0`
    O0,
    /// `-O2`
    O2,
    /// `-O3` with the vector instructions of AVX2, where the machine has them.
    O3,
    /// `-O2 -flto`
    FullLto,
    /// `-O2 -flto=thin`
    ThinLto,
}

impl Level {
    /// All of them.
    pub const ALL: &'static [Level] = &[
        Level::O0,
        Level::O2,
        Level::O3,
        Level::FullLto,
        Level::ThinLto,
    ];

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::O0 => &["-O0"],
            Self::O2 => &["-O2"],
            Self::O3 if std::is_x86_feature_detected!("avx2") => &["-O3", "-march=x86-64-v3"],
            Self::O3 => &["-O3"],
            Self::FullLto => &["-O2", "-flto"],
            Self::ThinLto => &["-O2", "-flto=thin"],
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::O0 => "O0",
            Self::O2 => "O2",
            Self::O3 => "O3",
            Self::FullLto => "lto",
            Self::ThinLto => "thinlto",
        })
    }
}

/// Compiles and links `recipe`; returns the executable.
pub fn build(tools: &Tools, program: &Program, recipe: &Recipe, level: Level) -> Result<PathBuf> {
    let folder = tools.work.join("bin");
    let objects = tools
        .work
        .join("obj")
        .join(format!("{}-{level}", program.name));
    fs::create_dir_all(&folder)?;
    let executable = folder.join(format!("{}-{level}", program.name));
    let stamp = folder.join(format!("{}-{level}.stamp", program.name));
    let key = key(tools, recipe, level)?;
    if executable.exists() && fs::read_to_string(&stamp).is_ok_and(|k| k == key) {
        return Ok(executable);
    }
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(&objects);
    fs::create_dir_all(&objects)?;
    let compiler = tools.compiler(program.cxx);
    // State that survives the process holds addresses of functions: they must be the same in each run.
    let common = |command: &mut Command| {
        command.args(level.flags()).args(["-fno-pie", "-w"]);
    };
    let mut linked = Vec::new();
    for (number, file) in recipe.files.iter().enumerate() {
        let object = objects.join(format!("{number}.o"));
        let mut command = Command::new(&compiler);
        common(&mut command);
        run(command
            .args(&recipe.flags)
            .arg("-c")
            .arg(file)
            .arg("-o")
            .arg(&object))?;
        linked.push(object);
    }
    let mut command = Command::new(&compiler);
    common(&mut command);
    run(command
        .arg("-no-pie")
        .args(&linked)
        .args(&recipe.libraries)
        .arg("-o")
        .arg(&executable))?;
    let _ = fs::remove_dir_all(&objects);
    fs::write(&stamp, key)?;
    Ok(executable)
}

/// Changes when the sources, the flags, the drivers or the pass change. (libvernal.so is loaded at run time.)
fn key(tools: &Tools, recipe: &Recipe, level: Level) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    (level.flags(), &recipe.flags, &recipe.libraries).hash(&mut hasher);
    let mut file = |path: &Path| -> Result<()> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        (path, bytes).hash(&mut hasher);
        Ok(())
    };
    recipe.files.iter().try_for_each(|f| file(f))?;
    file(&tools.here.join("harness/persist.h"))?;
    file(&tools.bin.join("libvernal_pass_22.so"))?;
    file(&tools.bin.join("include-cxx/bits/c++config.h"))?;
    Ok(format!("{:016x}", hasher.finish()))
}
