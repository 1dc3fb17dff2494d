//! A data directory, the puddled that runs on it, and client processes.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use puddled::{Layout, Registry, Snapshot};
use vernal_puddled_client::Client;

/// An ordinary user.
pub const USER_A: u32 = 61_001;
/// Another one.
pub const USER_B: u32 = 61_002;

/// How long anything may take before a test fails, on a machine that does much else besides. No test waits so long on purpose.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whether this process is root; says so when it is not. Tests that need other users count as skipped.
pub fn need_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it starts processes of other users, which needs root");
    }
    root
}

/// Something that differs between runs, for names.
pub fn run_id() -> String {
    format!("{}", std::process::id())
}

/// A data directory and its puddled.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    puddled: PathBuf,
    actor: PathBuf,
    daemon: Option<Child>,
    /// Further arguments of puddled.
    pub args: Vec<String>,
}

impl Place {
    /// A fresh place. `puddled` and `actor` are the programs.
    pub fn new(puddled: &str, actor: &str) -> Place {
        Self::new_in(&std::env::temp_dir(), puddled, actor)
    }

    /// The same on byte-addressable media, for direct pools in programs.
    pub fn new_in_memory(puddled: &str, actor: &str) -> Place {
        Self::new_in(Path::new("/dev/shm"), puddled, actor)
    }

    fn new_in(dir: &Path, puddled: &str, actor: &str) -> Place {
        let dir = tempfile::Builder::new()
            .prefix("vernal-puddled-")
            .tempdir_in(dir)
            .expect("a temporary directory");
        // Other users reach the socket and the actor through it.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("a temporary directory of our own");
        Place {
            dir,
            puddled: puddled.into(),
            actor: actor.into(),
            daemon: None,
            args: Vec::new(),
        }
    }

    /// Runs `program` instead of puddled from now on; it must end as puddled.
    pub fn set_puddled(&mut self, program: &Path) {
        self.puddled = program.to_owned();
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("data"))
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// A puddled that is not started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.puddled);
        command
            .arg("--data")
            .arg(self.layout().data())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.args)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stderr(self.log());
        command
    }

    fn log(&self) -> Stdio {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"));
        Stdio::from(log.expect("a log"))
    }

    /// What puddled has logged.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts puddled and waits until it serves.
    pub fn start(&mut self) {
        assert!(
            self.try_start(None),
            "puddled does not start:\n{}",
            self.log_text()
        );
    }

    /// Starts puddled, which kills itself at step `kill_at`; `false` when it did so before it served.
    pub fn try_start(&mut self, kill_at: Option<u64>) -> bool {
        assert!(self.daemon.is_none(), "one puddled at a time");
        let mut command = self.command();
        if let Some(n) = kill_at {
            command.env("PUDDLED_TEST_KILL_AT", n.to_string());
        }
        let mut child = command.spawn().expect("puddled starts");
        let until = Instant::now() + PATIENCE;
        loop {
            if Client::connect(&self.socket(), "probe").is_ok() {
                self.daemon = Some(child);
                return true;
            }
            if let Some(status) = child.try_wait().expect("a child of ours") {
                assert!(
                    kill_at.is_some() && status.signal() == Some(9),
                    "puddled ended with {status}:\n{}",
                    self.log_text()
                );
                return false;
            }
            assert!(Instant::now() < until, "puddled does not serve");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether puddled has ended by itself; waits for it a moment when it is on the way.
    pub fn has_died(&mut self) -> bool {
        let Some(child) = &mut self.daemon else {
            return true;
        };
        if child.try_wait().expect("a child of ours").is_some() {
            self.daemon = None;
            return true;
        }
        false
    }

    /// Waits for a puddled that is about to die.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.wait().expect("a child of ours");
        }
    }

    /// Ends a puddled that may have died by itself.
    pub fn reap_or_kill(&mut self) {
        if !self.has_died() {
            self.kill();
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// SIGTERM, and the exit status must be that of success.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ours");
            let status = child.wait().expect("a child of ours");
            assert!(status.success(), "{status}:\n{}", self.log_text());
        }
    }

    /// puddled's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// A connection of this very process.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket(), "test").expect("puddled serves")
    }

    /// What the registry says, while no puddled runs.
    pub fn registry(&self) -> Snapshot {
        assert!(self.daemon.is_none());
        Registry::open(&self.layout().registry())
            .and_then(|r| r.snapshot())
            .expect("a registry")
    }

    /// A client process of the user `uid`, with its own copy of the program.
    pub fn actor(&self, name: &str, uid: Option<u32>) -> Actor {
        self.run(&self.actor, name, uid)
    }

    /// A copy of the program `from`, which every user reaches.
    pub fn copy_of(&self, from: &Path, name: &str) -> PathBuf {
        let program = self.dir.path().join(format!("actor-{name}"));
        let _ = std::fs::remove_file(&program);
        std::fs::hard_link(from, &program)
            .or_else(|_| std::fs::copy(from, &program).map(|_| ()))
            .expect("the program is built");
        program
    }

    /// The program `from` as a client process of the user `uid`, with its own copy of the program.
    pub fn run(&self, from: &Path, name: &str, uid: Option<u32>) -> Actor {
        let program = self.copy_of(from, name);
        let command = Command::new(&program);
        self.run_command(command, program, uid)
    }

    /// The same with a command of its own, which starts `program`.
    pub fn run_command(&self, mut command: Command, program: PathBuf, uid: Option<u32>) -> Actor {
        command
            .arg(self.socket())
            .env("VERNAL_PUDDLED", self.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.gid(uid).uid(uid);
        }
        let mut child = spawn(&mut command);
        Actor {
            to: child.stdin.take(),
            from: BufReader::new(child.stdout.take().expect("piped")),
            child,
            program,
        }
    }

    /// Every file below the data directory, relative to it, without those of the registry and the lock.
    pub fn files(&self) -> Vec<String> {
        let root = self.layout().data().to_owned();
        let mut all = Vec::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir)
                .expect("a directory of puddled")
                .flatten()
            {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path.clone());
                }
                let name = path
                    .strip_prefix(&root)
                    .expect("below it")
                    .display()
                    .to_string();
                all.push(name);
            }
        }
        all.retain(|n| {
            !matches!(
                n.as_str(),
                "lock"
                    | "registry.redb"
                    | "rpc-addresses"
                    | "pools"
                    | "journals"
                    | "staging"
                    | "quarantine"
            )
        });
        all.sort();
        all
    }

    /// The files that the registry's pools should have, and no others must be there.
    pub fn assert_tidy(&self) {
        let snapshot = self.registry();
        let layout = self.layout();
        let root = layout.data().to_owned();
        let mut want = Vec::new();
        for pool in &snapshot.pools {
            let dir = layout.pool(pool.id);
            want.push(dir.clone());
            for (i, p) in pool.puddles.iter().enumerate() {
                let path = Layout::puddle(&dir, i, p.id);
                if pool.kind == vernal_puddled_proto::PoolKind::Buffered {
                    want.push(Layout::meta(&path));
                }
                want.push(path);
            }
        }
        let mut want: Vec<String> = want
            .iter()
            .map(|p| {
                p.strip_prefix(&root)
                    .expect("below it")
                    .display()
                    .to_string()
            })
            .collect();
        want.sort();
        assert_eq!(
            self.files(),
            want,
            "files and registry differ:\n{}",
            self.log_text()
        );
        assert!(
            snapshot.grants.is_empty(),
            "grants are left: {:?}",
            snapshot.grants
        );
        let mut places: Vec<(u64, u64)> = snapshot
            .pools
            .iter()
            .flat_map(|p| &p.puddles)
            .map(|p| (p.addr, p.size))
            .collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(a, size), (b, _)] = pair {
                assert!(a + size <= *b, "puddles overlap");
            }
        }
    }

    /// Waits until puddled has settled what clients left, and no client is there.
    pub fn wait_settled(&self) {
        self.wait_settled_with(1);
    }

    /// The same with `clients` connections, that of the question included.
    pub fn wait_settled_with(&self, clients: u32) {
        let settled = self.settled(clients);
        assert!(settled, "puddled has died:\n{}", self.log_text());
    }

    /// The same; `false` when puddled dies meanwhile.
    pub fn try_wait_settled(&mut self) -> bool {
        self.settled(1) && !self.has_died()
    }

    fn settled(&self, clients: u32) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = Client::connect(&self.socket(), "test").and_then(|mut c| c.status());
            let Ok(status) = status else {
                return false;
            };
            // A connection counts until its thread has seen its end; nothing is unsettled from then on only.
            if status.unsettled == 0 && status.clients <= clients {
                return true;
            }
            assert!(
                Instant::now() < until,
                "not settled: {status:?}\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("puddled's log:\n{}", self.log_text());
        }
    }
}

/// Starts a program that may have been copied a moment ago: a process that another test was forking just then still has the copy
/// open for writing until it executes its own program.
pub fn spawn(command: &mut Command) -> Child {
    let until = Instant::now() + PATIENCE;
    loop {
        match command.spawn() {
            Ok(child) => return child,
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => panic!("{command:?} does not start: {e}"),
        }
    }
}

/// Asks until the answer is yes, and fails when it takes too long.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A client process.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Its program, which nobody else runs.
    pub program: PathBuf,
}

impl Actor {
    /// Tells it something and returns its answer: `ok …` or `err CODE …`.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.answer()
    }

    /// The same, where it may have ended: nothing then.
    pub fn try_ask(&mut self, line: &str) -> Option<String> {
        let to = self.to.as_mut().expect("it listens");
        writeln!(to, "{line}").ok()?;
        Some(self.answer()).filter(|a| !a.is_empty())
    }

    /// Tells it something.
    pub fn send(&mut self, line: &str) {
        let to = self.to.as_mut().expect("it listens");
        writeln!(to, "{line}").expect("the actor listens");
    }

    /// Its next answer; empty when it has ended.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("the actor speaks");
        answer.trim_end().to_owned()
    }

    /// The same, and it must succeed: what follows `ok`.
    pub fn ok(&mut self, line: &str) -> String {
        let answer = self.ask(line);
        match answer.strip_prefix("ok") {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{line}: {answer}"),
        }
    }

    /// The same, and it must be refused with this code: the text.
    pub fn refused(&mut self, line: &str, code: &str) -> String {
        let answer = self.ask(line);
        match answer.strip_prefix(&format!("err {code} ")) {
            Some(text) => text.to_owned(),
            None => panic!("{line}: {answer}, and not {code}"),
        }
    }

    /// The same, where puddled may die meanwhile: what follows `ok`, or nothing.
    pub fn try_ok(&mut self, line: &str) -> Option<String> {
        let answer = self.ask(line);
        let rest = answer.strip_prefix("ok").map(|rest| rest.trim().to_owned());
        let lost = answer.starts_with("err Client ") || answer.starts_with("err Connect ");
        assert!(rest.is_some() || lost, "{line}: {answer}");
        rest
    }

    /// The same; `false`: puddled has died.
    pub fn ask_or_end(&mut self, line: &str) -> bool {
        self.try_ok(line).is_some()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Ends it as a program ends: by itself.
    pub fn end(mut self) {
        drop(self.to.take());
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
