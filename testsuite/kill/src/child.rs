//! A workload process and what it says.

use crate::Result;
use crate::place::{Build, Place, Scratch};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// No single process of these tests runs this long, unless it hangs: they need about a second on an idle machine.
pub const HANG: Duration = Duration::from_secs(150);

/// The signal that cannot be caught.
const SIGKILL: i32 = 9;

/// How a process ended, and all it wrote.
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// It was killed by SIGKILL.
    pub fn killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }

    /// The number after the last line `tag n`, if any.
    pub fn last(&self, tag: &str) -> Option<u64> {
        let number = |line: &str| line.strip_prefix(tag)?.strip_prefix(' ')?.parse().ok();
        // A line that the kill cut short has no line end, and is no statement.
        let whole = &self.out[..self.out.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().rev().find_map(number)
    }
}

/// A running process whose output goes to files, so that it never waits for a reader.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Starts `command` with output files in `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Result<Running> {
        let (out, err) = (folder.join("out"), folder.join("err"));
        command
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        let child = command
            .spawn()
            .map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
        Ok(Running { child, out, err })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn so_far(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits until it has written `text`, or has ended.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let start = Instant::now();
        while !self.so_far().contains(text) {
            if self.child.try_wait()?.is_some() {
                return Err(format!("it ended before it wrote {text:?}").into());
            }
            if start.elapsed() > HANG {
                return Err(
                    format!("it did not write {text:?} within {} s", HANG.as_secs()).into(),
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > HANG {
                self.child.kill()?;
                self.child.wait()?;
                return Err(format!(
                    "it hung for {} s and was killed; it wrote:\n{}",
                    HANG.as_secs(),
                    self.so_far()
                )
                .into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        };
        let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Ended {
            status,
            out: text(&self.out)?,
            err: text(&self.err)?,
        })
    }
}

/// Runs `command` to its end.
pub fn run(command: Command, folder: &Path) -> Result<Ended> {
    Running::start(command, folder)?.end()
}

/// Everything that is needed to run one workload program on one file.
pub struct Rig<'p> {
    pub place: &'p Place,
    pub build: Build,
    pub program: PathBuf,
    /// The mapped file and Vernal's own files.
    pub files: Scratch,
    /// Output and counters.
    pub notes: Scratch,
}

impl Rig<'_> {
    /// The mapped file.
    pub fn image(&self) -> PathBuf {
        self.files.file("heap.img")
    }

    /// The program with `arguments` after the file.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self
            .place
            .command(&self.program, self.build, self.files.path());
        command.arg(self.image()).args(arguments);
        command
    }

    /// Runs it, killing itself at injection point `at` (0: never).
    pub fn run(&self, arguments: &[&str], at: u64) -> Result<Ended> {
        let mut command = self.command(arguments);
        if at > 0 {
            command.env("VERNAL_TEST_KILL_AT", at.to_string());
        }
        run(command, self.notes.path())
    }

    /// Runs it to its end and returns the number of injection points that it passed.
    pub fn count(&self, arguments: &[&str]) -> Result<u64> {
        let file = self.notes.file("count");
        let _ = fs::remove_file(&file);
        let mut command = self.command(arguments);
        command.env("VERNAL_TEST_COUNT", &file);
        let ended = run(command, self.notes.path())?;
        if !ended.status.success() {
            return Err(format!(
                "the program fails without any kill ({}): {}",
                ended.status, ended.err
            )
            .into());
        }
        let text = fs::read_to_string(&file)
            .map_err(|e| format!("VERNAL_TEST_COUNT wrote nothing: {e}"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().parse::<u64>().ok())
            .sum())
    }
}
