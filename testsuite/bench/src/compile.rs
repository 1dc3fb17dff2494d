//! Builds the workload programs: one executable per structure and system, from the sources in `workloads/`.

use crate::plan::{Structure, System};
use crate::{Failure, Result, kyoto};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The plain compilers, the same version that vernal-cc drives, so that only the pass differs.
const CLANG: [&str; 2] = ["clang-22", "clang"];
const CLANGXX: [&str; 2] = ["clang++-22", "clang++"];

/// Compiler, definitions, libraries.
type Backend = (PathBuf, &'static [&'static str], Vec<&'static str>);

/// Where the sources and the tools are, and where the executables go.
pub struct Toolbox {
    sources: PathBuf,
    out: PathBuf,
    bin: PathBuf,
    built: RefCell<BTreeMap<(Structure, System), PathBuf>>,
}

impl Toolbox {
    /// Executables are put into `out`; tools and libraries are next to this program.
    pub fn new(out: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&out).map_err(|e| Failure(format!("{}: {e}", out.display())))?;
        let this = std::env::current_exe()
            .map_err(|e| Failure(format!("where this program lies: {e}")))?;
        let bin = this.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self {
            sources: Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads"),
            out,
            bin,
            built: RefCell::default(),
        })
    }

    /// The emulated CXL device for programs without libvernal.
    pub fn cxl_library(&self) -> PathBuf {
        self.bin.join("libvernal_cxl.so")
    }

    /// The folder of executables.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder of workload sources.
    pub fn sources(&self) -> &Path {
        &self.sources
    }

    /// One of the tools: vernal-cc, vernal-c++, vernal.
    pub fn vernal(&self, name: &str) -> Result<PathBuf> {
        let path = std::env::var_os("VERNAL_BENCH_TOOLS")
            .map_or_else(|| self.bin.clone(), PathBuf::from)
            .join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Failure(format!(
            "{} does not exist: run `cargo build --release` first, or set VERNAL_BENCH_TOOLS to the folder that has it",
            path.display()
        )))
    }

    /// Builds, once per run, what runs `structure` on `system`, and returns the command for it without its arguments.
    pub fn build(&self, structure: Structure, system: System) -> Result<Command> {
        if system == System::Redb {
            let mut command = Command::new(
                std::env::current_exe()
                    .map_err(|e| Failure(format!("where this program lies: {e}")))?,
            );
            command.arg("redb-engine");
            return Ok(command);
        }
        let known = self.built.borrow().get(&(structure, system)).cloned();
        let program = match known {
            Some(program) => program,
            None => self.compile(structure, system)?,
        };
        self.built
            .borrow_mut()
            .insert((structure, system), program.clone());
        Ok(Command::new(program))
    }

    fn compile(&self, structure: Structure, system: System) -> Result<PathBuf> {
        if matches!(
            system,
            System::KyotoWal | System::KyotoNowal | System::KyotoVernal
        ) {
            return kyoto::build(self, system);
        }
        let (compiler, defines, mut libraries) = self.backend(system)?;
        match system {
            System::Lmdb => libraries.push("-llmdb"),
            System::Sqlite => libraries.push("-lsqlite3"),
            _ => {}
        }
        let source = match system {
            System::Lmdb => "kv_lmdb".to_owned(),
            System::Sqlite => "kv_sqlite".to_owned(),
            _ => structure.name().to_owned(),
        };
        let name = format!("{}-{}", structure.name(), system_name(system));
        self.link(
            &compiler,
            defines,
            [source.as_str(), "driver"],
            &name,
            &libraries,
        )
    }

    /// Builds one of the small measurements of `bench puddles`.
    pub fn build_micro(&self, source: &str, system: System) -> Result<Command> {
        let (compiler, defines, mut libraries) = self.backend(system)?;
        libraries.extend(["-lm", "-lpthread"]);
        let name = format!("{source}-{}", system_name(system));
        let program = self.link(&compiler, defines, [source, "micro"], &name, &libraries)?;
        Ok(Command::new(program))
    }

    /// Compiler, definitions and libraries of the systems that `workloads/backend.h` knows.
    fn backend(&self, system: System) -> Result<Backend> {
        Ok(match system {
            System::Vernal => (self.vernal("vernal-cc")?, &[], vec![]),
            System::Pool => (self.vernal("vernal-cc")?, &["-DBACKEND_POOL"], vec![]),
            // Direct pools are changed in place under explicit logging, where PMDK's are.
            System::Direct => (
                self.vernal("vernal-cc")?,
                &["-DBACKEND_POOL", "-DBACKEND_DIRECT"],
                vec![],
            ),
            System::Volatile => (find(CLANG)?, &["-DBACKEND_VOLATILE"], vec![]),
            System::Pmdk => (find(CLANG)?, &["-DBACKEND_PMDK"], vec!["-lpmemobj"]),
            _ => (find(CLANG)?, &[], vec![]),
        })
    }

    fn link(
        &self,
        compiler: &Path,
        defines: &[&str],
        sources: [&str; 2],
        name: &str,
        libraries: &[&str],
    ) -> Result<PathBuf> {
        let program = self.out.join(name);
        let mut command = Command::new(compiler);
        command.args(["-O2", "-std=gnu11"]).args(defines);
        command
            .arg("-I")
            .arg(self.sources.join("../../../runtime/capi/include"));
        for source in sources {
            command.arg(self.sources.join(format!("{source}.c")));
        }
        command.arg("-o").arg(&program).args(libraries).arg("-ldl");
        run(command)?;
        Ok(program)
    }
}

/// The name of `system` in result rows and file names.
pub fn system_name(system: System) -> String {
    use clap::ValueEnum;
    system
        .to_possible_value()
        .map(|v| v.get_name().to_owned())
        .unwrap_or_default()
}

/// clang++.
pub fn plain_cxx() -> Result<PathBuf> {
    find(CLANGXX)
}

fn find(names: [&str; 2]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    names
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Failure(format!(
                "no {} on PATH: install Debian's package clang-22",
                names[0]
            ))
        })
}

/// Runs a compiler; its messages are part of the error.
pub fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|e| Failure(format!("{shown}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure(format!(
        "{shown}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
