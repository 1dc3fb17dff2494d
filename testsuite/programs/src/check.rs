//! What is demanded of each executable: under audit no byte changes without a mark; after each of many kills the file holds
//! the state of the last completed step or of the one that was running, exactly as the volatile twin had it.

use crate::Result;
use crate::attack::run_and_kill;
use crate::tools::run;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// An executable and what to do with it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name, for messages and files.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// Where its file lies.
    pub folder: PathBuf,
    /// Steps to make.
    pub steps: u64,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Steps made under audit.
    pub audited: u64,
    /// Kills survived.
    pub kills: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps audited, 0 bytes missed; {} kills, 0 inconsistent",
            self.audited, self.kills
        )
    }
}

impl Subject {
    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.img", self.name))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg(self.file()).args(arguments);
        command
            .env("VERNAL_PATHS", self.file())
            .env_remove("VERNAL_AUDIT");
        command.stdin(Stdio::null());
        command
    }

    /// Removes the file and what lies beside it.
    fn clear(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let name = self.file();
        let prefix = name
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let found = entry.file_name();
            if found.to_string_lossy().starts_with(&prefix) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Steps that the file has seen, and its digest.
    fn digest(&self) -> Result<(u64, String)> {
        let output = run(&mut self.command(&["digest"]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        match (words.next().and_then(|w| w.parse().ok()), words.next()) {
            (Some(steps), Some(digest)) => Ok((steps, digest.to_owned())),
            _ => Err(format!("{}: digest printed {text:?}", self.name).into()),
        }
    }

    /// The digest after each number of steps, from a run without any file.
    fn twin(&self, steps: u64) -> Result<Vec<String>> {
        let mut command = Command::new(&self.executable);
        command
            .args(["-", "twin", &steps.to_string()])
            .env_remove("VERNAL_PATHS")
            .env_remove("VERNAL_AUDIT");
        let output = run(&mut command)?;
        let lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        if lines.len() as u64 != steps + 1 {
            return Err(format!(
                "{}: the twin printed {} digests for {steps} steps",
                self.name,
                lines.len()
            )
            .into());
        }
        Ok(lines)
    }

    /// Both checks. Kills `kills` times, or until `until` if that is later.
    pub fn check(&self, kills: u64, until: Instant, random: &mut Random) -> Result<Report> {
        let twin = self.twin(self.steps)?;
        self.audit(&twin)?;
        let killed = self.kill(&twin, kills, until, random)?;
        self.clear()?;
        Ok(Report {
            audited: self.steps,
            kills: killed,
        })
    }

    fn audit(&self, twin: &[String]) -> Result<()> {
        self.clear()?;
        // In two runs: the second begins with what the first has left.
        for steps in [self.steps / 2, self.steps] {
            let mut command = self.command(&["run", &steps.to_string()]);
            run(command.env("VERNAL_AUDIT", "1")).map_err(|e| format!("under audit: {e}"))?;
        }
        let found = self.digest()?;
        let expected = (self.steps, twin[self.steps as usize].clone());
        if found != expected {
            return Err(format!(
                "after the audited run: steps and digest are {found:?}, the twin's {expected:?}"
            )
            .into());
        }
        Ok(())
    }

    fn kill(
        &self,
        twin: &[String],
        kills: u64,
        until: Instant,
        random: &mut Random,
    ) -> Result<u64> {
        self.clear()?;
        let mut done = 0;
        while done < kills || Instant::now() < until {
            let mut command = self.command(&["run", &self.steps.to_string()]);
            let printed = run_and_kill(&mut command, 24, |line| line.parse().ok(), random)?;
            let (steps, digest) = self
                .digest()
                .map_err(|e| format!("after kill {done}: {e}"))?;
            // One more than printed: the kill came between msync and the line.
            let known = printed.is_none_or(|p| steps == p || steps == p + 1);
            if !known || twin.get(steps as usize) != Some(&digest) {
                return Err(format!(
                    "kill {done} (seed {}): {printed:?} was the last step reported durable, the file has {steps} steps and \
                     digest {digest}, the twin's is {:?}; the file is kept: {}",
                    random.seed,
                    twin.get(steps as usize),
                    self.file().display()
                )
                .into());
            }
            done += 1;
            if steps >= self.steps {
                self.clear()?;
            }
        }
        Ok(done)
    }
}

/// A small generator (splitmix64), so that a seed repeats a run's choices.
#[derive(Debug, Clone)]
pub struct Random {
    /// What it began with.
    pub seed: u64,
    state: u64,
}

impl Random {
    /// Begins with `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit.max(1)
    }
}
