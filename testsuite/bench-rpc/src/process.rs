//! The processes of one contender: a server and a client, stopped whenever it is not their turn.

use crate::plan::{Contender, Placement, System};
use crate::systems::grpc_command;
use crate::{Failure, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CpuSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// No command takes this long; a process that does hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the other process is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(2);

/// A process that speaks the lines of `worker`.
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    errors: PathBuf,
}

/// The answer to a measurement.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Nanoseconds of the timed part.
    pub ns: u64,
    /// Calls in it.
    pub units: u64,
    /// Sum of all replies.
    pub sum: u64,
    /// In open loops: latencies at 50, 99, 99.9 % and the longest, in nanoseconds.
    pub latencies: Option<[u64; 4]>,
}

impl Sample {
    /// Nanoseconds per call.
    pub fn per_call(&self) -> f64 {
        self.ns as f64 / self.units.max(1) as f64
    }
}

impl Process {
    /// Starts it, and waits until it says that it is ready.
    pub fn start(name: String, mut command: Command, errors: PathBuf) -> Result<Self> {
        let log =
            File::create(&errors).map_err(|e| Failure(format!("{}: {e}", errors.display())))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command
            .spawn()
            .map_err(|e| Failure(format!("{name}: cannot start {command:?}: {e}")))?;
        let input = child.stdin.take();
        let output = child
            .stdout
            .take()
            .ok_or_else(|| Failure(format!("{name}: no pipe to it")))?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Self {
            name,
            child,
            input,
            answers,
            errors,
        };
        process.answer(|| Ok(()))?;
        Ok(process)
    }

    /// An error when the process has ended, with what it said.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("has ended ({status})"))),
            Err(e) => Err(self.failure(&e.to_string())),
        }
    }

    /// Lets the process execute `line`. While it does, `others` says whether what it depends on is well.
    pub fn command(&mut self, line: &str, others: impl FnMut() -> Result<()>) -> Result<Vec<u64>> {
        let sent = match &mut self.input {
            Some(pipe) => writeln!(pipe, "{line}").and_then(|()| pipe.flush()),
            None => Ok(()),
        };
        sent.map_err(|e| self.failure(&format!("cannot be written to: {e}")))?;
        self.answer(others)
    }

    fn answer(&mut self, mut others: impl FnMut() -> Result<()>) -> Result<Vec<u64>> {
        let start = Instant::now();
        let line = loop {
            match self.answers.recv_timeout(LOOK) {
                Ok(Ok(line)) => break line,
                Ok(Err(e)) => return Err(self.failure(&format!("cannot be read from: {e}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure("ended early")),
                Err(RecvTimeoutError::Timeout) => others()?,
            }
            if start.elapsed() > PATIENCE {
                return Err(self.failure(&format!("has not answered for {} s", PATIENCE.as_secs())));
            }
        };
        let numbers = line
            .strip_prefix("ok")
            .map(|rest| rest.split_whitespace().map(str::parse).collect());
        match numbers {
            Some(Ok(numbers)) => Ok(numbers),
            _ => Err(self.failure(&format!("answered {line:?}"))),
        }
    }

    /// An error that carries what the process itself has said.
    fn failure(&self, what: &str) -> Failure {
        let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("; ");
        let colon = if tail.is_empty() { "" } else { ": " };
        Failure(format!("{}: {what}{colon}{tail}", self.name))
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Stops or continues it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        kill_process(pid, signal).map_err(|e| self.failure(&format!("cannot be signalled: {e}")))
    }

    /// Lets every thread run on `cpus` only; threads that are started later inherit it.
    pub fn pin(&self, cpus: &[usize]) -> Result<()> {
        let mut set = CpuSet::new();
        for &cpu in cpus {
            set.set(cpu);
        }
        let tasks = format!("/proc/{}/task", self.child.id());
        let entries = std::fs::read_dir(&tasks).map_err(|e| Failure(format!("{tasks}: {e}")))?;
        for entry in entries.flatten() {
            let tid = entry.file_name().to_string_lossy().parse().ok();
            // A thread that has ended meanwhile needs no CPU.
            if let Some(tid) = tid.and_then(Pid::from_raw) {
                let _ = rustix::thread::sched_setaffinity(Some(tid), &set);
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // Errors mean that it has ended already. A stopped process dies of SIGKILL, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where processes put what they need.
pub struct Folders {
    /// Sockets; a short path, because those of sockets are limited.
    pub run: PathBuf,
    /// Messages of processes.
    pub log: PathBuf,
    /// Generated sources and programs.
    pub bin: PathBuf,
}

/// A server and its client.
pub struct Pair {
    /// What runs.
    pub contender: Contender,
    client: Process,
    server: Process,
    placement: Option<Placement>,
    /// Calls that the client has made.
    made: u64,
}

impl Pair {
    /// Starts both, and stops them.
    pub fn start(contender: Contender, folders: &Folders) -> Result<Self> {
        let at = folders.run.join(contender.to_string());
        let start = |side: &str| {
            let name = format!("{contender} {side}");
            let command = program(contender, side, &at, folders)?;
            let log = folders.log.join(format!("rpc-{contender}-{side}.log"));
            Process::start(name, command, log)
        };
        let server = start("server")?;
        let client = start("client")?;
        let pair = Self {
            contender,
            client,
            server,
            placement: None,
            made: 0,
        };
        pair.signal(Signal::STOP)?;
        Ok(pair)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server.signal(signal)?;
        self.client.signal(signal)
    }

    /// One measurement: both run while `line` is executed, at `placement`.
    fn turn(&mut self, placement: Placement, line: &str) -> Result<Vec<u64>> {
        if self.placement != Some(placement) {
            let cpus = crate::machine::cpus();
            let (client, server) = match (placement, cpus.as_slice()) {
                (Placement::Same, [.., last]) => (vec![*last], vec![*last]),
                (Placement::Two, [.., other, last]) => (vec![*last], vec![*other]),
                _ => (cpus.clone(), cpus),
            };
            self.client.pin(&client)?;
            self.server.pin(&server)?;
            self.placement = Some(placement);
        }
        self.signal(Signal::CONT)?;
        let answer = self.client.command(line, || self.server.alive());
        self.signal(Signal::STOP)?;
        answer
    }

    fn sample(&mut self, placement: Placement, line: &str) -> Result<Sample> {
        match self.turn(placement, line)?[..] {
            [ns, units, sum] => Ok(Sample {
                ns,
                units,
                sum,
                latencies: None,
            }),
            [ns, units, sum, a, b, c, d] => Ok(Sample {
                ns,
                units,
                sum,
                latencies: Some([a, b, c, d]),
            }),
            ref other => Err(Failure(format!(
                "{}: answered {line:?} with {} numbers",
                self.contender,
                other.len()
            ))),
        }
    }

    /// A closed loop of `count` calls on each of `threads` connections, after `warm` untimed ones. The replies are checked.
    pub fn run(
        &mut self,
        placement: Placement,
        size: usize,
        [warm, count]: [u64; 2],
        seed: u64,
        threads: u64,
    ) -> Result<Sample> {
        let line = format!("run {size} {warm} {count} {seed} {threads}");
        let sample = self.sample(placement, &line)?;
        self.expect(&sample, size, warm + count, seed, threads)?;
        Ok(sample)
    }

    /// An open loop of `count` calls at `rate` calls per second.
    pub fn load(
        &mut self,
        placement: Placement,
        size: usize,
        rate: u64,
        count: u64,
        seed: u64,
        spin: bool,
    ) -> Result<Sample> {
        let line = format!("load {size} {rate} {count} {seed} {}", u8::from(spin));
        let sample = self.sample(placement, &line)?;
        self.expect(&sample, size, count, seed, 1)?;
        Ok(sample)
    }

    /// Both sides have done the work: every reply was right, or the run ends.
    fn expect(
        &mut self,
        sample: &Sample,
        size: usize,
        calls: u64,
        seed: u64,
        threads: u64,
    ) -> Result<()> {
        self.made += calls * threads;
        let mut sum = 0u64;
        if size > 0 {
            for thread in 0..threads {
                for call in 0..calls {
                    let seed = crate::payload::seed_of(seed, thread, call);
                    sum = sum.wrapping_add(crate::payload::expected(size, seed));
                }
            }
        }
        if sum == sample.sum {
            return Ok(());
        }
        Err(Failure(format!(
            "{}: the replies to {calls} calls of {size} bytes sum up to {}, not {sum}: it has not done the same work",
            self.contender, sample.sum
        )))
    }

    /// The server has answered as many calls as the client has made.
    pub fn check_calls(&mut self) -> Result<()> {
        if self.contender.system == System::Local {
            return Ok(());
        }
        self.signal(Signal::CONT)?;
        let answered = self.server.command("calls", || Ok(()));
        self.signal(Signal::STOP)?;
        match answered?[..] {
            [n] if n == self.made => Ok(()),
            ref other => Err(Failure(format!(
                "{}: {} calls were made, and the server says {other:?}",
                self.contender, self.made
            ))),
        }
    }

    /// Opens a file of documents.
    pub fn open(&mut self, placement: Placement, file: &Path) -> Result<()> {
        let line = format!("open {}", file.display());
        self.turn(placement, &line).map(|_| ())
    }

    /// Inserts documents; how many there are afterwards is summed up.
    pub fn insert(&mut self, placement: Placement, first: u64, count: u64) -> Result<Sample> {
        self.made += count;
        self.sample(placement, &format!("insert {first} {count}"))
    }

    /// Searches, after `warm` untimed ones: `words` are the field, its distinct values and what is read.
    pub fn search(
        &mut self,
        placement: Placement,
        words: &str,
        [warm, count]: [u64; 2],
        seed: u64,
    ) -> Result<Sample> {
        self.made += warm + count;
        self.sample(placement, &format!("search {words} {warm} {count} {seed}"))
    }
}

/// The program of one side.
fn program(contender: Contender, side: &str, at: &Path, folders: &Folders) -> Result<Command> {
    if contender.system == System::Grpc {
        let mut command = grpc_command(&folders.bin)?;
        command.arg(side).arg(at);
        return Ok(command);
    }
    let this =
        std::env::current_exe().map_err(|e| Failure(format!("where this program lies: {e}")))?;
    let mut command = Command::new(this);
    command
        .env("VERNAL_PUDDLED", crate::puddled::socket(folders))
        .arg(side)
        .arg(contender.system.name())
        .arg(contender.wait.name())
        .arg(at);
    Ok(command)
}
