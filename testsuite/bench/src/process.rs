//! One workload process and the protocol with it (`workloads/protocol.h`).

use crate::ops::Op;
use crate::{Failure, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// No command takes this long; a process that does hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running workload process.
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    errors: PathBuf,
}

/// The answer to a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds of the timed part.
    pub ns: u64,
    /// What to divide them by.
    pub units: u64,
    /// Fold of everything that was read.
    pub sum: u64,
    /// Misses of the emulated CXL device.
    pub misses: u64,
}

impl Process {
    /// Starts `command`, whose messages go to the file `errors`, and waits until it has opened its data.
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
        process.answer()?;
        Ok(process)
    }

    /// Executes `ops`, of which the first `warm` are not timed, with a commit after each `batch`.
    pub fn run(&mut self, warm: usize, ops: &[Op], batch: u64) -> Result<Sample> {
        self.execute(format!("run {warm} {} {batch}\n", ops.len() - warm), ops)
    }

    /// Executes `ops` unmeasured.
    pub fn load(&mut self, ops: &[Op], batch: u64) -> Result<Sample> {
        self.execute(format!("load {} {batch}\n", ops.len()), ops)
    }

    /// Lets a small measurement run (`workloads/micro.h`).
    pub fn measure(&mut self, name: &str, count: u64, argument: &str) -> Result<Sample> {
        self.execute(format!("measure {name} {count} {argument}\n"), &[])
    }

    fn execute(&mut self, command: String, ops: &[Op]) -> Result<Sample> {
        self.send(command.as_bytes(), &Op::encode(ops))?;
        match self.answer()?[..] {
            [ns, units, sum, misses] => Ok(Sample {
                ns,
                units,
                sum,
                misses,
            }),
            ref other => Err(self.failure(&format!(
                "answered a run with {} numbers instead of 4",
                other.len()
            ))),
        }
    }

    /// Hash of the final state, and the number of its entries.
    pub fn check(&mut self) -> Result<(u64, u64)> {
        self.send(b"check\n", &[])?;
        match self.answer()?[..] {
            [hash, entries] => Ok((hash, entries)),
            ref other => Err(self.failure(&format!(
                "answered a check with {} numbers instead of 2",
                other.len()
            ))),
        }
    }

    /// Lets the process close its data and end.
    pub fn finish(mut self) -> Result<()> {
        self.input = None; // the end of its input ends it
        match self.answers.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Disconnected) => {}
            _ => return Err(self.failure("did not end with its input")),
        }
        let status = self
            .child
            .wait()
            .map_err(|e| self.failure(&e.to_string()))?;
        if status.success() {
            Ok(())
        } else {
            Err(self.failure(&status.to_string()))
        }
    }

    /// Kills the process where it stands.
    pub fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(|_| ()).map_err(|e| self.failure(&e.to_string()))
    }

    fn send(&mut self, line: &[u8], body: &[u8]) -> Result<()> {
        let sent = match &mut self.input {
            Some(pipe) => pipe
                .write_all(line)
                .and_then(|()| pipe.write_all(body))
                .and_then(|()| pipe.flush()),
            None => Ok(()),
        };
        sent.map_err(|e| self.failure(&format!("cannot be written to: {e}")))
    }

    fn answer(&mut self) -> Result<Vec<u64>> {
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => line,
            Ok(Err(e)) => return Err(self.failure(&format!("cannot be read from: {e}"))),
            Err(RecvTimeoutError::Disconnected) => return Err(self.failure("ended early")),
            Err(RecvTimeoutError::Timeout) => {
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
        Failure(format!(
            "{}: {what}{}{tail}",
            self.name,
            if tail.is_empty() { "" } else { ": " }
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
