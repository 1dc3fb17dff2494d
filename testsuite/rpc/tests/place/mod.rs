//! A puddled of its own, the tools as they were built, and servers that end with their test.
#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use vernal_programs::tools::{Tools, run};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether somebody takes connections there.
fn serves(path: &Path) -> bool {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
    let address = SocketAddrUnix::new(path);
    match (socket, address) {
        (Ok(socket), Ok(address)) => rustix::net::connect(&socket, &address).is_ok(),
        _ => false,
    }
}

/// puddled with a folder of its own.
pub struct Place {
    folder: PathBuf,
    pub tools: Tools,
    daemon: Child,
}

impl Place {
    pub fn new(name: &str) -> Place {
        let tools = Tools::find().expect("the tools are built: `cargo build --release`");
        assert!(
            tools.bin.join("puddled").exists(),
            "puddled is not in {}: run `cargo build --release` first",
            tools.bin.display()
        );
        let folder = std::env::temp_dir().join(format!("vernal-rpc-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let daemon = Command::new(tools.bin.join("puddled"))
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--socket")
            .arg(folder.join("sock"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("puddled starts");
        let mut place = Place {
            folder,
            tools,
            daemon,
        };
        let until = Instant::now() + PATIENCE;
        while !serves(&place.folder.join("sock")) {
            let ended = place.daemon.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < until,
                "puddled does not serve"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        place
    }

    pub fn build(&self, source: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let cxx = source.extension().is_some_and(|e| e == "cpp");
        let out = self.folder.join(source.file_stem().expect("a name"));
        let mut command = Command::new(self.tools.compiler(cxx));
        if cxx {
            command.arg("-std=c++17");
        }
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/capi/include");
        command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
        run(command.arg(include).arg(&source).arg("-o").arg(&out)).expect("it compiles");
        out
    }

    pub fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("LD_LIBRARY_PATH", &self.tools.bin)
            .env("VERNAL_PUDDLED", self.folder.join("sock"))
            // A handler that panics as asked says so in one line.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        command
    }

    /// A server, when it is ready.
    pub fn serve(&self, program: &Path, args: &[&str]) -> Server {
        self.serve_and_say(program, args, 1).0
    }

    /// The same, and the last of so many lines that it says.
    pub fn serve_and_say(&self, program: &Path, args: &[&str], lines: usize) -> (Server, String) {
        let mut child = self
            .command(program, args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let out = child.stdout.as_mut().expect("its output");
        let said = BufReader::new(out).lines().take(lines);
        let said: Vec<String> = said.map(|line| line.expect("a line")).collect();
        assert_eq!(said.first().map(String::as_str), Some("ready"));
        let last = said.last().cloned().unwrap_or_default();
        (Server(child), last)
    }

    pub fn says(&self, program: &Path, args: &[&str]) -> String {
        let output = run(&mut self.command(program, args)).expect("it works");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Killed at the end, if it has not ended by itself.
pub struct Server(Child);

impl Server {
    pub fn ends_well(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child of ours") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "the server goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it has ended, however.
    pub fn ends(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.runs() {
            assert!(Instant::now() < until, "the server goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
