//! One session: a structure on a medium, all of its systems side by side, every round executed by each in turn.

use crate::compile::{Toolbox, system_name};
use crate::ops::{Generator, Op};
use crate::plan::{CXL_CACHE_MIB, Media, Scale, Structure, System};
use crate::process::{Process, Sample};
use crate::results::media_name;
use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Operations per commit while loading.
const LOAD_BATCH: u64 = 5000;
/// Where byte-addressable media are emulated.
pub const SHM: &str = "/dev/shm";

/// Folders and settings that all sessions share.
pub struct Place {
    /// The tools.
    pub tools: Toolbox,
    /// Folder for data on the disk's file system.
    pub disk: PathBuf,
    /// Folder for what the processes say.
    pub logs: PathBuf,
    /// CPU that the processes are pinned to.
    pub cpu: usize,
}

/// A folder that goes when the session ends, however it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        let dir = parent.join(format!("vernal-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {e}", self.0.display());
        }
    }
}

/// The processes of a session.
pub struct Session {
    systems: Vec<(System, Process)>,
    /// Systems that could not be started, and why.
    pub skipped: Vec<(System, String)>,
    /// Operations of the rows; the structures are loaded already.
    pub ops: Generator,
    media: Media,
    structure: Structure,
    turn: usize,
    // Declared last: the folder goes after the processes.
    _scratch: Vec<Scratch>,
}

impl Session {
    /// Starts every system and loads the same elements into each.
    pub fn start(
        place: &Place,
        media: Media,
        structure: Structure,
        systems: &[System],
        scale: &Scale,
        seed: u64,
    ) -> Result<Self> {
        let mut ops = Generator::new(seed, scale.elements);
        let load = match structure {
            Structure::Kv => ops.load(scale.elements),
            _ => ops.inserts(scale.elements),
        };
        let shm = Scratch::new(Path::new(SHM))?;
        let mut scratch = vec![];
        let dir = match media {
            Media::Ext4 => {
                scratch.push(Scratch::new(&place.disk)?);
                scratch[0].0.clone()
            }
            _ => shm.0.clone(),
        };
        let mut session = Self {
            systems: vec![],
            skipped: vec![],
            ops,
            media,
            structure,
            turn: 0,
            _scratch: vec![],
        };
        for &system in systems
            .iter()
            .filter(|s| is_measured(**s, media, structure))
        {
            let start = session.start_system(place, system, &dir, &shm.0, &load);
            match start {
                Ok(process) => session.systems.push((system, process)),
                Err(Failure(why)) => session.skipped.push((system, why)),
            }
        }
        scratch.push(shm);
        session._scratch = scratch;
        session.check()?;
        Ok(session)
    }

    fn start_system(
        &self,
        place: &Place,
        system: System,
        dir: &Path,
        shm: &Path,
        load: &[Op],
    ) -> Result<Process> {
        let program = place.tools.build(self.structure, system)?;
        let name = format!(
            "{}-{}-{}",
            media_name(self.media),
            self.structure.name(),
            system_name(system)
        );
        let file = dir.join(format!("{name}.img"));
        // On a disk libpmemobj flushes with one msync per cache line range: loading there would take minutes. The pool is
        // loaded on tmpfs instead and copied; what is measured happens on the disk.
        if system == System::Pmdk && self.media == Media::Ext4 {
            let loaded = shm.join(format!("{name}.img"));
            let log = place.logs.join(format!("{name}-load.log"));
            let command = self.command(place, &program, system, Media::Shm, &loaded);
            let mut process = Process::start(format!("{name} (loading)"), command, log)?;
            process.load(load, LOAD_BATCH)?;
            process.finish()?;
            let copied = std::fs::copy(&loaded, &file)
                .and_then(|_| std::fs::File::open(&file)?.sync_all())
                .and_then(|()| std::fs::remove_file(&loaded));
            copied.map_err(|e| {
                Failure(format!(
                    "copying {} to {}: {e}",
                    loaded.display(),
                    file.display()
                ))
            })?;
        }
        let command = self.command(place, &program, system, self.media, &file);
        let loaded = file.exists();
        let mut process = Process::start(
            name.clone(),
            command,
            place.logs.join(format!("{name}.log")),
        )?;
        if !loaded {
            process.load(load, LOAD_BATCH)?;
        }
        Ok(process)
    }

    fn command(
        &self,
        place: &Place,
        program: &Command,
        system: System,
        media: Media,
        file: &Path,
    ) -> Command {
        let mut command = Command::new(program.get_program());
        command.args(program.get_args()).arg(file);
        command
            .arg(self.structure.file_bytes().to_string())
            .arg(place.cpu.to_string());
        for name in [
            "VERNAL_PATHS",
            "VERNAL_MEDIA",
            "VERNAL_AUDIT",
            "PMEM_IS_PMEM_FORCE",
            "BENCH_CXL_LIB",
        ] {
            command.env_remove(name);
        }
        if matches!(system, System::Vernal | System::KyotoVernal) {
            command.env(
                "VERNAL_PATHS",
                format!(
                    "{}/*.img*",
                    file.parent().unwrap_or(Path::new("/")).display()
                ),
            );
        }
        if system == System::Pmdk {
            command.env(
                "PMEM_IS_PMEM_FORCE",
                if media == Media::Ext4 { "0" } else { "1" },
            );
        }
        if media == Media::CxlSsd {
            if std::env::var_os("VERNAL_CXL_CACHE_MIB").is_none() {
                command.env("VERNAL_CXL_CACHE_MIB", CXL_CACHE_MIB.to_string());
            }
            match system {
                System::Vernal => command.env("VERNAL_MEDIA", "cxl-ssd"),
                System::Volatile => &mut command,
                _ => command.env("BENCH_CXL_LIB", place.tools.cxl_library()),
            };
        }
        command
    }

    /// Lets every system execute `ops`, the first `warm` of them untimed; the order rotates from call to call. Systems that
    /// are not `measured` only follow; there are no samples of them.
    ///
    /// # Errors
    ///
    /// Also when two systems have not read the same.
    pub fn round(
        &mut self,
        warm: usize,
        ops: &[Op],
        batch: u64,
        measured: impl Fn(System) -> bool,
    ) -> Result<Vec<(System, Sample)>> {
        let n = self.systems.len();
        let mut samples: Vec<(System, Sample)> = Vec::with_capacity(n);
        for i in 0..n {
            let at = if self.turn.is_multiple_of(2) {
                self.turn / 2 + i
            } else {
                self.turn / 2 + n - i
            } % n;
            let (system, process) = &mut self.systems[at];
            let sample = if measured(*system) {
                process.run(warm, ops, batch)?
            } else {
                process.load(ops, LOAD_BATCH)?
            };
            samples.push((*system, sample));
        }
        self.turn += 1;
        if let [(first, a), rest @ ..] = &samples[..]
            && let Some((other, b)) = rest.iter().find(|(_, b)| b.sum != a.sum)
        {
            return Err(Failure(format!(
                "{} and {} have not read the same: {:#x} and {:#x}",
                system_name(*first),
                system_name(*other),
                a.sum,
                b.sum
            )));
        }
        samples.retain(|(system, _)| measured(*system));
        Ok(samples)
    }

    /// Compares the final states.
    pub fn check(&mut self) -> Result<()> {
        let mut first: Option<(System, (u64, u64))> = None;
        for (system, process) in &mut self.systems {
            let state = process.check()?;
            match first {
                Some((other, expected)) if expected != state => {
                    return Err(Failure(format!(
                        "{} and {} have not done the same work: {} elements of hash {:#x}, {} of {:#x}",
                        system_name(other),
                        system_name(*system),
                        expected.1,
                        expected.0,
                        state.1,
                        state.0
                    )));
                }
                Some(_) => {}
                None => first = Some((*system, state)),
            }
        }
        Ok(())
    }

    /// Lets a system go before the others, after it has been shown to be in the same state.
    pub fn retire(&mut self, system: System) -> Result<()> {
        match self.systems.iter().position(|(s, _)| *s == system) {
            Some(at) => self.systems.remove(at).1.finish(),
            None => Ok(()),
        }
    }

    /// Ends every process in good order.
    pub fn finish(mut self) -> Result<()> {
        self.check()?;
        self.systems
            .drain(..)
            .try_for_each(|(_, process)| process.finish())
    }
}

/// Which systems take part: engines have no list and no tree, and work through system calls, which the emulated device
/// cannot serve.
pub fn is_measured(system: System, media: Media, structure: Structure) -> bool {
    system.runs_structures() || (structure == Structure::Kv && media != Media::CxlSsd)
}
