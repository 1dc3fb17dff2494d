//! Finds clang, the pass and libvernal, and says what to install when one is missing.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The LLVM versions for which there is a pass, best first.
pub(crate) const LLVM_VERSIONS: [u32; 2] = [22, 19];

/// A clang and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// Path of the compiler driver.
    pub clang: PathBuf,
    /// Its major version.
    pub llvm: u32,
    /// It is called `clang` but must behave as `clang++`.
    pub needs_driver_mode: bool,
}

/// A file that Vernal brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The pass for one LLVM version.
    Pass(u32),
    /// libvernal.so
    Shared,
    /// libvernal_shim.so
    Shim,
    /// libvernal.a
    Static,
    /// The folder of headers that stand in front of libstdc++'s.
    CxxHeaders,
}

impl Component {
    /// The file's name.
    pub fn file_name(self) -> String {
        match self {
            Self::Pass(llvm) => format!("libvernal_pass_{llvm}.so"),
            Self::Shared => "libvernal.so".to_owned(),
            Self::Shim => "libvernal_shim.so".to_owned(),
            Self::Static => "libvernal.a".to_owned(),
            Self::CxxHeaders => "include-cxx".to_owned(),
        }
    }

    /// Where the file lies in `dir`, or what to do to get it.
    pub fn find_in(self, dir: &Path) -> Result<PathBuf, LocateError> {
        let path = dir.join(self.file_name());
        if path.exists() {
            Ok(path)
        } else {
            Err(LocateError::Component {
                path,
                component: self,
            })
        }
    }
}

/// What is missing, and the remedy.
#[derive(Debug)]
pub enum LocateError {
    /// `VERNAL_LLVM` names no supported version.
    Version(String),
    /// `VERNAL_CLANG` names no program.
    NotAProgram(PathBuf),
    /// `VERNAL_CLANG` names a clang for which there is no pass.
    UnsupportedClang(PathBuf, String),
    /// No clang of these versions.
    NoClang(Vec<u32>),
    /// One of Vernal's own files is missing.
    Component {
        /// The missing file.
        path: PathBuf,
        /// What it is.
        component: Component,
    },
    /// The path of this program is unknown.
    Myself(std::io::Error),
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(v) => write!(
                f,
                "VERNAL_LLVM={v}: there is a pass for LLVM 22 and 19; set it to one of these"
            ),
            Self::NotAProgram(path) => {
                write!(
                    f,
                    "VERNAL_CLANG={}: cannot be run; set it to the path of clang 22 or 19",
                    path.display()
                )
            }
            Self::UnsupportedClang(path, version) => write!(
                f,
                "VERNAL_CLANG={}: is version {version:?}, but there is a pass for LLVM 22 and 19 only; install clang-22",
                path.display()
            ),
            Self::NoClang(wanted) => {
                let names: Vec<_> = wanted.iter().map(|v| format!("clang-{v}")).collect();
                write!(
                    f,
                    "{} not found on PATH; `apt install clang-{first} lld-{first}`, or name the compiler in VERNAL_CLANG",
                    names.join(" or "),
                    first = wanted.first().copied().unwrap_or(LLVM_VERSIONS[0]),
                )
            }
            Self::Component { path, component } => {
                write!(f, "{} is missing; ", path.display())?;
                match component {
                    Component::Pass(19) => {
                        f.write_str("`cargo xtask build --llvm 19` in Vernal's source builds it (it needs llvm-19-dev)")?;
                    }
                    Component::Pass(_) => {
                        f.write_str("`cargo build --release` in Vernal's source builds it (it needs llvm-22-dev)")?;
                    }
                    Component::Shared
                    | Component::Shim
                    | Component::Static
                    | Component::CxxHeaders => {
                        f.write_str("`cargo build --release` in Vernal's source builds it")?;
                    }
                }
                f.write_str("; if it lies elsewhere, set VERNAL_LIBDIR to its folder")
            }
            Self::Myself(e) => write!(
                f,
                "the path of this program is unknown ({e}); set VERNAL_LIBDIR to Vernal's folder"
            ),
        }
    }
}

impl std::error::Error for LocateError {}

/// Where libvernal and the pass are: `VERNAL_LIBDIR`, else beside this program, else in `../lib/vernal`.
pub fn library_dir() -> Result<PathBuf, LocateError> {
    if let Some(dir) = env::var_os("VERNAL_LIBDIR").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let program = env::current_exe()
        .and_then(|p| p.canonicalize())
        .map_err(LocateError::Myself)?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let installed = beside.parent().unwrap_or(Path::new("/")).join("lib/vernal");
    let holds_library = |dir: &Path| dir.join(Component::Shared.file_name()).is_file();
    Ok(if !holds_library(beside) && installed.is_dir() {
        installed
    } else {
        beside.to_owned()
    })
}

/// The clang to run, by `VERNAL_CLANG` and `VERNAL_LLVM`, else the newest supported one on `PATH`.
pub fn find_toolchain(cxx: bool) -> Result<Toolchain, LocateError> {
    let wanted = match env::var("VERNAL_LLVM") {
        Ok(v) if !v.is_empty() => match v.parse() {
            Ok(version) if LLVM_VERSIONS.contains(&version) => Some(version),
            _ => return Err(LocateError::Version(v)),
        },
        _ => None,
    };
    if let Some(clang) = env::var_os("VERNAL_CLANG").filter(|c| !c.is_empty()) {
        return explicit(PathBuf::from(clang), wanted, cxx);
    }
    let versions: Vec<u32> = wanted.map_or(LLVM_VERSIONS.to_vec(), |v| vec![v]);
    for &llvm in &versions {
        let names = if cxx {
            vec![format!("clang++-{llvm}"), format!("clang-{llvm}")]
        } else {
            vec![format!("clang-{llvm}")]
        };
        for name in names {
            let elsewhere = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin"));
            if let Some(clang) = on_path(&name, &elsewhere) {
                return Ok(Toolchain {
                    clang,
                    llvm,
                    needs_driver_mode: cxx && !name.starts_with("clang++"),
                });
            }
        }
    }
    // Systems that do not carry the version in the name.
    if let Some(clang) = on_path("clang", Path::new("/usr/bin"))
        && let Ok(llvm) = version_of(&clang)
        && versions.contains(&llvm)
    {
        return Ok(Toolchain {
            clang,
            llvm,
            needs_driver_mode: cxx,
        });
    }
    Err(LocateError::NoClang(versions))
}

fn explicit(named: PathBuf, wanted: Option<u32>, cxx: bool) -> Result<Toolchain, LocateError> {
    let clang = if named.components().count() > 1 {
        Some(named.clone())
    } else {
        on_path(&named.to_string_lossy(), Path::new("/usr/bin"))
    };
    let Some(clang) = clang.filter(|c| is_program(c)) else {
        return Err(LocateError::NotAProgram(named));
    };
    let llvm = match wanted {
        Some(version) => version,
        None => match version_of(&clang) {
            Ok(version) if LLVM_VERSIONS.contains(&version) => version,
            Ok(version) => return Err(LocateError::UnsupportedClang(clang, version.to_string())),
            Err(text) => return Err(LocateError::UnsupportedClang(clang, text)),
        },
    };
    let is_cxx = clang
        .file_name()
        .is_some_and(|n| n.to_string_lossy().contains("++"));
    Ok(Toolchain {
        clang,
        llvm,
        needs_driver_mode: cxx && !is_cxx,
    })
}

/// The major version that a clang says it has; what it said, if that is no version.
fn version_of(clang: &Path) -> Result<u32, String> {
    let output = Command::new(clang)
        .arg("-dumpversion")
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.split('.')
        .next()
        .and_then(|v| v.parse().ok())
        .ok_or(text)
}

fn on_path(name: &str, otherwise: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    env::split_paths(&path)
        .chain(std::iter::once(otherwise.to_owned()))
        .map(|dir| dir.join(name))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
