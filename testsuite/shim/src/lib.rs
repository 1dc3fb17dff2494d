//! What the tests of the shim share: where the library is, programs with and without it, and bytes that both sides can compute.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

/// The bytes of a stream: the one with number `at` of the stream with this seed.
#[must_use]
pub fn byte(seed: u64, at: u64) -> u8 {
    let mut x = (seed ^ (at / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> (8 * (at % 8))) as u8
}

/// A generator of sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes(pub u64);

impl Sizes {
    /// The next size, up to `max`: small ones are as likely as large ones.
    pub fn next(&mut self, max: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = 1_usize << ((self.0 >> 8) % 17);
        1 + (self.0 >> 24) as usize % limit.min(max)
    }
}

/// The library, built with the profile of this test.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let exe = std::env::current_exe().expect("this test");
        // target/PROFILE/deps/test
        let folder = exe.ancestors().nth(2).expect("a target folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "vernal-shim",
            "--target-dir",
        ]);
        cargo.arg(folder.parent().expect("a target folder"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo").success(),
            "vernal-shim does not build"
        );
        folder.join("libvernal_shim.so")
    })
}

/// A folder for sockets, removed on drop.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Of this test.
    #[must_use]
    pub fn new(name: &str) -> Place {
        let folder =
            std::env::temp_dir().join(format!("vernal-shim-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Place { folder }
    }

    /// A socket in it.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A program; preloaded with this way to wait, or as it is.
    #[must_use]
    pub fn command(&self, program: &Path, wait: Option<&str>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(wait) = wait {
            command
                .env("LD_PRELOAD", library())
                .env("VERNAL_SHIM", format!("{}/*", self.folder.display()))
                .env("VERNAL_SHIM_WAIT", wait);
        }
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How long a program may run: one that hangs is a failure of its test and not of all.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running program; killed on drop, and when it runs for too long.
#[derive(Debug)]
pub struct Peer {
    /// The process.
    pub child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    /// Dropped with the peer, which ends the watch.
    _watch: mpsc::Sender<()>,
}

/// Kills a process that is watched for longer than [`PATIENCE`].
fn watch(child: &Child) -> mpsc::Sender<()> {
    let (ended, end) = mpsc::channel();
    let pid = child.id().to_string();
    std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("process {pid} has run for {PATIENCE:?}: killed");
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    ended
}

impl Peer {
    /// Starts it.
    #[must_use]
    pub fn start(mut command: Command) -> Peer {
        let mut child = command.spawn().expect("the peer starts");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let _watch = watch(&child);
        Peer {
            child,
            input,
            lines,
            _watch,
        }
    }

    /// A server that listens.
    #[must_use]
    pub fn server(command: Command) -> Peer {
        let mut peer = Peer::start(command);
        assert_eq!(peer.line(), "ready");
        peer
    }

    /// The next line that it prints; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("its output");
        line.trim_end().to_owned()
    }

    /// All that it prints until it ends, and whether it ended well.
    pub fn finish(mut self) -> (bool, String) {
        drop(self.input.take());
        let mut text = String::new();
        self.lines.read_to_string(&mut text).expect("its output");
        (self.child.wait().expect("a child").success(), text)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
