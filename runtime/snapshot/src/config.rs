//! What the environment asks for.

use glob::Pattern;
use std::path::Path;
use std::sync::OnceLock;

/// How written bytes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// The compiler's marks.
    Marks,
    /// Dirty pages (`vernal run`): for binaries that the compiler has not seen.
    Pages,
}

/// The environment's settings; see README.md for the table.
#[derive(Debug)]
pub struct Config {
    /// `VERNAL_PATHS`: patterns, separated by colons, of files whose mappings are failure-atomic.
    pub paths: Vec<Pattern>,
    /// `VERNAL_MODE=page`.
    pub tracking: Tracking,
    /// `VERNAL_AUDIT=1`.
    pub audit: bool,
    /// `VERNAL_UNMAP=discard`: munmap forgets what is uncommitted instead of committing it.
    pub unmap_discards: bool,
    /// `VERNAL_JOURNAL_MIB`: bytes of a new journal.
    pub journal_len: Option<u64>,
    /// `VERNAL_QUIET=1`: no messages on standard error.
    pub quiet: bool,
    /// `VERNAL_STATS=1`: counters on standard error at exit.
    pub stats: bool,
}

/// The settings, read once.
#[inline]
pub fn get() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let var = |name| std::env::var(name).ok();
        let on = |name| matches!(var(name).as_deref(), Some(v) if v != "0" && !v.is_empty());
        let quiet = on("VERNAL_QUIET");
        let mut paths = Vec::new();
        for p in var("VERNAL_PATHS")
            .unwrap_or_default()
            .split(':')
            .filter(|p| !p.is_empty())
        {
            let absolute = if p.starts_with('/') {
                p.to_owned()
            } else {
                in_cwd(p)
            };
            match Pattern::new(&absolute) {
                Ok(pattern) => paths.push(pattern),
                Err(e) if !quiet => eprintln!(
                    "vernal: VERNAL_PATHS: '{p}' is not a valid pattern: {e}; it matches nothing"
                ),
                Err(_) => {}
            }
        }
        Config {
            paths,
            tracking: if var("VERNAL_MODE").as_deref() == Some("page") {
                Tracking::Pages
            } else {
                Tracking::Marks
            },
            audit: on("VERNAL_AUDIT"),
            unmap_discards: var("VERNAL_UNMAP").as_deref() == Some("discard"),
            journal_len: var("VERNAL_JOURNAL_MIB")
                .and_then(|v| v.parse::<u64>().ok())
                .map(|m| m.clamp(1, 1 << 20) << 20),
            quiet,
            stats: on("VERNAL_STATS"),
        }
    })
}

fn in_cwd(p: &str) -> String {
    let cwd = std::env::current_dir()
        .map(|d| d.display().to_string())
        .unwrap_or_default();
    format!("{}/{p}", Pattern::escape(&cwd))
}

impl Config {
    /// Whether `path`, an absolute one, is opted in. Vernal's own files never are.
    pub fn opted_in(&self, path: &Path) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        !name.ends_with(".vernal")
            && !name.contains(".vernal-journal-")
            && self.paths.iter().any(|p| p.matches_path(path))
    }
}

/// Prints a message for the user, unless they asked for quiet.
pub fn say(message: std::fmt::Arguments<'_>) {
    if !get().quiet {
        eprintln!("vernal: {message}");
    }
}
