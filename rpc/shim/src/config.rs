//! What the environment asks for.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `VERNAL_SHIM` | patterns of socket paths, separated by `:` | none: nothing is replaced |
//! | `VERNAL_SHIM_WAIT` | `spin`, `adaptive` or `block` | `adaptive` |
//! | `VERNAL_SHIM_RING` | bytes under way in each direction, a power of two | 65536 |

use glob::{MatchOptions, Pattern};
use std::path::Path;
use std::sync::OnceLock;
use vernal_ring::{StreamArea, WaitPolicy};

/// Bytes under way in each direction unless the environment says otherwise.
const RING_BYTES: usize = 64 << 10;

/// The settings of this process.
#[derive(Debug)]
pub struct Config {
    paths: Vec<Pattern>,
    /// How a side waits.
    pub wait: WaitPolicy,
    /// Bytes under way in each direction.
    pub ring: usize,
}

/// The settings; read when the first socket asks.
pub fn get() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let text = |name| std::env::var(name).unwrap_or_default();
        let patterns = text("VERNAL_SHIM");
        let patterns = patterns.split(':').filter(|p| !p.is_empty());
        Config {
            paths: patterns.filter_map(|p| complain(Pattern::new(p), p)).collect(),
            wait: match text("VERNAL_SHIM_WAIT").as_str() {
                "spin" => WaitPolicy::Spin,
                "block" => WaitPolicy::Block,
                "" | "adaptive" => WaitPolicy::Adaptive,
                other => {
                    eprintln!(
                        "vernal shim: VERNAL_SHIM_WAIT={other} is none of spin, adaptive, block: adaptive is used"
                    );
                    WaitPolicy::Adaptive
                }
            },
            ring: match text("VERNAL_SHIM_RING").as_str() {
                "" => RING_BYTES,
                other => {
                    let bytes = other.parse().ok().filter(|&b| StreamArea::new(b).is_ok());
                    bytes.unwrap_or_else(|| {
                        eprintln!(
                            "vernal shim: VERNAL_SHIM_RING={other} is no power of two from 64 on: {RING_BYTES} is used"
                        );
                        RING_BYTES
                    })
                }
            },
        }
    })
}

fn complain<T>(pattern: Result<T, glob::PatternError>, text: &str) -> Option<T> {
    pattern
        .inspect_err(|e| {
            eprintln!("vernal shim: VERNAL_SHIM has the pattern {text}: {e}; it is left out")
        })
        .ok()
}

impl Config {
    /// Whether connections over this socket may use shared memory.
    pub fn covers(&self, path: &Path) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let absolute = match path.is_absolute() {
            true => Some(path.to_owned()),
            false => std::env::current_dir().ok().map(|dir| dir.join(path)),
        };
        absolute.is_some_and(|path| {
            self.paths
                .iter()
                .any(|p| p.matches_path_with(&path, options))
        })
    }
}
