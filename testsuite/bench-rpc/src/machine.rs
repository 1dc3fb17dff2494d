//! The hardware and the kernel that a result was measured on.

use serde::Serialize;
use std::fs;
use std::sync::OnceLock;

/// Printed with every result.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub os: String,
    /// Processes that were running or waiting, on average of the last minute, before the run.
    pub load: String,
    /// Whether a hypervisor is visible.
    pub virtual_machine: bool,
}

/// The CPUs that this process may use, in order.
pub fn cpus() -> Vec<usize> {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(|| match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect(),
        Err(_) => vec![0],
    })
    .clone()
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
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
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os = os
            .lines()
            .find_map(|l| l.strip_prefix("PRETTY_NAME="))
            .unwrap_or("unknown");
        Self {
            cpu: model,
            cpus: cpus().len(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            os: os.trim_matches('"').to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            virtual_machine: field("flags")
                .is_some_and(|f| f.split(' ').any(|w| w == "hypervisor")),
        }
    }
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
            "{}, {} CPUs{vm}; {}, Linux {}; load before the run {}",
            self.cpu, self.cpus, self.os, self.kernel, self.load
        )
    }
}
