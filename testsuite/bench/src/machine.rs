//! The hardware and the kernel that a result was measured on.

use crate::{Failure, Result};
use serde::Serialize;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// Printed with every result.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Main memory in GiB.
    pub memory_gib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub os: String,
    /// File system of the folder for disk data.
    pub disk: String,
    /// Median microseconds that writing 4 KiB and flushing them takes there.
    pub flush_us: u64,
    /// Processes that were running or waiting, on average of the last minute, before the run.
    pub load: String,
    /// Whether a hypervisor is visible.
    pub virtual_machine: bool,
}

impl Machine {
    /// This machine; `disk` is the folder for disk data.
    pub fn this(disk: &Path) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_once(':'))
                .map(|(_, v)| v.trim().to_owned())
        };
        let model = match (field("model name"), field("cpu family"), field("model")) {
            (Some(name), Some(family), Some(model)) => {
                format!("{name} (family {family}, model {model})")
            }
            _ => "unknown".to_owned(),
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = meminfo
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os = os
            .lines()
            .find_map(|l| l.strip_prefix("PRETTY_NAME="))
            .unwrap_or("unknown")
            .trim_matches('"')
            .to_owned();
        Ok(Self {
            cpu: model,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            os,
            disk: file_system(disk),
            flush_us: flush_us(disk)?,
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            virtual_machine: field("flags")
                .is_some_and(|f| f.split(' ').any(|w| w == "hypervisor")),
        })
    }
}

/// Median time of a small write and its flush in `dir`, in microseconds: what a durable commit cannot be faster than.
fn flush_us(dir: &Path) -> Result<u64> {
    let path = dir.join(format!("flush-{}.tmp", std::process::id()));
    let fail = |e: std::io::Error| Failure(format!("{}: {e}", path.display()));
    let mut file = fs::File::create(&path).map_err(fail)?;
    let mut times = Vec::new();
    for round in 0..24 {
        let start = Instant::now();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&[round; 4096]))
            .map_err(fail)?;
        file.sync_data().map_err(fail)?;
        times.push(start.elapsed().as_micros() as u64);
    }
    fs::remove_file(&path).map_err(fail)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Type and device of the file system that holds `dir`.
pub fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter_map(|l| {
            let mut f = l.split(' ');
            Some((f.next()?, f.next()?, f.next()?))
        })
        .filter(|(_, at, _)| dir.starts_with(at))
        .max_by_key(|(_, at, _)| at.len());
    mount.map_or("unknown".to_owned(), |(device, _, kind)| {
        format!("{kind} on {device}")
    })
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vm = if self.virtual_machine {
            ", virtual machine"
        } else {
            ""
        };
        write!(
            f,
            "{}, {} CPUs, {} GiB{vm}; {}, Linux {}; {} (4 KiB written and flushed in {} µs); load before the run {}",
            self.cpu,
            self.cpus,
            self.memory_gib,
            self.os,
            self.kernel,
            self.disk,
            self.flush_us,
            self.load
        )
    }
}
