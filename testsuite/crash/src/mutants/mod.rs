//! Mutants: bugs planted into a copy of the workspace, one at a time, each of which the tests must catch.
//!
//! A mutant that survives means that a test is missing. The table is data ([`all`]); a test checks at every build
//! that each mutant's text is still found in the source, so that the table cannot rot unseen.

mod compiler;
mod direct;
mod heap;
mod rpc;
mod runs;
mod runtime;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The mutants of every run: of the journal, its records and formats, of the direct mode, of the runtime, of the heap, of what peers
/// of calls send, of the compiler pass.
pub fn usual() -> impl Iterator<Item = &'static Mutant> {
    [
        table::MUTANTS,
        runs::MUTANTS,
        direct::MUTANTS,
        runtime::MUTANTS,
        heap::MUTANTS,
        rpc::MUTANTS,
        compiler::MUTANTS,
    ]
    .into_iter()
    .flatten()
}

/// Every mutant, those of soak included.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    usual().chain([heap::MORE, rpc::MORE, runtime::MORE].into_iter().flatten())
}

/// One change of a source file.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// File, from the root of the workspace.
    pub file: &'static str,
    /// Text that occurs there exactly once.
    pub search: &'static str,
    /// What it becomes.
    pub replace: &'static str,
}

/// A planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// What the bug is.
    pub name: &'static str,
    /// How it is planted.
    pub edits: &'static [Edit],
    /// `cargo` arguments of the test that must fail. It is built first, and the build must succeed.
    pub test: &'static [&'static str],
}

/// Longest that a test may run without a mutant, on a machine that does much else besides.
const HEALTHY_LIMIT: Duration = Duration::from_secs(900);
/// A mutant's test that runs longer than this, and than so many times what it takes without one, hangs: then the mutant is
/// caught, too.
const HANGS_AFTER: Duration = Duration::from_secs(60);
const HANGS_TIMES: u32 = 4;
/// Runs of a test that a mutant has to survive.
const RUNS: u32 = 5;
/// What is copied of the workspace besides its crates.
const COPIED: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "rust-toolchain.toml",
    // A test of rpc/core compares it with what it finds.
    "docs/trust.md",
];

/// How a mutant ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The test failed.
    Caught,
    /// The test ran longer than it may.
    CaughtHanging,
    /// The test passed: a test is missing.
    Survived,
    /// The table is wrong.
    Broken(String),
}

impl Mutant {
    /// The files with the bug in them, or why it cannot be planted.
    pub fn plant(&self, root: &Path) -> Result<Vec<(&'static str, String)>, String> {
        let mut files: Vec<(&'static str, String)> = Vec::new();
        for edit in self.edits {
            if !files.iter().any(|(file, _)| *file == edit.file) {
                let text = fs::read_to_string(root.join(edit.file))
                    .map_err(|e| format!("{}: {e}", edit.file))?;
                files.push((edit.file, text));
            }
            let (_, text) = files
                .iter_mut()
                .find(|(file, _)| *file == edit.file)
                .expect("just added");
            match text.matches(edit.search).count() {
                1 => *text = text.replace(edit.search, edit.replace),
                n => {
                    return Err(format!(
                        "{}: this occurs {n} times and must occur once:\n{}",
                        edit.file, edit.search
                    ));
                }
            }
        }
        Ok(files)
    }
}

/// Where mutants are planted and built.
#[derive(Debug)]
pub struct Nursery {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Nursery {
    /// Brings a copy of the workspace at `root` up to date, under `target/mutants`.
    pub fn new(root: &Path) -> io::Result<Nursery> {
        let base = root.join("target").join("mutants");
        let nursery = Nursery {
            root: root.to_owned(),
            tree: base.join("tree"),
            target: base.join("target"),
        };
        let folders = crate_folders(&fs::read_to_string(root.join("Cargo.toml"))?);
        for name in COPIED
            .iter()
            .copied()
            .chain(folders.iter().map(String::as_str))
        {
            sync(&root.join(name), &nursery.tree.join(name))?;
        }
        Ok(nursery)
    }

    /// Plants a mutant, runs its test, and takes it out again. `healthy`: how long the test takes without one. A test with
    /// threads finds a race when the machine lets it happen, so a mutant has survived when it has survived [`RUNS`] runs. Also
    /// tells the number of runs.
    pub fn raise(&self, mutant: &Mutant, healthy: Duration) -> io::Result<(Fate, u32)> {
        let files = match mutant.plant(&self.root) {
            Ok(files) => files,
            Err(why) => return Ok((Fate::Broken(why), 0)),
        };
        for (file, text) in &files {
            fs::write(self.tree.join(file), text)?;
        }
        let limit = HANGS_AFTER.max(healthy * HANGS_TIMES);
        let mut runs = 1;
        let mut fate = self.test(mutant, limit);
        while runs < RUNS && matches!(fate, Ok(Fate::Survived)) {
            runs += 1;
            fate = self.test(mutant, limit);
        }
        for (file, _) in &files {
            fs::copy(self.root.join(file), self.tree.join(file))?;
        }
        Ok((fate?, runs))
    }

    /// Runs a test on the unchanged copy: what fails here says nothing about a mutant. How long the test takes includes that
    /// cargo looks for changes.
    pub fn check_healthy(&self, test: &'static [&'static str]) -> io::Result<(Fate, Duration)> {
        let none = Mutant {
            name: "none",
            edits: &[],
            test,
        };
        // Built before the clock starts.
        self.cargo(test).arg("--no-run").output()?;
        let began = Instant::now();
        let fate = self.test(&none, HEALTHY_LIMIT)?;
        Ok((fate, began.elapsed()))
    }

    fn test(&self, mutant: &Mutant, limit: Duration) -> io::Result<Fate> {
        let built = self.cargo(mutant.test).arg("--no-run").output()?;
        if !built.status.success() {
            let errors = String::from_utf8_lossy(&built.stderr);
            let errors: Vec<_> = errors
                .lines()
                .filter(|l| l.starts_with("error"))
                .take(5)
                .collect();
            return Ok(Fate::Broken(format!(
                "it does not build:\n{}",
                errors.join("\n")
            )));
        }
        // timeout(1) ends the test's own processes too, which ending cargo alone would leave running.
        let mut limited = Command::new("timeout");
        let cargo = self.cargo(mutant.test);
        limited
            .arg("--kill-after=1")
            .arg(limit.as_secs().to_string())
            .arg(cargo.get_program())
            .args(cargo.get_args());
        limited
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target);
        let status = limited
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(match status.code() {
            Some(0) => Fate::Survived,
            // What timeout(1) ends with when it had to end the test.
            Some(124 | 137) => Fate::CaughtHanging,
            _ => Fate::Caught,
        })
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .args(arguments);
        cargo
    }
}

/// The folders in which the workspace's crates lie, from its `members = ["runtime/*", …]`.
pub fn crate_folders(manifest: &str) -> Vec<String> {
    let list = manifest.split_once("members = [").map_or("", |(_, l)| l);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    let mut folders: Vec<String> = list
        .split('"')
        .skip(1)
        .step_by(2)
        .filter_map(|member| member.split('/').next())
        .map(str::to_owned)
        .collect();
    folders.dedup();
    folders
}

/// Copies what differs, so that unchanged files keep their times and are not built again.
fn sync(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(kind) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            if name != "target" && name != ".git" {
                sync(&from.join(&name), &to.join(&name))?;
                names.push(name);
            }
        }
        // What is gone from the workspace must not be built.
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            if names.contains(&entry.file_name()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
        }
    } else if kind.is_file() {
        let text = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&text) {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(to, text)?;
        }
    }
    Ok(())
}

/// The root of the workspace that this crate is part of.
pub fn workspace_root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest)
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_owned()
}
