//! Where the tests run: the compiled programs, scratch folders, snapshots of them.

use crate::Result;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The tools under test, and a folder for everything that the run makes.
pub struct Place {
    tools: PathBuf,
    sources: PathBuf,
    built: Scratch,
    /// Two tests may want the same program.
    compiling: Mutex<()>,
}

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// `vernal-cc -O0`
    O0,
    /// `vernal-cc -O2`
    O2,
    /// `vernal-cc -O2 -flto`
    Lto,
    /// clang, unaware of Vernal; run in page mode.
    Page,
}

impl Build {
    /// A short name for reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Build::O0 => "O0",
            Build::O2 => "O2",
            Build::Lto => "lto",
            Build::Page => "page",
        }
    }

    /// The build with this name.
    pub fn by_name(name: &str) -> Option<Build> {
        [Build::O0, Build::O2, Build::Lto, Build::Page]
            .into_iter()
            .find(|b| b.name() == name)
    }
}

impl Place {
    /// The tools that lie beside this program.
    pub fn new() -> Result<Place> {
        let own = std::env::current_exe()?;
        // A test binary lies one folder deeper than the tools.
        let tools = own
            .ancestors()
            .skip(1)
            .take(3)
            .find(|folder| folder.join("vernal-cc").exists())
            .ok_or("vernal-cc is not beside this program: run `cargo build --release` first")?
            .to_owned();
        Ok(Place {
            tools,
            sources: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
            built: Scratch::new(Medium::Disk, "built")?,
            compiling: Mutex::new(()),
        })
    }

    /// A tool of target/release.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// Compiles `source` (relative to this crate) and returns the program.
    pub fn compile(&self, source: &str, build: Build) -> Result<PathBuf> {
        let source = self.sources.join(source);
        let stem = source
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let cxx = source.extension().is_some_and(|e| e == "cpp");
        let program = self.built.path().join(format!("{stem}-{}", build.name()));
        let _one_at_a_time = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if program.exists() {
            return Ok(program);
        }
        let mut command = match (build, cxx) {
            (Build::Page, false) => Command::new("clang-22"),
            (Build::Page, true) => Command::new("clang++-22"),
            (_, false) => Command::new(self.tool("vernal-cc")),
            (_, true) => Command::new(self.tool("vernal-c++")),
        };
        match build {
            Build::O0 => command.arg("-O0"),
            Build::O2 | Build::Page => command.arg("-O2"),
            Build::Lto => command.args(["-O2", "-flto"]),
        };
        command
            .args(["-g", "-Wall", "-Wextra", "-pthread", "-I"])
            .arg(&self.sources);
        command
            .arg("-I")
            .arg(self.sources.join("../../runtime/capi/include"));
        let output = command.arg(&source).arg("-o").arg(&program).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{} does not compile ({}):\n{text}",
                source.display(),
                build.name()
            )
            .into());
        }
        Ok(program)
    }

    /// A command that runs `program` on files of `folder` as its build demands, with no input and a clean environment of
    /// `VERNAL_` variables.
    pub fn command(&self, program: &Path, build: Build, folder: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("VERNAL_") {
                command.env_remove(&name);
            }
        }
        command.env("VERNAL_PATHS", format!("{}/*.img", folder.display()));
        // A small journal is recycled often, which is where the interesting crashes are.
        command.env("VERNAL_JOURNAL_MIB", "1");
        if build == Build::Page {
            command
                .env("LD_PRELOAD", self.tool("libvernal.so"))
                .env("VERNAL_MODE", "page");
        }
        command.stdin(Stdio::null());
        command
    }
}

/// What a scratch folder lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Memory: byte-addressable, so stores and fences.
    Shm,
    /// The file system of the temporary directory: writes and flushes.
    Disk,
}

impl Medium {
    /// A short name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Medium::Shm => "shm",
            Medium::Disk => "disk",
        }
    }
}

/// A folder that goes away with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder on `medium`.
    pub fn new(medium: Medium, label: &str) -> Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let parent = match medium {
            Medium::Shm if Path::new("/dev/shm").is_dir() => PathBuf::from("/dev/shm"),
            _ => std::env::temp_dir(),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!(
            "vernal-kill-{}-{number}-{label}",
            std::process::id()
        ));
        fs::create_dir(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        Ok(Scratch(path.canonicalize()?))
    }

    /// Its path, without links.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Removes everything in it.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Every file in it with its contents.
    pub fn snapshot(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            files.push((path, bytes));
        }
        Ok(files)
    }

    /// Makes the folder hold exactly what `files` says.
    pub fn restore(&self, files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
        use std::io::Write;
        self.clear()?;
        for (path, bytes) in files {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(bytes)?;
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
